//! Lists that come in the SUBSCRIBE to them (RFC 5367): SIPp as a watcher whose fields are looked at, and Linphone, whose friends
//! are such a list.

#[path = "harness/cluster.rs"]
#[allow(dead_code)] // Shared: other tests use the rest of it.
mod cluster;
mod harness;
#[path = "harness/nats.rs"]
#[allow(dead_code)]
mod nats;
#[path = "harness/postgres.rs"]
#[allow(dead_code)]
mod postgres;

use std::time::Duration;

use harness::presence::{
    EVERYTHING, SOON, about_list, basic, document, hears, notifies, resource, rule, rules, state, store,
};
use harness::xcap::{Client, SERVICES, home};
use harness::{DOMAIN, Linphone, Server, Setup, Sipp, eventually, header};

const PIDF: &str = "application/pidf+xml";
const READS: &str =
    "presence\nSupported: eventlist\nRequire: recipient-list-subscribe\nContent-Disposition: recipient-list";

fn setup(users: &[&str]) -> Setup {
    let mut setup = Setup::with_users(users);
    setup.sections = "[presence]\nnotify_interval = 0\nmin_expires = 2\n".into();
    setup
}

fn publishes(server: &Server, user: &str, id: &str) {
    let sipp = Sipp::new(server, "publish", server.ports.next()).set("USER", user).set("CODE", 200);
    let sipp = sipp.set("LINES", format!("Event: presence\nContent-Type: {PIDF}"));
    sipp.set("BODY", document(user, id, "open", "")).users(&[user]).succeed();
}

fn entries(entries: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n\
         <resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list>{entries}</list></resource-lists>"
    )
}

fn list(members: &[&str]) -> String {
    entries(&members.iter().map(|m| format!("<entry uri=\"sip:{m}@{DOMAIN}\"/>")).collect::<String>())
}

fn watching(server: &Server, scenario: &'static str, body: &str) -> Sipp {
    let sipp = Sipp::new(server, scenario, server.ports.next()).set("USER", "rls").users(&["alice"]);
    let sipp = sipp.set("EVENT", READS).set("ACCEPT", format!("{PIDF}, application/rlmi+xml, multipart/related"));
    let sipp = sipp.set("TYPE", "application/resource-lists+xml").set("BODY", body);
    sipp.limit(Duration::from_secs(120))
}

fn refused(server: &Server, code: u16, body: &str, change: impl FnOnce(Sipp) -> Sipp) -> String {
    let seen = change(watching(server, "watch_with_refused", body).set("CODE", code)).succeed();
    seen.received().last().copied().unwrap().to_owned()
}

#[test]
fn list_in_its_subscribe_is_told_whole_and_then_what_changes() {
    let mut server = setup(&["alice", "bob", "carol", "dave"]).start();
    store(&server, "dave", "pres-rules", "<ruleset xmlns=\"urn:ietf:params:xml:ns:common-policy\"/>");
    publishes(&server, "bob", "bobs");
    let friends = entries(&format!(
        "<entry uri=\"sip:bob@{DOMAIN}\"><display-name>Bob &amp; Co</display-name></entry><list>\
         <entry uri=\"sip:b%6fb@{DOMAIN}\"/><entry uri=\"sip:carol@{DOMAIN}\"/></list>\
         <entry uri=\"sip:dave@{DOMAIN}\"/><entry-ref ref=\"resource-lists/users/x/index\"/>"
    ));
    let alice = watching(&server, "watch_with", &friends).start();
    let first = hears(&alice, "of all of them", |m| m.contains("fullState=\"true\""));
    about_list(&first, 0, true, 3);
    assert!(first.contains(&format!("uri=\"sip:rls@{DOMAIN}\" version=\"0\"")), "{first}");
    assert_eq!(basic(&first), ["open", "closed"], "{first}");
    assert!(resource(&first, "sip:bob@").contains("<name>Bob &amp; Co</name><instance id=\"1\" state=\"active\""));
    assert!(resource(&first, "sip:dave@").contains("state=\"terminated\" reason=\"rejected\""), "{first}");
    assert!(state(&first).starts_with("active;expires="), "{first}");

    publishes(&server, "carol", "carols");
    let next = hears(&alice, "of carol", |m| m.contains("carols"));
    about_list(&next, 1, false, 1);
    assert!(!next.contains("bobs"), "{next}");

    // Of two lists that one watcher brings each is told its own.
    let other = watching(&server, "watch_with", &list(&["carol"])).start();
    let told = hears(&other, "of carol only", |m| m.contains("carols"));
    assert!(told.matches("<resource uri=").count() == 1, "{told}");
    let heard = notifies(&alice).len();

    // It is with its subscription in the store.
    server.restart();
    let again = hears(&alice, "all of it again", |m| {
        m.contains("fullState=\"true\"") && m.contains("bobs") && m.contains("carols")
    });
    assert!(notifies(&alice).len() > heard && again.contains("<name>Bob &amp; Co</name>"), "{again}");
    assert_eq!(server.metric("isthmus_presence_subscriptions"), 2.0);
    publishes(&server, "bob", "second");
    let next = hears(&alice, "of bob", |m| m.contains("second"));
    assert!(next.contains("fullState=\"false\""), "{next}");
}

#[test]
fn list_comes_once_and_its_subscription_is_refreshed_without() {
    let server = setup(&["alice", "bob"]).start();
    let seen = watching(&server, "list_refreshed", &list(&["bob"])).succeed();
    let answer = |status: &str| seen.received().into_iter().find(|m| m.starts_with(status)).unwrap_or_default();
    assert_eq!(header(answer("SIP/2.0 415"), "Accept"), Some("application/simple-filter+xml"));
    assert_eq!(header(answer("SIP/2.0 200"), "Require"), Some("eventlist"));
    eventually("nothing is left", SOON, || server.metric("isthmus_presence_subscriptions") == 0.0);
    let asked = Sipp::new(&server, "ask", server.ports.next()).set("METHOD", "OPTIONS").set("USER", "rls");
    let asked = asked.set("LINES", "Accept: */*").set("CODE", 200).users(&["alice"]).succeed();
    let answer = asked.received().last().copied().unwrap();
    assert_eq!(header(answer, "Supported"), Some("eventlist, recipient-list-subscribe"), "{answer}");
}

#[test]
fn list_and_filters_come_together() {
    let server = setup(&["alice", "bob"]).start();
    publishes(&server, "bob", "bobs");
    let filters = "<?xml version=\"1.0\"?><filter-set xmlns=\"urn:ietf:params:xml:ns:simple-filter\"><ns-bindings>\
        <ns-binding prefix=\"p\" urn=\"urn:ietf:params:xml:ns:pidf\"/></ns-bindings><filter id=\"1\"><what>\
        <include>/p:presence/p:tuple/p:status/p:basic</include></what></filter></filter-set>";
    let body = format!(
        "--b\r\nContent-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list\r\n\r\n{}\r\n\
         --b\r\nContent-Type: application/simple-filter+xml\r\n\r\n{filters}\r\n--b--\r\n",
        list(&["bob"])
    );
    let alice = watching(&server, "watch_with", &body).set("TYPE", "multipart/mixed;boundary=b");
    let alice = alice.set("EVENT", READS.replace("\nContent-Disposition: recipient-list", "")).start();
    let first = hears(&alice, "of bob", |m| basic(m) == ["open"]);
    assert!(!first.contains("<contact"), "{first}");
}

#[test]
fn what_is_no_list_is_refused() {
    let mut setup = setup(&["alice", "bob"]);
    setup.sections.push_str("subscriptions = 2\n");
    let server = setup.start();
    let good = list(&["bob"]);
    let same = |sipp: Sipp| sipp;
    for bad in [
        "",
        "no list",
        "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\">",
        "<x/>",
        &good.replace("<resource-lists", "<!DOCTYPE resource-lists SYSTEM \"http://127.0.0.1/x\"><resource-lists"),
        &entries(&("<list>".repeat(20) + &"</list>".repeat(20))),
    ] {
        let answer = refused(&server, 400, bad, same);
        assert!(!answer.starts_with("SIP/2.0 400 Bad Request"), "it says why: {answer}");
    }
    let crowd: String = (0..1001).map(|n| format!("<entry uri=\"sip:{n}@h\"/>")).collect();
    refused(&server, 413, &entries(&crowd), same);
    // More members than may be watched.
    let answer = refused(&server, 503, &list(&["a", "b", "c"]), same);
    assert!(header(&answer, "Retry-After").is_some(), "{answer}");
    // RFC 5363 §5: of a stranger nobody knows who it is.
    let stranger = Sipp::new(&server, "stranger_watches", server.ports.next()).set("USER", "rls").set("CODE", 403);
    stranger.set("EVENT", READS).set("TYPE", "application/resource-lists+xml").set("BODY", &good).succeed();
    // Nobody takes the address for a list of one's own.
    let services = format!(
        "<rls-services xmlns=\"urn:ietf:params:xml:ns:rls-services\"><service uri=\"sip:rls@{DOMAIN}\"><list/>\
         <packages><package>presence</package></packages></service></rls-services>"
    );
    let answer = Client::of(&server, "alice").put(&home("rls-services", "alice", "index"), SERVICES, &services);
    assert!(answer.status == 409 && answer.body.contains("uniqueness-failure"), "{answer:?}");
    // A user is no list.
    let answer = refused(&server, 415, &good, |sipp| sipp.set("USER", "bob"));
    assert_eq!(header(&answer, "Accept"), Some("application/simple-filter+xml"));
    assert_eq!(server.metric("isthmus_presence_subscriptions"), 0.0);
}

#[test]
fn what_no_list_may_come_in_or_with_is_refused() {
    let server = setup(&["alice", "bob"]).start();
    let good = list(&["bob"]);
    let event = |event: String| move |sipp: Sipp| sipp.set("EVENT", event);
    let both = "application/resource-lists+xml, application/simple-filter+xml";
    let answer = refused(&server, 415, &good, |sipp| sipp.set("TYPE", "text/plain"));
    assert_eq!(header(&answer, "Accept"), Some(both));
    let answer = refused(&server, 415, &good, event(format!("{READS}\nContent-Encoding: gzip")));
    assert_eq!(header(&answer, "Accept-Encoding"), Some("deflate"));
    refused(&server, 400, &good, event(format!("{READS}\nContent-Encoding: deflate")));
    let answer = refused(&server, 421, &good, event(READS.replace("Supported: eventlist\n", "")));
    assert_eq!(header(&answer, "Require"), Some("eventlist"));
    let answer = refused(&server, 420, &good, event(format!("{READS}\nRequire: foo")));
    assert_eq!(header(&answer, "Unsupported"), Some("foo"));
}

#[test]
fn list_goes_with_its_subscription_to_another_node() {
    let cluster = cluster::Cluster::start(|| setup(&["alice", "bob"]));
    let (a, b) = (&cluster.a, &cluster.b);
    let sipp = watching(a, "watch_moves", &list(&["bob"])).set("OTHER", b.sip).set("NOTE", "moved");
    let alice = sipp.start();
    let watched = |server: &Server, n: f64| {
        eventually("it is there", SOON, || server.metric("isthmus_presence_subscriptions") == n)
    };
    watched(b, 1.0);
    watched(a, 0.0);
    publishes(a, "bob", "moved");
    let seen = alice.succeed(1);
    let told = seen.received().into_iter().find(|m| m.contains("\"moved\"")).unwrap();
    assert!(told.contains("fullState=\"false\"") && told.contains(&format!("sip:rls@{DOMAIN}")), "{told}");
    watched(b, 0.0);
}

#[test]
fn list_outlives_the_node_that_it_was_brought_to() {
    let mut cluster = cluster::Cluster::start(|| setup(&["alice", "bob", "carol"]));
    let watched = |server: &Server, n: f64| {
        // A node counts as dead after 20 s of silence.
        let there = || server.metric("isthmus_presence_subscriptions") == n;
        eventually(&format!("{n} subscriptions are there"), Duration::from_secs(90), there);
    };
    let alice = watching(&cluster.a, "watch_with", &list(&["bob", "carol"])).limit(Duration::from_secs(240)).start();
    // They have seen each other.
    publishes(&cluster.b, "bob", "bobs");
    hears(&alice, "what was published at the other node", |m| m.contains("bobs"));
    watched(&cluster.a, 1.0);
    cluster.a.process.kill();
    // All that is new is in one NOTIFY: SIPp answers it to the node that it knows.
    publishes(&cluster.b, "carol", "carols");
    watched(&cluster.b, 1.0);
    let told = hears(&alice, "what was published after that", |m| m.contains("carols"));
    assert!(header(&told, "Contact").is_some_and(|c| c.contains(&format!(":{}", cluster.b.sip))), "{told}");
    assert!(told.contains(&format!("uri=\"sip:rls@{DOMAIN}\"")) && told.contains("fullState=\"true\""), "{told}");
    assert_eq!(basic(&told), ["open", "open"], "{told}");
    // It comes back, and the list stays where it is.
    cluster.a.restart();
    watched(&cluster.a, 0.0);
    watched(&cluster.b, 1.0);
}

#[test]
fn linphone_sees_its_friends_by_one_subscription() {
    let mut server = setup(&["alice", "bob", "carol"]).start();
    let mut linphone = Linphone::with_friends(&server, "alice", &["bob", "carol"]);
    eventually("one subscription", SOON, || server.metric("isthmus_presence_subscriptions") == 1.0);
    linphone.wait_for("fullState=\"true\"");
    publishes(&server, "bob", "bobs");
    linphone.sees("bob", "Online");
    linphone.sees("carol", "Offline");
    publishes(&server, "carol", "carols");
    linphone.sees("carol", "Online");
    // It refreshes by itself, and after the server was killed too.
    server.restart();
    publishes(&server, "bob", "more");
    linphone.wait_for("\"more\"");
}

#[test]
fn rules_decide_what_linphone_sees() {
    let server = setup(&["alice", "bob", "carol"]).start();
    publishes(&server, "bob", "bobs");
    publishes(&server, "carol", "carols");
    rules(&server, "bob", &rule("alice", "polite-block", ""));
    let mut linphone = Linphone::with_friends(&server, "alice", &["bob", "carol"]);
    linphone.sees("carol", "Online");
    linphone.sees("bob", "Offline");
    rules(&server, "bob", &rule("alice", "allow", EVERYTHING));
    linphone.sees("bob", "Online");
}
