//! GRUUs (RFC 5627): made when asked for, recognised when they come back, and never stored.
//!
//! A public one is the address-of-record with the instance in its `gr` parameter. A temporary one hides user, instance
//! and registration in its user part, encrypted with the house's key under a tag over all of it (a synthetic initialisation
//! vector, as in RFC 5297: what is encrypted twice by accident shows nothing but that it was the same):
//!
//! ```text
//! tgruu. base64url( tag(16) | encrypted( unique(4) | instance(6) | Call-ID(6) | user, padded ) )
//! ```
//! Instance and Call-ID stand there as keyed hashes: a temporary GRUU is good while the instance's last registration has
//! that Call-ID (RFC 5627 §5.1). The tag is SipHash-2-4 of 128 bits, the cipher AES-128 in counter mode: one is made for
//! every refresh, and two HMACs were some 4% of its cost.

use std::hash::Hasher as _;

use aes::Aes128;
use aes::cipher::BlockCipherEncrypt;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher24};
use smallvec::SmallVec;
use subtle::ConstantTimeEq;

use sip_proto::uri::{Uri, decoded};

const MARK: &[u8] = b"tgruu.";
const TAG: usize = 16;
/// What stands before the user.
const HEAD: usize = 16;
/// Users are padded to a multiple of this, so that the length says little.
const BLOCK: usize = 16;
/// Longest text that is looked at, in bytes: a user of 256 bytes.
const LONGEST: usize = 512;

/// Makes and reads GRUUs. Nodes with the same key know each other's.
#[derive(Clone)]
pub struct Gruus {
    cipher: Aes128,
    tags: [u8; 16],
    /// For the hashes inside, which the encryption hides.
    prints: [u8; 16],
}

/// As much of a keyed hash as tells the instances of one user apart.
type Print = [u8; 6];

/// What a temporary GRUU stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Temporary {
    /// The user part of the address-of-record, canonical.
    pub user: Box<str>,
    instance: Print,
    call_id: Print,
}

impl Gruus {
    pub fn new(key: &[u8; 32]) -> Gruus {
        let derived = |label: &[u8]| {
            // HMAC takes a key of any length.
            let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any length is a key");
            mac.update(b"gruu ");
            mac.update(label);
            let mut out = [0; 16];
            out.copy_from_slice(&mac.finalize().into_bytes()[..16]);
            out
        };
        let cipher = Aes128::new(&derived(b"cipher").into());
        Gruus { cipher, tags: derived(b"tags"), prints: derived(b"prints") }
    }

    /// Appends a temporary GRUU. `unique` must never repeat: a counter beside the time will do.
    pub fn write_temporary(
        &self,
        user: &str,
        domain: &str,
        instance: &[u8],
        call_id: &[u8],
        unique: [u64; 2],
        out: &mut Vec<u8>,
    ) {
        let mut raw: SmallVec<[u8; 96]> = SmallVec::from_slice(&[0; TAG]);
        let mut number = [0; 16];
        number[..8].copy_from_slice(&unique[0].to_be_bytes());
        number[8..].copy_from_slice(&unique[1].to_be_bytes());
        raw.extend_from_slice(&self.print(b"unique", &number)[..4]);
        raw.extend_from_slice(&self.print(b"instance", instance));
        raw.extend_from_slice(&self.print(b"call", call_id));
        raw.extend_from_slice(user.as_bytes());
        raw.resize(TAG + HEAD + user.len().next_multiple_of(BLOCK), 0);
        let tag = self.tag(&raw[TAG..]);
        raw[..TAG].copy_from_slice(&tag);
        self.cipher(&tag, &mut raw[TAG..]);
        out.extend_from_slice(b"sip:");
        out.extend_from_slice(MARK);
        let start = out.len();
        out.resize(start + raw.len().div_ceil(3) * 4, 0);
        // Four characters for each three octets are enough.
        let written = URL_SAFE_NO_PAD.encode_slice(&raw, &mut out[start..]).unwrap_or(0);
        out.truncate(start + written);
        out.push(b'@');
        out.extend_from_slice(domain.as_bytes());
        out.extend_from_slice(b";gr");
    }

    /// Reads the user part of a temporary GRUU. `None` if we did not make it.
    pub fn read_temporary(&self, user: &[u8]) -> Option<Temporary> {
        let text = decoded(user);
        let text = text.strip_prefix(MARK).filter(|t| t.len() <= LONGEST)?;
        let mut raw = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (tag, body) = raw.split_at_mut_checked(TAG).filter(|(_, body)| body.len() >= HEAD)?;
        let tag: &[u8; TAG] = (&*tag).try_into().ok()?;
        self.cipher(tag, body);
        if !bool::from(self.tag(body).ct_eq(tag)) {
            return None;
        }
        let (head, user) = body.split_at(HEAD);
        let end = user.iter().position(|b| *b == 0).unwrap_or(user.len());
        let part = |range: std::ops::Range<usize>| Print::try_from(&head[range]).ok();
        Some(Temporary {
            user: std::str::from_utf8(&user[..end]).ok()?.into(),
            instance: part(4..10)?,
            call_id: part(10..16)?,
        })
    }

    /// Whether a binding with this instance is what a temporary GRUU means; `call_id` of the instance's latest registration.
    pub fn means(&self, temporary: &Temporary, instance: &[u8], call_id: &[u8]) -> bool {
        self.print(b"instance", instance) == temporary.instance && self.print(b"call", call_id) == temporary.call_id
    }

    /// A keyed hash, for comparing.
    fn print(&self, label: &[u8], text: &[u8]) -> Print {
        let mut hash = SipHasher13::new_with_key(&self.prints);
        hash.write(label);
        hash.write(text);
        let mut print = Print::default();
        print.copy_from_slice(&hash.finish().to_be_bytes()[..6]);
        print
    }

    fn tag(&self, text: &[u8]) -> [u8; TAG] {
        let mut hash = SipHasher24::new_with_key(&self.tags);
        hash.write(text);
        hash.finish128().as_bytes()
    }

    /// Encrypts or decrypts: counter mode, which begins at the tag.
    fn cipher(&self, tag: &[u8; TAG], text: &mut [u8]) {
        let first = u128::from_be_bytes(*tag);
        for (i, chunk) in text.chunks_mut(BLOCK).enumerate() {
            let mut stream = first.wrapping_add(i as u128).to_be_bytes().into();
            self.cipher.encrypt_block(&mut stream);
            chunk.iter_mut().zip(stream).for_each(|(b, s)| *b ^= s);
        }
    }
}

impl std::fmt::Debug for Gruus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gruus(..)")
    }
}

/// Appends the public GRUU of an address-of-record and an instance.
pub fn write_public(aor: &str, instance: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"sip:");
    out.extend_from_slice(aor.as_bytes());
    out.extend_from_slice(b";gr=");
    let mut rest = instance;
    while let Some(at) = rest.iter().position(|b| !PLAIN[usize::from(*b)]) {
        let digit = |n: u8| b"0123456789ABCDEF"[usize::from(n)];
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'%', digit(rest[at] >> 4), digit(rest[at] & 15)]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// RFC 3261 §25.1: `param-unreserved` and `unreserved` need no escape.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let others = b"-_.!~*'()[]/:&+$";
    let mut i = 0;
    while i < 256 {
        plain[i] = (i as u8).is_ascii_alphanumeric();
        i += 1;
    }
    i = 0;
    while i < others.len() {
        plain[others[i] as usize] = true;
        i += 1;
    }
    plain
};

/// The instance that a public GRUU names.
pub fn public_instance<'a>(uri: &Uri<'a>) -> Option<std::borrow::Cow<'a, [u8]>> {
    uri.gr().filter(|gr| !gr.is_empty()).map(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary(g: &Gruus, user: &str, unique: u64) -> Vec<u8> {
        let mut out = Vec::new();
        g.write_temporary(user, "example.com", b"urn:x", b"call", [1, unique], &mut out);
        out
    }

    #[test]
    fn a_temporary_gruu_reads_back() {
        let g = Gruus::new(&[3; 32]);
        for user in ["a", "alice", "sixteen-letters-", "+819012345678", "x".repeat(256).as_str()] {
            let text = temporary(&g, user, 1);
            let uri = Uri::parse(&text).unwrap();
            assert_eq!(uri.gr(), Some(&b""[..]));
            let t = g.read_temporary(uri.user().unwrap()).unwrap();
            assert_eq!(&*t.user, user);
            assert!(g.means(&t, b"urn:x", b"call"));
            assert!(!g.means(&t, b"urn:y", b"call") && !g.means(&t, b"urn:x", b"other"));
        }
    }

    #[test]
    fn two_of_one_user_have_nothing_in_common() {
        let g = Gruus::new(&[3; 32]);
        let (a, b) = (temporary(&g, "alice", 1), temporary(&g, "alice", 2));
        assert_eq!(a.len(), temporary(&g, "bob", 3).len(), "short names have one length");
        let body = |t: &[u8]| t["sip:tgruu.".len()..t.len() - "@example.com;gr".len()].to_vec();
        let same = body(&a).iter().zip(body(&b)).filter(|(x, y)| *x == y).count();
        assert!(same < 15, "{same}");
    }

    #[test]
    fn forged_and_damaged_ones_are_not_read() {
        let g = Gruus::new(&[3; 32]);
        let text = temporary(&g, "alice", 1);
        let uri = Uri::parse(&text).unwrap();
        let user = uri.user().unwrap().to_vec();
        for i in MARK.len()..user.len() {
            let mut bad = user.clone();
            bad[i] = if bad[i] == b'A' { b'B' } else { b'A' };
            assert_eq!(g.read_temporary(&bad), None);
        }
        assert_eq!(Gruus::new(&[4; 32]).read_temporary(&user), None);
        for bad in [&b"alice"[..], b"tgruu.", b"tgruu.AAAA", b"tgruu.%%%"] {
            assert_eq!(g.read_temporary(bad), None);
        }
    }

    #[test]
    fn a_public_gruu_names_its_instance() {
        let mut out = Vec::new();
        write_public("alice@example.com", b"urn:uuid:f81d4fae;x=<y>", &mut out);
        assert_eq!(out, b"sip:alice@example.com;gr=urn:uuid:f81d4fae%3Bx%3D%3Cy%3E");
        let uri = Uri::parse(&out).unwrap();
        assert_eq!(public_instance(&uri).unwrap().as_ref(), b"urn:uuid:f81d4fae;x=<y>");
        assert_eq!(public_instance(&Uri::parse(b"sip:a@h;gr").unwrap()), None);
    }
}
