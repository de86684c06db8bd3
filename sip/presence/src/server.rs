//! The presence server as the rest of the house sees it, and the state that all of its parts share.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use sip_ims::ports::{Documents, StateStore};
use sip_ims::service::{Caller, Location, Outlet, Reach, Request, Service, Step, Verdict};
use sip_ims::subscriptions::Subscriptions;
use sip_ims::{Aor, Home, Reading};
use sip_proto::features::Union;
use sip_proto::headers::NameAddr;
use sip_proto::subscription::{NotifierEvent, NotifierStep};
use sip_proto::uri::Uri;
use sip_proto::{HeaderName, Message, Method};
use siphasher::sip::SipHasher13;

use crate::abroad::Abroad;
use crate::book::Book;
use crate::compose::Registered;
use crate::config::Config;
use crate::counts::Counts;
use crate::follow::Followers;
use crate::lists::Shelf;
use crate::mailbox;
use crate::packed::Packer;
use crate::presentity::{Handset, Heat, Presentity};
use crate::rules::{Decision, Handling, Watcher, canonical};
use crate::services;
use crate::takeover::Takeover;
use crate::versions::Versions;
use crate::watch::{DialogKey, Seen, Watch};
use crate::winfo;
use crate::work::{Queue, unix_now};

/// What the presence server works with.
pub struct Parts {
    pub home: Arc<Home>,
    pub location: Arc<dyn Location>,
    pub store: Arc<dyn StateStore>,
    pub documents: Arc<dyn Documents>,
    /// Watches members of lists in other domains; `None`: nothing is known of them.
    pub abroad: Option<Arc<Subscriptions>>,
}

/// See the crate's text. One for all shards of the stack.
pub struct Presence {
    pub(crate) config: Config,
    pub(crate) parts: Parts,
    shards: Box<[Mutex<Shard>]>,
    /// By number: whose presentity.
    dialogs: Box<[Mutex<Dialogs>]>,
    hasher: RandomState,
    pub(crate) packer: Packer,
    pub(crate) book: Book,
    pub(crate) lists: Shelf,
    pub(crate) mailboxes: mailbox::Shelf,
    pub(crate) versions: Versions,
    watchers: Watchers,
    pub(crate) followers: Followers,
    pub(crate) abroad: Abroad,
    pub(crate) takeover: Takeover,
    pub(crate) outlet: OnceLock<Arc<dyn Outlet>>,
    pub(crate) queue: Queue,
    pub(crate) counts: Arc<Counts>,
    pub(crate) publications: AtomicUsize,
    pub(crate) subscriptions: AtomicUsize,
    unique: AtomicU64,
    pub(crate) reading: Reading,
    pub(crate) me: Weak<Presence>,
}

/// A part of the presentities, by address-of-record.
///
/// Locks are taken in this order: the stack's shard, this, the registrar's table, the store's queue.
#[derive(Default)]
pub(crate) struct Shard {
    pub presentities: HashMap<Aor, Box<Presentity>>,
    /// Which presentities are looked at when: one entry for each, at or before the first second at which something of it ends.
    calendar: BTreeMap<u64, Vec<Aor>>,
    /// Presentities that are not at rest.
    awake: Vec<Aor>,
}

const SHARDS: usize = 64;

/// How many subscriptions each watcher has, by a keyed hash of its URI.
#[derive(Default)]
struct Watchers(Mutex<HashMap<u64, u32>>);

/// Whose presentity a subscription watches, by its [`DialogKey::number`].
type Dialogs = HashMap<u64, Aor>;

impl Presence {
    pub fn new(config: Config, parts: Parts) -> Arc<Presence> {
        let mut key = [0; 16];
        key.copy_from_slice(&config.key[..16]);
        let packer = Packer { started: Instant::now(), home: parts.home.clone(), pace: config.pace, key };
        Arc::new_cyclic(|me| Presence {
            packer,
            parts,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            dialogs: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            book: Book::default(),
            lists: Shelf::new(&config.xcap_root, config.lists_per_user, config.lists),
            mailboxes: mailbox::Shelf::default(),
            versions: Versions::default(),
            watchers: Watchers::default(),
            followers: Followers::default(),
            abroad: Abroad::default(),
            takeover: Takeover::default(),
            outlet: OnceLock::new(),
            queue: Queue::default(),
            counts: Arc::default(),
            publications: AtomicUsize::new(0),
            subscriptions: AtomicUsize::new(0),
            unique: AtomicU64::new(0),
            reading: Reading::default(),
            me: me.clone(),
            config,
        })
    }

    /// Where answers and notifications go. Call it once, before the first message: starts the thread that notifies.
    pub fn attach(&self, outlet: Arc<dyn Outlet>) {
        if self.outlet.set(outlet).is_ok() {
            self.run();
        }
    }

    /// Publications held.
    pub fn publications(&self) -> usize {
        self.publications.load(Relaxed)
    }

    /// Subscriptions held, to presence and to watcher information.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.load(Relaxed)
    }

    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// The lists of all users.
    pub fn lists(&self) -> &Shelf {
        &self.lists
    }

    pub(crate) fn shard(&self, aor: &str) -> MutexGuard<'_, Shard> {
        self.shards[(self.hasher.hash_one(aor) >> 32) as usize % SHARDS].lock()
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.shards.iter().map(|shard| shard.lock())
    }

    pub(crate) fn dialogs(&self, key: DialogKey) -> MutexGuard<'_, Dialogs> {
        self.dialogs[key.0 as usize % SHARDS].lock()
    }

    /// Whose presentity a dialog watches.
    pub(crate) fn watched_in(&self, key: DialogKey) -> Option<Aor> {
        self.dialogs(key).get(&key.number()).cloned()
    }

    /// A subscription, awake.
    pub(crate) fn watch<'p>(&self, aor: &Aor, p: &'p mut Presentity, number: u64) -> Option<&'p mut Watch> {
        p.watch(aor, &self.packer, number)
    }

    /// Unlike every other of this process, and most likely of all.
    pub(crate) fn draw(&self) -> u64 {
        self.hasher.hash_one(self.unique.fetch_add(1, Relaxed))
    }

    pub(crate) fn dialog_key(&self, message: &Message<'_>) -> DialogKey {
        self.packer.dialog_key(&sip_ims::notify::dialog_key(message))
    }

    /// Who sends this, as a watcher.
    pub(crate) fn watcher(&self, request: &Request<'_>) -> Watcher {
        if let Caller::User(user) = &request.caller {
            let number = user.msisdn.map(|n| format!("tel:{n}").into());
            return Watcher { uri: format!("sip:{}", user.aor).into(), number, anonymous: false };
        }
        let asserted = match request.caller {
            Caller::Trusted => request.message.value(HeaderName::PAssertedIdentity),
            _ => None,
        };
        let value = asserted.or_else(|| request.message.value(HeaderName::From)).unwrap_or_default();
        let uri = NameAddr::parse(value).map_or_else(String::new, |a| String::from_utf8_lossy(a.addr).into_owned());
        // RFC 3323 §4.1.1.3.
        let anonymous = Uri::parse(uri.as_bytes()).is_none_or(|u| u.host().eq_ignore_ascii_case(b"anonymous.invalid"));
        Watcher { uri: canonical(&uri).as_ref().into(), number: None, anonymous }
    }

    /// Whether a watcher may know, by the user's rules or else by ours.
    pub(crate) fn decide(&self, aor: &Aor, watcher: &Watcher, unix: u64) -> Decision {
        let own = watcher.uri.strip_prefix("sip:");
        if own == Some(aor.as_str()) {
            return Decision { handling: Handling::Allow, permissions: None };
        }
        if let Some(rules) = self.book.rules(aor) {
            return rules.decide(watcher, unix);
        }
        let domain = own.and_then(|uri| uri.split_once('@')).map(|(_, host)| host);
        let handling = match domain {
            Some(host) if self.parts.home.is_domain(host.as_bytes()) => self.config.own_domain,
            _ => self.config.others,
        };
        Decision { handling, permissions: None }
    }

    /// What the user of a request has published of its services, as far as the sender may see it, as feature tags.
    pub(crate) fn published_features(&self, request: &Request<'_>, unix: u64, features: &mut Union) {
        let Some(aor) = &request.callee else { return };
        let decision = self.decide(aor, &self.watcher(request), unix);
        if decision.handling != Handling::Allow {
            return;
        }
        let mut shard = self.shard(aor.as_str());
        let Some((p, _)) = shard.get(aor.as_str()) else { return };
        let content = p.content();
        if content.manipulated.is_some() || content.publications.iter().any(|b| b.expires_at > unix) {
            let view = self.view(aor, p, &seen(&decision), unix);
            drop(shard);
            services::to_features(&view.body, features);
        }
    }

    /// The contacts of a user.
    pub(crate) fn registered(&self, aor: &str, unix: u64) -> Vec<Registered> {
        let mut found = Vec::new();
        self.parts.location.each_anywhere(aor, unix, &mut |reach| {
            found.push(Registered { id: handset(reach).id, params: reach.params.into(), q: reach.q });
        });
        found
    }

    /// The handset of this user that a request came from.
    pub(crate) fn sender(&self, aor: &str, request: &Request<'_>, unix: u64) -> Option<Handset> {
        let mut found = None;
        let remote = request.flow.remote;
        self.parts.location.each_anywhere(aor, unix, &mut |reach| {
            let there = match reach.hop {
                Some(hop) => hop.remote() == remote,
                None => Uri::parse(reach.uri).is_some_and(|u| {
                    u.host_ip() == Some(remote.ip().to_canonical()) && u.port_or_default() == remote.port()
                }),
            };
            if there && found.is_none() {
                found = Some(handset(reach));
            }
        });
        found
    }

    /// Puts a presentity into the worker's queue.
    pub(crate) fn enqueue(&self, aor: &Aor, presentity: &mut Presentity) {
        if !std::mem::replace(&mut presentity.queued, true) {
            self.queue.push(aor.clone());
        }
    }

    /// Feeds a watch's notifier and does what it says.
    pub(crate) fn step(&self, aor: &Aor, p: &mut Presentity, now: Instant, number: u64, event: NotifierEvent) {
        let Some(watch) = self.watch(aor, p, number) else { return };
        let (notifier, step) = watch.notifier.clone().step(now, event);
        watch.notifier = notifier;
        self.follow(aor, p, now, number, step);
    }

    pub(crate) fn follow(&self, aor: &Aor, p: &mut Presentity, now: Instant, number: u64, step: NotifierStep) {
        if step.gone {
            return self.remove(aor, p, number);
        }
        if step.notify {
            p.content().ready.push(number);
            return self.enqueue(aor, p);
        }
        // It may want to be looked at earlier than the calendar knows: the worker enters that.
        let due = self.watch(aor, p, number).and_then(|w| w.due(now, unix_now()));
        if due.is_some_and(|at| p.due == 0 || at < p.due.into()) {
            self.enqueue(aor, p);
        }
    }

    /// Takes a watch in, whose dialog is new.
    pub(crate) fn admit(&self, aor: &Aor, p: &mut Presentity, watch: Watch) -> u64 {
        self.follow_members(aor, &watch);
        let key = watch.key;
        *self.watchers.0.lock().entry(self.hasher.hash_one(&*watch.watcher.uri)).or_default() += 1;
        p.add(watch);
        self.dialogs(key).insert(key.number(), aor.clone());
        self.subscriptions.fetch_add(1, Relaxed);
        key.number()
    }

    /// Forgets a watch; its row is gone already.
    pub(crate) fn remove(&self, aor: &Aor, p: &mut Presentity, number: u64) {
        let Some(watch) = p.remove(aor, &self.packer, number) else { return };
        self.leave_members(aor, &watch);
        self.dialogs(watch.key).remove(&number);
        self.subscriptions.fetch_sub(1, Relaxed);
        let watcher = self.hasher.hash_one(&*watch.watcher.uri);
        let mut watchers = self.watchers.0.lock();
        if let Some(count) = watchers.get_mut(&watcher) {
            *count -= 1;
            if *count == 0 {
                watchers.remove(&watcher);
            }
        }
    }

    /// Whether a watcher has as many subscriptions as anybody may have.
    pub(crate) fn has_too_many(&self, watcher: &str) -> bool {
        let count = self.watchers.0.lock().get(&self.hasher.hash_one(watcher)).copied();
        count.is_some_and(|count| count as usize >= self.config.subscriptions_per_watcher)
    }

    /// Something happened to a watch: those who watch the watchers are told.
    pub(crate) fn tell_of(&self, aor: &Aor, p: &mut Presentity, now: Instant, number: u64, event: winfo::Event) {
        let Some(watch) = self.watch(aor, p, number).filter(|w| w.is_presence() && !w.fetch) else { return };
        let entry = watch.entry(event);
        for number in p.note(&entry) {
            self.step(aor, p, now, number, NotifierEvent::Changed);
        }
    }

    /// Enters a presentity into its shard's calendar if it must be looked at by then.
    pub(crate) fn expect(calendar: &mut Calendar<'_>, aor: &Aor, p: &mut Presentity, at: u64) {
        if p.due == 0 || at < p.due.into() {
            p.due = u32::try_from(at).unwrap_or(u32::MAX);
            calendar.0.entry(at).or_default().push(aor.clone());
        }
    }
}

/// A shard's calendar, lent beside one of its presentities.
pub(crate) struct Calendar<'a>(&'a mut BTreeMap<u64, Vec<Aor>>);

impl Shard {
    /// The presentity, made if it is not there.
    pub fn entry(&mut self, aor: &Aor) -> (&mut Presentity, Calendar<'_>) {
        let presentity: &mut Presentity = self.presentities.entry(aor.clone()).or_default();
        if std::mem::replace(&mut presentity.heat, Heat::Hot) == Heat::Cold {
            self.awake.push(aor.clone());
        }
        (presentity, Calendar(&mut self.calendar))
    }

    pub fn get(&mut self, aor: &str) -> Option<(&mut Presentity, Calendar<'_>)> {
        let (name, found) = self.presentities.get_key_value(aor)?;
        if found.heat == Heat::Cold {
            self.awake.push(name.clone());
        }
        let presentity: &mut Presentity = self.presentities.get_mut(aor)?;
        presentity.heat = Heat::Hot;
        Some((presentity, Calendar(&mut self.calendar)))
    }

    /// Lets those rest that nobody has looked at since the last time. Gives the number of subscriptions that were packed.
    pub fn rest(&mut self, packer: &Packer) -> u64 {
        let mut packed = 0;
        for aor in std::mem::take(&mut self.awake) {
            let Some(p) = self.presentities.get_mut(&aor) else { continue };
            if p.heat == Heat::Hot {
                p.heat = Heat::Warm;
                self.awake.push(aor);
            } else {
                p.heat = Heat::Cold;
                packed += p.rest(&aor, packer);
            }
        }
        packed
    }

    /// Forgets a presentity of which nothing is left.
    pub fn tidy(&mut self, aor: &str) {
        if self.presentities.get(aor).is_some_and(|p| p.is_empty()) {
            self.presentities.remove(aor);
        }
    }

    /// Those that are to be looked at by this second.
    pub fn due(&mut self, unix: u64) -> Vec<Aor> {
        let mut due = Vec::new();
        while let Some(entry) = self.calendar.first_entry().filter(|e| *e.key() <= unix) {
            let second = *entry.key();
            for aor in entry.remove() {
                // An entry that was overtaken by an earlier one says nothing any more.
                if let Some(p) = self.presentities.get_mut(&aor).filter(|p| u64::from(p.due) == second) {
                    p.due = 0;
                    due.push(aor);
                }
            }
        }
        due
    }
}

/// What a watcher sees under this decision.
pub(crate) fn seen(decision: &Decision) -> Seen {
    match (decision.handling, &decision.permissions) {
        (Handling::Allow, None) => Seen::Everything,
        (Handling::Allow, Some(permissions)) => Seen::Part(permissions.clone()),
        _ => Seen::Nothing,
    }
}

fn handset(reach: &Reach<'_>) -> Handset {
    let instance = !reach.instance.is_empty();
    let mut hash = SipHasher13::new();
    hash.write(if instance { reach.instance } else { reach.uri });
    Handset { id: hash.finish(), instance }
}

impl Service for Presence {
    fn name(&self) -> &'static str {
        "presence"
    }

    fn request(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        match request.message.method() {
            Method::Publish => self.publish(step, request),
            Method::Subscribe => self.subscribe(step, request),
            Method::Options if self.tell_capabilities(step, request) => Verdict::Taken,
            _ => Verdict::Pass,
        }
    }
}
