//! Feature tags of a contact (first line) and a caller's preferences (the rest, a message): weighing never fails, what a union writes is
//! read as the same, and rates are granted within their bounds.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use sip_presence::services;
use sip_proto::Message;
use sip_proto::features::{Disposition, Preferences, Union};
use sip_proto::headers::Params;
use sip_proto::subscription::Rates;

fuzz_target!(|bytes: &[u8]| {
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return };
    let (contact, message) = (Params::new(&bytes[..end]), &bytes[end + 1..]);
    if let Ok(message) = Message::parse(message) {
        let weight = Preferences::of(&message).weigh(contact);
        assert!(weight.is_none_or(|w| w <= 1000));
        let _ = Disposition::of(&message);
    }
    let mut union = Union::default();
    union.add(contact);
    let mut text = Vec::new();
    union.write(&mut text);
    let mut again = Union::default();
    again.add(Params::new(&text));
    let mut second = Vec::new();
    again.write(&mut second);
    assert_eq!(text, second, "{}", String::from_utf8_lossy(&text));
    let mut tuples = Vec::new();
    services::write_tuples("alice@example.com", &union, &mut tuples);
    services::to_features(message, &mut again);
    if let Some(mut rates) = Rates::asked(&bytes[..end], Duration::from_secs(5)) {
        assert!(rates.pace() >= Duration::from_secs(5) && rates.pace() <= Duration::from_secs(3600));
        assert!(rates.told(Instant::now()).is_none_or(|p| p >= Duration::from_secs(1) && p <= Duration::from_secs(3601)));
        let mut out = Vec::new();
        rates.write(&mut out);
        assert!(out.starts_with(b";"));
    }
});
