//! Changes to a message as a list of insertions and deletions over its original bytes.
//!
//! What is not touched leaves byte for byte as it came: unknown headers, odd spacing, binary bodies.

use std::io::Write;
use std::net::IpAddr;
use std::ops::Range;

use smallvec::SmallVec;

use crate::name::HeaderName;

/// The edit list of one outgoing message. Reusable: [`Edits::clear`] keeps the memory.
#[derive(Default, Debug, Clone)]
pub struct Edits {
    ops: SmallVec<[Op; 12]>,
    text: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Op {
    at: u32,
    delete: u32,
    text: Range<u32>,
}

impl Edits {
    pub fn new() -> Edits {
        Edits::default()
    }

    pub fn clear(&mut self) {
        self.ops.clear();
        self.text.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Replaces `range` of the original by what `write` writes. Edits at the same offset keep the order of the calls.
    pub fn replace(&mut self, range: Range<usize>, write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.text.len() as u32;
        write(&mut self.text);
        self.ops.push(Op { at: range.start as u32, delete: range.len() as u32, text: from..self.text.len() as u32 });
    }

    pub fn insert(&mut self, at: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.replace(at..at, write);
    }

    pub fn delete(&mut self, range: Range<usize>) {
        self.replace(range, |_| {});
    }

    /// Inserts a whole header line at `at`, which must be the start of a line. Line breaks in the value cannot get out:
    /// each becomes a blank.
    pub fn insert_header(&mut self, at: usize, name: HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        self.insert(at, |text| header(text, name, write));
    }

    /// Writes the edited message. Overlapping deletions are joined.
    pub fn apply(&mut self, original: &[u8], out: &mut Vec<u8>) {
        self.ops.sort_by_key(|op| op.at);
        let grown: usize = self.text.len();
        out.reserve(original.len() + grown);
        let mut at = 0usize;
        for op in &self.ops {
            let start = (op.at as usize).clamp(at, original.len());
            out.extend_from_slice(&original[at..start]);
            out.extend_from_slice(&self.text[op.text.start as usize..op.text.end as usize]);
            at = start.max((op.at + op.delete) as usize).min(original.len());
        }
        out.extend_from_slice(&original[at..]);
    }
}

/// Writes one header line; line breaks inside the value become blanks, so that no value can start a header of its own.
#[inline]
pub fn header(out: &mut Vec<u8>, name: HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(name.opening().as_bytes());
    value(out, write);
}

/// [`header`] with a name that has no [`HeaderName`].
pub fn other_header(out: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    value(out, write);
}

#[inline]
fn value(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let from = out.len();
    write(out);
    scrub(&mut out[from..]);
    out.extend_from_slice(b"\r\n");
}

/// Line breaks and NULs become blanks. Written without a branch so that it runs 16 bytes at a time.
pub(crate) fn scrub(value: &mut [u8]) {
    for b in value {
        *b = if *b == b'\r' || *b == b'\n' || *b == 0 { b' ' } else { *b };
    }
}

/// Appends a number in decimal without going through `fmt`.
pub fn number(out: &mut Vec<u8>, n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut n = n;
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends an address without brackets, as Via's `received` has it; an IPv4-mapped one as IPv4.
pub fn ip(out: &mut Vec<u8>, addr: IpAddr) {
    match addr.to_canonical() {
        IpAddr::V4(v4) => {
            let (mut text, mut end) = ([b'.'; 16], 0);
            for octet in v4.octets() {
                let digits = [octet / 100, octet / 10 % 10, octet % 10];
                let zeros = usize::from(octet < 100) + usize::from(octet < 10);
                for digit in &digits[zeros..] {
                    text[end] = b'0' + digit;
                    end += 1;
                }
                end += 1;
            }
            out.extend_from_slice(&text[..end - 1]);
        }
        IpAddr::V6(v6) => display(out, v6),
    }
}

/// Appends an address as a host (RFC 3261 §25.1): IPv6 in brackets.
pub fn host(out: &mut Vec<u8>, addr: IpAddr) {
    let addr = addr.to_canonical();
    if addr.is_ipv6() {
        out.push(b'[');
    }
    ip(out, addr);
    if addr.is_ipv6() {
        out.push(b']');
    }
}

/// Appends anything that prints; for addresses and other cold text.
pub fn display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Writing into a Vec cannot fail.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untouched_bytes_stay_and_edits_land_in_order() {
        let src = b"0123456789";
        let mut e = Edits::new();
        e.replace(8..9, |t| t.extend_from_slice(b"H"));
        e.insert(2, |t| t.extend_from_slice(b"a"));
        e.insert(2, |t| t.extend_from_slice(b"b"));
        e.delete(4..6);
        let mut out = Vec::new();
        e.apply(src, &mut out);
        assert_eq!(out, b"01ab2367H9");
    }

    #[test]
    fn a_value_cannot_break_out_of_its_header() {
        let mut e = Edits::new();
        e.insert_header(0, HeaderName::Subject, |t| t.extend_from_slice(b"x\r\nVia: evil"));
        let mut out = Vec::new();
        e.apply(b"\r\n", &mut out);
        assert_eq!(out, b"Subject: x  Via: evil\r\n\r\n");
    }

    #[test]
    fn addresses_with_and_without_brackets() {
        let mut out = Vec::new();
        host(&mut out, "2001:db8::1".parse().unwrap());
        ip(&mut out, "2001:db8::1".parse().unwrap());
        host(&mut out, "::ffff:192.0.2.10".parse().unwrap());
        assert_eq!(out, b"[2001:db8::1]2001:db8::1192.0.2.10");
    }

    #[test]
    fn overlapping_deletions_do_not_run_past_the_end() {
        let mut e = Edits::new();
        e.delete(1..5);
        e.delete(3..20);
        let mut out = Vec::new();
        e.apply(b"0123456789", &mut out);
        assert_eq!(out, b"0");
    }
}
