//! Branches: starting them, the next group, the next address of the same target, cancelling.

use std::time::Duration;

use sip_ims::Aor;
use sip_ims::service::{Caller, NOBODY, NoteEvent, Request, Step};
use sip_proto::build::Response;
use sip_proto::endpoint::{ClientId, Outgoing, reply_hop};
use sip_proto::privacy::Neighbour;
use sip_proto::slots::Slot;
use sip_proto::transport::LONGEST_DATAGRAM_REQUEST;
use sip_proto::uri::Uri;
use sip_proto::{HeaderName, Hop, Message, Method, Transport};
use smallvec::SmallVec;

use super::shown::Shown;
use super::{BRANCH_SHIFT, NO_ANSWER_TOKEN, Proxy, reply, token_of};
use crate::fork::{Attempt, AttemptState, Fork};
use crate::forward::{self, Plan, Tokens};
use crate::route::{Routed, literal_hop};
use crate::target::{Groups, Target};

/// How long a MESSAGE waits for the phones before it counts as undelivered, so that it can be kept and acknowledged well
/// before the sender's own timer F.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(10);

impl Proxy {
    /// Takes the request into a transaction and tries its first group.
    pub(super) fn start(
        &mut self,
        step: &mut Step<'_>,
        request: Request<'_>,
        routed: &Routed<'_>,
        groups: Groups,
        diverted: Option<(Aor, &'static str)>,
    ) {
        let (flow, message) = (request.flow, request.message);
        let Ok(server) = step.endpoint.accept(flow, message, NOBODY) else {
            return reply(step, flow, message, 503, |w| w.number(HeaderName::RetryAfter, 2));
        };
        let invite = message.method() == Method::Invite;
        let begins = !message.is_in_dialog();
        let no_answer = request
            .profile
            .as_ref()
            .filter(|p| invite && p.call_settings.forward_no_answer.is_some())
            .map(|p| Duration::from_secs(u64::from(p.call_settings.no_answer_seconds)));
        let diversions = u8::from(diverted.is_some());
        let fork = Fork {
            server,
            invite,
            in_books: routed.from_node || routed.chain.is_some() || flow.is_internal(),
            source: *flow,
            caller: request.caller,
            callee: request.callee,
            profile: request.profile,
            attempts: SmallVec::new(),
            waiting: groups,
            best: None,
            challenges: Vec::new(),
            settled: false,
            closed: false,
            ringing: false,
            diverted,
            diversions,
        };
        let stamp = self.next_stamp();
        let slot = self.forks.insert(stamp, fork);
        if let Some(user) = step.endpoint.server_user(server) {
            *user = token_of(slot);
        }
        if invite {
            if begins && !routed.from_node && !flow.is_internal() {
                self.note(message, NoteEvent::CallAttempt, 0);
            }
            let hop = reply_hop(flow, message.top_via().as_ref());
            step.endpoint.respond(step.now, server, 100, step.out, |b| {
                Response::to(message, 100).source(hop.remote()).write(b, |_| {});
            });
            if let Some(after) = no_answer {
                step.endpoint.wake(step.now + after, NO_ANSWER_TOKEN | token_of(slot));
            }
        }
        if message.method() == Method::Message && self.forks.get(slot).is_some_and(|f| f.callee.is_some()) {
            step.endpoint.wake(step.now + MESSAGE_PATIENCE, NO_ANSWER_TOKEN | token_of(slot));
        }
        self.launch(step, slot, message, routed);
        self.advance(step, slot);
    }

    /// Starts on the next group that waits.
    fn launch(&mut self, step: &mut Step<'_>, slot: Slot, message: &Message<'_>, routed: &Routed<'_>) {
        let Some(fork) = self.forks.get_mut(slot) else { return };
        if fork.waiting.is_empty() {
            return;
        }
        let group = fork.waiting.remove(0);
        let first = fork.attempts.len();
        fork.attempts.extend(group.into_iter().map(|target| Attempt {
            target,
            state: AttemptState::Resolving,
            spare: Vec::new(),
            over_tcp: None,
            neighbour: Neighbour::Untrusted,
        }));
        for index in first..fork.attempts.len() {
            self.try_target(step, slot, index, message, routed);
        }
    }

    fn try_target(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        index: usize,
        message: &Message<'_>,
        routed: &Routed<'_>,
    ) {
        let Some(attempt) = self.forks.get(slot).and_then(|f| f.attempts.get(index)) else { return };
        if let Some(hop) = attempt.target.hop.or(attempt.target.elsewhere.map(|e| e.node)) {
            return self.send(step, slot, index, hop, message, routed);
        }
        let next = attempt.target.next_hop(message.request_uri());
        let literal = Uri::parse(next).and_then(|u| literal_hop(&u));
        let hops = match literal {
            Some((_, remote)) if self.is_own_listener(remote) => Some(Vec::new()),
            Some((transport, remote)) => {
                return self.send(step, slot, index, Hop::Address { transport, remote }, message, routed);
            }
            None => self.parts.names.resolve(step.shard, token_of(slot) | (index as u64) << BRANCH_SHIFT, next),
        };
        if let Some(hops) = hops {
            self.send_to_first(step, slot, index, hops, message, routed);
        }
    }

    fn send_to_first(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        index: usize,
        hops: Vec<Hop>,
        message: &Message<'_>,
        routed: &Routed<'_>,
    ) {
        let mut hops = hops.into_iter();
        let first = hops.next();
        let Some(fork) = self.forks.get_mut(slot) else { return };
        let Some(attempt) = fork.attempts.get_mut(index) else { return };
        attempt.spare = hops.collect();
        match first {
            Some(hop) => self.send(step, slot, index, hop, message, routed),
            None => {
                attempt.state = AttemptState::Done;
                // RFC 3263 §4.2: nothing to contact counts as a 503; a domain that does not exist is the caller's mistake.
                let status = if attempt.target.binding { 480 } else { 404 };
                fork.conclude_with(status);
            }
        }
    }

    fn send(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        index: usize,
        hop: Hop,
        message: &Message<'_>,
        routed: &Routed<'_>,
    ) {
        let Some(target) = self.forks.get(slot).and_then(|f| f.attempts.get(index)).map(|a| &a.target) else { return };
        // A node of ours does the rest.
        let to = if target.elsewhere.is_some() {
            Neighbour::Trusted
        } else {
            self.neighbour(target.binding || routed.from_node, &hop)
        };
        let Proxy { parts, forks, edits, .. } = self;
        let Some(fork) = forks.get_mut(slot) else { return };
        let handed_over = fork.attempts.get(index).is_some_and(|a| a.target.is_node());
        let by_web = matches!(fork.source.transport, Transport::Ws | Transport::Wss);
        let shown = match &parts.media {
            // A phone reaches that node as it reaches us; a browser sends its media where it came in.
            Some(media) if handed_over && !by_web => {
                media.passes_by(message);
                Shown { body: None, hidden: parts.hides(message) }
            }
            _ => parts.shown(message, message.is_in_dialog() || to == Neighbour::Untrusted),
        };
        let link = fork.attempts.get(index).and_then(|a| a.target.link.clone());
        if link.is_some() {
            step.endpoint.wake(step.now + super::isc::SERVER_PATIENCE, NO_ANSWER_TOKEN | token_of(slot));
        }
        let plan = Plan {
            home: &parts.home,
            seals: &parts.seals,
            message,
            routed,
            source: &fork.source,
            asserted: if let Caller::User(user) = &fork.caller { Some(user) } else { None },
            trusted: matches!(fork.caller, Caller::Trusted),
            to,
            body: shown.body.as_deref(),
            session: shown.hidden,
            // The far end of joined dialogs comes back to us, whatever it thinks of our Contact; another node, because it knows
            // no way of its own to the caller.
            record_route: parts.record_route || shown.body.is_some() || fork.source.is_internal() || handed_over,
            link: link.as_deref(),
            diverted: fork.diverted.as_ref().map(|(who, why)| (who.as_str(), *why)),
        };
        if forward::is_veiled(&plan) {
            step.endpoint.keep_original(fork.server);
        }
        let branch = step.endpoint.branch(forward::loop_hash(message, step.endpoint));
        let attempt = &mut fork.attempts[index];
        attempt.neighbour = to;
        let target = &attempt.target;
        let mut hop = hop;
        let mut tokens = Tokens::of(&plan, &hop);
        if let Some(over_tcp) = hop.over_tcp()
            && attempt.over_tcp != Some(hop.remote())
            && parts.home.listens_over(Transport::Tcp)
            && forward::is_longer(&plan, target, &hop, &branch, tokens.as_ref(), edits, LONGEST_DATAGRAM_REQUEST)
        {
            attempt.over_tcp = Some(hop.remote());
            attempt.spare.insert(0, hop);
            hop = over_tcp;
            tokens = Tokens::of(&plan, &hop);
        }
        let outgoing =
            Outgoing { branch, method: message.method(), hop, user: token_of(slot), server: Some(fork.server) };
        let client = step.endpoint.request(step.now, outgoing, step.out, |b| {
            forward::write(&plan, target, &hop, &branch, tokens.as_ref(), edits, b);
        });
        attempt.state = AttemptState::Trying(client);
    }

    /// The name of a target was looked up.
    pub(super) fn target_resolved(&mut self, step: &mut Step<'_>, slot: Slot, index: usize, hops: Vec<Hop>) {
        let waits = self
            .forks
            .get(slot)
            .and_then(|f| f.attempts.get(index))
            .is_some_and(|a| a.state == AttemptState::Resolving);
        if waits {
            let hops = hops.into_iter().filter(|h| !self.is_own_listener(h.remote())).collect();
            self.with_original(step, slot, |proxy, step, message, routed| {
                proxy.send_to_first(step, slot, index, hops, message, routed);
            });
            self.advance(step, slot);
        }
    }

    /// Nobody answered on this branch, or it could not be delivered.
    pub(super) fn attempt_lapsed(&mut self, step: &mut Step<'_>, slot: Slot, client: ClientId, unreachable: bool) {
        let Some(fork) = self.forks.get_mut(slot) else { return };
        let Some(index) = fork.position(client) else { return };
        let attempt = &mut fork.attempts[index];
        // Who took the request over TCP does not need it as a datagram.
        let same = |h: &Hop| h.transport() == Transport::Udp && attempt.over_tcp == Some(h.remote());
        if !unreachable && attempt.spare.first().is_some_and(same) {
            attempt.spare.remove(0);
        }
        // RFC 3263 §4.3: the next address, if the target has one.
        if !fork.closed && !attempt.spare.is_empty() {
            let hop = attempt.spare.remove(0);
            self.with_original(step, slot, |proxy, step, message, routed| {
                proxy.send(step, slot, index, hop, message, routed);
            });
            return;
        }
        attempt.state = AttemptState::Done;
        let target = &attempt.target;
        let over_flow = matches!(target.hop, Some(Hop::Flow(flow)) if flow.transport.is_reliable());
        let status = match (unreachable, target.binding) {
            (true, true) => {
                // An ICMP error, or a node that cannot be reached, is a hint, and no more; a connection that is gone is a fact.
                let sure = target.hop.is_none_or(|h| h.transport() != Transport::Udp) && target.elsewhere.is_none();
                if let Some(aor) = fork.callee.as_ref().filter(|_| sure) {
                    self.parts.location.failed(aor.as_str(), &target.reach());
                }
                480
            }
            (true, false) if target.is_node() => 480,
            // RFC 5626 §5.3.1: the flow of a Route of ours is gone.
            (true, false) if over_flow => 430,
            // RFC 3261 §16.7 step 6: a 503 is not passed on.
            (true, false) => 500,
            (false, _) => 408,
        };
        fork.conclude_with(status);
        self.advance(step, slot);
    }

    /// The callee did not answer in the time that the profile gives, or in the time that a message waits for a phone.
    pub(super) fn no_answer(&mut self, step: &mut Step<'_>, slot: Slot) {
        let Some(fork) = self.forks.get_mut(slot) else { return };
        if fork.attempts.last().is_some_and(|a| a.target.link.is_some()) {
            return self.server_silent(step, slot);
        }
        if !fork.invite {
            fork.attempts.iter_mut().for_each(|a| a.state = AttemptState::Done);
            fork.waiting.clear();
            fork.conclude_with(408);
            return self.advance(step, slot);
        }
        if fork.settled || fork.closed || fork.diverted.is_some() {
            return;
        }
        let Some(uri) = fork.profile.as_ref().and_then(|p| p.call_settings.forward_no_answer.clone()) else { return };
        if self.redirect(step, slot, &uri, "no-answer") {
            self.cancel_branches(step, slot, None);
            self.next_group(step, slot);
        }
    }

    /// Sets the fork on a forwarding address. False if that leads nowhere.
    pub(super) fn redirect(&mut self, step: &mut Step<'_>, slot: Slot, uri: &str, why: &'static str) -> bool {
        let groups = match self.route_back(step, slot) {
            // Whoever asked for the callee's services finds the way to the other.
            Some(next) => {
                let mut target = Target::route(&next);
                target.uri = uri.as_bytes().into();
                Some(super::one(target))
            }
            None => self.diverted_on(step, slot, uri),
        };
        let Some(groups) = groups else { return false };
        let Some(fork) = self.forks.get_mut(slot) else { return false };
        if fork.diversions >= super::MAX_DIVERSIONS {
            return false;
        }
        fork.diversions += 1;
        fork.diverted = fork.callee.clone().map(|aor| (aor, why));
        fork.waiting = groups;
        fork.best = None;
        let server = fork.server;
        self.answer(step, server, 181);
        true
    }

    fn diverted_on(&self, step: &Step<'_>, slot: Slot, uri: &str) -> Option<Groups> {
        let message = Message::parse(step.endpoint.original(self.forks.get(slot)?.server)?).ok()?;
        self.divert(step, &message, uri)
    }

    /// The Route by which an S-CSCF wants the fork's request back.
    fn route_back(&self, step: &Step<'_>, slot: Slot) -> Option<Box<[u8]>> {
        let message = Message::parse(step.endpoint.original(self.forks.get(slot)?.server)?).ok()?;
        Routed::of(&message, &self.parts.home, &self.parts.seals).next.map(Box::from)
    }

    /// Tries the group that waits, with the request as it came.
    pub(super) fn next_group(&mut self, step: &mut Step<'_>, slot: Slot) {
        self.with_original(step, slot, |proxy, step, message, routed| proxy.launch(step, slot, message, routed));
    }

    /// The caller gave up.
    pub(super) fn cancelled(&mut self, step: &mut Step<'_>, slot: Slot) {
        let Some(fork) = self.forks.get_mut(slot) else { return };
        if fork.settled {
            return;
        }
        fork.closed = true;
        fork.waiting.clear();
        fork.conclude_with(487);
        self.cancel_branches(step, slot, None);
        self.advance(step, slot);
    }

    /// Cancels every branch that is still open but one.
    pub(super) fn cancel_branches(&mut self, step: &mut Step<'_>, slot: Slot, but: Option<usize>) {
        let Some(fork) = self.forks.get_mut(slot) else { return };
        for (index, attempt) in fork.attempts.iter_mut().enumerate() {
            match attempt.state {
                _ if Some(index) == but => {}
                AttemptState::Trying(client) if fork.invite => step.endpoint.cancel(step.now, client, step.out),
                AttemptState::Resolving => attempt.state = AttemptState::Done,
                AttemptState::Trying(_) | AttemptState::Done => {}
            }
        }
    }

    /// Runs with the fork's request, parsed again.
    pub(super) fn with_original(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        run: impl FnOnce(&mut Proxy, &mut Step<'_>, &Message<'_>, &Routed<'_>),
    ) {
        let Some(fork) = self.forks.get(slot) else { return };
        let Some(original) = step.endpoint.original(fork.server).map(<[u8]>::to_vec) else { return };
        let Ok(message) = Message::parse(&original) else { return };
        let routed = Routed::of(&message, &self.parts.home, &self.parts.seals);
        run(self, step, &message, &routed);
    }
}
