//! Short messages between users: delivered, kept while the addressee is away, and never lost by a crash.

mod harness;

use std::time::Duration;

use harness::{DOMAIN, Server, Setup, Sipp, bind, header, sipp::Outcome};

fn started() -> Server {
    Setup::with_users(&["alice", "bob"]).start()
}

fn send(server: &Server, text: &str, count: u32, code: u16) -> Outcome {
    let port = server.ports.next();
    let sipp =
        Sipp::new(server, "message", port).set("URI", format!("sip:bob@{DOMAIN}")).set("TEXT", text).set("CODE", code);
    // One by one: only then has "in order" a meaning.
    sipp.users(&["alice"]).calls(count).options(&["-l", "1"]).succeed()
}

/// The bodies of the messages in the order of their first arrival.
fn texts(seen: &Outcome) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for message in seen.received() {
        let body = message.split("\r\n\r\n").nth(1).unwrap_or_default().trim().to_owned();
        if !out.contains(&body) {
            out.push(body);
        }
    }
    out
}

fn numbered(text: &str, count: u32) -> Vec<String> {
    (1..=count).map(|n| format!("{text} {n}")).collect()
}

#[test]
fn message_reaches_the_phone() {
    let server = started();
    let port = server.ports.next();
    let phone = Sipp::new(&server, "take_messages", port).set("CODE", 200).calls(3).start();
    bind(&server, "bob", port, "");
    send(&server, "hello", 3, 200);
    assert_eq!(texts(&phone.succeed(3)), numbered("hello", 3));
}

#[test]
fn message_to_somebody_away_is_kept_and_delivered_in_order() {
    let server = started();
    send(&server, "kept", 5, 202);
    let port = server.ports.next();
    let phone = Sipp::new(&server, "take_messages", port).set("CODE", 200).calls(5).start();
    bind(&server, "bob", port, "");
    assert_eq!(texts(&phone.succeed(5)), numbered("kept", 5));
}

#[test]
fn kept_messages_survive_kill_9() {
    let mut server = started();
    send(&server, "durable", 4, 202);
    server.restart();
    let port = server.ports.next();
    let phone = Sipp::new(&server, "take_messages", port).set("CODE", 200).calls(4).start();
    bind(&server, "bob", port, "");
    assert_eq!(texts(&phone.succeed(4)), numbered("durable", 4));
}

#[test]
fn delivered_messages_are_not_delivered_again() {
    let server = started();
    send(&server, "once", 2, 202);
    let port = server.ports.next();
    let phone = Sipp::new(&server, "take_messages", port).set("CODE", 200).calls(2).start();
    bind(&server, "bob", port, "");
    let seen = phone.succeed(2);
    let again = harness::Peer::new(port);
    bind(&server, "bob", port, "");
    assert_eq!(seen.receives_anew(&again, Duration::from_millis(700)), None);
}

#[test]
fn message_to_nobody_gets_404() {
    let server = started();
    let port = server.ports.next();
    let sipp = Sipp::new(&server, "message", port)
        .set("URI", format!("sip:nobody@{DOMAIN}"))
        .set("TEXT", "x")
        .set("CODE", 404);
    sipp.users(&["alice"]).succeed();
}

#[test]
fn phone_that_answers_late_does_not_get_the_message_again() {
    let server = started();
    let port = server.ports.next();
    let phone = Sipp::new(&server, "take_message_late", port).start();
    bind(&server, "bob", port, "");
    // The sender is told after 10 s that the message is kept; the phone answers after 20.
    send(&server, "slow", 1, 202);
    let seen = phone.succeed(1);
    assert_eq!(texts(&seen), numbered("slow", 1));
    let again = harness::Peer::new(port);
    let kept = || server.metric("isthmus_messages_waiting_users") > 0.0;
    harness::eventually("nothing is kept", Duration::from_secs(20), || !kept());
    bind(&server, "bob", port, "");
    assert_eq!(seen.receives_anew(&again, Duration::from_secs(2)), None);
}

#[test]
fn kept_message_too_long_for_a_datagram_goes_over_tcp() {
    let server = Setup::with_users(&["alice", "bob"]).start();
    let text = "long ".repeat(250);
    let send = Sipp::new(&server, "message", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    send.set("TEXT", &text).set("CODE", 202).users(&["alice"]).succeed();
    // The phone registers a contact without a transport, and listens over TCP only.
    let port = server.ports.next();
    let phone = Sipp::new(&server, "take_messages", port).tcp().set("CODE", 200).start();
    harness::wait_for_tcp(port);
    let register = Sipp::new(&server, "register", server.ports.next()).set("CONTACT", format!("127.0.0.1:{port}"));
    register.set("PARAMS", "").set("EXPIRES", 600).users(&["bob"]).succeed();
    let seen = phone.succeed(1);
    let seen = seen.received()[0];
    assert!(seen.contains(&text) && header(seen, "Via").is_some_and(|v| v.starts_with("SIP/2.0/TCP")), "{seen}");
}
