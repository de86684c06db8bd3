//! Users who prove themselves by digest (RFC 7616) elsewhere than in SIP, with the credentials of their phones.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use sip_ims::User;
use sip_ims::authenticate::{self, Authenticator};

use super::Peer;
use super::problem::Problem;
use super::rate::Guesses;
use crate::app::unix_now;

/// One for all doors: an address that guesses is slowed down at each of them.
pub struct Digest {
    authenticator: Arc<Authenticator>,
    guesses: Guesses,
}

/// Why a request is nobody's yet.
pub enum Unproven {
    /// Too many wrong passwords from that address.
    Guessing,
    Malformed,
    /// What to ask with, see [`challenged`].
    Challenge(Vec<Vec<u8>>),
}

impl Digest {
    pub fn new(authenticator: Arc<Authenticator>) -> Digest {
        Digest { authenticator, guesses: Guesses::default() }
    }

    /// Whose credentials an HTTP request carries.
    pub fn user(&self, peer: &Peer, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Arc<User>, Unproven> {
        let values: Vec<&[u8]> = headers.get_all(header::AUTHORIZATION).iter().map(|v| v.as_bytes()).collect();
        let target = uri.path_and_query().map_or("/", |p| p.as_str());
        self.proved(peer.remote.ip(), &values, method.as_str(), target)
    }

    /// The same for what else has digest: the Authorization headers, and what they are about.
    pub fn proved(
        &self,
        from: IpAddr,
        credentials: &[&[u8]],
        method: &str,
        target: &str,
    ) -> Result<Arc<User>, Unproven> {
        let unix = unix_now();
        self.authenticator.http(credentials, method, target, unix).map_err(|refusal| {
            // Guesses cost; the first attempt and an old nonce do not.
            if refusal.is_suspect() && !self.guesses.forgives(from.to_canonical()) {
                return Unproven::Guessing;
            }
            match refusal {
                authenticate::Refusal::Malformed => Unproven::Malformed,
                _ => Unproven::Challenge(self.authenticator.http_challenges(&refusal, unix)),
            }
        })
    }
}

/// An answer other than the wanted one, at a door where users prove themselves.
pub enum Refusal {
    Problem(Problem),
    /// See [`challenged`].
    Unauthenticated(Vec<Vec<u8>>),
}

impl Refusal {
    /// `later`: what says that it is too much at once.
    pub fn of(unproven: Unproven, later: Refusal) -> Refusal {
        match unproven {
            Unproven::Guessing => later,
            Unproven::Malformed => Problem::new(StatusCode::BAD_REQUEST, "the credentials cannot be read").into(),
            Unproven::Challenge(challenges) => Refusal::Unauthenticated(challenges),
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

/// 401, with these challenges.
pub fn challenged(challenges: &[Vec<u8>]) -> Response {
    let mut response = StatusCode::UNAUTHORIZED.into_response();
    for value in challenges.iter().filter_map(|c| HeaderValue::from_bytes(c).ok()) {
        response.headers_mut().append(header::WWW_AUTHENTICATE, value);
    }
    response
}
