//! Who may see what: presence authorization rules (RFC 5025 over RFC 4745), with the conditions of OMA Presence XDM.
//!
//! A document is read once into [`Rules`]; for each watcher they give one [`Decision`], the union of what the rules that
//! match allow. What is not understood in a condition never matches, and in a transformation shows nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use sip_ims::Aor;
use sip_proto::uri::Uri;
use sip_xcap::meant;
use sip_xml::{Document, Element, Limits};

use crate::names::{COMMON_POLICY, OMA_COMMON_POLICY, PRES_RULES};

/// What becomes of a subscription (RFC 5025 §3.2.1); in the order in which several rules combine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Handling {
    Block,
    Confirm,
    PoliteBlock,
    Allow,
}

/// Which occurrences of a component are shown (RFC 5025 §3.3.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Occurrences {
    All,
    /// Those that one of these identifies; empty: none.
    Only(BTreeSet<Selector>),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Selector {
    Class(Box<str>),
    Occurrence(Box<str>),
    DeviceId(Box<str>),
    ServiceUri(Box<str>),
    ServiceScheme(Box<str>),
}

/// How much of `user-input` is shown (RFC 5025 §3.3.2.12).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum UserInput {
    No,
    Bare,
    Thresholds,
    Full,
}

/// What a watcher sees of a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Permissions {
    pub devices: Occurrences,
    pub persons: Occurrences,
    pub services: Occurrences,
    /// Names of elements that are shown, out of [`ATTRIBUTES`].
    pub attributes: BTreeSet<&'static str>,
    pub user_input: UserInput,
    /// Further elements, by namespace and name.
    pub unknown: BTreeSet<(Box<str>, Box<str>)>,
    pub all_attributes: bool,
}

/// What is decided for one watcher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    pub handling: Handling,
    /// `None`: everything is shown.
    pub permissions: Option<Arc<Permissions>>,
}

/// Presence attributes with a permission of their own: the element's name, for the permission `provide-` and the name.
pub const ATTRIBUTES: [&str; 13] = [
    "activities",
    "class",
    "deviceID",
    "mood",
    "place-is",
    "place-type",
    "privacy",
    "relationship",
    "sphere",
    "status-icon",
    "time-offset",
    "note",
    "willingness",
];

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watcher {
    /// `sip:user@domain` in its canonical form where it is one; else as it was given.
    pub uri: Arc<str>,
    /// `tel:+…`, when it is known for one of our users.
    pub number: Option<Box<str>>,
    pub anonymous: bool,
}

/// A presentity's rules.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    conditions: Vec<Condition>,
    handling: Option<Handling>,
    permissions: Permissions,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Condition {
    /// Any of them.
    Identity(Vec<Identity>),
    /// Unix seconds, from and until.
    Validity(Vec<(i64, i64)>),
    /// OMA: nobody whom another rule names.
    Other,
    /// OMA.
    Anonymous,
    /// One that is not understood.
    Never,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Identity {
    One(Box<str>),
    Many { domain: Option<Box<str>>, except: Vec<Except> },
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Except {
    Id(Box<str>),
    Domain(Box<str>),
}

/// Why a document is no set of rules.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotRules {
    #[error("{0}")]
    Xml(#[from] sip_xml::Broken),
    #[error("not a ruleset")]
    Root,
    #[error("more than {MAX_RULES} rules")]
    TooMany,
    #[error("no sub-handling of that name")]
    Handling,
}

/// Rules of one document.
const MAX_RULES: usize = 1000;

impl Rules {
    pub fn parse(bytes: &[u8]) -> Result<Rules, NotRules> {
        let limits = Limits { bytes: 256 * 1024, depth: 16, elements: 10_000, attributes: 16, name: 128 };
        let root = Document::parse_with(bytes, &limits)?.root;
        if !root.is(COMMON_POLICY, "ruleset") {
            return Err(NotRules::Root);
        }
        let mut rules = Vec::new();
        for element in root.all(COMMON_POLICY, "rule") {
            if rules.len() == MAX_RULES {
                return Err(NotRules::TooMany);
            }
            rules.push(Rule::read(element)?);
        }
        Ok(Rules { rules })
    }

    /// The rules of several documents.
    pub fn merged<'a>(all: impl Iterator<Item = &'a Rules>) -> Rules {
        Rules { rules: all.flat_map(|r| r.rules.iter().cloned()).collect() }
    }

    /// What they say of a watcher at a time (unix seconds). Whom no rule matches is blocked (RFC 5025 §3.2.1).
    pub fn decide(&self, watcher: &Watcher, unix: u64) -> Decision {
        let named = self.rules.iter().any(|r| r.names(watcher));
        let mut decision = Decision { handling: Handling::Block, permissions: None };
        let mut permissions = Permissions::nothing();
        for rule in self.rules.iter().filter(|r| r.matches(watcher, unix, named)) {
            decision.handling = decision.handling.max(rule.handling.unwrap_or(Handling::Block));
            permissions.add(&rule.permissions);
        }
        if !permissions.is_everything() {
            decision.permissions = Some(Arc::new(permissions));
        }
        decision
    }

    /// When what they say may change by itself: the next border of a validity after `unix`.
    pub fn next_border(&self, unix: u64) -> Option<u64> {
        let conditions = self.rules.iter().flat_map(|r| &r.conditions);
        let spans = conditions.filter_map(|c| if let Condition::Validity(spans) = c { Some(spans) } else { None });
        let borders = spans.flatten().flat_map(|(from, until)| [*from, *until]);
        borders.filter_map(|at| u64::try_from(at).ok()).filter(|at| *at > unix).min()
    }
}

impl Rule {
    fn read(element: &Element) -> Result<Rule, NotRules> {
        let part = |name| element.child(COMMON_POLICY, name).into_iter().flat_map(Element::elements);
        let conditions = part("conditions").map(Condition::read).collect();
        let mut handling = None;
        for action in part("actions").filter(|a| a.is(PRES_RULES, "sub-handling")) {
            handling = Some(match action.text().trim() {
                "block" => Handling::Block,
                "confirm" => Handling::Confirm,
                "polite-block" => Handling::PoliteBlock,
                "allow" => Handling::Allow,
                _ => return Err(NotRules::Handling),
            });
        }
        let mut permissions = Permissions::nothing();
        part("transformations").for_each(|t| permissions.read(t));
        Ok(Rule { conditions, handling, permissions })
    }

    fn matches(&self, watcher: &Watcher, unix: u64, named: bool) -> bool {
        self.conditions.iter().all(|condition| match condition {
            Condition::Identity(any) => !watcher.anonymous && any.iter().any(|identity| identity.is(watcher)),
            Condition::Validity(spans) => spans.iter().any(|(from, until)| (*from..*until).contains(&(unix as i64))),
            Condition::Other => !named && !watcher.anonymous,
            Condition::Anonymous => watcher.anonymous,
            Condition::Never => false,
        })
    }

    /// Whether one of its conditions is about who this is.
    fn names(&self, watcher: &Watcher) -> bool {
        let is = |c: &Condition| matches!(c, Condition::Identity(any) if any.iter().any(|i| i.is(watcher)));
        !watcher.anonymous && self.conditions.iter().any(is)
    }
}

impl Condition {
    fn read(element: &Element) -> Condition {
        if element.is(COMMON_POLICY, "identity") {
            return Condition::Identity(element.elements().filter_map(Identity::read).collect());
        }
        if element.is(COMMON_POLICY, "validity") {
            // Pairs of `from` and `until` (RFC 4745 §7.2).
            let times: Vec<Option<i64>> = element.elements().map(|e| timestamp(e.text().trim())).collect();
            let spans = times.chunks_exact(2).filter_map(|pair| Some((pair[0]?, pair[1]?)));
            return Condition::Validity(spans.collect());
        }
        if element.is(OMA_COMMON_POLICY, "other-identity") {
            return Condition::Other;
        }
        if element.is(OMA_COMMON_POLICY, "anonymous-request") {
            return Condition::Anonymous;
        }
        Condition::Never
    }
}

impl Identity {
    fn read(element: &Element) -> Option<Identity> {
        let attribute = |e: &Element, name| e.attribute(name).map(Box::from);
        if element.is(COMMON_POLICY, "one") {
            return Some(Identity::One(canonical(element.attribute("id")?)));
        }
        if element.is(COMMON_POLICY, "many") {
            let except = element.all(COMMON_POLICY, "except").filter_map(|e| match e.attribute("id") {
                Some(id) => Some(Except::Id(canonical(id))),
                None => attribute(e, "domain").map(Except::Domain),
            });
            return Some(Identity::Many { domain: attribute(element, "domain"), except: except.collect() });
        }
        None
    }

    fn is(&self, watcher: &Watcher) -> bool {
        let id = |id: &str| *id == *watcher.uri || watcher.number.as_deref() == Some(id);
        let domain = |domain: &str| host_of(&watcher.uri).is_some_and(|host| host.eq_ignore_ascii_case(domain));
        match self {
            Identity::One(one) => id(one),
            Identity::Many { domain: within, except } => {
                within.as_deref().is_none_or(domain)
                    && !except.iter().any(|e| match e {
                        Except::Id(one) => id(one),
                        Except::Domain(one) => domain(one),
                    })
            }
        }
    }
}

impl Permissions {
    pub fn nothing() -> Permissions {
        let none = || Occurrences::Only(BTreeSet::new());
        Permissions {
            devices: none(),
            persons: none(),
            services: none(),
            attributes: BTreeSet::new(),
            user_input: UserInput::No,
            unknown: BTreeSet::new(),
            all_attributes: false,
        }
    }

    fn is_everything(&self) -> bool {
        let all = |o: &Occurrences| *o == Occurrences::All;
        self.all_attributes && all(&self.devices) && all(&self.persons) && all(&self.services)
    }

    fn read(&mut self, element: &Element) {
        if element.namespace.as_deref() != Some(PRES_RULES) {
            return;
        }
        let truth = || matches!(element.text().trim(), "true" | "1");
        match &*element.name {
            "provide-devices" => self.devices.add(&Occurrences::read(element, "all-devices")),
            "provide-persons" => self.persons.add(&Occurrences::read(element, "all-persons")),
            "provide-services" => self.services.add(&Occurrences::read(element, "all-services")),
            "provide-all-attributes" => self.all_attributes = true,
            "provide-user-input" => {
                let level = match element.text().trim() {
                    "bare" => UserInput::Bare,
                    "thresholds" => UserInput::Thresholds,
                    "full" => UserInput::Full,
                    _ => UserInput::No,
                };
                self.user_input = self.user_input.max(level);
            }
            "provide-unknown-attribute" if truth() => {
                if let (Some(name), Some(namespace)) = (element.attribute("name"), element.attribute("ns")) {
                    self.unknown.insert((namespace.into(), name.into()));
                }
            }
            name => {
                let attribute = name.strip_prefix("provide-").and_then(|n| ATTRIBUTES.into_iter().find(|a| *a == n));
                self.attributes.extend(attribute.filter(|_| truth()));
            }
        }
    }

    fn add(&mut self, other: &Permissions) {
        self.devices.add(&other.devices);
        self.persons.add(&other.persons);
        self.services.add(&other.services);
        self.attributes.extend(&other.attributes);
        self.user_input = self.user_input.max(other.user_input);
        self.unknown.extend(other.unknown.iter().cloned());
        self.all_attributes |= other.all_attributes;
    }
}

impl Occurrences {
    fn read(element: &Element, all: &str) -> Occurrences {
        if element.child(PRES_RULES, all).is_some() {
            return Occurrences::All;
        }
        let one = |e: &Element| {
            let value = e.text().trim().into();
            Some(match &*e.name {
                "class" => Selector::Class(value),
                "occurrence-id" => Selector::Occurrence(value),
                "deviceID" => Selector::DeviceId(value),
                "service-uri" => Selector::ServiceUri(value),
                "service-uri-scheme" => Selector::ServiceScheme(value),
                _ => return None,
            })
        };
        Occurrences::Only(
            element.elements().filter(|e| e.namespace.as_deref() == Some(PRES_RULES)).filter_map(one).collect(),
        )
    }

    fn add(&mut self, other: &Occurrences) {
        match (&mut *self, other) {
            (Occurrences::All, _) => {}
            (_, Occurrences::All) => *self = Occurrences::All,
            (Occurrences::Only(these), Occurrences::Only(those)) => these.extend(those.iter().cloned()),
        }
    }
}

/// `sip:user@domain` of a SIP URI with a user; anything else as it is.
pub fn canonical(uri: &str) -> Box<str> {
    let uri = meant(uri.trim());
    let parsed = Uri::parse(uri.as_bytes());
    let aor = parsed.filter(|u| u.is_sip()).and_then(|u| Aor::from_parts(u.user()?, u.host()).ok());
    match aor {
        Some(aor) => format!("sip:{aor}").into(),
        None => uri.into(),
    }
}

fn host_of(uri: &str) -> Option<&str> {
    uri.split_once(':')?.1.rsplit_once('@').map(|(_, host)| host)
}

/// Seconds since 1970 of an `xs:dateTime` with a zone; without one it is read as UTC.
fn timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-');
    let number = |part: Option<&str>| part?.parse::<i64>().ok().filter(|n| (0..=9999).contains(n));
    let (year, month, day) = (number(date.next())?, number(date.next())?, number(date.next())?);
    let (time, offset) = match time.find(['Z', '+', '-']) {
        Some(at) => (&time[..at], &time[at..]),
        None => (time, "Z"),
    };
    let offset = match offset.strip_prefix(['+', '-']) {
        None => 0,
        Some(clock) => {
            let (hours, minutes) = clock.split_once(':')?;
            let seconds = number(Some(hours))? * 3600 + number(Some(minutes))? * 60;
            if offset.starts_with('-') { -seconds } else { seconds }
        }
    };
    let mut clock = time.split('.').next()?.splitn(3, ':');
    let (hour, minute, second) = (number(clock.next())?, number(clock.next())?, number(clock.next())?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    // Days from civil (Howard Hinnant's algorithm): years begin in March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

#[cfg(test)]
mod tests;
