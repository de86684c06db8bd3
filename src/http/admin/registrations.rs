//! `/admin/v1/push_clients`, `/admin/v1/api_clients`, `/admin/v1/lines`, `/admin/v1/filters`: the same entries as in a provisioning file, as JSON.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use gw_sms::registry::{ApiClient, Entry, Kind, Line, PushClient};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sip_ims::criteria::Rule;
use sip_ims::ports::StoreError;
use sip_ims::{Msisdn, answer};

use super::Admin;
use crate::http::problem::Problem;
use crate::provision;

fn kind(name: &str) -> Result<Kind, Problem> {
    match name {
        "push_clients" => Ok(Kind::PushClient),
        "api_clients" => Ok(Kind::ApiClient),
        "lines" => Ok(Kind::Line),
        "filters" => Ok(Kind::Filter),
        _ => Err(Problem::not_found("address")),
    }
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let registry = &admin.registry;
    let all: Vec<Value> = match kind(&name)? {
        Kind::PushClient => registry.push_clients().iter().map(|c| shown(&**c)).collect(),
        Kind::ApiClient => registry.api_clients().iter().map(|c| shown(&**c)).collect(),
        Kind::Line => registry.lines().iter().map(|(number, l)| line(*number, l)).collect(),
        Kind::Filter => registry.filters().rules().iter().map(filter).collect(),
    };
    Ok(Json(json!({ name: all })))
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path((name, key)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let registry = &admin.registry;
    let found = match kind(&name)? {
        Kind::PushClient => registry.push_client(&key).map(|c| shown(&*c)),
        Kind::ApiClient => registry.api_client(&key).map(|c| shown(&*c)),
        Kind::Filter => registry.filters().rules().iter().find(|rule| rule.key() == key).map(filter),
        Kind::Line => {
            let number = key.parse::<Msisdn>().ok();
            number.and_then(|n| registry.line(n).map(|l| line(n, &l)))
        }
    };
    found.map(Json).ok_or_else(|| Problem::not_found("entry"))
}

fn filter(rule: &Rule) -> Value {
    json!({ "key": rule.key(), "rule": rule })
}

/// Adds or replaces. It is served within a second.
pub(super) async fn put(
    State(admin): State<Arc<Admin>>,
    Path((name, key)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let entry = match kind(&name)? {
        Kind::PushClient => read::<PushClient>(&body)?.entry(),
        Kind::ApiClient => read::<ApiClient>(&body)?.entry(),
        Kind::Line => read::<provision::Line>(&body)?.registration(),
        Kind::Filter => provision::filter_entry(read::<Rule>(&body)?, &admin.domain),
    };
    let entry: Entry =
        entry.map_err(|(key, text)| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{key}: {text}")))?;
    if entry.key != key {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the entry's key differs from the address"));
    }
    let (done, stored) = answer();
    admin.registrations.put(vec![entry], done);
    match stored.await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(StoreError::OverQuota) => {
            Err(Problem::new(StatusCode::CONFLICT, "a number would be tied to more than ten push clients"))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn remove(
    State(admin): State<Arc<Admin>>,
    Path((name, key)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (done, gone) = answer();
    admin.registrations.remove(kind(&name)?, &key, done);
    if gone.await? { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("entry")) }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|e| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, e.to_string()))
}

/// A client without its secret.
fn shown<C: Serialize>(client: &C) -> Value {
    let mut shown = serde_json::to_value(client).unwrap_or_default();
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("secret_ha1");
    }
    shown
}

fn line(number: Msisdn, line: &Line) -> Value {
    let mut shown = serde_json::to_value(line).unwrap_or_default();
    shown["msisdn"] = number.to_string().into();
    shown
}
