//! What the gateway asks of others, and what others ask of it.

use std::sync::Arc;
use std::time::Duration;

use sip_ims::service::Elsewhere;
use sip_ims::{Aor, Msisdn, User};

use crate::notice::Told;
use crate::segment::Segment;

/// A message of ours that was submitted by a handset or a SIP client.
pub struct Submission {
    pub from: Arc<User>,
    /// The originating address that the addressee sees.
    pub source: Msisdn,
    pub to: Msisdn,
    /// One from a handset, which divides itself; up to [`MAX_SEGMENTS`] from a SIP client.
    pub segments: Vec<Segment>,
    pub protocol_id: u8,
    /// `None`: as long as the queue keeps anything.
    pub validity: Option<Duration>,
    /// The same for the same message sent again. At most 64 characters. A submission whose sender wants a status report begins
    /// with [`WANTS_REPORT`]; the queue gives it back, with the outcome, in [`Discharge`].
    pub key: String,
}

/// Segments of one text that a SIP client sends.
pub const MAX_SEGMENTS: u8 = 10;
/// How the keys of submissions begin whose senders want a status report: `r`, then TP-MR in two hexadecimal digits.
pub const WANTS_REPORT: char = 'r';

/// Why a submission was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotAccepted {
    /// Too much waits; later it may do.
    Busy,
    /// There is no way to this number, or it may not be used.
    NoRoute,
    /// The store failed.
    Failed,
}

/// Completion of [`Outbound::submit`].
pub type OnSubmitted = Box<dyn FnOnce(Result<(), NotAccepted>) + Send>;

/// Where submissions go: the queue.
pub trait Outbound: Send + Sync {
    /// `done` runs once the message cannot be lost any more; it must not block and may run inside the call.
    fn submit(&self, submission: Submission, done: OnSubmitted);

    /// A handset has memory again (RP-SMMA): what waits for it may be tried now.
    fn available(&self, msn: Msisdn);
}

/// The other nodes of a cluster. A handset may be connected to one of them, and it reports to the node that it is registered with.
pub trait Nodes: Send + Sync {
    /// The Route value that leads a request with this Call-ID to a connection that another node holds.
    fn way(&self, to: &Elsewhere, call_id: &[u8]) -> Vec<u8>;

    /// Tells all of them of a report that belongs to nothing here. It may be lost: then TR1N runs out where it belongs.
    fn tell(&self, report: &Report);
}

/// An RP-ACK or RP-ERROR of a handset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    pub from: Aor,
    /// RP-MR.
    pub reference: u8,
    /// That of an RP-ERROR.
    pub cause: Option<u8>,
    /// The Call-ID that it replies to; at most [`MAX_REPLIED`] octets, else as if there were none.
    pub in_reply_to: Option<Box<str>>,
}

impl Report {
    /// For a bus: reference, whether there is a cause, cause, and then the texts, a line each.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.reference, u8::from(self.cause.is_some()), self.cause.unwrap_or_default()];
        bytes.extend_from_slice(self.from.as_str().as_bytes());
        bytes.push(b'\n');
        bytes.extend_from_slice(self.in_reply_to.as_deref().unwrap_or_default().as_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Report> {
        let [reference, has_cause, cause, texts @ ..] = bytes else { return None };
        let (from, replied) = std::str::from_utf8(texts).ok()?.split_once('\n')?;
        Some(Report {
            from: from.parse().ok()?,
            reference: *reference,
            cause: (*has_cause != 0).then_some(*cause),
            in_reply_to: Some(replied).filter(|r| (1..=MAX_REPLIED).contains(&r.len())).map(Box::from),
        })
    }
}

/// Ours are far shorter.
pub const MAX_REPLIED: usize = 256;

/// How an attempt to deliver to a handset ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// RP-ACK; or 2xx from a SIP client that got it as text.
    Delivered,
    /// TR1N passed without a report: it may be there or not. Another way, once.
    NoReport,
    /// No contact that could take it, or this SIP status: another way.
    Unreachable { status: u16 },
    /// RP-ERROR 22: wait until [`Outbound::available`].
    NoMemory,
    /// Another RP-ERROR: final.
    Refused { cause: u8 },
    /// Too many at once: again in a while.
    Busy,
}

/// One segment for a user of ours.
pub struct Delivery {
    pub to: Msisdn,
    /// Number with `+`, digits, or a name; empty: the gateway itself.
    pub source: Box<str>,
    pub protocol_id: u8,
    pub data_coding: u8,
    /// `octets` begins with a user data header.
    pub has_header: bool,
    /// As SMPP has it: septets one in each octet.
    pub octets: Box<[u8]>,
    /// The bearer may have it as text, beside or instead of a handset.
    pub as_text: bool,
    /// What it is known by, for a history; `None`: it stands there since it was submitted.
    pub name: Option<Box<str>>,
    pub done: Box<dyn FnOnce(Fate) + Send>,
}

/// The end of a submission whose sender wants to know.
pub struct Discharge {
    pub from: Msisdn,
    pub to: Msisdn,
    /// [`Submission::key`].
    pub key: Box<str>,
    /// TP-ST.
    pub status: u8,
    /// Unix seconds.
    pub accepted_at: i64,
    pub ended_at: i64,
    /// Whether the handset has it; runs once.
    pub done: Box<dyn FnOnce(Told) + Send>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_crosses_the_bus() {
        let of = |cause, replied: Option<&str>| Report {
            from: "bob@example.com".parse().unwrap(),
            reference: 7,
            cause,
            in_reply_to: replied.map(Box::from),
        };
        for report in [of(None, Some("a@b")), of(Some(22), None)] {
            assert_eq!(Report::from_bytes(&report.to_bytes()), Some(report));
        }
        let long = of(None, Some(&"x".repeat(MAX_REPLIED + 1)));
        assert_eq!(Report::from_bytes(&long.to_bytes()), Some(of(None, None)));
        for bad in [&b""[..], b"\x01\x00\x00", b"\x01\x00\x00bob@x", b"\x01\x00\x00\xff@x\n", b"\x01\x00\x00no aor\n"] {
            assert_eq!(Report::from_bytes(bad), None, "{bad:?}");
        }
    }
}
