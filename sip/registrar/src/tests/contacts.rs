//! RFC 3261 §10.3, RFC 3327, RFC 3608, authentication.

use sip_ims::service::{Caller, Location};
use sip_proto::digest::Answer;
use sip_proto::headers::Challenge;
use sip_proto::{Flow, HeaderName, Message, Transport};

use super::house::*;
use crate::{Acknowledge, Arrival};

#[test]
fn a_contact_is_bound_shown_and_found() {
    let mut house = House::open();
    let ok = house
        .register(1, "Contact: \"A\" <sip:alice@192.0.2.9:5062>;q=0.5;expires=600;audio;methods=\"INVITE,BYE\"\r\n");
    assert_eq!(status(&ok), 200);
    assert_eq!(
        values(&ok, HeaderName::Contact),
        ["<sip:alice@192.0.2.9:5062>;expires=600;q=0.5;audio;methods=\"INVITE,BYE\""]
    );
    assert_eq!(values(&ok, HeaderName::Date), ["Fri, 15 Jan 2027 08:00:00 GMT"]);
    assert_eq!(
        values(&ok, HeaderName::PAssociatedUri),
        ["<sip:alice@example.com>, <sip:+819012345678@example.com;user=phone>, <tel:+819012345678>"]
    );
    assert_eq!(values(&ok, HeaderName::AllowEvents), ["reg"]);
    assert_eq!(house.reaches(), [("sip:alice@192.0.2.9:5062".into(), None)]);
    assert_eq!(house.registrar.bindings(), 1);
}

#[test]
fn a_fetch_changes_nothing_and_shows_what_is_left() {
    let mut house = House::open();
    house.register(1, "Contact: <sip:alice@192.0.2.9:5062>;expires=600\r\n");
    house.unix += 100;
    let ok = house.register(1, "");
    assert_eq!(values(&ok, HeaderName::Contact), ["<sip:alice@192.0.2.9:5062>;expires=500"]);
    house.unix += 500;
    assert!(values(&house.register(1, ""), HeaderName::Contact).is_empty());
    assert!(house.contacts().is_empty());
}

#[test]
fn contacts_stand_by_q_and_are_removed_one_by_one() {
    let mut house = House::open();
    house.register(1, "Contact: <sip:a@x>;q=0.2, <sip:b@x>\r\nContact: <sip:c@x>;q=0.7\r\nExpires: 300\r\n");
    assert_eq!(house.contacts(), ["sip:b@x", "sip:c@x", "sip:a@x"]);
    let ok = house.register(2, "Contact: <sip:C@X>;expires=0, <sip:c@X>;expires=0\r\n");
    assert_eq!(values(&ok, HeaderName::Contact).len(), 2, "the user part has case, the host has none");
    assert_eq!(house.contacts(), ["sip:b@x", "sip:a@x"]);
    assert_eq!(status(&house.register(3, "Contact: <sip:nobody@x>;expires=0\r\n")), 200);
}

#[test]
fn a_star_removes_all_and_only_with_expires_0() {
    let mut house = House::open();
    house.register(1, "Contact: <sip:a@x>, <sip:b@x>\r\n");
    for bad in [
        "Contact: *\r\n",
        "Contact: *\r\nExpires: 10\r\n",
        "Contact: *, <sip:c@x>\r\nExpires: 0\r\n",
        "Contact: <sip:c@x>\r\nContact: *\r\nExpires: 0\r\n",
    ] {
        assert_eq!(status(&house.register(2, bad)), 400, "{bad}");
    }
    assert_eq!(house.contacts().len(), 2);
    let ok = house.register(2, "Contact: *\r\nExpires: 0\r\n");
    assert!(values(&ok, HeaderName::Contact).is_empty());
    assert_eq!(house.registrar.bindings(), 0);
    house.store.commit(Ok(()));
    assert!(house.store.keys().is_empty());
}

#[test]
fn an_old_star_is_out_of_order() {
    let mut house = House::open();
    house.register(5, "Contact: <sip:a@x>\r\n");
    assert_eq!(status(&house.register(4, "Contact: *\r\nExpires: 0\r\n")), 500);
    assert_eq!(house.contacts().len(), 1);
}

#[test]
fn expiry_has_bounds_and_a_default() {
    let mut house = House::with(
        |c| (c.store, c.min_expires, c.max_expires, c.default_expires) = (Acknowledge::Behind, 120, 7200, 1800),
        false,
    );
    let brief = house.register(1, "Contact: <sip:a@x>;expires=119\r\n");
    assert_eq!((status(&brief), values(&brief, HeaderName::MinExpires)), (423, vec!["120".to_owned()]));
    assert_eq!(house.registrar.bindings(), 0);
    for (cseq, more, granted) in [
        (2, "Contact: <sip:a@x>;expires=120\r\nExpires: 9000\r\n", 120),
        (3, "Contact: <sip:a@x>\r\nExpires: 9000\r\n", 7200),
        (4, "Contact: <sip:a@x>\r\n", 1800),
        (5, "Contact: <sip:a@x>;expires=soon\r\n", 3600),
        (6, "Contact: <sip:a@x>;expires=4294967296\r\n", 3600),
    ] {
        let ok = house.register(cseq, more);
        assert_eq!(values(&ok, HeaderName::Contact), [format!("<sip:a@x>;expires={granted}")], "{more}");
    }
}

#[test]
fn an_hour_is_never_too_brief() {
    let mut house = House::with(|c| (c.store, c.min_expires) = (Acknowledge::Behind, 7200), false);
    assert_eq!(status(&house.register(1, "Contact: <sip:a@x>;expires=3600\r\n")), 200);
    let brief = house.register(2, "Contact: <sip:a@x>;expires=3599\r\n");
    assert_eq!((status(&brief), values(&brief, HeaderName::MinExpires)), (423, vec!["3600".to_owned()]));
}

#[test]
fn late_requests_are_refused_and_repeated_ones_answered_alike() {
    let mut house = House::open();
    let contact = "Contact: <sip:alice@192.0.2.9:5062>;expires=600\r\n";
    let first = house.register(5, contact);
    assert_eq!(status(&house.register(4, contact)), 500);
    assert_eq!(house.register(5, contact), first);
    // The same request from somewhere else moves nothing and prolongs nothing, here or in the store.
    let thief = flow(Transport::Udp, 1, "198.51.100.1:9");
    house.unix += 100;
    house.request(&thief, &register(&phone(), "alice", 5, contact));
    assert_eq!(house.reaches(), [("sip:alice@192.0.2.9:5062".into(), None)]);
    assert_eq!(values(&house.register(5, ""), HeaderName::Contact), ["<sip:alice@192.0.2.9:5062>;expires=500"]);
    house.store.commit(Ok(()));
    let row = house.store.rows.lock().values().next().unwrap().clone();
    assert_eq!((row.expires_at, row.flow), (START as i64 + 600, None));
    let ok = house.register(6, &contact.replace("600", "900"));
    assert_eq!(values(&ok, HeaderName::Contact), ["<sip:alice@192.0.2.9:5062>;expires=900"]);
}

#[test]
fn another_call_id_may_begin_anew() {
    let mut house = House::open();
    house.register(50, "Contact: <sip:a@x>;expires=600\r\n");
    let text =
        register(&phone(), "alice", 1, "Contact: <sip:a@x>;expires=700\r\n").replace("Call-ID: c1", "Call-ID: c2");
    assert_eq!(values(&house.request(&phone(), &text)[0], HeaderName::Contact), ["<sip:a@x>;expires=700"]);
    let text = text.replace("expires=700", "expires=0").replace("Call-ID: c2", "Call-ID: c3");
    house.request(&phone(), &text);
    assert!(house.contacts().is_empty());
}

#[test]
fn all_contacts_of_a_request_are_bound_or_none() {
    let mut house = House::open();
    house.register(5, "Contact: <sip:a@x>\r\n");
    let text = register(&phone(), "alice", 4, "Contact: <sip:new@x>, <sip:a@x>\r\n");
    assert_eq!(status(&house.request(&phone(), &text)[0]), 500);
    assert_eq!(house.contacts(), ["sip:a@x"]);
    assert_eq!(status(&house.register(6, "Contact: <sip:new@x>, <sip:b@x>;expires=5\r\n")), 423);
    assert_eq!(house.contacts(), ["sip:a@x"]);
}

#[test]
fn one_address_has_so_many_contacts_and_no_more() {
    let mut house = House::with(|c| (c.store, c.max_contacts) = (Acknowledge::Behind, 2), false);
    assert_eq!(status(&house.register(1, "Contact: <sip:a@x>, <sip:b@x>, <sip:c@x>\r\n")), 403);
    house.register(2, "Contact: <sip:a@x>;expires=100, <sip:b@x>;expires=200\r\n");
    assert_eq!(status(&house.register(3, "Contact: <sip:c@x>\r\n")), 403);
    assert_eq!(status(&house.register(4, "Contact: <sip:b@x>\r\n")), 200, "a refresh needs no room");
    house.unix += 150;
    assert_eq!(status(&house.register(5, "Contact: <sip:c@x>\r\n")), 200, "what has expired takes none");
    assert_eq!(house.contacts().len(), 2);
}

#[test]
fn bad_contacts_are_refused() {
    let mut house = House::open();
    let long = format!("Contact: <sip:a@x;p={}>\r\n", "y".repeat(1100));
    let params = format!("Contact: <sip:a@x>;p={}\r\n", "y".repeat(1100));
    let path = format!("Supported: path\r\nPath: <sip:p@x;p={}>\r\nContact: <sip:a@x>\r\n", "y".repeat(4200));
    for (more, expected) in [
        ("Contact: <sip:a@x?Route=%3Csip:y%3E>\r\n", 400),
        ("Contact: sip:a@x?Route=y\r\n", 400),
        ("Supported: path\r\nPath: <sip:p\r\nContact: <sip:a@x>\r\n", 400),
        ("Contact: <sip:a@x>;q=2\r\n", 400),
        ("Contact: <sip:a@x>, <sip:a@X>\r\n", 400),
        ("Contact: <tel:+819012345678>\r\n", 403),
        ("Contact: <mailto:a@x>\r\n", 403),
        ("Contact: <sip:alice@example.com>\r\n", 403),
        ("Contact: <sips:%61lice@EXAMPLE.com;gr=urn:x>\r\n", 403),
        (&long, 400),
        (&params, 400),
        (&path, 400),
    ] {
        assert_eq!(status(&house.register(1, more)), expected, "{}", &more[..40]);
    }
    assert_eq!(house.registrar.bindings(), 0);
    assert_eq!(*house.penalties.lock(), 10, "what is malformed costs its sender");
}

#[test]
fn what_is_required_must_be_known() {
    let mut house = House::open();
    let bad = house.register(1, "Require: wings, path\r\nContact: <sip:a@x>\r\n");
    assert_eq!((status(&bad), values(&bad, HeaderName::Unsupported)), (420, vec!["wings".to_owned()]));
    assert_eq!(status(&house.register(1, "Require: path, gruu, outbound\r\nContact: <sip:a@x>\r\n")), 200);
}

#[test]
fn a_path_is_kept_shown_and_used() {
    let mut house = House::open();
    let path = "Path: <sip:p1.example.com;lr>\r\nPath: <sip:p2.example.com;lr>\r\n";
    let bad = house.register(1, &format!("{path}Contact: <sip:a@x>\r\n"));
    assert_eq!((status(&bad), values(&bad, HeaderName::Unsupported)), (420, vec!["path".to_owned()]));
    let ok = house.register(2, &format!("Supported: path\r\n{path}Contact: <sip:a@x>\r\n"));
    assert_eq!(values(&ok, HeaderName::Path), ["<sip:p1.example.com;lr>, <sip:p2.example.com;lr>"]);
    let mut seen = Vec::new();
    house.registrar.each("alice@example.com", START, &mut |r| seen.push((r.path.to_vec(), r.hop)));
    assert_eq!(seen, [(b"<sip:p1.example.com;lr>, <sip:p2.example.com;lr>".to_vec(), None)]);
}

#[test]
fn a_service_route_is_told() {
    let mut house = House::with(
        |c| (c.store, c.service_route) = (Acknowledge::Behind, b"<sip:orig@example.com;lr>".to_vec()),
        false,
    );
    let ok = house.register(1, "Contact: <sip:a@x>\r\n");
    assert_eq!(values(&ok, HeaderName::ServiceRoute), ["<sip:orig@example.com;lr>"]);
}

#[test]
fn strangers_and_other_domains_have_no_bindings() {
    let mut house = House::open();
    let text = register(&phone(), "alice", 1, "Contact: <sip:a@x>\r\n");
    for to in ["<sip:alice@example.org>", "<sip:example.com>", "<tel:+15550100>", "<mailto:a@example.com>"] {
        let text = text.replace("To: <sip:alice@example.com>", &format!("To: {to}"));
        assert_eq!(status(&house.request(&phone(), &text)[0]), 404, "{to}");
    }
    // Open: an address need not be provisioned.
    let carol = register(&phone(), "carol", 1, "Contact: <sip:c@x>\r\n");
    assert_eq!(status(&house.request(&phone(), &carol)[0]), 200);
}

#[test]
fn a_number_is_registered_under_its_user() {
    let mut house = House::open();
    for (cseq, to) in [(1, "<tel:+81-90-1234-5678>"), (2, "<sip:+819012345678@example.com;user=phone>")] {
        let text = register(&phone(), "alice", cseq, "Contact: <sip:a@x>\r\n")
            .replace("To: <sip:alice@example.com>", &format!("To: {to}"));
        assert_eq!(status(&house.request(&phone(), &text)[0]), 200);
        assert_eq!(house.contacts(), ["sip:a@x"]);
    }
}

/// A REGISTER over `flow` that answers the challenge in `response`.
fn answered(response: &str, flow: &Flow, user: &str, password: &str, cseq: u32, more: &str) -> String {
    let m = Message::parse(response.as_bytes()).unwrap();
    let challenge = Challenge::parse(m.value(HeaderName::WwwAuthenticate).unwrap()).unwrap();
    let answer = Answer {
        username: user.as_bytes(),
        password: password.as_bytes(),
        method: b"REGISTER",
        uri: b"sip:example.com",
        body: b"",
        cnonce: b"c",
        nc: 1,
    };
    let mut line = Vec::new();
    answer.write(&challenge, &mut line).unwrap();
    register(flow, "alice", cseq, &format!("Authorization: {}\r\n{more}", String::from_utf8(line).unwrap()))
}

#[test]
fn digest_lets_the_user_in_and_nobody_else() {
    let mut house = House::with(|c| c.store = Acknowledge::Behind, true);
    let contact = "Contact: <sip:alice@192.0.2.9:5062>\r\n";
    let challenge = house.register(1, contact);
    assert_eq!((status(&challenge), values(&challenge, HeaderName::WwwAuthenticate).len()), (401, 2));
    assert_eq!(*house.penalties.lock(), 0);
    let wrong = answered(&challenge, &phone(), "alice", "guess", 2, contact);
    assert_eq!(status(&house.request(&phone(), &wrong)[0]), 401);
    let bob = answered(&challenge, &phone(), "bob", "wonderland", 2, contact);
    assert_eq!(status(&house.request(&phone(), &bob)[0]), 403);
    assert_eq!(*house.penalties.lock(), 4);
    assert_eq!(house.registrar.bindings(), 0);
    let hopeless = house.register(1, "Contact: sip:a@x?Route=y\r\n");
    assert_eq!(status(&hopeless), 400, "before any password");
    let good = answered(&challenge, &phone(), "alice", "wonderland", 2, contact);
    assert_eq!(status(&house.request(&phone(), &good)[0]), 200);
    assert_eq!(house.contacts(), ["sip:alice@192.0.2.9:5062"]);
    // A trusted peer may register others without a password.
    house.caller = Caller::Trusted;
    let text = register(&phone(), "bob", 1, "Contact: <sip:s-cscf@x>\r\n");
    assert_eq!(status(&house.request(&phone(), &text)[0]), 200);
    let text = register(&phone(), "nobody", 1, "Contact: <sip:s-cscf@x>\r\n");
    assert_eq!(status(&house.request(&phone(), &text)[0]), 404);
}

#[test]
fn only_a_proved_connection_vouches_for_its_user() {
    let mut house = House::with(|c| c.store = Acknowledge::Behind, true);
    let alice = house.registrar.parts.directory.by_id("alice").unwrap();
    let bob = house.registrar.parts.directory.by_id("bob").unwrap();
    let tls = flow(Transport::Tls, 77, "192.0.2.9:4000");
    let nat = flow(Transport::Udp, 1, "192.0.2.9:4001");
    for (cseq, flow, vouches) in [(1, &tls, true), (3, &nat, false)] {
        let contact = "Contact: <sip:alice@10.0.0.2>\r\n";
        let challenge = house.register_over(flow, cseq, contact);
        let good = answered(&challenge, flow, "alice", "wonderland", cseq + 1, contact);
        let good = good.replace(&flow.remote.to_string(), "10.0.0.2");
        assert_eq!(status(&house.request(flow, &good)[0]), 200);
        assert_eq!(house.reaches()[0].1, Some(sip_proto::Hop::Flow(*flow)));
        assert_eq!(house.registrar.authenticated(flow, &alice), vouches);
        assert!(!house.registrar.authenticated(flow, &bob));
    }
    let good = {
        let contact = "Contact: <sip:alice@10.0.0.2>\r\n";
        let challenge = house.register_over(&tls, 5, contact);
        answered(&challenge, &tls, "alice", "wonderland", 6, contact).replace(&tls.remote.to_string(), "10.0.0.2")
    };
    house.request(&tls, &good);
    assert!(house.registrar.authenticated(&tls, &alice));
    assert!(!house.registrar.authenticated(&Flow { id: sip_proto::FlowId(78), ..tls }, &alice));
    house.registrar.flow_closed(house.now(), house.unix, &tls);
    assert!(!house.registrar.authenticated(&tls, &alice));
    // What a trusted peer registers was not proved by the user.
    house.caller = Caller::Trusted;
    let text = register(&tls, "bob", 1, "Contact: <sip:bob@192.0.2.9:4000>\r\n");
    assert_eq!(status(&house.request(&tls, &text)[0]), 200);
    assert!(!house.registrar.authenticated(&tls, &bob));
}

#[test]
fn arrivals_tell_new_contacts_from_refreshed_ones() {
    let mut house = House::open();
    let take =
        |house: &House| std::mem::take(&mut *house.arrivals.lock()).into_iter().map(|(_, a)| a).collect::<Vec<_>>();
    house.register(1, "Contact: <sip:a@x>\r\n");
    assert_eq!(house.arrivals.lock()[0].0, "alice@example.com");
    assert_eq!(take(&house), [Arrival::Reachable]);
    house.register(2, "Contact: <sip:a@x>\r\n");
    assert_eq!(take(&house), [Arrival::Refreshed]);
    house.register(3, "Contact: <sip:a@x>, <sip:b@x>\r\n");
    assert_eq!(take(&house), [Arrival::Reachable]);
    house.register(4, "");
    house.register(5, "Contact: <sip:b@x>;expires=0\r\n");
    house.register(6, "Contact: *\r\nExpires: 0\r\n");
    assert!(take(&house).is_empty());
}
