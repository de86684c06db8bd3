//! Any Via list; what a response makes of it reads back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_proto::build::Response;
use sip_proto::headers::{Via, list};
use sip_proto::{HeaderName, Message};

#[path = "../../sip/proto/tests/support/typed.rs"]
mod typed;

fuzz_target!(|bytes: &[u8]| {
    typed::readable(HeaderName::Via, bytes);
    let request = [b"OPTIONS sip:a SIP/2.0\r\nVia: ", bytes, b"\r\n\r\n"].concat();
    let Ok(m) = Message::parse(&request) else { return };
    let Some(before) = m.top_via() else { return };
    // Unfolding changes what stands inside a value, and only that.
    if m.defect().is_some() || bytes.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return;
    }
    let mut out = Vec::new();
    Response::to(&m, 200).source(([192, 0, 2, 1], 5060).into()).write(&mut out, |_| {});
    let answer = Message::parse(&out).expect("an answer is a message");
    let after = answer.top_via().expect("its Via is still one");
    assert_eq!((after.branch(), after.host, after.port), (before.branch(), before.host, before.port));
    if before.rport().is_some() {
        assert_eq!(after.rport(), Some(Some(5060)));
    }
    let readable =
        |m: &Message<'_>| m.values(HeaderName::Via).flat_map(list).filter(|v| Via::parse(v).is_some()).count();
    assert_eq!(readable(&answer), readable(&m));
});
