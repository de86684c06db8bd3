//! What has been done so far, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Totals since the start of the process.
#[derive(Default, Debug)]
pub struct Counts {
    /// Committed and answered with 202.
    pub kept: AtomicU64,
    /// Not taken, by the store or for want of room.
    pub turned_away: AtomicU64,
    /// A phone took a kept message.
    pub delivered: AtomicU64,
    /// A phone refused a kept message for good; it was dropped.
    pub refused: AtomicU64,
    /// Nobody came for it in time.
    pub expired: AtomicU64,
    /// Senders were told what became of a message.
    pub notices: AtomicU64,
    /// Messages read on one device were told to another.
    pub shared: AtomicU64,
    /// Rounds that ended with messages left, to be tried again.
    pub put_off: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}
