//! The thread that owns the connection: groups, commits, completions.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gw_sms::billing::Calendar;
use gw_sms::queue::{Ended, Enqueued, Mark, Notice, Outlet, Recall, Request, Segment, SegmentId};
use sip_ims::ports::{Done, StoreError};
use sqlx::{AnyConnection, Connection, query, raw_sql};
use tokio::runtime::Runtime;

use super::checkpoint::Checkpoints;
use super::journal::Left;
use super::statements::{self, INSERT, PRESENT, Texts};
use super::upkeep::Upkeep;
use super::{Job, Pending, Shared, SmsConfig, jobs};
use crate::store::{Engine, OpenError, sql};

pub struct Writer {
    pub(super) engine: Engine,
    runtime: Runtime,
    /// `None` after an error: a new one is made for the next group.
    connection: Option<AnyConnection>,
    /// When the last commit began.
    committed: Instant,
    /// News that was taken over and is not written yet: a slice goes with each group, so that no push waits for all of it. It
    /// stands in the journal's other file, which is emptied when this is.
    news: VecDeque<Mark>,
    /// The last group failed.
    failed: bool,
    pub(super) desk: Desk,
    upkeep: Upkeep,
    checkpoints: Option<Checkpoints>,
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
    /// Segments that were asked back and not settled at the last look.
    pub unsettled: HashSet<SegmentId>,
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
            unsettled: HashSet::new(),
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
        let checkpoints = Checkpoints::start(&engine)?;
        let now = Instant::now();
        let upkeep = Upkeep::new(&engine, now);
        let (connection, news) = (Some(connection), VecDeque::new());
        Ok(Writer { engine, runtime, connection, committed: now, news, failed: false, desk, upkeep, checkpoints })
    }

    pub fn run(mut self, shared: &Shared) {
        while let Some(group) = self.next(shared) {
            self.serve(shared, group);
        }
        // Whoever closes last carries the rest of the log.
        self.checkpoints = None;
        if let Some(connection) = self.connection.take()
            && let Err(error) = self.runtime.block_on(connection.close())
        {
            tracing::warn!(%error, "the short message store did not close");
        }
    }

    /// Waits until there is something to do, and takes it. `None`: closed, and nothing is left but what the journal keeps.
    fn next(&mut self, shared: &Shared) -> Option<Group> {
        let mut pending = shared.pending.lock();
        loop {
            if self.desk.outlet.is_none() {
                self.desk.outlet.clone_from(&pending.outlet);
            }
            let now = Instant::now();
            let empty = pending.requests.is_empty() && pending.jobs.is_empty();
            if pending.closed {
                let news = !self.news.is_empty() || !pending.marks.is_empty();
                return (!empty || (news && !self.failed)).then(|| self.take(&mut pending, true));
            }
            let upkeep = self.upkeep.due(&self.desk);
            let work = if empty && self.news.is_empty() { None } else { Some(self.committed + BETWEEN) };
            let marks = match pending.marks.len() {
                _ if !self.news.is_empty() => None,
                super::MANY_MARKS.. => Some(now),
                _ => pending.marks_since.map(|since| since + MARKS_WAIT),
            };
            let at = [work, marks, upkeep].into_iter().flatten().min();
            match at {
                Some(at) if at <= now => {
                    let marks = marks.is_some_and(|at| at <= now);
                    return Some(self.take(&mut pending, marks));
                }
                Some(at) => drop(shared.wake.wait_until(&mut pending, at)),
                None => shared.wake.wait(&mut pending),
            }
        }
    }

    /// `due`: it is time for the news that gathered.
    fn take(&mut self, pending: &mut Pending, due: bool) -> Group {
        let mut group = Group::default();
        if pending.requests.len() <= GROUP {
            group.requests = std::mem::take(&mut pending.requests);
            pending.bytes = 0;
        } else {
            let rest = pending.requests.split_off(GROUP);
            group.requests = std::mem::replace(&mut pending.requests, rest);
            pending.bytes = pending.requests.iter().map(|(r, _)| size(r)).sum();
        }
        // What is asked is asked of rows that know everything. There is one other file: first what it holds must be written.
        let asked = !pending.jobs.is_empty() || pending.closed;
        if self.news.is_empty() {
            if (due || asked) && !pending.marks.is_empty() {
                let mut news: Vec<Mark> = pending.marks.drain().map(|m| m.1).collect();
                news.sort_unstable_by_key(|m| m.id);
                self.news = news.into();
                pending.marks_since = None;
                if let Err(error) = pending.journal.turn() {
                    tracing::error!(%error, "the short message journal is not written");
                }
            }
            group.jobs = std::mem::take(&mut pending.jobs);
        }
        // With many requests more: each of them makes a mark or two.
        let slice = if asked { usize::MAX } else { SLICE.max(2 * group.requests.len()) };
        group.marks = self.news.drain(..slice.min(self.news.len())).collect();
        group
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
        self.failed = result.is_err();
        match result {
            Ok(after) => {
                if !marks.is_empty()
                    && self.news.is_empty()
                    && let Err(error) = shared.pending.lock().journal.forget()
                {
                    tracing::error!(%error, "the short message journal is not emptied");
                }
                self.tell(after, requests, jobs);
                self.checkpoint();
            }
            Err(Failure::Before(error) | Failure::AtCommit(error)) => {
                tracing::error!(%error, "the short message store failed");
                let error = StoreError::engine(error);
                // In front, as they were; the journal has them still.
                marks.into_iter().rev().for_each(|mark| self.news.push_front(mark));
                requests.into_iter().for_each(|(_, done)| sql::finish(done, Err(error.clone())));
                jobs.into_iter().for_each(|job| job.fail(error.clone()));
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn checkpoint(&mut self) {
        if let (Some(checkpoints), Some(connection)) = (&self.checkpoints, &mut self.connection)
            && let Err(error) = self.runtime.block_on(checkpoints.committed(connection))
        {
            tracing::warn!(%error, "the short message store's log does not begin anew");
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

pub(super) fn size(request: &Request) -> usize {
    request.parts.iter().map(|p| p.short_message.len() + super::ROW).sum()
}

pub(super) fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Most requests in one transaction.
const GROUP: usize = 1_024;
/// News written with one group: some 2 ms.
const SLICE: usize = 128;
/// Least time from one commit to the next: on a fast disk it keeps groups from being single rows.
const BETWEEN: Duration = Duration::from_millis(3);
/// How long news waits: what is sent and delivered within it costs one update.
const MARKS_WAIT: Duration = Duration::from_millis(200);
/// After a failed group.
const PAUSE: Duration = Duration::from_millis(200);
