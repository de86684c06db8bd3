//! Histories of messages, tied together: what keeps them, and what lets go of them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sip_ims::{Directory, Home};
use sip_messaging::{History, HistoryParts};
use tokio::runtime::Handle;

use crate::config::Config;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Family;

/// How often it is looked for what is over.
const SWEEP: Duration = Duration::from_secs(60);

/// What keeps histories. Lets go of them in `runtime`.
pub fn open(
    config: &Config,
    store: &Store,
    (home, directory): (Arc<Home>, Arc<Directory>),
    metrics: &Metrics,
    runtime: &Handle,
) -> Arc<History> {
    let history = History::new(HistoryParts {
        store: store.history(),
        home,
        directory,
        unix_ms,
        max_days: config.history.max_days,
        max_messages: config.history.max_messages,
    });
    let counts = history.counts().clone();
    let family = Family::counter("isthmus_history_messages_total", "Messages for users' histories, by fate.");
    metrics.source(family, move |s| {
        for (fate, n) in [("kept", &counts.kept), ("lost", &counts.lost)] {
            s.push(&[("fate", fate)], n.load(Relaxed) as f64);
        }
    });
    runtime.spawn(sweep(history.clone()));
    history
}

async fn sweep(history: Arc<History>) {
    let mut minute = tokio::time::interval(SWEEP);
    loop {
        minute.tick().await;
        if let Err(error) = history.sweep().await {
            tracing::warn!(%error, "histories that are over could not be removed");
        }
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
