//! Whatever is stored as lists is refused or makes lists, no longer than allowed, and none of its members twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_presence::lists::{Lists, MAX_MEMBERS, Source};

fuzz_target!(|bytes: &[u8]| {
    let check = |members: &[sip_presence::lists::Member]| {
        assert!(members.len() <= MAX_MEMBERS);
        let mut uris: Vec<_> = members.iter().map(|m| &m.uri).collect();
        uris.sort();
        uris.dedup();
        assert_eq!(uris.len(), members.len());
    };
    match Lists::parse(bytes) {
        Ok(Lists::Services(services)) => {
            for (_, source) in &services {
                if let Source::Members(members) = source {
                    check(members);
                }
            }
        }
        Ok(Lists::Named(_)) | Err(_) => {}
    }
});
