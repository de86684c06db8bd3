//! The operators' listener: health, metrics, and the API behind a Bearer token.

mod documents;
mod mailbox;
mod registrations;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use gw_sms::registry::{Registrations, Registry};
use serde_json::{Value, json};
use sip_ims::ports::{Mailboxes, UserStore};
use sip_ims::service::Location;
use sip_ims::{Aor, Directory, answer};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::telemetry::{Metrics, Trace, TraceId};
use crate::xcap::Xcap;

/// What the admin listener shows and changes.
pub struct Admin {
    pub token: String,
    pub domain: String,
    pub users: Arc<dyn UserStore>,
    pub directory: Arc<Directory>,
    pub registrations: Arc<dyn Registrations>,
    pub registry: Arc<Registry>,
    /// What users keep here.
    pub xcap: Arc<Xcap>,
    pub mailboxes: Arc<dyn Mailboxes>,
    /// `None` until there is a registrar.
    pub location: Option<Arc<dyn Location>>,
    pub metrics: Arc<Metrics>,
    pub trace: Arc<Trace>,
    /// Set when SIGTERM came.
    pub draining: Arc<AtomicBool>,
}

/// The whole listener.
pub fn router(admin: Arc<Admin>) -> Router {
    let api = Router::new()
        .route("/users", get(users::list).post(users::create))
        .route("/users/{id}", get(users::show).put(users::replace).delete(users::remove))
        .route("/users/{id}/bindings", get(bindings))
        .route(
            "/users/{id}/documents/{usage}/{name}",
            get(documents::show).put(documents::put).delete(documents::remove),
        )
        .route("/users/{id}/message-summary", get(mailbox::show).put(mailbox::put))
        .route("/trace/{id}", get(trace))
        .route("/{kind}", get(registrations::list))
        .route("/{kind}/{key}", get(registrations::show).put(registrations::put).delete(registrations::remove))
        .fallback(async || Problem::not_found("address"))
        .layer(middleware::from_fn_with_state(admin.clone(), authorise));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .nest("/admin/v1", api)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .with_state(admin)
}

/// Largest request body, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// RFC 6750 §2.1. The comparison takes the same time for every wrong token of one length.
async fn authorise(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let token = match given.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => "",
    };
    if bool::from(token.as_bytes().ct_eq(admin.token.as_bytes())) {
        next.run(request).await
    } else {
        Problem::unauthenticated("Bearer", "the admin token is needed").into_response()
    }
}

/// Whether new work is welcome: the store answers and nobody asked us to stop.
async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    if admin.draining.load(Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    // Any read proves that the store answers; this one asks for changes of the far future.
    let (done, changes) = answer();
    admin.users.changes(i64::MAX as u64, 1, done);
    match tokio::time::timeout(STORE_PATIENCE, changes).await {
        Ok(Ok(_)) => "ready\n".into_response(),
        Ok(Err(_)) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n").into_response(),
    }
}

const STORE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.exposition()).into_response()
}

/// Where a user can be reached now.
async fn bindings(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let aor = match admin.directory.by_id(&id) {
        Some(user) => user.aor.clone(),
        None => Aor::from_parts(id.as_bytes(), admin.domain.as_bytes()).map_err(|_| Problem::not_found("user"))?,
    };
    let mut found = Vec::new();
    if let Some(location) = &admin.location {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        location.each(aor.as_str(), now, &mut |reach| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            found.push(json!({
                "contact": text(reach.uri),
                "path": text(reach.path),
                "q": f64::from(reach.q) / 1000.0,
                "instance": text(reach.instance),
                "params": text(reach.params),
                "transport": reach.hop.map(|h| h.transport().uri_token()),
                "peer": reach.hop.map(|h| h.remote().to_string()),
            }));
        });
    }
    Ok(Json(json!({ "aor": aor.as_str(), "bindings": found })))
}

/// The events of a trace id or Call-ID that are still in memory.
async fn trace(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Json<Value> {
    let id = TraceId::from_input(&id);
    let events: Vec<Value> = admin
        .trace
        .find(id)
        .iter()
        .map(|e| {
            json!({
                "at": e.at,
                "step": e.step.as_str(),
                "method": e.method.to_string(),
                "status": e.status,
                "transport": e.transport.uri_token(),
                "peer": e.peer.to_string(),
                "line": e.to_string(),
            })
        })
        .collect();
    Json(json!({ "trace": id.to_string(), "events": events }))
}
