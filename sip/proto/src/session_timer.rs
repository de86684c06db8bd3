//! Session timers (RFC 4028): what each end and a proxy may do with Session-Expires, and when to refresh or give up.
//!
//! [`Wish`] is the caller's side, [`Policy`] the called side's and the proxy's; both lead to a [`SessionTimer`] once the
//! 2xx is there.

use std::time::{Duration, Instant};

use crate::edit::Edits;
use crate::headers::{Refresher, SessionExpires, has_token, min_se};
use crate::message::Message;
use crate::name::HeaderName;

/// RFC 4028 §4: nobody may ask for less, in seconds.
pub const FLOOR: u32 = 90;

/// Answer 422 with this Min-SE.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("Session Interval Too Small")]
pub struct TooSmall {
    pub min_se: u32,
}

/// What the caller's request says, over several tries and refreshes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Seconds, at least [`FLOOR`].
    pub interval: u32,
    /// The largest Min-SE heard from a 422 or from the peer; then it must be sent (§7.4).
    pub min_se: Option<u32>,
    /// Left out at first, so that the called side may choose; kept in refreshes.
    pub refresher: Option<Refresher>,
}

impl Wish {
    pub fn new(interval: u32) -> Wish {
        Wish { interval: interval.max(FLOOR), min_se: None, refresher: None }
    }

    /// A 422 came: what to send next. `None` when it asks for nothing new, so that another try would be in vain.
    pub fn too_small(self, response: &Message<'_>) -> Option<Wish> {
        let asked = min_se(response.value(HeaderName::MinSe)?)?;
        // It may be less than what we asked for: a proxy on the way shortened that, and Min-SE keeps it from doing so.
        let new = Some(asked) > self.min_se;
        new.then_some(Wish { interval: self.interval.max(asked), min_se: Some(asked), ..self })
    }

    /// Session-Expires for the request. `Supported: timer` goes with it, and Min-SE when `min_se` is there.
    pub fn session_expires(&self) -> SessionExpires {
        let seconds = self.interval.max(self.min_se.unwrap_or(FLOOR));
        SessionExpires { seconds, refresher: self.refresher }
    }

    /// The 2xx to our request came at `now`. Without Session-Expires in it the other end knows no timers and we refresh
    /// for our own sake (§7.2).
    pub fn accepted(&self, now: Instant, response: &Message<'_>) -> SessionTimer {
        let said = response.value(HeaderName::SessionExpires).and_then(SessionExpires::parse);
        let agreed = said.unwrap_or(SessionExpires { refresher: Some(Refresher::Uac), ..self.session_expires() });
        SessionTimer::new(now, agreed.seconds, agreed.refresher != Some(Refresher::Uas))
    }
}

/// What a called side or a proxy wants, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// At least [`FLOOR`].
    pub min: u32,
    /// The longest interval; `None`: no timer of our own accord.
    pub interval: Option<u32>,
    /// Who shall refresh when we may choose.
    pub refresher: Refresher,
}

/// What the called side's 2xx says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    pub session_expires: SessionExpires,
    /// Write `Require: timer` (§9).
    pub require: bool,
}

/// What a request says of session timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Asked {
    supported: bool,
    expires: Option<SessionExpires>,
    /// At least [`FLOOR`].
    min_se: u32,
}

impl Asked {
    fn of(request: &Message<'_>) -> Asked {
        Asked {
            supported: has_token(request, HeaderName::Supported, "timer"),
            expires: request.value(HeaderName::SessionExpires).and_then(SessionExpires::parse),
            min_se: request.value(HeaderName::MinSe).and_then(min_se).unwrap_or(FLOOR),
        }
    }
}

impl Policy {
    /// The called side's answer to a session refresh request (INVITE or UPDATE); `None`: no timer (§9, table 2).
    pub fn answer(&self, request: &Message<'_>) -> Result<Option<Agreed>, TooSmall> {
        let asked = Asked::of(request);
        let min = self.min.max(FLOOR);
        let seconds = match (asked.expires, self.interval) {
            (None, None) => return Ok(None),
            (None, Some(ours)) => ours.max(asked.min_se).max(min),
            (Some(theirs), _) if theirs.seconds < min && asked.supported => return Err(TooSmall { min_se: min }),
            // Never more than asked for, never less than Min-SE.
            (Some(theirs), Some(ours)) => ours.max(asked.min_se).max(min).min(theirs.seconds),
            (Some(theirs), None) => theirs.seconds,
        };
        // A caller that does not know timers cannot refresh.
        let refresher = match asked.expires.and_then(|e| e.refresher) {
            _ if !asked.supported => Refresher::Uas,
            Some(theirs) => theirs,
            None => self.refresher,
        };
        let session_expires = SessionExpires { seconds: seconds.max(FLOOR), refresher: Some(refresher) };
        Ok(Some(Agreed { session_expires, require: asked.supported }))
    }

    /// A proxy forwards a session refresh request (§8.1): changes it as the policy wants and remembers what the response
    /// will need. `None`: no timer is asked for.
    pub fn forward(&self, request: &Message<'_>, edits: &mut Edits) -> Result<Option<Requested>, TooSmall> {
        let asked = Asked::of(request);
        let min = self.min.max(FLOOR);
        let Some(theirs) = asked.expires else {
            let Some(ours) = self.interval else { return Ok(None) };
            let seconds = ours.max(asked.min_se).max(min);
            let wanted = SessionExpires { seconds, refresher: None };
            edits.insert_header(request.headers_end(), HeaderName::SessionExpires, |v| wanted.write(v));
            return Ok(Some(Requested { seconds, uac_supports: asked.supported }));
        };
        let mut seconds = theirs.seconds;
        if seconds < min {
            if asked.supported {
                return Err(TooSmall { min_se: min });
            }
            // A 422 would fail the call: raise both instead.
            seconds = min.max(asked.min_se);
            match request.line(HeaderName::MinSe) {
                Some(line) => edits.replace(line.value(), |v| crate::edit::number(v, seconds.into())),
                None => edits.insert_header(request.headers_end(), HeaderName::MinSe, |v| {
                    crate::edit::number(v, seconds.into())
                }),
            }
        } else if let Some(ours) = self.interval {
            seconds = seconds.min(ours.max(asked.min_se).max(min));
        }
        seconds = seconds.max(asked.min_se);
        if seconds != theirs.seconds
            && let Some(line) = request.line(HeaderName::SessionExpires)
        {
            edits.replace(line.value(), |v| SessionExpires { seconds, ..theirs }.write(v));
        }
        Ok(Some(Requested { seconds, uac_supports: asked.supported }))
    }
}

/// What a proxy remembers from request to response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Requested {
    seconds: u32,
    uac_supports: bool,
}

impl Requested {
    /// The proxy forwards a 2xx (§8.2). Gives the session interval in seconds, if there is one.
    pub fn forward(&self, response: &Message<'_>, edits: &mut Edits) -> Option<u32> {
        if let Some(said) = response.value(HeaderName::SessionExpires) {
            return SessionExpires::parse(said).map(|e| e.seconds);
        }
        if !self.uac_supports {
            return None;
        }
        let ours = SessionExpires { seconds: self.seconds, refresher: Some(Refresher::Uac) };
        edits.insert_header(response.headers_end(), HeaderName::SessionExpires, |v| ours.write(v));
        if !has_token(response, HeaderName::Require, "timer") {
            edits.insert_header(response.headers_end(), HeaderName::Require, |v| v.extend_from_slice(b"timer"));
        }
        Some(self.seconds)
    }
}

/// The running timer of one dialog at one end. A new 2xx to a re-INVITE or UPDATE makes a new one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionTimer {
    started: Instant,
    interval: u32,
    /// We refresh.
    ours: bool,
    refreshing: bool,
}

/// What the time asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionDue {
    Nothing,
    /// Send an UPDATE without an offer, or a re-INVITE, with [`SessionTimer::wish`].
    Refresh,
    /// Send BYE (§10).
    Expired,
}

impl SessionTimer {
    /// `interval` in seconds, counted as [`FLOOR`] when less; `ours`: this end refreshes.
    pub fn new(started: Instant, interval: u32, ours: bool) -> SessionTimer {
        SessionTimer { started, interval: interval.max(FLOOR), ours, refreshing: false }
    }

    /// The called side's timer, from the moment its 2xx is sent.
    pub fn of_uas(now: Instant, agreed: &Agreed) -> SessionTimer {
        let expires = agreed.session_expires;
        SessionTimer::new(now, expires.seconds, expires.refresher == Some(Refresher::Uas))
    }

    /// Seconds.
    pub fn interval(&self) -> u32 {
        self.interval
    }

    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// What our next session refresh request says: the same interval, the roles kept (§7.4). `min_se` is the largest one
    /// heard in this dialog.
    pub fn wish(&self, min_se: Option<u32>) -> Wish {
        let refresher = if self.ours { Refresher::Uac } else { Refresher::Uas };
        Wish { interval: self.interval.max(min_se.unwrap_or(FLOOR)), min_se, refresher: Some(refresher) }
    }

    /// When [`SessionTimer::due`] will say something.
    pub fn deadline(&self) -> Instant {
        if self.ours && !self.refreshing { self.refresh_at() } else { self.expires_at() }
    }

    pub fn due(&mut self, now: Instant) -> SessionDue {
        if now >= self.expires_at() {
            return SessionDue::Expired;
        }
        if self.ours && !self.refreshing && now >= self.refresh_at() {
            self.refreshing = true;
            return SessionDue::Refresh;
        }
        SessionDue::Nothing
    }

    /// Half time (§7.2).
    fn refresh_at(&self) -> Instant {
        self.started + Duration::from_secs(self.interval.into()) / 2
    }

    /// The lesser of 32 seconds and a third of the interval before the end (§10).
    fn expires_at(&self) -> Instant {
        let early = 32.min(self.interval / 3);
        self.started + Duration::from_secs((self.interval - early).into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy { min: 120, interval: Some(1800), refresher: Refresher::Uac };

    fn request(lines: &str) -> Vec<u8> {
        format!("INVITE sip:b SIP/2.0\r\n{lines}Call-ID: c\r\n\r\n").into_bytes()
    }

    fn response(status: u16, lines: &str) -> Vec<u8> {
        format!("SIP/2.0 {status} X\r\nCSeq: 1 INVITE\r\n{lines}\r\n").into_bytes()
    }

    fn parse(bytes: &[u8]) -> Message<'_> {
        Message::parse(bytes).unwrap()
    }

    fn answer(policy: Policy, lines: &str) -> Result<Option<(u32, Refresher, bool)>, u32> {
        let bytes = request(lines);
        match policy.answer(&parse(&bytes)) {
            Ok(agreed) => {
                Ok(agreed.map(|a| (a.session_expires.seconds, a.session_expires.refresher.unwrap(), a.require)))
            }
            Err(e) => Err(e.min_se),
        }
    }

    /// Table 2 of RFC 4028.
    #[test]
    fn the_called_side_chooses_the_refresher_as_the_table_says() {
        for (lines, refresher, require) in [
            ("Session-Expires: 600\r\n", Refresher::Uas, false),
            ("Session-Expires: 600\r\nSupported: timer\r\n", Refresher::Uac, true),
            ("Session-Expires: 600;refresher=uac\r\nSupported: 100rel, timer\r\n", Refresher::Uac, true),
            ("x: 600;refresher=uas\r\nk: timer\r\n", Refresher::Uas, true),
        ] {
            assert_eq!(answer(POLICY, lines), Ok(Some((600, refresher, require))), "{lines}");
        }
    }

    #[test]
    fn the_interval_is_never_raised_nor_taken_below_min_se() {
        assert_eq!(answer(POLICY, "Session-Expires: 7200\r\nk: timer\r\n").unwrap().unwrap().0, 1800);
        let long = "Session-Expires: 7200\r\nMin-SE: 3600\r\nk: timer\r\n";
        assert_eq!(answer(POLICY, long).unwrap().unwrap().0, 3600);
        assert_eq!(answer(POLICY, "k: timer\r\n").unwrap().unwrap().0, 1800);
        assert_eq!(answer(Policy { interval: None, ..POLICY }, "k: timer\r\n"), Ok(None));
    }

    #[test]
    fn a_small_interval_is_refused_only_to_those_who_know_timers() {
        assert_eq!(answer(POLICY, "Session-Expires: 119\r\nk: timer\r\n"), Err(120));
        assert!(answer(POLICY, "Session-Expires: 119\r\n").is_ok());
    }

    #[test]
    fn a_caller_raises_its_wish_after_422_and_tells_the_largest_min_se() {
        let wish = Wish::new(60);
        assert_eq!(wish.session_expires().seconds, 90);
        let bytes = response(422, "Min-SE: 300\r\n");
        let wish = wish.too_small(&parse(&bytes)).unwrap();
        assert_eq!((wish.session_expires().seconds, wish.min_se), (300, Some(300)));
        assert_eq!(wish.too_small(&parse(&bytes)), None);
        assert_eq!(wish.too_small(&parse(&response(422, ""))), None);
    }

    #[test]
    fn the_refresher_refreshes_at_half_time_and_both_give_up_before_the_end() {
        let t = Instant::now();
        let s = Duration::from_secs;
        let bytes = response(200, "Session-Expires: 1800;refresher=uac\r\n");
        let mut ours = Wish::new(1800).accepted(t, &parse(&bytes));
        assert_eq!((ours.is_ours(), ours.deadline()), (true, t + s(900)));
        assert_eq!(ours.due(t + s(899)), SessionDue::Nothing);
        assert_eq!(ours.due(t + s(900)), SessionDue::Refresh);
        assert_eq!((ours.due(t + s(901)), ours.deadline()), (SessionDue::Nothing, t + s(1768)));
        assert_eq!(ours.due(t + s(1768)), SessionDue::Expired);
        let mut theirs = SessionTimer::new(t, 90, false);
        assert_eq!((theirs.due(t + s(59)), theirs.due(t + s(60))), (SessionDue::Nothing, SessionDue::Expired));
    }

    #[test]
    fn without_an_answer_on_timers_the_caller_refreshes_for_itself() {
        let bytes = response(200, "");
        let timer = Wish::new(600).accepted(Instant::now(), &parse(&bytes));
        assert_eq!((timer.is_ours(), timer.interval()), (true, 600));
        assert_eq!(
            timer.wish(Some(900)).session_expires(),
            SessionExpires { seconds: 900, refresher: Some(Refresher::Uac) }
        );
    }

    fn forward(policy: Policy, lines: &str) -> Result<(Option<Requested>, String), u32> {
        let bytes = request(lines);
        let mut edits = Edits::new();
        let requested = policy.forward(&parse(&bytes), &mut edits).map_err(|e| e.min_se)?;
        let mut out = Vec::new();
        edits.apply(&bytes, &mut out);
        Ok((requested, String::from_utf8(out).unwrap()))
    }

    #[test]
    fn a_proxy_inserts_reduces_and_refuses() {
        let (_, text) = forward(POLICY, "").unwrap();
        assert!(text.contains("Session-Expires: 1800\r\n"));
        let (_, text) = forward(POLICY, "Session-Expires: 7200;refresher=uac\r\nMin-SE: 2000\r\nk: timer\r\n").unwrap();
        assert!(text.contains("Session-Expires: 2000;refresher=uac\r\nMin-SE: 2000\r\n"));
        assert_eq!(forward(POLICY, "Session-Expires: 100\r\nk: timer\r\n").unwrap_err(), 120);
        let (requested, text) = forward(POLICY, "Session-Expires: 100\r\n").unwrap();
        assert!(text.contains("Session-Expires: 120\r\n") && text.contains("Min-SE: 120\r\n"));
        assert_eq!(requested.unwrap().seconds, 120);
        assert_eq!(forward(Policy { interval: None, ..POLICY }, "").unwrap().0, None);
    }

    #[test]
    fn a_proxy_tells_a_caller_that_knows_timers_when_the_called_side_does_not() {
        let told = |uac_supports, lines| {
            let bytes = response(200, lines);
            let mut edits = Edits::new();
            let seconds = Requested { seconds: 600, uac_supports }.forward(&parse(&bytes), &mut edits);
            let mut out = Vec::new();
            edits.apply(&bytes, &mut out);
            (seconds, String::from_utf8(out).unwrap())
        };
        let (seconds, text) = told(true, "");
        assert_eq!(seconds, Some(600));
        assert!(text.contains("Session-Expires: 600;refresher=uac\r\nRequire: timer\r\n"));
        let (seconds, text) = told(false, "");
        assert!(seconds.is_none() && !text.contains("Session-Expires"));
        assert_eq!(told(true, "Session-Expires: 300;refresher=uas\r\n").0, Some(300));
    }

    proptest! {
        /// Caller, two proxies, called side: whatever each wants, both ends come to one interval, and one of them refreshes.
        #[test]
        fn all_on_the_path_agree(wish in 0u32..4000, mins in [90u32..2000, 90u32..2000, 90u32..2000], longest in 90u32..4000) {
            let mut wish = Wish::new(wish);
            let policies = mins.map(|min| Policy { min, interval: Some(longest), refresher: Refresher::Uas });
            let t = Instant::now();
            'tries: for _ in 0..5 {
                let mut lines = String::from("Supported: timer\r\nSession-Expires: ");
                let mut value = Vec::new();
                wish.session_expires().write(&mut value);
                lines += &String::from_utf8(value).unwrap();
                lines += "\r\n";
                if let Some(min) = wish.min_se {
                    lines += &format!("Min-SE: {min}\r\n");
                }
                let mut bytes = request(&lines);
                for proxy in &policies[..2] {
                    let mut edits = Edits::new();
                    let forwarded = proxy.forward(&parse(&bytes), &mut edits);
                    if let Err(e) = forwarded {
                        wish = wish.too_small(&parse(&response(422, &format!("Min-SE: {}\r\n", e.min_se)))).unwrap();
                        continue 'tries;
                    }
                    let mut out = Vec::new();
                    edits.apply(&bytes, &mut out);
                    bytes = out;
                }
                match policies[2].answer(&parse(&bytes)) {
                    Err(e) => wish = wish.too_small(&parse(&response(422, &format!("Min-SE: {}\r\n", e.min_se)))).unwrap(),
                    Ok(agreed) => {
                        let agreed = agreed.unwrap();
                        let mut value = Vec::new();
                        agreed.session_expires.write(&mut value);
                        let ok = response(200, &format!("Session-Expires: {}\r\n", String::from_utf8(value).unwrap()));
                        let (a, b) = (wish.accepted(t, &parse(&ok)), SessionTimer::of_uas(t, &agreed));
                        prop_assert_eq!(a.interval(), b.interval());
                        prop_assert!(a.is_ours() != b.is_ours());
                        // A proxy's minimum does not bind those behind it (§8.1 lets it add no Min-SE here); the called side's does.
                        prop_assert!(a.interval() >= mins[2] && a.interval() <= wish.interval);
                        return Ok(());
                    }
                }
            }
            prop_assert!(false, "no agreement after five tries");
        }
    }
}
