//! Files in the data folder that only its owner may read: the admin token, the hash key of logs, the self-signed certificate.
//!
//! Each is made at first start and kept. A file is complete or absent, also after a power cut: it is written aside and linked into its place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use rand::RngCore;
use sha2::Sha256;

use crate::config::Config;

/// Why a secret could not be read or made; the operator's (permissions, disk) or the machine's.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{file}: {source}")]
    File { file: String, source: io::Error },
    #[error("{file}: not what was written there; remove it to have it made again")]
    Damaged { file: String },
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// The admin token: configured, else the kept one, else a new one of 256 bits.
pub fn admin_token(config: &Config) -> Result<String, SecretError> {
    if !config.admin.token.is_empty() {
        return Ok(config.admin.token.clone());
    }
    let path = config.data_dir.join("admin.token");
    let text = kept(&path, || Ok(hex(&random::<32>())))?;
    let token = text.trim();
    if token.len() < 16 {
        return Err(SecretError::Damaged { file: path.display().to_string() });
    }
    Ok(token.to_owned())
}

/// The key of hashes in logs ([`crate::telemetry::redact`]).
pub fn log_key(config: &Config) -> Result<[u8; 16], SecretError> {
    let path = config.data_dir.join("log.key");
    let text = kept(&path, || Ok(hex(&random::<16>())))?;
    u128::from_str_radix(text.trim(), 16)
        .map(u128::to_be_bytes)
        .map_err(|_| SecretError::Damaged { file: path.display().to_string() })
}

/// A certificate chain and its key, in PEM.
#[derive(Clone)]
pub struct Pem {
    pub chain: Vec<u8>,
    pub key: Vec<u8>,
}

/// The certificate for clients that name no host of ours, then the additional ones.
pub fn certificates(config: &Config) -> Result<Vec<Pem>, SecretError> {
    let mut all = vec![certificate(config)?];
    for files in &config.tls.additional {
        all.push(Pem { chain: read(&files.certificate)?, key: read(&files.key)? });
    }
    Ok(all)
}

/// The configured certificate, else the kept self-signed one, else a new one: ECDSA P-256, for the domain, localhost and
/// 127.0.0.1.
fn certificate(config: &Config) -> Result<Pem, SecretError> {
    let tls = &config.tls;
    if !tls.certificate.as_os_str().is_empty() {
        return Ok(Pem { chain: read(&tls.certificate)?, key: read(&tls.key)? });
    }
    let folder = config.data_dir.join("tls");
    fs::create_dir_all(&folder).and_then(|()| sync_names(&config.data_dir)).map_err(|e| failed(&folder, e))?;
    let (chain, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    if !chain.exists() || !key.exists() {
        let mut names = vec![config.domain.clone(), "localhost".to_owned(), "127.0.0.1".to_owned()];
        names.dedup();
        let made = rcgen::generate_simple_self_signed(names)?;
        write(&key, made.signing_key.serialize_pem().as_bytes())?;
        write(&chain, made.cert.pem().as_bytes())?;
    }
    Ok(Pem { chain: read(&chain)?, key: read(&key)? })
}

/// A password that can be typed: 12 letters and digits without look-alikes, 60 bits or so.
pub fn password() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz234567892";
    random::<12>().iter().map(|b| char::from(LETTERS[usize::from(b % 32)])).collect()
}

/// The text of a file of ours, made first if it is not there. Two processes that start together agree on one.
pub fn kept(path: &Path, make: impl FnOnce() -> Result<String, SecretError>) -> Result<String, SecretError> {
    if !path.exists() {
        write(path, make()?.as_bytes())?;
    }
    fs::read_to_string(path).map_err(|e| failed(path, e))
}

/// Writes a file with mode 0600.
fn write(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    match put_in_place(path, &[bytes, b"\n"].concat()) {
        // Somebody else was first.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        written => written.map_err(|e| failed(path, e)),
    }
}

/// Writes a new file, mode 0600, that is there whole or not at all, whatever happens; on disk when this returns.
pub(crate) fn put_in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        let linked = fs::hard_link(&aside, path);
        // Its name is on disk when its folder is; and of somebody else's nobody knows.
        sync_names(path.parent().unwrap_or(Path::new(".")))?;
        linked
    })();
    // Gone already or not: what counts is the file in place.
    let _ = fs::remove_file(&aside);
    written
}

/// Which files a folder has.
fn sync_names(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn read(path: &Path) -> Result<Vec<u8>, SecretError> {
    fs::read(path).map_err(|e| failed(path, e))
}

fn failed(path: &Path, source: io::Error) -> SecretError {
    SecretError::File { file: path.display().to_string(), source }
}

/// From the operating system's generator.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// HMAC-SHA-256.
pub(crate) fn mac(key: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    // HMAC takes a key of any length.
    Hmac::<Sha256>::new_from_slice(key)
        .map(|mut mac| {
            mac.update(bytes);
            mac.finalize().into_bytes().into()
        })
        .unwrap_or_default()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(folder: &Path) -> Config {
        Config { data_dir: folder.to_owned(), domain: "home.test".to_owned(), ..Config::default() }
    }

    #[test]
    fn secrets_are_made_once_and_readable_by_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let token = admin_token(&config).unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(admin_token(&config).unwrap(), token);
        assert_eq!(log_key(&config).unwrap(), log_key(&config).unwrap());
        let pem = certificate(&config).unwrap();
        assert_eq!(certificate(&config).unwrap().key, pem.key);
        for name in ["admin.token", "log.key", "tls/key.pem"] {
            let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left aside");
    }

    #[test]
    fn a_configured_token_and_certificate_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.admin.token = "0123456789abcdef".to_owned();
        assert_eq!(admin_token(&config).unwrap(), config.admin.token);
        config.tls.certificate = folder.path().join("absent.pem");
        assert!(certificate(&config).is_err());
    }

    #[test]
    fn a_damaged_token_is_said_so() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("admin.token"), "x\n").unwrap();
        assert!(matches!(admin_token(&config(folder.path())), Err(SecretError::Damaged { .. })));
    }

    #[test]
    fn passwords_differ() {
        assert_ne!(password(), password());
        assert_eq!(password().len(), 12);
    }
}
