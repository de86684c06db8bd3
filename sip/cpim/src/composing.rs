//! `application/im-iscomposing+xml` (RFC 3994): somebody is typing, or has stopped.

use sip_xml::{Document, Limits, Writer};

use crate::imdn::{BadDocument, MAX_DOCUMENT};

pub const IS_COMPOSING_TYPE: &str = "application/im-iscomposing+xml";
const NAMESPACE: &str = "urn:ietf:params:xml:ns:im-iscomposing";

/// The state of who writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Composing {
    /// Typing. Any state that is not known counts as idle (RFC 3994 §4).
    pub active: bool,
    /// When they typed last, as written.
    pub last_active: Option<String>,
    /// What they compose: `text/plain`.
    pub content_type: Option<String>,
    /// Seconds until the state is idle if nothing else comes; at least 1.
    pub refresh: Option<u32>,
}

impl Composing {
    pub fn parse(bytes: &[u8]) -> Result<Composing, BadDocument> {
        let limits = Limits { bytes: MAX_DOCUMENT, depth: 16, elements: 256, ..Limits::default() };
        let root = Document::parse_with(bytes, &limits)?.root;
        if !root.is(NAMESPACE, "isComposing") {
            return Err(BadDocument::Root);
        }
        let text = |name| {
            let found = root.child(NAMESPACE, name).map(|e| e.text().trim().to_owned());
            found.filter(|t| !t.is_empty())
        };
        Ok(Composing {
            active: text("state").ok_or(BadDocument::Missing("state"))? == "active",
            last_active: text("lastactive"),
            content_type: text("contenttype"),
            refresh: text("refresh").and_then(|t| t.parse().ok()).filter(|s| *s > 0),
        })
    }

    /// Appends the document.
    pub fn write(&self, out: &mut Vec<u8>) {
        Writer::document(out, "isComposing", |root| {
            root.attribute("xmlns", NAMESPACE);
            root.child("state", |e| e.text(if self.active { "active" } else { "idle" }));
            let refresh = self.refresh.map(|s| s.to_string());
            let more = [("lastactive", &self.last_active), ("contenttype", &self.content_type), ("refresh", &refresh)];
            for (name, text) in more {
                if let Some(text) = text {
                    root.child(name, |e| e.text(text));
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_3994_read_and_read_back() {
        let active = br#"<?xml version="1.0" encoding="UTF-8"?>
       <isComposing xmlns="urn:ietf:params:xml:ns:im-iscomposing"
         xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
         xsi:schemaLocation="urn:ietf:params:xml:ns:im-composing iscomposing.xsd">
         <state>active</state>
         <contenttype>text/plain</contenttype>
         <refresh>90</refresh>
       </isComposing>"#;
        let read = Composing::parse(active).unwrap();
        let expected =
            Composing { active: true, last_active: None, content_type: Some("text/plain".into()), refresh: Some(90) };
        assert_eq!(read, expected);
        let idle = Composing { active: false, last_active: Some("2003-01-27T10:43:00Z".into()), ..expected };
        let mut out = Vec::new();
        idle.write(&mut out);
        assert_eq!(Composing::parse(&out), Ok(idle));
        let odd = std::str::from_utf8(active).unwrap().replace("active<", "thinking<").replace("90", "0");
        let odd = Composing::parse(odd.as_bytes()).unwrap();
        assert_eq!((odd.active, odd.refresh), (false, None));
        assert_eq!(Composing::parse(b"<isComposing/>"), Err(BadDocument::Root));
    }
}
