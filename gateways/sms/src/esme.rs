//! Legacy applications that bind to us over SMPP: what they submit goes into the same queue, and its end comes back as a receipt.
//!
//! A message is called by its number and a drawn number, in hexadecimal: so query_sm, cancel_sm and replace_sm find their row without
//! another index. The message of a submit_multi has one name for all its destinations, that of the first number.

mod delivering;
mod numbers;
mod telling;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};

use delivering::DELIVERY;
pub use delivering::{Applications, Carriers, Keeper, ToApplications};
use gw_smpp::pdu::{
    Address, COctets, CancelSm, CommandStatus, Destination, Failed, QuerySmResp, ReplaceSm, Request as Pdu, Response,
    ShortMessage, SubmitMulti, SubmitMultiResp, Tag,
};
use gw_smpp::{Accounts, BindAttempt, BindReply, DoorPort, Esme, Outcome, Reply, Verdict as SmppVerdict};
pub use numbers::{Numbers, beginning, is_short_code};
use parking_lot::Mutex;
use sip_ims::Msisdn;
use sip_ims::ports::StoreError;
pub use telling::{Bell, Callee, EsmeTeller, Receipts};

use crate::queue::{
    Cancel, Enqueued, MAX_PARTS, MAX_SHORT_MESSAGE, Origin, Part, Queue, Replaced, Replacement, Request, RequestKey,
    SegmentId, State, Verdict,
};
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
            Pdu::QuerySm(query) => self.query(client, query.message_id, reply),
            Pdu::ReplaceSm(replace) => self.replace(client, replace, reply),
            _ => reply.status(CommandStatus::RINVCMDID),
        }
    }

    fn outcomes(&self, outcomes: &mut Vec<Outcome>) {
        let mut delivered = Vec::new();
        for Outcome { ticket, verdict } in outcomes.drain(..) {
            if ticket & DELIVERY != 0 {
                delivered.push((SegmentId((ticket & !DELIVERY) as i64), verdict));
            } else {
                self.receipts.settle(ticket, matches!(verdict, SmppVerdict::Done(_)));
            }
        }
        self.applications.reported(&delivered);
    }

    fn bound(&self, esme: &Arc<Esme>) {
        self.applications.bound(esme);
    }

    fn unbound(&self, _: &Arc<Esme>) {
        self.applications.unbound();
    }
}

/// What is the same for all destinations of a message.
struct Order {
    parts: Vec<Part>,
    expires_at: i64,
    rank: u8,
    wish: Wish,
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
        let (order, id) = match self.order(message).and_then(|order| Ok((self.name(msn, order.wish)?, order))) {
            Ok((id, order)) => (order, id),
            Err(status) => return reply.status(status),
        };
        let done = move |result| match stored(result) {
            Ok(()) => reply.accepted(id),
            Err(status) => reply.status(status),
        };
        self.queue.enqueue(order.request(client, msn, &id), Box::new(done));
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
        let message_id = match self.name(*first, order.wish) {
            Ok(id) => id,
            Err(status) => return reply.status(status),
        };
        let gathering = Arc::new(Gathering {
            waiting: AtomicUsize::new(numbers.len()),
            of: numbers.len(),
            failed: Mutex::new(failed),
            message_id,
            reply: Mutex::new(Some(reply)),
        });
        for (address, msn) in numbers {
            let gathering = gathering.clone();
            let request = order.request(client.clone(), msn, &message_id);
            self.queue.enqueue(request, Box::new(move |result| gathering.ended(address, stored(result))));
        }
    }

    fn destination(&self, address: &Address) -> Option<Msisdn> {
        self.applications.numbers.destination(address)
    }

    fn order(&self, message: &ShortMessage) -> Result<Order, CommandStatus> {
        let now = (self.clock)();
        // Nothing is kept here for later.
        let later = smpp_time::until(&message.schedule, now).map_err(|_| CommandStatus::RINVSCHED)?;
        if later.is_some_and(|time| time > 0) {
            return Err(CommandStatus::RINVSCHED);
        }
        let parts = Message::of(message)
            .and_then(|m| {
                m.parts(&source(&message.source), message.protocol_id, (self.random)() as u8, MAX_PARTS as u8)
            })
            .map_err(|unreadable| unreadable.status())?;
        Ok(Order {
            parts,
            expires_at: self.expiry(&message.validity, now)?.unwrap_or(now + self.validity),
            rank: [2, 1, 1, 0][usize::from(message.priority.min(3))],
            wish: Wish::from_bits(message.registered_delivery),
        })
    }

    fn expiry(&self, validity: &COctets<17>, now: i64) -> Result<Option<i64>, CommandStatus> {
        match smpp_time::until(validity, now) {
            Ok(Some(time)) if time > 0 => Ok(Some(now + time.min(MAX_VALIDITY))),
            Ok(None) => Ok(None),
            _ => Err(CommandStatus::RINVEXPIRY),
        }
    }

    /// A new message's name. At most 12 + 1 + 16 + 2 characters.
    fn name(&self, msn: Msisdn, wish: Wish) -> Result<COctets<65>, CommandStatus> {
        let name = format!("{:x}-{:016x}{}", msn.as_u64(), (self.random)(), wish.suffix());
        COctets::new(name.as_bytes()).map_err(|_| CommandStatus::RSYSERR)
    }

    fn cancel(&self, client: Arc<str>, cancel: &CancelSm, reply: Reply) {
        // All that one source sent (§4.9.1): nobody counts them here.
        if cancel.message_id.is_empty() {
            return reply.status(CommandStatus::RCANCELFAIL);
        }
        let Some(mut key) = key(client, &cancel.message_id) else { return reply.status(CommandStatus::RINVMSGID) };
        // Of a submit_multi, that one.
        key.msn = self.destination(&cancel.destination).unwrap_or(key.msn);
        let done = move |result: Result<Cancel, StoreError>| match result {
            Ok(Cancel::Taken | Cancel::Partly | Cancel::Again) => reply.ok(),
            Ok(Cancel::Unknown) => reply.status(CommandStatus::RINVMSGID),
            Ok(Cancel::Over) => reply.status(CommandStatus::RCANCELFAIL),
            Err(_) => reply.status(CommandStatus::RSYSERR),
        };
        self.queue.cancel(key, (self.clock)(), Box::new(done));
    }

    fn query(&self, client: Arc<str>, id: COctets<65>, reply: Reply) {
        let Some(key) = key(client, &id) else { return reply.status(CommandStatus::RINVMSGID) };
        let done = move |result: Result<Option<crate::queue::Status>, StoreError>| match result {
            Ok(Some(status)) => {
                let segments = &status.segments;
                // One that is not over, else one that did not arrive, else any.
                let last = segments.iter().find(|s| !s.0.is_final());
                let last = last.or_else(|| segments.iter().find(|s| s.0 != State::Delivered)).or(segments.first());
                let (state, error) = last.map_or((receipt::State::Unknown, 0), |s| (state(s.0, s.1), s.1.0 % 1_000));
                let body = QuerySmResp {
                    message_id: id,
                    final_date: if state.is_final() { smpp_time::absolute(status.done_at) } else { COctets::EMPTY },
                    state: state.octet(),
                    error: if state == receipt::State::Delivered { 0 } else { error as u8 },
                    ..QuerySmResp::default()
                };
                reply.with(CommandStatus::ROK, Response::QuerySm(body));
            }
            Ok(None) => reply.status(CommandStatus::RINVMSGID),
            Err(_) => reply.status(CommandStatus::RQUERYFAIL),
        };
        self.queue.find(key, Box::new(done));
    }

    /// In the queue, or by the centre that has it.
    fn replace(&self, client: Arc<str>, replace: ReplaceSm, reply: Reply) {
        let Some(key) = key(client, &replace.message_id) else { return reply.status(CommandStatus::RINVMSGID) };
        let text = match replace.tlvs.get(Tag::MESSAGE_PAYLOAD) {
            Some(payload) if replace.short_message.is_empty() => payload,
            _ => &replace.short_message,
        };
        if text.len() > MAX_SHORT_MESSAGE {
            return reply.status(CommandStatus::RINVMSGLEN);
        }
        let expires_at = match self.expiry(&replace.validity, (self.clock)()) {
            Ok(expires_at) => expires_at,
            Err(status) => return reply.status(status),
        };
        let with = Replacement { short_message: text.into(), expires_at };
        let centre = self.centre.clone();
        let done = move |result: Result<Replaced, StoreError>| match result {
            Ok(Replaced::Yes) => reply.ok(),
            Ok(Replaced::Unknown) => reply.status(CommandStatus::RINVMSGID),
            Ok(Replaced::No | Replaced::Busy) => reply.status(CommandStatus::RREPLACEFAIL),
            Ok(Replaced::Sent(name)) => centre.replace(&name, replace, Box::new(move |status| reply.status(status))),
            Err(_) => reply.status(CommandStatus::RSYSERR),
        };
        self.queue.replace(key, with, Box::new(done));
    }
}

impl Order {
    fn request(&self, client: Arc<str>, msn: Msisdn, id: &COctets<65>) -> Request {
        let origin = Origin {
            client,
            msn,
            reqid: String::from_utf8_lossy(id.as_bytes()).into(),
            expires_at: self.expires_at,
            rank: self.rank,
            flags: Origin::UNJUDGED | if self.wish == Wish::Nothing { 0 } else { Origin::NOTIFY },
            // At most `MAX_PARTS`.
            parts: self.parts.len() as u8,
        };
        Request { origin, digest: 0, parts: self.parts.clone() }
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

/// Which ends an ESME wants to hear of (registered_delivery, §5.2.17, and 3 of 5.0 §4.7.21). The name of its message says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Nothing,
    Everything,
    Failures,
    Successes,
}

impl Wish {
    fn from_bits(registered_delivery: u8) -> Wish {
        match registered_delivery & 3 {
            0 => Wish::Nothing,
            1 => Wish::Everything,
            2 => Wish::Failures,
            _ => Wish::Successes,
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Wish::Nothing | Wish::Everything => "",
            Wish::Failures => "-2",
            Wish::Successes => "-3",
        }
    }

    /// Of a message that asked for something.
    fn of(name: &str) -> Wish {
        match name.get(name.len().saturating_sub(2)..) {
            Some("-2") => Wish::Failures,
            Some("-3") => Wish::Successes,
            _ => Wish::Everything,
        }
    }

    fn includes(self, delivered: bool) -> bool {
        match self {
            Wish::Nothing => false,
            Wish::Everything => true,
            Wish::Failures => !delivered,
            Wish::Successes => delivered,
        }
    }
}

fn stored(result: Result<Enqueued, StoreError>) -> Result<(), CommandStatus> {
    match result {
        Ok(Enqueued::New(_) | Enqueued::Again(_)) => Ok(()),
        Err(StoreError::Full) => Err(CommandStatus::RMSGQFUL),
        Ok(Enqueued::Other) | Err(_) => Err(CommandStatus::RSYSERR),
    }
}

fn state(state: State, verdict: Verdict) -> receipt::State {
    match (state, verdict) {
        (State::Queued | State::Deferred | State::Sent | State::Cancelling, _) => receipt::State::Enroute,
        (State::Delivered, _) => receipt::State::Delivered,
        (_, Verdict::EXPIRED) => receipt::State::Expired,
        (_, Verdict::CANCELLED) => receipt::State::Deleted,
        (_, Verdict::REJECTED) => receipt::State::Rejected,
        _ => receipt::State::Undeliverable,
    }
}

fn client(esme: &Esme) -> Arc<str> {
    format!("{CLIENT}{}", String::from_utf8_lossy(esme.system_id.as_bytes())).into()
}

/// Of a message id that we gave.
fn key(client: Arc<str>, id: &COctets<65>) -> Option<RequestKey> {
    let name = std::str::from_utf8(id.as_bytes()).ok()?;
    let (digits, _) = name.split_once('-')?;
    let msn = format!("+{}", u64::from_str_radix(digits, 16).ok()?).parse().ok()?;
    Some(RequestKey { client, msn, reqid: name.into() })
}

/// Names are Latin-1, as far as they are anything.
pub(crate) fn source(address: &Address) -> Box<str> {
    let text: String = address.digits.as_bytes().iter().copied().map(char::from).collect();
    match address.ton {
        1 if !text.starts_with('+') && !text.is_empty() => format!("+{text}").into(),
        _ => text.into(),
    }
}

/// Milliseconds for which anything is tried at most: 30 days, as for pushes.
const MAX_VALIDITY: i64 = 43_200 * 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_finds_its_request() {
        let id = COctets::new(b"beb2b0b5ae-0000000000000001").unwrap();
        let found = key("esme:x".into(), &id).unwrap();
        assert_eq!(found.msn.as_u64(), 0xbe_b2b0_b5ae);
        assert!(key("esme:x".into(), &COctets::new(b"17").unwrap()).is_none());
    }

    #[test]
    fn a_name_says_which_ends_are_told() {
        for (bits, told) in [(1, [true, true]), (2, [true, false]), (3, [false, true]), (0x12, [true, false])] {
            let name = format!("1-0{}", Wish::from_bits(bits).suffix());
            assert_eq!([false, true].map(|delivered| Wish::of(&name).includes(delivered)), told, "{bits}");
        }
        assert_eq!(Wish::from_bits(0), Wish::Nothing);
    }

    #[test]
    fn names_of_senders_keep_their_letters() {
        let address = Address { ton: 5, npi: 0, digits: COctets::new(b"Caf\xe9").unwrap() };
        assert_eq!(&*source(&address), "Café");
        assert_eq!(crate::smpp::address("Café"), address);
    }
}
