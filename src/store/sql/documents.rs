//! Versioned documents.

use rand::Rng;
use sip_ims::ports::{Document, Documents, Done, Expect, MAX_DOCUMENT, StoreError, Version};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row, query};

use super::{Outcome, SqlStore, check_text, refuse};

impl Documents for SqlStore {
    fn get(&self, collection: &str, key: &str, done: Done<Option<Document>>) {
        let (collection, key) = (collection.to_owned(), key.to_owned());
        self.reader.submit(key.len(), done, async move |c: &mut AnyConnection| {
            let row = query("SELECT key, version, body FROM document WHERE collection = $1 AND key = $2")
                .bind(collection.as_str())
                .bind(key.as_str())
                .fetch_optional(c)
                .await?;
            Ok(Ok(row.map(document).transpose()?))
        });
    }

    fn put(&self, collection: &str, key: &str, expect: Expect, body: Vec<u8>, done: Done<Version>) {
        if body.len() > MAX_DOCUMENT {
            return refuse(done, StoreError::TooLarge);
        }
        if let Err(error) = check_text(&[collection, key]) {
            return refuse(done, error);
        }
        let (collection, key) = (collection.to_owned(), key.to_owned());
        self.writer.submit(body.len() + key.len(), done, async move |c: &mut AnyConnection| {
            put(c, &collection, &key, expect, &body).await
        });
    }

    fn delete(&self, collection: &str, key: &str, expect: Expect, done: Done<()>) {
        let (collection, key) = (collection.to_owned(), key.to_owned());
        self.writer
            .submit(key.len(), done, async move |c: &mut AnyConnection| delete(c, &collection, &key, expect).await);
    }

    fn list(&self, collection: &str, after: &str, limit: u32, done: Done<Vec<Document>>) {
        let (collection, after) = (collection.to_owned(), after.to_owned());
        self.reader.submit(after.len(), done, async move |c: &mut AnyConnection| {
            let rows = query(
                "SELECT key, version, body FROM document WHERE collection = $1 AND key > $2 ORDER BY key LIMIT $3",
            )
            .bind(collection.as_str())
            .bind(after.as_str())
            .bind(i64::from(limit))
            .fetch_all(c)
            .await?;
            Ok(Ok(rows.into_iter().map(document).collect::<Result<_, _>>()?))
        });
    }

    fn count(&self, collection: &str, done: Done<u64>) {
        let collection = collection.to_owned();
        self.reader.submit(collection.len(), done, async move |c: &mut AnyConnection| {
            let row = query("SELECT COUNT(*) FROM document WHERE collection = $1")
                .bind(collection.as_str())
                .fetch_one(c)
                .await?;
            Ok(Ok(row.try_get::<i64, _>(0)?.unsigned_abs()))
        });
    }

    fn versions(&self, collection: &str, after: &str, limit: u32, done: Done<Vec<(String, Version)>>) {
        let (collection, after) = (collection.to_owned(), after.to_owned());
        self.reader.submit(after.len(), done, async move |c: &mut AnyConnection| {
            let rows =
                query("SELECT key, version FROM document WHERE collection = $1 AND key > $2 ORDER BY key LIMIT $3")
                    .bind(collection.as_str())
                    .bind(after.as_str())
                    .bind(i64::from(limit))
                    .fetch_all(c)
                    .await?;
            let one = |row: AnyRow| Ok((row.try_get(0)?, Version(row.try_get::<i64, _>(1)? as u64)));
            Ok(Ok(rows.into_iter().map(one).collect::<Result<_, sqlx::Error>>()?))
        });
    }
}

async fn put(
    connection: &mut AnyConnection,
    collection: &str,
    key: &str,
    expect: Expect,
    body: &[u8],
) -> Outcome<Version> {
    // Drawn, not counted: nodes need not agree on a counter, and a document that is made again cannot get an old version.
    let version = rand::rng().random_range(1..=i64::MAX);
    let statement = match expect {
        Expect::Anything => {
            "INSERT INTO document (collection, key, version, body) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (collection, key) DO UPDATE SET version = excluded.version, body = excluded.body"
        }
        Expect::Absent => {
            "INSERT INTO document (collection, key, version, body) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
        }
        Expect::Version(_) => {
            "UPDATE document SET version = $3, body = $4 WHERE collection = $1 AND key = $2 AND version = $5"
        }
    };
    let mut statement = query(statement).bind(collection).bind(key).bind(version).bind(body);
    if let Expect::Version(Version(old)) = expect {
        statement = statement.bind(old as i64);
    }
    let written = statement.execute(connection).await?.rows_affected();
    Ok(if written == 1 { Ok(Version(version as u64)) } else { Err(StoreError::Conflict) })
}

async fn delete(connection: &mut AnyConnection, collection: &str, key: &str, expect: Expect) -> Outcome<()> {
    let found = query("SELECT version FROM document WHERE collection = $1 AND key = $2")
        .bind(collection)
        .bind(key)
        .fetch_optional(&mut *connection)
        .await?;
    let found = found.map(|row| row.try_get::<i64, _>(0)).transpose()?;
    let version = match (expect, found) {
        (Expect::Anything | Expect::Absent, None) => return Ok(Ok(())),
        (Expect::Anything, Some(version)) => version,
        (Expect::Version(Version(old)), Some(version)) if version == old as i64 => version,
        _ => return Ok(Err(StoreError::Conflict)),
    };
    let gone = query("DELETE FROM document WHERE collection = $1 AND key = $2 AND version = $3")
        .bind(collection)
        .bind(key)
        .bind(version)
        .execute(connection)
        .await?;
    Ok(if gone.rows_affected() == 1 || expect == Expect::Anything { Ok(()) } else { Err(StoreError::Conflict) })
}

fn document(row: AnyRow) -> Result<Document, sqlx::Error> {
    Ok(Document { key: row.try_get(0)?, version: Version(row.try_get::<i64, _>(1)? as u64), body: row.try_get(2)? })
}
