//! The escapes of header values (RFC 3862 §2.3).

use std::borrow::Cow;

/// Undoes the escapes. What is not known stands for the character behind the backslash.
pub(crate) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match rest.next() {
            Some('b') => plain.push('\u{8}'),
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('u') => {
                let code = rest.as_str().get(..4).and_then(|digits| {
                    let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
                    hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
                });
                match code {
                    Some(code) => {
                        // Halves of a pair stand for no character of their own.
                        plain.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                        rest = rest.as_str()[4..].chars();
                    }
                    None => plain.push('u'),
                }
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    Cow::Owned(plain)
}

/// Writes text as a header value; `quote`: between double quotes.
pub(crate) fn escape(text: &str, quote: bool, out: &mut Vec<u8>) {
    for c in text.chars() {
        match c {
            '\\' => out.extend_from_slice(b"\\\\"),
            '"' if quote => out.extend_from_slice(b"\\\""),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// `NAMECHAR` (RFC 3862 §3.6).
pub(crate) fn is_name_char(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-^_`|~".contains(&b)
}

/// `Token`: what a formal name may hold without quotes.
pub(crate) fn is_token_char(c: char) -> bool {
    c == '.' || !c.is_ascii() && !c.is_control() || c.is_ascii() && is_name_char(c as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_read_as_rfc_3862_wants() {
        let read = |text: &str| unescape(text).into_owned();
        assert_eq!(read(r#"a\\b\"c\'d\b\t\n\r"#), "a\\b\"c'd\u{8}\t\n\r");
        assert_eq!(read(r"\u00e9\u20AC"), "é€");
        assert_eq!(read(r"\q\u12"), "qu12", "what is not known stands for itself");
        assert_eq!(read("end\\"), "end");
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC*|[\\x00-\\x7f]*", quote: bool) {
            let mut out = Vec::new();
            escape(&text, quote, &mut out);
            proptest::prop_assert!(!out.iter().any(|b| *b < 0x20 || *b == 0x7f));
            proptest::prop_assert_eq!(unescape(std::str::from_utf8(&out).unwrap()), text);
        }
    }
}
