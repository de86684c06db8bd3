//! TLS under the public listener: handshakes run beside each other, bounded in number and time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sip_net::{Certificate, TlsError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Peer, accept_failed};
use crate::secrets::Pem;

/// The certificate in use, replaced while running.
#[derive(Clone)]
pub struct Certificates {
    current: Arc<ArcSwap<ServerConfig>>,
    ask: bool,
}

/// What is wrong with a certificate or key: the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("unusable certificate or key: {0}")]
    Rustls(#[from] rustls::Error),
}

impl Certificates {
    /// `ask`: clients are asked for a certificate; they may have none.
    pub fn new(pems: &[Pem], ask: bool) -> Result<Certificates, CertificateError> {
        Ok(Certificates { current: Arc::new(ArcSwap::from(server_config(pems, ask)?)), ask })
    }

    /// For a protocol that has no name in TLS (ALPN): the certificate in use, replaced while running.
    pub fn without_protocol(&self) -> Arc<ServerConfig> {
        let mut config = (**self.current.load()).clone();
        config.alpn_protocols.clear();
        config.cert_resolver = Arc::new(Current(self.current.clone()));
        Arc::new(config)
    }

    /// For new connections; on an error the old certificate stays.
    pub fn replace(&self, pems: &[Pem]) -> Result<(), CertificateError> {
        self.current.store(server_config(pems, self.ask)?);
        Ok(())
    }
}

fn server_config(pems: &[Pem], ask: bool) -> Result<Arc<ServerConfig>, CertificateError> {
    let certificates: Vec<_> =
        pems.iter().map(|p| Certificate { chain: p.chain.clone(), key: p.key.clone() }).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = if ask {
        // Registrations pin certificates by their hash, so no authority has to vouch for them.
        builder.with_client_cert_verifier(media_msrp::any_client(provider))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(sip_net::tls::by_server_name(&certificates)?);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The certificate that is current at each handshake.
#[derive(Debug)]
struct Current(Arc<ArcSwap<ServerConfig>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().cert_resolver.resolve(hello)
    }
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
                let local = stream.local_addr().unwrap_or(local);
                let (acceptor, done) = (TlsAcceptor::from(certificates.current.load_full()), done.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
                        // The receiver is gone only when the server stops.
                        Ok(Ok(stream)) => {
                            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                            let certificate = certificate.map(|c| gw_sms::registry::fingerprint(c));
                            drop(done.send((stream, Peer { remote, local, secure: true, certificate })).await);
                        }
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
        Ok(Peer { remote: self.local, local: self.local, secure: true, certificate: None })
    }
}
