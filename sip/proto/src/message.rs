//! A message as an index over the bytes it came in: one pass, no allocation for up to 32 headers, nothing copied.
//!
//! [`Message::parse`] is lenient on purpose: whatever can be indexed is, and the first thing that breaks the grammar is kept
//! as a [`Defect`], so that a bad request can still be answered with 400 (RFC 3261 §16.3, RFC 4475 §3.1.2). Only bytes in
//! which no start line can be found are an error. Values are read through the typed views in [`crate::headers`] when needed.

use std::ops::Range;

use memchr::memchr;
use smallvec::SmallVec;

use crate::headers::{CSeq, NameAddr, Via};
use crate::method::Method;
use crate::name::HeaderName;
use crate::octet;

/// Bounds on what one message may hold. Sizes of whole messages are the carriers' business.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Header field lines, 1 to 250.
    pub headers: usize,
    /// Bytes in one header line, folded parts included.
    pub line: usize,
    /// Via values, and Route values, counted over all lines.
    pub hops: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { headers: 200, line: 16 * 1024, hops: 70 }
    }
}

/// Why bytes are not a SIP message at all. There is nobody to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotSip {
    #[error("no bytes")]
    Empty,
    #[error("first line is neither a request line nor a status line")]
    StartLine,
    #[error("the header section does not end")]
    Unfinished,
}

/// The first breach of the grammar found while indexing; worth a 400 for a request, a silent drop for a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", self.phrase())]
pub enum Defect {
    StartLine,
    HeaderLine,
    TooManyHeaders,
    LineTooLong,
    RepeatedHeader(HeaderName),
    ContentLength,
    BodyTooShort,
    NoEmptyLine,
    Nul,
}

impl Defect {
    /// The reason phrase of the 400 that answers it.
    pub fn phrase(self) -> &'static str {
        match self {
            Defect::StartLine => "Malformed Request-Line",
            Defect::HeaderLine => "Malformed Header Line",
            Defect::TooManyHeaders => "Too Many Headers",
            Defect::LineTooLong => "Header Line Too Long",
            Defect::RepeatedHeader(_) => "Repeated Single Header",
            Defect::ContentLength => "Bad Content-Length",
            Defect::BodyTooShort => "Body Shorter Than Content-Length",
            Defect::NoEmptyLine => "Missing Empty Line After Headers",
            Defect::Nul => "NUL In Header Section",
        }
    }
}

/// Request line or status line, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartLine<'a> {
    Request { method: Method, token: &'a [u8], uri: &'a [u8], version: &'a [u8] },
    Response { status: u16, reason: &'a [u8], version: &'a [u8] },
}

/// One header line: where it stands. Offsets count from the first byte of the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderLine {
    pub name: HeaderName,
    /// Its name is in the long form, it ends in CRLF and has no other line break in it: it can be copied as it stands.
    whole: bool,
    name_len: u16,
    start: u32,
    value: u32,
    value_end: u32,
    end: u32,
}

impl HeaderLine {
    /// The whole line with its line end: what a removal deletes.
    pub fn line(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The value without surrounding white space; a folded value still holds its line breaks.
    pub fn value(&self) -> Range<usize> {
        self.value as usize..self.value_end as usize
    }

    fn name_range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.name_len as usize
    }
}

/// From or To.
#[derive(Clone, Copy, Debug, Default)]
struct Party<'a> {
    address: Option<NameAddr<'a>>,
    tag: Option<&'a [u8]>,
}

impl<'a> Party<'a> {
    fn read(value: Option<&'a [u8]>) -> Party<'a> {
        let address = value.and_then(NameAddr::parse);
        Party { address, tag: address.and_then(|a| a.tag()) }
    }
}

const NONE: u8 = u8::MAX;

/// A parsed message, borrowing the bytes it was parsed from.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    buf: &'a [u8],
    start: StartLine<'a>,
    headers: SmallVec<[HeaderLine; 32]>,
    /// Index of the first line of each known name.
    first: [u8; HeaderName::COUNT + 1],
    /// The topmost Via, From and To: each is asked for several times a message.
    via: Option<Via<'a>>,
    from: Party<'a>,
    to: Party<'a>,
    /// Offset of the empty line's end: where the body begins.
    head_end: usize,
    body_end: usize,
    defect: Option<Defect>,
}

impl<'a> Message<'a> {
    /// Indexes one datagram or one frame with the default [`Limits`].
    pub fn parse(buf: &'a [u8]) -> Result<Message<'a>, NotSip> {
        Message::parse_with(buf, &Limits::default())
    }

    pub fn parse_with(buf: &'a [u8], limits: &Limits) -> Result<Message<'a>, NotSip> {
        // RFC 3261 §7.5: empty lines before the start line are ignored.
        let lead = buf.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let buf = &buf[lead..];
        if buf.is_empty() {
            return Err(NotSip::Empty);
        }
        let first_end = octet::line_feed(buf).ok_or(NotSip::Unfinished)?;
        let (start, mut defect) = start_line(trim_line(&buf[..first_end]))?;
        let mut message = Message {
            buf,
            start,
            headers: SmallVec::new(),
            first: [NONE; HeaderName::COUNT + 1],
            via: None,
            from: Party::default(),
            to: Party::default(),
            head_end: 0,
            body_end: buf.len(),
            defect: None,
        };
        let plain = is_plain(buf);
        let mut at = first_end + 1;
        loop {
            if at == buf.len() {
                // The datagram ends with its last header: broken, but there is somebody to answer.
                defect.get_or_insert(Defect::NoEmptyLine);
                message.head_end = at;
                break;
            }
            let Some(line_len) = octet::line_feed(&buf[at..]) else { return Err(NotSip::Unfinished) };
            let mut end = at + line_len + 1;
            if matches!(buf[at..end], [b'\n'] | [b'\r', b'\n']) {
                message.head_end = end;
                break;
            }
            // Folding (RFC 3261 §7.3.1): a line that begins with white space goes on with the one before.
            let first_end = end;
            while matches!(buf.get(end), Some(b' ' | b'\t')) {
                let Some(more) = memchr(b'\n', &buf[end..]) else { return Err(NotSip::Unfinished) };
                end += more + 1;
            }
            match header_line(buf, at, end, limits, plain) {
                Ok(mut line) => {
                    line.whole = plain && end == first_end && line.name_len > 1 && buf[at..end].ends_with(b"\r\n");
                    if message.headers.len() >= limits.headers.min(250) {
                        defect.get_or_insert(Defect::TooManyHeaders);
                    } else {
                        let slot = &mut message.first[line.name as usize];
                        if *slot == NONE {
                            *slot = message.headers.len() as u8;
                        } else if line.name.is_single() {
                            defect.get_or_insert(Defect::RepeatedHeader(line.name));
                        }
                        message.headers.push(line);
                    }
                }
                Err(d) => {
                    defect.get_or_insert(d);
                }
            }
            at = end;
        }
        // RFC 3261 §18.3: a datagram's body ends where Content-Length says; without one, at the end of the datagram.
        if let Some(value) = message.value(HeaderName::ContentLength) {
            match decimal(value) {
                Some(n) if n <= (buf.len() - message.head_end) as u64 => {
                    message.body_end = message.head_end + n as usize
                }
                Some(_) => {
                    defect.get_or_insert(Defect::BodyTooShort);
                }
                None => {
                    defect.get_or_insert(Defect::ContentLength);
                }
            }
        }
        message.defect = defect;
        message.via = message.value(HeaderName::Via).and_then(|v| Via::parse(crate::headers::list(v).next()?));
        message.from = Party::read(message.value(HeaderName::From));
        message.to = Party::read(message.value(HeaderName::To));
        Ok(message)
    }

    /// The bytes of the message: from the start line to the end of the body.
    pub fn bytes(&self) -> &'a [u8] {
        &self.buf[..self.body_end]
    }

    pub fn start(&self) -> StartLine<'a> {
        self.start
    }

    pub fn defect(&self) -> Option<Defect> {
        self.defect
    }

    pub fn is_request(&self) -> bool {
        matches!(self.start, StartLine::Request { .. })
    }

    /// The method of a request; of a response, that of its CSeq.
    pub fn method(&self) -> Method {
        match self.start {
            StartLine::Request { method, .. } => method,
            StartLine::Response { .. } => self.cseq().map_or(Method::Other, |c| c.method()),
        }
    }

    /// 100 to 699; 0 for a request.
    pub fn status(&self) -> u16 {
        match self.start {
            StartLine::Response { status, .. } => status,
            StartLine::Request { .. } => 0,
        }
    }

    /// The Request-URI as sent; empty for a response.
    pub fn request_uri(&self) -> &'a [u8] {
        match self.start {
            StartLine::Request { uri, .. } => uri,
            StartLine::Response { .. } => b"",
        }
    }

    /// Where the Request-URI stands.
    pub fn request_uri_range(&self) -> Range<usize> {
        self.range_of(self.request_uri())
    }

    pub fn body(&self) -> &'a [u8] {
        &self.buf[self.head_end..self.body_end]
    }

    /// Offset of the first header line.
    pub fn headers_start(&self) -> usize {
        self.headers.first().map_or(self.head_end, |h| h.start as usize)
    }

    /// Offset of the empty line that ends the headers: where a header is appended.
    pub fn headers_end(&self) -> usize {
        let end = self.head_end;
        if self.headers.last().is_some_and(|h| h.end as usize == end) {
            // Defect::NoEmptyLine.
            return end;
        }
        if end >= 2 && self.buf[end - 2] == b'\r' { end - 2 } else { end - 1 }
    }

    pub fn headers(&self) -> &[HeaderLine] {
        &self.headers
    }

    /// The first line of that name.
    #[inline]
    pub fn line(&self, name: HeaderName) -> Option<&HeaderLine> {
        match self.first[name as usize] {
            NONE => None,
            i => self.headers.get(i as usize),
        }
    }

    /// The bytes of a line with its CRLF, when nothing in them could be taken for another line: they may be copied into
    /// another message as they stand.
    #[inline]
    pub(crate) fn whole_line(&self, line: &HeaderLine) -> Option<&'a [u8]> {
        line.whole.then(|| &self.buf[line.line()])
    }

    /// All lines of that name, in order.
    pub fn lines(&self, name: HeaderName) -> impl Iterator<Item = &HeaderLine> {
        let from = match self.first[name as usize] {
            NONE => self.headers.len(),
            i => i as usize,
        };
        self.headers[from..].iter().filter(move |h| h.name == name)
    }

    /// The value of the first line of that name.
    #[inline]
    pub fn value(&self, name: HeaderName) -> Option<&'a [u8]> {
        self.line(name).map(|h| &self.buf[h.value()])
    }

    /// The values of all lines of that name; a line may hold a comma-separated list (see [`crate::headers::list`]).
    pub fn values(&self, name: HeaderName) -> impl Iterator<Item = &'a [u8]> + '_ {
        let buf = self.buf;
        self.lines(name).map(move |h| &buf[h.value()])
    }

    /// A header that has no [`HeaderName`], by its spelling in any case.
    pub fn other_value(&self, name: &str) -> Option<&'a [u8]> {
        self.lines(HeaderName::Other)
            .find(|h| self.buf[h.name_range()].eq_ignore_ascii_case(name.as_bytes()))
            .map(|h| &self.buf[h.value()])
    }

    /// The name of a line as it was spelt.
    pub fn name_of(&self, line: &HeaderLine) -> &'a [u8] {
        &self.buf[line.name_range()]
    }

    /// Single values of all lines of that name, lists taken apart.
    pub fn list(&self, name: HeaderName) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.values(name).flat_map(crate::headers::list)
    }

    /// The topmost Via, if it can be read.
    pub fn top_via(&self) -> Option<Via<'a>> {
        self.via
    }

    /// Whether the topmost Via, which can be read, is the only one: nobody stands between its sender and us.
    pub fn has_one_via(&self) -> bool {
        let Some((via, line)) = self.via.zip(self.line(HeaderName::Via)) else { return false };
        // Its parameters end where it does.
        self.range_of(via.params.as_bytes()).end == line.value().end && self.lines(HeaderName::Via).nth(1).is_none()
    }

    /// From, if it can be read.
    #[inline]
    pub fn from(&self) -> Option<NameAddr<'a>> {
        self.from.address
    }

    /// To, if it can be read.
    #[inline]
    pub fn to(&self) -> Option<NameAddr<'a>> {
        self.to.address
    }

    /// The tag in From; an empty one counts as none.
    #[inline]
    pub fn from_tag(&self) -> Option<&'a [u8]> {
        self.from.tag
    }

    /// The tag in To; an empty one counts as none.
    #[inline]
    pub fn to_tag(&self) -> Option<&'a [u8]> {
        self.to.tag
    }

    /// Whether a request is one within a dialog (RFC 3261 §12.2): its To has a tag.
    #[inline]
    pub fn is_in_dialog(&self) -> bool {
        self.to.tag.is_some()
    }

    pub fn cseq(&self) -> Option<CSeq<'a>> {
        CSeq::parse(self.value(HeaderName::CSeq)?)
    }

    pub fn call_id(&self) -> Option<&'a [u8]> {
        self.value(HeaderName::CallId)
    }

    /// Where a slice of this message stands in it. The slice must come from this message.
    pub fn range_of(&self, part: &[u8]) -> Range<usize> {
        let start = (part.as_ptr() as usize).wrapping_sub(self.buf.as_ptr() as usize);
        debug_assert!(start + part.len() <= self.buf.len());
        start..start + part.len()
    }
}

fn start_line(line: &[u8]) -> Result<(StartLine<'_>, Option<Defect>), NotSip> {
    if line.len() >= 4 && line[..4].eq_ignore_ascii_case(b"SIP/") {
        let mut parts = line.splitn(3, |b| *b == b' ');
        let version = parts.next().unwrap_or_default();
        let code = parts.next().unwrap_or_default();
        let reason = parts.next().unwrap_or_default();
        let status = match code {
            [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(NotSip::StartLine),
        };
        return Ok((StartLine::Response { status, reason, version }, None));
    }
    // Request: the method up to the first blank, the version after the last; what is between is the URI, even if it
    // holds blanks it may not hold (RFC 4475 §3.1.2.9 wants an answer to those).
    let space = memchr(b' ', line).ok_or(NotSip::StartLine)?;
    let (token, rest) = (&line[..space], &line[space + 1..]);
    let trimmed = trim(rest);
    let version_at = memchr::memrchr(b' ', trimmed).ok_or(NotSip::StartLine)?;
    let (uri, version) = (&trimmed[..version_at], &trimmed[version_at + 1..]);
    if version.len() < 4 || !version[..4].eq_ignore_ascii_case(b"SIP/") || token.is_empty() {
        return Err(NotSip::StartLine);
    }
    let clean = token.iter().all(|b| is_token(*b))
        && !uri.is_empty()
        && trimmed.len() == rest.len()
        && octet::seen(uri) & octet::NOT_URI == 0;
    let defect = (!clean).then_some(Defect::StartLine);
    Ok((StartLine::Request { method: Method::from_bytes(token), token, uri, version }, defect))
}

/// `plain`: what [`is_plain`] said of the whole message.
#[inline]
fn header_line(buf: &[u8], start: usize, end: usize, limits: &Limits, plain: bool) -> Result<HeaderLine, Defect> {
    let line = &buf[start..end];
    if line.len() > limits.line {
        return Err(Defect::LineTooLong);
    }
    let colon = octet::colon(line).ok_or(Defect::HeaderLine)?;
    let mut spelt = &line[..colon];
    // "Name :" is allowed (RFC 3261 §25.1 HCOLON).
    while let [before @ .., b' ' | b'\t'] = spelt {
        spelt = before;
    }
    let name = HeaderName::from_bytes(spelt);
    // What is known is a token.
    if name == HeaderName::Other && (spelt.is_empty() || !spelt.iter().all(|b| is_token(*b))) {
        return Err(Defect::HeaderLine);
    }
    let value = &line[colon + 1..];
    if !plain {
        unbroken(value)?;
    }
    let (value, value_end) = match trim_value(value) {
        // Nothing stands there: what is written in its place comes before the end of the line.
        [] => (start + colon + 1, start + colon + 1),
        text => {
            let from = text.as_ptr() as usize - buf.as_ptr() as usize;
            (from, from + text.len())
        }
    };
    Ok(HeaderLine {
        name,
        whole: false,
        name_len: spelt.len() as u16,
        start: start as u32,
        value: value as u32,
        value_end: value_end as u32,
        end: end as u32,
    })
}

/// [`trim`], quick for what nearly everybody sends: one blank before, the line end behind.
#[inline]
fn trim_value(value: &[u8]) -> &[u8] {
    match value {
        [b' ', text @ .., b'\r', b'\n'] if matches!(text, [first, .., last] if *first > b' ' && *last > b' ') => text,
        _ => trim(value),
    }
}

/// Whether no NUL and no CR without its line feed stands anywhere. Nearly every message is so, and one look at all of it
/// costs less than a look at each value.
fn is_plain(buf: &[u8]) -> bool {
    let next = buf.get(1..).unwrap_or_default();
    let odd = buf.iter().zip(next).fold(false, |odd, (a, b)| odd | (*a == 0) | ((*a == b'\r') & (*b != b'\n')));
    !odd && !matches!(buf.last(), Some(0 | b'\r'))
}

/// NUL may stand as a quoted pair only (RFC 3261 §25.1; RFC 4475 §3.1.1.2 has one), CR before a line feed only: there
/// are peers that end a line at either.
fn unbroken(value: &[u8]) -> Result<(), Defect> {
    let inner = value.strip_suffix(b"\r\n").unwrap_or(value);
    for at in memchr::memchr2_iter(0, b'\r', inner) {
        match value[at] {
            0 if at == 0 || value[at - 1] != b'\\' => return Err(Defect::Nul),
            b'\r' if value.get(at + 1) != Some(&b'\n') => return Err(Defect::HeaderLine),
            _ => {}
        }
    }
    Ok(())
}

fn trim_line(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Linear white space with the line ends of folding.
#[inline]
pub(crate) fn is_lws(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

/// Without white space at either end.
pub(crate) fn trim(mut s: &[u8]) -> &[u8] {
    while let [b, rest @ ..] = s
        && is_lws(*b)
    {
        s = rest;
    }
    while let [rest @ .., b] = s
        && is_lws(*b)
    {
        s = rest;
    }
    s
}

/// Whether any octet is such a one. Looks at all of them, so that the compiler can do many at a time.
#[inline]
pub(crate) fn any(s: &[u8], test: impl Fn(u8) -> bool) -> bool {
    s.iter().fold(false, |found, b| found | test(*b))
}

/// RFC 3261 §25.1 `token`.
#[inline]
pub(crate) fn is_token(b: u8) -> bool {
    TOKEN[b as usize]
}

static TOKEN: [bool; 256] = {
    let mut t = [false; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        t[i] = b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        i += 1;
    }
    t
};

/// A decimal number and nothing else; at most 10 digits beyond leading zeros.
pub(crate) fn decimal(s: &[u8]) -> Option<u64> {
    if s.is_empty() || s.len() > 20 {
        return None;
    }
    s.iter().try_fold(0u64, |n, b| match b {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &[u8] = b"INVITE sip:bob@example.com SIP/2.0\r\nv: SIP/2.0/UDP a.example.com;branch=z9hG4bK1\r\n\
        Max-Forwards : 70\r\nSubject: a\r\n folded line\r\nTo: <sip:bob@example.com>\r\nf: <sip:alice@example.com>;tag=1\r\n\
        Call-ID: c1@a\r\nCSeq: 1 INVITE\r\nX-New: 1\r\nl: 4\r\n\r\nbodytrailing";

    #[test]
    fn an_empty_value_lies_within_its_line() {
        for blank in ["", " ", "\t ", " \r\n "] {
            let text = format!("BYE sip:a SIP/2.0\r\nSubject:{blank}\r\nTo: b\r\n\r\n");
            let m = Message::parse(text.as_bytes()).unwrap();
            let mut edits = crate::Edits::new();
            edits.replace(m.line(HeaderName::Subject).unwrap().value(), |v| v.extend_from_slice(b"lunch"));
            let mut out = Vec::new();
            edits.apply(m.bytes(), &mut out);
            let written = Message::parse(&out).unwrap();
            assert_eq!(written.value(HeaderName::Subject), Some(&b"lunch"[..]), "{blank:?}");
            assert_eq!(written.value(HeaderName::To), Some(&b"b"[..]));
        }
    }

    #[test]
    fn one_pass_indexes_compact_folded_and_unknown_headers() {
        let m = Message::parse(INVITE).unwrap();
        assert_eq!(m.defect(), None);
        assert_eq!(m.method(), Method::Invite);
        assert_eq!(m.request_uri(), b"sip:bob@example.com");
        assert_eq!(m.value(HeaderName::MaxForwards), Some(&b"70"[..]));
        assert_eq!(m.value(HeaderName::Subject), Some(&b"a\r\n folded line"[..]));
        assert_eq!(m.other_value("x-new"), Some(&b"1"[..]));
        assert_eq!(m.body(), b"body");
        assert_eq!(m.top_via().unwrap().branch(), Some(&b"z9hG4bK1"[..]));
        assert_eq!(m.headers().len(), 9);
    }

    #[test]
    fn a_repeated_single_header_is_a_defect() {
        let m = Message::parse(b"OPTIONS sip:a SIP/2.0\r\nTo: <sip:a>\r\nTo: <sip:b>\r\n\r\n").unwrap();
        assert_eq!(m.defect(), Some(Defect::RepeatedHeader(HeaderName::To)));
    }

    #[test]
    fn a_body_shorter_than_its_length_is_a_defect() {
        let m = Message::parse(b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 10\r\n\r\nabc").unwrap();
        assert_eq!(m.defect(), Some(Defect::BodyTooShort));
    }

    #[test]
    fn a_datagram_that_ends_with_its_headers_is_a_defect() {
        let m = Message::parse(b"OPTIONS sip:a SIP/2.0\r\nTo: a\r\n").unwrap();
        assert_eq!((m.defect(), m.body()), (Some(Defect::NoEmptyLine), &b""[..]));
        assert_eq!(m.headers_end(), m.bytes().len());
    }

    #[test]
    fn a_nul_may_stand_as_a_quoted_pair_only() {
        let defect = |t: &[u8]| Message::parse(t).unwrap().defect();
        assert_eq!(defect(b"OPTIONS sip:a SIP/2.0\r\nTo: \"\\\0\" <sip:a>\r\n\r\n"), None);
        assert_eq!(defect(b"OPTIONS sip:a SIP/2.0\r\nTo: \"\0\" <sip:a>\r\n\r\n"), Some(Defect::Nul));
        assert_eq!(defect(b"OPTIONS sip:a SIP/2.0\r\nTo:\0\r\n\r\n"), Some(Defect::Nul));
    }

    #[test]
    fn a_carriage_return_alone_is_a_defect() {
        for value in ["a\rVia: b", "a\r", "\r", "\ra"] {
            let text = format!("OPTIONS sip:a SIP/2.0\r\nSubject: {value}\r\n\r\n");
            assert_eq!(Message::parse(text.as_bytes()).unwrap().defect(), Some(Defect::HeaderLine), "{value:?}");
        }
    }

    #[test]
    fn what_has_no_start_line_is_not_sip() {
        assert_eq!(Message::parse(b"\r\n\r\n").unwrap_err(), NotSip::Empty);
        assert_eq!(Message::parse(b"GET / HTTP/1.1\r\n\r\n").unwrap_err(), NotSip::StartLine);
        assert_eq!(Message::parse(b"SIP/2.0 42 ?\r\n\r\n").unwrap_err(), NotSip::StartLine);
        assert_eq!(Message::parse(b"OPTIONS sip:a SIP/2.0\r\nTo: a").unwrap_err(), NotSip::Unfinished);
    }

    #[test]
    fn headers_beyond_the_limit_are_a_defect_not_an_allocation() {
        let mut bytes = b"OPTIONS sip:a SIP/2.0\r\n".to_vec();
        for _ in 0..5000 {
            bytes.extend_from_slice(b"X-Y: z\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        let m = Message::parse(&bytes).unwrap();
        assert_eq!(m.defect(), Some(Defect::TooManyHeaders));
        assert_eq!(m.headers().len(), 200);
    }
}
