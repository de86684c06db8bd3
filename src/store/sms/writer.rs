//! The thread that owns the connection: groups, commits, completions.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gw_sms::billing::Calendar;
use gw_sms::queue::{Ended, Enqueued, Mark, Notice, Outlet, Recall, Request, Segment, SegmentId};
use sip_ims::ports::{Done, StoreError};
use sqlx::{AnyConnection, Connection, query, raw_sql};
use tokio::runtime::Runtime;

use super::journal::Left;
use super::statements::{self, INSERT, PRESENT, Texts};
use super::upkeep::Upkeep;
use super::{Job, Pending, Shared, SmsConfig, jobs, merge};
use crate::store::{Engine, OpenError, sql};

pub struct Writer {
    pub(super) engine: Engine,
    runtime: Runtime,
    /// `None` after an error: a new one is made for the next group.
    connection: Option<AnyConnection>,
    /// When the last commit began.
    committed: Instant,
    pub(super) desk: Desk,
    upkeep: Upkeep,
}

/// What statements need beside the connection.
pub(super) struct Desk {
    pub texts: Texts,
    pub calendar: Calendar,
    pub node: String,
    /// This node's number, 1 to 255.
    pub slot: i64,
    pub keep: i64,
    last_id: i64,
    /// Rows are there that no node holds: new ones go behind them.
    pub overflow: bool,
    /// Rows wait for their time, so a new one may have to wait behind one for the same number.
    pub deferred: bool,
    /// Rows are there whose time has not come.
    pub scheduled: bool,
    /// Somebody asked for something back, and it is not settled.
    pub cancelling: bool,
    /// Requests that were cancelled here: news of them that was on its way does not know.
    pub cancelled: HashSet<SegmentId>,
    /// Notices that are through.
    pub notified: Vec<SegmentId>,
    pub outlet: Option<Arc<dyn Outlet>>,
}

/// What is in one transaction.
#[derive(Default)]
struct Group {
    requests: Vec<(Request, Done<Enqueued>)>,
    marks: Vec<Mark>,
    jobs: Vec<Job>,
}

/// What is told to others once a transaction is committed.
#[derive(Default)]
pub(super) struct After {
    pub enqueued: Vec<Enqueued>,
    pub ready: Vec<Segment>,
    pub ended: Vec<Ended>,
    pub notices: Vec<Notice>,
    pub recall: Vec<Recall>,
    pub answers: Vec<jobs::Answer>,
}

/// How far a transaction came.
enum Failure {
    /// Nothing of it happened.
    Before(sqlx::Error),
    /// The commit was sent; nobody knows.
    AtCommit(sqlx::Error),
}

impl Writer {
    pub fn open(config: &SmsConfig, runtime: Runtime, left: Vec<Left>) -> Result<Writer, OpenError> {
        let engine = config.engine.clone();
        let mut desk = Desk {
            texts: Texts::new(&engine),
            calendar: config.calendar.clone(),
            node: config.node.clone(),
            slot: 1,
            keep: config.keep,
            last_id: 0,
            overflow: true,
            deferred: true,
            scheduled: true,
            cancelling: true,
            cancelled: HashSet::new(),
            notified: Vec::new(),
            outlet: None,
        };
        let connection = runtime.block_on(async {
            engine.prepare_sms().await?;
            let mut connection = engine.connect_sms().await.map_err(OpenError::Database)?;
            raw_sql(engine.begin()).execute(&mut connection).await.map_err(OpenError::Database)?;
            desk.register(&mut connection, &engine).await.map_err(OpenError::Database)?;
            desk.recover(&mut connection, left).await.map_err(OpenError::Database)?;
            raw_sql("COMMIT").execute(&mut connection).await.map_err(OpenError::Database)?;
            Ok::<_, OpenError>(connection)
        })?;
        let (committed, upkeep) = (Instant::now(), Upkeep::new(&engine, Instant::now()));
        Ok(Writer { engine, runtime, connection: Some(connection), committed, desk, upkeep })
    }

    pub fn run(mut self, shared: &Shared) {
        while let Some(group) = self.next(shared) {
            self.serve(shared, group);
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = self.runtime.block_on(connection.close())
        {
            tracing::warn!(%error, "the short message store did not close");
        }
    }

    /// Waits until there is something to do, and takes it. `None`: closed, and nothing is left.
    fn next(&mut self, shared: &Shared) -> Option<Group> {
        let mut pending = shared.pending.lock();
        loop {
            if self.desk.outlet.is_none() {
                self.desk.outlet.clone_from(&pending.outlet);
            }
            let now = Instant::now();
            let empty = pending.requests.is_empty() && pending.jobs.is_empty();
            if pending.closed {
                let left = !empty || !pending.marks.is_empty();
                return left.then(|| take(&mut pending, true));
            }
            let old = pending.marks_since.map(|since| since + MARKS_WAIT);
            let many = pending.marks.len() >= super::MANY_MARKS;
            let upkeep = self.upkeep.due(&self.desk);
            let work = if empty { None } else { Some(self.committed + BETWEEN) };
            let marks = if many { Some(now) } else { old };
            let at = [work, marks, upkeep].into_iter().flatten().min();
            match at {
                Some(at) if at <= now => {
                    let marks = marks.is_some_and(|at| at <= now) || !pending.jobs.is_empty();
                    return Some(take(&mut pending, marks));
                }
                Some(at) => drop(shared.wake.wait_until(&mut pending, at)),
                None => shared.wake.wait(&mut pending),
            }
        }
    }

    fn serve(&mut self, shared: &Shared, group: Group) {
        self.committed = Instant::now();
        let Group { requests, marks, jobs } = group;
        let mut result = self.transact(&requests, &marks, &jobs);
        // The connection may have died while it idled, or two nodes may have locked rows crosswise.
        if let Err(Failure::Before(error)) = &result {
            tracing::debug!(%error, "a group is tried again");
            result = self.transact(&requests, &marks, &jobs);
        }
        match result {
            Ok(after) => {
                if !marks.is_empty()
                    && let Err(error) = shared.pending.lock().journal.forget()
                {
                    tracing::error!(%error, "the short message journal is not emptied");
                }
                self.tell(after, requests, jobs);
            }
            Err(Failure::Before(error) | Failure::AtCommit(error)) => {
                tracing::error!(%error, "the short message store failed");
                let error = StoreError::engine(error);
                self.keep(shared, marks);
                requests.into_iter().for_each(|(_, done)| sql::finish(done, Err(error.clone())));
                jobs.into_iter().for_each(|job| job.fail(error.clone()));
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// News that could not be written goes into the journal's other file, and is written with the next.
    fn keep(&mut self, shared: &Shared, marks: Vec<Mark>) {
        if marks.is_empty() {
            return;
        }
        let mut pending = shared.pending.lock();
        let kept = pending.journal.append(&marks).and_then(|()| pending.journal.forget());
        if let Err(error) = kept {
            tracing::error!(%error, "the short message journal is not written");
        }
        pending.marks_since.get_or_insert_with(Instant::now);
        let newer = std::mem::take(&mut pending.marks);
        for mark in marks.into_iter().chain(newer.into_values()) {
            merge(&mut pending.marks, mark);
        }
    }

    fn transact(
        &mut self,
        requests: &[(Request, Done<Enqueued>)],
        marks: &[Mark],
        jobs: &[Job],
    ) -> Result<After, Failure> {
        let Writer { engine, runtime, connection, desk, upkeep, .. } = self;
        runtime.block_on(async {
            let mut c = match connection.take() {
                Some(c) => c,
                None => engine.connect_sms().await.map_err(Failure::Before)?,
            };
            let mut after = After::default();
            raw_sql(engine.begin()).execute(&mut c).await.map_err(Failure::Before)?;
            let work = async {
                if !marks.is_empty() {
                    desk.change(&mut c, marks, &mut after).await?;
                }
                for job in jobs {
                    let answer = desk.job(&mut c, job, &mut after).await?;
                    after.answers.push(answer);
                }
                if !requests.is_empty() {
                    desk.insert(&mut c, requests, &mut after).await?;
                }
                upkeep.run(engine, desk, &mut c, &mut after).await
            };
            work.await.map_err(Failure::Before)?;
            raw_sql("COMMIT").execute(&mut c).await.map_err(Failure::AtCommit)?;
            *connection = Some(c);
            Ok(after)
        })
    }

    fn tell(&mut self, after: After, requests: Vec<(Request, Done<Enqueued>)>, jobs: Vec<Job>) {
        for ((_, done), enqueued) in requests.into_iter().zip(after.enqueued) {
            sql::finish(done, Ok(enqueued));
        }
        for (job, answer) in jobs.into_iter().zip(after.answers) {
            answer.tell(job);
        }
        let Some(outlet) = &self.desk.outlet else { return };
        if !after.ready.is_empty() {
            outlet.ready(after.ready);
        }
        if !after.recall.is_empty() {
            outlet.recall(after.recall);
        }
        if !after.ended.is_empty() {
            outlet.ended(&after.ended);
        }
        if !after.notices.is_empty() {
            outlet.notices(after.notices);
        }
    }
}

impl Desk {
    /// Stores requests, each whole or not at all, and says what became of each.
    async fn insert(
        &mut self,
        c: &mut AnyConnection,
        requests: &[(Request, Done<Enqueued>)],
        after: &mut After,
    ) -> Result<(), sqlx::Error> {
        let held = if self.deferred {
            let mut numbers: Vec<i64> = requests.iter().map(|(r, _)| r.origin.msn.as_u64() as i64).collect();
            numbers.sort_unstable();
            numbers.dedup();
            self.held(c, &numbers).await?
        } else {
            Vec::new()
        };
        let mut room = self.outlet.as_ref().map_or(0, |o| o.room());
        let now = unix_ms();
        let mut rows: Vec<Row<'_>> = Vec::with_capacity(requests.len());
        for (request, _) in requests {
            let id = self.next_id();
            let number = request.origin.msn.as_u64() as i64;
            let held = held.binary_search_by_key(&number, |h| h.0).ok().map(|at| held[at].1);
            let later = request.not_before > now;
            self.scheduled |= later;
            if held.is_none() && !later && !self.overflow && room < request.parts.len() {
                self.overflow = true;
            }
            let (state, owner, due) = match held {
                _ if later => (5, 0, request.not_before),
                Some(due) => (1, 0, due),
                None if self.overflow => (0, 0, 0),
                None => {
                    room -= request.parts.len();
                    (0, self.slot, 0)
                }
            };
            let places =
                (0..request.parts.len() as u8).map(|place| Row { id: id.at(place), request, state, owner, due });
            rows.extend(places);
            after.enqueued.push(Enqueued::New(id));
        }
        let stored = self.texts.execute(c, &INSERT, &rows, Row::bind).await?;
        if stored < rows.len() as u64 {
            self.sort_out(c, requests, &mut rows, after).await?;
        }
        for rows in rows.chunk_by(|a, b| a.id.request() == b.id.request()) {
            if rows[0].owner != self.slot {
                continue;
            }
            let origin = Arc::new(rows[0].request.origin.clone());
            after.ready.extend(rows.iter().map(|row| Segment {
                id: row.id,
                origin: origin.clone(),
                attempts: 0,
                part: row.request.parts[usize::from(row.id.place())].clone(),
            }));
        }
        Ok(())
    }

    /// Some requests were there already: keeps of `rows` what was stored, and of each other request finds out whether it is the same.
    async fn sort_out(
        &mut self,
        c: &mut AnyConnection,
        requests: &[(Request, Done<Enqueued>)],
        rows: &mut Vec<Row<'_>>,
        after: &mut After,
    ) -> Result<(), sqlx::Error> {
        use sqlx::Row as _;
        let ids: Vec<SegmentId> = after.enqueued.iter().filter_map(|e| e.id()).collect();
        let present = self.texts.fetch(c, &PRESENT, &ids, |q, id| q.bind(id.0)).await?;
        let present: HashSet<i64> = present.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        rows.retain(|row| present.contains(&row.id.request().0));
        for ((request, _), enqueued) in requests.iter().zip(&mut after.enqueued) {
            // So far all of them were taken for new.
            let Some(id) = enqueued.id().filter(|id| !present.contains(&id.0)) else { continue };
            // Its further segments did go in.
            if request.parts.len() > 1 {
                query("DELETE FROM sms_segment WHERE id > $1 AND id < $2")
                    .bind(id.0)
                    .bind(id.0 + 16)
                    .execute(&mut *c)
                    .await?;
            }
            let first =
                query("SELECT id, digest FROM sms_segment WHERE msn = $1 AND reqid = $2 AND client = $3 AND part = 0")
                    .bind(request.origin.msn.as_u64() as i64)
                    .bind(request.origin.reqid.to_string())
                    .bind(request.origin.client.to_string())
                    .fetch_optional(&mut *c)
                    .await?;
            *enqueued = match first {
                Some(row) if row.try_get::<i64, _>(1)? == request.digest as i64 => {
                    Enqueued::Again(SegmentId(row.try_get(0)?))
                }
                _ => Enqueued::Other,
            };
        }
        Ok(())
    }

    async fn held(&mut self, c: &mut AnyConnection, numbers: &[i64]) -> Result<Vec<(i64, i64)>, sqlx::Error> {
        use sqlx::Row as _;
        let found = self.texts.fetch(c, &statements::HELD, numbers, |q, n| q.bind(*n)).await?;
        let mut held = Vec::with_capacity(found.len());
        for row in found {
            held.push((row.try_get(0)?, row.try_get(1)?));
        }
        held.sort_unstable();
        Ok(held)
    }

    /// Milliseconds, a counter, this node's number and room for the places: so ids grow with time, and nodes need not ask each other.
    fn next_id(&mut self) -> SegmentId {
        let now = (unix_ms() - EPOCH) << COUNTER_BITS;
        self.last_id = now.max(self.last_id + 1);
        SegmentId(self.last_id << (SLOT_BITS + SegmentId::PLACE_BITS) | self.slot << SegmentId::PLACE_BITS)
    }
}

/// When the request of a segment was accepted, in unix milliseconds.
pub(super) fn accepted_at(id: SegmentId) -> i64 {
    (id.0 >> (COUNTER_BITS + SLOT_BITS + SegmentId::PLACE_BITS)) + EPOCH
}

/// The first id of a moment.
pub(super) fn id_at(unix_ms: i64) -> i64 {
    (unix_ms - EPOCH).max(0) << (COUNTER_BITS + SLOT_BITS + SegmentId::PLACE_BITS)
}

const COUNTER_BITS: u32 = 10;
const SLOT_BITS: u32 = 8;
/// 2020-01-01: 41 bits of milliseconds last until 2089.
const EPOCH: i64 = 1_577_836_800_000;

struct Row<'r> {
    id: SegmentId,
    request: &'r Request,
    state: i64,
    owner: i64,
    due: i64,
}

impl Row<'_> {
    fn bind(statement: statements::Bound<'static>, row: &Row<'_>) -> statements::Bound<'static> {
        let origin = &row.request.origin;
        statement
            .bind(row.id.0)
            .bind(origin.client.to_string())
            .bind(origin.msn.as_u64() as i64)
            .bind(origin.reqid.to_string())
            .bind(i64::from(row.id.place()))
            .bind(i64::from(origin.parts))
            .bind(i64::from(origin.rank))
            .bind(i64::from(origin.flags))
            .bind(row.request.digest as i64)
            .bind(row.state)
            .bind(row.owner)
            .bind(origin.expires_at)
            .bind(row.due)
            .bind(row.request.parts[usize::from(row.id.place())].to_bytes())
    }
}

fn take(pending: &mut Pending, with_marks: bool) -> Group {
    let mut group = Group::default();
    if pending.requests.len() <= GROUP {
        group.requests = std::mem::take(&mut pending.requests);
        pending.bytes = 0;
    } else {
        let rest = pending.requests.split_off(GROUP);
        group.requests = std::mem::replace(&mut pending.requests, rest);
        pending.bytes = pending.requests.iter().map(|(r, _)| size(r)).sum();
    }
    group.jobs = std::mem::take(&mut pending.jobs);
    if with_marks && !pending.marks.is_empty() {
        group.marks = pending.marks.drain().map(|m| m.1).collect();
        group.marks.sort_unstable_by_key(|m| m.id);
        pending.marks_since = None;
        if let Err(error) = pending.journal.turn() {
            tracing::error!(%error, "the short message journal is not written");
        }
    }
    group
}

pub(super) fn size(request: &Request) -> usize {
    request.parts.iter().map(|p| p.short_message.len() + super::ROW).sum()
}

pub(super) fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Most requests in one transaction.
const GROUP: usize = 1_024;
/// Least time from one commit to the next: on a fast disk it keeps groups from being single rows.
const BETWEEN: Duration = Duration::from_millis(3);
/// How long news waits: what is sent and delivered within it costs one update.
const MARKS_WAIT: Duration = Duration::from_millis(200);
/// After a failed group.
const PAUSE: Duration = Duration::from_millis(200);
