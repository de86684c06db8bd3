//! Several links: which of them takes a message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::link::{Link, LinkConfig, LinkPort};
use crate::outcome::{Refused, Ticket, Unaccepted};
use crate::pdu::Request;

/// What a link serves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// Beginnings of destinations, digits without `+`. Empty: every destination, as the last resort.
    pub prefixes: Vec<String>,
    /// The lowest that is up is used; links of one priority share the load.
    pub priority: u8,
}

struct Routed {
    link: Link,
    route: Route,
}

/// Chooses by the longest matching prefix; among those, by the lowest priority that is up; among those, the one with the
/// fewest open submissions. When every link of the longest prefix is down, shorter prefixes are tried.
#[derive(Clone)]
pub struct Links {
    routed: Arc<[Routed]>,
    by_name: Arc<BTreeMap<Arc<str>, usize>>,
    room: Arc<Notify>,
    turn: Arc<AtomicUsize>,
}

impl Links {
    /// Starts them all.
    pub fn start(links: Vec<(LinkConfig, Route)>, port: &Arc<dyn LinkPort>) -> Links {
        let room = Arc::new(Notify::new());
        let start = |(config, route)| Routed { link: Link::start_with(config, port.clone(), room.clone()), route };
        let routed: Arc<[Routed]> = links.into_iter().map(start).collect();
        let by_name = routed.iter().enumerate().map(|(i, r)| (r.link.name().clone(), i)).collect();
        Links { routed, by_name: Arc::new(by_name), room, turn: Arc::new(AtomicUsize::new(0)) }
    }

    /// The link of this name: a message that was submitted over it is queried, cancelled and replaced over it.
    pub fn get(&self, name: &str) -> Option<&Link> {
        self.by_name.get(name).map(|i| &self.routed[*i].link)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.routed.iter().map(|r| &r.link)
    }

    /// The link that would take a message to this destination now.
    pub fn choose(&self, destination: &[u8]) -> Result<&Link, Refused> {
        let digits = destination.strip_prefix(b"+").unwrap_or(destination);
        let mut served = false;
        // The best so far: (length of the prefix, priority, open), with the turn to break ties.
        let mut best: Option<(usize, u8, usize, &Link)> = None;
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for i in 0..self.routed.len() {
            let one = &self.routed[first.wrapping_add(i) % self.routed.len()];
            let Some(length) = one.route.matches(digits) else { continue };
            served = true;
            if !one.link.is_up() {
                continue;
            }
            let better = best.is_none_or(|(l, p, open, _)| {
                (std::cmp::Reverse(length), one.route.priority, one.link.open()) < (std::cmp::Reverse(l), p, open)
            });
            if better {
                best = Some((length, one.route.priority, one.link.open(), &one.link));
            }
        }
        match best {
            Some((.., link)) => Ok(link),
            None if served => Err(Refused::Down),
            None => Err(Refused::NoRoute),
        }
    }

    /// Takes a request for this destination, and tells which link has it.
    pub fn try_submit(&self, destination: &[u8], ticket: Ticket, request: Request) -> Result<Arc<str>, Unaccepted> {
        match self.choose(destination) {
            Ok(link) => link.try_submit(ticket, request).map(|()| link.name().clone()),
            Err(why) => Err(Unaccepted { why, request: Box::new(request) }),
        }
    }

    /// Completes when some link has had outcomes or has come up since the call: the time to try again after
    /// [`Refused::Busy`] or [`Refused::Down`]. Call it before the attempt, await it after.
    pub fn room(&self) -> tokio::sync::futures::Notified<'_> {
        self.room.notified()
    }

    pub async fn stop(&self) {
        for one in self.routed.iter() {
            one.link.stop().await;
        }
    }
}

impl Route {
    /// Length of the longest prefix that fits.
    fn matches(&self, digits: &[u8]) -> Option<usize> {
        if self.prefixes.is_empty() {
            return Some(0);
        }
        self.prefixes.iter().filter(|p| digits.starts_with(p.as_bytes())).map(String::len).max()
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts() {
        let route = Route { prefixes: vec!["81".into(), "8190".into()], priority: 0 };
        assert_eq!(route.matches(b"819012345678"), Some(4));
        assert_eq!(route.matches(b"8170"), Some(2));
        assert_eq!(route.matches(b"4179"), None);
        assert_eq!(Route::default().matches(b"4179"), Some(0));
    }
}
