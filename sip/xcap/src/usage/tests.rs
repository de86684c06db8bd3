use super::*;
use crate::target::Target;
use crate::{NodeSelector, Text};

fn read(text: &str) -> Text {
    Text::read(text.as_bytes().to_vec()).unwrap()
}

const PLACE: Place<'_> = Place { root: "/xcap-root/", is_owner: &|xui| xui == "sip:joe@example.com" };

fn validate(auid: &str, text: &str) -> Result<(), Conflict> {
    find(auid).unwrap().stored().unwrap().validate(&read(text), &PLACE)
}

/// The URI of a field selects what is said of it.
fn fields(text: &str, auid: &str, conflict: Result<(), Conflict>) -> Vec<String> {
    let Err(Conflict::Uniqueness(found)) = conflict else { panic!("{conflict:?}") };
    let value = |exists: &Exists| {
        let (path, query) = exists.field.split_once('?').map_or((&*exists.field, None), |(p, q)| (p, Some(q)));
        let target = Target::parse(&format!("x/global/d/~~/{path}"), query).unwrap();
        let selector =
            NodeSelector::parse(&target.node.unwrap(), &target.bindings, Some(find(auid).unwrap().namespace));
        read(text).get(&selector.unwrap()).unwrap_or_else(|| panic!("{}", exists.field)).body
    };
    found.iter().map(value).collect()
}

fn lists(inner: &str) -> String {
    format!("<resource-lists xmlns='urn:ietf:params:xml:ns:resource-lists'>{inner}</resource-lists>")
}

fn services(inner: &str) -> String {
    format!(
        "<rls-services xmlns='urn:ietf:params:xml:ns:rls-services' xmlns:rl='urn:ietf:params:xml:ns:resource-lists'>{inner}</rls-services>"
    )
}

#[test]
fn references_are_unique_within_their_list() {
    let check = |inner: &str| validate("resource-lists", &lists(inner));
    let good = "<list name='a'><entry uri='sip:x@h'/><entry uri='sip:X@h'/><entry-ref ref='a/users/u/d/~~/x'/>\
        <external anchor='http://h/x'/><list name='a'><entry uri='sip:x@h'/></list></list><list name='b'/><list/><list/>";
    assert_eq!(check(good), Ok(()));
    for (twice, value) in [
        ("<list name='a'/><list name='b'/><list name='a'/>", "'a'"),
        ("<list><entry uri='sip:x@h'/><entry uri='sip:x@h' /></list>", "'sip:x@h'"),
        ("<list/><list><list/><list><entry-ref ref='a/b'/><entry-ref ref='a/b'/></list></list>", "'a/b'"),
        ("<list><external anchor='http://h'/><external anchor='http://h'/></list>", "'http://h'"),
    ] {
        assert_eq!(fields(&lists(twice), "resource-lists", check(twice)), [value], "{twice}");
    }
    for bad in [
        "<list><entry-ref ref='/a/users/u/d'/></list>",
        "<list><entry-ref ref='http://h/a'/></list>",
        "<list><entry-ref ref=''/></list>",
        "<list><list><external anchor='a/b'/></list></list>",
        "<list><external anchor='sip:x@h'/></list>",
        "<list><external anchor='http://'/></list>",
        "<list><external/></list>",
    ] {
        assert!(matches!(check(bad), Err(Conflict::Constraint(_))), "{bad}");
    }
}

#[test]
fn services_refer_to_lists_of_their_owner() {
    let service =
        |reference: &str| format!("<service uri='sip:s@h'><resource-list>{reference}</resource-list></service>");
    let check = |inner: &str| validate("rls-services", &services(inner));
    let good = "http://xcap.example.com/xcap-root/resource-lists/user\n      s/sip:joe@example.com/index/~~/resource-lists/list%5b@nam\n e=%22l1%22%5d";
    assert_eq!(check(&service(good)), Ok(()));
    assert_eq!(check(&service(&good.replace("http://", "HTTPS://").replace("sip:joe", "sip%3ajoe"))), Ok(()));
    for (part, other) in [
        ("http://xcap.example.com", ""),
        ("resource-lists/user", "pres-rules/user"),
        ("joe", "ann"),
        ("/xcap-root", "/other-root"),
        ("~~", "x"),
        ("http", "ftp"),
    ] {
        let bad = good.replacen(part, other, 1);
        assert_ne!(bad, good);
        assert!(matches!(check(&service(&bad)), Err(Conflict::Constraint(_))), "{bad}");
    }
    let twice = "<service uri='sip:s@h'><list/></service><service uri='sip:t@h'><list/></service><service uri='sip:s@h'><list/></service>";
    assert_eq!(fields(&services(twice), "rls-services", check(twice)), ["'sip:s@h'"]);
    let inside = "<service uri='sip:s@h'><list><rl:entry uri='sip:a@h'/><rl:list><rl:entry uri='sip:b@h'/><rl:entry uri='sip:b@h'/></rl:list></list></service>";
    assert_eq!(fields(&services(inside), "rls-services", check(inside)), ["'sip:b@h'"]);
    let all = services(twice);
    let (text, uris) = (read(&all), ["sip:s@h", "sip:t@h", "sip:s@h"]);
    assert!(rls_services::uris(&text).iter().map(|(uri, _)| *uri).eq(uris));
}

#[test]
fn the_index_keeps_what_every_document_means() {
    let own = "<s:rls-services xmlns:s='urn:ietf:params:xml:ns:rls-services' xmlns='urn:x' xmlns:y='urn:y'>\
        <s:service uri='sip:a@h' y:z='1'><s:list/><y:e/><e/></s:service><s:service xmlns='urn:z' uri='sip:b@h'><s:list/><e/></s:service></s:rls-services>";
    let bare = "<s:rls-services xmlns:s='urn:ietf:params:xml:ns:rls-services'><s:service uri='sip:c@h'><s:list/></s:service></s:rls-services>";
    let plain = services("<service uri='sip:d@h'><list><rl:entry uri='sip:e@h'/></list></service>");
    let mut index = rls_services::Index::default();
    [own, bare, &plain].into_iter().for_each(|d| index.add(&read(d)));
    let text = Text::read(index.finish()).unwrap();
    let stored = find("rls-services").unwrap().stored().unwrap();
    assert_eq!(stored.validate(&text, &PLACE), Ok(()));
    let merged: Vec<&Element> = text.root().elements().collect();
    assert_eq!(merged.len(), 4);
    assert_eq!(merged[0].attribute_in("urn:y", "z"), Some("1"));
    assert!(merged[0].child("urn:x", "e").is_some() && merged[1].child("urn:z", "e").is_some());
    assert!(merged[3].child("urn:ietf:params:xml:ns:rls-services", "list").unwrap().elements().next().is_some());
    assert!(rls_services::Index::default().finish().ends_with(b"</rls-services>\n"));
}

#[test]
fn what_we_make_is_well_formed() {
    let caps = Text::read(xcap_caps::document()).unwrap();
    let named = |list: &str| -> Vec<String> {
        caps.root().child("urn:ietf:params:xml:ns:xcap-caps", list).unwrap().elements().map(Element::text).collect()
    };
    assert!(named("auids").contains(&"xcap-caps".to_owned()) && named("auids").len() == ALL.len());
    assert!(named("namespaces").contains(&"urn:ietf:params:xml:ns:xcap-caps".to_owned()));
    let entry = directory::Entry { uri: "http://h/a".into(), etag: "\"1\"".into(), size: 7 };
    let text = Text::read(directory::document(&[("pres-rules", vec![entry]), ("resource-lists", Vec::new())])).unwrap();
    let folder = text.root().elements().next().unwrap();
    assert_eq!(folder.elements().next().unwrap().attribute("etag"), Some("\"1\""));
}

#[test]
fn usages_are_found_by_their_id() {
    assert!(ALL.iter().all(|usage| find(usage.auid).is_some_and(|found| std::ptr::eq(found, *usage))));
    assert!(find("").is_none() && find("resource-list").is_none());
    assert!(find("pidf-manipulation").unwrap().stored().is_some_and(|s| s.allows("index") && !s.allows("other")));
}
