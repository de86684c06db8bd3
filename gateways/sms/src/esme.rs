//! Legacy applications that bind to us over SMPP: what they submit goes into the same queue, and its end comes back as a receipt.
//!
//! `names` says how a message is called, `managing` answers questions about it, `telling` brings its receipt, and `delivering` takes what
//! others send to an ESME's numbers; `receivers` and `elsewhere` find its session, at whichever node of a cluster.

mod delivering;
pub mod elsewhere;
mod managing;
mod names;
mod numbers;
mod receivers;
mod telling;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};

use delivering::DELIVERY;
pub use delivering::{Applications, Carriers, Keeper, ToApplications};
use gw_smpp::pdu::{
    Address, COctets, CommandStatus, Destination, Failed, Request as Pdu, Response, ShortMessage, SubmitMulti,
    SubmitMultiResp,
};
use gw_smpp::{Accounts, BindAttempt, BindReply, DoorPort, Esme, Outcome, Reply, Verdict as SmppVerdict};
use names::{Kin, Making, Wish};
pub use numbers::{Numbers, beginning, is_short_code};
use parking_lot::Mutex;
pub use receivers::Receivers;
use sip_ims::Msisdn;
use sip_ims::ports::StoreError;
pub use telling::{Bell, Callee, EsmeTeller, Receipts};

use crate::queue::{Enqueued, MAX_PARTS, Older, Origin, Part, Queue, Request, SegmentId, State, Verdict};
use crate::short_message::{Message, from_data};
use crate::smpp::SmppCentre;
use crate::{receipt, smpp_time};

/// How the names of these clients begin.
pub const CLIENT: &str = "esme:";

/// What ESMEs are answered from.
pub struct EsmeSide {
    pub accounts: Accounts,
    pub queue: Arc<dyn Queue>,
    /// Has what was submitted already.
    pub centre: Arc<SmppCentre>,
    /// Milliseconds for which a message without a validity period is tried.
    pub validity: i64,
    /// Unix milliseconds.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub receipts: Arc<Receipts>,
    pub applications: Arc<Applications>,
}

impl DoorPort for EsmeSide {
    fn authenticate(&self, attempt: BindAttempt, reply: BindReply) {
        match self.accounts.check(&attempt) {
            Ok(account) => reply.accept(account),
            Err(status) => reply.refuse(status),
        }
    }

    fn asked(&self, esme: &Arc<Esme>, request: Pdu, reply: Reply) {
        let client = client(esme);
        match request {
            Pdu::SubmitSm(message) => self.submit(client, &message, reply),
            Pdu::DataSm(data) => self.submit(client, &from_data(data), reply),
            Pdu::SubmitMulti(multi) => self.submit_multi(client, &multi, reply),
            Pdu::CancelSm(cancel) => self.cancel(client, &cancel, reply),
            Pdu::QuerySm(query) => self.query(client, query.message_id, esme.interface_version >= 0x50, reply),
            Pdu::ReplaceSm(replace) => self.replace(client, replace, reply),
            _ => reply.status(CommandStatus::RINVCMDID),
        }
    }

    fn outcomes(&self, outcomes: &mut Vec<Outcome>) {
        let mut delivered = Vec::new();
        for Outcome { ticket, verdict } in outcomes.drain(..) {
            let id = ticket & !DELIVERY;
            if ticket & DELIVERY != 0 && Receivers::is_for_another(id) {
                self.applications.receivers.ended(id, verdict);
            } else if ticket & DELIVERY != 0 {
                delivered.push((SegmentId(id as i64), verdict));
            } else {
                self.receipts.settle(ticket, matches!(verdict, SmppVerdict::Done(_)));
            }
        }
        self.applications.reported(&delivered);
    }

    fn bound(&self, esme: &Arc<Esme>) {
        if esme.kind.receives() {
            // The others first: what wakes now may be in their hands.
            self.applications.receivers.announce();
            self.applications.bound(&esme.system_id);
        }
    }

    fn unbound(&self, esme: &Arc<Esme>) {
        self.applications.receivers.left(esme);
        self.applications.unbound();
    }
}

impl EsmeSide {
    /// What another node says of ESMEs.
    pub fn heard(&self, bytes: &[u8]) {
        let mut news = self.applications.receivers.heard(bytes);
        self.outcomes(&mut news.outcomes);
        news.came.iter().for_each(|system_id| self.applications.bound(system_id));
    }

    /// Every [`elsewhere::REPEAT`]: the others are told who is here, and what the silent ones had is looked after.
    pub fn repeat(&self) {
        self.applications.receivers.announce();
        let mut lapsed = self.applications.receivers.lapsed();
        self.outcomes(&mut lapsed);
    }
}

/// What is the same for all destinations of a message.
struct Order {
    parts: Vec<Part>,
    /// Unix milliseconds; 0: at once.
    not_before: i64,
    expires_at: i64,
    rank: u8,
    wish: Wish,
    kin: Kin,
    /// What is kin to it and has not arrived does not arrive any more.
    replaces: bool,
}

/// The destinations of a submit_multi that are on their way into the queue.
struct Gathering {
    waiting: AtomicUsize,
    of: usize,
    failed: Mutex<Vec<Failed>>,
    message_id: COctets<65>,
    reply: Mutex<Option<Reply>>,
}

impl EsmeSide {
    fn submit(&self, client: Arc<str>, message: &ShortMessage, reply: Reply) {
        let Some(msn) = self.destination(&message.destination) else { return reply.status(CommandStatus::RINVDSTADR) };
        let order = match self.order(message) {
            Ok(order) => order,
            Err(status) => return reply.status(status),
        };
        let id = self.name(msn, &order, false);
        let done = move |result| match result {
            Ok(()) => reply.accepted(id),
            Err(status) => reply.status(status),
        };
        self.enqueue(&order, order.request(client, msn, &id, 0), Box::new(done));
    }

    fn submit_multi(&self, client: Arc<str>, multi: &SubmitMulti, reply: Reply) {
        let order = match self.order(&multi.message) {
            Ok(order) => order,
            Err(status) => return reply.status(status),
        };
        let (mut numbers, mut failed) = (Vec::new(), Vec::new());
        for one in &multi.destinations {
            match one {
                Destination::Address(address) => match self.destination(address) {
                    Some(msn) => numbers.push((*address, msn)),
                    None => failed.push(Failed { destination: *address, status: CommandStatus::RINVDSTADR }),
                },
                // We keep no lists: the ESME is told before anybody gets anything.
                Destination::List(_) => return reply.status(CommandStatus::RINVDLNAME),
            }
        }
        let Some((_, first)) = numbers.first() else {
            let nobody = multi.destinations.is_empty();
            return reply.status(if nobody { CommandStatus::RINVNUMDESTS } else { CommandStatus::RINVDSTADR });
        };
        let message_id = self.name(*first, &order, true);
        let gathering = Arc::new(Gathering {
            waiting: AtomicUsize::new(numbers.len()),
            of: numbers.len(),
            failed: Mutex::new(failed),
            message_id,
            reply: Mutex::new(Some(reply)),
        });
        for (address, msn) in numbers {
            let gathering = gathering.clone();
            let request = order.request(client.clone(), msn, &message_id, Origin::MANY);
            self.enqueue(&order, request, Box::new(move |result| gathering.ended(address, result)));
        }
    }

    /// First the new one is safe, then the old ones go: nothing is lost between.
    fn enqueue(&self, order: &Order, request: Request, done: Box<dyn FnOnce(Result<(), CommandStatus>) + Send>) {
        if !order.replaces {
            return self.queue.enqueue(request, Box::new(move |result| done(stored(result).map(|_| ()))));
        }
        let (queue, like, at) = (self.queue.clone(), order.kin.like(), (self.clock)());
        let (client, msn) = (request.origin.client.clone(), request.origin.msn);
        let enqueued = move |result| match stored(result) {
            Ok(than) => {
                let older = Older { client, msn, like, than };
                queue.supersede(older, at, Box::new(|gone| done(gone.map(|_| ()).map_err(|_| CommandStatus::RSYSERR))));
            }
            Err(status) => done(Err(status)),
        };
        self.queue.enqueue(request, Box::new(enqueued));
    }

    fn name(&self, msn: Msisdn, order: &Order, many: bool) -> COctets<65> {
        Making { msn, drawn: (self.random)(), kin: order.kin, many, wish: order.wish }.name()
    }

    fn destination(&self, address: &Address) -> Option<Msisdn> {
        self.applications.numbers.destination(address)
    }

    fn order(&self, message: &ShortMessage) -> Result<Order, CommandStatus> {
        let not_before = self.not_before(&message.schedule)?.unwrap_or_default();
        let expires_at = self.expiry(&message.validity, not_before)?;
        let source = source(&message.source);
        let parts = Message::of(message)
            .and_then(|m| m.parts(&source, message.protocol_id, (self.random)() as u8, MAX_PARTS as u8))
            .map_err(|unreadable| unreadable.status())?;
        Ok(Order {
            parts,
            not_before,
            expires_at: expires_at.unwrap_or((self.clock)().max(not_before) + self.validity),
            rank: [2, 1, 1, 0][usize::from(message.priority.min(3))],
            wish: Wish::from_bits(message.registered_delivery),
            kin: Kin::of(&source, message.service_type.as_bytes()),
            replaces: message.replace_if_present == 1,
        })
    }

    /// Unix milliseconds of schedule_delivery_time; `None`: nothing is said, or it is over.
    fn not_before(&self, schedule: &COctets<17>) -> Result<Option<i64>, CommandStatus> {
        let now = (self.clock)();
        match smpp_time::until(schedule, now) {
            Ok(Some(time)) if time > MAX_VALIDITY => Err(CommandStatus::RINVSCHED),
            Ok(Some(time)) if time > 0 => Ok(Some(now + time)),
            Ok(_) => Ok(None),
            Err(_) => Err(CommandStatus::RINVSCHED),
        }
    }

    /// Unix milliseconds of validity_period, which must not be over before the message goes out.
    fn expiry(&self, validity: &COctets<17>, not_before: i64) -> Result<Option<i64>, CommandStatus> {
        let now = (self.clock)();
        let begins = now.max(not_before);
        match smpp_time::until(validity, now) {
            Ok(Some(time)) if now + time > begins => Ok(Some((now + time).min(begins + MAX_VALIDITY))),
            Ok(None) => Ok(None),
            _ => Err(CommandStatus::RINVEXPIRY),
        }
    }
}

impl Order {
    /// `flags` besides what the order says.
    fn request(&self, client: Arc<str>, msn: Msisdn, id: &COctets<65>, flags: u8) -> Request {
        let origin = Origin {
            client,
            msn,
            reqid: String::from_utf8_lossy(id.as_bytes()).into(),
            expires_at: self.expires_at,
            rank: self.rank,
            flags: flags | Origin::UNJUDGED | if self.wish == Wish::Nothing { 0 } else { Origin::NOTIFY },
            // At most `MAX_PARTS`.
            parts: self.parts.len() as u8,
        };
        Request { origin, digest: 0, not_before: self.not_before, parts: self.parts.clone() }
    }
}

impl Gathering {
    /// With the last of them, the answer: good while one got in (§4.5.2).
    fn ended(&self, destination: Address, result: Result<(), CommandStatus>) {
        if let Err(status) = result {
            self.failed.lock().push(Failed { destination, status });
        }
        if self.waiting.fetch_sub(1, AcqRel) > 1 {
            return;
        }
        let Some(reply) = self.reply.lock().take() else { return };
        let failed = std::mem::take(&mut *self.failed.lock());
        let stored = failed.iter().filter(|f| f.status != CommandStatus::RINVDSTADR).count() < self.of;
        match failed.last() {
            Some(last) if !stored => reply.status(last.status),
            _ => {
                let body = SubmitMultiResp { message_id: self.message_id, failed, ..SubmitMultiResp::default() };
                reply.with(CommandStatus::ROK, Response::SubmitMulti(body));
            }
        }
    }
}

fn stored(result: Result<Enqueued, StoreError>) -> Result<Option<SegmentId>, CommandStatus> {
    match result {
        Ok(stored @ (Enqueued::New(_) | Enqueued::Again(_))) => Ok(stored.id()),
        Err(StoreError::Full) => Err(CommandStatus::RMSGQFUL),
        Ok(Enqueued::Other) | Err(_) => Err(CommandStatus::RSYSERR),
    }
}

fn client(esme: &Esme) -> Arc<str> {
    format!("{CLIENT}{}", String::from_utf8_lossy(esme.system_id.as_bytes())).into()
}

/// Names are Latin-1, as far as they are anything.
pub(crate) fn source(address: &Address) -> Box<str> {
    let text: String = address.digits.as_bytes().iter().copied().map(char::from).collect();
    match address.ton {
        1 if !text.starts_with('+') && !text.is_empty() => format!("+{text}").into(),
        _ => text.into(),
    }
}

fn state(state: State, verdict: Verdict) -> receipt::State {
    match (state, verdict) {
        (State::Scheduled, _) => receipt::State::Scheduled,
        (State::Queued | State::Deferred | State::Sent | State::Cancelling, _) => receipt::State::Enroute,
        (State::Delivered, _) => receipt::State::Delivered,
        (_, Verdict::EXPIRED) => receipt::State::Expired,
        (_, Verdict::CANCELLED) => receipt::State::Deleted,
        (_, Verdict::REJECTED) => receipt::State::Rejected,
        _ => receipt::State::Undeliverable,
    }
}

/// Milliseconds for which anything waits, or is tried, at most: 30 days, as for pushes.
const MAX_VALIDITY: i64 = 43_200 * 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_senders_keep_their_letters() {
        let address = Address { ton: 5, npi: 0, digits: COctets::new(b"Caf\xe9").unwrap() };
        assert_eq!(&*source(&address), "Café");
        assert_eq!(crate::smpp::address("Café"), address);
    }
}
