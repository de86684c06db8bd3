//! The subscriber's side (RFC 6665 §4.1).

use std::time::{Duration, Instant};

use super::EndReason;
use crate::headers::{SubscriptionState, Substate};

/// One subscription at the subscriber, in one dialog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscriber {
    state: State,
    /// Seconds to ask for.
    expires: u32,
    /// 64*T1: how long to wait for the first and the last NOTIFY (timer N).
    wait: Duration,
    /// 423s in a row; more than [`MAX_TOO_BRIEF`] is a quarrel.
    too_brief: u8,
}

const MAX_TOO_BRIEF: u8 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// SUBSCRIBE sent; neither a NOTIFY nor a failure yet.
    Waiting {
        give_up: Instant,
    },
    Running {
        pending: bool,
        until: Instant,
        refresh: Refresh,
    },
    /// SUBSCRIBE with Expires 0 sent; waiting for the last NOTIFY.
    Leaving {
        give_up: Instant,
    },
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refresh {
    At(Instant),
    UnderWay,
    /// A refresh failed; what was granted before lasts to its end (RFC 6665 §4.1.2.2).
    Failed,
}

#[derive(Clone, Copy, Debug)]
pub enum SubscriberEvent<'a> {
    /// Our SUBSCRIBE was answered (a time-out counts as 408). `expires` of a 2xx, `min_expires` of a 423.
    Answered { status: u16, expires: Option<u32>, min_expires: Option<u32>, retry_after: Option<u32> },
    /// A NOTIFY of this subscription came; it was answered with 200.
    Notified(SubscriptionState<'a>),
    /// We want no more.
    Leave,
    /// The time of [`Subscriber::deadline`] has come.
    Deadline,
}

/// When to subscribe again, in a new dialog.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resubscribe {
    Now,
    /// Not before so many seconds.
    After(u32),
    /// When one likes; it was a failure.
    Anytime,
    Never,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SubscriberStep {
    /// Send a SUBSCRIBE in this dialog with this Expires.
    pub subscribe: Option<u32>,
    /// The subscription and its usage of the dialog are over.
    pub over: Option<Resubscribe>,
}

impl Subscriber {
    /// Sends the first SUBSCRIBE. `expires` in seconds, 0 to fetch the state once. `wait` is 64*T1.
    pub fn start(now: Instant, expires: u32, wait: Duration) -> (Subscriber, SubscriberStep) {
        let state = State::Waiting { give_up: now + wait };
        (Subscriber { state, expires, wait, too_brief: 0 }, subscribe(expires))
    }

    /// A further notifier answered the same SUBSCRIBE: the machine for its dialog (RFC 6665 §4.4.1).
    pub fn forked(now: Instant, expires: u32, wait: Duration) -> Subscriber {
        Subscriber { state: State::Waiting { give_up: now + wait }, expires, wait, too_brief: 0 }
    }

    pub fn step(mut self, now: Instant, event: SubscriberEvent<'_>) -> (Subscriber, SubscriberStep) {
        match event {
            SubscriberEvent::Notified(state) => self.notified(now, &state),
            SubscriberEvent::Answered { status: 200..=299, expires, .. } => {
                self.too_brief = 0;
                if let (State::Running { until, refresh, .. }, Some(seconds)) = (&mut self.state, expires) {
                    // Never longer than asked for.
                    let seconds = seconds.min(self.expires);
                    *until = now + Duration::from_secs(seconds.into());
                    *refresh = Refresh::At(refresh_at(now, seconds));
                }
                (self, SubscriberStep::default())
            }
            SubscriberEvent::Answered { status, min_expires, retry_after, .. } => {
                self.failed(now, status, min_expires, retry_after)
            }
            SubscriberEvent::Leave => match self.state {
                State::Waiting { .. } | State::Running { .. } => {
                    self.state = State::Leaving { give_up: now + self.wait };
                    (self, subscribe(0))
                }
                State::Leaving { .. } | State::Over => (self, SubscriberStep::default()),
            },
            SubscriberEvent::Deadline => self.lapsed(now),
        }
    }

    fn notified(mut self, now: Instant, said: &SubscriptionState<'_>) -> (Subscriber, SubscriberStep) {
        if self.state == State::Over {
            return (self, SubscriberStep::default());
        }
        if said.state == Substate::Terminated {
            let left = matches!(self.state, State::Leaving { .. }) || self.expires == 0;
            let again = if left { Resubscribe::Never } else { resubscribe(said) };
            return self.over(again);
        }
        if matches!(self.state, State::Leaving { .. }) {
            return (self, SubscriberStep::default());
        }
        let pending = said.state == Substate::Pending;
        // Without `expires` what is known stays; at first what was asked for.
        match (&mut self.state, said.expires()) {
            (State::Running { pending: p, until, refresh }, Some(seconds)) => {
                *p = pending;
                let fresh = now + Duration::from_secs(seconds.into());
                // Only shortening is heard here: lengthening comes with the 2xx to a refresh.
                if fresh < *until {
                    *until = fresh;
                    if let Refresh::At(at) = refresh {
                        *at = (*at).min(refresh_at(now, seconds));
                    }
                }
            }
            (State::Running { pending: p, .. }, None) => *p = pending,
            (_, seconds) => {
                let seconds = seconds.unwrap_or(self.expires).min(self.expires);
                let until = now + Duration::from_secs(seconds.into());
                self.state = State::Running { pending, until, refresh: Refresh::At(refresh_at(now, seconds)) };
            }
        }
        (self, SubscriberStep::default())
    }

    fn failed(
        mut self,
        now: Instant,
        status: u16,
        min_expires: Option<u32>,
        retry_after: Option<u32>,
    ) -> (Subscriber, SubscriberStep) {
        if status < 200 {
            return (self, SubscriberStep::default());
        }
        let later = retry_after.map_or(Resubscribe::Anytime, Resubscribe::After);
        match (self.state, status) {
            (State::Over, _) => (self, SubscriberStep::default()),
            (State::Leaving { .. }, _) => self.over(Resubscribe::Never),
            (State::Waiting { .. } | State::Running { .. }, 423) if min_expires > Some(self.expires) => {
                self.too_brief += 1;
                if self.too_brief > MAX_TOO_BRIEF {
                    return self.over(Resubscribe::Never);
                }
                self.expires = min_expires.unwrap_or(self.expires);
                if let State::Waiting { give_up } = &mut self.state {
                    *give_up = now + self.wait;
                }
                let expires = self.expires;
                (self, subscribe(expires))
            }
            // No such package there, ever.
            (_, 489) => self.over(Resubscribe::Never),
            (State::Waiting { .. }, 403 | 603) => self.over(Resubscribe::Never),
            (State::Waiting { .. }, _) => self.over(later),
            // RFC 6665 §4.1.2.2: the notifier lost it.
            (_, 481) => self.over(Resubscribe::Now),
            (_, 404 | 405 | 410 | 416 | 480 | 482..=485 | 501 | 604) => self.over(later),
            (State::Running { pending, until, .. }, _) => {
                self.state = State::Running { pending, until, refresh: Refresh::Failed };
                (self, SubscriberStep::default())
            }
        }
    }

    fn lapsed(mut self, now: Instant) -> (Subscriber, SubscriberStep) {
        match self.state {
            State::Waiting { give_up } if now >= give_up => self.over(Resubscribe::Anytime),
            State::Leaving { give_up } if now >= give_up => self.over(Resubscribe::Never),
            State::Running { until, .. } if now >= until => self.over(Resubscribe::Now),
            State::Running { pending, until, refresh: Refresh::At(at) } if now >= at => {
                self.state = State::Running { pending, until, refresh: Refresh::UnderWay };
                let expires = self.expires;
                (self, subscribe(expires))
            }
            _ => (self, SubscriberStep::default()),
        }
    }

    fn over(mut self, again: Resubscribe) -> (Subscriber, SubscriberStep) {
        self.state = State::Over;
        (self, SubscriberStep { subscribe: None, over: Some(again) })
    }

    /// When [`SubscriberEvent::Deadline`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { give_up } | State::Leaving { give_up } => Some(give_up),
            State::Running { until, refresh: Refresh::At(at), .. } => Some(at.min(until)),
            State::Running { until, .. } => Some(until),
            State::Over => None,
        }
    }

    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Running { pending: false, .. })
    }

    pub fn is_pending(&self) -> bool {
        matches!(self.state, State::Running { pending: true, .. })
    }
}

fn subscribe(expires: u32) -> SubscriberStep {
    SubscriberStep { subscribe: Some(expires), over: None }
}

/// 600 seconds before the end, or at half time of short ones (TS 24.229 §5.1.1.3 has it so for the reg event).
fn refresh_at(now: Instant, seconds: u32) -> Instant {
    now + Duration::from_secs(if seconds > 1200 { seconds - 600 } else { seconds / 2 }.into())
}

/// RFC 6665 §4.1.3.
fn resubscribe(said: &SubscriptionState<'_>) -> Resubscribe {
    let later = said.retry_after().map_or(Resubscribe::Anytime, Resubscribe::After);
    match said.reason().and_then(EndReason::from_token) {
        Some(EndReason::Deactivated | EndReason::Timeout) => Resubscribe::Now,
        Some(EndReason::Rejected | EndReason::NoResource | EndReason::Invariant) => Resubscribe::Never,
        Some(EndReason::Probation | EndReason::GiveUp) | None => later,
    }
}
