//! The ports: what services may ask of stores, queues and the bus, without knowing what stands behind them.
//!
//! Services run to completion on the thread that received a message, so no call here blocks and none is `async`: a call
//! queues its work and `done` runs later, on a thread of the store's. [`answer`](crate::answer) makes a `done` that an async caller awaits.
//! A queue that is full refuses at once with [`StoreError::Full`], which a service turns into a 503.

use std::error::Error;
use std::sync::Arc;

use sip_proto::Flow;

use crate::identity::Aor;
use crate::summary::Summary;
use crate::user::User;

/// Runs once when the work is durable, or has failed. Must not block: it holds up the store's writer.
pub type Done<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Ours: too much is queued already. Nothing was queued; the peer may try again (503, Retry-After).
    #[error("the store's queue is full")]
    Full,
    /// Ours: the store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// Ours: the engine failed. What was asked may or may not have happened.
    #[error("the store failed: {0}")]
    Engine(Arc<dyn Error + Send + Sync>),
    /// The caller's: the version it expected is not there, or an identity belongs to another user.
    #[error("conflicts with what is stored")]
    Conflict,
    /// The caller's: larger than the store takes.
    #[error("too large to store")]
    TooLarge,
    /// The caller's: text with a NUL in it, which not every engine can hold.
    #[error("text with a NUL byte")]
    Text,
    /// The addressee's: their queue holds as much as one user may have.
    #[error("the user's queue is full")]
    OverQuota,
    /// Ours: a stored row does not read back (another version wrote it, or the file is damaged).
    #[error("a stored row is damaged")]
    Damaged,
}

impl StoreError {
    pub fn engine(error: impl Error + Send + Sync + 'static) -> StoreError {
        StoreError::Engine(Arc::new(error))
    }
}

/// One binding of an address-of-record (RFC 3261 §10), lent for writing and reading. Text fields that are absent are empty.
#[derive(Clone, PartialEq, Debug)]
pub struct BindingRow<'a> {
    /// Canonical `user@domain`.
    pub aor: &'a str,
    /// Unique within the address-of-record: instance and reg-id (RFC 5626 §6), or else the contact URI.
    pub key: &'a str,
    /// The contact URI as received, without angle brackets.
    pub contact: &'a str,
    /// Contact parameters that callers may ask for or that we must repeat (RFC 3840), `;`-separated as received.
    pub params: &'a str,
    /// Path values, `,`-separated as received (RFC 3327).
    pub path: &'a str,
    /// `+sip.instance` without quotes.
    pub instance: &'a str,
    pub call_id: &'a str,
    pub user_agent: &'a str,
    /// Node that holds the flow.
    pub node: &'a str,
    /// The way the REGISTER came; a stream's flow ends with its process.
    pub flow: Option<Flow>,
    /// Unix seconds.
    pub expires_at: i64,
    pub cseq: u32,
    /// 0: none.
    pub reg_id: u32,
    /// Thousandths, 0 to 1000.
    pub q: u16,
}

/// Longest encoded binding that a store takes, in bytes, all fields together.
pub const MAX_BINDING: usize = 16 * 1024;

/// One change to the bindings.
#[derive(Clone, PartialEq, Debug)]
pub enum BindingChange<'a> {
    /// Adds or replaces the binding with this address-of-record and key.
    Put(BindingRow<'a>),
    Remove {
        aor: &'a str,
        key: &'a str,
    },
    /// `Contact: *` with `Expires: 0`.
    RemoveAll {
        aor: &'a str,
    },
    /// Removes the binding unless another node has written it since: it expired here, or its connection is gone, while the
    /// phone may have moved.
    Forget {
        aor: &'a str,
        key: &'a str,
        node: &'a str,
    },
}

/// The bindings behind the registrar's memory.
pub trait BindingStore: Send + Sync {
    /// Queues one change; changes take effect in the order of the calls. `done` runs when a kill of this process loses it no
    /// more; the disk has it within a second. The change is copied before the call returns. When the error is given
    /// back, nothing was queued and `done` is dropped uncalled.
    fn write(&self, change: BindingChange<'_>, done: Option<Done<()>>) -> Result<(), StoreError>;

    /// Lends every stored binding to `each`, on a thread of the store's; `done` gets their number. For the start.
    fn load(&self, each: Box<dyn FnMut(BindingRow<'_>) + Send>, done: Done<u64>);

    /// Lends each address-of-record that other nodes have changed since the last call (or since [`load`](Self::load)), and
    /// those in `also`, with all its rows as they are once every change queued here before has been committed; `done` gets
    /// the number of addresses. When it fails, what it would have lent comes again with the next call, `also` excepted. A
    /// store that one process has for itself has nothing to tell.
    fn changed_elsewhere(&self, also: Vec<Box<str>>, each: EachAor, done: Done<u64>) {
        let _ = (also, each);
        done(Ok(0));
    }

    /// Changes queued and not yet in the store.
    fn queued(&self) -> usize;
}

/// Hears an address-of-record and its rows.
pub type EachAor = Box<dyn FnMut(&str, &[BindingRow<'_>]) + Send>;

/// One piece of a service's state that ends by itself unless it is refreshed: a publication, a subscription.
#[derive(Clone, PartialEq, Debug)]
pub struct StateRow<'a> {
    /// Whose it is: canonical `user@domain`.
    pub owner: &'a str,
    /// Unique for the owner.
    pub key: &'a str,
    /// Node that wrote it last.
    pub node: &'a str,
    /// Unix seconds.
    pub expires_at: i64,
    /// In the service's own form.
    pub body: &'a [u8],
}

/// Longest row of state that a store takes, in bytes, all fields together.
pub const MAX_STATE: usize = 256 * 1024;

/// One change to such state.
#[derive(Clone, PartialEq, Debug)]
pub enum StateChange<'a> {
    /// Adds or replaces the row with this owner and key.
    Put(StateRow<'a>),
    Remove {
        owner: &'a str,
        key: &'a str,
    },
    /// Removes the row unless another node has written it since.
    Forget {
        owner: &'a str,
        key: &'a str,
        node: &'a str,
    },
}

/// A service's state behind its memory: promises what [`BindingStore`] does.
pub trait StateStore: Send + Sync {
    /// As [`BindingStore::write`].
    fn write(&self, change: StateChange<'_>, done: Option<Done<()>>) -> Result<(), StoreError>;

    /// As [`BindingStore::load`].
    fn load(&self, each: Box<dyn FnMut(StateRow<'_>) + Send>, done: Done<u64>);

    /// As [`BindingStore::changed_elsewhere`].
    fn changed_elsewhere(&self, also: Vec<Box<str>>, each: EachState, done: Done<u64>) {
        let _ = (also, each);
        done(Ok(0));
    }

    /// Changes queued and not yet in the store.
    fn queued(&self) -> usize;
}

/// Hears an owner and its rows.
pub type EachState = Box<dyn FnMut(&str, &[StateRow<'_>]) + Send>;

/// One change to the users, in the order in which all processes made them.
#[derive(Clone, PartialEq, Debug)]
pub struct UserChange {
    /// Grows with each change; never 0.
    pub sequence: u64,
    pub id: Arc<str>,
    /// `None`: removed.
    pub user: Option<User>,
}

/// The provisioned users.
pub trait UserStore: Send + Sync {
    /// Adds or replaces users, all or none. `Conflict` when an address or number belongs to someone else.
    fn put(&self, users: Vec<User>, done: Done<()>);

    /// With the user's [history](crate::history). `false` if there was no such user.
    fn remove(&self, id: &str, done: Done<bool>);

    /// The changes after `sequence`, oldest first, at most `limit`: with 0, every user there is. A replaced user appears
    /// once, in its last form. Made by any process on the same store.
    fn changes(&self, after: u64, limit: u32, done: Done<Vec<UserChange>>);
}

/// A message for someone who is not there.
#[derive(Clone, PartialEq, Debug)]
pub struct QueuedMessage {
    /// Addressee.
    pub aor: Aor,
    /// The same for the same message sent again: one user's queue holds a key once.
    pub key: [u8; 16],
    /// What the service needs to send it later, in the service's own form. At most [`MAX_QUEUED_MESSAGE`] bytes.
    pub body: Vec<u8>,
    /// Unix seconds: dropped by [`MessageQueue::expire`] after this.
    pub expires_at: i64,
}

/// Largest message that waits, in bytes (RFC 3428 keeps pager messages under 1300; CPIM, IMDN and relayed bodies need more).
pub const MAX_QUEUED_MESSAGE: usize = 128 * 1024;

/// Grows with each message of a store: their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId(pub u64);

/// Store and forward.
pub trait MessageQueue: Send + Sync {
    /// `done` runs after the commit is on disk. A message whose key waits already is not stored again: `done` gets the
    /// number of the one that waits. `OverQuota` beyond the store's cap for one user.
    fn put(&self, message: QueuedMessage, done: Done<MessageId>);

    /// The messages of one user after `after`, in order, at most `limit`, whatever their expiry.
    fn pending(&self, aor: &Aor, after: MessageId, limit: u32, done: Done<Vec<(MessageId, QueuedMessage)>>);

    /// Takes or renews the right to deliver this user's messages until `until` (unix seconds): `false` while another node has
    /// it. A store that one process has for itself always gives it.
    fn claim(&self, aor: &Aor, now: i64, until: i64, done: Done<bool>) {
        let _ = (aor, now, until);
        done(Ok(true));
    }

    /// Gives the right back.
    fn release(&self, aor: &Aor) {
        let _ = aor;
    }

    /// Whom messages wait for: addressees after `after` (empty: all) in one fixed order, at most `limit`.
    fn addressees(&self, after: &str, limit: u32, done: Done<Vec<Aor>>);

    /// Delivered (or refused for good): forgotten when `done` runs. `false` if it was not there any more.
    fn remove(&self, id: MessageId, done: Done<bool>);

    /// What expired before `now` (unix seconds), after `after`, by id, at most `limit`: to be accounted for before
    /// [`expire`](Self::expire) drops it.
    fn overdue(&self, now: i64, after: MessageId, limit: u32, done: Done<Vec<(MessageId, QueuedMessage)>>);

    /// Drops what expired before `now` (unix seconds); gives their number.
    fn expire(&self, now: i64, done: Done<u64>);
}

/// Names one state of a document; a changed document never gets an old one again. An entity tag can be made of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Version(pub u64);

/// What must be true of the stored document for a change to happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    Anything,
    Absent,
    Version(Version),
}

#[derive(Clone, PartialEq, Debug)]
pub struct Document {
    pub key: String,
    pub version: Version,
    pub body: Vec<u8>,
}

/// Largest document, in bytes.
pub const MAX_DOCUMENT: usize = 1024 * 1024;

/// Versioned documents: `(collection, key)` to bytes.
pub trait Documents: Send + Sync {
    fn get(&self, collection: &str, key: &str, done: Done<Option<Document>>);

    /// `done` runs after the commit is on disk. `Conflict` if `expect` does not hold.
    fn put(&self, collection: &str, key: &str, expect: Expect, body: Vec<u8>, done: Done<Version>);

    /// `Conflict` if `expect` does not hold; `Anything` is fine with a document that is not there.
    fn delete(&self, collection: &str, key: &str, expect: Expect, done: Done<()>);

    /// Documents whose key is greater than `after` (empty: all), by key in byte order, at most `limit`.
    fn list(&self, collection: &str, after: &str, limit: u32, done: Done<Vec<Document>>);

    /// How many documents a collection has.
    fn count(&self, collection: &str, done: Done<u64>);

    /// As [`Documents::list`], without the bodies.
    fn versions(&self, collection: &str, after: &str, limit: u32, done: Done<Vec<(String, Version)>>);
}

/// What waits in users' mailboxes: set by whatever keeps messages (a mail service, voice mail, an operator), told to the phones
/// that watch (RFC 3842).
pub trait Mailboxes: Send + Sync {
    /// What is known; nothing waits for whom nothing was set.
    fn summary(&self, aor: &Aor, done: Done<Summary>);

    /// `done` runs after the commit is on disk; the watchers are told soon after, at every node.
    fn set_summary(&self, aor: &Aor, summary: Summary, done: Done<()>);
}

/// One line of the charging log.
#[derive(Clone, PartialEq, Debug)]
pub struct ChargingRecord {
    /// Unix seconds.
    pub at: i64,
    /// One JSON object, without line ends. At most [`MAX_CHARGING_RECORD`] bytes.
    pub line: String,
}

/// Largest charging record, in bytes.
pub const MAX_CHARGING_RECORD: usize = 16 * 1024;

/// Call and message detail records.
pub trait ChargingLog: Send + Sync {
    /// `done` runs after the commit is on disk.
    fn append(&self, record: ChargingRecord, done: Option<Done<()>>) -> Result<(), StoreError>;

    /// Records with `from <= at < to` (unix seconds) after row `after` (0: from the first), in the order of writing, at most `limit`.
    fn read(&self, from: i64, to: i64, after: u64, limit: u32, done: Done<Vec<(u64, ChargingRecord)>>);
}

/// Hints between nodes. Any of them can be lost, doubled or late: a receiver re-reads the store.
///
/// A topic is tokens of `A-Z a-z 0-9 - _` joined by dots, at most [`MAX_TOPIC`] bytes.
pub trait Bus: Send + Sync {
    /// Gives `bytes` to every subscriber of every node, this one included. Never blocks; drops when it cannot keep up.
    fn publish(&self, topic: &str, bytes: &[u8]) -> Result<(), BusError>;

    /// Calls `each(topic, bytes)` for the topic `prefix` and every topic below it (`reg` hears `reg` and `reg.changed`, not
    /// `regs`), until the guard is dropped. `each` must not block.
    fn subscribe(&self, prefix: &str, each: Listener) -> Result<Subscription, BusError>;
}

/// What hears a hint: its topic and its bytes.
pub type Listener = Box<dyn Fn(&str, &[u8]) + Send + Sync>;

/// Ends its subscription when dropped.
#[must_use = "dropping the guard ends the subscription"]
pub struct Subscription(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Subscription {
    pub fn new(end: impl FnOnce() + Send + Sync + 'static) -> Subscription {
        Subscription(Some(Box::new(end)))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

/// Longest topic, in bytes.
pub const MAX_TOPIC: usize = 128;
/// Largest hint, in bytes. A hint says what to re-read; it does not carry it.
pub const MAX_HINT: usize = 8 * 1024;

/// Why the bus did not take a call; always the caller's fault. A bus that is down takes and loses hints.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BusError {
    #[error("not a topic")]
    Topic,
    #[error("a hint longer than {MAX_HINT} bytes")]
    TooLarge,
}

/// Whether `topic` may be published or subscribed to.
pub fn is_topic(topic: &str) -> bool {
    let token = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    topic.len() <= MAX_TOPIC && topic.split('.').all(token)
}

/// Whether a subscription to `prefix` hears `topic`.
pub fn hears(prefix: &str, topic: &str) -> bool {
    topic.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_hears_itself_and_what_is_below() {
        assert!(hears("reg", "reg") && hears("reg", "reg.changed.x"));
        assert!(!hears("reg", "regs") && !hears("reg.changed", "reg"));
    }

    #[test]
    fn topics_with_wildcards_or_spaces_are_refused() {
        for bad in ["", ".", "a.", "a b", "a.*", ">", "a\r\nb"] {
            assert!(!is_topic(bad), "{bad}");
        }
        assert!(is_topic("reg.changed-1.x_y"));
        assert!(!is_topic(&"a".repeat(MAX_TOPIC + 1)));
    }
}
