//! The receivers of ESMEs: at the door of this node, else at that of another.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use gw_smpp::pdu::{COctets, CommandStatus, Request as Pdu, Response, ShortMessage};
use gw_smpp::{Door, Esme, Outcome, Refused, Ticket, Verdict};

use super::elsewhere::{Elsewhere, Heard, Nodes, Receiver, Word};

/// Where ESMEs are reached.
pub struct Receivers {
    /// Opens later than what delivers.
    door: OnceLock<Door>,
    others: Option<Others>,
}

struct Others {
    node: Box<str>,
    elsewhere: Elsewhere,
    nodes: Arc<dyn Nodes>,
}

/// What came of a word of another node.
#[derive(Default)]
pub(super) struct News {
    /// ESMEs that can be reached now and could not before.
    pub came: Vec<COctets<16>>,
    pub outcomes: Vec<Outcome>,
}

impl Receivers {
    /// `nodes`: of a cluster, with the name of this one.
    pub fn new(nodes: Option<(&str, Arc<dyn Nodes>)>) -> Receivers {
        let others = nodes.map(|(node, nodes)| Others { node: node.into(), elsewhere: Elsewhere::new(node), nodes });
        Receivers { door: OnceLock::new(), others }
    }

    /// Once.
    pub fn open(&self, door: Door) {
        // The first stays.
        let _ = self.door.set(door);
    }

    pub fn door(&self) -> Option<&Door> {
        self.door.get()
    }

    /// Whether this ESME takes deliveries to this address now; empty: to any.
    pub fn receives(&self, esme: &COctets<16>, address: &[u8]) -> bool {
        self.door.get().is_some_and(|door| door.receives(esme, address))
            || self.others.as_ref().is_some_and(|others| others.elsewhere.receives(esme, address))
    }

    /// Once taken, it has exactly one outcome.
    pub fn deliver(&self, esme: &COctets<16>, ticket: Ticket, message: ShortMessage) -> bool {
        if let Some(door) = self.door.get()
            && door.receives(esme, message.destination.digits.as_bytes())
        {
            return door.deliver(esme, ticket, Pdu::DeliverSm(message)).is_ok();
        }
        let Some(others) = &self.others else { return false };
        match others.elsewhere.deliver(esme, ticket, &message, Instant::now()) {
            Some(word) => {
                others.nodes.say(&word);
                true
            }
            None => false,
        }
    }

    /// Tells the other nodes who is here. At each change and every [`REPEAT`](super::elsewhere::REPEAT).
    pub(super) fn announce(&self) {
        let (Some(others), Some(door)) = (&self.others, self.door.get()) else { return };
        let mut here: Vec<Receiver> = Vec::new();
        for esme in door.esmes().iter().filter(|esme| esme.kind.receives()) {
            if !here.contains(&receiver(esme)) {
                here.push(receiver(esme));
            }
        }
        let say = |receivers: &[Receiver]| {
            others.nodes.say(&Word::Here { node: others.node.clone(), receivers: receivers.to_vec() });
        };
        if here.is_empty() {
            say(&[]);
        }
        here.chunks(Word::RECEIVERS).for_each(say);
    }

    pub(super) fn left(&self, esme: &Esme) {
        let (Some(others), Some(door)) = (&self.others, self.door.get()) else { return };
        let gone = receiver(esme);
        let same = |other: &Arc<Esme>| other.kind.receives() && receiver(other) == gone;
        if esme.kind.receives() && !door.esmes().iter().any(same) {
            others.nodes.say(&Word::Gone { node: others.node.clone(), receiver: gone });
        }
    }

    pub(super) fn heard(&self, bytes: &[u8]) -> News {
        let mut news = News::default();
        let (Some(others), Some(word)) = (&self.others, Word::from_bytes(bytes)) else { return news };
        match others.elsewhere.heard(word, Instant::now()) {
            Heard::Nothing => {}
            Heard::Came(esmes) => news.came = esmes,
            Heard::Ended(outcome) => news.outcomes.push(outcome),
            Heard::Deliver(esme, ours, message) => {
                let taken = match self.door.get() {
                    Some(door) => {
                        door.deliver(&esme, ours | super::DELIVERY, Pdu::DeliverSm(message)).map_err(|e| e.why)
                    }
                    None => Err(Refused::Down),
                };
                match taken {
                    Ok(()) => {}
                    Err(Refused::Busy) => {
                        self.ended(ours, Verdict::Refused(BUSY, Response::DeliverSm(Default::default())))
                    }
                    Err(_) => self.ended(ours, Verdict::Unsent),
                }
            }
        }
        news
    }

    /// How a delivery for another node ended.
    pub(super) fn ended(&self, ours: Ticket, verdict: Verdict) {
        if let Some(others) = &self.others
            && let Some(word) = others.elsewhere.ended(ours, verdict)
        {
            others.nodes.say(&word);
        }
    }

    /// What nodes had that are silent.
    pub(super) fn lapsed(&self) -> Vec<Outcome> {
        self.others.as_ref().map_or_else(Vec::new, |others| others.elsewhere.lapsed(Instant::now()))
    }

    /// Whether this is a ticket of [`heard`](Self::heard), the mark of deliveries taken off: segments of this century have greater names.
    pub(super) fn is_for_another(ticket: Ticket) -> bool {
        ticket <= Ticket::from(u32::MAX)
    }
}

/// For the node that gave it: the session has more than it can take, so a little later.
const BUSY: CommandStatus = CommandStatus::RX_T_APPN;

fn receiver(esme: &Esme) -> Receiver {
    Receiver { esme: esme.system_id, range: esme.address_range }
}
