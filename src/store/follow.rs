//! Keeps what is in memory in step with a sequence of changes in the store, whichever process makes them.

use std::sync::Arc;
use std::time::Duration;

use gw_sms::registry::{Change, Registrations, Registry};
use sip_ims::ports::{Done, StoreError, UserChange, UserStore};
use sip_ims::{Directory, Msisdn, answer};

/// Reads a sequence of changes (`C`) and applies it; some are news (`N`) to others.
pub struct Follower<C, N> {
    /// Of what, for logs.
    of: &'static str,
    read: Box<Read<C>>,
    apply: Box<dyn Fn(C) -> (u64, Option<N>) + Send + Sync>,
    /// The last change that was applied.
    sequence: u64,
}

/// Asks for the changes after one, at most so many.
type Read<C> = dyn Fn(u64, u32, Done<Vec<C>>) + Send + Sync;

/// Fills a directory with the users. Every change is news.
pub fn users(users: Arc<dyn UserStore>, directory: Arc<Directory>) -> Follower<UserChange, UserChange> {
    let apply = move |change: UserChange| {
        match &change.user {
            Some(user) => drop(directory.put(user.clone())),
            None => drop(directory.remove(&change.id)),
        }
        (change.sequence, Some(change))
    };
    let read = move |after, limit, done| users.changes(after, limit, done);
    Follower { of: "users", read: Box::new(read), apply: Box::new(apply), sequence: 0 }
}

/// Fills a registry. The numbers whose line changed are news.
pub fn registrations(store: Arc<dyn Registrations>, registry: Arc<Registry>) -> Follower<Change, Msisdn> {
    let apply = move |change: Change| (change.sequence, registry.apply(&change));
    let read = move |after, limit, done| store.changes(after, limit, done);
    Follower { of: "registrations", read: Box::new(read), apply: Box::new(apply), sequence: 0 }
}

impl<C: Send + 'static, N> Follower<C, N> {
    /// Applies every change there is, in order, and tells `each` the news; gives their number. The first call fills.
    pub async fn catch_up(&mut self, mut each: impl FnMut(N)) -> Result<u64, StoreError> {
        let mut count = 0;
        loop {
            let (done, changes) = answer();
            (self.read)(self.sequence, PAGE, done);
            let changes = changes.await?;
            let last = changes.len() < PAGE as usize;
            for change in changes {
                let (sequence, news) = (self.apply)(change);
                self.sequence = sequence;
                count += 1;
                news.into_iter().for_each(&mut each);
            }
            if last {
                return Ok(count);
            }
        }
    }

    /// Catches up four times a second until the store is closed; `each` hears the news.
    pub async fn run(mut self, mut each: impl FnMut(N)) {
        loop {
            tokio::time::sleep(BETWEEN).await;
            match self.catch_up(&mut each).await {
                Ok(_) => {}
                Err(StoreError::Closed) => return,
                Err(error) => tracing::warn!(%error, "{} not re-read", self.of),
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
        let each = move |change: UserChange| heard.lock().extend(change.user.is_none().then_some(change.id));
        tokio::spawn(super::users(users.clone(), directory.clone()).run(each));
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
