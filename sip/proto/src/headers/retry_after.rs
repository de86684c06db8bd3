//! `Retry-After: 120 (in a meeting);duration=3600` (RFC 3261 §20.33).

use super::number::delta_seconds;
use super::param::Params;
use crate::message::trim;

/// Seconds until it makes sense to try again, and for how long one can then be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetryAfter<'a> {
    pub seconds: u32,
    /// The comment with its parentheses; empty when there is none.
    pub comment: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> RetryAfter<'a> {
    pub fn parse(value: &'a [u8]) -> Option<RetryAfter<'a>> {
        let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
        let seconds = delta_seconds(&value[..digits])?;
        let rest = trim(&value[digits..]);
        let end = comment_end(rest)?;
        let (comment, params) = (&rest[..end], trim(&rest[end..]));
        matches!(params, [] | [b';', ..]).then_some(RetryAfter { seconds, comment, params: Params::closed(params)? })
    }

    pub fn duration(&self) -> Option<u32> {
        self.params.get("duration").and_then(delta_seconds)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        crate::edit::number(out, u64::from(self.seconds));
        if !self.comment.is_empty() {
            out.push(b' ');
            out.extend_from_slice(self.comment);
        }
        out.extend_from_slice(self.params.as_bytes());
    }
}

/// Comments nest (RFC 3261 §25.1). 0 when there is none, `None` when it does not end.
fn comment_end(s: &[u8]) -> Option<usize> {
    if s.first() != Some(&b'(') {
        return Some(0);
    }
    let (mut depth, mut i) = (0u32, 0);
    while i < s.len() {
        match s[i] {
            b'\\' => i += 1,
            b'(' => depth += 1,
            b')' if depth == 1 => return Some(i + 1),
            b')' => depth -= 1,
            _ => {}
        }
        i += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_comment_and_duration() {
        for text in [&b"18000;duration=3600"[..], b"120 (in a (long; \\)) meeting)", b"5", b"7 ();x"] {
            let mut out = Vec::new();
            RetryAfter::parse(text).unwrap().write(&mut out);
            assert_eq!(out, text);
        }
        assert_eq!(RetryAfter::parse(b"18000;duration=3600").unwrap().duration(), Some(3600));
        for bad in [&b""[..], b"x", b"5 (", b"5 x", b"4294967296"] {
            assert_eq!(RetryAfter::parse(bad), None);
        }
    }
}
