//! Opening connections: where each engine keeps its data, how it is told to be durable, and its tables.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Once;
use std::time::Duration;

use sqlx::any::AnyConnectOptions;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous};
use sqlx::{AnyConnection, ConnectOptions, Connection, PgConnection, SqlSafeStr, SqliteConnection};

use super::OpenError;

/// The database engine and where it is.
#[derive(Clone)]
pub enum Engine {
    /// A folder of this machine.
    Sqlite(PathBuf),
    /// A `postgres://` URL.
    Postgres(String),
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Engine::Sqlite(folder) => f.debug_tuple("Sqlite").field(folder).finish(),
            // The URL may hold a password.
            Engine::Postgres(_) => f.write_str("Postgres(…)"),
        }
    }
}

impl Engine {
    /// Makes the folder, and the tables of what [`super::sql`] holds and, on PostgreSQL, of the bindings.
    pub(super) async fn prepare(&self) -> Result<(), OpenError> {
        match self {
            Engine::Sqlite(folder) => prepare_sqlite(folder, STORE_FILE, SQLITE).await,
            Engine::Postgres(url) => {
                let mut connection = postgres_options(url)?.connect().await.map_err(OpenError::Database)?;
                migrator(POSTGRES).run(&mut connection).await.map_err(OpenError::Migration)?;
                connection.close().await.map_err(OpenError::Database)
            }
        }
    }

    /// A connection to what [`super::sql`] holds: a commit is on disk.
    pub(super) async fn connect(&self) -> Result<AnyConnection, sqlx::Error> {
        drivers();
        match self {
            Engine::Sqlite(folder) => {
                let url = SqliteConnectOptions::new().filename(folder.join(STORE_FILE)).to_url_lossy();
                let mut connection = AnyConnection::connect_with(&AnyConnectOptions::from_str(url.as_str())?).await?;
                sqlx::raw_sql(
                    "PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL; PRAGMA cache_size = -1024; PRAGMA journal_size_limit = 8388608",
                )
                .execute(&mut connection)
                .await?;
                Ok(connection)
            }
            Engine::Postgres(url) => {
                let mut connection = AnyConnection::connect_with(&AnyConnectOptions::from_str(url)?).await?;
                sqlx::raw_sql(POSTGRES_SESSION).execute(&mut connection).await?;
                Ok(connection)
            }
        }
    }

    /// Makes the tables of the short messages; [`prepare`](Self::prepare) does on PostgreSQL.
    pub(super) async fn prepare_sms(&self) -> Result<(), OpenError> {
        match self {
            Engine::Sqlite(folder) => prepare_sqlite(folder, SMS_FILE, SQLITE_SMS).await,
            Engine::Postgres(_) => self.prepare().await,
        }
    }

    /// A connection to the short messages: a commit is on disk.
    pub(super) async fn connect_sms(&self) -> Result<AnyConnection, sqlx::Error> {
        let Engine::Sqlite(folder) = self else { return self.connect().await };
        drivers();
        let url = SqliteConnectOptions::new().filename(folder.join(SMS_FILE)).to_url_lossy();
        let mut connection = AnyConnection::connect_with(&AnyConnectOptions::from_str(url.as_str())?).await?;
        // Keys come at random, so more of the tree is kept. The log keeps its length: to grow a file costs a sync more than to write over it.
        sqlx::raw_sql(
            "PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536; \
             PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 100663296",
        )
        .execute(&mut connection)
        .await?;
        Ok(connection)
    }

    /// The statement that begins a writing transaction.
    pub(super) fn begin(&self) -> &'static str {
        match self {
            Engine::Sqlite(_) => "BEGIN IMMEDIATE",
            Engine::Postgres(_) => "BEGIN",
        }
    }
}

/// Makes a SQLite file and its tables. Another process may be starting on the same folder, and SQLite's own waiting does not cover the
/// change of a new file to write-ahead logging ("database is locked" at once): a lock beside the file does.
async fn prepare_sqlite(folder: &Path, file: &str, steps: &'static Steps) -> Result<(), OpenError> {
    make_folder(folder)?;
    let alone = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(folder.join("making.lock"))
        .map_err(OpenError::Folder)?;
    alone.lock().map_err(OpenError::Folder)?;
    let mut connection = connect(&sqlite_file(folder, file)?).await?;
    let mut whole = connection.begin_with("BEGIN IMMEDIATE").await.map_err(OpenError::Database)?;
    migrator(steps).run(&mut *whole).await.map_err(OpenError::Migration)?;
    whole.commit().await.map_err(OpenError::Database)?;
    connection.close().await.map_err(OpenError::Database)
}

/// A connection that carries the short messages' log into their file, and does nothing else.
pub(super) async fn connect_sqlite_sms_checkpoints(folder: &Path) -> Result<SqliteConnection, OpenError> {
    let options = SqliteConnectOptions::new()
        .filename(folder.join(SMS_FILE))
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", "0")
        .pragma("cache_size", "-64");
    let mut connection = connect(&options).await?;
    // Before it has read anything, a connection does not know that there is a log.
    sqlx::raw_sql("SELECT count(*) FROM sqlite_master").execute(&mut connection).await.map_err(OpenError::Database)?;
    Ok(connection)
}

/// A SQLite file of state that is written behind memory. It belongs to one process alone (`locking_mode = EXCLUSIVE`: no lock calls, no shared memory), and a
/// commit is a write without a sync; the writer checkpoints, and so syncs, within a second.
pub(super) async fn connect_sqlite_log(folder: &Path, file: &str) -> Result<SqliteConnection, OpenError> {
    let options = sqlite_file(folder, file)?
        .locking_mode(SqliteLockingMode::Exclusive)
        .busy_timeout(Duration::from_secs(2))
        .synchronous(SqliteSynchronous::Normal)
        .page_size(8192)
        .pragma("wal_autocheckpoint", "0")
        .pragma("journal_size_limit", "16777216")
        .pragma("cache_size", "-512");
    let mut connection = connect(&options).await?;
    migrator(SQLITE_BINDINGS).run(&mut connection).await.map_err(OpenError::Migration)?;
    Ok(connection)
}

pub(super) async fn connect_postgres_bindings(url: &str) -> Result<PgConnection, sqlx::Error> {
    let mut connection = PgConnectOptions::from_str(url)?.connect().await?;
    // This connection writes nothing but bindings: theirs is the loss of up to a second when the database's machine dies.
    sqlx::raw_sql("SET synchronous_commit = off").execute(&mut connection).await?;
    sqlx::raw_sql(POSTGRES_SESSION).execute(&mut connection).await?;
    Ok(connection)
}

fn drivers() {
    static DRIVERS: Once = Once::new();
    DRIVERS.call_once(sqlx::any::install_default_drivers);
}

fn postgres_options(url: &str) -> Result<PgConnectOptions, OpenError> {
    PgConnectOptions::from_str(url).map_err(OpenError::Database)
}

fn sqlite_file(folder: &Path, name: &str) -> Result<SqliteConnectOptions, OpenError> {
    make_folder(folder)?;
    let path = folder.join(name);
    // Made here and not by SQLite, for its mode: secrets are in it. Its journal files inherit the mode. One that is there is not opened:
    // closing any handle of a file gives back this process's locks on it, SQLite's too.
    match OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path) {
        Err(why) if why.kind() != ErrorKind::AlreadyExists => return Err(OpenError::Folder(why)),
        _ => {}
    }
    Ok(SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(5))
        .journal_mode(SqliteJournalMode::Wal))
}

fn make_folder(folder: &Path) -> Result<(), OpenError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(OpenError::Folder)
}

async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, OpenError> {
    options.connect().await.map_err(OpenError::Database)
}

fn migrator(steps: &[(i64, &'static str, &'static str)]) -> Migrator {
    let steps = steps.iter().map(|&(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(steps.collect())
}

/// A statement that hangs behind another node's lock must not hold the queue for ever.
const POSTGRES_SESSION: &str =
    "SET statement_timeout = '10s'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '30s'";

const STORE_FILE: &str = "store.db";
const SMS_FILE: &str = "sms.db";

type Steps = [(i64, &'static str, &'static str)];

const SQLITE: &Steps = &[
    (1, "first", include_str!("migrations/sqlite/0001_first.sql")),
    (2, "registration", include_str!("migrations/sqlite/0002_registration.sql")),
    (3, "history", include_str!("migrations/sqlite/0003_history.sql")),
];
const SQLITE_BINDINGS: &Steps = &[(1, "first", include_str!("migrations/sqlite_bindings/0001_first.sql"))];
const SQLITE_SMS: &Steps = &[
    (1, "first", include_str!("migrations/sqlite_sms/0001_first.sql")),
    (2, "scheduled", include_str!("migrations/sqlite_sms/0002_scheduled.sql")),
];
const POSTGRES: &Steps = &[
    (1, "first", include_str!("migrations/postgres/0001_first.sql")),
    (2, "cluster", include_str!("migrations/postgres/0002_cluster.sql")),
    (3, "sms", include_str!("migrations/postgres/0003_sms.sql")),
    (4, "registration", include_str!("migrations/postgres/0004_registration.sql")),
    (5, "presence", include_str!("migrations/postgres/0005_presence.sql")),
    (6, "sms_scheduled", include_str!("migrations/postgres/0006_sms_scheduled.sql")),
    (7, "history", include_str!("migrations/postgres/0007_history.sql")),
];
