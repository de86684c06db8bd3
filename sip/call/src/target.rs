//! Where a request may go: targets in the order in which they are tried.

use sip_ims::service::{Elsewhere, Location, Reach};
use sip_proto::Hop;
use sip_proto::headers::{NameAddr, list};
use sip_proto::uri::Uri;
use smallvec::SmallVec;

use crate::chain::Link;

/// Most targets of one request, over all groups.
pub const MAX_TARGETS: usize = 32;

/// One place to send a request to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The Request-URI to put in; empty: the request keeps its own.
    pub uri: Box<[u8]>,
    /// A Route list to go through (from a registered Path); may be empty.
    pub path: Box<[u8]>,
    /// The URI of the next hop where that is neither of the two: a Route of the request itself.
    pub next: Box<[u8]>,
    /// Where to send, when known without a look-up.
    pub hop: Option<Hop>,
    /// Another node has the connection, and is sent the request first.
    pub elsewhere: Option<Elsewhere>,
    pub q: u16,
    /// From a registration: a failure concerns a phone, not a domain.
    pub binding: bool,
    instance: Box<[u8]>,
    /// Leads to an application server of a filter.
    pub link: Option<Box<Link>>,
}

impl Target {
    fn of(reach: &Reach<'_>) -> Target {
        Target {
            uri: reach.uri.into(),
            path: reach.path.into(),
            next: Box::default(),
            hop: reach.hop,
            elsewhere: reach.elsewhere,
            q: reach.q,
            binding: true,
            instance: reach.instance.into(),
            link: None,
        }
    }

    fn bare() -> Target {
        Target {
            uri: Box::default(),
            path: Box::default(),
            next: Box::default(),
            hop: None,
            elsewhere: None,
            q: 1000,
            binding: false,
            instance: Box::default(),
            link: None,
        }
    }

    /// The application server that heads a Route list.
    pub fn server(path: Vec<u8>, link: Link) -> Target {
        Target { path: path.into(), link: Some(Box::new(link)), ..Target::bare() }
    }

    /// What the registrar showed of a binding.
    pub fn reach(&self) -> Reach<'_> {
        let Target { uri, path, hop, elsewhere, q, instance, .. } = self;
        Reach { uri, path, hop: *hop, elsewhere: *elsewhere, q: *q, instance, params: b"" }
    }

    /// Both lead to one phone, by different flows.
    pub fn is_same_phone(&self, other: &Target) -> bool {
        !self.instance.is_empty() && self.instance == other.instance
    }

    /// A target that is only an address: the request keeps its Request-URI.
    pub fn hop(hop: Hop) -> Target {
        Target { hop: Some(hop), ..Target::bare() }
    }

    /// A target that must be looked up; the request gets this Request-URI (or keeps its own if empty).
    pub fn uri(uri: &[u8]) -> Target {
        Target { uri: uri.into(), ..Target::bare() }
    }

    /// The next Route of the request, which keeps its Request-URI.
    pub fn route(route: &[u8]) -> Target {
        Target { next: route.into(), ..Target::bare() }
    }

    /// A registered Path that begins with a strict router (RFC 3261 §16.6 step 6): its URI, and the Path behind it.
    pub fn strict_path(&self) -> Option<(&[u8], Option<&[u8]>)> {
        if self.path.is_empty() {
            return None;
        }
        let mut entries = list(&self.path);
        let first = NameAddr::parse(entries.next()?)?;
        if first.uri()?.has_lr() {
            return None;
        }
        let rest = entries.next().map(|second| {
            let at = second.as_ptr() as usize - self.path.as_ptr() as usize;
            &self.path[at..]
        });
        Some((first.addr, rest))
    }

    /// The URI whose host the request is sent to (RFC 3261 §16.6 step 7).
    pub fn next_hop<'a>(&'a self, request_uri: &'a [u8]) -> &'a [u8] {
        if !self.next.is_empty() {
            return &self.next;
        }
        if let Some(first) = list(&self.path).next().and_then(NameAddr::parse) {
            return first.addr;
        }
        if self.uri.is_empty() { request_uri } else { &self.uri }
    }
}

/// Targets of equal preference are tried side by side, one group after the other (RFC 3261 §16.6).
pub type Groups = SmallVec<[SmallVec<[Target; 1]>; 1]>;

/// The current bindings of an address-of-record. Several bindings of one instance are ways to the same phone: the later
/// ones are tried after everything else (RFC 5626 §6).
pub fn bindings(location: &dyn Location, aor: &str, unix: u64) -> Groups {
    grouped(|show| location.each_anywhere(aor, unix, show))
}

/// The bindings of the one phone that a GRUU means (RFC 5627 §6.1). `None`: no GRUU of ours.
pub fn of_gruu(location: &dyn Location, uri: &Uri<'_>, unix: u64) -> Option<Groups> {
    let mut known = false;
    let groups = grouped(|show| known = location.each_of_gruu(uri, unix, show));
    known.then_some(groups)
}

fn grouped(each: impl FnOnce(&mut dyn FnMut(&Reach<'_>))) -> Groups {
    let mut groups = Groups::new();
    let mut second_ways = SmallVec::<[Target; 1]>::new();
    let mut count = 0;
    each(&mut |reach| {
        if count == MAX_TARGETS {
            return;
        }
        count += 1;
        let known = |t: &Target| !reach.instance.is_empty() && *t.instance == *reach.instance;
        let target = Target::of(reach);
        if groups.iter().flatten().any(known) {
            second_ways.push(target);
        } else {
            match groups.last_mut() {
                Some(group) if group[0].q == reach.q => group.push(target),
                _ => groups.push(SmallVec::from_iter([target])),
            }
        }
    });
    groups.extend(second_ways.into_iter().map(|t| SmallVec::from_iter([t])));
    groups
}

#[cfg(test)]
mod tests {
    use sip_ims::User;
    use sip_proto::Flow;

    use super::*;

    struct Fixed(Vec<(&'static str, u16, &'static str)>);

    impl Location for Fixed {
        fn each(&self, _: &str, _: u64, show: &mut dyn FnMut(&Reach<'_>)) {
            for (uri, q, instance) in &self.0 {
                show(&Reach {
                    uri: uri.as_bytes(),
                    path: b"",
                    hop: None,
                    elsewhere: None,
                    q: *q,
                    instance: instance.as_bytes(),
                    params: b"",
                });
            }
        }
        fn failed(&self, _: &str, _: &Reach<'_>) {}
        fn authenticated(&self, _: &Flow, _: &User) -> bool {
            false
        }
    }

    #[test]
    fn equal_q_side_by_side_lower_q_later_second_ways_last() {
        let location =
            Fixed(vec![("sip:a", 1000, "x"), ("sip:b", 1000, "y"), ("sip:a2", 900, "x"), ("sip:c", 500, "")]);
        let groups = bindings(&location, "bob", 0);
        let uris: Vec<Vec<_>> =
            groups.iter().map(|g| g.iter().map(|t| String::from_utf8_lossy(&t.uri)).collect()).collect();
        assert_eq!(uris, [vec!["sip:a", "sip:b"], vec!["sip:c"], vec!["sip:a2"]]);
    }

    #[test]
    fn no_more_targets_than_the_bound() {
        let location = Fixed(vec![("sip:a", 1000, ""); 100]);
        assert_eq!(bindings(&location, "bob", 0).iter().flatten().count(), MAX_TARGETS);
    }
}
