//! The rules of RFC 3261 §10 as a phone meets them: expiries, preferences, several contacts, listing and removal.

mod harness;

use std::time::Duration;

use harness::{DOMAIN, Server, Setup, Sipp, eventually, header, raw};

/// Alice registers with these header lines; the last answer, which must be `code`.
fn register(server: &Server, lines: &[&str], code: u16) -> String {
    // SIPp ends its own lines.
    let phone = Sipp::new(server, "register_with", server.ports.next()).set("LINES", lines.join("\n"));
    let done = phone.set("CODE", code).users(&["alice"]).succeed();
    let last = done.received().last().copied().expect("an answer").to_owned();
    assert_eq!(raw::status(&last), Some(code));
    last
}

/// The Contact values of an answer, in its order, each with its expiry taken out.
fn contacts(answer: &str) -> Vec<(String, u32)> {
    let values = answer.lines().filter_map(|l| l.strip_prefix("Contact: "));
    let read = |value: &str| {
        let (before, rest) = value.split_once(";expires=").unwrap_or_else(|| panic!("no expiry: {value}"));
        let (seconds, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        (format!("{before}{after}"), seconds.parse().expect("a number"))
    };
    values.map(read).collect()
}

/// The contacts that the server lists to a phone that asks (a REGISTER without Contact).
fn listed(server: &Server) -> Vec<String> {
    contacts(&register(server, &["X-Asks: who is there"], 200)).into_iter().map(|(c, _)| c).collect()
}

#[test]
fn expiry_of_the_contact_goes_before_that_of_the_request_and_both_before_the_default() {
    let server = Setup::with_users(&["alice"]).start();
    let answer = register(
        &server,
        &["Contact: <sip:a@192.0.2.1>;expires=120", "Contact: <sip:b@192.0.2.2>", "Expires: 600"],
        200,
    );
    let granted = |name: &str| contacts(&answer).into_iter().find(|(c, _)| c.contains(name)).expect("listed").1;
    // The 200 follows at once; a slow machine may lose some seconds of the longer ones.
    assert!((100..=120).contains(&granted("sip:a@")), "{answer}");
    assert!((500..=600).contains(&granted("sip:b@")), "{answer}");
    let answer = register(&server, &["Contact: <sip:c@192.0.2.3>"], 200);
    let default = contacts(&answer).into_iter().find(|(c, _)| c.contains("sip:c@")).expect("listed").1;
    assert!((3500..=3600).contains(&default), "{answer}");
}

#[test]
fn too_brief_an_interval_is_refused_with_the_least_that_is_granted() {
    let server = Setup::with_users(&["alice"]).start();
    for lines in [&["Contact: <sip:a@192.0.2.1>;expires=5"][..], &["Contact: <sip:a@192.0.2.1>", "Expires: 5"]] {
        let refused = register(&server, lines, 423);
        let least: u32 = header(&refused, "Min-Expires").and_then(|v| v.parse().ok()).expect("Min-Expires");
        assert!((6..=3600).contains(&least), "{refused}");
        assert_eq!(listed(&server), [""; 0], "nothing was bound");
        let enough = register(&server, &["Contact: <sip:a@192.0.2.1>", &format!("Expires: {least}")], 200);
        assert_eq!(contacts(&enough).len(), 1, "{enough}");
        register(&server, &["Contact: *", "Expires: 0"], 200);
    }
}

#[test]
fn too_long_an_interval_is_shortened() {
    let server = Setup::with_users(&["alice"]).start();
    let answer = register(&server, &["Contact: <sip:a@192.0.2.1>", "Expires: 4294967295"], 200);
    let (_, granted) = contacts(&answer)[0].clone();
    assert!((3600..=604_800).contains(&granted), "{answer}");
}

#[test]
fn contacts_are_listed_best_first_with_their_parameters() {
    let server = Setup::with_users(&["alice"]).start();
    let several =
        "Contact: <sip:low@192.0.2.1>;q=0.1, <sip:best@192.0.2.2>;audio, \"Desk, upstairs\" <sip:mid@192.0.2.3>;q=0.75";
    let answer = register(&server, &[several, "Expires: 600"], 200);
    let order: Vec<String> = contacts(&answer).into_iter().map(|(c, _)| c).collect();
    assert_eq!(order, ["<sip:best@192.0.2.2>;audio", "<sip:mid@192.0.2.3>;q=0.75", "<sip:low@192.0.2.1>;q=0.1"]);
    assert_eq!(listed(&server), order, "a phone that asks sees the same");
}

#[test]
fn one_contact_is_removed_and_then_all() {
    let server = Setup::with_users(&["alice"]).start();
    register(&server, &["Contact: <sip:a@192.0.2.1>, <sip:b@192.0.2.2>, <sip:c@192.0.2.3>", "Expires: 600"], 200);
    assert_eq!(listed(&server).len(), 3);
    // One by its own expiry while another is refreshed; the URI is compared, not its text.
    let mixed = ["Contact: <sip:a@192.0.2.1;transport=udp>;expires=0", "Contact: <SIP:%62@192.0.2.2>", "Expires: 300"];
    register(&server, &mixed, 200);
    assert_eq!(listed(&server).len(), 3, "transport=udp makes another URI (RFC 3261 19.1.4)");
    register(&server, &["Contact: <sip:a@192.0.2.1>;expires=0"], 200);
    let left = listed(&server);
    assert!(left.len() == 2 && !left.iter().any(|c| c.contains("sip:a@")), "{left:?}");
    let answer = register(&server, &["Contact: *", "Expires: 0"], 200);
    assert!(contacts(&answer).is_empty() && listed(&server).is_empty(), "{answer}");
    eventually("the gauge follows", Duration::from_secs(20), || server.metric("isthmus_bindings") == 0.0);
}

#[test]
fn star_is_for_removal_alone() {
    let server = Setup::with_users(&["alice"]).start();
    register(&server, &["Contact: <sip:a@192.0.2.1>", "Expires: 600"], 200);
    for lines in
        [&["Contact: *", "Expires: 600"][..], &["Contact: *"], &["Contact: *, <sip:b@192.0.2.2>", "Expires: 0"]]
    {
        register(&server, lines, 400);
    }
    assert_eq!(listed(&server), ["<sip:a@192.0.2.1>"]);
}

#[test]
fn more_contacts_than_a_user_may_have_are_refused_whole() {
    let server = Setup::with_users(&["alice"]).start();
    let nth = |n: u32| format!("<sip:a{n}@192.0.2.1>");
    let all = |range: std::ops::Range<u32>| format!("Contact: {}", range.map(nth).collect::<Vec<_>>().join(", "));
    register(&server, &[&all(0..8), "Expires: 600"], 200);
    register(&server, &[&all(8..14), "Expires: 600"], 403);
    assert_eq!(listed(&server).len(), 8, "all or nothing");
}

#[test]
fn path_that_begins_with_a_strict_router_is_gone_in_its_manner() {
    let server = Setup::with_users(&["alice", "bob"]).start();
    let strict = server.ports.next();
    // No lr: it wants to find itself in the Request-URI, and the contact at the end of Route (RFC 3261 §16.6 step 6).
    let lines = format!(
        "Supported: path\nPath: <sip:127.0.0.1:{strict}>, <sip:127.0.0.1:9;lr>\nContact: <sip:alice@192.0.2.9>\nExpires: 600"
    );
    let phone = Sipp::new(&server, "register_with", server.ports.next()).set("LINES", lines).set("CODE", 200);
    phone.users(&["alice"]).succeed();
    let router = Sipp::new(&server, "take_messages", strict).set("CODE", 200).start();
    let message = Sipp::new(&server, "message", server.ports.next()).set("URI", format!("sip:alice@{DOMAIN}"));
    message.set("TEXT", "by the old way").set("CODE", 200).users(&["bob"]).succeed();
    let seen = router.succeed(1);
    let seen = seen.received()[0];
    assert!(seen.starts_with(&format!("MESSAGE sip:127.0.0.1:{strict} SIP/2.0")), "{seen}");
    let routes: Vec<&str> = seen.lines().filter_map(|l| l.strip_prefix("Route: ")).collect();
    assert_eq!(routes, ["<sip:127.0.0.1:9;lr>, <sip:alice@192.0.2.9>"], "{seen}");
}
