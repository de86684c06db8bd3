//! The way back to a phone: the flow its REGISTER came by, kept small.

use std::net::{IpAddr, SocketAddr};

use sip_proto::headers::Via;
use sip_proto::uri::Uri;
use sip_proto::{Flow, FlowId, Hop, Transport};

/// A [`Flow`] in little room. Scope ids of link-local IPv6 addresses are not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    id: u64,
    remote: Socket,
    local: Socket,
    transport: Transport,
    /// Who holds the connection: 0 is this node.
    node: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Socket {
    ip: IpAddr,
    port: u16,
}

/// The id of a UDP way that was restored: any socket of ours will do.
const ANY: u64 = u64::MAX;

impl Way {
    pub fn of(flow: &Flow) -> Way {
        let socket = |a: SocketAddr| Socket { ip: a.ip(), port: a.port() };
        Way {
            id: flow.id.0,
            remote: socket(flow.remote),
            local: socket(flow.local),
            transport: flow.transport,
            node: 0,
        }
    }

    /// A way that another process (or an earlier life of this one) had: only UDP outlives its process.
    pub fn restored(flow: &Flow) -> Option<Way> {
        (!flow.transport.is_reliable()).then(|| Way { id: ANY, ..Way::of(flow) })
    }

    /// The way of a phone that registered at another node, by its number: datagrams reach it from any of ours, a connection
    /// does not.
    pub fn elsewhere(flow: &Flow, node: u16) -> Way {
        Way::restored(flow).unwrap_or(Way { node, ..Way::of(flow) })
    }

    /// The number of the only node that can send this way, when that is another one.
    pub fn elsewhere_at(&self) -> Option<u16> {
        (self.node != 0).then_some(self.node)
    }

    pub fn flow(&self) -> Flow {
        let address = |s: Socket| SocketAddr::new(s.ip, s.port);
        Flow {
            transport: self.transport,
            id: FlowId(self.id),
            local: address(self.local),
            remote: address(self.remote),
        }
    }

    /// Where this node sends to; `None` when it cannot.
    pub fn hop(&self) -> Option<Hop> {
        match self.id {
            _ if self.node != 0 => None,
            ANY => Some(Hop::Address {
                transport: self.transport,
                remote: SocketAddr::new(self.remote.ip, self.remote.port),
            }),
            _ => Some(Hop::Flow(self.flow())),
        }
    }

    /// The connection that this way ends with; UDP has none.
    pub fn connection(&self) -> Option<FlowId> {
        (self.transport.is_reliable() && self.node == 0).then_some(FlowId(self.id))
    }

    /// Whether a message over that flow comes the same way.
    pub fn is(&self, flow: &Flow) -> bool {
        self.node == 0
            && self.id == flow.id.0
            && self.transport == flow.transport
            && self.remote == Way::of(flow).remote
    }
}

/// Whether a contact can only be reached over the flow that its REGISTER came by directly.
///
/// It can when it is no address at all (`.invalid`, RFC 7118 §5), over WebSocket, and when it names the sender itself (its
/// host is the host of the Via) while the sender is seen elsewhere than it thinks (a NAT) or keeps a connection open to us.
/// A contact that names somebody else is left alone.
pub fn needs_flow(contact: &Uri<'_>, via: &Via<'_>, flow: &Flow) -> bool {
    let host = contact.host();
    if matches!(flow.transport, Transport::Ws | Transport::Wss) || is_invalid(host) {
        return true;
    }
    if !host.eq_ignore_ascii_case(via.host) {
        return false;
    }
    if flow.transport.is_reliable() {
        return true;
    }
    let itself = contact.port() == via.port;
    match contact.host_ip() {
        Some(ip) if ip == flow.remote.ip().to_canonical() => itself && contact.port_or_default() != flow.remote.port(),
        // Seen from elsewhere, or a name that only the sender's own net may know.
        _ => true,
    }
}

/// A host that never resolves (RFC 2606 §2).
pub fn is_invalid(host: &[u8]) -> bool {
    const ENDING: &[u8] = b".invalid";
    host.len() > ENDING.len() && host[host.len() - ENDING.len()..].eq_ignore_ascii_case(ENDING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(transport: Transport, remote: &str) -> Flow {
        Flow { transport, id: FlowId(3), local: "192.0.2.1:5060".parse().unwrap(), remote: remote.parse().unwrap() }
    }

    #[test]
    fn a_way_is_its_flow() {
        let f = flow(Transport::Tls, "[2001:db8::1]:4000");
        let way = Way::of(&f);
        assert_eq!((way.flow(), way.hop(), way.connection()), (f, Some(Hop::Flow(f)), Some(FlowId(3))));
        assert!(way.is(&f) && !way.is(&flow(Transport::Tls, "[2001:db8::2]:4000")));
        assert!(size_of::<Way>() <= 56);
    }

    #[test]
    fn only_udp_outlives_the_process() {
        assert_eq!(Way::restored(&flow(Transport::Tcp, "192.0.2.9:1")), None);
        let udp = Way::restored(&flow(Transport::Udp, "192.0.2.9:1")).unwrap();
        let address = Hop::Address { transport: Transport::Udp, remote: "192.0.2.9:1".parse().unwrap() };
        assert_eq!((udp.hop(), udp.connection()), (Some(address), None));
        assert_eq!(Way::elsewhere(&flow(Transport::Udp, "192.0.2.9:1"), 2), udp);
        let flow = flow(Transport::Tcp, "192.0.2.9:1");
        let tcp = Way::elsewhere(&flow, 2);
        assert_eq!((tcp.elsewhere_at(), tcp.hop(), tcp.connection()), (Some(2), None, None));
        assert!(tcp.flow() == flow && !tcp.is(&flow), "a connection of ours with that number is another one");
    }

    #[test]
    fn a_sender_behind_a_nat_is_reached_over_its_flow_and_others_where_they_say() {
        use Transport::*;
        for (contact, via, transport, remote, expected) in [
            // Seen where it says.
            ("sip:a@192.0.2.9:5062", "192.0.2.9:5062", Udp, "192.0.2.9:5062", false),
            ("sip:a@192.0.2.9", "192.0.2.9", Udp, "192.0.2.9:5060", false),
            // Another address or port than it thinks.
            ("sip:a@10.0.0.2:5062", "10.0.0.2:5062", Udp, "192.0.2.9:4000", true),
            ("sip:a@10.0.0.2:5062", "10.0.0.2:5064", Udp, "192.0.2.9:4000", true),
            ("sip:a@192.0.2.9:5062", "192.0.2.9:5062", Udp, "192.0.2.9:4000", true),
            ("sip:a@phone.lan", "phone.lan", Udp, "192.0.2.9:4000", true),
            // A contact that is not the sender: a second phone, a test tool with two ports.
            ("sip:a@192.0.2.9:6000", "192.0.2.9:5062", Udp, "192.0.2.9:5062", false),
            ("sip:a@192.0.2.7:5060", "192.0.2.9:5062", Udp, "192.0.2.9:5062", false),
            ("sip:a@192.0.2.7:5060", "192.0.2.9:5062", Tcp, "192.0.2.9:5062", false),
            // Connections.
            ("sip:a@192.0.2.9:5062;transport=tcp", "192.0.2.9:5062", Tcp, "192.0.2.9:4000", true),
            ("sip:a@x.invalid;transport=ws", "y.invalid", Ws, "192.0.2.9:4000", true),
            ("sip:a@df7jal.INVALID", "y", Udp, "192.0.2.9:4000", true),
        ] {
            let value = format!("SIP/2.0/UDP {via};branch=z9hG4bK1");
            let needs = needs_flow(
                &Uri::parse(contact.as_bytes()).unwrap(),
                &Via::parse(value.as_bytes()).unwrap(),
                &flow(transport, remote),
            );
            assert_eq!(needs, expected, "{contact} {via} {remote}");
        }
    }
}
