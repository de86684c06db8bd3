//! The pager behind the real driver: bytes in, bytes out, with the store in memory. Everything else is as in the server.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use parking_lot::Mutex;
use sip_ims::Home;
use sip_ims::service::{Caller, Request, Service, Step, Verdict};
use sip_net::driver::{Driver, DriverConfig, Sink, TransactionUser};
use sip_net::handler::Handler;
use sip_proto::build::Response;
use sip_proto::endpoint::{ClientId, Lapsed, ServerId};
use sip_proto::transaction::Timing;
use sip_proto::uri::Uri;
use sip_proto::{Flow, HeaderName, Hop, Limits, Message, Outbox, Transport};

use crate::fakes::{Bindings, NOW, Notes, OneAddress, Queue, flow, user};
use crate::{Config, Courier, CourierParts, Inbox, Pager};

/// A proxy that reaches nobody.
struct Nowhere(Arc<Pager>);

impl TransactionUser for Nowhere {
    fn request(&mut self, step: &mut Step<'_>, flow: &Flow, message: &Message<'_>) {
        let uri = Uri::parse(message.request_uri()).unwrap();
        let profile = Some(user("bob", None));
        let callee = Some("bob@example.com".parse().unwrap());
        let request = Request { message, flow, uri, caller: Caller::User(user("alice", None)), callee, profile };
        assert_eq!(self.0.unreached(step, &request, None, 480), Verdict::Taken);
    }

    fn cancel(&mut self, _: &mut Step<'_>, _: &Flow, _: &Message<'_>, _: ServerId, _: u64) {}
    fn response(&mut self, _: &mut Step<'_>, _: &Message<'_>, _: ClientId, _: u64, _: Option<ServerId>) {}
    fn lapsed(&mut self, _: &mut Step<'_>, _: Lapsed) {}
    fn resolved(&mut self, _: &mut Step<'_>, _: u64, _: Vec<Hop>) {}
}

/// The wire: what was written, in order.
#[derive(Default)]
struct Wire(Mutex<Vec<(Hop, Vec<u8>)>>);

impl Sink for Wire {
    fn flush(&self, out: &mut Outbox) {
        self.0.lock().extend(out.iter().map(|(t, bytes)| (t.hop, bytes.to_vec())));
        out.clear();
    }

    fn penalise(&self, _: &Flow, _: u32) {}
}

struct House {
    driver: Arc<Driver>,
    pager: Arc<Pager>,
    queue: Arc<Queue>,
    bindings: Arc<Bindings>,
    wire: Arc<Wire>,
}

fn house() -> (House, Inbox) {
    let queue = Arc::<Queue>::default();
    let (pager, inbox) = Pager::new(Config::default(), queue.clone(), Arc::new(|| NOW));
    let config = DriverConfig {
        shards: 4,
        timing: Timing::default(),
        limits: Limits::default(),
        max_datagram: 65_535,
        max_transactions: 1000,
        secret: [3; 16],
    };
    let home = Arc::new(Home::new("example.com", [(Transport::Udp, "127.0.0.1:5060".parse().unwrap())]));
    let driver = Arc::new(Driver::new(&config, home, Instant::now(), |_| Box::new(Nowhere(pager.clone()))));
    let wire = Arc::<Wire>::default();
    driver.attach(wire.clone());
    (House { driver, pager, queue, bindings: Arc::default(), wire }, inbox)
}

impl House {
    fn courier(&self, inbox: Inbox) -> Courier {
        let parts = CourierParts {
            location: self.bindings.clone(),
            outlet: self.driver.clone(),
            next_hops: Arc::new(OneAddress),
            chronicle: Arc::new(Notes::default()),
            home: crate::fakes::home(),
            unix: Arc::new(|| NOW),
        };
        Courier::new(inbox, parts)
    }

    fn receive(&self, bytes: &[u8]) {
        let mut out = Outbox::new();
        self.driver.message(Instant::now(), &flow(), bytes, false, &mut out);
        self.wire.flush(&mut out);
    }

    /// What was written since the last time.
    async fn written(&self) -> Vec<(Hop, Vec<u8>)> {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        std::mem::take(&mut *self.wire.0.lock())
    }
}

fn message(n: u32) -> Vec<u8> {
    format!(
        "MESSAGE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKm{n}\r\n\
         From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: c{n}\r\nCSeq: 9 MESSAGE\r\n\
         Max-Forwards: 70\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\n{n}"
    )
    .into_bytes()
}

#[tokio::test(start_paused = true)]
async fn accepted_after_the_commit_and_again_when_the_request_is_repeated() {
    let (house, inbox) = house();
    let courier = house.courier(inbox);
    tokio::spawn(courier.run(std::future::pending()));
    house.queue.hold.store(true, Relaxed);
    house.receive(&message(1));
    house.receive(&message(1));
    assert!(house.written().await.is_empty());
    house.queue.commit();
    let answers = house.written().await;
    assert_eq!(answers.len(), 1);
    let answer = Message::parse(&answers[0].1).unwrap();
    assert_eq!((answer.status(), answer.call_id(), answer.body()), (202, Some(&b"c1"[..]), &b""[..]));
    assert_eq!(answer.value(HeaderName::Contact), None, "RFC 3428 §7");
    house.receive(&message(1));
    assert_eq!(house.written().await, answers);
    assert_eq!(house.queue.rows.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn delivered_as_requests_of_our_own_one_after_the_other() {
    let (house, inbox) = house();
    let courier = house.courier(inbox);
    tokio::spawn(courier.run(std::future::pending()));
    house.receive(&message(1));
    house.receive(&message(2));
    assert_eq!(house.written().await.len(), 2);
    house.bindings.add("bob@example.com", "sip:bob@192.0.2.9:6000;ob", 1000, "");
    house.pager.on_registered("bob@example.com");
    for n in ["1", "2"] {
        let sent = house.written().await;
        assert_eq!(sent.len(), 1, "the next one waits for the answer to this one");
        let request = Message::parse(&sent[0].1).unwrap();
        assert_eq!(sip_proto::validate::request(&request), Ok(()));
        assert_eq!(request.request_uri(), b"sip:bob@192.0.2.9:6000;ob");
        assert_eq!(request.body(), n.as_bytes());
        assert_eq!(request.value(HeaderName::PAssertedIdentity), Some(&b"<sip:alice@example.com>"[..]));
        assert_eq!(request.list(HeaderName::Via).count(), 1);
        let mut ok = Vec::new();
        Response::to(&request, 200).tag(b"b").write(&mut ok, |_| {});
        house.receive(&ok);
    }
    assert!(house.written().await.is_empty());
    assert!(house.queue.rows.lock().is_empty() && !house.pager.waiting("bob@example.com"));
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_cannot_be_reached_costs_no_message() {
    let (house, inbox) = house();
    let courier = house.courier(inbox);
    tokio::spawn(courier.run(std::future::pending()));
    house.receive(&message(1));
    house.bindings.add("bob@example.com", "sip:bob@192.0.2.9:6000", 1000, "");
    house.pager.on_registered("bob@example.com");
    assert_eq!(house.written().await.len(), 2);
    let mut out = Outbox::new();
    house.driver.tick(Instant::now() + Timing::default().timeout() * 2, &mut out);
    assert_eq!(house.written().await.len(), 0);
    assert_eq!(house.queue.rows.lock().len(), 1);
    assert!(house.pager.waiting("bob@example.com"));
    assert_eq!(house.pager.counts().put_off.load(Relaxed), 1);
}
