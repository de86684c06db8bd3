//! MSRP sessions between users, anchored here: the session descriptions of a call are changed on their way, so that both
//! sides connect to this server, which passes on what they send (docs/decisions/0013-msrp-anchor.md).
//!
//! The proxy shows every message of an INVITE's dialog ([`Media`]). Here is known which description is an offer and which an
//! answer (RFC 3264), who connects (RFC 6135), and when the session is over. The bytes are the business of
//! [`media_msrp::Switch`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use media_msrp::{Address, Bridge, Fingerprint, MsrpUri, Peer, Side, Switch};
use media_sdp::file::FileSelector;
use media_sdp::message::{Anchored, Change, Messages, Setup, is_messages, rewrite};
use media_sdp::{Sdp, Section};
use parking_lot::Mutex;
use sip_ims::media::{Media, Passing};
use sip_ims::service::{Chronicle, Note, NoteEvent};
use sip_proto::headers::MediaType;
use sip_proto::uri::Uri;
use sip_proto::{HeaderName, Message, Method, derived, multipart, privacy};

use crate::control::ContentControl;
use crate::history::{self, History};

/// A BYE that nobody answers ends the session all the same.
const BYE_WAIT: Duration = Duration::from_secs(3);
/// An INVITE that came to nothing without our knowing: longer than timer C (RFC 3261 §16.6).
const ANSWER_WAIT: Duration = Duration::from_secs(240);
/// A session without any connection, and without a BYE: its ends are gone.
const DESERTED_WAIT: Duration = Duration::from_secs(600);
/// Message sections are looked for among the first of a description.
const MAX_SECTIONS: usize = 8;

/// Where the doors are, as peers reach them.
#[derive(Clone, Copy, Debug)]
pub struct AnchorConfig {
    /// Of `msrp://`. `None`: sessions without TLS are not anchored.
    pub plain: Option<SocketAddr>,
    /// Of `msrps://`.
    pub secure: Option<SocketAddr>,
}

/// Anchors MSRP sessions.
pub struct Anchor {
    config: AnchorConfig,
    switch: Arc<Switch>,
    chronicle: Arc<dyn Chronicle>,
    calls: Mutex<HashMap<Key, Call>>,
    control: OnceLock<Arc<ContentControl>>,
    history: OnceLock<Arc<History>>,
}

/// A dialog, or the INVITE that is to become one: Call-ID and the caller's tag.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    call_id: Box<[u8]>,
    caller: Box<[u8]>,
}

struct Call {
    /// Addresses: of the caller, and of whom it called.
    ends: [Box<[u8]>; 2],
    /// Of the INVITE: whom it was really for. Empty: nobody knows any more.
    uri: Box<[u8]>,
    /// The caller wants to stay unknown.
    hidden: bool,
    /// Set by the first answer in a 2xx.
    callee: Option<Box<[u8]>>,
    streams: Vec<Option<Stream>>,
    /// Whose offer is out.
    offered: Option<Side>,
    /// The CSeq of an INVITE without a description: its response holds an offer.
    bare: Option<u32>,
    since: Instant,
    answered: bool,
    /// A BYE went through.
    ending: Option<Instant>,
    /// When no connection was found any more.
    deserted: Option<Instant>,
    /// Its descriptions stay as they are.
    passes_by: bool,
}

/// One message section.
struct Stream {
    bridge: Arc<Bridge>,
    secure: bool,
    /// By side: it comes in by WebSocket, and cannot be connected to.
    ws: [bool; 2],
    /// What an offer said of its sender, until the answer comes.
    offer: Option<Offer>,
}

struct Offer {
    relay: Option<Box<[u8]>>,
    path: Box<[u8]>,
    setup: Option<Setup>,
    fingerprint: Option<Fingerprint>,
}

impl Anchor {
    pub fn new(config: AnchorConfig, switch: Arc<Switch>, chronicle: Arc<dyn Chronicle>) -> Arc<Anchor> {
        Arc::new(Anchor {
            config,
            switch,
            chronicle,
            calls: Mutex::default(),
            control: OnceLock::new(),
            history: OnceLock::new(),
        })
    }

    /// Has what passes through judged, as far as the operator wants it. Once.
    pub fn control_by(&self, control: Arc<ContentControl>) {
        let _ = self.control.set(control);
    }

    /// Has what is said kept for those who want to read it again. Once.
    pub fn remember_in(&self, history: Arc<History>) {
        let _ = self.history.set(history);
    }

    /// Sessions in a call, answered or not.
    pub fn calls(&self) -> usize {
        self.calls.lock().values().filter(|call| !call.passes_by).count()
    }

    /// Ends what has ended without our seeing it. To be called every second.
    pub fn sweep(&self, now: Instant) {
        let mut over = Vec::new();
        self.calls.lock().retain(|key, call| {
            let up = |b: &Arc<Bridge>| b.is_up(Side::Caller) || b.is_up(Side::Callee);
            let connected = call.streams.iter().flatten().any(|s| up(&s.bridge));
            call.deserted = if connected { None } else { call.deserted.or(Some(now)) };
            let due = |since: Option<Instant>, wait| since.is_some_and(|s| now >= s + wait);
            let ended = due(call.ending, BYE_WAIT)
                || !call.answered && due(Some(call.since), ANSWER_WAIT)
                || call.answered && due(call.deserted, DESERTED_WAIT);
            if ended && !call.passes_by {
                over.push((key.clone(), std::mem::take(&mut call.streams)));
            }
            !ended
        });
        for (key, streams) in over {
            self.close(&key, streams);
        }
    }

    fn close(&self, key: &Key, streams: Vec<Option<Stream>>) {
        for stream in streams.iter().flatten() {
            self.switch.close(&stream.bridge);
        }
        self.note(&key.call_id, NoteEvent::SessionEnded);
    }

    fn end(&self, key: &Key) {
        let call = self.calls.lock().remove(key);
        if let Some(call) = call.filter(|call| !call.passes_by) {
            self.close(key, call.streams);
        }
    }

    fn note(&self, call_id: &[u8], event: NoteEvent) {
        self.chronicle.note(&Note { trace: call_id, event, status: 0, from: b"", to: b"" });
    }

    /// The call that a message belongs to, and who of the two sent the request.
    fn find(&self, message: &Message<'_>) -> Option<(Key, Side)> {
        let calls = self.calls.lock();
        if calls.is_empty() {
            return None;
        }
        let known = |name| key_of(message, name).filter(|key| calls.contains_key(key));
        let by_caller = known(HeaderName::From).map(|k| (k, Side::Caller));
        by_caller.or_else(|| known(HeaderName::To).map(|k| (k, Side::Callee)))
    }

    /// Changes a description from `sender`. [`Passing::AsItIs`] when nothing in it is for us. `invite`: what a new call begins with.
    fn describe(&self, message: &Message<'_>, invite: &Message<'_>, key: Key, sender: Side, what: Said) -> Passing {
        let Some(found) = description(message) else { return Passing::AsItIs };
        let Ok(sdp) = Sdp::parse(found) else { return Passing::AsItIs };
        // The phone behind the next hop is a browser's.
        let towards_ws = message.is_request()
            && Uri::parse(message.request_uri())
                .and_then(|uri| uri.transport())
                .is_some_and(|t| t.eq_ignore_ascii_case(b"ws") || t.eq_ignore_ascii_case(b"wss"));
        let mut calls = self.calls.lock();
        let new = !calls.contains_key(&key);
        if new && !(what == Said::Offer && sdp.media().iter().any(is_messages)) {
            return Passing::AsItIs;
        }
        let call = calls.entry(key.clone()).or_insert_with(|| Call::new(Instant::now(), invite));
        if call.passes_by {
            return Passing::AsItIs;
        }
        let decisions: Vec<Decision> = sdp
            .media()
            .iter()
            .enumerate()
            .map(|(index, section)| match what {
                Said::Offer => self.offered(call, index, &key, &sdp, section, sender, towards_ws),
                Said::Answer => self.answered(call, index, &sdp, section, sender),
                Said::TooLate if is_messages(section) => Decision::Refuse,
                Said::TooLate => Decision::Keep,
            })
            .collect();
        call.offered = (what == Said::Offer).then_some(sender);
        if new && call.streams.iter().all(Option::is_none) {
            calls.remove(&key);
        }
        drop(calls);
        if decisions.iter().all(|d| matches!(d, Decision::Keep)) {
            return Passing::AsItIs;
        }
        if new {
            self.note(&key.call_id, NoteEvent::SessionAnchored);
        }
        let within = found.as_ptr() as usize - message.body().as_ptr() as usize;
        let mut body = message.body()[..within].to_vec();
        rewrite(&sdp, &mut body, |index| self.change(&decisions[index]));
        body.extend_from_slice(&message.body()[within + found.len()..]);
        Passing::Body(body)
    }

    fn change<'d>(&self, decision: &'d Decision) -> Change<'d> {
        let Decision::Anchor { uri, secure, ws, setup } = decision else {
            return if matches!(decision, Decision::Refuse) { Change::Refuse } else { Change::Keep };
        };
        // A stream exists only where there is a door for it.
        let Some(at) = self.door(*secure) else { return Change::Refuse };
        Change::Anchor(Anchored {
            path: uri,
            address: at.ip(),
            port: at.port(),
            // RFC 7977 §5.2.2: a WebSocket is always said to be TLS, and shows no certificate that could be named.
            secure: *secure || *ws,
            setup: *setup,
            fingerprint: if *secure && !*ws { self.switch.fingerprint().map(|f| f.to_string()) } else { None },
        })
    }

    fn door(&self, secure: bool) -> Option<SocketAddr> {
        if secure { self.config.secure } else { self.config.plain }
    }

    #[expect(clippy::too_many_arguments, reason = "one section of one offer, and where it comes from and goes to")]
    fn offered<'s>(
        &self,
        call: &mut Call,
        index: usize,
        key: &Key,
        sdp: &Sdp<'s>,
        section: &Section<'s>,
        sender: Side,
        towards_ws: bool,
    ) -> Decision {
        if !is_messages(section) || index >= MAX_SECTIONS {
            return Decision::Keep;
        }
        if call.streams.len() <= index {
            call.streams.resize_with(index + 1, || None);
        }
        let slot = &mut call.streams[index];
        let Some(messages) = Messages::of(sdp, section).filter(|m| m.port != 0) else {
            if let Some(stream) = slot.take() {
                self.switch.close(&stream.bridge);
            }
            return Decision::Keep;
        };
        let Some(path) = media_msrp::uri::path(messages.path) else { return Decision::Keep };
        let by_ws = is_ws(&path);
        if slot.as_ref().is_some_and(|s| s.secure != messages.secure && !by_ws)
            && let Some(stream) = slot.take()
        {
            self.switch.close(&stream.bridge);
        }
        if slot.is_none() {
            let Some(at) = self.door(messages.secure) else { return Decision::Keep };
            // A call that comes by a second time: anchored already.
            if self.switch.is_ours(&path[0]) {
                return Decision::Keep;
            }
            let address = Address { secure: messages.secure, transport: "tcp", at };
            let name = String::from_utf8_lossy(&key.call_id);
            let Ok(bridge) = self.switch.open(&name, address, address) else { return Decision::Refuse };
            let mut ws = [false; 2];
            ws[sender.other() as usize] = towards_ws;
            *slot = Some(Stream { bridge, secure: messages.secure, ws, offer: None });
        }
        let Some(stream) = slot else { return Decision::Keep };
        stream.ws[sender as usize] = by_ws;
        self.listen_in(&call.ends, (&call.uri, call.hidden), stream, FileSelector::of(sdp, section).as_ref());
        let ws = stream.ws[sender.other() as usize] || towards_ws;
        let (relay, path) = own_path(&self.switch, messages.path);
        stream.offer = Some(Offer {
            relay,
            path,
            setup: messages.setup,
            fingerprint: messages.fingerprint.and_then(Fingerprint::parse),
        });
        Decision::Anchor {
            uri: stream.bridge.uri_over(sender.other(), ws),
            secure: stream.secure,
            ws,
            // Whoever answers may choose; who has not heard of the choice is connected to.
            setup: Some(Setup::ActPass),
        }
    }

    fn answered<'s>(
        &self,
        call: &mut Call,
        index: usize,
        sdp: &Sdp<'s>,
        section: &Section<'s>,
        sender: Side,
    ) -> Decision {
        let Some(slot) = call.streams.get_mut(index) else { return Decision::Keep };
        let Some(stream) = slot else { return Decision::Keep };
        let messages = Messages::of(sdp, section).filter(|m| m.port != 0);
        let Some(messages) = messages.filter(|m| media_msrp::uri::path(m.path).is_some()) else {
            self.switch.close(&stream.bridge);
            *slot = None;
            return if section.line.port == 0 { Decision::Keep } else { Decision::Refuse };
        };
        let by_ws = media_msrp::uri::path(messages.path).is_some_and(|p| is_ws(&p));
        stream.ws[sender as usize] = by_ws;
        let (relay, path) = own_path(&self.switch, messages.path);
        let answerer = Peer {
            relay,
            path,
            connect: !by_ws && !matches!(messages.setup, Some(Setup::Active | Setup::HoldConn)),
            fingerprint: messages.fingerprint.and_then(Fingerprint::parse),
        };
        self.listen_in(&call.ends, (&call.uri, call.hidden), stream, FileSelector::of(sdp, section).as_ref());
        let setup = stream.offer.as_ref().and_then(|o| o.setup);
        if let Some(offer) = &stream.offer {
            // RFC 4975 §5.4: the offerer connects, unless it asked for the contrary.
            let connect = offer.setup == Some(Setup::Passive) && !stream.ws[sender.other() as usize];
            let (relay, path) = (offer.relay.clone(), offer.path.clone());
            let offerer = Peer { relay, path, connect, fingerprint: offer.fingerprint.clone() };
            self.switch.describe(&stream.bridge, sender.other(), offerer);
        }
        self.switch.describe(&stream.bridge, sender, answerer);
        let ws = stream.ws[sender.other() as usize];
        Decision::Anchor {
            uri: stream.bridge.uri_over(sender.other(), ws),
            secure: stream.secure,
            ws,
            setup: setup.map(|s| if s == Setup::Passive { Setup::Active } else { Setup::Passive }),
        }
    }
}

impl Anchor {
    /// Has judged what comes by WebSocket or from another domain, and kept what users want to read again. Before anything of it can
    /// come. `to`: whom the INVITE was for, and whether its sender wants to stay unknown.
    fn listen_in(&self, ends: &[Box<[u8]>; 2], to: (&[u8], bool), stream: &Stream, file: Option<&FileSelector<'_>>) {
        let bridge = &stream.bridge;
        for side in [Side::Caller, Side::Callee] {
            let judged = [&*ends[side as usize], &*ends[side.other() as usize]];
            let inspector = self.control.get().and_then(|c| c.of_session(judged, stream.ws[side as usize], file));
            if let Some(inspector) = inspector {
                self.switch.inspect(bridge, side, inspector);
            }
            // Files are not kept here. What To says is its sender's own affair.
            let (addressee, hidden) = to;
            let Some(history) = self.history.get().filter(|_| file.is_none() && !addressee.is_empty()) else {
                continue;
            };
            let address = |of: Side| if of == Side::Caller { &*ends[0] } else { addressee };
            let sides = [side, side.other()];
            let hidden = sides.map(|of| hidden && of == Side::Caller);
            if let Some(listener) = history.overhear(sides.map(address), hidden, bridge.name().as_bytes()) {
                self.switch.overhear(bridge, side, listener, history::MAX_CONTENT);
            }
        }
    }
}

impl Call {
    fn new(now: Instant, message: &Message<'_>) -> Call {
        let of = |name| message.value(name).unwrap_or_default().into();
        Call {
            ends: [of(HeaderName::From), of(HeaderName::To)],
            uri: if message.is_request() { message.request_uri().into() } else { Box::default() },
            hidden: privacy::asked(message).hides_identity(),
            callee: None,
            streams: Vec::new(),
            offered: None,
            bare: None,
            since: now,
            answered: false,
            ending: None,
            deserted: None,
            passes_by: false,
        }
    }
}

/// What a description is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Offer,
    Answer,
    /// The answer of a second phone, when another has the session.
    TooLate,
}

/// What becomes of a section.
enum Decision {
    Keep,
    Refuse,
    Anchor {
        /// Ours, for the side that reads it.
        uri: Vec<u8>,
        secure: bool,
        ws: bool,
        setup: Option<Setup>,
    },
}

impl Media for Anchor {
    fn request(&self, message: &Message<'_>) -> Passing {
        let found = self.find(message);
        match message.method() {
            Method::Invite if message.body().is_empty() => {
                if let Some((key, _)) = &found {
                    self.on(key, |call| call.bare = message.cseq().map(|c| c.number));
                }
                Passing::AsItIs
            }
            Method::Invite | Method::Update | Method::Prack | Method::Ack => {
                let new = || {
                    key_of(message, HeaderName::From).filter(|_| speaks_of_messages(message)).map(|k| (k, Side::Caller))
                };
                let Some((key, sender)) = found.or_else(new) else { return Passing::AsItIs };
                let answers = self.on(&key, |call| call.offered == Some(sender.other())).unwrap_or(false);
                match message.method() {
                    Method::Ack | Method::Prack if answers => {
                        self.describe(message, message, key, sender, Said::Answer)
                    }
                    Method::Ack => Passing::AsItIs,
                    _ => self.describe(message, message, key, sender, Said::Offer),
                }
            }
            Method::Bye => {
                if let Some((key, _)) = &found {
                    self.on(key, |call| call.ending = call.ending.or(Some(Instant::now())));
                }
                Passing::AsItIs
            }
            _ => Passing::AsItIs,
        }
    }

    fn response(&self, message: &Message<'_>, request: Option<&[u8]>) -> Passing {
        let Some(cseq) = message.cseq() else { return Passing::AsItIs };
        let found = self.find(message);
        let status = message.status();
        match (Method::from_bytes(cseq.token), found) {
            (Method::Bye, Some((key, _))) if status >= 200 && !matches!(status, 401 | 407) => {
                self.end(&key);
                Passing::AsItIs
            }
            (Method::Invite, Some((key, Side::Caller))) if status >= 300 => {
                if self.on(&key, |call| !call.answered).unwrap_or(false) {
                    self.end(&key);
                }
                Passing::AsItIs
            }
            (Method::Invite, None) if status < 300 && speaks_of_messages(message) => {
                // The INVITE had no description: its response makes the offer.
                let Some(key) = key_of(message, HeaderName::From) else { return Passing::AsItIs };
                let request = request.and_then(|bytes| Message::parse(bytes).ok());
                self.describe(message, request.as_ref().unwrap_or(message), key, Side::Callee, Said::Offer)
            }
            (Method::Invite | Method::Update | Method::Prack, Some((key, asked))) if status < 300 => {
                let tag = message.to_tag().unwrap_or_default();
                let initial = asked == Side::Caller && Method::from_bytes(cseq.token) == Method::Invite;
                let said = self.on(&key, |call| {
                    if initial && call.callee.as_deref().is_some_and(|c| c != tag) {
                        return Said::TooLate;
                    }
                    if initial && status >= 200 {
                        call.callee = Some(tag.into());
                        call.answered = true;
                    }
                    if call.bare == Some(cseq.number) { Said::Offer } else { Said::Answer }
                });
                said.map_or(Passing::AsItIs, |said| self.describe(message, message, key, asked.other(), said))
            }
            _ => Passing::AsItIs,
        }
    }

    fn passes_by(&self, message: &Message<'_>) {
        if let Some(key) = key_of(message, HeaderName::From) {
            let mut calls = self.calls.lock();
            calls.entry(key).or_insert_with(|| Call { passes_by: true, ..Call::new(Instant::now(), message) });
        }
    }
}

impl Anchor {
    fn on<T>(&self, key: &Key, look: impl FnOnce(&mut Call) -> T) -> Option<T> {
        self.calls.lock().get_mut(key).map(look)
    }
}

/// Whether a path is that of a client behind a WebSocket (RFC 7977 §5.2.1).
pub(crate) fn is_ws(path: &[MsrpUri<'_>]) -> bool {
    path.last().is_some_and(|uri| uri.transport().eq_ignore_ascii_case(b"ws"))
}

/// The URI that we gave a peer as its relay (RFC 4976 §5.1), and its path without it: we are there already.
pub(crate) fn own_path(switch: &Switch, path: &[u8]) -> (Option<Box<[u8]>>, Box<[u8]>) {
    match path.iter().position(|&b| b == b' ') {
        Some(space) if MsrpUri::parse(&path[..space]).is_some_and(|uri| switch.is_relay(&uri)) => {
            (Some(path[..space].into()), path[space + 1..].trim_ascii().into())
        }
        _ => (None, path.into()),
    }
}

/// A look before anything is read: most calls are about something else.
fn speaks_of_messages(message: &Message<'_>) -> bool {
    memchr::memmem::find(message.body(), b"m=message ").is_some()
}

/// The session description in a message: its body, or a part of it.
pub(crate) fn description<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    let content_type = MediaType::parse(message.value(HeaderName::ContentType)?)?;
    multipart::find(&content_type, message.body(), "application/sdp").map(|p| p.body)
}

fn key_of(message: &Message<'_>, caller: HeaderName) -> Option<Key> {
    let tag = message.value(caller).and_then(derived::tag)?;
    Some(Key { call_id: message.call_id()?.into(), caller: tag.into() })
}
