use proptest::prelude::*;

use super::*;
use crate::target::Bindings;

/// RFC 4825 §8.2.3.
const SIBLINGS: &str = "<?xml version=\"1.0\"?>\n<root>\n <el1 att=\"first\"/>\n <el1 att=\"second\"/>\n <!-- comment -->\n <el2 att=\"first\"/>\n</root>\n";

fn read(text: &str) -> Text {
    Text::read(text.as_bytes().to_vec()).unwrap()
}

fn selector(text: &str) -> NodeSelector {
    let bindings: Bindings = [("p", "urn:p"), ("q", "urn:q")].map(|(p, n)| (p.into(), n.into())).to_vec();
    NodeSelector::parse(text, &bindings, None).unwrap()
}

fn put(document: &str, at: &str, body: &str) -> Result<(String, bool), Refused> {
    let selector = selector(at);
    let body = match selector.terminal {
        Terminal::Attribute(_) => Put::Attribute(body.as_bytes()),
        _ => Put::Element(body.as_bytes()),
    };
    read(document).put(&selector, body, "d").map(|e| (e.text.as_str().to_owned(), e.created))
}

fn delete(document: &str, at: &str) -> Result<String, Refused> {
    read(document).delete(&selector(at)).map(|t| t.as_str().to_owned())
}

fn get(document: &str, at: &str) -> Option<String> {
    read(document).get(&selector(at)).map(|n| n.body)
}

#[test]
fn elements_are_inserted_where_rfc_4825_puts_them() {
    let becomes = |at: &str, body: &str, old: &str, new: &str| {
        let expected = SIBLINGS.replacen(old, new, 1);
        assert_ne!(expected, SIBLINGS);
        assert_eq!(put(SIBLINGS, at, body), Ok((expected, true)), "{at}");
    };
    let third = "<el1 att=\"third\"/>";
    for at in ["root/el1[@att=\"third\"]", "root/el1[3][@att=\"third\"]", "root/*[3][@att=\"third\"]"] {
        becomes(at, third, "<el1 att=\"second\"/>", "<el1 att=\"second\"/><el1 att=\"third\"/>");
    }
    becomes("root/el3", "<el3 att=\"first\"/>", "\n</root>", "\n<el3 att=\"first\"/></root>");
    for at in ["root/el2[@att=\"2\"]", "root/el2[2][@att=\"2\"]"] {
        becomes(at, "<el2 att=\"2\"/>", "<el2 att=\"first\"/>", "<el2 att=\"first\"/><el2 att=\"2\"/>");
    }
    becomes(
        "root/*[2][@att=\"2\"]",
        "<el2 att=\"2\"/>",
        "<el1 att=\"first\"/>",
        "<el1 att=\"first\"/><el2 att=\"2\"/>",
    );
    becomes(
        "root/el2[1][@att=\"2\"]",
        "<el2 att=\"2\"/>",
        "<el2 att=\"first\"/>",
        "<el2 att=\"2\"/><el2 att=\"first\"/>",
    );
    // Before all, whatever their names.
    becomes(
        "root/*[1][@att=\"0\"]",
        "<el3 att=\"0\"/>",
        "<el1 att=\"first\"/>",
        "<el3 att=\"0\"/><el1 att=\"first\"/>",
    );
    // A wildcard without a position: last of its name, or last of all.
    becomes("root/*[@att=\"third\"]", third, "<el1 att=\"second\"/>", "<el1 att=\"second\"/><el1 att=\"third\"/>");
    becomes("root/*[@att=\"x\"]", "<el3 att=\"x\"/>", "\n</root>", "\n<el3 att=\"x\"/></root>");
    becomes("root/el3[1]", "<el3/>", "\n</root>", "\n<el3/></root>");
}

#[test]
fn what_could_not_be_got_again_is_not_inserted() {
    for (at, body) in [
        // The body is not what the last step describes.
        ("root/el1[@att=\"third\"]", "<el1 att=\"fourth\"/>"),
        ("root/el1[@att=\"third\"]", "<el1/>"),
        ("root/el3", "<el4/>"),
        ("root/p:el3", "<el3/>"),
        ("root/el1[@att=\"second\"]", "<el1 att=\"third\"/>"),
        // Too few in front of it, or none.
        ("root/el3[2]", "<el3/>"),
        ("root/el1[4][@att=\"x\"]", "<el1 att=\"x\"/>"),
        ("root/*[5][@att=\"x\"]", "<el1 att=\"x\"/>"),
        ("root/*[0][@att=\"x\"]", "<el1 att=\"x\"/>"),
        // It would be one of several.
        ("root/el1", "<el1 att=\"third\"/>"),
        ("root/*", "<el3/>"),
        // A second root, or another.
        ("other", "<other/>"),
        ("root", "<other/>"),
        ("root/@xmlns", "\"urn:x\""),
        ("root/@p:x", "\"no prefix\""),
        ("root/el1[@att=\"first\"]/@att", "\"second\""),
    ] {
        assert_eq!(put(SIBLINGS, at, body), Err(Conflict::CannotInsert.into()), "{at} {body}");
    }
}

#[test]
fn elements_are_replaced_whole() {
    let (text, created) = put(SIBLINGS, "root/el1[2]", "\n<el1 x=\"y\"><!-- c --> t </el1>\r\n").unwrap();
    assert!(!created && text == SIBLINGS.replace("<el1 att=\"second\"/>", "<el1 x=\"y\"><!-- c --> t </el1>"));
    let (text, created) = put(SIBLINGS, "root", "<root/>").unwrap();
    assert_eq!((&*text, created), ("<?xml version=\"1.0\"?>\n<root/>\n", false));
    // And an empty one is opened.
    let (text, created) = put("<a ><b  c='/>' /></a>", "a/b/d", "<d/>").unwrap();
    assert_eq!((&*text, created), ("<a ><b  c='/>'><d/></b></a>", true));
    let (text, _) = put("<p:a xmlns:p='urn:p'/>", "p:a/p:b", "<p:b/>").unwrap();
    assert_eq!(text, "<p:a xmlns:p='urn:p'><p:b/></p:a>");
}

#[test]
fn a_body_is_one_element_and_nothing_else() {
    for bad in [
        "",
        "text",
        "<a",
        "<a></b>",
        "<a/><a/>",
        "<a/>text",
        "text<a/>",
        "<!-- c --><a/>",
        "<a/><?x?>",
        "<?xml version=\"1.0\"?><a/>",
        "<a/></w><w>",
        "</w><a/><w>",
        "<a>&x;</a>",
        "<a b=\"1\" b=\"2\"/>",
        "<p:a/>",
        "<a>\u{1}</a>",
        "<![CDATA[<a/>]]>",
        "&lt;a/&gt;",
    ] {
        assert_eq!(put(SIBLINGS, "root/a", bad), Err(Conflict::NotXmlFragment.into()), "{bad}");
    }
    let text = read(SIBLINGS);
    let latin1 = text.put(&selector("root/a"), Put::Element(b"<a>\xe9</a>"), "d");
    assert_eq!(latin1.unwrap_err(), Conflict::NotUtf8.into());
    let latin1 = text.put(&selector("root/@a"), Put::Attribute(b"\"\xe9\""), "d");
    assert_eq!(latin1.unwrap_err(), Conflict::NotUtf8.into());
    assert!(matches!(put(SIBLINGS, "root/a", "<!DOCTYPE a><a/>"), Err(Refused::Conflict(Conflict::Constraint(_)))));
    let deep = format!("<a>{}{}</a>", "<b>".repeat(40), "</b>".repeat(40));
    assert!(matches!(put(SIBLINGS, "root/a", &deep), Err(Refused::Conflict(Conflict::Constraint(_)))));
    // Prefixes are those of the place.
    let bound = "<r xmlns:p='urn:p'><x/></r>";
    assert_eq!(put(bound, "r/x/p:y", "<p:y/>").unwrap().0, "<r xmlns:p='urn:p'><x><p:y/></x></r>");
    assert_eq!(put(bound, "r/x/q:y", "<p:y/>"), Err(Conflict::CannotInsert.into()));
    assert_eq!(
        put(bound, "r/x/q:y", "<y xmlns='urn:q'/>").unwrap().0,
        "<r xmlns:p='urn:p'><x><y xmlns='urn:q'/></x></r>"
    );
}

#[test]
fn where_there_is_no_parent_its_closest_ancestor_is_named() {
    let ancestor = |at: &str, body: &str| match put(SIBLINGS, at, body) {
        Err(Refused::Conflict(Conflict::NoParent(Some(ancestor)))) => ancestor,
        other => panic!("{other:?}"),
    };
    assert_eq!(ancestor("root/none/b/c", "<c/>"), "d/~~/root");
    assert_eq!(ancestor("none/b", "<b/>"), "d");
    assert_eq!(ancestor("root/el1[@att=\"first\"]/b/@c", "\"d\""), "d/~~/root/el1%5B@att=%22first%22%5D");
    // Several are none.
    assert_eq!(ancestor("root/el1/b", "<b/>"), "d/~~/root");
    assert_eq!(ancestor("root/el1/@b", "\"c\""), "d/~~/root");
}

#[test]
fn attributes_are_made_changed_and_removed() {
    let one = "<a b='1'\n  xmlns:p=\"urn:p\" p:b = \"2\" ><c/></a>";
    assert_eq!(get(one, "a/@b").as_deref(), Some("'1'"));
    assert_eq!(get(one, "a/@p:b").as_deref(), Some("\"2\""));
    assert_eq!((get(one, "a/@xmlns"), get(one, "a/@q:b"), get(one, "a/@c")), (None, None, None));
    assert_eq!(put(one, "a/@b", "\"x&amp;&#60;'\"").unwrap(), (one.replace("'1'", "\"x&amp;&#60;'\""), false));
    assert_eq!(put(one, "a/@p:b", "'3'").unwrap(), (one.replace("\"2\"", "'3'"), false));
    assert_eq!(put(one, "a/@n", "'new'").unwrap(), (one.replace("\"2\" >", "\"2\" n='new' >"), true));
    assert_eq!(put(one, "a/@p:n", "''").unwrap(), (one.replace("\"2\" >", "\"2\" p:n='' >"), true));
    assert_eq!(put(one, "a/@xml:lang", "'de'").unwrap().0, one.replace("\"2\" >", "\"2\" xml:lang='de' >"));
    assert_eq!(put(one, "a/c/@d", "''").unwrap().0, one.replace("<c/>", "<c d=''/>"));
    for bad in [
        "",
        "x",
        "\"",
        "\"x",
        "\"x\" ",
        "\"<\"",
        "\"&\"",
        "\"&x;\"",
        "\"x\" y=\"z\"",
        "'x' y='z'",
        "\"\u{1}\"",
        "\"&#0;\"",
    ] {
        assert_eq!(put(one, "a/@b", bad), Err(Conflict::NotXmlAttributeValue.into()), "{bad}");
    }
    assert_eq!(delete(one, "a/@p:b").unwrap(), one.replace(" p:b = \"2\"", ""));
    assert_eq!(delete(one, "a/@b").unwrap(), one.replace(" b='1'", ""));
    assert_eq!(delete(one, "a/@x"), Err(Refused::NotFound));
    // It selects nothing once its attribute is gone.
    assert_eq!(delete(one, "a[@b=\"1\"]/@b").unwrap(), one.replace(" b='1'", ""));
}

#[test]
fn blanks_around_what_is_deleted_stay() {
    assert_eq!(delete(SIBLINGS, "root/el2").unwrap(), SIBLINGS.replace("<el2 att=\"first\"/>", ""));
    assert_eq!(delete(SIBLINGS, "root/el1[@att=\"first\"]").unwrap(), SIBLINGS.replace("<el1 att=\"first\"/>", ""));
    assert_eq!(delete(SIBLINGS, "root/el1[2]").unwrap(), SIBLINGS.replace("<el1 att=\"second\"/>", ""));
    assert_eq!(delete(SIBLINGS, "root/el1[1]"), Err(Conflict::CannotDelete.into()));
    assert_eq!(delete(SIBLINGS, "root/*[2]"), Err(Conflict::CannotDelete.into()));
    assert!(delete(SIBLINGS, "root/*[3]").is_ok());
    for none in ["root/el3", "root/el1", "root/el1[3]", "x"] {
        assert_eq!(delete(SIBLINGS, none), Err(Refused::NotFound), "{none}");
    }
    assert!(matches!(delete(SIBLINGS, "root"), Err(Refused::Conflict(Conflict::Schema(_)))));
    assert_eq!(delete("<a><b><c/></b><b/></a>", "a/b[1]"), Err(Conflict::CannotDelete.into()));
}

/// RFC 4825 §10, whose example has a slip of the pen (`urn:tes:`).
#[test]
fn namespace_bindings_are_those_in_scope() {
    let document = "<foo xmlns=\"urn:d\"><ns1:bar xmlns:ns1=\"urn:p\" xmlns=\"urn:p\"><baz/><p:q xmlns:p='urn:q' xmlns=''/></ns1:bar></foo>";
    let get = |at: &str| {
        let selector =
            NodeSelector::parse(at, &vec![("p".into(), "urn:p".into()), ("q".into(), "urn:q".into())], Some("urn:d"))
                .unwrap();
        read(document).get(&selector)
    };
    let node = get("foo/p:bar/p:baz/namespace::*").unwrap();
    assert_eq!(node.body, "<baz xmlns=\"urn:p\" xmlns:ns1=\"urn:p\"/>");
    assert_eq!(node.media_type, "application/xcap-ns+xml");
    assert_eq!(get("foo/p:bar/q:q/namespace::*").unwrap().body, "<p:q xmlns:ns1=\"urn:p\" xmlns:p=\"urn:q\"/>");
    let bindings = selector("foo/namespace::*");
    assert_eq!(read("<foo/>").put(&bindings, Put::Element(b"<foo/>"), "d").unwrap_err(), Refused::ReadOnly);
    assert_eq!(read("<foo/>").delete(&bindings).unwrap_err(), Refused::ReadOnly);
}

/// RFC 4825 §13: Bill's list, byte for byte.
#[test]
fn bill_makes_his_lists() {
    let step = |text: &Text, at: &str, body: &str| {
        let selector = NodeSelector::parse(at, &Vec::new(), Some("urn:ietf:params:xml:ns:resource-lists")).unwrap();
        match body {
            "" => text.delete(&selector).unwrap(),
            body => text.put(&selector, Put::Element(body.as_bytes()), "d").unwrap().text,
        }
    };
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\">\n  <list name=\"friends\">\n  ";
    let text = read(&format!("{head}</list>\n</resource-lists>\n"));
    let bob = "<entry uri=\"sip:bob@example.com\">\n    <display-name>Bob Jones</display-name>\n  </entry>";
    let text = step(&text, "resource-lists/list[@name=\"friends\"]/entry", bob);
    assert_eq!(text.as_str(), format!("{head}{bob}</list>\n</resource-lists>\n"));
    let friend = |name: &str| {
        format!("   <entry uri=\"sip:{name}@example.com\">\n     <display-name>{name}</display-name>\n   </entry>\n")
    };
    let close =
        format!("<list name=\"close-friends\">\n{}{}{}</list>", friend("joe"), friend("nancy"), friend("petri"));
    let text = step(&text, "resource-lists/list[@name=\"friends\"]/list[@name=\"close-friends\"]", &close);
    let text = step(&text, "resource-lists/list/list/entry[@uri=\"sip:petri@example.com\"]", "");
    let left = close.replace(friend("petri").trim(), "");
    assert_eq!(text.as_str(), format!("{head}{bob}{left}</list>\n</resource-lists>\n"));
    let selector = NodeSelector::parse(
        "resource-lists/list/list/entry[2]/@uri",
        &Vec::new(),
        Some("urn:ietf:params:xml:ns:resource-lists"),
    );
    assert_eq!(text.get(&selector.unwrap()).unwrap().body, "\"sip:nancy@example.com\"");
}

/// Documents of a few names, so that selectors meet them.
fn tree() -> impl Strategy<Value = String> {
    let leaf = ("[ab]", "[xy]?", "( |\n|<!-- c -->|t)?").prop_map(|(name, value, text)| match (&*value, &*text) {
        ("", "") => format!("<{name}/>"),
        ("", text) => format!("<{name}>{text}</{name}>"),
        (value, text) => format!("<{name} v='{value}'>{text}</{name}>"),
    });
    leaf.prop_recursive(4, 24, 4, |inner| {
        ("[ab]", prop::collection::vec(inner, 0..4), "( |\n)?", prop::bool::ANY).prop_map(
            |(name, children, blank, bound)| {
                let bound = if bound { " xmlns:p='urn:p'" } else { "" };
                format!("<{name}{bound}>{blank}{}</{name}>", children.join(&blank))
            },
        )
    })
}

fn step() -> impl Strategy<Value = String> {
    ("[ab*]", prop::option::of(1..4usize), prop::option::of("[xy]")).prop_map(|(name, position, value)| {
        let position = position.map(|p| format!("[{p}]")).unwrap_or_default();
        let value = value.map(|v| format!("[@v=\"{v}\"]")).unwrap_or_default();
        name + &position + &value
    })
}

proptest! {
    #[test]
    fn what_was_put_is_got_and_put_again_changes_nothing(
        document in tree(), steps in prop::collection::vec(step(), 1..4), name in "[ab]", value in prop::option::of("[xy]"),
    ) {
        let value = value.map(|v| format!(" v=\"{v}\"")).unwrap_or_default();
        let body = format!("<{name}{value}/>");
        let at = steps.join("/");
        let before = read(&document);
        match before.put(&selector(&at), Put::Element(body.as_bytes()), "d") {
            Ok(edited) => {
                prop_assert_eq!(edited.text.get(&selector(&at)).map(|n| n.body), Some(body.clone()));
                let again = edited.text.put(&selector(&at), Put::Element(body.as_bytes()), "d").unwrap();
                prop_assert!(!again.created);
                prop_assert_eq!(again.text.as_str(), edited.text.as_str());
                prop_assert_eq!(edited.created, before.get(&selector(&at)).is_none());
                // Nothing else was touched: without it, and with what it replaced, all is as before.
                if edited.created {
                    prop_assert_eq!(edited.text.as_str().len() >= document.len() + body.len(), true);
                }
            }
            Err(Refused::Conflict(Conflict::CannotInsert | Conflict::NoParent(_))) => {}
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn what_was_deleted_is_gone(document in tree(), steps in prop::collection::vec(step(), 1..4)) {
        let at = selector(&steps.join("/"));
        let before = read(&document);
        if let Ok(left) = before.delete(&at) {
            let gone = before.get(&at).unwrap().body;
            prop_assert!(left.get(&at).is_none());
            prop_assert_eq!(left.as_str().len() + gone.len(), document.len());
            prop_assert_eq!(left.delete(&at).unwrap_err(), Refused::NotFound);
        }
    }

    #[test]
    fn attributes_read_back(document in tree(), steps in prop::collection::vec(step(), 1..4), name in "[vw]", value in "[ -%'-;=-~é]{0,8}") {
        let at = selector(&format!("{}/@{name}", steps.join("/")));
        let body = format!("\"{value}\"");
        if let Ok(edited) = read(&document).put(&at, Put::Attribute(body.as_bytes()), "d") {
            prop_assert_eq!(edited.text.get(&at).map(|n| n.body), Some(body));
        }
    }
}
