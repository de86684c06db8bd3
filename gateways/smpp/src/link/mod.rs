//! A link to a message centre: we are the ESME.
//!
//! A task for each connection connects, binds, runs the session and begins again after a pause. What is submitted waits in a
//! bounded channel until the window and the pace have room; when the connection goes, everything in the window comes back as
//! unknown and everything in the channel as unsent, so that the submitter decides, not the link.

mod config;
mod half;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::outcome::{Outcome, Refused, Submission, Ticket, Unaccepted};
use crate::pdu::{AlertNotification, Request};
use crate::pump;
use crate::reply::Reply;
use crate::session::Ended;
pub use config::{BindMode, ClientTls, LinkConfig};
use half::Half;

/// The application above a link. Called on the link's task: nothing here may block.
pub trait LinkPort: Send + Sync + 'static {
    /// Outcomes of submissions, as many as one read brought. Whatever is left in the list is dropped.
    fn outcomes(&self, link: &Arc<str>, outcomes: &mut Vec<Outcome>);

    /// A deliver_sm or data_sm: a message or a receipt. A receipt may come before the outcome of what it is about. The
    /// centre sends no more than a window of them until they are answered.
    fn delivered(&self, link: &Arc<str>, request: Request, reply: Reply);

    /// An alert_notification.
    fn alert(&self, link: &Arc<str>, alert: AlertNotification) {
        let _ = (link, alert);
    }

    /// The link came up, went down, or could not come up: told after each attempt.
    fn state(&self, link: &Arc<str>, state: LinkState) {
        let _ = (link, state);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// Bound for submissions (a receiver: for deliveries).
    Up,
    Down(Down),
}

/// Why a link is down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Down {
    Unreachable,
    Ended(Ended),
}

/// See the module. Cheap to clone; the link runs until [`Link::stop`], or until the last clone is gone.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
    submissions: mpsc::Sender<Submission>,
    stop: Arc<Stop>,
}

pub(crate) struct Shared {
    pub(crate) config: LinkConfig,
    port: Arc<dyn LinkPort>,
    up: AtomicBool,
    /// Submitted and without outcome.
    open: AtomicUsize,
    /// Rung when there is room again, or the link came up.
    pub(crate) room: Arc<Notify>,
    throttled: AtomicU64,
    faults: AtomicU64,
    strays: AtomicU64,
}

struct Stop {
    ask: watch::Sender<bool>,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

impl Link {
    /// Starts to connect. Needs a tokio runtime around it.
    pub fn start(config: LinkConfig, port: Arc<dyn LinkPort>) -> Link {
        Link::start_with(config, port, Arc::new(Notify::new()))
    }

    pub(crate) fn start_with(config: LinkConfig, port: Arc<dyn LinkPort>, room: Arc<Notify>) -> Link {
        let (submissions, queue) = mpsc::channel(config.queue.max(1));
        let (ask, stop) = watch::channel(false);
        let shared = Arc::new(Shared {
            config,
            port,
            up: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            room,
            throttled: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            strays: AtomicU64::new(0),
        });
        // The first kind takes the submissions; a receiver beside it has a queue that nobody fills.
        let mut queue = Some(queue);
        let tasks = shared.config.mode.kinds().iter().map(|kind| {
            let queue = queue.take().unwrap_or_else(|| mpsc::channel(1).1);
            tokio::spawn(Half::new(shared.clone(), *kind, queue, stop.clone()).run())
        });
        let tasks = parking_lot::Mutex::new(tasks.collect());
        Link { shared, submissions, stop: Arc::new(Stop { ask, tasks }) }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.shared.config.name
    }

    /// Bound for submissions.
    pub fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::Acquire)
    }

    /// Submitted and still without outcome.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Throttled responses, PDUs that could not be read, and responses that nobody waited for, since the start.
    pub fn oddities(&self) -> [u64; 3] {
        let shared = &self.shared;
        [&shared.throttled, &shared.faults, &shared.strays].map(|n| n.load(Ordering::Relaxed))
    }

    /// Takes a request (submit_sm, submit_multi, data_sm, query_sm, cancel_sm, replace_sm) or refuses it at once. What is
    /// taken has exactly one outcome.
    pub fn try_submit(&self, ticket: Ticket, request: Request) -> Result<(), Unaccepted> {
        if !self.is_up() {
            return Err(Unaccepted { why: Refused::Down, request: Box::new(request) });
        }
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        pump::offer(&self.submissions, Submission { ticket, request }).map_err(|(why, submission)| {
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
            Unaccepted { why, request: Box::new(submission.request) }
        })
    }

    /// The same, but waits for room while the link is up.
    pub async fn submit(&self, ticket: Ticket, request: Request) -> Result<(), Unaccepted> {
        if !self.is_up() {
            return Err(Unaccepted { why: Refused::Down, request: Box::new(request) });
        }
        match self.submissions.reserve().await {
            Ok(permit) => {
                self.shared.open.fetch_add(1, Ordering::Relaxed);
                permit.send(Submission { ticket, request });
                Ok(())
            }
            Err(_) => Err(Unaccepted { why: Refused::Down, request: Box::new(request) }),
        }
    }

    /// Takes nothing more, gives what is in the window a few seconds for its answers, unbinds, and ends.
    pub async fn stop(&self) {
        self.stop.ask.send_replace(true);
        let tasks = std::mem::take(&mut *self.stop.tasks.lock());
        for task in tasks {
            // It cannot be cancelled by anybody else, and a panic in it has been told by then.
            let _ = task.await;
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("name", self.name()).field("up", &self.is_up()).finish_non_exhaustive()
    }
}
