//! Settings of the presence server.

use std::time::Duration;

use crate::rules::Handling;

/// Bounds and defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Seconds that a publication or subscription lives, at least; shorter ones get 423. At most 3600 counts (RFC 6665 §4.2.1.1).
    pub min_expires: u32,
    /// At most; longer ones are shortened.
    pub max_expires: u32,
    /// When the peer names none (RFC 3856 §6.4 and RFC 3903 §4.5 have 3600).
    pub default_expires: u32,
    /// Largest published document, in bytes; more gets 413.
    pub max_document: usize,
    /// Publications of one user.
    pub publications_per_user: usize,
    /// Of all users.
    pub publications: usize,
    /// Subscriptions to one user; beyond it 503.
    pub subscriptions_per_user: usize,
    /// Subscriptions of one watcher; beyond it 403.
    pub subscriptions_per_watcher: usize,
    /// Lists of one user, and of all; what is beyond makes none.
    pub lists_per_user: usize,
    pub lists: usize,
    /// User part of the address that takes lists in SUBSCRIBEs (RFC 5367); empty: there is none.
    pub list_server: String,
    /// The XCAP root's URI, with a slash at its end: lists below it are ours.
    pub xcap_root: String,
    /// All together; and members of lists that are watched. Beyond it 503.
    pub subscriptions: usize,
    /// Least time between two NOTIFYs of one subscription (RFC 3856 §6.10 recommends 5 s). The answer to a SUBSCRIBE, and the end of a
    /// handset's registration, do not wait.
    pub pace: Duration,
    /// What becomes of watchers of our own domain where a user has no rules.
    pub own_domain: Handling,
    /// And of all others.
    pub others: Handling,
    /// Name of this node, as it stands in the rows of the store.
    pub node: String,
    /// Secret of the house; the nodes of a cluster share it.
    pub key: [u8; 32],
    /// Everybody is who they say (closed test nets only).
    pub open: bool,
}

impl Default for Config {
    /// Fit for a small house; `node` and `key` are to be set.
    fn default() -> Config {
        Config {
            min_expires: 60,
            max_expires: 86_400,
            default_expires: 3600,
            max_document: 32 * 1024,
            publications_per_user: 16,
            publications: 1_000_000,
            subscriptions_per_user: 10_000,
            subscriptions_per_watcher: 1_000,
            lists_per_user: 100,
            lists: 1_000_000,
            list_server: "rls".into(),
            xcap_root: String::new(),
            subscriptions: 1_000_000,
            pace: Duration::from_secs(5),
            own_domain: Handling::Allow,
            others: Handling::Confirm,
            node: String::new(),
            key: [0; 32],
            open: false,
        }
    }
}
