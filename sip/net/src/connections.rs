//! The open stream connections: by flow, by peer for reuse, with their caps, queues and times.
//!
//! A [`Connection`] is what is shared between the task that owns the socket and everybody who sends: an append-only
//! buffer of whole messages that the task takes as one piece, so that the messages of one batch leave in one write.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Instant;

use parking_lot::Mutex;
use rand::Rng;
use sip_proto::transport::Transmit;
use sip_proto::{Flow, FlowId, Hop, HostId, Transport};
use std::collections::HashMap;

use crate::config::StreamLimits;

const SHARDS: usize = 64;
/// A connection that is being closed in order has that long, in seconds.
const LINGER: u32 = 5;

/// Why a connection was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("too many connections")]
    Total,
    #[error("too many connections from one address")]
    Source,
}

/// Why bytes were not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NotQueued {
    #[error("the connection is closed")]
    Closed,
    #[error("the peer does not take what is sent to it")]
    Full,
}

/// What the table says to a hop.
pub(crate) enum Found {
    Connection(Arc<Connection>),
    /// Made now; the caller must connect it.
    New(Arc<Connection>),
    None,
}

type Remote = (Transport, SocketAddr, Option<HostId>);

pub(crate) struct Connections {
    limits: StreamLimits,
    start: Instant,
    /// Streams' flow ids begin anywhere, so that those of two runs, and of two nodes, differ.
    next: AtomicU64,
    by_id: Vec<Mutex<HashMap<u64, Arc<Connection>>>>,
    /// The newest connection for each peer.
    by_remote: Mutex<HashMap<Remote, Arc<Connection>>>,
    by_source: Mutex<HashMap<IpAddr, usize>>,
    total: AtomicUsize,
}

impl Connections {
    pub(crate) fn new(limits: &StreamLimits, now: Instant) -> Connections {
        Connections {
            limits: limits.clone(),
            start: now,
            next: AtomicU64::new(rand::rng().random_range(1 << 32..1 << 62)),
            by_id: (0..SHARDS).map(|_| Mutex::default()).collect(),
            by_remote: Mutex::default(),
            by_source: Mutex::default(),
            total: AtomicUsize::new(0),
        }
    }

    /// Counts and registers a connection that a peer opened.
    pub(crate) fn accept(
        &self,
        now: Instant,
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Arc<Connection>, Refused> {
        let connection = self.make(now, transport, remote, None, false)?;
        let _ = connection.local.set(local);
        self.by_remote.lock().insert((transport, remote, None), connection.clone());
        Ok(connection)
    }

    /// The connection for a hop: the flow's own, an open one to that peer, or a new one that the caller must connect.
    pub(crate) fn find(&self, now: Instant, hop: &Hop) -> Result<Found, Refused> {
        let (transport, remote, host) = match *hop {
            Hop::Flow(flow) => {
                let found = self.shard(flow.id).lock().get(&flow.id.0).cloned();
                return Ok(found.map_or(Found::None, Found::Connection));
            }
            Hop::Address { transport, remote } => (transport, remote, None),
            Hop::Host { transport, remote, host } => (transport, remote, Some(host)),
        };
        let mut by_remote = self.by_remote.lock();
        if let Some(found) = by_remote.get(&(transport, remote, host)) {
            return Ok(Found::Connection(found.clone()));
        }
        // Nobody listens behind a browser (RFC 7118 §5.2.2).
        if !matches!(transport, Transport::Tcp | Transport::Tls) {
            return Ok(Found::None);
        }
        let connection = self.make(now, transport, remote, host, true)?;
        by_remote.insert((transport, remote, host), connection.clone());
        if host.is_some() {
            // Who needs no particular host may use it too.
            by_remote.entry((transport, remote, None)).or_insert_with(|| connection.clone());
        }
        Ok(Found::New(connection))
    }

    pub(crate) fn get(&self, id: FlowId) -> Option<Arc<Connection>> {
        self.shard(id).lock().get(&id.0).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.total.load(Relaxed)
    }

    fn make(
        &self,
        now: Instant,
        transport: Transport,
        remote: SocketAddr,
        host: Option<HostId>,
        outgoing: bool,
    ) -> Result<Arc<Connection>, Refused> {
        if self.total.fetch_add(1, Relaxed) >= self.limits.connections {
            self.total.fetch_sub(1, Relaxed);
            return Err(Refused::Total);
        }
        if !outgoing {
            let mut by_source = self.by_source.lock();
            let count = by_source.entry(source(remote)).or_insert(0);
            if *count >= self.limits.connections_per_source {
                self.total.fetch_sub(1, Relaxed);
                return Err(Refused::Source);
            }
            *count += 1;
        }
        let second = self.second(now);
        let connection = Arc::new(Connection {
            id: FlowId(self.next.fetch_add(1, Relaxed)),
            transport,
            remote,
            host,
            outgoing,
            local: OnceLock::new(),
            identities: OnceLock::new(),
            opened: second,
            heard: AtomicU32::new(second),
            unfinished: AtomicU32::new(0),
            proven: AtomicBool::new(false),
            queue: Mutex::new(SendQueue::default()),
            queue_max: self.limits.queue,
        });
        self.shard(connection.id).lock().insert(connection.id.0, connection.clone());
        Ok(connection)
    }

    /// Takes a connection out of the table. Once for each that was made.
    pub(crate) fn forget(&self, connection: &Arc<Connection>) {
        if self.shard(connection.id).lock().remove(&connection.id.0).is_none() {
            return;
        }
        let mut by_remote = self.by_remote.lock();
        for host in [None, connection.host] {
            let key = (connection.transport, connection.remote, host);
            if by_remote.get(&key).is_some_and(|c| c.id == connection.id) {
                by_remote.remove(&key);
            }
        }
        drop(by_remote);
        if !connection.outgoing {
            let mut by_source = self.by_source.lock();
            let source = source(connection.remote);
            if let Some(count) = by_source.get_mut(&source) {
                *count -= 1;
                if *count == 0 {
                    by_source.remove(&source);
                }
            }
        }
        self.total.fetch_sub(1, Relaxed);
    }

    /// Cuts what is over its time and wakes what should ping. Call it once a second. Returns how many were cut.
    pub(crate) fn sweep(&self, now: Instant) -> usize {
        let second = self.second(now);
        let mut cut = 0;
        for shard in &self.by_id {
            // A copy of the handles: waking a task may take its time.
            let connections: Vec<_> = shard.lock().values().cloned().collect();
            for connection in connections {
                if connection.is_overdue(second, &self.limits) {
                    connection.cut();
                    cut += 1;
                } else if connection.transport.is_web_socket() {
                    let silent = second.saturating_sub(connection.heard.load(Relaxed));
                    let ping = self.limits.ping.as_secs().max(1) as u32;
                    if silent >= ping && silent.is_multiple_of(ping) {
                        connection.ping();
                    }
                }
            }
        }
        cut
    }

    /// Lets every connection finish writing, then close.
    pub(crate) fn finish_all(&self, now: Instant) {
        let second = self.second(now);
        for shard in &self.by_id {
            let connections: Vec<_> = shard.lock().values().cloned().collect();
            connections.iter().for_each(|c| c.finish(second));
        }
    }

    /// Seconds since the table was made, from 1: 0 says "never" in a connection's times.
    pub(crate) fn second(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.start).as_secs() as u32 + 1
    }

    fn shard(&self, id: FlowId) -> &Mutex<HashMap<u64, Arc<Connection>>> {
        &self.by_id[id.0 as usize % SHARDS]
    }
}

/// Whom a connection counts for: an address, or the /64 that one host of IPv6 has to itself.
fn source(remote: SocketAddr) -> IpAddr {
    match remote.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        v4 => v4,
    }
}

/// Asked of the two carriers whose peers are browsers.
trait WebSocket {
    fn is_web_socket(&self) -> bool;
}

impl WebSocket for Transport {
    fn is_web_socket(&self) -> bool {
        matches!(self, Transport::Ws | Transport::Wss)
    }
}

pub(crate) struct Connection {
    pub(crate) id: FlowId,
    pub(crate) transport: Transport,
    pub(crate) remote: SocketAddr,
    pub(crate) host: Option<HostId>,
    pub(crate) outgoing: bool,
    local: OnceLock<SocketAddr>,
    /// What the peer proved to be by its certificate (RFC 5922 §7.1).
    identities: OnceLock<Arc<[String]>>,
    /// Times in seconds of the table, 0: never.
    opened: u32,
    heard: AtomicU32,
    unfinished: AtomicU32,
    /// A whole message came over it.
    proven: AtomicBool,
    queue: Mutex<SendQueue>,
    /// Bytes in `queue`; as much again may be in the hands of the task.
    queue_max: usize,
}

#[derive(Default)]
struct SendQueue {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
    waker: Option<Waker>,
    /// Since when something waits to be written or the connection is finishing.
    since: u32,
    end: End,
    ping: bool,
}

/// Where a queued message ends, and who waits for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) end: usize,
    pub(crate) token: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum End {
    #[default]
    Open,
    /// Write what is queued, then close.
    Finish,
    /// Close now.
    Cut,
}

/// What the task should do next.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Write,
    Ping,
    /// Nothing; the waker is kept.
    Wait,
    Finish,
    Cut,
}

impl Connection {
    pub(crate) fn flow(&self) -> Flow {
        let unspecified = || SocketAddr::new([0, 0, 0, 0].into(), 0);
        let local = self.local.get().copied().unwrap_or_else(unspecified);
        Flow { transport: self.transport, id: self.id, local, remote: self.remote }
    }

    pub(crate) fn connected(&self, local: SocketAddr) {
        let _ = self.local.set(local);
    }

    pub(crate) fn set_identities(&self, identities: Vec<String>) {
        let _ = self.identities.set(identities.into());
    }

    pub(crate) fn identities(&self) -> Option<Arc<[String]>> {
        self.identities.get().cloned()
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Relaxed)
    }

    /// Bytes came; `whole` if they completed something, `unfinished` if something is left begun.
    pub(crate) fn heard(&self, second: u32, whole: bool, unfinished: bool) {
        self.heard.store(second, Relaxed);
        if !unfinished {
            self.unfinished.store(0, Relaxed);
        } else if whole || self.unfinished.load(Relaxed) == 0 {
            self.unfinished.store(second, Relaxed);
        }
    }

    pub(crate) fn prove(&self) {
        self.proven.store(true, Relaxed);
    }

    /// Appends one message.
    pub(crate) fn send(&self, second: u32, bytes: &[u8], token: u64) -> Result<(), NotQueued> {
        let mut queue = self.queue.lock();
        if queue.end != End::Open {
            return Err(NotQueued::Closed);
        }
        if queue.bytes.len() + bytes.len() > self.queue_max {
            // The stream would have a hole: nothing that follows could be read.
            queue.end = End::Cut;
            wake(queue);
            return Err(NotQueued::Full);
        }
        queue.bytes.extend_from_slice(bytes);
        let end = queue.bytes.len();
        queue.marks.push(Mark { end, token });
        if queue.since == 0 {
            queue.since = second;
        }
        wake(queue);
        Ok(())
    }

    /// Moves what is queued into `bytes` and `marks`, which must be empty, or keeps the waker.
    pub(crate) fn take(&self, waker: &Waker, bytes: &mut Vec<u8>, marks: &mut Vec<Mark>) -> Order {
        let mut queue = self.queue.lock();
        if queue.end == End::Cut {
            return Order::Cut;
        }
        if !queue.bytes.is_empty() {
            std::mem::swap(&mut queue.bytes, bytes);
            std::mem::swap(&mut queue.marks, marks);
            return Order::Write;
        }
        if queue.end == End::Finish {
            // The sweep cuts a close that takes too long.
            self.keep(&mut queue, waker);
            return Order::Finish;
        }
        if std::mem::take(&mut queue.ping) {
            return Order::Ping;
        }
        queue.since = 0;
        self.keep(&mut queue, waker);
        Order::Wait
    }

    /// For a task that is busy writing: whether it must stop at once. Keeps the waker.
    pub(crate) fn is_cut(&self, waker: &Waker) -> bool {
        let mut queue = self.queue.lock();
        self.keep(&mut queue, waker);
        queue.end == End::Cut
    }

    fn keep(&self, queue: &mut SendQueue, waker: &Waker) {
        if !queue.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            queue.waker = Some(waker.clone());
        }
    }

    pub(crate) fn finish(&self, second: u32) {
        let mut queue = self.queue.lock();
        if queue.end == End::Open {
            queue.end = End::Finish;
            queue.since = second;
            wake(queue);
        }
    }

    pub(crate) fn cut(&self) {
        let mut queue = self.queue.lock();
        queue.end = End::Cut;
        wake(queue);
    }

    fn ping(&self) {
        let mut queue = self.queue.lock();
        queue.ping = true;
        wake(queue);
    }

    /// Ends the queue and gives back the tokens of what was never taken.
    pub(crate) fn close(&self) -> Vec<u64> {
        let mut queue = self.queue.lock();
        queue.end = End::Cut;
        queue.waker = None;
        queue.bytes = Vec::new();
        tokens(&std::mem::take(&mut queue.marks))
    }

    fn is_overdue(&self, second: u32, limits: &StreamLimits) -> bool {
        let older = |since: u32, limit: std::time::Duration| {
            since > 0 && u64::from(second.saturating_sub(since)) > limit.as_secs()
        };
        let (since, end) = {
            let queue = self.queue.lock();
            (queue.since, queue.end)
        };
        let heard = self.heard.load(Relaxed);
        older(self.unfinished.load(Relaxed), limits.unfinished)
            || older(since, limits.unfinished)
            || (end == End::Finish && second.saturating_sub(since) > LINGER)
            || older(heard, limits.idle)
            || (self.transport.is_web_socket() && older(heard, limits.ping * 3))
            || (!self.outgoing && !self.is_proven() && older(self.opened, limits.first_message))
    }
}

/// Those that somebody waits for.
pub(crate) fn tokens(marks: &[Mark]) -> Vec<u64> {
    marks.iter().map(|m| m.token).filter(|t| *t != Transmit::NO_TOKEN).collect()
}

fn wake(mut queue: parking_lot::MutexGuard<'_, SendQueue>) {
    let waker = queue.waker.take();
    drop(queue);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn table(limits: StreamLimits) -> (Connections, Instant) {
        let now = Instant::now();
        (Connections::new(&limits, now), now)
    }

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    fn accepted(table: &Connections, now: Instant, remote: &str) -> Result<Arc<Connection>, Refused> {
        table.accept(now, Transport::Tcp, at("127.0.0.1:5060"), at(remote))
    }

    fn take(connection: &Connection) -> (Order, Vec<u8>, Vec<Mark>) {
        let (mut bytes, mut marks) = (Vec::new(), Vec::new());
        let order = connection.take(Waker::noop(), &mut bytes, &mut marks);
        (order, bytes, marks)
    }

    #[test]
    fn messages_of_a_batch_are_taken_as_one_piece() {
        let (table, now) = table(StreamLimits::default());
        let connection = accepted(&table, now, "192.0.2.1:1").unwrap();
        connection.send(1, b"one", 1).unwrap();
        connection.send(1, b"two", Transmit::NO_TOKEN).unwrap();
        let (order, bytes, marks) = take(&connection);
        assert_eq!((order, &bytes[..]), (Order::Write, &b"onetwo"[..]));
        assert_eq!(tokens(&marks), [1]);
        assert_eq!(take(&connection).0, Order::Wait);
    }

    #[test]
    fn a_peer_is_reached_over_the_connection_that_it_opened() {
        let (table, now) = table(StreamLimits::default());
        let theirs = accepted(&table, now, "192.0.2.1:1").unwrap();
        let hop = Hop::Address { transport: Transport::Tcp, remote: at("192.0.2.1:1") };
        assert!(matches!(table.find(now, &hop), Ok(Found::Connection(c)) if c.id == theirs.id));
        table.forget(&theirs);
        let Ok(Found::New(ours)) = table.find(now, &hop) else { panic!("a new connection was due") };
        assert!(matches!(table.find(now, &hop), Ok(Found::Connection(c)) if c.id == ours.id));
        assert!(matches!(table.find(now, &Hop::Flow(theirs.flow())), Ok(Found::None)));
    }

    #[test]
    fn a_hop_to_a_host_never_uses_a_connection_that_did_not_prove_it() {
        let (table, now) = table(StreamLimits::default());
        let remote = at("192.0.2.1:5061");
        let hop = |host| Hop::Host { transport: Transport::Tls, remote, host };
        let any = table.accept(now, Transport::Tls, at("127.0.0.1:5061"), remote).unwrap();
        let Ok(Found::New(one)) = table.find(now, &hop(HostId(1))) else { panic!("a new connection was due") };
        let Ok(Found::New(two)) = table.find(now, &hop(HostId(2))) else { panic!("a new connection was due") };
        assert!(any.id != one.id && one.id != two.id);
        table.forget(&one);
        assert!(matches!(table.find(now, &hop(HostId(2))), Ok(Found::Connection(c)) if c.id == two.id));
    }

    #[test]
    fn nobody_connects_to_a_browser() {
        let (table, now) = table(StreamLimits::default());
        let hop = Hop::Address { transport: Transport::Wss, remote: at("192.0.2.1:1") };
        assert!(matches!(table.find(now, &hop), Ok(Found::None)));
    }

    #[test]
    fn caps_hold_and_come_free_again() {
        let limits = StreamLimits { connections: 3, connections_per_source: 2, ..StreamLimits::default() };
        let (table, now) = table(limits);
        let first = accepted(&table, now, "192.0.2.1:1").unwrap();
        let second = accepted(&table, now, "192.0.2.1:2").unwrap();
        assert_eq!(accepted(&table, now, "192.0.2.1:3").err(), Some(Refused::Source));
        let _third = accepted(&table, now, "192.0.2.2:1").unwrap();
        assert_eq!(accepted(&table, now, "192.0.2.3:1").err(), Some(Refused::Total));
        table.forget(&first);
        table.forget(&first);
        table.forget(&second);
        assert_eq!(table.len(), 1);
        assert!(accepted(&table, now, "192.0.2.1:3").is_ok());
    }

    #[test]
    fn hosts_of_one_ipv6_network_share_a_cap() {
        let (table, now) = table(StreamLimits { connections_per_source: 1, ..StreamLimits::default() });
        let _first = accepted(&table, now, "[2001:db8::1]:1").unwrap();
        assert_eq!(accepted(&table, now, "[2001:db8::2]:1").err(), Some(Refused::Source));
        assert!(accepted(&table, now, "[2001:db8:0:1::1]:1").is_ok());
    }

    #[test]
    fn a_peer_that_does_not_read_is_cut() {
        let (table, now) = table(StreamLimits { queue: 10, ..StreamLimits::default() });
        let connection = accepted(&table, now, "192.0.2.1:1").unwrap();
        connection.send(1, b"12345678", 7).unwrap();
        assert_eq!(connection.send(1, b"901", 8), Err(NotQueued::Full));
        assert_eq!(connection.send(1, b"", 9), Err(NotQueued::Closed));
        assert_eq!(take(&connection).0, Order::Cut);
        assert_eq!(connection.close(), [7]);
    }

    #[test]
    fn times_run_out_for_the_silent_the_slow_and_the_unproven() {
        let (table, now) = table(StreamLimits::default());
        let cuts_at = |prepare: &dyn Fn(&Connection)| {
            let connection = accepted(&table, now, "192.0.2.1:1").unwrap();
            prepare(&connection);
            let second = (0..100_000).find(|s| {
                table.sweep(now + Duration::from_secs(*s));
                take(&connection).0 == Order::Cut
            });
            table.forget(&connection);
            second.unwrap()
        };
        assert_eq!(cuts_at(&|_| {}), 121);
        assert_eq!(cuts_at(&|c| c.prove()), 3901);
        assert_eq!(cuts_at(&|c| c.heard(1, false, true)), 21);
        // What has begun does not get more time by coming in drops.
        assert_eq!(cuts_at(&|c| (1..15).for_each(|s| c.heard(s, false, true))), 21);
        assert_eq!(cuts_at(&|c| c.finish(1)), 6);
    }

    #[test]
    fn silent_web_sockets_are_pinged_then_cut() {
        let (table, now) = table(StreamLimits::default());
        let browser = table.accept(now, Transport::Wss, at("127.0.0.1:443"), at("192.0.2.1:1")).unwrap();
        browser.prove();
        let mut pings = Vec::new();
        for second in 0..200 {
            table.sweep(now + Duration::from_secs(second));
            match take(&browser).0 {
                Order::Ping => pings.push(second),
                Order::Cut => {
                    assert_eq!((second, &pings[..]), (151, &[50, 100, 150][..]));
                    return;
                }
                _ => {}
            }
        }
        panic!("never cut");
    }
}
