//! For whom messages wait, in memory, so that a registration need not ask the store.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use sip_ims::Aor;

/// The addressees of kept messages. As many as users that messages are kept for: the store's quota bounds each of them.
///
/// May name somebody whose last message is just gone (that costs one look into the store); never misses one for whom this
/// node keeps a message.
#[derive(Default, Debug)]
pub struct Waiting {
    users: Mutex<Users>,
    /// The number of users, readable without the lock.
    count: AtomicUsize,
}

#[derive(Default, Debug)]
struct Users {
    by_aor: HashMap<Aor, User>,
    stamps: u64,
}

#[derive(Clone, Copy, Debug)]
struct User {
    stamp: Stamp,
    /// The courier has been told that the user is back, and has not looked yet.
    called: bool,
}

/// A moment in the life of the set: what was added later has a greater one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stamp(u64);

impl Waiting {
    /// A message was committed for this user. Whether it is the first one known.
    pub fn add(&self, aor: &Aor) -> bool {
        self.change(|users| {
            users.stamps += 1;
            let stamp = Stamp(users.stamps);
            match users.by_aor.get_mut(aor) {
                Some(user) => {
                    user.stamp = stamp;
                    false
                }
                None => users.by_aor.insert(aor.clone(), User { stamp, called: false }).is_none(),
            }
        })
    }

    pub fn contains(&self, aor: &str) -> bool {
        self.len() > 0 && self.users.lock().by_aor.contains_key(aor)
    }

    /// The user is back: the address, if messages wait and nobody has called before.
    pub fn call(&self, aor: &str) -> Option<Aor> {
        if self.len() == 0 {
            return None;
        }
        let mut users = self.users.lock();
        let user = users.by_aor.get_mut(aor)?;
        if std::mem::replace(&mut user.called, true) {
            return None;
        }
        users.by_aor.get_key_value(aor).map(|(aor, _)| aor.clone())
    }

    /// The courier looks now: from here on another call is passed on.
    pub fn answer_call(&self, aor: &Aor) {
        if let Some(user) = self.users.lock().by_aor.get_mut(aor) {
            user.called = false;
        }
    }

    /// Now, to be given to [`remove`](Self::remove) or [`keep_only`](Self::keep_only) after a look into the store.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.users.lock().stamps)
    }

    /// The store had nothing for this user when looked at after `seen`. What was committed since keeps the user in.
    pub fn remove(&self, aor: &Aor, seen: Stamp) {
        self.change(|users| {
            if users.by_aor.get(aor).is_some_and(|user| user.stamp <= seen) {
                users.by_aor.remove(aor);
            }
        });
    }

    /// As [`remove`](Self::remove), for everybody who is not in `found`.
    pub fn keep_only(&self, found: &HashSet<Aor>, seen: Stamp) {
        self.change(|users| users.by_aor.retain(|aor, user| user.stamp > seen || found.contains(aor)));
    }

    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Users) -> R) -> R {
        let mut users = self.users.lock();
        let result = change(&mut users);
        self.count.store(users.by_aor.len(), Relaxed);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aor(text: &str) -> Aor {
        text.parse().unwrap()
    }

    #[test]
    fn a_user_calls_once_until_the_courier_looks() {
        let waiting = Waiting::default();
        assert_eq!(waiting.call("bob@x"), None);
        assert!(waiting.add(&aor("bob@x")));
        assert!(!waiting.add(&aor("bob@x")));
        assert_eq!(waiting.call("bob@x"), Some(aor("bob@x")));
        assert_eq!(waiting.call("bob@x"), None);
        waiting.answer_call(&aor("bob@x"));
        assert_eq!(waiting.call("bob@x"), Some(aor("bob@x")));
        assert_eq!(waiting.call("carol@x"), None);
    }

    #[test]
    fn a_message_committed_after_the_look_keeps_its_user() {
        let waiting = Waiting::default();
        waiting.add(&aor("bob@x"));
        waiting.add(&aor("carol@x"));
        let seen = waiting.stamp();
        waiting.add(&aor("bob@x"));
        waiting.remove(&aor("bob@x"), seen);
        waiting.remove(&aor("carol@x"), seen);
        assert!(waiting.contains("bob@x") && !waiting.contains("carol@x"));
        waiting.keep_only(&HashSet::new(), seen);
        assert!(waiting.contains("bob@x"));
        waiting.keep_only(&HashSet::new(), waiting.stamp());
        assert_eq!(waiting.len(), 0);
    }
}
