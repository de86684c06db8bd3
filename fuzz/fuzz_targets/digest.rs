//! Any Authorization and WWW-Authenticate value; what is read is written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_proto::headers::{Challenge, Credentials};

fuzz_target!(|bytes: &[u8]| {
    if let Some(credentials) = Credentials::parse(bytes) {
        let _ = (credentials.algorithm(), credentials.qop(), credentials.nonce_count());
        let mut out = Vec::new();
        credentials.write(&mut out);
        assert!(Credentials::parse(&out).is_some());
    }
    if let Some(challenge) = Challenge::parse(bytes) {
        let _ = challenge.algorithm();
        let mut out = Vec::new();
        challenge.write(&mut out);
        assert!(Challenge::parse(&out).is_some());
    }
});
