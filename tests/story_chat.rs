//! Sessions of messages that end in the server: chats with users who are away, and chat rooms (RFC 7701). SIPp makes the calls,
//! bare streams speak MSRP, tshark and xmllint read what the server writes.

mod harness;

use std::process::Command;
use std::time::Duration;

use harness::chat::{Awaited, Participant, factory, with_list};
use harness::msrp::{Frame, dissected, told};
use harness::{DOMAIN, Server, Setup, Sipp, bind, eventually};

const SOON: Duration = Duration::from_secs(20);

fn started(sections: &str) -> Server {
    let mut setup = Setup::with_users(&["alice", "bob", "carol"]).with_msrp();
    setup.sections = sections.to_owned();
    setup.start()
}

#[test]
fn a_chat_with_somebody_away_is_kept_across_a_crash_and_delivered_in_order() {
    let mut server = started("");
    let mut alice = Participant::joins(&server, "alice", &format!("sip:bob@{DOMAIN}"), "away@story");
    let bob = format!("sip:bob@{DOMAIN}");
    let from = alice.uri();
    for n in 1..=3 {
        assert_eq!(alice.says_as(&format!("say{n}000"), &from, &bob, &format!("kept {n}")), 200);
    }
    // In two chunks, the second one first, with a report wanted.
    for (id, range, text) in [("1ha1f000", "8-15/15", "and more"), ("2ha1f000", "1-7/15", "plain, ")] {
        let flag = if id.starts_with('1') { '$' } else { '+' };
        let request = format!(
            "MSRP {id} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: ha1ves00\r\nSuccess-Report: yes\r\n\
             Byte-Range: {range}\r\nContent-Type: text/plain\r\n\r\n{text}\r\n-------{id}{flag}\r\n",
            alice.to, alice.from
        );
        alice.msrp.write(request.as_bytes());
    }
    let answers: Vec<Frame> = (0..3).map(|_| alice.msrp.next()).collect();
    assert_eq!(answers.iter().map(|f| f.what.as_str()).collect::<Vec<_>>(), ["200 OK", "200 OK", "REPORT"]);
    assert_eq!((answers[2].header("Status"), answers[2].header("Byte-Range")), ("000 200 OK", "1-15/15"));
    // A message that claims to be a tebibyte is refused at its first chunk.
    let claim = format!(
        "MSRP c1a1m000 SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: huge0000\r\nByte-Range: 1-*/1099511627776\r\n\
         Content-Type: text/plain\r\n\r\nx\r\n-------c1a1m000+\r\n",
        alice.to, alice.from
    );
    alice.msrp.write(claim.as_bytes());
    assert_eq!(alice.msrp.next().what, "413 Stop Sending Message");
    dissected(server.path(), &alice.msrp);
    // What was answered with 200 is on the disk.
    server.restart();
    drop(alice.call.take());
    let port = server.ports.next();
    let phone = Sipp::new(&server, "take_messages", port).set("CODE", 200).calls(4).start();
    bind(&server, "bob", port, "");
    let seen = phone.succeed(4);
    let mut bodies: Vec<&str> = seen.received().iter().map(|m| m.trim_end().rsplit("\r\n").next().unwrap()).collect();
    bodies.dedup();
    assert_eq!(bodies, ["kept 1", "kept 2", "kept 3", "plain, and more"]);
    assert!(seen.received()[0].contains(&format!("P-Asserted-Identity: <{from}>")), "{}", seen.received()[0]);
    assert!(seen.received()[0].contains("Call-ID: 1.away@story"), "one trace from end to end");
}

#[test]
fn a_chat_with_somebody_away_ends_with_its_call() {
    let server = started("");
    let alice = Participant::joins(&server, "alice", &format!("sip:bob@{DOMAIN}"), "ends@story");
    alice.hangs_up();
    eventually("it is over", SOON, || server.metric("isthmus_chat_sessions") == 0.0);
}

#[test]
fn a_room_passes_on_what_is_said_and_keeps_private_words_private() {
    let server = started("");
    let mut alice = Participant::joins(&server, "alice", &factory(), "alice@room");
    let room = alice.room.clone();
    let mut bob = Participant::joins(&server, "bob", &room, "bob@room");
    let mut carol = Participant::joins(&server, "carol", &room, "carol@room");
    assert_eq!(alice.says("he11o000", "hello all"), 200);
    for phone in [&mut bob, &mut carol] {
        let heard = phone.hears();
        assert!(heard.contains(&format!("From: <sip:alice@{DOMAIN}>")) && heard.ends_with("hello all"), "{heard}");
    }
    // To one alone.
    let (from, to) = (bob.uri(), carol.uri());
    assert_eq!(bob.says_as("pr1vate0", &from, &to, "psst"), 200);
    assert!(carol.hears().ends_with("psst"));
    // Under another name, to nobody, in no envelope.
    assert_eq!(bob.says_as("f0rged00", &to, &room, "not me"), 403);
    assert_eq!(bob.says_as("n0b0dy00", &from, &format!("sip:dave@{DOMAIN}"), "who?"), 404);
    bob.msrp.send("bare0000", [&bob.to.clone(), &bob.from.clone()], "mbare000", "", "bare");
    assert_eq!(bob.msrp.next().what, "415 Unsupported Media Type");
    // Names that look alike are alike, and some phones write no quotes.
    assert_eq!((alice.nickname("n1ck0000", "Dopey Donkey"), bob.nickname("n1ck0001", "dopey  donkey")), (200, 425));
    let bare = format!(
        "MSRP n1ck0004 NICKNAME\r\nTo-Path: {}\r\nFrom-Path: {}\r\nUse-Nickname: Dopey Donkey\r\n-------n1ck0004$\r\n",
        bob.to, bob.from
    );
    bob.msrp.write(bare.as_bytes());
    assert_eq!(bob.msrp.next().status(), 425);
    assert_eq!((bob.nickname("n1ck0002", "Alice the great"), carol.nickname("n1ck0003", "")), (200, 200));
    // One who leaves hears no more; the others do.
    carol.hangs_up();
    assert_eq!(bob.says("st1ll000", "still here"), 200);
    let heard = alice.hears();
    assert!(heard.ends_with("still here"), "nothing of the private word came before: {heard}");
    for phone in [&alice, &bob] {
        dissected(server.path(), &phone.msrp);
    }
    alice.hangs_up();
    bob.hangs_up();
}

#[test]
fn chunks_that_overlap_are_one_message_and_one_without_an_end_is_none() {
    let server = started("");
    let mut alice = Participant::joins(&server, "alice", &factory(), "alice@chunks");
    let room = alice.room.clone();
    let mut bob = Participant::joins(&server, "bob", &room, "bob@chunks");
    let body = format!("From: <{}>\r\nTo: <{room}>\r\n\r\nContent-Type: text/plain\r\n\r\nonce and whole", bob.uri());
    let chunk = |id: &str, from: usize, to: usize, end: &str| {
        format!(
            "MSRP {id} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: 0verlaps\r\nByte-Range: {from}-{to}/{}\r\n\
             Content-Type: message/cpim\r\n\r\n{}\r\n{end}",
            bob.to,
            bob.from,
            body.len(),
            &body[from - 1..to]
        )
    };
    let chunks =
        [chunk("0ver1ap1", 1, 60, "-------0ver1ap1+\r\n"), chunk("0ver1ap2", 41, body.len(), "-------0ver1ap2$\r\n")];
    let endless = chunk("n0end000", 1, body.len(), "");
    for chunk in &chunks {
        bob.msrp.write(chunk.as_bytes());
        assert_eq!(bob.msrp.next().status(), 200);
    }
    assert!(alice.hears().ends_with("\r\n\r\nonce and whole"));
    // What follows is taken for more of it, until the connection ends.
    bob.msrp.write(endless.as_bytes());
    bob.msrp.write(chunks[1].as_bytes());
    drop(bob);
    let mut tablet = Participant::joins(&server, "bob", &room, "tablet@chunks");
    assert_eq!(tablet.says("tab1et00", "next"), 200);
    assert!(alice.hears().ends_with("\r\n\r\nnext"));
    [alice, tablet].into_iter().for_each(Participant::hangs_up);
}

#[test]
fn a_room_outlives_the_server() {
    let mut server = started("");
    let mut alice = Participant::joins(&server, "alice", &factory(), "alice@lasting");
    let room = alice.room.clone();
    // It is stored before its first INVITE is answered.
    server.restart();
    drop(alice.call.take());
    let mut bob = Participant::joins(&server, "bob", &room, "bob@lasting");
    let mut alice = Participant::joins(&server, "alice", &room, "alice@again");
    assert_eq!(bob.says("back0000", "back again"), 200);
    assert!(alice.hears().ends_with("back again"));
    bob.hangs_up();
    alice.hangs_up();
}

#[test]
fn who_watches_a_room_hears_who_comes_and_goes() {
    let server = started("");
    let mut alice = Participant::joins(&server, "alice", &factory(), "alice@watched");
    let room = alice.room.clone();
    let user = room.trim_start_matches("sip:").split('@').next().unwrap().to_owned();
    let watcher = Sipp::new(&server, "watch", server.ports.next()).set("USER", user);
    let watcher =
        watcher.set("EVENT", "conference").set("ACCEPT", "application/conference-info+xml").set("EXPIRES", 60);
    let watcher = watcher.users(&["alice"]).start();
    told(&watcher, "Event: conference");
    assert_eq!(alice.nickname("n1ck0000", "Dopey Donkey"), 200);
    let bob = Participant::joins(&server, "bob", &room, "bob@watched");
    let log = watcher.base.with_file_name(format!("{}.msg", watcher.base.file_name().unwrap().to_string_lossy()));
    // Each once: a NOTIFY may be sent again.
    let documents = || -> Vec<String> {
        let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
        let whole = |part: &str| Some(part[..part.find("</conference-info>")? + 18].to_owned());
        let mut all: Vec<_> = text.split("<?xml").skip(1).filter_map(whole).map(|d| format!("<?xml{d}")).collect();
        all.dedup();
        all
    };
    let entity = |user: &str| format!("entity=\"sip:{user}@{DOMAIN}\" state=\"full\"");
    eventually("bob's coming is told", SOON, || documents().iter().any(|d| d.contains(&entity("bob"))));
    bob.hangs_up();
    let gone = format!("entity=\"sip:bob@{DOMAIN}\" state=\"deleted\"");
    eventually("bob's going is told", SOON, || documents().iter().any(|d| d.contains(&gone)));
    let again = Sipp::new(&server, "watch_refreshed", server.ports.next()).set("URI", &room).set("EVENT", "conference");
    again.set("ACCEPT", "application/conference-info+xml").users(&["carol"]).succeed();
    let all = documents();
    assert!(all[0].contains("state=\"full\" version=\"1\"") && all[0].contains(&entity("alice")), "{}", all[0]);
    assert!(all[1..].iter().all(|d| d.contains("state=\"partial\"")), "{all:?}");
    assert!(all.iter().any(|d| d.contains("xcon:nickname=\"Dopey Donkey\"")), "{all:?}");
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schema/conference-info.xsd");
    for (n, document) in all.iter().enumerate() {
        let file = server.path().join(format!("info{n}.xml"));
        std::fs::write(&file, document).unwrap();
        let checked =
            Command::new("xmllint").args(["--noout", "--nonet", "--schema", schema]).arg(&file).output().unwrap();
        assert!(checked.status.success(), "{}\n{document}", String::from_utf8_lossy(&checked.stderr));
    }
    alice.hangs_up();
}

#[test]
fn others_are_asked_in_by_a_list_and_by_refer() {
    let server = started("");
    let bob = Awaited::user(&server, "bob");
    let bobs = format!("sip:bob@{DOMAIN}");
    let mut alice =
        Participant::joins_with(&server, "alice", &factory(), "alice@list", |sipp| with_list(sipp, &[&bobs]));
    let mut bob = bob.comes();
    let carol = Awaited::user(&server, "carol");
    // Not everybody may come in, nor ask others in: it is a room by invitation.
    refer(&server, "alice", &alice.room, &format!("sip:carol@{DOMAIN}"), "200 OK");
    let mut carol = carol.comes();
    assert_eq!(alice.says("he11o000", "welcome"), 200);
    for phone in [&mut bob, &mut carol] {
        assert!(phone.hears().ends_with("welcome"));
        dissected(server.path(), &phone.msrp);
    }
    alice.hangs_up();
}

/// `user` has a room ask `whom` in, or out, and hears that it ended so.
fn refer(server: &Server, user: &str, room: &str, whom: &str, end: &str) {
    let sipp = Sipp::new(server, "refer", server.ports.next()).set("URI", room).set("WHOM", whom).set("FINAL", end);
    sipp.users(&[user]).succeed();
}

#[test]
fn who_opened_a_room_has_others_leave_it_for_good() {
    let server = started("");
    let [bob, carol] = ["bob", "carol"].map(|user| Awaited::user(&server, user));
    let [bobs, carols] = ["bob", "carol"].map(|user| format!("sip:{user}@{DOMAIN}"));
    let mut alice =
        Participant::joins_with(&server, "alice", &factory(), "alice@host", |sipp| with_list(sipp, &[&bobs, &carols]));
    let (bob, mut carol) = (bob.comes(), carol.comes());
    let room = alice.room.clone();
    // It is not for everybody in it to say.
    let refused = Sipp::new(&server, "refer_refused", server.ports.next()).set("URI", &room).set("CODE", 403);
    refused.set("WHOM", format!("{bobs};method=BYE")).users(&["carol"]).succeed();
    refer(&server, "alice", &room, &format!("{bobs};method=BYE"), "200 OK");
    bob.hung_up_on();
    refer(&server, "alice", &room, &format!("{bobs};method=BYE"), "404 Not Found");
    let back = Sipp::new(&server, "call_final", server.ports.next()).set("URI", &room).set("CODE", 403);
    back.users(&["bob"]).succeed();
    assert_eq!(alice.says("he11o000", "without bob"), 200);
    assert!(carol.hears().ends_with("without bob"));
    alice.hangs_up();
}

#[test]
fn a_device_that_comes_again_takes_the_place_of_its_dead_session() {
    let server = started("");
    let port = server.ports.next();
    let mut alice = Participant::joins_from(&server, port, "alice", &factory(), "alice@first", |sipp| sipp);
    let mut bob = Participant::joins(&server, "bob", &alice.room, "bob@first");
    let members = |count: f64| {
        let there = || server.metric("isthmus_chat_rooms{what=\"members\"}") == count;
        eventually(&format!("{count} are in it"), SOON, there);
    };
    members(2.0);
    // The battery is out: no BYE, and nobody closes the connection.
    drop(alice.call.take());
    let mut again = Participant::joins_from(&server, port, "alice", &alice.room, "alice@second", |sipp| sipp);
    alice.msrp.closed(SOON);
    members(2.0);
    assert_eq!(bob.says("once0000", "to one of you"), 200);
    assert!(again.hears().ends_with("to one of you"));
    // The other device of a user is no reason to go.
    let mut tablet = Participant::joins(&server, "bob", &again.room, "bob@tablet");
    assert_eq!(again.says("b0th0000", "to both of you"), 200);
    for phone in [&mut bob, &mut tablet] {
        assert!(phone.hears().ends_with("to both of you"));
    }
    members(3.0);
    [again, bob, tablet].into_iter().for_each(Participant::hangs_up);
    members(0.0);
}

#[test]
fn one_who_takes_nothing_is_hung_up_on_and_holds_nobody_up() {
    let server = started("[conference]\nmax_message = \"1 MiB\"\n");
    let mut alice = Participant::joins(&server, "alice", &factory(), "alice@slow");
    let room = alice.room.clone();
    let mut bob = Participant::joins(&server, "bob", &room, "bob@slow");
    let _carol = Participant::joins(&server, "carol", &room, "carol@slow");
    let text = "x".repeat(500_000);
    let mut said = 0;
    // Carol reads nothing: what waits for her is bounded, and bob hears everything all the while.
    eventually("carol is gone", Duration::from_secs(50), || {
        said += 1;
        assert_eq!(alice.says(&format!("f100d{said:03}"), &text), 200);
        assert!(bob.hears().ends_with(&text));
        server.metric("isthmus_chat_rooms_total{kind=\"congested\"}") > 0.0
    });
}
