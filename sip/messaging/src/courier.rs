//! The delivery worker: answers what was committed, and runs the rounds that are due. One task, and one per user served.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use sip_ims::ports::{MessageId, StoreError};
use sip_ims::service::{Chronicle, Location, NextHops, Note, NoteEvent, Outlet};
use sip_ims::{Aor, Home};
use sip_proto::HeaderName;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::counts::add;
use crate::pager::{Inbox, Order, Put, status_of};
use crate::round::{Memory, Rounds};
use crate::schedule::{Ended, Schedule};

/// What the courier works with.
pub struct CourierParts {
    pub location: Arc<dyn Location>,
    pub outlet: Arc<dyn Outlet>,
    /// For bindings whose hop the registrar does not know.
    pub next_hops: Arc<dyn NextHops>,
    pub chronicle: Arc<dyn Chronicle>,
    /// Which senders are users of ours.
    pub home: Arc<Home>,
    /// Wall-clock seconds since 1970.
    pub unix: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// Delivers kept messages. Made apart from the [`Pager`](crate::Pager), because the stack that it sends by holds the pager.
pub struct Courier {
    orders: mpsc::UnboundedReceiver<Order>,
    rounds: Arc<Rounds>,
    schedule: Schedule,
    running: JoinSet<Ended>,
    users: HashMap<Id, Aor>,
    sweep: Duration,
    /// Gives the users who are there and whom messages wait for, as far as that is news.
    cleaning: Option<JoinHandle<Vec<Aor>>>,
}

impl Courier {
    pub fn new(inbox: Inbox, parts: CourierParts) -> Courier {
        let rounds = Rounds {
            queue: inbox.queue,
            location: parts.location,
            outlet: parts.outlet,
            next_hops: parts.next_hops,
            chronicle: parts.chronicle,
            home: parts.home,
            unix: parts.unix,
            own: inbox.own,
            expiry: inbox.config.expiry,
            waiting: inbox.waiting,
            counts: inbox.counts,
            late: inbox.late,
            devices: inbox.config.devices,
            pusher: inbox.pusher,
            stopping: AtomicBool::new(false),
            memory: Mutex::new(Memory::default()),
        };
        Courier {
            orders: inbox.orders,
            rounds: Arc::new(rounds),
            schedule: Schedule::new(inbox.config.parallel),
            running: JoinSet::new(),
            users: HashMap::new(),
            sweep: inbox.config.sweep.max(Duration::from_secs(1)),
            cleaning: None,
        }
    }

    /// Runs until `stop` is ready or the pager is gone; then ends each round after the message it is at, which takes up to
    /// the 32 s of a transaction. Dropped earlier, a message that is under way may be delivered once more by the next start.
    ///
    /// When the server drains, `stop` belongs after the driver's last transaction and before the store's end: what was
    /// committed by then is answered. Bindings should be loaded before the start: users who are registered already are
    /// served first.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut sweeps = 0u32;
        let mut next_sweep = Instant::now();
        loop {
            let now = Instant::now();
            if now >= next_sweep && self.cleaning.is_none() {
                let (rounds, look) = (self.rounds.clone(), sweeps.is_multiple_of(SWEEPS_PER_LOOK));
                self.cleaning = Some(tokio::spawn(async move { rounds.clean(look).await }));
                sweeps = sweeps.wrapping_add(1);
                next_sweep = now + self.sweep;
            }
            self.start_rounds();
            let wake = self.schedule.deadline().map_or(next_sweep, |d| next_sweep.min(Instant::from_std(d)));
            tokio::select! {
                () = &mut stop => break,
                order = self.orders.recv() => match order {
                    Some(order) => self.take(order),
                    None => break,
                },
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                users = finished(&mut self.cleaning) => {
                    self.cleaning = None;
                    users.into_iter().for_each(|aor| self.schedule.wake(aor));
                }
                () = sleep_until(wake) => {}
            }
        }
        self.rounds.stopping.store(true, Relaxed);
        loop {
            // Whoever waits for a commit still gets the answer.
            tokio::select! {
                biased;
                Some(order) = self.orders.recv() => self.take(order),
                ended = self.running.join_next_with_id() => match ended {
                    Some(ended) => self.ended(ended),
                    None => return,
                },
            }
        }
    }

    fn start_rounds(&mut self) {
        while let Some(aor) = self.schedule.next(Instant::now().into_std()) {
            let (rounds, user) = (self.rounds.clone(), aor.clone());
            let task = self.running.spawn(async move { rounds.run(&user).await });
            self.users.insert(task.id(), aor);
        }
    }

    fn ended(&mut self, ended: Result<(Id, Ended), tokio::task::JoinError>) {
        let (id, ended) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!("a delivery round panicked");
                (error.id(), Ended::Later { retry_after: None })
            }
        };
        if let Some(aor) = self.users.remove(&id) {
            self.schedule.ended(Instant::now().into_std(), aor, ended);
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Registered(aor) => self.schedule.wake(aor),
            Order::Committed { put, result: Ok(id) } => self.committed(put, id),
            Order::Committed { put, result: Err(error) } => self.turned_away(&put, &error),
            Order::TakenLate { id, put } => self.taken_late(id, put),
            Order::Kept(aor) => self.kept(aor),
            Order::KeptOfSession { aor, call_id, stored } => {
                let rounds = self.rounds.clone();
                add(&rounds.counts.kept, 1);
                rounds.chronicle.note(&Note {
                    trace: &call_id,
                    event: NoteEvent::MessageKept,
                    status: 200,
                    from: b"",
                    to: b"",
                });
                if let Some(notice) = stored {
                    tokio::spawn(async move { rounds.tell(notice).await });
                }
                self.kept(aor);
            }
            Order::Read { aor, by, request } => {
                let rounds = self.rounds.clone();
                tokio::spawn(async move { rounds.share(&aor, by, &request).await });
            }
        }
    }

    fn kept(&mut self, aor: Aor) {
        self.rounds.waiting.add(&aor);
        if self.rounds.is_there(&aor) {
            self.schedule.wake(aor);
        }
    }

    fn committed(&mut self, mut put: Put, id: MessageId) {
        let rounds = &self.rounds;
        if let Some(notice) = put.stored.take() {
            let rounds = rounds.clone();
            tokio::spawn(async move { rounds.tell(notice).await });
        }
        rounds.waiting.add(&put.aor);
        rounds.outlet.answer(put.transaction, 202, &|_| {});
        add(&rounds.counts.kept, 1);
        rounds.chronicle.note(&Note {
            trace: &put.call_id,
            event: NoteEvent::MessageKept,
            status: 202,
            from: &put.from,
            to: &put.to,
        });
        if put.open {
            let aor = put.aor.clone();
            match rounds.late.committed(id, put) {
                Some(put) => self.taken_late(id, put),
                None => self.schedule.later(Instant::now().into_std(), aor),
            }
        } else if put.tried {
            self.schedule.later(Instant::now().into_std(), put.aor);
        } else if rounds.is_there(&put.aor) {
            // Registered between the look that found no phone and the commit: that call was not for this message.
            self.schedule.wake(put.aor);
        }
    }

    /// A phone answered after its message was kept: the next round takes it from the disk.
    fn taken_late(&mut self, id: MessageId, put: Put) {
        let rounds = &self.rounds;
        if rounds.memory.lock().settle(id) {
            add(&rounds.counts.delivered, 1);
            rounds.chronicle.note(&Note {
                trace: &put.call_id,
                event: NoteEvent::MessageDelivered,
                status: 200,
                from: &put.from,
                to: &put.to,
            });
        }
        self.schedule.wake(put.aor);
    }

    fn turned_away(&self, put: &Put, error: &StoreError) {
        let (status, retry_after) = status_of(error);
        if status >= 500 {
            tracing::warn!(%error, "a message could not be kept");
        }
        add(&self.rounds.counts.turned_away, 1);
        self.rounds.outlet.answer(put.transaction, status, &|w| {
            if let Some(seconds) = retry_after {
                w.number(HeaderName::RetryAfter, seconds.into());
            }
        });
    }
}

async fn finished(cleaning: &mut Option<JoinHandle<Vec<Aor>>>) -> Vec<Aor> {
    match cleaning {
        Some(task) => task.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

/// With the default sweep of a minute: every ten minutes.
const SWEEPS_PER_LOOK: u32 = 10;

#[cfg(test)]
mod tests;
