//! What changes here while the store is read for other nodes' changes.
//!
//! Truth is the store. A change of our own that is under way while the store is read knows better than what was read: then the
//! address-of-record is read again with the next reading.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use parking_lot::Mutex;

/// Which addresses-of-record were changed here while the store was read. Bounded by what is registered in that time.
#[derive(Default)]
pub struct Reading {
    on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    touched: HashSet<Box<str>>,
    again: HashSet<Box<str>>,
}

impl Reading {
    /// A reading begins. Gives what is to be read again.
    pub fn begin(&self) -> Vec<Box<str>> {
        let mut state = self.state.lock();
        state.touched.clear();
        self.on.store(true, SeqCst);
        state.again.drain().collect()
    }

    /// It is over; `again` with the next one.
    pub fn end(&self, again: impl IntoIterator<Item = Box<str>>) {
        self.on.store(false, SeqCst);
        self.state.lock().again.extend(again);
    }

    /// This one is to be read with the next reading, whether anybody has changed it or not.
    pub fn want(&self, aor: &str) {
        self.state.lock().again.insert(aor.into());
    }

    /// To be called with the address-of-record locked, after its change was queued for the store: a reading that began
    /// before sees this, and one that begins later sees the change in the store.
    pub fn touch(&self, aor: &str) {
        if self.on.load(SeqCst) {
            self.state.lock().touched.insert(aor.into());
        }
    }

    /// Whether it was changed meanwhile; it will be read again then. To be called with the address-of-record locked.
    pub fn is_stale(&self, aor: &str) -> bool {
        let mut state = self.state.lock();
        let stale = state.touched.contains(aor);
        if stale {
            state.again.insert(aor.into());
        }
        stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_here_during_a_reading_is_read_again() {
        let reading = Reading::default();
        reading.touch("before@x");
        assert!(reading.begin().is_empty());
        reading.touch("meanwhile@x");
        assert!(reading.is_stale("meanwhile@x") && !reading.is_stale("before@x") && !reading.is_stale("other@x"));
        reading.end([]);
        reading.touch("after@x");
        assert_eq!(reading.begin(), ["meanwhile@x".into()]);
        assert!(!reading.is_stale("meanwhile@x"), "the new reading sees the change");
        reading.end(["failed@x".into()]);
        assert_eq!(reading.begin(), ["failed@x".into()]);
    }
}
