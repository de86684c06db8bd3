//! Resource lists: which URIs stand for several (RFC 4826).
//!
//! An `rls-services` document names services by their URI, and gives each its list: inside, or as a reference to one of the
//! same user's `resource-lists`. Lists in lists are taken apart, an `entry-ref` stands for the entry that it names, and an `external` for the
//! list, if that is the same user's and here; a URI that is met twice counts once. Nothing is ever fetched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use sip_ims::Aor;
use sip_ims::ports::Document;
use sip_xcap::{Conflict, NodeSelector, Target, Text, Tree, meant};
use sip_xml::Element;

use crate::book::{key_of, owner_of};
use crate::rules::canonical;

/// The XCAP application usages whose documents make lists (RFC 4826 §3.4.1, §4.4.1).
pub const LISTS: [&str; 2] = ["rls-services", "resource-lists"];

const SERVICES: &str = "urn:ietf:params:xml:ns:rls-services";
const RESOURCE_LISTS: &str = "urn:ietf:params:xml:ns:resource-lists";
/// Members of one list; what is beyond is left out.
pub const MAX_MEMBERS: usize = 1000;
/// Services of one document.
const MAX_SERVICES: usize = 100;
/// Lists inside each other.
const MAX_DEPTH: usize = 16;
/// References that are followed for one user, in all of its lists.
const MAX_REFERENCES: usize = 200;

/// A URI that stands for several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct List {
    /// Who made it, and may watch it.
    pub owner: Aor,
    pub members: Arc<[Member]>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Canonical, where it is a SIP URI.
    pub uri: Box<str>,
    pub name: Option<Box<str>>,
}

/// Why a document makes no lists.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotLists {
    #[error("{0}")]
    Xml(#[from] Conflict),
    #[error("neither rls-services nor resource-lists")]
    Root,
    #[error("a service without a SIP URI, or without a list")]
    Service,
    #[error("more than {MAX_SERVICES} services")]
    TooMany,
}

/// What one document says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lists {
    Services(Vec<(Aor, Source)>),
    /// A document that services refer to.
    Named(Text),
}

/// Where a service's members are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    Inside(Vec<Item>),
    Referred(Reference),
}

/// What a list has in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    Entry(Member),
    /// To an entry.
    Reference(Reference),
    /// A list that may be elsewhere: an absolute URI.
    External(Box<str>),
}

/// A node of a user's document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// The XUI, canonical where it is a SIP URI.
    user: Box<str>,
    document: Box<str>,
    node: NodeSelector,
}

impl Lists {
    pub fn parse(bytes: &[u8]) -> Result<Lists, NotLists> {
        let text = Text::read(bytes.to_vec())?;
        if text.root().is(RESOURCE_LISTS, "resource-lists") {
            return Ok(Lists::Named(text));
        }
        let root = text.root();
        if !root.is(SERVICES, "rls-services") {
            return Err(NotLists::Root);
        }
        let mut services = Vec::new();
        for service in root.all(SERVICES, "service") {
            if services.len() == MAX_SERVICES {
                return Err(NotLists::TooMany);
            }
            let uri = service.attribute("uri").map(canonical).ok_or(NotLists::Service)?;
            let aor: Aor = uri.strip_prefix("sip:").and_then(|u| u.parse().ok()).ok_or(NotLists::Service)?;
            let packages: Vec<String> = service
                .child(SERVICES, "packages")
                .into_iter()
                .flat_map(|p| p.all(SERVICES, "package").map(|p| p.text().trim().to_owned()))
                .collect();
            if !packages.is_empty() && !packages.iter().any(|p| p == "presence") {
                continue;
            }
            let source = match (service.child(SERVICES, "list"), service.child(SERVICES, "resource-list")) {
                (Some(list), _) => Source::Inside(items(list)),
                (None, Some(reference)) => Source::Referred(referred(&reference.text()).ok_or(NotLists::Service)?),
                (None, None) => return Err(NotLists::Service),
            };
            services.push((aor, source));
        }
        Ok(Lists::Services(services))
    }
}

/// What is in a list and in the lists in it, at most [`MAX_MEMBERS`].
fn items(list: &Element) -> Vec<Item> {
    let mut found = Vec::new();
    collect(list, 0, &mut found);
    found
}

fn collect(list: &Element, depth: usize, found: &mut Vec<Item>) {
    for element in list.elements().filter(|e| e.namespace.as_deref() == Some(RESOURCE_LISTS)) {
        let item = match &*element.name {
            "list" if depth < MAX_DEPTH => {
                collect(element, depth + 1, found);
                None
            }
            "entry" => entry(element).map(Item::Entry),
            "entry-ref" => element.attribute("ref").and_then(entry_ref).map(Item::Reference),
            "external" => element.attribute("anchor").map(|anchor| Item::External(unfolded(anchor).into())),
            _ => None,
        };
        found.extend(item.filter(|_| found.len() < MAX_MEMBERS));
    }
}

fn entry(element: &Element) -> Option<Member> {
    let uri = element.attribute("uri").map(canonical)?;
    let name = element.child(RESOURCE_LISTS, "display-name").map(|n| n.text().trim().into());
    Some(Member { uri, name })
}

/// What a reference such as `http://…/resource-lists/users/sip:joe@h/index/~~/resource-lists/list%5b@name=%22l1%22%5d` is to. Whose
/// it is was looked at when it was stored.
fn referred(uri: &str) -> Option<Reference> {
    let uri = unfolded(uri);
    Reference::read(&uri[uri.find("/resource-lists/users/")?..])
}

/// An `entry-ref`: relative to the XCAP root (RFC 4826 §3.1).
fn entry_ref(uri: &str) -> Option<Reference> {
    Reference::read(&format!("/{}", unfolded(uri).trim_start_matches('/')))
}

/// Long ones are broken into lines in documents.
fn unfolded(uri: &str) -> String {
    meant(&uri.split_whitespace().collect::<String>()).into_owned()
}

impl Reference {
    /// `below`: what is behind the XCAP root.
    fn read(below: &str) -> Option<Reference> {
        let (path, query) = below.split_once('?').map_or((below, None), |(path, query)| (path, Some(query)));
        let target = Target::parse(path, query).ok().filter(|target| target.auid == LISTS[1])?;
        let Tree::Users(user) = &target.tree else { return None };
        let node = NodeSelector::parse(target.node.as_deref()?, &target.bindings, Some(RESOURCE_LISTS)).ok()?;
        Some(Reference { user: canonical(user), document: target.document()?.into(), node })
    }
}

type Documents = BTreeMap<(&'static str, Box<str>), Lists>;

/// Follows the references among one user's documents.
struct Trail<'d> {
    owner: &'d Aor,
    documents: &'d Documents,
    /// The XCAP root's URI, with a slash at its end: what is not below it is another server's.
    root: &'d str,
    /// References that it may still follow: loops end, and so do documents full of them.
    left: usize,
    /// Where the lists stand that have been taken in for one service: a second time they add nothing.
    taken: HashSet<usize>,
}

impl<'d> Trail<'d> {
    fn members_of(&mut self, source: &Source) -> Vec<Member> {
        match source {
            Source::Inside(items) => self.members(items),
            Source::Referred(reference) => {
                self.list(reference).map(|list| self.members(&items(list))).unwrap_or_default()
            }
        }
    }

    fn members(&mut self, items: &[Item]) -> Vec<Member> {
        let mut found = Vec::new();
        self.taken.clear();
        self.gather(items, &mut found);
        found
    }

    fn gather(&mut self, items: &[Item], found: &mut Vec<Member>) {
        for item in items {
            let member = match item {
                Item::Entry(member) => Some(member.clone()),
                Item::Reference(reference) => self.entry(reference),
                Item::External(anchor) => {
                    if let Some(items) = self.external(anchor) {
                        self.gather(&items, found);
                    }
                    None
                }
            };
            let room = found.len() < MAX_MEMBERS;
            found.extend(member.filter(|member| room && found.iter().all(|m| m.uri != member.uri)));
        }
    }

    /// What is in a list of the same user that is here.
    fn external(&mut self, anchor: &str) -> Option<Vec<Item>> {
        let reference = Reference::read(&format!("/{}", anchor.strip_prefix(self.root)?))?;
        let list = self.list(&reference).filter(|_| self.owns(&reference))?;
        if !self.taken.insert(std::ptr::from_ref(list) as usize) {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        Some(items(list))
    }

    fn list(&self, reference: &Reference) -> Option<&'d Element> {
        self.element(reference).filter(|e| e.is(RESOURCE_LISTS, "list"))
    }

    /// Whether a document is the user's own: XCAP lets nobody read another's (RFC 4826 §3.4.7).
    fn owns(&self, reference: &Reference) -> bool {
        reference.user.strip_prefix("sip:") == Some(self.owner.as_str())
    }

    /// The entry at the end of a reference, which may be to another reference. Of other users there is none.
    fn entry(&mut self, reference: &Reference) -> Option<Member> {
        let mut reference = reference.clone();
        loop {
            self.left = self.left.checked_sub(1)?;
            self.owns(&reference).then_some(())?;
            let element = self.element(&reference)?;
            if element.is(RESOURCE_LISTS, "entry") {
                return entry(element);
            }
            reference = entry_ref(element.attribute("ref").filter(|_| element.is(RESOURCE_LISTS, "entry-ref"))?)?;
        }
    }

    fn element(&self, reference: &Reference) -> Option<&'d Element> {
        let key = key_of(self.owner, &reference.document);
        match self.documents.get(&(LISTS[1], key.as_str().into()))? {
            Lists::Named(text) => reference.node.element(text.root()),
            Lists::Services(_) => None,
        }
    }
}

/// The lists of all users.
pub struct Shelf {
    inner: RwLock<Inner>,
    /// The XCAP root's URI.
    root: Box<str>,
    /// Lists of one user, and of all.
    per_user: usize,
    all: usize,
}

#[derive(Default)]
struct Inner {
    /// By owner, usage and key.
    documents: HashMap<Aor, Documents>,
    services: HashMap<Aor, Arc<List>>,
}

impl Shelf {
    /// `root`: the XCAP root's URI, with a slash at its end.
    pub fn new(root: &str, per_user: usize, all: usize) -> Shelf {
        Shelf { inner: RwLock::default(), root: root.into(), per_user, all }
    }

    /// What a URI stands for.
    pub fn list(&self, uri: &Aor) -> Option<Arc<List>> {
        self.inner.read().services.get(uri).cloned()
    }

    /// A document of a usage is this now, or gone. Gives the URIs that may stand for something else by that. One that does not
    /// read makes no list.
    pub fn enter(&self, usage: &str, key: &str, document: Option<&Document>) -> Vec<Aor> {
        let Some(usage) = LISTS.into_iter().find(|u| *u == usage) else { return Vec::new() };
        let Some(owner) = owner_of(key) else { return Vec::new() };
        // RFC 4826 §4.4.7: services elsewhere are in no index, and in nobody's use.
        if usage == LISTS[0] && !key.ends_with("/index") {
            return Vec::new();
        }
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let documents = inner.documents.entry(owner.clone()).or_default();
        let read = document.map(|d| Lists::parse(&d.body));
        if let Some(Err(error)) = &read {
            tracing::warn!(%error, usage, "stored lists do not read");
        }
        match read.and_then(Result::ok) {
            Some(lists) => drop(documents.insert((usage, key.into()), lists)),
            None => drop(documents.remove(&(usage, key.into()))),
        }
        let mut touched: Vec<Aor> = Vec::new();
        inner.services.retain(|uri, list| {
            let ours = list.owner == owner;
            if ours {
                touched.push(uri.clone());
            }
            !ours
        });
        let mut trail =
            Trail { owner: &owner, documents, root: &self.root, left: MAX_REFERENCES, taken: HashSet::new() };
        let mut made = 0;
        for (uri, source) in
            documents.values().flat_map(|l| if let Lists::Services(s) = l { s.as_slice() } else { &[] })
        {
            let members = trail.members_of(source).into();
            // Whoever has a URI first keeps it.
            if !inner.services.contains_key(uri) {
                if made >= self.per_user || inner.services.len() >= self.all {
                    tracing::warn!(usage, "more lists than one user, or all of them, may have: the rest is none");
                    break;
                }
                made += 1;
                inner.services.insert(uri.clone(), Arc::new(List { owner: owner.clone(), members }));
            }
            if !touched.contains(uri) {
                touched.push(uri.clone());
            }
        }
        if documents.is_empty() {
            inner.documents.remove(&owner);
        }
        touched
    }
}

#[cfg(test)]
mod tests {
    use sip_ims::ports::Version;

    use super::*;

    /// RFC 4826 §4.3, byte for byte.
    const SERVICES: &[u8] = include_bytes!("../tests/rfc4826-4.xml");
    const JOES: &[u8] = b"<resource-lists xmlns='urn:ietf:params:xml:ns:resource-lists'><list name='l0'><entry uri='sip:no@example.com'/></list><list name='l1'>\
        <entry uri='sip:Bill@EXAMPLE.com'><display-name>Bill Doe</display-name></entry>\
        <list name='close'><entry uri='sip:joe@example.com'/><entry uri='sip:Bill@example.com'/></list>\
        <external anchor='http://x/'/></list></resource-lists>";

    fn uris(list: &List) -> Vec<&str> {
        list.members.iter().map(|m| &*m.uri).collect()
    }

    #[test]
    fn services_have_their_lists_inside_or_by_reference() {
        let shelf = Shelf::new("http://h/", 100, 1000);
        let joe: Aor = "joe@example.com".parse().unwrap();
        let document = |body: &[u8]| Document { key: key_of(&joe, "index"), version: Version(1), body: body.to_vec() };
        let aor = |text: &str| text.parse::<Aor>().unwrap();
        let touched = shelf.enter("rls-services", &key_of(&joe, "index"), Some(&document(SERVICES)));
        assert_eq!(touched.len(), 2);
        assert_eq!(
            uris(&shelf.list(&aor("marketing@example.com")).unwrap()),
            ["sip:joe@example.com", "sip:sudhir@example.com"]
        );
        assert!(shelf.list(&aor("mybuddies@example.com")).unwrap().members.is_empty());
        shelf.enter("resource-lists", &key_of(&joe, "index"), Some(&document(JOES)));
        let buddies = shelf.list(&aor("mybuddies@example.com")).unwrap();
        assert_eq!(uris(&buddies), ["sip:Bill@example.com", "sip:joe@example.com"]);
        assert_eq!((buddies.members[0].name.as_deref(), &buddies.owner), (Some("Bill Doe"), &joe));
        // Not the one that is meant.
        shelf.enter("resource-lists", &key_of(&joe, "other"), Some(&document(JOES)));
        shelf.enter("resource-lists", &key_of(&joe, "index"), None);
        assert!(shelf.list(&aor("mybuddies@example.com")).unwrap().members.is_empty());
        let other = [SERVICES, b""].concat();
        assert_eq!(shelf.enter("rls-services", &key_of(&joe, "other"), Some(&document(&other))), []);
        // Nobody takes a URI from its owner.
        let eve: Aor = "eve@example.com".parse().unwrap();
        shelf.enter("rls-services", &key_of(&eve, "index"), Some(&document(SERVICES)));
        assert_eq!(shelf.list(&aor("marketing@example.com")).unwrap().owner, joe);
        assert_eq!(shelf.enter("rls-services", &key_of(&joe, "index"), None).len(), 2);
        assert_eq!(shelf.list(&aor("mybuddies@example.com")), None);
    }

    #[test]
    fn an_entry_ref_stands_for_an_entry_of_the_same_user_and_loops_end() {
        let (joe, at) = ("joe@example.com".parse::<Aor>().unwrap(), "resource-lists/users/sip:joe@example.com");
        let refer = |user: &str, uri: &str| {
            let at = at.replace("joe", user);
            format!("<entry-ref ref='{at}/other/~~/resource-lists/list/entry%5b@uri=%22{uri}%22%5d'/>")
        };
        let to_ref = |n: usize| format!("<entry-ref ref='{at}/other/~~/resource-lists/list/entry-ref%5b{n}%5d'/>");
        let lists =
            |inner: &str| format!("<resource-lists xmlns='{RESOURCE_LISTS}'><list>{inner}</list></resource-lists>");
        let other = "<entry uri='sip:bill@example.com'><display-name>Bill</display-name></entry>".to_owned()
            + &refer("joe", "sip:bill@example.com")
            + &to_ref(3)
            + &to_ref(2);
        let index = [
            refer("joe", "sip:bill@example.com"),
            refer("eve", "sip:bill@example.com"),
            refer("joe", "sip:nobody@example.com"),
            // To one that leads on, and to two that lead to each other.
            to_ref(1),
            to_ref(2),
            "<entry uri='sip:last@example.com'/>".into(),
        ];
        let services = format!(
            "<rls-services xmlns='{}'><service uri='sip:l@example.com'><resource-list>http://h/{at}/index/~~/resource-lists/list\
             </resource-list></service></rls-services>",
            super::SERVICES
        );
        let shelf = Shelf::new("http://h/", 100, 1000);
        for (usage, name, body) in [
            ("resource-lists", "other", lists(&other)),
            ("rls-services", "index", services),
            ("resource-lists", "index", lists(&index.concat())),
        ] {
            let document = Document { key: key_of(&joe, name), version: Version(1), body: body.into_bytes() };
            shelf.enter(usage, &key_of(&joe, name), Some(&document));
        }
        let list = shelf.list(&"l@example.com".parse().unwrap()).unwrap();
        assert_eq!(uris(&list), ["sip:bill@example.com", "sip:last@example.com"]);
        assert_eq!(list.members[0].name.as_deref(), Some("Bill"));
    }

    #[test]
    fn an_external_stands_for_a_list_of_the_same_user_here_and_loops_end() {
        let joe: Aor = "joe@example.com".parse().unwrap();
        let at = |root: &str, user: &str, name: &str| {
            let list = format!(
                "resource-lists/users/sip:{user}@example.com/index/~~/resource-lists/list%5b@name=%22{name}%22%5d"
            );
            format!("<external anchor='{root}{list}'/>")
        };
        let entry = |name: &str| format!("<entry uri='sip:{name}@example.com'/>");
        let list = |name: &str, inner: String| format!("<list name='{name}'>{inner}</list>");
        let index = [
            list("all", entry("a") + &at("http://h/", "joe", "more") + &entry("z")),
            list("more", entry("b") + &at("http://h/", "joe", "more") + &at("http://h/", "joe", "all") + &entry("a")),
            list("others", at("http://other/", "joe", "more") + &at("http://h/", "eve", "more") + &entry("c")),
            list("wide", at("http://h/", "joe", "wide").repeat(MAX_MEMBERS / 2) + &entry("d")),
        ];
        let index = format!("<resource-lists xmlns='{RESOURCE_LISTS}'>{}</resource-lists>", index.concat());
        let service = |name: &str| {
            format!(
                "<service uri='sip:{name}@example.com'><list xmlns:r='{RESOURCE_LISTS}'>{}</list></service>",
                at("http://h/", "joe", name).replace("<external", "<r:external")
            )
        };
        let services = ["all", "others", "wide"].map(service).concat();
        let services = format!("<rls-services xmlns='{}'>{services}</rls-services>", super::SERVICES);
        for services_first in [true, false] {
            let shelf = Shelf::new("http://h/", 100, 1000);
            let mut both = [("rls-services", &services), ("resource-lists", &index)];
            if !services_first {
                both.reverse();
            }
            for (usage, body) in both {
                let document =
                    Document { key: key_of(&joe, "index"), version: Version(1), body: body.clone().into_bytes() };
                shelf.enter(usage, &key_of(&joe, "index"), Some(&document));
            }
            let of = |name: &str| shelf.list(&format!("{name}@example.com").parse().unwrap()).unwrap();
            assert_eq!(uris(&of("all")), ["sip:a@example.com", "sip:b@example.com", "sip:z@example.com"]);
            assert_eq!(uris(&of("others")), ["sip:c@example.com"]);
            assert_eq!(uris(&of("wide")), ["sip:d@example.com"]);
        }
    }

    #[test]
    fn nobody_has_more_lists_than_the_bound() {
        let joe: Aor = "joe@example.com".parse().unwrap();
        let document = Document { key: key_of(&joe, "index"), version: Version(1), body: SERVICES.to_vec() };
        for (per_user, all) in [(1, 1000), (100, 1)] {
            let shelf = Shelf::new("http://h/", per_user, all);
            shelf.enter("rls-services", &key_of(&joe, "index"), Some(&document));
            assert_eq!(shelf.inner.read().services.len(), 1);
        }
    }

    #[test]
    fn what_makes_no_list_is_refused() {
        assert_eq!(Lists::parse(b"<x/>"), Err(NotLists::Root));
        let service = |inner: &str| {
            Lists::parse(format!("<rls-services xmlns='{}'>{inner}</rls-services>", super::SERVICES).as_bytes())
        };
        assert_eq!(service("<service uri='tel:+1'/>"), Err(NotLists::Service));
        assert_eq!(service("<service uri='sip:a@h'/>"), Err(NotLists::Service));
        assert_eq!(
            service("<service uri='sip:a@h'><resource-list>http://x/y</resource-list></service>"),
            Err(NotLists::Service)
        );
    }
}
