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
