//! Byte-Range values, and which bytes of a message are known (RFC 4975 §7.1.1, §7.3.1).

use std::fmt;

/// A Byte-Range: positions count from 1. `None` stands for `*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteRange {
    /// At least 1.
    pub start: u64,
    /// The last byte, `start - 1` if there is none.
    pub end: Option<u64>,
    /// The whole message.
    pub total: Option<u64>,
}

/// Largest position that is read: 2^53, beyond every file, and exact in every language.
pub const MAX_POSITION: u64 = 1 << 53;

impl ByteRange {
    /// What a SEND without Byte-Range means: from the beginning.
    pub const WHOLE: ByteRange = ByteRange { start: 1, end: None, total: None };

    /// `None` if it breaks the grammar or contradicts itself.
    pub fn parse(text: &[u8]) -> Option<ByteRange> {
        let slash = text.iter().position(|&b| b == b'/')?;
        let dash = text[..slash].iter().position(|&b| b == b'-')?;
        let start = number(&text[..dash])?;
        let starred = |t: &[u8]| if t == b"*" { Some(None) } else { number(t).map(Some) };
        let end = starred(&text[dash + 1..slash])?;
        let total = starred(&text[slash + 1..])?;
        let orderly = start >= 1
            && end.is_none_or(|end| end + 1 >= start && total.is_none_or(|total| end <= total))
            && total.is_none_or(|total| start <= total + 1);
        orderly.then_some(ByteRange { start, end, total })
    }

    /// The number of bytes, if it says.
    pub fn len(&self) -> Option<u64> {
        self.end.map(|end| end + 1 - self.start)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = text.iter().fold(0u64, |n, b| n * 10 + u64::from(b - b'0'));
    (n <= MAX_POSITION).then_some(n)
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.start)?;
        match self.end {
            Some(end) => write!(f, "{end}/")?,
            None => f.write_str("*/")?,
        }
        match self.total {
            Some(total) => write!(f, "{total}"),
            None => f.write_str("*"),
        }
    }
}

/// Most separate runs of bytes that one message may be in: chunks arrive in order but for relays and resent pieces.
pub const MAX_RUNS: usize = 64;

/// Which bytes of a message have been seen, whatever their order.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Covered {
    /// Half-open, in order, never touching.
    runs: Vec<(u64, u64)>,
}

/// The message is in more pieces than [`MAX_RUNS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a message in more than {MAX_RUNS} separate pieces")]
pub struct Scattered;

impl Covered {
    /// Adds `length` bytes from position `start`.
    pub fn add(&mut self, start: u64, length: u64) -> Result<(), Scattered> {
        if length == 0 {
            return Ok(());
        }
        let (mut from, mut to) = (start, start.saturating_add(length));
        let first = self.runs.partition_point(|r| r.1 < from);
        let last = self.runs.partition_point(|r| r.0 <= to);
        if first == last {
            if self.runs.len() == MAX_RUNS {
                return Err(Scattered);
            }
            self.runs.insert(first, (from, to));
            return Ok(());
        }
        from = from.min(self.runs[first].0);
        to = to.max(self.runs[last - 1].1);
        self.runs.splice(first..last, [(from, to)]);
        Ok(())
    }

    /// Whether every byte of a message of `total` bytes is there.
    pub fn is_whole(&self, total: u64) -> bool {
        total == 0 || self.runs.first().is_some_and(|r| r.0 <= 1 && r.1 > total)
    }

    /// The first byte that is missing.
    pub fn next(&self) -> u64 {
        self.runs.first().filter(|r| r.0 <= 1).map_or(1, |r| r.1)
    }

    /// The number of bytes that are there.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|r| r.1 - r.0).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_read_and_write() {
        for good in ["1-25/25", "1-*/8", "5-8/*", "1-*/*", "1-0/0", "26-25/25"] {
            assert_eq!(ByteRange::parse(good.as_bytes()).unwrap().to_string(), good);
        }
        for bad in ["", "0-1/2", "1-2", "1-3/2", "5-3/9", "4-*/2", "*-1/2", "1-2/3 ", "-1-2/3", "1-99999999999999999/*"]
        {
            assert_eq!(ByteRange::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_message_is_whole_once_every_byte_came() {
        let mut covered = Covered::default();
        covered.add(5, 4).unwrap();
        assert!(!covered.is_whole(8));
        assert_eq!(covered.next(), 1);
        covered.add(1, 4).unwrap();
        assert!(covered.is_whole(8));
        assert_eq!(covered.next(), 9);
    }

    #[test]
    fn a_message_in_crumbs_is_refused() {
        let mut covered = Covered::default();
        for i in 0..MAX_RUNS as u64 {
            covered.add(1 + 2 * i, 1).unwrap();
        }
        assert_eq!(covered.add(1000, 1), Err(Scattered));
        assert_eq!(covered.add(2, 1), Ok(()));
    }

    proptest! {
        #[test]
        fn covered_is_the_set_of_its_bytes(pieces in proptest::collection::vec((1u64..60, 0u64..12), 0..20)) {
            let mut covered = Covered::default();
            let mut set = std::collections::BTreeSet::new();
            for (start, length) in pieces {
                covered.add(start, length).unwrap();
                set.extend(start..start + length);
            }
            prop_assert_eq!(covered.bytes(), set.len() as u64);
            prop_assert_eq!(covered.next(), (1..).find(|n| !set.contains(n)).unwrap());
            for total in 0..80 {
                prop_assert_eq!(covered.is_whole(total), (1..=total).all(|n| set.contains(&n)));
            }
        }
    }
}
