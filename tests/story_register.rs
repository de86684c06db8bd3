//! Phones register: over each transport, with the right password and with wrong ones.

mod harness;

use harness::{Setup, Sipp, header, raw};

fn register(server: &harness::Server, scenario: &'static str, port: u16) -> Sipp {
    Sipp::new(server, scenario, port).set("CONTACT", format!("127.0.0.1:{port}")).set("PARAMS", "").set("EXPIRES", 600)
}

fn many(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("user{n:03}")).collect()
}

#[test]
fn registers_with_digest_over_udp() {
    let users = many(200);
    let server = Setup::with_users(&users.iter().map(String::as_str).collect::<Vec<_>>()).start();
    let port = server.ports.next();
    let done = register(&server, "register", port).users(&users).rate(200).succeed();
    let accepted = done.received().into_iter().filter(|m| m.starts_with("SIP/2.0 200")).collect::<Vec<_>>();
    assert!(
        accepted.iter().all(|m| header(m, "Contact").is_some_and(|c| c.contains("expires="))),
        "200 lists the binding: {}",
        accepted[0]
    );
}

#[test]
fn registers_with_digest_over_tcp() {
    let users = many(50);
    let server = Setup::with_users(&users.iter().map(String::as_str).collect::<Vec<_>>()).start();
    let port = server.ports.next();
    register(&server, "register", port).users(&users).tcp().succeed();
}

#[test]
fn wrong_password_and_unknown_user_get_the_same_answer() {
    let server = Setup::with_users(&["alice"]).start();
    let answer_to = |user: &str, port: u16| {
        let done =
            register(&server, "register_refused", port).set("CODE", 401).user_with_password(user, "guess").succeed();
        let last = done.received().last().copied().expect("an answer").to_owned();
        // What differs by nature: who asked, by which call, and the fresh nonce.
        let shape: Vec<String> = last
            .lines()
            .filter(|l| !["From:", "To:", "Call-ID:", "Via:"].iter().any(|h| l.starts_with(h)))
            .map(|l| l.split("nonce=\"").next().unwrap_or_default().trim_end().to_owned())
            .collect();
        shape
    };
    assert_eq!(answer_to("alice", server.ports.next()), answer_to("mallory", server.ports.next()));
}

#[test]
fn register_without_credentials_binds_nobody() {
    let server = Setup::with_users(&["alice"]).start();
    let peer = raw::Peer::new(server.ports.next());
    let uri = format!("sip:{}", harness::DOMAIN);
    peer.send(server.sip, &peer.request("REGISTER", &uri, ["alice", "alice"], "plain1", "Expires: 60\r\n", ""));
    let answer = peer.receive_with("plain1", std::time::Duration::from_secs(20)).expect("an answer");
    assert_eq!(raw::status(&answer), Some(401));
    assert!(header(&answer, "WWW-Authenticate").is_some_and(|v| v.starts_with("Digest ")), "{answer}");
    assert!(header(&answer, "Contact").is_none(), "a challenge lists no bindings: {answer}");
}

#[test]
fn binding_is_listed_and_removed() {
    let server = Setup::with_users(&["alice"]).start();
    let port = server.ports.next();
    register(&server, "register", port).users(&["alice"]).succeed();
    let removal = register(&server, "register", port).set("EXPIRES", 0).users(&["alice"]).succeed();
    let last = removal.received().last().copied().unwrap().to_owned();
    assert_eq!(raw::status(&last), Some(200));
    assert!(!last.contains(&format!("127.0.0.1:{port}>")), "the binding is gone: {last}");
}
