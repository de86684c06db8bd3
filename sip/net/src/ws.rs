//! SIP over WebSocket (RFC 7118): one SIP message in each WebSocket message, text or binary, sub-protocol `sip`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use sip_proto::Transport;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

pub use tokio_tungstenite::tungstenite::handshake::derive_accept_key as accept_key;

use crate::carriers::Core;
use crate::connections::{Connection, Mark, Order, tokens};
use crate::counters::Counters;
use crate::pump::Opened;
use crate::tls;

/// The sub-protocol that both sides must name (RFC 7118 §4).
pub const SUB_PROTOCOL: &str = "sip";
/// The reading buffer of each connection, held while it is open. The default of the library is 32 times as large.
const READ_BUFFER: usize = 4096;
/// Messages read before the task lets others run.
const READS: usize = 16;

/// Whether a Sec-WebSocket-Protocol value offers SIP.
pub fn offers_sip(value: &str) -> bool {
    value.split(',').any(|p| p.trim().eq_ignore_ascii_case(SUB_PROTOCOL))
}

/// Serves an accepted connection. False when the handshake failed.
pub(crate) async fn accept(opened: Opened, stream: TcpStream) -> bool {
    upgrade(opened, stream).await
}

/// As [`accept`], over TLS.
pub(crate) async fn accept_secure(opened: Opened, stream: TcpStream) -> bool {
    match tls::handshake(&opened, stream).await {
        Ok(stream) => upgrade(opened, stream).await,
        Err(e) => {
            tracing::debug!(error = %e, "TLS handshake failed");
            false
        }
    }
}

/// Serves a connection that someone else upgraded.
pub(crate) async fn serve<S>(core: Arc<Core>, io: S, remote: SocketAddr, local: SocketAddr, secure: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let transport = if secure { Transport::Wss } else { Transport::Ws };
    let connection = match core.connections.accept(Instant::now(), transport, local, remote) {
        Ok(connection) => connection,
        Err(refused) => {
            Counters::bump(&core.counters.connections_refused);
            tracing::debug!(%refused, %transport, "connection refused");
            return;
        }
    };
    let config = config(core.limits.message);
    let opened = Opened::new(core, connection);
    let io = Watched { io, connection: opened.connection().clone(), core: opened.core().clone() };
    let ws = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    WsPump::new(opened, ws).await;
}

async fn upgrade<S>(opened: Opened, io: S) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = config(opened.core().limits.message);
    let io = Watched { io, connection: opened.connection().clone(), core: opened.core().clone() };
    // The library fixes the error's type, large as it is.
    #[allow(clippy::result_large_err)]
    let choose = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let mut offers = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        if offers.any(|v| v.to_str().is_ok_and(offers_sip)) {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUB_PROTOCOL));
            return Ok(response);
        }
        let mut refusal = ErrorResponse::new(Some("sub-protocol sip required".to_owned()));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        Err(refusal)
    };
    match tokio_tungstenite::accept_hdr_async_with_config(io, choose, Some(config)).await {
        Ok(ws) => {
            tokio::spawn(WsPump::new(opened, ws));
            true
        }
        Err(e) => {
            tracing::debug!(error = %e, "WebSocket handshake failed");
            false
        }
    }
}

fn config(message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(message))
        .max_frame_size(Some(message))
}

/// Notes when bytes come, so that a message that never ends is seen although the library does not show it.
struct Watched<S> {
    io: S,
    connection: Arc<Connection>,
    core: Arc<Core>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.connection.heard(self.core.connections.second(Instant::now()), false, true);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The task of one WebSocket.
struct WsPump<S> {
    opened: Opened,
    ws: WebSocketStream<Watched<S>>,
    /// Taken from the connection's queue; messages up to `next` are in the library's hands.
    bytes: Vec<u8>,
    marks: Vec<Mark>,
    next: usize,
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WsPump<S> {
    fn new(opened: Opened, ws: WebSocketStream<Watched<S>>) -> WsPump<S> {
        WsPump { opened, ws, bytes: Vec::new(), marks: Vec::new(), next: 0, unflushed: false }
    }

    /// Reads one message. Ready with false when the connection is to be closed.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let message = match Pin::new(&mut self.ws).poll_next(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(message))) => message,
            Poll::Ready(Some(Err(e))) => {
                tracing::debug!(error = %e, "a WebSocket broke");
                return Poll::Ready(false);
            }
            Poll::Ready(None) => return Poll::Ready(false),
        };
        let now = Instant::now();
        let core = self.opened.core();
        let second = core.connections.second(now);
        self.opened.connection().heard(second, true, false);
        // The library answers pings when it is flushed.
        self.unflushed = true;
        let bytes = match &message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            Message::Ping(_) | Message::Pong(_) => {
                Counters::bump(&core.counters.keep_alives);
                return Poll::Ready(true);
            }
            Message::Close(_) | Message::Frame(_) => return Poll::Ready(true),
        };
        if bytes.iter().all(|b| matches!(b, b'\r' | b'\n')) {
            Counters::bump(&core.counters.keep_alives);
            // RFC 5626 §3.5.1, which RFC 7118 §6 allows here too.
            if bytes == b"\r\n\r\n" {
                let _ = self.opened.connection().send(second, b"\r\n", sip_proto::transport::Transmit::NO_TOKEN);
            }
            return Poll::Ready(true);
        }
        Poll::Ready(core.with_outbox(now, |out| self.opened.deliver(now, bytes, out)))
    }

    /// Ready when the connection is to be closed.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.next < self.marks.len() {
                match Pin::new(&mut self.ws).poll_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending if self.opened.connection().is_cut(cx.waker()) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
                let start = self.next.checked_sub(1).map_or(0, |last| self.marks[last].end);
                let bytes = Bytes::copy_from_slice(&self.bytes[start..self.marks[self.next].end]);
                // Browsers' libraries expect text; what is none (a binary body) goes as it is.
                let message = match Utf8Bytes::try_from(bytes.clone()) {
                    Ok(text) => Message::Text(text),
                    Err(_) => Message::Binary(bytes),
                };
                self.next += 1;
                self.unflushed = true;
                if Pin::new(&mut self.ws).start_send(message).is_err() {
                    return Poll::Ready(());
                }
                continue;
            }
            self.next = 0;
            self.marks = Vec::new();
            self.bytes = Vec::new();
            match self.opened.connection().take(cx.waker(), &mut self.bytes, &mut self.marks) {
                Order::Write => {}
                Order::Cut => return Poll::Ready(()),
                Order::Ping => {
                    if Pin::new(&mut self.ws).start_send(Message::Ping(Bytes::new())).is_err() {
                        return Poll::Ready(());
                    }
                    self.unflushed = true;
                }
                order @ (Order::Wait | Order::Finish) => {
                    if self.unflushed {
                        match Pin::new(&mut self.ws).poll_flush(cx) {
                            Poll::Ready(Ok(())) => self.unflushed = false,
                            Poll::Ready(Err(_)) => return Poll::Ready(()),
                            Poll::Pending => return Poll::Pending,
                        }
                    }
                    if order == Order::Wait {
                        return Poll::Pending;
                    }
                    return Pin::new(&mut self.ws).poll_close(cx).map(|_| ());
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for WsPump<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        for _ in 0..READS {
            let read = this.read(cx);
            if read == Poll::Ready(false) || this.write(cx).is_ready() {
                return Poll::Ready(());
            }
            if read.is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S> Drop for WsPump<S> {
    fn drop(&mut self) {
        let unsent = tokens(self.marks.get(self.next..).unwrap_or_default());
        self.opened.core().report_closed(&self.opened.connection().flow(), false, unsent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sip_is_found_among_the_offered_protocols() {
        assert!(offers_sip("chat, SIP"));
        assert!(!offers_sip("sipfrag, xmpp"));
    }
}
