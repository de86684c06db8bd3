//! Callers who do not want to be found by their media (`Privacy: session`, RFC 3323 §5.2): both ends hear each other
//! through this server, and neither learns where the other is. Each end, and the relay, has a loopback address of its
//! own, so that a leak shows; but baresip sends from 127.0.0.1.

mod harness;

use std::time::Duration;

use harness::baresip::Phone;
use harness::sipp::{Outcome, Running};
use harness::{DOMAIN, Peer, Server, Setup, Sipp, bind, eventually, header, kamailio, msrp::told};

/// Where alice's media are, bob's, and those of somebody who has no part in it.
const HERS: [u8; 4] = [127, 0, 0, 5];
const HIS: [u8; 4] = [127, 0, 0, 6];
const NOBODYS: [u8; 4] = [127, 0, 0, 9];
/// Where the relay is.
const OURS: &str = "127.0.0.8";
/// How long what must come may take, and what must not come is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_millis(300);

/// A server with so many pairs of ports for media: a stream takes two.
fn started(pairs: u16, more: &str) -> (Server, harness::Ports) {
    started_with(pairs, more, "")
}

fn started_with(pairs: u16, more: &str, provisions: &str) -> (Server, harness::Ports) {
    let ports = harness::Ports::claim();
    let first = ports.next().next_multiple_of(2);
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.provisions = provisions.into();
    setup.sections = format!("[media]\naddress = \"{OURS}\"\nports = \"{first}-{}\"\n{more}", first + 2 * pairs - 1);
    (setup.start(), ports)
}

fn open(server: &Server, what: &str) -> f64 {
    let (_, text) = server.admin("/metrics");
    let name = format!("isthmus_media_open{{what=\"{what}\"}} ");
    text.lines().find_map(|l| l.strip_prefix(&name)?.parse().ok()).expect("the gauge is there")
}

fn total(server: &Server, kind: &str) -> f64 {
    let (_, text) = server.admin("/metrics");
    let name = format!("isthmus_media_total{{kind=\"{kind}\"}} ");
    text.lines().find_map(|l| l.strip_prefix(&name)?.parse().ok()).expect("the counter is there")
}

fn released(server: &Server) {
    eventually("every port is given back", PATIENCE, || {
        ["calls", "streams"].iter().all(|what| open(server, what) == 0.0)
    });
}

/// A media section at that end.
fn audio(end: &Peer, more: &str) -> String {
    format!("m=audio {} RTP/AVP 0\nc=IN IP4 {}\na=rtpmap:0 PCMU/8000\n{more}", end.port, ip(end))
}

fn ip(end: &Peer) -> std::net::IpAddr {
    end.socket.local_addr().unwrap().ip()
}

/// An RTP packet, by the book: version 2, PCMU, 20 ms.
fn rtp(sequence: u8) -> Vec<u8> {
    let mut packet = vec![0x80, 0, 0, sequence, 0, 0, 0, sequence, 1, 2, 3, 4];
    packet.resize(172, 0xd5);
    packet
}

/// A call between SIPps, whose media are the story's own sockets.
struct Call {
    call_id: &'static str,
    caller: Running,
    caller_port: u16,
    callee: Running,
}

impl Call {
    fn open(
        server: &Server,
        call_id: [&'static str; 2],
        [calls, answers]: [&'static str; 2],
        [offer, answer]: [&str; 2],
        caller: impl FnOnce(Sipp) -> Sipp,
    ) -> Call {
        let phone = server.ports.next();
        let callee = Sipp::new(server, answers, phone).from("127.0.0.6").set("MEDIA", answer).start();
        bind_at(server, "bob", &format!("127.0.0.6:{phone}"));
        let caller_port = server.ports.next();
        let sipp = Sipp::new(server, calls, caller_port).set("MEDIA", offer).set("URI", format!("sip:bob@{DOMAIN}"));
        let sipp = caller(sipp.from("127.0.0.5").set("MORE", "Privacy: header;session;critical\n"));
        let caller = sipp.users(&["alice"]).options(&call_id).start();
        Call { call_id: call_id[1], caller, caller_port, callee }
    }

    /// The ports that both ends are told, and that no address but ours is told with them.
    fn ports(&self) -> [u16; 2] {
        [&self.caller, &self.callee].map(|running| {
            let line = told(running, "m=audio ");
            assert_eq!(told(running, "c="), format!("IN IP4 {OURS}"));
            assert!(told(running, "o=").ends_with(&format!(" IN IP4 {OURS}")));
            line.split(' ').next().unwrap().parse().unwrap()
        })
    }

    /// The caller goes on in its scenario.
    fn go_on(&self) {
        let peer = Peer::new(0);
        let info = peer.request("INFO", "sip:x", ["bob", "alice"], self.call_id, "", "");
        peer.socket.send_to(&info, (std::net::Ipv4Addr::from(HERS), self.caller_port)).unwrap();
    }

    /// The caller hangs up; SIPp must be content on both sides, and neither has seen the address of the other.
    fn hang_up(self) -> [Outcome; 2] {
        self.go_on();
        let [mine, theirs] = [self.caller, self.callee].map(|running| running.succeed(1));
        tells_nothing(&mine, "127.0.0.6");
        tells_nothing(&theirs, "127.0.0.5");
        [mine, theirs]
    }
}

/// Descriptions that were received do not hold this address; for the callee nothing does.
fn tells_nothing(seen: &Outcome, address: &str) {
    let described = seen.received().into_iter().filter(|m| m.contains("v=0")).collect::<Vec<_>>();
    assert!(!described.is_empty());
    for message in described {
        let description = &message[message.find("v=0").unwrap()..];
        assert!(!description.contains(address), "{message}");
    }
}

fn bind_at(server: &Server, user: &str, contact: &str) {
    let sipp = Sipp::new(server, "register", server.ports.next()).set("CONTACT", contact);
    sipp.set("PARAMS", "").set("EXPIRES", 600).users(&[user]).succeed();
}

/// To a port of the relay.
fn send(from: &Peer, port: u16, bytes: &[u8]) {
    from.socket.send_to(bytes, (OURS, port)).unwrap();
}

/// What one end sends arrives at the other, from our port.
fn passes(from: &Peer, at: u16, to: &Peer, from_us: u16, sequence: u8) {
    let packet = rtp(sequence);
    let mut buffer = [0; 4096];
    to.socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    eventually(&format!("{} is heard", ip(from)), PATIENCE, || {
        // Until the answer has gone through, nobody is known.
        send(from, at, &packet);
        let Ok((n, source)) = to.socket.recv_from(&mut buffer) else { return false };
        assert_eq!(source.to_string(), format!("{OURS}:{from_us}"), "the only address that it sees");
        buffer[..n] == packet
    });
    while to.receive(SILENCE).is_some() {}
}

/// Nothing of this arrives; what was said before may come late.
fn does_not_hear(end: &Peer, packet: &[u8]) {
    while let Some(heard) = end.receive(SILENCE) {
        assert_ne!(heard, packet, "{}", ip(end));
    }
}

#[test]
fn private_caller_hears_and_is_heard_by_a_phone_that_does_not_learn_where_it_is() {
    let (server, media) = started(4, "");
    let mut bob = Phone::traced(&server, "bob", 440, server.sip);
    bob.wait_registered();
    // Alice's loudspeaker is her microphone: SIPp sends back what it hears.
    let echo = media.next().next_multiple_of(2);
    let echo_port: &'static str = Box::leak(echo.to_string().into_boxed_str());
    let section = "m=audio [media_port] RTP/AVP 0\nc=IN IP4 [media_ip]\na=rtpmap:0 PCMU/8000";
    let port = server.ports.next();
    let caller = Sipp::new(&server, "session", port).set("MEDIA", section).set("URI", format!("sip:bob@{DOMAIN}"));
    let caller = caller.from("127.0.0.5").set("MORE", "Privacy: header;session;critical\nProxy-Require: privacy\n");
    let options = ["-cid_str", "private-echo", "-mi", "127.0.0.5", "-mp", echo_port, "-rtp_echo"];
    let caller = caller.users(&["alice"]).options(&options).start();
    bob.wait_event("CALL_INCOMING");
    bob.command("accept", "");
    bob.wait_event("CALL_ESTABLISHED");
    eventually("bob hears his own hum from alice", PATIENCE, || bob.heard_tone(440.0) > 0.5);
    assert_eq!((open(&server, "calls"), open(&server, "streams")), (1.0, 1.0));
    eventually("packets are counted", PATIENCE, || total(&server, "packets") > 50.0);

    let peer = Peer::new(0);
    let info = peer.request("INFO", "sip:x", ["bob", "alice"], "private-echo", "", "");
    peer.socket.send_to(&info, (std::net::Ipv4Addr::from(HERS), port)).unwrap();
    bob.wait_event("CALL_CLOSED");
    let mine = caller.succeed(1);
    tells_nothing(&mine, "127.0.0.1");
    released(&server);
    let seen = bob.process.output();
    let invite = &seen[seen.find("INVITE sip:").expect("its trace has the INVITE")..];
    assert!(invite.contains(&format!("c=IN IP4 {OURS}")), "{invite}");
    assert!(!invite.contains("127.0.0.5"), "{invite}");
    assert_eq!(header(invite, "Privacy"), None);
}

/// Sockets of one end at a pair of ports, for RTP and RTCP.
fn end(address: [u8; 4]) -> [Peer; 2] {
    for _ in 0..100 {
        let media = Peer::at(address, 0);
        let next = std::net::UdpSocket::bind((std::net::Ipv4Addr::from(address), media.port.wrapping_add(1)));
        if let (0, Ok(socket)) = (media.port % 2, next) {
            let port = media.port + 1;
            return [media, Peer { socket, port }];
        }
    }
    panic!("no pair of ports at {address:?}");
}

#[test]
fn ends_hear_each_other_from_our_address_alone_and_a_stranger_is_heard_by_nobody() {
    let (server, _media) = started(4, "");
    let ([alice, alices_rtcp], [bob, bobs_rtcp], stranger) = (end(HERS), end(HIS), Peer::at(NOBODYS, 0));
    let sections = [audio(&alice, "a=candidate:1 1 UDP 1 127.0.0.5 4000 typ host\na=ice-ufrag:abcd"), audio(&bob, "")];
    let scenarios = ["session_moves", "session_answer_twice"];
    let call = Call::open(&server, ["-cid_str", "private-hold"], scenarios, [&sections[0], &sections[1]], |sipp| {
        sipp.set("MOVED", audio(&alice, "a=sendonly"))
    });
    let [hers, his] = call.ports();
    passes(&alice, hers, &bob, his, 1);
    passes(&bob, his, &alice, hers, 2);
    passes(&alices_rtcp, hers + 1, &bobs_rtcp, his + 1, 3);
    passes(&bobs_rtcp, his + 1, &alices_rtcp, hers + 1, 4);

    let before = total(&server, "strangers");
    for port in [hers, his, hers + 1, his + 1] {
        send(&stranger, port, &rtp(9));
    }
    eventually("the stranger was noticed", PATIENCE, || total(&server, "strangers") - before >= 4.0);
    for end in [&alice, &bob, &alices_rtcp, &bobs_rtcp] {
        does_not_hear(end, &rtp(9));
    }

    // Alice puts bob on hold, and bob hears her music at the same place.
    call.go_on();
    eventually("bob was told", PATIENCE, || {
        let seen = call.callee.so_far();
        seen.received().iter().any(|m| m.contains("a=sendonly"))
    });
    passes(&alice, hers, &bob, his, 5);
    let [_, theirs] = call.hang_up();
    let invites: Vec<_> = theirs.received().into_iter().filter(|m| m.starts_with("INVITE")).collect();
    assert_eq!(invites.len(), 2);
    for invite in invites {
        assert!(!invite.contains("127.0.0.5") && !invite.contains("ice-ufrag"), "{invite}");
        assert!(invite.contains(&format!("m=audio {his} ")), "{invite}");
        assert_eq!(header(invite, "Privacy"), None, "{invite}");
    }
    released(&server);
}

#[test]
fn an_offer_in_the_answer_is_hidden_too_and_so_is_what_the_ack_says() {
    let (server, _media) = started(4, "");
    let ([alice, _], [bob, _]) = (end(HERS), end(HIS));
    let sections = [audio(&alice, ""), audio(&bob, "")];
    let scenarios = ["session_bare", "session_answer"];
    let call = Call::open(&server, ["-cid_str", "private-late"], scenarios, [&sections[0], &sections[1]], |sipp| sipp);
    let [hers, his] = call.ports();
    passes(&alice, hers, &bob, his, 1);
    passes(&bob, his, &alice, hers, 2);
    call.hang_up();
    released(&server);
}

#[test]
fn a_call_with_a_service_in_the_middle_is_relayed_once() {
    let filter = "[[filter]]\nuser = \"*\"\npriority = 10\nmethod = \"INVITE\"\nsession_case = \"terminating\"\nservice = \"b2bua\"\n";
    let (server, _media) = started_with(4, "", filter);
    let ([alice, _], [bob, _]) = (end(HERS), end(HIS));
    let sections = [audio(&alice, ""), audio(&bob, "")];
    let scenarios = ["session_moves", "session_answer_twice"];
    let call = Call::open(&server, ["-cid_str", "private-joined"], scenarios, [&sections[0], &sections[1]], |sipp| {
        sipp.set("MOVED", audio(&alice, "a=sendonly"))
    });
    let [hers, his] = call.ports();
    passes(&alice, hers, &bob, his, 1);
    passes(&bob, his, &alice, hers, 2);
    assert_eq!((open(&server, "calls"), open(&server, "streams")), (1.0, 1.0));
    call.go_on();
    eventually("bob was told", PATIENCE, || call.callee.so_far().received().iter().any(|m| m.contains("a=sendonly")));
    passes(&alice, hers, &bob, his, 3);
    call.hang_up();
    released(&server);
}

#[test]
fn without_a_port_left_a_critical_call_fails_and_another_goes_on_unfulfilled() {
    let (server, _media) = started(2, "");
    let ([alice, _], [bob, _]) = (end(HERS), end(HIS));
    let sections = [audio(&alice, ""), audio(&bob, "")];
    let scenarios = ["session", "session_answer"];
    let open = |id| Call::open(&server, ["-cid_str", id], scenarios, [&sections[0], &sections[1]], |sipp| sipp);
    let first = open("private-first");
    let [hers, his] = first.ports();
    passes(&alice, hers, &bob, his, 1);

    let refused = Sipp::new(&server, "private_call_refused", server.ports.next());
    refused.set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"]).succeed();
    let phone = server.ports.next();
    let callee = Sipp::new(&server, "session_answer", phone).set("MEDIA", &sections[1]).start();
    let caller = Sipp::new(&server, "session", server.ports.next()).set("MEDIA", &sections[0]);
    let caller = caller.set("URI", format!("sip:carol@127.0.0.1:{phone}")).set("MORE", "Privacy: session\n");
    let port: u16 = {
        let caller = caller.users(&["alice"]).options(&["-cid_str", "private-open"]).start();
        assert!(told(&caller, "c=").ends_with("127.0.0.1"));
        let seen = told(&callee, "Privacy: ");
        assert_eq!(seen.trim(), "session", "somebody behind us may still do it");
        let port = told(&callee, "m=audio ").split(' ').next().unwrap().parse().unwrap();
        let peer = Peer::new(0);
        let info = peer.request("INFO", "sip:x", ["bob", "alice"], "private-open", "", "");
        let at = header(caller.so_far().sent()[0], "Contact").unwrap().to_owned();
        let at = at.split(':').nth(2).unwrap().split(';').next().unwrap().parse().unwrap();
        peer.send(at, &info);
        caller.succeed(1);
        port
    };
    callee.succeed(1);
    assert_eq!(port, alice.port, "the description is as she wrote it");

    first.hang_up();
    released(&server);
    let again = open("private-again");
    let [hers, his] = again.ports();
    passes(&alice, hers, &bob, his, 2);
    again.hang_up();
}

#[test]
fn a_caller_that_gives_up_gives_the_ports_back() {
    let (server, _media) = started(2, "");
    let phone = server.ports.next();
    let callee = Sipp::new(&server, "private_ring", phone).start();
    bind(&server, "bob", phone, "");
    let caller = Sipp::new(&server, "private_call_cancelled", server.ports.next());
    let caller = caller.set("URI", format!("sip:bob@{DOMAIN}")).set("PRIVACY", "header;session;critical");
    caller.users(&["alice"]).succeed();
    let seen = callee.succeed(1);
    assert!(seen.received()[0].contains(&format!("c=IN IP4 {OURS}")), "{}", seen.received()[0]);
    assert!(!seen.received()[0].contains("192.0.2.1"), "{}", seen.received()[0]);
    released(&server);
}

#[test]
fn a_call_of_which_nothing_is_heard_gives_the_ports_back_and_can_still_be_hung_up() {
    let (server, _media) = started(2, "silence = 10\n");
    let ([alice, _], [bob, _]) = (end(HERS), end(HIS));
    let sections = [audio(&alice, ""), audio(&bob, "")];
    let scenarios = ["session", "session_answer"];
    let call = Call::open(&server, ["-cid_str", "private-quiet"], scenarios, [&sections[0], &sections[1]], |sipp| sipp);
    let [hers, his] = call.ports();
    passes(&alice, hers, &bob, his, 1);
    eventually("the relay gives up", 3 * PATIENCE, || open(&server, "streams") == 0.0);
    call.hang_up();
}

#[test]
fn another_life_of_the_server_still_knows_that_a_call_is_hidden() {
    let (mut server, _media) = started(2, "");
    let ([alice, _], [bob, _]) = (end(HERS), end(HIS));
    let sections = [audio(&alice, ""), audio(&bob, "")];
    let scenarios = ["session_moves", "session_answer_twice"];
    let call = Call::open(&server, ["-cid_str", "private-lives"], scenarios, [&sections[0], &sections[1]], |sipp| {
        sipp.set("MOVED", audio(&alice, "a=x-moved"))
    });
    let [hers, his] = call.ports();
    passes(&alice, hers, &bob, his, 1);
    server.restart();
    assert_eq!(open(&server, "streams"), 0.0);
    // Her phone offers again, and says nothing of privacy any more.
    call.go_on();
    let port = |running: &Running, cseq: &str| {
        let mut port = None;
        eventually("the second description is there", PATIENCE, || {
            let seen = running.so_far();
            let described = |m: &&&str| header(m, "CSeq") == Some(cseq) && m.contains("\nm=audio ");
            let found = seen.received().iter().find(described).map(|m| m.to_string());
            port = found.and_then(|m| m.split("m=audio ").nth(1)?.split(' ').next()?.parse::<u16>().ok());
            port.is_some()
        });
        port.unwrap()
    };
    let [hers, his] = [&call.caller, &call.callee].map(|running| port(running, "3 INVITE"));
    passes(&alice, hers, &bob, his, 2);
    passes(&bob, his, &alice, hers, 3);
    call.hang_up();
    released(&server);
}

#[test]
fn of_two_phones_each_is_heard_while_it_is_the_one_and_the_other_no_more() {
    let (server, _media) = started(2, "");
    let ([alice, _], [early, _], [bob, _]) = (end(HERS), end(HIS), end([127, 0, 0, 7]));
    let ports = [server.ports.next(), server.ports.next()];
    let one = Sipp::new(&server, "session_early", ports[0]).set("MEDIA", audio(&early, "")).start();
    let other = Sipp::new(&server, "session_answer_late", ports[1]).set("MEDIA", audio(&bob, "")).start();
    ports.iter().for_each(|port| bind(&server, "bob", *port, ""));
    let caller_port = server.ports.next();
    let caller = Sipp::new(&server, "session", caller_port).set("MEDIA", audio(&alice, ""));
    let caller = caller.set("URI", format!("sip:bob@{DOMAIN}")).set("MORE", "Privacy: header;session;critical\n");
    let caller = caller.users(&["alice"]).options(&["-cid_str", "private-fork"]).start();
    let port = |running: &Running| told(running, "m=audio ").split(' ').next().unwrap().parse::<u16>().unwrap();
    let [hers, his] = [port(&caller), port(&one)];
    assert_eq!(port(&other), his, "the offer is one for both");
    passes(&early, his, &alice, hers, 1);
    passes(&alice, hers, &early, his, 2);

    let peer = Peer::new(0);
    let info = |port: u16| peer.send(port, &peer.request("INFO", "sip:x", ["x", "x"], "private-fork", "", ""));
    info(ports[1]);
    one.succeed(1);
    passes(&bob, his, &alice, hers, 3);
    passes(&alice, hers, &bob, his, 4);
    send(&early, his, &rtp(5));
    does_not_hear(&alice, &rtp(5));
    info(caller_port);
    caller.succeed(1);
    other.succeed(1);
    released(&server);
}

#[test]
fn two_phones_talk_and_hold_and_neither_learns_where_the_other_is() {
    let (server, _media) = started(4, "");
    let more = harness::Ports::claim();
    let edge = more.next();
    let _edge = kamailio::private_edge(server.path(), edge, &server.address(), "header;session");
    let mut alice = Phone::traced(&server, "alice", 600, edge);
    let mut bob = Phone::traced(&server, "bob", 900, server.sip);
    bob.wait_registered();
    alice.talks_with(&mut bob);
    let before = total(&server, "packets");
    bob.command("hold", "");
    eventually("alice is held", PATIENCE, || received(&alice).iter().any(|m| m.contains("a=sendonly")));
    bob.command("resume", "");
    eventually("bob hears alice again", PATIENCE, || {
        total(&server, "packets") > before + 100.0 && bob.heard_tone(600.0) > 0.5
    });
    alice.command("hangup", "");
    bob.wait_event("CALL_CLOSED");
    released(&server);
    for phone in [&alice, &bob] {
        let messages = received(phone);
        let places: Vec<&str> = messages.iter().flat_map(|m| m.lines()).filter(|l| l.starts_with("c=")).collect();
        assert!(places.len() >= 2 && places.iter().all(|c| *c == format!("c=IN IP4 {OURS}")), "{places:?}");
    }
}

/// What a phone's trace has of what it was sent.
fn received(phone: &Phone) -> Vec<String> {
    let output = phone.process.output();
    let here = format!("-> 127.0.0.1:{}", phone.sip);
    let blocks =
        output.split("\nUDP ").filter(|block| block.lines().next().is_some_and(|first| first.ends_with(&here)));
    blocks.map(str::to_owned).collect()
}
