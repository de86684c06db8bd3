//! Reading and changing one node of a document (RFC 4825 §7, §8): the rest stays byte for byte as it was.

use std::ops::Range;

use sip_xml::{Document, Element, Writer, escape_attribute};

use crate::conflict::Conflict;
use crate::selector::{Miss, Name, NodeSelector, Step, Terminal, XML, unquote, way};
use crate::start_tag::{RawAttribute, StartTag};
use crate::target::encode_segment;
use crate::text::{LIMITS, Text, conflict};

/// A node that was asked for, as it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub media_type: &'static str,
    pub body: String,
}

/// What is put at the place that a node selector names.
#[derive(Clone, Copy, Debug)]
pub enum Put<'b> {
    /// One element, with the prefixes of its new place.
    Element(&'b [u8]),
    /// An `AttValue`, its quotes included.
    Attribute(&'b [u8]),
}

/// A document that was changed. Whether it is still what its application usage wants is to be looked at.
#[derive(Clone, Debug)]
pub struct Edited {
    pub text: Text,
    /// 201: there was no such node. Else 200.
    pub created: bool,
}

/// Why nothing was changed. The client's doing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// 404.
    #[error("no such node")]
    NotFound,
    /// 405: namespace bindings are only read.
    #[error("namespace bindings cannot be changed")]
    ReadOnly,
    /// 409.
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

impl NodeSelector {
    /// The media type of a node of this kind.
    pub fn media_type(&self) -> &'static str {
        match self.terminal {
            Terminal::Element => "application/xcap-el+xml",
            Terminal::Attribute(_) => "application/xcap-att+xml",
            Terminal::Namespaces => "application/xcap-ns+xml",
        }
    }
}

impl Text {
    /// The selected node (§7.6, §7.9, §7.10). `None`: 404.
    pub fn get(&self, selector: &NodeSelector) -> Option<Node> {
        let way = selector.way(self.root()).ok()?;
        let element = way.last()?;
        let body = match &selector.terminal {
            Terminal::Element => self.of(element).to_owned(),
            Terminal::Attribute(name) => {
                let tag = StartTag::at(self.as_str(), element.span.start)?;
                self.as_str()[self.raw(&tag, element, name)?.value.clone()].to_owned()
            }
            Terminal::Namespaces => self.bindings(&way)?,
        };
        Some(Node { media_type: selector.media_type(), body })
    }

    /// Creates or replaces the selected node (§8.2). `document` is the document's URI, to name ancestors by.
    pub fn put(&self, selector: &NodeSelector, put: Put<'_>, document: &str) -> Result<Edited, Refused> {
        match (&selector.terminal, put) {
            (Terminal::Namespaces, _) => Err(Refused::ReadOnly),
            (Terminal::Element, Put::Element(body)) => self.put_element(selector, body, document),
            (Terminal::Attribute(name), Put::Attribute(body)) => self.put_attribute(selector, name, body, document),
            (Terminal::Element, Put::Attribute(_)) => Err(Conflict::NotXmlFragment.into()),
            (Terminal::Attribute(_), Put::Element(_)) => Err(Conflict::NotXmlAttributeValue.into()),
        }
    }

    /// Removes the selected node (§8.4).
    pub fn delete(&self, selector: &NodeSelector) -> Result<Text, Refused> {
        let way = selector.way(self.root()).map_err(|_| Refused::NotFound)?;
        let element = way.last().ok_or(Refused::NotFound)?;
        let gone = match &selector.terminal {
            Terminal::Namespaces => return Err(Refused::ReadOnly),
            Terminal::Element if way.len() == 1 => {
                return Err(Conflict::Schema("a document has a root element".into()).into());
            }
            Terminal::Element => element.span.clone(),
            Terminal::Attribute(name) => {
                let tag = StartTag::at(self.as_str(), element.span.start).ok_or(Refused::NotFound)?;
                self.raw(&tag, element, name).ok_or(Refused::NotFound)?.whole.clone()
            }
        };
        let left = self.spliced(gone, "")?;
        let still_there = match &selector.terminal {
            Terminal::Attribute(name) => selector.element(left.root()).is_some_and(|e| name.value_in(e).is_some()),
            // Several are something too.
            _ => !matches!(selector.way(left.root()), Err(Miss::Nothing)),
        };
        if still_there { Err(Conflict::CannotDelete.into()) } else { Ok(left) }
    }

    fn put_element(&self, selector: &NodeSelector, body: &[u8], document: &str) -> Result<Edited, Refused> {
        let Some((last, parents)) = selector.steps.split_last() else { return Err(Refused::NotFound) };
        let above = self.parents(parents, document)?;
        let (body, name) = fragment(&above, body)?;
        let siblings: Vec<&Element> = match above.last() {
            Some(parent) => parent.elements().collect(),
            None => vec![self.root()],
        };
        let (range, created) = match *last.of(siblings.iter().copied()) {
            [target] => (target.span.clone(), false),
            // The root has no siblings.
            [] => match above.last() {
                Some(parent) => (self.room(parent, &siblings, last, &name).ok_or(Conflict::CannotInsert)?, true),
                None => return Err(Conflict::CannotInsert.into()),
            },
            // They would be more than one afterwards too.
            _ => return Err(Conflict::CannotInsert.into()),
        };
        let at = range.start;
        let (text, inserted) = match range.is_empty().then(|| above.last()).flatten() {
            // `<parent/>` is opened.
            Some(parent) if at == parent.span.end => self.opened(parent, &body)?,
            _ => (self.spliced(range, &body)?, at..at + body.len()),
        };
        match selector.element(text.root()) {
            Some(found) if found.span == inserted => Ok(Edited { text, created }),
            _ => Err(Conflict::CannotInsert.into()),
        }
    }

    /// Where a new element goes (§8.2.3): an empty range, behind the parent where that has no content and no end tag.
    fn room(&self, parent: &Element, siblings: &[&Element], step: &Step, name: &Name) -> Option<Range<usize>> {
        if step.name.as_ref().is_some_and(|wanted| wanted != name) {
            return None;
        }
        let alike: Vec<&Element> = siblings.iter().copied().filter(|e| name.is(e)).collect();
        let counted = if step.name.is_some() { &*alike } else { siblings };
        let at = match (step.position, counted.first()) {
            // Behind those of its name, so that as much as possible follows it.
            (None, _) => alike.last().map(|e| e.span.end),
            (Some(1), first) => first.map(|e| e.span.start),
            (Some(n), _) => Some(counted.get(n.checked_sub(2)?)?.span.end),
        };
        let at = match at {
            Some(at) => at,
            None => {
                let tag = StartTag::at(self.as_str(), parent.span.start)?;
                match tag.empty {
                    true => parent.span.end,
                    // Before the end tag, behind whatever else is there.
                    false => parent.span.start + self.of(parent).rfind("</")?,
                }
            }
        };
        Some(at..at)
    }

    /// With an element in the empty element `parent`, and where it stands then.
    fn opened(&self, parent: &Element, body: &str) -> Result<(Text, Range<usize>), Refused> {
        let tag = StartTag::at(self.as_str(), parent.span.start).ok_or(Conflict::CannotInsert)?;
        let name = &self.as_str()[tag.name.clone()];
        let text = self.spliced(tag.room..tag.end, &format!(">{body}</{name}>"))?;
        let from = tag.room + 1;
        Ok((text, from..from + body.len()))
    }

    fn put_attribute(
        &self,
        selector: &NodeSelector,
        name: &Name,
        body: &[u8],
        document: &str,
    ) -> Result<Edited, Refused> {
        let way = self.parents(&selector.steps, document)?;
        let body = std::str::from_utf8(body).map_err(|_| Conflict::NotUtf8)?;
        unquote(body).ok_or(Conflict::NotXmlAttributeValue)?;
        let element = way.last().ok_or(Conflict::NoParent(None))?;
        let tag = StartTag::at(self.as_str(), element.span.start).ok_or(Conflict::CannotInsert)?;
        let raw = self.raw(&tag, element, name);
        let (created, text) = match raw {
            Some(raw) => (false, self.spliced(raw.value.clone(), body)),
            None => {
                // A declaration is no attribute, and is not written as if it were one.
                let name = self.written(&way, name).filter(|n| *n != "xmlns").ok_or(Conflict::CannotInsert)?;
                (true, self.spliced(tag.room..tag.room, &format!(" {name}={body}")))
            }
        };
        // Quotes do not make characters that XML has not.
        let text = text.map_err(|_| Conflict::NotXmlAttributeValue)?;
        let found = selector.element(text.root()).filter(|e| e.span.start == element.span.start);
        let found = found.and_then(|e| Some((StartTag::at(text.as_str(), e.span.start)?, e)));
        let stands = found.is_some_and(|(tag, e)| {
            text.raw(&tag, e, name).is_some_and(|raw| &text.as_str()[raw.value.clone()] == body)
        });
        if stands { Ok(Edited { text, created }) } else { Err(Conflict::CannotInsert.into()) }
    }

    /// The elements that steps lead through, or that there is no parent, and what is there instead (§8.2.1).
    fn parents(&self, steps: &[Step], document: &str) -> Result<Vec<&Element>, Conflict> {
        way(self.root(), steps).map_err(|_| {
            let there = (0..steps.len()).rev().find(|n| way(self.root(), &steps[..*n]).is_ok()).unwrap_or(0);
            let steps: Vec<String> = steps[..there].iter().map(|s| encode_segment(&s.text)).collect();
            match steps.is_empty() {
                true => Conflict::NoParent(Some(document.to_owned())),
                false => Conflict::NoParent(Some(format!("{document}/~~/{}", steps.join("/")))),
            }
        })
    }

    /// Where an attribute stands in its tag.
    fn raw<'t>(&self, tag: &'t StartTag, element: &Element, name: &Name) -> Option<&'t RawAttribute> {
        let namespace = name.namespace.as_deref();
        let number =
            element.attributes.iter().position(|a| a.name == name.local && a.namespace.as_deref() == namespace)?;
        tag.attributes.iter().filter(|raw| !raw.is_declaration(self.as_str())).nth(number)
    }

    /// How the name of an attribute is written in the last element of a way. `None`: no prefix stands for its namespace there.
    fn written(&self, way: &[&Element], name: &Name) -> Option<String> {
        let namespace = match name.namespace.as_deref() {
            None => return Some(name.local.to_string()),
            Some(XML) => return Some(format!("xml:{}", name.local)),
            Some(namespace) => namespace,
        };
        let bound = in_scope(way);
        let prefix = bound.iter().find_map(|(prefix, n)| prefix.filter(|_| *n == namespace))?;
        Some(format!("{prefix}:{}", name.local))
    }

    /// §10.
    fn bindings(&self, way: &[&Element]) -> Option<String> {
        let element = way.last()?;
        let tag = StartTag::at(self.as_str(), element.span.start)?;
        let mut out = Vec::new();
        Writer::element(&mut out, &self.as_str()[tag.name], |e| {
            for (prefix, namespace) in in_scope(way) {
                match prefix {
                    None => e.attribute("xmlns", namespace),
                    Some(prefix) => e.attribute(&format!("xmlns:{prefix}"), namespace),
                };
            }
        });
        String::from_utf8(out).ok()
    }

    fn spliced(&self, range: Range<usize>, with: &str) -> Result<Text, Conflict> {
        let old = self.as_str();
        let mut text = Vec::with_capacity(old.len() - range.len() + with.len());
        text.extend_from_slice(&old.as_bytes()[..range.start]);
        text.extend_from_slice(with.as_bytes());
        text.extend_from_slice(&old.as_bytes()[range.end..]);
        Text::read(text)
    }
}

/// The namespaces that the last element of a way sees, the default first (`None`), then by the order of their declaration.
pub(crate) fn in_scope<'d>(way: &[&'d Element]) -> Vec<(Option<&'d str>, &'d str)> {
    let mut bound: Vec<(Option<&str>, &str)> = Vec::new();
    for declaration in way.iter().flat_map(|e| &e.declarations) {
        let prefix = declaration.prefix.as_deref();
        match bound.iter_mut().find(|(p, _)| *p == prefix) {
            Some((_, namespace)) => *namespace = &declaration.namespace,
            None => bound.push((prefix, &declaration.namespace)),
        }
    }
    // No default is none.
    bound.retain(|(_, namespace)| !namespace.is_empty());
    bound.sort_by_key(|(prefix, _)| prefix.is_some());
    bound
}

/// One element, without the blanks around it, and its name in a place with these elements above it (§8.2.2).
fn fragment(above: &[&Element], body: &[u8]) -> Result<(String, Name), Conflict> {
    let body = std::str::from_utf8(body).map_err(|_| Conflict::NotUtf8)?;
    let body = body.trim_matches([' ', '\t', '\r', '\n']);
    let mut wrapped = b"<w".to_vec();
    for (prefix, namespace) in in_scope(above) {
        wrapped.extend_from_slice(b" xmlns");
        if let Some(prefix) = prefix {
            wrapped.push(b':');
            wrapped.extend_from_slice(prefix.as_bytes());
        }
        wrapped.extend_from_slice(b"=\"");
        escape_attribute(namespace, &mut wrapped);
        wrapped.push(b'"');
    }
    wrapped.push(b'>');
    let from = wrapped.len();
    wrapped.extend_from_slice(body.as_bytes());
    let to = wrapped.len();
    wrapped.extend_from_slice(b"</w>");
    let limits = sip_xml::Limits { bytes: LIMITS.bytes * 2, attributes: usize::MAX, ..LIMITS };
    let root = Document::parse_with(&wrapped, &limits).map_err(|broken| match conflict(broken) {
        Conflict::NotWellFormed(_) => Conflict::NotXmlFragment,
        other => other,
    })?;
    let mut elements = root.root.elements();
    // Nothing beside it, not even a comment.
    let one = elements.next().filter(|e| e.span == (from..to)).ok_or(Conflict::NotXmlFragment)?;
    let name = Name { namespace: one.namespace.as_deref().map(Box::from), local: one.name.clone() };
    Ok((body.to_owned(), name))
}

#[cfg(test)]
mod tests;
