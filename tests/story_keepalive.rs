//! Keep-alives (RFC 5626 section 4.4) of phones that nobody here wrote: they are answered, and the flow they keep lives.

mod harness;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{DOMAIN, PASSWORD, Phone, Process, Server, Setup, Sipp, eventually};

/// Phones are told to say something every two seconds.
fn started() -> Server {
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.registrar = "flow_timer = 2".into();
    setup.start()
}

fn registers(server: &Server) -> f64 {
    let (_, text) = server.admin("/metrics");
    let lines = text.lines().filter(|l| l.starts_with("isthmus_sip_messages_total{direction=\"in\""));
    lines.filter(|l| l.contains("method=\"REGISTER\"")).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// baresip waits ten seconds for the answer to a CRLF CRLF, and less than forty for that to a STUN request, then it takes the
/// flow for dead and registers a new one. Its next ping over a stream comes some twenty seconds later, so with the second the
/// first was answered. Then it is called over the flow.
fn phone_is_happy_with(transport: &str, pings: f64) {
    let server = started();
    let mut bob = Phone::outbound(&server, "bob", transport);
    bob.wait_registered();
    let before = registers(&server);
    eventually("keep-alives are answered", Duration::from_secs(150), || server.carrier_event("keep_alive") >= pings);
    let since = registers(&server) - before;
    // A refresh of its 60 seconds is no new flow.
    assert!(since <= 4.0, "{since} REGISTERs:\n{}", bob.process.output());
    assert!(!bob.process.output().contains("keepalive"), "{}", bob.process.output());
    assert_eq!(server.metric("isthmus_bindings"), 1.0);
    let call = Sipp::new(&server, "call_final", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    let call = call.set("CODE", 486).users(&["alice"]).start();
    bob.wait_event("CALL_INCOMING");
    bob.command("hangup", "");
    call.succeed(1);
}

#[test]
fn phone_keeps_its_tcp_flow_alive_with_crlf() {
    phone_is_happy_with("tcp", 2.0);
}

#[test]
fn phone_keeps_its_tls_flow_alive_with_crlf() {
    phone_is_happy_with("tls", 2.0);
}

#[test]
fn phone_keeps_its_udp_flow_alive_with_stun() {
    phone_is_happy_with("udp", 24.0);
}

/// Runs a script of `tests/node`.
fn node(server: &Server, script: &str, arguments: &[&str]) -> Process {
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    assert!(node.join("node_modules").exists(), "tests/run (or npm install in tests/node) gets the packages");
    let mut command = Command::new("node");
    command.arg(script).args(arguments).current_dir(&node);
    command.env("NODE_EXTRA_CA_CERTS", server.authority.certificate());
    Process::start(script, server.path(), &mut command)
}

#[test]
fn stun_client_learns_its_address_on_the_sip_port() {
    let server = started();
    let port = server.ports.next();
    let mut client = node(&server, "stun.js", &[&server.sip.to_string(), &port.to_string()]);
    client.wait_for(&format!("mapped 127.0.0.1:{port}"), Duration::from_secs(20));
}

#[test]
fn web_socket_ping_and_crlf_are_answered() {
    let server = started();
    let url = format!("wss://127.0.0.1:{}/sip", server.https);
    let mut browser = node(&server, "ping.js", &[&url, "alice", PASSWORD, DOMAIN]);
    browser.wait_for("registered", Duration::from_secs(20));
    browser.wait_for("pong", Duration::from_secs(20));
    browser.wait_for("crlf answered", Duration::from_secs(20));
    assert!(server.carrier_event("keep_alive") >= 2.0);
    assert_eq!(server.metric("isthmus_bindings"), 1.0);
}
