//! A timer wheel: arming costs a push, disarming nothing, a tick only what is due.
//!
//! Entries are never taken out early. Whoever armed one remembers its tick, and ignores an entry that is no longer wanted
//! when it comes up.

use std::time::{Duration, Instant};

/// One tick of the wheel: a timer may be so late. The shortest of SIP's is half a second (RFC 3261 §17.1.1.1).
pub const TICK: Duration = Duration::from_millis(20);

/// Buckets: 41 s, a little more than 64*T1. What lies further away comes up at the horizon and is armed again.
const BUCKETS: usize = 2048;

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

    /// The first tick at or after that time, and after the last one that was taken out.
    pub fn tick_at(&self, at: Instant) -> u32 {
        let nanos = at.saturating_duration_since(self.start).as_nanos().min(u64::MAX as u128) as u64;
        let tick = nanos.div_ceil(TICK.as_nanos() as u64).min(u64::from(u32::MAX)) as u32;
        tick.max(self.now + 1)
    }

    /// The last tick that was taken out.
    pub fn now(&self) -> u32 {
        self.now
    }

    /// Arms an entry for a tick from [`Wheel::tick_at`].
    pub fn arm_at(&mut self, tick: u32, entry: T) {
        self.insert(tick.max(self.now + 1), entry);
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
            w.arm_at(w.tick_at(start + Duration::from_millis(ms)), ms);
        }
        let mut seen = Vec::new();
        let mut at = 0;
        while at <= 130_000 {
            let mut due = Vec::new();
            w.advance(start + Duration::from_millis(at), &mut due);
            for (_, ms) in due {
                assert!(at >= ms, "{ms} came up at {at}");
                assert!(at < ms + 2 * TICK.as_millis() as u64, "{ms} came up at {at}");
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
        w.arm_at(w.tick_at(start + Duration::from_secs(1)), 'a');
        w.arm_at(w.tick_at(start + Duration::from_secs(100)), 'b');
        let mut due = Vec::new();
        w.advance(start + Duration::from_secs(3600), &mut due);
        assert_eq!(due.iter().map(|d| d.1).collect::<Vec<_>>(), ['a', 'b']);
    }
}
