//! The response context of one proxied request: its branches, what waits to be tried, and the best answer so far
//! (RFC 3261 §16.7).

use std::net::SocketAddr;
use std::sync::Arc;

use sip_ims::service::Caller;
use sip_ims::{Aor, User};
use sip_proto::endpoint::{ClientId, ServerId};
use sip_proto::privacy::Neighbour;
use sip_proto::{Flow, Hop};
use smallvec::SmallVec;

use crate::target::{Groups, Target};

/// A request that is being proxied.
#[derive(Debug)]
pub struct Fork {
    pub server: ServerId,
    pub invite: bool,
    /// It is in the books already: another node's, or ours since it went to an application server that sent it back.
    pub in_books: bool,
    pub source: Flow,
    pub caller: Caller,
    pub callee: Option<Aor>,
    pub profile: Option<Arc<User>>,
    pub attempts: SmallVec<[Attempt; 1]>,
    /// Groups not tried yet, in order.
    pub waiting: Groups,
    pub best: Option<Best>,
    /// The challenges of every branch, as header lines: all of them go with a 401 or 407 (RFC 3261 §16.7 step 7).
    pub challenges: Vec<u8>,
    /// A 2xx went back, or a final response of ours.
    pub settled: bool,
    /// The caller sent CANCEL, or a 6xx came: nothing new is tried.
    pub closed: bool,
    pub ringing: bool,
    /// Whom the request was diverted for, and why.
    pub diverted: Option<(Aor, &'static str)>,
    /// How many times this call has been forwarded.
    pub diversions: u8,
}

/// One branch.
#[derive(Debug)]
pub struct Attempt {
    pub target: Target,
    pub state: AttemptState,
    /// Further addresses of the same target (RFC 3263 §4.3).
    pub spare: Vec<Hop>,
    /// Where the request went over TCP because it is too long for a datagram. The next of `spare` is then the same over UDP,
    /// for a peer that takes no TCP (RFC 3261 §18.1.1).
    pub over_tcp: Option<SocketAddr>,
    /// Whose word its responses are.
    pub neighbour: Neighbour,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttemptState {
    /// A name is being looked up.
    Resolving,
    Trying(ClientId),
    Done,
}

/// The best final response so far, whole, as it came; `bytes` is empty for one that we make up ourselves.
#[derive(Debug)]
pub struct Best {
    pub status: u16,
    pub bytes: Box<[u8]>,
    pub from: Neighbour,
}

impl Fork {
    /// Who hears the responses.
    pub fn asker(&self) -> Neighbour {
        if matches!(self.caller, Caller::Trusted) { Neighbour::Trusted } else { Neighbour::Untrusted }
    }

    /// Every branch has ended.
    pub fn is_idle(&self) -> bool {
        self.attempts.iter().all(|a| a.state == AttemptState::Done)
    }

    pub fn position(&self, client: ClientId) -> Option<usize> {
        self.attempts.iter().position(|a| a.state == AttemptState::Trying(client))
    }

    /// A phone has given its answer: its other flows are not tried any more, unless this one failed (RFC 5626 §7).
    pub fn answered(&mut self, index: usize, status: u16) {
        let Some(attempt) = self.attempts.get(index).filter(|_| !matches!(status, 408 | 430)) else { return };
        for group in &mut self.waiting {
            group.retain(|t| !t.is_same_phone(&attempt.target));
        }
        self.waiting.retain(|group| !group.is_empty());
    }

    /// Keeps a final response if it is better than what is there.
    pub fn consider(&mut self, status: u16, bytes: &[u8], from: Neighbour) {
        if self.best.as_ref().is_none_or(|best| rank(status) < rank(best.status)) {
            self.best = Some(Best { status, bytes: bytes.into(), from });
        }
    }

    /// The same, with one of ours.
    pub fn conclude_with(&mut self, status: u16) {
        self.consider(status, &[], Neighbour::Trusted);
    }
}

/// Lower is better: any 6xx first, then the lowest class; inside 4xx those that tell the caller what to do next.
fn rank(status: u16) -> u16 {
    match status {
        600..=699 => status - 600,
        401 | 407 | 415 | 420 | 484 => 400,
        // A time-out says less than a phone's own word; a 503 is the worst (RFC 3261 §16.7 step 6).
        408 => 499,
        503 => 999,
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_final_responses() {
        let best = |list: &[u16]| *list.iter().min_by_key(|s| rank(**s)).unwrap();
        assert_eq!(best(&[404, 603, 302]), 603);
        assert_eq!(best(&[404, 302]), 302);
        assert_eq!(best(&[408, 486]), 486);
        assert_eq!(best(&[486, 407]), 407);
        assert_eq!(best(&[503, 500]), 500);
    }
}
