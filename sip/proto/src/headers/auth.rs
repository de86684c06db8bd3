//! `WWW-Authenticate`, `Proxy-Authenticate`, `Authorization`, `Proxy-Authorization` (RFC 3261 §20.7, §20.44; RFC 8760).
//!
//! One value stands on one line: the commas in it part parameters, not values, so these headers are read with
//! [`crate::Message::values`], never with [`super::list`].

use crate::digest::{Algorithm, write_name, write_nc, write_quoted};
use crate::message::{self, is_token, trim};

/// Parameters read from one value; more make the value unreadable.
const MAX_PARAMS: usize = 32;

/// Quality of protection (RFC 7616 §3.4): what the response covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Qop {
    Auth,
    /// The body too.
    AuthInt,
}

impl Qop {
    pub fn as_str(self) -> &'static str {
        match self {
            Qop::Auth => "auth",
            Qop::AuthInt => "auth-int",
        }
    }

    fn from_token(token: &[u8]) -> Option<Qop> {
        [Qop::Auth, Qop::AuthInt].into_iter().find(|q| q.as_str().as_bytes().eq_ignore_ascii_case(token))
    }
}

/// Digest credentials as a client sent them. Quoted values are without their quotes, escapes kept, as they were hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Credentials<'a> {
    pub username: &'a [u8],
    pub realm: &'a [u8],
    pub nonce: &'a [u8],
    pub uri: &'a [u8],
    /// Hexadecimal digits, any case; empty in an IMS client's first REGISTER (TS 24.229 §5.1.1.2).
    pub response: &'a [u8],
    /// As sent; `None` means MD5.
    pub algorithm: Option<&'a [u8]>,
    pub cnonce: &'a [u8],
    pub opaque: Option<&'a [u8]>,
    /// As sent, so that an unknown one is not mistaken for none.
    pub qop: Option<&'a [u8]>,
    /// The nonce count's digits as they were hashed.
    pub nc: &'a [u8],
    /// Base64 of 14 octets: the SIM asks for resynchronisation (RFC 3310 §3.4).
    pub auts: Option<&'a [u8]>,
}

impl<'a> Credentials<'a> {
    /// `None` for another scheme, broken grammar, a repeated parameter, or when username, realm, uri, or the nonce of a response is missing.
    pub fn parse(value: &'a [u8]) -> Option<Credentials<'a>> {
        Credentials::read(value, None)
    }

    /// The same, but `target` is the uri of credentials that name none, as those of an MSRP AUTH (RFC 4976 §9.1).
    pub fn about(target: &'a [u8], value: &'a [u8]) -> Option<Credentials<'a>> {
        Credentials::read(value, Some(target))
    }

    fn read(value: &'a [u8], target: Option<&'a [u8]>) -> Option<Credentials<'a>> {
        let mut c = Credentials { uri: target.unwrap_or_default(), ..Credentials::default() };
        let mut seen = 0u16;
        let mut once = |bit: u16| {
            let repeated = seen & 1 << bit != 0;
            seen |= 1 << bit;
            (!repeated).then_some(())
        };
        for param in params(value)? {
            let (name, text) = param?;
            // Names are told apart by length first: this runs for every REGISTER.
            match name.len() {
                2 if is(name, "nc") => (once(0)?, c.nc = text).1,
                3 if is(name, "uri") => (once(1)?, c.uri = text).1,
                3 if is(name, "qop") => (once(2)?, c.qop = Some(text)).1,
                4 if is(name, "auts") => (once(3)?, c.auts = Some(text)).1,
                5 if is(name, "realm") => (once(4)?, c.realm = text).1,
                5 if is(name, "nonce") => (once(5)?, c.nonce = text).1,
                6 if is(name, "cnonce") => (once(6)?, c.cnonce = text).1,
                6 if is(name, "opaque") => (once(7)?, c.opaque = Some(text)).1,
                8 if is(name, "username") => (once(8)?, c.username = text).1,
                8 if is(name, "response") => (once(9)?, c.response = text).1,
                9 if is(name, "algorithm") => (once(10)?, c.algorithm = Some(text)).1,
                _ => {}
            }
        }
        // username, realm, nonce, uri; their values may be empty. An IMS client's first REGISTER has an empty nonce and an empty
        // response (TS 24.229 §5.1.1.2); some leave the nonce out.
        let needed = 1 << 8 | 1 << 4 | u16::from(!c.response.is_empty()) << 5 | u16::from(target.is_none()) << 1;
        (seen & needed == needed).then_some(c)
    }

    /// MD5 when none is named (RFC 7616 §3.4); `None` for one that we do not know.
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm.map_or(Some(Algorithm::Md5), Algorithm::from_token)
    }

    /// `Some(None)`: an old client without qop (RFC 2069); `None`: one that we do not know.
    pub fn qop(&self) -> Option<Option<Qop>> {
        match self.qop {
            None => Some(None),
            Some(token) => Qop::from_token(token).map(Some),
        }
    }

    /// The nonce count: 8 hexadecimal digits. Fewer are read too; some clients leave the zeros out.
    pub fn nonce_count(&self) -> Option<u32> {
        if self.nc.is_empty() || self.nc.len() > 8 {
            return None;
        }
        self.nc.iter().try_fold(0u32, |n, b| Some(n << 4 | u32::from(crate::digest::hex_digit(*b)?)))
    }

    /// Writes the value, scheme included.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Digest ");
        let mut first = true;
        let quoted = [
            ("username", Some(self.username)),
            ("realm", Some(self.realm)),
            ("nonce", Some(self.nonce)),
            ("uri", Some(self.uri)),
            ("response", Some(self.response)),
            ("cnonce", (self.qop.is_some() || !self.cnonce.is_empty()).then_some(self.cnonce)),
            ("opaque", self.opaque),
            ("auts", self.auts),
        ];
        for (name, value) in quoted {
            if let Some(value) = value {
                write_name(out, &mut first, name);
                write_raw_quoted(out, value);
            }
        }
        for (name, value) in [("algorithm", self.algorithm), ("qop", self.qop), ("nc", self.qop.map(|_| self.nc))] {
            if let Some(value) = value {
                write_name(out, &mut first, name);
                out.extend(value.iter().filter(|b| is_token(**b)));
            }
        }
    }

    /// A nonce count as it is written and hashed.
    pub fn nc_digits(nc: u32) -> [u8; 8] {
        let mut text = Vec::with_capacity(8);
        write_nc(&mut text, nc);
        let mut digits = [b'0'; 8];
        digits.copy_from_slice(&text);
        digits
    }
}

/// A digest challenge as a server sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Challenge<'a> {
    pub realm: &'a [u8],
    pub nonce: &'a [u8],
    /// As sent; `None` means MD5.
    pub algorithm: Option<&'a [u8]>,
    /// A comma-separated list of what the server takes.
    pub qop: Option<&'a [u8]>,
    pub opaque: Option<&'a [u8]>,
    /// The password was right, only the nonce was not (RFC 7616 §3.3).
    pub stale: bool,
}

impl<'a> Challenge<'a> {
    /// `None` for another scheme, broken grammar, or when realm or nonce is missing.
    pub fn parse(value: &'a [u8]) -> Option<Challenge<'a>> {
        let mut c = Challenge::default();
        let (mut realm, mut nonce) = (None, None);
        for param in params(value)? {
            let (name, text) = param?;
            match name {
                n if is(n, "realm") => realm = Some(text),
                n if is(n, "nonce") => nonce = Some(text),
                n if is(n, "algorithm") => c.algorithm = Some(text),
                n if is(n, "qop") => c.qop = Some(text),
                n if is(n, "opaque") => c.opaque = Some(text),
                n if is(n, "stale") => c.stale = is(text, "true"),
                _ => {}
            }
        }
        (c.realm, c.nonce) = (realm?, nonce?);
        Some(c)
    }

    pub fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm.map_or(Some(Algorithm::Md5), Algorithm::from_token)
    }

    pub fn offers(&self, qop: Qop) -> bool {
        self.qop.is_some_and(|list| list.split(|b| *b == b',').any(|q| Qop::from_token(trim(q)) == Some(qop)))
    }

    /// Writes the value, scheme included.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Digest ");
        let mut first = true;
        let quoted =
            [("realm", Some(self.realm)), ("nonce", Some(self.nonce)), ("opaque", self.opaque), ("qop", self.qop)];
        for (name, value) in quoted {
            if let Some(value) = value {
                write_name(out, &mut first, name);
                write_raw_quoted(out, value);
            }
        }
        if let Some(algorithm) = self.algorithm {
            write_name(out, &mut first, "algorithm");
            out.extend(algorithm.iter().filter(|b| is_token(**b)));
        }
        if self.stale {
            out.extend_from_slice(b", stale=true");
        }
    }
}

/// Writes text that is already escaped as it should stand; a quote that is not escaped is mended.
fn write_raw_quoted(out: &mut Vec<u8>, text: &[u8]) {
    if is_quotable(text) {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    } else {
        write_quoted(out, text);
    }
}

/// Neither a control character nor a quote that is not escaped.
fn is_quotable(text: &[u8]) -> bool {
    // Nearly always; looked at many octets at a time.
    if !message::any(text, |b| (b < 32) | (b == 127) | (b == b'"') | (b == b'\\')) {
        return true;
    }
    let mut escaped = false;
    let clean = text.iter().all(|b| {
        let bad = *b < 32 || *b == 127 || (*b == b'"' && !escaped);
        escaped = *b == b'\\' && !escaped;
        !bad
    });
    clean && !escaped
}

fn is(name: &[u8], word: &str) -> bool {
    name.eq_ignore_ascii_case(word.as_bytes())
}

/// A name and its value.
type Pair<'a> = (&'a [u8], &'a [u8]);
type Param<'a> = Option<Pair<'a>>;

/// The parameters after `Digest`; an item is `None` where the grammar breaks.
fn params(value: &[u8]) -> Option<impl Iterator<Item = Param<'_>>> {
    let value = trim(value);
    let (scheme, rest) = value.split_at_checked(6)?;
    if !is(scheme, "Digest") || !matches!(rest.first(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        return None;
    }
    let mut rest = Some(rest);
    let mut count = 0;
    Some(std::iter::from_fn(move || {
        loop {
            let s = rest?;
            if count < MAX_PARAMS
                && let Some((pair, after)) = plain_pair(s)
            {
                count += 1;
                rest = after;
                return Some(Some(pair));
            }
            let end = find_comma(s);
            let item = trim(&s[..end]);
            rest = s.get(end + 1..);
            if item.is_empty() {
                continue;
            }
            count += 1;
            let pair = (count <= MAX_PARAMS).then(|| name_value(item)).flatten();
            if pair.is_none() {
                rest = None;
            }
            return Some(pair);
        }
    }))
}

/// A pair in the shape that nearly everybody writes: `name=token` or `name="text"` without escapes, with a comma or the end
/// right behind it. Then what follows the comma. Anything else is `None`, and read with more care.
#[inline]
fn plain_pair(s: &[u8]) -> Option<(Pair<'_>, Option<&[u8]>)> {
    let s = &s[s.iter().position(|b| *b != b' ')?..];
    let eq = s.iter().position(|b| !is_token(*b)).filter(|n| *n > 0)?;
    let (name, value) = (&s[..eq], s[eq..].strip_prefix(b"=")?);
    let (text, after) = match value.strip_prefix(b"\"") {
        Some(quoted) => {
            let end = memchr::memchr2(b'"', b'\\', quoted).filter(|at| quoted[*at] == b'"')?;
            (&quoted[..end], &quoted[end + 1..])
        }
        None => value.split_at(value.iter().position(|b| !is_token(*b)).unwrap_or(value.len())),
    };
    match after {
        [] => Some(((name, text), None)),
        [b',', rest @ ..] => Some(((name, text), Some(rest))),
        _ => None,
    }
}

/// Offset of the first comma outside quotes. Unlike a list's, a `<` has no meaning here.
fn find_comma(s: &[u8]) -> usize {
    match memchr::memchr2(b',', b'"', s) {
        None => s.len(),
        Some(i) if s[i] == b',' => i,
        Some(i) => match closing_quote(&s[i..]) {
            Some(close) => i + close + 1 + find_comma_after(&s[i + close + 1..]),
            None => s.len(),
        },
    }
}

/// What follows a closing quote is a comma or the end; anything else makes the pair unreadable later.
fn find_comma_after(s: &[u8]) -> usize {
    memchr::memchr(b',', s).unwrap_or(s.len())
}

/// `s` begins with a quote: offset of the one that closes it.
fn closing_quote(s: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', s.get(at..)?)?;
        if s[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

fn name_value(item: &[u8]) -> Param<'_> {
    let eq = memchr::memchr(b'=', item)?;
    let (name, value) = (trim(&item[..eq]), trim(&item[eq + 1..]));
    if name.is_empty() {
        return None;
    }
    if value.first() != Some(&b'"') {
        return Some((name, value));
    }
    // Only one quoted string, to the end of the item.
    (closing_quote(value)? == value.len() - 1).then(|| (name, &value[1..value.len() - 1]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credentials_of_rfc_3261_are_read() {
        let c = Credentials::parse(
            b"Digest username=\"bob\",\r\n realm=\"biloxi.com\", nonce=\"dcd9\", uri=\"sip:bob@biloxi.com\",\r\n qop=auth,\
              nc=0000000A, cnonce=\"0a4f,113b\", response=\"6629fae49393a05397450978507c4ef1\", opaque=\"5c\\\"cc\", X=y",
        )
        .unwrap();
        assert_eq!(c.username, b"bob");
        assert_eq!(c.cnonce, b"0a4f,113b");
        assert_eq!(c.opaque, Some(&b"5c\\\"cc"[..]));
        assert_eq!(c.nonce_count(), Some(10));
        assert_eq!(c.qop(), Some(Some(Qop::Auth)));
        assert_eq!(c.algorithm(), Some(Algorithm::Md5));
    }

    #[test]
    fn credentials_of_rfc_4976_name_no_uri() {
        let value =
            b"Digest username=\"Alice\", realm=\"intra.example.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
                      qop=auth, nc=00000001, cnonce=\"0a4f113b\", response=\"6629fae49393a05397450978507c4ef1\"";
        assert_eq!(Credentials::parse(value), None);
        let relay = b"msrps://alice@intra.example.com;tcp";
        assert_eq!(Credentials::about(relay, value).unwrap().uri, relay);
        let named = [&value[..], b", uri=\"msrps://b;tcp\""].concat();
        assert_eq!(Credentials::about(relay, &named).unwrap().uri, b"msrps://b;tcp");
    }

    #[test]
    fn hexadecimal_nonce_counts_are_read_as_hexadecimal() {
        let count = |nc| Credentials { nc, ..Credentials::default() }.nonce_count();
        assert_eq!(count(b"00000010"), Some(16));
        assert_eq!(count(b"ffffffff"), Some(u32::MAX));
        assert_eq!(count(b"000000001"), None);
        assert_eq!(count(b"0000000g"), None);
        assert_eq!(count(b""), None);
    }

    #[test]
    fn broken_or_foreign_credentials_are_refused() {
        let full = b"Digest username=\"a\",realm=\"r\",nonce=\"\",uri=\"sip:r\",response=\"\"";
        assert!(Credentials::parse(full).is_some());
        let first = b"Digest username=\"a\",realm=\"r\",uri=\"sip:r\",algorithm=SHA-256,response=\"\"";
        assert!(Credentials::parse(first).is_some_and(|c| c.nonce.is_empty()));
        for bad in [
            &b"Basic dXNlcjpwYXNz"[..],
            b"Digest",
            b"Digestusername=\"a\"",
            b"Digest username=\"a\",realm=\"r\",nonce=\"n\"",
            b"Digest username=\"a\",realm=\"r\",uri=\"sip:r\",response=\"0\"",
            b"Digest username=\"a\",username=\"b\",realm=\"r\",nonce=\"\",uri=\"u\"",
            b"Digest username=\"a,realm=\"r\",nonce=\"\",uri=\"u\"",
            b"Digest username=\"a\"b,realm=\"r\",nonce=\"\",uri=\"u\"",
            b"Digest username=\"a\",realm=\"r\",nonce=\"\",uri=\"u",
            b"Digest username=\"a\",realm=\"r\",nonce=\"\",uri=\"u\",=x",
        ] {
            assert_eq!(Credentials::parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
        let mut many = full.to_vec();
        (0..MAX_PARAMS).for_each(|_| many.extend_from_slice(b",x=y"));
        assert_eq!(Credentials::parse(&many), None);
    }

    #[test]
    fn a_challenge_prints_what_it_read() {
        let text = b"Digest realm=\"a b\", nonce=\"n,1\", qop=\"auth,auth-int\", algorithm=SHA-256, stale=true";
        let c = Challenge::parse(text).unwrap();
        assert!(c.stale && c.offers(Qop::Auth) && c.offers(Qop::AuthInt));
        let mut out = Vec::new();
        c.write(&mut out);
        assert_eq!(Challenge::parse(&out), Some(c));
        assert_eq!(Challenge::parse(b"Digest nonce=\"a\""), None);
    }

    proptest! {
        #[test]
        fn credentials_print_and_read_back(
            user in "[a-z@.:, =<>]{0,20}", nonce in "[a-zA-Z0-9+/=]{0,60}", nc in any::<u32>(), cnonce in "[ -!#-\\[\\]-~]{0,20}",
        ) {
            let nc = Credentials::nc_digits(nc);
            let c = Credentials {
                username: user.as_bytes(), realm: b"home", nonce: nonce.as_bytes(), uri: b"sip:home", response: b"00ff",
                algorithm: Some(b"SHA-256"), cnonce: cnonce.as_bytes(), qop: Some(b"auth"), nc: &nc, opaque: None, auts: None,
            };
            let mut out = Vec::new();
            c.write(&mut out);
            prop_assert_eq!(Credentials::parse(&out), Some(c));
        }

        #[test]
        fn no_octets_make_the_readers_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut value = b"Digest ".to_vec();
            value.extend_from_slice(&octets);
            let _ = Credentials::parse(&value);
            let _ = Challenge::parse(&value);
        }
    }
}
