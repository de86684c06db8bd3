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

use std::time::Duration;

use cluster::Cluster;
use harness::chat::{Awaited, Participant, factory, with_list};
use harness::msrp::dissected;
use harness::presence::hears;
use harness::{DOMAIN, Server, Setup, Sipp, eventually};

/// A node is dead after 15 s.
const TAKEN_OVER: Duration = Duration::from_secs(60);

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
    assert_eq!(rooms(&a, "members"), 3.0);

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
