//! Calls through the proxy: answered, refused, given up, and spread over several phones.

mod harness;

use std::time::Duration;

use harness::{DOMAIN, Server, Setup, Sipp, bind, header, sipp::Outcome};

fn caller(server: &Server, scenario: &'static str) -> Sipp {
    Sipp::new(server, scenario, server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"])
}

fn started() -> Server {
    Setup::with_users(&["alice", "bob"]).start()
}

fn methods(outcome: &Outcome) -> Vec<String> {
    outcome.received().iter().map(|m| m.split(' ').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn call_is_answered_and_hung_up() {
    let server = started();
    let phone = server.ports.next();
    let callee = Sipp::new(&server, "answer", phone).start();
    bind(&server, "bob", phone, "");
    caller(&server, "call").succeed();
    let seen = callee.succeed(1);
    let invite = seen.received()[0];
    assert!(header(invite, "Record-Route").is_some_and(|r| r.contains(";lr")), "the proxy stays on the path: {invite}");
    assert_eq!(header(invite, "Max-Forwards"), Some("69"));
    assert!(header(invite, "Proxy-Authorization").is_none(), "credentials for this proxy end here: {invite}");
}

#[test]
fn call_over_tcp_is_answered_and_hung_up() {
    let server = started();
    let phone = server.ports.next();
    let callee = Sipp::new(&server, "answer", phone).start();
    bind(&server, "bob", phone, "");
    caller(&server, "call").tcp().succeed();
    callee.succeed(1);
}

#[test]
fn hundred_calls_at_once_all_succeed() {
    let server = started();
    let phone = server.ports.next();
    let callee = Sipp::new(&server, "answer", phone).calls(100).start();
    bind(&server, "bob", phone, "");
    caller(&server, "call").calls(100).rate(100).succeed();
    callee.succeed(100);
}

#[test]
fn unknown_user_gets_404() {
    let server = started();
    caller(&server, "call_final").set("URI", format!("sip:nobody@{DOMAIN}")).set("CODE", 404).succeed();
}

#[test]
fn user_without_phone_gets_480() {
    let server = started();
    caller(&server, "call_final").set("CODE", 480).succeed();
}

#[test]
fn busy_phone_is_reported_busy() {
    let server = started();
    let phone = server.ports.next();
    let callee = Sipp::new(&server, "refuse", phone).set("CODE", 486).start();
    bind(&server, "bob", phone, "");
    caller(&server, "call_final").set("CODE", 486).succeed();
    callee.succeed(1);
}

#[test]
fn caller_gives_up_while_it_rings_on_every_phone() {
    let server = started();
    let (first, second) = (server.ports.next(), server.ports.next());
    let phones = [first, second].map(|port| Sipp::new(&server, "ring", port).start());
    bind(&server, "bob", first, "");
    bind(&server, "bob", second, "");
    caller(&server, "call_cancelled").succeed();
    for phone in phones {
        let seen = phone.succeed(1);
        assert_eq!(methods(&seen), ["INVITE", "CANCEL", "ACK"]);
    }
}

#[test]
fn one_phone_answers_and_the_others_stop_ringing() {
    let server = started();
    let (quick, slow) = (server.ports.next(), server.ports.next());
    let answering = Sipp::new(&server, "answer", quick).start();
    let ringing = Sipp::new(&server, "ring", slow).start();
    bind(&server, "bob", slow, "");
    bind(&server, "bob", quick, "");
    caller(&server, "call").succeed();
    answering.succeed(1);
    assert_eq!(methods(&ringing.succeed(1)), ["INVITE", "CANCEL", "ACK"]);
}

#[test]
fn phone_with_lower_q_rings_only_after_the_better_one_refused() {
    let server = started();
    let (better, worse) = (server.ports.next(), server.ports.next());
    let refusing = Sipp::new(&server, "refuse", better).set("CODE", 486).start();
    let answering = Sipp::new(&server, "answer", worse).start();
    bind(&server, "bob", worse, ";q=0.2");
    bind(&server, "bob", better, ";q=0.9");
    caller(&server, "call").succeed();
    assert_eq!(methods(&refusing.succeed(1)), ["INVITE", "ACK"]);
    assert_eq!(methods(&answering.succeed(1)), ["INVITE", "ACK", "BYE"]);
}

#[test]
fn phone_with_lower_q_is_left_alone_when_the_better_one_answers() {
    let server = started();
    let (better, worse) = (server.ports.next(), server.ports.next());
    let answering = Sipp::new(&server, "answer", better).start();
    let idle = harness::Peer::new(worse);
    bind(&server, "bob", worse, ";q=0.2");
    bind(&server, "bob", better, ";q=0.9");
    caller(&server, "call").succeed();
    answering.succeed(1);
    assert_eq!(idle.receive(Duration::from_millis(300)), None);
}

#[test]
fn six_hundred_ends_the_search_on_every_phone() {
    let server = started();
    let (declining, ringing, later) = (server.ports.next(), server.ports.next(), server.ports.next());
    let other = Sipp::new(&server, "ring", ringing).start();
    let decline = Sipp::new(&server, "refuse", declining).set("CODE", 600).start();
    let never = harness::Peer::new(later);
    bind(&server, "bob", later, ";q=0.1");
    bind(&server, "bob", ringing, ";q=0.8");
    bind(&server, "bob", declining, ";q=0.8");
    caller(&server, "call_final").set("CODE", 600).succeed();
    decline.succeed(1);
    assert_eq!(methods(&other.succeed(1)), ["INVITE", "CANCEL", "ACK"]);
    assert_eq!(never.receive(Duration::from_millis(300)), None);
}

#[test]
fn best_of_several_refusals_is_reported() {
    let server = started();
    let (busy, absent) = (server.ports.next(), server.ports.next());
    let phones =
        [(busy, 486), (absent, 404)].map(|(port, code)| Sipp::new(&server, "refuse", port).set("CODE", code).start());
    bind(&server, "bob", busy, "");
    bind(&server, "bob", absent, "");
    // RFC 3261 section 16.7 step 6: any of the lowest class may be chosen, but one of these it must be.
    let outcome = caller(&server, "call_final").set("CODE", 486).run();
    let other = outcome.received().iter().any(|m| m.starts_with("SIP/2.0 404"));
    assert!(outcome.counts.ok == 1 || other, "{:?}", outcome.received());
    for phone in phones {
        phone.succeed(1);
    }
}

#[test]
fn phone_that_never_answers_ends_in_408() {
    let server = started();
    let phone = server.ports.next();
    // The phone's port is open but silent: timer B (32 s) ends the attempt.
    let silent = harness::Peer::new(phone);
    bind(&server, "bob", phone, "");
    caller(&server, "call_final").set("CODE", 408).limit(Duration::from_secs(60)).succeed();
    let first = silent.receive(Duration::from_secs(1)).expect("the phone was asked");
    assert!(first.starts_with(b"INVITE "));
}

/// The way by which bob's phone got its INVITE, from the Via that the server put on top.
fn way_of_a_long_call(server: &Server, phone: Sipp, port: u16) -> String {
    let callee = phone.start();
    bind(server, "bob", port, "");
    caller(server, "call").padded(1000).limit(Duration::from_secs(25)).succeed();
    let seen = callee.succeed(1);
    let invite = seen.received()[0].to_owned();
    assert!(invite.len() > 1300, "{} bytes", invite.len());
    header(&invite, "Via").and_then(|v| v.split(' ').next()).unwrap_or_default().to_owned()
}

#[test]
fn request_too_long_for_a_datagram_goes_over_tcp() {
    let server = started();
    let port = server.ports.next();
    let phone = Sipp::new(&server, "answer", port).tcp();
    assert_eq!(way_of_a_long_call(&server, phone, port), "SIP/2.0/TCP");
}

#[test]
fn long_request_goes_over_udp_all_the_same_where_nobody_takes_tcp() {
    let server = started();
    let port = server.ports.next();
    let phone = Sipp::new(&server, "answer", port);
    assert_eq!(way_of_a_long_call(&server, phone, port), "SIP/2.0/UDP");
}

#[test]
fn phone_whose_port_is_closed_is_reported_absent_at_once() {
    let server = started();
    bind(&server, "bob", server.ports.next(), "");
    // Timer B would take 32 s.
    caller(&server, "call_final").set("CODE", 480).limit(Duration::from_secs(25)).succeed();
    assert!(server.carrier_event("returned") >= 1.0);
    assert_eq!(server.metric("isthmus_bindings"), 1.0, "an ICMP error is no reason to forget a phone");
}
