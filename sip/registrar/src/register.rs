//! A REGISTER from its first check to its answer (RFC 3261 §10.3).

use std::sync::Arc;

use sip_ims::criteria::Stage;
use sip_ims::ports::{BindingChange, BindingRow, StoreError};
use sip_ims::service::{Caller, Request, Step};
use sip_ims::{Aor, Home, Msisdn, User};
use sip_proto::build::{Response, Writer};
use sip_proto::endpoint::reply_hop;
use sip_proto::headers::{Date, Q};
use sip_proto::transport::Transmit;
use sip_proto::uri::Scheme;
use sip_proto::{Flow, HeaderName, Message, Transport, edit};
use smallvec::SmallVec;

use crate::announce::Announcement;
use crate::binding::{Binding, Facts, Text, row, with_key};
use crate::contact::{self, Change, Refused, Wanted, Wish};
use crate::events::Event;
use crate::gruu;
use crate::registrar::{Acknowledge, Arrival, Registrar};
use crate::reply::{RETRY_AFTER, Reply};
use crate::table::{Bindings, sort};
use crate::undo::{Before, Undo};

/// Why bindings were not changed, found while they were locked.
enum Failure {
    OutOfOrder,
    TooMany,
    Loop,
    Store(StoreError),
}

/// Whose bindings a REGISTER is about.
pub(crate) struct Account {
    pub aor: Aor,
    pub user: Option<Arc<User>>,
    /// By digest, just now.
    pub proved: bool,
    /// An S-CSCF vouches for it.
    pub third_party: bool,
}

/// A REGISTER that may be granted.
struct Register<'a, 'm> {
    account: &'a Account,
    wish: &'a Wish<'m>,
    unix: u64,
    /// The 200 that waits for the store.
    reply: Option<&'a Arc<Reply>>,
}

/// What changed, for whoever is to be told.
#[derive(Default)]
struct Applied {
    arrival: Option<Arrival>,
    /// A contact is gone.
    left: bool,
    /// Filled only when somebody watches.
    changes: SmallVec<[(Event, Binding); 2]>,
    /// Filled only when the answer waits for the store.
    before: Before,
}

/// Seconds after which a NAT may have forgotten a UDP flow that nobody used (RFC 5626 §4.4.2).
const DATAGRAM_FLOW_TIMER: u32 = 29;

impl Registrar {
    pub(crate) fn register(&self, step: &mut Step<'_>, request: &Request<'_>) {
        if let Some(account) = self.account(step, request) {
            self.wish(step, request, &account);
        }
    }

    /// Does what a REGISTER asks for.
    pub(crate) fn wish(&self, step: &mut Step<'_>, request: &Request<'_>, account: &Account) {
        let message = request.message;
        let trusted = matches!(request.caller, Caller::Trusted);
        match contact::read(&self.config, message, request.flow, trusted) {
            Ok(wish) => self.grant(step, request, account, &wish),
            Err(refused) => self.refuse(step, request, &refused),
        }
    }

    fn refuse(&self, step: &mut Step<'_>, request: &Request<'_>, refused: &Refused<'_>) {
        (self.parts.penalise)(request.flow, 1);
        let reason = refused.to_string();
        step.reply(request.flow, request.message, refused.status(), Some(&reason), |w| match refused {
            Refused::Extension(bad) => w.header(HeaderName::Unsupported, |v| bad.write_unsupported(v)),
            Refused::Path => w.text(HeaderName::Unsupported, b"path"),
            Refused::TooBrief => w.number(HeaderName::MinExpires, self.config.min_expires.min(3600).into()),
            _ => {}
        });
    }

    /// Whose bindings this is about, if the sender may change them (RFC 3261 §10.3 steps 3 to 5). `None`: answered.
    fn account(&self, step: &mut Step<'_>, request: &Request<'_>) -> Option<Account> {
        let (flow, message) = (request.flow, request.message);
        let mut proof = None;
        if let (Some(authenticator), Caller::Foreign | Caller::User(_)) = (&self.parts.authenticator, &request.caller) {
            match authenticator.register(message, step.unix) {
                Ok(user) => proof = Some(user),
                // RFC 4475 §3.1.2.14: nobody is asked for the password to what cannot be granted.
                Err(_) if !contact::are_readable(message) => {
                    self.refuse(step, request, &Refused::Bad("Malformed Contact"));
                    return None;
                }
                Err(refusal) => {
                    if refusal.is_suspect() {
                        (self.parts.penalise)(flow, 2);
                    }
                    authenticator.refuse(step, flow, message, &refusal, HeaderName::WwwAuthenticate);
                    return None;
                }
            }
        }
        if let Some(user) = proof {
            return Some(Account { aor: user.aor.clone(), user: Some(user), proved: true, third_party: false });
        }
        match self.named(message) {
            Some((aor, user)) => Some(Account { aor, user, proved: false, third_party: false }),
            None => {
                step.reply(flow, message, 404, None, |_| {});
                None
            }
        }
    }

    /// The address-of-record in To: that of the user it names, or its own when anybody may have one.
    fn named(&self, message: &Message<'_>) -> Option<(Aor, Option<Arc<User>>)> {
        let (home, directory) = (&self.parts.home, &self.parts.directory);
        let uri = message.to()?.uri()?;
        if uri.scheme() == Scheme::Tel {
            let user = Msisdn::from_user(uri.user()?).ok().and_then(|n| directory.by_msisdn(n))?;
            return Some((user.aor.clone(), Some(user)));
        }
        if !(home.is_domain(uri.host()) || home.is_us(&uri)) {
            return None;
        }
        match directory.by_parts(uri.user()?, home.domain().as_bytes()) {
            Some(user) => Some((user.aor.clone(), Some(user))),
            None if self.parts.authenticator.is_none() => Some((home.aor(&uri)?, None)),
            None => None,
        }
    }

    fn grant(&self, step: &mut Step<'_>, request: &Request<'_>, account: &Account, wish: &Wish<'_>) {
        let (flow, message, unix) = (request.flow, request.message, step.unix);
        let aor = account.aor.as_str();
        let tag = step.endpoint.local_tag(wish.call_id.as_bytes());
        let hop = reply_hop(flow, message.top_via().as_ref());
        let response = Response::to(message, 200).source(flow.remote).tag(&tag);
        if wish.change == Change::Fetch {
            return self.table.read(aor, |bindings| {
                let ok = |w: &mut Writer<'_>| self.write_ok(w, flow, account, wish, bindings, unix);
                step.out.push(hop, Transmit::NO_TOKEN, |b| response.write(b, ok));
            });
        }
        let reply = match self.config.store {
            Acknowledge::BeforeReply => self.outlet.get().map(|o| Reply::new(o.clone())),
            Acknowledge::Behind => None,
        };
        let mut waiting = Vec::new();
        // Application servers elsewhere hear what the phone hears (TS 24.229 §5.4.1.7).
        let wanted = self.announcer.any() && !account.third_party;
        let (mut answer, mut seconds) = (Vec::new(), 0);
        let result = self.table.write(&account.aor, |bindings| {
            let applied = self.apply(bindings, &Register { account, wish, unix, reply: reply.as_ref() })?;
            let ok = |w: &mut Writer<'_>| self.write_ok(w, flow, account, wish, bindings, unix);
            if wanted {
                seconds = bindings.iter().map(|b| b.remaining(unix)).max().unwrap_or(0);
                response.write(&mut answer, ok);
            }
            match reply {
                Some(_) => response.write(&mut waiting, ok),
                None => {
                    step.out.push(hop, Transmit::NO_TOKEN, |b| response.write(b, ok));
                }
            }
            Ok(applied)
        });
        let applied = match result {
            Ok(applied) => applied,
            Err(failure) => return self.fail(step, request, failure),
        };
        let arrival = applied.arrival.filter(|_| wish.change != Change::RemoveAll);
        let announcement = (wanted && (arrival.is_some() || applied.left)).then(|| Announcement {
            aor: account.aor.clone(),
            stage: match (seconds, arrival) {
                (0, _) => Stage::End,
                (_, Some(Arrival::Reachable)) => Stage::Initial,
                _ => Stage::Refresh,
            },
            seconds,
            register: message.bytes().to_vec(),
            answer,
        });
        match reply {
            Some(reply) => {
                let then = (arrival.is_some() || announcement.is_some()).then(|| {
                    let (tell, aor, user) =
                        (self.parts.on_registered.clone(), account.aor.clone(), account.user.clone());
                    let announcer = self.announcer.clone();
                    Box::new(move || {
                        arrival.into_iter().for_each(|arrival| tell(aor.as_str(), user.as_deref(), arrival));
                        announcement.into_iter().for_each(|announcement| announcer.announce(announcement));
                    }) as crate::reply::Then
                });
                let undo = Undo::new(self.shelves.clone(), account.aor.clone(), applied.before);
                if let Some(ready) = reply.ready(hop, waiting, then, undo) {
                    step.out.push_bytes(ready.hop, Transmit::NO_TOKEN, &ready.bytes);
                    if let Some(then) = ready.then {
                        then();
                    }
                }
            }
            None => {
                if let Some(arrival) = arrival {
                    (self.parts.on_registered)(aor, account.user.as_deref(), arrival);
                }
                announcement.into_iter().for_each(|announcement| self.announcer.announce(announcement));
            }
        }
        if applied.left || arrival == Some(Arrival::Reachable) {
            (self.parts.on_changed)(aor, applied.left);
        }
        if !applied.changes.is_empty() {
            self.watchers.changed(step.now, unix, aor, applied.changes.into_vec());
        }
    }

    fn fail(&self, step: &mut Step<'_>, request: &Request<'_>, failure: Failure) {
        let (status, reason) = match &failure {
            Failure::OutOfOrder => (Refused::OutOfOrder.status(), Some("CSeq Out Of Order")),
            Failure::TooMany => (403, Some("Too Many Contacts")),
            Failure::Loop => (403, Some("Contact Is The Address Itself")),
            Failure::Store(StoreError::Full) => (503, None),
            Failure::Store(error) => {
                tracing::warn!(%error, "a binding could not be queued");
                (500, None)
            }
        };
        step.reply(request.flow, request.message, status, reason, |w| {
            if let Failure::Store(_) = failure {
                w.number(HeaderName::RetryAfter, RETRY_AFTER);
            }
        });
    }

    /// Checks the wish against the bindings, queues it for the store, and changes the bindings: all or nothing.
    ///
    /// Memory changes before the store has committed: a call may use the new contact at once, and the phone hears of it
    /// only after the commit. What the commit refuses is taken back ([`Undo`]).
    fn apply(&self, bindings: &mut Bindings, register: &Register<'_, '_>) -> Result<Applied, Failure> {
        match register.wish.change {
            Change::Fetch => Ok(Applied::default()),
            Change::RemoveAll => self.remove_all(bindings, register),
            Change::Contacts => self.bind(bindings, register),
        }
    }

    fn remove_all(&self, bindings: &mut Bindings, register: &Register<'_, '_>) -> Result<Applied, Failure> {
        let Register { account, wish, unix, reply } = *register;
        if bindings.iter().any(|b| order(b, wish, unix) != Order::Newer) {
            return Err(Failure::OutOfOrder);
        }
        self.store(BindingChange::RemoveAll { aor: account.aor.as_str() }, reply)?;
        let mut applied = Applied::default();
        for binding in bindings.drain(..).filter(|b| b.is_live(unix)) {
            applied.left = true;
            if self.watchers.any() {
                applied.changes.push((Event::Unregistered, binding.clone()));
            }
            if reply.is_some() {
                applied.before.removed.push(binding);
            }
        }
        Ok(applied)
    }

    fn bind(&self, bindings: &mut Bindings, register: &Register<'_, '_>) -> Result<Applied, Failure> {
        let Register { account, wish, unix, reply } = *register;
        let contacts = &wish.contacts;
        let aor = account.aor.as_str();
        // First everything that may be refused.
        let mut places: SmallVec<[(Option<usize>, Order); 4]> = SmallVec::new();
        let mut room = self.config.max_contacts.saturating_sub(bindings.iter().filter(|b| b.is_live(unix)).count());
        for wanted in contacts {
            let place = bindings.iter().position(|b| wanted.is(b));
            let order = place.map_or(Order::Newer, |i| order(&bindings[i], wish, unix));
            if order == Order::Older {
                return Err(Failure::OutOfOrder);
            }
            if place.is_none_or(|i| !bindings[i].is_live(unix)) && wanted.expires > 0 {
                room = room.checked_sub(1).ok_or(Failure::TooMany)?;
                if !account.third_party && self.is_loop(wanted, aor) {
                    return Err(Failure::Loop);
                }
            }
            places.push((place, order));
        }
        // Then the store, which may be full.
        for (wanted, (place, order)) in contacts.iter().zip(&places) {
            let old = place.map(|i| &bindings[i]);
            self.store_one(register, wanted, old, *order)?;
        }
        // Then memory, where nothing can fail any more.
        let watched = self.watchers.any();
        let mut applied = Applied::default();
        let mut removed: SmallVec<[usize; 4]> = SmallVec::new();
        for (wanted, (place, order)) in contacts.iter().zip(places) {
            // A retransmission changes nothing: whoever sends a captured REGISTER again moves no contact.
            if order == Order::Same {
                continue;
            }
            if wanted.expires == 0 {
                removed.extend(place);
                continue;
            }
            let (text, facts) = wanted.binding(wish, account, place.map(|i| &bindings[i]), unix);
            let (arrival, event, at) = match place {
                Some(i) => {
                    let old = &bindings[i];
                    let live = old.is_live(unix);
                    let moved = !live
                        || old.text().contact != text.contact
                        || old.way() != facts.way
                        || old.text().path != text.path;
                    let event = match () {
                        () if !live => Event::Created,
                        () if facts.expires_at < old.expires_at => Event::Shortened,
                        () => Event::Refreshed,
                    };
                    if reply.is_some() {
                        applied.before.changed.push(old.clone());
                    }
                    bindings[i].update(&text, facts);
                    (if moved { Arrival::Reachable } else { Arrival::Refreshed }, event, i)
                }
                None => {
                    // The parts are bounded far below what a binding holds.
                    let Some(binding) = Binding::new(&text, facts) else { continue };
                    bindings.push(binding);
                    applied.before.created = true;
                    (Arrival::Reachable, Event::Created, bindings.len() - 1)
                }
            };
            if applied.arrival != Some(Arrival::Reachable) {
                applied.arrival = Some(arrival);
            }
            if watched {
                applied.changes.push((event, bindings[at].clone()));
            }
        }
        removed.sort_unstable();
        for i in removed.into_iter().rev() {
            let binding = bindings.remove(i);
            if !binding.is_live(unix) {
                continue;
            }
            applied.left = true;
            if watched {
                applied.changes.push((Event::Unregistered, binding.clone()));
            }
            if reply.is_some() {
                applied.before.removed.push(binding);
            }
        }
        sort(bindings);
        Ok(applied)
    }

    fn store_one(
        &self,
        register: &Register<'_, '_>,
        wanted: &Wanted<'_>,
        old: Option<&Binding>,
        order: Order,
    ) -> Result<(), Failure> {
        let Register { account, wish, unix, reply } = *register;
        let aor = account.aor.as_str();
        let old_key = |with: &mut dyn FnMut(&str) -> Result<(), Failure>| match old {
            Some(old) => with_key(old.text().instance, old.reg_id, old.text().contact, with),
            None => Ok(()),
        };
        match (order, old) {
            // Written once more, because the first time may not have been committed yet.
            (Order::Same, Some(old)) => {
                old_key(&mut |key| self.store(BindingChange::Put(old.row(aor, key, &self.config.node)), reply))
            }
            _ if wanted.expires == 0 => old_key(&mut |key| self.store(BindingChange::Remove { aor, key }, reply)),
            _ => {
                let (text, facts) = wanted.binding(wish, account, old, unix);
                if wanted.reg_id == 0 && old.is_some_and(|o| o.text().contact != text.contact) {
                    // An equivalent URI in another spelling is another key.
                    old_key(&mut |key| self.store(BindingChange::Remove { aor, key }, reply))?;
                }
                let put =
                    |key: &str| self.store(BindingChange::Put(row(&text, &facts, aor, key, &self.config.node)), reply);
                with_key(text.instance, facts.reg_id, text.contact, put)
            }
        }
    }

    fn store(&self, change: BindingChange<'_>, reply: Option<&Arc<Reply>>) -> Result<(), Failure> {
        let (BindingChange::Put(BindingRow { aor, .. })
        | BindingChange::Remove { aor, .. }
        | BindingChange::RemoveAll { aor }
        | BindingChange::Forget { aor, .. }) = change;
        let result = self.parts.store.write(change, reply.map(|r| r.write()));
        self.reading.touch(aor);
        if let (Err(_), Some(reply)) = (&result, reply) {
            reply.unwritten();
        }
        result.map_err(Failure::Store)
    }

    /// The contact is the address-of-record itself or a GRUU of it (RFC 5627 §5.1): calls would go in circles.
    fn is_loop(&self, wanted: &Wanted<'_>, aor: &str) -> bool {
        let (uri, home) = (&wanted.uri, &self.parts.home);
        if !home.is_domain(uri.host()) || uri.port().is_some() {
            return false;
        }
        let temporary = uri.user().and_then(|u| self.gruus.read_temporary(u));
        temporary.is_some_and(|t| aor.split_once('@').is_some_and(|(user, _)| user == &*t.user))
            || home.aor(uri).is_some_and(|a| a.as_str() == aor)
    }

    /// What a 200 says beside what every response says.
    fn write_ok(
        &self,
        w: &mut Writer<'_>,
        flow: &Flow,
        account: &Account,
        wish: &Wish<'_>,
        bindings: &[Binding],
        unix: u64,
    ) {
        for binding in bindings.iter().filter(|b| b.is_live(unix)) {
            w.header(HeaderName::Contact, |out| self.write_contact(out, account, wish, binding, unix));
        }
        if !wish.path.is_empty() {
            w.text(HeaderName::Path, wish.path.as_bytes());
        }
        if wish.outbound {
            w.text(HeaderName::Require, b"outbound");
            let longest = if wish.datagrams { DATAGRAM_FLOW_TIMER } else { u32::MAX };
            let timer = self.config.flow_timer.min(longest);
            if wish.direct && timer > 0 {
                w.number(HeaderName::FlowTimer, timer.into());
            }
        }
        if !self.config.service_route.is_empty() {
            w.text(HeaderName::ServiceRoute, &self.config.service_route);
        } else if !wish.path.is_empty() {
            // Behind an edge proxy, which needs to be told the way to us (RFC 3608 §5); a phone next to us knows it.
            w.header(HeaderName::ServiceRoute, |out| write_us(out, &self.parts.home, flow));
        }
        if let Some(user) = &account.user {
            w.header(HeaderName::PAssociatedUri, |out| write_associated(out, user));
        }
        w.text(HeaderName::Supported, b"path, outbound");
        w.text(HeaderName::AllowEvents, b"reg");
        w.header(HeaderName::Date, |out| Date::from_unix(unix).write(out));
    }

    fn write_contact(&self, out: &mut Vec<u8>, account: &Account, wish: &Wish<'_>, binding: &Binding, unix: u64) {
        let text = binding.text();
        out.push(b'<');
        out.extend_from_slice(text.contact.as_bytes());
        out.extend_from_slice(b">;expires=");
        edit::number(out, binding.remaining(unix).into());
        if binding.q != 1000 {
            out.extend_from_slice(b";q=");
            Q::new(binding.q).write(out);
        }
        if !text.instance.is_empty() {
            out.extend_from_slice(b";+sip.instance=\"<");
            out.extend_from_slice(text.instance.as_bytes());
            out.extend_from_slice(b">\"");
        }
        if binding.reg_id > 0 {
            out.extend_from_slice(b";reg-id=");
            edit::number(out, binding.reg_id.into());
        }
        out.extend_from_slice(text.params.as_bytes());
        if wish.gruu && !text.instance.is_empty() {
            let aor = &account.aor;
            out.extend_from_slice(b";pub-gruu=\"");
            gruu::write_public(aor.as_str(), text.instance.as_bytes(), out);
            out.extend_from_slice(b"\";temp-gruu=\"");
            let unique = [unix, self.next_unique()];
            let (instance, call_id) = (text.instance.as_bytes(), text.call_id.as_bytes());
            self.gruus.write_temporary(aor.user(), aor.domain(), instance, call_id, unique, out);
            out.push(b'"');
        }
    }
}

/// How a request stands to a binding of the same Call-ID (RFC 3261 §10.3 step 7).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Higher CSeq, another Call-ID, or the binding has expired.
    Newer,
    /// The very request that made it what it is: a retransmission.
    Same,
    Older,
}

fn order(binding: &Binding, wish: &Wish<'_>, unix: u64) -> Order {
    if !binding.is_live(unix) || binding.text().call_id != wish.call_id {
        return Order::Newer;
    }
    match wish.cseq.cmp(&binding.cseq) {
        std::cmp::Ordering::Greater => Order::Newer,
        std::cmp::Ordering::Equal => Order::Same,
        std::cmp::Ordering::Less => Order::Older,
    }
}

impl Wanted<'_> {
    /// Whether this is about that binding: by instance and flow (RFC 5626 §6), or else by the URI.
    fn is(&self, binding: &Binding) -> bool {
        if self.reg_id > 0 || binding.reg_id > 0 {
            return self.reg_id == binding.reg_id && self.instance.as_bytes() == binding.instance();
        }
        let contact = binding.contact();
        contact == self.contact.as_bytes()
            || sip_proto::Uri::parse(contact).is_some_and(|stored| stored.equivalent(&self.uri))
    }

    fn binding<'b>(
        &'b self,
        wish: &'b Wish<'_>,
        account: &Account,
        old: Option<&Binding>,
        unix: u64,
    ) -> (Text<'b>, Facts) {
        let text = Text {
            contact: self.contact,
            params: &self.params,
            path: &wish.path,
            instance: self.instance,
            call_id: wish.call_id,
            user_agent: wish.user_agent,
        };
        let now = unix as u32;
        let facts = Facts {
            expires_at: now.saturating_add(self.expires),
            since: old.filter(|o| o.is_live(unix)).map_or(now, |o| o.since),
            cseq: wish.cseq,
            reg_id: self.reg_id,
            q: self.q,
            proved: account.proved && wish.direct,
            way: self.way,
        };
        (text, facts)
    }
}

/// Ourselves as a Route, by the way that the phone's REGISTER came.
fn write_us(out: &mut Vec<u8>, home: &Home, flow: &Flow) {
    out.extend_from_slice(b"<sip:");
    out.extend_from_slice(home.sent_by(flow.transport, flow.remote.ip()));
    if flow.transport != Transport::Udp {
        out.extend_from_slice(b";transport=");
        out.extend_from_slice(flow.transport.uri_token().as_bytes());
    }
    out.extend_from_slice(b";lr>");
}

/// RFC 7315 §4.1: the public identities of the user.
fn write_associated(out: &mut Vec<u8>, user: &User) {
    out.extend_from_slice(b"<sip:");
    out.extend_from_slice(user.aor.as_str().as_bytes());
    out.push(b'>');
    if let Some(number) = user.msisdn {
        out.extend_from_slice(b", <sip:");
        edit::display(out, number);
        out.push(b'@');
        out.extend_from_slice(user.aor.domain().as_bytes());
        out.extend_from_slice(b";user=phone>, <tel:");
        edit::display(out, number);
        out.push(b'>');
    }
}
