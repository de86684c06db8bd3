//! The transactions of one shard: matches messages to machines, keeps the bytes that may have to be sent again, and
//! writes what is due into an [`Outbox`].
//!
//! The order of things for a received message: [`Endpoint::receive`] absorbs whatever the machines alone can deal with
//! and says what is left for the transaction user. The user answers without state (a reply pushed into the outbox), or
//! calls [`Endpoint::accept`] and later [`Endpoint::respond`]; and [`Endpoint::request`] for what it sends itself.
//!
//! Client branches carry the shard, the place and a random stamp, so a response finds its transaction without a look-up
//! and cannot be forged by someone who did not see the request. Server transactions are found by a keyed 128-bit hash of
//! what RFC 3261 §17.2.3 compares.

mod machine;

use std::hash::Hasher as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher128};

use crate::derived;
use crate::headers::Via;
use crate::message::Message;
use crate::method::Method;
use crate::slots::{Slot, Slots};
use crate::transaction::{
    ClientEvent, InviteClient, InviteServer, NonInviteClient, NonInviteServer, ServerEvent, Step, Timer, Timing,
};
use crate::transport::{Flow, Hop, Outbox, Transmit, Transport};
use crate::wheel::Wheel;
use machine::{ClientMachine, Due, ServerMachine};

/// Settings of one shard.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    pub timing: Timing,
    /// This shard's number; it stands in every branch that the shard makes.
    pub shard: u16,
    /// Server and client transactions held at once; beyond it [`Endpoint::accept`] refuses.
    pub max_transactions: usize,
    /// Secret for branches, tags and keys, the same for all shards of a process.
    pub secret: [u8; 16],
}

/// A server transaction of this shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ServerId(Slot);

/// A client transaction of this shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClientId(Slot);

/// What [`Endpoint::receive`] leaves to the transaction user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// A retransmission or a hop-by-hop ACK: dealt with.
    Absorbed,
    /// A request that belongs to no transaction: a new one, an ACK for a 2xx, or a CANCEL that matches nothing.
    Request,
    /// A CANCEL for this INVITE transaction. The CANCEL itself still wants an answer.
    Cancel { invite: ServerId, user: u64 },
    /// A response to pass on. `server` is what [`Endpoint::request`] was told.
    Response { client: ClientId, user: u64, server: Option<ServerId> },
    /// A response that matches nothing; RFC 6026 §7.2 wants it dropped.
    Stray,
}

/// What a timer or a failed transport tells the transaction user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lapsed {
    /// Nobody answered this request in time, or it could not be delivered (`unreachable`).
    Client { client: ClientId, user: u64, server: Option<ServerId>, unreachable: bool },
    /// No ACK came for a final response.
    NoAck { user: u64 },
    /// A timer of the user's own, from [`Endpoint::wake`].
    Wake { token: u64 },
}

/// A request to send through a client transaction.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// From [`Endpoint::branch`], called right before.
    pub branch: Branch,
    pub method: Method,
    pub hop: Hop,
    /// Comes back with what happens to it.
    pub user: u64,
    /// The server transaction that it serves.
    pub server: Option<ServerId>,
}

/// No room for another transaction: answer 503 with Retry-After.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many transactions")]
pub struct Full;

#[derive(Debug)]
struct Server {
    machine: ServerMachine,
    key: u128,
    hop: Hop,
    user: u64,
    /// The request as received, until a final response is sent.
    original: Box<[u8]>,
    /// See [`Endpoint::keep_original`].
    kept: bool,
    /// The response that a retransmission gets.
    last: Box<[u8]>,
    due: Due,
}

#[derive(Debug)]
struct Client {
    machine: ClientMachine,
    hop: Hop,
    user: u64,
    server: Option<ServerId>,
    /// The request, while it may have to be sent again, cancelled or acknowledged; then the ACK.
    request: Box<[u8]>,
    due: Due,
    cancel: Cancel,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cancel {
    No,
    /// Asked for before any provisional response: RFC 3261 §9.1 has it wait.
    Wanted,
    Sent(Slot),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    index: u32,
    stamp: u32,
    owner: Owner,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Server,
    Client,
    User,
}

/// See the module's text.
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    servers: Slots<Server>,
    clients: Slots<Client>,
    by_key: HashTable<u32>,
    wheel: Wheel<Entry>,
    due: Vec<(u32, Entry)>,
    stamps: u64,
    refused: u64,
    /// The key of the request that was received last and where it stood: `accept` of the same need not hash it again.
    heard: Option<(usize, u128)>,
}

impl Endpoint {
    pub fn new(config: EndpointConfig, now: Instant) -> Endpoint {
        Endpoint {
            servers: Slots::default(),
            clients: Slots::default(),
            by_key: HashTable::new(),
            wheel: Wheel::new(now),
            due: Vec::new(),
            stamps: 0,
            refused: 0,
            heard: None,
            config,
        }
    }

    /// Transactions held, server and client.
    pub fn len(&self) -> usize {
        self.servers.len() + self.clients.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often [`Endpoint::accept`] had no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Server transactions that wait for a final response. Looks at all of them.
    pub fn unanswered(&self) -> usize {
        let waits = |server: &&Server| match server.machine {
            ServerMachine::Invite(machine) => !machine.is_final(),
            ServerMachine::NonInvite(machine) => !machine.is_final(),
        };
        self.servers.values().filter(waits).count()
    }

    /// Nothing waits for a timer.
    pub fn is_quiet(&self) -> bool {
        self.wheel.is_empty()
    }

    /// Feeds one message. It should already be known to have a Via, a CSeq and a Call-ID.
    pub fn receive(&mut self, now: Instant, message: &Message<'_>, out: &mut Outbox) -> Received {
        if message.is_request() {
            self.receive_request(now, message, out)
        } else {
            self.receive_response(now, message, out)
        }
    }

    fn receive_request(&mut self, now: Instant, message: &Message<'_>, out: &mut Outbox) -> Received {
        let method = message.method();
        let Some(key) = self.key(message) else { return Received::Request };
        self.heard = Some((message.bytes().as_ptr() as usize, key));
        let Some(index) = self.find(key) else { return Received::Request };
        let event = match method {
            Method::Ack => ServerEvent::Ack,
            Method::Cancel => {
                let slot = self.servers.slot_at(index);
                let Some(server) = self.servers.get(slot) else { return Received::Request };
                return Received::Cancel { invite: ServerId(slot), user: server.user };
            }
            _ => ServerEvent::Request,
        };
        let slot = self.servers.slot_at(index);
        self.step_server(now, slot, event, out);
        Received::Absorbed
    }

    fn receive_response(&mut self, now: Instant, message: &Message<'_>, out: &mut Outbox) -> Received {
        let Some(slot) = message.top_via().and_then(|v| v.branch()).and_then(Branch::parse).map(|b| b.slot) else {
            return Received::Stray;
        };
        let Some(client) = self.clients.get(slot) else { return Received::Stray };
        let Some(cseq) = message.cseq() else { return Received::Stray };
        let status = message.status();
        match (cseq.method(), &client.machine, client.cancel) {
            (Method::Cancel, ClientMachine::Invite(_), Cancel::Sent(cancel)) => {
                self.step_client(now, cancel, ClientEvent::Response(status), None, out);
                Received::Absorbed
            }
            (Method::Cancel, ClientMachine::Invite(_), _) => Received::Stray,
            (Method::Invite, ClientMachine::NonInvite(_), _) => Received::Stray,
            (method, ClientMachine::Invite(_), _) if method != Method::Invite => Received::Stray,
            _ => {
                let (user, server) = (client.user, client.server);
                let step = self.step_client(now, slot, ClientEvent::Response(status), Some(message), out);
                if step.pass { Received::Response { client: ClientId(slot), user, server } } else { Received::Absorbed }
            }
        }
    }

    /// Starts a server transaction for a request that [`Endpoint::receive`] left over. The request's bytes are kept until
    /// a final response is sent.
    pub fn accept(&mut self, flow: &Flow, message: &Message<'_>, user: u64) -> Result<ServerId, Full> {
        let invite = message.method() == Method::Invite;
        // The last eighth is not for calls, which may ring for minutes: their BYEs, registrations and messages still fit.
        let kept = if invite { self.config.max_transactions / 8 } else { 0 };
        if self.len() >= self.config.max_transactions - kept {
            self.refused += 1;
            return Err(Full);
        }
        let at = message.bytes().as_ptr() as usize;
        let key = match self.heard.take() {
            Some((heard, key)) if heard == at => key,
            _ => self.key(message).ok_or(Full)?,
        };
        let machine = if invite {
            ServerMachine::Invite(InviteServer::Proceeding)
        } else {
            ServerMachine::NonInvite(NonInviteServer::Trying)
        };
        let server = Server {
            machine,
            key,
            hop: reply_hop(flow, message.top_via().as_ref()),
            user,
            original: message.bytes().into(),
            kept: false,
            last: Box::default(),
            due: Due::default(),
        };
        let stamp = self.stamp();
        let slot = self.servers.insert(stamp, server);
        let servers = &self.servers;
        self.by_key.insert_unique(key as u64, slot.index, |i| servers.at(*i).map_or(0, |s| s.key as u64));
        Ok(ServerId(slot))
    }

    /// The user value given to [`Endpoint::accept`], to be changed.
    pub fn server_user(&mut self, id: ServerId) -> Option<&mut u64> {
        self.servers.get_mut(id.0).map(|s| &mut s.user)
    }

    /// The request of a server transaction, until its final response.
    pub fn original(&self, id: ServerId) -> Option<&[u8]> {
        self.servers.get(id.0).map(|s| &*s.original).filter(|o| !o.is_empty())
    }

    /// Holds the request until the transaction's end: every response to it, a 2xx sent again too, is written with its help.
    pub fn keep_original(&mut self, id: ServerId) {
        if let Some(server) = self.servers.get_mut(id.0) {
            server.kept = true;
        }
    }

    /// The request, if [`Endpoint::keep_original`] was asked for.
    pub fn kept_original(&self, id: ServerId) -> Option<&[u8]> {
        self.servers.get(id.0).filter(|s| s.kept).map(|s| &*s.original)
    }

    /// Where the responses of a server transaction go.
    pub fn reply_hop(&self, id: ServerId) -> Option<Hop> {
        self.servers.get(id.0).map(|s| s.hop)
    }

    /// Sends a response through a server transaction. `write` appends the whole message. False when a final response
    /// has gone out already (then nothing is written).
    pub fn respond(
        &mut self,
        now: Instant,
        id: ServerId,
        status: u16,
        out: &mut Outbox,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let step = self.step_server(now, id.0, ServerEvent::Respond(status), out);
        if !step.pass {
            return false;
        }
        let Some(server) = self.servers.get_mut(id.0) else { return false };
        let range = out.push(server.hop, Transmit::NO_TOKEN, write);
        let reliable = server.hop.transport().is_reliable();
        let keep = match server.machine {
            // RFC 6026: 2xx retransmissions come from behind, or from the user.
            ServerMachine::Invite(_) => !(200..300).contains(&status) && (status < 200 || !reliable),
            ServerMachine::NonInvite(_) => !reliable,
        };
        server.last = if keep { out.bytes(range).into() } else { Box::default() };
        if status >= 200 && !server.kept {
            server.original = Box::default();
        }
        if step.ended {
            self.remove_server(id.0);
        }
        true
    }

    /// Forgets a server transaction without an answer: RFC 4320 §4.2 has a non-INVITE that nobody answered end like this.
    pub fn abandon(&mut self, id: ServerId) {
        self.remove_server(id.0);
    }

    /// Reserves a client transaction, so that its branch can be written into the request.
    pub fn branch(&mut self, suffix: u32) -> Branch {
        let stamp = self.stamp();
        Branch { shard: self.config.shard, slot: Slot { index: self.clients.next_index(), stamp }, suffix }
    }

    /// Sends a request through a new client transaction. `write` appends the whole message, with the branch in its top Via.
    pub fn request(
        &mut self,
        now: Instant,
        outgoing: Outgoing,
        out: &mut Outbox,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> ClientId {
        let Outgoing { branch, method, hop, user, server } = outgoing;
        debug_assert_eq!(branch.slot.index, self.clients.next_index());
        let reliable = hop.transport().is_reliable();
        let token = self.token(branch.slot);
        let range = out.push(hop, token, write);
        let request: Box<[u8]> = out.bytes(range).into();
        let timing = self.config.timing;
        let (machine, step) = if method == Method::Invite {
            let (m, step) = InviteClient::start(reliable, &timing);
            (ClientMachine::Invite(m), step)
        } else {
            let (m, step) = NonInviteClient::start(reliable, &timing);
            (ClientMachine::NonInvite(m), step)
        };
        let slot = self.clients.insert(
            branch.slot.stamp,
            Client { machine, hop, user, server, request, due: Due::default(), cancel: Cancel::No },
        );
        self.arm_client(now, slot, &step);
        ClientId(slot)
    }

    /// Cancels an INVITE client transaction: at once when a provisional response has come, as soon as one comes otherwise.
    pub fn cancel(&mut self, now: Instant, id: ClientId, out: &mut Outbox) {
        let Some(client) = self.clients.get_mut(id.0) else { return };
        match (&client.machine, client.cancel) {
            (ClientMachine::Invite(InviteClient::Calling { .. }), Cancel::No) => client.cancel = Cancel::Wanted,
            (ClientMachine::Invite(InviteClient::Proceeding), Cancel::No | Cancel::Wanted) => {
                self.send_cancel(now, id.0, out);
            }
            _ => {}
        }
    }

    fn send_cancel(&mut self, now: Instant, slot: Slot, out: &mut Outbox) {
        let Some(client) = self.clients.get(slot) else { return };
        let (hop, server) = (client.hop, client.server);
        let Ok(request) = Message::parse(&client.request) else { return };
        let mut bytes = Vec::with_capacity(client.request.len());
        derived::cancel(&request, &mut bytes);
        let stamp = self.stamp();
        let branch =
            Branch { shard: self.config.shard, slot: Slot { index: self.clients.next_index(), stamp }, suffix: 0 };
        let outgoing = Outgoing { branch, method: Method::Cancel, hop, user: u64::MAX, server };
        let cancel = self.request(now, outgoing, out, |b| b.extend_from_slice(&bytes));
        let limit = self.config.timing.timeout();
        if let Some(client) = self.clients.get_mut(slot) {
            client.cancel = Cancel::Sent(cancel.0);
        }
        // RFC 3261 §9.1: no final response within 64*T1 of the CANCEL ends the INVITE as well.
        self.arm_client(now, slot, &Step { arm: [None, Some((Timer::C, limit))], ..Step::default() });
    }

    /// Advances the timers. What the transaction user must know is appended to `lapsed`.
    pub fn tick(&mut self, now: Instant, out: &mut Outbox, lapsed: &mut Vec<Lapsed>) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(now, &mut due);
        for (tick, entry) in due.drain(..) {
            match entry.owner {
                Owner::Server => self.server_called(now, tick, entry, out, lapsed),
                Owner::Client => self.client_called(now, tick, entry, out, lapsed),
                Owner::User => {
                    lapsed.push(Lapsed::Wake { token: u64::from(entry.stamp) << 32 | u64::from(entry.index) });
                }
            }
        }
        self.due = due;
    }

    fn server_called(&mut self, now: Instant, tick: u32, entry: Entry, out: &mut Outbox, lapsed: &mut Vec<Lapsed>) {
        let slot = self.servers.slot_at(entry.index);
        let Some(server) = self.servers.get_mut(slot) else { return };
        if slot.stamp as u32 != entry.stamp || !server.due.called(tick) {
            return;
        }
        let reached = self.wheel.now();
        while let Some(timer) = self.servers.get_mut(slot).and_then(|s| s.due.take(reached)) {
            let step = self.step_server(now, slot, ServerEvent::Timer(timer), out);
            if step.ended
                && let Some(server) = self.remove_server(slot)
                && step.timeout
            {
                lapsed.push(Lapsed::NoAck { user: server.user });
            }
        }
        if let Some(at) = self.servers.get_mut(slot).and_then(|s| s.due.entry()) {
            self.wheel.arm_at(at, entry);
        }
    }

    fn client_called(&mut self, now: Instant, tick: u32, entry: Entry, out: &mut Outbox, lapsed: &mut Vec<Lapsed>) {
        let slot = self.clients.slot_at(entry.index);
        let Some(client) = self.clients.get_mut(slot) else { return };
        if slot.stamp as u32 != entry.stamp || !client.due.called(tick) {
            return;
        }
        let (user, server) = (client.user, client.server);
        let reached = self.wheel.now();
        while let Some(timer) = self.clients.get_mut(slot).and_then(|c| c.due.take(reached)) {
            let step = self.step_client(now, slot, ClientEvent::Timer(timer), None, out);
            if step.timeout && user != u64::MAX {
                lapsed.push(Lapsed::Client { client: ClientId(slot), user, server, unreachable: false });
            }
        }
        if let Some(at) = self.clients.get_mut(slot).and_then(|c| c.due.entry()) {
            self.wheel.arm_at(at, entry);
        }
    }

    /// Brings [`Lapsed::Wake`] with this token at that time. It cannot be taken back: check when it comes.
    pub fn wake(&mut self, at: Instant, token: u64) {
        let tick = self.wheel.tick_at(at);
        self.wheel.arm_at(tick, Entry { index: token as u32, stamp: (token >> 32) as u32, owner: Owner::User });
    }

    /// The carrier could not deliver the request with this token.
    pub fn unreachable(&mut self, now: Instant, token: u64, out: &mut Outbox) -> Option<Lapsed> {
        let slot = self.clients.slot_at(token as u32);
        let client = self.clients.get(slot).filter(|_| slot.stamp as u16 == (token >> 32) as u16)?;
        let (user, server) = (client.user, client.server);
        let step = self.step_client(now, slot, ClientEvent::Unreachable, None, out);
        (step.timeout && user != u64::MAX).then_some(Lapsed::Client {
            client: ClientId(slot),
            user,
            server,
            unreachable: true,
        })
    }

    /// A datagram with this branch of ours, that was sent to `remote`, came back: RFC 3261 §18.4. Only a request that nobody
    /// has answered yet is given up for it.
    pub fn returned(&mut self, now: Instant, branch: &Branch, remote: SocketAddr, out: &mut Outbox) -> Option<Lapsed> {
        let client = self.clients.get(branch.slot)?;
        let unanswered = matches!(
            client.machine,
            ClientMachine::Invite(InviteClient::Calling { .. })
                | ClientMachine::NonInvite(NonInviteClient::Trying { .. })
        );
        let there = client.hop.remote();
        let sent = (client.hop.transport(), there.ip(), there.port()) == (Transport::Udp, remote.ip(), remote.port());
        if unanswered && sent { self.unreachable(now, self.token(branch.slot), out) } else { None }
    }

    /// The shard that a token belongs to.
    pub fn token_shard(token: u64) -> u16 {
        (token >> 48) as u16
    }

    fn token(&self, slot: Slot) -> u64 {
        u64::from(self.config.shard) << 48 | u64::from(slot.stamp as u16) << 32 | u64::from(slot.index)
    }

    fn step_server(&mut self, now: Instant, slot: Slot, event: ServerEvent, out: &mut Outbox) -> Step {
        let timing = self.config.timing;
        let Some(server) = self.servers.get_mut(slot) else { return Step::default() };
        let reliable = server.hop.transport().is_reliable();
        let step = match &mut server.machine {
            ServerMachine::Invite(m) => {
                let (next, step) = m.step(event, reliable, &timing);
                *m = next;
                step
            }
            ServerMachine::NonInvite(m) => {
                let (next, step) = m.step(event, reliable, &timing);
                *m = next;
                step
            }
        };
        if step.resend && !server.last.is_empty() {
            out.push_bytes(server.hop, Transmit::NO_TOKEN, &server.last);
        }
        let wheel = &mut self.wheel;
        if let Some(at) = server.due.follow(&step, |after| wheel.tick_at(now + after)) {
            wheel.arm_at(at, Entry { index: slot.index, stamp: slot.stamp as u32, owner: Owner::Server });
        }
        // Whoever passes a final response on still needs the entry; `respond` and `tick` remove it.
        if step.ended && event == ServerEvent::Ack {
            self.remove_server(slot);
        }
        step
    }

    fn step_client(
        &mut self,
        now: Instant,
        slot: Slot,
        event: ClientEvent,
        response: Option<&Message<'_>>,
        out: &mut Outbox,
    ) -> Step {
        let timing = self.config.timing;
        let token = self.token(slot);
        let Some(client) = self.clients.get_mut(slot) else { return Step::default() };
        let reliable = client.hop.transport().is_reliable();
        let mut settled = false;
        let step = match &mut client.machine {
            ClientMachine::Invite(m) => {
                let (next, step) = m.step(event, reliable, &timing);
                settled = next == InviteClient::Accepted && *m != next;
                *m = next;
                step
            }
            ClientMachine::NonInvite(m) => {
                let (next, step) = m.step(event, reliable, &timing);
                settled |= next == NonInviteClient::Completed;
                *m = next;
                step
            }
        };
        if step.resend {
            out.push_bytes(client.hop, token, &client.request);
        }
        if step.ack {
            // The first time the ACK takes the request's place; later ones are the same bytes.
            if let (true, Some(response)) = (step.pass, response)
                && let Ok(request) = Message::parse(&client.request)
            {
                let mut ack = Vec::with_capacity(client.request.len());
                derived::ack(&request, response, &mut ack);
                client.request = ack.into();
            }
            out.push_bytes(client.hop, Transmit::NO_TOKEN, &client.request);
        }
        if settled {
            client.request = Box::default();
        }
        let wants_cancel = client.cancel == Cancel::Wanted
            && matches!(client.machine, ClientMachine::Invite(InviteClient::Proceeding));
        if step.ended {
            if let Some(Client { cancel: Cancel::Sent(cancel), .. }) = self.clients.remove(slot) {
                self.clients.remove(cancel);
            }
        } else {
            self.arm_client(now, slot, &step);
            if wants_cancel {
                self.send_cancel(now, slot, out);
            }
        }
        step
    }

    fn arm_client(&mut self, now: Instant, slot: Slot, step: &Step) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let wheel = &mut self.wheel;
        if let Some(at) = client.due.follow(step, |after| wheel.tick_at(now + after)) {
            wheel.arm_at(at, Entry { index: slot.index, stamp: slot.stamp as u32, owner: Owner::Client });
        }
    }

    fn remove_server(&mut self, slot: Slot) -> Option<Server> {
        let server = self.servers.remove(slot)?;
        if let Ok(entry) = self.by_key.find_entry(server.key as u64, |i| *i == slot.index) {
            entry.remove();
        }
        Some(server)
    }

    fn find(&self, key: u128) -> Option<u32> {
        self.by_key.find(key as u64, |i| self.servers.at(*i).is_some_and(|s| s.key == key)).copied()
    }

    /// RFC 3261 §17.2.3: branch, sent-by and method (ACK and CANCEL look for their INVITE). A branch without the cookie
    /// comes from an RFC 2543 client: then the fields that its ACK and CANCEL share with the INVITE are compared.
    fn key(&self, message: &Message<'_>) -> Option<u128> {
        let via = message.top_via()?;
        let mut h = SipHasher128::new_with_key(&self.config.secret);
        let branch = via.branch().unwrap_or_default();
        match message.method() {
            Method::Ack | Method::Cancel => h.write_u8(Method::Invite as u8),
            Method::Other => h.write(message.cseq()?.token),
            method => h.write_u8(method as u8),
        }
        h.write(branch);
        h.write_u8(0);
        h.write(via.host);
        h.write_u16(via.port.unwrap_or(0));
        if !branch.starts_with(Via::COOKIE) {
            h.write(message.call_id()?);
            h.write_u32(message.cseq()?.number);
            h.write(message.from_tag().unwrap_or_default());
        }
        Some(h.finish128().as_u128())
    }

    /// The tag that our own responses to this call put into To: the same for every retransmission, and recognisable when
    /// it comes back in the ACK for an answer that was sent without state.
    pub fn local_tag(&self, call_id: &[u8]) -> [u8; 17] {
        let mut h = SipHasher13::new_with_key(&self.config.secret);
        h.write(b"tag");
        h.write(call_id);
        let mut tag = [b'i'; 17];
        tag[1..].copy_from_slice(&hex16(h.finish()));
        tag
    }

    /// A keyed hash over several parts, for loop detection and for tokens that come back to us.
    pub fn seal(&self, parts: &[&[u8]]) -> u64 {
        let mut h = SipHasher13::new_with_key(&self.config.secret);
        for part in parts {
            h.write_usize(part.len());
            h.write(part);
        }
        h.finish()
    }

    /// A stamp that does not repeat and cannot be guessed.
    fn stamp(&mut self) -> u64 {
        self.stamps += 1;
        let mut h = SipHasher13::new_with_key(&self.config.secret);
        h.write_u16(self.config.shard);
        h.write_u64(self.stamps);
        h.finish()
    }
}

/// Where a response to a request goes: RFC 3261 §18.2.2 with RFC 3581. `maddr` is not followed: it would let a request
/// point our answer at anybody.
pub fn reply_hop(flow: &Flow, via: Option<&Via<'_>>) -> Hop {
    if flow.transport.is_reliable() {
        return Hop::Flow(*flow);
    }
    match via {
        Some(via) if via.rport().is_none() => {
            let port = via.port.unwrap_or(flow.transport.default_port());
            Hop::Flow(Flow { remote: SocketAddr::new(flow.remote.ip(), port), ..*flow })
        }
        _ => Hop::Flow(*flow),
    }
}

/// Our branch parameter: `z9hG4bK` `i` shard place stamp suffix, all hexadecimal. The suffix is the proxy's loop hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Branch {
    pub shard: u16,
    slot: Slot,
    pub suffix: u32,
}

impl Branch {
    pub const LEN: usize = 7 + 1 + 4 + 8 + 16 + 8;

    pub fn parse(branch: &[u8]) -> Option<Branch> {
        let hex = branch.strip_prefix(b"z9hG4bKi").filter(|h| h.len() == Branch::LEN - 8)?;
        Some(Branch {
            shard: unhex(&hex[..4])? as u16,
            slot: Slot { index: unhex(&hex[4..12])? as u32, stamp: unhex(&hex[12..28])? },
            suffix: unhex(&hex[28..])? as u32,
        })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"z9hG4bKi");
        hex(out, u64::from(self.shard), 4);
        hex(out, u64::from(self.slot.index), 8);
        out.extend_from_slice(&hex16(self.slot.stamp));
        hex(out, u64::from(self.suffix), 8);
    }
}

/// Sixteen lower-case hexadecimal digits.
pub fn hex16(n: u64) -> [u8; 16] {
    std::array::from_fn(|i| b"0123456789abcdef"[(n >> (60 - 4 * i)) as usize & 15])
}

/// Appends `digits` lower-case hexadecimal digits.
pub fn hex(out: &mut Vec<u8>, n: u64, digits: u32) {
    for i in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(n >> (4 * i)) as usize & 15]);
    }
}

fn unhex(s: &[u8]) -> Option<u64> {
    s.iter().try_fold(0u64, |n, b| {
        let d = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'f' => b - b'a' + 10,
            _ => return None,
        };
        Some(n << 4 | u64::from(d))
    })
}

/// How long a finished transaction may still be held, at most: for a drain that waits for the rest.
pub const LONGEST_LINGER: Duration = Duration::from_secs(32);

#[cfg(test)]
mod tests;
