//! Reading: strict, bounded, in one pass.

use std::sync::Arc;

use quick_xml::NsReader;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesDecl, BytesStart, Event};
use quick_xml::name::{PrefixDeclaration, ResolveResult};

use crate::characters::{is_blank, is_char, is_q_name};
use crate::element::{Attribute, Declaration, Document, Element, Node};

/// Bounds on one document.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes in all.
    pub bytes: usize,
    /// Elements inside each other, the root being 1. At most 256: the tree is walked by recursion.
    pub depth: usize,
    /// Elements in all.
    pub elements: usize,
    /// Attributes of one element, namespace declarations included.
    pub attributes: usize,
    /// Bytes in one element or attribute name, its prefix included.
    pub name: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes: 1 << 20, depth: 64, elements: 20_000, attributes: 64, name: 256 }
    }
}

/// A document that is not read, and where. Always its author's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{fault} (byte {at})")]
pub struct Broken {
    pub fault: Fault,
    /// Offset of what could not be read, or a little after it.
    pub at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    #[error("not UTF-8")]
    Encoding,
    #[error("longer than allowed")]
    TooLong,
    #[error("elements nested too deeply")]
    TooDeep,
    #[error("too many elements")]
    TooManyElements,
    #[error("too many attributes")]
    TooManyAttributes,
    #[error("name too long")]
    NameTooLong,
    #[error("a document type declaration")]
    Dtd,
    #[error("an XML declaration out of place, or of another version")]
    Declaration,
    #[error("no root element")]
    NoRoot,
    #[error("something beside the root element")]
    OutsideRoot,
    #[error("not a name")]
    Name,
    #[error("an undeclared namespace prefix")]
    Prefix,
    #[error("a namespace declaration that is not allowed")]
    Namespace,
    #[error("a broken attribute")]
    Attribute,
    #[error("an attribute given twice")]
    Duplicate,
    #[error("an unknown entity")]
    Entity,
    #[error("a character that XML does not allow")]
    Character,
    #[error("broken markup")]
    Syntax,
}

impl Document {
    /// Reads one document with the default [`Limits`].
    pub fn parse(bytes: &[u8]) -> Result<Document, Broken> {
        Document::parse_with(bytes, &Limits::default())
    }

    pub fn parse_with(bytes: &[u8], limits: &Limits) -> Result<Document, Broken> {
        if bytes.len() > limits.bytes {
            return Err(Broken { fault: Fault::TooLong, at: limits.bytes });
        }
        let bom = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let text = std::str::from_utf8(&bytes[bom..])
            .map_err(|e| Broken { fault: Fault::Encoding, at: bom + e.valid_up_to() })?;
        let mut reader = NsReader::from_str(text);
        let config = reader.config_mut();
        config.check_comments = true;
        config.expand_empty_elements = true;
        let mut building = Building {
            limits: *limits,
            namespaces: Vec::new(),
            open: Vec::new(),
            pending: String::new(),
            root: None,
            elements: 0,
        };
        let mut from = 0;
        loop {
            let event = reader.read_event();
            let at = reader.buffer_position() as usize;
            let event = event.map_err(|e| Broken { fault: fault(&e), at: bom + reader.error_position() as usize })?;
            if matches!(event, Event::Eof) {
                break;
            }
            building
                .take(&reader, event, from, from + bom, at + bom)
                .map_err(|fault| Broken { fault, at: bom + from })?;
            from = at;
        }
        let end = Broken { fault: Fault::Syntax, at: bytes.len() };
        if !building.open.is_empty() {
            return Err(end);
        }
        building.root.map(|root| Document { root }).ok_or(Broken { fault: Fault::NoRoot, ..end })
    }
}

fn fault(error: &quick_xml::Error) -> Fault {
    match error {
        quick_xml::Error::Namespace(_) => Fault::Namespace,
        quick_xml::Error::InvalidAttr(_) => Fault::Attribute,
        quick_xml::Error::Escape(_) => Fault::Entity,
        quick_xml::Error::Encoding(_) => Fault::Encoding,
        _ => Fault::Syntax,
    }
}

struct Building {
    limits: Limits,
    /// Those met so far: one allocation for all elements of a namespace.
    namespaces: Vec<Arc<str>>,
    open: Vec<Element>,
    /// Text of the innermost open element that is not yet among its children.
    pending: String,
    root: Option<Element>,
    elements: usize,
}

impl Building {
    /// `offset` counts in the text, `from` and `to` in the bytes.
    fn take(
        &mut self,
        reader: &NsReader<&[u8]>,
        event: Event<'_>,
        offset: usize,
        from: usize,
        to: usize,
    ) -> Result<(), Fault> {
        match event {
            Event::Start(start) => self.start(reader, &start, from),
            Event::End(_) => self.end(to),
            Event::Text(text) => {
                // The only `]]>` that may stand in a document ends a CDATA section (§2.4).
                if text.contains("]]>") {
                    return Err(Fault::Syntax);
                }
                self.text(&text.xml10_content())
            }
            Event::CData(data) if !self.open.is_empty() => self.text(&data.xml10_content()),
            Event::CData(_) => Err(Fault::OutsideRoot),
            Event::GeneralRef(reference) if !self.open.is_empty() => match reference.resolve_char_ref() {
                Ok(Some(c)) => self.text(c.encode_utf8(&mut [0; 4])),
                Ok(None) => self.text(resolve_predefined_entity(&reference).ok_or(Fault::Entity)?),
                Err(_) => Err(Fault::Entity),
            },
            Event::GeneralRef(_) => Err(Fault::OutsideRoot),
            Event::Comment(text) => {
                if text.chars().all(is_char) {
                    Ok(())
                } else {
                    Err(Fault::Character)
                }
            }
            Event::Decl(declaration) if offset == 0 => check(&declaration),
            Event::Decl(_) => Err(Fault::Declaration),
            Event::PI(pi) => match pi.target() {
                // §2.6: reserved in any case.
                target if target.eq_ignore_ascii_case("xml") => Err(Fault::Declaration),
                target if !is_q_name(target) => Err(Fault::Name),
                _ if !pi.content().chars().all(is_char) => Err(Fault::Character),
                _ => Ok(()),
            },
            Event::DocType(_) => Err(Fault::Dtd),
            // Empty elements arrive as start and end.
            Event::Empty(_) | Event::Eof => Err(Fault::Syntax),
        }
    }

    fn start(&mut self, reader: &NsReader<&[u8]>, start: &BytesStart<'_>, from: usize) -> Result<(), Fault> {
        if self.root.is_some() {
            return Err(Fault::OutsideRoot);
        }
        self.settle();
        if self.open.len() >= self.limits.depth.min(256) {
            return Err(Fault::TooDeep);
        }
        self.elements += 1;
        if self.elements > self.limits.elements {
            return Err(Fault::TooManyElements);
        }
        self.check_name(start.name().into_inner())?;
        let (namespace, local) = reader.resolver().resolve_element(start.name());
        let mut element = Element {
            namespace: self.namespace(namespace)?,
            name: local.into_inner().into(),
            attributes: Vec::new(),
            declarations: Vec::new(),
            children: Vec::new(),
            span: from..from,
        };
        self.attributes(reader, start, &mut element)?;
        self.open.push(element);
        Ok(())
    }

    fn attributes(
        &mut self,
        reader: &NsReader<&[u8]>,
        start: &BytesStart<'_>,
        element: &mut Element,
    ) -> Result<(), Fault> {
        for (count, attribute) in start.attributes().enumerate() {
            let attribute = attribute.map_err(|e| match e {
                quick_xml::events::attributes::AttrError::Duplicated(..) => Fault::Duplicate,
                _ => Fault::Attribute,
            })?;
            if count >= self.limits.attributes {
                return Err(Fault::TooManyAttributes);
            }
            let key = attribute.key;
            self.check_name(key.into_inner())?;
            if attribute.value.contains('<') {
                return Err(Fault::Attribute);
            }
            let value = attribute.normalized_value(XmlVersion::Explicit1_0).map_err(|_| Fault::Entity)?;
            if !value.chars().all(is_char) {
                return Err(Fault::Character);
            }
            if let Some(binding) = key.as_namespace_binding() {
                // Namespaces in XML 1.0 §5: a prefix cannot be undeclared.
                if value.is_empty() && key.prefix().is_some() {
                    return Err(Fault::Namespace);
                }
                let prefix = match binding {
                    PrefixDeclaration::Default => None,
                    PrefixDeclaration::Named(prefix) => Some(prefix.into()),
                };
                element.declarations.push(Declaration { prefix, namespace: value.into() });
                continue;
            }
            let (namespace, local) = reader.resolver().resolve_attribute(key);
            let attribute = Attribute {
                namespace: self.namespace(namespace)?,
                name: local.into_inner().into(),
                value: value.into(),
            };
            let twin = |a: &Attribute| a.name == attribute.name && a.namespace == attribute.namespace;
            if element.attributes.iter().any(twin) {
                return Err(Fault::Duplicate);
            }
            element.attributes.push(attribute);
        }
        Ok(())
    }

    fn end(&mut self, to: usize) -> Result<(), Fault> {
        self.settle();
        let mut element = self.open.pop().ok_or(Fault::Syntax)?;
        element.span.end = to;
        match self.open.last_mut() {
            Some(parent) => parent.children.push(Node::Element(element)),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), Fault> {
        if !text.chars().all(is_char) {
            return Err(Fault::Character);
        }
        if self.open.is_empty() {
            return if is_blank(text) { Ok(()) } else { Err(Fault::OutsideRoot) };
        }
        self.pending.push_str(text);
        Ok(())
    }

    /// Hands the text gathered so far to the element it stands in. Gathered, because each reference arrives by itself.
    fn settle(&mut self) {
        if let (false, Some(parent)) = (self.pending.is_empty(), self.open.last_mut()) {
            parent.children.push(Node::Text(self.pending.as_str().into()));
            self.pending.clear();
        }
    }

    fn check_name(&self, name: &str) -> Result<(), Fault> {
        if name.len() > self.limits.name {
            return Err(Fault::NameTooLong);
        }
        if is_q_name(name) { Ok(()) } else { Err(Fault::Name) }
    }

    fn namespace(&mut self, resolved: ResolveResult<'_>) -> Result<Option<Arc<str>>, Fault> {
        let name = match resolved {
            ResolveResult::Unbound => return Ok(None),
            ResolveResult::Unknown(_) => return Err(Fault::Prefix),
            ResolveResult::Bound(namespace) => namespace.into_inner(),
        };
        if let Some(known) = self.namespaces.iter().find(|n| &***n == name) {
            return Ok(Some(known.clone()));
        }
        let name: Arc<str> = name.into();
        // A document uses a handful; one that declares thousands only loses the sharing.
        if self.namespaces.len() < 16 {
            self.namespaces.push(name.clone());
        }
        Ok(Some(name))
    }
}

/// `<?xml version="1.0" encoding="UTF-8"?>` and what it may leave out.
fn check(declaration: &BytesDecl<'_>) -> Result<(), Fault> {
    if !declaration.version().is_ok_and(|v| v == "1.0") {
        return Err(Fault::Declaration);
    }
    match declaration.encoding() {
        None => Ok(()),
        Some(Ok(name)) if name.eq_ignore_ascii_case("UTF-8") || name.eq_ignore_ascii_case("US-ASCII") => Ok(()),
        Some(_) => Err(Fault::Encoding),
    }
}

#[cfg(test)]
mod tests;
