//! Users, waiting messages, histories, documents and the charging log, in SQL that both engines read.
//!
//! Two threads, each with one connection: the [writer](lane) takes what is queued into one transaction and acknowledges it all after the
//! commit is on disk; the reader answers beside it. A caller that was acknowledged reads what it wrote.

use sip_ims::ports::{Done, StoreError};

use sqlx::{AnyConnection, Row, query};

use super::{Engine, OpenError, StoreConfig};
use lane::Lane;

mod charging;
mod documents;
mod history;
mod lane;
mod messages;
mod registrations;
mod users;

pub(super) use lane::finish;

/// [`UserStore`](sip_ims::ports::UserStore), [`MessageQueue`](sip_ims::ports::MessageQueue),
/// [`Documents`](sip_ims::ports::Documents) and [`ChargingLog`](sip_ims::ports::ChargingLog) on either engine.
pub struct SqlStore {
    writer: Lane,
    reader: Lane,
    messages_per_user: u32,
    /// Who holds leases; `None` where nobody else delivers.
    node: Option<String>,
}

impl SqlStore {
    /// Makes or moves up the tables and opens both connections. Blocks.
    pub fn open(config: &StoreConfig) -> Result<SqlStore, OpenError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OpenError::Thread)?;
        runtime.block_on(config.engine.prepare())?;
        Ok(SqlStore {
            writer: Lane::open("store-write", config.engine.clone(), lane::Mode::Grouped)?,
            reader: Lane::open("store-read", config.engine.clone(), lane::Mode::Single)?,
            messages_per_user: config.messages_per_user,
            node: matches!(config.engine, Engine::Postgres(_)).then(|| config.node.clone()),
        })
    }

    /// Operations that wait.
    pub fn queued(&self) -> usize {
        self.writer.queued() + self.reader.queued()
    }

    /// Finishes what is queued and ends the threads. Blocks.
    pub fn close(&self) {
        self.writer.close();
        self.reader.close();
    }
}

/// What runs inside a transaction: `Err` of SQL fails the group, the inner result is this caller's alone.
type Outcome<T> = Result<Result<T, StoreError>, sqlx::Error>;

/// The next number of a sequence of changes. The counter's row stays locked until the commit: changes become visible in the
/// order of their numbers.
async fn next_sequence(connection: &mut AnyConnection, counter: &'static str) -> Result<i64, sqlx::Error> {
    query("UPDATE counter SET value = value + 1 WHERE name = $1 RETURNING value")
        .bind(counter)
        .fetch_one(connection)
        .await?
        .try_get(0)
}

/// Text that both engines can hold.
fn check_text(texts: &[&str]) -> Result<(), StoreError> {
    if texts.iter().any(|t| t.contains('\0')) { Err(StoreError::Text) } else { Ok(()) }
}

/// Refuses a call before it is queued.
fn refuse<T>(done: Done<T>, error: StoreError) {
    done(Err(error));
}
