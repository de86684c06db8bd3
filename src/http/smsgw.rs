//! `/smsgw/`: the push interface (docs/smsgw.md). HTTP here, everything else in `gw-sms`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use gw_sms::push::message::MAX_BODY;
use gw_sms::push::service::PushService;
use gw_sms::registry::Credentials;

use super::Peer;
use super::problem::Problem;

/// `POST /smsgw/`, and without the slash, which clients forget.
pub fn router(service: Arc<PushService>) -> Router {
    Router::new()
        .route("/smsgw/", post(push))
        .route("/smsgw", post(push))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(service)
}

async fn push(
    State(service): State<Arc<PushService>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    if !is_xml(&headers) {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be XML in UTF-8"));
    }
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    let basic = basic(&headers);
    let credentials = Credentials {
        address: Some(peer.remote.ip()),
        basic: basic.as_deref().and_then(|b| b.split_once(':')),
        certificate: peer.certificate,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    let reply = service.handle(&body, &credentials, now).await;
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(header::CONTENT_TYPE, "text/xml; charset=UTF-8")], reply.body).into_response();
    if let Some(seconds) = reply.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    Ok(response)
}

/// `text/xml`, `application/xml`, `…+xml`, or nothing said; in UTF-8.
fn is_xml(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let Ok(value) = value.to_str() else { return false };
    let value = value.to_ascii_lowercase();
    let (kind, parameters) = value.split_once(';').unwrap_or((&value, ""));
    let kind = kind.trim();
    let charset = parameters.split(';').find_map(|p| p.trim().strip_prefix("charset="));
    let utf8 = charset.is_none_or(|c| matches!(c.trim_matches('"'), "utf-8" | "us-ascii"));
    utf8 && (kind == "text/xml" || kind == "application/xml" || kind.ends_with("+xml"))
}

/// `user:password` of HTTP Basic.
pub fn basic(headers: &HeaderMap) -> Option<String> {
    basic_of(headers.get(header::AUTHORIZATION)?.to_str().ok()?)
}

/// `user:password` of the value of an Authorization header (RFC 7617 §2).
pub fn basic_of(value: &str) -> Option<String> {
    let (scheme, token) = value.split_once(' ')?;
    let bytes = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(token.trim()).ok()).flatten()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_in_utf8_is_taken_and_nothing_else() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            is_xml(&headers)
        };
        assert!(is_xml(&HeaderMap::new()));
        for good in ["text/xml", "application/xml; charset=\"UTF-8\"", "Text/XML;charset=utf-8", "application/x+xml"] {
            assert!(with(good), "{good}");
        }
        for bad in ["application/json", "text/xml; charset=shift_jis", "application/x-www-form-urlencoded", "xml"] {
            assert!(!with(bad), "{bad}");
        }
    }

    #[test]
    fn basic_credentials_are_decoded() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "basic MTI6YTpi".parse().unwrap());
        assert_eq!(basic(&headers).as_deref(), Some("12:a:b"));
        headers.insert(header::AUTHORIZATION, "Bearer MTI6YTpi".parse().unwrap());
        assert_eq!(basic(&headers), None);
    }
}
