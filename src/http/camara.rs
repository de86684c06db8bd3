//! What CAMARA's APIs have in common: errors (`ErrorInfo`), the correlation header, JSON bodies.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why something is not done. Older drafts call the text `detail`, newer ones `message`: both are there.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    /// Seconds.
    pub retry_after: Option<u32>,
    /// RFC 6750 §3.
    pub challenge: Option<String>,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into(), retry_after: None, challenge: None }
    }

    pub fn no_such_address() -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", "no such address")
    }

    pub fn no_such_method() -> Refusal {
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "the address has no such method")
    }
}

impl From<gw_sms::rest::Refusal> for Refusal {
    fn from(refusal: gw_sms::rest::Refusal) -> Refusal {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Refusal { retry_after: refusal.retry_after, ..Refusal::new(status, refusal.code, refusal.message) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({
            "status": self.status.as_u16(),
            "code": self.code,
            "message": self.message,
            "detail": self.message,
        });
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(challenge) = self.challenge.and_then(|c| HeaderValue::from_str(&c).ok()) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

const X_CORRELATOR: HeaderName = HeaderName::from_static("x-correlator");

/// Repeats `x-correlator` in the answer; one that is not of CAMARA's pattern is refused.
pub async fn correlate(request: Request, next: Next) -> Response {
    let Some(correlator) = request.headers().get(X_CORRELATOR).cloned() else { return next.run(request).await };
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-_:;./<>{}".contains(b);
    if correlator.len() > 256 || !correlator.as_bytes().iter().all(fits) {
        let wrong = "x-correlator: at most 256 of letters, digits and -_:;./<>{}";
        return Refusal::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", wrong).into_response();
    }
    let mut response = next.run(request).await;
    response.headers_mut().insert(X_CORRELATOR, correlator);
    response
}

/// Whether a body says that it is JSON.
pub fn is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", "the body must be JSON"))
    }
}
