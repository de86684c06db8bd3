//! A list with members of another domain, whose presence server is Kamailio: they are watched there, in the name of the list's owner.

mod harness;

use harness::dns::{NameServer, Record};
use harness::presence::{SOON, basic, document, hears, notifies, store};
use harness::sipp::Running;
use harness::{DOMAIN, Ports, Process, Server, Setup, Sipp, eventually, header, kamailio};

const ELSEWHERE: &str = "elsewhere.test";

struct Town {
    server: Server,
    elsewhere: u16,
    // Held for their Drop.
    _names: NameServer,
    _ports: Ports,
    kamailio: Process,
}

fn town() -> Town {
    let ports = Ports::claim();
    let (dns, elsewhere) = (ports.next(), ports.next());
    let table = vec![
        Record::Naptr(ELSEWHERE, 10, 10, "SIP+D2U", "_sip._udp.elsewhere.test"),
        Record::Srv("_sip._udp.elsewhere.test", 10, 0, elsewhere, "proxy.elsewhere.test"),
        Record::A("proxy.elsewhere.test", [127, 0, 0, 1].into()),
    ];
    let names = NameServer::start(dns, table);
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.sip = format!("resolver = \"127.0.0.1:{dns}\"\n");
    setup.sections = "[presence]\nnotify_interval = 0\nmin_expires = 2\n".into();
    let server = setup.start();
    let process = kamailio::presence_server(server.path(), ELSEWHERE, elsewhere);
    Town { server, elsewhere, _names: names, _ports: ports, kamailio: process }
}

impl Town {
    /// Eve publishes at home; gives the tag.
    fn eve_publishes(&self, lines: &str, note: &str) -> String {
        let body = document("eve", "t", "open", &format!("<note>{note}</note>")).replace(DOMAIN, ELSEWHERE);
        let sipp = Sipp::new(&self.server, "publish_open", self.server.ports.next()).towards(self.elsewhere);
        let sipp = sipp.set("DOMAIN", ELSEWHERE).set("USER", "eve").set("LINES", format!("Expires: 600{lines}"));
        let outcome = sipp.set("BODY", body).succeed();
        header(outcome.received().last().unwrap(), "SIP-ETag").expect("an entity tag").to_owned()
    }

    fn alice_lists(&self, members: &[&str]) {
        let entries: String = members.iter().map(|m| format!("<rl:entry uri=\"sip:{m}\"/>")).collect();
        let text = format!(
            "<rls-services xmlns=\"urn:ietf:params:xml:ns:rls-services\" \
             xmlns:rl=\"urn:ietf:params:xml:ns:resource-lists\"><service uri=\"sip:alice-all@{DOMAIN}\">\
             <list>{entries}</list></service></rls-services>"
        );
        store(&self.server, "alice", "rls-services", &text);
    }

    fn alice_watches(&self) -> Running {
        let sipp = Sipp::new(&self.server, "watch", self.server.ports.next()).set("USER", "alice-all");
        let sipp = sipp.set("EVENT", "presence\nSupported: eventlist");
        let accept = "application/pidf+xml, application/rlmi+xml, multipart/related";
        sipp.set("ACCEPT", accept).users(&["alice"]).limit(SOON * 4).start()
    }

    fn watches_elsewhere(&self, n: f64) {
        eventually(&format!("{n} subscriptions elsewhere"), SOON, || {
            self.server.metric("isthmus_subscriptions_elsewhere") == n
        });
    }
}

#[test]
fn member_of_another_domain_is_watched_there() {
    let town = town();
    let tag = town.eve_publishes("", "one");
    let [bob, eve] = [format!("bob@{DOMAIN}"), format!("eve@{ELSEWHERE}")];
    town.alice_lists(&[&bob, &eve]);
    let alice = town.alice_watches();
    let seen = hears(&alice, "of eve", |m| m.contains("<note>one</note>"));
    let resource = |m: &str| m.split("<resource ").find(|r| r.contains("sip:eve@")).unwrap_or_default().to_owned();
    assert!(resource(&seen).contains("state=\"active\" cid="), "{seen}");
    // The other domain may have answered before the first of all.
    let first = header(&seen, "CSeq") == Some("1 NOTIFY");
    let everybody: &[&str] = if first { &["closed", "open"] } else { &["open"] };
    assert_eq!(basic(&seen), everybody, "she, and not bob again: {seen}");
    // What changes there is told here, and nothing else.
    town.eve_publishes(&format!("\nSIP-If-Match: {tag}"), "two");
    let seen = hears(&alice, "of her news", |m| m.contains("<note>two</note>"));
    assert!(seen.contains("fullState=\"false\"") && seen.matches("<resource uri=").count() == 1, "{seen}");
    town.watches_elsewhere(1.0);
    // Another watch of the list needs no subscription of its own.
    let again = town.alice_watches();
    let seen = hears(&again, "of her at once", |m| m.contains("<note>two</note>"));
    assert!(seen.contains("fullState=\"true\""), "{seen}");
    town.watches_elsewhere(1.0);
    // She is on no list any more.
    town.alice_lists(&[&bob]);
    hears(&alice, "the shorter list", |m| m.contains("fullState=\"true\"") && !m.contains("sip:eve@"));
    town.watches_elsewhere(0.0);
}

#[test]
fn list_goes_on_after_kill_9_and_knows_when_the_other_domain_is_away() {
    let mut town = town();
    town.eve_publishes("", "one");
    town.alice_lists(&[&format!("eve@{ELSEWHERE}")]);
    let alice = town.alice_watches();
    hears(&alice, "of eve", |m| m.contains("<note>one</note>"));
    town.server.restart();
    let number = |m: &str| header(m, "CSeq").and_then(|v| v.split(' ').next()?.parse::<u32>().ok());
    hears(&alice, "of eve, from another life", |m| m.contains("<note>one</note>") && number(m) > Some(100));
    town.kamailio.kill();
    town.server.restart();
    // At the latest with timer F, 32 s.
    eventually("alice hears that nobody knows of eve", SOON * 3, || {
        notifies(&alice).last().is_some_and(|m| m.contains("state=\"terminated\" reason=\"probation\""))
    });
}
