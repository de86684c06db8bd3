//! The SIP stack of this process: builds the driver, the proxy of each shard and the carriers, and ties them together.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use sip_call::{Access, Names, Proxy, ProxyParts, Seals, Trusted};
use sip_ims::authenticate::Authenticator;
use sip_ims::service::{Chronicle, Location, Service};
use sip_ims::{Directory, Home};
use sip_net::driver::{Driver, DriverConfig, Sink};
use sip_net::{CarrierConfig, Carriers, Handler, StartError};
use sip_proto::transaction::Timing;
use sip_proto::{Flow, Limits, Outbox};
use tokio::runtime::Handle;

use crate::config::{Peers, Sip as SipConfig};
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
    /// `None`: everybody is who they say (`sip.auth = "none"`).
    pub authenticator: Option<Arc<Authenticator>>,
    pub services: Vec<Arc<dyn Service>>,
    pub chronicle: Arc<dyn Chronicle>,
    pub names: Arc<dyn Names>,
    /// Of this process.
    pub secret: [u8; 16],
    /// Of all nodes that share the store.
    pub cluster_secret: [u8; 32],
}

/// Takes points from a source that misbehaves, once the carriers run.
#[derive(Default)]
pub struct Penalties(OnceLock<Weak<Carriers>>);

impl Penalties {
    pub fn take(&self, flow: &Flow, points: u32) {
        if let Some(carriers) = self.0.get().and_then(Weak::upgrade) {
            carriers.flood().penalise(Instant::now(), flow.remote, points);
        }
    }
}

impl Sip {
    /// Builds the driver; nothing is open yet, so services can still be tied to it.
    pub fn driver(config: &SipConfig, parts: SipParts, penalties: Arc<Penalties>) -> Arc<Driver> {
        let proxy = Arc::new(ProxyParts {
            home: parts.home.clone(),
            directory: parts.directory,
            location: parts.location,
            names: parts.names,
            trusted: Arc::new(Believed(config.trusted.clone())),
            access: parts.authenticator.map_or(Access::Open, Access::Digest),
            services: parts.services,
            chronicle: parts.chronicle,
            record_route: config.record_route,
            seals: Seals::new(&parts.cluster_secret),
            penalise: Arc::new(move |flow, points| penalties.take(flow, points)),
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

    /// Opens every door.
    pub fn open(
        driver: Arc<Driver>,
        carriers: &CarrierConfig,
        closed: Arc<dyn Fn(&Flow) + Send + Sync>,
        penalties: &Penalties,
        metrics: Arc<Metrics>,
        runtime: Handle,
    ) -> Result<Sip, StartError> {
        let front = Arc::new(Front { driver: driver.clone(), closed, metrics });
        let carriers = Arc::new(Carriers::start(carriers, front, runtime)?);
        let _ = penalties.0.set(Arc::downgrade(&carriers));
        driver.attach(Arc::new(Doors(carriers.clone())));
        Ok(Sip { driver, carriers })
    }

    /// Takes no new dialogs and waits until what is in progress is over, at most `limit`.
    pub async fn drain(&self, limit: Duration) {
        self.driver.drain();
        self.carriers.stop_accepting();
        let end = Instant::now() + limit;
        while self.driver.busy() > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

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

    fn closed(&self, _now: Instant, flow: &Flow, _out: &mut Outbox) {
        (self.closed)(flow);
    }

    fn unreachable(&self, now: Instant, token: u64, out: &mut Outbox) {
        self.driver.unreachable(now, token, out);
    }
}

struct Doors(Arc<Carriers>);

impl Sink for Doors {
    fn flush(&self, out: &mut Outbox) {
        self.0.send(out);
    }

    fn penalise(&self, flow: &Flow, points: u32) {
        self.0.flood().penalise(Instant::now(), flow.remote, points);
    }
}

struct Believed(Vec<Peers>);

impl Trusted for Believed {
    fn is_trusted(&self, flow: &Flow) -> bool {
        self.0.iter().any(|p| p.contains(flow.remote))
    }
}
