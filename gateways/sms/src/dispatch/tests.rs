//! A dispatcher between a queue and a centre that do what the test says, on a pretend clock.

use std::collections::VecDeque;
use std::sync::atomic::AtomicI64;

use sip_ims::ports::Done;

use super::*;
use crate::queue::{Cancel, Enqueued, Older, Part, Replaced, Replacement, Request, RequestKey, Status, Total};
use crate::registry::{Change, Kind, Line};

type Asked = Box<dyn FnOnce(bool) + Send>;

#[derive(Default)]
struct World {
    marks: Mutex<Vec<Mark>>,
    /// What the store knows under a name.
    stored: Mutex<Vec<Waiting>>,
    submitted: Mutex<Vec<SegmentId>>,
    instructions: Mutex<Vec<Option<u8>>>,
    cancels: Mutex<Vec<SegmentId>>,
    room: AtomicUsize,
    down: std::sync::atomic::AtomicBool,
    now: AtomicI64,
    asked: Mutex<VecDeque<Asked>>,
    line: Mutex<Option<Line>>,
}

impl Queue for World {
    fn attach(&self, _: Arc<dyn Outlet>) {}
    fn enqueue(&self, _: Request, _: Done<Enqueued>) {}
    fn cancel(&self, _: RequestKey, _: i64, _: Done<Cancel>) {}
    fn supersede(&self, _: Older, _: i64, _: Done<u64>) {}
    fn find(&self, _: RequestKey, _: Done<Option<Status>>) {}
    fn find_many(&self, _: Arc<str>, _: Arc<str>, _: Done<Vec<Status>>) {}
    fn replace(&self, _: RequestKey, _: Replacement, _: Done<Replaced>) {}
    fn mark(&self, marks: Vec<Mark>) -> Result<(), StoreError> {
        self.marks.lock().extend(marks);
        Ok(())
    }
    fn mark_for_good(&self, marks: Vec<Mark>, done: Done<()>) {
        done(self.mark(marks));
    }
    fn sent_as(&self, names: Vec<SentAs>, done: Done<Vec<Waiting>>) {
        let found = self.stored.lock().iter().filter(|w| names.contains(&w.sent_as.key())).cloned().collect();
        done(Ok(found));
    }
    fn wake(&self, _: Msisdn) {}
    fn wake_ranges(&self, _: &[(Msisdn, Msisdn)]) {}
    fn notified(&self, _: SegmentId) {}
    fn notify_later(&self, _: SegmentId, _: i64, _: u16) {}
    fn totals(&self, _: &str, _: &str, _: Done<Vec<Total>>) {}
}

impl Centre for World {
    fn choose(&self, _: Msisdn) -> Option<LinkId> {
        (!self.down.load(Relaxed)).then_some(LinkId(0))
    }
    fn room(&self, _: LinkId) -> usize {
        if self.down.load(Relaxed) { 0 } else { self.room.load(Relaxed) - self.submitted.lock().len() }
    }
    fn submit(&self, _: LinkId, segment: &Segment, instruction: Option<u8>) -> bool {
        self.submitted.lock().push(segment.id);
        self.instructions.lock().push(instruction);
        true
    }
    fn cancel(&self, recall: &Recall, _: &SentAs) -> bool {
        self.cancels.lock().push(recall.id);
        true
    }
    fn name(&self, _: LinkId) -> Arc<str> {
        "smsc".into()
    }
    fn exists(&self) -> bool {
        true
    }
}

impl Lines for World {
    fn known(&self, _: Msisdn) -> Option<Line> {
        *self.line.lock()
    }
    fn ask(&self, _: Msisdn, done: Asked) {
        self.asked.lock().push_back(done);
    }
}

impl Witness for World {
    fn submitted(&self, _: SegmentId, _: &Origin) {}
    fn deferred(&self, _: SegmentId, _: &Origin) {}
    fn ended(&self, _: &[Ended]) {}
    fn notices(&self, _: Vec<Notice>) {}
    fn notice_room(&self) -> usize {
        0
    }
}

fn world(room: usize) -> (Arc<World>, Arc<Dispatcher>) {
    let world =
        Arc::new(World { room: AtomicUsize::new(room), line: Mutex::new(Some(Line::default())), ..World::default() });
    world.now.store(1_000_000, Relaxed);
    let registry = Arc::new(Registry::default());
    let body = r#"{"xpid":"12345678901","deliver_while_roaming":true}"#;
    registry.apply(&Change { sequence: 1, kind: Kind::PushClient, key: "12345678901".into(), body: Some(body.into()) });
    let clock = world.clone();
    let dispatcher = Dispatcher::new(Parts {
        config: Config::default(),
        queue: world.clone(),
        registry,
        lines: world.clone(),
        witness: world.clone(),
        clock: Arc::new(move || clock.now.load(Relaxed)),
    });
    dispatcher.tie(world.clone(), None);
    (world, dispatcher)
}

fn segment(n: i64, msn: &str, rank: u8) -> Segment {
    let origin = Origin {
        client: "12345678901".into(),
        msn: msn.parse().unwrap(),
        reqid: format!("r{n}").into(),
        expires_at: 100_000_000,
        rank,
        flags: 0,
        parts: 1,
    };
    Segment { id: SegmentId(n << 4), origin: Arc::new(origin), attempts: 0, part: Part::default() }
}

const A: &str = "+819012345678";
const B: &str = "+819012345679";

fn hand(dispatcher: &Arc<Dispatcher>, segments: Vec<Segment>) {
    Hand(dispatcher.clone()).ready(segments);
}

fn taken(id: &str) -> Report {
    Report::Taken { message_id: id.into() }
}

impl World {
    /// What has been submitted since the last time.
    fn sent(&self) -> Vec<i64> {
        std::mem::take(&mut *self.submitted.lock()).iter().map(|id| id.0 >> 4).collect()
    }

    fn told(&self) -> Vec<(i64, Progress)> {
        std::mem::take(&mut *self.marks.lock()).into_iter().map(|m| (m.id.0 >> 4, m.progress)).collect()
    }
}

fn delivered() -> (SegmentState, Verdict) {
    (SegmentState::Delivered, Verdict::DELIVERED)
}

fn name(id: &str) -> SentAs {
    SentAs { link: "smsc".into(), message_id: id.into() }
}

fn receipt(dispatcher: &Arc<Dispatcher>, id: &str) {
    let names = crate::receipt::keys(id).into_iter().map(|k| name(&k)).collect();
    dispatcher.receipt(names, delivered(), Box::new(|r| r.unwrap()));
}

#[test]
fn the_window_fills_in_order_and_urgent_ones_go_first() {
    let (world, dispatcher) = world(2);
    hand(&dispatcher, vec![segment(1, A, 2), segment(2, A, 2), segment(3, B, 2), segment(4, B, 0)]);
    assert_eq!((world.sent(), dispatcher.held()), (vec![4, 1], 4));
    dispatcher.reported(LinkId(0), [(SegmentId(4 << 4), taken("x")), (SegmentId(1 << 4), taken("y"))]);
    assert_eq!((world.sent(), dispatcher.held()), (vec![2, 3], 2));
    assert_eq!(world.told(), [(4, Progress::Sent(name("x"))), (1, Progress::Sent(name("y")))]);
    assert_eq!(*world.instructions.lock(), [Some(1); 4]);
}

#[test]
fn what_a_centre_throttles_or_loses_goes_again_in_front() {
    let (world, dispatcher) = world(2);
    hand(&dispatcher, (1..=4).map(|n| segment(n, A, 2)).collect());
    assert_eq!(world.sent(), [1, 2]);
    dispatcher.reported(LinkId(0), [(SegmentId(1 << 4), Report::Again), (SegmentId(2 << 4), Report::Unknown)]);
    assert_eq!(world.sent(), [1, 2]);
    assert_eq!(world.told(), []);
}

#[test]
fn a_pause_holds_what_is_behind_for_the_same_number() {
    let (world, dispatcher) = world(1);
    hand(&dispatcher, vec![segment(1, A, 2), segment(2, A, 2), segment(3, B, 2)]);
    assert_eq!(world.sent(), [1]);
    dispatcher.reported(LinkId(0), [(SegmentId(1 << 4), Report::Later(Pause::Busy))]);
    assert_eq!(world.sent(), [3]);
    let due = 1_000_000 + 10_000;
    assert_eq!(
        world.told(),
        [(1, Progress::Deferred { due, attempts: 1 }), (2, Progress::Deferred { due, attempts: 0 })]
    );
    hand(&dispatcher, vec![segment(4, A, 2)]);
    assert_eq!(world.told(), [(4, Progress::Deferred { due, attempts: 0 })]);
    world.now.store(due, Relaxed);
    dispatcher.tick();
    dispatcher.reported(LinkId(0), [(SegmentId(3 << 4), Report::Never(Verdict::REJECTED))]);
    hand(&dispatcher, vec![segment(1, A, 2)]);
    assert_eq!(world.sent(), [1]);
}

#[test]
fn receipts_early_late_and_twice() {
    let (world, dispatcher) = world(5);
    hand(&dispatcher, vec![segment(1, A, 2), segment(2, A, 2)]);
    receipt(&dispatcher, "AA");
    assert_eq!(world.told(), []);
    dispatcher.reported(LinkId(0), [(SegmentId(1 << 4), taken("aa")), (SegmentId(2 << 4), taken("00BB"))]);
    let end = Progress::Ended { state: SegmentState::Delivered, verdict: Verdict::DELIVERED, at: 1_000_000 };
    assert_eq!(world.told(), [(1, end.clone()), (2, Progress::Sent(name("00BB")))]);
    receipt(&dispatcher, &0xbb.to_string());
    assert_eq!(world.told(), [(2, end.clone())]);
    receipt(&dispatcher, "bb");
    assert_eq!(world.told(), []);
    // One from before the restart: the store knows it.
    let old = segment(9, A, 2);
    world.stored.lock().push(Waiting { id: old.id, origin: old.origin, sent_as: name("0CC") });
    receipt(&dispatcher, "CC");
    assert_eq!(world.told(), [(9, end)]);
    world.now.fetch_add(61_000, Relaxed);
    dispatcher.tick();
    assert_eq!(dispatcher.counts().strange_receipts.load(Relaxed), 1, "the second of bb");
}

#[test]
fn a_line_state_ends_it_before_it_is_submitted() {
    let (world, dispatcher) = world(5);
    *world.line.lock() = Some(Line { suspended: true, roaming: true, ..Line::default() });
    hand(&dispatcher, vec![segment(1, A, 2)]);
    let Progress::Ended { state, verdict, .. } = world.told()[0].1.clone() else { panic!() };
    assert_eq!((state, verdict), (SegmentState::Failed, Verdict(6012)));
    // Nobody knows the line by heart: asked once for both.
    *world.line.lock() = None;
    hand(&dispatcher, vec![segment(2, A, 2), segment(3, A, 2)]);
    assert_eq!((world.asked.lock().len(), world.sent().len()), (1, 0));
    *world.line.lock() = Some(Line::default());
    let done = world.asked.lock().pop_front().unwrap();
    done(true);
    assert_eq!(world.sent(), [2, 3]);
    *world.line.lock() = None;
    hand(&dispatcher, vec![segment(4, B, 2)]);
    let done = world.asked.lock().pop_front().unwrap();
    done(false);
    assert_eq!(world.told(), [(4, Progress::Deferred { due: 1_010_000, attempts: 1 })]);
}

#[test]
fn without_a_link_it_waits_and_then_goes_back_to_the_store() {
    let (world, dispatcher) = world(5);
    world.down.store(true, Relaxed);
    hand(&dispatcher, vec![segment(1, A, 2)]);
    dispatcher.tick();
    world.down.store(false, Relaxed);
    dispatcher.wake();
    assert_eq!(world.sent(), [1]);
    world.down.store(true, Relaxed);
    dispatcher.reported(LinkId(0), [(SegmentId(1 << 4), Report::Unknown)]);
    dispatcher.wake();
    dispatcher.tick();
    world.now.fetch_add(5_000, Relaxed);
    dispatcher.tick();
    assert_eq!(world.told(), [(1, Progress::Deferred { due: 1_015_000, attempts: 0 })]);
    assert_eq!(dispatcher.held(), 0);
}

#[test]
fn recalls_wherever_it_is() {
    let (world, dispatcher) = world(2);
    hand(&dispatcher, (1..=3).map(|n| segment(n, A, 2)).collect());
    assert_eq!(world.sent(), [1, 2]);
    let recall =
        |n: i64, sent_as| Recall { id: SegmentId(n << 4), origin: segment(n, A, 2).origin, sent_as, source: "".into() };
    // One waits, one is on the wire and will be taken, one is on the wire and will not.
    Hand(dispatcher.clone()).recall(vec![recall(3, None), recall(1, None), recall(2, None)]);
    let over = Progress::Ended { state: SegmentState::Cancelled, verdict: Verdict::CANCELLED, at: 1_000_000 };
    assert_eq!(world.told(), [(3, over.clone())]);
    dispatcher.reported(LinkId(0), [(SegmentId(1 << 4), taken("x")), (SegmentId(2 << 4), Report::Again)]);
    assert_eq!(world.told(), [(1, Progress::Sent(name("x"))), (2, over.clone())]);
    assert_eq!(*world.cancels.lock(), [SegmentId(1 << 4)]);
    // Asked again by the store: not twice at once.
    Hand(dispatcher.clone()).recall(vec![recall(1, Some(name("x")))]);
    assert_eq!(world.cancels.lock().len(), 1);
    dispatcher.cancelled(SegmentId(1 << 4), Cancelled::Later);
    Hand(dispatcher.clone()).recall(vec![recall(1, Some(name("x")))]);
    dispatcher.cancelled(SegmentId(1 << 4), Cancelled::No);
    assert_eq!(world.told(), [(1, Progress::NotCancelled(name("x")))]);
    Hand(dispatcher.clone()).recall(vec![recall(1, Some(name("x")))]);
    dispatcher.cancelled(SegmentId(1 << 4), Cancelled::Yes);
    assert_eq!(world.told(), [(1, over)]);
}

#[test]
fn what_expired_in_the_queue_is_not_submitted() {
    let (world, dispatcher) = world(1);
    hand(&dispatcher, vec![segment(1, A, 2), segment(2, A, 2)]);
    assert_eq!(world.sent(), [1]);
    world.now.store(100_000_000, Relaxed);
    dispatcher.reported(LinkId(0), [(SegmentId(1 << 4), taken("x"))]);
    hand(&dispatcher, vec![segment(3, A, 2)]);
    assert_eq!(world.sent(), [0; 0]);
    let ends = world.told().into_iter().filter(|m| matches!(m.1, Progress::Ended { verdict: Verdict::EXPIRED, .. }));
    assert_eq!(ends.map(|m| m.0).collect::<Vec<_>>(), [2, 3]);
}
