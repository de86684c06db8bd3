//! Initial filter criteria of the stand-alone mode: Kamailio and SIPp are application servers that we call for our users.

mod harness;

use std::time::Duration;

use harness::sipp::{Outcome, Running, header};
use harness::{DOMAIN, Ports, Server, Setup, Sipp, eventually, kamailio};

/// A server with these application servers in its trust, and what is provisioned for them.
fn house(servers: &[u16], filters: &str) -> Server {
    let mut setup = Setup::with_users(&["alice", "bob"]);
    let trusted: Vec<String> = servers.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    setup.sip = format!("trusted = [{}]\n", trusted.join(", "));
    setup.provisions = filters.to_owned();
    setup.start()
}

fn filter(user: &str, priority: u16, port: u16, more: &str) -> String {
    format!("[[filter]]\nuser = \"{user}\"\npriority = {priority}\nservice = \"sip:127.0.0.1:{port}\"\n{more}\n")
}

fn bob(server: &Server, scenario: &'static str) -> Running {
    let port = server.ports.next();
    let phone = Sipp::new(server, scenario, port).set("CODE", 200).start();
    let registering = Sipp::new(server, "register", server.ports.next()).set("CONTACT", format!("127.0.0.1:{port}"));
    registering.set("PARAMS", "").set("EXPIRES", 600).users(&["bob"]).succeed();
    phone
}

fn message(server: &Server, code: u16) -> Outcome {
    let message = Sipp::new(server, "message", server.ports.next());
    let message = message.set("URI", format!("sip:bob@{DOMAIN}")).set("TEXT", "hello").set("CODE", code);
    message.users(&["alice"]).succeed()
}

fn trace(server: &Server, outcome: &Outcome) -> String {
    let call_id = header(outcome.sent()[0], "Call-ID").expect("a Call-ID").to_owned();
    server.command(&["trace", &call_id, "--config", "isthmus.toml"])
}

/// The X-Server values of a message, those that came first at the end.
fn servers(text: &str) -> Vec<&str> {
    text.lines().filter_map(|l| l.strip_prefix("X-Server: ")).map(str::trim).collect()
}

#[test]
fn application_servers_chain_in_order_of_priority_for_caller_and_callee() {
    let ports = Ports::claim();
    let [one, two, three] = [ports.next(), ports.next(), ports.next()];
    let filters = filter("alice", 20, two, "method = \"MESSAGE\"\nsession_case = \"originating\"")
        + &filter(
            "*",
            10,
            one,
            "method = [\"MESSAGE\", \"INVITE\"]\nsession_case = \"originating\"\nregistered = false",
        )
        + &filter(
            "bob",
            5,
            three,
            "header = [\"Content-Type: ^text/plain\", \"!Subject\"]\nsession_case = \"terminating\"",
        )
        + &filter("bob", 1, one, "header = [\"Subject\"]");
    let server = house(&[one, two, three], &filters);
    let path = server.path();
    let _servers = [("one", one), ("two", two), ("three", three)].map(|(n, p)| kamailio::server_on_path(path, n, p));
    let bob = bob(&server, "take_messages");
    let sent = message(&server, 200);
    let seen = bob.succeed(1);
    let text = seen.received()[0];
    let alice = format!("<sip:alice@{DOMAIN}>;sescase=orig;regstate=unreg");
    let callee = format!("<sip:bob@{DOMAIN}>;sescase=term;regstate=reg");
    assert_eq!(servers(text), [format!("one {alice}"), format!("two {alice}"), format!("three {callee}")]);
    assert!(!text.contains("P-Served-User") && !text.contains("\nRoute:"), "what is for the core stays there: {text}");
    let shown = trace(&server, &sent);
    for (port, priority) in [(one, 10), (two, 20), (three, 5)] {
        let line = format!("service invoked 127.0.0.1:{port}, filter of priority {priority}");
        assert!(shown.contains(&line[..40]), "{line} in {shown}");
    }
    assert_eq!(shown.matches("back from an application server").count(), 3, "{shown}");
}

#[test]
fn call_passes_an_application_server_and_ends() {
    let ports = Ports::claim();
    let one = ports.next();
    let server = house(&[one], &filter("*", 10, one, "sdp = [\"m: ^audio \"]"));
    let _one = kamailio::server_on_path(server.path(), "one", one);
    let bob = bob(&server, "answer");
    let call = Sipp::new(&server, "call", server.ports.next());
    call.set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"]).succeed();
    let seen = bob.succeed(1);
    assert_eq!(servers(seen.received()[0]).len(), 2, "once for alice and once for bob");
}

#[test]
fn back_to_back_server_sends_its_own_request_by_our_route() {
    let ports = Ports::claim();
    let agent = ports.next();
    let server = house(&[agent], &filter("alice", 10, agent, "method = \"MESSAGE\""));
    let served = Sipp::new(&server, "server_b2bua", agent).set("TEXT", "translated").start();
    let bob = bob(&server, "take_messages");
    message(&server, 200);
    served.succeed(1);
    let seen = bob.succeed(1);
    let text = seen.received()[0];
    assert!(text.contains("translated") && !text.contains("hello"), "{text}");
    assert_eq!(header(text, "X-Served"), Some(&*format!("<sip:alice@{DOMAIN}>;sescase=orig;regstate=unreg")));
}

#[test]
fn session_goes_on_without_a_server_that_is_down_or_ends_with_it() {
    let ports = Ports::claim();
    let [down, also] = [ports.next(), ports.next()];
    let server = house(&[down, also], &filter("alice", 10, down, ""));
    let bob = bob(&server, "take_messages");
    let sent = message(&server, 200);
    bob.succeed(1);
    let shown = trace(&server, &sent);
    assert!(shown.contains("service down, session continued 127.0.0.1"), "{shown}");
    // A change takes effect while the server runs; the old one goes by its key.
    let more = filter("alice", 20, also, "default_handling = \"terminate\"");
    std::fs::write(server.path().join("more.toml"), more).unwrap();
    server.command(&["import", "more.toml", "--config", "isthmus.toml"]);
    let in_force = |count| {
        eventually("the change is in force", Duration::from_secs(20), || server.metric("isthmus_filters") == count);
    };
    in_force(2.0);
    let listed = server.command(&["filter", "list", "--config", "isthmus.toml"]);
    let key = format!("alice@{DOMAIN}/00010/sip:127.0.0.1:{down}");
    assert!(listed.contains(&format!("{key}\tcontinue")) && listed.contains("\tterminate"), "{listed}");
    server.command(&["filter", "remove", &key, "--config", "isthmus.toml"]);
    in_force(1.0);
    let sent = message(&server, 500);
    let shown = trace(&server, &sent);
    assert!(shown.contains("service down, session terminated 127.0.0.1"), "{shown}");
}

#[test]
fn server_that_wakes_up_late_delivers_nothing_a_second_time() {
    let ports = Ports::claim();
    let slow = ports.next();
    let server = house(&[slow], &filter("alice", 10, slow, ""));
    let agent = Sipp::new(&server, "server_silent", slow).set("WAIT", 7000).start();
    let bob = bob(&server, "take_messages");
    let sent = message(&server, 200);
    let seen = bob.succeed(1);
    assert!(seen.received()[0].contains("hello"));
    agent.succeed(1);
    let shown = trace(&server, &sent);
    assert!(shown.contains("service down, session continued 127.0.0.1"), "{shown}");
}
