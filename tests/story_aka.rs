//! Phones with a SIM (AKAv1-MD5, RFC 3310): SIPp has one, and what our challenges are worth is judged by Osmocom's
//! authentication centre, which holds the same keys.

mod harness;
#[path = "harness/postgres.rs"]
#[allow(dead_code)] // Shared: other tests use the rest of it.
mod postgres;

use std::process::Command;
use std::time::Duration;

use harness::digest::{aes, authorization, base64, challenges, hex, quoted, to_base64, unhex};
use harness::sipp::Outcome;
use harness::{DOMAIN, PASSWORD, Peer, Server, Setup, Sipp, header, raw};

/// K and OP of TS 35.208's third test set, and an AMF with the separation bit. (SIPp reads a key that it was given for a user as
/// text once more, and takes the octet 5b in it for the beginning of a keyword: so not the first set.)
const SIM: [&str; 3] = ["fec86ba6eb707ed08905757b1bb44b8f", "dbc59adcb6f9a0ef735477b7fadf8374", "8000"];
/// K and OPc of its second.
const OTHER: [&str; 2] = ["0396eb317b6d1c36f19c1c84cd6ffd16", "53c15671c60a4b731c55b4a441c0bde2"];

fn started() -> Server {
    setup().start()
}

fn setup() -> Setup {
    let mut setup = Setup::with_users(&["bob"]);
    setup.provisions = format!(
        "[[user]]\nid = \"simon\"\naka = {{ k = \"{}\", op = \"{}\" }}\n\
         [[user]]\nid = \"both\"\npassword = \"{PASSWORD}\"\naka = {{ k = \"{}\", opc = \"{}\", amf = \"8000\" }}\n",
        SIM[0], SIM[1], OTHER[0], OTHER[1]
    );
    setup
}

/// What Osmocom's authentication centre makes of one RAND and SQN.
struct Centre {
    autn: [u8; 16],
    res: Vec<u8>,
    text: String,
}

fn centre(arguments: &[&str]) -> Centre {
    let mut command = Command::new("osmo-auc-gen");
    command.args(["-3", "-a", "MILENAGE", "-k", SIM[0], "-O", SIM[1], "-f", SIM[2]]).args(arguments);
    let done = command.output().expect("osmo-auc-gen runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "osmo-auc-gen {arguments:?}: {text}{}", String::from_utf8_lossy(&done.stderr));
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
        line.trim().to_owned()
    };
    Centre { autn: unhex(&field("AUTN:")), res: unhex::<8>(&field("RES:")).to_vec(), text: text.clone() }
}

/// What one of our challenges says, as the SIM reads it.
struct Challenge {
    text: String,
    rand: [u8; 16],
    sqn: u64,
    res: Vec<u8>,
}

/// Reads a challenge for [`SIM`]; the centre must make the very same of its RAND and SQN.
fn read(answer: &str) -> Challenge {
    assert!(matches!(raw::status(answer), Some(401 | 407)), "{answer}");
    let text = challenges(answer)[0].to_owned();
    assert!(text.contains("algorithm=AKAv1-MD5"), "{text}");
    let nonce = base64(quoted(&text, "nonce"));
    let (rand, autn): ([u8; 16], [u8; 16]) = (nonce[..16].try_into().unwrap(), nonce[16..32].try_into().unwrap());
    // With SQN 0 the first octets of AUTN are AK alone.
    let ak = centre(&["-r", &hex(&rand), "-s", "0"]).autn;
    let sqn = (0..6).fold(0, |n, i| n << 8 | u64::from(autn[i] ^ ak[i]));
    let made = centre(&["-r", &hex(&rand), "-s", &sqn.to_string()]);
    assert_eq!(hex(&made.autn), hex(&autn), "SQN {sqn}");
    Challenge { text, rand, sqn, res: made.res }
}

/// A phone with [`SIM`], until it is asked something that it can answer: SIPp takes RES for text, which an octet 0 ends (in one challenge of 32).
fn succeeds(phone: impl Fn() -> Sipp) -> Outcome {
    for _ in 0..5 {
        let done = phone().sim("simon", SIM).run();
        let refused = |m: &&str| matches!(raw::status(m), Some(401 | 407));
        let challenge = read(done.received().into_iter().find(refused).expect("a challenge"));
        if !challenge.res.contains(&0) {
            done.all_ok(Some(1));
            return done;
        }
    }
    panic!("five challenges with an octet 0 in RES");
}

/// One REGISTER of `user`, and its answer.
fn register(server: &Server, peer: &Peer, user: &str, sequence: u32, more: &str) -> String {
    let call_id = format!("{user}{sequence}");
    let more = format!("Expires: 60\r\n{more}");
    let request = peer.request("REGISTER", &format!("sip:{DOMAIN}"), [user, user], &call_id, &more, "");
    peer.send(server.sip, &request);
    peer.receive_with(&call_id, Duration::from_secs(20)).expect("an answer")
}

fn answer(challenge: &Challenge, user: &str, res: &[u8]) -> String {
    authorization(&challenge.text, user, res, "AKAv1-MD5", "md5")
}

#[test]
fn phone_with_a_sim_registers_by_aka_alone() {
    let server = started();
    let port = server.ports.next();
    let phone = || Sipp::new(&server, "register", port).set("CONTACT", format!("127.0.0.1:{port}"));
    let done = succeeds(|| phone().set("PARAMS", "").set("EXPIRES", 600));
    let refused = done.received().into_iter().find(|m| m.starts_with("SIP/2.0 401")).expect("a challenge").to_owned();
    assert_eq!(challenges(&refused).len(), 1, "{refused}");
    read(&refused);
    let accepted = *done.received().last().unwrap();
    assert!(header(accepted, "Contact").is_some_and(|c| c.contains("simon@")), "{accepted}");
}

#[test]
fn phone_with_a_sim_calls_somebody() {
    let server = started();
    let bob = server.ports.next();
    let register = Sipp::new(&server, "register", bob).set("CONTACT", format!("127.0.0.1:{bob}"));
    register.set("PARAMS", "").set("EXPIRES", 600).users(&["bob"]).succeed();
    let answering = Sipp::new(&server, "answer", bob).set("CODE", 200).start();
    let call = || Sipp::new(&server, "call", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    let done = succeeds(call);
    answering.succeed(1);
    let refused = done.received().into_iter().find(|m| m.starts_with("SIP/2.0 407")).expect("a challenge");
    assert!(header(refused, "Proxy-Authenticate").is_some_and(|c| c.contains("algorithm=AKAv1-MD5")), "{refused}");
}

#[test]
fn ims_phone_names_its_private_identity_before_it_is_asked() {
    let server = started();
    let peer = Peer::new(server.ports.next());
    let private = format!("simon@{DOMAIN}");
    // TS 24.229 5.1.1.2: the first REGISTER says who it is and proves nothing.
    let named = format!(
        "Authorization: Digest username=\"{private}\", realm=\"{DOMAIN}\", nonce=\"\", uri=\"sip:{DOMAIN}\", response=\"\"\r\n"
    );
    let challenge = read(&register(&server, &peer, "simon", 1, &named));
    let accepted = register(&server, &peer, "simon", 2, &answer(&challenge, &private, &challenge.res));
    assert_eq!(raw::status(&accepted), Some(200), "{accepted}");
}

#[test]
fn wrong_answers_are_refused() {
    let server = started();
    let peer = Peer::new(server.ports.next());
    let first = read(&register(&server, &peer, "simon", 1, ""));
    let wrong = read(&register(&server, &peer, "simon", 2, &answer(&first, "simon", &[7; 8])));
    assert!(wrong.sqn > first.sqn, "a fresh challenge");
    // The right answer of one SIM, given in the name of another user.
    let other = register(&server, &peer, "both", 3, &answer(&wrong, "both", &wrong.res));
    assert_eq!(raw::status(&other), Some(401), "{other}");
    // A password is no answer of a SIM, and a SIM's answer no password.
    let password = authorization(&wrong.text, "simon", b"none", "MD5", "md5");
    assert_eq!(raw::status(&register(&server, &peer, "simon", 4, &password)), Some(401));
    let good = register(&server, &peer, "simon", 5, &answer(&wrong, "simon", &wrong.res));
    assert_eq!(raw::status(&good), Some(200), "{good}");
    let again = register(&server, &peer, "simon", 6, &answer(&wrong, "simon", &wrong.res));
    assert_eq!(raw::status(&again), Some(401), "used once: {again}");
    assert!(challenges(&again)[0].contains("stale=true"), "{again}");
}

#[test]
fn user_with_sim_and_password_may_use_either() {
    let server = started();
    let peer = Peer::new(server.ports.next());
    let first = register(&server, &peer, "both", 1, "");
    let offers = challenges(&first);
    assert!(offers[0].contains("algorithm=AKAv1-MD5"), "{first}");
    let md5 = offers.iter().find(|c| c.contains("algorithm=MD5")).expect("an offer of MD5");
    let second = register(&server, &peer, "both", 2, &authorization(md5, "both", PASSWORD.as_bytes(), "MD5", "md5"));
    assert_eq!(raw::status(&second), Some(200), "{second}");
}

#[test]
fn sequence_numbers_do_not_go_back_after_kill_9() {
    let mut server = started();
    let mut last = 0;
    for life in 0..3 {
        let peer = Peer::new(server.ports.next());
        for nth in 0..40 {
            let challenge = read(&register(&server, &peer, "simon", life * 100 + nth, ""));
            assert!(challenge.sqn >> 5 > last >> 5, "life {life}: SQN {} after {last}", challenge.sqn);
            last = challenge.sqn;
        }
        server.restart();
    }
}

#[test]
fn two_nodes_share_the_numbers_and_each_judges_what_the_other_asked() {
    // It ends after the servers, which are declared later.
    let postgres = postgres::Postgres::start();
    let node = |name: &str| {
        let mut setup = setup();
        setup.sections =
            format!("[store]\nengine = \"postgres\"\nurl = \"{}\"\n[node]\nname = \"{name}\"\n", postgres.url());
        setup.start()
    };
    let nodes = [node("one"), node("two")];
    let peer = Peer::new(nodes[0].ports.next());
    let mut seen = std::collections::HashSet::new();
    for turn in 0..8 {
        let (asks, judges) = (&nodes[turn % 2], &nodes[(turn + 1) % 2]);
        let sequence = turn as u32 * 10;
        let challenge = read(&register(asks, &peer, "simon", sequence + 1, ""));
        assert!(seen.insert(challenge.sqn), "SQN {} was given out twice", challenge.sqn);
        let accepted = register(judges, &peer, "simon", sequence + 2, &answer(&challenge, "simon", &challenge.res));
        assert_eq!(raw::status(&accepted), Some(200), "{accepted}");
    }
}

#[test]
fn a_sim_that_counts_otherwise_brings_the_server_to_its_number() {
    let server = started();
    let peer = Peer::new(server.ports.next());
    let first = read(&register(&server, &peer, "simon", 1, ""));
    let sims: u64 = 123_456_789 << 5 | 3;
    let auts = auts(&first.rand, sims);
    let judged = centre(&["-r", &hex(&first.rand), "-A", &hex(&auts)]);
    assert!(judged.text.contains(&sims.to_string()), "the centre does not believe this SIM: {}", judged.text);

    let ask = |auts: &[u8]| {
        let token = format!(", auts=\"{}\"\r\n", to_base64(auts));
        answer(&first, "simon", b"").trim_end().to_owned() + &token
    };
    let mut forged = auts;
    forged[13] ^= 1;
    let refused = register(&server, &peer, "simon", 2, &ask(&forged));
    assert_eq!(raw::status(&refused), Some(403), "{refused}");
    let second = read(&register(&server, &peer, "simon", 3, &ask(&auts)));
    assert_eq!(second.sqn >> 5, (sims >> 5) + 1);
    let accepted = register(&server, &peer, "simon", 4, &answer(&second, "simon", &second.res));
    assert_eq!(raw::status(&accepted), Some(200), "{accepted}");
}

/// The token of a SIM that has come to `sqn` (TS 33.102 §6.3.3), by TS 35.206 over openssl's AES.
fn auts(rand: &[u8; 16], sqn: u64) -> [u8; 14] {
    let xor = |a: &[u8], b: &[u8]| -> [u8; 16] { std::array::from_fn(|i| a[i] ^ b[i]) };
    let key: [u8; 16] = unhex(SIM[0]);
    let op: [u8; 16] = unhex(SIM[1]);
    let opc = xor(&aes(&key, &op), &op);
    let temp = aes(&key, &xor(rand, &opc));
    // f5*: r5 = 96 bits, c5 = 8.
    let mut turned = xor(&temp, &opc);
    turned.rotate_left(12);
    turned[15] ^= 8;
    let ak = xor(&aes(&key, &turned), &opc);
    // f1*: r1 = 64 bits, c1 = 0, AMF = 0.
    let octets = &sqn.to_be_bytes()[2..];
    let half = [octets, &[0, 0]].concat();
    let mut in1 = xor(&[half.clone(), half].concat(), &opc);
    in1.rotate_left(8);
    let mac = xor(&aes(&key, &xor(&temp, &in1)), &opc);
    std::array::from_fn(|i| if i < 6 { octets[i] ^ ak[i] } else { mac[i + 2] })
}
