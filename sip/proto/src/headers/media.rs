//! Media types and dispositions: Content-Type, Accept (RFC 3261 §20.1, §20.15), Content-Disposition (§20.11).

use std::borrow::Cow;

use super::contact::Q;
use super::param::{Params, is_token_text, main_and_params};
use crate::message::trim;

/// `multipart/mixed;boundary=x`, or a range such as `text/*` in Accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MediaType<'a> {
    pub kind: &'a [u8],
    pub subtype: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> MediaType<'a> {
    pub fn parse(value: &'a [u8]) -> Option<MediaType<'a>> {
        let (main, params) = main_and_params(value)?;
        let slash = memchr::memchr(b'/', main)?;
        let (kind, subtype) = (trim(&main[..slash]), trim(&main[slash + 1..]));
        (is_token_text(kind) && is_token_text(subtype)).then_some(MediaType { kind, subtype, params })
    }

    /// `is("application/sdp")`, in any case, parameters aside.
    pub fn is(&self, essence: &str) -> bool {
        essence.split_once('/').is_some_and(|(kind, subtype)| {
            self.kind.eq_ignore_ascii_case(kind.as_bytes()) && self.subtype.eq_ignore_ascii_case(subtype.as_bytes())
        })
    }

    /// Whether this range of an Accept header takes in `other`.
    pub fn accepts(&self, other: &MediaType<'_>) -> bool {
        let any = |s: &[u8]| s == b"*";
        (any(self.kind) || self.kind.eq_ignore_ascii_case(other.kind))
            && (any(self.subtype) || self.subtype.eq_ignore_ascii_case(other.subtype))
            && self.q() > Q::new(0)
    }

    /// Preference in an Accept header.
    pub fn q(&self) -> Q {
        self.params.get("q").and_then(Q::parse).unwrap_or(Q::ONE)
    }

    pub fn boundary(&self) -> Option<Cow<'a, [u8]>> {
        self.params.text("boundary")
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        for part in [self.kind, b"/", self.subtype, self.params.as_bytes()] {
            out.extend_from_slice(part);
        }
    }
}

/// `session;handling=optional`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentDisposition<'a> {
    /// `session`, `render`, `attachment`, `recipient-list`, … as spelt.
    pub kind: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> ContentDisposition<'a> {
    pub fn parse(value: &'a [u8]) -> Option<ContentDisposition<'a>> {
        let (kind, params) = main_and_params(value)?;
        is_token_text(kind).then_some(ContentDisposition { kind, params })
    }

    pub fn is(&self, kind: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind.as_bytes())
    }

    /// Whether the receiver must understand the body; so it is unless `handling=optional`.
    pub fn is_required(&self) -> bool {
        !self.params.get("handling").is_some_and(|v| v.eq_ignore_ascii_case(b"optional"))
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.kind);
        out.extend_from_slice(self.params.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_ranges_and_boundaries() {
        let t = MediaType::parse(b"Multipart / Mixed ;boundary=\"a b\"").unwrap();
        assert!(t.is("multipart/mixed") && !t.is("multipart") && !t.is("multipart/related"));
        assert_eq!(t.boundary().unwrap().as_ref(), b"a b");
        let mut out = Vec::new();
        t.write(&mut out);
        assert_eq!(MediaType::parse(&out), Some(t));
        let range = |s: &'static str| MediaType::parse(s.as_bytes()).unwrap();
        assert!(range("multipart/*").accepts(&t) && range("*/*;q=0.1").accepts(&t));
        assert!(!range("*/*;q=0").accepts(&t) && !range("text/*").accepts(&t));
        assert_eq!(MediaType::parse(b"text"), None);
        assert_eq!(MediaType::parse(b"/plain"), None);
    }

    #[test]
    fn dispositions_are_required_unless_optional() {
        let d = ContentDisposition::parse(b"Session;handling=optional").unwrap();
        assert!(d.is("session") && !d.is_required());
        let mut out = Vec::new();
        d.write(&mut out);
        assert_eq!(ContentDisposition::parse(&out), Some(d));
        assert!(ContentDisposition::parse(b"render").unwrap().is_required());
        assert_eq!(ContentDisposition::parse(b"=x"), None);
    }
}
