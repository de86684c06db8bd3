//! One anchored session: two legs, each with a URI of ours that only its peer knows.

use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::connection::Connection;
use crate::held::Custody;
use crate::local::Local;
use crate::tap::Tap;
use crate::tls::Fingerprint;
use crate::uri;

/// The two ends of a session, as an index: 0 or 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Who made the first offer.
    Caller,
    Callee,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Caller => Side::Callee,
            Side::Callee => Side::Caller,
        }
    }
}

/// What a session description told about a peer.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer {
    /// The value of its `path` attribute, checked, without the relay.
    pub path: Box<[u8]>,
    /// The URI that stood before it, if it has us as its relay (RFC 4976).
    pub relay: Option<Box<[u8]>>,
    /// We connect (RFC 6135); otherwise it does.
    pub connect: bool,
    /// The certificate that it will show (RFC 8122).
    pub fingerprint: Option<Fingerprint>,
}

/// An anchored session. Made by [`crate::Switch::open`]; it lives until [`crate::Switch::close`].
pub struct Bridge {
    pub(crate) legs: [Leg; 2],
    /// What the owner calls it, for logs and traces.
    pub(crate) name: Box<str>,
}

pub(crate) struct Leg {
    /// Our URI towards this peer.
    pub(crate) uri: Box<[u8]>,
    pub(crate) state: Mutex<LegState>,
    /// Told when `state` changes.
    pub(crate) changed: Notify,
    /// What stands here, when it is no peer.
    pub(crate) local: Option<Box<Local>>,
    /// Set once what this peer sends is to be judged before anybody gets it.
    pub(crate) custody: OnceLock<Box<Custody>>,
    /// Set once somebody listens to what this peer sends.
    pub(crate) tap: OnceLock<Box<Tap>>,
}

#[derive(Default)]
pub(crate) struct LegState {
    pub(crate) peer: Option<Peer>,
    pub(crate) link: Link,
    /// The SEND that bound the connection has been answered. Before that, some clients take nothing else for an answer.
    pub(crate) ready: bool,
    /// Message-IDs that the peer wants no more of (413), oldest first.
    pub(crate) stopped: SmallVec<[Box<[u8]>; 1]>,
}

/// Message-IDs that are remembered as stopped.
const MAX_STOPPED: usize = 16;

/// Where what is sent to a side goes.
pub(crate) enum Far {
    Connection(Arc<Connection>, Paths),
    Local,
}

/// To-Path and From-Path of what is sent to a peer.
pub(crate) struct Paths {
    pub(crate) to: Box<[u8]>,
    pub(crate) from: Box<[u8]>,
}

impl Leg {
    /// A relay puts itself in front of the From-Path of what it passes on (RFC 4976 §4), and so do we for whom we are one.
    pub(crate) fn paths(&self, peer: &Peer) -> Paths {
        let ws = peer.path.len().checked_sub(3).is_some_and(|at| peer.path[at..].eq_ignore_ascii_case(b";ws"));
        let uri = uri::over(&self.uri, ws);
        let from = match &peer.relay {
            Some(relay) => [&relay[..], b" ", &uri].concat().into(),
            None => uri.into(),
        };
        Paths { to: peer.path.clone(), from }
    }

    /// No more of this message is wanted from here.
    pub(crate) fn stop(&self, message_id: &[u8]) {
        let stopped = &mut self.state.lock().stopped;
        if stopped.len() == MAX_STOPPED {
            stopped.remove(0);
        }
        stopped.push(message_id.into());
    }

    pub(crate) fn has_stopped(&self, message_id: &[u8]) -> bool {
        self.state.lock().stopped.iter().any(|id| **id == *message_id)
    }
}

/// How a leg stands.
#[derive(Default)]
pub(crate) enum Link {
    /// Its connection is expected.
    #[default]
    Awaited,
    Up(Arc<Connection>),
    /// It was there, or could not be made; only a new description brings it back.
    Down,
    /// The session is over.
    Closed,
}

impl Bridge {
    /// Our URI towards a side.
    pub fn uri(&self, side: Side) -> &[u8] {
        &self.leg(side).uri
    }

    /// The same as it stands in a description, for a peer that comes by WebSocket or does not.
    pub fn uri_over(&self, side: Side, ws: bool) -> Vec<u8> {
        uri::over(self.uri(side), ws)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn leg(&self, side: Side) -> &Leg {
        &self.legs[side as usize]
    }

    /// Lets through what waited for this side.
    pub(crate) fn ready(&self, side: Side) {
        let leg = self.leg(side);
        if !std::mem::replace(&mut leg.state.lock().ready, true) {
            leg.changed.notify_waiters();
        }
    }

    /// Whether something that was sent waits for its verdict.
    pub(crate) fn holds(&self) -> bool {
        self.legs.iter().any(|leg| leg.custody.get().is_some_and(|c| c.is_waiting()))
    }

    /// Whether this side's connection is there.
    pub fn is_up(&self, side: Side) -> bool {
        matches!(self.leg(side).state.lock().link, Link::Up(_))
    }

    /// The connection of a side, and its path; waits while it is expected.
    pub(crate) async fn reach(&self, side: Side) -> Option<Far> {
        let leg = self.leg(side);
        loop {
            let changed = leg.changed.notified();
            tokio::pin!(changed);
            // Before the look, so that no change is missed.
            changed.as_mut().enable();
            {
                let state = leg.state.lock();
                match (&state.link, &state.peer) {
                    (Link::Awaited, _) if leg.local.is_some() => return Some(Far::Local),
                    (Link::Up(connection), Some(peer)) if state.ready => {
                        return Some(Far::Connection(connection.clone(), leg.paths(peer)));
                    }
                    (Link::Down | Link::Closed, _) => return None,
                    _ => {}
                }
            }
            changed.await;
        }
    }
}

impl fmt::Debug for Peer {
    /// Without the URIs: who knows one may speak.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("connect", &self.connect).finish_non_exhaustive()
    }
}

impl fmt::Debug for Bridge {
    /// Without the URIs: who knows one may speak.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("name", &self.name).finish_non_exhaustive()
    }
}
