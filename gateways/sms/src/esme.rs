//! Legacy applications that bind to us over SMPP: what they submit goes into the same queue, and its end comes back as a receipt.
//!
//! A message is called by its number and a drawn number, in hexadecimal: so query_sm and cancel_sm find their row without another index.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use gw_smpp::pdu::{
    Address, COctets, CommandStatus, DataSm, Octets, QuerySmResp, Request as Pdu, Response, ShortMessage, Tag, Tlvs,
};
use gw_smpp::{Accounts, BindAttempt, BindReply, Door, DoorPort, Esme, Outcome, Reply, Verdict as SmppVerdict};
use parking_lot::Mutex;
use sip_ims::Msisdn;
use sip_ims::ports::StoreError;
use tokio::sync::oneshot;

use crate::billing::Calendar;
use crate::notice::{Teller, Told};
use crate::queue::{
    Cancel, Enqueued, MAX_SHORT_MESSAGE, Notice, Origin, Part, Queue, Request, RequestKey, State, Verdict,
};
use crate::receipt;
use crate::smpp::number;

/// How the names of these clients begin.
pub const CLIENT: &str = "esme:";

/// What ESMEs are answered from.
pub struct EsmeSide {
    pub accounts: Accounts,
    pub queue: Arc<dyn Queue>,
    /// Milliseconds for which a message without a validity period is tried.
    pub validity: i64,
    /// Unix milliseconds.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub receipts: Arc<Receipts>,
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
            Pdu::CancelSm(cancel) => self.cancel(client, &cancel.message_id, reply),
            Pdu::QuerySm(query) => self.query(client, query.message_id, reply),
            // A message that is on its way is not exchanged for another; lists are the ESME's to go through.
            Pdu::ReplaceSm(_) => reply.status(CommandStatus::RREPLACEFAIL),
            _ => reply.status(CommandStatus::RINVCMDID),
        }
    }

    fn outcomes(&self, outcomes: &mut Vec<Outcome>) {
        for outcome in outcomes.drain(..) {
            self.receipts.settle(outcome.ticket, matches!(outcome.verdict, SmppVerdict::Done(_)));
        }
    }
}

impl EsmeSide {
    fn submit(&self, client: Arc<str>, message: &ShortMessage, reply: Reply) {
        let (request, id) = match self.request(client, message) {
            Ok(request) => request,
            Err(status) => return reply.status(status),
        };
        let done = move |result: Result<Enqueued, StoreError>| match result {
            Ok(Enqueued::New(_) | Enqueued::Again(_)) => reply.accepted(id),
            Ok(Enqueued::Other) => reply.status(CommandStatus::RSYSERR),
            Err(StoreError::Full) => reply.status(CommandStatus::RMSGQFUL),
            Err(_) => reply.status(CommandStatus::RSYSERR),
        };
        self.queue.enqueue(request, Box::new(done));
    }

    fn request(&self, client: Arc<str>, message: &ShortMessage) -> Result<(Request, COctets<65>), CommandStatus> {
        let msn = destination(&message.destination).ok_or(CommandStatus::RINVDSTADR)?;
        let body = message.text();
        if body.len() > MAX_SHORT_MESSAGE {
            return Err(CommandStatus::RINVMSGLEN);
        }
        let name = format!("{:x}-{:016x}", msn.as_u64(), (self.random)());
        // At most 13 and 17 characters.
        let id = COctets::new(name.as_bytes()).map_err(|_| CommandStatus::RSYSERR)?;
        let now = (self.clock)();
        let wants_receipt = message.registered_delivery & 3 != 0;
        let part = Part {
            source: source(&message.source),
            udhi: message.esm_class & 0x40 != 0,
            data_coding: message.data_coding,
            protocol_id: message.protocol_id,
            short_message: body.into(),
        };
        let origin = Origin {
            client,
            msn,
            reqid: name.into(),
            expires_at: now + relative(&message.validity).unwrap_or(self.validity),
            rank: [2, 1, 1, 0][usize::from(message.priority.min(3))],
            flags: Origin::UNJUDGED | if wants_receipt { Origin::NOTIFY } else { 0 },
            parts: 1,
        };
        Ok((Request { origin, digest: 0, parts: vec![part] }, id))
    }

    fn cancel(&self, client: Arc<str>, id: &COctets<65>, reply: Reply) {
        let Some(key) = key(client, id) else { return reply.status(CommandStatus::RINVMSGID) };
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
                let state = status.segments.first().map_or(receipt::State::Unknown, |s| state(s.0, s.1));
                let body = QuerySmResp { message_id: id, state: state.octet(), ..QuerySmResp::default() };
                reply.with(CommandStatus::ROK, Response::QuerySm(body));
            }
            Ok(None) => reply.status(CommandStatus::RINVMSGID),
            Err(_) => reply.status(CommandStatus::RQUERYFAIL),
        };
        self.queue.find(key, Box::new(done));
    }
}

/// Receipts on their way to ESMEs.
#[derive(Default)]
pub struct Receipts {
    open: Mutex<HashMap<u64, oneshot::Sender<bool>>>,
}

impl Receipts {
    fn settle(&self, ticket: u64, taken: bool) {
        if let Some(waiting) = self.open.lock().remove(&ticket) {
            // Whoever waited may have given up.
            let _ = waiting.send(taken);
        }
    }
}

/// Tells ESMEs, by deliver_sm.
pub struct EsmeTeller {
    pub door: Arc<OnceLock<Door>>,
    pub receipts: Arc<Receipts>,
    pub calendar: Calendar,
}

impl Teller for EsmeTeller {
    fn tell(&self, notice: &Notice) -> Pin<Box<dyn Future<Output = Told> + Send>> {
        let system_id = notice.client.strip_prefix(CLIENT).and_then(|id| COctets::new(id.as_bytes()).ok());
        let Some(system_id) = system_id else { return Box::pin(std::future::ready(Told::Gone)) };
        let (settled, outcome) = oneshot::channel();
        let ticket = notice.id.0 as u64;
        self.receipts.open.lock().insert(ticket, settled);
        let pdu = Pdu::DeliverSm(self.receipt(notice));
        let taken = self.door.get().is_some_and(|door| door.deliver(&system_id, ticket, pdu).is_ok());
        if !taken {
            self.receipts.open.lock().remove(&ticket);
            return Box::pin(std::future::ready(Told::Absent));
        }
        Box::pin(async move { if outcome.await == Ok(true) { Told::Yes } else { Told::Absent } })
    }
}

impl EsmeTeller {
    fn receipt(&self, notice: &Notice) -> ShortMessage {
        let ended = if notice.delivered == notice.parts { State::Delivered } else { State::Failed };
        let state = state(ended, notice.verdict);
        let error = if state == receipt::State::Delivered { 0 } else { notice.verdict.0 % 1_000 };
        let at = |ms: i64| {
            let text: String = self.calendar.timestamp(ms).chars().filter(char::is_ascii_digit).collect();
            // YYYYMMDDhhmm… without the century.
            text.get(2..12).unwrap_or_default().to_owned()
        };
        let text = receipt::write(&notice.reqid, state, &at(notice.done_at), &at(notice.done_at), error, "");
        ShortMessage {
            source: number(notice.msn),
            esm_class: 0x04,
            short_message: Octets::copied(text.as_bytes()),
            tlvs: Tlvs::build()
                .text(Tag::RECEIPTED_MESSAGE_ID, notice.reqid.as_bytes())
                .u8(Tag::MESSAGE_STATE, state.octet())
                .done(),
            ..ShortMessage::default()
        }
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

/// International digits, with or without `+`, whatever the type of number says: ESMEs seldom say it right.
pub(crate) fn destination(address: &Address) -> Option<Msisdn> {
    let text = std::str::from_utf8(address.digits.as_bytes()).ok()?;
    crate::push::message::number(text)
}

pub(crate) fn source(address: &Address) -> Box<str> {
    let text = String::from_utf8_lossy(address.digits.as_bytes()).into_owned();
    match address.ton {
        1 if !text.starts_with('+') => format!("+{text}").into(),
        _ => text.into(),
    }
}

fn from_data(data: DataSm) -> ShortMessage {
    let short = |a: &Address<65>| Address {
        ton: a.ton,
        npi: a.npi,
        digits: COctets::new(a.digits.as_bytes()).unwrap_or_default(),
    };
    ShortMessage {
        source: short(&data.source),
        destination: short(&data.destination),
        esm_class: data.esm_class,
        registered_delivery: data.registered_delivery,
        data_coding: data.data_coding,
        tlvs: data.tlvs,
        ..ShortMessage::default()
    }
}

/// Milliseconds of a relative time (§7.1.1.2); `None` for none, or an absolute one.
fn relative(time: &COctets<17>) -> Option<i64> {
    let text = std::str::from_utf8(time.as_bytes()).ok()?.strip_suffix("000R")?;
    let number = |at: usize| text.get(at..at + 2)?.parse::<i64>().ok();
    let days = number(0)? * 365 + number(2)? * 30 + number(4)?;
    let minutes = (days * 24 + number(6)?) * 60 + number(8)?;
    let milliseconds = minutes * 60_000 + number(10)? * 1_000;
    (text.len() == 12 && milliseconds > 0).then_some(milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_times_are_read() {
        let of = |t: &str| relative(&COctets::new(t.as_bytes()).unwrap());
        assert_eq!(of("000001020304000R"), Some(((24 + 2) * 60 + 3) * 60_000 + 4_000), "a day, two hours, …");
        assert_eq!(
            (of(""), of("261127050000000+"), of("000000000000000R"), of("0000010203é000R")),
            (None, None, None, None)
        );
    }

    #[test]
    fn a_message_id_finds_its_request() {
        let id = COctets::new(b"beb2b0b5ae-0000000000000001").unwrap();
        let found = key("esme:x".into(), &id).unwrap();
        assert_eq!(found.msn.as_u64(), 0xbe_b2b0_b5ae);
        assert!(key("esme:x".into(), &COctets::new(b"17").unwrap()).is_none());
    }
}
