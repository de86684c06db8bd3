//! `Reason: Q.850;cause=16;text="Terminated"` (RFC 3326).

use std::borrow::Cow;

use super::name_addr::write_quoted;
use super::param::{Params, is_token_text, main_and_params};
use crate::edit;
use crate::message::decimal;

/// One reason value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reason<'a> {
    /// `SIP`, `Q.850` or another protocol token.
    pub protocol: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> Reason<'a> {
    pub fn parse(value: &'a [u8]) -> Option<Reason<'a>> {
        let (protocol, params) = main_and_params(value)?;
        is_token_text(protocol).then_some(Reason { protocol, params })
    }

    pub fn cause(&self) -> Option<u16> {
        self.params.get("cause").and_then(decimal).and_then(|n| u16::try_from(n).ok())
    }

    pub fn text(&self) -> Option<Cow<'a, [u8]>> {
        self.params.text("text")
    }

    /// Appends a reason of our own.
    pub fn write(protocol: &str, cause: u16, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(protocol.as_bytes());
        out.extend_from_slice(b";cause=");
        edit::number(out, u64::from(cause));
        if !text.is_empty() {
            out.extend_from_slice(b";text=");
            write_quoted(text, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut out = Vec::new();
        Reason::write("SIP", 200, b"Call completed \"elsewhere\"; ok", &mut out);
        let r = Reason::parse(&out).unwrap();
        assert_eq!((r.protocol, r.cause()), (&b"SIP"[..], Some(200)));
        assert_eq!(r.text().unwrap().as_ref(), b"Call completed \"elsewhere\"; ok");
        assert_eq!(Reason::parse(b"Q.850 ;cause=99999").unwrap().cause(), None);
        assert_eq!(Reason::parse(b";cause=1"), None);
    }
}
