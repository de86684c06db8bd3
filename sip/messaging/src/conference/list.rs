//! Lists of users to invite (RFC 4826 §3, RFC 5366 §4).

use sip_xml::{Broken, Document, Element, Limits};

/// Entries that are read.
pub const MAX_ENTRIES: usize = 256;
const NAMESPACE: &str = "urn:ietf:params:xml:ns:resource-lists";

/// What is wrong with a list; always its author's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadList {
    #[error(transparent)]
    Xml(#[from] Broken),
    #[error("another root element")]
    Root,
    #[error("more than {MAX_ENTRIES} entries")]
    TooMany,
}

/// The URIs of all entries, those of lists within lists too, each once.
pub fn read(bytes: &[u8]) -> Result<Vec<String>, BadList> {
    let limits = Limits { bytes: 64 * 1024, depth: 8, elements: 2048, ..Limits::default() };
    let root = Document::parse_with(bytes, &limits)?.root;
    if !root.is(NAMESPACE, "resource-lists") {
        return Err(BadList::Root);
    }
    let mut found = Vec::new();
    gather(&root, &mut found);
    if found.len() > MAX_ENTRIES { Err(BadList::TooMany) } else { Ok(found) }
}

fn gather(element: &Element, found: &mut Vec<String>) {
    for child in element.elements() {
        if child.is(NAMESPACE, "list") {
            gather(child, found);
        } else if child.is(NAMESPACE, "entry")
            && let Some(uri) = child.attribute("uri").map(str::trim)
            && !found.iter().any(|f| f == uri)
        {
            found.push(uri.to_owned());
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
                <list><entry uri="sip:eddy@example.com"/><entry uri="sip:bill@example.com"/></list>
              </list>
            </resource-lists>"#;
        assert_eq!(read(text).unwrap(), ["sip:bill@example.com", "sip:randy@example.net", "sip:eddy@example.com"]);
        assert_eq!(read(b"<list/>"), Err(BadList::Root));
    }
}
