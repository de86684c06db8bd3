//! One table of a provisioning file each: as written, and as stored.

use gw_sms::registry::{self, Entry, Kind, Wrong};
use serde::Deserialize;
use sip_ims::user::{AkaKeys, MAX_BARRED_PREFIXES, MAX_ID, NO_ANSWER_SECONDS};
use sip_ims::{Aor, CallSettings, DigestSecrets, Msisdn, Role, User};
use sip_proto::digest::aka::Milenage;
use sip_proto::uri::{Scheme, Uri};

/// `[[user]]`, and the body of the admin listener's user calls.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    /// `sip:<id>@<domain>`; also the digest user name and the portal login.
    pub id: String,
    /// Kept as hashes only. May be left out for a user with `aka` or both hashes.
    #[serde(default)]
    pub password: Option<String>,
    /// H(id:domain:password) in hexadecimal, for users moved from another server without their passwords.
    #[serde(default)]
    pub ha1_md5: Option<String>,
    #[serde(default)]
    pub ha1_sha256: Option<String>,
    #[serde(default)]
    pub aka: Option<AkaEntry>,
    #[serde(default)]
    pub msisdn: Option<String>,
    #[serde(default)]
    pub email: Option<String>,
    #[serde(default)]
    pub jid: Option<String>,
    #[serde(default = "customer")]
    pub roles: Vec<Role>,
    #[serde(default)]
    pub call_settings: CallEntry,
    /// 0 to 36,500: for how long the user's messages are kept for them; 0: not at all.
    #[serde(default)]
    pub history_days: u32,
}

fn customer() -> Vec<Role> {
    vec![Role::Customer]
}

// By hand: passwords.
impl std::fmt::Debug for UserEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserEntry(…)")
    }
}

/// The keys of a SIM, in hexadecimal.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AkaEntry {
    pub k: String,
    /// Exactly one of the two; only OPc is kept.
    #[serde(default)]
    pub opc: Option<String>,
    #[serde(default)]
    pub op: Option<String>,
    #[serde(default = "amf")]
    pub amf: String,
}

impl AkaEntry {
    fn keys(&self, only: bool) -> Result<AkaKeys, Wrong> {
        let k = hex("aka.k", &self.k)?;
        let opc = match (&self.opc, &self.op) {
            (Some(opc), None) => hex("aka.opc", opc)?,
            (None, Some(op)) => *Milenage::with_op(&k, &hex("aka.op", op)?).opc(),
            _ => return Err(("aka.opc", "exactly one of opc and op must be given".to_owned())),
        };
        Ok(AkaKeys { k, opc, amf: hex("aka.amf", &self.amf)?, only })
    }
}

fn amf() -> String {
    "8000".to_owned()
}

/// `[user.call_settings]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallEntry {
    pub forward_unconditional: Option<String>,
    pub forward_busy: Option<String>,
    pub forward_no_answer: Option<String>,
    /// 5 to 180.
    pub no_answer_seconds: Option<u16>,
    pub forward_not_reachable: Option<String>,
    pub bar_incoming: bool,
    pub bar_anonymous: bool,
    pub bar_outgoing: bool,
    pub bar_outgoing_prefixes: Vec<String>,
}

impl UserEntry {
    /// The user as stored.
    pub fn user(&self, domain: &str) -> Result<User, Wrong> {
        if self.id.len() > MAX_ID {
            return Err(("id", format!("longer than {MAX_ID} bytes")));
        }
        let aor = Aor::from_parts(self.id.as_bytes(), domain.as_bytes()).map_err(|e| ("id", e.to_string()))?;
        let msisdn = match self.msisdn.as_deref().filter(|n| !n.is_empty()) {
            Some(number) => Some(number.parse::<Msisdn>().map_err(|e| ("msisdn", e.to_string()))?),
            None => None,
        };
        if self.history_days > MAX_HISTORY_DAYS {
            return Err(("history_days", format!("{} is not between 0 and {MAX_HISTORY_DAYS}", self.history_days)));
        }
        Ok(User {
            id: self.id.as_str().into(),
            aor,
            secrets: self.secrets(domain)?,
            msisdn,
            email: address("email", self.email.as_deref())?,
            jid: address("jid", self.jid.as_deref())?,
            roles: self.roles.clone(),
            call_settings: self.call_settings.settings()?,
            history_days: self.history_days,
        })
    }

    fn secrets(&self, domain: &str) -> Result<DigestSecrets, Wrong> {
        let aka = match &self.aka {
            Some(aka) => Some(aka.keys(self.password.is_none() && self.ha1_md5.is_none())?),
            None => None,
        };
        match (&self.password, &self.ha1_md5, &self.ha1_sha256) {
            (Some(password), None, None) => {
                if password.is_empty() || password.len() > MAX_PASSWORD {
                    return Err(("password", format!("must be 1 to {MAX_PASSWORD} bytes")));
                }
                Ok(DigestSecrets { aka, ..DigestSecrets::of_password(&self.id, domain, password.as_bytes()) })
            }
            (None, Some(md5), Some(sha256)) => Ok(DigestSecrets {
                ha1_md5: hex("ha1_md5", md5)?,
                ha1_sha256: hex("ha1_sha256", sha256)?,
                full: None,
                aka,
            }),
            // A SIM only: hashes of no password at all, which no digest answer meets.
            (None, None, None) if aka.is_some() => {
                Ok(DigestSecrets { ha1_md5: rand::random(), ha1_sha256: rand::random(), full: None, aka })
            }
            (None, None, None) => Err(("password", "is missing".to_owned())),
            (Some(_), ..) => Err(("password", "cannot stand beside ha1_md5 or ha1_sha256".to_owned())),
            _ => Err(("ha1_md5", "both ha1_md5 and ha1_sha256 are needed".to_owned())),
        }
    }
}

/// A hundred years.
const MAX_HISTORY_DAYS: u32 = 36_500;
/// Longest password, in bytes.
pub const MAX_PASSWORD: usize = 256;

impl CallEntry {
    fn settings(&self) -> Result<CallSettings, Wrong> {
        let target = |key: &'static str, uri: &Option<String>| match uri.as_deref() {
            None | Some("") => Ok(None),
            Some(uri) if Uri::parse(uri.as_bytes()).is_some_and(|u| u.is_sip() || u.scheme() == Scheme::Tel) => {
                Ok(Some(uri.to_owned()))
            }
            Some(_) => Err((key, "is not a sip:, sips: or tel: URI".to_owned())),
        };
        let seconds = self.no_answer_seconds.unwrap_or(NO_ANSWER_SECONDS);
        if !(5..=180).contains(&seconds) {
            return Err(("call_settings.no_answer_seconds", format!("{seconds} is not between 5 and 180")));
        }
        let prefixes = &self.bar_outgoing_prefixes;
        let digits = |p: &String| p.strip_prefix('+').unwrap_or(p).bytes().all(|b| b.is_ascii_digit());
        if prefixes.len() > MAX_BARRED_PREFIXES || !prefixes.iter().all(|p| (1..=16).contains(&p.len()) && digits(p)) {
            return Err((
                "call_settings.bar_outgoing_prefixes",
                format!("must be at most {MAX_BARRED_PREFIXES} prefixes of digits, such as \"+1900\""),
            ));
        }
        Ok(CallSettings {
            forward_unconditional: target("call_settings.forward_unconditional", &self.forward_unconditional)?,
            forward_busy: target("call_settings.forward_busy", &self.forward_busy)?,
            forward_no_answer: target("call_settings.forward_no_answer", &self.forward_no_answer)?,
            no_answer_seconds: seconds,
            forward_not_reachable: target("call_settings.forward_not_reachable", &self.forward_not_reachable)?,
            bar_incoming: self.bar_incoming,
            bar_anonymous: self.bar_anonymous,
            bar_outgoing: self.bar_outgoing,
            bar_outgoing_prefixes: prefixes.clone(),
        })
    }
}

/// `[[line]]`: what an HLR would say of a number, where none is connected.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub msisdn: String,
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
    /// As it is stored.
    pub fn registration(&self) -> Result<Entry, Wrong> {
        let number = self.msisdn.parse::<Msisdn>().map_err(|e| ("msisdn", e.to_string()))?;
        let line = registry::Line {
            roaming: self.roaming,
            suspended: self.suspended,
            spam_block: self.spam_block,
            over_limit: self.over_limit,
            ps_roaming: self.ps_roaming,
        };
        Entry::of(Kind::Line, "msisdn", number.to_string(), &line)
    }
}

/// `local@domain`, as both mail and XMPP have it.
fn address(key: &'static str, text: Option<&str>) -> Result<Option<Box<str>>, Wrong> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
    let good = text.len() <= 320
        && text.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
        && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if good { Ok(Some(text.into())) } else { Err((key, "is not an address such as alice@mail.test".to_owned())) }
}

fn hex<const N: usize>(key: &'static str, text: &str) -> Result<[u8; N], Wrong> {
    let mut bytes = [0u8; N];
    let wrong = || (key, format!("must be {} hexadecimal digits", 2 * N));
    if text.len() != 2 * N || !text.is_ascii() {
        return Err(wrong());
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str) -> UserEntry {
        UserEntry { id: id.to_owned(), password: Some("zanzibar".to_owned()), ..UserEntry::default() }
    }

    /// RFC 2617's and RFC 7616's HA1 is plain: MD5 and SHA-256 over `user:realm:password`.
    #[test]
    fn passwords_become_ha1_for_the_domain() {
        let user = UserEntry { id: "bob".into(), ..entry("bob") }.user("biloxi.com").unwrap();
        let hex: String = user.secrets.ha1_md5.iter().map(|b| format!("{b:02x}")).collect();
        // md5("bob:biloxi.com:zanzibar"), as in RFC 3665 §2.1's example.
        assert_eq!(hex, "12af60467a33e8518da5c68bbff12b11");
    }

    #[test]
    fn hashes_may_replace_the_password() {
        let made = entry("bob").user("x.test").unwrap();
        let text = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let moved = UserEntry {
            password: None,
            ha1_md5: Some(text(&made.secrets.ha1_md5)),
            ha1_sha256: Some(text(&made.secrets.ha1_sha256)),
            ..entry("bob")
        };
        let stored = moved.user("x.test").unwrap().secrets;
        assert_eq!((stored.ha1_md5, stored.ha1_sha256), (made.secrets.ha1_md5, made.secrets.ha1_sha256));
        assert_eq!(UserEntry { ha1_sha256: None, ..moved.clone() }.user("x.test").unwrap_err().0, "ha1_md5");
        assert_eq!(UserEntry { ha1_md5: Some("zz".into()), ..moved }.user("x.test").unwrap_err().0, "ha1_md5");
    }

    #[test]
    fn call_settings_are_checked() {
        let with = |settings: CallEntry| UserEntry { call_settings: settings, ..entry("a") }.user("x.test");
        let forward = |uri: &str| CallEntry { forward_busy: Some(uri.into()), ..CallEntry::default() };
        assert!(with(forward("tel:+81312345678")).is_ok());
        assert_eq!(with(forward("mailto:a@b")).unwrap_err().0, "call_settings.forward_busy");
        let late = CallEntry { no_answer_seconds: Some(500), ..CallEntry::default() };
        assert_eq!(with(late).unwrap_err().0, "call_settings.no_answer_seconds");
        let prefixes = CallEntry { bar_outgoing_prefixes: vec!["+1900x".into()], ..CallEntry::default() };
        assert_eq!(with(prefixes).unwrap_err().0, "call_settings.bar_outgoing_prefixes");
    }

    #[test]
    fn a_sim_needs_no_password() {
        let aka = AkaEntry { k: "00".repeat(16), opc: Some("11".repeat(16)), op: None, amf: amf() };
        let made = |password: Option<&str>, aka: &AkaEntry| {
            UserEntry { password: password.map(str::to_owned), aka: Some(aka.clone()), ..entry("a") }.user("x.test")
        };
        let keys = made(None, &aka).unwrap().secrets.aka.unwrap();
        assert_eq!((keys.opc, keys.only), ([0x11; 16], true));
        assert!(!made(Some("p"), &aka).unwrap().secrets.aka.unwrap().only);
        // TS 35.208 test set 1.
        let op = AkaEntry {
            k: "465b5ce8b199b49faa5f0a2ee238a6bc".into(),
            op: Some("cdc202d5123e20f62b6d676ac72cb318".into()),
            opc: None,
            ..aka.clone()
        };
        assert_eq!(made(None, &op).unwrap().secrets.aka.unwrap().opc[..4], [0xcd, 0x63, 0xcb, 0x71]);
        let both = AkaEntry { opc: aka.opc.clone(), ..op };
        assert_eq!(made(None, &both).unwrap_err().0, "aka.opc");
    }
}
