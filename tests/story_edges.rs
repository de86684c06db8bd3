//! A phone behind two edge proxies of another make (RFC 5626, Path RFC 3327): its calls come over one flow, and over the other
//! when that edge or that flow is gone.

mod harness;

use std::time::Duration;

use harness::{DOMAIN, Outcome, Phone, Process, Server, Setup, Sipp, eventually, header, kamailio, raw};

/// The server, and two edges in front of it.
struct House {
    edges: [(Process, u16); 2],
    server: Server,
    /// Where alice's phone is.
    phone: u16,
}

fn house() -> House {
    let server = Setup::with_users(&["alice", "bob"]).start();
    let phone = server.ports.next();
    let edge = || {
        let port = server.ports.next();
        (kamailio::edge(server.path(), port, &server.address()), port)
    };
    House { edges: [edge(), edge()], phone, server }
}

impl House {
    /// Alice's phone registers by an edge as its flow `reg_id`; the 200.
    fn registers(&self, edge: usize, reg_id: u32, transport: &str) -> String {
        let lines = [
            "Supported: path, outbound".to_owned(),
            format!(
                "Contact: <sip:alice@127.0.0.1:{}{transport}>;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\";reg-id={reg_id}",
                self.phone
            ),
            "Expires: 600".to_owned(),
        ];
        let phone = Sipp::new(&self.server, "register_with", self.phone).towards(self.edges[edge].1);
        let phone = if transport.is_empty() { phone } else { phone.tcp() };
        let done = phone.set("LINES", lines.join("\n")).set("CODE", 200).users(&["alice"]).succeed();
        done.received().last().copied().expect("an answer").to_owned()
    }

    /// Bob calls alice; the INVITEs that her phone saw. It must be one call.
    fn is_called(&self) -> Outcome {
        let phone = Sipp::new(&self.server, "answer", self.phone).start();
        let call = Sipp::new(&self.server, "call", self.server.ports.next()).set("URI", format!("sip:alice@{DOMAIN}"));
        call.users(&["bob"]).limit(Duration::from_secs(90)).succeed();
        phone.succeed(1)
    }

    /// By which edge an INVITE came.
    fn came_by(&self, seen: &Outcome) -> usize {
        let invites: Vec<&str> = seen.received().into_iter().filter(|m| m.starts_with("INVITE")).collect();
        assert_eq!(invites.len(), 1, "one instance, one fork: {invites:?}");
        let via = header(invites[0], "Via").expect("a Via");
        let port = |edge: &(Process, u16)| via.contains(&format!(":{}", edge.1));
        self.edges.iter().position(port).unwrap_or_else(|| panic!("by neither edge: {via}"))
    }
}

#[test]
fn call_comes_over_the_other_flow_when_an_edge_dies() {
    let mut house = house();
    let first = house.registers(0, 1, "");
    assert!(header(&first, "Require").is_some_and(|v| v.contains("outbound")), "{first}");
    let path = header(&first, "Path").unwrap_or_default().to_owned();
    assert!(path.contains(&format!("127.0.0.1:{}", house.edges[0].1)) && path.contains(";ob"), "{first}");
    let second = house.registers(1, 2, "");
    assert_eq!(second.matches("Contact:").count(), 2, "two bindings of one instance: {second}");

    let before = house.came_by(&house.is_called());
    house.edges[before].0.kill();
    let after = house.came_by(&house.is_called());
    assert_ne!(after, before);
    // And it goes on so.
    assert_eq!(house.came_by(&house.is_called()), after);
}

#[test]
fn call_comes_over_the_other_flow_when_an_edge_says_that_the_first_is_broken() {
    let house = house();
    // SIPp's connection closes with its end, and its flow with it.
    house.registers(0, 1, ";transport=tcp");
    let second = house.registers(1, 2, "");
    assert_eq!(second.matches("Contact:").count(), 2, "{second}");
    for _ in 0..2 {
        assert_eq!(house.came_by(&house.is_called()), 1);
    }
}

#[test]
fn baresip_with_two_flows_is_called_once_and_reached_when_an_edge_dies() {
    let mut house = house();
    let ports = [house.edges[0].1, house.edges[1].1];
    let mut alice = Phone::behind_edges(&house.server, "alice", 440, ports);
    eventually("both flows", Duration::from_secs(30), || house.server.metric("isthmus_bindings") == 2.0);
    assert_eq!(house.server.metric("isthmus_registered_users"), 1.0);
    let mut calls = |house: &House| {
        let call =
            Sipp::new(&house.server, "call", house.server.ports.next()).set("URI", format!("sip:alice@{DOMAIN}"));
        let call = call.users(&["bob"]).limit(Duration::from_secs(90)).start();
        // A dead edge may stay silent until timer B.
        alice.wait_event_within("CALL_INCOMING", Duration::from_secs(70));
        alice.command("accept", "");
        alice.wait_event("CALL_ESTABLISHED");
        let done = call.succeed(1);
        alice.wait_event("CALL_CLOSED");
        let answer = done.received().into_iter().rfind(|m| m.starts_with("SIP/2.0 200") && m.contains("INVITE"));
        let route = header(answer.expect("an answer"), "Record-Route").expect("the edge is in the way").to_owned();
        ports
            .iter()
            .position(|p| route.contains(&format!(":{p}")))
            .unwrap_or_else(|| panic!("by neither edge: {route}"))
    };
    let before = calls(&house);
    house.edges[before].0.kill();
    assert_ne!(calls(&house), before);
    let rung = alice.process.output().matches("Incoming call from").count();
    assert_eq!(rung, 2, "a call rings once, however many flows there are");
}

#[test]
fn phone_that_refuses_is_not_asked_again_over_its_other_flow() {
    let house = house();
    house.registers(0, 1, "");
    house.registers(1, 2, "");
    // Ready for more calls than there may be.
    let phone = Sipp::new(&house.server, "refuse", house.phone).set("CODE", 486).calls(3).start();
    let call = Sipp::new(&house.server, "call_final", house.server.ports.next()).set("CODE", 486);
    call.set("URI", format!("sip:alice@{DOMAIN}")).users(&["bob"]).succeed();
    let log = std::fs::read_to_string(phone.base.with_extension("msg")).expect("SIPp's log");
    let invites: std::collections::HashSet<&str> =
        log.split("INVITE sip:").skip(1).filter_map(|m| header(m, "Via")).collect();
    assert_eq!(invites.len(), 1, "RFC 5626 section 7: {log}");
}

#[test]
fn phone_that_registers_the_same_flow_again_moves_it() {
    let house = house();
    house.registers(0, 1, "");
    let moved = house.registers(1, 1, "");
    assert_eq!(moved.matches("Contact:").count(), 1, "{moved}");
    assert_eq!(house.came_by(&house.is_called()), 1);
}

#[test]
fn service_route_leads_the_phones_own_calls_through_edge_and_server() {
    let house = house();
    let accepted = house.registers(0, 1, "");
    let route = header(&accepted, "Service-Route").expect("behind an edge the way is told").to_owned();
    assert!(route.contains(&house.server.address()) && route.contains(";lr"), "{accepted}");
    let bob = house.server.ports.next();
    let register = Sipp::new(&house.server, "register", bob).set("CONTACT", format!("127.0.0.1:{bob}"));
    let direct = register.set("PARAMS", "").set("EXPIRES", 600).users(&["bob"]).succeed();
    let direct = direct.received().last().copied().unwrap().to_owned();
    assert!(header(&direct, "Service-Route").is_none(), "a phone next to the server needs none: {direct}");

    let answering = Sipp::new(&house.server, "answer", bob).start();
    let call = Sipp::new(&house.server, "call_routed", house.phone).towards(house.edges[0].1);
    let routes = format!("Route: <sip:127.0.0.1:{};lr>, {route}", house.edges[0].1);
    call.set("URI", format!("sip:bob@{DOMAIN}")).set("ROUTES", routes).users(&["alice"]).succeed();
    let seen = answering.succeed(1);
    let invite = seen.received().into_iter().find(|m| m.starts_with("INVITE")).expect("an INVITE").to_owned();
    assert!(header(&invite, "Route").is_none(), "{invite}");
    assert_eq!(invite.matches("Via:").count(), 3, "phone, edge, server: {invite}");
}

#[test]
fn phone_that_knows_no_path_is_told_so() {
    let house = house();
    let phone = Sipp::new(&house.server, "register_with", house.phone).towards(house.edges[0].1);
    let lines = format!("Contact: <sip:alice@127.0.0.1:{}>\nExpires: 600", house.phone);
    let refused = phone.set("LINES", lines).set("CODE", 420).users(&["alice"]).succeed();
    let last = refused.received().last().copied().unwrap().to_owned();
    assert_eq!((raw::status(&last), header(&last, "Unsupported")), (Some(420), Some("path")), "{last}");
    eventually("nothing is bound", Duration::from_secs(20), || house.server.metric("isthmus_bindings") == 0.0);
}

#[test]
fn server_open_on_every_address_is_found_at_the_one_that_it_advertises() {
    let mut server = Setup::with_users(&["alice", "bob"]).start();
    let sip = server.sip;
    server.rewrite_config(|text| {
        let open = text.replace(&format!("udp = [\"127.0.0.1:{sip}\"]"), &format!("udp = [\"0.0.0.0:{sip}\"]"));
        open.replace("[sip]\n", "[sip]\nadvertised = [\"127.0.0.7\"]\n")
    });
    server.restart();
    let (edge, phone) = (server.ports.next(), server.ports.next());
    let _edge = kamailio::edge(server.path(), edge, &server.address());
    let bob = Sipp::new(&server, "answer", phone).start();
    let register = Sipp::new(&server, "register", server.ports.next()).set("CONTACT", format!("127.0.0.1:{phone}"));
    register.set("PARAMS", "").set("EXPIRES", 600).users(&["bob"]).succeed();
    // ACK and BYE come by the edge, which goes where our Record-Route says.
    let call = Sipp::new(&server, "call", server.ports.next()).towards(edge).set("URI", format!("sip:bob@{DOMAIN}"));
    let seen = call.users(&["alice"]).succeed();
    let ours = format!("sip:127.0.0.7:{sip};lr");
    let answered = seen.received().into_iter().find(|m| m.starts_with("SIP/2.0 200")).unwrap();
    assert!(answered.contains(&ours), "{answered}");
    let seen = bob.succeed(1);
    let vias = seen.received().into_iter().map(|m| header(m, "Via").unwrap().to_owned()).collect::<Vec<_>>();
    assert!(vias.iter().all(|v| v.starts_with(&format!("SIP/2.0/UDP 127.0.0.7:{sip};"))), "{vias:?}");
}
