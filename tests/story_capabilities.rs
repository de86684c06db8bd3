//! What a user's phones can do, asked by OPTIONS (GSMA RCC.07), and a caller who chooses among them (RFC 3841). The phones are SIPp and
//! baresip.

mod harness;

use std::time::Duration;

use harness::{DOMAIN, Outcome, Phone, Ports, Server, Setup, Sipp, eventually, header};

const SOON: Duration = Duration::from_secs(20);
const CHAT: &str = "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\"";
const FILES: &str = "+g.3gpp.iari-ref=\"urn%3Aurn-7%3A3gpp-application.ims.iari.rcs.fthttp\"";

fn setup(answer: &str) -> Setup {
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.sections = format!("[presence]\nnotify_interval = 0\n[capabilities]\nanswer = \"{answer}\"\n");
    setup
}

fn registers(server: &Server, user: &str, port: u16, params: &str) {
    let contact = format!("Contact: <sip:{user}@127.0.0.1:{port}>{params}\nExpires: 600");
    let sipp = Sipp::new(server, "register_with", server.ports.next()).set("LINES", contact);
    sipp.set("CODE", 200).users(&[user]).succeed();
}

/// Bob asks; gives the answer.
fn asks(server: &Server, method: &str, user: &str, lines: &str, code: u16) -> String {
    let sipp = Sipp::new(server, "ask", server.ports.next()).set("METHOD", method).set("USER", user);
    let outcome: Outcome = sipp.set("LINES", lines).set("CODE", code).users(&["bob"]).succeed();
    outcome.received().last().copied().expect("an answer").to_owned()
}

fn options(server: &Server, user: &str, code: u16) -> String {
    asks(server, "OPTIONS", user, "Contact: <sip:bob@192.0.2.1>;+g.oma.sip-im\nAccept-Contact: *;+g.oma.sip-im", code)
}

/// Publishes that alice has a service.
fn publishes(server: &Server, service: &str, version: &str) {
    let body = format!(
        "<?xml version=\"1.0\"?>\r\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" xmlns:op=\"urn:oma:xml:prs:pidf:oma-pres\" \
         entity=\"sip:alice@{DOMAIN}\"><tuple id=\"a1\"><status><basic>open</basic></status><op:service-description>\
         <op:service-id>{service}</op:service-id><op:version>{version}</op:version></op:service-description>\
         <contact>sip:alice@{DOMAIN}</contact></tuple></presence>"
    );
    let sipp = Sipp::new(server, "publish", server.ports.next()).set("USER", "alice").set("CODE", 200);
    let lines = "Event: presence\nContent-Type: application/pidf+xml";
    sipp.set("LINES", lines).set("BODY", body).users(&["alice"]).succeed();
}

#[test]
fn phones_answer_for_themselves_and_hear_what_the_caller_can() {
    let server = setup("handsets").start();
    options(&server, "alice", 480);
    options(&server, "nobody", 404);
    let port = server.ports.next();
    registers(&server, "alice", port, ";+g.oma.sip-im");
    let phone = Sipp::new(&server, "take_options", port).set("PARAMS", ";+g.oma.sip-im;video").start();
    let answer = options(&server, "alice", 200);
    assert_eq!(header(&answer, "Contact"), Some(&*format!("<sip:phone@127.0.0.1:{port}>;+g.oma.sip-im;video")));
    let seen = phone.succeed(1);
    let asked = seen.received()[0];
    assert_eq!(header(asked, "Contact"), Some("<sip:bob@192.0.2.1>;+g.oma.sip-im"));
    assert_eq!(header(asked, "Accept-Contact"), Some("*;+g.oma.sip-im"));
    assert!(server.admin("/metrics").1.contains("isthmus_capabilities_total{from=\"registered\"} 0"));
}

#[test]
fn real_phone_is_asked() {
    let server = setup("handsets").start();
    let mut alice = Phone::start(&server, "alice", "udp", 440);
    alice.wait_registered();
    let answer = asks(&server, "OPTIONS", "alice", "Contact: <sip:bob@192.0.2.1>", 200);
    assert!(header(&answer, "Allow").is_some_and(|v| v.contains("INVITE")), "{answer}");
    assert!(answer.to_lowercase().contains("baresip"), "{answer}");
}

#[test]
fn published_services_answer_while_all_phones_are_away() {
    let server = setup("handsets").start();
    publishes(&server, "org.openmobilealliance:ChatSession", "2.0");
    let answer = options(&server, "alice", 200);
    assert_eq!(header(&answer, "Contact"), Some(&*format!("<sip:alice@{DOMAIN}>;{CHAT}")));
    assert!(server.admin("/metrics").1.contains("isthmus_capabilities_total{from=\"published\"} 1"));
}

#[test]
fn network_answers_for_all_phones_together() {
    let server = setup("network").start();
    options(&server, "alice", 480);
    options(&server, "nobody", 404);
    // Nobody is at these addresses.
    registers(&server, "alice", server.ports.next(), &format!(";{CHAT};audio;methods=\"INVITE,BYE,ACK\""));
    registers(&server, "alice", server.ports.next(), &format!(";{FILES};audio;methods=\"INVITE,MESSAGE\""));
    let answer = options(&server, "alice", 200);
    let contact = header(&answer, "Contact").unwrap();
    assert!(contact.starts_with(&format!("<sip:alice@{DOMAIN}>;")), "{answer}");
    for tag in [CHAT, FILES, "audio"] {
        assert_eq!(contact.matches(&format!(";{tag}")).count(), 1, "{tag}: {answer}");
    }
    let allow = header(&answer, "Allow").unwrap();
    assert!(["INVITE", "MESSAGE", "BYE"].iter().all(|m| allow.contains(m)) && !allow.contains("REFER"), "{answer}");
    // What is published is told as well.
    publishes(&server, "org.3gpp.urn:urn-7:3gpp-application.ims.iari.rcs.geopush", "1.0");
    let answer = options(&server, "alice", 200);
    assert!(header(&answer, "Contact").unwrap().contains("iari.rcs.geopush"), "{answer}");
}

#[test]
fn watcher_sees_registered_tags_as_services() {
    let server = setup("handsets").start();
    registers(&server, "alice", server.ports.next(), &format!(";{CHAT};audio"));
    let watcher = Sipp::new(&server, "watch", server.ports.next()).set("USER", "alice").users(&["bob"]);
    let watcher =
        watcher.set("EVENT", "presence").set("ACCEPT", "application/pidf+xml").limit(Duration::from_secs(120)).start();
    let log = watcher.base.with_extension("msg");
    let service = "<op:service-id>org.openmobilealliance:ChatSession</op:service-id><op:version>2.0</op:version>";
    eventually("the service is shown", SOON, || {
        String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).contains(service)
    });
}

#[test]
fn caller_chooses_among_the_phones() {
    let ports = Ports::claim();
    let server = setup("handsets").start();
    let (desk, pocket) = (ports.next(), ports.next());
    registers(&server, "alice", desk, ";audio;methods=\"INVITE,OPTIONS\"");
    registers(&server, "alice", pocket, &format!(";{CHAT};methods=\"INVITE,OPTIONS,MESSAGE\""));
    let at = |port: u16| Sipp::new(&server, "take_options", port).set("PARAMS", "").start();
    let wants = |lines: &str| asks(&server, "OPTIONS", "alice", &format!("Contact: <sip:bob@192.0.2.1>\n{lines}"), 200);
    for (port, lines) in [
        (pocket, format!("Accept-Contact: *;{CHAT};require;explicit")),
        (desk, "Reject-Contact: *;methods=\"MESSAGE\"".to_owned()),
        (desk, "Accept-Contact: *;audio;require;explicit\nRequest-Disposition: no-fork".to_owned()),
    ] {
        let phone = at(port);
        let answer = wants(&lines);
        assert!(header(&answer, "Contact").unwrap().contains(&format!(":{port}>")), "{lines}: {answer}");
        // Only one of them is there at all: had the other been tried, SIPp would have heard nothing.
        phone.succeed(1);
    }
    asks(&server, "OPTIONS", "alice", "Contact: <sip:bob@192.0.2.1>\nAccept-Contact: *;video;require;explicit", 480);
}
