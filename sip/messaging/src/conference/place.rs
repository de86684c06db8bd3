//! Which node is the focus of a room, where several share the store.
//!
//! The room's row says it, and changes with its version alone. A request for a room that is not here waits while the row is read, and is
//! handed in again: to be answered here, where the room had no focus or one that is dead; else to be handed over to its node. A node
//! that finds its room with another lets it go, with everybody in it: they join again there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use media_msrp::write::letters;
use parking_lot::Mutex;
use sip_ims::answer;
use sip_ims::ports::{Expect, StoreError, Version};
use sip_ims::service::{Request, Step, Verdict};
use sip_proto::{Flow, HeaderName};

use super::room::Room;
use super::row::Row;
use super::{COLLECTION, Rooms, TRIES};
use crate::agent::reply;

/// What is known of rooms that are not here.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<Box<str>, Place>>);

enum Place {
    /// The row is being read; these wait for it.
    Sought(Vec<(Flow, Box<[u8]>)>),
    Known(Found, Instant),
}

/// Where a room was found.
enum Found {
    Here,
    At(Box<str>),
    Nowhere,
    /// The store failed, or there is no place for another room.
    Busy,
}

/// How long it counts where a room was found: a request that waited comes in again sooner.
const TRUST: Duration = Duration::from_secs(3);
/// Seconds after which a room whose node nobody has heard of is one of a dead node.
const FRESH: u64 = 15;
/// How often, and how many times, it is looked whether a node was heard of.
const HEARING: Duration = Duration::from_millis(200);
const HEARINGS: usize = 15;
/// Rooms whose place is sought or known.
const MAX_PLACES: usize = 10_000;
/// Requests that wait for one room.
const MAX_WAITING: usize = 64;
/// Rows whose versions are compared at a time.
const PAGE: u32 = 500;
/// Letters of an address after `chat-`: 125 bits.
const LETTERS: usize = 21;

/// The user part of a new room's address.
pub(super) fn new_id() -> String {
    format!("chat-{}", String::from_utf8_lossy(&letters::<LETTERS>(rand::random())))
}

fn is_id(user: &str) -> bool {
    let rest = user.strip_prefix("chat-").unwrap_or_default();
    rest.len() == LETTERS && rest.bytes().all(|b| b.is_ascii_alphanumeric())
}

impl Rooms {
    /// The name of this node in rows; empty where it has the store for itself.
    pub(super) fn node(&self) -> &str {
        self.parts.nodes.as_ref().map_or("", |nodes| nodes.own())
    }

    /// Whether a node other than this one is the focus, and not dead.
    pub(super) fn is_with_another(&self, row: &Row) -> bool {
        let others = self.parts.nodes.as_ref().filter(|_| !row.node.is_empty() && row.node != self.node());
        others.is_some_and(|nodes| !nodes.is_dead(&row.node) || self.is_fresh(row))
    }

    /// A node that has just begun may have opened a room before anybody has heard of it.
    fn is_fresh(&self, row: &Row) -> bool {
        let now = (self.parts.unix)();
        (row.touched..row.touched + FRESH).contains(&now)
    }

    /// A request for a room that is not here.
    pub(super) fn seek(self: &Arc<Self>, step: &mut Step<'_>, request: &Request<'_>, id: &str) -> Verdict {
        let Some(nodes) = self.parts.nodes.as_ref().filter(|_| is_id(id)) else { return Verdict::Pass };
        let mut places = self.places.0.lock();
        let fresh = |place: &Place| match place {
            Place::Sought(_) => true,
            Place::Known(_, at) => step.now < *at + TRUST,
        };
        if places.len() >= MAX_PLACES {
            places.retain(|_, place| fresh(place));
        }
        let busy = |step: &mut Step<'_>| {
            reply(step, request, 503, |w| w.number(HeaderName::RetryAfter, 5));
            Verdict::Taken
        };
        let full = places.len() >= MAX_PLACES;
        match places.get_mut(id).filter(|place| fresh(place)) {
            Some(Place::Sought(waiting)) => {
                let one = (*request.flow, request.message.bytes().into());
                // Sent again meanwhile, it waits once.
                if waiting.len() < MAX_WAITING && !waiting.contains(&one) {
                    waiting.push(one);
                }
                return Verdict::Taken;
            }
            Some(Place::Known(Found::Nowhere, _)) => return Verdict::Pass,
            Some(Place::Known(Found::Busy, _)) => return busy(step),
            Some(Place::Known(Found::At(node), _)) => match nodes.at(node) {
                Some(hop) => {
                    self.counts.handed_over.fetch_add(1, Relaxed);
                    return Verdict::HandOver(hop);
                }
                None => return busy(step),
            },
            Some(Place::Known(Found::Here, _)) | None => {}
        }
        if full {
            return busy(step);
        }
        places.insert(id.into(), Place::Sought(vec![(*request.flow, request.message.bytes().into())]));
        let (rooms, id) = (self.clone(), Box::<str>::from(id));
        self.parts.runtime.spawn(async move {
            let found = rooms.find(&id).await;
            let before = rooms.places.0.lock().insert(id, Place::Known(found, Instant::now()));
            if let (Some(Place::Sought(waiting)), Some(again)) = (before, rooms.again.get()) {
                waiting.iter().for_each(|(flow, bytes)| again(flow, bytes));
            }
        });
        Verdict::Taken
    }

    /// Reads where a room is, and takes it if nobody has it.
    async fn find(self: &Arc<Self>, id: &str) -> Found {
        for _ in 0..TRIES {
            let (done, read) = answer();
            self.parts.documents.get(COLLECTION, id, done);
            let document = match read.await {
                Ok(Some(document)) => document,
                Ok(None) => return Found::Nowhere,
                Err(error) => {
                    tracing::warn!(%error, "a chat room could not be read");
                    return Found::Busy;
                }
            };
            let Ok(mut row) = Row::read(&document.body) else {
                tracing::warn!(room = id, "a stored chat room does not read back");
                return Found::Nowhere;
            };
            if self.is_with_another(&row) {
                self.until_heard_of(&row.node).await;
                return Found::At(row.node.into());
            }
            if self.rooms.lock().len() >= self.config.rooms {
                return Found::Busy;
            }
            row.node = self.node().to_owned();
            row.touched = (self.parts.unix)();
            let (done, taken) = answer();
            self.parts.documents.put(COLLECTION, id, Expect::Version(document.version), row.write(), done);
            match taken.await {
                Ok(version) => {
                    self.counts.taken_over.fetch_add(1, Relaxed);
                    self.enter(Room::new(self.clone(), id, row, Some(version)));
                    return Found::Here;
                }
                // Another node was quicker.
                Err(StoreError::Conflict) => {}
                Err(error) => {
                    tracing::warn!(%error, "a chat room could not be taken over");
                    return Found::Busy;
                }
            }
        }
        Found::Busy
    }

    /// A node that has just begun, or this one, may not have heard of the other yet.
    async fn until_heard_of(&self, node: &str) {
        for _ in 0..HEARINGS {
            if self.parts.nodes.as_ref().is_none_or(|nodes| nodes.at(node).is_some()) {
                return;
            }
            tokio::time::sleep(HEARING).await;
        }
    }

    /// A room of ours was written by somebody else: its version now. `None`: it is not ours any more, and was let go; or the store fails.
    pub(super) async fn still_ours(self: &Arc<Self>, room: &Arc<Room>) -> Option<Option<Version>> {
        let (done, read) = answer();
        self.parts.documents.get(COLLECTION, room.id(), done);
        match read.await {
            Ok(Some(document)) if Row::read(&document.body).is_ok_and(|row| row.node == self.node()) => {
                Some(Some(document.version))
            }
            Ok(_) => {
                self.let_go(room);
                None
            }
            Err(error) => {
                tracing::warn!(%error, "a chat room could not be read");
                None
            }
        }
    }

    fn let_go(&self, room: &Arc<Room>) {
        tracing::info!(room = room.id(), "a chat room is with another node now");
        self.rooms.lock().remove(room.id());
        self.counts.let_go.fetch_add(1, Relaxed);
        room.close();
    }

    /// Looks at a page of rows for rooms of ours that another node has taken.
    pub(super) async fn look_over(self: &Arc<Self>, after: &mut String) {
        if self.parts.nodes.is_none() || self.rooms.lock().is_empty() {
            return;
        }
        let (done, page) = answer();
        self.parts.documents.versions(COLLECTION, after, PAGE, done);
        let page = match page.await {
            Ok(page) => page,
            Err(StoreError::Closed) => return,
            Err(error) => return tracing::warn!(%error, "stored chat rooms could not be looked over"),
        };
        for (id, version) in &page {
            let Some(room) = self.get(id) else { continue };
            // One that is being written knows by itself.
            let Ok(mut stored) = room.stored.try_lock() else { continue };
            if *stored != Some(*version)
                && let Some(now) = self.still_ours(&room).await
            {
                *stored = now;
            }
        }
        *after = page.last().filter(|_| page.len() == PAGE as usize).map(|last| last.0.clone()).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_rooms_are_told_from_others() {
        let id = new_id();
        assert!(is_id(&id), "{id}");
        for other in ["chat-", "chat-short", "alice", &id[..25], &format!("{id}x"), "chat-a.b.c.d.e.f.g.h.i.j.k"] {
            assert!(!is_id(other), "{other}");
        }
    }
}
