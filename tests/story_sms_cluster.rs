//! Two servers on one PostgreSQL: for developers, a token, a key, a quota and a message are the same at both; handsets and ESMEs of either are
//! reached from the other; and what one had in hand when it was killed goes out from the other.

mod harness;
#[path = "harness/nats.rs"]
#[allow(dead_code)]
mod nats;
#[path = "harness/postgres.rs"]
#[allow(dead_code)] // Shared: other tests use the rest of it.
mod postgres;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;
use std::time::Duration;

use harness::developer::{CLIENT, ask, hook, send, token, with_client};
use harness::handset::{by_pycrate, connected_by_pycrate, residents};
use harness::process::Process;
use harness::sms::{NUMBER, Peer, SECRET, XPID, field, setup, text};
use harness::{Ports, Server, Sipp, eventually};
use serde_json::{Value, json};

#[test]
fn a_message_is_the_same_at_every_node() {
    let (postgres, ports) = (postgres::Postgres::start(), Ports::claim());
    let (smsc_port, callback, hook_port) = (ports.next(), ports.next(), ports.next());
    let node = |name: &str| {
        let mut setup =
            with_client(setup(smsc_port, callback, ""), CLIENT, "destinations = [\"+81\"]\ndaily_quota = 3");
        setup = with_client(setup, "other", "destinations = [\"+81\"]");
        setup.sections.push_str(&format!(
            "[store]\nengine = \"postgres\"\nurl = \"{}\"\n[node]\nname = \"{name}\"\n[webhooks]\nallow = [\"127.0.0.1\"]\n",
            postgres.url()
        ));
        setup.start()
    };
    let (a, b) = (node("a"), node("b"));
    let mut smsc = Peer::smsc(a.path(), smsc_port, "normal");
    let keys = a.path().join("keys");
    std::fs::write(&keys, "").unwrap();
    let hook = hook(a.path(), hook_port, &keys, &[]);
    smsc.wait_for("bound", 2);

    // Got at one, good at the other.
    let (mine, other) = (token(&a, CLIENT), token(&b, "other"));
    let subscription = json!({
        "subscriptionDetail": { "type": "org.camaraproject.sms.v0.sms-delivery-status" },
        "webhook": { "notificationUrl": format!("http://127.0.0.1:{hook_port}/hook") },
    });
    let subscriptions = "/sms-delivery-notification-subscriptions/v0alpha1/subscriptions";
    let made = ask(&a, &mine, "POST", subscriptions, &subscription.to_string(), &[]);
    assert_eq!(made.status, 201, "{made:?}");
    std::fs::write(&keys, made.json()["webhook"]["secret"].as_str().unwrap()).unwrap();

    // One key, one message, wherever it is asked for.
    let text = |text: &str| json!({ "to": [NUMBER], "message": text }).to_string();
    let keyed = |server: &Server| {
        let key = ["-H", "Idempotency-Key: one"];
        let sent = ask(server, &mine, "POST", "/sms/v1/messages", &text("one"), &key);
        assert_eq!(sent.status, 201, "{sent:?}");
        sent.header("location").to_owned()
    };
    let first = keyed(&b);
    assert_eq!(keyed(&a), first);
    let told = &hook.wait_for("hook", 1)[0];
    assert_eq!((&told["signed"], &told["data"]["status"]), (&json!(true), &json!("SUCCESS")));
    for server in [&a, &b] {
        let shown = ask(server, &mine, "GET", &first, "", &[]).json();
        assert_eq!(shown["recipients"][0]["status"], "DELIVERED", "{shown}");
    }

    // Three a day at both together; the one that was asked for twice counts once.
    assert_eq!((send(&a, &mine, &text("two")).status, send(&b, &mine, &text("three")).status), (201, 201));
    for server in [&a, &b] {
        assert_eq!(send(server, &mine, &text("four")).refusal(), (429, "QUOTA_EXCEEDED".into()));
    }
    let texts =
        |smsc: &Peer| smsc.events("submit").iter().map(|s| s["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    smsc.wait_for("submit", 3);
    let mut sent = texts(&smsc);
    sent.sort();
    assert_eq!(sent, ["one", "three", "two"]);

    // What waits at one is asked back at the other.
    smsc.0.kill();
    for server in [&a, &b] {
        eventually("the link is down", Duration::from_secs(30), || server.metric("isthmus_smpp_link_up") == 0.0);
    }
    let waits = send(&b, &other, &text("never")).header("location").to_owned();
    let status = |server: &Server| {
        ask(server, &other, "GET", &waits, "", &[]).json()["recipients"][0]["status"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(status(&a), "QUEUED");
    assert_eq!(ask(&a, &other, "DELETE", &waits, "", &[]).status, 202);
    eventually("it is cancelled", Duration::from_secs(40), || status(&a) == "CANCELLED");
    assert_eq!(status(&b), "CANCELLED");
}

#[test]
fn handsets_of_one_node_get_what_those_of_the_other_send() {
    let (postgres, nats) = (postgres::Postgres::start(), nats::Nats::start());
    let node = |name: &str| {
        let mut setup = residents();
        for (n, user) in [(3, "dave"), (4, "erin")] {
            setup
                .provisions
                .push_str(&format!("[[user]]\nid = \"{user}\"\npassword = \"x\"\nmsisdn = \"+81901234560{n}\"\n"));
        }
        setup.sections = format!(
            "[store]\nengine = \"postgres\"\nurl = \"{}\"\n[bus]\nengine = \"nats\"\nurl = \"{}\"\n[node]\nname = \"{name}\"\n",
            postgres.url(),
            nats.url()
        );
        setup.start()
    };
    let (a, b) = (node("a"), node("b"));
    let knows = |bindings: f64| {
        eventually("both know the handsets", Duration::from_secs(20), || {
            [&a, &b].iter().all(|node| node.metric("isthmus_bindings") == bindings)
        });
    };
    let delivered = |node: &Server| node.metric("isthmus_sms_over_ip_deliveries_total{fate=\"delivered\"}");
    // One that is reached by datagrams, then one whose connection only its node has. Either reports to its own node.
    let bob = by_pycrate(&b, "bob", "ack", &[]);
    knows(1.0);
    let alice = by_pycrate(&a, "alice", "ack", &["+819012345602", "By datagram"]);
    assert_eq!(bob.wait_for("read", 1)[0]["text"], "By datagram");
    let report = |handset: &Peer| {
        handset.wait_for("read", 2).into_iter().find(|r| r["tpdu"] == "SMS_STATUS_REPORT").expect("a status report")
    };
    // The RP-ACK crossed from the one to the other, or nobody would know.
    assert_eq!(report(&alice)["status"], 0);
    eventually("it is counted where it was sent", Duration::from_secs(20), || delivered(&a) == 1.0);
    assert_eq!((bob.events("read").len(), delivered(&b)), (1, 0.0));
    let dave = connected_by_pycrate(&b, "dave");
    knows(3.0);
    let erin = by_pycrate(&a, "erin", "ack", &["+819012345603", "By connection"]);
    assert_eq!(dave.wait_for("read", 1)[0]["text"], "By connection");
    assert_eq!(report(&erin)["status"], 0);
    eventually("it is counted where it was sent", Duration::from_secs(20), || delivered(&a) == 2.0);
    assert_eq!((dave.events("read").len(), bob.events("read").len(), delivered(&b)), (1, 1, 0.0));
}

/// Sections that make a node of these.
fn node_of(postgres: &postgres::Postgres, nats: &nats::Nats, name: &str) -> String {
    format!(
        "[store]\nengine = \"postgres\"\nurl = \"{}\"\n[bus]\nengine = \"nats\"\nurl = \"{}\"\n[node]\nname = \"{name}\"\n",
        postgres.url(),
        nats.url()
    )
}

/// Messages a second of each node's link, which is far less than is accepted, and its window.
const RATE: usize = 100;
const WINDOW: usize = 10;
const PUSHES: usize = 1_500;

#[test]
fn what_a_killed_node_had_in_hand_goes_out_from_the_other() {
    let (postgres, nats, ports) = (postgres::Postgres::start(), nats::Nats::start(), Ports::claim());
    let (smsc_port, callback) = (ports.next(), ports.next());
    let node = |name: &str| {
        let mut setup = setup(smsc_port, callback, "");
        write!(setup.sections, "rate = {RATE}\n{}", node_of(&postgres, &nats, name)).unwrap();
        setup.start()
    };
    let (a, b) = (node("a"), node("b"));
    let smsc = Peer::smsc(a.path(), smsc_port, "normal");
    smsc.wait_for("bound", 2);
    let all: Vec<usize> = (0..PUSHES).collect();
    let mut first = curl(&a, &all);
    eventually("much is accepted", Duration::from_secs(120), || {
        a.metric("isthmus_sms_push_total{code=\"0000\"}") >= (PUSHES / 2) as f64
    });
    a.process.signal("KILL");
    assert!(first.wait(Duration::from_secs(120)).is_some());
    let at_once = smsc.events("submit").len();
    let accepted = accepted(&a);
    assert!(accepted.len() > at_once + WINDOW, "{} accepted, {at_once} sent", accepted.len());
    // The client turns to the other node with what nobody has taken.
    let rest: Vec<usize> = all.iter().copied().filter(|n| !accepted.contains(n)).collect();
    assert!(curl(&b, &rest).wait(Duration::from_secs(120)).is_some());
    assert_eq!(self::accepted(&b), rest);

    let mut times = BTreeMap::new();
    eventually("all went out", Duration::from_secs(180), || {
        times.clear();
        for submit in smsc.events("submit") {
            *times.entry(submit["text"].as_str().unwrap_or_default().to_owned()).or_insert(0) += 1;
        }
        all.iter().all(|n| times.contains_key(&format!("m{n}")))
    });
    // Its journal went with its machine: what was sent in its last second may go out again.
    let twice: usize = times.values().map(|n| n - 1).sum();
    assert!(twice <= WINDOW + RATE, "{twice} went out twice");
}

/// curl pushes these, twenty at a time; each answer is a file.
fn curl(server: &Server, numbers: &[usize]) -> Process {
    let mut config = String::new();
    for n in numbers {
        let body = text(&format!("request-{n}"), &format!("m{n}"), "<notify>0</notify>")
            .replace('"', "\\\"")
            .replace('\n', " ");
        let answer = server.path().join(format!("answer-{n}"));
        let next = if config.is_empty() { "" } else { "next\n" };
        writeln!(
            config,
            "{next}url = \"http://127.0.0.1:{}/smsgw/\"\nuser = \"{XPID}:{SECRET}\"\nheader = \"Content-Type: text/xml\"\n\
             data-raw = \"{body}\"\noutput = \"{}\"",
            server.http,
            answer.display()
        )
        .unwrap();
    }
    let file = server.path().join("curl.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("curl");
    command.args(["-s", "--parallel", "--parallel-max", "20", "-K"]).arg(file);
    Process::start("curl", server.path(), &mut command)
}

/// Those that this server has answered with 0000.
fn accepted(server: &Server) -> Vec<usize> {
    let code = |n: &usize| {
        let answer = std::fs::read_to_string(server.path().join(format!("answer-{n}"))).unwrap_or_default();
        field(&answer, "code").to_owned()
    };
    (0..PUSHES).filter(|n| code(n) == "0000").collect()
}

#[test]
fn an_application_bound_at_one_node_gets_what_arrives_at_the_other() {
    let (postgres, nats, ports) = (postgres::Postgres::start(), nats::Nats::start(), Ports::claim());
    let smsc_port = ports.next();
    let node = |name: &str| {
        let (mut setup, door) = (residents(), ports.next());
        setup.sections = format!(
            "[smpp]\nlisten = \"127.0.0.1:{door}\"\n[[smpp.esme]]\nsystem_id = \"legacy\"\npassword = \"pw\"\n\
             numbers = [\"+81209\"]\nshort_codes = {{ 5555 = \"+8112000000\" }}\n[[smpp.link]]\nname = \"smsc\"\n\
             address = \"127.0.0.1:{smsc_port}\"\nsystem_id = \"isthmus\"\npassword = \"secret\"\n{}",
            node_of(&postgres, &nats, name)
        );
        (setup.start(), door)
    };
    let ((a, at_a), (b, at_b)) = (node("a"), node("b"));
    let smsc = Peer::smsc(a.path(), smsc_port, "normal");
    smsc.wait_for("bound", 2);
    let application = |node: &Server, door: u16, said: Value| {
        let mut all = json!({ "port": door, "system_id": "legacy", "password": "pw" });
        all.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        let mut command = Command::new("node");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/esme.js")).arg(all.to_string());
        Peer(Process::start(&format!("esme-{}", all["bind"].as_str().unwrap_or("both")), node.path(), &mut command))
    };
    let write = |text: &str, to: &str| {
        let sipp = Sipp::new(&a, "message_open", a.ports.next());
        sipp.set("URI", to).set("TEXT", text).set("CODE", 202).users(&["alice"]).succeed();
    };
    let legacy = application(&b, at_b, json!({ "bind": "transceiver", "address_range": "^5555|^81209" }));
    eventually("the other node knows", Duration::from_secs(20), || a.metric("isthmus_smpp_esme_receives") == 1.0);
    write("one", "tel:+81209000001");
    write("two", "sip:5555@isthmus.test");
    let mut got = legacy.wait_for("deliver", 2);
    got.sort_by_key(|d| d["text"].to_string());
    for (deliver, [text, to]) in got.iter().zip([["one", "81209000001"], ["two", "5555"]]) {
        assert!(deliver["text"].as_str().unwrap_or_default().starts_with(text), "{got:?}");
        assert_eq!((&deliver["from"], &deliver["to"]), (&"819012345601".into(), &to.into()), "{got:?}");
    }
    let delivered = || a.metric("isthmus_sms_ended_total{state=\"delivered\",verdict=\"0000\"}");
    eventually("its answers are heard where they were sent", Duration::from_secs(20), || delivered() == 2.0);

    // It sends at one node, and its receipt reaches it at the other.
    let step = json!({ "op": "submit_sm", "source_addr": "81209000001", "destination_addr": "819099999999",
        "short_message": "out", "registered_delivery": 1 });
    let sender = application(&a, at_a, json!({ "bind": "transmitter", "steps": [step] }));
    let id = sender.wait_for("answer", 1)[0]["id"].as_str().unwrap().to_owned();
    let receipt = legacy.wait_for("deliver", 3).pop().unwrap();
    assert_eq!((&receipt["esm_class"], &receipt["state"]), (&4.into(), &2.into()), "{receipt}");
    assert!(receipt["text"].as_str().unwrap().contains(&format!("id:{id}")), "{receipt}");

    // Its node dies with the next one on its way, as far as the other knows.
    b.process.signal("KILL");
    write("three", "tel:+81209000001");
    let again = application(&a, at_a, json!({ "bind": "transceiver" }));
    assert!(again.wait_for("deliver", 1)[0]["text"].as_str().unwrap().starts_with("three"));
    eventually("it is delivered", Duration::from_secs(20), || delivered() == 4.0);
}
