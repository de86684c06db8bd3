//! Print and parse: what is written reads back as the same, what is read and left alone leaves as it came, and no text gets
//! out of its place.

#[path = "support/typed.rs"]
mod typed;

use proptest::prelude::*;
use sip_proto::build::{Request, Response};
use sip_proto::headers::{MediaType, NameAddr, write_quoted};
use sip_proto::multipart::{self, Boundary};
use sip_proto::uri::{write_escaped, write_user};
use sip_proto::{Edits, HeaderName, Message, Method, Uri, validate};

fn octets(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

/// Text that looks like SIP more often than noise does.
fn sip_like() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&[u8]] = &[
        b"sip:",
        b"tel:+1-2",
        b"<",
        b">",
        b"\"",
        b"\\",
        b";",
        b"=",
        b",",
        b"@",
        b"%41",
        b"%",
        b"?",
        b"\r\n ",
        b" ",
        b"tag",
        b"q=0.5",
        b"SIP/2.0/UDP h",
        b"[::1]",
        b":5060",
        b"1",
        b"INVITE",
        b"*",
        b"(",
        b")",
        b"\xff",
        b"text/plain",
        b"Sat, 13 Nov 2010 23:29:00 GMT",
    ];
    let piece = prop::sample::select(PIECES);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn uri() -> impl Strategy<Value = Vec<u8>> {
    let user = prop::option::of(prop::collection::vec(any::<u8>(), 1..12));
    let host = prop_oneof![
        "[a-z][a-z0-9-]{0,8}(\\.[a-z]{2,3})?",
        Just("[2001:db8::9]".to_owned()),
        Just("192.0.2.4".to_owned())
    ];
    let params = prop::collection::vec(("[a-z]{1,8}", octets(8)), 0..4);
    let headers = prop::collection::vec(("[A-Z][a-z]{1,6}", octets(8)), 0..3);
    (any::<bool>(), user, host, prop::option::of(any::<u16>()), params, headers).prop_map(
        |(secure, user, host, port, params, headers)| {
            let mut out = if secure { b"sips:".to_vec() } else { b"sip:".to_vec() };
            if let Some(user) = user {
                write_user(&user, &mut out);
                out.push(b'@');
            }
            out.extend_from_slice(host.as_bytes());
            if let Some(port) = port {
                out.extend_from_slice(format!(":{port}").as_bytes());
            }
            for (name, value) in params {
                out.extend_from_slice(format!(";{name}=").as_bytes());
                write_escaped(&value, &mut out);
            }
            for (i, (name, value)) in headers.iter().enumerate() {
                out.push(if i == 0 { b'?' } else { b'&' });
                out.extend_from_slice(format!("{name}=").as_bytes());
                write_escaped(value, &mut out);
            }
            out
        },
    )
}

proptest! {
    #[test]
    fn written_uris_are_read_and_equal_themselves(text in uri()) {
        let u = Uri::parse(&text).expect("a URI of the grammar");
        prop_assert_eq!(u.as_bytes(), &text[..]);
        prop_assert!(u.equivalent(&u));
        let aor = u.aor();
        prop_assert_eq!(Uri::parse(&aor).expect("an AoR is a URI").aor(), aor);
    }

    #[test]
    fn equivalence_goes_both_ways(a in uri(), b in uri()) {
        let (a, b) = (Uri::parse(&a).unwrap(), Uri::parse(&b).unwrap());
        prop_assert_eq!(a.equivalent(&b), b.equivalent(&a));
    }

    #[test]
    fn an_escape_more_makes_no_other_resource(text in uri()) {
        let u = Uri::parse(&text).unwrap();
        if let Some(user) = u.user() {
            // The same URI with the first octet of its user part escaped.
            let escaped = match user[0] {
                b'%' => String::from_utf8(user.to_vec()).unwrap(),
                b => format!("%{b:02x}{}", std::str::from_utf8(&user[1..]).unwrap()),
            };
            let before = u.scheme_text().len() + 1;
            let (scheme, rest) = (&text[..before], &text[before + user.len()..]);
            let other = [scheme, escaped.as_bytes(), rest].concat();
            let other = Uri::parse(&other).unwrap();
            prop_assert!(u.equivalent(&other));
            prop_assert_eq!(u.aor(), other.aor());
        }
    }

    #[test]
    fn names_and_addresses_read_back(name in "[^\\p{Cc}]{0,20}", uri in uri(), tag in "[a-z0-9]{1,8}") {
        let mut text = Vec::new();
        write_quoted(name.as_bytes(), &mut text);
        text.extend_from_slice(b" <");
        text.extend_from_slice(&uri);
        text.extend_from_slice(format!(">;tag={tag}").as_bytes());
        let a = NameAddr::parse(&text).expect("a name-addr of the grammar");
        let display_name = a.display_name();
        prop_assert_eq!(display_name.as_ref(), name.as_bytes());
        prop_assert_eq!((a.addr, a.tag()), (&uri[..], Some(tag.as_bytes())));
        let mut again = Vec::new();
        a.write(&mut again);
        prop_assert_eq!(again, text);
    }

    #[test]
    fn every_view_survives_any_value(name in 0..HeaderName::COUNT, value in prop_oneof![sip_like(), octets(40)]) {
        typed::readable(HeaderName::all()[name], &value);
    }

    #[test]
    fn no_value_gets_out_of_its_header(value in octets(60), reason in ".{0,20}", uri in octets(30)) {
        let mut wire = Vec::new();
        Request::new(Method::Options, &uri).write(&mut wire, |w| {
            w.text(HeaderName::Via, b"SIP/2.0/UDP h;branch=z9hG4bK1");
            w.text(HeaderName::Subject, &value);
            w.text(HeaderName::To, &value);
            w.body(&value, &value);
        });
        if !uri.is_empty() {
            let m = Message::parse(&wire).unwrap();
            prop_assert_eq!(m.headers().len(), 5);
            prop_assert_eq!(m.body(), &value[..]);
            let mut answer = Vec::new();
            Response::to(&m, 200).reason(&reason).tag(&value).source(([192, 0, 2, 1], 9).into()).write(&mut answer, |_| {});
            let r = Message::parse(&answer).unwrap();
            prop_assert_eq!((r.status(), r.headers().len()), (200, 3));
        }
    }

    #[test]
    fn any_bytes_are_indexed_or_refused(bytes in prop_oneof![octets(200), sip_like()], line in any::<bool>()) {
        let bytes = if line { [b"INVITE sip:a SIP/2.0\r\n", &bytes[..], b"\r\n\r\n"].concat() } else { bytes };
        if let Ok(m) = Message::parse(&bytes) {
            let _ = (validate::request(&m), validate::response(&m), typed::refused(&m));
            for h in m.headers() {
                prop_assert!(m.bytes().get(h.value()).is_some() || m.body().is_empty());
                prop_assert!(h.line().start <= h.value().start && h.value().end <= h.line().end);
            }
        }
    }

    #[test]
    fn edits_change_what_they_name_and_nothing_else(cuts in prop::collection::vec((0usize..40, 0usize..10, octets(6)), 0..6)) {
        let source: Vec<u8> = (0..40).collect();
        // Spans in order and apart, the plain way.
        let mut expected = Vec::new();
        let (mut at, mut edits) = (0, Edits::new());
        let mut sorted = cuts.clone();
        sorted.sort_by_key(|c| c.0);
        let mut taken = Vec::new();
        for (start, len, text) in sorted {
            if start >= at {
                let end = (start + len).min(source.len());
                expected.extend_from_slice(&source[at..start]);
                expected.extend_from_slice(&text);
                at = end.max(start);
                taken.push((start..end.max(start), text));
            }
        }
        expected.extend_from_slice(&source[at..]);
        // An insertion where a deletion ended comes in order only when made in order: make them in order.
        for (span, text) in taken {
            edits.replace(span, |t| t.extend_from_slice(&text));
        }
        let mut out = Vec::new();
        edits.apply(&source, &mut out);
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn bodies_of_several_parts_read_back(bodies in prop::collection::vec(octets(40), 1..6), seed in any::<u64>()) {
        let slices: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
        let boundary = Boundary::choose(seed, &slices);
        let mut out = Vec::new();
        let mut w = multipart::Writer::new(boundary, &mut out);
        for body in &slices {
            w.part(b"application/octet-stream", &[], body);
        }
        w.finish();
        let mut content_type = Vec::new();
        boundary.write_content_type("mixed", b"", &mut content_type);
        let read = multipart::parts(&MediaType::parse(&content_type).unwrap(), &out).unwrap();
        prop_assert_eq!(read.iter().map(|p| p.body).collect::<Vec<_>>(), slices);
    }

    #[test]
    fn any_multipart_is_read_or_refused(body in prop_oneof![octets(60), sip_like()], boundary in "[a-b-]{1,2}") {
        let content_type = format!("multipart/mixed;boundary=\"{boundary}\"");
        let content_type = MediaType::parse(content_type.as_bytes()).unwrap();
        let text = [b"--", boundary.as_bytes(), b"\r\n", &body, b"\r\n--", boundary.as_bytes(), b"--"].concat();
        for body in [&body, &text] {
            let _ = multipart::parts(&content_type, body).map(|p| p.len());
            let _ = multipart::find(&content_type, body, "text/plain");
        }
    }
}
