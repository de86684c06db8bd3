//! What the proxy writes into its Record-Route for itself, and knows again when a request of the dialog brings it back:
//! that it let the call pass, and what it hid from the callee.
//!
//! All nodes of a cluster have one key, so a dialog outlives the node that saw its beginning. What is hidden is encrypted
//! under a tag over all of it (a synthetic initialisation vector, as in RFC 5297): AES-128 in counter mode, and SipHash-2-4
//! of 128 bits over the Call-ID and the text. The same text in the same call gives the same token, which tells nobody
//! anything: a dialog has one of each kind.

use std::hash::Hasher as _;

use aes::Aes128;
use aes::cipher::BlockCipherEncrypt;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sip_proto::endpoint::hex16;
use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher24};
use subtle::ConstantTimeEq;

/// Longest text that is hidden, in bytes: it travels in every message of its dialog.
pub const MAX_HIDDEN: usize = 1000;
const TAG: usize = 16;
/// Texts are padded to a multiple of this, so that their length says little.
const BLOCK: usize = 32;
/// Stands between a text and its padding.
const END: u8 = 0x80;

/// What a token stands for: one of a kind is none of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Veil,
    Contact,
    Flow,
    /// A flow of another node, which only a node writes.
    Elsewhere,
    Chain,
}

/// Makes and knows seals.
#[derive(Clone)]
pub struct Seals {
    calls: [u8; 16],
    tags: [u8; 16],
    cipher: Aes128,
}

impl Seals {
    pub fn new(key: &[u8; 32]) -> Seals {
        let derived = |label: &[u8]| {
            // HMAC takes a key of any length.
            let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any length is a key");
            mac.update(b"record-route ");
            mac.update(label);
            let mut out = [0; 16];
            out.copy_from_slice(&mac.finalize().into_bytes()[..16]);
            out
        };
        let cipher = Aes128::new(&derived(b"cipher").into());
        Seals { calls: derived(b"calls"), tags: derived(b"tags"), cipher }
    }

    /// The seal of a call: 16 hexadecimal digits.
    pub fn of_call(&self, call_id: &[u8]) -> [u8; 16] {
        let mut hash = SipHasher13::new_with_key(&self.calls);
        hash.write(call_id);
        hex16(hash.finish())
    }

    /// Appends the text as a token for this call: letters, digits, `-` and `_`. Of a text that is too long, nothing.
    pub fn hide(&self, kind: Kind, call_id: &[u8], text: &[u8], out: &mut Vec<u8>) {
        if text.len() > MAX_HIDDEN {
            return;
        }
        let mut raw = vec![0; TAG];
        raw.extend_from_slice(text);
        raw.push(END);
        raw.resize(TAG + (text.len() + 1).next_multiple_of(BLOCK), 0);
        let tag = self.tag(kind, call_id, &raw[TAG..]);
        raw[..TAG].copy_from_slice(&tag);
        self.cipher(&tag, &mut raw[TAG..]);
        out.extend_from_slice(URL_SAFE_NO_PAD.encode(&raw).as_bytes());
    }

    /// What a token of this kind hides. `None` if it was not made here for this call.
    pub fn reveal(&self, kind: Kind, call_id: &[u8], token: &[u8]) -> Option<Box<[u8]>> {
        if token.len() > (TAG + MAX_HIDDEN + BLOCK) * 4 / 3 + 4 {
            return None;
        }
        let mut raw = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (tag, text) = raw.split_at_mut_checked(TAG)?;
        let tag: &[u8; TAG] = (&*tag).try_into().ok()?;
        self.cipher(tag, text);
        if !bool::from(self.tag(kind, call_id, text).ct_eq(tag)) {
            return None;
        }
        let end = text.iter().rposition(|b| *b != 0).filter(|end| text[*end] == END)?;
        Some(text[..end].into())
    }

    fn tag(&self, kind: Kind, call_id: &[u8], text: &[u8]) -> [u8; TAG] {
        let mut hash = SipHasher24::new_with_key(&self.tags);
        hash.write_u8(kind as u8);
        hash.write_usize(call_id.len());
        hash.write(call_id);
        hash.write(text);
        hash.finish128().as_bytes()
    }

    /// Encrypts or decrypts in counter mode, from the tag on.
    fn cipher(&self, tag: &[u8; TAG], text: &mut [u8]) {
        let start = u128::from_be_bytes(*tag);
        for (block, n) in text.chunks_mut(16).zip(0u128..) {
            let mut pad = start.wrapping_add(n).to_be_bytes().into();
            self.cipher.encrypt_block(&mut pad);
            block.iter_mut().zip(pad).for_each(|(b, p)| *b ^= p);
        }
    }
}

impl std::fmt::Debug for Seals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seals")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_in_its_own_call_only() {
        let seals = Seals::new(&[1; 32]);
        for text in [&b""[..], b"<sip:alice@home.test>;tag=1", b"\"\\\0\"\0", &[b'x'; MAX_HIDDEN]] {
            let mut token = Vec::new();
            seals.hide(Kind::Veil, b"c1", text, &mut token);
            assert!(token.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')));
            assert_eq!(seals.reveal(Kind::Veil, b"c1", &token).as_deref(), Some(text));
            assert_eq!(seals.reveal(Kind::Veil, b"c2", &token), None);
            assert_eq!(seals.reveal(Kind::Contact, b"c1", &token), None);
            assert_eq!(Seals::new(&[2; 32]).reveal(Kind::Veil, b"c1", &token), None);
            token[3] ^= 1;
            assert_eq!(seals.reveal(Kind::Veil, b"c1", &token), None);
        }
        assert_eq!(seals.reveal(Kind::Veil, b"c1", b"AAAA"), None);
    }

    #[test]
    fn what_is_too_long_is_not_hidden() {
        let mut token = Vec::new();
        Seals::new(&[1; 32]).hide(Kind::Veil, b"c1", &[b'x'; MAX_HIDDEN + 1], &mut token);
        assert!(token.is_empty());
    }
}
