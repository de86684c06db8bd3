//! News of segments, written: their rows, and whatever is counted and told because of it, in the same transaction.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gw_sms::queue::{Ended, Mark, Notice, Origin, Progress, SegmentId, State, Verdict};
use sqlx::{AnyConnection, Row};

use super::journal::Left;
use super::statements::{self, BY_ID, Bound, COUNT, DONE_AT, LOCK, MARK, NOTICE, WHOLE};
use super::writer::{After, Desk, accepted_at, unix_ms};

/// Day, client, verdict.
type Key = (Arc<str>, Arc<str>, Verdict);
/// Requests and segments.
type Counts = BTreeMap<Key, (i64, i64)>;

impl Desk {
    /// Writes `marks`, one for a segment, in the order of their ids.
    pub async fn change(
        &mut self,
        c: &mut AnyConnection,
        marks: &[Mark],
        after: &mut After,
    ) -> Result<(), sqlx::Error> {
        self.deferred |= marks.iter().any(|m| matches!(m.progress, Progress::Deferred { .. }));
        self.overflow |= marks.iter().any(|m| m.progress == Progress::Returned);
        let written = self.texts.execute(c, &MARK, marks, bind).await?;
        let mut ended: Vec<Ended> = marks.iter().filter_map(ended).collect();
        if ended.is_empty() {
            return Ok(());
        }
        if written < marks.len() as u64 {
            // Some were over already (a receipt that came twice, or to two nodes): those count once.
            let found = self.texts.fetch(c, &DONE_AT, &ended, |q, e| q.bind(e.id.0)).await?;
            let mut times = HashMap::with_capacity(found.len());
            for row in &found {
                times.insert(row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?);
            }
            ended.retain(|e| times.get(&e.id.0) == Some(&e.at));
        }
        self.conclude(c, ended, after).await
    }

    /// Counts segments that are over, and the requests that are with them.
    pub async fn conclude(
        &mut self,
        c: &mut AnyConnection,
        ended: Vec<Ended>,
        after: &mut After,
    ) -> Result<(), sqlx::Error> {
        let mut counts = Counts::new();
        let mut through = Vec::new();
        let mut open: Vec<(SegmentId, &Ended)> = Vec::new();
        for end in &ended {
            self.count(&mut counts, end, 0, 1);
            if end.origin.parts == 1 {
                let cancel = self.cancelled.remove(&end.id) || end.origin.has(Origin::CANCEL);
                through.push(whole(end, &[(end.state, end.verdict)], cancel, end.at));
            } else if open.last().is_none_or(|o| o.0 != end.id.request()) {
                open.push((end.id.request(), end));
            }
        }
        if !open.is_empty() {
            self.texts.execute(c, &LOCK, &open, |q, o| q.bind(o.0.0)).await?;
            let rows = self.texts.fetch(c, &WHOLE, &open, |q, o| q.bind(o.0.0)).await?;
            let mut segments: HashMap<SegmentId, Vec<(State, Verdict, u8, i64)>> = HashMap::new();
            for row in rows {
                let id = SegmentId(row.try_get(0)?).request();
                segments.entry(id).or_default().push((
                    statements::state(row.try_get(1)?),
                    statements::verdict(row.try_get(2)?),
                    row.try_get::<i64, _>(3)? as u8,
                    row.try_get(4)?,
                ));
            }
            for (id, end) in open {
                let Some(list) = segments.get(&id) else { continue };
                if list.iter().all(|s| s.0.is_final()) {
                    let states: Vec<_> = list.iter().map(|s| (s.0, s.1)).collect();
                    let cancel = self.cancelled.remove(&id) || list.iter().any(|s| s.2 & Origin::CANCEL != 0);
                    let last = list.iter().map(|s| s.3).max().unwrap_or(end.at);
                    through.push(whole(end, &states, cancel, last));
                }
            }
        }
        for (notice, end) in &through {
            let total = Ended { verdict: notice.verdict, at: notice.done_at, ..(*end).clone() };
            self.count(&mut counts, &total, 1, 0);
        }
        let counts: Vec<_> = counts.into_iter().collect();
        self.texts.execute(c, &COUNT, &counts, bind_count).await?;
        let mut notices: Vec<Notice> =
            through.into_iter().filter(|(_, e)| e.origin.has(Origin::NOTIFY)).map(|(n, _)| n).collect();
        // Those that are handed out now are this node's for a while; the others anybody's.
        let room = self.outlet.as_ref().map_or(0, |o| o.notice_room());
        let now = unix_ms();
        let due: Vec<_> =
            notices.iter().enumerate().map(|(n, _)| if n < room { now + NOTICE_LEASE } else { now }).collect();
        let rows: Vec<(&Notice, i64)> = notices.iter().zip(due).collect();
        self.texts.execute(c, &NOTICE, &rows, bind_notice).await?;
        notices.truncate(room);
        after.notices.extend(notices);
        after.ended.extend(ended);
        Ok(())
    }

    /// What the process before this one left in the journal.
    pub async fn recover(&mut self, c: &mut AnyConnection, left: Vec<Left>) -> Result<(), sqlx::Error> {
        let ids: Vec<SegmentId> = left.iter().map(|l| l.0).collect();
        let mut origins = HashMap::with_capacity(ids.len());
        for row in self.texts.fetch(c, &BY_ID, &ids, |q, id| q.bind(id.0)).await? {
            if let Ok((id, origin)) = statements::origin(&row)? {
                origins.insert(id, origin);
            }
        }
        let mut marks = HashMap::new();
        for (id, progress) in left {
            if let Some(origin) = origins.get(&id) {
                super::merge(&mut marks, Mark { id, origin: origin.clone(), progress });
            }
        }
        let mut marks: Vec<Mark> = marks.into_values().collect();
        marks.sort_unstable_by_key(|m| m.id);
        // Nobody listens yet: what is to be told is read again, or is in charging records already.
        self.change(c, &marks, &mut After::default()).await
    }

    fn count(&mut self, counts: &mut Counts, end: &Ended, requests: i64, segments: i64) {
        let key = (self.calendar.day(end.at), end.origin.client.clone(), end.verdict);
        let count = counts.entry(key).or_default();
        count.0 += requests;
        count.1 += segments;
    }
}

fn ended(mark: &Mark) -> Option<Ended> {
    let Progress::Ended { state, verdict, at } = mark.progress else { return None };
    Some(Ended { id: mark.id, origin: mark.origin.clone(), state, verdict, accepted_at: accepted_at(mark.id), at })
}

/// What a request came to: that of its first segment that did not arrive, if there is one.
fn whole<'e>(end: &'e Ended, segments: &[(State, Verdict)], cancel: bool, done_at: i64) -> (Notice, &'e Ended) {
    let worst = segments.iter().filter(|s| s.0 != State::Delivered).min_by_key(|s| s.0 == State::Cancelled);
    let count = |state| segments.iter().filter(|s| s.0 == state).count() as u8;
    let notice = Notice {
        id: end.id.request(),
        client: end.origin.client.clone(),
        msn: end.origin.msn,
        reqid: end.origin.reqid.clone(),
        verdict: worst.map_or(Verdict::DELIVERED, |s| s.1),
        delivered: count(State::Delivered),
        cancelled: count(State::Cancelled),
        parts: segments.len() as u8,
        cancel,
        accepted_at: end.accepted_at,
        done_at,
        attempts: 0,
    };
    (notice, end)
}

fn bind(statement: Bound<'static>, mark: &Mark) -> Bound<'static> {
    let (state, due, attempts, verdict, at, name) = match &mark.progress {
        Progress::Returned => (0, 0, -1, 0, 0, None),
        Progress::Deferred { due, attempts } => (1, *due, i64::from(*attempts), 0, 0, None),
        Progress::Sent(name) => (2, 0, -1, 0, 0, Some(name)),
        Progress::NotCancelled(name) => (4, 0, -1, 0, 0, Some(name)),
        Progress::Ended { state, verdict, at } => (i64::from(*state as u8), 0, -1, i64::from(verdict.0), *at, None),
    };
    statement
        .bind(mark.id.0)
        .bind(state)
        .bind(due)
        .bind(attempts)
        .bind(verdict)
        .bind(at)
        .bind(name.map_or(0, statements::sent_key))
        .bind(name.map(statements::sent_as_text).unwrap_or_default())
}

fn bind_count(statement: Bound<'static>, count: &(Key, (i64, i64))) -> Bound<'static> {
    let ((day, client, verdict), (requests, segments)) = count;
    statement.bind(day.to_string()).bind(client.to_string()).bind(i64::from(verdict.0)).bind(*requests).bind(*segments)
}

fn bind_notice(statement: Bound<'static>, (notice, due): &(&Notice, i64)) -> Bound<'static> {
    statement
        .bind(notice.id.0)
        .bind(notice.client.to_string())
        .bind(notice.msn.as_u64() as i64)
        .bind(notice.reqid.to_string())
        .bind(i64::from(notice.verdict.0))
        .bind(i64::from(notice.delivered))
        .bind(i64::from(notice.cancelled))
        .bind(i64::from(notice.parts))
        .bind(i64::from(notice.cancel))
        .bind(notice.done_at)
        .bind(*due)
}

/// Milliseconds for which a notice is the business of the node that has it; afterwards it is handed out again.
pub(super) const NOTICE_LEASE: i64 = 60_000;
