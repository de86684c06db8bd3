//! Bindings that other nodes of the cluster took in: read from the store as they change there.
//!
//! Truth is the store. A change of our own that is under way while the store is read knows better than what was read: then the
//! address-of-record is read again with the next call.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Instant;

use parking_lot::Mutex;
use sip_ims::ports::{BindingRow, Done};

use crate::binding::{Binding, with_key};
use crate::events::Event;
use crate::registrar::{Arrival, Registrar};
use crate::table::sort;

/// Which addresses-of-record were changed here while the store was read. Bounded by what is registered in that time.
#[derive(Default)]
pub(crate) struct Reading {
    on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    touched: HashSet<Box<str>>,
    again: HashSet<Box<str>>,
}

impl Reading {
    /// Gives what is to be read again.
    fn begin(&self) -> Vec<Box<str>> {
        let mut state = self.state.lock();
        state.touched.clear();
        self.on.store(true, SeqCst);
        state.again.drain().collect()
    }

    fn end(&self, again: impl IntoIterator<Item = Box<str>>) {
        self.on.store(false, SeqCst);
        self.state.lock().again.extend(again);
    }

    /// To be called with the address-of-record locked, after its change was queued for the store: a reading that began
    /// before sees this, and one that begins later sees the change in the store.
    pub(crate) fn touch(&self, aor: &str) {
        if self.on.load(SeqCst) {
            self.state.lock().touched.insert(aor.into());
        }
    }

    /// Whether it was changed meanwhile; it will be read again then. To be called with the address-of-record locked.
    fn is_stale(&self, aor: &str) -> bool {
        let mut state = self.state.lock();
        let stale = state.touched.contains(aor);
        if stale {
            state.again.insert(aor.into());
        }
        stale
    }
}

impl Registrar {
    /// Takes over what other nodes have changed in the store since the last call; `done` gets the number of
    /// addresses-of-record that were looked at. One call at a time.
    pub fn catch_up(self: &Arc<Self>, now: Instant, unix: u64, done: Done<u64>) {
        let also = self.reading.begin();
        let (reader, ender, again) = (self.clone(), self.clone(), also.clone());
        self.parts.store.changed_elsewhere(
            also,
            Box::new(move |aor, rows| reader.take_over(now, unix, aor, rows)),
            Box::new(move |result| {
                ender.reading.end(if result.is_err() { again } else { Vec::new() });
                done(result);
            }),
        );
    }

    fn take_over(&self, now: Instant, unix: u64, aor: &str, rows: &[BindingRow<'_>]) {
        let theirs = |row: &&BindingRow<'_>| row.node != self.config.node;
        let mut changes = Vec::new();
        let mut moved = false;
        let Some(address) = self.address(aor) else { return };
        self.table.write(&address, |bindings| {
            if self.reading.is_stale(aor) {
                return;
            }
            let mut known = HashSet::new();
            bindings.retain(|binding| {
                let text = binding.text();
                let row =
                    with_key(text.instance, binding.reg_id, text.contact, |key| rows.iter().find(|r| r.key == key));
                let Some(row) = row else {
                    changes.push((Event::Unregistered, binding.clone()));
                    return false;
                };
                known.insert(row.key);
                if theirs(&row)
                    && let Some(mut new) = Binding::from_row(row, false, unix)
                {
                    new.since = binding.since;
                    moved |= new.way() != binding.way() || new.text().path != text.path;
                    *binding = new;
                    changes.push((Event::Refreshed, binding.clone()));
                }
                true
            });
            // A row of ours that memory does not have is on its way out.
            for row in rows.iter().filter(theirs).filter(|r| !known.contains(r.key)) {
                if bindings.len() < self.config.max_contacts
                    && let Some(binding) = Binding::from_row(row, false, unix)
                    && binding.is_live(unix)
                {
                    changes.push((Event::Created, binding.clone()));
                    bindings.push(binding);
                    moved = true;
                }
            }
            sort(bindings);
        });
        if moved {
            (self.parts.on_registered)(aor, Arrival::Reachable);
        }
        if self.watchers.any() && !changes.is_empty() {
            self.watchers.changed(now, unix, aor, changes);
        }
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
