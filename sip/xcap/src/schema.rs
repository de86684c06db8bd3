//! XML schemas as rules: what the documents of the application usages must be like (RFC 4825 §8.2.5).
//!
//! A schema is a table of [`Declaration`]s, written from the one that its RFC gives, in the words of XML Schema. Only what
//! these schemas use is here. Elements that a wildcard lets in are checked when their namespace is known, and must be
//! declared there; those of other namespaces may be anything.

mod common_policy;
mod oma_common_policy;
mod pidf;
mod pres_rules;
mod resource_lists;
mod rls_services;
mod simple;

use std::collections::BTreeSet;

use sip_xml::{Element, Node};

pub use common_policy::{COMMON_POLICY, RULESET};
pub use oma_common_policy::OMA_COMMON_POLICY;
pub use pidf::{PIDF, PRESENCE};
pub use pres_rules::PRES_RULES;
pub use resource_lists::{LISTS as RESOURCE_LISTS_ROOT, RESOURCE_LISTS};
pub use rls_services::{RLS_SERVICES, SERVICES as RLS_SERVICES_ROOT};
pub use simple::Simple;

use crate::selector::XML;

/// An element.
#[derive(Debug)]
pub struct Declaration {
    pub namespace: &'static str,
    pub name: &'static str,
    pub kind: &'static Kind,
}

/// A type.
#[derive(Debug)]
pub struct Kind {
    pub content: Content,
    pub attributes: &'static [Attribute],
    /// `anyAttribute namespace="##other"`.
    pub other_attributes: bool,
}

#[derive(Debug)]
pub enum Content {
    Empty,
    Text(Simple),
    /// Nothing but blanks between them.
    Elements(Part),
}

#[derive(Debug)]
pub struct Attribute {
    /// `None`: in no namespace.
    pub namespace: Option<&'static str>,
    pub name: &'static str,
    pub value: Simple,
    pub required: bool,
}

/// A particle: what stands there, and how often.
#[derive(Debug)]
pub struct Part {
    pub term: Term,
    pub min: usize,
    pub max: usize,
}

#[derive(Debug)]
pub enum Term {
    Element(&'static Declaration),
    /// `any namespace="##other" processContents="lax"` in a schema with this target namespace.
    Other(&'static str),
    Sequence(&'static [Part]),
    Choice(&'static [Part]),
}

/// What is wrong with a document: an element, and what of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{element}: {fault}")]
pub struct Invalid {
    pub element: String,
    pub fault: String,
}

/// The namespaces whose elements are all known here, and those that may stand by themselves.
pub const KNOWN: [(&str, &[&Declaration]); 6] = [
    (RESOURCE_LISTS, &[&RESOURCE_LISTS_ROOT]),
    (RLS_SERVICES, &[&RLS_SERVICES_ROOT]),
    (COMMON_POLICY, &[&RULESET]),
    (PRES_RULES, pres_rules::GLOBAL),
    (OMA_COMMON_POLICY, oma_common_policy::GLOBAL),
    (PIDF, &[&PRESENCE]),
];

const MANY: usize = usize::MAX;
/// XML Schema Part 1 §2.6: may stand at every element.
const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";

impl Part {
    const fn new(term: Term, min: usize, max: usize) -> Part {
        Part { term, min, max }
    }

    const fn one(declaration: &'static Declaration) -> Part {
        Part::new(Term::Element(declaration), 1, 1)
    }

    const fn optional(declaration: &'static Declaration) -> Part {
        Part::new(Term::Element(declaration), 0, 1)
    }

    const fn any(declaration: &'static Declaration) -> Part {
        Part::new(Term::Element(declaration), 0, MANY)
    }

    /// Any number of elements from namespaces other than this.
    const fn others(namespace: &'static str) -> Part {
        Part::new(Term::Other(namespace), 0, MANY)
    }
}

impl Kind {
    const fn empty(attributes: &'static [Attribute]) -> Kind {
        Kind { content: Content::Empty, attributes, other_attributes: false }
    }

    const fn text(value: Simple, attributes: &'static [Attribute]) -> Kind {
        Kind { content: Content::Text(value), attributes, other_attributes: false }
    }

    const fn sequence(parts: &'static [Part], attributes: &'static [Attribute]) -> Kind {
        let content = Content::Elements(Part::new(Term::Sequence(parts), 1, 1));
        Kind { content, attributes, other_attributes: false }
    }

    /// With attributes from other namespaces.
    const fn open(self) -> Kind {
        Kind { other_attributes: true, content: self.content, attributes: self.attributes }
    }
}

impl Attribute {
    const fn required(name: &'static str, value: Simple) -> Attribute {
        Attribute { namespace: None, name, value, required: true }
    }

    const fn optional(name: &'static str, value: Simple) -> Attribute {
        Attribute { namespace: None, name, value, required: false }
    }
}

/// `xml:lang`, which two schemas take in.
const LANG: Attribute = Attribute { namespace: Some(XML), name: "lang", value: Simple::Language, required: false };

impl Declaration {
    /// Whether a root element is this one, as its schema wants it.
    pub fn validate(&self, root: &Element) -> Result<(), Invalid> {
        if !root.is(self.namespace, self.name) {
            return Err(invalid(root, format!("{} in {} is wanted", self.name, self.namespace)));
        }
        let mut ids = BTreeSet::new();
        element(root, self, &mut ids)
    }
}

fn invalid(element: &Element, fault: impl Into<String>) -> Invalid {
    Invalid { element: element.name.to_string(), fault: fault.into() }
}

fn element<'d>(e: &'d Element, declaration: &Declaration, ids: &mut BTreeSet<&'d str>) -> Result<(), Invalid> {
    attributes(e, declaration, ids)?;
    let texts = || e.children.iter().filter_map(|n| if let Node::Text(t) = n { Some(t) } else { None });
    match &declaration.kind.content {
        Content::Text(value) => {
            if let Some(child) = e.elements().next() {
                return Err(invalid(e, format!("{} is not wanted in it", child.name)));
            }
            check(e, "its text", value, &e.text())
        }
        Content::Empty => match e.children.is_empty() {
            true => Ok(()),
            false => Err(invalid(e, "not empty")),
        },
        Content::Elements(part) => {
            if texts().any(|t| !t.bytes().all(|b| b.is_ascii_whitespace())) {
                return Err(invalid(e, "text between its elements"));
            }
            let children: Vec<&Element> = e.elements().collect();
            let mut run = Run { children: &children, at: 0, taken: Vec::with_capacity(children.len()) };
            let fits = run.part(part);
            if let Some(odd) = children.get(run.at) {
                return Err(invalid(e, format!("{} is not wanted there", odd.name)));
            }
            if !fits {
                return Err(invalid(e, "something is missing in it"));
            }
            let taken = run.taken;
            children.iter().zip(taken).try_for_each(|(child, declaration)| match declaration {
                Some(declaration) => element(child, declaration, ids),
                None => other(child, ids),
            })
        }
    }
}

/// An element that a wildcard has let in.
fn other<'d>(e: &'d Element, ids: &mut BTreeSet<&'d str>) -> Result<(), Invalid> {
    let known = KNOWN.iter().find(|(namespace, _)| e.namespace.as_deref() == Some(*namespace));
    match known {
        None => Ok(()),
        Some((_, declarations)) => match declarations.iter().find(|d| *d.name == *e.name) {
            Some(declaration) => element(e, declaration, ids),
            None => Err(invalid(e, "not an element of its namespace")),
        },
    }
}

fn attributes<'d>(e: &'d Element, declaration: &Declaration, ids: &mut BTreeSet<&'d str>) -> Result<(), Invalid> {
    let kind = declaration.kind;
    for attribute in &e.attributes {
        let namespace = attribute.namespace.as_deref();
        let known = kind.attributes.iter().find(|a| *a.name == *attribute.name && a.namespace == namespace);
        match known {
            Some(known) => {
                check(e, &attribute.name, &known.value, &attribute.value)?;
                if known.value == Simple::Id && !ids.insert(attribute.value.trim()) {
                    return Err(invalid(e, format!("{} is taken", attribute.name)));
                }
            }
            None if namespace == Some(XSI)
                && matches!(&*attribute.name, "schemaLocation" | "noNamespaceSchemaLocation") => {}
            None if kind.other_attributes && namespace.is_some_and(|n| n != declaration.namespace && n != XSI) => {}
            None => return Err(invalid(e, format!("{} is not wanted there", attribute.name))),
        }
    }
    for wanted in kind.attributes.iter().filter(|a| a.required) {
        let there = e.attributes.iter().any(|a| *a.name == *wanted.name && a.namespace.as_deref() == wanted.namespace);
        if !there {
            return Err(invalid(e, format!("no {}", wanted.name)));
        }
    }
    Ok(())
}

fn check(e: &Element, what: &str, value: &Simple, text: &str) -> Result<(), Invalid> {
    if value.takes(text) { Ok(()) } else { Err(invalid(e, format!("{what} is no {value}"))) }
}

/// One pass over the children of an element. Content models are deterministic (Unique Particle Attribution), so the first
/// way that fits is the only one.
struct Run<'c, 'd> {
    children: &'c [&'d Element],
    at: usize,
    /// What each child before `at` is; `None`: a wildcard's.
    taken: Vec<Option<&'static Declaration>>,
}

impl Run<'_, '_> {
    /// Takes what belongs to the part; false if it is not there often enough.
    fn part(&mut self, part: &Part) -> bool {
        let mut count = 0;
        while count < part.max {
            let before = self.at;
            if !self.term(&part.term) {
                break;
            }
            count += 1;
            if self.at == before {
                // It is content with nothing, however often.
                return true;
            }
        }
        count >= part.min
    }

    fn term(&mut self, term: &Term) -> bool {
        match term {
            Term::Element(declaration) => {
                self.take(|e| e.is(declaration.namespace, declaration.name), Some(declaration))
            }
            Term::Other(target) => self.take(|e| e.namespace.as_deref().is_some_and(|n| n != *target), None),
            Term::Sequence(parts) => self.sequence(parts),
            Term::Choice(parts) => {
                let mut content = false;
                for part in *parts {
                    let before = self.at;
                    if self.part(part) {
                        content = true;
                        if self.at > before {
                            return true;
                        }
                    }
                }
                content
            }
        }
    }

    fn sequence(&mut self, parts: &[Part]) -> bool {
        parts.iter().all(|part| self.part(part))
    }

    fn take(&mut self, is: impl Fn(&Element) -> bool, what: Option<&'static Declaration>) -> bool {
        let there = self.children.get(self.at).is_some_and(|e| is(e));
        if there {
            self.at += 1;
            self.taken.push(what);
        }
        there
    }
}

#[cfg(test)]
mod tests;
