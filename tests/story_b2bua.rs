//! A service that acts as back-to-back user agent: SIPp is on both ends, Kamailio plays the S-CSCF between them, and two
//! phones hear each other through it. What leaves on one side has nothing of the other side's dialog.

mod harness;

use std::time::Duration;

use harness::sipp::{Outcome, Running, header};
use harness::{DOMAIN, Peer, Phone, Ports, Server, Setup, Sipp, bind, eventually, kamailio};

const FILTER: &str = "[[filter]]\nuser = \"*\"\npriority = 10\nmethod = \"INVITE\"\nsession_case = \"terminating\"\nservice = \"b2bua\"\n";

fn house() -> Server {
    let mut setup = Setup::with_users(&["alice", "bob", "carol"]);
    setup.provisions = FILTER.to_owned();
    setup.start()
}

fn caller(server: &Server, scenario: &'static str) -> Sipp {
    Sipp::new(server, scenario, server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"])
}

/// A call that lasts until [`LongCall::hang_up`].
struct LongCall {
    call: Running,
    port: u16,
    call_id: &'static str,
}

impl LongCall {
    fn start(server: &Server, [from, to]: [&str; 2], call_id: &'static str) -> LongCall {
        let port = server.ports.next();
        let sipp = Sipp::new(server, "session", port).set("URI", format!("sip:{to}@{DOMAIN}"));
        let sipp = sipp.set("MEDIA", "m=audio 6000 RTP/AVP 0").users(&[from]).options(&["-cid_str", call_id]);
        LongCall { call: sipp.start(), port, call_id }
    }

    fn hang_up(self) {
        let peer = Peer::new(0);
        peer.send(self.port, &peer.request("INFO", "sip:x", ["bob", "alice"], self.call_id, "", ""));
        self.call.succeed(1);
    }
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

fn tag(party: Option<&str>) -> &str {
    party.and_then(|p| p.split_once(";tag=")).map(|(_, tag)| tag).expect("a tag")
}

/// A dialog as Replaces names it to the end with `to_tag` (RFC 3891).
fn replaces(call_id: &str, to_tag: &str, from_tag: &str) -> String {
    format!("{call_id};to-tag={to_tag};from-tag={from_tag}")
}

/// The dialog that a caller whose call is up has with us, as it would have the other end replace it.
fn dialog_of(near: &Running) -> String {
    let log =
        || String::from_utf8_lossy(&std::fs::read(near.base.with_extension("msg")).unwrap_or_default()).into_owned();
    let acknowledged = |log: &str| {
        // Another one came before, of the 407.
        let at = log.rfind("ACK sip:").filter(|at| log[..*at].contains("SIP/2.0 200 OK"))?;
        let ack = &log[at..];
        Some(replaces(header(ack, "Call-ID")?, tag(header(ack, "To")), tag(header(ack, "From"))))
    };
    eventually("the call is up", Duration::from_secs(30), || acknowledged(&log()).is_some());
    acknowledged(&log()).unwrap()
}

/// The first dialog of a phone that was called, as another caller would have it replaced.
fn dialog_at(far: &Outcome) -> String {
    let (invite, answer) = (far.received()[0], far.sent()[0]);
    replaces(header(invite, "Call-ID").unwrap(), tag(header(answer, "To")), tag(header(invite, "From")))
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
    eventually("it is forgotten", Duration::from_secs(30), || server.metric("isthmus_joined_calls") == 0.0);
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
fn who_changes_the_session_while_the_other_does_is_refused_at_either_end() {
    let (_server, near) = between("glare_caller", "glare_callee", false);
    let refused = near.received().into_iter().filter(|m| m.starts_with("SIP/2.0 491")).count();
    assert_eq!(refused, 1, "once, and the far end once");
}

#[test]
fn an_end_that_knows_nothing_of_the_call_any_more_ends_it_for_the_other() {
    between("left_alone", "gone", false);
}

#[test]
fn a_session_that_nobody_refreshes_ends_at_both_ends() {
    let server = house();
    let phone = server.ports.next();
    let limit = Duration::from_secs(150);
    let far = Sipp::new(&server, "answer", phone).limit(limit).start();
    bind(&server, "bob", phone, "");
    let near = caller(&server, "expires").limit(limit).succeed();
    let answer = near.received().into_iter().rfind(|m| m.starts_with("SIP/2.0 200")).unwrap();
    assert_eq!(header(answer, "Session-Expires"), Some("90;refresher=uac"), "the far end knows no timers");
    apart(&server, [&near, &far.succeed(1)]);
}

#[test]
fn an_extension_that_would_not_work_through_us_is_refused() {
    let server = house();
    let near = caller(&server, "call_final").set("MORE", "Require: 100rel, x-nonsense\n").set("CODE", 420).succeed();
    let refusal = near.received().pop().unwrap();
    assert_eq!(header(refusal, "Unsupported"), Some("x-nonsense"), "{refusal}");
}

#[test]
fn replaces_names_each_end_its_own_dialog() {
    let server = house();
    let phone = server.ports.next();
    let bob = Sipp::new(&server, "answer", phone).calls(2).start();
    bind(&server, "bob", phone, "");
    let alice = LongCall::start(&server, ["alice", "bob"], "replaced");
    let hers = dialog_of(&alice.call);
    let more = format!("Require: replaces\nReplaces: {hers}\n");
    caller(&server, "call").users(&["carol"]).set("MORE", more).succeed();
    alice.hang_up();
    let bob = bob.succeed(2);
    let taken_over = bob.received().into_iter().find_map(|m| header(m, "Replaces")).expect("Replaces");
    assert_eq!(taken_over, dialog_at(&bob));
    assert_ne!(taken_over, hers);
}

#[test]
fn refer_to_names_the_dialog_as_its_target_knows_it() {
    let server = house();
    let [at_carol, at_bob] = [server.ports.next(), server.ports.next()];
    let carol = Sipp::new(&server, "answer", at_carol).start();
    bind(&server, "carol", at_carol, "");
    let consulting = LongCall::start(&server, ["bob", "carol"], "consulting");
    let his = dialog_of(&consulting.call);
    let embedded = format!("?Replaces={}", his.replace('@', "%40").replace(';', "%3B").replace('=', "%3D"));
    let bob = Sipp::new(&server, "transferor", at_bob).set("REPLACES", embedded).start();
    bind(&server, "bob", at_bob, "");
    let alice = caller(&server, "transferred").succeed();
    bob.succeed(1);
    consulting.hang_up();
    let carol = carol.succeed(1);
    let refer = alice.received().into_iter().find(|m| m.starts_with("REFER")).expect("a REFER");
    let target = header(refer, "Refer-To").unwrap();
    let (_, named) = target.trim_end_matches('>').split_once("?Replaces=").expect("Replaces");
    let named = named.replace("%40", "@").replace("%3B", ";").replace("%3D", "=");
    assert_eq!(named, dialog_at(&carol));
    assert_ne!(named, his);
}

#[test]
fn a_callee_who_wants_to_stay_unknown_does() {
    for (privacy, shown) in [("none", true), ("header", false)] {
        let server = house();
        let phone = server.ports.next();
        let said = format!("Privacy: {privacy}\nOrganization: Bob's\nHistory-Info: <sip:desk@{DOMAIN}>;index=1\n");
        let far = Sipp::new(&server, "answer", phone).set("MORE", said).start();
        bind(&server, "bob", phone, "");
        let near = caller(&server, "call").succeed();
        apart(&server, [&near, &far.succeed(1)]);
        let heard = near.received().concat();
        assert!(!heard.contains(&format!("127.0.0.1:{phone}")), "the phone's address never crosses: {heard}");
        for what in ["Organization: Bob's", "sip:desk@"] {
            assert_eq!(heard.contains(what), shown, "{privacy}: {what} in {heard}");
        }
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
