//! How long to wait before the next attempt to connect.

use std::time::Duration;

use rand::Rng;

/// Doubles from `shortest` to `longest`, each pause drawn from its upper half, so that many servers that lost one centre do
/// not come back as one.
#[derive(Debug)]
pub(crate) struct Backoff {
    shortest: Duration,
    longest: Duration,
    last: Duration,
    next: Duration,
}

/// A bind that lasted so long was a good one, however long the pauses had become.
const GOOD: Duration = Duration::from_secs(5);

impl Backoff {
    pub(crate) fn new(shortest: Duration, longest: Duration) -> Backoff {
        Backoff { shortest, longest, last: shortest, next: shortest }
    }

    pub(crate) fn pause(&mut self) -> Duration {
        self.last = self.next;
        self.next = (self.next * 2).min(self.longest);
        self.last.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// The last bind lasted so long; zero without one. A centre that lets in and drops at once is not to be hurried.
    pub(crate) fn bound_for(&mut self, time: Duration) {
        if time >= self.last.min(GOOD) {
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
        // Refused, unreachable, or let in and dropped.
        backoff.bound_for(Duration::ZERO);
        backoff.bound_for(Duration::from_secs(3));
        assert!(backoff.pause() >= Duration::from_secs(2));
        backoff.bound_for(Duration::from_secs(4));
        assert!(backoff.pause() <= Duration::from_secs(1));
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        (0..8).for_each(|_| _ = backoff.pause());
        backoff.bound_for(GOOD);
        assert!(backoff.pause() <= Duration::from_secs(1));
    }
}
