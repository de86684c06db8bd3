//! The operator's day: drain, reload, new certificates, new accounts while it runs, a ping from sipsak.

mod harness;

use std::process::Command;
use std::time::Duration;

use harness::tls::shown_certificate;
use harness::{DOMAIN, Peer, Setup, Sipp, bind, eventually, header};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn idle_server_ends_at_once_on_sigterm() {
    Setup::with_users(&["alice"]).start().stop();
}

#[test]
fn drain_finishes_what_rings_and_refuses_what_is_new() {
    let server = Setup::with_users(&["alice", "bob"]).start();
    // Bob's phone, which rings as long as the story wants.
    let phone = Peer::new(server.ports.next());
    bind(&server, "bob", phone.port, "");
    let call =
        Sipp::new(&server, "call_final", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}")).set("CODE", 486);
    let call = call.users(&["alice"]).start();
    let invite = phone.receive_with("INVITE sip:", SOON).expect("the phone is asked");
    let answers = |status: &str| phone.send(server.sip, phone.response(&invite, status).as_bytes());
    answers("180 Ringing");

    server.process.signal("TERM");
    eventually("not ready any more", SOON, || server.admin("/readyz").0 != 200);
    let late = Peer::new(server.ports.next());
    late.send(server.sip, &late.request("INVITE", &format!("sip:bob@{DOMAIN}"), ["carol", "bob"], "late1", "", ""));
    let answer = late.receive_with("SIP/2.0 503", SOON).expect("new calls are refused");
    assert!(header(&answer, "Retry-After").is_some(), "{answer}");

    answers("486 Busy Here");
    call.succeed(1);
    phone.receive_with("ACK sip:", SOON).expect("the refusal is acknowledged");
    server.stop();
}

#[test]
fn reload_takes_the_new_certificate() {
    let server = Setup::with_users(&["alice"]).start();
    let before = shown_certificate(server.sips);
    server.authority.issue("server", &[DOMAIN]);
    server.process.signal("HUP");
    eventually("the new certificate is shown", SOON, || shown_certificate(server.sips) != before);
    server.stop();
}

#[test]
fn reload_of_a_broken_configuration_changes_nothing() {
    let mut server = Setup::with_users(&["alice"]).start();
    server.rewrite_config(|text| format!("{text}\n[sip\nbroken"));
    server.process.signal("HUP");
    server.process.wait_for("not reloaded", SOON);
    assert_eq!(Peer::new(0).options(server.sip, "afterhup"), Some(200));
    server.stop();
}

#[test]
fn imported_account_works_while_the_server_runs() {
    let server = Setup::with_users(&["alice"]).start();
    std::fs::write(server.path().join("more.toml"), "[[user]]\nid = \"dave\"\npassword = \"wonderland\"\n").unwrap();
    server.command(&["import", "more.toml", "--config", "isthmus.toml"]);
    let port = server.ports.next();
    let register = || {
        let sipp = Sipp::new(&server, "register", port).set("CONTACT", format!("127.0.0.1:{port}"));
        sipp.set("PARAMS", "").set("EXPIRES", 60).users(&["dave"]).run()
    };
    eventually("dave gets in", SOON, || register().counts.ok == 1);
}

#[test]
fn sipsak_gets_its_ping_answered() {
    let mut setup = Setup::with_users(&[]);
    // A name that sipsak can resolve; it cuts a port of five digits to four in the URI, so the port goes apart.
    setup.domain = "localhost";
    let server = setup.start();
    let mut sipsak = Command::new("sipsak");
    sipsak.args(["-vv", "-s", "sip:localhost", "-p", &format!("127.0.0.1:{}", server.sip)]);
    let done = sipsak.output().expect("sipsak is installed");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && text.contains("200"), "{}\n{text}", done.status);
}

#[test]
fn health_and_metrics_are_told_to_anybody() {
    let server = Setup::with_users(&["alice"]).start();
    assert_eq!(server.admin("/healthz").0, 200);
    assert_eq!(server.admin("/readyz").0, 200);
    let peer = Peer::new(0);
    assert_eq!(peer.options(server.sip, "count1"), Some(200));
    let (status, text) = server.admin("/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("OPTIONS"), "requests are counted by method:\n{text}");
    assert_eq!(server.admin("/admin/v1/users").0, 401, "operators' pages want a token");
}

#[test]
fn port_that_the_system_chose_stands_in_every_via_and_record_route() {
    let mut server = Setup::with_users(&["alice", "bob"]).start();
    let fixed = server.sip;
    server.rewrite_config(|text| text.replace(&format!("127.0.0.1:{fixed}\"]"), "127.0.0.1:0\"]"));
    server.restart();
    let ready = server.process.output();
    let port = |transport: &str| {
        let end = ready.find(transport).unwrap_or_else(|| panic!("no {transport}: {ready}"));
        ready[..end].rsplit(':').next().and_then(|p| p.parse::<u16>().ok()).expect("a port")
    };
    server.sip = port("/udp");
    assert!(![0, fixed].contains(&server.sip) && port("/tcp") != 0);

    let phone = server.ports.next();
    let bob = Sipp::new(&server, "answer", phone).start();
    let bind = Sipp::new(&server, "register", server.ports.next()).set("CONTACT", format!("127.0.0.1:{phone}"));
    bind.set("PARAMS", "").set("EXPIRES", 600).users(&["bob"]).succeed();
    // The ACK and the BYE find their way by the Record-Route.
    Sipp::new(&server, "call", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"]).succeed();
    let seen = bob.succeed(1);
    let us = server.address();
    let invite = seen.received()[0];
    assert!(header(invite, "Via").is_some_and(|v| v.contains(&us)), "{invite}");
    assert!(header(invite, "Record-Route").is_some_and(|v| v.contains(&us)), "{invite}");
}
