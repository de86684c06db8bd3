//! Application usages: which documents there are, and what each must be like (RFC 4825 §5).

pub mod directory;
mod pidf_manipulation;
mod pres_rules;
mod resource_lists;
pub mod rls_services;
pub mod xcap_caps;

use sip_xml::Element;

use crate::conflict::{Conflict, Exists};
use crate::schema::Declaration;
use crate::target::encode_segment;
use crate::text::Text;

/// One application usage.
#[derive(Debug)]
pub struct Usage {
    /// Application unique ID: the first segment of its URIs.
    pub auid: &'static str,
    pub media_type: &'static str,
    /// The default document namespace: that of names without a prefix in node selectors.
    pub namespace: &'static str,
    pub documents: Documents,
}

/// Who makes the documents of a usage.
#[derive(Debug)]
pub enum Documents {
    /// Users do.
    Stored(Stored),
    /// We do, from what else there is: they are read only. In the users tree, under this name.
    OfUsers(&'static str),
    /// In the global tree alone, under this name.
    Global(&'static str),
}

/// What documents that are stored must be.
#[derive(Debug)]
pub struct Stored {
    pub root: &'static Declaration,
    /// The only name that a document may have; `None`: any.
    pub name: Option<&'static str>,
    /// What the schema does not say, of one document.
    constraints: fn(&Text, &Place<'_>) -> Result<(), Conflict>,
}

/// Where a document is to be.
#[derive(Clone, Copy)]
pub struct Place<'p> {
    /// The path of the XCAP root's URI, with a slash at its end.
    pub root: &'p str,
    /// Whose home directory: tells whether an XUI, decoded, is that user's.
    pub is_owner: &'p dyn Fn(&str) -> bool,
}

/// All of them.
pub const ALL: [&Usage; 7] = [
    &resource_lists::USAGE,
    &rls_services::USAGE,
    &pres_rules::USAGE,
    &pres_rules::OMA_USAGE,
    &pidf_manipulation::USAGE,
    &xcap_caps::USAGE,
    &directory::USAGE,
];

/// The usage with this AUID.
pub fn find(auid: &str) -> Option<&'static Usage> {
    ALL.into_iter().find(|u| u.auid == auid)
}

impl Usage {
    /// What is stored of it, if anything is.
    pub fn stored(&self) -> Option<&Stored> {
        match &self.documents {
            Documents::Stored(stored) => Some(stored),
            _ => None,
        }
    }
}

impl Stored {
    /// Whether a document may have this name.
    pub fn allows(&self, name: &str) -> bool {
        self.name.is_none_or(|only| only == name)
    }

    /// Whether a document is one of this usage: first its schema, then what is to be unique, then the rest (§8.2.5).
    pub fn validate(&self, text: &Text, place: &Place<'_>) -> Result<(), Conflict> {
        self.root.validate(text.root()).map_err(|invalid| Conflict::Schema(invalid.to_string()))?;
        (self.constraints)(text, place)
    }
}

/// No constraints beyond the schema.
fn none(_: &Text, _: &Place<'_>) -> Result<(), Conflict> {
    Ok(())
}

/// The URI, relative to its document, of an attribute of the last element of a way from the root (§11.1). `namespace`: the usage's.
fn field(way: &[&Element], attribute: &str, namespace: &str) -> String {
    let mut steps = Vec::with_capacity(way.len());
    let mut prefixes: Vec<&str> = Vec::new();
    for (number, element) in way.iter().enumerate() {
        let own = element.namespace.as_deref().unwrap_or_default();
        let prefix = match (own == namespace, prefixes.iter().position(|p| *p == own)) {
            (true, _) => String::new(),
            (false, Some(known)) => format!("n{known}:"),
            (false, None) => {
                prefixes.push(own);
                format!("n{}:", prefixes.len() - 1)
            }
        };
        let mut step = format!("{prefix}{}", element.name);
        if let Some(parent) = number.checked_sub(1).map(|n| way[n]) {
            let alike = parent.elements().filter(|e| e.name == element.name && e.namespace == element.namespace);
            let before = alike.take_while(|e| e.span != element.span).count();
            step.push_str(&format!("[{}]", before + 1));
        }
        steps.push(encode_segment(&step));
    }
    let mut uri = format!("{}/@{attribute}", steps.join("/"));
    for (number, namespace) in prefixes.iter().enumerate() {
        let separator = if number == 0 { "?" } else { "" };
        // Nothing in the namespaces that are known here would have to be escaped for the pointer.
        uri.push_str(&format!("{separator}xmlns(n{number}={})", encode_segment(namespace)));
    }
    uri
}

/// Notes each value of an attribute that was there before among the children of that name.
fn repeated(
    way: &[&Element],
    is: impl Fn(&Element) -> bool,
    attribute: &str,
    namespace: &str,
    found: &mut Vec<Exists>,
) {
    let Some(parent) = way.last() else { return };
    let mut seen = std::collections::BTreeSet::new();
    for child in parent.elements().filter(|e| is(e)) {
        if let Some(value) = child.attribute(attribute)
            && !seen.insert(value)
            && found.len() < MAX_REPORTED
        {
            let way: Vec<&Element> = way.iter().copied().chain([child]).collect();
            found.push(Exists { field: field(&way, attribute, namespace), alternatives: Vec::new() });
        }
    }
}

/// Values that one report names.
const MAX_REPORTED: usize = 16;

#[cfg(test)]
mod tests;
