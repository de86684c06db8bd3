//! Where bytes come from and where they go: the words that the carriers and the machines share.
//!
//! Nothing here touches a socket. A [`Flow`] names one, an [`Outbox`] collects what should be written to them.

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;

/// A SIP transport (RFC 3261 §18, RFC 7118).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
    Ws,
    Wss,
}

impl Transport {
    pub const ALL: [Transport; 5] = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];

    /// Reliable transports carry no retransmissions (RFC 3261 §17).
    pub fn is_reliable(self) -> bool {
        self != Transport::Udp
    }

    /// Encrypted towards the peer.
    pub fn is_secure(self) -> bool {
        matches!(self, Transport::Tls | Transport::Wss)
    }

    /// The token in a Via's sent-protocol.
    pub fn via_token(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Ws => "WS",
            Transport::Wss => "WSS",
        }
    }

    /// The value of a URI's `transport` parameter (lower case).
    pub fn uri_token(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ws => "ws",
            Transport::Wss => "wss",
        }
    }

    /// Case-insensitive, as RFC 3261 §7.3.1 has tokens.
    pub fn from_token(token: &[u8]) -> Option<Transport> {
        Transport::ALL.into_iter().find(|t| t.via_token().as_bytes().eq_ignore_ascii_case(token))
    }

    /// RFC 3261 §19.1.2; RFC 7118 §5.5 gives WebSockets HTTP's ports.
    pub fn default_port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 5060,
            Transport::Tls => 5061,
            Transport::Ws => 80,
            Transport::Wss => 443,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.uri_token())
    }
}

/// One stream connection of this process (never reused), or one listening UDP socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// The way a message came, and the way back (RFC 5626 calls the same thing a flow).
///
/// For UDP, `id` is the listening socket and `remote` the peer; for a stream, `id` alone names the connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    pub transport: Transport,
    pub id: FlowId,
    /// Our own end, as bound.
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

impl Flow {
    /// From ourselves to ourselves, without a socket: nobody else can send by it. Reliable.
    pub const INTERNAL: Flow = {
        let here = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
        Flow { transport: Transport::Tcp, id: FlowId(u64::MAX), local: here, remote: here }
    };

    pub fn is_internal(&self) -> bool {
        self.id == Flow::INTERNAL.id
    }
}

/// A host name that a TLS peer must prove with its certificate (RFC 5922 §7). The carriers keep the names; a number, so
/// that a [`Hop`] stays small and `Copy`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct HostId(pub u64);

/// Where a message should go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hop {
    /// Over an existing flow, or not at all.
    Flow(Flow),
    /// To an address: UDP from our socket of that family, streams over an open connection to it or a new one.
    Address { transport: Transport, remote: SocketAddr },
    /// As `Address`, for a secure transport: only over a connection whose peer proved to be that host.
    Host { transport: Transport, remote: SocketAddr, host: HostId },
}

/// RFC 3261 §18.1.1: a longer request goes over a congestion-controlled transport where the peer takes one, in bytes.
pub const LONGEST_DATAGRAM_REQUEST: usize = 1300;

impl Hop {
    /// The same peer over TCP, for a request that is too long for a datagram. `None` where there is no choice: a stream, or
    /// a flow, which may be the only way through a NAT.
    pub fn over_tcp(&self) -> Option<Hop> {
        match *self {
            Hop::Address { transport: Transport::Udp, remote } => {
                Some(Hop::Address { transport: Transport::Tcp, remote })
            }
            _ => None,
        }
    }

    pub fn transport(&self) -> Transport {
        match self {
            Hop::Flow(f) => f.transport,
            Hop::Address { transport, .. } | Hop::Host { transport, .. } => *transport,
        }
    }

    pub fn remote(&self) -> SocketAddr {
        match self {
            Hop::Flow(f) => f.remote,
            Hop::Address { remote, .. } | Hop::Host { remote, .. } => *remote,
        }
    }
}

/// One message to write: its hop and its place in the outbox's buffer.
#[derive(Clone, Debug)]
pub struct Transmit {
    pub hop: Hop,
    pub bytes: Range<usize>,
    /// The client transaction to tell when the hop cannot be reached; `u64::MAX` when nobody waits.
    pub token: u64,
}

impl Transmit {
    pub const NO_TOKEN: u64 = u64::MAX;
}

/// What a step of the machines wants written. The carrier drains it after each batch; both buffers are reused.
#[derive(Default, Debug)]
pub struct Outbox {
    buf: Vec<u8>,
    items: Vec<Transmit>,
    /// What goes by [`Flow::INTERNAL`], in order.
    internal: VecDeque<Range<usize>>,
}

impl Outbox {
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// Appends one message, written by `write` straight into the buffer. Returns its range.
    pub fn push(&mut self, hop: Hop, token: u64, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.buf.len();
        write(&mut self.buf);
        let bytes = start..self.buf.len();
        if matches!(hop, Hop::Flow(flow) if flow.is_internal()) {
            self.internal.push_back(bytes.clone());
            return bytes;
        }
        self.items.push(Transmit { hop, bytes: bytes.clone(), token });
        bytes
    }

    /// Appends one message that is already in bytes.
    pub fn push_bytes(&mut self, hop: Hop, token: u64, bytes: &[u8]) {
        self.push(hop, token, |b| b.extend_from_slice(bytes));
    }

    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buf[range]
    }

    pub fn items(&self) -> &[Transmit] {
        &self.items
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Transmit, &[u8])> {
        self.items.iter().map(|t| (t, &self.buf[t.bytes.clone()]))
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The next message that we sent to ourselves: not for a carrier, but to be received.
    pub fn take_internal(&mut self) -> Option<Vec<u8>> {
        self.internal.pop_front().map(|range| self.buf[range].to_vec())
    }

    /// Takes over everything that another has for the carriers.
    pub fn append(&mut self, other: &mut Outbox) {
        let start = self.buf.len();
        self.buf.extend_from_slice(&other.buf);
        let moved = |t: Transmit| Transmit { bytes: t.bytes.start + start..t.bytes.end + start, ..t };
        self.items.extend(other.items.drain(..).map(moved));
        other.clear();
    }

    /// Forgets everything and keeps the memory, up to 1 MiB of it.
    pub fn clear(&mut self) {
        self.items.clear();
        self.internal.clear();
        self.buf.clear();
        self.buf.shrink_to(1 << 20);
    }
}
