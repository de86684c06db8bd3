//! The house around the pager, in memory, for tests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use sip_ims::ports::{Done, MessageId, MessageQueue, QueuedMessage, StoreError};
use sip_ims::service::{
    Caller, Chronicle, Location, NextHops, Note, NoteEvent, OnOutcome, Outcome, Outlet, Reach, Request, Transaction,
};
use sip_ims::{Aor, CallSettings, DigestSecrets, Home, User};
use sip_proto::build::{Response, Writer};
use sip_proto::uri::Uri;
use sip_proto::{Flow, FlowId, Hop, Message, Transport};

/// Tue, 14 Nov 2023 22:13:20 GMT.
pub const NOW: u64 = 1_700_000_000;

pub fn flow() -> Flow {
    Flow {
        transport: Transport::Udp,
        id: FlowId(1),
        local: "127.0.0.1:5060".parse().unwrap(),
        remote: "192.0.2.1:5060".parse().unwrap(),
    }
}

pub fn home() -> Arc<Home> {
    Arc::new(Home::new("example.com", [(Transport::Udp, "127.0.0.1:5060".parse().unwrap())]))
}

pub fn user(id: &str, number: Option<&str>) -> Arc<User> {
    Arc::new(User {
        id: id.into(),
        aor: format!("{id}@example.com").parse().unwrap(),
        secrets: DigestSecrets { ha1_md5: [0; 16], ha1_sha256: [0; 32], aka: None, full: None },
        msisdn: number.map(|n| n.parse().unwrap()),
        email: None,
        jid: None,
        roles: Vec::new(),
        call_settings: CallSettings::default(),
        history_days: 0,
    })
}

/// Shows `text` as a request for `bob@example.com`, who is a user of ours.
pub fn with_request<R>(text: &str, caller: Caller, run: impl FnOnce(&Request<'_>) -> R) -> R {
    let message = Message::parse(text.as_bytes()).unwrap();
    let flow = flow();
    run(&Request {
        message: &message,
        flow: &flow,
        uri: Uri::parse(message.request_uri()).unwrap(),
        caller,
        callee: Some("bob@example.com".parse().unwrap()),
        profile: Some(user("bob", None)),
    })
}

#[derive(Default)]
pub struct Queue {
    pub rows: Mutex<BTreeMap<u64, QueuedMessage>>,
    ids: AtomicU64,
    /// Commits wait here while `hold` is set.
    pub held: Mutex<Vec<(QueuedMessage, Done<MessageId>)>>,
    pub hold: AtomicBool,
    pub refuse: Mutex<Option<StoreError>>,
    pub drops: AtomicBool,
    pub remove_fails: AtomicBool,
    pub reads: AtomicUsize,
}

impl Queue {
    fn insert(&self, message: QueuedMessage) -> MessageId {
        let mut rows = self.rows.lock();
        if let Some((id, _)) = rows.iter().find(|(_, m)| (&m.aor, m.key) == (&message.aor, message.key)) {
            return MessageId(*id);
        }
        let id = self.ids.fetch_add(1, Relaxed) + 1;
        rows.insert(id, message);
        MessageId(id)
    }

    /// Lets the held commits happen.
    pub fn commit(&self) {
        for (message, done) in std::mem::take(&mut *self.held.lock()) {
            done(Ok(self.insert(message)));
        }
    }
}

impl MessageQueue for Queue {
    fn put(&self, message: QueuedMessage, done: Done<MessageId>) {
        if self.drops.load(Relaxed) {
            return;
        }
        if let Some(error) = self.refuse.lock().clone() {
            return done(Err(error));
        }
        if self.hold.load(Relaxed) {
            return self.held.lock().push((message, done));
        }
        done(Ok(self.insert(message)));
    }

    fn pending(&self, aor: &Aor, after: MessageId, limit: u32, done: Done<Vec<(MessageId, QueuedMessage)>>) {
        self.reads.fetch_add(1, Relaxed);
        let rows = self.rows.lock();
        let of_user = rows.range(after.0 + 1..).filter(|(_, m)| m.aor == *aor);
        done(Ok(of_user.take(limit as usize).map(|(id, m)| (MessageId(*id), m.clone())).collect()));
    }

    fn addressees(&self, after: &str, limit: u32, done: Done<Vec<Aor>>) {
        let all: BTreeSet<Aor> = self.rows.lock().values().map(|m| m.aor.clone()).collect();
        done(Ok(all.into_iter().filter(|aor| aor.as_str() > after).take(limit as usize).collect()));
    }

    fn remove(&self, id: MessageId, done: Done<bool>) {
        if self.remove_fails.load(Relaxed) {
            return done(Err(StoreError::Full));
        }
        done(Ok(self.rows.lock().remove(&id.0).is_some()));
    }

    fn overdue(&self, now: i64, after: MessageId, limit: u32, done: Done<Vec<(MessageId, QueuedMessage)>>) {
        let rows = self.rows.lock();
        let over = rows.range(after.0 + 1..).filter(|(_, m)| m.expires_at < now);
        done(Ok(over.take(limit as usize).map(|(id, m)| (MessageId(*id), m.clone())).collect()));
    }

    fn expire(&self, now: i64, done: Done<u64>) {
        let mut rows = self.rows.lock();
        let before = rows.len();
        rows.retain(|_, m| m.expires_at >= now);
        done(Ok((before - rows.len()) as u64));
    }
}

/// A binding: address-of-record, contact, preference, instance, hop.
pub type Bound = (&'static str, &'static str, u16, &'static str, Option<Hop>);

#[derive(Default)]
pub struct Bindings(pub Mutex<Vec<Bound>>);

impl Bindings {
    pub fn add(&self, aor: &'static str, contact: &'static str, q: u16, instance: &'static str) {
        let port = 6000 + self.0.lock().len() as u16;
        let hop = Hop::Address { transport: Transport::Udp, remote: ([192, 0, 2, 9], port).into() };
        let mut all = self.0.lock();
        all.push((aor, contact, q, instance, Some(hop)));
        all.sort_by_key(|b| std::cmp::Reverse(b.2));
    }
}

impl Location for Bindings {
    fn each(&self, aor: &str, _: u64, show: &mut dyn FnMut(&Reach<'_>)) {
        for (_, uri, q, instance, hop) in self.0.lock().iter().filter(|b| b.0 == aor) {
            let (uri, instance) = (uri.as_bytes(), instance.as_bytes());
            show(&Reach { uri, path: b"", hop: *hop, elsewhere: None, q: *q, instance, params: b"" });
        }
    }

    fn failed(&self, aor: &str, way: &Reach<'_>) {
        self.0.lock().retain(|b| (b.0, b.1.as_bytes()) != (aor, way.uri));
    }

    fn authenticated(&self, _: &Flow, _: &User) -> bool {
        false
    }
}

/// What phones answer, in the order of asking; with nothing prepared, 200. Every answer takes a second.
#[derive(Default)]
pub struct Phones {
    pub script: Mutex<VecDeque<Outcome>>,
    pub requests: Mutex<Vec<(Hop, String)>>,
    pub answers: Mutex<Vec<(Transaction, u16, String)>>,
    /// Requests under way now, and the most there were of one Request-URI at a time.
    busy: Mutex<BTreeMap<String, usize>>,
    pub most: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Phones {
    pub fn will(&self, statuses: impl IntoIterator<Item = u16>) {
        self.script.lock().extend(statuses.into_iter().map(outcome));
    }

    /// `uri body` of each request so far.
    pub fn got(&self) -> Vec<String> {
        let read = |(_, text): &(Hop, String)| {
            let m = Message::parse(text.as_bytes()).unwrap();
            format!("{} {}", String::from_utf8_lossy(m.request_uri()), String::from_utf8_lossy(m.body()))
        };
        self.requests.lock().iter().map(read).collect()
    }

    pub fn answered(&self) -> Vec<u16> {
        self.answers.lock().iter().map(|a| a.1).collect()
    }
}

fn outcome(status: u16) -> Outcome {
    match status {
        0 => Outcome::Timeout,
        1 => Outcome::Unreachable,
        _ => Outcome::Response { status, bytes: format!("SIP/2.0 {status} x\r\n\r\n").into_bytes().into() },
    }
}

/// The outlet, made of phones. Needs a runtime: answers come later.
pub struct Stack(pub Arc<Phones>);

impl Outlet for Stack {
    fn send(&self, _: Hop, _: &[u8]) {}

    fn answer(&self, transaction: Transaction, status: u16, extra: &dyn Fn(&mut Writer<'_>)) {
        let request = Message::parse(b"MESSAGE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP a\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        Response::to(&request, status).write(&mut bytes, |w| extra(w));
        self.0.answers.lock().push((transaction, status, String::from_utf8(bytes).unwrap()));
    }

    fn request(&self, hop: Hop, bytes: Vec<u8>, done: OnOutcome) {
        let phones = self.0.clone();
        let user = String::from_utf8_lossy(Message::parse(&bytes).unwrap().request_uri()).into_owned();
        phones.requests.lock().push((hop, String::from_utf8(bytes).unwrap()));
        let outcome = phones.script.lock().pop_front().unwrap_or_else(|| outcome(200));
        {
            let mut busy = phones.busy.lock();
            let now = busy.entry(user.clone()).or_default();
            *now += 1;
            let mut most = phones.most.lock();
            let top = most.entry(user.clone()).or_default();
            *top = (*top).max(*now);
        }
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if let Some(n) = phones.busy.lock().get_mut(&user) {
                *n -= 1;
            }
            done(outcome);
        });
    }
}

/// Every name leads to one address.
pub struct OneAddress;

impl NextHops for OneAddress {
    fn next_hops(&self, uri: &[u8], done: Box<dyn FnOnce(Vec<Hop>) + Send>) {
        let known = Uri::parse(uri).is_some_and(|u| u.host() == b"phone.example.com");
        let hop = Hop::Address { transport: Transport::Tcp, remote: "192.0.2.77:5060".parse().unwrap() };
        done(if known { vec![hop] } else { Vec::new() });
    }
}

#[derive(Default)]
pub struct Notes(pub Mutex<Vec<(String, NoteEvent, u16)>>);

impl Chronicle for Notes {
    fn note(&self, note: &Note<'_>) {
        self.0.lock().push((String::from_utf8_lossy(note.trace).into_owned(), note.event, note.status));
    }
}
