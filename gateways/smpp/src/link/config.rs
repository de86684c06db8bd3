//! What a link is told about its centre.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;

use crate::pdu::{Bind, BindKind, COctets};
use crate::session::Limits;

/// How the link binds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BindMode {
    /// One connection for both directions.
    Transceiver,
    /// Two connections: a transmitter and a receiver. The link is up while the transmitter is.
    Pair,
    /// Nothing is received.
    Transmitter,
    /// Nothing can be submitted.
    Receiver,
}

impl BindMode {
    pub(super) fn kinds(self) -> &'static [BindKind] {
        match self {
            BindMode::Transceiver => &[BindKind::Transceiver],
            BindMode::Pair => &[BindKind::Transmitter, BindKind::Receiver],
            BindMode::Transmitter => &[BindKind::Transmitter],
            BindMode::Receiver => &[BindKind::Receiver],
        }
    }
}

/// TLS towards the centre.
#[derive(Clone)]
pub struct ClientTls {
    pub config: Arc<rustls::ClientConfig>,
    /// What its certificate must prove.
    pub name: ServerName<'static>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Ours, for logs and routing.
    pub name: Arc<str>,
    pub address: SocketAddr,
    pub tls: Option<ClientTls>,
    pub mode: BindMode,
    pub system_id: COctets<16>,
    pub password: COctets<9>,
    pub system_type: COctets<13>,
    /// 0x34 unless the centre wants another.
    pub interface_version: u8,
    pub addr_ton: u8,
    pub addr_npi: u8,
    pub address_range: COctets<41>,
    /// submit_sm and its like per second; 0: no limit but the window.
    pub rate: u32,
    /// Submissions that wait in the link, besides those in the window; 1 to 100,000.
    pub queue: usize,
    /// The window is in here.
    pub limits: Limits,
    /// For TCP, and again for TLS.
    pub connect: Duration,
    /// Pauses between attempts to connect: the first, and the longest.
    pub reconnect: (Duration, Duration),
}

impl LinkConfig {
    pub fn new(name: &str, address: SocketAddr, system_id: COctets<16>, password: COctets<9>) -> LinkConfig {
        LinkConfig {
            name: name.into(),
            address,
            tls: None,
            mode: BindMode::Transceiver,
            system_id,
            password,
            system_type: COctets::EMPTY,
            interface_version: 0x34,
            addr_ton: 0,
            addr_npi: 0,
            address_range: COctets::EMPTY,
            rate: 0,
            queue: 100,
            limits: Limits::default(),
            connect: Duration::from_secs(10),
            reconnect: (Duration::from_millis(500), Duration::from_secs(30)),
        }
    }

    pub(super) fn bind(&self, kind: BindKind) -> Bind {
        Bind {
            kind,
            system_id: self.system_id,
            password: self.password,
            system_type: self.system_type,
            interface_version: self.interface_version,
            addr_ton: self.addr_ton,
            addr_npi: self.addr_npi,
            address_range: self.address_range,
        }
    }
}
