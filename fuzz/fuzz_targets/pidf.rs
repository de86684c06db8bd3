//! Whatever is published is refused, or composes to a document that is taken itself, with every piece in it, and whose row
//! reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_presence::compose::compose;
use sip_presence::document::Published;

fuzz_target!(|bytes: &[u8]| {
    let Ok(published) = Published::parse(bytes, 64 * 1024) else { return };
    let mut row = Vec::new();
    published.write_row(&mut row);
    assert_eq!(Published::from_row(&row).as_ref(), Some(&published));
    let mut whole = Vec::new();
    compose("alice@example.com", &[&published, &published.clone()], &[], &mut whole);
    let again = Published::parse(&whole, 1 << 20);
    assert!(again.is_ok(), "{again:?}: {}", String::from_utf8_lossy(&whole));
});
