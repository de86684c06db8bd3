//! JSON Web Tokens and keys, as far as clients prove themselves by them (RFC 7515, 7517, 7518, 7519). Values: nobody is asked here.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A JWK Set (RFC 7517 §5).
#[derive(Deserialize)]
pub struct Keys {
    keys: Vec<Key>,
}

/// RFC 7518 §6, as far as signatures need it.
#[derive(Deserialize)]
struct Key {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

#[derive(Deserialize)]
pub struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// RFC 7515 §4.1.11: there are none that we know.
    #[serde(default)]
    pub crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub aud: Audience,
    /// Unix seconds, both.
    pub exp: u64,
    #[serde(default)]
    pub nbf: Option<u64>,
    pub jti: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Many(Vec<String>),
}

/// A JWT that can be read, and is not believed yet.
pub struct Assertion<'t> {
    pub header: Header,
    pub claims: Claims,
    signed: &'t str,
    signature: Vec<u8>,
}

impl Assertion<'_> {
    pub fn read(token: &str) -> Option<Assertion<'_>> {
        let (signed, signature) = token.rsplit_once('.').filter(|_| token.len() <= MAX_ASSERTION)?;
        let (header, claims) = signed.split_once('.')?;
        Some(Assertion {
            header: part(header)?,
            claims: part(claims)?,
            signed,
            signature: BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// Whose it says it is.
    pub fn client(&self) -> &str {
        &self.claims.sub
    }
}

fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

impl Keys {
    /// At most [`MAX_KEYS`].
    pub fn read(json: &[u8]) -> Option<Keys> {
        serde_json::from_slice::<Keys>(json).ok().filter(|keys| keys.keys.len() <= MAX_KEYS)
    }

    /// Whether one of them, of the right kind, has signed this.
    pub fn verify(&self, assertion: &Assertion<'_>) -> bool {
        let Header { alg, kid, .. } = &assertion.header;
        let fitting = self.keys.iter().filter(|key| key.is_for(alg, kid.as_deref()));
        fitting.into_iter().any(|key| key.verifies(alg, assertion.signed.as_bytes(), &assertion.signature))
    }
}

impl Key {
    fn is_for(&self, alg: &str, kid: Option<&str>) -> bool {
        self.purpose.as_deref().is_none_or(|u| u == "sig")
            && self.alg.as_deref().is_none_or(|a| a == alg)
            && (kid.is_none() || self.kid.as_deref() == kid)
    }

    /// By an algorithm of RFC 7518 §3.1 or RFC 8037 that fits the key; none of them is symmetric.
    fn verifies(&self, alg: &str, signed: &[u8], signature: &[u8]) -> bool {
        let octets = |text: &Option<String>| BASE64_URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let checked = match (alg, &*self.kty, self.crv.as_deref()) {
            ("RS256" | "PS256", "RSA", _) => (|| {
                let key = RsaPublicKeyComponents { n: octets(&self.n)?, e: octets(&self.e)? };
                let rule = if alg == "RS256" { &RSA_PKCS1_2048_8192_SHA256 } else { &RSA_PSS_2048_8192_SHA256 };
                key.verify(rule, signed, signature).ok()
            })(),
            ("ES256", "EC", Some("P-256")) => (|| {
                let (x, y) = (octets(&self.x)?, octets(&self.y)?);
                let point = [&[4][..], &x, &y].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).ok()
            })(),
            ("EdDSA" | "Ed25519", "OKP", Some("Ed25519")) => {
                octets(&self.x).and_then(|x| UnparsedPublicKey::new(&ED25519, x).verify(signed, signature).ok())
            }
            _ => None,
        };
        checked.is_some()
    }
}

/// Longest assertion.
const MAX_ASSERTION: usize = 8 * 1024;
/// Keys of one client.
const MAX_KEYS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(header), part(claims), part("signature"))
    }

    #[test]
    fn what_lacks_a_claim_is_no_assertion() {
        let claims = r#"{"iss":"a","sub":"a","aud":["x","y"],"exp":5,"jti":"1"}"#;
        let whole = token(r#"{"alg":"ES256"}"#, claims);
        assert_eq!(Assertion::read(&whole).unwrap().client(), "a");
        for key in ["iss", "sub", "aud", "exp", "jti"] {
            let token = token(r#"{"alg":"ES256"}"#, &claims.replace(&format!("\"{key}\""), "\"other\""));
            assert!(Assertion::read(&token).is_none(), "{key}");
        }
        for bad in ["", ".", "..", "a.b.c", &whole[1..], &format!("{whole}=")] {
            assert!(Assertion::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn keys_fit_by_their_purpose_algorithm_and_name_and_damaged_ones_verify_nothing() {
        let key = |json: &str| serde_json::from_str::<Key>(json).unwrap();
        let ec = key(r#"{"kty":"EC","crv":"P-256","kid":"1","use":"sig","alg":"ES256","x":"AA","y":"AA"}"#);
        assert!(ec.is_for("ES256", Some("1")) && ec.is_for("ES256", None));
        assert!(!ec.is_for("ES256", Some("2")) && !ec.is_for("RS256", None));
        assert!(!key(r#"{"kty":"EC","use":"enc"}"#).is_for("ES256", None));
        let rsa = key(r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#);
        for alg in ["ES256", "RS256", "PS256", "EdDSA", "HS256", "none"] {
            assert!(!ec.verifies(alg, b"x", &[0; 64]) && !rsa.verifies(alg, b"x", &[0; 256]), "{alg}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(text in ".{0,200}", header in ".{0,60}", claims in ".{0,60}") {
            let _ = Assertion::read(&text);
            let _ = Assertion::read(&token(&header, &claims));
        }
    }
}
