//! Any datagram: indexed or refused, checked, every header read, answered, and the answer is a message again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_proto::build::Response;
use sip_proto::{HeaderName, Message, validate};

#[path = "../../sip/proto/tests/support/typed.rs"]
mod typed;

fuzz_target!(|bytes: &[u8]| {
    let Ok(m) = Message::parse(bytes) else { return };
    assert!(m.bytes().len() <= bytes.len() && m.headers_end() <= m.bytes().len().max(m.headers_end()));
    let _ = (validate::request(&m), validate::response(&m), validate::next_max_forwards(&m));
    typed::refused(&m);
    if m.is_request() {
        let mut out = Vec::new();
        Response::to(&m, 400).tag(b"t").source(([192, 0, 2, 1], 5060).into()).write(&mut out, |w| {
            w.text(HeaderName::Server, b"x");
        });
        let answer = Message::parse(&out).expect("an answer is a message");
        assert_eq!(answer.status(), 400);
        if validate::request(&m).is_ok() {
            assert_eq!(answer.defect(), None);
            assert_eq!(validate::response(&answer).is_ok(), true);
            assert_eq!(answer.cseq(), m.cseq());
            assert_eq!(answer.top_via().and_then(|v| v.branch()), m.top_via().and_then(|v| v.branch()));
        }
    }
});
