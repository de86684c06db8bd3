//! Trace events of decisions that no message on the wire shows, made of the notes that services take.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sip_ims::service::{Chronicle, Note, NoteEvent};
use sip_proto::{Method, Transport};

use super::trace::{Event, Step, Trace, TraceId, service_peer};

/// Marks the trace and hands the note on.
pub struct Marks {
    trace: Arc<Trace>,
    next: Option<Arc<dyn Chronicle>>,
}

impl Marks {
    /// `next` writes the charging records, where they are wanted.
    pub fn new(trace: Arc<Trace>, next: Option<Arc<dyn Chronicle>>) -> Marks {
        Marks { trace, next }
    }
}

impl Marks {
    /// Services are named in the trace, and are nothing to charge for.
    fn service(&self, note: &Note<'_>, step: Step) {
        self.trace.record(&Event {
            trace: TraceId::of(note.trace),
            at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64),
            step,
            method: Method::Other,
            status: 0,
            transport: Transport::Udp,
            peer: service_peer(note.to, note.status),
        });
    }
}

impl Chronicle for Marks {
    fn note(&self, note: &Note<'_>) {
        let step = match note.event {
            NoteEvent::CallForwarded => Some((Step::Diverted, Method::Invite)),
            NoteEvent::MessageKept => Some((Step::Kept, Method::Message)),
            NoteEvent::MessageDelivered => Some((Step::Delivered, Method::Message)),
            NoteEvent::MessageExpired => Some((Step::Expired, Method::Message)),
            NoteEvent::SessionAnchored => Some((Step::Anchored, Method::Invite)),
            NoteEvent::SessionEnded => Some((Step::SessionEnded, Method::Invite)),
            NoteEvent::MediaRelayed => Some((Step::Relayed, Method::Invite)),
            NoteEvent::ServiceInvoked => return self.service(note, Step::Invoked),
            NoteEvent::ServiceTook => return self.service(note, Step::Taken),
            NoteEvent::ServiceSkipped => return self.service(note, Step::Skipped),
            NoteEvent::ServiceFailed => return self.service(note, Step::Down),
            NoteEvent::ServerReturned => return self.service(note, Step::Returned),
            NoteEvent::Joined => {
                // A trace id is as long as a service's name may be.
                let other = TraceId::of(note.to).to_string();
                return self.service(&Note { to: other.as_bytes(), ..*note }, Step::Joined);
            }
            _ => None,
        };
        if let Some((step, method)) = step {
            self.trace.record(&Event {
                trace: TraceId::of(note.trace),
                at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64),
                step,
                method,
                status: note.status,
                transport: Transport::Udp,
                peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            });
        }
        if let Some(next) = &self.next {
            next.note(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn a_kept_message_shows_in_its_trace() {
        let trace = Arc::new(Trace::new(&config::Trace { events: 1024, ..config::Trace::default() }));
        let note = |event| Note { trace: b"m1", event, status: 202, from: b"", to: b"" };
        let marks = Marks::new(trace.clone(), None);
        marks.note(&note(NoteEvent::MessageKept));
        marks.note(&note(NoteEvent::CallRinging));
        let found = trace.find(TraceId::of(b"m1"));
        assert_eq!(found.iter().map(|e| (e.step, e.status)).collect::<Vec<_>>(), [(Step::Kept, 202)]);
    }
}
