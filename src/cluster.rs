//! What several servers on one PostgreSQL tell each other: where each takes SIP, that bindings have changed, and for whom a
//! message is kept.
//!
//! Each hint may be lost: bindings and nodes are looked for once a second anyway, waiting messages with the courier's own look.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sip_ims::ports::{
    Bus, BusError, Document, Documents, Done, Expect, MessageId, MessageQueue, QueuedMessage, StoreError, Subscription,
    Version,
};
use sip_ims::service::{Location, Nodes};
use sip_ims::{Aor, Home, answer};
use sip_messaging::Pager;
use sip_proto::{Hop, Transport};
use sip_registrar::Registrar;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::app::unix_now;
use crate::store::Store;

mod roll;

use roll::{BEAT, DEAD, Roll};

/// This node among the others.
pub struct Cluster {
    bus: Arc<dyn Bus>,
    node: String,
    /// The store is one that others write too.
    shared: bool,
    roll: Arc<Roll>,
}

impl Cluster {
    /// `secret`: what all nodes share.
    pub fn new(bus: Arc<dyn Bus>, node: String, shared: bool, secret: &[u8; 32]) -> Cluster {
        Cluster { bus, roll: Arc::new(Roll::new(node.clone(), secret)), node, shared }
    }

    pub fn bus(&self) -> &Arc<dyn Bus> {
        &self.bus
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    /// The store is one that other nodes write too.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// The other nodes; `None` where there cannot be any.
    pub fn nodes(&self) -> Option<Arc<dyn Nodes>> {
        self.shared.then(|| self.roll.clone() as Arc<dyn Nodes>)
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
        home: &Home,
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
        let documents = store.documents();
        let others = Others { documents, registrar: registrar.clone(), roll: self.roll.clone(), read: None };
        runtime.spawn(take_over(registrar, hint, others, self.node.clone(), takes_sip_at(home)));
        Ok(vec![changed, kept])
    }
}

/// Reads what other nodes have changed at each hint, and once a second.
async fn take_over(
    registrar: Arc<Registrar>,
    hint: Arc<Notify>,
    mut others: Others,
    node: String,
    here: Option<String>,
) {
    let mut told = None::<Instant>;
    loop {
        if let Some(at) = &here
            && told.is_none_or(|told| told.elapsed() >= BEAT)
            && others.tell(&node, at).await
        {
            told = Some(Instant::now());
        }
        others.learn().await;
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

/// Where the nodes take SIP: a document each, which it writes as long as it lives.
struct Others {
    documents: Arc<dyn Documents>,
    registrar: Arc<Registrar>,
    roll: Arc<Roll>,
    read: Option<Instant>,
}

impl Others {
    /// Whether the others can read now where this one is, and that it lives.
    async fn tell(&self, node: &str, at: &str) -> bool {
        let (done, told) = answer();
        self.documents.put(NODES, node, Expect::Anything, at.as_bytes().to_vec(), done);
        if let Err(error) = told.await {
            tracing::warn!(%error, "other nodes are not told where this one is");
            self.roll.excuse(Instant::now());
            return false;
        }
        true
    }

    /// Once a second, and sooner when there is one that nobody has told of.
    async fn learn(&mut self) {
        let pause = if self.registrar.misses_a_node() { BETWEEN / 10 } else { BETWEEN };
        if self.read.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        // This process was stopped meanwhile, or waited for the store.
        let late = self.read.is_some_and(|at| at.elapsed() > DEAD / 3);
        self.read = Some(Instant::now());
        match self.all().await {
            Ok(all) => {
                all.iter().for_each(|(name, hop, _)| self.registrar.node_at(name, *hop));
                self.roll.call(Instant::now(), all);
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "other nodes' addresses not read");
                return self.roll.excuse(Instant::now());
            }
        }
        if late {
            self.roll.excuse(Instant::now());
        }
    }

    async fn all(&self) -> Result<Vec<(String, Hop, Version)>, StoreError> {
        let (mut all, mut after) = (Vec::new(), String::new());
        for _ in 0..MAX_PAGES {
            let (done, page) = answer();
            self.documents.list(NODES, &after, PAGE, done);
            let page = page.await?;
            let count = page.len();
            for Document { key, version, body } in page {
                after.clone_from(&key);
                if let Some(hop) = std::str::from_utf8(&body).ok().and_then(hop_of) {
                    all.push((key, hop, version));
                }
            }
            if count < PAGE as usize {
                break;
            }
        }
        Ok(all)
    }
}

/// Where others send what is for a connection of ours: `tcp 192.0.2.1:5060`. TCP before UDP, for its length has no limit.
fn takes_sip_at(home: &Home) -> Option<String> {
    let door = |transport| home.listeners().iter().find(|l| l.transport == transport);
    let listener = door(Transport::Tcp).or_else(|| door(Transport::Udp))?;
    Some(format!("{} {}", listener.transport, std::str::from_utf8(&listener.sent_by).ok()?))
}

fn hop_of(text: &str) -> Option<Hop> {
    let (transport, remote) = text.split_once(' ')?;
    Some(Hop::Address { transport: Transport::from_token(transport.as_bytes())?, remote: remote.parse().ok()? })
}

/// Collection of the nodes' documents.
const NODES: &str = "node";
const PAGE: u32 = 100;
const MAX_PAGES: usize = 10;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_where_it_says() {
        let door = |t, a: &str| (t, a.parse().unwrap());
        let udp = door(Transport::Udp, "192.0.2.1:5060");
        for (doors, expected) in [
            (vec![udp, door(Transport::Tcp, "[2001:db8::1]:5062")], Some("tcp [2001:db8::1]:5062")),
            (vec![udp, door(Transport::Tls, "192.0.2.1:5061")], Some("udp 192.0.2.1:5060")),
            (vec![door(Transport::Tls, "192.0.2.1:5061")], None),
        ] {
            let at = takes_sip_at(&Home::new("home.test", doors));
            assert_eq!(at.as_deref(), expected);
            if let Some(at) = at {
                let hop = hop_of(&at).unwrap();
                assert_eq!(format!("{} {}", hop.transport(), hop.remote()), at);
            }
        }
        assert_eq!(hop_of("carrier-pigeon 192.0.2.1:5060"), None);
    }
}
