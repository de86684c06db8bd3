//! The xcap-diff event package (RFC 5875): what changes among a user's documents.
//!
//! A subscriber names documents, directories or nodes in a list; the first NOTIFY has the entity tags of the documents that
//! are there and the content of the nodes, those that follow what has changed since (RFC 5874), with patches for who wants them. Documents are
//! read from the store by a thread of this package's own, which also writes the NOTIFYs, one at a time for a subscription.
//! Subscriptions are in memory: after a restart the subscriber's refresh gets 481, and it begins anew.

mod resources;
mod subscribe;
mod told;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_ims::notify::{verdict, write_notify};
use sip_ims::ports::{Document, Documents, StoreError};
use sip_ims::service::{Outlet, Request, Service, Step, Verdict};
use sip_ims::{Directory, Home};
use sip_proto::dialog::Dialog;
use sip_proto::subscription::{Notifier, NotifierEvent, NotifierStep};
use sip_proto::{Flow, HeaderName, Hop, Method};
use sip_xcap::Text;
use sip_xcap::diff::{self, Change};

use self::resources::{Place, Resource};
use self::told::{Kept, Known, Mode, Told, tag};

/// What the package works with.
pub struct DiffParts {
    pub home: Arc<Home>,
    pub directory: Arc<Directory>,
    pub documents: Arc<dyn Documents>,
}

#[derive(Clone, Debug)]
pub struct DiffConfig {
    /// The XCAP root's URI, with a slash at its end.
    pub root: String,
    /// Ids of users who may read everybody's documents.
    pub admins: Vec<String>,
    /// Least time between two NOTIFYs of one subscription (§4.10 recommends 5 s); the answer to a SUBSCRIBE does not wait.
    pub pace: Duration,
    /// All together.
    pub subscriptions: usize,
}

/// Subscriptions of one user.
const MAX_PER_USER: usize = 32;
/// Bytes of one NOTIFY's document, beyond which elements come without their content and documents without patches (§4.7).
const MAX_BODY: usize = 48 * 1024;
/// Changes of documents that wait, one by one, to be told; a subscriber who has missed more is told everything.
const MAX_STEPS: usize = 64;
/// Documents of one directory that are watched.
const MAX_LISTED: u32 = 200;

/// See the module's text.
pub struct XcapDiff {
    config: DiffConfig,
    parts: DiffParts,
    live: AtomicUsize,
    /// Bytes of documents that may yet be kept to make patches of.
    room: Arc<AtomicUsize>,
    state: Mutex<State>,
    jobs: Sender<Job>,
    /// Until somebody works on them.
    queue: Mutex<Option<Receiver<Job>>>,
    me: Weak<XcapDiff>,
}

#[derive(Default)]
struct State {
    watches: HashMap<u64, Watch>,
    /// By Call-ID and the subscriber's tag.
    by_dialog: HashMap<Box<[u8]>, u64>,
    next: u64,
}

/// One subscription.
struct Watch {
    key: Box<[u8]>,
    /// Who subscribed: the user's id.
    user: Arc<str>,
    resources: Arc<[Resource]>,
    dialog: Dialog,
    notifier: Notifier,
    /// The way its last SUBSCRIBE came.
    flow: Flow,
    contact: Vec<u8>,
    /// The value of Event, `id` included.
    event: Box<[u8]>,
    mode: Mode,
    told: Told,
    /// In [`Mode::Each`]: what has changed since, one by one. At most [`MAX_STEPS`].
    steps: Vec<Change>,
    /// Its next NOTIFY has everything, and goes even when nothing has changed.
    full: bool,
}

/// Entity tags of the state before and of the state now; empty where there is none.
type Tags = (Box<str>, Box<str>);

enum Job {
    /// Its notifier has asked for a NOTIFY.
    Notify(u64),
    /// A document has changed: its usage and key.
    Changed {
        usage: Box<str>,
        key: Box<str>,
        step: Option<Tags>,
    },
    Answered {
        watch: u64,
        status: u16,
        retry_after: Option<u32>,
    },
}

impl XcapDiff {
    pub fn new(config: DiffConfig, parts: DiffParts) -> Arc<XcapDiff> {
        let (jobs, queue) = channel();
        Arc::new_cyclic(|me| XcapDiff {
            config,
            parts,
            live: AtomicUsize::new(0),
            room: Arc::new(AtomicUsize::new(told::MAX_KEPT)),
            state: Mutex::default(),
            jobs,
            queue: Mutex::new(Some(queue)),
            me: me.clone(),
        })
    }

    /// Where notifications go. Call it once, before the first message: starts the thread, which ends with the package.
    pub fn attach(&self, outlet: Arc<dyn Outlet>) {
        let Some(queue) = self.queue.lock().take() else { return };
        let me = self.me.clone();
        let work = move || {
            for job in queue {
                let Some(me) = me.upgrade() else { return };
                me.work(&*outlet, job, Instant::now());
            }
        };
        if let Err(error) = std::thread::Builder::new().name("xcap-diff".into()).spawn(work) {
            tracing::error!(%error, "no thread for changes of documents: subscribers are told nothing");
        }
    }

    /// Subscriptions held.
    pub fn subscriptions(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// A document of a usage has changed, here or at another node; `step`, where it is known: from which state to which, as entity tags
    /// without quotes, empty where there was or is none.
    pub fn document_changed(&self, usage: &str, key: &str, step: Option<(&str, &str)>) {
        if self.subscriptions() > 0 {
            let step = step.map(|(previous, new)| (previous.into(), new.into()));
            // The thread is gone only when the house closes.
            let _ = self.jobs.send(Job::Changed { usage: usage.into(), key: key.into(), step });
        }
    }

    /// Once a second: what has run out, and what has waited for its pace.
    pub fn tick(&self, now: Instant) {
        if self.subscriptions() == 0 {
            return;
        }
        let mut state = self.state.lock();
        let due = |w: &Watch| w.notifier.deadline().is_some_and(|at| at <= now);
        let ids: Vec<u64> = state.watches.iter().filter(|(_, w)| due(w)).map(|(id, _)| *id).collect();
        for id in ids {
            self.step(&mut state, now, id, NotifierEvent::Deadline);
        }
    }

    fn step(&self, state: &mut State, now: Instant, id: u64, event: NotifierEvent) {
        let Some(watch) = state.watches.get_mut(&id) else { return };
        let (notifier, step) = watch.notifier.clone().step(now, event);
        watch.notifier = notifier;
        self.follow(state, id, step);
    }

    fn follow(&self, state: &mut State, id: u64, step: NotifierStep) {
        if step.notify {
            let _ = self.jobs.send(Job::Notify(id));
        }
        if step.gone {
            self.remove(state, id);
        }
    }

    fn remove(&self, state: &mut State, id: u64) {
        if let Some(watch) = state.watches.remove(&id) {
            state.by_dialog.remove(&watch.key);
            self.live.store(state.watches.len(), Relaxed);
        }
    }

    fn work(&self, outlet: &dyn Outlet, job: Job, now: Instant) {
        match job {
            Job::Changed { usage, key, step } => {
                self.note(&usage, &key, step.as_ref());
                let mut state = self.state.lock();
                let about = |w: &Watch| w.resources.iter().any(|r| r.is_about(&usage, &key));
                let ids: Vec<u64> = state.watches.iter().filter(|(_, w)| about(w)).map(|(id, _)| *id).collect();
                for id in ids {
                    self.step(&mut state, now, id, NotifierEvent::Changed);
                }
            }
            Job::Answered { watch, status, retry_after } => {
                let mut state = self.state.lock();
                if let Some(watch) = state.watches.get_mut(&watch).filter(|_| !(200..300).contains(&status)) {
                    // Patches of what it may not have would harm.
                    watch.full = true;
                }
                self.step(&mut state, now, watch, NotifierEvent::Answered { status, retry_after });
            }
            Job::Notify(id) => self.notify(outlet, id, now),
        }
    }

    /// Those who want each change by itself are to be told of this one (§4.3).
    fn note(&self, usage: &str, key: &str, step: Option<&Tags>) {
        let wants = |w: &Watch| w.mode == Mode::Each && !w.full && w.resources.iter().any(|r| r.is_about(usage, key));
        if !self.state.lock().watches.values().any(wants) {
            return;
        }
        // Read without the lock: the store may take its time.
        let now = match self.get(usage, key) {
            Ok(found) => found.map(|document| self.know(document, true)),
            // Its next NOTIFY looks again.
            Err(_) => return,
        };
        for watch in self.state.lock().watches.values_mut().filter(|w| wants(w)) {
            for resource in watch.resources.clone().iter().filter(|r| r.is_about(usage, key) && r.node.is_none()) {
                let sel = match &resource.place {
                    Place::Document { .. } => resource.sel.clone(),
                    Place::Directory { .. } => resources::uri_of(resource.usage.auid, key),
                };
                watch.steps.extend(watch.told.step(sel, now.as_ref(), step));
            }
            if watch.steps.len() > MAX_STEPS {
                watch.full = true;
            }
        }
    }

    fn notify(&self, outlet: &dyn Outlet, id: u64, now: Instant) {
        let found = self.state.lock().watches.get(&id).map(|w| (w.resources.clone(), w.mode));
        let Some((resources, mode)) = found else { return };
        // Read without the lock: the store may take its time.
        let seen = self.look(&resources, mode != Mode::None);
        let mut state = self.state.lock();
        let Some(watch) = state.watches.get_mut(&id) else { return };
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(%error, "documents were not read for a subscriber of their changes");
                watch.told.clone()
            }
        };
        let steps = std::mem::take(&mut watch.steps);
        let changes = match watch.full {
            true => seen.everything(),
            false => steps.into_iter().chain(seen.since(&watch.told, watch.mode)).collect(),
        };
        if changes.is_empty() && !watch.full && !watch.notifier.is_terminated() {
            // What it was to hear has changed back.
            return self.step(&mut state, now, id, NotifierEvent::Answered { status: 200, retry_after: None });
        }
        let mut body = diff::document(&self.config.root, &changes);
        if body.len() > MAX_BODY {
            let short: Vec<Change> = changes.into_iter().map(Change::without_content).collect();
            body = diff::document(&self.config.root, &short);
        }
        (watch.told, watch.full) = (seen, false);
        match watch.write(now, &body) {
            Some(bytes) => {
                let (jobs, hop) = (self.jobs.clone(), Hop::Flow(watch.flow));
                drop(state);
                let done = move |outcome| {
                    let (status, retry_after) = verdict(&outcome);
                    let _ = jobs.send(Job::Answered { watch: id, status, retry_after });
                };
                outlet.request(hop, bytes, Box::new(done));
            }
            None => self.remove(&mut state, id),
        }
    }

    /// What is there now of these.
    fn look(&self, resources: &[Resource], keep: bool) -> Result<Told, StoreError> {
        let mut told = Told::default();
        for resource in resources {
            match &resource.place {
                Place::Document { key } => {
                    let found = self.get(resource.usage.auid, key)?;
                    match &resource.node {
                        None => {
                            if let Some(document) = found {
                                told.documents.insert(resource.sel.clone(), self.know(document, keep));
                            }
                        }
                        Some(selector) => {
                            let text = found.and_then(|d| Text::read(d.body).ok());
                            if let Some(change) = Change::of(text.as_ref(), selector, &resource.sel) {
                                told.nodes.insert(resource.sel.clone(), change);
                            }
                        }
                    }
                }
                Place::Directory { home } => {
                    for document in self.list(resource.usage.auid, home)? {
                        let sel = resources::uri_of(resource.usage.auid, &document.key);
                        told.documents.insert(sel, self.know(document, keep));
                    }
                }
            }
        }
        Ok(told)
    }

    /// What is known of a document from now on.
    fn know(&self, document: Document, keep: bool) -> Known {
        Known { tag: tag(&document), body: if keep { Kept::of(document.body, &self.room) } else { None } }
    }

    fn get(&self, usage: &str, key: &str) -> Result<Option<Document>, StoreError> {
        let (answer, answered) = sync_channel(1);
        self.parts.documents.get(usage, key, Box::new(move |found| drop(answer.send(found))));
        answered.recv().unwrap_or(Err(StoreError::Closed))
    }

    fn list(&self, usage: &str, home: &str) -> Result<Vec<Document>, StoreError> {
        let (answer, answered) = sync_channel(1);
        self.parts.documents.list(usage, home, MAX_LISTED, Box::new(move |found| drop(answer.send(found))));
        let mut found = answered.recv().unwrap_or(Err(StoreError::Closed))?;
        found.retain(|d| d.key.starts_with(home));
        Ok(found)
    }
}

impl Watch {
    /// The next NOTIFY without its Via. `None`: the dialog is over.
    fn write(&mut self, now: Instant, body: &[u8]) -> Option<Vec<u8>> {
        let mut state = Vec::with_capacity(64);
        self.notifier.write_state(now, &mut state);
        write_notify(&mut self.dialog, body.len(), |w| {
            w.text(HeaderName::Contact, &self.contact);
            w.text(HeaderName::Event, &self.event);
            w.text(HeaderName::SubscriptionState, &state);
            w.body(diff::MEDIA_TYPE.as_bytes(), body);
        })
    }
}

impl Service for XcapDiff {
    fn name(&self) -> &'static str {
        "xcap-diff"
    }

    fn request(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        match request.message.method() {
            Method::Subscribe => self.subscribe(step, request),
            _ => Verdict::Pass,
        }
    }
}
