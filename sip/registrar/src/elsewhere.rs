//! Bindings that other nodes of the cluster took in: read from the store as they change there.
//!
//! Truth is the store; [`sip_ims::Reading`] keeps what was read from undoing what is under way.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use sip_ims::ports::{BindingRow, Done};
use sip_ims::service::Elsewhere;
use sip_proto::Hop;

use crate::binding::{Binding, with_key};
use crate::events::Event;
use crate::registrar::Registrar;
use crate::table::sort;

/// The other nodes by number, from 1 on in the order in which they were heard of, and where they take SIP.
#[derive(Default)]
pub(crate) struct Nodes(RwLock<Vec<(Box<str>, Option<Hop>)>>);

impl Nodes {
    /// The number of a node. Beyond [`MAX_NODES`] all have the same, which leads nowhere.
    pub(crate) fn number(&self, name: &str) -> u16 {
        let find = |known: &[(Box<str>, Option<Hop>)]| known.iter().position(|n| *n.0 == *name);
        let found = find(&self.0.read());
        let at = found.unwrap_or_else(|| {
            let mut known = self.0.write();
            find(&known).unwrap_or_else(|| {
                let at = known.len();
                if at < MAX_NODES {
                    known.push((name.into(), None));
                }
                at
            })
        });
        at as u16 + 1
    }

    /// Lends the name of the node that holds the connection of a binding, if that is another one.
    pub(crate) fn with_name<R>(&self, binding: &Binding, ours: &str, with: impl FnOnce(&str) -> R) -> R {
        let known = self.0.read();
        let other = binding.way().and_then(|w| known.get(usize::from(w.elsewhere_at()? - 1)));
        with(other.map_or(ours, |n| &n.0))
    }

    fn set(&self, name: &str, hop: Hop) {
        let at = usize::from(self.number(name) - 1);
        if let Some(node) = self.0.write().get_mut(at) {
            node.1 = Some(hop);
        }
    }

    /// Where a binding can be sent to that only another node has the connection of.
    pub(crate) fn elsewhere(&self, binding: &Binding) -> Option<Elsewhere> {
        let way = binding.way()?;
        let node = self.0.read().get(usize::from(way.elsewhere_at()? - 1))?.1?;
        Some(Elsewhere { node, flow: way.flow() })
    }

    fn unknown(&self) -> bool {
        self.0.read().iter().any(|n| n.1.is_none())
    }
}

/// Other nodes that are told apart.
const MAX_NODES: usize = 1000;

impl Registrar {
    /// Says where another node takes SIP.
    pub fn node_at(&self, name: &str, hop: Hop) {
        if name != self.config.node {
            self.nodes.set(name, hop);
        }
    }

    /// Whether a node has written bindings and nobody has said where it is.
    pub fn misses_a_node(&self) -> bool {
        self.nodes.unknown()
    }

    /// The number of the node that wrote a row; 0 is ours.
    pub(crate) fn node_of(&self, row: &BindingRow<'_>) -> u16 {
        if row.node == self.config.node { 0 } else { self.nodes.number(row.node) }
    }

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
                    && let Some(mut new) = Binding::from_row(row, self.node_of(row), unix)
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
                    && let Some(binding) = Binding::from_row(row, self.node_of(row), unix)
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
            self.arrived(aor);
        }
        if moved || changes.iter().any(|(event, _)| *event == Event::Unregistered) {
            (self.parts.on_changed)(aor, !moved);
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
    fn nodes_keep_their_numbers_and_there_are_not_too_many() {
        let nodes = Nodes::default();
        assert_eq!((nodes.number("a"), nodes.number("b"), nodes.number("a")), (1, 2, 1));
        assert!(nodes.unknown());
        let numbers: HashSet<u16> = (0..MAX_NODES + 5).map(|n| nodes.number(&format!("n{n}"))).collect();
        assert_eq!(numbers.len(), MAX_NODES - 2 + 1);
        let beyond = usize::from(nodes.number("one more") - 1);
        assert!(nodes.0.read().get(beyond).is_none());
    }
}
