//! Who sends a request: digest credentials (RFC 4825 §8), or whom an authentication proxy asserts (TS 33.222).
//!
//! A portal's session would be a third way in; there is no portal yet.

use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode, Uri};
use sip_ims::User;

use super::{Door, Refusal};
use crate::http::Peer;
use crate::http::digest::Unproven;

pub(super) enum Caller {
    User(Arc<User>),
    /// A node of the core that speaks for nobody.
    Node,
    /// On a closed test net.
    Anybody,
}

impl Caller {
    /// Whom requests are counted for.
    pub fn name(&self) -> &str {
        match self {
            Caller::User(user) => &user.id,
            // An id is never empty.
            Caller::Node | Caller::Anybody => "",
        }
    }
}

/// TS 24.109 §6.3: identities in quotes, parted by commas.
const ASSERTED: &str = "x-3gpp-asserted-identity";

impl Door {
    pub(super) fn caller(
        &self,
        peer: &Peer,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Caller, Refusal> {
        let address = peer.remote.ip().to_canonical();
        if self.config.trusted.iter().any(|block| block.contains(address)) {
            let mut values = headers.get_all(ASSERTED).iter().peekable();
            if values.peek().is_none() {
                return Ok(Caller::Node);
            }
            let identities = values.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
            let known = identities.map(|i| i.trim().trim_matches('"')).find_map(|i| self.xcap.user(i));
            // Somebody, but nobody of ours.
            return known.map(Caller::User).ok_or(Refusal::Status(StatusCode::FORBIDDEN));
        }
        let Some(digest) = &self.digest else { return Ok(Caller::Anybody) };
        digest.user(peer, method, uri, headers).map(Caller::User).map_err(|unproven| match unproven {
            Unproven::Guessing => Refusal::Later(StatusCode::TOO_MANY_REQUESTS),
            Unproven::Malformed => Refusal::Status(StatusCode::BAD_REQUEST),
            Unproven::Challenge(challenges) => Refusal::Unauthenticated(challenges),
        })
    }
}
