//! The HTTP listeners: one for operators ([`admin`]), one for everybody else ([`public`]), both plain and over TLS.
//!
//! Doors bring an [`axum::Router`] and are mounted; nothing here knows what they do.

pub mod admin;
pub mod authentication;
pub mod camara;
pub mod client;
pub mod content;
pub mod digest;
pub mod etag;
pub mod guard;
pub mod history;
pub mod oauth2;
pub mod openapi;
pub mod origin;
pub mod problem;
pub mod public;
pub mod rate;
pub mod session;
pub mod sms_api;
pub mod smsgw;
pub mod tls;
pub mod xcap;

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where a connection ends on our side, and whether it is encrypted: what a WebSocket's flow needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub secure: bool,
    /// SHA-256 of the certificate that the peer showed and proved to hold; whom it names is not asked.
    pub certificate: Option<[u8; 32]>,
}

/// One open listener. Ends when `stop` turns true and its requests are answered.
pub struct Door {
    pub local: SocketAddr,
    task: JoinHandle<()>,
}

impl Door {
    /// Binds and serves in the background.
    pub async fn plain(at: SocketAddr, router: Router, stop: watch::Receiver<bool>) -> io::Result<Door> {
        let listener = TcpListener::bind(at).await?;
        let local = listener.local_addr()?;
        Ok(Door::serve(Plain { listener, local }, local, router, stop))
    }

    /// Binds and serves TLS in the background; `certificates` gives each handshake its configuration.
    pub async fn tls(
        at: SocketAddr,
        certificates: tls::Certificates,
        router: Router,
        stop: watch::Receiver<bool>,
    ) -> io::Result<Door> {
        let listener = TcpListener::bind(at).await?;
        let local = listener.local_addr()?;
        Ok(Door::serve(tls::Tls::start(listener, local, certificates), local, router, stop))
    }

    fn serve<L>(listener: L, local: SocketAddr, router: Router, mut stop: watch::Receiver<bool>) -> Door
    where
        L: Listener<Addr = Peer>,
        Peer: for<'a> Connected<IncomingStream<'a, L>>,
    {
        let service = router.into_make_service_with_connect_info::<Peer>();
        let task = tokio::spawn(async move {
            let stopped = async move {
                // A sender that is gone means the server is.
                let _ = stop.wait_for(|stop| *stop).await;
            };
            if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(stopped).await {
                tracing::error!(%error, "an HTTP listener ended");
            }
        });
        Door { local, task }
    }

    /// Waits until the last request is answered; WebSockets that were handed on are not waited for.
    pub async fn ended(self) {
        if self.task.await.is_err() {
            tracing::error!("an HTTP listener panicked");
        }
    }
}

struct Plain {
    listener: TcpListener,
    local: SocketAddr,
}

impl Listener for Plain {
    type Io = tokio::net::TcpStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Peer) {
        loop {
            match self.listener.accept().await {
                Ok((stream, remote)) => {
                    let local = stream.local_addr().unwrap_or(self.local);
                    return (stream, Peer { remote, local, secure: false, certificate: None });
                }
                Err(error) => accept_failed(&error).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { remote: self.local, local: self.local, secure: false, certificate: None })
    }
}

/// A connection that died in the queue is nothing; no descriptors left is: wait for some to close.
async fn accept_failed(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::warn!(%error, "cannot accept");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

impl Connected<IncomingStream<'_, Plain>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Plain>) -> Peer {
        *stream.remote_addr()
    }
}

impl Connected<IncomingStream<'_, tls::Tls>> for Peer {
    fn connect_info(stream: IncomingStream<'_, tls::Tls>) -> Peer {
        *stream.remote_addr()
    }
}
