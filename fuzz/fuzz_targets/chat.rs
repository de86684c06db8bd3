//! What comes in at the end of a session: chunks in any order into a message.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use media_msrp::assembly::{Assembly, MAX_OPEN, Told};
use media_msrp::range::ByteRange;
use media_msrp::reader::Flag;

/// The longest message.
const MAX: usize = 256;

fuzz_target!(|bytes: &[u8]| {
    let mut assembly = Assembly::new(MAX);
    let now = Instant::now();
    // Each chunk is five octets and a body: message, start, end, total, flag and length.
    let mut rest = bytes;
    while let [id, start, end, total, how, after @ ..] = rest {
        let starred = |n: u8| (n != 255).then_some(u64::from(n));
        let range = ByteRange { start: u64::from(*start) + 1, end: starred(*end), total: starred(*total) };
        let id = [b'm', b'0' + id % 12];
        let length = usize::from(how >> 2).min(after.len());
        let (body, next) = after.split_at(length);
        rest = next;
        let flag = [Flag::Complete, Flag::More, Flag::Aborted][usize::from(how & 3) % 3];
        let told = Told { message_id: &id, content_type: b"text/plain", range };
        if assembly.begin(now, &told).is_err() || assembly.piece(body).is_err() {
            continue;
        }
        if let Some(whole) = assembly.end(flag) {
            assert!(whole.body.len() <= MAX && *whole.message_id == id);
        }
        assert!(assembly.open() <= MAX_OPEN);
    }
});
