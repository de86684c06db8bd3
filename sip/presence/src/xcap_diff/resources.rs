//! What a subscriber wants to hear of: the URIs in the body of a SUBSCRIBE (RFC 5875 §4.4).

use sip_ims::{Directory, Home, Msisdn, User};
use sip_proto::uri::{Scheme, Uri};
use sip_xcap::usage::{self, Usage};
use sip_xcap::{NodeSelector, Target, Text, Tree, encode_segment};

use crate::book::{key_of, owner_of};

const RESOURCE_LISTS: &str = "urn:ietf:params:xml:ns:resource-lists";
/// Resources of one subscription.
const MAX_RESOURCES: usize = 64;

/// A document, a directory or a node.
#[derive(Debug)]
pub struct Resource {
    /// As the subscriber wrote it: what is told of it has the same.
    pub sel: String,
    pub usage: &'static Usage,
    pub place: Place,
    pub node: Option<NodeSelector>,
}

#[derive(Debug)]
pub enum Place {
    Document {
        key: String,
    },
    /// The documents whose keys begin like that.
    Directory {
        home: String,
    },
}

/// Why a body names nothing. The subscriber's fault: 400.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotResources {
    #[error("No Resource List")]
    List,
    #[error("Too Many Resources")]
    TooMany,
}

/// Who reads.
pub struct Reader<'r> {
    pub user: &'r User,
    /// Reads everybody's.
    pub admin: bool,
    pub home: &'r Home,
    pub directory: &'r Directory,
    /// The XCAP root's URI.
    pub root: &'r str,
}

/// The resources that a body names and the reader may read; what it may not, or is none, is left out (§4.7).
pub fn read(body: &[u8], reader: &Reader<'_>) -> Result<Vec<Resource>, NotResources> {
    let text = Text::read(body.to_vec()).map_err(|_| NotResources::List)?;
    let root = text.root();
    if !root.is(RESOURCE_LISTS, "resource-lists") {
        return Err(NotResources::List);
    }
    let entries = root.all(RESOURCE_LISTS, "list").flat_map(|list| list.all(RESOURCE_LISTS, "entry"));
    let mut found: Vec<Resource> = Vec::new();
    for (number, uri) in entries.filter_map(|e| e.attribute("uri")).enumerate() {
        if number == MAX_RESOURCES {
            return Err(NotResources::TooMany);
        }
        if let Some(resource) = reader.resource(uri)
            && found.iter().all(|known| known.sel != resource.sel)
        {
            found.push(resource);
        }
    }
    Ok(found)
}

impl Reader<'_> {
    fn resource(&self, uri: &str) -> Option<Resource> {
        // Below the root, or absolute (§4.4); long ones are broken into lines in documents.
        let sel: String = uri.split_whitespace().collect();
        let below = sel.strip_prefix(self.root).unwrap_or(&sel);
        let below = below.strip_prefix('/').unwrap_or(below);
        let (path, query) = below.split_once('?').map_or((below, None), |(path, query)| (path, Some(query)));
        let directory = path.ends_with('/') && !path.contains("/~~/");
        let of_all = match path.trim_end_matches('/').split_once('/') {
            None => Some(path.trim_end_matches('/')),
            Some((auid, "users")) => Some(auid),
            Some(_) => None,
        };
        if let Some(auid) = of_all.filter(|_| directory) {
            // Of all users the reader sees their own.
            let usage = usage::find(auid).filter(|u| u.stored().is_some())?;
            let place = Place::Directory { home: key_of(&self.user.aor, "") };
            return Some(Resource { sel, usage, place, node: None });
        }
        let target = Target::parse(path, query).ok()?;
        let usage = usage::find(&target.auid).filter(|u| u.stored().is_some())?;
        let Tree::Users(xui) = &target.tree else { return None };
        let owner = self.named(xui)?;
        if owner.id != self.user.id && !self.admin {
            return None;
        }
        let place = match target.document() {
            Some(name) => Place::Document { key: key_of(&owner.aor, name) },
            None if directory && target.path.is_empty() => Place::Directory { home: key_of(&owner.aor, "") },
            None => return None,
        };
        let node = match &target.node {
            None => None,
            Some(node) => Some(NodeSelector::parse(node, &target.bindings, Some(usage.namespace)).ok()?),
        };
        Some(Resource { sel, usage, place, node })
    }

    fn named(&self, xui: &str) -> Option<std::sync::Arc<User>> {
        let uri = Uri::parse(xui.as_bytes())?;
        match uri.scheme() {
            Scheme::Tel => Msisdn::from_user(uri.user()?).ok().and_then(|n| self.directory.by_msisdn(n)),
            Scheme::Sip | Scheme::Sips if self.home.is_domain(uri.host()) => {
                self.directory.by_parts(uri.user()?, self.home.domain().as_bytes())
            }
            _ => None,
        }
    }
}

impl Resource {
    /// Whether a document that has changed is it, or in it, or has it.
    pub fn is_about(&self, usage: &str, key: &str) -> bool {
        self.usage.auid == usage
            && match &self.place {
                Place::Document { key: own } => own == key,
                Place::Directory { home } => key.starts_with(home.as_str()),
            }
    }
}

/// The URI below the root of a document that is in a directory.
pub fn uri_of(auid: &str, key: &str) -> String {
    let owner = owner_of(key).map_or_else(String::new, |aor| format!("sip:{aor}"));
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    format!("{auid}/users/{}/{}", encode_segment(&owner), encode_segment(name))
}
