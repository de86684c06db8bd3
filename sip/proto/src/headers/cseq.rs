//! `CSeq: 4711 INVITE` (RFC 3261 §20.16).

use crate::message::{decimal, is_lws, is_token, trim};
use crate::method::Method;

/// The sequence number, at most 2^31 - 1 (RFC 3261 §8.1.1.5), and the method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CSeq<'a> {
    pub number: u32,
    pub token: &'a [u8],
}

impl<'a> CSeq<'a> {
    pub fn parse(value: &'a [u8]) -> Option<CSeq<'a>> {
        let blank = value.iter().position(|b| is_lws(*b))?;
        let number = decimal(&value[..blank]).filter(|n| *n < 1 << 31)? as u32;
        let token = trim(&value[blank..]);
        (!token.is_empty() && token.iter().all(|b| is_token(*b))).then_some(CSeq { number, token })
    }

    pub fn method(&self) -> Method {
        Method::from_bytes(self.token)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        crate::edit::number(out, u64::from(self.number));
        out.push(b' ');
        out.extend_from_slice(self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_method() {
        let c = CSeq::parse(b"0009  INVITE").unwrap();
        assert_eq!((c.number, c.method()), (9, Method::Invite));
        let mut out = Vec::new();
        c.write(&mut out);
        assert_eq!(CSeq::parse(&out), Some(c));
        assert_eq!(CSeq::parse(b"2147483648 INVITE"), None);
        assert_eq!(CSeq::parse(b"1"), None);
        assert_eq!(CSeq::parse(b"-1 INVITE"), None);
    }
}
