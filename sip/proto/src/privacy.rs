//! What a proxy at the edge of a trust domain removes and changes (RFC 3323, RFC 3325, TS 24.229 §4.4).
//!
//! Two functions, each for one direction: [`arriving`] for messages from a neighbour, [`leaving`] for messages to one. Both
//! write into an [`Edits`] and leave alone what needs no change. What was hidden on the way to the callee, [`restore`] brings
//! back on the way to the caller. Nothing is remembered here: Contact is hidden by whoever can bring it back ([`Seal`]), and
//! the session description by whoever carries the media.

use std::net::SocketAddr;

use smallvec::SmallVec;

use crate::build::{top_via_span, write_top_via};
use crate::derived;
use crate::edit::{self, Edits};
use crate::headers::{NameAddr, Privacy, has_token, write_tokens};
use crate::message::{HeaderLine, Message};
use crate::name::HeaderName;

/// Whether a neighbour belongs to our trust domain: Spec(T) of RFC 3324.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Neighbour {
    Trusted,
    Untrusted,
}

/// `critical` privacy that cannot be given: answer 500 with this reason phrase (RFC 3323 §5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfulfilled {
    #[error("Privacy Failure: header Not Supported")]
    Header,
    #[error("Privacy Failure: session Not Supported")]
    Session,
}

/// Headers that only trusted neighbours may set, beside P-Asserted-Identity (TS 24.229 §4.4; RFC 7315 §6).
const TRUSTED_ONLY: [HeaderName; 9] = [
    HeaderName::PAssertedService,
    HeaderName::PAccessNetworkInfo,
    HeaderName::PChargingVector,
    HeaderName::PChargingFunctionAddresses,
    HeaderName::PCalledPartyId,
    HeaderName::PProfileKey,
    HeaderName::PServedUser,
    HeaderName::PUserDatabase,
    HeaderName::PVisitedNetworkId,
];

/// What the caller wrote about itself and need not have (RFC 3323 §5.3, §4.1.1).
const INFORMATIONAL: [HeaderName; 6] = [
    HeaderName::Subject,
    HeaderName::CallInfo,
    HeaderName::Organization,
    HeaderName::UserAgent,
    HeaderName::ReplyTo,
    HeaderName::InReplyTo,
];

/// The From of someone who does not want to be known (RFC 3323 §4.1.1.3).
pub const ANONYMOUS: &[u8] = b"\"Anonymous\" <sip:anonymous@anonymous.invalid>";

/// A message came in. From an untrusted neighbour nothing is believed that only the trusted may say (RFC 3325 §5): it is
/// removed. `access_network_info`: the neighbour is a handset, which may send its own P-Access-Network-Info
/// (TS 24.229 §4.4.5).
pub fn arriving(message: &Message<'_>, from: Neighbour, access_network_info: bool, edits: &mut Edits) {
    if from == Neighbour::Trusted {
        return;
    }
    remove(message, HeaderName::PAssertedIdentity, edits);
    for name in TRUSTED_ONLY {
        if !(access_network_info && name == HeaderName::PAccessNetworkInfo) {
            remove(message, name, edits);
        }
    }
}

/// What [`leaving`] did that the caller must know.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Hidden {
    /// From was made anonymous: in what goes back to the caller it must be brought back to what it was (RFC 3323 §5.3).
    pub from: bool,
    /// Via, Record-Route and Contact were taken away or replaced: they must be brought back too (RFC 3323 §5.1).
    pub header: bool,
}

/// Gets a Contact URI and appends one of our own that leads back to it (RFC 3323 §5.1). False: none, and nothing appended.
pub type Seal<'a> = dyn FnMut(&[u8], &mut Vec<u8>) -> bool + 'a;

/// What the originator of a message asks for.
pub fn asked(message: &Message<'_>) -> Privacy {
    match message.line(HeaderName::Privacy) {
        None => Privacy::default(),
        Some(_) => message.values(HeaderName::Privacy).map(Privacy::parse).fold(Privacy::default(), join),
    }
}

/// A message goes out to a neighbour. In the domain everything stays. Out of it go what was for the domain only, and what
/// its originator asked to hide, now or (`known`) earlier in the dialog; then the request for it is struck from Privacy.
///
/// For `header`, Via and Record-Route of a request go, and Contact becomes what `seal` makes of it, or goes as well; without a
/// `seal` they stay, and so does the wish. Whoever gives one adds its own Via, and lets [`restore`] bring the others back.
/// `session`: where the media come from is hidden by the caller of this.
pub fn leaving(
    message: &Message<'_>,
    to: Neighbour,
    known: Privacy,
    seal: Option<&mut Seal<'_>>,
    session: bool,
    edits: &mut Edits,
) -> Result<Hidden, Unfulfilled> {
    if to == Neighbour::Trusted {
        // The next one can still do it: nothing is struck, nothing is critical yet.
        return Ok(Hidden::default());
    }
    for name in TRUSTED_ONLY {
        remove(message, name, edits);
    }
    // A hint for the first proxy, which was us or someone before us (RFC 3325 §6).
    remove(message, HeaderName::PPreferredIdentity, edits);
    remove(message, HeaderName::PPreferredService, edits);
    let asked = join(asked(message), known);
    if asked.none {
        // RFC 3323 §5: no privacy function, and the header stays as it is.
        return Ok(Hidden::default());
    }
    let seal = seal.filter(|_| asked.header);
    let header = seal.is_some();
    if message.is_request() {
        fulfillable(asked, header, session)?;
    }
    if asked.hides_identity() {
        remove(message, HeaderName::PAssertedIdentity, edits);
    }
    if asked.history || asked.header || asked.session {
        // RFC 5379 §4.1.
        remove(message, HeaderName::HistoryInfo, edits);
        remove(message, HeaderName::Diversion, edits);
    }
    // User privacy is about the one who asks: in a response From is the other.
    let from = asked.user && message.is_request();
    if asked.user {
        INFORMATIONAL.into_iter().for_each(|name| remove(message, name, edits));
        remove(message, HeaderName::Server, edits);
    }
    if from {
        make_anonymous(message, edits);
    }
    if asked.header && !asked.user {
        // RFC 3323 §5.1: nothing more is told about the caller.
        for name in [HeaderName::CallInfo, HeaderName::Organization, HeaderName::Server] {
            remove(message, name, edits);
        }
    }
    if let Some(seal) = seal {
        if message.is_request() {
            remove(message, HeaderName::Via, edits);
        }
        if message.is_request() || known.header {
            // In a response within the dialog they count no more (RFC 3261 §12.2).
            remove(message, HeaderName::RecordRoute, edits);
        }
        seal_contact(message, seal, edits);
    }
    strike(message, asked, [header, session], edits);
    Ok(Hidden { from, header })
}

/// Whether what is wanted can be given without fail (RFC 3323 §5); `header`, `session`: that can.
pub fn fulfillable(asked: Privacy, header: bool, session: bool) -> Result<(), Unfulfilled> {
    match asked {
        Privacy { none: true, .. } | Privacy { critical: false, .. } => Ok(()),
        Privacy { header: true, .. } if !header => Err(Unfulfilled::Header),
        Privacy { session: true, .. } if !session => Err(Unfulfilled::Session),
        _ => Ok(()),
    }
}

/// A response goes back to whoever sent `request` from `source`, which was sent on with another From or To, or without its
/// Via and Record-Route: all are given back as they stood in it (RFC 3323 §5.1, §5.3). The response still has the Via of the
/// one who sent the request on.
pub fn restore(response: &Message<'_>, request: &Message<'_>, source: SocketAddr, edits: &mut Edits) {
    let mut put_back = |name| match (response.line(name), request.value(name)) {
        (Some(line), Some(value)) if response.bytes()[line.value()] != *value => {
            edits.replace(line.value(), |v| v.extend_from_slice(value));
        }
        _ => {}
    };
    put_back(HeaderName::From);
    if request.is_in_dialog() {
        put_back(HeaderName::To);
    }
    if restore_vias(response, request, source, edits)
        // Whoever answers copies what it got (RFC 3261 §12.1.1); those before us come after us.
        && let Some(last) = response.lines(HeaderName::RecordRoute).last()
    {
        edits.insert(last.line().end, |t| request.lines(HeaderName::RecordRoute).for_each(|l| whole(request, l, t)));
    }
}

/// Gives a response that has the Via of the one who sent the request on, and no other, those that stood in the request: they were
/// hidden, or somebody did not copy them as RFC 3261 §8.2.6.2 wants. Whether it was such a response.
pub fn restore_vias(response: &Message<'_>, request: &Message<'_>, source: SocketAddr, edits: &mut Edits) -> bool {
    if response.list(HeaderName::Via).nth(1).is_some() {
        return false;
    }
    let mut vias = request.lines(HeaderName::Via);
    if let Some(first) = vias.next()
        && let Some(top) = top_via_span(request)
    {
        edits.insert(response.headers_start(), |t| {
            edit::header(t, HeaderName::Via, |t| {
                write_top_via(request, source, t);
                t.extend_from_slice(&request.bytes()[top.end..first.value().end]);
            });
            vias.for_each(|line| whole(request, line, t));
        });
    }
    true
}

fn whole(message: &Message<'_>, line: &HeaderLine, out: &mut Vec<u8>) {
    out.extend_from_slice(&message.bytes()[line.line()]);
}

/// Puts what `seal` makes of the first Contact in the place of all of them.
fn seal_contact(message: &Message<'_>, seal: &mut Seal<'_>, edits: &mut Edits) {
    let mut sealed = vec![b'<'];
    let first = message.list(HeaderName::Contact).next().and_then(NameAddr::parse);
    let done = first.is_some_and(|contact| !contact.is_star() && seal(contact.addr, &mut sealed));
    sealed.push(b'>');
    rewrite(message, HeaderName::Contact, done.then_some(|v: &mut Vec<u8>| v.extend_from_slice(&sealed)), edits);
}

/// Takes the values that were fulfilled out of Privacy; with the last the header goes (RFC 3323 §5). `id` stays, against that
/// SHOULD: it tells those behind us that an identity was withheld, not missing. The option tag in Proxy-Require goes unless
/// somebody behind us might do what we could not.
fn strike(message: &Message<'_>, asked: Privacy, [header, session]: [bool; 2], edits: &mut Edits) {
    let (header, session) = (asked.header && !header, asked.session && !session);
    let open = header || session;
    let critical = asked.critical && open && message.is_request();
    let left = Privacy { user: false, history: false, header, session, critical, ..asked };
    if left != asked {
        rewrite(
            message,
            HeaderName::Privacy,
            (left != Privacy::default()).then_some(|v: &mut Vec<u8>| left.write(v)),
            edits,
        );
    }
    if !open && message.is_request() && has_token(message, HeaderName::ProxyRequire, "privacy") {
        let mut tags = SmallVec::<[&[u8]; 4]>::new();
        tags.extend(message.list(HeaderName::ProxyRequire).filter(|t| !t.eq_ignore_ascii_case(b"privacy")));
        let left = !tags.is_empty();
        rewrite(message, HeaderName::ProxyRequire, left.then_some(|v: &mut Vec<u8>| write_tokens(tags, v)), edits);
    }
}

/// Puts one line in the place of all of that name, or none.
fn rewrite(message: &Message<'_>, name: HeaderName, write: Option<impl FnOnce(&mut Vec<u8>)>, edits: &mut Edits) {
    let mut lines = message.lines(name);
    match (lines.next(), write) {
        (Some(first), Some(write)) => edits.replace(first.value(), write),
        (Some(first), None) => edits.delete(first.line()),
        (None, _) => {}
    }
    lines.for_each(|line| edits.delete(line.line()));
}

/// Replaces From's name and URI and keeps its parameters: the tag tells the dialog.
fn make_anonymous(message: &Message<'_>, edits: &mut Edits) {
    let Some(line) = message.line(HeaderName::From) else { return };
    let value = &message.bytes()[line.value()];
    edits.replace(line.value(), |v| {
        v.extend_from_slice(ANONYMOUS);
        let tag = derived::tag(value);
        match NameAddr::parse(value).filter(|from| from.tag() == tag) {
            Some(from) => v.extend_from_slice(from.params.as_bytes()),
            // Whatever else is wrong with it, the dialog is known by it.
            None => {
                if let Some(tag) = tag {
                    v.extend_from_slice(b";tag=");
                    v.extend_from_slice(tag);
                }
            }
        }
    });
}

fn remove(message: &Message<'_>, name: HeaderName, edits: &mut Edits) {
    for line in message.lines(name) {
        edits.delete(line.line());
    }
}

fn join(a: Privacy, b: Privacy) -> Privacy {
    Privacy {
        header: a.header || b.header,
        session: a.session || b.session,
        user: a.user || b.user,
        none: a.none || b.none,
        critical: a.critical || b.critical,
        id: a.id || b.id,
        history: a.history || b.history,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINES: &str = "From: \"Alice\" <sip:alice@a.example>;tag=at;x=y\r\nTo: <sip:bob@b>\r\n\
        P-Asserted-Identity: <sip:alice@a.example>\r\nP-Asserted-Identity: <tel:+1555>\r\nSubject: lunch\r\n\
        P-Preferred-Identity: <sip:alice@a.example>\r\nP-Charging-Vector: icid-value=1\r\nUser-Agent: phone\r\n\
        P-Access-Network-Info: 3GPP\r\nHistory-Info: <sip:carol@c>;index=1\r\nP-Served-User: <sip:a@a>\r\nX-Other: 1\r\n";

    fn request(privacy: &str) -> Vec<u8> {
        format!("INVITE sip:bob@b SIP/2.0\r\n{LINES}{privacy}Content-Length: 0\r\n\r\n").into_bytes()
    }

    fn left(bytes: &[u8], step: impl FnOnce(&Message<'_>, &mut Edits)) -> String {
        let mut edits = Edits::new();
        step(&Message::parse(bytes).unwrap(), &mut edits);
        let mut out = Vec::new();
        edits.apply(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn leave(privacy: &str) -> String {
        left(&request(privacy), |m, e| {
            leaving(m, Neighbour::Untrusted, Privacy::default(), None, false, e).unwrap();
        })
    }

    /// Leads back in plain sight.
    fn seal(uri: &[u8], out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(b"sip:here;hc=");
        out.extend_from_slice(uri);
        true
    }

    #[test]
    fn strangers_assert_nothing_and_handsets_may_tell_their_access_network() {
        let bytes = request("");
        let text = left(&bytes, |m, e| arriving(m, Neighbour::Untrusted, false, e));
        for gone in ["P-Asserted", "P-Charging", "P-Access", "P-Served"] {
            assert!(!text.contains(gone), "{gone}");
        }
        assert!(text.contains("P-Preferred-Identity") && text.contains("X-Other: 1"));
        let text = left(&bytes, |m, e| arriving(m, Neighbour::Untrusted, true, e));
        assert!(text.contains("P-Access-Network-Info"));
        assert_eq!(left(&bytes, |m, e| arriving(m, Neighbour::Trusted, false, e)).into_bytes(), bytes);
    }

    #[test]
    fn within_the_domain_nothing_changes() {
        let bytes = request("Privacy: id;user;critical;header\r\n");
        let text = left(&bytes, |m, e| {
            assert_eq!(
                leaving(m, Neighbour::Trusted, Privacy::default(), Some(&mut seal), false, e),
                Ok(Hidden::default())
            )
        });
        assert_eq!(text.into_bytes(), bytes);
    }

    #[test]
    fn the_asserted_identity_leaves_the_domain_unless_id_is_asked_for() {
        let text = leave("");
        assert!(text.contains("P-Asserted-Identity: <tel:+1555>") && text.contains("\"Alice\""));
        assert!(!text.contains("P-Preferred") && !text.contains("P-Charging") && !text.contains("P-Served"));
        let text = leave("Privacy: id\r\n");
        assert!(!text.contains("P-Asserted-Identity") && text.contains("Privacy: id\r\n"));
        assert!(leave("Privacy: none\r\n").contains("P-Asserted-Identity: <sip:alice@a.example>"));
    }

    #[test]
    fn user_privacy_hides_the_caller_and_keeps_the_tag() {
        let text = leave("Privacy: user\r\nProxy-Require: privacy, foo\r\n");
        assert!(text.contains("From: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=at;x=y\r\n"));
        for gone in ["Subject", "User-Agent", "Privacy", "privacy"] {
            assert!(!text.contains(gone), "{gone}");
        }
        assert!(text.contains("Proxy-Require: foo\r\n") && text.contains("X-Other: 1"));
        let text = leave("Privacy: user;id\r\nProxy-Require: privacy\r\n");
        assert!(text.contains("Privacy: id\r\n") && !text.contains("Proxy-Require"));
        let text = leave("Privacy: id;critical\r\nProxy-Require: privacy\r\n");
        assert!(text.contains("Privacy: id\r\n") && !text.contains("Proxy-Require"));
        let text = leave("Privacy: user;session\r\nProxy-Require: privacy\r\n");
        assert!(text.contains("Privacy: session\r\n") && text.contains("Proxy-Require: privacy\r\n"));
    }

    #[test]
    fn media_that_somebody_hides_are_hidden_for_good() {
        let bytes = request("Privacy: session;id;critical\r\nProxy-Require: privacy\r\n");
        let text = left(&bytes, |m, e| {
            let done = leaving(m, Neighbour::Untrusted, Privacy::default(), None, true, e);
            assert_eq!(done, Ok(Hidden::default()));
        });
        assert!(text.contains("Privacy: id\r\n") && !text.contains("Proxy-Require"), "{text}");
        assert!(!text.contains("History-Info"), "{text}");
    }

    #[test]
    fn an_odd_tag_stays_what_it_is() {
        for from in ["sip:alice@a;tag=x,y", "Al, ice <sip:alice@a>;tag=x,y", "<sip:alice@a>;q;tag=x,y"] {
            let bytes = format!("INVITE sip:b SIP/2.0\r\nFrom: {from}\r\nPrivacy: user\r\n\r\n").into_bytes();
            let text = left(&bytes, |m, e| {
                leaving(m, Neighbour::Untrusted, Privacy::default(), None, false, e).unwrap();
            });
            assert!(text.contains("anonymous.invalid>;") && text.contains("tag=x,y\r\n"), "{text}");
        }
    }

    #[test]
    fn history_privacy_takes_the_history_away() {
        assert!(leave("").contains("History-Info"));
        let text = leave("Privacy: history;critical\r\n");
        assert!(!text.contains("History-Info") && !text.contains("Privacy"));
    }

    #[test]
    fn none_forbids_every_privacy_function() {
        let text = leave("Privacy: none, user, id\r\n");
        assert!(text.contains("\"Alice\"") && text.contains("P-Asserted-Identity"));
        assert!(text.contains("Privacy: none, user, id\r\n"));
    }

    #[test]
    fn critical_privacy_that_a_proxy_cannot_give_fails_the_request() {
        let done = |from, header| Ok(Hidden { from, header });
        for (privacy, with_seal, without) in [
            ("Privacy: header;critical\r\n", done(false, true), Err(Unfulfilled::Header)),
            ("Privacy: session\r\nPrivacy: critical\r\n", Err(Unfulfilled::Session), Err(Unfulfilled::Session)),
            ("Privacy: header;session\r\n", done(false, true), done(false, false)),
            ("Privacy: user;id;critical\r\n", done(true, false), done(true, false)),
        ] {
            let bytes = request(privacy);
            let message = Message::parse(&bytes).unwrap();
            let leave =
                |seal| leaving(&message, Neighbour::Untrusted, Privacy::default(), seal, false, &mut Edits::new());
            assert_eq!((leave(Some(&mut seal)), leave(None)), (with_seal, without), "{privacy}");
        }
    }

    const WAY: &str = "Via: SIP/2.0/UDP p.a.example;rport;branch=z9hG4bKp, SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKa\r\n\
        v: SIP/2.0/TCP older;branch=z9hG4bKo\r\nRecord-Route: <sip:p.a.example;lr>\r\nRecord-Route: <sip:q.a.example;lr>\r\n\
        Contact: \"Alice\" <sip:alice@192.0.2.9;ob>;+sip.instance=\"<urn:x>\", <sip:alice@192.0.2.10>\r\n";

    #[test]
    fn header_privacy_hides_the_way_back_and_it_comes_back_in_the_response() {
        let asked = request(&format!("{WAY}Privacy: header\r\n"));
        let text = left(&asked, |m, e| {
            let done = leaving(m, Neighbour::Untrusted, Privacy::default(), Some(&mut seal), false, e);
            assert_eq!(done, Ok(Hidden { from: false, header: true }));
        });
        assert!(text.contains("Contact: <sip:here;hc=sip:alice@192.0.2.9;ob>\r\n"), "{text}");
        for gone in ["Via", "v:", "Record-Route", "instance", "192.0.2.10", "Privacy", "History", "Asserted"] {
            assert!(!text.contains(gone), "{gone}");
        }
        assert!(text.contains("\"Alice\""), "From is another matter");
        let answer = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP us;branch=z9hG4bKu\r\nRecord-Route: <sip:d;lr>, <sip:us;lr>\r\n\
            From: \"Alice\" <sip:alice@a.example>;tag=at;x=y\r\nTo: <sip:bob@b>;tag=2\r\n\r\n";
        let text = left(answer.as_bytes(), |m, e| {
            e.delete(m.line(HeaderName::Via).unwrap().line());
            restore(m, &Message::parse(&asked).unwrap(), "192.0.2.1:5070".parse().unwrap(), e);
        });
        let m = Message::parse(text.as_bytes()).unwrap();
        let list = |name| m.list(name).map(|v| std::str::from_utf8(v).unwrap()).collect::<Vec<_>>();
        assert_eq!(
            list(HeaderName::Via),
            [
                "SIP/2.0/UDP p.a.example;rport=5070;branch=z9hG4bKp;received=192.0.2.1",
                "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKa",
                "SIP/2.0/TCP older;branch=z9hG4bKo",
            ]
        );
        let routes = ["<sip:d;lr>", "<sip:us;lr>", "<sip:p.a.example;lr>", "<sip:q.a.example;lr>"];
        assert_eq!(list(HeaderName::RecordRoute), routes);
    }

    #[test]
    fn what_the_hidden_one_answers_is_hidden_too() {
        let answer = format!("SIP/2.0 200 OK\r\n{LINES}{WAY}\r\n");
        let text = left(answer.as_bytes(), |m, e| {
            let known = Privacy { header: true, ..Privacy::default() };
            let done = leaving(m, Neighbour::Untrusted, known, Some(&mut seal), false, e);
            assert_eq!(done, Ok(Hidden { from: false, header: true }));
        });
        assert!(text.contains("Contact: <sip:here;hc=sip:alice@192.0.2.9;ob>\r\n"), "{text}");
        assert!(text.contains("Via: SIP/2.0/UDP p.a.example") && !text.contains("Record-Route"), "{text}");
    }

    #[test]
    fn a_contact_that_cannot_be_brought_back_is_left_out() {
        for contact in ["*", "<sip:alice@192.0.2.9", "<sip:toolong@192.0.2.9>"] {
            let bytes = format!("INVITE sip:b SIP/2.0\r\nm: {contact}\r\nPrivacy: header\r\n\r\n").into_bytes();
            let text = left(&bytes, |m, e| {
                let mut seal = |uri: &[u8], _: &mut Vec<u8>| uri == b"sip:alice@192.0.2.9";
                leaving(m, Neighbour::Untrusted, Privacy::default(), Some(&mut seal), false, e).unwrap();
            });
            assert_eq!(text, "INVITE sip:b SIP/2.0\r\n\r\n");
        }
    }

    #[test]
    fn what_was_hidden_earlier_in_the_dialog_stays_hidden() {
        let bytes = request("");
        let text = left(&bytes, |m, e| {
            let known = Privacy { user: true, ..Privacy::default() };
            let hidden = Hidden { from: true, header: false };
            assert_eq!(leaving(m, Neighbour::Untrusted, known, None, false, e), Ok(hidden));
        });
        assert!(!text.contains("Alice") && !text.contains("Asserted") && !text.contains("Subject"), "{text}");
    }

    #[test]
    fn a_response_gets_back_the_names_of_its_request() {
        let asked = "INVITE sip:b SIP/2.0\r\nFrom: <sip:alice@a>;tag=1\r\nTo: <sip:bob@b>\r\n\r\n";
        let answer = "SIP/2.0 200 OK\r\nFrom: <sip:anonymous@anonymous.invalid>;tag=1\r\nTo: <sip:bob@b>;tag=2\r\n\
            Server: s\r\nP-Asserted-Identity: <sip:bob@b>\r\n\r\n";
        let source = "192.0.2.1:5070".parse().unwrap();
        let back = |asked: &str| {
            left(answer.as_bytes(), |m, e| restore(m, &Message::parse(asked.as_bytes()).unwrap(), source, e))
        };
        assert_eq!(back(asked), answer.replace("<sip:anonymous@anonymous.invalid>", "<sip:alice@a>"));
        let asked =
            "BYE sip:b SIP/2.0\r\nFrom: <sip:anonymous@anonymous.invalid>;tag=1\r\nTo: \"A\" <sip:x>;tag=2\r\n\r\n";
        let text = back(asked);
        assert!(text.contains("To: \"A\" <sip:x>;tag=2\r\n"), "{text}");
    }

    #[test]
    fn in_a_response_from_is_the_other_party_and_stays() {
        let bytes = format!("SIP/2.0 200 OK\r\n{LINES}Server: x\r\nPrivacy: user;id\r\n\r\n").into_bytes();
        let text = left(&bytes, |m, e| {
            let done = leaving(m, Neighbour::Untrusted, Privacy::default(), None, false, e);
            assert_eq!(done, Ok(Hidden::default()));
        });
        assert!(text.contains("\"Alice\"") && !text.contains("P-Asserted-Identity") && !text.contains("Server"));
    }

    proptest! {
        /// Whatever is asked for, in whatever spelling: what comes out parses, and shows no identity where `id` was asked.
        #[test]
        fn what_leaves_still_parses_and_hides_what_was_asked(
            words in proptest::collection::vec(proptest::sample::select(vec!["id", "USER", "header", "history", "none", "x"]), 0..5),
            comma in any::<bool>(),
        ) {
            let value = words.join(if comma { ", " } else { ";" });
            let leave = |bytes: &[u8]| {
                left(bytes, |m, e| {
                    leaving(m, Neighbour::Untrusted, Privacy::default(), Some(&mut seal), false, e).unwrap();
                })
            };
            let text = leave(&request(&format!("{WAY}Privacy: {value}\r\n")));
            let m = Message::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(m.defect(), None);
            let none = words.contains(&"none");
            let shown = m.value(HeaderName::PAssertedIdentity).is_some();
            prop_assert_eq!(shown, none || !["id", "USER", "header"].iter().any(|w| words.contains(w)));
            let from = m.from().unwrap();
            prop_assert_eq!(from.tag(), Some(&b"at"[..]));
            prop_assert_eq!(from.addr == b"sip:alice@a.example", none || !words.contains(&"USER"));
            let way = !none && words.contains(&"header");
            prop_assert_eq!(text.contains("SIP/2.0/TCP older") || text.contains("Record-Route"), !way);
            prop_assert_eq!(text.contains("urn:x"), !way);
            // A second proxy finds nothing more to do.
            prop_assert_eq!(leave(text.as_bytes()), text);
        }
    }
}
