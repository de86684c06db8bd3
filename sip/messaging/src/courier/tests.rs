//! The pager and the courier together, with phones and a store in memory, on a clock that stands still until asked.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sip_ims::service::{Caller, Service, Step, Transaction, Verdict};
use sip_proto::endpoint::{Endpoint, EndpointConfig, ServerId};
use sip_proto::transaction::Timing;
use sip_proto::{Hop, Outbox, Transport};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::config::{Config, Devices};
use crate::fakes::{Bindings, NOW, Notes, OneAddress, Phones, Queue, Stack, with_request};
use crate::pager::Pager;

/// A house with one pager, its courier running.
struct House {
    pager: Arc<Pager>,
    queue: Arc<Queue>,
    bindings: Arc<Bindings>,
    phones: Arc<Phones>,
    notes: Arc<Notes>,
    unix: Arc<AtomicU64>,
    endpoint: Endpoint,
    out: Outbox,
    stop: Option<oneshot::Sender<()>>,
    courier: JoinHandle<()>,
}

const BOB: &str = "bob@example.com";
const PHONE: &str = "sip:bob@192.0.2.9";

impl House {
    fn new(config: Config, queue: Arc<Queue>, bindings: Arc<Bindings>) -> House {
        let (pager, inbox) = Pager::new(config, queue.clone(), Arc::new(|| NOW));
        let (phones, notes) = (Arc::<Phones>::default(), Arc::<Notes>::default());
        let unix = Arc::new(AtomicU64::new(NOW));
        let clock = unix.clone();
        let courier = Courier::new(
            inbox,
            CourierParts {
                location: bindings.clone(),
                outlet: Arc::new(Stack(phones.clone())),
                next_hops: Arc::new(OneAddress),
                chronicle: notes.clone(),
                home: crate::fakes::home(),
                unix: Arc::new(move || clock.load(Relaxed)),
            },
        );
        let (stop, stopped) = oneshot::channel();
        let courier = tokio::spawn(courier.run(async move { _ = stopped.await }));
        let config = EndpointConfig { timing: Timing::default(), shard: 7, max_transactions: 1000, secret: [1; 16] };
        let endpoint = Endpoint::new(config, std::time::Instant::now());
        let out = Outbox::new();
        House { pager, queue, bindings, phones, notes, unix, endpoint, out, stop: Some(stop), courier }
    }

    fn open() -> House {
        House::new(Config::default(), Arc::default(), Arc::default())
    }

    /// A MESSAGE with this text reaches nobody.
    fn unreached(&mut self, text: &str, more: &str) -> Verdict {
        self.unreached_in(text, more, None)
    }

    fn unreached_in(&mut self, text: &str, more: &str, server: Option<ServerId>) -> Verdict {
        self.unreached_with(text, more, server, 480)
    }

    /// No phone answered this MESSAGE in the time that the proxy gives it.
    fn unanswered(&mut self, text: &str) -> Transaction {
        let id =
            with_request(&request(text, ""), Caller::Foreign, |r| self.endpoint.accept(r.flow, r.message, 0)).unwrap();
        assert_eq!(self.unreached_with(text, "", Some(id), 408), Verdict::Taken);
        Transaction { shard: 7, id }
    }

    fn unreached_with(&mut self, text: &str, more: &str, server: Option<ServerId>, status: u16) -> Verdict {
        let request = request(text, more);
        let mut step = Step {
            now: std::time::Instant::now(),
            unix: self.unix.load(Relaxed),
            shard: 7,
            endpoint: &mut self.endpoint,
            out: &mut self.out,
            loaded: false,
        };
        let pager = self.pager.clone();
        with_request(&request, Caller::Foreign, |r| pager.unreached(&mut step, r, server, status))
    }

    async fn keep(&mut self, texts: &[&str]) {
        for text in texts {
            assert_eq!(self.unreached(text, ""), Verdict::Taken);
        }
        settle().await;
        assert!(self.pager.waiting(BOB));
    }

    fn register(&self, contact: &'static str) {
        self.bindings.add(BOB, contact, 1000, "");
        self.pager.on_registered(BOB);
    }

    fn stored(&self) -> usize {
        self.queue.rows.lock().len()
    }

    fn replies(&self) -> Vec<String> {
        self.out.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

fn request(text: &str, more: &str) -> String {
    format!(
        "MESSAGE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{text}\r\n\
         From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: {text}\r\nCSeq: 1 MESSAGE\r\n\
         Content-Type: text/plain\r\n{more}Content-Length: {}\r\n\r\n{text}",
        text.len()
    )
}

/// Lets everything happen that needs no time to pass.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

fn got(contact: &str, texts: &[&str]) -> Vec<String> {
    texts.iter().map(|t| format!("{contact} {t}")).collect()
}

#[tokio::test(start_paused = true)]
async fn accepted_only_after_the_commit() {
    let mut house = House::open();
    house.queue.hold.store(true, Relaxed);
    assert_eq!(house.unreached("hello", ""), Verdict::Taken);
    settle().await;
    assert!(house.phones.answered().is_empty() && house.out.is_empty());
    house.queue.commit();
    settle().await;
    assert_eq!(house.phones.answered(), [202]);
    assert_eq!(house.phones.answers.lock()[0].0.shard, 7);
    assert!(house.pager.waiting(BOB));
    assert_eq!(*house.notes.0.lock(), [("hello".to_owned(), NoteEvent::MessageKept, 202)]);
}

#[tokio::test(start_paused = true)]
async fn delivered_in_order_on_registration_one_at_a_time() {
    let mut house = House::open();
    let texts: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    house.keep(&texts).await;
    house.register(PHONE);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(house.phones.got(), got(PHONE, &texts));
    assert_eq!(house.phones.most.lock()[PHONE], 1);
    assert_eq!(house.stored(), 0);
    assert!(!house.pager.waiting(BOB));
    assert_eq!(house.pager.counts().delivered.load(Relaxed), 20);
    assert_eq!(house.notes.0.lock().last().unwrap(), &("m19".to_owned(), NoteEvent::MessageDelivered, 200));
}

#[tokio::test(start_paused = true)]
async fn a_registration_without_messages_costs_the_store_nothing() {
    let house = House::open();
    settle().await;
    house.register(PHONE);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(house.queue.reads.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_registers_during_the_commit_is_served() {
    let mut house = House::open();
    house.queue.hold.store(true, Relaxed);
    house.unreached("hello", "");
    house.register(PHONE);
    house.queue.commit();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(house.phones.got(), got(PHONE, &["hello"]));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_during_a_round_is_delivered_too() {
    let mut house = House::open();
    house.keep(&["one"]).await;
    house.register(PHONE);
    sleep(Duration::from_millis(500)).await;
    house.keep(&["two"]).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(house.phones.got(), got(PHONE, &["one", "two"]));
}

#[tokio::test(start_paused = true)]
async fn nobody_answers_so_nothing_is_lost_and_the_next_registration_brings_it() {
    let mut house = House::open();
    house.keep(&["one", "two"]).await;
    house.phones.will([0]);
    house.register(PHONE);
    sleep(Duration::from_secs(5)).await;
    assert_eq!((house.phones.got().len(), house.stored()), (1, 2));
    house.pager.on_registered(BOB);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(house.phones.got(), got(PHONE, &["one", "one", "two"]));
    assert_eq!(house.stored(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_busy_phone_is_tried_again_after_a_pause() {
    let mut house = House::open();
    house.keep(&["one"]).await;
    house.phones.will([486, 480]);
    house.register(PHONE);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(house.phones.got().len(), 1);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(house.phones.got().len(), 2);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(house.phones.got().len(), 2);
    sleep(Duration::from_secs(30)).await;
    assert_eq!((house.phones.got().len(), house.stored()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_the_phones_just_did_not_take_waits_for_a_pause() {
    let mut house = House::open();
    house.bindings.add(BOB, PHONE, 1000, "");
    let text = request("hello", "");
    let server = with_request(&text, Caller::Foreign, |r| house.endpoint.accept(r.flow, r.message, 0)).unwrap();
    assert_eq!(house.unreached_in("hello", "", Some(server)), Verdict::Taken);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(house.phones.answered(), [202]);
    assert!(house.phones.got().is_empty());
    sleep(Duration::from_secs(15)).await;
    assert_eq!(house.phones.got(), got(PHONE, &["hello"]));
}

#[tokio::test(start_paused = true)]
async fn refused_for_good_is_dropped_and_the_next_one_sent() {
    let mut house = House::open();
    house.keep(&["one", "two"]).await;
    house.phones.will([415, 200]);
    house.register(PHONE);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(house.phones.got(), got(PHONE, &["one", "two"]));
    assert_eq!((house.stored(), house.pager.counts().refused.load(Relaxed)), (0, 1));
    assert!(house.notes.0.lock().contains(&("one".to_owned(), NoteEvent::MessageRelayed, 415)));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_always_fails_holds_up_the_others_for_a_while_only() {
    let mut house = House::open();
    house.keep(&["poison", "good"]).await;
    house.phones.will([500; 5]);
    house.register(PHONE);
    for _ in 0..4 {
        sleep(Duration::from_secs(3)).await;
        assert_eq!(house.stored(), 2);
        house.pager.on_registered(BOB);
    }
    sleep(Duration::from_secs(5)).await;
    assert_eq!(house.phones.got().last().unwrap(), &format!("{PHONE} good"));
    assert_eq!(house.stored(), 1, "the one that fails is kept");
    house.pager.on_registered(BOB);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(house.stored(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_best_phone_gets_it_and_the_others_only_if_it_fails() {
    let mut house = House::open();
    house.keep(&["one", "two"]).await;
    house.bindings.add(BOB, "sip:desk", 500, "d");
    house.bindings.add(BOB, "sip:mobile", 1000, "m");
    house.bindings.add(BOB, "sip:mobile-2", 400, "m");
    house.phones.will([200, 480, 480, 200]);
    house.pager.on_registered(BOB);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(house.phones.got(), ["sip:mobile one", "sip:mobile two", "sip:desk two", "sip:mobile-2 two"]);
    assert_eq!(house.stored(), 0);
}

#[tokio::test(start_paused = true)]
async fn with_all_devices_every_phone_gets_it_once() {
    let config = Config { devices: Devices::All, ..Config::default() };
    let mut house = House::new(config, Arc::default(), Arc::default());
    house.keep(&["one"]).await;
    house.bindings.add(BOB, "sip:mobile", 1000, "m");
    house.bindings.add(BOB, "sip:desk", 500, "d");
    house.bindings.add(BOB, "sip:mobile-2", 400, "m");
    house.phones.will([480, 200]);
    house.pager.on_registered(BOB);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(house.phones.got(), ["sip:mobile one", "sip:desk one"]);
    assert_eq!(house.stored(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_binding_without_a_hop_is_looked_up_and_a_dead_connection_forgotten() {
    let mut house = House::open();
    house.keep(&["one"]).await;
    let dead = Hop::Flow(sip_proto::Flow { transport: Transport::Tcp, ..crate::fakes::flow() });
    house.bindings.0.lock().push((BOB, "sip:bob@dead", 1000, "", Some(dead)));
    house.bindings.0.lock().push((BOB, "sip:bob@phone.example.com", 500, "", None));
    house.phones.will([1, 200]);
    house.pager.on_registered(BOB);
    sleep(Duration::from_secs(5)).await;
    let hops: Vec<_> = house.phones.requests.lock().iter().map(|r| r.0.remote().to_string()).collect();
    assert_eq!(hops, ["192.0.2.1:5060", "192.0.2.77:5060"]);
    assert_eq!(house.bindings.0.lock().len(), 1);
    assert_eq!(house.stored(), 0);
}

#[tokio::test(start_paused = true)]
async fn users_who_are_registered_are_served_at_the_start() {
    let mut first = House::open();
    first.keep(&["one", "two"]).await;
    first.courier.abort();
    first.bindings.add(BOB, PHONE, 1000, "");
    // Another process on the same store.
    let second = House::new(Config::default(), first.queue.clone(), first.bindings.clone());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(second.phones.got(), got(PHONE, &["one", "two"]));
    assert_eq!(second.stored(), 0);
}

#[tokio::test(start_paused = true)]
async fn messages_that_another_node_kept_are_found_in_time() {
    let mut first = House::open();
    let second = House::new(Config::default(), first.queue.clone(), Arc::default());
    settle().await;
    second.bindings.add(BOB, PHONE, 1000, "");
    first.keep(&["one"]).await;
    sleep(Duration::from_secs(700)).await;
    assert_eq!(second.phones.got(), got(PHONE, &["one"]));
}

#[tokio::test(start_paused = true)]
async fn the_same_message_again_is_accepted_and_kept_once() {
    let mut house = House::open();
    house.keep(&["one"]).await;
    let again = request("one", "").replace("z9hG4bKone", "z9hG4bKother");
    let mut step = Step {
        now: std::time::Instant::now(),
        unix: NOW,
        shard: 7,
        endpoint: &mut house.endpoint,
        out: &mut house.out,
        loaded: false,
    };
    with_request(&again, Caller::Foreign, |r| house.pager.unreached(&mut step, r, None, 480));
    settle().await;
    assert_eq!((house.phones.answered(), house.stored()), (vec![202, 202], 1));
}

#[tokio::test(start_paused = true)]
async fn expired_messages_are_accounted_for_and_not_delivered() {
    let mut house = House::open();
    house.unreached("short", "Expires: 100\r\n");
    house.keep(&["long"]).await;
    house.unix.fetch_add(101, Relaxed);
    house.register(PHONE);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(house.phones.got(), got(PHONE, &["long"]));
    sleep(Duration::from_secs(60)).await;
    assert_eq!((house.stored(), house.pager.counts().expired.load(Relaxed)), (0, 1));
    assert!(house.notes.0.lock().contains(&("short".to_owned(), NoteEvent::MessageExpired, 0)));
    sleep(Duration::from_secs(700)).await;
    assert!(!house.pager.waiting(BOB), "the look into the store cleared the list");
}

#[tokio::test(start_paused = true)]
async fn delivered_but_not_yet_forgotten_is_not_sent_twice() {
    let mut house = House::open();
    house.keep(&["one", "two"]).await;
    house.queue.remove_fails.store(true, Relaxed);
    house.register(PHONE);
    sleep(Duration::from_secs(5)).await;
    assert_eq!((house.phones.got().len(), house.stored()), (1, 2));
    house.queue.remove_fails.store(false, Relaxed);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(house.phones.got(), got(PHONE, &["one", "two"]));
    assert_eq!(house.stored(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_store_refuses_is_answered_by_whose_fault_it_is() {
    for (error, status, retry_after) in [
        (StoreError::OverQuota, 480, true),
        (StoreError::Full, 503, true),
        (StoreError::Closed, 503, true),
        (StoreError::Damaged, 500, true),
        (StoreError::TooLarge, 413, false),
    ] {
        let mut house = House::open();
        *house.queue.refuse.lock() = Some(error);
        assert_eq!(house.unreached("hello", ""), Verdict::Taken);
        settle().await;
        assert_eq!(house.phones.answered(), [status]);
        assert_eq!(house.phones.answers.lock()[0].2.contains("\r\nRetry-After: "), retry_after);
        assert!(!house.pager.waiting(BOB));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_forgets_to_answer_is_answered_for() {
    let mut house = House::open();
    house.queue.drops.store(true, Relaxed);
    house.unreached("hello", "");
    settle().await;
    assert_eq!(house.phones.answered(), [503]);
}

#[tokio::test(start_paused = true)]
async fn without_room_for_a_transaction_the_sender_is_asked_to_come_back() {
    let mut house = House::open();
    let config = EndpointConfig { timing: Timing::default(), shard: 7, max_transactions: 0, secret: [1; 16] };
    house.endpoint = Endpoint::new(config, std::time::Instant::now());
    assert_eq!(house.unreached("hello", ""), Verdict::Taken);
    let replies = house.replies();
    assert!(replies[0].starts_with("SIP/2.0 503 ") && replies[0].contains("\r\nRetry-After: 5\r\n"), "{replies:?}");
    settle().await;
    assert_eq!(house.stored(), 0);
}

#[tokio::test(start_paused = true)]
async fn too_large_is_refused_at_once_through_the_transaction_that_is_there() {
    let mut house = House::new(Config { max_body: 3, ..Config::default() }, Arc::default(), Arc::default());
    let text = request("hello", "");
    let server = with_request(&text, Caller::Foreign, |r| house.endpoint.accept(r.flow, r.message, 0)).unwrap();
    assert_eq!(house.unreached_in("hello", "", Some(server)), Verdict::Taken);
    assert!(house.replies()[0].starts_with("SIP/2.0 413 "));
    assert!(house.endpoint.original(server).is_none(), "the transaction has its final response");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_for_later_is_left_to_the_proxy() {
    let mut house = House::open();
    assert_eq!(house.unreached("now", "Expires: 0\r\n"), Verdict::Pass);
    let mut step = Step {
        now: std::time::Instant::now(),
        unix: NOW,
        shard: 7,
        endpoint: &mut house.endpoint,
        out: &mut house.out,
        loaded: false,
    };
    let invite = request("x", "").replace("MESSAGE", "INFO");
    let verdict = with_request(&invite, Caller::Foreign, |r| house.pager.unreached(&mut step, r, None, 480));
    assert_eq!(verdict, Verdict::Pass);
    with_request(&request("x", ""), Caller::Foreign, |r| {
        let stranger = sip_ims::service::Request {
            profile: None,
            message: r.message,
            flow: r.flow,
            uri: r.uri,
            caller: Caller::Foreign,
            callee: r.callee.clone(),
        };
        assert_eq!(house.pager.unreached(&mut step, &stranger, None, 480), Verdict::Pass);
    });
    settle().await;
    assert!(house.out.is_empty() && house.phones.answered().is_empty());
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_after_the_message_under_way() {
    let mut house = House::open();
    house.keep(&["one", "two"]).await;
    house.register(PHONE);
    sleep(Duration::from_millis(500)).await;
    house.stop.take().unwrap().send(()).unwrap();
    (&mut house.courier).await.unwrap();
    assert_eq!(house.phones.got(), got(PHONE, &["one"]));
    assert_eq!(house.stored(), 1);
}

#[tokio::test(start_paused = true)]
async fn several_users_are_served_side_by_side_up_to_the_limit() {
    let house = House::new(Config { parallel: 2, ..Config::default() }, Arc::default(), Arc::default());
    let users = ["a@example.com", "b@example.com", "c@example.com"];
    for (n, user) in users.into_iter().enumerate() {
        let kept = with_request(&request("hello", ""), Caller::Foreign, |r| {
            crate::letter::keep(r, &user.parse().unwrap(), NOW, &Config::default()).unwrap()
        });
        house.queue.rows.lock().insert(n as u64 + 1, kept);
        house.bindings.add(user, user, 1000, "");
    }
    sleep(Duration::from_millis(500)).await;
    assert_eq!(house.phones.got().len(), 2);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(house.phones.got().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_answers_late_does_not_get_it_again() {
    for before_commit in [false, true] {
        let mut house = House::open();
        house.bindings.add(BOB, PHONE, 1000, "");
        house.queue.hold.store(before_commit, Relaxed);
        let transaction = house.unanswered("hello");
        settle().await;
        house.pager.reached_late(transaction);
        house.queue.hold.store(false, Relaxed);
        house.queue.commit();
        sleep(Duration::from_secs(1)).await;
        assert_eq!((house.phones.answered(), house.stored()), (vec![202], 0));
        house.pager.reached_late(transaction);
        house.register(PHONE);
        sleep(Duration::from_secs(60)).await;
        assert!(house.phones.got().is_empty());
        assert!(!house.pager.waiting(BOB));
        let delivered = ("hello".to_owned(), NoteEvent::MessageDelivered, 200);
        assert_eq!(house.notes.0.lock().iter().filter(|n| **n == delivered).count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_registration_brings_nothing_that_the_phone_may_still_answer() {
    let mut house = House::open();
    house.bindings.add(BOB, PHONE, 1000, "");
    house.unanswered("hello");
    settle().await;
    house.pager.on_registered(BOB);
    sleep(Duration::from_secs(20)).await;
    assert!(house.phones.got().is_empty());
    sleep(Duration::from_secs(60)).await;
    assert_eq!((house.phones.got(), house.stored()), (got(PHONE, &["hello"]), 0));
}

/// A message that asks for notifications, as its client wraps it. `content_type`: of what is inside.
fn wrapped(call_id: &str, wanted: &str, content_type: &str, content: &str) -> String {
    let body = format!(
        "From: <im:alice@example.com>\r\nTo: <im:bob@example.com>\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
         imdn.Message-ID: m{call_id}\r\nDateTime: 2023-11-14T22:13:20Z\r\n\
         imdn.Disposition-Notification: {wanted}\r\n\r\nContent-Type: {content_type}\r\n\r\n{content}"
    );
    request("x", "")
        .replace("Call-ID: x", &format!("Call-ID: {call_id}"))
        .replace("text/plain", "message/cpim")
        .replace("Content-Length: 1\r\n\r\nx", &format!("Content-Length: {}\r\n\r\n{body}", body.len()))
}

impl House {
    fn unreached_wrapped(&mut self, request: &str) -> Verdict {
        let mut step = Step {
            now: std::time::Instant::now(),
            unix: self.unix.load(Relaxed),
            shard: 7,
            endpoint: &mut self.endpoint,
            out: &mut self.out,
            loaded: false,
        };
        let pager = self.pager.clone();
        with_request(request, Caller::Foreign, |r| pager.unreached(&mut step, r, None, 480))
    }

    /// What waits for alice, each as fate and outcome.
    fn for_alice(&self) -> Vec<(sip_cpim::Fate, sip_cpim::Outcome)> {
        let rows = self.queue.rows.lock();
        let hers = rows.values().filter(|m| m.aor.as_str() == "alice@example.com");
        let read = |body: &[u8]| {
            let letter = crate::letter::Letter::read(body).unwrap();
            let imdn = sip_cpim::Imdn::parse(letter.cpim().unwrap().content).unwrap();
            (imdn.fate, imdn.outcome)
        };
        hers.map(|m| read(&m.body)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_who_asked_is_told_that_a_message_waits_and_that_it_never_arrived() {
    let mut house = House::open();
    house.unreached_wrapped(&wrapped("c1", "processing, negative-delivery", "text/plain", "hello"));
    house.unreached_wrapped(&wrapped("c2", "display", "text/plain", "hello"));
    settle().await;
    let stored = (sip_cpim::Fate::Processing, sip_cpim::Outcome::Stored);
    assert_eq!(house.for_alice(), [stored], "only who asked");
    // The same again, from a client that lost our answer, is one message and one notification.
    house.unreached_wrapped(
        &wrapped("c1", "processing, negative-delivery", "text/plain", "hello").replace("CSeq: 1", "CSeq: 2"),
    );
    settle().await;
    assert_eq!((house.for_alice().len(), house.stored()), (1, 3));
    // A word from us outlives the message, here.
    house.queue.rows.lock().values_mut().filter(|m| m.aor.as_str() == BOB).for_each(|m| m.expires_at = NOW as i64 + 1);
    house.unix.store(NOW + 60, Relaxed);
    sleep(Duration::from_secs(61)).await;
    settle().await;
    assert_eq!(house.for_alice(), [stored, (sip_cpim::Fate::Delivery, sip_cpim::Outcome::Failed)]);
    house.bindings.add("alice@example.com", "sip:alice@192.0.2.8", 1000, "");
    house.pager.on_registered("alice@example.com");
    sleep(Duration::from_secs(5)).await;
    let got = house.phones.got();
    assert_eq!(got.len(), 1, "both words about two of bob's messages travel in one: {got:?}");
    assert!(
        got[0].contains("multipart/mixed") && got[0].contains("<stored/>") && got[0].contains("<failed/>"),
        "{got:?}"
    );
    assert_eq!(house.stored(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_cannot_read_several_at_once_gets_them_one_by_one() {
    let mut house = House::open();
    let document = |n: u8| format!("<imdn{n}/>");
    for n in 1..=3 {
        house.unreached_wrapped(&wrapped(&format!("c{n}"), "", "message/imdn+xml", &document(n)));
    }
    house.unreached("last", "");
    settle().await;
    house.phones.will([415]);
    house.register(PHONE);
    sleep(Duration::from_secs(10)).await;
    let got = house.phones.got();
    let shape = |text: &String| (1..=3).filter(|n| text.contains(&document(*n))).count();
    // All three, refused; one, and the two others together; the text.
    assert_eq!(got.iter().map(shape).collect::<Vec<_>>(), [3, 1, 2, 0], "{got:?}");
    assert_eq!(house.stored(), 0);
}

#[tokio::test(start_paused = true)]
async fn read_on_one_device_is_read_on_the_others() {
    let mut house = House::open();
    let bob = crate::fakes::user("bob", None);
    // The phone that read it sends from where `flow` says; two more are there.
    let here = sip_proto::Hop::Address { transport: Transport::Udp, remote: crate::fakes::flow().remote };
    house.bindings.0.lock().push((BOB, "sip:bob@192.0.2.1", 1000, "", Some(here)));
    house.bindings.add(BOB, "sip:bob@192.0.2.9", 500, "");
    house.bindings.add(BOB, "sip:bob@192.0.2.10", 400, "");
    let imdn = |told: &str| {
        format!(
            "<imdn xmlns=\"urn:ietf:params:xml:ns:imdn\"><message-id>1</message-id><datetime/><{told}</status></{}></imdn>",
            told.split('>').next().unwrap()
        )
    };
    let mut tell = |told: &str| {
        let text = wrapped("c1", "", "message/imdn+xml", &imdn(told));
        let mut step = Step {
            now: std::time::Instant::now(),
            unix: NOW,
            shard: 7,
            endpoint: &mut house.endpoint,
            out: &mut house.out,
            loaded: false,
        };
        let pager = house.pager.clone();
        let verdict = with_request(&text, Caller::User(bob.clone()), |r| pager.request(&mut step, r));
        assert_eq!(verdict, Verdict::Pass, "it goes to the sender all the same");
    };
    tell("delivery-notification><status><delivered/>");
    tell("display-notification><status><displayed/>");
    sleep(Duration::from_secs(5)).await;
    let got = house.phones.got();
    let to = |n: usize| got[n].split(' ').next().unwrap().to_owned();
    assert_eq!(got.len(), 2, "{got:?}");
    assert_eq!([to(0), to(1)], ["sip:bob@192.0.2.9", "sip:bob@192.0.2.10"]);
    assert!(got.iter().all(|g| g.contains("<displayed/>")), "{got:?}");
}
