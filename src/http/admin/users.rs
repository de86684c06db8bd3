//! `/admin/v1/users`: the same entries as in a provisioning file, as JSON.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use sip_ims::{User, answer};

use super::Admin;
use crate::http::problem::Problem;
use crate::provision::UserEntry;

/// One page of a list.
#[derive(Deserialize)]
pub(super) struct Page {
    /// The last id of the page before.
    #[serde(default)]
    after: String,
    /// 1 to 1,000.
    #[serde(default = "hundred")]
    limit: usize,
}

fn hundred() -> usize {
    100
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Query(page): Query<Page>) -> Json<Value> {
    let mut users = Vec::new();
    admin.directory.for_each(|user| {
        if *user.id > *page.after {
            users.push(user.clone());
        }
    });
    users.sort_by(|a, b| a.id.cmp(&b.id));
    users.truncate(page.limit.clamp(1, 1_000));
    Json(json!({ "users": users.iter().map(|u| shown(u)).collect::<Vec<_>>() }))
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    admin.directory.by_id(&id).map(|u| Json(shown(&u))).ok_or_else(|| Problem::not_found("user"))
}

pub(super) async fn create(
    State(admin): State<Arc<Admin>>,
    entry: Result<Json<UserEntry>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Json(entry) = entry.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    if admin.directory.by_id(&entry.id).is_some() {
        return Err(Problem::new(StatusCode::CONFLICT, "there is such a user already"));
    }
    store(&admin, &entry).await.map(|user| (StatusCode::CREATED, Json(user)))
}

pub(super) async fn replace(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    entry: Result<Json<UserEntry>, JsonRejection>,
) -> Result<Json<Value>, Problem> {
    let Json(entry) = entry.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    if entry.id != id {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "id: differs from the address"));
    }
    store(&admin, &entry).await.map(Json)
}

pub(super) async fn remove(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let (done, removed) = answer();
    admin.users.remove(&id, done);
    if removed.await? { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("user")) }
}

async fn store(admin: &Admin, entry: &UserEntry) -> Result<Value, Problem> {
    let user = entry
        .user(&admin.domain)
        .map_err(|(key, text)| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{key}: {text}")))?;
    let value = shown(&user);
    let (done, stored) = answer();
    admin.users.put(vec![user], done);
    stored.await?;
    Ok(value)
}

/// A user as operators see one: everything but the secrets.
fn shown(user: &User) -> Value {
    json!({
        "id": &*user.id,
        "uri": format!("sip:{}", user.aor),
        "msisdn": user.msisdn.map(|n| n.to_string()),
        "email": user.email.as_deref(),
        "jid": user.jid.as_deref(),
        "roles": user.roles,
        "call_settings": user.call_settings,
        "history_days": user.history_days,
        "aka": user.secrets.aka.is_some(),
    })
}
