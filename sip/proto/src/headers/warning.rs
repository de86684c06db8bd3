//! `Warning: 307 isi.edu "Session parameter 'foo' not understood"` (RFC 3261 §20.43).

use std::borrow::Cow;

use super::name_addr::write_quoted;
use super::param::{quoted_end, unquoted};
use crate::edit;
use crate::message::{decimal, is_lws, trim};

/// One warning value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Warning<'a> {
    /// 100 to 999; SIP's are 3xx.
    pub code: u16,
    pub agent: &'a [u8],
    quoted: &'a [u8],
}

impl<'a> Warning<'a> {
    pub fn parse(value: &'a [u8]) -> Option<Warning<'a>> {
        let value = trim(value);
        let blank = value.iter().position(|b| is_lws(*b))?;
        let code = decimal(&value[..blank]).filter(|n| blank == 3 && *n >= 100)? as u16;
        let rest = trim(&value[blank..]);
        let blank = rest.iter().position(|b| is_lws(*b))?;
        let quoted = trim(&rest[blank..]);
        let good = quoted.first() == Some(&b'"') && quoted_end(quoted) == Some(quoted.len());
        good.then_some(Warning { code, agent: &rest[..blank], quoted })
    }

    pub fn text(&self) -> Cow<'a, [u8]> {
        unquoted(self.quoted)
    }

    /// Appends a warning of our own.
    pub fn write(code: u16, agent: &[u8], text: &[u8], out: &mut Vec<u8>) {
        edit::number(out, u64::from(code));
        out.push(b' ');
        out.extend_from_slice(agent);
        out.push(b' ');
        write_quoted(text, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut out = Vec::new();
        Warning::write(370, b"proxy.example.com:5060", b"\"5\" kbit, not more", &mut out);
        let w = Warning::parse(&out).unwrap();
        assert_eq!((w.code, w.agent), (370, &b"proxy.example.com:5060"[..]));
        assert_eq!(w.text().as_ref(), b"\"5\" kbit, not more");
        // RFC 4475 §3.1.2.6 has a code of ten digits in the status line; here it is refused as well.
        for bad in [&b"3070 h \"x\""[..], b"307 h x", b"307 \"x\"", b"307 h \"x", b"307 h \"x\" y", b"037 h \"x\"", b""]
        {
            assert_eq!(Warning::parse(bad), None, "{bad:?}");
        }
    }
}
