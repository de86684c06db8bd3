//! The registration event package (RFC 3680) from SUBSCRIBE to the last NOTIFY.

use sip_ims::service::{Caller, Outcome};
use sip_proto::{HeaderName, Hop, Message, Transport};
use sip_xml::{Document, Element};

use super::house::*;
use crate::{Acknowledge, RegistrarConfig};

const NS: &str = "urn:ietf:params:xml:ns:reginfo";

fn subscribe(cseq: u32, to_tag: &str, more: &str) -> String {
    format!(
        "SUBSCRIBE sip:alice@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bKs{cseq}\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@example.com>;tag=w\r\nTo: <sip:alice@example.com>{to_tag}\r\nCall-ID: s1\r\nCSeq: {cseq} SUBSCRIBE\r\n\
         Contact: <sip:watcher@192.0.2.9:5062>\r\nEvent: reg;id=7\r\n{more}Content-Length: 0\r\n\r\n"
    )
}

fn tag(response: &str) -> String {
    let to = values(response, HeaderName::To).remove(0);
    to[to.find(";tag=").unwrap()..].to_owned()
}

fn body(notify: &str) -> Element {
    Document::parse(Message::parse(notify.as_bytes()).unwrap().body()).unwrap().root
}

/// Version, kind, registration state and `contact event` of each contact.
fn told(notify: &str) -> (String, String, String, Vec<String>) {
    let root = body(notify);
    let registration = root.child(NS, "registration").unwrap();
    let contact = |c: &Element| format!("{} {}", c.child(NS, "uri").unwrap().text(), c.attribute("event").unwrap());
    let text = |e: &Element, n| e.attribute(n).unwrap().to_owned();
    let contacts = registration.all(NS, "contact").map(contact).collect();
    (text(&root, "version"), text(&root, "state"), text(registration, "state"), contacts)
}

fn is(notify: Option<String>, version: &str, kind: &str, state: &str, contacts: &[&str]) {
    let (v, k, s, c) = told(&notify.expect("a NOTIFY"));
    assert_eq!((&*v, &*k, &*s), (version, kind, state));
    assert_eq!(c, contacts);
}

#[test]
fn a_watcher_gets_everything_first_and_then_what_changes() {
    let mut house = House::open();
    house.register(1, "Contact: <sip:a@x>;expires=1000\r\n");
    let ok = house.request(&phone(), &subscribe(1, "", "Expires: 600\r\n")).remove(0);
    assert_eq!((status(&ok), values(&ok, HeaderName::Expires)), (200, vec!["600".to_owned()]));
    assert_eq!(values(&ok, HeaderName::Contact), ["<sip:192.0.2.1:5060;transport=udp>"]);
    assert_eq!(house.stack.requests.lock()[0].0, Hop::Flow(phone()));
    let first = house.notified(200).unwrap();
    assert!(first.starts_with("NOTIFY sip:watcher@192.0.2.9:5062 SIP/2.0\r\n"), "{first}");
    assert!(values(&first, HeaderName::Via).is_empty());
    assert_eq!(values(&first, HeaderName::Event), ["reg;id=7"]);
    assert_eq!(values(&first, HeaderName::SubscriptionState), ["active;expires=600"]);
    assert_eq!(values(&first, HeaderName::ContentType), ["application/reginfo+xml"]);
    is(Some(first), "0", "full", "active", &["sip:a@x registered"]);
    house.register(2, "Contact: <sip:b@x>;expires=1000\r\n");
    house.register(3, "Contact: <sip:a@x>;expires=100\r\n");
    assert_eq!(house.notified(200), None, "not faster than the package allows");
    house.pass(5);
    is(house.notified(200), "1", "partial", "active", &["sip:b@x created", "sip:a@x shortened"]);
    house.pass(95);
    is(house.notified(200), "2", "partial", "active", &["sip:a@x expired"]);
    house.pass(5);
    house.register(4, "Contact: *\r\nExpires: 0\r\n");
    is(house.notified(200), "3", "partial", "terminated", &["sip:b@x unregistered"]);
    assert_eq!(house.registrar.subscriptions(), 1);
}

#[test]
fn a_refresh_brings_everything_again_and_0_ends_it() {
    let mut house = House::open();
    let tag = tag(&house.request(&phone(), &subscribe(1, "", ""))[0]);
    is(house.notified(200), "0", "full", "init", &[]);
    house.register(1, "Contact: <sip:a@x>\r\n");
    let ok = house.request(&phone(), &subscribe(2, &tag, "Expires: 300\r\n")).remove(0);
    assert_eq!(values(&ok, HeaderName::Expires), ["300"]);
    is(house.notified(200), "1", "full", "active", &["sip:a@x created"]);
    assert_eq!(status(&house.request(&phone(), &subscribe(2, &tag, "").replace("K", "k"))[0]), 500, "CSeq");
    assert_eq!(status(&house.request(&phone(), &subscribe(3, ";tag=other", ""))[0]), 481);
    house.request(&phone(), &subscribe(4, &tag, "Expires: 0\r\n"));
    let last = house.notified(200).unwrap();
    assert_eq!(values(&last, HeaderName::SubscriptionState), ["terminated;reason=timeout"]);
    assert_eq!(house.registrar.subscriptions(), 0);
    assert_eq!(status(&house.request(&phone(), &subscribe(5, &tag, ""))[0]), 481);
}

#[test]
fn a_fetch_gets_one_notify() {
    let mut house = House::open();
    house.register(1, "Contact: <sip:a@x>\r\n");
    house.request(&phone(), &subscribe(1, "", "Expires: 0\r\n"));
    is(house.notified(200), "0", "full", "active", &["sip:a@x registered"]);
    assert_eq!(house.registrar.subscriptions(), 0);
}

#[test]
fn a_subscription_runs_out_and_a_lost_watcher_is_forgotten() {
    let mut house = House::open();
    house.request(&phone(), &subscribe(1, "", "Expires: 60\r\n"));
    house.notified(200);
    house.pass(60);
    let last = house.notified(200).unwrap();
    assert_eq!(values(&last, HeaderName::SubscriptionState), ["terminated;reason=timeout"]);
    assert_eq!(house.registrar.subscriptions(), 0);
    house.request(&phone(), &subscribe(2, "", "").replace("Call-ID: s1", "Call-ID: s2"));
    let (_, _, done) = house.stack.requests.lock().remove(0);
    done(Outcome::Timeout);
    house.work();
    assert_eq!(house.registrar.subscriptions(), 0);
}

#[test]
fn a_closed_connection_is_told() {
    let mut house = House::open();
    let tcp = flow(Transport::Tcp, 8, "192.0.2.9:4000");
    house.register_over(&tcp, 1, "Contact: <sip:a@192.0.2.9:4000;transport=tcp>\r\n");
    house.request(&phone(), &subscribe(1, "", ""));
    house.notified(200);
    house.unix += 5;
    house.registrar.flow_closed(house.now(), house.unix, &tcp);
    is(house.notified(200), "1", "partial", "terminated", &["sip:a@192.0.2.9:4000;transport=tcp deactivated"]);
}

#[test]
fn a_removed_user_ends_its_watchers() {
    let mut house = House::open();
    house.register(1, "Contact: <sip:a@x>\r\n");
    house.request(&phone(), &subscribe(1, "", ""));
    house.notified(200);
    house.unix += 5;
    house.registrar.deregister(house.now(), house.unix, "alice@example.com");
    is(house.notified(200), "1", "partial", "terminated", &["sip:a@x rejected"]);
    let last = house.notified(200).unwrap();
    assert_eq!(values(&last, HeaderName::SubscriptionState), ["terminated;reason=noresource"]);
    assert_eq!((house.registrar.subscriptions(), house.registrar.bindings()), (0, 0));
}

#[test]
fn a_binding_made_while_its_user_is_removed_goes_too() {
    let mut house = House::open();
    house.registrar.deregister(house.now(), house.unix, "alice@example.com");
    house.register(1, "Contact: <sip:a@x>\r\n");
    house.registrar.parts.directory.remove("alice");
    house.pass(1);
    assert_eq!(house.registrar.bindings(), 0);
}

#[test]
fn a_user_who_is_back_keeps_its_binding() {
    let mut house = House::open();
    house.registrar.deregister(house.now(), house.unix, "alice@example.com");
    house.register(1, "Contact: <sip:a@x>\r\n");
    house.pass(1);
    house.pass(2);
    assert_eq!(house.registrar.bindings(), 1);
}

#[test]
fn only_the_user_and_the_core_may_watch() {
    let mut house = House::with(|c: &mut RegistrarConfig| c.store = Acknowledge::Behind, true);
    let user = |house: &House, id| Caller::User(house.registrar.parts.directory.by_id(id).unwrap());
    for (caller, expected) in
        [(Caller::Foreign, 403), (user(&house, "bob"), 403), (user(&house, "alice"), 200), (Caller::Trusted, 200)]
    {
        let call_id = format!("Call-ID: {}", house.unix);
        house.unix += 1;
        house.caller = caller;
        let text = subscribe(1, "", "").replace("Call-ID: s1", &call_id).replace("K", &call_id[9..]);
        let text = text.replace("z9hG4b", "z9hG4bK");
        assert_eq!(status(&house.request(&phone(), &text)[0]), expected);
    }
}

#[test]
fn bad_subscriptions_are_refused() {
    let mut house = House::with(|c: &mut RegistrarConfig| (c.store, c.max_watchers) = (Acknowledge::Behind, 1), false);
    let brief = house.request(&phone(), &subscribe(1, "", "Expires: 59\r\n")).remove(0);
    assert_eq!((status(&brief), values(&brief, HeaderName::MinExpires)), (423, vec!["60".to_owned()]));
    let odd = house.request(&phone(), &subscribe(2, "", "Accept: text/plain\r\n")).remove(0);
    assert_eq!((status(&odd), values(&odd, HeaderName::Accept)), (406, vec!["application/reginfo+xml".to_owned()]));
    let text = subscribe(3, "", "").replace("Contact: <sip:watcher@192.0.2.9:5062>\r\n", "");
    assert_eq!(status(&house.request(&phone(), &text)[0]), 400);
    assert_eq!(
        status(&house.request(&phone(), &subscribe(4, "", "Accept: text/plain, application/*;q=0.1\r\n"))[0]),
        200
    );
    assert_eq!(status(&house.request(&phone(), &subscribe(5, "", ""))[0]), 482);
    let second = subscribe(6, "", "").replace("Call-ID: s1", "Call-ID: s2");
    assert_eq!(status(&house.request(&phone(), &second)[0]), 503);
}

#[test]
fn many_changes_at_once_become_full_state() {
    let mut house = House::with(|c: &mut RegistrarConfig| (c.store, c.max_contacts) = (Acknowledge::Behind, 40), false);
    house.request(&phone(), &subscribe(1, "", ""));
    house.notified(200);
    for i in 1..=40 {
        house.register(i, &format!("Contact: <sip:c{i}@x>\r\n"));
    }
    house.pass(5);
    let (version, kind, _, contacts) = told(&house.notified(200).unwrap());
    assert_eq!((&*version, &*kind, contacts.len()), ("1", "full", 40));
}
