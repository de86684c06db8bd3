//! The one answer that carriers give themselves: 400 to a stream's request whose end cannot be known (RFC 3261 §18.3).

use std::hash::{DefaultHasher, Hasher};

use sip_proto::Message;
use sip_proto::build::Response;

/// Writes the answer to the request with this head. False when it is none that could be answered.
pub(crate) fn bad_request(head: &[u8], reason: &str, out: &mut Vec<u8>) -> bool {
    let Ok(message) = Message::parse(head) else { return false };
    if !message.is_request() || message.method() == sip_proto::Method::Ack || message.top_via().is_none() {
        return false;
    }
    // RFC 3261 §8.2.6.2; the same for a retransmission, as nothing is kept.
    let mut hash = DefaultHasher::new();
    hash.write(head);
    let tag = hash.finish().to_string();
    Response::to(&message, 400).reason(reason).tag(tag.as_bytes()).write(out, |_| {});
    true
}

#[cfg(test)]
mod tests {
    use sip_proto::HeaderName;

    use super::*;

    #[test]
    fn the_answer_goes_back_by_every_via_and_carries_a_tag() {
        let head =
            b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP b;branch=z9hG4bK1\r\nv: SIP/2.0/TCP c\r\nf: <sip:c>;tag=1\r\n\
            t: <sip:a;tag=no>\r\ni: x\r\nCSeq: 1 OPTIONS\r\n\r\n";
        let mut out = Vec::new();
        assert!(bad_request(head, "Missing Content-Length", &mut out));
        let answer = Message::parse(&out).unwrap();
        assert_eq!((answer.status(), answer.defect()), (400, None));
        assert_eq!(answer.values(HeaderName::Via).count(), 2);
        assert!(answer.to_tag().is_some_and(|tag| !tag.is_empty()));
        assert_eq!(answer.call_id(), Some(&b"x"[..]));
    }

    #[test]
    fn responses_and_acks_are_not_answered() {
        let mut out = Vec::new();
        assert!(!bad_request(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP b\r\n\r\n", "", &mut out));
        assert!(!bad_request(b"ACK sip:a SIP/2.0\r\nVia: SIP/2.0/TCP b\r\n\r\n", "", &mut out));
        assert!(!bad_request(b"OPTIONS sip:a SIP/2.0\r\n\r\n", "", &mut out));
        assert!(out.is_empty());
    }
}
