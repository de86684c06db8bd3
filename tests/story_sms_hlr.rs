//! Delivery control by what an HLR says (S6): a web server of Python's stands in for it; curl pushes, node-smpp takes.

mod harness;

use std::process::Command;
use std::time::Duration;

use harness::sms::{NUMBER, Peer, XPID, field, push, setup, text};
use harness::{Ports, Process, Server, eventually};
use serde_json::{Value, json};

struct Story {
    server: Server,
    smsc: Peer,
    callback: Peer,
    hlr_port: u16,
    _ports: Ports,
}

/// The numbers of the contract end in these digits.
const NUMBERS: std::ops::RangeInclusive<u32> = 1..=9;

fn number(n: u32) -> String {
    format!("+8190000000{n:02}")
}

/// `more` are further lines of the client's table, and further tables.
fn story(sms: &str, more: &str) -> Story {
    let ports = Ports::claim();
    let (smsc, callback, hlr_port) = (ports.next(), ports.next(), ports.next());
    let mut setup = setup(smsc, callback, more);
    let numbers: Vec<String> = NUMBERS.map(|n| format!("\"{}\"", number(n))).collect();
    setup.provisions = setup.provisions.replace(&format!("[\"{NUMBER}\"]"), &format!("[{}]", numbers.join(", ")));
    setup.sections.push_str(&format!("[sms]\nhlr = \"http://127.0.0.1:{hlr_port}/lines/{{msisdn}}\"\n{sms}\n"));
    let server = setup.start();
    let smsc = Peer::smsc(server.path(), smsc, "normal");
    let callback = Peer::callback(server.path(), callback, &[]);
    Story { server, smsc, callback, hlr_port, _ports: ports }
}

fn hlr(story: &Story, answers: &Value) -> Peer {
    let file = story.server.path().join("hlr.json");
    std::fs::write(&file, answers.to_string()).unwrap();
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/hlr.py")).arg(story.hlr_port.to_string()).arg(file);
    Peer::ready(Process::start("hlr", story.server.path(), &mut command))
}

/// Answers by the last digits of the number.
fn answers(of: &[(u32, Value)]) -> Value {
    of.iter().map(|(n, list)| (number(*n)[1..].to_owned(), list.clone())).collect::<serde_json::Map<_, _>>().into()
}

fn push_to(story: &Story, n: u32, reqid: &str) {
    assert_eq!(push(&story.server, &text(reqid, reqid, "").replace(NUMBER, &number(n))), "0000", "{reqid}");
}

/// Waits for the result of a request.
fn result(story: &Story, reqid: &str) -> String {
    let found = || story.callback.notified().into_iter().find(|n| field(&n.1, "reqid") == reqid);
    eventually(&format!("{reqid} is through"), Duration::from_secs(60), || found().is_some());
    field(&found().unwrap().1, "result").to_owned()
}

#[test]
fn each_state_of_a_line_decides_and_an_answer_is_remembered() {
    let story = story("hlr_cache = 3600", &format!("[[line]]\nmsisdn = \"{}\"\n", number(8)));
    let states = ["roaming", "suspended", "spam_block", "over_limit", "ps_roaming"];
    let mut all: Vec<(u32, Value)> =
        (1..).zip(states).map(|(n, state)| (n, json!([{ "body": json!({ state: true }).to_string() }]))).collect();
    all.push((6, json!([{ "body": "{\"imsi\":\"440100000000001\"}" }])));
    // Number 7 is not in the HLR; number 8 would roam, but is provisioned here.
    all.push((8, json!([{ "body": "{\"roaming\":true}" }])));
    let hlr = hlr(&story, &answers(&all));
    (1..=7).for_each(|n| push_to(&story, n, &format!("r{n}")));
    for (n, expected) in (1..).zip(["6011", "6012", "6013", "6014", "6015", "0000", "0000"]) {
        assert_eq!(result(&story, &format!("r{n}")), expected, "{n}");
    }
    // Remembered: nobody is asked again, neither for what is denied nor for what is allowed.
    push_to(&story, 1, "again-1");
    push_to(&story, 7, "again-7");
    assert_eq!((&*result(&story, "again-1"), &*result(&story, "again-7")), ("6011", "0000"));
    push_to(&story, 8, "r8");
    assert_eq!(result(&story, "r8"), "0000", "what is provisioned goes before the HLR");
    let mut asked: Vec<String> = hlr.events("asked").iter().map(|a| a["number"].as_str().unwrap().to_owned()).collect();
    asked.sort();
    assert_eq!(asked, (1..=7).map(|n| number(n)[1..].to_owned()).collect::<Vec<_>>());
    let texts: Vec<_> = story.smsc.wait_for("submit", 4).iter().map(|s| s["text"].clone()).collect();
    assert_eq!(texts.len(), 4, "{texts:?}");
    assert_eq!(story.server.metric("isthmus_sms_dispatch_total{event=\"refused_by_line\"}"), 6.0);
}

#[test]
fn without_a_cache_the_line_is_asked_for_each_time_and_flags_allow() {
    let story = story("hlr_cache = 0", "deliver_while_roaming = true");
    let roams = json!([{ "body": "{\"roaming\":true}" }, { "body": "{\"roaming\":true,\"suspended\":true}" }]);
    let hlr = hlr(&story, &answers(&[(1, roams)]));
    push_to(&story, 1, "roams");
    assert_eq!(result(&story, "roams"), "0000");
    assert_eq!(story.smsc.events("submit")[0]["line_state"], "01");
    // Its answer was for what waited for it, a second at most.
    let mut tries = 0;
    eventually("it is asked again", Duration::from_secs(30), || {
        tries += 1;
        push_to(&story, 1, &format!("suspended-{tries}"));
        result(&story, &format!("suspended-{tries}")) == "6012"
    });
    assert_eq!(hlr.events("asked").len(), 2);
}

#[test]
fn while_the_hlr_does_not_tell_messages_wait_and_none_is_lost() {
    let story = story("hlr_timeout = 5", "");
    // Not there at all.
    push_to(&story, 1, "away");
    let deferred = |n: f64| {
        eventually("they wait", Duration::from_secs(30), || {
            story.server.metric("isthmus_sms_dispatch_total{event=\"deferred\"}") >= n
        });
    };
    deferred(1.0);
    assert_eq!(story.smsc.events("submit").len(), 0);
    // There, but it says nothing that can be used; then it does.
    let fine = json!({ "body": "{}" });
    let hlr = hlr(
        &story,
        &answers(&[
            (1, json!([fine])),
            (2, json!([{ "status": 500 }, fine])),
            (3, json!([{ "body": "<html>" }, fine])),
            (4, json!([{ "delay": 20 }, { "body": "{\"suspended\":true}" }])),
            (5, json!([{ "status": 302 }, fine])),
        ]),
    );
    (2..=5).for_each(|n| push_to(&story, n, &format!("r{n}")));
    deferred(5.0);
    for (reqid, expected) in [("away", "0000"), ("r2", "0000"), ("r3", "0000"), ("r4", "6012"), ("r5", "0000")] {
        assert_eq!(result(&story, reqid), expected, "{reqid}");
    }
    assert_eq!(story.smsc.events("submit").len(), 4);
    assert_eq!(hlr.events("asked").len(), 9);
    assert!(story.server.process.output().contains("the HLR does not tell"));
    // A number is nobody's business in a log.
    assert!(!story.server.process.output().contains(&number(2)[1..]) && !XPID.is_empty());
}
