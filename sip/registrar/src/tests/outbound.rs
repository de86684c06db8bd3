//! Flows (RFC 5626) and GRUUs (RFC 5627).

use sip_ims::service::{Location, Reach};
use sip_proto::uri::Uri;
use sip_proto::{Flow, HeaderName, Hop, Transport};

use super::house::*;

const INSTANCE: &str = "+sip.instance=\"<urn:uuid:1>\"";

fn tls(id: u64) -> Flow {
    flow(Transport::Tls, id, &format!("192.0.2.9:{}", 4000 + id))
}

fn over(house: &mut House, flow: &Flow, cseq: u32, reg_id: u32) -> String {
    let more = format!(
        "Supported: path, outbound\r\nContact: <sip:alice@{};transport=tls>;reg-id={reg_id};{INSTANCE};expires=900\r\n",
        flow.remote
    );
    house.register_over(flow, cseq, &more)
}

#[test]
fn a_udp_flow_is_kept_alive_before_a_nat_forgets_it() {
    let mut house = House::open();
    let udp = flow(Transport::Udp, 0, "192.0.2.9:4000");
    let ok = over(&mut house, &udp, 1, 1);
    assert_eq!(values(&ok, HeaderName::FlowTimer), ["29"]);
}

#[test]
fn each_flow_of_an_instance_is_a_binding() {
    let mut house = House::open();
    let ok = over(&mut house, &tls(1), 1, 1);
    assert_eq!(values(&ok, HeaderName::Require), ["outbound"]);
    assert_eq!(values(&ok, HeaderName::FlowTimer), ["120"]);
    over(&mut house, &tls(2), 2, 2);
    assert_eq!(house.registrar.bindings(), 2);
    // A new connection for the first flow replaces it.
    let ok = over(&mut house, &tls(3), 3, 1);
    assert_eq!(values(&ok, HeaderName::Contact).len(), 2);
    let hops: Vec<_> = house.reaches().into_iter().map(|(_, hop)| hop.unwrap()).collect();
    assert!(hops.contains(&Hop::Flow(tls(2))) && hops.contains(&Hop::Flow(tls(3))), "{hops:?}");
    house.store.commit(Ok(()));
    assert_eq!(house.store.keys(), ["<urn:uuid:1>1", "<urn:uuid:1>2"]);
}

#[test]
fn a_closed_connection_takes_its_flow_away() {
    let mut house = House::open();
    over(&mut house, &tls(1), 1, 1);
    over(&mut house, &tls(2), 2, 2);
    house.registrar.flow_closed(house.now(), house.unix, &tls(1));
    assert_eq!(house.reaches().into_iter().map(|(_, h)| h).collect::<Vec<_>>(), [Some(Hop::Flow(tls(2)))]);
    house.store.commit(Ok(()));
    assert_eq!(house.store.keys(), ["<urn:uuid:1>2"]);
    // Another connection, or one that carried nothing, does no harm.
    house.registrar.flow_closed(house.now(), house.unix, &tls(9));
    assert_eq!(house.registrar.bindings(), 1);
}

#[test]
fn a_flow_that_failed_is_forgotten_and_an_address_is_not() {
    let mut house = House::open();
    for n in [1, 2] {
        let contact = format!("Contact: <sip:alice@h;ob>;reg-id={n};{INSTANCE}\r\n");
        house.register_over(&tls(n.into()), n, &format!("Supported: outbound\r\n{contact}"));
    }
    house.register(3, "Contact: <sip:a@x>\r\n");
    let fail = |uri: &str, hop| {
        let way = Reach { uri: uri.as_bytes(), path: b"", hop, elsewhere: None, q: 0, instance: b"", params: b"" };
        house.registrar.failed("alice@example.com", &way);
    };
    // Both flows have the same contact: the one that failed goes.
    let contact = house.reaches().into_iter().find(|r| r.1 == Some(Hop::Flow(tls(2)))).unwrap().0;
    fail(&contact, Some(Hop::Flow(tls(2))));
    fail(&contact, Some(Hop::Flow(tls(9))));
    fail("sip:a@x", None);
    let left = [(contact, Some(Hop::Flow(tls(1)))), ("sip:a@x".to_owned(), None)];
    assert!(house.reaches().len() == 2 && left.iter().all(|l| house.reaches().contains(l)), "{:?}", house.reaches());
}

#[test]
fn outbound_needs_a_first_hop_that_keeps_flows() {
    let mut house = House::open();
    let contact = format!("Contact: <sip:alice@h>;reg-id=1;{INSTANCE}\r\n");
    let proxied = |more: &str| {
        register(&phone(), "alice", 1, &format!("{more}{contact}")).replacen(
            "Max-Forwards",
            "Via: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bKx\r\nMax-Forwards",
            1,
        )
    };
    for (more, expected, required) in [
        ("Supported: outbound\r\n", 439, false),
        ("Supported: outbound, path\r\nPath: <sip:edge;lr>\r\n", 439, false),
        ("", 200, false),
        ("Supported: outbound, path\r\nPath: <sip:edge;lr;ob>\r\n", 200, true),
    ] {
        let answer = house.request(&phone(), &proxied(more)).remove(0);
        assert_eq!(status(&answer), expected, "{more}");
        assert_eq!(!values(&answer, HeaderName::Require).is_empty(), required, "{more}");
        assert!(values(&answer, HeaderName::FlowTimer).is_empty(), "the edge has its own");
    }
    // The first was bound by its URI, the second by its flow.
    house.store.commit(Ok(()));
    assert_eq!(house.store.keys(), ["<urn:uuid:1>1", "sip:alice@h"]);
}

#[test]
fn a_reg_id_needs_an_instance_and_stands_alone() {
    let mut house = House::open();
    let ok = house.register(1, "Supported: outbound\r\nContact: <sip:a@x>;reg-id=1\r\n");
    assert!(status(&ok) == 200 && values(&ok, HeaderName::Require).is_empty());
    assert_eq!(values(&ok, HeaderName::Contact), ["<sip:a@x>;expires=3600"]);
    let two = format!("Supported: outbound\r\nContact: <sip:b@x>;reg-id=1;{INSTANCE}, <sip:c@x>\r\n");
    assert_eq!(status(&house.register(2, &two)), 400);
    let remove = format!("Supported: outbound\r\nContact: <sip:b@x>;reg-id=1;{INSTANCE}, <sip:a@x>;expires=0\r\n");
    assert_eq!(status(&house.register(3, &remove)), 200);
    assert_eq!(house.contacts(), ["sip:b@x"]);
}

#[test]
fn a_browser_is_reached_over_its_socket() {
    let mut house = House::open();
    let ws = flow(Transport::Wss, 5, "192.0.2.9:50000");
    house.register_over(&ws, 1, "Contact: <sip:x@df7jal23ls0d.invalid;transport=ws>\r\n");
    assert_eq!(house.reaches()[0].1, Some(Hop::Flow(ws)));
    house.registrar.flow_closed(house.now(), house.unix, &ws);
    assert!(house.contacts().is_empty());
}

fn gruu(response: &str, name: &str) -> String {
    let contact = values(response, HeaderName::Contact).remove(0);
    let from = contact.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
    contact[from..].split('"').next().unwrap().to_owned()
}

fn resolved(house: &House, uri: &str) -> Option<usize> {
    let mut seen = 0;
    let uri = Uri::parse(uri.as_bytes()).unwrap();
    house.registrar.each_of_gruu(&uri, house.unix, &mut |_| seen += 1).then_some(seen)
}

#[test]
fn gruus_are_given_to_those_who_ask_and_lead_to_their_instance() {
    let mut house = House::open();
    let plain = house.register(1, &format!("Contact: <sip:a@x>;{INSTANCE}\r\n"));
    assert!(!plain.contains("gruu"));
    house.register(2, "Contact: <sip:b@x>\r\n");
    let ok =
        house.register(3, &format!("Supported: gruu\r\nContact: <sip:a@x>;{INSTANCE};pub-gruu=\"sip:evil@x\"\r\n"));
    let (public, temporary) = (gruu(&ok, "pub-gruu"), gruu(&ok, "temp-gruu"));
    assert_eq!(public, "sip:alice@example.com;gr=urn:uuid:1");
    assert!(!ok.contains("evil") && !temporary.contains("alice"));
    assert_eq!((resolved(&house, &public), resolved(&house, &temporary)), (Some(1), Some(1)));
    assert_eq!(resolved(&house, "sip:alice@example.com;gr=urn:uuid:2"), Some(0));
    for bad in ["sip:alice@example.com", "sip:alice@example.org;gr=urn:uuid:1", "sip:tgruu.abc@example.com;gr"] {
        assert_eq!(resolved(&house, bad), None, "{bad}");
    }
    // As a contact it would go in circles.
    assert_eq!(status(&house.register(4, &format!("Contact: <{temporary}>\r\n"))), 403);
}

#[test]
fn a_temporary_gruu_ends_with_its_registration() {
    let mut house = House::open();
    let contact = format!("Supported: gruu\r\nContact: <sip:a@x>;{INSTANCE}\r\n");
    let ok = house.register(1, &contact);
    let (public, first) = (gruu(&ok, "pub-gruu"), gruu(&ok, "temp-gruu"));
    let second = gruu(&house.register(2, &contact), "temp-gruu");
    assert_ne!(first, second);
    assert_eq!((resolved(&house, &first), resolved(&house, &second)), (Some(1), Some(1)), "they add up");
    let restarted = register(&phone(), "alice", 1, &contact).replace("Call-ID: c1", "Call-ID: c2");
    let third = gruu(&house.request(&phone(), &restarted)[0], "temp-gruu");
    assert_eq!((resolved(&house, &first), resolved(&house, &third)), (None, Some(1)));
    house.pass(4000);
    assert_eq!((resolved(&house, &third), resolved(&house, &public)), (None, Some(0)));
}

#[test]
fn each_shows_the_instance_and_the_features() {
    let mut house = House::open();
    house.register(1, &format!("Contact: <sip:a@x>;{INSTANCE};video;q=0.5\r\n"));
    let mut seen = Vec::new();
    house.registrar.each("alice@example.com", START, &mut |r| {
        seen.push((r.instance.to_vec(), r.params.to_vec(), r.q));
    });
    assert_eq!(seen, [(b"urn:uuid:1".to_vec(), b";video".to_vec(), 500)]);
}
