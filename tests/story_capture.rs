//! What a capture server sees: Kamailio's sipcapture in Homer's place, while SIPp registers and calls.

mod harness;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::homer::Captured;
use harness::{DOMAIN, Homer, Server, Setup, Sipp, eventually, header, sipp::Outcome};

/// A server that copies to a capture server.
fn started() -> (Homer, Server) {
    let homer = Homer::start();
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.sections = format!("[telemetry.hep]\naddress = \"127.0.0.1:{}\"\n", homer.port);
    (homer, setup.start())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Each message that SIPp logged, and which way it went: (from `here`, text).
fn logged(outcome: &Outcome) -> BTreeSet<(bool, String)> {
    let sent = outcome.sent().into_iter().map(|m| (true, m.trim().to_owned()));
    sent.chain(outcome.received().into_iter().map(|m| (false, m.trim().to_owned()))).collect()
}

/// Each message that was captured between the server and `peer`, and which way it went.
fn captured(rows: &[Captured], server: &str, peer: &str) -> BTreeSet<(bool, String)> {
    let between = |r: &&Captured| [&*r.source, &*r.destination].contains(&peer);
    let each = rows.iter().filter(between).map(|r| {
        let from_peer = r.source == peer;
        assert_eq!(if from_peer { &r.destination } else { &r.source }, server, "{r:?}");
        (from_peer, r.message.clone())
    });
    each.collect()
}

fn first_lines(set: &BTreeSet<(bool, String)>) -> Vec<&str> {
    set.iter().map(|(_, m)| m.lines().next().unwrap_or_default()).collect()
}

#[test]
fn every_message_is_captured_as_sipp_sent_and_received_it() {
    let (homer, server) = started();
    let before = now();
    let (phone, caller, registrant) = (server.ports.next(), server.ports.next(), server.ports.next());
    let callee = Sipp::new(&server, "answer", phone).start();
    let register = Sipp::new(&server, "register", registrant).set("CONTACT", format!("127.0.0.1:{phone}"));
    let registered = register.set("PARAMS", "").set("EXPIRES", 600).users(&["bob"]).succeed();
    let call = Sipp::new(&server, "call", caller).set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"]).succeed();
    let answered = callee.succeed(1);

    let at = server.address();
    let peers = [(phone, &answered), (caller, &call), (registrant, &registered)];
    let mut rows = Vec::new();
    for (port, outcome) in peers {
        let (peer, expected) = (format!("127.0.0.1:{port}"), logged(outcome));
        let mut seen = BTreeSet::new();
        let all = || {
            rows = homer.captured();
            seen = captured(&rows, &at, &peer);
            seen.len() >= expected.len()
        };
        eventually(&format!("{} is captured:\n{}", outcome.name, homer.output()), Duration::from_secs(20), all);
        assert_eq!(seen, expected, "{}: {:?} and {:?}", outcome.name, first_lines(&seen), first_lines(&expected));
    }

    let after = now();
    for row in &rows {
        assert_eq!((row.transport, row.family), (Some("udp"), 2), "{row:?}");
        assert!((before..=after).contains(&row.at), "{} is not between {before} and {after}", row.at);
        assert_eq!(Some(&*row.correlation), header(&row.message, "Call-ID"));
    }
    // Both legs of the call, and nothing of the registration, stand together by their correlation id, in the order of time.
    let call_id = header(call.sent()[0], "Call-ID").unwrap();
    let of_call: Vec<&Captured> = rows.iter().filter(|r| r.correlation == call_id).collect();
    let invites: Vec<&str> = of_call.iter().filter(|r| r.message.starts_with("INVITE")).map(|r| &*r.source).collect();
    assert!(invites.iter().any(|s| s.ends_with(&format!(":{caller}"))) && invites.contains(&&*at), "{invites:?}");
    assert!(of_call[0].message.starts_with("INVITE") && of_call[0].source.ends_with(&format!(":{caller}")));
    assert!(of_call.last().unwrap().message.contains("CSeq: 3 BYE"), "{of_call:?}");
    assert!(server.admin("/metrics").1.contains("isthmus_hep_packets_total{fate=\"dropped\"} 0\n"));
}

#[test]
fn messages_over_tcp_are_captured_as_tcp() {
    let (homer, server) = started();
    let registrant = server.ports.next();
    let register = Sipp::new(&server, "register", registrant).tcp().set("CONTACT", "127.0.0.1:9");
    let registered = register.set("PARAMS", "").set("EXPIRES", 600).users(&["bob"]).succeed();
    let mut rows = Vec::new();
    eventually("the registration is captured", Duration::from_secs(20), || {
        rows = homer.captured();
        rows.len() >= 4
    });
    assert_eq!(captured(&rows, &server.address(), &format!("127.0.0.1:{registrant}")), logged(&registered));
    assert!(rows.iter().all(|r| (r.transport, r.family) == (Some("tcp"), 2)), "{rows:?}");
}
