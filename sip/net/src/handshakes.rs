//! How many TLS and WebSocket handshakes may be in progress: they cost most and come before we know anybody.
//!
//! When all places are taken, new connections wait in the kernel's queue; once the oldest handshake has had its time, it
//! gives way. So a flood of half-open handshakes slows newcomers down and cannot lock them out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// What a handshake may take while others wait.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) struct Handshakes {
    limit: usize,
    inner: Arc<Mutex<Inner>>,
    freed: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    running: BTreeMap<u64, (Instant, Option<AbortHandle>)>,
}

/// A place; dropping it frees it.
pub(crate) struct Place {
    id: u64,
    inner: Arc<Mutex<Inner>>,
    freed: Arc<Notify>,
}

impl Handshakes {
    pub(crate) fn new(limit: usize) -> Handshakes {
        Handshakes { limit: limit.max(1), inner: Arc::default(), freed: Arc::default() }
    }

    /// Waits for a place.
    pub(crate) async fn place(&self) -> Place {
        loop {
            let wait = {
                let mut inner = self.inner.lock();
                if inner.running.len() < self.limit {
                    let id = inner.next;
                    inner.next += 1;
                    inner.running.insert(id, (Instant::now(), None));
                    return Place { id, inner: self.inner.clone(), freed: self.freed.clone() };
                }
                let oldest = inner.running.first_key_value().map(|(id, (since, _))| (*id, since.elapsed()));
                match oldest {
                    Some((id, age)) if age >= PATIENCE => {
                        if let Some((_, Some(task))) = inner.running.remove(&id) {
                            task.abort();
                        }
                        continue;
                    }
                    Some((_, age)) => PATIENCE - age,
                    None => PATIENCE,
                }
            };
            let _ = tokio::time::timeout(wait, self.freed.notified()).await;
        }
    }
}

impl Place {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Handshakes {
    /// Says which task holds a place, so that it can be told to give way. Nothing happens when it is done already.
    pub(crate) fn held_by(&self, id: u64, task: AbortHandle) {
        if let Some((_, holder)) = self.inner.lock().running.get_mut(&id) {
            *holder = Some(task);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.lock().running.remove(&self.id);
        self.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_house_lets_the_next_in_when_one_leaves() {
        let handshakes = Handshakes::new(2);
        let first = handshakes.place().await;
        let _second = handshakes.place().await;
        let third = handshakes.place();
        tokio::pin!(third);
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        drop(first);
        third.await;
    }

    #[tokio::test]
    async fn the_oldest_gives_way_after_its_time() {
        let handshakes = Handshakes::new(1);
        let stuck = handshakes.place().await;
        let id = stuck.id();
        let task = tokio::spawn(async move {
            let _stuck = stuck;
            std::future::pending::<()>().await;
        });
        handshakes.held_by(id, task.abort_handle());
        handshakes.place().await;
        assert!(task.await.unwrap_err().is_cancelled());
    }
}
