//! Sees every SIP message on its way in and out: makes trace events of them, and copies for the capture server.
//!
//! Runs under a shard's lock for each message, so it takes what the driver knows already, and looks at little else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use memchr::memchr;
use sip_net::driver::Witness;
use sip_proto::{Flow, HeaderName, Hop, Message, Method, Transport};

use super::hep::{Capture, Packet};
use super::trace::{Event, Step, Trace, TraceId};

/// The driver's witness.
pub struct Tap {
    trace: Arc<Trace>,
    capture: Option<Capture>,
    /// Our doors: stand for our own end of messages that leave over a socket yet to be chosen.
    local: Vec<(Transport, SocketAddr)>,
}

impl Tap {
    pub fn new(trace: Arc<Trace>, capture: Option<Capture>, local: Vec<(Transport, SocketAddr)>) -> Tap {
        Tap { trace, capture, local }
    }

    fn trace(&self, step: Step, at: u64, transport: Transport, peer: SocketAddr, sketch: Sketch<'_>) {
        let Sketch { method, status, call_id } = sketch;
        self.trace.record(&Event { trace: TraceId::of(call_id), at, step, method, status, transport, peer });
    }

    fn local_for(&self, transport: Transport, remote: SocketAddr) -> SocketAddr {
        let family = || self.local.iter().filter(|(_, l)| l.is_ipv4() == remote.is_ipv4());
        let same = family().find(|(t, _)| *t == transport).or_else(|| family().next());
        same.map_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), |(_, l)| *l)
    }
}

impl Witness for Tap {
    fn received(&self, at: u64, flow: &Flow, message: &Message<'_>) {
        if self.trace.is_on()
            && let Some(call_id) = message.call_id()
        {
            let sketch = Sketch { method: message.method(), status: message.status(), call_id };
            self.trace(Step::Received, at, flow.transport, flow.remote, sketch);
        }
        if let Some(capture) = &self.capture {
            let (transport, source, destination) = (flow.transport, flow.remote, flow.local);
            let correlation = message.call_id().unwrap_or_default();
            capture.offer(&Packet { transport, source, destination, at, correlation, bytes: message.bytes() });
        }
    }

    fn sent(&self, at: u64, hop: &Hop, bytes: &[u8], about: Option<&Message<'_>>) {
        let (transport, remote) = (hop.transport(), hop.remote());
        let known = about.and_then(|m| Sketch::following(bytes, m.method(), m.call_id()?));
        let sketch = known.or_else(|| Sketch::of(bytes));
        if self.trace.is_on()
            && let Some(sketch) = sketch
        {
            self.trace(Step::Sent, at, transport, remote, sketch);
        }
        if let Some(capture) = &self.capture {
            let source = match hop {
                Hop::Flow(flow) => flow.local,
                _ => self.local_for(transport, remote),
            };
            let correlation = sketch.map_or(&[][..], |s| s.call_id);
            capture.offer(&Packet { transport, source, destination: remote, at, correlation, bytes });
        }
    }
}

/// The little that a trace event needs to know of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sketch<'a> {
    method: Method,
    status: u16,
    call_id: &'a [u8],
}

impl<'a> Sketch<'a> {
    /// Of a message that follows from another one of this method and Call-ID: only the first line is looked at.
    fn following(bytes: &[u8], method: Method, call_id: &'a [u8]) -> Option<Sketch<'a>> {
        Some(match bytes.strip_prefix(b"SIP/2.0 ") {
            Some(rest) => Sketch { method, status: status(rest)?, call_id },
            None => Sketch { method: Method::from_bytes(&bytes[..memchr(b' ', bytes)?]), status: 0, call_id },
        })
    }

    /// `None` for what has no Call-ID within its first [`HEADERS`] lines.
    fn of(bytes: &'a [u8]) -> Option<Sketch<'a>> {
        let lead = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let mut rest = &bytes[lead..];
        let first = line(&mut rest)?;
        let (mut method, status) = match first.strip_prefix(b"SIP/2.0 ") {
            Some(rest) => (None, status(rest)?),
            None => (Some(Method::from_bytes(&first[..memchr(b' ', first)?])), 0),
        };
        let mut call_id = None;
        for _ in 0..HEADERS {
            if let (Some(method), Some(call_id)) = (method, call_id) {
                return Some(Sketch { method, status, call_id });
            }
            let header = line(&mut rest)?;
            // Of all header names only Call-ID, CSeq and the compact "i" matter; most lines end here.
            if !matches!(header.first(), Some(b'C' | b'c' | b'I' | b'i')) {
                continue;
            }
            let Some(colon) = memchr(b':', header) else { continue };
            let value = header[colon + 1..].trim_ascii();
            match HeaderName::from_bytes(header[..colon].trim_ascii_end()) {
                HeaderName::CallId => call_id = Some(value),
                HeaderName::CSeq if method.is_none() => {
                    let token = value.rsplit(|b| *b == b' ').next().unwrap_or_default();
                    method = Some(Method::from_bytes(token));
                }
                _ => {}
            }
        }
        None
    }
}

/// The status code at the start of what follows the version.
fn status(rest: &[u8]) -> Option<u16> {
    let digit = |d: u8| u16::from(d - b'0');
    match rest {
        [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => Some(digit(*a) * 100 + digit(*b) * 10 + digit(*c)),
        _ => None,
    }
}

/// Header lines looked at: a message that hides its Call-ID behind more goes untraced.
const HEADERS: usize = 64;

/// Takes the next line off, without its end; `None` at the empty line and at the end.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = memchr(b'\n', rest)?;
    let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
    *rest = &rest[end + 1..];
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn a_request_and_its_answers_share_a_trace() {
        let request: &[u8] = b"\r\nINVITE sip:a@b SIP/2.0\r\nVia: x\r\ni : c1@h \r\nCSeq: 1 INVITE\r\n\r\n";
        let answer: &[u8] = b"SIP/2.0 486 Busy\r\nCSeq: 1  INVITE\r\nCALL-ID:c1@h\r\n\r\n";
        assert_eq!(Sketch::of(request), Some(Sketch { method: Method::Invite, status: 0, call_id: b"c1@h" }));
        assert_eq!(Sketch::of(answer), Some(Sketch { method: Method::Invite, status: 486, call_id: b"c1@h" }));
    }

    #[test]
    fn what_has_no_call_id_is_no_trace() {
        for bytes in [
            &b""[..],
            b"\r\n\r\n",
            b"OPTIONS sip:a SIP/2.0\r\n\r\nCall-ID: x\r\n",
            b"SIP/2.0 9xx\r\nCall-ID: x\r\n",
            b"x",
        ] {
            assert_eq!(Sketch::of(bytes), None);
        }
    }

    #[test]
    fn messages_seen_become_events() {
        let trace = Arc::new(Trace::new(&config::Trace { events: 1024, ..config::Trace::default() }));
        let local = "127.0.0.1:5060".parse().unwrap();
        let tap = Tap::new(trace.clone(), None, vec![(Transport::Udp, local)]);
        let remote = "192.0.2.1:5062".parse().unwrap();
        let bytes = b"BYE sip:a@b SIP/2.0\r\nCall-ID: c1\r\n\r\n";
        let message = Message::parse(bytes).unwrap();
        tap.received(1, &Flow { transport: Transport::Udp, id: sip_proto::FlowId(1), local, remote }, &message);
        tap.sent(2, &Hop::Address { transport: Transport::Tcp, remote }, bytes, None);
        let answer = b"SIP/2.0 486 Busy\r\n\r\n";
        tap.sent(3, &Hop::Address { transport: Transport::Tcp, remote }, answer, Some(&message));
        let found = trace.find(TraceId::of(b"c1"));
        assert_eq!(found.iter().map(|e| e.step).collect::<Vec<_>>(), [Step::Received, Step::Sent, Step::Sent]);
        assert_eq!(found[1].transport, Transport::Tcp);
        assert_eq!((found[2].method, found[2].status), (Method::Bye, 486));
    }
}
