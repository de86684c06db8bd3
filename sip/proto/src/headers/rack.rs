//! `RAck: 776656 1 INVITE` (RFC 3262 §7.2).

use super::cseq::CSeq;
use super::number::response_num;
use crate::edit;
use crate::message::{is_lws, trim};

/// The RSeq of the response that is acknowledged, and the CSeq of its request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RAck<'a> {
    pub response: u32,
    pub cseq: CSeq<'a>,
}

impl<'a> RAck<'a> {
    pub fn parse(value: &'a [u8]) -> Option<RAck<'a>> {
        let blank = value.iter().position(|b| is_lws(*b))?;
        Some(RAck { response: response_num(&value[..blank])?, cseq: CSeq::parse(trim(&value[blank..]))? })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        edit::number(out, u64::from(self.response));
        out.push(b' ');
        self.cseq.write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_numbers_and_the_method() {
        let r = RAck::parse(b"776656  1 INVITE").unwrap();
        assert_eq!((r.response, r.cseq.number, r.cseq.token), (776656, 1, &b"INVITE"[..]));
        let mut out = Vec::new();
        r.write(&mut out);
        assert_eq!(RAck::parse(&out), Some(r));
        for bad in [&b"0 1 INVITE"[..], b"1 INVITE", b"1 1", b"", b"4294967296 1 INVITE"] {
            assert_eq!(RAck::parse(bad), None);
        }
    }
}
