//! Chat rooms at two servers on one PostgreSQL and one NATS: a room is with one of them, and its participants come in at either.

#[path = "harness/cluster.rs"]
mod cluster;
mod harness;
#[path = "harness/nats.rs"]
#[allow(dead_code)] // Shared: other tests use the rest of it.
mod nats;
#[path = "harness/postgres.rs"]
#[allow(dead_code)]
mod postgres;

use std::net::TcpListener;
use std::time::Duration;

use cluster::Cluster;
use harness::browser::{phone, websocket};
use harness::chat::{Awaited, Participant, factory, with_list};
use harness::msrp::{Stream, dissected};
use harness::msrp_ws::Browser;
use harness::presence::hears;
use harness::{DOMAIN, PASSWORD, Process, Server, Setup, Sipp, eventually};

/// A node is dead after 15 s.
const TAKEN_OVER: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(30);

fn started() -> Cluster {
    Cluster::start(|| Setup::with_users(&["alice", "bob", "carol"]).with_msrp())
}

/// A room's address as every node knows it.
fn public(room: &str) -> String {
    format!("{}@{DOMAIN}", room.split('@').next().unwrap())
}

/// Waits until `user` can call `room` at a node, as far as an INVITE without a session: 488.
fn opens(server: &Server, user: &str, room: &str) {
    let port = server.ports.next();
    eventually(&format!("{user} can come in"), TAKEN_OVER, || {
        let call = Sipp::new(server, "call_final", port).set("URI", room).set("CODE", 488);
        call.users(&[user]).run().counts.ok == 1
    });
}

fn rooms(server: &Server, what: &str) -> f64 {
    server.metric(&format!("isthmus_chat_rooms{{what=\"{what}\"}}"))
}

#[test]
fn participants_at_both_nodes_hear_each_other_and_join_again_when_the_focus_is_killed() {
    let Cluster { mut a, b, nats: mut bus, _postgres } = started();
    let [bobs, carols] = ["bob", "carol"].map(|user| format!("sip:{user}@{DOMAIN}"));
    // Carol's phone is asked in by the list: whoever opened a room stays who opened it, and who was asked stays asked.
    let carol = Awaited::user(&b, "carol");
    let mut alice =
        Participant::joins_with(&a, "alice", &factory(), "alice@a", |sipp| with_list(sipp, &[&bobs, &carols]));
    let room = public(&alice.room);
    let mut carol = carol.comes();
    // Bob comes in at the other node, by the address that alice was told and by the one that everybody knows.
    let mut bob = Participant::joins(&b, "bob", &alice.room, "bob@b");
    assert!(bob.to.contains(&format!(":{}/", a.msrp[0])), "messages go to the focus directly: {}", bob.to);
    let mut tablet = Participant::joins(&b, "bob", &room, "bob@tablet");
    assert_eq!((rooms(&a, "members"), rooms(&b, "members"), rooms(&b, "rooms")), (4.0, 0.0, 0.0));
    assert_eq!(bob.says("fr0mb000", "from b"), 200);
    for phone in [&mut alice, &mut carol, &mut tablet] {
        let heard = phone.hears();
        assert!(heard.contains(&format!("From: <{bobs}>")) && heard.ends_with("from b"), "{heard}");
    }
    assert_eq!(alice.says("fr0ma000", "from a"), 200);
    for phone in [&mut bob, &mut carol, &mut tablet] {
        assert!(phone.hears().ends_with("from a"));
    }
    for phone in [&alice, &bob, &carol] {
        dissected(a.path(), &phone.msrp);
    }
    // A BYE finds its way too.
    tablet.hangs_up();
    eventually("the tablet has left", SOON, || rooms(&a, "members") == 3.0);

    // Nobody needs a hint to find out that the focus is dead.
    bus.kill();
    a.process.kill();
    for phone in [&mut alice, &mut bob, &mut carol] {
        drop(phone.call.take());
    }
    opens(&b, "alice", &room);
    let mut alice = Participant::joins(&b, "alice", &room, "alice@b");
    let mut bob = Participant::joins(&b, "bob", &room, "bob@again");
    assert!(alice.to.contains(&format!(":{}/", b.msrp[0])), "{}", alice.to);
    assert_eq!(alice.says("ag41n000", "here we are again"), 200);
    assert!(bob.hears().ends_with("here we are again"));
    assert_eq!(b.metric("isthmus_chat_rooms_total{kind=\"taken_over\"}"), 1.0);
    // It is still by invitation, and still alice's.
    let refused = Sipp::new(&b, "refer_refused", b.ports.next()).set("URI", &room).set("CODE", 403);
    refused.set("WHOM", format!("{carols};method=BYE")).users(&["bob"]).succeed();
    let refer = Sipp::new(&b, "refer", b.ports.next()).set("URI", &room).set("FINAL", "200 OK");
    refer.set("WHOM", format!("{bobs};method=BYE")).users(&["alice"]).succeed();

    // The first node comes back: the room stays where it is, and is found from there.
    bus.restart();
    a.restart();
    let mut carol = Participant::joins(&a, "carol", &room, "carol@a");
    assert_eq!(alice.says("m0ved000", "over here"), 200);
    assert!(carol.hears().ends_with("over here"));
    assert_eq!((rooms(&a, "rooms"), rooms(&b, "members")), (0.0, 2.0));
    carol.hangs_up();
    alice.hangs_up();
}

#[test]
fn a_room_is_watched_and_others_are_asked_in_through_the_other_node() {
    let Cluster { a, b, nats: _nats, _postgres } = started();
    let alice = Participant::joins(&a, "alice", &factory(), "alice@watched");
    let room = public(&alice.room);
    let user = room.trim_start_matches("sip:").split('@').next().unwrap().to_owned();
    let watch = Sipp::new(&b, "watch", b.ports.next()).set("USER", user).set("EVENT", "conference");
    let watch = watch.set("ACCEPT", "application/conference-info+xml").users(&["alice"]).start();
    let entity = |user: &str, state: &str| format!("entity=\"sip:{user}@{DOMAIN}\" state=\"{state}\"");
    hears(&watch, "of alice", |m| m.contains(&entity("alice", "full")));
    // Bob's phone registers with the one node, and is asked in by the other.
    let bob = Awaited::user(&b, "bob");
    eventually("the other has heard of it", SOON, || a.metric("isthmus_bindings") == 1.0);
    let refer = Sipp::new(&b, "refer", b.ports.next()).set("URI", &room).set("FINAL", "200 OK");
    refer.set("WHOM", format!("sip:bob@{DOMAIN}")).users(&["alice"]).succeed();
    let bob = bob.comes();
    hears(&watch, "of bob", |m| m.contains(&entity("bob", "full")));
    let refer = Sipp::new(&b, "refer", b.ports.next()).set("URI", &room).set("FINAL", "200 OK");
    refer.set("WHOM", format!("sip:bob@{DOMAIN};method=BYE")).users(&["alice"]).succeed();
    bob.hung_up_on();
    hears(&watch, "that bob is gone", |m| m.contains(&entity("bob", "deleted")));
    let again = Sipp::new(&b, "watch_refreshed", b.ports.next()).set("URI", &room).set("EVENT", "conference");
    again.set("ACCEPT", "application/conference-info+xml").users(&["carol"]).succeed();
    assert_eq!((rooms(&a, "rooms"), rooms(&b, "rooms")), (1.0, 0.0));
    alice.hangs_up();
}

/// What a phone printed after these words.
fn said(phone: &mut Process, words: &str) -> String {
    let all = phone.wait_for(words, SOON);
    all.lines().find_map(|line| line.strip_prefix(words)).expect("it was printed").to_owned()
}

/// Has the focus at `server` ask somebody in, or have them leave.
fn refers(server: &Server, room: &str, whom: &str) {
    let refer = Sipp::new(server, "refer", server.ports.next()).set("URI", room).set("FINAL", "200 OK");
    refer.set("WHOM", whom).users(&["alice"]).succeed();
}

#[test]
fn phones_connected_to_the_other_node_by_tcp_and_websocket_are_asked_in() {
    let Cluster { a, b, nats: _nats, _postgres } = started();
    let [bobs, carols] = ["bob", "carol"].map(|user| format!("sip:{user}@{DOMAIN}"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().port();
    let path = format!("msrp://127.0.0.1:{at}/bob9di4;tcp");
    let types = "a=accept-types:message/cpim\na=accept-wrapped-types:*";
    let media = format!("m=message {at} TCP/MSRP *\n{types}\na=path:{path}");
    let mut bob = phone(&b, &format!("tcp://127.0.0.1:{}", b.sip), "bob", &media);
    let mut browser = Browser::open(&b, "carol", PASSWORD);
    let line = browser.next();
    let paths = line.strip_prefix("use-path ").unwrap_or_else(|| panic!("{line}"));
    let (relay, own) = paths.split_once(' ').unwrap();
    let media = format!("m=message 2855 TCP/TLS/MSRP *\n{types}\na=path:{paths}");
    let mut carol = phone(&b, &websocket(&b), "carol", &media);
    eventually("both are known", SOON, || a.metric("isthmus_bindings") == 2.0);

    // Bob by the list of the INVITE, carol by REFER.
    let mut alice = Participant::joins_with(&a, "alice", &factory(), "alice@asks", |sipp| with_list(sipp, &[&bobs]));
    let room = public(&alice.room);
    let mut msrp = Stream::accept(&listener);
    assert_eq!(msrp.next_answering().body, None);
    let (to, by) = (said(&mut bob, "a=path:"), said(&mut bob, "called by "));
    let mut bob_says = Participant {
        user: "bob",
        domain: DOMAIN,
        call_id: "",
        port: 0,
        call: None,
        msrp,
        to,
        from: path,
        room: by.split(';').next().unwrap().to_owned(),
    };
    refers(&a, &room, &carols);
    let to = format!("{relay} {}", said(&mut carol, "a=path:"));
    browser.sends(&format!(
        "MSRP gr33t000 SEND\r\nTo-Path: {to}\r\nFrom-Path: {own}\r\nMessage-ID: mgr33t00\r\n-------gr33t000$\r\n"
    ));
    assert!(browser.hears().starts_with("MSRP gr33t000 200 OK\r\n"));
    assert_eq!(rooms(&a, "members"), 3.0);

    assert_eq!(alice.says("al1ce000", "from alice"), 200);
    assert!(bob_says.hears().ends_with("from alice") && browser.hears().contains("from alice"));
    assert_eq!(bob_says.says("b0b00000", "from bob"), 200);
    assert!(alice.hears().ends_with("from bob") && browser.hears().contains("from bob"));
    let body = format!("From: <{carols}>\r\nTo: <{room}>\r\n\r\nContent-Type: text/plain\r\n\r\nfrom carol");
    browser.sends(&format!(
        "MSRP c4r0l000 SEND\r\nTo-Path: {to}\r\nFrom-Path: {own}\r\nMessage-ID: mc4r0l00\r\nByte-Range: 1-{n}/{n}\r\n\
         Content-Type: message/cpim\r\n\r\n{body}\r\n-------c4r0l000$\r\n",
        n = body.len()
    ));
    assert!(browser.hears().starts_with("MSRP c4r0l000 200 OK\r\n"));
    assert!(alice.hears().ends_with("from carol") && bob_says.hears().ends_with("from carol"));

    for (whom, phone) in [(&bobs, &mut bob), (&carols, &mut carol)] {
        refers(&a, &room, &format!("{whom};method=BYE"));
        phone.wait_for("ended", SOON);
    }
    eventually("alice is alone", SOON, || rooms(&a, "members") == 1.0);
    alice.hangs_up();
}

#[test]
fn a_room_whose_node_paused_is_with_another_and_let_go_where_it_was() {
    let Cluster { a, b, nats: _nats, _postgres } = started();
    let bobs = format!("sip:bob@{DOMAIN}");
    let bob = Awaited::user(&a, "bob");
    let mut alice = Participant::joins_with(&a, "alice", &factory(), "alice@a", |sipp| with_list(sipp, &[&bobs]));
    let room = public(&alice.room);
    let mut bob = bob.comes();
    assert_eq!(alice.says("bef0re00", "before"), 200);
    assert!(bob.hears().ends_with("before"));
    // Nobody says goodbye: her phone is gone, and the focus does nothing for longer than a node may.
    drop(alice);
    a.process.signal("STOP");
    opens(&b, "alice", &room);
    let mut alice = Participant::joins(&b, "alice", &room, "alice@b");
    assert_eq!(b.metric("isthmus_chat_rooms_total{kind=\"taken_over\"}"), 1.0);
    a.process.signal("CONT");
    bob.hung_up_on();
    eventually("it is let go", SOON, || a.metric("isthmus_chat_rooms_total{kind=\"let_go\"}") == 1.0);
    let mut bob = Participant::joins(&a, "bob", &room, "bob@a");
    assert_eq!(bob.says("af7er000", "after"), 200);
    assert!(alice.hears().ends_with("after"));
    assert_eq!((rooms(&a, "rooms"), rooms(&b, "members")), (0.0, 2.0));
    bob.hangs_up();
    alice.hangs_up();
}
