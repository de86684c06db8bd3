//! `message/imdn+xml` (RFC 5438 §11): what became of a message.

use sip_xml::{Broken, Document, Element, Limits, Writer};

pub const IMDN_TYPE: &str = "message/imdn+xml";
/// Largest document, in bytes.
pub const MAX_DOCUMENT: usize = 16 * 1024;
const NAMESPACE: &str = "urn:ietf:params:xml:ns:imdn";

/// What is wrong with a document; always its author's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadDocument {
    #[error(transparent)]
    Xml(#[from] Broken),
    #[error("another root element")]
    Root,
    #[error("no {0}, or one that says nothing")]
    Missing(&'static str),
}

/// What a notification is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fate {
    Delivery,
    Processing,
    Display,
}

/// What it says of that.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// `delivered`, `processed` or `displayed`.
    Done,
    /// Of processing only: it waits for its addressee.
    Stored,
    /// Of delivery only.
    Failed,
    Forbidden,
    Error,
}

/// A disposition notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imdn {
    /// Of the message that this is about.
    pub message_id: String,
    /// When that one was sent, as its sender wrote it.
    pub date_time: String,
    pub recipient: Option<String>,
    pub original_recipient: Option<String>,
    pub subject: Option<String>,
    pub fate: Fate,
    pub outcome: Outcome,
}

impl Fate {
    const ALL: [Fate; 3] = [Fate::Delivery, Fate::Processing, Fate::Display];

    fn element(self) -> &'static str {
        match self {
            Fate::Delivery => "delivery-notification",
            Fate::Processing => "processing-notification",
            Fate::Display => "display-notification",
        }
    }
}

impl Outcome {
    const ALL: [Outcome; 5] = [Outcome::Done, Outcome::Stored, Outcome::Failed, Outcome::Forbidden, Outcome::Error];

    /// `None` where the two do not go together.
    fn element(self, fate: Fate) -> Option<&'static str> {
        Some(match (self, fate) {
            (Outcome::Done, Fate::Delivery) => "delivered",
            (Outcome::Done, Fate::Processing) => "processed",
            (Outcome::Done, Fate::Display) => "displayed",
            (Outcome::Stored, Fate::Processing) => "stored",
            (Outcome::Failed, Fate::Delivery) => "failed",
            (Outcome::Forbidden, _) => "forbidden",
            (Outcome::Error, _) => "error",
            _ => return None,
        })
    }
}

impl Imdn {
    /// Reads a document. Elements of other namespaces are passed over.
    pub fn parse(bytes: &[u8]) -> Result<Imdn, BadDocument> {
        let limits = Limits { bytes: MAX_DOCUMENT, depth: 16, elements: 256, ..Limits::default() };
        let root = Document::parse_with(bytes, &limits)?.root;
        if !root.is(NAMESPACE, "imdn") {
            return Err(BadDocument::Root);
        }
        let text = |name| {
            let found = root.child(NAMESPACE, name).map(|e| e.text().trim().to_owned());
            found.filter(|t| !t.is_empty())
        };
        let told = Fate::ALL.into_iter().find_map(|f| Some((f, root.child(NAMESPACE, f.element())?)));
        let (fate, element) = told.ok_or(BadDocument::Missing("notification"))?;
        let status = element.child(NAMESPACE, "status").ok_or(BadDocument::Missing("status"))?;
        let says = |e: &Element, outcome: Outcome| outcome.element(fate).is_some_and(|n| e.is(NAMESPACE, n));
        let outcome = Outcome::ALL.into_iter().find(|o| status.elements().any(|e| says(e, *o)));
        Ok(Imdn {
            message_id: text("message-id").ok_or(BadDocument::Missing("message-id"))?,
            date_time: text("datetime").unwrap_or_default(),
            recipient: text("recipient-uri"),
            original_recipient: text("original-recipient-uri"),
            subject: text("subject"),
            fate,
            outcome: outcome.ok_or(BadDocument::Missing("status"))?,
        })
    }

    /// Appends the document. A fate and an outcome that do not go together are written as an error.
    pub fn write(&self, out: &mut Vec<u8>) {
        Writer::document(out, "imdn", |root| {
            root.attribute("xmlns", NAMESPACE);
            root.child("message-id", |e| e.text(&self.message_id));
            root.child("datetime", |e| e.text(&self.date_time));
            let more = [
                ("recipient-uri", &self.recipient),
                ("original-recipient-uri", &self.original_recipient),
                ("subject", &self.subject),
            ];
            for (name, text) in more {
                if let Some(text) = text {
                    root.child(name, |e| e.text(text));
                }
            }
            root.child(self.fate.element(), |e| {
                e.child("status", |s| s.child(self.outcome.element(self.fate).unwrap_or("error"), |_| {}));
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5438 §8.1.
    const EXAMPLE: &[u8] = br#"<?xml version="1.0" encoding="UTF-8"?>
<imdn xmlns="urn:ietf:params:xml:ns:imdn">
      <message-id>34jk324j</message-id>
      <datetime>2008-04-04T12:16:49-05:00</datetime>
     <recipient-uri>im:bob@example.com</recipient-uri>
      <original-recipient-uri
         >im:bob@example.com</original-recipient-uri>
      <processing-notification>
         <status>
            <processed/>
         </status>
      </processing-notification>
    </imdn>"#;

    fn example() -> Imdn {
        Imdn {
            message_id: "34jk324j".into(),
            date_time: "2008-04-04T12:16:49-05:00".into(),
            recipient: Some("im:bob@example.com".into()),
            original_recipient: Some("im:bob@example.com".into()),
            subject: None,
            fate: Fate::Processing,
            outcome: Outcome::Done,
        }
    }

    #[test]
    fn the_example_reads() {
        assert_eq!(Imdn::parse(EXAMPLE), Ok(example()));
    }

    #[test]
    fn every_fate_and_outcome_that_go_together_read_back() {
        let mut pairs = 0;
        for fate in Fate::ALL {
            for outcome in Outcome::ALL.into_iter().filter(|o| o.element(fate).is_some()) {
                let imdn = Imdn { fate, outcome, subject: Some("a < b".into()), ..example() };
                let mut out = Vec::new();
                imdn.write(&mut out);
                assert_eq!(Imdn::parse(&out), Ok(imdn));
                pairs += 1;
            }
        }
        assert_eq!(pairs, 11);
    }

    #[test]
    fn what_says_nothing_is_refused() {
        let text = std::str::from_utf8(EXAMPLE).unwrap();
        let parse = |text: String| Imdn::parse(text.as_bytes()).unwrap_err();
        assert_eq!(parse(text.replace("ns:imdn\"", "ns:other\"")), BadDocument::Root);
        assert_eq!(parse(text.replace("34jk324j", " ")), BadDocument::Missing("message-id"));
        assert_eq!(parse(text.replace("<processed/>", "<delivered/>")), BadDocument::Missing("status"));
        assert_eq!(parse(text.replace("processing-not", "other-not")), BadDocument::Missing("notification"));
        assert!(matches!(parse(text.replace("</imdn>", "")), BadDocument::Xml(_)));
    }
}
