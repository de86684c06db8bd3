//! The xcap-diff event package (RFC 5875): what changes among a user's documents.
//!
//! A subscriber names documents, directories or nodes in a list; the first NOTIFY has the entity tags of the documents that
//! are there and the content of the nodes, those that follow what has changed since (RFC 5874, `no-patching`). Documents are
//! read from the store by a thread of this package's own, which also writes the NOTIFYs, one at a time for a subscription.
//! Subscriptions are in memory: after a restart the subscriber's refresh gets 481, and it begins anew.

mod resources;
mod subscribe;

use std::collections::{BTreeMap, HashMap};
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
/// Bytes of one NOTIFY's document, beyond which elements come without their content (§4.7).
const MAX_BODY: usize = 48 * 1024;
/// Documents of one directory that are watched.
const MAX_LISTED: u32 = 200;

/// See the module's text.
pub struct XcapDiff {
    config: DiffConfig,
    parts: DiffParts,
    live: AtomicUsize,
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
    told: Told,
    /// Its next NOTIFY has everything, and goes even when nothing has changed.
    full: bool,
}

/// What the subscriber knows.
#[derive(Clone, Default)]
struct Told {
    /// Entity tags of documents, by URI below the root.
    documents: BTreeMap<String, String>,
    /// By the node's URI as it was subscribed to.
    nodes: BTreeMap<String, Change>,
}

enum Job {
    /// Its notifier has asked for a NOTIFY.
    Notify(u64),
    /// A document has changed: its usage and key.
    Changed(Box<str>, Box<str>),
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

    /// A document of a usage has changed, here or at another node.
    pub fn document_changed(&self, usage: &str, key: &str) {
        if self.subscriptions() > 0 {
            // The thread is gone only when the house closes.
            let _ = self.jobs.send(Job::Changed(usage.into(), key.into()));
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
            Job::Changed(usage, key) => {
                let mut state = self.state.lock();
                let about = |w: &Watch| w.resources.iter().any(|r| r.is_about(&usage, &key));
                let ids: Vec<u64> = state.watches.iter().filter(|(_, w)| about(w)).map(|(id, _)| *id).collect();
                for id in ids {
                    self.step(&mut state, now, id, NotifierEvent::Changed);
                }
            }
            Job::Answered { watch, status, retry_after } => {
                let mut state = self.state.lock();
                self.step(&mut state, now, watch, NotifierEvent::Answered { status, retry_after });
            }
            Job::Notify(id) => self.notify(outlet, id, now),
        }
    }

    fn notify(&self, outlet: &dyn Outlet, id: u64, now: Instant) {
        let Some(resources) = self.state.lock().watches.get(&id).map(|w| w.resources.clone()) else { return };
        // Read without the lock: the store may take its time.
        let seen = self.look(&resources);
        let mut state = self.state.lock();
        let Some(watch) = state.watches.get_mut(&id) else { return };
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(%error, "documents were not read for a subscriber of their changes");
                watch.told.clone()
            }
        };
        let changes = match watch.full {
            true => seen.everything(),
            false => seen.since(&watch.told),
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
    fn look(&self, resources: &[Resource]) -> Result<Told, StoreError> {
        let mut told = Told::default();
        for resource in resources {
            match &resource.place {
                Place::Document { key } => {
                    let found = self.get(resource.usage.auid, key)?;
                    match &resource.node {
                        None => {
                            if let Some(document) = found {
                                told.documents.insert(resource.sel.clone(), tag(&document));
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
                        told.documents.insert(resources::uri_of(resource.usage.auid, &document.key), tag(&document));
                    }
                }
            }
        }
        Ok(told)
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

/// As HTTP has it, without its quotes (RFC 5874 §5).
fn tag(document: &Document) -> String {
    format!("{:x}", document.version.0)
}

impl Told {
    /// For the first NOTIFY: what is not there is waited for (§4.7).
    fn everything(&self) -> Vec<Change> {
        let documents = self.documents.iter().map(|(sel, tag)| Change::Document {
            sel: sel.clone(),
            new: Some(tag.clone()),
            previous: None,
        });
        documents.chain(self.nodes.values().filter(|c| c.is_there()).cloned()).collect()
    }

    fn since(&self, before: &Told) -> Vec<Change> {
        let mut changes = Vec::new();
        for (sel, tag) in &self.documents {
            let previous = before.documents.get(sel);
            if previous != Some(tag) {
                changes.push(Change::Document {
                    sel: sel.clone(),
                    new: Some(tag.clone()),
                    previous: previous.cloned(),
                });
            }
        }
        for (sel, tag) in before.documents.iter().filter(|(sel, _)| !self.documents.contains_key(*sel)) {
            changes.push(Change::Document { sel: sel.clone(), new: None, previous: Some(tag.clone()) });
        }
        changes.extend(self.nodes.iter().filter(|(sel, c)| before.nodes.get(*sel) != Some(c)).map(|(_, c)| c.clone()));
        changes
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
