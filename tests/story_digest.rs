//! Digest with SHA-256 beside MD5 (RFC 8760): a phone that knows both takes the first offer, one that knows only MD5 the other.
//! Linphone knows SHA-256. For the cases that no phone makes, the answers are computed by the system's openssl, not by the
//! server's own code. What other phones make of such offers, and why MD5 alone is the default: docs/decisions.

mod harness;

use std::time::Duration;

use harness::digest::{self, challenges};
use harness::{DOMAIN, Linphone, PASSWORD, Peer, Server, Setup, Sipp, header, raw};

fn started() -> Server {
    offering("\"SHA-256\", \"MD5\"")
}

fn offering(algorithms: &str) -> Server {
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.sip = format!("digest = [{algorithms}]\n");
    setup.start()
}

/// Linphone registers as alice; the algorithm of the Authorization that let it in.
fn linphone_registers(server: &Server) -> String {
    let mut phone = Linphone::start(server, "alice");
    let log = phone.wait_for("Register refresher [200] reason [OK]");
    let answers: Vec<&str> = log.lines().filter(|l| l.starts_with("Authorization:")).collect();
    let named = answers.last().and_then(|l| l.split("algorithm=").nth(1)).unwrap_or_else(|| panic!("{answers:?}"));
    assert_eq!(server.metric("isthmus_bindings"), 1.0);
    named.split([',', ' ', '\r']).next().unwrap_or_default().to_owned()
}

#[test]
fn linphone_registers_by_sha_256_when_it_is_offered_first_or_alone() {
    assert_eq!(linphone_registers(&started()), "SHA-256");
    assert_eq!(linphone_registers(&offering("\"SHA-256\"")), "SHA-256");
}

#[test]
fn linphone_takes_what_is_offered_first() {
    assert_eq!(linphone_registers(&offering("\"MD5\", \"SHA-256\"")), "MD5");
}

#[test]
fn sipp_that_knows_md5_alone_registers_when_it_comes_first() {
    let server = offering("\"MD5\", \"SHA-256\"");
    let port = server.ports.next();
    let phone = Sipp::new(&server, "register", port).set("CONTACT", format!("127.0.0.1:{port}"));
    phone.set("PARAMS", "").set("EXPIRES", 600).users(&["alice"]).succeed();
}

fn register(peer: &Peer, server: &Server, sequence: u32, authorization: &str) -> String {
    let more = format!("Expires: 60\r\n{authorization}");
    let uri = format!("sip:{DOMAIN}");
    let request = peer.request("REGISTER", &uri, ["alice", "alice"], &format!("sha{sequence}"), &more, "");
    // One Call-ID for all; the branch is each one's own.
    let request = String::from_utf8(request).unwrap();
    let request = request.replace(&format!("Call-ID: sha{sequence}"), "Call-ID: sha");
    peer.send(server.sip, request.replace("CSeq: 1 ", &format!("CSeq: {sequence} ")).as_bytes());
    peer.receive_with(&format!("CSeq: {sequence} "), Duration::from_secs(20)).expect("an answer")
}

fn authorization(challenge: &str, named: &str, hashed: &str) -> String {
    digest::authorization(challenge, "alice", PASSWORD.as_bytes(), named, hashed)
}

/// Is refused once, answers the challenge of its choice, and returns what comes of it.
fn answers_with(choice: usize, named: &str, hashed: &str) -> (String, String) {
    let server = started();
    let peer = Peer::new(server.ports.next());
    let first = register(&peer, &server, 1, "");
    assert_eq!(raw::status(&first), Some(401), "{first}");
    let challenge = challenges(&first).get(choice).copied().unwrap_or_else(|| panic!("one challenge each: {first}"));
    let second = register(&peer, &server, 2, &authorization(challenge, named, hashed));
    (first, second)
}

#[test]
fn sha_256_is_offered_first_and_accepted() {
    let (refused, accepted) = answers_with(0, "SHA-256", "sha256");
    let offers = challenges(&refused);
    assert!(offers[0].contains("algorithm=SHA-256") && offers[1].contains("algorithm=MD5"), "{refused}");
    assert_eq!(raw::status(&accepted), Some(200), "{accepted}");
    assert!(header(&accepted, "Contact").is_some_and(|c| c.contains("sip:alice@127.0.0.1")), "{accepted}");
}

#[test]
fn md5_is_accepted_when_both_are_offered() {
    let (_, accepted) = answers_with(1, "MD5", "md5");
    assert_eq!(raw::status(&accepted), Some(200), "{accepted}");
}

#[test]
fn answer_by_another_algorithm_than_it_claims_is_refused() {
    let (_, refused) = answers_with(0, "SHA-256", "md5");
    assert_eq!(raw::status(&refused), Some(401), "{refused}");
}

#[test]
fn algorithm_that_was_not_offered_is_refused() {
    let mut setup = Setup::with_users(&["alice"]);
    setup.sip = "digest = [\"SHA-256\"]\n".into();
    let server = setup.start();
    let peer = Peer::new(server.ports.next());
    let first = register(&peer, &server, 1, "");
    let offers = challenges(&first);
    assert_eq!(offers.len(), 1, "{first}");
    // The right password, but by the weaker algorithm.
    let second = register(&peer, &server, 2, &authorization(offers[0], "MD5", "md5"));
    assert_eq!(raw::status(&second), Some(401), "{second}");
}
