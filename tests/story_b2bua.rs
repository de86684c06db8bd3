//! A service that acts as back-to-back user agent: SIPp is on both ends, Kamailio plays the S-CSCF between them, and two
//! phones hear each other through it. What leaves on one side has nothing of the other side's dialog.

mod harness;

use harness::sipp::{Outcome, header};
use harness::{DOMAIN, Phone, Ports, Server, Setup, Sipp, bind, kamailio};

const FILTER: &str = "[[filter]]\nuser = \"*\"\npriority = 10\nmethod = \"INVITE\"\nsession_case = \"terminating\"\nservice = \"b2bua\"\n";

fn house() -> Server {
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.provisions = FILTER.to_owned();
    setup.start()
}

fn caller(server: &Server, scenario: &'static str) -> Sipp {
    Sipp::new(server, scenario, server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"])
}

/// The messages of one side: none of them knows of the other's dialog or address.
fn apart(server: &Server, [near, far]: [&Outcome; 2]) {
    let id = |seen: &Outcome| header(seen.sent().last().unwrap(), "Call-ID").expect("a Call-ID").to_owned();
    let (one, other) = (id(near), id(far));
    assert_ne!(one, other);
    let sender = |seen: &Outcome| header(seen.sent()[0], "From").expect("a From").to_owned();
    for message in far.received() {
        let from = header(message, "From").unwrap_or_default();
        assert!(!message.contains(&one) && from != sender(near), "{message}");
        if let Some(contact) = header(message, "Contact") {
            assert!(contact.contains(&server.address()), "{message}");
        }
    }
    for message in near.received() {
        assert!(!message.contains(&other), "{message}");
        if let Some(contact) = header(message, "Contact") {
            assert!(contact.contains(&server.address()), "{message}");
        }
    }
}

/// Runs `asks` for alice against `answers` at bob's phone, through two dialogs.
fn between(asks: &'static str, answers: &'static str, tcp: bool) -> (Server, Outcome) {
    let server = house();
    let phone = server.ports.next();
    let far = Sipp::new(&server, answers, phone).start();
    bind(&server, "bob", phone, "");
    let near = caller(&server, asks);
    let near = if tcp { near.tcp() } else { near }.succeed();
    apart(&server, [&near, &far.succeed(1)]);
    (server, near)
}

#[test]
fn reliable_ringing_updates_timer_and_changes_cross_from_one_dialog_to_the_other() {
    let (server, near) = between("dialog_caller", "dialog_callee", false);
    let call_id = header(near.sent()[0], "Call-ID").expect("a Call-ID").to_owned();
    let shown = server.command(&["trace", &call_id, "--config", "isthmus.toml"]);
    for line in ["service invoked b2bua, filter of priority 10", "taken by service b2bua", "joined by us with trace"] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    let (_, other) = shown.split_once("joined by us with trace ").expect("the other trace");
    let other = server.command(&["trace", &other[..16], "--config", "isthmus.toml"]);
    assert!(other.contains("back from an application server") && other.contains("INVITE   sent"), "{other}");
    assert!(server.metric("isthmus_joined_calls") >= 1.0, "a call that is over is known a little longer");
}

#[test]
fn ends_on_different_transports_are_joined() {
    between("dialog_caller", "dialog_callee", true);
}

#[test]
fn transfer_inside_a_joined_call_is_reported_by_notify() {
    between("transferred", "transferor", false);
}

#[test]
fn caller_who_gives_up_stops_every_far_end() {
    let server = house();
    let phones = [server.ports.next(), server.ports.next()];
    let ringing = phones.map(|port| Sipp::new(&server, "ring", port).start());
    phones.into_iter().for_each(|port| bind(&server, "bob", port, ""));
    let near = caller(&server, "call_cancelled").succeed();
    for far in ringing {
        apart(&server, [&near, &far.succeed(1)]);
    }
    assert_eq!(server.metric("isthmus_joined_calls"), 0.0);
}

#[test]
fn refusals_cross_as_they_are() {
    for code in [302, 486, 603] {
        let server = house();
        let phone = server.ports.next();
        let far = Sipp::new(&server, "refuse", phone).set("CODE", code).start();
        bind(&server, "bob", phone, "");
        caller(&server, "call_final").set("CODE", code).succeed();
        far.succeed(1);
    }
}

#[test]
fn an_s_cscf_goes_on_with_the_dialog_that_a_service_made_of_its_own() {
    let ports = Ports::claim();
    let scscf = ports.next();
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.sip = format!("trusted = [\"127.0.0.1:{scscf}\"]\n");
    let server = setup.start();
    let _scscf = kamailio::scscf_naming(server.path(), scscf, server.sip, "b2bua");
    let phone = server.ports.next();
    let far = Sipp::new(&server, "answer", phone).start();
    let registering = Sipp::new(&server, "register_open", server.ports.next()).towards(scscf);
    let registering = registering.set("CONTACT", format!("127.0.0.1:{phone}")).set("EXPIRES", 600).set("PARAMS", "");
    registering.users(&["bob"]).succeed();
    let near = Sipp::new(&server, "call_open", server.ports.next()).towards(scscf);
    let near = near.set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"]).succeed();
    let far = far.succeed(1);
    apart(&server, [&near, &far]);
    // Once for alice and once for bob: three dialogs, and what the core says of the call goes with it.
    let invite = far.received()[0];
    assert_eq!(
        header(invite, "P-Charging-Vector"),
        Some("icid-value=\"AyretyU0dm+6O2IrT5tAFrbHLso=\";orig-ioi=home1.net")
    );
    assert_eq!(server.metric("isthmus_joined_calls"), 2.0);
    let shown = server.command(&["trace", header(near.sent()[0], "Call-ID").unwrap(), "--config", "isthmus.toml"]);
    assert!(shown.contains("taken by service b2bua") && shown.contains("joined by us with trace"), "{shown}");
}

#[test]
fn phones_hear_each_other_through_a_service_in_the_middle() {
    let server = house();
    let mut bob = Phone::start(&server, "bob", "tcp", 700);
    bob.wait_registered();
    let mut alice = Phone::start(&server, "alice", "udp", 440);
    alice.wait_registered();
    alice.talks_with(&mut bob);
    assert_eq!(server.metric("isthmus_joined_calls"), 1.0);
    bob.command("hangup", "");
    bob.wait_event("CALL_CLOSED");
    alice.wait_event("CALL_CLOSED");
}
