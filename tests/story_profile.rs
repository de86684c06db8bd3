//! What a user's profile does to calls: numbers, forwarding, barring.

mod harness;

use harness::{DOMAIN, PASSWORD, Server, Setup, Sipp, bind};

/// Alice, who calls; carol, who picks up; and bob with this in his profile.
fn started(bob: &str) -> Server {
    let mut setup = Setup::with_users(&["alice", "carol"]);
    setup.provisions =
        format!("[[user]]\nid = \"bob\"\npassword = \"{PASSWORD}\"\nmsisdn = \"+819012345678\"\n{bob}\n");
    setup.start()
}

/// Starts a phone of `user` with this scenario and binds it.
fn phone(server: &Server, user: &str, scenario: &'static str, code: u16) -> harness::sipp::Running {
    let port = server.ports.next();
    let phone = Sipp::new(server, scenario, port).set("CODE", code).start();
    bind(server, user, port, "");
    phone
}

fn call(server: &Server, scenario: &'static str, uri: &str) -> Sipp {
    Sipp::new(server, scenario, server.ports.next()).set("URI", uri).users(&["alice"])
}

fn bob() -> String {
    format!("sip:bob@{DOMAIN}")
}

fn forward(settings: &str) -> String {
    format!("[user.call_settings]\n{settings}")
}

#[test]
fn number_in_a_sip_uri_reaches_its_user() {
    let server = started("");
    let bob = phone(&server, "bob", "answer", 200);
    call(&server, "call", &format!("sip:+819012345678@{DOMAIN};user=phone")).succeed();
    bob.succeed(1);
}

fn message(server: &Server, uri: &str, code: u16) {
    let sipp = Sipp::new(server, "message", server.ports.next()).set("URI", uri).set("TEXT", "hello");
    sipp.set("CODE", code).users(&["alice"]).succeed();
}

#[test]
fn tel_uri_reaches_its_user_by_call_and_message() {
    let server = started("");
    let uris = ["tel:+819012345678", "tel:+81-90-1234-5678", "tel:1234-5678;phone-context=+81-90"];
    let port = server.ports.next();
    let bob = Sipp::new(&server, "answer", port).calls(3).start();
    bind(&server, "bob", port, "");
    for uri in uris {
        call(&server, "call", uri).succeed();
    }
    for invite in bob.succeed(3).received().iter().filter(|m| m.starts_with("INVITE ")) {
        assert!(invite.starts_with(&format!("INVITE sip:bob@127.0.0.1:{port} ")), "{invite}");
    }
    let bob = Sipp::new(&server, "take_messages", port).set("CODE", 200).calls(3).start();
    for uri in uris {
        message(&server, uri, 200);
    }
    bob.succeed(3);
}

#[test]
fn tel_uri_of_our_domain_only_is_a_name_there() {
    let server = started(&format!("[[user]]\nid = \"7042\"\npassword = \"{PASSWORD}\""));
    let port = server.ports.next();
    let desk = Sipp::new(&server, "answer", port).calls(2).start();
    bind(&server, "7042", port, "");
    call(&server, "call", &format!("tel:70-42;phone-context={DOMAIN}")).succeed();
    call(&server, "call", &format!("sip:7042;phone-context={DOMAIN}@{DOMAIN};user=phone")).succeed();
    desk.succeed(2);
}

#[test]
fn tel_uri_of_nobody_here_is_not_found() {
    let server = started("");
    for uri in ["tel:+15551234567", "tel:7042", "tel:7042;phone-context=elsewhere.test"] {
        call(&server, "call_final", uri).set("CODE", 404).succeed();
        message(&server, uri, 404);
    }
}

#[test]
fn unknown_number_of_ours_is_not_found() {
    let server = started("");
    call(&server, "call_final", &format!("sip:+819099999999@{DOMAIN};user=phone")).set("CODE", 404).succeed();
}

#[test]
fn every_call_is_forwarded_when_the_user_says_so() {
    let server = started(&forward(&format!("forward_unconditional = \"sip:carol@{DOMAIN}\"")));
    let untouched = harness::Peer::new(server.ports.next());
    bind(&server, "bob", untouched.port, "");
    let carol = phone(&server, "carol", "answer", 200);
    call(&server, "call", &bob()).succeed();
    carol.succeed(1);
    assert_eq!(untouched.receive(std::time::Duration::from_millis(300)), None);
}

#[test]
fn call_is_forwarded_on_busy() {
    let server = started(&forward(&format!("forward_busy = \"sip:carol@{DOMAIN}\"")));
    let busy = phone(&server, "bob", "refuse", 486);
    let carol = phone(&server, "carol", "answer", 200);
    call(&server, "call", &bob()).succeed();
    busy.succeed(1);
    carol.succeed(1);
}

#[test]
fn call_is_forwarded_when_nobody_answers() {
    let server = started(&forward(&format!("forward_no_answer = \"sip:carol@{DOMAIN}\"\nno_answer_seconds = 5")));
    let ringing = phone(&server, "bob", "ring", 200);
    let carol = phone(&server, "carol", "answer", 200);
    call(&server, "call", &bob()).succeed();
    ringing.succeed(1);
    carol.succeed(1);
}

#[test]
fn call_is_forwarded_when_no_phone_is_registered() {
    let server = started(&forward(&format!("forward_not_reachable = \"sip:carol@{DOMAIN}\"")));
    let carol = phone(&server, "carol", "answer", 200);
    call(&server, "call", &bob()).succeed();
    carol.succeed(1);
}

#[test]
fn forwarding_in_a_circle_ends() {
    let server = started(&forward(&format!("forward_unconditional = \"sip:bob@{DOMAIN}\"")));
    let outcome = call(&server, "call_final", &bob()).set("CODE", 482).run();
    let last = outcome.received().last().copied().unwrap_or_default().to_owned();
    assert!(["SIP/2.0 482", "SIP/2.0 480", "SIP/2.0 483"].iter().any(|s| last.starts_with(s)), "{last}");
}

#[test]
fn barred_user_gets_no_calls() {
    let server = started(&forward("bar_incoming = true"));
    let untouched = harness::Peer::new(server.ports.next());
    bind(&server, "bob", untouched.port, "");
    let outcome = call(&server, "call_final", &bob()).set("CODE", 603).run();
    let last = outcome.received().last().copied().unwrap_or_default().to_owned();
    assert!(["SIP/2.0 403", "SIP/2.0 433", "SIP/2.0 480", "SIP/2.0 603"].iter().any(|s| last.starts_with(s)), "{last}");
    assert_eq!(untouched.receive(std::time::Duration::from_millis(300)), None);
}
