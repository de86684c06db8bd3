//! What the carriers are told at start. Everything has a default but the addresses.

use std::net::SocketAddr;
use std::time::Duration;

use crate::flood::FloodConfig;
use crate::stream::MESSAGE_MAX;
use crate::tls::TlsConfig;

/// Where to listen, and the bounds. Port 0 takes any free port ([`crate::Carriers::local_addrs`] tells which).
#[derive(Clone, Debug)]
pub struct CarrierConfig {
    pub udp: Vec<SocketAddr>,
    pub tcp: Vec<SocketAddr>,
    pub tls: Vec<SocketAddr>,
    /// SIP over WebSocket with an HTTP server of its own; one owned by someone else hands its connections to
    /// [`crate::Carriers::serve_ws`].
    pub ws: Vec<SocketAddr>,
    pub wss: Vec<SocketAddr>,
    /// Needed for `tls` and `wss`, and for connecting over TLS. Without it TLS hops are unreachable.
    pub certificates: Option<TlsConfig>,
    /// Threads that block on UDP sockets, for each address; 0: as many as there are cores.
    pub udp_threads: usize,
    /// Bytes of each UDP socket's buffers. The system may give less (`net.core.rmem_max`) to a process without rights.
    pub udp_buffer: usize,
    pub limits: StreamLimits,
    pub flood: FloodConfig,
}

impl Default for CarrierConfig {
    fn default() -> CarrierConfig {
        CarrierConfig {
            udp: Vec::new(),
            tcp: Vec::new(),
            tls: Vec::new(),
            ws: Vec::new(),
            wss: Vec::new(),
            certificates: None,
            udp_threads: 0,
            udp_buffer: 4 << 20,
            limits: StreamLimits::default(),
            flood: FloodConfig::default(),
        }
    }
}

/// Bounds on what stream peers can make us hold, and for how long. Times are looked at once a second.
#[derive(Clone, Debug)]
pub struct StreamLimits {
    /// Bytes of one message, head and body.
    pub message: usize,
    /// Bytes that may wait to be written on one connection; beyond, the connection is cut.
    pub queue: usize,
    /// Open connections, in all and from one address (IPv6: one /64).
    pub connections: usize,
    pub connections_per_source: usize,
    /// TLS and WebSocket handshakes in progress. When full, new ones wait, and after 3 s the oldest gives way.
    pub handshakes: usize,
    /// Until TLS and WebSocket handshakes must be done, and until a connect must succeed.
    pub handshake: Duration,
    pub connect: Duration,
    /// From the first byte of a message to its last, and for the peer to take what we write.
    pub unfinished: Duration,
    /// From the open of a connection to its first whole message.
    pub first_message: Duration,
    /// Without a byte from the peer. Longer than a usual registration, so that a phone without keep-alive stays reachable.
    pub idle: Duration,
    /// Between pings of ours on an otherwise silent WebSocket; after three without an answer it is closed.
    pub ping: Duration,
}

impl Default for StreamLimits {
    fn default() -> StreamLimits {
        StreamLimits {
            message: MESSAGE_MAX,
            queue: 1024 * 1024,
            connections: 100_000,
            connections_per_source: 20_000,
            handshakes: 1024,
            handshake: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            unfinished: Duration::from_secs(20),
            first_message: Duration::from_secs(120),
            idle: Duration::from_secs(3900),
            ping: Duration::from_secs(50),
        }
    }
}
