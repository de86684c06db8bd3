//! Messaging sessions (RFC 4975) through the anchor: SIPp makes the calls, bare streams speak MSRP, tshark reads the wire.

mod harness;

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use harness::digest::{hash, quoted};
use harness::msrp::{Frame, Session, Stream, dissected};
use harness::tls::shown_certificate;
use harness::{DOMAIN, PASSWORD, Server, Setup, Sipp, bind, eventually};

/// BYE ends both legs within this time.
const CLOSED: Duration = Duration::from_secs(20);

/// A server with MSRP doors: plain, TLS.
fn started(more: &str) -> (Server, [u16; 2]) {
    let server = Setup { msrp: Some(more.to_owned()), ..Setup::with_users(&["alice", "bob"]) }.start();
    let doors = server.msrp;
    (server, doors)
}

fn section(port: u16, path: &str, more: &str) -> String {
    format!("m=message {port} TCP/MSRP *\na=accept-types:message/cpim text/plain\na=path:{path}{more}")
}

/// Both legs up: alice's stream and bob's, and the four URIs.
struct Chat {
    alice: Stream,
    bob: Stream,
    /// Alice's own URI and ours towards her; bob's and ours towards him.
    alice_uri: String,
    to_us_from_alice: String,
    bob_uri: String,
    to_us_from_bob: String,
    greeting: Frame,
}

const ALICE: &str = "msrp://127.0.0.1:9/alice5s93;tcp";

/// The common case: alice connects to the server, the server connects to bob.
fn chat(server: &Server, door: u16, call_id: [&'static str; 2]) -> (Session, Chat) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let bob_uri = format!("msrp://127.0.0.1:{port}/bob9di4eae923wzd;tcp");
    let session = Session::open(server, call_id, &section(9, ALICE, ""), &section(port, &bob_uri, ""));
    let to_us_from_alice = session.caller_is_told("a=path:");
    let to_us_from_bob = session.callee_is_told("a=path:");
    let alice = Stream::joining(door, [&to_us_from_alice, ALICE]);
    let mut bob = Stream::accept(&listener);
    let greeting = bob.next_answering();
    let alice_uri = ALICE.to_owned();
    (session, Chat { alice, bob, alice_uri, to_us_from_alice, bob_uri, to_us_from_bob, greeting })
}

impl Chat {
    /// To-Path and From-Path of what alice sends.
    fn alices(&self) -> [String; 2] {
        [self.to_us_from_alice.clone(), self.alice_uri.clone()]
    }

    fn bobs(&self) -> [String; 2] {
        [self.to_us_from_bob.clone(), self.bob_uri.clone()]
    }
}

fn paths(of: &[String; 2]) -> [&str; 2] {
    [&of[0], &of[1]]
}

#[test]
fn a_chat_goes_through_with_its_message_ids_and_ends_with_the_call() {
    let (server, [door, _]) = started("");
    let (session, mut chat) = chat(&server, door, ["-cid_str", "chat-1"]);
    // The active end begins with an empty SEND (RFC 4975 §5.4).
    assert_eq!((chat.greeting.what.as_str(), &chat.greeting.body), ("SEND", &None));
    assert_eq!(chat.greeting.header("To-Path"), chat.bob_uri);
    assert_eq!(chat.greeting.header("From-Path"), chat.to_us_from_bob);
    assert_ne!(chat.to_us_from_bob, chat.to_us_from_alice, "each side has a URI of its own");

    let from = chat.alices();
    chat.alice.send("a786hjs2", paths(&from), "87652491", "Success-Report: yes\r\n", "Hey Bob, are you there?");
    let got = chat.bob.next_answering();
    assert_eq!((got.what.as_str(), got.text().as_str(), got.flag), ("SEND", "Hey Bob, are you there?", '$'));
    assert_eq!(got.header("Message-ID"), "87652491");
    assert_eq!(got.header("Byte-Range"), "1-23/23");
    assert_eq!(got.header("Success-Report"), "yes");
    assert_eq!([got.header("To-Path"), got.header("From-Path")], [&chat.bob_uri, &chat.to_us_from_bob]);
    assert_ne!(got.id, "a786hjs2", "a transaction is between neighbours");
    let answered = chat.alice.next();
    assert_eq!((answered.id.as_str(), answered.what.as_str()), ("a786hjs2", "200 OK"));
    assert_eq!([answered.header("To-Path"), answered.header("From-Path")], [&from[1], &from[0]]);

    // The report finds its way back.
    let report = format!(
        "MSRP dkei38sd REPORT\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: 87652491\r\nByte-Range: 1-23/23\r\n\
         Status: 000 200 OK\r\n-------dkei38sd$\r\n",
        chat.to_us_from_bob, chat.bob_uri
    );
    chat.bob.write(report.as_bytes());
    let reported = chat.alice.next();
    assert_eq!((reported.what.as_str(), reported.header("Message-ID")), ("REPORT", "87652491"));
    assert_eq!((reported.header("Status"), reported.header("Byte-Range")), ("000 200 OK", "1-23/23"));
    assert_eq!(reported.header("To-Path"), chat.alice_uri);

    // The other way.
    let back = chat.bobs();
    chat.bob.send("dkei38se", paths(&back), "456s9wlk3", "", "Hi, Alice!  I'm Bob!\r\n-------dkei38ss$");
    let got = chat.alice.next_answering();
    assert_eq!(got.text(), "Hi, Alice!  I'm Bob!\r\n-------dkei38ss$");
    assert_eq!(chat.bob.next().what, "200 OK");
    assert_eq!(server.metric("isthmus_msrp_open{what=\"sessions\"}"), 1.0);

    session.hang_up();
    chat.alice.closed(CLOSED);
    chat.bob.closed(CLOSED);
    eventually("the session is forgotten", CLOSED, || server.metric("isthmus_msrp_open") == 0.0);
    assert_eq!(server.metric("isthmus_msrp_total{kind=\"messages\"}"), 2.0);
    let trace = server.command(&["trace", "chat-1", "--config", "isthmus.toml"]);
    assert!(trace.contains("its messages go through this server") && trace.contains("its messages end"), "{trace}");

    let told = dissected(server.path(), &chat.alice).join("\n");
    assert!(told.contains("SEND||456s9wlk3|$|") && told.contains("|200||$|") && told.contains("REPORT|"), "{told}");
    let told = dissected(server.path(), &chat.bob).join("\n");
    assert!(told.contains("SEND||87652491|$|") && told.contains("|200||$|"), "{told}");
}

#[test]
fn a_callee_that_connects_itself_is_waited_for() {
    let (server, [door, _]) = started("");
    let bob_uri = "msrp://127.0.0.1:9/bob9di4eae923wzd;tcp";
    let active = section(9, bob_uri, "\na=setup:active");
    let session = Session::open(&server, ["-cid_str", "chat-2"], &section(9, ALICE, "\na=setup:actpass"), &active);
    assert_eq!(session.caller_is_told("a=setup:"), "passive");
    assert_eq!(session.callee_is_told("a=setup:"), "actpass");
    let (ours, ours_to_bob) = (session.caller_is_told("a=path:"), session.callee_is_told("a=path:"));
    let mut alice = Stream::connect(door);
    alice.send("al1c3001", [&ours, ALICE], "early001", "", "said before bob was there");
    let mut bob = Stream::connect(door);
    bob.greet("b0b00001", [&ours_to_bob, bob_uri]);
    // The first SEND binds; what waited for it comes after, or before its response.
    let frames = [bob.next_answering(), bob.next_answering()];
    assert!(frames.iter().any(|f| f.what == "200 OK" && f.id == "b0b00001"), "{frames:?}");
    assert!(frames.iter().any(|f| f.text() == "said before bob was there"), "{frames:?}");
    assert_eq!(alice.next().what, "200 OK");
    session.hang_up();
    alice.closed(CLOSED);
    bob.closed(CLOSED);
}

/// Bob's phone waits for a connection: its port and URI.
fn waiting() -> (TcpListener, u16, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port, format!("msrp://127.0.0.1:{port}/bob9di4eae923wzd;tcp"))
}

/// One message each way, between streams that are up.
fn said(alice: &mut Stream, from_alice: [&str; 2], bob: &mut Stream, from_bob: [&str; 2]) {
    alice.send("a786hjs2", from_alice, "87652491", "", "Hey Bob");
    assert_eq!(bob.next_answering().text(), "Hey Bob");
    assert_eq!(alice.next().what, "200 OK");
    bob.send("dkei38se", from_bob, "456s9wlk3", "", "Hi, Alice");
    assert_eq!(alice.next_answering().text(), "Hi, Alice");
    assert_eq!(bob.next().what, "200 OK");
}

#[test]
fn an_offer_in_the_answer_is_answered_in_the_ack() {
    let (server, [door, _]) = started("");
    // RFC 3264: who offers connects, which is bob.
    let bob_uri = "msrp://127.0.0.1:9/bob9di4eae923wzd;tcp";
    let (listener, port, _) = waiting();
    let alice_uri = format!("msrp://127.0.0.1:{port}/alice5s93;tcp");
    let scenarios = ["session_bare", "session_answer"];
    let (offer, answer) = (section(9, bob_uri, ""), section(port, &alice_uri, ""));
    let session = Session::as_in(&server, ["-cid_str", "chat-bare"], scenarios, &answer, &offer, |sipp| sipp);
    let (ours, ours_to_bob) = (session.caller_is_told("a=path:"), session.callee_is_told("a=path:"));
    let mut bob = Stream::joining(door, [&ours_to_bob, bob_uri]);
    let mut alice = Stream::accept(&listener);
    assert_eq!(alice.next_answering().header("To-Path"), alice_uri);
    said(&mut alice, [&ours, &alice_uri], &mut bob, [&ours_to_bob, bob_uri]);
    session.hang_up();
    alice.closed(CLOSED);
    bob.closed(CLOSED);
}

#[test]
fn a_caller_that_moves_talks_on_from_its_new_path() {
    let (server, [door, _]) = started("");
    let (listener, port, bob_uri) = waiting();
    let moved = "msrp://127.0.0.1:9/alice7moved;tcp";
    let scenarios = ["session_moves", "session_answer_twice"];
    let (offer, answer) = (section(9, ALICE, ""), section(port, &bob_uri, ""));
    let session = Session::as_in(&server, ["-cid_str", "chat-moves"], scenarios, &offer, &answer, |sipp| {
        sipp.set("MOVED", section(9, moved, ""))
    });
    let (ours, ours_to_bob) = (session.caller_is_told("a=path:"), session.callee_is_told("a=path:"));
    let mut first = Stream::joining(door, [&ours, ALICE]);
    let mut bob = Stream::accept(&listener);
    bob.next_answering();
    said(&mut first, [&ours, ALICE], &mut bob, [&ours_to_bob, &bob_uri]);

    session.go_on();
    // The old place is over, and bob's connection stays.
    first.closed(CLOSED);
    let mut alice = Stream::joining(door, [&ours, moved]);
    said(&mut alice, [&ours, moved], &mut bob, [&ours_to_bob, &bob_uri]);
    session.caller_has_sent("CSeq: 3 ACK");
    session.hang_up();
    alice.closed(CLOSED);
    bob.closed(CLOSED);
}

#[test]
fn a_description_among_other_parts_is_found_and_they_stay() {
    let (server, [door, _]) = started("");
    let (listener, port, bob_uri) = waiting();
    let scenarios = ["session", "session_answer"];
    let (offer, answer) = (section(9, ALICE, ""), section(port, &bob_uri, ""));
    let session = Session::as_in(&server, ["-cid_str", "chat-parts"], scenarios, &offer, &answer, |sipp| {
        sipp.set("CONTENT", "multipart/mixed;boundary=b0undary")
            .set("BEFORE", "--b0undary\nContent-Type: text/plain\n\na letter beside\n--b0undary\nContent-Type: application/sdp\n\n")
            .set("AFTER", "\n--b0undary--\n")
    });
    let (ours, ours_to_bob) = (session.caller_is_told("a=path:"), session.callee_is_told("a=path:"));
    let mut alice = Stream::joining(door, [&ours, ALICE]);
    let mut bob = Stream::accept(&listener);
    bob.next_answering();
    said(&mut alice, [&ours, ALICE], &mut bob, [&ours_to_bob, &bob_uri]);
    let [_, callee] = session.hang_up();
    let invite = callee.received()[0].to_owned();
    assert!(invite.contains("a letter beside") && invite.trim_end().ends_with("--b0undary--"), "{invite}");
    assert!(!invite.contains(ALICE), "{invite}");
}

#[test]
fn of_two_phones_the_one_that_answers_has_the_session() {
    let (server, [door, _]) = started("");
    let ringing = server.ports.next();
    let other = Sipp::new(&server, "ring", ringing).start();
    bind(&server, "bob", ringing, "");
    let (listener, port, bob_uri) = waiting();
    let session =
        Session::open(&server, ["-cid_str", "chat-fork"], &section(9, ALICE, ""), &section(port, &bob_uri, ""));
    let (ours, ours_to_bob) = (session.caller_is_told("a=path:"), session.callee_is_told("a=path:"));
    let mut alice = Stream::joining(door, [&ours, ALICE]);
    let mut bob = Stream::accept(&listener);
    bob.next_answering();
    other.succeed(1);
    said(&mut alice, [&ours, ALICE], &mut bob, [&ours_to_bob, &bob_uri]);
    session.hang_up();
    alice.closed(CLOSED);
    bob.closed(CLOSED);
}

#[test]
fn a_long_message_is_interrupted_for_a_response_and_arrives_whole() {
    let (server, [door, _]) = started("");
    let (session, mut chat) = chat(&server, door, ["-cid_str", "chat-3"]);
    let body: Vec<u8> = (0..3_000_000u32).map(|i| b"0123456789-\r\n"[(i % 13) as usize]).collect();
    let (from, back) = (chat.alices(), chat.bobs());
    let head = format!(
        "MSRP l0ng0001 SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: longest1\r\nByte-Range: 1-*/{}\r\n\
         Content-Disposition: render\r\nContent-Type: text/plain\r\n\r\n",
        from[0],
        from[1],
        body.len()
    );
    let (first, second) = body.split_at(1_000_000);
    chat.alice.write(head.as_bytes());
    chat.alice.write(first);
    // Bob speaks while the message is half there: our 200 to him interrupts it.
    chat.bob.has_begun("longest1");
    let mut got = vec![false; body.len()];
    chat.bob.send("b0b00002", paths(&back), "short001", "", "wait");
    let wait = chat.alice.next();
    assert_eq!(wait.text(), "wait");
    let (mut chunks, mut answered) = (0, false);
    while got.iter().any(|there| !there) || !answered {
        let frame = chat.bob.next_answering();
        if frame.status() != 0 {
            assert!(frame.id == "b0b00002" && !answered, "{}", frame.id);
            answered = true;
            // Only now does she go on: or all of it might have left before our 200.
            chat.alice.write(second);
            chat.alice.write(b"\r\n-------l0ng0001$\r\n");
            chat.alice.answer(&wait, "200 OK");
            continue;
        }
        chunks += 1;
        assert_eq!(frame.header("Message-ID"), "longest1");
        assert_eq!(frame.header("Content-Disposition"), "render");
        let (start, rest) = frame.header("Byte-Range").split_once('-').unwrap();
        let start: usize = start.parse().unwrap();
        assert!(rest.ends_with("/3000000"), "{rest}");
        let piece = frame.body.as_deref().unwrap();
        let wrong = piece.iter().zip(&body[start - 1..]).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "of {} bytes from {start}, flag {}", piece.len(), frame.flag);
        got[start - 1..start - 1 + piece.len()].fill(true);
        assert_eq!(frame.flag == '$', start - 1 + piece.len() == body.len());
    }
    assert!(chunks >= 2, "interrupted, so in more than one chunk");
    assert_eq!(chat.alice.next().what, "200 OK");
    session.hang_up();
    dissected(server.path(), &chat.bob);
}

#[test]
fn what_is_wrong_is_answered_or_closed() {
    let (server, [door, _]) = started("max_message = \"1 MiB\"");
    let (session, mut chat) = chat(&server, door, ["-cid_str", "chat-4"]);
    let [ours, alice] = chat.alices();

    // A session that nobody has.
    let mut stranger = Stream::connect(door);
    stranger.greet("str4ng3r", ["msrp://127.0.0.1:2855/guessedguessedguessed;tcp", ALICE]);
    assert_eq!(stranger.next().status(), 481);
    // A session that another connection has (RFC 4975 §5.4).
    stranger.greet("str4ng3s", [&ours, ALICE]);
    assert_eq!(stranger.next().status(), 506);
    // Silence is as good as noise: neither stays.
    let mut noise = Stream::connect(door);
    noise.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    noise.closed(CLOSED);

    let mut refused = |id: &str, more: &str, range: &str, wanted: u16| {
        let text = format!(
            "MSRP {id} SEND\r\nTo-Path: {ours}\r\nFrom-Path: {alice}\r\nMessage-ID: bad{id}\r\nByte-Range: {range}\r\n{more}\
             Content-Type: text/plain\r\n\r\n0123456789\r\n-------{id}$\r\n"
        );
        chat.alice.write(text.as_bytes());
        let answer = chat.alice.next();
        assert_eq!((answer.id.as_str(), answer.status()), (id, wanted), "{range} {more}");
    };
    // A file that claims to be a tebibyte is refused at its first chunk.
    refused("huge0001", "", "1-*/1099511627776", 413);
    refused("past0001", "", "2000000-*/*", 413);
    refused("range001", "", "5-3/10", 400);
    refused("range002", "", "1-10/5", 400);
    refused("report01", "Failure-Report: perhaps\r\n", "1-10/10", 400);
    // More bytes than it said.
    refused("more0001", "", "1-*/9", 400);
    refused("more0002", "", "1-5/5", 400);
    chat.alice.write(
        format!("MSRP odd00001 WINK\r\nTo-Path: {ours}\r\nFrom-Path: {alice}\r\n-------odd00001$\r\n").as_bytes(),
    );
    assert_eq!(chat.alice.next().status(), 501);
    // Who wants no failure reports gets no response.
    let text = format!(
        "MSRP quiet001 SEND\r\nTo-Path: {ours}\r\nFrom-Path: {alice}\r\nMessage-ID: quietly1\r\nByte-Range: 1-*/1099511627776\r\n\
         Failure-Report: no\r\nContent-Type: text/plain\r\n\r\nx\r\n-------quiet001$\r\n"
    );
    chat.alice.write(text.as_bytes());
    // A REPORT is never answered (RFC 4975 §7.1.2), though msrp-node-lib's last one of a long message has this mistake.
    chat.alice.write(
        format!(
            "MSRP report02 REPORT\r\nTo-Path: {ours}\r\nFrom-Path: {alice}\r\nMessage-ID: whole001\r\nByte-Range: 9-18/10\r\n\
             Status: 000 200 OK\r\n-------report02$\r\n"
        )
        .as_bytes(),
    );
    // The session is none the worse for it.
    chat.alice.send("fine0001", [&ours, &alice], "fine0001", "", "still here");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|f: &Frame| f.text() != "still here") {
        seen.push(chat.bob.next_answering());
    }
    let whole = seen.iter().filter(|f| f.flag == '$' && f.body.is_some()).count();
    assert_eq!(whole, 1, "no refused message is whole at bob's: {seen:?}");
    assert_eq!(chat.alice.next().what, "200 OK");

    // Bob refuses; alice hears of it in a report (RFC 4975 §7.1.4).
    chat.alice.send("refu5e01", [&ours, &alice], "unwanted", "", "buy this");
    assert_eq!(chat.alice.next().what, "200 OK");
    let unwanted = chat.bob.next();
    chat.bob.answer(&unwanted, "413 no more");
    let report = chat.alice.next();
    assert_eq!((report.what.as_str(), report.header("Message-ID")), ("REPORT", "unwanted"));
    assert!(report.header("Status").starts_with("000 413"), "{report:?}");
    assert_eq!(report.header("Byte-Range"), "1-8/8");
    chat.alice.send("refu5e02", [&ours, &alice], "unwanted", "", "buy this");
    assert_eq!(chat.alice.next().status(), 413, "nothing more of that message");

    session.hang_up();
    chat.alice.closed(CLOSED);
    dissected(server.path(), &chat.alice);
}

#[test]
fn who_sends_too_much_is_told_at_once_and_cut_off_when_it_goes_on() {
    let (server, [door, _]) = started("max_message = \"64 KiB\"");
    let (session, mut chat) = chat(&server, door, ["-cid_str", "chat-endless"]);
    let [ours, alice] = chat.alices();
    let begins = |id: &str| {
        format!(
            "MSRP {id} SEND\r\nTo-Path: {ours}\r\nFrom-Path: {alice}\r\nMessage-ID: m{id}\r\nByte-Range: 1-*/*\r\n\
             Content-Type: text/plain\r\n\r\n"
        )
    };
    let much = vec![b'x'; 100 * 1024];
    chat.alice.write(begins("end1e550").as_bytes());
    chat.alice.write(&much);
    let answer = chat.alice.next();
    assert_eq!((answer.id.as_str(), answer.status()), ("end1e550", 413));
    // She stops in the middle of her chunk (RFC 4975 §10.5), tells of something that nobody sent, and talks on.
    chat.alice.write(b"\r\n-------end1e550#\r\n");
    chat.alice.write(
        format!(
            "MSRP rep0rt00 REPORT\r\nTo-Path: {ours}\r\nFrom-Path: {alice}\r\nMessage-ID: n0b0dys\r\nByte-Range: 1-5/5\r\n\
             Status: 000 200 OK\r\n-------rep0rt00$\r\n"
        )
        .as_bytes(),
    );
    chat.alice.send("fine0001", [&ours, &alice], "fine0001", "", "still here");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|f: &Frame| f.text() != "still here") {
        seen.push(chat.bob.next_answering());
    }
    assert_eq!(seen.iter().filter(|f| f.flag == '$' && f.body.is_some()).count(), 1, "{seen:?}");
    assert_eq!(chat.alice.next().what, "200 OK");
    // She does not stop.
    chat.alice.write(begins("end1e551").as_bytes());
    let written = (0..1_000).take_while(|_| chat.alice.io.write_all(&much).is_ok()).count();
    assert!(written < 1_000, "100 MB were taken");
    chat.alice.closed(CLOSED);
    let cut = || server.metric("isthmus_msrp_total{kind=\"connections_cut\"}");
    eventually("it is counted", CLOSED, || cut() > 0.0);
    assert_eq!(cut(), 1.0);
    session.hang_up();
}

#[test]
fn one_side_that_breaks_off_ends_the_other_and_its_message() {
    let (server, [door, _]) = started("");
    let (session, mut chat) = chat(&server, door, ["-cid_str", "chat-5"]);
    let [ours, alice] = chat.alices();
    let text = format!(
        "MSRP half0001 SEND\r\nTo-Path: {ours}\r\nFrom-Path: {alice}\r\nMessage-ID: halfway1\r\nByte-Range: 1-*/9000\r\n\
         Content-Type: text/plain\r\n\r\nonly the beginning"
    );
    chat.alice.write(text.as_bytes());
    chat.alice.io.shutdown(std::net::Shutdown::Both).unwrap();
    let half = chat.bob.next_answering();
    assert_eq!((half.text().as_str(), half.flag), ("only the beginning", '#'));
    chat.bob.closed(CLOSED);
    session.hang_up();
}

#[test]
fn a_slow_receiver_slows_the_sender_down_and_costs_no_memory() {
    use std::io::{Read, Write};
    let (server, [door, _]) = started("");
    let (session, mut chat) = chat(&server, door, ["-cid_str", "chat-6"]);
    let [ours, alice] = chat.alices();
    const SIZE: usize = 64 << 20;
    let head = format!(
        "MSRP file0001 SEND\r\nTo-Path: {ours}\r\nFrom-Path: {alice}\r\nMessage-ID: thefile1\r\nByte-Range: 1-*/{SIZE}\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.pid())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap().trim().to_owned();
        line.split(' ').next().unwrap().parse::<usize>().unwrap() * 1024
    };
    let before = resident();
    let mut io = chat.alice.io.try_clone().unwrap();
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = sent.clone();
    let writer = std::thread::spawn(move || {
        let piece = vec![b'x'; 1 << 20];
        io.write_all(head.as_bytes()).unwrap();
        for _ in 0..SIZE >> 20 {
            io.write_all(&piece).unwrap();
            counted.fetch_add(piece.len(), std::sync::atomic::Ordering::SeqCst);
        }
        io.write_all(b"\r\n-------file0001$\r\n").unwrap();
    });
    // Until the sender stands still: nothing is taken while bob reads nothing.
    let mut last = usize::MAX;
    eventually("the sender is held up", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(500));
        let now = sent.load(std::sync::atomic::Ordering::SeqCst);
        std::mem::replace(&mut last, now) == now
    });
    assert!(last < SIZE, "{last} bytes were taken though nobody read them");
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more while {last} wait");
    let mut buffer = vec![0; 1 << 20];
    let mut got = 0;
    while got < SIZE {
        match chat.bob.io.read(&mut buffer) {
            Ok(0) => panic!("closed after {got} bytes"),
            Ok(n) => got += n,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(e) => panic!("{e}"),
        }
    }
    writer.join().unwrap();
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more after {SIZE}");
    assert_eq!(chat.alice.next().what, "200 OK");
    session.hang_up();
}

#[test]
fn two_sessions_share_a_connection_and_end_one_by_one() {
    let (server, [door, _]) = started("");
    let (first, mut chat1) = chat(&server, door, ["-cid_str", "chat-7"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let bob_uri = format!("msrp://127.0.0.1:{port}/bob9second;tcp");
    let second = Session::open(&server, ["-cid_str", "chat-8"], &section(9, ALICE, ""), &section(port, &bob_uri, ""));
    let ours = second.caller_is_told("a=path:");
    // The same stream, another session (RFC 4975 §5.4).
    chat1.alice.send("sh4red01", [&ours, ALICE], "shared01", "", "over the same connection");
    let mut bob = Stream::accept(&listener);
    assert_eq!(bob.next_answering().body, None);
    assert_eq!(bob.next_answering().text(), "over the same connection");
    assert_eq!(chat1.alice.next().what, "200 OK");
    first.hang_up();
    chat1.bob.closed(CLOSED);
    chat1.alice.send("sh4red02", [&ours, ALICE], "shared02", "", "and still");
    assert_eq!(bob.next_answering().text(), "and still");
    assert_eq!(chat1.alice.next().what, "200 OK");
    second.hang_up();
    chat1.alice.closed(CLOSED);
    bob.closed(CLOSED);
}

/// The fingerprint of a certificate in the server's folder, as openssl tells it.
fn fingerprint(server: &Server, file: &str) -> String {
    let told = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(server.path().join(file))
        .output()
        .expect("openssl runs");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    format!("sha-256 {}", told.trim().split_once('=').expect("a fingerprint").1)
}

fn secure_section(port: u16, path: &str, more: &str) -> String {
    section(port, path, more).replace("TCP/MSRP", "TCP/TLS/MSRP")
}

const ALICE_TLS: &str = "msrps://127.0.0.1:9/alice5s93;tcp";

#[test]
fn a_reload_takes_the_new_certificate_for_sessions_too() {
    let (server, doors) = started("");
    let before = shown_certificate(doors[1]);
    server.authority.issue("server", &[DOMAIN]);
    server.process.signal("HUP");
    eventually("the new certificate is shown", CLOSED, || shown_certificate(doors[1]) != before);
}

#[test]
fn over_tls_each_side_is_known_by_its_fingerprint() {
    let (server, [_, door]) = started("");
    server.authority.issue("bob", &["bob.test"]);
    let ports = [server.ports.next(), server.ports.next()];
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let _bobs = harness::stunnel::server(server.path(), ports[0], listener.local_addr().unwrap().port(), "bob");
    let _alices = harness::stunnel::client(server.path(), ports[1], door, DOMAIN);
    let bob_uri = format!("msrps://127.0.0.1:{}/bob9di4eae923wzd;tcp", ports[0]);
    let known = format!("\na=fingerprint:{}", fingerprint(&server, "bob.pem"));
    let answer = secure_section(ports[0], &bob_uri, &known);
    let session = Session::open(&server, ["-cid_str", "chat-9"], &secure_section(9, ALICE_TLS, ""), &answer);
    let (ours, ours_to_bob) = (session.caller_is_told("a=path:"), session.callee_is_told("a=path:"));
    assert!(ours.starts_with(&format!("msrps://127.0.0.1:{door}/")), "{ours}");
    assert_eq!(session.caller_is_told("a=fingerprint:"), fingerprint(&server, "server.pem"));
    assert_eq!(session.callee_is_told("m=message "), format!("{door} TCP/TLS/MSRP *"));

    let mut alice = Stream::connect(ports[1]);
    alice.send("al1c3002", [&ours, ALICE_TLS], "secret01", "", "in private");
    let mut bob = Stream::accept(&listener);
    assert_eq!(bob.next_answering().header("From-Path"), ours_to_bob);
    assert_eq!(bob.next_answering().text(), "in private");
    assert_eq!(alice.next().what, "200 OK");
    session.hang_up();
    alice.closed(CLOSED);
    bob.closed(CLOSED);

    // Another certificate than the call spoke of: nothing is sent to it.
    let wrong = format!("\na=fingerprint:{}", fingerprint(&server, "server.pem"));
    let answer = secure_section(ports[0], &bob_uri, &wrong);
    let session = Session::open(&server, ["-cid_str", "chat-10"], &secure_section(9, ALICE_TLS, ""), &answer);
    let ours = session.caller_is_told("a=path:");
    eventually("bob is not believed", CLOSED, || server.metric("isthmus_msrp_total{kind=\"unreachable\"}") == 1.0);
    let mut alice = Stream::connect(ports[1]);
    alice.send("al1c3003", [&ours, ALICE_TLS], "secret02", "", "in private");
    assert_eq!(alice.next().status(), 481);
    session.hang_up();
}

/// Alice is behind a relay: Kamailio, which she asked by AUTH (RFC 4976). The path of her offer begins with it.
#[test]
fn a_caller_behind_kamailio_as_relay_is_reached_over_tls() {
    let (server, [_, door]) = started("");
    server.authority.issue("relay", &["relay.test"]);
    server.authority.issue("bob", &["bob.test"]);
    let ports = [server.ports.next(), server.ports.next(), server.ports.next(), server.ports.next()];
    let _relay = harness::kamailio::msrp_relay(server.path(), [ports[0], ports[1]], "alice5s93");
    let _alices = harness::stunnel::client(server.path(), ports[2], ports[1], "relay.test");
    let mut alice = Stream::connect(ports[2]);
    let relay_uri = format!("msrps://127.0.0.1:{};tcp", ports[1]);
    alice.write(
        format!("MSRP auth0001 AUTH\r\nTo-Path: {relay_uri}\r\nFrom-Path: {ALICE_TLS}\r\n-------auth0001$\r\n")
            .as_bytes(),
    );
    let authorised = alice.next();
    assert_eq!(authorised.status(), 200, "{authorised:?}");
    let through = authorised.header("Use-Path").to_owned();
    let path = format!("{through} {ALICE_TLS}");

    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let _bobs = harness::stunnel::server(server.path(), ports[3], listener.local_addr().unwrap().port(), "bob");
    let bob_uri = format!("msrps://127.0.0.1:{}/bob9di4eae923wzd;tcp", ports[3]);
    let known = format!("\na=fingerprint:{}", fingerprint(&server, "bob.pem"));
    let answer = secure_section(ports[3], &bob_uri, &known);
    let session = Session::open(&server, ["-cid_str", "chat-11"], &secure_section(ports[1], &path, ""), &answer);
    let (ours, ours_to_bob) = (session.caller_is_told("a=path:"), session.callee_is_told("a=path:"));
    assert!(ours.starts_with(&format!("msrps://127.0.0.1:{door}/")), "{ours}");

    // Out through the relay, to our door, on to bob.
    let out = format!("{through} {ours}");
    alice.send("al1c3004", [&out, ALICE_TLS], "relayed1", "Success-Report: yes\r\n", "by way of the relay");
    let mut bob = Stream::accept(&listener);
    assert_eq!(bob.next_answering().body, None);
    let got = bob.next_answering();
    assert_eq!((got.text().as_str(), got.header("Message-ID")), ("by way of the relay", "relayed1"));
    assert_eq!(alice.next().what, "200 OK");
    // And back: a message and a report.
    bob.send("b0b00003", [&ours_to_bob, &bob_uri], "relayed2", "", "and back");
    assert_eq!(bob.next().what, "200 OK");
    let back = alice.next_answering();
    assert_eq!((back.text().as_str(), back.header("Message-ID")), ("and back", "relayed2"));
    let report = format!(
        "MSRP rep0rt01 REPORT\r\nTo-Path: {ours_to_bob}\r\nFrom-Path: {bob_uri}\r\nMessage-ID: relayed1\r\nByte-Range: 1-19/19\r\n\
         Status: 000 200 OK\r\n-------rep0rt01$\r\n"
    );
    bob.write(report.as_bytes());
    let reported = alice.next();
    assert_eq!((reported.what.as_str(), reported.header("Message-ID")), ("REPORT", "relayed1"));
    session.hang_up();
    bob.closed(CLOSED);
    dissected(server.path(), &bob);
}

/// Bob has the server itself as his relay, and waits to be connected to.
#[test]
fn a_callee_behind_us_as_relay_is_reached_by_its_own_connection() {
    let (server, [door, _]) = started("");
    let mut bob = Stream::connect(door);
    let (us, bob_uri) = (format!("msrp://{DOMAIN}:{door};tcp"), "msrp://127.0.0.1:9/bob9di4eae923wzd;tcp");
    let mut ask = |id: &str, more: &str| {
        let asks = format!("MSRP {id} AUTH\r\nTo-Path: {us}\r\nFrom-Path: {bob_uri}\r\n{more}-------{id}$\r\n");
        bob.write(asks.as_bytes());
        bob.next()
    };
    let challenged = ask("auth0001", "");
    assert_eq!(challenged.status(), 401);
    let challenge = challenged.header("WWW-Authenticate");
    let [realm, nonce, opaque] = ["realm", "nonce", "opaque"].map(|name| quoted(challenge, name));
    let [secret, about] = [format!("bob:{realm}:{PASSWORD}"), format!("AUTH:{us}")].map(|text| hash("md5", text));
    let response = hash("md5", format!("{secret}:{nonce}:00000001:0a4f113b:auth:{about}"));
    // As in RFC 4976 §5.1: no uri.
    let given = ask(
        "auth0002",
        &format!(
            "Authorization: Digest username=\"bob\", realm=\"{realm}\", nonce=\"{nonce}\", qop=auth, nc=00000001, cnonce=\"0a4f113b\", \
             response=\"{response}\", opaque=\"{opaque}\"\r\n"
        ),
    );
    assert_eq!(given.status(), 200, "{given:?}");
    let relay = given.header("Use-Path").to_owned();

    let answer = section(door, &format!("{relay} {bob_uri}"), "\na=setup:passive");
    let session = Session::open(&server, ["-cid_str", "chat-relay"], &section(9, ALICE, ""), &answer);
    let (ours, ours_to_bob) = (session.caller_is_told("a=path:"), session.callee_is_told("a=path:"));
    // A relay puts itself in front of the From-Path (§4).
    let from_us = format!("{relay} {ours_to_bob}");
    let opening = bob.next_answering();
    assert_eq!((opening.header("From-Path"), opening.header("To-Path"), &opening.body), (&*from_us, bob_uri, &None));
    let mut alice = Stream::joining(door, [&ours, ALICE]);
    alice.send("al1c3005", [&ours, ALICE], "relayed3", "", "to a client of the relay");
    let got = bob.next_answering();
    assert_eq!((got.text().as_str(), got.header("From-Path")), ("to a client of the relay", &*from_us));
    assert_eq!(alice.next().what, "200 OK");
    bob.send("b0b00004", [&from_us, bob_uri], "relayed4", "", "and back");
    assert_eq!(bob.next().what, "200 OK");
    assert_eq!(alice.next_answering().text(), "and back");
    session.hang_up();
    alice.closed(CLOSED);
    // His connection is there for the next session.
    bob.greet("b0b00005", [&from_us, bob_uri]);
    assert_eq!(bob.next().status(), 481);
}
