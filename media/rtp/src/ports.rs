//! Which pairs of ports are free: an even one for RTP, the next for RTCP (RFC 3550 §11).

use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;

/// The free pairs of a range, by their even port.
pub(crate) struct Ports {
    free: Mutex<Vec<u16>>,
}

/// A pair that is in use; free again when dropped.
pub(crate) struct Pair {
    pub(crate) even: u16,
    from: Arc<Ports>,
}

impl Ports {
    pub(crate) fn new(range: RangeInclusive<u16>) -> Arc<Ports> {
        let (first, last) = (*range.start(), *range.end());
        let free = (first..last).filter(|port| port % 2 == 0).collect();
        Arc::new(Ports { free: Mutex::new(free) })
    }

    pub(crate) fn free(&self) -> usize {
        self.free.lock().len()
    }

    /// Any one: who knows the ports of one call knows nothing of the next.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Pair> {
        let mut free = self.free.lock();
        let last = free.len().checked_sub(1)?;
        let even = free.swap_remove(rand::rng().random_range(0..=last));
        Some(Pair { even, from: self.clone() })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.from.free.lock().push(self.even);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_taken_once_and_comes_back() {
        let ports = Ports::new(29_999..=30_006);
        let pairs: Vec<Pair> = std::iter::from_fn(|| ports.take()).collect();
        let mut even: Vec<u16> = pairs.iter().map(|p| p.even).collect();
        even.sort_unstable();
        assert_eq!(even, [30_000, 30_002, 30_004]);
        assert_eq!(ports.free(), 0);
        drop(pairs);
        assert_eq!(ports.free(), 3);
    }
}
