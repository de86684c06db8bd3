//! How clients prove themselves: by address, and by a secret or a certificate where there is one.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Block, Wrong};

/// What stands between a client and its name.
#[derive(Clone, Copy, Default, Debug)]
pub struct Lock<'c> {
    /// [`seal`] of the secret, in hexadecimal.
    pub secret_ha1: Option<&'c str>,
    /// SHA-256 of the client certificate (DER), in hexadecimal.
    pub certificate: Option<&'c str>,
    /// Empty: from everywhere.
    pub allow_from: &'c [Block],
}

/// What a request brings.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'r> {
    pub address: Option<IpAddr>,
    /// HTTP Basic, or the like.
    pub basic: Option<(&'r str, &'r str)>,
    /// SHA-256 of the certificate of the TLS connection.
    pub certificate: Option<[u8; 32]>,
}

impl Lock<'_> {
    /// Whether these open it for the client `id`.
    pub fn opens(&self, id: &str, given: &Credentials<'_>) -> bool {
        let near =
            self.allow_from.is_empty() || given.address.is_some_and(|a| self.allow_from.iter().any(|b| b.contains(a)));
        let knows = self.secret_ha1.map(|sealed| {
            let (user, password) = given.basic.unwrap_or_default();
            let made = seal(id, password);
            bool::from(sealed.as_bytes().ct_eq(made.as_bytes())) && user == id && given.basic.is_some()
        });
        let has = self
            .certificate
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

/// Seals a secret that was written in clear: it is empty afterwards.
pub(super) fn seal_away(id: &str, secret: &mut String, sealed: &mut Option<String>) -> Result<(), Wrong> {
    if secret.is_empty() {
        fingerprint_like("secret_ha1", sealed)
    } else {
        *sealed = Some(seal(id, &std::mem::take(secret)));
        Ok(())
    }
}

/// 64 hexadecimal digits in small letters, or nothing.
pub(super) fn fingerprint_like(key: &'static str, text: &mut Option<String>) -> Result<(), Wrong> {
    *text = text.take().filter(|t| !t.is_empty()).map(|t| t.to_ascii_lowercase());
    match text {
        Some(text) if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Err((key, "must be 64 hexadecimal digits".to_owned()))
        }
        _ => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn given<'a>(address: &str, basic: Option<(&'a str, &'a str)>) -> Credentials<'a> {
        Credentials { address: address.parse().ok(), basic, certificate: None }
    }

    #[test]
    fn a_secret_opens_and_the_address_must_fit_as_well() {
        let (sealed, from) = (seal("12345678901", "s3cret"), ["127.0.0.0/8".parse().unwrap()]);
        let lock = Lock { secret_ha1: Some(&sealed), allow_from: &from, certificate: None };
        let opens = |address, basic| lock.opens("12345678901", &given(address, basic));
        assert!(opens("127.0.0.9", Some(("12345678901", "s3cret"))));
        assert!(!opens("10.0.0.9", Some(("12345678901", "s3cret"))));
        assert!(!opens("127.0.0.9", Some(("12345678901", "secret"))));
        assert!(!opens("127.0.0.9", Some(("10000000000", "s3cret"))));
        assert!(!opens("127.0.0.9", None));
    }

    #[test]
    fn without_a_secret_the_address_alone_decides() {
        let from = ["127.0.0.1".parse().unwrap()];
        let lock = Lock { allow_from: &from, ..Lock::default() };
        assert!(lock.opens("1", &given("127.0.0.1", None)) && !lock.opens("1", &given("127.0.0.2", None)));
        assert!(!Lock::default().opens("1", &given("127.0.0.1", None)), "no lock is no licence");
    }

    #[test]
    fn a_pinned_certificate_opens_without_the_secret() {
        let (sealed, pinned) = (seal("1", "x"), hex(&[7; 32]));
        let lock = Lock { secret_ha1: Some(&sealed), certificate: Some(&pinned), allow_from: &[] };
        let with = |certificate| lock.opens("1", &Credentials { certificate, ..given("::1", None) });
        assert!(with(Some([7; 32])) && !with(Some([8; 32])) && !with(None));
    }

    #[test]
    fn a_clear_secret_does_not_stay() {
        let (mut secret, mut sealed) = ("s3cret".to_owned(), None);
        seal_away("1", &mut secret, &mut sealed).unwrap();
        assert_eq!((secret.as_str(), sealed.clone()), ("", Some(seal("1", "s3cret"))));
        seal_away("1", &mut secret, &mut sealed).unwrap();
        assert_eq!(sealed, Some(seal("1", "s3cret")));
        assert_eq!(seal_away("1", &mut secret, &mut Some("zz".into())).unwrap_err().0, "secret_ha1");
    }
}
