//! The two shapes that nearly every header shares: comma-separated lists and `;name=value` parameters.

use std::borrow::Cow;

use crate::message::{is_token, trim};
use crate::octet;

/// Takes a header value apart at its commas, outside quotes and angle brackets. Empty elements are left out.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        loop {
            let s = rest?;
            let end = find(s, b',');
            let item = trim(&s[..end]);
            rest = s.get(end + 1..);
            if !item.is_empty() {
                return Some(item);
            }
        }
    })
}

/// Parameters after a header's main value: `;tag=x;lr`. Iterates names with their values, quotes kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Params<'a>(&'a [u8]);

impl<'a> Params<'a> {
    /// `text` begins at the first `;` or is empty.
    pub fn new(text: &'a [u8]) -> Params<'a> {
        Params(text)
    }

    /// [`Params::new`], but `None` when a quote or an angle bracket in it is never closed: whatever is appended to such
    /// a header would become part of the value.
    pub fn closed(text: &'a [u8]) -> Option<Params<'a>> {
        let mut i = 0;
        while let Some(step) = memchr::memchr2(b'"', b'<', &text[i..]) {
            i += step;
            i += if text[i] == b'"' { quoted_end(&text[i..])? } else { memchr::memchr(b'>', &text[i..])? };
        }
        Some(Params(text))
    }

    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            loop {
                let s = rest.strip_prefix(b";").unwrap_or(rest);
                if s.is_empty() {
                    return None;
                }
                let end = find(s, b';');
                rest = &s[end..];
                let item = trim(&s[..end]);
                if item.is_empty() {
                    continue;
                }
                return Some(match item.iter().position(|b| *b == b'=') {
                    Some(eq) => (trim(&item[..eq]), Some(trim(&item[eq + 1..]))),
                    None => (item, None),
                });
            }
        })
    }

    /// The value of a parameter, its name in any case: `None` when absent, `Some(b"")` when it has no value.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        let mut rest = self.0;
        while !rest.is_empty() {
            let s = rest.strip_prefix(b";").unwrap_or(rest);
            let (item, after) = s.split_at(find(s, b';'));
            rest = after;
            let item = trim(item);
            if item.get(..name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name.as_bytes())) {
                match trim(&item[name.len()..]) {
                    [] => return Some(b""),
                    [b'=', value @ ..] => return Some(trim(value)),
                    // Another, which begins so.
                    _ => {}
                }
            }
        }
        None
    }

    /// [`Params::get`] without the quotes of a quoted string.
    pub fn text(self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.get(name).map(unquoted)
    }

    pub fn has(self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// What stands before the first `;`, and the parameters from it on: the shape of Event, Reason, Content-Disposition, …
pub(crate) fn main_and_params(value: &[u8]) -> Option<(&[u8], Params<'_>)> {
    let end = find(value, b';');
    Some((trim(&value[..end]), Params::closed(trim(&value[end..]))?))
}

/// One or more token characters.
pub(crate) fn is_token_text(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| is_token(*b))
}

/// Offset of the first `stop` outside double quotes and angle brackets, or the length.
#[inline]
pub(crate) fn find(s: &[u8], stop: u8) -> usize {
    let mut i = 0;
    while let Some(step) = octet::stop(&s[i..], stop) {
        i += step;
        i = match s[i] {
            b'"' => quoted_end(&s[i..]).map_or(s.len(), |n| i + n),
            b'<' => memchr::memchr(b'>', &s[i..]).map_or(s.len(), |n| i + n + 1),
            _ => return i,
        };
    }
    s.len()
}

/// Where the quoted string at the start of `s` ends, its closing quote included; `None` when it does not end.
pub(crate) fn quoted_end(s: &[u8]) -> Option<usize> {
    let mut i = 1;
    loop {
        i += memchr::memchr2(b'"', b'\\', s.get(i..)?)?;
        if s[i] == b'"' {
            return Some(i + 1);
        }
        i += 2;
    }
}

/// A quoted string's content with its backslashes resolved; what is not quoted comes back as it is.
pub fn unquoted(text: &[u8]) -> Cow<'_, [u8]> {
    let [b'"', inner @ .., b'"'] = text else { return Cow::Borrowed(text) };
    if memchr::memchr(b'\\', inner).is_none() {
        return Cow::Borrowed(inner);
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&b) = bytes.next() {
        out.push(if b == b'\\' { *bytes.next().unwrap_or(&b) } else { b });
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_and_brackets_do_not_split() {
        let items: Vec<_> = list(b"\"a,\\\",b\" <sip:x,y@h>;q=1 , <sip:z@h>,,").collect();
        assert_eq!(items, [&b"\"a,\\\",b\" <sip:x,y@h>;q=1"[..], b"<sip:z@h>"]);
    }

    #[test]
    fn an_open_quote_or_bracket_swallows_the_rest() {
        assert_eq!(list(b"a,\"b,c").collect::<Vec<_>>(), [&b"a"[..], b"\"b,c"]);
        assert_eq!(list(b"a,<b,c").collect::<Vec<_>>(), [&b"a"[..], b"<b,c"]);
        for (text, closed) in [
            (&b";a=\"x\";b=<y>"[..], true),
            (b";a=\"x", false),
            (b";a=\"x\\\"", false),
            (b";a=<x", false),
            (b";a=\"<\"", true),
            (b"", true),
        ] {
            assert_eq!(Params::closed(text).is_some(), closed);
        }
        assert_eq!(quoted_end(b"\"ab\\"), None);
        assert_eq!(quoted_end(b"\"a\\\"b\"c"), Some(6));
    }

    #[test]
    fn quotes_and_backslashes_are_taken_off() {
        assert_eq!(unquoted(b"\"a\\\"b\"").as_ref(), b"a\"b");
        assert_eq!(unquoted(b"token").as_ref(), b"token");
        assert_eq!(unquoted(b"\"").as_ref(), b"\"");
    }

    #[test]
    fn parameters_with_and_without_values() {
        let p = Params::new(b";tag=1; lr ;x=\"a;b\"");
        assert_eq!(p.get("TAG"), Some(&b"1"[..]));
        assert_eq!(p.get("lr"), Some(&b""[..]));
        assert_eq!(p.get("x"), Some(&b"\"a;b\""[..]));
        assert_eq!(p.get("y"), None);
    }
}
