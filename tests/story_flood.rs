//! Bad neighbours: noise, half-open connections, guessed passwords, calls that nobody acknowledges. Honest users are served
//! through all of it, and memory stays bounded.

mod harness;

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use harness::{DOMAIN, Peer, Server, Setup, Sipp};

/// What any of these floods may cost at most, in bytes of resident memory.
const MEMORY: u64 = 64 << 20;

fn honest_user_is_served(server: &Server) {
    let port = server.ports.next();
    let phone = Sipp::new(server, "answer", port).start();
    let bind = Sipp::new(server, "register", server.ports.next())
        .set("CONTACT", format!("127.0.0.1:{port}"))
        .set("PARAMS", "");
    bind.set("EXPIRES", 600).users(&["bob"]).succeed();
    Sipp::new(server, "call", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"]).succeed();
    phone.succeed(1);
}

/// Runs `flood` and checks the honest user and the memory after it.
fn withstands(flood: impl FnOnce(&Server)) {
    let mut server = Setup::with_users(&["alice", "bob"]).start();
    honest_user_is_served(&server);
    let before = server.process.resident();
    flood(&server);
    assert!(server.process.running(), "it fell over:\n{}", server.process.output());
    honest_user_is_served(&server);
    let grown = server.process.resident().saturating_sub(before);
    assert!(grown < MEMORY, "{grown} bytes more after the flood");
}

/// A fixed stream of noise, so that a failure can be repeated.
fn noise(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// A little pause now and then, so that the kernel does not drop the flood before the server has seen it.
fn breathe(nth: usize) {
    if nth % 50 == 49 {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn random_bytes_do_no_harm() {
    withstands(|server| {
        let peer = Peer::at([127, 0, 0, 66], 0);
        let mut seed = 0x1577_0a5e_ed01;
        for nth in 0..5000 {
            let length = (noise(&mut seed) % 1400) as usize;
            let bytes: Vec<u8> = (0..length).map(|_| noise(&mut seed) as u8).collect();
            peer.send(server.sip, &bytes);
            breathe(nth);
        }
    });
}

#[test]
fn mangled_requests_do_no_harm() {
    withstands(|server| {
        let peer = Peer::at([127, 0, 0, 67], 0);
        let mut seed = 0x1577_0a5e_ed02;
        let good = peer.request(
            "INVITE",
            &format!("sip:bob@{DOMAIN}"),
            ["mallory", "bob"],
            "mangled",
            "Content-Type: a/b\r\n",
            "body",
        );
        for nth in 0..5000 {
            let mut bytes = good.clone();
            for _ in 0..1 + noise(&mut seed) % 8 {
                let at = (noise(&mut seed) % bytes.len() as u64) as usize;
                match noise(&mut seed) % 3 {
                    0 => bytes[at] = noise(&mut seed) as u8,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, noise(&mut seed) as u8),
                }
            }
            peer.send(server.sip, &bytes);
            breathe(nth);
        }
    });
}

#[test]
fn half_open_connections_do_no_harm() {
    let held = std::cell::RefCell::new(Vec::new());
    withstands(|server| {
        let address = SocketAddr::from(([127, 0, 0, 1], server.sip));
        for _ in 0..500 {
            let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { break };
            // The beginning of a message that never goes on.
            let _ = std::io::Write::write_all(&mut stream, b"INVITE sip:bob@isthmus.test SIP/2.0\r\nVia: SIP/2.0/TCP");
            held.borrow_mut().push(stream);
        }
        assert!(!held.borrow().is_empty(), "nothing was flooded");
    });
}

#[test]
fn guessed_passwords_do_no_harm() {
    withstands(|server| {
        let peer = Peer::at([127, 0, 0, 68], 0);
        for nth in 0..5000 {
            let answer = format!(
                "Authorization: Digest username=\"alice\", realm=\"{DOMAIN}\", nonce=\"bogus{nth}\", uri=\"sip:{DOMAIN}\", \
                 response=\"{nth:032x}\"\r\n"
            );
            peer.send(
                server.sip,
                &peer.request(
                    "REGISTER",
                    &format!("sip:{DOMAIN}"),
                    ["alice", "alice"],
                    &format!("g{nth}"),
                    &answer,
                    "",
                ),
            );
            breathe(nth);
        }
    });
}

#[test]
fn calls_without_ack_do_no_harm() {
    withstands(|server| {
        let peer = Peer::at([127, 0, 0, 69], 0);
        for nth in 0..5000 {
            let request = peer.request(
                "INVITE",
                &format!("sip:nobody{nth}@{DOMAIN}"),
                ["mallory", "nobody"],
                &format!("n{nth}"),
                "",
                "",
            );
            peer.send(server.sip, &request);
            breathe(nth);
        }
    });
}

#[test]
fn response_is_hardly_larger_than_the_request_to_an_unproven_source() {
    let server = Setup::with_users(&["alice"]).start();
    let peer = Peer::new(0);
    for (nth, method) in ["OPTIONS", "REGISTER", "INVITE", "MESSAGE", "SUBSCRIBE", "PUBLISH"].into_iter().enumerate() {
        let request =
            peer.request(method, &format!("sip:alice@{DOMAIN}"), ["mallory", "alice"], &format!("amp{nth}"), "", "");
        peer.send(server.sip, &request);
        let mut answered = 0;
        while let Some(answer) = peer.receive(Duration::from_millis(300)) {
            answered += answer.len();
            // The ACK that ends the retransmissions of an INVITE's answer is for the other stories; here one answer counts.
            if !answer.starts_with(b"SIP/2.0 100") {
                break;
            }
        }
        assert!(answered <= request.len() * 3, "{method}: {} bytes in, {answered} out", request.len());
    }
}

#[test]
fn sipsak_floods_and_mangles_in_vain() {
    withstands(|server| {
        let target = format!("sip:127.0.0.1:{}", server.sip);
        // Flood mode sends requests without waiting; random mode replaces characters of one until it is no longer answered.
        for arguments in [vec!["-F", "-e", "2000", "-s", &target], vec!["-R", "-t", "50", "-s", &target]] {
            let mut sipsak = harness::Process::start("sipsak", server.path(), Command::new("sipsak").args(arguments));
            let _ = sipsak.wait(Duration::from_secs(5));
        }
    });
}
