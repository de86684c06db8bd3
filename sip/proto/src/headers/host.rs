//! Hosts and ports as Via and URIs write them (RFC 3261 §25.1 `hostport`).

use std::net::IpAddr;

use crate::message::{decimal, trim};
use crate::octet;

/// An IPv4 or (bracketed or bare) IPv6 address.
pub(crate) fn ip(host: &[u8]) -> Option<IpAddr> {
    // Most hosts that are not addresses are told by their first letter; one that begins with a letter has colons.
    match host.first()? {
        b'0'..=b'9' | b'[' | b':' => {}
        b'a'..=b'f' | b'A'..=b'F' if octet::colon(host).is_some() => {}
        _ => return None,
    }
    let text = std::str::from_utf8(host).ok()?;
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

/// `host`, `host:port`, `[v6]:port`; blanks around the colon are allowed (RFC 3261 §25.1 COLON).
pub(crate) fn host_port(s: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let host_end = if s.first() == Some(&b'[') {
        memchr::memchr(b']', s)? + 1
    } else {
        octet::first(s, octet::COLON | octet::LWS).unwrap_or(s.len())
    };
    let host = &s[..host_end];
    if !is_host(host) {
        return None;
    }
    match trim(&s[host_end..]) {
        [] => Some((host, None)),
        [b':', port @ ..] => {
            let port = decimal(trim(port)).and_then(|n| u16::try_from(n).ok())?;
            Some((host, Some(port)))
        }
        _ => None,
    }
}

/// A name (underscores allowed: they are out there), an IPv4 address, or an IPv6 address in brackets.
pub(crate) fn is_host(host: &[u8]) -> bool {
    match host {
        [] => false,
        [b'[', .., b']'] => ip(host).is_some(),
        name => octet::seen(name) & octet::NOT_HOST == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_ports() {
        assert_eq!(host_port(b"a.b_c-d : 5060"), Some((&b"a.b_c-d"[..], Some(5060))));
        assert_eq!(host_port(b"[::1]:5061"), Some((&b"[::1]"[..], Some(5061))));
        assert_eq!(host_port(b"192.0.2.1"), Some((&b"192.0.2.1"[..], None)));
        for bad in [&b""[..], b":5060", b"[::1", b"[x]:1", b"a:", b"a:65536", b"a b", b"a/b"] {
            assert_eq!(host_port(bad), None, "{bad:?}");
        }
        assert_eq!(ip(b"[2001:db8::1]"), ip(b"2001:db8::1"));
        assert_eq!(ip(b"example.com"), None);
    }
}
