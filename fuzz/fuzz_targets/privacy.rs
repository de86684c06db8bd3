//! Privacy on any message: what leaves for a stranger is a message of the same dialog, shows no name and no way back that was
//! to be hidden, and a second proxy finds nothing more to do. What comes back has the names and the way of its request.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_proto::headers::{NameAddr, Privacy, Via};
use sip_proto::privacy::{self, Neighbour, Seal};
use sip_proto::{Edits, HeaderName, Message, derived, validate};

/// Stands for every Contact.
fn seal(_: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(b"sip:anonymous@us");
    true
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(m) = Message::parse(bytes) else { return };
    if !m.is_request() || validate::request(&m).is_err() {
        return;
    }
    for choice in 0..16 {
        leaves(&m, choice & 1 != 0, choice & 2 != 0, choice & 4 != 0, choice & 8 != 0);
    }
});

/// `user` and `header` are known to be wanted; `sealing`: Contact can be brought back; `session`: the media are hidden.
fn leaves(m: &Message<'_>, user: bool, header: bool, sealing: bool, session: bool) {
    let known = Privacy { user, header, ..Privacy::default() };
    let leave = |m: &Message<'_>| {
        let mut edits = Edits::new();
        let mut seal = seal;
        let seal: Option<&mut Seal<'_>> = if sealing { Some(&mut seal) } else { None };
        let done = privacy::leaving(m, Neighbour::Untrusted, known, seal, session, &mut edits);
        let mut out = Vec::new();
        edits.apply(m.bytes(), &mut out);
        done.ok().map(|hidden| (hidden, out))
    };
    let asked = privacy::asked(m);
    let Some((hidden, out)) = leave(m) else {
        assert!(asked.critical);
        return;
    };
    let sent = Message::parse(&out).expect("still a message");
    assert_eq!((sent.defect(), sent.body()), (m.defect(), m.body()));
    assert_eq!((sent.call_id(), sent.cseq()), (m.call_id(), m.cseq()));
    let from = sent.value(HeaderName::From).expect("it is there");
    assert_eq!(derived::tag(from), derived::tag(m.value(HeaderName::From).expect("it was there")));
    assert_eq!(hidden.from, !asked.none && (user || asked.user));
    assert_eq!(hidden.header, sealing && !asked.none && (header || asked.header));
    if hidden.from {
        let from = NameAddr::parse(from).expect("a name");
        assert_eq!(from.addr, b"sip:anonymous@anonymous.invalid");
        assert_eq!(sent.value(HeaderName::PAssertedIdentity), None);
    }
    if hidden.header {
        assert_eq!((sent.value(HeaderName::Via), sent.value(HeaderName::RecordRoute)), (None, None));
        let contacts: Vec<&[u8]> = sent.list(HeaderName::Contact).collect();
        assert!(contacts.is_empty() || contacts == [b"<sip:anonymous@us>"]);
    }
    assert_eq!(leave(&sent).map(|(_, again)| again).as_deref(), Some(&out[..]));
    // Names and way of the request come back in what looks like its response.
    let mut edits = Edits::new();
    let source = "192.0.2.1:5060".parse().expect("an address");
    privacy::restore(&sent, m, source, &mut edits);
    let mut back = Vec::new();
    edits.apply(sent.bytes(), &mut back);
    let back = Message::parse(&back).expect("still a message");
    assert_eq!(back.value(HeaderName::From), m.value(HeaderName::From));
    if hidden.header {
        // What is written anew is unfolded: a line break within it is a blank (RFC 3261 §7.3.1), and so is a NUL (`Edits`).
        let unfolded = |text: &[u8]| text.iter().map(|b| if matches!(b, b'\r' | b'\n' | 0) { b' ' } else { *b }).collect();
        let branches = |m: &Message<'_>| -> Vec<Option<Vec<u8>>> {
            m.list(HeaderName::Via).map(|via| Via::parse(via).and_then(|v| v.branch()).map(unfolded)).collect()
        };
        assert_eq!(branches(&back), branches(m));
    }
}
