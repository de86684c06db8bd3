//! MSRP URIs and paths (RFC 4975 §6, §9).

use std::fmt;
use std::net::IpAddr;

/// Longest URI that is read, in bytes.
pub const MAX_URI: usize = 512;
/// Most URIs in a path: an endpoint, and the relays on both sides (RFC 4976).
pub const MAX_HOPS: usize = 8;

/// An MSRP URI in the text that holds it. `==` compares as RFC 4975 §6.1 does.
#[derive(Clone, Copy)]
pub struct MsrpUri<'a> {
    text: &'a [u8],
    secure: bool,
    host: &'a [u8],
    port: Option<u16>,
    session: &'a [u8],
    transport: &'a [u8],
}

impl<'a> MsrpUri<'a> {
    /// `None` for what is no MSRP URI, or is longer than [`MAX_URI`].
    pub fn parse(text: &'a [u8]) -> Option<MsrpUri<'a>> {
        if text.len() > MAX_URI {
            return None;
        }
        let after = text.get(..5).filter(|s| s.eq_ignore_ascii_case(b"msrp:")).map(|_| &text[5..]);
        let after_s = text.get(..6).filter(|s| s.eq_ignore_ascii_case(b"msrps:")).map(|_| &text[6..]);
        let secure = after_s.is_some();
        let rest = after.or(after_s)?.strip_prefix(b"//")?;
        let end = rest.iter().position(|b| matches!(b, b'/' | b';'))?;
        let (authority, rest) = rest.split_at(end);
        let host_port = authority.iter().rposition(|&b| b == b'@').map_or(authority, |at| &authority[at + 1..]);
        let (host, port) = split_port(host_port)?;
        let semicolon = rest.iter().position(|&b| b == b';')?;
        let session = rest[..semicolon].strip_prefix(b"/").unwrap_or_default();
        if rest[0] == b'/' && session.is_empty() || !session.iter().copied().all(is_session_char) {
            return None;
        }
        let mut params = rest[semicolon + 1..].split(|&b| b == b';');
        let transport = params.next().filter(|t| !t.is_empty() && t.iter().all(u8::is_ascii_alphanumeric))?;
        if !params.all(|p| !p.is_empty() && p.iter().all(|&b| is_token(b) || b == b'=')) {
            return None;
        }
        Some(MsrpUri { text, secure, host, port, session, transport })
    }

    pub fn as_bytes(&self) -> &'a [u8] {
        self.text
    }

    /// Whether the scheme is `msrps`: over TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// A name or an address; an IPv6 one without its brackets.
    pub fn host(&self) -> &'a [u8] {
        self.host
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Empty when the URI names a device, not a session.
    pub fn session(&self) -> &'a [u8] {
        self.session
    }

    /// `tcp`, or `ws` (RFC 7977 §7), in any case.
    pub fn transport(&self) -> &'a [u8] {
        self.transport
    }
}

impl PartialEq for MsrpUri<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.secure == other.secure
            && self.port == other.port
            && self.session == other.session
            && self.transport.eq_ignore_ascii_case(other.transport)
            && same_host(self.host, other.host)
    }
}

impl Eq for MsrpUri<'_> {}

impl fmt::Debug for MsrpUri<'_> {
    /// Without the session: who knows it may speak in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "msrps" } else { "msrp" };
        write!(f, "{scheme}://{}:{}/…", String::from_utf8_lossy(self.host), self.port.unwrap_or(0))
    }
}

/// The URIs of a To-Path, a From-Path or a `path` attribute. `None` if one is bad, none is there, or there are more than
/// [`MAX_HOPS`].
pub fn path(value: &[u8]) -> Option<smallvec::SmallVec<[MsrpUri<'_>; 2]>> {
    let mut uris = smallvec::SmallVec::new();
    for text in value.split(|&b| b == b' ').filter(|t| !t.is_empty()) {
        if uris.len() == MAX_HOPS {
            return None;
        }
        uris.push(MsrpUri::parse(text)?);
    }
    (!uris.is_empty()).then_some(uris)
}

fn split_port(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let number = |digits: &[u8]| -> Option<u16> {
        let plain = (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
        plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
    };
    let (host, port) = match text.strip_prefix(b"[") {
        Some(inside) => {
            let end = inside.iter().position(|&b| b == b']')?;
            std::str::from_utf8(&inside[..end]).ok()?.parse::<std::net::Ipv6Addr>().ok()?;
            match &inside[end + 1..] {
                [] => (&inside[..end], None),
                [b':', digits @ ..] => (&inside[..end], Some(number(digits)?)),
                _ => return None,
            }
        }
        None => match text.iter().position(|&b| b == b':') {
            Some(colon) => (&text[..colon], Some(number(&text[colon + 1..])?)),
            None => (text, None),
        },
    };
    let fine = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,=:".contains(b);
    (!host.is_empty() && host.iter().all(fine)).then_some((host, port))
}

/// Addresses by value, names without regard to case, both after percent-decoding.
fn same_host(a: &[u8], b: &[u8]) -> bool {
    let decoded = |host: &[u8]| -> Vec<u8> {
        let mut out = Vec::with_capacity(host.len());
        let mut at = 0;
        while at < host.len() {
            let hex = |i: usize| host.get(at + i).and_then(|&b| char::from(b).to_digit(16));
            match (host[at], hex(1), hex(2)) {
                (b'%', Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    at += 3;
                }
                (byte, ..) => {
                    out.push(byte.to_ascii_lowercase());
                    at += 1;
                }
            }
        }
        out.make_ascii_lowercase();
        out
    };
    if a.eq_ignore_ascii_case(b) {
        return true;
    }
    let (a, b) = (decoded(a), decoded(b));
    let address = |host: &[u8]| std::str::from_utf8(host).ok()?.parse::<IpAddr>().ok();
    a == b || address(&a).is_some_and(|a| Some(a) == address(&b))
}

fn is_session_char(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~+=/".contains(&b)
}

/// A URI of ours as whoever comes by WebSocket knows it (RFC 7977), or as it is.
pub(crate) fn over(uri: &[u8], ws: bool) -> Vec<u8> {
    let (Some(rest), true) = (uri.strip_suffix(b";tcp"), ws) else { return uri.to_vec() };
    let rest = rest.strip_prefix(b"msrp://").or_else(|| rest.strip_prefix(b"msrps://")).unwrap_or(rest);
    [b"msrps://", rest, b";ws"].concat()
}

pub(crate) fn is_token(b: u8) -> bool {
    b.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        MsrpUri::parse(a.as_bytes()).unwrap() == MsrpUri::parse(b.as_bytes()).unwrap()
    }

    #[test]
    fn comparison_follows_section_6_1() {
        assert!(same("msrp://Host.example.com:8493/asfd34;tcp", "MSRP://host.EXAMPLE.com:8493/asfd34;TCP"));
        assert!(same("msrp://alice@h:1/s;tcp", "msrp://h:1/s;tcp;x=y"));
        assert!(same("msrp://h%2Dx:1/s;tcp", "msrp://h-x:1/s;tcp"));
        assert!(same("msrp://[2001:DB8::1]:9/s;tcp", "msrp://[2001:db8:0::1]:9/s;tcp"));
        assert!(!same("msrp://h:1/s;tcp", "msrps://h:1/s;tcp"));
        assert!(!same("msrp://h:1/s;tcp", "msrp://h/s;tcp"));
        assert!(!same("msrp://h:1/s;tcp", "msrp://h:1/S;tcp"));
        assert!(!same("msrp://h:1/s;tcp", "msrp://h:1;tcp"));
        assert!(!same("msrp://h:1/s;tcp", "msrp://h:1/s;ws"));
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "",
            "msrp",
            "msrp:",
            "msrp://",
            "msrp:///s;tcp",
            "msrp://h",
            "msrp://h:1/s",
            "msrp://h:1/;tcp",
            "http://h;tcp",
            "msrp://h:99999/s;tcp",
            "msrp://h:/s;tcp",
            "msrp://[::1/s;tcp",
            "msrp://h:1/s t;tcp",
            "msrp://h:1/s;tcp;",
            "msrp://h\r\n:1/s;tcp",
            "msrp://[zz]:1/s;tcp",
        ] {
            assert!(MsrpUri::parse(bad.as_bytes()).is_none(), "{bad:?}");
        }
        assert!(MsrpUri::parse(format!("msrp://h:1/{};tcp", "s".repeat(600)).as_bytes()).is_none());
    }

    #[test]
    fn a_path_has_its_first_hop_in_front() {
        let path = path(b"msrps://relay.example.com:2855/a;tcp msrp://10.0.0.1:7/b=;tcp").unwrap();
        assert!(path[0].is_secure() && path[0].host() == b"relay.example.com");
        assert_eq!((path[1].port(), path[1].session()), (Some(7), b"b=".as_slice()));
        assert!(super::path(b"").is_none());
        assert!(super::path(&b"msrp://h:1/s;tcp ".repeat(MAX_HOPS + 1)).is_none());
    }
}
