//! A file that is offered by MSRP (RFC 5547) to somebody whose phones fetch files over HTTP (GSMA RCC.07), or who is away: the server
//! takes it. SIPp makes the call and is the addressee's phone, curl fetches, xmllint and sha1sum judge; the MSRP end is a bare stream.

mod harness;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::clamd::{Clamd, eicar};
use harness::files::{bytes, sha1};
use harness::msrp::{Frame, Stream, told};
use harness::sipp::Running;
use harness::{DOMAIN, PASSWORD, Peer, Server, Setup, Sipp, bind, eventually};

const SOON: Duration = Duration::from_secs(30);
const ALICE: &str = "msrp://127.0.0.1:9/alice5s93;tcp";
const FETCHES: &str = ";+g.3gpp.iari-ref=\"urn%3Aurn-7%3A3gpp-application.ims.iari.rcs.fthttp\"";

struct House {
    server: Server,
    door: u16,
}

fn started(content: &str) -> House {
    let mut setup = Setup::with_users(&["alice", "bob"]).with_msrp();
    setup.sections = format!("[content]\nmax_file = \"8 MiB\"\n{content}");
    setup.http = "public_url = \"http://127.0.0.1:@PORT@\"\n".to_owned();
    let server = setup.start();
    House { door: server.msrp[0], server }
}

/// A file of so many bytes, which `start` begins, and its hash.
fn written(server: &Server, name: &str, start: &[u8], len: usize) -> (PathBuf, String) {
    let path = server.path().join(name);
    std::fs::write(&path, [start, &bytes(len - start.len())].concat()).unwrap();
    let hash = sha1(&path);
    (path, hash)
}

/// Alice's call with a file for bob, which the server answers.
struct Offer {
    call_id: &'static str,
    port: u16,
    call: Running,
    alice: Stream,
    to: String,
}

impl Offer {
    fn of(house: &House, call_id: &'static str, size: usize, hash: &str) -> Offer {
        let selector = format!("name:\"a%20photo %26 more.jpg\" type:image/jpeg size:{size} hash:sha-1:{hash}");
        let media = format!(
            "m=message 9 TCP/MSRP *\na=sendonly\na=accept-types:message/cpim\na=accept-wrapped-types:*\na=path:{ALICE}\n\
             a=file-selector:{selector}\na=file-transfer-id:{call_id}\na=file-disposition:attachment"
        );
        let port = house.server.ports.next();
        let sipp =
            Sipp::new(&house.server, "session", port).set("MEDIA", media).set("URI", format!("sip:bob@{DOMAIN}"));
        let call = sipp.users(&["alice"]).options(&["-cid_str", call_id]).start();
        let to = told(&call, "a=path:");
        // As RFC 5547 §8.3.1 has it answered.
        assert_eq!((told(&call, "a=recv").as_str(), told(&call, "a=file-selector:")), ("only", selector));
        assert_eq!(told(&call, "a=file-transfer-id:"), call_id);
        let alice = Stream::joining(house.door, [&to, ALICE]);
        Offer { call_id, port, call, alice, to }
    }

    /// Sends the file in two chunks, and gives what says how it went: a report, or the answer that refuses it.
    fn sends(&mut self, file: &Path) -> Frame {
        let all = std::fs::read(file).unwrap();
        let total = all.len();
        let (first, second) = all.split_at(total / 2);
        for (id, from, body, flag) in [("fi1e0001", 1, first, '+'), ("fi1e0002", first.len() + 1, second, '$')] {
            let head = format!(
                "MSRP {id} SEND\r\nTo-Path: {}\r\nFrom-Path: {ALICE}\r\nMessage-ID: thefile1\r\nByte-Range: {from}-{}/{total}\r\n\
                 Success-Report: yes\r\nContent-Type: image/jpeg\r\n\r\n",
                self.to,
                from - 1 + body.len()
            );
            self.alice.write(&[head.as_bytes(), body, format!("\r\n-------{id}{flag}\r\n").as_bytes()].concat());
        }
        loop {
            let frame = self.alice.next();
            if frame.what == "REPORT" {
                assert_eq!(frame.header("Message-ID"), "thefile1");
            }
            if frame.what != "200 OK" {
                return frame;
            }
        }
    }

    fn hangs_up(self) {
        let peer = Peer::new(0);
        peer.send(self.port, &peer.request("INFO", "sip:x", ["bob", "alice"], self.call_id, "", ""));
        self.call.succeed(1);
    }
}

/// Bob's phone, which takes so many messages.
fn phone(server: &Server, params: &str, messages: u32) -> Running {
    let port = server.ports.next();
    let phone = Sipp::new(server, "take_messages", port).set("CODE", 200).calls(messages).start();
    bind(server, "bob", port, params);
    phone
}

/// The document in a message, read by xmllint.
fn at(server: &Server, message: &str, path: &str) -> String {
    let start = message.find("<?xml").unwrap_or_else(|| panic!("{message}"));
    let end = message.rfind("</file>").unwrap_or_else(|| panic!("{message}")) + 7;
    let file = server.path().join("document.xml");
    std::fs::write(&file, &message[start..end]).unwrap();
    let done = Command::new("xmllint").args(["--nonet", "--xpath", &format!("string({path})")]).arg(&file).output();
    String::from_utf8(done.expect("xmllint runs").stdout).unwrap().trim().to_owned()
}

fn fetched(server: &Server, message: &str) -> String {
    let link = at(server, message, "//*[local-name()='data']/@url");
    let copy = server.path().join("copy");
    let done = Command::new("curl").args(["-sSf", "-o"]).arg(&copy).arg(&link).output().expect("curl runs");
    assert!(done.status.success(), "{link}: {}", String::from_utf8_lossy(&done.stderr));
    sha1(&copy)
}

#[test]
fn a_file_for_somebody_away_waits_on_the_shelf() {
    let mut house = started("");
    let (file, hash) = written(&house.server, "photo", b"", 6 << 20);
    let mut offer = Offer::of(&house, "taken-1", 6 << 20, &hash);
    assert!(offer.sends(&file).header("Status").starts_with("000 200"));
    offer.hangs_up();
    house.server.restart();
    let seen = phone(&house.server, FETCHES, 1).succeed(1);
    let message = seen.received()[0];
    assert!(message.contains("Content-Type: message/cpim"), "{message}");
    assert!(message.contains("Content-Type: application/vnd.gsma.rcs-ft-http+xml"), "{message}");
    assert!(message.contains(&format!("From: <sip:alice@{DOMAIN}>")), "{message}");
    assert_eq!(at(&house.server, message, "//*[local-name()='file-name']"), "a photo & more.jpg");
    assert_eq!(at(&house.server, message, "//*[local-name()='content-type']"), "image/jpeg");
    assert_eq!(at(&house.server, message, "//*[local-name()='file-size']"), "6291456");
    assert_eq!(fetched(&house.server, message), hash);
}

#[test]
fn a_file_for_a_phone_that_fetches_is_told_at_once_unless_it_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let ports = harness::Ports::claim();
    let clamd = Clamd::start(dir.path(), ports.next(), &eicar());
    let house = started(&format!("clamd = \"{}\"\n", clamd.address));
    let server = &house.server;
    let phone = phone(server, FETCHES, 1);
    let (file, hash) = written(server, "photo", b"", 1 << 20);
    let (virus, infected) = written(server, "virus", &eicar(), 1 << 20);
    for (call_id, file, hash, status) in
        [("taken-2", &file, &infected, "000 400"), ("taken-3", &virus, &infected, "000 403")]
    {
        let mut offer = Offer::of(&house, call_id, 1 << 20, hash);
        let report = offer.sends(file);
        assert!(report.header("Status").starts_with(status), "{call_id}: {report:?}");
        offer.hangs_up();
    }
    let mut offer = Offer::of(&house, "taken-4", 1 << 20, &hash);
    assert!(offer.sends(&file).header("Status").starts_with("000 200"));
    // A session is for one file.
    assert!(offer.sends(&file).header("Status").starts_with("000 400"));
    offer.hangs_up();
    let seen = phone.succeed(1);
    assert_eq!(fetched(server, seen.received()[0]), hash);
    eventually("three lines for the auditor", SOON, || {
        let all = server.process.output();
        all.lines().filter(|l| l.contains("withheld") && l.contains("file") && !l.contains("alice")).count() == 3
    });
}

/// What the server says to an upload by curl, and its status.
fn uploaded(server: &Server, user: &str, file: &Path) -> (u16, String) {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--digest", "-u", &format!("{user}:{PASSWORD}"), "-w", "%{http_code}", "-F", "tid=1", "-F"]);
    curl.arg(format!("File=@{};type=image/jpeg", file.display()));
    let done = curl.arg(format!("http://127.0.0.1:{}/content/", server.http)).output().expect("curl runs");
    let told = String::from_utf8(done.stdout).unwrap();
    let (document, status) = told.split_at(told.len() - 3);
    (status.parse().unwrap(), document.to_owned())
}

#[test]
fn files_by_msrp_count_in_the_days_share() {
    let house = started("daily_quota = \"5 MiB\"\n");
    let server = &house.server;
    let (file, hash) = written(server, "photo", b"", 3 << 20);
    let mut offer = Offer::of(&house, "taken-5", 3 << 20, &hash);
    assert!(offer.sends(&file).header("Status").starts_with("000 200"));
    offer.hangs_up();
    // Refused at its first chunk.
    let mut offer = Offer::of(&house, "taken-6", 3 << 20, &hash);
    assert_eq!(offer.sends(&file).status(), 413);
    offer.hangs_up();
    let (status, why) = uploaded(server, "alice", &file);
    assert!(status == 429 && why.contains("today's share is used up"), "{status}: {why}");
    assert_eq!(uploaded(server, "bob", &file).0, 200);
}

#[test]
fn a_link_for_a_phone_that_takes_files_by_msrp_alone_becomes_a_file() {
    let (hash, file, frame) = pushed("message/cpim image/jpeg");
    assert_eq!((frame.header("Content-Type"), frame.header("Success-Report")), ("image/jpeg", "yes"));
    assert_eq!(hash, file);
}

#[test]
fn a_phone_that_takes_envelopes_alone_gets_the_file_in_one() {
    let (hash, file, frame) = pushed("message/cpim");
    assert_eq!((frame.header("Content-Type"), frame.header("Success-Report")), ("message/cpim", "yes"));
    assert_eq!(hash, file);
}

/// A file that alice uploads and sends the link of to bob, whose phone says what it takes: its hash, that of what the phone gets, and
/// the head of that.
fn pushed(accept_types: &str) -> (String, String, Frame) {
    let house = started("");
    let server = &house.server;
    let (file, hash) = written(server, "a photo.jpg", b"", 3 << 20);
    let (status, document) = uploaded(server, "alice", &file);
    assert!(status == 200 && document.contains("file-info"), "{status}: {document}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let msrp = listener.local_addr().unwrap().port();
    let own = format!("msrp://127.0.0.1:{msrp}/bob9di4eae923wzd;tcp");
    let port = server.ports.next();
    let answer = format!("m=message {msrp} TCP/MSRP *\na=recvonly\na=accept-types:{accept_types}\na=path:{own}");
    let phone = Sipp::new(server, "session_answer", port).set("MEDIA", answer).start();
    bind(server, "bob", port, &FETCHES.replace("rcs.fthttp", "rcse.ft"));
    let sipp = Sipp::new(server, "message", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    let sipp = sipp.set("TYPE", "application/vnd.gsma.rcs-ft-http+xml").set("TEXT", document).set("NUMBER", "");
    sipp.set("CODE", 202).users(&["alice"]).succeed();

    let offered = format!("name:\"a photo.jpg\" type:image/jpeg size:{} hash:sha-1:{hash}", 3 << 20);
    assert_eq!(told(&phone, "a=file-selector:"), offered);
    assert_eq!(told(&phone, "a=send"), "only");
    assert!(told(&phone, "From: ").contains(&format!("<sip:alice@{DOMAIN}>")));
    let mut bob = Stream::accept(&listener);
    assert_eq!(bob.next_answering().body, None);
    let (frame, all) = bob.next_whole();
    let content = if frame.header("Content-Type") == "message/cpim" {
        let head = "\r\nContent-Type: image/jpeg\r\nContent-Disposition: attachment\r\n\r\n";
        let at = memchr::memmem::find(&all, head.as_bytes()).expect("the head of the file");
        assert!(all.starts_with(format!("From: <sip:alice@{DOMAIN}>\r\nTo: <sip:bob@{DOMAIN}>\r\n").as_bytes()));
        &all[at + head.len()..]
    } else {
        &all
    };
    let copy = server.path().join("copy");
    std::fs::write(&copy, content).unwrap();
    let got = sha1(&copy);
    bob.report(&frame, all.len());
    phone.succeed(1);
    eventually("it was delivered", SOON, || server.metric("isthmus_kept_messages_total{fate=\"delivered\"}") == 1.0);
    (hash, got, frame)
}
