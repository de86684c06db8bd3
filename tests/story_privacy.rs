//! Callers who want to stay unknown (RFC 3323, RFC 3325): what the callee sees of them, and that the call works all the same.

mod harness;

use harness::{DOMAIN, Server, Setup, Sipp, bind, header, kamailio, sipp::Outcome};

fn started() -> Server {
    Setup::with_users(&["alice", "bob"]).start()
}

/// Where alice's phone is, which is nobody else's address here.
const HERS: &str = "127.0.0.5";

/// Alice runs `asks` with this wish, bob's phone `answers`; gives what both saw. Over UDP or TCP, or by way of an edge proxy.
fn between(
    server: &Server,
    asks: &'static str,
    answers: &'static str,
    wish: &str,
    tcp: bool,
    edge: u16,
) -> [Outcome; 2] {
    let phone = server.ports.next();
    let other = Sipp::new(server, answers, phone).start();
    bind(server, "bob", phone, "");
    let one = Sipp::new(server, asks, server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}")).set("PRIVACY", wish);
    // The usual Call-ID names its host, which a privacy service leaves alone (RFC 3323 §5.3 would want a B2BUA for it).
    let one = one.users(&["alice"]).from(HERS).options(&["-cid_str", "%u-%p-private"]);
    let one = if tcp { one.tcp() } else { one };
    let mine = if edge > 0 { one.towards(edge) } else { one }.succeed();
    [mine, other.succeed(1)]
}

fn tells_nothing(seen: &Outcome) {
    assert!(!seen.received().is_empty());
    for message in seen.received() {
        assert!(!message.to_ascii_lowercase().contains("alice"), "{message}");
    }
}

const USER: &str = "user;id;critical";
const ALL: &str = "header;user;id;critical";

#[test]
fn callee_never_sees_who_calls_and_requests_go_both_ways() {
    for tcp in [false, true] {
        let server = started();
        let [_, seen] = between(&server, "private_call", "private_called", USER, tcp, 0);
        tells_nothing(&seen);
        let invite = seen.received()[0];
        assert_eq!((header(invite, "Subject"), header(invite, "Proxy-Require")), (None, None), "{invite}");
    }
}

#[test]
fn callee_hangs_up_on_somebody_it_does_not_know() {
    let server = started();
    tells_nothing(&between(&server, "private_call_ended", "private_called_ends", USER, false, 0)[1]);
}

/// What the callee sees leads to nobody but us, and what comes back to the caller looks as it always does.
fn hides_the_way([mine, theirs]: &[Outcome; 2], edge: u16) {
    tells_nothing(theirs);
    for message in theirs.received() {
        let head = message.split("\r\n\r\n").next().unwrap();
        let edge = format!("127.0.0.1:{edge}");
        assert!(!head.contains(HERS) && !head.contains(&edge), "{message}");
        assert_eq!(head.lines().filter(|l| l.starts_with("Via")).count(), 1, "{message}");
    }
    for response in mine.received().iter().filter(|m| m.starts_with("SIP/2.0")) {
        let vias: Vec<&str> = response.lines().filter(|l| l.starts_with("Via")).collect();
        assert!(vias.len() == 1 && vias[0].contains(HERS), "{response}");
    }
}

#[test]
fn callee_never_sees_where_the_call_comes_from_and_requests_go_both_ways() {
    for tcp in [false, true] {
        let server = started();
        hides_the_way(&between(&server, "private_call", "private_called", ALL, tcp, 0), 0);
    }
    let server = started();
    hides_the_way(&between(&server, "private_call_ended", "private_called_ends", ALL, false, 0), 0);
}

#[test]
fn proxy_of_a_hidden_caller_stays_on_the_way_and_is_hidden_too() {
    let server = started();
    let edge = server.ports.next();
    let _edge = kamailio::edge(server.path(), edge, &server.address());
    hides_the_way(&between(&server, "private_call", "private_called", ALL, false, edge), edge);
    hides_the_way(&between(&server, "private_call_ended", "private_called_ends", ALL, false, edge), edge);
}

#[test]
fn hidden_caller_gives_up_while_it_rings() {
    let server = started();
    let both = between(&server, "private_call_cancelled", "private_ring", ALL, false, 0);
    tells_nothing(&both[1]);
    assert!(both[1].received().iter().all(|m| !m.contains(HERS)), "{:?}", both[1].received());
}

#[test]
fn anonymous_caller_proves_its_identity_to_the_proxy_only() {
    let server = started();
    let [_, seen] = between(&server, "anonymous_call", "answer", "id", false, 0);
    let invite = seen.received()[0];
    assert_eq!(header(invite, "P-Preferred-Identity"), None, "{invite}");
    assert_eq!(header(invite, "P-Asserted-Identity"), None, "{invite}");
    assert_eq!(header(invite, "Privacy"), Some("id"), "{invite}");
    tells_nothing(&seen);
}

#[test]
fn privacy_that_cannot_be_given_and_is_critical_fails_the_call() {
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.sections = "[media]\nmax_relayed = 0\n".into();
    let server = setup.start();
    let untouched = harness::Peer::new(server.ports.next());
    bind(&server, "bob", untouched.port, "");
    let call = Sipp::new(&server, "private_call_refused", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    call.users(&["alice"]).succeed();
    assert_eq!(untouched.receive(std::time::Duration::from_millis(300)), None);
}

#[test]
fn message_from_somebody_unknown_is_kept_without_the_name() {
    let server = started();
    let send = Sipp::new(&server, "message", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    let private = send.set("TEXT", "guess who").set("CODE", 202).set("MORE", "Privacy: user\n").users(&["alice"]);
    private.succeed();
    let port = server.ports.next();
    let phone = Sipp::new(&server, "take_messages", port).set("CODE", 200).start();
    bind(&server, "bob", port, "");
    let seen = phone.succeed(1);
    assert!(seen.received()[0].contains("guess who"), "{}", seen.received()[0]);
    tells_nothing(&seen);
}

#[test]
fn who_answers_is_told_to_the_untrusted_only_as_far_as_it_wants() {
    // A neighbour whose word counts, and one whose does not.
    let ports = harness::Ports::claim();
    let (trusted, other) = (ports.next(), ports.next());
    let mut setup = Setup::with_users(&["alice"]);
    setup.sip = format!("trusted = [\"127.0.0.1:{trusted}\"]");
    let server = setup.start();
    let says = "P-Asserted-Identity: <sip:carol@two.test>\nP-Charging-Vector: icid-value=1\n";
    for (port, wish, shown) in [(trusted, "", true), (trusted, "Privacy: id\n", false), (other, "", false)] {
        let callee = Sipp::new(&server, "answer", port).set("MORE", format!("{says}{wish}")).start();
        let uri = format!("sip:carol@127.0.0.1:{port}");
        let caller = Sipp::new(&server, "call", server.ports.next()).set("URI", uri).users(&["alice"]).succeed();
        callee.succeed(1);
        let answers: Vec<_> =
            caller.received().into_iter().filter(|m| header(m, "P-Asserted-Identity").is_some()).collect();
        assert_eq!(answers.len(), if shown { 2 } else { 0 }, "{port} {wish} {answers:?}");
        assert!(caller.received().iter().all(|m| header(m, "P-Charging-Vector").is_none()));
    }
}
