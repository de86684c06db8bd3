//! What clients ask of requests that are there: cancellations, questions, and receipts that find their segments.

use std::sync::Arc;

use gw_sms::queue::{
    Cancel, Mark, Older, Origin, Part, Progress, Recall, Replaced, Replacement, RequestKey, SegmentId, SentAs, State,
    Status, Total, Verdict, Waiting,
};
use sip_ims::ports::StoreError;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row, query};

use super::Job;
use super::statements::{self, BY_SENT_KEY};
use super::writer::{After, Desk, accepted_at};
use crate::store::sql::finish;

/// What a job came to, until the commit.
pub(super) enum Answer {
    Cancel(Cancel),
    Supersede(u64),
    FindMany(Vec<Status>),
    Find(Result<Option<Status>, StoreError>),
    Replace(Replaced),
    SentAs(Vec<Waiting>),
    Totals(Vec<Total>),
    Nothing,
}

impl Answer {
    pub fn tell(self, job: Job) {
        match (self, job) {
            (Answer::Cancel(cancel), Job::Cancel(_, _, done)) => finish(done, Ok(cancel)),
            (Answer::Supersede(count), Job::Supersede(_, _, done)) => finish(done, Ok(count)),
            (Answer::FindMany(found), Job::FindMany(_, _, done)) => finish(done, Ok(found)),
            (Answer::Find(status), Job::Find(_, done)) => finish(done, status),
            (Answer::Replace(replaced), Job::Replace(_, _, done)) => finish(done, Ok(replaced)),
            (Answer::SentAs(found), Job::SentAs(_, done)) => finish(done, Ok(found)),
            (Answer::Totals(totals), Job::Totals(_, _, done)) => finish(done, Ok(totals)),
            (Answer::Nothing, _) => {}
            // Answers and jobs are made in pairs.
            (_, job) => job.fail(StoreError::Damaged),
        }
    }
}

/// One segment of a request, read.
struct Place {
    id: SegmentId,
    state: State,
    verdict: Verdict,
    owner: i64,
    sent_as: Option<SentAs>,
    source: Box<str>,
    /// Unix milliseconds; 0 until it is over.
    done_at: i64,
}

impl Desk {
    pub async fn job(&mut self, c: &mut AnyConnection, job: &Job, after: &mut After) -> Result<Answer, sqlx::Error> {
        Ok(match job {
            Job::Cancel(key, at, _) => Answer::Cancel(self.cancel(c, key, *at, after).await?),
            Job::Supersede(older, at, _) => Answer::Supersede(self.supersede(c, older, *at, after).await?),
            Job::FindMany(client, reqid, _) => Answer::FindMany(self.find_many(c, client, reqid).await?),
            Job::Find(key, _) => Answer::Find(Ok(self.find(c, key).await?.map(|(status, _)| status))),
            Job::Replace(key, with, _) => Answer::Replace(self.replace(c, key, with).await?),
            Job::SentAs(names, _) => Answer::SentAs(self.sent_as(c, names).await?),
            // Of what waits, there is nothing.
            Job::Wake(_) if !self.deferred => Answer::Nothing,
            Job::Wake(ranges) => {
                for (from, to) in ranges {
                    query("UPDATE sms_segment SET due = 0 WHERE msn >= $1 AND msn <= $2 AND state = 1")
                        .bind(from.as_u64() as i64)
                        .bind(to.as_u64() as i64)
                        .execute(&mut *c)
                        .await?;
                }
                Answer::Nothing
            }
            Job::Notified(id) => {
                self.notified.push(*id);
                Answer::Nothing
            }
            Job::NotifyLater { id, due, attempts } => {
                query("UPDATE sms_notice SET due = $2, attempts = $3 WHERE id = $1")
                    .bind(id.0)
                    .bind(*due)
                    .bind(i64::from(*attempts))
                    .execute(c)
                    .await?;
                Answer::Nothing
            }
            Job::Totals(from, to, _) => Answer::Totals(totals(c, from, to).await?),
        })
    }

    async fn find(
        &mut self,
        c: &mut AnyConnection,
        key: &RequestKey,
    ) -> Result<Option<(Status, Vec<Place>)>, sqlx::Error> {
        let first = query(
            "SELECT id, client, msn, reqid, parts, rank, flags, expires_at FROM sms_segment \
             WHERE msn = $1 AND reqid = $2 AND client = $3 AND part = 0",
        )
        .bind(key.msn.as_u64() as i64)
        .bind(key.reqid.to_string())
        .bind(key.client.to_string())
        .fetch_optional(&mut *c)
        .await?;
        let Some(first) = first else { return Ok(None) };
        let Ok((id, origin)) = statements::origin(&first)? else { return Ok(None) };
        let rows = query(
            "SELECT id, state, verdict, owner, sent_as, body, done_at FROM sms_segment \
             WHERE id >= $1 AND id < $1 + 16 ORDER BY id",
        )
        .bind(id.0)
        .fetch_all(c)
        .await?;
        let places: Vec<Place> = rows.iter().map(place).collect::<Result<_, _>>()?;
        let segments = places.iter().map(|p| (p.state, p.verdict)).collect();
        let done_at = places.iter().map(|p| p.done_at).max().unwrap_or(0);
        Ok(Some((Status { id, origin, accepted_at: accepted_at(id), done_at, segments }, places)))
    }

    /// In the row, and in the hands of whoever has it in memory here.
    async fn replace(
        &mut self,
        c: &mut AnyConnection,
        key: &RequestKey,
        with: &Replacement,
    ) -> Result<Replaced, sqlx::Error> {
        let Some((status, mut places)) = self.find(c, key).await? else { return Ok(Replaced::Unknown) };
        let place = match places.pop() {
            Some(place) if places.is_empty() && !status.origin.has(Origin::CANCEL) => place,
            _ => return Ok(Replaced::No),
        };
        match (place.state, place.sent_as) {
            (State::Sent, Some(name)) => return Ok(Replaced::Sent(name)),
            (State::Queued | State::Deferred | State::Scheduled, _) if place.owner == 0 => {}
            (State::Queued, _) if place.owner == self.slot && with.not_before.is_none() => {
                if !self.outlet.as_ref().is_some_and(|o| o.exchange(place.id, with)) {
                    return Ok(Replaced::Busy);
                }
            }
            (State::Queued | State::Deferred, _) => return Ok(Replaced::Busy),
            _ => return Ok(Replaced::No),
        }
        let body = query("SELECT body FROM sms_segment WHERE id = $1").bind(place.id.0).fetch_one(&mut *c).await?;
        let Ok(part) = Part::from_bytes(body.try_get(0)?) else { return Ok(Replaced::No) };
        let part = Part { short_message: with.short_message.clone(), ..part };
        query("UPDATE sms_segment SET body = $2, expires_at = $3 WHERE id = $1")
            .bind(place.id.0)
            .bind(part.to_bytes())
            .bind(with.expires_at.unwrap_or(status.origin.expires_at))
            .execute(&mut *c)
            .await?;
        if let Some(time) = with.not_before {
            query("UPDATE sms_segment SET state = 5, due = $2 WHERE id = $1")
                .bind(place.id.0)
                .bind(time)
                .execute(c)
                .await?;
            self.scheduled = true;
        }
        Ok(Replaced::Yes)
    }

    async fn cancel(
        &mut self,
        c: &mut AnyConnection,
        key: &RequestKey,
        at: i64,
        after: &mut After,
    ) -> Result<Cancel, sqlx::Error> {
        let Some((status, places)) = self.find(c, key).await? else { return Ok(Cancel::Unknown) };
        if status.origin.has(Origin::CANCEL) {
            return Ok(Cancel::Again);
        }
        if places.iter().all(|p| p.state.is_final()) {
            return Ok(Cancel::Over);
        }
        query(
            "UPDATE sms_segment SET flags = flags | 2, state = CASE WHEN state < 8 THEN 3 ELSE state END \
             WHERE id >= $1 AND id < $1 + 16",
        )
        .bind(status.id.0)
        .execute(&mut *c)
        .await?;
        self.cancelling = true;
        self.cancelled.insert(status.id);
        let origin = Arc::new(Origin { flags: status.origin.flags | Origin::CANCEL, ..(*status.origin).clone() });
        let mut over = Vec::new();
        let arrived = places.iter().any(|p| p.state == State::Delivered);
        for place in places {
            match place.state {
                // Nobody has it in hand.
                State::Queued | State::Deferred | State::Scheduled if place.owner == 0 => {
                    over.push(cancelled(place.id, &origin, at))
                }
                State::Queued | State::Deferred | State::Sent => after.recall.push(Recall {
                    id: place.id,
                    origin: origin.clone(),
                    sent_as: place.sent_as,
                    source: place.source,
                }),
                _ => {}
            }
        }
        self.change(c, &over, after).await?;
        Ok(if arrived { Cancel::Partly } else { Cancel::Taken })
    }

    async fn supersede(
        &mut self,
        c: &mut AnyConnection,
        older: &Older,
        at: i64,
        after: &mut After,
    ) -> Result<u64, sqlx::Error> {
        let rows = query(
            "SELECT reqid FROM sms_segment WHERE msn = $1 AND client = $2 AND part = 0 AND state < 8 \
             AND id < $3 AND reqid LIKE $4 ORDER BY id LIMIT 1000",
        )
        .bind(older.msn.as_u64() as i64)
        .bind(older.client.to_string())
        .bind(older.than.map_or(i64::MAX, |id| id.0))
        .bind(older.like.to_string())
        .fetch_all(&mut *c)
        .await?;
        let mut count = 0;
        for row in rows {
            let reqid = row.try_get::<&str, _>(0)?.into();
            let key = RequestKey { client: older.client.clone(), msn: older.msn, reqid };
            count += u64::from(matches!(self.cancel(c, &key, at, after).await?, Cancel::Taken | Cancel::Partly));
        }
        Ok(count)
    }

    async fn find_many(
        &mut self,
        c: &mut AnyConnection,
        client: &Arc<str>,
        reqid: &Arc<str>,
    ) -> Result<Vec<Status>, sqlx::Error> {
        let rows = query(
            "SELECT msn FROM sms_segment \
             WHERE reqid = $1 AND client = $2 AND part = 0 AND (flags & 32) <> 0 ORDER BY id LIMIT 255",
        )
        .bind(reqid.to_string())
        .bind(client.to_string())
        .fetch_all(&mut *c)
        .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(msn) = statements::msisdn(row.try_get(0)?) else { continue };
            let key = RequestKey { client: client.clone(), msn, reqid: reqid.clone() };
            found.extend(self.find(c, &key).await?.map(|(status, _)| status));
        }
        Ok(found)
    }

    async fn sent_as(&mut self, c: &mut AnyConnection, names: &[SentAs]) -> Result<Vec<Waiting>, sqlx::Error> {
        let names: Vec<SentAs> = names.iter().map(SentAs::key).collect();
        let rows = self.texts.fetch(c, &BY_SENT_KEY, &names, |q, n| q.bind(statements::sent_key(n))).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let name = statements::sent_as(row.try_get(8)?);
            let Some(sent_as) = name.filter(|n| names.contains(&n.key())) else { continue };
            if let Ok((id, origin)) = statements::origin(row)? {
                found.push(Waiting { id, origin, sent_as });
            }
        }
        Ok(found)
    }
}

pub(super) fn cancelled(id: SegmentId, origin: &Arc<Origin>, at: i64) -> Mark {
    let progress = Progress::Ended { state: State::Cancelled, verdict: Verdict::CANCELLED, at };
    Mark { id, origin: origin.clone(), progress }
}

/// Of a body; what is over has none.
pub(super) fn source(body: &[u8]) -> Box<str> {
    Part::from_bytes(body).map(|p| p.source).unwrap_or_default()
}

fn place(row: &AnyRow) -> Result<Place, sqlx::Error> {
    Ok(Place {
        id: SegmentId(row.try_get(0)?),
        state: statements::state(row.try_get(1)?),
        verdict: statements::verdict(row.try_get(2)?),
        owner: row.try_get(3)?,
        sent_as: statements::sent_as(row.try_get(4)?),
        source: source(row.try_get(5)?),
        done_at: row.try_get(6)?,
    })
}

pub(in crate::store) async fn totals(c: &mut AnyConnection, from: &str, to: &str) -> Result<Vec<Total>, sqlx::Error> {
    let rows = query(
        "SELECT day, client, verdict, requests, segments FROM sms_total WHERE day >= $1 AND day <= $2 \
         ORDER BY day, client, verdict",
    )
    .bind(from.to_owned())
    .bind(to.to_owned())
    .fetch_all(c)
    .await?;
    let total = |row: &AnyRow| {
        Ok(Total {
            day: row.try_get(0)?,
            client: row.try_get(1)?,
            verdict: statements::verdict(row.try_get(2)?),
            requests: row.try_get(3)?,
            segments: row.try_get(4)?,
        })
    };
    rows.iter().map(total).collect()
}
