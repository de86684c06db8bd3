//! What a watcher wants of the rate of its notifications (RFC 6446): `max-rate`, `min-rate` and `adaptive-min-rate` of Event.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::headers::Event;

/// Slower than once an hour is not slower than that.
const SLOWEST: f64 = 1.0 / 3600.0;
/// Nobody is told more often than once a second what has not changed.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// The period over which the adaptive rate is an average, in notifications.
const PERIOD: f64 = 10.0;
/// NOTIFYs of one period that are remembered; more make the next unasked one no later.
const MAX_SENT: usize = 64;

/// The rates that one subscription was granted, and what the adaptive one needs to know.
#[derive(Clone, PartialEq, Debug)]
pub struct Rates {
    max: Option<f64>,
    min: Option<f64>,
    adaptive: Option<Adaptive>,
    /// Least time between two NOTIFYs, ours or the watcher's.
    pace: Duration,
}

#[derive(Clone, PartialEq, Debug)]
struct Adaptive {
    rate: f64,
    /// When the first NOTIFY went: before it, so many are taken to have gone as the rate has it (RFC 6446 §7.2).
    since: Option<Instant>,
    sent: VecDeque<Instant>,
}

impl Rates {
    /// What the value of an Event header asks for; `ours` is the least time between two NOTIFYs anyway. `None`: nothing.
    pub fn asked(event: &[u8], ours: Duration) -> Option<Rates> {
        let params = Event::parse(event)?.params;
        let rate = |name: &str| params.get(name).and_then(rate);
        let (max, min, adaptive) = (rate("max-rate"), rate("min-rate"), rate("adaptive-min-rate"));
        if max.is_none() && min.is_none() && adaptive.is_none() {
            return None;
        }
        let pace = max.map_or(ours, |rate| between(rate).max(ours));
        // RFC 6446 §8: no more often unasked than at most.
        let most = 1.0 / pace.max(LEAST_PATIENCE).as_secs_f64();
        let adaptive = adaptive.map(|rate| rate.min(most));
        let min = min.map(|rate| rate.min(most)).filter(|min| adaptive.is_none_or(|a| *min < a));
        let adaptive = adaptive.map(|rate| Adaptive { rate, since: None, sent: VecDeque::new() });
        Some(Rates { max, min, adaptive, pace })
    }

    /// The least time between two NOTIFYs.
    pub fn pace(&self) -> Duration {
        self.pace
    }

    /// The watcher must not be told more often than it asked, whatever happens.
    pub fn is_limited(&self) -> bool {
        self.max.is_some()
    }

    /// A NOTIFY goes now. Gives the time after which another one goes though nothing has changed.
    pub fn told(&mut self, now: Instant) -> Option<Duration> {
        let least = self.pace.max(LEAST_PATIENCE);
        let fixed = self.min.map(between);
        let adaptive = self.adaptive.as_mut().map(|a| a.told(now).max(least));
        fixed.into_iter().chain(adaptive).min()
    }

    /// Appends what is granted, as parameters of Subscription-State.
    pub fn write(&self, out: &mut Vec<u8>) {
        let adaptive = self.adaptive.as_ref().map(|a| a.rate);
        for (name, rate) in [("max-rate", self.max), ("min-rate", self.min), ("adaptive-min-rate", adaptive)] {
            if let Some(rate) = rate {
                // At most ten decimals, as the grammar has it.
                let text = format!("{rate:.10}");
                let text = text.trim_end_matches('0').trim_end_matches('.');
                out.extend_from_slice(format!(";{name}={text}").as_bytes());
            }
        }
    }
}

impl Adaptive {
    /// RFC 6446 §7.4, equation (1).
    fn told(&mut self, now: Instant) -> Duration {
        let period = Duration::from_secs_f64(PERIOD / self.rate);
        let since = *self.since.get_or_insert(now);
        self.sent.push_back(now);
        while self.sent.front().is_some_and(|at| now.duration_since(*at) > period) || self.sent.len() > MAX_SENT {
            self.sent.pop_front();
        }
        let before = PERIOD * (1.0 - now.duration_since(since).as_secs_f64() / period.as_secs_f64()).max(0.0);
        let count = self.sent.len() as f64 + (before - 1.0).max(0.0);
        Duration::from_secs_f64((count / (self.rate * self.rate * period.as_secs_f64())).min(1.0 / SLOWEST))
    }
}

/// RFC 6446 §9.2: a positive decimal.
fn rate(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok().filter(|t| t.len() <= 16)?;
    let sound = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let rate: f64 = Some(text).filter(|_| sound)?.parse().ok()?;
    (rate > 0.0 && rate.is_finite()).then(|| rate.max(SLOWEST))
}

fn between(rate: f64) -> Duration {
    Duration::from_secs_f64(1.0 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    fn granted(event: &str, ours: f64) -> Option<(Rates, String)> {
        let rates = Rates::asked(event.as_bytes(), secs(ours))?;
        let mut out = Vec::new();
        rates.write(&mut out);
        Some((rates, String::from_utf8(out).unwrap()))
    }

    #[test]
    fn rates_are_granted_within_bounds() {
        let (rates, text) = granted("presence;max-rate=0.05;min-rate=0.5", 5.0).unwrap();
        assert_eq!((rates.pace(), text.as_str()), (secs(20.0), ";max-rate=0.05;min-rate=0.05"));
        let (rates, text) = granted("presence;min-rate=99.9", 0.0).unwrap();
        assert_eq!((rates.pace(), text.as_str(), rates.is_limited()), (secs(0.0), ";min-rate=1", false));
        assert_eq!(granted("presence;min-rate=3;adaptive-min-rate=0.1", 0.0).unwrap().1, ";adaptive-min-rate=0.1");
        assert_eq!(granted("presence;min-rate=0.0000000001", 0.0).unwrap().1, ";min-rate=0.0002777778");
        for nothing in
            ["presence", "presence;max-rate", "presence;min-rate=0", "presence;max-rate=-1", "presence;min-rate=1e9"]
        {
            assert_eq!(Rates::asked(nothing.as_bytes(), secs(5.0)), None, "{nothing}");
        }
    }

    #[test]
    fn patience_is_the_shortest_that_was_asked_for() {
        let now = Instant::now();
        assert_eq!(granted("presence;max-rate=1", 0.0).unwrap().0.told(now), None);
        assert_eq!(granted("presence;min-rate=0.1", 0.0).unwrap().0.told(now), Some(secs(10.0)));
    }

    #[test]
    fn the_adaptive_rate_waits_longer_after_a_burst() {
        let start = Instant::now();
        let (mut rates, _) = granted("presence;adaptive-min-rate=0.1", 0.0).unwrap();
        // As often as the rate has it: its reciprocal.
        assert_eq!(rates.told(start), Some(secs(10.0)));
        let mut now = start;
        for _ in 0..20 {
            now += secs(10.0);
            let patience = rates.told(now).unwrap();
            assert!((secs(9.0)..=secs(12.0)).contains(&patience), "{patience:?}");
        }
        let burst = (0..31).filter_map(|_| rates.told(now)).last().unwrap();
        assert!(burst > secs(35.0), "{burst:?}");
        assert!(rates.told(now + secs(1000.0)).unwrap() < secs(2.0));
        assert_eq!((0..10_000).filter_map(|_| rates.told(now)).count(), 10_000);
        assert!(rates.adaptive.unwrap().sent.len() <= MAX_SENT);
    }
}
