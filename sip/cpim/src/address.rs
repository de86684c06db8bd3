//! `Winnie the Pooh <im:pooh@100akerwood.com>` (RFC 3862 §4.1).

use std::borrow::Cow;

use crate::text::{escape, is_token_char, unescape};

/// Who a message is from or to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address<'a> {
    /// The formal name, without quotes and escapes; often empty.
    pub name: Cow<'a, str>,
    /// An absolute URI: `im:`, `sip:`, `tel:`.
    pub uri: &'a str,
}

impl<'a> Address<'a> {
    pub fn new(name: &'a str, uri: &'a str) -> Address<'a> {
        Address { name: Cow::Borrowed(name), uri }
    }

    /// Reads a header value. A bare URI, as some clients write it, is taken too. `None` for what names nobody.
    pub fn parse(value: &'a str) -> Option<Address<'a>> {
        let value = value.trim();
        let Some(inside) = value.strip_suffix('>') else {
            return is_uri(value).then_some(Address { name: Cow::Borrowed(""), uri: value });
        };
        // The name may hold one too, in quotes.
        let (name, uri) = inside.rsplit_once('<')?;
        let name = name.trim();
        let name = name.strip_prefix('"').and_then(|n| n.strip_suffix('"')).unwrap_or(name);
        is_uri(uri).then_some(Address { name: unescape(name), uri })
    }

    /// Appends it as a header value. What may not stand in a URI is left out.
    pub fn write(&self, out: &mut Vec<u8>) {
        if !self.name.is_empty() {
            let plain = self.name.split(' ').all(|w| !w.is_empty() && w.chars().all(is_token_char));
            if plain {
                out.extend_from_slice(self.name.as_bytes());
            } else {
                out.push(b'"');
                escape(&self.name, true, out);
                out.push(b'"');
            }
            out.push(b' ');
        }
        out.push(b'<');
        out.extend(self.uri.bytes().filter(|b| is_uri_byte(*b)));
        out.push(b'>');
    }
}

fn is_uri(text: &str) -> bool {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(fine) && text.bytes().all(is_uri_byte)
}

/// Graphic octets; beyond ASCII as some clients write them.
fn is_uri_byte(b: u8) -> bool {
    (b.is_ascii_graphic() || b >= 0x80) && !b"<>\"".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_optional_quoted_or_plain() {
        let read = |text: &'static str| Address::parse(text).map(|a| (a.name.into_owned(), a.uri));
        assert_eq!(read("Winnie the Pooh <im:pooh@100akerwood.com>").unwrap().0, "Winnie the Pooh");
        assert_eq!(read("<im:tigger@100akerwood.com>"), Some((String::new(), "im:tigger@100akerwood.com")));
        assert_eq!(read(r#""A <b> \"c\"" <sip:a@x>"#).unwrap().0, "A <b> \"c\"");
        assert_eq!(read("sip:a@x"), Some((String::new(), "sip:a@x")));
        for bad in ["", "pooh", "<>", "Pooh <pooh>", "<im:a b>", "<im:a\">", "x <sip:a@x> y", "1a:b"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(name in "\\PC{0,40}") {
            let name = name.trim();
            let mut out = Vec::new();
            Address::new(name, "sip:a@example.com;x=1").write(&mut out);
            let text = std::str::from_utf8(&out).unwrap();
            let read = Address::parse(text).unwrap();
            proptest::prop_assert_eq!((&*read.name, read.uri), (name, "sip:a@example.com;x=1"));
        }
    }
}
