//! Files within sessions (RFC 5547) through the anchor: SIPp makes the calls, bare streams carry the file, sha1sum judges what arrived,
//! tshark reads the wire.

mod harness;

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use harness::clamd::{Clamd, eicar};
use harness::files::{self, sha1};
use harness::msrp::{Session, Stream, dissected};
use harness::{Server, Setup, eventually};

/// BYE ends both legs within this time.
const CLOSED: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;
/// Bytes of a chunk, the first and the last apart.
const CHUNK: u64 = 256 << 10;
const ALICE: &str = "msrp://127.0.0.1:9/alice5s93;tcp";

fn started(sections: &str) -> (Server, u16) {
    let mut setup = Setup::with_users(&["alice", "bob"]).with_msrp();
    setup.sections = sections.to_owned();
    let server = setup.start();
    let door = server.msrp[0];
    (server, door)
}

/// What the server had in memory at its height since it started, in bytes.
fn height(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
    line.split(' ').next().unwrap().parse::<u64>().unwrap() * 1024
}

/// The attributes of RFC 5547 §6, all of them. `range`: what is sent of the file.
fn attributes(size: u64, hash: &str, range: &str) -> [String; 6] {
    [
        format!("a=file-selector:name:\"My cool picture.jpg\" type:image/jpeg size:{size} hash:sha-1:{hash}"),
        "a=file-transfer-id:vBnG916bdberum2fFEABR1FR3ExZMUrd".into(),
        "a=file-disposition:attachment".into(),
        "a=file-date:creation:\"Mon, 15 May 2006 15:01:31 +0300\" modification:\"Tue, 16 May 2006 15:01:31 +0300\""
            .into(),
        "a=file-icon:cid:id2@alicepc.example.com".into(),
        format!("a=file-range:{range}"),
    ]
}

fn section(port: u16, path: &str, direction: &str, file: &[String; 6]) -> String {
    let lines = file.join("\n");
    format!(
        "m=message {port} TCP/MSRP *\ni=This is my latest picture\na={direction}\na=accept-types:message/cpim image/jpeg\n\
         a=accept-wrapped-types:*\na=path:{path}\n{lines}"
    )
}

/// A session for one file, from alice to bob, and both streams.
struct Transfer {
    session: Session,
    alice: Stream,
    bob: Stream,
    to_us: String,
}

impl Transfer {
    fn open(server: &Server, door: u16, call_id: &'static str, file: &[String; 6]) -> Transfer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bob_uri = format!("msrp://127.0.0.1:{port}/bob9di4eae923wzd;tcp");
        let offer = section(9, ALICE, "sendonly", file);
        let answer = section(port, &bob_uri, "recvonly", file);
        let session = Session::open(server, ["-cid_str", call_id], &offer, &answer);
        // All that is said of the file stays as it was said, in both directions.
        for line in file.iter().map(String::as_str).chain(["i=This is my latest picture"]) {
            let (name, value) = line.split_at(line.find(':').map_or(2, |at| at + 1));
            assert_eq!(session.callee_is_told(name), value);
            assert_eq!(session.caller_is_told(name), value);
        }
        assert_eq!(
            (session.callee_is_told("a=send"), session.caller_is_told("a=recv")),
            ("only".into(), "only".into())
        );
        let to_us = session.caller_is_told("a=path:");
        let mut alice = Stream::connect(door);
        alice.greet("al1c3000", [&to_us, ALICE]);
        assert_eq!(alice.next().what, "200 OK");
        let mut bob = Stream::accept(&listener);
        assert_eq!(bob.next_answering().body, None);
        Transfer { session, alice, bob, to_us }
    }

    /// Sends a file from byte `from` on, in many chunks, not waiting for answers; gives up when the connection is gone. The
    /// portion is the message: its bytes count from 1 (RFC 5547 §8.7).
    fn sending(&self, path: &Path, from: u64) -> std::thread::JoinHandle<()> {
        let (mut io, file, to_us) = (self.alice.io.try_clone().unwrap(), File::open(path).unwrap(), self.to_us.clone());
        let total = file.metadata().unwrap().len() - from;
        std::thread::spawn(move || {
            let mut at = 0;
            for n in 0.. {
                // The first as long as that of RFC 5547 §9.1.
                let length = if n == 0 { 2048 } else { CHUNK.min(total - at) };
                let mut body = vec![0; length as usize];
                file.read_exact_at(&mut body, from + at).unwrap();
                let flag = if at + length == total { '$' } else { '+' };
                let head = format!(
                    "MSRP fi1e{n:04} SEND\r\nTo-Path: {to_us}\r\nFrom-Path: {ALICE}\r\nMessage-ID: 12339sdqwer\r\n\
                     Byte-Range: {}-{}/{total}\r\nContent-Disposition: attachment\r\nContent-Type: image/jpeg\r\n\r\n",
                    at + 1,
                    at + length
                );
                let end = format!("\r\n-------fi1e{n:04}{flag}\r\n");
                let all = [head.as_bytes(), &body, end.as_bytes()].concat();
                if io.write_all(&all).is_err() {
                    return;
                }
                at += length;
                if at == total {
                    return;
                }
            }
        })
    }

    /// Bob writes down what comes, behind the `from` bytes that he has, until `enough` are there without a gap. Says how many are.
    fn receives(&mut self, file: &File, from: u64, enough: u64) -> u64 {
        let mut there = from;
        while there < enough {
            let frame = self.bob.next_answering();
            assert_eq!((frame.what.as_str(), frame.header("Message-ID")), ("SEND", "12339sdqwer"));
            assert_eq!(frame.header("Content-Disposition"), "attachment");
            let start: u64 = frame.header("Byte-Range").split('-').next().unwrap().parse().unwrap();
            let body = frame.body.unwrap();
            assert_eq!(from + start, there + 1, "chunks come in their order");
            file.write_all_at(&body, from + start - 1).unwrap();
            there += body.len() as u64;
        }
        there
    }
}

#[test]
fn a_file_that_broke_off_goes_on_by_a_new_offer_and_arrives_as_it_was() {
    let (server, door) = started("");
    let size = 200 * MIB + 12_345;
    let (original, copy) = (server.path().join("original"), server.path().join("copy"));
    files::write(&original, size);
    let hash = sha1(&original);
    let received = File::create(&copy).unwrap();

    let mut first = Transfer::open(&server, door, "file-1", &attributes(size, &hash, "1-*"));
    let before = height(&server);
    let sender = first.sending(&original, 0);
    let there = first.receives(&received, 0, 80 * MIB);
    let told = dissected(server.path(), &first.bob).join("\n");
    assert!(told.contains("SEND||12339sdqwer|+|"), "{told}");
    // Bob's phone dies in the middle.
    let Transfer { session, mut alice, bob, .. } = first;
    drop(bob);
    alice.closed(Duration::from_secs(20));
    sender.join().unwrap();
    session.hang_up();

    // The rest, by an offer of the same file and another range of it.
    let rest = attributes(size, &hash, &format!("{}-*", there + 1));
    let mut second = Transfer::open(&server, door, "file-2", &rest);
    let sender = second.sending(&original, there);
    assert_eq!(second.receives(&received, there, size), size);
    sender.join().unwrap();
    assert_eq!(sha1(&copy), hash, "what arrived is what was sent");
    let grown = height(&server).saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes more for a file of {size}");
    second.session.hang_up();
    second.alice.closed(CLOSED);
    second.bob.closed(CLOSED);
    let told = dissected(server.path(), &second.bob).join("\n");
    assert!(told.contains("SEND||12339sdqwer|$|"), "the last chunk: {told}");
}

#[test]
fn a_tebibyte_is_refused_at_its_first_chunk() {
    let (server, door) = started("");
    let size = 1u64 << 40;
    let hash = ["AB"; 20].join(":");
    let mut transfer = Transfer::open(&server, door, "file-3", &attributes(size, &hash, "1-*"));
    let head = |id: &str, range: &str| {
        format!(
            "MSRP {id} SEND\r\nTo-Path: {}\r\nFrom-Path: {ALICE}\r\nMessage-ID: m{id}\r\nByte-Range: {range}\r\n\
             Content-Type: image/jpeg\r\n\r\n0123456789\r\n-------{id}+\r\n",
            transfer.to_us
        )
    };
    let chunks = [head("t3b1b001", "1-10/1099511627776"), head("t3b1b002", "1099511627767-1099511627776/*")];
    for chunk in chunks {
        transfer.alice.write(chunk.as_bytes());
        assert_eq!(transfer.alice.next().status(), 413);
    }
    // Nothing of it has reached bob: what he hears first is another message.
    transfer.alice.send("sma11001", [&transfer.to_us, ALICE], "small001", "", "a small one");
    assert_eq!(transfer.bob.next_answering().text(), "a small one");
    assert_eq!(transfer.alice.next().what, "200 OK");
    transfer.session.hang_up();
}

#[test]
fn a_file_that_is_judged_arrives_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let ports = harness::Ports::claim();
    let clamd = Clamd::start(dir.path(), ports.next(), &eicar());
    let (server, door) =
        started(&format!("[content]\nclamd = \"{}\"\n[content.sessions]\njudge = \"all\"\n", clamd.address));
    let [good, bad, copy] = ["good", "bad", "copy"].map(|name| server.path().join(name));
    let size = 20 * MIB + 12_345;
    files::write(&good, size);
    files::write(&bad, size);
    File::options().write(true).open(&bad).unwrap().write_all_at(&eicar(), 6 * MIB).unwrap();
    let hash = sha1(&good);
    let before = height(&server);

    let received = File::create(&copy).unwrap();
    let mut transfer = Transfer::open(&server, door, "file-4", &attributes(size, &hash, "1-*"));
    let sender = transfer.sending(&good, 0);
    assert_eq!(transfer.receives(&received, 0, size), size);
    sender.join().unwrap();
    assert_eq!(sha1(&copy), hash);
    transfer.session.hang_up();
    transfer.bob.closed(CLOSED);
    let grown = height(&server).saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes more for a file of {size}");

    // A virus; and another file than the one that was offered.
    for (call_id, file, hash, status) in [
        ("file-5", &bad, sha1(&bad), "000 403"),
        ("file-6", &bad, hash, "000 403"),
        ("file-7", &good, sha1(&bad), "000 400"),
    ] {
        let mut transfer = Transfer::open(&server, door, call_id, &attributes(size, &hash, "1-*"));
        let sender = transfer.sending(file, 0);
        let report = loop {
            let frame = transfer.alice.next();
            if frame.what == "REPORT" {
                break frame;
            }
            assert_eq!(frame.what, "200 OK");
        };
        sender.join().unwrap();
        assert_eq!(report.header("Message-ID"), "12339sdqwer");
        assert!(report.header("Status").starts_with(status), "{call_id}: {report:?}");
        let sign = transfer.bob.next_answering();
        assert_eq!((sign.header("Message-ID"), sign.body.as_deref(), sign.flag), ("12339sdqwer", Some(&b""[..]), '#'));
        transfer.session.hang_up();
        transfer.bob.closed(CLOSED);
    }
    let spool = server.path().join("data/spool");
    eventually("nothing waits any more", CLOSED, || std::fs::read_dir(&spool).unwrap().count() == 0);
}
