//! Users who prove themselves by digest (RFC 7616) elsewhere than in SIP, with the credentials of their phones.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use sip_ims::User;
use sip_ims::authenticate::{self, Authenticator};

use super::Peer;
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

/// Why a name and a password are nobody's.
pub enum WrongPassword {
    /// Too many from that address: this one was not looked at.
    Guessing,
    Wrong,
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
            if refusal.is_suspect() && !self.guesses.forgives(from) {
                return Unproven::Guessing;
            }
            match refusal {
                authenticate::Refusal::Malformed => Unproven::Malformed,
                _ => Unproven::Challenge(self.authenticator.http_challenges(&refusal, unix)),
            }
        })
    }

    /// Whose name and password these are.
    pub fn password(&self, from: IpAddr, name: &str, password: &[u8]) -> Result<Arc<User>, WrongPassword> {
        if !self.guesses.may_try(from) {
            return Err(WrongPassword::Guessing);
        }
        self.authenticator.password(name, password).ok_or_else(|| {
            self.guesses.forgives(from);
            WrongPassword::Wrong
        })
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
