//! Keys of server dialback (XEP-0220), made as XEP-0185 recommends.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Makes and recognises the keys of our domain. Nodes with one secret recognise each other's.
#[derive(Clone)]
pub struct Keys {
    /// In hexadecimal.
    secret: String,
}

impl Keys {
    pub fn new(secret: &[u8]) -> Keys {
        Keys { secret: hex(&Sha256::digest(secret)) }
    }

    /// For the stream with this id from `originating` to `receiving`.
    pub fn key(&self, receiving: &str, originating: &str, stream: &str) -> String {
        #[allow(clippy::expect_used)]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("any length is a key");
        mac.update(format!("{receiving} {originating} {stream}").as_bytes());
        hex(&mac.finalize().into_bytes())
    }

    /// Whether `key` is the one of that stream.
    pub fn is_ours(&self, key: &str, receiving: &str, originating: &str, stream: &str) -> bool {
        self.key(receiving, originating, stream).as_bytes().ct_eq(key.trim().as_bytes()).into()
    }
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut text, octet| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// XEP-0185 §3.
    #[test]
    fn the_key_of_the_example_comes_out() {
        let keys = Keys::new(b"s3cr3tf0rd14lb4ck");
        let key = keys.key("xmpp.example.com", "example.org", "D60000229F");
        assert_eq!(key, "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643");
        assert!(keys.is_ours(&key, "xmpp.example.com", "example.org", "D60000229F"));
        assert!(!keys.is_ours(&key, "example.org", "xmpp.example.com", "D60000229F"));
        assert!(!keys.is_ours("", "xmpp.example.com", "example.org", "D60000229F"));
    }
}
