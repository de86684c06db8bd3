//! Push clients, API clients and lines, and the sequence of their changes.

use gw_sms::registry::{Change, Entry, Kind, MAX_CLIENTS_OF_NUMBER, Registrations};
use sip_ims::ports::{Done, StoreError};
use sqlx::{AnyConnection, Row, query, raw_sql};

use super::{Outcome, SqlStore, check_text, next_sequence, refuse};

impl Registrations for SqlStore {
    fn put(&self, entries: Vec<Entry>, done: Done<()>) {
        if let Some(error) = entries.iter().find_map(|e| check_text(&[&e.key, &e.body]).err()) {
            return refuse(done, error);
        }
        let weight = entries.iter().map(|e| e.body.len() + 8 * e.numbers.len() + 64).sum();
        self.writer.submit(weight, done, async move |c: &mut AnyConnection| put(c, &entries).await);
    }

    fn remove(&self, kind: Kind, key: &str, done: Done<bool>) {
        let key = key.to_owned();
        self.writer.submit(key.len(), done, async move |c: &mut AnyConnection| {
            let sequence = next_sequence(c, "registration").await?;
            let gone =
                query("UPDATE registration SET sequence = $3, body = '' WHERE kind = $1 AND key = $2 AND body <> ''")
                    .bind(kind.as_str())
                    .bind(key.as_str())
                    .bind(sequence)
                    .execute(&mut *c)
                    .await?;
            if kind == Kind::PushClient {
                query("DELETE FROM registration_number WHERE xpid = $1").bind(key.as_str()).execute(c).await?;
            }
            Ok(Ok(gone.rows_affected() > 0))
        });
    }

    fn changes(&self, after: u64, limit: u32, done: Done<Vec<Change>>) {
        self.reader.submit(0, done, async move |c: &mut AnyConnection| {
            let rows = query(
                "SELECT sequence, kind, key, body FROM registration WHERE sequence > $1 ORDER BY sequence LIMIT $2",
            )
            .bind(after as i64)
            .bind(i64::from(limit))
            .fetch_all(c)
            .await?;
            let mut changes = Vec::with_capacity(rows.len());
            for row in rows {
                let Some(kind) = Kind::from_name(row.try_get(1)?) else { return Ok(Err(StoreError::Damaged)) };
                let body = Some(row.try_get::<String, _>(3)?).filter(|b| !b.is_empty());
                changes.push(Change { sequence: row.try_get::<i64, _>(0)? as u64, kind, key: row.try_get(2)?, body });
            }
            Ok(Ok(changes))
        });
    }
}

/// Writes all entries, or none. The counter's row, locked from the first entry to the commit, keeps two transactions from each
/// counting nine clients of a number.
async fn put(c: &mut AnyConnection, entries: &[Entry]) -> Outcome<()> {
    raw_sql("SAVEPOINT registrations").execute(&mut *c).await?;
    for entry in entries {
        let sequence = next_sequence(c, "registration").await?;
        // An unchanged entry is not a change: an import that is repeated wakes nobody.
        query(
            "INSERT INTO registration (kind, key, sequence, body) VALUES ($1, $2, $3, $4) ON CONFLICT (kind, key) \
             DO UPDATE SET sequence = excluded.sequence, body = excluded.body WHERE registration.body <> excluded.body",
        )
        .bind(entry.kind.as_str())
        .bind(entry.key.as_str())
        .bind(sequence)
        .bind(entry.body.as_str())
        .execute(&mut *c)
        .await?;
        if entry.kind == Kind::PushClient {
            query("DELETE FROM registration_number WHERE xpid = $1").bind(entry.key.as_str()).execute(&mut *c).await?;
            for msn in &entry.numbers {
                query("INSERT INTO registration_number (msn, xpid) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                    .bind(msn.as_u64() as i64)
                    .bind(entry.key.as_str())
                    .execute(&mut *c)
                    .await?;
            }
        }
    }
    // At the end: a number may move from one client to another within one call.
    for entry in entries.iter().filter(|e| e.kind == Kind::PushClient) {
        let crowded = query(
            "SELECT msn FROM registration_number WHERE msn IN (SELECT msn FROM registration_number WHERE xpid = $1) \
             GROUP BY msn HAVING count(*) > $2 LIMIT 1",
        )
        .bind(entry.key.as_str())
        .bind(MAX_CLIENTS_OF_NUMBER as i64)
        .fetch_optional(&mut *c)
        .await?;
        if crowded.is_some() {
            raw_sql("ROLLBACK TO SAVEPOINT registrations").execute(c).await?;
            return Ok(Err(StoreError::OverQuota));
        }
    }
    raw_sql("RELEASE SAVEPOINT registrations").execute(c).await?;
    Ok(Ok(()))
}
