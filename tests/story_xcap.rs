//! Users' documents over HTTP (RFC 4825, 4826, 5025, 4827): curl as the client, xmllint as the judge of what we write, SIPp as
//! the watcher who feels it at once.

mod harness;

use std::process::Command;
use std::time::Duration;

use harness::presence::hears;
use harness::xcap::{ATTRIBUTE, Answer, Client, ELEMENT, LISTS, PIDF, RULES, SERVICES, home};
use harness::{DOMAIN, PASSWORD, Server, Setup, Sipp, eventually, header};

fn setup(users: &[&str]) -> Setup {
    let mut setup = Setup::with_users(users);
    setup.sections = "[presence]\nnotify_interval = 0\nmin_expires = 2\n[xcap]\nrate = 1000\n".into();
    setup
}

fn lists(inner: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\">\n  {inner}\n</resource-lists>"
    )
}

fn services(inner: &str) -> String {
    format!(
        "<rls-services xmlns=\"urn:ietf:params:xml:ns:rls-services\" xmlns:rl=\"urn:ietf:params:xml:ns:resource-lists\">{inner}</rls-services>"
    )
}

fn service(uri: &str, member: &str) -> String {
    format!(
        "<service uri=\"{uri}\"><list><rl:entry uri=\"{member}\"/></list><packages><package>presence</package></packages></service>"
    )
}

/// What a conflict is about, and that the report is one.
fn conflict(answer: &Answer) -> &str {
    assert_eq!(answer.status, 409, "{answer:?}");
    assert_eq!(answer.media_type.as_deref(), Some("application/xcap-error+xml"), "{answer:?}");
    valid("xcap-error.xsd", &answer.body);
    let start = "<xcap-error xmlns=\"urn:ietf:params:xml:ns:xcap-error\"><";
    answer.body.split_once(start).expect("a report").1.split([' ', '/', '>']).next().unwrap()
}

/// xmllint finds that a document is as its RFC's schema has it.
fn valid(schema: &str, document: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("document.xml");
    std::fs::write(&file, document).unwrap();
    let schema = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas").join(schema);
    let done = Command::new("xmllint").args(["--noout", "--nonet", "--schema"]).arg(schema).arg(file).output();
    let done = done.expect("xmllint runs");
    assert!(done.status.success(), "{}\n{document}", String::from_utf8_lossy(&done.stderr));
}

fn watching(server: &Server, scenario: &'static str, watcher: &str, user: &str) -> Sipp {
    let sipp = Sipp::new(server, scenario, server.ports.next()).set("USER", user).users(&[watcher]);
    sipp.set("EVENT", "presence").set("ACCEPT", PIDF).limit(Duration::from_secs(120))
}

/// RFC 4825 §13, byte for byte but for the domain.
#[test]
fn bill_makes_his_lists() {
    let server = setup(&["bill"]).start();
    let bill = Client::of(&server, "bill");
    let index = home("resource-lists", "bill", "index");
    assert_eq!(bill.get(&index).status, 404);
    let friends = "<list name=\"friends\">\n  </list>";
    let made = bill.put(&index, LISTS, &lists(friends));
    assert_eq!((made.status, &*made.body), (201, ""));
    let in_list = format!("{index}/~~/resource-lists/list%5b@name=%22friends%22%5d");
    let entry = format!("<entry uri=\"sip:bob@{DOMAIN}\">\n    <display-name>Bob Jones</display-name>\n  </entry>");
    let added = bill.put(&format!("{in_list}/entry"), ELEMENT, &entry);
    assert_eq!((added.status, added.etag.is_some()), (201, true));
    assert_ne!(added.etag, made.etag);
    let all = bill.get(&index);
    assert_eq!(all.body, lists(&format!("<list name=\"friends\">\n  {entry}</list>")));
    assert_eq!((all.media_type.as_deref(), &all.etag), (Some(LISTS), &added.etag));
    let close = format!(
        "<list name=\"close-friends\">\n{}</list>",
        ["joe", "nancy", "petri"].map(|n| format!("   <entry uri=\"sip:{n}@{DOMAIN}\"/>\n")).concat()
    );
    assert_eq!(bill.put(&format!("{in_list}/list%5b@name=%22close-friends%22%5d"), ELEMENT, &close).status, 201);
    let petri = format!("{index}/~~/resource-lists/list/list/entry%5b@uri=%22sip:petri@{DOMAIN}%22%5d");
    let gone = bill.delete(&petri);
    assert_eq!((gone.status, gone.etag.is_some()), (200, true));
    assert_eq!(bill.delete(&petri).status, 404);
    let nancy = bill.get(&format!("{index}/~~/resource-lists/list/list/entry%5b2%5d/@uri"));
    assert_eq!((nancy.status, nancy.media_type.as_deref()), (200, Some(ATTRIBUTE)));
    assert_eq!((nancy.body, nancy.etag), (format!("\"sip:nancy@{DOMAIN}\""), gone.etag));
    let bindings = bill.get(&format!("{index}/~~/*/list/namespace::*"));
    assert_eq!(bindings.body, "<list xmlns=\"urn:ietf:params:xml:ns:resource-lists\"/>");
    assert_eq!(bindings.media_type.as_deref(), Some("application/xcap-ns+xml"));
    // By another name for the same namespace.
    let prefixed = format!("{index}/~~/r:resource-lists/r:list/r:entry?xmlns(r=urn:ietf:params:xml:ns:resource-lists)");
    assert_eq!(bill.get(&prefixed).body, entry);
    // Brackets and quotes as they are, by which curl's digest is not well-formed any more.
    assert_eq!(bill.get(&format!("{index}/~~/resource-lists/list[@name=\"friends\"]/entry")).body, entry);
    // In the directory stands what there is.
    let directory = bill.get(&home("org.openmobilealliance.xcap-directory", "bill", "directory.xml"));
    let etag = bill.get(&index).etag.unwrap();
    assert_eq!(directory.media_type.as_deref(), Some("application/vnd.oma.xcap-directory+xml"));
    assert!(
        directory.body.contains(&format!("uri=\"{}{index}\" etag=\"{}\"", bill.root, etag.replace('"', "&quot;"))),
        "{directory:?}"
    );
    assert_eq!(bill.delete(&index).status, 200);
    assert_eq!(bill.get(&index).status, 404);
    assert_eq!(server.metric("isthmus_xcap_changes_total"), 5.0);
    // Capabilities, as the RFC's schema has them.
    let caps = bill.get("xcap-caps/global/index");
    assert_eq!(caps.media_type.as_deref(), Some("application/xcap-caps+xml"));
    valid("xcap-caps.xsd", &caps.body);
    for auid in ["xcap-caps", "resource-lists", "rls-services", "pres-rules", "pidf-manipulation"] {
        assert!(caps.body.contains(&format!("<auid>{auid}</auid>")), "{auid}: {}", caps.body);
    }
    assert_eq!(bill.get_if("xcap-caps/global/index", &format!("If-None-Match: {}", caps.etag.unwrap())).status, 304);
}

#[test]
fn bad_changes_are_refused_and_say_why() {
    let server = setup(&["bill"]).start();
    let bill = Client::of(&server, "bill");
    let index = home("resource-lists", "bill", "index");
    let put = |path: &str, kind: &str, body: &str| bill.put(path, kind, body);
    // Nothing to insert into yet.
    let answer = put(&format!("{index}/~~/resource-lists/list"), ELEMENT, "<list/>");
    assert_eq!(conflict(&answer), "no-parent");
    assert!(
        answer.body.contains(&format!("<ancestor>{}resource-lists/users/sip:bill@{DOMAIN}/</ancestor>", bill.root)),
        "{answer:?}"
    );
    assert_eq!(conflict(&put(&home("resource-lists", "bill", "sub/index"), LISTS, &lists(""))), "no-parent");
    for (body, why) in [
        ("<resource-lists", "not-well-formed"),
        ("", "not-well-formed"),
        ("<resource-lists/>", "schema-validation-error"),
        (&*lists("<list><entry/></list>"), "schema-validation-error"),
        (&*lists("<list name='a'/><list name='a'/>"), "uniqueness-failure"),
        (&*lists("<list><external anchor='sip:x@h'/></list>"), "constraint-failure"),
        (&*lists("<list/>").replace("UTF-8", "ISO-8859-1"), "not-utf-8"),
        (&*lists("<list/>").replace("?>", "?><!DOCTYPE x [<!ENTITY y 'z'>]>"), "constraint-failure"),
        (&*lists(&format!("{}{}", "<list>".repeat(40), "</list>".repeat(40))), "constraint-failure"),
    ] {
        assert_eq!(conflict(&put(&index, LISTS, body)), why, "{body}");
    }
    assert_eq!(bill.get(&index).status, 404);
    assert_eq!(put(&index, "application/xml", &lists("")).status, 415);
    assert_eq!(put(&index, LISTS, &lists(&format!("<list name='{}'/>", "x".repeat(65 * 1024)))).status, 413);
    let good = lists("<list name=\"a\"><entry uri=\"sip:x@h\"/><entry uri=\"sip:y@h\"/></list>");
    assert_eq!(put(&index, LISTS, &good).status, 201);
    let at = |node: &str| format!("{index}/~~/{node}");
    let list = "resource-lists/list%5b@name=%22a%22%5d";
    for (node, kind, body, why) in [
        ("resource-lists/list%5b@name=%22b%22%5d/entry", ELEMENT, "<entry uri='z'/>", "no-parent"),
        (list, ELEMENT, "<list name='b'/>", "cannot-insert"),
        (&*format!("{list}/entry"), ELEMENT, "<entry uri='z'/>", "cannot-insert"),
        (&*format!("{list}/@name"), ATTRIBUTE, "\"b\"", "cannot-insert"),
        (&*format!("{list}/entry%5b1%5d"), ELEMENT, "<entry uri='z'/><entry uri='w'/>", "not-xml-frag"),
        (&*format!("{list}/entry%5b1%5d"), ELEMENT, "<entry uri='z'>", "not-xml-frag"),
        (&*format!("{list}/entry%5b1%5d/@uri"), ATTRIBUTE, "sip:z@h", "not-xml-att-value"),
        (&*format!("{list}/entry%5b1%5d/@uri"), ATTRIBUTE, "\"sip:y@h\"", "uniqueness-failure"),
        (&*format!("{list}/entry%5b1%5d/@other"), ATTRIBUTE, "\"x\"", "schema-validation-error"),
        (&*format!("{list}/entry%5b3%5d"), ELEMENT, "<entry/>", "schema-validation-error"),
    ] {
        assert_eq!(conflict(&put(&at(node), kind, body)), why, "{node} {body}");
    }
    assert_eq!(conflict(&bill.delete(&at(&format!("{list}/entry%5b1%5d")))), "cannot-delete");
    assert_eq!(conflict(&bill.delete(&at(&format!("{list}/entry%5b1%5d/@uri")))), "schema-validation-error");
    assert_eq!(conflict(&bill.delete(&at("resource-lists"))), "schema-validation-error");
    let report = put(&at(&format!("{list}/entry%5b1%5d/@uri")), ATTRIBUTE, "\"sip:y@h\"");
    assert!(report.body.contains("<exists field=\"resource-lists/list%5B1%5D/entry%5B2%5D/@uri\"/>"), "{report:?}");
    assert_eq!(put(&at(list), "application/xml", "<list name='a'/>").status, 415);
    assert_eq!(bill.get(&index).body, good, "nothing of it has come in");
    for (path, status) in [
        ("unknown-usage/users/sip:bill@isthmus.test/index", 404),
        ("resource-lists/users/sip:nobody@isthmus.test/index", 404),
        ("resource-lists/global/index", 404),
        ("resource-lists/users/sip:bill@isthmus.test/", 404),
        ("resource-lists/users/sip:bill@isthmus.test/../index", 404),
        ("resource-lists/users/sip:bill@isthmus.test/index/~~/x:resource-lists", 400),
        ("resource-lists/users/sip:bill@isthmus.test/index/~~/resource-lists?nonsense", 400),
        ("resource-lists/users/sip:bill@isthmus.test/index/~~/resource-lists/list%5blast()%5d", 404),
        ("resource-lists/users/sip:bill@isthmus.test/index/~~/resource-lists/list/entry", 404),
    ] {
        assert_eq!(bill.get(path).status, status, "{path}");
    }
    let long = format!("{index}/~~/{}", "a/".repeat(3000));
    assert_eq!(bill.get(&long).status, 414);
    let answer = bill.post(&index);
    assert_eq!((answer.status, answer.head.to_lowercase().contains("allow: get, head, put, delete")), (405, true));
    let answer = bill.put(&at("resource-lists/namespace::*"), ELEMENT, "<x/>");
    assert_eq!((answer.status, answer.head.to_lowercase().contains("allow: get")), (405, true));
    assert_eq!(bill.put("xcap-caps/global/index", "application/xcap-caps+xml", "<x/>").status, 405);
    assert_eq!(
        conflict(&put(
            &home("pidf-manipulation", "bill", "other"),
            PIDF,
            "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='a'/>"
        )),
        "constraint-failure"
    );
    let caps = home("xcap-caps", "bill", "index");
    assert_eq!(bill.get(&caps).status, 404);
}

#[test]
fn only_the_owner_and_the_trusted_get_in() {
    let mut setup = setup(&["alice", "bob", "root"]);
    setup.sections.push_str("admins = [\"root\"]\ndocuments_per_user = 2\n");
    let server = setup.start();
    let index = home("resource-lists", "alice", "index");
    let secret = lists("<list name=\"secret\"/>");
    let alice = Client::of(&server, "alice");
    // In full, as IMS clients have it, and over TLS.
    let full = Client::nobody(&server).with(&["--digest", "-u", &format!("alice@{DOMAIN}:{PASSWORD}")]);
    assert_eq!(full.put(&index, LISTS, &secret).status, 201);
    let mut encrypted =
        Client::of(&server, "alice").with(&["--cacert", server.path().join("ca.pem").to_str().unwrap()]);
    encrypted.root = format!("https://localhost:{}/xcap-root/", server.https);
    assert_eq!(encrypted.get(&index).body, secret);
    assert_eq!(alice.get(&index.replace("sip:alice@", "sip%3Aalice%40")).body, secret);

    let nobody = Client::nobody(&server);
    let answer = nobody.get(&index);
    assert_eq!((answer.status, &*answer.body), (401, ""));
    assert!(answer.head.contains(&format!("realm=\"{DOMAIN}\"")), "{answer:?}");
    // A stranger learns of nobody whether they are a user, nor from a wrong password.
    let shape = |a: &Answer| {
        let lines = a.head.lines().filter(|l| !l.to_lowercase().starts_with("date") && !l.contains("nonce"));
        (a.status, lines.map(str::to_owned).collect::<Vec<_>>())
    };
    let unknown = home("resource-lists", "nobody", "index");
    assert_eq!(shape(&nobody.get(&unknown)), shape(&answer));
    let guess = |user: &str| Client::nobody(&server).with(&["--digest", "-u", &format!("{user}:guess")]).get(&index);
    assert_eq!(shape(&guess("alice")), shape(&guess("nobody")));
    assert_eq!(guess("alice").status, 401);
    let bob = Client::of(&server, "bob");
    assert_eq!(
        (bob.get(&index).status, bob.put(&index, LISTS, &secret).status, bob.delete(&index).status),
        (403, 403, 403)
    );
    assert_eq!(bob.get(&unknown).status, 404);
    assert_eq!(bob.get(&home("org.openmobilealliance.xcap-directory", "alice", "directory.xml")).status, 403);
    assert_eq!(bob.get("rls-services/global/index").status, 403);
    let root = Client::of(&server, "root");
    assert_eq!(root.get(&index).body, secret);
    assert_eq!(root.put(&index, LISTS, &secret).status, 200);
    // Asserted by anybody, an identity is nobody's.
    let asserting = Client::nobody(&server).with(&["-H", &format!("X-3GPP-Asserted-Identity: \"sip:alice@{DOMAIN}\"")]);
    assert_eq!(asserting.get(&index).status, 401);
    // Two documents are enough.
    assert_eq!(alice.put(&home("resource-lists", "alice", "more"), LISTS, &secret).status, 201);
    assert_eq!(
        conflict(&alice.put(&home("rls-services", "alice", "index"), SERVICES, &services(""))),
        "constraint-failure"
    );
    assert_eq!(alice.put(&index, LISTS, &lists("")).status, 200);
    // Guesses cost, until they are not listened to any more.
    let many = (0..40).map(|_| guess("alice").status).collect::<Vec<_>>();
    assert!(many.contains(&429), "{many:?}");
}

#[test]
fn an_authentication_proxy_asserts_who_asks() {
    let mut setup = setup(&["alice", "bob"]);
    setup.sections.push_str("trusted = [\"127.0.0.0/8\"]\n");
    let server = setup.start();
    let as_user =
        |identity: &str| Client::nobody(&server).with(&["-H", &format!("X-3GPP-Asserted-Identity: {identity}")]);
    let alice = as_user(&format!("\"tel:+999\", \"sip:alice@{DOMAIN}\""));
    let index = home("rls-services", "alice", "index");
    let of_alice = services(&service(&format!("sip:friends@{DOMAIN}"), &format!("sip:bob@{DOMAIN}")));
    assert_eq!(alice.put(&index, SERVICES, &of_alice).status, 201);
    assert_eq!(as_user(&format!("\"sip:bob@{DOMAIN}\"")).get(&index).status, 403);
    assert_eq!(as_user("\"sip:stranger@elsewhere.test\"").get(&index).status, 403);
    // A node of the core speaks for nobody: it reads, and no more.
    let node = Client::nobody(&server);
    assert_eq!((node.get(&index).status, node.delete(&index).status), (200, 403));
    let bob = as_user(&format!("sip:bob@{DOMAIN}"));
    let of_bob = services(&service(&format!("sip:team@{DOMAIN}"), &format!("sip:alice@{DOMAIN}")));
    assert_eq!(bob.put(&home("rls-services", "bob", "index"), SERVICES, &of_bob).status, 201);
    assert_eq!(
        bob.put(
            &home("rls-services", "bob", "draft"),
            SERVICES,
            &services(&service(&format!("sip:later@{DOMAIN}"), "sip:x@h"))
        )
        .status,
        201
    );
    let union = node.get("rls-services/global/index");
    assert!(
        union.body.contains(&format!("sip:friends@{DOMAIN}")) && union.body.contains(&format!("sip:team@{DOMAIN}")),
        "{union:?}"
    );
    assert!(!union.body.contains("sip:later@"), "{union:?}");
    let one = node.get(&format!("rls-services/global/index/~~/rls-services/service%5b@uri=%22sip:team@{DOMAIN}%22%5d"));
    assert_eq!((one.status, one.media_type.as_deref()), (200, Some(ELEMENT)));
    assert_eq!(
        node.get_if("rls-services/global/index", &format!("If-None-Match: {}", union.etag.unwrap())).status,
        304
    );
}

#[test]
fn of_two_who_saw_the_same_one_wins() {
    let server = setup(&["alice", "bob"]).start();
    let index = home("resource-lists", "alice", "index");
    let alice = Client::of(&server, "alice");
    assert_eq!(alice.put_if(&index, LISTS, &lists(""), "If-Match: *").status, 412);
    let made = alice.put_if(&index, LISTS, &lists("<list name=\"l\"/>"), "If-None-Match: *");
    assert_eq!(made.status, 201);
    assert_eq!(alice.put_if(&index, LISTS, &lists(""), "If-None-Match: *").status, 412);
    let etag = made.etag.unwrap();
    assert_eq!(alice.get_if(&index, &format!("If-None-Match: {etag}")).status, 304);
    assert_eq!(alice.get_if(&index, "If-None-Match: \"other\"").status, 200);
    let in_list = format!("{index}/~~/resource-lists/list");
    assert_eq!(alice.put_if(&format!("{in_list}/entry"), ELEMENT, "<entry uri='a'/>", "If-None-Match: *").status, 412);
    // Eight at a time, with the same If-Match: one wins each round.
    let mut etag = etag;
    for round in 0..5 {
        let condition = format!("If-Match: {etag}");
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let one = |n: usize| {
                let (alice, condition, in_list) = (&alice, &condition, &in_list);
                scope.spawn(move || {
                    let entry = format!("{in_list}/entry%5b@uri=%22sip:{round}-{n}@h%22%5d");
                    alice.put_if(&entry, ELEMENT, &format!("<entry uri=\"sip:{round}-{n}@h\"/>"), condition)
                })
            };
            let all: Vec<_> = (0..8).map(one).collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let mut statuses: Vec<u16> = answers.iter().map(|a| a.status).collect();
        statuses.sort();
        assert_eq!(statuses, [201, 412, 412, 412, 412, 412, 412, 412], "round {round}");
        etag = answers.into_iter().find_map(|a| a.etag).unwrap();
    }
    // Without a condition none is lost.
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (alice, in_list) = (&alice, &in_list);
            scope.spawn(move || {
                let entry = format!("{in_list}/entry%5b@uri=%22sip:free-{n}@h%22%5d");
                assert_eq!(alice.put(&entry, ELEMENT, &format!("<entry uri=\"sip:free-{n}@h\"/>")).status, 201);
            });
        }
    });
    assert_eq!(alice.get(&index).body.matches("<entry ").count(), 13);
    // The same service, claimed by two at once: one has it, the other hears of others.
    let uri = format!("sip:friends@{DOMAIN}");
    let claim = |user: &str| {
        let document = services(&service(&uri, &format!("sip:bob@{DOMAIN}")));
        Client::of(&server, user).put(&home("rls-services", user, "index"), SERVICES, &document)
    };
    let answers = std::thread::scope(|scope| {
        let both = ["alice", "bob"].map(|user| scope.spawn(move || claim(user)));
        both.map(|t| t.join().unwrap())
    });
    let [won, lost] = if answers[0].status == 201 { [&answers[0], &answers[1]] } else { [&answers[1], &answers[0]] };
    assert_eq!((won.status, conflict(lost)), (201, "uniqueness-failure"));
    let suggestion = format!("<alt-value>sip:friends-2@{DOMAIN}</alt-value>");
    assert!(
        lost.body.contains("field=\"rls-services/service%5B1%5D/@uri\"") && lost.body.contains(&suggestion),
        "{lost:?}"
    );
    // A user's address is no service.
    let document = services(&service(&format!("sip:bob@{DOMAIN}"), "sip:x@h"));
    let loser = if answers[0].status == 201 { "bob" } else { "alice" };
    assert_eq!(
        conflict(&Client::of(&server, loser).put(&home("rls-services", loser, "index"), SERVICES, &document)),
        "uniqueness-failure"
    );
    // Given up, it is free again.
    let winner = if loser == "bob" { "alice" } else { "bob" };
    assert_eq!(Client::of(&server, winner).delete(&home("rls-services", winner, "index")).status, 200);
    assert_eq!(claim(loser).status, 201);
}

#[test]
fn no_acknowledged_change_is_lost_with_the_server() {
    let mut server = setup(&["alice"]).start();
    let index = home("resource-lists", "alice", "index");
    let list = format!("{index}/~~/resource-lists/list");
    assert_eq!(Client::of(&server, "alice").put(&index, LISTS, &lists("<list/>")).status, 201);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let alice = Client::of(&server, "alice");
        for n in 0..10 {
            let uri = format!("sip:{round}-{n}@h");
            let answer =
                alice.put(&format!("{list}/entry%5b@uri=%22{uri}%22%5d"), ELEMENT, &format!("<entry uri=\"{uri}\"/>"));
            assert_eq!(answer.status, 201);
            acknowledged.push(uri);
        }
        // kill -9, with the last answer just out.
        server.restart();
        let kept = Client::of(&server, "alice").get(&index).body;
        assert!(acknowledged.iter().all(|uri| kept.contains(uri)), "{kept}");
    }
}

#[test]
fn a_rule_that_changes_is_felt_at_once() {
    let server = setup(&["alice", "bob"]).start();
    let alice = Client::of(&server, "alice");
    let rule = |handling: &str| {
        format!(
            "<cr:rule xmlns:cr=\"urn:ietf:params:xml:ns:common-policy\" id=\"bob\"><cr:conditions><cr:identity><cr:one id=\"sip:bob@{DOMAIN}\"/></cr:identity></cr:conditions>\
             <cr:actions><pr:sub-handling xmlns:pr=\"urn:ietf:params:xml:ns:pres-rules\">{handling}</pr:sub-handling></cr:actions>\
             <cr:transformations><pr:provide-services xmlns:pr=\"urn:ietf:params:xml:ns:pres-rules\"><pr:all-services/></pr:provide-services></cr:transformations></cr:rule>"
        )
    };
    let index = home("pres-rules", "alice", "index");
    let ruleset = |rules: &str| format!("<ruleset xmlns=\"urn:ietf:params:xml:ns:common-policy\">{rules}</ruleset>");
    assert_eq!(alice.put(&index, RULES, &ruleset(&rule("confirm"))).status, 201);
    let bob = watching(&server, "watch", "bob", "alice").start();
    let state = |m: &str| header(m, "Subscription-State").unwrap_or_default().to_owned();
    hears(&bob, "to wait", |m| state(m).starts_with("pending"));
    // What she writes down once and for all is published (RFC 4827).
    let pidf = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:alice@isthmus.test\">\
        <tuple id=\"x8eg92n\"><status><basic>open</basic></status><contact priority=\"1.0\">mailto:alice@isthmus.test</contact></tuple></presence>";
    let own = home("pidf-manipulation", "alice", "index");
    assert_eq!(alice.put(&own, PIDF, pidf).status, 201);
    // One element of the rules.
    let at = format!("{index}/~~/c:ruleset/c:rule%5b@id=%22bob%22%5d");
    let query = "?xmlns(c=urn:ietf:params:xml:ns:common-policy)xmlns(pr=urn:ietf:params:xml:ns:pres-rules)";
    let handling = format!("{at}/c:actions/pr:sub-handling{query}");
    let allow = "<pr:sub-handling xmlns:pr=\"urn:ietf:params:xml:ns:pres-rules\">allow</pr:sub-handling>";
    assert_eq!(alice.put(&handling, ELEMENT, allow).status, 200);
    hears(&bob, "what she wrote", |m| state(m).starts_with("active") && m.contains("mailto:alice@isthmus.test"));
    let note = format!("{own}/~~/presence/tuple%5b@id='x8eg92n'%5d/note");
    assert_eq!(alice.put(&note, ELEMENT, "<note>I read mails on Tuesdays</note>").status, 201);
    let basic = format!("{own}/~~/presence/tuple%5b@id='x8eg92n'%5d/status/basic");
    assert_eq!(alice.put(&basic, ELEMENT, "<basic>closed</basic>").status, 200);
    hears(&bob, "that it has changed", |m| m.contains("<basic>closed</basic>") && m.contains("mailto:"));
    assert_eq!(alice.delete(&own).status, 200);
    hears(&bob, "that it is gone", |m| !m.contains("mailto:"));
    // And out.
    assert_eq!(alice.put(&handling, ELEMENT, &allow.replace("allow", "block")).status, 200);
    let out = bob.succeed(1);
    let ended = out.received().into_iter().rfind(|m| m.starts_with("NOTIFY")).unwrap().to_owned();
    assert!(state(&ended).starts_with("terminated;reason=rejected"), "{ended}");
    watching(&server, "watch_refused", "bob", "alice").set("CODE", 403).succeed();
}

#[test]
fn a_list_that_grows_is_watched_at_once() {
    let server = setup(&["alice", "bob", "carol"]).start();
    let alice = Client::of(&server, "alice");
    let (lists_of_alice, services_of_alice) =
        (home("resource-lists", "alice", "index"), home("rls-services", "alice", "index"));
    let uri = format!("sip:friends@{DOMAIN}");
    assert_eq!(
        alice
            .put(
                &lists_of_alice,
                LISTS,
                &lists(&format!(
                    "<list name=\"other\"/><list name=\"friends\"><entry uri=\"sip:bob@{DOMAIN}\"/></list>"
                ))
            )
            .status,
        201
    );
    let reference = |root: &str, user: &str| {
        services(&format!(
            "<service uri=\"{uri}\"><resource-list>{root}resource-lists/users/sip:{user}@{DOMAIN}/index/~~/resource-lists/list%5b2%5d</resource-list></service>"
        ))
    };
    assert_eq!(
        conflict(&alice.put(&services_of_alice, SERVICES, &reference(&alice.root, "bob"))),
        "constraint-failure"
    );
    assert_eq!(alice.put(&services_of_alice, SERVICES, &reference(&alice.root, "alice")).status, 201);
    let watching = watching(&server, "watch", "alice", "friends")
        .set("EVENT", "presence\nSupported: eventlist")
        .set("ACCEPT", format!("{PIDF}, application/rlmi+xml, multipart/related"));
    let watching = watching.start();
    let about = |user: &str| format!("<resource uri=\"sip:{user}@{DOMAIN}\"");
    hears(&watching, "of bob", |m| m.contains(&about("bob")) && !m.contains(&about("carol")));
    let entry = format!(
        "{lists_of_alice}/~~/resource-lists/list%5b@name=%22friends%22%5d/entry%5b@uri=%22sip:carol@{DOMAIN}%22%5d"
    );
    assert_eq!(alice.put(&entry, ELEMENT, &format!("<entry uri=\"sip:carol@{DOMAIN}\"/>")).status, 201);
    hears(&watching, "of carol", |m| m.contains(&about("carol")));
    assert_eq!(alice.delete(&entry).status, 200);
    hears(&watching, "of bob alone", |m| m.contains(&about("bob")) && !m.contains(&about("carol")));
    // An entry that stands for another one, in another document; one that is another's, and one that leads to itself, are none.
    let refer = |user: &str, entry: &str| {
        format!("<entry-ref ref=\"resource-lists/users/sip:{user}@{DOMAIN}/other/~~/resource-lists/list/{entry}\"/>")
    };
    let itself = format!("<entry uri=\"sip:carol@{DOMAIN}\"/>{}", refer("alice", "entry-ref%5b1%5d"));
    let other = home("resource-lists", "alice", "other");
    assert_eq!(alice.put(&other, LISTS, &lists(&format!("<list>{itself}</list>"))).status, 201);
    let referring = format!(
        "<list name=\"other\"/><list name=\"friends\">{}{}{}</list>",
        refer("alice", "entry%5b1%5d"),
        refer("alice", "entry-ref%5b1%5d"),
        refer("bob", "entry%5b1%5d")
    );
    assert_eq!(alice.put(&lists_of_alice, LISTS, &lists(&referring)).status, 200);
    hears(&watching, "of carol alone", |m| m.matches("<resource ").count() == 1 && m.contains(&about("carol")));
    // A list by reference: hers in another document, and nobody else's.
    let external = |root: &str, user: &str| {
        format!("<external anchor=\"{root}resource-lists/users/sip:{user}@{DOMAIN}/other/~~/resource-lists/list\"/>")
    };
    let inside = format!("<list><entry uri=\"sip:bob@{DOMAIN}\"/></list>");
    assert_eq!(alice.put(&other, LISTS, &lists(&inside)).status, 200);
    let own = external(&alice.root, "alice") + &external("http://192.0.2.1/xcap-root/", "alice");
    let referring =
        format!("<list name=\"other\"/><list name=\"friends\">{own}{}</list>", external(&alice.root, "bob"));
    assert_eq!(alice.put(&lists_of_alice, LISTS, &lists(&referring)).status, 200);
    hears(&watching, "of bob alone", |m| m.matches("<resource ").count() == 1 && m.contains(&about("bob")));
}

/// As python3-sipsimple makes them, which is in Blink: every URI percent-encoded from its first colon on.
#[test]
fn lists_with_uris_that_are_encoded_whole_are_watched() {
    let server = setup(&["alice", "bob"]).start();
    let alice = Client::of(&server, "alice");
    let quote = |uri: &str| -> String {
        let kept = |b: u8| b.is_ascii_alphanumeric() || b"_.-~/".contains(&b);
        uri.bytes().map(|b| if kept(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    };
    let at = |list: &str| {
        let document = home("resource-lists", "alice", "index");
        quote(&format!("{}{document}/~~/resource-lists/list[@name=\"{list}\"]", alice.root))
    };
    let named =
        "xmlns:rl=\"urn:ietf:params:xml:ns:resource-lists\" xmlns:addressbook=\"urn:ag-projects:xml:ns:addressbook\"";
    let bob = quote(&format!("sip:bob@{DOMAIN}"));
    let book = format!(
        "<rl:resource-lists {named}><rl:list name=\"oma_buddylist\"/><rl:list name=\"oma_grantedcontacts\"><rl:entry uri=\"{bob}\"/></rl:list>\
         <rl:list name=\"oma_allcontacts\"><rl:external anchor=\"{}\"/><rl:external anchor=\"{}\"/></rl:list>\
         <rl:list name=\"sipsimple_addressbook\"><addressbook:contact id=\"c1\"><addressbook:name>Bob</addressbook:name></addressbook:contact>\
         </rl:list></rl:resource-lists>",
        at("oma_buddylist"),
        at("oma_grantedcontacts")
    );
    assert_eq!(alice.put_if(&home("resource-lists", "alice", "index"), LISTS, &book, "If-None-Match: *").status, 201);
    let watched = quote(&format!("sip:alice+presence@{DOMAIN}"));
    let service = format!(
        "<service uri=\"{watched}\"><resource-list>{}</resource-list><packages><package>presence</package></packages></service>",
        at("oma_allcontacts")
    );
    assert_eq!(alice.put(&home("rls-services", "alice", "index"), SERVICES, &services(&service)).status, 201);
    let watching = watching(&server, "watch", "alice", "alice+presence")
        .set("EVENT", "presence\nSupported: eventlist")
        .set("ACCEPT", format!("{PIDF}, application/rlmi+xml, multipart/related"));
    hears(&watching.start(), "of bob", |m| m.contains(&format!("<resource uri=\"sip:bob@{DOMAIN}\"")));
}

#[test]
fn documents_of_a_user_who_is_removed_go_and_the_services_are_free_again() {
    let mut server = setup(&["alice", "bob", "carol"]).start();
    let uri = format!("sip:team@{DOMAIN}");
    let claim = |server: &Server, user: &str| {
        let document = services(&service(&uri, &format!("sip:bob@{DOMAIN}")));
        Client::of(server, user).put(&home("rls-services", user, "index"), SERVICES, &document).status
    };
    let claims = |user: &str| claim(&server, user);
    let index = home("resource-lists", "alice", "index");
    assert_eq!(Client::of(&server, "alice").put(&index, LISTS, &lists("")).status, 201);
    assert_eq!((claims("alice"), claims("bob")), (201, 409));
    server.command(&["user", "remove", "alice", "--config", "isthmus.toml"]);
    eventually("what was hers is free", Duration::from_secs(30), || claims("bob") == 201);
    server.command(&["user", "add", "alice", "--password", PASSWORD, "--config", "isthmus.toml"]);
    let again = Client::of(&server, "alice");
    // Until she is known, each request is a guess, of which there may be too many.
    eventually("another of her name gets in", Duration::from_secs(60), || again.get(&index).status == 404);
    assert_eq!(claims("alice"), 409);
    // And when no server runs.
    server.process.kill();
    server.command(&["user", "remove", "bob", "--config", "isthmus.toml"]);
    server.restart();
    eventually("what was his is free", Duration::from_secs(30), || claim(&server, "carol") == 201);
}
