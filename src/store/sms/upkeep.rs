//! What the clock brings: segments and notices whose time has come, what expired, what may be forgotten, and which nodes live.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gw_sms::queue::{Mark, Notice, Progress, Recall, SegmentId, State, Verdict};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row, query};

use super::changes::NOTICE_LEASE;
use super::jobs::{cancelled, source};
use super::statements::{self, NOTICE_DONE};
use super::writer::{After, Desk, accepted_at, id_at, unix_ms};
use crate::store::Engine;

/// When each chore is next.
pub(super) struct Upkeep {
    /// Other nodes may share the tables.
    shared: bool,
    claim: Instant,
    notices: Instant,
    cancellations: Instant,
    lease: Instant,
    expiry: Instant,
    purge: Instant,
    /// Where the next purge goes on.
    purged: i64,
}

impl Upkeep {
    pub fn new(engine: &Engine, now: Instant) -> Upkeep {
        let shared = matches!(engine, Engine::Postgres(_));
        Upkeep {
            shared,
            claim: now,
            notices: now,
            cancellations: now,
            lease: now,
            expiry: now + EXPIRY,
            purge: now + PURGE_LATER,
            purged: 0,
        }
    }

    /// When something is to be done next.
    pub fn due(&self, desk: &Desk) -> Option<Instant> {
        desk.outlet.as_ref()?;
        let lease = self.shared.then_some(self.lease);
        [self.claim, self.notices, self.cancellations, self.expiry, self.purge].into_iter().chain(lease).min()
    }

    /// Does what is due, at the end of a transaction.
    pub async fn run(
        &mut self,
        engine: &Engine,
        desk: &mut Desk,
        c: &mut AnyConnection,
        after: &mut After,
    ) -> Result<(), sqlx::Error> {
        if !desk.notified.is_empty() {
            let gone = std::mem::take(&mut desk.notified);
            desk.texts.execute(c, &NOTICE_DONE, &gone, |q, id| q.bind(id.0)).await?;
        }
        let Some(outlet) = desk.outlet.clone() else { return Ok(()) };
        let now = Instant::now();
        if now >= self.lease && self.shared {
            self.lease = now + LEASE_RENEWAL;
            desk.renew(c).await?;
            // What another node left, or has no room for.
            desk.overflow = true;
            desk.deferred = true;
            desk.scheduled = true;
            desk.cancelling = true;
        }
        if now >= self.claim {
            let room = outlet.room().saturating_sub(after.ready.len());
            let more = desk.claim(engine, c, room.min(CLAIM), after).await?;
            // A full claim is followed by the next; else rows are asked for when their time may have come.
            self.claim = now + if more && room > CLAIM { Duration::ZERO } else { CLAIM_LATER };
        }
        if now >= self.notices {
            let room = outlet.notice_room().saturating_sub(after.notices.len()).min(CLAIM);
            let found = if room > 0 { desk.claim_notices(engine, c, room).await? } else { Vec::new() };
            self.notices = now + if found.len() == room && room > 0 { Duration::ZERO } else { NOTICES_LATER };
            after.notices.extend(found);
        }
        if now >= self.cancellations {
            self.cancellations = now + CANCELLATIONS;
            if desk.cancelling {
                desk.cancellations(c, after).await?;
            }
        }
        if now >= self.expiry {
            let full = desk.expire_sent(c, after).await?;
            self.expiry = now + if full { Duration::ZERO } else { EXPIRY };
        }
        if now >= self.purge {
            let full = desk.purge(c, &mut self.purged).await?;
            self.purge = now + if full { PURGE_ON } else { PURGE_LATER };
        }
        Ok(())
    }
}

impl Desk {
    /// Takes this node's number, and gives back what the process before held.
    pub async fn register(&mut self, c: &mut AnyConnection, engine: &Engine) -> Result<(), sqlx::Error> {
        let until = unix_ms() + LEASE;
        if let Engine::Postgres(_) = engine {
            // Two nodes that start at once must not take one number.
            query("LOCK TABLE sms_node IN EXCLUSIVE MODE").execute(&mut *c).await?;
        }
        let mine = query("UPDATE sms_node SET lease_until = $2 WHERE name = $1 RETURNING slot")
            .bind(self.node.clone())
            .bind(until)
            .fetch_optional(&mut *c)
            .await?;
        self.slot = match mine {
            Some(row) => row.try_get(0)?,
            None => {
                // Numbers of nodes that are long gone are used again when there is no other.
                query(
                    "INSERT INTO sms_node (slot, name, lease_until) \
                     SELECT coalesce(max(slot), 0) % 255 + 1, $1, $2 FROM sms_node RETURNING slot",
                )
                .bind(self.node.clone())
                .bind(until)
                .fetch_one(&mut *c)
                .await?
                .try_get(0)?
            }
        };
        release(c, self.slot).await
    }

    /// Lives on, and takes over from those that do not.
    async fn renew(&mut self, c: &mut AnyConnection) -> Result<(), sqlx::Error> {
        let now = unix_ms();
        query("UPDATE sms_node SET lease_until = $2 WHERE slot = $1")
            .bind(self.slot)
            .bind(now + LEASE)
            .execute(&mut *c)
            .await?;
        let dead = query("UPDATE sms_node SET lease_until = $2 WHERE lease_until < $1 RETURNING slot")
            .bind(now)
            .bind(i64::MAX)
            .fetch_all(&mut *c)
            .await?;
        for row in dead {
            let slot: i64 = row.try_get(0)?;
            tracing::warn!(slot, "a node's short messages are taken over");
            release(c, slot).await?;
        }
        Ok(())
    }

    /// Takes up to `room` segments that nobody holds or whose time has come. True: there may be more.
    async fn claim(
        &mut self,
        engine: &Engine,
        c: &mut AnyConnection,
        room: usize,
        after: &mut After,
    ) -> Result<bool, sqlx::Error> {
        if room == 0 || !(self.overflow || self.deferred || self.scheduled) {
            return Ok(false);
        }
        let now = unix_ms();
        let mut more = false;
        let before = after.ready.len();
        if self.scheduled {
            let come = match engine {
                Engine::Sqlite(_) => CLAIM_SCHEDULED_SQLITE,
                Engine::Postgres(_) => CLAIM_SCHEDULED_POSTGRES,
            };
            let rows = query(come).bind(self.slot).bind(now).bind(room as i64).fetch_all(&mut *c).await?;
            more |= rows.len() == room;
            take(&rows, after)?;
            if rows.is_empty() {
                let one = query("SELECT 1 FROM sms_segment WHERE state = 5 LIMIT 1").fetch_optional(&mut *c).await?;
                self.scheduled = one.is_some();
            }
        }
        let room = room.saturating_sub(after.ready.len() - before);
        if self.deferred && room > 0 {
            let due = match engine {
                Engine::Sqlite(_) => CLAIM_DUE_SQLITE,
                Engine::Postgres(_) => CLAIM_DUE_POSTGRES,
            };
            let rows = query(due).bind(self.slot).bind(now).bind(room as i64).fetch_all(&mut *c).await?;
            more |= rows.len() == room;
            take(&rows, after)?;
            if rows.is_empty() {
                let one = query("SELECT 1 FROM sms_segment WHERE state = 1 LIMIT 1").fetch_optional(&mut *c).await?;
                self.deferred = one.is_some();
            }
        }
        let room = room.saturating_sub(after.ready.len() - before);
        if self.overflow && room > 0 {
            let ready = match engine {
                Engine::Sqlite(_) => CLAIM_READY_SQLITE,
                Engine::Postgres(_) => CLAIM_READY_POSTGRES,
            };
            let rows = query(ready).bind(self.slot).bind(room as i64).fetch_all(&mut *c).await?;
            more |= rows.len() == room;
            self.overflow = rows.len() == room;
            take(&rows, after)?;
        }
        after.ready[before..].sort_by_key(|s| (s.origin.rank, s.id));
        Ok(more)
    }

    async fn claim_notices(
        &mut self,
        engine: &Engine,
        c: &mut AnyConnection,
        room: usize,
    ) -> Result<Vec<Notice>, sqlx::Error> {
        let now = unix_ms();
        let claim = match engine {
            Engine::Sqlite(_) => CLAIM_NOTICES_SQLITE,
            Engine::Postgres(_) => CLAIM_NOTICES_POSTGRES,
        };
        let rows = query(claim).bind(now).bind(now + NOTICE_LEASE).bind(room as i64).fetch_all(c).await?;
        let mut notices: Vec<Notice> = Vec::with_capacity(rows.len());
        for row in &rows {
            notices.extend(notice(row)?);
        }
        notices.sort_by_key(|n| n.id);
        Ok(notices)
    }

    /// What was asked back and is not settled: said again, or settled here where nobody has it.
    ///
    /// Only what was found so the last time too: of what was asked just now, the answer may be on its way to a commit.
    async fn cancellations(&mut self, c: &mut AnyConnection, after: &mut After) -> Result<(), sqlx::Error> {
        let rows = query(
            "SELECT id, client, msn, reqid, parts, rank, flags, expires_at, owner, sent_as, body FROM sms_segment \
             WHERE state = 3 ORDER BY id LIMIT 500",
        )
        .fetch_all(&mut *c)
        .await?;
        self.cancelling = !rows.is_empty();
        let before = std::mem::take(&mut self.unsettled);
        let mut over = Vec::new();
        for row in &rows {
            let Ok((id, origin)) = statements::origin(row)? else { continue };
            let owner: i64 = row.try_get(8)?;
            let sent_as = statements::sent_as(row.try_get(9)?);
            if sent_as.is_none() && owner == 0 {
                over.push(cancelled(id, &origin, unix_ms()));
            } else if sent_as.is_some() || owner == self.slot {
                self.unsettled.insert(id);
                if before.contains(&id) {
                    after.recall.push(Recall { id, origin, sent_as, source: source(row.try_get(10)?) });
                }
            }
        }
        self.change(c, &over, after).await
    }

    /// Ends what was sent and of which no receipt came. True: there may be more.
    async fn expire_sent(&mut self, c: &mut AnyConnection, after: &mut After) -> Result<bool, sqlx::Error> {
        let now = unix_ms();
        let rows = query(
            "SELECT id, client, msn, reqid, parts, rank, flags, expires_at FROM sms_segment \
             WHERE sent_key <> 0 AND expires_at < $1 ORDER BY expires_at LIMIT $2",
        )
        .bind(now - RECEIPT_GRACE)
        .bind(CLAIM as i64)
        .fetch_all(&mut *c)
        .await?;
        let mut marks = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Ok((id, origin)) = statements::origin(row)? {
                let progress = Progress::Ended { state: State::Expired, verdict: Verdict::EXPIRED, at: now };
                marks.push(Mark { id, origin, progress });
            }
        }
        marks.sort_by_key(|m| m.id);
        self.change(c, &marks, after).await?;
        Ok(rows.len() == CLAIM)
    }

    /// Forgets what has been over for long, a slice of the ids at a time. True: more is to be looked at now.
    async fn purge(&mut self, c: &mut AnyConnection, from: &mut i64) -> Result<bool, sqlx::Error> {
        let now = unix_ms();
        let horizon = id_at(now - self.keep);
        let last = query(
            "SELECT max(id) FROM (SELECT id FROM sms_segment WHERE id > $1 AND id < $2 ORDER BY id LIMIT 2000) AS slice",
        )
        .bind(*from)
        .bind(horizon)
        .fetch_one(&mut *c)
        .await?;
        let Some(last) = last.try_get::<Option<i64>, _>(0)? else {
            // From the beginning, an hour later: what was not over then may be by now.
            *from = 0;
            return Ok(false);
        };
        query("DELETE FROM sms_segment WHERE id > $1 AND id <= $2 AND state >= 8 AND done_at < $3")
            .bind(*from)
            .bind(last)
            .bind(now - self.keep)
            .execute(c)
            .await?;
        *from = last;
        Ok(true)
    }
}

/// What a node held is anybody's.
async fn release(c: &mut AnyConnection, slot: i64) -> Result<(), sqlx::Error> {
    query("UPDATE sms_segment SET owner = 0 WHERE state = 0 AND owner = $1").bind(slot).execute(&mut *c).await?;
    query("UPDATE sms_segment SET owner = 0 WHERE state = 3 AND owner = $1").bind(slot).execute(c).await?;
    Ok(())
}

fn take(rows: &[AnyRow], after: &mut After) -> Result<(), sqlx::Error> {
    for row in rows {
        match statements::segment(row)? {
            Ok(segment) => after.ready.push(segment),
            Err(error) => tracing::error!(%error, "a short message's row is passed over"),
        }
    }
    Ok(())
}

fn notice(row: &AnyRow) -> Result<Option<Notice>, sqlx::Error> {
    let number = |n: usize| row.try_get::<i64, _>(n);
    let Some(msn) = statements::msisdn(number(2)?) else { return Ok(None) };
    Ok(Some(Notice {
        id: SegmentId(number(0)?),
        client: Arc::from(row.try_get::<&str, _>(1)?),
        msn,
        reqid: Arc::from(row.try_get::<&str, _>(3)?),
        verdict: statements::verdict(number(4)?),
        delivered: number(5)? as u8,
        cancelled: number(6)? as u8,
        parts: number(7)? as u8,
        cancel: number(8)? != 0,
        accepted_at: accepted_at(SegmentId(number(0)?)),
        done_at: number(9)?,
        attempts: number(10)?.clamp(0, 65_535) as u16,
    }))
}

// Claims differ in one clause: nodes that share PostgreSQL step around each other's rows; SQLite has one writer.
macro_rules! claim_due {
    ($state:literal, $lock:literal) => {
        concat!(
            "UPDATE sms_segment SET state = 0, owner = $1 WHERE id IN (SELECT id FROM sms_segment WHERE state = ",
            $state,
            " AND due <= $2 ORDER BY due, id LIMIT $3",
            $lock,
            ") RETURNING id, client, msn, reqid, parts, rank, flags, expires_at, attempts, body"
        )
    };
}
const CLAIM_DUE_SQLITE: &str = claim_due!("1", "");
const CLAIM_DUE_POSTGRES: &str = claim_due!("1", " FOR UPDATE SKIP LOCKED");
const CLAIM_SCHEDULED_SQLITE: &str = claim_due!("5", "");
const CLAIM_SCHEDULED_POSTGRES: &str = claim_due!("5", " FOR UPDATE SKIP LOCKED");

macro_rules! claim_ready {
    ($lock:literal) => {
        concat!(
            "UPDATE sms_segment SET owner = $1 WHERE id IN (SELECT id FROM sms_segment \
             WHERE state = 0 AND owner = 0 ORDER BY rank, id LIMIT $2",
            $lock,
            ") RETURNING id, client, msn, reqid, parts, rank, flags, expires_at, attempts, body"
        )
    };
}
const CLAIM_READY_SQLITE: &str = claim_ready!("");
const CLAIM_READY_POSTGRES: &str = claim_ready!(" FOR UPDATE SKIP LOCKED");

macro_rules! claim_notices {
    ($lock:literal) => {
        concat!(
            "UPDATE sms_notice SET due = $2 WHERE id IN (SELECT id FROM sms_notice \
             WHERE due <= $1 ORDER BY due, id LIMIT $3",
            $lock,
            ") RETURNING id, client, msn, reqid, verdict, delivered, cancelled, parts, cancel, done_at, attempts"
        )
    };
}
const CLAIM_NOTICES_SQLITE: &str = claim_notices!("");
const CLAIM_NOTICES_POSTGRES: &str = claim_notices!(" FOR UPDATE SKIP LOCKED");

/// Rows in one claim.
const CLAIM: usize = 1_000;
const CLAIM_LATER: Duration = Duration::from_millis(250);
const NOTICES_LATER: Duration = Duration::from_secs(1);
const CANCELLATIONS: Duration = Duration::from_secs(2);
const EXPIRY: Duration = Duration::from_secs(5);
/// From one slice of old rows to the next, and from the last to the first again.
const PURGE_ON: Duration = Duration::from_millis(100);
const PURGE_LATER: Duration = Duration::from_secs(3_600);
/// Milliseconds that a node may be silent before others take over, and how often it speaks.
const LEASE: i64 = 20_000;
const LEASE_RENEWAL: Duration = Duration::from_secs(5);
/// Milliseconds after its end of validity for which a receipt is awaited.
const RECEIPT_GRACE: i64 = 600_000;
