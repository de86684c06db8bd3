//! The documents that the RFCs print, byte for byte as they print them (page breaks and indentation taken out).

use sip_presence::compose::compose;
use sip_presence::document::{Kind, Published};
use sip_presence::rules::{Rules, Watcher};
use sip_presence::transform::filter;
use sip_xml::{Document, Element};

const PIDF: [&str; 4] = [
    include_str!("rfc3863-a.xml"),
    include_str!("rfc3863-b.xml"),
    include_str!("rfc4480-6.xml"),
    include_str!("rfc5196-5.xml"),
];

fn composed(published: &Published) -> String {
    let mut out = Vec::new();
    compose("someone@example.com", &[published], &[], &mut out);
    String::from_utf8(out).unwrap()
}

/// The content of an element as it stands in its text: what is behind its start tag.
fn content<'t>(text: &'t str, element: &Element) -> &'t str {
    let whole = &text[element.span.clone()];
    whole.split_once('>').map_or("", |(_, rest)| rest)
}

/// Names and attributes, whatever the prefixes are; what an element in a document means.
fn meaning(element: &Element) -> String {
    let mut text = format!("<{{{}}}{}", element.namespace.as_deref().unwrap_or(""), element.name);
    for a in &element.attributes {
        text.push_str(&format!(" {{{}}}{}={:?}", a.namespace.as_deref().unwrap_or(""), a.name, a.value));
    }
    text.push('>');
    for child in &element.children {
        match child {
            sip_xml::Node::Element(e) => text.push_str(&meaning(e)),
            sip_xml::Node::Text(t) => text.push_str(t),
        }
    }
    text + "</>"
}

#[test]
fn every_element_stays_byte_for_byte_and_means_what_it_did() {
    for text in PIDF {
        let published = Published::parse(text.as_bytes(), 65_536).unwrap();
        let whole = composed(&published);
        let (before, after) = (Document::parse(text.as_bytes()).unwrap(), Document::parse(whole.as_bytes()).unwrap());
        assert_eq!(before.root.elements().count(), published.pieces.len());
        for element in before.root.elements() {
            assert!(whole.contains(content(text, element)), "{whole}");
            assert!(after.root.elements().any(|e| meaning(e) == meaning(element)), "{}\n{whole}", meaning(element));
        }
    }
}

#[test]
fn the_rich_document_of_rfc_4480_has_its_parts() {
    let published = Published::parse(PIDF[2].as_bytes(), 65_536).unwrap();
    let count = |kind| published.pieces.iter().filter(|p| p.kind == kind).count();
    assert_eq!((count(Kind::Tuple), count(Kind::Person), count(Kind::Device), count(Kind::Note)), (3, 1, 1, 1));
}

#[test]
fn the_rules_of_rfc_5025_show_their_part_of_it() {
    let rules = Rules::parse(include_bytes!("rfc5025-6.xml")).unwrap();
    let watcher = Watcher { uri: "sip:user@example.com".into(), number: None, anonymous: false };
    let permissions = rules.decide(&watcher, 0).permissions.unwrap();
    let whole = composed(&Published::parse(PIDF[2].as_bytes(), 65_536).unwrap());
    let shown = String::from_utf8(filter(whole.as_bytes(), &permissions).unwrap()).unwrap();
    // Of services those with sip: and mailto:, and no device.
    assert!(!shown.contains("<dm:device ") && !shown.contains("im:someone@mobile.example.net"), "{shown}");
    assert!(shown.contains("mailto:someone@example.com") && shown.contains("rpid:activities"), "{shown}");
    assert!(!shown.contains("rpid:mood") && !shown.contains("rpid:place-is"), "{shown}");
    // Its user-input is the device's.
    assert!(!shown.contains("rpid:user-input"), "{shown}");
}
