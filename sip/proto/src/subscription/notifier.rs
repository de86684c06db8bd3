//! The notifier's side (RFC 6665 §4.2).

use std::time::{Duration, Instant};

use super::EndReason;
use crate::edit;
use crate::headers::SubscriptionState;

/// How long subscriptions of a package may last, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// Shorter ones (but 0) are refused with 423. At most 3600: RFC 6665 §4.2.1.1 forbids to refuse an hour.
    pub min: u32,
    /// Longer ones are shortened.
    pub max: u32,
    /// For a SUBSCRIBE without Expires.
    pub default: u32,
}

/// Answer 423 with this Min-Expires.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("Interval Too Brief")]
pub struct TooBrief {
    pub min_expires: u32,
}

impl Grant {
    /// The Expires of the 2xx; 0 stays 0: a fetch, or the end.
    pub fn seconds(&self, requested: Option<u32>) -> Result<u32, TooBrief> {
        let min_expires = self.min.min(3600);
        match requested.unwrap_or(self.default) {
            0 => Ok(0),
            n if n < min_expires => Err(TooBrief { min_expires }),
            n => Ok(n.min(self.max.max(min_expires))),
        }
    }
}

/// One subscription at the notifier. At most one NOTIFY is under way; what changes meanwhile is told by the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notifier {
    state: State,
    sending: Sending,
    /// Least time between two NOTIFYs; ends and the answer to a SUBSCRIBE do not wait.
    pace: Duration,
    /// Longest time between two NOTIFYs while it is active.
    patience: Option<Duration>,
    last: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Pending { until: Instant },
    Active { until: Instant },
    Terminated { reason: EndReason, retry_after: Option<u32> },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sending {
    Idle,
    UnderWay,
    /// And another one is due when it is answered; `urgent`: without waiting for the pace.
    UnderWayAndMore {
        urgent: bool,
    },
    /// Due at that time: the pace, or the peer's Retry-After.
    Later {
        at: Instant,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotifierEvent {
    /// A SUBSCRIBE was answered with 2xx and this Expires; 0 ends the subscription.
    Subscribed { seconds: u32 },
    /// The watcher is allowed: pending becomes active.
    Authorised,
    /// What is watched changed.
    Changed,
    /// It changed in a way that cannot wait for the pace.
    ChangedNow,
    /// The notifier ends it.
    Ended { reason: EndReason, retry_after: Option<u32> },
    /// Our NOTIFY was answered, or timed out (408).
    Answered { status: u16, retry_after: Option<u32> },
    /// The time of [`Notifier::deadline`] has come.
    Deadline,
}

/// What to do after a step.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NotifierStep {
    /// Send a NOTIFY with [`Notifier::write_state`] and full or partial state as the package wants.
    pub notify: bool,
    /// The subscription and its usage of the dialog are over: forget it.
    pub gone: bool,
}

/// All that the [`Notifier`] of a subscription knows of which nothing is under way or due before its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Idle {
    pub active: bool,
    pub until: Instant,
    /// When the last NOTIFY went.
    pub last: Option<Instant>,
}

impl Notifier {
    /// After a 2xx to the first SUBSCRIBE; a NOTIFY goes out at once, for a fetch (0 seconds) the only one.
    pub fn start(now: Instant, seconds: u32, authorised: bool, pace: Duration) -> (Notifier, NotifierStep) {
        let until = now + Duration::from_secs(seconds.into());
        let state = match (seconds, authorised) {
            (0, _) => State::Terminated { reason: EndReason::Timeout, retry_after: None },
            (_, true) => State::Active { until },
            (_, false) => State::Pending { until },
        };
        Notifier { state, sending: Sending::Idle, pace, patience: None, last: None }.notify(now, true)
    }

    /// A subscription that another process, or an earlier life of this one, granted: `seconds` are left, and what it heard last
    /// is not known, so a NOTIFY with full state is due at `at`.
    pub fn resumed(now: Instant, seconds: u32, authorised: bool, pace: Duration, at: Instant) -> Notifier {
        let until = now + Duration::from_secs(seconds.into());
        let state = if authorised { State::Active { until } } else { State::Pending { until } };
        Notifier { state, sending: Sending::Later { at }, pace, patience: None, last: None }
    }

    /// `None`: something is under way or due, or all is over.
    pub fn idle(&self) -> Option<Idle> {
        let idle = Idle { active: self.is_active(), until: self.until()?, last: self.last };
        (self.sending == Sending::Idle && self.patience.is_none()).then_some(idle)
    }

    pub fn from_idle(idle: Idle, pace: Duration) -> Notifier {
        let Idle { active, until, last } = idle;
        let state = if active { State::Active { until } } else { State::Pending { until } };
        Notifier { state, sending: Sending::Idle, pace, patience: None, last }
    }

    pub fn step(mut self, now: Instant, event: NotifierEvent) -> (Notifier, NotifierStep) {
        if let State::Terminated { .. } = self.state {
            return self.step_terminated(now, event);
        }
        match event {
            NotifierEvent::Subscribed { seconds: 0 } => self.end(now, EndReason::Timeout, None),
            NotifierEvent::Subscribed { seconds } => {
                let fresh = now + Duration::from_secs(seconds.into());
                if let State::Pending { until } | State::Active { until } = &mut self.state {
                    *until = fresh;
                }
                // RFC 6665 §4.2.1.2: each SUBSCRIBE is answered by a NOTIFY at once.
                self.notify(now, true)
            }
            NotifierEvent::Authorised => match self.state {
                State::Pending { until } => {
                    self.state = State::Active { until };
                    self.notify(now, true)
                }
                _ => (self, NotifierStep::default()),
            },
            // A pending watcher is told nothing of the state.
            NotifierEvent::Changed => match self.state {
                State::Active { .. } => self.notify(now, false),
                _ => (self, NotifierStep::default()),
            },
            NotifierEvent::ChangedNow => match self.state {
                State::Active { .. } => self.notify(now, true),
                _ => (self, NotifierStep::default()),
            },
            NotifierEvent::Ended { reason, retry_after } => self.end(now, reason, retry_after),
            NotifierEvent::Answered { status, retry_after } => self.answered(now, status, retry_after),
            NotifierEvent::Deadline => match (self.state, self.sending) {
                (State::Pending { until } | State::Active { until }, _) if now >= until => {
                    self.end(now, EndReason::Timeout, None)
                }
                (_, Sending::Later { at }) if now >= at => {
                    self.sending = Sending::Idle;
                    self.notify(now, true)
                }
                _ if self.is_overdue(now) => self.notify(now, true),
                _ => (self, NotifierStep::default()),
            },
        }
    }

    /// Nothing but the last NOTIFY is left.
    fn step_terminated(mut self, now: Instant, event: NotifierEvent) -> (Notifier, NotifierStep) {
        match (event, self.sending) {
            (NotifierEvent::Answered { .. }, Sending::UnderWayAndMore { .. }) => {
                self.sending = Sending::Idle;
                self.notify(now, true)
            }
            (NotifierEvent::Answered { .. }, _) => (self, NotifierStep { notify: false, gone: true }),
            _ => (self, NotifierStep::default()),
        }
    }

    fn answered(mut self, now: Instant, status: u16, retry_after: Option<u32>) -> (Notifier, NotifierStep) {
        let more = match self.sending {
            Sending::UnderWay => None,
            Sending::UnderWayAndMore { urgent } => Some(urgent),
            Sending::Idle | Sending::Later { .. } => return (self, NotifierStep::default()),
        };
        self.sending = Sending::Idle;
        match (status, retry_after) {
            (200..=299, _) => match more {
                Some(urgent) => self.notify(now, urgent),
                None => (self, NotifierStep::default()),
            },
            // RFC 6665 §4.2.2; a time-out counts as 408.
            (404 | 405 | 408 | 410 | 416 | 480..=485 | 489 | 501 | 604, _) => {
                (self, NotifierStep { notify: false, gone: true })
            }
            (_, Some(seconds)) => {
                self.sending = Sending::Later { at: now + Duration::from_secs(seconds.into()) };
                (self, NotifierStep::default())
            }
            // The failure itself is no change to tell of; the next change is, and the end comes by itself.
            (_, None) => (self, NotifierStep::default()),
        }
    }

    fn end(mut self, now: Instant, reason: EndReason, retry_after: Option<u32>) -> (Notifier, NotifierStep) {
        self.state = State::Terminated { reason, retry_after };
        self.notify(now, true)
    }

    fn notify(mut self, now: Instant, urgent: bool) -> (Notifier, NotifierStep) {
        let paced = self.last.map(|last| last + self.pace).filter(|at| now < *at);
        self.sending = match (self.sending, paced) {
            (Sending::UnderWay, _) => Sending::UnderWayAndMore { urgent },
            (Sending::UnderWayAndMore { urgent: before }, _) => Sending::UnderWayAndMore { urgent: before || urgent },
            (Sending::Later { at }, _) if !urgent => Sending::Later { at },
            (Sending::Idle, Some(at)) if !urgent => Sending::Later { at },
            (Sending::Idle | Sending::Later { .. }, _) => {
                self.last = Some(now);
                self.sending = Sending::UnderWay;
                return (self, NotifierStep { notify: true, gone: false });
            }
        };
        (self, NotifierStep::default())
    }

    /// Changes the least time between two NOTIFYs, from the next one on.
    pub fn set_pace(&mut self, pace: Duration) {
        self.pace = pace;
    }

    /// Changes the longest time between two NOTIFYs, after which one goes though nothing has changed (RFC 6446 §6).
    pub fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience;
    }

    /// When a NOTIFY is due though nothing may have changed.
    fn overdue_at(&self) -> Option<Instant> {
        (self.sending == Sending::Idle && self.is_active()).then_some(())?;
        Some(self.last? + self.patience?)
    }

    /// A NOTIFY is due whether anything has changed or not.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.overdue_at().is_some_and(|at| now >= at)
    }

    /// When [`NotifierEvent::Deadline`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let until = self.until()?;
        match self.sending {
            Sending::Later { at } => Some(until.min(at)),
            _ => Some(self.overdue_at().map_or(until, |at| until.min(at))),
        }
    }

    /// When the subscription ends unless it is refreshed; `None` when it is over. What a row keeps: another node goes on with
    /// [`Notifier::start`] and the seconds that are left, which sends full state.
    pub fn until(&self) -> Option<Instant> {
        match self.state {
            State::Pending { until } | State::Active { until } => Some(until),
            State::Terminated { .. } => None,
        }
    }

    /// No state of the resource may be told while this is false (RFC 6665 §4.2.1.2).
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Active { .. })
    }

    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated { .. })
    }

    /// The value of Subscription-State.
    pub fn write_state(&self, now: Instant, out: &mut Vec<u8>) {
        match self.state {
            State::Pending { until } => SubscriptionState::write_live(true, seconds_left(now, until), out),
            State::Active { until } => SubscriptionState::write_live(false, seconds_left(now, until), out),
            State::Terminated { reason, retry_after } => {
                out.extend_from_slice(b"terminated;reason=");
                out.extend_from_slice(reason.as_str().as_bytes());
                if let Some(seconds) = retry_after {
                    out.extend_from_slice(b";retry-after=");
                    edit::number(out, seconds.into());
                }
            }
        }
    }
}

/// Rounded up, so that a subscription just granted says what was granted.
fn seconds_left(now: Instant, until: Instant) -> u32 {
    let left = until.saturating_duration_since(now);
    u32::try_from(left.as_secs() + u64::from(left.subsec_nanos() > 0)).unwrap_or(u32::MAX)
}
