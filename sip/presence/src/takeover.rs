//! Subscriptions that change their node: one that is refreshed at another node than the one that granted it goes over to it, and those
//! of a node that has died go over to the others.
//!
//! A row says which node a subscription is with, whoever wrote it last. A node that reads that one of its own is with another now forgets it
//! without a word.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_ims::Aor;
use sip_ims::notify::contact_for;
use sip_ims::ports::{Done, StateChange, StateRow};
use sip_ims::service::{Request, Step, Transaction};
use sip_proto::{Flow, Hop, Message};
use siphasher::sip::SipHasher13;

use crate::reply::No;
use crate::rows;
use crate::server::Presence;
use crate::watch::DialogKey;
use crate::work::unix_now;

/// Who waits for a subscription, and which nodes are alive.
#[derive(Default)]
pub(crate) struct Takeover {
    /// Asks for a reading of the store soon; set where other nodes write it.
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// By owner: refreshes of dialogs that another node may know.
    waiting: Mutex<HashMap<Aor, Vec<Waiting>>>,
    nodes: Mutex<HashMap<Box<str>, Beat>>,
    /// When this node has shown itself last.
    shown: AtomicU64,
}

/// A SUBSCRIBE that waits to be granted.
struct Waiting {
    key: DialogKey,
    transaction: Transaction,
    flow: Flow,
    bytes: Vec<u8>,
}

/// What was last heard of another node.
struct Beat {
    count: u64,
    at: Instant,
}

/// The owner of the rows by which nodes show that they are alive: no address-of-record.
const NODES: &str = "node";
/// Seconds between two of them.
const BEAT: u64 = 5;
/// A node that has shown nothing for so long is dead: its subscriptions go to others.
const DEAD: Duration = Duration::from_secs(20);
/// Refreshes that wait.
const MAX_WAITING: usize = 10_000;

impl Presence {
    /// Other nodes write the store too; `wake` has it read soon. Call it once.
    pub fn share(&self, wake: impl Fn() + Send + Sync + 'static) {
        // The first stays: there is only one store.
        let _ = self.takeover.wake.set(Box::new(wake));
    }

    /// A SUBSCRIBE in a dialog that is not known here: answered when the store has been asked whose it is.
    pub(crate) fn take_later(&self, step: &mut Step<'_>, request: &Request<'_>) -> Result<(), No> {
        let message = request.message;
        let to = message.to().and_then(|n| n.uri());
        let key = self.dialog_key(message);
        let owner = to.and_then(|uri| self.parts.home.aor(&uri)).and_then(|aor| self.place_of(aor, key));
        let (Some(wake), Some(owner)) = (self.takeover.wake.get(), owner) else { return Err(No::Status(481)) };
        let mut waiting = self.takeover.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            return Err(No::Busy);
        }
        let transaction = step.defer(request).map_err(|_full| No::Busy)?;
        let one = Waiting { key, transaction, flow: *request.flow, bytes: message.bytes().to_vec() };
        waiting.entry(owner.clone()).or_default().push(one);
        drop(waiting);
        self.reading.want(owner.as_str());
        wake();
        Ok(())
    }

    /// The rows of an owner, as they are in the store now. Called without any lock.
    pub(crate) fn settle(&self, owner: &Aor, rows: &[StateRow<'_>], unix: u64) {
        self.let_go(owner, rows);
        let waiting = self.takeover.waiting.lock().remove(owner).unwrap_or_default();
        for Waiting { key, transaction, flow, bytes } in waiting {
            let name = key.row_key();
            let row = rows.iter().find(|row| row.key == name && row.expires_at > unix as i64);
            let taken = row.is_some_and(|row| self.take(owner, row, unix));
            let known = self.watched_in(key);
            let result = match (known, Message::parse(&bytes)) {
                (Some(aor), Ok(message)) => {
                    self.prolong(transaction, &message, &flow, (Instant::now(), unix), &aor, key.number())
                }
                _ => Err(No::Status(481)),
            };
            if let (Err(no), Some(outlet)) = (result, self.outlet.get()) {
                tracing::debug!(taken, status = no.status(), "a subscription of another node is not prolonged");
                outlet.answer(transaction, no.status(), &|w| no.write(w));
            }
        }
    }

    /// Those of ours that are with another node now.
    fn let_go(&self, owner: &Aor, rows: &[StateRow<'_>]) {
        let theirs = rows.iter().filter(|row| row.node != self.config.node);
        let gone: Vec<u64> = theirs.filter_map(|row| rows::dialog_of(row)).map(DialogKey::number).collect();
        if gone.is_empty() {
            return;
        }
        let mut shard = self.shard(owner.as_str());
        if let Some((p, _)) = shard.get(owner.as_str()) {
            gone.into_iter().for_each(|number| self.remove(owner, p, number));
        }
        shard.tidy(owner.as_str());
    }

    /// Takes a subscription over from its row. False if that does not read, or leads nowhere.
    fn take(&self, owner: &Aor, row: &StateRow<'_>, unix: u64) -> bool {
        let Some(mut kept) = rows::read_watch(row) else { return false };
        let key = kept.key;
        // Whoever hears from us answers to us.
        if let Some(Hop::Address { transport, remote } | Hop::Host { transport, remote, .. }) = kept.hop {
            kept.contact = contact_for(&self.parts.home, transport, remote.ip()).into();
        }
        let now = Instant::now();
        self.restore_watch(owner, kept, row.expires_at.unsigned_abs(), now, unix, now);
        let mut shard = self.shard(owner.as_str());
        let Some((p, _)) = shard.get(owner.as_str()) else { return false };
        let Some(watch) = self.watch(owner, p, key.number()) else { return false };
        watch.reserved = watch.dialog.local_sequence().unwrap_or(0) + crate::watch::RESERVE;
        if let Err(error) = self.write_row(owner, watch, None) {
            // It is written again with its next NOTIFY.
            watch.reserved = 0;
            tracing::debug!(%error, "a subscription that was taken over is not written yet");
        }
        true
    }

    /// Once a second, where nodes share the store: shows that this one is alive, and looks which are not.
    pub(crate) fn beat(&self, now: Instant, unix: u64) {
        if self.takeover.wake.get().is_none() {
            return;
        }
        if unix >= self.takeover.shown.load(Relaxed) + BEAT {
            self.takeover.shown.store(unix, Relaxed);
            let body = unix.to_le_bytes();
            let (key, node) = (&*self.config.node, &*self.config.node);
            let expires_at = (unix + 86_400) as i64;
            // One that is not written is followed by another.
            let _ = self
                .parts
                .store
                .write(StateChange::Put(StateRow { owner: NODES, key, node, expires_at, body: &body }), None);
        }
        let dead: Vec<Box<str>> = {
            let mut nodes = self.takeover.nodes.lock();
            let dead = nodes.iter().filter(|(_, beat)| now.duration_since(beat.at) > DEAD);
            let dead: Vec<Box<str>> = dead.map(|(node, _)| node.clone()).collect();
            nodes.retain(|node, _| !dead.contains(node));
            dead
        };
        dead.into_iter().for_each(|node| self.inherit(&node));
    }

    /// The rows by which nodes show that they are alive. False: these are others.
    pub(crate) fn hear_beats(&self, owner: &str, rows: &[StateRow<'_>]) -> bool {
        if owner != NODES {
            return false;
        }
        let now = Instant::now();
        for row in rows {
            self.hear_beat(row, now);
        }
        self.takeover.nodes.lock().retain(|node, _| rows.iter().any(|row| row.key == &**node));
        true
    }

    /// One of them. At the start too: a node that has died by then shows nothing more. False: it is another row.
    pub(crate) fn hear_beat(&self, row: &StateRow<'_>, now: Instant) -> bool {
        if row.owner == NODES && row.key != self.config.node {
            let count = row.body.try_into().map_or(0, u64::from_le_bytes);
            let mut nodes = self.takeover.nodes.lock();
            let beat = nodes.entry(row.key.into()).or_insert(Beat { count, at: now });
            if beat.count != count {
                *beat = Beat { count, at: now };
            }
        }
        row.owner == NODES
    }

    /// A node is dead: takes over the part of its subscriptions that falls to this one.
    fn inherit(&self, node: &str) {
        tracing::warn!(node, "a node has died: its subscriptions go to the others");
        let Some(me) = self.me.upgrade() else { return };
        let mut alive: Vec<Box<str>> = self.takeover.nodes.lock().keys().cloned().collect();
        alive.push(self.config.node.as_str().into());
        let (dead, heir) = (node.to_owned(), me.clone());
        let each = move |row: StateRow<'_>| {
            let unix = unix_now();
            let Some(key) = rows::dialog_of(&row).filter(|_| row.node == dead && row.expires_at > unix as i64) else {
                return;
            };
            let Ok(owner) = row.owner.parse::<Aor>() else { return };
            // Each subscription falls to one of those who are left, the same for all (rendezvous hashing).
            let weight = |name: &str| SipHasher13::new().hash(format!("{name} {:x}", key.0).as_bytes());
            let first = alive.iter().max_by_key(|name| (weight(name), (*name).clone()));
            if first.is_some_and(|name| **name == *heir.config.node) {
                heir.take(&owner, &row, unix);
            }
        };
        let name = node.to_owned();
        let done: Done<u64> = Box::new(move |result| match result {
            Ok(_) => {
                let change = StateChange::Forget { owner: NODES, key: &name, node: &name };
                let _ = me.parts.store.write(change, None);
            }
            Err(error) => tracing::warn!(%error, "the subscriptions of a dead node could not be read"),
        });
        self.parts.store.load(Box::new(each), done);
    }
}
