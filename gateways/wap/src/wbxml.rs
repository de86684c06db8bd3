//! As much of WBXML (WAP-192-WBXML) as service indication and loading need: one code page, known tags.

use crate::uintvar;

/// Octets of a document that is read.
const MAX: usize = 4096;

const END: u8 = 0x01;
const ENTITY: u8 = 0x02;
const STR_I: u8 = 0x03;
const STR_T: u8 = 0x83;
const OPAQUE: u8 = 0xC3;
const HAS_CONTENT: u8 = 0x40;
const HAS_ATTRIBUTES: u8 = 0x80;

/// Attribute value tokens that both families share, and what they stand for.
const VALUES: [(u8, &str); 4] = [(0x85, ".com/"), (0x86, ".edu/"), (0x87, ".net/"), (0x88, ".org/")];

/// Text that XML or WBXML has no place for. The caller's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a character that XML does not allow")]
pub struct NotWritable;

/// Octets that are no such document. The peer's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    #[error("ends early")]
    Short,
    #[error("longer than {MAX} octets")]
    Long,
    #[error("not of this document type")]
    Type,
    #[error("token 0x{0:02x} is out of place")]
    Token(u8),
    #[error("text that is not UTF-8")]
    Text,
    #[error("a time that is none")]
    Time,
}

/// Version 1.2, a public identifier, UTF-8, no string table: as the specifications' own examples begin.
pub(crate) fn document(public_id: u8) -> Vec<u8> {
    vec![0x02, public_id, 0x6A, 0x00]
}

pub(crate) fn tag(out: &mut Vec<u8>, token: u8, attributes: bool, content: bool) {
    out.push(token | if attributes { HAS_ATTRIBUTES } else { 0 } | if content { HAS_CONTENT } else { 0 });
}

pub(crate) fn end(out: &mut Vec<u8>) {
    out.push(END);
}

/// Inline, NUL at the end.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) -> Result<(), NotWritable> {
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r') || c >= ' ' && !matches!(c, '\u{FFFE}' | '\u{FFFF}');
    if !text.chars().all(allowed) {
        return Err(NotWritable);
    }
    if !text.is_empty() {
        out.push(STR_I);
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    }
    Ok(())
}

/// An address: the start token that covers most of it, then text with the tokens of frequent ends of host names.
pub(crate) fn href(out: &mut Vec<u8>, starts: &[(u8, &str)], href: &str) -> Result<(), NotWritable> {
    let best = starts.iter().filter(|(_, prefix)| href.starts_with(prefix)).max_by_key(|(_, prefix)| prefix.len());
    let (token, prefix) = best.copied().unwrap_or((starts[0].0, ""));
    out.push(token);
    let mut rest = &href[prefix.len()..];
    let first = VALUES.iter().filter_map(|(token, value)| rest.find(value).map(|at| (at, *token, value.len()))).min();
    if let Some((at, token, length)) = first {
        text(out, &rest[..at])?;
        out.push(token);
        rest = &rest[at + length..];
    }
    text(out, rest)
}

pub(crate) fn opaque(out: &mut Vec<u8>, octets: &[u8]) {
    out.push(OPAQUE);
    uintvar::write(octets.len() as u32, out);
    out.extend_from_slice(octets);
}

/// Reads from the front, behind the document's head.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    table: &'a [u8],
}

/// One attribute: its start token, and its value as text or octets.
pub(crate) struct Attribute {
    pub start: u8,
    pub text: String,
    pub opaque: Vec<u8>,
}

impl<'a> Reader<'a> {
    /// `public_id` is the numeric identifier; a document may also carry it as text, `name`, in its string table.
    pub(crate) fn new(bytes: &'a [u8], public_id: u32, name: &str) -> Result<Reader<'a>, Broken> {
        if bytes.len() > MAX {
            return Err(Broken::Long);
        }
        let (version, rest) = bytes.split_first().ok_or(Broken::Short)?;
        if version >> 4 != 0 || *version > 3 {
            return Err(Broken::Type);
        }
        let (id, rest) = uintvar::read(rest).ok_or(Broken::Short)?;
        let (at, rest) = if id == 0 { uintvar::read(rest).map(|(at, r)| (Some(at), r)) } else { Some((None, rest)) }
            .ok_or(Broken::Short)?;
        let (charset, rest) = uintvar::read(rest).ok_or(Broken::Short)?;
        // 3 is US-ASCII, 0 unknown; what is not UTF-8 is seen where it stands.
        if !matches!(charset, 0 | 3 | 106) {
            return Err(Broken::Text);
        }
        let (length, rest) = uintvar::read(rest).ok_or(Broken::Short)?;
        let (table, rest) = rest.split_at_checked(length as usize).ok_or(Broken::Short)?;
        let reader = Reader { rest, table };
        let named = at.is_some_and(|at| reader.tabled(at).is_ok_and(|text| text == name));
        if id == public_id || named { Ok(reader) } else { Err(Broken::Type) }
    }

    fn tabled(&self, at: u32) -> Result<String, Broken> {
        let tail = self.table.get(at as usize..).ok_or(Broken::Short)?;
        let end = tail.iter().position(|b| *b == 0).ok_or(Broken::Short)?;
        std::str::from_utf8(&tail[..end]).map(str::to_owned).map_err(|_| Broken::Text)
    }

    fn octet(&mut self) -> Result<u8, Broken> {
        let (first, rest) = self.rest.split_first().ok_or(Broken::Short)?;
        self.rest = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u32, Broken> {
        let (value, rest) = uintvar::read(self.rest).ok_or(Broken::Short)?;
        self.rest = rest;
        Ok(value)
    }

    /// The next octet without taking it.
    pub(crate) fn peek(&self) -> Result<u8, Broken> {
        self.rest.first().copied().ok_or(Broken::Short)
    }

    /// The tag that must come now; whether it has attributes and content.
    pub(crate) fn tag(&mut self, token: u8) -> Result<(bool, bool), Broken> {
        let octet = self.octet()?;
        if octet & 0x3F != token {
            return Err(Broken::Token(octet));
        }
        Ok((octet & HAS_ATTRIBUTES != 0, octet & HAS_CONTENT != 0))
    }

    pub(crate) fn end(&mut self) -> Result<(), Broken> {
        match self.octet()? {
            END => Ok(()),
            other => Err(Broken::Token(other)),
        }
    }

    /// Attributes up to their end.
    pub(crate) fn attributes(&mut self) -> Result<Vec<Attribute>, Broken> {
        let mut attributes = Vec::new();
        loop {
            let start = self.octet()?;
            match start {
                END => return Ok(attributes),
                0x05..=0x7F => {}
                other => return Err(Broken::Token(other)),
            }
            let mut attribute = Attribute { start, text: String::new(), opaque: Vec::new() };
            loop {
                let next = self.peek()?;
                if let Some((_, value)) = VALUES.iter().find(|(token, _)| *token == next) {
                    self.octet()?;
                    attribute.text.push_str(value);
                } else if next == OPAQUE {
                    self.octet()?;
                    attribute.opaque = self.opaque()?.to_vec();
                } else if !self.piece(&mut attribute.text)? {
                    break;
                }
            }
            attributes.push(attribute);
        }
    }

    fn opaque(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.number()? as usize;
        let (octets, rest) = self.rest.split_at_checked(length).ok_or(Broken::Short)?;
        self.rest = rest;
        Ok(octets)
    }

    /// Content that is text, up to the next tag or end.
    pub(crate) fn content(&mut self) -> Result<String, Broken> {
        let mut text = String::new();
        while self.piece(&mut text)? {}
        Ok(text)
    }

    /// One string or entity, if one comes now.
    fn piece(&mut self, text: &mut String) -> Result<bool, Broken> {
        match self.peek()? {
            STR_I => {
                self.octet()?;
                let end = self.rest.iter().position(|b| *b == 0).ok_or(Broken::Short)?;
                text.push_str(std::str::from_utf8(&self.rest[..end]).map_err(|_| Broken::Text)?);
                self.rest = &self.rest[end + 1..];
            }
            STR_T => {
                self.octet()?;
                let at = self.number()?;
                text.push_str(&self.tabled(at)?);
            }
            ENTITY => {
                self.octet()?;
                let code = self.number()?;
                text.push(char::from_u32(code).ok_or(Broken::Text)?);
            }
            _ => return Ok(false),
        }
        // A table read again and again must not grow without bound.
        if text.len() > MAX { Err(Broken::Long) } else { Ok(true) }
    }

    /// Nothing may follow.
    pub(crate) fn finish(self) -> Result<(), Broken> {
        self.rest.first().map_or(Ok(()), |octet| Err(Broken::Token(*octet)))
    }
}
