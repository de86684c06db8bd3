//! To and from the types of the `rsip` crate: for service authors and tests that build messages with them.
//!
//! Only types cross here. Bytes from the network are never given to rsip's message parser, and no message is written by
//! rsip's `Display`: docs/decisions/0001-rsip-at-the-edge.md says why, `tests/rsip_at_the_edge.rs` sees to it.

use std::fmt::Write as _;

use rsip::headers::header::Tokenizer;

use crate::build::{self, Writer};
use crate::message::{Message, StartLine, is_lws};
use crate::name::HeaderName;
use crate::uri::Uri;

/// What of a message rsip 0.4 has no type for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotForRsip {
    #[error("method")]
    Method,
    #[error("Request-URI")]
    Uri,
    #[error("status code")]
    Status,
    #[error("a header value that is not UTF-8")]
    Header,
}

/// Appends the request as bytes. Content-Length is ours; the body leaves as it is.
pub fn write_request(request: &rsip::Request, out: &mut Vec<u8>) {
    let uri = request.uri.to_string();
    build::Request::with_token(&request.method.to_string(), uri.as_bytes())
        .write(out, |w| headers_and_body(&request.headers, &request.body, w));
}

/// Appends the response as bytes; what is not copied from a request must stand in its headers.
pub fn write_response(response: &rsip::Response, out: &mut Vec<u8>) {
    let status = response.status_code.code();
    build::write_status_line(status, build::reason_phrase(status), out);
    let mut writer = Writer::new(out);
    headers_and_body(&response.headers, &response.body, &mut writer);
    writer.finish();
}

fn headers_and_body(headers: &rsip::Headers, body: &[u8], w: &mut Writer<'_>) {
    let mut content_type = None;
    let mut line = String::new();
    for header in headers.iter() {
        line.clear();
        // Writing into a String cannot fail.
        let _ = write!(line, "{header}");
        let Some((name, value)) = line.split_once(':') else { continue };
        match HeaderName::from_bytes(name.trim().as_bytes()) {
            HeaderName::ContentLength => {}
            HeaderName::ContentType if !body.is_empty() => content_type = Some(value.trim().to_owned()),
            _ => w.other(name.trim(), |out| out.extend_from_slice(value.trim().as_bytes())),
        }
    }
    if !body.is_empty() {
        w.body(content_type.as_deref().unwrap_or("application/octet-stream").as_bytes(), body);
    }
}

/// A received request in rsip's types. `tel:` and `urn:` requests, and methods that rsip does not list, have none.
pub fn request(message: &Message<'_>) -> Result<rsip::Request, NotForRsip> {
    let StartLine::Request { token, uri, .. } = message.start() else { return Err(NotForRsip::Method) };
    Ok(rsip::Request {
        method: text(token).and_then(|t| t.parse().ok()).ok_or(NotForRsip::Method)?,
        uri: rsip_uri(uri).ok_or(NotForRsip::Uri)?,
        version: rsip::Version::V2,
        headers: headers(message)?,
        body: message.body().to_vec(),
    })
}

/// A received response in rsip's types.
pub fn response(message: &Message<'_>) -> Result<rsip::Response, NotForRsip> {
    let StartLine::Response { status, .. } = message.start() else { return Err(NotForRsip::Status) };
    Ok(rsip::Response {
        status_code: rsip::StatusCode::from(status),
        version: rsip::Version::V2,
        headers: headers(message)?,
        body: message.body().to_vec(),
    })
}

fn headers(message: &Message<'_>) -> Result<rsip::Headers, NotForRsip> {
    let mut all = Vec::with_capacity(message.headers().len());
    for line in message.headers() {
        let name = match line.name {
            HeaderName::Other => message.name_of(line),
            known => known.as_str().as_bytes(),
        };
        let value = &message.bytes()[line.value()];
        // rsip knows no folding.
        let unfolded: Vec<u8> = value.iter().map(|b| if is_lws(*b) { b' ' } else { *b }).collect();
        let header: Result<rsip::Header, _> = Tokenizer::from((name, unfolded.as_slice())).try_into();
        all.push(header.map_err(|_| NotForRsip::Header)?);
    }
    Ok(rsip::Headers::from(all))
}

/// Only what we know for a SIP URI is shown to rsip: it reads `tel:+1` as host `tel` with port 1.
fn rsip_uri(uri: &[u8]) -> Option<rsip::Uri> {
    Uri::parse(uri).filter(Uri::is_sip)?;
    rsip::Uri::try_from(text(uri)?).ok()
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use rsip::prelude::*;

    use super::*;
    use crate::headers::NameAddr;
    use crate::method::Method;

    fn built() -> rsip::Request {
        rsip::Request {
            method: rsip::Method::Message,
            uri: rsip::Uri::try_from("sip:bob@example.com").unwrap(),
            version: rsip::Version::V2,
            headers: rsip::Headers::from(vec![
                rsip::headers::Via::from("SIP/2.0/UDP h;branch=z9hG4bK1").into(),
                rsip::headers::From::from("<sip:a@h>;tag=1").into(),
                rsip::headers::To::from("<sip:bob@example.com>").into(),
                rsip::headers::CallId::from("c@h").into(),
                rsip::headers::CSeq::from("3 MESSAGE").into(),
                rsip::headers::ContentLength::from("99").into(),
                rsip::headers::ContentType::from("application/vnd.3gpp.sms").into(),
                rsip::Header::Other("X-Own".into(), "a\r\nVia: evil".into()),
            ]),
            body: vec![0, 0xff, b'\r', b'\n'],
        }
    }

    #[test]
    fn a_request_built_with_rsip_leaves_whole() {
        let mut out = Vec::new();
        write_request(&built(), &mut out);
        let m = Message::parse(&out).unwrap();
        assert_eq!((m.defect(), m.method(), m.body()), (None, Method::Message, &[0, 0xff, b'\r', b'\n'][..]));
        assert_eq!(crate::validate::request(&m), Ok(()));
        assert_eq!(m.values(HeaderName::Via).count(), 1);
        assert_eq!(m.value(HeaderName::ContentType), Some(&b"application/vnd.3gpp.sms"[..]));
        assert_eq!(m.other_value("X-Own"), Some(&b"a  Via: evil"[..]));
    }

    #[test]
    fn a_received_request_is_readable_with_rsip() {
        let bytes = b"INVITE sip:bob@example.com SIP/2.0\r\nv: SIP/2.0/UDP h;branch=z9hG4bK1\r\nf: Al\r\n ice <sip:a@h>;tag=1\r\n\
            X-New: y\r\nl: 2\r\n\r\n\0\xff";
        let r = request(&Message::parse(bytes).unwrap()).unwrap();
        assert_eq!((r.method, r.body.as_slice()), (rsip::Method::Invite, &b"\0\xff"[..]));
        assert_eq!(r.via_header().unwrap().value(), "SIP/2.0/UDP h;branch=z9hG4bK1");
        assert_eq!(NameAddr::parse(r.from_header().unwrap().value().as_bytes()).unwrap().tag(), Some(&b"1"[..]));
        assert!(r.headers().iter().any(|h| *h == rsip::Header::Other("X-New".into(), "y".into())));
    }

    #[test]
    fn responses_go_both_ways() {
        let mut out = Vec::new();
        let wire = b"SIP/2.0 486 Busy Here\r\nCall-ID: c@h\r\nContent-Length: 0\r\n\r\n";
        let r = response(&Message::parse(wire).unwrap()).unwrap();
        assert_eq!(r.status_code, rsip::StatusCode::BusyHere);
        write_response(&r, &mut out);
        assert_eq!(out, wire);
    }

    #[test]
    fn what_rsip_cannot_hold_is_said() {
        let refused = |t: &[u8]| request(&Message::parse(t).unwrap()).unwrap_err();
        assert_eq!(refused(b"NEWMETHOD sip:a SIP/2.0\r\n\r\n"), NotForRsip::Method);
        assert_eq!(refused(b"OPTIONS tel:+1 SIP/2.0\r\n\r\n"), NotForRsip::Uri);
        assert_eq!(refused(b"OPTIONS sip:a SIP/2.0\r\nSubject: \xff\r\n\r\n"), NotForRsip::Header);
        assert_eq!(refused(b"SIP/2.0 200 OK\r\n\r\n"), NotForRsip::Method);
        assert_eq!(
            response(&Message::parse(b"OPTIONS sip:a SIP/2.0\r\n\r\n").unwrap()).unwrap_err(),
            NotForRsip::Status
        );
    }
}
