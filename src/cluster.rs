//! What several servers on one PostgreSQL tell each other: that bindings have changed, and for whom a message is kept.
//!
//! Each hint may be lost: bindings are looked for once a second anyway, waiting messages with the courier's own look.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sip_ims::ports::{Bus, BusError, Done, MessageId, MessageQueue, QueuedMessage, StoreError, Subscription};
use sip_ims::service::Location;
use sip_ims::{Aor, answer};
use sip_messaging::Pager;
use sip_registrar::Registrar;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::app::unix_now;
use crate::store::Store;

/// This node among the others.
pub struct Cluster {
    bus: Arc<dyn Bus>,
    node: String,
    /// The store is one that others write too.
    shared: bool,
}

impl Cluster {
    pub fn new(bus: Arc<dyn Bus>, node: String, shared: bool) -> Cluster {
        Cluster { bus, node, shared }
    }

    /// The queue, with other nodes told of each message that it keeps.
    pub fn messages(&self, queue: Arc<dyn MessageQueue>) -> Arc<dyn MessageQueue> {
        match self.shared {
            true => Arc::new(Announcing { queue, bus: self.bus.clone() }),
            false => queue,
        }
    }

    /// Takes part from now on, until the store is closed. The hints end with the guards.
    pub fn follow(
        &self,
        store: &Store,
        registrar: Arc<Registrar>,
        pager: Arc<Pager>,
        runtime: &Handle,
    ) -> Result<Vec<Subscription>, BusError> {
        if !self.shared {
            return Ok(Vec::new());
        }
        let (bus, node) = (self.bus.clone(), self.node.clone());
        // A topic of ours is one, and a name is no longer than a hint may be.
        store.announce_bindings(move || _ = bus.publish(CHANGED, node.as_bytes()));
        let hint = Arc::new(Notify::new());
        let (heard, node) = (hint.clone(), self.node.clone());
        let changed = self.bus.subscribe(
            CHANGED,
            Box::new(move |_, from| {
                if from != node.as_bytes() {
                    heard.notify_one();
                }
            }),
        )?;
        let places = registrar.clone();
        let kept = self.bus.subscribe(
            KEPT,
            Box::new(move |_, aor| {
                let Some(aor) = std::str::from_utf8(aor).ok().and_then(|text| text.parse::<Aor>().ok()) else { return };
                let mut here = false;
                places.each(aor.as_str(), unix_now(), &mut |_| here = true);
                pager.kept_elsewhere(&aor, here);
            }),
        )?;
        runtime.spawn(take_over(registrar, hint));
        Ok(vec![changed, kept])
    }
}

/// Reads what other nodes have changed at each hint, and once a second.
async fn take_over(registrar: Arc<Registrar>, hint: Arc<Notify>) {
    loop {
        let _ = tokio::time::timeout(BETWEEN, hint.notified()).await;
        let (done, changed) = answer();
        registrar.catch_up(Instant::now(), unix_now(), done);
        match changed.await {
            Ok(_) => {}
            Err(StoreError::Closed) => return,
            Err(error) => tracing::warn!(%error, "other nodes' bindings not read"),
        }
        // Hints of a busy neighbour are gathered.
        tokio::time::sleep(GATHER).await;
    }
}

const CHANGED: &str = "reg.changed";
const KEPT: &str = "message.kept";
/// Without a hint.
const BETWEEN: Duration = Duration::from_secs(1);
const GATHER: Duration = Duration::from_millis(20);

/// A queue that tells of each message put into it, once it is safe.
struct Announcing {
    queue: Arc<dyn MessageQueue>,
    bus: Arc<dyn Bus>,
}

impl MessageQueue for Announcing {
    fn put(&self, message: QueuedMessage, done: Done<MessageId>) {
        let (bus, aor) = (self.bus.clone(), message.aor.clone());
        let done = Box::new(move |result: Result<MessageId, StoreError>| {
            if result.is_ok() {
                let _ = bus.publish(KEPT, aor.as_str().as_bytes());
            }
            done(result);
        });
        self.queue.put(message, done);
    }

    fn pending(&self, aor: &Aor, after: MessageId, limit: u32, done: Done<Vec<(MessageId, QueuedMessage)>>) {
        self.queue.pending(aor, after, limit, done);
    }

    fn claim(&self, aor: &Aor, now: i64, until: i64, done: Done<bool>) {
        self.queue.claim(aor, now, until, done);
    }

    fn release(&self, aor: &Aor) {
        self.queue.release(aor);
    }

    fn addressees(&self, after: &str, limit: u32, done: Done<Vec<Aor>>) {
        self.queue.addressees(after, limit, done);
    }

    fn remove(&self, id: MessageId, done: Done<bool>) {
        self.queue.remove(id, done);
    }

    fn overdue(&self, now: i64, after: MessageId, limit: u32, done: Done<Vec<(MessageId, QueuedMessage)>>) {
        self.queue.overdue(now, after, limit, done);
    }

    fn expire(&self, now: i64, done: Done<u64>) {
        self.queue.expire(now, done);
    }
}
