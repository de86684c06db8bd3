//! What users have said to each other, kept for those among them who want it kept.

use std::sync::Arc;

use sip_proto::Message;

use crate::identity::{Aor, Msisdn};
use crate::ports::{Done, StoreError};
use crate::service::Caller;
use crate::user::User;

/// Hears of each MESSAGE that its addressee has taken (a 2xx). Called under the lock of a shard.
pub trait Archive: Send + Sync {
    /// Whether it would keep anything of what these two say: asked first, for what it costs to find the message again.
    fn wants(&self, sender: &Caller, addressee: Option<&Arc<User>>) -> bool;

    /// `message`: the request as it came. `addressee`: whom of our users its Request-URI names.
    fn said(&self, message: &Message<'_>, sender: &Caller, addressee: Option<&Arc<User>>);
}

/// Keeps short messages: few of them are MESSAGEs between two.
pub trait TextArchive: Send + Sync {
    /// Whether it keeps anything for them: asked first.
    fn keeps_for(&self, user: &User) -> bool;

    /// Keeps a message for both of its ends, as far as they want that. `done` runs when it is on disk, or will never be.
    fn texted(&self, text: Texted, done: Box<dyn FnOnce() + Send>);
}

/// A short message, its segments put together.
pub struct Texted {
    pub from: TextedBy,
    pub to: Msisdn,
    /// The same for the same message.
    pub key: [u8; 16],
    pub text: String,
}

/// Who sent a short message.
#[derive(Clone)]
pub enum TextedBy {
    /// One of ours, who has proved it.
    User(Arc<User>),
    /// Whom the message names, a number, short code or name: it is written into nobody's history as theirs.
    Named(Box<str>),
}

/// One message of one user's history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryEntry {
    pub owner: Aor,
    /// The other one: `sip:user@domain`, `tel:+…`, or whatever URI they had; or a chat room.
    pub peer: String,
    /// Who said it to a room; empty: one of two who talk.
    pub speaker: String,
    /// From the owner to the other.
    pub outgoing: bool,
    /// Milliseconds since 1970.
    pub at: i64,
    /// The same for the same message: an owner's history holds a key once.
    pub key: [u8; 16],
    /// Of `body`.
    pub media_type: String,
    /// What its sender named it (RFC 5438 §6.3); empty: nothing.
    pub message_id: String,
    pub body: Vec<u8>,
    /// Unix seconds: dropped by [`HistoryStore::expire`] after this.
    pub expires_at: i64,
}

/// Largest entry, in bytes, all fields together.
pub const MAX_HISTORY_ENTRY: usize = 128 * 1024;

/// Grows with each entry of a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HistoryId(pub u64);

/// What of an owner's history is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryPart {
    pub owner: Aor,
    /// `None`: with everybody.
    pub peer: Option<String>,
    /// Milliseconds since 1970: from the first on, and before the second.
    pub since: i64,
    pub until: i64,
    /// One entry only.
    pub id: Option<HistoryId>,
}

impl HistoryPart {
    /// All that one user has.
    pub fn of(owner: Aor) -> HistoryPart {
        HistoryPart { owner, peer: None, since: i64::MIN, until: i64::MAX, id: None }
    }
}

/// The histories of all users.
pub trait HistoryStore: Send + Sync {
    /// Adds entries, in one transaction; those whose owner has the key already are left out. `cap`: of each of their owners so
    /// many are left, the youngest; `None`: that is not looked at now. `done` runs after the commit is on disk.
    fn put(&self, entries: Vec<HistoryEntry>, cap: Option<u32>, done: Done<()>);

    /// A part of a history, the youngest first, at most `limit`. `before`: only what stands behind this entry in that order.
    fn page(
        &self,
        part: HistoryPart,
        before: Option<(i64, HistoryId)>,
        limit: u32,
        done: Done<Vec<(HistoryId, HistoryEntry)>>,
    );

    /// Forgets a part of a history; gives the number of entries that were in it.
    fn remove(&self, part: HistoryPart, done: Done<u64>);

    /// Drops what expired before `now` (unix seconds), at most `limit`; gives their number.
    fn expire(&self, now: i64, limit: u32, done: Done<u64>);
}

/// What a store says of an entry before it takes it.
pub fn check(entry: &HistoryEntry) -> Result<(), StoreError> {
    let HistoryEntry { owner, peer, speaker, media_type, message_id, body, .. } = entry;
    let texts = [owner.as_str(), peer, speaker, media_type, message_id];
    if texts.iter().any(|text| text.contains('\0')) {
        return Err(StoreError::Text);
    }
    let size = texts.iter().map(|text| text.len()).sum::<usize>() + body.len();
    if size > MAX_HISTORY_ENTRY { Err(StoreError::TooLarge) } else { Ok(()) }
}
