//! Keeps the directory of users in step with the store, whichever process changes it.

use std::sync::Arc;
use std::time::Duration;

use sip_ims::ports::{StoreError, UserChange, UserStore};
use sip_ims::{Directory, answer};

/// Reads the users' change sequence and applies it to a [`Directory`].
pub struct Follower {
    users: Arc<dyn UserStore>,
    directory: Arc<Directory>,
    /// The last change that was applied.
    sequence: u64,
}

impl Follower {
    pub fn new(users: Arc<dyn UserStore>, directory: Arc<Directory>) -> Follower {
        Follower { users, directory, sequence: 0 }
    }

    /// Applies every change there is, in order, and tells `each` after it; gives their number. The first call fills the directory.
    pub async fn catch_up(&mut self, mut each: impl FnMut(&UserChange)) -> Result<u64, StoreError> {
        let mut count = 0;
        loop {
            let (done, changes) = answer();
            self.users.changes(self.sequence, PAGE, done);
            let changes = changes.await?;
            let last = changes.len() < PAGE as usize;
            for change in changes {
                match &change.user {
                    Some(user) => drop(self.directory.put(user.clone())),
                    None => drop(self.directory.remove(&change.id)),
                }
                self.sequence = change.sequence;
                count += 1;
                each(&change);
            }
            if last {
                return Ok(count);
            }
        }
    }

    /// Catches up four times a second until the store is closed; `each` hears of every change.
    pub async fn run(mut self, mut each: impl FnMut(&UserChange)) {
        loop {
            tokio::time::sleep(BETWEEN).await;
            match self.catch_up(&mut each).await {
                Ok(_) => {}
                Err(StoreError::Closed) => return,
                Err(error) => tracing::warn!(%error, "users not re-read"),
            }
        }
    }
}

/// Changes read at once.
const PAGE: u32 = 1000;
/// A quarter of the second in which provisioning takes effect.
const BETWEEN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use sip_ims::ports::Done;
    use sip_ims::{CallSettings, DigestSecrets, User};

    use super::*;

    /// What another process has written so far.
    #[derive(Default)]
    struct Elsewhere(Mutex<Vec<UserChange>>);

    impl UserStore for Elsewhere {
        fn put(&self, users: Vec<User>, done: Done<()>) {
            let mut changes = self.0.lock();
            for user in users {
                let sequence = changes.len() as u64 + 1;
                changes.push(UserChange { sequence, id: user.id.clone(), user: Some(user) });
            }
            done(Ok(()));
        }

        fn remove(&self, id: &str, done: Done<bool>) {
            let mut changes = self.0.lock();
            let sequence = changes.len() as u64 + 1;
            changes.push(UserChange { sequence, id: id.into(), user: None });
            done(Ok(true));
        }

        fn changes(&self, after: u64, limit: u32, done: Done<Vec<UserChange>>) {
            let changes = self.0.lock();
            done(Ok(changes.iter().filter(|c| c.sequence > after).take(limit as usize).cloned().collect()));
        }
    }

    fn alice() -> User {
        User {
            id: "alice".into(),
            aor: "alice@example.com".parse().unwrap(),
            secrets: DigestSecrets::of_password("alice", "example.com", b"wonderland"),
            msisdn: None,
            email: None,
            jid: None,
            roles: Vec::new(),
            call_settings: CallSettings::default(),
            history_days: 0,
        }
    }

    /// On a clock that stands still but for the sleeps.
    #[tokio::test(start_paused = true)]
    async fn what_is_provisioned_takes_effect_within_a_second() {
        let (users, directory) = (Arc::new(Elsewhere::default()), Arc::new(Directory::new()));
        let removed = Arc::new(Mutex::new(Vec::new()));
        let heard = removed.clone();
        let each = move |change: &UserChange| heard.lock().extend(change.user.is_none().then(|| change.id.clone()));
        tokio::spawn(Follower::new(users.clone(), directory.clone()).run(each));
        // Whenever it comes.
        for wait in [0u64, 1, 249, 250, 251, 777, 60_000] {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            users.put(vec![alice()], Box::new(|result| assert!(result.is_ok())));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(directory.by_id("alice").is_some());
            users.remove("alice", Box::new(|result| assert!(result.is_ok())));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(directory.by_id("alice").is_none());
        }
        assert_eq!(removed.lock().len(), 7);
    }
}
