//! The sockets of a stream, and what moves datagrams between them.
//!
//! A task waits at each socket and empties it when something has come, into one buffer on the stack: nothing is
//! allocated for a packet. A stream has sockets of its own and one packet each 20 ms on them, so that there is seldom a
//! second one to take with the same system call, and nothing for `recvmmsg` to save.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::bridge::{Bridge, Far, Part, Side, Verdict};
use crate::ports::{Pair, Ports};

/// Longest datagram that is passed on, in bytes: beyond what an Ethernet carries in one piece, which RTP keeps to.
pub const MAX_DATAGRAM: usize = 2048;
/// Datagrams that a socket gives before others have their turn.
const BURST: usize = 32;
/// How many pairs are tried where other programs have ports of the range.
const TRIES: usize = 16;

/// Where the relay is.
#[derive(Clone, Debug)]
pub struct Config {
    /// As the ends know it. Listened on, if it is this machine's; else every address is.
    pub address: IpAddr,
    pub ports: RangeInclusive<u16>,
}

/// No port is left. Ours: more calls than the operator has provided for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no port left for media")]
pub struct Full;

/// What happened, since the start.
#[derive(Default, Debug)]
pub struct Counts {
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
    /// From somebody who is no part of the call.
    pub strangers: AtomicU64,
    /// For an end that is not known yet, or holds.
    pub nowhere: AtomicU64,
    pub too_long: AtomicU64,
    /// The system did not take it.
    pub unsent: AtomicU64,
    /// Streams for which there was no port.
    pub full: AtomicU64,
}

/// Opens streams.
pub struct Relay {
    address: IpAddr,
    listen: IpAddr,
    ports: Arc<Ports>,
    range: RangeInclusive<u16>,
    open: Arc<AtomicUsize>,
    counts: Arc<Counts>,
    runtime: Handle,
}

impl Relay {
    pub fn new(config: Config, runtime: Handle) -> Relay {
        let any = match config.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        // Behind a NAT of its own a server is known by an address that it does not have.
        let ours = std::net::UdpSocket::bind((config.address, 0)).is_ok();
        Relay {
            address: config.address,
            listen: if ours { config.address } else { any },
            ports: Ports::new(config.ports.clone()),
            range: config.ports,
            open: Arc::default(),
            counts: Arc::default(),
            runtime,
        }
    }

    /// As the ends know it.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Streams that are open.
    pub fn open_streams(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Whether so many more streams could be opened.
    pub fn has_room(&self, streams: usize) -> bool {
        self.ports.free() >= 2 * streams
    }

    /// Whether an end may be there: not on this machine, unless we are for this machine only, not many at once, and not
    /// us.
    pub fn may_send_to(&self, far: SocketAddr) -> bool {
        let ip = far.ip();
        let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        let ours = ip == self.address && self.range.contains(&far.port());
        ip.is_ipv4() == self.address.is_ipv4()
            && far.port() != 0
            && !(ip.is_unspecified() || ip.is_multicast() || broadcast || ours)
            && (!ip.is_loopback() || self.address.is_loopback())
    }

    /// A stream with two ports for each side, to nobody yet.
    pub fn open(&self) -> Result<Stream, Full> {
        let bound = self.bind().and_then(|caller| Some([caller, self.bind()?]));
        let Some([(caller, one), (callee, other)]) = bound else {
            self.counts.full.fetch_add(1, Relaxed);
            return Err(Full);
        };
        self.open.fetch_add(1, Relaxed);
        let ports = [one.even, other.even];
        let wires = Arc::new(Wires {
            bridge: Mutex::new(Bridge::new(Instant::now())),
            sockets: [caller, callee],
            counts: self.counts.clone(),
            open: self.open.clone(),
            _pairs: [one, other],
        });
        let places = Side::BOTH.into_iter().flat_map(|side| Part::BOTH.map(|part| (side, part)));
        let tasks =
            places.map(|(side, part)| self.runtime.spawn(wires.clone().run(side, part)).abort_handle()).collect();
        Ok(Stream { wires, ports, tasks })
    }

    /// Two sockets, and the pair of ports they have.
    fn bind(&self) -> Option<([UdpSocket; 2], Pair)> {
        let _entered = self.runtime.enter();
        // What others have stays taken until we are through, or it would be tried again.
        let mut theirs = Vec::new();
        for _ in 0..TRIES {
            let pair = self.ports.take()?;
            let bound = bind(SocketAddr::new(self.listen, pair.even))
                .and_then(|rtp| Ok([rtp, bind(SocketAddr::new(self.listen, pair.even + 1))?]));
            match bound {
                Ok(sockets) => return Some((sockets, pair)),
                Err(error) => {
                    tracing::debug!(port = pair.even, %error, "a pair of ports for media could not be opened");
                    theirs.push(pair);
                }
            }
        }
        None
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// One stream; its ports are free again soon after it is dropped.
pub struct Stream {
    wires: Arc<Wires>,
    ports: [u16; 2],
    tasks: Vec<AbortHandle>,
}

impl Stream {
    /// The port where we hear from this side, which the other must not learn; RTCP is at the next.
    pub fn port(&self, side: Side) -> u16 {
        self.ports[side as usize]
    }

    /// What [`Bridge::describe`] does.
    pub fn describe(&self, side: Side, far: Far) {
        self.wires.bridge.lock().describe(side, far);
    }

    /// What [`Bridge::is_silent`] says.
    pub fn is_silent(&self, now: Instant, limit: Duration) -> bool {
        self.wires.bridge.lock().is_silent(now, limit)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

struct Wires {
    bridge: Mutex<Bridge>,
    /// By side, then by part.
    sockets: [[UdpSocket; 2]; 2],
    counts: Arc<Counts>,
    open: Arc<AtomicUsize>,
    // Last: a port is free when its socket is closed.
    _pairs: [Pair; 2],
}

impl Wires {
    async fn run(self: Arc<Self>, side: Side, part: Part) {
        let socket = &self.sockets[side as usize][part as usize];
        while socket.readable().await.is_ok() {
            if self.empty(side, part) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Passes on what has come. True: there may be more.
    fn empty(&self, side: Side, part: Part) -> bool {
        let [from, to] = [side, side.other()].map(|side| &self.sockets[side as usize][part as usize]);
        let now = Instant::now();
        // One byte more than may come: what fills it was longer.
        let mut buffer = [0; MAX_DATAGRAM + 1];
        for _ in 0..BURST {
            let (length, source) = match from.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An ICMP answer to something sent before.
                Err(_) => continue,
            };
            if length > MAX_DATAGRAM {
                self.counts.too_long.fetch_add(1, Relaxed);
                continue;
            }
            let verdict = self.bridge.lock().arrives(side, part, source, now);
            let counter = match verdict {
                Verdict::Stranger => &self.counts.strangers,
                Verdict::Nowhere => &self.counts.nowhere,
                // A full queue loses it, as a network does.
                Verdict::Pass(far) if to.try_send_to(&buffer[..length], far).is_ok() => {
                    self.counts.bytes.fetch_add(length as u64, Relaxed);
                    &self.counts.packets
                }
                Verdict::Pass(_) => &self.counts.unsent,
            };
            counter.fetch_add(1, Relaxed);
        }
        true
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdSocket;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    /// Ten ports of this process, below those that systems give out by themselves; `nth`: of its tests that run side by side.
    fn range(nth: u16) -> RangeInclusive<u16> {
        let start = 24_000 + (std::process::id() % 250) as u16 * 20 + nth * 10;
        start..=start + 9
    }

    fn wait_for(fact: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !fact() {
            assert!(Instant::now() < end, "not within ten seconds");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(address: &str) -> (StdSocket, Far) {
        let socket = StdSocket::bind((address, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let media = socket.local_addr().unwrap();
        (socket, Far::At { media, control: media })
    }

    #[test]
    fn ends_hear_each_other_from_our_address_alone() {
        let runtime = runtime();
        let config = Config { address: "127.0.0.1".parse().unwrap(), ports: range(0) };
        let relay = Relay::new(config, runtime.handle().clone());
        let stream = relay.open().unwrap();
        let ((caller, there), (callee, here)) = (end("127.0.0.2"), end("127.0.0.3"));
        stream.describe(Side::Caller, there);
        stream.describe(Side::Callee, here);
        let mut buffer = [0; 4096];
        for (from, to, side) in [(&caller, &callee, Side::Caller), (&callee, &caller, Side::Callee)] {
            let stranger = StdSocket::bind("127.0.0.9:0").unwrap();
            stranger.send_to(b"not me", ("127.0.0.1", stream.port(side))).unwrap();
            from.send_to(&[7; MAX_DATAGRAM + 1], ("127.0.0.1", stream.port(side))).unwrap();
            from.send_to(b"hello", ("127.0.0.1", stream.port(side))).unwrap();
            let (n, source) = to.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], b"hello");
            assert_eq!(source, SocketAddr::from(([127, 0, 0, 1], stream.port(side.other()))));
        }
        let counts = relay.counts();
        // It is counted once it has left.
        wait_for(|| counts.packets.load(Relaxed) == 2);
        assert_eq!(counts.bytes.load(Relaxed), 10);
        assert_eq!(counts.strangers.load(Relaxed), 2);
        assert_eq!(counts.too_long.load(Relaxed), 2);
    }

    #[test]
    fn ports_run_out_and_come_back() {
        let runtime = runtime();
        // Five pairs: two streams.
        let config = Config { address: "127.0.0.1".parse().unwrap(), ports: range(1) };
        let relay = Relay::new(config, runtime.handle().clone());
        let streams: Vec<Stream> = std::iter::from_fn(|| relay.open().ok()).collect();
        assert_eq!((streams.len(), relay.open_streams()), (2, 2));
        assert!(!relay.has_room(1));
        assert_eq!(relay.counts().full.load(Relaxed), 1);
        drop(streams);
        wait_for(|| relay.open_streams() == 0);
        assert!(relay.open().is_ok());
    }

    #[test]
    fn nobody_has_us_send_where_nobody_is() {
        let runtime = runtime();
        let public = Config { address: "192.0.2.1".parse().unwrap(), ports: 30_000..=30_009 };
        let relay = Relay::new(public, runtime.handle().clone());
        for far in ["127.0.0.1:4000", "0.0.0.0:4000", "224.0.0.1:4000", "255.255.255.255:4000", "192.0.2.1:30004"] {
            assert!(!relay.may_send_to(far.parse().unwrap()), "{far}");
        }
        for far in ["[2001:db8::1]:4000", "198.51.100.1:0"] {
            assert!(!relay.may_send_to(far.parse().unwrap()), "{far}");
        }
        assert!(relay.may_send_to("192.0.2.1:4000".parse().unwrap()));
        assert!(relay.may_send_to("10.0.0.1:4000".parse().unwrap()));
    }
}
