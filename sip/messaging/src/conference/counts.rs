//! What rooms count, for metrics.

use std::sync::atomic::AtomicU64;

/// Totals since the start.
#[derive(Default, Debug)]
pub struct Counts {
    pub opened: AtomicU64,
    pub joined: AtomicU64,
    pub left: AtomicU64,
    /// INVITEs that let nobody in.
    pub refused: AtomicU64,
    /// Messages to everybody.
    pub messages: AtomicU64,
    /// Messages to one.
    pub private: AtomicU64,
    /// Copies to members.
    pub copies: AtomicU64,
    /// Members who could not keep up, and were hung up on.
    pub congested: AtomicU64,
    /// Requests that another node answers.
    pub handed_over: AtomicU64,
    /// Rooms of other nodes that are dead.
    pub taken_over: AtomicU64,
    /// Rooms that another node has taken.
    pub let_go: AtomicU64,
}
