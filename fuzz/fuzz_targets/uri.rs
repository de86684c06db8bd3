//! Any URI: its parts come from its text, its AoR is a fixed point, and it equals itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_proto::Uri;

fuzz_target!(|bytes: &[u8]| {
    let Some(u) = Uri::parse(bytes) else { return };
    assert!(u.equivalent(&u));
    assert_eq!(u.to_owned().view(), u);
    let aor = u.aor();
    let canonical = Uri::parse(&aor).expect("an AoR is a URI");
    assert_eq!(canonical.aor(), aor);
    let _ =
        (u.phone().map(|p| p.write_e164(&mut Vec::new())), u.user_decoded(), u.host_ip(), u.header_fields().count());
    // Two URIs in one input.
    if let Some(at) = bytes.iter().position(|b| *b == b',') {
        if let (Some(a), Some(b)) = (Uri::parse(&bytes[..at]), Uri::parse(&bytes[at + 1..])) {
            assert_eq!(a.equivalent(&b), b.equivalent(&a));
        }
    }
});
