//! The streams of our domain with all others.
//!
//! A text becomes a message stanza in the queue of its domain, whose task keeps one stream to it while there is something to send. A
//! stream between servers acknowledges nothing, so behind some messages goes a ping (XEP-0199): a server deals with stanzas in order, so
//! by its answer it has taken each message that it has not refused until then. (An acknowledgement of XEP-0198 would say that they were
//! received, and a refusal could still follow.) Answers and refusals come over the domain's own stream to us.

mod inbound;
mod outbound;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::{ClientConfig, ServerConfig};
use sha2::{Digest, Sha256};
use sip_ims::bearer::{Bearer, Carried, Heard, Listener, Text, Unheard};
use sip_ims::{Msisdn, User};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::address::Jid;
use crate::dialback::Keys;
use crate::message::{self, Condition, Meaning, Refusal, Stanza};

/// Where streams between servers come in, by name and by number (RFC 6120 §3.2, §14.7).
pub const SERVICE: &str = "_xmpp-server._tcp";
pub const PORT: u16 = 5269;
/// Domains that we have, or want, a stream to.
const MAX_DOMAINS: usize = 1_000;
/// Beyond so many none is added for what comes from outside: strangers are not to keep us from the domains of our users.
const MAX_LED_TO: usize = 500;
/// Messages that wait for one domain, beyond those on their way.
const MAX_WAITING: usize = 1_000;
/// Questions and answers that wait for one domain; what is heard of it and not taken in yet.
const MAX_ASIDE: usize = 256;
/// Texts of all others that are being taken; more are told to come later.
const MAX_TEXTS: usize = 2_000;
/// From a connect to a stream that carries stanzas, in either direction; and from a message to the proof that it was taken.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the operator decides.
pub struct Config {
    /// Ours, in lower case.
    pub domain: String,
    /// Of dialback: nodes of one domain have the same.
    pub secret: [u8; 32],
    /// Instead of the DNS, by domain in lower case.
    pub routes: HashMap<String, Route>,
}

#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub address: SocketAddr,
    /// False: a certificate that nobody vouches for will do.
    pub verify: bool,
}

/// Looks for the servers of a domain, in the order in which they should be tried: those of [`SERVICE`] in the DNS, else the domain itself at
/// [`PORT`].
pub type Servers = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Vec<SocketAddr>> + Send>> + Send + Sync>;

/// What federation works with.
pub struct Parts {
    pub servers: Servers,
    /// Believes the authorities that domains must be certified by.
    pub client: Arc<ClientConfig>,
    /// Takes any certificate: for domains whose nobody vouches for. There dialback alone tells who they are.
    pub unverified: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
    /// Hears of users whose texts were not taken, when their domain can be reached again. Must not block.
    pub returned: Arc<dyn Fn(Msisdn) + Send + Sync>,
    pub runtime: Handle,
}

/// What has been counted since the start, and what is open.
#[derive(Default, Debug)]
pub struct Counts {
    /// Stanzas by direction.
    pub sent: AtomicU64,
    pub received: AtomicU64,
    /// Texts by what became of them.
    pub taken: AtomicU64,
    pub put_off: AtomicU64,
    pub refused: AtomicU64,
    /// Streams that carry stanzas now, by direction.
    pub outgoing: AtomicU64,
    pub incoming: AtomicU64,
    /// Attempts that came to no stream, by direction.
    pub failed_outgoing: AtomicU64,
    pub failed_incoming: AtomicU64,
}

/// See the module.
#[derive(Clone)]
pub struct Federation(Arc<Shared>);

struct Shared {
    config: Config,
    keys: Keys,
    parts: Parts,
    domains: Mutex<HashMap<Box<str>, Domain>>,
    listener: OnceLock<Arc<dyn Listener>>,
    /// Texts of others that the listener has and has not answered.
    texts: AtomicUsize,
    counts: Arc<Counts>,
    /// Distinguishes our stanzas from those of another run.
    run: String,
    stanzas: AtomicU64,
    stop: watch::Sender<bool>,
}

/// The way to the task of a domain.
struct Domain {
    messages: mpsc::Sender<Message>,
    aside: mpsc::Sender<Aside>,
    said: mpsc::Sender<Said>,
}

/// A stanza that is to be proved to have been taken.
struct Message {
    id: String,
    bytes: Vec<u8>,
    /// Whose it is.
    msn: Option<Msisdn>,
    answer: Answer,
}

/// What overtakes messages.
enum Aside {
    /// Whether this key, of that stream of theirs, is theirs.
    Verify { stream: String, key: String, answer: oneshot::Sender<bool> },
    /// An answer to a stanza of theirs. It may be lost.
    Reply(Vec<u8>),
}

/// What the domain says over its own stream.
enum Said {
    Answered(String),
    Refused(String, Refusal),
}

/// Told once. Dropped unsaid, it says that the text was not taken.
struct Answer(Option<Box<dyn FnOnce(Carried) + Send>>, Arc<Counts>);

impl Answer {
    fn say(mut self, carried: Carried) {
        self.tell(carried);
    }

    fn tell(&mut self, carried: Carried) {
        if let Some(done) = self.0.take() {
            let counter = match carried {
                Carried::Taken => &self.1.taken,
                Carried::Later => &self.1.put_off,
                Carried::Refused => &self.1.refused,
            };
            counter.fetch_add(1, Relaxed);
            done(carried);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.tell(Carried::Later);
    }
}

impl Federation {
    pub fn new(config: Config, parts: Parts) -> Federation {
        Federation(Arc::new(Shared {
            keys: Keys::new(&config.secret),
            config,
            parts,
            domains: Mutex::default(),
            listener: OnceLock::new(),
            texts: AtomicUsize::new(0),
            counts: Arc::default(),
            run: unguessable(),
            stanzas: AtomicU64::new(0),
            stop: watch::Sender::new(false),
        }))
    }

    pub fn counts(&self) -> &Arc<Counts> {
        &self.0.counts
    }

    /// Takes streams of other domains until [`stop`](Self::stop).
    pub fn listen(&self, listener: TcpListener) {
        self.0.parts.runtime.spawn(inbound::listen(self.0.clone(), listener));
    }

    /// Names who takes texts that come. Once; until then they are told to come later.
    pub fn attach(&self, listener: Arc<dyn Listener>) {
        // The first stays: there is one.
        let _ = self.0.listener.set(listener);
    }

    /// Ends every stream politely: some servers shun for minutes who just disappears. What is on its way is told not to be taken.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }
}

impl Bearer for Federation {
    fn reaches(&self, user: &User) -> bool {
        self.0.jid(user).is_some()
    }

    fn carry(&self, text: Text, done: Box<dyn FnOnce(Carried) + Send>) {
        let shared = &self.0;
        let answer = Answer(Some(done), shared.counts.clone());
        let from = Jid::from_sip(&text.from, &shared.config.domain);
        let Some((to, from)) = shared.jid(&text.to).zip(from) else { return answer.say(Carried::Refused) };
        let id = shared.stanza_id();
        let bytes = message::write_text(&from, &to, &id, &text.text);
        let message = Message { id, bytes, msn: text.to.msisdn, answer };
        // Without room it is dropped here, and so told to be for later.
        drop(shared.to_domain(to.domain(), MAX_DOMAINS, |domain| domain.messages.try_send(message)));
    }
}

impl Shared {
    fn jid(&self, user: &User) -> Option<Jid> {
        let jid: Jid = user.jid.as_deref()?.parse().ok()?;
        (jid.domain() != self.config.domain && jid.local().is_some()).then_some(jid)
    }

    fn stanza_id(&self) -> String {
        format!("{}-{}", self.run, self.stanzas.fetch_add(1, Relaxed))
    }

    /// Hands something to the task of a domain; starts it, while there are fewer than `limit`. What comes back is dropped by the caller,
    /// when nothing is locked any more.
    fn to_domain<T>(self: &Arc<Self>, name: &str, limit: usize, hand: impl FnOnce(&Domain) -> T) -> Option<T> {
        let mut domains = self.domains.lock();
        if let Some(domain) = domains.get(name) {
            return Some(hand(domain));
        }
        if domains.len() >= limit || *self.stop.borrow() {
            return None;
        }
        let (messages, messages_in) = mpsc::channel(MAX_WAITING);
        let (aside, aside_in) = mpsc::channel(MAX_ASIDE);
        let (said, said_in) = mpsc::channel(MAX_ASIDE);
        let task = outbound::Task::new(self.clone(), name, messages_in, aside_in, said_in);
        self.parts.runtime.spawn(task.run());
        let domain = domains.entry(name.into()).or_insert(Domain { messages, aside, said });
        Some(hand(domain))
    }

    /// What a proved domain sends.
    fn stanza(self: &Arc<Self>, stanza: Stanza) {
        self.counts.received.fetch_add(1, Relaxed);
        let domain = stanza.from.domain();
        let said = |said| {
            // Only who is waited for is heard.
            if let Some(domain) = self.domains.lock().get(domain) {
                _ = domain.said.try_send(said);
            }
        };
        match stanza.meaning() {
            Meaning::Answered(id) => said(Said::Answered(id)),
            Meaning::Refused { id, refusal } => said(Said::Refused(id, refusal)),
            Meaning::Answer(bytes) => self.reply(domain, bytes),
            Meaning::Text(text) => self.text(stanza, text),
            Meaning::Nothing => {}
        }
    }

    /// Without room it is dropped: a question is then answered with no.
    fn aside(self: &Arc<Self>, domain: &str, aside: Aside) {
        drop(self.to_domain(domain, MAX_LED_TO, |domain| domain.aside.try_send(aside)));
    }

    fn reply(self: &Arc<Self>, domain: &str, bytes: Vec<u8>) {
        self.aside(domain, Aside::Reply(bytes));
    }

    /// A text of theirs: taken, or sent back.
    fn text(self: &Arc<Self>, stanza: Stanza, text: String) {
        let from = stanza.from.bare().to_string();
        let refuse = |condition| self.reply(stanza.from.domain(), stanza.refused(condition));
        let Some(to) = stanza.to.to_sip() else { return refuse(Condition::Unavailable) };
        let Some(listener) = self.listener.get() else { return refuse(Condition::Busy) };
        if self.texts.fetch_add(1, Relaxed) >= MAX_TEXTS {
            self.texts.fetch_sub(1, Relaxed);
            return refuse(Condition::Busy);
        }
        let key = key(&[&from, &to, stanza.element.attribute("id").unwrap_or_default(), &text]);
        let heard = Heard { from: from.into(), to: to.into(), text, key };
        let shared = self.clone();
        let done = move |taken: Result<(), Unheard>| {
            shared.texts.fetch_sub(1, Relaxed);
            let condition = match taken {
                Ok(()) => return,
                Err(Unheard::Stranger) => Condition::NotAuthorized,
                Err(Unheard::NoRoute) => Condition::NotFound,
                Err(Unheard::TooLong) => Condition::TooLong,
                Err(Unheard::Busy) => Condition::Busy,
            };
            shared.reply(stanza.from.domain(), stanza.refused(condition));
        };
        listener.heard(heard, Box::new(done));
    }
}

/// The same for the same stanza.
fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    ["x", &crate::dialback::hex(&hash.finalize()[..16])].concat()
}

/// 128 bits in hexadecimal.
fn unguessable() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Ready when the server stops. It gives back the channel's guard at once: `select!` would hold it while a branch runs.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could say so is gone.
    _ = stop.wait_for(|stop| *stop).await;
}
