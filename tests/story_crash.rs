//! kill -9 in the middle of the work: what was acknowledged is there afterwards.

mod harness;

use std::time::Duration;

use harness::{Setup, Sipp, header};

#[test]
fn acknowledged_bindings_survive_kill_9() {
    let users: Vec<String> = (0..1500).map(|n| format!("user{n:04}")).collect();
    let mut server = Setup::with_users(&users.iter().map(String::as_str).collect::<Vec<_>>()).start();
    let port = server.ports.next();
    let contact = format!("127.0.0.1:{port}");
    let registering =
        Sipp::new(&server, "register", port).set("CONTACT", &contact).set("PARAMS", "").set("EXPIRES", 3600);
    let mut running = registering.users(&users).rate(200).limit(Duration::from_secs(60)).start();
    let log = running.base.with_extension("msg");
    // Kill it while it works: after a few hundred answers, and before the last.
    let answered = || std::fs::read_to_string(&log).map_or(0, |t| t.matches("SIP/2.0 200").count());
    harness::eventually("some hundred registrations", Duration::from_secs(60), || answered() > 300);
    server.process.kill();
    running.process.kill();
    let outcome = running.finish();
    let accepted: Vec<String> = outcome
        .received()
        .iter()
        .filter(|m| m.starts_with("SIP/2.0 200"))
        .filter_map(|m| Some(header(m, "To")?.split("sip:").nth(1)?.split('@').next()?.to_owned()))
        .collect();
    assert!(accepted.len() > 300 && accepted.len() < users.len(), "killed in the middle: {} accepted", accepted.len());

    server.restart();
    let fetch = Sipp::new(&server, "fetch", server.ports.next()).set("CONTACT", &contact);
    fetch.users(&accepted).rate(500).succeed();
}
