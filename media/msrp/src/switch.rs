//! The switch: every anchored session and every connection, and the doors that connections come in by.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::bridge::{Bridge, Leg, Link, Paths, Peer, Side};
use crate::connection::{About, Connection, Member, ReadHalf, WriteHalf};
use crate::counts::Counts;
use crate::head::FailureReport;
use crate::lane::{Chunk, Lane};
use crate::local::Local;
use crate::passage::{self, End};
use crate::relay::{Gatekeeper, Relays};
use crate::spool::Pool;
use crate::tls::{Fingerprint, Tls, TlsError};
use crate::uri::MsrpUri;
use crate::write::{self, TransactionId, letters};

/// Connections that have not said yet which session they are for.
const MAX_UNBOUND: usize = 4096;
/// The same from one address.
const MAX_UNBOUND_PER_SOURCE: usize = 512;
/// TLS handshakes at a time.
const MAX_HANDSHAKES: usize = 1024;
/// How long they may take to say so.
const UNBOUND_WAIT: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take, and a connect.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// What was sent before a session ended still arrives.
const LINGER: Duration = Duration::from_secs(1);
/// And what waits for its verdict then, for so long.
const VERDICT_WAIT: Duration = Duration::from_secs(60);
/// A silent peer is probed after this time.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// What a switch is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most sessions at a time.
    pub sessions: usize,
    /// Largest message, in bytes.
    pub max_message: u64,
    /// Where messages that wait for a verdict lie, if they are long.
    pub spool: PathBuf,
    /// Bytes of all messages that wait for a verdict.
    pub max_spool: u64,
    /// Peers on this machine may be connected to. Off where peers come from elsewhere: a session description must not make
    /// us talk to what else runs here.
    pub loopback: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            sessions: 100_000,
            max_message: 4 << 30,
            spool: std::env::temp_dir(),
            max_spool: 4 << 30,
            loopback: false,
        }
    }
}

/// PEM of our certificate and key, and of the authorities that vouch for peers.
#[derive(Clone, Copy)]
pub struct Certificates<'a> {
    pub chain: &'a [u8],
    pub key: &'a [u8],
    pub authorities: &'a [u8],
}

/// There is no room for another session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many MSRP sessions")]
pub struct Full;

/// Where a leg's peer finds us: what its URI is made of.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub secure: bool,
    /// `tcp`, or `ws`.
    pub transport: &'static str,
    pub at: SocketAddr,
}

/// The anchor of MSRP sessions.
pub struct Switch {
    config: Config,
    pub(crate) runtime: Handle,
    pub(crate) pool: Arc<Pool>,
    sessions: RwLock<HashMap<[u8; SESSION_ID], Member>>,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    /// Of these, those that have not said yet which session they are for.
    unbound: Mutex<HashMap<u64, Arc<Connection>>>,
    handshakes: AtomicUsize,
    numbers: AtomicU64,
    counts: Counts,
    tls: RwLock<Option<Arc<Tls>>>,
    pub(crate) gatekeeper: OnceLock<Arc<dyn Gatekeeper>>,
    pub(crate) relays: Mutex<Relays>,
}

/// Letters of a session id: 125 bits of chance (RFC 4975 §14.1 wants 80).
pub(crate) const SESSION_ID: usize = 21;

impl Switch {
    pub fn new(config: Config, runtime: Handle) -> Arc<Switch> {
        let switch = Arc::new(Switch {
            pool: Arc::new(Pool::new(config.spool.clone(), config.max_spool)),
            config,
            runtime: runtime.clone(),
            sessions: RwLock::default(),
            connections: Mutex::default(),
            unbound: Mutex::default(),
            handshakes: AtomicUsize::new(0),
            numbers: AtomicU64::new(1),
            counts: Counts::default(),
            tls: RwLock::new(None),
            gatekeeper: OnceLock::new(),
            relays: Mutex::default(),
        });
        let watched = Arc::downgrade(&switch);
        runtime.spawn(async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                second.tick().await;
                let Some(switch) = watched.upgrade() else { return };
                switch.sweep(Instant::now());
            }
        });
        switch
    }

    /// Turns TLS on, or changes the certificate for connections to come.
    pub fn certify(&self, certificates: Certificates<'_>) -> Result<(), TlsError> {
        let Certificates { chain, key, authorities } = certificates;
        *self.tls.write() = Some(Arc::new(Tls::new(chain, key, authorities)?));
        Ok(())
    }

    /// The hash of our certificate, for `a=fingerprint`.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.tls.read().as_ref().map(|tls| tls.fingerprint.clone())
    }

    /// Makes a session with a URI of ours for each side. `name` is for logs and traces.
    pub fn open(&self, name: &str, caller: Address, callee: Address) -> Result<Arc<Bridge>, Full> {
        self.insert(name, caller, callee, None)
    }

    /// `local`: what stands at the callee's side.
    pub(crate) fn insert(
        &self,
        name: &str,
        caller: Address,
        callee: Address,
        local: Option<Box<Local>>,
    ) -> Result<Arc<Bridge>, Full> {
        let ids: [[u8; SESSION_ID]; 2] = std::array::from_fn(|_| letters(rand::random()));
        let leg = |address: Address, id: &[u8], local: Option<Box<Local>>| {
            let scheme = if address.secure { "msrps" } else { "msrp" };
            let mut uri = format!("{scheme}://{}/", address.at).into_bytes();
            uri.extend_from_slice(id);
            uri.push(b';');
            uri.extend_from_slice(address.transport.as_bytes());
            Leg::new(uri, local)
        };
        let legs = [leg(caller, &ids[0], None), leg(callee, &ids[1], local)];
        let bridge = Arc::new(Bridge { legs, name: name.into() });
        let mut sessions = self.sessions.write();
        if sessions.len() >= 2 * self.config.sessions {
            return Err(Full);
        }
        for (id, side) in ids.into_iter().zip([Side::Caller, Side::Callee]) {
            sessions.insert(id, (bridge.clone(), side));
        }
        Counts::add(&self.counts.sessions, 1);
        Ok(bridge)
    }

    /// What a side's session description said. The same again changes nothing; another one replaces the connection.
    pub fn describe(self: &Arc<Self>, bridge: &Arc<Bridge>, side: Side, peer: Peer) {
        let leg = bridge.leg(side);
        let before = {
            let mut state = leg.state.lock();
            let same = state.peer.as_ref() == Some(&peer);
            if same && !matches!(state.link, Link::Down) || matches!(state.link, Link::Closed) {
                return;
            }
            // The first description of a side that has connected already only completes it.
            let first = state.peer.is_none();
            state.peer = Some(peer.clone());
            match &state.link {
                Link::Up(_) if first => None,
                _ => match std::mem::replace(&mut state.link, Link::Awaited) {
                    Link::Up(before) => Some(before),
                    _ => None,
                },
            }
        };
        leg.changed.notify_waiters();
        // A side that went down with its neighbour is awaited again with it.
        let fallen = {
            let link = &mut bridge.leg(side.other()).state.lock().link;
            let fallen = matches!(link, Link::Down);
            if fallen {
                *link = Link::Awaited;
            }
            fallen
        };
        if fallen {
            self.redial(bridge, side.other());
        }
        if let Some(before) = before {
            before.release(bridge);
        }
        if peer.connect {
            self.redial(bridge, side);
        }
    }

    fn redial(self: &Arc<Self>, bridge: &Arc<Bridge>, side: Side) {
        let peer = bridge.leg(side).state.lock().peer.clone();
        if let Some(peer) = peer.filter(|p| p.connect) {
            self.runtime.spawn(dial(self.clone(), bridge.clone(), side, peer));
        }
    }

    /// Ends a session: what is on its way still arrives, then its connections go, unless others share them.
    pub fn close(self: &Arc<Self>, bridge: &Arc<Bridge>) {
        let (switch, bridge) = (self.clone(), bridge.clone());
        self.runtime.spawn(async move {
            tokio::time::sleep(LINGER).await;
            let until = Instant::now() + VERDICT_WAIT;
            while bridge.holds() && Instant::now() < until {
                tokio::time::sleep(LINGER / 10).await;
            }
            switch.close_now(&bridge);
        });
    }

    /// As [`Switch::close`], without waiting.
    pub fn close_now(&self, bridge: &Arc<Bridge>) {
        for side in [Side::Caller, Side::Callee] {
            let id = MsrpUri::parse(bridge.uri(side)).and_then(|u| u.session().try_into().ok());
            if let Some(id) = id {
                self.sessions.write().remove::<[u8; SESSION_ID]>(&id);
            }
            let leg = bridge.leg(side);
            let link = std::mem::replace(&mut leg.state.lock().link, Link::Closed);
            leg.changed.notify_waiters();
            if let Link::Up(connection) = link {
                connection.release(bridge);
            }
        }
    }

    /// Whether a URI is one that [`Switch::open`] made.
    pub fn is_ours(&self, uri: &MsrpUri<'_>) -> bool {
        self.session(uri.session()).is_some()
    }

    /// Sessions that are open now.
    pub fn open_sessions(&self) -> usize {
        self.sessions.read().len() / 2
    }

    /// Connections that are open now.
    pub fn open_connections(&self) -> usize {
        self.connections.lock().len()
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Ends every connection: the server stops.
    pub fn shutdown(&self) {
        self.connections.lock().values().for_each(|c| c.end());
    }

    /// Takes connections at a door until the task is dropped.
    pub async fn listen(self: Arc<Self>, listener: TcpListener, secure: bool) {
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => self.clone().accept(stream, remote, secure),
                Err(error) => {
                    // No descriptor is free: others go first.
                    tracing::warn!(%error, "MSRP door");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn accept(self: Arc<Self>, stream: TcpStream, remote: SocketAddr, secure: bool) {
        if self.is_crowded(remote.ip()) || secure && self.handshakes.load(Relaxed) >= MAX_HANDSHAKES {
            Counts::add(&self.counts.connections_refused, 1);
            return;
        }
        if prepare(&stream).is_err() {
            return;
        }
        if !secure {
            let (read, write) = stream.into_split();
            let runtime = self.runtime.clone();
            runtime.spawn(self.run(Box::new(read), Box::new(write), remote.ip(), None, None));
            return;
        }
        let Some(tls) = self.tls.read().clone() else { return };
        self.runtime.clone().spawn(async move {
            self.handshakes.fetch_add(1, Relaxed);
            let shaken = tokio::time::timeout(CONNECT_WAIT, TlsAcceptor::from(tls.server.clone()).accept(stream)).await;
            self.handshakes.fetch_sub(1, Relaxed);
            match shaken {
                Ok(Ok(stream)) => {
                    let shown = leaf(stream.get_ref().1.peer_certificates());
                    let (read, write) = split(stream);
                    // A task of its own, so that nothing of the handshake stays in memory.
                    let runtime = self.runtime.clone();
                    runtime.spawn(self.run(read, write, remote.ip(), shown, None));
                }
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed at the MSRP door"),
                Err(_) => Counts::add(&self.counts.connections_cut, 1),
            }
        });
    }

    /// Too many that have not said who they are.
    pub(crate) fn is_crowded(&self, source: IpAddr) -> bool {
        let unbound = self.unbound.lock();
        let (all, same) = (unbound.len(), unbound.values().filter(|c| c.remote == source).count());
        all >= MAX_UNBOUND || same >= MAX_UNBOUND_PER_SOURCE
    }

    /// The life of a connection. `opens` is the session that we made it for.
    pub(crate) async fn run(
        self: Arc<Self>,
        read: ReadHalf,
        write: WriteHalf,
        remote: IpAddr,
        shown: Option<CertificateDer<'static>>,
        opens: Option<(Arc<Bridge>, Side, Peer)>,
    ) {
        let number = self.number();
        let connection = Arc::new(Connection::new(number, remote, shown, write));
        Counts::add(&self.counts.connections, 1);
        self.connections.lock().insert(number, connection.clone());
        match opens {
            Some((bridge, side, peer)) => Box::pin(self.opened(&connection, &bridge, side, &peer)).await,
            None => {
                self.unbound.lock().insert(number, connection.clone());
            }
        }
        let end = passage::serve(&self, &connection, read).await;
        if let End::Lost(lost) = end {
            Counts::add(&self.counts.connections_cut, 1);
            tracing::debug!(connection = number, %lost, "MSRP connection closed");
        }
        self.connections.lock().remove(&number);
        self.forget_relays(&connection);
        self.bound(&connection);
        for about in Box::pin(connection.shut()).await {
            self.failed(about, 408);
        }
        for (bridge, side) in connection.take_sessions() {
            self.lost(&bridge, side, &connection);
        }
    }

    /// A connection that we made, or that a client of our relay made, is there: it becomes its session's, and says so with an empty
    /// SEND (RFC 4975 §5.4).
    async fn opened(&self, connection: &Arc<Connection>, bridge: &Arc<Bridge>, side: Side, peer: &Peer) {
        let leg = bridge.leg(side);
        {
            let mut state = leg.state.lock();
            if !matches!(state.link, Link::Awaited) || state.peer.as_ref() != Some(peer) {
                // It came the other way meanwhile, or the session is over.
                if peer.relay.is_none() {
                    connection.end();
                }
                return;
            }
            state.link = Link::Up(connection.clone());
            state.ready = false;
        }
        connection.add(bridge.clone(), side);
        let (session, paths) = (bridge.clone(), leg.paths(peer));
        let said = connection.write(|lane, out| opening(lane, out, &paths, session, side)).await;
        bridge.ready(side);
        if said.is_err() {
            connection.end();
        }
    }

    /// A connection has said which session it is for, or never will.
    pub(crate) fn bound(&self, connection: &Connection) {
        self.unbound.lock().remove(&connection.number);
    }

    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed)
    }

    pub(crate) fn max_message(&self) -> u64 {
        self.config.max_message
    }

    /// The session whose URI of ours ends in this id. The id alone decides: whoever carries the path of a session may have
    /// put another host in front of it (OMA CPM session matching; RFC 6714 §6 for what middleboxes do).
    pub(crate) fn session(&self, id: &[u8]) -> Option<(Arc<Bridge>, Side)> {
        let id: [u8; SESSION_ID] = id.try_into().ok()?;
        self.sessions.read().get(&id).cloned()
    }

    /// A leg has lost its connection: the session has failed, for the other leg too (RFC 4975 §5.4).
    pub(crate) fn lost(&self, bridge: &Arc<Bridge>, side: Side, connection: &Arc<Connection>) {
        let leg = bridge.leg(side);
        {
            let mut state = leg.state.lock();
            match &state.link {
                Link::Up(bound) if Arc::ptr_eq(bound, connection) => state.link = Link::Down,
                _ => return,
            }
        }
        leg.changed.notify_waiters();
        self.down(bridge, side.other());
    }

    fn down(&self, bridge: &Arc<Bridge>, side: Side) {
        let leg = bridge.leg(side);
        let link = {
            let mut state = leg.state.lock();
            match state.link {
                Link::Closed | Link::Down => return,
                Link::Awaited | Link::Up(_) => std::mem::replace(&mut state.link, Link::Down),
            }
        };
        leg.changed.notify_waiters();
        if let Some(local) = &leg.local {
            local.end.down();
        }
        if let Link::Up(connection) = link {
            let bridge = bridge.clone();
            // Reports of what failed go first.
            self.runtime.spawn(async move {
                tokio::time::sleep(LINGER).await;
                connection.release(&bridge);
            });
        }
    }

    /// A chunk did not arrive: its sender gets a report, if it wants one (RFC 4975 §7.1.4).
    pub(crate) fn failed(&self, about: About, status: u16) {
        let About::Chunk { bridge, from, message_id, range, wants } = about else { return };
        Counts::add(&self.counts.failed, 1);
        if let Some(local) = &bridge.leg(from).local {
            return local.end.reported(&message_id, status);
        }
        if wants == FailureReport::No || status == 408 && wants == FailureReport::Partial {
            return;
        }
        let (sender, paths) = {
            let leg = bridge.leg(from);
            let state = leg.state.lock();
            match (&state.link, &state.peer) {
                (Link::Up(connection), Some(peer)) => (connection.clone(), leg.paths(peer)),
                _ => return,
            }
        };
        // The sender may not be reading: nobody else waits for it.
        self.runtime.spawn(async move {
            let sent = sender.write(|lane, out| {
                lane.interject(Instant::now(), out);
                let id = TransactionId::new(rand::random());
                write::report(out, &id, [&paths.to, &paths.from], &message_id, range, status);
            });
            // A sender that is gone needs no report.
            let _ = sent.await;
        });
    }

    fn sweep(&self, now: Instant) {
        self.lapse_relays(now);
        for silent in self.unbound.lock().values().filter(|c| now > c.since + UNBOUND_WAIT) {
            Counts::add(&self.counts.connections_cut, 1);
            silent.end();
        }
        let waiting: Vec<Arc<Connection>> =
            self.connections.lock().values().filter(|c| c.waiting.load(Relaxed)).cloned().collect();
        for connection in waiting {
            while let Some(Some(about)) = connection.try_lane(|lane| lane.lapsed(now)) {
                if let About::Opening { bridge, side } = &about {
                    self.lost(bridge, *side, &connection);
                    connection.release(bridge);
                }
                self.failed(about, 408);
            }
        }
    }
}

fn opening(lane: &mut Lane<About>, out: &mut Vec<u8>, paths: &Paths, bridge: Arc<Bridge>, side: Side) {
    let mut headers = Vec::new();
    write::line(&mut headers, "Message-ID", &letters::<16>(rand::random()));
    let chunk = Chunk { to_path: &paths.to, from_path: &paths.from, headers: &headers, content: b"" };
    lane.bodiless(Instant::now(), out, TransactionId::new(rand::random()), &chunk, About::Opening { bridge, side });
}

/// Connects a leg to its peer. One that has us as its relay is connected already.
async fn dial(switch: Arc<Switch>, bridge: Arc<Bridge>, side: Side, peer: Peer) {
    let failed = |why: &dyn std::fmt::Display| {
        tracing::info!(session = bridge.name(), %why, "an MSRP peer cannot be reached");
        Counts::add(&switch.counts.unreachable, 1);
        let awaited = {
            let mut state = bridge.leg(side).state.lock();
            let awaited = matches!(state.link, Link::Awaited) && state.peer.as_ref() == Some(&peer);
            if awaited {
                state.link = Link::Down;
            }
            awaited
        };
        if awaited {
            bridge.leg(side).changed.notify_waiters();
            switch.down(&bridge, side.other());
        }
    };
    if let Some(relay) = &peer.relay {
        return match switch.relayed(relay) {
            Some(connection) => switch.opened(&connection, &bridge, side, &peer).await,
            None => failed(&"it has left its relay"),
        };
    }
    match tokio::time::timeout(CONNECT_WAIT, connect(&switch, &peer)).await {
        Ok(Ok((read, write, remote, shown))) => {
            switch.clone().run(read, write, remote, shown, Some((bridge.clone(), side, peer.clone()))).await;
        }
        Ok(Err(error)) => failed(&error),
        Err(_) => failed(&"no answer in time"),
    }
}

type Halves = (ReadHalf, WriteHalf, IpAddr, Option<CertificateDer<'static>>);

async fn connect(switch: &Switch, peer: &Peer) -> io::Result<Halves> {
    let unusable = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    // The leftmost is the adjacent hop (RFC 4975 §8.2).
    let first = peer.path.split(|&b| b == b' ').next().unwrap_or_default();
    let uri = MsrpUri::parse(first).ok_or_else(|| unusable("no MSRP URI"))?;
    if !uri.transport().eq_ignore_ascii_case(b"tcp") {
        return Err(unusable("not over TCP"));
    }
    let host = std::str::from_utf8(uri.host()).map_err(|_| unusable("host"))?;
    let port = uri.port().ok_or_else(|| unusable("a port is needed (RFC 4975 §8.2)"))?;
    let mut last = io::ErrorKind::NotFound.into();
    let mut found = None;
    for address in tokio::net::lookup_host((host, port)).await?.take(8) {
        if !may_connect(address.ip(), switch.config.loopback) {
            last = io::ErrorKind::PermissionDenied.into();
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                found = Some(stream);
                break;
            }
            Err(error) => last = error,
        }
    }
    let stream = found.ok_or(last)?;
    prepare(&stream)?;
    let remote = stream.peer_addr()?.ip();
    if !uri.is_secure() {
        let (read, write) = stream.into_split();
        return Ok((Box::new(read), Box::new(write), remote, None));
    }
    let tls = switch.tls.read().clone().ok_or(io::ErrorKind::Unsupported)?;
    let client = tls.client(peer.fingerprint.clone()).map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| unusable("host"))?;
    let stream = TlsConnector::from(client).connect(name, stream).await?;
    let shown = leaf(stream.get_ref().1.peer_certificates());
    let (read, write) = split(stream);
    Ok((read, write, remote, shown))
}

fn split<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> (ReadHalf, WriteHalf) {
    let (read, write) = tokio::io::split(stream);
    (Box::new(read), Box::new(write))
}

fn leaf(chain: Option<&[CertificateDer<'_>]>) -> Option<CertificateDer<'static>> {
    chain.and_then(|c| c.first()).map(|c| c.clone().into_owned())
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Twenty short messages in a row took a second with Nagle's algorithm, and fifteen milliseconds without.
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEP_ALIVE))
}

/// Whether a session description may send us to this address.
fn may_connect(ip: IpAddr, loopback: bool) -> bool {
    let ip = ip.to_canonical();
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(ip.is_unspecified() || ip.is_multicast() || link_local || ip.is_loopback() && !loopback)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Head;
    use crate::relay::{Denied, Gatekeeper};

    struct Open;

    impl Gatekeeper for Open {
        fn admits(&self, _: IpAddr, _: &[u8], _: Option<&[u8]>) -> Result<(), Denied> {
            Ok(())
        }
    }

    #[test]
    fn who_has_a_relay_uri_is_kept_while_it_is_good() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let switch = Switch::new(Config::default(), runtime.handle().clone());
        switch.guard(Arc::new(Open));
        let connected = |number| {
            let connection = Connection::new(number, [192, 0, 2, 1].into(), None, Box::new(tokio::io::sink()));
            let connection = Arc::new(connection);
            switch.unbound.lock().insert(number, connection.clone());
            connection
        };
        let (silent, client) = (connected(1), connected(2));
        let head = b"MSRP 49fh AUTH\r\nTo-Path: msrps://a.example;tcp\r\nFrom-Path: msrps://b.example:9/x;tcp\r\nExpires: 600\r\n";
        let ask = || switch.auth(&client, &Head::parse(head).unwrap()).0;
        let granted = (0..100).take_while(|_| ask() == 200).count();
        assert_eq!((granted, ask()), (16, 403), "one client has only so many");
        let start = Instant::now();
        for (after, over) in [(20, [false, false]), (599, [true, false]), (601, [true, true])] {
            switch.sweep(start + Duration::from_secs(after));
            assert_eq!([silent.is_over(), client.is_over()], over, "after {after} s");
        }
    }

    #[test]
    fn session_descriptions_do_not_lead_back_into_this_machine() {
        let may = |ip: &str| may_connect(ip.parse().unwrap(), false);
        for no in ["127.0.0.1", "::1", "0.0.0.0", "::", "169.254.169.254", "::ffff:127.0.0.1", "224.0.0.1", "fe80::1"] {
            assert!(!may(no), "{no}");
        }
        assert!(may("192.0.2.1") && may("10.1.2.3") && may("2001:db8::1"));
        assert!(may_connect("127.0.0.1".parse().unwrap(), true));
    }
}
