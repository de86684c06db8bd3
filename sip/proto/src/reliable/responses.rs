//! The called side (RFC 3262 §3).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::headers::RAck;
use crate::method::Method;

/// Responses that wait while one is not acknowledged; more are not taken.
const MAX_WAITING: usize = 8;

/// The reliable provisional responses to one INVITE. One is under way at a time, the others wait their turn.
#[derive(Clone, Debug)]
pub struct ReliableResponses {
    /// CSeq number of the INVITE.
    cseq: u32,
    /// RSeq of the next response to go out.
    next: u32,
    t1: Duration,
    under_way: Option<UnderWay>,
    waiting: VecDeque<Waiting>,
    /// RSeqs given up by a final response: late PRACKs for them are still answered with 200.
    left: std::ops::Range<u32>,
    finished: bool,
}

#[derive(Clone, Debug)]
struct UnderWay {
    rseq: u32,
    response: Waiting,
    interval: Duration,
    resend: Instant,
    give_up: Instant,
}

#[derive(Clone, Debug)]
struct Waiting {
    bytes: Box<[u8]>,
    has_session: bool,
}

/// The PRACK matches nothing: answer 481 (RFC 3262 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no such provisional response awaits acknowledgement")]
pub struct NotAwaited;

/// What the time asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resend<'a> {
    Nothing,
    /// Send these bytes again.
    Response(&'a [u8]),
    /// No PRACK for 64*T1: reject the INVITE with a 5xx.
    GiveUp,
}

impl ReliableResponses {
    /// `first` is the first RSeq, by chance from 1 to 2^31 - 1 (RFC 3262 §3).
    pub fn new(cseq: u32, first: u32, t1: Duration) -> ReliableResponses {
        let next = first.clamp(1, (1 << 31) - 1);
        ReliableResponses { cseq, next, t1, under_way: None, waiting: VecDeque::new(), left: 0..0, finished: false }
    }

    /// The RSeq that the next call of [`ReliableResponses::send`] will use; it must stand in that response with
    /// `Require: 100rel`. `None` when too many wait already, and after the final response.
    pub fn next_rseq(&self) -> Option<u32> {
        (!self.finished && self.waiting.len() < MAX_WAITING).then(|| self.next + self.waiting.len() as u32)
    }

    /// Takes a response (101 to 199) that was written with [`ReliableResponses::next_rseq`]. True: send it now; else it
    /// goes out when its turn comes. `has_session`: it has an offer or an answer.
    pub fn send(&mut self, now: Instant, response: &[u8], has_session: bool) -> bool {
        if self.next_rseq().is_none() {
            return false;
        }
        self.waiting.push_back(Waiting { bytes: response.into(), has_session });
        self.under_way.is_none() && self.start_next(now)
    }

    fn start_next(&mut self, now: Instant) -> bool {
        let Some(response) = self.waiting.pop_front() else { return false };
        let rseq = self.next;
        self.next += 1;
        self.under_way =
            Some(UnderWay { rseq, response, interval: self.t1, resend: now + self.t1, give_up: now + self.t1 * 64 });
        true
    }

    /// A PRACK came: answer it with 200 if `Ok`. The bytes, if any, are the next response to send.
    pub fn acknowledged(&mut self, now: Instant, rack: &RAck<'_>) -> Result<Option<&[u8]>, NotAwaited> {
        if rack.cseq.number != self.cseq || rack.cseq.method() != Method::Invite {
            return Err(NotAwaited);
        }
        if self.left.contains(&rack.response) {
            self.left = 0..0;
            return Ok(None);
        }
        if self.under_way.take_if(|u| u.rseq == rack.response).is_none() {
            return Err(NotAwaited);
        }
        self.start_next(now);
        Ok(self.under_way.as_ref().map(|u| &*u.response.bytes))
    }

    /// A 2xx must wait for the acknowledgement of a response that carries a session description (RFC 3262 §3).
    pub fn may_accept(&self) -> bool {
        let under_way = self.under_way.as_ref().map(|u| &u.response);
        !under_way.into_iter().chain(&self.waiting).any(|w| w.has_session)
    }

    /// A final response goes out: nothing is sent again, what waited is dropped, a late PRACK is still known.
    pub fn finish(&mut self) {
        self.finished = true;
        if let Some(u) = self.under_way.take() {
            self.left = u.rseq..u.rseq + 1;
        }
        self.waiting.clear();
    }

    /// When [`ReliableResponses::due`] will say something.
    pub fn deadline(&self) -> Option<Instant> {
        self.under_way.as_ref().map(|u| u.resend.min(u.give_up))
    }

    /// The interval doubles with each retransmission, without a cap (RFC 3262 §3).
    pub fn due(&mut self, now: Instant) -> Resend<'_> {
        if self.under_way.as_ref().is_some_and(|u| now >= u.give_up) {
            self.finish();
            return Resend::GiveUp;
        }
        let Some(u) = &mut self.under_way else { return Resend::Nothing };
        if now < u.resend {
            return Resend::Nothing;
        }
        u.interval *= 2;
        u.resend = now + u.interval;
        Resend::Response(&u.response.bytes)
    }
}
