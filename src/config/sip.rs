//! `[sip]`, `[registrar]`, `[messaging]`, `[history]`, `[sms_over_ip]`: signalling.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use super::values::{Size, TrustedPeer, listen_list, loopback};

/// Doors, limits and policy of SIP itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sip {
    #[serde(deserialize_with = "listen_list")]
    pub udp: Vec<SocketAddr>,
    #[serde(deserialize_with = "listen_list")]
    pub tcp: Vec<SocketAddr>,
    #[serde(deserialize_with = "listen_list")]
    pub tls: Vec<SocketAddr>,
    pub auth: Auth,
    /// Digest algorithms that are offered, in this order (RFC 8760 §2.3), 1 or 2. MD5 alone by default: phones in the field
    /// (baresip 1.0) give up when any challenge is one that they do not know, even when another is MD5.
    pub digest: Vec<DigestAlgorithm>,
    /// What stands in our Via and Record-Route for a listener on 0.0.0.0 or [::]: at most one address of each family.
    /// Empty: the address that this machine's default route leaves from.
    pub advertised: Vec<IpAddr>,
    /// IMS core nodes whose asserted identities are believed (ISC). At most 256.
    pub trusted: Vec<TrustedPeer>,
    pub record_route: bool,
    /// Name server as `IP:port`; empty: the system's.
    pub resolver: super::values::Door,
    /// UDP threads, 0 to 256; 0: one per core.
    pub workers: usize,
    /// Largest datagram that is read, 1 KiB to 64 KiB.
    pub max_datagram: Size,
    /// Largest message on a stream, 4 KiB to 4 MiB (RFC 3261 §18.3).
    pub max_stream: Size,
    /// Transactions held at once, all kinds together; beyond it new requests get 503. At least 1,000.
    pub max_transactions: usize,
    /// Stream connections open at once. At least 16.
    pub max_connections: usize,
    /// Stream connections from one address. At least 1.
    pub max_connections_per_source: usize,
    pub flood: Flood,
}

impl Default for Sip {
    fn default() -> Sip {
        Sip {
            udp: vec![loopback(5060)],
            tcp: vec![loopback(5060)],
            tls: vec![loopback(5061)],
            auth: Auth::Digest,
            digest: vec![DigestAlgorithm::Md5],
            advertised: Vec::new(),
            trusted: Vec::new(),
            record_route: true,
            resolver: super::values::Door(None),
            workers: 0,
            max_datagram: Size::kib(64),
            max_stream: Size::kib(128),
            max_transactions: 1_000_000,
            max_connections: 100_000,
            max_connections_per_source: 20_000,
            flood: Flood::default(),
        }
    }
}

/// Who may register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// RFC 8760 digest.
    Digest,
    /// Everybody, without credentials: closed test nets only.
    None,
}

/// A digest algorithm for passwords, by its name on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum DigestAlgorithm {
    #[serde(rename = "MD5")]
    Md5,
    #[serde(rename = "SHA-256")]
    Sha256,
}

/// What one source address may cost before it is ignored for a while. Good traffic costs nothing.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flood {
    pub enabled: bool,
    /// Points a source may collect at once (a failed authentication or an unreadable message is one to ten).
    pub burst: u32,
    /// Points forgiven per second.
    pub rate: u32,
}

impl Default for Flood {
    fn default() -> Flood {
        Flood { enabled: true, burst: 400, rate: 40 }
    }
}

/// `[registrar]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registrar {
    pub store: Acknowledge,
    /// Seconds; shorter requests get 423 (RFC 3261 §10.2.8).
    pub min_expires: u32,
    /// Seconds; longer requests are shortened.
    pub max_expires: u32,
    /// Seconds granted when the phone names none.
    pub default_expires: u32,
    /// Contacts of one address of record, 1 to 256.
    pub max_contacts: usize,
    /// Seconds between the keep-alives of phones with an outbound flow (RFC 5626 §4.4), at most 86,400; over UDP never more
    /// than 29. 0: as they like.
    pub flow_timer: u32,
    /// An S-CSCF that tells of a registration without the phone's own REGISTER is asked by its reg event package what the phones can do.
    pub reg_event: bool,
}

impl Default for Registrar {
    fn default() -> Registrar {
        Registrar {
            store: Acknowledge::BeforeReply,
            min_expires: 60,
            max_expires: 86_400,
            default_expires: 3_600,
            max_contacts: 10,
            flow_timer: 120,
            reg_event: true,
        }
    }
}

/// When a binding is written, seen from the 200 that grants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acknowledge {
    /// In the store first, so that kill -9 loses none.
    BeforeReply,
    /// Answered first, written within a second.
    Behind,
}

/// `[messaging]`: messages kept for users who are away.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Messaging {
    /// Seconds that a kept message lives, 60 to 31,536,000.
    pub expiry: u64,
    /// Messages kept for one user, 1 to 100,000.
    pub per_user: usize,
    /// Chats (MSRP sessions) with users who are away are answered, and what is said in them is kept.
    pub chats: bool,
}

impl Default for Messaging {
    fn default() -> Messaging {
        Messaging { expiry: 7 * 86_400, per_user: 1_000, chats: true }
    }
}

/// `[history]`: what users of ours say and are told, kept for those who have `history_days`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Days for which anything is kept, whatever users have; 0 to 36,500; 0: nothing is.
    pub max_days: u32,
    /// Messages of one user, 100 to 1,000,000; the oldest go first.
    pub max_messages: u32,
    /// Requests a second of one user, 1 to 10,000; four times as many at once.
    pub rate: u32,
}

impl Default for History {
    fn default() -> History {
        History { max_days: 365, max_messages: 10_000, rate: 20 }
    }
}

/// `[sms_over_ip]`: short messages from and to handsets over IMS (TS 24.341).
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmsOverIp {
    pub enabled: bool,
    /// User part of the service's own identity, `sip:<user>@<domain>`.
    pub user: String,
    /// The number that handsets see as their service centre's: `+` and digits.
    pub centre: String,
    /// Of the time stamps that handsets get, in quarters of an hour east of UTC, -48 to 56.
    pub zone: i8,
    /// What a centre has for our users is kept here until their handsets are there; otherwise the centre keeps it.
    pub keep: bool,
}

impl Default for SmsOverIp {
    fn default() -> SmsOverIp {
        SmsOverIp {
            enabled: true,
            user: "ip-sm-gw".to_owned(),
            centre: "+10000000000".to_owned(),
            zone: 0,
            keep: false,
        }
    }
}
