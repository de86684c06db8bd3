//! A network that loses one message in twenty or more: everything arrives in the end, and nothing arrives twice.

mod harness;

use std::time::Duration;

use std::sync::atomic::Ordering::Relaxed;

use harness::relay::Relay;
use harness::{DOMAIN, Server, Setup, Sipp};

fn users(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("user{n:03}")).collect()
}

fn bind_bob(server: &Server, port: u16) {
    let sipp = Sipp::new(server, "register", server.ports.next())
        .set("CONTACT", format!("127.0.0.1:{port}"))
        .set("PARAMS", "");
    sipp.set("EXPIRES", 600).users(&["bob"]).succeed();
}

#[test]
fn registrations_survive_loss() {
    let users = users(60);
    let server = Setup::with_users(&users.iter().map(String::as_str).collect::<Vec<_>>()).start();
    let port = server.ports.next();
    let sipp = Sipp::new(&server, "register", port)
        .set("CONTACT", format!("127.0.0.1:{port}"))
        .set("PARAMS", "")
        .set("EXPIRES", 600);
    let done = sipp.users(&users).lost(15).rate(60).limit(Duration::from_secs(90)).succeed();
    assert!(done.counts.retransmissions > 0, "nothing was lost, so nothing was shown");
}

#[test]
fn calls_survive_loss() {
    let server = Setup::with_users(&["alice", "bob"]).start();
    let port = server.ports.next();
    let callee = Sipp::new(&server, "answer", port).calls(20).lost(5).limit(Duration::from_secs(90)).start();
    bind_bob(&server, port);
    // SIPp's phone does not understand a BYE that comes before any ACK got through. Within this long the 200 is sent seven times,
    // and with one message in twenty lost at either end, one ACK comes of it: all seven fail in one call of 100,000.
    let call =
        Sipp::new(&server, "call", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}")).set("HOLD", 16_000);
    let called = call.users(&["alice"]).calls(20).rate(20).lost(5).limit(Duration::from_secs(90)).succeed();
    let answered = callee.succeed(20);
    let repeated = called.counts.retransmissions + answered.counts.retransmissions;
    assert!(repeated > 0, "nothing was lost, so nothing was shown");
}

#[test]
fn retransmitted_request_is_answered_again_and_done_once() {
    let server = Setup::with_users(&["alice", "bob"]).start();
    let phone = harness::Peer::new(server.ports.next());
    bind_bob(&server, phone.port);
    let sender = harness::Peer::new(server.ports.next());
    // From a foreign domain, so nobody asks for credentials.
    let request = sender.request(
        "MESSAGE",
        &format!("sip:bob@{DOMAIN}"),
        ["carol", "bob"],
        "again1",
        "Content-Type: text/plain\r\n",
        "once",
    );
    let request =
        String::from_utf8(request).unwrap().replace(&format!("<sip:carol@{DOMAIN}>"), "<sip:carol@elsewhere.test>");
    sender.send(server.sip, request.as_bytes());
    let first = phone.receive_with("MESSAGE ", Duration::from_secs(20)).expect("the phone gets it");
    for _ in 0..3 {
        sender.send(server.sip, request.as_bytes());
    }
    // Whatever the server repeats towards the silent phone is the same branch: a retransmission, not another message.
    let branch = |m: &str| harness::header(m, "Via").and_then(|v| v.split("branch=").nth(1).map(str::to_owned));
    while let Some(more) = phone.receive_with("MESSAGE ", Duration::from_millis(700)) {
        assert_eq!(branch(&more), branch(&first), "{more}");
    }
}

fn was_bad(relay: &Relay) {
    let (lost, overtaken) = (relay.weather.lost.load(Relaxed), relay.weather.overtaken.load(Relaxed));
    assert!(lost > 0 && overtaken > 0, "{lost} lost and {overtaken} overtaken: too few to show anything");
}

/// Without credentials: SIPp takes a second challenge for a mistake, or stops to repeat what it sent.
fn open(users: &[&str]) -> Server {
    let mut setup = Setup::with_users(users);
    setup.auth = "none";
    setup.start()
}

fn bind_bob_openly(server: &Server, port: u16) {
    let sipp = Sipp::new(server, "register_open", server.ports.next()).set("CONTACT", format!("127.0.0.1:{port}"));
    sipp.set("PARAMS", "").set("EXPIRES", 600).users(&["bob"]).succeed();
}

#[test]
fn registrations_survive_loss_reordering_and_doubles() {
    let users = users(60);
    let server = open(&users.iter().map(String::as_str).collect::<Vec<_>>());
    let (net, port) = (server.ports.next(), server.ports.next());
    let relay = Relay::to_server(net, server.sip);
    let sipp = Sipp::new(&server, "register_open", port).towards(net).set("CONTACT", format!("127.0.0.1:{port}"));
    let sipp = sipp.set("PARAMS", "").set("EXPIRES", 600).users(&users).rate(40);
    sipp.limit(Duration::from_secs(90)).succeed();
    was_bad(&relay);
    assert!(relay.weather.doubled.load(Relaxed) > 0);
    assert_eq!(server.metric("isthmus_bindings"), 60.0);
}

#[test]
fn calls_survive_loss_reordering_and_doubles_on_both_sides() {
    let server = open(&["alice", "bob"]);
    let [near, far, phone] = [(); 3].map(|()| server.ports.next());
    let here = Relay::to_server(near, server.sip);
    let there = Relay::to_phone(far, phone);
    let callee = Sipp::new(&server, "answer", phone).reached_at(far).calls(20).limit(Duration::from_secs(90)).start();
    bind_bob_openly(&server, far);
    let call = Sipp::new(&server, "call_open", server.ports.next()).towards(near);
    // As above: SIPp's phone wants its ACK before the BYE.
    let call = call.set("URI", format!("sip:bob@{DOMAIN}")).set("HOLD", 16_000).users(&["alice"]).calls(20).rate(20);
    call.limit(Duration::from_secs(90)).succeed();
    callee.succeed(20);
    was_bad(&here);
    was_bad(&there);
}

#[test]
fn messages_survive_loss_reordering_and_doubles_on_both_sides() {
    let server = open(&["alice", "bob"]);
    let [near, far, phone] = [(); 3].map(|()| server.ports.next());
    let here = Relay::to_server(near, server.sip);
    let there = Relay::to_phone(far, phone);
    let callee = Sipp::new(&server, "take_messages", phone).set("CODE", 200).calls(40).limit(Duration::from_secs(90));
    let callee = callee.start();
    bind_bob_openly(&server, far);
    let message = Sipp::new(&server, "message_open", server.ports.next()).towards(near);
    let message = message.set("URI", format!("sip:bob@{DOMAIN}")).set("TEXT", "through the storm").set("CODE", 200);
    message.users(&["alice"]).calls(40).rate(20).limit(Duration::from_secs(90)).succeed();
    callee.succeed(40);
    was_bad(&here);
    was_bad(&there);
}
