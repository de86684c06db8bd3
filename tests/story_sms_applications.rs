//! Messages to the numbers of legacy applications: from handsets and phones (SIPp) and from a message centre (node-smpp) to Kannel and
//! node-smpp as ESMEs, and what these answer.

mod harness;

use std::process::Command;
use std::time::Duration;

use harness::handset::{House, residents, tpdu};
use harness::kannel::Kannel;
use harness::process::Process;
use harness::sms;
use harness::{DOMAIN, Ports, Sipp, eventually};
use serde_json::{Value, json};

/// Alice's SMS-SUBMIT to the short code 5555, as `SUBMIT` otherwise.
const TO_CODE: &str = "0007000791010000 0000f0 18 2109048155550000 1147b9df536681846f3168c3db94373e";

struct Town {
    house: House,
    door: u16,
    /// Of a message centre.
    smsc: u16,
    ports: Ports,
}

/// Alice and bob, and the application `legacy` that has 5555 and all of +81209…
fn town(link: bool) -> Town {
    let ports = Ports::claim();
    let (door, smsc) = (ports.next(), ports.next());
    let mut setup = residents();
    let mut sections = format!(
        "[smpp]\nlisten = \"127.0.0.1:{door}\"\n[[smpp.esme]]\nsystem_id = \"legacy\"\npassword = \"pw\"\n\
         numbers = [\"+81209\"]\nshort_codes = {{ 5555 = \"+8112000000\" }}\n"
    );
    if link {
        sections.push_str(&format!(
            "[[smpp.link]]\nname = \"smsc\"\naddress = \"127.0.0.1:{smsc}\"\nsystem_id = \"isthmus\"\npassword = \"secret\"\n"
        ));
    }
    setup.sections = sections;
    Town { house: House::of(setup.start()), door, smsc, ports }
}

impl Town {
    /// node-smpp as the application.
    fn application(&self, said: Value) -> sms::Peer {
        let mut all = json!({ "port": self.door, "system_id": "legacy", "password": "pw" });
        all.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        let mut command = Command::new("node");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/esme.js")).arg(all.to_string());
        sms::Peer(Process::start(
            &format!("esme-{}", all["bind"].as_str().unwrap_or("both")),
            self.house.server.path(),
            &mut command,
        ))
    }

    /// Alice's phone, which knows no short messages, writes to this number.
    fn text(&self, uri: &str, text: &str) {
        let sipp = Sipp::new(&self.house.server, "message_open", self.house.server.ports.next());
        sipp.set("URI", uri).set("TEXT", text).set("CODE", 202).users(&["alice"]).succeed();
    }

    fn counted(&self, name: &str) -> f64 {
        self.house.server.metric(&format!("isthmus_{name}"))
    }

    fn delivered(&self, count: f64) {
        eventually("it is delivered", Duration::from_secs(40), || {
            self.counted("sms_ended_total{state=\"delivered\",verdict=\"0000\"}") == count
        });
    }
}

#[test]
fn a_handset_writes_to_kannel_and_kannel_answers() {
    let town = town(false);
    let house = &town.house;
    let _kannel = Kannel::esme(house.server.path(), &town.ports, town.door, ["legacy", "pw"], "Très bien [€]: %a");
    eventually("Kannel is bound", Duration::from_secs(30), || {
        town.counted("smpp_esme_receives{esme=\"legacy\"}") == 1.0
    });
    let alice = house.alice();
    house.send(TO_CODE);
    // The RP-ACK for what she sent, the status report that she asked for, and the answer; in any order.
    let taken = [house.taken(&alice), house.taken(&alice), house.taken(&alice)];
    let bodies: Vec<&[u8]> = taken.iter().map(|t| &*t.1).collect();
    assert!(bodies.iter().any(|b| b[..2] == [0x03, 7]), "{bodies:02x?}");
    let of_type = |kind: u8| bodies.iter().find(|b| b[0] == 0x01 && tpdu(b)[0] & 3 == kind).copied().expect("RP-DATA");
    // About TP-MR 9 to 5555's number: received.
    let report = tpdu(of_type(2));
    assert_eq!((report[1], report.last()), (9, Some(&0)), "{report:02x?}");
    let answer = of_type(0);
    // From 5555, of no international number; and in the default alphabet what she had written.
    let deliver = tpdu(answer);
    assert_eq!((deliver[1], &deliver[3..5]), (4, &[0x55, 0x55][..]), "{deliver:02x?}");
    assert_eq!(deliver[2] & 0x70, 0, "{deliver:02x?}");
    house.send_as("alice", &format!("02{:02x}41020000", answer[1]));
    let of = |data: &&[u8]| data[0] == 0x01 && tpdu(data)[0] & 3 == 2;
    let told = bodies.iter().find(|b| of(b)).unwrap();
    house.send_as("alice", &format!("02{:02x}41020000", told[1]));
    town.delivered(2.0);
    let file = house.server.path().join("answer.pcap");
    let at = taken.iter().position(|t| t.1 == answer).unwrap();
    std::fs::write(&file, harness::handset::capture(&[[taken[at].0.as_bytes(), answer].concat()])).unwrap();
    let text = harness::handset::tshark(&["-n", "-V", "-r", file.to_str().unwrap()]);
    // Kannel says what it read as a URL would.
    assert!(text.contains("SMS text: Très bien [€]: Gr%C3%BC%C3%9Fe%2C+Bob+%5B%E2%82%AC%5D"), "{text}");
    assert!(text.contains("TP-OA Digits: 5555"), "{text}");
}

#[test]
fn messages_wait_for_their_application_even_over_a_kill() {
    let mut town = town(false);
    town.text("tel:+81209000001", "first");
    town.text(&format!("sip:5555@{DOMAIN}"), "second");
    eventually("both are put off", Duration::from_secs(20), || {
        town.counted("sms_dispatch_total{event=\"deferred\"}") == 2.0
    });
    // One who only sends is not one who takes.
    let sender = town.application(json!({ "bind": "transmitter" }));
    sender.wait_for("bound", 1);
    town.house.server.process.signal("KILL");
    town.house.server.restart();
    let legacy = town.application(json!({ "bind": "receiver" }));
    let mut got = legacy.wait_for("deliver", 2);
    got.sort_by_key(|d| d["text"].to_string());
    let of = |d: &Value| [&d["from"], &d["to"]].map(|v| v.as_str().unwrap_or_default().to_owned());
    assert_eq!(of(&got[0]), ["819012345601", "81209000001"], "{got:?}");
    assert_eq!(of(&got[1]), ["819012345601", "5555"], "{got:?}");
    assert!(got[0]["text"].as_str().unwrap().starts_with("first"), "{got:?}");
    assert!(got[1]["text"].as_str().unwrap().starts_with("second"), "{got:?}");
    town.delivered(2.0);
    assert!(sender.events("deliver").is_empty());
}

#[test]
fn what_an_application_refuses_for_now_comes_again_and_what_it_refuses_is_over() {
    let town = town(false);
    // Throttled, a system error that passes, refused for good, and then taken.
    let legacy = town.application(json!({ "refuse": [0x58, 0x64, 0, 0x65] }));
    legacy.wait_for("bound", 1);
    for text in ["one", "two", "three"] {
        town.text("tel:+81209000001", text);
    }
    let words =
        |d: &Value| d["text"].as_str().unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned();
    let told =
        || legacy.events("deliver").iter().map(|d| (words(d), d["answer"].as_u64().unwrap())).collect::<Vec<_>>();
    eventually("all are over", Duration::from_secs(60), || {
        town.counted("sms_ended_total{state=\"delivered\",verdict=\"0000\"}") == 2.0
            && town.counted("sms_ended_total{state=\"failed\",verdict=\"6003\"}") == 1.0
    });
    let told = told();
    let mut answers: Vec<u64> = told.iter().map(|t| t.1).collect();
    answers.sort_unstable();
    assert_eq!(answers, [0, 0, 0x58, 0x64, 0x65], "{told:?}");
    let of = |text: &str| told.iter().filter(|t| t.0 == text).map(|t| t.1).collect::<Vec<_>>();
    for text in ["one", "two", "three"] {
        // Nothing comes again once it was taken or refused.
        let (last, before) = of(text).split_last().map(|(last, before)| (*last, before.to_vec())).unwrap();
        assert!([0, 0x65].contains(&last) && before.iter().all(|b| [0x58, 0x64].contains(b)), "{told:?}");
    }
}

#[test]
fn parts_and_letters_of_a_handset_reach_an_application_as_they_are() {
    let town = town(false);
    let legacy = town.application(json!({}));
    legacy.wait_for("bound", 1);
    let alice = town.house.alice();
    for n in 1..=2 {
        // Eight-bit parts of one message, to +81209000001.
        town.house.send(&format!("000{n}000791010000 0000f0 17 410{n}0b911802090000f10004 0a0500032a020{n}61626364"));
        assert_eq!(town.house.taken(&alice).1[..2], [0x03, n]);
    }
    let got = legacy.wait_for("deliver", 2);
    for (n, part) in got.iter().enumerate() {
        assert_eq!(part["udh"], format!("00032a020{}", n + 1), "{got:?}");
        assert_eq!((part["esm_class"].as_u64(), part["data_coding"].as_u64()), (Some(0x40), Some(4)), "{got:?}");
    }
    town.delivered(2.0);
}

#[test]
fn what_a_centre_has_for_an_application_reaches_it() {
    let town = town(true);
    let smsc = sms::Peer::smsc(town.house.server.path(), town.smsc, "5555");
    smsc.wait_for("bound", 1);
    let legacy = town.application(json!({}));
    legacy.wait_for("bound", 1);
    // Whoever gets a message out there answers with one to 5555.
    town.text("tel:+819099999999", "Write to 5555");
    let got = &legacy.wait_for("deliver", 1)[0];
    assert_eq!((got["from"].as_str(), got["to"].as_str()), (Some("819099999999"), Some("5555")), "{got}");
    assert_eq!(got["text"], "Back from outside");
    assert_eq!(smsc.wait_for("taken", 1)[0]["status"], 0);
}

#[test]
fn an_application_that_listens_is_called_for_its_messages() {
    let ports = Ports::claim();
    let (door, theirs) = (ports.next(), ports.next());
    let mut setup = residents();
    setup.sections = format!(
        "[smpp]\nlisten = \"127.0.0.1:{door}\"\n[[smpp.esme]]\nsystem_id = \"legacy\"\npassword = \"pw\"\n\
         numbers = [\"+81209\"]\noutbind = \"127.0.0.1:{theirs}\"\noutbind_password = \"knock\"\n"
    );
    let town = Town { house: House::of(setup.start()), door: theirs, smsc: 0, ports };
    let listener = town.application(json!({ "listen": true, "bind": "receiver" }));
    listener.wait_for("ready", 1);
    town.text("tel:+81209000001", "call me");
    listener.wait_for("outbind", 1);
    assert!(listener.wait_for("deliver", 1)[0]["text"].as_str().unwrap().starts_with("call me"));
    town.delivered(1.0);
}

#[test]
fn each_session_gets_the_numbers_that_it_serves() {
    let town = town(false);
    let first = town.application(json!({ "bind": "receiver", "address_range": "^8120900" }));
    let second = town.application(json!({ "bind": "transceiver", "address_range": "^81209(11|22)[0-4]" }));
    for session in [&first, &second] {
        assert_eq!(session.wait_for("bound", 1)[0]["status"], 0);
    }
    // No regular expression: RBINDFAIL.
    assert_eq!(town.application(json!({ "address_range": "^81209(" })).wait_for("bound", 1)[0]["status"], 0x0D);
    for (number, text) in
        [("81209000001", "one"), ("81209220001", "two"), ("81209000002", "three"), ("81209330001", "four")]
    {
        town.text(&format!("tel:+{number}"), text);
    }
    let to = |session: &sms::Peer, count: usize| {
        let mut to: Vec<String> =
            session.wait_for("deliver", count).iter().map(|d| d["to"].as_str().unwrap_or_default().into()).collect();
        to.sort();
        to
    };
    assert_eq!(to(&first, 2), ["81209000001", "81209000002"]);
    assert_eq!(to(&second, 1), ["81209220001"]);
    // Nobody serves the last one: it waits for somebody who does.
    eventually("it is put off", Duration::from_secs(20), || {
        town.counted("sms_dispatch_total{event=\"deferred\"}") == 1.0
    });
    drop(first);
    let third = town.application(json!({ "bind": "receiver", "address_range": "81209330001" }));
    assert_eq!(to(&third, 1), ["81209330001"]);
    town.delivered(4.0);
    assert_eq!(second.events("deliver").len(), 1);
}
