//! How fast a link may submit: a configured rate, and what the centre bears.

use std::time::{Duration, Instant};

/// First pause after a throttled response; doubled with each that follows, up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// A rate is kept over this span: so much of it may go at once after a pause.
const BURST: Duration = Duration::from_millis(100);

/// So many at once, when there is no rate.
const UNLIMITED: usize = 1_000;

/// Rate by the generic cell rate algorithm; congestion as TCP does it: a throttled response halves the window and pauses, each
/// windowful of good ones widens it by one.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Of one message; zero: no limit.
    interval: Duration,
    /// When the next message would be due if they came evenly.
    due: Option<Instant>,
    most: usize,
    window: usize,
    good: usize,
    pause: Duration,
    paused_until: Option<Instant>,
}

impl Pace {
    /// `rate` a second, 0: no limit; `window` at most.
    pub(crate) fn new(rate: u32, window: usize) -> Pace {
        let interval = if rate == 0 { Duration::ZERO } else { Duration::from_secs(1) / rate };
        Pace { interval, due: None, most: window, window, good: 0, pause: Duration::ZERO, paused_until: None }
    }

    /// The window that the centre bears now.
    pub(crate) fn window(&self) -> usize {
        self.window
    }

    /// How many may go now; when none may: when to ask again.
    pub(crate) fn allowance(&self, now: Instant) -> Result<usize, Instant> {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Err(until);
        }
        if self.interval.is_zero() {
            return Ok(UNLIMITED);
        }
        let due = self.due.map_or(now, |due| due.max(now));
        let slack = (now + BURST.max(self.interval)).saturating_duration_since(due);
        match (slack.as_nanos() / self.interval.as_nanos().max(1)).min(UNLIMITED as u128) as usize {
            0 => Err(due + self.interval - BURST.max(self.interval)),
            some => Ok(some),
        }
    }

    pub(crate) fn sent(&mut self, now: Instant) {
        if !self.interval.is_zero() {
            self.due = Some(self.due.map_or(now, |due| due.max(now)) + self.interval);
        }
    }

    pub(crate) fn accepted(&mut self) {
        self.pause = Duration::ZERO;
        self.good += 1;
        if self.good >= self.window {
            self.good = 0;
            self.window = (self.window + 1).min(self.most);
        }
    }

    /// Those that come during a pause were sent before it and say nothing new.
    pub(crate) fn throttled(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until > now) {
            return;
        }
        self.window = (self.window / 2).max(1);
        self.good = 0;
        self.pause = (self.pause * 2).clamp(SHORTEST, LONGEST);
        self.paused_until = Some(now + self.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_with_a_burst_of_a_tenth_of_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(100, 10);
        let mut sent = 0;
        for ms in 0..1_000 {
            let now = start + Duration::from_millis(ms);
            while pace.allowance(now).is_ok() {
                pace.sent(now);
                sent += 1;
            }
        }
        assert!((100..=110).contains(&sent), "{sent}");
    }

    #[test]
    fn a_slow_rate_lets_one_go_and_tells_when_the_next_may() {
        let now = Instant::now();
        let mut pace = Pace::new(1, 10);
        assert_eq!(pace.allowance(now), Ok(1));
        pace.sent(now);
        assert_eq!(pace.allowance(now), Err(now + Duration::from_secs(1)));
        assert_eq!(pace.allowance(now + Duration::from_secs(1)), Ok(1));
    }

    #[test]
    fn throttling_pauses_longer_each_time_and_narrows_the_window() {
        let mut now = Instant::now();
        let mut pace = Pace::new(0, 10);
        let mut windows = Vec::new();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pace.throttled(now);
            // The rest of the window comes back throttled too.
            pace.throttled(now);
            windows.push(pace.window());
            let until = pace.allowance(now).unwrap_err();
            pauses.push((until - now).as_millis());
            now = until;
        }
        assert_eq!(windows, [5, 2, 1, 1, 1, 1, 1, 1]);
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        (0..100).for_each(|_| pace.accepted());
        assert_eq!(pace.window(), 10);
        pace.throttled(now);
        assert_eq!(pace.allowance(now), Err(now + SHORTEST));
    }
}
