//! Changes of documents told to SIP subscribers (RFC 5875), in this process: settings, hints, numbers.

use std::sync::Arc;
use std::time::Duration;

use sip_ims::ports::{Bus, BusError, Subscription};
use sip_ims::{Directory, Home};
use sip_presence::xcap_diff::{DiffConfig, DiffParts, XcapDiff};

use super::root_of;
use crate::config::Config;
use crate::presence::{DOCUMENT_CHANGED, changed_document};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Family;

/// Builds the package. `None`: XCAP is switched off.
pub fn open(
    config: &Config,
    store: &Store,
    home: Arc<Home>,
    directory: Arc<Directory>,
    metrics: &Metrics,
) -> Option<Arc<XcapDiff>> {
    if !config.xcap.enabled {
        return None;
    }
    let settings = DiffConfig {
        root: root_of(config),
        admins: config.xcap.admins.clone(),
        pace: Duration::from_secs(config.presence.notify_interval.into()),
        subscriptions: config.presence.subscriptions,
    };
    let diff = XcapDiff::new(settings, DiffParts { home, directory, documents: store.documents() });
    let counted = diff.clone();
    let family = Family::gauge("isthmus_xcap_subscriptions", "Subscriptions to changes of users' documents.");
    metrics.source(family, move |s| s.push(&[], counted.subscriptions() as f64));
    Some(diff)
}

/// Hears which documents change, here and at other nodes, until the guard is dropped.
pub fn follow(diff: &Arc<XcapDiff>, bus: &dyn Bus) -> Result<Subscription, BusError> {
    let diff = diff.clone();
    bus.subscribe(
        DOCUMENT_CHANGED,
        Box::new(move |_, hint| {
            if let Some((usage, key, step)) = changed_document(hint) {
                diff.document_changed(usage, key, step);
            }
        }),
    )
}
