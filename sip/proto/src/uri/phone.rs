//! Telephone numbers: the `telephone-subscriber` of RFC 3966, alone after `tel:` or as the user part of a `sip:` URI.

use crate::headers::Params;

/// `+1-201-555-0123;ext=7` or `7042;phone-context=example.com`, borrowed.
///
/// A local number ought to have a `phone-context` (RFC 3966 §5.1.5); handsets leave it out for dialled strings, so its
/// absence is not an error here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Phone<'a> {
    number: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> Phone<'a> {
    pub fn parse(text: &'a [u8]) -> Option<Phone<'a>> {
        let end = memchr::memchr(b';', text).unwrap_or(text.len());
        let (number, params) = (&text[..end], &text[end..]);
        let good = match number {
            [b'+', digits @ ..] => {
                digits.iter().all(|b| b.is_ascii_digit() || is_separator(*b)) && digits.iter().any(u8::is_ascii_digit)
            }
            digits => {
                digits.iter().all(|b| is_local_digit(*b) || is_separator(*b))
                    && digits.iter().any(|b| is_local_digit(*b))
            }
        };
        let params_good = params.iter().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"' | b'@'));
        (good && params_good).then_some(Phone { number, params: Params::new(params) })
    }

    /// As written, visual separators included.
    pub fn as_written(&self) -> &'a [u8] {
        self.number
    }

    /// An E.164 number with its `+`.
    pub fn is_global(&self) -> bool {
        self.number.first() == Some(&b'+')
    }

    /// The digits in order, without `+` and separators; of a local number also `*`, `#` and A-F in upper case.
    pub fn digits(&self) -> impl Iterator<Item = u8> + 'a {
        self.number.iter().filter(|b| **b != b'+' && !is_separator(**b)).map(u8::to_ascii_uppercase)
    }

    pub fn context(&self) -> Option<&'a [u8]> {
        self.params.get("phone-context")
    }

    pub fn extension(&self) -> Option<&'a [u8]> {
        self.params.get("ext")
    }

    pub fn isdn_subaddress(&self) -> Option<&'a [u8]> {
        self.params.get("isub")
    }

    /// Appends `+` and the digits when the number is global, or when a local number's context is a global prefix
    /// (RFC 3966 §5.1.5); says whether it did.
    pub fn write_e164(&self, out: &mut Vec<u8>) -> bool {
        if self.is_global() {
            out.push(b'+');
        } else {
            match self.context() {
                Some([b'+', prefix @ ..]) if self.digits().all(|b| b.is_ascii_digit()) => {
                    out.push(b'+');
                    out.extend(prefix.iter().filter(|b| b.is_ascii_digit()));
                }
                _ => return false,
            }
        }
        out.extend(self.digits());
        true
    }

    /// Appends the one spelling of this number: no separators, `phone-context` of local numbers and `ext` kept.
    pub(super) fn write_canonical(&self, out: &mut Vec<u8>) {
        if self.is_global() {
            out.push(b'+');
        }
        out.extend(self.digits());
        if let Some(ext) = self.extension() {
            out.extend_from_slice(b";ext=");
            out.extend(ext.iter().filter(|b| !is_separator(**b)));
        }
        if let (false, Some(context)) = (self.is_global(), self.context()) {
            out.extend_from_slice(b";phone-context=");
            out.extend(context.iter().map(u8::to_ascii_lowercase));
        }
    }

    /// RFC 3966 §4: numbers by digits, parameters by name in any order and case.
    pub(super) fn equivalent(&self, other: &Phone<'_>) -> bool {
        self.is_global() == other.is_global()
            && self.digits().eq(other.digits())
            && self.params.iter().count() == other.params.iter().count()
            && self.params.iter().all(|(name, value)| {
                other.params.iter().any(|(n, v)| {
                    n.eq_ignore_ascii_case(name) && same_value(name, value.unwrap_or_default(), v.unwrap_or_default())
                })
            })
    }
}

fn same_value(name: &[u8], a: &[u8], b: &[u8]) -> bool {
    let numeric =
        name.eq_ignore_ascii_case(b"ext") || (name.eq_ignore_ascii_case(b"phone-context") && a.starts_with(b"+"));
    if numeric {
        a.iter().filter(|b| !is_separator(**b)).eq(b.iter().filter(|b| !is_separator(**b)))
    } else {
        a.eq_ignore_ascii_case(b)
    }
}

/// RFC 3966 §3 `visual-separator`.
fn is_separator(b: u8) -> bool {
    matches!(b, b'-' | b'.' | b'(' | b')')
}

fn is_local_digit(b: u8) -> bool {
    b.is_ascii_hexdigit() || matches!(b, b'*' | b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn global_and_local_numbers() {
        let p = Phone::parse(b"+44-20.(7946)-0123;ext=12;isub=9").unwrap();
        assert!(p.is_global());
        assert_eq!(p.digits().collect::<Vec<_>>(), b"442079460123");
        assert_eq!((p.extension(), p.isdn_subaddress()), (Some(&b"12"[..]), Some(&b"9"[..])));
        let p = Phone::parse(b"*70#;phone-context=example.com").unwrap();
        assert_eq!((p.is_global(), p.context()), (false, Some(&b"example.com"[..])));
        assert_eq!(Phone::parse(b"+*1"), None);
        assert_eq!(Phone::parse(b"alice"), None);
        assert_eq!(Phone::parse(b""), None);
    }

    #[test]
    fn a_global_prefix_in_the_context_completes_a_local_number() {
        let mut out = Vec::new();
        assert!(Phone::parse(b"555-0123;phone-context=+1-201").unwrap().write_e164(&mut out));
        assert_eq!(out, b"+12015550123");
        assert!(!Phone::parse(b"7042;phone-context=example.com").unwrap().write_e164(&mut out));
        assert_eq!(out, b"+12015550123");
    }
}
