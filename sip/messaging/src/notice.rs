//! What the sender of a kept message hears of it from us (RFC 5438 §8), and notifications that wait together (§8.3).

use sip_cpim::{Address, CPIM_TYPE, Cpim, Draft, Fate, IMDN_TYPE, Imdn, Outcome};
use sip_proto::build::{Request, Writer};
use sip_proto::headers::{Date, NameAddr, list};
use sip_proto::multipart;
use sip_proto::uri::Uri;
use sip_proto::{HeaderName, Method};

use crate::letter::{Letter, hashed};

/// A notification on its way to the sender of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Whom to ask: the sender, or the first intermediary that wants to see it.
    pub uri: Box<[u8]>,
    /// The whole request in the form that is kept.
    pub request: Vec<u8>,
    /// The same for the same word about the same message.
    pub key: [u8; 16],
}

impl Notice {
    /// The word about a kept message, if its sender asked for it. Notifications are not notified of (RFC 5438 §7.2.1).
    pub fn about(letter: &Letter<'_>, fate: Fate, outcome: Outcome, unix: u64) -> Option<Notice> {
        let cpim = letter.cpim()?;
        let wanted = cpim.wanted();
        let asked = match (fate, outcome) {
            (Fate::Processing, _) => wanted.processing,
            (Fate::Delivery, Outcome::Done) => wanted.positive_delivery,
            (Fate::Delivery, _) => wanted.negative_delivery,
            (Fate::Display, _) => wanted.display,
        };
        if !asked || is_notification(&cpim) {
            return None;
        }
        let id = cpim.message_id()?;
        let sender = letter.sender()?;
        let recipient = cpim.to().next();
        let imdn = Imdn {
            message_id: id.to_owned(),
            date_time: cpim.date_time().unwrap_or_default().to_owned(),
            recipient: recipient.as_ref().map(|a| a.uri.to_owned()),
            // The schema of RFC 5438 §11.1.9 has both or none.
            original_recipient: cpim.original_to().or(recipient.clone()).map(|a| a.uri.to_owned()),
            subject: None,
            fate,
            outcome,
        };
        let mut document = Vec::new();
        imdn.write(&mut document);
        let key = hashed(&[b"notice", sender, letter.to(), id.as_bytes(), &[fate as u8, outcome as u8]]);
        let mut body = Vec::new();
        let mut draft = Draft::new(&mut body);
        if let Some(recipient) = &recipient {
            draft.address("From", recipient);
        }
        if let Some(from) = &cpim.from() {
            draft.address("To", from);
        }
        draft.imdn().text("imdn.Message-ID", &hex(&key)).text("DateTime", &sip_cpim::date_time(unix));
        let route: Vec<Address<'_>> = cpim.record_route().take(MAX_ROUTES).collect();
        for hop in &route {
            draft.address("imdn.IMDN-Route", hop);
        }
        draft.content(IMDN_TYPE, [("Content-Disposition", "notification")], &document);
        let first = route.iter().map(|a| a.uri.as_bytes()).find(|u| Uri::parse(u).is_some_and(|u| u.is_sip()));
        let uri = first.unwrap_or(sender);
        let mut request = Vec::new();
        write(&mut request, [letter.to(), sender], uri, &key, unix, |w| w.body(CPIM_TYPE.as_bytes(), &body));
        Some(Notice { uri: uri.into(), request, key })
    }
}

/// Intermediaries that a notification passes.
const MAX_ROUTES: usize = 8;

/// Whether the content of an envelope says what became of another message, alone or with others.
pub fn is_notification(cpim: &Cpim<'_>) -> bool {
    let disposition = cpim.mime("Content-Disposition").unwrap_or_default();
    cpim.holds(IMDN_TYPE) || disposition.trim().eq_ignore_ascii_case("notification")
}

/// Notifications from one user to another, as one message (RFC 5438 §8.3). `None` unless there are several that go together.
pub fn together(letters: &[Letter<'_>], unix: u64) -> Option<Vec<u8>> {
    if letters.len() < 2 {
        return None;
    }
    let envelopes: Vec<Cpim<'_>> = letters.iter().map(Letter::cpim).collect::<Option<_>>()?;
    let (first, letter) = (envelopes.first()?, letters.first()?);
    let documents: Vec<&[u8]> = envelopes.iter().map(|e| e.content).collect();
    let ids: Vec<&[u8]> = letters.iter().map(Letter::call_id).collect();
    let key = hashed(&ids);
    let boundary = multipart::Boundary::choose(u64::from_be_bytes(*key.first_chunk()?), &documents);
    let mut parts = Vec::new();
    let mut writer = multipart::Writer::new(boundary, &mut parts);
    documents.iter().for_each(|d| writer.part(IMDN_TYPE.as_bytes(), &[], d));
    writer.finish();
    let mut content_type = Vec::new();
    boundary.write_content_type("mixed", b"", &mut content_type);
    let mut body = Vec::new();
    let mut draft = Draft::new(&mut body);
    draft.address("From", &first.from()?).address("To", &first.to().next()?).imdn();
    draft.text("imdn.Message-ID", &hex(&key)).text("DateTime", &sip_cpim::date_time(unix));
    draft.content(std::str::from_utf8(&content_type).ok()?, [("Content-Disposition", "notification")], &parts);
    let mut request = Vec::new();
    let addresses = [letter.from(), letter.to()];
    let uri = NameAddr::parse(letter.to())?.addr;
    write(&mut request, addresses, uri, &key, unix, |w| w.body(CPIM_TYPE.as_bytes(), &body));
    Some(request)
}

/// Whether two notifications may travel together: the same two users, and nothing in them but a document.
pub fn go_together(one: &Letter<'_>, other: &Letter<'_>) -> bool {
    let ends = |letter: &Letter<'_>| {
        let cpim = letter.cpim().filter(|c| c.holds(IMDN_TYPE))?;
        let users = (cpim.from()?.uri.to_owned(), cpim.to().next()?.uri.to_owned());
        Some((users, NameAddr::parse(letter.from())?.addr.to_owned()))
    };
    ends(one).is_some_and(|ends_of_one| Some(ends_of_one) == ends(other))
}

/// `from` and `to`: addresses, with a tag or without; we speak for the first.
fn write(
    out: &mut Vec<u8>,
    [from, to]: [&[u8]; 2],
    uri: &[u8],
    key: &[u8; 16],
    unix: u64,
    body: impl FnOnce(&mut Writer<'_>),
) {
    let bare = |value: &[u8], w: &mut Vec<u8>| {
        w.push(b'<');
        w.extend_from_slice(NameAddr::parse(value).map_or(value, |a| a.addr));
        w.push(b'>');
    };
    let id = hex(key);
    Request::new(Method::Message, uri).write(out, |w| {
        w.header(HeaderName::From, |t| {
            bare(from, t);
            t.extend_from_slice(b";tag=");
            t.extend_from_slice(&id.as_bytes()[..16]);
        });
        w.header(HeaderName::To, |t| bare(to, t));
        w.text(HeaderName::CallId, id.as_bytes());
        w.cseq(1, Method::Message);
        w.header(HeaderName::PAssertedIdentity, |t| bare(from, t));
        w.header(HeaderName::Date, |t| Date::from_unix(unix).write(t));
        body(w);
    });
}

/// The URI in the first of a list of addresses, if a SIP request can reach it and it is somebody's.
pub fn reachable(values: &[u8]) -> Option<&[u8]> {
    let address = list(values).next().and_then(NameAddr::parse)?;
    let uri = Uri::parse(address.addr).filter(Uri::is_sip)?;
    let nobody = uri.host().len() >= 7 && uri.host()[uri.host().len() - 7..].eq_ignore_ascii_case(b"invalid");
    (uri.user().is_some() && !nobody).then_some(address.addr)
}

fn hex(key: &[u8; 16]) -> String {
    key.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::NOW;
    use sip_proto::Message;
    use sip_proto::headers::MediaType;

    fn letter(more: &str, content_type: &str, content: &str) -> String {
        let body = format!(
            "From: Alice <im:alice@example.com>\r\nTo: Bob <im:bob@example.com>\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
             imdn.Message-ID: 34jk324j\r\nDateTime: 2006-04-04T12:16:49-05:00\r\n{more}\r\nContent-Type: {content_type}\r\n\r\n{content}"
        );
        format!(
            "MESSAGE sip:bob@example.com SIP/2.0\r\nFrom: <sip:alice@example.com>;tag=1\r\nTo: \"Bob\" <sip:bob@example.com>\r\n\
             Call-ID: {}\r\nCSeq: 1 MESSAGE\r\nP-Asserted-Identity: <sip:al@example.com>\r\nContent-Type: message/cpim\r\nContent-Length: {}\r\n\r\n{body}",
            content.len(),
            body.len()
        )
    }

    const WANTED: &str = "imdn.Disposition-Notification: processing, negative-delivery\r\n";

    fn about(text: &str, fate: Fate, outcome: Outcome) -> Option<Notice> {
        Notice::about(&Letter::read(text.as_bytes()).unwrap(), fate, outcome, NOW)
    }

    #[test]
    fn a_sender_hears_what_it_asked_for_under_the_name_that_we_believe() {
        let text = letter(WANTED, "text/plain", "hello");
        let notice = about(&text, Fate::Processing, Outcome::Stored).unwrap();
        assert_eq!(&*notice.uri, b"sip:al@example.com");
        let m = Message::parse(&notice.request).unwrap();
        assert_eq!(m.defect(), None);
        let cpim = Cpim::parse(m.body()).unwrap();
        assert_eq!(
            (cpim.from().unwrap().uri, cpim.to().next().unwrap().uri),
            ("im:bob@example.com", "im:alice@example.com")
        );
        let imdn = Imdn::parse(cpim.content).unwrap();
        assert_eq!((imdn.fate, imdn.outcome, &*imdn.message_id), (Fate::Processing, Outcome::Stored, "34jk324j"));
        assert_eq!(imdn.date_time, "2006-04-04T12:16:49-05:00");
        assert_eq!(cpim.wanted(), sip_cpim::Wanted::default(), "no notification of a notification");
        assert!(about(&text, Fate::Delivery, Outcome::Failed).is_some());
        assert!(about(&text, Fate::Delivery, Outcome::Done).is_none(), "not asked for");
    }

    #[test]
    fn notifications_and_nameless_senders_are_told_nothing() {
        assert!(about(&letter(WANTED, IMDN_TYPE, "<x/>"), Fate::Processing, Outcome::Stored).is_none());
        let text = letter(WANTED, "text/plain", "hello").replace("P-Asserted-Identity: <sip:al@example.com>\r\n", "");
        let named = about(&text, Fate::Processing, Outcome::Stored).unwrap();
        assert_eq!(&*named.uri, b"sip:alice@example.com");
        let text = text.replace("sip:alice@example.com", "sip:anonymous@anonymous.invalid");
        assert!(about(&text, Fate::Processing, Outcome::Stored).is_none());
        let no_id = letter(WANTED, "text/plain", "x").replace("imdn.Message-ID", "imdn.Message-XX");
        assert!(about(&no_id, Fate::Processing, Outcome::Stored).is_none());
    }

    #[test]
    fn an_intermediary_that_wants_to_see_it_gets_it_first() {
        let more = format!("{WANTED}imdn.IMDN-Record-Route: <sip:list@lists.example>\r\n");
        let notice = about(&letter(&more, "text/plain", "x"), Fate::Processing, Outcome::Stored).unwrap();
        assert_eq!(&*notice.uri, b"sip:list@lists.example");
        let text = String::from_utf8(notice.request).unwrap();
        assert!(text.contains("imdn.IMDN-Route: <sip:list@lists.example>\r\n"), "{text}");
    }

    #[test]
    fn what_waits_for_one_user_travels_together() {
        let texts = [letter("", IMDN_TYPE, "<one/>"), letter("", IMDN_TYPE, "<second/>")];
        let letters = texts.each_ref().map(|t| Letter::read(t.as_bytes()).unwrap());
        assert!(go_together(&letters[0], &letters[1]));
        let request = together(&letters, NOW).unwrap();
        let m = Message::parse(&request).unwrap();
        let cpim = Cpim::parse(m.body()).unwrap();
        let content_type = MediaType::parse(cpim.content_type().unwrap().as_bytes()).unwrap();
        let parts = multipart::parts(&content_type, cpim.content).unwrap();
        assert_eq!(parts.iter().map(|p| p.body).collect::<Vec<_>>(), [&b"<one/>"[..], b"<second/>"]);
        assert!(parts.iter().all(|p| p.content_type().unwrap().is(IMDN_TYPE)));
        assert!(is_notification(&cpim));
        let text = letter("", "text/plain", "hello");
        assert!(!go_together(&letters[0], &Letter::read(text.as_bytes()).unwrap()));
        assert!(together(&letters[..1], NOW).is_none());
    }
}
