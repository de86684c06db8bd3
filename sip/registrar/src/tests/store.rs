//! What is in the store when, and what comes back from it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sip_ims::ports::StoreError;
use sip_proto::{HeaderName, Hop, Transport};

use super::house::*;
use crate::{Arrival, RegistrarConfig};

fn strict() -> House {
    House::with(|_: &mut RegistrarConfig| {}, false)
}

#[test]
fn the_answer_waits_for_the_commit() {
    let mut house = strict();
    let text = register(&phone(), "alice", 1, "User-Agent: test\r\nContact: <sip:a@x>, <sip:b@x>;q=0.3\r\n");
    assert!(house.request(&phone(), &text).is_empty());
    assert_eq!(house.contacts().len(), 2, "calls may use the contact before");
    assert!(house.stack.sent.lock().is_empty() && house.arrivals.lock().is_empty());
    house.store.commit(Ok(()));
    let sent = house.stack.sent.lock();
    assert_eq!((sent.len(), status(&sent[0]), values(&sent[0], HeaderName::Contact).len()), (1, 200, 2));
    assert_eq!(house.arrivals.lock()[..], [("alice@example.com".to_owned(), Arrival::Reachable)]);
    assert_eq!(house.store.keys(), ["sip:a@x", "sip:b@x"]);
    let row = house.store.rows.lock()[&("alice@example.com".to_owned(), "sip:b@x".to_owned())].clone();
    assert_eq!((row.q, row.cseq, &*row.call_id, &*row.user_agent, &*row.node), (300, 1, "c1", "test", "n1"));
    assert_eq!(row.expires_at, START as i64 + 3600);
}

#[test]
fn a_failed_commit_is_a_500() {
    let mut house = strict();
    assert!(house.request(&phone(), &register(&phone(), "alice", 1, "Contact: <sip:a@x>\r\n")).is_empty());
    house.store.commit(Err(StoreError::Closed));
    let sent = house.stack.sent.lock();
    assert_eq!((status(&sent[0]), values(&sent[0], HeaderName::RetryAfter)), (500, vec!["5".to_owned()]));
    assert!(house.arrivals.lock().is_empty());
}

#[test]
fn a_contact_that_was_refused_is_nowhere() {
    let mut house = strict();
    assert!(house.request(&phone(), &register(&phone(), "alice", 1, "Contact: <sip:a@x>\r\n")).is_empty());
    house.store.commit(Err(StoreError::Closed));
    assert_eq!((house.registrar.bindings(), house.contacts()), (0, vec![]));
    assert!(house.request(&phone(), &register(&phone(), "alice", 2, "Contact: <sip:a@x>\r\n")).is_empty());
    house.store.commit(Ok(()));
    assert_eq!((status(&house.stack.sent.lock()[1]), house.contacts().len()), (200, 1));
}

#[test]
fn a_refresh_a_removal_and_a_removal_of_all_that_were_refused_leave_what_was_there() {
    let mut house = strict();
    let mut send = |cseq, more: &str, result: Result<(), StoreError>| {
        assert!(house.request(&phone(), &register(&phone(), "alice", cseq, more)).is_empty());
        house.store.commit(result);
        let answer = house.stack.sent.lock().pop().unwrap();
        let left = values(&house.register(cseq, ""), HeaderName::Contact);
        (status(&answer), left)
    };
    let both = ["<sip:a@x>;expires=100".to_owned(), "<sip:b@x>;expires=200;q=0.3".to_owned()];
    let contacts = "Contact: <sip:a@x>;expires=100, <sip:b@x>;q=0.3;expires=200\r\n";
    assert_eq!(send(1, contacts, Ok(())), (200, both.to_vec()));
    let failed = || Err(StoreError::Closed);
    assert_eq!(send(2, "Contact: <sip:a@X>;expires=900, <sip:c@x>\r\n", failed()), (500, both.to_vec()));
    assert_eq!(send(3, "Contact: <sip:b@x>;expires=0, <sip:a@x>;q=0.1\r\n", failed()), (500, both.to_vec()));
    assert_eq!(send(4, "Contact: *\r\nExpires: 0\r\n", failed()), (500, both.to_vec()));
    assert_eq!(send(5, "Contact: *\r\nExpires: 0\r\n", Ok(())), (200, vec![]));
    assert!(house.store.keys().is_empty());
}

#[test]
fn what_was_refused_is_taken_out_of_the_store_too() {
    let mut house = strict();
    assert!(house.request(&phone(), &register(&phone(), "alice", 1, "Contact: <sip:a@x>;expires=100\r\n")).is_empty());
    house.store.commit(Ok(()));
    let text = register(&phone(), "alice", 2, "Contact: <sip:a@x>;expires=900, <sip:b@x>\r\n");
    assert!(house.request(&phone(), &text).is_empty());
    // Done, but nobody heard of it: the connection broke at the commit.
    house.store.commit_unheard(StoreError::Closed);
    assert_eq!(house.store.keys(), ["sip:a@x"]);
    let rows = house.store.rows.lock();
    assert_eq!(rows.values().map(|r| (r.cseq, r.expires_at)).collect::<Vec<_>>(), [(1, START as i64 + 100)]);
}

#[test]
fn a_refusal_leaves_what_a_later_register_has_made() {
    let mut house = strict();
    assert!(house.request(&phone(), &register(&phone(), "alice", 1, "Contact: <sip:a@x>;expires=100\r\n")).is_empty());
    let first = house.store.take();
    assert!(house.request(&phone(), &register(&phone(), "alice", 2, "Contact: <sip:a@x>;expires=200\r\n")).is_empty());
    first(Err(StoreError::Closed));
    house.store.commit(Ok(()));
    assert_eq!(values(&house.register(2, ""), HeaderName::Contact), ["<sip:a@x>;expires=200"]);
    assert_eq!(house.store.keys(), ["sip:a@x"]);
}

#[test]
fn a_full_queue_is_a_503_that_changes_nothing() {
    let mut house = strict();
    house.store.full.store(true, Relaxed);
    let busy = house.register(1, "Contact: <sip:a@x>\r\n");
    assert_eq!((status(&busy), values(&busy, HeaderName::RetryAfter)), (503, vec!["5".to_owned()]));
    assert_eq!(house.registrar.bindings(), 0);
    house.store.full.store(false, Relaxed);
    assert!(house.request(&phone(), &register(&phone(), "alice", 2, "Contact: <sip:a@x>\r\n")).is_empty());
    house.store.commit(Ok(()));
    assert_eq!(house.stack.sent.lock().len(), 1);
}

#[test]
fn a_retransmission_before_the_commit_is_not_acknowledged_early() {
    let mut house = strict();
    let text = register(&phone(), "alice", 1, "Contact: <sip:a@x>\r\n");
    assert!(house.request(&phone(), &text).is_empty());
    assert!(house.request(&phone(), &text).is_empty());
    house.store.commit(Ok(()));
    let sent = house.stack.sent.lock();
    assert_eq!((sent.len(), &sent[0]), (2, &sent[1]));
}

#[test]
fn what_needs_no_write_is_answered_at_once() {
    let mut house = strict();
    assert_eq!(status(&house.register(1, "")), 200);
    assert_eq!(status(&house.register(2, "Contact: <sip:nobody@x>;expires=0\r\n")), 200);
}

#[test]
fn removal_and_a_new_spelling_leave_no_row_behind() {
    let mut house = House::open();
    house.register(1, "Contact: <sip:a@x>, <sip:b@x>\r\n");
    house.register(2, "Contact: <sip:a@X>\r\n");
    house.register(3, "Contact: <sip:b@x>;expires=0\r\n");
    house.store.commit(Ok(()));
    assert_eq!(house.store.keys(), ["sip:a@X"]);
}

#[test]
fn expired_bindings_leave_the_store_too() {
    let mut house = House::open();
    house.register(1, "Contact: <sip:a@x>;expires=100, <sip:b@x>;expires=200\r\n");
    house.pass(100);
    assert_eq!((house.registrar.bindings(), house.contacts()), (1, vec!["sip:b@x".to_owned()]));
    house.store.commit(Ok(()));
    assert_eq!(house.store.keys(), ["sip:b@x"]);
}

#[test]
fn bindings_come_back_after_a_restart() {
    let mut house = House::open();
    let nat = flow(Transport::Udp, 1, "198.51.100.7:40000");
    let contact = "Via: SIP/2.0/UDP 10.0.0.2:5060";
    let text = register(&nat, "alice", 1, "Contact: <sip:nat@10.0.0.2:5060>;expires=900\r\n")
        .replace("Via: SIP/2.0/UDP 198.51.100.7:40000", contact);
    house.request(&nat, &text);
    house.register(2, "Contact: <sip:short@x>;expires=60, <sip:long@x>;q=0.1;expires=900\r\n");
    let tcp = flow(Transport::Tcp, 9, "192.0.2.9:4000");
    house.register_over(&tcp, 3, "Contact: <sip:tcp@192.0.2.9:4000;transport=tcp>;expires=900\r\n");
    assert_eq!(house.contacts().len(), 4);
    house.store.commit(Ok(()));
    let mut again = strict();
    *again.store.rows.lock() = house.store.rows.lock().clone();
    again.unix = START + 61;
    let counted = Arc::new(parking_lot::Mutex::new(None));
    let count = counted.clone();
    again.registrar.load(again.unix, Box::new(move |n| *count.lock() = Some(n.unwrap())));
    assert_eq!(*counted.lock(), Some(4));
    let address = Hop::Address { transport: Transport::Udp, remote: nat.remote };
    let expected = [("sip:nat@10.0.0.2:5060".to_owned(), Some(address)), ("sip:long@x".to_owned(), None)];
    assert_eq!(again.reaches(), expected);
    again.pass(1);
    again.store.commit(Ok(()));
    assert_eq!(again.store.keys(), ["sip:long@x", "sip:nat@10.0.0.2:5060"]);
    // The phone goes on where it was.
    assert!(again.request(&phone(), &register(&phone(), "alice", 4, "Contact: <sip:long@x>\r\n")).is_empty());
    again.store.commit(Ok(()));
    assert_eq!(status(&again.stack.sent.lock()[0]), 200);
    assert_eq!(again.registrar.bindings(), 2);
}

#[test]
fn rows_that_come_late_do_not_overwrite_what_has_happened_since() {
    let mut house = House::open();
    house.register(1, "Contact: <sip:a@x>;expires=900\r\n");
    house.store.commit(Ok(()));
    house.register(2, "Contact: <sip:a@x>;expires=300\r\n");
    house.registrar.load(house.unix, Box::new(|_| {}));
    assert_eq!(values(&house.register(2, ""), HeaderName::Contact), ["<sip:a@x>;expires=300"]);
}
