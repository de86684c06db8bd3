//! Any From, To, Contact or Route value, alone and as a list.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_proto::HeaderName;

#[path = "../../sip/proto/tests/support/typed.rs"]
mod typed;

fuzz_target!(|bytes: &[u8]| {
    for name in [HeaderName::From, HeaderName::Contact, HeaderName::Route, HeaderName::ReferTo, HeaderName::HistoryInfo]
    {
        typed::readable(name, bytes);
    }
    for item in sip_proto::headers::list(bytes) {
        assert!(!item.is_empty());
    }
});
