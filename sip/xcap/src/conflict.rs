//! Detailed conflict reports: the bodies of 409 responses (RFC 4825 §11).

use sip_xml::Writer;

/// Why a change was not made. Always the client's to mend.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Conflict {
    #[error("not well-formed: {0}")]
    NotWellFormed(String),
    #[error("not one element")]
    NotXmlFragment,
    /// With the URI of the closest ancestor that is there.
    #[error("nothing to insert into")]
    NoParent(Option<String>),
    #[error("not valid: {0}")]
    Schema(String),
    #[error("not an attribute's value in quotes")]
    NotXmlAttributeValue,
    #[error("the request's URI would not select what it inserts")]
    CannotInsert,
    #[error("the request's URI would select something after the deletion")]
    CannotDelete,
    #[error("not unique")]
    Uniqueness(Vec<Exists>),
    #[error("{0}")]
    Constraint(String),
    #[error("not UTF-8")]
    NotUtf8,
}

/// A value that is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exists {
    /// A URI relative to the document: the element or attribute with the value.
    pub field: String,
    /// Values that are not taken.
    pub alternatives: Vec<String>,
}

impl Conflict {
    /// Its media type.
    pub const TYPE: &'static str = "application/xcap-error+xml";

    /// The name of the condition's element.
    pub fn name(&self) -> &'static str {
        match self {
            Conflict::NotWellFormed(_) => "not-well-formed",
            Conflict::NotXmlFragment => "not-xml-frag",
            Conflict::NoParent(_) => "no-parent",
            Conflict::Schema(_) => "schema-validation-error",
            Conflict::NotXmlAttributeValue => "not-xml-att-value",
            Conflict::CannotInsert => "cannot-insert",
            Conflict::CannotDelete => "cannot-delete",
            Conflict::Uniqueness(_) => "uniqueness-failure",
            Conflict::Constraint(_) => "constraint-failure",
            Conflict::NotUtf8 => "not-utf-8",
        }
    }

    /// The report.
    pub fn report(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        Writer::document(&mut out, "xcap-error", |root| {
            root.attribute("xmlns", "urn:ietf:params:xml:ns:xcap-error");
            root.child(self.name(), |condition| match self {
                Conflict::NoParent(Some(ancestor)) => condition.child("ancestor", |a| a.text(ancestor)),
                Conflict::NotWellFormed(phrase) | Conflict::Schema(phrase) | Conflict::Constraint(phrase) => {
                    condition.attribute("phrase", phrase);
                }
                Conflict::Uniqueness(all) => {
                    for exists in all {
                        condition.child("exists", |e| {
                            e.attribute("field", &exists.field);
                            exists.alternatives.iter().for_each(|value| e.child("alt-value", |a| a.text(value)));
                        });
                    }
                }
                _ => {}
            });
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_as_the_rfc_has_them() {
        let taken = Exists {
            field: "rls-services/service/@uri".into(),
            alternatives: vec!["sip:mybuddies@example.com".into()],
        };
        let report = String::from_utf8(Conflict::Uniqueness(vec![taken]).report()).unwrap();
        // §11.1, without its blanks.
        assert_eq!(
            report,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<xcap-error xmlns=\"urn:ietf:params:xml:ns:xcap-error\"><uniqueness-failure>\
             <exists field=\"rls-services/service/@uri\"><alt-value>sip:mybuddies@example.com</alt-value></exists>\
             </uniqueness-failure></xcap-error>\n"
        );
        let report = String::from_utf8(Conflict::NoParent(Some("a/~~/b".into())).report()).unwrap();
        assert!(report.contains("<no-parent><ancestor>a/~~/b</ancestor></no-parent>"), "{report}");
        let report = String::from_utf8(Conflict::Schema("a \"b\"".into()).report()).unwrap();
        assert!(report.contains("<schema-validation-error phrase=\"a &quot;b&quot;\"/>"), "{report}");
    }
}
