//! What parts are opened with, as configured.

use std::net::IpAddr;
use std::path::Path;

use gw_sms::ip_sm_gw;
use sip_net::{CarrierConfig, Certificate, FloodConfig, Prefix, StreamLimits, TlsConfig};
use sip_registrar::{Acknowledge, RegistrarConfig};

use super::{AppError, authorities, failed};
use crate::config::{self, Auth, Config, TrustedPeer};
use crate::secrets::Pem;

pub(super) fn ip_sm_gw_config(config: &Config) -> ip_sm_gw::Config {
    let sms = &config.sms_over_ip;
    let numbers = crate::sms::numbers(config);
    ip_sm_gw::Config { user: sms.user.clone(), centre: sms.centre.clone(), zone: sms.zone, numbers }
}

pub(super) fn registrar_config(config: &Config, key: [u8; 32]) -> RegistrarConfig {
    let registrar = &config.registrar;
    RegistrarConfig {
        store: match registrar.store {
            config::Acknowledge::BeforeReply => Acknowledge::BeforeReply,
            config::Acknowledge::Behind => Acknowledge::Behind,
        },
        min_expires: registrar.min_expires,
        max_expires: registrar.max_expires,
        default_expires: registrar.default_expires,
        max_contacts: registrar.max_contacts,
        flow_timer: registrar.flow_timer,
        reg_event: registrar.reg_event,
        node: config.node_name(),
        key,
        ..RegistrarConfig::default()
    }
}

pub(super) fn pager_config(config: &Config) -> sip_messaging::Config {
    sip_messaging::Config {
        expiry: config.messaging.expiry.min(u64::from(u32::MAX)) as u32,
        strangers: config.sip.auth == Auth::None,
        ..sip_messaging::Config::default()
    }
}

pub(super) fn carrier_config(config: &Config, pems: &[Pem]) -> Result<CarrierConfig, AppError> {
    let sip = &config.sip;
    let prefix = |t: &TrustedPeer| match t {
        TrustedPeer::Address(p) => Some(Prefix { address: p.network(), bits: p.prefix() }),
        TrustedPeer::Certificate(_) => None,
    };
    let mut exempt: Vec<Prefix> = sip.trusted.iter().filter_map(prefix).collect();
    if !sip.flood.enabled {
        let all = [IpAddr::from([0u8; 4]), IpAddr::from([0u8; 16])];
        exempt.extend(all.map(|address| Prefix { address, bits: 0 }));
    }
    Ok(CarrierConfig {
        udp: sip.udp.clone(),
        tcp: sip.tcp.clone(),
        tls: sip.tls.clone(),
        certificates: Some(tls_config(config, pems)?),
        udp_threads: sip.workers,
        limits: StreamLimits {
            message: sip.max_stream.0 as usize,
            connections: sip.max_connections,
            connections_per_source: sip.max_connections_per_source,
            ..StreamLimits::default()
        },
        flood: FloodConfig { burst: sip.flood.burst, per_second: sip.flood.rate, exempt },
        ..CarrierConfig::default()
    })
}

pub(super) fn tls_config(config: &Config, pems: &[Pem]) -> Result<TlsConfig, AppError> {
    let tls = &config.tls;
    let named = |file: &Path| std::fs::read(file).map_err(failed(file.display()));
    Ok(TlsConfig {
        certificates: pems.iter().map(|p| Certificate { chain: p.chain.clone(), key: p.key.clone() }).collect(),
        client_authorities: match tls.client_authorities.as_os_str().is_empty() {
            true => Vec::new(),
            false => named(&tls.client_authorities)?,
        },
        server_authorities: authorities(config)?,
    })
}
