//! Who may push, and what is known of lines: provisioned, kept in memory whole, followed in the store.

mod block;
mod client;
mod lock;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::Serialize;
use sip_ims::Msisdn;
use sip_ims::criteria::{Filters, Rule};
use sip_ims::ports::Done;

pub use block::Block;
pub use client::{ApiClient, Line, PushClient};
pub use lock::{Credentials, Lock, fingerprint, seal};

/// What kind of thing is registered. The names stand in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    PushClient,
    ApiClient,
    Line,
    /// Filter criteria; the key is that of [`Rule`].
    Filter,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::PushClient => "push_client",
            Kind::ApiClient => "api_client",
            Kind::Line => "line",
            Kind::Filter => "filter",
        }
    }

    pub fn from_name(name: &str) -> Option<Kind> {
        [Kind::PushClient, Kind::ApiClient, Kind::Line, Kind::Filter].into_iter().find(|k| k.as_str() == name)
    }
}

/// Key and text of what is wrong with an entry: the operator's to mend.
pub type Wrong = (&'static str, String);

/// One registration as the store keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub kind: Kind,
    /// XPID, client id or number.
    pub key: String,
    /// JSON.
    pub body: String,
    /// The numbers of a push client: each is tied to at most [`MAX_CLIENTS_OF_NUMBER`].
    pub numbers: Vec<Msisdn>,
}

impl Entry {
    /// Of something whose key is called `at`.
    pub fn of<T: Serialize>(kind: Kind, at: &'static str, key: String, value: &T) -> Result<Entry, Wrong> {
        let body = serde_json::to_string(value).map_err(|e| (at, e.to_string()))?;
        Ok(Entry { kind, key, body, numbers: Vec::new() })
    }
}

/// XPIDs to which one number may be tied (S5).
pub const MAX_CLIENTS_OF_NUMBER: usize = 10;

/// A change to the registrations, in the order in which all processes made them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Grows with each change; never 0.
    pub sequence: u64,
    pub kind: Kind,
    pub key: String,
    /// `None`: removed.
    pub body: Option<String>,
}

/// The registrations' store. As the ports of `sip-ims`: no call blocks.
pub trait Registrations: Send + Sync {
    /// Adds or replaces, all or none. `OverQuota` when a number would be tied to more than [`MAX_CLIENTS_OF_NUMBER`] push clients.
    fn put(&self, entries: Vec<Entry>, done: Done<()>);

    /// `false` if there was no such entry.
    fn remove(&self, kind: Kind, key: &str, done: Done<bool>);

    /// The changes after `sequence`, oldest first, at most `limit`; made by any process on the same store.
    fn changes(&self, after: u64, limit: u32, done: Done<Vec<Change>>);
}

/// Everything registered, in memory.
#[derive(Default)]
pub struct Registry {
    push: RwLock<HashMap<Box<str>, Arc<PushClient>>>,
    api: RwLock<HashMap<Box<str>, Arc<ApiClient>>>,
    lines: RwLock<HashMap<Msisdn, Line>>,
    filters: Arc<Filters>,
}

impl Registry {
    /// The filter criteria of all users.
    pub fn filters(&self) -> &Arc<Filters> {
        &self.filters
    }

    pub fn push_client(&self, xpid: &str) -> Option<Arc<PushClient>> {
        self.push.read().get(xpid).cloned()
    }

    /// The push client whose flags decide whether a message of this client of the queue is delivered (S6). Who sends under no contract
    /// has none of them.
    pub fn control(&self, client: &str) -> Option<Arc<PushClient>> {
        let Some(id) = client.strip_prefix(ApiClient::CLIENT) else { return self.push_client(client) };
        let contract = self.api_client(id).and_then(|api| self.push_client(&api.xpid));
        Some(contract.unwrap_or_default())
    }

    pub fn api_client(&self, id: &str) -> Option<Arc<ApiClient>> {
        self.api.read().get(id).cloned()
    }

    pub fn line(&self, msn: Msisdn) -> Option<Line> {
        self.lines.read().get(&msn).copied()
    }

    /// Push clients, by XPID.
    pub fn push_clients(&self) -> Vec<Arc<PushClient>> {
        let mut all: Vec<_> = self.push.read().values().cloned().collect();
        all.sort_by(|a, b| a.xpid.cmp(&b.xpid));
        all
    }

    pub fn api_clients(&self) -> Vec<Arc<ApiClient>> {
        let mut all: Vec<_> = self.api.read().values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Lines, by number.
    pub fn lines(&self) -> Vec<(Msisdn, Line)> {
        let mut all: Vec<_> = self.lines.read().iter().map(|(n, l)| (*n, *l)).collect();
        all.sort_by_key(|(n, _)| *n);
        all
    }

    /// Takes a change; gives the number whose line it was about, if it was.
    pub fn apply(&self, change: &Change) -> Option<Msisdn> {
        let body = change.body.as_deref();
        let damaged = |error: serde_json::Error| {
            tracing::error!(%error, kind = change.kind.as_str(), "a registration does not read back");
        };
        match change.kind {
            Kind::PushClient => {
                match body.map(serde_json::from_str::<PushClient>).transpose() {
                    Ok(Some(client)) => drop(self.push.write().insert(change.key.as_str().into(), Arc::new(client))),
                    Ok(None) => drop(self.push.write().remove(change.key.as_str())),
                    Err(error) => damaged(error),
                }
                None
            }
            Kind::ApiClient => {
                match body.map(serde_json::from_str::<ApiClient>).transpose() {
                    Ok(Some(client)) => drop(self.api.write().insert(change.key.as_str().into(), Arc::new(client))),
                    Ok(None) => drop(self.api.write().remove(change.key.as_str())),
                    Err(error) => damaged(error),
                }
                None
            }
            Kind::Line => {
                let number: Msisdn = change.key.parse().ok()?;
                match body.map(serde_json::from_str::<Line>).transpose() {
                    Ok(Some(line)) => drop(self.lines.write().insert(number, line)),
                    Ok(None) => drop(self.lines.write().remove(&number)),
                    Err(error) => damaged(error),
                }
                Some(number)
            }
            Kind::Filter => {
                match body.map(serde_json::from_str::<Rule>).transpose() {
                    Ok(Some(rule)) => {
                        if let Err(error) = self.filters.put(rule) {
                            tracing::error!(%error, key = error.key, "a filter is left out");
                        }
                    }
                    Ok(None) => self.filters.remove(&change.key),
                    Err(error) => damaged(error),
                }
                None
            }
        }
    }
}
