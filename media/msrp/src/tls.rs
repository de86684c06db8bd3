//! TLS for `msrps`: our certificate, the peer's by fingerprint (RFC 8122) or by authority (RFC 4975 §5.4, §14.4).

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// Why there is no TLS. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("bad PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("no certificate given")]
    NoCertificate,
    #[error("unusable certificate or key: {0}")]
    Rustls(#[from] Error),
}

/// The hash of a certificate, as `a=fingerprint` has it (RFC 8122 §5). SHA-1 and older are not believed.
#[derive(Clone, PartialEq, Eq)]
pub enum Fingerprint {
    Sha256([u8; 32]),
    Sha384([u8; 48]),
    Sha512([u8; 64]),
}

impl Fingerprint {
    /// `sha-256 4A:AD:B9:…`. `None` for other hashes, and for what is none.
    pub fn parse(text: &[u8]) -> Option<Fingerprint> {
        let mut words = text.split(|&b| b == b' ').filter(|w| !w.is_empty());
        let (name, octets, None) = (words.next()?, words.next()?, words.next()) else { return None };
        let pairs = octets.split(|&b| b == b':');
        match name {
            n if n.eq_ignore_ascii_case(b"sha-256") => octets_of(pairs).map(Fingerprint::Sha256),
            n if n.eq_ignore_ascii_case(b"sha-384") => octets_of(pairs).map(Fingerprint::Sha384),
            n if n.eq_ignore_ascii_case(b"sha-512") => octets_of(pairs).map(Fingerprint::Sha512),
            _ => None,
        }
    }

    /// A SHA-256 of 64 hexadecimal digits, as operators write it.
    pub fn sha_256(hex: &str) -> Option<Fingerprint> {
        octets_of(hex.as_bytes().chunks(2)).map(Fingerprint::Sha256)
    }

    /// The SHA-256 of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Fingerprint {
        Fingerprint::Sha256(Sha256::digest(certificate).into())
    }

    pub fn is_of(&self, certificate: &CertificateDer<'_>) -> bool {
        match self {
            Fingerprint::Sha256(hash) => hash[..] == Sha256::digest(certificate)[..],
            Fingerprint::Sha384(hash) => hash[..] == Sha384::digest(certificate)[..],
            Fingerprint::Sha512(hash) => hash[..] == Sha512::digest(certificate)[..],
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, hash): (_, &[u8]) = match self {
            Fingerprint::Sha256(hash) => ("sha-256", hash),
            Fingerprint::Sha384(hash) => ("sha-384", hash),
            Fingerprint::Sha512(hash) => ("sha-512", hash),
        };
        f.write_str(name)?;
        hash.iter().enumerate().try_for_each(|(i, b)| write!(f, "{}{b:02X}", if i == 0 { ' ' } else { ':' }))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn octets_of<'t, const N: usize>(mut pairs: impl Iterator<Item = &'t [u8]>) -> Option<[u8; N]> {
    let mut octets = [0; N];
    for octet in &mut octets {
        let pair = pairs.next().filter(|p| p.len() == 2 && p.iter().all(u8::is_ascii_hexdigit))?;
        *octet = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    pairs.next().is_none().then_some(octets)
}

/// Both roles.
pub(crate) struct Tls {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) fingerprint: Fingerprint,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    by_authority: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Tls {
    /// `chain`, `key` and `authorities` are PEM. Without authorities only fingerprints are believed.
    pub(crate) fn new(chain: &[u8], key: &[u8], authorities: &[u8]) -> Result<Tls, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>()?;
        let fingerprint = Fingerprint::of(chain.first().ok_or(TlsError::NoCertificate)?);
        let key = PrivateKeyDer::from_pem_slice(key)?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(any_client(provider.clone()))
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authorities).filter_map(Result::ok));
        // Without a root there is no verifier, and nobody is believed by authority.
        let by_authority = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok();
        Ok(Tls { server: Arc::new(server), fingerprint, chain, key, by_authority, provider })
    }

    /// For one connect: the peer shows the certificate with this fingerprint, or one that an authority vouches for.
    pub(crate) fn client(&self, fingerprint: Option<Fingerprint>) -> Result<Arc<ClientConfig>, TlsError> {
        let by_authority = self.by_authority.clone();
        let verifier = Expected { fingerprint, by_authority, provider: self.provider.clone() };
        let mut client = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        client.resumption = Resumption::disabled();
        Ok(Arc::new(client))
    }
}

/// The half of a verifier that is the same whoever is believed: the peer holds the key of the certificate that it shows.
macro_rules! proves_its_key {
    ($provider:tt) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signed, &self.$provider.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signed, &self.$provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.$provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// The far end of a connection that we make.
#[derive(Debug)]
struct Expected {
    fingerprint: Option<Fingerprint>,
    by_authority: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match (&self.fingerprint, &self.by_authority) {
            (Some(expected), _) if expected.is_of(leaf) => Ok(ServerCertVerified::assertion()),
            (Some(_), _) => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
            (None, Some(roots)) => roots.verify_server_cert(leaf, chain, name, ocsp, now),
            (None, None) => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    proves_its_key!(provider);
}

/// Believes the one certificate with this fingerprint.
pub fn believing(fingerprint: Fingerprint, provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Expected { fingerprint: Some(fingerprint), by_authority: None, provider })
}

/// Takes any certificate whose key the client proves to hold, or none: it is compared with a fingerprint once it is known with which.
pub fn any_client(provider: Arc<CryptoProvider>) -> Arc<dyn ClientCertVerifier> {
    Arc::new(Any(provider))
}

/// Takes any certificate whose key the server proves to hold: for peers that tell who they are in another way.
pub fn any_server(provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Any(provider))
}

#[derive(Debug)]
struct Any(Arc<CryptoProvider>);

impl ClientCertVerifier for Any {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    proves_its_key!(0);
}

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    proves_its_key!(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_what_it_writes_and_knows_its_certificate() {
        let certificate = CertificateDer::from(b"any octets".to_vec());
        let of = Fingerprint::of(&certificate);
        let text = of.to_string();
        assert!(text.starts_with("sha-256 ") && text.len() == 8 + 95, "{text}");
        assert_eq!(Fingerprint::parse(text.to_lowercase().as_bytes()), Some(of.clone()));
        let hex = text["sha-256 ".len()..].replace(':', "");
        assert_eq!((Fingerprint::sha_256(&hex), Fingerprint::sha_256(&hex[1..])), (Some(of.clone()), None));
        assert!(of.is_of(&certificate) && !of.is_of(&CertificateDer::from(b"others".to_vec())));
        for bad in ["sha-1 AB:CD", "sha-256 AB", &text[..text.len() - 1], &format!("{text}:00"), &format!("{text} x")] {
            assert_eq!(Fingerprint::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
