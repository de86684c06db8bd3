//! What the gateway tells of itself: numbers for metrics, and each message that no queue accounts for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sip_ims::Msisdn;

use super::{Fate, NotAccepted};

/// What has been counted since the start.
#[derive(Default, Debug)]
pub struct Counts {
    deliveries: [AtomicU64; FATES.len()],
    submissions: [AtomicU64; OUTCOMES.len()],
    relayed: [AtomicU64; KINDS.len()],
}

/// RP messages of handsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Relayed {
    Data,
    Ack,
    Error,
    Smma,
    Unreadable,
}

const FATES: [&str; 6] = ["delivered", "no_report", "unreachable", "no_memory", "refused", "busy"];
const OUTCOMES: [&str; 4] = ["accepted", "busy", "no_route", "failed"];
const KINDS: [&str; 5] = ["data", "ack", "error", "smma", "unreadable"];

impl Counts {
    pub(super) fn delivered(&self, fate: Fate) {
        let place = match fate {
            Fate::Delivered => 0,
            Fate::NoReport => 1,
            Fate::Unreachable { .. } => 2,
            Fate::NoMemory => 3,
            Fate::Refused { .. } => 4,
            Fate::Busy => 5,
        };
        self.deliveries[place].fetch_add(1, Relaxed);
    }

    pub(super) fn submitted(&self, result: Result<(), NotAccepted>) {
        let place = match result {
            Ok(()) => 0,
            Err(NotAccepted::Busy) => 1,
            Err(NotAccepted::NoRoute) => 2,
            Err(NotAccepted::Failed) => 3,
        };
        self.submissions[place].fetch_add(1, Relaxed);
    }

    pub(super) fn relayed(&self, kind: Relayed) {
        self.relayed[kind as usize].fetch_add(1, Relaxed);
    }

    /// Segments for handsets and texts for phones, by fate.
    pub fn deliveries(&self, show: impl FnMut(&'static str, u64)) {
        each(&FATES, &self.deliveries, show);
    }

    /// Submissions of users, by outcome.
    pub fn submissions(&self, show: impl FnMut(&'static str, u64)) {
        each(&OUTCOMES, &self.submissions, show);
    }

    /// RP messages of handsets, by kind.
    pub fn relays(&self, show: impl FnMut(&'static str, u64)) {
        each(&KINDS, &self.relayed, show);
    }
}

fn each(names: &[&'static str], counters: &[AtomicU64], mut show: impl FnMut(&'static str, u64)) {
    names.iter().zip(counters).for_each(|(name, counter)| show(name, counter.load(Relaxed)));
}

/// A message that went through without a queue: from a centre to a handset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passage<'a> {
    /// The link's name and a number.
    pub name: &'a str,
    /// As the centre says it.
    pub from: &'a str,
    pub to: Msisdn,
    /// Unix milliseconds.
    pub began: i64,
    pub ended: i64,
    pub fate: Fate,
}

/// Takes down passages, for charging records and traces. Must not block.
pub trait Watch: Send + Sync {
    /// One segment's.
    fn passed(&self, passage: &Passage<'_>);
}

/// A passage while it lasts.
pub(super) struct Underway {
    pub watch: Arc<dyn Watch>,
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    pub name: Box<str>,
    pub from: Box<str>,
    pub to: Msisdn,
    pub began: i64,
}

impl Underway {
    pub fn ended(&self, fate: Fate) {
        let Underway { watch, clock, name, from, to, began } = self;
        watch.passed(&Passage { name, from, to: *to, began: *began, ended: clock(), fate });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_number() {
        let counts = Counts::default();
        counts.delivered(Fate::Refused { cause: 21 });
        counts.submitted(Err(NotAccepted::NoRoute));
        counts.relayed(Relayed::Smma);
        let mut found = Vec::new();
        counts.deliveries(|name, n| found.extend((n > 0).then_some(name)));
        counts.submissions(|name, n| found.extend((n > 0).then_some(name)));
        counts.relays(|name, n| found.extend((n > 0).then_some(name)));
        assert_eq!(found, ["refused", "no_route", "smma"]);
    }
}
