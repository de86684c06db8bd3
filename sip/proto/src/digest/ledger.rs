//! Nonce counts seen so far: what stops a captured request from being sent again (RFC 7616 §3.4.5, §5.5).

use super::nonce::Issued;

/// A table of fixed size. Only nonces with a right response get in, so strangers cannot push others out.
///
/// When a nonce had to leave to make room, nonces of its set that are as old are not believed any more: their owners get a
/// new one (`stale=true`), never a replay through.
#[derive(Debug)]
pub struct Ledger {
    sets: Box<[Set]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// This count was not seen for this nonce.
    New,
    /// The very request that used this count last: a retransmission.
    Same,
    /// Used by another request, or too old to know.
    Replayed,
}

/// Nonces of one set. Computed for 64 Ki nonces at 8,000 a second, evenly spread: in sets of four, six meet within a second
/// every 5 s, and the sixth is refused though honest; in sets of eight the like takes some 20 minutes.
const WAYS: usize = 8;

/// What a look-up compares stands together, in a cache line and a half; of the slots it reads one.
#[derive(Clone, Default, Debug)]
#[repr(C, align(64))]
struct Set {
    ids: [u64; WAYS],
    /// When each was issued, unix seconds; 0: empty.
    issued: [u32; WAYS],
    /// Nonces issued up to here (unix seconds) that are not in the slots are not believed.
    floor: u32,
    slots: [Slot; WAYS],
}

#[derive(Clone, Copy, Default, Debug)]
struct Slot {
    highest: u32,
    /// Bit n: count `highest - n` was seen.
    seen: u64,
    /// The request that used `highest`.
    print: u64,
}

impl Ledger {
    /// Room for `nonces` (rounded up to a power of two, at most 2^24), 40 bytes each.
    pub fn new(nonces: usize) -> Ledger {
        let sets = (nonces.min(1 << 24).div_ceil(WAYS)).next_power_of_two();
        Ledger { sets: vec![Set::default(); sets].into_boxed_slice() }
    }

    /// Notes that `request` (a hash of Call-ID, CSeq and the like: what a retransmission has the same) used `count`.
    pub fn enter(&mut self, nonce: Issued, count: u32, request: u64) -> Count {
        let at = nonce.id as usize & (self.sets.len() - 1);
        let set = &mut self.sets[at];
        if let Some(i) = (0..WAYS).find(|i| set.ids[*i] == nonce.id && set.issued[*i] == nonce.at) {
            return set.slots[i].enter(count, request);
        }
        if nonce.at <= set.floor {
            return Count::Replayed;
        }
        // The oldest leaves; an empty slot is older than all.
        let mut oldest = 0;
        for i in 1..WAYS {
            if set.issued[i] < set.issued[oldest] {
                oldest = i;
            }
        }
        set.floor = set.floor.max(set.issued[oldest]);
        (set.ids[oldest], set.issued[oldest]) = (nonce.id, nonce.at);
        set.slots[oldest] = Slot { highest: count, seen: 1, print: request };
        Count::New
    }
}

impl Slot {
    fn enter(&mut self, count: u32, request: u64) -> Count {
        if count > self.highest {
            self.seen = self.seen.checked_shl(count - self.highest).unwrap_or(0) | 1;
            self.highest = count;
            self.print = request;
            return Count::New;
        }
        if count == self.highest && request == self.print {
            return Count::Same;
        }
        let back = self.highest - count;
        if back >= 64 || self.seen & 1 << back != 0 {
            return Count::Replayed;
        }
        self.seen |= 1 << back;
        Count::New
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn nonce(id: u64, at: u32) -> Issued {
        Issued { id, at }
    }

    #[test]
    fn a_count_passes_once_and_its_retransmission_again() {
        let mut l = Ledger::new(64);
        assert_eq!(l.enter(nonce(1, 100), 1, 11), Count::New);
        assert_eq!(l.enter(nonce(1, 100), 1, 11), Count::Same);
        assert_eq!(l.enter(nonce(1, 100), 1, 12), Count::Replayed);
        assert_eq!(l.enter(nonce(1, 100), 2, 12), Count::New);
        assert_eq!(l.enter(nonce(1, 100), 1, 11), Count::Replayed);
    }

    #[test]
    fn counts_out_of_order_pass_within_the_window() {
        let mut l = Ledger::new(64);
        assert_eq!(l.enter(nonce(1, 100), 10, 1), Count::New);
        assert_eq!(l.enter(nonce(1, 100), 8, 2), Count::New);
        assert_eq!(l.enter(nonce(1, 100), 8, 3), Count::Replayed);
        assert_eq!(l.enter(nonce(1, 100), u32::MAX, 4), Count::New);
        assert_eq!(l.enter(nonce(1, 100), 9, 5), Count::Replayed);
    }

    #[test]
    fn a_nonce_that_was_pushed_out_is_not_believed_again() {
        let mut l = Ledger::new(WAYS);
        assert_eq!(l.enter(nonce(1, 100), 1, 1), Count::New);
        for i in 0..WAYS as u64 {
            assert_eq!(l.enter(nonce(10 + i, 200), 1, 1), Count::New);
        }
        assert_eq!(l.enter(nonce(1, 100), 1, 1), Count::Replayed);
        assert_eq!(l.enter(nonce(2, 101), 1, 1), Count::New);
    }

    proptest! {
        #[test]
        fn no_pair_of_nonce_and_count_passes_twice_for_different_requests(
            uses in proptest::collection::vec((0u64..12, 0u32..80, any::<u64>()), 1..400),
        ) {
            let mut l = Ledger::new(8);
            let mut passed = HashSet::new();
            for (id, count, print) in uses {
                if l.enter(nonce(id, 100 + id as u32), count, print) == Count::New {
                    prop_assert!(passed.insert((id, count)));
                }
            }
        }
    }
}
