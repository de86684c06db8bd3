//! The one place that wires: opens every part, gives each its ports, waits for signals, drains.

mod removed;
mod settings;
mod signals;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gw_sms::dispatch::Dispatcher;
use gw_sms::ip_sm_gw::{Inbox, IpSmGw};
use gw_sms::registry::Registry;
use gw_xmpp::Federation;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sip_call::Screen;
use sip_ims::authenticate::{Authenticator, AuthenticatorConfig};
use sip_ims::bearer::Bearer;
use sip_ims::criteria::Filters;
use sip_ims::gate::Gate;
use sip_ims::history::Archive;
use sip_ims::media::Media;
use sip_ims::ports::{Bus, BusError, StoreError};
use sip_ims::service::{Chronicle, Outlet as _, Service};
use sip_ims::subscriptions::Subscriptions;
use sip_ims::vectors::HomeVectors;
use sip_ims::{Directory, Home};
use sip_messaging::{Courier, CourierParts, History, Pager};
use sip_net::{Bound, Resolver, ResolverConfig, StartError, TlsError};
use sip_presence::Presence;
use sip_presence::xcap_diff::XcapDiff;
use sip_proto::digest::Algorithm;
use sip_proto::{Flow, Transport};
use sip_registrar::Registrar;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;

use crate::billing::Office;
use crate::bus::{LocalBus, NatsBus, NatsError};
use crate::chat::{self, Chat, Ends};
use crate::chronicle::Ledger;
use crate::cluster::Cluster;
use crate::config::{Auth, BusEngine, Config, ConfigError, DigestAlgorithm, Oauth2, StoreEngine};
use crate::http::authentication::Authentication;
use crate::http::digest::Digest;
use crate::http::session::Sessions;
use crate::http::{
    self, oauth2::Assertions, oauth2::Tokens, sms_api::SmsApi, tls::CertificateError, tls::Certificates,
};
use crate::msrp::{Msrp, MsrpError};
use crate::names::Located;
use crate::secrets::{self, Pem, SecretError};
use crate::sip::{Neighbours, Sip, SipParts};
use crate::sms::{self, Sms};
use crate::store::follow;
use crate::store::{OpenError, Store, StoreConfig};
use crate::telemetry::log::{self, LogError};
use crate::telemetry::metrics::Family;
use crate::telemetry::trace::{self, Trace};
use crate::telemetry::{Capture, Marks, Metrics, Tap, Timed, redact, sources};
use crate::xcap::{Xcap, changes};
use crate::{cdr, control, history, presence, provision, relay, xmpp};
use removed::Removed;
use settings::{carrier_config, ip_sm_gw_config, pager_config, registrar_config};
use signals::{Live, Signals, until_stopped};

/// Why the server did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("tls: {0}")]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Sms(#[from] sms::SmsError),
    #[error(transparent)]
    Msrp(#[from] MsrpError),
    #[error("reading the store: {0}")]
    Read(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] NatsError),
    /// Ours.
    #[error("the bus: {0}")]
    Hints(#[from] BusError),
    #[error(transparent)]
    Sip(#[from] StartError),
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    #[error("cannot listen on {key} {address}: {source}")]
    Listen { key: &'static str, address: SocketAddr, source: io::Error },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

/// What is open, told when everything is.
pub struct Running {
    pub domain: String,
    pub sip: Vec<(Transport, SocketAddr)>,
    /// The plain public listener.
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

/// Longest time that a drain waits for what is in progress.
pub const DRAIN: Duration = Duration::from_secs(30);

/// Runs a server until SIGTERM or SIGINT. `reload` reads the configuration again at SIGHUP; `ready` is called when every door
/// is open, after the ready line is out.
pub fn run(
    config: Config,
    reload: impl Fn() -> Result<Config, ConfigError>,
    ready: impl FnOnce(&Running),
) -> Result<(), AppError> {
    let folder = &config.data_dir;
    std::fs::create_dir_all(folder).map_err(failed(folder.display()))?;
    let logs = log::start(&config.log)?;
    redact::set_key(secrets::log_key(&config)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("isthmus")
        .enable_all()
        .build()
        .map_err(failed("runtime"))?;

    let store = Arc::new(Store::open(&store_config(&config))?);
    let directory = Arc::new(Directory::new());
    let mut users = follow::users(store.users(), directory.clone());
    runtime.block_on(users.catch_up(|_| {}))?;

    let node = config.node_name();
    let metrics = Arc::new(Metrics::new());
    let trace = Arc::new(Trace::new(&config.telemetry.trace));
    let trace_writer = match config.telemetry.trace.disk.0 {
        0 => None,
        bytes => {
            Some(trace::disk::Writer::start(trace.clone(), &trace_path(&config), bytes).map_err(failed("trace file"))?)
        }
    };
    let (records, cdr_writer) = if config.cdr.enabled {
        let started = cdr::Writer::start(cdr_pattern(&config)).map_err(failed("charging records"))?;
        (Some(started.0), Some(started.1))
    } else {
        (None, None)
    };
    let (capture, capture_sender) = Capture::start(&config.telemetry.hep).map_err(failed("telemetry.hep"))?.unzip();
    sources::process(&metrics, &node);
    if let Some(records) = &records {
        sources::records(&metrics, records.counts());
    }
    if let Some(capture) = &capture {
        sources::capture(&metrics, capture.counts());
    }
    sources::stores(&metrics, store.clone());
    let sms_records = records.clone();
    let (ledger, ledger_writer) = match records {
        Some(records) => {
            let (ledger, writer) = Ledger::start(records, node).map_err(failed("charging records"))?;
            (Some(Arc::new(ledger) as Arc<dyn Chronicle>), Some(writer))
        }
        None => (None, None),
    };
    let chronicle = Arc::new(Marks::new(trace.clone(), ledger));

    let pems = secrets::certificates(&config)?;
    let shared = config.store.engine == StoreEngine::Postgres;
    let registry = Arc::new(Registry::default());
    let mut registrations = follow::registrations(store.registrations(), registry.clone());
    runtime.block_on(registrations.catch_up(|_| {}))?;
    let bus = open_bus(&config, &runtime)?;
    let cluster = Arc::new(Cluster::new(bus, config.node_name(), shared, &cluster_secret(&store)?));
    // Before the first door opens, and so before anybody can see that we are there: a signal from then on is not lost, and a
    // stop is a drain.
    let signals = runtime.block_on(async { Signals::heard() }).map_err(failed("signals"))?;
    let authorities = authorities(&config)?;
    let msrp = Msrp::open(&config, &pems, &authorities, chronicle.clone(), &metrics, runtime.handle())?;
    let filters = registry.filters().clone();
    let family = Family::gauge("isthmus_filters", "Filter criteria in force.");
    metrics.source(family, move |s| s.push(&[], filters.len() as f64));
    let shared = control::shared(&config, &cluster_secret(&store)?)?;
    let depot = shared.depot.clone();
    let certificates = Certificates::new(&pems, config.http.client_certificates)?;
    let wake = Arc::new(OnceLock::<Arc<Dispatcher>>::new());
    let federation = xmpp::open(&config, cluster_secret(&store)?, &certificates, &wake, &metrics, runtime.handle())?;
    let told = msrp.as_ref().map(|m| m.told);
    let screen = relay::open(&config, told, chronicle.clone(), &metrics, runtime.handle());
    let around = Around {
        directory: directory.clone(),
        filters: registry.filters().clone(),
        chronicle,
        metrics: metrics.clone(),
        cluster: cluster.clone(),
        media: msrp.as_ref().map(|m| m.anchor.clone() as Arc<dyn Media>),
        screen,
        ends: msrp.as_ref().map(|m| Ends { switch: m.switch.clone(), doors: m.told, anchor: m.anchor.clone() }),
        shared,
        wake: wake.clone(),
        federation: federation.clone(),
    };
    let services = open_sip(&config, &pems, &store, around, runtime.handle())?;
    let Services { sip, home, registrar, presence, abroad, diff, digest, pager, history, courier, ip_sm_gw, names } =
        services;
    let local = sip.carriers.local_addrs().to_vec();
    if trace.is_on() || capture.is_some() {
        sip.driver.watch(Arc::new(Tap::new(trace.clone(), capture, local.clone())));
    }
    sources::carriers(&metrics, &sip.carriers);
    sources::traffic(&metrics, sip.driver.traffic());

    sources::services(&metrics, &registrar, &pager);
    let mut hints = cluster.follow(&store, &home, registrar.clone(), pager.clone(), runtime.handle())?;
    if let Some(presence) = &presence {
        let shared = Some(&*store).filter(|_| cluster.is_shared());
        hints.extend(presence::follow(presence, cluster.bus(), cluster.node(), shared, runtime.handle())?);
    }

    let sms = Sms::open(
        &config,
        sms::Around {
            store: store_config(&config),
            registry: registry.clone(),
            ip_sm_gw: ip_sm_gw.as_ref().map(|(gateway, _)| gateway.clone()),
            location: registrar.clone(),
            client: http_client(&config)?,
            documents: store.documents(),
            bus: cluster.is_shared().then(|| cluster.bus().clone()),
            certificates: certificates.clone(),
            records: sms_records,
            trace: trace.clone(),
            metrics: metrics.clone(),
        },
        runtime.handle(),
    )?;
    // Made once, so it is empty.
    let _ = wake.set(sms.dispatcher.clone());

    let (documents, bus) = (store.documents(), cluster.bus().clone());
    let parts = crate::xcap::Parts { documents, directory: directory.clone(), home, bus, presence: presence.clone() };
    let xcap = Arc::new(Xcap::new(&config, parts));
    let removed_documents = xcap.clone();
    if let Some(diff) = &diff {
        hints.push(changes::follow(diff, &**cluster.bus())?);
    }
    let authentication = match digest {
        Some(digest) => Some(authentication(&config, digest, directory.clone(), &store)?),
        None => None,
    };
    let portal_sessions = authentication.as_ref().map(|a| a.sessions.clone());
    let draining = Arc::new(AtomicBool::new(false));
    let (stop, stopped) = watch::channel(false);
    let sessions = msrp.as_ref().map(|m| http::public::msrp(m.switch.clone()));
    let public = http::public::sip(sip.carriers.clone())
        .merge(sessions.unwrap_or_default())
        .merge(http::smsgw::router(sms.push.clone()))
        .merge(http::session::open(portal_sessions.clone(), &metrics))
        .merge(http::xcap::open(&xcap, authentication.clone(), &config.xcap, &metrics))
        .merge(http::history::open(history.clone(), authentication.clone(), &config.history))
        .merge(http::content::open(&config, depot, authentication, &metrics, runtime.handle()))
        .merge(developers(&config, &store, registry.clone(), &sms, &metrics)?);
    let admin = http::admin::Admin {
        token: secrets::admin_token(&config)?,
        domain: config.domain.clone(),
        users: store.users(),
        directory: directory.clone(),
        registrations: store.registrations(),
        registry,
        xcap,
        mailboxes: Arc::new(presence::Summaries::new(store.documents(), cluster.bus().clone())),
        location: Some(registrar.clone()),
        metrics,
        trace: trace.clone(),
        draining: draining.clone(),
    };
    let (doors, running) =
        runtime.block_on(open_doors(&config, admin, public, certificates.clone(), stopped, local))?;
    let mut until_stop = stop.subscribe();
    runtime.spawn(courier.run(async move {
        // An error means that the sender is gone, and so is the server.
        let _ = until_stop.wait_for(|stop| *stop).await;
    }));
    if let Some(gateway) = ip_sm_gw {
        if let Some(federation) = &federation {
            federation.attach(gateway.0.clone());
        }
        let around = sms::handsets::Around {
            directory: directory.clone(),
            location: registrar.clone(),
            outlet: sip.driver.clone(),
            next_hops: names,
            archive: history.clone(),
            cluster: &cluster,
            secret: cluster_secret(&store)?,
            stop: stop.subscribe(),
        };
        hints.extend(sms::handsets::start(&config, &sms, gateway, around, runtime.handle())?);
    }
    runtime.spawn(keep_time(registrar.clone(), presence.clone(), abroad, diff));
    let removed = Removed {
        registrar: registrar.clone(),
        xcap: removed_documents,
        sessions: portal_sessions.clone(),
        history,
        domain: config.domain.clone(),
        runtime: runtime.handle().clone(),
    };
    runtime.spawn(Removed::catch_up(removed.xcap.clone()));
    portal_sessions.map(|sessions| runtime.spawn(sessions.keep()));
    runtime.spawn(users.run(move |change| removed.see(&change)));
    if config.billing.automatic {
        runtime.spawn(Office::of(&config).keep(sms.queue.clone(), sms::clock()));
    }
    let dispatcher = sms.dispatcher.clone();
    runtime.spawn(registrations.run(move |msn| dispatcher.line_changed(msn)));

    println!("{}", ready_line(&running));
    ready(&running);

    let live = Live { logs, trace: &trace, sip: &sip, certificates, msrp: msrp.as_ref() };
    runtime.block_on(until_stopped(signals, config, reload, &live));

    // The drain: nothing new, finish what is in progress, then close in the order in which things depend on each other.
    tracing::info!("draining");
    draining.store(true, Relaxed);
    runtime.block_on(sip.drain(DRAIN));
    sip.carriers.shutdown();
    if let Some(msrp) = &msrp {
        msrp.shutdown();
    }
    if let Some(federation) = &federation {
        federation.stop();
    }
    stop.send_replace(true);
    runtime.block_on(async {
        let all = async {
            for door in doors {
                door.ended().await;
            }
        };
        // Idle keep-alive connections may outlast their welcome.
        let _ = tokio::time::timeout(Duration::from_secs(2), all).await;
    });
    // Requests have ended: what was accepted goes out or stays in the store.
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(8), sms.drain()).await }).ok();
    sms.queue.close();
    drop(hints);
    if let Some(presence) = presence {
        presence.close();
    }
    drop(live);
    drop(sip);
    store.close();
    drop(trace_writer);
    runtime.shutdown_timeout(Duration::from_secs(2));
    // These end when they have written all that was queued until now.
    if let Some(writer) = ledger_writer {
        writer.finish();
    }
    if let Some(writer) = cdr_writer {
        writer.finish();
    }
    if let Some(sender) = capture_sender {
        sender.finish();
    }
    tracing::info!("stopped");
    Ok(())
}

/// How users prove themselves over HTTP.
fn authentication(
    config: &Config,
    digest: Arc<Digest>,
    directory: Arc<Directory>,
    store: &Store,
) -> Result<Arc<Authentication>, AppError> {
    let secret = cluster_secret(store)?;
    let sessions = Sessions::new(digest.clone(), directory, store.documents(), &secret, &config.portal);
    Ok(Arc::new(Authentication { digest, sessions: Arc::new(sessions) }))
}

/// The doors for developers: access tokens, short messages, and the description of it all.
fn developers(
    config: &Config,
    store: &Store,
    registry: Arc<Registry>,
    sms: &Sms,
    metrics: &Metrics,
) -> Result<axum::Router, AppError> {
    let Oauth2 { token_lifetime, plain } = config.oauth2;
    let assertions = Assertions::new(http_client(config)?, &config.http.public_url);
    let tokens = Tokens::new(registry, &cluster_secret(store)?, assertions, (token_lifetime, plain));
    let tokens = Arc::new(tokens);
    let counted = tokens.clone();
    let family = Family::counter("isthmus_oauth2_tokens_total", "Requests for access tokens, by outcome.");
    metrics.source(family, move |s| counted.each(|outcome, n| s.push(&[("outcome", outcome)], n as f64)));
    let api =
        SmsApi { tokens: tokens.clone(), messages: sms.messages.clone(), subscriptions: sms.subscriptions.clone() };
    Ok(http::oauth2::router(tokens)
        .merge(http::sms_api::router(Arc::new(api)))
        .merge(http::openapi::router(&config.http.public_url)))
}

/// `ready domain=… sip=… http=…`: operators' scripts wait for it.
fn ready_line(running: &Running) -> String {
    let sip: Vec<String> = running.sip.iter().map(|(t, a)| format!("{a}/{t}")).collect();
    let door = |a: Option<SocketAddr>| a.map_or_else(|| "off".to_owned(), |a| a.to_string());
    format!(
        "ready domain={} sip={} http={} https={} admin={}",
        running.domain,
        sip.join(","),
        door(running.http),
        door(running.https),
        door(running.admin)
    )
}

async fn open_doors(
    config: &Config,
    admin: http::admin::Admin,
    public: axum::Router,
    certificates: Certificates,
    stopped: watch::Receiver<bool>,
    sip: Vec<(Transport, SocketAddr)>,
) -> Result<(Vec<http::Door>, Running), AppError> {
    let refused = |key, address| move |source| AppError::Listen { key, address, source };
    let mut doors = Vec::new();
    let mut running = Running { domain: config.domain.clone(), sip, http: None, https: None, admin: None };
    if let Some(at) = config.http.plain.0 {
        let door = http::Door::plain(at, public.clone(), stopped.clone()).await.map_err(refused("http.plain", at))?;
        running.http = Some(door.local);
        doors.push(door);
    }
    if let Some(at) = config.http.tls.0 {
        let door = http::Door::tls(at, certificates, public, stopped.clone()).await.map_err(refused("http.tls", at))?;
        running.https = Some(door.local);
        doors.push(door);
    }
    if let Some(at) = config.admin.listen.0 {
        let router = http::admin::router(Arc::new(admin));
        let door = http::Door::plain(at, router, stopped).await.map_err(refused("admin.listen", at))?;
        running.admin = Some(door.local);
        doors.push(door);
    }
    Ok((doors, running))
}

/// What the services share with the rest of the process.
struct Around {
    directory: Arc<Directory>,
    filters: Arc<Filters>,
    chronicle: Arc<dyn Chronicle>,
    metrics: Arc<Metrics>,
    cluster: Arc<Cluster>,
    media: Option<Arc<dyn Media>>,
    screen: Option<Arc<Screen>>,
    ends: Option<Ends>,
    shared: control::Shared,
    /// Whom a registration wakes, for the short messages that wait.
    wake: Arc<OnceLock<Arc<Dispatcher>>>,
    federation: Option<Federation>,
}

/// What answers SIP, tied together.
struct Services {
    sip: Sip,
    home: Arc<Home>,
    registrar: Arc<Registrar>,
    presence: Option<Arc<Presence>>,
    /// What we watch at other servers.
    abroad: Arc<Subscriptions>,
    diff: Option<Arc<XcapDiff>>,
    digest: Option<Arc<Digest>>,
    pager: Arc<Pager>,
    history: Arc<History>,
    courier: Courier,
    ip_sm_gw: Option<(Arc<IpSmGw>, Inbox)>,
    names: Arc<Located>,
}

/// Builds the services, the stack around them, and opens every SIP door. Bindings are in memory before the first message.
fn open_sip(
    config: &Config,
    pems: &[Pem],
    store: &Store,
    around: Around,
    runtime: &Handle,
) -> Result<Services, AppError> {
    let Around { directory, filters, chronicle, metrics, cluster, media, screen, ends, shared, wake, federation } =
        around;
    let sip = &config.sip;
    // Bound before anything is written into a Via, so that port 0 is known by its real number.
    let bound = Bound::new(&carrier_config(config, pems)?, runtime.clone())?;
    let home = Arc::new(crate::sip::home(&config.domain, sip, &bound));
    let secret = cluster_secret(store)?;
    let authenticator = match sip.auth {
        Auth::None => None,
        Auth::Digest => {
            let seed = u64::from_ne_bytes(secrets::random());
            let offered = sip.digest.iter().map(|a| match a {
                DigestAlgorithm::Md5 => Algorithm::Md5,
                DigestAlgorithm::Sha256 => Algorithm::Sha256,
            });
            let config =
                AuthenticatorConfig { algorithms: offered.collect(), ..AuthenticatorConfig::new(secret, seed) };
            Some(Arc::new(Authenticator::new(config, home.clone(), directory.clone())))
        }
    };
    let digest = authenticator.clone().map(|authenticator| Arc::new(Digest::new(authenticator)));
    let neighbours = Arc::new(Neighbours::new(&sip.trusted));
    let messages = cluster.messages(Arc::new(Timed::new(metrics.clone(), store.messages())));
    let (pager, inbox) = Pager::new(pager_config(config), messages, Arc::new(unix_now));
    let present = Arc::new(OnceLock::<Arc<Presence>>::new());
    let names = Arc::new(Located::default());
    let registrar = Arc::new(Registrar::new(
        registrar_config(config, secret),
        sip_registrar::Parts {
            home: home.clone(),
            directory: directory.clone(),
            store: Arc::new(Timed::new(metrics.clone(), store.bindings())),
            authenticator: authenticator.clone(),
            on_registered: {
                let (pager, wake) = (pager.clone(), wake.clone());
                Arc::new(move |aor, user, _| {
                    pager.on_registered(aor);
                    if let Some((dispatcher, msn)) = wake.get().zip(user.and_then(|user| user.msisdn)) {
                        dispatcher.registered(msn);
                    }
                })
            },
            on_changed: {
                let present = present.clone();
                Arc::new(move |aor, ended| {
                    if let Some(presence) = present.get() {
                        presence.registration_changed(aor, ended);
                    }
                })
            },
            penalise: {
                let neighbours = neighbours.clone();
                Arc::new(move |flow, points| neighbours.penalise(flow, points))
            },
            filters: filters.clone(),
        },
    ));
    provision::wait(|done| registrar.load(unix_now(), done))?;
    let abroad = presence::elsewhere(home.clone(), names.clone(), &metrics);
    let presence = presence::open(config, store, home.clone(), registrar.clone(), &metrics, secret, abroad.clone())?;
    if let Some(presence) = &presence {
        // Made once, so it is empty.
        let _ = present.set(presence.clone());
    }
    let closed: Arc<dyn Fn(&Flow) + Send + Sync> = {
        let registrar = registrar.clone();
        Arc::new(move |flow| registrar.flow_closed(Instant::now(), unix_now(), flow))
    };
    let (gateway, gateway_inbox) = config
        .sms_over_ip
        .enabled
        .then(|| {
            let bearer = federation.map(|federation| Arc::new(federation) as Arc<dyn Bearer>);
            IpSmGw::new(ip_sm_gw_config(config), directory.clone(), home.clone(), bearer)
        })
        .unzip();
    let mut services: Vec<Arc<dyn Service>> = vec![registrar.clone(), pager.clone()];
    // In front of the pager: a short message is not kept as a text for a number that nobody has here.
    services.splice(1..1, gateway.clone().map(|g| g as Arc<dyn Service>));
    services.splice(1..1, presence.clone().map(|p| p as Arc<dyn Service>));
    let diff = changes::open(config, store, home.clone(), directory.clone(), &metrics);
    services.splice(1..1, diff.clone().map(|d| d as Arc<dyn Service>));
    let around = (home.clone(), directory.clone(), pager.clone());
    let control = control::open(config, around, &shared.scanner, &metrics, runtime);
    let around = (home.clone(), directory.clone());
    let history = history::open(config, store, around, &metrics, runtime);
    pager.remember_in(history.clone());
    let chat = ends.map(|ends| {
        ends.anchor.remember_in(history.clone());
        let parts = chat::Parts {
            home: home.clone(),
            location: registrar.clone(),
            next_hops: names.clone(),
            documents: store.documents(),
            history: history.clone(),
            nodes: cluster.nodes(),
            chronicle: chronicle.clone(),
            metrics: &metrics,
            digest: digest.clone(),
            runtime: runtime.clone(),
            control: &control,
        };
        Chat::open(config, ends, parts)
    });
    let chat = chat.transpose()?;
    services.splice(0..0, chat.iter().flat_map(Chat::services));
    services.push(abroad.clone());
    services.push(presence::capabilities(config, home.clone(), registrar.clone(), presence.clone(), &metrics));
    let joints = Arc::new(sip_call::Joints::default());
    sources::joints(&metrics, joints.clone());
    let parts = SipParts {
        home: home.clone(),
        directory: directory.clone(),
        location: registrar.clone(),
        nodes: cluster.nodes(),
        authenticator: authenticator.clone(),
        services,
        filters,
        joints,
        chronicle: chronicle.clone(),
        media,
        screen,
        gate: control.concerns_messages().then(|| control.clone() as Arc<dyn Gate>),
        archive: Some(history.clone() as Arc<dyn Archive>),
        names: names.clone(),
        secret: secrets::random(),
        cluster_secret: secret,
    };
    let driver = Sip::driver(sip, parts, neighbours.clone());
    if let Some(authenticator) = &authenticator {
        let vectors = HomeVectors::new(directory, store.documents(), Box::new(secrets::random));
        authenticator.attach(Arc::new(vectors), driver.clone());
    }
    control.attach(control::again(&driver));
    registrar.attach(driver.clone());
    if let Some(chat) = &chat {
        chat.attach(config, &driver, &pager, shared.depot.zip(Some(control.clone())));
    }
    registrar.join(sip_registrar::Ims { subscriptions: abroad.clone(), next_hops: names.clone(), unix: unix_now });
    if let Some(presence) = &presence {
        presence.attach(driver.clone());
        // Weakly: the driver's services hold the store.
        let outlet = Arc::downgrade(&driver);
        store.answer_presence_within(move |run| match outlet.upgrade() {
            Some(outlet) => outlet.gather(run),
            None => run(),
        });
    }
    if let Some(diff) = &diff {
        diff.attach(driver.clone());
    }
    let stack = Sip::open(driver.clone(), bound, closed, &neighbours, metrics)?;
    let resolver = ResolverConfig { name_servers: sip.resolver.0.into_iter().collect(), ..ResolverConfig::default() };
    names.tie(&driver, Resolver::new(&resolver, stack.carriers.names().clone()), runtime.clone());
    // Now that names lead somewhere: lists that were restored have begun to ask already.
    abroad.attach(driver.clone());
    let courier = Courier::new(
        inbox,
        CourierParts {
            location: registrar.clone(),
            outlet: driver,
            next_hops: names.clone(),
            chronicle,
            home: home.clone(),
            unix: Arc::new(unix_now),
        },
    );
    let ip_sm_gw = gateway.zip(gateway_inbox);
    Ok(Services {
        sip: stack,
        home,
        registrar,
        presence,
        abroad,
        diff,
        digest,
        pager,
        history,
        courier,
        ip_sm_gw,
        names,
    })
}

/// Bindings and subscriptions run out by the second.
async fn keep_time(
    registrar: Arc<Registrar>,
    presence: Option<Arc<Presence>>,
    abroad: Arc<Subscriptions>,
    diff: Option<Arc<XcapDiff>>,
) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        second.tick().await;
        registrar.tick(Instant::now(), unix_now());
        if let Some(presence) = &presence {
            presence.tick(Instant::now(), unix_now());
        }
        abroad.tick(Instant::now());
        if let Some(diff) = &diff {
            diff.tick(Instant::now());
        }
    }
}

/// Wall-clock seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// For our own requests over HTTP.
fn http_client(config: &Config) -> Result<http::client::Client, AppError> {
    Ok(http::client::Client::new(tls_client(config)?))
}

/// Believes the same authorities as the SIP carriers.
pub(crate) fn tls_client(config: &Config) -> Result<Arc<rustls::ClientConfig>, AppError> {
    let mut roots = rustls::RootCertStore::empty();
    let authorities = authorities(config)?;
    let certificates = CertificateDer::pem_slice_iter(&authorities).filter_map(Result::ok);
    roots.add_parsable_certificates(certificates);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(CertificateError::Rustls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(client))
}

/// PEM of the authorities that servers we connect to must be certified by. A system without any connects to nobody over TLS.
fn authorities(config: &Config) -> Result<Vec<u8>, AppError> {
    let file = &config.tls.authorities;
    if file.as_os_str().is_empty() {
        return Ok(system_authorities());
    }
    std::fs::read(file).map_err(failed(file.display()))
}

/// In PEM; empty where the system has none.
pub(crate) fn system_authorities() -> Vec<u8> {
    SYSTEM_AUTHORITIES.iter().find_map(|f| std::fs::read(f).ok()).unwrap_or_default()
}

/// Where distributions keep the authorities that they trust.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

fn open_bus(config: &Config, runtime: &Runtime) -> Result<Arc<dyn Bus>, AppError> {
    Ok(match config.bus.engine {
        BusEngine::Local => Arc::new(LocalBus::new()),
        BusEngine::Nats => Arc::new(runtime.block_on(NatsBus::connect(&config.bus.url))?),
    })
}

/// Where and how the stores are, as configured.
pub fn store_config(config: &Config) -> StoreConfig {
    let mut store = match config.store.engine {
        StoreEngine::Sqlite => StoreConfig::sqlite(&config.data_dir),
        StoreEngine::Postgres => StoreConfig::postgres(&config.store.url),
    };
    store.messages_per_user = config.messaging.per_user as u32;
    store.node = config.node_name();
    store
}

/// The file of the trace ring.
pub fn trace_path(config: &Config) -> PathBuf {
    config.data_dir.join("trace.ring")
}

/// The charging records' files, with `{date}` in place.
pub fn cdr_pattern(config: &Config) -> PathBuf {
    config.data_dir.join(&config.cdr.file)
}

/// The secret that the nodes of a cluster share, in the store; the first node makes it. Blocks.
fn cluster_secret(store: &Store) -> Result<[u8; 32], AppError> {
    use sip_ims::ports::Expect;
    let documents = store.documents();
    loop {
        if let Some(found) = provision::wait(|done| documents.get("cluster", "secret", done))? {
            return found.body.try_into().map_err(|_| AppError::Read(StoreError::Damaged));
        }
        let made = secrets::random::<32>().to_vec();
        match provision::wait(|done| documents.put("cluster", "secret", Expect::Absent, made, done)) {
            // Whoever was first: read what is there.
            Ok(_) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn failed(what: impl ToString) -> impl FnOnce(io::Error) -> AppError {
    let what = what.to_string();
    move |source| AppError::Io { what, source }
}
