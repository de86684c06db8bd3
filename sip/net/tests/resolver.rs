//! RFC 3263 against a name server on loopback.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NAPTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use sip_net::resolver::Hops;
use sip_net::{HostNames, Question, Resolver, ResolverConfig, Unresolved};
use sip_proto::{Hop, Transport};
use tokio::net::UdpSocket;

type Zone = HashMap<(Name, RecordType), Vec<RData>>;

/// A name server that knows one zone, and says no to everything else in `test.`; outside of it, it stays silent.
struct NameServer {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    async fn start(zone: Zone) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut buf = [0; 1500];
            loop {
                let (n, from) = socket.recv_from(&mut buf).await.unwrap();
                count.fetch_add(1, Relaxed);
                if let Some(answer) = answer(&zone, &Message::from_vec(&buf[..n]).unwrap()) {
                    socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
                }
            }
        });
        NameServer { address, asked }
    }

    fn resolver(&self) -> Arc<Resolver> {
        let config = ResolverConfig { name_servers: vec![self.address], ..ResolverConfig::default() };
        Arc::new(Resolver::new(&config, Arc::new(HostNames::default())))
    }
}

fn answer(zone: &Zone, query: &Message) -> Option<Message> {
    let question = query.queries[0].clone();
    let (asked, kind) = (question.name().clone(), question.query_type());
    if !name("test.").zone_of(&asked) {
        return None;
    }
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.add_query(question);
    match zone.get(&(asked.to_lowercase(), kind)) {
        Some(data) => data.iter().for_each(|data| {
            answer.add_answer(Record::from_rdata(asked.clone(), 60, data.clone()));
        }),
        None => {
            let known = zone.keys().any(|(name, _)| *name == asked.to_lowercase());
            answer.metadata.response_code = if known { ResponseCode::NoError } else { ResponseCode::NXDomain };
            let soa = SOA::new(name("ns.test."), name("admin.test."), 1, 60, 60, 60, 60);
            answer.authorities.push(Record::from_rdata(name("test."), 60, RData::SOA(soa)));
        }
    }
    Some(answer)
}

fn name(name: &str) -> Name {
    Name::from_ascii(name).unwrap()
}

fn zone(records: Vec<(&str, RData)>) -> Zone {
    let mut zone = Zone::new();
    for (owner, data) in records {
        zone.entry((name(owner), data.record_type())).or_default().push(data);
    }
    zone
}

fn a(ip: &str) -> RData {
    match ip.parse().unwrap() {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn srv(priority: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, 10, port, name(target)))
}

fn naptr(order: u16, flags: &str, service: &str, replacement: &str) -> RData {
    let bytes = |s: &str| s.as_bytes().to_vec().into_boxed_slice();
    RData::NAPTR(NAPTR::new(order, 10, bytes(flags), bytes(service), bytes(""), name(replacement)))
}

fn question(host: &str) -> Question {
    Question { host: host.into(), port: None, transport: None, secure: false }
}

/// In words, so that a failed comparison can be read. A hop that must prove its name is marked.
fn words(hops: Result<Hops, Unresolved>) -> Vec<String> {
    let word = |hop: &Hop| match hop {
        Hop::Host { transport, remote, .. } => format!("{transport}! {remote}"),
        hop => format!("{} {}", hop.transport(), hop.remote()),
    };
    hops.unwrap().iter().map(word).collect()
}

#[tokio::test]
async fn naptr_then_srv_then_addresses_in_order() {
    let server = NameServer::start(zone(vec![
        ("full.test.", naptr(20, "s", "SIP+D2U", "_sip._udp.full.test.")),
        ("full.test.", naptr(10, "S", "sips+d2t", "_sips._tcp.other.test.")),
        ("full.test.", naptr(5, "s", "SIP+D2W", "_sip._ws.full.test.")),
        ("full.test.", naptr(1, "u", "E2U+sip", ".")),
        ("_sips._tcp.other.test.", srv(1, 5071, "b.full.test.")),
        ("_sips._tcp.other.test.", srv(0, 5070, "a.full.test.")),
        ("_sip._udp.full.test.", srv(0, 5080, "a.full.test.")),
        ("a.full.test.", a("192.0.2.1")),
        ("a.full.test.", a("2001:db8::1")),
        ("b.full.test.", a("192.0.2.2")),
    ]))
    .await;
    let resolver = server.resolver();
    let hops = resolver.resolve(&question("Full.Test")).await;
    let want = [
        "tls! [2001:db8::1]:5070",
        "tls! 192.0.2.1:5070",
        "tls! 192.0.2.2:5071",
        "udp [2001:db8::1]:5080",
        "udp 192.0.2.1:5080",
    ];
    assert_eq!(words(hops), want);
    let secure = Question { secure: true, ..question("full.test") };
    assert_eq!(words(resolver.resolve(&secure).await), want[..3]);
}

#[tokio::test]
async fn the_name_to_prove_is_the_domain_that_was_asked_for() {
    let server = NameServer::start(zone(vec![
        ("_sips._tcp.a.test.", srv(0, 5061, "host.evil.test.")),
        ("_sips._tcp.b.test.", srv(0, 5061, "host.evil.test.")),
        ("host.evil.test.", a("192.0.2.1")),
    ]))
    .await;
    let names = Arc::new(HostNames::default());
    let config = ResolverConfig { name_servers: vec![server.address], ..ResolverConfig::default() };
    let resolver = Resolver::new(&config, names.clone());
    for host in ["a.test", "b.test"] {
        let hops = resolver.resolve(&Question { secure: true, ..question(host) }).await.unwrap();
        let Hop::Host { host: id, .. } = hops[0] else { panic!("{hops:?}") };
        assert_eq!(Some(id), names.intern(host));
        assert_ne!(Some(id), names.intern("host.evil.test"));
    }
}

#[tokio::test]
async fn without_naptr_every_usable_service_is_asked_for() {
    let server = NameServer::start(zone(vec![
        ("_sip._tcp.plain.test.", srv(0, 5070, "h.plain.test.")),
        ("_sip._udp.plain.test.", srv(0, 5080, "h.plain.test.")),
        ("h.plain.test.", a("192.0.2.1")),
    ]))
    .await;
    let resolver = server.resolver();
    assert_eq!(words(resolver.resolve(&question("plain.test")).await), ["udp 192.0.2.1:5080", "tcp 192.0.2.1:5070"]);
    let tcp = Question { transport: Some(Transport::Tcp), ..question("plain.test") };
    assert_eq!(words(resolver.resolve(&tcp).await), ["tcp 192.0.2.1:5070"]);
}

#[tokio::test]
async fn a_port_forbids_srv_and_no_srv_means_default_ports() {
    let server = NameServer::start(zone(vec![
        ("_sip._udp.host.test.", srv(0, 5080, "elsewhere.test.")),
        ("host.test.", a("192.0.2.1")),
        ("bare.test.", a("192.0.2.2")),
        ("bare.test.", a("2001:db8::2")),
    ]))
    .await;
    let resolver = server.resolver();
    let port = Question { port: Some(7000), ..question("host.test") };
    assert_eq!(words(resolver.resolve(&port).await), ["udp 192.0.2.1:7000"]);
    let bare = question("bare.test");
    assert_eq!(words(resolver.resolve(&bare).await), ["udp [2001:db8::2]:5060", "udp 192.0.2.2:5060"]);
    let secure = Question { secure: true, ..bare };
    assert_eq!(words(resolver.resolve(&secure).await), ["tls! [2001:db8::2]:5061", "tls! 192.0.2.2:5061"]);
}

#[tokio::test]
async fn absent_services_unknown_names_and_dead_name_servers_differ() {
    let server =
        NameServer::start(zone(vec![("_sip._udp.none.test.", srv(0, 0, ".")), ("none.test.", a("192.0.2.1"))])).await;
    let resolver = server.resolver();
    // RFC 2782: decidedly no such service, so the address is not tried either.
    assert_eq!(resolver.resolve(&question("none.test")).await, Err(Unresolved::NotFound));
    assert_eq!(resolver.resolve(&question("nx.test")).await, Err(Unresolved::NotFound));
    assert_eq!(resolver.resolve(&question("silent.example")).await, Err(Unresolved::Failed));
    assert_eq!(resolver.resolve(&question("a b")).await, Err(Unresolved::BadName));
    assert_eq!(resolver.resolve(&question("")).await, Err(Unresolved::BadName));
}

#[tokio::test]
async fn answers_good_and_bad_are_kept_and_then_need_no_waiting() {
    let server = NameServer::start(zone(vec![
        ("_sip._udp.kept.test.", srv(0, 5080, "h.kept.test.")),
        ("h.kept.test.", a("192.0.2.1")),
    ]))
    .await;
    let resolver = server.resolver();
    for (host, good) in [("kept.test", true), ("nx.test", false)] {
        let question = question(host);
        assert_eq!(resolver.cached(Instant::now(), &question), None);
        assert_eq!(resolver.resolve(&question).await.is_ok(), good);
        let asked = server.asked.load(Relaxed);
        assert_eq!(resolver.cached(Instant::now(), &question).unwrap().is_ok(), good);
        assert_eq!(resolver.resolve(&question).await.is_ok(), good);
        assert_eq!(server.asked.load(Relaxed), asked);
        // The records' own time is 60 s.
        let later = Instant::now() + std::time::Duration::from_secs(61);
        assert_eq!(resolver.cached(later, &question), None);
    }
    let (sender, answered) = tokio::sync::oneshot::channel();
    let done = |hops| sender.send(hops).unwrap();
    resolver.resolve_then(&tokio::runtime::Handle::current(), question("kept.test"), done);
    assert_eq!(words(answered.await.unwrap()), ["udp 192.0.2.1:5080"]);
}

#[test]
fn literals_localhost_and_fixed_routes_ask_nobody() {
    let config = ResolverConfig {
        name_servers: vec!["127.0.0.1:9".parse().unwrap()],
        routes: vec![(
            "Fixed.test".into(),
            vec![(Some(Transport::Tcp), "192.0.2.9:5099".parse().unwrap()), (None, "192.0.2.8:5098".parse().unwrap())],
        )],
        ..ResolverConfig::default()
    };
    let resolver = Resolver::new(&config, Arc::new(HostNames::default()));
    let now = Instant::now();
    let words = |q: Question| words(resolver.cached(now, &q).unwrap());
    assert_eq!(words(question("192.0.2.1")), ["udp 192.0.2.1:5060"]);
    assert_eq!(words(Question { port: Some(9), ..question("[2001:db8::1]") }), ["udp [2001:db8::1]:9"]);
    assert_eq!(words(Question { secure: true, ..question("192.0.2.1") }), ["tls! 192.0.2.1:5061"]);
    assert_eq!(words(question("localhost")), ["udp 127.0.0.1:5060", "udp [::1]:5060"]);
    assert_eq!(words(question("fixed.test.")), ["tcp 192.0.2.9:5099", "udp 192.0.2.8:5098"]);
    // A fixed route does not lower what the URI demands.
    assert_eq!(
        words(Question { secure: true, ..question("fixed.test") }),
        ["tls! 192.0.2.9:5099", "tls! 192.0.2.8:5098"]
    );
    for (transport, secure) in [(Transport::Udp, true), (Transport::Ws, false), (Transport::Wss, true)] {
        let question = Question { transport: Some(transport), secure, ..question("192.0.2.1") };
        assert_eq!(resolver.cached(now, &question), Some(Err(Unresolved::Transport)));
    }
}
