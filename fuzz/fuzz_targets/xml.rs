//! Any document: what was read stays within the bounds, points at its own bytes, and reads back the same when written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_xml::{Document, Element, Limits, Node, Open, Writer};

const LIMITS: Limits = Limits { bytes: 1 << 16, depth: 16, elements: 500, attributes: 16, name: 64 };

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = Document::parse_with(bytes, &LIMITS) else { return };
    let mut elements = 0;
    check(&document.root, bytes, 1, &mut elements);
    assert!(elements <= LIMITS.elements);
    let mut out = Vec::new();
    Writer::document(&mut out, "r", |e| fill(e, &document.root));
    let again = Document::parse(&out).expect("what was written reads back");
    assert!(same(&document.root, &again.root));
});

fn check(e: &Element, bytes: &[u8], depth: usize, elements: &mut usize) {
    *elements += 1;
    assert!(depth <= LIMITS.depth && e.attributes.len() <= LIMITS.attributes);
    assert_eq!((bytes[e.span.start], bytes[e.span.end - 1]), (b'<', b'>'));
    for child in e.elements() {
        assert!(e.span.start < child.span.start && child.span.end < e.span.end);
        check(child, bytes, depth + 1, elements);
    }
}

/// The shape and the text, under names that need no declarations.
fn fill(out: &mut Open<'_>, e: &Element) {
    for (i, attribute) in e.attributes.iter().enumerate() {
        out.attribute(&format!("a{i}"), &attribute.value);
    }
    for node in &e.children {
        match node {
            Node::Element(child) => out.child("e", |c| fill(c, child)),
            Node::Text(text) => out.text(text),
        }
    }
}

fn same(a: &Element, b: &Element) -> bool {
    let values = |e: &Element| e.attributes.iter().map(|a| a.value.clone()).collect::<Vec<_>>();
    values(a) == values(b)
        && a.children.len() == b.children.len()
        && a.children.iter().zip(&b.children).all(|pair| match pair {
            (Node::Element(x), Node::Element(y)) => same(x, y),
            (Node::Text(x), Node::Text(y)) => x == y,
            _ => false,
        })
}
