//! From the write-ahead log into the file, beside the writer.
//!
//! SQLite's own checkpoint runs inside a commit: every push that waits for this commit would wait for some thousand pages and their sync, too. So it is off,
//! and a thread with a connection of its own does the carrying while commits go on. It alone cannot come to the end of a log that grows; when the
//! log is long, the writer carries the last few pages itself between two groups, and the next commit begins the log anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AnyConnection, Connection, Row, query, raw_sql};
use tokio::runtime::{Builder, Runtime};

use crate::store::{Engine, OpenError, engine};

/// Ends its thread when dropped.
pub struct Checkpoints {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    wanted: Mutex<Wanted>,
    wake: Condvar,
    /// The log is long, and nearly all of it is in the file.
    long: AtomicBool,
}

#[derive(Default)]
struct Wanted {
    /// There is a commit that the file has not got.
    dirty: bool,
    stop: bool,
}

impl Checkpoints {
    /// `None` where the database looks after itself.
    pub fn start(engine: &Engine) -> Result<Option<Checkpoints>, OpenError> {
        let Engine::Sqlite(folder) = engine else { return Ok(None) };
        let runtime = Builder::new_current_thread().build().map_err(OpenError::Thread)?;
        let connection = runtime.block_on(engine::connect_sqlite_sms_checkpoints(folder))?;
        let shared = Arc::<Shared>::default();
        let for_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("sms-checkpoint".into())
            .spawn(move || run(&for_thread, &runtime, connection))
            .map_err(OpenError::Thread)?;
        Ok(Some(Checkpoints { shared, thread: Some(thread) }))
    }

    /// After each commit of the writer's, on its connection.
    pub async fn committed(&self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        if self.shared.long.swap(false, Relaxed) {
            raw_sql(CARRY).execute(connection).await?;
        }
        let mut wanted = self.shared.wanted.lock();
        if !wanted.dirty {
            wanted.dirty = true;
            self.shared.wake.notify_one();
        }
        Ok(())
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.shared.wanted.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // One that panicked has reported itself; then the log grows until the next start, and nothing is lost.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, runtime: &Runtime, mut connection: SqliteConnection) {
    let mut wanted = shared.wanted.lock();
    while !wanted.stop {
        if !wanted.dirty {
            shared.wake.wait(&mut wanted);
            continue;
        }
        wanted.dirty = false;
        drop(wanted);
        match runtime.block_on(carry(&mut connection)) {
            Ok(true) => shared.long.store(true, Relaxed),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the short message store's log is not carried into its file"),
        }
        wanted = shared.wanted.lock();
        if !wanted.stop {
            shared.wake.wait_for(&mut wanted, PAUSE);
        }
    }
    drop(wanted);
    if let Err(error) = runtime.block_on(connection.close()) {
        tracing::warn!(%error, "the short message store did not close");
    }
}

/// Carries what is there. True: the log is long, and what came meanwhile is carried, too, but for the very last.
async fn carry(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if pages(connection).await? < LONG {
        return Ok(false);
    }
    for _ in 0..CHASES {
        pages(connection).await?;
    }
    Ok(true)
}

/// One checkpoint; the pages in the log.
async fn pages(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    query(CARRY).fetch_one(connection).await?.try_get(1)
}

const CARRY: &str = "PRAGMA wal_checkpoint(PASSIVE)";
/// From one checkpoint to the next: the shorter, the less the disk is busy with each; the longer, the more commits share a page.
const PAUSE: Duration = Duration::from_millis(100);
/// Pages after which the log begins anew: 32 MiB.
const LONG: i64 = 8_000;
/// Each carries what came during the one before, which is ever less.
const CHASES: u32 = 2;
