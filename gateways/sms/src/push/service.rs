//! What is done with a request: who may, what for, whether it can be sent, and then the queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use sip_ims::answer;
use sip_ims::ports::StoreError;

use super::Code;
use super::message::{self, Address, Command, Push};
use super::rate::Rates;
use crate::compose::compose;
use crate::queue::{Cancel, Enqueued, Origin, Queue, Request, RequestKey};
use crate::registry::{Credentials, PushClient, Registry};

/// An answer to be sent over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
    /// Seconds.
    pub retry_after: Option<u32>,
}

/// Answers given, by code.
#[derive(Default, Debug)]
pub struct Counts(Mutex<HashMap<u16, u64>>, AtomicU64);

impl Counts {
    fn count(&self, code: Code) {
        // Nearly all: without the lock.
        if code == Code::ACCEPTED {
            self.1.fetch_add(1, Relaxed);
        } else {
            *self.0.lock().entry(code.0).or_default() += 1;
        }
    }

    pub fn each(&self, mut show: impl FnMut(Code, u64)) {
        show(Code::ACCEPTED, self.1.load(Relaxed));
        self.0.lock().iter().for_each(|(code, n)| show(Code(*code), *n));
    }
}

/// The push interface behind its HTTP address.
pub struct PushService {
    registry: Arc<Registry>,
    queue: Arc<dyn Queue>,
    /// Milliseconds for which a message without `vp` is tried.
    validity: i64,
    rates: Arc<Rates>,
    reference: AtomicU8,
    counts: Counts,
}

impl PushService {
    pub fn new(registry: Arc<Registry>, queue: Arc<dyn Queue>, rates: Arc<Rates>, validity: i64) -> PushService {
        PushService { registry, queue, validity, rates, reference: AtomicU8::new(0), counts: Counts::default() }
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Answers one request. `now`: unix milliseconds.
    pub async fn handle(&self, body: &[u8], credentials: &Credentials<'_>, now: i64) -> Reply {
        let (code, heading) = match message::read(body) {
            Err(refusal) => (refusal.code, refusal.heading),
            Ok((command, heading)) => {
                let address = match &command {
                    Command::Push(push) => &push.address,
                    Command::Cancel(address) => address,
                };
                let code = match (self.client(address, credentials, now), &command) {
                    (Err(code), _) => code,
                    (Ok(client), Command::Push(push)) => self.push(&client, push, now).await,
                    (Ok(_), Command::Cancel(address)) => self.cancel(address, now).await,
                };
                (code, heading)
            }
        };
        self.counts.count(code);
        let (status, retry_after) = match code {
            Code::BAD_XML => (400, None),
            Code::THROTTLED => (503, Some(1)),
            Code::FULL => (503, Some(5)),
            _ => (200, None),
        };
        Reply { status, body: message::answer(&heading, code), retry_after }
    }

    /// Whether whoever asks is the client that it says, is served, and may reach the number.
    fn client(&self, address: &Address, credentials: &Credentials<'_>, now: i64) -> Result<Arc<PushClient>, Code> {
        let client = self.registry.push_client(&address.svcid).ok_or(Code::UNKNOWN_CLIENT)?;
        if !client.lock().opens(&client.xpid, credentials) {
            return Err(Code::NOT_ALLOWED);
        }
        if !client.is_served(now / 1_000) {
            return Err(Code::STOPPED);
        }
        if !client.numbers.contains(&address.msn) {
            return Err(Code::NOT_CONTRACTED);
        }
        Ok(client)
    }

    async fn push(&self, client: &PushClient, push: &Push, now: i64) -> Code {
        let parts = match compose(push, client.segmentation, self.reference.fetch_add(1, Relaxed)) {
            Ok(parts) => parts,
            Err(code) => return code,
        };
        if !self.rates.take(&client.xpid, client.rate, 1, now) {
            return Code::THROTTLED;
        }
        let request = Request {
            not_before: 0,
            origin: Origin {
                client: client.xpid.as_str().into(),
                msn: push.address.msn,
                reqid: push.address.reqid.as_str().into(),
                expires_at: now + push.vp.map_or(self.validity, |minutes| i64::from(minutes) * 60_000),
                rank: client.rank.min(3),
                flags: if push.notify && !client.callback.is_empty() { Origin::NOTIFY } else { 0 },
                parts: parts.len() as u8,
            },
            digest: push.digest(),
            parts,
        };
        let (done, enqueued) = answer();
        self.queue.enqueue(request, done);
        match enqueued.await {
            Ok(Enqueued::New(_) | Enqueued::Again(_)) => Code::ACCEPTED,
            Ok(Enqueued::Other) => Code::REUSED,
            Err(error) => refused(&error),
        }
    }

    async fn cancel(&self, address: &Address, now: i64) -> Code {
        let key = RequestKey {
            client: address.svcid.as_str().into(),
            msn: address.msn,
            reqid: address.reqid.as_str().into(),
        };
        let (done, cancelled) = answer();
        self.queue.cancel(key, now, done);
        match cancelled.await {
            Ok(Cancel::Taken) => Code::ACCEPTED,
            Ok(Cancel::Unknown) => Code::UNKNOWN_REQUEST,
            Ok(Cancel::Over) => Code::ALL_OVER,
            Ok(Cancel::Again) => Code::CANCELLED_ALREADY,
            Ok(Cancel::Partly) => Code::PARTLY_OVER,
            Err(error) => refused(&error),
        }
    }
}

fn refused(error: &StoreError) -> Code {
    match error {
        StoreError::Full | StoreError::Closed => Code::FULL,
        _ => Code::INTERNAL,
    }
}
