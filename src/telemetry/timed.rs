//! A store whose commits are measured: from the call until the change is safe.

use std::sync::Arc;
use std::time::Instant;

use sip_ims::Aor;
use sip_ims::ports::{
    BindingChange, BindingRow, BindingStore, Done, EachAor, EachState, MessageId, MessageQueue, QueuedMessage,
    StateChange, StateRow, StateStore, StoreError,
};

use super::metrics::{Commit, Latency, Metrics};

/// Measures what somebody waits for; a write without a completion passes through untouched.
pub struct Timed<T: ?Sized> {
    metrics: Arc<Metrics>,
    store: Arc<T>,
}

impl<T: ?Sized> Timed<T> {
    pub fn new(metrics: Arc<Metrics>, store: Arc<T>) -> Timed<T> {
        Timed { metrics, store }
    }

    fn timed<R: 'static>(&self, what: Commit, done: Done<R>) -> Done<R> {
        let (metrics, start) = (self.metrics.clone(), Instant::now());
        Box::new(move |result| {
            if result.is_ok() {
                metrics.observe(Latency::Commit(what), start.elapsed());
            }
            done(result);
        })
    }
}

impl BindingStore for Timed<dyn BindingStore> {
    fn write(&self, change: BindingChange<'_>, done: Option<Done<()>>) -> Result<(), StoreError> {
        self.store.write(change, done.map(|d| self.timed(Commit::Bindings, d)))
    }

    fn load(&self, each: Box<dyn FnMut(BindingRow<'_>) + Send>, done: Done<u64>) {
        self.store.load(each, done);
    }

    fn changed_elsewhere(&self, also: Vec<Box<str>>, each: EachAor, done: Done<u64>) {
        self.store.changed_elsewhere(also, each, done);
    }

    fn queued(&self) -> usize {
        self.store.queued()
    }
}

impl StateStore for Timed<dyn StateStore> {
    fn write(&self, change: StateChange<'_>, done: Option<Done<()>>) -> Result<(), StoreError> {
        self.store.write(change, done.map(|d| self.timed(Commit::Presence, d)))
    }

    fn load(&self, each: Box<dyn FnMut(StateRow<'_>) + Send>, done: Done<u64>) {
        self.store.load(each, done);
    }

    fn changed_elsewhere(&self, also: Vec<Box<str>>, each: EachState, done: Done<u64>) {
        self.store.changed_elsewhere(also, each, done);
    }

    fn queued(&self) -> usize {
        self.store.queued()
    }
}

impl MessageQueue for Timed<dyn MessageQueue> {
    fn put(&self, message: QueuedMessage, done: Done<MessageId>) {
        self.store.put(message, self.timed(Commit::Messages, done));
    }

    fn pending(&self, aor: &Aor, after: MessageId, limit: u32, done: Done<Vec<(MessageId, QueuedMessage)>>) {
        self.store.pending(aor, after, limit, done);
    }

    fn claim(&self, aor: &Aor, now: i64, until: i64, done: Done<bool>) {
        self.store.claim(aor, now, until, done);
    }

    fn release(&self, aor: &Aor) {
        self.store.release(aor);
    }

    fn addressees(&self, after: &str, limit: u32, done: Done<Vec<Aor>>) {
        self.store.addressees(after, limit, done);
    }

    fn remove(&self, id: MessageId, done: Done<bool>) {
        self.store.remove(id, done);
    }

    fn overdue(&self, now: i64, after: MessageId, limit: u32, done: Done<Vec<(MessageId, QueuedMessage)>>) {
        self.store.overdue(now, after, limit, done);
    }

    fn expire(&self, now: i64, done: Done<u64>) {
        self.store.expire(now, done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commits or fails at once.
    struct Instantly(Result<(), StoreError>);

    impl BindingStore for Instantly {
        fn write(&self, _: BindingChange<'_>, done: Option<Done<()>>) -> Result<(), StoreError> {
            if let Some(done) = done {
                done(self.0.clone());
            }
            Ok(())
        }

        fn load(&self, _: Box<dyn FnMut(BindingRow<'_>) + Send>, done: Done<u64>) {
            done(Ok(0));
        }

        fn queued(&self) -> usize {
            0
        }
    }

    #[test]
    fn only_commits_that_somebody_waits_for_are_measured() {
        let metrics = Arc::new(Metrics::new());
        let store = |outcome| -> Timed<dyn BindingStore> { Timed::new(metrics.clone(), Arc::new(Instantly(outcome))) };
        let change = || BindingChange::RemoveAll { aor: "a@x" };
        store(Ok(())).write(change(), Some(Box::new(|r| assert!(r.is_ok())))).unwrap();
        store(Ok(())).write(change(), None).unwrap();
        store(Err(StoreError::Closed)).write(change(), Some(Box::new(|r| assert!(r.is_err())))).unwrap();
        let text = metrics.exposition();
        assert!(text.contains("isthmus_store_commit_seconds_count{store=\"bindings\"} 1\n"), "{text}");
    }
}
