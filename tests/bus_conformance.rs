//! What every bus promises: alone in a process, and over NATS.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use isthmus::bus::{LocalBus, NatsBus};
use sip_ims::ports::{Bus, BusError, MAX_HINT, Subscription};

#[path = "harness/nats.rs"]
mod nats;

/// Two nodes' ends of one bus (the same end twice, if it is local).
struct Subject {
    one: Arc<dyn Bus>,
    other: Arc<dyn Bus>,
    // Dropped after the ends, in this order.
    _runtime: Option<tokio::runtime::Runtime>,
    nats: Option<nats::Nats>,
}

impl Subject {
    fn local() -> Subject {
        let bus = Arc::new(LocalBus::new());
        Subject { one: bus.clone(), other: bus, _runtime: None, nats: None }
    }

    fn nats() -> Subject {
        let nats = nats::Nats::start();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let end = || Arc::new(runtime.block_on(NatsBus::connect(&nats.url())).unwrap());
        let (one, other) = (end(), end());
        Subject { one, other, _runtime: Some(runtime), nats: Some(nats) }
    }
}

macro_rules! on_both_buses {
    ($($name:ident)*) => {
        mod local { $(#[test] fn $name() { super::$name(super::Subject::local()) })* }
        mod over_nats { $(#[test] fn $name() { super::$name(super::Subject::nats()) })* }
    };
}

on_both_buses! {
    a_hint_reaches_every_node_and_its_own
    a_subscription_hears_its_topic_and_what_is_below
    a_dropped_subscription_hears_no_more
    what_is_no_topic_or_too_large_is_refused
    a_subscriber_may_publish
}

fn a_hint_reaches_every_node_and_its_own(bus: Subject) {
    let (_here, here) = listen(&*bus.one, "reg");
    let (_there, there) = listen(&*bus.other, "reg");
    bus.one.publish("reg.changed", b"alice\0\xff").unwrap();
    for heard in [here, there] {
        assert_eq!(next(&heard), ("reg.changed".to_owned(), b"alice\0\xff".to_vec()));
    }
}

fn a_subscription_hears_its_topic_and_what_is_below(bus: Subject) {
    let (_guard, heard) = listen(&*bus.other, "reg");
    for topic in ["regs", "other.reg", "reg", "reg.a.b"] {
        bus.one.publish(topic, topic.as_bytes()).unwrap();
    }
    // In the order of one publisher: what should not be heard would have come before.
    assert_eq!(next(&heard).0, "reg");
    assert_eq!(next(&heard).0, "reg.a.b");
}

fn a_dropped_subscription_hears_no_more(bus: Subject) {
    let (gone, nothing) = listen(&*bus.other, "a");
    let (_guard, heard) = listen(&*bus.other, "a");
    bus.one.publish("a", b"1").unwrap();
    assert_eq!(next(&nothing).1, b"1");
    drop(gone);
    bus.one.publish("a", b"2").unwrap();
    assert_eq!((next(&heard).1, next(&heard).1), (b"1".to_vec(), b"2".to_vec()));
    assert!(nothing.recv().is_err(), "the subscriber is gone with its guard");
}

fn what_is_no_topic_or_too_large_is_refused(bus: Subject) {
    for topic in ["", "a b", "a..b", "a.*", ">", "a\r\nPUB x 1"] {
        assert_eq!(bus.one.publish(topic, b""), Err(BusError::Topic), "{topic}");
        assert!(bus.one.subscribe(topic, Box::new(|_, _| ())).is_err(), "{topic}");
    }
    assert_eq!(bus.one.publish("a", &[0; MAX_HINT + 1]), Err(BusError::TooLarge));
    let (_guard, heard) = listen(&*bus.other, "a");
    bus.one.publish("a", &[7; MAX_HINT]).unwrap();
    assert_eq!(next(&heard).1, [7; MAX_HINT]);
}

fn a_subscriber_may_publish(bus: Subject) {
    let (_guard, heard) = listen(&*bus.one, "answer");
    let other = bus.other.clone();
    let _echo =
        bus.other.subscribe("question", Box::new(move |_, bytes| other.publish("answer", bytes).unwrap())).unwrap();
    bus.one.publish("question", b"?").unwrap();
    assert_eq!(next(&heard).1, b"?");
}

#[test]
fn hints_flow_again_after_nats_was_killed() {
    let mut bus = Subject::nats();
    let (_guard, heard) = listen(&*bus.other, "a");
    let nats = bus.nats.as_mut().unwrap();
    nats.kill();
    // Taken, and perhaps lost.
    bus.one.publish("a", b"lost").unwrap();
    nats.restart();
    let start = Instant::now();
    loop {
        bus.one.publish("a", b"again").unwrap();
        if heard.recv_timeout(Duration::from_millis(100)).is_ok_and(|(_, bytes)| bytes == b"again") {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "the bus did not come back");
    }
}

#[test]
fn a_nats_that_is_not_there_is_an_error_at_the_start() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // A port that was just free: nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(runtime.block_on(NatsBus::connect(&format!("nats://127.0.0.1:{port}"))).is_err());
}

fn listen(bus: &dyn Bus, prefix: &str) -> (Subscription, Receiver<(String, Vec<u8>)>) {
    let (sender, heard) = channel();
    // The test may have stopped listening.
    let each = move |topic: &str, bytes: &[u8]| drop(sender.send((topic.to_owned(), bytes.to_vec())));
    (bus.subscribe(prefix, Box::new(each)).unwrap(), heard)
}

fn next(heard: &Receiver<(String, Vec<u8>)>) -> (String, Vec<u8>) {
    heard.recv_timeout(Duration::from_secs(20)).expect("a hint")
}
