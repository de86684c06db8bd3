//! Privacy on any message: what leaves for a stranger is a message of the same dialog, shows no name that was to be hidden, and
//! a second proxy finds nothing more to do. What comes back has the names of its request.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_proto::headers::{NameAddr, Privacy};
use sip_proto::privacy::{self, Neighbour};
use sip_proto::{Edits, HeaderName, Message, derived, validate};

fuzz_target!(|bytes: &[u8]| {
    let Ok(m) = Message::parse(bytes) else { return };
    if !m.is_request() || validate::request(&m).is_err() {
        return;
    }
    let asked = Privacy { user: true, ..Privacy::default() };
    let leave = |m: &Message<'_>| {
        let mut edits = Edits::new();
        let done = privacy::leaving(m, Neighbour::Untrusted, asked, &mut edits);
        let mut out = Vec::new();
        edits.apply(m.bytes(), &mut out);
        done.ok().map(|hidden| (hidden, out))
    };
    let Some((hidden, out)) = leave(&m) else {
        assert!(privacy::fulfillable(privacy::asked(&m)).is_err());
        return;
    };
    let sent = Message::parse(&out).expect("still a message");
    assert_eq!((sent.defect(), sent.body()), (m.defect(), m.body()));
    assert_eq!((sent.call_id(), sent.cseq()), (m.call_id(), m.cseq()));
    let from = sent.value(HeaderName::From).expect("it is there");
    assert_eq!(derived::tag(from), derived::tag(m.value(HeaderName::From).expect("it was there")));
    assert_eq!(hidden.from, !privacy::asked(&m).none);
    if hidden.from {
        let from = NameAddr::parse(from).expect("a name");
        assert_eq!(from.addr, b"sip:anonymous@anonymous.invalid");
        assert_eq!(sent.value(HeaderName::PAssertedIdentity), None);
        assert_eq!(leave(&sent).map(|(_, again)| again).as_deref(), Some(&out[..]));
    }
    // The names of the request come back in what looks like its response.
    let mut edits = Edits::new();
    privacy::restore(&sent, &m, &mut edits);
    let mut back = Vec::new();
    edits.apply(sent.bytes(), &mut back);
    let back = Message::parse(&back).expect("still a message");
    assert_eq!(back.value(HeaderName::From), m.value(HeaderName::From));
});
