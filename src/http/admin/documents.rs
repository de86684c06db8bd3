//! `/admin/v1/users/ID/documents/USAGE/NAME`: a user's documents, by XCAP application usage. What XCAP would not take is not taken here.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sip_presence::key_of;
use sip_xcap::usage;

use super::Admin;
use crate::http::etag::Conditions;
use crate::http::problem::Problem;
use crate::xcap::{No, Resource, Seat, Wish};

type Place = (String, String, String);

/// A document of a user there is.
fn seat(admin: &Admin, (id, usage, name): Place) -> Result<Seat, Problem> {
    let owner = admin.directory.by_id(&id).ok_or_else(|| Problem::not_found("user"))?;
    let found = usage::find(&usage).and_then(|usage| Some((usage, usage.stored()?)));
    let (usage, stored) = found.ok_or_else(|| Problem::not_found("document"))?;
    if name.is_empty() || name.len() > MAX_NAME || name.contains('/') {
        return Err(Problem::not_found("document"));
    }
    Ok(Seat { usage, stored, key: key_of(&owner.aor, &name), owner, name })
}

/// Bytes in a document's name.
const MAX_NAME: usize = 128;

pub(super) async fn show(State(admin): State<Arc<Admin>>, Path(path): Path<Place>) -> Result<Response, Problem> {
    let found = admin.xcap.read(&Resource::Stored(seat(&admin, path)?)).await.map_err(refused)?;
    let document = found.ok_or_else(|| Problem::not_found("document"))?;
    let headers = [(header::ETAG, document.tag), (header::CONTENT_TYPE, document.media_type.to_owned())];
    Ok((headers, document.body).into_response())
}

/// Adds or replaces. Watchers are judged by it at once.
pub(super) async fn put(
    State(admin): State<Arc<Admin>>,
    Path(path): Path<Place>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let seat = seat(&admin, path)?;
    let changed = admin.xcap.change(&seat, &Conditions::of(&headers), Wish::Put(&body)).await.map_err(refused)?;
    let tag = changed.tag.unwrap_or_default();
    Ok((StatusCode::NO_CONTENT, [(header::ETAG, tag)]).into_response())
}

/// One that is not there is gone as well.
pub(super) async fn remove(
    State(admin): State<Arc<Admin>>,
    Path(path): Path<Place>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    match admin.xcap.change(&seat(&admin, path)?, &Conditions::of(&headers), Wish::Delete).await {
        Ok(_) | Err(No::NotFound) => Ok(StatusCode::NO_CONTENT),
        Err(no) => Err(refused(no)),
    }
}

fn refused(no: No) -> Problem {
    match no {
        No::Precondition => Problem::new(StatusCode::PRECONDITION_FAILED, no.to_string()),
        No::Conflict(conflict) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, conflict.to_string()),
        No::TooLarge => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, no.to_string()),
        No::NotFound | No::ReadOnly => Problem::not_found("document"),
        No::Busy => Problem::new(StatusCode::SERVICE_UNAVAILABLE, no.to_string()),
        No::Store(error) => error.into(),
    }
}
