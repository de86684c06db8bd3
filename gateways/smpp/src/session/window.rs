//! Our requests that wait for their responses.

use std::collections::VecDeque;
use std::time::Instant;

use crate::pdu::CommandId;

/// Whose request it is.
#[derive(Debug)]
pub(super) enum Purpose<T> {
    User(T),
    Bind,
    Unbind,
    Enquire,
}

#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) sequence: u32,
    pub(super) command: CommandId,
    pub(super) sent: Instant,
    pub(super) deadline: Option<Instant>,
    /// Octets that the session had encoded when this one was complete.
    pub(super) end: u64,
    pub(super) purpose: Purpose<T>,
}

/// In the order in which they were sent: sequence numbers rise (with one wrap), deadlines too. So the oldest is in front and
/// any is found by halving. Bounded by the session's window and its own few requests.
#[derive(Debug)]
pub(super) struct Window<T> {
    waiting: VecDeque<Waiting<T>>,
    of_users: usize,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Window { waiting: VecDeque::new(), of_users: 0 }
    }
}

impl<T> Window<T> {
    pub(super) fn of_users(&self) -> usize {
        self.of_users
    }

    pub(super) fn push(&mut self, waiting: Waiting<T>) {
        self.of_users += usize::from(matches!(waiting.purpose, Purpose::User(_)));
        self.waiting.push_back(waiting);
    }

    /// The request with this number that this response can answer.
    pub(super) fn take(&mut self, sequence: u32, response: CommandId) -> Option<Waiting<T>> {
        let first = self.waiting.front()?.sequence;
        let distance = |s: u32| if s >= first { s - first } else { 0x7FFF_FFFF - first + s };
        let at = self.waiting.partition_point(|w| distance(w.sequence) < distance(sequence));
        let found = self.waiting.get(at)?;
        let answers = found.command.response() == response || response == CommandId::GENERIC_NACK;
        if found.sequence != sequence || !answers { None } else { self.remove(at) }
    }

    /// The oldest, once its time has passed.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Waiting<T>> {
        if self.deadline()? <= now { self.remove(0) } else { None }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front()?.deadline
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Waiting<T>> + '_ {
        self.of_users = 0;
        self.waiting.drain(..)
    }

    fn remove(&mut self, at: usize) -> Option<Waiting<T>> {
        let waiting = self.waiting.remove(at)?;
        self.of_users -= usize::from(matches!(waiting.purpose, Purpose::User(_)));
        Some(waiting)
    }
}
