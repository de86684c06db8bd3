//! Any typed header: the first byte picks the name, the rest is the value.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_proto::HeaderName;

#[path = "../../sip/proto/tests/support/typed.rs"]
mod typed;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, value)) = bytes.split_first() else { return };
    typed::readable(HeaderName::all()[usize::from(*first) % HeaderName::COUNT], value);
});
