//! The hash of a file as its selector names it (RFC 5547 §6).

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use media_sdp::file::{Digest, HashAlgorithm};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use crate::control::content::Content;

/// What a description says of a file that is to come.
#[derive(Clone, Copy, Default, Debug)]
pub struct Promised {
    pub size: Option<u64>,
    pub hash: Option<(HashAlgorithm, Digest)>,
}

impl Promised {
    /// Whether this is that file.
    pub async fn is_kept(&self, content: &Content) -> Result<bool, String> {
        if self.size.is_none() && self.hash.is_none() {
            return Ok(true);
        }
        let mut hashing = self.hash.map(|(algorithm, _)| Hashing::new(algorithm));
        let mut length = 0;
        let bytes = content.stream();
        futures_util::pin_mut!(bytes);
        while let Some(piece) = bytes.try_next().await? {
            length += piece.len() as u64;
            if let Some(hashing) = &mut hashing {
                hashing.update(&piece);
            }
        }
        let same = hashing.zip(self.hash).is_none_or(|(hashing, (_, digest))| hashing.is(&digest));
        Ok(same && self.size.is_none_or(|size| size == length))
    }
}

/// The SHA-1 of bytes, as `a=file-selector` spells it.
pub async fn sha1(bytes: impl Stream<Item = Result<Bytes, String>>) -> Result<String, String> {
    let mut hashing = Hashing::new(HashAlgorithm::Sha1);
    futures_util::pin_mut!(bytes);
    while let Some(piece) = bytes.try_next().await? {
        hashing.update(&piece);
    }
    let octets: Vec<String> = hashing.0.finish().as_ref().iter().map(|b| format!("{b:02X}")).collect();
    Ok(octets.join(":"))
}

/// A hash of bytes that come one after the other.
struct Hashing(Context);

impl Hashing {
    fn new(algorithm: HashAlgorithm) -> Hashing {
        Hashing(Context::new(match algorithm {
            // What RFC 5547 asks for; it tells one file from another, and proves nothing.
            HashAlgorithm::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            HashAlgorithm::Sha256 => &SHA256,
        }))
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn is(self, digest: &Digest) -> bool {
        let found = self.0.finish();
        found.as_ref() == &digest[..found.as_ref().len()]
    }
}
