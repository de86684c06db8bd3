//! `private_key_jwt`: a client proves itself by a JWT that it signed (RFC 7523 §2.2, §3; OpenID Connect Core §9), its keys at an address that
//! the operator registered (RFC 7517).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::Method;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

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

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Key>,
}

/// RFC 7518 §6, as far as signatures need it.
#[derive(Deserialize)]
struct Key {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// RFC 7515 §4.1.11: there are none that we know.
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    #[serde(default)]
    nbf: Option<u64>,
    jti: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// A JWT that can be read, and is not believed yet.
pub struct Assertion<'t> {
    header: Header,
    claims: Claims,
    signed: &'t str,
    signature: Vec<u8>,
}

impl Assertion<'_> {
    pub fn read(token: &str) -> Option<Assertion<'_>> {
        let (signed, signature) = token.rsplit_once('.').filter(|_| token.len() <= MAX_ASSERTION)?;
        let (header, claims) = signed.split_once('.')?;
        Some(Assertion {
            header: part(header)?,
            claims: part(claims)?,
            signed,
            signature: BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// Whose it says it is.
    pub fn client(&self) -> &str {
        &self.claims.sub
    }
}

fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()
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
        let Header { alg, kid, .. } = &assertion.header;
        keys.keys
            .iter()
            .filter(|key| key.is_for(alg, kid.as_deref()))
            .any(|key| key.verifies(alg, assertion.signed.as_bytes(), &assertion.signature))
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
        let keys = answer.ok().filter(|a| a.status == 200).and_then(|a| serde_json::from_slice::<Keys>(&a.body).ok());
        let Some(keys) = keys.filter(|k| k.keys.len() <= MAX_KEYS) else {
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

impl Key {
    fn is_for(&self, alg: &str, kid: Option<&str>) -> bool {
        self.purpose.as_deref().is_none_or(|u| u == "sig")
            && self.alg.as_deref().is_none_or(|a| a == alg)
            && (kid.is_none() || self.kid.as_deref() == kid)
    }

    /// By an algorithm of RFC 7518 §3.1 or RFC 8037 that fits the key; none of them is symmetric.
    fn verifies(&self, alg: &str, signed: &[u8], signature: &[u8]) -> bool {
        let octets = |text: &Option<String>| BASE64_URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let checked = match (alg, &*self.kty, self.crv.as_deref()) {
            ("RS256" | "PS256", "RSA", _) => (|| {
                let key = RsaPublicKeyComponents { n: octets(&self.n)?, e: octets(&self.e)? };
                let rule = if alg == "RS256" { &RSA_PKCS1_2048_8192_SHA256 } else { &RSA_PSS_2048_8192_SHA256 };
                key.verify(rule, signed, signature).ok()
            })(),
            ("ES256", "EC", Some("P-256")) => (|| {
                let (x, y) = (octets(&self.x)?, octets(&self.y)?);
                let point = [&[4][..], &x, &y].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).ok()
            })(),
            ("EdDSA" | "Ed25519", "OKP", Some("Ed25519")) => {
                octets(&self.x).and_then(|x| UnparsedPublicKey::new(&ED25519, x).verify(signed, signature).ok())
            }
            _ => None,
        };
        checked.is_some()
    }
}

/// Longest assertion.
const MAX_ASSERTION: usize = 8 * 1024;
const MAX_JTI: usize = 256;
/// Keys of one client.
const MAX_KEYS: usize = 32;
/// Assertions remembered as used; more at a time are refused.
const MAX_USED: usize = 100_000;
/// Seconds for which an assertion may be good, and by which clocks may differ.
const LONGEST: u64 = 3_600;
const SKEW: u64 = 30;
/// How long keys are believed, and how often they are asked for when they do not fit.
const FRESH: Duration = Duration::from_secs(300);
const REFRESH: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(header), part(claims), part("signature"))
    }

    #[test]
    fn what_lacks_a_claim_is_no_assertion() {
        let claims = r#"{"iss":"a","sub":"a","aud":["x","y"],"exp":5,"jti":"1"}"#;
        let whole = token(r#"{"alg":"ES256"}"#, claims);
        assert_eq!(Assertion::read(&whole).unwrap().client(), "a");
        for key in ["iss", "sub", "aud", "exp", "jti"] {
            let token = token(r#"{"alg":"ES256"}"#, &claims.replace(&format!("\"{key}\""), "\"other\""));
            assert!(Assertion::read(&token).is_none(), "{key}");
        }
        for bad in ["", ".", "..", "a.b.c", &whole[1..], &format!("{whole}=")] {
            assert!(Assertion::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn keys_fit_by_their_purpose_algorithm_and_name_and_damaged_ones_verify_nothing() {
        let key = |json: &str| serde_json::from_str::<Key>(json).unwrap();
        let ec = key(r#"{"kty":"EC","crv":"P-256","kid":"1","use":"sig","alg":"ES256","x":"AA","y":"AA"}"#);
        assert!(ec.is_for("ES256", Some("1")) && ec.is_for("ES256", None));
        assert!(!ec.is_for("ES256", Some("2")) && !ec.is_for("RS256", None));
        assert!(!key(r#"{"kty":"EC","use":"enc"}"#).is_for("ES256", None));
        let rsa = key(r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#);
        for alg in ["ES256", "RS256", "PS256", "EdDSA", "HS256", "none"] {
            assert!(!ec.verifies(alg, b"x", &[0; 64]) && !rsa.verifies(alg, b"x", &[0; 256]), "{alg}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(text in ".{0,200}", header in ".{0,60}", claims in ".{0,60}") {
            let _ = Assertion::read(&text);
            let _ = Assertion::read(&token(&header, &claims));
        }
    }
}
