//! GRUUs (RFC 5627): a name for one phone of several that a user has, which is given at registration and reaches that phone only.

mod harness;

use std::time::Duration;

use harness::{DOMAIN, Peer, Server, Setup, header, raw};

const LIMIT: Duration = Duration::from_secs(20);
/// Long enough for a request to arrive at a phone that it is not for.
const QUIET: Duration = Duration::from_millis(300);

/// Bob's two phones, registered without credentials: proofs of identity are the other stories'.
struct House {
    server: Server,
    desk: Peer,
    kitchen: Peer,
}

fn house() -> House {
    let mut setup = Setup::with_users(&["bob"]);
    setup.auth = "none";
    let server = setup.start();
    let (desk, kitchen) = (Peer::new(server.ports.next()), Peer::new(server.ports.next()));
    House { server, desk, kitchen }
}

/// Registers bob's `phone` as this instance under `call_id`; what the 200 lists.
fn register(server: &Server, phone: &Peer, instance: u8, call_id: &str, sequence: u32, expires: u32) -> String {
    let more = format!("Supported: gruu\r\nExpires: {expires}\r\n");
    let request = phone.request("REGISTER", &format!("sip:{DOMAIN}"), ["bob", "bob"], call_id, &more, "");
    let instance =
        format!(">;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-0000000000{instance:02x}>\"\r\nSupported");
    let request = String::from_utf8(request).unwrap().replace(">\r\nSupported", &instance);
    let request = request.replace("CSeq: 1 ", &format!("CSeq: {sequence} "));
    phone.send(server.sip, request.replace(";branch=z9hG4bK", &format!(";branch=z9hG4bK{sequence}")).as_bytes());
    let answer = phone.receive_with(&format!("CSeq: {sequence} REGISTER"), LIMIT).expect("the registrar answers");
    assert_eq!(raw::status(&answer), Some(200), "{answer}");
    answer
}

/// The GRUU called `name` of the binding that `phone` has in a 200.
fn gruu(answer: &str, phone: &Peer, name: &str) -> String {
    let contacts = answer.lines().filter(|l| l.starts_with("Contact:"));
    let own =
        contacts.flat_map(|l| l.split("<sip:bob@127.0.0.1:").skip(1)).find(|c| c.starts_with(&phone.port.to_string()));
    let own = own.unwrap_or_else(|| panic!("the phone's binding is listed: {answer}"));
    let value = own.split(&format!("{name}=\"")).nth(1).unwrap_or_else(|| panic!("no {name}: {answer}"));
    value.split('"').next().unwrap_or_default().to_owned()
}

/// A request of a stranger to `uri`; its call and its sender.
fn ask(server: &Server, method: &str, uri: &str, call_id: &str) -> Peer {
    let stranger = Peer::new(0);
    let more = if method == "MESSAGE" { "Content-Type: text/plain\r\n" } else { "" };
    let request = stranger.request(method, uri, ["carol", "bob"], call_id, more, "");
    let request = String::from_utf8(request).unwrap().replace(&format!("<sip:carol@{DOMAIN}>"), "<sip:carol@far.test>");
    stranger.send(server.sip, request.as_bytes());
    stranger
}

/// `uri` reaches `phone` at its contact, and `other` stays quiet.
fn reaches_alone(server: &Server, phone: &Peer, other: &Peer, method: &str, uri: &str) {
    let call_id = format!("to{}{method}{}", phone.port, uri.len());
    let _stranger = ask(server, method, uri, &call_id);
    let got = phone.receive_with(&call_id, LIMIT).unwrap_or_else(|| panic!("{method} {uri} does not arrive"));
    assert!(got.starts_with(&format!("{method} sip:bob@127.0.0.1:{} SIP/2.0", phone.port)), "{got}");
    assert_eq!(other.receive_with(&call_id, QUIET), None, "{method} {uri} is for the other phone");
}

fn refused(server: &Server, uri: &str, call_id: &str) -> Option<u16> {
    let stranger = ask(server, "INVITE", uri, call_id);
    let mut answer = stranger.receive_with(call_id, LIMIT)?;
    while raw::status(&answer)? < 200 {
        answer = stranger.receive_with(call_id, LIMIT)?;
    }
    raw::status(&answer)
}

#[test]
fn gruus_are_given_to_those_who_ask_and_reach_that_phone_alone() {
    let house = house();
    let first = register(&house.server, &house.desk, 1, "desk", 1, 600);
    let second = register(&house.server, &house.kitchen, 2, "kitchen", 1, 600);
    let kinds = ["pub-gruu", "temp-gruu"];
    let ([public, temporary], others) =
        (kinds.map(|k| gruu(&first, &house.desk, k)), kinds.map(|k| gruu(&second, &house.kitchen, k)));
    assert!(public.starts_with(&format!("sip:bob@{DOMAIN};gr=")), "{public}");
    assert!(!temporary.contains("bob"), "it hides the user: {temporary}");
    for method in ["INVITE", "MESSAGE"] {
        for (one, other) in [&public, &temporary].into_iter().zip(&others) {
            reaches_alone(&house.server, &house.desk, &house.kitchen, method, one);
            reaches_alone(&house.server, &house.kitchen, &house.desk, method, other);
        }
    }
}

#[test]
fn phone_that_does_not_ask_gets_no_gruu() {
    let House { server, desk, .. } = house();
    desk.send(server.sip, &desk.request("REGISTER", &format!("sip:{DOMAIN}"), ["bob", "bob"], "plain", "", ""));
    let answer = desk.receive_with("plain", LIMIT).expect("the registrar answers");
    assert_eq!(raw::status(&answer), Some(200), "{answer}");
    assert!(header(&answer, "Contact").is_some_and(|c| !c.contains("gruu")), "{answer}");
}

#[test]
fn gruu_of_a_phone_that_is_gone_is_not_reachable_and_a_made_up_one_is_not_found() {
    let House { server, desk, kitchen } = house();
    let first = register(&server, &desk, 1, "desk", 1, 600);
    register(&server, &kitchen, 2, "kitchen", 1, 600);
    register(&server, &desk, 1, "desk", 2, 0);
    // RFC 5627 section 5.1: the public one stands for the phone for ever; a temporary one ends with the registration.
    assert_eq!(refused(&server, &gruu(&first, &desk, "pub-gruu"), "gone1"), Some(480));
    assert_eq!(refused(&server, &gruu(&first, &desk, "temp-gruu"), "gone2"), Some(404));
    assert_eq!(refused(&server, &format!("sip:tgruu.AAAAAAAAAAAAAAAAAAAAAAAA@{DOMAIN};gr"), "gone3"), Some(404));
    assert_eq!(kitchen.receive(QUIET), None, "the user's other phone is not asked instead");
}

#[test]
fn temporary_gruus_of_an_earlier_registration_end_when_the_phone_starts_anew() {
    let House { server, desk, .. } = house();
    let first = register(&server, &desk, 1, "before", 1, 600);
    let second = register(&server, &desk, 1, "after", 2, 600);
    assert_eq!(refused(&server, &gruu(&first, &desk, "temp-gruu"), "old1"), Some(404));
    let _stranger = ask(&server, "INVITE", &gruu(&second, &desk, "temp-gruu"), "new1");
    assert!(desk.receive_with("new1", LIMIT).is_some_and(|m| m.starts_with("INVITE ")));
}
