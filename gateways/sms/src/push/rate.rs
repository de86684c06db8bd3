//! How fast each client may ask: a bucket of one second's requests, the same for whatever door they come in by.

use std::collections::HashMap;

use parking_lot::Mutex;

/// What clients have left of their rates.
#[derive(Default, Debug)]
pub struct Rates(Mutex<HashMap<Box<str>, Bucket>>);

#[derive(Debug)]
struct Bucket {
    left: f64,
    /// Unix milliseconds.
    at: i64,
}

impl Rates {
    /// Takes `count` requests of `rate` a second (0: no limit), unless nothing is left of it. What is more than a second's is owed.
    pub fn take(&self, client: &str, rate: u32, count: usize, now: i64) -> bool {
        if rate == 0 {
            return true;
        }
        let rate = f64::from(rate);
        let mut buckets = self.0.lock();
        if !buckets.contains_key(client) {
            buckets.insert(client.into(), Bucket { left: rate, at: now });
        }
        let Some(bucket) = buckets.get_mut(client) else { return true };
        bucket.left = (bucket.left + (now - bucket.at).max(0) as f64 * rate / 1_000.0).min(rate);
        bucket.at = now;
        let has = bucket.left >= 1.0;
        if has {
            bucket.left -= count as f64;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_requests_at_once_and_then_as_time_brings_them() {
        let rates = Rates::default();
        let taken = |now| (0..10).filter(|_| rates.take("a", 4, 1, now)).count();
        assert_eq!((taken(0), taken(0), taken(500), taken(60_000)), (4, 0, 2, 4));
        assert!(rates.take("b", 4, 1, 0) && rates.take("a", 0, 1_000, 60_000));
    }

    #[test]
    fn many_at_once_are_paid_off_before_the_next() {
        let rates = Rates::default();
        assert!(rates.take("a", 10, 30, 0));
        assert!(!rates.take("a", 10, 1, 2_000) && rates.take("a", 10, 1, 2_100));
    }
}
