//! `rls-services` (RFC 4826 §4.4).

use sip_xml::Element;

use super::resource_lists::{list_is_unique, references};
use super::{Documents, Place, Stored, Usage, field, repeated};
use crate::conflict::Conflict;
use crate::edit::in_scope;
use crate::schema::{RLS_SERVICES, RLS_SERVICES_ROOT};
use crate::target::{Target, Tree, meant};
use crate::text::Text;

pub const AUID: &str = "rls-services";

pub(super) static USAGE: Usage = Usage {
    auid: AUID,
    media_type: "application/rls-services+xml",
    namespace: RLS_SERVICES,
    documents: Documents::Stored(Stored { root: &RLS_SERVICES_ROOT, name: None, constraints }),
};

/// §4.4.7: the documents whose services are in force, and the name of their union in the global tree.
pub const INDEX: &str = "index";

fn constraints(text: &Text, place: &Place<'_>) -> Result<(), Conflict> {
    let root = text.root();
    let mut found = Vec::new();
    repeated(&[root], |e| e.is(RLS_SERVICES, "service"), "uri", RLS_SERVICES, &mut found);
    for service in root.all(RLS_SERVICES, "service") {
        for list in service.all(RLS_SERVICES, "list") {
            list_is_unique(&[root, service, list], RLS_SERVICES, &mut found);
        }
    }
    if !found.is_empty() {
        return Err(Conflict::Uniqueness(found));
    }
    for service in root.all(RLS_SERVICES, "service") {
        service.all(RLS_SERVICES, "list").try_for_each(references)?;
        if let Some(reference) = service.child(RLS_SERVICES, "resource-list")
            && referred(&reference.text(), place).is_none()
        {
            let phrase = "a resource-list is an absolute URI below the owner's resource-lists";
            return Err(Conflict::Constraint(phrase.into()));
        }
    }
    Ok(())
}

/// The list that a `resource-list` refers to (§4.1). `None`: none below the home directory in `resource-lists`.
pub fn referred(uri: &str, place: &Place<'_>) -> Option<Target> {
    // Long ones are broken into lines in documents.
    let uri: String = uri.split_whitespace().collect();
    let uri = meant(&uri);
    if !super::resource_lists::is_http(&uri) {
        return None;
    }
    let path = uri.split_once("://")?.1.split_once('/')?.1;
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let below = path.strip_prefix(place.root.strip_prefix('/')?)?;
    let target = Target::parse(below, query).ok()?;
    let owned = matches!(&target.tree, Tree::Users(xui) if (place.is_owner)(xui));
    (owned && target.auid == "resource-lists" && target.node.is_some()).then_some(target)
}

/// A service's URI, and where it stands, to be unique on the whole server.
pub fn uris(text: &Text) -> Vec<(&str, String)> {
    let root = text.root();
    let services = root.all(RLS_SERVICES, "service");
    services.filter_map(|s| Some((s.attribute("uri")?, field(&[root, s], "uri", RLS_SERVICES)))).collect()
}

/// The union of all users' services (§4.4.8).
#[derive(Debug)]
pub struct Index(Vec<u8>);

impl Default for Index {
    fn default() -> Index {
        let head = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<rls-services xmlns=\"{RLS_SERVICES}\">\n");
        Index(head.into_bytes())
    }
}

impl Index {
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the services of one document, with the namespaces that its root has declared.
    pub fn add(&mut self, text: &Text) {
        let root = text.root();
        for service in root.all(RLS_SERVICES, "service") {
            self.service(text, root, service);
            self.0.push(b'\n');
        }
    }

    fn service(&mut self, text: &Text, root: &Element, service: &Element) {
        let xml = text.of(service);
        let name = xml.find(|c: char| c.is_ascii_whitespace() || matches!(c, '>' | '/')).unwrap_or(xml.len());
        self.0.extend_from_slice(&xml.as_bytes()[..name]);
        let own = |prefix: Option<&str>| service.declarations.iter().any(|d| d.prefix.as_deref() == prefix);
        let bound = in_scope(&[root]);
        for (prefix, namespace) in &bound {
            if own(*prefix) || (prefix.is_none() && *namespace == RLS_SERVICES) {
                continue;
            }
            self.0.extend_from_slice(b" xmlns");
            if let Some(prefix) = prefix {
                self.0.push(b':');
                self.0.extend_from_slice(prefix.as_bytes());
            }
            self.0.extend_from_slice(b"=\"");
            sip_xml::escape_attribute(namespace, &mut self.0);
            self.0.push(b'"');
        }
        if bound.iter().all(|(prefix, _)| prefix.is_some()) && !own(None) {
            self.0.extend_from_slice(b" xmlns=\"\"");
        }
        self.0.extend_from_slice(&xml.as_bytes()[name..]);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"</rls-services>\n");
        self.0
    }
}
