//! Histories: what users of ours say and hear, kept for those among them who want to read it again.
//!
//! A MESSAGE is kept once its addressee has taken it ([`Archive`]), or together with the message that waits for them; what is said
//! in a session, once it has gone on ([`Listener`]); what is said in a room, with its way to those in it. Envelopes are taken off; what only tells of other messages is not kept.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use media_msrp::Listener;
use media_msrp::assembly::Whole;
use parking_lot::Mutex;
use sip_cpim::{CPIM_TYPE, Cpim, IMDN_TYPE, IS_COMPOSING_TYPE};
use sip_ims::history::{Archive, HistoryEntry, HistoryStore, TextArchive, Texted, TextedBy};
use sip_ims::ports::StoreError;
use sip_ims::service::Caller;
use sip_ims::{Aor, Directory, Home, Msisdn, User, answer};
use sip_proto::headers::{NameAddr, list};
use sip_proto::uri::{Scheme, Uri};
use sip_proto::{HeaderName, Message, privacy};

use crate::conference::Who;
use crate::control::pieces::{decoded, essence};
use crate::letter;

/// What histories are kept with.
pub struct HistoryParts {
    pub store: Arc<dyn HistoryStore>,
    pub home: Arc<Home>,
    pub directory: Arc<Directory>,
    /// Milliseconds since 1970.
    pub unix_ms: fn() -> u64,
    /// Days for which anything is kept, whatever a user wants.
    pub max_days: u32,
    /// Messages of one user; the oldest go first.
    pub max_messages: u32,
}

/// Keeps histories.
pub struct History {
    parts: HistoryParts,
    counts: Arc<HistoryCounts>,
    /// Entries of an owner since the cap was looked at.
    unlooked: Mutex<HashMap<Aor, u32>>,
}

#[derive(Default)]
pub struct HistoryCounts {
    pub kept: AtomicU64,
    /// The store did not take them.
    pub lost: AtomicU64,
}

/// Longest content that is kept, in bytes.
pub const MAX_CONTENT: usize = 64 * 1024;
/// So many entries may be over the cap.
const SLACK: u32 = 64;
/// Owners of whom it is remembered how many were added.
const MAX_UNLOOKED: usize = 100_000;
/// Entries dropped in one transaction: others want to write too.
const DROPPED: u32 = 500;
const DAY: u64 = 86_400;
const ANONYMOUS: &str = "sip:anonymous@anonymous.invalid";

/// One of two who talk.
#[derive(Clone)]
struct Side {
    uri: String,
    /// `None`: none of ours, or nobody who has proved it.
    user: Option<Arc<User>>,
    /// Wants to stay unknown to the other.
    hidden: bool,
}

/// What was said.
struct Content {
    media_type: String,
    message_id: String,
    body: Vec<u8>,
}

impl History {
    pub fn new(parts: HistoryParts) -> Arc<History> {
        Arc::new(History { parts, counts: Arc::default(), unlooked: Mutex::default() })
    }

    pub fn counts(&self) -> &Arc<HistoryCounts> {
        &self.counts
    }

    pub fn store(&self) -> &Arc<dyn HistoryStore> {
        &self.parts.store
    }

    /// How somebody is called in histories. `text`: a URI, or `user@domain`, or what short messages come from.
    pub fn peer(&self, text: &str) -> String {
        self.named(text).uri
    }

    /// Drops what is over. To be called now and then.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let now = (self.parts.unix_ms)() / 1_000;
        loop {
            let (done, gone) = answer();
            self.parts.store.expire(now as i64, DROPPED, done);
            if gone.await? < u64::from(DROPPED) {
                return Ok(());
            }
        }
    }

    /// What two parties keep of a MESSAGE. `addressee`: whom of our users its Request-URI names.
    pub(crate) fn of_message(
        &self,
        message: &Message<'_>,
        sender: &Caller,
        addressee: Option<&Arc<User>>,
    ) -> Vec<HistoryEntry> {
        if !self.wants(sender, addressee) {
            return Vec::new();
        }
        let content_type = message.value(HeaderName::ContentType).unwrap_or_default();
        let Some(content) = Content::of(content_type, message.body()) else { return Vec::new() };
        let mut from = match sender {
            Caller::User(user) => Side::of(user),
            Caller::Trusted => {
                let asserted = message.value(HeaderName::PAssertedIdentity);
                self.believed(asserted.or(message.value(HeaderName::From)).unwrap_or_default())
            }
            Caller::Foreign => Side { user: None, ..self.side(message.value(HeaderName::From).unwrap_or_default()) },
        };
        let to = addressee.map_or_else(|| self.side(message.request_uri()), Side::of);
        from.hidden = privacy::asked(message).hides_identity();
        self.entries([from, to], letter::key(message), &content)
    }

    /// What both keep of something that was said in a session with this server in the addressee's place. `from`: as the session
    /// names its sender; `asserted`: as whom they were believed, if they were.
    pub(crate) fn of_session(
        &self,
        from: &[u8],
        asserted: Option<&[u8]>,
        to: &str,
        call_id: &[u8],
        message: &Whole,
    ) -> Vec<HistoryEntry> {
        let unproved = || Side { user: None, ..self.side(from) };
        let sender = asserted.map_or_else(unproved, |identities| self.believed(identities));
        self.of_words([from, call_id], [sender, self.side(to.as_bytes())], message)
    }

    /// Hears one side of a session, if anybody wants it kept. `hidden`: of each, whether they want to stay unknown.
    pub(crate) fn overhear(
        self: &Arc<Self>,
        addresses: [&[u8]; 2],
        hidden: [bool; 2],
        call_id: &[u8],
    ) -> Option<Arc<dyn Listener>> {
        let mut ends = addresses.map(|address| self.side(address));
        ends.iter_mut().zip(hidden).for_each(|(side, hidden)| side.hidden = hidden);
        if !self.is_wanted(&ends) {
            return None;
        }
        let (from, call_id) = (addresses[0].into(), call_id.into());
        Some(Arc::new(Overheard { history: self.clone(), ends, from, call_id }))
    }

    /// Keeps what somebody says in a room: for themself, and for each user who hears it.
    pub(crate) fn said_in_room<'w>(
        &self,
        room: &str,
        speaker: &Who,
        heard_by: impl Iterator<Item = &'w Who>,
        message: &Whole,
    ) {
        let said_by = self.who(speaker);
        let listeners = heard_by.map(|who| (self.who(who).user, false));
        let mut seen = HashSet::new();
        let owners: Vec<(Arc<User>, bool)> = std::iter::once((said_by.user.clone(), true))
            .chain(listeners)
            .filter_map(|(user, outgoing)| Some((user?, outgoing)))
            .filter(|(user, _)| self.days(Some(user)) > 0 && seen.insert(user.aor.clone()))
            .collect();
        // In most rooms nobody wants that.
        if owners.is_empty() {
            return;
        }
        let Some(content) = Content::of(&message.content_type, &message.body) else { return };
        let (key, at) = (self.key([speaker.uri.as_bytes(), room.as_bytes()], message), (self.parts.unix_ms)());
        let entries = owners.iter().filter_map(|(owner, outgoing)| {
            let entry = self.entry(owner, (room, *outgoing), key, at, &content)?;
            Some(HistoryEntry { speaker: said_by.uri.clone(), ..entry })
        });
        self.write(entries.collect(), || {});
    }

    /// Keeps what somebody in a room says to one other alone.
    pub(crate) fn said_aside(&self, room: &str, [from, to]: [&Who; 2], message: &Whole) {
        let words = self.of_words([from.uri.as_bytes(), room.as_bytes()], [self.who(from), self.who(to)], message);
        self.write(words, || {});
    }

    /// Queues entries; `done` runs when they are on disk, or will never be.
    pub(crate) fn write(&self, entries: Vec<HistoryEntry>, done: impl FnOnce() + Send + 'static) {
        if entries.is_empty() {
            return done();
        }
        let cap = self.is_due(&entries).then_some(self.parts.max_messages);
        let (counts, count) = (self.counts.clone(), entries.len() as u64);
        let written = move |result: Result<(), StoreError>| {
            match result {
                Ok(()) => counts.kept.fetch_add(count, Relaxed),
                Err(error) => {
                    tracing::warn!(%error, "messages are missing in histories");
                    counts.lost.fetch_add(count, Relaxed)
                }
            };
            done();
        };
        self.parts.store.put(entries, cap, Box::new(written));
    }

    /// Whether one of the owners may have gone over the cap since that was looked at.
    fn is_due(&self, entries: &[HistoryEntry]) -> bool {
        let mut unlooked = self.unlooked.lock();
        if unlooked.len() >= MAX_UNLOOKED {
            unlooked.clear();
        }
        let counts = entries.iter().map(|entry| {
            let count = unlooked.entry(entry.owner.clone()).or_insert(SLACK - 1);
            *count += 1;
            *count
        });
        let due = counts.max().is_some_and(|most| most >= SLACK);
        if due {
            entries.iter().for_each(|entry| _ = unlooked.insert(entry.owner.clone(), 0));
        }
        due
    }

    fn of_words(&self, [from, call_id]: [&[u8]; 2], ends: [Side; 2], message: &Whole) -> Vec<HistoryEntry> {
        if !self.is_wanted(&ends) {
            return Vec::new();
        }
        let Some(content) = Content::of(&message.content_type, &message.body) else { return Vec::new() };
        self.entries(ends, self.key([from, call_id], message), &content)
    }

    /// By what a message is known in a session.
    fn key(&self, [from, session]: [&[u8]; 2], message: &Whole) -> [u8; 16] {
        let from = NameAddr::parse(from).map_or(from, |a| a.addr);
        let named = Cpim::parse(&message.body).ok().filter(|_| is_cpim(&message.content_type));
        let key = named.and_then(|cpim| letter::named(from, &cpim));
        key.unwrap_or_else(|| letter::hashed(&[session, from, &message.message_id, &message.body]))
    }

    fn entries(&self, [from, to]: [Side; 2], key: [u8; 16], content: &Content) -> Vec<HistoryEntry> {
        let at = (self.parts.unix_ms)();
        [(&from, &to, true), (&to, &from, false)]
            .into_iter()
            .filter_map(|(owner, peer, outgoing)| {
                let peer = if peer.hidden { ANONYMOUS } else { &peer.uri };
                self.entry(owner.user.as_deref()?, (peer, outgoing), key, at, content)
            })
            .collect()
    }

    /// What one user keeps, if they keep anything.
    fn entry(
        &self,
        owner: &User,
        (peer, outgoing): (&str, bool),
        key: [u8; 16],
        at: u64,
        content: &Content,
    ) -> Option<HistoryEntry> {
        let days = self.days(Some(owner));
        (days > 0).then(|| HistoryEntry {
            owner: owner.aor.clone(),
            peer: peer.to_owned(),
            speaker: String::new(),
            outgoing,
            at: at as i64,
            key,
            media_type: content.media_type.clone(),
            message_id: content.message_id.clone(),
            body: content.body.clone(),
            expires_at: (at / 1_000 + u64::from(days) * DAY) as i64,
        })
    }

    /// Whether either wants it kept.
    fn is_wanted(&self, ends: &[Side; 2]) -> bool {
        ends.iter().any(|side| self.days(side.user.as_deref()) > 0)
    }

    /// For how long anything is kept for them.
    fn days(&self, user: Option<&User>) -> u32 {
        user.map_or(0, |user| user.history_days.min(self.parts.max_days))
    }

    /// The first of several identities of one user (RFC 3325 §9.1).
    fn believed(&self, identities: &[u8]) -> Side {
        self.side(list(identities).next().unwrap_or_default())
    }

    /// Somebody in a room. Whoever only says who they are writes into no history.
    fn who(&self, who: &Who) -> Side {
        let side = self.side(who.uri.as_bytes());
        if who.known { side } else { Side { user: None, ..side } }
    }

    /// Who is meant. `text`: as for [`History::peer`].
    fn named(&self, text: &str) -> Side {
        match text {
            number if number.starts_with('+') => self.side(format!("tel:{number}").as_bytes()),
            bare if bare.contains('@') && !bare.contains(':') => self.side(format!("sip:{bare}").as_bytes()),
            other => self.side(other.as_bytes()),
        }
    }

    /// Who an address names.
    fn side(&self, address: &[u8]) -> Side {
        let HistoryParts { home, directory, .. } = &self.parts;
        let addr = NameAddr::parse(address).map_or(address, |a| a.addr);
        let shown = || printable(&String::from_utf8_lossy(addr));
        let Some(uri) = Uri::parse(addr) else { return Side { uri: shown(), user: None, hidden: false } };
        let ours = home.is_domain(uri.host()) || home.is_us(&uri);
        let user = match uri.scheme() {
            Scheme::Tel => Msisdn::of(&uri).and_then(|number| directory.by_msisdn(number)),
            _ if ours => uri.user().and_then(|user| directory.by_parts(user, home.domain().as_bytes())),
            _ => None,
        };
        if let Some(user) = &user {
            return Side::of(user);
        }
        // A room at one of our addresses is one of our domain.
        let aor = || home.aor(&uri).or_else(|| Aor::from_parts(uri.user()?, uri.host()).ok());
        let uri = match uri.scheme() {
            Scheme::Tel => Msisdn::of(&uri).map(|number| format!("tel:{number}")),
            Scheme::Sip | Scheme::Sips => aor().map(|aor| format!("sip:{aor}")),
            _ => None,
        };
        Side { uri: uri.unwrap_or_else(shown), user, hidden: false }
    }
}

impl Archive for History {
    fn wants(&self, sender: &Caller, addressee: Option<&Arc<User>>) -> bool {
        let sends = match sender {
            Caller::User(user) => self.days(Some(user)) > 0,
            // It may name one of ours.
            Caller::Trusted => self.parts.max_days > 0,
            Caller::Foreign => false,
        };
        sends || self.days(addressee.map(|user| &**user)) > 0
    }

    fn said(&self, message: &Message<'_>, sender: &Caller, addressee: Option<&Arc<User>>) {
        self.write(self.of_message(message, sender, addressee), || {});
    }
}

impl TextArchive for History {
    fn keeps_for(&self, user: &User) -> bool {
        self.days(Some(user)) > 0
    }

    fn texted(&self, Texted { from, to, key, text }: Texted, done: Box<dyn FnOnce() + Send>) {
        // As of everything, nobody would read nothing again.
        if text.is_empty() {
            return done();
        }
        let from = match from {
            TextedBy::User(user) => Side::of(&user),
            TextedBy::Named(name) => Side { user: None, ..self.named(&name) },
        };
        let to = self.named(&to.to_string());
        let media_type = "text/plain;charset=UTF-8".to_owned();
        let content = Content { media_type, message_id: String::new(), body: text.into_bytes() };
        self.write(self.entries([from, to], key, &content), done);
    }
}

/// One side of a session.
struct Overheard {
    history: Arc<History>,
    ends: [Side; 2],
    /// As the session names who speaks.
    from: Box<[u8]>,
    call_id: Box<[u8]>,
}

impl Listener for Overheard {
    fn heard(&self, message: Whole) {
        let entries = self.history.of_words([&self.from, &self.call_id], self.ends.clone(), &message);
        self.history.write(entries, || {});
    }
}

impl Side {
    fn of(user: &Arc<User>) -> Side {
        Side { uri: format!("sip:{}", user.aor), user: Some(user.clone()), hidden: false }
    }
}

impl Content {
    /// `None`: nothing that anybody would read again, or too long.
    fn of(content_type: &[u8], body: &[u8]) -> Option<Content> {
        let written = String::from_utf8_lossy(content_type);
        let cpim = Cpim::parse(body).ok().filter(|_| is_cpim(content_type));
        let (media_type, body) = match &cpim {
            Some(cpim) => {
                let encoding = cpim.mime("Content-Transfer-Encoding").unwrap_or_default();
                (cpim.content_type().unwrap_or("text/plain"), decoded(encoding, cpim.content))
            }
            None => (&*written, body.into()),
        };
        let fleeting = [IMDN_TYPE, IS_COMPOSING_TYPE].contains(&&*essence(media_type));
        if fleeting || body.is_empty() || body.len() > MAX_CONTENT {
            return None;
        }
        let message_id = cpim.as_ref().and_then(Cpim::message_id).unwrap_or_default().to_owned();
        Some(Content { media_type: printable(media_type), message_id, body: body.into_owned() })
    }
}

fn is_cpim(content_type: &[u8]) -> bool {
    essence(&String::from_utf8_lossy(content_type)) == CPIM_TYPE
}

/// Letters of an address or a type that are kept.
const MAX_TEXT: usize = 1_000;

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use sip_ims::history::{HistoryId, HistoryPart};
    use sip_ims::ports::Done;

    use super::*;
    use crate::fakes::{NOW, home, user};

    /// Keeps what it is given, and with which cap.
    #[derive(Default)]
    struct Kept(Mutex<Vec<(Vec<HistoryEntry>, Option<u32>)>>);

    impl HistoryStore for Kept {
        fn put(&self, entries: Vec<HistoryEntry>, cap: Option<u32>, done: Done<()>) {
            self.0.lock().push((entries, cap));
            done(Ok(()));
        }

        fn page(
            &self,
            _: HistoryPart,
            _: Option<(i64, HistoryId)>,
            _: u32,
            done: Done<Vec<(HistoryId, HistoryEntry)>>,
        ) {
            done(Ok(Vec::new()));
        }

        fn remove(&self, _: HistoryPart, done: Done<u64>) {
            done(Ok(0));
        }

        fn expire(&self, _: i64, _: u32, done: Done<u64>) {
            done(Ok(0));
        }
    }

    fn wanting(id: &str, number: Option<&str>, days: u32) -> Arc<User> {
        Arc::new(User { history_days: days, ..(*user(id, number)).clone() })
    }

    fn history() -> (Arc<History>, Arc<Kept>, [Arc<User>; 2]) {
        let (store, directory) = (Arc::<Kept>::default(), Arc::new(Directory::new()));
        let users = [wanting("alice", Some("+819012345678"), 100), wanting("bob", None, 7)];
        users.iter().for_each(|user| _ = directory.put((**user).clone()));
        let parts = HistoryParts {
            store: store.clone(),
            home: home(),
            directory,
            unix_ms: || NOW * 1_000 + 42,
            max_days: 30,
            max_messages: 1_000,
        };
        (History::new(parts), store, users)
    }

    fn message(headers: &str, body: &str) -> String {
        format!(
            "MESSAGE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nMax-Forwards: 7\r\n\
             From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: c1\r\nCSeq: 3 MESSAGE\r\n\
             {headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn entries(headers: &str, body: &str, sender: Caller) -> Vec<HistoryEntry> {
        let (history, _, [_, bob]) = history();
        let text = message(headers, body);
        history.of_message(&Message::parse(text.as_bytes()).unwrap(), &sender, Some(&bob))
    }

    const PLAIN: &str = "Content-Type: text/plain\r\n";

    #[test]
    fn each_keeps_it_for_as_long_as_they_want_and_the_operator_allows() {
        let (_, _, [alice, _]) = history();
        let both = entries(PLAIN, "hello", Caller::User(alice));
        let told = |e: &HistoryEntry| (e.owner.to_string(), e.peer.clone(), e.outgoing, e.expires_at - NOW as i64);
        let (a, b) = ("alice@example.com", "bob@example.com");
        let day = DAY as i64;
        assert_eq!(told(&both[0]), (a.into(), format!("sip:{b}"), true, 30 * day));
        assert_eq!(told(&both[1]), (b.into(), format!("sip:{a}"), false, 7 * day));
        assert_eq!((both.len(), both[0].at, both[0].key), (2, NOW as i64 * 1_000 + 42, both[1].key));
        let nobody = wanting("carol", None, 0);
        assert_eq!(entries(PLAIN, "hello", Caller::User(nobody)).len(), 1);
    }

    #[test]
    fn who_wants_to_stay_unknown_is_unknown_to_the_other() {
        let (_, _, [alice, _]) = history();
        let hidden = entries(&format!("Privacy: id\r\n{PLAIN}"), "hello", Caller::User(alice));
        let peers: Vec<&str> = hidden.iter().map(|e| &*e.peer).collect();
        assert_eq!(peers, ["sip:bob@example.com", ANONYMOUS]);
    }

    #[test]
    fn a_sender_is_who_was_believed() {
        let asserted = format!("P-Asserted-Identity: <tel:+81-90-1234-5678>, <sip:x@y>\r\n{PLAIN}");
        let believed = entries(&asserted, "hello", Caller::Trusted);
        assert_eq!((believed.len(), &*believed[1].peer), (2, "sip:alice@example.com"));
        // Whoever claims to be her writes nothing into her history.
        let claimed = entries(&asserted, "hello", Caller::Foreign);
        assert_eq!((claimed.len(), claimed[0].outgoing), (1, false));
    }

    #[test]
    fn what_nobody_reads_again_is_not_kept() {
        let kept = |content_type: &str, body: &str| {
            entries(&format!("Content-Type: {content_type}\r\n"), body, Caller::Foreign).pop()
        };
        assert_eq!(kept("application/im-iscomposing+xml", "<x/>"), None);
        assert_eq!(kept("message/cpim", "From: <sip:a@x>\r\n\r\nContent-Type: message/imdn+xml\r\n\r\n<x/>"), None);
        assert_eq!(kept("text/plain", ""), None);
        assert_eq!(kept("text/plain", &"x".repeat(MAX_CONTENT + 1)), None);
        let encoded =
            "From: <sip:a@x>\r\n\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=";
        let entry = kept("message/cpim", encoded).unwrap();
        assert_eq!((&*entry.media_type, &*entry.body), ("text/html", &b"hello"[..]));
    }

    #[test]
    fn a_message_sent_again_has_its_key_whichever_way_it_comes() {
        let body = "From: <sip:x@y>\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: m1\r\n\r\n\
                    Content-Type: text/plain\r\n\r\nhello";
        let (history, ..) = history();
        let by_message = entries("Content-Type: message/cpim\r\n", body, Caller::Foreign);
        let whole = |id: &str, body: &str| Whole {
            message_id: id.as_bytes().into(),
            content_type: b"message/cpim".as_slice().into(),
            body: body.into(),
        };
        let by_session = |message: &Whole| {
            let from = b"<sip:alice@example.com>;tag=9";
            history.of_session(from, None, "sip:bob@example.com", b"c2", message)[0].key
        };
        assert_eq!(by_session(&whole("one", body)), by_message[0].key);
        // Without a name of its own it is what its session says it is.
        let plain = body.replace("imdn.Message-ID", "imdn.X");
        assert_eq!(by_session(&whole("one", &plain)), by_session(&whole("one", &plain)));
        assert_ne!(by_session(&whole("one", &plain)), by_session(&whole("two", &plain)));
    }

    #[test]
    fn peers_are_called_the_same_however_they_are_written() {
        let (history, ..) = history();
        for (text, peer) in [
            ("bob@example.com", "sip:bob@example.com"),
            ("<sips:bob@EXAMPLE.com;x=y>", "sip:bob@example.com"),
            ("+81-90-1234-5678", "sip:alice@example.com"),
            ("tel:+1-202-555-0100", "tel:+12025550100"),
            ("sip:carol@elsewhere.test:5070", "sip:carol@elsewhere.test"),
            ("im:dave@x", "im:dave@x"),
            ("5555", "5555"),
            ("Fleet", "Fleet"),
        ] {
            assert_eq!(history.peer(text), peer, "{text}");
        }
    }

    #[test]
    fn a_short_message_is_in_both_histories_but_a_number_proves_nothing() {
        let (history, store, [alice, _]) = history();
        let alices: Msisdn = "+819012345678".parse().unwrap();
        let text = |from, to: Msisdn| Texted { from, to, key: [7; 16], text: "hello".into() };
        history.texted(text(TextedBy::User(alice.clone()), "+12025550100".parse().unwrap()), Box::new(|| {}));
        history.texted(text(TextedBy::User(alice), alices), Box::new(|| {}));
        history.texted(text(TextedBy::Named(alices.to_string().into()), alices), Box::new(|| {}));
        let kept = store.0.lock();
        let told: Vec<Vec<_>> = kept.iter().map(|(k, _)| k.iter().map(|e| (&*e.peer, e.outgoing)).collect()).collect();
        let herself = "sip:alice@example.com";
        let expected =
            [vec![("tel:+12025550100", true)], vec![(herself, true), (herself, false)], vec![(herself, false)]];
        assert_eq!(told, expected);
    }

    #[test]
    fn the_cap_is_looked_at_now_and_then() {
        let (history, store, [alice, _]) = history();
        let text = message(PLAIN, "hello");
        let message = Message::parse(text.as_bytes()).unwrap();
        for _ in 0..=SLACK {
            history.said(&message, &Caller::User(alice.clone()), None);
        }
        let caps: Vec<_> = store.0.lock().iter().map(|(_, cap)| *cap).collect();
        let looked: Vec<usize> = (0..caps.len()).filter(|i| caps[*i] == Some(1_000)).collect();
        assert_eq!(looked, [0, SLACK as usize], "at the first, and when there may be too many");
    }
}
