//! Where we may be sent by strangers: a developer names the address of a webhook, and must not reach what only we can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::Uri;
use gw_sms::registry::Block;

/// Public addresses over TLS, and what the operator allows beside them.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allow: Vec<Block>,
}

impl Guard {
    /// `allow`: networks of the operator's own, or that the operator trusts; there plain HTTP will do.
    pub fn new(allow: Vec<Block>) -> Guard {
        Guard { allow }
    }

    /// Whether a connection may go there. Asked of the address that is connected to, after every look-up of a name.
    pub fn admits(&self, address: IpAddr, secure: bool) -> bool {
        self.allow.iter().any(|block| block.contains(address)) || secure && is_public(address)
    }

    /// What is wrong with a URL, as far as it can be told without looking up its name.
    pub fn check(&self, url: &str) -> Result<(), &'static str> {
        let uri: Uri = url.parse().ok().filter(|_| url.len() <= MAX_URL).ok_or("not a URL, or too long a one")?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if !self.allow.is_empty() => false,
            _ => return Err("must begin with https://"),
        };
        let authority = uri.authority().ok_or("names no host")?;
        if authority.as_str().contains('@') {
            return Err("must hold no user name");
        }
        match authority.host().trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) if !self.admits(address, secure) => Err("is no public address"),
            _ => Ok(()),
        }
    }
}

/// Whether an address belongs to the whole Internet (the registries of RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(a) => is_public_v4(a),
        IpAddr::V6(a) => is_public_v6(a),
    }
}

fn is_public_v4(a: Ipv4Addr) -> bool {
    let [first, second, third, _] = a.octets();
    let shared = first == 100 && second & 0xc0 == 64;
    let benchmarks = first == 198 && second & 0xfe == 18;
    let assignments = first == 192 && second == 0 && third == 0;
    !(a.is_private()
        || a.is_loopback()
        || a.is_link_local()
        || a.is_documentation()
        || a.is_multicast()
        || first == 0
        || first >= 240
        || shared
        || benchmarks
        || assignments)
}

fn is_public_v6(a: Ipv6Addr) -> bool {
    let [first, second, ..] = a.segments();
    // 2000::/3 is all that is given out; Teredo, benchmarks, ORCHID, documentation and 6to4 are in it.
    first & 0xe000 == 0x2000 && !(first == 0x2001 && (second < 0x0200 || second == 0x0db8)) && first != 0x2002
}

/// Longest URL.
const MAX_URL: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_over_tls_unless_allowed() {
        let guard = Guard::default();
        for bad in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "203.0.113.9",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!guard.admits(bad.parse().unwrap(), true), "{bad}");
        }
        for good in ["1.1.1.1", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2001:4860:4860::8888"] {
            let address: IpAddr = good.parse().unwrap();
            assert!(guard.admits(address, true) && !guard.admits(address, false), "{good}");
        }
        let allowing = Guard::new(vec!["127.0.0.0/8".parse().unwrap()]);
        assert!(
            allowing.admits("127.0.0.1".parse().unwrap(), false) && !allowing.admits("10.0.0.1".parse().unwrap(), true)
        );
    }

    #[test]
    fn urls_are_looked_at_before() {
        let guard = Guard::default();
        for bad in [
            "",
            "x",
            "http://hook.test/",
            "ftp://hook.test/",
            "https://127.0.0.1/",
            "https://[::1]:8443/x",
            "https:///x",
            "https://user@hook.test/",
            "https://169.254.169.254/latest",
        ] {
            assert!(guard.check(bad).is_err(), "{bad}");
        }
        assert_eq!(guard.check("https://hook.test:8443/a?b=c"), Ok(()));
        let allowing = Guard::new(vec!["127.0.0.1".parse().unwrap()]);
        assert_eq!(allowing.check("http://127.0.0.1:9000/hook"), Ok(()));
        assert!(allowing.check("http://10.0.0.1/").is_err());
    }
}
