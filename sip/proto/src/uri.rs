//! URIs as views over their bytes: `sip:` and `sips:` (RFC 3261 §19.1), `tel:` (RFC 3966), and every other scheme kept
//! opaque (`urn:service:sos`, `http:`…), so that it can be routed or refused by name.
//!
//! Nothing is unescaped or copied while parsing. Comparison follows RFC 3261 §19.1.4 and RFC 3966 §4; [`Uri::write_aor`]
//! gives the one spelling under which bindings and users are kept.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::headers::Params;
use crate::headers::host::{ip, is_host};
use crate::message::decimal;
use crate::octet;

mod compare;
mod phone;

pub use phone::Phone;

/// The scheme of a URI.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    Sip,
    Sips,
    Tel,
    /// Any other; [`Uri::scheme_text`] has its name, [`Uri::rest`] what follows the colon.
    Other,
}

/// A URI, borrowed. For `tel:` the number is in [`Uri::user`] and the host is empty; for other schemes only the scheme
/// and the rest are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uri<'a> {
    text: &'a [u8],
    /// Length of the scheme, without its colon.
    scheme_len: u16,
    scheme: Scheme,
    user: Option<&'a [u8]>,
    password: Option<&'a [u8]>,
    host: &'a [u8],
    port: Option<u16>,
    params: Params<'a>,
    headers: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Reads an addr-spec: no angle brackets, no blanks. `None` when the grammar of its scheme is broken.
    pub fn parse(text: &'a [u8]) -> Option<Uri<'a>> {
        let colon = match text {
            // Nearly always.
            [_, _, _, b':', ..] if text[..3].eq_ignore_ascii_case(b"sip") => 3,
            _ => scheme_end(text)?,
        };
        let name = &text[..colon];
        let rest = &text[colon + 1..];
        let mut uri = Uri {
            text,
            scheme_len: colon as u16,
            scheme: Scheme::Other,
            user: None,
            password: None,
            host: b"",
            port: None,
            params: Params::default(),
            headers: b"",
        };
        if name.eq_ignore_ascii_case(b"sip") {
            uri.scheme = Scheme::Sip;
            uri.sip(rest)?;
        } else if name.eq_ignore_ascii_case(b"sips") {
            uri.scheme = Scheme::Sips;
            uri.sip(rest)?;
        } else if name.eq_ignore_ascii_case(b"tel") {
            uri.scheme = Scheme::Tel;
            let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
            uri.user = Some(&rest[..end]);
            uri.params = Params::new(&rest[end..]);
            Phone::parse(rest).filter(|_| !too_many(rest, b';'))?;
        } else if rest.is_empty() || octet::seen(rest) & octet::NOT_URI != 0 {
            return None;
        }
        Some(uri)
    }

    fn sip(&mut self, rest: &'a [u8]) -> Option<()> {
        let text = rest;
        // "@" can stand neither in parameters nor in headers unescaped, so the first one ends the userinfo.
        let (userinfo, rest) = match octet::at(text) {
            Some(at) => (Some(&text[..at]), &text[at + 1..]),
            None => (None, text),
        };
        let (before, seen) = (octet::seen(userinfo.unwrap_or_default()), octet::seen(rest));
        if (before | seen) & octet::NOT_URI != 0 || (before | seen) & octet::PERCENT != 0 && !escaped_well(text) {
            return None;
        }
        if let Some(userinfo) = userinfo {
            let (user, password) = match octet::colon(userinfo) {
                Some(colon) => (&userinfo[..colon], Some(&userinfo[colon + 1..])),
                None => (userinfo, None),
            };
            if user.is_empty() || seen & octet::AT != 0 {
                return None;
            }
            (self.user, self.password) = (Some(user), password);
        }
        // Nearly always a name or an IPv4 address, and nothing else.
        if seen & octet::NOT_HOST == 0 && !rest.is_empty() {
            self.host = rest;
            return Some(());
        }
        let end = if rest.first() == Some(&b'[') {
            memchr::memchr(b']', rest)? + 1
        } else {
            octet::host_end(rest).unwrap_or(rest.len())
        };
        self.host = &rest[..end];
        if !is_host(self.host) {
            return None;
        }
        let mut rest = &rest[end..];
        if let [b':', port @ ..] = rest {
            let digits = port.iter().take_while(|b| b.is_ascii_digit()).count();
            self.port = Some(decimal(&port[..digits]).and_then(|n| u16::try_from(n).ok())?);
            rest = &port[digits..];
        }
        let params_end = if seen & octet::QUESTION == 0 {
            rest.len()
        } else {
            octet::first(rest, octet::QUESTION).unwrap_or(rest.len())
        };
        let (params, headers) = (&rest[..params_end], &rest[params_end..]);
        if !matches!(params, [] | [b';', ..]) || too_many(params, b';') || too_many(headers, b'&') {
            return None;
        }
        self.params = Params::new(params);
        self.headers = headers.strip_prefix(b"?").unwrap_or_default();
        Some(())
    }

    pub fn as_bytes(&self) -> &'a [u8] {
        self.text
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The scheme as spelt, without the colon.
    pub fn scheme_text(&self) -> &'a [u8] {
        &self.text[..self.scheme_len as usize]
    }

    /// What follows the scheme's colon.
    pub fn rest(&self) -> &'a [u8] {
        &self.text[self.scheme_len as usize + 1..]
    }

    /// `sip:` or `sips:`.
    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// The user part with its escapes, or a tel number as dialled; `None` for `sip:host`.
    pub fn user(&self) -> Option<&'a [u8]> {
        self.user
    }

    /// The user part with its escapes resolved.
    pub fn user_decoded(&self) -> Option<Cow<'a, [u8]>> {
        self.user.map(decoded)
    }

    pub fn password(&self) -> Option<&'a [u8]> {
        self.password
    }

    /// A name or an address; IPv6 keeps its brackets. Empty unless [`Uri::is_sip`].
    pub fn host(&self) -> &'a [u8] {
        self.host
    }

    /// The host, when it is an address.
    pub fn host_ip(&self) -> Option<IpAddr> {
        ip(self.host)
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port to use, with the scheme's default when none is written (RFC 3261 §19.1.2).
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(if self.scheme == Scheme::Sips { 5061 } else { 5060 })
    }

    pub fn params(&self) -> Params<'a> {
        self.params
    }

    /// What follows `?`, unread: `Route=%3C…&Priority=urgent`.
    pub fn headers(&self) -> &'a [u8] {
        self.headers
    }

    /// Names and values of the headers after `?`, still escaped.
    pub fn header_fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        header_fields(self.headers)
    }

    /// The `transport` parameter as spelt.
    pub fn transport(&self) -> Option<&'a [u8]> {
        self.params.get("transport")
    }

    /// A loose router (RFC 3261 §16.12).
    pub fn has_lr(&self) -> bool {
        self.params.has("lr")
    }

    pub fn maddr(&self) -> Option<&'a [u8]> {
        self.params.get("maddr")
    }

    /// The `gr` parameter of a GRUU (RFC 5627): `Some(b"")` marks a temporary one.
    pub fn gr(&self) -> Option<&'a [u8]> {
        self.params.get("gr")
    }

    /// The telephone number in a `tel:` URI or in the user part of a `sip:` URI with `user=phone` (RFC 3261 §19.1.6).
    pub fn phone(&self) -> Option<Phone<'a>> {
        match self.scheme {
            Scheme::Tel => Phone::parse(self.rest()),
            Scheme::Sip | Scheme::Sips if self.params.get("user").is_some_and(|v| v.eq_ignore_ascii_case(b"phone")) => {
                Phone::parse(self.user?)
            }
            _ => None,
        }
    }

    /// Whether both name the same resource (RFC 3261 §19.1.4; RFC 3966 §4 for `tel:`; other schemes byte for byte after
    /// a case-insensitive scheme).
    pub fn equivalent(&self, other: &Uri<'_>) -> bool {
        compare::equivalent(self, other)
    }

    /// Appends the canonical address of record (RFC 3261 §10.3 step 5): `sip:user@host` without port, password,
    /// parameters and headers, the host in lower case, needless escapes resolved; `sips:` gives the `sip:` form too
    /// (RFC 5630 §5: one AoR); `tel:` and `user=phone` numbers lose their visual separators.
    ///
    /// Two URIs with one AoR give the same bytes. Opaque schemes are copied with the scheme in lower case.
    pub fn write_aor(&self, out: &mut Vec<u8>) {
        match self.scheme {
            Scheme::Sip | Scheme::Sips => {
                out.extend_from_slice(b"sip:");
                if let Some(user) = self.user {
                    match self.phone() {
                        Some(phone) => {
                            let from = out.len();
                            phone.write_canonical(out);
                            if memchr::memchr(b'%', &out[from..]).is_some() {
                                let escaped = out.split_off(from);
                                write_canonical(&escaped, out);
                            }
                        }
                        None => write_canonical(user, out),
                    }
                    out.push(b'@');
                }
                out.extend(self.host.iter().map(u8::to_ascii_lowercase));
            }
            Scheme::Tel => {
                out.extend_from_slice(b"tel:");
                if let Some(phone) = self.phone() {
                    phone.write_canonical(out);
                }
            }
            Scheme::Other => {
                out.extend(self.scheme_text().iter().map(u8::to_ascii_lowercase));
                out.push(b':');
                out.extend_from_slice(self.rest());
            }
        }
    }

    /// [`Uri::write_aor`] into a new vector.
    pub fn aor(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len());
        self.write_aor(&mut out);
        out
    }

    pub fn to_owned(&self) -> OwnedUri {
        OwnedUri { text: self.text.into() }
    }
}

/// A URI that owns its bytes: at most what one message could hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OwnedUri {
    text: Box<[u8]>,
}

impl OwnedUri {
    pub fn parse(text: &[u8]) -> Option<OwnedUri> {
        Uri::parse(text).map(|u| u.to_owned())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    pub fn view(&self) -> Uri<'_> {
        match Uri::parse(&self.text) {
            Some(uri) => uri,
            // Only parsed text gets into `text`, and parsing has no state.
            None => unreachable!("an OwnedUri holds a URI"),
        }
    }
}

/// Appends arbitrary octets as a user part: everything outside `unreserved` and `user-unreserved` becomes `%HH`.
pub fn write_user(octets: &[u8], out: &mut Vec<u8>) {
    for &b in octets {
        push_user(b, out);
    }
}

/// Appends octets as a URI parameter's or URI header's value: everything outside `unreserved` becomes `%HH`.
pub fn write_escaped(octets: &[u8], out: &mut Vec<u8>) {
    for &b in octets {
        if is_unreserved(b) { out.push(b) } else { push_escape(b, out) }
    }
}

/// Octets with `%HH` resolved; a `%` without two hex digits stays.
pub fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(octets(text).collect())
}

/// The same, one octet at a time and without allocating.
pub(crate) fn octets(text: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut i = 0;
    std::iter::from_fn(move || {
        let b = *text.get(i)?;
        match (b, escape_at(text, i)) {
            (b'%', Some(value)) => {
                i += 3;
                Some(value)
            }
            _ => {
                i += 1;
                Some(b)
            }
        }
    })
}

fn write_canonical(user: &[u8], out: &mut Vec<u8>) {
    if memchr::memchr(b'%', user).is_none() {
        out.extend_from_slice(user);
    } else {
        octets(user).for_each(|b| push_user(b, out));
    }
}

fn push_user(b: u8, out: &mut Vec<u8>) {
    if is_unreserved(b) || matches!(b, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/') {
        out.push(b);
    } else {
        push_escape(b, out);
    }
}

pub fn push_escape(b: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
}

fn header_fields(headers: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.split(|b| *b == b'&').filter(|f| !f.is_empty()).map(|f| match memchr::memchr(b'=', f) {
        Some(eq) => (&f[..eq], &f[eq + 1..]),
        None => (f, &f[f.len()..]),
    })
}

fn escape_at(text: &[u8], i: usize) -> Option<u8> {
    let high = (*text.get(i + 1)? as char).to_digit(16)?;
    let low = (*text.get(i + 2)? as char).to_digit(16)?;
    Some((high * 16 + low) as u8)
}

/// Where the colon stands (RFC 3986 §3.1); schemes of more than 64 letters are none.
fn scheme_end(text: &[u8]) -> Option<usize> {
    let colon = text.iter().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')))?;
    (text[colon] == b':' && text[0].is_ascii_alphabetic() && colon <= 64).then_some(colon)
}

/// Parameters, and headers, that one URI may hold: comparing two URIs looks at each pair.
const MAX_PARAMS: usize = 64;

fn too_many(text: &[u8], mark: u8) -> bool {
    text.len() > MAX_PARAMS && memchr::memchr_iter(mark, text).count() > MAX_PARAMS
}

/// Every `%` has its two hex digits.
fn escaped_well(text: &[u8]) -> bool {
    let mut from = 0;
    while let Some(at) = memchr::memchr(b'%', &text[from..]) {
        from += at;
        if escape_at(text, from).is_none() {
            return false;
        }
        from += 3;
    }
    true
}

/// RFC 3261 §25.1 `unreserved`.
fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri<'_> {
        Uri::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn all_parts_of_a_sip_uri() {
        let u = uri(
            "SIPS:alice;day=tue:se%20cret@[2001:db8::10]:5070;transport=TCP;lr;x=%41?Subject=a%20b&Priority=urgent",
        );
        assert_eq!(u.scheme(), Scheme::Sips);
        assert_eq!(u.user(), Some(&b"alice;day=tue"[..]));
        assert_eq!(u.password(), Some(&b"se%20cret"[..]));
        assert_eq!(u.host(), b"[2001:db8::10]");
        assert_eq!(u.host_ip(), Some("2001:db8::10".parse().unwrap()));
        assert_eq!((u.port(), u.port_or_default()), (Some(5070), 5070));
        assert_eq!(u.transport(), Some(&b"TCP"[..]));
        assert!(u.has_lr());
        let fields: Vec<_> = u.header_fields().collect();
        assert_eq!(fields, [(&b"Subject"[..], &b"a%20b"[..]), (b"Priority", b"urgent")]);
    }

    #[test]
    fn a_user_part_may_hold_what_looks_like_parameters() {
        // RFC 4475 §3.1.1.9.
        let u = uri("sip:user;par=u%40example.net@example.com");
        assert_eq!(u.user(), Some(&b"user;par=u%40example.net"[..]));
        assert_eq!(u.user_decoded().unwrap().as_ref(), b"user;par=u@example.net");
        assert_eq!(u.host(), b"example.com");
    }

    #[test]
    fn other_schemes_stay_opaque() {
        let u = uri("urn:service:sos.fire");
        assert_eq!((u.scheme(), u.scheme_text(), u.rest()), (Scheme::Other, &b"urn"[..], &b"service:sos.fire"[..]));
        assert_eq!(uri("nobodyKnowsThisScheme:totallyopaquecontent").scheme(), Scheme::Other);
        assert_eq!(uri("soap.beep://192.0.2.103:3002").scheme_text(), b"soap.beep");
    }

    #[test]
    fn what_is_not_a_uri_is_refused() {
        for text in [
            "",
            "sip",
            "sip:",
            ":x",
            "1sip:a",
            "sip:@h",
            "sip:a@",
            "sip:a@h:",
            "sip:a@h:99999",
            "sip:a@h:5060x",
            "sip:a b@h",
            "sip:a%4@h",
            "sip:a%zz@h",
            "sip:a@[::1",
            "sip:a@[zz]",
            "sip:a@h>;x",
            "sip:a@b@c",
            "sip:a@h:-1",
            "sip:h;x=%q1",
            "sip:a@h\r\n",
            "tel:",
            "tel:+",
            "tel:abc-x",
            "urn:",
            "urn:a b",
        ] {
            assert_eq!(Uri::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn parameters_and_headers_are_bounded() {
        for (start, one) in [("sip:h", ";a=1"), ("tel:+1", ";a=1"), ("sip:h?x=y", "&a=1")] {
            assert!(Uri::parse(format!("{start}{}", one.repeat(64)).as_bytes()).is_some());
            assert!(Uri::parse(format!("{start}{}", one.repeat(65)).as_bytes()).is_none());
        }
    }

    #[test]
    fn one_address_of_record_has_one_spelling() {
        for (text, aor) in [
            ("sip:alice@Example.COM:5060;transport=tcp?x=y", "sip:alice@example.com"),
            ("sips:%61lice:pw@example.com", "sip:alice@example.com"),
            ("sip:a%40b%2f@example.com", "sip:a%40b/@example.com"),
            ("sip:Alice@example.com", "sip:Alice@example.com"),
            ("sip:example.com", "sip:example.com"),
            ("sip:+1-201-(555).0123;isub=9;phone-context=X@h;user=phone", "sip:+12015550123@h"),
            ("sip:+1-2;ext=%217@h;user=phone", "sip:+12;ext=!7@h"),
            ("tel:+1-201-555-0123;ext=7", "tel:+12015550123;ext=7"),
            ("TEL:7042;phone-context=Example.com", "tel:7042;phone-context=example.com"),
            ("URN:service:sos", "urn:service:sos"),
        ] {
            assert_eq!(String::from_utf8(uri(text).aor()).unwrap(), aor);
        }
    }

    #[test]
    fn written_user_parts_read_back() {
        let name: Vec<u8> = (0..=255).collect();
        let mut text = b"sip:".to_vec();
        write_user(&name, &mut text);
        text.extend_from_slice(b"@h");
        assert_eq!(Uri::parse(&text).unwrap().user_decoded().unwrap().as_ref(), &name[..]);
    }

    #[test]
    fn owned_uris_give_the_same_view() {
        let u = uri("sip:bob@h;x=1");
        assert_eq!(u.to_owned().view(), u);
        assert!(OwnedUri::parse(b"sip:").is_none());
    }
}
