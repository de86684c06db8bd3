//! More than the server is allowed to hold: what is too much is refused at once and in words, and everybody else is served.

mod harness;

use std::process::Command;
use std::time::Duration;

use harness::{DOMAIN, Process, Server, Setup, Sipp, bind, eventually, header};

fn answered(server: &Server, status: &str) -> f64 {
    let (_, text) = server.admin("/metrics");
    let lines = text.lines().filter(|l| l.starts_with("isthmus_sip_messages_total{direction=\"out\""));
    lines.filter(|l| l.contains(status)).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn calls_beyond_the_bound_get_503_and_the_rest_of_the_house_goes_on() {
    let mut setup = Setup::with_users(&["alice", "bob", "carol"]);
    setup.sip = "max_transactions = 1000".into();
    let mut server = setup.start();
    let silent = harness::Peer::new(server.ports.next());
    bind(&server, "bob", silent.port, "");
    let before = server.process.resident();
    let flood = Sipp::new(&server, "call_shed", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    // Three thousand calls, each of which would ring until nobody waits any longer.
    let flood = flood.users(&["mallory"]).calls(3000).rate(500).options(&["-l", "3000"]);
    let flood = flood.limit(Duration::from_secs(150)).start();
    eventually("calls are refused", Duration::from_secs(60), || answered(&server, "status=\"503\"") >= 500.0);

    // There is room for what is no call.
    let phone = server.ports.next();
    let carol = Sipp::new(&server, "take_messages", phone).set("CODE", 200).start();
    bind(&server, "carol", phone, "");
    let message = Sipp::new(&server, "message", server.ports.next()).set("URI", format!("sip:carol@{DOMAIN}"));
    message.set("TEXT", "still here").set("CODE", 200).users(&["alice"]).succeed();
    carol.succeed(1);
    assert!(server.metric("isthmus_sip_transactions") <= 1000.0);

    let flood = flood.succeed(3000);
    let refused: Vec<_> = flood.received().into_iter().filter(|m| m.starts_with("SIP/2.0 503")).collect();
    assert!(refused.len() >= 500, "{} of 3000 refused", refused.len());
    // Each 503 is in the count, those included that went to INVITEs sent again.
    assert_eq!(server.metric("isthmus_sip_shed_total"), answered(&server, "status=\"503\""));
    let timed_out = flood.received().into_iter().filter(|m| m.starts_with("SIP/2.0 408")).count();
    assert!(timed_out >= 100, "only {timed_out} calls were tried");
    for answer in refused {
        let seconds = header(answer, "Retry-After").and_then(|v| v.parse::<u32>().ok());
        assert!(seconds.is_some_and(|s| (1..=60).contains(&s)), "{answer}");
    }
    let grown = server.process.resident().saturating_sub(before);
    assert!(server.process.running() && grown < 64 << 20, "{grown} bytes more");

    let phone = server.ports.next();
    let carol = Sipp::new(&server, "answer", phone).start();
    bind(&server, "carol", phone, "");
    Sipp::new(&server, "call", server.ports.next())
        .set("URI", format!("sip:carol@{DOMAIN}"))
        .users(&["alice"])
        .succeed();
    carol.succeed(1);
}

#[test]
fn long_queue_sheds_what_is_new_and_everybody_is_served_in_the_end() {
    let mut setup = Setup::with_users(&["alice", "bob"]);
    // The probes are all of one source, which is no enemy.
    setup.sip = "[sip.flood]\nenabled = false".into();
    let server = setup.start();
    server.process.signal("STOP");
    let probes = Sipp::new(&server, "options_shed", server.ports.next()).set("LONG", "x".repeat(1000));
    let probes = probes.calls(6000).rate(6000).options(&["-l", "6000"]).limit(Duration::from_secs(150)).start();
    let port = format!(":{:04X} ", server.sip);
    let lost = || {
        let sockets = std::fs::read_to_string("/proc/net/udp").unwrap();
        let ours =
            sockets.lines().filter(|l| l.split_whitespace().nth(1).is_some_and(|a| format!("{a} ").ends_with(&port)));
        ours.filter_map(|l| l.split_whitespace().last()?.parse::<u64>().ok()).sum::<u64>()
    };
    eventually("the queue is full", Duration::from_secs(60), || lost() > 0);
    server.process.signal("CONT");
    let probes = probes.succeed(6000);
    let shed: Vec<_> = probes.received().into_iter().filter(|m| m.starts_with("SIP/2.0 503")).collect();
    assert!(!shed.is_empty() && shed.iter().all(|m| header(m, "Retry-After").is_some()), "{} shed", shed.len());
    assert!(server.metric("isthmus_sip_shed_total") >= shed.len() as f64);
    assert!(server.carrier_event("overloaded") >= 1.0);
    let phone = server.ports.next();
    let bob = Sipp::new(&server, "answer", phone).start();
    bind(&server, "bob", phone, "");
    let call = Sipp::new(&server, "call", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    call.users(&["alice"]).succeed();
    bob.succeed(1);
}

/// OpenSSL's client, which connects and then says nothing.
fn openssl(server: &Server, nth: usize, from: &str) -> Process {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-brief", "-ign_eof", "-bind", from, "-connect", &format!("127.0.0.1:{}", server.sips)]);
    Process::start(&format!("openssl-{nth}"), server.path(), &mut command)
}

const CONNECTED: &str = "CONNECTION ESTABLISHED";
const LIMIT: Duration = Duration::from_secs(20);

fn connected(server: &Server, nth: usize, from: &str) -> Process {
    let mut client = openssl(server, nth, from);
    client.wait_for(CONNECTED, LIMIT);
    client
}

fn refused(server: &Server, nth: usize, from: &str) {
    let mut client = openssl(server, nth, from);
    let ended = client.wait(LIMIT).expect("a refused client ends");
    assert!(!ended.success() && !client.output().contains(CONNECTED), "{}", client.output());
}

fn register_from(server: &Server, address: &'static str) -> Sipp {
    let sipp = Sipp::new(server, "register", server.ports.next()).from(address);
    sipp.set("CONTACT", "127.0.0.1:9").set("PARAMS", "").set("EXPIRES", 600).users(&["alice"])
}

#[test]
fn connections_of_one_source_are_bounded_and_others_are_served() {
    let mut setup = Setup::with_users(&["alice"]);
    setup.sip = "max_connections_per_source = 12".into();
    let server = setup.start();
    let mut held: Vec<_> = (0..12).map(|nth| connected(&server, nth, "127.0.0.3")).collect();
    refused(&server, 12, "127.0.0.3");
    refused(&server, 13, "127.0.0.3");
    assert_eq!(server.carrier_event("connection_refused"), 2.0);
    register_from(&server, "127.0.0.4").tcp().succeed();
    register_from(&server, "127.0.0.3").succeed();
    // Whoever makes room has it.
    held.pop();
    eventually("the place is free", LIMIT, || server.metric("isthmus_connections") <= 11.0);
    connected(&server, 14, "127.0.0.3");
}

#[test]
fn connections_of_all_are_bounded_and_datagrams_still_served() {
    let mut setup = Setup::with_users(&["alice"]);
    setup.sip = "max_connections = 16".into();
    let server = setup.start();
    let sources = ["127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"];
    let mut held: Vec<_> = (0..16).map(|nth| connected(&server, nth, sources[nth % 4])).collect();
    refused(&server, 16, "127.0.0.7");
    register_from(&server, "127.0.0.7").succeed();
    held.truncate(8);
    eventually("there is room", LIMIT, || server.metric("isthmus_connections") <= 8.0);
    register_from(&server, "127.0.0.7").tcp().succeed();
}
