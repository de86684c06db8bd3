//! TCP, TLS and WebSocket against plain sockets, rustls and tungstenite clients.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls_pki_types::ServerName;
use sip_net::{CarrierConfig, Carriers, Certificate, Counters, StreamLimits, TlsConfig};
use sip_proto::transport::Transmit;
use sip_proto::{Flow, Hop, Outbox, Transport};
use support::{Echo, Seen, answer, request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

struct Server {
    echo: Arc<Echo>,
    carriers: Arc<Carriers>,
}

impl Server {
    fn start(limits: StreamLimits) -> Server {
        let any = || vec!["127.0.0.1:0".parse().unwrap()];
        let config = CarrierConfig {
            udp: any(),
            tcp: any(),
            tls: any(),
            ws: any(),
            wss: any(),
            certificates: Some(house().config),
            limits,
            ..CarrierConfig::default()
        };
        let echo = Echo::new();
        let carriers = Carriers::start(&config, echo.clone(), tokio::runtime::Handle::current()).unwrap();
        Server { echo, carriers: Arc::new(carriers) }
    }

    fn at(&self, transport: Transport) -> SocketAddr {
        self.carriers.local_addr(transport).unwrap()
    }

    fn counters(&self) -> &Counters {
        self.carriers.counters()
    }

    fn send(&self, hop: Hop, token: u64, bytes: &[u8]) {
        let mut out = Outbox::new();
        out.push_bytes(hop, token, bytes);
        self.carriers.send(&mut out);
    }

    async fn seen<T: Send + 'static>(&self, found: impl Fn(&[Seen]) -> Option<T> + Send + 'static) -> T {
        let echo = self.echo.clone();
        tokio::task::spawn_blocking(move || echo.wait(found)).await.unwrap()
    }

    async fn first_flow(&self) -> Flow {
        let echo = self.echo.clone();
        tokio::task::spawn_blocking(move || echo.first_flow()).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.carriers.shutdown();
    }
}

/// An authority, a certificate for `sip.example.com` and one for `other.example.com`, and a client's for a SIP domain.
struct House {
    config: TlsConfig,
    client: rustls::ClientConfig,
}

fn house() -> House {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let issue = |names: Vec<SanType>| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (certificate, key)
    };
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let pem = |(certificate, key): (rcgen::Certificate, KeyPair)| Certificate {
        chain: certificate.pem().into_bytes(),
        key: key.serialize_pem().into_bytes(),
    };
    let first = pem(issue(vec![dns("sip.example.com"), SanType::IpAddress("127.0.0.1".parse().unwrap())]));
    let second = pem(issue(vec![dns("other.example.com")]));
    let (client, client_key) = issue(vec![SanType::URI("sip:neighbour.example".try_into().unwrap())]);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let client = builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![client.der().clone()], client_key.serialize_der().try_into().unwrap())
        .unwrap();
    let authority = authority.pem().into_bytes();
    let config = TlsConfig {
        certificates: vec![first, second],
        client_authorities: authority.clone(),
        server_authorities: authority,
    };
    House { config, client }
}

fn builder() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap()
}

async fn expect<S: AsyncRead + Unpin>(stream: &mut S, want: &[u8]) {
    let mut got = vec![0; want.len()];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut got)).await;
    read.expect("in time").unwrap();
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(want));
}

/// What comes until the peer closes, however it does.
async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut got = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut got)).await;
    let _ = read.expect("closed in time");
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_keep_alives_and_cuts_over_tcp() {
    let server = Server::start(StreamLimits::default());
    let mut tcp = TcpStream::connect(server.at(Transport::Tcp)).await.unwrap();
    let mut all = Vec::new();
    let mut want = Vec::new();
    for n in 0..200 {
        all.extend_from_slice(&request(n));
        want.extend_from_slice(&answer(&request(n)));
    }
    for part in all.chunks(777) {
        tcp.write_all(part).await.unwrap();
    }
    expect(&mut tcp, &want).await;
    tcp.write_all(b"\r\n\r\n").await.unwrap();
    expect(&mut tcp, b"\r\n").await;
    assert_eq!(server.counters().open(Transport::Tcp), 1);
    drop(tcp);
    let flow = server.first_flow().await;
    server.seen(move |seen| seen.contains(&Seen::Closed(flow)).then_some(())).await;
    assert_eq!(server.counters().open(Transport::Tcp), 0);
    assert_eq!(server.counters().received(Transport::Tcp), 200);
    assert!(!server.carriers.is_open(flow.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_content_length_gets_400_and_the_end() {
    let server = Server::start(StreamLimits::default());
    let mut tcp = TcpStream::connect(server.at(Transport::Tcp)).await.unwrap();
    tcp.write_all(&request(1)).await.unwrap();
    tcp.write_all(
        b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP x;branch=z9hG4bK1\r\nTo: <sip:a>\r\nCSeq: 1 OPTIONS\r\n\r\n",
    )
    .await
    .unwrap();
    // More than fits into the socket's buffers after it must not make a reset overtake the answer.
    let _ = tcp.write_all(&[b'x'; 100_000]).await;
    tcp.shutdown().await.unwrap();
    let got = rest(&mut tcp).await;
    let tail = got.strip_prefix(&answer(&request(1))[..]).unwrap();
    assert!(tail.starts_with(b"SIP/2.0 400 Missing Content-Length\r\nVia: SIP/2.0/TCP x;branch=z9hG4bK1\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_keeps_a_refused_stream_open_is_cut() {
    let server = Server::start(StreamLimits::default());
    let mut tcp = TcpStream::connect(server.at(Transport::Tcp)).await.unwrap();
    tcp.write_all(&request(1)).await.unwrap();
    tcp.write_all(b"OPTIONS sip:a SIP/2.0\r\n\r\n").await.unwrap();
    let flow = server.first_flow().await;
    // Our own side is still open while the server's end goes.
    server.seen(move |seen| seen.contains(&Seen::Closed(flow)).then_some(())).await;
    assert_eq!(server.counters().open(Transport::Tcp), 0);
    drop(tcp);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_sip_is_closed_without_an_answer() {
    let server = Server::start(StreamLimits::default());
    let mut tcp = TcpStream::connect(server.at(Transport::Tcp)).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tcp.shutdown().await.unwrap();
    assert_eq!(rest(&mut tcp).await, b"");
    assert!(server.echo.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_messages_and_silent_newcomers_are_cut_in_time() {
    let second = Duration::from_secs(1);
    let limits =
        StreamLimits { unfinished: second, first_message: second, handshake: second, ..StreamLimits::default() };
    let server = Server::start(limits);
    let mut slow = TcpStream::connect(server.at(Transport::Tcp)).await.unwrap();
    slow.write_all(&request(1)).await.unwrap();
    expect(&mut slow, &answer(&request(1))).await;
    slow.write_all(b"OPTIONS sip:").await.unwrap();
    let mut silent = TcpStream::connect(server.at(Transport::Tcp)).await.unwrap();
    let mut half_tls = TcpStream::connect(server.at(Transport::Tls)).await.unwrap();
    half_tls.write_all(b"\x16\x03\x01").await.unwrap();
    let mut half_ws = TcpStream::connect(server.at(Transport::Ws)).await.unwrap();
    half_ws.write_all(b"GET /").await.unwrap();
    for stream in [&mut slow, &mut silent, &mut half_tls, &mut half_ws] {
        assert_eq!(rest(stream).await, b"");
    }
    let failed = server.counters().handshakes_failed.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(failed, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_made_for_a_hop_and_used_again() {
    let server = Server::start(StreamLimits::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hop = Hop::Address { transport: Transport::Tcp, remote: listener.local_addr().unwrap() };
    server.send(hop, 1, &request(1));
    server.send(hop, 2, &request(2));
    let (mut theirs, _) = listener.accept().await.unwrap();
    expect(&mut theirs, &[request(1), request(2)].concat()).await;
    // Requests come back over it, and are answered over it.
    theirs.write_all(&request(3)).await.unwrap();
    expect(&mut theirs, &answer(&request(3))).await;
    server.send(hop, 3, &request(4));
    expect(&mut theirs, &request(4)).await;
    let flow = server.first_flow().await;
    assert_eq!(flow.remote, listener.local_addr().unwrap());
    assert!(flow.local.port() != 0);
    server.carriers.close(flow.id);
    assert_eq!(rest(&mut theirs).await, b"");
    server.seen(move |seen| seen.contains(&Seen::Closed(flow)).then_some(())).await;
    server.send(Hop::Flow(flow), 4, &request(5));
    server.seen(|seen| seen.contains(&Seen::Unreachable(4)).then_some(())).await;
    // Nothing that was delivered was called unreachable.
    assert!(!server.echo.seen().iter().any(|s| matches!(s, Seen::Unreachable(1..=3))));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_hears_that_nobody_listens() {
    let server = Server::start(StreamLimits::default());
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for transport in [Transport::Tcp, Transport::Tls, Transport::Wss] {
        let token = transport as u64;
        server.send(Hop::Address { transport, remote: free }, token, &request(1));
        server.seen(move |seen| seen.contains(&Seen::Unreachable(token)).then_some(())).await;
    }
    assert_eq!(server.carriers.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_costs_bounded_memory() {
    let server = Server::start(StreamLimits { queue: 100_000, ..StreamLimits::default() });
    let mut tcp = TcpStream::connect(server.at(Transport::Tcp)).await.unwrap();
    tcp.write_all(&request(1)).await.unwrap();
    let flow = server.first_flow().await;
    let big = vec![b'x'; 50_000];
    for token in 0..10_000 {
        server.send(Hop::Flow(flow), token, &big);
        if server.echo.seen().len() > 1 {
            break;
        }
    }
    server.seen(move |seen| seen.contains(&Seen::Closed(flow)).then_some(())).await;
    assert!(server.echo.seen().iter().any(|s| matches!(s, Seen::Unreachable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn caps_on_connections_leave_the_first_ones_served() {
    let server = Server::start(StreamLimits { connections_per_source: 2, ..StreamLimits::default() });
    let at = server.at(Transport::Tcp);
    let mut first = TcpStream::connect(at).await.unwrap();
    first.write_all(&request(1)).await.unwrap();
    expect(&mut first, &answer(&request(1))).await;
    let mut second = TcpStream::connect(at).await.unwrap();
    second.write_all(&request(2)).await.unwrap();
    expect(&mut second, &answer(&request(2))).await;
    let mut third = TcpStream::connect(at).await.unwrap();
    assert_eq!(rest(&mut third).await, b"");
    first.write_all(&request(3)).await.unwrap();
    expect(&mut first, &answer(&request(3))).await;
}

async fn tls(
    server: &Server,
    name: &str,
    config: rustls::ClientConfig,
    to: Transport,
) -> impl AsyncRead + AsyncWrite + Unpin {
    let tcp = TcpStream::connect(server.at(to)).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_shows_the_certificate_that_was_asked_for_and_knows_its_peer() {
    let server = Server::start(StreamLimits::default());
    let house = house();
    server.carriers.reload_certificates(&house.config).unwrap();
    for name in ["sip.example.com", "other.example.com"] {
        let mut stream = tls(&server, name, house.client.clone(), Transport::Tls).await;
        stream.write_all(&request(1)).await.unwrap();
        expect(&mut stream, &answer(&request(1))).await;
        let flow = server.echo.seen().into_iter().rev().find_map(|s| match s {
            Seen::Message(flow, ..) => Some(flow),
            _ => None,
        });
        let identities = server.carriers.peer_identities(flow.unwrap().id).unwrap();
        assert_eq!(*identities, ["neighbour.example"]);
    }
    // Nobody is known without a certificate, and served all the same.
    let mut anonymous = house.client.clone();
    anonymous.client_auth_cert_resolver = Arc::new(NoCertificate);
    let mut stream = tls(&server, "sip.example.com", anonymous, Transport::Tls).await;
    stream.write_all(&request(2)).await.unwrap();
    expect(&mut stream, &answer(&request(2))).await;
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_hop_is_reached_only_if_it_proves_its_name() {
    let (here, there) = (Server::start(StreamLimits::default()), Server::start(StreamLimits::default()));
    let house = house();
    here.carriers.reload_certificates(&house.config).unwrap();
    there.carriers.reload_certificates(&house.config).unwrap();
    let remote = there.at(Transport::Tls);
    let hop = |name: &str| {
        let host = here.carriers.names().intern(name).unwrap();
        Hop::Host { transport: Transport::Tls, remote, host }
    };
    here.send(hop("evil.example"), 1, &request(1));
    here.seen(|seen| seen.contains(&Seen::Unreachable(1)).then_some(())).await;
    here.send(hop("other.example.com"), 2, &request(2));
    here.seen(|seen| seen.iter().any(|s| matches!(s, Seen::Message(..))).then_some(())).await;
    // By address alone: the certificate names it.
    here.send(hop("127.0.0.1"), 3, &request(3));
    here.seen(|seen| (seen.iter().filter(|s| matches!(s, Seen::Message(..))).count() == 2).then_some(())).await;
    let got = there.echo.seen();
    assert!(!got.iter().any(|s| matches!(s, Seen::Message(_, bytes, _) if *bytes == request(1))));
    assert!(!here.echo.seen().iter().any(|s| matches!(s, Seen::Unreachable(2..))));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_do_not_lock_others_out() {
    // Without giving way to others, each would have a minute.
    let limits = StreamLimits { handshakes: 4, handshake: Duration::from_secs(60), ..StreamLimits::default() };
    let server = Server::start(limits);
    let house = house();
    server.carriers.reload_certificates(&house.config).unwrap();
    let mut stuck = Vec::new();
    for _ in 0..8 {
        stuck.push(TcpStream::connect(server.at(Transport::Tls)).await.unwrap());
    }
    let served = async {
        let mut stream = tls(&server, "sip.example.com", house.client.clone(), Transport::Tls).await;
        stream.write_all(&request(1)).await.unwrap();
        expect(&mut stream, &answer(&request(1))).await;
    };
    tokio::time::timeout(Duration::from_secs(30), served).await.unwrap();
    assert_eq!(rest(&mut stuck[0]).await, b"");
}

fn ws_request(server: &Server, protocol: Option<&str>) -> tokio_tungstenite::tungstenite::handshake::client::Request {
    let url = format!("ws://{}/sip", server.at(Transport::Ws));
    let mut request = url.into_client_request().unwrap();
    if let Some(protocol) = protocol {
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.try_into().unwrap());
    }
    request
}

async fn ws_round_trip<S: AsyncRead + AsyncWrite + Unpin>(ws: &mut tokio_tungstenite::WebSocketStream<S>) {
    let text = String::from_utf8(request(1)).unwrap();
    ws.send(Message::Text(text.into())).await.unwrap();
    let want = String::from_utf8(answer(&request(1))).unwrap();
    assert_eq!(ws.next().await.unwrap().unwrap(), Message::Text(want.into()));
    let mut binary = request(2);
    binary.extend_from_slice(&[0xff, 0xfe]);
    ws.send(Message::Binary(binary.clone().into())).await.unwrap();
    assert_eq!(ws.next().await.unwrap().unwrap(), Message::Binary(answer(&binary).into()));
    ws.send(Message::Text("\r\n\r\n".into())).await.unwrap();
    assert_eq!(ws.next().await.unwrap().unwrap(), Message::Text("\r\n".into()));
    ws.send(Message::Ping("x".into())).await.unwrap();
    assert_eq!(ws.next().await.unwrap().unwrap(), Message::Pong("x".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn web_sockets_carry_text_and_binary_and_need_the_sub_protocol() {
    let server = Server::start(StreamLimits { message: 10_000, ..StreamLimits::default() });
    let stream = || TcpStream::connect(server.at(Transport::Ws));
    for refused in [None, Some("xmpp")] {
        let tcp = stream().await.unwrap();
        let error = tokio_tungstenite::client_async(ws_request(&server, refused), tcp).await.unwrap_err();
        // A client that named another protocol may find its absence wrong first.
        assert!(matches!(error, Error::Http(_) | Error::Protocol(_)), "{error}");
    }
    let request = ws_request(&server, Some("sip"));
    let (mut ws, response) = tokio_tungstenite::client_async(request, stream().await.unwrap()).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "sip");
    ws_round_trip(&mut ws).await;
    let flow = server.first_flow().await;
    assert_eq!(flow.transport, Transport::Ws);
    // Over the bound: the connection ends, whatever the peer still sends.
    let _ = ws.send(Message::Text("x".repeat(20_000).into())).await;
    while let Some(Ok(_)) = ws.next().await {}
    server.seen(move |seen| seen.contains(&Seen::Closed(flow)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web_sockets_over_tls_and_from_another_http_server() {
    let server = Server::start(StreamLimits::default());
    let house = house();
    server.carriers.reload_certificates(&house.config).unwrap();
    let stream = tls(&server, "sip.example.com", house.client.clone(), Transport::Wss).await;
    let (mut ws, _) = tokio_tungstenite::client_async(ws_request(&server, Some("sip")), stream).await.unwrap();
    ws_round_trip(&mut ws).await;
    assert_eq!(server.first_flow().await.transport, Transport::Wss);

    // An HTTP server that did the upgrade itself hands over the rest.
    let (theirs, ours) = tokio::io::duplex(10_000);
    let remote: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    let served = tokio::spawn(server.carriers.serve_ws(ours, remote, server.at(Transport::Ws), true));
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    let mut ws = tokio_tungstenite::WebSocketStream::from_raw_socket(theirs, role, None).await;
    ws_round_trip(&mut ws).await;
    // It is reached by its address as well, as a registered browser is.
    server.send(Hop::Address { transport: Transport::Wss, remote }, Transmit::NO_TOKEN, b"hello");
    assert_eq!(ws.next().await.unwrap().unwrap(), Message::Text("hello".into()));
    ws.close(None).await.unwrap();
    while let Some(Ok(_)) = ws.next().await {}
    served.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_server_takes_no_newcomers_and_serves_the_rest() {
    let server = Server::start(StreamLimits::default());
    let at = server.at(Transport::Tcp);
    let mut tcp = TcpStream::connect(at).await.unwrap();
    tcp.write_all(&request(1)).await.unwrap();
    expect(&mut tcp, &answer(&request(1))).await;
    server.carriers.stop_accepting();
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(at).await.is_ok() {
        assert!(tokio::time::Instant::now() < until, "still accepting");
        tokio::task::yield_now().await;
    }
    tcp.write_all(&request(2)).await.unwrap();
    expect(&mut tcp, &answer(&request(2))).await;
    server.carriers.shutdown();
    assert_eq!(rest(&mut tcp).await, b"");
}
