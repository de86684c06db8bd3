use super::*;

const ALICE: &str = "sip:alice@h";

fn set(inner: &str) -> String {
    format!(
        "<filter-set xmlns='{SIMPLE_FILTER}'><ns-bindings><ns-binding prefix='p' urn='{PIDF}'/><ns-binding prefix='r' urn='urn:ietf:params:xml:ns:pidf:rpid'/></ns-bindings>{inner}</filter-set>"
    )
}

fn filters(inner: &str) -> Result<Filters, NotFilters> {
    Filters::parse(set(inner).as_bytes())
}

fn document(tuples: &str) -> String {
    format!("<presence xmlns='{PIDF}' xmlns:r='urn:ietf:params:xml:ns:pidf:rpid' entity='{ALICE}'>{tuples}</presence>")
}

fn part(what: &str, tuples: &str) -> Option<String> {
    let filters = filters(&format!("<filter id='1'><what>{what}</what></filter>")).unwrap();
    let part = filters.part(Target::itself(ALICE), document(tuples).as_bytes());
    part.map(|p| String::from_utf8(p).unwrap().split_once('>').unwrap().1.replace("</presence>", ""))
}

const IM: &str = "<tuple id='im'><status><basic>open</basic></status><r:class>IM</r:class><contact>im:a</contact><note>n</note></tuple>";
const MAIL: &str = "<tuple id='m'><status><basic>closed</basic></status><r:class>MAIL</r:class></tuple>";

#[test]
fn what_is_included_comes_with_what_is_around_it() {
    let both = format!("{IM}{MAIL}<note>about</note>");
    let part = |what: &str| part(what, &both);
    // RFC 4661 §6.1.
    let basic = "<include type='xpath'>\n /p:presence/p:tuple[r:class=\"IM\" or r:class=\"SMS\"\n or r:class=\"MMS\"]/p:status/p:basic\n</include>";
    assert_eq!(part(basic).as_deref(), Some("<tuple id='im'><status><basic>open</basic></status></tuple>"));
    assert_eq!(part("<include>//p:tuple[p:status/p:basic=\"open\" and @id='im']</include>").as_deref(), Some(IM));
    assert_eq!(part("<include>//p:tuple[*/p:basic='closed']</include>").as_deref(), Some(MAIL));
    // A tuple has its status, whatever was wanted.
    let notes = "<tuple id='im'><status><basic>open</basic></status><note>n</note></tuple><note>about</note>";
    assert_eq!(part("<include>//p:note</include>").as_deref(), Some(notes));
    assert_eq!(part("<include>/p:presence/p:note</include>").as_deref(), Some("<note>about</note>"));
    let plain = both.replace("<r:class>IM</r:class>", "").replace("<r:class>MAIL</r:class>", "");
    assert_eq!(part(&format!("<include type='namespace'> {PIDF} </include>")).as_deref(), Some(&*plain));
    assert_eq!(
        part(&format!("<include type='namespace'>{PIDF}</include><exclude>//p:note</exclude>")),
        Some(plain.replace("<note>n</note>", "").replace("<note>about</note>", ""))
    );
    assert_eq!(part("<exclude type='namespace'>urn:ietf:params:xml:ns:pidf:rpid</exclude>"), Some(plain.clone()));
    // What must be there stays (RFC 4661 §3.5.2).
    assert_eq!(part("<exclude>//p:status</exclude>").as_deref(), Some(&*both));
    assert_eq!(part("<exclude>/p:presence/p:tuple[@id='m']</exclude>"), Some(both.replace(MAIL, "")));
    assert_eq!(part("<include>//p:tuple/@id</include>").map(|p| p.matches("<tuple").count()), Some(2));
    // Nothing at all.
    assert_eq!(part("<include>//p:tuple[@id='x']</include>"), None);
    assert_eq!(part("<include>//tuple</include>"), None, "without a prefix a name is in no namespace");
    assert_eq!(part("").as_deref(), Some(&*both));
}

#[test]
fn triggers_let_through_what_has_changed_so() {
    let filters = |trigger: &str| filters(&format!("<filter id='1'><trigger>{trigger}</trigger></filter>")).unwrap();
    let tuple = |id: &str, basic: &str, idle: u32| {
        document(&format!("<tuple id='{id}'><status><basic>{basic}</basic></status><r:idle>{idle}</r:idle></tuple>"))
    };
    let met = |trigger: &str, before: &str, now: &str| {
        filters(trigger).triggered(Target::itself(ALICE), before.as_bytes(), now.as_bytes())
    };
    let (closed, open) = (tuple("a", "closed", 6), tuple("a", "open", 6));
    let basic = "/p:presence/p:tuple/p:status/p:basic";
    // RFC 4661 §6.2.
    let opens = format!("<changed from='CLOSED' to='OPEN'>\n {basic}\n</changed>");
    assert!(met(&opens, &closed, &open) && !met(&opens, &open, &closed) && !met(&opens, &open, &open));
    // Another tuple in its place.
    assert!(met(&opens, &closed, &tuple("b", "open", 6)));
    assert!(met(&format!("<changed>{basic}</changed>"), &open, &closed));
    assert!(!met(&format!("<changed>{basic}</changed>"), &open, &tuple("a", "open", 7)));
    let by = "<changed by='2'>//r:idle</changed>";
    assert!(
        met(by, &open, &tuple("a", "open", 8))
            && met(by, &open, &tuple("a", "open", 4))
            && !met(by, &open, &tuple("a", "open", 7))
    );
    let two = document(&format!("{IM}{MAIL}"));
    let one = document(IM);
    assert!(met("<added>//p:tuple</added>", &one, &two) && !met("<added>//p:tuple</added>", &two, &one));
    assert!(met("<removed>//p:tuple</removed>", &two, &one) && !met("<removed>//p:tuple</removed>", &one, &two));
    // All of a trigger, any of several.
    let and = format!("{opens}<added>//p:note</added>");
    assert!(!met(&and, &closed, &open));
    let or =
        super::tests::filters(&format!("<filter id='1'><trigger>{and}</trigger><trigger>{opens}</trigger></filter>"))
            .unwrap();
    assert!(or.triggered(Target::itself(ALICE), closed.as_bytes(), open.as_bytes()));
    assert!(met("", &open, &open), "an empty trigger is none");
}

#[test]
fn filters_are_for_whom_they_name() {
    let what = "<what><include>//p:note</include></what>";
    let applies = |attributes: &str| {
        let filters = filters(&format!("<filter id='1' {attributes}>{what}</filter>")).unwrap();
        filters.part(Target::itself(ALICE), document(IM).as_bytes()).unwrap() != document(IM).as_bytes()
    };
    assert!(applies("") && applies("uri='sip:alice@H'") && applies("domain='H'") && applies("enabled='1'"));
    assert!(!applies("uri='sip:bob@h'") && !applies("domain='g'") && !applies("enabled='false'"));
}

#[test]
fn filters_are_changed_by_their_id() {
    let what = "<what><include>//p:note</include></what>";
    let one = filters(&format!("<filter id='1'>{what}</filter>")).unwrap();
    let off = one.changed(set("<filter id='1' enabled='false'/>").as_bytes()).unwrap();
    assert_eq!(off.part(Target::itself(ALICE), document(IM).as_bytes()).unwrap(), document(IM).as_bytes());
    assert_eq!(off.changed(set("<filter id='1'/>").as_bytes()).unwrap(), one);
    assert!(one.changed(set("<filter id='1' remove='true'/>").as_bytes()).unwrap().is_empty());
    assert_eq!(one.changed(set(&format!("<filter id='2'>{what}</filter>")).as_bytes()), Err(NotFilters::Resource));
    let two = one.changed(set(&format!("<filter id='2' uri='sip:bob@h'>{what}</filter>")).as_bytes()).unwrap();
    assert_eq!(two.filters.len(), 2);
}

#[test]
fn what_is_no_filter_is_refused() {
    assert_eq!(Filters::parse(b"<x/>"), Err(NotFilters::Root));
    assert!(matches!(Filters::parse(b"<!DOCTYPE x><x/>"), Err(NotFilters::Xml(_))));
    for bad in [
        "",
        "<filter/>",
        "<filter id='1'/>",
        "<filter id='1' uri='a' domain='b'><trigger/></filter>",
        "<filter id='1' enabled='maybe'><what/></filter>",
        "<filter id='1'><what/></filter><filter id='1'><what/></filter>",
        "<filter id='1'><what/><what/></filter>",
        "<filter id='1'><what><include type='other'>x</include></what></filter>",
        "<filter id='1'><trigger><changed by='x'>//p:a</changed></trigger></filter>",
    ] {
        assert!(matches!(filters(bad), Err(NotFilters::Invalid(_))), "{bad}: {:?}", filters(bad));
    }
    for bad in [
        "",
        "p:a",
        "/",
        "/p:a/",
        "//",
        "/q:a",
        "/p:a[",
        "/p:a[]",
        "/p:a[x]",
        "/p:a[x=]",
        "/p:a[x='1",
        "/p:a[x='1' y='2']",
        "/p:a/@b/c",
        "/p:a[position()=1]",
        "/a:b:c",
    ] {
        let filter = format!("<filter id='1'><what><include>{}</include></what></filter>", bad.replace('<', "&lt;"));
        assert_eq!(filters(&filter), Err(NotFilters::Expression), "{bad}");
    }
    let many: String = (0..17)
        .map(|n| format!("<filter id='{n}' uri='sip:{n}@h'><what><include>//p:a</include></what></filter>"))
        .collect();
    assert_eq!(filters(&many), Err(NotFilters::TooMany));
}

#[test]
fn filters_of_a_list_are_for_all_members_or_for_those_they_name() {
    const ALICE: &str = "sip:alice@example.com";
    const LIST: &str = "sip:friends@example.com";
    let basic = "<what><include>//p:basic</include></what>";
    let not_im = "<what><exclude>//p:contact</exclude></what>";
    let text = format!(
        "<filter-set xmlns='{SIMPLE_FILTER}'><ns-bindings><ns-binding prefix='p' urn='{PIDF}'/></ns-bindings>\
         <filter id='all' uri='{LIST}'>{not_im}</filter><filter id='one' uri='{ALICE}'>{basic}</filter>\
         <filter id='domain' domain='example.com'><what><exclude>//p:note</exclude></what></filter></filter-set>"
    );
    let filters = Filters::parse(text.as_bytes()).unwrap();
    let document = format!(
        "<presence xmlns='{PIDF}' entity='x'><tuple id='t'><status><basic>open</basic></status><contact>c</contact><note>n</note></tuple></presence>"
    );
    let part = |requested, uri| {
        let part = filters.part(Target { requested, uri }, document.as_bytes()).unwrap();
        let text = String::from_utf8(part).unwrap();
        ["<basic>", "<contact>", "<note>"].map(|e| text.contains(e))
    };
    // Her own filter goes before her domain's; that of the list comes on top.
    assert_eq!(part(LIST, ALICE), [true, false, false]);
    assert_eq!(part(LIST, "sip:bob@example.com"), [true, false, false]);
    assert_eq!(part(LIST, "sip:bob@elsewhere.test"), [true, false, true]);
    assert_eq!(part("sip:others@example.com", "sip:bob@elsewhere.test"), [true, true, true]);
}
