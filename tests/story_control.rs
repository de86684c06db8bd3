//! Content control: what comes from the web and from other domains is judged by clamd, c-icap and the operator's rules before
//! its addressee sees a byte. SIPp sends and takes messages, JsSIP and npm's websocket are the web, tshark reads the wire.

mod harness;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use harness::clamd::{Clamd, eicar};
use harness::icap::CIcap;
use harness::msrp::{Session, Stream, dissected};
use harness::msrp_ws::Browser;
use harness::sipp::Running;
use harness::{DOMAIN, PASSWORD, Process, Server, Setup, Sipp, bind, eventually};

const SOON: Duration = Duration::from_secs(30);

struct House {
    server: Server,
    clamd: Clamd,
    door: u16,
    _ports: harness::Ports,
    _dir: tempfile::TempDir,
}

fn started(more: &str) -> House {
    let dir = tempfile::tempdir().unwrap();
    let ports = harness::Ports::claim();
    let clamd = Clamd::start(dir.path(), ports.next(), &eicar());
    let mut setup = Setup::with_users(&["alice", "bob"]).with_msrp();
    setup.sections = format!(
        "[content]\nclamd = \"{}\"\nrefused_types = [\"application/x-msdownload\", \"video/*\"]\n{more}",
        clamd.address
    );
    let server = setup.start();
    House { door: server.msrp[0], server, clamd, _ports: ports, _dir: dir }
}

/// Bob's phone, which takes so many messages.
fn phone(server: &Server, messages: u32) -> Running {
    let port = server.ports.next();
    let phone = Sipp::new(server, "take_messages", port).set("CODE", 200).calls(messages).start();
    bind(server, "bob", port, "");
    phone
}

/// Somebody of another domain writes to bob, and gets this status.
fn writes(server: &Server, content_type: &str, text: &str, status: u16) -> String {
    let sipp = Sipp::new(server, "message_open", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    let sipp = sipp.set("DOMAIN", "elsewhere.test").set("TYPE", content_type).set("TEXT", text).set("CODE", status);
    let done = sipp.users(&["mallory"]).succeed();
    done.received().last().unwrap_or(&"").to_string()
}

/// Wrapped and encoded, as a client may send a file in a message. SIPp would read the bare text for its own.
fn wrapped_virus() -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(eicar());
    format!(
        "From: <sip:mallory@elsewhere.test>\nTo: <sip:bob@{DOMAIN}>\n\nContent-Type: application/octet-stream\n\
         Content-Transfer-Encoding: base64\n\n{encoded}"
    )
}

/// The lines of the auditor's log.
fn audited(server: &Server) -> Vec<String> {
    let all = server.process.output();
    all.lines().filter(|l| l.contains("audit") && l.contains("withheld")).map(str::to_owned).collect()
}

#[test]
fn messages_from_another_domain_are_looked_at_and_both_sides_are_told() {
    let mut house = started("[content.messages]\nmax_size = \"2 KiB\"\n");
    let server = &house.server;
    let phone = phone(server, 3);
    let refused = writes(server, "message/cpim", &wrapped_virus(), 403);
    let warning = format!("Warning: 399 {DOMAIN} \"the virus scanner found Isthmus.Test");
    assert!(refused.contains(&warning), "{refused}");
    writes(server, "text/plain", "good day", 200);
    let refused = writes(server, "video/mp4", "a film", 415);
    assert!(refused.contains("content of type video/mp4 does not pass"), "{refused}");
    let inside = "From: <sip:m@elsewhere.test>\n\nContent-Type: application/x-msdownload\n\nMZ";
    writes(server, "message/cpim", inside, 415);
    writes(server, "text/plain", &"long ".repeat(500), 413);
    // Our own users are not held up.
    let own = Sipp::new(server, "message", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    own.set("TEXT", "a film of ours").set("TYPE", "video/mp4").set("CODE", 200).users(&["alice"]).succeed();

    let seen = phone.succeed(3);
    let all = seen.received().join("\n");
    let notice = "A message from sip:mallory@elsewhere.test was withheld: the virus scanner found Isthmus.Test";
    assert!(all.contains(notice) && all.contains(&format!("From: <sip:{DOMAIN}>;tag=")), "{all}");
    assert_eq!(all.matches("was withheld").count(), 1, "once a minute: {all}");
    assert!(all.contains("good day") && all.contains("a film of ours"), "{all}");
    eventually("four lines for the auditor", SOON, || audited(server).len() >= 4);
    let lines = audited(server);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines.iter().all(|l| l.contains("message") && !l.contains("mallory") && !l.contains("bob")), "{lines:?}");
    assert_eq!(server.metric("isthmus_content_withheld_total{service=\"message\"}"), 4.0);

    // Without a scanner nothing passes but what it has seen.
    house.clamd.process.kill();
    let refused = writes(server, "text/plain", "good night", 403);
    assert!(refused.contains("the virus scanner is not there"), "{refused}");
    let phone = self::phone(server, 1);
    writes(server, "text/plain", "good day", 200);
    phone.succeed(1);
}

#[test]
fn messages_are_looked_at_over_icap() {
    let dir = tempfile::tempdir().unwrap();
    let ports = harness::Ports::claim();
    let clamd = Clamd::start(dir.path(), ports.next(), &eicar());
    let mut icap = CIcap::start(dir.path(), ports.next(), &clamd);
    let mut setup = Setup::with_users(&["bob"]);
    setup.sections = format!("[content]\nicap = \"{}\"\nunscanned = \"pass\"\n", icap.url);
    setup.sections += "[content.messages]\ntell_addressee = false\n";
    let server = setup.start();
    let phone = phone(&server, 2);
    let refused = writes(&server, "message/cpim", &wrapped_virus(), 403);
    assert!(refused.contains("the virus scanner found Isthmus.Test"), "{refused}");
    writes(&server, "text/plain", "good day", 200);
    // What the operator said of a scanner that is away holds for this one too.
    icap.process.kill();
    writes(&server, "text/plain", "good night", 200);
    let seen = phone.succeed(2);
    assert!(!seen.received().join("\n").contains("EICAR"));
}

#[test]
fn an_operator_may_let_pass_what_nobody_can_scan() {
    let mut house = started("[content.messages]\nunscanned = \"pass\"\n");
    house.clamd.process.kill();
    let phone = phone(&house.server, 1);
    writes(&house.server, "text/plain", "good night", 200);
    phone.succeed(1);
}

#[test]
fn a_browser_cannot_send_what_the_scanner_knows() {
    let house = started("");
    let server = &house.server;
    let phone = phone(server, 1);
    let virus = String::from_utf8(eicar()).unwrap();
    let mut alice = browser(server, &virus);
    let said = alice.wait_for("failed to send", SOON);
    assert!(said.contains("Isthmus.Test"), "{said}");
    let seen = phone.succeed(1);
    let all = seen.received().join("\n");
    assert!(all.contains("was withheld") && !all.contains("EICAR"), "{all}");
    let phone = self::phone(server, 1);
    browser(server, "hello from the browser").wait_for("sent", SOON);
    assert!(phone.succeed(1).received()[0].contains("hello from the browser"));
}

/// Alice with JsSIP, who writes to bob.
fn browser(server: &Server, text: &str) -> Process {
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    assert!(node.join("node_modules/jssip").exists(), "tests/run (or npm install in tests/node) gets JsSIP");
    let mut command = Command::new("node");
    command.arg("browser.js").arg(format!("wss://127.0.0.1:{}/sip", server.https));
    let bob = format!("sip:bob@{DOMAIN}");
    command.args(["alice", PASSWORD, DOMAIN, &bob, "", text]).current_dir(&node);
    command.env("NODE_EXTRA_CA_CERTS", server.authority.certificate());
    Process::start("browser-alice", server.path(), &mut command)
}

/// A session between alice, who connects, and bob, who is connected to.
struct Chat {
    session: Session,
    alice: Stream,
    bob: Stream,
    paths: [String; 2],
}

fn chat(house: &House, call_id: &'static str) -> Chat {
    let own = "msrp://127.0.0.1:9/alice5s93;tcp";
    let section = |port: u16, path: &str| {
        format!(
            "m=message {port} TCP/MSRP *\na=accept-types:message/cpim text/plain\na=accept-wrapped-types:*\na=path:{path}"
        )
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = section(port, &format!("msrp://127.0.0.1:{port}/bob9di4eae923wzd;tcp"));
    let session = Session::open(&house.server, ["-cid_str", call_id], &section(9, own), &answer);
    let to_us = session.caller_is_told("a=path:");
    let mut alice = Stream::connect(house.door);
    alice.greet("al1c3000", [&to_us, own]);
    assert_eq!(alice.next().what, "200 OK");
    let mut bob = Stream::accept(&listener);
    assert_eq!(bob.next_answering().body, None);
    Chat { session, alice, bob, paths: [to_us, own.to_owned()] }
}

impl Chat {
    fn says(&mut self, id: &str, content_type: &str, more: &str, body: &str) {
        let length = body.len();
        let [to, from] = &self.paths;
        let text = format!(
            "MSRP {id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: m{id}\r\nByte-Range: 1-{length}/{length}\r\n\
             {more}Content-Type: {content_type}\r\n\r\n{body}\r\n-------{id}$\r\n"
        );
        self.alice.write(text.as_bytes());
    }
}

#[test]
fn messages_of_sessions_are_held_until_they_are_judged() {
    let house = started("[content.sessions]\njudge = \"all\"\nmax_size = \"1 MiB\"\n");
    let mut chat = chat(&house, "judged-1");
    // What passes arrives as it was sent, with its Message-ID, and the answers as if nobody had looked.
    chat.says("fine0001", "text/plain", "Success-Report: yes\r\n", "good day");
    assert_eq!(chat.alice.next().what, "200 OK");
    let got = chat.bob.next_answering();
    assert_eq!(
        (got.text().as_str(), got.header("Message-ID"), got.header("Byte-Range")),
        ("good day", "mfine0001", "1-8/8")
    );
    assert_eq!(got.header("Success-Report"), "yes");

    // The virus, in two chunks and the second one first.
    let virus = String::from_utf8(eicar()).unwrap();
    let [to, from] = chat.paths.clone();
    for (id, from_byte, flag) in [("v1ru5002", 31usize, '$'), ("v1ru5001", 1, '+')] {
        let piece = if from_byte == 1 { &virus[..30] } else { &virus[30..] };
        let text = format!(
            "MSRP {id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: thevirus1\r\nByte-Range: {from_byte}-{}/{}\r\n\
             Content-Type: text/plain\r\n\r\n{piece}\r\n-------{id}{flag}\r\n",
            from_byte - 1 + piece.len(),
            virus.len()
        );
        chat.alice.write(text.as_bytes());
        assert_eq!(chat.alice.next().what, "200 OK");
    }
    let report = chat.alice.next();
    assert_eq!((report.what.as_str(), report.header("Message-ID")), ("REPORT", "thevirus1"));
    assert!(report.header("Status").starts_with("000 403"), "{report:?}");
    let notice = chat.bob.next_answering();
    assert_eq!(notice.header("Content-Type"), "text/plain");
    assert!(
        notice.text().starts_with(&format!("A message from sip:alice@{DOMAIN} was withheld: the virus")),
        "{notice:?}"
    );

    // In an envelope, encoded; bob hears of it in one.
    let body = wrapped_virus().replace('\n', "\r\n");
    chat.says("v1ru5003", "message/cpim", "", &body);
    assert_eq!(chat.alice.next().what, "200 OK");
    assert!(chat.alice.next().header("Status").starts_with("000 403"));
    let notice = chat.bob.next_answering();
    assert_eq!(notice.header("Content-Type"), "message/cpim");
    assert!(
        notice.text().contains("was withheld") && notice.text().starts_with(&format!("From: <sip:{DOMAIN}>")),
        "{notice:?}"
    );

    // What does not pass by what it says of itself is refused at its first chunk; bob sees that it was begun.
    chat.says("fi1m0001", "video/mp4", "", "a film");
    assert_eq!(chat.alice.next().status(), 415);
    let sign = chat.bob.next_answering();
    assert_eq!((sign.header("Message-ID"), sign.text().as_str(), sign.flag), ("mfi1m0001", "", '#'));
    let head = format!(
        "MSRP huge0001 SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: thehuge01\r\nByte-Range: 1-*/1099511627776\r\n\
         Content-Type: text/plain\r\n\r\nx\r\n-------huge0001+\r\n"
    );
    chat.alice.write(head.as_bytes());
    assert_eq!(chat.alice.next().status(), 413);
    assert!(chat.bob.next_answering().text().contains("more than 1048576 bytes do not pass"));

    // The other way too, and none is the worse for what went before.
    let back = [chat.session.callee_is_told("a=path:"), chat.bob_uri()];
    chat.bob.send("back0001", [&back[0], &back[1]], "mback0001", "", "good night");
    let mut seen = vec![chat.bob.next()];
    assert_eq!(seen.remove(0).what, "200 OK");
    assert_eq!(chat.alice.next_answering().text(), "good night");
    eventually("four lines for the auditor", SOON, || audited(&house.server).len() >= 4);
    let lines = audited(&house.server);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines.iter().all(|l| l.contains("session") && !l.contains("alice") && !l.contains("bob")), "{lines:?}");
    assert_eq!(house.server.metric("isthmus_msrp_total{kind=\"withheld\"}"), 4.0);
    let Chat { session, alice, bob, .. } = chat;
    session.hang_up();
    dissected(house.server.path(), &alice);
    let told = dissected(house.server.path(), &bob).join("\n");
    assert!(told.contains("SEND||mfi1m0001|#|"), "{told}");
}

impl Chat {
    fn bob_uri(&self) -> String {
        let port = self.bob.io.local_addr().unwrap().port();
        format!("msrp://127.0.0.1:{port}/bob9di4eae923wzd;tcp")
    }
}

#[test]
fn what_the_web_says_in_a_session_is_judged_and_what_a_phone_says_is_not() {
    let house = started("");
    let server = &house.server;
    let mut alice = Browser::open(server, "alice", PASSWORD);
    let line = alice.next();
    let paths = line.strip_prefix("use-path ").unwrap_or_else(|| panic!("{line}")).to_owned();
    let (relay, own) = paths.split_once(' ').unwrap();
    let offer = format!("m=message 2855 TCP/TLS/MSRP *\na=accept-types:text/plain\na=path:{paths}");
    let bob_uri = "msrps://127.0.0.1:9/bob9di4eae923wzd;tcp";
    let answer = format!("m=message 9 TCP/TLS/MSRP *\na=accept-types:text/plain\na=path:{bob_uri}\na=setup:active");
    let session = Session::open(server, ["-cid_str", "judged-2"], &offer, &answer);
    let to = format!("{relay} {}", session.caller_is_told("a=path:"));
    let to_us = session.callee_is_told("a=path:");
    // Which door a session's connection comes by is nobody's business.
    let mut bob = Stream::connect(house.door);
    bob.greet("b0b00001", [&to_us, bob_uri]);
    assert_eq!(bob.next().what, "200 OK");
    let send = |id: &str, body: &str| {
        format!(
            "MSRP {id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {own}\r\nMessage-ID: m{id}\r\nByte-Range: 1-{n}/{n}\r\n\
             Content-Type: text/plain\r\n\r\n{body}\r\n-------{id}$\r\n",
            n = body.len()
        )
    };
    let virus = String::from_utf8(eicar()).unwrap();
    alice.sends(&send("v1ru5001", &virus));
    assert!(alice.hears().starts_with("MSRP v1ru5001 200 OK\r\n"));
    let report = alice.hears();
    assert!(report.contains(" REPORT\r\n") && report.contains("Status: 000 403"), "{report}");
    assert!(bob.next_answering().text().contains("was withheld"));
    alice.sends(&send("fine0001", "good day"));
    assert!(alice.hears().starts_with("MSRP fine0001 200 OK\r\n"));
    assert_eq!(bob.next_answering().text(), "good day");
    // The phone is one of ours.
    bob.send("b0b00002", [&to_us, bob_uri], "mb0b00002", "", &virus);
    assert!(alice.hears().contains(&virus));
    eventually("one was withheld", SOON, || server.metric("isthmus_msrp_total{kind=\"withheld\"}") == 1.0);
    session.hang_up();
}
