//! Bindings (and presence state) on PostgreSQL: a row each, which any node may read and write; a group is one statement.
//!
//! With each group goes a row of `binding_change` that names the addresses-of-record in it, numbered by the process that wrote it:
//! a process commits its groups one after the other, so whoever has seen a number has seen all before it, which numbers of one
//! sequence for all would not give. Other nodes read on from the last number they know of each process, and then the bindings themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::TryStreamExt;
use sip_ims::ports::StoreError;
use sqlx::{Connection, PgConnection, Row};

use super::codec::{Change, Records, Row as Kept};
use super::log::Unwritten;
use super::{EachOwner, EachRow};
use crate::store::engine;

/// The statements on one family of tables: `NAME`, `NAME_origin` and `NAME_change`.
pub struct Tables {
    beat: &'static str,
    sweep: [&'static str; 3],
    last_changes: &'static str,
    of_owners: &'static str,
    all: &'static str,
    changes: &'static str,
    enter_change: &'static str,
    remove_owner: &'static str,
    remove: &'static str,
    forget: &'static str,
    upsert: &'static str,
}

macro_rules! tables {
    ($name:literal) => {
        Tables {
            beat: concat!(
                "INSERT INTO ", $name, "_origin (origin, node, at) VALUES ($1, $2, $3) \
                 ON CONFLICT (origin) DO UPDATE SET at = excluded.at"
            ),
            sweep: [
                concat!("DELETE FROM ", $name, " WHERE expires_at < $1"),
                concat!("DELETE FROM ", $name, "_change WHERE at < $1"),
                concat!("DELETE FROM ", $name, "_origin WHERE at < $1"),
            ],
            last_changes: concat!("SELECT origin, max(sequence) FROM ", $name, "_change GROUP BY origin"),
            of_owners: concat!("SELECT body FROM ", $name, " WHERE aor = ANY($1)"),
            all: concat!("SELECT body FROM ", $name),
            // Every process but ours that says it is there, and what it changed after what we have seen.
            changes: concat!(
                "SELECT c.origin, c.sequence, c.aors FROM ", $name, "_origin o \
                 LEFT JOIN UNNEST($2::bigint[], $3::bigint[]) AS seen (origin, last) ON seen.origin = o.origin \
                 CROSS JOIN LATERAL (SELECT b.origin, b.sequence, b.aors FROM ", $name, "_change b \
                     WHERE b.origin = o.origin AND b.sequence > COALESCE(seen.last, 0) ORDER BY b.sequence LIMIT 64) c \
                 WHERE o.origin <> $1 ORDER BY c.origin, c.sequence"
            ),
            enter_change: concat!("INSERT INTO ", $name, "_change (origin, sequence, at, aors) VALUES ($1, $2, $3, $4)"),
            remove_owner: concat!("DELETE FROM ", $name, " WHERE aor = $1"),
            remove: concat!(
                "DELETE FROM ", $name, " WHERE (aor, key) IN (SELECT * FROM UNNEST($1::text[], $2::text[]))"
            ),
            forget: concat!(
                "DELETE FROM ", $name,
                " WHERE (aor, key, node) IN (SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[]))"
            ),
            upsert: concat!(
                "INSERT INTO ", $name, " (aor, key, node, expires_at, body) \
                 SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[]) \
                 ON CONFLICT (aor, key) DO UPDATE SET node = excluded.node, expires_at = excluded.expires_at, \
                 body = excluded.body"
            ),
        }
    };
}

pub const BINDING: Tables = tables!("binding");
pub const PRESENCE: Tables = tables!("presence");

pub struct Table {
    tables: &'static Tables,
    url: String,
    /// `None` after an error: a new one is made for the next call.
    connection: Option<PgConnection>,
    swept: Instant,
    node: String,
    /// Names this process among all that write.
    origin: i64,
    /// Of our last change.
    sequence: i64,
    /// The last change seen of each other process; those that are gone for good go with the next [`Table::load`].
    seen: HashMap<i64, i64>,
    beaten: Option<Instant>,
}

impl Table {
    pub async fn open(url: &str, node: &str, tables: &'static Tables) -> Result<Table, sqlx::Error> {
        let connection = engine::connect_postgres_bindings(url).await?;
        let mut table = Table {
            tables,
            url: url.to_owned(),
            connection: Some(connection),
            swept: Instant::now(),
            node: node.to_owned(),
            origin: rand::random::<i64>(),
            sequence: 0,
            seen: HashMap::new(),
            beaten: None,
        };
        table.beat().await?;
        Ok(table)
    }

    /// Commits a group whole. Gives its buffer back.
    pub async fn commit(&mut self, changes: Vec<u8>) -> Result<Vec<u8>, Unwritten> {
        // Twice: a connection that idled may have died, and two nodes may have locked rows crosswise.
        let mut result = self.try_commit(&changes).await;
        if result.is_err() {
            result = self.try_commit(&changes).await;
        }
        match result {
            Ok(()) => Ok(changes),
            Err(error) => Err((StoreError::engine(error), changes)),
        }
    }

    async fn try_commit(&mut self, changes: &[u8]) -> Result<(), sqlx::Error> {
        self.sequence += 1;
        let (number, tables) = ((self.origin, self.sequence), self.tables);
        let connection = self.connected().await?;
        let result = write(connection, tables, changes, number).await;
        self.checked(result)
    }

    /// Lends each row.
    pub async fn load(&mut self, each: EachRow) -> Result<u64, StoreError> {
        let tables = self.tables;
        let connection = self.connected().await.map_err(StoreError::engine)?;
        // First: what is written meanwhile is then seen twice and not never.
        let result = match last_changes(connection, tables).await {
            Ok(seen) => read(connection, tables, each).await.map(|count| (seen, count)),
            Err(error) => Err(error),
        };
        let (seen, count) = self.checked(result).map_err(StoreError::engine)?;
        self.seen = seen;
        Ok(count)
    }

    /// Lends what other processes have changed since the last call, and what stands in `also`.
    pub async fn changed(&mut self, also: Vec<Box<str>>, each: EachOwner) -> Result<u64, StoreError> {
        let result = self.try_changed(also, each).await;
        self.checked(result).map_err(StoreError::engine)
    }

    async fn try_changed(&mut self, also: Vec<Box<str>>, mut each: EachOwner) -> Result<u64, sqlx::Error> {
        self.beat().await?;
        let mut aors: BTreeSet<Box<str>> = also.into_iter().collect();
        let mut seen = self.seen.clone();
        let (origin, tables) = (self.origin, self.tables);
        let connection = self.connected().await?;
        for _ in 0..MAX_PAGES {
            let (origins, last): (Vec<i64>, Vec<i64>) = seen.iter().map(|(o, s)| (*o, *s)).unzip();
            let rows =
                sqlx::query(tables.changes).bind(origin).bind(&origins).bind(&last).fetch_all(&mut *connection).await?;
            for row in &rows {
                seen.insert(row.try_get(0)?, row.try_get(1)?);
                aors.extend(row.try_get::<Vec<String>, _>(2)?.into_iter().map(Box::from));
            }
            if rows.is_empty() {
                break;
            }
        }
        if !aors.is_empty() {
            lend(connection, tables, &aors, &mut each).await?;
        }
        self.seen = seen;
        Ok(aors.len() as u64)
    }

    /// Says now and then that this process is there, so that others look at its changes.
    async fn beat(&mut self) -> Result<(), sqlx::Error> {
        if self.beaten.is_some_and(|at| at.elapsed() < BEAT) {
            return Ok(());
        }
        let (origin, node, tables) = (self.origin, self.node.clone(), self.tables);
        let connection = self.connected().await?;
        sqlx::query(tables.beat).bind(origin).bind(node).bind(unix_now()).execute(connection).await?;
        self.beaten = Some(Instant::now());
        Ok(())
    }

    /// PostgreSQL syncs by itself, within three rounds of its log writer (0.6 s); what is left is to clear away what nobody removed.
    pub async fn sweep(&mut self) -> Result<(), StoreError> {
        if self.swept.elapsed() < SWEEP {
            return Ok(());
        }
        self.swept = Instant::now();
        let tables = self.tables;
        let connection = self.connected().await.map_err(StoreError::engine)?;
        let result = sweep(connection, tables, unix_now()).await;
        self.checked(result).map_err(StoreError::engine)
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

async fn sweep(connection: &mut PgConnection, tables: &Tables, now: i64) -> Result<(), sqlx::Error> {
    for (statement, kept_for) in tables.sweep.into_iter().zip([EXPIRED_FOR, CHANGE_FOR, ORIGIN_FOR]) {
        let before = now - kept_for;
        sqlx::query(statement).bind(before).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The last change of each process.
async fn last_changes(connection: &mut PgConnection, tables: &Tables) -> Result<HashMap<i64, i64>, sqlx::Error> {
    let rows = sqlx::query(tables.last_changes).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Shows each address-of-record with all its rows.
async fn lend(
    connection: &mut PgConnection,
    tables: &Tables,
    aors: &BTreeSet<Box<str>>,
    each: &mut EachOwner,
) -> Result<(), sqlx::Error> {
    let names: Vec<&str> = aors.iter().map(|a| &**a).collect();
    for page in names.chunks(AORS_AT_ONCE) {
        let rows = sqlx::query(tables.of_owners).bind(page).fetch_all(&mut *connection).await?;
        let mut by_aor: BTreeMap<&str, Vec<Kept<'_>>> = page.iter().map(|aor| (*aor, Vec::new())).collect();
        for row in &rows {
            let Some(Ok((Change::Put(row), _))) = Records::new(row.try_get(0)?).next() else { continue };
            by_aor.entry(row.owner()).or_default().push(row);
        }
        by_aor.into_iter().for_each(|(aor, rows)| each(aor, rows));
    }
    Ok(())
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// What becomes of one binding in a group.
#[expect(clippy::large_enum_variant, reason = "most are rows")]
enum State<'a> {
    Row(Kept<'a>, &'a [u8]),
    Gone,
    /// Gone, if this node wrote it last.
    Forgotten(&'a str),
}

/// Each binding's last state in a group.
type Group<'a> = BTreeMap<(&'a str, &'a str), State<'a>>;

async fn write(
    connection: &mut PgConnection,
    tables: &Tables,
    changes: &[u8],
    number: (i64, i64),
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let mut aors = BTreeSet::new();
    // A row may be written once in a statement: the last change of the group counts. Sorted, so that two nodes lock in one order.
    let mut group = Group::new();
    // Encoded by this process a moment ago: every record reads.
    for (change, record) in Records::new(changes).map_while(Result::ok) {
        match change {
            Change::Put(row) => {
                aors.insert(row.owner());
                group.insert((row.owner(), row.key()), State::Row(row, record));
            }
            Change::Remove { owner, key } => {
                aors.insert(owner);
                group.insert((owner, key), State::Gone);
            }
            Change::Forget { owner, key, node } => {
                aors.insert(owner);
                group.insert((owner, key), State::Forgotten(node));
            }
            Change::RemoveAll { owner } => {
                aors.insert(owner);
                flush(&mut transaction, tables, &mut group).await?;
                sqlx::query(tables.remove_owner).bind(owner).execute(&mut *transaction).await?;
            }
        }
    }
    flush(&mut transaction, tables, &mut group).await?;
    let aors: Vec<&str> = aors.into_iter().collect();
    sqlx::query(tables.enter_change)
        .bind(number.0)
        .bind(number.1)
        .bind(unix_now())
        .bind(&aors)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

async fn flush(transaction: &mut PgConnection, tables: &Tables, group: &mut Group<'_>) -> Result<(), sqlx::Error> {
    let (mut aors, mut keys, mut nodes, mut expiries, mut bodies) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut gone_aors, mut gone_keys) = (Vec::new(), Vec::new());
    let (mut left_aors, mut left_keys, mut left_nodes) = (Vec::new(), Vec::new(), Vec::new());
    for ((aor, key), state) in std::mem::take(group) {
        match state {
            State::Row(row, record) => {
                aors.push(aor);
                keys.push(key);
                nodes.push(row.node());
                expiries.push(row.expires_at());
                bodies.push(record);
            }
            State::Gone => {
                gone_aors.push(aor);
                gone_keys.push(key);
            }
            State::Forgotten(node) => {
                left_aors.push(aor);
                left_keys.push(key);
                left_nodes.push(node);
            }
        }
    }
    if !gone_aors.is_empty() {
        sqlx::query(tables.remove).bind(&gone_aors).bind(&gone_keys).execute(&mut *transaction).await?;
    }
    if !left_aors.is_empty() {
        sqlx::query(tables.forget)
            .bind(&left_aors)
            .bind(&left_keys)
            .bind(&left_nodes)
            .execute(&mut *transaction)
            .await?;
    }
    if !aors.is_empty() {
        sqlx::query(tables.upsert)
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

async fn read(connection: &mut PgConnection, tables: &Tables, mut each: EachRow) -> Result<u64, sqlx::Error> {
    let mut count = 0;
    let mut rows = sqlx::query(tables.all).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let body: &[u8] = row.try_get(0)?;
        match Records::new(body).next() {
            Some(Ok((Change::Put(row), _))) => {
                count += 1;
                each(row);
            }
            _ => tracing::error!("a binding's row is damaged and passed over"),
        }
    }
    Ok(count)
}

/// Pages of changes read at once; the rest comes with the next call.
const MAX_PAGES: usize = 64;
/// Addresses-of-record whose rows are read at once.
const AORS_AT_ONCE: usize = 512;
/// How often a process says that it is there.
const BEAT: Duration = Duration::from_secs(60);
/// Seconds for which changes stay: a node that is cut off from the database for longer hears of the bindings with their next refresh.
const CHANGE_FOR: i64 = 600;
/// Seconds after which a process that says nothing is no longer asked.
const ORIGIN_FOR: i64 = 3600;
/// How often expired rows and old changes are cleared away.
const SWEEP: Duration = Duration::from_secs(120);
/// Seconds after which an expired binding that nobody removed is cleared away; clocks may have jumped.
const EXPIRED_FOR: i64 = 86_400;
/// Longest wait for a new connection.
const CONNECT: Duration = Duration::from_secs(5);
