//! Messages that wait for their addressee.

use std::str::FromStr;

use sip_ims::Aor;
use sip_ims::ports::{Done, MAX_QUEUED_MESSAGE, MessageId, MessageQueue, QueuedMessage, StoreError};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row, query};

use super::{Outcome, SqlStore, refuse};

impl MessageQueue for SqlStore {
    fn put(&self, message: QueuedMessage, done: Done<MessageId>) {
        if message.body.len() > MAX_QUEUED_MESSAGE {
            return refuse(done, StoreError::TooLarge);
        }
        let cap = i64::from(self.messages_per_user);
        self.writer.submit(message.body.len(), done, async move |c: &mut AnyConnection| insert(c, &message, cap).await);
    }

    fn pending(&self, aor: &Aor, after: MessageId, limit: u32, done: Done<Vec<(MessageId, QueuedMessage)>>) {
        let aor = aor.clone();
        self.reader
            .submit(aor.as_str().len(), done, async move |c: &mut AnyConnection| pending(c, &aor, after, limit).await);
    }

    fn claim(&self, aor: &Aor, now: i64, until: i64, done: Done<bool>) {
        let Some(node) = self.node.clone() else { return done(Ok(true)) };
        let aor = aor.clone();
        self.writer.submit(aor.as_str().len(), done, async move |c: &mut AnyConnection| {
            // Who holds it may renew it; others get it once it has run out.
            let taken = query(
                "INSERT INTO message_lease (aor, node, until) VALUES ($1, $2, $3) ON CONFLICT (aor) DO UPDATE \
                 SET node = excluded.node, until = excluded.until WHERE message_lease.node = $2 OR message_lease.until <= $4",
            )
            .bind(aor.as_str())
            .bind(node.as_str())
            .bind(until)
            .bind(now)
            .execute(c)
            .await?;
            Ok(Ok(taken.rows_affected() > 0))
        });
    }

    fn release(&self, aor: &Aor) {
        let Some(node) = self.node.clone() else { return };
        let aor = aor.clone();
        // A lease that stays runs out.
        self.writer.submit(aor.as_str().len(), Box::new(|_| {}), async move |c: &mut AnyConnection| {
            query("DELETE FROM message_lease WHERE aor = $1 AND node = $2")
                .bind(aor.as_str())
                .bind(node.as_str())
                .execute(c)
                .await?;
            Ok(Ok(()))
        });
    }

    fn addressees(&self, after: &str, limit: u32, done: Done<Vec<Aor>>) {
        let after = after.to_owned();
        self.reader.submit(after.len(), done, async move |c: &mut AnyConnection| addressees(c, &after, limit).await);
    }

    fn remove(&self, id: MessageId, done: Done<bool>) {
        self.writer.submit(0, done, async move |c: &mut AnyConnection| {
            let gone = query("DELETE FROM message WHERE id = $1").bind(id.0 as i64).execute(c).await?;
            Ok(Ok(gone.rows_affected() > 0))
        });
    }

    fn overdue(&self, now: i64, after: MessageId, limit: u32, done: Done<Vec<(MessageId, QueuedMessage)>>) {
        self.reader.submit(0, done, async move |c: &mut AnyConnection| overdue(c, now, after, limit).await);
    }

    fn expire(&self, now: i64, done: Done<u64>) {
        self.writer.submit(0, done, async move |c: &mut AnyConnection| {
            let gone = query("DELETE FROM message WHERE expires_at < $1").bind(now).execute(c).await?;
            Ok(Ok(gone.rows_affected()))
        });
    }
}

async fn insert(connection: &mut AnyConnection, message: &QueuedMessage, cap: i64) -> Outcome<MessageId> {
    let stored = query(
        "INSERT INTO message (aor, key, expires_at, body) SELECT $1, $2, $3, $4 \
         WHERE (SELECT count(*) FROM message WHERE aor = $1) < $5 ON CONFLICT (aor, key) DO NOTHING RETURNING id",
    )
    .bind(message.aor.as_str())
    .bind(message.key.as_slice())
    .bind(message.expires_at)
    .bind(message.body.as_slice())
    .bind(cap)
    .fetch_optional(&mut *connection)
    .await?;
    let row = match stored {
        Some(row) => Some(row),
        None => {
            query("SELECT id FROM message WHERE aor = $1 AND key = $2")
                .bind(message.aor.as_str())
                .bind(message.key.as_slice())
                .fetch_optional(connection)
                .await?
        }
    };
    match row {
        Some(row) => Ok(Ok(MessageId(row.try_get::<i64, _>(0)? as u64))),
        None => Ok(Err(StoreError::OverQuota)),
    }
}

async fn addressees(connection: &mut AnyConnection, after: &str, limit: u32) -> Outcome<Vec<Aor>> {
    let rows = query("SELECT DISTINCT aor FROM message WHERE aor > $1 ORDER BY aor LIMIT $2")
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let Ok(aor) = Aor::from_str(row.try_get(0)?) else { return Ok(Err(StoreError::Damaged)) };
        found.push(aor);
    }
    Ok(Ok(found))
}

async fn pending(
    connection: &mut AnyConnection,
    aor: &Aor,
    after: MessageId,
    limit: u32,
) -> Outcome<Vec<(MessageId, QueuedMessage)>> {
    let rows =
        query("SELECT id, aor, key, expires_at, body FROM message WHERE aor = $1 AND id > $2 ORDER BY id LIMIT $3")
            .bind(aor.as_str())
            .bind(after.0 as i64)
            .bind(i64::from(limit))
            .fetch_all(connection)
            .await?;
    messages(&rows)
}

async fn overdue(
    connection: &mut AnyConnection,
    now: i64,
    after: MessageId,
    limit: u32,
) -> Outcome<Vec<(MessageId, QueuedMessage)>> {
    let rows = query(
        "SELECT id, aor, key, expires_at, body FROM message WHERE expires_at < $1 AND id > $2 ORDER BY id LIMIT $3",
    )
    .bind(now)
    .bind(after.0 as i64)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    messages(&rows)
}

fn messages(rows: &[AnyRow]) -> Outcome<Vec<(MessageId, QueuedMessage)>> {
    let mut messages = Vec::with_capacity(rows.len());
    for row in rows {
        let Ok(aor) = Aor::from_str(row.try_get(1)?) else { return Ok(Err(StoreError::Damaged)) };
        let Ok(key) = row.try_get::<&[u8], _>(2)?.try_into() else { return Ok(Err(StoreError::Damaged)) };
        let message = QueuedMessage { aor, key, expires_at: row.try_get(3)?, body: row.try_get(4)? };
        messages.push((MessageId(row.try_get::<i64, _>(0)? as u64), message));
    }
    Ok(Ok(messages))
}
