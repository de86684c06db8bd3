//! A neighbouring proxy of another make, found by its domain's name: calls both ways, and the next host when one is down.

mod harness;

use std::time::Duration;

use harness::dns::{NameServer, Record};
use harness::{DOMAIN, Ports, Process, Server, Setup, Sipp, kamailio};

const NEIGHBOUR: &str = "neighbour.test";

struct Town {
    server: Server,
    // Held for their Drop.
    _names: NameServer,
    _ports: Ports,
    kamailio: (Process, u16),
}

fn town(table: impl FnOnce(u16, u16) -> Vec<Record>) -> Town {
    let ports = Ports::claim();
    let (dns, proxy, dead) = (ports.next(), ports.next(), ports.next());
    let names = NameServer::start(dns, table(proxy, dead));
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.sip = format!("resolver = \"127.0.0.1:{dns}\"\n");
    let server = setup.start();
    let process = kamailio::neighbour(server.path(), NEIGHBOUR, proxy, &server.address());
    Town { server, _names: names, _ports: ports, kamailio: (process, proxy) }
}

fn by_srv(proxy: u16, _dead: u16) -> Vec<Record> {
    vec![
        Record::Naptr(NEIGHBOUR, 10, 10, "SIP+D2U", "_sip._udp.neighbour.test"),
        Record::Srv("_sip._udp.neighbour.test", 10, 0, proxy, "proxy.neighbour.test"),
        Record::A("proxy.neighbour.test", [127, 0, 0, 1].into()),
    ]
}

fn with_a_dead_first_host(proxy: u16, dead: u16) -> Vec<Record> {
    let mut table = by_srv(proxy, dead);
    table.push(Record::Srv("_sip._udp.neighbour.test", 1, 0, dead, "proxy.neighbour.test"));
    table
}

impl Town {
    /// A phone of the neighbour's user carol.
    fn carol_answers(&self) -> harness::sipp::Running {
        let port = self.server.ports.next();
        let phone = Sipp::new(&self.server, "answer", port).start();
        let registering = Sipp::new(&self.server, "register_open", self.server.ports.next()).towards(self.kamailio.1);
        let registering = registering.set("DOMAIN", NEIGHBOUR).set("CONTACT", format!("127.0.0.1:{port}"));
        registering.set("PARAMS", "").set("EXPIRES", 600).users(&["carol"]).succeed();
        phone
    }

    /// Long before timer B (32 s) gives a silent host up.
    fn alice_calls_carol(&self) {
        let call = Sipp::new(&self.server, "call", self.server.ports.next());
        call.set("URI", format!("sip:carol@{NEIGHBOUR}")).limit(Duration::from_secs(25)).users(&["alice"]).succeed();
    }
}

#[test]
fn call_to_another_domain_finds_its_proxy_by_srv() {
    let town = town(by_srv);
    let carol = town.carol_answers();
    town.alice_calls_carol();
    let seen = carol.succeed(1);
    assert!(
        seen.received()[0].matches("Record-Route:").count() >= 2,
        "both proxies stay on the path: {}",
        seen.received()[0]
    );
}

#[test]
fn call_goes_to_the_next_host_at_once_when_nobody_listens_on_the_first() {
    let town = town(with_a_dead_first_host);
    let carol = town.carol_answers();
    town.alice_calls_carol();
    carol.succeed(1);
    // The system of the first host said so (ICMP), of the INVITE alone: what belongs to the dialog went to the second.
    assert_eq!(town.server.carrier_event("returned"), 1.0);
}

#[test]
fn call_from_another_domain_reaches_our_user() {
    let town = town(by_srv);
    let port = town.server.ports.next();
    let bob = Sipp::new(&town.server, "answer", port).start();
    let registering =
        Sipp::new(&town.server, "register", town.server.ports.next()).set("CONTACT", format!("127.0.0.1:{port}"));
    registering.set("PARAMS", "").set("EXPIRES", 600).users(&["bob"]).succeed();
    let call = Sipp::new(&town.server, "call_open", town.server.ports.next())
        .towards(town.kamailio.1)
        .set("DOMAIN", NEIGHBOUR);
    call.set("URI", format!("sip:bob@{DOMAIN}")).users(&["carol"]).succeed();
    bob.succeed(1);
}

#[test]
fn domain_that_nobody_knows_ends_the_call() {
    let town = town(by_srv);
    let call =
        Sipp::new(&town.server, "call_final", town.server.ports.next()).set("URI", "sip:x@nowhere.test".to_owned());
    let outcome = call.set("CODE", 503).users(&["alice"]).run();
    let last = outcome.received().last().copied().unwrap_or_default().to_owned();
    // RFC 3263 leaves the status open; it must be a final refusal and must come at once, not by time-out.
    let refused = ["SIP/2.0 404", "SIP/2.0 480", "SIP/2.0 502", "SIP/2.0 503", "SIP/2.0 604"];
    assert!(refused.iter().any(|s| last.starts_with(s)), "{last}");
}
