//! The roll of the nodes: where each takes SIP, and which of them live.
//!
//! A node that lives writes its document again and again, so its version changes. Each of the others judges by its own clock how long
//! it has not: clocks of different machines are never compared.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use sip_call::{Seals, write_route_elsewhere};
use sip_ims::ports::Version;
use sip_ims::service::{Elsewhere, Nodes};
use sip_proto::Hop;

/// How often a node shows that it lives.
pub const BEAT: Duration = Duration::from_secs(3);
/// One that has not for so long is dead.
pub const DEAD: Duration = Duration::from_secs(15);

pub struct Roll {
    own: String,
    seals: Seals,
    /// `None` before the first call.
    others: RwLock<Option<HashMap<String, Entry>>>,
}

struct Entry {
    hop: Hop,
    version: Version,
    heard: Instant,
}

impl Roll {
    /// `secret`: what all nodes share.
    pub fn new(own: String, secret: &[u8; 32]) -> Roll {
        Roll { own, seals: Seals::new(secret), others: RwLock::default() }
    }

    /// What the store says now, of every node.
    pub fn call(&self, now: Instant, all: impl IntoIterator<Item = (String, Hop, Version)>) {
        let mut others = self.others.write();
        let before = others.take().unwrap_or_default();
        let entry = |(name, hop, version): (String, Hop, Version)| {
            let same = before.get(&name).filter(|entry| entry.version == version);
            let heard = same.map_or(now, |entry| entry.heard);
            (name, Entry { hop, version, heard })
        };
        *others = Some(all.into_iter().filter(|(name, ..)| *name != self.own).map(entry).collect());
    }

    /// This node could not read or write until now: what it did not hear counts against nobody.
    pub fn excuse(&self, now: Instant) {
        self.others.write().iter_mut().flat_map(HashMap::values_mut).for_each(|entry| entry.heard = now);
    }

    fn living(&self, name: &str, now: Instant) -> Option<Hop> {
        let others = self.others.read();
        let entry = others.as_ref()?.get(name)?;
        (now.saturating_duration_since(entry.heard) <= DEAD).then_some(entry.hop)
    }
}

impl Nodes for Roll {
    fn own(&self) -> &str {
        &self.own
    }

    fn at(&self, name: &str) -> Option<Hop> {
        self.living(name, Instant::now())
    }

    fn has(&self, address: SocketAddr) -> bool {
        self.others.read().iter().flat_map(HashMap::values).any(|entry| entry.hop.remote() == address)
    }

    fn is_dead(&self, name: &str) -> bool {
        self.others.read().is_some() && self.at(name).is_none()
    }

    fn way(&self, to: &Elsewhere, call_id: &[u8]) -> Vec<u8> {
        let mut way = Vec::new();
        write_route_elsewhere(&mut way, to, &self.seals, call_id);
        way
    }
}

#[cfg(test)]
mod tests {
    use sip_proto::Transport;

    use super::*;

    #[test]
    fn a_node_is_dead_when_its_document_has_not_changed_for_long() {
        let hop = Hop::Address { transport: Transport::Tcp, remote: "192.0.2.1:5060".parse().unwrap() };
        let (roll, start) = (Roll::new("a".to_owned(), &[7; 32]), Instant::now());
        let said = |b, c| {
            ["a", "b", "c"].map(str::to_owned).into_iter().zip([1, b, c]).map(move |(n, v)| (n, hop, Version(v)))
        };
        let lives = |after: u64| ["a", "b", "c"].map(|n| roll.living(n, start + Duration::from_secs(after)).is_some());
        assert!(!roll.is_dead("b"), "nobody has been heard of yet");
        roll.call(start, said(1, 1));
        assert_eq!(lives(1), [false, true, true], "its own name is none of the others");
        roll.call(start + Duration::from_secs(10), said(1, 2));
        assert_eq!(lives(16), [false, false, true]);
        // What nobody could hear is no silence.
        roll.excuse(start + Duration::from_secs(20));
        roll.call(start + Duration::from_secs(21), said(1, 2));
        assert_eq!((lives(34), lives(36)), ([false, true, true], [false, false, false]));
        // It is back; the other is struck off.
        roll.call(start + Duration::from_secs(40), said(2, 2).filter(|n| n.0 != "c"));
        assert_eq!(lives(41), [false, true, false]);
    }
}
