//! Push clients, API clients and lines: as an operator writes them, and as the store keeps them.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use sip_ims::Msisdn;

use super::lock::{fingerprint_like, seal_away};
use super::{Block, Entry, Kind, Lock, Wrong};
use crate::push::message::{is_source, is_xpid};

/// A push client (S1 to S8), keyed by its XPID. What it reads is a table of a provisioning file, and the body of the admin API.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushClient {
    /// 11 digits.
    pub xpid: String,
    #[serde(default)]
    pub name: String,
    /// In clear, while it is read; empty: by address or certificate only. [`entry`](Self::entry) seals it.
    #[serde(default, skip_serializing)]
    pub secret: String,
    /// In place of a secret: [`seal`](super::seal) of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ha1: Option<String>,
    /// SHA-256 of the client's certificate, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Empty: from everywhere.
    #[serde(default)]
    pub allow_from: Vec<Block>,
    /// Where its notifications go; empty: nowhere.
    #[serde(default)]
    pub callback: String,
    /// Texts longer than one message are divided.
    #[serde(default)]
    pub segmentation: bool,
    #[serde(default)]
    pub numbers: HashSet<Msisdn>,
    #[serde(default)]
    pub deliver_while_roaming: bool,
    #[serde(default)]
    pub deliver_while_suspended: bool,
    #[serde(default)]
    pub deliver_despite_spam_block: bool,
    #[serde(default)]
    pub deliver_over_limit: bool,
    #[serde(default)]
    pub circuit_switched_when_ps_roaming: bool,
    /// Nothing is taken from it.
    #[serde(default)]
    pub stopped: bool,
    /// Unix seconds, from and (exclusive) until when it is served; 0: no bound. Written as RFC 3339 has it.
    #[serde(default, with = "moment", skip_serializing_if = "moment::is_none")]
    pub valid_from: i64,
    #[serde(default, with = "moment", skip_serializing_if = "moment::is_none")]
    pub valid_until: i64,
    /// Requests a second; 0: no limit.
    #[serde(default)]
    pub rate: u32,
    /// 0 goes first, 3 last.
    #[serde(default = "usual", rename = "priority", alias = "rank")]
    pub rank: u8,
}

fn usual() -> u8 {
    2
}

impl PushClient {
    /// Checked, its secret sealed, as the store keeps it.
    pub fn entry(mut self) -> Result<Entry, Wrong> {
        if !is_xpid(&self.xpid) {
            return Err(("xpid", "must be 11 digits".to_owned()));
        }
        seal_away(&self.xpid, &mut self.secret, &mut self.secret_ha1)?;
        fingerprint_like("certificate", &mut self.certificate)?;
        if self.secret_ha1.is_none() && self.certificate.is_none() && self.allow_from.is_empty() {
            return Err(("secret", "without a secret or certificate, allow_from must say who may push".to_owned()));
        }
        url("callback", &self.callback)?;
        if self.rank > 3 {
            return Err(("priority", format!("{} is not between 0 and 3", self.rank)));
        }
        let numbers = self.numbers.iter().copied().collect();
        Ok(Entry { numbers, ..Entry::of(Kind::PushClient, "xpid", self.xpid.clone(), &self)? })
    }

    pub fn lock(&self) -> Lock<'_> {
        Lock {
            secret_ha1: self.secret_ha1.as_deref(),
            certificate: self.certificate.as_deref(),
            allow_from: &self.allow_from,
        }
    }

    /// Whether it is served at this time (unix seconds).
    pub fn is_served(&self, now: i64) -> bool {
        !self.stopped && now >= self.valid_from && (self.valid_until == 0 || now < self.valid_until)
    }

    /// The service instruction value (S6): one bit for each flag, in the order of the paper's table.
    pub fn instruction(&self) -> u8 {
        let flags = [
            self.deliver_while_roaming,
            self.deliver_while_suspended,
            self.deliver_despite_spam_block,
            self.deliver_over_limit,
            self.circuit_switched_when_ps_roaming,
        ];
        flags.iter().enumerate().map(|(n, flag)| u8::from(*flag) << n).sum()
    }
}

// By hand: numbers and hashes.
impl std::fmt::Debug for PushClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PushClient({})", self.xpid)
    }
}

/// A client of the third-party APIs (W3, W11), as it is written and as the store keeps it.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiClient {
    /// 1 to 128 printable characters without blanks.
    pub id: String,
    /// In clear, while it is read. [`entry`](Self::entry) seals it.
    #[serde(default, skip_serializing)]
    pub secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ha1: Option<String>,
    /// For private_key_jwt (RFC 7523), instead of a secret.
    #[serde(default)]
    pub jwks_uri: String,
    /// Where it may ask for tokens from; empty: everywhere.
    #[serde(default)]
    pub allow_from: Vec<Block>,
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The push client under whose contract it sends short messages: numbers, segmentation, delivery control, dates, rate and priority are
    /// that one's. Empty: `destinations`, `rate` and `priority` say what it may.
    #[serde(default)]
    pub xpid: String,
    /// Beginnings of the numbers that it may send to, such as `+81`; `+` is every number. Empty: none.
    #[serde(default)]
    pub destinations: Vec<String>,
    /// Originating addresses that it may send as; the first where a request names none. Empty: the link's own alone.
    #[serde(default)]
    pub senders: Vec<String>,
    /// Messages a second; 0: no limit.
    #[serde(default)]
    pub rate: u32,
    /// Messages a day, each recipient's counted, days beginning where the operator's do; 0: no limit.
    #[serde(default)]
    pub daily_quota: u32,
    /// 0 goes first, 3 last.
    #[serde(default = "usual")]
    pub priority: u8,
}

impl ApiClient {
    /// How the names of these clients begin in the queue.
    pub const CLIENT: &str = "api:";

    /// Checked, its secret sealed, as the store keeps it.
    pub fn entry(mut self) -> Result<Entry, Wrong> {
        if !(1..=128).contains(&self.id.len()) || !self.id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(("id", "must be 1 to 128 printable characters without blanks".to_owned()));
        }
        seal_away(&self.id, &mut self.secret, &mut self.secret_ha1)?;
        if self.secret_ha1.is_none() == self.jwks_uri.is_empty() {
            return Err(("secret", "exactly one of secret and jwks_uri must be set".to_owned()));
        }
        url("jwks_uri", &self.jwks_uri)?;
        // RFC 6749 §3.3 scope-token.
        let token = |s: &String| !s.is_empty() && s.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
        if !self.scopes.iter().all(token) {
            return Err(("scopes", "holds what is not a scope".to_owned()));
        }
        if !self.xpid.is_empty() && !is_xpid(&self.xpid) {
            return Err(("xpid", "must be 11 digits".to_owned()));
        }
        if !self.xpid.is_empty() && (!self.destinations.is_empty() || self.rate != 0) {
            return Err(("xpid", "brings its own numbers and rate: destinations and rate must be left out".to_owned()));
        }
        let beginning = |d: &String| {
            d.strip_prefix('+').is_some_and(|digits| digits.len() <= 15 && digits.bytes().all(|b| b.is_ascii_digit()))
        };
        if !self.destinations.iter().all(beginning) {
            return Err(("destinations", "must be beginnings of numbers such as \"+81\"".to_owned()));
        }
        if !self.senders.iter().all(|s| !s.is_empty() && is_source(s)) {
            return Err((
                "senders",
                "holds what is not a number, short code or name of up to 11 characters".to_owned(),
            ));
        }
        if self.priority > 3 {
            return Err(("priority", format!("{} is not between 0 and 3", self.priority)));
        }
        Entry::of(Kind::ApiClient, "id", self.id.clone(), &self)
    }

    pub fn lock(&self) -> Lock<'_> {
        Lock { secret_ha1: self.secret_ha1.as_deref(), certificate: None, allow_from: &self.allow_from }
    }

    /// Its name in the queue, in notices and in billing.
    pub fn name(&self) -> String {
        format!("{}{}", Self::CLIENT, self.id)
    }
}

impl std::fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiClient({})", self.id)
    }
}

/// What an HLR would say of a number.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Line {
    #[serde(default)]
    pub roaming: bool,
    #[serde(default)]
    pub suspended: bool,
    #[serde(default)]
    pub spam_block: bool,
    #[serde(default)]
    pub over_limit: bool,
    #[serde(default)]
    pub ps_roaming: bool,
}

impl Line {
    /// What an HLR or HSS behind HTTP says of a number. `None`: nothing that could be understood.
    pub fn told(status: u16, body: &[u8]) -> Option<Line> {
        match status {
            // An array would be read as well, and an empty one as an ordinary line.
            200 if body.trim_ascii_start().first() == Some(&b'{') => serde_json::from_slice(body).ok(),
            404 => Some(Line::default()),
            _ => None,
        }
    }
}

fn url(key: &'static str, text: &str) -> Result<(), Wrong> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let good = text.is_empty()
        || (text.len() <= 2048 && rest.is_some_and(|r| !r.is_empty()) && text.bytes().all(|b| b.is_ascii_graphic()));
    if good { Ok(()) } else { Err((key, "is not an http:// or https:// URL".to_owned())) }
}

/// Unix seconds as RFC 3339 has them, such as `2026-12-01T00:00:00+09:00`; 0 is the empty text.
mod moment {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::billing::{Calendar, unix_seconds};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        /// As earlier versions kept it.
        Seconds(i64),
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
        match Written::deserialize(d)? {
            Written::Text(text) if text.is_empty() => Ok(0),
            Written::Text(text) => unix_seconds(&text).ok_or_else(|| {
                de::Error::custom(format_args!("\"{text}\" is not a time such as 2026-12-01T00:00:00+09:00"))
            }),
            Written::Seconds(seconds) => Ok(seconds),
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    pub fn serialize<S: Serializer>(seconds: &i64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&Calendar::utc().timestamp(seconds.saturating_mul(1_000)))
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    pub fn is_none(seconds: &i64) -> bool {
        *seconds == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(json: &str) -> PushClient {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_instruction_value_has_a_bit_for_each_flag() {
        let client =
            push(r#"{"xpid":"12345678901","deliver_while_roaming":true,"circuit_switched_when_ps_roaming":true}"#);
        assert_eq!((client.instruction(), client.rank), (0b1_0001, 2));
        assert!(client.is_served(0) && !PushClient { valid_until: 5, ..client.clone() }.is_served(5));
    }

    #[test]
    fn what_is_written_is_what_is_kept_but_for_the_secret() {
        let client = push(
            r#"{"xpid":"12345678901","secret":"s3cret","allow_from":["10.0.0.1"],"numbers":["+819012345678"],
                "valid_from":"2026-12-01T00:00:00+09:00","priority":1}"#,
        );
        let entry = client.entry().unwrap();
        assert!(
            !entry.body.contains("s3cret") && entry.body.contains("\"valid_from\":\"2026-11-30T15:00:00"),
            "{}",
            entry.body
        );
        let kept = push(&entry.body);
        assert_eq!((kept.rank, kept.valid_from, kept.numbers.len()), (1, 1_796_050_800, 1));
        assert_eq!(kept.clone().entry().unwrap(), entry, "stored again, it is the same");
        // Rows of earlier versions.
        let old = push(r#"{"xpid":"12345678901","rank":3,"valid_from":7,"valid_until":0,"allow_from":[]}"#);
        assert_eq!((old.rank, old.valid_from), (3, 7));
        assert!(serde_json::from_str::<PushClient>(r#"{"xpid":"12345678901","secrte":"x"}"#).is_err());
    }

    #[test]
    fn what_cannot_be_is_said_by_its_key() {
        let wrong = |json: &str| push(json).entry().unwrap_err().0;
        assert_eq!(wrong(r#"{"xpid":"1"}"#), "xpid");
        assert_eq!(wrong(r#"{"xpid":"12345678901"}"#), "secret");
        assert_eq!(wrong(r#"{"xpid":"12345678901","secret":"s","callback":"ftp://x"}"#), "callback");
        assert_eq!(wrong(r#"{"xpid":"12345678901","secret":"s","priority":4}"#), "priority");
        assert_eq!(wrong(r#"{"xpid":"12345678901","certificate":"12"}"#), "certificate");
        let wrong = |more: &str| {
            let json = format!(r#"{{"id":"crm","secret":"s"{more}}}"#);
            serde_json::from_str::<ApiClient>(&json).unwrap().entry().map(|e| e.key).map_err(|w| w.0)
        };
        assert_eq!(wrong(r#","destinations":["+81","+"],"senders":["Fleet","+8190"],"rate":5"#), Ok("crm".to_owned()));
        assert_eq!(wrong(r#","jwks_uri":"https://a.test/jwks""#), Err("secret"));
        assert_eq!(wrong(r#","scopes":["a b"]"#), Err("scopes"));
        assert_eq!(wrong(r#","destinations":["81"]"#), Err("destinations"));
        assert_eq!(wrong(r#","senders":["much too long a name"]"#), Err("senders"));
        assert_eq!(wrong(r#","xpid":"12345678901","rate":5"#), Err("xpid"));
    }

    #[test]
    fn what_an_hlr_says_is_a_line_or_nothing() {
        assert!(Line::told(200, br#" {"roaming":true,"imsi":"x"}"#).unwrap().roaming);
        let ordinary = Some(Line::default());
        assert_eq!((Line::told(200, b"{}"), Line::told(404, b"no such")), (ordinary, ordinary));
        for bad in [&b""[..], b"[]", b"{", b"null", br#"{"roaming":"yes"}"#] {
            assert_eq!(Line::told(200, bad), None);
        }
        assert_eq!((Line::told(500, b"{}"), Line::told(302, b"{}")), (None, None));
    }
}
