//! `application/x-www-form-urlencoded` as RFC 6749 has it (appendix B): UTF-8, no parameter twice, an empty one is none.

use std::collections::HashMap;

/// Parameters by name.
pub struct Form(HashMap<String, String>);

impl Form {
    /// `kind`: the Content-Type. What is wrong with it, else.
    pub fn read(kind: &str, body: &[u8]) -> Result<Form, &'static str> {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err("the body must be application/x-www-form-urlencoded");
        }
        let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8")?;
        let mut parameters = HashMap::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                return Err("the body is not form-encoded");
            };
            if parameters.insert(name, value).is_some() {
                return Err("a parameter stands twice");
            }
        }
        Ok(Form(parameters))
    }

    pub fn of(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
}

/// `+` is a blank, `%XX` an octet. `None`: it is not so encoded, or not UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        octets.push(match b {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            b => b,
        });
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded_and_bad_ones_are_not() {
        // RFC 6749 appendix B's example.
        assert_eq!(decode("+%25%26%2B%C2%A3%E2%82%AC").unwrap(), " %&+\u{a3}\u{20ac}");
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        let kind = "Application/X-WWW-Form-URLencoded; charset=UTF-8";
        let form = Form::read(kind, b"a=1&&b=&c&d=%3D").unwrap();
        assert_eq!((form.of("a"), form.of("b"), form.of("c"), form.of("d")), (Some("1"), None, None, Some("=")));
        assert!(Form::read(kind, b"a=1&a=1").is_err() && Form::read(kind, b"a=\xff").is_err());
        assert!(Form::read("", b"a=1").is_err());
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_posted_is_read_or_refused(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Form::read("application/x-www-form-urlencoded", &body);
        }

        #[test]
        fn what_was_encoded_is_decoded(text in ".*") {
            let encoded: String = text.bytes().map(|b| format!("%{b:02X}")).collect();
            proptest::prop_assert_eq!(decode(&encoded), Some(text));
        }
    }
}
