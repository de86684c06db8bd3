//! Statements over many rows: `(VALUES (…), (…), …)` is understood by both engines, prepared once for each power of two rows.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;

use gw_sms::queue::{Origin, Part, Segment, SegmentId, SentAs, State, Verdict};
use sip_ims::Msisdn;
use sip_ims::ports::StoreError;
use siphasher::sip::SipHasher13;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row, query};

use crate::store::Engine;

/// A statement around its list of rows.
pub struct Batch {
    before: &'static str,
    columns: usize,
    after: &'static str,
}

pub const INSERT: Batch = Batch {
    before: "INSERT INTO sms_segment \
        (id, client, msn, reqid, part, parts, rank, flags, digest, state, owner, expires_at, due, body) VALUES ",
    columns: 14,
    after: " ON CONFLICT DO NOTHING",
};

/// Whatever happened to a segment, in one shape: id, state, due, attempts, verdict, done_at, sent_key, sent_as. State 4 stands for "not
/// cancelled"; attempts below 0 stay what they are. What is over stays as it is.
pub const MARK: Batch = Batch {
    before: "UPDATE sms_segment SET \
        state = CASE WHEN v.column2 = 4 THEN 2 WHEN state = 3 AND v.column2 < 3 THEN 3 ELSE v.column2 END, \
        owner = 0, due = v.column3, attempts = CASE WHEN v.column4 < 0 THEN attempts ELSE v.column4 END, \
        verdict = v.column5, done_at = v.column6, sent_key = v.column7, sent_as = v.column8, \
        body = CASE WHEN v.column2 >= 8 THEN substr(body, 1, 0) ELSE body END \
        FROM (VALUES ",
    columns: 8,
    after: ") AS v WHERE sms_segment.id = v.column1 AND sms_segment.state < 8",
};

/// Which of these numbers have something that waits for its time, and until when.
pub const HELD: Batch = Batch {
    before: "SELECT s.msn, max(s.due) FROM (VALUES ",
    columns: 1,
    after: ") AS v JOIN sms_segment s ON s.msn = v.column1 AND s.state = 1 GROUP BY s.msn",
};

/// Which of these ids are there.
pub const PRESENT: Batch =
    Batch { before: "SELECT s.id FROM (VALUES ", columns: 1, after: ") AS v JOIN sms_segment s ON s.id = v.column1" };

/// When these were over.
pub const DONE_AT: Batch = Batch {
    before: "SELECT s.id, s.done_at FROM (VALUES ",
    columns: 1,
    after: ") AS v JOIN sms_segment s ON s.id = v.column1 WHERE s.state >= 8",
};

pub const BY_ID: Batch = Batch {
    before: "SELECT s.id, s.client, s.msn, s.reqid, s.parts, s.rank, s.flags, s.expires_at FROM (VALUES ",
    columns: 1,
    after: ") AS v JOIN sms_segment s ON s.id = v.column1",
};

pub const BY_SENT_KEY: Batch = Batch {
    before: "SELECT s.id, s.client, s.msn, s.reqid, s.parts, s.rank, s.flags, s.expires_at, s.sent_as FROM (VALUES ",
    columns: 1,
    after: ") AS v JOIN sms_segment s ON s.sent_key = v.column1 AND s.sent_key <> 0",
};

/// Locks requests by their first segments, so that two nodes do not each see the other's half unfinished.
pub const LOCK: Batch = Batch {
    before: "UPDATE sms_segment SET parts = parts FROM (VALUES ",
    columns: 1,
    after: ") AS v WHERE sms_segment.id = v.column1",
};

/// Every segment of these requests, by their first ones' ids.
pub const WHOLE: Batch = Batch {
    before: "SELECT s.id, s.state, s.verdict, s.flags, s.done_at FROM (VALUES ",
    columns: 1,
    after: ") AS v JOIN sms_segment s ON s.id >= v.column1 AND s.id < v.column1 + 16 ORDER BY s.id",
};

pub const COUNT: Batch = Batch {
    before: "INSERT INTO sms_total (day, client, verdict, requests, segments) VALUES ",
    columns: 5,
    after: " ON CONFLICT (day, client, verdict) DO UPDATE SET \
        requests = sms_total.requests + excluded.requests, segments = sms_total.segments + excluded.segments",
};

pub const NOTICE: Batch = Batch {
    before: "INSERT INTO sms_notice \
        (id, client, msn, reqid, verdict, delivered, cancelled, parts, cancel, done_at, due) VALUES ",
    columns: 11,
    after: " ON CONFLICT DO NOTHING",
};

pub const NOTICE_DONE: Batch = Batch {
    before: "DELETE FROM sms_notice WHERE id IN (SELECT v.column1 FROM (VALUES ",
    columns: 1,
    after: ") AS v)",
};

pub type Bound<'q> = Query<'q, Any, AnyArguments>;

/// The texts that were made so far: one for each batch and power of two up to [`LARGEST`].
pub struct Texts {
    /// PostgreSQL wants its parameters numbered. SQLite keeps numbered ones in a list, and to bind one it goes through the list:
    /// with some thousands of them that was half of all that a message costs. So there they have no numbers.
    numbered: bool,
    made: HashMap<(&'static str, usize), Arc<str>>,
}

impl Texts {
    pub fn new(engine: &Engine) -> Texts {
        Texts { numbered: matches!(engine, Engine::Postgres(_)), made: HashMap::new() }
    }

    fn of(&mut self, batch: &Batch, rows: usize) -> Arc<str> {
        let made = self.made.entry((batch.before, rows)).or_insert_with(|| {
            let mut text = batch.before.to_owned();
            let mut n = 0;
            for row in 0..rows {
                text.push_str(if row == 0 { "(" } else { ", (" });
                for column in 0..batch.columns {
                    n += 1;
                    text.push_str(if column == 0 { "" } else { ", " });
                    if self.numbered {
                        text.push('$');
                        text.push_str(&n.to_string());
                    } else {
                        text.push('?');
                    }
                }
                text.push(')');
            }
            text.push_str(batch.after);
            text.into()
        });
        made.clone()
    }

    /// Runs a statement over all rows, in pieces; gives the number of rows affected.
    pub async fn execute<T>(
        &mut self,
        connection: &mut AnyConnection,
        batch: &Batch,
        rows: &[T],
        bind: impl Fn(Bound<'static>, &T) -> Bound<'static>,
    ) -> Result<u64, sqlx::Error> {
        let mut affected = 0;
        for piece in pieces(rows) {
            let statement = query(AssertSqlSafe(self.of(batch, piece.len())));
            let bound = piece.iter().fold(statement, &bind);
            affected += bound.execute(&mut *connection).await?.rows_affected();
        }
        Ok(affected)
    }

    /// Runs a question over all rows, in pieces.
    pub async fn fetch<T>(
        &mut self,
        connection: &mut AnyConnection,
        batch: &Batch,
        rows: &[T],
        bind: impl Fn(Bound<'static>, &T) -> Bound<'static>,
    ) -> Result<Vec<AnyRow>, sqlx::Error> {
        let mut found = Vec::new();
        for piece in pieces(rows) {
            let statement = query(AssertSqlSafe(self.of(batch, piece.len())));
            let bound = piece.iter().fold(statement, &bind);
            found.extend(bound.fetch_all(&mut *connection).await?);
        }
        Ok(found)
    }
}

/// Slices whose lengths are powers of two, the largest first: few texts, and few statements.
fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = LARGEST.min(1 << rows.len().checked_ilog2()?);
        let (piece, rest) = rows.split_at(size);
        rows = rest;
        Some(piece)
    })
}

/// Rows in one statement. SQLite takes 32,766 values, PostgreSQL 65,535.
const LARGEST: usize = 512;

/// What [`BY_ID`] and its like select first.
pub fn origin(row: &AnyRow) -> Result<Result<(SegmentId, Arc<Origin>), StoreError>, sqlx::Error> {
    let number = |n: usize| row.try_get::<i64, _>(n);
    let Some(msn) = msisdn(number(2)?) else { return Ok(Err(StoreError::Damaged)) };
    let origin = Origin {
        client: row.try_get::<&str, _>(1)?.into(),
        msn,
        reqid: row.try_get::<&str, _>(3)?.into(),
        parts: number(4)? as u8,
        rank: number(5)? as u8,
        flags: number(6)? as u8,
        expires_at: number(7)?,
    };
    Ok(Ok((SegmentId(number(0)?), Arc::new(origin))))
}

/// [`origin`], then attempts and body.
pub fn segment(row: &AnyRow) -> Result<Result<Segment, StoreError>, sqlx::Error> {
    let part = Part::from_bytes(row.try_get(9)?);
    Ok(match (origin(row)?, part) {
        (Ok((id, origin)), Ok(part)) => {
            Ok(Segment { id, origin, attempts: row.try_get::<i64, _>(8)?.clamp(0, 65_535) as u16, part })
        }
        _ => Err(StoreError::Damaged),
    })
}

pub fn msisdn(digits: i64) -> Option<Msisdn> {
    format!("+{digits}").parse().ok()
}

pub fn state(number: i64) -> State {
    // Written by this version or an older one; a newer store is not opened.
    State::from_number(number).unwrap_or(State::Failed)
}

pub fn verdict(number: i64) -> Verdict {
    Verdict(number.clamp(0, 65_535) as u16)
}

/// `link/id`; link names hold no slash.
pub fn sent_as_text(name: &SentAs) -> String {
    format!("{}/{}", name.link, name.message_id)
}

pub fn sent_as(text: &str) -> Option<SentAs> {
    let (link, message_id) = text.split_once('/')?;
    Some(SentAs { link: link.into(), message_id: message_id.into() })
}

/// The same for every spelling of a name, and never 0. Two names may share one: whoever looks by it compares the name.
///
/// Most centres count their messages. So an id of digits is its own key, and those of one link that are given one after the other stand side by side in the
/// index: a commit writes some of its pages instead of one for each message.
pub fn sent_key(name: &SentAs) -> i64 {
    let name = name.key();
    let mut hasher = SipHasher13::new_with_key(b"isthmus sms sent");
    hasher.write(name.link.as_bytes());
    let counted = u64::from_str_radix(&name.message_id, 16).ok().filter(|_| name.message_id.len() <= COUNTED / 4);
    match counted {
        Some(count) => (hasher.finish() >> (COUNTED + 1) << COUNTED | count).max(1) as i64,
        None => {
            hasher.write(b"/");
            hasher.write(name.message_id.as_bytes());
            hasher.finish() as i64 | 1
        }
    }
}

/// Bits of a centre's count.
const COUNTED: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_powers_of_two_and_cover_everything() {
        let sizes = |n: usize| pieces(&vec![0; n]).map(<[i32]>::len).collect::<Vec<_>>();
        assert!(sizes(0).is_empty());
        assert_eq!(sizes(7), [4, 2, 1]);
        assert_eq!(sizes(1100), [512, 512, 64, 8, 4]);
    }

    #[test]
    fn ids_that_are_counted_stand_side_by_side() {
        let key = |link: &str, id: &str| sent_key(&SentAs { link: link.into(), message_id: id.into() });
        assert_eq!((key("a", "0000A1"), key("a", "a2")), (key("a", "a1"), key("a", "a1") + 1));
        assert!(key("a", "999999999") < key("a", "1000000000"));
        assert_ne!(key("a", "1"), key("b", "1"));
        let long = "0123456789abcdef0123456789abcdef";
        assert_ne!(key("a", long), key("a", &long.replace('0', "1")));
        for id in ["", "0", "x", long] {
            assert_ne!(key("a", id), 0, "{id}");
        }
    }

    #[test]
    fn texts_number_their_values_through_where_numbers_are_wanted() {
        let text = |engine| Texts::new(&engine).of(&COUNT, 2);
        let numbered = text(Engine::Postgres(String::new()));
        assert!(numbered.contains("VALUES ($1, $2, $3, $4, $5), ($6, $7, $8, $9, $10) ON"), "{numbered}");
        let plain = text(Engine::Sqlite(std::path::PathBuf::new()));
        assert!(plain.contains("VALUES (?, ?, ?, ?, ?), (?, ?, ?, ?, ?) ON"), "{plain}");
    }
}
