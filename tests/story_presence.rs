//! Who is there, and who may know: PUBLISH, SUBSCRIBE, NOTIFY, watcher information and rules, with SIPp as publisher and
//! watcher, across `kill -9`. The clients of its neighbour, `story_presence_clients`, are real.

mod harness;

use std::time::Duration;

use harness::presence::{
    EVERYTHING, SOON, about_list, basic, document, has_heard, hears, notifies, resource, rule, rules, state, store,
};
use harness::{DOMAIN, Ports, Server, Setup, Sipp, eventually, header};

const PIDF: &str = "application/pidf+xml";
const WINFO: &str = "application/watcherinfo+xml";

fn setup(users: &[&str]) -> Setup {
    let mut setup = Setup::with_users(users);
    setup.sections = "[presence]\nnotify_interval = 0\nmin_expires = 2\n".into();
    setup.registrar = "min_expires = 2\n".into();
    setup
}

struct Publish<'a> {
    server: &'a Server,
    /// None: any.
    port: Option<u16>,
    by: &'a str,
    user: &'a str,
    lines: Vec<String>,
}

impl<'a> Publish<'a> {
    fn of(server: &'a Server, user: &'a str) -> Self {
        let lines = vec!["Event: presence".to_owned(), format!("Content-Type: {PIDF}")];
        Self { server, port: None, by: user, user, lines }
    }

    fn from(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    fn by(mut self, user: &'a str) -> Self {
        self.by = user;
        self
    }

    fn line(mut self, line: &str) -> Self {
        self.lines.push(line.into());
        self
    }

    fn only(mut self, lines: &[&str]) -> Self {
        self.lines = lines.iter().map(|l| (*l).into()).collect();
        self
    }

    /// Its answer.
    fn answered(self, code: u16, body: &str) -> String {
        let ports = Ports::claim();
        let port = self.port.unwrap_or_else(|| ports.next());
        let sipp = Sipp::new(self.server, "publish", port).set("USER", self.user).set("CODE", code);
        let outcome = sipp.set("LINES", self.lines.join("\n")).set("BODY", body).users(&[self.by]).succeed();
        outcome.received().last().copied().expect("an answer").to_owned()
    }

    /// The entity tag it was given.
    fn tag(self, body: &str) -> String {
        let answer = self.answered(200, body);
        header(&answer, "SIP-ETag").expect("an entity tag").to_owned()
    }
}

fn watching(server: &Server, scenario: &'static str, watcher: &str, user: &str, winfo: bool) -> Sipp {
    let (event, accept) = if winfo { ("presence.winfo", WINFO) } else { ("presence", PIDF) };
    let sipp = Sipp::new(server, scenario, server.ports.next()).set("USER", user).users(&[watcher]);
    sipp.set("EVENT", event).set("ACCEPT", accept).limit(Duration::from_secs(120))
}

#[test]
fn publication_is_made_refreshed_changed_and_taken_back() {
    let server = setup(&["alice", "bob"]).start();
    let bob = watching(&server, "watch", "bob", "alice", false).start();
    let first = hears(&bob, "that nobody is there", |m| basic(m) == ["closed"]);
    assert!(state(&first).starts_with("active;expires="), "{first}");
    assert_eq!((header(&first, "Event"), header(&first, "Content-Type")), (Some("presence"), Some(PIDF)));

    let odd = "<x:mood xmlns:x='urn:x'  a = \"1\" >&lt;&#38;</x:mood><note xml:lang=\"de\">im B\u{fc}ro</note>";
    let answer =
        Publish::of(&server, "alice").line("Expires: 600").answered(200, &document("alice", "desk", "open", odd));
    assert_eq!(header(&answer, "Expires"), Some("600"));
    let tag = header(&answer, "SIP-ETag").unwrap().to_owned();
    let heard = hears(&bob, "that she is there", |m| basic(m) == ["open"]);
    assert!(
        heard.contains(&format!("<tuple id=\"desk\"><status><basic>open</basic></status>{odd}</tuple>")),
        "{heard}"
    );
    assert!(heard.contains(&format!("entity=\"sip:alice@{DOMAIN}\"")), "{heard}");

    // Refreshed: a new tag, and nobody is told what he knows.
    let told = notifies(&bob).len();
    let fresh = Publish::of(&server, "alice")
        .only(&["Event: presence", "Expires: 600"])
        .line(&format!("SIP-If-Match: {tag}"))
        .tag("");
    assert_ne!(fresh, tag);
    Publish::of(&server, "alice")
        .line(&format!("SIP-If-Match: {tag}"))
        .answered(412, &document("alice", "desk", "open", ""));
    let changed = Publish::of(&server, "alice")
        .line(&format!("SIP-If-Match: {fresh}"))
        .tag(&document("alice", "desk", "closed", ""));
    hears(&bob, "that she is busy", |m| basic(m) == ["closed"]);
    assert_eq!(notifies(&bob).len(), told + 1);

    // Another handset of hers.
    let second = Publish::of(&server, "alice").tag(&document("alice", "pocket", "open", ""));
    hears(&bob, "both", |m| basic(m) == ["closed", "open"]);
    for tag in [changed, second] {
        Publish::of(&server, "alice")
            .only(&["Event: presence", "Expires: 0"])
            .line(&format!("SIP-If-Match: {tag}"))
            .answered(200, "");
    }
    let last = hears(&bob, "that nothing is left", |m| basic(m) == ["closed"] && m.contains("nobody-there"));
    assert!(!last.contains("desk"), "{last}");
    assert_eq!(server.metric("isthmus_publications"), 0.0);
}

#[test]
fn publication_that_nobody_refreshes_ends_by_itself() {
    let server = setup(&["alice", "bob"]).start();
    let bob = watching(&server, "watch", "bob", "alice", false).start();
    Publish::of(&server, "alice").line("Expires: 2").answered(200, &document("alice", "t", "open", ""));
    has_heard(&bob, "that she is there", |m| basic(m) == ["open"]);
    hears(&bob, "that it has run out", |m| basic(m) == ["closed"]);
}

#[test]
fn bad_publications_are_refused_and_spoil_nothing() {
    let mut setup = setup(&["alice", "bob"]);
    setup.sections.push_str("max_document = \"4 KiB\"\n");
    let server = setup.start();
    Publish::of(&server, "alice").tag(&document("alice", "good", "open", ""));
    let publish = || Publish::of(&server, "alice");
    let good = document("alice", "t", "open", "");
    let dtd = good.replace("?>\r\n", "?>\r\n<!DOCTYPE presence SYSTEM \"http://127.0.0.1/x\">");
    let deep = format!("{}{}{}", "<a>".repeat(300), "", "</a>".repeat(300));
    for bad in [
        dtd.as_str(),
        "<presence",
        "no xml",
        &document("alice", "", "open", ""),
        &document("alice", "t", "open", &deep),
    ] {
        let answer = publish().answered(400, bad);
        assert!(!answer.starts_with("SIP/2.0 400 Bad Request"), "it says why: {answer}");
    }
    let answer = publish().only(&["Event: dialog", "Content-Type: application/dialog-info+xml"]).answered(489, "<x/>");
    assert!(header(&answer, "Allow-Events").is_some_and(|v| v.contains("presence")), "{answer}");
    let answer = publish().only(&["Event: presence", "Content-Type: text/plain"]).answered(415, "hello");
    assert_eq!(header(&answer, "Accept"), Some(PIDF));
    let answer = publish().line("Expires: 1").answered(423, &good);
    assert_eq!(header(&answer, "Min-Expires"), Some("2"));
    publish().line("SIP-If-Match: nonsense").answered(412, &good);
    publish().only(&["Event: presence", "SIP-If-Match: 0123456789abcdef"]).answered(412, "");
    publish().only(&["Event: presence"]).answered(400, "");
    publish().answered(413, &document("alice", "t", "open", &"<note>long</note>".repeat(400)));
    Publish::of(&server, "alice").by("bob").answered(403, &good);
    Publish::of(&server, "nobody").by("bob").answered(404, &document("nobody", "t", "open", ""));
    let bob = watching(&server, "watch", "bob", "alice", false).start();
    let heard = hears(&bob, "what was good", |m| basic(m) == ["open"]);
    assert!(heard.contains("good"), "{heard}");
    assert_eq!(server.metric("isthmus_publications"), 1.0);
}

#[test]
fn watcher_fetches_refreshes_and_leaves() {
    let server = setup(&["alice", "bob"]).start();
    Publish::of(&server, "alice").tag(&document("alice", "t", "open", ""));
    let seen = watching(&server, "watch_once", "bob", "alice", false).succeed();
    let all: Vec<&str> = seen.received().into_iter().filter(|m| m.starts_with("NOTIFY")).collect();
    assert!(state(all[0]).starts_with("active;expires=") && basic(all[0]) == ["open"], "{}", all[0]);
    assert!(state(all.last().unwrap()).starts_with("terminated;reason=timeout"), "{all:?}");
    // Once, without a subscription: the first NOTIFY is the last.
    let fetched = watching(&server, "watch", "bob", "alice", false).set("EXPIRES", 0).succeed();
    let all: Vec<&str> = fetched.received().into_iter().filter(|m| m.starts_with("NOTIFY")).collect();
    assert_eq!((all.len(), basic(all[0])), (1, vec!["open"]));
    eventually("nobody watches", SOON, || server.metric("isthmus_presence_subscriptions") == 0.0);
    let refused =
        watching(&server, "watch_refused", "bob", "alice", false).set("ACCEPT", "text/plain").set("CODE", 406);
    refused.succeed();
    watching(&server, "watch_refused", "bob", "alice", true).set("CODE", 403).succeed();
}

#[test]
fn user_decides_who_sees_what() {
    let server = setup(&["alice", "bob", "carol", "dave", "eve"]).start();
    rules(
        &server,
        "alice",
        &[
            rule("bob", "allow", EVERYTHING),
            rule("carol", "polite-block", ""),
            rule("dave", "confirm", ""),
            rule("eve", "block", ""),
        ]
        .concat(),
    );
    let more = "<contact>sip:alice@x</contact><note>secret</note>";
    Publish::of(&server, "alice").tag(&document("alice", "t", "open", more));
    let winfo = watching(&server, "watch", "alice", "alice", true).start();
    let first = hears(&winfo, "the first document", |m| m.contains("state=\"full\""));
    assert!(
        first.contains(&format!("<watcher-list resource=\"sip:alice@{DOMAIN}\" package=\"presence\"/>")),
        "{first}"
    );

    let [bob, carol, dave] = ["bob", "carol", "dave"].map(|w| watching(&server, "watch", w, "alice", false).start());
    watching(&server, "watch_refused", "eve", "alice", false).set("CODE", 403).succeed();
    assert!(hears(&bob, "everything", |m| basic(m) == ["open"]).contains("secret"));
    assert!(!hears(&carol, "nothing", |m| basic(m) == ["closed"]).contains("secret"));
    let pending = hears(&dave, "to wait", |m| state(m).starts_with("pending;"));
    assert!(!pending.contains("secret") && !pending.contains("<basic>open"), "{pending}");
    let about = |who: &str| format!(">sip:{who}@{DOMAIN}</watcher>");
    let told = || notifies(&winfo).concat();
    eventually("alice knows of three", SOON, || ["bob", "carol", "dave"].iter().all(|w| told().contains(&about(w))));
    let waiting = told();
    let entry = waiting.split("<watcher ").find(|e| e.contains(&about("dave"))).unwrap();
    assert!(entry.contains("status=\"pending\"") && entry.contains("event=\"subscribe\""), "{entry}");

    at_rest(&server, 3);
    // She lets dave see that she is there and no more, and bob nothing at all.
    let some = "<pr:provide-services><pr:all-services/></pr:provide-services>";
    rules(
        &server,
        "alice",
        &[rule("bob", "block", ""), rule("carol", "polite-block", ""), rule("dave", "allow", some)].concat(),
    );
    let allowed = hears(&dave, "that she is there", |m| state(m).starts_with("active;") && basic(m) == ["open"]);
    assert!(allowed.contains("<contact>sip:alice@x</contact>") && !allowed.contains("secret"), "{allowed}");
    let out = bob.succeed(1);
    let last = out.received().into_iter().rfind(|m| m.starts_with("NOTIFY")).unwrap();
    assert!(state(last).starts_with("terminated;reason=rejected") && !last.contains("<presence"), "{last}");
    eventually("alice knows that it was she", SOON, || {
        let told = told();
        let entries = |who: &str| {
            told.split("<watcher ").filter(|e| e.contains(&about(who))).map(str::to_owned).collect::<Vec<_>>()
        };
        entries("dave").iter().any(|e| e.contains("event=\"approved\"") && e.contains("status=\"active\""))
            && entries("bob").iter().any(|e| e.contains("event=\"rejected\"") && e.contains("status=\"terminated\""))
    });
    // The two that are left, and then one of them as much as before and the other nothing.
    at_rest(&server, 5);
    let told = notifies(&carol).len();
    Publish::of(&server, "alice").tag(&document("alice", "u", "open", more));
    let both = hears(&dave, "of both", |m| basic(m) == ["open", "open"]);
    assert!(state(&both).starts_with("active;") && !both.contains("secret"), "{both}");
    assert_eq!(notifies(&carol).len(), told);
    let again = watching(&server, "watch", "alice", "alice", true).start();
    let all = hears(&again, "everybody", |m| m.contains("state=\"full\""));
    assert!(all.contains(&about("carol")) && all.contains(&about("dave")) && !all.contains(&about("bob")), "{all}");
}

/// Waits until so many subscriptions have been packed since the start.
fn at_rest(server: &Server, packed: u32) {
    eventually(&format!("{packed} subscriptions are at rest"), SOON, || {
        let (_, text) = server.admin("/metrics");
        let found = text.lines().find_map(|l| l.strip_prefix("isthmus_presence_total{kind=\"packed\"} "));
        found.and_then(|n| n.parse::<f64>().ok()) >= Some(f64::from(packed))
    });
}

#[test]
fn watcher_asks_for_changes_alone() {
    let mut server = setup(&["alice", "bob"]).start();
    let long = format!("<contact>sip:alice@x</contact><note>{}</note>", "words ".repeat(60));
    Publish::of(&server, "alice").tag(&document("alice", "desk", "open", &long));
    let bob = watching(&server, "watch", "bob", "alice", false)
        .set("ACCEPT", format!("{PIDF}, application/pidf-diff+xml"))
        .start();
    let first = hears(&bob, "everything", |m| m.contains("<p:pidf-full"));
    assert_eq!(header(&first, "Content-Type"), Some("application/pidf-diff+xml"));
    assert!(first.contains("version=\"1\"") && first.contains("words words"), "{first}");
    let tag = Publish::of(&server, "alice").tag(&document("alice", "pocket", "open", ""));
    let added = hears(&bob, "what is new", |m| m.contains("<p:pidf-diff"));
    let expected = "version=\"2\"><p:add sel=\"*\" pos=\"prepend\"><tuple id=\"pocket\"><status><basic>open</basic></status></tuple></p:add></p:pidf-diff>";
    assert!(added.contains(expected) && !added.contains("words"), "{added}");
    Publish::of(&server, "alice").line(&format!("SIP-If-Match: {tag}")).tag(&document("alice", "pocket", "closed", ""));
    hears(&bob, "what changed", |m| m.contains("version=\"3\"><p:replace sel=\"*/tuple[@id='pocket']\"><tuple"));
    // After a restart nobody knows what he has: he gets everything, under a higher version.
    server.restart();
    hears(&bob, "everything again", |m| m.contains("<p:pidf-full") && m.contains("pocket"));
}

#[test]
fn one_subscription_watches_a_whole_list() {
    let mut setup = setup(&["alice", "bob", "carol", "dave"]);
    // Members of other domains are story_presence_abroad's.
    setup.sections.push_str("foreign_members = false\n");
    let mut server = setup.start();
    rules(&server, "dave", &rule("bob", "allow", EVERYTHING));
    let named = |names: &[&str]| {
        let entry = |n: &&str| format!("<entry uri=\"sip:{n}@{DOMAIN}\"><display-name>{n}</display-name></entry>");
        let entries: String = names.iter().map(entry).collect();
        format!(
            "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list name=\"friends\">{entries}\
             <list><entry uri=\"sip:eve@elsewhere.test\"/></list></list></resource-lists>"
        )
    };
    store(&server, "alice", "resource-lists", &named(&["bob", "carol", "dave"]));
    let services = format!(
        "<rls-services xmlns=\"urn:ietf:params:xml:ns:rls-services\"><service uri=\"sip:alice-friends@{DOMAIN}\">\
         <resource-list>http://{DOMAIN}/xcap-root/resource-lists/users/sip:alice@{DOMAIN}/index/~~/resource-lists/list%5b@name=%22friends%22%5d\
         </resource-list><packages><package>presence</package></packages></service></rls-services>"
    );
    store(&server, "alice", "rls-services", &services);
    Publish::of(&server, "bob").tag(&document("bob", "bobs", "open", ""));

    let list = |watcher: &'static str, scenario| watching(&server, scenario, watcher, "alice-friends", false);
    let refused = list("alice", "watch_refused").set("CODE", 421).succeed();
    assert_eq!(header(refused.received().last().unwrap(), "Require"), Some("eventlist"));
    let reads = "presence\nSupported: eventlist";
    list("bob", "watch_refused").set("EVENT", reads).set("CODE", 403).succeed();
    let accept = format!("{PIDF}, application/rlmi+xml, multipart/related");
    let alice = list("alice", "watch").set("EVENT", reads).set("ACCEPT", accept).start();
    let first = hears(&alice, "of all of them", |m| m.contains("fullState=\"true\""));
    about_list(&first, 0, true, 4);
    // Bob is there, carol is not, dave does not want to be watched, of eve nothing is known here.
    assert_eq!(basic(&first), ["open", "closed"], "{first}");
    assert!(
        resource(&first, "sip:bob@").contains("<name>bob</name><instance id=\"1\" state=\"active\" cid=\""),
        "{first}"
    );
    assert!(resource(&first, "sip:dave@").contains("state=\"terminated\" reason=\"rejected\""), "{first}");
    assert!(!resource(&first, "sip:eve@").contains("<instance"), "{first}");

    // Whoever changes is told, and nobody else.
    Publish::of(&server, "carol").tag(&document("carol", "carols", "open", ""));
    let next = hears(&alice, "of carol", |m| m.contains("carols"));
    about_list(&next, 1, false, 1);
    assert!(!next.contains("bobs"), "{next}");
    rules(&server, "dave", &rule("alice", "allow", EVERYTHING));
    let allowed = hears(&alice, "of dave", |m| m.contains("version=\"2\""));
    assert!(resource(&allowed, "sip:dave@").contains("state=\"active\""), "{allowed}");

    // It goes on after kill -9, and a list that changes is told whole.
    server.restart();
    hears(&alice, "all of it again", |m| {
        m.contains("fullState=\"true\"") && m.contains("bobs") && m.contains("carols")
    });
    store(&server, "alice", "resource-lists", &named(&["carol"]));
    let shorter = hears(&alice, "the shorter list", |m| m.contains("fullState=\"true\"") && !m.contains("sip:bob@"));
    assert!(shorter.contains("carols") && shorter.matches("<resource uri=").count() == 2, "{shorter}");
}

#[test]
fn watcher_wants_to_hear_seldom() {
    let server = setup(&["alice", "bob"]).start();
    let bob = watching(&server, "watch", "bob", "alice", false).set("EVENT", "presence;max-rate=0.05").start();
    let first = hears(&bob, "that nobody is there", |m| basic(m) == ["closed"]);
    assert!(state(&first).ends_with(";max-rate=0.05"), "{first}");
    assert_eq!(header(&first, "Event"), Some("presence"));
    let mut tag = Publish::of(&server, "alice").tag(&document("alice", "t", "open", "<note>1</note>"));
    for n in ["2", "3"] {
        let body = document("alice", "t", "open", &format!("<note>{n}</note>"));
        tag = Publish::of(&server, "alice").line(&format!("SIP-If-Match: {tag}")).tag(&body);
    }
    hears(&bob, "the last of it", |m| m.contains("<note>3</note>"));
    let heard = notifies(&bob).concat();
    assert!(!heard.contains("<note>1</note>") && !heard.contains("<note>2</note>"), "once in 20 s: {heard}");
}

#[test]
fn handset_that_vanishes_is_missed_at_once() {
    let mut setup = setup(&["alice", "bob"]);
    // A watcher's pace does not hold that up.
    setup.sections = "[presence]\nnotify_interval = 60\n".into();
    let server = setup.start();
    let bob = watching(&server, "watch", "bob", "alice", false).start();
    hears(&bob, "that nobody is there", |m| basic(m) == ["closed"]);
    let phone = server.ports.next();
    let registers = |expires: u32| {
        let contact = format!("Contact: <sip:alice@127.0.0.1:{phone}>;audio;expires={expires}");
        Sipp::new(&server, "register_with", phone).set("LINES", contact).set("CODE", 200).users(&["alice"]).succeed();
    };
    registers(600);
    Publish::of(&server, "alice").from(phone).tag(&document("alice", "phone", "open", ""));
    let carol = watching(&server, "watch", "bob", "alice", false).start();
    hears(&carol, "that her phone is there", |m| m.contains("phone") && basic(m) == ["open"]);
    registers(0);
    for watcher in [&bob, &carol] {
        hears(watcher, "that it is gone", |m| m.contains("nobody-there"));
    }
    // It comes again, and what it published counts again.
    registers(600);
    let late = watching(&server, "watch", "bob", "alice", false).start();
    hears(&late, "that it is back", |m| m.contains("\"phone\"") && basic(m) == ["open"]);
}

#[test]
fn registered_handset_speaks_while_nobody_publishes() {
    let server = setup(&["alice", "bob"]).start();
    let bob = watching(&server, "watch", "bob", "alice", false).start();
    let phone = Sipp::new(&server, "register_with", server.ports.next()).set("CODE", 200).users(&["alice"]);
    phone.set("LINES", "Contact: <sip:alice@192.0.2.7>;audio;q=0.5;expires=3").succeed();
    let there = has_heard(&bob, "that a phone is there", |m| basic(m) == ["open"]);
    assert!(there.contains("<caps:audio>true</caps:audio>"), "{there}");
    assert!(there.contains(&format!("<contact priority=\"0.5\">sip:alice@{DOMAIN}</contact>")), "{there}");
    assert!(!there.contains("192.0.2.7"), "where she is is nobody's business: {there}");
    hears(&bob, "that it has faded away", |m| basic(m) == ["closed"]);
}

#[test]
fn all_goes_on_after_kill_9() {
    let mut server = setup(&["alice", "bob", "carol"]).start();
    let tag = Publish::of(&server, "alice").tag(&document("alice", "t", "open", ""));
    let bob = watching(&server, "watch", "bob", "alice", false).start();
    let winfo = watching(&server, "watch", "alice", "alice", true).start();
    hears(&bob, "that she is there", |m| basic(m) == ["open"]);
    hears(&winfo, "who watches", |m| m.contains("sip:bob@"));
    let number = |m: &str| header(m, "CSeq").and_then(|v| v.split(' ').next()?.parse::<u32>().ok()).unwrap();
    let before = number(&notifies(&bob).pop().unwrap());
    server.restart();
    let again = hears(&bob, "the same, from another life", |m| number(m) > before);
    assert_eq!((basic(&again), state(&again).starts_with("active;expires=")), (vec!["open"], true));
    // The tag is still good, and so are the dialogs.
    Publish::of(&server, "alice").line(&format!("SIP-If-Match: {tag}")).tag(&document("alice", "t", "closed", ""));
    hears(&bob, "what is new", |m| basic(m) == ["closed"]);
    let carol = watching(&server, "watch", "carol", "alice", false).start();
    hears(&carol, "that too", |m| basic(m) == ["closed"]);
    hears(&winfo, "that carol watches", |m| m.contains("sip:carol@"));
    assert_eq!(server.metric("isthmus_presence_subscriptions"), 3.0);
    drop((bob, carol));
}

#[test]
fn watcher_who_never_answers_is_dropped() {
    let server = setup(&["alice", "bob"]).start();
    let silent = watching(&server, "watch_silent", "bob", "alice", false).succeed();
    let sent: Vec<&str> = silent.received().into_iter().filter(|m| m.starts_with("NOTIFY")).collect();
    assert!(!sent.is_empty());
    // Timer F: 32 s (RFC 3261 §17.1.2.2); a time-out is a 408, and RFC 6665 §4.2.2 forgets who gives that.
    eventually("it is forgotten", Duration::from_secs(60), || server.metric("isthmus_presence_subscriptions") == 0.0);
    assert!(server.admin("/metrics").1.contains("isthmus_presence_total{kind=\"lost_watcher\"} 1"));
    let gone = watching(&server, "watch_gone", "bob", "alice", false).succeed();
    assert!(gone.received().into_iter().any(|m| m.starts_with("NOTIFY")));
    eventually("whoever says 481 is forgotten at once", Duration::from_secs(10), || {
        server.metric("isthmus_presence_subscriptions") == 0.0
    });
}

#[test]
fn subscriptions_and_publications_have_their_bounds() {
    let mut setup = setup(&["alice", "bob", "carol"]);
    setup.sections.push_str(
        "subscriptions_per_watcher = 1\nsubscriptions_per_user = 2\nsubscriptions = 3\npublications_per_user = 1\n",
    );
    let server = setup.start();
    let refused = |watcher: &str, user: &str, code: u16| {
        let seen = watching(&server, "watch_refused", watcher, user, false).set("CODE", code).succeed();
        seen.received().last().copied().unwrap().to_owned()
    };
    let _bob = watching(&server, "watch", "bob", "alice", false).start();
    let counted = |n: f64| eventually("it is taken", SOON, || server.metric("isthmus_presence_subscriptions") == n);
    counted(1.0);
    let answer = refused("bob", "carol", 403);
    assert!(answer.starts_with("SIP/2.0 403 Too Many Subscriptions"), "{answer}");
    let _carol = watching(&server, "watch", "carol", "alice", false).start();
    counted(2.0);
    let answer = refused("alice", "alice", 503);
    assert!(header(&answer, "Retry-After").is_some(), "{answer}");
    // What is refused is not counted.
    let _alice = watching(&server, "watch", "alice", "bob", false).start();
    counted(3.0);
    Publish::of(&server, "alice").tag(&document("alice", "one", "open", ""));
    let answer = Publish::of(&server, "alice").answered(503, &document("alice", "two", "open", ""));
    assert!(header(&answer, "Retry-After").is_some(), "{answer}");
    assert_eq!(server.metric("isthmus_publications"), 1.0);
}

#[test]
fn lists_count_with_their_members() {
    let mut setup = setup(&["alice", "bob"]);
    setup.sections.push_str("subscriptions = 2\nlists_per_user = 1\n");
    let server = setup.start();
    let list = |name: &str, members: &[&str]| {
        let entries: String = members.iter().map(|m| format!("<rl:entry uri=\"sip:{m}@{DOMAIN}\"/>")).collect();
        format!("<service uri=\"sip:alice-{name}@{DOMAIN}\"><list>{entries}</list></service>")
    };
    let stores = |services: &str| {
        let text = format!(
            "<rls-services xmlns=\"urn:ietf:params:xml:ns:rls-services\" \
             xmlns:rl=\"urn:ietf:params:xml:ns:resource-lists\">{services}</rls-services>"
        );
        store(&server, "alice", "rls-services", &text);
    };
    let watches = |name: &'static str, scenario| {
        let sipp = watching(&server, scenario, "alice", name, false).set("EVENT", "presence\nSupported: eventlist");
        sipp.set("ACCEPT", format!("{PIDF}, application/rlmi+xml, multipart/related"))
    };
    stores(&(list("all", &["a", "b", "c"]) + &list("more", &["a"])));
    watches("alice-all", "watch_refused").set("CODE", 503).succeed();
    watches("alice-more", "watch_refused").set("CODE", 404).succeed();
    stores(&list("all", &["a", "b"]));
    let alice = watches("alice-all", "watch").start();
    hears(&alice, "of both", |m| m.matches("<resource uri=").count() == 2);
}

#[test]
fn watcher_wants_to_hear_at_least_so_often() {
    let server = setup(&["alice", "bob", "carol"]).start();
    let asks = |watcher: &str, rates: &str| {
        watching(&server, "watch", watcher, "alice", false).set("EVENT", format!("presence;{rates}")).start()
    };
    let (bob, carol) = (asks("bob", "min-rate=0.5"), asks("carol", "adaptive-min-rate=0.5;max-rate=2"));
    let first = hears(&bob, "that nobody is there", |m| basic(m) == ["closed"]);
    assert!(state(&first).ends_with(";min-rate=0.5"), "{first}");
    let first = hears(&carol, "that nobody is there", |m| basic(m) == ["closed"]);
    assert!(state(&first).ends_with(";max-rate=2;adaptive-min-rate=0.5"), "{first}");
    // Nothing changes, and they hear of it.
    for watcher in [&bob, &carol] {
        eventually("three more that say the same", SOON, || notifies(watcher).len() >= 4);
        assert!(notifies(watcher).iter().all(|m| basic(m) == ["closed"]));
    }
    Publish::of(&server, "alice").tag(&document("alice", "t", "open", ""));
    hears(&bob, "what is new", |m| basic(m) == ["open"]);
}

#[test]
fn thousand_watchers_miss_nothing_and_hear_it_in_order() {
    const WATCHERS: u32 = 1000;
    let mut setup = setup(&["alice"]);
    setup.auth = "none";
    let server = setup.start();
    let sipp = Sipp::new(&server, "watch_until", server.ports.next()).set("USER", "alice").set("EVENT", "presence");
    let sipp = sipp.set("ACCEPT", PIDF).set("UNTIL", "<note>5</note>").calls(WATCHERS).rate(200);
    // SIPp keeps no more calls than that at once on its own.
    let watchers = sipp.options(&["-l", "1000"]).limit(Duration::from_secs(240)).start();
    let told = |times: u32| {
        eventually(&format!("all were told {times} times"), Duration::from_secs(120), || {
            let (_, text) = server.admin("/metrics");
            let notified = text.lines().find_map(|l| l.strip_prefix("isthmus_presence_total{kind=\"notified\"} "));
            notified.and_then(|n| n.parse::<f64>().ok()) >= Some(f64::from(times * WATCHERS))
        });
    };
    told(1);
    let mut tag = String::new();
    for n in 1..=5 {
        let publish = Sipp::new(&server, "publish_open", server.ports.next()).set("USER", "alice");
        let lines = if tag.is_empty() { "Priority: normal".into() } else { format!("SIP-If-Match: {tag}") };
        let body = document("alice", "t", "open", &format!("<note>{n}</note>"));
        let outcome = publish.set("LINES", lines).set("BODY", body).succeed();
        tag = header(outcome.received().last().unwrap(), "SIP-ETag").expect("an entity tag").to_owned();
        told(n + 1);
    }
    let seen = watchers.succeed(WATCHERS);
    let mut heard: std::collections::HashMap<&str, Vec<(u32, String)>> = Default::default();
    for notify in seen.received().into_iter().filter(|m| m.starts_with("NOTIFY")) {
        let number = header(notify, "CSeq").and_then(|v| v.split(' ').next()?.parse().ok()).unwrap();
        let note = notify.split("<note>").nth(1).and_then(|n| n.split('<').next()).unwrap_or("0").to_owned();
        let of = heard.entry(header(notify, "Call-ID").unwrap()).or_default();
        // Sent again.
        if of.iter().all(|(n, _)| *n != number) {
            of.push((number, note));
        }
    }
    assert_eq!(heard.len(), WATCHERS as usize);
    for (watcher, all) in heard {
        let expected: Vec<(u32, String)> = (0..=5).map(|n| (n + 1, n.to_string())).collect();
        assert_eq!(all, expected, "{watcher}");
    }
}
