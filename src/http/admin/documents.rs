//! `/admin/v1/users/ID/documents/USAGE/NAME`: a user's documents, by XCAP application usage.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sip_ims::answer;
use sip_ims::ports::{Expect, StoreError, Version};
use sip_presence::lists::{LISTS, Lists};
use sip_presence::rules::Rules;
use sip_presence::{RULES, key_of};

use super::Admin;
use crate::http::problem::Problem;
use crate::presence::announce_document;

type Place = (String, String, String);

/// The usage and the key of a document of a user there is.
fn place(admin: &Admin, (id, usage, name): Place) -> Result<(String, String), Problem> {
    let user = admin.directory.by_id(&id).ok_or_else(|| Problem::not_found("user"))?;
    // Others come with XCAP.
    if !(RULES.contains(&&*usage) || LISTS.contains(&&*usage)) || name.is_empty() || name.len() > MAX_NAME {
        return Err(Problem::not_found("document"));
    }
    Ok((usage, key_of(&user.aor, &name)))
}

/// Bytes in a document's name.
const MAX_NAME: usize = 128;

pub(super) async fn show(State(admin): State<Arc<Admin>>, Path(path): Path<Place>) -> Result<Response, Problem> {
    let (usage, key) = place(&admin, path)?;
    let (done, found) = answer();
    admin.documents.get(&usage, &key, done);
    let document = found.await?.ok_or_else(|| Problem::not_found("document"))?;
    let headers = [(header::ETAG, tag(document.version)), (header::CONTENT_TYPE, media_type(&usage).into())];
    Ok((headers, document.body).into_response())
}

/// Adds or replaces. Watchers are judged by it at once.
pub(super) async fn put(
    State(admin): State<Arc<Admin>>,
    Path(path): Path<Place>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let (usage, key) = place(&admin, path)?;
    let read = match RULES.contains(&&*usage) {
        true => Rules::parse(&body).map(drop).map_err(|error| error.to_string()),
        false => Lists::parse(&body).map(drop).map_err(|error| error.to_string()),
    };
    read.map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error))?;
    let (done, stored) = answer();
    admin.documents.put(&usage, &key, expected(&headers)?, body.to_vec(), done);
    let version = stored.await.map_err(refused)?;
    announce_document(&*admin.bus, &usage, &key);
    Ok((StatusCode::NO_CONTENT, [(header::ETAG, tag(version))]).into_response())
}

pub(super) async fn remove(
    State(admin): State<Arc<Admin>>,
    Path(path): Path<Place>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let (usage, key) = place(&admin, path)?;
    let (done, gone) = answer();
    admin.documents.delete(&usage, &key, expected(&headers)?, done);
    gone.await.map_err(refused)?;
    announce_document(&*admin.bus, &usage, &key);
    Ok(StatusCode::NO_CONTENT)
}

fn media_type(usage: &str) -> &'static str {
    match usage {
        "resource-lists" => "application/resource-lists+xml",
        "rls-services" => "application/rls-services+xml",
        _ => "application/auth-policy+xml",
    }
}

fn tag(version: Version) -> String {
    format!("\"{:x}\"", version.0)
}

/// RFC 9110 §13.1, as far as one tag.
fn expected(headers: &HeaderMap) -> Result<Expect, Problem> {
    let value = |name| headers.get(name).and_then(|v| v.to_str().ok());
    if value(header::IF_NONE_MATCH) == Some("*") {
        return Ok(Expect::Absent);
    }
    let Some(tag) = value(header::IF_MATCH).filter(|t| *t != "*") else { return Ok(Expect::Anything) };
    let number =
        tag.trim().strip_prefix('"').and_then(|t| t.strip_suffix('"')).and_then(|t| u64::from_str_radix(t, 16).ok());
    // A tag that is not of our making cannot match.
    number.map(|n| Expect::Version(Version(n))).ok_or_else(|| refused(StoreError::Conflict))
}

fn refused(error: StoreError) -> Problem {
    match error {
        StoreError::Conflict => Problem::new(StatusCode::PRECONDITION_FAILED, "the document is another one by now"),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_back() {
        let mut headers = HeaderMap::new();
        assert_eq!(expected(&headers).ok(), Some(Expect::Anything));
        headers.insert(header::IF_MATCH, tag(Version(0x1f)).parse().unwrap());
        assert_eq!(expected(&headers).ok(), Some(Expect::Version(Version(0x1f))));
        headers.insert(header::IF_MATCH, "W/\"x\"".parse().unwrap());
        assert!(expected(&headers).is_err());
        headers.insert(header::IF_NONE_MATCH, "*".parse().unwrap());
        assert_eq!(expected(&headers).ok(), Some(Expect::Absent));
    }
}
