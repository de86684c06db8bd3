//! REFER (RFC 3515) and its implicit subscription, which RFC 4488 lets both ends do without.
//!
//! [`Order::read`] is the receiver's look at a REFER; [`Referral`] tells the sender how the referred-to request fares.
//! [`sipfrag_status`] is the sender's look at what it is told.

use std::time::{Duration, Instant};

use crate::build::reason_phrase;
use crate::edit::{self, number};
use crate::headers::{ReferTo, has_token};
use crate::message::{Message, decimal};
use crate::name::HeaderName;
use crate::subscription::{EndReason, Notifier, NotifierEvent, NotifierStep};

/// The media type of a NOTIFY's body (RFC 3420).
pub const SIPFRAG: &[u8] = b"message/sipfrag;version=2.0";

/// Octets of a reason phrase that are told or read.
const MAX_REASON: usize = 128;

/// What a REFER asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order<'a> {
    pub refer_to: ReferTo<'a>,
    /// The CSeq number: the id of the subscription (RFC 3515 §2.4.6).
    pub id: u32,
    /// The sender wants to hear how it went.
    pub subscription: bool,
}

/// Answer 400: not exactly one Refer-To that can be read (RFC 3515 §2.4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("Missing Or Malformed Refer-To")]
pub struct NoOrder;

impl<'a> Order<'a> {
    pub fn read(refer: &Message<'a>) -> Result<Order<'a>, NoOrder> {
        let mut values = refer.list(HeaderName::ReferTo);
        let refer_to = values.next().and_then(ReferTo::parse).filter(|r| r.0.uri().is_some()).ok_or(NoOrder)?;
        if values.next().is_some() {
            return Err(NoOrder);
        }
        let id = refer.cseq().ok_or(NoOrder)?.number;
        // Whether `norefersub` stands in Supported does not matter: the header alone asks (RFC 4488 §4).
        let unwanted = refer.value(HeaderName::ReferSub).is_some_and(|v| {
            v.split(|b| *b == b';').next().is_some_and(|w| w.trim_ascii().eq_ignore_ascii_case(b"false"))
        });
        Ok(Order { refer_to, id, subscription: !unwanted })
    }
}

/// The sender's side: whether the 2xx to our REFER made a subscription (RFC 4488 §4).
pub fn makes_subscription(refer: &Message<'_>, accepted: &Message<'_>) -> bool {
    let says_false = |m: &Message<'_>| {
        m.value(HeaderName::ReferSub).is_some_and(|v| v.get(..5).is_some_and(|w| w.eq_ignore_ascii_case(b"false")))
    };
    !(says_false(refer) && says_false(accepted))
}

/// Whether a peer says that it knows how to do without the subscription.
pub fn knows_norefersub(message: &Message<'_>) -> bool {
    has_token(message, HeaderName::Supported, "norefersub")
}

/// The implicit subscription at the receiver of a REFER: a [`Notifier`] whose state is the last status heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Referral {
    notifier: Notifier,
    id: u32,
    status: u16,
    reason: Box<[u8]>,
}

impl Referral {
    /// After a 202 or 200 to a REFER that wants a subscription: the first NOTIFY goes out at once, with 100 Trying.
    /// `seconds`: how long the referred-to request may take at most.
    pub fn start(now: Instant, order: &Order<'_>, seconds: u32) -> (Referral, NotifierStep) {
        let (notifier, step) = Notifier::start(now, seconds.max(1), true, Duration::ZERO);
        (Referral { notifier, id: order.id, status: 100, reason: reason_phrase(100).as_bytes().into() }, step)
    }

    /// A response to the referred-to request: provisional ones are told as they come, a final one ends the subscription
    /// (RFC 3515 §2.4.7). An empty `reason` stands for the usual phrase.
    pub fn progress(mut self, now: Instant, status: u16, reason: &[u8]) -> (Referral, NotifierStep) {
        if self.notifier.is_terminated() {
            return (self, NotifierStep::default());
        }
        let reason = if reason.is_empty() { reason_phrase(status).as_bytes() } else { reason };
        self.status = status;
        self.reason = reason[..reason.len().min(MAX_REASON)].into();
        let event = match status {
            ..=199 => NotifierEvent::Changed,
            _ => NotifierEvent::Ended { reason: EndReason::NoResource, retry_after: None },
        };
        self.step(now, event)
    }

    /// Everything else that happens to a subscription: refreshes, answers to NOTIFYs, deadlines.
    pub fn step(self, now: Instant, event: NotifierEvent) -> (Referral, NotifierStep) {
        let (notifier, step) = self.notifier.step(now, event);
        (Referral { notifier, ..self }, step)
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.notifier.deadline()
    }

    /// The value of Event, with the id that tells several REFERs of a dialog apart.
    pub fn write_event(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"refer;id=");
        number(out, self.id.into());
    }

    /// The value of Subscription-State.
    pub fn write_state(&self, now: Instant, out: &mut Vec<u8>) {
        self.notifier.write_state(now, out);
    }

    /// The body: a status line and nothing else, since more could tell the sender what is not its business
    /// (RFC 3515 §5.2).
    pub fn write_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"SIP/2.0 ");
        number(out, self.status.into());
        out.push(b' ');
        let from = out.len();
        out.extend_from_slice(&self.reason);
        edit::scrub(&mut out[from..]);
        out.extend_from_slice(b"\r\n");
    }
}

/// Status and reason phrase of a `message/sipfrag` body; `None` if it does not begin with a status line.
pub fn sipfrag_status(body: &[u8]) -> Option<(u16, &[u8])> {
    let line = body.split(|b| *b == b'\n').next()?.trim_ascii_end();
    let rest = line.get(..8).filter(|v| v.eq_ignore_ascii_case(b"SIP/2.0 ")).map(|_| &line[8..])?;
    let (code, reason) = rest.split_at_checked(3)?;
    let status = decimal(code).filter(|n| (100..700).contains(n))? as u16;
    match reason {
        [] => Some((status, b"")),
        [b' ', phrase @ ..] => Some((status, &phrase[..phrase.len().min(MAX_REASON)])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OK: NotifierEvent = NotifierEvent::Answered { status: 200, retry_after: None };

    fn refer(lines: &str) -> Vec<u8> {
        format!("REFER sip:b SIP/2.0\r\nCSeq: 93809823 REFER\r\n{lines}\r\n").into_bytes()
    }

    fn order(bytes: &[u8]) -> Result<Order<'_>, NoOrder> {
        Order::read(&Message::parse(bytes).unwrap())
    }

    fn body(r: &Referral) -> String {
        let mut out = Vec::new();
        r.write_body(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn state(r: &Referral, now: Instant) -> String {
        let mut out = Vec::new();
        r.write_state(now, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn exactly_one_refer_to_is_an_order() {
        let good = refer("r: <sip:carol@c;method=BYE>\r\n");
        let o = order(&good).unwrap();
        assert_eq!((o.refer_to.0.addr, o.id, o.subscription), (&b"sip:carol@c;method=BYE"[..], 93809823, true));
        for bad in ["", "Refer-To: <sip:a>, <sip:b>\r\n", "Refer-To: <sip:a\r\n", "Refer-To: *\r\n"] {
            assert_eq!(order(&refer(bad)), Err(NoOrder), "{bad}");
        }
    }

    #[test]
    fn both_ends_must_agree_to_do_without_a_subscription() {
        let without = refer("Refer-To: <sip:c>\r\nRefer-Sub: false\r\nSupported: norefersub\r\n");
        assert!(!order(&without).unwrap().subscription);
        let message = Message::parse(&without).unwrap();
        assert!(knows_norefersub(&message));
        let accepted = |line: &str| {
            let bytes = format!("SIP/2.0 202 Accepted\r\n{line}\r\n").into_bytes();
            makes_subscription(&message, &Message::parse(&bytes).unwrap())
        };
        assert!(!accepted("Refer-Sub: false\r\n"));
        assert!(accepted("Refer-Sub: true\r\n"));
        assert!(accepted(""));
    }

    #[test]
    fn the_sender_is_told_of_trying_of_progress_and_of_the_end() {
        let t = Instant::now();
        let bytes = refer("Refer-To: <sip:c>\r\n");
        let (r, step) = Referral::start(t, &order(&bytes).unwrap(), 60);
        assert!(step.notify);
        assert_eq!((body(&r).as_str(), state(&r, t).as_str()), ("SIP/2.0 100 Trying\r\n", "active;expires=60"));
        let mut event = Vec::new();
        r.write_event(&mut event);
        assert_eq!(event, b"refer;id=93809823");
        let (r, _) = r.step(t, OK);
        let (r, step) = r.progress(t, 180, b"");
        assert!(step.notify);
        assert_eq!(body(&r), "SIP/2.0 180 Ringing\r\n");
        let (r, step) = r.progress(t, 486, b"Busy\r\nX: y");
        assert!(!step.notify, "one NOTIFY at a time");
        let (r, step) = r.step(t, OK);
        assert!(step.notify);
        assert_eq!(body(&r), "SIP/2.0 486 Busy  X: y\r\n");
        assert_eq!(state(&r, t), "terminated;reason=noresource");
        let (r, step) = r.progress(t, 200, b"");
        assert_eq!((step, body(&r).as_str()), (NotifierStep::default(), "SIP/2.0 486 Busy  X: y\r\n"));
        assert!(r.step(t, OK).1.gone);
    }

    #[test]
    fn a_referral_that_takes_too_long_ends() {
        let t = Instant::now();
        let bytes = refer("Refer-To: <sip:c>\r\n");
        let (r, _) = Referral::start(t, &order(&bytes).unwrap(), 60);
        let (r, _) = r.step(t, OK);
        let at = r.deadline().unwrap();
        let (r, step) = r.step(at, NotifierEvent::Deadline);
        assert!(step.notify);
        assert_eq!(state(&r, at), "terminated;reason=timeout");
    }

    #[test]
    fn a_body_begins_with_a_status_line_or_says_nothing() {
        assert_eq!(
            sipfrag_status(b"SIP/2.0 503 Service Unavailable\r\nX: y\r\n"),
            Some((503, &b"Service Unavailable"[..]))
        );
        assert_eq!(sipfrag_status(b"SIP/2.0 200"), Some((200, &b""[..])));
        for bad in
            [&b""[..], b"SIP/2.0 99 x", b"SIP/2.0 2000 x", b"INVITE sip:a SIP/2.0\r\n", b"SIP/2.0 7xx", b"SIP/2.0 "]
        {
            assert_eq!(sipfrag_status(bad), None);
        }
    }

    proptest! {
        #[test]
        fn what_one_end_tells_the_other_reads(status in 100u16..700, reason in "[ -~]{1,300}") {
            let t = Instant::now();
            let bytes = refer("Refer-To: <sip:c>\r\n");
            let (r, _) = Referral::start(t, &order(&bytes).unwrap(), 60);
            let (r, _) = r.progress(t, status, reason.as_bytes());
            let told = body(&r);
            let (said, phrase) = sipfrag_status(told.as_bytes()).unwrap();
            prop_assert_eq!(said, status);
            prop_assert_eq!(phrase, reason.as_bytes()[..reason.len().min(MAX_REASON)].trim_ascii_end());
        }
    }
}
