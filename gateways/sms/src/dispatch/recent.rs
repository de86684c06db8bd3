//! Names that centres gave lately: receipts find their segments here without asking the store, and wait here for theirs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::queue::{SentAs, State, Verdict, Waiting};

/// Segments sent lately, by [`SentAs::key`]. What falls out is found in the store.
#[derive(Default)]
pub struct Recent {
    by_name: HashMap<SentAs, Waiting>,
    /// At most [`MAX_RECENT`].
    order: VecDeque<SentAs>,
}

impl Recent {
    pub fn keep(&mut self, waiting: Waiting) {
        let key = waiting.sent_as.key();
        self.order.push_back(key.clone());
        self.by_name.insert(key, waiting);
        while self.order.len() > MAX_RECENT {
            if let Some(name) = self.order.pop_front() {
                self.by_name.remove(&name);
            }
        }
    }

    /// The segment under the first of these keys that has one; it is known no longer.
    pub fn take(&mut self, names: &[SentAs]) -> Option<Waiting> {
        names.iter().find_map(|name| self.by_name.remove(name))
    }

    pub fn forget(&mut self, name: &SentAs) {
        self.by_name.remove(&name.key());
    }
}

/// Segments remembered by name.
const MAX_RECENT: usize = 100_000;

/// Receipts that fit nothing yet.
#[derive(Default)]
pub struct Unknown {
    by_name: HashMap<SentAs, Stray>,
    /// First names with the time of arrival, in its order; at most [`MAX_UNKNOWN`].
    order: VecDeque<(i64, SentAs)>,
}

struct Stray {
    end: (State, Verdict),
    /// All of them: when one is taken, the others must not fit another message.
    names: Arc<[SentAs]>,
}

impl Unknown {
    pub fn keep(&mut self, names: Vec<SentAs>, end: (State, Verdict), now: i64) {
        let names: Arc<[SentAs]> = names.into();
        let Some(first) = names.first() else { return };
        self.order.push_back((now, first.clone()));
        for name in names.iter() {
            self.by_name.insert(name.clone(), Stray { end, names: names.clone() });
        }
        while self.order.len() > MAX_UNKNOWN {
            self.drop_first();
        }
    }

    pub fn take(&mut self, name: &SentAs) -> Option<(State, Verdict)> {
        // Nearly always.
        if self.by_name.is_empty() {
            return None;
        }
        self.remove(&name.key())
    }

    /// Gives the number of those that never found their message.
    pub fn forget_before(&mut self, time: i64) -> usize {
        let mut count = 0;
        while self.order.front().is_some_and(|(at, _)| *at < time) {
            count += usize::from(self.drop_first());
        }
        count
    }

    fn remove(&mut self, name: &SentAs) -> Option<(State, Verdict)> {
        let stray = self.by_name.remove(name)?;
        stray.names.iter().for_each(|n| drop(self.by_name.remove(n)));
        Some(stray.end)
    }

    fn drop_first(&mut self) -> bool {
        self.order.pop_front().is_some_and(|(_, name)| self.remove(&name).is_some())
    }
}

/// Receipts that wait for their message.
const MAX_UNKNOWN: usize = 20_000;
