//! Every door that is not SIP's: HTTP, administration, MSRP, media, XMPP, SMPP, content.
//!
//! Sections whose protocol is not built yet are read and checked all the same: their names are promised to operators.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use gw_smpp::pdu::COctets;
use gw_sms::esme::Numbers;
use gw_sms::registry::Block;
use serde::Deserialize;
use sip_ims::Msisdn;

use super::values::{Door, Ports, Size};

/// `[tls]`: the certificate of every encrypted door. Both or neither; neither means self-signed in `data_dir/tls`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Further certificates, each shown to clients that ask for a name in it (SNI). At most 64.
    pub additional: Vec<CertificateFiles>,
    /// PEM file of authorities that servers we connect to must be certified by; empty: the system's.
    pub authorities: PathBuf,
    /// PEM file of authorities whose client certificates prove a trusted peer; empty: none is asked for.
    pub client_authorities: PathBuf,
}

/// A certificate chain, leaf first, and its private key: PEM files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// `[msrp]`: messaging sessions.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Msrp {
    /// One that is taken stays shut with a warning as long as it is the usual one.
    pub tcp: Door,
    pub tls: Door,
    /// Sessions between users go through this server.
    pub anchor: bool,
    /// Written into session descriptions; not said: the doors' own, or `media.address` where they are open on every address.
    pub address: Option<IpAddr>,
    /// Largest message or file, in bytes, up to 2^53.
    pub max_message: Size,
    /// Bytes of all messages that wait for a scanner's verdict; they lie in `data_dir/spool`. Up to 2^53.
    pub max_spool: Size,
    /// 1 to 10,000,000.
    pub max_sessions: usize,
}

impl Msrp {
    /// RFC 4975 §15.4, and the port above it.
    pub const PLAIN: Door = Door::ipv4_loopback(2855);
    pub const SECURE: Door = Door::ipv4_loopback(2856);
}

impl Default for Msrp {
    fn default() -> Msrp {
        Msrp {
            tcp: Msrp::PLAIN,
            tls: Msrp::SECURE,
            anchor: true,
            address: None,
            max_message: Size::mib(4096),
            max_spool: Size::mib(4096),
            max_sessions: 100_000,
        }
    }
}

/// `[conference]`: chat rooms (RFC 7701). They need a door of `[msrp]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conference {
    pub enabled: bool,
    /// User part of the address that opens a room, `sip:<factory>@<domain>`.
    pub factory: String,
    /// 1 to 1,000,000.
    pub max_rooms: usize,
    /// Sessions in one room, 2 to 10,000.
    pub max_members: usize,
    /// Longest message in a room, in bytes, up to 16 MiB.
    pub max_message: Size,
    /// Seconds that an empty room is kept, 60 to 315,360,000.
    pub keep: u64,
    pub strangers: Strangers,
}

/// Users of other domains who come into rooms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strangers {
    Nobody,
    /// Whom somebody in the room has asked in.
    Invited,
    /// Into every room that is open to our users.
    Anybody,
}

impl Default for Conference {
    fn default() -> Conference {
        Conference {
            enabled: true,
            factory: "conference-factory".to_owned(),
            max_rooms: 10_000,
            max_members: 100,
            max_message: Size::kib(256),
            keep: 30 * 86_400,
            strangers: Strangers::Invited,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// Advertised in SDP.
    pub address: IpAddr,
    /// RTP.
    pub ports: Ports,
    /// One UDP socket for every browser leg.
    pub webrtc: Door,
    /// Address of the ng control port; empty: media runs inside the server.
    pub ng: Door,
    /// Calls whose media are relayed at a time, 0 to 1,000,000; 0: none are.
    pub max_relayed: usize,
    /// Seconds after which a relayed call of which nothing is heard is over, 10 to 86,400.
    pub silence: u64,
}

impl Default for Media {
    fn default() -> Media {
        Media {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: Ports(30_000..=39_999),
            webrtc: Door::ipv4_loopback(8444),
            ng: Door(None),
            max_relayed: 1000,
            // The session interval that RFC 4028 §4 recommends: within it a call on hold shows itself too.
            silence: 1800,
        }
    }
}

/// `[http]`: portal, APIs, WebSockets.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    pub plain: Door,
    pub tls: Door,
    /// Used in links sent to users; empty: made from the addresses above.
    pub public_url: String,
    /// Clients of the TLS door are asked for a certificate, by which push clients may prove themselves. Browsers ask their users.
    pub client_certificates: bool,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            plain: Door::ipv4_loopback(8080),
            tls: Door::ipv4_loopback(8443),
            public_url: String::new(),
            client_certificates: false,
        }
    }
}

/// `[portal]`: the sessions of users' browsers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Portal {
    /// Seconds for which a session lasts without a request, 1 to 31,536,000.
    pub session_idle: u64,
    /// Seconds for which it lasts at most, 1 to 31,536,000.
    pub session_lifetime: u64,
    /// Sessions of one user, 1 to 256; one more ends the one that was idle longest.
    pub sessions_per_user: usize,
    /// Passwords are taken without TLS from other machines too: for a proxy in front of us that has the certificate.
    pub plain: bool,
}

impl Default for Portal {
    fn default() -> Portal {
        Portal { session_idle: 3_600, session_lifetime: 86_400, sessions_per_user: 16, plain: false }
    }
}

/// `[oauth2]`: access tokens for the third-party APIs.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Oauth2 {
    /// Seconds for which a token is good, 60 to 86,400.
    pub token_lifetime: u32,
    /// Secrets are taken without TLS from other machines too: for a proxy in front of us that has the certificate.
    pub plain: bool,
}

impl Default for Oauth2 {
    fn default() -> Oauth2 {
        Oauth2 { token_lifetime: 600, plain: false }
    }
}

/// `[webhooks]`: addresses that developers name, to be told things.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhooks {
    /// Addresses and CIDR blocks that are admitted though they are not public; there plain HTTP will do.
    pub allow: Vec<Block>,
}

/// `[admin]`: operators only.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    pub listen: Door,
    /// Empty: made at first start and kept in `data_dir/admin.token`.
    pub token: String,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin { listen: Door::ipv4_loopback(8081), token: String::new() }
    }
}

// By hand, so that the token cannot reach a log.
impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// `[xmpp]`: federation with XMPP domains.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Xmpp {
    /// Where other domains come in. Not empty: what we send is believed only when they can ask back here.
    pub s2s: Door,
    /// Overrides DNS SRV, by domain.
    pub route: BTreeMap<String, XmppRoute>,
}

impl Default for Xmpp {
    fn default() -> Xmpp {
        Xmpp { s2s: Door::ipv4_loopback(5269), route: BTreeMap::new() }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XmppRoute {
    pub address: SocketAddr,
    /// False: accept a certificate that does not validate (dialback is still done).
    #[serde(default = "yes")]
    pub verify: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Smpp {
    /// Legacy ESMEs bind here.
    pub listen: Door,
    /// And here over TLS, with the certificate of `[tls]`; empty: nowhere.
    pub tls: Door,
    /// Of the sessions at these doors. `connect` and `reconnect` are of links alone.
    pub timers: SmppTimers,
    /// SMSCs that we bind to.
    pub link: Vec<SmppLink>,
    /// ESMEs that may bind to us; without any the door stays shut.
    pub esme: Vec<SmppEsme>,
}

impl Default for Smpp {
    fn default() -> Smpp {
        // Less patience with strangers than with centres.
        let timers = SmppTimers { init: 10, ..SmppTimers::default() };
        Smpp { listen: Door::ipv4_loopback(2775), tls: Door(None), timers, link: Vec::new(), esme: Vec::new() }
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmppLink {
    pub name: String,
    pub address: SocketAddr,
    /// At most 15 octets (SMPP 3.4 §4.1.1).
    pub system_id: String,
    /// At most 8 octets (SMPP 3.4 §4.1.1).
    #[serde(default)]
    pub password: String,
    #[serde(default)]
    pub bind: SmppBind,
    /// Requests sent and not yet answered, 1 to 1,000.
    #[serde(default = "ten")]
    pub window: u16,
    /// submit_sm per second; 0: no limit.
    #[serde(default)]
    pub rate: u32,
    /// 0: off; else the TLV tag that carries the service instruction value.
    #[serde(default)]
    pub line_state_tlv: u16,
    /// Where a message has no originating address of its own: number with `+`, short code, or name.
    #[serde(default)]
    pub source: String,
    /// Beginnings of the numbers that it serves, digits without `+`; empty: all, where no other link's prefix fits.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// Of links that serve a number equally well, the lowest that is up is used; equal ones share.
    #[serde(default)]
    pub priority: u8,
    /// At most 12 octets (SMPP 3.4 §4.1.1).
    #[serde(default)]
    pub system_type: String,
    /// What the centre is told of the addresses that we serve: at most 40 octets, with their type and plan.
    #[serde(default)]
    pub address_range: String,
    #[serde(default)]
    pub addr_ton: u8,
    #[serde(default)]
    pub addr_npi: u8,
    /// Over TLS.
    #[serde(default)]
    pub tls: bool,
    /// The name that the centre's certificate must prove; empty: its address.
    #[serde(default)]
    pub tls_name: String,
    /// PEM file of the authorities that certify it; empty: `tls.authorities`, or the system's.
    #[serde(default)]
    pub tls_authorities: PathBuf,
    /// SHA-256 of its certificate, 64 hexadecimal digits: that one, and no authority is asked.
    #[serde(default)]
    pub tls_fingerprint: String,
    #[serde(default)]
    pub timers: SmppTimers,
}

/// The timers of SMPP 3.4 §7.2, and those around them. Seconds; 0: does not run.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmppTimers {
    /// session_init_timer: from the connection to the bind, at most 600.
    pub init: u16,
    /// enquire_link_timer: silence after which the peer is asked whether it is there, at most 3,600.
    pub enquire: u16,
    /// response_timer, 1 to 600.
    pub response: u16,
    /// inactivity_timer: nothing but enquire_link, at most 65,535.
    pub inactivity: u16,
    /// For TCP, and again for TLS, 1 to 600.
    pub connect: u16,
    /// Milliseconds between attempts to connect: at first, and at most; it doubles each time. 1 to 3,600,000.
    pub reconnect: [u32; 2],
}

impl Default for SmppTimers {
    fn default() -> SmppTimers {
        SmppTimers { init: 30, enquire: 30, response: 60, inactivity: 0, connect: 10, reconnect: [500, 30_000] }
    }
}

impl Smpp {
    /// Whose numbers messages to applications are for; or which key is wrong, and why.
    pub fn numbers(&self) -> Result<Numbers, (String, String)> {
        let mut numbers = Numbers::default();
        for (i, esme) in self.esme.iter().enumerate() {
            // Lengths are checked with the rest of the configuration.
            let place = numbers.esme(COctets::new(esme.system_id.as_bytes()).unwrap_or_default());
            for text in &esme.numbers {
                let wrong = |why: String| (format!("smpp.esme[{i}].numbers"), format!("\"{text}\" {why}"));
                let digits = gw_sms::esme::beginning(text).map_err(|e| wrong(e.to_string()))?;
                numbers.range(digits, place).map_err(|e| wrong(e.to_string()))?;
            }
            for (code, stands_for) in &esme.short_codes {
                let wrong = |why: String| (format!("smpp.esme[{i}].short_codes"), format!("\"{code}\" {why}"));
                if !gw_sms::esme::is_short_code(code) {
                    return Err(wrong("must be 2 to 10 digits".to_owned()));
                }
                numbers.short_code(code, *stands_for, place).map_err(|e| wrong(e.to_string()))?;
            }
        }
        Ok(numbers)
    }
}

impl SmppTimers {
    /// These times in limits whose counts stay.
    pub fn limits(&self, counts: gw_smpp::session::Limits) -> gw_smpp::session::Limits {
        let [init, enquire, response, inactivity] =
            [self.init, self.enquire, self.response, self.inactivity].map(|s| std::time::Duration::from_secs(s.into()));
        gw_smpp::session::Limits { init, enquire, response, inactivity, ..counts }
    }
}

/// `[[smpp.esme]]`: a legacy ESME that may bind to us.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmppEsme {
    /// At most 15 octets.
    pub system_id: String,
    /// At most 8 octets.
    #[serde(default)]
    pub password: String,
    /// Addresses that it may come from; empty: from everywhere.
    #[serde(default)]
    pub allow_from: Vec<IpAddr>,
    /// Beginnings of the source addresses that it may use; empty: any.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Beginnings of the numbers whose messages it gets, each `+` and digits; the longest that fits counts.
    #[serde(default)]
    pub numbers: Vec<String>,
    /// Short codes of 2 to 10 digits whose messages it gets, each with the whole number that it stands for in the queue.
    #[serde(default)]
    pub short_codes: BTreeMap<String, Msisdn>,
    /// Messages a second over all its sessions; 0: no limit.
    #[serde(default)]
    pub rate: u32,
    /// Its requests that wait for our answer, in each session, 1 to 10,000.
    #[serde(default = "hundred")]
    pub window: u16,
    /// Our receipts and messages that wait for its answer, in each session, 1 to 1,000.
    #[serde(default = "ten")]
    pub deliver_window: u16,
    /// Sessions at once, 1 to 1,000.
    #[serde(default = "ten")]
    pub sessions: u16,
    /// Where it listens, if it binds only when it is asked to (outbind): it is when receipts or messages wait and no receiver of it is bound.
    #[serde(default)]
    pub outbind: Option<SocketAddr>,
    /// By which it knows us then; at most 8 octets.
    #[serde(default)]
    pub outbind_password: String,
}

impl std::fmt::Debug for SmppEsme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmppEsme").field("system_id", &self.system_id).finish_non_exhaustive()
    }
}

/// `[sms]`: short messages.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sms {
    /// Minutes for which a message without its own `vp` is tried, 1 to 43,200.
    pub validity: u32,
    /// Days for which the end of a message is remembered, 1 to 366.
    pub keep: u32,
    /// URL of an HLR or HSS look-up, with `{msisdn}` in it; empty: lines are as provisioned.
    pub hlr: String,
    /// Seconds for which its answer is believed, 0 to 86,400; 0: for the messages that waited for it.
    pub hlr_cache: u32,
    /// Seconds within which it must answer, 1 to 60.
    pub hlr_timeout: u32,
}

impl Default for Sms {
    fn default() -> Sms {
        Sms { validity: 4_320, keep: 7, hlr: String::new(), hlr_cache: 30, hlr_timeout: 5 }
    }
}

/// `[billing]`: totals by day and month.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Billing {
    /// `UTC`, an offset such as `+09:00`, or a zone of this system such as `Asia/Tokyo`: where days begin.
    pub time_zone: String,
    /// Where files go, inside `data_dir` unless absolute.
    pub folder: PathBuf,
    /// Files of the day before and, on a month's first day, of the month before are written by the server.
    pub automatic: bool,
}

impl Default for Billing {
    fn default() -> Billing {
        Billing { time_zone: "UTC".to_owned(), folder: PathBuf::from("billing"), automatic: true }
    }
}

impl std::fmt::Debug for SmppLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmppLink").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
pub enum SmppBind {
    #[default]
    #[serde(rename = "transceiver")]
    Transceiver,
    #[serde(rename = "transmitter+receiver")]
    Pair,
    /// Nothing comes from it, receipts neither.
    #[serde(rename = "transmitter")]
    Transmitter,
    /// Nothing is submitted over it.
    #[serde(rename = "receiver")]
    Receiver,
}

/// `[content]`: files that users send each other, at `/content/`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Content {
    pub enabled: bool,
    /// Where files lie, for all nodes the same; empty: `content` in `data_dir`.
    pub folder: PathBuf,
    /// They lie in a bucket instead.
    pub s3: Option<S3>,
    /// `host:port` of clamd (INSTREAM); empty: no scan.
    pub clamd: String,
    /// An ICAP service, `icap://host:1344/service`; empty: none. Asked after clamd.
    pub icap: String,
    /// What becomes of a file that the scanner cannot look at.
    pub unscanned: WhenUnscanned,
    /// Types that do not pass: `application/x-msdownload`, `video/*`. At most 1,000.
    pub refused_types: Vec<String>,
    /// 1 byte to 1 TiB.
    pub max_file: Size,
    /// Days for which a file is kept, 1 to 3,650.
    pub keep_days: u32,
    /// What one user may upload in a day, through each node.
    pub daily_quota: Size,
    /// Uploads at the same time, of all users, 1 to 10,000; each holds up to 4 MiB.
    pub max_uploads: usize,
    /// Requests a second of one user, 1 to 10,000; four times as many at once.
    pub rate: u32,
    /// What holds for messages.
    pub messages: Control,
    /// What holds for MSRP sessions.
    pub sessions: Control,
}

/// `[content.messages]`, `[content.sessions]`: what users send each other without files over HTTP. The scanner is the same.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    pub judge: Whose,
    /// Not said: those of `[content]`.
    pub refused_types: Option<Vec<String>>,
    /// Largest message that passes; 0: what the protocol's own section allows.
    pub max_size: Size,
    /// Not said: that of `[content]`.
    pub unscanned: Option<WhenUnscanned>,
    /// Addressees of ours hear that something was withheld.
    pub tell_addressee: bool,
}

/// Whose messages are judged.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whose {
    None,
    /// What comes by WebSocket, and from other domains.
    #[default]
    Outsiders,
    All,
}

impl Default for Control {
    fn default() -> Control {
        Control {
            judge: Whose::Outsiders,
            refused_types: None,
            max_size: Size::mib(0),
            unscanned: None,
            tell_addressee: true,
        }
    }
}

/// `[content.s3]`: a bucket of AWS or of whatever speaks S3.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    pub bucket: String,
    #[serde(default = "S3::usual_region")]
    pub region: String,
    /// URL of another service than AWS'; empty: AWS'.
    #[serde(default)]
    pub endpoint: String,
    /// Empty, and then both: from the environment (`AWS_ACCESS_KEY_ID`), a role, the machine.
    #[serde(default)]
    pub access_key: String,
    #[serde(default)]
    pub secret_key: String,
}

impl S3 {
    fn usual_region() -> String {
        "us-east-1".into()
    }
}

/// Without the keys.
impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let S3 { bucket, region, endpoint, .. } = self;
        write!(f, "S3 {{ {bucket}, {region}, {endpoint} }}")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenUnscanned {
    #[default]
    Refuse,
    Pass,
}

impl Default for Content {
    fn default() -> Content {
        Content {
            enabled: true,
            folder: PathBuf::new(),
            s3: None,
            clamd: String::new(),
            icap: String::new(),
            unscanned: WhenUnscanned::Refuse,
            refused_types: Vec::new(),
            max_file: Size::mib(100),
            keep_days: 7,
            daily_quota: Size::mib(2048),
            max_uploads: 64,
            rate: 20,
            messages: Control::default(),
            sessions: Control::default(),
        }
    }
}

fn yes() -> bool {
    true
}

fn ten() -> u16 {
    10
}

fn hundred() -> u16 {
    100
}
