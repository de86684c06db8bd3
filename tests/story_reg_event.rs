//! Who is told where a user is registered (RFC 3680): the user himself and the nodes of the core, and what they hear when a
//! phone comes, goes, and fades away. The watchers are SIPp and Kamailio.

mod harness;

use std::time::Duration;

use harness::sipp::Running;
use harness::{DOMAIN, Peer, Ports, Server, Setup, Sipp, eventually, header, kamailio, raw};

/// Notifications keep 5 s distance from each other (RFC 3680 §4.10); the rest is for a slow machine.
const SOON: Duration = Duration::from_secs(40);

fn registers(server: &Server, user: &str, lines: &[&str]) {
    let phone = Sipp::new(server, "register_with", server.ports.next()).set("LINES", lines.join("\n"));
    phone.set("CODE", 200).users(&[user]).succeed();
}

fn watching(server: &Server, scenario: &'static str, watcher: &str, user: &str) -> Sipp {
    Sipp::new(server, scenario, server.ports.next()).set("USER", user).users(&[watcher]).limit(Duration::from_secs(150))
}

/// The bodies of the NOTIFYs that a running watcher has logged so far.
fn documents(running: &Running) -> Vec<String> {
    let log = std::fs::read(running.base.with_extension("msg")).unwrap_or_default();
    let text = String::from_utf8_lossy(&log).into_owned();
    let bodies = text.split("<?xml").skip(1).filter_map(|b| Some(b.split_once("</reginfo>")?.0.to_owned()));
    // A NOTIFY that was sent again is logged again.
    let mut all: Vec<String> = bodies.collect();
    all.dedup();
    all
}

/// The value of an attribute of the first element `name`.
fn attribute<'a>(document: &'a str, name: &str, attribute: &str) -> Option<&'a str> {
    let element = document.split(&format!("<{name} ")).nth(1)?.split('>').next()?;
    element
        .split(&format!(" {attribute}=\""))
        .nth(1)
        .or_else(|| element.strip_prefix(&format!("{attribute}=\"")))?
        .split('"')
        .next()
}

/// What each document says: its kind, the state of the registration, and the event of its first contact.
fn told(documents: &[String]) -> Vec<(String, String, Option<String>)> {
    let text = |v: Option<&str>| v.unwrap_or_default().to_owned();
    let one = |d: &String| {
        (
            text(attribute(d, "reginfo", "state")),
            text(attribute(d, "registration", "state")),
            attribute(d, "contact", "event").map(str::to_owned),
        )
    };
    documents.iter().map(one).collect()
}

#[test]
fn watcher_hears_of_a_phone_that_comes_fades_away_comes_again_and_leaves() {
    let mut setup = Setup::with_users(&["alice"]);
    setup.registrar = "min_expires = 2\n".into();
    let server = setup.start();
    // Alice watches herself: the phone on her desk wants to know of the one in her pocket.
    let desk = watching(&server, "watch", "alice", "alice").start();
    let hears = |count: usize| {
        eventually(&format!("document {count}"), SOON, || documents(&desk).len() >= count);
        documents(&desk)
    };
    hears(1);
    registers(&server, "alice", &["Contact: <sip:alice@192.0.2.7:5062>;q=0.5;audio;expires=10"]);
    hears(2);
    // It is not there any more after its 10 s, and nobody said so.
    hears(3);
    registers(&server, "alice", &["Contact: <sip:alice@192.0.2.7:5062>;expires=600"]);
    hears(4);
    registers(&server, "alice", &["Contact: *", "Expires: 0"]);
    hears(5);
    server.command(&["user", "remove", "alice", "--config", "isthmus.toml"]);
    let seen = desk.succeed(1);
    let last = seen.received().last().copied().unwrap().to_owned();
    assert!(
        header(&last, "Subscription-State").is_some_and(|s| s.contains("terminated") && s.contains("noresource")),
        "{last}"
    );

    let documents: Vec<String> = seen
        .received()
        .into_iter()
        .filter(|m| m.starts_with("NOTIFY"))
        .filter_map(|m| Some(m.split_once("<?xml")?.1.to_owned()))
        .collect();
    let kind = |s: &str, state: &str, event: &str| {
        (s.to_owned(), state.to_owned(), Some(event.to_owned()).filter(|e| !e.is_empty()))
    };
    let expected = [
        kind("full", "init", ""),
        kind("partial", "active", "created"),
        kind("partial", "terminated", "expired"),
        kind("partial", "active", "created"),
        kind("partial", "terminated", "unregistered"),
    ];
    assert_eq!(told(&documents)[..5], expected, "{documents:#?}");
    let versions: Vec<_> = documents.iter().map(|d| attribute(d, "reginfo", "version").unwrap().to_owned()).collect();
    assert_eq!(versions[..5], ["0", "1", "2", "3", "4"]);
    let created = &documents[1];
    assert_eq!(attribute(created, "registration", "aor"), Some(&*format!("sip:alice@{DOMAIN}")));
    assert_eq!(
        (attribute(created, "contact", "state"), attribute(created, "contact", "q")),
        (Some("active"), Some("0.5"))
    );
    assert!(created.contains("<uri>sip:alice@192.0.2.7:5062</uri>"), "{created}");
    assert!(created.contains("name=\"audio\""), "{created}");
    let id = |n: usize| attribute(&documents[n], "contact", "id").map(str::to_owned);
    assert!(id(1).is_some() && id(1) == id(2), "one contact keeps its id");
}

#[test]
fn first_notification_has_everything_and_the_last_ends_it() {
    let server = Setup::with_users(&["alice"]).start();
    registers(&server, "alice", &["Contact: <sip:a@192.0.2.7>, <sip:b@192.0.2.8>;q=0.2", "Expires: 600"]);
    let seen = watching(&server, "watch_once", "alice", "alice").succeed();
    let notifies: Vec<&str> = seen.received().into_iter().filter(|m| m.starts_with("NOTIFY")).collect();
    let first = notifies[0];
    assert!(header(first, "Subscription-State").is_some_and(|s| s.starts_with("active;expires=")), "{first}");
    assert_eq!(header(first, "Content-Type"), Some("application/reginfo+xml"));
    assert_eq!(header(first, "Event"), Some("reg"));
    let body = first.split_once("<?xml").expect("a document").1;
    assert_eq!(
        (attribute(body, "reginfo", "state"), attribute(body, "registration", "state")),
        (Some("full"), Some("active"))
    );
    assert_eq!(body.matches("<contact ").count(), 2, "{body}");
    let last = notifies.last().unwrap();
    assert!(header(last, "Subscription-State").is_some_and(|s| s.starts_with("terminated")), "{last}");
    eventually("nobody watches", SOON, || server.metric("isthmus_subscriptions") == 0.0);
}

#[test]
fn nobody_else_may_watch() {
    let server = Setup::with_users(&["alice", "mallory"]).start();
    registers(&server, "alice", &["Contact: <sip:a@192.0.2.7>", "Expires: 600"]);
    let refused = watching(&server, "watch_refused", "mallory", "alice").set("CODE", 403).succeed();
    assert!(!refused.messages.contains("192.0.2.7"), "{}", refused.messages);
    // A stranger from another domain.
    let stranger = Peer::new(server.ports.next());
    let more = "Event: reg\r\nAccept: application/reginfo+xml\r\nExpires: 600\r\n";
    let request =
        stranger.request("SUBSCRIBE", &format!("sip:alice@{DOMAIN}"), ["eve", "alice"], "stranger1", more, "");
    let request = String::from_utf8(request).unwrap().replace(&format!("sip:eve@{DOMAIN}"), "sip:eve@elsewhere.test");
    stranger.send(server.sip, request.as_bytes());
    let answer = stranger.receive_with("stranger1", Duration::from_secs(10)).expect("an answer");
    assert_eq!(raw::status(&answer), Some(403), "{answer}");
    assert_eq!(server.metric("isthmus_subscriptions"), 0.0);
}

#[test]
fn kamailio_of_the_core_knows_where_alice_is() {
    let ports = Ports::claim();
    let port = ports.next();
    let mut setup = Setup::with_users(&["alice"]);
    setup.sip = format!("trusted = [\"127.0.0.1:{port}\"]\n");
    setup.registrar = "min_expires = 2\n".into();
    let server = setup.start();
    let _kamailio = kamailio::watcher(server.path(), port, &server.address(), "alice");
    let peer = Peer::new(server.ports.next());
    let mut nth = 0;
    let mut ask = |user: &str| {
        nth += 1;
        let call_id = format!("ask{nth}");
        let request =
            peer.request("OPTIONS", &format!("sip:{user}@127.0.0.1:{port}"), ["probe", "probe"], &call_id, "", "");
        // Kamailio serves the domain under this name.
        let request = String::from_utf8(request)
            .unwrap()
            .replace(&format!("sip:{user}@127.0.0.1:{port}"), &format!("sip:{user}@{DOMAIN}"));
        peer.send(port, request.as_bytes());
        peer.receive_with(&call_id, Duration::from_secs(20)).expect("Kamailio answers")
    };
    registers(&server, "alice", &["Contact: <sip:alice@192.0.2.7:5062>", "Expires: 600"]);
    assert_eq!(raw::status(&ask("alice")), Some(480), "it has not asked yet");
    assert_eq!(raw::status(&ask("watch")), Some(200));
    // The first document.
    eventually("Kamailio knows of the phone", SOON, || {
        header(&ask("alice"), "X-Reached-At").is_some_and(|u| u.starts_with("sip:alice@192.0.2.7:5062"))
    });
    // Changes: another phone, and the first one leaves.
    registers(&server, "alice", &["Contact: <sip:alice@192.0.2.8:5064>;q=0.3;expires=600"]);
    registers(&server, "alice", &["Contact: <sip:alice@192.0.2.7:5062>;expires=0"]);
    eventually("Kamailio knows of the other phone", SOON, || {
        header(&ask("alice"), "X-Reached-At").is_some_and(|u| u.starts_with("sip:alice@192.0.2.8:5064"))
    });
    registers(&server, "alice", &["Contact: *", "Expires: 0"]);
    eventually("Kamailio knows that it left", SOON, || raw::status(&ask("alice")) == Some(480));
}
