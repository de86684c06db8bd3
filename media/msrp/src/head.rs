//! The header section of a request or response (RFC 4975 §9).

use std::fmt;

use smallvec::SmallVec;

use crate::range::ByteRange;
use crate::uri::{self, is_token};

/// Longest header section, start line included, in bytes.
pub const MAX_HEAD: usize = 8192;
/// Most header lines.
pub const MAX_LINES: usize = 64;

/// What is wrong with a request; every one is answered 400.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    #[error("bad start line")]
    Start,
    #[error("bad header line")]
    Line,
    #[error("more than {MAX_LINES} header lines")]
    TooManyLines,
    #[error("To-Path and From-Path must come first")]
    Paths,
    #[error("{0} given twice")]
    Twice(Name),
    #[error("bad {0}")]
    Value(Name),
}

/// A header that has a meaning here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    ToPath,
    FromPath,
    MessageId,
    SuccessReport,
    FailureReport,
    ByteRange,
    Status,
    ContentType,
    /// RFC 4976: `Expires`, `Min-Expires`, `Max-Expires`, `Use-Path`, the authentication headers; RFC 7701: `Use-Nickname`.
    /// They pass, or are found by [`Head::other`].
    Other,
}

impl Name {
    fn of(text: &[u8]) -> Name {
        const KNOWN: [Name; 8] = [
            Name::ToPath,
            Name::FromPath,
            Name::MessageId,
            Name::SuccessReport,
            Name::FailureReport,
            Name::ByteRange,
            Name::Status,
            Name::ContentType,
        ];
        KNOWN.into_iter().find(|n| n.as_str().as_bytes().eq_ignore_ascii_case(text)).unwrap_or(Name::Other)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Name::ToPath => "To-Path",
            Name::FromPath => "From-Path",
            Name::MessageId => "Message-ID",
            Name::SuccessReport => "Success-Report",
            Name::FailureReport => "Failure-Report",
            Name::ByteRange => "Byte-Range",
            Name::Status => "Status",
            Name::ContentType => "Content-Type",
            Name::Other => "header",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request's method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Send,
    Report,
    /// RFC 4976.
    Auth,
    /// RFC 7701.
    Nickname,
    Other,
}

/// The start line, but for its transaction id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start<'a> {
    Request(Method),
    Response { status: u16, comment: &'a [u8] },
}

/// Which failures the sender of a SEND wants to hear of (RFC 4975 §7.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FailureReport {
    #[default]
    Yes,
    /// Errors, but no 200 and no time-out.
    Partial,
    No,
}

/// One header line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub name: Name,
    /// As it was spelt.
    pub spelt: &'a [u8],
    pub value: &'a [u8],
}

/// A header section. All of it borrows from the bytes that came.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// The transaction id.
    pub id: &'a [u8],
    pub start: Start<'a>,
    pub lines: SmallVec<[Line<'a>; 12]>,
}

impl<'a> Head<'a> {
    /// Reads a header section: from `MSRP` to the line break of its last header.
    pub fn parse(bytes: &'a [u8]) -> Result<Head<'a>, Malformed> {
        let mut lines = bytes.split(|&b| b == b'\n').map(|l| l.strip_suffix(b"\r"));
        let (id, start) = lines.next().flatten().and_then(start_line).ok_or(Malformed::Start)?;
        let mut head = Head { id, start, lines: SmallVec::new() };
        let mut at_end = false;
        for line in lines {
            let line = match line {
                Some(line) if !at_end => line,
                // What follows the last line break is nothing.
                None if !at_end => {
                    at_end = true;
                    continue;
                }
                _ => return Err(Malformed::Line),
            };
            if head.lines.len() == MAX_LINES {
                return Err(Malformed::TooManyLines);
            }
            let line = header_line(line).ok_or(Malformed::Line)?;
            if line.name != Name::Other && head.value(line.name).is_some() {
                return Err(Malformed::Twice(line.name));
            }
            head.lines.push(line);
        }
        head.check()?;
        Ok(head)
    }

    /// RFC 4975 §9: both paths first; then what our part of the protocol reads must be readable.
    fn check(&self) -> Result<(), Malformed> {
        let names = [Name::ToPath, Name::FromPath];
        if self.lines.len() < 2 || !names.iter().zip(&self.lines).all(|(n, l)| *n == l.name) {
            return Err(Malformed::Paths);
        }
        let bad = |name| Err(Malformed::Value(name));
        for line in &self.lines {
            let fine = match line.name {
                Name::ToPath | Name::FromPath => uri::path(line.value).is_some(),
                Name::MessageId => is_ident(line.value),
                Name::SuccessReport => one_of(line.value, &[b"yes", b"no"]),
                Name::FailureReport => one_of(line.value, &[b"yes", b"no", b"partial"]),
                Name::ByteRange => ByteRange::parse(line.value).is_some(),
                Name::Status => status(line.value).is_some(),
                Name::ContentType => is_media_type(line.value),
                Name::Other => true,
            };
            if !fine {
                return bad(line.name);
            }
        }
        match self.start {
            Start::Request(Method::Send) if self.value(Name::MessageId).is_none() => bad(Name::MessageId),
            Start::Request(Method::Report) if self.value(Name::MessageId).is_none() => bad(Name::MessageId),
            Start::Request(Method::Report) if self.value(Name::Status).is_none() => bad(Name::Status),
            _ => Ok(()),
        }
    }

    pub fn value(&self, name: Name) -> Option<&'a [u8]> {
        self.lines.iter().find(|l| l.name == name).map(|l| l.value)
    }

    /// A header that has no [`Name`].
    pub fn other(&self, name: &str) -> Option<&'a [u8]> {
        self.lines.iter().find(|l| l.spelt.eq_ignore_ascii_case(name.as_bytes())).map(|l| l.value)
    }

    pub fn to_path(&self) -> &'a [u8] {
        self.value(Name::ToPath).unwrap_or_default()
    }

    pub fn from_path(&self) -> &'a [u8] {
        self.value(Name::FromPath).unwrap_or_default()
    }

    pub fn message_id(&self) -> &'a [u8] {
        self.value(Name::MessageId).unwrap_or_default()
    }

    pub fn byte_range(&self) -> Option<ByteRange> {
        self.value(Name::ByteRange).and_then(ByteRange::parse)
    }

    pub fn success_report(&self) -> bool {
        self.value(Name::SuccessReport).is_some_and(|v| v.eq_ignore_ascii_case(b"yes"))
    }

    pub fn failure_report(&self) -> FailureReport {
        match self.value(Name::FailureReport) {
            Some(v) if v.eq_ignore_ascii_case(b"no") => FailureReport::No,
            Some(v) if v.eq_ignore_ascii_case(b"partial") => FailureReport::Partial,
            _ => FailureReport::Yes,
        }
    }

    /// The code of a Status in the namespace that RFC 4975 defines.
    pub fn status(&self) -> Option<u16> {
        self.value(Name::Status).and_then(status).filter(|(namespace, _)| *namespace == 0).map(|(_, code)| code)
    }
}

/// The transaction id of a start line, even if the rest of the head is bad: what a refusal needs, and the end-line.
pub fn transaction_id(head: &[u8]) -> Option<&[u8]> {
    let line = head.split(|&b| b == b'\r').next()?;
    let rest = line.strip_prefix(b"MSRP ")?;
    rest.split(|&b| b == b' ').next().filter(|id| is_ident(id))
}

fn start_line(line: &[u8]) -> Option<(&[u8], Start<'_>)> {
    let rest = line.strip_prefix(b"MSRP ")?;
    let space = rest.iter().position(|&b| b == b' ')?;
    let (id, rest) = (&rest[..space], &rest[space + 1..]);
    if !is_ident(id) {
        return None;
    }
    let word = rest.split(|&b| b == b' ').next()?;
    let start = if word.len() == 3 && word.iter().all(u8::is_ascii_digit) {
        let comment = rest.get(4..).unwrap_or_default();
        is_text(comment).then_some(Start::Response { status: digits(word), comment })?
    } else {
        let fine =
            word.len() == rest.len() && (1..=32).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase);
        fine.then_some(Start::Request(match word {
            b"SEND" => Method::Send,
            b"REPORT" => Method::Report,
            b"AUTH" => Method::Auth,
            b"NICKNAME" => Method::Nickname,
            _ => Method::Other,
        }))?
    };
    Some((id, start))
}

fn header_line(line: &[u8]) -> Option<Line<'_>> {
    let colon = line.iter().position(|&b| b == b':')?;
    let (spelt, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let fine = spelt.first()?.is_ascii_alphabetic() && spelt.iter().copied().all(is_token) && is_text(value);
    fine.then_some(Line { name: Name::of(spelt), spelt, value })
}

/// `utf8text`: no control character but a tab, and real UTF-8.
fn is_text(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok() && value.iter().all(|&b| b == b'\t' || b >= b' ' && b != 0x7f)
}

/// `ident`, 4 to 32 characters. Some clients write one character less, or a little more, into a Message-ID: 64 are read.
pub fn is_ident(text: &[u8]) -> bool {
    let first = text.first().is_some_and(u8::is_ascii_alphanumeric);
    first
        && (1..=MAX_IDENT).contains(&text.len())
        && text.iter().all(|&b| b.is_ascii_alphanumeric() || b".-+%=_@".contains(&b))
}

/// Longest transaction id and Message-ID that are read; RFC 4975 allows 32.
pub const MAX_IDENT: usize = 64;

fn one_of(value: &[u8], words: &[&[u8]]) -> bool {
    words.iter().any(|w| w.eq_ignore_ascii_case(value))
}

fn digits(text: &[u8]) -> u16 {
    text.iter().fold(0, |n, b| n * 10 + u16::from(b - b'0'))
}

/// Namespace and code.
fn status(value: &[u8]) -> Option<(u16, u16)> {
    let mut words = value.splitn(3, |&b| b == b' ');
    let mut three = || words.next().filter(|w| w.len() == 3 && w.iter().all(u8::is_ascii_digit)).map(digits);
    Some((three()?, three()?))
}

/// `type/subtype`, with parameters or without.
fn is_media_type(value: &[u8]) -> bool {
    let essence = value.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    let mut halves = essence.splitn(2, |&b| b == b'/');
    let mut token = || halves.next().is_some_and(|t| !t.is_empty() && t.iter().copied().all(is_token));
    token() && token()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEND: &[u8] = b"MSRP d93kswow SEND\r\nTo-Path: msrp://bob.example.com:8888/9di4eae923wzd;tcp\r\n\
        From-Path: msrp://alicepc.example.com:7777/iau39soe2843z;tcp\r\nMessage-ID: 12339sdqwer\r\nByte-Range: 1-16/16\r\n\
        Failure-Report: partial\r\nSuccess-Report: yes\r\nX-Odd: \xc3\xa9\r\nContent-Type: text/plain;charset=utf-8\r\n";

    #[test]
    fn a_send_reads_in_full() {
        let head = Head::parse(SEND).unwrap();
        assert_eq!((head.id, head.start), (b"d93kswow".as_slice(), Start::Request(Method::Send)));
        assert_eq!(head.message_id(), b"12339sdqwer");
        assert_eq!(head.byte_range().unwrap().total, Some(16));
        assert_eq!(head.failure_report(), FailureReport::Partial);
        assert!(head.success_report());
        assert_eq!(head.other("x-odd"), Some("é".as_bytes()));
    }

    #[test]
    fn a_response_keeps_its_comment() {
        let head =
            Head::parse(b"MSRP a786hjs2 200 OK then\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:1/y;tcp\r\n");
        assert_eq!(head.unwrap().start, Start::Response { status: 200, comment: b"OK then" });
        let head = Head::parse(b"MSRP a786hjs2 200\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:1/y;tcp\r\n");
        assert_eq!(head.unwrap().start, Start::Response { status: 200, comment: b"" });
    }

    #[test]
    fn what_breaks_the_grammar_is_named() {
        let refused = |from: &str, to: &str| {
            let text = String::from_utf8_lossy(SEND).replace(from, to);
            Head::parse(text.as_bytes()).unwrap_err()
        };
        assert_eq!(refused("MSRP ", "MSRq "), Malformed::Start);
        assert_eq!(refused(" SEND", " SEND x"), Malformed::Start);
        assert_eq!(refused("To-Path: msrp", "To-Path: http"), Malformed::Value(Name::ToPath));
        assert_eq!(refused("To-Path:", "Message-ID:"), Malformed::Twice(Name::MessageId));
        assert_eq!(refused("To-Path:", "X-Path:"), Malformed::Paths);
        assert_eq!(refused("1-16/16", "1-17/16"), Malformed::Value(Name::ByteRange));
        assert_eq!(refused("partial", "maybe"), Malformed::Value(Name::FailureReport));
        assert_eq!(refused("Message-ID: 12339sdqwer\r\n", ""), Malformed::Value(Name::MessageId));
        assert_eq!(refused("text/plain", "text"), Malformed::Value(Name::ContentType));
        assert_eq!(refused("X-Odd: ", "X Odd: "), Malformed::Line);
        assert_eq!(refused("X-Odd: ", "X-Odd: \u{1}"), Malformed::Line);
        assert_eq!(refused("X-Odd: é\r\n", &"X: y\r\n".repeat(MAX_LINES)), Malformed::TooManyLines);
    }

    #[test]
    fn a_report_needs_its_status() {
        let report =
            b"MSRP a786hjs2 REPORT\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:1/y;tcp\r\nMessage-ID: 1234\r\n";
        assert_eq!(Head::parse(report).unwrap_err(), Malformed::Value(Name::Status));
        let whole = [report.as_slice(), b"Status: 000 413 enough\r\n"].concat();
        assert_eq!(Head::parse(&whole).unwrap().status(), Some(413));
    }
}
