//! The receiving path of a usual message allocates nothing.

#[path = "support/counting.rs"]
mod counting;
#[path = "support/samples.rs"]
mod samples;
#[path = "support/typed.rs"]
mod typed;

use std::hint::black_box;

use sip_proto::build::Response;
use sip_proto::headers::{Contact, NameAddr};
use sip_proto::{Edits, HeaderName, Message, Uri, validate};

#[test]
fn the_samples_are_valid_to_the_last_header() {
    for (name, bytes) in samples::SAMPLES {
        let m = Message::parse(bytes).unwrap();
        assert_eq!((m.defect(), validate::request(&m)), (None, Ok(())), "{name}");
        assert_eq!(typed::refused(&m), [], "{name}");
        assert_eq!(m.bytes().len(), bytes.len(), "{name}");
    }
}

#[test]
fn parsing_checking_and_reading_allocate_nothing() {
    for (name, bytes) in samples::SAMPLES {
        let count = counting::allocations(|| {
            let m = Message::parse(bytes).unwrap();
            validate::request(&m).unwrap();
            black_box(m.top_via().map(|v| (v.branch(), v.rport(), v.host_ip())));
            for header in [HeaderName::From, HeaderName::To] {
                let addr = NameAddr::parse(m.value(header).unwrap()).unwrap();
                black_box((addr.tag(), addr.uri().unwrap().host()));
            }
            for contact in m.list(HeaderName::Contact) {
                let c = Contact::parse(contact).unwrap();
                black_box((c.q(), c.expires(), c.instance(), c.reg_id()));
            }
            black_box((m.cseq(), m.call_id(), Uri::parse(m.request_uri())));
        });
        assert_eq!(count, 0, "{name}");
    }
}

#[test]
fn replies_and_edited_messages_allocate_nothing_in_a_used_buffer() {
    for (name, bytes) in samples::SAMPLES {
        let m = Message::parse(bytes).unwrap();
        let mut out = Vec::with_capacity(16 * 1024);
        let mut edits = Edits::new();
        edits.insert(0, |t| t.extend_from_slice(&[b' '; 512]));
        let count = counting::allocations(|| {
            Response::to(&m, 200).tag(b"t").source(([192, 0, 2, 9], 5060).into()).write(&mut out, |w| {
                w.text(HeaderName::Contact, b"<sip:bob@192.0.2.4>");
                w.body(b"application/sdp", b"v=0\r\n");
            });
            edits.clear();
            edits.insert_header(m.headers_start(), HeaderName::Via, |t| t.extend_from_slice(b"SIP/2.0/UDP h"));
            edits.replace(m.line(HeaderName::MaxForwards).unwrap().value(), |t| t.extend_from_slice(b"69"));
            edits.apply(m.bytes(), &mut out);
        });
        assert_eq!(count, 0, "{name}");
    }
}
