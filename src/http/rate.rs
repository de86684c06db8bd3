//! How often anybody may ask: token buckets.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
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
        self.0.lock().take(source(address), Instant::now())
    }

    /// Whether one more would be forgiven.
    pub fn may_try(&self, address: IpAddr) -> bool {
        self.0.lock().has(&source(address), Instant::now())
    }
}

/// Whoever has an IPv6 address has 2^64 of them.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
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

    /// Whether there is something to take.
    fn has(&self, key: &K, now: Instant) -> bool {
        self.held.get(key).is_none_or(|bucket| bucket.level(self.rate, now) >= 1.0)
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
        assert!(!buckets.has(&"a", start) && buckets.has(&"b", start) && buckets.has(&"c", start));
        let later = start + Duration::from_millis(450);
        assert!(buckets.take("a", later) && buckets.take("a", later) && !buckets.take("a", later));
    }

    #[test]
    fn a_network_of_ipv6_guesses_as_one() {
        let guesses = Guesses::default();
        for i in 0..16 {
            assert!(guesses.forgives(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, i, 0, 0, 1))));
        }
        assert!(!guesses.may_try("2001:db8::2".parse().unwrap()));
        assert!(guesses.may_try("2001:db8:0:1::2".parse().unwrap()));
    }
}
