//! Short messages, tied together: the queue, the dispatcher, the SMPP links, and who hears of it all.

mod door;
pub mod handsets;
mod links;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gw_smpp::Links;
use gw_sms::billing::Calendar;
use gw_sms::delivery::{LineBook, LookUp};
use gw_sms::dispatch::{self, Dispatcher, Hand, Handsets, Witness};
use gw_sms::esme::{Applications, Carriers, Numbers, Receivers};
use gw_sms::ip_sm_gw::{Fate, IpSmGw, Passage, Registered, UserTeller, Watch};
use gw_sms::notice::{Notices, Notifier, PushTeller, Teller, Tellers};
use gw_sms::push::rate::Rates;
use gw_sms::push::service::PushService;
use gw_sms::queue::{Ended, Notice, Origin, Queue, SegmentId, State, Verdict};
use gw_sms::registry::Registry;
use gw_sms::rest::{self, service::MessageService, subscription::Subscriptions, webhook::ApiTeller};
use parking_lot::Mutex;
use sip_ims::Msisdn;
use sip_ims::ports::{Bus, BusError, Documents, Subscription};
use sip_ims::service::Location;
use sip_proto::{Method, Transport};
use tokio::runtime::Handle;

use crate::cdr::{Kind, Record, Records};
use crate::config::Config;
use crate::http::client::{Client, HlrClient};
use crate::http::guard::Guard;
use crate::http::tls::Certificates;
use crate::store::sms::{SmsConfig, SmsQueue};
use crate::store::{OpenError, StoreConfig};
use crate::telemetry::metrics::Family;
use crate::telemetry::trace::Step;
use crate::telemetry::{Event, Metrics, Trace, TraceId};

/// What short messages share with the rest of the process.
pub struct Around {
    pub store: StoreConfig,
    pub registry: Arc<Registry>,
    /// The gateway to handsets over IMS, if it is on, and where they are.
    pub ip_sm_gw: Option<Arc<IpSmGw>>,
    pub location: Arc<dyn Location>,
    pub client: Client,
    pub documents: Arc<dyn Documents>,
    /// That of a cluster.
    pub bus: Option<Arc<dyn Bus>>,
    /// Of the encrypted door for ESMEs.
    pub certificates: Certificates,
    pub records: Option<Records>,
    pub trace: Arc<Trace>,
    pub metrics: Arc<Metrics>,
}

/// Why short messages did not start.
#[derive(Debug, thiserror::Error)]
pub enum SmsError {
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The operator's: the address is taken, or not this machine's.
    #[error("cannot listen on {0} {1}: {2}")]
    Listen(&'static str, SocketAddr, #[source] std::io::Error),
    /// The operator's.
    #[error("smpp.link {0}: {1}: {2}")]
    Authorities(String, PathBuf, #[source] std::io::Error),
    #[error(transparent)]
    Bus(BusError),
    #[error("smpp.link {0}: TLS: {1}")]
    Tls(String, #[source] rustls::Error),
}

/// Everything that moves short messages.
pub struct Sms {
    pub queue: Arc<SmsQueue>,
    pub push: Arc<PushService>,
    /// The developers' door.
    pub messages: Arc<MessageService>,
    pub subscriptions: Arc<Subscriptions>,
    pub dispatcher: Arc<Dispatcher>,
    /// Takes down what passes by the queue, too.
    pub chronicle: Arc<Chronicle>,
    pub links: Links,
    /// Their door is open when ESMEs are configured.
    receivers: Arc<Receivers>,
    pub numbers: Arc<Numbers>,
    _heard: Option<Subscription>,
}

impl Sms {
    /// Opens the queue and starts the links. Blocks; what runs does so on `runtime`.
    pub fn open(config: &Config, around: Around, runtime: &Handle) -> Result<Sms, SmsError> {
        let Around { store, registry, ip_sm_gw, location, client, documents, bus, certificates, .. } = around;
        let (records, trace, metrics) = (around.records, around.trace, around.metrics);
        // Checked with the rest of the configuration.
        let calendar = Calendar::parse(&config.billing.time_zone).unwrap_or_else(|_| Calendar::utc());
        let queue = Arc::new(SmsQueue::open(&SmsConfig {
            calendar: calendar.clone(),
            keep: i64::from(config.sms.keep) * 86_400_000,
            ..SmsConfig::new(store.engine, &config.data_dir, &config.node_name())
        })?);
        let (notices, notifier) = Notices::new();
        let told = notices.counts.clone();
        let chronicle =
            Arc::new(Chronicle { notices, records, trace, node: config.node_name(), verdicts: Mutex::default() });
        let hlr = (!config.sms.hlr.is_empty()).then(|| {
            let patience = Duration::from_secs(config.sms.hlr_timeout.into());
            let hlr = HlrClient::new(client.clone(), &config.sms.hlr, patience, runtime.clone());
            Arc::new(hlr) as Arc<dyn LookUp>
        });
        let fresh = Duration::from_secs(config.sms.hlr_cache.into());
        let dispatcher = Dispatcher::new(dispatch::Parts {
            config: dispatch::Config::default(),
            queue: queue.clone(),
            registry: registry.clone(),
            lines: Arc::new(LineBook::new(registry.clone(), hlr, fresh)),
            witness: chronicle.clone(),
            clock: clock(),
        });
        let numbers = numbers(config);
        let applications = door::applications(config, numbers.clone(), bus.as_ref(), runtime);
        let inbound = links::inbound(config, ip_sm_gw.as_ref(), &location, &queue, &chronicle, &numbers);
        let (centre, links) = links::open(config, &dispatcher, inbound, runtime)?;
        if let Some(gateway) = &ip_sm_gw {
            handsets_to_metrics(&metrics, gateway);
        }
        let user = ip_sm_gw.clone().map(|gateway| Arc::new(UserTeller(gateway)) as Arc<dyn Teller>);
        let handsets = ip_sm_gw.map(|gateway| {
            let (dispatcher, unix) = (dispatcher.clone(), Arc::new(crate::app::unix_now));
            Arc::new(Registered { gateway, location, dispatcher, unix }) as Arc<dyn Handsets>
        });
        let carriers = Carriers { centre: centre.clone(), applications: applications.clone() };
        dispatcher.tie(Arc::new(carriers), handsets);
        applications.tie(dispatcher.clone());
        queue.attach(Arc::new(Hand(dispatcher.clone())));
        let validity = i64::from(config.sms.validity) * 60_000;
        let rates = Arc::new(Rates::default());
        let push = Arc::new(PushService::new(registry.clone(), queue.clone(), rates.clone(), validity));
        let guard = Guard::new(config.webhooks.allow.clone());
        let messages = Arc::new(MessageService::new(rest::service::Parts {
            registry: registry.clone(),
            queue: queue.clone(),
            documents: documents.clone(),
            rates,
            calendar: calendar.clone(),
            validity,
            keep: i64::from(config.sms.keep) * 86_400_000,
            random: Arc::new(rand::random),
        }));
        let check = guard.clone();
        let check = Arc::new(move |url: &str| check.check(url));
        let subscriptions = Arc::new(Subscriptions::new(documents, check, Arc::new(rand::random)));
        let webhooks = Arc::new(client.guarded(guard));
        let api = ApiTeller::new(subscriptions.clone(), messages.letters().clone(), webhooks, clock());
        runtime.spawn(tidy(api.clone(), messages.clone()));
        to_metrics(&metrics, &queue, &dispatcher, (&push, &messages), &chronicle, &links);
        let counts = told;
        metrics.source(
            Family::counter("isthmus_sms_notifications_total", "Notifications to clients, by fate."),
            move |s| {
                use std::sync::atomic::Ordering::Relaxed;
                s.push(&[("fate", "told")], counts.told.load(Relaxed) as f64);
                s.push(&[("fate", "put_off")], counts.put_off.load(Relaxed) as f64);
                s.push(&[("fate", "given_up")], counts.given_up.load(Relaxed) as f64);
            },
        );
        applications_to_metrics(&metrics, &applications);
        let queue_and_bus = (&queue, bus.as_ref());
        let opened = door::open(config, queue_and_bus, centre, &applications, &calendar, &certificates, runtime)?;
        let push_teller = PushTeller { registry, poster: Arc::new(client), calendar };
        start(
            runtime,
            notifier,
            queue.clone(),
            Tellers { push: push_teller, esme: opened.teller, user, api: Arc::new(api) },
            dispatcher.clone(),
        );
        let (receivers, _heard) = (applications.receivers.clone(), opened.heard);
        Ok(Sms { queue, push, messages, subscriptions, dispatcher, chronicle, links, receivers, numbers, _heard })
    }

    /// Ends the links with their windows answered, and writes what is known.
    pub async fn drain(&self) {
        if let Some(door) = self.receivers.door() {
            door.stop().await;
        }
        self.links.stop().await;
        self.dispatcher.give_back();
    }
}

/// Those of applications. They are checked with the rest of the configuration.
pub fn numbers(config: &Config) -> Arc<Numbers> {
    Arc::new(config.smpp.numbers().unwrap_or_default())
}

fn start(runtime: &Handle, notifier: Notifier, queue: Arc<dyn Queue>, teller: Tellers, dispatcher: Arc<Dispatcher>) {
    runtime.spawn(notifier.run(queue, Arc::new(teller), clock()));
    runtime.spawn(async move {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            second.tick().await;
            dispatcher.tick();
        }
    });
}

/// Ends subscriptions when their time is over, and forgets old messages.
async fn tidy(api: ApiTeller, messages: Arc<MessageService>) {
    let clock = clock();
    for round in 0u64.. {
        tokio::time::sleep(TIDY).await;
        if let Err(error) = api.end_subscriptions().await {
            tracing::warn!(%error, "subscriptions are not looked through");
        }
        if round.is_multiple_of(PURGE_ROUNDS)
            && let Err(error) = messages.letters().purge(clock()).await
        {
            tracing::warn!(%error, "old messages of developers are not forgotten");
        }
    }
}

/// How late a subscription may end.
const TIDY: Duration = Duration::from_secs(5);
/// About an hour.
const PURGE_ROUNDS: u64 = 720;

/// Takes down what happens to each message: trace, charging record, counts.
pub struct Chronicle {
    notices: Notices,
    records: Option<Records>,
    trace: Arc<Trace>,
    node: String,
    verdicts: Mutex<HashMap<(State, Verdict), u64>>,
}

impl Chronicle {
    fn mark(&self, name: &str, step: Step, status: u16) {
        if self.trace.is_on() {
            self.trace.record(&Event {
                trace: TraceId::of(name.as_bytes()),
                at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64),
                step,
                method: Method::Message,
                status,
                transport: Transport::Tcp,
                peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            });
        }
    }

    /// One segment's end; times in unix milliseconds.
    fn record(&self, name: &str, from: &str, to: Msisdn, (start, end): (i64, i64), verdict: Verdict) {
        if let Some(records) = &self.records {
            records.write(&Record {
                kind: Kind::ShortMessage,
                trace: &TraceId::of(name.as_bytes()).to_string(),
                node: &self.node,
                call_id: name,
                from,
                to: &to.to_string(),
                start: start as u64,
                answer: None,
                end: end as u64,
                status: verdict.0,
                bytes: None,
            });
        }
    }
}

impl Watch for Chronicle {
    fn passed(&self, passage: &Passage<'_>) {
        let Passage { name, from, to, began, ended, fate } = *passage;
        let (step, verdict) = match fate {
            Fate::Delivered => (Step::Delivered, Verdict::DELIVERED),
            // Whoever sent it has it still.
            Fate::NoMemory | Fate::Busy => return self.mark(name, Step::Deferred, 0),
            Fate::NoReport | Fate::Unreachable { .. } | Fate::Refused { .. } => (Step::Failed, Verdict::UNDELIVERABLE),
        };
        self.mark(name, step, verdict.0);
        self.record(name, from, to, (began, ended), verdict);
    }
}

impl Witness for Chronicle {
    fn submitted(&self, _: SegmentId, origin: &Origin) {
        self.mark(&origin.reqid, Step::Submitted, 0);
    }

    fn deferred(&self, _: SegmentId, origin: &Origin) {
        self.mark(&origin.reqid, Step::Deferred, 0);
    }

    fn ended(&self, ended: &[Ended]) {
        let mut verdicts = self.verdicts.lock();
        for end in ended {
            *verdicts.entry((end.state, end.verdict)).or_default() += 1;
        }
        drop(verdicts);
        for end in ended {
            let step = match end.state {
                State::Delivered => Step::Delivered,
                State::Expired => Step::Expired,
                State::Cancelled => Step::Withdrawn,
                _ => Step::Failed,
            };
            let Origin { reqid, client, msn, .. } = &*end.origin;
            self.mark(reqid, step, end.verdict.0);
            self.record(reqid, client, *msn, (end.accepted_at, end.at), end.verdict);
        }
    }

    fn notices(&self, notices: Vec<Notice>) {
        self.notices.take(notices);
    }

    fn notice_room(&self) -> usize {
        self.notices.room()
    }
}

fn to_metrics(
    metrics: &Metrics,
    queue: &Arc<SmsQueue>,
    dispatcher: &Arc<Dispatcher>,
    (push, messages): (&Arc<PushService>, &Arc<MessageService>),
    chronicle: &Arc<Chronicle>,
    links: &Links,
) {
    use std::sync::atomic::Ordering::Relaxed;
    let q = queue.clone();
    let d = dispatcher.clone();
    metrics.source(Family::gauge("isthmus_sms_waiting", "Short messages and jobs that wait, by place."), move |s| {
        s.push(&[("place", "commit")], q.queued() as f64);
        s.push(&[("place", "memory")], d.held() as f64);
    });
    let d = dispatcher.clone();
    metrics.source(
        Family::counter("isthmus_sms_dispatch_total", "What became of segments on their way, by event."),
        move |s| {
            let c = d.counts();
            for (event, counter) in [
                ("submitted", &c.submitted),
                ("taken", &c.taken),
                ("deferred", &c.deferred),
                ("again", &c.again),
                ("unknown", &c.unknown),
                ("receipt", &c.receipts),
                ("strange_receipt", &c.strange_receipts),
                ("refused_by_line", &c.refused_by_line),
            ] {
                s.push(&[("event", event)], counter.load(Relaxed) as f64);
            }
        },
    );
    let p = push.clone();
    metrics.source(Family::counter("isthmus_sms_push_total", "Answers of the push interface, by code."), move |s| {
        p.counts().each(|code, n| s.push(&[("code", &code.to_string())], n as f64));
    });
    let m = messages.clone();
    metrics.source(
        Family::counter("isthmus_sms_api_total", "Answers of the developers' API, by operation and HTTP status."),
        move |s| {
            m.counts().each(|operation, status, n| {
                s.push(&[("operation", operation), ("status", &status.to_string())], n as f64);
            });
        },
    );
    let c = chronicle.clone();
    metrics.source(
        Family::counter("isthmus_sms_ended_total", "Segments that are over, by state and verdict."),
        move |s| {
            for ((state, verdict), n) in &*c.verdicts.lock() {
                s.push(&[("state", state.as_str()), ("verdict", &format!("{:04}", verdict.0))], *n as f64);
            }
        },
    );
    let l = links.clone();
    metrics.source(Family::gauge("isthmus_smpp_link_up", "Whether an SMPP link is bound."), move |s| {
        l.iter().for_each(|link| s.push(&[("link", link.name())], f64::from(u8::from(link.is_up()))));
    });
    let l = links.clone();
    metrics.source(
        Family::gauge("isthmus_smpp_link_open", "Submitted over an SMPP link and not answered."),
        move |s| {
            l.iter().for_each(|link| s.push(&[("link", link.name())], link.open() as f64));
        },
    );
}

fn applications_to_metrics(metrics: &Metrics, applications: &Arc<Applications>) {
    let a = applications.clone();
    let family = Family::gauge("isthmus_smpp_esme_receives", "Whether an ESME with numbers of its own takes messages.");
    metrics
        .source(family, move |s| a.each(|esme, name| s.push(&[("esme", name)], f64::from(u8::from(a.receives(esme))))));
    let a = applications.clone();
    let family = Family::gauge("isthmus_smpp_esme_open", "Messages for an ESME on their way and not answered.");
    metrics.source(family, move |s| a.each(|esme, name| s.push(&[("esme", name)], a.open(esme) as f64)));
}

fn handsets_to_metrics(metrics: &Metrics, gateway: &Arc<IpSmGw>) {
    let c = gateway.counts().clone();
    metrics.source(
        Family::counter("isthmus_sms_over_ip_deliveries_total", "Segments and texts for our users, by fate."),
        move |s| c.deliveries(|fate, n| s.push(&[("fate", fate)], n as f64)),
    );
    let c = gateway.counts().clone();
    metrics.source(
        Family::counter("isthmus_sms_over_ip_submissions_total", "Short messages of our users, by outcome."),
        move |s| c.submissions(|outcome, n| s.push(&[("outcome", outcome)], n as f64)),
    );
    let c = gateway.counts().clone();
    metrics.source(
        Family::counter("isthmus_sms_over_ip_relayed_total", "RP messages of handsets (TS 24.011), by kind."),
        move |s| c.relays(|kind, n| s.push(&[("kind", kind)], n as f64)),
    );
}

/// Unix milliseconds.
pub fn clock() -> Arc<dyn Fn() -> i64 + Send + Sync> {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64))
}
