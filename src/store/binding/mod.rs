//! State that lives in memory and ends by itself, written behind it in groups: bindings, and what presence keeps.
//!
//! A caller's change is encoded straight into the waiting group, under a short lock; one thread swaps the group out and commits it whole.
//! While a commit runs the next group gathers, so the load sets the size of the groups.

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use sip_ims::ports::{
    BindingChange, BindingRow, BindingStore, Done, EachAor, EachState, StateChange, StateRow, StateStore, StoreError,
};

use super::{Engine, OpenError};
use codec::Change;
use log::Log;
use table::{Table, Tables};

pub mod codec;
mod log;
mod table;

/// What is kept, and where.
pub struct Kind {
    /// SQLite's file.
    file: &'static str,
    /// PostgreSQL's tables.
    tables: &'static Tables,
}

pub const BINDINGS: Kind = Kind { file: "bindings.db", tables: &table::BINDING };
pub const PRESENCE: Kind = Kind { file: "presence.db", tables: &table::PRESENCE };

/// Hears a row.
type EachRow = Box<dyn FnMut(codec::Row<'_>) + Send>;
/// Hears an owner and its rows.
type EachOwner = Box<dyn FnMut(&str, Vec<codec::Row<'_>>) + Send>;

/// [`BindingStore`] or [`StateStore`] on either engine.
pub struct Bindings {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Bindings {
    /// Blocks until the store is open. `node`: this node's name.
    pub fn open(engine: &Engine, node: &str, kind: &Kind) -> Result<Bindings, OpenError> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        if let Engine::Postgres(_) = engine {
            runtime.enable_all();
        }
        // SQLite has a thread of its own and needs no sockets and clocks: so waiting for it is a condition, not an epoll.
        let runtime = runtime.build().map_err(OpenError::Thread)?;
        let backend = runtime.block_on(async {
            Ok::<_, OpenError>(match engine {
                Engine::Sqlite(folder) => Backend::Log(Box::new(Log::open(folder, kind.file).await?)),
                Engine::Postgres(url) => {
                    Backend::Table(Table::open(url, node, kind.tables).await.map_err(OpenError::Database)?)
                }
            })
        })?;
        let shared = Arc::new(Shared::default());
        let writer = Writer { shared: shared.clone(), backend, runtime, committed: Instant::now(), unsynced: None };
        let thread = std::thread::Builder::new()
            .name("bindings".into())
            .spawn(move || writer.run())
            .map_err(OpenError::Thread)?;
        Ok(Bindings { shared, writer: Mutex::new(Some(thread)) })
    }

    /// Calls `tell` after each commit that other nodes may want to know of. Set once.
    pub fn announce(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.announce.set(Box::new(tell));
    }

    /// Has the completions of one commit called within `gather`, which may send together what they answer. Set once.
    pub fn answer_within(&self, gather: impl Fn(&mut dyn FnMut()) + Send + Sync + 'static) {
        let _ = self.shared.gather.set(Box::new(gather));
    }

    /// Commits what is queued and ends the writer. Blocks.
    pub fn close(&self) {
        self.shared.waiting.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.writer.lock().take() {
            // A writer that panicked has reported itself; there is nothing left to close.
            let _ = thread.join();
        }
    }
}

impl Bindings {
    fn ask(&self, read: Read, done: Done<u64>) {
        let mut waiting = self.shared.waiting.lock();
        if waiting.closed || waiting.reads.len() >= MAX_READS {
            let error = if waiting.closed { StoreError::Closed } else { StoreError::Full };
            drop(waiting);
            return done(Err(error));
        }
        waiting.reads.push((read, done));
        drop(waiting);
        self.shared.wake.notify_one();
    }
}

impl Drop for Bindings {
    fn drop(&mut self) {
        self.close();
    }
}

impl Bindings {
    fn queue(&self, change: &Change<'_>, done: Option<Done<()>>) -> Result<(), StoreError> {
        let mut waiting = self.shared.waiting.lock();
        if waiting.closed {
            return Err(StoreError::Closed);
        }
        if waiting.changes.len() + waiting.kept >= MAX_WAITING {
            return Err(StoreError::Full);
        }
        let empty = waiting.changes.is_empty();
        codec::encode(change, &mut waiting.changes)?;
        waiting.count += 1;
        let first_done = done.is_some() && waiting.done.is_empty();
        waiting.done.extend(done);
        // The writer sleeps by the clock once it knows of a group; it needs waking only when its clock changes.
        let wake = empty || first_done || (waiting.changes.len() >= GROUP && !waiting.hurried);
        waiting.hurried |= waiting.changes.len() >= GROUP;
        drop(waiting);
        if wake {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.shared.waiting.lock().count
    }
}

impl BindingStore for Bindings {
    fn write(&self, change: BindingChange<'_>, done: Option<Done<()>>) -> Result<(), StoreError> {
        self.queue(&change.into(), done)
    }

    fn load(&self, mut each: Box<dyn FnMut(BindingRow<'_>) + Send>, done: Done<u64>) {
        self.ask(Read::All(Box::new(move |row| row.binding().into_iter().for_each(&mut each))), done);
    }

    fn changed_elsewhere(&self, also: Vec<Box<str>>, mut each: EachAor, done: Done<u64>) {
        let each = move |aor: &str, rows: Vec<codec::Row<'_>>| {
            let rows: Vec<_> = rows.into_iter().filter_map(codec::Row::binding).collect();
            each(aor, &rows);
        };
        self.ask(Read::Changed(also, Box::new(each)), done);
    }

    fn queued(&self) -> usize {
        self.waiting()
    }
}

impl StateStore for Bindings {
    fn write(&self, change: StateChange<'_>, done: Option<Done<()>>) -> Result<(), StoreError> {
        self.queue(&change.into(), done)
    }

    fn load(&self, mut each: Box<dyn FnMut(StateRow<'_>) + Send>, done: Done<u64>) {
        self.ask(Read::All(Box::new(move |row| row.state().into_iter().for_each(&mut each))), done);
    }

    fn changed_elsewhere(&self, also: Vec<Box<str>>, mut each: EachState, done: Done<u64>) {
        let each = move |owner: &str, rows: Vec<codec::Row<'_>>| {
            let rows: Vec<_> = rows.into_iter().filter_map(codec::Row::state).collect();
            each(owner, &rows);
        };
        self.ask(Read::Changed(also, Box::new(each)), done);
    }

    fn queued(&self) -> usize {
        self.waiting()
    }
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    announce: OnceLock<Box<dyn Fn() + Send + Sync>>,
    gather: OnceLock<Gather>,
}

type Gather = Box<dyn Fn(&mut dyn FnMut()) + Send + Sync>;

/// What is to be read.
enum Read {
    All(EachRow),
    Changed(Vec<Box<str>>, EachOwner),
}

#[derive(Default)]
struct Waiting {
    /// Encoded. At most [`MAX_WAITING`] and one change, with what is kept.
    changes: Vec<u8>,
    /// Bytes of the group that failed and is tried again: while the engine is away it grows with each attempt.
    kept: usize,
    /// The buffer of an earlier group, empty: fresh memory for each group would cost its pages' clearing.
    spare: Vec<u8>,
    count: usize,
    done: Vec<Done<()>>,
    /// At most [`MAX_READS`].
    reads: Vec<(Read, Done<u64>)>,
    /// The writer was woken because the group is large.
    hurried: bool,
    closed: bool,
}

enum Backend {
    Log(Box<Log>),
    Table(Table),
}

struct Writer {
    shared: Arc<Shared>,
    backend: Backend,
    runtime: tokio::runtime::Runtime,
    /// When the last commit began.
    committed: Instant,
    /// When the oldest commit that is not synced yet was made.
    unsynced: Option<Instant>,
}

/// What the writer woke up for.
enum Turn {
    Commit(Vec<u8>, Vec<Done<()>>),
    Read(Read, Done<u64>),
    Sync,
    End,
}

impl Writer {
    fn run(mut self) {
        // A group that failed is kept and goes first: whoever asked for an answer was told, the others are not lost.
        let mut kept = Vec::new();
        loop {
            match self.next(!kept.is_empty()) {
                Turn::Commit(changes, done) => {
                    let changes = if kept.is_empty() {
                        changes
                    } else {
                        kept.extend_from_slice(&changes);
                        std::mem::take(&mut kept)
                    };
                    if let Err(unwritten) = self.commit(changes, done) {
                        kept = unwritten;
                    }
                    self.shared.waiting.lock().kept = kept.len();
                }
                Turn::Read(read, done) => {
                    // What was queued before it is seen by it.
                    let waiting = self.shared.waiting.lock().take();
                    if let Turn::Commit(changes, done) = waiting {
                        kept.extend_from_slice(&changes);
                        if !kept.is_empty()
                            && let Err(unwritten) = self.commit(std::mem::take(&mut kept), done)
                        {
                            kept = unwritten;
                        }
                        self.shared.waiting.lock().kept = kept.len();
                    }
                    let result = match (&mut self.backend, read) {
                        (Backend::Log(log), Read::All(each)) => self.runtime.block_on(log.load(each)),
                        (Backend::Log(_), Read::Changed(..)) => Ok(0),
                        (Backend::Table(table), Read::All(each)) => self.runtime.block_on(table.load(each)),
                        // The table does not have what memory has.
                        (Backend::Table(_), Read::Changed(..)) if !kept.is_empty() => Err(StoreError::Full),
                        (Backend::Table(table), Read::Changed(also, each)) => {
                            self.runtime.block_on(table.changed(also, each))
                        }
                    };
                    super::sql::finish(done, result);
                }
                Turn::Sync => self.sync(),
                Turn::End => {
                    self.sync();
                    return self.runtime.block_on(async {
                        match self.backend {
                            Backend::Log(log) => log.close().await,
                            Backend::Table(table) => table.close().await,
                        }
                    });
                }
            }
        }
    }

    /// Waits until there is something to do, and takes it.
    fn next(&mut self, kept: bool) -> Turn {
        let mut waiting = self.shared.waiting.lock();
        let mut since = None;
        loop {
            if let Some((read, done)) = waiting.reads.pop() {
                return Turn::Read(read, done);
            }
            let now = Instant::now();
            if waiting.closed {
                if waiting.changes.is_empty() {
                    return Turn::End;
                }
                return waiting.take();
            }
            let sync = self.unsynced.map(|at| at + SYNC);
            if sync.is_some_and(|at| at <= now) {
                return Turn::Sync;
            }
            let commit = if waiting.changes.is_empty() {
                kept.then(|| self.committed + RETRY)
            } else {
                let since = *since.get_or_insert(now);
                let urgent = !waiting.done.is_empty() || waiting.changes.len() >= GROUP;
                Some(if urgent { self.committed + BETWEEN } else { since + BEHIND })
            };
            if commit.is_some_and(|at| at <= now) {
                return waiting.take();
            }
            match commit.into_iter().chain(sync).min() {
                Some(at) => drop(self.shared.wake.wait_until(&mut waiting, at)),
                None => self.shared.wake.wait(&mut waiting),
            }
        }
    }

    fn commit(&mut self, changes: Vec<u8>, done: Vec<Done<()>>) -> Result<(), Vec<u8>> {
        self.committed = Instant::now();
        let result = match &mut self.backend {
            Backend::Log(log) => self.runtime.block_on(log.commit(changes)),
            Backend::Table(table) => self.runtime.block_on(table.commit(changes)),
        };
        self.unsynced.get_or_insert(self.committed);
        let (outcome, unwritten) = match result {
            Ok(buffer) => {
                self.shared.waiting.lock().spare(buffer);
                if let Some(tell) = self.shared.announce.get() {
                    tell();
                }
                (Ok(()), Ok(()))
            }
            Err((error, changes)) => {
                tracing::error!(%error, bytes = changes.len(), "bindings not stored; will be tried again");
                (Err(error), Err(changes))
            }
        };
        let mut done = done.into_iter();
        let mut finish = || done.by_ref().for_each(|done| super::sql::finish(done, outcome.clone()));
        match self.shared.gather.get() {
            Some(gather) => gather(&mut finish),
            None => finish(),
        }
        unwritten
    }

    fn sync(&mut self) {
        self.unsynced = None;
        let result = match &mut self.backend {
            Backend::Log(log) => self.runtime.block_on(log.sync()),
            Backend::Table(table) => self.runtime.block_on(table.sweep()),
        };
        if let Err(error) = result {
            tracing::error!(%error, "bindings not synced");
        }
    }
}

impl Waiting {
    fn take(&mut self) -> Turn {
        self.count = 0;
        self.hurried = false;
        let room = std::mem::take(&mut self.spare);
        Turn::Commit(std::mem::replace(&mut self.changes, room), std::mem::take(&mut self.done))
    }

    fn spare(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= 2 * GROUP {
            buffer.clear();
            self.spare = buffer;
        }
    }
}

/// Bytes that may wait; beyond, changes are refused. Some 50,000 bindings: two seconds of the fastest load.
const MAX_WAITING: usize = 16 * 1024 * 1024;
/// Bytes at which a group does not wait any longer.
const GROUP: usize = 1024 * 1024;
/// Reads that may wait.
const MAX_READS: usize = 16;
/// Least time from one commit to the next: under load it sets the size of a group, alone a change is committed at once.
/// A phone does not notice 20 ms, and a commit costs as much as ten of its bindings.
const BETWEEN: Duration = Duration::from_millis(20);
/// How long a group waits when nobody waits for it.
const BEHIND: Duration = Duration::from_millis(200);
/// From a commit to its sync; with the sync itself under a second.
const SYNC: Duration = Duration::from_millis(700);
/// Before a failed group is tried again.
const RETRY: Duration = Duration::from_millis(500);
