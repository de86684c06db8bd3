//! Addresses of XMPP (RFC 7622) and their mapping to SIP's (RFC 7247 §6).

use std::fmt;
use std::str::FromStr;

use sip_proto::uri::{Scheme, Uri};

/// Longest part of an address, in bytes (RFC 7622 §3.1).
pub const MAX_PART: usize = 1023;

/// `local@domain/resource`. The first two are in lower case: they are compared without regard to it.
///
/// A domain is a host name in ASCII; one beyond it has to be given in its A-labels (`xn--…`).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Jid {
    local: Option<Box<str>>,
    domain: Box<str>,
    resource: Option<Box<str>>,
}

/// Not an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an XMPP address")]
pub struct BadJid;

impl Jid {
    /// `local` as a JID has it: escaped where it needs to be.
    pub fn new(local: Option<&str>, domain: &str) -> Result<Jid, BadJid> {
        let local = local.map(|local| {
            let local = local.to_lowercase();
            let good = (1..=MAX_PART).contains(&local.len()) && !local.chars().any(forbidden);
            if good { Ok(Box::from(local)) } else { Err(BadJid) }
        });
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if domain.len() > 253 || !domain.split('.').all(label) {
            return Err(BadJid);
        }
        Ok(Jid { local: local.transpose()?, domain: domain.to_ascii_lowercase().into(), resource: None })
    }

    pub fn local(&self) -> Option<&str> {
        self.local.as_deref()
    }

    pub fn domain(&self) -> &str {
        &self.domain
    }

    pub fn resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    /// Without its resource.
    pub fn bare(&self) -> Jid {
        Jid { resource: None, ..self.clone() }
    }

    /// The address that stands for a SIP or tel URI (RFC 7247 §6.2); `None` for any other and for those of servers.
    pub fn from_sip(uri: &str, domain: &str) -> Option<Jid> {
        let uri = Uri::parse(uri.as_bytes())?;
        match uri.scheme() {
            Scheme::Sip => {
                // Parameters of the user part are a telephone number's, such as ;phone-context.
                let user = uri.user()?.split(|b| *b == b';').next()?;
                let host = std::str::from_utf8(uri.host()).ok()?;
                // In lower case before it is escaped: `\5C` is no escape, and would become one.
                Jid::new(Some(&escape(&unpercent(user)?.to_lowercase())?), host).ok()
            }
            Scheme::Tel => {
                let digits: Vec<u8> = uri.phone()?.digits().collect();
                Jid::new(Some(&format!("+{}", std::str::from_utf8(&digits).ok()?)), domain).ok()
            }
            // RFC 7247 §8: what asks for TLS to the very end is not led where nobody promises it.
            _ => None,
        }
    }

    /// `sip:` URI for an address (RFC 7247 §6.3), without its resource; `None` for that of a server.
    pub fn to_sip(&self) -> Option<String> {
        let mut uri = String::from("sip:");
        for byte in unescape(self.local()?).bytes() {
            // A semicolon may stand in a user part, but begins parameters in one of ours.
            if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,?/".contains(&byte) {
                uri.push(char::from(byte));
            } else {
                uri.push_str(&format!("%{byte:02X}"));
            }
        }
        uri.push('@');
        uri.push_str(&self.domain);
        Some(uri)
    }
}

impl FromStr for Jid {
    type Err = BadJid;

    /// The resource begins at the first slash, so an `@` behind that divides nothing (RFC 7622 §3.2).
    fn from_str(text: &str) -> Result<Jid, BadJid> {
        let (bare, resource) = match text.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource)),
            None => (text, None),
        };
        let jid = match bare.split_once('@') {
            Some((local, domain)) => Jid::new(Some(local), domain)?,
            None => Jid::new(None, bare)?,
        };
        let bad = |r: &str| !(1..=MAX_PART).contains(&r.len()) || r.chars().any(char::is_control);
        match resource {
            Some(resource) if bad(resource) => Err(BadJid),
            resource => Ok(Jid { resource: resource.map(Box::from), ..jid }),
        }
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(local) = &self.local {
            write!(f, "{local}@")?;
        }
        f.write_str(&self.domain)?;
        match &self.resource {
            Some(resource) => write!(f, "/{resource}"),
            None => Ok(()),
        }
    }
}

/// Not in a local part (RFC 7622 §3.3.1).
fn forbidden(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "\"&'/:<>@".contains(c)
}

/// What has an escape (XEP-0106 §4.2), the backslash apart.
const ESCAPED: &[(char, &str)] = &[
    (' ', r"\20"),
    ('"', r"\22"),
    ('&', r"\26"),
    ('\'', r"\27"),
    ('/', r"\2f"),
    (':', r"\3a"),
    ('<', r"\3c"),
    ('>', r"\3e"),
    ('@', r"\40"),
];
const BACKSLASH: &str = r"\5c";

/// `None` where an escape would stand at either end for a blank, which no local part may have there.
fn escape(text: &str) -> Option<String> {
    if text.starts_with(' ') || text.ends_with(' ') {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        match ESCAPED.iter().find(|(plain, _)| *plain == c) {
            Some((_, escape)) => out.push_str(escape),
            // Only where it would read as the beginning of an escape.
            None if c == '\\' && is_escape(&text[at..]) => out.push_str(BACKSLASH),
            None => out.push(c),
        }
    }
    Some(out)
}

fn is_escape(text: &str) -> bool {
    ESCAPED.iter().map(|(_, escape)| *escape).chain([BACKSLASH]).any(|escape| text.starts_with(escape))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let found = ESCAPED.iter().copied().chain([('\\', BACKSLASH)]).find(|(_, escape)| rest.starts_with(escape));
        let (plain, length) = found.map_or((c, c.len_utf8()), |(plain, escape)| (plain, escape.len()));
        out.push(plain);
        rest = &rest[length..];
    }
    out
}

fn unpercent(text: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => *byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from_sip(uri: &str) -> Option<String> {
        Jid::from_sip(uri, "home.test").map(|jid| jid.to_string())
    }

    #[test]
    fn an_address_has_its_parts() {
        let jid: Jid = "Juliet@IM.Example.com/Balcony@x/y".parse().unwrap();
        assert_eq!(
            (jid.local(), jid.domain(), jid.resource()),
            (Some("juliet"), "im.example.com", Some("Balcony@x/y"))
        );
        assert_eq!("example.com.".parse::<Jid>().unwrap().to_string(), "example.com");
        let long = format!("{}@x", "a".repeat(MAX_PART + 1));
        for bad in ["", "@x", "a@", "a b@x", "a@b@c", "a@x/", "<@x", "a@x y", "a@-_", "a@.", "a@x..y", &long] {
            assert_eq!(bad.parse::<Jid>(), Err(BadJid), "{bad}");
        }
    }

    #[test]
    fn sip_addresses_have_a_jid() {
        assert_eq!(
            from_sip("sip:+819012345678@isthmus.test;user=phone").as_deref(),
            Some("+819012345678@isthmus.test")
        );
        assert_eq!(from_sip("sip:5555;phone-context=x@isthmus.test").as_deref(), Some("5555@isthmus.test"));
        assert_eq!(from_sip("tel:+81-90-1234-5678").as_deref(), Some("+819012345678@home.test"));
        // RFC 7247 §6.2's example.
        assert_eq!(from_sip("sip:tsch%FCss@x.test"), None);
        assert_eq!(from_sip("sip:tsch%C3%BCss@x.test").as_deref(), Some("tschüss@x.test"));
        assert_eq!(from_sip("sip:o'hara@x.test").as_deref(), Some(r"o\27hara@x.test"));
        assert_eq!(from_sip("sip:A%5C5Cb@x.test").as_deref(), Some(r"a\5c5cb@x.test"));
        for none in ["sips:alice@x.test", "sip:x.test", "sip:%20@x.test", "mailto:a@x.test", "sip:a%2@x.test"] {
            assert_eq!(from_sip(none), None, "{none}");
        }
    }

    #[test]
    fn jids_have_a_sip_address() {
        let to_sip = |jid: &str| jid.parse::<Jid>().unwrap().to_sip();
        assert_eq!(to_sip("juliet@example.com/balcony").as_deref(), Some("sip:juliet@example.com"));
        assert_eq!(to_sip(r"d\27artagnan@example.com").as_deref(), Some("sip:d'artagnan@example.com"));
        assert_eq!(to_sip("tschüss@x.test").as_deref(), Some("sip:tsch%C3%BCss@x.test"));
        assert_eq!(to_sip("a;b@x.test").as_deref(), Some("sip:a%3Bb@x.test"));
        assert_eq!(to_sip("example.com"), None);
    }

    proptest! {
        #[test]
        fn what_is_mapped_comes_back(local in r#"[a-z0-9 "&'/:;<>@\\#%ü]{1,12}"#) {
            if let Some(escaped) = escape(&local) {
                prop_assert_eq!(unescape(&escaped), local.clone());
                let jid = Jid::new(Some(&escaped), "x.test").unwrap();
                let back = Jid::from_sip(&jid.to_sip().unwrap(), "x.test");
                prop_assert_eq!(back, Some(jid));
            }
        }
    }
}
