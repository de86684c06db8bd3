//! A message as it is kept: the MESSAGE itself, without what belonged to its way here.
//!
//! Kept as SIP text, so the parser that reads the network reads the store. Call-ID, CSeq and From stay as the sender
//! made them: one trace from end to end, and a phone that is sent the same message twice can tell.

use sha2::{Digest, Sha256};
use sip_cpim::{CPIM_TYPE, Cpim, Fate, IMDN_TYPE, IS_COMPOSING_TYPE, Imdn, Outcome};
use sip_ims::Aor;
use sip_ims::ports::{MAX_QUEUED_MESSAGE, QueuedMessage};
use sip_ims::service::{Caller, Request};
use sip_proto::build::{self, Writer};
use sip_proto::endpoint::hex16;
use sip_proto::headers::{Date, MediaType, Privacy, delta_seconds};
use sip_proto::message::NotSip;
use sip_proto::privacy::{self, Neighbour};
use sip_proto::{Edits, HeaderName, Limits, Message, Method};

use crate::config::Config;
use crate::notice::reachable;

/// Why a message is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotKept {
    /// Of no use later, or none of our business: whoever asked goes on as if there were no store.
    Fleeting,
    /// The sender's fault.
    Bad { status: u16, reason: &'static str },
}

/// The stored form of a request that reached nobody. `unix`: now, in seconds.
pub fn keep(request: &Request<'_>, aor: &Aor, unix: u64, config: &Config) -> Result<QueuedMessage, NotKept> {
    let message = request.message;
    let in_dialog = message.is_in_dialog();
    if in_dialog || is_composing(message) {
        return Err(NotKept::Fleeting);
    }
    if message.body().len() > config.max_body {
        return Err(NotKept::Bad { status: 413, reason: "Message Too Large" });
    }
    if !message.body().is_empty() && message.value(HeaderName::ContentType).is_none() {
        // RFC 3261 §7.4.1. Who reads it later could not ask what it is.
        return Err(NotKept::Bad { status: 400, reason: "Body Without Content-Type" });
    }
    let expires_at = expires_at(message, unix, config).ok_or(NotKept::Fleeting)?;
    let mut body = Vec::with_capacity(message.bytes().len());
    match as_the_addressee_may_see_it(message).as_deref().map(Message::parse) {
        Some(Ok(hidden)) => write_kept(&hidden, request, aor, unix, &mut body),
        _ => write_kept(message, request, aor, unix, &mut body),
    }
    if body.len() > MAX_QUEUED_MESSAGE {
        return Err(NotKept::Bad { status: 413, reason: "Message Too Large" });
    }
    Ok(QueuedMessage { aor: aor.clone(), key: key(message), body, expires_at })
}

/// RFC 3428 §7: Expires counts from Date if there is one, else from now. `None`: over already, or never to be kept.
fn expires_at(message: &Message<'_>, unix: u64, config: &Config) -> Option<i64> {
    let expires = message.value(HeaderName::Expires).and_then(delta_seconds);
    let sent = message.value(HeaderName::Date).and_then(Date::parse).map_or(unix, |d| d.unix().min(unix));
    let end = match expires {
        Some(expires) => (sent + u64::from(expires)).min(unix + u64::from(config.expiry)),
        None => unix + u64::from(config.expiry),
    };
    if end > unix { i64::try_from(end).ok() } else { None }
}

/// "Somebody is typing" is of the moment (RFC 3994), alone or wrapped in CPIM (RFC 3862).
fn is_composing(message: &Message<'_>) -> bool {
    let is = |value: &[u8], essence| MediaType::parse(value).is_some_and(|t| t.is(essence));
    let Some(content) = message.value(HeaderName::ContentType) else { return false };
    if !is(content, CPIM_TYPE) {
        return is(content, IS_COMPOSING_TYPE);
    }
    Cpim::parse(message.body()).is_ok_and(|cpim| cpim.holds(IS_COMPOSING_TYPE))
}

/// Whether a message says that another one was read (RFC 5438 §5.3).
pub fn says_displayed(message: &Message<'_>) -> bool {
    let Some(cpim) = cpim(message).filter(|c| c.holds(IMDN_TYPE)) else { return false };
    Imdn::parse(cpim.content).is_ok_and(|i| (i.fate, i.outcome) == (Fate::Display, Outcome::Done))
}

/// The same for the same message sent again: by its Message-ID if it has one (RFC 5438 §6.3), else by Call-ID and CSeq. What it
/// says is in it: a client that repeats them for another text loses nothing.
pub fn key(message: &Message<'_>) -> [u8; 16] {
    let from = message.from().map_or(&b""[..], |a| a.addr);
    if let Some(key) = cpim(message).and_then(|cpim| named(from, &cpim)) {
        return key;
    }
    let tag = message.from_tag().unwrap_or_default();
    let number = message.cseq().map_or(0, |c| c.number).to_be_bytes();
    hashed(&[message.call_id().unwrap_or_default(), tag, &number, message.body()])
}

/// The key of a message that has a Message-ID. `from`: the URI of its sender.
pub fn named(from: &[u8], cpim: &Cpim<'_>) -> Option<[u8; 16]> {
    Some(hashed(&[b"imdn", from, cpim.message_id()?.as_bytes(), cpim.content]))
}

/// Each part behind its length, so that no two lists of parts are the same bytes.
pub fn hashed(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    key
}

/// The envelope of a message that has one which can be read.
pub fn cpim<'a>(message: &Message<'a>) -> Option<Cpim<'a>> {
    let content_type = message.value(HeaderName::ContentType).and_then(MediaType::parse)?;
    Cpim::parse(message.body()).ok().filter(|_| content_type.is(CPIM_TYPE))
}

/// What its sender asked to hide is hidden before it is kept (RFC 3323 §5): later nobody knows it any more.
fn as_the_addressee_may_see_it(message: &Message<'_>) -> Option<Vec<u8>> {
    message.line(HeaderName::Privacy)?;
    let mut edits = Edits::new();
    // What must be hidden and cannot be was refused by the proxy. Nobody answers a message by its Contact.
    let mut nowhere = |_: &[u8], _: &mut Vec<u8>| false;
    let _ = privacy::leaving(message, Neighbour::Untrusted, Privacy::default(), Some(&mut nowhere), false, &mut edits);
    let mut out = Vec::with_capacity(message.bytes().len());
    edits.apply(message.bytes(), &mut out);
    Some(out)
}

fn write_kept(message: &Message<'_>, request: &Request<'_>, aor: &Aor, unix: u64, out: &mut Vec<u8>) {
    let uri = ["sip:", aor.as_str()].concat();
    build::Request::new(Method::Message, uri.as_bytes()).write(out, |w| {
        write_headers(message, w, |name| match name {
            HeaderName::PAssertedIdentity => matches!(request.caller, Caller::Trusted),
            HeaderName::Date => message.value(name).and_then(Date::parse).is_some(),
            _ => !belongs_to_the_way(name),
        });
        if message.value(HeaderName::Date).and_then(Date::parse).is_none() {
            w.header(HeaderName::Date, |t| Date::from_unix(unix).write(t));
        }
        if let Caller::User(user) = &request.caller
            && !privacy::asked(request.message).hides_identity()
        {
            // RFC 3325 §5: whom we authenticated, for the phone that reads it when we are long past.
            w.header(HeaderName::PAssertedIdentity, |t| {
                t.extend_from_slice(b"<sip:");
                t.extend_from_slice(user.aor.as_str().as_bytes());
                t.push(b'>');
                if let Some(number) = user.msisdn {
                    t.extend_from_slice(b", <tel:");
                    t.extend_from_slice(number.to_string().as_bytes());
                    t.push(b'>');
                }
            });
        }
    });
}

/// What is known of the sender and the addressee of messages that came through a session.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The From of the INVITE, with its tag.
    pub from: Box<[u8]>,
    /// Its To.
    pub to: Box<[u8]>,
    pub call_id: Box<[u8]>,
    /// The identity that was believed, as the value of P-Asserted-Identity.
    pub asserted: Option<Box<[u8]>>,
    pub aor: Aor,
}

/// The stored form of a message that came through a session. `number`: its place in the session.
pub fn from_session(
    ends: &Ends,
    number: u32,
    [content_type, body]: [&[u8]; 2],
    unix: u64,
    config: &Config,
) -> Result<QueuedMessage, NotKept> {
    let mut out = Vec::with_capacity(body.len() + 512);
    let uri = ["sip:", ends.aor.as_str()].concat();
    build::Request::new(Method::Message, uri.as_bytes()).write(&mut out, |w| {
        w.text(HeaderName::From, &ends.from);
        w.text(HeaderName::To, &ends.to);
        // One for each: a phone may take a second request with a Call-ID that it knows for a part of what is over.
        w.header(HeaderName::CallId, |t| {
            t.extend_from_slice(format!("{number}.").as_bytes());
            t.extend_from_slice(&ends.call_id);
        });
        w.cseq(1, Method::Message);
        w.header(HeaderName::Date, |t| Date::from_unix(unix).write(t));
        if let Some(asserted) = &ends.asserted {
            w.text(HeaderName::PAssertedIdentity, asserted);
        }
        w.body(content_type, body);
    });
    let Ok(message) = Message::parse(&out) else { return Err(NotKept::Bad { status: 400, reason: "Bad Request" }) };
    if is_composing(&message) {
        return Err(NotKept::Fleeting);
    }
    let (key, expires_at) = (key(&message), unix + u64::from(config.expiry));
    if out.len() > MAX_QUEUED_MESSAGE {
        return Err(NotKept::Bad { status: 413, reason: "Message Too Large" });
    }
    Ok(QueuedMessage { aor: ends.aor.clone(), key, body: out, expires_at: expires_at as i64 })
}

/// A message of this server's own to a user of ours, in the form that is kept.
pub fn of_our_own(aor: &Aor, [content_type, body]: [&str; 2], unix: u64, config: &Config) -> Option<QueuedMessage> {
    let domain = aor.as_str().rsplit('@').next()?;
    let id = text(&hex16(rand::random()));
    let ends = Ends {
        from: format!("<sip:{domain}>;tag={}", &id[..8]).into_bytes().into(),
        to: format!("<sip:{aor}>").into_bytes().into(),
        call_id: id.into_bytes().into(),
        asserted: Some(format!("<sip:{domain}>").into_bytes().into()),
        aor: aor.clone(),
    };
    from_session(&ends, 1, [content_type.as_bytes(), body.as_bytes()], unix, config).ok()
}

fn text(hex: &[u8]) -> String {
    String::from_utf8_lossy(hex).into_owned()
}

/// Headers between two neighbours, and credentials; not for the addressee, or not true any more later.
fn belongs_to_the_way(name: HeaderName) -> bool {
    use HeaderName::*;
    matches!(
        name,
        Via | Route
            | RecordRoute
            | Path
            | MaxForwards
            | Authorization
            | ProxyAuthorization
            | ProxyRequire
            | Contact
            | Timestamp
            | PAccessNetworkInfo
            | PChargingVector
            | PChargingFunctionAddresses
            | PPreferredIdentity
            | PPreferredService
            | PProfileKey
            | PServedUser
            | PUserDatabase
            | PVisitedNetworkId
            | SecurityClient
            | SecurityVerify
    )
}

/// Copies the headers that `keep` wants, and the body.
fn write_headers(message: &Message<'_>, w: &mut Writer<'_>, keep: impl Fn(HeaderName) -> bool) {
    let has_body = !message.body().is_empty();
    for line in message.headers() {
        let value = &message.bytes()[line.value()];
        match line.name {
            HeaderName::ContentLength => {}
            HeaderName::ContentType if has_body => {}
            HeaderName::Other => {
                if let Ok(name) = std::str::from_utf8(message.name_of(line)) {
                    w.other(name, |t| t.extend_from_slice(value));
                }
            }
            name if keep(name) => w.text(name, value),
            _ => {}
        }
    }
    if has_body {
        w.body(message.value(HeaderName::ContentType).unwrap_or(b"application/octet-stream"), message.body());
    }
}

/// A kept message, read back.
#[derive(Clone, Debug)]
pub struct Letter<'a>(Message<'a>);

impl<'a> Letter<'a> {
    pub fn read(stored: &'a [u8]) -> Result<Letter<'a>, NotSip> {
        // It was received under limits once; these only have to be no narrower than any of those.
        let limits = Limits { headers: 250, line: MAX_QUEUED_MESSAGE, hops: 0 };
        Message::parse_with(stored, &limits).map(Letter)
    }

    /// The whole request for one phone, but for the Via. `path`: the binding's Path as a Route list, or empty (RFC 3327 §5.4).
    pub fn write(&self, uri: &[u8], path: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.bytes().len() + uri.len() + path.len() + 64);
        build::Request::new(Method::Message, uri).write(&mut out, |w| {
            if !path.is_empty() {
                w.text(HeaderName::Route, path);
            }
            w.number(HeaderName::MaxForwards, 70);
            write_headers(&self.0, w, |_| true);
        });
        out
    }

    /// The request as it is kept.
    pub fn message(&self) -> &Message<'a> {
        &self.0
    }

    pub fn call_id(&self) -> &'a [u8] {
        self.0.call_id().unwrap_or_default()
    }

    pub fn from(&self) -> &'a [u8] {
        self.0.value(HeaderName::From).unwrap_or_default()
    }

    pub fn to(&self) -> &'a [u8] {
        self.0.value(HeaderName::To).unwrap_or_default()
    }

    /// The SIP URI of who sent it: the one that was believed when it was kept, else the one it says.
    pub fn sender(&self) -> Option<&'a [u8]> {
        let asserted = self.0.value(HeaderName::PAssertedIdentity).and_then(reachable);
        asserted.or_else(|| reachable(self.from()))
    }

    /// Its envelope, if it has one.
    pub fn cpim(&self) -> Option<Cpim<'a>> {
        cpim(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::{NOW, with_request};

    fn kept(text: &str) -> Result<QueuedMessage, NotKept> {
        with_request(text, Caller::Foreign, |r| keep(r, &"bob@example.com".parse().unwrap(), NOW, &Config::default()))
    }

    fn message(headers: &str, body: &str) -> String {
        format!(
            "MESSAGE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nMax-Forwards: 7\r\n\
             From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: c1\r\nCSeq: 3 MESSAGE\r\n\
             {headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[test]
    fn what_belongs_to_the_message_comes_back_and_what_belongs_to_the_way_does_not() {
        let text = message(
            "Route: <sip:p;lr>\r\nProxy-Authorization: Digest response=\"secret\"\r\ns: Lunch\r\nX-Own: 1\r\n\
             P-Asserted-Identity: <sip:mallory@x>\r\nc: message/cpim;charset=utf-8\r\n",
            "From: x\r\n\r\nContent-Type: text/plain\r\n\r\n\0\u{e9}\r\n",
        );
        let kept = kept(&text).unwrap();
        let out = Letter::read(&kept.body).unwrap().write(b"sip:bob@192.0.2.7:5070", b"<sip:edge;lr>");
        let m = Message::parse(&out).unwrap();
        assert_eq!((m.defect(), m.request_uri()), (None, &b"sip:bob@192.0.2.7:5070"[..]));
        let value = |name| m.value(name).map(|v| String::from_utf8_lossy(v).into_owned());
        assert_eq!(value(HeaderName::Subject).as_deref(), Some("Lunch"));
        assert_eq!(value(HeaderName::ContentType).as_deref(), Some("message/cpim;charset=utf-8"));
        assert_eq!(value(HeaderName::CallId).as_deref(), Some("c1"));
        assert_eq!(value(HeaderName::CSeq).as_deref(), Some("3 MESSAGE"));
        assert_eq!(value(HeaderName::From).as_deref(), Some("<sip:alice@example.com>;tag=1"));
        assert_eq!(value(HeaderName::MaxForwards).as_deref(), Some("70"));
        assert_eq!(value(HeaderName::Route).as_deref(), Some("<sip:edge;lr>"));
        assert_eq!(value(HeaderName::Date).as_deref(), Some("Tue, 14 Nov 2023 22:13:20 GMT"));
        assert_eq!(m.other_value("X-Own"), Some(&b"1"[..]));
        for gone in [HeaderName::Via, HeaderName::ProxyAuthorization, HeaderName::PAssertedIdentity] {
            assert_eq!(value(gone), None);
        }
        assert_eq!(m.body(), "From: x\r\n\r\nContent-Type: text/plain\r\n\r\n\0\u{e9}\r\n".as_bytes());
    }

    #[test]
    fn the_identity_is_ours_for_a_user_theirs_for_a_trusted_node_and_none_with_privacy() {
        let identity = |headers: &str, caller| {
            with_request(&message(headers, ""), caller, |r| {
                let kept = keep(r, &"bob@example.com".parse().unwrap(), NOW, &Config::default()).unwrap();
                let out = Letter::read(&kept.body).unwrap().write(b"sip:b", b"");
                let m = Message::parse(&out).unwrap();
                m.values(HeaderName::PAssertedIdentity)
                    .map(|v| String::from_utf8_lossy(v).into_owned())
                    .collect::<Vec<_>>()
            })
        };
        let alice = || Caller::User(crate::fakes::user("alice", Some("+819012345678")));
        let claimed = "P-Asserted-Identity: <sip:boss@x>\r\n";
        assert_eq!(identity(claimed, alice()), ["<sip:alice@example.com>, <tel:+819012345678>"]);
        assert_eq!(identity(claimed, Caller::Trusted), ["<sip:boss@x>"]);
        assert!(identity(claimed, Caller::Foreign).is_empty());
        assert!(identity("Privacy: id\r\n", alice()).is_empty());
        assert!(identity("Privacy: user\r\n", alice()).is_empty());
    }

    #[test]
    fn a_sender_who_wants_to_stay_unknown_is_kept_as_nobody() {
        let kept = kept(&message("Privacy: user\r\nSubject: me\r\n", "")).unwrap();
        let text = String::from_utf8(Letter::read(&kept.body).unwrap().write(b"sip:b", b"")).unwrap();
        assert!(text.contains("From: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1\r\n"), "{text}");
        assert!(!text.contains("alice") && !text.contains("Subject"), "{text}");
    }

    #[test]
    fn expiry_counts_from_date_and_never_beyond_ours() {
        let end = |headers: &str| kept(&message(headers, "")).map(|k| k.expires_at - NOW as i64);
        let week = i64::from(Config::default().expiry);
        assert_eq!(end(""), Ok(week));
        assert_eq!(end("Expires: 600\r\n"), Ok(600));
        assert_eq!(end("Expires: 600\r\nDate: Tue, 14 Nov 2023 22:08:20 GMT\r\n"), Ok(300));
        assert_eq!(end("Expires: 600\r\nDate: Tue, 14 Nov 2033 22:08:20 GMT\r\n"), Ok(600), "a clock that is fast");
        assert_eq!(end("Expires: 4294967295\r\n"), Ok(week));
        assert_eq!(end("Expires: soon\r\n"), Ok(week));
        assert_eq!(end("Expires: 0\r\n"), Err(NotKept::Fleeting));
        assert_eq!(end("Expires: 300\r\nDate: Tue, 14 Nov 2023 22:08:20 GMT\r\n"), Err(NotKept::Fleeting));
    }

    #[test]
    fn typing_notices_and_messages_of_a_dialog_are_not_kept() {
        let typing = "Content-Type: application/im-iscomposing+xml\r\n";
        assert_eq!(kept(&message(typing, "<x/>")), Err(NotKept::Fleeting));
        let cpim = "From: <im:a@x>\r\nNS: imdn <urn:ietf:params:imdn>\r\n\r\n";
        let wrapped = format!("{cpim}Content-type: Application/im-iscomposing+xml; charset=utf-8\r\n\r\n<x/>");
        assert_eq!(kept(&message("Content-Type: message/cpim\r\n", &wrapped)), Err(NotKept::Fleeting));
        let imdn = format!("{cpim}Content-type: message/imdn+xml\r\nContent-Disposition: notification\r\n\r\n<imdn/>");
        assert!(kept(&message("Content-Type: message/cpim\r\n", &imdn)).is_ok());
        let dialog = message("", "").replace("To: <sip:bob@example.com>", "To: <sip:bob@example.com>;tag=9");
        assert_eq!(kept(&dialog), Err(NotKept::Fleeting));
    }

    #[test]
    fn bodies_have_a_type_and_a_limit() {
        let status = |text: String| match kept(&text) {
            Err(NotKept::Bad { status, .. }) => status,
            other => panic!("{:?}", other.map(|k| k.expires_at)),
        };
        assert_eq!(status(message("", "x")), 400);
        let plain = "Content-Type: text/plain\r\n";
        assert!(kept(&message(plain, &"x".repeat(64 * 1024))).is_ok());
        assert_eq!(status(message(plain, &"x".repeat(64 * 1024 + 1))), 413);
        let long = format!("X-A: {}\r\n", "a".repeat(8 * 1024)).repeat(9);
        assert_eq!(status(message(&format!("{long}{plain}"), &"x".repeat(64 * 1024))), 413);
    }

    #[test]
    fn the_same_message_has_the_same_key_and_another_text_another() {
        let plain = "Content-Type: text/plain\r\n";
        let key = |text: &str| kept(text).unwrap().key;
        let one = message(plain, "hello");
        assert_eq!(key(&one), key(&one.replace("z9hG4bK1", "z9hG4bK2")));
        for (from, to) in [("hello", "jello"), ("c1", "c2"), ("3 MESSAGE", "4 MESSAGE"), ("tag=1", "tag=2")] {
            assert_ne!(key(&one), key(&one.replace(from, to)), "{to}");
        }
        let envelope = "imdn.Message-ID: 1234\r\n\r\nContent-Type: text/plain\r\n\r\nhello";
        let named = message("Content-Type: message/cpim\r\n", envelope);
        assert_eq!(
            key(&named),
            key(&named.replace("c1", "c2").replace("3 MESSAGE", "4 MESSAGE")),
            "sent again by its client"
        );
        for (from, to) in [("hello", "jello"), ("1234", "1235"), ("alice@", "carol@")] {
            assert_ne!(key(&named), key(&named.replace(from, to)), "{to}");
        }
    }
}
