//! Messages out of a byte stream (RFC 3261 §18.3), as a value: bytes in, frames out.
//!
//! A [`Framer`] holds nothing while no message is unfinished. What a read brought whole is handed on where it stands; only
//! the beginning of an unfinished message is copied.

use std::ops::Range;

use memchr::memchr;
use sip_proto::HeaderName;

/// Largest message on a stream, head and body, in bytes, unless configured.
pub const MESSAGE_MAX: usize = 128 * 1024;
/// A first line that is longer is no SIP.
const FIRST_LINE_MAX: usize = 16 * 1024;

/// What a stream brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// One message, from its start line to the end of its body.
    Message(&'a [u8]),
    /// A double CRLF between messages: the peer wants a single one back (RFC 5626 §4.4.1).
    Ping,
    /// The last bytes that will be read: a head whose end of body cannot be known. Worth a 400 if it is a request.
    Unframed(&'a [u8], FrameError),
}

/// Why a stream cannot be read on. All are the peer's fault; the connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("Missing Content-Length")]
    MissingContentLength,
    #[error("Bad Content-Length")]
    BadContentLength,
    #[error("Message Too Long")]
    TooLong,
    #[error("not SIP")]
    NotSip,
}

/// The state of one connection's reading side.
#[derive(Debug)]
pub struct Framer {
    /// The unfinished message, without the line ends before it. At most `max` bytes and one read more.
    pending: Vec<u8>,
    /// Bytes of `pending` known to hold no end of the head.
    scanned: usize,
    /// Length of the whole message, once its head is complete.
    total: usize,
    max: usize,
    /// Of a CRLF CRLF: how many octets were seen.
    keep_alive: u8,
}

enum Step {
    /// A whole message of that many bytes.
    Whole(usize),
    /// Not yet.
    More,
    /// Not ever; the head, if there is one, ends there.
    Broken(FrameError, usize),
}

impl Framer {
    /// `max` bounds one message, in bytes.
    pub fn new(max: usize) -> Framer {
        Framer { pending: Vec::new(), scanned: 0, total: 0, max, keep_alive: 0 }
    }

    /// Whether a message has begun and not ended: the peer owes the rest within a time.
    pub fn is_unfinished(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes what was read and gives each frame to `sink`, in order. After an error nothing more may be read.
    pub fn push(&mut self, mut input: &[u8], mut sink: impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        while !input.is_empty() {
            if self.pending.is_empty() {
                if let Some(rest) = self.line_end(input, &mut sink) {
                    input = rest;
                    continue;
                }
                self.keep_alive = 0;
                match self.step(input) {
                    Step::Whole(n) => {
                        sink(Frame::Message(&input[..n]));
                        self.restart();
                        input = &input[n..];
                    }
                    Step::More => {
                        self.pending.extend_from_slice(input);
                        return Ok(());
                    }
                    Step::Broken(error, head) => return Err(self.broken(&input[..head], error, &mut sink)),
                }
            } else {
                let before = self.pending.len();
                let take = if self.total > 0 { input.len().min(self.total - before) } else { input.len() };
                let mut pending = std::mem::take(&mut self.pending);
                if self.total > 0 && pending.capacity() < self.total {
                    // The length is known and within the bound: grow once.
                    pending.reserve_exact(self.total - before);
                }
                pending.extend_from_slice(&input[..take]);
                match self.step(&pending) {
                    Step::Whole(n) => {
                        sink(Frame::Message(&pending[..n]));
                        self.restart();
                        // What follows the message came with this input.
                        input = &input[n - before..];
                    }
                    Step::More => {
                        self.pending = pending;
                        input = &input[take..];
                    }
                    Step::Broken(error, head) => return Err(self.broken(&pending[..head], error, &mut sink)),
                }
            }
        }
        Ok(())
    }

    /// Takes one octet of a line end before a message.
    fn line_end<'a>(&mut self, input: &'a [u8], sink: &mut impl FnMut(Frame<'_>)) -> Option<&'a [u8]> {
        let rest = input.strip_prefix(b"\r").or_else(|| input.strip_prefix(b"\n"))?;
        let expected = if self.keep_alive.is_multiple_of(2) { b'\r' } else { b'\n' };
        self.keep_alive = if input[0] == expected { self.keep_alive + 1 } else { u8::from(input[0] == b'\r') };
        if self.keep_alive == 4 {
            self.keep_alive = 0;
            sink(Frame::Ping);
        }
        Some(rest)
    }

    fn restart(&mut self) {
        self.scanned = 0;
        self.total = 0;
        self.pending = Vec::new();
    }

    fn broken(&mut self, head: &[u8], error: FrameError, sink: &mut impl FnMut(Frame<'_>)) -> FrameError {
        self.restart();
        if !head.is_empty() {
            sink(Frame::Unframed(head, error));
        }
        error
    }

    fn step(&mut self, bytes: &[u8]) -> Step {
        if self.total == 0 {
            if !looks_like_sip(bytes) {
                return Step::Broken(FrameError::NotSip, 0);
            }
            let Some(head) = head_end(bytes, self.scanned) else {
                if bytes.len() > self.max {
                    return Step::Broken(FrameError::TooLong, 0);
                }
                // The line end that completes the head may have begun already.
                self.scanned = bytes.len().saturating_sub(3);
                return Step::More;
            };
            let body = match content_length(&bytes[..head]) {
                Ok(body) => body,
                Err(error) => return Step::Broken(error, head),
            };
            match head.checked_add(body) {
                Some(total) if total <= self.max => self.total = total,
                _ => return Step::Broken(FrameError::TooLong, head),
            }
        }
        if bytes.len() >= self.total { Step::Whole(self.total) } else { Step::More }
    }
}

/// A first line, as far as it is there, that could begin a message: printable, and with its version when it is whole.
fn looks_like_sip(bytes: &[u8]) -> bool {
    if !bytes.first().is_some_and(u8::is_ascii_graphic) {
        return false;
    }
    match memchr(b'\n', &bytes[..bytes.len().min(FIRST_LINE_MAX)]) {
        Some(end) => {
            let line = bytes[..end].trim_ascii_end();
            let version = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
            let starts = |s: &[u8]| s.len() >= 4 && s[..4].eq_ignore_ascii_case(b"SIP/");
            starts(line) || starts(version)
        }
        None => bytes.len() < FIRST_LINE_MAX,
    }
}

/// The offset after the empty line, searched from `from`.
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = memchr(b'\n', &bytes[at..]) {
        let after = at + found + 1;
        match bytes.get(after) {
            Some(b'\n') => return Some(after + 1),
            Some(b'\r') if bytes.get(after + 1) == Some(&b'\n') => return Some(after + 2),
            _ => at = after,
        }
    }
    None
}

/// The value of Content-Length or `l`. Two that differ are no length (a smuggler's trick).
fn content_length(head: &[u8]) -> Result<usize, FrameError> {
    let mut found: Option<usize> = None;
    for line in lines(head) {
        let line = &head[line];
        let Some(colon) = memchr(b':', line) else { continue };
        let name = line[..colon].trim_ascii_end();
        // Compact and long form; `HeaderName` knows both.
        if !matches!(name.len(), 1 | 14) || HeaderName::from_bytes(name) != HeaderName::ContentLength {
            continue;
        }
        let digits = line[colon + 1..].trim_ascii();
        if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
            return Err(FrameError::BadContentLength);
        }
        let value = digits.iter().fold(0usize, |n, d| n * 10 + usize::from(d - b'0'));
        if found.is_some_and(|other| other != value) {
            return Err(FrameError::BadContentLength);
        }
        found = Some(value);
    }
    found.ok_or(FrameError::MissingContentLength)
}

/// Header lines with their folded parts.
fn lines(head: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = memchr(b'\n', head).map_or(head.len(), |n| n + 1);
    std::iter::from_fn(move || {
        if at >= head.len() {
            return None;
        }
        let start = at;
        loop {
            at = memchr(b'\n', &head[at..]).map_or(head.len(), |n| at + n + 1);
            if !matches!(head.get(at), Some(b' ' | b'\t')) {
                return Some(start..at);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"MESSAGE sip:b@x SIP/2.0\r\nCall-ID: 1\r\nContent-Length: 5\r\n\r\nhello";
    const TWO: &[u8] = b"SIP/2.0 200 OK\r\nCall-ID: 2\r\nl:\r\n 0\r\n\r\n";

    fn read(framer: &mut Framer, input: &[u8]) -> (Vec<String>, Result<(), FrameError>) {
        let mut got = Vec::new();
        let result = framer.push(input, |frame| {
            got.push(match frame {
                Frame::Message(m) => String::from_utf8_lossy(m).into_owned(),
                Frame::Ping => "ping".into(),
                Frame::Unframed(_, e) => format!("unframed: {e}"),
            })
        });
        (got, result)
    }

    #[test]
    fn messages_come_out_whole_however_the_stream_is_cut() {
        let stream = [b"\r\n", ONE, b"\r\n\r\n", TWO, ONE].concat();
        let text = |m: &[u8]| String::from_utf8(m.to_vec()).unwrap();
        let want = [text(ONE), "ping".into(), text(TWO), text(ONE)];
        for cut in 1..stream.len() {
            let mut framer = Framer::new(MESSAGE_MAX);
            let mut got = Vec::new();
            for part in stream.chunks(cut) {
                let (frames, result) = read(&mut framer, part);
                assert_eq!(result, Ok(()));
                got.extend(frames);
            }
            assert_eq!(got, want, "cut every {cut}");
            assert!(!framer.is_unfinished());
        }
    }

    #[test]
    fn only_a_double_crlf_is_a_ping() {
        let mut framer = Framer::new(MESSAGE_MAX);
        assert_eq!(read(&mut framer, b"\r\n").0.len(), 0);
        assert_eq!(read(&mut framer, b"\r\n").0, ["ping"]);
        assert_eq!(read(&mut framer, b"\n\n\n\n\r\r\r").0.len(), 0);
        assert_eq!(read(&mut framer, b"\r\n\r\n\r\n\r\n").0, ["ping", "ping"]);
        assert!(!framer.is_unfinished());
    }

    #[test]
    fn an_idle_framer_holds_no_memory() {
        let mut framer = Framer::new(MESSAGE_MAX);
        read(&mut framer, &ONE[..20]).1.unwrap();
        assert!(framer.is_unfinished());
        read(&mut framer, &ONE[20..]).1.unwrap();
        assert_eq!(framer.pending.capacity(), 0);
    }

    #[test]
    fn a_head_without_a_length_is_handed_over_and_ends_the_stream() {
        let mut framer = Framer::new(MESSAGE_MAX);
        let (got, result) = read(&mut framer, b"OPTIONS sip:a SIP/2.0\r\nCall-ID: 1\r\n\r\n");
        assert_eq!(got, ["unframed: Missing Content-Length"]);
        assert_eq!(result, Err(FrameError::MissingContentLength));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for value in ["-1", "1e3", "99999999999999999999", "", "5, 5"] {
            let text = format!("OPTIONS sip:a SIP/2.0\r\nContent-Length: {value}\r\n\r\n");
            assert_eq!(read(&mut Framer::new(MESSAGE_MAX), text.as_bytes()).1, Err(FrameError::BadContentLength));
        }
        let twice = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 1\r\nl: 2\r\n\r\n";
        assert_eq!(read(&mut Framer::new(MESSAGE_MAX), twice).1, Err(FrameError::BadContentLength));
    }

    #[test]
    fn a_message_over_the_bound_is_refused_before_its_body_is_kept() {
        let mut framer = Framer::new(1000);
        let (got, result) = read(&mut framer, b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 2000\r\n\r\n");
        assert_eq!((got.len(), result), (1, Err(FrameError::TooLong)));
        let mut framer = Framer::new(1000);
        read(&mut framer, b"OPTIONS sip:a SIP/2.0\r\n").1.unwrap();
        let (_, result) = read(&mut framer, &b"X: y\r\n".repeat(300));
        assert_eq!(result, Err(FrameError::TooLong));
    }

    #[test]
    fn other_protocols_are_recognised_at_their_first_line_or_octet() {
        for other in
            [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00", b"\x00\x01", b"\0\rACK sip:a SIP/2.0\r\n"]
        {
            assert_eq!(read(&mut Framer::new(MESSAGE_MAX), other).1, Err(FrameError::NotSip));
        }
        let endless = vec![b'A'; FIRST_LINE_MAX + 1];
        assert_eq!(read(&mut Framer::new(MESSAGE_MAX), &endless).1, Err(FrameError::NotSip));
    }

    /// Pieces of what a peer may send, well formed or not.
    fn piece() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
        use proptest::prelude::*;
        prop_oneof![
            Just(ONE.to_vec()),
            Just(TWO.to_vec()),
            Just(b"\r\n\r\n".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"INVITE sip:a SIP/2.0\r\n".to_vec()),
            Just(b"Content-Length : 7\r\n".to_vec()),
            Just(b"l: 4000\r\n".to_vec()),
            Just(b"X: 1\r\n l: 2\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 1..30),
        ]
    }

    proptest::proptest! {
        #[test]
        fn how_a_stream_is_cut_changes_nothing(
            pieces in proptest::collection::vec(piece(), 1..12),
            cuts in proptest::collection::vec(1..40usize, 1..40),
        ) {
            let stream = pieces.concat();
            // A head over the bound is told from a message over the bound only if it came in one piece; both are TooLong.
            let told = |(frames, result): (Vec<String>, Result<(), FrameError>)| {
                let frames: Vec<_> = frames.into_iter().filter(|f| !f.starts_with("unframed")).collect();
                (frames, result)
            };
            let whole = told(read(&mut Framer::new(300), &stream));
            let mut framer = Framer::new(300);
            let (mut frames, mut result, mut at) = (Vec::new(), Ok(()), 0);
            for cut in cuts.iter().cycle() {
                if at >= stream.len() || result.is_err() {
                    break;
                }
                let end = (at + cut).min(stream.len());
                let (more, now) = told(read(&mut framer, &stream[at..end]));
                frames.extend(more);
                result = now;
                at = end;
                proptest::prop_assert!(framer.pending.len() <= 300 + 40);
            }
            proptest::prop_assert_eq!((frames, result), whole);
        }
    }
}
