//! `pres-rules` (RFC 5025 §9) and `org.openmobilealliance.pres-rules` (OMA Presence XDM §5.1).

use super::{Documents, Stored, Usage, none};
use crate::schema::{COMMON_POLICY, PRES_RULES, RULESET};

pub(super) static USAGE: Usage = Usage {
    auid: "pres-rules",
    media_type: "application/auth-policy+xml",
    namespace: PRES_RULES,
    documents: Documents::Stored(Stored { root: &RULESET, name: None, constraints: none }),
};

pub(super) static OMA_USAGE: Usage = Usage {
    auid: "org.openmobilealliance.pres-rules",
    media_type: "application/auth-policy+xml",
    namespace: COMMON_POLICY,
    documents: Documents::Stored(Stored { root: &RULESET, name: None, constraints: none }),
};
