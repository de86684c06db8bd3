//! All carriers as one thing: start them, send through them, stop them.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_proto::transport::Transmit;
use sip_proto::{Flow, FlowId, Outbox, Transport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::config::{CarrierConfig, StreamLimits};
use crate::connections::{Connections, Found, NotQueued};
use crate::counters::Counters;
use crate::flood::Flood;
use crate::handshakes::Handshakes;
use crate::names::HostNames;
use crate::pump::Opened;
use crate::tls::{Tls, TlsConfig, TlsError};
use crate::udp::returned::Returned;
use crate::udp::{self, Failures, Udp};
use crate::{Handler, tcp, ws};

/// How often a handler may answer a failed message with another one, for one flush: more than a request has targets.
const RETRIES: usize = 32;

/// Why the carriers did not start. All are the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {transport} {address}: {source}")]
    Bind { transport: Transport, address: SocketAddr, source: io::Error },
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error("{0} needs a certificate")]
    NoCertificate(Transport),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What every carrier thread and task shares.
pub(crate) struct Core {
    handler: Arc<dyn Handler>,
    pub(crate) udp: Udp,
    pub(crate) connections: Connections,
    pub(crate) names: Arc<HostNames>,
    pub(crate) flood: Flood,
    pub(crate) counters: Counters,
    pub(crate) limits: StreamLimits,
    pub(crate) tls: Option<Tls>,
    pub(crate) handshakes: Handshakes,
    pub(crate) runtime: Handle,
    accepting: watch::Sender<bool>,
    stopped: AtomicBool,
    /// For tasks that outlive the call which starts them.
    me: Weak<Core>,
}

thread_local! {
    /// Outbox for stream tasks and for what has none of its own.
    static OUT: RefCell<Outbox> = RefCell::new(Outbox::new());
}

impl Core {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// Nothing came for a second to a thread that receives datagrams.
    pub(crate) fn idle(&self) {
        self.guarded(|handler| handler.idle());
    }

    /// Gives one message to the handler. A defect there costs this message, not the thread.
    pub(crate) fn deliver(&self, now: Instant, flow: &Flow, bytes: &[u8], loaded: bool, out: &mut Outbox) {
        self.guarded(|handler| handler.message(now, flow, bytes, loaded, out));
    }

    pub(crate) fn guarded(&self, call: impl FnOnce(&dyn Handler)) {
        if catch_unwind(AssertUnwindSafe(|| call(&*self.handler))).is_err() {
            Counters::bump(&self.counters.panics);
            tracing::error!("the handler panicked; the message is lost");
        }
    }

    /// Runs `step` with an outbox of this thread, then writes what is in it.
    pub(crate) fn with_outbox<R>(&self, now: Instant, step: impl FnOnce(&mut Outbox) -> R) -> R {
        // Taken out for the time, so that a step inside a step gets an empty one instead of a panic.
        let mut out = OUT.take();
        let result = step(&mut out);
        self.flush(now, &mut out, None);
        OUT.set(out);
        result
    }

    /// Writes and empties `out`; tells the handler what could not be handed on, and writes what it says to that.
    pub(crate) fn flush(&self, now: Instant, out: &mut Outbox, place: Option<udp::Place>) {
        let mut failures = Failures::default();
        for _ in 0..RETRIES {
            if out.is_empty() {
                return;
            }
            let mut at = 0;
            while at < out.len() {
                let item = &out.items()[at];
                if item.hop.transport() == Transport::Udp {
                    at = self.udp.send_run(out, at, place, &self.counters, &mut failures);
                } else {
                    if !self.send_stream(now, item, out.bytes(item.bytes.clone())) {
                        Counters::bump(&self.counters.unsent);
                        failures.unsent.push(item.token);
                    }
                    at += 1;
                }
            }
            out.clear();
            for token in failures.unsent.drain(..).filter(|t| *t != Transmit::NO_TOKEN) {
                self.guarded(|handler| handler.unreachable(now, token, out));
            }
            self.give_back(now, &failures.returned, out);
            failures.returned.clear();
        }
        if !out.is_empty() {
            tracing::warn!(messages = out.len(), "every retry failed at once; dropped");
            out.clear();
        }
    }

    /// Tells the handler of datagrams that came back.
    pub(crate) fn give_back(&self, now: Instant, returned: &[Returned], out: &mut Outbox) {
        Counters::add(&self.counters.returned, returned.len() as u64);
        for one in returned {
            self.guarded(|handler| handler.returned(now, one.to, &one.quoted, out));
        }
    }

    fn send_stream(&self, now: Instant, item: &Transmit, bytes: &[u8]) -> bool {
        let transport = item.hop.transport();
        let second = self.connections.second(now);
        let (connection, new) = match self.connections.find(now, &item.hop) {
            Ok(Found::Connection(connection)) => (connection, false),
            Ok(Found::New(connection)) => (connection, true),
            Ok(Found::None) => return false,
            Err(refused) => {
                Counters::bump(&self.counters.connections_refused);
                tracing::debug!(%refused, "no connection for a message");
                return false;
            }
        };
        let queued = connection.send(second, bytes, item.token);
        if queued == Err(NotQueued::Full) {
            Counters::bump(&self.counters.connections_cut);
        }
        if queued.is_ok() {
            Counters::bump(&self.counters.sent[transport as usize]);
        }
        if new && let Some(core) = self.me.upgrade() {
            self.runtime.spawn(tcp::connect(Opened::new(core, connection)));
        }
        queued.is_ok()
    }

    /// Tells the handler that a connection is gone.
    pub(crate) fn report_closed(&self, flow: &Flow, known: bool, tokens: Vec<u64>) {
        if !known && tokens.is_empty() {
            return;
        }
        let now = Instant::now();
        self.with_outbox(now, |out| {
            for token in tokens {
                self.guarded(|handler| handler.unreachable(now, token, out));
            }
            if known {
                self.guarded(|handler| handler.closed(now, flow, out));
            }
        });
    }

    pub(crate) fn accepting(&self) -> watch::Receiver<bool> {
        self.accepting.subscribe()
    }
}

/// Every door bound and none read yet: what arrives waits in the kernel until [`Bound::start`].
pub struct Bound {
    config: CarrierConfig,
    runtime: Handle,
    tls: Option<Tls>,
    udp: Udp,
    udp_threads: usize,
    listeners: Vec<(Transport, TcpListener)>,
    local: Vec<(Transport, SocketAddr)>,
}

impl Bound {
    /// Streams will live on `runtime`.
    pub fn new(config: &CarrierConfig, runtime: Handle) -> Result<Bound, StartError> {
        let tls = config.certificates.as_ref().map(Tls::new).transpose()?;
        for (transport, addresses) in [(Transport::Tls, &config.tls), (Transport::Wss, &config.wss)] {
            if !addresses.is_empty() && tls.is_none() {
                return Err(StartError::NoCertificate(transport));
            }
        }
        let udp_threads = match config.udp_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let udp = Udp::bind(&config.udp, udp_threads, config.udp_buffer)
            .map_err(|(address, source)| StartError::Bind { transport: Transport::Udp, address, source })?;
        let mut local: Vec<_> = udp.local_addrs().map(|a| (Transport::Udp, a)).collect();
        let mut listeners = Vec::new();
        let streams = [
            (Transport::Tcp, &config.tcp),
            (Transport::Tls, &config.tls),
            (Transport::Ws, &config.ws),
            (Transport::Wss, &config.wss),
        ];
        for (transport, addresses) in streams {
            for &address in addresses {
                let failed = |source| StartError::Bind { transport, address, source };
                let listener = {
                    let _inside = runtime.enter();
                    tcp::listen(address).map_err(failed)?
                };
                local.push((transport, listener.local_addr().map_err(failed)?));
                listeners.push((transport, listener));
            }
        }
        Ok(Bound { config: config.clone(), runtime, tls, udp, udp_threads, listeners, local })
    }

    /// Every bound address, port 0 resolved.
    pub fn local_addrs(&self) -> &[(Transport, SocketAddr)] {
        &self.local
    }

    /// Reads from now on; every message goes to `handler`.
    pub fn start(self, handler: Arc<dyn Handler>) -> Result<Carriers, StartError> {
        let Bound { config, runtime, tls, udp, udp_threads, listeners, local } = self;
        let now = Instant::now();
        let core = Arc::new_cyclic(|me| Core {
            handler,
            udp,
            connections: Connections::new(&config.limits, now),
            names: Arc::new(HostNames::default()),
            flood: Flood::new(&config.flood, now),
            counters: Counters::default(),
            handshakes: Handshakes::new(config.limits.handshakes),
            limits: config.limits,
            tls,
            runtime,
            accepting: watch::Sender::new(true),
            stopped: AtomicBool::new(false),
            me: me.clone(),
        });
        Carriers::run(core, listeners, local, udp_threads)
    }
}

/// The running carriers. Dropping it stops nothing; call [`Carriers::shutdown`].
pub struct Carriers {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    local: Vec<(Transport, SocketAddr)>,
}

impl Carriers {
    /// Binds everything, then starts: nothing is read before all doors are open. Streams live on `runtime`.
    pub fn start(config: &CarrierConfig, handler: Arc<dyn Handler>, runtime: Handle) -> Result<Carriers, StartError> {
        Bound::new(config, runtime)?.start(handler)
    }

    fn run(
        core: Arc<Core>,
        listeners: Vec<(Transport, TcpListener)>,
        local: Vec<(Transport, SocketAddr)>,
        udp_threads: usize,
    ) -> Result<Carriers, StartError> {
        for (transport, listener) in listeners {
            core.runtime.spawn(tcp::accept(core.clone(), listener, transport));
        }
        let mut threads = Udp::start(&core, udp_threads).map_err(StartError::Thread)?;
        let timers = core.clone();
        let timer = std::thread::Builder::new().name("sip-timer".into()).spawn(move || keep_time(&timers));
        threads.push(timer.map_err(StartError::Thread)?);
        Ok(Carriers { core, threads: Mutex::new(threads), local })
    }

    /// Writes and empties `out`. From any thread, but never under a lock that the handler takes:
    /// [`Handler::unreachable`] may be called before this returns.
    pub fn send(&self, out: &mut Outbox) {
        self.core.flush(Instant::now(), out, None);
    }

    /// Every bound address, port 0 resolved.
    pub fn local_addrs(&self) -> &[(Transport, SocketAddr)] {
        &self.local
    }

    /// The first bound address of a transport.
    pub fn local_addr(&self, transport: Transport) -> Option<SocketAddr> {
        self.local.iter().find(|(t, _)| *t == transport).map(|(_, a)| *a)
    }

    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// Open stream connections.
    pub fn connections(&self) -> usize {
        self.core.connections.len()
    }

    pub fn flood(&self) -> &Flood {
        &self.core.flood
    }

    /// The numbers of host names in [`sip_proto::Hop::Host`]; the resolver writes them, connecting reads them.
    pub fn names(&self) -> &Arc<HostNames> {
        &self.core.names
    }

    /// The SIP domains (or DNS names) that the peer of a TLS or WSS flow proved by its certificate (RFC 5922 §7.1).
    pub fn peer_identities(&self, flow: FlowId) -> Option<Arc<[String]>> {
        self.core.connections.get(flow)?.identities()
    }

    /// The same, of a peer that connected to us: its certificate was checked against [`TlsConfig::client_authorities`].
    /// `None` also for a connection of ours, whose server was checked against others.
    pub fn client_identities(&self, flow: FlowId) -> Option<Arc<[String]>> {
        self.core.connections.get(flow).filter(|c| !c.outgoing)?.identities()
    }

    /// Whether that stream connection is open. UDP flows are not asked for: always false.
    pub fn is_open(&self, flow: FlowId) -> bool {
        self.core.connections.get(flow).is_some()
    }

    /// Closes one connection after what is queued on it was written.
    pub fn close(&self, flow: FlowId) {
        if let Some(connection) = self.core.connections.get(flow) {
            connection.finish(self.core.connections.second(Instant::now()));
        }
    }

    /// Takes new certificates for new connections; on an error the old ones stay.
    pub fn reload_certificates(&self, config: &TlsConfig) -> Result<(), TlsError> {
        self.core.tls.as_ref().ok_or(TlsError::NotConfigured)?.reload(config)
    }

    /// Serves an upgraded WebSocket of someone else's HTTP server until it closes. The caller has checked that the client
    /// offered the sub-protocol `sip` and has answered with it ([`crate::ws::offers_sip`], [`crate::ws::accept_key`]).
    /// `secure` says whether the client came over TLS.
    pub fn serve_ws<S>(
        &self,
        io: S,
        remote: SocketAddr,
        local: SocketAddr,
        secure: bool,
    ) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        ws::serve(self.core.clone(), io, remote, local, secure)
    }

    /// Takes no new connections; what is open goes on.
    pub fn stop_accepting(&self) {
        self.core.accepting.send_replace(false);
    }

    /// Stops everything: no more reads from UDP, connections write what is queued (at most 5 s, on the runtime) and close.
    /// Waits for the carriers' own threads; not to be called from the handler.
    pub fn shutdown(&self) {
        self.stop_accepting();
        self.core.connections.finish_all(Instant::now());
        self.core.stopped.store(true, Relaxed);
        self.core.udp.shutdown();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

fn keep_time(core: &Core) {
    let mut out = Outbox::new();
    let mut swept = Instant::now();
    while !core.is_stopped() {
        std::thread::sleep(sip_proto::wheel::TICK);
        let now = Instant::now();
        core.guarded(|handler| {
            if handler.is_due(now) {
                handler.tick(now, &mut out);
            }
        });
        core.flush(now, &mut out, None);
        if now.saturating_duration_since(swept) >= Duration::from_secs(1) {
            swept = now;
            core.flood.sweep(now);
            Counters::add(&core.counters.connections_cut, core.connections.sweep(now) as u64);
        }
    }
}
