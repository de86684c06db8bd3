//! From the queue to the carriers and back: judges each segment at the moment of delivery, routes it, keeps its order, and turns what the
//! carriers say into news for the queue.
//!
//! A [`Dispatcher`] runs to completion on whatever thread brings it something: the store's with new segments, a link's with outcomes and
//! receipts, the clock's. It holds no more than its [`Config::room`]; the rest waits in the store.

mod recent;
mod retry;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use sip_ims::Msisdn;
use sip_ims::ports::{Done, StoreError};

pub use retry::Pause;
use state::{Asks, State};

use crate::delivery::Lines;
use crate::queue::{
    Ended, Mark, Notice, Origin, Outlet, Progress, Queue, Recall, Replacement, Segment, SegmentId, SentAs,
    State as SegmentState, Verdict, Waiting,
};
use crate::registry::Registry;

/// Bounds of a dispatcher.
#[derive(Clone, Debug)]
pub struct Config {
    /// Segments held in memory, those on the wire included.
    pub room: usize,
    /// How long a receipt that fits nothing is kept: the response to its message may come after it.
    pub receipt_patience: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config { room: 20_000, receipt_patience: Duration::from_secs(60) }
    }
}

/// Names a link of the centre by its place in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub usize);

/// The short message centres that we submit to.
pub trait Centre: Send + Sync {
    /// The link that a message to this number should take now. `None`: none is up.
    fn choose(&self, msn: Msisdn) -> Option<LinkId>;

    /// How many more the link takes now.
    fn room(&self, link: LinkId) -> usize;

    /// Submits; exactly one [`Dispatcher::reported`] follows a `true`. `instruction`: the service instruction value of the client.
    fn submit(&self, link: LinkId, segment: &Segment, instruction: Option<u8>) -> bool;

    /// Asks for a segment back; exactly one [`Dispatcher::cancelled`] follows a `true`.
    fn cancel(&self, recall: &Recall, sent_as: &SentAs) -> bool;

    fn name(&self, link: LinkId) -> Arc<str>;

    /// Whether there is any link at all, up or down.
    fn exists(&self) -> bool;

    /// Whether the application that has this number is there; `None`: it is no application's.
    fn application(&self, msn: Msisdn) -> Option<bool> {
        let _ = msn;
        None
    }
}

/// Handsets that take short messages over IMS (TS 24.341).
pub trait Handsets: Send + Sync {
    /// Whether the number is registered with a handset that does; with `text`, or with any other phone.
    fn reachable(&self, msn: Msisdn, text: bool) -> bool;

    /// Sends; exactly one [`Dispatcher::handset_reported`] follows.
    fn submit(&self, segment: &Segment);
}

/// What a centre said to a submission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// It has it, under this name.
    Taken {
        message_id: Arc<str>,
    },
    /// It was for it, and it has it: an application.
    Delivered,
    /// It would not take it for the moment: the same again as soon as it does.
    Again,
    /// It may take it later.
    Later(Pause),
    Never(Verdict),
    /// Nobody knows whether it has it, or it never left: sent again.
    Unknown,
}

/// What a handset said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandsetReport {
    Delivered,
    /// Not over IMS: by the short message centre.
    Elsewhere,
    Later(Pause),
    Never(Verdict),
}

/// What became of asking for something back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancelled {
    Yes,
    /// The centre will not, or does not know it any more.
    No,
    /// Not now.
    Later,
}

/// Hears what happens to each message, for charging records, traces and metrics. Must not block.
pub trait Witness: Send + Sync {
    fn submitted(&self, id: SegmentId, origin: &Origin);
    fn deferred(&self, id: SegmentId, origin: &Origin);
    fn ended(&self, ended: &[Ended]);
    fn notices(&self, notices: Vec<Notice>);
    fn notice_room(&self) -> usize;
}

/// What has been counted since the start.
#[derive(Default, Debug)]
pub struct Counts {
    pub submitted: AtomicU64,
    pub taken: AtomicU64,
    pub deferred: AtomicU64,
    pub again: AtomicU64,
    pub unknown: AtomicU64,
    pub receipts: AtomicU64,
    pub strange_receipts: AtomicU64,
    pub refused_by_line: AtomicU64,
}

/// What a dispatcher works with.
pub struct Parts {
    pub config: Config,
    pub queue: Arc<dyn Queue>,
    pub registry: Arc<Registry>,
    pub lines: Arc<dyn Lines>,
    pub witness: Arc<dyn Witness>,
    /// Unix milliseconds.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
}

/// See the module.
pub struct Dispatcher {
    parts: Parts,
    state: Mutex<State>,
    /// Of the state, for whoever must not wait for it.
    held: AtomicUsize,
    counts: Counts,
}

impl Dispatcher {
    pub fn new(parts: Parts) -> Arc<Dispatcher> {
        Arc::new(Dispatcher { parts, state: Mutex::default(), held: AtomicUsize::new(0), counts: Counts::default() })
    }

    /// Names the carriers. Once; until then everything waits.
    pub fn tie(&self, centre: Arc<dyn Centre>, handsets: Option<Arc<dyn Handsets>>) {
        let mut state = self.state.lock();
        state.centre = Some(centre);
        state.handsets = handsets;
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Segments held in memory.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// What a centre said to submissions over one link, in the order of its saying.
    pub fn reported(self: &Arc<Self>, link: LinkId, reports: impl IntoIterator<Item = (SegmentId, Report)>) {
        let now = (self.parts.clock)();
        let mut marks = Vec::new();
        let mut recalls = Vec::new();
        let mut again = Vec::new();
        let mut state = self.state.lock();
        let name = state.centre.as_ref().map_or_else(|| "".into(), |c| c.name(link));
        for (id, report) in reports {
            let Some(segment) = state.flying.remove(&id) else { continue };
            match report {
                Report::Taken { message_id } => {
                    self.counts.taken.fetch_add(1, Relaxed);
                    let sent_as = SentAs { link: name.clone(), message_id };
                    self.taken(&mut state, segment, sent_as, &mut marks, &mut recalls);
                }
                Report::Delivered => {
                    state.withdrawn.remove(&id);
                    marks.push(over(id, &segment.origin, SegmentState::Delivered, Verdict::DELIVERED, now));
                }
                // Nobody else has it, so it is not sent again.
                _ if state.withdrawn.contains_key(&id) => {
                    if let Some(recall) = state.withdrawn.remove(&id) {
                        marks.push(over(id, &recall.origin, SegmentState::Cancelled, Verdict::CANCELLED, now));
                    }
                }
                Report::Again | Report::Unknown => {
                    let counter = if report == Report::Again { &self.counts.again } else { &self.counts.unknown };
                    counter.fetch_add(1, Relaxed);
                    again.push(segment);
                }
                Report::Later(pause) => marks.push(self.defer(&mut state, segment, pause, now)),
                Report::Never(verdict) => {
                    marks.push(over(id, &segment.origin, SegmentState::Failed, verdict, now));
                }
            }
        }
        // In front of everything else, in the order in which they were submitted.
        again.sort_by_key(|s| std::cmp::Reverse((s.origin.rank, s.id)));
        for segment in again {
            state.again(link, segment);
        }
        self.settle(state, marks, recalls, Some(link));
    }

    /// What a handset said.
    pub fn handset_reported(self: &Arc<Self>, id: SegmentId, report: HandsetReport) {
        let now = (self.parts.clock)();
        let mut state = self.state.lock();
        let Some(segment) = state.flying.remove(&id) else { return };
        let withdrawn = state.withdrawn.remove(&id);
        let mut marks = Vec::new();
        match (report, withdrawn) {
            (HandsetReport::Delivered, _) => {
                marks.push(over(id, &segment.origin, SegmentState::Delivered, Verdict::DELIVERED, now));
            }
            (_, Some(recall)) => {
                marks.push(over(id, &recall.origin, SegmentState::Cancelled, Verdict::CANCELLED, now));
            }
            (HandsetReport::Elsewhere, None) => self.elsewhere(&mut state, segment, now, &mut marks),
            (HandsetReport::Later(pause), None) => marks.push(self.defer(&mut state, segment, pause, now)),
            (HandsetReport::Never(verdict), None) => {
                marks.push(over(id, &segment.origin, SegmentState::Failed, verdict, now));
            }
        }
        self.settle(state, marks, Vec::new(), None);
    }

    /// What became of asking for a segment back.
    pub fn cancelled(self: &Arc<Self>, id: SegmentId, outcome: Cancelled) {
        let now = (self.parts.clock)();
        let mut state = self.state.lock();
        let Some((recall, sent_as)) = state.cancels.remove(&id) else { return };
        let marks = match outcome {
            Cancelled::Yes => {
                state.recent.forget(&sent_as);
                vec![over(id, &recall.origin, SegmentState::Cancelled, Verdict::CANCELLED, now)]
            }
            Cancelled::No => vec![Mark { id, origin: recall.origin, progress: Progress::NotCancelled(sent_as) }],
            // The store asks again.
            Cancelled::Later => Vec::new(),
        };
        self.settle(state, marks, Vec::new(), None);
    }

    /// A receipt with the end of a message, under any of `names`: dialects of one number. `done` runs when nothing loses it any more, and it
    /// may be acknowledged: the centre then forgets it. With an error, it should come again.
    pub fn receipt(self: &Arc<Self>, names: Vec<SentAs>, end: (SegmentState, Verdict), done: Done<()>) {
        self.counts.receipts.fetch_add(1, Relaxed);
        let now = (self.parts.clock)();
        let mut state = self.state.lock();
        let found = state.recent.take(&names);
        if let Some(waiting) = found {
            let mark = ended_as(&state, &waiting, end, now);
            drop(state);
            return self.parts.queue.mark_for_good(vec![mark], done);
        }
        drop(state);
        let dispatcher = self.clone();
        let asked = names.clone();
        self.parts.queue.sent_as(
            asked,
            Box::new(move |result: Result<Vec<Waiting>, StoreError>| match result {
                Ok(found) => dispatcher.late_receipt(names, found.into_iter().next(), end, done),
                Err(error) => done(Err(error)),
            }),
        );
    }

    /// The line of a number has changed, or its handset is back: what waits for it is tried now.
    pub fn line_changed(&self, msn: Msisdn) {
        self.state.lock().held.remove(&msn);
        self.parts.queue.wake(msn);
    }

    /// An application is back that has these numbers, from each first to each last: what waits for it is tried now.
    pub fn returned(self: &Arc<Self>, ranges: &[(Msisdn, Msisdn)]) {
        let within = |msn: &Msisdn| ranges.iter().any(|(from, to)| (*from..=*to).contains(msn));
        self.state.lock().held.retain(|msn, _| !within(msn));
        self.parts.queue.wake_ranges(ranges);
        self.wake();
    }

    /// A handset has registered, or refreshed its registration: far too often to ask the store each time. But what the process before this
    /// one knew to wait for it, only the store knows now.
    pub fn registered(&self, msn: Msisdn) {
        let mut state = self.state.lock();
        if state.held.contains_key(&msn) || state.seen.first(msn) {
            drop(state);
            self.line_changed(msn);
        }
    }

    /// The links changed, or there is room again: sends what can be sent.
    pub fn wake(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.reroute();
        self.settle(state, Vec::new(), Vec::new(), None);
    }

    /// Once a second.
    pub fn tick(self: &Arc<Self>) {
        let now = (self.parts.clock)();
        let mut state = self.state.lock();
        let patience = self.parts.config.receipt_patience.as_millis() as i64;
        let strange = state.unknown.forget_before(now - patience);
        self.counts.strange_receipts.fetch_add(strange as u64, Relaxed);
        state.held.retain(|_, due| *due > now);
        state.reroute();
        // What no link takes does not block memory for what others would.
        let parked = state.parked_too_long(now, PARKED.as_millis() as i64);
        let marks = parked.into_iter().map(|s| self.put_off(s, now + PARKED_PAUSE)).collect();
        self.settle(state, marks, Vec::new(), None);
    }

    /// The queue's own name of a segment's last stop before the store: what is in memory goes back there, for a drain.
    pub fn give_back(&self) {
        let mut state = self.state.lock();
        let marks =
            state.empty().into_iter().map(|s| Mark { id: s.id, origin: s.origin, progress: Progress::Returned });
        let marks = marks.collect();
        drop(state);
        self.write(marks);
    }

    fn late_receipt(
        self: &Arc<Self>,
        names: Vec<SentAs>,
        found: Option<Waiting>,
        end: (SegmentState, Verdict),
        done: Done<()>,
    ) {
        let now = (self.parts.clock)();
        let mut state = self.state.lock();
        // The response may have come while the store was asked.
        match found.or_else(|| state.recent.take(&names)) {
            Some(waiting) => {
                let mark = ended_as(&state, &waiting, end, now);
                drop(state);
                self.parts.queue.mark_for_good(vec![mark], done);
            }
            None => {
                state.unknown.keep(names, end, now);
                drop(state);
                done(Ok(()));
            }
        }
    }

    fn taken(
        &self,
        state: &mut State,
        segment: Segment,
        sent_as: SentAs,
        marks: &mut Vec<Mark>,
        recalls: &mut Vec<Recall>,
    ) {
        let Segment { id, origin, part, .. } = segment;
        if let Some((end, verdict)) = state.unknown.take(&sent_as) {
            state.withdrawn.remove(&id);
            return marks.push(over(id, &origin, end, verdict, (self.parts.clock)()));
        }
        marks.push(Mark { id, origin: origin.clone(), progress: Progress::Sent(sent_as.clone()) });
        if let Some(recall) = state.withdrawn.remove(&id) {
            recalls.push(Recall { sent_as: Some(sent_as.clone()), source: part.source, ..recall });
        }
        // A centre that gives no name sends no receipt that could be told from others.
        if !sent_as.message_id.is_empty() {
            state.recent.keep(Waiting { id, origin, sent_as });
        }
    }

    /// Takes a segment into memory: judged and routed, or its end in `marks`.
    fn accept(self: &Arc<Self>, state: &mut State, segment: Segment, now: i64, marks: &mut Vec<Mark>, asks: &mut Asks) {
        if segment.origin.expires_at <= now {
            return marks.push(over(segment.id, &segment.origin, SegmentState::Expired, Verdict::EXPIRED, now));
        }
        if let Some(due) = state.held.get(&segment.origin.msn).copied().filter(|due| *due > now) {
            return marks.push(self.put_off(segment, due));
        }
        let msn = segment.origin.msn;
        match state.centre.as_ref().and_then(|c| c.application(msn)) {
            Some(true) => return state.route(segment),
            Some(false) => {
                let mark = self.defer(state, segment, Pause::Absent, now);
                return marks.push(mark);
            }
            None => {}
        }
        let client = if segment.origin.has(Origin::UNJUDGED) {
            None
        } else {
            self.parts.registry.control(&segment.origin.client)
        };
        if let Some(client) = client {
            match self.parts.lines.known(msn) {
                Some(line) => {
                    if let Err(verdict) = crate::delivery::judge(&client, &line) {
                        self.counts.refused_by_line.fetch_add(1, Relaxed);
                        return marks.push(over(segment.id, &segment.origin, SegmentState::Failed, verdict, now));
                    }
                }
                None => return state.ask(segment, asks),
            }
        }
        match state.handsets.clone().filter(|h| h.reachable(msn, segment.origin.has(Origin::TEXT))) {
            Some(handsets) => {
                state.flying.insert(segment.id, segment.clone());
                self.counts.submitted.fetch_add(1, Relaxed);
                self.parts.witness.submitted(segment.id, &segment.origin);
                state.to_handset.push((handsets, segment));
            }
            None => self.elsewhere(state, segment, now, marks),
        }
    }

    /// By a centre; what is for handsets of ours alone waits until one registers.
    fn elsewhere(&self, state: &mut State, segment: Segment, now: i64, marks: &mut Vec<Mark>) {
        if segment.origin.has(Origin::HERE) || state.centre.as_ref().is_some_and(|c| !c.exists()) {
            marks.push(self.defer(state, segment, Pause::Absent, now));
        } else {
            state.route(segment);
        }
    }

    /// Sends what there is room for, and does what has gathered, outside the lock where others may be called.
    fn settle<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        mut marks: Vec<Mark>,
        recalls: Vec<Recall>,
        link: Option<LinkId>,
    ) {
        // First what is known must not be lost: only then is the window filled again.
        if !marks.is_empty() && link.is_some() {
            drop(state);
            self.write(std::mem::take(&mut marks));
            state = self.state.lock();
        }
        self.pump(&mut state, link, &mut marks);
        for recall in recalls {
            state.cancel(recall);
        }
        let to_handset = std::mem::take(&mut state.to_handset);
        self.held.store(state.len(), Relaxed);
        drop(state);
        self.write(marks);
        for (handsets, segment) in to_handset {
            handsets.submit(&segment);
        }
    }

    fn write(&self, marks: Vec<Mark>) {
        if marks.is_empty() {
            return;
        }
        for mark in marks.iter().filter(|m| matches!(m.progress, Progress::Deferred { .. })) {
            self.counts.deferred.fetch_add(1, Relaxed);
            self.parts.witness.deferred(mark.id, &mark.origin);
        }
        if let Err(error) = self.parts.queue.mark(marks) {
            // They are sent again by whoever takes over: at least once.
            tracing::error!(%error, "the fate of short messages is not stored");
        }
    }

    fn pump(&self, state: &mut State, link: Option<LinkId>, marks: &mut Vec<Mark>) {
        let Some(centre) = state.centre.clone() else { return };
        let now = (self.parts.clock)();
        let links: Vec<LinkId> = link.map_or_else(|| state.links(), |l| vec![l]);
        for link in links {
            let mut room = centre.room(link);
            while room > 0 {
                let Some(segment) = state.next(link) else { break };
                let origin = &segment.origin;
                if origin.expires_at <= now {
                    marks.push(over(segment.id, origin, SegmentState::Expired, Verdict::EXPIRED, now));
                    continue;
                }
                if let Some(due) = state.held.get(&origin.msn).copied().filter(|due| *due > now) {
                    marks.push(self.put_off(segment, due));
                    continue;
                }
                let instruction = self.parts.registry.control(&origin.client).map(|c| c.instruction());
                if !centre.submit(link, &segment, instruction) {
                    state.again(link, segment);
                    break;
                }
                self.counts.submitted.fetch_add(1, Relaxed);
                self.parts.witness.submitted(segment.id, origin);
                state.flying.insert(segment.id, segment);
                room -= 1;
            }
        }
    }

    /// Not before the pause is over; what is behind it for the same number waits, too.
    fn defer(&self, state: &mut State, segment: Segment, pause: Pause, now: i64) -> Mark {
        let due = (now + pause.after(segment.attempts)).min(segment.origin.expires_at);
        state.hold(segment.origin.msn, due);
        let attempts = segment.attempts.saturating_add(1);
        Mark { id: segment.id, origin: segment.origin, progress: Progress::Deferred { due, attempts } }
    }

    fn put_off(&self, segment: Segment, due: i64) -> Mark {
        let progress = Progress::Deferred { due: due.min(segment.origin.expires_at), attempts: segment.attempts };
        Mark { id: segment.id, origin: segment.origin, progress }
    }

    /// Lines that nobody knew by heart are asked for outside the lock; their segments come back by [`asked`](Self::asked).
    fn ask(self: &Arc<Self>, asks: Asks) {
        for msn in asks {
            let dispatcher = self.clone();
            self.parts.lines.ask(msn, Box::new(move |known| dispatcher.asked(msn, known)));
        }
    }

    fn asked(self: &Arc<Self>, msn: Msisdn, known: bool) {
        let now = (self.parts.clock)();
        let (mut marks, mut asks) = (Vec::new(), Asks::new());
        let mut state = self.state.lock();
        for segment in state.asked(msn) {
            if known {
                self.accept(&mut state, segment, now, &mut marks, &mut asks);
            } else {
                let mark = self.defer(&mut state, segment, Pause::NoAnswer, now);
                marks.push(mark);
            }
        }
        self.settle(state, marks, Vec::new(), None);
        self.ask(asks);
    }
}

/// How the queue hands out to a dispatcher.
pub struct Hand(pub Arc<Dispatcher>);

impl Outlet for Hand {
    fn ready(&self, segments: Vec<Segment>) {
        let dispatcher = &self.0;
        let now = (dispatcher.parts.clock)();
        let (mut marks, mut asks) = (Vec::new(), Asks::new());
        let mut state = dispatcher.state.lock();
        for segment in segments {
            dispatcher.accept(&mut state, segment, now, &mut marks, &mut asks);
        }
        dispatcher.settle(state, marks, Vec::new(), None);
        dispatcher.ask(asks);
    }

    fn room(&self) -> usize {
        self.0.parts.config.room.saturating_sub(self.0.held.load(Relaxed))
    }

    fn exchange(&self, id: SegmentId, with: &Replacement) -> bool {
        self.0.state.lock().exchange(id, with)
    }

    fn recall(&self, recalls: Vec<Recall>) {
        let dispatcher = &self.0;
        let now = (dispatcher.parts.clock)();
        let mut marks = Vec::new();
        let mut state = dispatcher.state.lock();
        for recall in recalls {
            if recall.sent_as.is_some() {
                state.cancel(recall);
            } else if state.flying.contains_key(&recall.id) {
                state.withdrawn.insert(recall.id, recall);
            } else if state.withdraw(recall.id) {
                marks.push(over(recall.id, &recall.origin, SegmentState::Cancelled, Verdict::CANCELLED, now));
            }
        }
        dispatcher.settle(state, marks, Vec::new(), None);
    }

    fn ended(&self, ended: &[Ended]) {
        self.0.parts.witness.ended(ended);
    }

    fn notices(&self, notices: Vec<Notice>) {
        self.0.parts.witness.notices(notices);
    }

    fn notice_room(&self) -> usize {
        self.0.parts.witness.notice_room()
    }
}

/// What a receipt says, but that a message which is being asked back and did not arrive was cancelled.
fn ended_as(state: &State, waiting: &Waiting, end: (SegmentState, Verdict), now: i64) -> Mark {
    let (state, verdict) = match end {
        (SegmentState::Delivered, _) => end,
        _ if state.cancels.contains_key(&waiting.id) => (SegmentState::Cancelled, Verdict::CANCELLED),
        end => end,
    };
    over(waiting.id, &waiting.origin, state, verdict, now)
}

fn over(id: SegmentId, origin: &Arc<Origin>, state: SegmentState, verdict: Verdict, at: i64) -> Mark {
    Mark { id, origin: origin.clone(), progress: Progress::Ended { state, verdict, at } }
}

/// How long a segment without a link stays in memory, and how long it is then left in the store, in milliseconds.
const PARKED: Duration = Duration::from_secs(5);
const PARKED_PAUSE: i64 = 10_000;
