//! Route and Record-Route: taking our own entries off, writing them, and the tokens they carry.
//!
//! A Record-Route of ours carries `is=`, a seal over the Call-ID: whoever brings it back is in a dialog that we let pass,
//! and need not prove itself again. Where the next hop is a connection that only we know (RFC 5626, RFC 7118), its user part
//! carries the flow. A node that is to send over such a connection for another gets a Route of the same form, which no phone ever
//! sees: by that it knows the other. In a dialog whose caller asked for privacy, `hi=` carries what the callee does not see.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use sip_ims::Home;
use sip_ims::service::Elsewhere;
use sip_proto::headers::{NameAddr, list};
use sip_proto::uri::Uri;
use sip_proto::{Edits, Flow, FlowId, HeaderName, Message, Transport};
use smallvec::SmallVec;

use crate::chain::Chain;
use crate::seal::{Kind, Seals};
use crate::veil::Veil;

/// What the Route headers of a request say once our own entries are off (RFC 3261 §16.4).
#[derive(Debug, Default)]
pub struct Routed<'a> {
    /// Spans of the message to leave out when it is sent on.
    pub popped: SmallVec<[Range<usize>; 2]>,
    /// The first Route that is left: the next hop.
    pub next: Option<&'a [u8]>,
    /// The next hop is a strict router (RFC 3261 §16.6 step 6): what to leave out to take it off Route.
    pub strict: Option<Range<usize>>,
    /// The flow that our last entry named.
    pub flow: Option<Flow>,
    /// An entry of ours was there and its seal fits this Call-ID.
    pub sealed: bool,
    /// Another node of the cluster sends this, to be sent on over `flow`.
    pub from_node: bool,
    /// Another node has this one answer.
    pub handed_over: bool,
    /// What the callee of this dialog is not to see.
    pub veil: Option<Veil>,
    /// An application server sends back what we sent there.
    pub chain: Option<Chain>,
    /// The user part of our topmost entry: the name of a service, where an S-CSCF wants one (TS 23.228 §5.4.12).
    pub service: Option<&'a [u8]>,
    /// The originating case is marked on our entry, or on that of the S-CSCF behind it (TS 24.229 §5.7.3).
    pub originating: bool,
}

impl<'a> Routed<'a> {
    pub fn of(message: &Message<'a>, home: &Home, seals: &Seals) -> Routed<'a> {
        let mut routed = Routed::default();
        let call_id = message.call_id().unwrap_or_default();
        for line in message.lines(HeaderName::Route) {
            let value = &message.bytes()[line.value()];
            let mut first_left = None;
            let mut items = list(value);
            while let Some(item) = items.next() {
                let Some(addr) = NameAddr::parse(item) else { break };
                let uri = addr.uri();
                let Some(uri) = uri.as_ref().filter(|u| home.is_us(u)) else {
                    let start = message.range_of(item).start;
                    routed.originating |= addr.uri().is_some_and(|u| u.params().has("orig"));
                    if uri.is_some_and(|u| !u.has_lr()) {
                        let rest = items.next().map(|second| message.range_of(second).start);
                        routed.strict = Some(rest.map_or(line.line(), |second| start..second));
                    }
                    first_left = Some((start, addr.addr));
                    break;
                };
                if routed.service.is_none() {
                    routed.service = uri.user();
                }
                routed.originating |= uri.params().has("orig");
                routed.chain = routed.chain.or_else(|| Chain::read(seals, uri.user()?));
                // The last entry of ours is the side that the request leaves by: only its flow counts.
                let elsewhere = uri.user().and_then(|t| read_flow(t, Kind::Elsewhere, seals, call_id));
                routed.handed_over |= elsewhere.is_some_and(|flow| flow.is_internal());
                let elsewhere = elsewhere.filter(|flow| !flow.is_internal());
                routed.from_node |= elsewhere.is_some();
                routed.flow = elsewhere.or_else(|| read_flow(uri.user()?, Kind::Flow, seals, call_id));
                routed.sealed |= uri.params().get("is").is_some_and(|s| s == seals.of_call(call_id));
                if let Some(token) = uri.params().get("hi") {
                    routed.veil = Veil::reveal(seals, call_id, token);
                }
            }
            match first_left {
                None => routed.popped.push(line.line()),
                Some((start, addr)) => {
                    if start > line.value().start {
                        routed.popped.push(line.value().start..start);
                    }
                    routed.next = Some(addr);
                    break;
                }
            }
        }
        if routed.handed_over {
            (routed.next, routed.strict) = (None, None);
        }
        routed
    }
}

/// A request that comes from a strict router has in its Request-URI what we once wrote into a Record-Route, and the real
/// Request-URI at the end of its Route. Gives the same request as a loose router would have sent it (RFC 3261 §16.4);
/// `None` when there is nothing to mend.
pub fn mend_strict(message: &Message<'_>, home: &Home, seals: &Seals) -> Option<Vec<u8>> {
    let ours = message.request_uri();
    if !ours.windows(4).any(|w| w == b";is=") {
        return None;
    }
    let uri = Uri::parse(ours).filter(|u| u.has_lr() && home.is_us(u))?;
    if uri.params().get("is")? != seals.of_call(message.call_id()?) {
        return None;
    }
    let first = message.line(HeaderName::Route)?;
    let line = message.lines(HeaderName::Route).last()?;
    let value = &message.bytes()[line.value()];
    let (mut before, mut last) = (None, None);
    for item in list(value) {
        before = last.replace(item);
    }
    let target = NameAddr::parse(last?)?.addr;
    let mut edits = Edits::new();
    edits.replace(message.request_uri_range(), |t| t.extend_from_slice(target));
    edits.insert_header(first.line().start, HeaderName::Route, |t| {
        t.push(b'<');
        t.extend_from_slice(ours);
        t.push(b'>');
    });
    edits.delete(before.map_or(line.line(), |item| message.range_of(item).end..line.value().end));
    let mut mended = Vec::with_capacity(message.bytes().len() + 16);
    edits.apply(message.bytes(), &mut mended);
    Some(mended)
}

/// One side of our Record-Route: `<sip:flow@host:port;transport=tcp;lr;is=seal;hi=hidden>`.
pub fn write_record_route(
    out: &mut Vec<u8>,
    transport: Transport,
    sent_by: &[u8],
    flow: &[u8],
    seal: &[u8],
    hidden: &[u8],
) {
    out.extend_from_slice(b"<sip:");
    if !flow.is_empty() {
        out.extend_from_slice(flow);
        out.push(b'@');
    }
    out.extend_from_slice(sent_by);
    if transport != Transport::Udp {
        out.extend_from_slice(b";transport=");
        out.extend_from_slice(transport.uri_token().as_bytes());
    }
    out.extend_from_slice(b";lr;is=");
    out.extend_from_slice(seal);
    if !hidden.is_empty() {
        out.extend_from_slice(b";hi=");
        out.extend_from_slice(hidden);
    }
    out.push(b'>');
}

/// A flow as the user part of a URI, sealed for one call so that it opens no connection to anybody else, and tells nobody
/// whose it is.
pub fn write_flow(flow: &Flow, kind: Kind, seals: &Seals, call_id: &[u8]) -> Vec<u8> {
    let mut raw = SmallVec::<[u8; 32]>::new();
    raw.push(flow.transport as u8);
    raw.extend_from_slice(&flow.id.0.to_be_bytes());
    raw.extend_from_slice(&flow.remote.port().to_be_bytes());
    match flow.remote.ip() {
        IpAddr::V4(ip) => raw.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => raw.extend_from_slice(&ip.octets()),
    }
    let mut token = Vec::with_capacity(72);
    token.push(if kind == Kind::Elsewhere { b'n' } else { b'f' });
    seals.hide(kind, call_id, &raw, &mut token);
    token
}

fn read_flow(token: &[u8], kind: Kind, seals: &Seals, call_id: &[u8]) -> Option<Flow> {
    let mark: &[u8] = if kind == Kind::Elsewhere { b"n" } else { b"f" };
    let raw = seals.reveal(kind, call_id, token.strip_prefix(mark)?)?;
    let ([transport], rest) = raw.split_first_chunk()?;
    let (id, rest) = rest.split_first_chunk()?;
    let (port, ip) = rest.split_first_chunk()?;
    let ip: IpAddr = match *ip {
        [a, b, c, d] => Ipv4Addr::new(a, b, c, d).into(),
        _ => <[u8; 16]>::try_from(ip).ok()?.into(),
    };
    let unspecified: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Some(Flow {
        transport: *Transport::ALL.get(usize::from(*transport))?,
        id: FlowId(u64::from_be_bytes(*id)),
        local: SocketAddr::new(unspecified, 0),
        remote: SocketAddr::new(ip, u16::from_be_bytes(*port)),
    })
}

/// A Route to the node that has a connection, to be sent on over it: `<sip:flow@host:port;transport=tcp;lr>`. With
/// [`Flow::INTERNAL`] to a node that is to answer.
pub fn write_route_elsewhere(out: &mut Vec<u8>, to: &Elsewhere, seals: &Seals, call_id: &[u8]) {
    out.extend_from_slice(b"<sip:");
    out.extend_from_slice(&write_flow(&to.flow, Kind::Elsewhere, seals, call_id));
    out.push(b'@');
    sip_proto::edit::display(out, to.node.remote());
    if to.node.transport() != Transport::Udp {
        out.extend_from_slice(b";transport=");
        out.extend_from_slice(to.node.transport().uri_token().as_bytes());
    }
    out.extend_from_slice(b";lr>");
}

/// Address and transport of a URI whose host is an IP address; `None` when it takes a look-up.
pub fn literal_hop(uri: &Uri<'_>) -> Option<(Transport, SocketAddr)> {
    let ip = uri.host_ip()?;
    let secure = uri.scheme() == sip_proto::uri::Scheme::Sips;
    let transport = match uri.transport() {
        Some(token) => Transport::from_token(token)?,
        None if secure => Transport::Tls,
        None => Transport::Udp,
    };
    let transport = match transport {
        Transport::Tcp if secure => Transport::Tls,
        Transport::Ws if secure => Transport::Wss,
        t => t,
    };
    Some((transport, SocketAddr::new(ip, uri.port().unwrap_or(transport.default_port()))))
}

#[cfg(test)]
mod tests {
    use sip_proto::Hop;

    use super::*;

    fn seals() -> Seals {
        Seals::new(&[3; 32])
    }

    fn home() -> Home {
        Home::new("example.com", [(Transport::Udp, "127.0.0.1:5060".parse().unwrap())])
    }

    fn request(routes: &str) -> Vec<u8> {
        format!("BYE sip:b SIP/2.0\r\n{routes}Call-ID: c\r\n\r\n").into_bytes()
    }

    #[test]
    fn our_entries_come_off_and_the_rest_stays() {
        let bytes =
            request("Route: <sip:127.0.0.1;lr>, <sip:127.0.0.1:5060;lr>, <sip:other;lr>\r\nRoute: <sip:third;lr>\r\n");
        let message = Message::parse(&bytes).unwrap();
        let routed = Routed::of(&message, &home(), &seals());
        assert_eq!(routed.next, Some(&b"sip:other;lr"[..]));
        assert!(!routed.sealed);
        let mut edits = sip_proto::Edits::new();
        routed.popped.iter().for_each(|r| edits.delete(r.clone()));
        let mut out = Vec::new();
        edits.apply(message.bytes(), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Route: <sip:other;lr>\r\nRoute: <sip:third;lr>\r\n"), "{text}");
    }

    #[test]
    fn only_the_side_that_a_request_leaves_by_names_its_flow() {
        let flow = Flow {
            transport: Transport::Tcp,
            id: FlowId(7),
            local: "0.0.0.0:0".parse().unwrap(),
            remote: "192.0.2.1:4711".parse().unwrap(),
        };
        let token = String::from_utf8(write_flow(&flow, Kind::Flow, &seals(), b"c")).unwrap();
        let inside = format!("<sip:{token}@127.0.0.1:5060;transport=tcp;lr>");
        let outside = "<sip:127.0.0.1:5060;lr>";
        for (route, expected) in
            [(format!("{inside}, {outside}"), None), (format!("{outside}, {inside}"), Some(flow.id))]
        {
            let bytes = request(&format!("Route: {route}\r\n"));
            let routed = Routed::of(&Message::parse(&bytes).unwrap(), &home(), &seals());
            assert_eq!(routed.flow.map(|f| f.id), expected, "{route}");
        }
    }

    #[test]
    fn a_seal_and_a_flow_hold_for_their_call_only() {
        let flow = Flow {
            transport: Transport::Wss,
            id: FlowId(7),
            local: "0.0.0.0:0".parse().unwrap(),
            remote: "[2001:db8::1]:4711".parse().unwrap(),
        };
        let token = write_flow(&flow, Kind::Flow, &seals(), b"c");
        let mut text = b"Route: ".to_vec();
        write_record_route(&mut text, Transport::Udp, b"127.0.0.1:5060", &token, &seals().of_call(b"c"), b"");
        text.extend_from_slice(b"\r\n");
        let bytes = request(std::str::from_utf8(&text).unwrap());
        let message = Message::parse(&bytes).unwrap();
        let routed = Routed::of(&message, &home(), &seals());
        assert!(routed.sealed);
        let routed = routed.flow.unwrap();
        assert_eq!((routed.id, routed.remote, routed.transport), (flow.id, flow.remote, flow.transport));
        let other = String::from_utf8(bytes).unwrap().replace("Call-ID: c", "Call-ID: d").into_bytes();
        let message = Message::parse(&other).unwrap();
        let routed = Routed::of(&message, &home(), &seals());
        assert!(routed.flow.is_none() && !routed.sealed);
    }

    #[test]
    fn only_a_node_knows_the_flows_of_another() {
        let local = "192.0.2.7:5060".parse().unwrap();
        let flow = Flow {
            transport: Transport::Wss,
            id: FlowId(1 << 40),
            local,
            remote: "[2001:db8::1]:4711".parse().unwrap(),
        };
        let node = Hop::Address { transport: Transport::Tcp, remote: "127.0.0.1:5060".parse().unwrap() };
        let mut route = Vec::new();
        write_route_elsewhere(&mut route, &Elsewhere { node, flow }, &seals(), b"c");
        let route = String::from_utf8(route).unwrap();
        assert!(route.starts_with("<sip:n") && route.ends_with("@127.0.0.1:5060;transport=tcp;lr>"), "{route}");
        let routed = |route: &str| {
            let bytes = request(&format!("Route: {route}\r\n"));
            let routed = Routed::of(&Message::parse(&bytes).unwrap(), &home(), &seals());
            (routed.from_node, routed.flow.map(|f| (f.transport, f.id, f.remote)))
        };
        assert_eq!(routed(&route), (true, Some((flow.transport, flow.id, flow.remote))));
        // A flow of the dialog's own is none of a node's.
        assert_eq!(routed(&route.replace("<sip:n", "<sip:f")), (false, None));
        let ours = String::from_utf8(write_flow(&flow, Kind::Flow, &seals(), b"c")).unwrap();
        assert_eq!(routed(&format!("<sip:n{}@127.0.0.1:5060;lr>", &ours[1..])), (false, None));
    }

    fn mended(text: &str) -> Option<String> {
        let bytes = text.replace('\n', "\r\n").into_bytes();
        let mended = mend_strict(&Message::parse(&bytes).unwrap(), &home(), &seals())?;
        Some(String::from_utf8(mended).unwrap().replace("\r\n", "\n"))
    }

    #[test]
    fn a_strict_routers_request_is_made_a_loose_ones() {
        let is = String::from_utf8(seals().of_call(b"c").to_vec()).unwrap();
        let (one, two) =
            (format!("sip:127.0.0.1:5060;lr;is={is}"), format!("sip:f@127.0.0.1;transport=tcp;lr;is={is}"));
        for (routes, rest) in [
            ("Route: <sip:alice@192.0.2.1>\n".to_owned(), String::new()),
            (format!("Route: <{two}>, <sip:alice@192.0.2.1>\n"), format!("Route: <{two}>\n")),
            (format!("Route: <{two}>\nRoute: <sip:alice@192.0.2.1>\n"), format!("Route: <{two}>\n")),
        ] {
            let text = format!("BYE {one} SIP/2.0\n{routes}Call-ID: c\n\n");
            let loose = format!("BYE sip:alice@192.0.2.1 SIP/2.0\nRoute: <{one}>\n{rest}Call-ID: c\n\n");
            assert_eq!(mended(&text), Some(loose));
        }
        // Not what we wrote, or not in this call, or nowhere to go: left alone.
        for (uri, routes) in [
            ("sip:127.0.0.1:5060;lr", "Route: <sip:alice@192.0.2.1>\n"),
            ("sip:127.0.0.1:5060;lr;is=0123456789abcdef", "Route: <sip:alice@192.0.2.1>\n"),
            (&one, ""),
            (&one.replace("127", "128"), "Route: <sip:alice@192.0.2.1>\n"),
        ] {
            assert_eq!(mended(&format!("BYE {uri} SIP/2.0\n{routes}Call-ID: c\n\n")), None, "{uri}");
        }
    }

    #[test]
    fn a_next_hop_without_lr_is_seen_as_strict() {
        for (routes, left) in [
            ("Route: <sip:127.0.0.1;lr>, <sip:strict>\r\n", ""),
            ("Route: <sip:127.0.0.1;lr>, <sip:strict>, <sip:b;lr>\r\n", "Route: <sip:b;lr>\r\n"),
            ("Route: <sip:strict>\r\nRoute: <sip:b;lr>\r\n", "Route: <sip:b;lr>\r\n"),
        ] {
            let bytes = request(routes);
            let message = Message::parse(&bytes).unwrap();
            let routed = Routed::of(&message, &home(), &seals());
            assert_eq!(routed.next, Some(&b"sip:strict"[..]), "{routes}");
            let mut edits = Edits::new();
            routed.popped.iter().chain(&routed.strict).for_each(|r| edits.delete(r.clone()));
            let mut out = Vec::new();
            edits.apply(message.bytes(), &mut out);
            assert_eq!(out, request(left), "{routes}");
        }
        let bytes = request("Route: <sip:loose;lr>\r\n");
        assert_eq!(Routed::of(&Message::parse(&bytes).unwrap(), &home(), &seals()).strict, None);
    }
}
