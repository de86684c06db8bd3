//! Presence in this process: its settings, its rules, its part in the cluster, its numbers.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use sip_ims::answer;
use sip_ims::ports::{Bus, BusError, Document, Documents, Done, Expect, Mailboxes, StoreError, Subscription, Version};
use sip_ims::service::{Location, NextHops};
use sip_ims::subscriptions::{self, Subscriptions};
use sip_ims::summary::Summary;
use sip_ims::{Aor, Home};
use sip_presence::capabilities::{Answers, Capabilities};
use sip_presence::rules::Handling;
use sip_presence::{Parts, Presence, SUMMARIES};
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
    abroad: Arc<Subscriptions>,
) -> Result<Option<Arc<Presence>>, StoreError> {
    if !config.presence.enabled {
        return Ok(None);
    }
    let parts = Parts {
        home,
        location,
        store: Arc::new(Timed::new(metrics.clone(), store.presence())),
        documents: store.documents(),
        abroad: Some(abroad).filter(|_| config.presence.foreign_members),
    };
    let presence = Presence::new(settings(config, key), parts);
    read_documents(store, &presence)?;
    provision::wait(|done| presence.load(Instant::now(), unix_now(), done))?;
    to_metrics(metrics, &presence);
    Ok(Some(presence))
}

/// Our own subscriptions to other servers.
pub fn elsewhere(home: Arc<Home>, next_hops: Arc<dyn NextHops>, metrics: &Metrics) -> Arc<Subscriptions> {
    let all = Subscriptions::new(subscriptions::Parts { home, next_hops, clock: Instant::now });
    let counted = all.clone();
    let family = Family::gauge("isthmus_subscriptions_elsewhere", "Our own subscriptions to other servers.");
    metrics.source(family, move |s| s.push(&[], counted.len() as f64));
    all
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
        subscriptions_per_watcher: presence.subscriptions_per_watcher,
        lists_per_user: presence.lists_per_user,
        lists: presence.lists,
        list_server: presence.list_server.clone(),
        xcap_root: crate::xcap::root_of(config),
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
    for usage in Presence::usages() {
        let mut after = String::new();
        loop {
            let page = provision::wait(|done| documents.list(usage, &after, PAGE, done))?;
            for document in &page {
                presence.enter_document(usage, &document.key, Some(document));
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
            let Some((usage, key, _)) = changed_document(hint) else { return };
            judged.document_changed(usage, key, ignored());
        }),
    )?;
    runtime.spawn(look_again(presence.clone()));
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
    let wanted = hint.clone();
    presence.share(move || wanted.notify_one());
    runtime.spawn(take_over(presence.clone(), hint));
    Ok(vec![rules, changed])
}

/// From which state of a document to which, as entity tags without quotes; empty where there was or is none.
pub type Step<'s> = (&'s str, &'s str);

/// Tells every node, this one too, that a document of an XCAP application usage has changed.
pub fn announce_document(bus: &dyn Bus, usage: &str, key: &str, step: Option<Step<'_>>) {
    let step = step.map_or_else(String::new, |(previous, new)| format!("\0{previous} {new}"));
    // Longer names than a hint may be are not taken for keys.
    let _ = bus.publish(DOCUMENT_CHANGED, format!("{usage} {key}{step}").as_bytes());
}

/// What such a hint says: a usage, a key, and the step where it is known.
pub fn changed_document(hint: &[u8]) -> Option<(&str, &str, Option<Step<'_>>)> {
    let (usage, rest) = std::str::from_utf8(hint).ok()?.split_once(' ')?;
    // No key has a NUL.
    match rest.split_once('\0') {
        None => Some((usage, rest, None)),
        Some((key, step)) => Some((usage, key, step.split_once(' '))),
    }
}

fn ignored() -> Done<()> {
    Box::new(|result| {
        if let Err(error) = result {
            tracing::warn!(%error, "a document of presence was not re-read");
        }
    })
}

/// Finds the documents whose hint was lost: a page of each usage a second.
async fn look_again(presence: Arc<Presence>) {
    let mut places: Vec<(&'static str, String)> = Presence::usages().map(|usage| (usage, String::new())).collect();
    loop {
        tokio::time::sleep(BETWEEN).await;
        for (usage, after) in &mut places {
            let (done, next) = answer();
            presence.look_for_changes(usage, after, PAGE, done);
            match next.await {
                Ok(next) => *after = next.unwrap_or_default(),
                Err(StoreError::Closed) => return,
                Err(error) => tracing::warn!(%error, usage, "documents not looked at"),
            }
        }
    }
}

/// The documents behind the mailboxes' summaries, whose watchers [`Presence`] tells.
pub struct Summaries {
    documents: Arc<dyn Documents>,
    bus: Arc<dyn Bus>,
}

impl Summaries {
    pub fn new(documents: Arc<dyn Documents>, bus: Arc<dyn Bus>) -> Summaries {
        Summaries { documents, bus }
    }
}

impl Mailboxes for Summaries {
    fn summary(&self, aor: &Aor, done: Done<Summary>) {
        let read = move |found: Result<Option<Document>, StoreError>| match found {
            Ok(None) => done(Ok(Summary::default())),
            Ok(Some(document)) => done(Summary::parse(&document.body).ok_or(StoreError::Damaged)),
            Err(error) => done(Err(error)),
        };
        self.documents.get(SUMMARIES, aor.as_str(), Box::new(read));
    }

    fn set_summary(&self, aor: &Aor, summary: Summary, done: Done<()>) {
        let (bus, key) = (self.bus.clone(), aor.to_string());
        let stored = move |result: Result<Version, StoreError>| {
            if result.is_ok() {
                announce_document(&*bus, SUMMARIES, &key, None);
            }
            done(result.map(drop));
        };
        let body = summary.to_text().into_bytes();
        self.documents.put(SUMMARIES, aor.as_str(), Expect::Anything, body, Box::new(stored));
    }
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
/// The topic of documents that change, see [`changed_document`].
pub const DOCUMENT_CHANGED: &str = "document.changed";
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
            ("packed", &counts.packed),
        ] {
            s.push(&[("kind", kind)], counter.load(Relaxed) as f64);
        }
    });
}
