//! What the switch counts, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Totals since the start.
#[derive(Default, Debug)]
pub struct Counts {
    pub connections: AtomicU64,
    pub connections_refused: AtomicU64,
    /// Closed because the stream was not MSRP, said nothing, or stood still.
    pub connections_cut: AtomicU64,
    pub sessions: AtomicU64,
    /// Sessions whose other end could not be connected to.
    pub unreachable: AtomicU64,
    /// SEND requests with a body that were passed on.
    pub chunks: AtomicU64,
    /// Those that ended a message.
    pub messages: AtomicU64,
    /// Body bytes passed on.
    pub bytes: AtomicU64,
    pub reports: AtomicU64,
    /// Requests answered 4xx or 5xx.
    pub refused: AtomicU64,
    /// Messages that were whole, and that their [`Inspector`](crate::Inspector) let nobody have.
    pub withheld: AtomicU64,
    /// Messages that ended here.
    pub received: AtomicU64,
    /// Messages that began here.
    pub sent: AtomicU64,
    /// SEND requests of ours that nobody answered, or that the far end refused.
    pub failed: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }
}
