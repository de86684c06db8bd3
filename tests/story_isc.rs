//! An application server of an IMS core: Kamailio plays the S-CSCF in front of us, SIPp its users.

mod harness;

use std::time::Duration;

use harness::raw::status;
use harness::sipp::{Outcome, Running, header};
use harness::{DOMAIN, Peer, Ports, Process, Server, Setup, Sipp, eventually, kamailio};

struct Core {
    server: Server,
    scscf: u16,
    _scscf: Process,
    _ports: Ports,
}

fn core() -> Core {
    let ports = Ports::claim();
    let scscf = ports.next();
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.sip = format!("trusted = [\"127.0.0.1:{scscf}\"]\n");
    let server = setup.start();
    let process = kamailio::scscf(server.path(), scscf, server.sip);
    Core { server, scscf, _scscf: process, _ports: ports }
}

impl Core {
    /// Registers with the S-CSCF, which tells us.
    fn register(&self, user: &str, port: u16, seconds: u32) {
        let registering = Sipp::new(&self.server, "register_open", self.server.ports.next()).towards(self.scscf);
        let registering = registering.set("CONTACT", format!("127.0.0.1:{port}")).set("EXPIRES", seconds);
        registering.set("PARAMS", ";+g.3gpp.smsip").users(&[user]).succeed();
    }

    fn phone(&self, user: &str, scenario: &'static str) -> Running {
        let port = self.server.ports.next();
        let phone = Sipp::new(&self.server, scenario, port).set("CODE", 200).start();
        self.register(user, port, 600);
        phone
    }

    fn message(&self, code: u16) -> Outcome {
        let message = Sipp::new(&self.server, "message_open", self.server.ports.next()).towards(self.scscf);
        let message = message.set("URI", format!("sip:bob@{DOMAIN}")).set("TEXT", "hello").set("CODE", code);
        message.users(&["alice"]).succeed()
    }

    fn registered(&self, users: f64) {
        eventually("third-party registrations", Duration::from_secs(20), || {
            self.server.metric("isthmus_registered_users") == users
        });
    }
}

fn trace(server: &Server, outcome: &Outcome) -> String {
    let call_id = header(outcome.sent()[0], "Call-ID").expect("a Call-ID").to_owned();
    server.command(&["trace", &call_id, "--config", "isthmus.toml"])
}

#[test]
fn s_cscf_has_its_requests_back_with_the_route_advanced_and_every_p_header_as_it_was() {
    let core = core();
    let bob = core.phone("bob", "take_messages");
    core.registered(1.0);
    let sent = core.message(200);
    let seen = bob.succeed(1);
    let text = seen.received()[0];
    assert_eq!(
        header(text, "P-Charging-Vector"),
        Some("icid-value=\"AyretyU0dm+6O2IrT5tAFrbHLso=\";orig-ioi=home1.net")
    );
    assert_eq!(
        header(text, "P-Access-Network-Info"),
        Some("3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=234151D0FCE11;x=\"a, b\"")
    );
    assert_eq!(header(text, "P-Asserted-Identity"), Some(&*format!("<sip:alice@{DOMAIN}>")));
    assert_eq!(header(text, "P-Served-User"), Some(&*format!("<sip:bob@{DOMAIN}>;sescase=term;regstate=reg")));
    // S-CSCF, us for alice, S-CSCF, us for bob, S-CSCF, and the sender.
    assert_eq!(text.matches("Via:").count(), 6, "{text}");
    let shown = trace(&core.server, &sent);
    let core_says = format!("received from 127.0.0.1:{}", core.scscf);
    assert_eq!(shown.lines().filter(|l| l.contains("MESSAGE") && l.contains(&core_says)).count(), 4, "{shown}");
}

#[test]
fn call_through_the_s_cscf_is_set_up_and_ended() {
    let core = core();
    let bob = core.phone("bob", "answer");
    core.registered(1.0);
    let call = Sipp::new(&core.server, "call_open", core.server.ports.next()).towards(core.scscf);
    call.set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"]).succeed();
    bob.succeed(1);
}

#[test]
fn message_to_a_user_who_is_away_waits_until_the_s_cscf_tells_of_a_registration() {
    let core = core();
    core.message(202);
    let bob = core.phone("bob", "take_messages");
    let seen = bob.succeed(1);
    assert!(seen.received()[0].contains("hello"), "{}", seen.received()[0]);
}

#[test]
fn user_that_the_s_cscf_de_registers_is_reached_no_longer() {
    let core = core();
    let bob = core.server.ports.next();
    core.register("bob", bob, 600);
    core.registered(1.0);
    core.register("bob", bob, 0);
    core.registered(0.0);
}

#[test]
fn strangers_speak_for_nobody() {
    let core = core();
    let stranger = Peer::new(0);
    let told = format!("From: <sip:127.0.0.1:{}>;tag=x\r\n", stranger.port);
    let register =
        stranger.request("REGISTER", &format!("sip:{DOMAIN}"), ["bob", "bob"], "tp1", "Expires: 600\r\n", "");
    let register =
        String::from_utf8(register).unwrap().replace(&format!("From: <sip:bob@{DOMAIN}>;tag=ftp1\r\n"), &told);
    stranger.send(core.server.sip, register.as_bytes());
    let answer = stranger.receive_with("tp1", Duration::from_secs(20)).expect("an answer");
    assert_eq!(status(&answer), Some(401), "{answer}");
    let route = format!(
        "Route: <sip:127.0.0.1:{};lr;orig>, <sip:odi-orig-x@127.0.0.1:{};lr>\r\n\
         P-Served-User: <sip:alice@{DOMAIN}>;sescase=orig;regstate=reg\r\nP-Asserted-Identity: <sip:alice@{DOMAIN}>\r\n",
        core.server.sip, core.scscf
    );
    for (from, wanted) in [("alice", 407), ("mallory@elsewhere.test;x=", 403)] {
        let id = format!("forged{wanted}");
        let message = stranger.request("MESSAGE", &format!("sip:bob@{DOMAIN}"), [from, "bob"], &id, &route, "");
        stranger.send(core.server.sip, &message);
        let answer = stranger.receive_with(&id, Duration::from_secs(20)).expect("an answer");
        assert_eq!(status(&answer), Some(wanted), "{answer}");
    }
    assert_eq!(core.server.metric("isthmus_registered_users"), 0.0);
}
