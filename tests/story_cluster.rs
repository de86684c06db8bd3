//! Two servers on one PostgreSQL and one NATS: a phone registers at either, and either reaches it.

#[path = "harness/cluster.rs"]
mod cluster;
mod harness;
#[path = "harness/nats.rs"]
#[allow(dead_code)] // Shared: other tests use the rest of it.
mod nats;
#[path = "harness/postgres.rs"]
#[allow(dead_code)]
mod postgres;

use std::time::Duration;

use cluster::Cluster;
use harness::presence::{document, hears, store};
use harness::xcap::{Client, RULES, SERVICES, home};
use harness::{DOMAIN, Peer, Phone, Server, Setup, Sipp, eventually, header, sipp::Outcome};

const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// Of what SIPp sends: only then has "in order" a meaning.
const ONE_BY_ONE: &[&str] = &["-l", "1"];

fn started() -> Cluster {
    Cluster::start(|| Setup::with_users(&USERS))
}

fn register(server: &Server, user: &str, phone: u16, expires: u32) {
    let sipp = Sipp::new(server, "register", server.ports.next()).set("CONTACT", format!("127.0.0.1:{phone}"));
    sipp.set("PARAMS", "").set("EXPIRES", expires).users(&[user]).succeed();
}

/// Waits until a node knows of so many bindings.
fn knows(server: &Server, bindings: u32) {
    let known = || server.metric("isthmus_bindings") == f64::from(bindings);
    eventually(&format!("{bindings} bindings are known"), Duration::from_secs(20), known);
}

fn from_alice(server: &Server, scenario: &'static str, to: &str) -> Sipp {
    Sipp::new(server, scenario, server.ports.next()).set("URI", format!("sip:{to}@{DOMAIN}")).users(&["alice"])
}

fn keep(server: &Server, to: &str, text: &str, count: u32) {
    from_alice(server, "message", to).set("TEXT", text).set("CODE", 202).calls(count).options(ONE_BY_ONE).succeed();
}

fn texts(seen: &Outcome) -> Vec<&str> {
    seen.received().iter().filter_map(|m| Some(m.split("\r\n\r\n").nth(1)?.trim())).collect()
}

#[test]
fn phone_registered_at_one_node_is_called_through_the_other() {
    let Cluster { a, b, mut nats, _postgres } = started();
    let phone = b.ports.next();
    register(&a, "bob", phone, 600);
    knows(&b, 1);
    let callee = Sipp::new(&b, "answer", phone).start();
    from_alice(&b, "call", "bob").succeed();
    callee.succeed(1);
    // Gone at one, gone at the other.
    register(&a, "bob", phone, 0);
    knows(&b, 0);
    from_alice(&b, "call_final", "bob").set("CODE", 480).succeed();

    // Hints only make it quicker: without them it is the same.
    nats.kill();
    register(&a, "bob", phone, 600);
    knows(&b, 1);
    // The phone goes to the other node with the same contact, and the first one dies: it is called as before.
    register(&b, "bob", phone, 600);
    drop(a);
    let callee = Sipp::new(&b, "answer", phone).start();
    from_alice(&b, "call", "bob").succeed();
    callee.succeed(1);
}

#[test]
fn phone_stays_reachable_when_the_node_it_registered_at_is_killed() {
    let Cluster { mut a, b, nats: _nats, _postgres } = started();
    let phone = b.ports.next();
    register(&a, "bob", phone, 600);
    knows(&b, 1);
    a.process.kill();
    let callee = Sipp::new(&b, "answer", phone).start();
    from_alice(&b, "call", "bob").succeed();
    callee.succeed(1);
    // And when that one starts again, it knows him from the store.
    a.restart();
    knows(&a, 1);
    let callee = Sipp::new(&a, "answer", phone).start();
    from_alice(&a, "call", "bob").succeed();
    callee.succeed(1);
}

#[test]
fn user_publishes_at_one_node_and_is_watched_at_the_other() {
    let Cluster { mut a, b, nats: _nats, _postgres } = started();
    let watcher = Sipp::new(&b, "watch", b.ports.next()).set("USER", "alice").users(&["bob"]).set("EVENT", "presence");
    let watcher = watcher.set("ACCEPT", "application/pidf+xml").limit(Duration::from_secs(120)).start();
    let hears = |what: &str, text: &str| {
        let log = watcher.base.with_extension("msg");
        let last = || {
            let all = std::fs::read(&log).unwrap_or_default();
            let all = String::from_utf8_lossy(&all).into_owned();
            all.rsplit("<?xml").next().unwrap_or_default().to_owned()
        };
        eventually(what, Duration::from_secs(30), || last().contains(text));
    };
    hears("that nobody is there", "<basic>closed</basic>");
    let publish = |server: &Server, lines: &str, basic: &str| {
        let body = match basic {
            "" => String::new(),
            basic => format!(
                "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:alice@{DOMAIN}\"><tuple id=\"t\">\
                 <status><basic>{basic}</basic></status></tuple></presence>"
            ),
        };
        let lines = format!("Event: presence\nContent-Type: application/pidf+xml\nExpires: 600{lines}");
        let sipp = Sipp::new(server, "publish", server.ports.next()).set("USER", "alice").set("CODE", 200);
        let outcome = sipp.set("LINES", lines).set("BODY", body).users(&["alice"]).succeed();
        let answer = outcome.received().last().copied().unwrap().to_owned();
        harness::header(&answer, "SIP-ETag").expect("an entity tag").to_owned()
    };
    let tag = publish(&a, "", "open");
    hears("what was published at the other node", "<basic>open</basic>");
    // The node that took it dies; the other one goes on with it, by its tag.
    a.process.kill();
    publish(&b, &format!("\nSIP-If-Match: {tag}"), "closed");
    hears("what was published after that", "<tuple id=\"t\"><status><basic>closed</basic>");
    a.restart();
    eventually("the first node knows of it", Duration::from_secs(20), || a.metric("isthmus_publications") == 1.0);
}

fn publishes(server: &Server, note: &str) {
    let sipp = Sipp::new(server, "publish", server.ports.next()).set("USER", "alice").set("CODE", 200);
    let lines = "Event: presence\nContent-Type: application/pidf+xml\nExpires: 600";
    let body = document("alice", "t", "open", &format!("<note>{note}</note>"));
    sipp.set("LINES", lines).set("BODY", body).users(&["alice"]).succeed();
}

fn watches(server: &Server, watcher: &str) -> Sipp {
    let sipp = Sipp::new(server, "watch", server.ports.next()).set("USER", "alice").users(&[watcher]);
    let sipp = sipp.set("EVENT", "presence").set("ACCEPT", "application/pidf+xml");
    sipp.limit(Duration::from_secs(150))
}

fn watched(server: &Server, subscriptions: f64) {
    eventually(&format!("{subscriptions} subscriptions"), Duration::from_secs(30), || {
        server.metric("isthmus_presence_subscriptions") == subscriptions
    });
}

#[test]
fn subscription_is_refreshed_told_and_ended_at_the_other_node() {
    let Cluster { a, b, nats: _nats, _postgres } = started();
    let sipp = Sipp::new(&a, "watch_moves", a.ports.next()).set("USER", "alice").users(&["bob"]);
    let sipp = sipp.set("EVENT", "presence").set("ACCEPT", "application/pidf+xml").set("OTHER", b.sip);
    let bob = sipp.set("NOTE", "moved").set("BODY", "").limit(Duration::from_secs(120)).start();
    watched(&b, 1.0);
    watched(&a, 0.0);
    publishes(&a, "moved");
    let seen = bob.succeed(1);
    let told = seen.received().into_iter().find(|m| m.contains("<note>moved</note>")).unwrap();
    assert!(header(told, "Contact").is_some_and(|c| c.contains(&format!(":{}", b.sip))), "{told}");
    watched(&b, 0.0);
    // A dialog that no node knows is none.
    let stranger = Peer::new(a.ports.next());
    let more = "Event: presence\r\nExpires: 600\r\n";
    let uri = format!("sip:127.0.0.1:{}", b.sip);
    let request = stranger.request("SUBSCRIBE", &uri, ["eve", "alice"], "nowhere1", more, "");
    let request = String::from_utf8(request).unwrap().replace("sip:eve@isthmus.test", "sip:eve@elsewhere.test");
    let request = request.replace(&format!("To: <sip:alice@{DOMAIN}>"), &format!("To: <sip:alice@{DOMAIN}>;tag=none"));
    stranger.send(b.sip, request.as_bytes());
    let answer = stranger.receive_with("nowhere1", Duration::from_secs(10)).expect("an answer");
    assert!(answer.starts_with("SIP/2.0 481"), "{answer}");
}

#[test]
fn subscriptions_of_a_node_that_has_died_go_to_the_other() {
    let Cluster { mut a, b, nats: _nats, _postgres } = started();
    let (bob, carol) = (watches(&a, "bob").start(), watches(&a, "carol").start());
    for watcher in [&bob, &carol] {
        hears(watcher, "that nobody is there", |m| m.contains("<basic>closed</basic>"));
    }
    // They have seen each other.
    publishes(&b, "before");
    hears(&bob, "what was published at the other node", |m| m.contains("<note>before</note>"));
    watched(&a, 2.0);
    a.process.kill();
    // After 20 s of silence.
    eventually("the other node has them", Duration::from_secs(90), || {
        b.metric("isthmus_presence_subscriptions") == 2.0
    });
    publishes(&b, "after");
    for watcher in [&bob, &carol] {
        let told = hears(watcher, "what was published after that", |m| m.contains("<note>after</note>"));
        assert!(header(&told, "Contact").is_some_and(|c| c.contains(&format!(":{}", b.sip))), "{told}");
    }
    // It comes back, and they stay where they are.
    a.restart();
    watched(&a, 0.0);
    watched(&b, 2.0);
}

#[test]
fn rules_stored_at_one_node_count_at_the_other_though_no_hint_comes() {
    let Cluster { a, b, mut nats, _postgres } = started();
    let watcher = Sipp::new(&b, "watch", b.ports.next()).set("USER", "alice").users(&["bob"]).set("EVENT", "presence");
    let watcher = watcher.set("ACCEPT", "application/pidf+xml").limit(Duration::from_secs(120)).start();
    hears(&watcher, "that nobody is there", |m| m.contains("<basic>closed</basic>"));
    nats.kill();
    let blocked = "<ruleset xmlns=\"urn:ietf:params:xml:ns:common-policy\"><rule id=\"r\"><conditions><identity>\
        <many/></identity></conditions><actions><sub-handling xmlns=\"urn:ietf:params:xml:ns:pres-rules\">block</sub-handling>\
        </actions></rule></ruleset>";
    store(&a, "alice", "pres-rules", blocked);
    let seen = watcher.succeed(1);
    let last = seen.received().into_iter().rfind(|m| m.starts_with("NOTIFY")).unwrap();
    assert!(header(last, "Subscription-State").is_some_and(|s| s.starts_with("terminated;reason=rejected")), "{last}");
}

#[test]
fn document_written_at_one_node_counts_at_the_other() {
    let Cluster { a, b, nats: _nats, _postgres } = started();
    let (at_a, at_b) = (Client::of(&a, "alice"), Client::of(&b, "alice"));
    let index = home("pres-rules", "alice", "index");
    let rules = |handling: &str| {
        format!(
            "<ruleset xmlns=\"urn:ietf:params:xml:ns:common-policy\"><rule id=\"bob\"><conditions><identity><one id=\"sip:bob@{DOMAIN}\"/></identity></conditions>\
             <actions><pr:sub-handling xmlns:pr=\"urn:ietf:params:xml:ns:pres-rules\">{handling}</pr:sub-handling></actions></rule></ruleset>"
        )
    };
    let made = at_a.put(&index, RULES, &rules("allow"));
    assert_eq!(made.status, 201);
    let watch = Sipp::new(&b, "watch", b.ports.next()).set("USER", "alice").users(&["bob"]);
    let bob =
        watch.set("EVENT", "presence").set("ACCEPT", "application/pidf+xml").limit(Duration::from_secs(120)).start();
    eventually("bob watches", Duration::from_secs(20), || b.metric("isthmus_presence_subscriptions") == 1.0);
    // What one has written the other has, its tag included.
    let seen = at_b.get(&index);
    assert_eq!((seen.status, &seen.etag), (200, &made.etag));
    let condition = format!("If-Match: {}", made.etag.unwrap());
    assert_eq!(at_a.put_if(&index, RULES, &rules("block"), &condition).status, 200);
    assert_eq!(at_b.put_if(&index, RULES, &rules("allow"), &condition).status, 412);
    // It ends when the rule has come to his node.
    let heard = bob.succeed(1);
    let last = heard.received().into_iter().rfind(|m| m.starts_with("NOTIFY")).unwrap();
    assert!(header(last, "Subscription-State").unwrap().starts_with("terminated;reason=rejected"), "{last}");
    // A service that both want at once, each at another node.
    let claim = |server: &Server, user: &str| {
        let document = format!(
            "<rls-services xmlns=\"urn:ietf:params:xml:ns:rls-services\"><service uri=\"sip:friends@{DOMAIN}\"><list/></service></rls-services>"
        );
        Client::of(server, user).put(&home("rls-services", user, "index"), SERVICES, &document).status
    };
    let (one, other) = std::thread::scope(|scope| {
        let (one, other) = (scope.spawn(|| claim(&a, "alice")), scope.spawn(|| claim(&b, "bob")));
        (one.join().unwrap(), other.join().unwrap())
    });
    assert!(matches!((one, other), (201, 409) | (409, 201)), "{one} {other}");
}

#[test]
fn kept_messages_are_delivered_once_whichever_node_kept_them() {
    let Cluster { mut a, b, nats: _nats, _postgres } = started();
    let (carols, daves) = (b.ports.next(), b.ports.next());
    keep(&a, "carol", "through a", 2);
    keep(&b, "carol", "through b", 2);
    keep(&a, "dave", "before the crash", 3);
    let phone = Sipp::new(&b, "take_messages", carols).set("CODE", 200).calls(4).start();
    register(&b, "carol", carols, 600);
    // Both nodes hear that she is back, and one of them delivers.
    let expected = ["through a 1", "through a 2", "through b 1", "through b 2"];
    let seen = phone.succeed(4);
    assert_eq!(texts(&seen), expected);
    let again = Peer::new(carols);
    register(&a, "carol", carols, 600);
    assert_eq!(seen.receives_anew(&again, Duration::from_secs(2)), None);

    // The node that took in Dave's dies; the other one has heard of them.
    a.process.kill();
    let phone = Sipp::new(&b, "take_messages", daves).set("CODE", 200).calls(3).start();
    register(&b, "dave", daves, 600);
    let seen = phone.succeed(3);
    assert_eq!(texts(&seen), ["before the crash 1", "before the crash 2", "before the crash 3"]);
    a.restart();
    let again = Peer::new(daves);
    register(&a, "dave", daves, 600);
    assert_eq!(seen.receives_anew(&again, Duration::from_secs(2)), None);
}

#[test]
fn message_reaches_a_phone_that_is_connected_to_the_other_node() {
    let Cluster { a, b, nats: _nats, _postgres } = started();
    keep(&b, "bob", "while he was away", 1);
    let mut phone = Phone::start(&a, "bob", "tcp", 440);
    phone.wait_registered();
    // Kept there, and delivered by the node that has the connection. Nobody else is connected to it: the 200 is the phone's.
    let taken = "isthmus_sip_messages_total{direction=\"in\",transport=\"tcp\",method=\"MESSAGE\",status=\"200\"}";
    let delivered = "isthmus_kept_messages_total{fate=\"delivered\"}";
    // Both nodes may be at it at once; the one that finds the other there comes again after a pause of 40 s.
    eventually("the phone takes the message", Duration::from_secs(60), || a.metric(taken) == 1.0);
    eventually("and is told once", Duration::from_secs(20), || a.metric(delivered) == 1.0);
    // And one that finds him there, at once.
    knows(&b, 1);
    let send = from_alice(&b, "message", "bob").set("TEXT", "over there").set("CODE", 200);
    send.succeed();
    assert_eq!((a.metric(taken), b.metric("isthmus_kept_messages_total{fate=\"kept\"}")), (2.0, 1.0));
}

/// Bob's phone connects to `his`, registers there and answers as `answers`; alice calls him through `hers`, over TCP too.
fn connected(
    hers: &Server,
    his: &Server,
    asks: &'static str,
    answers: &'static str,
    wish: &'static str,
) -> [Outcome; 2] {
    // SIPp is called by the Call-ID that it registered with.
    let call = ["-cid_str", "%u-across-nodes"];
    let phone = Sipp::new(his, answers, his.ports.next()).tcp().registered().users(&["bob"]).options(&call).start();
    knows(hers, 1);
    let call = from_alice(hers, asks, "bob").set("PRIVACY", wish).from("127.0.0.5").options(&call);
    let mine = call.tcp().succeed();
    [mine, phone.succeed(1)]
}

#[test]
fn phone_connected_to_one_node_is_called_through_the_other_and_both_speak() {
    let Cluster { mut a, b, nats: _nats, _postgres } = started();
    for (hers, his) in [(&b, &a), (&a, &b)] {
        connected(hers, his, "call", "answer", "");
        knows(hers, 0);
        // Both send requests within the dialog, and the caller hangs up; who it is and where is hidden by the other node.
        let [_, seen] = connected(hers, his, "private_call", "private_called", "header;user;id;critical");
        for message in seen.received().iter().skip(2) {
            let head = message.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
            assert!(!head.contains("alice") && !head.contains("127.0.0.5"), "{message}");
        }
        knows(hers, 0);
        // The callee hangs up.
        connected(hers, his, "private_call_ended", "private_called_ends", "user");
        knows(hers, 0);
    }
    // One record for each call, at the node that the caller called.
    let calls = |server: &Server| {
        let folder = std::fs::read_dir(server.path().join("data/cdr")).unwrap();
        let texts = folder.map(|f| std::fs::read_to_string(f.unwrap().path()).unwrap());
        texts.map(|text| text.lines().filter(|l| l.contains("\"call\"")).count()).sum::<usize>()
    };
    for node in [&a, &b] {
        eventually("three calls are in its records", Duration::from_secs(20), || calls(node) >= 3);
        assert_eq!(calls(node), 3);
    }
    // The node with the connection dies: he is out of reach, and the caller hears of it at once.
    let call = ["-cid_str", "%u-and-gone"];
    let phone = Sipp::new(&a, "answer", a.ports.next()).tcp().registered().users(&["bob"]).options(&call).start();
    knows(&b, 1);
    a.process.kill();
    from_alice(&b, "call_final", "bob").set("CODE", 480).succeed();
    drop(phone);
}

#[test]
fn what_is_imported_at_one_node_takes_effect_at_all() {
    let Cluster { a, b, nats: _nats, _postgres } = started();
    std::fs::write(a.path().join("more.toml"), "[[user]]\nid = \"erin\"\npassword = \"wonderland\"\n").unwrap();
    let registers = |server: &Server| {
        // Not as fast as it goes: who is refused again and again is taken for a guesser.
        std::thread::sleep(Duration::from_millis(400));
        let sipp = Sipp::new(server, "register", b.ports.next()).set("CONTACT", "127.0.0.1:9").set("PARAMS", "");
        sipp.set("EXPIRES", 600).users(&["erin"]).run().counts.ok == 1
    };
    assert!(!registers(&b));
    a.command(&["import", "more.toml", "--config", "isthmus.toml"]);
    for server in [&a, &b] {
        eventually("erin gets in", Duration::from_secs(90), || registers(server));
    }
    // Registered at both; removed, she is gone from both, with her documents.
    let lists = home("resource-lists", "erin", "index");
    let empty = "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"/>";
    assert_eq!(Client::of(&b, "erin").put(&lists, harness::xcap::LISTS, empty).status, 201);
    a.command(&["user", "remove", "erin", "--config", "isthmus.toml"]);
    // Before anybody tries to register her: a binding made in the moment of her removal may stay known at the other node until it
    // expires.
    for server in [&b, &a] {
        knows(server, 0);
    }
    for server in [&b, &a] {
        eventually("erin is out", Duration::from_secs(90), || !registers(server));
    }
    a.command(&["import", "more.toml", "--config", "isthmus.toml"]);
    let another = Client::of(&b, "erin");
    eventually("another erin gets in", Duration::from_secs(90), || another.get(&lists).status != 401);
    assert_eq!(another.get(&lists).status, 404);
}

#[test]
fn node_that_dies_while_it_delivers_is_replaced_and_nothing_is_lost() {
    let Cluster { mut a, mut b, nats: _nats, _postgres } = started();
    keep(&a, "carol", "waits", 3);
    let port = b.ports.next();
    let silent = Sipp::new(&b, "silent", port).set("METHOD", "MESSAGE").set("WAIT", 300_000).start();
    register(&b, "carol", port, 600);
    // One of them has the right to deliver, and waits for her answer.
    let took = || silent.so_far().received().into_iter().find(|m| m.contains("waits 1")).map(str::to_owned);
    eventually("the first message", Duration::from_secs(20), || took().is_some());
    let first = took().unwrap();
    let sender =
        if header(&first, "Via").unwrap().contains(&format!("127.0.0.1:{};", a.sip)) { &mut a } else { &mut b };
    sender.process.kill();
    drop(silent);
    // Its right runs out (40 s), and the other goes on from the message that nobody took.
    let phone = Sipp::new(&b, "take_messages", port).set("CODE", 200).calls(3).limit(Duration::from_secs(180)).start();
    assert_eq!(texts(&phone.succeed(3)), ["waits 1", "waits 2", "waits 3"]);
}
