//! `/history/`: what a user said and was told, for the user alone (docs/history.md).

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use media_content::info::{self, FILE_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};
use sip_ims::history::{HistoryEntry, HistoryId, HistoryPart};
use sip_ims::{Aor, answer};
use sip_messaging::History;

use super::Peer;
use super::authentication::{Authentication, Refusal};
use super::problem::Problem;
use super::rate::Rates;
use crate::config;

const ROOT: &str = "/history/";
/// Messages of a page, unless the client says, and at most.
const PAGE: u32 = 50;
const MAX_PAGE: u32 = 200;
/// Longest URI of a peer, in bytes.
const MAX_PEER: usize = 512;

struct Door {
    history: Arc<History>,
    authentication: Arc<Authentication>,
    rates: Rates,
}

/// The door; none where nobody proves who they are, or nothing is kept.
pub fn open(history: Arc<History>, authentication: Option<Arc<Authentication>>, settings: &config::History) -> Router {
    let Some(authentication) = authentication.filter(|_| settings.max_days > 0) else { return Router::new() };
    let rates = Rates::new(settings.rate, settings.rate.saturating_mul(100));
    Router::new()
        .route(ROOT, get(page).delete(forget_part))
        .route("/history/{id}", get(one).delete(forget_one))
        .with_state(Arc::new(Door { history, authentication, rates }))
}

/// What of a history a request is about. A key that is not known is an error: a DELETE with a misspelt one would take more than was
/// meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    peer: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    peer: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

type Caller = (State<Arc<Door>>, ConnectInfo<Peer>);

/// `GET /history/`: a page, the youngest first.
async fn page(
    (State(door), ConnectInfo(peer)): Caller,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
    parts: Parts,
) -> Result<Response, Refusal> {
    let owner = door.owner(&peer, &parts).await?;
    let Query(Asked { peer, since, until, limit, cursor }) = asked.map_err(|e| bad(e.body_text()))?;
    let part = door.part(owner, Which { peer, since, until })?;
    let limit = limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(bad(format!("limit is not between 1 and {MAX_PAGE}")));
    }
    let before = cursor.map(|text| position(&text).ok_or_else(|| bad("not a cursor of ours"))).transpose()?;
    let (done, found) = answer();
    // One more than is shown: whether there is another page.
    door.history.store().page(part, before, limit + 1, done);
    let mut found = found.await.map_err(Problem::from)?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let messages: Vec<Value> = found.iter().map(|(id, entry)| shown(*id, entry)).collect();
    let mut told = json!({ "messages": messages });
    if let Some((id, entry)) = found.last().filter(|_| more) {
        told["next"] = cursor_of(*id, entry).into();
    }
    Ok(json(&told))
}

/// `DELETE /history/`: all, or a part.
async fn forget_part(
    (State(door), ConnectInfo(peer)): Caller,
    which: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
    parts: Parts,
) -> Result<Response, Refusal> {
    let owner = door.owner(&peer, &parts).await?;
    let Query(which) = which.map_err(|e| bad(e.body_text()))?;
    let removed = door.forget(door.part(owner, which)?).await?;
    Ok(json(&json!({ "removed": removed })))
}

/// `GET /history/{id}`.
async fn one(
    (State(door), ConnectInfo(peer)): Caller,
    Path(id): Path<String>,
    parts: Parts,
) -> Result<Response, Refusal> {
    let owner = door.owner(&peer, &parts).await?;
    let part = HistoryPart { id: Some(id_of(&id)?), ..HistoryPart::of(owner) };
    let (done, found) = answer();
    door.history.store().page(part, None, 1, done);
    match found.await.map_err(Problem::from)?.first() {
        Some((id, entry)) => Ok(json(&shown(*id, entry))),
        None => Err(Problem::not_found("message").into()),
    }
}

/// `DELETE /history/{id}`.
async fn forget_one(
    (State(door), ConnectInfo(peer)): Caller,
    Path(id): Path<String>,
    parts: Parts,
) -> Result<Response, Refusal> {
    let owner = door.owner(&peer, &parts).await?;
    match door.forget(HistoryPart { id: Some(id_of(&id)?), ..HistoryPart::of(owner) }).await? {
        0 => Err(Problem::not_found("message").into()),
        _ => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

impl Door {
    async fn owner(&self, peer: &Peer, parts: &Parts) -> Result<Aor, Refusal> {
        let user = self.authentication.user(peer, &parts.method, &parts.uri, &parts.headers).await;
        let user = user.map_err(|denied| Refusal::of(denied, later()))?;
        if self.rates.admits(&user.id) { Ok(user.aor.clone()) } else { Err(later()) }
    }

    fn part(&self, owner: Aor, which: Which) -> Result<HistoryPart, Refusal> {
        let Which { peer, since, until } = which;
        if peer.as_ref().is_some_and(|peer| peer.is_empty() || peer.len() > MAX_PEER || peer.contains('\0')) {
            return Err(bad("peer is not a URI"));
        }
        Ok(HistoryPart {
            peer: peer.map(|peer| self.history.peer(&peer)),
            since: since.map_or(Ok(i64::MIN), |text| moment(&text))?,
            until: until.map_or(Ok(i64::MAX), |text| moment(&text))?,
            ..HistoryPart::of(owner)
        })
    }

    async fn forget(&self, part: HistoryPart) -> Result<u64, Refusal> {
        let (done, removed) = answer();
        self.history.store().remove(part, done);
        Ok(removed.await.map_err(Problem::from)?)
    }
}

/// A message as clients read it.
fn shown(id: HistoryId, entry: &HistoryEntry) -> Value {
    let HistoryEntry { peer, speaker, outgoing, at, media_type, message_id, body, .. } = entry;
    let mut told = json!({
        "id": id.0.to_string(),
        "time": time(*at),
        "direction": if *outgoing { "out" } else { "in" },
        "peer": peer,
        "content_type": media_type,
    });
    for (key, text) in [("speaker", speaker), ("message_id", message_id)] {
        if !text.is_empty() {
            told[key] = text.as_str().into();
        }
    }
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if let Some(file) = info::linked(body).filter(|_| essence.eq_ignore_ascii_case(FILE_TYPE)) {
        let info::Linked { url, name, media_type, size, until } = file;
        told["file"] = json!({ "url": url, "name": name, "content_type": media_type, "size": size, "until": until });
        return told;
    }
    match std::str::from_utf8(body) {
        Ok(text) => told["text"] = text.into(),
        Err(_) => told["base64"] = STANDARD.encode(body).into(),
    }
    told
}

/// Milliseconds since 1970.
fn moment(text: &str) -> Result<i64, Refusal> {
    let read = text.parse::<Timestamp>().map(Timestamp::as_millisecond);
    read.map_err(|_| bad("since and until are times like 2026-11-27T11:46:40Z (RFC 3339)"))
}

/// RFC 3339, in UTC, to the millisecond.
fn time(at: i64) -> String {
    let at = Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

fn id_of(text: &str) -> Result<HistoryId, Refusal> {
    let id = text.parse().ok().filter(|id| i64::try_from(*id).is_ok());
    id.map(HistoryId).ok_or_else(|| Problem::not_found("message").into())
}

fn cursor_of(id: HistoryId, entry: &HistoryEntry) -> String {
    URL_SAFE_NO_PAD.encode([entry.at.to_be_bytes(), id.0.to_be_bytes()].concat())
}

fn position(cursor: &str) -> Option<(i64, HistoryId)> {
    let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?;
    let (at, id) = bytes.split_first_chunk::<8>()?;
    Some((i64::from_be_bytes(*at), HistoryId(u64::from_be_bytes(id.try_into().ok()?))))
}

fn json(value: &Value) -> Response {
    // What somebody said is nobody else's, caches' neither.
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "private, no-store")];
    (headers, value.to_string()).into_response()
}

fn bad(why: impl Into<String>) -> Refusal {
    Problem::new(StatusCode::BAD_REQUEST, why).into()
}

fn later() -> Refusal {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too much at once").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(media_type: &str, body: &[u8]) -> HistoryEntry {
        HistoryEntry {
            owner: "alice@example.com".parse().unwrap(),
            peer: "sip:bob@example.com".into(),
            speaker: String::new(),
            outgoing: true,
            at: 1_795_780_000_042,
            key: [0; 16],
            media_type: media_type.into(),
            message_id: String::new(),
            body: body.into(),
            expires_at: 0,
        }
    }

    #[test]
    fn text_is_text_and_the_rest_is_base64() {
        let text = shown(HistoryId(7), &entry("text/plain", "grüß dich".as_bytes()));
        let expected = json!({
            "id": "7", "time": "2026-11-27T11:46:40.042Z", "direction": "out", "peer": "sip:bob@example.com",
            "content_type": "text/plain", "text": "grüß dich",
        });
        assert_eq!(text, expected);
        assert_eq!(shown(HistoryId(7), &entry("image/gif", b"\xff\0"))["base64"], "/wA=");
    }

    #[test]
    fn a_cursor_is_read_as_it_was_made() {
        let entry = entry("text/plain", b"");
        assert_eq!(position(&cursor_of(HistoryId(9), &entry)), Some((entry.at, HistoryId(9))));
        for bad in ["", "AAAA", "not a cursor"] {
            assert_eq!(position(bad), None, "{bad}");
        }
    }
}
