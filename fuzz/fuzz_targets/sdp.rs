//! Any octets as a session description: unchanged it is written as it came; anchored it reads as the anchor meant it; hidden it
//! says where a relay is and nothing else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use media_sdp::Sdp;
use media_sdp::file::FileSelector;
use media_sdp::hidden::{self, Place, Shown};
use media_sdp::message::{Anchored, Change, Messages, Setup, is_messages, rewrite};

fuzz_target!(|bytes: &[u8]| {
    let name = FileSelector::parse(bytes).file_name();
    assert!(name.len() <= 3 * bytes.len());
    let Ok(sdp) = Sdp::parse(bytes) else { return };
    let mut same = Vec::new();
    rewrite(&sdp, &mut same, |_| Change::Keep);
    assert_eq!(same, bytes);
    hides(&sdp);
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

fn hides(sdp: &Sdp<'_>) {
    let ours = std::net::Ipv4Addr::new(198, 51, 100, 77).into();
    let mut out = Vec::new();
    hidden::write(sdp, ours, &mut out, |_| Shown::Port(30_000));
    let Ok(again) = Sdp::parse(&out) else {
        assert!(out.len() > media_sdp::MAX_SDP);
        return;
    };
    assert_eq!(again.media().len(), sdp.media().len());
    assert!(hidden::origin(&again).is_none_or(|ip| ip == ours));
    for section in again.media() {
        assert_eq!(section.line.port, 30_000);
        let media = std::net::SocketAddr::new(ours, 30_000);
        let control = std::net::SocketAddr::new(ours, 30_001);
        match hidden::place(&again, section) {
            Place::At { media: at, control: next } => assert_eq!((at, next), (media, control)),
            // It names no address, or holds.
            Place::Unknown | Place::Nowhere => {}
        }
    }
}
