//! Digest answers of a phone, computed by the system's openssl and not by the server's own code.

use std::io::Write;
use std::process::{Command, Stdio};

use super::server::DOMAIN;

/// The lower-case hexadecimal hash of `text`: `sha256` or `md5`.
pub fn hash(algorithm: &str, text: impl AsRef<[u8]>) -> String {
    let done = openssl(&["dgst", &format!("-{algorithm}"), "-r"], text.as_ref());
    String::from_utf8_lossy(&done).split(' ').next().unwrap_or_default().to_owned()
}

/// One block under AES-128.
pub fn aes(key: &[u8; 16], block: &[u8; 16]) -> [u8; 16] {
    let done = openssl(&["enc", "-aes-128-ecb", "-nopad", "-K", &hex(key)], block);
    done.try_into().expect("a block for a block")
}

/// Base64 to bytes.
pub fn base64(text: &str) -> Vec<u8> {
    openssl(&["base64", "-d", "-A"], text.as_bytes())
}

/// Bytes to base64.
pub fn to_base64(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&openssl(&["base64", "-A"], bytes)).trim().to_owned()
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut openssl = command.spawn().expect("openssl runs");
    openssl.stdin.take().expect("a pipe").write_all(input).expect("openssl reads");
    let done = openssl.wait_with_output().expect("openssl ends");
    assert!(done.status.success(), "openssl {arguments:?}");
    done.stdout
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn unhex<const N: usize>(text: &str) -> [u8; N] {
    let byte = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hexadecimal");
    std::array::from_fn(byte)
}

/// The value of a quoted parameter of a challenge.
pub fn quoted<'a>(challenge: &'a str, name: &str) -> &'a str {
    let from = challenge.split(&format!("{name}=\"")).nth(1).unwrap_or_else(|| panic!("no {name}: {challenge}"));
    from.split('"').next().unwrap_or_default()
}

/// The challenges of a 401, in the server's order of preference.
pub fn challenges(answer: &str) -> Vec<&str> {
    let names = ["WWW-Authenticate: ", "Proxy-Authenticate: "];
    answer.lines().filter_map(|l| names.iter().find_map(|name| l.strip_prefix(name))).collect()
}

/// The Authorization line that answers `challenge` to a REGISTER, computed with the hash `hashed` and claimed to be `named`.
pub fn authorization(challenge: &str, user: &str, password: &[u8], named: &str, hashed: &str) -> String {
    let (nonce, uri) = (quoted(challenge, "nonce"), format!("sip:{DOMAIN}"));
    let ha1 = hash(hashed, [format!("{user}:{DOMAIN}:").as_bytes(), password].concat());
    let ha2 = hash(hashed, format!("REGISTER:{uri}"));
    let response = hash(hashed, format!("{ha1}:{nonce}:00000001:c0ffee:auth:{ha2}"));
    format!(
        "Authorization: Digest username=\"{user}\", realm=\"{DOMAIN}\", nonce=\"{nonce}\", uri=\"{uri}\", \
         response=\"{response}\", algorithm={named}, qop=auth, nc=00000001, cnonce=\"c0ffee\"\r\n"
    )
}
