//! Which of our users sends an HTTP request: by the credentials of their phones, or by a session of the portal.

use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use sip_ims::User;
use sip_ims::ports::StoreError;

use super::Peer;
use super::digest::{Digest, Unproven, challenged};
use super::problem::Problem;
use super::session::{self, Foreign, Known, SCHEME, Sessions};

/// One for all doors.
pub struct Authentication {
    pub digest: Arc<Digest>,
    pub sessions: Arc<Sessions>,
}

/// Why a request is not served as anybody's.
pub enum Denied {
    Unproven(Unproven),
    /// The session is somebody's; the page that asks is not ours.
    Foreign,
    Store(StoreError),
}

impl Authentication {
    /// Credentials go before a cookie: a browser sends the one by itself, the others on purpose.
    pub async fn user(
        &self,
        peer: &Peer,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Arc<User>, Denied> {
        if !headers.contains_key(header::AUTHORIZATION)
            && let Some(Known { user, .. }) = self.sessions.known(peer, headers).await.map_err(Denied::Store)?
        {
            return self.sessions.may(peer, method, headers).map(|()| user).map_err(|Foreign| Denied::Foreign);
        }
        self.digest.user(peer, method, uri, headers).map_err(|unproven| match unproven {
            Unproven::Challenge(_) if is_script(headers) => Denied::Unproven(Unproven::Challenge(vec![SCHEME.into()])),
            unproven => Denied::Unproven(unproven),
        })
    }
}

/// Whether a page's script asks, which has a way of its own to have its user log in: asked for digest, the browser would stop it and ask the
/// user with a window of the browser's.
fn is_script(headers: &HeaderMap) -> bool {
    let fetched = || headers.get("sec-fetch-dest").is_some_and(|to| to == "empty");
    !headers.contains_key(header::AUTHORIZATION) && (headers.contains_key("x-requested-with") || fetched())
}

/// An answer other than the wanted one, at a door where users prove themselves.
pub enum Refusal {
    Problem(Problem),
    /// See [`challenged`].
    Unauthenticated(Vec<Vec<u8>>),
}

impl Refusal {
    /// `later`: what says that it is too much at once.
    pub fn of(denied: Denied, later: Refusal) -> Refusal {
        match denied {
            Denied::Unproven(Unproven::Guessing) => later,
            Denied::Unproven(Unproven::Malformed) => {
                Problem::new(StatusCode::BAD_REQUEST, "the credentials cannot be read").into()
            }
            Denied::Unproven(Unproven::Challenge(challenges)) => Refusal::Unauthenticated(challenges),
            Denied::Foreign => session::foreign().into(),
            Denied::Store(error) => Problem::from(error).into(),
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal::Problem(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Problem(problem) => problem.into_response(),
            Refusal::Unauthenticated(challenges) => challenged(&challenges),
        }
    }
}
