//! The transactions of joined dialogs: a request of one goes on in the other, its responses come back (RFC 3261 §6, "B2BUA").
//!
//! What we send goes to ourselves first ([`Flow::INTERNAL`]), as a trusted neighbour's: the proxy half finds the way, forks,
//! holds the flows to phones and goes on with the filters, as it does for an application server elsewhere.
//!
//! Reliability is left to the ends: a 2xx or a reliable 1xx that is sent again crosses again, an ACK and a PRACK cross back.

use std::sync::Arc;
use std::time::Duration;

use sip_ims::notify::write_in_dialog;
use sip_ims::service::{Caller, NOBODY, Note, NoteEvent, Request, Step};
use sip_net::driver::write_via;
use sip_proto::build::{self, Response, Writer};
use sip_proto::dialog::{Dialog, DialogState, Impact, MAX_FORKS};
use sip_proto::endpoint::{ClientId, Outgoing, ServerId, hex16};
use sip_proto::headers::{NameAddr, Params, Privacy, Refresher, has_token};
use sip_proto::privacy::{self, Neighbour};
use sip_proto::session_timer::{Policy, Requested, TooSmall};
use sip_proto::slots::Slot;
use sip_proto::transport::Transmit;
use sip_proto::{Edits, Flow, HeaderName, Hop, Message, Method, Transport, validate};

use super::{ALLOW, Proxy, STAMP_MASK, forward, reply, token_of};
use crate::b2bua::{Due, Joint, Leg, Legs, Side, crossing};
use crate::chain::Chain;
use crate::route::{Routed, write_record_route};
use crate::seal::Kind;

/// A request of one dialog that went on in the other, or begins the other.
pub(super) struct Exchange {
    /// `None`: a question of our own.
    server: Option<ServerId>,
    client: ClientId,
    method: Method,
    /// The end that asked.
    from: Side,
    source: Flow,
    of: Of,
    /// What it says of the session's timer.
    requested: Option<Requested>,
    /// It changes the session.
    changes: bool,
}

/// A request that is to go on, and why.
struct Crossing<'a> {
    method: Method,
    from: Side,
    source: Flow,
    of: Of,
    requested: Option<Requested>,
    /// As it goes on, but for its Via.
    written: &'a [u8],
}

enum Of {
    Call(Arc<Joint>),
    /// An INVITE that begins a call; with several far ends, several.
    Opening(Box<Opening>),
}

struct Opening {
    /// As it went on, but for its Via.
    invite: Box<[u8]>,
    contacts: [Box<[u8]>; 2],
    flow: Option<Flow>,
    charged: Box<[u8]>,
    joints: Vec<Arc<Joint>>,
    rang: bool,
    answered: bool,
}

/// User values of exchanges: neither forks nor the driver have this bit. As a wake it names a joint, with the next an exchange.
const JOINED: u64 = 1 << 60;
const EXCHANGE: u64 = 1 << 59;
/// Session timers (RFC 4028): who asks for none is given this, if one of the ends can do it.
const SESSION: Policy = Policy { min: 90, interval: Some(1800), refresher: Refresher::Uac };
/// How long further 2xx of an INVITE may come: 64*T1 and a little.
const ACCEPTED: Duration = Duration::from_secs(33);
/// Seconds after which a request that met another one of the same end may come again (RFC 3261 §14.2).
const GLARE_RETRY: u64 = 3;

impl Proxy {
    /// Whether a user value of a transaction is one of ours.
    pub(super) fn is_joined(user: u64) -> bool {
        user >> 53 == JOINED >> 53
    }

    fn exchange_slot(&self, user: u64) -> Option<Slot> {
        let slot = self.exchanges.slot_at(user as u32);
        (slot.stamp == user >> 32 & STAMP_MASK && self.exchanges.get(slot).is_some()).then_some(slot)
    }

    pub(super) fn trusts(&self, flow: &Flow) -> bool {
        flow.is_internal() || self.parts.trusted.is_trusted(flow)
    }

    /// An INVITE that goes on as another dialog. `chain`: the filters that are behind it; without them it goes by the Route
    /// that is left, to the S-CSCF that asked.
    pub(super) fn join(
        &mut self,
        step: &mut Step<'_>,
        request: &Request<'_>,
        routed: &Routed<'_>,
        chain: Option<Chain>,
    ) {
        let Request { message, flow, .. } = *request;
        if let Some(extension) = crossing::unsupported(message) {
            return reply(step, flow, message, 420, |w| w.text(HeaderName::Unsupported, extension));
        }
        if message.list(HeaderName::Contact).next().is_none() {
            return step.reply(flow, message, 400, Some("Missing Contact"), |_| {});
        }
        let trusted = self.trusts(flow) || routed.from_node;
        let clean = self.cleaned(message, trusted, routed);
        let Ok(clean) = Message::parse(&clean) else { return };
        let call_id = message.call_id().unwrap_or_default();
        // A caller who tries again, with credentials or another timer, goes on in its far dialog too (RFC 3261 §8.1.3.5).
        let tag = message.from_tag().unwrap_or_default();
        let number = message.cseq().map_or(1, |cseq| cseq.number);
        let made = |what: &[u8]| hex16(step.endpoint.seal(&[b"joined", what, call_id, tag, message.request_uri()]));
        let far_call_id = [made(b"one"), made(b"two")].concat();
        let far_tag = made(b"tag");
        let contacts = self.contacts(flow, message.request_uri());
        let asserted = match &request.caller {
            Caller::User(user) if !trusted => Some(user),
            _ => None,
        };
        let mut invite = Vec::with_capacity(message.bytes().len() + 512);
        build::Request::new(Method::Invite, message.request_uri()).write(&mut invite, |w| {
            if let Some(chain) = &chain {
                let by = Flow::INTERNAL;
                let sent_by = self.parts.home.sent_by(by.transport, by.remote.ip());
                w.header(HeaderName::Route, |v| chain.write_back(by.transport, sent_by, &self.parts.seals, v));
            }
            w.copy(&clean, HeaderName::Route);
            w.number(HeaderName::MaxForwards, validate::next_max_forwards(message).map_or(0, u64::from));
            let party = |name, tag: &[u8], v: &mut Vec<u8>| {
                if let Some(address) = message.value(name).and_then(NameAddr::parse) {
                    NameAddr { params: Params::default(), ..address }.write(v);
                }
                if !tag.is_empty() {
                    v.extend_from_slice(b";tag=");
                    v.extend_from_slice(tag);
                }
            };
            w.header(HeaderName::From, |v| party(HeaderName::From, &far_tag, v));
            w.header(HeaderName::To, |v| party(HeaderName::To, b"", v));
            w.text(HeaderName::CallId, &far_call_id);
            w.cseq(number, Method::Invite);
            if let Some(user) = asserted {
                w.header(HeaderName::PAssertedIdentity, |v| forward::write_identity(user, &self.parts.home, v));
            }
            crossing::write_contact(w, &clean, &contacts[Side::Far as usize]);
            crossing::write(w, &clean, &self.parts.joints);
        });
        let (invite, requested) = match timed(invite) {
            Ok(timed) => timed,
            Err(TooSmall { min_se }) => {
                return reply(step, flow, message, 422, |w| w.number(HeaderName::MinSe, min_se.into()));
            }
        };
        let accepted =
            if self.parts.joints.is_full() { None } else { step.endpoint.accept(flow, message, NOBODY).ok() };
        let Some(server) = accepted else {
            return reply(step, flow, message, 503, |w| w.number(HeaderName::RetryAfter, 2));
        };
        step.endpoint.keep_original(server);
        trying(step, server, message);
        let in_books = routed.from_node || routed.chain.is_some();
        let charged = if in_books { &b""[..] } else { call_id };
        self.mark_joined(call_id, &far_call_id);
        self.note_of(charged, message, NoteEvent::CallAttempt, 0);
        let opening = Opening {
            invite: invite.as_slice().into(),
            contacts,
            flow: flow_of(flow, message),
            charged: charged.into(),
            joints: Vec::new(),
            rang: false,
            answered: false,
        };
        let of = Of::Opening(Box::new(opening));
        let (method, from) = (Method::Invite, Side::Near);
        self.exchange(step, Some(server), Crossing { method, from, source: *flow, of, requested, written: &invite });
    }

    /// The request as it may cross: what an untrusted sender may not say, credentials that were for us, and Route entries of
    /// ours are left out.
    fn cleaned(&mut self, message: &Message<'_>, trusted: bool, routed: &Routed<'_>) -> Vec<u8> {
        let from = if trusted { Neighbour::Trusted } else { Neighbour::Untrusted };
        let Proxy { parts, edits, .. } = self;
        edits.clear();
        privacy::arriving(message, from, true, edits);
        routed.popped.iter().for_each(|range| edits.delete(range.clone()));
        forward::drop_credentials(message, &parts.home, edits);
        let mut out = Vec::with_capacity(message.bytes().len());
        edits.apply(message.bytes(), &mut out);
        out
    }

    /// Our Contact on either side: an address without a user, so that nobody takes it for one. The far end comes by our
    /// Record-Route: any door of ours will do.
    fn contacts(&self, near: &Flow, uri: &[u8]) -> [Box<[u8]>; 2] {
        let home = &self.parts.home;
        let scheme: &[u8] =
            if uri.get(..5).is_some_and(|s| s.eq_ignore_ascii_case(b"sips:")) { b"sips" } else { b"sip" };
        let far = if home.listens_over(Transport::Udp) { Transport::Udp } else { near.transport };
        [near.transport, far].map(|transport| {
            let mut contact = [b"<", scheme, b":", home.sent_by(transport, near.remote.ip())].concat();
            if transport != Transport::Udp {
                contact.extend_from_slice(b";transport=");
                contact.extend_from_slice(transport.uri_token().as_bytes());
            }
            contact.push(b'>');
            contact.into()
        })
    }

    /// A request of a dialog that is joined to another.
    pub(super) fn within(
        &mut self,
        step: &mut Step<'_>,
        flow: &Flow,
        message: &Message<'_>,
        joint: Arc<Joint>,
        side: Side,
    ) {
        let method = message.method();
        let routed = Routed::of(message, &self.parts.home, &self.parts.seals);
        let trusted = self.trusts(flow);
        let clean = self.cleaned(message, trusted, &routed);
        let Ok(clean) = Message::parse(&clean) else { return };
        let there = side.other();
        let mut legs = joint.lock();
        if method == Method::Ack {
            return self.acknowledged(step, &clean, &legs, side);
        }
        if legs[side].dialog.receive(message).is_err() {
            return reply(step, flow, message, 500, |_| {});
        }
        if legs.is_ended() && method == Method::Bye {
            return reply(step, flow, message, 200, |_| {});
        }
        if legs[there].dialog.state() == DialogState::Terminated {
            return reply(step, flow, message, 481, |_| {});
        }
        if matches!(method, Method::Other | Method::Register | Method::Publish) {
            return reply(step, flow, message, 405, |w| w.text(HeaderName::Allow, ALLOW));
        }
        if let Some(extension) = crossing::unsupported(message) {
            return reply(step, flow, message, 420, |w| w.text(HeaderName::Unsupported, extension));
        }
        if validate::next_max_forwards(message).is_err() {
            return reply(step, flow, message, 483, |_| {});
        }
        let changes = method == Method::Invite || method == Method::Update && !message.body().is_empty();
        match legs.changing.filter(|_| changes) {
            Some(who) if who == side => {
                return reply(step, flow, message, 500, |w| w.number(HeaderName::RetryAfter, GLARE_RETRY));
            }
            Some(_) => return reply(step, flow, message, 491, |_| {}),
            None => {}
        }
        let came = message.cseq().map_or(0, |c| c.number);
        let (invite, contact) = (legs[side].invite, legs[there].contact.clone());
        let joints = &self.parts.joints;
        let written = write_in_dialog(&mut legs[there].dialog, method, message.bytes().len(), |w| {
            crossing::write_contact(w, &clean, &contact);
            crossing::write_rack(w, &clean, invite);
            crossing::write(w, &clean, joints);
        });
        let Some(written) = written else { return reply(step, flow, message, 481, |_| {}) };
        let (written, requested) = match method {
            Method::Invite | Method::Update => match timed(written) {
                Ok(timed) => timed,
                Err(TooSmall { min_se }) => {
                    return reply(step, flow, message, 422, |w| w.number(HeaderName::MinSe, min_se.into()));
                }
            },
            _ => (written, None),
        };
        let Ok(server) = step.endpoint.accept(flow, message, NOBODY) else {
            return reply(step, flow, message, 503, |w| w.number(HeaderName::RetryAfter, 2));
        };
        step.endpoint.keep_original(server);
        if method == Method::Invite {
            legs[side].invite = Some((came, legs[there].dialog.local_sequence().unwrap_or(1)));
            trying(step, server, message);
        }
        if changes {
            legs.changing = Some(side);
        }
        if method == Method::Notify && is_last(message) {
            legs.subscribed(false);
        }
        let written = self.led(&legs[there], written);
        drop(legs);
        let of = Of::Call(joint);
        let crossing = Crossing { method, from: side, source: *flow, of, requested, written: &written };
        self.exchange(step, Some(server), crossing);
    }

    /// An ACK for a 2xx crosses without a transaction.
    fn acknowledged(&mut self, step: &mut Step<'_>, ack: &Message<'_>, legs: &Legs, side: Side) {
        let number = ack.cseq().map(|c| c.number);
        let Some((_, went)) = legs[side].invite.filter(|(came, _)| Some(*came) == number) else { return };
        let mut written = Vec::with_capacity(ack.bytes().len() + 256);
        let by = Flow::INTERNAL;
        let sent_by = self.parts.home.sent_by(by.transport, by.remote.ip());
        // The same ACK sent again gets the same branch.
        let branch = step.endpoint.seal(&[b"ack", legs[side].dialog.id().call_id, &went.to_be_bytes()]);
        let via = |v: &mut Vec<u8>| {
            v.extend_from_slice(&[b"SIP/2.0/", by.transport.via_token().as_bytes(), b" ", sent_by].concat());
            v.extend_from_slice(b";branch=z9hG4bKj");
            v.extend_from_slice(&hex16(branch));
        };
        legs[side.other()].dialog.write_ack(went, &mut written, via, |w| crossing::write(w, ack, &self.parts.joints));
        let written = self.led(&legs[side.other()], written);
        step.out.push_bytes(Hop::Flow(by), Transmit::NO_TOKEN, &written);
    }

    /// The only way to a phone is the connection that it opened: our Route entry leads over it.
    fn led(&self, leg: &Leg, written: Vec<u8>) -> Vec<u8> {
        let Some(flow) = &leg.flow else { return written };
        let Ok(message) = Message::parse(&written) else { return written };
        let call_id = leg.dialog.id().call_id;
        let token = crate::route::write_flow(flow, Kind::Flow, &self.parts.seals, call_id);
        let sent_by = self.parts.home.sent_by(flow.transport, flow.remote.ip());
        let mut edits = Edits::new();
        edits.insert_header(message.headers_start(), HeaderName::Route, |v| {
            write_record_route(v, flow.transport, sent_by, &token, &self.parts.seals.of_call(call_id), b"");
        });
        let mut out = Vec::with_capacity(written.len() + 256);
        edits.apply(&written, &mut out);
        out
    }

    fn exchange(&mut self, step: &mut Step<'_>, server: Option<ServerId>, crossing: Crossing<'_>) {
        let Crossing { method, from, source, of, requested, written } = crossing;
        let stamp = self.next_stamp();
        let changes = matches!((&of, method), (Of::Call(_), Method::Invite))
            || method == Method::Update && Message::parse(written).is_ok_and(|m| !m.body().is_empty());
        let slot = Slot { index: self.exchanges.next_index(), stamp };
        let user = JOINED | token_of(slot);
        let Some(client) = self.send_inside(step, written, method, user, server) else { return };
        let exchange = Exchange { server, client, method, from, source, of, requested, changes };
        self.exchanges.insert(stamp, exchange);
        if let Some(user_of) = server.and_then(|server| step.endpoint.server_user(server)) {
            *user_of = user;
        }
    }

    /// Sends a request without a Via to ourselves.
    fn send_inside(
        &self,
        step: &mut Step<'_>,
        written: &[u8],
        method: Method,
        user: u64,
        server: Option<ServerId>,
    ) -> Option<ClientId> {
        let start = Message::parse(written).ok()?.headers_start();
        let hop = Hop::Flow(Flow::INTERNAL);
        let sent_by = self.parts.home.sent_by(hop.transport(), hop.remote().ip());
        let branch = step.endpoint.branch(0);
        let outgoing = Outgoing { branch, method, hop, user, server };
        Some(step.endpoint.request(step.now, outgoing, step.out, |b| {
            b.extend_from_slice(&written[..start]);
            write_via(b, hop.transport(), sent_by, &branch);
            b.extend_from_slice(&written[start..]);
        }))
    }

    /// The caller gave up.
    pub(super) fn join_cancelled(&mut self, step: &mut Step<'_>, user: u64) {
        if let Some(exchange) = self.exchange_slot(user).and_then(|slot| self.exchanges.get(slot)) {
            step.endpoint.cancel(step.now, exchange.client, step.out);
        }
    }

    /// A response to what went on.
    pub(super) fn join_response(&mut self, step: &mut Step<'_>, user: u64, message: &Message<'_>) {
        let Some(slot) = self.exchange_slot(user).filter(|_| message.status() > 100) else { return };
        match self.exchanges.get(slot).map(|x| &x.of) {
            Some(Of::Opening(_)) => self.opened(step, slot, message),
            Some(Of::Call(joint)) => {
                let joint = joint.clone();
                self.answered(step, slot, &joint, message);
            }
            None => {}
        }
    }

    /// A response to an INVITE that begins a call.
    fn opened(&mut self, step: &mut Step<'_>, slot: Slot, message: &Message<'_>) {
        let status = message.status();
        let parts = self.parts.clone();
        let Some(exchange) = self.exchanges.get_mut(slot) else { return };
        let Some(server) = exchange.server else { return };
        let Of::Opening(opening) = &mut exchange.of else { return };
        let Some(original) = step.endpoint.kept_original(server).map(<[u8]>::to_vec) else { return };
        let Ok(original) = Message::parse(&original) else { return };
        let (source, requested) = (exchange.source, exchange.requested);
        let call_id = original.call_id().unwrap_or_default();
        let far_tag = message.to_tag().unwrap_or_default();
        let charged = opening.charged.clone();
        if status >= 300 {
            opening.joints.iter().for_each(|joint| parts.joints.remove(joint));
            self.exchanges.remove(slot);
            self.note_of(&charged, &original, NoteEvent::CallFailed, status);
            let tag = step.endpoint.local_tag(call_id);
            return self.pass_over(step, server, &source, message, &tag, b"");
        }
        let known = opening.joints.iter().find(|joint| joint.is_with(far_tag)).cloned();
        let near_tag = hex16(step.endpoint.seal(&[b"near", call_id, far_tag, &opening.invite]));
        let joint = match known {
            Some(joint) => joint,
            None => {
                let room = opening.joints.len() < MAX_FORKS;
                let invite = Message::parse(&opening.invite).ok().filter(|_| room);
                let far = invite.and_then(|invite| Dialog::uac(&invite, message).ok());
                let (Some(far), Ok(near)) = (far, Dialog::uas(&original, &near_tag)) else {
                    let tag = step.endpoint.local_tag(call_id);
                    match status {
                        // Ringing without a tag makes no dialog; an answer must.
                        ..200 => self.pass_over(step, server, &source, message, &tag, b""),
                        _ if opening.joints.is_empty() => {
                            self.exchanges.remove(slot);
                            self.note_of(&charged, &original, NoteEvent::CallFailed, 502);
                            self.answer(step, server, 502);
                        }
                        _ => {}
                    }
                    return;
                };
                let [near_contact, far_contact] = opening.contacts.clone();
                let invite = original.cseq().map(|cseq| (cseq.number, cseq.number));
                let near = Leg { dialog: near, contact: near_contact, flow: opening.flow, invite };
                let far = Leg { dialog: far, contact: far_contact, flow: None, invite: None };
                let joint = parts.joints.insert(near, far, &charged);
                opening.joints.push(joint.clone());
                joint
            }
        };
        let (rings, answers) = (status == 180 && !opening.rang, status >= 200 && !opening.answered);
        opening.rang |= rings;
        opening.answered |= answers;
        let mut legs = joint.lock();
        let timed = if status >= 200 { self.timed_answer(requested, message) } else { None };
        let message =
            timed.as_ref().and_then(|(bytes, _)| Message::parse(bytes).ok()).unwrap_or_else(|| message.clone());
        let first = legs[Side::Near].dialog.state() == DialogState::Early;
        if first || status < 200 {
            legs[Side::Far].dialog.response(&message);
        }
        if status >= 200 && first {
            legs[Side::Near].dialog.responded(&original, status);
            let at = legs.refreshed(step.now, timed.as_ref().and_then(|(_, seconds)| *seconds));
            step.endpoint.wake(at, JOINED | joint.number);
        }
        let contact = legs[Side::Near].contact.clone();
        drop(legs);
        self.pass_over(step, server, &source, &message, &near_tag, &contact);
        if rings {
            self.note_of(&charged, &original, NoteEvent::CallRinging, status);
        }
        if answers {
            step.endpoint.wake(step.now + ACCEPTED, JOINED | EXCHANGE | token_of(slot));
            self.note_of(&charged, &original, NoteEvent::CallAnswered, status);
        }
    }

    /// A response to a request within a call.
    fn answered(&mut self, step: &mut Step<'_>, slot: Slot, joint: &Arc<Joint>, message: &Message<'_>) {
        let status = message.status();
        let Some(exchange) = self.exchanges.get(slot) else { return };
        let (server, method, side, source) = (exchange.server, exchange.method, exchange.from, exchange.source);
        let (requested, changes, there) = (exchange.requested, exchange.changes, side.other());
        let original = server.and_then(|server| step.endpoint.kept_original(server)).map(<[u8]>::to_vec);
        let original = original.as_deref().and_then(|bytes| Message::parse(bytes).ok());
        let mut legs = joint.lock();
        if status < 200 {
            let contact = legs[side].contact.clone();
            drop(legs);
            if let Some(server) = server {
                self.pass_over(step, server, &source, message, b"", &contact);
            }
            return;
        }
        let timed = if status < 300 { self.timed_answer(requested, message) } else { None };
        let timed_message = timed.as_ref().and_then(|(bytes, _)| Message::parse(bytes).ok());
        let message = timed_message.as_ref().unwrap_or(message);
        let impact = legs[there].dialog.response(message);
        if let Some(original) = &original {
            let status = if method == Method::Bye && !matches!(status, 401 | 407) { 200 } else { status };
            legs[side].dialog.responded(original, status);
        }
        if changes && legs.changing == Some(side) {
            legs.changing = None;
        }
        if status < 300 {
            match method {
                Method::Invite | Method::Update if legs[Side::Near].dialog.state() == DialogState::Confirmed => {
                    // An answer without a timer ends the one that ran (RFC 4028 §9).
                    let at = legs.refreshed(step.now, timed.as_ref().and_then(|(_, seconds)| *seconds));
                    step.endpoint.wake(at, JOINED | joint.number);
                }
                Method::Refer if !has_token(message, HeaderName::ReferSub, "false") => legs.subscribed(true),
                _ => {}
            }
        }
        let contact = legs[side].contact.clone();
        if method == Method::Invite && status < 300 {
            // Sent again until its ACK has crossed.
            step.endpoint.wake(step.now + ACCEPTED, JOINED | EXCHANGE | token_of(slot));
        } else {
            self.exchanges.remove(slot);
        }
        let hung_up = method == Method::Bye && !matches!(status, 401 | 407);
        if hung_up {
            self.end(step, joint, &mut legs);
        } else if impact != Impact::None && impact != Impact::Transaction && ends_the_call(method) {
            self.hang_up(step, joint, &mut legs);
        }
        drop(legs);
        match server {
            // Whoever hangs up has hung up, whatever the other end says to it.
            Some(server) if hung_up && status >= 300 => {
                self.answer(step, server, 200);
            }
            Some(server) => self.pass_over(step, server, &source, message, b"", &contact),
            None => {}
        }
    }

    /// Nobody has answered what went on.
    pub(super) fn join_lapsed(&mut self, step: &mut Step<'_>, user: u64) {
        let Some(exchange) = self.exchange_slot(user).and_then(|slot| self.exchanges.remove(slot)) else { return };
        let Exchange { server, method, from, of, changes, .. } = exchange;
        match of {
            Of::Opening(opening) if opening.answered => {}
            Of::Opening(opening) => {
                opening.joints.iter().for_each(|joint| self.parts.joints.remove(joint));
                let original = server.and_then(|s| step.endpoint.kept_original(s)).map(<[u8]>::to_vec);
                if let Some(original) = original.as_deref().and_then(|bytes| Message::parse(bytes).ok()) {
                    self.note_of(&opening.charged, &original, NoteEvent::CallFailed, 408);
                }
                if let Some(server) = server {
                    self.answer(step, server, 408);
                }
            }
            Of::Call(joint) => {
                let mut legs = joint.lock();
                if changes && legs.changing == Some(from) {
                    legs.changing = None;
                }
                if method == Method::Bye {
                    legs[from].dialog.terminate();
                    legs[from.other()].dialog.terminate();
                    self.end(step, &joint, &mut legs);
                } else if ends_the_call(method) {
                    self.hang_up(step, &joint, &mut legs);
                }
                drop(legs);
                match (server, method) {
                    (Some(server), Method::Bye) => {
                        self.answer(step, server, 200);
                    }
                    (Some(server), Method::Invite) => {
                        self.answer(step, server, 408);
                    }
                    // RFC 4320 §4.2.
                    (Some(server), _) => step.endpoint.abandon(server),
                    (None, _) => {}
                }
            }
        }
    }

    /// A timer of a joint, or the end of an exchange whose 2xx may have come again.
    pub(super) fn join_due(&mut self, step: &mut Step<'_>, token: u64) {
        if token & EXCHANGE != 0 {
            let Some(slot) = self.exchange_slot(token) else { return };
            if let Some(Exchange { of: Of::Opening(opening), .. }) = self.exchanges.remove(slot) {
                // Ends that only rang (RFC 3261 §13.2.2.4).
                for joint in opening.joints {
                    if joint.lock()[Side::Near].dialog.state() == DialogState::Early {
                        self.parts.joints.remove(&joint);
                    }
                }
            }
            return;
        }
        let Some(joint) = self.parts.joints.by_number(token & !JOINED) else { return };
        let mut legs = joint.lock();
        match legs.due(step.now) {
            None => {}
            Some(Due::Later(at)) => step.endpoint.wake(at, token),
            Some(Due::Over) => self.parts.joints.remove(&joint),
            Some(Due::Expired) => self.hang_up(step, &joint, &mut legs),
            Some(Due::Audit(at)) => {
                step.endpoint.wake(at, token);
                for side in Side::BOTH {
                    let Some(written) = write_in_dialog(&mut legs[side].dialog, Method::Options, 0, |_| {}) else {
                        continue;
                    };
                    let written = self.led(&legs[side], written);
                    let crossing = Crossing {
                        method: Method::Options,
                        from: side.other(),
                        source: Flow::INTERNAL,
                        of: Of::Call(joint.clone()),
                        requested: None,
                        written: &written,
                    };
                    self.exchange(step, None, crossing);
                }
            }
        }
    }

    /// Ends the call at both ends.
    fn hang_up(&mut self, step: &mut Step<'_>, joint: &Joint, legs: &mut Legs) {
        if legs.is_ended() || legs[Side::Near].dialog.state() != DialogState::Confirmed {
            return;
        }
        for side in Side::BOTH {
            let bye = write_in_dialog(&mut legs[side].dialog, Method::Bye, 0, |w: &mut Writer<'_>| {
                w.text(HeaderName::Reason, b"SIP;cause=408;text=\"The Other End Is Gone\"");
            });
            if let Some(bye) = bye {
                let bye = self.led(&legs[side], bye);
                self.send_inside(step, &bye, Method::Bye, NOBODY, None);
            }
            legs[side].dialog.terminate();
        }
        self.end(step, joint, legs);
    }

    fn end(&self, step: &mut Step<'_>, joint: &Joint, legs: &mut Legs) {
        if legs.is_ended() {
            return;
        }
        let at = legs.end(step.now);
        step.endpoint.wake(at, JOINED | joint.number);
        self.note_parties(
            &joint.charged,
            NoteEvent::CallEnded,
            200,
            [legs[Side::Near].dialog.remote(), legs[Side::Near].dialog.local()],
        );
    }

    /// Sends a response on in the other dialog. `tag` is ours there, if the request had none; `contact` is ours, or empty.
    fn pass_over(
        &mut self,
        step: &mut Step<'_>,
        server: ServerId,
        source: &Flow,
        message: &Message<'_>,
        tag: &[u8],
        contact: &[u8],
    ) {
        let Some(original) = step.endpoint.kept_original(server).map(<[u8]>::to_vec) else { return };
        let Ok(original) = Message::parse(&original) else { return };
        let to = if self.trusts(source) { Neighbour::Trusted } else { Neighbour::Untrusted };
        let Proxy { parts, edits, .. } = self;
        edits.clear();
        // A response is never critical (RFC 3323 §4.2); what `header` asks for happens anyway.
        let _ = privacy::leaving(message, to, Privacy::default(), None, false, edits);
        let mut clean = Vec::with_capacity(message.bytes().len());
        edits.apply(message.bytes(), &mut clean);
        let Ok(clean) = Message::parse(&clean) else { return };
        let reason = match message.start() {
            sip_proto::message::StartLine::Response { reason, .. } => std::str::from_utf8(reason).unwrap_or_default(),
            sip_proto::message::StartLine::Request { .. } => return,
        };
        let status = message.status();
        step.endpoint.respond(step.now, server, status, step.out, |b| {
            Response::to(&original, status).reason(reason).source(source.remote).tag(tag).write(b, |w| {
                crossing::write_contact(w, &clean, contact);
                crossing::write(w, &clean, &parts.joints);
            });
        });
    }

    /// The 2xx to a session refresh request, and the interval in seconds that it sets.
    fn timed_answer(&self, requested: Option<Requested>, message: &Message<'_>) -> Option<(Vec<u8>, Option<u32>)> {
        let mut edits = Edits::new();
        let seconds = requested?.forward(message, &mut edits);
        let mut out = Vec::with_capacity(message.bytes().len() + 64);
        edits.apply(message.bytes(), &mut out);
        Some((out, seconds))
    }

    fn mark_joined(&self, one: &[u8], other: &[u8]) {
        for (trace, to) in [(one, other), (other, one)] {
            self.parts.chronicle.note(&Note { trace, event: NoteEvent::Joined, status: 0, from: b"", to });
        }
    }

    fn note_of(&self, charged: &[u8], message: &Message<'_>, event: NoteEvent, status: u16) {
        let value = |name| message.value(name).unwrap_or_default();
        self.note_parties(charged, event, status, [value(HeaderName::From), value(HeaderName::To)]);
    }

    fn note_parties(&self, charged: &[u8], event: NoteEvent, status: u16, [from, to]: [&[u8]; 2]) {
        if !charged.is_empty() {
            self.parts.chronicle.note(&Note { trace: charged, event, status, from, to });
        }
    }
}

/// The request with what we want of the session's timer (RFC 4028 §8.1).
fn timed(written: Vec<u8>) -> Result<(Vec<u8>, Option<Requested>), TooSmall> {
    let mut edits = Edits::new();
    let requested = match Message::parse(&written) {
        Ok(message) => SESSION.forward(&message, &mut edits)?,
        Err(_) => None,
    };
    let mut out = Vec::with_capacity(written.len() + 64);
    edits.apply(&written, &mut out);
    Ok((out, requested))
}

/// The connection by which a phone comes that nobody else speaks for.
fn flow_of(flow: &Flow, message: &Message<'_>) -> Option<Flow> {
    let direct = message.line(HeaderName::RecordRoute).is_none();
    (direct && flow.transport.is_reliable() && !flow.is_internal()).then_some(*flow)
}

fn trying(step: &mut Step<'_>, server: ServerId, message: &Message<'_>) {
    let Some(hop) = step.endpoint.reply_hop(server) else { return };
    step.endpoint.respond(step.now, server, 100, step.out, |b| {
        Response::to(message, 100).source(hop.remote()).write(b, |_| {});
    });
}

/// Requests whose failure says that the call is over (RFC 5057 §5.1), not a subscription beside it.
fn ends_the_call(method: Method) -> bool {
    !matches!(method, Method::Notify | Method::Subscribe | Method::Refer | Method::Message)
}

/// The last NOTIFY of a subscription.
fn is_last(notify: &Message<'_>) -> bool {
    notify
        .value(HeaderName::SubscriptionState)
        .is_some_and(|v| v.get(..10).is_some_and(|s| s.eq_ignore_ascii_case(b"terminated")))
}
