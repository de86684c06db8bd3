//! Content control: what comes from the web or from another domain is judged before its addressee gets a byte of it.
//!
//! The rules, and the scanner, are those of [`media_content`], which files over HTTP obey too. Here is known whom they concern and
//! what a message holds ([`pieces`]). Pager messages wait at a [`Gate`] of the proxy's, sessions at an inspector of the switch's
//! ([`session`]).

pub(crate) mod content;
pub(crate) mod pieces;
mod session;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use media_content::{Control, Reason, Verdict};
use media_sdp::file::FileSelector;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use sip_ims::gate::{Admission, Gate};
use sip_ims::service::Caller;
use sip_ims::{Aor, Directory, Home, Msisdn};
use sip_proto::headers::NameAddr;
use sip_proto::uri::{Scheme, Uri};
use sip_proto::{Flow, HeaderName, Message, Transport};
use tokio::runtime::Handle;

use crate::pager::Pager;

/// Messages that wait for their verdict.
const MAX_WAITING: usize = 1_000;
/// A verdict that nobody asked for in this time is forgotten.
const UNASKED: Duration = Duration::from_secs(30);
/// One addressee is told no oftener.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// Addressees of whom it is remembered when they were told.
const MAX_TOLD: usize = 10_000;

/// Whose messages are judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    Nobodys,
    /// What comes by WebSocket, and what comes from another domain.
    Outsiders,
    Everybodys,
}

/// The operator's rules for messages, or for sessions.
pub struct Policy {
    pub whose: Whose,
    pub control: Control,
    /// Addressees hear that something was withheld.
    pub tell: bool,
}

impl Policy {
    fn concerns(&self, outsider: bool) -> bool {
        !self.control.is_idle() && (self.whose == Whose::Everybodys || self.whose == Whose::Outsiders && outsider)
    }
}

/// For whoever audits.
pub struct Withheld<'a> {
    /// `message`, `session`, or `file`.
    pub service: &'static str,
    /// URIs.
    pub sender: &'a str,
    pub addressee: &'a str,
    pub why: &'a Reason,
}

/// Writes the line for whoever audits.
pub type Audit = Box<dyn Fn(&Withheld<'_>) + Send + Sync>;
/// Hands a message in again.
pub type Again = Arc<dyn Fn(&Flow, &[u8]) + Send + Sync>;

/// What content control works with.
pub struct ControlParts {
    pub messages: Policy,
    pub sessions: Policy,
    pub home: Arc<Home>,
    pub directory: Arc<Directory>,
    /// Tells addressees.
    pub pager: Arc<Pager>,
    pub audit: Audit,
    pub runtime: Handle,
}

/// Content control of messages and sessions.
pub struct ContentControl {
    parts: ControlParts,
    again: OnceLock<Again>,
    waiting: Mutex<HashMap<Key, Waiting>>,
    told: Mutex<HashMap<Aor, Instant>>,
    me: Weak<ContentControl>,
}

/// A message as it came, and by which way.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key([u8; 32]);

struct Waiting {
    since: Instant,
    caller: Caller,
    /// Once it is known.
    admission: Option<Admission>,
}

impl ContentControl {
    pub fn new(parts: ControlParts) -> Arc<ContentControl> {
        Arc::new_cyclic(|me| ContentControl {
            parts,
            again: OnceLock::new(),
            waiting: Mutex::default(),
            told: Mutex::default(),
            me: me.clone(),
        })
    }

    /// Ties it to the stack that messages are handed in again to. Once.
    pub fn attach(&self, again: Again) {
        let _ = self.again.set(again);
    }

    /// Whether any message of any session may be judged.
    pub fn concerns_sessions(&self) -> bool {
        self.parts.sessions.concerns(true)
    }

    /// Whether pager messages may be.
    pub fn concerns_messages(&self) -> bool {
        self.parts.messages.concerns(true)
    }

    /// Whether an address is of another domain than ours, or a number that nobody here has.
    pub(crate) fn is_foreign(&self, address: &[u8]) -> bool {
        let ControlParts { home, directory, .. } = &self.parts;
        let is_ours = |uri: &Uri<'_>| match uri.scheme() {
            Scheme::Tel => Msisdn::of(uri).is_some_and(|number| directory.by_msisdn(number).is_some()),
            _ => home.is_domain(uri.host()) || home.is_us(uri),
        };
        !NameAddr::parse(address).and_then(|a| a.uri()).is_some_and(|uri| is_ours(&uri))
    }

    /// What judges one side of a session, if anything does. `from`, `to`: addresses of who sends and who gets. `outsider`: it is
    /// known that the sender is one, by its transport.
    pub(crate) fn of_session(
        self: &Arc<Self>,
        [from, to]: [&[u8]; 2],
        outsider: bool,
        file: Option<&FileSelector<'_>>,
    ) -> Option<Arc<dyn media_msrp::Inspector>> {
        if !self.parts.sessions.concerns(outsider || self.is_foreign(from)) {
            return None;
        }
        Some(session::Session::new(self.clone(), [from, to], file))
    }

    pub(crate) fn withheld(&self, service: &'static str, sender: &str, addressee: &str, why: &Reason) {
        (self.parts.audit)(&Withheld { service, sender, addressee, why });
    }

    /// A pager message does not pass: both sides hear of it.
    fn refuse(&self, message: &Message<'_>, why: &Reason) -> Admission {
        let sender = address(message.value(HeaderName::From).unwrap_or_default());
        let addressee = String::from_utf8_lossy(message.request_uri()).into_owned();
        self.withheld("message", &sender, &addressee, why);
        let aor = Uri::parse(message.request_uri()).and_then(|uri| self.parts.home.aor(&uri));
        if let Some(aor) =
            aor.filter(|aor| self.parts.messages.tell && self.parts.directory.by_aor(aor.as_str()).is_some())
            && self.may_tell(&aor)
        {
            self.parts.pager.announce(&aor, &notice(&sender, why));
        }
        Admission::Refused { status: why.status(), why: why.to_string() }
    }

    fn may_tell(&self, aor: &Aor) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock();
        if told.len() >= MAX_TOLD {
            told.retain(|_, at| now < *at + TOLD_AGAIN);
        }
        let due = told.get(aor).is_none_or(|at| now >= *at + TOLD_AGAIN);
        due && told.len() < MAX_TOLD && {
            told.insert(aor.clone(), now);
            true
        }
    }

    /// Has a message looked at, and then handed in again.
    async fn look(self: Arc<Self>, key: Key, flow: Flow, bytes: Vec<u8>) {
        let admission = match Message::parse(&bytes) {
            Ok(message) => {
                let content_type = message.value(HeaderName::ContentType).unwrap_or_default();
                let text = String::from_utf8_lossy(content_type);
                match pieces::judge(&self.parts.messages.control, &text, message.body()).await {
                    Verdict::Passed => Admission::Passes,
                    Verdict::Refused(why) => self.refuse(&message, &why),
                }
            }
            // It was read before.
            Err(_) => Admission::Refused { status: 400, why: String::new() },
        };
        match self.waiting.lock().get_mut(&key) {
            Some(waiting) => waiting.admission = Some(admission),
            None => return,
        }
        if let Some(again) = self.again.get() {
            again(&flow, &bytes);
        }
    }
}

impl Gate for ContentControl {
    fn admits(&self, flow: &Flow, message: &Message<'_>, caller: &Caller) -> Admission {
        let policy = &self.parts.messages;
        let by_web = matches!(flow.transport, Transport::Ws | Transport::Wss);
        if message.body().is_empty() || !policy.concerns(by_web || self.is_outsider(message, caller)) {
            return Admission::Passes;
        }
        let content_type = message.value(HeaderName::ContentType).unwrap_or_default();
        let allowed = policy.control.admits_size(message.body().len() as u64).and_then(|()| {
            let text = String::from_utf8_lossy(content_type);
            pieces::types(&text, message.body()).iter().try_for_each(|t| policy.control.admits_type(t))
        });
        if let Err(why) = allowed {
            return self.refuse(message, &why);
        }
        if !policy.control.scans() {
            return Admission::Passes;
        }
        let key = key(flow, message);
        let now = Instant::now();
        let mut waiting = self.waiting.lock();
        if waiting.contains_key(&key) {
            // Sent again meanwhile.
            return Admission::Waits;
        }
        if waiting.len() >= MAX_WAITING {
            waiting.retain(|_, w| w.admission.is_none() || now < w.since + UNASKED);
        }
        let me = self.me.upgrade().filter(|_| waiting.len() < MAX_WAITING);
        let Some(me) = me else {
            return Admission::Refused { status: 503, why: "too many messages are looked at".into() };
        };
        waiting.insert(key, Waiting { since: now, caller: caller.clone(), admission: None });
        drop(waiting);
        self.parts.runtime.spawn(me.look(key, *flow, message.bytes().to_vec()));
        Admission::Waits
    }

    fn settled(&self, flow: &Flow, message: &Message<'_>) -> Option<(Caller, Admission)> {
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            return None;
        }
        let key = key(flow, message);
        waiting.get(&key)?.admission.as_ref()?;
        let Waiting { caller, admission, .. } = waiting.remove(&key)?;
        Some((caller, admission?))
    }
}

impl ContentControl {
    /// What a trusted node says of the sender counts for more than From (RFC 3325 §5).
    fn is_outsider(&self, message: &Message<'_>, caller: &Caller) -> bool {
        match caller {
            Caller::User(_) => false,
            Caller::Trusted | Caller::Foreign => {
                let asserted =
                    message.value(HeaderName::PAssertedIdentity).filter(|_| matches!(caller, Caller::Trusted));
                self.is_foreign(asserted.or(message.value(HeaderName::From)).unwrap_or_default())
            }
        }
    }
}

fn key(flow: &Flow, message: &Message<'_>) -> Key {
    let mut hash = Sha256::new();
    hash.update(flow.id.0.to_be_bytes());
    hash.update(flow.remote.to_string().as_bytes());
    hash.update(message.bytes());
    Key(hash.finalize().into())
}

/// The URI of an address, for people to read.
pub(crate) fn address(value: &[u8]) -> String {
    let uri = NameAddr::parse(value).map_or(value, |a| a.addr);
    String::from_utf8_lossy(uri).chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

/// Letters of an address that are shown.
const MAX_SHOWN: usize = 200;

/// What an addressee reads.
pub(crate) fn notice(sender: &str, why: &Reason) -> String {
    format!("A message from {sender} was withheld: {why}.")
}
