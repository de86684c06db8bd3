//! ESMEs that are bound at another node of the cluster: what is for them goes there over the bus, and its outcome comes back.
//!
//! The message stays in the row and in the hands of the node that has it, whose dispatcher takes the other node's session for a link. So a
//! word that the bus loses costs time and nothing else: without an outcome the message is delivered again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use gw_smpp::pdu::{COctets, ShortMessage};
use gw_smpp::{AddressRange, Outcome, Ticket, Verdict};
use parking_lot::Mutex;

pub use word::{Delivery, Receiver, Word};

mod word;

/// The other nodes, all of which hear a word. It may be lost.
pub trait Nodes: Send + Sync {
    fn say(&self, word: &Word);
}

/// What one node knows of the receivers at the others, and what it has with them.
pub struct Elsewhere {
    node: Box<str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// At most [`MAX_PLACES`].
    places: Vec<Place>,
    turn: usize,
    /// When each node was heard last: those with places, and those that have something of ours.
    heard: HashMap<Box<str>, Instant>,
    /// Ours that others have: at most what the dispatcher holds.
    given: HashMap<Ticket, Given>,
    /// Theirs that our door has, by our ticket: at most what waits in the sessions.
    taken: HashMap<Ticket, (Box<str>, Ticket)>,
    last: u32,
}

/// A receiver at another node.
struct Place {
    node: Box<str>,
    receiver: Receiver,
    serves: AddressRange,
    heard: Instant,
}

struct Given {
    node: Box<str>,
    at: Instant,
}

/// What is to be done about a word.
#[derive(Debug)]
pub enum Heard {
    Nothing,
    /// These ESMEs can be reached now and could not before.
    Came(Vec<COctets<16>>),
    /// To be given to a session of ours, under this ticket; its outcome is to be told by [`Elsewhere::ended`].
    Deliver(COctets<16>, Ticket, ShortMessage),
    /// Something of ours is through.
    Ended(Outcome),
}

impl Elsewhere {
    /// `node`: this one's name.
    pub fn new(node: &str) -> Elsewhere {
        Elsewhere { node: node.into(), state: Mutex::default() }
    }

    /// Whether this ESME takes deliveries to this address at another node; empty: to any.
    pub fn receives(&self, esme: &COctets<16>, address: &[u8]) -> bool {
        self.state.lock().places.iter().any(|place| place.is_for(esme, address))
    }

    /// The word by which a message goes to one of the receivers in turn. `None`: there is none.
    pub fn deliver(&self, esme: &COctets<16>, ticket: Ticket, message: &ShortMessage, now: Instant) -> Option<Word> {
        let mut state = self.state.lock();
        state.turn = state.turn.wrapping_add(1);
        let address = message.destination.digits.as_bytes();
        let fit: Vec<&Place> = state.places.iter().filter(|place| place.is_for(esme, address)).collect();
        let node = fit.get(state.turn % fit.len().max(1))?.node.clone();
        state.given.insert(ticket, Given { node: node.clone(), at: now });
        let (from, esme, message) = (self.node.clone(), *esme, message.clone());
        Some(Word::Deliver(Box::new(Delivery { from, to: node, ticket, esme, message })))
    }

    pub fn heard(&self, word: Word, now: Instant) -> Heard {
        let mut state = self.state.lock();
        match word {
            Word::Here { node, .. } | Word::Gone { node, .. } if node == self.node => Heard::Nothing,
            Word::Here { node, receivers } => {
                let mut came = Vec::new();
                for receiver in receivers {
                    if state.place(&node, receiver, now) {
                        came.push(receiver.esme);
                    }
                }
                state.heard.insert(node, now);
                if came.is_empty() { Heard::Nothing } else { Heard::Came(came) }
            }
            Word::Gone { node, receiver } => {
                state.places.retain(|place| place.node != node || place.receiver != receiver);
                Heard::Nothing
            }
            Word::Deliver(delivery) if delivery.to == self.node => {
                let Delivery { from, ticket, esme, message, .. } = *delivery;
                state.last = state.last.wrapping_add(1);
                let ours = Ticket::from(state.last);
                state.taken.insert(ours, (from, ticket));
                Heard::Deliver(esme, ours, message)
            }
            Word::Ended { to, ticket, verdict } if to == self.node => match state.given.remove(&ticket) {
                Some(given) => {
                    // It is not there any more, and the word that says so may be lost.
                    if matches!(verdict, Verdict::Unsent) {
                        state.places.retain(|place| place.node != given.node);
                    }
                    Heard::Ended(Outcome { ticket, verdict })
                }
                None => Heard::Nothing,
            },
            Word::Deliver(_) | Word::Ended { .. } => Heard::Nothing,
        }
    }

    /// The word that tells whoever gave it how a delivery ended. `None`: nobody's.
    pub fn ended(&self, ours: Ticket, verdict: Verdict) -> Option<Word> {
        let (to, ticket) = self.state.lock().taken.remove(&ours)?;
        Some(Word::Ended { to, ticket, verdict })
    }

    /// Forgets nodes that were not heard for long, and gives back what they had. Every [`REPEAT`].
    pub fn lapsed(&self, now: Instant) -> Vec<Outcome> {
        let mut state = self.state.lock();
        let old = |at: &Instant, patience| now.saturating_duration_since(*at) > patience;
        state.places.retain(|place| !old(&place.heard, FORGET));
        state.heard.retain(|_, at| !old(at, FORGET));
        let State { given, heard, .. } = &mut *state;
        let gone = given.extract_if(|_, given| old(&given.at, LAPSE) || !heard.contains_key(&given.node));
        gone.map(|(ticket, _)| Outcome { ticket, verdict: Verdict::Unknown }).collect()
    }
}

impl State {
    /// Whether it is a new one.
    fn place(&mut self, node: &str, receiver: Receiver, now: Instant) -> bool {
        if let Some(known) = self.places.iter_mut().find(|place| *place.node == *node && place.receiver == receiver) {
            known.heard = now;
            return false;
        }
        // Its own node has read it, so it can be read.
        let Ok(serves) = AddressRange::parse(receiver.range.as_bytes()) else { return false };
        if self.places.len() >= MAX_PLACES {
            return false;
        }
        self.places.push(Place { node: node.into(), receiver, serves, heard: now });
        true
    }
}

impl Place {
    fn is_for(&self, esme: &COctets<16>, address: &[u8]) -> bool {
        self.receiver.esme == *esme && self.serves.serves(address)
    }
}

/// How often each node says which receivers it has.
pub const REPEAT: Duration = Duration::from_secs(2);
/// A node that was not heard for so long has none.
const FORGET: Duration = Duration::from_secs(7);
/// Longer than an ESME may take for its response.
const LAPSE: Duration = Duration::from_secs(90);
const MAX_PLACES: usize = 10_000;

#[cfg(test)]
mod tests {
    use gw_smpp::pdu::Address;

    use super::*;

    fn receiver(range: &str) -> Receiver {
        Receiver { esme: COctets::new(b"legacy").unwrap(), range: COctets::new(range.as_bytes()).unwrap() }
    }

    fn here(node: &str, ranges: &[&str]) -> Word {
        Word::Here { node: node.into(), receivers: ranges.iter().map(|r| receiver(r)).collect() }
    }

    fn to(digits: &str) -> ShortMessage {
        let digits = COctets::new(digits.as_bytes()).unwrap();
        ShortMessage { destination: Address { ton: 1, npi: 1, digits }, ..ShortMessage::default() }
    }

    #[test]
    fn a_message_crosses_and_its_outcome_comes_back() {
        let (a, b, now) = (Elsewhere::new("a"), Elsewhere::new("b"), Instant::now());
        let legacy = receiver("").esme;
        assert!(a.deliver(&legacy, 7, &to("1"), now).is_none());
        assert!(matches!(a.heard(here("b", &["^81"]), now), Heard::Came(_)));
        assert!(matches!(a.heard(here("b", &["^81"]), now), Heard::Nothing));
        assert!(a.receives(&legacy, b"8190") && a.receives(&legacy, b"") && !a.receives(&legacy, b"44"));
        assert!(a.deliver(&legacy, 7, &to("44"), now).is_none());
        let word = a.deliver(&legacy, 7, &to("8190"), now).unwrap();
        let Heard::Deliver(esme, ours, message) = b.heard(word, now) else { panic!() };
        assert_eq!((esme, message), (legacy, to("8190")));
        let word = b.ended(ours, Verdict::Unknown).unwrap();
        assert!(b.ended(ours, Verdict::Unknown).is_none());
        let Heard::Ended(outcome) = a.heard(word, now) else { panic!() };
        assert_eq!(outcome.ticket, 7);
        assert!(a.lapsed(now + LAPSE * 2).is_empty());
    }

    #[test]
    fn what_a_silent_node_has_comes_back() {
        let (a, now) = (Elsewhere::new("a"), Instant::now());
        a.heard(here("b", &[""]), now);
        let _ = a.deliver(&receiver("").esme, 7, &to("1"), now);
        assert!(a.lapsed(now + FORGET).is_empty());
        assert_eq!(a.lapsed(now + FORGET + REPEAT).iter().map(|o| o.ticket).collect::<Vec<_>>(), [7]);
        assert!(!a.receives(&receiver("").esme, b""));
    }

    #[test]
    fn who_is_gone_gets_nothing() {
        let (a, now) = (Elsewhere::new("a"), Instant::now());
        let legacy = receiver("").esme;
        a.heard(here("b", &[""]), now);
        a.heard(Word::Gone { node: "b".into(), receiver: receiver("") }, now);
        assert!(!a.receives(&legacy, b""));
        // Said, but the word was lost: one that came back unsent says it, too.
        a.heard(here("b", &[""]), now);
        let _ = a.deliver(&legacy, 7, &to("1"), now);
        a.heard(Word::Ended { to: "a".into(), ticket: 7, verdict: Verdict::Unsent }, now);
        assert!(!a.receives(&legacy, b""));
    }

    #[test]
    fn a_node_does_not_listen_to_itself_or_to_what_is_for_others() {
        let (a, now) = (Elsewhere::new("a"), Instant::now());
        a.heard(here("a", &[""]), now);
        assert!(!a.receives(&receiver("").esme, b""));
        a.heard(here("b", &[""]), now);
        let word = a.deliver(&receiver("").esme, 7, &to("1"), now).unwrap();
        assert!(matches!(Elsewhere::new("c").heard(word, now), Heard::Nothing));
    }
}
