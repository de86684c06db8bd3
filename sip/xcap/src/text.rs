//! A document as its author wrote it, and as a tree.

use sip_xml::{Broken, Document, Element, Fault, Limits};

use crate::conflict::Conflict;

/// Bounds on every document but its length, which whoever stores it sets.
pub const LIMITS: Limits = Limits { bytes: 1 << 20, depth: 32, elements: 10_000, attributes: 32, name: 128 };

/// A document: its bytes, and what they say. Every span of `root` is a place in `text`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text {
    text: String,
    root: Element,
}

impl Text {
    /// Reads a document. What is wrong with one is a [`Conflict`] (RFC 4825 §8.2.2).
    pub fn read(bytes: Vec<u8>) -> Result<Text, Conflict> {
        let root = Document::parse_with(&bytes, &LIMITS).map_err(conflict)?.root;
        let text = String::from_utf8(bytes).map_err(|_| Conflict::NotUtf8)?;
        Ok(Text { text, root })
    }

    pub fn root(&self) -> &Element {
        &self.root
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.text.into_bytes()
    }

    /// The bytes of one of its elements.
    pub fn of(&self, element: &Element) -> &str {
        &self.text[element.span.clone()]
    }
}

/// What the sender of a document that cannot be read is told.
pub(crate) fn conflict(broken: Broken) -> Conflict {
    match broken.fault {
        Fault::Encoding => Conflict::NotUtf8,
        // Well-formed, all of them, but not taken.
        Fault::Dtd
        | Fault::TooLong
        | Fault::TooDeep
        | Fault::TooManyElements
        | Fault::TooManyAttributes
        | Fault::NameTooLong => Conflict::Constraint(broken.to_string()),
        _ => Conflict::NotWellFormed(broken.to_string()),
    }
}
