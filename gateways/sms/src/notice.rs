//! Telling clients what their requests came to, until they have heard it.
//!
//! Notices wait in the store ([`Queue`]); what is here was lent by it. A client whose address does not answer has its others put off, too, so
//! that it does not keep the rest waiting.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::billing::Calendar;
use crate::push::message;
use crate::queue::{Notice, Queue};
use crate::registry::{ApiClient, Registry};

/// Delivers a notice to its client.
pub trait Teller: Send + Sync {
    /// Whether the client took it. `Gone`: there is nobody to tell.
    fn tell(&self, notice: &Notice) -> Pin<Box<dyn Future<Output = Told> + Send>>;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    Yes,
    No,
    /// Nobody to tell for the moment: soon again, and as often as it takes.
    Absent,
    Gone,
}

/// Sends an HTTP POST; the status, or `None` when there was no answer.
pub trait Poster: Send + Sync {
    fn post(
        &self,
        url: &str,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = Option<u16>> + Send>>;
}

/// The way in for the queue.
pub struct Notices {
    queue: mpsc::UnboundedSender<Notice>,
    /// Lent and not yet answered.
    open: Arc<AtomicUsize>,
    pub counts: Arc<Counts>,
}

#[derive(Default, Debug)]
pub struct Counts {
    pub told: AtomicU64,
    pub put_off: AtomicU64,
    pub given_up: AtomicU64,
}

/// The part that runs.
pub struct Notifier {
    notices: mpsc::UnboundedReceiver<Notice>,
    open: Arc<AtomicUsize>,
    counts: Arc<Counts>,
    clients: HashMap<Arc<str>, Client>,
}

#[derive(Default)]
struct Client {
    waiting: VecDeque<Notice>,
    running: usize,
    /// Unix milliseconds until which nothing is tried.
    paused_until: i64,
}

impl Notices {
    pub fn new() -> (Notices, Notifier) {
        // Bounded by `room`: the queue lends no more than that.
        let (queue, notices) = mpsc::unbounded_channel();
        let (open, counts) = (Arc::<AtomicUsize>::default(), Arc::<Counts>::default());
        let notifier = Notifier { notices, open: open.clone(), counts: counts.clone(), clients: HashMap::new() };
        (Notices { queue, open, counts }, notifier)
    }

    pub fn take(&self, notices: Vec<Notice>) {
        self.open.fetch_add(notices.len(), Relaxed);
        for notice in notices {
            // Gone with the server: the store lends them again after a while.
            let _ = self.queue.send(notice);
        }
    }

    pub fn room(&self) -> usize {
        ROOM.saturating_sub(self.open.load(Relaxed))
    }
}

impl Notifier {
    /// Delivers until the last [`Notices`] is gone. `clock`: unix milliseconds.
    pub async fn run(
        mut self,
        queue: Arc<dyn Queue>,
        teller: Arc<dyn Teller>,
        clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    ) {
        let mut running: JoinSet<(Notice, Told)> = JoinSet::new();
        loop {
            tokio::select! {
                notice = self.notices.recv() => match notice {
                    Some(notice) => {
                        let now = clock();
                        let client = self.clients.entry(notice.client.clone()).or_default();
                        if client.paused_until > now {
                            let due = client.paused_until;
                            self.put_off(&*queue, &notice, due, notice.attempts);
                        } else {
                            client.waiting.push_back(notice);
                        }
                    }
                    None => return,
                },
                Some(done) = running.join_next(), if !running.is_empty() => match done {
                    Ok((notice, told)) => self.told(&*queue, notice, told, clock()),
                    // It comes again by its own time.
                    Err(error) => tracing::error!(%error, "a notification panicked"),
                },
            }
            self.start(&mut running, &teller);
        }
    }

    fn start(&mut self, running: &mut JoinSet<(Notice, Told)>, teller: &Arc<dyn Teller>) {
        for client in self.clients.values_mut() {
            while client.running < AT_ONCE_EACH && running.len() < AT_ONCE {
                let Some(notice) = client.waiting.pop_front() else { break };
                client.running += 1;
                let teller = teller.clone();
                running.spawn(async move {
                    let told = teller.tell(&notice).await;
                    (notice, told)
                });
            }
        }
        self.clients.retain(|_, c| c.running > 0 || !c.waiting.is_empty() || c.paused_until > 0);
    }

    fn told(&mut self, queue: &dyn Queue, notice: Notice, told: Told, now: i64) {
        if let Some(client) = self.clients.get_mut(&notice.client) {
            client.running -= 1;
        }
        let given_up = told == Told::No && now - notice.done_at > PATIENCE;
        match told {
            Told::Absent if now - notice.done_at <= PATIENCE => {
                self.put_off(queue, &notice, now + PAUSES[0] * 1_000, notice.attempts);
                self.pause(queue, &notice.client, now + PAUSES[0] * 1_000);
            }
            Told::No if !given_up => {
                let pause = PAUSES[usize::from(notice.attempts).min(PAUSES.len() - 1)] * 1_000;
                self.put_off(queue, &notice, now + pause, notice.attempts.saturating_add(1));
                self.pause(queue, &notice.client, now + PAUSES[0] * 1_000);
            }
            _ => {
                let counter = if told == Told::Yes { &self.counts.told } else { &self.counts.given_up };
                counter.fetch_add(1, Relaxed);
                if told == Told::Yes
                    && let Some(client) = self.clients.get_mut(&notice.client)
                {
                    client.paused_until = 0;
                }
                self.open.fetch_sub(1, Relaxed);
                queue.notified(notice.id);
            }
        }
    }

    /// The others of a client that does not answer wait as well.
    fn pause(&mut self, queue: &dyn Queue, name: &Arc<str>, until: i64) {
        let Some(client) = self.clients.get_mut(name) else { return };
        client.paused_until = until;
        for notice in std::mem::take(&mut client.waiting) {
            self.put_off(queue, &notice, until, notice.attempts);
        }
    }

    fn put_off(&self, queue: &dyn Queue, notice: &Notice, due: i64, attempts: u16) {
        self.counts.put_off.fetch_add(1, Relaxed);
        self.open.fetch_sub(1, Relaxed);
        queue.notify_later(notice.id, due, attempts);
    }
}

/// Tells push clients, at their callbacks.
pub struct PushTeller {
    pub registry: Arc<Registry>,
    pub poster: Arc<dyn Poster>,
    pub calendar: Calendar,
}

impl Teller for PushTeller {
    fn tell(&self, notice: &Notice) -> Pin<Box<dyn Future<Output = Told> + Send>> {
        let client = self.registry.push_client(&notice.client).filter(|c| !c.callback.is_empty());
        let Some(client) = client else { return Box::pin(std::future::ready(Told::Gone)) };
        let at = self.calendar.timestamp(notice.done_at);
        let mut bodies = Vec::with_capacity(2);
        if !notice.cancel || notice.cancelled < notice.parts {
            bodies.push(message::completed(notice, &at));
        }
        if notice.cancel {
            bodies.push(message::cancelled(notice, &at));
        }
        let poster = self.poster.clone();
        Box::pin(async move {
            for body in bodies {
                let headers = vec![("content-type", "text/xml; charset=UTF-8".to_owned())];
                if poster.post(&client.callback, headers, body).await != Some(200) {
                    return Told::No;
                }
            }
            Told::Yes
        })
    }
}

/// Chooses the teller by the kind of client.
pub struct Tellers {
    pub push: PushTeller,
    pub esme: Option<Arc<dyn Teller>>,
    pub api: Arc<dyn Teller>,
    pub user: Option<Arc<dyn Teller>>,
}

impl Teller for Tellers {
    fn tell(&self, notice: &Notice) -> Pin<Box<dyn Future<Output = Told> + Send>> {
        let special = [(crate::esme::CLIENT, &self.esme), (crate::ip_sm_gw::CLIENT, &self.user)];
        match special.into_iter().find(|(prefix, _)| notice.client.starts_with(prefix)) {
            Some((_, Some(teller))) => teller.tell(notice),
            _ if notice.client.starts_with(ApiClient::CLIENT) => self.api.tell(notice),
            _ => self.push.tell(notice),
        }
    }
}

/// Notices lent at once.
const ROOM: usize = 10_000;
/// Deliveries at once, in all and to one client.
const AT_ONCE: usize = 128;
const AT_ONCE_EACH: usize = 16;
/// Seconds before the next attempt.
const PAUSES: [i64; 6] = [10, 30, 60, 300, 900, 3_600];
/// Milliseconds after which nobody is told any more: a day.
const PATIENCE: i64 = 86_400_000;

#[cfg(test)]
mod tests;
