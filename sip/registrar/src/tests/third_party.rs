//! Third-party registration.

use sip_ims::service::Caller;
use sip_proto::Transport;

use super::house::{House, flow, status};
use crate::registrar::Arrival;

fn house() -> House {
    let mut house = House::with(|c| c.store = crate::registrar::Acknowledge::Behind, true);
    house.caller = Caller::Trusted;
    house
}

/// A REGISTER as an S-CSCF makes it (TS 24.229 §5.4.1.7).
fn register(to: &str, cseq: u32, expires: u32, kind: &str, body: &str) -> String {
    format!(
        "REGISTER sip:as.example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7:6060;branch=z9hG4bKt{cseq}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:scscf.example.com>;tag=s\r\nTo: <{to}>\r\nCall-ID: tp\r\n\
         CSeq: {cseq} REGISTER\r\nContact: <sip:scscf.example.com:6060>\r\nExpires: {expires}\r\n{kind}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn told(house: &mut House, text: &str) -> Vec<u16> {
    let core = flow(Transport::Udp, 9, "192.0.2.7:6060");
    let now = house.request(&core, text);
    let later = house.stack.sent.lock().drain(..).collect::<Vec<_>>();
    now.iter().chain(&later).map(|r| status(r)).collect()
}

/// URI, Path and parameters of alice's contacts.
fn ways(house: &House, aor: &str) -> Vec<[String; 3]> {
    use sip_ims::service::Location;
    let mut all = Vec::new();
    house.registrar.each(aor, house.unix, &mut |r| {
        assert_eq!(r.hop, None);
        all.push([r.uri, r.path, r.params].map(|t| String::from_utf8(t.to_vec()).unwrap()));
    });
    all
}

#[test]
fn the_user_is_reached_through_the_s_cscf_with_the_phones_features() {
    let mut house = house();
    let inner = "REGISTER sip:example.com SIP/2.0\r\nFrom: <sip:alice@example.com>;tag=1\r\n\
        To: <sip:alice@example.com>\r\nContact: <sip:alice@10.1.1.1>;+sip.instance=\"<urn:x>\";reg-id=1;+g.3gpp.smsip;\
        expires=600;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\"\r\nContent-Length: 0\r\n\r\n";
    let body = format!(
        "--b\r\nContent-Type: application/3gpp-ims+xml\r\n\r\n<ims-3gpp version=\"1\"><service-info>x</service-info>\
         </ims-3gpp>\r\n--b\r\nContent-Type: message/sip\r\n\r\n{inner}\r\n--b--\r\n"
    );
    let kind = "Content-Type: multipart/mixed;boundary=b\r\n";
    assert_eq!(told(&mut house, &register("sip:alice@example.com", 1, 600, kind, &body)), [200]);
    let features = ";+g.3gpp.smsip;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\"";
    let way = ["sip:alice@example.com", "<sip:scscf.example.com:6060;lr>", features].map(str::to_owned);
    assert_eq!(ways(&house, "alice@example.com"), [way]);
    assert_eq!(*house.arrivals.lock(), [("alice@example.com".to_owned(), Arrival::Reachable)]);
    assert_eq!(house.registrar.bindings(), 1);
    // De-registration.
    assert_eq!(told(&mut house, &register("sip:alice@example.com", 2, 0, "", "")), [200]);
    assert!(ways(&house, "alice@example.com").is_empty());
}

#[test]
fn users_that_only_the_hss_knows_are_kept_and_run_out() {
    let mut house = house();
    assert_eq!(told(&mut house, &register("sip:carol@example.com", 1, 120, "", "")), [200]);
    assert_eq!(told(&mut house, &register("tel:+819011112222", 2, 120, "", "")), [200]);
    assert_eq!(told(&mut house, &register("tel:+819012345678", 3, 120, "", "")), [200], "alice's number");
    for aor in ["carol@example.com", "+819011112222@example.com", "alice@example.com"] {
        assert_eq!(ways(&house, aor).len(), 1, "{aor}");
    }
    assert_eq!(told(&mut house, &register("sip:carol@elsewhere.test", 4, 120, "", "")), [404]);
    house.pass(121);
    assert_eq!(house.registrar.bindings(), 0);
}

#[test]
fn strangers_and_nonsense_are_refused() {
    let mut house = house();
    let xml = "Content-Type: application/3gpp-ims+xml\r\n";
    let bad = register("sip:alice@example.com", 1, 120, xml, "<!DOCTYPE x []><ims-3gpp/>");
    assert_eq!(told(&mut house, &bad), [400]);
    let no_contact = register("sip:alice@example.com", 2, 120, "", "").replace("Contact: <sip:scscf", "X: <sip:scscf");
    assert_eq!(told(&mut house, &no_contact), [400]);
    house.caller = Caller::Foreign;
    assert_eq!(told(&mut house, &register("sip:alice@example.com", 3, 120, "", "")), [401]);
    let mut open = House::open();
    assert_eq!(told(&mut open, &register("sip:alice@example.com", 4, 120, "", "")), [403]);
    assert_eq!((house.registrar.bindings(), open.registrar.bindings()), (0, 0));
}
