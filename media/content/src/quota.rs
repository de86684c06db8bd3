//! How much a user may put on the shelf in a day, whichever way.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Counted in memory, by each node: a bound on what one user can do, not an account.
pub struct Quota {
    bytes: u64,
    used: Mutex<Used>,
}

/// Those who are counted in a day: more than a node has users.
const MAX_USERS: usize = 10_000_000;

#[derive(Default)]
struct Used {
    day: u32,
    users: HashMap<Box<str>, u64>,
}

impl Quota {
    pub fn new(bytes: u64) -> Quota {
        Quota { bytes, used: Mutex::default() }
    }

    /// Counts bytes of a user. False when the day's share is used up.
    pub fn take(&self, user: &str, day: u32, bytes: u64) -> bool {
        let mut used = self.used.lock();
        if used.day != day {
            *used = Used { day, users: HashMap::new() };
        }
        let full = used.users.len() == MAX_USERS;
        let count = match used.users.get_mut(user) {
            Some(count) => count,
            None if full => return false,
            None => used.users.entry(user.into()).or_default(),
        };
        if count.saturating_add(bytes) > self.bytes {
            return false;
        }
        *count += bytes;
        true
    }

    /// Whether so much more of a user would be taken now.
    pub fn has_room(&self, user: &str, day: u32, bytes: u64) -> bool {
        let used = self.used.lock();
        let count = used.users.get(user).filter(|_| used.day == day).map_or(0, |count| *count);
        count.saturating_add(bytes) <= self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_its_share() {
        let quota = Quota::new(100);
        assert!(quota.take("alice", 1, 60) && !quota.take("alice", 1, 41) && quota.take("alice", 1, 40));
        assert!(quota.take("bob", 1, 100));
        assert!(!quota.has_room("bob", 1, 1) && quota.has_room("bob", 2, 100) && !quota.has_room("carol", 1, 101));
        assert!(quota.take("alice", 2, 100) && !quota.take("alice", 2, u64::MAX));
    }
}
