//! Writing: elements that cannot be left open, text that cannot become markup.

use crate::characters::{is_char, is_q_name};

/// Begins documents.
#[derive(Debug)]
pub struct Writer;

impl Writer {
    /// Appends the XML declaration and one root element, filled by `fill`.
    pub fn document(out: &mut Vec<u8>, root: &str, fill: impl FnOnce(&mut Open<'_>)) {
        out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        Writer::element(out, root, fill);
        out.push(b'\n');
    }

    /// Appends one element and nothing else: a fragment.
    pub fn element(out: &mut Vec<u8>, name: &str, fill: impl FnOnce(&mut Open<'_>)) {
        debug_assert!(is_q_name(name), "{name}");
        out.push(b'<');
        out.extend_from_slice(name.as_bytes());
        let mut open = Open { out, in_tag: true };
        fill(&mut open);
        if open.in_tag {
            out.extend_from_slice(b"/>");
        } else {
            out.extend_from_slice(b"</");
            out.extend_from_slice(name.as_bytes());
            out.push(b'>');
        }
    }
}

/// An element being written. Names come from code and must be names; values and text may be anything: characters that XML
/// does not allow leave as U+FFFD.
#[derive(Debug)]
pub struct Open<'o> {
    out: &'o mut Vec<u8>,
    /// Attributes may still be added.
    in_tag: bool,
}

impl Open<'_> {
    /// Adds an attribute (or, with `xmlns`, a namespace declaration). Must come before children and text.
    pub fn attribute(&mut self, name: &str, value: &str) -> &mut Self {
        debug_assert!(self.in_tag && is_q_name(name), "{name}");
        if self.in_tag {
            self.out.push(b' ');
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(b"=\"");
            escape_attribute(value, self.out);
            self.out.push(b'"');
        }
        self
    }

    /// Adds a child element, filled by `fill`.
    pub fn child(&mut self, name: &str, fill: impl FnOnce(&mut Open<'_>)) {
        self.close_tag();
        Writer::element(self.out, name, fill);
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) {
        self.close_tag();
        text.chars().for_each(|c| character(c, self.out));
    }

    /// Adds an element as it was read elsewhere: well-formed by itself, in the namespaces that are declared here.
    pub fn fragment(&mut self, xml: &str) {
        self.close_tag();
        self.out.extend_from_slice(xml.as_bytes());
    }

    fn close_tag(&mut self) {
        if std::mem::take(&mut self.in_tag) {
            self.out.push(b'>');
        }
    }
}

/// Appends a value as it stands between the double quotes of an attribute.
pub fn escape_attribute(value: &str, out: &mut Vec<u8>) {
    for c in value.chars() {
        match c {
            '"' => out.extend_from_slice(b"&quot;"),
            // Written plainly they would read back as blanks (XML §3.3.3).
            '\t' => out.extend_from_slice(b"&#9;"),
            '\n' => out.extend_from_slice(b"&#10;"),
            c => character(c, out),
        }
    }
}

fn character(c: char, out: &mut Vec<u8>) {
    match c {
        '&' => out.extend_from_slice(b"&amp;"),
        '<' => out.extend_from_slice(b"&lt;"),
        // Only `]]>` needs it; always is simpler.
        '>' => out.extend_from_slice(b"&gt;"),
        // Written plainly it would read back as a line feed (XML §2.11).
        '\r' => out.extend_from_slice(b"&#13;"),
        c if is_char(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        _ => out.extend_from_slice("\u{fffd}".as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(fill: impl FnOnce(&mut Open<'_>)) -> String {
        let mut out = Vec::new();
        Writer::element(&mut out, "a", fill);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn elements_close_themselves() {
        assert_eq!(written(|_| {}), "<a/>");
        assert_eq!(written(|e| e.text("")), "<a></a>");
        let nested = written(|e| {
            e.attribute("x", "1").attribute("y", "2");
            e.child("b", |b| b.text("t"));
            e.child("c", |_| {});
        });
        assert_eq!(nested, "<a x=\"1\" y=\"2\"><b>t</b><c/></a>");
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        assert_eq!(written(|e| e.text("<b>&]]>\r\u{0}")), "<a>&lt;b&gt;&amp;]]&gt;&#13;\u{fffd}</a>");
        let attribute = written(|e| {
            e.attribute("x", "\"<'&\n\t");
        });
        assert_eq!(attribute, "<a x=\"&quot;&lt;'&amp;&#10;&#9;\"/>");
    }

    #[test]
    fn a_document_has_its_declaration() {
        let mut out = Vec::new();
        Writer::document(&mut out, "a", |_| {});
        assert_eq!(out, b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a/>\n");
    }
}
