//! Push clients, API clients and lines, as the store keeps them.

use std::collections::HashSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sip_ims::Msisdn;
use subtle::ConstantTimeEq;

use super::Block;

/// A push client (S1 to S8), keyed by its XPID.
#[derive(Clone, Serialize, Deserialize)]
pub struct PushClient {
    pub xpid: String,
    #[serde(default)]
    pub name: String,
    #[serde(flatten)]
    pub lock: Lock,
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
    /// Unix seconds, from and (exclusive) until when it is served; 0: no bound.
    #[serde(default)]
    pub valid_from: i64,
    #[serde(default)]
    pub valid_until: i64,
    /// Requests a second; 0: no limit.
    #[serde(default)]
    pub rate: u32,
    /// 0 goes first, 3 last.
    #[serde(default = "usual")]
    pub rank: u8,
}

fn usual() -> u8 {
    2
}

impl PushClient {
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

/// How a client proves itself: by address, and by a secret or a certificate where there is one.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Lock {
    /// [`seal`] of the secret, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ha1: Option<String>,
    /// SHA-256 of the client certificate (DER), in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Empty: from everywhere.
    #[serde(default)]
    pub allow_from: Vec<Block>,
}

/// What a request brings.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'r> {
    pub address: Option<IpAddr>,
    /// HTTP Basic.
    pub basic: Option<(&'r str, &'r str)>,
    /// SHA-256 of the certificate of the TLS connection.
    pub certificate: Option<[u8; 32]>,
}

impl Lock {
    /// Whether these open it for the client `id`.
    pub fn opens(&self, id: &str, given: &Credentials<'_>) -> bool {
        let near =
            self.allow_from.is_empty() || given.address.is_some_and(|a| self.allow_from.iter().any(|b| b.contains(a)));
        let knows = self.secret_ha1.as_deref().map(|sealed| {
            let (user, password) = given.basic.unwrap_or_default();
            let made = seal(id, password);
            bool::from(sealed.as_bytes().ct_eq(made.as_bytes())) && user == id && given.basic.is_some()
        });
        let has = self
            .certificate
            .as_deref()
            .map(|pinned| given.certificate.is_some_and(|c| bool::from(pinned.as_bytes().ct_eq(hex(&c).as_bytes()))));
        near && match (knows, has) {
            // By address alone: the registration saw to it that there is a list.
            (None, None) => !self.allow_from.is_empty(),
            (knows, has) => knows == Some(true) || has == Some(true),
        }
    }
}

/// What is kept of a secret: SHA-256 over `id:isthmus:secret`, in hexadecimal.
pub fn seal(id: &str, secret: &str) -> String {
    let mut hash = Sha256::new();
    for part in [id, ":isthmus:", secret] {
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize())
}

/// Names a certificate (DER).
pub fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        text.push(char::from(DIGITS[usize::from(b >> 4)]));
        text.push(char::from(DIGITS[usize::from(b & 15)]));
    }
    text
}

/// A client of the third-party APIs (W3, W11).
#[derive(Clone, Serialize, Deserialize)]
pub struct ApiClient {
    pub id: String,
    #[serde(flatten)]
    pub lock: Lock,
    #[serde(default)]
    pub jwks_uri: String,
    #[serde(default)]
    pub scopes: Vec<String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn given<'a>(address: &str, basic: Option<(&'a str, &'a str)>) -> Credentials<'a> {
        Credentials { address: address.parse().ok(), basic, certificate: None }
    }

    #[test]
    fn a_secret_opens_and_the_address_must_fit_as_well() {
        let lock = Lock {
            secret_ha1: Some(seal("12345678901", "s3cret")),
            allow_from: vec!["127.0.0.0/8".parse().unwrap()],
            certificate: None,
        };
        let opens = |address, basic| lock.opens("12345678901", &given(address, basic));
        assert!(opens("127.0.0.9", Some(("12345678901", "s3cret"))));
        assert!(!opens("10.0.0.9", Some(("12345678901", "s3cret"))));
        assert!(!opens("127.0.0.9", Some(("12345678901", "secret"))));
        assert!(!opens("127.0.0.9", Some(("10000000000", "s3cret"))));
        assert!(!opens("127.0.0.9", None));
    }

    #[test]
    fn without_a_secret_the_address_alone_decides() {
        let lock = Lock { allow_from: vec!["127.0.0.1".parse().unwrap()], ..Lock::default() };
        assert!(lock.opens("1", &given("127.0.0.1", None)) && !lock.opens("1", &given("127.0.0.2", None)));
        assert!(!Lock::default().opens("1", &given("127.0.0.1", None)), "no lock is no licence");
    }

    #[test]
    fn a_pinned_certificate_opens_without_the_secret() {
        let lock = Lock { secret_ha1: Some(seal("1", "x")), certificate: Some(hex(&[7; 32])), allow_from: Vec::new() };
        let with = |certificate| lock.opens("1", &Credentials { certificate, ..given("::1", None) });
        assert!(with(Some([7; 32])) && !with(Some([8; 32])) && !with(None));
    }

    #[test]
    fn the_instruction_value_has_a_bit_for_each_flag() {
        let client: PushClient = serde_json::from_str(
            r#"{"xpid":"12345678901","deliver_while_roaming":true,"circuit_switched_when_ps_roaming":true}"#,
        )
        .unwrap();
        assert_eq!((client.instruction(), client.rank), (0b1_0001, 2));
        assert!(client.is_served(0) && !PushClient { valid_until: 5, ..client.clone() }.is_served(5));
    }
}
