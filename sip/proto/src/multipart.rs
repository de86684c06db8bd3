//! Bodies of several parts: multipart/mixed, /related, /alternative (RFC 2046 §5.1, RFC 5621), read and written.
//!
//! Reading keeps slices of the body. At most [`MAX_PARTS`] parts, and [`MAX_DEPTH`] levels when looking for a part.

use smallvec::SmallVec;

use crate::edit;
use crate::headers::{ContentDisposition, MediaType};
use crate::message::trim;

/// Parts of one multipart body.
pub const MAX_PARTS: usize = 32;
/// Multiparts within multiparts that [`find`] enters.
pub const MAX_DEPTH: usize = 4;
/// RFC 2046 §5.1.1.
const MAX_BOUNDARY: usize = 70;

/// What the sender of a multipart body got wrong; 400 for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadMultipart {
    #[error("Content-Type has no usable boundary")]
    Boundary,
    #[error("no part begins")]
    Empty,
    #[error("the last part does not end")]
    NotClosed,
    #[error("a part has no empty line after its headers")]
    PartHead,
    #[error("more than {MAX_PARTS} parts")]
    TooManyParts,
}

/// One part, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part<'a> {
    head: &'a [u8],
    pub body: &'a [u8],
}

impl<'a> Part<'a> {
    /// A header of the part by its name in any case, folded lines included.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let mut rest = self.head;
        while !rest.is_empty() {
            let mut end = line_end(rest);
            while matches!(rest.get(end), Some(b' ' | b'\t')) {
                end += line_end(&rest[end..]);
            }
            let (line, after) = rest.split_at(end);
            rest = after;
            if let Some(colon) = memchr::memchr(b':', line)
                && trim(&line[..colon]).eq_ignore_ascii_case(name.as_bytes())
            {
                return Some(trim(&line[colon + 1..]));
            }
        }
        None
    }

    pub fn content_type(&self) -> Option<MediaType<'a>> {
        MediaType::parse(self.header("Content-Type")?)
    }

    pub fn disposition(&self) -> Option<ContentDisposition<'a>> {
        ContentDisposition::parse(self.header("Content-Disposition")?)
    }

    /// The Content-ID without its angle brackets: what a `cid:` URI names.
    pub fn content_id(&self) -> Option<&'a [u8]> {
        let id = self.header("Content-ID")?;
        Some(id.strip_prefix(b"<").and_then(|i| i.strip_suffix(b">")).unwrap_or(id))
    }
}

/// Takes a body apart. Text before the first and after the last delimiter is ignored.
pub fn parts<'a>(content_type: &MediaType<'_>, body: &'a [u8]) -> Result<SmallVec<[Part<'a>; 4]>, BadMultipart> {
    let boundary = content_type.boundary().unwrap_or_default();
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY || boundary.last() == Some(&b' ') {
        return Err(BadMultipart::Boundary);
    }
    let mut found = SmallVec::new();
    let mut open: Option<usize> = None;
    for delimiter in delimiters(body, &boundary) {
        if let Some(start) = open {
            if found.len() == MAX_PARTS {
                return Err(BadMultipart::TooManyParts);
            }
            found.push(part(&body[start..delimiter.start.max(start)])?);
        }
        if delimiter.closes {
            return if open.is_some() { Ok(found) } else { Err(BadMultipart::Empty) };
        }
        open = Some(delimiter.end);
    }
    Err(if open.is_some() { BadMultipart::NotClosed } else { BadMultipart::Empty })
}

/// The first part of that type, `find(&ct, body, "application/sdp")`, in the body itself or in the multiparts within it.
/// The body as a whole counts as a part when it has that type. What cannot be read has no parts.
pub fn find<'a>(content_type: &MediaType<'a>, body: &'a [u8], essence: &str) -> Option<Part<'a>> {
    find_within(content_type, Part { head: b"", body }, essence, MAX_DEPTH)
}

fn find_within<'a>(content_type: &MediaType<'a>, part: Part<'a>, essence: &str, depth: usize) -> Option<Part<'a>> {
    if content_type.is(essence) {
        return Some(part);
    }
    if depth == 0 || !content_type.kind.eq_ignore_ascii_case(b"multipart") {
        return None;
    }
    let inner = parts(content_type, part.body).ok()?;
    inner.into_iter().find_map(|p| find_within(&p.content_type()?, p, essence, depth - 1))
}

struct Delimiter {
    /// Where the line break before the delimiter begins: it belongs to the delimiter.
    start: usize,
    /// After the delimiter's own line.
    end: usize,
    closes: bool,
}

/// Delimiter lines, wherever a line begins with `--boundary`.
fn delimiters<'b>(body: &'b [u8], boundary: &'b [u8]) -> impl Iterator<Item = Delimiter> + 'b {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < body.len() {
            let line = &body[at..];
            let (start, end) = (at, at + line_end(line));
            at = end;
            let Some(after) = line.strip_prefix(b"--").and_then(|l| l.strip_prefix(boundary)) else { continue };
            let (closes, padding) = match after.strip_prefix(b"--") {
                Some(padding) => (true, padding),
                None => (false, after),
            };
            // Blanks may follow (RFC 2046 §5.1.1 transport-padding); anything else makes it another, longer boundary.
            if !trim(&padding[..line_end(padding)]).is_empty() {
                continue;
            }
            let start = match &body[..start] {
                [.., b'\r', b'\n'] => start - 2,
                [.., b'\n'] => start - 1,
                _ => start,
            };
            return Some(Delimiter { start, end, closes });
        }
        None
    })
}

fn part(text: &[u8]) -> Result<Part<'_>, BadMultipart> {
    let mut at = 0;
    while at < text.len() {
        let end = at + line_end(&text[at..]);
        if trim(&text[at..end]).is_empty() && !matches!(text[at], b' ' | b'\t') {
            return Ok(Part { head: &text[..at], body: &text[end..] });
        }
        at = end;
    }
    // A part without headers is its empty line and the body; without even that line it is empty.
    if text.is_empty() { Ok(Part { head: b"", body: b"" }) } else { Err(BadMultipart::PartHead) }
}

/// Length of the first line with its line feed.
fn line_end(s: &[u8]) -> usize {
    memchr::memchr(b'\n', s).map_or(s.len(), |n| n + 1)
}

/// Appends a multipart body part by part.
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
    boundary: Boundary,
}

/// A delimiter that stands in none of the parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Boundary([u8; 16]);

impl Boundary {
    /// Makes one from `seed` (anything; the same seed gives the same one) that none of `bodies` holds.
    pub fn choose(seed: u64, bodies: &[&[u8]]) -> Boundary {
        let mut seed = seed;
        loop {
            let mut text = [0; 16];
            for (i, b) in text.iter_mut().enumerate() {
                *b = b"0123456789abcdef"[(seed >> (60 - 4 * i)) as usize & 15];
            }
            if !bodies.iter().any(|b| memchr::memmem::find(b, &text).is_some()) {
                return Boundary(text);
            }
            // Ends: a body of n bytes holds fewer than n of the 2^64 boundaries.
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends the Content-Type of the whole: `multipart/<subtype><params>;boundary=…`.
    pub fn write_content_type(&self, subtype: &str, params: &[u8], out: &mut Vec<u8>) {
        // The boundary at the end: Linphone takes all that follows for a part of it.
        for part in [b"multipart/", subtype.as_bytes(), params, b";boundary=", &self.0] {
            out.extend_from_slice(part);
        }
    }
}

impl<'o> Writer<'o> {
    pub fn new(boundary: Boundary, out: &'o mut Vec<u8>) -> Writer<'o> {
        Writer { out, boundary }
    }

    /// One part; `headers` are names and values beside Content-Type.
    pub fn part(&mut self, content_type: &[u8], headers: &[(&str, &[u8])], body: &[u8]) {
        self.out.extend_from_slice(b"--");
        self.out.extend_from_slice(&self.boundary.0);
        self.out.extend_from_slice(b"\r\n");
        edit::header(self.out, crate::HeaderName::ContentType, |o| o.extend_from_slice(content_type));
        for (name, value) in headers {
            edit::other_header(self.out, name, |o| o.extend_from_slice(value));
        }
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(body);
        self.out.extend_from_slice(b"\r\n");
    }

    /// The closing delimiter.
    pub fn finish(self) {
        self.out.extend_from_slice(b"--");
        self.out.extend_from_slice(&self.boundary.0);
        self.out.extend_from_slice(b"--\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ct(text: &str) -> MediaType<'_> {
        MediaType::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        let bodies: [&[u8]; 3] = [b"v=0\r\n", b"\0\xff\r\n--not-it\r\n", b""];
        let boundary = Boundary::choose(7, &bodies);
        let mut out = Vec::new();
        let mut w = Writer::new(boundary, &mut out);
        w.part(b"application/sdp", &[], bodies[0]);
        w.part(b"application/vnd.3gpp.sms", &[("Content-ID", b"<a@h>"), ("Content-Disposition", b"render")], bodies[1]);
        w.part(b"text/plain", &[], bodies[2]);
        w.finish();
        let mut content_type = Vec::new();
        boundary.write_content_type("mixed", b"", &mut content_type);
        let content_type = MediaType::parse(&content_type).unwrap();
        let read = parts(&content_type, &out).unwrap();
        assert_eq!(read.iter().map(|p| p.body).collect::<Vec<_>>(), bodies);
        assert_eq!(read[1].content_id(), Some(&b"a@h"[..]));
        assert!(read[1].disposition().unwrap().is("render"));
        assert_eq!(find(&content_type, &out, "application/sdp").unwrap().body, bodies[0]);
        assert_eq!(find(&content_type, &out, "image/png"), None);
    }

    #[test]
    fn a_boundary_that_stands_in_a_body_is_not_chosen() {
        let first = Boundary::choose(1, &[]);
        assert_ne!(Boundary::choose(1, &[first.as_bytes()]), first);
    }

    #[test]
    fn preamble_padding_folding_and_epilogue() {
        let body = b"ignore\r\n--b \t\r\ncontent-TYPE:\r\n text/plain\r\nX:\r\n\r\none\r\n--bb\r\n--b\n\r\n\r\n--b-- \r\nignore\r\n--b--";
        let read = parts(&ct("multipart/mixed;boundary=b"), body).unwrap();
        assert!(read[0].content_type().unwrap().is("text/plain"));
        assert_eq!(read[0].header("x"), Some(&b""[..]));
        assert_eq!(read[0].body, b"one\r\n--bb");
        assert_eq!((read[1].header("x"), read[1].body, read.len()), (None, &b""[..], 2));
    }

    #[test]
    fn nested_parts_are_found_to_a_depth() {
        let mut body = b"found".to_vec();
        let mut kind = "text/plain".to_owned();
        for level in 0..=MAX_DEPTH {
            let outer = format!("multipart/mixed;boundary=\"b {level}\"");
            body = [
                format!("--b {level}\r\nContent-Type: {kind}\r\n\r\n").as_bytes(),
                &body,
                format!("\r\n--b {level}--").as_bytes(),
            ]
            .concat();
            let found = find(&ct(&outer), &body, "text/plain").map(|p| p.body);
            assert_eq!(found, (level < MAX_DEPTH).then_some(&b"found"[..]), "{level}");
            kind = outer;
        }
        assert_eq!(find(&ct("text/plain"), b"x", "text/plain").unwrap().body, b"x");
    }

    #[test]
    fn broken_bodies_say_what_is_wrong() {
        let b = ct("multipart/mixed;boundary=b");
        assert_eq!(parts(&ct("multipart/mixed"), b"--b\r\n--b--"), Err(BadMultipart::Boundary));
        assert_eq!(parts(&ct("multipart/mixed;boundary=\"\""), b"--\r\n----"), Err(BadMultipart::Boundary));
        assert_eq!(parts(&b, b"nothing"), Err(BadMultipart::Empty));
        assert_eq!(parts(&b, b"--b--"), Err(BadMultipart::Empty));
        assert_eq!(parts(&b, b"--b\r\n\r\nx"), Err(BadMultipart::NotClosed));
        assert_eq!(parts(&b, b"--b\r\nX: y\r\n--b--"), Err(BadMultipart::PartHead));
        assert_eq!(parts(&b, &b"--b\r\n".repeat(MAX_PARTS + 2)), Err(BadMultipart::TooManyParts));
    }
}
