//! Sees every SIP message on its way in and out: makes trace events of them, and copies for the capture server.
//!
//! Runs under a shard's lock for each message, so it reads no more than a start line and two headers, and parses nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use memchr::memchr;
use sip_net::driver::Witness;
use sip_proto::{Flow, HeaderName, Hop, Method, Transport};

use super::hep::{Capture, Packet};
use super::trace::{Event, Step, Trace, TraceId};

/// The driver's witness.
pub struct Tap {
    trace: Arc<Trace>,
    capture: Option<Capture>,
    /// Stands for our own end of messages that leave over a connection yet to be chosen, by family.
    local: Vec<SocketAddr>,
}

impl Tap {
    pub fn new(trace: Arc<Trace>, capture: Option<Capture>, local: Vec<SocketAddr>) -> Tap {
        Tap { trace, capture, local }
    }

    fn see(&self, step: Step, transport: Transport, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        if self.trace.is_on()
            && let Some(sketch) = Sketch::of(bytes)
        {
            self.trace.record(&Event {
                trace: TraceId::of(sketch.call_id),
                at,
                step,
                method: sketch.method,
                status: sketch.status,
                transport,
                peer: remote,
            });
        }
        if let Some(capture) = &self.capture {
            let (source, destination) = if step == Step::Received { (remote, local) } else { (local, remote) };
            capture.offer(&Packet { transport, source, destination, at, bytes });
        }
    }

    fn local_for(&self, remote: SocketAddr) -> SocketAddr {
        let same = self.local.iter().find(|l| l.is_ipv4() == remote.is_ipv4());
        same.or(self.local.first()).copied().unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))
    }
}

impl Witness for Tap {
    fn received(&self, flow: &Flow, bytes: &[u8]) {
        self.see(Step::Received, flow.transport, flow.local, flow.remote, bytes);
    }

    fn sent(&self, hop: &Hop, bytes: &[u8]) {
        let remote = hop.remote();
        let local = match hop {
            Hop::Flow(flow) => flow.local,
            _ => self.local_for(remote),
        };
        self.see(Step::Sent, hop.transport(), local, remote, bytes);
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
    /// `None` for what has no Call-ID within its first [`HEADERS`] lines.
    fn of(bytes: &'a [u8]) -> Option<Sketch<'a>> {
        let lead = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let mut rest = &bytes[lead..];
        let first = line(&mut rest)?;
        let (mut method, status) = match first.strip_prefix(b"SIP/2.0 ") {
            Some([a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9', ..]) => {
                let digit = |d: u8| u16::from(d - b'0');
                (None, digit(*a) * 100 + digit(*b) * 10 + digit(*c))
            }
            Some(_) => return None,
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
        let tap = Tap::new(trace.clone(), None, vec![local]);
        let remote = "192.0.2.1:5062".parse().unwrap();
        let bytes = b"BYE sip:a@b SIP/2.0\r\nCall-ID: c1\r\n\r\n";
        tap.received(&Flow { transport: Transport::Udp, id: sip_proto::FlowId(1), local, remote }, bytes);
        tap.sent(&Hop::Address { transport: Transport::Tcp, remote }, bytes);
        let found = trace.find(TraceId::of(b"c1"));
        assert_eq!(found.iter().map(|e| e.step).collect::<Vec<_>>(), [Step::Received, Step::Sent]);
        assert_eq!(found[1].transport, Transport::Tcp);
    }
}
