//! Writing messages that start here: responses to a request, and requests of our own.
//!
//! Everything is written straight into the caller's buffer, usually an [`crate::Outbox`]'s. No value can start a header of
//! its own: line breaks inside values become blanks. `Content-Length` is always written.

use std::net::SocketAddr;

use crate::edit::{self, scrub};
use crate::message::{HeaderLine, Message};
use crate::method::Method;
use crate::name::HeaderName;

mod reason;
mod top_via;

pub use reason::reason_phrase;
pub use top_via::{span as top_via_span, write as write_top_via};

/// A response to a request, with everything that RFC 3261 §8.2.6.2 has copied from it.
///
/// ```
/// # use sip_proto::{build::Response, Message, HeaderName};
/// # let request = Message::parse(b"OPTIONS sip:h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nTo: <sip:h>\r\n\r\n").unwrap();
/// let mut out = Vec::new();
/// Response::to(&request, 200).tag(b"314").write(&mut out, |m| m.text(HeaderName::Allow, b"INVITE, ACK"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Response<'r> {
    request: &'r Message<'r>,
    status: u16,
    reason: Option<&'r str>,
    source: Option<SocketAddr>,
    tag: &'r [u8],
}

impl<'r> Response<'r> {
    /// `status`: 100 to 699.
    pub fn to(request: &'r Message<'r>, status: u16) -> Response<'r> {
        Response { request, status, reason: None, source: None, tag: b"" }
    }

    /// Another reason phrase than [`reason_phrase`].
    pub fn reason(self, phrase: &'r str) -> Response<'r> {
        Response { reason: Some(phrase), ..self }
    }

    /// Where the request came from: fills `received` and `rport` of the top Via (RFC 3261 §18.2.1, RFC 3581 §4).
    pub fn source(self, from: SocketAddr) -> Response<'r> {
        Response { source: Some(from), ..self }
    }

    /// The tag for To when the request had none; not used for 100 (RFC 3261 §8.2.6.2). Must be a token.
    pub fn tag(self, tag: &'r [u8]) -> Response<'r> {
        Response { tag, ..self }
    }

    /// Appends the response; `more` adds headers and at most one body.
    pub fn write(&self, out: &mut Vec<u8>, more: impl FnOnce(&mut Writer<'_>)) {
        out.reserve(self.request.bytes().len() + 256);
        write_status_line(self.status, self.reason.unwrap_or(reason_phrase(self.status)), out);
        let mut writer = Writer::new(out);
        self.write_copied(&mut writer);
        more(&mut writer);
        writer.finish();
    }

    fn write_copied(&self, w: &mut Writer<'_>) {
        let request = self.request;
        for (i, line) in request.lines(HeaderName::Via).enumerate() {
            let top = self.source.filter(|_| i == 0).and_then(|source| Some((source, top_via::span(request)?)));
            match top {
                Some((source, top)) => w.header(HeaderName::Via, |out| {
                    top_via::write(request, source, out);
                    out.extend_from_slice(&request.bytes()[top.end..line.value().end]);
                }),
                None => w.line(request, line),
            }
        }
        if self.makes_dialog() {
            w.copy(request, HeaderName::RecordRoute);
        }
        // The first of each, if the request repeats what it may not.
        w.copy_first(request, HeaderName::From);
        if let Some(to) = request.value(HeaderName::To) {
            w.header(HeaderName::To, |out| {
                out.extend_from_slice(to);
                if self.status > 100 && !self.tag.is_empty() && !has_tag(request) {
                    out.extend_from_slice(b";tag=");
                    out.extend_from_slice(self.tag);
                }
            });
        }
        w.copy_first(request, HeaderName::CallId);
        w.copy_first(request, HeaderName::CSeq);
        if self.status == 100 {
            // RFC 3261 §8.2.6.1.
            w.copy_first(request, HeaderName::Timestamp);
        }
    }

    /// RFC 3261 §12.1.1: a response that may set up a dialog carries the route set.
    fn makes_dialog(&self) -> bool {
        matches!(self.status, 101..=299)
            && matches!(self.request.method(), Method::Invite | Method::Subscribe | Method::Refer | Method::Notify)
    }
}

pub(crate) fn write_status_line(status: u16, reason: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"SIP/2.0 ");
    edit::number(out, u64::from(status));
    out.push(b' ');
    let from = out.len();
    out.extend_from_slice(reason.as_bytes());
    scrub(&mut out[from..]);
    out.extend_from_slice(b"\r\n");
}

/// A tag as a header parameter, be it empty; one inside the angle brackets is the URI's.
fn has_tag(request: &Message<'_>) -> bool {
    request.to().is_some_and(|a| a.params.has("tag"))
}

/// A request of our own. The caller writes every header but Content-Length; [`Writer`] has the shapes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    method: &'r str,
    uri: &'r [u8],
}

impl<'r> Request<'r> {
    /// For [`Method::Other`] use [`Request::with_token`].
    pub fn new(method: Method, uri: &'r [u8]) -> Request<'r> {
        Request { method: method.as_str(), uri }
    }

    pub fn with_token(method: &'r str, uri: &'r [u8]) -> Request<'r> {
        Request { method, uri }
    }

    /// Appends the request. What may not stand in a Request-URI (blanks, controls, octets above 126) leaves as `%HH`.
    pub fn write(&self, out: &mut Vec<u8>, headers: impl FnOnce(&mut Writer<'_>)) {
        out.extend(self.method.bytes().filter(|b| crate::message::is_token(*b)));
        out.push(b' ');
        if self.uri.iter().all(u8::is_ascii_graphic) {
            out.extend_from_slice(self.uri);
        } else {
            for &b in self.uri {
                if b.is_ascii_graphic() { out.push(b) } else { crate::uri::push_escape(b, out) }
            }
        }
        out.extend_from_slice(b" SIP/2.0\r\n");
        let mut writer = Writer::new(out);
        headers(&mut writer);
        writer.finish();
    }
}

/// Appends header lines to a message that is being written.
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// Where the body waits, at the end of `out`, until all headers are there.
    body: Option<usize>,
}

impl<'o> Writer<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Writer<'o> {
        Writer { out, body: None }
    }

    /// One header line, its value written by `write`.
    pub fn header(&mut self, name: HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        self.before_body(|out| edit::header(out, name, write));
    }

    /// One header line with a name that has no [`HeaderName`]. `name` must be a token; other octets are left out.
    pub fn other(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        if name.bytes().all(crate::message::is_token) {
            self.before_body(|out| edit::other_header(out, name, write));
        } else {
            let name: String = name.chars().filter(|c| c.is_ascii() && crate::message::is_token(*c as u8)).collect();
            self.before_body(|out| edit::other_header(out, &name, write));
        }
    }

    fn before_body(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let end = self.out.len();
        write(self.out);
        if let Some(body) = self.body {
            let line = self.out.len() - end;
            self.out[body..].rotate_right(line);
            self.body = Some(body + line);
        }
    }

    /// One header line with a value that is at hand.
    pub fn text(&mut self, name: HeaderName, value: &[u8]) {
        self.header(name, |out| out.extend_from_slice(value));
    }

    /// One header line with a number.
    pub fn number(&mut self, name: HeaderName, value: u64) {
        self.header(name, |out| edit::number(out, value));
    }

    /// Every line of that name in `from`, in order; folded lines leave in one piece.
    pub fn copy(&mut self, from: &Message<'_>, name: HeaderName) {
        for line in from.lines(name) {
            self.line(from, line);
        }
    }

    fn copy_first(&mut self, from: &Message<'_>, name: HeaderName) {
        if let Some(line) = from.line(name) {
            self.line(from, line);
        }
    }

    /// A line of another message: as it stands there, if it can.
    fn line(&mut self, from: &Message<'_>, line: &HeaderLine) {
        match from.whole_line(line).filter(|_| self.body.is_none()) {
            Some(whole) => self.out.extend_from_slice(whole),
            None => self.text(line.name, &from.bytes()[line.value()]),
        }
    }

    /// `CSeq: number method`.
    pub fn cseq(&mut self, number: u32, method: Method) {
        self.header(HeaderName::CSeq, |out| {
            edit::number(out, u64::from(number));
            out.push(b' ');
            out.extend_from_slice(method.as_str().as_bytes());
        });
    }

    /// The body and its Content-Type. A second call replaces nothing: the first body stays.
    pub fn body(&mut self, content_type: &[u8], body: &[u8]) {
        if self.body.is_none() {
            self.text(HeaderName::ContentType, content_type);
            self.body = Some(self.out.len());
            self.out.extend_from_slice(body);
        }
    }

    /// Content-Length, the empty line and the body.
    pub(crate) fn finish(mut self) {
        let length = self.body.map_or(0, |at| self.out.len() - at);
        self.number(HeaderName::ContentLength, length as u64);
        match self.body {
            None => self.out.extend_from_slice(b"\r\n"),
            Some(at) => {
                self.out.extend_from_slice(b"\r\n");
                self.out[at..].rotate_right(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &[u8] = b"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5062;rport;branch=z9hG4bK1,\r\n\
        \x20SIP/2.0/TCP b;branch=z9hG4bK0\r\nv: SIP/2.0/UDP c;branch=z9hG4bK9\r\nRecord-Route: <sip:p1;lr>\r\nRecord-Route: <sip:p2;lr>\r\n\
        f: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com;tag=no>\r\nCall-ID: c1@a\r\nCSeq: 1 INVITE\r\nTimestamp: 54\r\n\r\n";

    fn text(v: Vec<u8>) -> String {
        String::from_utf8(v).unwrap()
    }

    #[test]
    fn a_response_copies_what_it_must_and_fills_the_top_via() {
        let m = Message::parse(INVITE).unwrap();
        let mut out = b"before".to_vec();
        Response::to(&m, 200).tag(b"t2").source("192.0.2.7:4000".parse().unwrap()).write(&mut out, |w| {
            w.text(HeaderName::Contact, b"<sip:bob@h>");
            w.body(b"application/sdp", b"v=0\r\n");
            w.text(HeaderName::Allow, b"INVITE\r\nX: y");
        });
        assert_eq!(
            text(out),
            "beforeSIP/2.0 200 OK\r\n\
             Via: SIP/2.0/UDP 10.0.0.1:5062;rport=4000;branch=z9hG4bK1;received=192.0.2.7,   SIP/2.0/TCP b;branch=z9hG4bK0\r\n\
             Via: SIP/2.0/UDP c;branch=z9hG4bK9\r\n\
             Record-Route: <sip:p1;lr>\r\nRecord-Route: <sip:p2;lr>\r\n\
             From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com;tag=no>;tag=t2\r\nCall-ID: c1@a\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:bob@h>\r\nContent-Type: application/sdp\r\nAllow: INVITE  X: y\r\nContent-Length: 5\r\n\r\nv=0\r\n"
        );
    }

    #[test]
    fn trying_has_the_timestamp_and_no_new_tag_nor_route() {
        let m = Message::parse(INVITE).unwrap();
        let mut out = Vec::new();
        Response::to(&m, 100).tag(b"t2").write(&mut out, |_| {});
        let r = Message::parse(&out).unwrap();
        assert_eq!((r.status(), r.defect(), r.method()), (100, None, Method::Invite));
        assert_eq!(r.value(HeaderName::To), Some(&b"<sip:bob@example.com;tag=no>"[..]));
        assert_eq!(r.value(HeaderName::Timestamp), Some(&b"54"[..]));
        assert_eq!(r.value(HeaderName::RecordRoute), None);
        assert_eq!(r.value(HeaderName::ContentLength), Some(&b"0"[..]));
        assert_eq!(r.list(HeaderName::Via).count(), 3);
    }

    #[test]
    fn a_tag_that_is_there_stays_alone() {
        let bytes = b"BYE sip:a SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nTo: sip:a;tag=9\r\nRecord-Route: <sip:x>\r\n\r\n";
        let m = Message::parse(bytes).unwrap();
        let mut out = Vec::new();
        Response::to(&m, 481).tag(b"t2").reason("Gone\r\nX: y").write(&mut out, |_| {});
        assert_eq!(
            text(out),
            "SIP/2.0 481 Gone  X: y\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nTo: sip:a;tag=9\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn a_request_with_an_empty_via_is_answered_with_it() {
        // Found by fuzzing.
        for via in ["Via:", "Via: ,,", "Via: ;;"] {
            let text = format!("OPTIONS sip:a SIP/2.0\r\n{via}\r\nTo: sip:a\r\n\r\n");
            let m = Message::parse(text.as_bytes()).unwrap();
            let mut out = Vec::new();
            Response::to(&m, 400).source("192.0.2.7:4000".parse().unwrap()).write(&mut out, |_| {});
            assert_eq!(Message::parse(&out).unwrap().headers().len(), 3);
        }
    }

    #[test]
    fn a_request_reads_back() {
        let mut out = Vec::new();
        Request::new(Method::Message, b"sip:b ob\r\n@h").write(&mut out, |w| {
            w.text(HeaderName::Via, b"SIP/2.0/UDP h;branch=z9hG4bK1");
            w.cseq(7, Method::Message);
            w.number(HeaderName::MaxForwards, 70);
            w.other("X-\r\nNew", |o| o.extend_from_slice(b"1"));
            w.body(b"text/plain", b"\0\xff\r\n");
            w.body(b"text/plain", b"second");
        });
        let m = Message::parse(&out).unwrap();
        assert_eq!(m.defect(), None);
        assert_eq!(m.request_uri(), b"sip:b%20ob%0D%0A@h");
        assert_eq!(m.cseq().unwrap().number, 7);
        assert_eq!(m.other_value("X-New"), Some(&b"1"[..]));
        assert_eq!(m.body(), b"\0\xff\r\n");
        assert_eq!(m.headers().len(), 6);
    }
}
