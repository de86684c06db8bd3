//! A network that loses one message in twenty or more: everything arrives in the end, and nothing arrives twice.

mod harness;

use std::time::Duration;

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
    let first = phone.receive_with("MESSAGE ", Duration::from_secs(3)).expect("the phone gets it");
    for _ in 0..3 {
        sender.send(server.sip, request.as_bytes());
    }
    // Whatever the server repeats towards the silent phone is the same branch: a retransmission, not another message.
    let branch = |m: &str| harness::header(m, "Via").and_then(|v| v.split("branch=").nth(1).map(str::to_owned));
    while let Some(more) = phone.receive_with("MESSAGE ", Duration::from_millis(700)) {
        assert_eq!(branch(&more), branch(&first), "{more}");
    }
}
