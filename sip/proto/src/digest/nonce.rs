//! Nonces that the server need not remember: issue time and a MAC over it (RFC 7616 §3.3 leaves the making to the server).
//!
//! ```text
//! base64( [RAND(16) AUTN(16) XRES(17)] | seconds(4) | unique(8) | MAC over all before it(12) )
//! ```
//! The MAC is one AES-128 block over seconds, unique and the kind of the nonce, under a key made of the house's and the realm;
//! for AKA, RAND and AUTN are chained behind it (CBC-MAC; the kind in the first block tells how many blocks follow).
//!
//! The part in brackets is there for AKA only (RFC 3310 §3.2; what follows AUTN is its "server specific data"). XRES, with its
//! length, is sealed for the one user that was challenged, so that any node of the house can judge the answer without
//! having kept anything, and nobody can answer a challenge of his own SIM in the name of another.

use aes::Aes128;
use aes::cipher::BlockCipherEncrypt;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::aka::{Response, Vector};

const STAMP: usize = 12;
const TAG: usize = 12;
/// RAND, AUTN, and XRES sealed.
const AKA: usize = 32 + XRES;
/// 16 octets and their number.
const XRES: usize = 17;
const LONGEST: usize = AKA + STAMP + TAG;
const TEXT: usize = 104;

/// Makes and checks the nonces of one realm. Servers with the same key know each other's nonces.
#[derive(Clone)]
pub struct Nonces {
    mac: Aes128,
    /// What expected answers are sealed with.
    seal: [u8; 32],
    lifetime: u32,
}

/// A nonce's text on the stack.
#[derive(Clone, Copy)]
pub struct Nonce {
    text: [u8; TEXT],
    len: usize,
}

impl std::ops::Deref for Nonce {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// What a nonce said about itself, once its MAC was right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Issued {
    /// Unix seconds.
    pub at: u32,
    /// Differs between any two nonces; evenly spread.
    pub id: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NonceAge {
    /// Ours, and not older than the lifetime.
    Fresh(Issued),
    /// Ours, too old (or from the future, when a clock was set back).
    Expired,
    /// Not made with this key for this realm.
    Foreign,
}

impl Nonces {
    /// `lifetime` in seconds, at least 1.
    pub fn new(key: &[u8; 32], realm: &[u8], lifetime: u32) -> Nonces {
        let derived = |purpose: &[u8]| {
            let length = (realm.len() as u32).to_be_bytes();
            hmac(key, [purpose, &length, realm])
        };
        let mut key = [0; 16];
        key.copy_from_slice(&derived(b"nonce")[..16]);
        Nonces { mac: Aes128::new(&key.into()), seal: derived(b"aka"), lifetime: lifetime.max(1) }
    }

    /// Seconds that a nonce is good for.
    pub fn lifetime(&self) -> u32 {
        self.lifetime
    }

    /// A new nonce: 32 characters. `now` in unix seconds; `unique` must not repeat within a second: a counter beside a
    /// number of the node will do.
    pub fn make(&self, now: u64, unique: u64) -> Nonce {
        self.make_with(&[], now, unique)
    }

    /// A nonce for AKAv1-MD5: 100 characters, for this user alone.
    pub fn make_aka(&self, vector: &Vector, user: &[u8], now: u64, unique: u64) -> Nonce {
        let mut head = [0u8; AKA];
        head[..16].copy_from_slice(&vector.rand);
        head[16..32].copy_from_slice(&vector.autn);
        let xres = vector.xres.as_bytes();
        head[32..32 + xres.len()].copy_from_slice(xres);
        head[AKA - 1] = xres.len() as u8;
        let stream = self.stream(&head[..32], &stamp(now, unique), user);
        head[32..].iter_mut().zip(stream).for_each(|(h, s)| *h ^= s);
        self.make_with(&head, now, unique)
    }

    /// What a nonce of [`Nonces::make_aka`] expects of that user, if it is one of ours, however old. For another user, some
    /// octets that nobody knows, or none.
    pub fn xres(&self, nonce: &[u8], user: &[u8]) -> Option<Response> {
        let mut raw = [0u8; TEXT];
        if STANDARD.decode_slice(nonce, &mut raw) != Ok(LONGEST) {
            return None;
        }
        let (said, tag) = raw[..LONGEST].split_at(LONGEST - TAG);
        if !bool::from(self.tag(said).ct_eq(tag)) {
            return None;
        }
        let (head, stamp) = said.split_at(AKA);
        let stream = self.stream(&head[..32], stamp, user);
        let mut sealed = [0u8; XRES];
        head[32..].iter().zip(stream).zip(&mut sealed).for_each(|((h, s), to)| *to = h ^ s);
        Response::new(sealed.get(..usize::from(sealed[XRES - 1]))?)
    }

    /// Never twice the same, because no stamp is: two XRES are never sealed alike.
    fn stream(&self, challenge: &[u8], stamp: &[u8], user: &[u8]) -> [u8; 32] {
        hmac(&self.seal, [challenge, stamp, user])
    }

    fn make_with(&self, head: &[u8], now: u64, unique: u64) -> Nonce {
        let mut raw = [0u8; LONGEST];
        let end = head.len() + STAMP;
        raw[..head.len()].copy_from_slice(head);
        raw[head.len()..end].copy_from_slice(&stamp(now, unique));
        let tag = self.tag(&raw[..end]);
        raw[end..end + TAG].copy_from_slice(&tag);
        let mut text = [0u8; TEXT];
        // Base64 of LONGEST octets takes 100 characters.
        let len = STANDARD.encode_slice(&raw[..end + TAG], &mut text).unwrap_or(0);
        Nonce { text, len }
    }

    /// Judges a nonce that came back. `now` in unix seconds.
    pub fn check(&self, nonce: &[u8], now: u64) -> NonceAge {
        let mut raw = [0u8; TEXT];
        let n = match STANDARD.decode_slice(nonce, &mut raw) {
            Ok(n @ (24 | LONGEST)) => n,
            _ => return NonceAge::Foreign,
        };
        let (said, tag) = raw[..n].split_at(n - TAG);
        let mine = self.tag(said);
        if !bool::from(mine.ct_eq(tag)) {
            return NonceAge::Foreign;
        }
        let stamp = &said[said.len() - STAMP..];
        let at = u32::from_be_bytes([stamp[0], stamp[1], stamp[2], stamp[3]]);
        // Clocks of two nodes may differ a little.
        const SKEW: u32 = 5;
        let age = (now as u32).wrapping_add(SKEW).wrapping_sub(at);
        if age > self.lifetime.saturating_add(SKEW) {
            return NonceAge::Expired;
        }
        let mut id = [0u8; 8];
        id.copy_from_slice(&mine[..8]);
        NonceAge::Fresh(Issued { at, id: u64::from_be_bytes(id) })
    }

    fn tag(&self, said: &[u8]) -> [u8; TAG] {
        let (head, stamp) = said.split_at(said.len() - STAMP);
        let mut block = [0u8; 16];
        block[..STAMP].copy_from_slice(stamp);
        block[STAMP] = (head.len() / 16) as u8;
        let mut block = block.into();
        self.mac.encrypt_block(&mut block);
        for part in head.chunks(16) {
            block.iter_mut().zip(part).for_each(|(b, p)| *b ^= p);
            self.mac.encrypt_block(&mut block);
        }
        let mut tag = [0u8; TAG];
        tag.copy_from_slice(&block[..TAG]);
        tag
    }
}

fn stamp(now: u64, unique: u64) -> [u8; STAMP] {
    let mut stamp = [0; STAMP];
    stamp[..4].copy_from_slice(&(now as u32).to_be_bytes());
    stamp[4..].copy_from_slice(&unique.to_be_bytes());
    stamp
}

fn hmac(key: &[u8; 32], parts: [&[u8]; 3]) -> [u8; 32] {
    // HMAC takes a key of any length.
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any length is a key");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nonces").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn minted(n: &Nonces, now: u64, unique: u64) -> Vec<u8> {
        n.make(now, unique).to_vec()
    }

    #[test]
    fn a_nonce_is_fresh_for_its_lifetime_and_expired_after() {
        let n = Nonces::new(&[7; 32], b"home", 300);
        let nonce = minted(&n, NOW, 1);
        assert_eq!(nonce.len(), 32);
        assert!(matches!(n.check(&nonce, NOW + 300), NonceAge::Fresh(Issued { at, .. }) if u64::from(at) == NOW));
        assert_eq!(n.check(&nonce, NOW + 301), NonceAge::Expired);
        assert!(matches!(n.check(&nonce, NOW - 5), NonceAge::Fresh(_)));
        assert_eq!(n.check(&nonce, NOW - 6), NonceAge::Expired);
    }

    #[test]
    fn a_changed_nonce_or_one_of_another_key_or_realm_is_foreign() {
        let n = Nonces::new(&[7; 32], b"home", 300);
        let nonce = minted(&n, NOW, 1);
        for i in 0..nonce.len() {
            let mut other = nonce.clone();
            other[i] = if other[i] == b'A' { b'B' } else { b'A' };
            assert_eq!(n.check(&other, NOW), NonceAge::Foreign);
        }
        assert_eq!(Nonces::new(&[8; 32], b"home", 300).check(&nonce, NOW), NonceAge::Foreign);
        assert_eq!(Nonces::new(&[7; 32], b"work", 300).check(&nonce, NOW), NonceAge::Foreign);
        assert_eq!(n.check(b"", NOW), NonceAge::Foreign);
        assert_eq!(n.check(&[b'A'; 4000], NOW), NonceAge::Foreign);
    }

    #[test]
    fn nonces_of_one_second_differ() {
        let n = Nonces::new(&[7; 32], b"home", 300);
        assert_ne!(minted(&n, NOW, 1), minted(&n, NOW, 2));
        assert_ne!(n.check(&minted(&n, NOW, 1), NOW), n.check(&minted(&n, NOW, 2), NOW));
    }

    fn vector(res: &[u8]) -> Vector {
        let xres = Response::new(res).unwrap();
        Vector { rand: [1; 16], autn: [2; 16], xres, ck: [0; 16], ik: [0; 16] }
    }

    #[test]
    fn an_aka_nonce_begins_with_rand_and_autn_and_is_checked_whole() {
        let n = Nonces::new(&[7; 32], b"home", 300);
        let mut out = n.make_aka(&vector(&[3; 8]), b"alice", NOW, 3).to_vec();
        assert_eq!(out.len(), 100);
        let raw = STANDARD.decode(&out).unwrap();
        assert_eq!((&raw[..16], &raw[16..32]), (&[1u8; 16][..], &[2u8; 16][..]));
        assert!(matches!(n.check(&out, NOW), NonceAge::Fresh(_)));
        out[0] ^= 1;
        assert_eq!(n.check(&out, NOW), NonceAge::Foreign);
        assert!(n.xres(&out, b"alice").is_none());
    }

    #[test]
    fn the_expected_answer_travels_sealed_for_one_user() {
        let n = Nonces::new(&[7; 32], b"home", 300);
        for res in [&[9u8; 4][..], &[9; 8], &[9; 16]] {
            let nonce = n.make_aka(&vector(res), b"alice", NOW, 3).to_vec();
            assert!(n.xres(&nonce, b"alice").unwrap().as_bytes() == res);
            assert!(n.xres(&nonce, b"bob").is_none_or(|x| x.as_bytes() != res));
            let raw = STANDARD.decode(&nonce).unwrap();
            assert!(!raw.windows(res.len()).any(|w| w == res), "XRES shows");
            assert!(Nonces::new(&[8; 32], b"home", 300).xres(&nonce, b"alice").is_none());
        }
        assert!(n.xres(&minted(&n, NOW, 1), b"alice").is_none());
    }
}
