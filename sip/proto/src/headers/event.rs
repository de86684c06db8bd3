//! Event and Subscription-State (RFC 6665 §8.2).

use super::number::delta_seconds;
use super::param::{Params, is_token_text, main_and_params};
use crate::edit;

/// `Event: presence;id=7`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    /// Package with its templates: `presence`, `presence.winfo`. Case-sensitive (RFC 6665 §7.2.1).
    pub package: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> Event<'a> {
    pub fn parse(value: &'a [u8]) -> Option<Event<'a>> {
        let (package, params) = main_and_params(value)?;
        is_token_text(package).then_some(Event { package, params })
    }

    pub fn id(&self) -> Option<&'a [u8]> {
        self.params.get("id")
    }

    /// RFC 6665 §8.2.1: the same package and the same `id`, byte for byte.
    pub fn matches(&self, other: &Event<'_>) -> bool {
        self.package == other.package && self.id() == other.id()
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.package);
        out.extend_from_slice(self.params.as_bytes());
    }
}

/// The state word of Subscription-State.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Substate<'a> {
    Active,
    Pending,
    Terminated,
    /// An extension; to be read as active (RFC 6665 §4.1.3 does not say otherwise).
    Other(&'a [u8]),
}

/// `Subscription-State: active;expires=3600`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscriptionState<'a> {
    pub state: Substate<'a>,
    pub params: Params<'a>,
}

impl<'a> SubscriptionState<'a> {
    pub fn parse(value: &'a [u8]) -> Option<SubscriptionState<'a>> {
        let (word, params) = main_and_params(value)?;
        let state = match () {
            () if word.eq_ignore_ascii_case(b"active") => Substate::Active,
            () if word.eq_ignore_ascii_case(b"pending") => Substate::Pending,
            () if word.eq_ignore_ascii_case(b"terminated") => Substate::Terminated,
            () if is_token_text(word) => Substate::Other(word),
            () => return None,
        };
        Some(SubscriptionState { state, params })
    }

    /// Seconds left.
    pub fn expires(&self) -> Option<u32> {
        self.params.get("expires").and_then(delta_seconds)
    }

    /// `deactivated`, `probation`, `rejected`, `timeout`, `giveup`, `noresource`, `invariant` or another.
    pub fn reason(&self) -> Option<&'a [u8]> {
        self.params.get("reason")
    }

    /// Seconds to wait before subscribing again.
    pub fn retry_after(&self) -> Option<u32> {
        self.params.get("retry-after").and_then(delta_seconds)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self.state {
            Substate::Active => b"active",
            Substate::Pending => b"pending",
            Substate::Terminated => b"terminated",
            Substate::Other(word) => word,
        });
        out.extend_from_slice(self.params.as_bytes());
    }

    /// Appends `active;expires=…` or `pending;expires=…`.
    pub fn write_live(pending: bool, seconds: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(if pending { b"pending;expires=" } else { b"active;expires=" });
        edit::number(out, u64::from(seconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_match_by_package_and_id() {
        let e = Event::parse(b"presence.winfo ; id=7 ;x").unwrap();
        assert_eq!((e.package, e.id()), (&b"presence.winfo"[..], Some(&b"7"[..])));
        assert!(e.matches(&Event::parse(b"presence.winfo;id=7").unwrap()));
        assert!(!e.matches(&Event::parse(b"presence.winfo").unwrap()));
        assert_eq!(Event::parse(b";id=7"), None);
        let mut out = Vec::new();
        e.write(&mut out);
        assert!(Event::parse(&out).unwrap().matches(&e));
    }

    #[test]
    fn states_and_their_parameters() {
        let s = SubscriptionState::parse(b"Terminated;reason=probation;retry-after=30").unwrap();
        assert_eq!((s.state, s.reason(), s.retry_after()), (Substate::Terminated, Some(&b"probation"[..]), Some(30)));
        let s = SubscriptionState::parse(b"waiting;expires=5").unwrap();
        assert_eq!((s.state, s.expires()), (Substate::Other(b"waiting"), Some(5)));
        assert_eq!(SubscriptionState::parse(b""), None);
        let mut out = Vec::new();
        SubscriptionState::write_live(true, 60, &mut out);
        let s = SubscriptionState::parse(&out).unwrap();
        assert_eq!((s.state, s.expires()), (Substate::Pending, Some(60)));
        let mut again = Vec::new();
        s.write(&mut again);
        assert_eq!(again, out);
    }
}
