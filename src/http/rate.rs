//! How often anybody may ask: token buckets.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Instant;

use parking_lot::Mutex;

/// Wrong passwords of one address: so many at once, then one each ten seconds.
const GUESSES: Rate = Rate { each_second: 0.1, burst: 16.0 };
/// Buckets of one kind that are kept; beyond it those that are full again are forgotten.
const MAX_BUCKETS: usize = 100_000;

pub struct Rates {
    users: Mutex<Buckets<Box<str>>>,
    all: Mutex<Bucket>,
    total: Rate,
}

/// How often.
#[derive(Clone, Copy)]
struct Rate {
    each_second: f64,
    burst: f64,
}

impl Rate {
    /// Four seconds' worth at once.
    fn of(each_second: u32) -> Rate {
        let each_second = f64::from(each_second);
        Rate { each_second, burst: 4.0 * each_second }
    }
}

impl Rates {
    /// Requests a second of one user, and of all.
    pub fn new(each: u32, total: u32) -> Rates {
        Rates {
            users: Mutex::new(Buckets::new(Rate::of(each))),
            all: Mutex::new(Bucket::full(Rate::of(total), Instant::now())),
            total: Rate::of(total),
        }
    }

    /// Counts a request of a user; nobody in particular has no name, and only the limit of all.
    pub fn admits(&self, user: &str) -> bool {
        let now = Instant::now();
        (user.is_empty() || self.users.lock().take(user.into(), now)) && self.all.lock().take(self.total, now)
    }
}

/// Wrong passwords.
pub struct Guesses(Mutex<Buckets<IpAddr>>);

impl Default for Guesses {
    fn default() -> Guesses {
        Guesses(Mutex::new(Buckets::new(GUESSES)))
    }
}

impl Guesses {
    /// Counts a guess.
    pub fn forgives(&self, address: IpAddr) -> bool {
        self.0.lock().take(address, Instant::now())
    }
}

struct Buckets<K> {
    rate: Rate,
    held: HashMap<K, Bucket>,
}

impl<K: Hash + Eq> Buckets<K> {
    fn new(rate: Rate) -> Buckets<K> {
        Buckets { rate, held: HashMap::new() }
    }

    fn take(&mut self, key: K, now: Instant) -> bool {
        let rate = self.rate;
        if self.held.len() >= MAX_BUCKETS && !self.held.contains_key(&key) {
            self.held.retain(|_, bucket| bucket.level(rate, now) < rate.burst);
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

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Bucket {
        Bucket { left: rate.burst, at: now }
    }

    fn level(&self, rate: Rate, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + since * rate.each_second).min(rate.burst)
    }

    fn take(&mut self, rate: Rate, now: Instant) -> bool {
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
        let mut buckets = Buckets::new(Rate::of(5));
        let start = Instant::now();
        assert!((0..20).all(|_| buckets.take("a", start)));
        assert!(!buckets.take("a", start) && buckets.take("b", start));
        let later = start + Duration::from_millis(450);
        assert!(buckets.take("a", later) && buckets.take("a", later) && !buckets.take("a", later));
    }
}
