//! Bindings on PostgreSQL: a row each, which any node may read and write; a group is one statement.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::TryStreamExt;
use sip_ims::ports::{BindingChange, BindingRow, StoreError};
use sqlx::{Connection, PgConnection, Row};

use super::codec::Records;
use super::log::Unwritten;
use crate::store::engine;

pub struct Table {
    url: String,
    /// `None` after an error: a new one is made for the next call.
    connection: Option<PgConnection>,
    swept: Instant,
}

impl Table {
    pub async fn open(url: &str) -> Result<Table, sqlx::Error> {
        let connection = engine::connect_postgres_bindings(url).await?;
        Ok(Table { url: url.to_owned(), connection: Some(connection), swept: Instant::now() })
    }

    /// Commits a group whole.
    pub async fn commit(&mut self, changes: Vec<u8>) -> Result<(), Unwritten> {
        // Twice: a connection that idled may have died, and two nodes may have locked rows crosswise.
        let mut result = self.try_commit(&changes).await;
        if result.is_err() {
            result = self.try_commit(&changes).await;
        }
        result.map_err(|error| (StoreError::engine(error), changes))
    }

    async fn try_commit(&mut self, changes: &[u8]) -> Result<(), sqlx::Error> {
        let connection = self.connected().await?;
        let result = write(connection, changes).await;
        self.checked(result)
    }

    /// Lends each binding.
    pub async fn load(&mut self, each: Box<dyn FnMut(BindingRow<'_>) + Send>) -> Result<u64, StoreError> {
        let connection = self.connected().await.map_err(StoreError::engine)?;
        let result = read(connection, each).await;
        self.checked(result).map_err(StoreError::engine)
    }

    /// PostgreSQL syncs by itself, within three rounds of its log writer (0.6 s); what is left is to clear away what nobody removed.
    pub async fn sweep(&mut self) -> Result<(), StoreError> {
        if self.swept.elapsed() < SWEEP {
            return Ok(());
        }
        self.swept = Instant::now();
        let before = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64) - EXPIRED_FOR;
        let connection = self.connected().await.map_err(StoreError::engine)?;
        let result = sqlx::query("DELETE FROM binding WHERE expires_at < $1").bind(before).execute(connection).await;
        self.checked(result).map(drop).map_err(StoreError::engine)
    }

    pub async fn close(self) {
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the bindings' connection did not close");
        }
    }

    async fn connected(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => tokio::time::timeout(CONNECT, engine::connect_postgres_bindings(&self.url))
                .await
                .map_err(|_| sqlx::Error::PoolTimedOut)??,
        };
        Ok(self.connection.insert(connection))
    }

    fn checked<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if result.is_err() {
            self.connection = None;
        }
        result
    }
}

/// One binding's last state in a group: its row, or gone.
type Group<'a> = BTreeMap<(&'a str, &'a str), Option<(BindingRow<'a>, &'a [u8])>>;

async fn write(connection: &mut PgConnection, changes: &[u8]) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // A row may be written once in a statement: the last change of the group counts. Sorted, so that two nodes lock in one order.
    let mut group = Group::new();
    // Encoded by this process a moment ago: every record reads.
    for (change, record) in Records::new(changes).map_while(Result::ok) {
        match change {
            BindingChange::Put(row) => drop(group.insert((row.aor, row.key), Some((row, record)))),
            BindingChange::Remove { aor, key } => drop(group.insert((aor, key), None)),
            BindingChange::RemoveAll { aor } => {
                flush(&mut transaction, &mut group).await?;
                sqlx::query("DELETE FROM binding WHERE aor = $1").bind(aor).execute(&mut *transaction).await?;
            }
        }
    }
    flush(&mut transaction, &mut group).await?;
    transaction.commit().await
}

async fn flush(transaction: &mut PgConnection, group: &mut Group<'_>) -> Result<(), sqlx::Error> {
    let (mut aors, mut keys, mut nodes, mut expiries, mut bodies) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut gone_aors, mut gone_keys) = (Vec::new(), Vec::new());
    for ((aor, key), state) in std::mem::take(group) {
        match state {
            Some((row, record)) => {
                aors.push(aor);
                keys.push(key);
                nodes.push(row.node);
                expiries.push(row.expires_at);
                bodies.push(record);
            }
            None => {
                gone_aors.push(aor);
                gone_keys.push(key);
            }
        }
    }
    if !gone_aors.is_empty() {
        sqlx::query("DELETE FROM binding WHERE (aor, key) IN (SELECT * FROM UNNEST($1::text[], $2::text[]))")
            .bind(&gone_aors)
            .bind(&gone_keys)
            .execute(&mut *transaction)
            .await?;
    }
    if !aors.is_empty() {
        sqlx::query(UPSERT)
            .bind(&aors)
            .bind(&keys)
            .bind(&nodes)
            .bind(&expiries)
            .bind(&bodies)
            .execute(&mut *transaction)
            .await?;
    }
    Ok(())
}

async fn read(
    connection: &mut PgConnection,
    mut each: Box<dyn FnMut(BindingRow<'_>) + Send>,
) -> Result<u64, sqlx::Error> {
    let mut count = 0;
    let mut rows = sqlx::query("SELECT body FROM binding").fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let body: &[u8] = row.try_get(0)?;
        match Records::new(body).next() {
            Some(Ok((BindingChange::Put(row), _))) => {
                count += 1;
                each(row);
            }
            _ => tracing::error!("a binding's row is damaged and passed over"),
        }
    }
    Ok(count)
}

const UPSERT: &str = "INSERT INTO binding (aor, key, node, expires_at, body) \
    SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[]) \
    ON CONFLICT (aor, key) DO UPDATE SET node = excluded.node, expires_at = excluded.expires_at, body = excluded.body";
/// How often expired rows are cleared away.
const SWEEP: Duration = Duration::from_secs(600);
/// Seconds after which an expired binding that nobody removed is cleared away; clocks may have jumped.
const EXPIRED_FOR: i64 = 86_400;
/// Longest wait for a new connection.
const CONNECT: Duration = Duration::from_secs(5);
