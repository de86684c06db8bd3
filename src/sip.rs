//! The SIP stack of this process: builds the driver, the proxy of each shard and the carriers, and ties them together.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use sip_call::{Access, BackToBack, Joints, Names, Proxy, ProxyParts, Screen, Seals, Spent, Trusted};
use sip_ims::authenticate::Authenticator;
use sip_ims::criteria::Filters;
use sip_ims::gate::Gate;
use sip_ims::history::Archive;
use sip_ims::media::Media;
use sip_ims::service::{Chronicle, Location, Nodes, Service};
use sip_ims::{Directory, Home};
use sip_net::driver::{Driver, DriverConfig, Sink};
use sip_net::{Bound, Carriers, Handler, StartError};
use sip_proto::transaction::Timing;
use sip_proto::{Flow, Limits, Outbox, Transport};

use crate::config::{Sip as SipConfig, TrustedPeer};
use crate::telemetry::Metrics;

/// The running stack.
pub struct Sip {
    pub driver: Arc<Driver>,
    pub carriers: Arc<Carriers>,
}

/// What the stack is built from.
pub struct SipParts {
    pub home: Arc<Home>,
    pub directory: Arc<Directory>,
    pub location: Arc<dyn Location>,
    /// Where others share the store.
    pub nodes: Option<Arc<dyn Nodes>>,
    /// `None`: everybody is who they say (`sip.auth = "none"`).
    pub authenticator: Option<Arc<Authenticator>>,
    pub services: Vec<Arc<dyn Service>>,
    pub filters: Arc<Filters>,
    pub joints: Arc<Joints>,
    pub chronicle: Arc<dyn Chronicle>,
    pub media: Option<Arc<dyn Media>>,
    pub screen: Option<Arc<Screen>>,
    pub gate: Option<Arc<dyn Gate>>,
    pub archive: Option<Arc<dyn Archive>>,
    pub names: Arc<dyn Names>,
    /// Of this process.
    pub secret: [u8; 16],
    /// Of all nodes that share the store.
    pub cluster_secret: [u8; 32],
}

/// What is known of whoever is behind a flow, and what is held against them.
pub struct Neighbours {
    trusted: Vec<TrustedPeer>,
    /// Whether any is trusted by certificate: only then connections are looked up.
    by_certificate: bool,
    /// Tied once the carriers run, before the first message.
    carriers: OnceLock<Weak<Carriers>>,
}

impl Neighbours {
    pub fn new(trusted: &[TrustedPeer]) -> Neighbours {
        let by_certificate = trusted.iter().any(|t| matches!(t, TrustedPeer::Certificate(_)));
        Neighbours { trusted: trusted.to_vec(), by_certificate, carriers: OnceLock::new() }
    }

    /// Takes points from a source that misbehaves; never from one that is trusted.
    pub fn penalise(&self, flow: &Flow, points: u32) {
        if let Some(carriers) = self.carriers()
            && !self.is_trusted(flow)
        {
            carriers.flood().penalise(Instant::now(), flow.remote, points);
        }
    }

    fn carriers(&self) -> Option<Arc<Carriers>> {
        self.carriers.get().and_then(Weak::upgrade)
    }

    /// The names that this client proved when it connected over TLS (RFC 5922 §7.1); none without a certificate.
    fn proved(&self, flow: &Flow) -> Option<Arc<[String]>> {
        let asked = self.by_certificate && flow.transport == Transport::Tls;
        asked.then(|| self.carriers()?.client_identities(flow.id)).flatten()
    }
}

impl Trusted for Neighbours {
    fn is_trusted(&self, flow: &Flow) -> bool {
        let by_address = |t: &TrustedPeer| matches!(t, TrustedPeer::Address(peers) if peers.contains(flow.remote));
        if self.trusted.iter().any(by_address) {
            return true;
        }
        let Some(proved) = self.proved(flow) else { return false };
        let named =
            |t: &TrustedPeer| matches!(t, TrustedPeer::Certificate(name) if proved.iter().any(|p| **p == **name));
        self.trusted.iter().any(named)
    }
}

impl Sip {
    /// Builds the driver; nothing is open yet, so services can still be tied to it.
    pub fn driver(config: &SipConfig, parts: SipParts, neighbours: Arc<Neighbours>) -> Arc<Driver> {
        let proxy = Arc::new(ProxyParts {
            home: parts.home.clone(),
            directory: parts.directory,
            location: parts.location,
            nodes: parts.nodes,
            names: parts.names,
            trusted: neighbours.clone(),
            access: parts.authenticator.map_or(Access::Open, Access::Digest),
            services: parts.services,
            named: vec![Arc::new(BackToBack)],
            joints: parts.joints,
            filters: parts.filters,
            spent: Spent::default(),
            chronicle: parts.chronicle,
            media: parts.media,
            screen: parts.screen,
            gate: parts.gate,
            archive: parts.archive,
            record_route: config.record_route,
            seals: Seals::new(&parts.cluster_secret),
            penalise: Arc::new(move |flow, points| neighbours.penalise(flow, points)),
        });
        let driver = DriverConfig {
            shards: threads(config) * 8,
            timing: Timing::default(),
            limits: Limits::default(),
            max_datagram: config.max_datagram.0 as usize,
            max_transactions: config.max_transactions,
            secret: parts.secret,
        };
        Arc::new(Driver::new(&driver, parts.home, Instant::now(), |_| Box::new(Proxy::new(proxy.clone()))))
    }

    /// Serves from now on.
    pub fn open(
        driver: Arc<Driver>,
        bound: Bound,
        closed: Arc<dyn Fn(&Flow) + Send + Sync>,
        neighbours: &Arc<Neighbours>,
        metrics: Arc<Metrics>,
    ) -> Result<Sip, StartError> {
        let front = Arc::new(Front { driver: driver.clone(), closed, metrics });
        let carriers = Arc::new(bound.start(front)?);
        let _ = neighbours.carriers.set(Arc::downgrade(&carriers));
        driver.attach(Arc::new(Doors { carriers: carriers.clone(), neighbours: neighbours.clone() }));
        Ok(Sip { driver, carriers })
    }

    /// Takes no new dialogs and waits until what is in progress is over, at most `limit`.
    pub async fn drain(&self, limit: Duration) {
        self.driver.drain();
        self.carriers.stop_accepting();
        let end = Instant::now() + limit;
        let mut waited = false;
        while self.driver.busy() > 0 && Instant::now() < end {
            waited = true;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if waited {
            // The ACK for what was answered last is on its way through us.
            tokio::time::sleep(ROUND_TRIP).await;
        }
    }
}

/// Our domain and doors. What is open on every address is written by the configured one, else by the one that the default
/// route leaves from, if there is any.
pub fn home(domain: &str, config: &SipConfig, bound: &Bound) -> Home {
    let advertised = |any: IpAddr| {
        let configured = config.advertised.iter().find(|ip| ip.is_ipv4() == any.is_ipv4());
        configured.copied().or_else(|| default_source(any).ok())
    };
    let everywhere = [IpAddr::from([0u8; 4]), IpAddr::from([0u8; 16])];
    let home = Home::new(domain, bound.local_addrs().iter().copied());
    everywhere.into_iter().filter_map(advertised).fold(home, Home::advertising)
}

/// Connecting a UDP socket sends nothing: the kernel only looks up the route, here to an address kept for documentation.
fn default_source(any: IpAddr) -> io::Result<IpAddr> {
    let outside = if any.is_ipv4() { "192.0.2.1:5060" } else { "[2001:db8::1]:5060" };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(outside)?;
    socket.local_addr().map(|a| a.ip())
}

/// T1 of RFC 3261 §17: the estimate of a round trip.
const ROUND_TRIP: Duration = Duration::from_millis(500);

/// UDP worker threads.
pub fn threads(config: &SipConfig) -> usize {
    match config.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// The driver, with the registrar told of connections that close.
struct Front {
    driver: Arc<Driver>,
    closed: Arc<dyn Fn(&Flow) + Send + Sync>,
    metrics: Arc<Metrics>,
}

impl Handler for Front {
    fn message(&self, now: Instant, flow: &Flow, bytes: &[u8], loaded: bool, out: &mut Outbox) {
        self.metrics.handling(|| self.driver.message(now, flow, bytes, loaded, out));
    }

    fn tick(&self, now: Instant, out: &mut Outbox) {
        self.driver.tick(now, out);
    }

    fn idle(&self) {
        crate::allocator::collect();
    }

    fn closed(&self, _now: Instant, flow: &Flow, _out: &mut Outbox) {
        (self.closed)(flow);
    }

    fn returned(&self, now: Instant, to: SocketAddr, quoted: &[u8], out: &mut Outbox) {
        self.driver.returned(now, to, quoted, out);
    }

    fn unreachable(&self, now: Instant, token: u64, out: &mut Outbox) {
        self.driver.unreachable(now, token, out);
    }
}

struct Doors {
    carriers: Arc<Carriers>,
    neighbours: Arc<Neighbours>,
}

impl Sink for Doors {
    fn flush(&self, out: &mut Outbox) {
        self.carriers.send(out);
    }

    fn penalise(&self, flow: &Flow, points: u32) {
        self.neighbours.penalise(flow, points);
    }
}
