//! Histories: what users say and are told is kept for those who want it, and for nobody else. SIPp talks, curl reads, jq checks.

mod harness;

use std::net::TcpListener;
use std::time::Duration;

use harness::chat::{Participant, factory};
use harness::faketime::under;
use harness::history::{TEXTS, jq, read, reader};
use harness::msrp::{Session, Stream};
use harness::sipp::Running;
use harness::xcap::Client;
use harness::{DOMAIN, PASSWORD, Server, Setup, Sipp, bind, eventually};

const SOON: Duration = Duration::from_secs(30);

/// Alice and bob want their messages kept, carol does not.
fn setup() -> Setup {
    let mut setup = Setup::with_users(&["carol"]);
    for (user, days) in [("alice", 30), ("bob", 7)] {
        setup.provisions += &format!("[[user]]\nid = \"{user}\"\npassword = \"{PASSWORD}\"\nhistory_days = {days}\n");
    }
    setup.sections = "[history]\nrate = 1000\n".into();
    setup
}

/// Somebody writes, and gets this status.
fn writes(server: &Server, [from, to]: [&str; 2], content_type: &str, text: &str, status: u16) {
    let sipp = Sipp::new(server, "message", server.ports.next()).set("URI", format!("sip:{to}@{DOMAIN}"));
    let sipp = sipp.set("TYPE", content_type).set("TEXT", text).set("NUMBER", "").set("CODE", status);
    sipp.users(&[from]).succeed();
}

/// A user's phone, which takes so many messages.
fn phone(server: &Server, user: &str, messages: u32) -> Running {
    let port = server.ports.next();
    let phone = Sipp::new(server, "take_messages", port).set("CODE", 200).calls(messages).start();
    bind(server, user, port, "");
    phone
}

#[test]
fn delivered_messages_are_kept_for_those_who_want_it() {
    let server = setup().start();
    let phone = phone(&server, "bob", 4);
    writes(&server, ["alice", "bob"], "text/plain", "one", 200);
    writes(&server, ["carol", "bob"], "text/plain;charset=utf-8", "two", 200);
    // Sent again by its client, it is there once; its envelope is taken off.
    let envelope = format!(
        "From: <sip:alice@{DOMAIN}>\nTo: <sip:bob@{DOMAIN}>\nNS: imdn <urn:ietf:params:imdn>\nimdn.Message-ID: m3\n\n\
         Content-Type: text/plain\n\nthree"
    );
    writes(&server, ["alice", "bob"], "message/cpim", &envelope, 200);
    writes(&server, ["alice", "bob"], "message/cpim", &envelope, 200);
    phone.succeed(4);
    // Nobody got this one.
    writes(&server, ["alice", "nobody"], "text/plain", "lost", 404);

    // Four of bob's and three of alice's: what is sent again is counted again.
    let kept = || server.metric("isthmus_history_messages_total{fate=\"kept\"}");
    eventually("all are there", SOON, || kept() == 7.0);
    assert_eq!(read(&server, "bob", "", TEXTS), r#"["three","two","one"]"#);
    assert_eq!(read(&server, "alice", "", TEXTS), r#"["three","one"]"#);
    assert_eq!(read(&server, "carol", "", ".messages | length"), "0");
    let shape = r#"[.messages[] | (.id | test("^[0-9]+$")) and (.time | test("^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}[.][0-9]{3}Z$"))] | all"#;
    assert_eq!(read(&server, "bob", "", shape), "true");
    let first = format!(r#"["out","sip:bob@{DOMAIN}","text/plain","m3"]"#);
    assert_eq!(read(&server, "alice", "", ".messages[0] | [.direction, .peer, .content_type, .message_id]"), first);
    let second = format!(r#"["in","sip:carol@{DOMAIN}","text/plain;charset=utf-8"]"#);
    assert_eq!(read(&server, "bob", "", ".messages[1] | [.direction, .peer, .content_type]"), second);
    assert_eq!(kept(), 7.0);
}

#[test]
fn what_is_acknowledged_as_kept_is_in_the_history_after_kill_9() {
    let mut server = setup().start();
    for text in ["one", "two", "three"] {
        writes(&server, ["alice", "bob"], "text/plain", text, 202);
        server.restart();
        assert_eq!(read(&server, "alice", "", ".messages[0].text"), text);
    }
    assert_eq!(read(&server, "bob", "", TEXTS), r#"["three","two","one"]"#);
    // Delivered, they are not in it again.
    phone(&server, "bob", 3).succeed(3);
    assert_eq!(read(&server, "bob", "", ".messages | length"), "3");
}

#[test]
fn a_history_is_its_owners_in_pages_and_goes_on_demand() {
    let server = setup().start();
    for n in 1..=5 {
        writes(&server, ["alice", "bob"], "text/plain", &format!("bob {n}"), 202);
        writes(&server, ["alice", "carol"], "text/plain", &format!("carol {n}"), 202);
    }
    let alice = reader(&server, "alice");
    let mut seen = Vec::new();
    let mut query = "?limit=4".to_owned();
    loop {
        let page = alice.get(&query).body;
        seen.push(jq(&page, TEXTS));
        match jq(&page, ".next // empty") {
            next if next.is_empty() => break,
            next => query = format!("?limit=4&cursor={next}"),
        }
    }
    let pages = [
        r#"["carol 5","bob 5","carol 4","bob 4"]"#,
        r#"["carol 3","bob 3","carol 2","bob 2"]"#,
        r#"["carol 1","bob 1"]"#,
    ];
    assert_eq!(seen, pages);
    // By peer, however that is written; by time.
    for peer in [format!("sip:bob@{DOMAIN}"), format!("bob@{DOMAIN}"), format!("sips:bob@{DOMAIN}:5061")] {
        assert_eq!(read(&server, "alice", &format!("?peer={peer}"), ".messages | length"), "5", "{peer}");
    }
    let time = jq(&alice.get("").body, ".messages[6].time");
    assert_eq!(read(&server, "alice", &format!("?until={time}&limit=1"), TEXTS), r#"["bob 2"]"#);
    assert_eq!(read(&server, "alice", &format!("?since={time}"), ".messages | length"), "7");
    // Nobody reads another's.
    let id = jq(&alice.get("").body, ".messages[0].id");
    assert_eq!(jq(&alice.get(&id).body, ".text"), "carol 5");
    let bob = reader(&server, "bob");
    assert_eq!((bob.get(&id).status, bob.delete(&id).status), (404, 404));
    let nobody = Client::nobody(&server).below("history");
    assert_eq!((nobody.get("").status, nobody.delete("").status), (401, 401));
    // What cannot be read takes nothing away.
    for bad in ["?per=sip:bob@x", "?limit=0", "?limit=201", "?cursor=x", "?since=yesterday", "?peer="] {
        assert_eq!(alice.get(bad).status, 400, "{bad}");
    }
    assert_eq!((alice.delete("?per=sip:bob@x").status, alice.get("x").status), (400, 404));
    // One, a conversation, all.
    assert_eq!((alice.delete(&id).status, alice.delete(&id).status), (204, 404));
    assert_eq!(jq(&alice.delete(&format!("?peer=bob@{DOMAIN}")).body, ".removed"), "5");
    assert_eq!(read(&server, "alice", "", TEXTS), r#"["carol 4","carol 3","carol 2","carol 1"]"#);
    assert_eq!(jq(&alice.delete("").body, ".removed"), "4");
    assert_eq!(read(&server, "alice", "", TEXTS), "[]");
    assert_eq!(read(&server, "bob", "", ".messages | length"), "5", "hers is not his");

    // It goes with its owner.
    server.command(&["user", "remove", "bob", "--config", "isthmus.toml"]);
    eventually("bob is gone", SOON, || reader(&server, "bob").get("").status == 401);
    server.command(&["import", "users.toml", "--config", "isthmus.toml"]);
    eventually("bob is back, without a history", SOON, || {
        let told = reader(&server, "bob").get("");
        told.status == 200 && jq(&told.body, ".messages | length") == "0"
    });
}

#[test]
fn what_is_said_in_sessions_is_kept_too() {
    let server = setup().with_msrp().start();
    // To bob, who is away: this server answers.
    let own = "msrp://127.0.0.1:9/alice5s93;tcp";
    let section = |port: u16, path: &str| {
        format!("m=message {port} TCP/MSRP *\na=accept-types:text/plain message/cpim\na=path:{path}")
    };
    let caller = Sipp::new(&server, "session", server.ports.next()).set("MEDIA", section(9, own));
    let caller = caller.set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"]).start();
    let to_us = harness::msrp::told(&caller, "a=path:");
    let mut alice = Stream::connect(server.msrp[0]);
    alice.send("away0001", [&to_us, own], "maway0001", "", "are you there?");
    assert_eq!(alice.next().what, "200 OK");
    for user in ["alice", "bob"] {
        assert_eq!(read(&server, user, "", TEXTS), r#"["are you there?"]"#);
    }
    drop((alice, caller));
    phone(&server, "bob", 1).succeed(1);

    // And with bob.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let bobs = format!("msrp://127.0.0.1:{port}/bob9di4eae923wzd;tcp");
    let session = Session::open(&server, ["-cid_str", "history-1"], &section(9, own), &section(port, &bobs));
    let to_us = session.caller_is_told("a=path:");
    let mut alice = Stream::connect(server.msrp[0]);
    alice.greet("al1c3000", [&to_us, own]);
    assert_eq!(alice.next().what, "200 OK");
    let mut bob = Stream::accept(&listener);
    assert_eq!(bob.next_answering().body, None);
    // In two chunks, as somebody who is interrupted sends it.
    for (id, range, piece, flag) in [("chunk001", "1-5/10", "good ", '+'), ("chunk002", "6-10/10", "night", '$')] {
        alice.write(
            format!(
                "MSRP {id} SEND\r\nTo-Path: {to_us}\r\nFrom-Path: {own}\r\nMessage-ID: mnight001\r\nByte-Range: {range}\r\n\
                 Content-Type: text/plain\r\n\r\n{piece}\r\n-------{id}{flag}\r\n"
            )
            .as_bytes(),
        );
        assert_eq!(alice.next().what, "200 OK");
        bob.next_answering();
    }
    let to_alice = session.callee_is_told("a=path:");
    bob.send("b0b00001", [&to_alice, &bobs], "mb0b00001", "", "and you");
    assert_eq!(bob.next().what, "200 OK");
    alice.next_answering();
    session.hang_up();
    let all = r#"["and you","good night","are you there?"]"#;
    for (user, directions) in [("alice", r#"["in","out","out"]"#), ("bob", r#"["out","in","in"]"#)] {
        eventually("all is there", SOON, || read(&server, user, "", TEXTS) == all);
        assert_eq!(read(&server, user, "", "[.messages[].direction]"), directions);
    }
}

#[test]
fn what_is_said_in_a_session_that_the_callee_offers_is_kept_too() {
    let server = setup().with_msrp().start();
    // Who offers connects.
    let bobs = "msrp://127.0.0.1:9/bob9di4eae923wzd;tcp";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let alices = format!("msrp://127.0.0.1:{port}/alice5s93;tcp");
    let section =
        |port: u16, path: &str| format!("m=message {port} TCP/MSRP *\na=accept-types:text/plain\na=path:{path}");
    let scenarios = ["session_bare", "session_answer"];
    let (answer, offer) = (section(port, &alices), section(9, bobs));
    let session = Session::as_in(&server, ["-cid_str", "history-bare"], scenarios, &answer, &offer, |sipp| sipp);
    let (to_bob, to_alice) = (session.caller_is_told("a=path:"), session.callee_is_told("a=path:"));
    let mut bob = Stream::joining(server.msrp[0], [&to_alice, bobs]);
    let mut alice = Stream::accept(&listener);
    alice.next_answering();
    alice.send("al1ce001", [&to_bob, &alices], "mal1ce001", "", "you have the word");
    assert_eq!(alice.next().what, "200 OK");
    bob.next_answering();
    bob.send("b0b00001", [&to_alice, bobs], "mb0b00001", "", "thank you");
    assert_eq!(bob.next().what, "200 OK");
    alice.next_answering();
    session.hang_up();
    let told = "[.messages[] | [.direction, .peer, .text]]";
    for (user, peer, ways) in [("alice", "bob", ["in", "out"]), ("bob", "alice", ["out", "in"])] {
        let said = |way: &str, text: &str| format!(r#"["{way}","sip:{peer}@{DOMAIN}","{text}"]"#);
        let all = format!("[{},{}]", said(ways[0], "thank you"), said(ways[1], "you have the word"));
        eventually("both are there", SOON, || read(&server, user, "", told) == all);
    }
}

#[test]
fn what_is_said_in_rooms_is_kept_with_who_said_it() {
    let server = setup().with_msrp().start();
    let mut carol = Participant::joins(&server, "carol", &factory(), "carol@history");
    let room = carol.room.clone();
    let mut alice = Participant::joins(&server, "alice", &room, "alice@history");
    let mut bob = Participant::joins(&server, "bob", &room, "bob@history");
    // Of two devices of hers that hear it, one history.
    let mut tablet = Participant::joins(&server, "alice", &room, "tablet@history");
    assert_eq!(carol.says("c4r0l000", "hello all"), 200);
    for phone in [&mut alice, &mut tablet, &mut bob] {
        assert!(phone.hears().ends_with("hello all"));
    }
    assert_eq!(bob.says("b0b00000", "hello carol"), 200);
    for phone in [&mut alice, &mut tablet, &mut carol] {
        assert!(phone.hears().ends_with("hello carol"));
    }
    // To one alone.
    let (from, to) = (bob.uri(), alice.uri());
    assert_eq!(bob.says_as("pr1vate0", &from, &to, "psst"), 200);
    for phone in [&mut alice, &mut tablet] {
        assert!(phone.hears().ends_with("psst"));
    }
    let all = r#"["psst","hello carol","hello all"]"#;
    let (carol_uri, bob_uri) = (carol.uri(), bob.uri());
    let id = room.strip_prefix("sip:").and_then(|r| r.split('@').next()).unwrap();
    let told = "[.messages[] | [.direction, .peer, .speaker]]";
    for (user, way, other) in [("alice", "in", &bob_uri), ("bob", "out", &to)] {
        eventually("all is there", SOON, || read(&server, user, "", TEXTS) == all);
        let of_room = |way: &str, speaker: &str| format!(r#"["{way}","sip:{id}@{DOMAIN}","{speaker}"]"#);
        let (second, first) = (of_room(way, &bob_uri), of_room("in", &carol_uri));
        assert_eq!(read(&server, user, "", told), format!(r#"[["{way}","{other}",null],{second},{first}]"#));
        assert_eq!(read(&server, user, &format!("?peer={room}"), ".messages | length"), "2");
    }
    assert_eq!(read(&server, "carol", "", ".messages | length"), "0");
    [carol, alice, bob, tablet].into_iter().for_each(Participant::hangs_up);
}

#[test]
fn what_was_said_is_forgotten_when_its_days_are_over() {
    let mut setup = setup().with_msrp();
    setup.under = under("2026-11-01 12:00:00");
    let mut server = setup.start();
    let mut carol = Participant::joins(&server, "carol", &factory(), "carol@days");
    let room = carol.room.clone();
    let mut alice = Participant::joins(&server, "alice", &room, "alice@days");
    let mut bob = Participant::joins(&server, "bob", &room, "bob@days");
    assert_eq!(carol.says("c4r0l000", "to the room"), 200);
    for phone in [&mut alice, &mut bob] {
        assert!(phone.hears().ends_with("to the room"));
    }
    writes(&server, ["alice", "bob"], "text/plain", "to bob", 202);
    [carol, alice, bob].into_iter().for_each(Participant::hangs_up);
    let both = r#"["to bob","to the room"]"#;
    let mut at = |time: &str, [of_alice, of_bob]: [&str; 2]| {
        server.setup.under = under(time);
        server.restart();
        for (user, texts) in [("alice", of_alice), ("bob", of_bob)] {
            eventually(&format!("{user} has {texts} at {time}"), SOON, || read(&server, user, "", TEXTS) == texts);
        }
    };
    // He wants seven days, she thirty; each is a few minutes longer than the story.
    at("2026-11-08 11:59:00", [both, both]);
    at("2026-11-08 12:10:00", [both, "[]"]);
    at("2026-12-01 11:59:00", [both, "[]"]);
    at("2026-12-01 12:10:00", ["[]", "[]"]);
}

#[test]
fn what_does_not_pass_is_in_no_history() {
    let mut setup = setup();
    setup.sections += "[content]\nrefused_types = [\"text/html\"]\n[content.messages]\njudge = \"all\"\n";
    let server = setup.start();
    writes(&server, ["alice", "bob"], "text/html", "no", 415);
    writes(&server, ["alice", "bob"], "text/plain", "yes", 202);
    assert_eq!(read(&server, "alice", "", TEXTS), r#"["yes"]"#);
}
