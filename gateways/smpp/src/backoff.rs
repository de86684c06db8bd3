//! How long to wait before the next attempt to connect.

use std::time::Duration;

use rand::Rng;

/// Doubles from `shortest` to `longest`, each pause drawn from its upper half, so that many servers that lost one centre do
/// not come back as one.
#[derive(Debug)]
pub(crate) struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(shortest: Duration, longest: Duration) -> Backoff {
        Backoff { shortest, longest, next: shortest }
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let full = self.next;
        self.next = (self.next * 2).min(self.longest);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// The last connection lasted this long. A centre that lets in and drops at once is not to be hurried.
    pub(crate) fn lasted(&mut self, time: Duration) {
        if time > self.next {
            self.next = self.shortest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_their_bound_and_start_anew_after_a_good_time() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
        for full in [1, 2, 4, 4] {
            let pause = backoff.pause();
            assert!(pause >= Duration::from_secs(full) / 2 && pause <= Duration::from_secs(full), "{pause:?}");
        }
        backoff.lasted(Duration::from_secs(1));
        assert!(backoff.pause() >= Duration::from_secs(2));
        backoff.lasted(Duration::from_secs(60));
        assert!(backoff.pause() <= Duration::from_secs(1));
    }
}
