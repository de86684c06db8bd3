//! The door for ESMEs: we are the message centre.
//!
//! Who binds is judged by the application ([`DoorPort::authenticate`], with [`Accounts`] for a fixed table); what an account may
//! do (directions, source addresses, rate, window, connections) is kept here. What an ESME asks goes up with a [`Reply`];
//! messages for an ESME go down by its system_id.

mod account;
mod directory;
mod range;
mod seat;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::outcome::{Outcome, Ticket};
use crate::pdu::{Bind, BindKind, BindResp, COctets, CommandStatus, Request, Tag, Tlvs};
use crate::reply::{Control, Reply};
use crate::session::Limits;
pub use account::{Account, Accounts};
use directory::Directory;
pub use directory::Undeliverable;
pub use range::AddressRange;

/// The application behind the door. Called on the connection's task: nothing here may block.
pub trait DoorPort: Send + Sync + 'static {
    /// Somebody asks to bind.
    fn authenticate(&self, attempt: BindAttempt, reply: BindReply);

    /// A bound ESME asks: submit_sm, submit_multi, data_sm, query_sm, cancel_sm, replace_sm.
    fn asked(&self, esme: &Arc<Esme>, request: Request, reply: Reply);

    /// Outcomes of [`Door::deliver`]. Whatever is left in the list is dropped.
    fn outcomes(&self, outcomes: &mut Vec<Outcome>);

    /// One session more of this ESME; with a receiver among them, what waits for it can be delivered.
    fn bound(&self, esme: &Arc<Esme>) {
        let _ = esme;
    }

    /// One session less.
    fn unbound(&self, esme: &Arc<Esme>) {
        let _ = esme;
    }
}

/// A request to bind.
#[derive(Debug)]
pub struct BindAttempt {
    pub peer: SocketAddr,
    /// Over TLS.
    pub encrypted: bool,
    pub bind: Bind,
}

/// Decides about a [`BindAttempt`]. Dropped: the bind fails.
#[must_use]
pub struct BindReply {
    sequence: u32,
    to: Option<tokio::sync::mpsc::UnboundedSender<Control>>,
}

pub(crate) type Decision = Result<Account, CommandStatus>;

impl BindReply {
    pub fn accept(mut self, account: Account) {
        self.decide(Ok(account));
    }

    /// RINVSYSID, RINVPASWD, RBINDFAIL, ...
    pub fn refuse(mut self, status: CommandStatus) {
        self.decide(Err(status));
    }

    fn decide(&mut self, decision: Decision) {
        if let Some(to) = self.to.take() {
            // The connection may be gone.
            let _ = to.send(Control::Bind { sequence: self.sequence, decision });
        }
    }
}

impl Drop for BindReply {
    fn drop(&mut self) {
        self.decide(Err(CommandStatus::RBINDFAIL));
    }
}

/// A session that is bound to us.
#[derive(Debug)]
pub struct Esme {
    pub system_id: COctets<16>,
    pub system_type: COctets<13>,
    pub address_range: COctets<41>,
    pub kind: BindKind,
    /// At most 0x33: understands no optional parameters; they are left out of what it gets.
    pub interface_version: u8,
    pub peer: SocketAddr,
    /// Different for each session since the start.
    pub session: u64,
}

#[derive(Clone)]
pub struct DoorConfig {
    /// What we call ourselves in bind responses.
    pub system_id: COctets<16>,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Connections at once, bound or not; 1 to 100,000.
    pub connections: usize,
    /// Messages that wait for one session besides its window; 1 to 10,000.
    pub queue: usize,
    /// Times; windows are the accounts'. `init` bounds the TLS handshake, too.
    pub limits: Limits,
}

impl Default for DoorConfig {
    fn default() -> DoorConfig {
        DoorConfig {
            // Shorter than 16.
            system_id: COctets::try_from("isthmus").unwrap_or_default(),
            tls: None,
            connections: 1_000,
            queue: 100,
            limits: Limits { init: Duration::from_secs(10), ..Limits::default() },
        }
    }
}

pub(crate) struct Shared {
    pub(crate) config: DoorConfig,
    pub(crate) port: Arc<dyn DoorPort>,
    pub(crate) directory: Directory,
    connections: AtomicUsize,
    stop: watch::Receiver<bool>,
}

/// See the module. Open until [`Door::stop`], or until it is dropped.
pub struct Door {
    shared: Arc<Shared>,
    ask: watch::Sender<bool>,
    listeners: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

impl Door {
    /// A door without any listener yet. Needs a tokio runtime around it.
    pub fn new(config: DoorConfig, port: Arc<dyn DoorPort>) -> Door {
        let (ask, stop) = watch::channel(false);
        let shared = Shared { config, port, directory: Directory::default(), connections: AtomicUsize::new(0), stop };
        Door { shared: Arc::new(shared), ask, listeners: parking_lot::Mutex::default() }
    }

    /// Lets ESMEs in here; over TLS when `encrypted` and the configuration has a certificate.
    pub fn listen(&self, listener: TcpListener, encrypted: bool) {
        let shared = self.shared.clone();
        self.listeners.lock().push(tokio::spawn(accept(shared, listener, encrypted)));
    }

    /// Sends a deliver_sm to a receiver of this ESME that serves its destination: one of them in turn, if there are several. Once
    /// taken, it has exactly one outcome.
    pub fn deliver(&self, system_id: &COctets<16>, ticket: Ticket, request: Request) -> Result<(), Undeliverable> {
        self.shared.directory.deliver(system_id, ticket, request)
    }

    /// Whether anybody of this name takes deliveries to this address now; empty: to any.
    pub fn receives(&self, system_id: &COctets<16>, address: &[u8]) -> bool {
        self.shared.directory.receives(system_id, address)
    }

    /// The sessions that are bound now.
    pub fn esmes(&self) -> Vec<Arc<Esme>> {
        self.shared.directory.list()
    }

    /// Connections, bound or not.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Connects to an ESME that listens, and asks it to bind (outbind, §2.2.1). What comes of it is a bind like any other.
    pub fn outbind(&self, address: SocketAddr, outbind: crate::pdu::Outbind) {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let Some(place) = Place::take(&shared) else { return };
            let connecting = timeout(shared.config.limits.init, TcpStream::connect(address));
            if let Ok(Ok(stream)) = connecting.await {
                let _ = stream.set_nodelay(true);
                seat::serve(shared.clone(), stream, address, false, Some(outbind)).await;
            }
            drop(place);
        });
    }

    /// Lets nobody in any more, unbinds every session, and returns when all are gone.
    pub async fn stop(&self) {
        self.ask.send_replace(true);
        let listeners = std::mem::take(&mut *self.listeners.lock());
        for listener in listeners {
            // It ends by itself.
            let _ = listener.await;
        }
        while self.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

/// One of the connections that may be.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Place> {
        let place = Place(shared.clone());
        let before = shared.connections.fetch_add(1, Ordering::AcqRel);
        // Dropped at once when there are too many.
        (before < shared.config.connections).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, encrypted: bool) {
    let mut stop = shared.stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = Place::take(&shared) else {
                    tracing::warn!("SMPP door: too many connections");
                    continue;
                };
                let _ = stream.set_nodelay(true);
                tokio::spawn(welcome(place, stream, peer, encrypted));
            }
            Err(error) => {
                // Out of descriptors, most likely: they come back when somebody goes.
                tracing::warn!(%error, "SMPP door: accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn welcome(place: Place, stream: TcpStream, peer: SocketAddr, encrypted: bool) {
    let shared = &place.0;
    match (&shared.config.tls, encrypted) {
        (Some(config), true) => {
            let handshake = TlsAcceptor::from(config.clone()).accept(stream);
            match timeout(shared.config.limits.init, handshake).await {
                Ok(Ok(stream)) => seat::serve(shared.clone(), stream, peer, true, None).await,
                Ok(Err(error)) => tracing::debug!(%error, "SMPP door: TLS handshake failed"),
                Err(_) => tracing::debug!("SMPP door: TLS handshake took too long"),
            }
        }
        (None, true) => tracing::warn!("SMPP door: TLS without a certificate"),
        (_, false) => seat::serve(shared.clone(), stream, peer, false, None).await,
    }
}

/// What we say to a bind that was let in.
pub(crate) fn welcome_words(config: &DoorConfig) -> BindResp {
    BindResp { system_id: config.system_id, tlvs: Tlvs::build().u8(Tag::SC_INTERFACE_VERSION, 0x34).done() }
}
