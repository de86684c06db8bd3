//! `[xcap]`: users' documents over HTTP.

use gw_sms::registry::Block;
use serde::Deserialize;

use super::values::Size;

/// The XCAP server (RFC 4825) at `/xcap-root/`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Xcap {
    pub enabled: bool,
    /// The XCAP root as clients know it: an absolute HTTP URI, where a proxy in front of us has another than ours. Empty: `/xcap-root/`
    /// below `http.public_url`.
    pub root: String,
    /// Ids of users who may read and write everybody's documents. At most 64.
    pub admins: Vec<String>,
    /// Addresses and CIDR blocks of authentication proxies and nodes of the core: whom they assert in X-3GPP-Asserted-Identity
    /// is believed (TS 33.222); without it they read everything. At most 64.
    pub trusted: Vec<Block>,
    /// Largest document, 1 KiB to 512 KiB.
    pub max_document: Size,
    /// Documents of one user, 1 to 1,000.
    pub documents_per_user: usize,
    /// Documents of all users.
    pub documents: u64,
    /// Requests a second of one user, 1 to 10,000; four times as many at once.
    pub rate: u32,
    /// And of all together.
    pub total_rate: u32,
}

impl Default for Xcap {
    fn default() -> Xcap {
        Xcap {
            enabled: true,
            root: String::new(),
            admins: Vec::new(),
            trusted: Vec::new(),
            max_document: Size::kib(64),
            documents_per_user: 32,
            documents: 1_000_000,
            rate: 20,
            total_rate: 5_000,
        }
    }
}
