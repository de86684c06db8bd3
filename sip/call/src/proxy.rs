//! From a request to its targets: checks, route, identity, services, location. The rest of a request's life is in
//! `proxy::branches` (sending and failing over) and `proxy::answers` (responses and time-outs).

use std::net::SocketAddr;
use std::sync::Arc;

use sip_ims::authenticate::Authenticator;
use sip_ims::criteria::Filters;
use sip_ims::gate::{Admission, Gate};
use sip_ims::history::Archive;
use sip_ims::media::Media;
use sip_ims::service::{
    Caller, Chronicle, Location, Nodes, Note, NoteEvent, Request, Service, Step, Transaction, Verdict,
};
use sip_ims::{Aor, Directory, Home, Msisdn, User};
use sip_net::driver::TransactionUser;
use sip_proto::build::Writer;
use sip_proto::endpoint::{ClientId, Lapsed, ServerId, hex16};
use sip_proto::headers::{NameAddr, Warning};
use sip_proto::privacy::Neighbour;
use sip_proto::slots::{Slot, Slots};
use sip_proto::transport::Transmit;
use sip_proto::uri::{Scheme, Uri};
use sip_proto::{Edits, Flow, FlowId, HeaderName, Hop, Message, Method, validate};
use smallvec::SmallVec;

use crate::b2bua::Joints;
use crate::chain::{Chain, Spent};
use crate::fork::Fork;
use crate::forward::{self, Plan};
use crate::route::{Routed, literal_hop, mend_strict};
use crate::screen::Screen;
use crate::seal::Seals;
use crate::target::{Groups, Target, bindings, of_gruu};
use crate::veil;
use joined::Exchange;

mod answers;
mod branches;
mod isc;
mod joined;
mod settings;
mod shown;

/// Looks names up (RFC 3263). What takes time comes back through `Driver::resolved` with the same token.
pub trait Names: Send + Sync {
    /// The hops for a URI, best first, if they are known at once; an empty list says that there are none.
    fn resolve(&self, shard: u16, token: u64, uri: &[u8]) -> Option<Vec<Hop>>;
}

/// Whom we believe without proof.
pub trait Trusted: Send + Sync {
    /// A node of the IMS core (`sip.trusted`).
    fn is_trusted(&self, flow: &Flow) -> bool;
}

/// Who may use the proxy.
pub enum Access {
    /// Closed test nets: everybody is who they say.
    Open,
    /// Our users prove themselves by digest.
    Digest(Arc<Authenticator>),
}

/// Takes points from a flow that misbehaves.
pub type Penalise = Arc<dyn Fn(&Flow, u32) + Send + Sync>;

/// What the proxy works with. One for all shards.
pub struct ProxyParts {
    pub home: Arc<Home>,
    pub directory: Arc<Directory>,
    pub location: Arc<dyn Location>,
    /// Where others share the store.
    pub nodes: Option<Arc<dyn Nodes>>,
    pub names: Arc<dyn Names>,
    pub trusted: Arc<dyn Trusted>,
    pub access: Access,
    /// Asked in this order, behind those that a filter names.
    pub services: Vec<Arc<dyn Service>>,
    /// Asked only where a filter or a Route names them.
    pub named: Vec<Arc<dyn Service>>,
    /// The calls that such a service has us in the middle of.
    pub joints: Arc<Joints>,
    /// Which services requests meet, by user.
    pub filters: Arc<Filters>,
    /// Which of them have had their turn.
    pub spent: Spent,
    pub chronicle: Arc<dyn Chronicle>,
    /// Carries the media of sessions, if anything does.
    pub media: Option<Arc<dyn Media>>,
    /// Hides where media come from, if anything can.
    pub screen: Option<Arc<Screen>>,
    /// Judges what messages hold, if anything does.
    pub gate: Option<Arc<dyn Gate>>,
    /// Hears of messages that were delivered, if anything does.
    pub archive: Option<Arc<dyn Archive>>,
    pub record_route: bool,
    pub seals: Seals,
    /// Told of wrong credentials and malformed requests: the flow and how many points.
    pub penalise: Penalise,
}

impl ProxyParts {
    fn all_services(&self) -> impl Iterator<Item = &Arc<dyn Service>> {
        self.services.iter().chain(&self.named)
    }
}

/// The proxy of one shard.
pub struct Proxy {
    parts: Arc<ProxyParts>,
    forks: Slots<Fork>,
    exchanges: Slots<Exchange>,
    stamps: u64,
    edits: Edits,
    /// Requests without a transaction (ACK) that wait for a name.
    pending_acks: Slots<(Flow, Box<[u8]>)>,
}

/// How often a call may be forwarded on (TS 24.604 leaves it to the operator).
const MAX_DIVERSIONS: u8 = 5;
/// Points that a guess at a password costs its source.
const WRONG_PASSWORD: u32 = 5;
/// ACKs of one shard that wait for a name.
const MAX_PENDING_ACKS: usize = 1000;
/// Tokens of ours: forks have neither bit.
const ACK_TOKEN: u64 = 1 << 62;
const NO_ANSWER_TOKEN: u64 = 1 << 61;
const STAMP_MASK: u64 = (1 << 21) - 1;
/// In a look-up's token, bits 53 to 60 hold the branch.
const BRANCH_SHIFT: u32 = 53;

impl Proxy {
    pub fn new(parts: Arc<ProxyParts>) -> Proxy {
        Proxy {
            parts,
            forks: Slots::default(),
            exchanges: Slots::default(),
            stamps: 0,
            edits: Edits::new(),
            pending_acks: Slots::default(),
        }
    }

    fn next_stamp(&mut self) -> u64 {
        self.stamps = (self.stamps + 1) & STAMP_MASK;
        self.stamps
    }

    fn fork_slot(&self, user: u64) -> Option<Slot> {
        let slot = self.forks.slot_at(user as u32);
        (user >> BRANCH_SHIFT == 0 && slot.stamp == user >> 32 & STAMP_MASK && self.forks.get(slot).is_some())
            .then_some(slot)
    }
}

fn token_of(slot: Slot) -> u64 {
    slot.stamp << 32 | u64::from(slot.index)
}

/// [`Step::reply`] with the usual reason phrase.
fn reply(step: &mut Step<'_>, flow: &Flow, message: &Message<'_>, status: u16, more: impl FnOnce(&mut Writer<'_>)) {
    step.reply(flow, message, status, None, more);
}

impl TransactionUser for Proxy {
    fn request(&mut self, step: &mut Step<'_>, flow: &Flow, message: &Message<'_>) {
        if let Err(rejection) = validate::request(message) {
            if !flow.is_internal() {
                (self.parts.penalise)(flow, 1);
            }
            return step.reply(flow, message, rejection.status, Some(rejection.reason), |_| {});
        }
        if message.method() != Method::Cancel
            && let Some((joint, side)) = self.parts.joints.of_request(message)
        {
            return self.within(step, flow, message, joint, side);
        }
        let mended = mend_strict(message, &self.parts.home, &self.parts.seals);
        let mended = mended.as_deref().and_then(|bytes| Message::parse(bytes).ok());
        let message = mended.as_ref().unwrap_or(message);
        let lifted = veil::lift(message, &self.parts.home, &self.parts.seals);
        let lifted = lifted.as_deref().and_then(|bytes| Message::parse(bytes).ok());
        let message = lifted.as_ref().unwrap_or(message);
        match message.method() {
            Method::Ack => self.ack(step, flow, message),
            Method::Cancel => reply(step, flow, message, 481, |_| {}),
            _ => self.route(step, flow, message),
        }
    }

    fn cancel(&mut self, step: &mut Step<'_>, flow: &Flow, message: &Message<'_>, _invite: ServerId, user: u64) {
        reply(step, flow, message, 200, |_| {});
        if let Some(slot) = self.fork_slot(user) {
            self.cancelled(step, slot);
        } else if Proxy::is_joined(user) {
            self.join_cancelled(step, user);
        }
    }

    fn response(
        &mut self,
        step: &mut Step<'_>,
        message: &Message<'_>,
        client: ClientId,
        user: u64,
        server: Option<ServerId>,
    ) {
        if validate::response(message).is_err() {
            return;
        }
        if Proxy::is_joined(user) {
            return self.join_response(step, user, message);
        }
        match self.fork_slot(user) {
            Some(slot) => self.fork_response(step, slot, client, message),
            // The fork is long over; a 2xx to an INVITE still goes through (RFC 6026 §7.3).
            None => {
                if let (200..=299, Some(server)) = (message.status(), server) {
                    if message.method() == Method::Message {
                        let transaction = Transaction { shard: step.shard, id: server };
                        return self.parts.services.iter().for_each(|s| s.reached_late(transaction));
                    }
                    // Whose it is, and whose the request was, is forgotten: strangers'.
                    self.pass_back(step, server, message, Neighbour::Untrusted, Neighbour::Untrusted);
                }
            }
        }
    }

    fn lapsed(&mut self, step: &mut Step<'_>, lapsed: Lapsed) {
        match lapsed {
            Lapsed::Client { client, user, unreachable, .. } => {
                if let Some(slot) = self.fork_slot(user) {
                    self.attempt_lapsed(step, slot, client, unreachable);
                } else if Proxy::is_joined(user) {
                    self.join_lapsed(step, user);
                }
            }
            Lapsed::Wake { token } if token & NO_ANSWER_TOKEN != 0 => {
                if let Some(slot) = self.fork_slot(token & !NO_ANSWER_TOKEN) {
                    self.no_answer(step, slot);
                }
            }
            Lapsed::Wake { token } if token >> 60 == 1 => self.join_due(step, token),
            Lapsed::Wake { .. } | Lapsed::NoAck { .. } => {}
        }
    }

    fn resolved(&mut self, step: &mut Step<'_>, token: u64, hops: Vec<Hop>) {
        if token & ACK_TOKEN != 0 {
            self.ack_resolved(step, token, &hops);
        } else if let Some(slot) = self.fork_slot(token & ((1 << BRANCH_SHIFT) - 1)) {
            self.target_resolved(step, slot, (token >> BRANCH_SHIFT) as usize, hops);
        }
    }
}

impl Proxy {
    /// A new request that is neither ACK nor CANCEL.
    fn route(&mut self, step: &mut Step<'_>, flow: &Flow, message: &Message<'_>) {
        let parts = self.parts.clone();
        let Some(uri) = Uri::parse(message.request_uri()) else { return };
        let mut routed = Routed::of(message, &parts.home, &parts.seals);
        if forward::is_looping(message, step.endpoint) {
            return reply(step, flow, message, 482, |_| {});
        }
        let gate = parts.gate.as_ref().filter(|_| message.method() == Method::Message && !routed.from_node);
        let judged = gate.and_then(|gate| gate.settled(flow, message));
        let (caller, admission) = match judged {
            Some((caller, admission)) => (caller, Some(admission)),
            None => match self.identify(step, flow, message, &routed) {
                Ok(caller) => (caller, None),
                Err(()) => return,
            },
        };
        if !matches!(uri.scheme(), Scheme::Sip | Scheme::Sips | Scheme::Tel) && uri.scheme_text() != b"urn" {
            return reply(step, flow, message, 416, |_| {});
        }
        if let Some(gate) = gate {
            match admission.unwrap_or_else(|| gate.admits(flow, message, &caller)) {
                Admission::Passes => {}
                Admission::Waits => return,
                Admission::Refused { status, why } => return self.keep_out(step, flow, message, status, &why),
            }
        }
        let trusted = matches!(caller, Caller::Trusted);
        // An S-CSCF wants its request back: our entry is on top, and its own follows.
        if trusted
            && routed.next.is_some()
            && !routed.popped.is_empty()
            && !routed.sealed
            && !routed.from_node
            && routed.chain.is_none()
            && isc::is_triggering(message)
        {
            return self.serve(step, flow, message, uri, &routed);
        }
        if !(trusted && isc::begins(message)) {
            routed.chain = None;
        }
        if let Some(chain) = &routed.chain
            && self.returns(step, flow, message, chain).is_err()
        {
            return;
        }
        let request = Request { message, flow, uri, caller, callee: None, profile: None };
        self.dispatch(step, request, &routed, routed.chain.as_ref());
    }

    /// A request whose sender is known, from behind the last filter that it has met.
    fn dispatch(&mut self, step: &mut Step<'_>, request: Request<'_>, routed: &Routed<'_>, chain: Option<&Chain>) {
        let Request { message, flow, uri, caller, .. } = request;
        let parts = self.parts.clone();
        // In a dialog the address of another node means that one.
        let goes_on = routed.next.is_some() || routed.from_node || !isc::begins(message) && self.is_at_a_node(&uri);
        let for_us = !goes_on && (uri.is_sip() && parts.home.is_us(&uri) || parts.home.is_domain(uri.host()));
        let (callee, profile) = if goes_on { (None, None) } else { self.callee(&uri) };
        let served = chain.filter(|_| matches!(caller, Caller::Trusted)).map(|chain| self.served_by(chain));
        let mut request = Request { message, flow, uri, caller: served.unwrap_or(caller.clone()), callee, profile };
        if parts.filters.any()
            && routed.next.is_none()
            && !routed.sealed
            && !routed.from_node
            && !routed.handed_over
            && isc::is_triggering(message)
            && self.trigger(step, &request, routed, chain) == Verdict::Taken
        {
            return;
        }
        // A telephone number that is nobody's here has no domain of its own either: a service may know a way.
        let number = routed.next.is_none() && !routed.from_node && request.uri.scheme() == Scheme::Tel;
        if for_us || number || request.callee.is_some() {
            for service in &parts.services {
                match service.request(step, &request) {
                    Verdict::Taken => return,
                    Verdict::HandOver(node) => {
                        request.caller = caller;
                        return self.hand_over(step, request, routed, node);
                    }
                    Verdict::Pass | Verdict::Join => {}
                }
            }
        }
        if routed.handed_over {
            return self.refuse(step, &request, 480);
        }
        request.caller = caller;
        let local = for_us && request.callee.is_none();
        if local {
            return self.for_ourselves(step, &request, true);
        }
        if self.passable(step, &request) {
            self.proxy(step, request, routed);
        }
    }

    /// Has another node answer. It vouches for the caller as we do.
    fn hand_over(&mut self, step: &mut Step<'_>, request: Request<'_>, routed: &Routed<'_>, node: Hop) {
        // It was thought to be ours by a node that did not know better: its sender tries again.
        if routed.handed_over {
            return self.refuse(step, &request, 480);
        }
        if self.passable(step, &request) {
            let onward = Request { callee: None, profile: None, ..request };
            self.start(step, onward, routed, one(Target::node(node)), None);
        }
    }

    /// Who sends this. `Err` when a challenge or refusal has been sent.
    fn identify(
        &mut self,
        step: &mut Step<'_>,
        flow: &Flow,
        message: &Message<'_>,
        routed: &Routed<'_>,
    ) -> Result<Caller, ()> {
        let parts = &self.parts;
        if routed.handed_over {
            // The other node has left in what it believes, and has taken away what it does not.
            let vouched = message.line(HeaderName::PAssertedIdentity).is_some();
            return Ok(if vouched { Caller::Trusted } else { Caller::Foreign });
        }
        if routed.from_node || self.trusts(flow) {
            return Ok(Caller::Trusted);
        }
        // REGISTER is proved to the registrar; what carries our seal is in a dialog that was let in.
        if message.method() == Method::Register {
            return Ok(Caller::Foreign);
        }
        let name = identity_header(message);
        let from = message.value(name).and_then(NameAddr::parse).and_then(|a| a.uri());
        let claimed = from.as_ref().and_then(|uri| match uri.scheme() {
            Scheme::Tel => Msisdn::of(uri).and_then(|n| parts.directory.by_msisdn(n)),
            _ if parts.home.is_domain(uri.host()) || parts.home.is_us(uri) => {
                parts.directory.by_parts(uri.user()?, parts.home.domain().as_bytes())
            }
            _ => None,
        });
        let Access::Digest(authenticator) = &parts.access else {
            return Ok(claimed.map_or(Caller::Foreign, Caller::User));
        };
        let in_dialog = message.is_in_dialog();
        if routed.sealed || in_dialog && parts.services.iter().any(|s| s.knows(message)) {
            return Ok(claimed.map_or(Caller::Foreign, Caller::User));
        }
        let ours = from.as_ref().is_some_and(|uri| {
            uri.scheme() == Scheme::Tel && claimed.is_some()
                || parts.home.is_domain(uri.host())
                || parts.home.is_us(uri)
        });
        if !ours {
            return Ok(Caller::Foreign);
        }
        if let Some(user) = claimed.filter(|u| parts.location.authenticated(flow, u)) {
            return Ok(Caller::User(user));
        }
        match authenticator.proxy_request(message, name, step.unix) {
            Ok(user) => Ok(Caller::User(user)),
            Err(refusal) => {
                if refusal.is_suspect() {
                    (parts.penalise)(flow, WRONG_PASSWORD);
                }
                authenticator.refuse(step, flow, message, &refusal, HeaderName::ProxyAuthenticate);
                Err(())
            }
        }
    }

    /// The user of ours that a Request-URI names: by address, or by number in any of its forms.
    fn callee(&self, uri: &Uri<'_>) -> (Option<Aor>, Option<Arc<User>>) {
        let parts = &self.parts;
        if uri.scheme() == Scheme::Tel {
            let user = match Msisdn::of(uri) {
                Some(number) => parts.directory.by_msisdn(number),
                None => self.extension(uri),
            };
            return (user.as_ref().map(|u| u.aor.clone()), user);
        }
        let at_a_node = || {
            let user = uri.user().filter(|_| self.is_at_a_node(uri))?;
            Aor::from_parts(user, parts.home.domain().as_bytes()).ok()
        };
        let Some(aor) = parts.home.aor(uri).or_else(at_a_node) else { return (None, None) };
        let user = uri.user().and_then(|u| parts.directory.by_parts(u, parts.home.domain().as_bytes()));
        // RFC 3261 §19.1.6: with `user=phone` the user part is what stands after tel:, a context with it.
        let user = user.or_else(|| {
            uri.phone()?.context()?;
            Msisdn::of(uri).and_then(|n| parts.directory.by_msisdn(n)).or_else(|| self.extension(uri))
        });
        match user {
            Some(user) => (Some(user.aor.clone()), Some(user)),
            None => (Some(aor), None),
        }
    }

    /// A user at the address of another node is one of our domain, as one at ours.
    fn is_at_a_node(&self, uri: &Uri<'_>) -> bool {
        let Some(nodes) = self.parts.nodes.as_ref().filter(|_| uri.is_sip()) else { return false };
        uri.host_ip().is_some_and(|ip| nodes.has(SocketAddr::new(ip, uri.port_or_default())))
    }

    /// The user whose name is a local number, one that means something in our domain only (RFC 3966 §5.1.5).
    fn extension(&self, uri: &Uri<'_>) -> Option<Arc<User>> {
        let domain = self.parts.home.domain().as_bytes();
        let phone = uri.phone().filter(|p| p.context().is_some_and(|c| self.parts.home.is_domain(c)))?;
        self.parts.directory.by_parts(&phone.digits().collect::<SmallVec<[u8; 16]>>(), domain)
    }

    /// A request that ends here: nobody of ours behind it, or no hops left.
    fn for_ourselves(&mut self, step: &mut Step<'_>, request: &Request<'_>, local: bool) {
        let (flow, message) = (request.flow, request.message);
        let in_dialog = message.is_in_dialog();
        match message.method() {
            Method::Options => reply(step, flow, message, 200, capabilities),
            _ if !local => reply(step, flow, message, 483, |_| {}),
            _ if in_dialog => reply(step, flow, message, 481, |_| {}),
            Method::Subscribe | Method::Publish => {
                reply(step, flow, message, 489, |w| w.text(HeaderName::AllowEvents, b"reg"))
            }
            Method::Register | Method::Other => {
                reply(step, flow, message, 405, |w| w.text(HeaderName::Allow, ALLOW));
            }
            _ => reply(step, flow, message, 404, |_| {}),
        }
    }

    /// Finds the targets of a request and starts on them.
    fn proxy(&mut self, step: &mut Step<'_>, request: Request<'_>, routed: &Routed<'_>) {
        let parts = self.parts.clone();
        if let Some(status) = self.barred(&request) {
            return self.refuse(step, &request, status);
        }
        let screened = match self.private_enough(request.message, routed) {
            Ok(screened) => screened,
            Err(failure) => return self.refuse_with(step, &request, 500, Some(&failure.to_string())),
        };
        let mut diverted = None;
        let groups = if let Some(next) = routed.next {
            if !self.may_leave(&request, routed) {
                return self.refuse(step, &request, 403);
            }
            let mut target = Target::route(next);
            if let Some(uri) = settings::unconditional(&request) {
                // The S-CSCF that asks for this user's services sends the request on to somebody else (TS 24.604 §4.5.2.6).
                target.uri = uri.as_bytes().into();
                diverted = request.callee.clone().map(|aor| (aor, "unconditional"));
            }
            one(target)
        } else if let Some(flow) = routed.flow {
            one(Target::hop(Hop::Flow(flow)))
        } else if request.uri.gr().is_some()
            && (parts.home.is_us(&request.uri) || parts.home.is_domain(request.uri.host()))
        {
            match of_gruu(&*parts.location, &request.uri, step.unix, request.message) {
                None => return self.refuse(step, &request, 404),
                Some(groups) if groups.is_empty() => return self.refuse(step, &request, 480),
                Some(groups) => groups,
            }
        } else if let Some(aor) = &request.callee {
            match settings::unconditional(&request) {
                Some(uri) => {
                    diverted = Some((aor.clone(), "unconditional"));
                    match self.divert(step, request.message, uri) {
                        Some(groups) => groups,
                        None => return self.refuse(step, &request, 480),
                    }
                }
                None => {
                    let groups = bindings(&*parts.location, aor.as_str(), step.unix, request.message);
                    if groups.is_empty() {
                        match self.unreached(step, &request, None, 480) {
                            Some(divert) => {
                                diverted = Some((aor.clone(), "unavailable"));
                                divert
                            }
                            None => return,
                        }
                    } else {
                        groups
                    }
                }
            }
        } else {
            if request.uri.scheme() == Scheme::Tel || request.uri.scheme_text() == b"urn" {
                return self.refuse(step, &request, 404);
            }
            if !self.may_leave(&request, routed) {
                return self.refuse(step, &request, 403);
            }
            one(Target::uri(b""))
        };
        if let Some(screen) = parts.screen.as_ref().filter(|_| screened) {
            screen.hide(request.message);
        }
        self.start(step, request, routed, groups, diverted);
    }

    /// What happens to a request for a user of ours who cannot be reached: diverted, taken by a service, or refused.
    fn unreached(
        &mut self,
        step: &mut Step<'_>,
        request: &Request<'_>,
        server: Option<ServerId>,
        status: u16,
    ) -> Option<Groups> {
        if request.message.method() == Method::Invite
            && let Some(uri) = request.profile.as_ref().and_then(|p| p.call_settings.forward_not_reachable.as_deref())
            && let Some(groups) = self.divert(step, request.message, uri)
        {
            return Some(groups);
        }
        let parts = self.parts.clone();
        if parts.services.iter().any(|s| s.unreached(step, request, server, status) == Verdict::Taken) {
            return None;
        }
        let unknown = request.profile.is_none() && matches!(parts.access, Access::Digest(_));
        let status = if server.is_none() && unknown { 404 } else { status };
        match server {
            None => self.refuse(step, request, status),
            Some(server) => {
                self.answer(step, server, status);
            }
        }
        None
    }

    /// The targets of a forwarding address: one of our users, or somewhere else.
    fn divert(&self, step: &Step<'_>, message: &Message<'_>, uri: &str) -> Option<Groups> {
        let parsed = Uri::parse(uri.as_bytes())?;
        match self.callee(&parsed).0 {
            Some(aor) => {
                Some(bindings(&*self.parts.location, aor.as_str(), step.unix, message)).filter(|g| !g.is_empty())
            }
            None if parsed.is_sip() => Some(one(Target::uri(uri.as_bytes()))),
            None => None,
        }
    }

    /// Whether the next hop belongs to our trust domain. The phones that we serve do not (RFC 3325 §7).
    fn neighbour(&self, binding: bool, hop: &Hop) -> Neighbour {
        let flow = match *hop {
            Hop::Flow(flow) => flow,
            Hop::Address { transport, remote } | Hop::Host { transport, remote, .. } => {
                Flow { transport, id: FlowId(0), local: remote, remote }
            }
        };
        if !binding && self.trusts(&flow) { Neighbour::Trusted } else { Neighbour::Untrusted }
    }

    /// Whether this request may go to a place that is not one of our users' bindings: we are no open relay.
    fn may_leave(&self, request: &Request<'_>, routed: &Routed<'_>) -> bool {
        match request.caller {
            Caller::User(_) | Caller::Trusted => true,
            Caller::Foreign => routed.sealed || matches!(self.parts.access, Access::Open),
        }
    }

    /// An ACK for a 2xx: goes the way of its dialog, without a transaction.
    fn ack(&mut self, step: &mut Step<'_>, flow: &Flow, message: &Message<'_>) {
        let call_id = message.call_id().unwrap_or_default();
        let tag = message.to_tag();
        if tag.is_some()
            && let Some(service) = self.parts.services.iter().find(|s| s.knows(message))
        {
            return service.acknowledged(message);
        }
        // The ACK for a final response that we sent without state ends here.
        if tag.is_none() || tag == Some(&step.endpoint.local_tag(call_id)) {
            return;
        }
        let routed = Routed::of(message, &self.parts.home, &self.parts.seals);
        let open = matches!(self.parts.access, Access::Open);
        if !open && !routed.sealed && !self.trusts(flow) {
            return;
        }
        let hop = match (routed.next, routed.flow) {
            (Some(next), _) => self.hop_now(step, next, flow, message),
            (None, Some(flow)) => Some(Hop::Flow(flow)),
            (None, None) => self.hop_now(step, message.request_uri(), flow, message),
        };
        if let Some(hop) = hop {
            self.send_ack(step, flow, message, &routed, hop);
        }
    }

    fn hop_now(&mut self, step: &Step<'_>, uri: &[u8], flow: &Flow, message: &Message<'_>) -> Option<Hop> {
        let parsed = Uri::parse(uri)?;
        if let Some((transport, remote)) = literal_hop(&parsed) {
            return (!self.is_own_listener(remote)).then_some(Hop::Address { transport, remote });
        }
        if self.pending_acks.len() >= MAX_PENDING_ACKS {
            return None;
        }
        let stamp = self.next_stamp();
        let slot = self.pending_acks.insert(stamp, (*flow, message.bytes().into()));
        match self.parts.names.resolve(step.shard, ACK_TOKEN | token_of(slot), uri) {
            Some(hops) => {
                self.pending_acks.remove(slot);
                hops.first().copied()
            }
            None => None,
        }
    }

    fn ack_resolved(&mut self, step: &mut Step<'_>, token: u64, hops: &[Hop]) {
        let slot = self.pending_acks.slot_at(token as u32);
        if slot.stamp != token >> 32 & STAMP_MASK {
            return;
        }
        let Some((flow, bytes)) = self.pending_acks.remove(slot) else { return };
        if let (Ok(message), Some(hop)) = (Message::parse(&bytes), hops.first()) {
            let routed = Routed::of(&message, &self.parts.home, &self.parts.seals);
            self.send_ack(step, &flow, &message, &routed, *hop);
        }
    }

    fn send_ack(&mut self, step: &mut Step<'_>, flow: &Flow, message: &Message<'_>, routed: &Routed<'_>, hop: Hop) {
        if sip_proto::validate::next_max_forwards(message).is_err() {
            return;
        }
        // The same ACK sent again gets the same branch (RFC 3261 §16.11).
        let via = message.top_via().and_then(|v| v.branch()).unwrap_or_default();
        let seal = step.endpoint.seal(&[b"ack", via, message.call_id().unwrap_or_default()]);
        let mut branch = *b"z9hG4bKs0123456789abcdef";
        branch[8..].copy_from_slice(&hex16(seal));
        let parts = self.parts.clone();
        let shown = parts.shown(message, true);
        if !shown.hidden && !message.body().is_empty() && routed.veil.as_ref().is_some_and(|veil| veil.session) {
            // The relay is gone, and what the ACK says would tell where the media are.
            return;
        }
        let plan = Plan {
            home: &parts.home,
            seals: &parts.seals,
            message,
            routed,
            source: flow,
            body: shown.body.as_deref(),
            session: shown.hidden,
            asserted: None,
            trusted: self.trusts(flow),
            to: self.neighbour(false, &hop),
            record_route: false,
            link: None,
            diverted: None,
        };
        let edits = &mut self.edits;
        step.out.push(hop, Transmit::NO_TOKEN, |b| {
            forward::write_stateless(&plan, &Target::hop(hop), &hop, &branch, edits, b);
        });
    }

    /// Sending to our own address would only bring the request back.
    fn is_own_listener(&self, remote: SocketAddr) -> bool {
        self.parts.home.listeners().iter().any(|l| l.address == remote)
    }

    /// Answers a request that goes nowhere. Without a transaction: sent again, it is refused and noted again.
    fn refuse(&self, step: &mut Step<'_>, request: &Request<'_>, status: u16) {
        self.refuse_with(step, request, status, None);
    }

    fn refuse_with(&self, step: &mut Step<'_>, request: &Request<'_>, status: u16, reason: Option<&str>) {
        let message = request.message;
        let in_dialog = message.is_in_dialog();
        match message.method() {
            Method::Invite if !in_dialog => self.note(message, NoteEvent::CallRefused, status),
            Method::Message => self.note(message, NoteEvent::MessageRefused, status),
            _ => {}
        }
        step.reply(request.flow, message, status, reason, |_| {});
    }

    /// What a message holds does not pass: its sender hears why (RFC 3261 §20.43).
    fn keep_out(&self, step: &mut Step<'_>, flow: &Flow, message: &Message<'_>, status: u16, why: &str) {
        self.note(message, NoteEvent::MessageRefused, status);
        let domain = self.parts.home.domain().as_bytes();
        step.reply(flow, message, status, None, |w| {
            w.header(HeaderName::Warning, |out| Warning::write(399, domain, why.as_bytes(), out));
        });
    }

    fn note(&self, message: &Message<'_>, event: NoteEvent, status: u16) {
        self.parts.chronicle.note(&Note {
            trace: message.call_id().unwrap_or_default(),
            event,
            status,
            from: message.value(HeaderName::From).unwrap_or_default(),
            to: message.value(HeaderName::To).unwrap_or_default(),
        });
    }
}

const ALLOW: &[u8] =
    b"INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, MESSAGE, SUBSCRIBE, NOTIFY, PUBLISH, PRACK, UPDATE, REFER, INFO";

fn capabilities(w: &mut Writer<'_>) {
    w.text(HeaderName::Allow, ALLOW);
    w.text(HeaderName::Accept, b"application/sdp, message/cpim, text/plain");
    w.text(HeaderName::Supported, b"path, outbound, gruu");
}

/// Where a request says who sends it: a user who wants to stay unknown to the callee says it to us only (RFC 3325 §6).
fn identity_header(message: &Message<'_>) -> HeaderName {
    let anonymous = || {
        let from = message.from().and_then(|a| a.uri());
        from.is_some_and(|uri| uri.host().eq_ignore_ascii_case(b"anonymous.invalid"))
    };
    match message.line(HeaderName::PPreferredIdentity) {
        Some(_) if anonymous() => HeaderName::PPreferredIdentity,
        _ => HeaderName::From,
    }
}

fn one(target: Target) -> Groups {
    SmallVec::from_iter([SmallVec::from_iter([target])])
}

#[cfg(test)]
mod tests;
