//! SMS over IP (TS 24.341): an IP-SM-GW for handsets that registered `+g.3gpp.smsip`, and text for those that did not.
//!
//! Handset to us: a MESSAGE with RP-DATA is answered 202, and with an RP-ACK or RP-ERROR in a MESSAGE of our own once the queue
//! has it ([`Outbound`]). A plain text MESSAGE to a number that is nobody's here leaves as short message too. To the handset:
//! [`IpSmGw::deliver`] sends RP-DATA to the registered contact and waits for the report; a user without such a handset gets a
//! text MESSAGE, whole, at every phone. A user with an address in another network ([`sip_ims::bearer`]) gets the text there too: it
//! is one more phone, that is always on; and it gets what a handset does not take, before any other carrier does.
//!
//! The service runs under a shard's lock, so it only judges and leaves orders; the [`Worker`] owns what is under way
//! (`transfers`) and does the sending.

mod delivering;
mod letter;
mod ports;
mod queued;
mod remembered;
mod reporting;
#[cfg(test)]
mod tests;
mod transfers;
mod watch;
mod worker;

use std::sync::Arc;

pub use delivering::{Registered, Terminating};
use letter::{Handset, SMSIP};
pub use ports::{
    Delivery, Discharge, Fate, MAX_REPLIED, MAX_SEGMENTS, Nodes, NotAccepted, OnSubmitted, Outbound, Report,
    Submission, WANTS_REPORT,
};
pub use queued::{CLIENT, Queued};
pub use reporting::UserTeller;
use sip_ims::bearer::{Bearer, Heard, Listener, Unheard};
use sip_ims::service::{Caller, Location, Reach, Request, Service, Step, Transaction, Verdict};
use sip_ims::{Aor, Directory, Home, Msisdn, User};
use sip_proto::build::Response;
use sip_proto::headers::{MediaType, NameAddr, Params, list};
use sip_proto::uri::{Scheme, Uri};
use sip_proto::{HeaderName, Message, Method};
use tokio::sync::mpsc;
pub use watch::{Counts, Passage, Watch};
use worker::{Carriage, Done, Submitted};
pub use worker::{Worker, WorkerParts};

use crate::esme::Numbers;
use crate::notice::Told;
use crate::rp;

#[derive(Clone, Debug)]
pub struct Config {
    /// User part of the gateway's own identity, `sip:user@domain`.
    pub user: String,
    /// The number that handsets see as their service centre's: `+` and digits.
    pub centre: String,
    /// Quarters of an hour east of UTC, in the time stamps that handsets get.
    pub zone: i8,
    /// Those of applications: their short codes can be dialled.
    pub numbers: Arc<Numbers>,
}

/// The service, and the door for what others deliver through it.
pub struct IpSmGw {
    /// User part of its own identity.
    user: Box<str>,
    directory: Arc<Directory>,
    home: Arc<Home>,
    numbers: Arc<Numbers>,
    bearer: Option<Arc<dyn Bearer>>,
    orders: mpsc::UnboundedSender<Order>,
    counts: Arc<Counts>,
}

/// What a contact takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phone {
    /// RP messages.
    Relay,
    /// Text.
    Text,
}

/// Orders that wait at most: beyond, requests are refused with 503 and deliveries with [`Fate::Busy`].
const MAX_ORDERS: usize = 20_000;

/// What the service leaves to the worker.
pub struct Inbox {
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    pub(crate) again: mpsc::UnboundedSender<Order>,
    pub(crate) config: Config,
    pub(crate) directory: Arc<Directory>,
    pub(crate) home: Arc<Home>,
    pub(crate) bearer: Option<Arc<dyn Bearer>>,
    pub(crate) counts: Arc<Counts>,
}

pub(crate) enum Order {
    /// An RP message from a handset, its MESSAGE answered already.
    Relay(Relayed),
    /// A text to a number, its sender to be answered.
    Text {
        from: Arc<User>,
        source: Msisdn,
        to: Msisdn,
        text: String,
        key: String,
        whom: Submitted,
    },
    Deliver(Delivery),
    /// What a handset has had its turn with, for the bearer.
    Carry(Carriage, Done),
    Discharge(Discharge),
    /// The response to a MESSAGE of ours, `None` if there was none.
    Answered {
        call_id: Arc<str>,
        status: Option<u16>,
    },
    /// A report that another node got.
    Reported(Report),
    /// A submission was accepted or not.
    Submitted(Submitted, Result<(), NotAccepted>),
}

/// What of a MESSAGE with an RP message is needed later.
pub(crate) struct Relayed {
    pub from: Arc<User>,
    pub call_id: Box<str>,
    pub in_reply_to: Option<Box<str>>,
    pub body: Box<[u8]>,
    /// Where it came from: the answer goes to the same handset.
    pub source: std::net::SocketAddr,
}

impl IpSmGw {
    /// `bearer`: where users can be reached besides SIP.
    pub fn new(
        config: Config,
        directory: Arc<Directory>,
        home: Arc<Home>,
        bearer: Option<Arc<dyn Bearer>>,
    ) -> (Arc<IpSmGw>, Inbox) {
        let (orders, inbox) = mpsc::unbounded_channel();
        let user = config.user.as_str().into();
        let numbers = config.numbers.clone();
        let counts = Arc::<Counts>::default();
        let inbox = Inbox {
            orders: inbox,
            again: orders.clone(),
            config,
            directory: directory.clone(),
            home: home.clone(),
            bearer: bearer.clone(),
            counts: counts.clone(),
        };
        (Arc::new(IpSmGw { user, directory, home, numbers, bearer, orders, counts }), inbox)
    }

    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Whether a user of ours has this number.
    pub fn serves(&self, msn: Msisdn) -> bool {
        self.directory.by_msisdn(msn).is_some()
    }

    /// The best that the user of this number has here now.
    pub fn phone(&self, location: &dyn Location, msn: Msisdn, unix: u64) -> Option<Phone> {
        let user = self.directory.by_msisdn(msn)?;
        match handsets(location, &user.aor, unix).first() {
            Some(best) if best.smsip => Some(Phone::Relay),
            Some(_) => Some(Phone::Text),
            None => self.bearer.as_ref().filter(|bearer| bearer.reaches(&user)).map(|_| Phone::Text),
        }
    }

    /// Sends one segment; `done` gets its fate, from another thread.
    pub fn deliver(&self, mut delivery: Delivery) {
        let (counts, done) = (self.counts.clone(), delivery.done);
        delivery.done = Box::new(move |fate| {
            counts.delivered(fate);
            done(fate);
        });
        if let Err(mpsc::error::SendError(Order::Deliver(delivery))) = self.orders.send(Order::Deliver(delivery)) {
            (delivery.done)(Fate::Busy);
        }
    }

    /// A report of a handset, heard of from another node.
    pub fn reported_elsewhere(&self, bytes: &[u8]) {
        if let Some(report) = Report::from_bytes(bytes) {
            // The worker is gone when the server stops: so is what the report is about.
            let _ = self.orders.send(Order::Reported(report));
        }
    }

    /// Tells a handset what became of its message.
    pub fn discharge(&self, discharge: Discharge) {
        if let Err(mpsc::error::SendError(Order::Discharge(discharge))) = self.orders.send(Order::Discharge(discharge))
        {
            (discharge.done)(Told::Absent);
        }
    }

    /// The user who sent this, proved or asserted by the core.
    fn sender(&self, request: &Request<'_>) -> Option<Arc<User>> {
        match &request.caller {
            Caller::User(user) => Some(user.clone()),
            Caller::Foreign => None,
            Caller::Trusted => request.message.values(HeaderName::PAssertedIdentity).flat_map(list).find_map(|value| {
                let uri = NameAddr::parse(value)?.uri()?;
                match uri.scheme() {
                    Scheme::Tel => self.directory.by_msisdn(number(&uri)?),
                    _ => self.directory.by_parts(uri.user()?, self.home.domain().as_bytes()),
                }
            }),
        }
    }

    /// The number that a URI spells, or that the short code in it stands for.
    fn dialled(&self, uri: &Uri<'_>) -> Option<Msisdn> {
        number(uri).or_else(|| {
            let digits: Vec<u8> = match uri.scheme() {
                Scheme::Tel => uri.phone()?.digits().collect(),
                // Of sip:5555@domain and sip:5555;phone-context=…@domain.
                _ => uri.user()?.split(|b| *b == b';').next()?.to_vec(),
            };
            self.numbers.dialled(std::str::from_utf8(&digits).ok()?)
        })
    }

    fn relay(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        let message = request.message;
        let Some(from) = self.sender(request) else {
            step.reply(request.flow, message, 403, None, |_| {});
            return Verdict::Taken;
        };
        if message.body().len() > rp::MAX {
            step.reply(request.flow, message, 413, None, |_| {});
            return Verdict::Taken;
        }
        // In a transaction, so that the same request sent again is no second message.
        let Ok(transaction) = step.defer(request) else {
            step.reply(request.flow, message, 503, None, |w| w.number(HeaderName::RetryAfter, BUSY_RETRY));
            return Verdict::Taken;
        };
        answer(step, transaction, request, 202);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
        let order = Order::Relay(Relayed {
            from,
            call_id: text(message.call_id().unwrap_or_default()),
            in_reply_to: message.value(HeaderName::InReplyTo).and_then(|v| list(v).next()).map(text),
            body: message.body().into(),
            source: request.flow.remote,
        });
        let _ = self.orders.send(order);
        Verdict::Taken
    }

    /// A text to a number that is not one of our users'.
    fn text(&self, step: &mut Step<'_>, request: &Request<'_>, to: Msisdn) -> Verdict {
        let message = request.message;
        let Some(from) = self.sender(request) else { return Verdict::Pass };
        let refuse = |step: &mut Step<'_>, status| {
            step.reply(request.flow, message, status, None, |_| {});
            Verdict::Taken
        };
        // Who has no number sends no short messages: for them that number is nobody's.
        let Some(source) = from.msisdn else { return Verdict::Pass };
        let Ok(text) = std::str::from_utf8(message.body()) else { return refuse(step, 415) };
        let (text, key) = (text.to_owned(), key(message));
        let Ok(transaction) = step.defer(request) else { return refuse(step, 503) };
        let whom = Submitted::Client(transaction);
        let _ = self.orders.send(Order::Text { from, source, to, text, key, whom });
        Verdict::Taken
    }
}

/// What users write to numbers over the bearer goes out as a MESSAGE of theirs to that number would.
impl Listener for IpSmGw {
    fn heard(&self, text: Heard, done: Box<dyn FnOnce(Result<(), Unheard>) + Send>) {
        let Heard { from, to, text, key } = text;
        let user = self.directory.by_jid(&from);
        let Some((from, source)) = user.and_then(|user| Some((user.clone(), user.msisdn?))) else {
            return done(Err(Unheard::Stranger));
        };
        let to = Uri::parse(to.as_bytes()).and_then(|uri| self.dialled(&uri));
        let Some(to) = to else { return done(Err(Unheard::NoRoute)) };
        // The worker is gone when the server stops: then nobody is told, and the bearer's side keeps it.
        let _ = self.orders.send(Order::Text { from, source, to, text, key, whom: Submitted::Bearer(done) });
    }
}

impl Service for IpSmGw {
    fn name(&self) -> &'static str {
        "ip-sm-gw"
    }

    fn identity(&self) -> &str {
        &self.user
    }

    fn request(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        let message = request.message;
        let in_dialog = message.is_in_dialog();
        if message.method() != Method::Message || in_dialog {
            return Verdict::Pass;
        }
        let Some(kind) = message.value(HeaderName::ContentType).and_then(MediaType::parse) else {
            return Verdict::Pass;
        };
        if kind.is(rp::CONTENT_TYPE) {
            return self.relay(step, request);
        }
        match self.dialled(&request.uri) {
            Some(to) if (request.profile.is_none() || self.numbers.of(to).is_some()) && kind.is("text/plain") => {
                self.text(step, request, to)
            }
            _ => Verdict::Pass,
        }
    }
}

/// Seconds until it makes sense to try again.
const BUSY_RETRY: u64 = 5;

fn answer(step: &mut Step<'_>, transaction: Transaction, request: &Request<'_>, status: u16) {
    let tag = step.endpoint.local_tag(request.message.call_id().unwrap_or_default());
    step.endpoint.respond(step.now, transaction.id, status, step.out, |b| {
        Response::to(request.message, status).source(request.flow.remote).tag(&tag).write(b, |_| {});
    });
}

/// The international number that a URI spells.
fn number(uri: &Uri<'_>) -> Option<Msisdn> {
    let mut digits = Vec::new();
    match uri.scheme() {
        Scheme::Tel => {
            uri.phone()?.write_e164(&mut digits);
            Msisdn::parse(&digits).ok()
        }
        _ => Msisdn::from_user(uri.user()?).ok(),
    }
}

/// The same for the same request sent again: a hash of what a client does not repeat.
fn key(message: &Message<'_>) -> String {
    use std::hash::Hasher;
    let mut hash = siphasher::sip128::SipHasher13::new();
    let tag = message.from_tag().unwrap_or_default();
    for part in [message.call_id().unwrap_or_default(), tag, message.body()] {
        hash.write_usize(part.len());
        hash.write(part);
    }
    hash.write_u32(message.cseq().map_or(0, |c| c.number));
    let siphasher::sip128::Hash128 { h1, h2 } = siphasher::sip128::Hasher128::finish128(&hash);
    format!("t{h1:016x}{h2:016x}")
}

/// Contacts of a user, whichever node has their connection, one of each instance (RFC 5626 §6): those that take RP messages first, each
/// kind best first. At most eight.
fn handsets(location: &dyn Location, aor: &Aor, unix: u64) -> Vec<Handset> {
    let mut found: Vec<Handset> = Vec::new();
    location.each_anywhere(aor.as_str(), unix, &mut |reach: &Reach<'_>| {
        let known = !reach.instance.is_empty() && found.iter().any(|handset| *handset.instance == *reach.instance);
        if found.len() < 8 && !known {
            found.push(Handset {
                uri: reach.uri.into(),
                path: reach.path.into(),
                hop: reach.hop,
                elsewhere: reach.elsewhere,
                instance: reach.instance.into(),
                smsip: Params::new(reach.params).has(SMSIP),
            });
        }
    });
    found.sort_by_key(|handset| !handset.smsip);
    found
}
