//! The public listener: SIP over WebSocket at `/sip`, MSRP over WebSocket at `/msrp`, and whatever doors are merged in.

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper_util::rt::TokioIo;
use media_msrp::Switch;
use sip_net::{Carriers, ws};

use super::Peer;
use super::problem::Problem;

/// `/sip`: hands upgraded connections to the carriers.
pub fn sip(carriers: Arc<Carriers>) -> Router {
    Router::new().route("/sip", any(upgrade)).with_state(carriers)
}

/// `/msrp`: hands upgraded connections to the switch.
pub fn msrp(switch: Arc<Switch>) -> Router {
    Router::new().route("/msrp", any(upgrade_msrp)).with_state(switch)
}

async fn upgrade(
    State(carriers): State<Arc<Carriers>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Result<Response, Problem> {
    let sub_protocol = SubProtocol { name: ws::SUB_PROTOCOL, is_offered: ws::offers_sip };
    websocket(request, &sub_protocol, move |io| async move {
        carriers.serve_ws(io, peer.remote, peer.local, peer.secure).await;
    })
}

async fn upgrade_msrp(
    State(switch): State<Arc<Switch>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Result<Response, Problem> {
    let sub_protocol = SubProtocol { name: media_msrp::SUB_PROTOCOL, is_offered: media_msrp::offers_msrp };
    websocket(request, &sub_protocol, move |io| switch.serve_ws(io, peer.remote.ip()))
}

struct SubProtocol {
    name: &'static str,
    is_offered: fn(&str) -> bool,
}

/// RFC 6455 §4.2, RFC 7118 §4 and RFC 7977 §4.1: the sub-protocol must be offered.
fn websocket<F>(
    mut request: Request,
    sub_protocol: &SubProtocol,
    serve: impl FnOnce(TokioIo<hyper::upgrade::Upgraded>) -> F + Send + 'static,
) -> Result<Response, Problem>
where
    F: Future<Output = ()> + Send,
{
    let bad = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, detail);
    let headers = request.headers();
    if !has_token(headers, header::CONNECTION, "upgrade") || !has_token(headers, header::UPGRADE, "websocket") {
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "this address speaks WebSocket (RFC 6455)"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13") {
        return Err(bad("Sec-WebSocket-Version must be 13"));
    }
    if !headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().any(|v| v.to_str().is_ok_and(sub_protocol.is_offered)) {
        return Err(bad(&format!("the sub-protocol {} must be offered", sub_protocol.name)));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| bad("Sec-WebSocket-Key is missing"))?;
    let accept = ws::accept_key(key.as_bytes());
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(io) => serve(TokioIo::new(io)).await,
            Err(error) => tracing::debug!(%error, "WebSocket upgrade failed"),
        }
    });
    let answer = [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_PROTOCOL, sub_protocol.name),
        (header::SEC_WEBSOCKET_ACCEPT, &accept),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, answer).into_response())
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let tokens = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    tokens.into_iter().any(|t| t.trim().eq_ignore_ascii_case(token))
}
