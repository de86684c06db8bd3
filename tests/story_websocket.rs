//! A browser's SIP stack (JsSIP) over a WebSocket: it registers, and messages go both ways between it and a phone. Inside
//! real browsers it calls another.

mod harness;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::browser::browser;
use harness::{DOMAIN, PASSWORD, Process, Setup, Sipp};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn browser_registers_and_messages_go_both_ways() {
    let server = Setup::with_users(&["alice", "bob"]).start();
    let port = server.ports.next();
    let phone = Sipp::new(&server, "take_messages", port).set("CODE", 200).start();
    let bind = Sipp::new(&server, "register", server.ports.next())
        .set("CONTACT", format!("127.0.0.1:{port}"))
        .set("PARAMS", "");
    bind.set("EXPIRES", 600).users(&["bob"]).succeed();

    let mut alice = browser(&server, "alice", PASSWORD, &format!("sip:bob@{DOMAIN}"), "");
    alice.wait_for("registered", LIMIT);
    alice.wait_for("sent", LIMIT);
    let seen = phone.succeed(1);
    assert!(seen.received()[0].contains("hello from the browser"), "{}", seen.received()[0]);

    let answer = Sipp::new(&server, "message", server.ports.next()).set("URI", format!("sip:alice@{DOMAIN}"));
    answer.set("TEXT", "hello from the desk").set("CODE", 200).users(&["bob"]).succeed();
    alice.wait_for("got hello from the desk", LIMIT);
}

#[test]
fn browser_with_wrong_password_is_refused() {
    let server = Setup::with_users(&["alice"]).start();
    let mut alice = browser(&server, "alice", "guess", "", "");
    let said = alice.wait_for("failed", LIMIT);
    assert!(!said.contains("registered"), "{said}");
}

/// Two JsSIP user agents in headless Chromium, alice over a secure WebSocket, bob over a plain one: a call each way, with sound.
#[test]
fn browsers_call_one_another_and_hear_each_other() {
    let server = Setup::with_users(&["alice", "bob"]).start();
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    let installed = |package: &str| node.join("node_modules").join(package).exists();
    assert!(["jssip", "playwright-core", "esbuild"].into_iter().all(installed), "tests/run gets what tests/node needs");
    let mut command = Command::new("node");
    command.arg("webrtc.js").arg(format!("wss://127.0.0.1:{}/sip", server.https));
    command.arg(format!("ws://127.0.0.1:{}/sip", server.http)).args([PASSWORD, DOMAIN]).current_dir(&node);
    let mut browsers = Process::start("browsers", server.path(), &mut command);
    let said = browsers.wait_for("done", Duration::from_secs(180));
    for line in ["alice hears audio", "bob hears audio"] {
        assert_eq!(said.matches(line).count(), 2, "{said}");
    }
    assert!(said.contains("the caller hung up") && said.contains("the callee hung up"), "{said}");
    let (_, metrics) = server.admin("/metrics");
    for method in ["INVITE", "ACK", "BYE"] {
        let sent = metrics.lines().filter(|l| {
            l.starts_with("isthmus_sip_messages_total{direction=\"out\"") && l.contains(&format!("method=\"{method}\""))
        });
        let count: f64 = sent.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        assert!(count >= 2.0, "each {method} goes by way of the server:\n{metrics}");
    }
}
