//! What a proxy does to any message it lets pass: Via on top, Max-Forwards down, Request-URI replaced, the top Via removed
//! again. The result is a message, and everything else is where it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_proto::{Edits, HeaderName, Message, validate};

fuzz_target!(|bytes: &[u8]| {
    let Ok(m) = Message::parse(bytes) else { return };
    if !m.is_request() || validate::request(&m).is_err() {
        return;
    }
    let mut edits = Edits::new();
    edits.insert_header(m.headers_start(), HeaderName::Via, |t| t.extend_from_slice(b"SIP/2.0/UDP p;branch=z9hG4bKp"));
    edits.replace(m.request_uri_range(), |t| t.extend_from_slice(b"sip:next@192.0.2.1"));
    if let Some(line) = m.line(HeaderName::MaxForwards) {
        edits.replace(line.value(), |t| t.extend_from_slice(b"69"));
    }
    edits.insert_header(m.headers_end(), HeaderName::RecordRoute, |t| t.extend_from_slice(b"<sip:p;lr>"));
    let mut out = Vec::new();
    edits.apply(m.bytes(), &mut out);
    let sent = Message::parse(&out).expect("still a message");
    assert_eq!(sent.defect(), None);
    assert_eq!(sent.request_uri(), b"sip:next@192.0.2.1");
    assert_eq!(sent.top_via().and_then(|v| v.branch()), Some(&b"z9hG4bKp"[..]));
    assert_eq!(sent.body(), m.body());
    assert_eq!(sent.headers().len(), m.headers().len() + 2);
    assert_eq!((sent.call_id(), sent.cseq()), (m.call_id(), m.cseq()));

    let mut back = Edits::new();
    back.delete(sent.line(HeaderName::Via).expect("it is there").line());
    let mut restored = Vec::new();
    back.apply(sent.bytes(), &mut restored);
    let restored = Message::parse(&restored).expect("still a message");
    assert_eq!(restored.top_via(), m.top_via());
});
