//! XCAP diff documents (RFC 5874): what the subscribers of changes are told.

use sip_xml::{Element, Open, Writer};

use crate::edit::in_scope;
use crate::patch::{Operation, between};
use crate::selector::{NodeSelector, Terminal};
use crate::text::Text;

pub const MEDIA_TYPE: &str = "application/xcap-diff+xml";
const NAMESPACE: &str = "urn:ietf:params:xml:ns:xcap-diff";

/// What is told of one resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A document, by its entity tags. Only the new one: it is there, or was made. Only the old one: it is gone.
    Document { sel: String, new: Option<String>, previous: Option<String>, patch: Patch },
    /// An element; `None`: it is not there.
    Element { sel: String, content: Option<Content> },
    /// An attribute's value, references resolved; `None`: it is not there.
    Attribute { sel: String, value: Option<String> },
}

/// What makes the new state of a document of the previous one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Patch {
    /// Not told: the document is to be fetched.
    Untold,
    /// Only the entity tag is another one.
    Nothing,
    /// Never empty.
    Operations(Vec<Operation>),
}

impl Patch {
    /// Of two states of a document.
    pub fn of(old: &[u8], new: &[u8]) -> Patch {
        if old == new {
            return Patch::Nothing;
        }
        let read = |bytes: &[u8]| Text::read(bytes.to_vec()).ok();
        match read(old).zip(read(new)).and_then(|(old, new)| between(&old, &new)) {
            None => Patch::Untold,
            Some(operations) if operations.is_empty() => Patch::Nothing,
            Some(operations) => Patch::Operations(operations),
        }
    }
}

/// An element as it stands in its document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    pub xml: String,
    /// What its ancestors have declared.
    pub declarations: Vec<(Option<String>, String)>,
}

impl Change {
    /// What a node selector finds in a document, or does not; `sel` is how the subscriber wrote it. `None`: it selects neither
    /// an element nor an attribute.
    pub fn of(text: Option<&Text>, selector: &NodeSelector, sel: &str) -> Option<Change> {
        let sel = sel.to_owned();
        let way = text.and_then(|t| selector.way(t.root()).ok());
        match &selector.terminal {
            Terminal::Element => {
                let content = text.zip(way).and_then(|(text, way)| Content::of(text, &way));
                Some(Change::Element { sel, content })
            }
            Terminal::Attribute(name) => {
                let value = way.and_then(|way| name.value_in(way.last()?).map(str::to_owned));
                Some(Change::Attribute { sel, value })
            }
            Terminal::Namespaces => None,
        }
    }

    /// Whether the resource is there.
    pub fn is_there(&self) -> bool {
        match self {
            Change::Document { new, .. } => new.is_some(),
            Change::Element { content, .. } => content.is_some(),
            Change::Attribute { value, .. } => value.is_some(),
        }
    }

    /// The same, with no more than that an element is there, or a document another one (RFC 5874 §3).
    pub fn without_content(self) -> Change {
        match self {
            Change::Element { sel, content: Some(_) } => {
                Change::Element { sel, content: Some(Content { xml: String::new(), declarations: Vec::new() }) }
            }
            Change::Document { sel, new, previous, .. } => {
                Change::Document { sel, new, previous, patch: Patch::Untold }
            }
            other => other,
        }
    }

    /// What is bound around pieces of documents.
    fn declarations(&self) -> Vec<&(Option<String>, String)> {
        match self {
            Change::Element { content: Some(content), .. } => content.declarations.iter().collect(),
            Change::Document { patch: Patch::Operations(operations), .. } => {
                operations.iter().flat_map(Operation::declarations).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Content {
    /// The last element of a way from the root of a document.
    fn of(text: &Text, way: &[&Element]) -> Option<Content> {
        let (element, above) = way.split_last()?;
        let bound = in_scope(above);
        let declarations = bound.into_iter().map(|(p, n)| (p.map(str::to_owned), n.to_owned())).collect();
        Some(Content { xml: text.of(element).to_owned(), declarations })
    }

    pub(crate) fn write(&self, parent: &mut Open<'_>) {
        for (prefix, namespace) in &self.declarations {
            match prefix {
                None => parent.attribute("xmlns", namespace),
                Some(prefix) => parent.attribute(&format!("xmlns:{prefix}"), namespace),
            };
        }
        parent.fragment(&self.xml);
    }
}

/// Writes a document of changes below `root`, an absolute URI with a slash at its end.
pub fn document(root: &str, changes: &[Change]) -> Vec<u8> {
    // One that no element inside needs for something else.
    let taken = |prefix: &str| changes.iter().flat_map(Change::declarations).any(|(p, _)| p.as_deref() == Some(prefix));
    let prefix = (0..).map(|n| format!("d{n}")).find(|p| !taken(p)).unwrap_or_default();
    let mut out = Vec::with_capacity(512);
    Writer::document(&mut out, &format!("{prefix}:xcap-diff"), |diff| {
        diff.attribute(&format!("xmlns:{prefix}"), NAMESPACE).attribute("xcap-root", root);
        changes.iter().for_each(|change| write(diff, &prefix, change));
    });
    out
}

fn write(diff: &mut Open<'_>, prefix: &str, change: &Change) {
    match change {
        Change::Document { sel, new, previous, patch } => diff.child(&format!("{prefix}:document"), |d| {
            d.attribute("sel", sel);
            for (name, tag) in [("new-etag", new), ("previous-etag", previous)] {
                if let Some(tag) = tag {
                    d.attribute(name, tag);
                }
            }
            match patch {
                Patch::Untold => {}
                Patch::Nothing => d.child(&format!("{prefix}:body-not-changed"), |_| {}),
                Patch::Operations(operations) => operations.iter().for_each(|o| o.write(d, prefix)),
            }
        }),
        Change::Element { sel, content } => diff.child(&format!("{prefix}:element"), |e| {
            e.attribute("sel", sel);
            let Some(content) = content else {
                e.attribute("exists", "false");
                return;
            };
            content.write(e);
        }),
        Change::Attribute { sel, value } => diff.child(&format!("{prefix}:attribute"), |a| {
            a.attribute("sel", sel);
            match value {
                None => drop(a.attribute("exists", "false")),
                Some(value) => a.text(value),
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use sip_xml::Document;

    use super::*;

    #[test]
    fn what_is_told_reads_back_in_its_own_namespaces() {
        let text = "<d0:a xmlns:d0='urn:a' xmlns='urn:d' xmlns:x='urn:x'><b x:c='1&amp;2'><x:d/></b></d0:a>";
        let text = Text::read(text.as_bytes().to_vec()).unwrap();
        let bindings = vec![("a".to_owned(), "urn:a".to_owned()), ("x".to_owned(), "urn:x".to_owned())];
        let find = |sel: &str| {
            let selector = NodeSelector::parse(sel, &bindings, Some("urn:d")).unwrap();
            [Change::of(Some(&text), &selector, sel).unwrap(), Change::of(None, &selector, sel).unwrap()]
        };
        let patch = Patch::Untold;
        let mut changes = vec![Change::Document { sel: "u/d".into(), new: Some("2".into()), previous: None, patch }];
        changes.extend(find("a:a/b"));
        changes.extend(find("a:a/b/@x:c"));
        let bytes = document("http://h/", &changes);
        let root = Document::parse(&bytes).unwrap().root;
        assert!(root.is(NAMESPACE, "xcap-diff") && root.attribute("xcap-root") == Some("http://h/"));
        let told: Vec<&Element> = root.elements().collect();
        assert_eq!((told[0].attribute("new-etag"), told[0].attribute("previous-etag")), (Some("2"), None));
        assert!(told[1].child("urn:d", "b").unwrap().child("urn:x", "d").is_some());
        assert_eq!((told[2].attribute("exists"), told[2].children.len()), (Some("false"), 0));
        assert_eq!((told[3].text(), told[4].attribute("exists")), ("1&2".into(), Some("false")));
        let bindings = NodeSelector::parse("b/namespace::*", &bindings, None).unwrap();
        assert_eq!(Change::of(None, &bindings, "x"), None);
    }
}
