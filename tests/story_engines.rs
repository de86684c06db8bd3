//! The server on the engines for when one machine is not enough, PostgreSQL and NATS: what it acknowledged is there after kill -9.

mod harness;
#[path = "harness/nats.rs"]
#[allow(dead_code)] // Shared: other tests use the rest of it.
mod nats;
#[path = "harness/postgres.rs"]
#[allow(dead_code)]
mod postgres;

use harness::{DOMAIN, Server, Setup, Sipp};

fn registering(server: &Server, scenario: &'static str, contact: u16) -> Sipp {
    let sipp = Sipp::new(server, scenario, server.ports.next()).set("CONTACT", format!("127.0.0.1:{contact}"));
    sipp.set("PARAMS", "").set("EXPIRES", 600)
}

#[test]
fn bindings_and_kept_messages_survive_kill_9_on_postgres_and_nats() {
    // They end after the server, which is declared later.
    let (postgres, nats) = (postgres::Postgres::start(), nats::Nats::start());
    let mut setup = Setup::with_users(&["alice", "bob", "carol"]);
    setup.sections = format!(
        "[store]\nengine = \"postgres\"\nurl = \"{}\"\n[bus]\nengine = \"nats\"\nurl = \"{}\"\n",
        postgres.url(),
        nats.url()
    );
    let mut server = setup.start();
    assert!(!server.path().join("data/store.db").exists(), "it fell back to SQLite");
    let (carols, bobs) = (server.ports.next(), server.ports.next());
    registering(&server, "register", carols).users(&["carol"]).succeed();
    let kept = Sipp::new(&server, "message", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    // One by one: only then has "in order" a meaning.
    kept.set("TEXT", "kept").set("CODE", 202).users(&["alice"]).calls(3).options(&["-l", "1"]).succeed();

    server.restart();
    registering(&server, "fetch", carols).users(&["carol"]).succeed();
    let phone = Sipp::new(&server, "take_messages", bobs).set("CODE", 200).calls(3).start();
    registering(&server, "register", bobs).users(&["bob"]).succeed();
    let seen = phone.succeed(3);
    let bodies: Vec<&str> = seen.received().iter().filter_map(|m| Some(m.split("\r\n\r\n").nth(1)?.trim())).collect();
    assert_eq!(bodies, ["kept 1", "kept 2", "kept 3"]);
    server.stop();
}
