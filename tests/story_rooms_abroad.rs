//! Chat rooms with users of another domain, whose proxy is Kamailio: they are asked in, call in, are heard and judged, and leave.

mod harness;

use std::time::Duration;

use harness::chat::{Awaited, Participant, factory, with_list};
use harness::clamd::{Clamd, eicar};
use harness::dns::{NameServer, Record};
use harness::msrp::dissected;
use harness::presence::hears;
use harness::{DOMAIN, Peer, Ports, Process, Server, Setup, Sipp, kamailio};

const NEIGHBOUR: &str = "neighbour.test";
const CAROL: [&str; 2] = ["carol", NEIGHBOUR];
const CAROLS: &str = "sip:carol@neighbour.test";

struct Town {
    server: Server,
    proxy: u16,
    // Held for their Drop.
    _names: NameServer,
    _ports: Ports,
    _clamd: Clamd,
    _kamailio: Process,
    _dir: tempfile::TempDir,
}

fn town() -> Town {
    let dir = tempfile::tempdir().unwrap();
    let ports = Ports::claim();
    let (dns, proxy, dead, scanner) = (ports.next(), ports.next(), ports.next(), ports.next());
    // Nobody listens at the first host.
    let table = vec![
        Record::Naptr(NEIGHBOUR, 10, 10, "SIP+D2U", "_sip._udp.neighbour.test"),
        Record::Srv("_sip._udp.neighbour.test", 1, 0, dead, "proxy.neighbour.test"),
        Record::Srv("_sip._udp.neighbour.test", 10, 0, proxy, "proxy.neighbour.test"),
        Record::A("proxy.neighbour.test", [127, 0, 0, 1].into()),
    ];
    let names = NameServer::start(dns, table);
    let clamd = Clamd::start(dir.path(), scanner, &eicar());
    let mut setup = Setup::with_users(&["alice", "bob"]).with_msrp();
    setup.sip = format!("resolver = \"127.0.0.1:{dns}\"\n");
    setup.sections = format!("[content]\nclamd = \"{}\"\n", clamd.address);
    let server = setup.start();
    let kamailio = kamailio::neighbour(server.path(), NEIGHBOUR, proxy, &server.address());
    Town { server, proxy, _names: names, _ports: ports, _clamd: clamd, _kamailio: kamailio, _dir: dir }
}

/// The answer to a bare request of carol's.
fn asks(server: &Server, method: &str, room: &str, call_id: &str, more: &str) -> String {
    let phone = Peer::new(server.ports.next());
    let request = String::from_utf8(phone.request(method, room, ["carol", "x"], call_id, more, "")).unwrap();
    phone.send(server.sip, request.replace(&format!("sip:carol@{DOMAIN}"), CAROLS).as_bytes());
    phone.receive_with(call_id, Duration::from_secs(10)).expect("an answer")
}

/// Alice has a room ask `whom` in, or out.
fn refer(server: &Server, room: &str, whom: &str) {
    let sipp = Sipp::new(server, "refer", server.ports.next()).set("URI", room).set("WHOM", whom);
    sipp.set("FINAL", "200 OK").users(&["alice"]).succeed();
}

#[test]
fn a_user_of_another_domain_is_asked_in_and_judged_before_anybody_hears() {
    let town = town();
    let server = &town.server;
    let mut alice = Participant::joins(server, "alice", &factory(), "alice@abroad");
    let room = alice.room.clone();
    let mut bob = Participant::joins(server, "bob", &room, "bob@abroad");
    let refused = asks(server, "INVITE", &room, "un1nv1ted", "");
    assert!(refused.starts_with("SIP/2.0 403"), "{refused}");
    let carol = Awaited::stranger(server, town.proxy, CAROL);
    refer(server, &room, CAROLS);
    let mut carol = carol.comes();
    assert_eq!(alice.says("he11o000", "hello all"), 200);
    for phone in [&mut bob, &mut carol] {
        assert!(phone.hears().ends_with("hello all"));
    }
    // To everybody, and to one.
    let virus = String::from_utf8(eicar()).unwrap();
    let (from, to) = (carol.uri(), bob.uri());
    assert_eq!((carol.says("v1ru5000", &virus), carol.says_as("v1ru5001", &from, &to, &virus)), (403, 403));
    assert_eq!(carol.says("fine0000", "good day"), 200);
    for phone in [&mut alice, &mut bob] {
        let heard = phone.hears();
        assert!(heard.contains(&format!("From: <{CAROLS}>")) && heard.ends_with("good day"), "{heard}");
    }
    assert_eq!(server.metric("isthmus_content_withheld_total{service=\"session\"}"), 2.0);
    // Once asked, she calls with another device herself, and hangs up.
    let mut tablet = Participant::stranger(server, town.proxy, CAROL, &room, "carol@tablet");
    assert_eq!((tablet.nickname("n1ck0000", "Kate"), tablet.says("tab1et00", "from the sofa")), (200, 200));
    for phone in [&mut alice, &mut bob, &mut carol] {
        assert!(phone.hears().ends_with("from the sofa"));
    }
    tablet.hangs_up();
    // She may ask in users of ours, and nobody whom she could call herself.
    for (whom, status) in [("sip:dave@third.test", "403"), (&format!("sip:alice@{DOMAIN};method=BYE"), "403")] {
        let refer = format!("Refer-To: <{whom}>\r\n");
        let answer = asks(server, "REFER", &room, &format!("r{}", whom.len()), &refer);
        assert!(answer.starts_with(&format!("SIP/2.0 {status}")), "{answer}");
    }
    // Out again, and not back unasked.
    refer(server, &room, &format!("{CAROLS};method=BYE"));
    for phone in [&alice, &bob, &carol] {
        dissected(server.path(), &phone.msrp);
    }
    carol.hung_up_on();
    let refused = asks(server, "INVITE", &room, "n0tback", "");
    assert!(refused.starts_with("SIP/2.0 403"), "{refused}");
    alice.hangs_up();
    bob.hangs_up();
}

#[test]
fn a_user_of_another_domain_is_on_the_list_of_a_room_and_hears_who_is_there() {
    let town = town();
    let server = &town.server;
    let carol = Awaited::stranger(server, town.proxy, CAROL);
    let alice = Participant::joins_with(server, "alice", &factory(), "alice@guests", |sipp| with_list(sipp, &[CAROLS]));
    let carol = carol.comes();
    let watch = Sipp::new(server, "watch_open", server.ports.next()).set("URI", &alice.room).set("DOMAIN", NEIGHBOUR);
    let watch = watch.set("EVENT", "conference").set("ACCEPT", "application/conference-info+xml");
    let watch = watch.users(&["carol"]).start();
    let entity = |uri: &str| format!("entity=\"{uri}\" state=\"full\"");
    let (alices, carols) = (entity(&alice.uri()), entity(CAROLS));
    hears(&watch, "of both", |m| m.contains(&alices) && m.contains(&carols));
    refer(server, &alice.room, &format!("{CAROLS};method=BYE"));
    carol.hung_up_on();
    let gone = format!("entity=\"{CAROLS}\" state=\"deleted\"");
    hears(&watch, "that she is gone", |m| m.contains(&gone));
    alice.hangs_up();
}

#[test]
fn an_operator_says_which_strangers_come_in() {
    let started = |strangers: &str| {
        let mut setup = Setup::with_users(&["alice"]).with_msrp();
        setup.sections = format!("[conference]\nstrangers = \"{strangers}\"\n");
        setup.start()
    };
    let server = started("anybody");
    let mut alice = Participant::joins(&server, "alice", &factory(), "alice@open");
    let mut carol = Participant::stranger(&server, server.sip, CAROL, &alice.room, "carol@open");
    assert_eq!(alice.says("we1c0me0", "welcome, whoever you are"), 200);
    assert!(carol.hears().ends_with("welcome, whoever you are"));
    carol.hangs_up();
    alice.hangs_up();
    // To open one is not for them even so.
    assert!(asks(&server, "INVITE", &factory(), "0pens", "").starts_with("SIP/2.0 403"));
    let server = started("nobody");
    let alice = Participant::joins(&server, "alice", &factory(), "alice@home");
    let refused = Sipp::new(&server, "refer_refused", server.ports.next()).set("URI", &alice.room).set("CODE", 403);
    refused.set("WHOM", CAROLS).users(&["alice"]).succeed();
    alice.hangs_up();
}
