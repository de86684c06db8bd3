//! What the queue of short messages promises, on both engines, and across `kill -9`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use gw_sms::queue::*;
use gw_sms::registry::{Entry, Kind, Registrations};
use isthmus::store::sms::{SmsConfig, SmsQueue};
use isthmus::store::sql::SqlStore;
use isthmus::store::{Engine, StoreConfig};
use parking_lot::Mutex;
use rand::Rng;
use sip_ims::Msisdn;
use sip_ims::ports::{Done, StoreError};

#[path = "harness/postgres.rs"]
#[allow(dead_code)] // Shared: other tests use the rest of it.
mod postgres;

struct Subject {
    engine: Engine,
    folder: tempfile::TempDir,
    _postgres: Option<postgres::Postgres>,
}

impl Subject {
    fn sqlite() -> Subject {
        let folder = tempfile::tempdir().unwrap();
        Subject { engine: Engine::Sqlite(folder.path().to_owned()), folder, _postgres: None }
    }

    fn postgres() -> Subject {
        let postgres = postgres::Postgres::start();
        let folder = tempfile::tempdir().unwrap();
        Subject { engine: Engine::Postgres(postgres.url()), folder, _postgres: Some(postgres) }
    }

    /// A queue with somebody who takes at most `room` segments.
    fn open(&self, room: usize) -> (SmsQueue, Arc<Taker>) {
        let queue = SmsQueue::open(&SmsConfig::new(self.engine.clone(), self.folder.path(), "n1")).unwrap();
        let taker = Arc::new(Taker { room: AtomicUsize::new(room), ..Taker::default() });
        queue.attach(taker.clone());
        // The writer takes note of it with its first turn.
        wait(|done| queue.find(key("nobody"), done)).unwrap();
        (queue, taker)
    }
}

macro_rules! on_both_engines {
    ($($name:ident)*) => {
        mod sqlite { $(#[test] fn $name() { super::$name(super::Subject::sqlite()) })* }
        mod on_postgres { $(#[test] fn $name() { super::$name(super::Subject::postgres()) })* }
    };
}

on_both_engines! {
    a_request_is_there_once_whatever_comes
    many_of_the_same_at_once_are_one
    what_was_not_sent_is_handed_out_again_after_a_restart
    receipts_find_their_segment_in_any_spelling_and_count_once
    a_request_is_through_with_its_last_segment
    what_waits_for_its_time_holds_those_behind_it
    cancellation_in_every_state
    a_body_is_replaced_until_it_has_left
    what_is_for_later_waits_and_holds_nothing_back
    a_newer_one_supersedes_those_of_its_kind
    requests_to_many_are_found_by_their_one_id
    what_memory_does_not_hold_waits_in_order
    a_number_is_tied_to_ten_clients
    nothing_accepted_or_marked_is_lost_with_the_process
}

#[derive(Default)]
struct Taker {
    room: AtomicUsize,
    ready: Mutex<Vec<Segment>>,
    recalled: Mutex<Vec<Recall>>,
    ended: Mutex<Vec<Ended>>,
    notices: Mutex<Vec<Notice>>,
}

impl Outlet for Taker {
    fn ready(&self, segments: Vec<Segment>) {
        self.room.fetch_sub(segments.len(), SeqCst);
        self.ready.lock().extend(segments);
    }

    fn room(&self) -> usize {
        self.room.load(SeqCst)
    }

    fn exchange(&self, id: SegmentId, with: &Replacement) -> bool {
        let mut ready = self.ready.lock();
        let held = ready.iter_mut().find(|s| s.id == id);
        held.map(|s| s.part.short_message.clone_from(&with.short_message)).is_some()
    }

    fn recall(&self, segments: Vec<Recall>) {
        self.recalled.lock().extend(segments);
    }

    fn ended(&self, ended: &[Ended]) {
        self.ended.lock().extend_from_slice(ended);
    }

    fn notices(&self, notices: Vec<Notice>) {
        self.notices.lock().extend(notices);
    }

    fn notice_room(&self) -> usize {
        100
    }
}

impl Taker {
    /// Waits until so many segments have been handed out in all.
    fn wait_ready(&self, count: usize) -> Vec<Segment> {
        eventually(|| self.ready.lock().len() >= count);
        self.ready.lock().clone()
    }
}

fn a_request_is_there_once_whatever_comes(subject: Subject) {
    let (queue, taker) = subject.open(100);
    let first = enqueue(&queue, request("r", 1, 1));
    assert!(matches!(first, Enqueued::New(_)));
    assert_eq!(enqueue(&queue, request("r", 1, 1)), Enqueued::Again(first.id().unwrap()));
    assert_eq!(enqueue(&queue, request("r", 2, 1)), Enqueued::Other);
    // Another one with more segments leaves none of them behind.
    assert_eq!(enqueue(&queue, request("r", 3, 4)), Enqueued::Other);
    assert_eq!(find(&queue, "r").unwrap().segments.len(), 1);
    let second = enqueue(&queue, request("s", 1, 3)).id().unwrap();
    assert!(second > first.id().unwrap());
    let ready = taker.wait_ready(4);
    assert_eq!(ready.iter().map(|s| s.id).collect::<Vec<_>>()[1..], [0, 1, 2].map(|n| second.at(n)));
    assert_eq!(ready[3].part, part(2));
    assert_eq!(taker.ready.lock().len(), 4);
}

fn many_of_the_same_at_once_are_one(subject: Subject) {
    let (queue, taker) = subject.open(100);
    let (answers, answered) = mpsc::channel();
    for _ in 0..50 {
        let answers = answers.clone();
        queue.enqueue(request("same", 7, 2), Box::new(move |r| answers.send(r.unwrap()).unwrap()));
    }
    let all: Vec<Enqueued> = answered.iter().take(50).collect();
    assert_eq!(all.iter().filter(|e| matches!(e, Enqueued::New(_))).count(), 1);
    assert!(all.iter().all(|e| e.id() == all[0].id()));
    taker.wait_ready(2);
    // Time for a second one, were there any.
    assert_eq!(find(&queue, "same").unwrap().segments.len(), 2);
    assert_eq!(taker.ready.lock().len(), 2);
}

fn what_was_not_sent_is_handed_out_again_after_a_restart(subject: Subject) {
    let (queue, taker) = subject.open(100);
    for n in 0..20 {
        enqueue(&queue, request(&format!("r{n:02}"), 1, 1));
    }
    let ready = taker.wait_ready(20);
    queue.mark(ready[..12].iter().map(|s| sent(s, &format!("id{}", s.id.0))).collect()).unwrap();
    drop(queue);
    let (_queue, taker) = subject.open(100);
    let again = taker.wait_ready(8);
    assert_eq!(again.iter().map(|s| s.id).collect::<Vec<_>>(), ready[12..].iter().map(|s| s.id).collect::<Vec<_>>());
    assert_eq!(again[0].part, ready[12].part);
}

fn receipts_find_their_segment_in_any_spelling_and_count_once(subject: Subject) {
    let (queue, taker) = subject.open(100);
    enqueue(&queue, request("r", 1, 1));
    let segment = taker.wait_ready(1).remove(0);
    queue.mark(vec![sent(&segment, "00A1F")]).unwrap();
    let by = |id: &str| {
        let names = gw_sms::receipt::keys(id).into_iter();
        let names = names.map(|key| SentAs { link: "smsc".into(), message_id: key.into() }).collect();
        wait(|done| queue.sent_as(names, done)).unwrap()
    };
    let decimal = 0xa1f.to_string();
    let found = by(&decimal).remove(0);
    assert_eq!((found.id, &*found.sent_as.message_id, by("a1e").len()), (segment.id, "00A1F", 0));
    for _ in 0..2 {
        queue.mark(vec![ended(&segment, State::Delivered, Verdict::DELIVERED)]).unwrap();
        eventually(|| find(&queue, "r").unwrap().segments[0].0 == State::Delivered);
    }
    // A later one changes nothing.
    queue.mark(vec![ended(&segment, State::Failed, Verdict::REJECTED)]).unwrap();
    assert_eq!(find(&queue, "r").unwrap().segments, [(State::Delivered, Verdict::DELIVERED)]);
    let totals = wait(|done| queue.totals("2000-01-01", "2100-01-01", done)).unwrap();
    assert_eq!(
        totals.iter().map(|t| (t.verdict, t.requests, t.segments)).collect::<Vec<_>>(),
        [(Verdict::DELIVERED, 1, 1)]
    );
    assert_eq!((taker.ended.lock().len(), taker.notices.lock().len()), (1, 1));
    assert_eq!(by(&decimal).len(), 0);
}

fn a_request_is_through_with_its_last_segment(subject: Subject) {
    let (queue, taker) = subject.open(100);
    enqueue(&queue, request("r", 1, 3));
    let ready = taker.wait_ready(3);
    queue.mark(vec![ended(&ready[0], State::Delivered, Verdict::DELIVERED)]).unwrap();
    eventually(|| taker.ended.lock().len() == 1);
    queue.mark(vec![ended(&ready[2], State::Failed, Verdict::UNDELIVERABLE)]).unwrap();
    eventually(|| taker.ended.lock().len() == 2);
    assert_eq!(taker.notices.lock().len(), 0);
    queue.mark(vec![ended(&ready[1], State::Delivered, Verdict::DELIVERED)]).unwrap();
    eventually(|| taker.notices.lock().len() == 1);
    let notice = taker.notices.lock()[0].clone();
    assert_eq!((notice.verdict, notice.delivered, notice.parts, notice.cancel), (Verdict::UNDELIVERABLE, 2, 3, false));
    let totals = wait(|done| queue.totals("2000-01-01", "2100-01-01", done)).unwrap();
    let sums: BTreeMap<u16, (i64, i64)> = totals.iter().map(|t| (t.verdict.0, (t.requests, t.segments))).collect();
    assert_eq!(sums, BTreeMap::from([(0, (0, 2)), (6002, (1, 1))]));
    // It is lent again after a restart unless it was told.
    queue.notify_later(notice.id, 0, 3);
    eventually(|| taker.notices.lock().iter().any(|n| n.attempts == 3));
    queue.notified(notice.id);
    wait(|done| queue.find(key("r"), done)).unwrap();
}

fn what_waits_for_its_time_holds_those_behind_it(subject: Subject) {
    let (queue, taker) = subject.open(100);
    enqueue(&queue, request("a", 1, 1));
    let a = taker.wait_ready(1).remove(0);
    let due = now() + 3_600_000;
    queue.mark(vec![mark(&a, Progress::Deferred { due, attempts: 1 })]).unwrap();
    eventually(|| find(&queue, "a").unwrap().segments[0].0 == State::Deferred);
    let b = enqueue(&queue, request("b", 1, 2)).id().unwrap();
    let other = Request { origin: Origin { msn: number(9), ..request("c", 1, 1).origin }, ..request("c", 1, 1) };
    enqueue(&queue, other);
    // The other number's goes first, though it came last; theirs do in their order once the line is there.
    taker.wait_ready(2);
    assert_eq!(find(&queue, "b").unwrap().segments[1].0, State::Deferred);
    queue.wake(number(1));
    let ready = taker.wait_ready(5);
    assert_eq!(ready[2..].iter().map(|s| (s.id, s.attempts)).collect::<Vec<_>>(), [(a.id, 1), (b, 0), (b.at(1), 0)]);
}

fn cancellation_in_every_state(subject: Subject) {
    let (queue, taker) = subject.open(100);
    let cancel = |reqid: &str| wait(|done| queue.cancel(key(reqid), now(), done)).unwrap();
    for reqid in ["ready", "sent", "deferred", "over", "half"] {
        enqueue(&queue, request(reqid, 1, if reqid == "half" { 2 } else { 1 }));
    }
    let ready = taker.wait_ready(6);
    queue
        .mark(vec![
            sent(&ready[1], "x1"),
            mark(&ready[2], Progress::Deferred { due: now() + 3_600_000, attempts: 1 }),
            ended(&ready[3], State::Delivered, Verdict::DELIVERED),
            ended(&ready[4], State::Delivered, Verdict::DELIVERED),
            sent(&ready[5], "x2"),
        ])
        .unwrap();
    assert_eq!(cancel("nobody"), Cancel::Unknown);
    assert_eq!((cancel("over"), cancel("half"), cancel("half")), (Cancel::Over, Cancel::Partly, Cancel::Again));
    assert_eq!((cancel("ready"), cancel("sent"), cancel("deferred")), (Cancel::Taken, Cancel::Taken, Cancel::Taken));
    assert_eq!(find(&queue, "deferred").unwrap().segments[0].0, State::Cancelled);
    let recalled: Vec<_> = taker.recalled.lock()[..3].iter().map(|r| (r.id, r.sent_as.is_some())).collect();
    assert_eq!(recalled, [(ready[5].id, true), (ready[0].id, false), (ready[1].id, true)]);
    // One could be taken back, one not, and one comes back by itself: asked again.
    let refused = SentAs { link: "smsc".into(), message_id: "x2".into() };
    queue
        .mark(vec![
            ended(&ready[0], State::Cancelled, Verdict::CANCELLED),
            mark(&ready[5], Progress::NotCancelled(refused)),
        ])
        .unwrap();
    eventually(|| find(&queue, "half").unwrap().segments[1].0 == State::Sent);
    eventually(|| taker.recalled.lock()[3..].iter().any(|r| r.id == ready[1].id));
    queue.mark(vec![ended(&ready[1], State::Cancelled, Verdict::CANCELLED)]).unwrap();
    queue.mark(vec![ended(&ready[5], State::Delivered, Verdict::DELIVERED)]).unwrap();
    eventually(|| taker.notices.lock().len() == 5);
    let told: BTreeMap<String, (bool, u8, u8)> =
        taker.notices.lock().iter().map(|n| (n.reqid.to_string(), (n.cancel, n.cancelled, n.delivered))).collect();
    assert_eq!((told["half"], told["sent"], told["over"]), ((true, 0, 2), (true, 1, 0), (false, 0, 1)));
}

fn what_memory_does_not_hold_waits_in_order(subject: Subject) {
    let (queue, taker) = subject.open(5);
    for n in 0..40 {
        enqueue(&queue, request(&format!("r{n:02}"), 1, 1));
    }
    let mut taken = 0;
    while taken < 40 {
        eventually(|| taker.ready.lock().len() > taken);
        let ready = taker.ready.lock()[taken..].to_vec();
        assert!(ready.len() <= 5);
        taken += ready.len();
        queue.mark(ready.iter().map(|s| sent(s, &s.id.0.to_string())).collect()).unwrap();
        taker.room.fetch_add(ready.len(), SeqCst);
    }
    let ids: Vec<i64> = taker.ready.lock().iter().map(|s| s.id.0).collect();
    assert!(ids.is_sorted() && ids.len() == 40, "{ids:?}");
}

fn a_number_is_tied_to_ten_clients(subject: Subject) {
    let config = match &subject.engine {
        Engine::Sqlite(folder) => StoreConfig::sqlite(folder),
        Engine::Postgres(url) => StoreConfig::postgres(url),
    };
    let store = SqlStore::open(&config).unwrap();
    let entry = |n: usize, numbers: &[u64]| Entry {
        kind: Kind::PushClient,
        key: format!("{n:011}"),
        body: format!("{{\"xpid\":\"{n:011}\"}}"),
        numbers: numbers.iter().map(|n| number(*n)).collect(),
    };
    let put = |entries: Vec<Entry>| wait(|done| Registrations::put(&store, entries, done));
    // Ten at the same time from two sides: all or none of each call.
    put((0..9).map(|n| entry(n, &[1, 2])).collect()).unwrap();
    assert!(matches!(put(vec![entry(20, &[3]), entry(9, &[1]), entry(10, &[1])]), Err(StoreError::OverQuota)));
    put(vec![entry(9, &[1])]).unwrap();
    assert!(matches!(put(vec![entry(10, &[1])]), Err(StoreError::OverQuota)));
    // One leaves, another may come; within one call, too.
    put(vec![entry(10, &[1]), entry(0, &[2])]).unwrap();
    assert!(wait(|done| Registrations::remove(&store, Kind::PushClient, "00000000001", done)).unwrap());
    put(vec![entry(11, &[1])]).unwrap();
    let changes = wait(|done| store.changes(0, 100, done)).unwrap();
    assert_eq!(changes.iter().filter(|c| c.body.is_some()).count(), 11);
    assert!(changes.iter().all(|c| c.key != "00000000020"), "part of a refused call is there");
}

// --- kill -9 ------------------------------------------------------------------------------------------------------------

const ENGINE: &str = "ISTHMUS_SMS_CRASH_ENGINE";
const PLACE: &str = "ISTHMUS_SMS_CRASH_PLACE";
const FOLDER: &str = "ISTHMUS_SMS_CRASH_FOLDER";
const ROUND: &str = "ISTHMUS_SMS_CRASH_ROUND";

/// The writer is this test binary, started again for one test; it says `accepted NAME` and `marked ID`.
fn nothing_accepted_or_marked_is_lost_with_the_process(subject: Subject) {
    let (engine, place) = match &subject.engine {
        Engine::Sqlite(folder) => ("sqlite", folder.display().to_string()),
        Engine::Postgres(url) => ("postgres", url.clone()),
    };
    let (mut accepted, mut marked) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer", "--exact", "--nocapture", "--test-threads", "1"])
            .env(ENGINE, engine)
            .env(PLACE, &place)
            .env(FOLDER, subject.folder.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stop = rand::rng().random_range(200..1_500);
        let mut said = 0;
        for line in lines {
            let Ok(line) = line else { break };
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["accepted", name] => drop(accepted.insert(name.to_owned())),
                ["marked", id] => drop(marked.insert(id.parse::<i64>().unwrap())),
                _ => continue,
            }
            said += 1;
            if said == stop {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
    }
    assert!(accepted.len() > 100 && marked.len() > 50, "{} {}", accepted.len(), marked.len());
    let (queue, taker) = subject.open(1_000_000);
    for name in &accepted {
        assert!(find(&queue, name).is_some(), "{name} was accepted");
    }
    // What was accepted is handed out again, or was marked.
    let again = || taker.ready.lock().iter().map(|s| s.id.0).collect::<BTreeSet<i64>>();
    let mut nowhere: Vec<&String> = accepted.iter().collect();
    eventually(|| {
        let again = again();
        nowhere.retain(|name| {
            let status = find(&queue, name).unwrap();
            !again.contains(&status.id.0) && status.segments[0].0 != State::Sent
        });
        nowhere.is_empty()
    });
    // What was marked is not, nor a while later.
    std::thread::sleep(Duration::from_secs(1));
    let again = again();
    let twice: Vec<&i64> = again.intersection(&marked).collect();
    assert!(twice.is_empty(), "handed out again though marked: {twice:?}");
}

#[test]
fn writer() {
    let engine = match (std::env::var(ENGINE).as_deref(), std::env::var(PLACE)) {
        (Ok("sqlite"), Ok(place)) => Engine::Sqlite(place.into()),
        (Ok("postgres"), Ok(place)) => Engine::Postgres(place),
        // Started by the test runner: nobody reads, so there is nothing to write; the rounds above are its judge.
        _ => return,
    };
    let queue = SmsQueue::open(&SmsConfig::new(engine, std::env::var(FOLDER).unwrap(), "n1")).unwrap();
    let queue = Arc::new(queue);
    let round = std::env::var(ROUND).unwrap();
    let taker = Arc::new(Taker { room: AtomicUsize::new(usize::MAX / 2), ..Taker::default() });
    queue.attach(taker.clone());
    let say = |line: String| {
        let mut out = std::io::stdout();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap();
    };
    let mut n = 0;
    loop {
        for _ in 0..20 {
            n += 1;
            let name = format!("{round}-{n}");
            let request =
                Request { origin: Origin { msn: number(n), ..request(&name, n, 1).origin }, ..request(&name, n, 1) };
            queue.enqueue(
                request,
                Box::new(move |r| {
                    if r.is_ok() {
                        say(format!("accepted {name}\n"))
                    }
                }),
            );
        }
        std::thread::sleep(Duration::from_millis(5));
        for segment in std::mem::take(&mut *taker.ready.lock()) {
            // Every third one stays on the wire.
            if segment.id.0 / 16 % 3 != 0 && queue.mark(vec![sent(&segment, &segment.id.0.to_string())]).is_ok() {
                say(format!("marked {}\n", segment.id.0));
            }
        }
    }
}

// --- small things -------------------------------------------------------------------------------------------------------

fn number(n: u64) -> Msisdn {
    format!("+8190{n:08}").parse().unwrap()
}

fn part(n: u8) -> Part {
    Part { source: "Fleet".into(), udhi: n > 0, data_coding: 4, protocol_id: 1, short_message: vec![n, 0, 255].into() }
}

/// The log has a number that grows whenever it begins anew (SQLite's file format, §4.1).
#[test]
fn the_log_goes_into_the_file_beside_the_commits_and_begins_anew() {
    let subject = Subject::sqlite();
    let (queue, _taker) = subject.open(0);
    let file = |name: &str| subject.folder.path().join(name);
    let begun = || {
        let mut head = [0; 16];
        std::fs::File::open(file("sms.db-wal")).unwrap().read_exact(&mut head).unwrap();
        u32::from_be_bytes(*head.last_chunk().unwrap())
    };
    let first = begun();
    let long = Part { short_message: vec![7; 140].into(), ..part(1) };
    let n = 2_000;
    for n in 1..=n {
        let one = request(&format!("r{n}"), n, 10);
        queue.enqueue(Request { parts: vec![long.clone(); 10], ..one }, Box::new(drop));
        if n % 100 == 0 {
            enqueue(&queue, request(&format!("s{n}"), n, 1));
        }
    }
    eventually(|| std::fs::metadata(file("sms.db")).unwrap().len() > 4_000_000);
    eventually(|| {
        enqueue(&queue, request(&format!("t{}", rand::random::<u64>()), 1, 1));
        begun() > first
    });
    // Nothing has been lost on the way.
    drop(queue);
    let (queue, _taker) = subject.open(0);
    assert!((1..=n).step_by(97).all(|n| find(&queue, &format!("r{n}")).is_some_and(|s| s.segments.len() == 10)));
}

fn a_body_is_replaced_until_it_has_left(subject: Subject) {
    let (queue, taker) = subject.open(1);
    let with = |text: &[u8]| Replacement { short_message: text.into(), expires_at: None, not_before: None };
    let replace = |reqid: &str, text: &[u8]| {
        let n = reqid.split_once('-').and_then(|(_, n)| n.parse().ok()).unwrap_or(1);
        wait(|done| queue.replace(RequestKey { msn: number(n), ..key(reqid) }, with(text), done)).unwrap()
    };
    assert_eq!(replace("nobody", b"x"), Replaced::Unknown);
    // In memory, then on its way, then at the centre, then over.
    enqueue(&queue, request("r", 1, 1));
    let held = taker.wait_ready(1).remove(0);
    assert_eq!(replace("r", b"second"), Replaced::Yes);
    assert_eq!(&*taker.ready.lock()[0].part.short_message, b"second");
    taker.ready.lock().clear();
    assert_eq!(replace("r", b"third"), Replaced::Busy);
    let name = SentAs { link: "smsc".into(), message_id: "1a".into() };
    let mark = |progress| Mark { id: held.id, origin: held.origin.clone(), progress };
    queue.mark(vec![mark(Progress::Sent(name.clone()))]).unwrap();
    eventually(|| replace("r", b"fourth") == Replaced::Sent(name.clone()));
    let end = Progress::Ended { state: State::Delivered, verdict: Verdict::DELIVERED, at: now() };
    queue.mark(vec![mark(end)]).unwrap();
    eventually(|| replace("r", b"fifth") == Replaced::No);
    assert!(find(&queue, "r").unwrap().done_at > 0);
    // In the store alone: whoever gets it gets the new one. Several segments are not exchanged.
    enqueue(&queue, request("waits", 2, 1));
    assert_eq!(replace("waits", b"other"), Replaced::Yes);
    enqueue(&queue, request("long", 3, 2));
    assert_eq!(replace("long", b"x"), Replaced::No);
    taker.room.store(1, SeqCst);
    assert_eq!(&*taker.wait_ready(1)[0].part.short_message, b"other");
}

fn what_is_for_later_waits_and_holds_nothing_back(subject: Subject) {
    let (queue, taker) = subject.open(100);
    let hour = now() + 3_600_000;
    let later = |reqid: &str, digest, time| Request { not_before: time, ..request(reqid, digest, 2) };
    enqueue(&queue, later("hour", 1, hour));
    enqueue(&queue, later("gone", 2, hour));
    let states = |reqid: &str| find(&queue, reqid).unwrap().segments.iter().map(|s| s.0).collect::<Vec<_>>();
    assert_eq!(states("hour"), [State::Scheduled, State::Scheduled]);
    // What comes after it for the same number goes at once; and so does what was for a time that is over.
    enqueue(&queue, request("now", 3, 1));
    enqueue(&queue, later("past", 4, now() - 1));
    assert_eq!(taker.wait_ready(3).len(), 3);
    // A handset that comes back is no reason, nor is a restart.
    queue.wake(number(1));
    assert_eq!(wait(|done| queue.cancel(key("gone"), now(), done)).unwrap(), Cancel::Taken);
    eventually(|| states("gone") == [State::Cancelled, State::Cancelled]);
    drop(queue);
    let (queue, taker) = subject.open(100);
    let states = |reqid: &str| find(&queue, reqid).unwrap().segments.iter().map(|s| s.0).collect::<Vec<_>>();
    assert_eq!(taker.wait_ready(3).len(), 3);
    assert_eq!(states("hour"), [State::Scheduled, State::Scheduled]);
    // Another time is given to one of a single segment, and then it comes.
    enqueue(&queue, Request { not_before: hour, ..request("moved", 5, 1) });
    let with = Replacement { short_message: (*b"soon").into(), expires_at: None, not_before: Some(now() + 1) };
    assert_eq!(wait(|done| queue.replace(key("moved"), with, done)).unwrap(), Replaced::Yes);
    let ready = taker.wait_ready(4);
    assert_eq!(&*ready[3].part.short_message, b"soon");
}

fn a_newer_one_supersedes_those_of_its_kind(subject: Subject) {
    let (queue, taker) = subject.open(1);
    let hour = now() + 3_600_000;
    enqueue(&queue, request("x-00000001aaaaaaaa", 1, 1));
    enqueue(&queue, request("x-00000002aaaaaaaa", 2, 1));
    enqueue(&queue, Request { not_before: hour, ..request("x-00000003aaaaaaaam", 3, 2) });
    enqueue(&queue, request("x-00000004bbbbbbbb", 4, 1));
    let Enqueued::New(newest) = enqueue(&queue, request("x-00000005aaaaaaaa", 5, 1)) else { panic!("it is new") };
    assert_eq!(taker.wait_ready(1).len(), 1);
    let older = |than| Older { client: key("").client, msn: number(1), like: "%-________aaaaaaaa%".into(), than };
    assert_eq!(wait(|done| queue.supersede(older(Some(newest)), now(), done)).unwrap(), 3);
    let state = |reqid: &str| {
        let status = wait(|done| queue.find(key(reqid), done)).unwrap().unwrap();
        status.segments.iter().map(|s| s.0).max().unwrap()
    };
    // The one that somebody has in hand is asked back.
    eventually(|| taker.recalled.lock().iter().any(|r| &*r.origin.reqid == "x-00000001aaaaaaaa"));
    for gone in ["x-00000002aaaaaaaa", "x-00000003aaaaaaaam"] {
        eventually(|| state(gone) == State::Cancelled);
    }
    assert_eq!((state("x-00000004bbbbbbbb"), state("x-00000005aaaaaaaa")), (State::Queued, State::Queued));
    // And once more there is nothing left but the newest.
    assert_eq!(wait(|done| queue.supersede(older(None), now(), done)).unwrap(), 1);
}

fn requests_to_many_are_found_by_their_one_id(subject: Subject) {
    let (queue, _taker) = subject.open(100);
    for n in 1..=3 {
        let one = request("shared", n, 1);
        let origin = Origin { msn: number(n), flags: one.origin.flags | Origin::MANY, ..one.origin };
        enqueue(&queue, Request { origin, ..request("shared", n, 1) });
    }
    // Of the same name, but alone.
    let one = request("shared", 9, 1);
    enqueue(&queue, Request { origin: Origin { msn: number(9), ..one.origin }, ..request("shared", 9, 1) });
    let found = wait(|done| queue.find_many(key("").client, "shared".into(), done)).unwrap();
    assert_eq!(found.iter().map(|s| s.origin.msn).collect::<Vec<_>>(), [1, 2, 3].map(number));
    assert!(wait(|done| queue.find_many("somebody".into(), "shared".into(), done)).unwrap().is_empty());
}

fn request(reqid: &str, digest: u64, parts: u8) -> Request {
    let origin = Origin {
        client: "12345678901".into(),
        msn: number(1),
        reqid: reqid.into(),
        expires_at: now() + 86_400_000,
        rank: 2,
        flags: Origin::NOTIFY,
        parts,
    };
    Request { origin, digest, not_before: 0, parts: (0..parts).map(part).collect() }
}

fn key(reqid: &str) -> RequestKey {
    RequestKey { client: "12345678901".into(), msn: number(1), reqid: reqid.into() }
}

fn mark(segment: &Segment, progress: Progress) -> Mark {
    Mark { id: segment.id, origin: segment.origin.clone(), progress }
}

fn sent(segment: &Segment, id: &str) -> Mark {
    mark(segment, Progress::Sent(SentAs { link: "smsc".into(), message_id: id.into() }))
}

fn ended(segment: &Segment, state: State, verdict: Verdict) -> Mark {
    mark(segment, Progress::Ended { state, verdict, at: now() })
}

fn enqueue(queue: &SmsQueue, request: Request) -> Enqueued {
    wait(|done| queue.enqueue(request, done)).unwrap()
}

/// By name alone, whatever the number.
fn find(queue: &SmsQueue, reqid: &str) -> Option<Status> {
    let n = reqid.split_once('-').and_then(|(_, n)| n.parse().ok()).unwrap_or(1);
    wait(|done| queue.find(RequestKey { msn: number(n), ..key(reqid) }, done)).unwrap()
}

fn wait<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Result<T, StoreError> {
    let (sender, receiver) = mpsc::channel();
    call(Box::new(move |result| drop(sender.send(result))));
    receiver.recv().expect("every call is answered")
}

fn eventually(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn now() -> i64 {
    (isthmus::sms::clock())()
}
