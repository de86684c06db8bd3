//! address_range of a bind (SMPP 3.4 §5.2.7, appendix A): which addresses a session serves.
//!
//! A UNIX regular expression: the extended ones of POSIX, but without back references, collating elements and classes by name outside of brackets. It
//! fits anywhere in an address unless `^` and `$` say otherwise. What has none of its signs is one whole address, and a lone `*` is
//! all of them, because that is what ESMEs mean by these. Matching takes time in proportion to pattern and address.

use regex::bytes::{Regex, RegexBuilder};

/// The addresses that a session serves.
#[derive(Clone, Debug)]
pub enum AddressRange {
    All,
    One(Box<[u8]>),
    Those(Regex),
}

/// No regular expression, or one that would be too large. The peer's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("address_range is no regular expression")]
pub struct Unreadable;

impl AddressRange {
    /// At most 40 octets, as the field has it.
    pub fn parse(text: &[u8]) -> Result<AddressRange, Unreadable> {
        if text.is_empty() || text == b"*" {
            return Ok(AddressRange::All);
        }
        let text = std::str::from_utf8(text).ok().filter(|t| t.is_ascii() && t.len() <= MAX).ok_or(Unreadable)?;
        let plain = text.strip_prefix('+').unwrap_or(text);
        if plain.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Ok(AddressRange::One(plain.as_bytes().into()));
        }
        let built = RegexBuilder::new(text).unicode(false).size_limit(SIZE).dfa_size_limit(SIZE).nest_limit(8).build();
        Ok(AddressRange::Those(built.map_err(|_| Unreadable)?))
    }

    /// Whether this address is one of them; so is no address at all, which receipts have.
    pub fn serves(&self, address: &[u8]) -> bool {
        match self {
            _ if address.is_empty() => true,
            AddressRange::All => true,
            AddressRange::One(one) => **one == *address,
            AddressRange::Those(those) => those.is_match(address),
        }
    }
}

/// Of address_range, without its NUL.
const MAX: usize = 40;
/// Bytes of a compiled expression.
const SIZE: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_appendix_and_of_habit() {
        for (range, served, not_served) in [
            ("", "5555", None),
            ("*", "819012345678", None),
            ("5555", "5555", Some("15555")),
            ("+81209000001", "81209000001", Some("81209000002")),
            ("^1234", "12345", Some("912345")),
            ("5678$", "12345678", Some("56781")),
            ("^123456$", "123456", Some("1234567")),
            ("[13579]$", "81903", Some("81904")),
            ("^81209(000|111)...$", "81209111999", Some("81209222999")),
            ("^8120[0-4]|^44", "44123", Some("81205")),
            (r"^\d{4}$", "5555", Some("55555")),
        ] {
            let parsed = AddressRange::parse(range.as_bytes()).unwrap();
            assert!(parsed.serves(served.as_bytes()), "{range} {served}");
            assert!(parsed.serves(b""), "{range}");
            if let Some(other) = not_served {
                assert!(!parsed.serves(other.as_bytes()), "{range} {other}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_or_is_too_large_is_refused() {
        for bad in [&b"["[..], b"(", b"81{2", b"a{9}{99}{99}{99}", b"^\xff", b"((((((((((x))))))))))", &[b'^'; 41]] {
            assert_eq!(AddressRange::parse(bad).err(), Some(Unreadable), "{bad:?}");
        }
    }
}
