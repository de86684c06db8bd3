//! A room as it is stored.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Longest subject, in characters.
pub const MAX_SUBJECT: usize = 256;
/// Users who are let in by name. With [`MAX_NICKNAMES`] a row stays well below what a store takes.
pub const MAX_ALLOWED: usize = 500;
/// Bytes of all nicknames and whose they are. Beyond, only who is there keeps theirs.
pub const MAX_NICKNAMES: usize = 256 * 1024;

/// What outlives the process: everything but who is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The node that is its focus; empty: none, or the only one.
    #[serde(default)]
    pub node: String,
    /// `sip:alice@example.com`.
    pub creator: String,
    /// Only its creator and those in `allowed` come in.
    pub closed: bool,
    pub allowed: BTreeSet<String>,
    pub subject: String,
    /// By user.
    pub nicknames: BTreeMap<String, String>,
    /// When somebody was there last, in unix seconds.
    pub touched: u64,
}

impl Row {
    pub fn read(body: &[u8]) -> Result<Row, serde_json::Error> {
        serde_json::from_slice(body)
    }

    pub fn write(&self) -> Vec<u8> {
        // Strings, numbers and maps of strings: there is nothing in it that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
