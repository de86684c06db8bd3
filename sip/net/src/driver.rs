//! The driver: takes messages from the carriers to the shard that owns their transaction, and runs the shard to completion
//! on the thread that brought the message.
//!
//! There are more shards than threads, so two threads seldom meet at one lock, and none is held across a system call.
//! Requests go by their Call-ID (a CANCEL and its INVITE share it), responses by the shard that wrote their branch.

mod traffic;

use std::cell::RefCell;
use std::hash::Hasher as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use sip_ims::Home;
use sip_ims::service::{NOBODY, OnOutcome, Outcome, Outlet, Step, Transaction};
use sip_proto::build::{Response, Writer};
use sip_proto::endpoint::{Branch, ClientId, Endpoint, EndpointConfig, Lapsed, Outgoing, Received, ServerId};
use sip_proto::slots::{Slot, Slots};
use sip_proto::transaction::Timing;
use sip_proto::transport::{LONGEST_DATAGRAM_REQUEST, Transmit};
use sip_proto::{Flow, Hop, Limits, Message, Method, Outbox, Transport};
use siphasher::sip::SipHasher13;
use traffic::{kind, kind_of};

use crate::handler::Handler;
use crate::quoted;

pub use traffic::{Direction, Kind, Part, Traffic};

/// What decides, per shard: the proxy and, behind it, the services. Called with the shard's lock held.
pub trait TransactionUser: Send {
    /// A request that belongs to no transaction: new, an ACK for a 2xx, or a CANCEL that matches nothing.
    fn request(&mut self, step: &mut Step<'_>, flow: &Flow, message: &Message<'_>);

    /// A CANCEL for an INVITE that we accepted with this user value.
    fn cancel(&mut self, step: &mut Step<'_>, flow: &Flow, message: &Message<'_>, invite: ServerId, user: u64);

    /// A response to a request of ours.
    fn response(
        &mut self,
        step: &mut Step<'_>,
        message: &Message<'_>,
        client: ClientId,
        user: u64,
        server: Option<ServerId>,
    );

    /// A timer ran out, or a request could not be delivered.
    fn lapsed(&mut self, step: &mut Step<'_>, lapsed: Lapsed);

    /// A name that this user asked for was looked up; `token` is the user's own.
    fn resolved(&mut self, step: &mut Step<'_>, token: u64, hops: Vec<Hop>);
}

/// Sees every message that comes in and goes out, for captures and traces. Called with a shard's lock held: copy and queue.
/// `at` is microseconds since 1970.
pub trait Witness: Send + Sync {
    fn received(&self, at: u64, flow: &Flow, message: &Message<'_>);
    /// `about` is the message that this one follows from, with the same Call-ID and method; `None` when it was a timer.
    fn sent(&self, at: u64, hop: &Hop, bytes: &[u8], about: Option<&Message<'_>>);
}

/// Where the driver's own sends go: the carriers.
pub trait Sink: Send + Sync {
    /// Writes everything in the outbox and clears it.
    fn flush(&self, out: &mut Outbox);
    /// The source of this message misbehaved (garbage, wrong credentials): take points from it.
    fn penalise(&self, flow: &Flow, points: u32);
}

/// Settings of the driver.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// Shards; a power of two. Four for each thread is plenty.
    pub shards: usize,
    pub timing: Timing,
    pub limits: Limits,
    /// Bytes in a datagram; a longer request gets 513, a longer response is dropped.
    pub max_datagram: usize,
    /// Transactions in all shards together.
    pub max_transactions: usize,
    /// The process's secret for branches, tags and tokens.
    pub secret: [u8; 16],
}

/// See the module's text.
pub struct Driver {
    shards: Box<[Mutex<Shard>]>,
    home: Arc<Home>,
    limits: Limits,
    max_datagram: usize,
    secret: [u8; 16],
    sink: OnceLock<Arc<dyn Sink>>,
    witness: OnceLock<Arc<dyn Witness>>,
    /// Answers that go out without a shard: the services send them, perhaps while a shard is locked.
    apart: Arc<Traffic>,
    /// Refuses new dialogs and messages with 503 while the server drains.
    draining: AtomicBool,
}

struct Shard {
    number: u16,
    endpoint: Endpoint,
    user: Box<dyn TransactionUser>,
    /// Requests that were sent through the outlet.
    waiting: Slots<Waiting>,
    waiting_stamps: u64,
    lapsed: Vec<Lapsed>,
    traffic: Arc<Traffic>,
}

/// Who waits for the outcome of a request of ours.
struct Waiting {
    done: OnOutcome,
    /// A request too long for a datagram was tried over TCP: where it goes all the same when nobody takes it there
    /// (RFC 3261 §18.1.1), and its bytes.
    or_else: Option<(Hop, Box<[u8]>)>,
}

impl Driver {
    /// `user` makes the transaction user of each shard.
    pub fn new(
        config: &DriverConfig,
        home: Arc<Home>,
        now: Instant,
        mut user: impl FnMut(u16) -> Box<dyn TransactionUser>,
    ) -> Driver {
        let count = config.shards.clamp(1, 1024).next_power_of_two();
        let shards = (0..count as u16)
            .map(|number| {
                let endpoint = Endpoint::new(
                    EndpointConfig {
                        timing: config.timing,
                        shard: number,
                        max_transactions: (config.max_transactions / count).max(16),
                        secret: config.secret,
                    },
                    now,
                );
                Mutex::new(Shard {
                    number,
                    endpoint,
                    user: user(number),
                    waiting: Slots::default(),
                    waiting_stamps: 0,
                    lapsed: Vec::new(),
                    traffic: Arc::default(),
                })
            })
            .collect();
        Driver {
            shards,
            home,
            limits: config.limits,
            max_datagram: config.max_datagram,
            secret: config.secret,
            sink: OnceLock::new(),
            witness: OnceLock::new(),
            apart: Arc::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// Where sends go that do not come out of a received message. Set once, before the first message.
    pub fn attach(&self, sink: Arc<dyn Sink>) {
        let _ = self.sink.set(sink);
    }

    /// Shows every message to a witness from now on. Set once.
    pub fn watch(&self, witness: Arc<dyn Witness>) {
        let _ = self.witness.set(witness);
    }

    /// From now on new requests outside a dialog get 503.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// The counters of every shard.
    pub fn traffic(&self) -> Vec<Arc<Traffic>> {
        self.shards.iter().map(|s| s.lock().traffic.clone()).chain([self.apart.clone()]).collect()
    }

    /// Handles a request that was set aside, as if it came now. Nobody is shown it a second time.
    pub fn again(&self, flow: &Flow, bytes: &[u8]) {
        let Ok(message) = Message::parse_with(bytes, &self.limits) else { return };
        let mut out = Outbox::new();
        if let Some(mut shard) = self.shard(self.home_shard(message.call_id().unwrap_or_default())) {
            let at = micros_now();
            let (user, mut step) = shard.step(Instant::now(), at, false, &mut out);
            user.request(&mut step, flow, &message);
            self.account(&mut shard, at, &out, 0, Some(&message));
        }
        self.flush(&mut out);
    }

    /// Server transactions that still wait for a final response.
    pub fn busy(&self) -> usize {
        self.shards.iter().map(|s| s.lock().endpoint.unanswered()).sum()
    }

    /// A name was looked up for the transaction user of a shard.
    pub fn resolved(&self, shard: u16, token: u64, hops: Vec<Hop>) {
        let mut out = Outbox::new();
        if let Some(mut shard) = self.shard(shard) {
            let from = out.len();
            let at = micros_now();
            let (user, mut step) = shard.step(Instant::now(), at, false, &mut out);
            user.resolved(&mut step, token, hops);
            self.account(&mut shard, at, &out, from, None);
        }
        self.flush(&mut out);
    }

    fn shard(&self, number: u16) -> Option<MutexGuard<'_, Shard>> {
        self.shards.get(usize::from(number)).map(|s| s.lock())
    }

    fn home_shard(&self, call_id: &[u8]) -> u16 {
        let mut h = SipHasher13::new_with_key(&self.secret);
        h.write(call_id);
        (h.finish() as usize & (self.shards.len() - 1)) as u16
    }

    fn flush(&self, out: &mut Outbox) {
        self.come_round(Instant::now(), out);
        if out.is_empty() {
            return;
        }
        let now = GATHERED.with_borrow_mut(|gathered| match gathered {
            None => true,
            Some(all) => {
                all.append(out);
                let many = all.len() >= MAX_GATHERED;
                if many {
                    std::mem::swap(all, out);
                }
                many
            }
        });
        if now && let Some(sink) = self.sink.get() {
            sink.flush(out);
        }
    }

    /// Counts and shows what was written since `from`.
    fn account(&self, shard: &mut Shard, at: u64, out: &Outbox, from: usize, about: Option<&Message<'_>>) {
        let witness = self.witness.get();
        for item in &out.items()[from..] {
            let bytes = out.bytes(item.bytes.clone());
            shard.traffic.count(Direction::Out, item.hop.transport(), kind_of(bytes, about));
            if let Some(witness) = witness {
                witness.sent(at, &item.hop, bytes, about);
            }
        }
        shard.traffic.transactions.store(shard.endpoint.len() as u64, Relaxed);
        shard.traffic.full.store(shard.endpoint.refused(), Relaxed);
    }
}

impl Shard {
    fn step<'s>(
        &'s mut self,
        now: Instant,
        at: u64,
        loaded: bool,
        out: &'s mut Outbox,
    ) -> (&'s mut dyn TransactionUser, Step<'s>) {
        let step = Step { now, unix: at / 1_000_000, shard: self.number, endpoint: &mut self.endpoint, out, loaded };
        (&mut *self.user, step)
    }

    /// Answers a request without looking further at it.
    fn refuse(&self, flow: &Flow, message: &Message<'_>, status: u16, out: &mut Outbox) {
        if !sip_proto::validate::is_answerable(message) {
            return;
        }
        let tag = self.endpoint.local_tag(message.call_id().unwrap_or_default());
        let hop = sip_proto::endpoint::reply_hop(flow, message.top_via().as_ref());
        out.push(hop, Transmit::NO_TOKEN, |b| {
            Response::to(message, status).source(flow.remote).tag(&tag).write(b, |w| {
                if status == 503 {
                    w.number(sip_proto::HeaderName::RetryAfter, RETRY_AFTER);
                }
            });
        });
    }

    /// Tells whoever waits for a client transaction how it went.
    fn complete(&mut self, user: u64, outcome: Outcome) -> bool {
        let Some(slot) = waiting_slot(&self.waiting, user) else { return false };
        if let Some(waiting) = self.waiting.remove(slot) {
            (waiting.done)(outcome);
        }
        true
    }

    /// Sends a request of our own whose outcome somebody waits for as `user`.
    fn request(&mut self, home: &Home, now: Instant, user: u64, hop: Hop, message: &Message<'_>, out: &mut Outbox) {
        let branch = self.endpoint.branch(0);
        let (head, rest) = message.bytes().split_at(message.headers_start());
        let sent_by = home.sent_by(hop.transport(), hop.remote().ip());
        let outgoing = Outgoing { branch, method: message.method(), hop, user, server: None };
        self.endpoint.request(now, outgoing, out, |b| {
            b.extend_from_slice(head);
            write_via(b, hop.transport(), sent_by, &branch);
            b.extend_from_slice(rest);
        });
    }

    /// Tries a request that nobody took over TCP as a datagram. False if that is not what happened.
    fn request_again(&mut self, home: &Home, now: Instant, user: u64, out: &mut Outbox) -> bool {
        let Some(slot) = waiting_slot(&self.waiting, user) else { return false };
        let Some((hop, bytes)) = self.waiting.get_mut(slot).and_then(|w| w.or_else.take()) else { return false };
        let Ok(message) = Message::parse(&bytes) else { return false };
        self.request(home, now, user, hop, &message, out);
        true
    }

    fn run_lapsed(&mut self, home: &Home, now: Instant, at: u64, out: &mut Outbox) {
        let mut lapsed = std::mem::take(&mut self.lapsed);
        for item in lapsed.drain(..) {
            if let Lapsed::Client { user, unreachable, .. } = item
                && user & OURS != 0
            {
                if unreachable && self.request_again(home, now, user, out) {
                    continue;
                }
                self.complete(user, if unreachable { Outcome::Unreachable } else { Outcome::Timeout });
                continue;
            }
            let (user, mut step) = self.step(now, at, false, out);
            user.lapsed(&mut step, item);
        }
        self.lapsed = lapsed;
    }
}

/// User values of client transactions that the driver itself started. The proxy's have this bit clear.
const OURS: u64 = 1 << 63;

fn waiting_slot(waiting: &Slots<Waiting>, user: u64) -> Option<Slot> {
    if user == NOBODY || user & OURS == 0 {
        return None;
    }
    let slot = waiting.slot_at(user as u32);
    (slot.stamp & 0x7fff_ffff == user >> 32 & 0x7fff_ffff).then_some(slot)
}

impl Driver {
    /// Receives what a step has sent to ourselves, and what comes of it, until nothing is left: each hop of a request takes
    /// one from its Max-Forwards.
    fn come_round(&self, now: Instant, out: &mut Outbox) {
        while let Some(bytes) = out.take_internal() {
            self.receive(now, &Flow::INTERNAL, &bytes, false, out);
        }
    }

    fn receive(&self, now: Instant, flow: &Flow, bytes: &[u8], loaded: bool, out: &mut Outbox) {
        let Ok(message) = Message::parse_with(bytes, &self.limits) else {
            self.apart.malformed.fetch_add(1, Relaxed);
            if let Some(sink) = self.sink.get() {
                sink.penalise(flow, 1);
            }
            return;
        };
        let branch = if message.is_request() { None } else { message.top_via().and_then(|v| v.branch()) };
        let number = match branch {
            Some(branch) => match Branch::parse(branch) {
                Some(branch) => branch.shard,
                None => return,
            },
            None => self.home_shard(message.call_id().unwrap_or_default()),
        };
        let Some(mut shard) = self.shard(number) else { return };
        let shard = &mut *shard;
        let at = micros_now();
        if !flow.is_internal() {
            shard.traffic.count(Direction::In, flow.transport, kind(&message));
            if let Some(witness) = self.witness.get() {
                witness.received(at, flow, &message);
            }
        }
        let from = out.len();
        if bytes.len() > self.max_datagram && flow.transport == Transport::Udp {
            shard.refuse(flow, &message, 513, out);
            return self.account(shard, at, out, from, Some(&message));
        }
        match shard.endpoint.receive(now, &message, out) {
            Received::Absorbed | Received::Stray => {}
            Received::Request if self.sheds(&message, loaded) => {
                let traffic = &shard.traffic;
                traffic.shed.store(traffic.shed.load(Relaxed) + 1, Relaxed);
                shard.refuse(flow, &message, 503, out);
            }
            Received::Request => {
                let (user, mut step) = shard.step(now, at, loaded, out);
                user.request(&mut step, flow, &message);
            }
            Received::Cancel { invite, user: value } => {
                let (user, mut step) = shard.step(now, at, loaded, out);
                user.cancel(&mut step, flow, &message, invite, value);
            }
            Received::Response { client, user: value, server } => {
                if value & OURS == 0 {
                    let (user, mut step) = shard.step(now, at, loaded, out);
                    user.response(&mut step, &message, client, value, server);
                } else if message.status() >= 200 {
                    let outcome = Outcome::Response { status: message.status(), bytes: message.bytes().into() };
                    shard.complete(value, outcome);
                }
            }
        }
        self.account(shard, at, out, from, Some(&message));
    }
}

impl Handler for Driver {
    fn message(&self, now: Instant, flow: &Flow, bytes: &[u8], loaded: bool, out: &mut Outbox) {
        self.receive(now, flow, bytes, loaded, out);
        self.come_round(now, out);
    }

    fn tick(&self, now: Instant, out: &mut Outbox) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            if shard.endpoint.is_quiet() {
                continue;
            }
            let shard = &mut *shard;
            let from = out.len();
            shard.endpoint.tick(now, out, &mut shard.lapsed);
            let at = micros_now();
            if !shard.lapsed.is_empty() {
                shard.run_lapsed(&self.home, now, at, out);
            }
            self.account(shard, at, out, from, None);
        }
        self.come_round(now, out);
    }

    fn closed(&self, _now: Instant, _flow: &Flow, _out: &mut Outbox) {}

    fn returned(&self, now: Instant, to: SocketAddr, quoted: &[u8], out: &mut Outbox) {
        if let Some(branch) = quoted::branch(quoted) {
            self.give_up(branch.shard, now, out, |endpoint, out| endpoint.returned(now, &branch, to, out));
        }
    }

    fn unreachable(&self, now: Instant, token: u64, out: &mut Outbox) {
        self.give_up(Endpoint::token_shard(token), now, out, |endpoint, out| endpoint.unreachable(now, token, out));
    }
}

/// What a Via of ours adds to a request, about.
const VIA_ROOM: usize = 120;
/// Seconds a shed client should stay away.
const RETRY_AFTER: u64 = 2;

impl Driver {
    /// Ends a client transaction of a shard whose request did not get through, and goes on from there.
    fn give_up(
        &self,
        shard: u16,
        now: Instant,
        out: &mut Outbox,
        find: impl FnOnce(&mut Endpoint, &mut Outbox) -> Option<Lapsed>,
    ) {
        let Some(mut guard) = self.shard(shard) else { return };
        let shard = &mut *guard;
        let from = out.len();
        if let Some(lapsed) = find(&mut shard.endpoint, out) {
            shard.lapsed.push(lapsed);
            shard.run_lapsed(&self.home, now, micros_now(), out);
        }
        self.account(shard, micros_now(), out, from, None);
        drop(guard);
        self.come_round(now, out);
    }

    /// New work is refused while loaded or draining; what belongs to a dialog goes on, and so does any ACK or CANCEL.
    fn sheds(&self, message: &Message<'_>, loaded: bool) -> bool {
        let method = message.method();
        if matches!(method, Method::Ack | Method::Cancel | Method::Bye | Method::Prack) {
            return false;
        }
        let draining = self.draining.load(Relaxed);
        if !loaded && !draining {
            return false;
        }
        !message.is_in_dialog()
    }
}

thread_local! {
    /// What this thread sends together; `None`: at once.
    static GATHERED: RefCell<Option<Outbox>> = const { RefCell::new(None) };
}

/// Messages that leave together at most.
const MAX_GATHERED: usize = 64;

impl Outlet for Driver {
    fn gather(&self, run: &mut dyn FnMut()) {
        // One within another is part of it.
        if GATHERED.with_borrow(Option::is_some) {
            return run();
        }
        GATHERED.set(Some(Outbox::new()));
        run();
        if let (Some(mut out), Some(sink)) = (GATHERED.take(), self.sink.get())
            && !out.is_empty()
        {
            sink.flush(&mut out);
        }
    }

    fn hurry(&self) {
        let mut out = GATHERED.with_borrow_mut(|gathered| gathered.as_mut().map(std::mem::take)).unwrap_or_default();
        if !out.is_empty()
            && let Some(sink) = self.sink.get()
        {
            sink.flush(&mut out);
        }
    }

    fn send(&self, hop: Hop, bytes: &[u8]) {
        let mut out = Outbox::new();
        out.push_bytes(hop, Transmit::NO_TOKEN, bytes);
        self.apart.count_shared(Direction::Out, hop.transport(), kind_of(bytes, None));
        if let Some(witness) = self.witness.get() {
            witness.sent(micros_now(), &hop, bytes, None);
        }
        self.flush(&mut out);
    }

    fn answer(&self, transaction: Transaction, status: u16, extra: &dyn Fn(&mut Writer<'_>)) {
        let mut out = Outbox::new();
        if let Some(mut shard) = self.shard(transaction.shard) {
            let shard = &mut *shard;
            let Some(original) = shard.endpoint.original(transaction.id).map(<[u8]>::to_vec) else { return };
            let Some(hop) = shard.endpoint.reply_hop(transaction.id) else { return };
            let Ok(request) = Message::parse(&original) else { return };
            let tag = shard.endpoint.local_tag(request.call_id().unwrap_or_default());
            shard.endpoint.respond(Instant::now(), transaction.id, status, &mut out, |b| {
                Response::to(&request, status).source(hop.remote()).tag(&tag).write(b, |w| extra(w));
            });
            self.account(shard, micros_now(), &out, 0, None);
        }
        self.flush(&mut out);
    }

    fn request(&self, hop: Hop, bytes: Vec<u8>, done: OnOutcome) {
        let Ok(message) = Message::parse(&bytes) else { return done(Outcome::Unreachable) };
        let number = self.home_shard(message.call_id().unwrap_or_default());
        let mut out = Outbox::new();
        let Some(mut shard) = self.shard(number) else { return done(Outcome::Unreachable) };
        {
            let shard = &mut *shard;
            let long = bytes.len() + VIA_ROOM > LONGEST_DATAGRAM_REQUEST && self.home.listens_over(Transport::Tcp);
            let over_tcp = hop.over_tcp().filter(|_| long);
            let or_else = over_tcp.map(|_| (hop, bytes.as_slice().into()));
            shard.waiting_stamps += 1;
            let slot = shard.waiting.insert(shard.waiting_stamps, Waiting { done, or_else });
            let user = OURS | (slot.stamp & 0x7fff_ffff) << 32 | u64::from(slot.index);
            shard.request(&self.home, Instant::now(), user, over_tcp.unwrap_or(hop), &message, &mut out);
            self.account(shard, micros_now(), &out, 0, None);
        }
        drop(shard);
        self.flush(&mut out);
    }
}

/// Appends `Via: SIP/2.0/UDP host:port;rport;branch=…` and its line end.
pub fn write_via(out: &mut Vec<u8>, transport: Transport, sent_by: &[u8], branch: &Branch) {
    out.extend_from_slice(b"Via: SIP/2.0/");
    out.extend_from_slice(transport.via_token().as_bytes());
    out.push(b' ');
    out.extend_from_slice(sent_by);
    out.extend_from_slice(b";rport;branch=");
    branch.write(out);
    out.extend_from_slice(b"\r\n");
}

fn micros_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_micros() as u64
}
