//! SIP over UDP against plain sockets.

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use sip_net::{CarrierConfig, Carriers, FloodConfig};
use sip_proto::transport::Transmit;
use sip_proto::{Hop, Outbox, Transport};
use support::{Echo, Seen, answer, request};
use tokio::runtime::{Handle, Runtime};

struct Server {
    echo: std::sync::Arc<Echo>,
    carriers: Carriers,
    _runtime: Runtime,
}

fn start(config: CarrierConfig) -> Server {
    let runtime = Runtime::new().unwrap();
    let echo = Echo::new();
    let handle: Handle = runtime.handle().clone();
    let carriers = Carriers::start(&config, echo.clone(), handle).unwrap();
    Server { echo, carriers, _runtime: runtime }
}

fn on(address: &str) -> CarrierConfig {
    CarrierConfig { udp: vec![address.parse().unwrap()], udp_threads: 5, ..CarrierConfig::default() }
}

fn peer(to: SocketAddr) -> UdpSocket {
    let local = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(local).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buf = vec![0; 65536];
    let n = socket.recv(&mut buf).unwrap();
    buf.truncate(n);
    buf
}

impl Server {
    fn udp(&self) -> SocketAddr {
        self.carriers.local_addr(Transport::Udp).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.carriers.shutdown();
    }
}

#[test]
fn a_burst_from_one_peer_is_answered_whole_over_both_families() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = start(on(address));
        let peer = peer(server.udp());
        let mut got = Vec::new();
        // As much as the peer's own buffer surely holds.
        for first in (0..300).step_by(50) {
            for n in first..first + 50 {
                peer.send(&request(n)).unwrap();
            }
            got.extend((0..50).map(|_| receive(&peer)));
        }
        let mut want: Vec<_> = (0..300).map(|n| answer(&request(n))).collect();
        got.sort();
        want.sort();
        assert_eq!(got, want);
        assert_eq!(server.carriers.counters().received(Transport::Udp), 300);
        // Counted once the system call is back, which may be after the peer has the last answer.
        let until = Instant::now() + Duration::from_secs(10);
        while server.carriers.counters().sent(Transport::Udp) < 300 {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        let flow = server.echo.first_flow();
        assert_eq!((flow.local, flow.remote), (server.udp(), peer.local_addr().unwrap()));
    }
}

#[test]
fn the_largest_datagram_goes_both_ways() {
    let server = start(on("127.0.0.1:0"));
    let peer = peer(server.udp());
    let mut big = request(1);
    big.resize(64_000, b'x');
    peer.send(&big).unwrap();
    assert_eq!(receive(&peer), answer(&big));
}

#[test]
fn keep_alives_do_not_reach_the_handler_and_stun_tells_the_address() {
    let server = start(on("127.0.0.1:0"));
    let peer = peer(server.udp());
    for noise in
        [&b"\r\n\r\n"[..], b"\r\n", b"\0", b"", b"jaK", b"\x80\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d"]
    {
        peer.send(noise).unwrap();
    }
    peer.send(b"\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl").unwrap();
    let reply = receive(&peer);
    assert_eq!(reply[..2], [1, 1]);
    assert_eq!(&reply[8..20], b"abcdefghijkl");
    let port = u16::from_be_bytes([reply[26] ^ 0x21, reply[27] ^ 0x12]);
    assert_eq!(port, peer.local_addr().unwrap().port());
    peer.send(&request(1)).unwrap();
    receive(&peer);
    assert_eq!(server.echo.seen().len(), 1);
}

#[test]
fn messages_go_to_addresses_and_what_cannot_leave_is_told() {
    let server = start(on("127.0.0.1:0"));
    let peer = peer(server.udp());
    let mut out = Outbox::new();
    let to = |remote| Hop::Address { transport: Transport::Udp, remote };
    for n in 0..70 {
        out.push_bytes(to(peer.local_addr().unwrap()), n, &request(n as usize));
    }
    // No socket of that family, and a port nobody can have; neither holds up the rest.
    out.push_bytes(to("[::1]:9".parse().unwrap()), 7, b"x");
    out.push_bytes(to("127.0.0.1:0".parse().unwrap()), 8, b"x");
    out.push_bytes(to(peer.local_addr().unwrap()), Transmit::NO_TOKEN, &request(70));
    server.carriers.send(&mut out);
    assert!(out.is_empty());
    for n in 0..=70 {
        assert_eq!(receive(&peer), request(n));
    }
    assert_eq!(server.echo.seen(), [Seen::Unreachable(7), Seen::Unreachable(8)]);
}

#[test]
fn what_a_closed_port_gives_back_is_told_and_disturbs_nobody() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = start(on(address));
        let closed = UdpSocket::bind(address).unwrap().local_addr().unwrap();
        let open = peer(server.udp());
        let mut out = Outbox::new();
        for n in 0..200 {
            let here = if n % 2 == 0 { open.local_addr().unwrap() } else { closed };
            let hop = Hop::Address { transport: Transport::Udp, remote: here };
            out.push_bytes(hop, n, &request(n as usize));
            // In several sends, so that the errors of one meet the next.
            if n % 8 == 7 {
                server.carriers.send(&mut out);
            }
        }
        for n in (0..200).step_by(2) {
            assert_eq!(receive(&open), request(n));
        }
        let returned = server.echo.wait(|seen| {
            let each = seen.iter().map(|s| match s {
                Seen::Returned(to, quoted) if *to == closed => quoted.clone(),
                other => panic!("{other:?}"),
            });
            // Kernels give back some fifty at once (net.ipv4.icmp_msgs_burst), then a thousand a second.
            (seen.len() >= 20).then(|| each.collect::<Vec<_>>())
        });
        let sent: Vec<_> = (1..200).step_by(2).map(request).collect();
        assert!(returned.iter().all(|quoted| sent.contains(quoted)));
    }
}

#[test]
fn a_panic_of_the_handler_costs_one_message() {
    let server = start(on("127.0.0.1:0"));
    let peer = peer(server.udp());
    for _ in 0..20 {
        peer.send(b"PANIC sip:a SIP/2.0\r\n\r\n").unwrap();
    }
    peer.send(&request(1)).unwrap();
    assert_eq!(receive(&peer), answer(&request(1)));
    server.echo.wait(|seen| (seen.len() == 21).then_some(()));
}

#[test]
fn a_source_of_garbage_is_silenced_while_its_neighbour_is_served() {
    let server =
        start(CarrierConfig { flood: FloodConfig { burst: 20, ..FloodConfig::default() }, ..on("127.0.0.1:0") });
    let (bad, good) = (peer(server.udp()), peer(server.udp()));
    for _ in 0..30 {
        bad.send(b"\x01\x02\x03\x04").unwrap();
    }
    // Several threads read: garbage of the bad one may be under way while the request is looked at.
    let until = Instant::now() + Duration::from_secs(10);
    while server.carriers.flood().silenced() == 0 {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    bad.send(&request(1)).unwrap();
    bad.send(&request(2)).unwrap();
    good.send(&request(3)).unwrap();
    assert_eq!(receive(&good), answer(&request(3)));
    // The first was passed on as over the limit, so that it gets its 503; the second was not.
    let messages = server.echo.wait(|seen| {
        let from = |peer: &UdpSocket| peer.local_addr().unwrap();
        let loaded: Vec<_> = seen
            .iter()
            .filter_map(|s| match s {
                Seen::Message(flow, _, loaded) if flow.remote == from(&bad) => Some(*loaded),
                _ => None,
            })
            .collect();
        (!loaded.is_empty()).then_some(loaded)
    });
    assert_eq!(messages, [true]);
}

/// Stands still at its first message until told to go on.
#[derive(Default)]
struct Gate {
    open: parking_lot::Mutex<bool>,
    opened: parking_lot::Condvar,
    loaded: parking_lot::Mutex<Vec<bool>>,
}

impl sip_net::Handler for Gate {
    fn message(&self, _: Instant, _: &sip_proto::Flow, _: &[u8], loaded: bool, _: &mut Outbox) {
        let mut open = self.open.lock();
        while !*open {
            self.opened.wait(&mut open);
        }
        self.loaded.lock().push(loaded);
    }

    fn tick(&self, _: Instant, _: &mut Outbox) {}
    fn closed(&self, _: Instant, _: &sip_proto::Flow, _: &mut Outbox) {}
    fn unreachable(&self, _: Instant, _: u64, _: &mut Outbox) {}
}

#[test]
fn a_queue_that_grows_tells_the_handler_to_shed_load_until_it_is_short_again() {
    let runtime = Runtime::new().unwrap();
    let gate = std::sync::Arc::new(Gate::default());
    // 128 KiB as the kernel counts, which is more than twice the bytes of the datagrams.
    let config = CarrierConfig { udp_threads: 1, udp_buffer: 64 * 1024, ..on("127.0.0.1:0") };
    let carriers = Carriers::start(&config, gate.clone(), runtime.handle().clone()).unwrap();
    let peer = peer(carriers.local_addr(Transport::Udp).unwrap());
    // More than the queue holds: the kernel drops the rest, as it does under load.
    for n in 0..500 {
        peer.send(&request(n)).unwrap();
    }
    *gate.open.lock() = true;
    gate.opened.notify_all();
    let until = Instant::now() + Duration::from_secs(10);
    // The end of the queue, then quiet traffic again.
    while gate.loaded.lock().last() != Some(&false) || !gate.loaded.lock().contains(&true) {
        assert!(Instant::now() < until, "{:?}", gate.loaded.lock());
        peer.send(&request(1)).unwrap();
        std::thread::yield_now();
    }
    carriers.shutdown();
    assert!(carriers.counters().overloaded.load(std::sync::atomic::Ordering::Relaxed) > 0);
}

#[test]
fn two_servers_do_not_share_a_port_by_accident() {
    let server = start(CarrierConfig { tcp: vec!["127.0.0.1:0".parse().unwrap()], ..on("127.0.0.1:0") });
    let tcp = server.carriers.local_addr(Transport::Tcp).unwrap();
    let config = CarrierConfig { tcp: vec![tcp], ..CarrierConfig::default() };
    let error = Carriers::start(&config, Echo::new(), server._runtime.handle().clone()).err().unwrap();
    assert!(error.to_string().contains(&tcp.to_string()), "{error}");
    for udp_threads in [1, 5] {
        let config = CarrierConfig { udp: vec![server.udp()], udp_threads, ..CarrierConfig::default() };
        assert!(Carriers::start(&config, Echo::new(), server._runtime.handle().clone()).is_err());
    }
}

/// Tells on which thread nothing came.
struct Silence(std::sync::mpsc::Sender<Option<String>>);

impl sip_net::Handler for Silence {
    fn message(&self, _: Instant, _: &sip_proto::Flow, _: &[u8], _: bool, _: &mut Outbox) {}
    fn tick(&self, _: Instant, _: &mut Outbox) {}
    fn idle(&self) {
        let _ = self.0.send(std::thread::current().name().map(str::to_owned));
    }
    fn closed(&self, _: Instant, _: &sip_proto::Flow, _: &mut Outbox) {}
    fn unreachable(&self, _: Instant, _: u64, _: &mut Outbox) {}
}

#[test]
fn a_thread_to_which_nothing_comes_is_idle_again_and_again() {
    let runtime = Runtime::new().unwrap();
    let (told, idle) = std::sync::mpsc::channel();
    let config = CarrierConfig { udp_threads: 1, ..on("127.0.0.1:0") };
    let carriers = Carriers::start(&config, std::sync::Arc::new(Silence(told)), runtime.handle().clone()).unwrap();
    for _ in 0..2 {
        assert_eq!(idle.recv_timeout(Duration::from_secs(20)).unwrap().as_deref(), Some("udp-0-0"));
    }
    carriers.shutdown();
}
