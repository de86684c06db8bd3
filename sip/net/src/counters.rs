//! What the carriers did, as plain counters that telemetry reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sip_proto::Transport;

/// Counts since start. Read them at any time; each is exact, together they are not a snapshot.
#[derive(Default, Debug)]
pub struct Counters {
    /// Messages given to the handler, by [`Transport`].
    pub received: [AtomicU64; 5],
    /// Messages given to the kernel (UDP) or to a connection's queue, by [`Transport`].
    pub sent: [AtomicU64; 5],
    /// Open stream connections now, by [`Transport`].
    pub open: [AtomicU64; 5],
    /// Keep-alives answered or ignored: CRLF, STUN, WebSocket ping.
    pub keep_alives: AtomicU64,
    /// Datagrams and frames that were no SIP at all.
    pub garbage: AtomicU64,
    /// Messages dropped because their source was over its limit.
    pub flood_dropped: AtomicU64,
    /// Batches in which the UDP queue was found too long, so that the handler was told to shed load.
    pub overloaded: AtomicU64,
    /// Messages that could not be handed on: no route, no connection, queue full.
    pub unsent: AtomicU64,
    /// Datagrams of ours that came back as ICMP errors.
    pub returned: AtomicU64,
    /// Connections refused at a cap, or closed because a bound was broken (size, time, queue).
    pub connections_refused: AtomicU64,
    pub connections_cut: AtomicU64,
    /// TLS or WebSocket handshakes that failed or took too long.
    pub handshakes_failed: AtomicU64,
    /// Panics of the handler that were caught. Anything but 0 is a defect of ours.
    pub panics: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }

    pub(crate) fn bump(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    pub fn received(&self, transport: Transport) -> u64 {
        self.received[transport as usize].load(Relaxed)
    }

    pub fn sent(&self, transport: Transport) -> u64 {
        self.sent[transport as usize].load(Relaxed)
    }

    pub fn open(&self, transport: Transport) -> u64 {
        self.open[transport as usize].load(Relaxed)
    }
}
