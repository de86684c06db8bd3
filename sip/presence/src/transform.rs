//! Cutting out of a composed document what a watcher may not see (RFC 5025 §3.3). What stays, stays byte for byte.

use std::ops::Range;

use sip_xml::{Document, Element};

use crate::names::{DATA_MODEL, PIDF, RPID};
use crate::rules::{ATTRIBUTES, Occurrences, Permissions, Selector, UserInput, canonical};

/// The part of a composed document that these permissions show. A document that does not read shows nothing.
pub fn filter(document: &[u8], permissions: &Permissions) -> Option<Vec<u8>> {
    let root = Document::parse(document).ok()?.root;
    let mut cuts = Cuts { bytes: document, ranges: Vec::new() };
    for child in root.elements() {
        let shown = match () {
            () if child.is(PIDF, "tuple") => selects(&permissions.services, child),
            () if child.is(DATA_MODEL, "person") => selects(&permissions.persons, child),
            () if child.is(DATA_MODEL, "device") => selects(&permissions.devices, child),
            () => {
                let shown =
                    permissions.all_attributes || child.is(PIDF, "note") && permissions.attributes.contains("note");
                if !shown {
                    cuts.element(child);
                }
                continue;
            }
        };
        match shown {
            true if permissions.all_attributes => {}
            true => child.elements().for_each(|e| attribute(child, e, permissions, &mut cuts)),
            false => cuts.element(child),
        }
    }
    Some(cuts.rest())
}

struct Cuts<'a> {
    bytes: &'a [u8],
    /// In document order, none inside another.
    ranges: Vec<Range<usize>>,
}

impl Cuts<'_> {
    fn element(&mut self, element: &Element) {
        self.ranges.push(element.span.clone());
    }

    fn rest(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len());
        let mut at = 0;
        for range in &self.ranges {
            out.extend_from_slice(&self.bytes[at..range.start]);
            at = range.end;
        }
        out.extend_from_slice(&self.bytes[at..]);
        out
    }
}

/// Whether a component is one of those shown.
fn selects(shown: &Occurrences, component: &Element) -> bool {
    let Occurrences::Only(selectors) = shown else { return true };
    let text = |namespace, name| component.child(namespace, name).map(|e| e.text().trim().to_owned());
    let contact = text(PIDF, "contact");
    selectors.iter().any(|selector| match selector {
        Selector::Class(class) => component.all(RPID, "class").any(|c| c.text().trim() == &**class),
        Selector::Occurrence(id) => component.attribute("id") == Some(id),
        Selector::DeviceId(id) => text(DATA_MODEL, "deviceID").is_some_and(|d| canonical(&d) == canonical(id)),
        Selector::ServiceUri(uri) => contact.as_ref().is_some_and(|c| canonical(c) == canonical(uri)),
        Selector::ServiceScheme(scheme) => {
            contact.as_ref().and_then(|c| c.split_once(':')).is_some_and(|(s, _)| s == &**scheme)
        }
    })
}

/// Cuts a child of a component, or a part of it, unless it is shown.
fn attribute(component: &Element, element: &Element, permissions: &Permissions, cuts: &mut Cuts<'_>) {
    let namespace = element.namespace.as_deref().unwrap_or_default();
    let name = &*element.name;
    let listed = |name: &str| permissions.attributes.contains(name);
    let shown = match (namespace, name) {
        (PIDF, "status") => {
            for part in element.elements().filter(|p| !p.is(PIDF, "basic")) {
                attribute(component, part, permissions, cuts);
            }
            return;
        }
        (PIDF, "contact" | "timestamp") | (DATA_MODEL, "timestamp") | (RPID, "service-class") => true,
        (DATA_MODEL, "deviceID") => component.is(DATA_MODEL, "device") || listed("deviceID"),
        (PIDF | DATA_MODEL, "note") => listed("note"),
        (RPID, "user-input") => return user_input(element, permissions.user_input, cuts),
        (RPID, name) if ATTRIBUTES.contains(&name) => listed(name),
        _ => permissions.unknown.iter().any(|(ns, n)| **ns == *namespace && **n == *name),
    };
    if !shown {
        cuts.element(element);
    }
}

fn user_input(element: &Element, shown: UserInput, cuts: &mut Cuts<'_>) {
    let hidden: &[&[u8]] = match shown {
        UserInput::No => return cuts.element(element),
        UserInput::Bare => &[b"idle-threshold", b"last-input", b"since"],
        UserInput::Thresholds => &[b"last-input", b"since"],
        UserInput::Full => return,
    };
    let text = &cuts.bytes[element.span.clone()];
    for (name, range) in attributes_of(text) {
        if hidden.contains(&name) {
            cuts.ranges.push(element.span.start + range.start..element.span.start + range.end);
        }
    }
}

/// The attributes of the start tag that a well-formed text begins with: each name, and where it stands, from the blank before
/// it to its closing quote.
fn attributes_of(text: &[u8]) -> Vec<(&[u8], Range<usize>)> {
    let mut found = Vec::new();
    let mut at = text.iter().position(|b| b" \t\r\n/>".contains(b)).unwrap_or(text.len());
    while let Some(start) = text[at..].iter().position(|b| !b" \t\r\n".contains(b)).map(|i| at + i) {
        if matches!(text[start], b'/' | b'>') {
            break;
        }
        let Some(equals) = memchr::memchr(b'=', &text[start..]).map(|i| start + i) else { break };
        let Some(open) = text[equals..].iter().position(|b| matches!(b, b'"' | b'\'')).map(|i| equals + i) else {
            break;
        };
        let Some(close) = memchr::memchr(text[open], &text[open + 1..]).map(|i| open + 1 + i) else { break };
        found.push((text[start..equals].trim_ascii(), at..close + 1));
        at = close + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;

    const DOCUMENT: &str = "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" \
        xmlns:r=\"urn:ietf:params:xml:ns:pidf:rpid\" entity=\"sip:u@h\">\
        <tuple id=\"t1\"><status><basic>open</basic><x:loc xmlns:x=\"urn:x\">here</x:loc></status><r:class>work</r:class>\
        <contact>sip:u@h</contact><note>n</note></tuple>\
        <tuple id=\"t2\"><status><basic>open</basic></status><contact>xmpp:u@h</contact></tuple>\
        <note>root</note>\
        <dm:person id=\"p\"><r:activities><r:busy/></r:activities><r:mood><r:angry/></r:mood>\
        <r:user-input  idle-threshold='600' id='u' since=\"2026-01-01T00:00:00Z\">idle</r:user-input></dm:person>\
        <dm:device id=\"d\"><dm:deviceID>urn:d</dm:deviceID></dm:device></presence>";

    fn shown(transformations: &str) -> String {
        let rules = format!(
            "<cr:ruleset xmlns=\"urn:ietf:params:xml:ns:pres-rules\" xmlns:cr=\"urn:ietf:params:xml:ns:common-policy\">\
             <cr:rule id=\"a\"><cr:transformations>{transformations}</cr:transformations></cr:rule></cr:ruleset>"
        );
        let watcher = crate::rules::Watcher { uri: "sip:w@h".into(), number: None, anonymous: false };
        let decision = Rules::parse(rules.as_bytes()).unwrap().decide(&watcher, 0);
        let text = filter(DOCUMENT.as_bytes(), &decision.permissions.unwrap()).unwrap();
        assert!(Document::parse(&text).is_ok());
        String::from_utf8(text).unwrap().split_once("sip:u@h\">").unwrap().1.to_owned()
    }

    #[test]
    fn without_a_permission_nothing_is_shown() {
        assert_eq!(shown(""), "</presence>");
    }

    #[test]
    fn services_are_shown_by_scheme_with_what_always_is() {
        assert_eq!(
            shown("<provide-services><service-uri-scheme>sip</service-uri-scheme></provide-services>"),
            "<tuple id=\"t1\"><status><basic>open</basic></status><contact>sip:u@h</contact></tuple></presence>"
        );
        let two = shown(
            "<provide-services><class>work</class><occurrence-id>t2</occurrence-id></provide-services><provide-note>true</provide-note>",
        );
        assert_eq!(two.matches("<tuple").count(), 2);
        assert_eq!(two.matches("<note>").count(), 2);
        assert!(!two.contains("<r:class>"));
    }

    #[test]
    fn user_input_is_shown_as_far_as_allowed() {
        let person = |level: &str| {
            shown(&format!(
                "<provide-persons><all-persons/></provide-persons><provide-user-input>{level}</provide-user-input>"
            ))
        };
        assert_eq!(person("false"), "<dm:person id=\"p\"></dm:person></presence>");
        assert_eq!(
            person("bare"),
            "<dm:person id=\"p\"><r:user-input id='u'>idle</r:user-input></dm:person></presence>"
        );
        assert!(person("thresholds").contains("<r:user-input  idle-threshold='600' id='u'>idle"));
        assert!(person("full").contains("since="));
    }

    #[test]
    fn an_element_this_house_does_not_know_is_shown_by_name() {
        let services = "<provide-services><all-services/></provide-services>";
        assert!(!shown(services).contains("x:loc"));
        let named =
            format!("{services}<provide-unknown-attribute ns=\"urn:x\" name=\"loc\">true</provide-unknown-attribute>");
        assert!(shown(&named).contains("<x:loc xmlns:x=\"urn:x\">here</x:loc>"));
        let rest = "<provide-devices><deviceID>urn:d</deviceID></provide-devices>";
        assert_eq!(shown(rest), "<dm:device id=\"d\"><dm:deviceID>urn:d</dm:deviceID></dm:device></presence>");
    }
}
