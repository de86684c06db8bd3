//! Who sends a request: a user with digest credentials (RFC 4825 §8) or a session of the portal, or whom an authentication proxy asserts
//! (TS 33.222).

use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode, Uri};
use sip_ims::User;

use super::{Door, Refusal};
use crate::http::Peer;
use crate::http::authentication::Denied;
use crate::http::digest::Unproven;
use crate::xcap::No;

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
    pub(super) async fn caller(
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
        let Some(authentication) = &self.authentication else { return Ok(Caller::Anybody) };
        authentication.user(peer, method, uri, headers).await.map(Caller::User).map_err(|denied| match denied {
            Denied::Unproven(Unproven::Guessing) => Refusal::Later(StatusCode::TOO_MANY_REQUESTS),
            Denied::Unproven(Unproven::Malformed) => Refusal::Status(StatusCode::BAD_REQUEST),
            Denied::Unproven(Unproven::Challenge(challenges)) => Refusal::Unauthenticated(challenges),
            Denied::Foreign => Refusal::Status(StatusCode::FORBIDDEN),
            Denied::Store(error) => No::Store(error).into(),
        })
    }
}
