//! The registration event package (RFC 3680): who watches whom, and what they are told.
//!
//! Everything here happens under one lock that is never held while the stack is called: notifications are queued to a
//! thread that sends them, and their answers come back by the same queue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use sip_ims::Home;
use sip_ims::notify::{verdict, write_notify};
use sip_ims::service::Outlet;
use sip_proto::dialog::Dialog;
use sip_proto::subscription::{EndReason, Notifier, NotifierEvent, NotifierStep};
use sip_proto::{Flow, HeaderName, Hop};

use crate::binding::Binding;
use crate::table::Table;

mod document;
mod subscribe;

pub use document::MEDIA_TYPE;

/// Least time between two notifications to one watcher (RFC 3680 §4.10); the answer to a SUBSCRIBE does not wait.
const PACE: Duration = Duration::from_secs(5);
/// Changes that one watcher has not heard of yet; beyond it the next notification has everything.
const MAX_PENDING: usize = 32;
/// Removals that wait for the next tick.
const MAX_DEFERRED: usize = 10_000;

/// What made a contact what it is (RFC 3680 §5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// There before anybody watched.
    Registered,
    Created,
    Refreshed,
    Shortened,
    Expired,
    /// Taken away by us: the phone should register again.
    Deactivated,
    Unregistered,
    /// Taken away for good.
    Rejected,
}

impl Event {
    fn as_str(self) -> &'static str {
        match self {
            Event::Registered => "registered",
            Event::Created => "created",
            Event::Refreshed => "refreshed",
            Event::Shortened => "shortened",
            Event::Expired => "expired",
            Event::Deactivated => "deactivated",
            Event::Unregistered => "unregistered",
            Event::Rejected => "rejected",
        }
    }

    fn is_end(self) -> bool {
        matches!(self, Event::Expired | Event::Deactivated | Event::Unregistered | Event::Rejected)
    }
}

/// How many may watch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// All together.
    pub subscriptions: usize,
    /// Of one address-of-record.
    pub watchers: usize,
}

/// All subscriptions.
pub struct Watchers {
    limits: Limits,
    home: Arc<Home>,
    table: Arc<Table>,
    live: AtomicUsize,
    state: Mutex<State>,
    deferred: Mutex<Vec<(Box<str>, Event, Binding)>>,
    /// At most one job for each subscription: a notifier waits for the answer to its last NOTIFY.
    jobs: Sender<Job>,
    /// Until somebody works on them.
    queue: Mutex<Option<Receiver<Job>>>,
    me: Weak<Watchers>,
}

#[derive(Default)]
struct State {
    watches: HashMap<u64, Watch>,
    by_aor: HashMap<Box<str>, Vec<u64>>,
    /// By Call-ID and the watcher's tag.
    by_dialog: HashMap<Box<[u8]>, u64>,
    next: u64,
}

/// One subscription.
struct Watch {
    aor: Box<str>,
    key: Box<[u8]>,
    dialog: Dialog,
    notifier: Notifier,
    /// The way its last SUBSCRIBE came.
    flow: Flow,
    /// The value of our Contact.
    contact: Vec<u8>,
    /// The value of Event, `id` included.
    event: Box<[u8]>,
    /// Of the next document.
    version: u32,
    /// The next document has everything.
    full: bool,
    pending: Vec<(Event, Binding)>,
}

/// Work for the thread that sends.
#[derive(Debug)]
pub enum Job {
    Send { watch: u64, hop: Hop, bytes: Vec<u8> },
    Answered { watch: u64, status: u16, retry_after: Option<u32> },
}

impl Watchers {
    pub fn new(limits: Limits, home: Arc<Home>, table: Arc<Table>) -> Arc<Watchers> {
        let (jobs, queue) = channel();
        Arc::new_cyclic(|me| Watchers {
            limits,
            home,
            table,
            live: AtomicUsize::new(0),
            state: Mutex::default(),
            deferred: Mutex::default(),
            jobs,
            queue: Mutex::new(Some(queue)),
            me: me.clone(),
        })
    }

    /// Starts the thread that works on the queue; it ends with the watchers.
    pub fn run(&self, outlet: Arc<dyn Outlet>) {
        let Some(queue) = self.take_queue() else { return };
        let me = self.me.clone();
        let work = move || {
            for job in queue {
                let Some(watchers) = me.upgrade() else { return };
                let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
                watchers.work(&*outlet, job, Instant::now(), unix);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("reg-events".into()).spawn(work) {
            tracing::error!(%error, "no thread for registration events: watchers are told nothing");
        }
    }

    pub(crate) fn take_queue(&self) -> Option<Receiver<Job>> {
        self.queue.lock().take()
    }

    pub(crate) fn work(&self, outlet: &dyn Outlet, job: Job, now: Instant, unix: u64) {
        match job {
            Job::Send { watch, hop, bytes } => {
                let jobs = self.jobs.clone();
                let done = move |outcome| {
                    let (status, retry_after) = verdict(&outcome);
                    // Nobody listens any more when the house closes.
                    let _ = jobs.send(Job::Answered { watch, status, retry_after });
                };
                outlet.request(hop, bytes, Box::new(done));
            }
            Job::Answered { watch, status, retry_after } => {
                self.step(now, unix, watch, NotifierEvent::Answered { status, retry_after });
            }
        }
    }

    /// Whether anybody watches anything: what costs nothing while nobody does.
    pub fn any(&self) -> bool {
        self.live.load(Relaxed) > 0
    }

    pub fn len(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Contacts of an address-of-record have changed. Not to be called with the table locked.
    pub fn changed(&self, now: Instant, unix: u64, aor: &str, changes: Vec<(Event, Binding)>) {
        let mut state = self.state.lock();
        let Some(ids) = state.by_aor.get(aor).cloned() else { return };
        for id in ids {
            if let Some(watch) = state.watches.get_mut(&id) {
                watch.note(&changes);
            }
            self.step_locked(&mut state, now, unix, id, NotifierEvent::Changed);
        }
    }

    /// As [`Watchers::changed`], but told with the next tick: for callers without a clock.
    pub fn defer(&self, aor: &str, event: Event, binding: Binding) {
        let mut deferred = self.deferred.lock();
        if self.any() && deferred.len() < MAX_DEFERRED {
            deferred.push((aor.into(), event, binding));
        }
    }

    /// Once a second.
    pub fn tick(&self, now: Instant, unix: u64) {
        let deferred = std::mem::take(&mut *self.deferred.lock());
        for (aor, event, binding) in deferred {
            self.changed(now, unix, &aor, vec![(event, binding)]);
        }
        if !self.any() {
            return;
        }
        let mut state = self.state.lock();
        let due = |w: &Watch| w.notifier.deadline().is_some_and(|at| at <= now);
        let ids: Vec<u64> = state.watches.iter().filter(|(_, w)| due(w)).map(|(id, _)| *id).collect();
        for id in ids {
            self.step_locked(&mut state, now, unix, id, NotifierEvent::Deadline);
        }
    }

    fn step(&self, now: Instant, unix: u64, id: u64, event: NotifierEvent) {
        self.step_locked(&mut self.state.lock(), now, unix, id, event);
    }

    fn step_locked(&self, state: &mut State, now: Instant, unix: u64, id: u64, event: NotifierEvent) {
        let Some(watch) = state.watches.get_mut(&id) else { return };
        let (notifier, step) = watch.notifier.clone().step(now, event);
        watch.notifier = notifier;
        self.follow(state, now, unix, id, step);
    }

    fn follow(&self, state: &mut State, now: Instant, unix: u64, id: u64, step: NotifierStep) {
        let Some(watch) = state.watches.get_mut(&id) else { return };
        let mut gone = step.gone;
        if step.notify {
            match watch.notify(now, unix, &self.table) {
                Some(bytes) => {
                    // The thread is gone only when the house closes.
                    let _ = self.jobs.send(Job::Send { watch: id, hop: Hop::Flow(watch.flow), bytes });
                }
                None => gone = true,
            }
        }
        if gone {
            state.remove(id);
            self.live.store(state.watches.len(), Relaxed);
        }
    }

    /// Ends every subscription to an address-of-record that is no more.
    pub fn end(&self, now: Instant, unix: u64, aor: &str) {
        let mut state = self.state.lock();
        let Some(ids) = state.by_aor.get(aor).cloned() else { return };
        for id in ids {
            let event = NotifierEvent::Ended { reason: EndReason::NoResource, retry_after: None };
            self.step_locked(&mut state, now, unix, id, event);
        }
    }
}

impl State {
    fn insert(&mut self, watch: Watch) -> u64 {
        self.next += 1;
        self.by_aor.entry(watch.aor.clone()).or_default().push(self.next);
        self.by_dialog.insert(watch.key.clone(), self.next);
        self.watches.insert(self.next, watch);
        self.next
    }

    fn remove(&mut self, id: u64) {
        let Some(watch) = self.watches.remove(&id) else { return };
        self.by_dialog.remove(&watch.key);
        if let Some(ids) = self.by_aor.get_mut(&watch.aor) {
            ids.retain(|i| *i != id);
            if ids.is_empty() {
                self.by_aor.remove(&watch.aor);
            }
        }
    }
}

impl Watch {
    fn note(&mut self, changes: &[(Event, Binding)]) {
        for (event, binding) in changes {
            // The latest word about a contact is enough.
            self.pending.retain(|(_, b)| document::id(b) != document::id(binding));
            self.pending.push((*event, binding.clone()));
        }
        if self.pending.len() > MAX_PENDING {
            self.pending.clear();
            self.full = true;
        }
    }

    /// The next NOTIFY without its Via. `None`: the dialog is over.
    fn notify(&mut self, now: Instant, unix: u64, table: &Table) -> Option<Vec<u8>> {
        let mut body = Vec::with_capacity(1024);
        let version = self.version;
        if std::mem::take(&mut self.full) {
            table.read(&self.aor, |bindings| {
                document::full(&self.aor, version, bindings, &self.pending, unix, &mut body)
            });
        } else {
            let left = table.read(&self.aor, |bindings| bindings.iter().any(|b| b.is_live(unix)));
            document::partial(&self.aor, version, left, &self.pending, unix, &mut body);
        }
        self.pending.clear();
        self.version = self.version.wrapping_add(1);
        let mut state = Vec::with_capacity(64);
        self.notifier.write_state(now, &mut state);
        write_notify(&mut self.dialog, body.len(), |w| {
            w.text(HeaderName::Contact, &self.contact);
            w.text(HeaderName::Event, &self.event);
            w.text(HeaderName::SubscriptionState, &state);
            w.body(MEDIA_TYPE, &body);
        })
    }
}
