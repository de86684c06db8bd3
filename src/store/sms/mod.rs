//! The queue of short messages ([`gw_sms::queue::Queue`]): rows behind a thread that commits in groups, and a journal of what happens to them.
//!
//! * [`writer`]: the thread: takes what waits into one transaction, acknowledges after the commit, and hands new segments on
//!   from memory; nothing that was just written is read again.
//! * [`statements`]: the SQL, the same text for both engines: many rows to a statement, because each costs a hand-over to sqlx's thread.
//! * [`changes`], [`jobs`], [`upkeep`]: what runs inside a transaction: news of segments; questions and cancellations; what is due.
//! * [`checkpoint`]: SQLite's log goes into its file beside the commits, not within them.
//! * [`journal`]: what became of segments since the last commit, in a file, without a sync: a killed process loses none of it, and the
//!   rows are brought up to date a few times a second instead of once for each segment. [`syncs`]: of receipts, before they are acknowledged.
//!
//! On SQLite it has a file of its own: one writer holds a whole file, and nobody's registration should wait for short messages.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use gw_sms::billing::Calendar;
use gw_sms::queue::{
    Cancel, Enqueued, Mark, Older, Outlet, Progress, Queue, Replaced, Replacement, Request, RequestKey, SegmentId,
    SentAs, Status, Total, Waiting,
};
use parking_lot::{Condvar, Mutex};
use sip_ims::Msisdn;
use sip_ims::ports::{Done, StoreError};
use sqlx::Connection;

use super::{Engine, OpenError};
use journal::Journal;
use syncs::Syncs;

mod changes;
mod checkpoint;
mod jobs;
mod journal;
mod statements;
mod syncs;
mod upkeep;
mod writer;

/// What the queue needs to know.
#[derive(Clone, Debug)]
pub struct SmsConfig {
    pub engine: Engine,
    /// Holds the journal.
    pub folder: PathBuf,
    /// Unique in a cluster.
    pub node: String,
    /// Days begin where the operator lives.
    pub calendar: Calendar,
    /// Milliseconds for which the end of a request is remembered: to answer the same request again, queries and cancellations.
    pub keep: i64,
}

impl SmsConfig {
    pub fn new(engine: Engine, folder: impl AsRef<Path>, node: &str) -> SmsConfig {
        SmsConfig {
            engine,
            folder: folder.as_ref().to_owned(),
            node: node.to_owned(),
            calendar: Calendar::utc(),
            keep: KEEP,
        }
    }
}

/// The totals alone, for the command line beside a running server, which holds the journal. Blocks.
pub fn read_totals(engine: &Engine, from: &str, to: &str) -> Result<Vec<Total>, OpenError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OpenError::Thread)?;
    runtime.block_on(async {
        engine.prepare_sms().await?;
        let mut connection = engine.connect_sms().await.map_err(OpenError::Database)?;
        let totals = jobs::totals(&mut connection, from, to).await.map_err(OpenError::Database)?;
        connection.close().await.map_err(OpenError::Database)?;
        Ok(totals)
    })
}

/// Default for [`SmsConfig::keep`]: a week.
const KEEP: i64 = 7 * 86_400_000;

/// [`Queue`] on either engine. Dropping it commits what is queued.
pub struct SmsQueue {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    syncs: Syncs,
}

impl SmsQueue {
    /// Makes or moves up the tables and brings them up to date from the journal. Blocks.
    pub fn open(config: &SmsConfig) -> Result<SmsQueue, OpenError> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        if let Engine::Postgres(_) = config.engine {
            runtime.enable_all();
        }
        // SQLite has a thread of its own and needs no sockets and clocks: so waiting for it is a condition, not an epoll.
        let runtime = runtime.build().map_err(OpenError::Thread)?;
        let (journal, left) = Journal::open(&config.folder).map_err(OpenError::Folder)?;
        let writer = writer::Writer::open(config, runtime, left)?;
        let mut pending = Pending::new(journal);
        pending.journal.clear().map_err(OpenError::Folder)?;
        let syncs = Syncs::start(pending.journal.handles().map_err(OpenError::Folder)?)?;
        let shared = Arc::new(Shared { pending: Mutex::new(pending), wake: Condvar::new() });
        let for_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("sms-store".into())
            .spawn(move || writer.run(&for_thread))
            .map_err(OpenError::Thread)?;
        Ok(SmsQueue { shared, thread: Mutex::new(Some(thread)), syncs })
    }

    /// Requests and jobs that wait: for the metrics.
    pub fn queued(&self) -> usize {
        let pending = self.shared.pending.lock();
        pending.requests.len() + pending.jobs.len()
    }

    /// Commits what is queued and ends the thread. Blocks.
    pub fn close(&self) {
        self.shared.pending.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            // A writer that panicked has reported itself; there is nothing left to close.
            let _ = thread.join();
        }
    }

    /// Takes news into memory and the journal; the file that it is in.
    fn note(&self, marks: Vec<Mark>) -> Result<usize, StoreError> {
        let mut pending = self.shared.pending.lock();
        if pending.closed {
            return Err(StoreError::Closed);
        }
        pending.journal.append(&marks).map_err(StoreError::engine)?;
        let file = pending.journal.active();
        let hurried = pending.marks.len() >= MANY_MARKS;
        pending.marks_since.get_or_insert_with(Instant::now);
        for mark in marks {
            merge(&mut pending.marks, mark);
        }
        // The writer looks at the clock by itself; only a crowd is news.
        let wake = !hurried && pending.marks.len() >= MANY_MARKS;
        drop(pending);
        if wake {
            self.shared.wake.notify_one();
        }
        Ok(file)
    }

    fn job(&self, job: Job) {
        let mut pending = self.shared.pending.lock();
        if pending.closed || pending.jobs.len() >= MAX_JOBS {
            let error = if pending.closed { StoreError::Closed } else { StoreError::Full };
            drop(pending);
            return job.fail(error);
        }
        pending.jobs.push(job);
        drop(pending);
        self.shared.wake.notify_one();
    }
}

impl Drop for SmsQueue {
    fn drop(&mut self) {
        self.close();
    }
}

impl Queue for SmsQueue {
    fn attach(&self, outlet: Arc<dyn Outlet>) {
        self.shared.pending.lock().outlet = Some(outlet);
        self.shared.wake.notify_one();
    }

    fn enqueue(&self, request: Request, done: Done<Enqueued>) {
        let bytes: usize = request.parts.iter().map(|p| p.short_message.len() + ROW).sum();
        let mut pending = self.shared.pending.lock();
        if pending.closed || pending.bytes > MAX_BYTES {
            let error = if pending.closed { StoreError::Closed } else { StoreError::Full };
            drop(pending);
            return done(Err(error));
        }
        pending.bytes += bytes;
        let first = pending.requests.is_empty();
        pending.requests.push((request, done));
        drop(pending);
        // The writer takes everything at once: it needs to hear of the first only.
        if first {
            self.shared.wake.notify_one();
        }
    }

    fn cancel(&self, key: RequestKey, at: i64, done: Done<Cancel>) {
        self.job(Job::Cancel(key, at, done));
    }

    fn supersede(&self, older: Older, at: i64, done: Done<u64>) {
        self.job(Job::Supersede(older, at, done));
    }

    fn find(&self, key: RequestKey, done: Done<Option<Status>>) {
        self.job(Job::Find(key, done));
    }

    fn find_many(&self, client: Arc<str>, reqid: Arc<str>, done: Done<Vec<Status>>) {
        self.job(Job::FindMany(client, reqid, done));
    }

    fn replace(&self, key: RequestKey, with: Replacement, done: Done<Replaced>) {
        self.job(Job::Replace(key, with, done));
    }

    fn mark(&self, marks: Vec<Mark>) -> Result<(), StoreError> {
        self.note(marks).map(drop)
    }

    fn mark_for_good(&self, marks: Vec<Mark>, done: Done<()>) {
        match self.note(marks) {
            Ok(file) => self.syncs.ask(file, done),
            Err(error) => done(Err(error)),
        }
    }

    fn sent_as(&self, names: Vec<SentAs>, done: Done<Vec<Waiting>>) {
        self.job(Job::SentAs(names, done));
    }

    fn wake(&self, msn: Msisdn) {
        self.job(Job::Wake(vec![(msn, msn)]));
    }

    fn wake_ranges(&self, ranges: &[(Msisdn, Msisdn)]) {
        self.job(Job::Wake(ranges.to_vec()));
    }

    fn notified(&self, id: SegmentId) {
        self.job(Job::Notified(id));
    }

    fn notify_later(&self, id: SegmentId, due: i64, attempts: u16) {
        self.job(Job::NotifyLater { id, due, attempts });
    }

    fn totals(&self, from: &str, to: &str, done: Done<Vec<Total>>) {
        self.job(Job::Totals(from.to_owned(), to.to_owned(), done));
    }
}

/// What waits for the writer.
struct Pending {
    /// At most [`MAX_BYTES`] and one request.
    requests: Vec<(Request, Done<Enqueued>)>,
    bytes: usize,
    /// At most [`MAX_JOBS`].
    jobs: Vec<Job>,
    /// The newest news of each segment; in the journal too. As many as were handed out and not yet written: see [`Outlet::room`].
    marks: HashMap<SegmentId, Mark>,
    marks_since: Option<Instant>,
    journal: Journal,
    outlet: Option<Arc<dyn Outlet>>,
    closed: bool,
}

impl Pending {
    fn new(journal: Journal) -> Pending {
        Pending {
            requests: Vec::new(),
            bytes: 0,
            jobs: Vec::new(),
            marks: HashMap::new(),
            marks_since: None,
            journal,
            outlet: None,
            closed: false,
        }
    }
}

struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
}

/// What is not the common case.
enum Job {
    Cancel(RequestKey, i64, Done<Cancel>),
    Supersede(Older, i64, Done<u64>),
    Find(RequestKey, Done<Option<Status>>),
    FindMany(Arc<str>, Arc<str>, Done<Vec<Status>>),
    Replace(RequestKey, Replacement, Done<Replaced>),
    SentAs(Vec<SentAs>, Done<Vec<Waiting>>),
    /// Numbers, from each first to each last.
    Wake(Vec<(Msisdn, Msisdn)>),
    Notified(SegmentId),
    NotifyLater {
        id: SegmentId,
        due: i64,
        attempts: u16,
    },
    Totals(String, String, Done<Vec<Total>>),
}

impl Job {
    fn fail(self, error: StoreError) {
        match self {
            Job::Cancel(_, _, done) => super::sql::finish(done, Err(error)),
            Job::Supersede(_, _, done) => super::sql::finish(done, Err(error)),
            Job::FindMany(_, _, done) => super::sql::finish(done, Err(error)),
            Job::Find(_, done) => super::sql::finish(done, Err(error)),
            Job::Replace(_, _, done) => super::sql::finish(done, Err(error)),
            Job::SentAs(_, done) => super::sql::finish(done, Err(error)),
            Job::Totals(_, _, done) => super::sql::finish(done, Err(error)),
            // A notice comes again by its own clock, and what waits for a line has its time, too.
            Job::Wake(_) | Job::Notified(_) | Job::NotifyLater { .. } => {}
        }
    }
}

/// The later news counts, unless the segment is over already.
fn merge(marks: &mut HashMap<SegmentId, Mark>, mark: Mark) {
    let over = |m: &Mark| matches!(m.progress, Progress::Ended { .. });
    match marks.entry(mark.id) {
        std::collections::hash_map::Entry::Vacant(place) => drop(place.insert(mark)),
        std::collections::hash_map::Entry::Occupied(mut known) if !over(known.get()) => drop(known.insert(mark)),
        std::collections::hash_map::Entry::Occupied(_) => {}
    }
}

/// Bytes of requests that may wait for the writer: some three seconds of the fastest load. Beyond, code 5002.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// About what a segment costs beside its user data.
const ROW: usize = 400;
/// Jobs that may wait.
const MAX_JOBS: usize = 100_000;
/// Marks at which they are written without waiting for their time.
const MANY_MARKS: usize = 4_096;
