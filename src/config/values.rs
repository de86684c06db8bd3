//! Values that configuration keys take: addresses that may be empty, networks, sizes, port ranges. Each reads a TOML string
//! and cannot hold anything that later code would have to check again.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, de};

/// A local address to listen on; the empty string leaves the door shut. Port 0 lets the system choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Door(pub Option<SocketAddr>);

impl<'de> Deserialize<'de> for Door {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Door, D::Error> {
        let text = String::deserialize(d)?;
        if text.is_empty() {
            return Ok(Door(None));
        }
        socket_addr(&text).map(|a| Door(Some(a)))
    }
}

impl Door {
    pub const fn ipv4_loopback(port: u16) -> Door {
        Door(Some(loopback(port)))
    }
}

/// 127.0.0.1 at that port.
pub const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

/// A list of local addresses, all literal.
pub fn listen_list<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<SocketAddr>, D::Error> {
    Vec::<Listen>::deserialize(d).map(|list| list.into_iter().map(|l| l.0).collect())
}

struct Listen(SocketAddr);

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Listen, D::Error> {
        socket_addr(&String::deserialize(d)?).map(Listen)
    }
}

fn socket_addr<E: de::Error>(text: &str) -> Result<SocketAddr, E> {
    text.parse()
        .map_err(|_| E::custom(format_args!("\"{text}\" is not an IP address with a port, such as 127.0.0.1:5060")))
}

/// A network of peers: an address, a CIDR block, or an address with a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peers {
    network: IpAddr,
    /// Leading bits that count, at most 32 or 128.
    prefix: u8,
    port: Option<u16>,
}

impl Peers {
    pub fn parse(text: &str) -> Option<Peers> {
        let full = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Some(Peers { network: addr.ip(), prefix: full(addr.ip()), port: Some(addr.port()) });
        }
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, bits)) => (ip.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?),
            None => {
                let ip = text.parse::<IpAddr>().ok()?;
                (ip, full(ip))
            }
        };
        (prefix <= full(ip)).then_some(Peers { network: ip, prefix, port: None })
    }

    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// Leading bits that count: 0 to 32, or to 128.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether a peer's address lies in it. An IPv4 address mapped into IPv6 counts as the IPv4 address.
    pub fn contains(&self, peer: SocketAddr) -> bool {
        self.port.is_none_or(|port| port == peer.port()) && self.contains_ip(peer.ip())
    }

    pub fn contains_ip(&self, ip: IpAddr) -> bool {
        match (self.network, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                (net.to_bits() ^ ip.to_bits()) & mask == 0
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                (net.to_bits() ^ ip.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

/// Who is believed: peers by address, or a TLS client by what its certificate proves (`tls:scscf.example.com`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TrustedPeer {
    Address(Peers),
    /// A SIP domain or host name of RFC 5922 §7.1, lower case.
    Certificate(Box<str>),
}

impl<'de> Deserialize<'de> for TrustedPeer {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<TrustedPeer, D::Error> {
        let text = String::deserialize(d)?;
        match text.strip_prefix("tls:") {
            // RFC 5922 §7.2: names are compared whole; an address or a wildcard is nobody's identity.
            Some(name) if super::check::is_host_name(name) && name.parse::<IpAddr>().is_err() => {
                Ok(TrustedPeer::Certificate(name.to_ascii_lowercase().into()))
            }
            Some(_) => Err(de::Error::custom(format_args!("\"{text}\" does not name a host after tls:"))),
            None => Peers::parse(&text).map(TrustedPeer::Address).ok_or_else(|| {
                de::Error::custom(format_args!("\"{text}\" is not an IP address, IP:port, CIDR block or tls:NAME"))
            }),
        }
    }
}

/// A number of bytes: `4096`, `"64 KiB"`, `"100 MiB"`, `"1 GiB"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    pub const fn kib(n: u64) -> Size {
        Size(n << 10)
    }

    pub const fn mib(n: u64) -> Size {
        Size(n << 20)
    }

    fn parse(text: &str) -> Option<Size> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().ok()?;
        let shift = match text[digits..].trim() {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return None,
        };
        number.checked_mul(1 << shift).map(Size)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Size, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of bytes or a string such as \"100 MiB\"")]
        enum Form {
            Bytes(u64),
            Text(String),
        }
        match Form::deserialize(d)? {
            Form::Bytes(n) => Ok(Size(n)),
            Form::Text(text) => Size::parse(&text)
                .ok_or_else(|| de::Error::custom(format_args!("\"{text}\" is not a size such as \"100 MiB\""))),
        }
    }
}

/// A range of ports, both ends included: `"30000-39999"`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ports(pub RangeInclusive<u16>);

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Ports, D::Error> {
        let text = String::deserialize(d)?;
        text.split_once('-')
            .and_then(|(low, high)| Some((low.trim().parse::<u16>().ok()?, high.trim().parse::<u16>().ok()?)))
            .filter(|(low, high)| *low > 0 && low <= high)
            .map(|(low, high)| Ports(low..=high))
            .ok_or_else(|| de::Error::custom(format_args!("\"{text}\" is not a port range such as \"30000-39999\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_match_by_address_block_and_port() {
        let inside = |net: &str, peer: &str| Peers::parse(net).unwrap().contains(peer.parse().unwrap());
        assert!(inside("10.1.0.0/16", "10.1.2.3:5060"));
        assert!(!inside("10.1.0.0/16", "10.2.2.3:5060"));
        assert!(inside("0.0.0.0/0", "10.2.2.3:5060"));
        assert!(inside("10.1.2.3", "10.1.2.3:9"));
        assert!(inside("10.1.2.3:5060", "10.1.2.3:5060"));
        assert!(!inside("10.1.2.3:5060", "10.1.2.3:5061"));
        assert!(inside("10.1.2.3", "[::ffff:10.1.2.3]:5060"));
        assert!(inside("2001:db8::/32", "[2001:db8:1::9]:5060"));
        assert!(!inside("::/0", "10.0.0.1:1"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "host", "10.0.0.0/33", "10.0.0/8", "::1/129", "10.0.0.1:99999"] {
            assert_eq!(Peers::parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_units_and_do_not_overflow() {
        assert_eq!(Size::parse("100 MiB"), Some(Size(100 << 20)));
        assert_eq!(Size::parse("64KiB"), Some(Size(65536)));
        assert_eq!(Size::parse("12"), Some(Size(12)));
        for text in ["", "MiB", "1 MB", "99999999999 GiB", "-1"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }
}
