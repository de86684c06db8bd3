//! What this server answers to: its domain and its listening addresses.

use std::net::{IpAddr, SocketAddr};

use sip_proto::Transport;
use sip_proto::uri::Uri;

use crate::identity::Aor;

/// The home domain and where it listens.
#[derive(Clone, Debug)]
pub struct Home {
    domain: Box<str>,
    listeners: Vec<Listener>,
}

/// One open door: what stands in our Via and Record-Route for it.
#[derive(Clone, Debug)]
pub struct Listener {
    pub transport: Transport,
    pub address: SocketAddr,
    /// `host:port`, an IPv6 host in brackets.
    pub sent_by: Box<[u8]>,
}

impl Home {
    /// `listeners`: the addresses as bound (port 0 already replaced).
    pub fn new(domain: &str, listeners: impl IntoIterator<Item = (Transport, SocketAddr)>) -> Home {
        let listeners = listeners
            .into_iter()
            .map(|(transport, address)| Listener {
                transport,
                address,
                sent_by: address.to_string().into_bytes().into(),
            })
            .collect();
        Home { domain: domain.trim_end_matches('.').to_ascii_lowercase().into(), listeners }
    }

    /// Writes `ip` for a listener that is open on every address of its family: 0.0.0.0 leads nobody here.
    pub fn advertising(mut self, ip: IpAddr) -> Home {
        let everywhere = |l: &&mut Listener| l.address.ip().is_unspecified() && l.address.is_ipv4() == ip.is_ipv4();
        for listener in self.listeners.iter_mut().filter(everywhere) {
            listener.sent_by = SocketAddr::new(ip, listener.address.port()).to_string().into_bytes().into();
        }
        self
    }

    pub fn domain(&self) -> &str {
        &self.domain
    }

    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Whether a peer that we reach over this transport can come back by it.
    pub fn listens_over(&self, transport: Transport) -> bool {
        self.listeners.iter().any(|l| l.transport == transport)
    }

    /// Our sent-by for a message that leaves over this transport: a listener of the same address family if there is one.
    /// A transport on which we do not listen borrows the first listener's.
    pub fn sent_by(&self, transport: Transport, remote: IpAddr) -> &[u8] {
        let same = self.listeners.iter().filter(|l| l.transport == transport);
        same.clone()
            .find(|l| l.address.is_ipv4() == remote.is_ipv4())
            .or(same.clone().next())
            .or(self.listeners.first())
            .map_or(b"invalid.invalid", |l| &l.sent_by)
    }

    /// The host is our domain (a host name, in any case).
    pub fn is_domain(&self, host: &[u8]) -> bool {
        host == self.domain.as_bytes() || host.eq_ignore_ascii_case(self.domain.as_bytes())
    }

    /// Host and port name one of our listeners, or our domain without a port of its own.
    pub fn is_us(&self, uri: &Uri<'_>) -> bool {
        match uri.host_ip() {
            Some(ip) => self.listeners.iter().any(|l| {
                (l.address.ip() == ip || l.address.ip().is_unspecified())
                    && l.address.port() == uri.port().unwrap_or(l.transport.default_port())
            }),
            None => {
                self.is_domain(uri.host())
                    && uri.port().is_none_or(|p| self.listeners.iter().any(|l| l.address.port() == p))
            }
        }
    }

    /// The address-of-record that a SIP URI of ours names. A user at one of our addresses counts as one of our domain.
    pub fn aor(&self, uri: &Uri<'_>) -> Option<Aor> {
        if !uri.is_sip() || !(self.is_domain(uri.host()) || self.is_us(uri)) {
            return None;
        }
        Aor::from_parts(uri.user()?, self.domain.as_bytes()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        Home::new(
            "Example.com",
            [(Transport::Udp, "127.0.0.1:5060".parse().unwrap()), (Transport::Tls, "127.0.0.1:5061".parse().unwrap())],
        )
    }

    #[test]
    fn domain_and_addresses_are_ours_others_are_not() {
        let h = home();
        for (uri, ours) in [
            ("sip:example.com", true),
            ("sip:bob@EXAMPLE.com:5060", true),
            ("sip:127.0.0.1", true),
            ("sip:127.0.0.1:5061", true),
            ("sip:127.0.0.1:5062", false),
            ("sip:example.com:9", false),
            ("sip:example.org", false),
        ] {
            assert_eq!(h.is_us(&Uri::parse(uri.as_bytes()).unwrap()), ours, "{uri}");
        }
    }

    #[test]
    fn a_user_at_our_address_is_one_of_our_domain() {
        let h = home();
        let aor = |u: &str| h.aor(&Uri::parse(u.as_bytes()).unwrap()).map(|a| a.to_string());
        assert_eq!(aor("sip:bob@127.0.0.1:5060").as_deref(), Some("bob@example.com"));
        assert_eq!(aor("sips:bob@example.com").as_deref(), Some("bob@example.com"));
        assert_eq!(aor("sip:bob@example.org"), None);
        assert_eq!(aor("sip:example.com"), None);
    }

    #[test]
    fn a_listener_on_every_address_is_written_by_one_that_can_be_reached() {
        let doors = ["0.0.0.0:5060", "192.0.2.9:5062"].map(|a| (Transport::Udp, a.parse().unwrap()));
        let both = doors.into_iter().chain([(Transport::Tcp, "[::]:5060".parse().unwrap())]);
        let h = Home::new("example.com", both)
            .advertising("192.0.2.1".parse().unwrap())
            .advertising("2001:db8::1".parse().unwrap());
        assert_eq!(h.sent_by(Transport::Udp, "192.0.2.7".parse().unwrap()), b"192.0.2.1:5060");
        assert_eq!(h.sent_by(Transport::Tcp, "2001:db8::7".parse().unwrap()), b"[2001:db8::1]:5060");
        assert_eq!(&*h.listeners()[1].sent_by, b"192.0.2.9:5062");
        // It is still open on all of them.
        assert!(h.is_us(&Uri::parse(b"sip:198.51.100.1:5060").unwrap()));
    }

    #[test]
    fn sent_by_follows_the_transport() {
        assert_eq!(home().sent_by(Transport::Tls, "127.0.0.9".parse().unwrap()), b"127.0.0.1:5061");
        assert_eq!(home().sent_by(Transport::Tcp, "::1".parse().unwrap()), b"127.0.0.1:5060");
    }
}
