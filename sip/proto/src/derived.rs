//! Messages that follow from another message by rule: CANCEL and hop-by-hop ACK from a request.

use crate::edit::number;
use crate::headers::{Params, list, quoted_end};
use crate::message::Message;
use crate::name::HeaderName;
use crate::octet;

/// The CANCEL for a request that was sent (RFC 3261 §9.1): its Request-URI, topmost Via, From, To, Call-ID, CSeq number
/// and Route set.
pub fn cancel(request: &Message<'_>, out: &mut Vec<u8>) {
    follow(request, b"CANCEL", request.value(HeaderName::To).unwrap_or_default(), out);
}

/// The ACK for a non-2xx final response (RFC 3261 §17.1.1.3): as above, with the To of the response.
pub fn ack(request: &Message<'_>, response: &Message<'_>, out: &mut Vec<u8>) {
    follow(request, b"ACK", response.value(HeaderName::To).unwrap_or_default(), out);
}

fn follow(request: &Message<'_>, method: &[u8], to: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(request.request_uri());
    out.extend_from_slice(b" SIP/2.0\r\nVia: ");
    out.extend_from_slice(request.value(HeaderName::Via).and_then(|v| list(v).next()).unwrap_or_default());
    for route in request.lines(HeaderName::Route) {
        out.extend_from_slice(b"\r\nRoute: ");
        out.extend_from_slice(&request.bytes()[route.value()]);
    }
    out.extend_from_slice(b"\r\nMax-Forwards: 70\r\nFrom: ");
    out.extend_from_slice(request.value(HeaderName::From).unwrap_or_default());
    out.extend_from_slice(b"\r\nTo: ");
    out.extend_from_slice(to);
    out.extend_from_slice(b"\r\nCall-ID: ");
    out.extend_from_slice(request.call_id().unwrap_or_default());
    out.extend_from_slice(b"\r\nCSeq: ");
    number(out, request.cseq().map_or(0, |c| u64::from(c.number)));
    out.push(b' ');
    out.extend_from_slice(method);
    out.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
}

/// The `tag` of a From or To value.
pub fn tag(value: &[u8]) -> Option<&[u8]> {
    // Parameters after the addr-spec: behind `>` if there is one, else behind the first `;` (RFC 3261 §20: without
    // brackets every parameter belongs to the header).
    let rest = match closing_angle(value) {
        Some(end) => &value[end..],
        None => value,
    };
    let from = octet::first(rest, octet::SEMICOLON)?;
    Params::new(&rest[from..]).get("tag").filter(|t| !t.is_empty())
}

/// Offset just behind the `>` that ends a name-addr, quotes respected; `None` without brackets.
fn closing_angle(s: &[u8]) -> Option<usize> {
    let mut i = 0;
    loop {
        i += octet::first(&s[i..], octet::QUOTE | octet::OPEN)?;
        match s[i] {
            b'<' => return octet::first(&s[i..], octet::CLOSE).map(|end| i + end + 1),
            _ => i += quoted_end(&s[i..])?,
        }
    }
}
