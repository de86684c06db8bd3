//! Sessions of messages that end in the server: chats with users who are away, and chat rooms (RFC 7701). SIPp makes the calls,
//! bare streams speak MSRP, tshark and xmllint read what the server writes.

mod harness;

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use harness::msrp::{Frame, Stream, dissected, told};
use harness::sipp::Running;
use harness::{DOMAIN, Peer, Server, Setup, Sipp, bind, eventually};

const CLOSED: Duration = Duration::from_secs(5);

struct House {
    server: Server,
    door: u16,
}

fn started(sections: &str) -> House {
    let mut setup = Setup::with_users(&["alice", "bob", "carol"]).with_msrp();
    setup.sections = sections.to_owned();
    let server = setup.start();
    House { door: server.msrp[0], server }
}

/// A phone in a session that the server answers: SIPp for the call, a stream for the messages.
struct Phone {
    user: &'static str,
    call_id: &'static str,
    port: u16,
    call: Option<Running>,
    msrp: Stream,
    to: String,
    from: String,
    room: String,
}

fn section(path: &str) -> String {
    format!(
        "m=message 9 TCP/MSRP *\na=accept-types:message/cpim\na=accept-wrapped-types:*\na=path:{path}\na=setup:active\n\
         a=chatroom:nickname private-messages"
    )
}

impl Phone {
    /// Calls, connects, and says who it is.
    fn calls(house: &House, user: &'static str, uri: &str, call_id: &'static str) -> Phone {
        Phone::calls_with(house, user, uri, call_id, |sipp| sipp)
    }

    fn calls_with(
        house: &House,
        user: &'static str,
        uri: &str,
        call_id: &'static str,
        more: impl FnOnce(Sipp) -> Sipp,
    ) -> Phone {
        let server = &house.server;
        let port = server.ports.next();
        let from = format!("msrp://127.0.0.1:9/{user}5s93;tcp");
        let sipp = Sipp::new(server, "session", port).set("MEDIA", section(&from)).set("URI", uri);
        let call = more(sipp).users(&[user]).options(&["-cid_str", call_id]).start();
        let to = told(&call, "a=path:");
        let contact = told(&call, "Contact: <");
        let mut msrp = Stream::connect(house.door);
        msrp.greet(&format!("{user}000"), [&to, &from]);
        assert_eq!(msrp.next().what, "200 OK");
        let room = contact.split(['>', ';']).next().unwrap().to_owned();
        Phone { user, call_id, port, call: Some(call), msrp, to, from, room }
    }

    fn uri(&self) -> String {
        format!("sip:{}@{DOMAIN}", self.user)
    }

    /// Sends, and gives the status; what else comes meanwhile is left aside for later.
    fn says_as(&mut self, id: &str, from: &str, to: &str, text: &str) -> u16 {
        let body = format!(
            "From: <{from}>\r\nTo: <{to}>\r\nDateTime: 2026-04-04T12:16:49Z\r\n\r\nContent-Type: text/plain\r\n\r\n{text}"
        );
        let length = body.len();
        let request = format!(
            "MSRP {id} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: m{id}\r\nByte-Range: 1-{length}/{length}\r\n\
             Content-Type: message/cpim\r\n\r\n{body}\r\n-------{id}$\r\n",
            self.to, self.from
        );
        self.msrp.write(request.as_bytes());
        self.msrp.next().status()
    }

    fn says(&mut self, id: &str, text: &str) -> u16 {
        let (from, to) = (self.uri(), self.room.clone());
        self.says_as(id, &from, &to, text)
    }

    /// The next message that comes, answered.
    fn hears(&mut self) -> String {
        let frame = self.msrp.next_answering();
        assert_eq!(frame.what, "SEND", "{frame:?}");
        frame.text()
    }

    fn nickname(&mut self, id: &str, name: &str) -> u16 {
        let request = format!(
            "MSRP {id} NICKNAME\r\nTo-Path: {}\r\nFrom-Path: {}\r\nUse-Nickname: \"{name}\"\r\n-------{id}$\r\n",
            self.to, self.from
        );
        self.msrp.write(request.as_bytes());
        self.msrp.next().status()
    }

    fn hangs_up(mut self) {
        let peer = Peer::new(0);
        peer.send(self.port, &peer.request("INFO", "sip:x", ["bob", "alice"], self.call_id, "", ""));
        self.call.take().unwrap().succeed(1);
        self.msrp.closed(CLOSED);
    }
}

fn factory() -> String {
    format!("sip:conference-factory@{DOMAIN}")
}

#[test]
fn a_chat_with_somebody_away_is_kept_across_a_crash_and_delivered_in_order() {
    let mut house = started("");
    let mut alice = Phone::calls(&house, "alice", &format!("sip:bob@{DOMAIN}"), "away@story");
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
    let mut answers: Vec<Frame> = (0..3).map(|_| alice.msrp.next()).collect();
    answers.sort_by_key(|f| f.what.clone());
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
    dissected(house.server.path(), &alice.msrp);
    // What was answered with 200 is on the disk.
    house.server.restart();
    drop(alice.call.take());
    let port = house.server.ports.next();
    let phone = Sipp::new(&house.server, "take_messages", port).set("CODE", 200).calls(4).start();
    bind(&house.server, "bob", port, "");
    let seen = phone.succeed(4);
    let mut bodies: Vec<&str> = seen.received().iter().map(|m| m.trim_end().rsplit("\r\n").next().unwrap()).collect();
    bodies.dedup();
    assert_eq!(bodies, ["kept 1", "kept 2", "kept 3", "plain, and more"]);
    assert!(seen.received()[0].contains(&format!("P-Asserted-Identity: <{from}>")), "{}", seen.received()[0]);
    assert!(seen.received()[0].contains("Call-ID: 1.away@story"), "one trace from end to end");
}

#[test]
fn a_chat_with_somebody_away_ends_with_its_call() {
    let house = started("");
    let alice = Phone::calls(&house, "alice", &format!("sip:bob@{DOMAIN}"), "ends@story");
    alice.hangs_up();
    assert_eq!(house.server.metric("isthmus_chat_sessions"), 0.0);
}

#[test]
fn a_room_passes_on_what_is_said_and_keeps_private_words_private() {
    let house = started("");
    let mut alice = Phone::calls(&house, "alice", &factory(), "alice@room");
    let room = alice.room.clone();
    let mut bob = Phone::calls(&house, "bob", &room, "bob@room");
    let mut carol = Phone::calls(&house, "carol", &room, "carol@room");
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
    // Names that look alike are alike.
    assert_eq!((alice.nickname("n1ck0000", "Dopey Donkey"), bob.nickname("n1ck0001", "dopey  donkey")), (200, 425));
    assert_eq!((bob.nickname("n1ck0002", "Alice the great"), carol.nickname("n1ck0003", "")), (200, 200));
    // One who leaves hears no more; the others do.
    carol.hangs_up();
    assert_eq!(bob.says("st1ll000", "still here"), 200);
    let heard = alice.hears();
    assert!(heard.ends_with("still here"), "nothing of the private word came before: {heard}");
    for phone in [&alice, &bob] {
        dissected(house.server.path(), &phone.msrp);
    }
    alice.hangs_up();
    bob.hangs_up();
}

#[test]
fn a_room_outlives_the_server() {
    let mut house = started("");
    let mut alice = Phone::calls(&house, "alice", &factory(), "alice@lasting");
    let room = alice.room.clone();
    // It is stored before its first INVITE is answered.
    house.server.restart();
    drop(alice.call.take());
    let mut bob = Phone::calls(&house, "bob", &room, "bob@lasting");
    let mut alice = Phone::calls(&house, "alice", &room, "alice@again");
    assert_eq!(bob.says("back0000", "back again"), 200);
    assert!(alice.hears().ends_with("back again"));
    bob.hangs_up();
    alice.hangs_up();
}

#[test]
fn who_watches_a_room_hears_who_comes_and_goes() {
    let house = started("");
    let mut alice = Phone::calls(&house, "alice", &factory(), "alice@watched");
    let room = alice.room.clone();
    let user = room.trim_start_matches("sip:").split('@').next().unwrap().to_owned();
    let watcher = Sipp::new(&house.server, "watch", house.server.ports.next()).set("USER", user);
    let watcher =
        watcher.set("EVENT", "conference").set("ACCEPT", "application/conference-info+xml").set("EXPIRES", 60);
    let watcher = watcher.users(&["alice"]).start();
    told(&watcher, "Event: conference");
    assert_eq!(alice.nickname("n1ck0000", "Dopey Donkey"), 200);
    let bob = Phone::calls(&house, "bob", &room, "bob@watched");
    let log = watcher.base.with_file_name(format!("{}.msg", watcher.base.file_name().unwrap().to_string_lossy()));
    let documents = || -> Vec<String> {
        let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
        let whole = |part: &str| Some(part[..part.find("</conference-info>")? + 18].to_owned());
        text.split("<?xml").skip(1).filter_map(whole).map(|d| format!("<?xml{d}")).collect()
    };
    let entity = |user: &str| format!("entity=\"sip:{user}@{DOMAIN}\" state=\"full\"");
    eventually("bob's coming is told", Duration::from_secs(20), || {
        documents().iter().any(|d| d.contains(&entity("bob")))
    });
    bob.hangs_up();
    let gone = format!("entity=\"sip:bob@{DOMAIN}\" state=\"deleted\"");
    eventually("bob's going is told", Duration::from_secs(20), || documents().iter().any(|d| d.contains(&gone)));
    let all = documents();
    assert!(all[0].contains("state=\"full\" version=\"1\"") && all[0].contains(&entity("alice")), "{}", all[0]);
    assert!(all[1..].iter().all(|d| d.contains("state=\"partial\"")), "{all:?}");
    assert!(all.iter().any(|d| d.contains("xcon:nickname=\"Dopey Donkey\"")), "{all:?}");
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schema/conference-info.xsd");
    for (n, document) in all.iter().enumerate() {
        let file = house.server.path().join(format!("info{n}.xml"));
        std::fs::write(&file, document).unwrap();
        let checked =
            Command::new("xmllint").args(["--noout", "--nonet", "--schema", schema]).arg(&file).output().unwrap();
        assert!(checked.status.success(), "{}\n{document}", String::from_utf8_lossy(&checked.stderr));
    }
    alice.hangs_up();
}

/// A phone that is asked in: takes the call, and is connected to.
fn awaits(house: &House, user: &'static str) -> (Running, TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let path = format!("msrp://127.0.0.1:{port}/{user}9di4;tcp");
    let media =
        format!("m=message {port} TCP/MSRP *\na=accept-types:message/cpim\na=accept-wrapped-types:*\na=path:{path}");
    let phone = house.server.ports.next();
    let call = Sipp::new(&house.server, "session_answer", phone).set("MEDIA", media).start();
    bind(&house.server, user, phone, "");
    (call, listener, path)
}

#[test]
fn others_are_asked_in_by_a_list_and_by_refer() {
    let house = started("");
    let (bobs_call, bobs, _) = awaits(&house, "bob");
    let list = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list>\
         <entry uri=\"sip:bob@{DOMAIN}\"/></list></resource-lists>"
    );
    let mut alice = Phone::calls_with(&house, "alice", &factory(), "alice@list", |sipp| {
        sipp.set("CONTENT", "multipart/mixed;boundary=b0undary")
            .set("BEFORE", "--b0undary\nContent-Type: application/sdp\n\n")
            .set("AFTER", format!(
                "\n--b0undary\nContent-Type: application/resource-lists+xml\nContent-Disposition: recipient-list\n\n{list}\n--b0undary--\n"
            ))
    });
    let mut bob = Stream::accept(&bobs);
    assert_eq!(bob.next_answering().body, None, "the one who connects says so first");
    assert!(told(&bobs_call, "Contact: <sip:chat-").contains(">;isfocus"));
    let (carols_call, carols, _) = awaits(&house, "carol");
    // Not everybody may come in, nor ask others in: it is a room by invitation.
    let room = alice.room.clone();
    let refer = Sipp::new(&house.server, "refer", house.server.ports.next()).set("URI", &room).set("FINAL", "200 OK");
    refer.users(&["alice"]).succeed();
    let mut carol = Stream::accept(&carols);
    assert_eq!(carol.next_answering().body, None);
    assert_eq!(alice.says("he11o000", "welcome"), 200);
    for stream in [&mut bob, &mut carol] {
        let heard = stream.next_answering();
        assert!(heard.text().ends_with("welcome"), "{heard:?}");
        dissected(house.server.path(), stream);
    }
    alice.hangs_up();
    drop((bobs_call, carols_call));
}

#[test]
fn one_who_takes_nothing_is_hung_up_on_and_holds_nobody_up() {
    let house = started("[conference]\nmax_message = \"1 MiB\"\n");
    let mut alice = Phone::calls(&house, "alice", &factory(), "alice@slow");
    let room = alice.room.clone();
    let mut bob = Phone::calls(&house, "bob", &room, "bob@slow");
    let _carol = Phone::calls(&house, "carol", &room, "carol@slow");
    let text = "x".repeat(500_000);
    let mut said = 0;
    // Carol reads nothing: what waits for her is bounded, and bob hears everything all the while.
    eventually("carol is gone", Duration::from_secs(50), || {
        said += 1;
        assert_eq!(alice.says(&format!("f100d{said:03}"), &text), 200);
        assert!(bob.hears().ends_with(&text));
        house.server.metric("isthmus_chat_rooms_total{kind=\"congested\"}") > 0.0
    });
}
