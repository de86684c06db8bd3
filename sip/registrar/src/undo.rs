//! Taking back what the store refused: a REGISTER that is answered 500 leaves the bindings as they were (RFC 3261 §10.3
//! step 7), in memory and, as far as the store can be reached, there.
//!
//! A phone sends one REGISTER at a time (RFC 3261 §10.2), so what was there before was not refused itself.

use std::sync::Arc;

use sip_ims::Aor;
use sip_ims::ports::{BindingChange, BindingStore};
use sip_proto::Message;
use smallvec::SmallVec;

use crate::binding::{Binding, with_key};
use crate::elsewhere::Nodes;
use crate::events::{Event, Watchers};
use crate::registrar::OnChanged;
use crate::table::{Table, sort};

/// Where things are put back.
pub struct Shelves {
    pub table: Arc<Table>,
    pub store: Arc<dyn BindingStore>,
    pub watchers: Arc<Watchers>,
    pub on_changed: OnChanged,
    /// Name of this node in the rows, and those of the others.
    pub node: String,
    pub nodes: Arc<Nodes>,
}

/// What one REGISTER changed.
pub struct Undo {
    shelves: Arc<Shelves>,
    aor: Aor,
    before: Before,
}

/// What was there before.
#[derive(Default)]
pub struct Before {
    /// Some contact was not there.
    pub created: bool,
    /// Contacts that were changed.
    pub changed: SmallVec<[Binding; 1]>,
    pub removed: SmallVec<[Binding; 1]>,
}

impl Undo {
    pub fn new(shelves: Arc<Shelves>, aor: Aor, before: Before) -> Undo {
        Undo { shelves, aor, before }
    }

    /// `answer` is the 200 that is not sent: by its Call-ID and CSeq the bindings are known that this REGISTER made. What a
    /// later one has changed since stays as that made it.
    pub fn run(self, answer: &[u8]) {
        let Undo { shelves, aor, before } = self;
        let Ok(message) = Message::parse(answer) else { return };
        let (call_id, cseq) = (message.call_id().unwrap_or_default(), message.cseq().map_or(0, |c| c.number));
        let mut events: SmallVec<[(Event, Binding); 2]> = SmallVec::new();
        shelves.table.write(&aor, |bindings| {
            let ours = |b: &Binding| b.cseq == cseq && b.text().call_id.as_bytes() == call_id;
            for old in before.changed {
                if let Some(now) = bindings.iter_mut().find(|b| ours(b) && b.is_same(&old)) {
                    shelves.put_back(&aor, &old, Some(now));
                    *now = old.clone();
                    events.push((Event::Shortened, old));
                }
            }
            // What was changed bears its old CSeq again; what still bears this one was created.
            while let Some(i) = bindings.iter().position(|b| before.created && ours(b)) {
                let made = bindings.remove(i);
                shelves.remove(&aor, &made);
                events.push((Event::Deactivated, made));
            }
            for old in before.removed {
                if !bindings.iter().any(|b| b.is_same(&old)) {
                    shelves.put_back(&aor, &old, None);
                    events.push((Event::Created, old.clone()));
                    bindings.push(old);
                }
            }
            sort(bindings);
        });
        if !events.is_empty() {
            (shelves.on_changed)(aor.as_str(), true);
        }
        for (event, binding) in events {
            shelves.watchers.defer(aor.as_str(), event, binding);
        }
    }
}

impl Shelves {
    /// The store keeps a group that failed and tries it again, so that it must hear of what is not wanted any more. When its
    /// queue is full it does not: then a row is wrong until the phone's next REGISTER, which its 500 asks for.
    fn put_back(&self, aor: &Aor, old: &Binding, now: Option<&Binding>) {
        // An equivalent URI in another spelling is another key.
        if let Some(now) = now.filter(|n| n.reg_id == 0 && n.contact() != old.contact()) {
            self.remove(aor, now);
        }
        let text = old.text();
        // A connection of another node stays that node's.
        let _ = self.nodes.with_name(old, &self.node, |node| {
            with_key(text.instance, old.reg_id, text.contact, |key| {
                self.store.write(BindingChange::Put(old.row(aor.as_str(), key, node)), None)
            })
        });
    }

    fn remove(&self, aor: &Aor, made: &Binding) {
        let text = made.text();
        let _ = with_key(text.instance, made.reg_id, text.contact, |key| {
            self.store.write(BindingChange::Remove { aor: aor.as_str(), key }, None)
        });
    }
}
