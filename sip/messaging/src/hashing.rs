//! The hash of a file as its selector names it (RFC 5547 §6).

use media_sdp::file::{Digest, HashAlgorithm};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// A hash of bytes that come one after the other.
pub struct Hashing(Context);

impl Hashing {
    pub fn new(algorithm: HashAlgorithm) -> Hashing {
        Hashing(Context::new(match algorithm {
            // What RFC 5547 asks for; it tells one file from another, and proves nothing.
            HashAlgorithm::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            HashAlgorithm::Sha256 => &SHA256,
        }))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn is(self, digest: &Digest) -> bool {
        let found = self.0.finish();
        found.as_ref() == &digest[..found.as_ref().len()]
    }
}
