//! Bindings (and presence state) on SQLite: a log of changes, one row a commit, with an index of what is current in memory.
//!
//! A row per binding would cost a refresh two written pages and their checkpoint. Here a commit appends its whole group as one blob, at about the cost
//! of copying it, and the log is kept short from its old end: when it is more than four times what is current, the oldest segments'
//! current records are written again with the next commit and the segments are dropped. See docs/decisions.
//!
//! Segments are dropped strictly oldest first, so a removal's record may go with its segment: nothing older is left that it hid.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::TryStreamExt;
use sip_ims::ports::StoreError;
use smallvec::SmallVec;
use sqlx::{Connection, Row, SqliteConnection};

use super::EachRow;
use super::codec::{Change, Records, Row as Kept};
use crate::store::{OpenError, engine};

pub struct Log {
    connection: SqliteConnection,
    index: Index,
}

/// A group that was not committed, and why.
pub type Unwritten = (StoreError, Vec<u8>);

impl Log {
    pub async fn open(folder: &Path, file: &str) -> Result<Log, OpenError> {
        let mut connection = engine::connect_sqlite_log(folder, file).await?;
        let mut index = Index::default();
        let mut rows = sqlx::query("SELECT sequence, changes FROM segment ORDER BY sequence").fetch(&mut connection);
        while let Some(row) = rows.try_next().await.map_err(OpenError::Database)? {
            let sequence: i64 = row.try_get(0).map_err(OpenError::Database)?;
            index.append(sequence as u64, row.try_get(1).map_err(OpenError::Database)?);
        }
        drop(rows);
        Ok(Log { connection, index })
    }

    /// Commits `changes` as the newest segment, behind what is carried over from the oldest ones. Gives their buffer back.
    pub async fn commit(&mut self, mut changes: Vec<u8>) -> Result<Vec<u8>, Unwritten> {
        let carried = match self.carry_over(changes.len() as u64).await {
            Ok(carried) => carried,
            Err(error) => return Err((error, changes)),
        };
        let (mut segment, from) = (carried.records, carried.from);
        let own = segment.len();
        if own == 0 {
            std::mem::swap(&mut segment, &mut changes);
        } else {
            segment.extend_from_slice(&changes);
        }
        // Shared with the statement, so that the bytes come back without a copy.
        let segment = Arc::new(segment);
        let sequence = self.index.next();
        if let Err(error) = self.write(sequence, segment.clone(), from).await {
            // Rolling back what never began is an error of no interest.
            let _ = sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await;
            return Err((StoreError::engine(error), Arc::unwrap_or_clone(segment).split_off(own)));
        }
        self.index.append(sequence, &segment);
        if let Some(oldest) = from {
            self.index.drop_through(oldest, &carried.expired);
        }
        Ok(if own == 0 { Arc::try_unwrap(segment).unwrap_or_default() } else { changes })
    }

    async fn write(&mut self, sequence: u64, segment: Arc<Vec<u8>>, oldest: Option<u64>) -> Result<(), sqlx::Error> {
        const INSERT: &str = "INSERT INTO segment (sequence, changes) VALUES ($1, $2)";
        let Some(oldest) = oldest else {
            sqlx::query(INSERT).bind(sequence as i64).bind(segment).execute(&mut self.connection).await?;
            return Ok(());
        };
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        sqlx::query("DELETE FROM segment WHERE sequence <= $1")
            .bind(oldest as i64)
            .execute(&mut self.connection)
            .await?;
        sqlx::query(INSERT).bind(sequence as i64).bind(segment).execute(&mut self.connection).await?;
        sqlx::raw_sql("COMMIT").execute(&mut self.connection).await?;
        Ok(())
    }

    /// The current records of as many oldest segments as should go with this commit.
    async fn carry_over(&mut self, incoming: u64) -> Result<Carried, StoreError> {
        let mut carried = Carried { records: Vec::new(), expired: Vec::new(), from: None };
        let mut excess = (self.index.total + incoming).saturating_sub(KEPT * self.index.live + SLACK);
        // A step at a time: most commits stay a single statement.
        if excess < CARRY_STEP {
            return Ok(carried);
        }
        // As much as comes in plus two steps: the log shrinks faster than it grows, and no commit takes long.
        let mut budget = incoming + 2 * CARRY_STEP;
        let dropped_before = now() - EXPIRED_FOR;
        for segment in &self.index.segments {
            if excess == 0 {
                break;
            }
            if segment.live > 0 {
                // The first one goes whatever its size, or a large one would stop the log from ever shrinking.
                if budget < segment.total && carried.from.is_some() {
                    break;
                }
                let row = sqlx::query("SELECT changes FROM segment WHERE sequence = $1")
                    .bind(segment.sequence as i64)
                    .fetch_one(&mut self.connection)
                    .await
                    .map_err(StoreError::engine)?;
                let changes: &[u8] = row.try_get(0).map_err(StoreError::engine)?;
                self.index.current(segment.sequence, changes, |hashes, row, record| {
                    if row.expires_at() >= dropped_before {
                        carried.records.extend_from_slice(record);
                    } else {
                        carried.expired.push(hashes);
                    }
                });
                budget = budget.saturating_sub(segment.total);
            }
            excess = excess.saturating_sub(segment.total);
            carried.from = Some(segment.sequence);
        }
        Ok(carried)
    }

    /// Lends each current row.
    pub async fn load(&mut self, mut each: EachRow) -> Result<u64, StoreError> {
        let mut count = 0;
        let mut rows =
            sqlx::query("SELECT sequence, changes FROM segment ORDER BY sequence").fetch(&mut self.connection);
        while let Some(row) = rows.try_next().await.map_err(StoreError::engine)? {
            let sequence: i64 = row.try_get(0).map_err(StoreError::engine)?;
            let changes: &[u8] = row.try_get(1).map_err(StoreError::engine)?;
            self.index.current(sequence as u64, changes, |_, row, _| {
                count += 1;
                each(row.clone());
            });
        }
        Ok(count)
    }

    /// Syncs every commit so far, by a checkpoint: it syncs the write-ahead log first, then the file.
    pub async fn sync(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(&mut self.connection)
            .await
            .map_err(StoreError::engine)?;
        Ok(())
    }

    pub async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::error!(%error, "the bindings' file did not close");
        }
    }
}

/// What goes from the oldest segments into the newest.
struct Carried {
    records: Vec<u8>,
    /// Long expired, and left behind.
    expired: Vec<Hashes>,
    /// The last segment that is not needed any more.
    from: Option<u64>,
}

/// Of an address-of-record and of a key.
type Hashes = (u64, u64);

/// Which record of which segment is the current one of each binding.
///
/// Address-of-record and key are kept as 64-bit hashes under secret keys: that two bindings of one address-of-record, or two
/// addresses, meet is less likely than a bad disk, and nobody outside can arrange it.
#[derive(Default)]
struct Index {
    hasher: RandomState,
    bindings: HashMap<u64, SmallVec<[Place; 1]>, Plain>,
    segments: VecDeque<Segment>,
    /// Bytes of all segments, and of the current records among them.
    total: u64,
    live: u64,
}

struct Segment {
    sequence: u64,
    total: u64,
    live: u64,
}

/// Where the current record of one binding is, and how long it is: sequence << 20 | length.
#[derive(Clone, Copy)]
struct Place {
    key: u64,
    at: u64,
}

impl Place {
    fn sequence(self) -> u64 {
        self.at >> LENGTH_BITS
    }

    fn length(self) -> u64 {
        self.at & ((1 << LENGTH_BITS) - 1)
    }
}

impl Index {
    fn next(&self) -> u64 {
        self.segments.back().map_or(1, |last| last.sequence + 1)
    }

    /// Takes in a committed segment. What cannot be read in it is left out: bindings come again with the next refresh, and a
    /// server that does not start because of one would not see it.
    fn append(&mut self, sequence: u64, changes: &[u8]) {
        let total = changes.len() as u64;
        self.segments.push_back(Segment { sequence, total, live: 0 });
        self.total += total;
        for record in Records::new(changes) {
            let Ok((change, record)) = record else {
                tracing::error!(sequence, "a segment of the bindings' log is damaged; the rest of it is passed over");
                break;
            };
            match change {
                Change::Put(row) => self.put(row.owner(), row.key(), sequence, record.len() as u64),
                // The file belongs to one node.
                Change::Remove { owner, key } | Change::Forget { owner, key, .. } => self.remove(owner, key),
                Change::RemoveAll { owner } => {
                    let places = self.bindings.remove(&self.hasher.hash_one(owner)).unwrap_or_default();
                    places.into_iter().for_each(|place| self.count_off(place));
                }
            }
        }
    }

    fn put(&mut self, aor: &str, key: &str, sequence: u64, length: u64) {
        let place = Place { key: self.hasher.hash_one(key), at: sequence << LENGTH_BITS | length };
        let places = self.bindings.entry(self.hasher.hash_one(aor)).or_default();
        let old = match places.iter_mut().find(|p| p.key == place.key) {
            Some(old) => Some(std::mem::replace(old, place)),
            None => {
                places.push(place);
                None
            }
        };
        if let Some(old) = old {
            self.count_off(old);
        }
        self.live += length;
        if let Some(last) = self.segments.back_mut() {
            last.live += length;
        }
    }

    fn remove(&mut self, aor: &str, key: &str) {
        self.remove_through(u64::MAX, (self.hasher.hash_one(aor), self.hasher.hash_one(key)));
    }

    /// Removes a binding if its current record is in a segment up to `oldest`.
    fn remove_through(&mut self, oldest: u64, (aor, key): Hashes) {
        let Some(places) = self.bindings.get_mut(&aor) else { return };
        let Some(at) = places.iter().position(|p| p.key == key && p.sequence() <= oldest) else { return };
        let place = places.swap_remove(at);
        if places.is_empty() {
            self.bindings.remove(&aor);
        }
        self.count_off(place);
    }

    fn count_off(&mut self, place: Place) {
        self.live -= place.length();
        if let Ok(at) = self.segments.binary_search_by_key(&place.sequence(), |s| s.sequence) {
            self.segments[at].live -= place.length();
        }
    }

    /// Lends the records of a segment that are the current ones, each once.
    fn current<'a>(&self, sequence: u64, changes: &'a [u8], mut each: impl FnMut(Hashes, &Kept<'a>, &'a [u8])) {
        // A binding may have been written twice in one segment: the last record counts.
        let mut last = HashMap::<Hashes, (Kept<'a>, &'a [u8]), Plain>::default();
        // A damaged rest was reported when the segment was taken in.
        for (change, record) in Records::new(changes).map_while(Result::ok) {
            let Change::Put(row) = change else { continue };
            let (aor, key) = (self.hasher.hash_one(row.owner()), self.hasher.hash_one(row.key()));
            let place = self.bindings.get(&aor).and_then(|places| places.iter().find(|p| p.key == key));
            if place.is_some_and(|p| p.sequence() == sequence) {
                last.insert((aor, key), (row, record));
            }
        }
        last.iter().for_each(|(hashes, (row, record))| each(*hashes, row, record));
    }

    /// Forgets the segments up to `oldest` and the bindings that expired there; the others have their place in a newer one.
    fn drop_through(&mut self, oldest: u64, expired: &[Hashes]) {
        for hashes in expired {
            self.remove_through(oldest, *hashes);
        }
        while let Some(segment) = self.segments.pop_front_if(|s| s.sequence <= oldest) {
            self.total -= segment.total;
        }
    }
}

/// The keys are hashes already.
#[derive(Clone, Default)]
struct Plain;

impl BuildHasher for Plain {
    type Hasher = PlainHasher;

    fn build_hasher(&self) -> PlainHasher {
        PlainHasher(0)
    }
}

struct PlainHasher(u64);

impl std::hash::Hasher for PlainHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = self.0.rotate_left(17) ^ hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Unix seconds.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// A record is at most 16 KiB and its head.
const LENGTH_BITS: u32 = 20;
/// Bytes by which the log must be too long before it is shortened, and of old segments read again with one commit beside.
const CARRY_STEP: u64 = 512 * 1024;
/// The log may be this many times its current records, and [`SLACK`]. The longer it is, the fewer records of its oldest
/// segment are still current and must be written again: of refreshes at random a third at 2, a twentieth at 4.
const KEPT: u64 = 4;
/// Bytes.
const SLACK: u64 = 4 * 1024 * 1024;
/// Seconds after which an expired binding that nobody removed is not carried over any more; the clock may have jumped.
const EXPIRED_FOR: i64 = 86_400;

#[cfg(test)]
mod tests {
    use sip_ims::ports::{BindingChange, BindingRow};

    use super::*;
    use crate::store::binding::codec::{self, tests::row};

    fn batch(changes: &[BindingChange<'_>]) -> Vec<u8> {
        let mut batch = Vec::new();
        changes.iter().for_each(|c| codec::encode(&c.clone().into(), &mut batch).unwrap());
        batch
    }

    fn current(index: &Index, sequence: u64, changes: &[u8]) -> Vec<String> {
        let mut keys = Vec::new();
        index.current(sequence, changes, |_, row, _| {
            let row = row.clone().binding().unwrap();
            keys.push(format!("{} {} {}", row.aor, row.key, row.cseq));
        });
        keys.sort();
        keys
    }

    #[test]
    fn only_the_last_record_of_a_binding_is_current() {
        let mut index = Index::default();
        let first = batch(&[BindingChange::Put(row("a", "1")), BindingChange::Put(row("a", "2"))]);
        let second = batch(&[
            BindingChange::Put(BindingRow { cseq: 8, ..row("a", "1") }),
            BindingChange::Put(BindingRow { cseq: 9, ..row("a", "1") }),
        ]);
        index.append(1, &first);
        index.append(2, &second);
        assert_eq!(current(&index, 1, &first), ["a 2 7"]);
        assert_eq!(current(&index, 2, &second), ["a 1 9"]);
        assert_eq!(index.live, (first.len() / 2 + second.len() / 2) as u64);
    }

    #[test]
    fn what_was_removed_is_not_current() {
        let mut index = Index::default();
        let first = batch(&[
            BindingChange::Put(row("a", "1")),
            BindingChange::Put(row("a", "2")),
            BindingChange::Put(row("b", "1")),
        ]);
        index.append(1, &first);
        index.append(2, &batch(&[BindingChange::Remove { aor: "b", key: "1" }]));
        assert_eq!(current(&index, 1, &first), ["a 1 7", "a 2 7"]);
        index.append(3, &batch(&[BindingChange::RemoveAll { aor: "a" }]));
        assert!(current(&index, 1, &first).is_empty());
        assert_eq!((index.live, index.bindings.len()), (0, 0));
    }

    #[test]
    fn bindings_that_expired_in_a_dropped_segment_are_forgotten() {
        let mut index = Index::default();
        let first = batch(&[BindingChange::Put(row("a", "1")), BindingChange::Put(row("b", "1"))]);
        index.append(1, &first);
        index.append(2, &batch(&[BindingChange::Put(row("a", "1"))]));
        let mut hashes = Vec::new();
        index.current(1, &first, |h, _, _| hashes.push(h));
        index.drop_through(1, &hashes);
        assert_eq!((index.bindings.len(), index.segments.len()), (1, 1));
        assert_eq!((index.total, index.live), (first.len() as u64 / 2, first.len() as u64 / 2));
    }

    #[test]
    fn a_damaged_segment_keeps_its_readable_records() {
        let mut index = Index::default();
        let mut first = batch(&[BindingChange::Put(row("a", "1")), BindingChange::Put(row("b", "1"))]);
        first.truncate(first.len() - 3);
        index.append(1, &first);
        assert_eq!(current(&index, 1, &first), ["a 1 7"]);
    }
}
