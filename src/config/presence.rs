//! `[presence]`: who is there, and who may know.

use serde::Deserialize;

use super::values::Size;

/// The presence server (RFC 3856, 3903).
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Presence {
    /// False: PUBLISH and SUBSCRIBE go to the handsets themselves.
    pub enabled: bool,
    /// Seconds; shorter publications and subscriptions get 423. 1 to 3,600.
    pub min_expires: u32,
    /// Seconds; longer ones are shortened.
    pub max_expires: u32,
    /// Seconds granted when the peer names none.
    pub default_expires: u32,
    /// Largest published document, 1 KiB to 64 KiB.
    pub max_document: Size,
    /// Publications of one user, 1 to 1,000.
    pub publications_per_user: usize,
    pub publications: usize,
    /// Subscriptions to one user, 1 to 1,000,000.
    pub subscriptions_per_user: usize,
    /// Subscriptions of one watcher, 1 to 1,000,000.
    pub subscriptions_per_watcher: usize,
    /// Lists of one user, 1 to 10,000.
    pub lists_per_user: usize,
    pub lists: usize,
    /// User part of the address that takes lists in SUBSCRIBEs (RFC 5367), `sip:<list_server>@<domain>`; empty: there is none.
    pub list_server: String,
    pub subscriptions: usize,
    /// Members of lists in other domains are watched there.
    pub foreign_members: bool,
    /// Seconds between two notifications of one watcher, at most 3,600 (RFC 3856 §6.10 recommends 5). That a handset is gone
    /// is told at once.
    pub notify_interval: u32,
    /// What becomes of watchers of our own domain where a user has no rules.
    pub own_domain: Watchers,
    /// And of all others.
    pub others: Watchers,
}

/// What users' phones can do, asked by OPTIONS (GSMA RCC.07 §2.6.1).
#[derive(Clone, Copy, Default, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    pub answer: CapabilitiesFrom,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapabilitiesFrom {
    /// OPTIONS go to the phones; what was published answers for those who do not.
    #[default]
    Handsets,
    /// Answered from what is registered and published.
    Network,
}

impl Default for Presence {
    fn default() -> Presence {
        Presence {
            enabled: true,
            min_expires: 60,
            max_expires: 86_400,
            default_expires: 3_600,
            max_document: Size::kib(32),
            publications_per_user: 16,
            publications: 1_000_000,
            subscriptions_per_user: 10_000,
            subscriptions_per_watcher: 1_000,
            lists_per_user: 100,
            lists: 1_000_000,
            list_server: "rls".to_owned(),
            subscriptions: 1_000_000,
            foreign_members: true,
            notify_interval: 5,
            own_domain: Watchers::Allow,
            others: Watchers::Confirm,
        }
    }
}

/// RFC 5025 §3.2.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watchers {
    Allow,
    /// Told that the user is not there.
    PoliteBlock,
    /// Told nothing until the user's rules allow it.
    Confirm,
    Block,
}
