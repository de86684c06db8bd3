//! One user's presence: what was published, who watches, and the documents that follow from it.

use std::hash::Hasher as _;
use std::sync::Arc;
use std::time::Instant;

use sip_ims::Aor;
use siphasher::sip::SipHasher13;
use smallvec::SmallVec;

use crate::compose::{Registered, compose, unavailable};
use crate::document::Published;
use crate::packed::{Held, Packer, Shown};
use crate::transform::filter;
use crate::watch::{Package, Seen, Watch, second};
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

/// See the module's text. Most are watched, and no more: what that does not take is apart.
#[derive(Default, Debug)]
pub struct Presentity {
    /// By number.
    watches: SmallVec<[(u64, Held); 1]>,
    content: Option<Box<Content>>,
    /// The second (Unix, good until 2106) for which it stands in the calendar; 0: nowhere.
    pub due: u32,
    /// Stands in the worker's queue.
    pub queued: bool,
    /// Watchers are to be told; `true`: without waiting for their pace.
    pub changed: Option<bool>,
    pub heat: Heat,
}

/// How long ago something was last done with a presentity.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Heat {
    /// Long: it is at rest.
    #[default]
    Cold,
    /// Before the shard was last looked through.
    Warm,
    Hot,
}

/// What is published, and what is made of it.
#[derive(Default, Debug)]
pub struct Content {
    /// The one changed last comes last.
    pub publications: Vec<Publication>,
    /// What its user has written once and for all (RFC 4827); whatever is published goes before it.
    pub manipulated: Option<Arc<Published>>,
    /// Of what is true now.
    views: SmallVec<[(Seen, Arc<View>); 1]>,
    /// Watches whose notifier has asked for a NOTIFY.
    pub ready: Vec<u64>,
    shown: Shown,
}

/// Views of one state that are kept; rules that make more of them cost their composition each time.
const MAX_VIEWS: usize = 16;

impl Presentity {
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty() && !self.has_content()
    }

    pub fn has_content(&self) -> bool {
        self.content.as_ref().is_some_and(|c| !c.publications.is_empty() || c.manipulated.is_some())
    }

    pub fn content(&mut self) -> &mut Content {
        self.content.get_or_insert_default()
    }

    pub fn publications(&self) -> &[Publication] {
        self.content.as_ref().map_or(&[], |c| &c.publications)
    }

    /// Subscriptions to it.
    pub fn watched(&self) -> usize {
        self.watches.len()
    }

    fn position(&self, number: u64) -> Result<usize, usize> {
        self.watches.binary_search_by_key(&number, |(n, _)| *n)
    }

    /// A subscription, unpacked if it was at rest.
    pub fn watch(&mut self, aor: &Aor, packer: &Packer, number: u64) -> Option<&mut Watch> {
        let at = self.position(number).ok()?;
        if let Held::Packed(packed) = &self.watches[at].1 {
            let none = Shown::new();
            let unpacked = packer.unpack(aor, packed, self.content.as_ref().map_or(&none, |c| &c.shown));
            debug_assert!(unpacked.is_some(), "what was packed unpacks");
            self.watches[at].1 = Held::Awake(Box::new(unpacked?));
        }
        match &mut self.watches[at].1 {
            Held::Awake(watch) => Some(watch),
            Held::Packed(_) => None,
        }
    }

    pub fn add(&mut self, watch: Watch) {
        let number = watch.key.number();
        if let Err(at) = self.position(number) {
            self.watches.insert(at, (number, Held::Awake(Box::new(watch))));
        }
    }

    pub fn remove(&mut self, aor: &Aor, packer: &Packer, number: u64) -> Option<Box<Watch>> {
        self.watch(aor, packer, number)?;
        match self.watches.remove(self.position(number).ok()?).1 {
            Held::Awake(watch) => Some(watch),
            Held::Packed(_) => None,
        }
    }

    /// The numbers of the subscriptions of which that is true.
    pub fn numbers(&self, mut which: impl FnMut(&Held) -> bool) -> Vec<u64> {
        self.watches.iter().filter(|(_, held)| which(held)).map(|(number, _)| *number).collect()
    }

    /// The numbers of at most `limit` subscriptions behind `after`, and whether there are more.
    pub fn numbers_after(&self, after: Option<u64>, limit: usize) -> (Vec<u64>, bool) {
        let from = after.map_or(0, |number| self.watches.partition_point(|(n, _)| *n <= number));
        let rest = &self.watches[from..];
        (rest.iter().take(limit).map(|(number, _)| *number).collect(), rest.len() > limit)
    }

    /// Those that are not packed; those of lists and of watcher information never are.
    pub fn awake(&mut self) -> impl Iterator<Item = (u64, &mut Watch)> {
        self.watches.iter_mut().filter_map(|(number, held)| match held {
            Held::Awake(watch) => Some((*number, &mut **watch)),
            Held::Packed(_) => None,
        })
    }

    /// Nothing has happened for a while: forgets what can be made again, and packs the subscriptions that have nothing to do. Gives
    /// their number.
    pub fn rest(&mut self, aor: &Aor, packer: &Packer) -> u64 {
        if self.queued || self.changed.is_some() {
            return 0;
        }
        let mut count = 0;
        let mut shown = self.content.as_mut().map(|c| std::mem::take(&mut c.shown)).unwrap_or_default();
        for (_, held) in &mut self.watches {
            if let Held::Awake(watch) = held
                && let Some(packed) = packer.pack(aor, watch, &mut shown)
            {
                *held = Held::Packed(packed);
                count += 1;
            }
        }
        self.watches.shrink_to_fit();
        let content = self.content();
        content.views = SmallVec::new();
        content.shown = shown;
        if !self.has_content() && self.content().shown.is_empty() && self.content().ready.is_empty() {
            self.content = None;
        }
        count
    }

    /// No subscription refers to the permissions of before any more.
    pub fn forget_shown(&mut self) {
        if let Some(content) = &mut self.content {
            content.shown = Shown::new();
        }
    }

    pub fn take_ready(&mut self) -> Vec<u64> {
        self.content.as_mut().map(|c| std::mem::take(&mut c.ready)).unwrap_or_default()
    }

    /// What is true has changed. `hurry`: watchers are told without waiting for their pace.
    pub fn touch(&mut self, hurry: bool) {
        if let Some(content) = &mut self.content {
            content.views.clear();
        }
        self.changed = Some(self.changed.unwrap_or(false) || hurry);
    }

    /// What somebody is told may have changed, though nothing was published.
    pub fn look_again(&mut self) {
        self.changed = Some(self.changed.unwrap_or(false));
    }

    /// The document for watchers who see so much. `true`: it was composed now.
    pub fn view(&mut self, aor: &str, seen: &Seen, registered: impl FnOnce() -> Vec<Registered>) -> (Arc<View>, bool) {
        let content = self.content();
        if let Some((_, view)) = content.views.iter().find(|(s, _)| s == seen) {
            return (view.clone(), false);
        }
        let view = match seen {
            Seen::Everything => {
                let registered = registered();
                let counted = content.publications.iter().filter(|p| p.counts(&registered)).map(|p| &*p.document);
                let documents: SmallVec<[&Published; 4]> =
                    content.manipulated.as_deref().into_iter().chain(counted).collect();
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
        let views = &mut self.content().views;
        if views.len() < MAX_VIEWS {
            views.push((seen.clone(), view.clone()));
        }
        (view, true)
    }

    /// The next second at which something ends by itself.
    pub fn next_due(&self, packer: &Packer, now: Instant, unix: u64) -> Option<u64> {
        let publications = self.publications().iter().map(|p| p.expires_at);
        let deadline = self.watches.iter().filter_map(|(_, held)| held.deadline(packer)).min();
        publications.chain(deadline.map(|at| second(at, now, unix))).min()
    }

    /// Every watcher, as watcher information shows them.
    pub fn entries(&mut self, aor: &Aor, packer: &Packer) -> Vec<winfo::Entry> {
        let mut entries = Vec::new();
        for number in self.numbers(Held::is_presence) {
            let Some(w) = self.watch(aor, packer, number).filter(|w| !w.fetch && !w.notifier.is_terminated()) else {
                continue;
            };
            entries.push(w.entry(if w.notifier.is_active() {
                winfo::Event::Approved
            } else {
                winfo::Event::Subscribe
            }));
        }
        entries
    }

    /// Something happened to a watcher: tells those who watch the watchers. Gives their numbers.
    pub fn note(&mut self, entry: &winfo::Entry) -> SmallVec<[u64; 2]> {
        let mut told = SmallVec::new();
        for (number, watch) in self.awake() {
            if let Package::Winfo(untold) = &mut watch.package {
                untold.note(entry);
                told.push(number);
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
