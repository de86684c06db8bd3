//! What the carriers call when something arrives, and the only thing they know of the machines.

use std::net::SocketAddr;
use std::time::Instant;

use sip_proto::{Flow, Outbox};

/// The receiving side of every carrier. Called on the thread that read the bytes (run to completion); whatever it puts
/// into `out` is written by that carrier right after the batch, UDP messages with one system call.
pub trait Handler: Send + Sync + 'static {
    /// One datagram or one framed stream message. `loaded` is true while the carrier sees its queue grow beyond what
    /// it drains: new requests should then be answered 503 (RFC 7339's loss idea, without its headers).
    fn message(&self, now: Instant, flow: &Flow, bytes: &[u8], loaded: bool, out: &mut Outbox);

    /// Whether [`Handler::tick`] would find anything to do. Asked every 20 ms; cheap, and may be wrong towards true.
    fn is_due(&self, now: Instant) -> bool {
        let _ = now;
        true
    }

    /// Advances every timer that is due. Called about every 20 ms from one thread.
    fn tick(&self, now: Instant, out: &mut Outbox);

    /// Nothing came for a second to a thread that receives datagrams; called on that thread, and again after each such second.
    fn idle(&self) {}

    /// A stream connection is gone: its flow id will never be used again.
    fn closed(&self, now: Instant, flow: &Flow, out: &mut Outbox);

    /// An ICMP error says that nobody takes our datagrams at `to`. `quoted` is what it repeats of the datagram: its beginning,
    /// cut anywhere. It may be forged, unless that holds what only the way to that peer has seen.
    fn returned(&self, now: Instant, to: SocketAddr, quoted: &[u8], out: &mut Outbox) {
        let _ = (now, to, quoted, out);
    }

    /// A message with a token could not be handed to its hop (no route, connection refused, time-out, queue full).
    fn unreachable(&self, now: Instant, token: u64, out: &mut Outbox);
}
