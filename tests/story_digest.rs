//! Digest with SHA-256 beside MD5 (RFC 8760): a phone that knows both takes the first offer, one that knows only MD5 the other.
//! The answers are computed by the system's openssl, not by the server's own code. (Of the phones that the stories have, none
//! knows SHA-256; baresip 1.0 gives up where it is offered at all, which is why it is not offered by default.)

mod harness;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{DOMAIN, PASSWORD, Peer, Server, Setup, header, raw};

fn started() -> Server {
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.sip = "digest = [\"SHA-256\", \"MD5\"]\n".into();
    setup.start()
}

/// The lower-case hexadecimal hash of `text`, by openssl: `sha256` or `md5`.
fn hash(algorithm: &str, text: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["dgst", &format!("-{algorithm}"), "-r"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut openssl = command.spawn().expect("openssl runs");
    openssl.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("openssl reads");
    let done = openssl.wait_with_output().expect("openssl ends");
    assert!(done.status.success());
    String::from_utf8_lossy(&done.stdout).split(' ').next().unwrap_or_default().to_owned()
}

/// The value of a quoted parameter of a challenge.
fn quoted<'a>(challenge: &'a str, name: &str) -> &'a str {
    let from = challenge.split(&format!("{name}=\"")).nth(1).unwrap_or_else(|| panic!("no {name}: {challenge}"));
    from.split('"').next().unwrap_or_default()
}

/// The challenges of a 401, in the server's order of preference.
fn challenges(answer: &str) -> Vec<&str> {
    let line = |l| str::strip_prefix(l, "WWW-Authenticate: ");
    answer.lines().filter_map(line).collect()
}

fn register(peer: &Peer, server: &Server, sequence: u32, authorization: &str) -> String {
    let more = format!("Expires: 60\r\n{authorization}");
    let uri = format!("sip:{DOMAIN}");
    let request = peer.request("REGISTER", &uri, ["alice", "alice"], &format!("sha{sequence}"), &more, "");
    // One Call-ID for all; the branch is each one's own.
    let request = String::from_utf8(request).unwrap();
    let request = request.replace(&format!("Call-ID: sha{sequence}"), "Call-ID: sha");
    peer.send(server.sip, request.replace("CSeq: 1 ", &format!("CSeq: {sequence} ")).as_bytes());
    peer.receive_with(&format!("CSeq: {sequence} "), Duration::from_secs(5)).expect("an answer")
}

/// Alice's Authorization for `challenge`, computed with `hashed` and claimed to be `named`.
fn authorization(challenge: &str, named: &str, hashed: &str) -> String {
    let (nonce, uri) = (quoted(challenge, "nonce"), format!("sip:{DOMAIN}"));
    let ha1 = hash(hashed, &format!("alice:{DOMAIN}:{PASSWORD}"));
    let ha2 = hash(hashed, &format!("REGISTER:{uri}"));
    let response = hash(hashed, &format!("{ha1}:{nonce}:00000001:c0ffee:auth:{ha2}"));
    format!(
        "Authorization: Digest username=\"alice\", realm=\"{DOMAIN}\", nonce=\"{nonce}\", uri=\"{uri}\", \
         response=\"{response}\", algorithm={named}, qop=auth, nc=00000001, cnonce=\"c0ffee\"\r\n"
    )
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
