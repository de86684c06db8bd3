use proptest::prelude::*;

use super::*;
use crate::writer::Writer;

fn fault_of(text: &str) -> Option<Fault> {
    Document::parse(text.as_bytes()).err().map(|b| b.fault)
}

#[test]
fn namespaces_are_resolved_whatever_the_prefix() {
    let text = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<!-- c --><p:presence xmlns:p='urn:a' entity=\"sip:a&amp;b\">\n\
        <tuple xmlns='urn:a' xml:lang='en' p:x='1'/><tuple/><p:note>a &lt; b &#x20AC;<![CDATA[<c>]]></p:note></p:presence>\n";
    let d = Document::parse(text.as_bytes()).unwrap();
    assert!(d.root.is("urn:a", "presence"));
    assert_eq!(d.root.attribute("entity"), Some("sip:a&b"));
    assert_eq!(d.root.elements().count(), 3);
    let tuple = d.root.child("urn:a", "tuple").unwrap();
    assert_eq!(tuple.attribute_in("http://www.w3.org/XML/1998/namespace", "lang"), Some("en"));
    assert_eq!((tuple.attribute_in("urn:a", "x"), tuple.attribute("x")), (Some("1"), None));
    assert_eq!(d.root.elements().nth(1).unwrap().namespace, None);
    assert_eq!(d.root.all("urn:a", "note").next().unwrap().text(), "a < b €<c>");
    assert_eq!(&text[tuple.span.clone()], "<tuple xmlns='urn:a' xml:lang='en' p:x='1'/>");
    assert!(text[d.root.span.clone()].ends_with("</p:presence>"));
}

#[test]
fn what_a_careful_peer_would_not_send_is_refused() {
    for (text, fault) in [
        ("", Fault::NoRoot),
        ("  ", Fault::NoRoot),
        ("<!-- only -->", Fault::NoRoot),
        ("<!DOCTYPE a [<!ENTITY b \"c\">]><a/>", Fault::Dtd),
        ("<a/><b/>", Fault::OutsideRoot),
        ("<a/>x", Fault::OutsideRoot),
        ("x<a/>", Fault::OutsideRoot),
        ("<a/>&amp;", Fault::OutsideRoot),
        ("<a/><![CDATA[]]>", Fault::OutsideRoot),
        ("<a>", Fault::Syntax),
        ("<a></b>", Fault::Syntax),
        ("<a><b></a></b>", Fault::Syntax),
        ("</a>", Fault::Syntax),
        ("<a", Fault::Syntax),
        ("<a>]]></a>", Fault::Syntax),
        ("<a><!-- x -- y --></a>", Fault::Syntax),
        ("<1/>", Fault::Name),
        ("<a:b:c xmlns:a='x'/>", Fault::Name),
        ("<a 1='x'/>", Fault::Name),
        ("<p:a/>", Fault::Prefix),
        ("<a p:x='1'/>", Fault::Prefix),
        ("<a xmlns:p=''/>", Fault::Namespace),
        ("<a xmlns:xml='urn:x'/>", Fault::Namespace),
        ("<a xmlns:xmlns='urn:x'/>", Fault::Namespace),
        ("<a x='1' x='2'/>", Fault::Duplicate),
        ("<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>", Fault::Duplicate),
        ("<a x=1/>", Fault::Attribute),
        ("<a x/>", Fault::Attribute),
        ("<a x='<'/>", Fault::Attribute),
        ("<a>&nbsp;</a>", Fault::Entity),
        ("<a x='&b;'/>", Fault::Entity),
        ("<a>&#0;</a>", Fault::Entity),
        ("<a>&#xD800;</a>", Fault::Entity),
        ("<a>\u{1}</a>", Fault::Character),
        ("<a>\u{fffe}</a>", Fault::Character),
        ("<a x='&#1;'/>", Fault::Character),
        ("<?xml version='1.1'?><a/>", Fault::Declaration),
        (" <?xml version='1.0'?><a/>", Fault::Declaration),
        ("<a/><?XML x?>", Fault::Declaration),
        ("<?xml version='1.0' encoding='ISO-8859-1'?><a/>", Fault::Encoding),
    ] {
        assert_eq!(fault_of(text), Some(fault), "{text}");
    }
    assert_eq!(Document::parse(b"<a>\xff</a>"), Err(Broken { fault: Fault::Encoding, at: 3 }));
}

#[test]
fn harmless_oddities_are_taken() {
    for text in [
        "<a/> <!-- after --> <?pi x?>\n",
        "<a ></a >",
        "<a\nx = 'y'/>",
        "<\u{e9}t\u{e9}/>",
        "<a x='>'/>",
        "<a>a]]b</a>",
    ] {
        assert_eq!(fault_of(text), None, "{text}");
    }
}

#[test]
fn each_bound_holds() {
    let limits = Limits { bytes: 200, depth: 3, elements: 4, attributes: 2, name: 5 };
    let check = |text: &str| Document::parse_with(text.as_bytes(), &limits).err().map(|b| b.fault);
    assert_eq!(check("<a><b><c/></b></a>"), None);
    assert_eq!(check("<a><b><c><d/></c></b></a>"), Some(Fault::TooDeep));
    assert_eq!(check("<a><b/><b/><b/></a>"), None);
    assert_eq!(check("<a><b/><b/><b/><b/></a>"), Some(Fault::TooManyElements));
    assert_eq!(check("<a x='1' y='2'/>"), None);
    assert_eq!(check("<a x='1' y='2' xmlns='3'/>"), Some(Fault::TooManyAttributes));
    assert_eq!(check("<abcdef/>"), Some(Fault::NameTooLong));
    assert_eq!(check("<a abcdef=''/>"), Some(Fault::NameTooLong));
    assert_eq!(check(&format!("<a>{}</a>", "x".repeat(194))), Some(Fault::TooLong));
}

#[test]
fn line_ends_and_attribute_blanks_are_normalised() {
    let d = Document::parse(b"<a x='1\r\n2\t3&#10;4'>b\r\nc\rd</a>").unwrap();
    assert_eq!(d.root.attribute("x"), Some("1 2 3\n4"));
    assert_eq!(d.root.text(), "b\nc\nd");
}

#[test]
fn a_fault_says_where() {
    assert_eq!(Document::parse(b"<a><p:b/></a>").unwrap_err().at, 3);
}

proptest! {
    #[test]
    fn what_is_written_reads_back(value in any::<String>(), text in any::<String>()) {
        let mut out = Vec::new();
        Writer::document(&mut out, "a", |e| {
            e.attribute("xmlns", "urn:x").attribute("v", &value);
            e.child("b", |b| b.text(&text));
        });
        let d = Document::parse(&out).unwrap();
        let clean = |s: &str| s.chars().map(|c| if is_char(c) { c } else { '\u{fffd}' }).collect::<String>();
        prop_assert_eq!(d.root.attribute("v").unwrap(), clean(&value));
        prop_assert_eq!(d.root.child("urn:x", "b").unwrap().text(), clean(&text));
    }

    #[test]
    fn no_octets_make_the_reader_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Document::parse(&octets);
    }

    #[test]
    fn no_markup_makes_the_reader_panic(text in "[<>/!a:= '\"&;?\\-\\[\\]x#1]{0,60}") {
        let _ = Document::parse(text.as_bytes());
    }
}
