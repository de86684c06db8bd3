//! `isthmus trace`: asks the running server; when there is none, reads what it left on disk.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::Request;
use hyper::header::{AUTHORIZATION, HOST};
use hyper_util::rt::TokioIo;

use super::{CtlError, Place};
use crate::config::Config;
use crate::telemetry::trace::{TraceId, disk};
use crate::{app, cdr, secrets};

pub(super) fn run(id: &str, place: &Place) -> Result<(), CtlError> {
    let config = place.config()?;
    let trace = TraceId::from_input(id);
    let lines = match asked(&config, trace) {
        Some(lines) if !lines.is_empty() => lines,
        _ => {
            let path = app::trace_path(&config);
            let events = disk::find(&path, trace).map_err(|source| CtlError::File { file: path, source })?;
            events.iter().map(|e| e.to_string()).collect()
        }
    };
    let pattern = app::cdr_pattern(&config);
    let records = cdr::search(&pattern, &trace.to_string());
    let records = records.map_err(|source| CtlError::File { file: pattern, source })?;
    let mut out = std::io::stdout().lock();
    let head = format!("trace {trace}");
    for line in std::iter::once(&head).chain(&lines).chain(&records) {
        writeln!(out, "{line}").map_err(CtlError::Output)?;
    }
    if lines.is_empty() && records.is_empty() {
        writeln!(out, "nothing is known of it (any more)").map_err(CtlError::Output)?;
    }
    Ok(())
}

/// `None` when no server answers: there need not be one.
fn asked(config: &Config, trace: TraceId) -> Option<Vec<String>> {
    let address = config.admin.listen.0?;
    // Made at the server's start; without a data folder there is no server, and nothing is made here.
    let token = match config.admin.token.as_str() {
        "" if !config.data_dir.join("admin.token").exists() => return None,
        _ => secrets::admin_token(config).ok()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let asking = get(address, format!("/admin/v1/trace/{trace}"), token);
    let body = runtime.block_on(async { tokio::time::timeout(PATIENCE, asking).await.ok()? })?;
    let answer: serde_json::Value = serde_json::from_slice(&body).ok()?;
    let events = answer["events"].as_array()?;
    Some(events.iter().filter_map(|e| e["line"].as_str().map(str::to_owned)).collect())
}

const PATIENCE: Duration = Duration::from_secs(5);
/// Largest answer read, in bytes.
const MAX_ANSWER: usize = 64 << 20;

async fn get(address: SocketAddr, path: String, token: String) -> Option<Vec<u8>> {
    let stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .body(axum::body::Body::empty())
        .ok()?;
    let response = sender.send_request(request).await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let body = axum::body::to_bytes(axum::body::Body::new(response.into_body()), MAX_ANSWER).await.ok()?;
    Some(body.to_vec())
}
