//! Two registrars on one store.

use sip_ims::service::{Elsewhere, Location};
use sip_proto::{Hop, Transport};

use super::house::*;
use crate::{Acknowledge, Arrival, RegistrarConfig};

fn node(name: &str) -> House {
    let change = |c: &mut RegistrarConfig| {
        c.store = Acknowledge::Behind;
        c.node = name.into();
    };
    House::with(change, false)
}

/// What `from` has committed is in the store that both share; `to` hears of it.
fn hear(from: &House, to: &House) {
    from.store.commit(Ok(()));
    to.store.commit(Ok(()));
    *to.store.rows.lock() = from.store.rows.lock().clone();
    *to.store.gone.lock() = vec!["alice@example.com".to_owned()];
    to.registrar.catch_up(to.now(), to.unix, Box::new(|result| assert!(result.is_ok())));
}

#[test]
fn a_binding_made_at_one_node_is_known_at_the_other_until_it_is_removed() {
    let (mut a, b) = (node("a"), node("b"));
    a.register(1, "Contact: <sip:a@x>;q=0.5;expires=900\r\n");
    hear(&a, &b);
    assert_eq!(b.contacts(), ["sip:a@x"]);
    // Whoever waits for her at the other node hears that she is there, once.
    assert_eq!(b.arrivals.lock()[..], [("alice@example.com".to_owned(), Arrival::Reachable)]);
    a.register(2, "Contact: <sip:a@x>;q=0.5;expires=1800\r\n");
    hear(&a, &b);
    assert_eq!((b.contacts().len(), b.arrivals.lock().len()), (1, 1));
    a.register(3, "Contact: <sip:a@x>;expires=0\r\n");
    hear(&a, &b);
    assert_eq!((b.contacts().len(), b.registrar.bindings(), b.registrar.users()), (0, 0, 0));
}

#[test]
fn datagrams_reach_a_phone_of_the_other_node_and_connections_do_not() {
    let (mut a, b) = (node("a"), node("b"));
    let nat = flow(Transport::Udp, 1, "198.51.100.7:40000");
    let text = register(&nat, "alice", 1, "Contact: <sip:nat@10.0.0.2:5060>\r\n");
    a.request(&nat, &text.replace("Via: SIP/2.0/UDP 198.51.100.7:40000", "Via: SIP/2.0/UDP 10.0.0.2:5060"));
    let tcp = flow(Transport::Tcp, 9, "192.0.2.9:4000");
    a.register_over(&tcp, 2, "Contact: <sip:tcp@192.0.2.9:4000;transport=tcp>\r\n");
    assert_eq!(a.contacts().len(), 2);
    hear(&a, &b);
    let address = Hop::Address { transport: Transport::Udp, remote: nat.remote };
    assert_eq!(b.reaches(), [("sip:nat@10.0.0.2:5060".to_owned(), Some(address))]);
    assert_eq!(b.registrar.bindings(), 2, "known, though out of reach from here");
    // The node that holds the connection reaches it, as soon as it is known where that is.
    let elsewhere = || {
        let mut found = Vec::new();
        b.registrar.each_anywhere("alice@example.com", b.unix, &mut |r| found.extend(r.elsewhere));
        found
    };
    assert!(elsewhere().is_empty() && b.registrar.misses_a_node());
    let at = Hop::Address { transport: Transport::Tcp, remote: "192.0.2.1:5060".parse().unwrap() };
    b.registrar.node_at("a", at);
    assert!(!b.registrar.misses_a_node());
    assert_eq!(elsewhere(), [Elsewhere { node: at, flow: tcp }]);
    // A connection of ours with the same number is another one.
    b.registrar.flow_closed(b.now(), b.unix, &tcp);
    assert_eq!(b.registrar.bindings(), 2);
}

#[test]
fn a_phone_that_moves_to_another_node_is_not_forgotten_when_its_old_connection_closes() {
    let (mut a, mut b) = (node("a"), node("b"));
    let contact = "Supported: outbound\r\nContact: <sip:p@192.0.2.9:4000;transport=tcp;ob>;+sip.instance=\"<urn:x>\";reg-id=1\r\n";
    let (old, new) = (flow(Transport::Tcp, 9, "192.0.2.9:4000"), flow(Transport::Tcp, 10, "192.0.2.9:4001"));
    a.register_over(&old, 1, contact);
    hear(&a, &b);
    b.register_over(&new, 2, contact);
    b.store.commit(Ok(()));
    // It closes before the first node has heard of the move.
    *a.store.rows.lock() = b.store.rows.lock().clone();
    a.registrar.flow_closed(a.now(), a.unix, &old);
    a.store.commit(Ok(()));
    assert_eq!(a.store.rows.lock().len(), 1, "the row is the other node's now");
    hear(&a, &b);
    assert_eq!(b.reaches().len(), 1);
}

#[test]
fn what_expires_here_stays_in_the_store_when_the_other_node_refreshed_it() {
    let (mut a, mut b) = (node("a"), node("b"));
    a.register(1, "Contact: <sip:a@x>;expires=100\r\n");
    hear(&a, &b);
    a.register(2, "Contact: <sip:a@x>;expires=900\r\n");
    a.store.commit(Ok(()));
    // The hint was lost.
    *b.store.rows.lock() = a.store.rows.lock().clone();
    b.pass(100);
    assert_eq!(b.registrar.bindings(), 0);
    b.store.commit(Ok(()));
    assert_eq!(b.store.rows.lock().len(), 1);
    b.registrar.catch_up(b.now(), b.unix, Box::new(|_| {}));
    assert_eq!(b.contacts(), ["sip:a@x"]);
}

#[test]
fn what_the_store_refuses_leaves_a_connection_with_its_node() {
    let strict = |c: &mut RegistrarConfig| c.node = "b".into();
    let (mut a, mut b) = (node("a"), House::with(strict, false));
    let contact = "Supported: outbound\r\nContact: <sip:p@192.0.2.9:4000;transport=tcp;ob>;+sip.instance=\"<urn:x>\";reg-id=1\r\n";
    let (old, new) = (flow(Transport::Tcp, 9, "192.0.2.9:4000"), flow(Transport::Tcp, 10, "192.0.2.9:4001"));
    a.register_over(&old, 1, contact);
    hear(&a, &b);
    b.request(&new, &register(&new, "alice", 2, contact));
    b.store.commit(Err(sip_ims::ports::StoreError::Closed));
    b.store.commit(Ok(()));
    hear(&b, &a);
    assert_eq!(a.reaches().into_iter().map(|r| r.1).collect::<Vec<_>>(), [Some(Hop::Flow(old))]);
}
