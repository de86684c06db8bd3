//! What passes through the proxy inside dialogs: reliable ringing, UPDATE, session timers, REFER, subscriptions. SIPp is on both
//! ends; every request of a dialog must have come by us.

mod harness;

use std::time::Duration;

use harness::{DOMAIN, Peer, Server, Setup, Sipp, bind, eventually, header, sipp::Outcome};

fn started() -> Server {
    Setup::with_users(&["alice", "bob"]).start()
}

/// Runs `asks` for alice against `answers` at bob's phone; both must see what their scenarios say.
fn between(server: &Server, asks: &'static str, answers: &'static str, tcp: bool) -> [Outcome; 2] {
    let phone = server.ports.next();
    let other = Sipp::new(server, answers, phone).start();
    bind(server, "bob", phone, "");
    let one = Sipp::new(server, asks, server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"]);
    let one = if tcp { one.tcp() } else { one }.succeed();
    [one, other.succeed(1)]
}

/// The methods of the requests that came, each of which must have passed through us: our Via on top, one hop used up, our
/// Route taken off.
fn through(server: &Server, seen: &Outcome) -> Vec<String> {
    let requests = seen.received().into_iter().filter(|m| !m.starts_with("SIP/2.0"));
    requests
        .map(|m| {
            let method = m.split(' ').next().unwrap_or_default();
            assert!(header(m, "Via").is_some_and(|v| v.contains(&format!(" {};", server.address()))), "{m}");
            assert_eq!(header(m, "Max-Forwards"), Some(if hop_by_hop(m) { "70" } else { "69" }), "{m}");
            assert_eq!(header(m, "Route"), None, "{m}");
            method.to_owned()
        })
        .collect()
}

/// An ACK of ours for a final response other than 2xx.
fn hop_by_hop(message: &str) -> bool {
    message.starts_with("ACK ") && message.matches("Via:").count() == 1
}

#[test]
fn prack_update_and_session_timer_pass_both_ways() {
    let server = started();
    let [caller, callee] = between(&server, "dialog_caller", "dialog_callee", false);
    assert_eq!(through(&server, &caller), ["UPDATE", "INVITE", "ACK", "BYE"]);
    assert_eq!(through(&server, &callee), ["INVITE", "ACK", "INVITE", "PRACK", "UPDATE", "ACK", "UPDATE"]);
}

#[test]
fn dialog_between_tcp_and_udp_finds_its_way_both_ways() {
    let server = started();
    let [caller, callee] = between(&server, "dialog_caller", "dialog_callee", true);
    assert_eq!(through(&server, &caller), ["UPDATE", "INVITE", "ACK", "BYE"]);
    assert_eq!(through(&server, &callee), ["INVITE", "ACK", "INVITE", "PRACK", "UPDATE", "ACK", "UPDATE"]);
}

#[test]
fn transfer_inside_a_call_is_reported_by_notify() {
    let server = started();
    let [caller, callee] = between(&server, "transferred", "transferor", false);
    assert_eq!(through(&server, &caller), ["REFER", "BYE"]);
    assert_eq!(through(&server, &callee), ["INVITE", "ACK", "NOTIFY", "NOTIFY"]);
}

#[test]
fn refer_outside_a_call_makes_its_own_dialog() {
    for tcp in [false, true] {
        let server = started();
        let [asking, asked] = between(&server, "refer", "referred", tcp);
        assert_eq!(through(&server, &asking), ["NOTIFY", "NOTIFY"]);
        assert_eq!(through(&server, &asked), ["REFER"]);
    }
}

#[test]
fn subscription_to_a_phone_is_made_refreshed_and_ended() {
    for tcp in [false, true] {
        let server = started();
        let [watcher, watched] = between(&server, "subscribe", "notify", tcp);
        assert_eq!(through(&server, &watcher), ["NOTIFY", "NOTIFY", "NOTIFY"]);
        assert_eq!(through(&server, &watched), ["SUBSCRIBE", "SUBSCRIBE", "SUBSCRIBE"]);
    }
}

#[test]
fn strict_router_on_the_way_is_spoken_to_in_its_manner_and_understood() {
    let server = started();
    let (strict, port) = (server.ports.next(), server.ports.next());
    let uri = "sip:carol@elsewhere.test";
    let router = Sipp::new(&server, "strict_router", strict).set("STRICT", strict).set("URI", uri).start();
    let caller = Sipp::new(&server, "call_by_strict_router", port).set("STRICT", strict).set("PORT", port);
    let caller = caller.set("PROXY", server.address()).set("URI", uri).users(&["alice"]).succeed();
    router.succeed(1);
    assert_eq!(through(&server, &caller), ["BYE"]);
}

#[test]
fn call_outlives_the_server_that_set_it_up() {
    let mut server = started();
    let phone = server.ports.next();
    let callee = Sipp::new(&server, "answer", phone).start();
    bind(&server, "bob", phone, "");
    let port = server.ports.next();
    let caller = Sipp::new(&server, "session", port).set("URI", format!("sip:bob@{DOMAIN}"));
    let caller = caller.set("MEDIA", "m=audio 6000 RTP/AVP 0").options(&["-cid_str", "outlives"]).users(&["alice"]);
    let caller = caller.start();
    let log = callee.base.with_extension("msg");
    let acknowledged = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ACK sip:"));
    eventually("the call is set up", Duration::from_secs(30), acknowledged);
    // kill -9: no dialog is known to the next process, and nobody has to prove who hangs up.
    server.restart();
    let peer = Peer::new(0);
    peer.send(port, &peer.request("INFO", "sip:x", ["bob", "alice"], "outlives", "", ""));
    let seen = caller.succeed(1);
    assert!(seen.received().last().is_some_and(|m| m.starts_with("SIP/2.0 200")), "{:?}", seen.received());
    assert_eq!(through(&server, &callee.succeed(1)), ["INVITE", "ACK", "BYE"]);
}
