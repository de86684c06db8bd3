//! A document as a tree that owns its text.

use std::ops::Range;
use std::sync::Arc;

/// A whole document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    pub root: Element,
}

/// One element. Names are compared with their namespace, never with their prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element {
    /// `None`: in no namespace.
    pub namespace: Option<Arc<str>>,
    /// Without its prefix.
    pub name: Box<str>,
    /// In document order, namespace declarations left out.
    pub attributes: Vec<Attribute>,
    /// The namespaces that this element itself declares, in document order.
    pub declarations: Vec<Declaration>,
    pub children: Vec<Node>,
    /// Where the element stands in the bytes it was read from, from `<` to the last `>`.
    pub span: Range<usize>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    /// `None` for nearly all: an attribute without a prefix is in no namespace.
    pub namespace: Option<Arc<str>>,
    pub name: Box<str>,
    pub value: Box<str>,
}

/// `xmlns="…"` or `xmlns:prefix="…"`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Declaration {
    /// `None`: the default namespace.
    pub prefix: Option<Box<str>>,
    /// Empty: none, where a default is undone.
    pub namespace: Box<str>,
}

/// What an element holds. Comments and processing instructions are not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    Element(Element),
    /// References resolved, CDATA sections taken in, neighbours joined.
    Text(Box<str>),
}

impl Element {
    /// Whether this is `name` in `namespace`.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        &*self.name == name && self.namespace.as_deref() == Some(namespace)
    }

    /// The value of an attribute that is in no namespace.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|a| a.namespace.is_none() && &*a.name == name).map(|a| &*a.value)
    }

    /// The value of an attribute in a namespace, such as `xml:lang`.
    pub fn attribute_in(&self, namespace: &str, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|a| a.namespace.as_deref() == Some(namespace) && &*a.name == name);
        found.map(|a| &*a.value)
    }

    /// The child elements, text left out.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|n| match n {
            Node::Element(e) => Some(e),
            Node::Text(_) => None,
        })
    }

    /// The child elements of that name, in document order.
    pub fn all<'e>(&'e self, namespace: &'e str, name: &'e str) -> impl Iterator<Item = &'e Element> {
        self.elements().filter(move |e| e.is(namespace, name))
    }

    /// The first child element of that name.
    pub fn child(&self, namespace: &str, name: &str) -> Option<&Element> {
        self.elements().find(|e| e.is(namespace, name))
    }

    /// The text directly in this element, blanks kept, child elements left out.
    pub fn text(&self) -> String {
        let texts = self.children.iter().filter_map(|n| match n {
            Node::Text(t) => Some(&**t),
            Node::Element(_) => None,
        });
        texts.collect()
    }
}
