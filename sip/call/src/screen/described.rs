//! The session description in a message.

use sip_proto::headers::MediaType;
use sip_proto::{HeaderName, Message, multipart};
use smallvec::SmallVec;

/// What a message says of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Described<'a> {
    /// Nothing.
    Not,
    /// Something that cannot be read, so that it cannot be hidden either: encrypted (RFC 3323 §4.2 forbids it),
    /// compressed, or more than one description.
    Somehow,
    As(&'a [u8]),
}

pub(super) fn described<'a>(message: &Message<'a>) -> Described<'a> {
    let body = message.body();
    if body.is_empty() {
        return Described::Not;
    }
    let encoding = message.value(HeaderName::ContentEncoding);
    if encoding.is_some_and(|e| !e.eq_ignore_ascii_case(b"identity")) {
        return Described::Somehow;
    }
    let Some(content_type) = message.value(HeaderName::ContentType).and_then(MediaType::parse) else {
        return Described::Somehow;
    };
    let mut found = SmallVec::<[&[u8]; 2]>::new();
    if !look(&content_type, body, multipart::MAX_DEPTH, &mut found) {
        return Described::Somehow;
    }
    match found[..] {
        [] => Described::Not,
        [text] => Described::As(text),
        _ => Described::Somehow,
    }
}

/// Gathers descriptions. False: there may be more than can be seen.
fn look<'a>(content_type: &MediaType<'_>, body: &'a [u8], depth: usize, found: &mut SmallVec<[&'a [u8]; 2]>) -> bool {
    if content_type.is("application/sdp") {
        found.push(body);
        return true;
    }
    if ["application/pkcs7-mime", "multipart/encrypted"].iter().any(|secret| content_type.is(secret)) {
        return false;
    }
    if !content_type.kind.eq_ignore_ascii_case(b"multipart") {
        return true;
    }
    let Some(deeper) = depth.checked_sub(1) else { return false };
    let Ok(parts) = multipart::parts(content_type, body) else { return false };
    parts.iter().all(|part| {
        let plain = |encoding: &[u8]| {
            ["7bit", "8bit", "binary", "identity"].iter().any(|p| encoding.eq_ignore_ascii_case(p.as_bytes()))
        };
        let readable = ["Content-Transfer-Encoding", "Content-Encoding"];
        readable.iter().all(|name| part.header(name).is_none_or(plain))
            // A part without a type is text (RFC 2046 §5.1).
            && part.content_type().is_none_or(|inner| look(&inner, part.body, deeper, found))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(bytes: &'a [u8]) -> Described<'a> {
        described(&Message::parse(bytes).unwrap())
    }

    fn body(headers: &str, body: &str) -> Vec<u8> {
        format!("INVITE sip:b SIP/2.0\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn one_description_is_found_and_what_cannot_be_read_is_told() {
        let part = |headers: &str| format!("--x\r\n{headers}\r\nv=0\r\n");
        let multi = |parts: &[&str]| parts.iter().map(|p| part(p)).collect::<String>() + "--x--\r\n";
        let sdp = "Content-Type: application/sdp\r\n";
        let mixed = "Content-Type: multipart/mixed;boundary=x\r\n";
        let other = "Content-Type: application/pidf+xml\r\n";
        for (bytes, expected) in [
            (body("", ""), Described::Not),
            (body("c: application/SDP\r\n", "v=0\r\n"), Described::As(b"v=0\r\n")),
            (body(&format!("{sdp}Content-Encoding: gzip\r\n"), "v=0"), Described::Somehow),
            (body("", "v=0"), Described::Somehow),
            (body(other, "<presence/>"), Described::Not),
            (body("Content-Type: application/pkcs7-mime\r\n", "x"), Described::Somehow),
            (body(mixed, &multi(&[other, sdp])), Described::As(b"v=0")),
            (body(mixed, &multi(&[other, ""])), Described::Not),
            (body(mixed, &multi(&[sdp, sdp])), Described::Somehow),
            (
                body(mixed, &multi(&["Content-Type: application/sdp\r\nContent-Transfer-Encoding: base64\r\n"])),
                Described::Somehow,
            ),
            (body(mixed, "--y--"), Described::Somehow),
        ] {
            assert_eq!(of(&bytes), expected, "{}", String::from_utf8_lossy(&bytes));
        }
    }
}
