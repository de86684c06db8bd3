//! Any octets as a session description: unchanged it is written as it came; anchored it reads as the anchor meant it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use media_sdp::Sdp;
use media_sdp::file::FileSelector;
use media_sdp::message::{Anchored, Change, Messages, Setup, is_messages, rewrite};

fuzz_target!(|bytes: &[u8]| {
    let name = FileSelector::parse(bytes).file_name();
    assert!(name.len() <= 3 * bytes.len());
    let Ok(sdp) = Sdp::parse(bytes) else { return };
    let mut same = Vec::new();
    rewrite(&sdp, &mut same, |_| Change::Keep);
    assert_eq!(same, bytes);
    let mut out = Vec::new();
    rewrite(&sdp, &mut out, |index| match is_messages(&sdp.media()[index]) {
        true if index % 3 == 2 => Change::Refuse,
        true => Change::Anchor(Anchored {
            path: b"msrp://[2001:db8::1]:7/q;tcp",
            address: std::net::Ipv6Addr::LOCALHOST.into(),
            port: 7,
            secure: index % 2 == 1,
            setup: Some(Setup::Passive),
            fingerprint: Some("sha-256 AA".to_owned()),
        }),
        false => Change::Keep,
    });
    let Ok(again) = Sdp::parse(&out) else {
        // Only by growing beyond the bounds.
        assert!(out.len() > media_sdp::MAX_SDP || sdp.media().iter().any(is_messages));
        return;
    };
    assert_eq!(again.media().len(), sdp.media().len());
    for (index, section) in again.media().iter().enumerate().filter(|(_, s)| is_messages(s)) {
        if index % 3 == 2 {
            assert_eq!(section.line.port, 0);
            continue;
        }
        let messages = Messages::of(&again, section).expect("a path was written");
        assert_eq!((messages.path, messages.setup), (b"msrp://[2001:db8::1]:7/q;tcp".as_slice(), Some(Setup::Passive)));
        let _ = (messages.accepts(b"text/plain"), messages.max_size);
    }
});
