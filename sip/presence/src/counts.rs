//! What has been done so far, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Totals since the start of the process.
#[derive(Default, Debug)]
pub struct Counts {
    /// PUBLISHes that were stored.
    pub published: AtomicU64,
    /// PUBLISHes that were refused.
    pub not_published: AtomicU64,
    /// SUBSCRIBEs that were granted, refreshes and ends included.
    pub subscribed: AtomicU64,
    /// SUBSCRIBEs that were refused.
    pub not_subscribed: AtomicU64,
    /// NOTIFYs sent.
    pub notified: AtomicU64,
    /// Subscriptions dropped because their watcher did not take a NOTIFY.
    pub lost_watchers: AtomicU64,
    /// Documents composed.
    pub composed: AtomicU64,
    /// Subscriptions packed because nothing happened to them.
    pub packed: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
