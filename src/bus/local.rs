//! The bus of a server that is alone: a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use sip_ims::ports::{Bus, BusError, Listener, MAX_HINT, Subscription, hears, is_topic};

/// Runs the subscribers on the publisher's thread.
#[derive(Default, Clone)]
pub struct LocalBus {
    ears: Arc<RwLock<Vec<Ear>>>,
    next: Arc<AtomicU64>,
}

type Each = Arc<dyn Fn(&str, &[u8]) + Send + Sync>;

#[derive(Clone)]
struct Ear {
    number: u64,
    prefix: Box<str>,
    each: Each,
}

impl LocalBus {
    pub fn new() -> LocalBus {
        LocalBus::default()
    }

    /// Calls those who listen for `topic`.
    pub(super) fn deliver(&self, topic: &str, bytes: &[u8]) {
        // Copied out, so that a subscriber may publish and subscribe.
        let found: Vec<Each> =
            self.ears.read().iter().filter(|l| hears(&l.prefix, topic)).map(|l| l.each.clone()).collect();
        found.iter().for_each(|each| each(topic, bytes));
    }
}

impl Bus for LocalBus {
    fn publish(&self, topic: &str, bytes: &[u8]) -> Result<(), BusError> {
        check(topic, bytes)?;
        self.deliver(topic, bytes);
        Ok(())
    }

    fn subscribe(&self, prefix: &str, each: Listener) -> Result<Subscription, BusError> {
        check(prefix, &[])?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.ears.write().push(Ear { number, prefix: prefix.into(), each: each.into() });
        let ears = self.ears.clone();
        Ok(Subscription::new(move || ears.write().retain(|l| l.number != number)))
    }
}

pub(super) fn check(topic: &str, bytes: &[u8]) -> Result<(), BusError> {
    if !is_topic(topic) {
        return Err(BusError::Topic);
    }
    if bytes.len() > MAX_HINT { Err(BusError::TooLarge) } else { Ok(()) }
}
