//! The public listener: SIP over WebSocket at `/sip`, and whatever doors are merged in.

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper_util::rt::TokioIo;
use sip_net::{Carriers, ws};

use super::Peer;
use super::problem::Problem;

/// `/sip`: hands upgraded connections to the carriers.
pub fn sip(carriers: Arc<Carriers>) -> Router {
    Router::new().route("/sip", any(upgrade)).with_state(carriers)
}

/// RFC 6455 §4.2 and RFC 7118 §4: the sub-protocol `sip` must be offered.
async fn upgrade(
    State(carriers): State<Arc<Carriers>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
) -> Result<Response, Problem> {
    let bad = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, detail);
    let headers = request.headers();
    if !has_token(headers, header::CONNECTION, "upgrade") || !has_token(headers, header::UPGRADE, "websocket") {
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "this address speaks SIP over WebSocket (RFC 7118)"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13") {
        return Err(bad("Sec-WebSocket-Version must be 13"));
    }
    if !headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().any(|v| v.to_str().is_ok_and(ws::offers_sip)) {
        return Err(bad("the sub-protocol sip must be offered (RFC 7118 section 4)"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| bad("Sec-WebSocket-Key is missing"))?;
    let accept = ws::accept_key(key.as_bytes());
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(io) => carriers.serve_ws(TokioIo::new(io), peer.remote, peer.local, peer.secure).await,
            Err(error) => tracing::debug!(%error, "WebSocket upgrade failed"),
        }
    });
    let answer = [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_PROTOCOL, ws::SUB_PROTOCOL),
        (header::SEC_WEBSOCKET_ACCEPT, &accept),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, answer).into_response())
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let tokens = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    tokens.into_iter().any(|t| t.trim().eq_ignore_ascii_case(token))
}
