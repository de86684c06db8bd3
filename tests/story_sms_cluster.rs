//! Two servers on one PostgreSQL: for developers, a token, a key, a quota and a message are the same at both; handsets of either reach those of the other.

mod harness;
#[path = "harness/nats.rs"]
#[allow(dead_code)]
mod nats;
#[path = "harness/postgres.rs"]
#[allow(dead_code)] // Shared: other tests use the rest of it.
mod postgres;

use std::time::Duration;

use harness::developer::{CLIENT, ask, hook, send, token, with_client};
use harness::handset::{by_pycrate, connected_by_pycrate, residents};
use harness::sms::{NUMBER, Peer, setup};
use harness::{Ports, Server, eventually};
use serde_json::json;

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
