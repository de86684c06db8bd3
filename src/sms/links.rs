//! The links to message centres, and where their messages for our users go.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use gw_smpp::pdu::{COctets, CommandStatus, ShortMessage};
use gw_smpp::{BindMode, ClientTls, LinkConfig, LinkPort, Links, Reply, Route};
use gw_sms::dispatch::Dispatcher;
use gw_sms::esme::{Keeper, Numbers, ToApplications};
use gw_sms::ip_sm_gw::{IpSmGw, Terminating};
use gw_sms::smpp::{Inbound, LinkSide, LinkTraits, SmppCentre};
use media_msrp::Fingerprint;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use sip_ims::service::Location;
use tokio::runtime::Handle;

use super::{Chronicle, SmsError, clock};
use crate::config::{Config, SmppBind, SmppLink};
use crate::store::sms::SmsQueue;

pub(super) fn open(
    config: &Config,
    dispatcher: &Arc<Dispatcher>,
    inbound: Arc<dyn Inbound>,
    runtime: &Handle,
) -> Result<(Arc<SmppCentre>, Links), SmsError> {
    let traits = config.smpp.link.iter().map(|link| LinkTraits {
        name: link.name.as_str().into(),
        window: usize::from(link.window),
        source: link.source.clone(),
        line_state_tlv: link.line_state_tlv,
    });
    let centre = Arc::new(SmppCentre::new(traits.collect(), clock()));
    let side = LinkSide { dispatcher: dispatcher.clone(), centre: centre.clone(), inbound };
    let port: Arc<dyn LinkPort> = Arc::new(side);
    let made = config.smpp.link.iter().map(|l| link(l, config)).collect::<Result<Vec<_>, _>>()?;
    let _entered = runtime.enter();
    let links = Links::start(made, &port);
    centre.tie(links.clone());
    Ok((centre, links))
}

fn link(link: &SmppLink, config: &Config) -> Result<(LinkConfig, Route), SmsError> {
    // Lengths are checked with the rest of the configuration.
    let system_id = COctets::new(link.system_id.as_bytes()).unwrap_or_default();
    let password = COctets::new(link.password.as_bytes()).unwrap_or_default();
    let mut made = LinkConfig::new(&link.name, link.address, system_id, password);
    made.mode = match link.bind {
        SmppBind::Transceiver => BindMode::Transceiver,
        SmppBind::Pair => BindMode::Pair,
        SmppBind::Transmitter => BindMode::Transmitter,
        SmppBind::Receiver => BindMode::Receiver,
    };
    made.system_type = COctets::new(link.system_type.as_bytes()).unwrap_or_default();
    made.address_range = COctets::new(link.address_range.as_bytes()).unwrap_or_default();
    (made.addr_ton, made.addr_npi) = (link.addr_ton, link.addr_npi);
    made.rate = link.rate;
    made.queue = usize::from(link.window);
    made.limits = link.timers.limits(made.limits);
    made.limits.window = usize::from(link.window);
    // Centres deliver receipts in crowds.
    made.limits.inbound = 1_000;
    made.connect = Duration::from_secs(link.timers.connect.into());
    let [first, longest] = link.timers.reconnect.map(|ms| Duration::from_millis(ms.into()));
    made.reconnect = (first, longest);
    if link.tls {
        made.tls = Some(tls(link, config)?);
    }
    Ok((made, Route { prefixes: link.prefixes.clone(), priority: link.priority }))
}

/// The centre is who it should be when an authority says so, or when its certificate is the one that is known.
fn tls(link: &SmppLink, config: &Config) -> Result<ClientTls, SmsError> {
    let failed = |error| SmsError::Tls(link.name.clone(), error);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let client = if link.tls_fingerprint.is_empty() {
        let named = [&link.tls_authorities, &config.tls.authorities];
        let authorities = match named.into_iter().find(|file| !file.as_os_str().is_empty()) {
            Some(file) => std::fs::read(file).map_err(|e| SmsError::Authorities(link.name.clone(), file.clone(), e))?,
            None => crate::app::system_authorities(),
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&authorities).filter_map(Result::ok));
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        let known = Fingerprint::sha_256(&link.tls_fingerprint);
        let known = known.ok_or_else(|| failed(rustls::Error::General("no fingerprint".into())))?;
        let verifier = media_msrp::believing(known, provider);
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    };
    let name = match link.tls_name.is_empty() {
        true => ServerName::IpAddress(link.address.ip().into()),
        // Checked with the rest of the configuration.
        false => ServerName::try_from(link.tls_name.clone())
            .unwrap_or_else(|_| ServerName::IpAddress(link.address.ip().into())),
    };
    Ok(ClientTls { config: Arc::new(client), name })
}

/// Where messages that centres deliver go.
pub(super) fn inbound(
    config: &Config,
    gateway: Option<&Arc<IpSmGw>>,
    location: &Arc<dyn Location>,
    queue: &Arc<SmsQueue>,
    chronicle: &Arc<Chronicle>,
    numbers: &Arc<Numbers>,
) -> Arc<dyn Inbound> {
    let keeper = Arc::new(Keeper {
        queue: queue.clone(),
        validity: i64::from(config.sms.validity) * 60_000,
        clock: clock(),
        random: Arc::new(rand::random),
    });
    let others: Arc<dyn Inbound> = match gateway {
        Some(gateway) => Arc::new(Terminating {
            gateway: gateway.clone(),
            location: location.clone(),
            keeper: keeper.clone(),
            keep: config.sms_over_ip.keep,
            clock: clock(),
            watch: chronicle.clone(),
            count: AtomicU64::new(0),
        }),
        None => Arc::new(Nobody),
    };
    if numbers.is_empty() { others } else { Arc::new(ToApplications { numbers: numbers.clone(), keeper, others }) }
}

/// Without SMS over IP, messages for our users have nowhere to go.
struct Nobody;

impl Inbound for Nobody {
    fn message(&self, link: &Arc<str>, _: ShortMessage, reply: Reply) {
        tracing::info!(%link, "a message for a user, and sms_over_ip is off");
        reply.status(CommandStatus::RX_R_APPN);
    }
}
