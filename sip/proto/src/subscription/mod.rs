//! Subscriptions (RFC 6665): the [`Notifier`]'s and the [`Subscriber`]'s machine, one value each per subscription.
//!
//! The machines say when a SUBSCRIBE or NOTIFY is due and when all is over; the dialog ([`crate::dialog`]) writes it and the
//! event package fills it. `step` consumes a state and gives the next.

mod notifier;
mod rates;
mod subscriber;

pub use notifier::{Grant, Idle, Notifier, NotifierEvent, NotifierStep, TooBrief};
pub use rates::Rates;
pub use subscriber::{Resubscribe, Subscriber, SubscriberEvent, SubscriberStep};

/// The answer to a SUBSCRIBE for a package that is not served here (RFC 6665 §4.2.1.1), with Allow-Events.
pub const BAD_EVENT: u16 = 489;

/// Why a subscription ended (RFC 6665 §4.1.3): the `reason` of Subscription-State.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndReason {
    /// Subscribe again at once: the notifier moves it.
    Deactivated,
    /// Subscribe again later.
    Probation,
    /// Not allowed any more: do not subscribe again.
    Rejected,
    /// Not refreshed in time: subscribe again if wanted.
    Timeout,
    /// The notifier could not find out about authorization in time: subscribe again later.
    GiveUp,
    /// What was watched is gone: do not subscribe again.
    NoResource,
    /// It will never change again: do not subscribe again.
    Invariant,
}

impl EndReason {
    const ALL: [EndReason; 7] = [
        EndReason::Deactivated,
        EndReason::Probation,
        EndReason::Rejected,
        EndReason::Timeout,
        EndReason::GiveUp,
        EndReason::NoResource,
        EndReason::Invariant,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::Deactivated => "deactivated",
            EndReason::Probation => "probation",
            EndReason::Rejected => "rejected",
            EndReason::Timeout => "timeout",
            EndReason::GiveUp => "giveup",
            EndReason::NoResource => "noresource",
            EndReason::Invariant => "invariant",
        }
    }

    pub fn from_token(token: &[u8]) -> Option<EndReason> {
        EndReason::ALL.into_iter().find(|r| r.as_str().as_bytes().eq_ignore_ascii_case(token))
    }
}

#[cfg(test)]
mod tests;
