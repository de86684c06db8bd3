use sip_xml::Document;

use super::*;

fn validate(root: &Declaration, text: &str) -> Result<(), String> {
    let document = Document::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"));
    root.validate(&document.root).map_err(|invalid| invalid.to_string())
}

/// The examples of the RFCs.
#[test]
fn examples_are_valid() {
    let read = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert_eq!(validate(&RULESET, &read(include_bytes!("../../../presence/tests/rfc5025-6.xml"))), Ok(()));
    assert_eq!(validate(&RLS_SERVICES_ROOT, &read(include_bytes!("../../../presence/tests/rfc4826-4.xml"))), Ok(()));
    for pidf in [
        &include_bytes!("../../../presence/tests/rfc3863-a.xml")[..],
        include_bytes!("../../../presence/tests/rfc3863-b.xml"),
        include_bytes!("../../tests/rfc4827-11.xml"),
    ] {
        // The examples of RFC 4480 and 5196 put elements of other namespaces where their schema does not have them.
        assert_eq!(validate(&PRESENCE, &read(pidf)), Ok(()));
    }
    assert_eq!(validate(&RESOURCE_LISTS_ROOT, &read(include_bytes!("../../tests/rfc4826-3.xml"))), Ok(()));
}

#[test]
fn lists_are_as_their_schema_has_them() {
    let lists = |inner: &str| {
        validate(
            &RESOURCE_LISTS_ROOT,
            &format!("<resource-lists xmlns='{RESOURCE_LISTS}' xmlns:x='urn:x'>{inner}</resource-lists>"),
        )
    };
    for good in [
        "",
        " <list/> ",
        "<list name='a' x:b='c' xml:base='d'><display-name xml:lang='en'>n</display-name><entry uri='sip:a@h'/><list/><entry-ref ref='a'/>\
         <external anchor='http://h'/><entry uri=''><display-name/><x:y><anything/>text</x:y></entry><x:z/><x:z/></list>",
        "<list><!-- c --><entry xmlns:i='http://www.w3.org/2001/XMLSchema-instance' i:schemaLocation='a b' uri='u'/></list>",
    ] {
        assert_eq!(lists(good), Ok(()), "{good}");
    }
    for bad in [
        "text",
        "<entry uri='u'/>",
        "<list/><x:y/>",
        "<list>text</list>",
        "<list other='a'/>",
        "<list xmlns=''/>",
        "<list><entry/></list>",
        "<list><entry uri='u' more='v'/></list>",
        "<list><entry uri='u'/><display-name/></list>",
        "<list><display-name/><display-name/></list>",
        "<list><display-name><b/></display-name></list>",
        "<list><display-name lang='de'/></list>",
        "<list><display-name xml:lang='1'/></list>",
        "<list><x:y/><entry uri='u'/></list>",
        "<list><entry uri='u'><entry uri='v'/></entry></list>",
        "<list><entry uri='u' xmlns:i='http://www.w3.org/2001/XMLSchema-instance' i:type='x'/></list>",
        "<list><y xmlns=''/></list>",
    ] {
        assert!(lists(bad).is_err(), "{bad}");
    }
    assert!(validate(&RESOURCE_LISTS_ROOT, "<resource-lists/>").is_err());
}

#[test]
fn services_are_as_their_schema_has_them() {
    let services = |inner: &str| {
        validate(
            &RLS_SERVICES_ROOT,
            &format!(
                "<rls-services xmlns='{RLS_SERVICES}' xmlns:rl='{RESOURCE_LISTS}' xmlns:x='urn:x'>{inner}</rls-services>"
            ),
        )
    };
    for good in [
        "",
        "<service uri='u'><list><rl:entry uri='v'/></list></service>",
        "<service uri='u' x:y='z'><resource-list>http://h</resource-list><packages/><x:y/></service>",
        "<service uri='u'><list/><packages><package>presence</package><x:y/><x:z/><package/></packages></service>",
        // Its own namespace is another than that of the lists.
        "<service uri='u'><list><service-like xmlns='urn:y'/></list></service>",
    ] {
        assert_eq!(services(good), Ok(()), "{good}");
    }
    for bad in [
        "<service uri='u'/>",
        "<service><list/></service>",
        "<service uri='u'><list/><resource-list>h</resource-list></service>",
        "<service uri='u'><packages/><list/></service>",
        "<service uri='u'><list><entry uri='v'/></list></service>",
        "<service uri='u'><rl:list/></service>",
        "<service uri='u'><list/><packages><x:y/></packages></service>",
        "<service uri='u'><list/><rl:entry uri='v'/></service>",
    ] {
        assert!(services(bad).is_err(), "{bad}");
    }
}

#[test]
fn rules_are_as_their_schemas_have_them() {
    let rules = |inner: &str| {
        validate(
            &RULESET,
            &format!(
                "<ruleset xmlns='{COMMON_POLICY}' xmlns:pr='{PRES_RULES}' xmlns:o='{OMA_COMMON_POLICY}' xmlns:x='urn:x'>{inner}</ruleset>"
            ),
        )
    };
    for good in [
        "",
        "<rule id='a'/>",
        "<rule id='a'><conditions/><actions/><transformations/></rule>",
        "<rule id='a'><conditions><sphere value='s'/><identity><one id='sip:a@h'/><many/><many domain='d'><except domain='e'/><except id='f'/></many>\
         <x:who/></identity><o:other-identity/><validity><from>2003-12-24T17:00:00+01:00</from><until>2003-12-24T19:00:00+01:00</until></validity></conditions></rule>",
        "<rule id='a'><actions><pr:sub-handling> allow </pr:sub-handling><x:y/></actions></rule>",
        "<rule id='a'><transformations><pr:provide-services><pr:service-uri-scheme>sip</pr:service-uri-scheme><pr:class>c</pr:class></pr:provide-services>\
         <pr:provide-persons><pr:all-persons/></pr:provide-persons><pr:provide-devices/><pr:provide-note>true</pr:provide-note>\
         <pr:provide-user-input>bare</pr:provide-user-input><pr:provide-unknown-attribute ns='n' name='m'>1</pr:provide-unknown-attribute>\
         <pr:provide-all-attributes/></transformations></rule><rule id='b'/>",
        "<rule id='a'><conditions><o:external-list><o:entry anc='http://h'/></o:external-list><o:anonymous-request/></conditions></rule>",
    ] {
        assert_eq!(rules(good), Ok(()), "{good}");
    }
    for bad in [
        "<rule/>",
        "<rule id='1'/>",
        "<rule id='a'/><rule id='a'/>",
        "<rule id='a'><actions/><conditions/></rule>",
        "<rule id='a'><conditions><identity/></conditions></rule>",
        "<rule id='a'><conditions><many/></conditions></rule>",
        "<rule id='a'><conditions><identity><one/></identity></conditions></rule>",
        "<rule id='a'><conditions><identity><one id='a'><x:y/><x:y/></one></identity></conditions></rule>",
        "<rule id='a'><conditions><validity/></conditions></rule>",
        "<rule id='a'><conditions><validity><from>now</from><until>2003-12-24T19:00:00Z</until></validity></conditions></rule>",
        "<rule id='a'><conditions><sphere/></conditions></rule>",
        "<rule id='a'><conditions><o:unheard-of/></conditions></rule>",
        "<rule id='a'><actions><pr:sub-handling>perhaps</pr:sub-handling></actions></rule>",
        "<rule id='a'><actions><pr:all-services/></actions></rule>",
        "<rule id='a'><transformations><pr:provide-services><pr:all-services/><pr:class>c</pr:class></pr:provide-services></transformations></rule>",
        "<rule id='a'><transformations><pr:provide-note>yes</pr:provide-note></transformations></rule>",
        "<rule id='a'><transformations><pr:provide-note/></transformations></rule>",
        "<rule id='a'><transformations><pr:provide-everything/></transformations></rule>",
        "<rule id='a'><transformations><pr:provide-all-attributes> </pr:provide-all-attributes></transformations></rule>",
    ] {
        assert!(rules(bad).is_err(), "{bad}");
    }
}

#[test]
fn presence_is_as_its_schema_has_it() {
    let presence = |inner: &str| {
        validate(&PRESENCE, &format!("<presence xmlns='{PIDF}' xmlns:x='urn:x' entity='sip:a@h'>{inner}</presence>"))
    };
    let tuple = |inner: &str| presence(&format!("<tuple id='t'>{inner}</tuple>"));
    assert_eq!(presence("<tuple id='t'><status/></tuple><note xml:lang='en'>n</note><x:y/>"), Ok(()));
    assert_eq!(
        tuple(
            "<status><basic>open</basic><x:y/></status><x:y/><contact priority='0.8'>sip:a@h</contact><note/><note/><timestamp>2001-10-27T16:49:29Z</timestamp>"
        ),
        Ok(())
    );
    for bad in [
        "",
        "<status><basic>Open</basic></status>",
        "<status/><timestamp>now</timestamp>",
        "<status/><contact priority='2'>s</contact>",
        "<status/><note/><contact>s</contact>",
    ] {
        assert!(tuple(bad).is_err(), "{bad}");
    }
    for bad in [
        "<tuple><status/></tuple>",
        "<tuple id='a'><status/></tuple><tuple id='a'><status/></tuple>",
        "<note/><tuple id='a'><status/></tuple>",
        "<x:y/><note/>",
    ] {
        assert!(presence(bad).is_err(), "{bad}");
    }
    assert!(validate(&PRESENCE, &format!("<presence xmlns='{PIDF}'/>")).is_err());
}
