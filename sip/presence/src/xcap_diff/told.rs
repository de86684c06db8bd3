//! What a subscriber knows, and what it is told of what is true by now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sip_ims::ports::Document;
use sip_proto::headers::Event;
use sip_xcap::diff::{Change, Patch};

use super::{MAX_BODY, Tags};

/// Bytes of documents that are kept to make patches of, for all subscribers; beyond it changes are told without.
pub(super) const MAX_KEPT: usize = 64 * 1024 * 1024;

/// How changes of documents are told (RFC 5875 §4.3, `diff-processing`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// That there was one.
    None,
    /// Each by itself, with its patch.
    Each,
    /// Those since the last NOTIFY as one patch.
    Aggregate,
}

/// What the subscriber knows.
#[derive(Clone, Default)]
pub(super) struct Told {
    /// By URI below the root.
    pub documents: BTreeMap<String, Known>,
    /// By the node's URI as it was subscribed to.
    pub nodes: BTreeMap<String, Change>,
}

/// The state of a document.
#[derive(Clone)]
pub(super) struct Known {
    pub tag: String,
    /// To make a patch of, for a subscriber who wants one.
    pub body: Option<Arc<Kept>>,
}

/// A document that is kept. Gives its room back when it goes.
pub(super) struct Kept {
    body: Vec<u8>,
    room: Arc<AtomicUsize>,
}

impl Mode {
    /// What the value of an Event header asks for. Anything else is not understood, and nothing is the simplest (§4.3).
    pub fn of(event: &Event<'_>) -> Mode {
        match event.params.get("diff-processing") {
            Some(mode) if mode.eq_ignore_ascii_case(b"xcap-patching") => Mode::Each,
            Some(mode) if mode.eq_ignore_ascii_case(b"aggregate") => Mode::Aggregate,
            _ => Mode::None,
        }
    }
}

impl Kept {
    /// `None`: it is too long for a patch to be told, or too much is kept already.
    pub fn of(body: Vec<u8>, room: &Arc<AtomicUsize>) -> Option<Arc<Kept>> {
        let length = Some(body.len()).filter(|length| *length <= MAX_BODY)?;
        room.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(length)).ok()?;
        Some(Arc::new(Kept { body, room: room.clone() }))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.fetch_add(self.body.len(), Relaxed);
    }
}

impl Told {
    /// For the first NOTIFY: what is not there is waited for (§4.7).
    pub fn everything(&self) -> Vec<Change> {
        let documents = self.documents.iter().map(|(sel, known)| Change::Document {
            sel: sel.clone(),
            new: Some(known.tag.clone()),
            previous: None,
            patch: Patch::Untold,
        });
        documents.chain(self.nodes.values().filter(|c| c.is_there()).cloned()).collect()
    }

    pub fn since(&self, before: &Told, mode: Mode) -> Vec<Change> {
        let mut changes = Vec::new();
        for (sel, known) in &self.documents {
            let previous = before.documents.get(sel);
            if previous.is_none_or(|previous| previous.tag != known.tag) {
                // How many changes that was is not known.
                changes.push(change(sel.clone(), previous, Some(known), mode == Mode::Aggregate));
            }
        }
        for (sel, known) in before.documents.iter().filter(|(sel, _)| !self.documents.contains_key(*sel)) {
            changes.push(change(sel.clone(), Some(known), None, false));
        }
        changes.extend(self.nodes.iter().filter(|(sel, c)| before.nodes.get(*sel) != Some(c)).map(|(_, c)| c.clone()));
        changes
    }

    /// A document is this now, or gone: known from now on. `step`: what one change has made of what.
    pub fn step(&mut self, sel: String, now: Option<&Known>, step: Option<&Tags>) -> Option<Change> {
        let previous = self.documents.get(&sel);
        let tag = |known: Option<&Known>| known.map_or(String::new(), |k| k.tag.clone());
        let (from, to) = (tag(previous), tag(now));
        if from == to {
            return None;
        }
        let one = step.is_some_and(|(before, after)| **before == *from && **after == *to);
        let change = change(sel.clone(), previous, now, one);
        match now {
            Some(now) => drop(self.documents.insert(sel, now.clone())),
            None => drop(self.documents.remove(&sel)),
        }
        Some(change)
    }
}

fn change(sel: String, previous: Option<&Known>, now: Option<&Known>, patch: bool) -> Change {
    let body = |known: Option<&Known>| known.and_then(|k| k.body.clone()).filter(|_| patch);
    let patch = match (body(previous), body(now)) {
        (Some(old), Some(new)) => Patch::of(&old.body, &new.body),
        _ => Patch::Untold,
    };
    let tag = |known: Option<&Known>| known.map(|k| k.tag.clone());
    Change::Document { sel, new: tag(now), previous: tag(previous), patch }
}

/// As HTTP has it, without its quotes (RFC 5874 §5).
pub(super) fn tag(document: &Document) -> String {
    format!("{:x}", document.version.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(tag: &str, body: &str, room: &Arc<AtomicUsize>) -> Known {
        Known { tag: tag.into(), body: Kept::of(body.as_bytes().to_vec(), room) }
    }

    fn patched(change: &Change) -> bool {
        matches!(change, Change::Document { patch: Patch::Operations(_), .. })
    }

    #[test]
    fn a_patch_is_of_one_change_or_for_who_takes_several_at_once() {
        let room = Arc::new(AtomicUsize::new(100));
        let [one, two] = [("1", "<a/>"), ("2", "<a b='c'/>")].map(|(tag, body)| known(tag, body, &room));
        let told = |known: &Known| Told { documents: [("d".to_owned(), known.clone())].into(), ..Told::default() };
        let since = |mode| told(&two).since(&told(&one), mode);
        assert!(
            patched(&since(Mode::Aggregate)[0]) && !patched(&since(Mode::Each)[0]) && !patched(&since(Mode::None)[0])
        );
        for (step, one_change) in [(Some(("1", "2")), true), (Some(("0", "2")), false), (None, false)] {
            let step = step.map(|(before, after): (&str, &str)| (before.into(), after.into()));
            let mut told = told(&one);
            let change = told.step("d".into(), Some(&two), step.as_ref()).unwrap();
            assert_eq!(patched(&change), one_change);
            assert_eq!(told.step("d".into(), Some(&two), step.as_ref()), None, "it is known by now");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let room = Arc::new(AtomicUsize::new(10));
        let kept = Kept::of(vec![0; 8], &room);
        assert!(kept.is_some() && Kept::of(vec![0; 8], &room).is_none());
        drop(kept);
        assert!(Kept::of(vec![0; 8], &room).is_some());
        assert!(Kept::of(vec![0; MAX_BODY + 1], &Arc::new(AtomicUsize::new(MAX_KEPT))).is_none());
    }
}
