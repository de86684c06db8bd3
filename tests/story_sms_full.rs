//! A store that does not keep up (its file is locked by somebody else, as a backup may do): what cannot be kept is refused, and said so.

mod harness;

use std::process::Command;
use std::time::Duration;

use harness::developer::{CLIENT, ask, token, with_client};
use harness::sms::{Peer, SECRET, XPID, field, post_with, push, setup, text};
use harness::{Ports, Process, eventually};
use serde_json::json;

#[test]
fn what_the_store_has_no_room_for_is_5002_and_comes_again_later() {
    let ports = Ports::claim();
    let (smsc, callback) = (ports.next(), ports.next());
    let server = with_client(setup(smsc, callback, ""), CLIENT, "destinations = [\"+\"]").start();
    let mine = token(&server, CLIENT);
    assert_eq!(push(&server, &text("before", "x", "")), "0000");

    let lock = "import sqlite3, sys, time\n\
         file = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n\
         file.execute('BEGIN IMMEDIATE')\n\
         print('{\"event\": \"ready\"}', flush=True)\n\
         time.sleep(600)";
    let mut command = Command::new("python3");
    command.args(["-c", lock]).arg(server.path().join("data/sms.db"));
    let mut locker = Peer::ready(Process::start("locker", server.path(), &mut command));

    // A hundred recipients and ten segments each: half a megabyte a message.
    let body = |n: usize| {
        let to: Vec<String> = (0..100).map(|r| format!("+8180{:08}", n * 100 + r)).collect();
        json!({ "to": to, "message": "a".repeat(1530) }).to_string()
    };
    let basic = format!("{XPID}:{SECRET}");
    let answers = std::thread::scope(|scope| {
        let (server, mine, body) = (&server, &mine, &body);
        let all: Vec<_> = (0..60)
            .map(|n| scope.spawn(move || ask(server, mine, "POST", "/sms/v1/messages", &body(n), &[])))
            .collect();
        let mut tries = 0;
        eventually("there is no room", Duration::from_secs(60), || {
            tries += 1;
            // It waits for the lock as long as there is room for it.
            let arguments = ["-i", "-m", "1", "-u", &basic, "-H", "Content-Type: text/xml"];
            let (_, said) = post_with(server, &text(&format!("full-{tries}"), "x", ""), &arguments);
            let (head, answer) = said.split_once("\r\n\r\n").unwrap_or_default();
            let full = field(answer, "code") == "5002";
            if full {
                let head = head.to_ascii_lowercase();
                assert!(head.starts_with("http/1.1 503") && head.contains("\r\nretry-after: 5"), "{head}");
            }
            full
        });
        locker.0.kill();
        all.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()
    });
    let refused: Vec<_> = answers.iter().filter(|a| a.status == 503).collect();
    assert!(!refused.is_empty() && answers.iter().any(|a| a.status == 201), "{answers:?}");
    assert!(refused.iter().all(|a| a.refusal().1 == "UNAVAILABLE" && a.header("retry-after") == "5"), "{refused:?}");
    // It goes on by itself.
    let mut after = 0;
    eventually("there is room again", Duration::from_secs(60), || {
        after += 1;
        push(&server, &text(&format!("after-{after}"), "x", "")) == "0000"
    });
    // What was accepted is there, whole.
    let accepted = answers.iter().find(|a| a.status == 201).unwrap();
    let shown = ask(&server, &mine, "GET", accepted.header("location"), "", &[]).json();
    let recipients = shown["recipients"].as_array().unwrap();
    assert!(
        recipients.len() == 100 && recipients.iter().all(|r| r["segments"] == 10 && r["status"] == "QUEUED"),
        "{shown}"
    );
}
