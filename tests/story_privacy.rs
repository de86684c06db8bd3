//! Callers who want to stay unknown (RFC 3323, RFC 3325): what the callee sees of them, and that the call works all the same.

mod harness;

use harness::{DOMAIN, Server, Setup, Sipp, header, sipp::Outcome};

fn started() -> Server {
    Setup::with_users(&["alice", "bob"]).start()
}

fn bind(server: &Server, user: &str, port: u16) {
    let from = server.ports.next();
    let sipp = Sipp::new(server, "register", from).set("CONTACT", format!("127.0.0.1:{port}")).set("PARAMS", "");
    sipp.set("EXPIRES", 600).users(&[user]).succeed();
}

/// Alice runs `asks`, bob's phone `answers`; gives what the phone saw.
fn between(server: &Server, asks: &'static str, answers: &'static str, tcp: bool) -> Outcome {
    let phone = server.ports.next();
    let other = Sipp::new(server, answers, phone).start();
    bind(server, "bob", phone);
    let one = Sipp::new(server, asks, server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"]);
    if tcp { one.tcp() } else { one }.succeed();
    other.succeed(1)
}

fn tells_nothing(seen: &Outcome) {
    assert!(!seen.received().is_empty());
    for message in seen.received() {
        assert!(!message.to_ascii_lowercase().contains("alice"), "{message}");
    }
}

#[test]
fn callee_never_sees_who_calls_and_requests_go_both_ways() {
    for tcp in [false, true] {
        let server = started();
        let seen = between(&server, "private_call", "private_called", tcp);
        tells_nothing(&seen);
        let invite = seen.received()[0];
        assert_eq!((header(invite, "Subject"), header(invite, "Proxy-Require")), (None, None), "{invite}");
    }
}

#[test]
fn callee_hangs_up_on_somebody_it_does_not_know() {
    let server = started();
    tells_nothing(&between(&server, "private_call_ended", "private_called_ends", false));
}

#[test]
fn anonymous_caller_proves_its_identity_to_the_proxy_only() {
    let server = started();
    let seen = between(&server, "anonymous_call", "answer", false);
    let invite = seen.received()[0];
    assert_eq!(header(invite, "P-Preferred-Identity"), None, "{invite}");
    assert_eq!(header(invite, "P-Asserted-Identity"), None, "{invite}");
    assert_eq!(header(invite, "Privacy"), Some("id"), "{invite}");
    tells_nothing(&seen);
}

#[test]
fn privacy_that_cannot_be_given_and_is_critical_fails_the_call() {
    let server = started();
    let untouched = harness::Peer::new(server.ports.next());
    bind(&server, "bob", untouched.port);
    let call = Sipp::new(&server, "private_call_refused", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    call.users(&["alice"]).succeed();
    assert_eq!(untouched.receive(std::time::Duration::from_millis(300)), None);
}

#[test]
fn message_from_somebody_unknown_is_kept_without_the_name() {
    let server = started();
    let send = Sipp::new(&server, "message", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    let private = send.set("TEXT", "guess who").set("CODE", 202).set("MORE", "Privacy: user\n").users(&["alice"]);
    private.succeed();
    let port = server.ports.next();
    let phone = Sipp::new(&server, "take_messages", port).set("CODE", 200).start();
    bind(&server, "bob", port);
    let seen = phone.succeed(1);
    assert!(seen.received()[0].contains("guess who"), "{}", seen.received()[0]);
    tells_nothing(&seen);
}
