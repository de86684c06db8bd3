//! `private_key_jwt`: a client proves itself by a JWT that it signed (RFC 7523 §2.2, §3; OpenID Connect Core §9), its keys at an address that
//! the operator registered (RFC 7517).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::Method;
use parking_lot::Mutex;

use super::jwt::{Assertion, Audience, Claims, Keys};
use crate::http::client::Client;

/// The value of `client_assertion_type` (RFC 7523 §2.2).
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Checks assertions; remembers keys for a while, and which assertions were used while they are good.
pub struct Assertions {
    client: Client,
    /// What an assertion must be for; empty: there is no address that clients could know us by.
    audiences: Vec<String>,
    keys: Mutex<HashMap<String, (Instant, Arc<Keys>)>>,
    used: Mutex<HashMap<(String, String), u64>>,
}

impl Assertions {
    /// `public_url`: where clients find us, empty if that is not said.
    pub fn new(client: Client, public_url: &str) -> Assertions {
        let url = public_url.trim_end_matches('/');
        let audiences = if url.is_empty() { Vec::new() } else { vec![url.to_owned(), format!("{url}/oauth2/token")] };
        Assertions { client, audiences, keys: Mutex::default(), used: Mutex::default() }
    }

    /// Whether an assertion is right, for us, signed by one of the keys at `jwks_uri`, and used for the first time. `now`: unix seconds.
    pub async fn prove(&self, assertion: &Assertion<'_>, jwks_uri: &str, now: u64) -> bool {
        if !self.is_for_us(&assertion.claims, now) || assertion.header.crit.is_some() {
            return false;
        }
        let mut signed = self.signed(assertion, jwks_uri, false).await;
        if !signed {
            // Clients change their keys; a forger cannot make us ask more than now and then.
            signed = self.signed(assertion, jwks_uri, true).await;
        }
        signed && self.first_use(&assertion.claims, now)
    }

    fn is_for_us(&self, claims: &Claims, now: u64) -> bool {
        let names = match &claims.aud {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Many(many) => many,
        };
        claims.iss == claims.sub
            && names.iter().any(|name| self.audiences.contains(name))
            && claims.exp > now
            && claims.exp <= now + LONGEST
            && claims.nbf.is_none_or(|at| at <= now + SKEW)
            && (1..=MAX_JTI).contains(&claims.jti.len())
    }

    async fn signed(&self, assertion: &Assertion<'_>, jwks_uri: &str, anew: bool) -> bool {
        let Some(keys) = self.keys(jwks_uri, anew).await else { return false };
        keys.verify(assertion)
    }

    async fn keys(&self, jwks_uri: &str, anew: bool) -> Option<Arc<Keys>> {
        let least = if anew { REFRESH } else { FRESH };
        if let Some((at, keys)) = self.keys.lock().get(jwks_uri)
            && at.elapsed() < least
        {
            return Some(keys.clone());
        }
        let accept = [("accept", "application/json".to_owned())];
        let answer = self.client.request(Method::GET, jwks_uri, &accept, Vec::new()).await;
        let Some(keys) = answer.ok().filter(|a| a.status == 200).and_then(|a| Keys::read(&a.body)) else {
            tracing::warn!("a client's keys cannot be read at its jwks_uri");
            return None;
        };
        let keys = Arc::new(keys);
        // As many as clients are registered.
        self.keys.lock().insert(jwks_uri.to_owned(), (Instant::now(), keys.clone()));
        Some(keys)
    }

    fn first_use(&self, claims: &Claims, now: u64) -> bool {
        let mut used = self.used.lock();
        if used.len() >= MAX_USED {
            used.retain(|_, exp| *exp > now);
        }
        let name = (claims.sub.clone(), claims.jti.clone());
        used.len() < MAX_USED && used.insert(name, claims.exp).is_none_or(|exp| exp <= now)
    }
}

const MAX_JTI: usize = 256;
/// Assertions remembered as used; more at a time are refused.
const MAX_USED: usize = 100_000;
/// Seconds for which an assertion may be good, and by which clocks may differ.
const LONGEST: u64 = 3_600;
const SKEW: u64 = 30;
/// How long keys are believed, and how often they are asked for when they do not fit.
const FRESH: Duration = Duration::from_secs(300);
const REFRESH: Duration = Duration::from_secs(10);
