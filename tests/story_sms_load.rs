//! Twenty thousand messages of a legacy application (node-smpp) to a message centre (node-smpp), and kills on the way: every one that was accepted goes
//! out, and hardly any twice.

mod harness;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use harness::process::Process;
use harness::sms::{NUMBER, Peer, setup};
use harness::{Ports, eventually};

const MESSAGES: usize = 20_000;
/// Of the link.
const WINDOW: usize = 10;

#[test]
fn twenty_thousand_messages_survive_the_death_of_server_and_centre() {
    let ports = Ports::claim();
    let (at, callback, door) = (ports.next(), ports.next(), ports.next());
    let mut setup = setup(at, callback, "");
    setup.sections = format!(
        "[smpp]\nlisten = \"127.0.0.1:{door}\"\n[[smpp.esme]]\nsystem_id = \"legacy\"\npassword = \"pw\"\n{}\
         timers = {{ reconnect = [100, 500] }}\n",
        setup.sections
    );
    let mut server = setup.start();
    let mut smsc = Peer::smsc(server.path(), at, "silent");
    let accepted = server.path().join("accepted.txt");
    let mut command = Command::new("node");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/load.js"));
    command.args([&door.to_string(), &MESSAGES.to_string(), "100"]).arg(&accepted).env("NUMBER", &NUMBER[1..]);
    let load = Peer(Process::start("load", server.path(), &mut command));

    let mut before = Vec::new();
    for (thousand, kill) in [(4, "server"), (9, "smsc"), (14, "server")] {
        eventually("it is in the middle", Duration::from_secs(120), || load.events("progress").len() >= thousand);
        let pid = if kill == "server" { server.process.pid() } else { smsc.0.pid() };
        assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
        if kill == "server" {
            server.restart();
        } else {
            smsc.0.kill();
            before = texts(&smsc);
            smsc = Peer::smsc(server.path(), at, "normal");
        }
    }
    eventually("all are accepted", Duration::from_secs(180), || !load.events("all").is_empty());
    let accepted = std::fs::read_to_string(&accepted).unwrap();
    let accepted: Vec<&str> = accepted.lines().collect();
    assert_eq!(accepted.len(), MESSAGES);

    let mut times = BTreeMap::new();
    eventually("all went out", Duration::from_secs(180), || {
        times.clear();
        for text in before.iter().cloned().chain(texts(&smsc)) {
            *times.entry(text).or_insert(0) += 1;
        }
        accepted.iter().all(|text| times.contains_key(*text))
    });
    let twice: usize = times.values().map(|n| n - 1).sum();
    assert!(twice <= 3 * WINDOW, "{twice} were sent again in three interruptions");
}

/// What a centre has been given, in order.
fn texts(smsc: &Peer) -> Vec<String> {
    smsc.events("submit").iter().filter_map(|s| s["text"].as_str().map(str::to_owned)).collect()
}
