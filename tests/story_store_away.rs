//! PostgreSQL dies under the server: what cannot be stored is refused and leaves nothing behind, and what was there stays.

mod harness;
#[path = "harness/postgres.rs"]
#[allow(dead_code)] // Shared: other tests use the rest of it.
mod postgres;

use std::time::Duration;

use harness::{Server, Setup, Sipp, eventually, header};

/// Alice registers with these lines; the last answer, which must be `code`.
fn register(server: &Server, lines: &str, code: u16) -> String {
    let phone = Sipp::new(server, "register_with", server.ports.next()).set("LINES", lines).set("CODE", code);
    let done = phone.users(&["alice"]).succeed();
    done.received().last().copied().expect("an answer").to_owned()
}

/// Contact and expiry of what the server lists.
fn listed(server: &Server) -> Vec<(String, u32)> {
    let answer = register(server, "X-Asks: who is there", 200);
    let values = answer.lines().filter_map(|l| l.strip_prefix("Contact: "));
    let mut all: Vec<(String, u32)> = values
        .map(|v| {
            let (uri, rest) = v.split_once(">;expires=").unwrap_or_else(|| panic!("no expiry: {v}"));
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            (uri.trim_start_matches('<').to_owned(), digits.parse().expect("a number"))
        })
        .collect();
    all.sort();
    all
}

#[test]
fn refused_registers_leave_no_trace_when_the_database_is_away() {
    // It ends after the server, which is declared later.
    let mut postgres = postgres::Postgres::start();
    let mut setup = Setup::with_users(&["alice"]);
    setup.sections = format!("[store]\nengine = \"postgres\"\nurl = \"{}\"\n", postgres.url());
    let mut server = setup.start();
    register(&server, "Contact: <sip:a@192.0.2.1>;expires=3600", 200);

    postgres.kill();
    let refused = register(&server, "Contact: <sip:c@192.0.2.3>;expires=3600", 500);
    assert!(header(&refused, "Retry-After").is_some() && header(&refused, "Contact").is_none(), "{refused}");
    register(&server, "Contact: <sip:a@192.0.2.1>;q=0.1;expires=600", 500);
    register(&server, "Contact: <sip:a@192.0.2.1>;expires=0", 500);
    register(&server, "Contact: *\nExpires: 0", 500);
    let left = listed(&server);
    assert!(left.len() == 1 && left[0].0 == "sip:a@192.0.2.1" && left[0].1 > 3000, "{left:?}");

    postgres.restart();
    eventually("the server sees its store again", Duration::from_secs(60), || server.admin("/readyz").0 == 200);
    register(&server, "Contact: <sip:b@192.0.2.2>;expires=3600", 200);
    // What was refused was kept for another attempt: it must not have come into the store by that.
    server.restart();
    let left = listed(&server);
    let contacts: Vec<&str> = left.iter().map(|(c, _)| c.as_str()).collect();
    assert_eq!(contacts, ["sip:a@192.0.2.1", "sip:b@192.0.2.2"], "{left:?}");
    assert!(left[0].1 > 3000, "{left:?}");
}
