//! What is known of a subscriber: identities, secrets, roles and how their calls are to be treated.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sip_proto::digest::{Ha1, HashFunction};

use crate::identity::{Aor, Msisdn};

/// Longest user id taken, in bytes.
pub const MAX_ID: usize = 128;
/// Most barred prefixes of one user.
pub const MAX_BARRED_PREFIXES: usize = 64;
/// How long a call rings before it counts as not answered, unless the user says otherwise, in seconds.
pub const NO_ANSWER_SECONDS: u16 = 20;

/// A subscriber. Immutable once in the directory: a change is a new value.
///
/// In this order in memory: what each REGISTER reads of one user among a million stands first, together.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[repr(C)]
pub struct User {
    /// Private identity: the digest user name and the portal login. Unique.
    pub id: Arc<str>,
    /// The first public identity, `id@domain`. Unique.
    pub aor: Aor,
    pub secrets: DigestSecrets,
    /// Also reachable as `tel:+…` and `sip:+…@domain;user=phone`. Unique when present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msisdn: Option<Msisdn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jid: Option<Box<str>>,
    #[serde(default)]
    pub roles: Vec<Role>,
    #[serde(default)]
    pub call_settings: CallSettings,
    /// Days for which the user's own messages are kept for them to read again; 0: not at all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub history_days: u32,
}

fn is_zero(days: &u32) -> bool {
    *days == 0
}

/// What a user may do beyond being a user.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Customer,
    CorporateAdmin,
    Agent,
    Operator,
    Retailer,
}

/// What authentication needs, never the clear password: H(user ":" realm ":" password) (RFC 7616 §3.4.2) for the realm
/// that is the home domain, in both algorithms, and the AKA keys of a SIM where there is one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct DigestSecrets {
    #[serde(with = "hex_bytes")]
    pub ha1_md5: [u8; 16],
    #[serde(with = "hex_bytes")]
    pub ha1_sha256: [u8; 32],
    /// The same two for a client whose user name is the private identity in full, `id@domain` (TS 23.003 §13.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<FullName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aka: Option<AkaKeys>,
}

/// H(id "@" domain ":" realm ":" password), in both algorithms.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullName {
    #[serde(with = "hex_bytes")]
    pub ha1_md5: [u8; 16],
    #[serde(with = "hex_bytes")]
    pub ha1_sha256: [u8; 32],
}

impl DigestSecrets {
    /// What is kept of a password. The realm is the home domain.
    pub fn of_password(id: &str, domain: &str, password: &[u8]) -> DigestSecrets {
        let (ha1_md5, ha1_sha256) = hashes(id, domain, password);
        // An id that is written in full has no second form.
        let full = (!id.contains('@')).then(|| {
            let (ha1_md5, ha1_sha256) = hashes(&format!("{id}@{domain}"), domain, password);
            FullName { ha1_md5, ha1_sha256 }
        });
        DigestSecrets { ha1_md5, ha1_sha256, full, aka: None }
    }
}

fn hashes(username: &str, realm: &str, password: &[u8]) -> ([u8; 16], [u8; 32]) {
    let (mut md5, mut sha256) = ([0; 16], [0; 32]);
    let of = |function| Ha1::new(function, username.as_bytes(), realm.as_bytes(), password);
    md5.copy_from_slice(of(HashFunction::Md5).0.as_bytes());
    sha256.copy_from_slice(of(HashFunction::Sha256).0.as_bytes());
    (md5, sha256)
}

/// The long-term key and operator variant of a SIM (TS 35.205).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AkaKeys {
    #[serde(with = "hex_bytes")]
    pub k: [u8; 16],
    #[serde(with = "hex_bytes")]
    pub opc: [u8; 16],
    #[serde(with = "hex_bytes")]
    pub amf: [u8; 2],
    /// There is no password beside the SIM: other challenges would be of no use.
    #[serde(default)]
    pub only: bool,
}

impl fmt::Debug for DigestSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestSecrets(…)")
    }
}

impl fmt::Debug for FullName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FullName(…)")
    }
}

impl fmt::Debug for AkaKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AkaKeys(…)")
    }
}

/// Communication diversion and barring (TS 24.604, TS 24.611, as far as a proxy can do them).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct CallSettings {
    /// Targets are URIs (`sip:`, `sips:`, `tel:`), checked when they are provisioned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_unconditional: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_busy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_no_answer: Option<String>,
    /// Seconds of ringing before `forward_no_answer`, 5 to 180.
    pub no_answer_seconds: u16,
    /// No binding, or none that answered (408, 430, 480 without a ring).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_not_reachable: Option<String>,
    pub bar_incoming: bool,
    /// Callers without an asserted identity, or with Privacy, are refused (433, RFC 5079).
    pub bar_anonymous: bool,
    pub bar_outgoing: bool,
    /// Number prefixes (`+1900`) this user may not call. At most [`MAX_BARRED_PREFIXES`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bar_outgoing_prefixes: Vec<String>,
}

impl Default for CallSettings {
    fn default() -> Self {
        CallSettings {
            forward_unconditional: None,
            forward_busy: None,
            forward_no_answer: None,
            no_answer_seconds: NO_ANSWER_SECONDS,
            forward_not_reachable: None,
            bar_incoming: false,
            bar_anonymous: false,
            bar_outgoing: false,
            bar_outgoing_prefixes: Vec::new(),
        }
    }
}

/// Fixed-length secrets as hexadecimal text.
mod hex_bytes {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], s: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let text: String =
            bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| char::from(DIGITS[usize::from(d)])).collect();
        s.serialize_str(&text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(d: D) -> Result<[u8; N], D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        let mut bytes = [0u8; N];
        if text.len() != 2 * N {
            return Err(D::Error::invalid_length(text.len(), &"two hexadecimal digits a byte"));
        }
        for (to, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |b: u8| char::from(b).to_digit(16).ok_or_else(|| D::Error::custom("not a hexadecimal digit"));
            *to = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn user(id: &str, number: Option<&str>) -> User {
        User {
            id: id.into(),
            aor: Aor::from_parts(id.as_bytes(), b"localhost").unwrap(),
            secrets: DigestSecrets { ha1_md5: [0xab; 16], ha1_sha256: [0xcd; 32], full: None, aka: None },
            msisdn: number.map(|n| n.parse().unwrap()),
            email: None,
            jid: None,
            roles: vec![Role::Customer],
            call_settings: CallSettings::default(),
            history_days: 0,
        }
    }

    #[test]
    fn a_user_survives_its_stored_form() {
        let mut alice = user("alice", Some("+819012345678"));
        alice.call_settings.forward_busy = Some("sip:bob@localhost".into());
        alice.history_days = 30;
        alice.secrets.aka = Some(AkaKeys { k: [1; 16], opc: [2; 16], amf: [0x80, 0], only: false });
        let text = serde_json::to_string(&alice).unwrap();
        assert_eq!(serde_json::from_str::<User>(&text).unwrap(), alice);
    }

    #[test]
    fn fields_added_later_have_defaults() {
        let text = r#"{"id":"a","aor":"a@x","secrets":{"ha1_md5":"00000000000000000000000000000000",
            "ha1_sha256":"0000000000000000000000000000000000000000000000000000000000000000"}}"#;
        assert_eq!(serde_json::from_str::<User>(text).unwrap().call_settings, CallSettings::default());
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let text = format!("{:?}", user("alice", None));
        assert!(!text.contains("171, 171") && !text.contains("abab"), "{text}");
    }
}
