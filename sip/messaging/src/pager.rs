//! The service: takes messages that reached nobody, has them committed, and hears of registrations.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use media_content::depot::Depot;
use memchr::memmem;
use sip_cpim::{Fate, Outcome};
use sip_ims::Aor;
use sip_ims::ports::{MessageId, MessageQueue, StoreError};
use sip_ims::service::{Caller, Request, Service, Step, Transaction, Verdict};
use sip_proto::build::Response;
use sip_proto::endpoint::{ServerId, reply_hop};
use sip_proto::transport::Transmit;
use sip_proto::{HeaderName, Message, Method};
use tokio::sync::mpsc;

use crate::agent::{Agent, Invited};
use crate::away::{self, Away};
use crate::config::Config;
use crate::control::ContentControl;
use crate::counts::Counts;
use crate::history::History;
use crate::late::Late;
use crate::letter::{self, Letter, NotKept};
use crate::notice::Notice;
use crate::pushed::Pusher;
use crate::taken::{self, Phones, Taken, Taker};
use crate::terms::{Offered, OfferedFile};
use crate::waiting::Waiting;

/// Seconds since 1970: floors below the server read no clock.
pub type Unix = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Store and forward as a SIP service. Cheap to call: it runs under the lock of a shard.
pub struct Pager {
    config: Config,
    queue: Arc<dyn MessageQueue>,
    unix: Unix,
    waiting: Arc<Waiting>,
    counts: Arc<Counts>,
    late: Arc<Late>,
    orders: mpsc::UnboundedSender<Order>,
    sessions: OnceLock<Arc<Agent>>,
    taker: OnceLock<Arc<Taker>>,
    pusher: Arc<OnceLock<Pusher>>,
    history: OnceLock<Arc<History>>,
}

/// What the pager leaves for the [`Courier`](crate::Courier) to do. Ends when the pager is dropped.
///
/// Not longer than there are transactions waiting for a commit and users that messages wait for.
pub struct Inbox {
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    /// For the orders that the courier leaves for itself.
    pub(crate) own: mpsc::WeakUnboundedSender<Order>,
    pub(crate) config: Config,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) late: Arc<Late>,
    pub(crate) queue: Arc<dyn MessageQueue>,
    pub(crate) pusher: Arc<OnceLock<Pusher>>,
}

pub(crate) enum Order {
    /// A message was committed, or not: answer it.
    Committed { put: Put, result: Result<MessageId, StoreError> },
    /// A user with messages has registered.
    Registered(Aor),
    /// A phone has taken a message that was kept.
    TakenLate { id: MessageId, put: Put },
    /// A message for this user was committed without a request that waits for it.
    Kept(Aor),
    /// The same, of a session: its sender may want to hear of it.
    KeptOfSession { aor: Aor, call_id: Box<[u8]>, stored: Option<Notice> },
    /// A user has read something on one device: the others are to know. `request`: in the form that is kept.
    Read { aor: Aor, by: SocketAddr, request: Vec<u8> },
}

/// A message on its way to the disk.
pub(crate) struct Put {
    pub transaction: Transaction,
    pub aor: Aor,
    /// The user's phones were tried just before.
    pub tried: bool,
    /// They may still answer.
    pub open: bool,
    pub call_id: Box<[u8]>,
    pub from: Box<[u8]>,
    pub to: Box<[u8]>,
    /// What its sender is to be told when it is on the disk.
    pub stored: Option<Notice>,
}

impl Pager {
    pub fn new(config: Config, queue: Arc<dyn MessageQueue>, unix: Unix) -> (Arc<Pager>, Inbox) {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (waiting, counts) = (Arc::<Waiting>::default(), Arc::<Counts>::default());
        let (late, pusher) = (Arc::<Late>::default(), Arc::<OnceLock<Pusher>>::default());
        let inbox = Inbox {
            orders: inbox,
            own: orders.downgrade(),
            config: config.clone(),
            waiting: waiting.clone(),
            counts: counts.clone(),
            late: late.clone(),
            queue: queue.clone(),
            pusher: pusher.clone(),
        };
        (
            Arc::new(Pager {
                config,
                queue,
                unix,
                waiting,
                counts,
                late,
                orders,
                sessions: OnceLock::new(),
                taker: OnceLock::new(),
                pusher,
                history: OnceLock::new(),
            }),
            inbox,
        )
    }

    /// Has chats with users who are away answered, and what is said in them kept; and messages made sessions for phones that take
    /// them so alone. `files`: where those go, and come from, that phones send and take in another way. Once.
    pub fn answer_by(&self, agent: Arc<Agent>, files: Option<(Arc<Depot>, Arc<ContentControl>)>) {
        let depot = files.as_ref().map(|(depot, _)| depot.clone());
        let _ = self.pusher.set(Pusher { agent: agent.clone(), depot });
        let _ = self.sessions.set(agent);
        let Some((depot, control)) = files else { return };
        let _ = self.taker.set(Arc::new(Taker {
            depot,
            control,
            queue: self.queue.clone(),
            orders: self.orders.clone(),
            config: self.config.clone(),
            unix: self.unix.clone(),
        }));
    }

    /// Has what is kept for its addressee kept for those too who want to read it again. Once.
    pub fn remember_in(&self, history: Arc<History>) {
        let _ = self.history.set(history);
    }

    /// Tells a user something in the name of this server: now, or when they are back. `aor`: one that somebody has.
    pub fn announce(&self, aor: &Aor, text: &str) {
        let Some(queued) = letter::of_our_own(aor, ["text/plain", text], (self.unix)(), &self.config) else { return };
        let (orders, aor) = (self.orders.clone(), aor.clone());
        let kept = move |kept: Result<MessageId, StoreError>| match kept {
            // A courier that is gone will find it at the next start.
            Ok(_) => _ = orders.send(Order::Kept(aor)),
            Err(error) => tracing::debug!(%error, "an announcement was not kept"),
        };
        self.queue.put(queued, Box::new(kept));
    }

    /// A user has registered, or refreshed a registration. `aor`: canonical `user@domain`. Never blocks for long.
    pub fn on_registered(&self, aor: &str) {
        if let Some(aor) = self.waiting.call(aor) {
            let _ = self.orders.send(Order::Registered(aor));
        }
    }

    /// Another node has kept a message for this user. `here`: there is a way to the user from this node, which that one may
    /// not have (a connection).
    pub fn kept_elsewhere(&self, aor: &Aor, here: bool) {
        self.waiting.add(aor);
        if here {
            self.on_registered(aor.as_str());
        }
    }

    /// Whether messages wait for this user (canonical `user@domain`), as far as this node knows. Now and then true for a
    /// moment after the last one is gone.
    pub fn waiting(&self, aor: &str) -> bool {
        self.waiting.contains(aor)
    }

    /// Users that messages wait for.
    pub fn waiting_users(&self) -> usize {
        self.waiting.len()
    }

    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

impl Pager {
    /// An INVITE to a chat that reached nobody: we take part in their place.
    fn unreached_chat(
        &self,
        step: &mut Step<'_>,
        request: &Request<'_>,
        aor: &Aor,
        server: Option<ServerId>,
    ) -> Verdict {
        let Some(agent) = self.sessions.get().filter(|a| a.has_room()) else { return Verdict::Pass };
        if request.profile.is_none() && !self.config.strangers {
            return Verdict::Pass;
        }
        let Some(offered) = away::offered(agent.switch(), request) else { return Verdict::Pass };
        if let Some(file) = &offered.file {
            return self.take_file(step, request, (aor, server), &offered, file);
        }
        if offered.more {
            return Verdict::Pass;
        }
        let (queue, orders, history) = (self.queue.clone(), self.orders.clone(), self.history.get().cloned());
        let party = Arc::new(Away::new(request, aor, &self.config, queue, orders, history));
        let invited = Invited {
            party,
            terms: away::terms(&self.config),
            user: away::USER.to_owned(),
            features: "",
            first: None,
            taken_by: None,
        };
        match agent.answer(step, request, server, &offered, invited) {
            Ok(()) => Verdict::Taken,
            // Whoever asked goes on as if nobody kept chats.
            Err(_) => Verdict::Pass,
        }
    }
}

impl Pager {
    /// An INVITE to a file that its addressee cannot take: we take it in their place.
    fn take_file(
        &self,
        step: &mut Step<'_>,
        request: &Request<'_>,
        (aor, server): (&Aor, Option<ServerId>),
        offered: &Offered,
        file: &OfferedFile,
    ) -> Verdict {
        let (Some(agent), Some(taker)) = (self.sessions.get(), self.taker.get()) else { return Verdict::Pass };
        if file.promised.size.is_some_and(|size| size > taker.depot.shelf.max_file()) {
            return Verdict::Pass;
        }
        let sender = match &request.caller {
            Caller::User(user) => Some(&**user),
            Caller::Trusted | Caller::Foreign => None,
        };
        let party = Taken::new(taker.clone(), away::ends(request, aor), sender, file.clone());
        let invited = Invited {
            terms: taken::terms(&taker.depot, file),
            user: taken::USER.to_owned(),
            features: "",
            first: None,
            taken_by: Some(party.clone()),
            party,
        };
        match agent.answer(step, request, server, offered, invited) {
            Ok(()) => Verdict::Taken,
            Err(_) => Verdict::Pass,
        }
    }

    /// The same for one whose phones are there, and fetch files over HTTP alone.
    fn file_for_http(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        let (Some(agent), Some(aor)) = (self.sessions.get(), &request.callee) else { return Verdict::Pass };
        let is_file = memmem::find(request.message.body(), b"file-selector").is_some();
        if self.taker.get().is_none() || !is_file || request.profile.is_none() || !agent.has_room() {
            return Verdict::Pass;
        }
        let mut phones = Phones::default();
        agent.parts.location.each_anywhere(aor.as_str(), step.unix, &mut |reach| phones.add(reach));
        if !phones.only_fetch() {
            return Verdict::Pass;
        }
        let Some(offered) = away::offered(agent.switch(), request) else { return Verdict::Pass };
        match &offered.file {
            Some(file) => self.take_file(step, request, (aor, None), &offered, file),
            None => Verdict::Pass,
        }
    }
}

impl Service for Pager {
    fn name(&self) -> &'static str {
        "pager"
    }

    /// Read on one device is read on all: what a user tells a sender, its other devices hear.
    fn request(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        if request.message.method() == Method::Invite {
            return self.file_for_http(step, request);
        }
        // The courier finds out again what is to be done with it, when it is on the disk.
        if request.message.method() == Method::Message
            && let (Some(pusher), Some(aor), Some(_)) = (self.pusher.get(), &request.callee, &request.profile)
            && pusher.concerns(aor, request.message).is_some()
        {
            return self.keep(step, request, aor, None, 480);
        }
        let Caller::User(user) = &request.caller else { return Verdict::Pass };
        if request.message.method() != Method::Message || !letter::says_displayed(request.message) {
            return Verdict::Pass;
        }
        if let Ok(queued) = letter::keep(request, &user.aor, step.unix, &self.config) {
            let (aor, by) = (user.aor.clone(), request.flow.remote);
            let _ = self.orders.send(Order::Read { aor, by, request: queued.body });
        }
        Verdict::Pass
    }

    fn unreached(&self, step: &mut Step<'_>, request: &Request<'_>, server: Option<ServerId>, status: u16) -> Verdict {
        let message = request.message;
        let Some(aor) = &request.callee else { return Verdict::Pass };
        if message.method() == Method::Invite {
            return self.unreached_chat(step, request, aor, server);
        }
        if message.method() != Method::Message || request.profile.is_none() && !self.config.strangers {
            return Verdict::Pass;
        }
        self.keep(step, request, aor, server, status)
    }

    fn reached_late(&self, transaction: Transaction) {
        if let Some((id, put)) = self.late.answered(transaction) {
            let _ = self.orders.send(Order::TakenLate { id, put });
        }
    }
}

impl Pager {
    /// Has a message written to the disk, and answered when it is there.
    fn keep(
        &self,
        step: &mut Step<'_>,
        request: &Request<'_>,
        aor: &Aor,
        server: Option<ServerId>,
        status: u16,
    ) -> Verdict {
        let message = request.message;
        let queued = match letter::keep(request, aor, step.unix, &self.config) {
            Ok(queued) => queued,
            Err(NotKept::Fleeting) => return Verdict::Pass,
            Err(NotKept::Bad { status, reason }) => {
                refuse(step, request, server, status, reason, None);
                return Verdict::Taken;
            }
        };
        let transaction = match server {
            Some(id) => Transaction { shard: step.shard, id },
            None => match step.defer(request) {
                Ok(transaction) => transaction,
                Err(_full) => {
                    refuse(step, request, None, 503, "Service Unavailable", Some(BUSY_RETRY));
                    return Verdict::Taken;
                }
            },
        };
        let stored = Letter::read(&queued.body)
            .ok()
            .and_then(|letter| Notice::about(&letter, Fate::Processing, Outcome::Stored, step.unix));
        let put = Put {
            transaction,
            aor: aor.clone(),
            tried: server.is_some(),
            open: server.is_some() && status == 408,
            call_id: message.call_id().unwrap_or_default().into(),
            from: message.value(HeaderName::From).unwrap_or_default().into(),
            to: message.value(HeaderName::To).unwrap_or_default().into(),
            stored,
        };
        if put.open {
            self.late.open(step.now, transaction);
        }
        let promise = Promise(Some((put, self.orders.clone())));
        let history = self
            .history
            .get()
            .map(|history| (history.clone(), history.of_message(message, &request.caller, request.profile.as_ref())));
        // The completions may run inside this call, with the shard locked: so they only leave an order.
        let kept = move |result: Result<MessageId, StoreError>| match history.filter(|_| result.is_ok()) {
            // What is answered with 202 is in the histories too.
            Some((history, entries)) => history.write(entries, move || promise.settle(result)),
            None => promise.settle(result),
        };
        self.queue.put(queued, Box::new(kept));
        Verdict::Taken
    }
}

/// Makes sure that a message on its way to the disk is answered, even by a store that drops the completion uncalled.
struct Promise(Option<(Put, mpsc::UnboundedSender<Order>)>);

impl Promise {
    fn settle(mut self, result: Result<MessageId, StoreError>) {
        self.leave(result);
    }

    fn leave(&mut self, result: Result<MessageId, StoreError>) {
        if let Some((put, orders)) = self.0.take() {
            let _ = orders.send(Order::Committed { put, result });
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.leave(Err(StoreError::Closed));
    }
}

/// The status for a message that the store did not take, and the Retry-After to go with it, in seconds.
pub(crate) fn status_of(error: &StoreError) -> (u16, Option<u32>) {
    match error {
        // What the sender would have heard without a store (RFC 3261 §21.4.18: "may indicate a better time to call"). 486
        // would say that the user's phone was reached, and 5xx that any message would fare like this one.
        StoreError::OverQuota => (480, Some(600)),
        StoreError::TooLarge => (413, None),
        StoreError::Full | StoreError::Closed => (503, Some(BUSY_RETRY)),
        // It may be stored or not. Sent again it is stored once: its key is the same.
        _ => (500, Some(BUSY_RETRY)),
    }
}

/// Seconds until it makes sense to try a busy server again.
const BUSY_RETRY: u32 = 5;

/// Answers inside the step, through the request's transaction if it has one.
fn refuse(
    step: &mut Step<'_>,
    request: &Request<'_>,
    server: Option<ServerId>,
    status: u16,
    reason: &str,
    retry_after: Option<u32>,
) {
    let message: &Message<'_> = request.message;
    let tag = step.endpoint.local_tag(message.call_id().unwrap_or_default());
    let write = |b: &mut Vec<u8>| {
        Response::to(message, status).reason(reason).source(request.flow.remote).tag(&tag).write(b, |w| {
            if let Some(seconds) = retry_after {
                w.number(HeaderName::RetryAfter, seconds.into());
            }
        });
    };
    match server {
        Some(server) => {
            step.endpoint.respond(step.now, server, status, step.out, write);
        }
        None => {
            let hop = reply_hop(request.flow, message.top_via().as_ref());
            step.out.push(hop, Transmit::NO_TOKEN, write);
        }
    }
}
