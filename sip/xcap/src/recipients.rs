//! Lists of URIs in bodies of requests (RFC 5363): who is to be asked in (RFC 5366 §4), whose state is wanted (RFC 5367 §4).
//!
//! They are documents of resource lists (RFC 4826 §3), of which only the entries count: nothing is looked up.

use std::collections::HashSet;

use sip_xml::{Broken, Document, Element, Limits};

use crate::schema::RESOURCE_LISTS;

/// The format that all services of URI lists read.
pub const TYPE: &str = "application/resource-lists+xml";
/// Bytes of a list.
const MAX_BYTES: usize = 64 * 1024;

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipient {
    pub uri: String,
    pub name: Option<String>,
}

/// What is wrong with a list; always its author's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadList {
    #[error(transparent)]
    Xml(#[from] Broken),
    #[error("another root element")]
    Root,
    #[error("more than {0} entries")]
    TooMany(usize),
    #[error("more than {MAX_BYTES} bytes")]
    TooLong,
}

/// The entries, those of lists within lists too, each URI once, at most `most`.
pub fn read(bytes: &[u8], most: usize) -> Result<Vec<Recipient>, BadList> {
    if bytes.len() > MAX_BYTES {
        return Err(BadList::TooLong);
    }
    let limits = Limits { bytes: MAX_BYTES, depth: 8, elements: 8 * most, ..Limits::default() };
    let root = Document::parse_with(bytes, &limits)?.root;
    if !root.is(RESOURCE_LISTS, "resource-lists") {
        return Err(BadList::Root);
    }
    let mut found = Vec::new();
    gather(&root, &mut HashSet::new(), &mut found);
    if found.len() > most { Err(BadList::TooMany(most)) } else { Ok(found) }
}

fn gather<'l>(element: &'l Element, seen: &mut HashSet<&'l str>, found: &mut Vec<Recipient>) {
    for child in element.elements() {
        if child.is(RESOURCE_LISTS, "list") {
            gather(child, seen, found);
        } else if child.is(RESOURCE_LISTS, "entry")
            && let Some(uri) = child.attribute("uri").map(str::trim)
            && seen.insert(uri)
        {
            let name = child.child(RESOURCE_LISTS, "display-name").map(|n| n.text().trim().to_owned());
            found.push(Recipient { uri: uri.to_owned(), name });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_5366_reads() {
        let text = br#"<?xml version="1.0" encoding="UTF-8"?>
            <resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"
                xmlns:cp="urn:ietf:params:xml:ns:copycontrol">
              <list>
                <entry uri="sip:bill@example.com" cp:copyControl="to" />
                <entry uri="sip:randy@example.net" cp:copyControl="to" cp:anonymize="true"/>
                <list><entry uri="sip:eddy@example.com"><display-name>Eddy</display-name></entry>
                <entry uri="sip:bill@example.com"/></list>
              </list>
            </resource-lists>"#;
        let read_all = read(text, 3).unwrap();
        let uris: Vec<&str> = read_all.iter().map(|r| &*r.uri).collect();
        assert_eq!(uris, ["sip:bill@example.com", "sip:randy@example.net", "sip:eddy@example.com"]);
        assert_eq!(read_all[2].name.as_deref(), Some("Eddy"));
        assert_eq!(read(text, 2), Err(BadList::TooMany(2)));
        assert_eq!(read(b"<list/>", 2), Err(BadList::Root));
    }
}
