//! Message waiting (RFC 3842): an operator, or a service, says what waits in a user's mailbox, and the user's phones, SIPp and Twinkle, are
//! told. (baresip 1.0's module shows it too, but now and then subscribes in a circle without sending anything.)

mod harness;

use std::time::Duration;

use harness::presence::{SOON, hears, notifies, put, state};
use harness::{DOMAIN, Server, Setup, Sipp, Twinkle, eventually, header};

const SUMMARY: &str = "application/simple-message-summary";

fn watching(server: &Server, scenario: &'static str, watcher: &str, user: &str) -> Sipp {
    let sipp = Sipp::new(server, scenario, server.ports.next()).set("USER", user).users(&[watcher]);
    sipp.set("EVENT", "message-summary").set("ACCEPT", SUMMARY).limit(Duration::from_secs(120))
}

fn waits(server: &Server, user: &str, json: &str) {
    assert_eq!(put(server, &format!("users/{user}/message-summary"), json), "204");
}

#[test]
fn phone_is_told_across_kill_9_and_strangers_are_not() {
    let mut server = Setup::with_users(&["alice", "bob"]).start();
    watching(&server, "watch_refused", "bob", "alice").set("CODE", 403).succeed();
    watching(&server, "watch_refused", "alice", "alice").set("ACCEPT", "text/plain").set("CODE", 406).succeed();
    let alice = watching(&server, "watch", "alice", "alice").start();
    let first = hears(&alice, "that nothing waits", |m| m.contains("Messages-Waiting: no"));
    assert!(state(&first).starts_with("active;expires="), "{first}");
    assert_eq!((header(&first, "Event"), header(&first, "Content-Type")), (Some("message-summary"), Some(SUMMARY)));
    assert!(first.contains(&format!("Message-Account: sip:alice@{DOMAIN}\r\n")), "{first}");
    let box_ = r#"{"account": "sip:box@vmail.test", "messages": {"text-message": {"new": 1, "urgent_new": 1}, "fax-message": {"old": 3}}}"#;
    waits(&server, "alice", box_);
    let next = hears(&alice, "what waits", |m| m.contains("Messages-Waiting: yes"));
    let expected = "Message-Account: sip:box@vmail.test\r\nFax-Message: 0/3 (0/0)\r\nText-Message: 1/0 (1/0)\r\n";
    assert!(next.contains(expected), "{next}");
    // The same again is no news.
    waits(&server, "alice", box_);
    server.restart();
    hears(&alice, "it again, from another life", |m| {
        m.contains("Messages-Waiting: yes") && header(m, "CSeq") != header(&next, "CSeq")
    });
    waits(&server, "alice", "{}");
    hears(&alice, "that nothing waits any more", |m| m.contains("Messages-Waiting: no"));
    assert_eq!(notifies(&alice).len(), 4);
    for wrong in [r#"{"messages": {"smell-message": {}}}"#, r#"{"account": "x"}"#, r#"{"more": 1}"#] {
        assert_eq!(put(&server, "users/alice/message-summary", wrong), "422");
    }
    assert_eq!(put(&server, "users/nobody/message-summary", "{}"), "404");
    eventually("one watches", SOON, || server.metric("isthmus_presence_subscriptions") == 1.0);
}

#[test]
fn twinkle_asks_and_is_told() {
    let mut server = Setup::with_users(&["alice"]).start();
    let twinkle = Twinkle::start(&server, "alice");
    twinkle.wait_for("Messages-Waiting: no");
    waits(&server, "alice", r#"{"messages": {"voice-message": {"new": 2, "old": 1, "urgent_new": 1}}}"#);
    twinkle.wait_for("Voice-Message: 2/1 (1/0)");
    server.restart();
    waits(&server, "alice", r#"{"messages": {"voice-message": {"old": 3}}}"#);
    twinkle.wait_for("Voice-Message: 0/3 (0/0)");
    // It reads them: it refuses what it does not.
    let answers = || {
        let log = twinkle.log();
        let answers = log.split("---").filter(|m| m.contains(" NOTIFY") && m.contains("Server: Twinkle"));
        answers.map(|m| m.contains("SIP/2.0 200 OK")).collect::<Vec<_>>()
    };
    eventually("it answers each", SOON, || answers().len() >= 4);
    assert!(answers().into_iter().all(|is_good| is_good), "{}", twinkle.log());
}
