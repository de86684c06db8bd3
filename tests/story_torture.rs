//! The torture messages of RFC 4475 through the running server over UDP: each valid one is understood, each invalid one gets
//! the answer that the RFC asks for. Where the RFC leaves a choice, every permitted answer is listed.

mod harness;

use std::time::Duration;

use harness::dns::NameServer;
use harness::{Peer, Ports, Server, Setup, header, raw};

fn started() -> (Server, Ports, NameServer) {
    let ports = Ports::claim();
    let port = ports.next();
    // Every name is unknown, at once: the domains of the RFC's examples must not be asked of the real world.
    let names = NameServer::start(port, Vec::new());
    let mut setup = Setup::with_users(&["user", "j_user", "watson"]);
    setup.domain = "example.com";
    setup.sip = format!("resolver = \"127.0.0.1:{port}\"\n");
    (setup.start(), ports, names)
}

fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/sip/proto/tests/rfc4475/{name}.dat", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The port that answers to `bytes` go to: the topmost Via carries no rport, so it is the one of its sent-by, 5060 if it has none
/// (RFC 3261 section 18.2.2).
fn answer_port(bytes: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(bytes);
    let via =
        text.lines().find(|l| l.to_ascii_lowercase().starts_with("via:") || l.starts_with("v:")).unwrap_or_default();
    let sent_by = via.split(';').next().unwrap_or_default();
    sent_by.rsplit(':').next().and_then(|p| p.trim().parse().ok()).unwrap_or(5060)
}

/// Sends one file and returns the first final answer. Each file comes from a loopback address of its own, so that the answers
/// to one, repeated, are not taken for answers to the next.
fn answer_to(server: &Server, nth: u8, name: &str) -> Option<String> {
    let [high, low] = server.sip.to_be_bytes();
    let bytes = file(name);
    let peer = Peer::at([127, 128 | (high & 0x3f), low.max(1), nth + 1], answer_port(&bytes));
    peer.send(server.sip, &bytes);
    loop {
        let got = String::from_utf8_lossy(&peer.receive(Duration::from_secs(5))?).into_owned();
        // A request is the server passing something on; a 1xx is not the end.
        if raw::status(&got).is_some_and(|s| s >= 200) {
            return Some(got);
        }
    }
}

#[test]
fn valid_requests_are_understood() {
    let (server, _ports, _names) = started();
    let valid = [
        "wsinv",
        "intmeth",
        "esc01",
        "escnull",
        "esc02",
        "lwsdisp",
        "longreq",
        "dblreq",
        "semiuri",
        "transports",
        "mpart01",
        "invut",
        "regaut01",
        "cparam01",
        "cparam02",
        "regescrt",
        "sdp01",
        "inv2543",
    ];
    let mut wrong = Vec::new();
    for (nth, name) in valid.into_iter().enumerate() {
        let answer = answer_to(&server, nth as u8, name);
        let status = answer.as_deref().and_then(raw::status);
        // Its meaning may be refused (unknown user, no credentials, no route), its form may not.
        if status.is_none_or(|s| [400, 408, 413, 414, 500, 505, 513].contains(&s)) {
            wrong.push((name, answer));
        }
    }
    assert!(wrong.is_empty(), "not understood: {wrong:#?}");
    assert_eq!(Peer::new(0).options(server.sip, "alive"), Some(200));
}

#[test]
fn invalid_requests_get_the_answer_the_rfc_asks_for() {
    let (server, _ports, _names) = started();
    let permitted: [(&str, &[u16]); 25] = [
        ("badinv01", &[400]),
        ("clerr", &[400]),
        ("ncl", &[400]),
        ("scalar02", &[400]),
        ("quotbal", &[400]),
        ("ltgtruri", &[400]),
        ("lwsruri", &[400]),
        // Sections 3.1.2.9 and 3.1.2.10: refused, or understood in spite of the spaces.
        ("lwsstart", &[400, 401, 403, 404, 407, 480, 503]),
        ("trws", &[400, 404, 480, 200]),
        // 3.1.2.11: refused, or the headers in the URI ignored.
        ("escruri", &[400, 403, 404, 407, 480]),
        // 3.1.2.12: refused, or the Date ignored.
        ("baddate", &[400, 403, 404, 407, 480]),
        ("regbadct", &[400]),
        ("badaspec", &[400]),
        ("baddn", &[400]),
        ("badvers", &[505]),
        ("mismatch01", &[400]),
        ("mismatch02", &[400, 501]),
        // 3.2.1: a branch that is only the cookie is refused, or treated as RFC 2543's.
        ("badbranch", &[400, 401, 403, 404, 407, 480, 200]),
        ("insuf", &[400]),
        ("unkscm", &[416]),
        ("novelsc", &[416]),
        ("bext01", &[420]),
        ("multi01", &[400]),
        ("mcl01", &[400]),
        // 3.3.11: a proxy answers 483; the one the OPTIONS is for may answer it.
        ("zeromf", &[483, 200]),
    ];
    let mut wrong = Vec::new();
    for (nth, (name, statuses)) in permitted.into_iter().enumerate() {
        let answer = answer_to(&server, 100 + nth as u8, name);
        let status = answer.as_deref().and_then(raw::status);
        if !status.is_some_and(|s| statuses.contains(&s)) {
            wrong.push((name, statuses, answer.clone()));
        }
        if name == "bext01" {
            let unsupported =
                answer.as_deref().and_then(|a| header(a, "Unsupported").map(str::to_owned)).unwrap_or_default();
            assert!(unsupported.contains("noProxiesSupportThis"), "{answer:?}");
        }
    }
    assert!(wrong.is_empty(), "(file, permitted, got): {wrong:#?}");
    assert_eq!(Peer::new(0).options(server.sip, "alive"), Some(200));
}

#[test]
fn register_for_a_foreign_scheme_is_refused() {
    let (server, _ports, _names) = started();
    let answer = answer_to(&server, 60, "unksm2");
    assert!(answer.as_deref().and_then(raw::status).is_some_and(|s| (400..500).contains(&s)), "{answer:?}");
}

#[test]
fn responses_that_answer_nothing_are_dropped() {
    let (server, _ports, _names) = started();
    for (nth, name) in ["scalarlg", "bigcode", "bcast", "unreason", "noreason"].into_iter().enumerate() {
        let [high, low] = server.sip.to_be_bytes();
        let peer = Peer::at([127, 128 | (high & 0x3f), low.max(1), 200 + nth as u8], 5060);
        peer.send(server.sip, &file(name));
        assert_eq!(peer.receive(Duration::from_millis(200)), None, "{name}");
    }
    assert_eq!(Peer::new(0).options(server.sip, "alive"), Some(200));
}
