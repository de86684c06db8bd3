//! The writing side of one connection: whose chunk is on the wire, and which transactions wait for their response.
//!
//! Every chunk may be interrupted between two pieces of its body, so that responses, reports and other sessions get through
//! (RFC 4975 §5.1). Who was interrupted begins again, with the position that it has reached.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::head::FailureReport;
use crate::range::ByteRange;
use crate::reader::Flag;
use crate::write::{self, TransactionId};

/// How long a SEND waits for its response (RFC 4975 §7.1.1).
pub const RESPONSE_WAIT: Duration = Duration::from_secs(30);
/// Most transactions of one connection that wait: a peer that reads and never answers is cut off.
pub const MAX_WAITING: usize = 4096;

/// A chunk to be written: all that stands between the start line and the body, but for Byte-Range.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    pub to_path: &'a [u8],
    pub from_path: &'a [u8],
    /// Message-ID and reports: whole lines.
    pub headers: &'a [u8],
    /// Content-Type last (RFC 4975 §7.1): whole lines; empty when there is no body.
    pub content: &'a [u8],
}

/// The state of the writing side. `T` is what a transaction is about.
#[derive(Debug)]
pub struct Lane<T> {
    open: Option<Open<T>>,
    waiting: VecDeque<Waiting<T>>,
}

#[derive(Debug)]
struct Open<T> {
    owner: u64,
    id: TransactionId,
    about: Option<T>,
    wants: FailureReport,
}

#[derive(Debug)]
struct Waiting<T> {
    id: TransactionId,
    until: Instant,
    /// False: only an error is of interest, silence is not.
    timed: bool,
    about: T,
}

impl<T> Default for Lane<T> {
    fn default() -> Lane<T> {
        Lane { open: None, waiting: VecDeque::new() }
    }
}

impl<T> Lane<T> {
    /// Whether the chunk on the wire is `owner`'s.
    pub fn holds(&self, owner: u64) -> bool {
        self.open.as_ref().is_some_and(|o| o.owner == owner)
    }

    /// Makes room for something else: ends the chunk on the wire, to be continued.
    pub fn interject(&mut self, now: Instant, out: &mut Vec<u8>) {
        if self.open.is_some() {
            self.finish(now, out, Flag::More);
        }
    }

    /// Begins a chunk with a body; its pieces follow as they are. `about` is told when the transaction fails or lapses.
    #[expect(clippy::too_many_arguments, reason = "each is one part of the request")]
    pub fn begin(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        owner: u64,
        id: TransactionId,
        chunk: &Chunk<'_>,
        range: ByteRange,
        wants: FailureReport,
        about: T,
    ) {
        self.interject(now, out);
        write::request(out, &id, "SEND", chunk.to_path, chunk.from_path);
        out.extend_from_slice(chunk.headers);
        write::byte_range(out, range);
        out.extend_from_slice(chunk.content);
        out.extend_from_slice(b"\r\n");
        self.open = Some(Open { owner, id, about: Some(about), wants });
    }

    /// Ends the chunk of `owner`, if it is still on the wire.
    pub fn end(&mut self, now: Instant, out: &mut Vec<u8>, owner: u64, flag: Flag) {
        if self.holds(owner) {
            self.finish(now, out, flag);
        }
    }

    /// A request without a body, whole.
    pub fn bodiless(&mut self, now: Instant, out: &mut Vec<u8>, id: TransactionId, chunk: &Chunk<'_>, about: T) {
        self.interject(now, out);
        write::request(out, &id, "SEND", chunk.to_path, chunk.from_path);
        out.extend_from_slice(chunk.headers);
        write::end(out, id.as_bytes(), Flag::Complete);
        self.wait(Waiting { id, until: now + RESPONSE_WAIT, timed: true, about });
    }

    fn finish(&mut self, now: Instant, out: &mut Vec<u8>, flag: Flag) {
        let Some(open) = self.open.take() else { return };
        write::body_end(out, open.id.as_bytes(), flag);
        if let (Some(about), true) = (open.about, open.wants != FailureReport::No) {
            let timed = open.wants == FailureReport::Yes;
            self.wait(Waiting { id: open.id, until: now + RESPONSE_WAIT, timed, about });
        }
    }

    fn wait(&mut self, transaction: Waiting<T>) {
        self.waiting.push_back(transaction);
    }

    /// What the transaction of a response was about; once.
    pub fn answered(&mut self, id: &[u8]) -> Option<T> {
        let id = TransactionId::read(id)?;
        if let Some(at) = self.waiting.iter().position(|w| w.id == id) {
            return self.waiting.remove(at).map(|w| w.about);
        }
        self.open.as_mut().filter(|o| o.id == id)?.about.take()
    }

    /// Takes a transaction that nobody answered in time.
    pub fn lapsed(&mut self, now: Instant) -> Option<T> {
        while self.waiting.front().is_some_and(|w| w.until <= now) {
            let oldest = self.waiting.pop_front()?;
            if oldest.timed {
                return Some(oldest.about);
            }
        }
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        None
    }

    /// All that still waits, when the connection is gone.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        let open = self.open.take().filter(|o| o.wants != FailureReport::No).and_then(|o| o.about);
        std::mem::take(&mut self.waiting).into_iter().map(|w| w.about).chain(open)
    }

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Nothing more may be sent that wants a response.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// What `owner`'s chunk on the wire is about.
    pub fn about_mut(&mut self, owner: u64) -> Option<&mut T> {
        self.open.as_mut().filter(|o| o.owner == owner)?.about.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: Chunk<'_> = Chunk {
        to_path: b"msrp://b:1/x;tcp",
        from_path: b"msrp://a:1/y;tcp",
        headers: b"Message-ID: 4564dpWd\r\n",
        content: b"Content-Type: text/plain\r\n",
    };

    fn id(n: u128) -> TransactionId {
        TransactionId::new(n)
    }

    fn range(start: u64) -> ByteRange {
        ByteRange { start, end: None, total: Some(8) }
    }

    /// The example of RFC 4975 §5.1, with a response in the middle.
    #[test]
    fn a_long_message_lets_a_response_through_and_goes_on() {
        let (now, mut out, mut lane) = (Instant::now(), Vec::new(), Lane::default());
        lane.begin(now, &mut out, 7, id(1), &CHUNK, range(1), FailureReport::Yes, "one");
        out.extend_from_slice(b"abcd");
        lane.interject(now, &mut out);
        write::response(&mut out, b"q1w2e3r4", 200, b"msrp://b:1/x;tcp", b"msrp://a:1/y;tcp");
        assert!(!lane.holds(7));
        lane.begin(now, &mut out, 7, id(2), &CHUNK, range(5), FailureReport::Yes, "two");
        out.extend_from_slice(b"EFGH");
        lane.end(now, &mut out, 7, Flag::Complete);
        let paths = "To-Path: msrp://b:1/x;tcp\r\nFrom-Path: msrp://a:1/y;tcp\r\n";
        let rest = "Message-ID: 4564dpWd\r\nByte-Range:";
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(
                "MSRP 100000000000 SEND\r\n{paths}{rest} 1-*/8\r\nContent-Type: text/plain\r\n\r\nabcd\r\n\
                -------100000000000+\r\nMSRP q1w2e3r4 200 OK\r\n{paths}-------q1w2e3r4$\r\nMSRP 200000000000 SEND\r\n\
                {paths}{rest} 5-*/8\r\nContent-Type: text/plain\r\n\r\nEFGH\r\n-------200000000000$\r\n"
            )
        );
        assert_eq!(lane.answered(id(2).as_bytes()), Some("two"));
        assert_eq!(lane.answered(id(2).as_bytes()), None);
        assert_eq!(lane.lapsed(now + RESPONSE_WAIT), Some("one"));
        assert!(!lane.is_waiting());
    }

    #[test]
    fn who_wants_no_answer_gets_no_timer() {
        let (now, mut out, mut lane) = (Instant::now(), Vec::new(), Lane::default());
        for (n, wants) in [(1, FailureReport::No), (2, FailureReport::Partial)] {
            lane.begin(now, &mut out, n, id(n.into()), &CHUNK, range(1), wants, n);
            lane.end(now, &mut out, n, Flag::Complete);
        }
        assert_eq!(lane.answered(id(1).as_bytes()), None);
        assert_eq!(lane.lapsed(now + RESPONSE_WAIT), None);
        assert_eq!(lane.answered(id(2).as_bytes()), None);
    }

    #[test]
    fn an_error_may_come_while_the_chunk_is_on_the_wire() {
        let (now, mut out, mut lane) = (Instant::now(), Vec::new(), Lane::default());
        lane.begin(now, &mut out, 1, id(9), &CHUNK, range(1), FailureReport::Yes, ());
        assert_eq!(lane.answered(id(9).as_bytes()), Some(()));
        lane.end(now, &mut out, 1, Flag::Aborted);
        assert!(out.ends_with(b"\r\n-------900000000000#\r\n"));
        assert!(!lane.is_waiting());
    }

    #[test]
    fn a_peer_that_never_answers_fills_its_lane() {
        let (now, mut out, mut lane) = (Instant::now(), Vec::new(), Lane::default());
        for n in 0..MAX_WAITING as u64 {
            assert!(!lane.is_full());
            out.clear();
            lane.bodiless(now, &mut out, id(n.into()), &CHUNK, n);
        }
        assert!(lane.is_full());
    }
}
