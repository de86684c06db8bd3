//! Public identities: the address-of-record and the telephone number, each in one canonical spelling.

use std::borrow::Borrow;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sip_proto::uri::Uri;

/// Longest user part taken, in bytes after normalisation. RFC 3261 sets none; numbers and mailbox names are far shorter.
pub const MAX_USER: usize = 256;
/// Longest domain taken, in bytes (RFC 1035 §2.3.4, in text form).
pub const MAX_DOMAIN: usize = 255;

/// Why bytes from a peer (or an operator) are not an identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("no user part")]
    NoUser,
    #[error("user part longer than {MAX_USER} bytes")]
    UserTooLong,
    #[error("character not allowed in a user part")]
    UserSyntax,
    #[error("domain empty or longer than {MAX_DOMAIN} bytes")]
    DomainLength,
    #[error("character not allowed in a domain")]
    DomainSyntax,
    #[error("not an international number: '+' and 5 to 15 digits")]
    Number,
}

/// An address-of-record without its scheme, `user@domain`, in the one spelling that equal URIs share (RFC 3261 §10.3
/// step 5, §19.1.4): escapes of characters that need none are undone, the others written in upper case, the domain in lower case.
///
/// The user part keeps its case. Cloning costs one reference count; equal addresses are equal byte for byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Aor(Arc<str>);

impl Aor {
    /// From the parts of a SIP or SIPS URI as they stand there: the user still escaped, without password, parameters or port.
    pub fn from_parts(user: &[u8], domain: &[u8]) -> Result<Aor, IdentityError> {
        Self::write_parts(user, domain, |text| Aor(Arc::from(text)))
    }

    /// As [`from_parts`](Self::from_parts), but lends the canonical text to `with` instead of allocating it: for look-ups.
    pub fn write_parts<R>(user: &[u8], domain: &[u8], with: impl FnOnce(&str) -> R) -> Result<R, IdentityError> {
        let mut room = [0u8; MAX_USER + 1 + MAX_DOMAIN];
        let mut len = canonical_user(user, &mut room[..MAX_USER])?;
        room[len] = b'@';
        len += 1;
        len += canonical_domain(domain, &mut room[len..])?;
        // Only ASCII was written, so this cannot fail.
        let text = std::str::from_utf8(&room[..len]).map_err(|_| IdentityError::UserSyntax)?;
        Ok(with(text))
    }

    /// `user@domain`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user part, canonical, escapes kept where a URI needs them.
    pub fn user(&self) -> &str {
        self.split().0
    }

    /// The domain, lower case.
    pub fn domain(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        // A user part holds no bare '@' (it would be "%40"), so the first one is the border.
        self.0.split_once('@').unwrap_or((&self.0, ""))
    }
}

impl FromStr for Aor {
    type Err = IdentityError;

    /// Reads `user@domain`.
    fn from_str(text: &str) -> Result<Aor, IdentityError> {
        let (user, domain) = text.split_once('@').ok_or(IdentityError::NoUser)?;
        Aor::from_parts(user.as_bytes(), domain.as_bytes())
    }
}

impl fmt::Display for Aor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Aor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Aor({})", self.0)
    }
}

impl Borrow<str> for Aor {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Aor {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for Aor {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Aor {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Aor, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn canonical_user(user: &[u8], out: &mut [u8]) -> Result<usize, IdentityError> {
    if user.is_empty() {
        return Err(IdentityError::NoUser);
    }
    // Nearly always.
    if user.iter().all(|b| is_user_byte(*b)) {
        out.get_mut(..user.len()).ok_or(IdentityError::UserTooLong)?.copy_from_slice(user);
        return Ok(user.len());
    }
    let mut len = 0;
    let mut rest = user;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped;
        let piece: &[u8] = if first == b'%' {
            let [high, low, after @ ..] = tail else { return Err(IdentityError::UserSyntax) };
            let byte = hex(*high)? << 4 | hex(*low)?;
            rest = after;
            escaped = [b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()];
            if is_user_byte(byte) { &[byte] } else { &escaped }
        } else if is_user_byte(first) {
            rest = tail;
            &[first]
        } else {
            return Err(IdentityError::UserSyntax);
        };
        out.get_mut(len..len + piece.len()).ok_or(IdentityError::UserTooLong)?.copy_from_slice(piece);
        len += piece.len();
    }
    Ok(len)
}

fn canonical_domain(domain: &[u8], out: &mut [u8]) -> Result<usize, IdentityError> {
    // "example.com." and "example.com" are the same host.
    let domain = domain.strip_suffix(b".").unwrap_or(domain);
    if domain.ends_with(b".") {
        // An empty label.
        return Err(IdentityError::DomainSyntax);
    }
    if domain.is_empty() || domain.len() > MAX_DOMAIN || domain.len() > out.len() {
        return Err(IdentityError::DomainLength);
    }
    let inner = match domain {
        [b'[', inner @ .., b']'] => inner,
        _ if domain.contains(&b':') => return Err(IdentityError::DomainSyntax),
        _ => domain,
    };
    if !inner.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':')) {
        return Err(IdentityError::DomainSyntax);
    }
    for (to, from) in out.iter_mut().zip(domain) {
        *to = from.to_ascii_lowercase();
    }
    Ok(domain.len())
}

/// RFC 3261 §25.1: `unreserved / user-unreserved`.
fn is_user_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&b)
}

fn hex(b: u8) -> Result<u8, IdentityError> {
    match b {
        b'0'..=b'9' => Ok(b - b'0'),
        b'a'..=b'f' => Ok(b - b'a' + 10),
        b'A'..=b'F' => Ok(b - b'A' + 10),
        _ => Err(IdentityError::UserSyntax),
    }
}

/// A global telephone number (E.164; RFC 3966 `global-number-digits`): `+` and 5 to 15 digits.
///
/// Held as the number that the digits spell: no country code begins with 0, so the spelling is unique.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Msisdn(NonZeroU64);

impl Msisdn {
    /// Reads `+81-90-1234-5678`; the visual separators `-.()` of RFC 3966 are skipped. Parameters must be cut off before.
    pub fn parse(text: &[u8]) -> Result<Msisdn, IdentityError> {
        let digits = text.strip_prefix(b"+").ok_or(IdentityError::Number)?;
        let (mut value, mut count) = (0u64, 0u32);
        for &b in digits {
            match b {
                b'0'..=b'9' if count < 15 => {
                    value = value * 10 + u64::from(b - b'0');
                    count += 1;
                    if value == 0 {
                        return Err(IdentityError::Number);
                    }
                }
                b'-' | b'.' | b'(' | b')' if digits.len() <= 32 => {}
                _ => return Err(IdentityError::Number),
            }
        }
        match NonZeroU64::new(value) {
            Some(value) if count >= 5 => Ok(Msisdn(value)),
            _ => Err(IdentityError::Number),
        }
    }

    /// From the user part of a SIP URI, which may carry telephone parameters (`+8190…;phone-context=…`, RFC 3261 §19.1.6).
    pub fn from_user(user: &[u8]) -> Result<Msisdn, IdentityError> {
        Msisdn::parse(user.split(|b| *b == b';').next().unwrap_or(user))
    }

    /// The number that a `tel:` URI means, or a SIP URI with `user=phone` (RFC 3966 §5.1, RFC 3261 §19.1.6).
    pub fn of(uri: &Uri<'_>) -> Option<Msisdn> {
        let mut digits = Vec::with_capacity(16);
        uri.phone()?.write_e164(&mut digits).then_some(())?;
        Msisdn::parse(&digits).ok()
    }

    /// The digits as a number, country code first.
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }

    /// The SIP address-of-record of this number in `domain`: `+81…@domain`.
    pub fn aor(self, domain: &str) -> Result<Aor, IdentityError> {
        Aor::from_parts(self.to_string().as_bytes(), domain.as_bytes())
    }
}

impl FromStr for Msisdn {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Msisdn, IdentityError> {
        Msisdn::parse(text.as_bytes())
    }
}

impl fmt::Display for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

impl fmt::Debug for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Debug output ends in logs, and logs hold no numbers.
        f.write_str("Msisdn(…)")
    }
}

impl Serialize for Msisdn {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Msisdn {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Msisdn, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_addresses_share_one_spelling() {
        let plain = Aor::from_parts(b"alice", b"Example.COM").unwrap();
        assert_eq!(plain, Aor::from_parts(b"%61l%69ce", b"example.com.").unwrap());
        assert_eq!(plain.as_str(), "alice@example.com");
        assert_ne!(plain, Aor::from_parts(b"Alice", b"example.com").unwrap(), "the user part keeps its case");
    }

    #[test]
    fn an_escape_that_is_needed_stays_in_upper_case() {
        let aor = Aor::from_parts(b"a%40b%c3%a9", b"x").unwrap();
        assert_eq!((aor.user(), aor.domain()), ("a%40b%C3%A9", "x"));
        assert_eq!(aor.as_str().parse::<Aor>().unwrap(), aor);
    }

    #[test]
    fn malformed_addresses_are_refused_with_their_reason() {
        use IdentityError::*;
        let cases: [(&[u8], &[u8], IdentityError); 10] = [
            (b"", b"x", NoUser),
            (b"a b", b"x", UserSyntax),
            (b"a%4", b"x", UserSyntax),
            (b"a%zz", b"x", UserSyntax),
            (b"a\xc3\xa9", b"x", UserSyntax),
            (b"a", b"", DomainLength),
            (b"a", b"x\r\n", DomainSyntax),
            (b"a", b"x:5060", DomainSyntax),
            (b"a", b"x..", DomainSyntax),
            (b"a", b"..", DomainSyntax),
        ];
        for (user, domain, error) in cases {
            assert_eq!(Aor::from_parts(user, domain), Err(error));
        }
        assert_eq!(Aor::from_parts(&[b'a'; MAX_USER + 1], b"x"), Err(UserTooLong));
        assert_eq!(Aor::from_parts(b"a", &[b'd'; MAX_DOMAIN + 1]), Err(DomainLength));
        assert!(Aor::from_parts(&[b'a'; MAX_USER], &[b'd'; MAX_DOMAIN]).is_ok());
        assert!(Aor::from_parts(b"a", b"[2001:db8::1]").is_ok());
    }

    #[test]
    fn numbers_lose_their_visual_separators() {
        let number = Msisdn::parse(b"+81-90(1234).5678").unwrap();
        assert_eq!(number.to_string(), "+819012345678");
        assert_eq!(number, Msisdn::from_user(b"+819012345678;phone-context=x").unwrap());
        assert_eq!(number.aor("localhost").unwrap().as_str(), "+819012345678@localhost");
    }

    #[test]
    fn what_is_not_an_international_number_is_refused() {
        for text in ["", "+", "81901234", "+1234", "+1234567890123456", "+0123456", "+12a45", "+12 345"] {
            assert_eq!(Msisdn::parse(text.as_bytes()), Err(IdentityError::Number), "{text}");
        }
    }

    #[test]
    fn a_number_does_not_show_in_debug_output() {
        assert!(!format!("{:?}", Msisdn::parse(b"+819012345678").unwrap()).contains("8190"));
    }

    proptest! {
        #[test]
        fn a_canonical_address_is_its_own_canonical_form(user in proptest::collection::vec(any::<u8>(), 0..40), domain in "[a-zA-Z0-9.-]{1,20}") {
            if let Ok(aor) = Aor::from_parts(&user, domain.as_bytes()) {
                prop_assert_eq!(aor.as_str().parse::<Aor>().unwrap(), aor);
            }
        }

        #[test]
        fn numbers_round_trip(n in 10_000u64..999_999_999_999_999) {
            let text = format!("+{n}");
            prop_assert_eq!(Msisdn::parse(text.as_bytes()).unwrap().to_string(), text);
        }
    }
}
