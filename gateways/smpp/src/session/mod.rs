//! A session (SMPP 3.4 §2): binding, windows, sequence numbers, timers, for both roles. Bytes and time in, bytes and events
//! out; no socket, no clock.
//!
//! ```text
//!            bind_*                bind_*_resp ok                unbind
//!  Open ──────────────► Binding ─────────────────► Bound ─────────────────► Unbinding ──► Ended
//!    │                     ▲                         │  peer's unbind                       ▲
//!    └──► Outbound ────────┘                         └──────────────────────────────────────┘
//!   outbind
//! ```
//!
//! The carrier reads into [`Session::buffer`], calls [`Session::received`], sends [`Session::pending`], reports with
//! [`Session::written`], calls [`Session::elapsed`] at [`Session::deadline`], and drains [`Session::next_event`] after each of
//! these. `T` is what the user wants back with the answer to a request.

mod rules;
#[cfg(test)]
mod tests;
mod timer;
mod window;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

use crate::pdu::{
    AlertNotification, BadLength, Bind, BindKind, BindResp, CommandId, CommandStatus, Frames, Header, Outbind, Pdu,
    Request, Response,
};
pub use timer::Timer;
use timer::Timers;
use window::{Purpose, Waiting, Window};

/// Which end we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// We bind to a message centre.
    Esme,
    /// We are the message centre.
    Centre,
}

/// Bounds and times of a session (SMPP 3.4 §7.2). A duration of zero: that timer does not run.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Our requests sent and not yet answered, 1 to 1,000.
    pub window: usize,
    /// The peer's requests that we bear unanswered, 1 to 10,000; those beyond are refused at once.
    pub inbound: usize,
    /// How long one of our requests waits for its response.
    pub response: Duration,
    /// Silence of the peer after which we ask whether it is there.
    pub enquire: Duration,
    /// From the start to a successful bind.
    pub init: Duration,
    /// Without any request but enquire_link in either direction: the session is given up.
    pub inactivity: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            window: 10,
            inbound: 100,
            response: Duration::from_secs(60),
            enquire: Duration::from_secs(30),
            init: Duration::from_secs(30),
            inactivity: Duration::ZERO,
        }
    }
}

/// What the carrier's user is told.
#[derive(Debug)]
pub enum Event<T> {
    /// A peer wants to bind to us: answer with [`Session::accept`] or [`Session::refuse`].
    BindAsked {
        sequence: u32,
        bind: Bind,
    },
    /// A centre wants us to bind: go on with [`Session::bind`].
    OutbindAsked(Outbind),
    /// Our bind was accepted.
    Bound(BindResp),
    /// The peer asks something: answer with [`Session::respond`].
    Asked {
        sequence: u32,
        request: Request,
    },
    Alert(AlertNotification),
    /// Our request was answered, well or badly; also by generic_nack.
    Answered {
        token: T,
        status: CommandStatus,
        response: Response,
    },
    /// Our request was not answered in time. Whether it was done is unknown.
    Lapsed {
        token: T,
    },
    /// The session is over; nothing comes after this. Send what is pending, then close the connection.
    Ended(Ended),
}

/// Why a session is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Ended {
    #[error("the bind was refused: {0}")]
    BindRefused(CommandStatus),
    #[error("no bind in time")]
    NotBound,
    #[error("the peer unbound")]
    PeerUnbound,
    #[error("unbound")]
    Unbound,
    #[error("the peer lost the framing: {0}")]
    Framing(BadLength),
    #[error("the peer does not answer")]
    Silent,
    #[error("idle for too long")]
    Idle,
    #[error("the connection was lost")]
    Lost,
}

/// Why a request was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotSent {
    #[error("the window is full")]
    WindowFull,
    #[error("not bound for this")]
    NotBound,
    #[error("not a request for a user to send")]
    NotARequest,
}

/// What became of a request without an answer when its session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The last of it never reached the socket: the peer cannot have acted on it.
    Unsent,
    /// It may have arrived.
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    /// An outbind went its way; a bind is to come.
    Outbound,
    Binding(BindKind),
    Bound(BindKind),
    /// We asked to part; answers to earlier requests may still come.
    Unbinding(BindKind),
    Ended,
}

/// See the module.
#[derive(Debug)]
pub struct Session<T> {
    role: Role,
    limits: Limits,
    state: State,
    frames: Frames,
    output: BytesMut,
    /// Octets ever put into `output`, and taken from it.
    encoded: u64,
    written: u64,
    last_sequence: u32,
    window: Window<T>,
    /// The peer's requests that wait for our answer.
    unanswered: usize,
    timers: Timers,
    heard: Instant,
    faults: u64,
    strays: u64,
    events: VecDeque<Event<T>>,
}

impl<T> Session<T> {
    pub fn new(role: Role, limits: Limits, now: Instant) -> Session<T> {
        let mut timers = Timers::default();
        timers.set(Timer::Init, after(now, limits.init));
        Session {
            role,
            limits,
            state: State::Open,
            frames: Frames::default(),
            output: BytesMut::new(),
            encoded: 0,
            written: 0,
            last_sequence: 0,
            window: Window::default(),
            unanswered: 0,
            timers,
            heard: now,
            faults: 0,
            strays: 0,
            events: VecDeque::new(),
        }
    }

    /// Where the carrier reads into.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.frames.buffer()
    }

    /// Takes every whole frame out of the buffer.
    pub fn received(&mut self, now: Instant) {
        while self.state != State::Ended {
            match self.frames.next_frame() {
                Ok(Some(frame)) => self.frame(&frame, now),
                Ok(None) => return,
                Err(bad) => {
                    // Where the next PDU begins is unknown. Its sequence number may be, too: §4.3 lets us send 0 then.
                    self.faults += 1;
                    self.encode_response(CommandStatus::RINVCMDLEN, 0, &Response::GenericNack);
                    self.end(Ended::Framing(bad));
                }
            }
        }
    }

    /// What is to be sent.
    pub fn pending(&self) -> &[u8] {
        &self.output
    }

    /// The carrier handed this many octets of [`Session::pending`] to the system.
    pub fn written(&mut self, octets: usize) {
        self.output.advance(octets);
        self.written += octets as u64;
    }

    pub fn next_event(&mut self) -> Option<Event<T>> {
        self.events.pop_front()
    }

    /// When [`Session::elapsed`] is to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub fn elapsed(&mut self, now: Instant) {
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::Init => self.end(Ended::NotBound),
                Timer::Inactivity => self.end(Ended::Idle),
                Timer::Enquire => self.enquire(now),
                Timer::Response => self.lapse(now),
            }
        }
    }

    /// How the session is bound; `None` before and after.
    pub fn bound(&self) -> Option<BindKind> {
        match self.state {
            State::Bound(kind) => Some(kind),
            _ => None,
        }
    }

    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// How many requests may be sent now.
    pub fn room(&self) -> usize {
        match self.state {
            State::Bound(_) => self.limits.window.saturating_sub(self.window.of_users()),
            _ => 0,
        }
    }

    /// Requests of the user that wait for their answers.
    pub fn outstanding(&self) -> usize {
        self.window.of_users()
    }

    /// The peer's requests that wait for ours.
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    pub fn set_window(&mut self, window: usize) {
        self.limits.window = window;
    }

    /// How many unanswered requests of the peer are borne from now on.
    pub fn set_inbound(&mut self, inbound: usize) {
        self.limits.inbound = inbound;
    }

    /// PDUs that could not be read, and responses that nobody waited for.
    pub fn oddities(&self) -> (u64, u64) {
        (self.faults, self.strays)
    }

    /// ESME: asks to bind. Once, in a new session or after an outbind.
    pub fn bind(&mut self, bind: Bind, now: Instant) {
        if self.role == Role::Esme && matches!(self.state, State::Open | State::Outbound) {
            self.state = State::Binding(bind.kind);
            self.send(&Request::Bind(bind), Purpose::Bind, now);
        }
    }

    /// Centre: asks the ESME that we connected to for a bind.
    pub fn outbind(&mut self, outbind: Outbind) {
        if self.role == Role::Centre && self.state == State::Open {
            self.state = State::Outbound;
            let sequence = self.next_sequence();
            self.encode_request(&Request::Outbind(outbind), sequence);
        }
    }

    /// Centre: lets the ESME in that asked with [`Event::BindAsked`].
    pub fn accept(&mut self, sequence: u32, answer: BindResp, now: Instant) {
        if let (Role::Centre, State::Binding(kind)) = (self.role, self.state) {
            self.encode_response(CommandStatus::ROK, sequence, &Response::Bind(kind, answer));
            self.now_bound(kind, now);
        }
    }

    /// Centre: turns the ESME down. It may try again until the init timer runs out.
    pub fn refuse(&mut self, sequence: u32, status: CommandStatus) {
        if let (Role::Centre, State::Binding(kind)) = (self.role, self.state) {
            self.state = State::Open;
            self.encode_response(status, sequence, &Response::Bind(kind, BindResp::default()));
        }
    }

    /// Sends a request of the user's; its token comes back in one event or from [`Session::unfinished`], exactly once.
    pub fn request(&mut self, request: &Request, token: T, now: Instant) -> Result<(), (NotSent, T)> {
        let State::Bound(kind) = self.state else { return Err((NotSent::NotBound, token)) };
        if !rules::has_answer_for_user(request) {
            return Err((NotSent::NotARequest, token));
        }
        if !rules::may(self.role, kind, request.command()) {
            return Err((NotSent::NotBound, token));
        }
        if self.room() == 0 {
            return Err((NotSent::WindowFull, token));
        }
        self.active(now);
        self.send(request, Purpose::User(token), now);
        Ok(())
    }

    /// Centre: tells a bound receiver that a subscriber is there again.
    pub fn alert(&mut self, alert: AlertNotification) -> Result<(), NotSent> {
        match self.state {
            State::Bound(kind) if rules::may(self.role, kind, CommandId::ALERT_NOTIFICATION) => {
                let sequence = self.next_sequence();
                self.encode_request(&Request::AlertNotification(alert), sequence);
                Ok(())
            }
            _ => Err(NotSent::NotBound),
        }
    }

    /// Answers an [`Event::Asked`]. Each once; after the end of the session it is too late, and nothing happens.
    pub fn respond(&mut self, sequence: u32, status: CommandStatus, response: &Response) {
        if self.state != State::Ended {
            self.unanswered = self.unanswered.saturating_sub(1);
            self.encode_response(status, sequence, response);
        }
    }

    /// Parts in order. Without a bind it is simply over.
    pub fn unbind(&mut self, now: Instant) {
        match self.state {
            State::Bound(kind) => {
                self.state = State::Unbinding(kind);
                self.send(&Request::Unbind, Purpose::Unbind, now);
            }
            State::Unbinding(_) | State::Ended => {}
            State::Open | State::Outbound | State::Binding(_) => self.end(Ended::Unbound),
        }
    }

    /// The connection is gone.
    pub fn lost(&mut self) {
        self.end(Ended::Lost);
    }

    /// After the end: the requests that got no answer, in the order in which they were sent.
    pub fn unfinished(&mut self) -> impl Iterator<Item = (T, Fate)> + '_ {
        let written = self.written;
        self.window.drain().filter_map(move |w| match w.purpose {
            Purpose::User(token) => Some((token, if w.end <= written { Fate::Unknown } else { Fate::Unsent })),
            _ => None,
        })
    }

    fn frame(&mut self, frame: &Bytes, now: Instant) {
        self.heard = now;
        self.timers.set(Timer::Enquire, if self.is_bound() { after(now, self.limits.enquire) } else { None });
        // Frames are never shorter than a header.
        let Some(header) = Header::of(frame) else { return };
        match Pdu::decode(header, frame) {
            Ok(Pdu::Request(request)) => self.asked(header.sequence, request, now),
            Ok(Pdu::Response(status, response)) => self.answered(header.sequence, status, response, now),
            Err(malformed) => {
                self.faults += 1;
                if header.command.is_response() {
                    // Never an answer to an answer: two servers would nack each other for ever.
                    return;
                }
                match Response::empty(header.command) {
                    Some(response) => self.encode_response(malformed.status, header.sequence, &response),
                    // outbind and alert_notification have no response.
                    None if header.command.name().is_some() => {}
                    None => self.encode_response(malformed.status, header.sequence, &Response::GenericNack),
                }
            }
        }
    }

    fn asked(&mut self, sequence: u32, request: Request, now: Instant) {
        match (request, self.state) {
            (Request::EnquireLink, _) => {
                self.encode_response(CommandStatus::ROK, sequence, &Response::EnquireLink);
            }
            (Request::Unbind, State::Bound(_) | State::Unbinding(_)) => {
                self.encode_response(CommandStatus::ROK, sequence, &Response::Unbind);
                self.end(Ended::PeerUnbound);
            }
            (Request::Bind(bind), State::Open | State::Outbound) if self.role == Role::Centre => {
                self.state = State::Binding(bind.kind);
                self.events.push_back(Event::BindAsked { sequence, bind });
            }
            (Request::Bind(bind), State::Binding(_) | State::Bound(_)) if self.role == Role::Centre => {
                let answer = Response::Bind(bind.kind, BindResp::default());
                self.encode_response(CommandStatus::RALYBND, sequence, &answer);
            }
            (Request::Outbind(outbind), State::Open) if self.role == Role::Esme => {
                self.state = State::Outbound;
                self.events.push_back(Event::OutbindAsked(outbind));
            }
            // While unbinding, what crossed our unbind is still taken: it is the peer's right until it has read it.
            (request, State::Bound(kind) | State::Unbinding(kind))
                if rules::may(self.role.other(), kind, request.command()) =>
            {
                self.work(sequence, request, now);
            }
            (request, _) => {
                if let Some(response) = request.refusal() {
                    self.encode_response(CommandStatus::RINVBNDSTS, sequence, &response);
                }
            }
        }
    }

    /// A request that the peer may make.
    fn work(&mut self, sequence: u32, request: Request, now: Instant) {
        self.active(now);
        if let Request::AlertNotification(alert) = request {
            self.events.push_back(Event::Alert(alert));
            return;
        }
        let refused = if self.unanswered >= self.limits.inbound {
            Some(match self.role {
                Role::Centre => CommandStatus::RTHROTTLED,
                Role::Esme => CommandStatus::RX_T_APPN,
            })
        } else if self.role == Role::Centre {
            // As an ESME we overlook a centre's badly sized parameters: refused receipts would come again for ever.
            request.tlvs().and_then(|t| t.check().err()).map(|malformed| malformed.status)
        } else {
            None
        };
        match (refused, request.refusal()) {
            (Some(status), Some(response)) => self.encode_response(status, sequence, &response),
            _ => {
                self.unanswered += 1;
                self.events.push_back(Event::Asked { sequence, request });
            }
        }
    }

    fn answered(&mut self, sequence: u32, status: CommandStatus, response: Response, now: Instant) {
        let Some(waiting) = self.window.take(sequence, response.command()) else {
            self.strays += 1;
            return;
        };
        self.timers.set(Timer::Response, self.window.deadline());
        match (waiting.purpose, response) {
            (Purpose::User(token), response) => self.events.push_back(Event::Answered { token, status, response }),
            (Purpose::Bind, Response::Bind(kind, answer)) if status.is_ok() => {
                self.now_bound(kind, now);
                self.events.push_back(Event::Bound(answer));
            }
            (Purpose::Bind, _) => self.end(Ended::BindRefused(status)),
            (Purpose::Unbind, _) => self.end(Ended::Unbound),
            // Even a nack tells that somebody is there.
            (Purpose::Enquire, _) => {}
        }
    }

    fn now_bound(&mut self, kind: BindKind, now: Instant) {
        self.state = State::Bound(kind);
        self.timers.set(Timer::Init, None);
        self.timers.set(Timer::Enquire, after(now, self.limits.enquire));
        self.active(now);
    }

    fn is_bound(&self) -> bool {
        matches!(self.state, State::Bound(_))
    }

    fn active(&mut self, now: Instant) {
        self.timers.set(Timer::Inactivity, after(now, self.limits.inactivity));
    }

    fn enquire(&mut self, now: Instant) {
        if self.is_bound() {
            self.send(&Request::EnquireLink, Purpose::Enquire, now);
        }
    }

    /// The oldest requests have waited long enough.
    fn lapse(&mut self, now: Instant) {
        while let Some(waiting) = self.window.take_due(now) {
            match waiting.purpose {
                Purpose::User(token) => self.events.push_back(Event::Lapsed { token }),
                Purpose::Bind => self.end(Ended::NotBound),
                Purpose::Unbind => self.end(Ended::Unbound),
                Purpose::Enquire if self.heard < waiting.sent => self.end(Ended::Silent),
                Purpose::Enquire => self.timers.set(Timer::Enquire, after(now, self.limits.enquire)),
            }
            if self.is_ended() {
                return;
            }
        }
        self.timers.set(Timer::Response, self.window.deadline());
    }

    fn end(&mut self, why: Ended) {
        if self.state != State::Ended {
            self.state = State::Ended;
            self.timers = Timers::default();
            self.events.push_back(Event::Ended(why));
        }
    }

    fn send(&mut self, request: &Request, purpose: Purpose<T>, now: Instant) {
        let sequence = self.next_sequence();
        self.encode_request(request, sequence);
        self.window.push(Waiting {
            sequence,
            command: request.command(),
            sent: now,
            deadline: after(now, self.limits.response),
            end: self.encoded,
            purpose,
        });
        self.timers.set(Timer::Response, self.window.deadline());
    }

    fn encode_request(&mut self, request: &Request, sequence: u32) {
        let before = self.output.len();
        request.encode(sequence, &mut self.output);
        self.encoded += (self.output.len() - before) as u64;
    }

    fn encode_response(&mut self, status: CommandStatus, sequence: u32, response: &Response) {
        let before = self.output.len();
        response.encode(status, sequence, &mut self.output);
        self.encoded += (self.output.len() - before) as u64;
    }

    /// 1 to 0x7FFFFFFF, then 1 again (§3.2).
    fn next_sequence(&mut self) -> u32 {
        self.last_sequence = if self.last_sequence >= 0x7FFF_FFFF { 1 } else { self.last_sequence + 1 };
        self.last_sequence
    }
}

impl Role {
    fn other(self) -> Role {
        match self {
            Role::Esme => Role::Centre,
            Role::Centre => Role::Esme,
        }
    }
}

fn after(now: Instant, time: Duration) -> Option<Instant> {
    (!time.is_zero()).then(|| now + time)
}
