//! The top Via of a request as the server that received it completes it (RFC 3261 §18.2.1, RFC 3581 §4).

use std::net::SocketAddr;
use std::ops::Range;

use crate::edit;
use crate::headers::{Via, host, list};
use crate::message::Message;
use crate::name::HeaderName;

/// Where the topmost Via value of a message stands. `None` when there is none.
pub fn span(message: &Message<'_>) -> Option<Range<usize>> {
    let value = message.line(HeaderName::Via)?.value();
    // Its parameters end where it does.
    let end = match message.top_via() {
        Some(view) => message.range_of(view.params.as_bytes()).end,
        None => message.range_of(list(&message.bytes()[value.clone()]).next()?).end,
    };
    Some(value.start..end)
}

/// Appends the topmost Via value of a request with `received` and `rport` as they should be when it came from `source`. A `received`
/// that the client wrote itself is dropped. A value that cannot be read is copied.
pub fn write(request: &Message<'_>, source: SocketAddr, out: &mut Vec<u8>) {
    let Some(span) = span(request) else { return };
    let via = &request.bytes()[span];
    match request.top_via() {
        Some(view) => complete(via, &view, source, out),
        None => out.extend_from_slice(via),
    }
}

fn complete(via: &[u8], view: &Via<'_>, source: SocketAddr, out: &mut Vec<u8>) {
    let params = view.params.as_bytes();
    let address = source.ip().to_canonical();
    out.extend_from_slice(&via[..via.len() - params.len()]);
    let mut wants_port = false;
    for (name, value) in view.params.iter() {
        if name.eq_ignore_ascii_case(b"received") {
            continue;
        }
        out.push(b';');
        out.extend_from_slice(name);
        if name.eq_ignore_ascii_case(b"rport") {
            wants_port = true;
            out.push(b'=');
            edit::number(out, u64::from(source.port()));
        } else if let Some(value) = value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    let end = out.len();
    out.extend_from_slice(b";received=");
    let written = out.len();
    edit::ip(out, address);
    // Nearly always as text; IPv6 has brackets there, and more than one spelling.
    if !wants_port && (out[written..] == *view.host || host::ip(view.host) == Some(address)) {
        out.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(via: &str, source: &str) -> String {
        let request = format!("OPTIONS sip:a SIP/2.0\r\nVia:  {via} , SIP/2.0/UDP b\r\n\r\n");
        let request = Message::parse(request.as_bytes()).unwrap();
        let mut out = Vec::new();
        write(&request, source.parse().unwrap(), &mut out);
        assert_eq!(&request.bytes()[span(&request).unwrap()], via.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn received_is_added_when_sent_by_is_not_the_source() {
        assert_eq!(completed("SIP/2.0/UDP 192.0.2.1;branch=b", "192.0.2.1:9"), "SIP/2.0/UDP 192.0.2.1;branch=b");
        assert_eq!(completed("SIP/2.0/UDP 192.0.2.2", "192.0.2.1:9"), "SIP/2.0/UDP 192.0.2.2;received=192.0.2.1");
        assert_eq!(completed("SIP/2.0/UDP a.b;x", "[2001:db8::1]:9"), "SIP/2.0/UDP a.b;x;received=2001:db8::1");
        assert_eq!(completed("SIP/2.0/UDP 192.0.2.1", "[::ffff:192.0.2.1]:9"), "SIP/2.0/UDP 192.0.2.1");
    }

    #[test]
    fn rport_is_filled_and_brings_received() {
        assert_eq!(
            completed("SIP/2.0/UDP 192.0.2.1:5060 ;rport;branch=b", "192.0.2.1:9"),
            "SIP/2.0/UDP 192.0.2.1:5060 ;rport=9;branch=b;received=192.0.2.1"
        );
    }

    #[test]
    fn what_the_client_claims_is_replaced() {
        assert_eq!(
            completed("SIP/2.0/UDP 192.0.2.1;received=10.9.9.9;rport=1", "192.0.2.1:9"),
            "SIP/2.0/UDP 192.0.2.1;rport=9;received=192.0.2.1"
        );
    }

    #[test]
    fn unreadable_values_are_copied() {
        assert_eq!(completed("SIP/2.0/UDP", "192.0.2.1:9"), "SIP/2.0/UDP");
    }
}
