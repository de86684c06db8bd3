//! The users of this node's domain, in memory.

use std::borrow::Borrow;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use hashbrown::hash_table::{self, HashTable};
use parking_lot::{Mutex, RwLock};

use crate::identity::{Aor, Msisdn};
use crate::user::User;

/// Every user by each identity. Look-ups take one short read lock of one shard; a change touches only the user it is about.
///
/// Filled from the user store at start and kept up by its change sequence: a look-up never waits for SQL.
#[derive(Default)]
pub struct Directory {
    by_id: Sharded<Arc<str>>,
    by_aor: Sharded<Aor>,
    by_number: Sharded<Msisdn>,
    /// In lower case.
    by_jid: Sharded<Box<str>>,
    /// One change at a time, so that the four maps agree when it is over.
    change: Mutex<()>,
    /// Some user has had a SIM.
    sims: AtomicBool,
}

impl Directory {
    pub fn new() -> Directory {
        Directory::default()
    }

    /// By private identity (digest user name, portal login).
    pub fn by_id(&self, id: &str) -> Option<Arc<User>> {
        self.by_id.get(id)
    }

    /// By canonical address-of-record, `user@domain`. `&Aor` and [`Aor::write_parts`]'s text both serve.
    pub fn by_aor(&self, aor: &str) -> Option<Arc<User>> {
        self.by_aor.get(aor)
    }

    pub fn by_msisdn(&self, number: Msisdn) -> Option<Arc<User>> {
        self.by_number.get(&number)
    }

    /// By address in XMPP, `local@domain` in lower case. Two users may say that they have it: it is the last one's.
    pub fn by_jid(&self, jid: &str) -> Option<Arc<User>> {
        self.by_jid.get(jid)
    }

    /// The user that a SIP URI's parts name: by address-of-record first, then, if the user part reads as an
    /// international number, by that number (RFC 3261 §19.1.6; `user=phone` is not insisted on).
    pub fn by_parts(&self, user: &[u8], domain: &[u8]) -> Option<Arc<User>> {
        let found = Aor::write_parts(user, domain, |aor| self.by_aor(aor)).ok().flatten();
        found.or_else(|| Msisdn::from_user(user).ok().and_then(|n| self.by_msisdn(n)))
    }

    /// False while no user has had a SIM: nobody is to be looked for.
    pub fn has_sims(&self) -> bool {
        self.sims.load(Relaxed)
    }

    /// Adds a user or replaces the one with the same id.
    pub fn put(&self, user: User) -> Arc<User> {
        let _one = self.change.lock();
        if user.secrets.aka.is_some() {
            self.sims.store(true, Relaxed);
        }
        let user = Arc::new(user);
        let old = self.by_id.insert(user.id.clone(), user.clone());
        self.by_aor.insert(user.aor.clone(), user.clone());
        if let Some(number) = user.msisdn {
            self.by_number.insert(number, user.clone());
        }
        let jid = jid(&user);
        if let Some(jid) = jid.clone() {
            self.by_jid.insert(jid, user.clone());
        }
        if let Some(old) = old {
            match self::jid(&old) {
                Some(gone) if jid.as_ref() != Some(&gone) => self.by_jid.remove_of(&gone, &old.id),
                _ => {}
            }
            if old.aor != user.aor {
                self.by_aor.remove_of(&old.aor, &old.id);
            }
            match old.msisdn {
                Some(number) if user.msisdn != Some(number) => self.by_number.remove_of(&number, &old.id),
                _ => {}
            }
        }
        user
    }

    /// Forgets a user. Gives back what was known.
    pub fn remove(&self, id: &str) -> Option<Arc<User>> {
        let _one = self.change.lock();
        let old = self.by_id.remove(id)?;
        self.by_aor.remove_of(&old.aor, &old.id);
        if let Some(number) = old.msisdn {
            self.by_number.remove_of(&number, &old.id);
        }
        if let Some(jid) = jid(&old) {
            self.by_jid.remove_of(&jid, &old.id);
        }
        Some(old)
    }

    pub fn len(&self) -> usize {
        self.by_id.shards.iter().map(|s| s.read().len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `each` for every user, a shard at a time, in no order.
    pub fn for_each(&self, mut each: impl FnMut(&Arc<User>)) {
        for shard in &self.by_id.shards {
            shard.read().iter().map(|entry| &entry.user).for_each(&mut each);
        }
    }
}

fn jid(user: &User) -> Option<Box<str>> {
    user.jid.as_deref().map(|jid| jid.to_lowercase().into())
}

const SHARDS: usize = 32;

/// A map cut in pieces so that readers on several cores do not meet on one lock word. A key is hashed once: for its piece and
/// within it.
struct Sharded<K> {
    hasher: RandomState,
    shards: [RwLock<HashTable<Entry<K>>>; SHARDS],
}

struct Entry<K> {
    key: K,
    user: Arc<User>,
}

impl<K> Default for Sharded<K> {
    fn default() -> Self {
        Sharded { hasher: RandomState::new(), shards: std::array::from_fn(|_| RwLock::default()) }
    }
}

impl<K: Hash + Eq> Sharded<K> {
    fn shard(&self, hash: u64) -> &RwLock<HashTable<Entry<K>>> {
        // The table itself uses the low and the highest bits.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<Arc<User>>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        self.shard(hash).read().find(hash, |entry| entry.key.borrow() == key).map(|entry| entry.user.clone())
    }

    fn insert(&self, key: K, user: Arc<User>) -> Option<Arc<User>> {
        let hash = self.hasher.hash_one(&key);
        let mut shard = self.shard(hash).write();
        match shard.entry(hash, |entry| entry.key == key, |entry| self.hasher.hash_one(&entry.key)) {
            hash_table::Entry::Occupied(mut entry) => Some(std::mem::replace(&mut entry.get_mut().user, user)),
            hash_table::Entry::Vacant(entry) => {
                entry.insert(Entry { key, user });
                None
            }
        }
    }

    fn remove<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<Arc<User>>
    where
        K: Borrow<Q>,
    {
        self.remove_if(key, |_| true)
    }

    /// Removes `key` only while it still leads to the user `id`: an identity may have moved to another user meanwhile.
    fn remove_of(&self, key: &K, id: &str) {
        self.remove_if(key, |user| &*user.id == id);
    }

    fn remove_if<Q: Hash + Eq + ?Sized>(&self, key: &Q, goes: impl Fn(&User) -> bool) -> Option<Arc<User>>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash).write();
        let entry = shard.find_entry(hash, |entry| entry.key.borrow() == key && goes(&entry.user)).ok()?;
        Some(entry.remove().0.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::tests::user;

    #[test]
    fn a_user_is_found_by_each_identity() {
        let directory = Directory::new();
        directory.put(user("alice", Some("+819012345678")));
        let number = "+819012345678".parse().unwrap();
        assert!(directory.by_id("alice").is_some());
        assert!(directory.by_aor("alice@localhost").is_some());
        assert!(directory.by_msisdn(number).is_some());
        assert!(directory.by_parts(b"%61lice", b"LOCALHOST").is_some());
        assert!(directory.by_parts(b"+81-90-1234-5678", b"localhost").is_some());
        assert!(directory.by_parts(b"bob", b"localhost").is_none());
    }

    #[test]
    fn a_replaced_user_loses_the_old_number() {
        let directory = Directory::new();
        directory.put(user("alice", Some("+819012345678")));
        directory.put(user("alice", Some("+819000000000")));
        assert!(directory.by_msisdn("+819012345678".parse().unwrap()).is_none());
        assert!(directory.by_msisdn("+819000000000".parse().unwrap()).is_some());
        assert_eq!(directory.len(), 1);
    }

    #[test]
    fn a_user_is_found_by_an_address_in_xmpp_while_it_is_theirs() {
        let directory = Directory::new();
        let with = |jid: Option<&str>| User { jid: jid.map(Box::from), ..user("alice", None) };
        directory.put(with(Some("Alice@xmpp.test")));
        assert_eq!(&*directory.by_jid("alice@xmpp.test").unwrap().id, "alice");
        directory.put(with(Some("ALICE@xmpp.test")));
        assert!(directory.by_jid("alice@xmpp.test").is_some());
        directory.put(with(None));
        assert!(directory.by_jid("alice@xmpp.test").is_none());
        directory.put(with(Some("alice@xmpp.test")));
        directory.remove("alice");
        assert!(directory.by_jid("alice@xmpp.test").is_none());
    }

    #[test]
    fn a_number_that_moved_to_another_user_stays_with_it() {
        let directory = Directory::new();
        directory.put(user("alice", Some("+819012345678")));
        directory.put(user("bob", Some("+819012345678")));
        directory.remove("alice");
        let owner = directory.by_msisdn("+819012345678".parse().unwrap()).unwrap();
        assert_eq!(&*owner.id, "bob");
        assert!(directory.by_aor("alice@localhost").is_none());
    }
}
