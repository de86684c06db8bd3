//! Signed links: who has one may do what it says until it ends, and nobody can make one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::shelf::Id;

/// What a link lets its holder do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grant {
    File,
    Thumbnail,
    /// To go on with the upload.
    Upload,
}

impl Grant {
    pub const ALL: [Grant; 3] = [Grant::File, Grant::Thumbnail, Grant::Upload];

    /// As it stands in the address.
    pub fn as_str(self) -> &'static str {
        match self {
            Grant::File => "file",
            Grant::Thumbnail => "thumbnail",
            Grant::Upload => "upload",
        }
    }
}

/// Why a link is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bad {
    /// Not ours, or changed.
    Forged,
    Expired,
}

/// Makes and checks links.
pub struct Links {
    key: [u8; 32],
}

/// Bytes of a signature: 128 bits cannot be guessed over a network.
const SIGNATURE: usize = 16;

impl Links {
    /// `secret` is shared by all nodes and may serve other purposes too.
    pub fn new(secret: &[u8; 32]) -> Links {
        Links { key: mac(secret, &[b"content links"]) }
    }

    /// The name of a user's upload: the same at every node, and not to be guessed by others.
    pub fn upload(&self, day: u32, owner: &str, tid: &str) -> Id {
        let hash = mac(&self.key, &[b"id", owner.as_bytes(), tid.as_bytes()]);
        let mut number = [0; 16];
        number.copy_from_slice(&hash[..16]);
        Id { day, number }
    }

    /// Path and query below the door's root: `20784/0f…/file?until=1795780000&sig=…`.
    pub fn sign(&self, id: &Id, grant: Grant, until: u64) -> String {
        let signature = URL_SAFE_NO_PAD.encode(self.signature(id, grant, until));
        format!("{id}/{}?until={until}&sig={signature}", grant.as_str())
    }

    pub fn check(&self, id: &Id, grant: Grant, until: u64, signature: &str, unix: u64) -> Result<(), Bad> {
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Bad::Forged)?;
        if !bool::from(self.signature(id, grant, until).ct_eq(signature.as_slice())) {
            return Err(Bad::Forged);
        }
        if unix >= until { Err(Bad::Expired) } else { Ok(()) }
    }

    fn signature(&self, id: &Id, grant: Grant, until: u64) -> [u8; SIGNATURE] {
        let hash =
            mac(&self.key, &[b"link", id.to_string().as_bytes(), grant.as_str().as_bytes(), &until.to_be_bytes()]);
        let mut signature = [0; SIGNATURE];
        signature.copy_from_slice(&hash[..SIGNATURE]);
        signature
    }
}

/// HMAC-SHA-256 over fields, each behind its length so that no two lists of fields are the same bytes.
fn mac(key: &[u8; 32], fields: &[&[u8]]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { unreachable!("HMAC takes keys of any length") };
    for field in fields {
        mac.update(&(field.len() as u64).to_be_bytes());
        mac.update(field);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(link: &str) -> (Id, u64, String) {
        let (path, query) = link.split_once('?').unwrap();
        let id = path.rsplit_once('/').unwrap().0.parse().unwrap();
        let (until, signature) = query.strip_prefix("until=").unwrap().split_once("&sig=").unwrap();
        (id, until.parse().unwrap(), signature.into())
    }

    #[test]
    fn a_link_is_good_for_what_it_says_until_it_ends() {
        let links = Links::new(&[7; 32]);
        let id = links.upload(20_784, "alice", "1");
        let (read, until, signature) = parts(&links.sign(&id, Grant::File, 1_000));
        assert_eq!((read, until), (id, 1_000));
        let check = |id: &Id, grant, until, unix| links.check(id, grant, until, &signature, unix);
        assert_eq!(check(&id, Grant::File, 1_000, 999), Ok(()));
        assert_eq!(check(&id, Grant::File, 1_000, 1_000), Err(Bad::Expired));
        // Another time, another right, another file, another key.
        assert_eq!(check(&id, Grant::File, 1_001, 999), Err(Bad::Forged));
        assert_eq!(check(&id, Grant::Thumbnail, 1_000, 999), Err(Bad::Forged));
        assert_eq!(check(&links.upload(20_784, "alice", "2"), Grant::File, 1_000, 999), Err(Bad::Forged));
        assert_eq!(Links::new(&[8; 32]).check(&id, Grant::File, 1_000, &signature, 1), Err(Bad::Forged));
        for bad in ["", "AAAA", "not base64!"] {
            assert_eq!(links.check(&id, Grant::File, 1_000, bad, 1), Err(Bad::Forged));
        }
    }

    #[test]
    fn an_upload_is_its_owners() {
        let links = Links::new(&[7; 32]);
        assert_eq!(links.upload(1, "alice", "1"), links.upload(1, "alice", "1"));
        assert_ne!(links.upload(1, "alice", "1"), links.upload(1, "bob", "1"));
        assert_ne!(links.upload(1, "alice", "bob"), links.upload(1, "aliceb", "ob"));
    }
}
