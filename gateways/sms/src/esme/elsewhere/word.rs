//! What nodes tell each other of ESMEs, as octets for a bus: a kind, then fields; texts with their length in front, a message as the
//! deliver_sm that it will be.

use bytes::{Bytes, BytesMut};
use gw_smpp::pdu::{COctets, CommandId, CommandStatus, Header, Pdu, Request, Response, ShortMessage};
use gw_smpp::{Ticket, Verdict};

/// An ESME, and the addresses that one of its sessions serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receiver {
    pub esme: COctets<16>,
    pub range: COctets<41>,
}

#[derive(Debug)]
pub enum Word {
    /// These are bound at this node; at most [`Word::RECEIVERS`], the others in another word. Whoever is not said again is there no more.
    Here {
        node: Box<str>,
        receivers: Vec<Receiver>,
    },
    Gone {
        node: Box<str>,
        receiver: Receiver,
    },
    /// To be delivered at another node.
    Deliver(Box<Delivery>),
    /// How that ended.
    Ended {
        to: Box<str>,
        ticket: Ticket,
        verdict: Verdict,
    },
}

/// A message on its way to the node that delivers it.
#[derive(PartialEq, Eq, Debug)]
pub struct Delivery {
    pub from: Box<str>,
    pub to: Box<str>,
    /// Of the node that it comes from.
    pub ticket: Ticket,
    pub esme: COctets<16>,
    pub message: ShortMessage,
}

impl Word {
    /// Receivers in one word: fewer than a hint has room for.
    pub const RECEIVERS: usize = 100;

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Word::Here { node, receivers } => {
                out.push(HERE);
                text(&mut out, node.as_bytes());
                receivers.iter().for_each(|receiver| write(&mut out, receiver));
            }
            Word::Gone { node, receiver } => {
                out.push(GONE);
                text(&mut out, node.as_bytes());
                write(&mut out, receiver);
            }
            Word::Deliver(delivery) => {
                out.push(DELIVER);
                text(&mut out, delivery.from.as_bytes());
                text(&mut out, delivery.to.as_bytes());
                out.extend_from_slice(&delivery.ticket.to_be_bytes());
                text(&mut out, delivery.esme.as_bytes());
                let mut frame = BytesMut::new();
                Request::DeliverSm(delivery.message.clone()).encode(1, &mut frame);
                out.extend_from_slice(&frame);
            }
            Word::Ended { to, ticket, verdict } => {
                out.push(ENDED);
                text(&mut out, to.as_bytes());
                out.extend_from_slice(&ticket.to_be_bytes());
                let (kind, status) = match verdict {
                    Verdict::Done(_) => (0, CommandStatus::ROK),
                    Verdict::Again(status) => (1, *status),
                    Verdict::Refused(status, _) => (2, *status),
                    Verdict::Unknown => (3, CommandStatus::ROK),
                    Verdict::Unsent => (4, CommandStatus::ROK),
                };
                out.push(kind);
                out.extend_from_slice(&status.0.to_be_bytes());
            }
        }
        out
    }

    /// `None`: of a newer version, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Word> {
        let (kind, mut from) = bytes.split_first()?;
        let from = &mut from;
        Some(match *kind {
            HERE => {
                let node = name(from)?;
                let mut receivers = Vec::new();
                while !from.is_empty() {
                    receivers.push(receiver(from)?);
                }
                (receivers.len() <= Word::RECEIVERS).then_some(Word::Here { node, receivers })?
            }
            GONE => Word::Gone { node: name(from)?, receiver: receiver(from)? },
            DELIVER => {
                let (node, to, ticket) = (name(from)?, name(from)?, ticket(from)?);
                let esme = COctets::new(octets(from)?).ok()?;
                let frame = Bytes::copy_from_slice(from);
                let header = Header::of(&frame).filter(|h| h.command == CommandId::DELIVER_SM)?;
                let Ok(Pdu::Request(Request::DeliverSm(message))) = Pdu::decode(header, &frame) else { return None };
                Word::Deliver(Box::new(Delivery { from: node, to, ticket, esme, message }))
            }
            ENDED => {
                let (to, ticket) = (name(from)?, ticket(from)?);
                let (kind, status) = from.split_first()?;
                let status = CommandStatus(u32::from_be_bytes(status.try_into().ok()?));
                let verdict = match kind {
                    0 => Verdict::Done(Response::DeliverSm(Default::default())),
                    1 => Verdict::Again(status),
                    2 => Verdict::Refused(status, Response::DeliverSm(Default::default())),
                    3 => Verdict::Unknown,
                    4 => Verdict::Unsent,
                    _ => return None,
                };
                Word::Ended { to, ticket, verdict }
            }
            _ => return None,
        })
    }
}

fn write(out: &mut Vec<u8>, receiver: &Receiver) {
    text(out, receiver.esme.as_bytes());
    text(out, receiver.range.as_bytes());
}

/// Names of nodes are at most 64 octets, the others are shorter.
fn text(out: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(255)];
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}

fn octets<'b>(from: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, rest) = from.split_first()?;
    let (octets, rest) = rest.split_at_checked(usize::from(*length))?;
    *from = rest;
    Some(octets)
}

fn name(from: &mut &[u8]) -> Option<Box<str>> {
    std::str::from_utf8(octets(from)?).ok().map(Box::from)
}

fn ticket(from: &mut &[u8]) -> Option<Ticket> {
    let (ticket, rest) = from.split_first_chunk::<8>()?;
    *from = rest;
    Some(Ticket::from_be_bytes(*ticket))
}

fn receiver(from: &mut &[u8]) -> Option<Receiver> {
    Some(Receiver { esme: COctets::new(octets(from)?).ok()?, range: COctets::new(octets(from)?).ok()? })
}

const HERE: u8 = 0;
const GONE: u8 = 1;
const DELIVER: u8 = 2;
const ENDED: u8 = 3;

#[cfg(test)]
mod tests {
    use gw_smpp::pdu::{Address, Octets};
    use sip_ims::ports::MAX_HINT;

    use super::*;

    #[test]
    fn words_cross_the_bus() {
        let receiver = Receiver { esme: COctets::new(b"legacy").unwrap(), range: COctets::new(b"^81").unwrap() };
        let delivery = Delivery {
            from: "a".into(),
            to: "b".into(),
            ticket: 1 << 63 | 7,
            esme: receiver.esme,
            message: ShortMessage {
                source: Address { ton: 5, npi: 0, digits: COctets::new(b"Caf\xe9").unwrap() },
                destination: Address { ton: 1, npi: 1, digits: COctets::new(b"8190").unwrap() },
                esm_class: 0x40,
                short_message: Octets::copied(&[7; 254]),
                ..ShortMessage::default()
            },
        };
        let ended = |verdict| Word::Ended { to: "a".into(), ticket: 9, verdict };
        for word in [
            Word::Here { node: "a".into(), receivers: vec![receiver; Word::RECEIVERS] },
            Word::Here { node: "a".into(), receivers: Vec::new() },
            Word::Gone { node: "b".into(), receiver },
            Word::Deliver(Box::new(delivery)),
            ended(Verdict::Done(Response::DeliverSm(Default::default()))),
            ended(Verdict::Again(CommandStatus::RTHROTTLED)),
            ended(Verdict::Refused(CommandStatus::RX_P_APPN, Response::DeliverSm(Default::default()))),
            ended(Verdict::Unknown),
            ended(Verdict::Unsent),
        ] {
            let bytes = word.to_bytes();
            assert!(bytes.len() <= MAX_HINT, "{}", bytes.len());
            let read = Word::from_bytes(&bytes).unwrap();
            assert_eq!((format!("{read:?}"), read.to_bytes()), (format!("{word:?}"), bytes.clone()));
            for cut in 0..bytes.len() {
                // Whatever comes of it.
                let _ = Word::from_bytes(&bytes[..cut]);
            }
        }
        assert!(Word::from_bytes(&[9]).is_none() && Word::from_bytes(&[]).is_none());
    }
}
