//! `/api/v1/session`: the portal's sessions, by which a browser's user is known (docs/sessions.md).
//!
//! The browser has a cookie: whose session, 128 bits drawn at random, and a seal that only the nodes of this cluster can make, so that a cookie
//! of a stranger's making costs no look into the store. The store has a document for each user with the sessions that are open, each known by
//! what the cookie's secret and the user's password make together: a copy of the store opens no session, and a new password ends them all.

pub mod cookie;
pub mod held;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use sip_ims::ports::{Documents, Expect, StoreError, Version};
use sip_ims::{Directory, User, answer};
use subtle::ConstantTimeEq;

use self::cookie::{Secret, Token};
use self::held::{Limits, Session};
use super::Peer;
use super::digest::{Digest, WrongPassword};
use super::origin::{Origin, may_use_cookie};
use super::problem::Problem;
use crate::app::unix_now;
use crate::config;
use crate::secrets::{hex, mac, random};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Family;

/// Of a challenge: none that a browser knows, so it does not ask its user.
pub const SCHEME: &str = "Cookie";
/// Keys are ids of users.
const COLLECTION: &str = "sessions";
/// Attempts of a change that others get in the way of.
const ATTEMPTS: usize = 16;
/// Bytes of a request: a name and a password, escaped at worst.
const MAX_LOGIN: usize = 4096;
/// How often what is over is looked for, and how many users at once.
const SWEEP: Duration = Duration::from_secs(3600);
const PAGE: u32 = 256;

/// Opens, knows and ends sessions.
pub struct Sessions {
    digest: Arc<Digest>,
    directory: Arc<Directory>,
    documents: Arc<dyn Documents>,
    key: [u8; 32],
    limits: Limits,
    /// Clients know us by `https:` though they come without TLS: a proxy in front has the certificate.
    behind_tls: bool,
    logins: Mutex<BTreeMap<&'static str, u64>>,
}

/// Whose session a request belongs to.
pub struct Known {
    pub user: Arc<User>,
    pub session: Session,
}

/// A session's cookie came from another page than ours, with what changes something.
pub struct Foreign;

impl Sessions {
    /// `secret`: what all nodes share.
    pub fn new(
        digest: Arc<Digest>,
        directory: Arc<Directory>,
        documents: Arc<dyn Documents>,
        secret: &[u8; 32],
        config: &config::Portal,
    ) -> Sessions {
        let config::Portal { session_idle, session_lifetime, sessions_per_user, plain } = *config;
        let limits = Limits { idle: session_idle, lifetime: session_lifetime, per_user: sessions_per_user };
        let key = mac(secret, b"isthmus portal session");
        Sessions { digest, directory, documents, key, limits, behind_tls: plain, logins: Mutex::default() }
    }

    /// Whose session the cookie of a request names, if it is open. It is in use then.
    pub async fn known(&self, peer: &Peer, headers: &HeaderMap) -> Result<Option<Known>, StoreError> {
        let Some((user, mark)) = self.marked(peer, headers) else { return Ok(None) };
        let (done, found) = answer();
        self.documents.get(COLLECTION, &user.id, done);
        let Some(document) = found.await? else { return Ok(None) };
        let mut sessions = opened(&document.body);
        let now = unix_now();
        let Some(at) = position(&sessions, &mark).filter(|at| self.limits.admit(&sessions[*at], now)) else {
            return Ok(None);
        };
        if self.limits.stale(&sessions[at], now) {
            sessions[at].seen = now;
            let (expect, body) = (Expect::Version(document.version), held::write(&sessions));
            let (done, put) = answer();
            self.documents.put(COLLECTION, &user.id, expect, body, done);
            // Whoever changed it meanwhile has the word; the next request tries again.
            match put.await {
                Ok(_) | Err(StoreError::Conflict) => {}
                Err(error) => tracing::warn!(%error, "that a session is in use is not kept"),
            }
        }
        Ok(Some(Known { user, session: sessions.swap_remove(at) }))
    }

    /// Whether this request may be its cookie's user's doing.
    pub fn may(&self, peer: &Peer, method: &Method, headers: &HeaderMap) -> Result<(), Foreign> {
        if may_use_cookie(method, headers, self.is_tls(peer)) { Ok(()) } else { Err(Foreign) }
    }

    /// Ends all of a user who was removed.
    pub async fn forget(&self, id: &str) -> Result<(), StoreError> {
        let (done, gone) = answer();
        self.documents.delete(COLLECTION, id, Expect::Anything, done);
        gone.await
    }

    /// Removes what is over, now and every hour. Never ends.
    pub async fn keep(self: Arc<Self>) {
        let mut hour = tokio::time::interval(SWEEP);
        loop {
            hour.tick().await;
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "sessions that are over are left");
            }
        }
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let (done, page) = answer();
            self.documents.list(COLLECTION, &after, PAGE, done);
            let page = page.await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.key.clone();
            let now = unix_now();
            for document in page {
                let live = opened(&document.body).iter().any(|s| self.limits.admit(s, now));
                if !live || self.directory.by_id(&document.key).is_none() {
                    let (done, gone) = answer();
                    self.documents.delete(COLLECTION, &document.key, Expect::Version(document.version), done);
                    match gone.await {
                        // One has begun meanwhile.
                        Ok(()) | Err(StoreError::Conflict) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    /// Opens a session: its cookie's value.
    async fn begin(&self, user: &User) -> Result<(String, Session), StoreError> {
        let drawn = random::<16>();
        let secret = Secret { drawn, seal: self.seal(&user.id, &drawn) };
        let (mark, now) = (mark(user, &secret), unix_now());
        self.change(&user.id, |sessions| self.limits.begin(sessions, mark.clone(), now)).await?;
        Ok((Token { user: user.id.to_string(), secret }.write(), Session { mark, since: now, seen: now }))
    }

    async fn end(&self, user: &User, mark: &str) -> Result<(), StoreError> {
        self.change(&user.id, |sessions| sessions.retain(|s| s.mark != mark)).await
    }

    async fn change(&self, id: &str, edit: impl Fn(&mut Vec<Session>)) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS {
            let (done, found) = answer();
            self.documents.get(COLLECTION, id, done);
            let found = found.await?;
            let expect = found.as_ref().map_or(Expect::Absent, |d| Expect::Version(d.version));
            let old = found.map(|d| opened(&d.body)).unwrap_or_default();
            let mut sessions = old.clone();
            edit(&mut sessions);
            if sessions == old {
                return Ok(());
            }
            let (done, put) = answer::<Version>();
            self.documents.put(COLLECTION, id, expect, held::write(&sessions), done);
            match put.await {
                Err(StoreError::Conflict) => {}
                done => return done.map(drop),
            }
        }
        Err(StoreError::Conflict)
    }

    /// The user whom a cookie of ours names, and by what their session is known.
    fn marked(&self, peer: &Peer, headers: &HeaderMap) -> Option<(Arc<User>, String)> {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
        let token = Token::read(cookie::find(lines, self.cookie(peer)?)?)?;
        if !bool::from(self.seal(&token.user, &token.secret.drawn).ct_eq(&token.secret.seal)) {
            return None;
        }
        let user = self.directory.by_id(&token.user)?;
        let mark = mark(&user, &token.secret);
        Some((user, mark))
    }

    fn seal(&self, user: &str, drawn: &[u8; 16]) -> [u8; 16] {
        let whole = mac(&self.key, &[drawn, user.as_bytes()].concat());
        std::array::from_fn(|i| whole[i])
    }

    fn is_tls(&self, peer: &Peer) -> bool {
        peer.secure || self.behind_tls
    }

    /// The cookie's name. Without TLS only on this machine: a name in `__Host-` is for TLS alone, and then no neighbouring host can
    /// write it (RFC 6265bis §4.1.3.2).
    fn cookie(&self, peer: &Peer) -> Option<&'static str> {
        match self.is_tls(peer) {
            true => Some("__Host-isthmus-session"),
            false => peer.remote.ip().to_canonical().is_loopback().then_some("isthmus-session"),
        }
    }

    fn set_cookie(&self, name: &str, value: &str, seconds: u64) -> HeaderValue {
        let secure = if name.starts_with("__Host-") { "; Secure" } else { "" };
        let cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        // Base64url in it, and nothing else of others' making.
        HeaderValue::from_str(&cookie).unwrap_or(HeaderValue::from_static(""))
    }

    fn password(&self, from: IpAddr, login: &Login) -> Result<Arc<User>, Problem> {
        let (outcome, user) = match self.digest.password(from, &login.user, login.password.as_bytes()) {
            Ok(user) => ("granted", Ok(user)),
            Err(WrongPassword::Wrong) => ("wrong", Err(unauthenticated("no such user, or not the user's password"))),
            Err(WrongPassword::Guessing) => {
                let later = "too many wrong passwords came from there: wait a while";
                ("guessing", Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, later)))
            }
        };
        *self.logins.lock().entry(outcome).or_default() += 1;
        user
    }
}

fn opened(body: &[u8]) -> Vec<Session> {
    held::read(body).unwrap_or_else(|| {
        tracing::warn!("a user's sessions cannot be read: they are over");
        Vec::new()
    })
}

/// By what a session is known: nobody has it who has the store alone, or the cookie alone.
fn mark(user: &User, secret: &Secret) -> String {
    hex(&mac(&user.secrets.ha1_sha256, &secret.bytes()))
}

fn position(sessions: &[Session], mark: &str) -> Option<usize> {
    sessions.iter().position(|s| bool::from(s.mark.as_bytes().ct_eq(mark.as_bytes())))
}

/// The door, and its numbers; none where nobody proves who they are.
pub fn open(sessions: Option<Arc<Sessions>>, metrics: &Metrics) -> Router {
    let Some(sessions) = sessions else { return Router::new() };
    let counted = sessions.clone();
    let family = Family::counter("isthmus_portal_logins_total", "Attempts to begin a portal session, by outcome.");
    metrics.source(family, move |s| {
        counted.logins.lock().iter().for_each(|(outcome, n)| s.push(&[("outcome", outcome)], *n as f64));
    });
    Router::new()
        .route("/api/v1/session", post(log_in).get(tell).delete(log_out))
        .layer(DefaultBodyLimit::max(MAX_LOGIN))
        .with_state(sessions)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    user: String,
    password: String,
}

/// `POST`: a form elsewhere cannot send JSON, and a page elsewhere is told by its Origin.
async fn log_in(
    State(sessions): State<Arc<Sessions>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    login: Result<Json<Login>, JsonRejection>,
) -> Result<Response, Problem> {
    let Some(name) = sessions.cookie(&peer) else {
        return Err(Problem::new(StatusCode::FORBIDDEN, "passwords are taken over TLS only"));
    };
    if Origin::of(&headers, sessions.is_tls(&peer)) == Origin::Other {
        return Err(foreign());
    }
    // What was sent is not said again.
    let Json(login) = login.map_err(|e| Problem::new(e.status(), "wanted: {\"user\": \"…\", \"password\": \"…\"}"))?;
    let user = sessions.password(peer.remote.ip(), &login)?;
    let (value, session) = sessions.begin(&user).await?;
    let cookie = sessions.set_cookie(name, &value, sessions.limits.lifetime);
    let told = told(&user, sessions.limits.end(&session));
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], told).into_response())
}

/// `GET`: whose it is.
async fn tell(
    State(sessions): State<Arc<Sessions>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    match sessions.known(&peer, &headers).await? {
        Some(Known { user, session }) => Ok(told(&user, sessions.limits.end(&session))),
        None => Err(unauthenticated("no session")),
    }
}

/// `DELETE`: the end of it, if there is one.
async fn log_out(
    State(sessions): State<Arc<Sessions>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    sessions.may(&peer, &Method::DELETE, &headers).map_err(|Foreign| foreign())?;
    if let Some((user, mark)) = sessions.marked(&peer, &headers) {
        sessions.end(&user, &mark).await?;
    }
    let cookie = sessions.cookie(&peer).map(|name| [(header::SET_COOKIE, sessions.set_cookie(name, "", 0))]);
    Ok((StatusCode::NO_CONTENT, cookie.map(HeaderMap::from_iter).unwrap_or_default()).into_response())
}

fn told(user: &User, end: u64) -> Response {
    let end = i64::try_from(end).ok().and_then(|end| Timestamp::from_second(end).ok()).unwrap_or(Timestamp::MAX);
    let body = json!({
        "user": user.id,
        "address": format!("sip:{}", user.aor.as_str()),
        "roles": user.roles,
        "expires": format!("{end:.0}"),
    });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// 403, where a cookie is not enough.
pub fn foreign() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "a change by cookie needs the same origin, or X-Requested-With where no origin is said",
    )
}

fn unauthenticated(why: &str) -> Problem {
    Problem::unauthenticated(SCHEME, why)
}
