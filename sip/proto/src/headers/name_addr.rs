//! `"Display" <uri>;param` or `uri;param` (RFC 3261 §20.10, §25.1): From, To, Contact, Route, Record-Route, Path,
//! Service-Route, P-Asserted-Identity, P-Associated-URI, Refer-To, Diversion, History-Info and their like.

use std::borrow::Cow;

use super::param::{Params, quoted_end, unquoted};
use crate::message::{any, is_lws, is_token, trim};
use crate::octet;
use crate::uri::Uri;

/// One value. All slices are parts of the value that was parsed, so that `Message::range_of` finds them again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameAddr<'a> {
    /// The display name as written, quotes included; empty when there is none.
    pub display: &'a [u8],
    /// The addr-spec, without angle brackets; `*` for [`NameAddr::is_star`].
    pub addr: &'a [u8],
    /// Whether angle brackets stood around the addr-spec. Without them, what follows `;` belongs to the header.
    pub bracketed: bool,
    /// The header's parameters, after the URI.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one value (not a list). The URI itself is read by [`NameAddr::uri`].
    pub fn parse(value: &'a [u8]) -> Option<NameAddr<'a>> {
        let value = trim(value);
        let open = match value.first()? {
            b'<' => 0,
            b'"' => {
                let after = quoted_end(value)?;
                let gap = value[after..].iter().take_while(|b| is_lws(**b)).count();
                if value.get(after + gap) != Some(&b'<') {
                    return None;
                }
                after + gap
            }
            _ => match octet::stop(value, b';') {
                Some(i) if value[i] == b'<' => i,
                _ => return NameAddr::bare(value),
            },
        };
        let display = trim(&value[..open]);
        if !matches!(display, [] | [b'"', ..]) && !display.iter().all(|b| may_stand_unquoted(*b)) {
            return None;
        }
        let inner = &value[open + 1..];
        let close = octet::addr_end(inner)?;
        let (addr, params) = (&inner[..close], trim(&inner[close + 1..]));
        if inner[close] != b'>' || addr.is_empty() || !matches!(params, [] | [b';', ..]) {
            return None;
        }
        Some(NameAddr { display, addr, bracketed: true, params: Params::closed(params)? })
    }

    fn bare(value: &'a [u8]) -> Option<NameAddr<'a>> {
        let end = octet::first(value, octet::SEMICOLON).unwrap_or(value.len());
        let addr = trim(&value[..end]);
        // RFC 3261 §20: a bare URI may hold neither a comma nor a question mark.
        if addr.is_empty() || any(addr, |b| b <= b' ' || matches!(b, b',' | b'?' | b'"' | b'<' | b'>')) {
            return None;
        }
        Some(NameAddr { display: &value[..0], addr, bracketed: false, params: Params::closed(&value[end..])? })
    }

    /// The `*` of a Contact that removes all bindings (RFC 3261 §10.2.2).
    pub fn is_star(&self) -> bool {
        self.addr == b"*" && !self.bracketed
    }

    pub fn uri(&self) -> Option<Uri<'a>> {
        Uri::parse(self.addr)
    }

    /// The display name without quotes and backslashes.
    pub fn display_name(&self) -> Cow<'a, [u8]> {
        unquoted(self.display)
    }

    /// The `tag` of From and To; an empty one counts as none.
    pub fn tag(&self) -> Option<&'a [u8]> {
        let tag = match self.params.as_bytes() {
            // Nearly always.
            [b';', b't', b'a', b'g', b'=', tag @ ..] if tag.iter().all(|b| is_token(*b)) => Some(tag),
            _ => self.params.get("tag"),
        };
        tag.filter(|t| !t.is_empty())
    }

    /// The whole value as one slice of the source, from display name to the last parameter.
    pub fn write(&self, out: &mut Vec<u8>) {
        if !self.display.is_empty() {
            out.extend_from_slice(self.display);
            out.push(b' ');
        }
        if self.is_star() {
            out.push(b'*');
        } else {
            out.push(b'<');
            out.extend_from_slice(self.addr);
            out.push(b'>');
        }
        out.extend_from_slice(self.params.as_bytes());
    }
}

/// Appends a display name from arbitrary text as a quoted string (RFC 3261 §25.1): quotes and backslashes escaped, control
/// characters left out.
pub fn write_quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &b in text {
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            b'\t' => out.push(b' '),
            0..=31 | 127 => {}
            _ => out.push(b),
        }
    }
    out.push(b'"');
}

/// Tokens and blanks, and what is sent unquoted all the same: UTF-8, brackets, `@`, `/`. No comma: it would split a list
/// (RFC 4475 §3.1.2.15).
fn may_stand_unquoted(b: u8) -> bool {
    is_token(b)
        || is_lws(b)
        || b >= 0x80
        || matches!(b, b'@' | b'(' | b')' | b'[' | b']' | b'/' | b'&' | b'#' | b'=' | b'$')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(s: &str) -> Option<NameAddr<'_>> {
        NameAddr::parse(s.as_bytes())
    }

    #[test]
    fn names_brackets_and_parameters() {
        let a = parse("\"A. \\\"G\\\" <Bell>\"\t<sip:agb@bell-tel.com;x=1> ; tag=a48s ;y").unwrap();
        assert_eq!(a.display_name().as_ref(), b"A. \"G\" <Bell>");
        assert_eq!(a.addr, b"sip:agb@bell-tel.com;x=1");
        assert_eq!((a.tag(), a.params.get("y")), (Some(&b"a48s"[..]), Some(&b""[..])));
        let a = parse("Anonymous Caller <sip:c8oqz84zk7z@privacy.org>;tag=hyh8").unwrap();
        assert_eq!((a.display, a.tag()), (&b"Anonymous Caller"[..], Some(&b"hyh8"[..])));
        let a = parse("caller<sip:caller@example.com>").unwrap();
        assert_eq!(a.display, b"caller");
    }

    #[test]
    fn parameters_after_a_bare_uri_are_the_headers() {
        let a = parse("sip:+12125551212@server.phone2net.com;tag=887s;x=<1>").unwrap();
        assert_eq!(a.addr, b"sip:+12125551212@server.phone2net.com");
        assert_eq!(a.tag(), Some(&b"887s"[..]));
        assert!(!a.bracketed && a.uri().unwrap().params().as_bytes().is_empty());
    }

    #[test]
    fn the_star_contact() {
        assert!(parse("*").unwrap().is_star());
        assert!(!parse("<*>").unwrap().is_star());
    }

    #[test]
    fn broken_values_are_refused() {
        for s in [
            "",
            "<>",
            "<sip:a@b",
            "\"Mr. J. User <sip:j@example.com>",
            "Bell, Alexander <sip:a@b>;tag=1",
            "< sip:a@b >",
            "sip:user@example.com?Route=%3Csip:sip.example.com%3E",
            "<sip:a@b> x",
            "sip:a@b c",
            "\"x\" sip:a@b",
            "<sip:a@<b>",
            "<sip:a>;x=\"",
            "sip:a;x=\"y",
            "sip:a;x=<y",
            "<sip:a\0>",
            "sip:a\x07",
        ] {
            assert_eq!(parse(s), None, "{s:?}");
        }
    }

    #[test]
    fn spans_are_parts_of_the_message() {
        let m = crate::Message::parse(b"OPTIONS sip:a SIP/2.0\r\nTo: \"x\" <sip:bob@h>;tag=1\r\n\r\n").unwrap();
        let to = NameAddr::parse(m.value(crate::HeaderName::To).unwrap()).unwrap();
        assert_eq!(&m.bytes()[m.range_of(to.addr)], b"sip:bob@h");
        assert_eq!(&m.bytes()[m.range_of(to.uri().unwrap().host())], b"h");
    }

    #[test]
    fn quoted_text_reads_back() {
        let mut out = Vec::new();
        write_quoted("a\"b\\c\r\nd é".as_bytes(), &mut out);
        assert_eq!(unquoted(&out).as_ref(), "a\"b\\cd é".as_bytes());
        out.extend_from_slice(b" <sip:x>");
        assert_eq!(NameAddr::parse(&out).unwrap().display_name().as_ref(), "a\"b\\cd é".as_bytes());
    }
}
