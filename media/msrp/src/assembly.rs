//! Messages that end here, put together from their chunks (RFC 4975 §7.3.1): in any order, doubled, interrupted.

use std::time::{Duration, Instant};

use crate::range::{ByteRange, Covered};
use crate::reader::Flag;

/// Messages of one session that may be in pieces at the same time.
pub const MAX_OPEN: usize = 8;
/// A message of which nothing more comes is given up (RFC 7701 §6.1: the order of TCP's own patience).
pub const ABANDONED: Duration = Duration::from_secs(540);

/// Why a chunk is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// 413: the message is, or would become, longer than its receiver takes.
    #[error("the message is too long")]
    TooLong,
    /// 413: too many messages are in pieces, or one in too many.
    #[error("too many pieces")]
    Scattered,
    /// 400: the chunk contradicts itself, or what came before.
    #[error("the chunk does not fit")]
    Contradicts,
}

impl Refused {
    pub fn status(self) -> u16 {
        match self {
            Refused::TooLong | Refused::Scattered => 413,
            Refused::Contradicts => 400,
        }
    }
}

/// What the first chunk of a message says of it.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub message_id: &'a [u8],
    pub content_type: &'a [u8],
    pub range: ByteRange,
}

/// A whole message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whole {
    pub message_id: Box<[u8]>,
    pub content_type: Box<[u8]>,
    pub body: Vec<u8>,
}

/// The messages of one session that are being received. Holds at most `max` bytes for each of [`MAX_OPEN`].
#[derive(Debug)]
pub struct Assembly {
    max: usize,
    open: Vec<Partial>,
    /// The chunk at hand: its message, and where its next byte belongs.
    at: Option<(Box<[u8]>, u64)>,
}

#[derive(Debug)]
struct Partial {
    message_id: Box<[u8]>,
    content_type: Box<[u8]>,
    body: Vec<u8>,
    covered: Covered,
    total: Option<u64>,
    touched: Instant,
}

impl Assembly {
    /// `max`: the longest message, in bytes.
    pub fn new(max: usize) -> Assembly {
        Assembly { max, open: Vec::new(), at: None }
    }

    /// A chunk begins. A message that says that it is too long is refused before a byte of it is kept.
    pub fn begin(&mut self, now: Instant, told: &Told<'_>) -> Result<(), Refused> {
        self.at = None;
        self.open.retain(|p| now < p.touched + ABANDONED);
        let max = self.max as u64;
        let range = told.range;
        if range.total.is_some_and(|t| t > max) || range.end.is_some_and(|e| e > max) || range.start > max + 1 {
            self.forget(told.message_id);
            return Err(Refused::TooLong);
        }
        let open = self.open.len();
        match self.open.iter_mut().find(|p| *p.message_id == *told.message_id) {
            Some(partial) => {
                if range.total.is_some_and(|t| partial.total.is_some_and(|known| known != t)) {
                    return Err(Refused::Contradicts);
                }
                partial.total = partial.total.or(range.total);
                partial.touched = now;
            }
            None if open == MAX_OPEN => return Err(Refused::Scattered),
            None => self.open.push(Partial {
                message_id: told.message_id.into(),
                content_type: told.content_type.into(),
                body: Vec::new(),
                covered: Covered::default(),
                total: range.total,
                touched: now,
            }),
        }
        self.at = Some((told.message_id.into(), range.start));
        Ok(())
    }

    /// A piece of the chunk's body.
    pub fn piece(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let Some((id, position)) = &mut self.at else { return Ok(()) };
        let Some(partial) = self.open.iter_mut().find(|p| p.message_id == *id) else { return Ok(()) };
        let start = (*position - 1) as usize;
        let end = start + bytes.len();
        let refused = if end > self.max {
            Some(Refused::TooLong)
        } else if partial.total.is_some_and(|t| end as u64 > t) {
            Some(Refused::Contradicts)
        } else {
            partial.covered.add(*position, bytes.len() as u64).err().map(|_| Refused::Scattered)
        };
        if let Some(refused) = refused {
            let id = id.clone();
            self.forget(&id);
            self.at = None;
            return Err(refused);
        }
        if partial.body.len() < end {
            partial.body.resize(end, 0);
        }
        partial.body[start..end].copy_from_slice(bytes);
        *position += bytes.len() as u64;
        Ok(())
    }

    /// The chunk ends. Gives the message when that was the last byte that was missing.
    pub fn end(&mut self, flag: Flag) -> Option<Whole> {
        let (id, position) = self.at.take()?;
        if flag == Flag::Aborted {
            self.forget(&id);
            return None;
        }
        let index = self.open.iter().position(|p| p.message_id == id)?;
        let partial = &mut self.open[index];
        if flag == Flag::Complete && partial.total.is_none() {
            // Nobody said how long it is, but this is its end.
            partial.total = Some(position - 1);
        }
        let total = partial.total.filter(|t| partial.covered.is_whole(*t))?;
        let Partial { message_id, content_type, mut body, .. } = self.open.swap_remove(index);
        body.truncate(total as usize);
        Some(Whole { message_id, content_type, body })
    }

    /// Messages that are in pieces now.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    fn forget(&mut self, message_id: &[u8]) {
        self.open.retain(|p| *p.message_id != *message_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Receiving(Assembly, Instant);

    impl Receiving {
        fn new() -> Receiving {
            // Tests may look at the clock; the machine does not.
            Receiving(Assembly::new(20), Instant::now())
        }

        fn chunk(&mut self, id: &str, range: &str, bytes: &[u8], flag: Flag) -> Result<Option<Whole>, Refused> {
            let range = ByteRange::parse(range.as_bytes()).unwrap();
            self.0.begin(self.1, &Told { message_id: id.as_bytes(), content_type: b"text/plain", range })?;
            for half in bytes.chunks(bytes.len().div_ceil(2).max(1)) {
                self.0.piece(half)?;
            }
            Ok(self.0.end(flag))
        }
    }

    fn body(whole: Result<Option<Whole>, Refused>) -> Option<Vec<u8>> {
        whole.unwrap().map(|w| w.body)
    }

    #[test]
    fn chunks_arrive_in_any_order_and_twice() {
        let mut r = Receiving::new();
        assert_eq!(body(r.chunk("m1", "6-*/11", b" world", Flag::Complete)), None);
        assert_eq!(body(r.chunk("m2", "1-*/*", b"short", Flag::Complete)).unwrap(), b"short");
        assert_eq!(body(r.chunk("m1", "3-*/11", b"llo", Flag::More)), None);
        assert_eq!(body(r.chunk("m1", "1-3/11", b"hel", Flag::More)).unwrap(), b"hello world");
        assert_eq!(r.0.open(), 0);
        assert_eq!(body(r.chunk("m3", "1-0/0", b"", Flag::Complete)).unwrap(), b"");
    }

    #[test]
    fn what_claims_too_much_is_refused_at_its_first_chunk() {
        let mut r = Receiving::new();
        assert_eq!(r.chunk("m1", "1-*/1099511627776", b"x", Flag::More), Err(Refused::TooLong));
        assert_eq!(r.0.open(), 0);
        assert_eq!(r.chunk("m2", "22-*/*", b"x", Flag::More), Err(Refused::TooLong));
        assert_eq!(r.chunk("m3", "1-*/*", &[b'x'; 21], Flag::More), Err(Refused::TooLong), "an endless one");
        assert_eq!(r.chunk("m4", "1-*/3", b"four", Flag::More), Err(Refused::Contradicts), "past its end");
        r.chunk("m5", "1-*/3", b"a", Flag::More).unwrap();
        assert_eq!(r.chunk("m5", "2-*/4", b"b", Flag::More), Err(Refused::Contradicts));
    }

    #[test]
    fn open_messages_are_bounded_and_given_up() {
        let mut r = Receiving::new();
        for n in 0..MAX_OPEN {
            r.chunk(&format!("m{n}"), "1-*/5", b"a", Flag::More).unwrap();
        }
        assert_eq!(r.chunk("more", "1-*/5", b"a", Flag::More), Err(Refused::Scattered));
        assert_eq!(body(r.chunk("m0", "2-*/5", b"x", Flag::Aborted)), None);
        assert_eq!(r.0.open(), MAX_OPEN - 1);
        r.1 += ABANDONED;
        assert_eq!(body(r.chunk("late", "1-5/5", b"hello", Flag::Complete)).unwrap(), b"hello");
        assert_eq!(r.0.open(), 0);
    }

    proptest::proptest! {
        /// Any cutting of a message, in any order, doubled, gives the message once it is whole.
        #[test]
        fn any_order_of_chunks_gives_the_message(
            text in proptest::collection::vec(0u8..255, 1..20),
            cuts in proptest::collection::vec((0usize..20, 1usize..20), 0..12),
        ) {
            let mut r = Receiving::new();
            let total = text.len();
            let mut done = None;
            for (from, length) in cuts.into_iter().chain([(0, total)]) {
                let from = from.min(total - 1);
                let to = (from + length).min(total);
                let flag = if to == total { Flag::Complete } else { Flag::More };
                let range = format!("{}-{to}/{total}", from + 1);
                if let Some(whole) = r.chunk("m", &range, &text[from..to], flag).unwrap() {
                    done = Some(whole.body);
                    break;
                }
            }
            proptest::prop_assert_eq!(done, Some(text));
        }
    }
}
