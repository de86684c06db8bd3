//! Event filters: what of a presentity's state a watcher wants to hear, and when (RFC 4660, 4661).
//!
//! The body of a SUBSCRIBE is read into [`Filters`]. For a document that is to be told they say what of it ([`Filters::part`]), and
//! against the one that was told last whether it is told at all ([`Filters::triggered`]).

mod path;

use std::collections::BTreeMap;
use std::ops::Range;

use sip_xml::{Document, Element, Limits};

pub use self::path::Path;
use self::path::{Expression, Prefixes};
use crate::names::{PIDF, SIMPLE_FILTER};
use crate::rules::canonical;

/// The filters of one subscription, by id.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Filters {
    filters: BTreeMap<Box<str>, Filter>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Filter {
    resource: Resource,
    enabled: bool,
    what: Option<What>,
    triggers: Vec<Trigger>,
}

/// Whose document is filtered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target<'a> {
    /// What was subscribed to, as `sip:user@domain`: it, or a list that it is in.
    pub requested: &'a str,
    pub uri: &'a str,
}

impl<'a> Target<'a> {
    /// What was subscribed to itself.
    pub fn itself(uri: &'a str) -> Target<'a> {
        Target { requested: uri, uri }
    }
}

/// What a filter is for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Resource {
    /// What was subscribed to.
    Requested,
    Uri(Box<str>),
    Domain(Box<str>),
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct What {
    include: Vec<Selection>,
    exclude: Vec<Selection>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Selection {
    Path(Path),
    /// Elements of a namespace, without those of others in them.
    Namespace(Box<str>),
}

/// All of it at once.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Trigger {
    changed: Vec<Changed>,
    added: Vec<Path>,
    removed: Vec<Path>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Changed {
    path: Path,
    from: Option<Box<str>>,
    to: Option<Box<str>>,
    /// As a decimal that reads.
    by: Option<Box<str>>,
}

/// Why a body is no set of filters: 488, with this as a warning (RFC 4660 §5.4).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotFilters {
    #[error("filters that are no XML: {0}")]
    Xml(#[from] sip_xml::Broken),
    #[error("no filter-set")]
    Root,
    #[error("a filter-set that is not valid: {0}")]
    Invalid(&'static str),
    #[error("two filters for one resource")]
    Resource,
    #[error("too many filters")]
    TooMany,
    #[error("an expression that is not understood")]
    Expression,
}

/// Filters and the bodies that asked for them, which are what is kept of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    pub filters: Filters,
    bodies: Vec<Box<[u8]>>,
}

/// Bytes of all bodies of one subscription.
const MAX_KEPT: usize = 24 * 1024;

impl Asked {
    /// What a further body makes of what was asked before. `None`: there are no filters any more.
    pub fn after(before: Option<&Asked>, body: &[u8]) -> Result<Option<Asked>, NotFilters> {
        let filters = match before {
            None => Filters::parse(body)?,
            Some(before) => before.filters.changed(body)?,
        };
        if filters.is_empty() {
            return Ok(None);
        }
        let mut bodies = before.map(|b| b.bodies.clone()).unwrap_or_default();
        bodies.push(body.into());
        if bodies.iter().map(|b| b.len() + 2).sum::<usize>() > MAX_KEPT {
            return Err(NotFilters::TooMany);
        }
        Ok(Some(Asked { filters, bodies }))
    }

    /// Appends them as a row has them.
    pub fn write_row(&self, out: &mut Vec<u8>) {
        for body in &self.bodies {
            // No longer than a body may be.
            out.extend_from_slice(&(body.len() as u16).to_le_bytes());
            out.extend_from_slice(body);
        }
    }

    /// Reads what [`Asked::write_row`] wrote; `None` for anything else.
    pub fn from_row(mut row: &[u8]) -> Option<Asked> {
        let mut asked = None;
        while let Some((length, rest)) = row.split_first_chunk::<2>() {
            let (body, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            asked = Asked::after(asked.as_ref(), body).ok()?;
            row = rest;
        }
        asked
    }
}

/// Filters of one subscription, and selections and triggers of one filter.
const MAX: usize = 16;
/// Bytes of a body.
pub const MAX_FILTERS: usize = 8 * 1024;
const LIMITS: Limits = Limits { bytes: MAX_FILTERS, depth: 8, elements: 200, attributes: 16, name: 128 };

impl Filters {
    /// Reads a first body.
    pub fn parse(body: &[u8]) -> Result<Filters, NotFilters> {
        Filters::default().changed(body)
    }

    /// These, as a body in the same dialog changes them: each filter is replaced by the one of its id, or removed (RFC 4660 §3.3.3).
    pub fn changed(&self, body: &[u8]) -> Result<Filters, NotFilters> {
        let root = Document::parse_with(body, &LIMITS)?.root;
        if !root.is(SIMPLE_FILTER, "filter-set") {
            return Err(NotFilters::Root);
        }
        if root.attribute("package").is_some_and(|p| p != "presence" && p != "presence.winfo") {
            return Err(NotFilters::Invalid("another package"));
        }
        let prefixes: Prefixes = root
            .all(SIMPLE_FILTER, "ns-bindings")
            .flat_map(|b| b.all(SIMPLE_FILTER, "ns-binding"))
            .map(|b| Some((b.attribute("prefix")?.to_owned(), b.attribute("urn")?.to_owned())))
            .collect::<Option<_>>()
            .ok_or(NotFilters::Invalid("a binding without prefix or urn"))?;
        let mut filters = self.filters.clone();
        let mut seen = Vec::new();
        for element in root.all(SIMPLE_FILTER, "filter") {
            let id = element
                .attribute("id")
                .filter(|id| !id.is_empty())
                .ok_or(NotFilters::Invalid("a filter without id"))?;
            if seen.contains(&id) {
                return Err(NotFilters::Invalid("an id given twice"));
            }
            seen.push(id);
            if truth(element.attribute("remove"), false)? {
                filters.remove(id);
                continue;
            }
            let filter = Filter::read(element, &prefixes, filters.get(id))?;
            filters.insert(id.into(), filter);
        }
        if seen.is_empty() {
            return Err(NotFilters::Invalid("no filter in it"));
        }
        if filters.len() > MAX {
            return Err(NotFilters::TooMany);
        }
        let resources: Vec<&Resource> = filters.values().map(|f| &f.resource).collect();
        if resources.iter().enumerate().any(|(n, r)| resources[..n].contains(r)) {
            return Err(NotFilters::Resource);
        }
        Ok(Filters { filters })
    }

    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Those in force for a resource: first those that name it (RFC 4660 §3.3.1), one for itself before one for its domain
    /// (§3.3.2), then those for all that was subscribed to.
    fn of<'f>(&'f self, target: Target<'f>) -> [Vec<&'f Filter>; 2] {
        let Target { requested, uri } = target;
        let domain = uri.rsplit_once('@').map_or("", |(_, domain)| domain);
        let mut found = [Vec::new(), Vec::new()];
        let named = self.enabled().any(|f| matches!(&f.resource, Resource::Uri(own) if **own == *uri));
        for filter in self.enabled() {
            let for_all = match &filter.resource {
                Resource::Requested => true,
                Resource::Uri(own) if **own == *requested => true,
                Resource::Uri(own) if **own == *uri => false,
                Resource::Domain(own) if !named && own.eq_ignore_ascii_case(domain) => requested == uri,
                Resource::Uri(_) | Resource::Domain(_) => continue,
            };
            found[usize::from(for_all)].push(filter);
        }
        found
    }

    fn enabled(&self) -> impl Iterator<Item = &Filter> {
        self.filters.values().filter(|f| f.enabled)
    }

    /// What of a document is delivered. `None`: nothing of it. A document that does not read is delivered whole: it is ours.
    pub fn part(&self, target: Target<'_>, document: &[u8]) -> Option<Vec<u8>> {
        let [own, all] = self.of(target);
        let document = Filters::cut(&own, document)?;
        if all.is_empty() { Some(document) } else { Filters::cut(&all, &document) }
    }

    fn cut(filters: &[&Filter], document: &[u8]) -> Option<Vec<u8>> {
        let whats: Vec<&What> = filters.iter().filter_map(|f| f.what.as_ref()).collect();
        let Some(root) = (!whats.is_empty()).then(|| Document::parse(document).ok()).flatten().map(|d| d.root) else {
            return Some(document.to_vec());
        };
        let include: Vec<&Selection> = whats.iter().flat_map(|w| &w.include).collect();
        let exclude: Vec<&Selection> = whats.iter().flat_map(|w| &w.exclude).collect();
        let chosen = Chosen {
            whole: spans(&include, &root),
            namespaces: namespaces(&include),
            all: include.is_empty(),
            not: spans(&exclude, &root),
            not_namespaces: namespaces(&exclude),
        };
        let mut cuts = Vec::new();
        if !chosen.keep(&root, chosen.all, &mut cuts) {
            return None;
        }
        let mut out = Vec::with_capacity(document.len());
        let mut at = 0;
        for cut in cuts {
            out.extend_from_slice(&document[at..cut.start]);
            at = cut.end;
        }
        out.extend_from_slice(&document[at..]);
        Some(out)
    }

    /// Whether a document is to be told after `before`, the one that was told last, both as they were before any filter.
    pub fn triggered(&self, target: Target<'_>, before: &[u8], now: &[u8]) -> bool {
        let found = self.of(target);
        let mut all = found.iter().flatten().flat_map(|f| &f.triggers).peekable();
        if all.peek().is_none() {
            return true;
        }
        let (Ok(before), Ok(now)) = (Document::parse(before), Document::parse(now)) else { return true };
        all.any(|trigger| trigger.is_met(&before.root, &now.root))
    }
}

impl Filter {
    fn read(element: &Element, prefixes: &Prefixes, before: Option<&Filter>) -> Result<Filter, NotFilters> {
        let resource = match (element.attribute("uri"), element.attribute("domain")) {
            (None, None) => before.map_or(Resource::Requested, |f| f.resource.clone()),
            (Some(uri), None) => Resource::Uri(canonical(uri)),
            (None, Some(domain)) => Resource::Domain(domain.into()),
            (Some(_), Some(_)) => return Err(NotFilters::Invalid("both uri and domain")),
        };
        let enabled = truth(element.attribute("enabled"), true)?;
        let mut whats = element.all(SIMPLE_FILTER, "what");
        let what = whats.next().map(|w| What::read(w, prefixes)).transpose()?;
        if whats.next().is_some() {
            return Err(NotFilters::Invalid("two what in a filter"));
        }
        let triggers: Vec<Trigger> =
            element.all(SIMPLE_FILTER, "trigger").map(|t| Trigger::read(t, prefixes)).collect::<Result<_, _>>()?;
        if triggers.len() > MAX {
            return Err(NotFilters::TooMany);
        }
        let (what, triggers) = match before {
            // Switched off or on, and otherwise as it was.
            Some(before) if what.is_none() && triggers.is_empty() => (before.what.clone(), before.triggers.clone()),
            None if what.is_none() && triggers.is_empty() && enabled => {
                return Err(NotFilters::Invalid("neither what nor trigger in a filter"));
            }
            _ => (what, triggers),
        };
        // One that is empty is none (RFC 4660 §5.4).
        let what = what.filter(|w| *w != What::default());
        let triggers = triggers.into_iter().filter(|t| *t != Trigger::default()).collect();
        Ok(Filter { resource, enabled, what, triggers })
    }
}

impl What {
    fn read(element: &Element, prefixes: &Prefixes) -> Result<What, NotFilters> {
        let all = |name| {
            let found = element.all(SIMPLE_FILTER, name).map(|e| match e.attribute("type").unwrap_or("xpath") {
                "xpath" => Ok(Selection::Path(Path::parse(&e.text(), prefixes)?)),
                "namespace" => Ok(Selection::Namespace(e.text().trim().into())),
                _ => Err(NotFilters::Invalid("a type that is not known")),
            });
            found.collect::<Result<Vec<_>, _>>()
        };
        let what = What { include: all("include")?, exclude: all("exclude")? };
        if what.include.len() + what.exclude.len() > MAX { Err(NotFilters::TooMany) } else { Ok(what) }
    }
}

impl Trigger {
    fn read(element: &Element, prefixes: &Prefixes) -> Result<Trigger, NotFilters> {
        let paths = |name| {
            let all = element.all(SIMPLE_FILTER, name).map(|e| Path::parse(&e.text(), prefixes));
            all.collect::<Result<Vec<_>, _>>()
        };
        let changed = element.all(SIMPLE_FILTER, "changed").map(|e| {
            let value = |name| e.attribute(name).map(Box::<str>::from);
            let by = value("by");
            if by.as_deref().is_some_and(|by| number(by).is_none()) {
                return Err(NotFilters::Invalid("a by that is no number"));
            }
            Ok(Changed { path: Path::parse(&e.text(), prefixes)?, from: value("from"), to: value("to"), by })
        });
        let trigger =
            Trigger { changed: changed.collect::<Result<_, _>>()?, added: paths("added")?, removed: paths("removed")? };
        let all = trigger.changed.len() + trigger.added.len() + trigger.removed.len();
        if all > MAX { Err(NotFilters::TooMany) } else { Ok(trigger) }
    }

    fn is_met(&self, before: &Element, now: &Element) -> bool {
        let added = |path: &Path, old: &Element, new: &Element| {
            let old = path.values(old);
            path.values(new).keys().any(|key| !old.contains_key(key))
        };
        self.changed.iter().all(|c| c.is_met(before, now))
            && self.added.iter().all(|path| added(path, before, now))
            && self.removed.iter().all(|path| added(path, now, before))
    }
}

impl Changed {
    fn is_met(&self, before: &Element, now: &Element) -> bool {
        let (mut old, new) = (self.path.values(before), self.path.values(now));
        let mut fresh = Vec::new();
        for (key, value) in new {
            match old.remove(&key) {
                Some(was) if self.is(Some(&was), &value) => return true,
                Some(_) => {}
                None => fresh.push(value),
            }
        }
        // One that has taken the place of another has changed; one that is new has, from nothing.
        let mut gone = old.into_values();
        fresh.iter().any(|value| self.is(gone.next().as_deref(), value))
    }

    fn is(&self, was: Option<&str>, is: &str) -> bool {
        let same = |wanted: &Option<Box<str>>, value: Option<&str>| {
            // §6.2 has CLOSED and OPEN for what PIDF writes in small letters.
            wanted.as_deref().is_none_or(|w| value.is_some_and(|v| w.trim().eq_ignore_ascii_case(v.trim())))
        };
        let far = self.by.as_deref().and_then(number).is_none_or(|by| {
            let apart = was.and_then(number).zip(number(is)).map(|(a, b)| (a - b).abs());
            apart.is_some_and(|apart| apart >= by)
        });
        was != Some(is) && same(&self.from, was) && same(&self.to, Some(is)) && far
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|n| n.is_finite())
}

fn truth(value: Option<&str>, default: bool) -> Result<bool, NotFilters> {
    match value.map(str::trim) {
        None => Ok(default),
        Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(NotFilters::Invalid("a truth value that is none")),
    }
}

/// Elements, by where they stand, and perhaps an attribute of theirs alone.
fn spans(selections: &[&Selection], root: &Element) -> Vec<(Range<usize>, Option<Expression>)> {
    let paths = selections.iter().filter_map(|s| if let Selection::Path(path) = s { Some(path) } else { None });
    paths.flat_map(|path| path.select(root).into_iter().map(|e| (e.span.clone(), path.attribute()))).collect()
}

fn namespaces<'s>(selections: &[&'s Selection]) -> Vec<&'s str> {
    selections.iter().filter_map(|s| if let Selection::Namespace(n) = s { Some(&**n) } else { None }).collect()
}

/// What is chosen of one document.
struct Chosen<'s> {
    whole: Vec<(Range<usize>, Option<Expression>)>,
    namespaces: Vec<&'s str>,
    /// Everything that is not excluded.
    all: bool,
    not: Vec<(Range<usize>, Option<Expression>)>,
    not_namespaces: Vec<&'s str>,
}

impl Chosen<'_> {
    /// Whether an element stays, and what of it does not. `within`: all of an element around it was chosen.
    fn keep(&self, element: &Element, within: bool, cuts: &mut Vec<Range<usize>>) -> bool {
        let at = |list: &[(Range<usize>, Option<Expression>)], attribute: bool| {
            list.iter().any(|(span, a)| *span == element.span && a.is_some() == attribute)
        };
        let of = |list: &[&str]| element.namespace.as_deref().is_some_and(|n| list.contains(&n));
        if at(&self.not, false) || of(&self.not_namespaces) {
            return false;
        }
        let whole = within || at(&self.whole, false);
        let own = whole || of(&self.namespaces) || at(&self.whole, true);
        let mut inside = Vec::new();
        let mut some = false;
        for child in element.elements() {
            let mut within_child = Vec::new();
            if self.keep(child, whole, &mut within_child) {
                some = true;
                inside.extend(within_child);
            } else {
                inside.push(child.span.clone());
            }
        }
        if !own && !some {
            return false;
        }
        if element.is(PIDF, "tuple") {
            // It is not valid without (RFC 4661 §3.5.1).
            let status = element.child(PIDF, "status").map(|s| s.span.clone());
            inside.retain(|cut| Some(cut) != status.as_ref());
        }
        cuts.extend(inside);
        true
    }
}

/// Names a node among those of a document: the same in two documents for the same thing.
type Key = Vec<(Box<str>, String)>;

#[cfg(test)]
mod tests;
