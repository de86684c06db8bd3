//! Our rules and the RFCs' schemas as xmllint reads them come to the same verdict, for the RFCs' examples and hundreds of documents that are
//! these with something taken out, doubled, moved or spelt otherwise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use sip_xcap::Text;
use sip_xcap::schema::{Declaration, PRESENCE, RESOURCE_LISTS_ROOT, RLS_SERVICES_ROOT, RULESET};
use sip_xml::{Element, Node};

fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/schemas")
}

/// What xmllint says of each document.
fn verdicts(schema: &str, documents: &[String]) -> Vec<bool> {
    let dir = std::env::temp_dir().join(format!("sip-xcap-{}-{}", schema.replace('.', "-"), std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |n: usize| dir.join(format!("{n}.xml"));
    for (n, document) in documents.iter().enumerate() {
        std::fs::write(file(n), document).unwrap();
    }
    let mut said: BTreeMap<String, bool> = BTreeMap::new();
    for (n, _) in documents.iter().enumerate().step_by(200) {
        let mut xmllint = Command::new("xmllint");
        xmllint.args(["--noout", "--nonet", "--schema"]).arg(schemas().join(schema));
        xmllint.args((n..documents.len().min(n + 200)).map(file));
        let done = xmllint.output().expect("xmllint runs");
        for line in String::from_utf8_lossy(&done.stderr).lines() {
            if let Some(file) = line.strip_suffix(" validates") {
                said.insert(file.to_owned(), true);
            } else if let Some(file) = line.strip_suffix(" fails to validate") {
                said.insert(file.to_owned(), false);
            }
        }
    }
    let all = (0..documents.len()).map(|n| said[&file(n).display().to_string()]).collect();
    std::fs::remove_dir_all(&dir).unwrap();
    all
}

/// The document with each of its elements and attributes changed in turn.
fn variations(text: &str) -> Vec<String> {
    let read = Text::read(text.as_bytes().to_vec()).unwrap();
    let mut all = vec![text.to_owned()];
    let with =
        |range: std::ops::Range<usize>, new: &str| format!("{}{new}{}", &text[..range.start], &text[range.end..]);
    visit(read.root(), &mut |element, is_root| {
        let span = element.span.clone();
        let own = &text[span.clone()];
        let name = own[1..].split(|c: char| c.is_whitespace() || matches!(c, '>' | '/')).next().unwrap();
        let tag_end = span.start + own.find('>').unwrap();
        if !is_root {
            all.push(with(span.clone(), ""));
            all.push(with(span.clone(), &format!("{own}{own}")));
            all.push(with(span.start..span.start, "<x:other xmlns:x='urn:x'><y/></x:other>"));
            all.push(with(span.end..span.end, "<x:other xmlns:x='urn:x'/>"));
            all.push(with(span.start..span.start, "text"));
            all.push(with(span.start..span.start, "<bare xmlns=''/>"));
            all.push(with(span.clone(), &own.replace(name, &format!("{name}-other"))));
        }
        let room = span.start + 1 + name.len();
        for attribute in
            [" other='1'", " xmlns:x='urn:x' x:other='1'", " xml:lang='en'", " id='an-id'", " uri='sip:u@h'"]
        {
            // One that is there already would not be well-formed.
            let key = attribute.trim().split('=').next().unwrap();
            if !own[..tag_end - span.start].contains(&format!(" {key}=")) {
                all.push(with(room..room, attribute));
            }
        }
        for attribute in &element.attributes {
            let written = format!("{}=\"{}\"", attribute.name, attribute.value);
            if let Some(at) = own.find(&written).filter(|at| span.start + at < tag_end) {
                let at = span.start + at;
                all.push(with(at..at + written.len(), ""));
                all.push(with(at..at + written.len(), &format!("{}=\"1 2\"", attribute.name)));
                all.push(with(at..at + written.len(), &format!("{}=\"\"", attribute.name)));
            }
        }
        // Texts of leaves.
        if let [Node::Text(_)] = &*element.children
            && let Some(close) = own.rfind("</")
        {
            let inner = tag_end + 1..span.start + close;
            for text in [
                "",
                " ",
                "true",
                " true ",
                "allow",
                "\n allow\t",
                "open",
                " open",
                "OPEN",
                "2001-10-27T16:49:29Z",
                "2001-02-30T00:00:00Z",
                "bare",
            ] {
                all.push(with(inner.clone(), text));
            }
        }
    });
    // What is not well-formed never comes so far.
    all.retain(|d| Text::read(d.clone().into_bytes()).is_ok());
    all
}

fn visit(element: &Element, each: &mut impl FnMut(&Element, bool)) {
    fn inner(element: &Element, root: bool, each: &mut impl FnMut(&Element, bool)) {
        each(element, root);
        element.elements().for_each(|child| inner(child, false, each));
    }
    inner(element, true, each);
}

fn same_verdicts(schema: &str, root: &Declaration, examples: &[&str]) {
    let documents: Vec<String> = examples.iter().flat_map(|e| variations(e)).collect();
    let (mut good, mut bad) = (0, 0);
    for (document, theirs) in documents.iter().zip(verdicts(schema, &documents)) {
        let text = Text::read(document.clone().into_bytes()).unwrap();
        let ours = root.validate(text.root());
        assert_eq!(ours.is_ok(), theirs, "{schema}: {ours:?}\n{document}");
        if theirs { good += 1 } else { bad += 1 }
    }
    assert!(good > 50 && bad > 50, "{schema}: {good} good, {bad} bad");
}

#[test]
fn lists_are_judged_as_by_xmllint() {
    same_verdicts("resource-lists.xsd", &RESOURCE_LISTS_ROOT, &[include_str!("rfc4826-3.xml")]);
    same_verdicts("rls-services.xsd", &RLS_SERVICES_ROOT, &[include_str!("../../presence/tests/rfc4826-4.xml")]);
}

/// With everything that the schemas know.
const RULES: &str = r#"<cr:ruleset xmlns="urn:ietf:params:xml:ns:pres-rules" xmlns:cr="urn:ietf:params:xml:ns:common-policy"><cr:rule id="a"><cr:conditions>
<cr:identity><cr:one id="sip:a@h"/><cr:many domain="h"><cr:except domain="g"/><cr:except id="sip:b@h"/></cr:many></cr:identity><cr:sphere value="work"/>
<cr:validity><cr:from>2003-12-24T17:00:00+01:00</cr:from><cr:until>2003-12-24T19:00:00+01:00</cr:until></cr:validity></cr:conditions>
<cr:actions><sub-handling>confirm</sub-handling></cr:actions><cr:transformations><provide-services><service-uri-scheme>sip</service-uri-scheme><class>c</class></provide-services>
<provide-devices><deviceID>urn:x</deviceID><occurrence-id>o</occurrence-id></provide-devices><provide-persons><all-persons/></provide-persons>
<provide-note>true</provide-note><provide-user-input>full</provide-user-input><provide-unknown-attribute name="n" ns="urn:n">false</provide-unknown-attribute>
<provide-all-attributes/></cr:transformations></cr:rule><cr:rule id="b"/></cr:ruleset>"#;

#[test]
fn rules_are_judged_as_by_xmllint() {
    // RFC 4825 §8.2.5 is stricter than a lax wildcard: of a namespace that is known no element passes that its schema lacks.
    let lax: Vec<String> =
        [include_str!("../../presence/tests/rfc5025-6.xml"), RULES].iter().flat_map(|e| variations(e)).collect();
    let theirs = verdicts("pres-rules.xsd", &lax);
    let (mut good, mut bad) = (0, 0);
    for (document, theirs) in lax.iter().zip(theirs) {
        let text = Text::read(document.clone().into_bytes()).unwrap();
        let ours = RULESET.validate(text.root());
        if ours.as_ref().is_err_and(|e| e.fault == "not an element of its namespace") {
            continue;
        }
        assert_eq!(ours.is_ok(), theirs, "{ours:?}\n{document}");
        if theirs { good += 1 } else { bad += 1 }
    }
    assert!(good > 50 && bad > 50, "{good} good, {bad} bad");
}

#[test]
fn presence_is_judged_as_by_xmllint() {
    let examples = [include_str!("rfc4827-11.xml"), include_str!("../../presence/tests/rfc3863-a.xml")];
    same_verdicts("pidf.xsd", &PRESENCE, &examples);
}
