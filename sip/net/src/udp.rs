//! SIP over UDP: plain threads that block in `recvmmsg`, run each datagram to completion, and answer with `sendmmsg`.
//!
//! For each address there are ceil(threads / 4) sockets in one SO_REUSEPORT group, each with up to four threads blocking
//! on it. The kernel spreads datagrams over the *sockets* by a hash of both addresses, which puts all traffic of one
//! neighbour on one socket; on the socket it wakes one *thread* at a time, which spreads it over cores.

pub(crate) mod batch;
pub(crate) mod returned;

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sip_proto::{Flow, FlowId, Hop, Outbox, Transport};
use socket2::{Domain, Protocol, Socket, Type};

use crate::carriers::Core;
use crate::counters::Counters;
use crate::flood::Verdict;
use crate::stun;
use batch::{RECEIVE_SLOTS, ReceiveBatch, SendBatch};
use returned::Returned;

/// Threads that share a socket; more would queue for its lock.
const THREADS_PER_SOCKET: usize = 4;
/// Nothing shorter can be a message: "A a SIP/2.0" and an empty line.
const SHORTEST: usize = 14;
/// How often one run of sends goes on after errors that were about earlier datagrams.
const ERRORS_PASSED: usize = 16;
/// How often a datagram is offered again although the queue held no error that explains the refusal: a receiver of this socket
/// may have taken the error out just before.
const TRIES_UNEXPLAINED: usize = 4;
/// How long a full send buffer is waited for before datagrams are dropped: UDP may lose, threads may not stand.
const SEND_WAIT_MILLIS: i32 = 20;

/// All UDP sockets. A [`FlowId`] of a UDP flow is the index of its address here.
pub(crate) struct Udp {
    listeners: Vec<Listener>,
}

struct Listener {
    local: SocketAddr,
    sockets: Vec<Endpoint>,
}

struct Endpoint {
    socket: UdpSocket,
    /// The receive queue was over a half and is not yet under a quarter.
    loaded: AtomicBool,
}

/// What became of messages that were handed on and did not get through.
#[derive(Default)]
pub(crate) struct Failures {
    /// Tokens of messages that could not leave.
    pub(crate) unsent: Vec<u64>,
    /// Datagrams, perhaps of others, that left some time ago and came back.
    pub(crate) returned: Vec<Returned>,
}

/// Which socket a worker reads; what it sends leaves there too.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    listener: usize,
    socket: usize,
}

thread_local! {
    static SEND: RefCell<SendBatch> = RefCell::new(SendBatch::new());
}

impl Udp {
    pub(crate) fn bind(
        addresses: &[SocketAddr],
        threads: usize,
        buffer: usize,
    ) -> Result<Udp, (SocketAddr, io::Error)> {
        let mut listeners = Vec::new();
        for address in addresses {
            let mut local = *address;
            let mut sockets = Vec::new();
            let sockets_wanted = threads.div_ceil(THREADS_PER_SOCKET);
            if sockets_wanted > 1 && local.port() != 0 {
                // SO_REUSEPORT would let us join the group of another server; a socket without it finds that out.
                UdpSocket::bind(local).map_err(|e| (local, e))?;
            }
            for _ in 0..sockets_wanted {
                let socket = bind(local, buffer, sockets_wanted > 1).map_err(|e| (*address, e))?;
                // The first of the group may have chosen the port.
                local = socket.local_addr().map_err(|e| (*address, e))?;
                sockets.push(Endpoint { socket, loaded: AtomicBool::new(false) });
            }
            listeners.push(Listener { local, sockets });
        }
        Ok(Udp { listeners })
    }

    pub(crate) fn local_addrs(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.iter().map(|l| l.local)
    }

    /// One thread per place; they end after [`Udp::shutdown`].
    pub(crate) fn start(core: &Arc<Core>, threads: usize) -> io::Result<Vec<JoinHandle<()>>> {
        let mut joined = Vec::new();
        for (listener, l) in core.udp.listeners.iter().enumerate() {
            for thread in 0..threads {
                let place = Place { listener, socket: thread % l.sockets.len() };
                let core = core.clone();
                let worker = std::thread::Builder::new().name(format!("udp-{listener}-{thread}"));
                joined.push(worker.spawn(move || work(&core, place))?);
            }
        }
        Ok(joined)
    }

    pub(crate) fn shutdown(&self) {
        for endpoint in self.listeners.iter().flat_map(|l| &l.sockets) {
            batch::wake_receivers(&endpoint.socket);
        }
    }

    /// The address to send from: the flow's own, or one of ours of the same family, loopback to loopback.
    fn listener_for(&self, hop: &Hop) -> Option<usize> {
        match hop {
            Hop::Flow(flow) => usize::try_from(flow.id.0).ok().filter(|i| *i < self.listeners.len()),
            Hop::Address { remote, .. } | Hop::Host { remote, .. } => {
                let family = |l: &&Listener| l.local.is_ipv4() == remote.is_ipv4();
                let near = |l: &Listener| l.local.ip().is_loopback() == remote.ip().is_loopback();
                let position = |test: &dyn Fn(&Listener) -> bool| self.listeners.iter().position(test);
                position(&|l| family(&l) && near(l)).or_else(|| position(&|l| family(&l)))
            }
        }
    }

    /// Sends the UDP messages of `out` from index `from` on, as long as they leave from one address. Returns the index of
    /// the first message that was not looked at. What cannot leave, and what came back meanwhile, is appended to `failures`.
    pub(crate) fn send_run(
        &self,
        out: &Outbox,
        from: usize,
        place: Option<Place>,
        counters: &Counters,
        failures: &mut Failures,
    ) -> usize {
        let items = out.items();
        let Some(listener) = self.listener_for(&items[from].hop) else {
            Counters::bump(&counters.unsent);
            failures.unsent.push(items[from].token);
            return from + 1;
        };
        let same = |i: &usize| {
            items[*i].hop.transport() == Transport::Udp && self.listener_for(&items[*i].hop) == Some(listener)
        };
        let end = (from + 1..items.len()).take_while(same).last().map_or(from + 1, |last| last + 1);
        let socket = match place {
            Some(place) if place.listener == listener => place.socket,
            _ => 0,
        };
        let socket = &self.listeners[listener].sockets[socket].socket;
        let mut at = from;
        let mut waited = false;
        let (mut passed, mut unexplained) = (0, 0);
        SEND.with_borrow_mut(|batch| {
            while at < end {
                let run = &items[at..end];
                match batch.send(socket, run.iter().map(|t| (t.hop.remote(), out.bytes(t.bytes.clone())))) {
                    Ok(n) => {
                        Counters::add(&counters.sent[Transport::Udp as usize], n as u64);
                        at += n.max(1);
                        unexplained = 0;
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        if waited || !batch::wait_writable(socket, SEND_WAIT_MILLIS) {
                            // As lost as on the wire: retransmission is the transactions' business.
                            Counters::add(&counters.unsent, (end - at) as u64);
                            at = end;
                        }
                        waited = true;
                    }
                    // An ICMP answer to an earlier datagram to someone: this one was not tried yet. An error that stays
                    // when none is in the queue is about this one.
                    Err(e)
                        if returned::may_be_about_another(&e)
                            && passed < ERRORS_PASSED
                            && (returned::collect(socket, &mut failures.returned)
                                || unexplained < TRIES_UNEXPLAINED) =>
                    {
                        passed += 1;
                        unexplained += 1;
                    }
                    Err(e) => {
                        tracing::debug!(error = %e, "a datagram could not be sent");
                        Counters::bump(&counters.unsent);
                        failures.unsent.push(items[at].token);
                        at += 1;
                        unexplained = 0;
                    }
                }
            }
        });
        end
    }
}

fn bind(address: SocketAddr, buffer: usize, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // Both families are listened to by naming both, so that a peer has one address here.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    // A thread that missed its wake-up looks again.
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let socket = UdpSocket::from(socket);
    batch::set_buffers(&socket, buffer);
    batch::allow_fragments(&socket, address.is_ipv6());
    returned::listen(&socket, address.is_ipv6());
    Ok(socket)
}

fn work(core: &Core, place: Place) {
    let listener = &core.udp.listeners[place.listener];
    let endpoint = &listener.sockets[place.socket];
    let mut flow = Flow {
        transport: Transport::Udp,
        id: FlowId(place.listener as u64),
        local: listener.local,
        remote: listener.local,
    };
    let mut batch = ReceiveBatch::new();
    let mut out = Outbox::new();
    while !core.is_stopped() {
        let n = match batch.receive(&endpoint.socket) {
            Ok(n) => n,
            Err(e) => {
                use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
                // Also when nothing came for a second: a sender may have been told of the error in our place.
                let came_back = give_back(core, endpoint, &mut out);
                core.flush(Instant::now(), &mut out, Some(place));
                let idle = matches!(e.kind(), WouldBlock | TimedOut | Interrupted);
                if idle {
                    core.idle();
                }
                if !(idle || came_back || returned::may_be_about_another(&e)) {
                    tracing::warn!(error = %e, "UDP receive failed");
                    std::thread::sleep(Duration::from_millis(100));
                }
                continue;
            }
        };
        let now = Instant::now();
        let loaded = look_at_queue(core, endpoint, n);
        let mut received = 0;
        for i in 0..n {
            let Some((bytes, remote)) = batch.datagram(i) else { continue };
            flow.remote = remote;
            received += u64::from(datagram(core, now, &flow, bytes, loaded, &mut out));
        }
        Counters::add(&core.counters.received[Transport::Udp as usize], received);
        core.flush(now, &mut out, Some(place));
    }
}

/// Tells the handler of the datagrams in the error queue. True if there were any.
#[cold]
fn give_back(core: &Core, endpoint: &Endpoint, out: &mut Outbox) -> bool {
    let mut returned = Vec::new();
    let any = returned::collect(&endpoint.socket, &mut returned);
    core.give_back(Instant::now(), &returned, out);
    any
}

/// Whether the socket's queue grows beyond what is drained. Asked of the kernel only when a batch came full, or to see the
/// end of it.
fn look_at_queue(core: &Core, endpoint: &Endpoint, n: usize) -> bool {
    let was = endpoint.loaded.load(Relaxed);
    if n < RECEIVE_SLOTS && !was {
        return false;
    }
    let Some((used, limit)) = batch::receive_queue(&endpoint.socket) else { return false };
    let loaded = used > if was { limit / 4 } else { limit / 2 };
    if loaded != was {
        endpoint.loaded.store(loaded, Relaxed);
    }
    if loaded {
        Counters::bump(&core.counters.overloaded);
    }
    loaded
}

/// True when the handler got it.
fn datagram(core: &Core, now: Instant, flow: &Flow, bytes: &[u8], loaded: bool, out: &mut Outbox) -> bool {
    match bytes.first() {
        Some(b) if b.is_ascii_graphic() && bytes.len() >= SHORTEST => {}
        // RFC 3261 §7.5: line ends before a message are ignored.
        Some(b'\r' | b'\n') if bytes.len() > SHORTEST && !bytes.trim_ascii().is_empty() => {}
        _ => {
            keep_alive_or_garbage(core, now, flow, bytes, out);
            return false;
        }
    }
    let verdict = core.flood.verdict(now, flow.remote);
    if verdict == Verdict::Drop {
        Counters::bump(&core.counters.flood_dropped);
        return false;
    }
    core.deliver(now, flow, bytes, loaded || verdict == Verdict::Refuse, out);
    true
}

#[cold]
fn keep_alive_or_garbage(core: &Core, now: Instant, flow: &Flow, bytes: &[u8], out: &mut Outbox) {
    if stun::is_stun(bytes) {
        let mut reply = Vec::new();
        if stun::answer(bytes, flow.remote, &mut reply) {
            Counters::bump(&core.counters.keep_alives);
            out.push_bytes(Hop::Flow(*flow), sip_proto::transport::Transmit::NO_TOKEN, &reply);
            return;
        }
    } else if bytes.len() <= 4 && bytes.iter().all(|b| matches!(b, b'\r' | b'\n' | b' ' | 0)) {
        // Phones keep their NAT's door open with these although RFC 5626 has STUN for it; no answer is expected.
        Counters::bump(&core.counters.keep_alives);
        return;
    }
    Counters::bump(&core.counters.garbage);
    core.flood.penalise(now, flow.remote, 1);
}
