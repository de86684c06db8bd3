//! Short messages in histories: what users of ours send and get, whichever way. SIPp and pycrate are phones, node-smpp is the centre, curl reads, jq
//! checks.

mod harness;

use std::time::Duration;

use harness::handset::by_pycrate;
use harness::history::{TEXTS, read};
use harness::sms::{self, NUMBER, push};
use harness::{DOMAIN, PASSWORD, Ports, Server, Sipp, bind, eventually};

const SOON: Duration = Duration::from_secs(30);
const OUTSIDE: &str = "tel:+819099999999";
const TOLD: &str = "[.messages[] | [.direction, .peer, .text]]";

/// Alice, and bob whose number is that of pushes, want their messages kept; carol does not.
struct Town {
    server: Server,
    smsc: sms::Peer,
    _ports: Ports,
}

fn town(mode: &str) -> Town {
    let ports = Ports::claim();
    let (smsc, callback) = (ports.next(), ports.next());
    let mut setup = sms::setup(smsc, callback, "");
    setup.sections += "[history]\nrate = 1000\n";
    setup.users = Vec::new();
    for (user, number, days) in [("alice", "+819012345601", 30), ("bob", NUMBER, 7), ("carol", "+819012345603", 0)] {
        setup.provisions += &format!(
            "[[user]]\nid = \"{user}\"\npassword = \"{PASSWORD}\"\nmsisdn = \"{number}\"\nhistory_days = {days}\n"
        );
    }
    // A user in the list makes the harness import the file.
    setup.users.push("dave".into());
    let server = setup.start();
    let smsc = sms::Peer::smsc(server.path(), smsc, mode);
    smsc.wait_for("bound", 1);
    Town { server, smsc, _ports: ports }
}

/// Somebody's phone sends a text to a number elsewhere.
fn sends(server: &Server, user: &str, text: &str) {
    let sipp = Sipp::new(server, "message", server.ports.next()).set("URI", OUTSIDE).set("TYPE", "text/plain");
    sipp.set("TEXT", text).set("NUMBER", "").set("CODE", 202).users(&[user]).succeed();
}

fn told(entries: &[[&str; 3]]) -> String {
    let entries: Vec<String> =
        entries.iter().map(|[way, peer, text]| format!(r#"["{way}","{peer}","{text}"]"#)).collect();
    format!("[{}]", entries.join(","))
}

#[test]
fn what_goes_outside_and_comes_from_there_is_kept() {
    let mut town = town(&NUMBER[1..]);
    let port = town.server.ports.next();
    let bob = Sipp::new(&town.server, "take_messages", port).set("CODE", 200).calls(2).start();
    bind(&town.server, "bob", port, "");
    // The centre takes nothing until the server has died: or an answer might die with it, or come twice.
    town.smsc.0.signal("STOP");
    sends(&town.server, "alice", "Is anybody there?");
    // Accepted, it is kept already.
    town.server.process.signal("KILL");
    town.server.restart();
    town.smsc.0.signal("CONT");
    assert_eq!(read(&town.server, "alice", "", TEXTS), r#"["Is anybody there?"]"#);
    sends(&town.server, "carol", "Nothing to remember");
    bob.succeed(2);
    eventually("both answers are there", SOON, || read(&town.server, "bob", "", ".messages | length") == "2");
    let from_there = ["in", OUTSIDE, "Back from outside"];
    assert_eq!(read(&town.server, "bob", "", TOLD), told(&[from_there, from_there]));
    assert_eq!(
        read(&town.server, "alice", "", ".messages[0] | [.direction, .peer]"),
        format!(r#"["out","{OUTSIDE}"]"#)
    );
    for number in ["+819099999999", "%2B81-90-9999-9999"] {
        assert_eq!(
            read(&town.server, "bob", &format!("?peer={}", number.replace('+', "%2B")), ".messages | length"),
            "2"
        );
    }
    assert_eq!(read(&town.server, "carol", "", ".messages | length"), "0");
}

#[test]
fn what_handsets_send_each_other_is_kept_once_by_both() {
    let town = town("normal");
    let bob = by_pycrate(&town.server, "bob", "ack", &[]);
    let alice = by_pycrate(&town.server, "alice", "ack", &[NUMBER, "Grüße, Bob [€]"]);
    // Kept before it is acknowledged, by both.
    alice.wait_for("read", 1);
    let [of_alice, of_bob] = ["alice", "bob"].map(|user| format!("sip:{user}@{DOMAIN}"));
    assert_eq!(read(&town.server, "alice", "", TOLD), told(&[["out", &of_bob, "Grüße, Bob [€]"]]));
    assert_eq!(bob.wait_for("read", 1)[0]["text"], "Grüße, Bob [€]");
    // What a push client tells him is from the one who says it.
    let oa = "<oa>Fleet</oa>";
    assert_eq!(push(&town.server, &sms::text("door", "Door 3 open", oa)), "0000");
    assert_eq!(bob.wait_for("read", 2)[1]["text"], "Door 3 open");
    let all = told(&[["in", "Fleet", "Door 3 open"], ["in", &of_alice, "Grüße, Bob [€]"]]);
    eventually("the push is there", SOON, || read(&town.server, "bob", "", TOLD) == all);
    assert_eq!(read(&town.server, "bob", "?peer=Fleet", TEXTS), r#"["Door 3 open"]"#);
    // A number outside: what a handset sends there is its sender's alone.
    let _tablet = by_pycrate(&town.server, "alice", "ack", &[OUTSIDE.trim_start_matches("tel:"), "Hello outside"]);
    town.smsc.wait_for("submit", 1);
    assert_eq!(read(&town.server, "alice", "?limit=1", TOLD), told(&[["out", OUTSIDE, "Hello outside"]]));
}

#[test]
fn a_long_message_is_one_however_it_comes() {
    let town = town(&format!("{}:parts", &NUMBER[1..]));
    let long = "Part 1 of a long message. Part 2 of a long message. Part 3 of a long message. ";
    let handset = by_pycrate(&town.server, "bob", "ack", &[]);
    let sent = "x".repeat(300);
    sends(&town.server, "alice", &sent);
    handset.wait_for("read", 3);
    eventually("it is whole", SOON, || read(&town.server, "bob", "", TEXTS) == format!(r#"["{long}"]"#));
    assert_eq!(read(&town.server, "alice", "", TEXTS), format!(r#"["{sent}"]"#));
    assert!(town.smsc.events("submit").len() >= 2, "it was divided for the centre");
}
