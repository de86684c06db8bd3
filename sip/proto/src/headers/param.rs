//! The two shapes that nearly every header shares: comma-separated lists and `;name=value` parameters.

use crate::message::trim;

/// Takes a header value apart at its commas, outside quotes and angle brackets. Empty elements are left out.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        loop {
            let s = rest?;
            let end = find(s, b",");
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
                let end = find(s, b";");
                rest = &s[end..];
                let item = trim(&s[..end]);
                if item.is_empty() {
                    continue;
                }
                return Some(match memchr::memchr(b'=', item) {
                    Some(eq) => (trim(&item[..eq]), Some(trim(&item[eq + 1..]))),
                    None => (item, None),
                });
            }
        })
    }

    /// The value of a parameter, its name in any case: `None` when absent, `Some(b"")` when it has no value.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v.unwrap_or_default())
    }

    pub fn has(self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// Offset of the first of `stops` outside double quotes and angle brackets, or the length.
pub(crate) fn find(s: &[u8], stops: &[u8]) -> usize {
    let mut quoted = false;
    let mut angled = false;
    let mut i = 0;
    while i < s.len() {
        let b = s[i];
        if quoted {
            match b {
                b'\\' => i += 1,
                b'"' => quoted = false,
                _ => {}
            }
        } else if angled {
            angled = b != b'>';
        } else if b == b'"' {
            quoted = true;
        } else if stops.contains(&b) {
            return i;
        } else if b == b'<' {
            angled = true;
        }
        i += 1;
    }
    s.len()
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
    fn parameters_with_and_without_values() {
        let p = Params::new(b";tag=1; lr ;x=\"a;b\"");
        assert_eq!(p.get("TAG"), Some(&b"1"[..]));
        assert_eq!(p.get("lr"), Some(&b""[..]));
        assert_eq!(p.get("x"), Some(&b"\"a;b\""[..]));
        assert_eq!(p.get("y"), None);
    }
}
