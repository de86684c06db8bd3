//! The registrar as the rest of the house sees it: a service that takes REGISTER and SUBSCRIBE, and the place to ask where
//! a user is.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_ims::criteria::Filters;
use sip_ims::ports::{BindingChange, BindingRow, BindingStore, Done};
use sip_ims::service::{Location, NextHops, Outlet, Reach, Request, Service, Step, Verdict};
use sip_ims::subscriptions::{News, Subscriptions};
use sip_ims::{Aor, Authenticator, Directory, Home, Reading, User};
use sip_proto::uri::Uri;
use sip_proto::{Flow, Method};

use crate::announce::{self, Announcer};
use crate::binding::{Binding, Text, with_key};
use crate::core::Core;
use crate::elsewhere::Nodes;
use crate::events::{Event, Limits, Watchers};
use crate::gruu::{Gruus, Temporary, public_instance};
use crate::table::{Table, sort};
use crate::undo::Shelves;

/// Settings of the registrar.
#[derive(Clone, Debug)]
pub struct RegistrarConfig {
    pub store: Acknowledge,
    /// Seconds; shorter requests get 423, but an hour is never too short (RFC 3261 §10.3 step 7).
    pub min_expires: u32,
    /// Seconds; longer requests are shortened.
    pub max_expires: u32,
    /// Seconds granted when the phone names none.
    pub default_expires: u32,
    /// Contacts of one address-of-record, at least 1.
    pub max_contacts: usize,
    /// Seconds between keep-alives that a phone with an outbound flow is told (RFC 5626 §4.4), at most 29 over UDP; 0:
    /// nothing is told.
    pub flow_timer: u32,
    /// Value of Service-Route (RFC 3608); empty: this server, told to phones behind a Path.
    pub service_route: Vec<u8>,
    /// Name of this node, as it stands in the rows of the store.
    pub node: String,
    /// Secret of the house, from which temporary GRUUs are made; the nodes of a cluster share it.
    pub key: [u8; 32],
    /// Subscriptions to the registration event package, all together and of one address-of-record.
    pub max_subscriptions: usize,
    pub max_watchers: usize,
    /// An S-CSCF that says that a user has registered, and not with what phones, is asked by its reg event package.
    pub reg_event: bool,
}

impl Default for RegistrarConfig {
    /// Fit for a small house; `node` and `key` are to be set.
    fn default() -> RegistrarConfig {
        RegistrarConfig {
            store: Acknowledge::BeforeReply,
            min_expires: 60,
            max_expires: 86_400,
            default_expires: 3_600,
            max_contacts: 10,
            flow_timer: 120,
            service_route: Vec::new(),
            node: String::new(),
            key: [0; 32],
            max_subscriptions: 10_000,
            max_watchers: 16,
            reg_event: true,
        }
    }
}

/// When a binding is written, seen from the 200 that grants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acknowledge {
    /// In the store first, so that kill -9 loses none.
    BeforeReply,
    /// Answered first.
    Behind,
}

/// Why somebody should look whether something waits for a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// A new contact, or one that has moved.
    Reachable,
    /// The same contact for some more time.
    Refreshed,
}

/// Told of each successful REGISTER that leaves the user reachable: the canonical address-of-record, and whose it is (nobody's,
/// in closed test nets). Called on the hot path or on the store's thread, when the answer may go: must be cheap, must not ask
/// the registrar back.
pub type OnRegistered = Arc<dyn Fn(&str, Option<&User>, Arrival) + Send + Sync>;

/// Told that the contacts of an address-of-record have changed, whoever changed them, and whether one of them is gone. Called on
/// the hot path: must be cheap, must not ask the registrar back.
pub type OnChanged = Arc<dyn Fn(&str, bool) + Send + Sync>;

/// Told of wrong credentials and malformed requests: the flow and how many points.
pub type Penalise = Arc<dyn Fn(&Flow, u32) + Send + Sync>;

/// What the registrar works with.
pub struct Parts {
    pub home: Arc<Home>,
    pub directory: Arc<Directory>,
    pub store: Arc<dyn BindingStore>,
    /// `None`: everybody is who they say (closed test nets only).
    pub authenticator: Option<Arc<Authenticator>>,
    pub on_registered: OnRegistered,
    pub on_changed: OnChanged,
    pub penalise: Penalise,
    /// Which application servers are told of registrations.
    pub filters: Arc<Filters>,
}

/// What the registrar needs to speak to the nodes of an IMS core by itself.
pub struct Ims {
    pub subscriptions: Arc<Subscriptions>,
    pub next_hops: Arc<dyn NextHops>,
    /// Seconds since 1970: floors below the server read no clock.
    pub unix: fn() -> u64,
}

/// See the crate's text. One for all shards.
pub struct Registrar {
    pub(crate) config: RegistrarConfig,
    pub(crate) parts: Parts,
    pub(crate) table: Arc<Table>,
    pub(crate) gruus: Gruus,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) shelves: Arc<Shelves>,
    pub(crate) outlet: OnceLock<Arc<dyn Outlet>>,
    /// Numbers temporary GRUUs.
    pub(crate) unique: AtomicU64,
    pub(crate) reading: Reading,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) core: Core,
    pub(crate) announcer: Arc<Announcer>,
    ims: OnceLock<(Ims, Weak<Registrar>)>,
    /// Whose registration ends with the next tick.
    ending: Mutex<Vec<Aor>>,
    /// Users who were removed, and when.
    removed: Mutex<Vec<(Instant, Box<str>)>>,
}

impl Registrar {
    pub fn new(config: RegistrarConfig, parts: Parts) -> Registrar {
        let mut hash_key = [0; 16];
        hash_key.copy_from_slice(&config.key[..16]);
        let limits = Limits { subscriptions: config.max_subscriptions, watchers: config.max_watchers };
        let table = Arc::new(Table::new(hash_key));
        let watchers = Watchers::new(limits, parts.home.clone(), table.clone());
        let nodes = Arc::new(Nodes::default());
        let shelves = Arc::new(Shelves {
            table: table.clone(),
            store: parts.store.clone(),
            watchers: watchers.clone(),
            on_changed: parts.on_changed.clone(),
            node: config.node.clone(),
            nodes: nodes.clone(),
        });
        Registrar {
            gruus: Gruus::new(&config.key),
            watchers,
            shelves,
            table,
            outlet: OnceLock::new(),
            unique: AtomicU64::new(0),
            reading: Reading::default(),
            nodes,
            core: Core::default(),
            announcer: Announcer::new(parts.home.clone(), parts.filters.clone()),
            ims: OnceLock::new(),
            ending: Mutex::default(),
            removed: Mutex::default(),
            config,
            parts,
        }
    }

    /// The way to the nodes of an IMS core, and to application servers. Call it once, after [`Registrar::attach`].
    pub fn join(self: &Arc<Self>, ims: Ims) {
        let Some(outlet) = self.outlet.get() else { return };
        let (next_hops, unix) = (ims.next_hops.clone(), ims.unix);
        if self.ims.set((ims, Arc::downgrade(self))).is_ok() {
            self.announcer.run(outlet.clone(), next_hops, unix, announce::terminating(Arc::downgrade(self)));
        }
    }

    /// A server that the user cannot do without is down (TS 24.229 §5.4.1.7A): the registration ends with the next tick.
    pub(crate) fn terminate_later(&self, aor: &Aor) {
        self.ending.lock().push(aor.clone());
    }

    /// What an S-CSCF says of a user's phones becomes what the user's binding says.
    fn heard_of(&self, aor: &Aor, news: News) {
        let Some(features) = self.core.heard(aor, news) else { return };
        let mut params = Vec::new();
        features.write(&mut params);
        let Ok(params) = String::from_utf8(params) else { return };
        let own = format!("sip:{aor}");
        let changed = self.table.take(aor.as_str(), |bindings| {
            let mut changed = false;
            for binding in bindings.iter_mut().filter(|b| b.contact() == own.as_bytes()) {
                let old = binding.clone();
                let text = old.text();
                if text.params == params || !binding.update(&Text { params: &params, ..text }, old.facts()) {
                    continue;
                }
                changed = true;
                let _ = with_key(text.instance, old.reg_id, text.contact, |key| {
                    let row = binding.row(aor.as_str(), key, &self.config.node);
                    // What is not written now is learnt again after a restart.
                    self.parts.store.write(BindingChange::Put(row), None)
                });
            }
            changed
        });
        if changed == Some(true) {
            (self.parts.on_changed)(aor.as_str(), false);
            // They may be able to take what waits.
            self.arrived(aor.as_str());
        }
    }

    /// Where answers and notifications go that do not come out of a received message. Call it once, before the first
    /// message: starts the thread that sends the notifications, which ends with the registrar.
    pub fn attach(&self, outlet: Arc<dyn Outlet>) {
        if self.outlet.set(outlet.clone()).is_ok() {
            self.watchers.run(outlet);
        }
    }

    /// Takes what the store holds into memory; `done` gets the number of rows. What has expired meanwhile, and what could
    /// only be reached over a connection of the past, goes with the next [`Registrar::tick`].
    pub fn load(self: &Arc<Self>, unix: u64, done: Done<u64>) {
        let registrar = self.clone();
        self.parts.store.load(Box::new(move |row| registrar.restore(&row, unix)), done);
    }

    fn restore(&self, row: &BindingRow<'_>, unix: u64) {
        let node = self.node_of(row);
        let Some(mut binding) = Binding::from_row(row, node, unix) else { return };
        let lost = row.flow.is_some_and(|f| f.transport.is_reliable());
        if node == 0 && lost {
            binding.expires_at = binding.expires_at.min(unix as u32);
        }
        let Some(aor) = self.address(row.aor) else { return };
        self.table.write(&aor, |bindings| {
            // Who has registered since the start knows better.
            let same = |b: &Binding| match (b.reg_id, binding.reg_id) {
                (0, 0) => b.contact() == binding.contact(),
                (a, c) => a == c && b.instance() == binding.instance(),
            };
            if !bindings.iter().any(same) && bindings.len() < self.config.max_contacts {
                bindings.push(binding);
                sort(bindings);
            }
        });
    }

    /// Somebody has become reachable without a REGISTER of theirs here.
    pub(crate) fn arrived(&self, aor: &str) {
        (self.parts.on_registered)(aor, self.parts.directory.by_aor(aor).as_deref(), Arrival::Reachable);
    }

    /// A stored address-of-record: the user's own text where there is a user.
    pub(crate) fn address(&self, text: &str) -> Option<Aor> {
        let user = self.parts.directory.by_aor(text);
        user.map(|user| user.aor.clone()).or_else(|| text.parse().ok())
    }

    /// Once a second: bindings and subscriptions that have run out.
    pub fn tick(&self, now: Instant, unix: u64) {
        let mut gone = Vec::new();
        let more = self.table.expire(unix, |aor, binding| gone.push((Box::<str>::from(aor), binding)));
        self.forget(now, unix, gone, Event::Expired);
        if more {
            tracing::debug!("more bindings have expired than are taken out at once");
        }
        self.watchers.tick(now, unix);
        for aor in std::mem::take(&mut *self.ending.lock()) {
            self.take_all(now, unix, aor.as_str(), Event::Deactivated);
        }
        self.take_late(now, unix);
        if let Some((ims, me)) = self.ims.get() {
            let me = me.clone();
            self.core.tick(&ims.subscriptions, move |aor, news| {
                if let Some(me) = me.upgrade() {
                    me.heard_of(aor, news);
                }
            });
        }
    }

    /// A connection has closed: what could only be reached over it is unreachable now.
    pub fn flow_closed(&self, now: Instant, unix: u64, flow: &Flow) {
        if !flow.transport.is_reliable() {
            return;
        }
        let mut gone = Vec::new();
        let over = |b: &Binding| b.way().and_then(|w| w.connection()) == Some(flow.id);
        self.table.closed(flow.id, |b| !over(b), |aor, binding| gone.push((Box::<str>::from(aor), binding)));
        self.forget(now, unix, gone, Event::Deactivated);
    }

    /// Takes every binding of an address-of-record away: the user was removed. So do the next ticks, for what was on its way meanwhile.
    pub fn deregister(&self, now: Instant, unix: u64, aor: &str) {
        self.take_all(now, unix, aor, Event::Rejected);
        self.watchers.end(now, unix, aor);
        self.removed.lock().push((now, aor.into()));
    }

    fn take_all(&self, now: Instant, unix: u64, aor: &str, event: Event) {
        let gone = self.table.take(aor, |bindings| bindings.drain(..).map(|b| (aor.into(), b)).collect());
        self.forget(now, unix, gone.unwrap_or_default(), event);
    }

    /// A REGISTER that was let in just before its user was removed, here or at another node, stores its binding after.
    fn take_late(&self, now: Instant, unix: u64) {
        let removed = std::mem::take(&mut *self.removed.lock());
        let mut watched = Vec::new();
        for (since, aor) in removed {
            // The user may be back.
            if self.parts.directory.by_aor(&aor).is_none() {
                self.take_all(now, unix, &aor, Event::Rejected);
                if now.saturating_duration_since(since) < LATE {
                    watched.push((since, aor));
                }
            }
        }
        self.removed.lock().append(&mut watched);
    }

    /// Takes bindings that have left memory out of the store too, and tells the watchers.
    fn forget(&self, now: Instant, unix: u64, gone: Vec<(Box<str>, Binding)>, event: Event) {
        for (aor, binding) in gone {
            self.unstore(&aor, &binding);
            (self.parts.on_changed)(&aor, true);
            if self.announcer.any() && self.table.read(&aor, <[Binding]>::is_empty) {
                self.announcer.ended(&aor);
            }
            if self.watchers.any() {
                self.watchers.changed(now, unix, &aor, vec![(event, binding)]);
            }
        }
    }

    fn unstore(&self, aor: &str, binding: &Binding) {
        // When the queue is full the row stays; it is dropped when it is read.
        let _ = with_key(binding.text().instance, binding.reg_id, binding.text().contact, |key| {
            self.parts.store.write(BindingChange::Forget { aor, key, node: &self.config.node }, None)
        });
    }

    /// Bindings held.
    pub fn bindings(&self) -> usize {
        self.table.bindings()
    }

    /// Users with a binding.
    pub fn users(&self) -> usize {
        self.table.users()
    }

    /// Subscriptions to the registration event package.
    pub fn subscriptions(&self) -> usize {
        self.watchers.len()
    }

    fn resolve_gruu(&self, uri: &Uri<'_>, unix: u64, show: &mut dyn FnMut(&Reach<'_>)) -> bool {
        let home = &self.parts.home;
        if uri.gr().is_none() || !(home.is_domain(uri.host()) || home.is_us(uri)) {
            return false;
        }
        if let Some(instance) = public_instance(uri) {
            let Some(aor) = home.aor(uri) else { return false };
            let known = self.parts.authenticator.is_none() || self.parts.directory.by_aor(aor.as_str()).is_some();
            if known {
                self.each_where(aor.as_str(), unix, |b| b.instance() == &*instance, show);
            }
            return known;
        }
        let Some(temporary) = uri.user().and_then(|u| self.gruus.read_temporary(u)) else { return false };
        let aor = format!("{}@{}", temporary.user, home.domain());
        let valid = self.table.read(&aor, |bindings| self.meant(&temporary, bindings, unix));
        let Some(instance) = valid else { return false };
        self.each_where(&aor, unix, |b| b.instance() == &*instance, show);
        true
    }

    /// The instance that a temporary GRUU means, while it is valid.
    fn meant(&self, temporary: &Temporary, bindings: &[Binding], unix: u64) -> Option<Box<[u8]>> {
        let mut live = bindings.iter().filter(|b| b.is_live(unix) && !b.instance().is_empty());
        let found = live.find(|b| self.gruus.means(temporary, b.instance(), b.text().call_id.as_bytes()))?;
        Some(found.instance().into())
    }

    fn each_where(&self, aor: &str, unix: u64, which: impl Fn(&Binding) -> bool, show: &mut dyn FnMut(&Reach<'_>)) {
        self.table.read(aor, |bindings| {
            for binding in bindings.iter().filter(|b| b.is_live(unix) && which(b)) {
                let reach = binding.reach();
                if !binding.is_elsewhere() {
                    show(&reach);
                } else if let Some(elsewhere) = self.nodes.elsewhere(binding) {
                    show(&Reach { elsewhere: Some(elsewhere), ..reach });
                }
            }
        });
    }

    pub(crate) fn next_unique(&self) -> u64 {
        self.unique.fetch_add(1, Relaxed)
    }
}

/// How long after a user's removal its bindings may still come in: a second for the commit, and one until other nodes have read it.
const LATE: Duration = Duration::from_secs(2);

impl Service for Registrar {
    fn name(&self) -> &'static str {
        "registrar"
    }

    fn request(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        match request.message.method() {
            Method::Register => {
                if !self.third_party(step, request) {
                    self.register(step, request);
                }
                Verdict::Taken
            }
            Method::Subscribe => self.subscribe(step, request),
            _ => Verdict::Pass,
        }
    }
}

impl Location for Registrar {
    fn each(&self, aor: &str, unix: u64, show: &mut dyn FnMut(&Reach<'_>)) {
        self.each_where(aor, unix, |b| !b.is_elsewhere(), show);
    }

    fn each_anywhere(&self, aor: &str, unix: u64, show: &mut dyn FnMut(&Reach<'_>)) {
        self.each_where(aor, unix, |_| true, show);
    }

    fn each_of_gruu(&self, uri: &Uri<'_>, unix: u64, show: &mut dyn FnMut(&Reach<'_>)) -> bool {
        self.resolve_gruu(uri, unix, show)
    }

    /// Contacts that may be reached in another way than by the flow that failed stay.
    fn failed(&self, aor: &str, way: &Reach<'_>) {
        let gone = self.table.take(aor, |bindings| {
            let same = |b: &Binding| Reach { elsewhere: self.nodes.elsewhere(b), ..b.reach() }.is_same_way(way);
            let dead = |b: &Binding| same(b) && (b.way().is_some() || b.reg_id > 0);
            bindings.iter().position(dead).map(|i| bindings.remove(i))
        });
        if let Some(binding) = gone.flatten() {
            self.unstore(aor, &binding);
            self.watchers.defer(aor, Event::Deactivated, binding);
            (self.parts.on_changed)(aor, true);
        }
    }

    fn authenticated(&self, flow: &Flow, user: &User) -> bool {
        // The source of a datagram proves nothing.
        flow.transport.is_reliable()
            && self.table.read(user.aor.as_str(), |bindings| {
                bindings.iter().any(|b| b.proved && b.way().is_some_and(|w| w.is(flow)))
            })
    }
}
