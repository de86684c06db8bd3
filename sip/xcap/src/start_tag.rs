//! Where the parts of a start tag stand in the bytes of a document that has been read already.

use std::ops::Range;

/// A start tag, or the tag of an empty element.
#[derive(Debug)]
pub(crate) struct StartTag {
    /// The name, prefix included.
    pub name: Range<usize>,
    /// Every attribute and declaration, in document order.
    pub attributes: Vec<RawAttribute>,
    /// Behind the name and all attributes: a further attribute goes here.
    pub room: usize,
    /// Behind the `>`.
    pub end: usize,
    /// `<name/>`.
    pub empty: bool,
}

#[derive(Debug)]
pub(crate) struct RawAttribute {
    /// The blanks in front of it included.
    pub whole: Range<usize>,
    /// Prefix included.
    pub name: Range<usize>,
    /// Quotes included.
    pub value: Range<usize>,
}

impl StartTag {
    /// The tag that begins at `at`. `None` only where no well-formed element begins.
    pub fn at(text: &str, at: usize) -> Option<StartTag> {
        let bytes = text.as_bytes();
        let mut cursor = Cursor { bytes, at };
        cursor.eat(b'<')?;
        let name = cursor.until(|b| is_blank(b) || matches!(b, b'>' | b'/'));
        let mut tag = StartTag { room: name.end, name, attributes: Vec::new(), end: 0, empty: false };
        loop {
            let before = cursor.at;
            cursor.until(|b| !is_blank(b));
            match *bytes.get(cursor.at)? {
                b'>' => {
                    tag.end = cursor.at + 1;
                    return Some(tag);
                }
                b'/' => {
                    cursor.at += 1;
                    cursor.eat(b'>')?;
                    (tag.end, tag.empty) = (cursor.at, true);
                    return Some(tag);
                }
                _ => {}
            }
            let name = cursor.until(|b| is_blank(b) || b == b'=');
            cursor.until(|b| !is_blank(b));
            cursor.eat(b'=')?;
            cursor.until(|b| !is_blank(b));
            let quote = *bytes.get(cursor.at)?;
            let from = cursor.at;
            cursor.at += 1;
            cursor.until(|b| b == quote);
            cursor.eat(quote)?;
            tag.room = cursor.at;
            tag.attributes.push(RawAttribute { whole: before..cursor.at, name, value: from..cursor.at });
        }
    }
}

impl RawAttribute {
    /// `xmlns` or `xmlns:…`: no attribute, as the tree sees it.
    pub fn is_declaration(&self, text: &str) -> bool {
        let name = &text[self.name.clone()];
        name == "xmlns" || name.starts_with("xmlns:")
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

struct Cursor<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl Cursor<'_> {
    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.bytes.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    /// Goes on to the first byte like that, or to the end.
    fn until(&mut self, stop: impl Fn(u8) -> bool) -> Range<usize> {
        let from = self.at;
        self.at += self.bytes[from..].iter().position(|b| stop(*b)).unwrap_or(self.bytes.len() - from);
        from..self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_whatever_the_blanks() {
        let text = "x<p:a  b = '>\"/'\n\tp:c=\"'\" xmlns='u' />y";
        let tag = StartTag::at(text, 1).unwrap();
        assert_eq!((&text[tag.name.clone()], &text[tag.end..], tag.empty), ("p:a", "y", true));
        let parts: Vec<_> = tag.attributes.iter().map(|a| (&text[a.name.clone()], &text[a.value.clone()])).collect();
        assert_eq!(parts, [("b", "'>\"/'"), ("p:c", "\"'\""), ("xmlns", "'u'")]);
        assert_eq!(&text[tag.attributes[1].whole.clone()], "\n\tp:c=\"'\"");
        assert_eq!(&text[tag.room..], " />y");
        assert!(tag.attributes[2].is_declaration(text) && !tag.attributes[0].is_declaration(text));
        let plain = StartTag::at("<a>", 0).unwrap();
        assert_eq!((plain.room, plain.end, plain.empty), (2, 3, false));
    }
}
