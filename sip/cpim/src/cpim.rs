//! `message/cpim` (RFC 3862): headers that stay with a message from end to end, and its content.
//!
//! ```text
//! From: Alice <im:alice@example.com>
//! To: Bob <im:bob@example.com>
//! NS: imdn <urn:ietf:params:imdn>
//! imdn.Message-ID: 34jk324j
//! DateTime: 2006-04-04T12:16:49-05:00
//! imdn.Disposition-Notification: positive-delivery, negative-delivery
//!
//! Content-type: text/plain
//!
//! Hello World
//! ```

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::address::Address;
use crate::text::{is_name_char, unescape};
use crate::{CPIM, IMDN};

pub const CPIM_TYPE: &str = "message/cpim";
/// Longest header section, in bytes: that of the message, and that of its content.
pub const MAX_HEAD: usize = 16 * 1024;
/// Most lines of each.
pub const MAX_HEADERS: usize = 64;

/// What is wrong with an envelope; always its sender's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadCpim {
    #[error("a header section longer than {MAX_HEAD} bytes")]
    TooLong,
    #[error("more than {MAX_HEADERS} headers")]
    TooMany,
    #[error("headers that are not UTF-8")]
    Encoding,
    #[error("line {0} is no header")]
    Line(usize),
    #[error("a namespace declaration that declares nothing")]
    Namespace,
    #[error("no empty line after the headers")]
    NoContent,
}

/// One header of the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// The URI of the namespace. Empty: a prefix that nobody declared.
    pub namespace: &'a str,
    /// Without its prefix; case counts.
    pub name: &'a str,
    /// `;lang=fr`, or empty.
    pub params: &'a str,
    /// As it stands, escapes and all.
    pub value: &'a str,
    line: &'a str,
}

impl<'a> Header<'a> {
    /// The whole line, without its end.
    pub fn line(&self) -> &'a str {
        self.line
    }

    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.name == name && self.namespace == namespace
    }
}

/// An envelope in the bytes that hold it.
#[derive(Clone, Debug)]
pub struct Cpim<'a> {
    headers: SmallVec<[Header<'a>; 12]>,
    mime: SmallVec<[(&'a str, Cow<'a, str>); 4]>,
    pub content: &'a [u8],
}

/// What its sender wants to hear about a message (RFC 5438 §6.2).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub positive_delivery: bool,
    pub negative_delivery: bool,
    pub processing: bool,
    pub display: bool,
}

impl<'a> Cpim<'a> {
    /// Reads an envelope. Line ends may be CRLF or LF.
    pub fn parse(bytes: &'a [u8]) -> Result<Cpim<'a>, BadCpim> {
        let mut lines = Lines { bytes, at: 0, number: 0 };
        let mut headers = SmallVec::<[Header<'a>; 12]>::new();
        let mut prefixes = SmallVec::<[(&'a str, &'a str); 4]>::new();
        loop {
            let line = lines.next(0)?;
            if line.is_empty() {
                break;
            }
            if headers.len() == MAX_HEADERS {
                return Err(BadCpim::TooMany);
            }
            let header = read(line, &prefixes).ok_or(BadCpim::Line(lines.number))?;
            if header.is(CPIM, "NS") {
                prefixes.push(declaration(header.value).ok_or(BadCpim::Namespace)?);
            }
            headers.push(header);
        }
        let start = lines.at;
        let mut mime = SmallVec::<[(&'a str, Cow<'a, str>); 4]>::new();
        loop {
            let line = lines.next(start)?;
            if line.is_empty() {
                break;
            }
            // MIME headers may be folded, as in RFC 5438 §8.3.
            if let Some((_, value)) = mime.last_mut().filter(|_| line.starts_with([' ', '\t'])) {
                let value = value.to_mut();
                value.push(' ');
                value.push_str(line.trim());
                continue;
            }
            if mime.len() == MAX_HEADERS {
                return Err(BadCpim::TooMany);
            }
            let (name, value) = line.split_once(':').ok_or(BadCpim::Line(lines.number))?;
            let name = name.trim_end();
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(BadCpim::Line(lines.number));
            }
            mime.push((name, Cow::Borrowed(value.trim())));
        }
        Ok(Cpim { headers, mime, content: &bytes[lines.at..] })
    }

    pub fn headers(&self) -> &[Header<'a>] {
        &self.headers
    }

    /// The first value of that name, escapes undone.
    pub fn text(&self, namespace: &str, name: &str) -> Option<Cow<'a, str>> {
        self.value(namespace, name).map(unescape)
    }

    fn value(&self, namespace: &str, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|h| h.is(namespace, name)).map(|h| h.value)
    }

    pub fn from(&self) -> Option<Address<'a>> {
        self.value(CPIM, "From").and_then(Address::parse)
    }

    /// Every addressee that can be read.
    pub fn to(&self) -> impl Iterator<Item = Address<'a>> {
        self.headers.iter().filter(|h| h.is(CPIM, "To")).filter_map(|h| Address::parse(h.value))
    }

    /// When it was sent, as its sender wrote it.
    pub fn date_time(&self) -> Option<&'a str> {
        self.value(CPIM, "DateTime").map(str::trim)
    }

    /// Names the message for its sender and its addressees (RFC 5438 §6.3). `None` for what is no token.
    pub fn message_id(&self) -> Option<&'a str> {
        let id = self.value(IMDN, "Message-ID")?.trim();
        let fine = |c: char| !c.is_control() && !c.is_whitespace() && !"<>\"\\".contains(c);
        (!id.is_empty() && id.len() <= MAX_MESSAGE_ID && id.chars().all(fine)).then_some(id)
    }

    pub fn original_to(&self) -> Option<Address<'a>> {
        self.value(IMDN, "Original-To").and_then(Address::parse)
    }

    /// The way that notifications have to take back, first hop first (RFC 5438 §6.5).
    pub fn record_route(&self) -> impl Iterator<Item = Address<'a>> {
        self.headers.iter().filter(|h| h.is(IMDN, "IMDN-Record-Route")).filter_map(|h| Address::parse(h.value))
    }

    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for request in self.value(IMDN, "Disposition-Notification").unwrap_or_default().split(',') {
            match request.split(';').next().unwrap_or_default().trim() {
                "positive-delivery" => wanted.positive_delivery = true,
                "negative-delivery" => wanted.negative_delivery = true,
                "processing" => wanted.processing = true,
                "display" => wanted.display = true,
                _ => {}
            }
        }
        wanted
    }

    /// A header of the content, by its name in any case; folded lines joined.
    pub fn mime(&self, name: &str) -> Option<&str> {
        self.mime.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// Every header of the content.
    pub fn mime_headers(&self) -> impl Iterator<Item = (&'a str, &str)> {
        self.mime.iter().map(|(name, value)| (*name, &**value))
    }

    pub fn content_type(&self) -> Option<&str> {
        self.mime("Content-Type")
    }

    /// Whether the content is of this type, parameters aside.
    pub fn holds(&self, essence: &str) -> bool {
        let written = self.content_type().unwrap_or_default();
        written.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(essence)
    }
}

/// Longest Message-ID, in bytes.
const MAX_MESSAGE_ID: usize = 256;

fn read<'a>(line: &'a str, prefixes: &[(&'a str, &'a str)]) -> Option<Header<'a>> {
    let colon = line.find(':')?;
    let (full, rest) = (&line[..colon], &line[colon + 1..]);
    let (prefix, name) = full.split_once('.').unwrap_or(("", full));
    let is_name = |text: &str| !text.is_empty() && text.bytes().all(is_name_char);
    if !is_name(name) || full.contains('.') && !is_name(prefix) {
        return None;
    }
    // The parameters end at the first blank that is in no string.
    let mut quoted = false;
    let mut escaped = false;
    let end = rest.char_indices().find(|&(_, c)| {
        if quoted {
            quoted = escaped || c != '"';
            escaped = c == '\\' && !escaped;
        } else {
            quoted = c == '"';
        }
        !quoted && c == ' '
    });
    let (params, value) = match end {
        Some((at, _)) if rest.starts_with(';') => (&rest[..at], &rest[at + 1..]),
        None if rest.starts_with(';') => (rest, ""),
        _ => ("", rest.strip_prefix(' ').unwrap_or(rest)),
    };
    let declared = prefixes.iter().rev().find(|(p, _)| *p == prefix).map(|(_, uri)| *uri);
    let usual = match prefix {
        "" => CPIM,
        // What everybody means by it, and some forget to say.
        "imdn" => IMDN,
        _ => "",
    };
    // NS itself is found wherever the default namespace has gone.
    let namespace = if full == "NS" { CPIM } else { declared.unwrap_or(usual) };
    Some(Header { namespace, name, params, value, line })
}

/// Prefix and URI of an NS value.
fn declaration(value: &str) -> Option<(&str, &str)> {
    let (prefix, uri) = value.trim().strip_suffix('>')?.split_once('<')?;
    let (prefix, uri) = (prefix.trim(), uri.trim());
    (prefix.bytes().all(is_name_char) && !uri.is_empty()).then_some((prefix, uri))
}

struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    /// The next line of the section that began at `start`.
    fn next(&mut self, start: usize) -> Result<&'a str, BadCpim> {
        let rest = &self.bytes[self.at..];
        let shown = &rest[..rest.len().min(MAX_HEAD + 1)];
        let Some(end) = shown.iter().position(|b| *b == b'\n') else {
            return Err(if rest.len() > MAX_HEAD { BadCpim::TooLong } else { BadCpim::NoContent });
        };
        self.at += end + 1;
        self.number += 1;
        if self.at - start > MAX_HEAD {
            return Err(BadCpim::TooLong);
        }
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        let line = std::str::from_utf8(line).map_err(|_| BadCpim::Encoding)?;
        if line.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
            return Err(BadCpim::Line(self.number));
        }
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5438 §7.1.1.3, and what RFC 3862 §5.1 adds.
    const MESSAGE: &[u8] =
        b"From: Alice <im:alice@example.com>\r\nTo: Bob <im:bob@example.com>\r\ncc: <im:carol@example.com>\r\n\
        NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: 34jk324j\r\nDateTime: 2006-04-04T12:16:49-05:00\r\n\
        imdn.Disposition-Notification: positive-delivery, negative-delivery;x=1 , x-other\r\n\
        Subject:;lang=fr beau temps \\u00e9\r\nNS: MyFeatures <mid:MessageFeatures@id.foo.com>\r\n\
        Require: MyFeatures.VitalMessageOption\r\nMyFeatures.VitalMessageOption: Confirmation-requested\r\n\r\n\
        Content-type: text/xml; charset=utf-8\r\nContent-length: 12\r\n\r\nHello\0\xff World";

    #[test]
    fn the_example_reads() {
        let m = Cpim::parse(MESSAGE).unwrap();
        assert_eq!(m.from().unwrap(), Address::new("Alice", "im:alice@example.com"));
        assert_eq!(m.to().map(|a| a.uri).collect::<Vec<_>>(), ["im:bob@example.com"]);
        assert_eq!((m.message_id(), m.date_time()), (Some("34jk324j"), Some("2006-04-04T12:16:49-05:00")));
        let wanted = Wanted { positive_delivery: true, negative_delivery: true, ..Wanted::default() };
        assert_eq!(m.wanted(), wanted);
        assert_eq!(m.text(CPIM, "Subject").unwrap(), "beau temps é");
        assert_eq!(m.headers().iter().find(|h| h.name == "Subject").unwrap().params, ";lang=fr");
        assert!(m.headers().iter().any(|h| h.is("mid:MessageFeatures@id.foo.com", "VitalMessageOption")));
        assert!(m.holds("Text/XML") && !m.holds("text/plain"));
        assert_eq!(m.content, b"Hello\0\xff World");
    }

    #[test]
    fn another_prefix_or_none_means_the_same() {
        for text in [
            "NS: x <urn:ietf:params:imdn>\nx.Message-ID: 1234\n\nContent-Type: text/plain\n\n",
            "imdn.Message-ID: 1234\r\n\r\nContent-Type: text/plain\r\n\r\n",
            "NS: <urn:ietf:params:imdn>\r\nMessage-ID: 1234\r\n\r\n\r\n",
        ] {
            assert_eq!(Cpim::parse(text.as_bytes()).unwrap().message_id(), Some("1234"), "{text}");
        }
        let other = b"NS: imdn <urn:other>\r\nimdn.Message-ID: 1\r\n\r\n\r\n";
        assert_eq!(Cpim::parse(other).unwrap().message_id(), None);
    }

    #[test]
    fn folded_headers_of_the_content_are_joined() {
        let text = b"\r\nContent-type: multipart/mixed;\r\n   boundary=\"imdn-boundary\"\r\n\r\n--x";
        let m = Cpim::parse(text).unwrap();
        assert_eq!(m.content_type(), Some("multipart/mixed; boundary=\"imdn-boundary\""));
        assert!(m.headers().is_empty());
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let bad = |bytes: &[u8]| Cpim::parse(bytes).map(|_| ()).unwrap_err();
        assert_eq!(bad(b""), BadCpim::NoContent);
        assert_eq!(bad(b"From: <im:a@x>\r\n\r\nContent-Type: text/plain\r\n"), BadCpim::NoContent);
        assert_eq!(bad(b"Hello\r\n\r\n\r\n"), BadCpim::Line(1));
        assert_eq!(bad(b"A: 1\r\nB\x00: 1\r\n\r\n\r\n"), BadCpim::Line(2));
        assert_eq!(bad(b"NS: x\r\n\r\n\r\n"), BadCpim::Namespace);
        assert_eq!(bad(b"A: \xff\r\n\r\n\r\n"), BadCpim::Encoding);
        assert_eq!(bad(&b"A: 1\r\n".repeat(MAX_HEADERS + 1)), BadCpim::TooMany);
        assert_eq!(bad(&b"x".repeat(MAX_HEAD + 1)), BadCpim::TooLong);
        let long = [b"A: ".as_slice(), &b"x".repeat(MAX_HEAD / 2), b"\r\n"].concat().repeat(2);
        assert_eq!(bad(&long), BadCpim::TooLong);
    }
}
