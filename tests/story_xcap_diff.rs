//! Changes of documents told over SIP (RFC 5875), and filters of what is told (RFC 4660): SIPp as subscriber, curl as the one who
//! changes, xmllint as the judge of what is told, g8-xml-patch as the one who applies patches.

mod harness;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::presence::{self, SOON, notifies};
use harness::sipp::Running;
use harness::xcap::{Client, ELEMENT, LISTS, PIDF, home};
use harness::{DOMAIN, Server, Setup, Sipp, eventually, header};
use serde_json::{Value, json};

const DIFF: &str = "application/xcap-diff+xml";

fn setup(users: &[&str]) -> Setup {
    let mut setup = Setup::with_users(users);
    setup.sections = "[presence]\nnotify_interval = 0\nmin_expires = 2\n[xcap]\nrate = 1000\n".into();
    setup
}

fn lists(inner: &str) -> String {
    format!("<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\">{inner}</resource-lists>")
}

/// A subscriber that sends a body.
fn subscribing(
    server: &Server,
    scenario: &'static str,
    who: &str,
    to: &str,
    [event, accept, kind]: [&str; 3],
    body: &str,
) -> Sipp {
    let sipp = Sipp::new(server, scenario, server.ports.next()).set("USER", to).users(&[who]);
    let sipp = sipp.set("EVENT", event).set("ACCEPT", accept).set("TYPE", kind).set("BODY", body);
    sipp.limit(Duration::from_secs(120))
}

fn watching(server: &Server, who: &str, mode: &str, uris: &[&str]) -> Running {
    let entries: String = uris.iter().map(|u| format!("<entry uri=\"{u}\"/>")).collect();
    let body = lists(&format!("<list>{entries}</list>"));
    let event = format!("xcap-diff;diff-processing={mode}");
    subscribing(server, "watch_with", who, who, [&event, DIFF, LISTS], &body).start()
}

fn filtered(server: &Server, who: &str, to: &str, filter: &str) -> Sipp {
    let body = format!(
        "<filter-set xmlns=\"urn:ietf:params:xml:ns:simple-filter\"><ns-bindings><ns-binding prefix=\"p\" urn=\"urn:ietf:params:xml:ns:pidf\"/></ns-bindings>{filter}</filter-set>"
    );
    subscribing(server, "watch_with", who, to, ["presence", PIDF, "application/simple-filter+xml"], &body)
}

/// Waits until the last NOTIFY is one like that, and gives its body.
fn hears(running: &Running, what: &str, like: impl Fn(&str) -> bool) -> String {
    body_of(&presence::hears(running, what, like))
}

fn body_of(message: &str) -> String {
    message.split_once("\r\n\r\n").map(|(_, body)| body.trim_end().to_owned()).unwrap_or_default()
}

fn well_formed(document: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("document.xml");
    std::fs::write(&file, document).unwrap();
    let done = Command::new("xmllint").args(["--noout", "--nonet"]).arg(&file).output().expect("xmllint runs");
    assert!(done.status.success() && done.stderr.is_empty(), "{}\n{document}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn changes_are_told_to_who_may_read() {
    let server = setup(&["alice", "bob"]).start();
    let alice = Client::of(&server, "alice");
    let index = home("resource-lists", "alice", "index");
    let made = alice.put(&index, LISTS, &lists("<list name=\"friends\"/>"));
    let tag = |etag: &Option<String>| etag.clone().unwrap().replace('"', "");
    let node = format!("{index}/~~/resource-lists/list/entry%5b@uri='sip:bob@{DOMAIN}'%5d");
    let name = format!("{index}/~~/resource-lists/list/@name");
    let rules = home("pres-rules", "alice", "");
    let watcher = watching(&server, "alice", "no-patching", &[&index, &node, &name, &rules, "pidf-manipulation/"]);
    let first = hears(&watcher, "what there is", |m| m.contains("xcap-diff"));
    well_formed(&first);
    assert!(first.contains(&format!("xcap-root=\"{}\"", alice.root)), "{first}");
    assert!(first.contains(&format!("sel=\"{index}\" new-etag=\"{}\"/>", tag(&made.etag))), "{first}");
    assert!(first.contains(&format!("sel=\"{name}\">friends</")), "{first}");
    assert!(!first.contains("previous-etag") && !first.contains("entry"), "what is not there is waited for: {first}");
    assert_eq!(header(&notifies(&watcher)[0], "Content-Type"), Some(DIFF));

    let entry = format!("<entry uri=\"sip:bob@{DOMAIN}\"><display-name>Bob</display-name></entry>");
    let added = alice.put(&node.replace('\'', "%22"), ELEMENT, &entry);
    assert_eq!(added.status, 201);
    let heard = hears(&watcher, "that bob is there", |m| m.contains("Bob</display-name>"));
    well_formed(&heard);
    let both = format!("sel=\"{index}\" new-etag=\"{}\" previous-etag=\"{}\"", tag(&added.etag), tag(&made.etag));
    assert!(heard.contains(&both) && heard.contains(&entry), "{heard}");
    assert!(
        heard.contains("xmlns=\"urn:ietf:params:xml:ns:resource-lists\">") && !heard.contains("friends"),
        "{heard}"
    );

    // A directory: what is made in it, and what is gone.
    let ruleset = "<ruleset xmlns=\"urn:ietf:params:xml:ns:common-policy\"/>";
    assert_eq!(alice.put(&format!("{rules}index"), harness::xcap::RULES, ruleset).status, 201);
    hears(&watcher, "of new rules", |m| m.contains(&format!("sel=\"{rules}index\" new-etag=")));
    assert_eq!(alice.delete(&format!("{rules}index")).status, 200);
    let gone = hears(&watcher, "of no rules", |m| m.contains(&format!("sel=\"{rules}index\" previous-etag=")));
    assert!(!gone.contains("new-etag"), "{gone}");

    // Of another's she hears nothing, whatever she asks for; and a stranger's list is none.
    let heard = notifies(&watcher).len();
    let others = Client::of(&server, "bob");
    assert_eq!(others.put(&home("resource-lists", "bob", "index"), LISTS, &lists("")).status, 201);
    let spy = watching(&server, "bob", "aggregate", &[&index, &home("resource-lists", "bob", "index")]);
    let all = hears(&spy, "his own", |m| m.contains("xcap-diff"));
    assert!(!all.contains("alice") && all.contains(&format!("sip:bob@{DOMAIN}/index")), "{all}");
    assert_eq!(alice.delete(&index).status, 200);
    let last = hears(&watcher, "that all is gone", |m| m.contains(&format!("sel=\"{index}\" previous-etag=")));
    assert!(
        last.contains(&format!("sel=\"{node}\" exists=\"false\"/>"))
            && last.contains(&format!("sel=\"{name}\" exists=\"false\"/>")),
        "{last}"
    );
    assert_eq!((notifies(&watcher).len(), notifies(&spy).len()), (heard + 1, 1));
    assert_eq!(server.metric("isthmus_xcap_subscriptions"), 2.0);
    for (kind, body, code) in [("text/plain", "hello", 415), (LISTS, "<x/>", 400), (LISTS, "", 400)] {
        subscribing(&server, "watch_with_refused", "alice", "alice", ["xcap-diff", DIFF, kind], body)
            .set("CODE", code)
            .succeed();
    }
    let list = lists("<list/>");
    subscribing(&server, "watch_with_refused", "alice", "alice", ["xcap-diff", "text/plain", LISTS], &list)
        .set("CODE", 406)
        .succeed();
}

/// What a client has of its copy when it has applied what it was told, and how many operations that were (tests/node/patch.js).
fn patched(sel: &str, copy: &harness::xcap::Answer, diffs: &[String], now: &harness::xcap::Answer) -> (String, u64) {
    let node = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    assert!(
        node.join("node_modules/g8-xml-patch").exists(),
        "tests/run (or npm install in tests/node) gets g8-xml-patch"
    );
    let mut child = Command::new("node");
    child.arg("patch.js").current_dir(node).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().expect("node runs");
    let input = json!({"document": copy.body, "etag": bare(copy), "sel": sel, "diffs": diffs, "current": now.body});
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{diffs:#?}");
    let result: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(result["same"], true, "{}\n{result}\n{diffs:#?}", now.body);
    (result["etag"].as_str().unwrap().to_owned(), result["applied"].as_u64().unwrap())
}

fn bare(answer: &harness::xcap::Answer) -> String {
    answer.etag.clone().unwrap_or_default().replace('"', "")
}

#[test]
fn a_copy_is_kept_by_patches_alone() {
    let server = setup(&["alice"]).start();
    let alice = Client::of(&server, "alice");
    let index = home("resource-lists", "alice", "index");
    let entry = |name: &str, inner: &str| format!("<entry uri=\"sip:{name}@{DOMAIN}\"{inner}");
    let (bob, carol) = (entry("bob", "><display-name>Bob &amp; Co</display-name></entry>"), entry("carol", "/>"));
    let first = lists(&format!("\n <list name=\"friends\">\n  {bob}\n  {carol}\n </list>\n <!-- and --><list/>\n"));
    assert_eq!(alice.put(&index, LISTS, &first).status, 201);
    let copy = alice.get(&index);
    let watchers = [("aggregate", "resource-lists/"), ("xcap-patching", &*index), ("no-patching", &*index)]
        .map(|(mode, uri)| watching(&server, "alice", mode, &[uri]));
    for watcher in &watchers {
        hears(watcher, "the first state", |m| m.contains(&bare(&copy)));
    }
    let node = |path: &str| format!("{index}/~~/resource-lists/{path}");
    let of = |name: &str| node(&format!("list%5b1%5d/entry%5b@uri=%22sip:{name}@{DOMAIN}%22%5d"));
    // Whole documents too: rearranged, said otherwise and back, and the same again.
    let turned =
        first.replace(&bob, &entry("dave", "/>")).replace("<list/>", &format!("<list name=\"x\">{bob}</list>"));
    let changes: Vec<Box<dyn Fn() -> u16>> = vec![
        Box::new(|| alice.put(&of("dave"), ELEMENT, &entry("dave", "/>")).status),
        Box::new(|| alice.put(&(of("bob") + "/display-name"), ELEMENT, "<display-name>B</display-name>").status),
        Box::new(|| alice.put(&node("list%5b1%5d/@name"), "application/xcap-att+xml", "\"&lt;all&gt;\"").status),
        Box::new(|| alice.delete(&of("carol")).status),
        Box::new(|| alice.put(&index, LISTS, &turned).status),
        Box::new(|| alice.put(&index, LISTS, &turned).status),
        Box::new(|| alice.delete(&node("list%5b2%5d/@name")).status),
        Box::new(|| alice.put(&index, LISTS, &first).status),
        Box::new(|| alice.delete(&node("list%5b@name=%22friends%22%5d")).status),
    ];
    let mut copies = [(); 2].map(|()| (alice.get(&index), 0));
    for change in &changes {
        let status = change();
        assert!(matches!(status, 200 | 201), "{status}");
        let now = alice.get(&index);
        for (watcher, (copy, heard)) in watchers.iter().zip(&mut copies) {
            hears(watcher, "of a change", |m| m.contains(&format!("new-etag=\"{}\"", bare(&now))));
            let all = notifies(watcher);
            let diffs: Vec<String> = all.iter().skip(1 + *heard).map(|m| body_of(m)).collect();
            diffs.iter().for_each(|diff| well_formed(diff));
            assert_eq!(patched(&index, copy, &diffs, &now).0, bare(&now));
            (*copy, *heard) = (alice.get(&index), all.len() - 1);
        }
        hears(&watchers[2], "of a change", |m| m.contains(&bare(&now)));
    }
    let [all, each, none] =
        watchers.map(|watcher| notifies(&watcher).iter().skip(1).map(|m| body_of(m)).collect::<Vec<_>>());
    assert_eq!((all.len(), each.len()), (changes.len(), changes.len()));
    let now = alice.get(&index);
    for (diffs, copy) in [(&all, &copy), (&each, &copy)] {
        let (etag, applied) = patched(&index, copy, diffs, &now);
        assert_eq!(etag, bare(&now));
        assert!(applied >= changes.len() as u64 - 1, "{applied} operations: {diffs:#?}");
    }
    assert!(all.iter().chain(&each).all(|d| d.contains(" sel=\"*") || d.contains("body-not-changed")));
    assert!(none.iter().all(|d| !d.contains(" sel=\"*") && !d.contains("body-not-changed")), "{none:#?}");
}

#[test]
fn each_change_is_told_by_itself_to_who_wants_that() {
    let mut setup = setup(&["alice"]);
    setup.sections = setup.sections.replace("notify_interval = 0", "notify_interval = 5");
    let server = setup.start();
    let alice = Client::of(&server, "alice");
    let index = home("resource-lists", "alice", "index");
    let copy = alice.put(&index, LISTS, &lists("<list name=\"a\"/>"));
    let copy = harness::xcap::Answer { body: lists("<list name=\"a\"/>"), ..copy };
    let [each, all] = ["xcap-patching", "aggregate"].map(|mode| watching(&server, "alice", mode, &[&index]));
    for watcher in [&each, &all] {
        hears(watcher, "the first state", |m| m.contains(&bare(&copy)));
    }
    // Within the time between two NOTIFYs.
    let name = format!("{index}/~~/resource-lists/list/@name");
    let tags: Vec<String> =
        ["b", "c", "d", "e"].map(|n| bare(&alice.put(&name, "application/xcap-att+xml", &format!("'{n}'")))).into();
    let now = alice.get(&index);
    let [each, all] = [each, all].map(|watcher| {
        hears(&watcher, "the last state", |m| m.contains(&format!("new-etag=\"{}\"", bare(&now))));
        notifies(&watcher).iter().skip(1).map(|m| body_of(m)).collect::<Vec<_>>()
    });
    let told = each.concat();
    let places: Vec<Option<usize>> = tags.iter().map(|tag| told.find(&format!("new-etag=\"{tag}\""))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{told}");
    assert_eq!(patched(&index, &copy, &each, &now), (bare(&now), 4), "{told}");
    // The first of them may have gone at once.
    assert!(patched(&index, &copy, &all, &now).1 < 4, "{all:#?}");
}

fn document(basic: &str, note: &str) -> String {
    format!(
        "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:alice@{DOMAIN}\"><tuple id=\"desk\"><status><basic>{basic}</basic></status>\
         <contact>sip:alice@desk</contact><note>{note}</note></tuple></presence>"
    )
}

#[test]
fn watchers_hear_what_their_filters_let_through() {
    let mut server = setup(&["alice", "bob", "carol"]).start();
    let alice = Client::of(&server, "alice");
    let own = home("pidf-manipulation", "alice", "index");
    let publish = |alice: &Client, basic: &str, note: &str| {
        assert!(matches!(alice.put(&own, PIDF, &document(basic, note)).status, 200 | 201));
    };
    publish(&alice, "closed", "one");
    let what = "<filter id=\"1\"><what><include>//p:status/p:basic</include></what></filter>";
    let bob = filtered(&server, "bob", "alice", what).start();
    let first = hears(&bob, "that she is not there", |m| m.contains("<basic>closed</basic>"));
    assert!(first.contains("<tuple id=\"desk\">") && !first.contains("note") && !first.contains("contact"), "{first}");
    // Only when she comes.
    let trigger = "<filter id=\"1\"><trigger><changed from=\"closed\" to=\"open\">/p:presence/p:tuple/p:status/p:basic</changed></trigger></filter>";
    let carol = filtered(&server, "carol", "alice", trigger).start();
    hears(&carol, "the first document, whatever triggers say", |m| m.contains("<note>one</note>"));
    publish(&alice, "closed", "two");
    publish(&alice, "open", "three");
    let heard = hears(&carol, "that she comes", |m| m.contains("<basic>open</basic>"));
    assert!(heard.contains("<note>three</note>"), "{heard}");
    hears(&bob, "that she comes", |m| m.contains("<basic>open</basic>"));
    publish(&alice, "closed", "four");
    hears(&bob, "that she goes", |m| m.contains("<basic>closed</basic>"));
    // A note is no news for one, and going none for the other.
    let told = |running: &Running| notifies(running).iter().filter(|m| m.contains("<presence")).count();
    assert_eq!((told(&bob), told(&carol)), (3, 2));

    // Kept across kill -9: the row has the filters.
    server.restart();
    let alice = Client::of(&server, "alice");
    eventually("both are told where they stand", SOON, || told(&bob) == 4 && told(&carol) == 3);
    publish(&alice, "open", "five");
    let after = hears(&bob, "that she comes", |m| m.contains("<basic>open</basic>"));
    assert!(!after.contains("note"), "{after}");

    // Nothing of it: an empty NOTIFY.
    let none = "<filter id=\"1\"><what><include>//p:nothing</include></what></filter>";
    let empty = filtered(&server, "carol", "alice", none).start();
    eventually("an empty NOTIFY", SOON, || {
        notifies(&empty).last().is_some_and(|m| header(m, "Content-Length") == Some("0"))
    });
    for (kind, body, code) in [
        ("application/simple-filter+xml", "<filter-set xmlns=\"urn:ietf:params:xml:ns:simple-filter\"/>", 488),
        ("application/simple-filter+xml", "no XML", 488),
        ("application/other+xml", "<x/>", 415),
    ] {
        let refused = subscribing(&server, "watch_with_refused", "bob", "alice", ["presence", PIDF, kind], body);
        let outcome = refused.set("CODE", code).succeed();
        let answer = outcome.received().pop().unwrap().to_owned();
        let said = if code == 488 {
            header(&answer, "Warning").is_some()
        } else {
            header(&answer, "Accept") == Some("application/simple-filter+xml")
        };
        assert!(said, "{answer}");
    }
}

#[test]
fn watchers_of_lists_and_of_watchers_hear_what_their_filters_let_through() {
    let mut server = setup(&["alice", "bob", "carol", "dave"]).start();
    let at = |server: &Server| ["alice", "bob", "carol"].map(|user| Client::of(server, user));
    let [alice, bob, carol] = at(&server);
    let state = |client: &Client, user: &str, basic: &str, note: &str| {
        let document = document(basic, note).replace("alice", user);
        assert!(matches!(client.put(&home("pidf-manipulation", user, "index"), PIDF, &document).status, 200 | 201));
    };
    state(&bob, "bob", "closed", "one");
    state(&carol, "carol", "closed", "one");
    let services = format!(
        "<rls-services xmlns=\"urn:ietf:params:xml:ns:rls-services\"><service uri=\"sip:friends@{DOMAIN}\"><list xmlns:rl=\"urn:ietf:params:xml:ns:resource-lists\">\
         <rl:entry uri=\"sip:bob@{DOMAIN}\"/><rl:entry uri=\"sip:carol@{DOMAIN}\"/></list></service></rls-services>"
    );
    assert_eq!(alice.put(&home("rls-services", "alice", "index"), harness::xcap::SERVICES, &services).status, 201);
    // Of all no contacts; of bob only whether he is there, and only when that changes.
    let filters = format!(
        "<filter id=\"all\"><what><exclude>//p:contact</exclude></what></filter>\
         <filter id=\"bob\" uri=\"sip:bob@{DOMAIN}\"><what><include>//p:status/p:basic</include></what>\
         <trigger><changed>/p:presence/p:tuple/p:status/p:basic</changed></trigger></filter>"
    );
    let accept = format!("{PIDF}, application/rlmi+xml, multipart/related");
    let list = filtered(&server, "alice", "friends", &filters);
    let list = list.set("EVENT", "presence\nSupported: eventlist").set("ACCEPT", accept).start();
    let part = |message: &str, user: &str| {
        let about = format!("entity=\"sip:{user}@{DOMAIN}\"");
        message.split("<presence").find(|p| p.contains(&about)).unwrap_or_default().to_owned()
    };
    let first = hears(&list, "of both", |m| m.contains("fullState=\"true\""));
    assert!(!first.contains("<contact") && part(&first, "carol").contains("<note>one</note>"), "{first}");
    assert!(part(&first, "bob").contains("<basic>closed") && !part(&first, "bob").contains("<note"), "{first}");
    state(&bob, "bob", "closed", "two");
    state(&carol, "carol", "closed", "two");
    let next = hears(&list, "of carol alone", |m| part(m, "carol").contains("<note>two</note>"));
    assert!(!next.contains(&format!("\"sip:bob@{DOMAIN}\"")), "a note of bob's is no news: {next}");
    state(&bob, "bob", "open", "three");
    let open = hears(&list, "that bob comes", |m| part(m, "bob").contains("<basic>open"));
    assert!(!open.contains("<note"), "{open}");
    // The row has them.
    server.restart();
    let again = hears(&list, "of both again", |m| m.contains("fullState=\"true\"") && m.contains("<basic>open"));
    assert!(!again.contains("<contact") && !part(&again, "bob").contains("<note"), "{again}");

    // Who watches her: those who wait for her word, and nobody else.
    let [alice, ..] = at(&server);
    let rules = "<ruleset xmlns=\"urn:ietf:params:xml:ns:common-policy\" xmlns:pr=\"urn:ietf:params:xml:ns:pres-rules\">".to_owned()
        + &[("bob", "allow"), ("carol", "confirm"), ("dave", "allow")].map(|(who, handling)| format!(
            "<rule id=\"{who}\"><conditions><identity><one id=\"sip:{who}@{DOMAIN}\"/></identity></conditions>\
             <actions><pr:sub-handling>{handling}</pr:sub-handling></actions></rule>"
        )).concat() + "</ruleset>";
    assert_eq!(alice.put(&home("pres-rules", "alice", "index"), harness::xcap::RULES, &rules).status, 201);
    let plain = |who: &str| {
        let sipp = Sipp::new(&server, "watch", server.ports.next()).set("USER", "alice").users(&[who]);
        sipp.set("EVENT", "presence").set("ACCEPT", PIDF).limit(Duration::from_secs(120)).start()
    };
    let _bob = plain("bob");
    eventually("bob watches", SOON, || server.metric("isthmus_presence_subscriptions") == 2.0);
    let pending = "<filter-set xmlns=\"urn:ietf:params:xml:ns:simple-filter\" package=\"presence.winfo\"><ns-bindings>\
        <ns-binding prefix=\"wi\" urn=\"urn:ietf:params:xml:ns:watcherinfo\"/></ns-bindings><filter id=\"1\"><what>\
        <include>/wi:watcherinfo/wi:watcher-list/wi:watcher&#91;@status=\"pending\"&#93;</include></what></filter></filter-set>";
    let kinds = ["presence.winfo", "application/watcherinfo+xml", "application/simple-filter+xml"];
    let winfo = subscribing(&server, "watch_with", "alice", "alice", kinds, pending).start();
    hears(&winfo, "of nobody", |m| header(m, "Content-Length") == Some("0"));
    let _carol = plain("carol");
    let heard = hears(&winfo, "of carol", |m| m.contains(&format!(">sip:carol@{DOMAIN}</watcher>")));
    assert!(heard.contains("status=\"pending\"") && !heard.contains("bob"), "{heard}");
    let _dave = plain("dave");
    eventually("dave watches", SOON, || server.metric("isthmus_presence_subscriptions") == 5.0);
    // Whom she lets in waits no longer.
    let settled = rules.replace("confirm", "allow");
    assert_eq!(alice.put(&home("pres-rules", "alice", "index"), harness::xcap::RULES, &settled).status, 200);
    hears(&winfo, "that nobody waits", |m| header(m, "Content-Length") == Some("0"));
    assert!(notifies(&winfo).iter().all(|m| !m.contains("sip:bob@") && !m.contains("sip:dave@")));
    let summary = ["message-summary", "application/simple-message-summary", "application/simple-filter+xml"];
    subscribing(&server, "watch_with_refused", "alice", "alice", summary, pending).set("CODE", 415).succeed();
}
