//! Presence with clients that nobody here wrote: Linphone and baresip publish and watch each other, and Kamailio's presence user
//! agent publishes for its own users.

mod harness;

use std::time::Duration;

use harness::{DOMAIN, Linphone, Peer, Phone, Ports, Server, Setup, Sipp, eventually, kamailio, raw};

const SOON: Duration = Duration::from_secs(40);

fn setup(users: &[&str]) -> Setup {
    let mut setup = Setup::with_users(users);
    setup.sections = "[presence]\nnotify_interval = 0\n".into();
    setup
}

/// The last document that a running SIPp watcher has heard.
fn last_document(running: &harness::sipp::Running) -> String {
    let log = std::fs::read(running.base.with_extension("msg")).unwrap_or_default();
    let text = String::from_utf8_lossy(&log).into_owned();
    let documents = text.split("<?xml").skip(1).filter_map(|b| Some(b.split_once("</presence>")?.0.to_owned()));
    documents.last().unwrap_or_default()
}

fn watch(server: &Server, watcher: &str, user: &str) -> harness::sipp::Running {
    let sipp = Sipp::new(server, "watch", server.ports.next()).set("USER", user).users(&[watcher]);
    sipp.set("EVENT", "presence").set("ACCEPT", "application/pidf+xml").limit(Duration::from_secs(150)).start()
}

#[test]
fn linphone_and_baresip_see_each_other_come_and_go() {
    let server = setup(&["alice", "bob", "carol"]).start();
    let carol = watch(&server, "carol", "alice");
    eventually("carol hears that nobody is there", SOON, || last_document(&carol).contains("closed"));

    let mut linphone = Linphone::present(&server, "alice", "bob");
    // What Linphone says of itself.
    eventually("carol hears of Linphone", SOON, || last_document(&carol).contains("<basic>open</basic>"));
    eventually("Linphone has published", SOON, || server.metric("isthmus_publications") >= 1.0);
    linphone.wait_for("SIP-ETag");

    let mut bob = Phone::present(&server, "bob", &["alice"]);
    bob.wait_registered();
    eventually("both have published", SOON, || server.metric("isthmus_publications") == 2.0);
    eventually("all three watch", SOON, || server.metric("isthmus_presence_subscriptions") == 3.0);
    bob.command("presence_online", "");
    linphone.sees("bob", "Online");

    // Linphone's registration ends, and what it published is void at once: baresip is told.
    let phone = Sipp::new(&server, "register_with", server.ports.next()).set("CODE", 200).users(&["alice"]);
    phone.set("LINES", "Contact: *\nExpires: 0").succeed();
    bob.process.wait_for("changed status from", SOON);
    eventually("carol hears it too", SOON, || last_document(&carol).contains("<basic>closed</basic>"));
}

#[test]
fn kamailio_publishes_for_its_own_users() {
    let ports = Ports::claim();
    let port = ports.next();
    let mut setup = setup(&["alice", "carol"]);
    setup.sip = format!("trusted = [\"127.0.0.1:{port}\"]\n");
    let mut server = setup.start();
    let _kamailio = kamailio::publisher(server.path(), port, &server.address());
    let carol = watch(&server, "carol", "alice");
    eventually("carol hears that nobody is there", SOON, || last_document(&carol).contains("closed"));
    let phone = Peer::new(ports.next());
    let mut nth = 0;
    let mut registers = |expires: u32| {
        nth += 1;
        let call_id = format!("register{nth}");
        let request = phone.request(
            "REGISTER",
            &format!("sip:{DOMAIN}"),
            ["alice", "alice"],
            &call_id,
            &format!("Expires: {expires}\r\n"),
            "",
        );
        phone.send(port, &request);
        let answer = phone.receive_with(&call_id, Duration::from_secs(20)).expect("Kamailio answers");
        assert_eq!(raw::status(&answer), Some(200), "{answer}");
    };
    registers(600);
    eventually("carol hears that alice is there", SOON, || last_document(&carol).contains("<basic>open</basic>"));
    assert!(last_document(&carol).contains(&format!("entity=\"sip:alice@{DOMAIN}\"")), "{}", last_document(&carol));
    // What Kamailio was told before still holds: the tag by which it takes its publication back.
    server.restart();
    registers(0);
    eventually("carol hears that she has left", SOON, || last_document(&carol).contains("<basic>closed</basic>"));
    eventually("nothing is left of it", SOON, || server.metric("isthmus_publications") == 0.0);
}
