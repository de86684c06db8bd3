//! `application/pidf-diff+xml` (RFC 5262): the whole document under a root with a version, or what has changed since the last one.
//!
//! A change is told by whole tuples, persons and devices, which have an id; notes and elements without one are told by sending
//! everything again, and so is a change that would be as long as the whole.

use std::collections::BTreeMap;

use sip_xml::{Document, Element};

use crate::names::{BOUND, DATA_MODEL, PIDF, PIDF_DIFF};

/// The document of a NOTIFY with this version: what changed from `before`, or everything when there is nothing before or
/// when that is shorter. Both are composed documents.
pub fn write(before: Option<&[u8]>, now: &[u8], version: u32) -> Vec<u8> {
    let whole = full(now, version);
    match before.and_then(|before| diff(before, now, version)) {
        Some(changes) if changes.len() < whole.len() => changes,
        _ => whole,
    }
}

const OPEN: &[u8] = b"<presence ";
const CLOSE: &[u8] = b"</presence>";

/// The same document with another root.
fn full(document: &[u8], version: u32) -> Vec<u8> {
    let open = memchr::memmem::find(document, OPEN).unwrap_or(0);
    let close = memchr::memmem::rfind(document, CLOSE).unwrap_or(document.len());
    let mut out = Vec::with_capacity(document.len() + 128);
    out.extend_from_slice(&document[..open]);
    out.extend_from_slice(format!("<p:pidf-full xmlns:p=\"{PIDF_DIFF}\" version=\"{version}\" ").as_bytes());
    out.extend_from_slice(document.get(open + OPEN.len()..close).unwrap_or_default());
    out.extend_from_slice(b"</p:pidf-full>\n");
    out
}

/// An element with an id, by which both ends know it.
type Name<'e> = (&'static str, &'e str);

/// What is in a document: elements with an id, and the text of all others in order.
type Parts<'e> = (BTreeMap<Name<'e>, &'e [u8]>, Vec<&'e [u8]>);

fn parts<'e>(root: &'e Element, bytes: &'e [u8]) -> Option<Parts<'e>> {
    let (mut named, mut rest) = (BTreeMap::new(), Vec::new());
    for element in root.elements() {
        let text = &bytes[element.span.clone()];
        let kind = match () {
            () if element.is(PIDF, "tuple") => "tuple",
            () if element.is(DATA_MODEL, "person") => "dm:person",
            () if element.is(DATA_MODEL, "device") => "dm:device",
            () => "",
        };
        match element.attribute("id") {
            // One that stands in a selector must not end it.
            Some(id) if !kind.is_empty() && !id.contains(['\'', '"', '<', '&']) => {
                named.insert((kind, id), text).is_none().then_some(())?;
            }
            _ => rest.push(text),
        }
    }
    Some((named, rest))
}

fn diff(before: &[u8], now: &[u8], version: u32) -> Option<Vec<u8>> {
    let (old_root, new_root) = (Document::parse(before).ok()?.root, Document::parse(now).ok()?.root);
    let (old, old_rest) = parts(&old_root, before)?;
    let (new, new_rest) = parts(&new_root, now)?;
    if old_rest != new_rest {
        return None;
    }
    let mut out = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<p:pidf-diff xmlns=\"".to_vec();
    out.extend_from_slice(format!("{PIDF}\" xmlns:p=\"{PIDF_DIFF}\"").as_bytes());
    for (prefix, namespace, _) in BOUND {
        out.extend_from_slice(format!(" xmlns:{prefix}=\"{namespace}\"").as_bytes());
    }
    out.extend_from_slice(b" entity=\"");
    sip_xml::escape_attribute(new_root.attribute("entity")?, &mut out);
    out.extend_from_slice(format!("\" version=\"{version}\">").as_bytes());
    for (kind, id) in old.keys().filter(|name| !new.contains_key(*name)) {
        out.extend_from_slice(format!("<p:remove sel=\"*/{kind}[@id='{id}']\"/>").as_bytes());
    }
    for ((kind, id), text) in &new {
        let (head, tail) = match old.get(&(*kind, *id)) {
            Some(known) if known == text => continue,
            Some(_) => (format!("<p:replace sel=\"*/{kind}[@id='{id}']\">"), "</p:replace>"),
            // Tuples come before everything else (RFC 3863 §4.4), the others after.
            None if *kind == "tuple" => ("<p:add sel=\"*\" pos=\"prepend\">".to_owned(), "</p:add>"),
            None => ("<p:add sel=\"*\">".to_owned(), "</p:add>"),
        };
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(text);
        out.extend_from_slice(tail.as_bytes());
    }
    out.extend_from_slice(b"</p:pidf-diff>\n");
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compose::compose;
    use crate::document::Published;

    fn composed(inner: &str) -> Vec<u8> {
        let text = format!("<presence xmlns='{PIDF}' xmlns:dm='{DATA_MODEL}' entity='x'>{inner}</presence>");
        let published = Published::parse(text.as_bytes(), 65_536).unwrap();
        let mut out = Vec::new();
        compose("a@h", &[&published], &[], &mut out);
        out
    }

    fn tuple(id: u8, text: &str) -> String {
        format!("<tuple id='t{id}'><status><basic>open</basic></status><note>{text}, and so on and on</note></tuple>")
    }

    /// What a watcher has: elements by selector, as a set.
    fn state(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let root = Document::parse(bytes).unwrap().root;
        let (named, rest) = parts(&root, bytes).unwrap();
        let rest = rest.iter().enumerate().map(|(n, text)| (format!("#{n}"), text.to_vec()));
        named.iter().map(|((kind, id), text)| (format!("*/{kind}[@id='{id}']"), text.to_vec())).chain(rest).collect()
    }

    /// Applies a document as a watcher does (RFC 5263 §4.5).
    fn apply(known: &mut BTreeMap<String, Vec<u8>>, bytes: &[u8]) {
        let root = Document::parse(bytes).unwrap().root;
        if root.is(PIDF_DIFF, "pidf-full") {
            *known = state(bytes);
            return;
        }
        for operation in root.elements() {
            let sel = operation.attribute("sel").unwrap().to_owned();
            match &*operation.name {
                "remove" => assert!(known.remove(&sel).is_some(), "{sel}"),
                "replace" => {
                    let new = operation.elements().next().unwrap();
                    assert!(known.insert(sel, bytes[new.span.clone()].to_vec()).is_some());
                }
                _ => {
                    let new = operation.elements().next().unwrap();
                    let kind = if &*new.name == "tuple" { "tuple".to_owned() } else { format!("dm:{}", new.name) };
                    let sel = format!("*/{kind}[@id='{}']", new.attribute("id").unwrap());
                    assert!(known.insert(sel, bytes[new.span.clone()].to_vec()).is_none());
                }
            }
        }
    }

    #[test]
    fn a_change_says_no_more_than_what_changed() {
        let before = composed(&(tuple(1, "one") + &tuple(2, "two") + "<dm:person id='p'/>"));
        let now = composed(&(tuple(2, "zwei") + &tuple(3, "three") + "<dm:person id='p'/>"));
        let text = String::from_utf8(diff(&before, &now, 7).unwrap()).unwrap();
        let expected = format!(
            "<p:remove sel=\"*/tuple[@id='t1']\"/><p:replace sel=\"*/tuple[@id='t2']\">{}</p:replace>\
             <p:add sel=\"*\" pos=\"prepend\">{}</p:add></p:pidf-diff>\n",
            tuple(2, "zwei"),
            tuple(3, "three")
        );
        assert_eq!(text.split_once("version=\"7\">").unwrap().1, expected);
    }

    #[test]
    fn everything_comes_first_and_when_a_note_changed() {
        let (one, two) = (composed(&(tuple(1, "a") + "<note>x</note>")), composed(&(tuple(1, "a") + "<note>y</note>")));
        for before in [None, Some(&one[..])] {
            let text = String::from_utf8(write(before, &two, 3)).unwrap();
            let root = Document::parse(text.as_bytes()).unwrap().root;
            assert!(root.is(PIDF_DIFF, "pidf-full"), "{text}");
            assert_eq!((root.attribute("version"), root.attribute("entity")), (Some("3"), Some("sip:a@h")));
            assert_eq!(state(text.as_bytes()), state(&two));
        }
    }

    proptest! {
        #[test]
        fn a_watcher_who_applies_every_change_has_the_document(
            states in proptest::collection::vec(proptest::collection::btree_map(0u8..6, "[ab]", 0..6), 1..6),
            notes in proptest::collection::vec("[xy]?", 6),
        ) {
            let mut known = BTreeMap::new();
            let mut told: Option<Vec<u8>> = None;
            for (n, (tuples, note)) in states.iter().zip(&notes).enumerate() {
                let mut inner: String = tuples.iter().map(|(id, text)| tuple(*id, text)).collect();
                inner.push_str(&format!("<note>{note}</note>"));
                let now = composed(&inner);
                apply(&mut known, &write(told.as_deref(), &now, n as u32 + 1));
                prop_assert_eq!(&known, &state(&now));
                told = Some(now);
            }
        }
    }
}
