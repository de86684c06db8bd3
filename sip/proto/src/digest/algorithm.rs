//! The hash algorithms of digest authentication and what they make (RFC 7616 §3.3, RFC 8760 §2.1, RFC 3310 §3.1).

use sha2::Digest as _;
use subtle::ConstantTimeEq;

/// The hash under an [`Algorithm`]. Passwords are kept as one [`Ha1`] per hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum HashFunction {
    Md5,
    Sha256,
    Sha512_256,
}

impl HashFunction {
    /// Octets of one value: 16 or 32.
    pub fn size(self) -> usize {
        if self == HashFunction::Md5 { 16 } else { 32 }
    }

    /// Hashes the parts as if they were one string with nothing between them.
    pub fn of(self, parts: &[&[u8]]) -> HashValue {
        let mut bytes = [0u8; 32];
        match self {
            HashFunction::Md5 => {
                let mut h = md5::Md5::new();
                parts.iter().for_each(|p| h.update(p));
                bytes[..16].copy_from_slice(&h.finalize());
            }
            HashFunction::Sha256 => {
                let mut h = sha2::Sha256::new();
                parts.iter().for_each(|p| h.update(p));
                bytes.copy_from_slice(&h.finalize());
            }
            HashFunction::Sha512_256 => {
                let mut h = sha2::Sha512_256::new();
                parts.iter().for_each(|p| h.update(p));
                bytes.copy_from_slice(&h.finalize());
            }
        }
        HashValue { bytes, function: self }
    }
}

/// The `algorithm` parameter. The order of the variants is no preference; a challenge lists them as configured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Algorithm {
    Md5,
    Md5Sess,
    Sha256,
    Sha256Sess,
    Sha512_256,
    Sha512_256Sess,
    /// RFC 3310: the password is the RES of an AKA run, the nonce carries RAND and AUTN.
    AkaV1Md5,
}

impl Algorithm {
    pub const ALL: [Algorithm; 7] = [
        Algorithm::Md5,
        Algorithm::Md5Sess,
        Algorithm::Sha256,
        Algorithm::Sha256Sess,
        Algorithm::Sha512_256,
        Algorithm::Sha512_256Sess,
        Algorithm::AkaV1Md5,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Md5Sess => "MD5-sess",
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha256Sess => "SHA-256-sess",
            Algorithm::Sha512_256 => "SHA-512-256",
            Algorithm::Sha512_256Sess => "SHA-512-256-sess",
            Algorithm::AkaV1Md5 => "AKAv1-MD5",
        }
    }

    /// Case-insensitive, as tokens are (RFC 3261 §7.3.1).
    pub fn from_token(token: &[u8]) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| a.as_str().as_bytes().eq_ignore_ascii_case(token))
    }

    pub fn function(self) -> HashFunction {
        match self {
            Algorithm::Md5 | Algorithm::Md5Sess | Algorithm::AkaV1Md5 => HashFunction::Md5,
            Algorithm::Sha256 | Algorithm::Sha256Sess => HashFunction::Sha256,
            Algorithm::Sha512_256 | Algorithm::Sha512_256Sess => HashFunction::Sha512_256,
        }
    }

    /// A1 is hashed once more with nonce and cnonce (RFC 7616 §3.4.2).
    pub fn is_session(self) -> bool {
        matches!(self, Algorithm::Md5Sess | Algorithm::Sha256Sess | Algorithm::Sha512_256Sess)
    }
}

/// One hash: 16 or 32 octets. Compared in constant time; printed only by [`HashValue::hex`].
#[derive(Clone, Copy)]
pub struct HashValue {
    bytes: [u8; 32],
    function: HashFunction,
}

impl HashValue {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.function.size()]
    }

    pub fn function(&self) -> HashFunction {
        self.function
    }

    /// Takes the first octets of `seed` as if they were a hash: what stands in for the secret of nobody.
    pub(super) fn decoy(function: HashFunction, seed: &[u8; 32]) -> HashValue {
        HashValue { bytes: *seed, function }
    }

    /// Reads 32 or 64 hexadecimal digits of either case; the length must suit the function.
    pub fn from_hex(function: HashFunction, digits: &[u8]) -> Option<HashValue> {
        let mut bytes = [0u8; 32];
        if digits.len() != function.size() * 2 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Some(HashValue { bytes, function })
    }

    /// Lower-case hexadecimal (RFC 8760 §2.2).
    pub fn hex(&self) -> Hex {
        let mut digits = [0u8; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.as_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Hex { digits, len: self.function.size() * 2 }
    }
}

impl PartialEq for HashValue {
    fn eq(&self, other: &HashValue) -> bool {
        self.function == other.function && bool::from(self.as_bytes().ct_eq(other.as_bytes()))
    }
}

impl Eq for HashValue {}

impl std::fmt::Debug for HashValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Often a secret: never in a log.
        write!(f, "HashValue({:?}, ..)", self.function)
    }
}

/// Hexadecimal digits on the stack.
#[derive(Clone, Copy)]
pub struct Hex {
    digits: [u8; 64],
    len: usize,
}

impl std::ops::Deref for Hex {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.digits[..self.len]
    }
}

/// H(user ":" realm ":" password): all that a server keeps of a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ha1(pub HashValue);

impl Ha1 {
    /// `password` is text for most algorithms and the raw RES for AKA (RFC 3310 §3.3).
    pub fn new(function: HashFunction, user: &[u8], realm: &[u8], password: &[u8]) -> Ha1 {
        Ha1(function.of(&[user, b":", realm, b":", password]))
    }

    pub fn from_hex(function: HashFunction, digits: &[u8]) -> Option<Ha1> {
        HashValue::from_hex(function, digits).map(Ha1)
    }

    /// As it was kept: 16 or 32 octets, as the function has it.
    pub fn from_bytes(function: HashFunction, octets: &[u8]) -> Option<Ha1> {
        let mut bytes = [0u8; 32];
        bytes[..function.size()].copy_from_slice(Some(octets).filter(|o| o.len() == function.size())?);
        Some(Ha1(HashValue { bytes, function }))
    }

    pub fn hex(&self) -> Hex {
        self.0.hex()
    }

    pub fn function(&self) -> HashFunction {
        self.0.function
    }
}

pub(crate) fn hex_digit(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

/// A nonce count: 8 hexadecimal digits (RFC 7616 §3.4, `nc-value = 8LHEX`).
pub(crate) fn write_nc(out: &mut Vec<u8>, nc: u32) {
    for shift in (0..8).rev() {
        out.push(DIGITS[(nc >> (shift * 4) & 15) as usize]);
    }
}

/// A `quoted-string`; quotes and backslashes are escaped, what may not stand in a header becomes a blank.
pub(crate) fn write_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for b in text {
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *b]),
            0..=31 | 127 => out.push(b' '),
            _ => out.push(*b),
        }
    }
    out.push(b'"');
}

/// `, name=` or, for the first parameter, `name=`.
pub(crate) fn write_name(out: &mut Vec<u8>, first: &mut bool, name: &str) {
    if !std::mem::take(first) {
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_body_hashes_are_those_of_rfc_8760() {
        let hex = HashFunction::Sha256.of(&[]).hex();
        assert_eq!(&hex[..], b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(&HashFunction::Md5.of(&[b""]).hex()[..], b"d41d8cd98f00b204e9800998ecf8427e");
    }

    #[test]
    fn hex_reads_what_it_writes_in_either_case_and_only_at_full_length() {
        for function in [HashFunction::Md5, HashFunction::Sha256, HashFunction::Sha512_256] {
            let value = function.of(&[b"a", b"b"]);
            assert_eq!(value, function.of(&[b"ab"]));
            let upper = value.hex().to_ascii_uppercase();
            assert_eq!(HashValue::from_hex(function, &upper), Some(value));
            assert_eq!(HashValue::from_hex(function, &upper[1..]), None);
            assert_eq!(HashValue::from_hex(function, &vec![b'g'; upper.len()]), None);
        }
    }

    #[test]
    fn tokens_of_the_registry_are_known_in_any_case() {
        for a in Algorithm::ALL {
            assert_eq!(Algorithm::from_token(&a.as_str().to_ascii_lowercase().into_bytes()), Some(a));
        }
        assert_eq!(Algorithm::from_token(b"SHA256"), None);
    }

    #[test]
    fn a_secret_does_not_print() {
        let ha1 = Ha1::new(HashFunction::Md5, b"u", b"r", b"p");
        let text = format!("{ha1:?}");
        assert!(!text.contains(std::str::from_utf8(&ha1.hex()).unwrap()));
    }
}
