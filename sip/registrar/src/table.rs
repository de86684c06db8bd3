//! The bindings of all users in memory: cut in pieces by address-of-record, so that threads seldom meet at one lock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hasher as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hashbrown::HashTable;
use hashbrown::hash_table::{Entry, OccupiedEntry};
use parking_lot::{Mutex, RwLock};
use sip_ims::Aor;
use sip_proto::FlowId;
use siphasher::sip::SipHasher13;
use smallvec::SmallVec;

use crate::binding::Binding;

/// Pieces; a power of two.
const SHARDS: usize = 64;

/// See the module's text.
pub struct Table {
    secret: [u8; 16],
    shards: [RwLock<HashTable<Bound>>; SHARDS],
    bindings: AtomicUsize,
    users: AtomicUsize,
    /// When each address-of-record is next looked at for expired bindings.
    calendar: Mutex<Calendar>,
    /// Which addresses-of-record are reached over a connection: at most all that are bound.
    connections: Mutex<HashMap<FlowId, HashSet<u64>>>,
}

/// The bindings of one address-of-record: one is the rule, and stands in the table itself.
pub type Bindings = SmallVec<[Binding; 1]>;

/// One address-of-record.
struct Bound {
    hash: u64,
    /// Shares its text with the user's own, which a look-up has just read.
    aor: Aor,
    /// Best first.
    bindings: Bindings,
    /// The second at which it stands in the calendar; 0: nowhere.
    due: u32,
}

/// Hashes of addresses-of-record by second: one entry for each, at or before its earliest expiry.
#[derive(Default)]
struct Calendar(BTreeMap<u32, HashTable<u64>>);

impl Calendar {
    fn enter(&mut self, second: u32, hash: u64) {
        self.0.entry(second).or_default().insert_unique(hash, hash, |h| *h);
    }

    fn strike(&mut self, second: u32, hash: u64) {
        if let Some(entries) = self.0.get_mut(&second) {
            if let Ok(entry) = entries.find_entry(hash, |h| *h == hash) {
                entry.remove();
            }
            if entries.is_empty() {
                self.0.remove(&second);
            }
        }
    }

    /// The entries of the earliest second up to `now`.
    fn take(&mut self, now: u32) -> Option<(u32, HashTable<u64>)> {
        let first = self.0.first_entry().filter(|e| *e.key() <= now)?;
        Some(first.remove_entry())
    }
}

impl Table {
    /// `secret` keys the hash, so that nobody can choose names that collide.
    pub fn new(secret: [u8; 16]) -> Table {
        Table {
            secret,
            shards: std::array::from_fn(|_| RwLock::default()),
            bindings: AtomicUsize::new(0),
            users: AtomicUsize::new(0),
            calendar: Mutex::default(),
            connections: Mutex::default(),
        }
    }

    /// Bindings held, expired ones included until the next [`Table::expire`].
    pub fn bindings(&self) -> usize {
        self.bindings.load(Relaxed)
    }

    /// Addresses-of-record with a binding.
    pub fn users(&self) -> usize {
        self.users.load(Relaxed)
    }

    fn hash(&self, aor: &str) -> u64 {
        let mut hash = SipHasher13::new_with_key(&self.secret);
        hash.write(aor.as_bytes());
        hash.finish()
    }

    fn shard(&self, hash: u64) -> &RwLock<HashTable<Bound>> {
        // The table itself uses the low and the highest bits.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// Shows the bindings of an address-of-record, best first; none is an empty slice.
    pub fn read<R>(&self, aor: &str, with: impl FnOnce(&[Binding]) -> R) -> R {
        let hash = self.hash(aor);
        let shard = self.shard(hash).read();
        with(shard.find(hash, |b| b.aor.as_str() == aor).map_or(&[][..], |b| &b.bindings))
    }

    /// Lends the bindings of an address-of-record for changes. `change` keeps them in order itself ([`sort`]).
    pub fn write<R>(&self, aor: &Aor, change: impl FnOnce(&mut Bindings) -> R) -> R {
        let hash = self.hash(aor.as_str());
        let mut shard = self.shard(hash).write();
        match shard.entry(hash, |b| b.aor == *aor, |b| b.hash) {
            Entry::Occupied(entry) => self.alter(entry, change),
            Entry::Vacant(entry) => {
                let mut bindings = Bindings::new();
                let result = change(&mut bindings);
                if !bindings.is_empty() {
                    let mut bound = Bound { hash, aor: aor.clone(), bindings, due: 0 };
                    self.follow(&mut bound, 0, &SmallVec::new());
                    entry.insert(bound);
                    self.users.fetch_add(1, Relaxed);
                }
                result
            }
        }
    }

    /// [`Table::write`] for changes that add nothing: `None` when the address-of-record has no bindings.
    pub fn take<R>(&self, aor: &str, change: impl FnOnce(&mut Bindings) -> R) -> Option<R> {
        let hash = self.hash(aor);
        let mut shard = self.shard(hash).write();
        let entry = shard.find_entry(hash, |b| b.aor.as_str() == aor).ok()?;
        Some(self.alter(entry, change))
    }

    fn alter<R>(&self, mut entry: OccupiedEntry<'_, Bound>, change: impl FnOnce(&mut Bindings) -> R) -> R {
        let bound = entry.get_mut();
        let (before, flows) = (bound.bindings.len(), connections(&bound.bindings));
        let result = change(&mut bound.bindings);
        self.follow(bound, before, &flows);
        if entry.get().bindings.is_empty() {
            entry.remove();
            self.users.fetch_sub(1, Relaxed);
        }
        result
    }

    /// Brings counters, expiries and connections into line with changed bindings.
    fn follow(&self, bound: &mut Bound, before: usize, flows: &Flows) {
        let after = bound.bindings.len();
        if after != before {
            self.bindings.fetch_add(after.wrapping_sub(before), Relaxed);
        }
        // A later expiry needs no entry of its own: when its second comes, the address is entered anew.
        let first = bound.bindings.iter().map(|b| b.expires_at.max(1)).min().unwrap_or(0);
        if bound.due == 0 || first < bound.due {
            let mut calendar = self.calendar.lock();
            if bound.due > 0 {
                calendar.strike(bound.due, bound.hash);
            }
            if first > 0 {
                calendar.enter(first, bound.hash);
            }
            bound.due = first;
        }
        let now = connections(&bound.bindings);
        if now != *flows {
            let mut all = self.connections.lock();
            for gone in flows.iter().filter(|f| !now.contains(f)) {
                if let Some(set) = all.get_mut(gone) {
                    set.remove(&bound.hash);
                    if set.is_empty() {
                        all.remove(gone);
                    }
                }
            }
            for new in now.iter().filter(|f| !flows.contains(f)) {
                all.entry(*new).or_default().insert(bound.hash);
            }
        }
    }

    /// Takes out what has expired and shows it, a few thousand at most in one call: true when there is more.
    pub fn expire(&self, unix: u64, mut gone: impl FnMut(&str, Binding)) -> bool {
        const AT_ONCE: usize = 4096;
        let now = u32::try_from(unix).unwrap_or(u32::MAX);
        let mut taken = 0;
        while taken < AT_ONCE {
            let Some((second, hashes)) = self.calendar.lock().take(now) else { return false };
            taken += hashes.len();
            for hash in hashes {
                self.look_at(hash, |b| b.due == second, true, |b| b.is_live(unix), &mut gone);
            }
        }
        true
    }

    /// Takes out the bindings that `keep` refuses, of every address-of-record that is reached over this connection.
    pub fn closed(
        &self,
        connection: FlowId,
        mut keep: impl FnMut(&mut Binding) -> bool,
        mut gone: impl FnMut(&str, Binding),
    ) {
        let Some(hashes) = self.connections.lock().remove(&connection) else { return };
        for hash in hashes {
            let on = |b: &Bound| b.bindings.iter().any(|b| b.way().and_then(|w| w.connection()) == Some(connection));
            self.look_at(hash, on, false, &mut keep, &mut gone);
        }
    }

    /// Takes out what `keep` refuses. `taken`: its entry has been taken out of the calendar.
    fn look_at(
        &self,
        hash: u64,
        which: impl Fn(&Bound) -> bool,
        taken: bool,
        mut keep: impl FnMut(&mut Binding) -> bool,
        gone: &mut impl FnMut(&str, Binding),
    ) {
        let mut shard = self.shard(hash).write();
        let Ok(mut entry) = shard.find_entry(hash, |b| b.hash == hash && which(b)) else { return };
        let bound = entry.get_mut();
        let (before, flows) = (bound.bindings.len(), connections(&bound.bindings));
        if taken {
            bound.due = 0;
        }
        let mut i = 0;
        while i < bound.bindings.len() {
            if keep(&mut bound.bindings[i]) {
                i += 1;
            } else {
                gone(bound.aor.as_str(), bound.bindings.remove(i));
            }
        }
        self.follow(bound, before, &flows);
        if entry.get().bindings.is_empty() {
            entry.remove();
            self.users.fetch_sub(1, Relaxed);
        }
    }
}

/// The connections that bindings hang on.
type Flows = SmallVec<[FlowId; 4]>;

fn connections(bindings: &[Binding]) -> Flows {
    bindings.iter().filter_map(|b| b.way()?.connection()).collect()
}

/// Best first: by q, then the latest registered.
pub fn sort(bindings: &mut [Binding]) {
    if bindings.len() > 1 {
        bindings.sort_by_key(|b| (std::cmp::Reverse(b.q), std::cmp::Reverse(b.since)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::{Facts, Text};
    use crate::way::Way;
    use sip_proto::{Flow, Transport};

    fn binding(contact: &str, expires_at: u32, connection: Option<u64>) -> Binding {
        let flow = |id| Flow {
            transport: Transport::Tcp,
            id: FlowId(id),
            local: "192.0.2.1:5060".parse().unwrap(),
            remote: "192.0.2.9:4000".parse().unwrap(),
        };
        let way = connection.map(|id| Way::of(&flow(id)));
        let facts = Facts { expires_at, since: 1, cseq: 1, reg_id: 0, q: 1000, proved: false, way };
        Binding::new(&Text { contact, ..Text::default() }, facts).unwrap()
    }

    fn aor(text: &str) -> Aor {
        text.parse().unwrap()
    }

    fn expired(table: &Table, unix: u64) -> Vec<String> {
        let mut gone = Vec::new();
        assert!(
            !table.expire(unix, |aor, b| gone.push(format!("{aor} {}", std::str::from_utf8(b.contact()).unwrap())))
        );
        gone.sort();
        gone
    }

    #[test]
    fn bindings_expire_at_their_second_and_not_before() {
        let t = Table::new([1; 16]);
        t.write(&aor("a@x"), |b| b.extend([binding("1", 100, None), binding("2", 200, None)]));
        t.write(&aor("b@x"), |b| b.push(binding("3", 100, None)));
        assert_eq!((t.bindings(), t.users()), (3, 2));
        assert!(expired(&t, 99).is_empty());
        assert_eq!(expired(&t, 100), ["a@x 1", "b@x 3"]);
        assert_eq!((t.bindings(), t.users()), (1, 1));
        assert_eq!(expired(&t, 1000), ["a@x 2"]);
        assert_eq!((t.bindings(), t.users()), (0, 0));
        assert!(t.calendar.lock().0.is_empty());
    }

    #[test]
    fn a_refreshed_binding_outlives_its_first_expiry() {
        let t = Table::new([1; 16]);
        t.write(&aor("a@x"), |b| b.push(binding("1", 100, None)));
        t.write(&aor("a@x"), |b| b[0].expires_at = 300);
        assert!(expired(&t, 100).is_empty());
        assert!(expired(&t, 299).is_empty());
        assert_eq!(expired(&t, 300), ["a@x 1"]);
    }

    #[test]
    fn a_shortened_binding_expires_early_and_once() {
        let t = Table::new([1; 16]);
        t.write(&aor("a@x"), |b| b.push(binding("1", 300, None)));
        t.write(&aor("a@x"), |b| b[0].expires_at = 50);
        assert_eq!(expired(&t, 50), ["a@x 1"]);
        t.write(&aor("a@x"), |b| b.push(binding("2", 400, None)));
        assert!(expired(&t, 300).is_empty());
        assert_eq!(expired(&t, 400), ["a@x 2"]);
    }

    #[test]
    fn each_address_has_one_entry_in_the_calendar() {
        let t = Table::new([1; 16]);
        let entries = |t: &Table| t.calendar.lock().0.values().map(|e| e.len()).sum::<usize>();
        for round in 0..50 {
            t.write(&aor("a@x"), |b| b.push(binding("1", 500 - round, Some(1))));
            t.write(&aor("a@x"), |b| b.push(binding("2", 400 - round, Some(2))));
            assert_eq!(entries(&t), 1);
            t.closed(FlowId(2), |b| b.way().unwrap().connection() != Some(FlowId(2)), |_, _| ());
            assert_eq!((entries(&t), t.bindings()), (1, 1));
            t.write(&aor("a@x"), Bindings::clear);
            assert_eq!(entries(&t), 0);
        }
    }

    #[test]
    fn removal_by_hand_leaves_nothing() {
        let t = Table::new([1; 16]);
        t.write(&aor("a@x"), |b| b.push(binding("1", 300, Some(7))));
        t.write(&aor("a@x"), Bindings::clear);
        assert_eq!((t.bindings(), t.users()), (0, 0));
        assert!(t.connections.lock().is_empty());
        assert!(t.read("a@x", |b| b.is_empty()));
        t.write(&aor("a@x"), |_| ());
        assert_eq!(t.users(), 0);
    }

    #[test]
    fn a_closed_connection_finds_its_bindings() {
        let t = Table::new([1; 16]);
        t.write(&aor("a@x"), |b| b.extend([binding("1", 300, Some(7)), binding("2", 300, Some(8))]));
        t.write(&aor("b@x"), |b| b.push(binding("3", 300, Some(7))));
        let mut gone = Vec::new();
        t.closed(FlowId(7), |b| b.way().unwrap().connection() != Some(FlowId(7)), |aor, _| gone.push(aor.to_owned()));
        gone.sort();
        assert_eq!(gone, ["a@x", "b@x"]);
        assert_eq!((t.bindings(), t.users()), (1, 1));
        assert_eq!(t.connections.lock().len(), 1);
        // Its expiry is still known.
        assert_eq!(expired(&t, 300), ["a@x 2"]);
        assert!(t.connections.lock().is_empty());
    }

    #[test]
    fn the_best_binding_stands_first() {
        let mut all = vec![binding("1", 1, None), binding("2", 1, None), binding("3", 1, None)];
        (all[0].q, all[1].since, all[2].q) = (200, 9, 1000);
        sort(&mut all);
        let order: Vec<_> = all.iter().map(|b| b.contact()[0]).collect();
        assert_eq!(order, [b'2', b'3', b'1']);
    }
}
