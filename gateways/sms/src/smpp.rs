//! SMPP links as carriers: segments leave as submit_sm, and outcomes and receipts come back to the dispatcher.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use gw_smpp::pdu::{Address, COctets, CancelSm, CommandStatus, Octets, ReplaceSm, Request, ShortMessage, Tag, Tlvs};
use gw_smpp::{Link, LinkPort, LinkState, Links, Outcome, Reply, Verdict as SmppVerdict};
use parking_lot::Mutex;
use sip_ims::Msisdn;

use crate::dispatch::{Cancelled, Centre, Dispatcher, LinkId, Pause, Report};
use crate::queue::{Recall, Segment, SegmentId, SentAs, State, Verdict};
use crate::short_message::{UDHI, from_data};
use crate::{receipt, smpp_time};

/// What this side knows of a link beyond its own configuration.
#[derive(Clone, Debug)]
pub struct LinkTraits {
    pub name: Arc<str>,
    /// As the link's own: what is submitted and unanswered.
    pub window: usize,
    /// Where a message has no originating address: number with `+`, short code or name; empty: none.
    pub source: String,
    /// The TLV tag that carries the service instruction value; 0: none.
    pub line_state_tlv: u16,
}

/// The links, as a [`Centre`].
pub struct SmppCentre {
    links: OnceLock<Links>,
    traits: Vec<LinkTraits>,
    by_name: BTreeMap<Arc<str>, usize>,
    clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    replaces: Mutex<Replaces>,
}

/// replace_sm on their way, by ticket.
#[derive(Default)]
struct Replaces {
    last: u32,
    open: HashMap<u64, OnReplaced>,
}

/// Completion of [`SmppCentre::replace`].
pub type OnReplaced = Box<dyn FnOnce(CommandStatus) + Send>;

impl SmppCentre {
    /// `traits` in the order of the links. `clock`: unix milliseconds.
    pub fn new(traits: Vec<LinkTraits>, clock: Arc<dyn Fn() -> i64 + Send + Sync>) -> SmppCentre {
        let by_name = traits.iter().enumerate().map(|(n, t)| (t.name.clone(), n)).collect();
        SmppCentre { links: OnceLock::new(), traits, by_name, clock, replaces: Mutex::default() }
    }

    /// The links answer to a [`LinkSide`], which has this: so they come later.
    pub fn tie(&self, links: Links) {
        // The first stays: they are started once.
        let _ = self.links.set(links);
    }

    /// Asks the centre that has a message to exchange its body; `done` gets what it says.
    pub fn replace(&self, sent_as: &SentAs, replace: ReplaceSm, done: OnReplaced) {
        let link = self.links.get().and_then(|l| l.get(&sent_as.link));
        let (Some(link), Some(at)) = (link, self.by_name.get(&sent_as.link)) else {
            return done(CommandStatus::RREPLACEFAIL);
        };
        let source = if replace.source.digits.is_empty() { address(&self.traits[*at].source) } else { replace.source };
        let message_id = COctets::new(sent_as.message_id.as_bytes()).unwrap_or_default();
        let request = Request::ReplaceSm(ReplaceSm { message_id, source, ..replace });
        let ticket = {
            let mut replaces = self.replaces.lock();
            replaces.last = replaces.last.wrapping_add(1);
            let ticket = CANCEL | u64::from(replaces.last);
            replaces.open.insert(ticket, done);
            ticket
        };
        if link.try_submit(ticket, request).is_err() {
            self.replaced(ticket, CommandStatus::RREPLACEFAIL);
        }
    }

    fn replaced(&self, ticket: u64, status: CommandStatus) {
        let done = self.replaces.lock().open.remove(&ticket);
        if let Some(done) = done {
            done(status);
        }
    }

    fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get()?.get(&self.traits.get(id.0)?.name)
    }
}

impl Centre for SmppCentre {
    fn choose(&self, msn: Msisdn) -> Option<LinkId> {
        let link = self.links.get()?.choose(msn.as_u64().to_string().as_bytes()).ok()?;
        self.by_name.get(link.name()).map(|n| LinkId(*n))
    }

    fn room(&self, id: LinkId) -> usize {
        // A window on the wire and one that waits behind it, so that the wire is never idle.
        match self.link(id) {
            Some(link) if link.is_up() => (2 * self.traits[id.0].window).saturating_sub(link.open()),
            _ => 0,
        }
    }

    fn submit(&self, id: LinkId, segment: &Segment, instruction: Option<u8>) -> bool {
        let Some(link) = self.link(id) else { return false };
        let own = &self.traits[id.0];
        let source = if segment.part.source.is_empty() { own.source.as_str() } else { &segment.part.source };
        let tlvs = match (own.line_state_tlv, instruction) {
            (0, _) | (_, None) => Tlvs::default(),
            (tag, Some(value)) => Tlvs::build().u8(Tag(tag), value).done(),
        };
        let message = ShortMessage {
            source: address(source),
            destination: number(segment.origin.msn),
            esm_class: if segment.part.udhi { UDHI } else { 0 },
            protocol_id: segment.part.protocol_id,
            priority: [3, 1, 0, 0][usize::from(segment.origin.rank.min(3))],
            validity: smpp_time::relative(segment.origin.expires_at - (self.clock)()),
            registered_delivery: 1,
            data_coding: segment.part.data_coding,
            short_message: Octets::copied(&segment.part.short_message),
            tlvs,
            ..ShortMessage::default()
        };
        link.try_submit(segment.id.0 as u64, Request::SubmitSm(message)).is_ok()
    }

    fn cancel(&self, recall: &Recall, sent_as: &SentAs) -> bool {
        let (Some(link), Some(at)) =
            (self.links.get().and_then(|l| l.get(&sent_as.link)), self.by_name.get(&sent_as.link))
        else {
            return false;
        };
        let source = if recall.source.is_empty() { self.traits[*at].source.as_str() } else { &recall.source };
        let cancel = CancelSm {
            message_id: COctets::new(sent_as.message_id.as_bytes()).unwrap_or_default(),
            source: address(source),
            destination: number(recall.origin.msn),
            ..CancelSm::default()
        };
        !cancel.message_id.is_empty() && link.try_submit(recall.id.0 as u64 | CANCEL, Request::CancelSm(cancel)).is_ok()
    }

    fn exists(&self) -> bool {
        !self.traits.is_empty()
    }

    fn name(&self, id: LinkId) -> Arc<str> {
        self.traits.get(id.0).map_or_else(|| "".into(), |t| t.name.clone())
    }
}

/// Takes messages that are no receipts: from subscribers, by way of the centre.
pub trait Inbound: Send + Sync {
    /// `reply` is to be answered once the message cannot be lost any more.
    fn message(&self, link: &Arc<str>, message: ShortMessage, reply: Reply);
}

/// What the links answer to.
pub struct LinkSide {
    pub dispatcher: Arc<Dispatcher>,
    pub centre: Arc<SmppCentre>,
    pub inbound: Arc<dyn Inbound>,
}

impl LinkPort for LinkSide {
    fn outcomes(&self, link: &Arc<str>, outcomes: &mut Vec<Outcome>) {
        let Some(at) = self.centre.by_name.get(link) else { return };
        let mut reports = Vec::with_capacity(outcomes.len());
        for outcome in outcomes.drain(..) {
            let id = SegmentId((outcome.ticket & !CANCEL) as i64);
            // Segments of this century have greater names.
            if outcome.ticket & CANCEL != 0 && id.0 <= i64::from(u32::MAX) {
                self.centre.replaced(outcome.ticket, replaced(&outcome.verdict));
            } else if outcome.ticket & CANCEL != 0 {
                self.dispatcher.cancelled(id, cancelled(&outcome.verdict));
            } else {
                reports.push((id, report(&outcome.verdict)));
            }
        }
        self.dispatcher.reported(LinkId(*at), reports);
    }

    fn delivered(&self, link: &Arc<str>, request: Request, reply: Reply) {
        let (message, is_receipt) = match request {
            Request::DeliverSm(message) => {
                let is_receipt = message.is_receipt();
                (message, is_receipt)
            }
            Request::DataSm(data) => {
                let is_receipt = data.is_receipt();
                (from_data(data), is_receipt)
            }
            _ => return reply.ok(),
        };
        let source = receipt::Source {
            text: message.text(),
            receipted_message_id: message.tlvs.text(Tag::RECEIPTED_MESSAGE_ID),
            message_state: message.tlvs.u8(Tag::MESSAGE_STATE),
            network_error: message.tlvs.get(Tag::NETWORK_ERROR_CODE).and_then(|v| v.try_into().ok()),
        };
        // Some centres forget to mark their receipts; those that are marked or have the TLV are meant.
        if !is_receipt && source.receipted_message_id.is_none() {
            return self.inbound.message(link, message, reply);
        }
        match receipt::parse(&source) {
            // Not readable: nobody would read it better the next time.
            None => {
                tracing::warn!(%link, "a receipt that cannot be read");
                reply.ok();
            }
            Some(receipt) if !receipt.state.is_final() => reply.ok(),
            Some(receipt) => {
                let names = receipt::keys(&receipt.id).into_iter();
                let names = names.map(|key| SentAs { link: link.clone(), message_id: key.into() }).collect();
                let done = move |result: Result<(), _>| match result {
                    Ok(()) => reply.ok(),
                    // Dropped: the centre is told to try again.
                    Err(_) => drop(reply),
                };
                self.dispatcher.receipt(names, end(receipt.state), Box::new(done));
            }
        }
    }

    fn state(&self, link: &Arc<str>, state: LinkState) {
        tracing::debug!(%link, ?state, "segments are routed anew");
        self.dispatcher.wake();
    }
}

fn report(verdict: &SmppVerdict) -> Report {
    match verdict {
        SmppVerdict::Done(_) => {
            let id = verdict.message_id().map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
            Report::Taken { message_id: id.unwrap_or_default().into() }
        }
        SmppVerdict::Again(_) => Report::Again,
        SmppVerdict::Refused(status, _) if status.is_temporary() => Report::Later(Pause::Busy),
        SmppVerdict::Refused(..) => Report::Never(Verdict::REJECTED),
        SmppVerdict::Unknown | SmppVerdict::Unsent => Report::Unknown,
    }
}

fn cancelled(verdict: &SmppVerdict) -> Cancelled {
    match verdict {
        SmppVerdict::Done(_) => Cancelled::Yes,
        SmppVerdict::Refused(status, _) if !status.is_temporary() => Cancelled::No,
        _ => Cancelled::Later,
    }
}

fn replaced(verdict: &SmppVerdict) -> CommandStatus {
    match verdict {
        SmppVerdict::Done(_) => CommandStatus::ROK,
        SmppVerdict::Refused(status, _) | SmppVerdict::Again(status) => *status,
        SmppVerdict::Unknown | SmppVerdict::Unsent => CommandStatus::RREPLACEFAIL,
    }
}

fn end(state: receipt::State) -> (State, Verdict) {
    match state {
        receipt::State::Delivered => (State::Delivered, Verdict::DELIVERED),
        receipt::State::Expired => (State::Expired, Verdict::EXPIRED),
        receipt::State::Rejected => (State::Failed, Verdict::REJECTED),
        _ => (State::Failed, Verdict::UNDELIVERABLE),
    }
}

/// International digits, with or without `+`, whatever the type of number says: ESMEs seldom say it right.
pub fn destination(address: &Address) -> Option<Msisdn> {
    crate::push::message::number(std::str::from_utf8(address.digits.as_bytes()).ok()?)
}

/// International, E.164 (§5.2.5, §5.2.6).
pub fn number(msn: Msisdn) -> Address {
    // At most 15 digits.
    let digits = COctets::new(msn.as_u64().to_string().as_bytes()).unwrap_or_default();
    Address { ton: 1, npi: 1, digits }
}

/// `+` and digits: international; digits: a short code; anything else: a name; nothing: nothing.
pub fn address(source: &str) -> Address {
    let (ton, npi, text) = match source.strip_prefix('+') {
        Some(digits) => (1, 1, digits),
        None if source.is_empty() => (0, 0, source),
        None if source.bytes().all(|b| b.is_ascii_digit()) => (0, 1, source),
        None => (5, 0, source),
    };
    // Latin-1 where it can be; a centre may read it or not.
    let latin: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    Address { ton, npi, digits: COctets::new(latin.as_deref().unwrap_or(text.as_bytes())).unwrap_or_default() }
}

/// Marks the tickets of what is done with messages that a centre has: cancellations, by segment; replacements, by a number of 32 bits.
const CANCEL: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_their_kinds() {
        let kind = |source: &str| {
            let a = address(source);
            (a.ton, a.npi, String::from_utf8(a.digits.as_bytes().to_vec()).unwrap())
        };
        assert_eq!(kind("+819012345678"), (1, 1, "819012345678".into()));
        assert_eq!(kind("5555"), (0, 1, "5555".into()));
        assert_eq!(kind("Fleet"), (5, 0, "Fleet".into()));
        assert_eq!(kind(""), (0, 0, String::new()));
    }
}
