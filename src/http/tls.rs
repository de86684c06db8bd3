//! TLS under the public listener: handshakes run beside each other, bounded in number and time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::serve::Listener;
use rustls::ServerConfig;
use sip_net::{Certificate, TlsError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Peer, accept_failed};
use crate::secrets::Pem;

/// The certificate in use, replaced while running.
#[derive(Clone)]
pub struct Certificates(Arc<ArcSwap<ServerConfig>>);

/// What is wrong with a certificate or key: the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("unusable certificate or key: {0}")]
    Rustls(#[from] rustls::Error),
}

impl Certificates {
    pub fn new(pems: &[Pem]) -> Result<Certificates, CertificateError> {
        Ok(Certificates(Arc::new(ArcSwap::from(server_config(pems)?))))
    }

    /// For new connections; on an error the old certificate stays.
    pub fn replace(&self, pems: &[Pem]) -> Result<(), CertificateError> {
        self.0.store(server_config(pems)?);
        Ok(())
    }
}

fn server_config(pems: &[Pem]) -> Result<Arc<ServerConfig>, CertificateError> {
    let certificates: Vec<_> =
        pems.iter().map(|p| Certificate { chain: p.chain.clone(), key: p.key.clone() }).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(sip_net::tls::by_server_name(&certificates)?);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Handshakes at once; more wait in the kernel's queue.
const HANDSHAKES: usize = 256;
/// From accept to the end of the handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// A listener whose connections come out encrypted.
pub struct Tls {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, Peer)>,
    local: SocketAddr,
}

impl Tls {
    /// Accepts until the `Tls` is dropped.
    pub fn start(listener: TcpListener, local: SocketAddr, certificates: Certificates) -> Tls {
        let (done, ready) = mpsc::channel(16);
        tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(HANDSHAKES));
            loop {
                // Never closed, so there is always a permit to wait for.
                let Ok(permit) = room.clone().acquire_owned().await else { return };
                let (stream, remote) = tokio::select! {
                    () = done.closed() => return,
                    accepted = listener.accept() => match accepted {
                        Ok(accepted) => accepted,
                        Err(error) => { accept_failed(&error).await; continue }
                    },
                };
                let peer = Peer { remote, local: stream.local_addr().unwrap_or(local), secure: true };
                let (acceptor, done) = (TlsAcceptor::from(certificates.0.load_full()), done.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
                        // The receiver is gone only when the server stops.
                        Ok(Ok(stream)) => drop(done.send((stream, peer)).await),
                        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                        Err(_) => tracing::debug!("TLS handshake took too long"),
                    }
                });
            }
        });
        Tls { ready, local }
    }
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Peer) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task ends only after us.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { remote: self.local, local: self.local, secure: true })
    }
}
