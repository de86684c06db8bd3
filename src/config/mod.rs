//! The configuration file: typed, unknown keys are errors, every complaint names its key and line.
//!
//! [`Config::read`] parses and checks a file; [`Config::default`] is what the server runs with when it is given none.

mod check;
mod doors;
mod node;
mod presence;
mod sip;
mod spans;
mod values;
mod xcap;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use doors::{
    Admin, Billing, CertificateFiles, Conference, Content, Control, Http, Media, Msrp, Oauth2, Portal, S3, Smpp,
    SmppBind, SmppEsme, SmppLink, SmppTimers, Sms, Strangers, Tls, Webhooks, WhenUnscanned, Whose, Xmpp, XmppRoute,
};
pub use node::{Bus, BusEngine, Cdr, Hep, Log, LogFormat, Node, Store, StoreEngine, Telemetry, Trace, TraceLevel};
pub use presence::{Capabilities, CapabilitiesFrom, Presence, Watchers};
pub use sip::{Acknowledge, Auth, DigestAlgorithm, Flood, History, Messaging, Registrar, Sip, SmsOverIp};
pub use spans::Spans;
pub use values::{Door, Peers, Ports, Size, TrustedPeer};
pub use xcap::Xcap;

/// Everything an operator may say. Field docs give units and ranges; `docs/configuration.md` tells it in prose.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Home domain of the public identities: `sip:alice@<domain>`. A host name, at most 253 characters.
    pub domain: String,
    /// Holds the store, certificates, tokens, charging records. Created when absent.
    pub data_dir: PathBuf,
    pub sip: Sip,
    pub registrar: Registrar,
    pub messaging: Messaging,
    pub history: History,
    pub presence: Presence,
    pub capabilities: Capabilities,
    pub xcap: Xcap,
    pub sms_over_ip: SmsOverIp,
    pub tls: Tls,
    pub msrp: Msrp,
    pub conference: Conference,
    pub media: Media,
    pub http: Http,
    pub portal: Portal,
    pub oauth2: Oauth2,
    pub webhooks: Webhooks,
    pub admin: Admin,
    /// Without it there is no federation, and no door for it.
    pub xmpp: Option<Xmpp>,
    pub smpp: Smpp,
    pub sms: Sms,
    pub billing: Billing,
    pub store: Store,
    pub bus: Bus,
    pub node: Node,
    pub content: Content,
    pub log: Log,
    pub telemetry: Telemetry,
    pub cdr: Cdr,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            domain: "localhost".to_owned(),
            data_dir: PathBuf::from("data"),
            sip: Sip::default(),
            registrar: Registrar::default(),
            messaging: Messaging::default(),
            history: History::default(),
            presence: Presence::default(),
            capabilities: Capabilities::default(),
            xcap: Xcap::default(),
            sms_over_ip: SmsOverIp::default(),
            tls: Tls::default(),
            msrp: Msrp::default(),
            conference: Conference::default(),
            media: Media::default(),
            http: Http::default(),
            portal: Portal::default(),
            oauth2: Oauth2::default(),
            webhooks: Webhooks::default(),
            admin: Admin::default(),
            xmpp: None,
            smpp: Smpp::default(),
            sms: Sms::default(),
            billing: Billing::default(),
            store: Store::default(),
            bus: Bus::default(),
            node: Node::default(),
            content: Content::default(),
            log: Log::default(),
            telemetry: Telemetry::default(),
            cdr: Cdr::default(),
        }
    }
}

/// Largest configuration or provisioning file that is read, in bytes.
pub const MAX_FILE: u64 = 64 << 20;

impl Config {
    /// Reads, parses and checks a file.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        Config::parse(&read_text(path)?).map_err(|problems| ConfigError::Wrong { file: path.to_owned(), problems })
    }

    /// Parses and checks a text.
    pub fn parse(text: &str) -> Result<Config, Vec<Problem>> {
        let config: Config = from_toml(text)?;
        let spans = Spans::of(text);
        let problems: Vec<Problem> = config.check().into_iter().map(|p| p.placed(&spans)).collect();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// The node's name: configured, else the host's.
    pub fn node_name(&self) -> String {
        if !self.node.name.is_empty() {
            return self.node.name.clone();
        }
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|name| name.trim().to_owned())
            .ok()
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "node".to_owned())
    }
}

/// Parses TOML into any type, with the complaint placed by key and line. Provisioning files use it too.
pub fn from_toml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Vec<Problem>> {
    toml::from_str(text).map_err(|error| {
        let spans = Spans::of(text);
        let at = error.span().map(|s| s.start);
        vec![Problem {
            key: at.and_then(|at| spans.key_at(at)).unwrap_or_default().to_owned(),
            line: at.map(|at| spans.line_at(at)),
            text: error.message().trim().replace('\n', ", "),
        }]
    })
}

/// The text of a file that an operator named.
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { file: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE {
        return Err(ConfigError::TooLarge { file: path.to_owned() });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// One thing that is wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Path of the key, such as `sip.udp[0]`; empty when the file is not TOML there.
    pub key: String,
    /// 1-based.
    pub line: Option<usize>,
    pub text: String,
}

impl Problem {
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Problem {
        Problem { key: key.into(), line: None, text: text.into() }
    }

    /// The same with its line filled in.
    pub fn placed(mut self, spans: &Spans) -> Problem {
        self.line = self.line.or_else(|| spans.line_of(&self.key));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}

/// Why a file cannot be used. Always the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {source}", file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("{}: larger than 64 MiB", file.display())]
    TooLarge { file: PathBuf },
    #[error("{}", lines(file, problems))]
    Wrong { file: PathBuf, problems: Vec<Problem> },
}

fn lines(file: &Path, problems: &[Problem]) -> String {
    problems.iter().map(|p| format!("{}: {p}", file.display())).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of INTERFACE's defaults, spelt out: what operators were promised.
    const PROMISED: &str = include_str!("../../samples/defaults.toml");

    #[test]
    fn the_defaults_are_the_promised_ones() {
        let spelt = Config::parse(PROMISED).unwrap();
        assert_eq!(format!("{spelt:?}"), format!("{:?}", Config::default()));
        assert_eq!(format!("{:?}", Config::parse("").unwrap()), format!("{:?}", Config::default()));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let problems = Config::parse("domain = \"a.test\"\n[sip]\nupd = [\"127.0.0.1:5060\"]\n").unwrap_err();
        assert_eq!(problems[0].key, "sip.upd");
        assert_eq!(problems[0].line, Some(3));
        assert!(problems[0].text.contains("unknown field"), "{}", problems[0]);
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line() {
        let problems = Config::parse("[sip]\nudp = [\n\"127.0.0.1:5060\",\n\"localhost:1\"]\n").unwrap_err();
        assert_eq!((problems[0].key.as_str(), problems[0].line), ("sip.udp", Some(2)));
        assert!(problems[0].text.contains("\"localhost:1\""), "{}", problems[0]);
        let problems = Config::parse("[telemetry.hep]\n\ncapture_id = \"x\"\n").unwrap_err();
        assert_eq!((problems[0].key.as_str(), problems[0].line), ("telemetry.hep.capture_id", Some(3)));
    }

    #[test]
    fn what_is_not_toml_is_placed() {
        let problems = Config::parse("domain = \"a\"\n[sip\n").unwrap_err();
        assert_eq!(problems[0].line, Some(2));
    }

    #[test]
    fn checks_report_every_problem_at_once() {
        let problems = Config::parse(
            "domain = \"no good\"\n[registrar]\nmin_expires = 100\nmax_expires = 50\n[tls]\nkey = \"k\"\n",
        )
        .unwrap_err();
        let keys: Vec<_> = problems.iter().map(|p| (p.key.as_str(), p.line)).collect();
        assert!(keys.contains(&("domain", Some(1))), "{keys:?}");
        assert!(keys.contains(&("registrar.max_expires", Some(4))), "{keys:?}");
        assert!(keys.contains(&("tls.certificate", Some(5))), "{keys:?}");
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let text = "[admin]\ntoken = \"hunter2hunter2hunter2\"\n[store]\nengine = \"postgres\"\nurl = \"postgres://u:hunter2@h/d\"\n";
        let shown = format!("{:?}", Config::parse(text).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
