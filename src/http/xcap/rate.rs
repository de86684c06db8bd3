//! How often anybody may ask: token buckets.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Instant;

use parking_lot::Mutex;

/// Wrong passwords of one address, a second.
const GUESSES: u32 = 2;
/// Buckets of one kind that are kept; beyond it those that are full again are forgotten.
const MAX_BUCKETS: usize = 100_000;

pub(in crate::http) struct Rates {
    users: Mutex<Buckets<Box<str>>>,
    all: Mutex<Bucket>,
    guesses: Mutex<Buckets<IpAddr>>,
    total: u32,
}

impl Rates {
    /// Requests a second of one user, and of all.
    pub fn new(each: u32, total: u32) -> Rates {
        Rates {
            users: Mutex::new(Buckets::new(each)),
            all: Mutex::new(Bucket::full(total, Instant::now())),
            guesses: Mutex::new(Buckets::new(GUESSES)),
            total,
        }
    }

    /// Counts a request of a user; nobody in particular has no name, and only the limit of all.
    pub fn admits(&self, user: &str) -> bool {
        let now = Instant::now();
        (user.is_empty() || self.users.lock().take(user.into(), now)) && self.all.lock().take(self.total, now)
    }

    /// Counts a guess.
    pub fn forgives(&self, address: IpAddr) -> bool {
        self.guesses.lock().take(address, Instant::now())
    }
}

struct Buckets<K> {
    rate: u32,
    held: HashMap<K, Bucket>,
}

impl<K: Hash + Eq> Buckets<K> {
    fn new(rate: u32) -> Buckets<K> {
        Buckets { rate, held: HashMap::new() }
    }

    fn take(&mut self, key: K, now: Instant) -> bool {
        let rate = self.rate;
        if self.held.len() >= MAX_BUCKETS && !self.held.contains_key(&key) {
            self.held.retain(|_, bucket| bucket.level(rate, now) < burst(rate));
            // All of them are busy: that is a flood, and one more is not worse.
            if self.held.len() >= MAX_BUCKETS {
                return false;
            }
        }
        self.held.entry(key).or_insert_with(|| Bucket::full(rate, now)).take(rate, now)
    }
}

struct Bucket {
    left: f64,
    at: Instant,
}

/// Tokens of a full bucket: four seconds' worth.
fn burst(rate: u32) -> f64 {
    4.0 * f64::from(rate)
}

impl Bucket {
    fn full(rate: u32, now: Instant) -> Bucket {
        Bucket { left: burst(rate), at: now }
    }

    fn level(&self, rate: u32, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + since * f64::from(rate)).min(burst(rate))
    }

    fn take(&mut self, rate: u32, now: Instant) -> bool {
        let level = self.level(rate, now);
        let there = level >= 1.0;
        (self.left, self.at) = (if there { level - 1.0 } else { level }, now);
        there
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn four_seconds_worth_at_once_and_then_the_rate() {
        let mut buckets = Buckets::new(5);
        let start = Instant::now();
        assert!((0..20).all(|_| buckets.take("a", start)));
        assert!(!buckets.take("a", start) && buckets.take("b", start));
        let later = start + Duration::from_millis(450);
        assert!(buckets.take("a", later) && buckets.take("a", later) && !buckets.take("a", later));
    }
}
