//! `resource-lists` (RFC 4826 §3.4).

use sip_xml::Element;

use super::{Documents, Place, Stored, Usage, repeated};
use crate::conflict::{Conflict, Exists};
use crate::schema::{RESOURCE_LISTS, RESOURCE_LISTS_ROOT};
use crate::target::meant;
use crate::text::Text;

pub(super) static USAGE: Usage = Usage {
    auid: "resource-lists",
    media_type: "application/resource-lists+xml",
    namespace: RESOURCE_LISTS,
    documents: Documents::Stored(Stored { root: &RESOURCE_LISTS_ROOT, name: None, constraints }),
};

fn constraints(text: &Text, _: &Place<'_>) -> Result<(), Conflict> {
    let way = vec![text.root()];
    let mut found = Vec::new();
    repeated(&way, |e| e.is(RESOURCE_LISTS, "list"), "name", RESOURCE_LISTS, &mut found);
    for list in text.root().all(RESOURCE_LISTS, "list") {
        list_is_unique(&[&way[..], &[list]].concat(), RESOURCE_LISTS, &mut found);
    }
    if !found.is_empty() {
        return Err(Conflict::Uniqueness(found));
    }
    text.root().all(RESOURCE_LISTS, "list").try_for_each(references)
}

/// §3.4.5: names of lists, and the references of entries, are unique within their parent. `way` ends with a list.
pub(super) fn list_is_unique(way: &[&Element], namespace: &str, found: &mut Vec<Exists>) {
    let Some(list) = way.last() else { return };
    for (name, attribute) in [("list", "name"), ("entry", "uri"), ("entry-ref", "ref"), ("external", "anchor")] {
        repeated(way, |e| e.is(RESOURCE_LISTS, name), attribute, namespace, found);
    }
    for inner in list.all(RESOURCE_LISTS, "list") {
        list_is_unique(&[way, &[inner]].concat(), namespace, found);
    }
}

/// §3.4.5: `ref` is relative to the root, `anchor` is absolute.
pub(super) fn references(list: &Element) -> Result<(), Conflict> {
    for entry in list.elements().filter(|e| e.namespace.as_deref() == Some(RESOURCE_LISTS)) {
        match &*entry.name {
            "list" => references(entry)?,
            "entry-ref" if !entry.attribute("ref").is_some_and(is_relative_path) => {
                return Err(Conflict::Constraint("the ref of an entry-ref is a relative path".into()));
            }
            // Optional in the schema; without it there is nothing to refer to.
            "external" if !entry.attribute("anchor").is_some_and(|anchor| is_http(&meant(anchor))) => {
                return Err(Conflict::Constraint("the anchor of an external is an absolute HTTP URI".into()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A path that begins neither with a slash nor with a scheme (RFC 3986 §4.2: no colon in its first segment).
fn is_relative_path(reference: &str) -> bool {
    let first = reference.trim_start().split('/').next().unwrap_or_default();
    !first.is_empty() && !first.contains([':', '?', '#'])
}

pub(super) fn is_http(uri: &str) -> bool {
    let uri = uri.trim_start();
    let of = |scheme: &str| uri.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
    let rest = if of("http://") { 7 } else { 8 };
    (of("http://") || of("https://")) && uri[rest..].starts_with(|c: char| c.is_alphanumeric() || c == '[')
}
