//! The cookie of a session (RFC 6265): its text, and where it stands in a request.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// What a cookie says: whose session, and the secret that proves it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub user: String,
    pub secret: Secret,
}

/// Drawn at random, then sealed: see [`super::Sessions`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret {
    pub drawn: [u8; 16],
    pub seal: [u8; 16],
}

impl Secret {
    pub fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.drawn);
        bytes[16..].copy_from_slice(&self.seal);
        bytes
    }
}

impl Token {
    pub fn read(text: &str) -> Option<Token> {
        let (user, secret) = text.split_once('.').filter(|_| text.len() <= MAX_TOKEN)?;
        let user = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(user).ok()?).ok()?;
        let secret: [u8; 32] = BASE64_URL_SAFE_NO_PAD.decode(secret).ok()?.try_into().ok()?;
        let (drawn, seal) = secret.split_at(16);
        Some(Token { user, secret: Secret { drawn: drawn.try_into().ok()?, seal: seal.try_into().ok()? } })
    }

    /// Letters, digits, `-`, `_` and a dot.
    pub fn write(&self) -> String {
        let [user, secret] = [self.user.as_bytes(), &self.secret.bytes()].map(|b| BASE64_URL_SAFE_NO_PAD.encode(b));
        format!("{user}.{secret}")
    }
}

/// The value of a cookie in the Cookie headers of a request, the first of that name (§5.4).
pub fn find<'v>(headers: impl IntoIterator<Item = &'v str>, name: &str) -> Option<&'v str> {
    let pairs = headers.into_iter().flat_map(|h| h.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.map(|(n, value)| (n.trim(), value.trim())).find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// An id of 128 bytes, a dot, and 32 bytes, with room.
const MAX_TOKEN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = Token { user: "alice@home".into(), secret: Secret { drawn: [1; 16], seal: [255; 16] } };
        let text = token.write();
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{text}");
        assert!(Token::read(&text).is_some_and(|read| read == token));
        for bad in
            ["", ".", "YQ", "YQ.", &text[..text.len() - 1], &format!("{text}A"), &format!("{text}="), &"A".repeat(300)]
        {
            assert!(Token::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let found = |lines: &[&'static str]| find(lines.iter().copied(), "session");
        assert_eq!(found(&["session=a.b"]), Some("a.b"));
        assert_eq!(found(&["x=1; xsession=2", "y; session = a.b ;z=3; session=c"]), Some("a.b"));
        for none in ["", "session", "Session=a", "xsession=a", ";;==;"] {
            assert_eq!(found(&[none]), None, "{none}");
        }
    }
}
