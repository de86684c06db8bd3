//! Whatever is asked of whatever document: it is refused, or what was put is got again and put again changes nothing, what was
//! deleted is gone, and the rest stays as it was. Input: a path below the root with its query, a body, and a document, on
//! either side of a NUL. And the patch that makes one of two documents is within bounds, and written is XML.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_xcap::diff::{self, Change, Patch};
use sip_xcap::usage::{self, Place};
use sip_xcap::{NodeSelector, Put, Refused, Target, Terminal, Text};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(3, |b| *b == 0);
    let (Some(uri), Some(body), Some(document)) = (parts.next(), parts.next(), parts.next()) else { return };
    let text = Text::read(document.to_vec());
    if let Ok(text) = &text {
        let place = Place { root: "/xcap-root/", is_owner: &|xui| xui == "sip:a@h" };
        for usage in usage::ALL {
            let _ = usage.stored().map(|stored| stored.validate(text, &place));
        }
        let mut index = usage::rls_services::Index::default();
        index.add(text);
        if text.root().is("urn:ietf:params:xml:ns:rls-services", "rls-services") {
            let _ = usage::rls_services::uris(text);
        }
    }
    let change = |new: &[u8], old: &[u8]| Change::Document { sel: String::new(), new: None, previous: None, patch: Patch::of(old, new) };
    // Around what is told stands more than around what was read.
    let wide = sip_xml::Limits { bytes: usize::MAX, depth: 64, elements: usize::MAX, attributes: usize::MAX, name: 1024 };
    let told = diff::document("http://h/", &[change(body, document)]);
    sip_xml::Document::parse_with(&told, &wide).expect("what is told reads");
    assert!(matches!(Patch::of(document, document), Patch::Nothing));
    let Ok(uri) = std::str::from_utf8(uri) else { return };
    let (path, query) = uri.split_once('?').map_or((uri, None), |(p, q)| (p, Some(q)));
    let Ok(target) = Target::parse(path, query) else { return };
    let namespace = usage::find(&target.auid).map(|u| u.namespace);
    let (Some(node), Ok(text)) = (&target.node, text) else { return };
    let Ok(selector) = NodeSelector::parse(node, &target.bindings, namespace) else { return };
    let before = text.get(&selector);
    if let Some(node) = before.as_ref().filter(|_| selector.terminal == Terminal::Namespaces) {
        Text::read(node.body.clone().into_bytes()).map(drop).or_else(|_| node.body.contains(':').then_some(()).ok_or(())).unwrap();
    }
    let put = match selector.terminal {
        Terminal::Attribute(_) => Put::Attribute(body),
        _ => Put::Element(body),
    };
    if let Ok(edited) = text.put(&selector, put, &target.document_uri()) {
        assert_eq!(edited.created, before.is_none());
        let got = edited.text.get(&selector).expect("what was put");
        assert_eq!(got.body.trim(), std::str::from_utf8(body).unwrap().trim());
        let again = edited.text.put(&selector, put, "").expect("the same again");
        assert!(!again.created && again.text.as_str() == edited.text.as_str());
    }
    match text.delete(&selector) {
        Ok(left) => {
            assert!(left.get(&selector).is_none());
            assert!(matches!(left.delete(&selector), Err(Refused::NotFound)));
            assert!(left.as_str().len() < text.as_str().len());
        }
        Err(Refused::NotFound) => assert!(before.is_none()),
        Err(_) => {}
    }
});
