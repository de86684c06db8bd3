//! Any Authorization and WWW-Authenticate value; what is read is written and read again. And any nonce and token of a SIM.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_proto::digest::Nonces;
use sip_proto::digest::aka::{Auts, Resynchronise, rand_autn};
use sip_proto::headers::{Challenge, Credentials};

fuzz_target!(|bytes: &[u8]| {
    if let Some(credentials) = Credentials::parse(bytes) {
        let _ = (credentials.algorithm(), credentials.qop(), credentials.nonce_count());
        let _ = Resynchronise::of(&credentials);
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
    let _ = rand_autn(bytes);
    if let Some(auts) = Auts::parse(bytes) {
        let mut out = Vec::new();
        auts.write(&mut out);
        assert_eq!(Auts::parse(&out), Some(auts));
    }
    // Nobody but the house makes its nonces.
    let house = Nonces::new(&[7; 32], b"home", 60);
    assert!(house.xres(bytes, b"alice").is_none());
});
