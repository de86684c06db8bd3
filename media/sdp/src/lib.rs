//! Session descriptions (RFC 8866) as SIP carries them (RFC 3264).
//!
//! What it does: reads a description into lines and media sections over the received bytes ([`Sdp`]), reads and writes what is
//! said about messages (RFC 4975, RFC 6135, RFC 8122: [`message`]) and files (RFC 5547: [`file`]), and hides where a sender is (RFC 3323 §5.2:
//! [`hidden`]). What is not ours to change is written as it came.
//!
//! What it does not: choose codecs, or open anything.
//!
//! Start reading at [`Sdp::parse`].

pub mod file;
pub mod hidden;
pub mod message;

use std::ops::Range;

use smallvec::SmallVec;

/// Longest description, in bytes.
pub const MAX_SDP: usize = 64 * 1024;
/// Most lines.
pub const MAX_LINES: usize = 1024;
/// Most media sections.
pub const MAX_MEDIA: usize = 32;

/// What is wrong with a description. The peer's fault: 400 or 488.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSdp {
    #[error("description longer than {MAX_SDP} bytes")]
    TooLong,
    #[error("more than {MAX_LINES} lines")]
    TooManyLines,
    #[error("more than {MAX_MEDIA} media sections")]
    TooManyMedia,
    #[error("line {0} is no `x=…`")]
    Line(usize),
    #[error("a description begins with v=0")]
    Version,
    #[error("bad m= line")]
    Media,
}

/// One `x=value` line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub kind: u8,
    pub value: &'a [u8],
    /// Where the whole line begins, and where the next one does.
    start: usize,
    end: usize,
}

impl<'a> Line<'a> {
    /// The name and value of an `a=` line; the value of a property attribute is empty.
    pub fn attribute(&self) -> Option<(&'a [u8], &'a [u8])> {
        if self.kind != b'a' {
            return None;
        }
        Some(match self.value.iter().position(|&b| b == b':') {
            Some(colon) => (&self.value[..colon], &self.value[colon + 1..]),
            None => (self.value, b""),
        })
    }
}

/// The value of an `m=` line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MediaLine<'a> {
    /// `audio`, `message`, …
    pub kind: &'a [u8],
    /// 0: refused, or not in use.
    pub port: u16,
    /// `RTP/AVP`, `TCP/MSRP`, …
    pub protocol: &'a [u8],
    pub formats: &'a [u8],
}

impl<'a> MediaLine<'a> {
    fn parse(value: &'a [u8]) -> Option<MediaLine<'a>> {
        let mut words = value.splitn(4, |&b| b == b' ');
        let (kind, port, protocol, formats) = (words.next()?, words.next()?, words.next()?, words.next()?);
        // `port/count` is for layered streams.
        let port = port.split(|&b| b == b'/').next()?;
        let port = std::str::from_utf8(port).ok().filter(|p| p.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
        (!kind.is_empty() && !protocol.is_empty() && !formats.is_empty()).then_some(MediaLine {
            kind,
            port,
            protocol,
            formats,
        })
    }
}

/// A description in the bytes that hold it.
#[derive(Clone, Debug)]
pub struct Sdp<'a> {
    bytes: &'a [u8],
    lines: SmallVec<[Line<'a>; 24]>,
    media: SmallVec<[Section<'a>; 2]>,
}

/// A media section: its `m=` line and what belongs to it.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    pub line: MediaLine<'a>,
    /// Of `lines`, the `m=` line first.
    lines: Range<usize>,
}

impl<'a> Sdp<'a> {
    /// Reads a description. Line breaks may be CRLF or LF; empty lines at its end are left alone.
    pub fn parse(bytes: &'a [u8]) -> Result<Sdp<'a>, BadSdp> {
        if bytes.len() > MAX_SDP {
            return Err(BadSdp::TooLong);
        }
        let mut sdp = Sdp { bytes, lines: SmallVec::new(), media: SmallVec::new() };
        let mut start = 0;
        while start < bytes.len() {
            let end = memchr::memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |at| start + at + 1);
            let text = bytes[start..end].strip_suffix(b"\n").unwrap_or(&bytes[start..end]);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if text.is_empty() && bytes[start..].iter().all(|b| matches!(b, b'\r' | b'\n')) {
                break;
            }
            if sdp.lines.len() == MAX_LINES {
                return Err(BadSdp::TooManyLines);
            }
            let number = sdp.lines.len() + 1;
            let [kind @ b'a'..=b'z', b'=', value @ ..] = text else { return Err(BadSdp::Line(number)) };
            if value.iter().any(|&b| b == 0 || b == b'\r') {
                return Err(BadSdp::Line(number));
            }
            sdp.add(Line { kind: *kind, value, start, end })?;
            start = end;
        }
        match sdp.lines.first() {
            Some(Line { kind: b'v', value: b"0", .. }) => Ok(sdp),
            _ => Err(BadSdp::Version),
        }
    }

    fn add(&mut self, line: Line<'a>) -> Result<(), BadSdp> {
        let index = self.lines.len();
        self.lines.push(line);
        if line.kind == b'm' {
            if self.media.len() == MAX_MEDIA {
                return Err(BadSdp::TooManyMedia);
            }
            let line = MediaLine::parse(line.value).ok_or(BadSdp::Media)?;
            self.media.push(Section { line, lines: index..index + 1 });
        } else if let Some(section) = self.media.last_mut() {
            section.lines.end = index + 1;
        }
        Ok(())
    }

    pub fn media(&self) -> &[Section<'a>] {
        &self.media
    }

    /// The lines before the first media section.
    pub fn session(&self) -> &[Line<'a>] {
        let end = self.media.first().map_or(self.lines.len(), |s| s.lines.start);
        &self.lines[..end]
    }

    /// The lines of a section, its `m=` line first.
    pub fn lines(&self, section: &Section<'a>) -> &[Line<'a>] {
        &self.lines[section.lines.clone()]
    }

    /// Every line.
    fn all(&self) -> &[Line<'a>] {
        &self.lines
    }

    /// A line as it came, with its end.
    fn whole(&self, line: &Line<'_>) -> &'a [u8] {
        &self.bytes[line.start..line.end]
    }

    /// An attribute of a section.
    pub fn attribute(&self, section: &Section<'a>, name: &str) -> Option<&'a [u8]> {
        attribute(self.lines(section), name)
    }

    /// An attribute of a section, or else of the session: where RFC 8866 §5.13 or the attribute's own RFC allows both.
    pub fn attribute_anywhere(&self, section: &Section<'a>, name: &str) -> Option<&'a [u8]> {
        self.attribute(section, name).or_else(|| attribute(self.session(), name))
    }
}

fn attribute<'a>(lines: &[Line<'a>], name: &str) -> Option<&'a [u8]> {
    let mut attributes = lines.iter().filter_map(Line::attribute);
    attributes.find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sections_hold_what_belongs_to_them() {
        let sdp = Sdp::parse(
            b"v=0\r\no=- 1 1 IN IP4 h\r\ns=-\r\nc=IN IP4 h\r\nt=0 0\r\na=setup:active\r\nm=audio 4000/2 RTP/AVP 0 8\r\n\
            a=rtpmap:0 PCMU/8000\r\nm=message 2855 TCP/MSRP *\r\na=path:msrp://h:2855/s;tcp\r\n\r\n",
        )
        .unwrap();
        let [audio, message] = sdp.media() else { panic!("two sections") };
        assert_eq!((audio.line.port, audio.line.formats), (4000, b"0 8".as_slice()));
        assert_eq!(message.line.protocol, b"TCP/MSRP");
        assert_eq!(sdp.attribute(message, "PATH"), Some(b"msrp://h:2855/s;tcp".as_slice()));
        assert_eq!(sdp.attribute(message, "setup"), None);
        assert_eq!(sdp.attribute_anywhere(message, "setup"), Some(b"active".as_slice()));
        assert_eq!(sdp.session().len(), 6);
    }

    #[test]
    fn what_is_none_is_refused() {
        let refused = |text: &str| Sdp::parse(text.as_bytes()).unwrap_err();
        assert_eq!(refused(""), BadSdp::Version);
        assert_eq!(refused("v=1\r\n"), BadSdp::Version);
        assert_eq!(refused("v=0\r\n\r\nm=audio 1 RTP/AVP 0\r\n"), BadSdp::Line(2));
        assert_eq!(refused("v=0\r\nV=0\r\n"), BadSdp::Line(2));
        assert_eq!(refused("v=0\r\nm=audio x RTP/AVP 0\r\n"), BadSdp::Media);
        assert_eq!(refused("v=0\r\nm=audio 70000 RTP/AVP 0\r\n"), BadSdp::Media);
        assert_eq!(refused("v=0\r\nm=audio 1 RTP/AVP\r\n"), BadSdp::Media);
        assert_eq!(refused(&format!("v=0\r\n{}", "m=a 1 b *\r\n".repeat(MAX_MEDIA + 1))), BadSdp::TooManyMedia);
        assert_eq!(refused(&"v=0\r\n".repeat(MAX_LINES + 1)), BadSdp::TooManyLines);
        assert_eq!(refused(&format!("v=0\r\ns={}", "x".repeat(MAX_SDP))), BadSdp::TooLong);
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Sdp::parse(&[b"v=0\n".as_slice(), &noise].concat());
        }
    }
}
