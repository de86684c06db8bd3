//! The stores behind the ports of `sip-ims`: SQL, one text for two engines.
//!
//! * [`binding`]: bindings, and what presence keeps, written in groups behind memory; logs in SQLite files of their own, or tables of PostgreSQL.
//! * [`sql`]: users, waiting messages, histories, documents and the charging log: one writer with group commit, one reader.
//! * [`sms`]: the queue of short messages.
//! * [`follow`]: keeps the directory in step with what any process provisions.
//!
//! Every write is acknowledged after its commit: on disk for what [`sql`] holds, out of this process's reach for bindings.

use std::path::PathBuf;
use std::sync::Arc;

use gw_sms::registry::Registrations;
use sip_ims::history::HistoryStore;
use sip_ims::ports::{BindingStore, ChargingLog, Documents, MessageQueue, StateStore, StoreError, UserStore};

pub mod binding;
pub mod follow;
pub mod sms;
pub mod sql;

mod engine;

pub use engine::Engine;

/// What the stores need to know.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub engine: Engine,
    /// Messages that may wait for one user.
    pub messages_per_user: u32,
    /// This node's name, different for each server on one PostgreSQL.
    pub node: String,
}

impl StoreConfig {
    /// SQLite in a folder, which is made if it is not there.
    pub fn sqlite(folder: impl Into<PathBuf>) -> StoreConfig {
        StoreConfig::new(Engine::Sqlite(folder.into()))
    }

    /// PostgreSQL at a `postgres://` URL.
    pub fn postgres(url: impl Into<String>) -> StoreConfig {
        StoreConfig::new(Engine::Postgres(url.into()))
    }

    fn new(engine: Engine) -> StoreConfig {
        StoreConfig { engine, messages_per_user: MESSAGES_PER_USER, node: String::new() }
    }
}

/// Why the stores did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operator's: the folder cannot be made or written.
    #[error("the data folder is not usable: {0}")]
    Folder(#[source] std::io::Error),
    /// The operator's: no such server, wrong password, or the file is held by another server.
    #[error("the database does not open: {0}")]
    Database(#[source] sqlx::Error),
    /// The operator's: a newer version of the server made this store.
    #[error("the database's tables do not fit this version: {0}")]
    Migration(#[source] sqlx::migrate::MigrateError),
    #[error("no thread for the store: {0}")]
    Thread(#[source] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Every store of a server. Dropping it commits what is queued.
pub struct Store {
    bindings: Arc<binding::Bindings>,
    presence: Arc<binding::Bindings>,
    sql: Arc<sql::SqlStore>,
}

impl Store {
    /// Opens every store, makes or moves up the tables. Blocks; for the start, outside an async runtime.
    pub fn open(config: &StoreConfig) -> Result<Store, OpenError> {
        let sql = sql::SqlStore::open(config)?;
        let open = |kind| binding::Bindings::open(&config.engine, &config.node, kind).map(Arc::new);
        let (bindings, presence) = (open(&binding::BINDINGS)?, open(&binding::PRESENCE)?);
        Ok(Store { bindings, presence, sql: Arc::new(sql) })
    }

    pub fn bindings(&self) -> Arc<dyn BindingStore> {
        self.bindings.clone()
    }

    /// Calls `tell` after each commit of bindings.
    pub fn announce_bindings(&self, tell: impl Fn() + Send + Sync + 'static) {
        self.bindings.announce(tell);
    }

    /// Publications and subscriptions.
    pub fn presence(&self) -> Arc<dyn StateStore> {
        self.presence.clone()
    }

    /// Has the completions of one commit of presence state called within `gather`.
    pub fn answer_presence_within(&self, gather: impl Fn(&mut dyn FnMut()) + Send + Sync + 'static) {
        self.presence.answer_within(gather);
    }

    /// Calls `tell` after each commit of presence state.
    pub fn announce_presence(&self, tell: impl Fn() + Send + Sync + 'static) {
        self.presence.announce(tell);
    }

    pub fn users(&self) -> Arc<dyn UserStore> {
        self.sql.clone()
    }

    pub fn messages(&self) -> Arc<dyn MessageQueue> {
        self.sql.clone()
    }

    pub fn history(&self) -> Arc<dyn HistoryStore> {
        self.sql.clone()
    }

    pub fn documents(&self) -> Arc<dyn Documents> {
        self.sql.clone()
    }

    pub fn charging(&self) -> Arc<dyn ChargingLog> {
        self.sql.clone()
    }

    pub fn registrations(&self) -> Arc<dyn Registrations> {
        self.sql.clone()
    }

    /// What waits to be written: for the metrics.
    pub fn depth(&self) -> Depth {
        Depth { bindings: self.bindings().queued(), presence: self.presence().queued(), sql: self.sql.queued() }
    }

    /// Commits what is queued and ends the threads; later calls are answered `Closed`. Blocks.
    pub fn close(&self) {
        self.bindings.close();
        self.presence.close();
        self.sql.close();
    }
}

/// Lengths of the queues, in operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Depth {
    pub bindings: usize,
    pub presence: usize,
    pub sql: usize,
}

/// The users alone: for command-line tools beside a running server, which holds the bindings' file for itself.
pub fn open_users(config: &StoreConfig) -> Result<Arc<dyn UserStore>, OpenError> {
    Ok(Arc::new(sql::SqlStore::open(config)?))
}

/// Default for [`StoreConfig::messages_per_user`].
const MESSAGES_PER_USER: u32 = 1000;
