//! Any text and TLVs as a delivery receipt: bounded, printable, and keys that find each other.

#![no_main]

use gw_sms::receipt::{self, Source};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], Option<&[u8]>, Option<u8>, Option<[u8; 3]>)| {
    let (text, receipted_message_id, message_state, network_error) = input;
    let Some(receipt) = receipt::parse(&Source { text, receipted_message_id, message_state, network_error }) else {
        return;
    };
    assert!(receipt.id.len() <= 65 && receipt.id.bytes().all(|b| b.is_ascii_graphic()));
    for value in [&receipt.error, &receipt.submitted, &receipt.done].into_iter().flatten() {
        assert!(value.len() <= 32);
    }
    assert!(receipt::keys(&receipt.id).contains(&receipt::key(&receipt.id)));
});
