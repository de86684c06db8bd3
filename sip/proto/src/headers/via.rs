//! `Via: SIP/2.0/UDP host:port;branch=z9hG4bK…;received=…;rport=…` (RFC 3261 §20.42, RFC 3581).

use std::net::IpAddr;

use super::host::{host_port, ip};
use super::param::{Params, find, is_token_text};
use crate::message::{decimal, is_lws, is_token, trim};
use crate::transport::Transport;

/// One Via value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Via<'a> {
    /// The protocol version: `2.0` in all that is valid. Others are read so that they can be answered with 505.
    pub version: &'a [u8],
    /// The transport token as sent; a token we do not know is kept.
    pub transport: &'a [u8],
    /// Host of sent-by; an IPv6 address keeps its brackets.
    pub host: &'a [u8],
    pub port: Option<u16>,
    pub params: Params<'a>,
    /// Asked for at every turn.
    branch: Option<&'a [u8]>,
}

impl<'a> Via<'a> {
    /// The magic cookie of RFC 3261 §8.1.1.7.
    pub const COOKIE: &'static [u8] = b"z9hG4bK";

    /// Reads one value (not a list).
    pub fn parse(value: &'a [u8]) -> Option<Via<'a>> {
        let end = find(value, b';');
        let (main, params) = (&value[..end], &value[end..]);
        let (version, rest) = sent_protocol(main)?;
        let rest = trim(rest);
        let blank = rest.iter().position(|b| is_lws(*b))?;
        let transport = &rest[..blank];
        if !is_token_text(transport) {
            return None;
        }
        let (host, port) = host_port(trim(&rest[blank..]))?;
        let params = Params::closed(params)?;
        Some(Via { version, transport, host, port, params, branch: params.get("branch") })
    }

    pub fn transport(&self) -> Option<Transport> {
        Transport::from_token(self.transport)
    }

    pub fn branch(&self) -> Option<&'a [u8]> {
        self.branch
    }

    /// `Some(None)`: the client asks for its port (RFC 3581); `Some(Some(p))`: a server filled it in.
    pub fn rport(&self) -> Option<Option<u16>> {
        match self.params.get("rport")? {
            b"" => Some(None),
            v => Some(decimal(v).and_then(|n| u16::try_from(n).ok())),
        }
    }

    pub fn received(&self) -> Option<IpAddr> {
        ip(self.params.get("received")?)
    }

    pub fn maddr(&self) -> Option<IpAddr> {
        ip(self.params.get("maddr")?)
    }

    /// The host of sent-by, when it is an address.
    pub fn host_ip(&self) -> Option<IpAddr> {
        ip(self.host)
    }
}

/// The version, and what follows the second slash. Blanks may stand around the slashes (RFC 4475 §3.1.1.1).
fn sent_protocol(main: &[u8]) -> Option<(&[u8], &[u8])> {
    if let Some(rest) = main.strip_prefix(b"SIP/2.0/") {
        return Some((&main[4..7], rest));
    }
    let (name, rest) = token_then_slash(main)?;
    let (version, rest) = token_then_slash(rest)?;
    name.eq_ignore_ascii_case(b"SIP").then_some((version, rest))
}

fn token_then_slash(s: &[u8]) -> Option<(&[u8], &[u8])> {
    let s = trim(s);
    let end = s.iter().position(|b| !is_token(*b))?;
    let after = trim(&s[end..]);
    let rest = after.strip_prefix(b"/")?;
    (end > 0).then_some((&s[..end], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_via() {
        let v = Via::parse(b"SIP/2.0/UDP 192.0.2.1:5062;rport;branch=z9hG4bKa;received=192.0.2.9").unwrap();
        assert_eq!(v.transport(), Some(Transport::Udp));
        assert_eq!((v.host, v.port), (&b"192.0.2.1"[..], Some(5062)));
        assert_eq!(v.rport(), Some(None));
        assert_eq!(v.received(), Some("192.0.2.9".parse().unwrap()));
        assert_eq!(v.branch(), Some(&b"z9hG4bKa"[..]));
    }

    #[test]
    fn blanks_and_unknown_transports_of_rfc_4475() {
        let v = Via::parse(b"SIP  / 2.0\r\n /TLS  [2001:db8::9] : 5061 ; branch=z9hG4bKb").unwrap();
        assert_eq!((v.host, v.port), (&b"[2001:db8::9]"[..], Some(5061)));
        assert_eq!(Via::parse(b"SIP/2.0/SCTP h;branch=x").unwrap().transport(), None);
        assert_eq!(Via::parse(b"SIP/7.0/UDP h").unwrap().version, b"7.0");
        assert_eq!(Via::parse(b"HTTP/2.0/UDP h"), None);
        assert_eq!(Via::parse(b"SIP/2.0/UDP"), None);
        assert_eq!(Via::parse(b"SIP/2.0/UDP h;branch=z9h\"G4bK"), None);
        assert_eq!(Via::parse(b"SIP/2.0/U<P h"), None);
        assert_eq!(Via::parse(b"SIP/2.0/UDP h:99999"), None);
    }
}
