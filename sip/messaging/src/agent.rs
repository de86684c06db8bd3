//! Sessions that end in this server: the SIP side (RFC 3261 §12 to §15). Answers INVITEs, makes them, and says BYE.
//!
//! What such a session is for stands behind [`Party`]; its messages are the business of [`media_msrp`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use media_msrp::{Bridge, Inspector, LocalEnd, PHONE, Switch};
use parking_lot::Mutex;
use sip_ims::Home;
use sip_ims::notify::write_in_dialog;
use sip_ims::service::{
    Chronicle, Location, NextHops, Nodes, Note, NoteEvent, Outcome, Outlet, Request, Service, Step, Transaction,
    Verdict,
};
use sip_proto::build::{Response, Writer};
use sip_proto::dialog::{Dialog, DialogId};
use sip_proto::endpoint::ServerId;
use sip_proto::headers::NameAddr;
use sip_proto::uri::Uri;
use sip_proto::{Flow, HeaderName, Hop, Message, Method, Transport};
use tokio::runtime::Handle;

use crate::anchor::AnchorConfig;
use crate::control::ContentControl;
use crate::terms::{Described, Offered, Terms};

mod calling;

pub use calling::{Call, Callee};

/// First pause before a 2xx is sent again, and the longest (RFC 3261 §13.3.1.4).
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// A 2xx that nobody acknowledged in this time ends its session.
const ACK_WAIT: Duration = Duration::from_secs(32);
/// Sessions that end here, at most.
const MAX_SESSIONS: usize = 100_000;

/// What a session is for.
pub trait Party: LocalEnd {
    /// The session has begun: messages can be sent.
    fn begun(self: Arc<Self>, session: &Handset) {
        let _ = session;
    }

    /// The session is over. Once.
    fn ended(&self) {}

    /// A REFER within the session.
    fn referred(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        let _ = (step, request);
        Verdict::Pass
    }
}

/// The far end of a session.
#[derive(Clone)]
pub struct Handset {
    pub key: Box<[u8]>,
    pub bridge: Arc<Bridge>,
    /// Takes what it was called for in an envelope alone.
    pub enveloped: bool,
}

/// What the agent works with.
pub struct AgentParts {
    pub doors: AnchorConfig,
    pub home: Arc<Home>,
    pub switch: Arc<Switch>,
    pub location: Arc<dyn Location>,
    pub next_hops: Arc<dyn NextHops>,
    /// Where others share the store.
    pub nodes: Option<Arc<dyn Nodes>>,
    pub chronicle: Arc<dyn Chronicle>,
    pub unix: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub runtime: Handle,
    /// Nobody proves who they are: for closed test nets.
    pub strangers: bool,
}

/// The user agent of this server.
pub struct Agent {
    pub(crate) parts: AgentParts,
    outlet: OnceLock<Arc<dyn Outlet>>,
    sessions: Mutex<HashMap<Box<[u8]>, Session>>,
    control: OnceLock<Arc<ContentControl>>,
}

struct Session {
    dialog: Dialog,
    bridge: Arc<Bridge>,
    party: Arc<dyn Party>,
    hop: Hop,
    contact: Box<[u8]>,
    terms: Terms,
    secure: bool,
    unacked: Option<Unacked>,
    /// Our 2xx held an offer, whose answer is in the ACK.
    offering: bool,
}

struct Unacked {
    response: Box<[u8]>,
    hop: Hop,
    next: Instant,
    pause: Duration,
    until: Instant,
}

/// How an INVITE is answered.
pub struct Invited {
    pub party: Arc<dyn Party>,
    pub terms: Terms,
    /// User part of our Contact.
    pub user: String,
    /// Parameters of our Contact: `;isfocus`.
    pub features: &'static str,
    /// What must have happened before: the status to refuse with, else.
    pub first: Option<First>,
    /// What takes its messages, where they are files.
    pub taken_by: Option<Arc<dyn Inspector>>,
}

/// Something that has to be done before an answer.
pub type First = std::pin::Pin<Box<dyn std::future::Future<Output = Result<(), u16>> + Send>>;

impl Agent {
    pub fn new(parts: AgentParts) -> Arc<Agent> {
        Arc::new(Agent { parts, outlet: OnceLock::new(), sessions: Mutex::default(), control: OnceLock::new() })
    }

    /// Has what phones send judged, as far as the operator wants it. Once.
    pub fn control_by(&self, control: Arc<ContentControl>) {
        let _ = self.control.set(control);
    }

    /// `ends`: addresses of the phone's user, and of whom it talks to.
    fn inspect(&self, bridge: &Arc<Bridge>, ends: [&[u8]; 2], by_web: bool) {
        let inspector = self.control.get().and_then(|control| control.of_session(ends, by_web, None));
        if let Some(inspector) = inspector {
            self.parts.switch.inspect(bridge, PHONE, inspector);
        }
    }

    /// Ties the agent to the stack that it sends by. Once.
    pub fn attach(self: &Arc<Self>, outlet: Arc<dyn Outlet>) {
        let _ = self.outlet.set(outlet);
        let agent = Arc::downgrade(self);
        self.parts.runtime.spawn(async move {
            let mut beat = tokio::time::interval(T1);
            beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                beat.tick().await;
                let Some(agent) = agent.upgrade() else { return };
                agent.sweep(Instant::now());
            }
        });
    }

    pub(crate) fn outlet(&self) -> Option<&Arc<dyn Outlet>> {
        self.outlet.get()
    }

    pub(crate) fn switch(&self) -> &Switch {
        &self.parts.switch
    }

    pub(crate) fn strangers(&self) -> bool {
        self.parts.strangers
    }

    /// Sessions that end here, now.
    pub fn sessions(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Whether there is room for another session.
    pub fn has_room(&self) -> bool {
        self.sessions.lock().len() < MAX_SESSIONS
    }

    /// Answers an INVITE that sets up a session, once `invited.first` is done. `offered`: what it says of messages.
    pub fn answer(
        self: &Arc<Self>,
        step: &mut Step<'_>,
        request: &Request<'_>,
        server: Option<ServerId>,
        offered: &Offered,
        invited: Invited,
    ) -> Result<(), u16> {
        let message = request.message;
        let door = self.parts.door(offered.secure).ok_or(488u16)?;
        let call_id = message.call_id().unwrap_or_default();
        let tag = step.endpoint.local_tag(call_id);
        let mut dialog = Dialog::uas(message, &tag).map_err(|_| 400u16)?;
        dialog.responded(message, 200);
        let end: Arc<dyn LocalEnd> = invited.party.clone();
        let name = String::from_utf8_lossy(call_id);
        let max = invited.terms.max_size;
        let bridge = self.parts.switch.open_local(&name, door, end, max).map_err(|_| 503u16)?;
        let ends = [HeaderName::From, HeaderName::To].map(|name| message.value(name).unwrap_or_default());
        let by_web = offered.ws || came_by_web(request);
        match invited.taken_by {
            Some(taker) => self.parts.switch.take_by(&bridge, taker),
            None => self.inspect(&bridge, ends, by_web),
        }
        if let Some(peer) = &offered.peer {
            self.parts.switch.describe(&bridge, PHONE, peer.clone());
        }
        let transaction = match server {
            Some(id) => Transaction { shard: step.shard, id },
            None => match step.defer(request) {
                Ok(transaction) => transaction,
                Err(_full) => {
                    self.parts.switch.close_now(&bridge);
                    return Err(503);
                }
            },
        };
        let body = self.parts.describe(&bridge, offered, &invited.terms);
        let contact = self.contact(request.flow, &invited.user, invited.features);
        let mut response = Vec::new();
        let hop = step.endpoint.reply_hop(transaction.id).unwrap_or(Hop::Flow(*request.flow));
        Response::to(message, 200)
            .source(request.flow.remote)
            .tag(&tag)
            .write(&mut response, |w| accepted(w, &contact, &body));
        let key = key_of(&dialog.id());
        let session = Session {
            hop: way_back(message, request.flow),
            contact: contact.clone().into(),
            terms: invited.terms,
            secure: offered.secure,
            unacked: None,
            offering: offered.peer.is_none(),
            bridge: bridge.clone(),
            party: invited.party.clone(),
            dialog,
        };
        self.sessions.lock().insert(key.clone(), session);
        let (agent, party) = (self.clone(), invited.party);
        let (first, call_id) = (invited.first, Box::<[u8]>::from(call_id));
        self.parts.runtime.spawn(async move {
            let ready = match first {
                Some(first) => first.await,
                None => Ok(()),
            };
            let Some(outlet) = agent.outlet() else { return };
            match ready {
                Ok(()) => {
                    if let Some(session) = agent.sessions.lock().get_mut(&key) {
                        session.unacked = Some(Unacked::new(Instant::now(), response, hop));
                    }
                    party.begun(&Handset { key, bridge, enveloped: false });
                    outlet.answer(transaction, 200, &|w| accepted(w, &contact, &body));
                    agent.note(&call_id, NoteEvent::SessionAnchored);
                }
                Err(status) => {
                    outlet.answer(transaction, status, &|_| {});
                    agent.forget(&key);
                }
            }
        });
        Ok(())
    }

    /// Ends a session with a BYE. Does nothing for one that is over.
    pub fn hang_up(self: &Arc<Self>, key: &[u8]) {
        let Some(mut session) = self.sessions.lock().remove(key) else { return };
        self.over(&session);
        if let Some(bye) = write_in_dialog(&mut session.dialog, Method::Bye, 0, |_| {})
            && let Some(outlet) = self.outlet().cloned()
        {
            let hop = session.hop;
            // Whatever is answered: it is over. Not from here, where a shard may be locked.
            self.parts.runtime.spawn(async move { outlet.request(hop, bye, Box::new(|_| {})) });
        }
    }

    /// Sends a request within a session's dialog.
    pub(crate) fn request_within(
        &self,
        key: &[u8],
        hop: Hop,
        method: Method,
        more: impl FnOnce(&mut Writer<'_>),
        done: impl FnOnce(Outcome) + Send + 'static,
    ) {
        let made = {
            let mut sessions = self.sessions.lock();
            let session = sessions.get_mut(key);
            session.and_then(|s| {
                let contact = s.contact.clone();
                write_in_dialog(&mut s.dialog, method, 512, |w| {
                    w.text(HeaderName::Contact, &contact);
                    more(w);
                })
            })
        };
        if let (Some(bytes), Some(outlet)) = (made, self.outlet().cloned()) {
            self.parts.runtime.spawn(async move { outlet.request(hop, bytes, Box::new(done)) });
        }
    }

    fn forget(&self, key: &[u8]) {
        if let Some(session) = self.sessions.lock().remove(key) {
            self.parts.switch.close_now(&session.bridge);
        }
    }

    fn over(&self, session: &Session) {
        self.parts.switch.close(&session.bridge);
        session.party.ended();
        self.note(session.dialog.id().call_id, NoteEvent::SessionEnded);
    }

    fn note(&self, call_id: &[u8], event: NoteEvent) {
        self.parts.chronicle.note(&Note { trace: call_id, event, status: 0, from: b"", to: b"" });
    }

    /// `<sip:user@host:port;transport=udp>;features`.
    pub(crate) fn contact(&self, flow: &Flow, user: &str, features: &str) -> Vec<u8> {
        let mut contact = b"<sip:".to_vec();
        contact.extend_from_slice(user.as_bytes());
        contact.push(b'@');
        contact.extend_from_slice(self.parts.home.sent_by(flow.transport, flow.remote.ip()));
        contact.extend_from_slice(b";transport=");
        contact.extend_from_slice(flow.transport.uri_token().as_bytes());
        contact.push(b'>');
        contact.extend_from_slice(features.as_bytes());
        contact
    }

    /// Sends 2xx again that were not acknowledged, and ends sessions whose caller is gone.
    fn sweep(self: &Arc<Self>, now: Instant) {
        let (mut again, mut gone) = (Vec::new(), Vec::new());
        for (key, session) in self.sessions.lock().iter_mut() {
            let Some(unacked) = session.unacked.as_mut().filter(|u| u.next <= now) else { continue };
            if unacked.until <= now {
                gone.push(key.clone());
                continue;
            }
            again.push((unacked.hop, unacked.response.clone()));
            unacked.pause = (unacked.pause * 2).min(T2);
            unacked.next = now + unacked.pause;
        }
        let Some(outlet) = self.outlet() else { return };
        again.iter().for_each(|(hop, bytes)| outlet.send(*hop, bytes));
        gone.iter().for_each(|key| self.hang_up(key));
    }

    /// A request in a dialog of ours.
    fn within(self: &Arc<Self>, step: &mut Step<'_>, request: &Request<'_>, key: &[u8]) -> Verdict {
        let message = request.message;
        let mut sessions = self.sessions.lock();
        let Some(session) = sessions.get_mut(key) else { return Verdict::Pass };
        if session.dialog.receive(message).is_err() {
            drop(sessions);
            reply(step, request, 500, |_| {});
            return Verdict::Taken;
        }
        if matches!(session.hop, Hop::Flow(_)) {
            session.hop = Hop::Flow(*request.flow);
        }
        match message.method() {
            Method::Bye => {
                let session = sessions.remove(key);
                drop(sessions);
                reply(step, request, 200, |_| {});
                if let Some(session) = session {
                    self.over(&session);
                }
            }
            Method::Invite | Method::Update if message.method() == Method::Invite || !message.body().is_empty() => {
                self.described_anew(step, request, sessions, key);
            }
            Method::Refer => {
                let party = session.party.clone();
                session.dialog.responded(message, 202);
                drop(sessions);
                return party.referred(step, request);
            }
            Method::Update | Method::Info | Method::Options => {
                session.dialog.responded(message, 200);
                drop(sessions);
                reply(step, request, 200, |w| w.text(HeaderName::Allow, ALLOW));
            }
            _ => {
                drop(sessions);
                reply(step, request, 405, |w| w.text(HeaderName::Allow, ALLOW));
            }
        }
        Verdict::Taken
    }

    /// A re-INVITE, or an UPDATE with a description: our URI stays, the phone may have another.
    fn described_anew(
        &self,
        step: &mut Step<'_>,
        request: &Request<'_>,
        mut sessions: parking_lot::MutexGuard<'_, HashMap<Box<[u8]>, Session>>,
        key: &[u8],
    ) {
        let message = request.message;
        let Some(session) = sessions.get_mut(key) else { return };
        let offered = match Offered::read(&self.parts.switch, message) {
            Ok(offered) if offered.secure == session.secure || offered.peer.is_none() => {
                Offered { secure: session.secure, ..offered }
            }
            _ => {
                drop(sessions);
                return reply(step, request, 488, |_| {});
            }
        };
        let Ok(transaction) = step.defer(request) else {
            drop(sessions);
            return reply(step, request, 503, |_| {});
        };
        session.dialog.responded(message, 200);
        if let Some(peer) = &offered.peer {
            self.parts.switch.describe(&session.bridge, PHONE, peer.clone());
        }
        let body = self.parts.describe(&session.bridge, &offered, &session.terms);
        let contact = session.contact.clone();
        let tag = session.dialog.id().local_tag.to_vec();
        let mut bytes = Vec::new();
        Response::to(message, 200)
            .source(request.flow.remote)
            .tag(&tag)
            .write(&mut bytes, |w| accepted(w, &contact, &body));
        if message.method() == Method::Invite {
            let hop = step.endpoint.reply_hop(transaction.id).unwrap_or(session.hop);
            session.unacked = Some(Unacked::new(step.now, bytes.clone(), hop));
            session.offering = offered.peer.is_none();
        }
        drop(sessions);
        step.endpoint.respond(step.now, transaction.id, 200, step.out, |b| b.extend_from_slice(&bytes));
    }
}

/// The agent among the services: requests and ACKs of its dialogs.
pub struct Sessions(pub Arc<Agent>);

impl Service for Sessions {
    fn name(&self) -> &'static str {
        "sessions"
    }

    fn request(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        match DialogId::of_request(request.message).map(|id| key_of(&id)) {
            Some(key) => self.0.within(step, request, &key),
            None => Verdict::Pass,
        }
    }

    fn knows(&self, message: &Message<'_>) -> bool {
        DialogId::of_request(message).is_some_and(|id| self.0.sessions.lock().contains_key(&key_of(&id)))
    }

    fn acknowledged(&self, message: &Message<'_>) {
        let Some(key) = DialogId::of_request(message).map(|id| key_of(&id)) else { return };
        let agent = &self.0;
        let answered = {
            let mut sessions = agent.sessions.lock();
            let Some(session) = sessions.get_mut(&key) else { return };
            session.unacked = None;
            std::mem::take(&mut session.offering).then(|| session.bridge.clone())
        };
        let Some(bridge) = answered else { return };
        match Offered::read(&agent.parts.switch, message).ok().and_then(|o| o.peer) {
            // An answer: whoever does not say otherwise is connected to (RFC 4975 §5.4).
            Some(peer) => {
                let connect = !Described::is_active(&agent.parts.switch, message);
                agent.parts.switch.describe(&bridge, PHONE, media_msrp::Peer { connect, ..peer });
            }
            None => agent.hang_up(&key),
        }
    }
}

/// What a session allows.
const ALLOW: &[u8] = b"INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, REFER";

impl Unacked {
    fn new(now: Instant, response: Vec<u8>, hop: Hop) -> Unacked {
        Unacked { response: response.into(), hop, next: now + T1, pause: T1, until: now + ACK_WAIT }
    }
}

fn accepted(w: &mut Writer<'_>, contact: &[u8], body: &[u8]) {
    w.text(HeaderName::Contact, contact);
    w.text(HeaderName::Allow, ALLOW);
    w.body(b"application/sdp", body);
}

/// Answers in a transaction, which absorbs what is sent again.
pub(crate) fn reply(step: &mut Step<'_>, request: &Request<'_>, status: u16, more: impl Fn(&mut Writer<'_>)) {
    let message = request.message;
    let tag = message.to_tag().map(<[u8]>::to_vec);
    let tag = tag.unwrap_or_else(|| step.endpoint.local_tag(message.call_id().unwrap_or_default()).to_vec());
    match step.defer(request) {
        Ok(transaction) => {
            step.endpoint.respond(step.now, transaction.id, status, step.out, |b| {
                Response::to(message, status).source(request.flow.remote).tag(&tag).write(b, |w| more(w));
            });
        }
        Err(_full) => step.reply(request.flow, message, status, None, |w| more(w)),
    }
}

/// Where our requests go in the dialog that this request begins. A proxy that sent it over TCP is sought where it says that it listens on
/// that host: its connection may end before the dialog.
pub(crate) fn way_back(message: &Message<'_>, flow: &Flow) -> Hop {
    let proxy = message.list(HeaderName::RecordRoute).next().and_then(NameAddr::parse).and_then(|a| a.uri());
    let listens = |uri: &Uri<'_>| {
        let tcp = uri.transport().is_some_and(|t| t.eq_ignore_ascii_case(b"tcp"));
        tcp && flow.transport == Transport::Tcp && uri.host_ip() == Some(flow.remote.ip())
    };
    match proxy.filter(listens) {
        Some(uri) => {
            Hop::Address { transport: Transport::Tcp, remote: SocketAddr::new(flow.remote.ip(), uri.port_or_default()) }
        }
        None => Hop::Flow(*flow),
    }
}

/// Whether a browser sent it, to us or to a proxy on the way.
fn came_by_web(request: &Request<'_>) -> bool {
    let is_web = |value: &[u8]| {
        let uri = NameAddr::parse(value).and_then(|a| a.uri());
        uri.and_then(|uri| uri.transport()).and_then(Transport::from_token).is_some_and(is_web_socket)
    };
    is_web_socket(request.flow.transport) || request.message.list(HeaderName::RecordRoute).any(is_web)
}

pub(crate) fn is_web_socket(transport: Transport) -> bool {
    matches!(transport, Transport::Ws | Transport::Wss)
}

/// What names a session: its dialog.
pub(crate) fn key_of(id: &DialogId<'_>) -> Box<[u8]> {
    [id.call_id, b"\0", id.local_tag, b"\0", id.remote_tag].concat().into()
}
