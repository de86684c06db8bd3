//! Messages that are too long for a datagram (RFC 3428 §8), to phones that are reached by datagrams and take chats: said in a session.
//! SIPp sends them and is the addressee's phone, tshark reads what comes; the MSRP end is a bare stream.

mod harness;

use std::net::TcpListener;
use std::time::Duration;

use harness::msrp::{Stream, dissected, told};
use harness::{DOMAIN, Server, Setup, Sipp, bind, eventually};

const SOON: Duration = Duration::from_secs(30);
const CHATS: &str = ";+g.oma.sip-im";

fn send(server: &Server, text: &str, code: u16) {
    let sipp = Sipp::new(server, "message", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    let sipp = sipp.set("TYPE", "text/plain").set("NUMBER", "").set("TEXT", text).set("CODE", code);
    sipp.users(&["alice"]).succeed();
}

fn delivered(server: &Server) -> bool {
    server.metric("isthmus_kept_messages_total{fate=\"delivered\"}") == 1.0
}

#[test]
fn a_long_message_for_a_phone_that_chats_is_said_in_a_session() {
    let server = Setup::with_users(&["alice", "bob"]).with_msrp().start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let msrp = listener.local_addr().unwrap().port();
    let own = format!("msrp://127.0.0.1:{msrp}/bob9di4eae923wzd;tcp");
    let port = server.ports.next();
    let answer = format!(
        "m=message {msrp} TCP/MSRP *\na=accept-types:message/cpim\na=accept-wrapped-types:text/plain\na=path:{own}"
    );
    let phone = Sipp::new(&server, "session_answer", port).set("MEDIA", answer).start();
    bind(&server, "bob", port, CHATS);
    let text = "a long story ".repeat(200);
    send(&server, text.trim_end(), 202);

    assert!(told(&phone, "From: ").contains(&format!("<sip:alice@{DOMAIN}>")));
    let mut bob = Stream::accept(&listener);
    assert_eq!(bob.next_answering().body, None);
    let (frame, all) = bob.next_whole();
    assert_eq!((frame.header("Content-Type"), frame.header("Success-Report")), ("message/cpim", "yes"));
    bob.report(&frame, all.len());
    let all = String::from_utf8(all).unwrap();
    assert!(all.contains(&format!("From: <sip:alice@{DOMAIN}>")), "{all}");
    assert!(all.contains("Content-Type: text/plain") && all.trim_end().ends_with(text.trim_end()), "{all}");
    phone.succeed(1);
    eventually("it was delivered", SOON, || delivered(&server));
    assert!(dissected(server.path(), &bob).join("\n").contains("SEND"));
}

#[test]
fn who_takes_no_session_gets_the_long_message_all_the_same() {
    let server = Setup::with_users(&["alice", "bob"]).with_msrp().start();
    let port = server.ports.next();
    let phone = Sipp::new(&server, "messages_only", port).calls(2).start();
    bind(&server, "bob", port, CHATS);
    let text = "a long story ".repeat(200);
    send(&server, text.trim_end(), 202);
    let seen = phone.succeed(2);
    let received = seen.received();
    let of = |method: &str| received.iter().filter(|m| m.trim_start().starts_with(method)).collect::<Vec<_>>();
    // The refused session's ACK and the message are two transactions: either may come first.
    assert_eq!((received.len(), of("INVITE ").len(), of("ACK ").len()), (3, 1, 1), "{received:#?}");
    assert!(of("MESSAGE ")[0].contains(text.trim_end()));
    eventually("it was delivered", SOON, || delivered(&server));
}

#[test]
fn short_messages_and_phones_without_chat_are_as_ever() {
    let server = Setup::with_users(&["alice", "bob"]).with_msrp().start();
    let port = server.ports.next();
    let phone = Sipp::new(&server, "take_messages", port).set("CODE", 200).calls(1).start();
    bind(&server, "bob", port, CHATS);
    send(&server, "short", 200);
    phone.succeed(1);
    let phone = Sipp::new(&server, "take_messages", port).set("CODE", 200).calls(1).start();
    bind(&server, "bob", port, "");
    send(&server, "a long story ".repeat(200).trim_end(), 200);
    phone.succeed(1);
}
