//! MSRP over WebSocket (RFC 7977) with AUTH (RFC 4976): a client with npm's `websocket` gets a path, and chats with a phone on TCP.

mod harness;

use harness::msrp::{Stream, told};
use harness::msrp_ws::Browser;
use harness::sipp::Running;
use harness::{DOMAIN, PASSWORD, Server, Setup, Sipp};

fn calls(server: &Server, user: &'static str, uri: &str, media: String, call_id: &'static str) -> Running {
    let sipp = Sipp::new(server, "session", server.ports.next()).set("MEDIA", media).set("URI", uri);
    sipp.users(&[user]).options(&["-cid_str", call_id]).start()
}

#[test]
fn a_client_over_websocket_gets_a_path_and_chats_with_a_phone() {
    let server = Setup::with_users(&["alice", "bob"]).with_msrp().start();
    let door = server.msrp[0];
    let mut alice = Browser::open(&server, "alice", PASSWORD);
    let line = alice.next();
    let paths = line.strip_prefix("use-path ").unwrap_or_else(|| panic!("{line}")).to_owned();
    let (relay, own) = paths.split_once(' ').unwrap();
    assert!(relay.starts_with("msrps://127.0.0.1:") && relay.ends_with(";ws"), "{relay}");
    let media =
        format!("m=message 2855 TCP/TLS/MSRP *\na=accept-types:message/cpim\na=accept-wrapped-types:*\na=path:{paths}");
    let factory = format!("sip:conference-factory@{DOMAIN}");
    let call = calls(&server, "alice", &factory, media, "alice@ws");
    let ours = told(&call, "a=path:");
    assert!(ours.starts_with("msrps://") && ours.ends_with(";ws"), "{ours}");
    let room = told(&call, "Contact: <").split(['>', ';']).next().unwrap().to_owned();
    let to = format!("{relay} {ours}");
    alice.sends(&format!(
        "MSRP gr33t000 SEND\r\nTo-Path: {to}\r\nFrom-Path: {own}\r\nMessage-ID: mgr33t00\r\n-------gr33t000$\r\n"
    ));
    assert!(alice.hears().starts_with("MSRP gr33t000 200 OK\r\n"));

    let bob_uri = "msrp://127.0.0.1:9/bob5s93;tcp";
    let media = format!(
        "m=message 9 TCP/MSRP *\na=accept-types:message/cpim\na=accept-wrapped-types:*\na=path:{bob_uri}\na=setup:active"
    );
    let bobs_call = calls(&server, "bob", &room, media, "bob@ws");
    let to_bob = told(&bobs_call, "a=path:");
    let mut bob = Stream::connect(door);
    bob.greet("b0b00000", [&to_bob, bob_uri]);
    assert_eq!(bob.next().what, "200 OK");

    let envelope = |from: &str, text: &str| {
        format!(
            "From: <sip:{from}@{DOMAIN}>\r\nTo: <{room}>\r\n\r\nContent-Type: text/plain;charset=utf-8\r\n\r\n{text}"
        )
    };
    let body = envelope("alice", "grüße aus dem browser");
    let send = |id: &str, to: &str, from: &str, body: &str| {
        format!(
            "MSRP {id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: m{id}\r\nByte-Range: 1-{n}/{n}\r\n\
             Content-Type: message/cpim\r\n\r\n{body}\r\n-------{id}$\r\n",
            n = body.len()
        )
    };
    alice.sends(&send("he11o000", &to, own, &body));
    assert!(alice.hears().starts_with("MSRP he11o000 200 OK\r\n"));
    assert_eq!(bob.next_answering().text(), body);
    // The other way, longer than a frame, and not all of it text.
    let body = envelope("bob", &"x".repeat(40_000));
    bob.write(send("back0000", &to_bob, bob_uri, &body).as_bytes());
    assert_eq!(bob.next().what, "200 OK");
    let heard = alice.hears();
    // A relay puts itself in front (RFC 4976 §4), and our URI is the one that stood in the description.
    let paths = format!("\r\nTo-Path: {own}\r\nFrom-Path: {relay} {ours}\r\n");
    assert!(heard.contains(&paths) && heard.contains(&body), "{}", &heard[..400]);
}

#[test]
fn a_client_with_the_wrong_password_gets_no_path() {
    let server = Setup::with_users(&["alice", "bob"]).with_msrp().start();
    let mallory = Browser::open(&server, "alice", "guess");
    assert_eq!(mallory.next(), "refused 401");
}

#[test]
fn who_guesses_passwords_is_refused_without_a_look_and_the_user_is_not() {
    let server = Setup::with_users(&["alice", "bob"]).with_msrp().start();
    let guess = || Browser::open(&server, "alice", "guess").next();
    let tries = (1..100).find(|_| guess() == "refused 403").expect("guesses come to an end");
    assert!(tries > 16, "{tries}");
    assert!(Browser::open(&server, "alice", PASSWORD).next().starts_with("use-path "));
}
