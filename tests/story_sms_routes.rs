//! Several message centres (node-smpp, and Kannel's own): which of them takes a message, what happens when one goes, and that it is the right one.

mod harness;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use harness::process::Process;
use harness::sms::{Peer, push, setup, text};
use harness::tls::Authority;
use harness::{Ports, Server, Setup, eventually};

/// A server with two links, `a` and `b`; `lines` are further lines of each.
struct Pair {
    server: Server,
    at: [u16; 2],
    _ports: Ports,
}

const QUICK: &str = "timers = { reconnect = [100, 500] }\n";

fn pair(lines: [&str; 2]) -> Pair {
    let ports = Ports::claim();
    let at = [ports.next(), ports.next()];
    let server = with_links(at, lines, ports.next()).start();
    Pair { server, at, _ports: ports }
}

fn with_links(at: [u16; 2], lines: [&str; 2], callback: u16) -> Setup {
    let mut setup = setup(at[0], callback, "");
    setup.sections = ["a", "b"]
        .into_iter()
        .zip(at.into_iter().zip(lines))
        .map(|(name, (port, lines))| {
            format!(
                "[[smpp.link]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\nsystem_id = \"isthmus\"\npassword = \"secret\"\n\
                 window = 10\nsource = \"5555\"\n{QUICK}{lines}\n"
            )
        })
        .collect();
    setup
}

impl Pair {
    fn smsc(&self, which: usize, mode: &str) -> Peer {
        let peer = Peer::smsc(self.server.path(), self.at[which], mode);
        peer.wait_for("bound", 1);
        let name = ["a", "b"][which];
        eventually("the link is up", Duration::from_secs(20), || self.is_up(name));
        peer
    }

    fn is_up(&self, name: &str) -> bool {
        self.server.metric(&format!("isthmus_smpp_link_up{{link=\"{name}\"}}")) == 1.0
    }

    fn push(&self, name: &str) {
        assert_eq!(push(&self.server, &text(&name.replace(' ', "-"), name, "<notify>0</notify>")), "0000");
    }
}

fn texts(peers: &[&Peer]) -> BTreeSet<String> {
    peers.iter().flat_map(|p| p.events("submit")).filter_map(|s| s["text"].as_str().map(str::to_owned)).collect()
}

#[test]
fn two_centres_share_the_load_and_one_does_it_all_when_the_other_is_killed() {
    let pair = pair(["", ""]);
    let (mut a, b) = (pair.smsc(0, "normal"), pair.smsc(1, "normal"));
    for n in 0..40 {
        pair.push(&format!("r{n}"));
    }
    eventually("all went out", Duration::from_secs(30), || texts(&[&a, &b]).len() == 40);
    assert!(!a.events("submit").is_empty() && !b.events("submit").is_empty());
    // In the middle of a window: it has read, and answers nothing more.
    a.0.signal("STOP");
    for n in 40..80 {
        pair.push(&format!("r{n}"));
    }
    a.0.kill();
    let before = texts(&[&a]);
    eventually("the other has the rest", Duration::from_secs(60), || before.union(&texts(&[&b])).count() == 80);
    eventually("the first is seen to be gone", Duration::from_secs(20), || !pair.is_up("a"));
    // It comes back, and has its share again.
    let a = pair.smsc(0, "silent");
    for n in 80..120 {
        pair.push(&format!("r{n}"));
    }
    eventually("all went out", Duration::from_secs(30), || {
        before.iter().cloned().chain(texts(&[&a, &b])).collect::<BTreeSet<_>>().len() == 120
    });
    assert!(!a.events("submit").is_empty());
}

#[test]
fn prefixes_decide_then_priorities_and_the_next_best_takes_over() {
    let pair = pair(["prefixes = [\"8190\"]", "priority = 1"]);
    let (mut a, b) = (pair.smsc(0, "normal"), pair.smsc(1, "normal"));
    pair.push("by prefix");
    a.wait_for("submit", 1);
    // Without its answer it would go the other way as well.
    eventually("it is delivered", Duration::from_secs(20), || {
        pair.server.metric("isthmus_sms_ended_total{state=\"delivered\",verdict=\"0000\"}") == 1.0
    });
    a.0.kill();
    eventually("it is gone", Duration::from_secs(20), || !pair.is_up("a"));
    pair.push("the other way");
    assert_eq!(b.wait_for("submit", 1)[0]["text"], "the other way");
    let a = pair.smsc(0, "normal");
    pair.push("by prefix again");
    assert_eq!(a.wait_for("submit", 1)[0]["text"], "by prefix again");
    assert_eq!(b.events("submit").len(), 1);
}

#[test]
fn a_centre_that_falls_silent_is_left_by_its_timers() {
    let quick = "timers = { enquire = 1, response = 1, reconnect = [100, 500] }\n";
    let ports = Ports::claim();
    let at = [ports.next(), ports.next()];
    let mut setup = with_links(at, ["", "priority = 1"], ports.next());
    setup.sections = setup.sections.replacen(QUICK, quick, 1);
    let pair = Pair { server: setup.start(), at, _ports: ports };
    let (a, b) = (pair.smsc(0, "normal"), pair.smsc(1, "normal"));
    a.0.signal("STOP");
    eventually("its silence is noticed", Duration::from_secs(20), || !pair.is_up("a"));
    pair.push("elsewhere");
    assert_eq!(b.wait_for("submit", 1)[0]["text"], "elsewhere");
    a.0.signal("CONT");
    // On a busy machine it may fall silent for a second once more.
    let mut pushes = 0;
    eventually("it is back and has its share again", Duration::from_secs(60), || {
        if pair.is_up("a") {
            pushes += 1;
            pair.push(&format!("here again {pushes}"));
        }
        !a.events("submit").is_empty()
    });
    assert_eq!(a.events("submit")[0]["text"].as_str().unwrap().split(' ').next(), Some("here"));
}

#[test]
fn a_pair_of_binds_says_who_we_are() {
    let pair = pair([
        "bind = \"transmitter+receiver\"\nsystem_type = \"VMA\"\naddress_range = \"^5555\"\naddr_ton = 3\n",
        "bind = \"transmitter\"\npriority = 1",
    ]);
    let (a, b) = (pair.smsc(0, "normal"), pair.smsc(1, "normal"));
    let mut binds = a.wait_for("bound", 2);
    binds.sort_by_key(|bind| bind["command"].as_str().unwrap().to_owned());
    assert_eq!((&binds[0]["command"], &binds[1]["command"]), (&"bind_receiver".into(), &"bind_transmitter".into()));
    for bind in &binds {
        assert_eq!((&bind["system_type"], &bind["address_range"]), (&"VMA".into(), &"^5555".into()), "{bind}");
        assert_eq!(bind["addr_ton"], 3);
    }
    assert_eq!(b.events("bound")[0]["command"], "bind_transmitter");
    pair.push("both ways");
    a.wait_for("submit", 1);
}

#[test]
fn a_centre_over_tls_proves_who_it_is() {
    let ports = Ports::claim();
    let at = [ports.next(), ports.next()];
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    authority.issue("smsc", &["smsc.test"]);
    let file = |name: &str| folder.path().join(name).display().to_string();
    let fingerprint = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in", &file("smsc.pem")])
        .output()
        .expect("openssl runs");
    let fingerprint = String::from_utf8_lossy(&fingerprint.stdout).rsplit('=').next().unwrap().trim().replace(':', "");
    let certified = format!("tls = true\ntls_name = \"smsc.test\"\ntls_authorities = \"{}\"", file("ca.pem"));
    // By its fingerprint alone; and a name that the certificate does not have.
    let pinned = format!("tls = true\ntls_fingerprint = \"{fingerprint}\"\nprefixes = [\"1\"]");
    let mut setup = with_links(at, [&certified, &pinned], ports.next());
    let wrong = certified.replace("smsc.test", "other.test");
    let other = format!("tls = true\ntls_fingerprint = \"{}\"", "0".repeat(64));
    for (name, port, lines) in [("c", at[0], wrong), ("d", at[1], other)] {
        setup.sections.push_str(&format!(
            "[[smpp.link]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\nsystem_id = \"{name}\"\n{QUICK}{lines}\n"
        ));
    }
    let pair = Pair { server: setup.start(), at, _ports: ports };
    let over_tls = |port: u16| {
        let mut command = Command::new("node");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/smsc.js")).arg(port.to_string());
        command.args(["normal", &file("smsc.key"), &file("smsc.pem")]);
        Peer(Process::start(&format!("smsc-tls-{port}"), pair.server.path(), &mut command))
    };
    let (a, b) = (over_tls(at[0]), over_tls(at[1]));
    eventually("both are up", Duration::from_secs(30), || pair.is_up("a") && pair.is_up("b"));
    pair.push("under cover");
    assert_eq!(a.wait_for("submit", 1)[0]["text"], "under cover");
    // Those that expect somebody else have tried by then, and told nobody their password.
    let binds: Vec<_> = a.events("bound").into_iter().chain(b.events("bound")).collect();
    assert!(binds.iter().all(|bind| bind["system_id"] == "isthmus"), "{binds:?}");
    assert!(!pair.is_up("c") && !pair.is_up("d"));
}
