//! The carriers with next to nothing behind them, and a load for them: what a datagram or an idle connection costs.
//!
//! ```text
//! echo serve 127.0.0.1:23000 [threads]      answers each datagram with itself; prints CPU per datagram each second
//! echo load 127.0.0.1:23000 RATE SECONDS    sends 500-byte datagrams from one socket, counts what comes back
//! echo doors 127.0.0.1 23100                answers 200 over UDP, TCP, TLS, WS and WSS, on five ports from that one on
//! echo idle tls|wss COUNT                   memory of one idle connection, after a message each way
//! ```

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use sip_net::{CarrierConfig, Carriers, Certificate, Handler, StreamLimits, TlsConfig};
use sip_proto::edit::header;
use sip_proto::transport::Transmit;
use sip_proto::{Flow, HeaderName, Hop, Message, Method, Outbox, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

struct Echo;

impl Handler for Echo {
    fn message(&self, _: Instant, flow: &Flow, bytes: &[u8], _: bool, out: &mut Outbox) {
        out.push_bytes(Hop::Flow(*flow), Transmit::NO_TOKEN, bytes);
    }

    fn is_due(&self, _: Instant) -> bool {
        false
    }

    fn tick(&self, _: Instant, _: &mut Outbox) {}
    fn closed(&self, _: Instant, _: &Flow, _: &mut Outbox) {}
    fn unreachable(&self, _: Instant, _: u64, _: &mut Outbox) {}
}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve", at] => serve(at.parse()?, 0),
        ["serve", at, threads] => serve(at.parse()?, threads.parse()?),
        ["load", to, rate, seconds] => load(to.parse()?, rate.parse()?, seconds.parse()?),
        ["doors", ip, port] => doors(ip.parse()?, port.parse()?),
        ["idle", "tls", count] => idle(Transport::Tls, count.parse()?),
        ["idle", "wss", count] => idle(Transport::Wss, count.parse()?),
        _ => Err("serve ADDRESS [THREADS] | load ADDRESS RATE SECONDS | doors IP PORT | idle tls|wss COUNT".into()),
    }
}

fn serve(at: SocketAddr, udp_threads: usize) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let config = CarrierConfig { udp: vec![at], udp_threads, ..CarrierConfig::default() };
    let carriers = Carriers::start(&config, Arc::new(Echo), runtime.handle().clone())?;
    let (mut before, mut used) = (0, cpu()?);
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let (count, now) = (carriers.counters().received(Transport::Udp), cpu()?);
        if count > before {
            let each = (now - used).as_nanos() as f64 / (count - before) as f64 / 1000.0;
            println!("{:>7} datagrams  {each:.2} us each", count - before);
        }
        (before, used) = (count, now);
    }
}

/// Answers each request with 200.
struct Ok200;

impl Handler for Ok200 {
    fn message(&self, _: Instant, flow: &Flow, bytes: &[u8], _: bool, out: &mut Outbox) {
        let Ok(message) = Message::parse(bytes) else { return };
        if !message.is_request() || message.method() == Method::Ack {
            return;
        }
        out.push(Hop::Flow(*flow), Transmit::NO_TOKEN, |out| {
            out.extend_from_slice(b"SIP/2.0 200 OK\r\n");
            for name in [HeaderName::Via, HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq] {
                for value in message.values(name) {
                    header(out, name, |out| out.extend_from_slice(value));
                }
            }
            out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        });
    }

    fn tick(&self, _: Instant, _: &mut Outbox) {}
    fn closed(&self, _: Instant, _: &Flow, _: &mut Outbox) {}
    fn unreachable(&self, _: Instant, _: u64, _: &mut Outbox) {}
}

fn doors(ip: IpAddr, port: u16) -> Result<(), Failure> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["localhost".into()])?.self_signed(&key)?;
    let pem = Certificate { chain: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() };
    let at = |n| vec![SocketAddr::new(ip, port + n)];
    let config = CarrierConfig {
        udp: at(0),
        tcp: at(1),
        tls: at(2),
        ws: at(3),
        wss: at(4),
        certificates: Some(TlsConfig { certificates: vec![pem], ..TlsConfig::default() }),
        ..CarrierConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let carriers = Carriers::start(&config, Arc::new(Ok200), runtime.handle().clone())?;
    print!("{}", certificate.pem());
    loop {
        std::thread::sleep(Duration::from_secs(5));
        println!("{:?}", carriers.counters());
    }
}

/// CPU time of this process, from the scheduler's own count.
fn cpu() -> Result<Duration, Failure> {
    let mut total = Duration::ZERO;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += Duration::from_nanos(text.split(' ').next().unwrap_or_default().parse()?);
    }
    Ok(total)
}

fn load(to: SocketAddr, rate: u64, seconds: u64) -> Result<(), Failure> {
    let socket = Arc::new(UdpSocket::bind(SocketAddr::new(to.ip(), 0))?);
    socket.connect(to)?;
    let came = Arc::new(AtomicU64::new(0));
    let (theirs, count) = (socket.clone(), came.clone());
    std::thread::spawn(move || {
        let mut buf = [0; 2048];
        while theirs.recv(&mut buf).is_ok() {
            count.fetch_add(1, Relaxed);
        }
    });
    let mut message = b"OPTIONS sip:a SIP/2.0\r\nSubject: ".to_vec();
    message.resize(496, b'x');
    message.extend_from_slice(b"\r\n\r\n");
    let start = Instant::now();
    for n in 0..rate * seconds {
        if n % 20 == 0 {
            let due = Duration::from_nanos(n * 1_000_000_000 / rate);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        socket.send(&message)?;
    }
    std::thread::sleep(Duration::from_millis(200));
    println!("sent {} in {:.2} s, back {}", rate * seconds, start.elapsed().as_secs_f64(), came.load(Relaxed));
    Ok(())
}

/// Both ends are in this process, but of the client's only the socket is kept. The kernel's memory is not counted.
fn idle(transport: Transport, count: usize) -> Result<(), Failure> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["sip.example.com".into()])?.self_signed(&key)?;
    let certificate_der = certificate.der().clone();
    let pem = Certificate { chain: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() };
    let certificates = Some(TlsConfig { certificates: vec![pem], ..TlsConfig::default() });
    let any: Vec<SocketAddr> = vec!["127.0.0.1:0".parse()?];
    let (tls, wss) = (any.clone(), any);
    let config = CarrierConfig { tls, wss, certificates, limits: StreamLimits::default(), ..CarrierConfig::default() };

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let carriers = Carriers::start(&config, Arc::new(Echo), runtime.handle().clone())?;
    let at = carriers.local_addr(transport).ok_or("not bound")?;
    runtime.block_on(async move {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate_der)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = rustls::client::Resumption::disabled();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let message = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n";
        let mut held = Vec::new();
        let mut before = 0;
        for n in 0..count + 100 {
            if n == 100 {
                before = resident()?;
            }
            let tcp = TcpStream::connect(at).await?;
            let mut stream = connector.connect("sip.example.com".try_into()?, tcp).await?;
            if transport == Transport::Wss {
                let mut request = format!("ws://{at}/").into_client_request()?;
                request.headers_mut().insert("Sec-WebSocket-Protocol", "sip".parse()?);
                let (mut ws, _) = tokio_tungstenite::client_async(request, stream).await?;
                let text = String::from_utf8_lossy(message).into_owned();
                ws.send(tokio_tungstenite::tungstenite::Message::Text(text.into())).await?;
                ws.next().await.ok_or("closed")??;
                stream = ws.into_inner();
            } else {
                stream.write_all(message).await?;
                stream.read_exact(&mut vec![0; message.len()]).await?;
            }
            // Only the socket is kept of the client.
            held.push(stream.into_inner().0);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        println!("{} bytes for each of {count} idle connections", (resident()? - before) / count as u64);
        drop(held);
        Ok(())
    })
}

fn resident() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    Ok(text.split(' ').nth(1).unwrap_or_default().parse::<u64>()? * 4096)
}
