//! Whatever a watcher asks to be left out: it is refused, or kept as it was asked, and what it leaves of a document is a document. Input:
//! filters and a document, on either side of a NUL.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_presence::filters::{Asked, Target};

fuzz_target!(|bytes: &[u8]| {
    let Some(at) = bytes.iter().position(|b| *b == 0) else { return };
    let (body, document) = (&bytes[..at], &bytes[at + 1..]);
    let Ok(Some(asked)) = Asked::after(None, body) else { return };
    let mut row = Vec::new();
    asked.write_row(&mut row);
    assert_eq!(Asked::from_row(&row).as_ref(), Some(&asked));
    let _ = asked.filters.triggered(Target::itself("sip:a@h"), document, document);
    if sip_xml::Document::parse(document).is_ok()
        && let Some(part) = asked.filters.part(Target { requested: "sip:l@h", uri: "sip:a@h" }, document)
    {
        assert!(part.len() <= document.len());
        sip_xml::Document::parse(&part).expect("what is left is a document");
    }
});
