//! A queue of work, a thread and a connection.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use sip_ims::ports::{Done, StoreError};
use sqlx::{AnyConnection, Connection};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::Outcome;
use crate::store::{Engine, OpenError};

/// How a lane treats what is queued.
#[derive(Clone, Copy, PartialEq)]
pub enum Mode {
    /// All that waits in one transaction.
    Grouped,
    /// One after the other, outside any transaction.
    Single,
}

pub struct Lane {
    queue: Mutex<Option<Sender<Box<dyn Work>>>>,
    /// Bytes of the work that waits.
    weight: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Lane {
    /// Blocks until the connection is open.
    pub fn open(name: &str, engine: Engine, mode: Mode) -> Result<Lane, OpenError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OpenError::Thread)?;
        let connection = runtime.block_on(engine.connect()).map_err(OpenError::Database)?;
        let (queue, work) = channel(MAX_QUEUED);
        let weight = Arc::new(AtomicUsize::new(0));
        let worker = Worker { engine, mode, connection: Some(connection), weight: weight.clone() };
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || runtime.block_on(worker.run(work)))
            .map_err(OpenError::Thread)?;
        Ok(Lane { queue: Mutex::new(Some(queue)), weight, thread: Mutex::new(Some(thread)) })
    }

    /// Queues `run`, which holds about `weight` bytes; `done` gets its result after the commit. `run` may be called again when a
    /// transaction was rolled back.
    pub fn submit<T, F>(&self, weight: usize, done: Done<T>, run: F)
    where
        T: Send + 'static,
        F: AsyncFnMut(&mut AnyConnection) -> Outcome<T> + Send + 'static,
    {
        if let Err((error, done)) = self.try_submit(weight, done, run) {
            done(Err(error));
        }
    }

    /// As [`submit`](Self::submit), but gives `done` back when nothing was queued.
    pub fn try_submit<T, F>(&self, weight: usize, done: Done<T>, run: F) -> Result<(), (StoreError, Done<T>)>
    where
        T: Send + 'static,
        F: AsyncFnMut(&mut AnyConnection) -> Outcome<T> + Send + 'static,
    {
        let Some(queue) = self.queue.lock().clone() else { return Err((StoreError::Closed, done)) };
        let Ok(place) = queue.try_reserve() else { return Err((StoreError::Full, done)) };
        let weight = weight + std::mem::size_of::<Job<T, F>>();
        if self.weight.fetch_add(weight, Ordering::Relaxed) > MAX_QUEUED_BYTES {
            self.weight.fetch_sub(weight, Ordering::Relaxed);
            return Err((StoreError::Full, done));
        }
        place.send(Box::new(Job { weight, run, outcome: Err(StoreError::Closed), done }));
        Ok(())
    }

    pub fn queued(&self) -> usize {
        self.queue.lock().as_ref().map_or(0, |q| q.max_capacity() - q.capacity())
    }

    /// Finishes what is queued and ends the thread. Blocks.
    pub fn close(&self) {
        drop(self.queue.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            // A thread that panicked has reported itself; there is nothing left to close.
            let _ = thread.join();
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.close();
    }
}

/// Runs a completion; one that panics takes only itself down.
pub fn finish<T>(done: Done<T>, result: Result<T, StoreError>) {
    if catch_unwind(AssertUnwindSafe(move || done(result))).is_err() {
        tracing::error!("a store's completion panicked");
    }
}

trait Work: Send {
    fn weight(&self) -> usize;
    /// Runs the statements and keeps the outcome.
    fn run<'a>(
        &'a mut self,
        connection: &'a mut AnyConnection,
    ) -> Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + 'a>>;
    /// Tells the caller: what `run` found, or why there was no commit.
    fn finish(self: Box<Self>, commit: Result<(), StoreError>);
}

struct Job<T, F> {
    weight: usize,
    run: F,
    outcome: Result<T, StoreError>,
    done: Done<T>,
}

impl<T, F> Work for Job<T, F>
where
    T: Send,
    F: AsyncFnMut(&mut AnyConnection) -> Outcome<T> + Send,
{
    fn weight(&self) -> usize {
        self.weight
    }

    fn run<'a>(
        &'a mut self,
        connection: &'a mut AnyConnection,
    ) -> Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + 'a>> {
        Box::pin(async move {
            self.outcome = (self.run)(connection).await?;
            Ok(())
        })
    }

    fn finish(self: Box<Self>, commit: Result<(), StoreError>) {
        let Job { outcome, done, .. } = *self;
        finish(done, commit.and(outcome));
    }
}

struct Worker {
    engine: Engine,
    mode: Mode,
    /// `None` after an error: a new one is made for the next work.
    connection: Option<AnyConnection>,
    weight: Arc<AtomicUsize>,
}

/// How far a transaction came.
enum Failure {
    /// Nothing of it happened.
    Before(sqlx::Error),
    /// The commit was sent; nobody knows.
    AtCommit(sqlx::Error),
}

impl Worker {
    async fn run(mut self, mut queue: Receiver<Box<dyn Work>>) {
        let size = if self.mode == Mode::Grouped { GROUP } else { 1 };
        let mut group = Vec::with_capacity(size);
        while queue.recv_many(&mut group, size).await > 0 {
            self.weight.fetch_sub(group.iter().map(|w| w.weight()).sum(), Ordering::Relaxed);
            self.serve(&mut group).await;
        }
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "a store's connection did not close");
        }
    }

    async fn serve(&mut self, group: &mut Vec<Box<dyn Work>>) {
        let result = match self.transact(group).await {
            // The connection may have died while it idled, or one piece of work may have spoilt the transaction: each gets a
            // second chance, alone.
            Err(Failure::Before(error)) => {
                tracing::debug!(%error, "a group is tried again, one by one");
                for mut work in group.drain(..) {
                    let result = self.transact(std::slice::from_mut(&mut work)).await;
                    work.finish(result.map_err(reported));
                }
                return;
            }
            other => other.map_err(reported),
        };
        for work in group.drain(..) {
            work.finish(result.clone());
        }
    }

    async fn transact(&mut self, group: &mut [Box<dyn Work>]) -> Result<(), Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => tokio::time::timeout(CONNECT, self.engine.connect())
                .await
                .unwrap_or(Err(sqlx::Error::PoolTimedOut))
                .map_err(Failure::Before)?,
        };
        let result = match self.mode {
            Mode::Grouped => transaction(&mut connection, self.engine.begin(), group).await,
            Mode::Single => every(&mut connection, group).await.map_err(Failure::Before),
        };
        // A connection in doubt is dropped: the engine then rolls back.
        if result.is_ok() {
            self.connection = Some(connection);
        }
        result
    }
}

async fn transaction(
    connection: &mut AnyConnection,
    begin: &'static str,
    group: &mut [Box<dyn Work>],
) -> Result<(), Failure> {
    sqlx::raw_sql(begin).execute(&mut *connection).await.map_err(Failure::Before)?;
    every(connection, group).await.map_err(Failure::Before)?;
    sqlx::raw_sql("COMMIT").execute(connection).await.map_err(Failure::AtCommit)?;
    Ok(())
}

async fn every(connection: &mut AnyConnection, group: &mut [Box<dyn Work>]) -> Result<(), sqlx::Error> {
    for work in group {
        work.run(connection).await?;
    }
    Ok(())
}

fn reported(failure: Failure) -> StoreError {
    let (Failure::Before(error) | Failure::AtCommit(error)) = failure;
    tracing::error!(%error, "the store failed");
    StoreError::engine(error)
}

/// Pieces of work that may wait; beyond, calls are refused.
const MAX_QUEUED: usize = 16 * 1024;
/// Bytes that may wait, and one more piece.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// Most pieces of work in one transaction.
const GROUP: usize = 256;
/// Longest wait for a new connection.
const CONNECT: Duration = Duration::from_secs(5);
