//! Services by filter criteria (TS 23.218), from both sides: an S-CSCF calls us over ISC and gets its request back
//! (TS 24.229 §5.7), or we stand in for the S-CSCF and call the servers of our users one after the other (§5.4.3).

use std::sync::Arc;
use std::time::Duration;

use sip_ims::criteria::{DefaultHandling, Filter, Occasion, Order, Server, SessionCase};
use sip_ims::service::{Caller, Note, NoteEvent, Request, Service, Step, Verdict};
use sip_ims::{Aor, Msisdn, User};
use sip_proto::headers::{NameAddr, ServedUser};
use sip_proto::slots::Slot;
use sip_proto::uri::{Scheme, Uri};
use sip_proto::{Flow, HeaderName, Message, Method, validate};

use super::{Access, Proxy, one, reply};
use crate::chain::{Chain, Link, MAX_HOPS};
use crate::fork::{AttemptState, Fork};
use crate::route::Routed;
use crate::target::Target;

/// How long a server may be silent before it counts as down: well before the sender's own timer F.
pub(super) const SERVER_PATIENCE: Duration = Duration::from_secs(5);

/// The user whose services are wanted (TS 24.229 §5.7.1.3A).
struct Served {
    aor: Option<Aor>,
    profile: Option<Arc<User>>,
    case: SessionCase,
}

/// Where a request stands among the filters of one user.
struct Stretch<'a> {
    case: SessionCase,
    served: &'a str,
    after: Option<Order>,
    hops: u8,
}

/// Begins a dialog or stands alone: what services are called for.
pub(super) fn begins(message: &Message<'_>) -> bool {
    !message.is_in_dialog()
}

impl Proxy {
    /// A request that an S-CSCF sent us for its services: they run for the served user, and what none of them takes goes
    /// back by the Route that is left.
    pub(super) fn serve(
        &mut self,
        step: &mut Step<'_>,
        flow: &Flow,
        message: &Message<'_>,
        uri: Uri<'_>,
        routed: &Routed<'_>,
    ) {
        let served = self.served(message, &uri, routed);
        let caller = served_caller(served.profile.clone().filter(|_| served.case != SessionCase::Terminating));
        let (callee, profile) = match served.case {
            SessionCase::Terminating => (served.aor, served.profile),
            _ => (None, None),
        };
        let mut request = Request { message, flow, uri, caller, callee, profile };
        let verdict = self.ask(step, &request, routed.service);
        if verdict == Verdict::Taken || !self.passable(step, &request) {
            return;
        }
        if let Some(status) = self.barred(&request) {
            return self.refuse(step, &request, status);
        }
        if verdict == Verdict::Join {
            return self.join(step, &request, routed, None);
        }
        // What the S-CSCF says of the caller goes on as it is.
        request.caller = Caller::Trusted;
        if let Verdict::HandOver(node) = verdict {
            return self.hand_over(step, request, routed, node);
        }
        self.proxy(step, request, routed);
    }

    fn served(&self, message: &Message<'_>, uri: &Uri<'_>, routed: &Routed<'_>) -> Served {
        let said = message.value(HeaderName::PServedUser).and_then(ServedUser::parse);
        let case = match (said.and_then(|s| s.case), routed.originating) {
            (Some(case), _) => case,
            (None, true) => SessionCase::Originating,
            (None, false) => SessionCase::Terminating,
        };
        let named = said.and_then(|s| s.addr.uri()).map(|uri| self.identity(&uri));
        let (aor, profile) = named.filter(|(aor, _)| aor.is_some()).unwrap_or_else(|| match case {
            SessionCase::Terminating => self.callee(uri),
            _ => self.asserted(message),
        });
        Served { aor, profile, case }
    }

    /// The user that the core vouches for (RFC 3325 §9.1), or else the sender as it names itself.
    fn asserted(&self, message: &Message<'_>) -> (Option<Aor>, Option<Arc<User>>) {
        let asserted = message.list(HeaderName::PAssertedIdentity).filter_map(NameAddr::parse);
        let from = message.from();
        let all = asserted.chain(from).filter_map(|name| Some(self.identity(&name.uri()?)));
        all.into_iter().find(|(aor, _)| aor.is_some()).unwrap_or_default()
    }

    /// A public identity, whoever it names.
    fn identity(&self, uri: &Uri<'_>) -> (Option<Aor>, Option<Arc<User>>) {
        let parts = &self.parts;
        let found = match uri.scheme() {
            Scheme::Tel => Msisdn::of(uri).and_then(|n| parts.directory.by_msisdn(n)),
            _ => uri.user().and_then(|user| parts.directory.by_parts(user, uri.host())),
        };
        match found {
            Some(user) => (Some(user.aor.clone()), Some(user)),
            None => (parts.home.aor(uri), None),
        }
    }

    /// Asks the service that the topmost Route names, or else all of them in order.
    fn ask(&self, step: &mut Step<'_>, request: &Request<'_>, name: Option<&[u8]>) -> Verdict {
        let parts = &self.parts;
        let named = name.and_then(|name| parts.all_services().find(|s| s.identity().as_bytes() == name));
        if let Some(service) = named {
            return self.invoke(step, request, &**service, 0);
        }
        for service in &parts.services {
            let verdict = service.request(step, request);
            if matches!(verdict, Verdict::Taken | Verdict::HandOver(_)) {
                self.mark(request.message, NoteEvent::ServiceTook, service.name(), 0);
                return verdict;
            }
        }
        Verdict::Pass
    }

    fn invoke(&self, step: &mut Step<'_>, request: &Request<'_>, service: &dyn Service, priority: u16) -> Verdict {
        self.mark(request.message, NoteEvent::ServiceInvoked, service.name(), priority);
        let verdict = service.request(step, request);
        if verdict != Verdict::Pass {
            self.mark(request.message, NoteEvent::ServiceTook, service.name(), priority);
        }
        verdict
    }

    /// A request of the home domain meets the filters of its users: first those of the caller, then those of the callee
    /// (TS 24.229 §5.4.3.2, §5.4.3.3), each from where an earlier server left off.
    pub(super) fn trigger(
        &mut self,
        step: &mut Step<'_>,
        request: &Request<'_>,
        routed: &Routed<'_>,
        chain: Option<&Chain>,
    ) -> Verdict {
        let hops = chain.map_or(0, |c| c.hops);
        if chain.is_none_or(|c| c.case != SessionCase::Terminating) {
            let served: Option<Box<str>> = match (chain, &request.caller) {
                (Some(chain), _) => Some(chain.served.clone()),
                (None, Caller::User(user)) => Some(user.aor.as_str().into()),
                (None, _) => None,
            };
            let case = chain.map_or(SessionCase::Originating, |c| c.case);
            if let Some(served) = served
                && self.walk(
                    step,
                    request,
                    routed,
                    Stretch { case, served: &served, after: chain.map(|c| c.after), hops },
                ) == Verdict::Taken
            {
                return Verdict::Taken;
            }
        }
        let known = request.profile.is_some() || matches!(self.parts.access, Access::Open);
        let Some(callee) = request.callee.clone().filter(|_| known) else { return Verdict::Pass };
        // A server may have sent it to somebody else, who has filters of their own.
        let same = chain.filter(|c| c.case == SessionCase::Terminating && *c.served == *callee.as_str());
        let case = SessionCase::Terminating;
        let stretch = Stretch { case, served: callee.as_str(), after: same.map(|c| c.after), hops };
        self.walk(step, request, routed, stretch)
    }

    fn walk(
        &mut self,
        step: &mut Step<'_>,
        request: &Request<'_>,
        routed: &Routed<'_>,
        mut stretch: Stretch<'_>,
    ) -> Verdict {
        let Stretch { case, served, .. } = stretch;
        let parts = self.parts.clone();
        let unix = step.unix;
        let registered = || {
            let mut found = false;
            parts.location.each(served, unix, &mut |_| found = true);
            found
        };
        let occasion =
            Occasion { message: request.message, uri: &request.uri, user: served, case, registered: &registered };
        while let Some(filter) = parts.filters.next(stretch.after, &occasion) {
            stretch.after = Some(filter.order());
            let priority = filter.order().priority;
            match filter.server() {
                Server::Service(name) => match parts.all_services().find(|s| s.name() == &**name) {
                    Some(service) => match self.invoke(step, request, &**service, priority) {
                        Verdict::Pass => {}
                        Verdict::Taken => return Verdict::Taken,
                        Verdict::HandOver(node) => {
                            let Request { message, flow, uri, ref caller, .. } = *request;
                            let caller = caller.clone();
                            let onward = Request { message, flow, uri, caller, callee: None, profile: None };
                            self.hand_over(step, onward, routed, node);
                            return Verdict::Taken;
                        }
                        Verdict::Join => {
                            if let Some(chain) = self.stretched(step, request, filter.order(), &stretch) {
                                self.join(step, request, routed, Some(chain));
                            }
                            return Verdict::Taken;
                        }
                    },
                    None if filter.default_handling() == DefaultHandling::Continue => {
                        self.mark(request.message, NoteEvent::ServiceSkipped, name, priority);
                    }
                    None => {
                        self.mark(request.message, NoteEvent::ServiceFailed, name, priority);
                        self.refuse(step, request, 503);
                        return Verdict::Taken;
                    }
                },
                Server::Uri(_) => {
                    self.send_to_server(step, request, routed, filter, &stretch, registered());
                    return Verdict::Taken;
                }
            }
        }
        Verdict::Pass
    }

    fn send_to_server(
        &mut self,
        step: &mut Step<'_>,
        request: &Request<'_>,
        routed: &Routed<'_>,
        filter: Arc<Filter>,
        stretch: &Stretch<'_>,
        registered: bool,
    ) {
        let Server::Uri(server) = filter.server().clone() else { return };
        let Request { message, flow, uri, caller, .. } = request;
        let order = filter.order();
        let Some(chain) = self.stretched(step, request, order, stretch) else { return };
        let path = chain.route(&server, &self.parts.home, &self.parts.seals);
        self.mark(message, NoteEvent::ServiceInvoked, &server, order.priority);
        let target = Target::server(path, Link { filter, chain, registered, heard: false });
        let onward = Request { message, flow, uri: *uri, caller: caller.clone(), callee: None, profile: None };
        self.start(step, onward, routed, one(target), None);
    }

    /// The original dialog identifier of a request on its way to a server or to another dialog of ours. `None`: answered.
    fn stretched(
        &mut self,
        step: &mut Step<'_>,
        request: &Request<'_>,
        order: Order,
        stretch: &Stretch<'_>,
    ) -> Option<Chain> {
        if !self.passable(step, request) {
            return None;
        }
        let status = if stretch.hops >= MAX_HOPS { Some(482) } else { self.barred(request) };
        if let Some(status) = status {
            self.refuse(step, request, status);
            return None;
        }
        let call_id = request.message.call_id().unwrap_or_default();
        let stamp = self.next_stamp();
        let number =
            step.endpoint.seal(&[call_id, &stamp.to_be_bytes(), &step.shard.to_be_bytes(), &step.unix.to_be_bytes()]);
        Some(Chain::new(number, step.unix, stretch.case, order, stretch.hops + 1, stretch.served, call_id))
    }

    /// Takes the token of a request that a server sends back: once, and from the trusted only. `Err`: refused.
    pub(super) fn returns(
        &self,
        step: &mut Step<'_>,
        flow: &Flow,
        message: &Message<'_>,
        chain: &Chain,
    ) -> Result<(), ()> {
        let branch = message.top_via().and_then(|via| via.branch()).unwrap_or_default();
        let cseq = message.value(HeaderName::CSeq).unwrap_or_default();
        let request = step.endpoint.seal(&[message.call_id().unwrap_or_default(), cseq, branch]);
        if !self.parts.spent.take(chain, request, step.unix) {
            reply(step, flow, message, 403, |_| {});
            return Err(());
        }
        if message.call_id() != Some(&chain.call_id) {
            self.mark_in(&chain.call_id, NoteEvent::ServerReturned, "", chain.after.priority);
        }
        self.mark(message, NoteEvent::ServerReturned, "", chain.after.priority);
        Ok(())
    }

    /// The caller of a request that came back, as services are to see it.
    pub(super) fn served_by(&self, chain: &Chain) -> Caller {
        let user = || self.parts.directory.by_aor(&chain.served);
        served_caller(if chain.case == SessionCase::Terminating { None } else { user() })
    }

    /// A server has been silent for too long, if it has.
    pub(super) fn server_silent(&mut self, step: &mut Step<'_>, slot: Slot) {
        let Some(fork) = self.forks.get_mut(slot) else { return };
        let Some(attempt) = fork.attempts.last_mut() else { return };
        let (Some(link), AttemptState::Trying(client)) = (&attempt.target.link, attempt.state) else { return };
        if link.heard || fork.closed || fork.settled || self.parts.spent.is_taken(&link.chain) {
            return;
        }
        attempt.state = AttemptState::Done;
        if fork.invite {
            step.endpoint.cancel(step.now, client, step.out);
        }
        fork.conclude_with(504);
        self.advance(step, slot);
    }

    /// The end of a fork towards a server that is down: by the filter's default handling the request goes on as if the server
    /// were not there (TS 24.229 §5.4.3.2). False: it ends as it is.
    pub(super) fn server_failed(&mut self, step: &mut Step<'_>, slot: Slot) -> bool {
        let Some(fork) = self.forks.get(slot) else { return false };
        let Some(link) = fork.attempts.last().and_then(|a| a.target.link.clone()) else { return false };
        let down = fork.best.as_ref().is_none_or(|b| b.bytes.is_empty() || b.status == 408 || b.status / 100 == 5);
        if !down || fork.closed {
            return false;
        }
        let server = fork.server;
        let Some(original) = step.endpoint.original(server).map(<[u8]>::to_vec) else { return false };
        let Ok(message) = Message::parse(&original) else { return false };
        let Server::Uri(name) = link.filter.server() else { return false };
        let priority = link.chain.after.priority;
        if link.filter.default_handling() == DefaultHandling::Terminate
            || !self.parts.spent.give_up(&link.chain, step.unix)
        {
            self.mark(&message, NoteEvent::ServiceFailed, name, priority);
            return false;
        }
        self.mark(&message, NoteEvent::ServiceSkipped, name, priority);
        // Begins anew behind the filter: the sender has heard nothing yet but that we try.
        step.endpoint.abandon(server);
        let Some(fork) = self.forks.remove(slot) else { return false };
        let routed = Routed::of(&message, &self.parts.home, &self.parts.seals);
        if let Some(uri) = Uri::parse(message.request_uri()) {
            let Fork { source, caller, .. } = fork;
            let request = Request { message: &message, flow: &source, uri, caller, callee: None, profile: None };
            self.dispatch(step, request, &routed, Some(&link.chain));
        }
        true
    }

    /// What every request must be that goes on from here: hops left, and nothing asked of us that we cannot do. False:
    /// answered.
    pub(super) fn passable(&mut self, step: &mut Step<'_>, request: &Request<'_>) -> bool {
        if validate::next_max_forwards(request.message).is_err() {
            self.for_ourselves(step, request, false);
            return false;
        }
        // Of the extensions that a proxy must understand to pass a request on we support one (RFC 3323 §4.3).
        let mut unknown =
            request.message.list(HeaderName::ProxyRequire).filter(|t| !t.eq_ignore_ascii_case(b"privacy"));
        if let Some(bad) = unknown.next() {
            reply(step, request.flow, request.message, 420, |w| w.text(HeaderName::Unsupported, bad));
            return false;
        }
        true
    }

    pub(super) fn mark(&self, message: &Message<'_>, event: NoteEvent, service: &str, priority: u16) {
        self.mark_in(message.call_id().unwrap_or_default(), event, service, priority);
    }

    fn mark_in(&self, trace: &[u8], event: NoteEvent, service: &str, priority: u16) {
        self.parts.chronicle.note(&Note { trace, event, status: priority, from: b"", to: service.as_bytes() });
    }
}

/// The served user counts as the caller, for the core has proved it.
fn served_caller(user: Option<Arc<User>>) -> Caller {
    user.map_or(Caller::Trusted, Caller::User)
}

/// Whether this is a request that filters are for: not one that must find its way whatever users have set.
pub(super) fn is_triggering(message: &Message<'_>) -> bool {
    begins(message) && !matches!(message.method(), Method::Register | Method::Ack | Method::Cancel | Method::Bye)
}
