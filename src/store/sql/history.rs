//! Users' histories of messages.

use sip_ims::Aor;
use sip_ims::history::{HistoryEntry, HistoryId, HistoryPart, HistoryStore, check};
use sip_ims::ports::{Done, StoreError};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row, query};

use super::{Outcome, SqlStore, refuse};

impl HistoryStore for SqlStore {
    fn put(&self, entries: Vec<HistoryEntry>, cap: Option<u32>, done: Done<()>) {
        if let Some(error) = entries.iter().find_map(|entry| check(entry).err()) {
            return refuse(done, error);
        }
        let weight = entries.iter().map(|entry| entry.body.len()).sum();
        self.writer.submit(weight, done, async move |c: &mut AnyConnection| {
            for entry in &entries {
                insert(c, entry).await?;
                if let Some(cap) = cap {
                    trim(c, &entry.owner, cap).await?;
                }
            }
            Ok(Ok(()))
        });
    }

    fn page(
        &self,
        part: HistoryPart,
        before: Option<(i64, HistoryId)>,
        limit: u32,
        done: Done<Vec<(HistoryId, HistoryEntry)>>,
    ) {
        self.reader.submit(0, done, async move |c: &mut AnyConnection| page(c, &part, before, limit).await);
    }

    fn remove(&self, part: HistoryPart, done: Done<u64>) {
        self.writer.submit(0, done, async move |c: &mut AnyConnection| {
            let HistoryPart { owner, peer, since, until, id } = &part;
            let gone = query(
                "DELETE FROM history WHERE owner = $1 AND at >= $2 AND at < $3 \
                 AND ($4 = '' OR peer = $4) AND ($5 < 0 OR id = $5)",
            )
            .bind(owner.as_str())
            .bind(*since)
            .bind(*until)
            .bind(peer.as_deref().unwrap_or_default())
            .bind(id.map_or(-1, |id| id.0 as i64))
            .execute(c)
            .await?;
            Ok(Ok(gone.rows_affected()))
        });
    }

    fn expire(&self, now: i64, limit: u32, done: Done<u64>) {
        self.writer.submit(0, done, async move |c: &mut AnyConnection| {
            let gone = query(
                "DELETE FROM history WHERE id IN (SELECT id FROM history WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)",
            )
            .bind(now)
            .bind(i64::from(limit))
            .execute(c)
            .await?;
            Ok(Ok(gone.rows_affected()))
        });
    }
}

async fn insert(connection: &mut AnyConnection, entry: &HistoryEntry) -> Result<(), sqlx::Error> {
    query(
        "INSERT INTO history (owner, key, at, expires_at, peer, speaker, outgoing, media_type, message_id, body) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (owner, key) DO NOTHING",
    )
    .bind(entry.owner.as_str())
    .bind(entry.key.as_slice())
    .bind(entry.at)
    .bind(entry.expires_at)
    .bind(entry.peer.as_str())
    .bind(entry.speaker.as_str())
    .bind(i64::from(entry.outgoing))
    .bind(entry.media_type.as_str())
    .bind(entry.message_id.as_str())
    .bind(entry.body.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

/// The oldest go, beyond so many. `LIMIT`: SQLite has no `OFFSET` without one.
async fn trim(connection: &mut AnyConnection, owner: &Aor, cap: u32) -> Result<(), sqlx::Error> {
    query(
        "DELETE FROM history WHERE id IN \
         (SELECT id FROM history WHERE owner = $1 ORDER BY at DESC, id DESC LIMIT 1000000000 OFFSET $2)",
    )
    .bind(owner.as_str())
    .bind(i64::from(cap))
    .execute(connection)
    .await?;
    Ok(())
}

async fn page(
    connection: &mut AnyConnection,
    part: &HistoryPart,
    before: Option<(i64, HistoryId)>,
    limit: u32,
) -> Outcome<Vec<(HistoryId, HistoryEntry)>> {
    let HistoryPart { owner, peer, since, until, id } = part;
    let (at, last) = before.map_or((i64::MAX, i64::MAX), |(at, id)| (at, id.0 as i64));
    let rows = query(
        "SELECT id, key, at, expires_at, peer, speaker, outgoing, media_type, message_id, body FROM history \
         WHERE owner = $1 AND at >= $2 AND at < $3 AND (at < $4 OR at = $4 AND id < $5) \
         AND ($6 = '' OR peer = $6) AND ($7 < 0 OR id = $7) ORDER BY at DESC, id DESC LIMIT $8",
    )
    .bind(owner.as_str())
    .bind(*since)
    .bind((*until).min(at.saturating_add(1)))
    .bind(at)
    .bind(last)
    .bind(peer.as_deref().unwrap_or_default())
    .bind(id.map_or(-1, |id| id.0 as i64))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        match entry(owner, row)? {
            Some(entry) => found.push(entry),
            None => return Ok(Err(StoreError::Damaged)),
        }
    }
    Ok(Ok(found))
}

fn entry(owner: &Aor, row: &AnyRow) -> Result<Option<(HistoryId, HistoryEntry)>, sqlx::Error> {
    let Ok(key) = row.try_get::<&[u8], _>(1)?.try_into() else { return Ok(None) };
    let entry = HistoryEntry {
        owner: owner.clone(),
        key,
        at: row.try_get(2)?,
        expires_at: row.try_get(3)?,
        peer: row.try_get(4)?,
        speaker: row.try_get(5)?,
        outgoing: row.try_get::<i64, _>(6)? != 0,
        media_type: row.try_get(7)?,
        message_id: row.try_get(8)?,
        body: row.try_get(9)?,
    };
    Ok(Some((HistoryId(row.try_get::<i64, _>(0)? as u64), entry)))
}
