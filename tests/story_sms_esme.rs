//! Legacy applications (smpplib under Python) that bind to us: into the queue, out to node-smpp, and the receipt back.

mod harness;

use std::process::Command;
use std::time::Duration;

use harness::process::Process;
use harness::sms::{NUMBER, Peer, setup};
use harness::{Ports, Server, eventually};

fn esme(server: &Server, door: u16, system_id: &str, password: &str, text: &str) -> Peer {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/esme.py");
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/venv/bin/python"));
    command.arg(script).arg(door.to_string()).args([system_id, password, NUMBER, text]);
    Peer(Process::start(&format!("esme-{system_id}"), server.path(), &mut command))
}

#[test]
fn a_legacy_application_submits_and_gets_its_receipt() {
    let ports = Ports::claim();
    let (smsc, callback, door) = (ports.next(), ports.next(), ports.next());
    let mut setup = setup(smsc, callback, "");
    setup.sections = format!(
        "[smpp]\nlisten = \"127.0.0.1:{door}\"\n[[smpp.esme]]\nsystem_id = \"legacy\"\npassword = \"pw\"\n{}",
        setup.sections
    );
    let server = setup.start();
    let smsc = Peer::smsc(server.path(), smsc, "normal");

    let stranger = esme(&server, door, "legacy", "wrong", "x");
    stranger.wait_for("refused", 1);

    let legacy = esme(&server, door, "legacy", "pw", "from the old days");
    let response = &legacy.wait_for("response", 1)[0];
    let id = response["id"].as_str().unwrap().to_owned();
    assert_eq!(response["status"], 0);
    let submit = &smsc.wait_for("submit", 1)[0];
    assert_eq!((submit["text"].as_str(), submit["from"].as_str()), (Some("from the old days"), Some("Legacy")));
    let receipt = legacy.wait_for("receipt", 1)[0]["text"].as_str().unwrap().to_owned();
    assert!(receipt.contains(&format!("id:{id} ")) && receipt.contains("stat:DELIVRD"), "{receipt}");
    eventually("the receipt was answered", Duration::from_secs(20), || {
        server.metric("isthmus_sms_notifications_total{fate=\"told\"}") == 1.0
    });
}

#[test]
fn a_receipt_waits_for_its_application() {
    let ports = Ports::claim();
    let (smsc, callback, door) = (ports.next(), ports.next(), ports.next());
    let mut setup = setup(smsc, callback, "");
    setup.sections = format!(
        "[smpp]\nlisten = \"127.0.0.1:{door}\"\n[[smpp.esme]]\nsystem_id = \"legacy\"\npassword = \"pw\"\n{}",
        setup.sections
    );
    let server = setup.start();
    let mut legacy = esme(&server, door, "legacy", "pw", "first");
    let id = legacy.wait_for("response", 1)[0]["id"].as_str().unwrap().to_owned();
    legacy.0.kill();
    // Only now is there somebody who takes it.
    let smsc = Peer::smsc(server.path(), smsc, "normal");
    smsc.wait_for("submit", 1);
    eventually("there was nobody to tell", Duration::from_secs(20), || {
        server.metric("isthmus_sms_notifications_total{fate=\"put_off\"}") >= 1.0
    });
    let legacy = esme(&server, door, "legacy", "pw", "second");
    eventually("the receipt of the first", Duration::from_secs(40), || {
        legacy.events("receipt").iter().any(|r| r["text"].as_str().unwrap().contains(&format!("id:{id} ")))
    });
}
