//! Requests that another node of the cluster answers.

use std::sync::OnceLock;

use sip_ims::service::Elsewhere;

use super::*;

const OTHER: &str = "10.0.0.9:5060";

/// The other node, which takes SIP over TCP.
struct Other;

impl Nodes for Other {
    fn own(&self) -> &str {
        "here"
    }
    fn at(&self, _: &str) -> Option<Hop> {
        Some(Hop::Address { transport: Transport::Tcp, remote: OTHER.parse().unwrap() })
    }
    fn has(&self, address: SocketAddr) -> bool {
        address == OTHER.parse().unwrap()
    }
    fn is_dead(&self, _: &str) -> bool {
        false
    }
    fn way(&self, _: &Elsewhere, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }
}

/// Has the other node answer what is for a room, or answers it.
#[derive(Default)]
struct Rooms {
    here: bool,
    seen: OnceLock<(Aor, Caller)>,
}

impl Service for Rooms {
    fn name(&self) -> &'static str {
        "rooms"
    }
    fn request(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        let Some(room) = request.callee.clone().filter(|aor| aor.user() == "room") else { return Verdict::Pass };
        if !self.here {
            return Other.at("").map_or(Verdict::Pass, Verdict::HandOver);
        }
        let _ = self.seen.set((room, request.caller.clone()));
        step.reply(request.flow, request.message, 200, None, |_| {});
        Verdict::Taken
    }
}

fn node(at: &str, here: bool) -> (Bench, Arc<Rooms>) {
    let mut b = bench(world(&[]), vec![user("alice", CallSettings::default())]);
    let rooms = Arc::new(Rooms { here, ..Rooms::default() });
    let parts = Arc::get_mut(&mut b.proxy.parts).unwrap();
    parts.home = Arc::new(Home::new("home.test", [Transport::Udp, Transport::Tcp].map(|t| (t, at.parse().unwrap()))));
    parts.services.push(rooms.clone());
    parts.nodes = Some(Arc::new(Other));
    parts.record_route = false;
    (b, rooms)
}

#[test]
fn another_node_answers_and_believes_who_calls() {
    for (from, uri, known) in [
        ("alice@home.test", "sip:room@home.test", true),
        ("alice@home.test", "sip:room@10.0.0.9:5060", true),
        ("mallory@two.test", "sip:room@home.test", false),
    ] {
        let (mut here, _) = node("10.0.0.1:5060", false);
        let forged = "P-Asserted-Identity: <sip:boss@home.test>\n";
        let invite = request("INVITE", uri, forged).replace("alice@home.test", from);
        let sent = here.feed(&invite);
        let (to, text) = &sent[1];
        assert_eq!(to, OTHER);
        assert!(text.contains("\r\nRoute: <sip:n") && !text.contains("boss"), "{text}");
        assert!(text.contains("\r\nRecord-Route: <sip:10.0.0.1:5060;transport=tcp;lr;is="), "{text}");
        let (mut there, rooms) = node(OTHER, true);
        there.take(there.flow, text.as_bytes());
        let answered = there.drain();
        assert!(answered[0].1.starts_with("SIP/2.0 200"), "{answered:?}");
        let (room, caller) = rooms.seen.get().unwrap();
        assert_eq!((room.as_str(), matches!(caller, Caller::Trusted)), ("room@home.test", known), "{caller:?}");
    }
}

#[test]
fn nobody_else_is_taken_for_a_node_and_nothing_goes_round() {
    let (mut here, _) = node("10.0.0.1:5060", false);
    let sent = here.feed(&request("INVITE", "sip:room@home.test", ""));
    // The same Route in another call: a stranger, who is asked nothing in an open net and vouched for by nobody.
    let copied = sent[1].1.replace("Call-ID: c1", "Call-ID: c2").replace("alice@home.test", "mallory@two.test");
    let (mut there, rooms) = node(OTHER, true);
    there.take(there.flow, copied.as_bytes());
    let caller = rooms.seen.get().map(|seen| seen.1.clone());
    assert!(!matches!(caller, Some(Caller::Trusted)), "{caller:?}");
    // A node that has it no more does not pass it on.
    let (mut there, _) = node(OTHER, false);
    there.take(there.flow, sent[1].1.as_bytes());
    let answered = there.drain();
    assert!(answered.len() == 1 && answered[0].1.starts_with("SIP/2.0 480"), "{answered:?}");
}
