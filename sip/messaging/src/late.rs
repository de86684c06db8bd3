//! Messages that were kept because no phone answered in time, while their transaction is still open: RFC 3261's timer F runs
//! on after the sender has its 202. A phone that answers late has the message, and must not get it again.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_ims::ports::MessageId;
use sip_ims::service::Transaction;

use crate::pager::Put;

/// The open ones. At most [`MAX_OPEN`]; more are kept and delivered like any other, to some phone perhaps twice.
#[derive(Default)]
pub struct Late(Mutex<Open>);

#[derive(Default)]
struct Open {
    entries: HashMap<Transaction, Entry>,
    ids: HashMap<MessageId, Transaction>,
    /// In the order of time.
    order: VecDeque<Transaction>,
}

struct Entry {
    until: Instant,
    state: State,
}

enum State {
    /// On its way to the disk.
    Committing,
    /// Answered before it was there.
    Answered,
    Kept(MessageId, Put),
}

/// From the moment at which the proxy gives up (10 s) to timer F (32 s), and a second for timers that are late.
const OPEN: Duration = Duration::from_secs(23);
/// Messages that are watched at a time.
const MAX_OPEN: usize = 10_000;

impl Late {
    /// A message goes to the disk though its phones may still answer.
    pub fn open(&self, now: Instant, transaction: Transaction) {
        let mut open = self.0.lock();
        while open.order.front().is_some_and(|t| open.entries.get(t).is_none_or(|e| e.until <= now)) {
            open.forget_first();
        }
        if open.order.len() < MAX_OPEN {
            open.entries.insert(transaction, Entry { until: now + OPEN, state: State::Committing });
            open.order.push_back(transaction);
        }
    }

    /// It is on the disk. Gives it back if a phone has taken it meanwhile.
    pub fn committed(&self, id: MessageId, put: Put) -> Option<Put> {
        let mut open = self.0.lock();
        let transaction = put.transaction;
        let entry = open.entries.get_mut(&transaction)?;
        if matches!(entry.state, State::Answered) {
            open.entries.remove(&transaction);
            return Some(put);
        }
        entry.state = State::Kept(id, put);
        open.ids.insert(id, transaction);
        None
    }

    /// A phone took it. Gives what is to be removed from the disk.
    pub fn answered(&self, transaction: Transaction) -> Option<(MessageId, Put)> {
        let mut open = self.0.lock();
        let entry = open.entries.get_mut(&transaction)?;
        if matches!(entry.state, State::Committing) {
            entry.state = State::Answered;
            return None;
        }
        match open.entries.remove(&transaction)?.state {
            State::Kept(id, put) => {
                open.ids.remove(&id);
                Some((id, put))
            }
            State::Committing | State::Answered => None,
        }
    }

    /// Until when a phone may still answer.
    pub fn until(&self, id: MessageId) -> Option<Instant> {
        let open = self.0.lock();
        open.entries.get(open.ids.get(&id)?).map(|e| e.until)
    }
}

impl Open {
    fn forget_first(&mut self) {
        if let Some(transaction) = self.order.pop_front()
            && let Some(Entry { state: State::Kept(id, _), .. }) = self.entries.remove(&transaction)
        {
            self.ids.remove(&id);
        }
    }
}
