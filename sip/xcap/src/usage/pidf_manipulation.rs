//! `pidf-manipulation` (RFC 4827).

use super::{Documents, Stored, Usage, none};
use crate::schema::{PIDF, PRESENCE};

pub(super) static USAGE: Usage = Usage {
    auid: "pidf-manipulation",
    media_type: "application/pidf+xml",
    namespace: PIDF,
    // §9: one for each user.
    documents: Documents::Stored(Stored { root: &PRESENCE, name: Some("index"), constraints: none }),
};
