//! Where a request may go: targets in the order in which they are tried.

use sip_ims::service::{Elsewhere, Location, Reach};
use sip_proto::features::{Disposition, Preferences};
use sip_proto::headers::{NameAddr, Params, list};
use sip_proto::uri::Uri;
use sip_proto::{Flow, Hop, Message};
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
    /// Of a binding: how many were shown before it.
    nth: u8,
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
            nth: 0,
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
            nth: 0,
            link: None,
        }
    }

    /// The application server that heads a Route list.
    pub fn server(path: Vec<u8>, link: Link) -> Target {
        Target { path: path.into(), link: Some(Box::new(link)), ..Target::bare() }
    }

    /// Another node, which is to answer.
    pub fn node(node: Hop) -> Target {
        Target { elsewhere: Some(Elsewhere { node, flow: Flow::INTERNAL }), ..Target::bare() }
    }

    pub fn is_node(&self) -> bool {
        self.elsewhere.is_some_and(|elsewhere| elsewhere.flow.is_internal())
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
pub type Groups = SmallVec<[Group; 1]>;
pub type Group = SmallVec<[Target; 1]>;

/// The current bindings of an address-of-record that suit the sender of `message` (RFC 3841). Several bindings of one instance
/// are ways to the same phone: the later ones are tried after everything else (RFC 5626 §6).
pub fn bindings(location: &dyn Location, aor: &str, unix: u64, message: &Message<'_>) -> Groups {
    preferred(message, |show| location.each_anywhere(aor, unix, show))
}

/// The bindings of the one phone that a GRUU means (RFC 5627 §6.1). `None`: no GRUU of ours.
pub fn of_gruu(location: &dyn Location, uri: &Uri<'_>, unix: u64, message: &Message<'_>) -> Option<Groups> {
    let mut known = false;
    let groups = preferred(message, |show| known = location.each_of_gruu(uri, unix, show));
    known.then_some(groups)
}

/// A callee's order counts before a caller's; within it those that suit the caller more are tried first.
fn preferred(message: &Message<'_>, each: impl FnOnce(&mut dyn FnMut(&Reach<'_>))) -> Groups {
    let wants = Preferences::of(message);
    let mut weights = SmallVec::<[Option<u16>; 4]>::new();
    let mut groups = grouped(|show| {
        each(&mut |reach| {
            if weights.len() < MAX_TARGETS {
                weights.push(wants.weigh(Params::new(reach.params)));
                show(reach);
            }
        });
    });
    // RFC 3841 §7.2.4: what only the method implies gives way when nobody would be left.
    let nobody = weights.iter().all(Option::is_none) && !wants.are_explicit();
    if !nobody && weights.iter().any(|w| *w != Some(1000)) {
        let weight = |t: &Target| weights.get(usize::from(t.nth)).copied().flatten();
        groups = groups.into_iter().flat_map(|group| by_weight(group, weight)).collect();
    }
    spread(groups, Disposition::of(message))
}

/// Takes a group apart into groups of equal weight, the heaviest first, without those that have none.
fn by_weight(group: Group, weight: impl Fn(&Target) -> Option<u16>) -> Groups {
    let mut weighed: SmallVec<[(u16, Target); 4]> =
        group.into_iter().filter_map(|target| Some((weight(&target)?, target))).collect();
    weighed.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    let mut groups = Groups::new();
    let mut last = None;
    for (weight, target) in weighed {
        match groups.last_mut().filter(|_| last == Some(weight)) {
            Some(group) => group.push(target),
            None => groups.push(SmallVec::from_iter([target])),
        }
        last = Some(weight);
    }
    groups
}

/// RFC 3841 §9.1.
fn spread(groups: Groups, wanted: Disposition) -> Groups {
    if wanted == Disposition::default() {
        return groups;
    }
    let all = groups.into_iter().flatten();
    match wanted {
        Disposition { no_fork: true, .. } => all.take(1).map(|t| SmallVec::from_iter([t])).collect(),
        Disposition { parallel: Some(false), .. } => all.map(|t| SmallVec::from_iter([t])).collect(),
        _ => {
            // Two ways to one phone are never tried at once.
            let (mut first, mut later) = (Group::new(), Groups::new());
            for target in all {
                match first.iter().any(|t: &Target| t.is_same_phone(&target)) {
                    true => later.push(SmallVec::from_iter([target])),
                    false => first.push(target),
                }
            }
            let first = Some(first).filter(|group| !group.is_empty());
            first.into_iter().chain(later).collect()
        }
    }
}

fn grouped(each: impl FnOnce(&mut dyn FnMut(&Reach<'_>))) -> Groups {
    let mut groups = Groups::new();
    let mut second_ways = SmallVec::<[Target; 1]>::new();
    let mut count = 0u8;
    each(&mut |reach| {
        if usize::from(count) == MAX_TARGETS {
            return;
        }
        let known = |t: &Target| !reach.instance.is_empty() && *t.instance == *reach.instance;
        let target = Target { nth: count, ..Target::of(reach) };
        count += 1;
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

    use super::*;

    struct Fixed(Vec<(&'static str, u16, &'static str)>);

    fn request(more: &str) -> Vec<u8> {
        format!("INVITE sip:bob@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nCSeq: 1 INVITE\r\n{more}\r\n")
            .into_bytes()
    }

    fn tried(location: &dyn Location, more: &str) -> Vec<Vec<String>> {
        let bytes = request(more);
        let groups = bindings(location, "bob", 0, &Message::parse(&bytes).unwrap());
        groups.iter().map(|g| g.iter().map(|t| String::from_utf8_lossy(&t.uri).into_owned()).collect()).collect()
    }

    /// Each with its feature tags, all of one preference.
    struct Able(Vec<(&'static str, &'static str)>);

    impl Location for Able {
        fn each(&self, _: &str, _: u64, show: &mut dyn FnMut(&Reach<'_>)) {
            for (uri, params) in &self.0 {
                let (uri, params) = (uri.as_bytes(), params.as_bytes());
                show(&Reach { uri, path: b"", hop: None, elsewhere: None, q: 1000, instance: b"", params });
            }
        }
        fn failed(&self, _: &str, _: &Reach<'_>) {}
        fn authenticated(&self, _: &Flow, _: &User) -> bool {
            false
        }
    }

    #[test]
    fn the_caller_chooses_among_the_phones() {
        let phones = Able(vec![
            ("sip:desk", ";audio;methods=\"INVITE,BYE\""),
            ("sip:pocket", ";audio;video;methods=\"INVITE,BYE,MESSAGE\""),
            ("sip:old", ""),
        ]);
        assert_eq!(tried(&phones, ""), [["sip:desk", "sip:pocket", "sip:old"]]);
        assert_eq!(tried(&phones, "Accept-Contact: *;video;require;explicit\r\n"), [["sip:pocket", "sip:old"]]);
        assert_eq!(tried(&phones, "Accept-Contact: *;video\r\n"), [vec!["sip:pocket", "sip:old"], vec!["sip:desk"]]);
        assert_eq!(tried(&phones, "Reject-Contact: *;video\r\n"), [["sip:desk", "sip:old"]]);
        let deaf = Able(vec![("sip:a", ";methods=\"MESSAGE\"")]);
        assert_eq!(tried(&deaf, ""), [["sip:a"]], "it may say 405 itself");
        assert!(tried(&deaf, "Accept-Contact: *;methods=\"INVITE\";require\r\n").is_empty());
    }

    #[test]
    fn the_caller_spreads_its_request() {
        let location =
            Fixed(vec![("sip:a", 1000, "x"), ("sip:b", 1000, "y"), ("sip:c", 500, ""), ("sip:a2", 400, "x")]);
        let with = |directive: &str| tried(&location, &format!("Request-Disposition: {directive}\r\n"));
        assert_eq!(with("no-fork"), [["sip:a"]]);
        assert_eq!(with("sequential"), [["sip:a"], ["sip:b"], ["sip:c"], ["sip:a2"]]);
        assert_eq!(with("parallel"), [vec!["sip:a", "sip:b", "sip:c"], vec!["sip:a2"]]);
    }

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
        assert_eq!(tried(&location, ""), [vec!["sip:a", "sip:b"], vec!["sip:c"], vec!["sip:a2"]]);
    }

    #[test]
    fn no_more_targets_than_the_bound() {
        let location = Fixed(vec![("sip:a", 1000, ""); 100]);
        assert_eq!(tried(&location, "").iter().flatten().count(), MAX_TARGETS);
    }
}
