//! TLS for the carriers: several certificates chosen by SNI, optional client certificates, reload, connecting with the
//! server's name checked.

use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::collections::HashMap;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::pump::{Opened, Pump};

/// Sessions of our own connects that are kept for resumption.
const CLIENT_SESSIONS: usize = 256;

/// Certificates, as PEM bytes.
#[derive(Clone, Default)]
pub struct TlsConfig {
    /// The first is for clients that name no host we know; it is also shown when a peer asks us for one.
    pub certificates: Vec<Certificate>,
    /// Authorities whose client certificates are believed. Empty: none is asked for. A client without one is served in
    /// either case; one with a certificate that does not verify is not.
    pub client_authorities: Vec<u8>,
    /// Authorities that the servers we connect to must be certified by. Empty: no TLS connect succeeds.
    pub server_authorities: Vec<u8>,
}

/// A certificate chain, leaf first, and its private key.
#[derive(Clone)]
pub struct Certificate {
    pub chain: Vec<u8>,
    pub key: Vec<u8>,
}

impl std::fmt::Debug for TlsConfig {
    /// Without keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConfig").field("certificates", &self.certificates.len()).finish_non_exhaustive()
    }
}

/// What is wrong with the certificates. All are the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS is not configured")]
    NotConfigured,
    #[error("no certificate given")]
    NoCertificate,
    #[error("bad PEM: {0}")]
    Pem(#[from] pem::Error),
    #[error("unusable certificate or key: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("unusable certificate: {0}")]
    Leaf(#[from] webpki::Error),
    #[error("unusable client authorities: {0}")]
    ClientAuthorities(#[from] VerifierBuilderError),
}

/// The configurations in use. Connections keep the one that they began with.
pub(crate) struct Tls {
    server: RwLock<Arc<ServerConfig>>,
    client: RwLock<Arc<ClientConfig>>,
}

impl Tls {
    pub(crate) fn new(config: &TlsConfig) -> Result<Tls, TlsError> {
        let (server, client) = build(config)?;
        Ok(Tls { server: RwLock::new(server), client: RwLock::new(client) })
    }

    pub(crate) fn reload(&self, config: &TlsConfig) -> Result<(), TlsError> {
        let (server, client) = build(config)?;
        *self.server.write() = server;
        *self.client.write() = client;
        Ok(())
    }
}

/// Serves an accepted connection over TLS. False when the handshake failed.
pub(crate) async fn accept(opened: Opened, stream: TcpStream) -> bool {
    match handshake(&opened, stream).await {
        Ok(stream) => {
            // A task of its own, so that nothing of the handshake stays in memory.
            tokio::spawn(Pump::new(opened, stream));
            true
        }
        Err(e) => {
            tracing::debug!(error = %e, "TLS handshake failed");
            false
        }
    }
}

/// The server side of a handshake; keeps who the client proved to be.
pub(crate) async fn handshake(opened: &Opened, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let Some(tls) = &opened.core().tls else { return Err(io::ErrorKind::Unsupported.into()) };
    let config = tls.server.read().clone();
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    if let Some(leaf) = leaf {
        opened.connection().set_identities(identities(leaf));
    }
    Ok(stream)
}

/// The client side: the peer must prove to be the host that was asked for, or the address if none was.
pub(crate) async fn connect(opened: Opened, stream: TcpStream) -> io::Result<()> {
    let core = opened.core().clone();
    let Some(tls) = &core.tls else { return Err(io::ErrorKind::Unsupported.into()) };
    let name = match opened.connection().host {
        Some(host) => core.names.name(host).ok_or(io::ErrorKind::NotFound)?,
        None => ServerName::IpAddress(opened.connection().remote.ip().into()),
    };
    let config = tls.client.read().clone();
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    if let Some(leaf) = leaf {
        opened.connection().set_identities(identities(leaf));
    }
    tokio::spawn(Pump::new(opened, stream));
    Ok(())
}

fn build(config: &TlsConfig) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), TlsError> {
    let provider = Arc::new(ring::default_provider());
    let by_name = ByName::of(&config.certificates, &provider)?;
    let first = by_name.first.clone();

    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = if config.client_authorities.is_empty() {
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(roots(&config.client_authorities)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
    };
    let mut server = builder.with_cert_resolver(Arc::new(by_name));
    // Tickets instead of a table of sessions: resumption costs no memory here. The key is made anew at each reload, so
    // that nobody resumes what a changed authority would not let in.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.ticketer = ring::Ticketer::new()?;
    server.send_tls13_tickets = 1;

    let roots = roots(&config.server_authorities)?;
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut client = builder
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(first)));
    client.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS);
    Ok((Arc::new(server), Arc::new(client)))
}

/// Chooses by the name that a client asks for (SNI); the first certificate is for who names none of ours.
pub fn by_server_name(certificates: &[Certificate]) -> Result<Arc<dyn ResolvesServerCert>, TlsError> {
    Ok(Arc::new(ByName::of(certificates, &ring::default_provider())?))
}

fn certified(certificate: &Certificate, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&certificate.chain).collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(&certificate.key)?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, provider)?))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    // Systems' bundles hold oddities; what cannot be read certifies nobody.
    roots.add_parsable_certificates(certificates);
    Ok(roots)
}

/// Chooses a certificate by the name that the client asks for, exact before wildcard.
#[derive(Debug)]
struct ByName {
    first: Arc<CertifiedKey>,
    names: HashMap<String, Arc<CertifiedKey>>,
}

impl ByName {
    fn of(certificates: &[Certificate], provider: &CryptoProvider) -> Result<ByName, TlsError> {
        ByName::new(certificates.iter().map(|c| certified(c, provider)).collect::<Result<Vec<_>, _>>()?)
    }

    fn new(keys: Vec<Arc<CertifiedKey>>) -> Result<ByName, TlsError> {
        let mut names = HashMap::new();
        for key in &keys {
            let leaf = webpki::EndEntityCert::try_from(key.end_entity_cert()?)?;
            for name in leaf.valid_dns_names() {
                names.entry(name.to_ascii_lowercase()).or_insert_with(|| key.clone());
            }
        }
        let first = keys.into_iter().next().ok_or(TlsError::NoCertificate)?;
        Ok(ByName { first, names })
    }

    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.to_ascii_lowercase();
        let wildcard = || name.split_once('.').and_then(|(_, parent)| self.names.get(&format!("*.{parent}")));
        self.names.get(&name).or_else(wildcard).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(hello.server_name().map_or(&self.first, |name| self.find(name)).clone())
    }
}

/// RFC 5922 §7.1: the domains of the `sip` URIs in subjectAltName, without those the DNS names. Lower case.
fn identities(leaf: &CertificateDer<'_>) -> Vec<String> {
    let Ok(leaf) = webpki::EndEntityCert::try_from(leaf) else { return Vec::new() };
    // A URI with a user part names a person, not a domain.
    let domain = |uri: &str| {
        let rest = uri.get(..4).filter(|s| s.eq_ignore_ascii_case("sip:")).map(|_| &uri[4..])?;
        (!rest.is_empty() && !rest.contains(['@', ';', '?', ':'])).then(|| rest.to_ascii_lowercase())
    };
    let domains: Vec<String> = leaf.valid_uri_names().filter_map(domain).collect();
    if domains.is_empty() { leaf.valid_dns_names().map(str::to_ascii_lowercase).collect() } else { domains }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[rcgen::SanType]) -> (Certificate, CertificateDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        let certificate = params.self_signed(&key).unwrap();
        let pem = Certificate { chain: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() };
        (pem, certificate.der().clone())
    }

    fn dns(name: &str) -> rcgen::SanType {
        rcgen::SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(name: &str) -> rcgen::SanType {
        rcgen::SanType::URI(name.try_into().unwrap())
    }

    #[test]
    fn a_certificate_is_chosen_by_name_then_wildcard_then_order() {
        let provider = ring::default_provider();
        let made: Vec<_> = [dns("a.example.com"), dns("*.example.com"), dns("b.example.com")]
            .map(|name| certified(&made(&[name]).0, &provider).unwrap())
            .into();
        let by_name = ByName::new(made.clone()).unwrap();
        for (name, index) in [("B.example.com", 2), ("c.example.com", 1), ("x.c.example.com", 0), ("other.test", 0)] {
            assert!(Arc::ptr_eq(by_name.find(name), &made[index]), "{name}");
        }
    }

    #[test]
    fn sip_domains_go_before_dns_names_and_persons_are_no_domains() {
        let (_, both) = made(&[dns("host.example"), uri("sip:Example.com"), uri("sip:alice@example.com")]);
        assert_eq!(identities(&both), ["example.com"]);
        let (_, only_dns) = made(&[dns("host.example"), uri("https://example.com")]);
        assert_eq!(identities(&only_dns), ["host.example"]);
    }

    #[test]
    fn a_reload_with_a_wrong_key_is_refused() {
        let (good, other) = (made(&[dns("a.example")]).0, made(&[dns("a.example")]).0);
        let config = |chain: &Certificate, key: &Certificate| TlsConfig {
            certificates: vec![Certificate { chain: chain.chain.clone(), key: key.key.clone() }],
            ..TlsConfig::default()
        };
        let tls = Tls::new(&config(&good, &good)).unwrap();
        let before = tls.server.read().clone();
        assert!(matches!(tls.reload(&config(&good, &other)), Err(TlsError::Rustls(_))));
        assert!(matches!(tls.reload(&TlsConfig::default()), Err(TlsError::NoCertificate)));
        assert!(Arc::ptr_eq(&before, &tls.server.read()));
        tls.reload(&config(&other, &other)).unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.server.read()));
    }
}
