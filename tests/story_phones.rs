//! Two phones on a desk: they register, call each other, hear each other, and hang up.

mod harness;

use std::time::Duration;

use harness::{Phone, Setup, eventually};

fn talk_over(transport: &str) {
    let server = Setup::with_users(&["alice", "bob"]).start();
    let mut bob = Phone::start(&server, "bob", transport, 700);
    bob.wait_registered();
    let mut alice = Phone::start(&server, "alice", transport, 440);
    alice.wait_registered();
    alice.talks_with(&mut bob);

    alice.command("hangup", "");
    alice.wait_event("CALL_CLOSED");
    bob.wait_event("CALL_CLOSED");
}

#[test]
fn phones_talk_over_udp() {
    talk_over("udp");
}

#[test]
fn phones_talk_over_tcp() {
    talk_over("tcp");
}

#[test]
fn phones_talk_over_tls() {
    talk_over("tls");
}

#[test]
fn phone_with_wrong_password_is_not_registered() {
    let server = Setup::with_users(&["alice"]).start();
    let phone = Phone::with_password(&server, "alice", "tls", 440, "looking-glass");
    let told = |said: &str| said.split_once("reg: sip:alice@").is_some_and(|(_, rest)| rest.contains('\n'));
    eventually("the phone says how it went, to the end of the line", Duration::from_secs(20), || {
        told(&phone.process.output())
    });
    let said = phone.process.output();
    assert!(said.contains("401 Unauthorized") || said.contains("403 Forbidden"), "{said}");
    assert!(!said.contains("200 OK"), "{said}");
}
