//! Calls whose ends are not to learn where the other is (RFC 3323 §5.2): their media go through a relay of ours, and
//! the session descriptions name nothing else (docs/decisions/0018-session-privacy.md).
//!
//! The proxy asks [`Screen::can_hide`] before such a call goes on, says [`Screen::hide`] when it does, and shows every
//! message of the dialog. Here is known which description is an offer and which its answer (RFC 3264), for each early
//! dialog of a forked INVITE, and when the call is over. The datagrams are the business of [`media_rtp::Relay`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use media_rtp::{Far, Relay, Side, Stream};
use media_sdp::hidden::{self, Place, Shown};
use media_sdp::message::is_messages;
use media_sdp::{Sdp, Section};
use parking_lot::Mutex;
use sip_ims::media::Passing;
use sip_ims::service::{Chronicle, Note, NoteEvent};
use sip_proto::{Message, Method};
use smallvec::SmallVec;

mod described;

use described::{Described, described};

/// A BYE that nobody answers ends the relay all the same.
const BYE_WAIT: Duration = Duration::from_secs(3);
/// An INVITE that came to nothing without our knowing: longer than timer C (RFC 3261 §16.6).
const ANSWER_WAIT: Duration = Duration::from_secs(240);
/// Streams of one call.
const MAX_STREAMS: usize = 8;
/// Phones of one call that are told apart: with its 2xx, in an early dialog, or with an offer of its own.
const MAX_PHONES: usize = 16;

/// What the operator allows.
#[derive(Clone, Debug)]
pub struct ScreenConfig {
    /// Calls at a time, ringing ones included.
    pub max_calls: usize,
    /// An answered call of which neither media nor a message came for so long is over.
    pub silence: Duration,
    /// The doors of messaging sessions: what is anchored there shows no address but ours already.
    pub messages: Vec<SocketAddr>,
}

/// Hides where the media of calls come from and go to.
pub struct Screen {
    config: ScreenConfig,
    relay: Relay,
    chronicle: Arc<dyn Chronicle>,
    /// By Call-ID.
    calls: Mutex<HashMap<Box<[u8]>, Call>>,
    /// How many: messages of other calls are not looked up while there are none.
    known: AtomicUsize,
}

/// By section; `None`: not in use.
type Fars = SmallVec<[Option<Far>; 2]>;

struct Call {
    /// The tag of whoever asked for it; the other side may be several phones until one has the call.
    caller: Box<[u8]>,
    /// A message of it has gone to somebody who is not to know.
    begun: bool,
    streams: Vec<Option<Stream>>,
    /// Offers that wait for their answer.
    offers: Vec<Offer>,
    /// What the phones answered last, by their tag.
    answers: Vec<(Box<[u8]>, Fars)>,
    /// An INVITE without a description: the responses to it hold offers.
    bare: Option<(Side, u32)>,
    /// Tags of the phones that have accepted; the first one has the media.
    live: Vec<Box<[u8]>>,
    /// When the last message of it came.
    life: Instant,
    ending: Option<Instant>,
}

struct Offer {
    from: Side,
    /// The tag of the phone; empty in the offer that goes to all of them.
    phone: Box<[u8]>,
    fars: Fars,
}

impl Screen {
    pub fn new(config: ScreenConfig, relay: Relay, chronicle: Arc<dyn Chronicle>) -> Screen {
        Screen { config, relay, chronicle, calls: Mutex::default(), known: AtomicUsize::new(0) }
    }

    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Calls whose media are relayed.
    pub fn calls(&self) -> usize {
        self.calls.lock().values().filter(|call| call.streams.iter().any(Option::is_some)).count()
    }

    /// Whether nothing of this request, nor of the call that it begins, would say where the media are.
    pub fn can_hide(&self, message: &Message<'_>) -> bool {
        let calls = self.calls.lock();
        let known = message.call_id().and_then(|id| calls.get(id));
        if known.is_some_and(|call| call.sender(message).is_none()) {
            // Another call by the same Call-ID.
            return false;
        }
        if !describes(message.method()) {
            return known.is_some();
        }
        if known.is_none() && calls.len() >= self.config.max_calls {
            return false;
        }
        let sdp = match described(message) {
            Described::Not => return true,
            Described::Somehow => return false,
            Described::As(text) => text,
        };
        let Ok(sdp) = Sdp::parse(sdp) else { return false };
        let used = sdp.media().iter().enumerate().filter(|(_, section)| section.line.port != 0);
        let mut wanted = 0;
        for (index, section) in used {
            if is_messages(section) && !self.config.messages.is_empty() {
                continue;
            }
            if index >= MAX_STREAMS || !self.relays(&sdp, section) {
                return false;
            }
            wanted += usize::from(known.is_none_or(|call| call.stream(index).is_none()));
        }
        self.relay.has_room(wanted)
    }

    /// From this request on the call is one of ours. To be called when [`Screen::can_hide`] said so, and it goes on.
    pub fn hide(&self, message: &Message<'_>) {
        let begins = message.method() == Method::Invite || describes(message.method()) && !message.body().is_empty();
        let (Some(id), Some(caller)) = (message.call_id(), message.from_tag()) else { return };
        if !begins {
            return;
        }
        let mut calls = self.calls.lock();
        calls.entry(id.into()).or_insert_with(|| Call {
            caller: caller.into(),
            begun: false,
            streams: Vec::new(),
            offers: Vec::new(),
            answers: Vec::new(),
            bare: None,
            live: message.to_tag().map(Box::from).into_iter().collect(),
            life: Instant::now(),
            ending: None,
        });
        self.known.store(calls.len(), Relaxed);
    }

    /// Whether the call of this message is one of ours.
    pub fn hides(&self, message: &Message<'_>) -> bool {
        self.on(message, |_, call, _| call.begun).unwrap_or(false)
    }

    /// A request of a call leaves.
    pub fn request(&self, message: &Message<'_>) -> Passing {
        let method = message.method();
        let passing = self.on(message, |id, call, sender| {
            let phone = call.phone(message, sender);
            match method {
                Method::Bye => {
                    if call.live.iter().all(|live| **live == *phone) {
                        call.ending = call.ending.or(Some(call.life));
                    }
                    return Passing::AsItIs;
                }
                Method::Invite if message.body().is_empty() => {
                    call.begun = true;
                    call.bare = message.cseq().map(|c| (sender, c.number));
                    return Passing::AsItIs;
                }
                Method::Invite | Method::Update | Method::Prack => call.begun = true,
                Method::Ack if call.begun => {}
                _ => return Passing::AsItIs,
            }
            let answers = match method {
                Method::Ack => true,
                Method::Prack => call.offers.iter().any(|o| o.from == sender.other() && o.phone == phone),
                _ => false,
            };
            self.describe(id, call, message, sender, &phone, answers)
        });
        passing.unwrap_or(Passing::AsItIs)
    }

    /// A response to such a request goes back.
    pub fn response(&self, message: &Message<'_>) -> Passing {
        if self.is_idle() {
            return Passing::AsItIs;
        }
        let (status, Some(cseq)) = (message.status(), message.cseq()) else { return Passing::AsItIs };
        let method = Method::from_bytes(cseq.token);
        if method == Method::Bye && status >= 200 && !matches!(status, 401 | 407) {
            self.ended(message);
            return Passing::AsItIs;
        }
        if status >= 300 {
            self.failed(message);
            return Passing::AsItIs;
        }
        if !describes(method) || status == 100 {
            return Passing::AsItIs;
        }
        let passing = self.on(message, |id, call, asked| {
            if !call.begun {
                return Passing::AsItIs;
            }
            let phone = call.phone(message, asked);
            let accepted = status >= 200 && method == Method::Invite && asked == Side::Caller;
            let first = accepted && call.live.is_empty();
            if accepted && !call.live.contains(&phone) && call.live.len() < MAX_PHONES {
                call.live.push(phone.clone());
            }
            let answers = call.bare != Some((asked, cseq.number));
            let passing = self.describe(id, call, message, asked.other(), &phone, answers);
            if first {
                if message.body().is_empty() {
                    call.apply_said(&phone);
                }
                call.offers.retain(|offer| !offer.phone.is_empty());
            }
            passing
        });
        passing.unwrap_or(Passing::AsItIs)
    }

    /// A request got a final response that is no 2xx. `message`: either.
    pub fn failed(&self, message: &Message<'_>) {
        let Some(cseq) = message.cseq() else { return };
        let method = Method::from_bytes(cseq.token);
        let over = self.on(message, |_, call, asked| {
            let phone = call.phone(message, asked);
            call.offers
                .retain(|o| o.from != asked || !(*o.phone == *phone || o.phone.is_empty() && call.live.is_empty()));
            call.bare = call.bare.filter(|bare| *bare != (asked, cseq.number));
            method == Method::Invite && asked == Side::Caller && call.live.is_empty()
        });
        if over == Some(true) {
            self.end(message.call_id().unwrap_or_default());
        }
    }

    /// Ends what has ended without our seeing it. To be called every second.
    pub fn sweep(&self, now: Instant) {
        if self.is_idle() {
            return;
        }
        let silence = self.config.silence;
        let mut over = Vec::new();
        let mut calls = self.calls.lock();
        calls.retain(|_, call| {
            let quiet = |limit| now.saturating_duration_since(call.life) >= limit;
            let silent = || call.streams.iter().flatten().all(|s| s.is_silent(now, silence));
            let ended = call.ending.is_some_and(|since| now >= since + BYE_WAIT)
                || call.live.is_empty() && quiet(ANSWER_WAIT)
                || !call.live.is_empty() && quiet(silence) && silent();
            if ended {
                over.append(&mut call.streams);
            }
            !ended
        });
        self.known.store(calls.len(), Relaxed);
        drop(calls);
        drop(over);
    }

    /// A BYE has its answer.
    fn ended(&self, message: &Message<'_>) {
        let over = self.on(message, |_, call, asked| {
            let phone = call.phone(message, asked);
            call.live.retain(|live| *live != phone);
            if let Some(next) = call.live.first().cloned() {
                call.apply_said(&next);
            }
            call.live.is_empty()
        });
        if over == Some(true) {
            self.end(message.call_id().unwrap_or_default());
        }
    }

    fn end(&self, id: &[u8]) {
        let mut calls = self.calls.lock();
        let call = calls.remove(id);
        self.known.store(calls.len(), Relaxed);
        drop(calls);
        drop(call);
    }

    /// No call is one of ours.
    fn is_idle(&self) -> bool {
        self.known.load(Relaxed) == 0
    }

    /// Looks at the call of a message, and at who sent the request.
    fn on<T>(&self, message: &Message<'_>, look: impl FnOnce(&[u8], &mut Call, Side) -> T) -> Option<T> {
        if self.is_idle() {
            return None;
        }
        let id = message.call_id()?;
        let mut calls = self.calls.lock();
        let call = calls.get_mut(id)?;
        let sender = call.sender(message)?;
        call.life = Instant::now();
        Some(look(id, call, sender))
    }

    /// Whether the relay could carry this section.
    fn relays<'a>(&self, sdp: &Sdp<'a>, section: &Section<'a>) -> bool {
        let ours = self.relay.address();
        let address = hidden::address(sdp, section);
        hidden::is_datagrams(section) && address.is_none_or(|ip| ip.is_ipv4() == ours.is_ipv4() && !ip.is_multicast())
    }

    /// A description from `sender`: what it says is kept until it has an answer, or is one; what the other side sees is
    /// ours.
    fn describe(
        &self,
        id: &[u8],
        call: &mut Call,
        message: &Message<'_>,
        sender: Side,
        phone: &[u8],
        answers: bool,
    ) -> Passing {
        let found = match described(message) {
            Described::Not => return Passing::AsItIs,
            Described::Somehow => return WITHHELD,
            Described::As(text) => text,
        };
        let Ok(sdp) = Sdp::parse(found) else { return WITHHELD };
        if self.is_ours(call, &sdp) {
            return Passing::AsItIs;
        }
        if !answers {
            self.provide(id, call, &sdp);
        }
        let fars: Fars = sdp.media().iter().take(MAX_STREAMS).map(|section| self.far(&sdp, section)).collect();
        if answers {
            call.answered(sender, phone, fars);
        } else {
            call.offered(sender, phone, fars);
        }
        let within = message.range_of(found).start - message.range_of(message.body()).start;
        let mut body = message.body()[..within].to_vec();
        hidden::write(&sdp, self.relay.address(), &mut body, |index| {
            let section = &sdp.media()[index];
            match call.stream(index) {
                _ if section.line.port == 0 => Shown::Refused,
                Some(stream) if self.relays(&sdp, section) => Shown::Port(stream.port(sender.other())),
                None if self.is_anchored(&sdp, section) => Shown::AsItIs,
                _ => Shown::Refused,
            }
        });
        body.extend_from_slice(&message.body()[within + found.len()..]);
        Passing::Body(body)
    }

    /// Opens what is offered and not open yet. What finds no port is refused to the other side.
    fn provide(&self, id: &[u8], call: &mut Call, sdp: &Sdp<'_>) {
        let begins = call.streams.iter().all(Option::is_none);
        for (index, section) in sdp.media().iter().enumerate().take(MAX_STREAMS) {
            if call.streams.len() <= index {
                call.streams.push(None);
            }
            if section.line.port != 0 && call.streams[index].is_none() && self.relays(sdp, section) {
                call.streams[index] = self.relay.open().ok();
            }
        }
        if begins && call.streams.iter().any(Option::is_some) {
            self.chronicle.note(&Note { trace: id, event: NoteEvent::MediaRelayed, status: 0, from: b"", to: b"" });
        }
    }

    /// A call that comes by a second time shows our addresses already.
    fn is_ours(&self, call: &Call, sdp: &Sdp<'_>) -> bool {
        let mut used = sdp.media().iter().enumerate().filter(|(_, section)| section.line.port != 0);
        hidden::origin(sdp) == Some(self.relay.address())
            && used.all(|(index, section)| {
                let at_us =
                    hidden::address(sdp, section).is_some_and(|ip| ip == self.relay.address() || ip.is_unspecified());
                let ports = call.stream(index).map(|stream| Side::BOTH.map(|side| stream.port(side)));
                at_us && ports.is_some_and(|ports| ports.contains(&section.line.port)) || self.is_anchored(sdp, section)
            })
    }

    fn is_anchored<'a>(&self, sdp: &Sdp<'a>, section: &Section<'a>) -> bool {
        let at = hidden::address(sdp, section).map(|ip| SocketAddr::new(ip, section.line.port));
        is_messages(section) && at.is_some_and(|at| self.config.messages.contains(&at))
    }

    fn far<'a>(&self, sdp: &Sdp<'a>, section: &Section<'a>) -> Option<Far> {
        if section.line.port == 0 {
            return None;
        }
        Some(match hidden::place(sdp, section) {
            Place::At { media, control } if self.relay.may_send_to(media) && self.relay.may_send_to(control) => {
                Far::At { media, control }
            }
            Place::Nowhere => Far::Nowhere,
            Place::At { .. } | Place::Unknown => Far::Unknown,
        })
    }
}

/// A description that cannot be read is not shown: it would say what is to be hidden.
const WITHHELD: Passing = Passing::Body(Vec::new());

/// Requests that carry offers, and whose responses do.
pub fn describes(method: Method) -> bool {
    matches!(method, Method::Invite | Method::Update | Method::Prack)
}

impl Call {
    /// Who sent the request that this is, or answers.
    fn sender(&self, message: &Message<'_>) -> Option<Side> {
        if message.from_tag() == Some(&self.caller) {
            Some(Side::Caller)
        } else if message.to_tag() == Some(&self.caller) {
            Some(Side::Callee)
        } else {
            None
        }
    }

    /// The tag of the phone at the other side; empty while there is none.
    fn phone(&self, message: &Message<'_>, sender: Side) -> Box<[u8]> {
        let tag = if sender == Side::Caller { message.to_tag() } else { message.from_tag() };
        tag.unwrap_or_default().into()
    }

    fn stream(&self, index: usize) -> Option<&Stream> {
        self.streams.get(index)?.as_ref()
    }

    fn offered(&mut self, from: Side, phone: &[u8], fars: Fars) {
        self.offers.retain(|offer| offer.from != from || *offer.phone != *phone);
        if self.offers.len() < MAX_PHONES {
            self.offers.push(Offer { from, phone: phone.into(), fars });
        }
    }

    /// An answer from `from`: both ends of the streams are known. The phone that has the call is heard, or while none
    /// has it the one that spoke last.
    fn answered(&mut self, from: Side, phone: &[u8], fars: Fars) {
        if from == Side::Callee {
            self.answers.retain(|(other, _)| **other != *phone);
            if self.answers.len() < MAX_PHONES {
                self.answers.push((phone.into(), fars.clone()));
            }
        }
        let of_both = |offer: &&Offer| offer.from == from.other();
        let own = self.offers.iter().position(|offer| of_both(&offer) && *offer.phone == *phone);
        let common = self.offers.iter().filter(of_both).find(|offer| offer.phone.is_empty()).map(|o| o.fars.clone());
        let Some(offer) = own.map(|at| self.offers.swap_remove(at).fars).or(common) else { return };
        if self.live.first().is_none_or(|live| **live == *phone) {
            match from {
                Side::Caller => self.apply(&fars, &offer),
                Side::Callee => self.apply(&offer, &fars),
            }
        }
    }

    /// A phone has the call now: what it said before counts.
    fn apply_said(&mut self, phone: &[u8]) {
        let offer = self.offers.iter().find(|offer| offer.from == Side::Caller && offer.phone.is_empty());
        let said = self.answers.iter().find(|(other, _)| **other == *phone).map(|(_, fars)| fars.clone());
        match (offer.map(|offer| offer.fars.clone()), said) {
            (Some(offer), Some(said)) => self.apply(&offer, &said),
            (None, Some(said)) => {
                for (stream, far) in self.streams.iter().zip(said) {
                    if let (Some(stream), Some(far)) = (stream, far) {
                        stream.describe(Side::Callee, far);
                    }
                }
            }
            _ => {}
        }
    }

    fn apply(&mut self, caller: &Fars, callee: &Fars) {
        for (index, slot) in self.streams.iter_mut().enumerate() {
            let far = |fars: &Fars| fars.get(index).copied().flatten();
            match (&slot, far(caller), far(callee)) {
                (Some(stream), Some(caller), Some(callee)) => {
                    stream.describe(Side::Caller, caller);
                    stream.describe(Side::Callee, callee);
                }
                // Another phone may still want it.
                (Some(_), ..) if self.live.is_empty() => {}
                _ => *slot = None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
