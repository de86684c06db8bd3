//! A timer wheel: arming costs a push, disarming nothing, a tick only what is due.
//!
//! Entries are never taken out early. Whoever armed one remembers its tick, and an entry whose tick is no longer the
//! remembered one is stale and ignored when it comes up.

use std::time::{Duration, Instant};

/// One tick of the wheel.
pub const TICK: Duration = Duration::from_millis(10);

/// Buckets: 41 s, a little more than 64*T1. What lies further away comes up at the horizon and is armed again.
const BUCKETS: usize = 4096;

/// A wheel of `T`s. Ticks count from the wheel's start.
#[derive(Debug)]
pub struct Wheel<T> {
    start: Instant,
    /// The last tick that was taken out.
    now: u32,
    buckets: Vec<Vec<(u32, T)>>,
    armed: usize,
}

impl<T: Copy> Wheel<T> {
    pub fn new(start: Instant) -> Wheel<T> {
        Wheel { start, now: 0, buckets: (0..BUCKETS).map(|_| Vec::new()).collect(), armed: 0 }
    }

    /// The first tick at or after that time.
    pub fn tick_at(&self, at: Instant) -> u32 {
        let since = at.saturating_duration_since(self.start);
        since.as_millis().div_ceil(TICK.as_millis()).min(u32::MAX as u128) as u32
    }

    /// Arms an entry and returns the tick to remember.
    pub fn arm(&mut self, at: Instant, entry: T) -> u32 {
        let tick = self.tick_at(at).max(self.now + 1);
        self.insert(tick, entry);
        tick
    }

    fn insert(&mut self, tick: u32, entry: T) {
        let place = tick.min(self.now + BUCKETS as u32 - 1);
        self.buckets[place as usize % BUCKETS].push((tick, entry));
        self.armed += 1;
    }

    /// Moves everything that is due at `now` into `due`, in order of time.
    pub fn advance(&mut self, now: Instant, due: &mut Vec<(u32, T)>) {
        let since = now.saturating_duration_since(self.start);
        let target = (since.as_millis() / TICK.as_millis()).min(u32::MAX as u128) as u32;
        if self.armed == 0 {
            self.now = self.now.max(target);
            return;
        }
        while self.now < target {
            self.now += 1;
            let place = self.now as usize % BUCKETS;
            let mut bucket = std::mem::take(&mut self.buckets[place]);
            self.armed -= bucket.len();
            for (tick, entry) in bucket.drain(..) {
                if tick <= self.now {
                    due.push((tick, entry));
                } else {
                    self.insert(tick, entry);
                }
            }
            // A bucket that once was large gives its memory back.
            bucket.shrink_to(16);
            if self.buckets[place].is_empty() {
                self.buckets[place] = bucket;
            }
        }
    }

    /// How many entries wait, stale ones included.
    pub fn len(&self) -> usize {
        self.armed
    }

    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_up_once_in_order_and_never_early() {
        let start = Instant::now();
        let mut w = Wheel::new(start);
        for ms in [5000u64, 15, 15, 120_000, 41_000] {
            w.arm(start + Duration::from_millis(ms), ms);
        }
        let mut seen = Vec::new();
        let mut at = 0;
        while at <= 130_000 {
            let mut due = Vec::new();
            w.advance(start + Duration::from_millis(at), &mut due);
            for (_, ms) in due {
                assert!(at >= ms, "{ms} came up at {at}");
                assert!(at <= ms + 20, "{ms} came up at {at}");
                seen.push(ms);
            }
            at += 10;
        }
        assert_eq!(seen, [15, 15, 5000, 41_000, 120_000]);
        assert!(w.is_empty());
    }

    #[test]
    fn a_long_sleep_brings_up_all_that_was_missed() {
        let start = Instant::now();
        let mut w = Wheel::new(start);
        w.arm(start + Duration::from_secs(1), 'a');
        w.arm(start + Duration::from_secs(100), 'b');
        let mut due = Vec::new();
        w.advance(start + Duration::from_secs(3600), &mut due);
        assert_eq!(due.iter().map(|d| d.1).collect::<Vec<_>>(), ['a', 'b']);
    }
}
