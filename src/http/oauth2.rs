//! `/oauth2/token`: client credentials (RFC 6749 §4.4) for the third-party APIs, and what their doors ask of a token (RFC 6750).
//!
//! A token says whose it is, for which scopes and until when, sealed with a key that all nodes share: none is stored. It is good for as
//! long as the client is registered with the secret it was given for, and for no more scopes than the client has by now.

mod assertion;
mod failures;
mod form;
mod jwt;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use gw_sms::registry::{ApiClient, Credentials, Registry};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use subtle::ConstantTimeEq;

use super::Peer;
use super::camara::Refusal;
use crate::secrets::mac;
pub use assertion::Assertions;
use failures::Failures;
use form::Form;
use jwt::Assertion;

/// Gives and checks tokens.
pub struct Tokens {
    registry: Arc<Registry>,
    key: [u8; 32],
    /// Seconds.
    lifetime: u32,
    /// Secrets are taken over connections without TLS, from other machines too.
    plain: bool,
    assertions: Assertions,
    failures: Failures,
    counts: Mutex<HashMap<&'static str, u64>>,
}

/// What a token holds.
#[derive(Serialize, Deserialize)]
struct Claims {
    /// Client id.
    sub: String,
    /// Separated by blanks.
    scope: String,
    /// Unix seconds.
    exp: u64,
    /// Of the secret with which it was got.
    key: String,
}

/// An answer of RFC 6749 §5.2.
struct Failure {
    status: StatusCode,
    error: &'static str,
    description: &'static str,
    /// The client authenticated in the header.
    basic: bool,
}

impl Tokens {
    /// `secret`: what all nodes share.
    pub fn new(
        registry: Arc<Registry>,
        secret: &[u8; 32],
        assertions: Assertions,
        (lifetime, plain): (u32, bool),
    ) -> Tokens {
        let key = mac(secret, b"isthmus oauth2 access token");
        Tokens { registry, key, lifetime, plain, assertions, failures: Failures::default(), counts: Mutex::default() }
    }

    /// Requests for tokens, by answer.
    pub fn each(&self, mut show: impl FnMut(&'static str, u64)) {
        self.counts.lock().iter().for_each(|(outcome, n)| show(outcome, *n));
    }

    /// The client whose Bearer token this is, if it has that scope.
    pub fn authorise(&self, headers: &HeaderMap, scope: &'static str) -> Result<Arc<ApiClient>, Refusal> {
        let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.split_once(' '));
        let token = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let Some(token) = token else {
            let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "an access token is needed");
            return Err(Refusal { challenge: Some("Bearer".to_owned()), ..refusal });
        };
        let Some((client, claims)) = self.open(token, unix_now()) else {
            let wrong = "the access token is wrong, has expired or was revoked";
            let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", wrong);
            return Err(Refusal { challenge: Some("Bearer error=\"invalid_token\"".to_owned()), ..refusal });
        };
        let has = claims.scope.split(' ').any(|s| s == scope) && client.scopes.iter().any(|s| s == scope);
        if !has {
            let wrong = format!("the access token lacks the scope {scope}");
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
            let refusal = Refusal::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", wrong);
            return Err(Refusal { challenge: Some(challenge), ..refusal });
        }
        Ok(client)
    }

    fn seal(&self, claims: &Claims) -> String {
        // A struct of strings and a number: writing it cannot fail.
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let payload = BASE64_URL_SAFE_NO_PAD.encode(claims);
        format!("{payload}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac(&self.key, payload.as_bytes())))
    }

    fn open(&self, token: &str, now: u64) -> Option<(Arc<ApiClient>, Claims)> {
        let (payload, seal) = token.split_once('.').filter(|_| token.len() <= MAX_TOKEN)?;
        let seal = BASE64_URL_SAFE_NO_PAD.decode(seal).ok()?;
        if !bool::from(seal.ct_eq(&mac(&self.key, payload.as_bytes()))) {
            return None;
        }
        let claims: Claims = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let client = self.registry.api_client(&claims.sub)?;
        (claims.exp > now && claims.key == self.key_of(&client)).then_some((client, claims))
    }

    /// Changes when the secret does, and tells nothing of it.
    fn key_of(&self, client: &ApiClient) -> String {
        let secret = client.secret_ha1.as_deref().unwrap_or(&client.jwks_uri);
        BASE64_URL_SAFE_NO_PAD.encode(&mac(&self.key, secret.as_bytes())[..8])
    }

    /// RFC 6749 §4.4.2.
    async fn grant(&self, headers: &HeaderMap, peer: Peer, body: &[u8]) -> Result<(Arc<ApiClient>, String), Failure> {
        if !(peer.secure || self.plain || peer.remote.ip().to_canonical().is_loopback()) {
            return Err(Failure::request("secrets are taken over TLS only"));
        }
        let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let form = Form::read(kind, body).map_err(Failure::request)?;
        let client = self.authenticate(headers, peer.remote.ip(), &form).await?;
        match form.of("grant_type") {
            Some("client_credentials") => {}
            Some(_) => return Err(Failure::bad("unsupported_grant_type", "client_credentials is the only one")),
            None => return Err(Failure::request("grant_type is missing")),
        }
        let scope = match form.of("scope") {
            // §3.3: a default that is documented.
            None => client.scopes.join(" "),
            Some(asked) if asked.split(' ').all(|s| client.scopes.iter().any(|has| has == s)) => asked.to_owned(),
            Some(_) => return Err(Failure::bad("invalid_scope", "holds a scope that the client does not have")),
        };
        Ok((client, scope))
    }

    /// The client, by exactly one of `client_secret_basic`, `client_secret_post` (§2.3.1) and `private_key_jwt`.
    async fn authenticate(&self, headers: &HeaderMap, address: IpAddr, form: &Form) -> Result<Arc<ApiClient>, Failure> {
        let header = match headers.get_all(header::AUTHORIZATION).iter().collect::<Vec<_>>()[..] {
            [] => None,
            [one] => Some(one),
            _ => return Err(Failure::request("more than one Authorization")),
        };
        let unknown = |description| Failure { basic: header.is_some(), ..Failure::client(description) };
        let (named, secret, assertion) = (form.of("client_id"), form.of("client_secret"), form.of("client_assertion"));
        if [header.is_some(), secret.is_some(), assertion.is_some()].into_iter().filter(|way| *way).count() > 1 {
            return Err(Failure::request("one way of authentication, not two"));
        }
        if assertion.is_some() && form.of("client_assertion_type") != Some(assertion::TYPE) {
            return Err(Failure::request("client_assertion_type is none that is known"));
        }
        let now = unix_now();
        if !self.failures.may_try(address, now) {
            let status = StatusCode::TOO_MANY_REQUESTS;
            return Err(Failure { status, ..unknown("too many wrong secrets came from there: wait a while") });
        }
        let client = match (header, named, secret, assertion) {
            (Some(header), ..) => {
                let mut credentials = basic_credentials(header);
                credentials.retain(|(id, _)| named.is_none_or(|n| n == id));
                credentials.iter().find_map(|(id, secret)| self.known(id, secret, address))
            }
            (None, Some(id), Some(secret), None) => self.known(id, secret, address),
            (None, named, None, Some(token)) => self.proved(token, named, address, now).await,
            _ => return Err(unknown("a client id and secret, or an assertion, are needed")),
        };
        client.ok_or_else(|| {
            self.failures.failed(address, now);
            unknown("no such client, or not its secret")
        })
    }

    /// A client that has a secret, and whose it is.
    fn known(&self, id: &str, secret: &str, address: IpAddr) -> Option<Arc<ApiClient>> {
        let client = self.registry.api_client(id)?;
        let given = Credentials { address: Some(address), basic: Some((id, secret)), certificate: None };
        (client.secret_ha1.is_some() && client.lock().opens(id, &given)).then_some(client)
    }

    /// A client that has keys, and signed this.
    async fn proved(&self, token: &str, named: Option<&str>, address: IpAddr, now: u64) -> Option<Arc<ApiClient>> {
        let assertion = Assertion::read(token)?;
        let client = self.registry.api_client(assertion.client())?;
        let near = client.allow_from.is_empty() || client.allow_from.iter().any(|block| block.contains(address));
        let may = near && !client.jwks_uri.is_empty() && named.is_none_or(|n| n == client.id);
        (may && self.assertions.prove(&assertion, &client.jwks_uri, now).await).then_some(client)
    }

    async fn answer(&self, headers: &HeaderMap, peer: Peer, body: &[u8]) -> Response {
        let mut response = match self.grant(headers, peer, body).await {
            Ok((client, scope)) => {
                *self.counts.lock().entry("granted").or_default() += 1;
                let exp = unix_now() + u64::from(self.lifetime);
                let claims = Claims { sub: client.id.clone(), scope, exp, key: self.key_of(&client) };
                Json(json!({
                    "access_token": self.seal(&claims),
                    "token_type": "Bearer",
                    "expires_in": self.lifetime,
                    "scope": claims.scope,
                }))
                .into_response()
            }
            Err(failure) => {
                *self.counts.lock().entry(failure.error).or_default() += 1;
                failure.into_response()
            }
        };
        // §5.1.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        response
    }
}

/// `POST /oauth2/token`.
pub fn router(tokens: Arc<Tokens>) -> Router {
    Router::new().route("/oauth2/token", post(token)).layer(DefaultBodyLimit::max(MAX_FORM)).with_state(tokens)
}

async fn token(
    State(tokens): State<Arc<Tokens>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match body {
        Ok(body) => tokens.answer(&headers, peer, &body).await,
        Err(rejection) => {
            Failure { status: rejection.status(), ..Failure::request("the body is not read") }.into_response()
        }
    }
}

impl Failure {
    fn bad(error: &'static str, description: &'static str) -> Failure {
        Failure { status: StatusCode::BAD_REQUEST, error, description, basic: false }
    }

    fn request(description: &'static str) -> Failure {
        Failure::bad("invalid_request", description)
    }

    fn client(description: &'static str) -> Failure {
        Failure { status: StatusCode::UNAUTHORIZED, ..Failure::bad("invalid_client", description) }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "error_description": self.description });
        let mut response = (self.status, Json(body)).into_response();
        // §5.2: where the client tried that header.
        if self.status == StatusCode::UNAUTHORIZED && self.basic {
            let challenge = HeaderValue::from_static("Basic realm=\"oauth2\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, Failures::PAUSE.into());
        }
        response
    }
}

/// Client id and secret of HTTP Basic: as they stand, and decoded. §2.3.1 has clients form-encode each before, which many do not.
fn basic_credentials(value: &HeaderValue) -> Vec<(String, String)> {
    let Some(text) = value.to_str().ok().and_then(super::smsgw::basic_of) else { return Vec::new() };
    let Some((id, secret)) = text.split_once(':') else { return Vec::new() };
    let decoded = form::decode(id).zip(form::decode(secret));
    let plain = (id.to_owned(), secret.to_owned());
    let differs = decoded.filter(|d| *d != plain);
    [Some(plain), differs].into_iter().flatten().collect()
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Longest token that is looked at.
const MAX_TOKEN: usize = 8 * 1024;
/// Largest request, in bytes.
const MAX_FORM: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;
    use gw_sms::registry::{Change, Kind};

    use super::*;

    fn tokens(secret: &str, scopes: &str) -> Tokens {
        let registry = Arc::new(Registry::default());
        register(&registry, secret, scopes);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let client = crate::http::client::Client::new(Arc::new(config));
        Tokens::new(registry, &[7; 32], Assertions::new(client, "https://sms.test/"), (600, false))
    }

    /// Nothing here waits for anybody.
    fn now<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn register(registry: &Registry, secret: &str, scopes: &str) {
        let json = format!(r#"{{"id":"crm","secret":"{secret}","scopes":[{scopes}]}}"#);
        let entry = serde_json::from_str::<ApiClient>(&json).unwrap().entry().unwrap();
        registry.apply(&Change { sequence: 1, kind: Kind::ApiClient, key: "crm".into(), body: Some(entry.body) });
    }

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !authorization.is_empty() {
            headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        }
        headers.insert(header::CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        headers
    }

    fn peer(remote: &str, secure: bool) -> Peer {
        Peer { remote: remote.parse().unwrap(), local: "127.0.0.1:1".parse().unwrap(), secure, certificate: None }
    }

    fn ask(tokens: &Tokens, authorization: &str, body: &str) -> Result<String, (u16, &'static str)> {
        let granted = now(tokens.grant(&headers(authorization), peer("127.0.0.1:9", false), body.as_bytes()));
        granted.map(|(_, scope)| scope).map_err(|f| (f.status.as_u16(), f.error))
    }

    #[test]
    fn both_ways_of_authentication_and_every_error() {
        let tokens = tokens("s:% e", r#""a","b""#);
        // id and secret are form-encoded before they become Basic.
        let basic = format!("Basic {}", BASE64_STANDARD.encode("crm:s%3A%25+e"));
        let grant = "grant_type=client_credentials";
        assert_eq!(ask(&tokens, &basic, grant), Ok("a b".into()));
        // Or not.
        let raw = format!("Basic {}", BASE64_STANDARD.encode("crm:s:% e"));
        assert_eq!(ask(&tokens, &raw, grant), Ok("a b".into()));
        assert_eq!(ask(&tokens, &basic, &format!("{grant}&scope=b&client_id=crm&scope_=")), Ok("b".into()));
        assert_eq!(ask(&tokens, "", &format!("{grant}&client_id=crm&client_secret=s%3A%25%20e")), Ok("a b".into()));
        for (authorization, body, expected) in [
            ("", grant.to_owned(), (401, "invalid_client")),
            (&basic, format!("{grant}&client_secret=s"), (400, "invalid_request")),
            (&basic, format!("{grant}&client_id=other"), (401, "invalid_client")),
            (&basic, format!("{grant}&{grant}"), (400, "invalid_request")),
            (&basic, "grant_type=".to_owned(), (400, "invalid_request")),
            (&basic, "grant_type=password".to_owned(), (400, "unsupported_grant_type")),
            (&basic, format!("{grant}&scope=c"), (400, "invalid_scope")),
            (&basic, format!("{grant}&scope=a++b"), (400, "invalid_scope")),
            (&basic, format!("{grant}&scope=%zz"), (400, "invalid_request")),
            ("Bearer x", grant.to_owned(), (401, "invalid_client")),
            ("Basic Y3JtOng=", grant.to_owned(), (401, "invalid_client")),
        ] {
            assert_eq!(ask(&tokens, authorization, &body), Err(expected), "{authorization} {body}");
        }
    }

    #[test]
    fn secrets_are_not_taken_in_clear_from_afar() {
        let tokens = tokens("s", "");
        let ask = |remote, secure| {
            let body = b"grant_type=client_credentials&client_id=crm&client_secret=s";
            now(tokens.grant(&headers(""), peer(remote, secure), body)).is_ok()
        };
        assert!(ask("127.0.0.1:1", false) && ask("[::1]:1", false) && ask("192.0.2.1:1", true));
        assert!(!ask("192.0.2.1:1", false));
    }

    #[test]
    fn guessing_ends_soon() {
        let tokens = tokens("s", "");
        let mut last = 0;
        for _ in 0..40 {
            last = ask(&tokens, "Basic Y3JtOng=", "grant_type=client_credentials").unwrap_err().0;
        }
        assert_eq!(last, 429);
        // The right one would not be heard now either, or guessing would go on.
        assert_eq!(ask(&tokens, "Basic Y3JtOnM=", "grant_type=client_credentials").unwrap_err().0, 429);
    }

    #[test]
    fn a_token_is_good_while_the_client_is_as_it_was() {
        let tokens = tokens("s", r#""a","b""#);
        let client = tokens.registry.api_client("crm").unwrap();
        let claims = |exp| Claims { sub: "crm".into(), scope: "a".into(), exp, key: tokens.key_of(&client) };
        let token = tokens.seal(&claims(u64::MAX));
        let with = |token: &str, scope| {
            tokens
                .authorise(&headers(&format!("Bearer {token}")), scope)
                .map(|c| c.id.clone())
                .map_err(|r| r.status.as_u16())
        };
        assert_eq!((with(&token, "a"), with(&token, "b")), (Ok("crm".into()), Err(403)));
        assert_eq!(with(&tokens.seal(&claims(1)), "a"), Err(401));
        assert_eq!(
            (with("", "a"), with(&token[1..], "a"), with(&format!("{token}A"), "a")),
            (Err(401), Err(401), Err(401))
        );
        register(&tokens.registry, "s", r#""b""#);
        assert_eq!(with(&token, "a"), Err(403), "the scope was taken away");
        register(&tokens.registry, "another", r#""a""#);
        assert_eq!(with(&token, "a"), Err(401), "the secret was changed");
    }
}
