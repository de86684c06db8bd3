//! The provisioned users, and the sequence of their changes.

use std::sync::Arc;

use sip_ims::User;
use sip_ims::ports::{Done, StoreError, UserChange, UserStore};
use sip_ims::user::MAX_ID;
use sqlx::{AnyConnection, Row, query, raw_sql};

use super::{Outcome, SqlStore, check_text, next_sequence, refuse};

impl UserStore for SqlStore {
    fn put(&self, users: Vec<User>, done: Done<()>) {
        let mut rows = Vec::with_capacity(users.len());
        for user in users {
            match Stored::new(&user) {
                Ok(row) => rows.push(row),
                Err(error) => return refuse(done, error),
            }
        }
        let weight = rows.iter().map(|r| r.profile.len() + 256).sum();
        self.writer.submit(weight, done, async move |c: &mut AnyConnection| put(c, &rows).await);
    }

    fn remove(&self, id: &str, done: Done<bool>) {
        let id = id.to_owned();
        self.writer.submit(id.len(), done, async move |c: &mut AnyConnection| {
            let sequence = next_sequence(c, "account").await?;
            // Whoever gets the name next has said none of it.
            query("DELETE FROM history WHERE owner = (SELECT aor FROM account WHERE id = $1)")
                .bind(id.as_str())
                .execute(&mut *c)
                .await?;
            let gone = query(
                "UPDATE account SET sequence = $2, aor = '', msisdn = '', profile = '' WHERE id = $1 AND profile <> ''",
            )
            .bind(id.as_str())
            .bind(sequence)
            .execute(c)
            .await?;
            Ok(Ok(gone.rows_affected() > 0))
        });
    }

    fn changes(&self, after: u64, limit: u32, done: Done<Vec<UserChange>>) {
        self.reader.submit(0, done, async move |c: &mut AnyConnection| {
            let rows =
                query("SELECT sequence, id, profile FROM account WHERE sequence > $1 ORDER BY sequence LIMIT $2")
                    .bind(after as i64)
                    .bind(i64::from(limit))
                    .fetch_all(c)
                    .await?;
            let mut changes = Vec::with_capacity(rows.len());
            for row in rows {
                let id: Arc<str> = row.try_get::<String, _>(1)?.into();
                let profile: String = row.try_get(2)?;
                let user = match profile.as_str() {
                    "" => None,
                    json => match serde_json::from_str(json) {
                        Ok(user) => Some(user),
                        Err(_) => return Ok(Err(StoreError::Damaged)),
                    },
                };
                changes.push(UserChange { sequence: row.try_get::<i64, _>(0)? as u64, id, user });
            }
            Ok(Ok(changes))
        });
    }
}

/// A user as its row.
struct Stored {
    id: Arc<str>,
    aor: String,
    /// Empty: none.
    msisdn: String,
    /// JSON.
    profile: String,
}

impl Stored {
    fn new(user: &User) -> Result<Stored, StoreError> {
        if user.id.is_empty() || user.id.len() > MAX_ID {
            return Err(StoreError::TooLarge);
        }
        check_text(&[&user.id])?;
        Ok(Stored {
            id: user.id.clone(),
            aor: user.aor.to_string(),
            msisdn: user.msisdn.map(|n| n.to_string()).unwrap_or_default(),
            profile: serde_json::to_string(user).map_err(StoreError::engine)?,
        })
    }
}

/// Writes all rows, or none: an address may move from one user to another within the same call, so conflicts are looked for at the end.
async fn put(connection: &mut AnyConnection, rows: &[Stored]) -> Outcome<()> {
    raw_sql("SAVEPOINT users").execute(&mut *connection).await?;
    for row in rows {
        let sequence = next_sequence(connection, "account").await?;
        // An unchanged user is not a change: an import that is repeated wakes nobody.
        query(
            "INSERT INTO account (id, sequence, aor, msisdn, profile) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (id) DO UPDATE SET sequence = excluded.sequence, aor = excluded.aor, msisdn = excluded.msisdn, \
             profile = excluded.profile WHERE account.profile <> excluded.profile",
        )
        .bind(&*row.id)
        .bind(sequence)
        .bind(row.aor.as_str())
        .bind(row.msisdn.as_str())
        .bind(row.profile.as_str())
        .execute(&mut *connection)
        .await?;
    }
    for row in rows {
        // Two questions, each by its index: most users have no number, and an OR would look at all of those.
        let address = "SELECT id FROM account WHERE aor = $1 AND id <> $2 LIMIT 1";
        let number = "SELECT id FROM account WHERE msisdn = $1 AND id <> $2 LIMIT 1";
        for (question, value) in [(address, &row.aor), (number, &row.msisdn)] {
            if value.is_empty() {
                continue;
            }
            let other = query(question).bind(value.as_str()).bind(&*row.id).fetch_optional(&mut *connection).await?;
            if other.is_some() {
                raw_sql("ROLLBACK TO SAVEPOINT users").execute(connection).await?;
                return Ok(Err(StoreError::Conflict));
            }
        }
    }
    raw_sql("RELEASE SAVEPOINT users").execute(connection).await?;
    Ok(Ok(()))
}
