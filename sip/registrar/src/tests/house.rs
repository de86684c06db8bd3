//! A registrar with a store, a stack and phones that exist in memory only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_ims::authenticate::AuthenticatorConfig;
use sip_ims::ports::{BindingChange, BindingRow, BindingStore, Done, EachAor, StoreError};
use sip_ims::service::{Caller, Location, OnOutcome, Outcome, Outlet, Request, Service, Step, Transaction, Verdict};
use sip_ims::user::{CallSettings, DigestSecrets};
use sip_ims::{Authenticator, Directory, Home, User};
use sip_proto::build::Writer;
use sip_proto::endpoint::{Endpoint, EndpointConfig};
use sip_proto::transaction::Timing;
use sip_proto::uri::Uri;
use sip_proto::{Flow, FlowId, HeaderName, Hop, Message, Outbox, Transport};

use crate::events::Job;
use crate::{Acknowledge, Arrival, Parts, Registrar, RegistrarConfig};

pub const START: u64 = 1_800_000_000;

/// A stored row: its binding as the registrar gave it.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    pub contact: String,
    pub params: String,
    pub path: String,
    pub instance: String,
    pub call_id: String,
    pub user_agent: String,
    pub node: String,
    pub flow: Option<Flow>,
    pub expires_at: i64,
    pub cseq: u32,
    pub reg_id: u32,
    pub q: u16,
}

impl Row {
    fn of(row: &BindingRow<'_>) -> Row {
        Row {
            contact: row.contact.into(),
            params: row.params.into(),
            path: row.path.into(),
            instance: row.instance.into(),
            call_id: row.call_id.into(),
            user_agent: row.user_agent.into(),
            node: row.node.into(),
            flow: row.flow,
            expires_at: row.expires_at,
            cseq: row.cseq,
            reg_id: row.reg_id,
            q: row.q,
        }
    }

    fn lend<'a>(&'a self, aor: &'a str, key: &'a str) -> BindingRow<'a> {
        BindingRow {
            aor,
            key,
            contact: &self.contact,
            params: &self.params,
            path: &self.path,
            instance: &self.instance,
            call_id: &self.call_id,
            user_agent: &self.user_agent,
            node: &self.node,
            flow: self.flow,
            expires_at: self.expires_at,
            cseq: self.cseq,
            reg_id: self.reg_id,
            q: self.q,
        }
    }
}

enum Owned {
    Put(String, String, Box<Row>),
    Remove(String, String),
    RemoveAll(String),
    Forget(String, String, String),
}

/// A store whose writes wait until they are let through.
#[derive(Default)]
pub struct Store {
    queue: Mutex<VecDeque<(Owned, Option<Done<()>>)>>,
    pub rows: Mutex<BTreeMap<(String, String), Row>>,
    pub full: AtomicBool,
    /// Addresses-of-record whose rows another node has removed.
    pub gone: Mutex<Vec<String>>,
}

impl Store {
    /// Commits what is queued, or fails it.
    pub fn commit(&self, result: Result<(), StoreError>) {
        loop {
            let Some((change, done)) = self.queue.lock().pop_front() else { return };
            if result.is_ok() {
                let mut rows = self.rows.lock();
                match change {
                    Owned::Put(aor, key, row) => drop(rows.insert((aor, key), *row)),
                    Owned::Remove(aor, key) => drop(rows.remove(&(aor, key))),
                    Owned::RemoveAll(aor) => rows.retain(|(a, _), _| *a != aor),
                    Owned::Forget(aor, key, node) => {
                        rows.retain(|(a, k), r| *a != aor || *k != key || *r.node != *node)
                    }
                }
            }
            if let Some(done) = done {
                done(result.clone());
            }
        }
    }

    /// Commits what is queued, and says that it failed.
    pub fn commit_unheard(&self, error: StoreError) {
        let mut done = Vec::new();
        for (_, told) in self.queue.lock().iter_mut() {
            done.extend(told.take());
        }
        self.commit(Ok(()));
        done.into_iter().for_each(|done| done(Err(error.clone())));
        self.commit(Ok(()));
    }

    /// Takes the oldest change out of the queue; gives what tells of its fate.
    pub fn take(&self) -> Done<()> {
        self.queue.lock().pop_front().and_then(|(_, done)| done).expect("somebody waits for a change")
    }

    pub fn keys(&self) -> Vec<String> {
        self.rows.lock().keys().map(|(_, key)| key.clone()).collect()
    }
}

impl BindingStore for Store {
    fn write(&self, change: BindingChange<'_>, done: Option<Done<()>>) -> Result<(), StoreError> {
        if self.full.load(Relaxed) {
            return Err(StoreError::Full);
        }
        let change = match change {
            BindingChange::Put(row) => Owned::Put(row.aor.into(), row.key.into(), Box::new(Row::of(&row))),
            BindingChange::Remove { aor, key } => Owned::Remove(aor.into(), key.into()),
            BindingChange::RemoveAll { aor } => Owned::RemoveAll(aor.into()),
            BindingChange::Forget { aor, key, node } => Owned::Forget(aor.into(), key.into(), node.into()),
        };
        self.queue.lock().push_back((change, done));
        Ok(())
    }

    fn load(&self, mut each: Box<dyn FnMut(BindingRow<'_>) + Send>, done: Done<u64>) {
        let rows = self.rows.lock().clone();
        for ((aor, key), row) in &rows {
            each(row.lend(aor, key));
        }
        done(Ok(rows.len() as u64));
    }

    /// Everything, with what is queued committed first: as if another node had changed it all. An address-of-record
    /// that has no row any more is lent when it stands in `also`.
    fn changed_elsewhere(&self, also: Vec<Box<str>>, mut each: EachAor, done: Done<u64>) {
        self.commit(Ok(()));
        let rows = self.rows.lock().clone();
        let mut aors: BTreeSet<&str> = rows.keys().map(|(aor, _)| &**aor).collect();
        let gone = self.gone.lock().clone();
        aors.extend(also.iter().map(|a| &**a).chain(gone.iter().map(|a| &**a)));
        for aor in &aors {
            let of = rows.iter().filter(|((a, _), _)| a == aor);
            let of: Vec<BindingRow<'_>> = of.map(|((a, key), row)| row.lend(a, key)).collect();
            each(aor, &of);
        }
        done(Ok(aors.len() as u64));
    }

    fn queued(&self) -> usize {
        self.queue.lock().len()
    }
}

/// A stack that keeps what it is given.
#[derive(Default)]
pub struct Stack {
    pub sent: Mutex<Vec<String>>,
    pub requests: Mutex<Vec<(Hop, String, OnOutcome)>>,
}

impl Outlet for Stack {
    fn send(&self, _hop: Hop, bytes: &[u8]) {
        self.sent.lock().push(String::from_utf8(bytes.to_vec()).unwrap());
    }

    fn answer(&self, _: Transaction, _: u16, _: &dyn Fn(&mut Writer<'_>)) {
        panic!("the registrar defers nothing");
    }

    fn request(&self, hop: Hop, bytes: Vec<u8>, done: OnOutcome) {
        self.requests.lock().push((hop, String::from_utf8(bytes).unwrap(), done));
    }
}

pub struct House {
    pub registrar: Arc<Registrar>,
    pub store: Arc<Store>,
    pub stack: Arc<Stack>,
    pub arrivals: Arc<Mutex<Vec<(String, Arrival)>>>,
    pub penalties: Arc<Mutex<u32>>,
    jobs: Receiver<Job>,
    endpoint: Endpoint,
    begin: Instant,
    pub unix: u64,
    pub caller: Caller,
}

/// The flow of a phone; UDP unless the transport says otherwise.
pub fn flow(transport: Transport, id: u64, remote: &str) -> Flow {
    Flow { transport, id: FlowId(id), local: "192.0.2.1:5060".parse().unwrap(), remote: remote.parse().unwrap() }
}

pub fn phone() -> Flow {
    flow(Transport::Udp, 1, "192.0.2.9:5062")
}

impl House {
    /// Open to everybody, answering before the store has written.
    pub fn open() -> House {
        House::with(|c| c.store = Acknowledge::Behind, false)
    }

    pub fn with(change: impl FnOnce(&mut RegistrarConfig), digest: bool) -> House {
        let home = Arc::new(Home::new("example.com", [(Transport::Udp, "192.0.2.1:5060".parse().unwrap())]));
        let directory = Arc::new(Directory::new());
        for (id, number) in [("alice", Some("+819012345678")), ("bob", None)] {
            directory.put(User {
                id: id.into(),
                aor: format!("{id}@example.com").parse().unwrap(),
                secrets: DigestSecrets::of_password(id, "example.com", b"wonderland"),
                msisdn: number.map(|n| n.parse().unwrap()),
                email: None,
                jid: None,
                roles: Vec::new(),
                call_settings: CallSettings::default(),
                history_days: 0,
            });
        }
        let authenticator = digest.then(|| {
            Arc::new(Authenticator::new(AuthenticatorConfig::new([5; 32], 1), home.clone(), directory.clone()))
        });
        let (store, stack) = (Arc::new(Store::default()), Arc::new(Stack::default()));
        let arrivals: Arc<Mutex<Vec<(String, Arrival)>>> = Arc::default();
        let penalties: Arc<Mutex<u32>> = Arc::default();
        let (told, points) = (arrivals.clone(), penalties.clone());
        let mut config = RegistrarConfig { node: "n1".into(), key: [6; 32], ..RegistrarConfig::default() };
        change(&mut config);
        let parts = Parts {
            home,
            directory,
            store: store.clone(),
            authenticator,
            on_changed: Arc::new(|_, _| {}),
            on_registered: Arc::new(move |aor, _, arrival| told.lock().push((aor.into(), arrival))),
            penalise: Arc::new(move |_, n| *points.lock() += n),
            filters: Arc::default(),
        };
        let registrar = Arc::new(Registrar::new(config, parts));
        // No thread: jobs are worked on by `work`.
        let jobs = registrar.watchers.take_queue().unwrap();
        assert!(registrar.outlet.set(stack.clone()).is_ok());
        // The pure floors' clock is made up; only differences count.
        let begin = Instant::now();
        let config = EndpointConfig { timing: Timing::default(), shard: 0, max_transactions: 100, secret: [7; 16] };
        House {
            registrar,
            store,
            stack,
            arrivals,
            penalties,
            jobs,
            endpoint: Endpoint::new(config, begin),
            begin,
            unix: START,
            caller: Caller::Foreign,
        }
    }

    pub fn now(&self) -> Instant {
        self.begin + Duration::from_secs(self.unix - START)
    }

    /// Lets seconds pass, with one tick at their end.
    pub fn pass(&mut self, seconds: u64) {
        self.unix += seconds;
        self.registrar.tick(self.now(), self.unix);
        self.work();
    }

    /// Shows a request to the registrar; gives the responses that came out of the step.
    pub fn request(&mut self, flow: &Flow, text: &str) -> Vec<String> {
        let message = Message::parse(text.as_bytes()).unwrap();
        assert_eq!(sip_proto::validate::request(&message), Ok(()), "{text}");
        let uri = Uri::parse(message.request_uri()).unwrap();
        let callee = self.registrar.parts.home.aor(&uri);
        let profile = callee.as_ref().and_then(|a| self.registrar.parts.directory.by_aor(a.as_str()));
        let request = Request { message: &message, flow, uri, caller: self.caller.clone(), callee, profile };
        let (now, unix) = (self.now(), self.unix);
        let mut out = Outbox::new();
        let mut step = Step { now, unix, shard: 0, endpoint: &mut self.endpoint, out: &mut out, loaded: false };
        let verdict = self.registrar.request(&mut step, &request);
        let responses: Vec<_> = out.iter().map(|(_, b)| String::from_utf8(b.to_vec()).unwrap()).collect();
        assert_eq!(verdict, Verdict::Taken);
        for response in &responses {
            assert!(sip_proto::validate::response(&Message::parse(response.as_bytes()).unwrap()).is_ok(), "{response}");
        }
        self.work();
        responses
    }

    /// The one response to a REGISTER of alice's phone.
    pub fn register(&mut self, cseq: u32, more: &str) -> String {
        self.register_over(&phone(), cseq, more)
    }

    pub fn register_over(&mut self, flow: &Flow, cseq: u32, more: &str) -> String {
        let mut responses = self.request(flow, &register(flow, "alice", cseq, more));
        assert_eq!(responses.len(), 1, "{responses:?}");
        responses.remove(0)
    }

    /// Does what the thread would do.
    pub fn work(&self) {
        while let Ok(job) = self.jobs.try_recv() {
            self.registrar.watchers.work(&*self.stack, job, self.now(), self.unix);
        }
    }

    /// The next NOTIFY that went out, answered with `status`.
    pub fn notified(&self, status: u16) -> Option<String> {
        self.work();
        let mut requests = self.stack.requests.lock();
        if requests.is_empty() {
            return None;
        }
        let (_, text, done) = requests.remove(0);
        drop(requests);
        done(Outcome::Response { status, bytes: format!("SIP/2.0 {status} X\r\n\r\n").into_bytes().into() });
        self.work();
        Some(text)
    }

    /// The contacts by which alice is reached, best first.
    pub fn contacts(&self) -> Vec<String> {
        self.reaches().into_iter().map(|(contact, _)| contact).collect()
    }

    pub fn reaches(&self) -> Vec<(String, Option<Hop>)> {
        let mut all = Vec::new();
        let mut show = |r: &sip_ims::service::Reach<'_>| all.push((String::from_utf8(r.uri.to_vec()).unwrap(), r.hop));
        self.registrar.each("alice@example.com", self.unix, &mut show);
        all
    }
}

/// A REGISTER with one Via.
pub fn register(flow: &Flow, user: &str, cseq: u32, more: &str) -> String {
    format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/{} {};branch=z9hG4bK{cseq};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:{user}@example.com>;tag=f1\r\nTo: <sip:{user}@example.com>\r\nCall-ID: c1\r\nCSeq: {cseq} REGISTER\r\n\
         {more}Content-Length: 0\r\n\r\n",
        flow.transport.via_token(),
        flow.remote,
    )
}

pub fn status(response: &str) -> u16 {
    Message::parse(response.as_bytes()).unwrap().status()
}

pub fn values(response: &str, name: HeaderName) -> Vec<String> {
    let message = Message::parse(response.as_bytes()).unwrap();
    message.values(name).map(|v| String::from_utf8(v.to_vec()).unwrap()).collect()
}
