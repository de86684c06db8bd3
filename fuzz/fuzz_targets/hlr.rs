//! What an HLR says of a line: understood or not, and what was understood reads back. The first octet tells whether it found the number.
#![no_main]

use gw_sms::registry::Line;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((found, body)) = bytes.split_first() else { return };
    let status = if found % 2 == 0 { 200 } else { 404 };
    if let Some(line) = Line::told(status, body) {
        assert_eq!(Line::told(200, &serde_json::to_vec(&line).unwrap()), Some(line));
    }
});
