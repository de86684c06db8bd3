//! Federation with XMPP domains, opened as configured, and what operators see of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use gw_sms::dispatch::Dispatcher;
use gw_xmpp::{Counts, Federation, PORT, Parts, Route, SERVICE};
use sip_net::{HostNames, Resolver, ResolverConfig};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::app::AppError;
use crate::config::{Config, Xmpp};
use crate::http::tls::Certificates;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Family, Samples};

/// Where `[xmpp]` is configured. `secret`: what the nodes of a cluster share. `wake` is there when the first stream is ready.
pub fn open(
    config: &Config,
    secret: [u8; 32],
    certificates: &Certificates,
    wake: &Arc<OnceLock<Arc<Dispatcher>>>,
    metrics: &Metrics,
    runtime: &Handle,
) -> Result<Option<Federation>, AppError> {
    let Some(xmpp) = &config.xmpp else { return Ok(None) };
    let resolver =
        ResolverConfig { name_servers: config.sip.resolver.0.into_iter().collect(), ..ResolverConfig::default() };
    let resolver = Arc::new(Resolver::new(&resolver, Arc::new(HostNames::default())));
    let wake = wake.clone();
    let parts = Parts {
        servers: Arc::new(move |domain| {
            let resolver = resolver.clone();
            Box::pin(async move { resolver.service(SERVICE, &domain, PORT).await.unwrap_or_default() })
        }),
        client: crate::app::tls_client(config)?,
        unverified: unverified()?,
        server: certificates.without_protocol(),
        returned: Arc::new(move |msn| {
            if let Some(dispatcher) = wake.get() {
                dispatcher.line_changed(msn);
            }
        }),
        runtime: runtime.clone(),
    };
    let federation = Federation::new(settings(config, xmpp, secret), parts);
    // Checked with the rest of the configuration.
    if let Some(at) = xmpp.s2s.0 {
        federation.listen(runtime.block_on(bind(at))?);
    }
    to_metrics(metrics, federation.counts());
    Ok(Some(federation))
}

fn unverified() -> Result<Arc<rustls::ClientConfig>, AppError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(sip_net::TlsError::Rustls)?
        .dangerous()
        .with_custom_certificate_verifier(media_msrp::any_server(provider))
        .with_no_client_auth();
    Ok(Arc::new(client))
}

async fn bind(address: SocketAddr) -> Result<TcpListener, AppError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| AppError::Listen { key: "xmpp.s2s", address, source })
}

fn settings(config: &Config, xmpp: &Xmpp, secret: [u8; 32]) -> gw_xmpp::Config {
    let routes = xmpp.route.iter().map(|(domain, route)| {
        let route = Route { address: route.address, verify: route.verify };
        (domain.to_ascii_lowercase(), route)
    });
    gw_xmpp::Config { domain: config.domain.to_ascii_lowercase(), secret, routes: routes.collect() }
}

fn to_metrics(metrics: &Metrics, counts: &Arc<Counts>) {
    let family = Family::counter("isthmus_xmpp_stanzas_total", "Stanzas between us and XMPP domains, by direction.");
    let c = counts.clone();
    metrics.source(family, move |s| show(s, "direction", [("in", &c.received), ("out", &c.sent)]));
    let family = Family::gauge("isthmus_xmpp_streams", "XMPP streams that carry stanzas, by direction.");
    let c = counts.clone();
    metrics.source(family, move |s| show(s, "direction", [("in", &c.incoming), ("out", &c.outgoing)]));
    let family = Family::counter("isthmus_xmpp_failures_total", "XMPP streams that never carried any, by direction.");
    let c = counts.clone();
    metrics.source(family, move |s| show(s, "direction", [("in", &c.failed_incoming), ("out", &c.failed_outgoing)]));
    let family = Family::counter("isthmus_xmpp_texts_total", "Texts to XMPP users, by what became of them.");
    let c = counts.clone();
    metrics.source(family, move |s| {
        show(s, "fate", [("taken", &c.taken), ("put_off", &c.put_off), ("refused", &c.refused)]);
    });
}

fn show<const N: usize>(s: &mut Samples<'_>, label: &str, values: [(&str, &AtomicU64); N]) {
    values.into_iter().for_each(|(value, n)| s.push(&[(label, value)], n.load(Relaxed) as f64));
}
