//! Lists of tokens: Require, Supported, Unsupported, Proxy-Require, Allow, Allow-Events, Content-Encoding, In-Reply-To.

use super::param::list;
use crate::message::Message;
use crate::method::Method;
use crate::name::HeaderName;

/// Whether any line of that header has the token, in any case: option tags compare so (RFC 3261 §7.3.1).
pub fn has_token(message: &Message<'_>, name: HeaderName, token: &str) -> bool {
    message.values(name).any(|v| list(v).any(|t| t.eq_ignore_ascii_case(token.as_bytes())))
}

/// Appends tokens as one list.
pub fn write_tokens<'t>(tokens: impl IntoIterator<Item = &'t [u8]>, out: &mut Vec<u8>) {
    for (i, token) in tokens.into_iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(token);
    }
}

/// The known methods of an Allow header (RFC 3261 §20.5), as a set.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MethodSet(u32);

impl MethodSet {
    pub const fn of(methods: &[Method]) -> MethodSet {
        let mut bits = 0;
        let mut i = 0;
        while i < methods.len() {
            bits |= 1 << methods[i] as u32;
            i += 1;
        }
        MethodSet(bits)
    }

    /// Methods that the house does not know set no bit.
    pub fn parse(value: &[u8]) -> MethodSet {
        list(value)
            .map(Method::from_bytes)
            .filter(|m| *m != Method::Other)
            .fold(MethodSet(0), |s, m| MethodSet(s.0 | 1 << m as u32))
    }

    pub fn contains(self, method: Method) -> bool {
        self.0 & (1 << method as u32) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Method> {
        Method::KNOWN.iter().copied().filter(move |m| self.contains(*m))
    }

    pub fn write(self, out: &mut Vec<u8>) {
        write_tokens(self.iter().map(|m| m.as_str().as_bytes()), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_over_lines_and_in_any_case() {
        let m = Message::parse(b"OPTIONS sip:a SIP/2.0\r\nSupported: path, GRUU\r\nk: outbound\r\nRequire:\r\n\r\n")
            .unwrap();
        assert!(has_token(&m, HeaderName::Supported, "gruu"));
        assert!(has_token(&m, HeaderName::Supported, "Outbound"));
        assert!(!has_token(&m, HeaderName::Supported, "out"));
        assert!(!has_token(&m, HeaderName::Require, ""));
    }

    #[test]
    fn method_sets_read_back() {
        let set = MethodSet::parse(b"BYE, INVITE,,NEWMETHOD, ACK");
        let mut out = Vec::new();
        set.write(&mut out);
        assert_eq!(out, b"INVITE, ACK, BYE");
        assert_eq!(MethodSet::parse(&out), MethodSet::of(&[Method::Ack, Method::Bye, Method::Invite]));
        assert!(set.contains(Method::Bye) && !set.contains(Method::Refer) && !set.contains(Method::Other));
    }
}
