//! One user's presence: what was published, who watches, and the documents that follow from it.

use std::hash::Hasher as _;
use std::sync::Arc;

use siphasher::sip::SipHasher13;
use smallvec::SmallVec;

use crate::compose::{Registered, compose, unavailable};
use crate::document::Published;
use crate::transform::filter;
use crate::watch::{Package, Seen, Watch};
use crate::winfo;

/// One publication (RFC 3903).
#[derive(Clone, Debug)]
pub struct Publication {
    /// Names its row.
    pub id: u64,
    pub etag: u64,
    /// Unix seconds.
    pub expires_at: u64,
    /// The registered handset that sent it, if one did.
    pub handset: Option<Handset>,
    pub document: Arc<Published>,
}

/// A registered contact, as a publication remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handset {
    /// [`Registered::id`].
    pub id: u64,
    /// Its name is that of an instance: a new connection does not change it.
    pub instance: bool,
}

impl Publication {
    /// The key of its row.
    pub fn row_key(id: u64) -> String {
        format!("p{id:016x}")
    }

    /// Whether it still speaks: what a handset published is void once the handset is registered no longer.
    fn counts(&self, registered: &[Registered]) -> bool {
        self.handset.is_none_or(|handset| {
            registered.iter().any(|r| r.id == handset.id) || !handset.instance && !registered.is_empty()
        })
    }
}

/// A composed document.
#[derive(Debug)]
pub struct View {
    pub hash: u64,
    pub body: Box<[u8]>,
}

impl View {
    pub fn of(body: Vec<u8>) -> Arc<View> {
        // Not secret: equal bodies are merely not sent again.
        let mut hash = SipHasher13::new();
        hash.write(&body);
        Arc::new(View { hash: hash.finish().max(1), body: body.into() })
    }
}

/// See the module's text.
#[derive(Default, Debug)]
pub struct Presentity {
    /// The one changed last comes last.
    pub publications: Vec<Publication>,
    /// What its user has written once and for all (RFC 4827); whatever is published goes before it.
    pub manipulated: Option<Arc<Published>>,
    /// By number, which grows.
    pub watches: Vec<(u64, Box<Watch>)>,
    pub next: u64,
    /// Of what is true now.
    views: SmallVec<[(Seen, Arc<View>); 1]>,
    /// Stands in the worker's queue.
    pub queued: bool,
    /// Watchers are to be told; `true`: without waiting for their pace.
    pub changed: Option<bool>,
    /// Watches whose notifier has asked for a NOTIFY.
    pub ready: Vec<u64>,
    /// The second for which it stands in the calendar; 0: nowhere.
    pub due: u64,
}

/// Views of one state that are kept; rules that make more of them cost their composition each time.
const MAX_VIEWS: usize = 16;

impl Presentity {
    pub fn is_empty(&self) -> bool {
        self.publications.is_empty() && self.watches.is_empty() && self.manipulated.is_none()
    }

    pub fn position(&self, number: u64) -> Option<usize> {
        self.watches.binary_search_by_key(&number, |(n, _)| *n).ok()
    }

    pub fn watch(&mut self, number: u64) -> Option<&mut Watch> {
        let at = self.position(number)?;
        Some(&mut self.watches[at].1)
    }

    pub fn add(&mut self, watch: Watch) -> u64 {
        self.next += 1;
        self.watches.push((self.next, Box::new(watch)));
        self.next
    }

    /// What is true has changed. `hurry`: watchers are told without waiting for their pace.
    pub fn touch(&mut self, hurry: bool) {
        self.views.clear();
        self.changed = Some(self.changed.unwrap_or(false) || hurry);
    }

    /// What somebody is told may have changed, though nothing was published.
    pub fn look_again(&mut self) {
        self.changed = Some(self.changed.unwrap_or(false));
    }

    /// The document for watchers who see so much. `true`: it was composed now.
    pub fn view(&mut self, aor: &str, seen: &Seen, registered: impl FnOnce() -> Vec<Registered>) -> (Arc<View>, bool) {
        if let Some((_, view)) = self.views.iter().find(|(s, _)| s == seen) {
            return (view.clone(), false);
        }
        let view = match seen {
            Seen::Everything => {
                let registered = registered();
                let counted = self.publications.iter().filter(|p| p.counts(&registered)).map(|p| &*p.document);
                let documents: SmallVec<[&Published; 4]> =
                    self.manipulated.as_deref().into_iter().chain(counted).collect();
                let mut body = Vec::with_capacity(1024);
                compose(aor, &documents, &registered, &mut body);
                View::of(body)
            }
            Seen::Part(permissions) => {
                let (whole, _) = self.view(aor, &Seen::Everything, registered);
                View::of(filter(&whole.body, permissions).unwrap_or_else(|| closed(aor)))
            }
            Seen::Nothing => View::of(closed(aor)),
        };
        if self.views.len() < MAX_VIEWS {
            self.views.push((seen.clone(), view.clone()));
        }
        (view, true)
    }

    /// The next second at which something ends by itself.
    pub fn next_due(&self, now: std::time::Instant, unix: u64) -> Option<u64> {
        let publications = self.publications.iter().map(|p| p.expires_at);
        publications.chain(self.watches.iter().filter_map(|(_, w)| w.due(now, unix))).min()
    }

    /// Every watcher, as watcher information shows them.
    pub fn entries(&self) -> Vec<winfo::Entry> {
        let shown = self.watches.iter().filter(|(_, w)| w.is_presence() && !w.fetch && !w.notifier.is_terminated());
        shown
            .map(|(_, w)| {
                w.entry(if w.notifier.is_active() { winfo::Event::Approved } else { winfo::Event::Subscribe })
            })
            .collect()
    }

    /// Something happened to a watcher: tells those who watch the watchers. Gives their numbers.
    pub fn note(&mut self, entry: &winfo::Entry) -> SmallVec<[u64; 2]> {
        let mut told = SmallVec::new();
        for (number, watch) in &mut self.watches {
            if let Package::Winfo(untold) = &mut watch.package {
                untold.note(entry);
                told.push(*number);
            }
        }
        told
    }
}

fn closed(aor: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    unavailable(aor, &mut body);
    body
}
