//! Whether a message may go any further: the checks of RFC 3261 §8.2, §16.3 and §18.1.2 that need no knowledge of the
//! service. What was found while indexing ([`crate::message::Defect`]) gets its answer here too.
//!
//! Lenient where the RFC allows it and nothing is lost: no Max-Forwards, no tag in From (RFC 2543), an unreadable Expires
//! or Date. What a later step will need to read must be readable.

use memchr::memchr_iter;

use crate::headers::{NameAddr, Via, list, max_forwards};
use crate::message::{Message, StartLine, any, is_lws};
use crate::method::Method;
use crate::name::HeaderName;
use crate::uri::Uri;

/// A request that is to be answered, or dropped when [`is_answerable`] says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{status} {reason}")]
pub struct Rejection {
    pub status: u16,
    /// What is wrong, as the reason phrase of the response.
    pub reason: &'static str,
}

/// A response that is to be dropped without a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("dropped: {0}")]
pub struct Dropped(pub &'static str);

/// Via, Route, Record-Route and Contact values that one message may hold, each: as [`crate::Limits::hops`].
const HOPS: usize = 70;

const fn bad(reason: &'static str) -> Rejection {
    Rejection { status: 400, reason }
}

/// Checks a request. A response passes.
pub fn request(message: &Message<'_>) -> Result<(), Rejection> {
    let StartLine::Request { method, token, uri, version } = message.start() else { return Ok(()) };
    if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        return Err(Rejection { status: 505, reason: "Version Not Supported" });
    }
    if let Some(defect) = message.defect() {
        return Err(bad(defect.phrase()));
    }
    vias(message)?;
    addresses(message)?;
    if message.call_id().is_none_or(|id| id.is_empty() || any(id, is_lws)) {
        return Err(bad("Missing Or Bad Call-ID"));
    }
    let cseq = message.cseq().ok_or(bad("Missing Or Bad CSeq"))?;
    if cseq.token != token {
        // RFC 4475 §3.1.2.18: for a method that nobody here knows, 501 says more.
        return Err(if method == Method::Other {
            Rejection { status: 501, reason: "Not Implemented" }
        } else {
            bad("CSeq Method Does Not Match")
        });
    }
    if message.value(HeaderName::MaxForwards).is_some_and(|v| max_forwards(v).is_none()) {
        return Err(bad("Bad Max-Forwards"));
    }
    match Uri::parse(uri) {
        None => return Err(bad("Malformed Request-URI")),
        // RFC 3261 §19.1.1 allows no headers here, and §16.6 none to be passed on.
        Some(uri) if !uri.headers().is_empty() => return Err(bad("Headers In Request-URI")),
        Some(_) => {}
    }
    routes(message)
}

fn vias(message: &Message<'_>) -> Result<(), Rejection> {
    let ours = |via: &Via<'_>| via.version == b"2.0";
    let top = message.top_via().filter(ours).ok_or_else(|| match message.list(HeaderName::Via).next() {
        Some(_) => bad("Malformed Via"),
        None => bad("Missing Via"),
    })?;
    if top.transport().is_none() {
        return Err(bad("Unknown Transport In Via"));
    }
    if top.branch() == Some(Via::COOKIE) {
        return Err(bad("Empty Branch In Via"));
    }
    // Folded, or with a control character, it would not come back as it was sent, and match nothing.
    if top.branch().is_some_and(|branch| any(branch, |b| b <= b' ')) {
        return Err(bad("Blank In Branch Of Via"));
    }
    if message.has_one_via() {
        return Ok(());
    }
    for (count, value) in message.list(HeaderName::Via).enumerate().skip(1) {
        if Via::parse(value).filter(ours).is_none() {
            return Err(bad("Malformed Via"));
        }
        if count == HOPS {
            return Err(bad("Too Many Via"));
        }
    }
    Ok(())
}

fn addresses(message: &Message<'_>) -> Result<(), Rejection> {
    let readable = |address: Option<NameAddr<'_>>| address.is_some_and(|a| !a.is_star());
    if !readable(message.from()) {
        return Err(bad("Missing Or Bad From"));
    }
    if !readable(message.to()) {
        return Err(bad("Missing Or Bad To"));
    }
    Ok(())
}

/// Contact and Path are a registrar's to read: what a proxy only passes on it does not judge (RFC 3261 §16.3 step 1).
fn routes(message: &Message<'_>) -> Result<(), Rejection> {
    for (count, value) in message.list(HeaderName::Route).enumerate() {
        if count == HOPS {
            return Err(bad("Too Many Route"));
        }
        if NameAddr::parse(value).is_none() {
            return Err(bad("Malformed Route"));
        }
    }
    // Copied, not read: counting commas is enough.
    let record_routes: usize = message.values(HeaderName::RecordRoute).map(|v| memchr_iter(b',', v).count() + 1).sum();
    if record_routes > HOPS { Err(bad("Too Many Record-Route")) } else { Ok(()) }
}

/// Checks a response: what fails is to be dropped (RFC 3261 §8.1.3.3, §16.7, §18.1.2). A request passes.
pub fn response(message: &Message<'_>) -> Result<(), Dropped> {
    let StartLine::Response { version, .. } = message.start() else { return Ok(()) };
    if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        return Err(Dropped("version"));
    }
    if message.defect().is_some() {
        return Err(Dropped("defect"));
    }
    if message.top_via().is_none() {
        return Err(Dropped("Via"));
    }
    let mut vias = message.list(HeaderName::Via).skip(1);
    // RFC 4475 §3.3.10: the next hop of a response must be one host.
    match vias.next().map(Via::parse) {
        Some(None) => return Err(Dropped("Via")),
        Some(Some(next)) if next.host == b"255.255.255.255" => return Err(Dropped("broadcast Via")),
        _ => {}
    }
    if message.cseq().is_none() {
        return Err(Dropped("CSeq"));
    }
    if message.call_id().is_none_or(<[u8]>::is_empty) || addresses(message).is_err() {
        return Err(Dropped("dialog"));
    }
    Ok(())
}

/// Whether a bad request can be answered at all: it has a readable topmost Via and is no ACK (RFC 3261 §17.1.1.3: nobody
/// waits for a response to that).
pub fn is_answerable(message: &Message<'_>) -> bool {
    message.is_request() && message.method() != Method::Ack && message.top_via().is_some()
}

/// The Max-Forwards to send on (RFC 3261 §16.3 step 3, §16.6 step 3): one less, 70 when there is none, 483 at zero.
pub fn next_max_forwards(message: &Message<'_>) -> Result<u8, Rejection> {
    match message.value(HeaderName::MaxForwards) {
        None => Ok(70),
        Some(value) => match max_forwards(value) {
            None => Err(bad("Bad Max-Forwards")),
            Some(0) => Err(Rejection { status: 483, reason: "Too Many Hops" }),
            Some(n) => Ok(n - 1),
        },
    }
}

/// Extensions that were demanded and are not supported: answer 420 with [`BadExtension::write_unsupported`] as the value
/// of Unsupported (RFC 3261 §8.2.2.3, §16.3 step 5).
#[derive(Clone, Copy, Debug)]
pub struct BadExtension<'r> {
    message: &'r Message<'r>,
    name: HeaderName,
    supported: &'r [&'r str],
}

/// Checks Require (at an endpoint) or Proxy-Require (at a proxy) against the option tags that are supported. ACK and CANCEL
/// pass: their Require is to be ignored.
pub fn extensions<'r>(
    message: &'r Message<'r>,
    name: HeaderName,
    supported: &'r [&'r str],
) -> Result<(), BadExtension<'r>> {
    let found = BadExtension { message, name, supported };
    if matches!(message.method(), Method::Ack | Method::Cancel) || found.tags().next().is_none() {
        Ok(())
    } else {
        Err(found)
    }
}

impl<'r> BadExtension<'r> {
    pub const REJECTION: Rejection = Rejection { status: 420, reason: "Bad Extension" };

    fn tags(&self) -> impl Iterator<Item = &'r [u8]> {
        let supported = self.supported;
        let known = move |tag: &[u8]| supported.iter().any(|s| tag.eq_ignore_ascii_case(s.as_bytes()));
        self.message.values(self.name).flat_map(list).filter(move |tag| !known(tag))
    }

    /// Appends the value of the Unsupported header.
    pub fn write_unsupported(&self, out: &mut Vec<u8>) {
        crate::headers::write_tokens(self.tags(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
        From: <sip:a@h>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: c@h\r\nCSeq: 1 INVITE\r\nContact: <sip:a@h>\r\n\
        Route: <sip:p;lr>, <sip:q;lr>\r\nContent-Length: 0\r\n\r\n";

    fn changed(from: &str, to: &str) -> Result<(), Rejection> {
        assert!(GOOD.contains(from), "{from}");
        let text = GOOD.replacen(from, to, 1);
        request(&Message::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_good_request_passes() {
        assert_eq!(changed("", ""), Ok(()));
        assert_eq!(changed("Max-Forwards: 70\r\n", ""), Ok(()));
        assert_eq!(changed(";tag=1", ""), Ok(()));
        assert_eq!(changed("sip:bob@example.com SIP", "urn:service:sos SIP"), Ok(()));
        assert_eq!(changed("<sip:a@h>\r\n", "*\r\n"), Ok(()));
    }

    #[test]
    fn each_fault_has_its_answer() {
        for (from, to, status, reason) in [
            ("SIP/2.0\r\nVia", "SIP/3.0\r\nVia", 505, "Version Not Supported"),
            ("Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\n", "", 400, "Missing Via"),
            ("UDP h;", "UDP ;", 400, "Malformed Via"),
            ("SIP/2.0/UDP", "SIP/3.0/UDP", 400, "Malformed Via"),
            ("UDP h;", "CARRIER-PIGEON h;", 400, "Unknown Transport In Via"),
            ("z9hG4bK1", "z9hG4bK", 400, "Empty Branch In Via"),
            ("branch=z9hG4bK1", "branch=z9hG4bK1\r\n z", 400, "Blank In Branch Of Via"),
            ("From: <sip:a@h>;tag=1", "From: <sip:a@h;tag=1", 400, "Missing Or Bad From"),
            ("To: <sip:bob@example.com>\r\n", "", 400, "Missing Or Bad To"),
            ("To: <sip:bob@example.com>\r\n", "To: *\r\n", 400, "Missing Or Bad To"),
            ("Call-ID: c@h", "Call-ID: c @h", 400, "Missing Or Bad Call-ID"),
            ("Call-ID: c@h\r\n", "", 400, "Missing Or Bad Call-ID"),
            ("CSeq: 1", "CSeq: 2147483648", 400, "Missing Or Bad CSeq"),
            ("CSeq: 1 INVITE", "CSeq: 1 BYE", 400, "CSeq Method Does Not Match"),
            ("INVITE sip", "NEW sip", 501, "Not Implemented"),
            ("Max-Forwards: 70", "Max-Forwards: 256", 400, "Bad Max-Forwards"),
            ("Max-Forwards: 70", "Max-Forwards: -1", 400, "Bad Max-Forwards"),
            ("sip:bob@example.com SIP", "sip:bob@ex%ample.com SIP", 400, "Malformed Request-URI"),
            ("sip:bob@example.com SIP", "sip:bob@example.com?X=y SIP", 400, "Headers In Request-URI"),
            ("<sip:q;lr>", "<sip:q;lr", 400, "Malformed Route"),
            ("To: <sip", "To: <sip:x>\r\nTo: <sip", 400, "Repeated Single Header"),
            ("Content-Length: 0", "Content-Length: 9", 400, "Body Shorter Than Content-Length"),
            ("Content-Length: 0", "Content-Length: -1", 400, "Bad Content-Length"),
        ] {
            assert_eq!(changed(from, to), Err(Rejection { status, reason }), "{to}");
        }
    }

    #[test]
    fn hops_are_counted_over_lines_and_lists() {
        let via = "Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\n";
        assert_eq!(changed(via, &via.repeat(70)), Ok(()));
        assert_eq!(changed(via, &via.repeat(71)), Err(bad("Too Many Via")));
        let record_routes = vec!["<sip:q;lr>"; 71].join(",");
        assert_eq!(
            changed("Route:", &format!("Record-Route: {record_routes}\r\nRoute:")),
            Err(bad("Too Many Record-Route"))
        );
        assert_eq!(changed("<sip:q;lr>", &vec!["<sip:q;lr>"; 70].join(",")), Err(bad("Too Many Route")));
    }

    #[test]
    fn what_cannot_be_answered_is_known() {
        let answerable = |t: &str| is_answerable(&Message::parse(t.as_bytes()).unwrap());
        assert!(answerable(GOOD));
        assert!(!answerable(&GOOD.replace("INVITE", "ACK")));
        assert!(!answerable(&GOOD.replace("Via", "Vi")));
        assert!(!answerable("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\r\n"));
    }

    #[test]
    fn max_forwards_counts_down_to_483() {
        let next = |v: &str| next_max_forwards(&Message::parse(GOOD.replace("ds: 70", v).as_bytes()).unwrap());
        assert_eq!(next("ds: 70"), Ok(69));
        assert_eq!(next("ds: 1"), Ok(0));
        assert_eq!(next("ds: 0").unwrap_err().status, 483);
        assert_eq!(next("ds-X: 1"), Ok(70));
        assert_eq!(next("ds: x").unwrap_err().status, 400);
    }

    #[test]
    fn unsupported_extensions_are_listed() {
        let text = GOOD.replace("Route:", "Require: path, wings\r\nRequire: 100rel,Gruu\r\nRoute:");
        let m = Message::parse(text.as_bytes()).unwrap();
        let mut out = Vec::new();
        extensions(&m, HeaderName::Require, &["path", "gruu"]).unwrap_err().write_unsupported(&mut out);
        assert_eq!(out, b"wings, 100rel");
        assert!(extensions(&m, HeaderName::Require, &["path", "gruu", "wings", "100rel"]).is_ok());
        assert!(extensions(&m, HeaderName::ProxyRequire, &[]).is_ok());
        let ack = text.replace("INVITE", "ACK");
        assert!(extensions(&Message::parse(ack.as_bytes()).unwrap(), HeaderName::Require, &[]).is_ok());
    }

    #[test]
    fn bad_responses_are_dropped() {
        let good = GOOD.replacen("INVITE sip:bob@example.com SIP/2.0", "SIP/2.0 200 OK", 1);
        let check = |from: &str, to: &str| response(&Message::parse(good.replacen(from, to, 1).as_bytes()).unwrap());
        assert_eq!(check("", ""), Ok(()));
        assert_eq!(check("SIP/2.0 2", "SIP/2.1 2"), Err(Dropped("version")));
        assert_eq!(check("h: 0", "h: x"), Err(Dropped("defect")));
        assert_eq!(check("UDP h", "UDP"), Err(Dropped("Via")));
        assert_eq!(check("K1", "K1,x"), Err(Dropped("Via")));
        assert_eq!(check("K1", "K1,SIP/2.0/UDP 255.255.255.255"), Err(Dropped("broadcast Via")));
        assert_eq!(check("CSeq: 1 ", "CSeq: x "), Err(Dropped("CSeq")));
        assert_eq!(check("Call-ID", "Call"), Err(Dropped("dialog")));
        assert_eq!(check("To: <", "To: "), Err(Dropped("dialog")));
    }
}
