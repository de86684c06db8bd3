//! The timers of a session, named once, in one table.

use std::time::Instant;

/// SMPP 3.4 §7.2 calls them session_init_timer, enquire_link_timer, inactivity_timer and response_timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    Init,
    Enquire,
    Inactivity,
    /// Of the oldest request without an answer.
    Response,
}

const ALL: [Timer; 4] = [Timer::Init, Timer::Enquire, Timer::Inactivity, Timer::Response];

#[derive(Debug, Default)]
pub(super) struct Timers([Option<Instant>; ALL.len()]);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Option<Instant>) {
        self.0[timer as usize] = at;
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// One that is due, which then no longer runs.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let due = ALL.into_iter().find(|t| self.0[*t as usize].is_some_and(|at| at <= now))?;
        self.0[due as usize] = None;
        Some(due)
    }
}
