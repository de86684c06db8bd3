//! Whatever is stored as presence rules is refused or decides, and what it lets through of a document is a document.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_presence::document::Published;
use sip_presence::rules::{Rules, Watcher};
use sip_presence::transform::filter;

const DOCUMENT: &[u8] = b"<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" \
    xmlns:r=\"urn:ietf:params:xml:ns:pidf:rpid\" entity=\"sip:u@h\"><tuple id=\"t\"><status><basic>open</basic><x xmlns=\"urn:x\"/></status>\
    <r:class>work</r:class><dm:deviceID>urn:d</dm:deviceID><contact>sip:u@h</contact><note>n</note></tuple><note>n</note>\
    <dm:person id=\"p\"><r:activities><r:busy/></r:activities><r:user-input since='x' last-input=\"y\" idle-threshold=\"1\">idle</r:user-input>\
    </dm:person><dm:device id=\"d\"><dm:deviceID>urn:d</dm:deviceID></dm:device></presence>";

fuzz_target!(|bytes: &[u8]| {
    let Ok(rules) = Rules::parse(bytes) else { return };
    for uri in ["sip:user@example.com", "tel:+1", "x"] {
        let watcher = Watcher { uri: uri.into(), number: None, anonymous: false };
        if let Some(permissions) = rules.decide(&watcher, 1_000_000_000).permissions {
            let shown = filter(DOCUMENT, &permissions).expect("the document reads");
            assert!(shown.len() <= DOCUMENT.len() && Published::parse(&shown, 1 << 20).is_ok());
        }
    }
    let _ = rules.next_border(0);
});
