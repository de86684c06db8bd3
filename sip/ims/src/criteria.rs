//! Initial filter criteria: which services a request meets on its way, and in which order (TS 23.218 §5.2, TS 29.228 Annex B).
//!
//! [`Rule`] is a criterion as operators write it and the store keeps it; [`Filter`] is one that is ready to be asked;
//! [`Filters`] holds those of all users. A request asks [`Filters::next`] for the first filter behind the last one that it
//! met, so no filter meets it twice.

mod filter;
mod pattern;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::RwLock;
use siphasher::sip::SipHasher13;

pub use filter::{Filter, Occasion, Server};
pub use pattern::{MAX_PATTERN, Pattern, PatternError};
pub use sip_proto::headers::SessionCase;

use serde::{Deserialize, Deserializer, Serialize};

/// Filters of one user, and of everybody.
pub const MAX_OF_USER: usize = 32;
/// Filters of all users together.
pub const MAX_FILTERS: usize = 100_000;
/// Conditions of one kind in one filter.
pub const MAX_CONDITIONS: usize = 16;
/// Everybody, as the user of a rule.
pub const EVERYBODY: &str = "*";

/// One criterion as it is written: every condition that is given must hold (the conjunctive normal form of TS 29.228, with one
/// service point trigger in each group but for `method`, whose values are alternatives).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// An address-of-record, or [`EVERYBODY`]; an operator may write a user's id.
    pub user: String,
    /// Lower is met first.
    pub priority: u16,
    /// Methods, one or a list of them, any of which will do; empty: every method.
    #[serde(default, deserialize_with = "one_or_many")]
    pub method: Vec<String>,
    /// Host of the Request-URI; empty: any.
    #[serde(default)]
    pub to_domain: String,
    /// Pattern for the whole Request-URI; empty: any.
    #[serde(default)]
    pub request_uri: String,
    /// `Name: pattern`, or `Name` for any value; with `!` in front it must not hold.
    #[serde(default)]
    pub header: Vec<String>,
    /// `x: pattern` for a line `x=` of the session description; with `!` in front it must not hold.
    #[serde(default)]
    pub sdp: Vec<String>,
    #[serde(default)]
    pub session_case: Option<Case>,
    /// Whether the served user is registered; not given: either.
    #[serde(default)]
    pub registered: Option<bool>,
    /// Name of a service, or the SIP URI of an application server.
    pub service: String,
    #[serde(default)]
    pub default_handling: DefaultHandling,
    /// Of filters with the method REGISTER: at which stages of a registration; empty: at each (TS 29.228 `RegistrationType`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registration: Vec<Stage>,
    /// The phone's REGISTER, and the answer to it, go along to the application server (TS 29.228 `IncludeRegisterRequest`,
    /// `IncludeRegisterResponse`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub include_request: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub include_response: bool,
    /// Goes along to the application server; at most [`MAX_SERVICE_INFO`] bytes (TS 29.228 `ServiceInfo`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_info: String,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Texts::deserialize(deserializer)? {
        Texts::One(text) if text.is_empty() => Vec::new(),
        Texts::One(text) => vec![text],
        Texts::Many(texts) => texts,
    })
}

/// Longest service information, in bytes.
pub const MAX_SERVICE_INFO: usize = 2048;

/// What a REGISTER does to a registration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    Initial,
    Refresh,
    End,
}

impl Rule {
    /// Names it in the store: a rule with the same user, priority and service replaces it.
    pub fn key(&self) -> String {
        format!("{}/{:05}/{}", self.user, self.priority, self.service)
    }
}

/// Session cases by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    Originating,
    OriginatingAfterDiversion,
    Terminating,
}

impl From<Case> for SessionCase {
    fn from(case: Case) -> SessionCase {
        match case {
            Case::Originating => SessionCase::Originating,
            Case::OriginatingAfterDiversion => SessionCase::OriginatingAfterDiversion,
            Case::Terminating => SessionCase::Terminating,
        }
    }
}

/// What happens to a request whose service is down (TS 29.228 §B.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefaultHandling {
    /// It goes on to the next filter.
    #[default]
    Continue,
    /// It is refused.
    Terminate,
}

/// Where a filter stands: by priority, then by key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Order {
    pub priority: u16,
    /// A hash of the key, the same on every node.
    pub key: u64,
}

impl Order {
    pub fn of(priority: u16, key: &str) -> Order {
        Order { priority, key: SipHasher13::new().hash(key.as_bytes()) }
    }
}

/// Why a rule is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct BadRule {
    /// The key of [`Rule`] that is wrong.
    pub key: &'static str,
    pub text: String,
}

/// The filters of all users.
#[derive(Default)]
pub struct Filters {
    /// Whether there is any: all that a request costs where there is none.
    any: AtomicBool,
    set: RwLock<Set>,
}

#[derive(Default)]
struct Set {
    everybody: Vec<Arc<Filter>>,
    of_user: HashMap<Box<str>, Vec<Arc<Filter>>>,
    count: usize,
}

impl Filters {
    /// Whether any request can meet a filter.
    #[inline]
    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    pub fn len(&self) -> usize {
        self.set.read().count
    }

    pub fn is_empty(&self) -> bool {
        !self.any()
    }

    /// Adds a rule, or replaces the one with the same key.
    pub fn put(&self, rule: Rule) -> Result<(), BadRule> {
        let filter = Arc::new(Filter::new(rule)?);
        let mut set = self.set.write();
        set.remove(&filter.rule().key());
        let full = |text: String| Err(BadRule { key: "user", text });
        if set.count >= MAX_FILTERS {
            self.any.store(set.count > 0, Relaxed);
            return full(format!("there are {MAX_FILTERS} filters already"));
        }
        let list = set.list(&filter.rule().user);
        if list.len() >= MAX_OF_USER {
            return full(format!("has {MAX_OF_USER} filters already"));
        }
        let at = list.partition_point(|f| f.order() < filter.order());
        list.insert(at, filter);
        set.count += 1;
        self.any.store(true, Relaxed);
        Ok(())
    }

    /// Forgets a rule by its key.
    pub fn remove(&self, key: &str) {
        let mut set = self.set.write();
        set.remove(key);
        self.any.store(set.count > 0, Relaxed);
    }

    /// The first filter behind `after` that this request meets.
    pub fn next(&self, after: Option<Order>, occasion: &Occasion<'_>) -> Option<Arc<Filter>> {
        let set = self.set.read();
        let own = set.of_user.get(occasion.user).map_or(&[][..], Vec::as_slice);
        let behind = |list: &'_ [Arc<Filter>]| after.map_or(0, |after| list.partition_point(|f| f.order() <= after));
        let (mut everybody, mut own) = (&set.everybody[behind(&set.everybody)..], &own[behind(own)..]);
        loop {
            let first = match (everybody.first(), own.first()) {
                (Some(a), Some(b)) if a.order() <= b.order() => take(&mut everybody),
                (_, Some(_)) => take(&mut own),
                (Some(_), None) => take(&mut everybody),
                (None, None) => return None,
            }?;
            if first.meets(occasion) {
                return Some(first.clone());
            }
        }
    }

    /// Every rule, by user and order.
    pub fn rules(&self) -> Vec<Rule> {
        let set = self.set.read();
        let all = set.everybody.iter().chain(set.of_user.values().flatten());
        let mut rules: Vec<Rule> = all.map(|f| f.rule().clone()).collect();
        rules.sort_by_cached_key(Rule::key);
        rules
    }
}

fn take<'a>(list: &mut &'a [Arc<Filter>]) -> Option<&'a Arc<Filter>> {
    let (first, rest) = list.split_first()?;
    *list = rest;
    Some(first)
}

impl Set {
    fn list(&mut self, user: &str) -> &mut Vec<Arc<Filter>> {
        if user == EVERYBODY { &mut self.everybody } else { self.of_user.entry(user.into()).or_default() }
    }

    fn remove(&mut self, key: &str) {
        let Some((user, _)) = key.split_once('/') else { return };
        let list = self.list(user);
        if let Some(at) = list.iter().position(|f| f.rule().key() == key) {
            list.remove(at);
            self.count -= 1;
        }
        if user != EVERYBODY && self.of_user.get(user).is_some_and(Vec::is_empty) {
            self.of_user.remove(user);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use sip_proto::Message;
    use sip_proto::uri::Uri;

    use super::*;

    pub(crate) fn rule(user: &str, priority: u16, service: &str) -> Rule {
        Rule {
            user: user.to_owned(),
            priority,
            method: Vec::new(),
            to_domain: String::new(),
            request_uri: String::new(),
            header: Vec::new(),
            sdp: Vec::new(),
            session_case: None,
            registered: None,
            service: service.to_owned(),
            default_handling: DefaultHandling::Continue,
            registration: Vec::new(),
            include_request: false,
            include_response: false,
            service_info: String::new(),
        }
    }

    pub(crate) fn ask<R>(text: &str, case: SessionCase, run: impl FnOnce(&Occasion<'_>) -> R) -> R {
        let bytes = text.replace('\n', "\r\n").into_bytes();
        let message = Message::parse(&bytes).unwrap();
        let uri = Uri::parse(message.request_uri()).unwrap();
        run(&Occasion { message: &message, uri: &uri, user: "alice@home.test", case, registered: &|| true })
    }

    fn chain(filters: &Filters) -> Vec<String> {
        ask("MESSAGE sip:bob@home.test SIP/2.0\n\n", SessionCase::Originating, |occasion| {
            let (mut met, mut after) = (Vec::new(), None);
            while let Some(filter) = filters.next(after, occasion) {
                after = Some(filter.order());
                met.push(filter.rule().service.clone());
            }
            met
        })
    }

    #[test]
    fn filters_are_met_once_each_in_order_of_priority() {
        let filters = Filters::default();
        assert!(!filters.any());
        for (user, priority, service) in
            [("*", 30, "c"), ("alice@home.test", 20, "b"), ("*", 10, "a"), ("bob@home.test", 5, "x"), ("*", 40, "d")]
        {
            filters.put(rule(user, priority, service)).unwrap();
        }
        assert_eq!(chain(&filters), ["a", "b", "c", "d"]);
        filters.remove("*/00030/c");
        filters.remove("*/00031/c");
        assert_eq!(chain(&filters), ["a", "b", "d"]);
    }

    #[test]
    fn the_same_rule_again_replaces_and_the_last_one_gone_costs_nothing() {
        let filters = Filters::default();
        for _ in 0..3 {
            filters.put(rule("alice@home.test", 1, "a")).unwrap();
        }
        assert_eq!((filters.len(), filters.rules().len()), (1, 1));
        filters.remove("alice@home.test/00001/a");
        assert!(!filters.any() && filters.set.read().of_user.is_empty());
    }

    #[test]
    fn one_user_has_a_bounded_number() {
        let filters = Filters::default();
        for n in 0..MAX_OF_USER {
            filters.put(rule("*", n as u16, "a")).unwrap();
        }
        assert_eq!(filters.put(rule("*", 99, "a")).unwrap_err().key, "user");
        filters.put(rule("*", 0, "a")).unwrap();
        filters.put(rule("alice@home.test", 99, "a")).unwrap();
        assert_eq!(filters.len(), MAX_OF_USER + 1);
    }

    proptest! {
        #[test]
        fn a_chain_ends_and_is_sorted(list in proptest::collection::vec((0u16..6, 0u8..4, any::<bool>()), 0..40)) {
            let filters = Filters::default();
            for (priority, service, own) in list {
                let _ = filters.put(rule(if own { "alice@home.test" } else { "*" }, priority, &service.to_string()));
            }
            let orders = ask("INVITE sip:b SIP/2.0\n\n", SessionCase::Terminating, |occasion| {
                let mut orders = Vec::new();
                while let Some(filter) = filters.next(orders.last().copied(), occasion) {
                    orders.push(filter.order());
                }
                orders
            });
            prop_assert_eq!(orders.len(), filters.len());
            prop_assert!(orders.is_sorted_by(|a, b| a < b));
        }
    }
}
