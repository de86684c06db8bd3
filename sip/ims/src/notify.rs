//! What the notifiers of every event package share (RFC 6665 §4.2): naming a subscription, judging a SUBSCRIBE's Accept,
//! writing a NOTIFY, and reading its answer.

use std::net::IpAddr;

use sip_proto::build::Writer;
use sip_proto::dialog::Dialog;
use sip_proto::headers::{RetryAfter, list};
use sip_proto::{Flow, HeaderName, Message, Method, Transport};

use crate::home::Home;
use crate::service::Outcome;

/// What names a subscription among the dialogs: Call-ID and the watcher's tag.
pub fn dialog_key(message: &Message<'_>) -> Box<[u8]> {
    let tag = message.from_tag();
    dialog_key_of(message.call_id().unwrap_or_default(), tag.unwrap_or_default())
}

/// The same for a Call-ID and the watcher's tag.
pub fn dialog_key_of(call_id: &[u8], tag: &[u8]) -> Box<[u8]> {
    [call_id, b"\0", tag].concat().into()
}

/// Whether the watcher reads documents of this media type; without Accept it reads its package's own (RFC 6665 §3.1.3).
pub fn accepts(message: &Message<'_>, media_type: &[u8]) -> bool {
    let mut ranges = message.values(HeaderName::Accept).flat_map(list).peekable();
    ranges.peek().is_none() || ranges.any(|range| covers(range, media_type))
}

/// Whether the watcher names this media type itself: for documents that nobody gets unasked.
pub fn asks_for(message: &Message<'_>, media_type: &[u8]) -> bool {
    message.values(HeaderName::Accept).flat_map(list).any(|range| essence(range).eq_ignore_ascii_case(media_type))
}

/// Without parameters.
fn essence(range: &[u8]) -> &[u8] {
    range.split(|b| *b == b';').next().unwrap_or(range).trim_ascii()
}

fn covers(range: &[u8], media_type: &[u8]) -> bool {
    let main = essence(range);
    [media_type, b"application/*", b"*/*"].iter().any(|t| main.eq_ignore_ascii_case(t))
}

/// Our end of a dialog that came over this flow, as the value of Contact: an address without a user, so that nobody takes
/// it for one.
pub fn contact(home: &Home, flow: &Flow) -> Vec<u8> {
    contact_for(home, flow.transport, flow.remote.ip())
}

/// The same for a dialog that we set up.
pub fn contact_for(home: &Home, transport: Transport, remote: IpAddr) -> Vec<u8> {
    let mut contact = b"<sip:".to_vec();
    contact.extend_from_slice(home.sent_by(transport, remote));
    contact.extend_from_slice(b";transport=");
    contact.extend_from_slice(transport.uri_token().as_bytes());
    contact.push(b'>');
    contact
}

/// The next NOTIFY of a dialog without its Via, which the [`Outlet`](crate::service::Outlet) writes. `None`: the dialog is over.
pub fn write_notify(dialog: &mut Dialog, room: usize, more: impl FnOnce(&mut Writer<'_>)) -> Option<Vec<u8>> {
    write_in_dialog(dialog, Method::Notify, room, more)
}

/// The next request of a dialog, as [`write_notify`].
pub fn write_in_dialog(
    dialog: &mut Dialog,
    method: Method,
    room: usize,
    more: impl FnOnce(&mut Writer<'_>),
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(room + 512);
    dialog.write_request(method, &mut out, |_| {}, more).ok()?;
    const VIA: &[u8] = b"Via: \r\n";
    let first = memchr::memchr(b'\n', &out)? + 1;
    debug_assert!(out[first..].starts_with(VIA), "a request begins with its Via");
    out.drain(first..first + VIA.len());
    Some(out)
}

/// What the answer to a NOTIFY means for the subscription: a status and Retry-After.
pub fn verdict(outcome: &Outcome) -> (u16, Option<u32>) {
    match outcome {
        Outcome::Response { status: status @ 200..=299, .. } => (*status, None),
        Outcome::Response { status, bytes } => {
            let message = Message::parse(bytes).ok();
            let value = message.as_ref().and_then(|m| m.value(HeaderName::RetryAfter));
            (*status, value.and_then(RetryAfter::parse).map(|r| r.seconds))
        }
        Outcome::Timeout | Outcome::Unreachable => (408, None),
        Outcome::Busy => (503, Some(5)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribe(accept: &str) -> Vec<u8> {
        format!(
            "SUBSCRIBE sip:a@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:b@h>;tag=b1\r\nTo: <sip:a@h>\r\n\
             Call-ID: c1\r\nCSeq: 4 SUBSCRIBE\r\nContact: <sip:b@192.0.2.1>\r\n{accept}\r\n"
        )
        .into_bytes()
    }

    #[test]
    fn accept_lists_are_read_with_their_ranges_and_parameters() {
        let reads = |accept: &str| accepts(&Message::parse(&subscribe(accept)).unwrap(), b"application/pidf+xml");
        assert!(reads("") && reads("Accept: */*\r\n") && reads("Accept: text/plain, Application/PIDF+xml;q=0.1\r\n"));
        assert!(!reads("Accept: text/plain\r\n") && !reads("Accept: application/pidf\r\n"));
        let asks = |accept: &str| asks_for(&Message::parse(&subscribe(accept)).unwrap(), b"application/pidf+xml");
        assert!(asks("Accept: application/pidf+xml;q=1\r\n") && !asks("") && !asks("Accept: */*\r\n"));
    }

    #[test]
    fn a_notify_leaves_its_via_to_the_outlet() {
        let bytes = subscribe("");
        let message = Message::parse(&bytes).unwrap();
        let mut dialog = Dialog::uas(&message, b"a1").unwrap();
        dialog.responded(&message, 200);
        let out = write_notify(&mut dialog, 0, |w| w.text(HeaderName::Event, b"presence")).unwrap();
        let notify = Message::parse(&out).unwrap();
        assert_eq!((notify.request_uri(), notify.value(HeaderName::Via)), (&b"sip:b@192.0.2.1"[..], None));
        assert_eq!(notify.value(HeaderName::Event), Some(&b"presence"[..]));
        assert_eq!(&*dialog_key(&message), b"c1\0b1");
    }

    #[test]
    fn silence_counts_as_408_and_a_refusal_brings_its_retry_after() {
        let refused = b"SIP/2.0 503 Busy\r\nRetry-After: 7\r\n\r\n";
        let response = |status, bytes: &[u8]| Outcome::Response { status, bytes: bytes.into() };
        assert_eq!(verdict(&response(503, refused)), (503, Some(7)));
        assert_eq!(verdict(&response(481, b"SIP/2.0 481 No\r\n\r\n")), (481, None));
        assert_eq!((verdict(&Outcome::Timeout), verdict(&Outcome::Unreachable)), ((408, None), (408, None)));
    }
}
