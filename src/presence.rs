//! Presence in this process: its settings, its rules, its part in the cluster, its numbers.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use sip_ims::Home;
use sip_ims::answer;
use sip_ims::ports::{Bus, BusError, Done, StoreError, Subscription};
use sip_ims::service::Location;
use sip_presence::capabilities::{Answers, Capabilities};
use sip_presence::lists::LISTS;
use sip_presence::rules::Handling;
use sip_presence::{MANIPULATED, Parts, Presence, RULES};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::app::unix_now;
use crate::config::{Auth, CapabilitiesFrom, Config, Watchers};
use crate::provision;
use crate::store::Store;
use crate::telemetry::metrics::Family;
use crate::telemetry::{Metrics, Timed};

/// Builds the presence server with everything that the store knows of it. Blocks. `None`: it is switched off.
pub fn open(
    config: &Config,
    store: &Store,
    home: Arc<Home>,
    location: Arc<dyn Location>,
    metrics: &Arc<Metrics>,
    key: [u8; 32],
) -> Result<Option<Arc<Presence>>, StoreError> {
    if !config.presence.enabled {
        return Ok(None);
    }
    let parts = Parts {
        home,
        location,
        store: Arc::new(Timed::new(metrics.clone(), store.presence())),
        documents: store.documents(),
    };
    let presence = Presence::new(settings(config, key), parts);
    read_documents(store, &presence)?;
    provision::wait(|done| presence.load(Instant::now(), unix_now(), done))?;
    to_metrics(metrics, &presence);
    Ok(Some(presence))
}

/// Tells what users' phones can do.
pub fn capabilities(
    config: &Config,
    home: Arc<Home>,
    location: Arc<dyn Location>,
    presence: Option<Arc<Presence>>,
    metrics: &Metrics,
) -> Arc<Capabilities> {
    let answers = match config.capabilities.answer {
        CapabilitiesFrom::Handsets => Answers::Handsets,
        CapabilitiesFrom::Network => Answers::Network,
    };
    let capabilities = Capabilities::new(answers, home, location, presence);
    let told = capabilities.clone();
    let family =
        Family::counter("isthmus_capabilities_total", "OPTIONS to users answered here, by what is known of them.");
    metrics.source(family, move |s| {
        s.push(&[("from", "registered")], told.counts.registered.load(Relaxed) as f64);
        s.push(&[("from", "published")], told.counts.published.load(Relaxed) as f64);
    });
    capabilities
}

fn settings(config: &Config, key: [u8; 32]) -> sip_presence::Config {
    let presence = &config.presence;
    let handling = |watchers: Watchers| match watchers {
        Watchers::Allow => Handling::Allow,
        Watchers::PoliteBlock => Handling::PoliteBlock,
        Watchers::Confirm => Handling::Confirm,
        Watchers::Block => Handling::Block,
    };
    sip_presence::Config {
        min_expires: presence.min_expires,
        max_expires: presence.max_expires,
        default_expires: presence.default_expires,
        max_document: presence.max_document.0 as usize,
        publications_per_user: presence.publications_per_user,
        publications: presence.publications,
        subscriptions_per_user: presence.subscriptions_per_user,
        subscriptions: presence.subscriptions,
        pace: Duration::from_secs(presence.notify_interval.into()),
        own_domain: handling(presence.own_domain),
        others: handling(presence.others),
        node: config.node_name(),
        key,
        open: config.sip.auth == Auth::None,
    }
}

fn read_documents(store: &Store, presence: &Presence) -> Result<(), StoreError> {
    let documents = store.documents();
    for usage in RULES.into_iter().chain(LISTS).chain([MANIPULATED]) {
        let mut after = String::new();
        loop {
            let page = provision::wait(|done| documents.list(usage, &after, PAGE, done))?;
            for document in &page {
                presence.book().enter(usage, &document.key, Some(document));
                presence.lists().enter(usage, &document.key, Some(document));
                presence.manipulate(usage, &document.key, Some(document));
            }
            match page.last() {
                Some(last) if page.len() == PAGE as usize => after = last.key.clone(),
                _ => break,
            }
        }
    }
    Ok(())
}

/// Documents read at once.
const PAGE: u32 = 500;

/// Hears what other nodes publish and which documents change, until the store is closed. The hints end with the guards.
pub fn follow(
    presence: &Arc<Presence>,
    bus: &Arc<dyn Bus>,
    node: &str,
    store: Option<&Store>,
    runtime: &Handle,
) -> Result<Vec<Subscription>, BusError> {
    let judged = presence.clone();
    let rules = bus.subscribe(
        DOCUMENT_CHANGED,
        Box::new(move |_, hint| {
            let Some((usage, key)) = std::str::from_utf8(hint).ok().and_then(|h| h.split_once(' ')) else { return };
            judged.document_changed(usage, key, ignored());
        }),
    )?;
    let Some(store) = store else { return Ok(vec![rules]) };
    let (out, name) = (bus.clone(), node.to_owned());
    // A topic of ours is one, and a name is no longer than a hint may be.
    store.announce_presence(move || _ = out.publish(CHANGED, name.as_bytes()));
    let hint = Arc::new(Notify::new());
    let (heard, name) = (hint.clone(), node.to_owned());
    let changed = bus.subscribe(
        CHANGED,
        Box::new(move |_, from| {
            if from != name.as_bytes() {
                heard.notify_one();
            }
        }),
    )?;
    runtime.spawn(take_over(presence.clone(), hint));
    Ok(vec![rules, changed])
}

/// Tells every node, this one too, that a document of an XCAP application usage has changed.
pub fn announce_document(bus: &dyn Bus, usage: &str, key: &str) {
    // Longer names than a hint may be are not taken for keys.
    let _ = bus.publish(DOCUMENT_CHANGED, format!("{usage} {key}").as_bytes());
}

fn ignored() -> Done<()> {
    Box::new(|result| {
        if let Err(error) = result {
            tracing::warn!(%error, "a document of presence was not re-read");
        }
    })
}

/// Reads what other nodes have published at each hint, and once a second.
async fn take_over(presence: Arc<Presence>, hint: Arc<Notify>) {
    loop {
        let _ = tokio::time::timeout(BETWEEN, hint.notified()).await;
        let (done, changed) = answer();
        presence.catch_up(unix_now(), done);
        match changed.await {
            Ok(_) => {}
            Err(StoreError::Closed) => return,
            Err(error) => tracing::warn!(%error, "other nodes' publications not read"),
        }
        // Hints of a busy neighbour are gathered.
        tokio::time::sleep(GATHER).await;
    }
}

const CHANGED: &str = "presence.changed";
const DOCUMENT_CHANGED: &str = "document.changed";
/// Without a hint.
const BETWEEN: Duration = Duration::from_secs(1);
const GATHER: Duration = Duration::from_millis(20);

fn to_metrics(metrics: &Metrics, presence: &Arc<Presence>) {
    let p = presence.clone();
    let family = Family::gauge("isthmus_publications", "Presence publications held.");
    metrics.source(family, move |s| s.push(&[], p.publications() as f64));
    let p = presence.clone();
    let family =
        Family::gauge("isthmus_presence_subscriptions", "Subscriptions to presence and to watcher information.");
    metrics.source(family, move |s| s.push(&[], p.subscriptions() as f64));
    let counts = presence.counts().clone();
    let family = Family::counter("isthmus_presence_total", "What the presence server has done, by kind.");
    metrics.source(family, move |s| {
        for (kind, counter) in [
            ("published", &counts.published),
            ("not_published", &counts.not_published),
            ("subscribed", &counts.subscribed),
            ("not_subscribed", &counts.not_subscribed),
            ("notified", &counts.notified),
            ("lost_watcher", &counts.lost_watchers),
            ("composed", &counts.composed),
        ] {
            s.push(&[("kind", kind)], counter.load(Relaxed) as f64);
        }
    });
}
