use std::net::IpAddr;
use std::sync::atomic::AtomicU32;

use super::*;

/// Nobody writes it down.
struct Unread;

impl Chronicle for Unread {
    fn note(&self, _: &Note<'_>) {}
}

const OURS: &str = "127.0.0.1";

/// A screen with ports for so many streams, and the runtime that they need.
fn screen(streams: u16) -> (Screen, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // Of this process and of this test, below the ports that systems give out by themselves.
    static NTH: AtomicU32 = AtomicU32::new(0);
    let block = std::process::id().wrapping_add(NTH.fetch_add(1, Relaxed)) % 125;
    let first = 16_000 + block as u16 * 32;
    let config = media_rtp::Config { address: OURS.parse().unwrap(), ports: first..=first + 4 * streams - 1 };
    let relay = Relay::new(config, runtime.handle().clone());
    let config = ScreenConfig {
        max_calls: 2,
        silence: Duration::from_secs(60),
        messages: vec!["127.0.0.1:2855".parse().unwrap()],
    };
    (Screen::new(config, relay, Arc::new(Unread)), runtime)
}

fn sdp(host: &str, media: &str) -> String {
    format!("v=0\r\no=x 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n{media}")
}

/// A message between `a`, who asked, and `b`: its first line, both tags (in this order), CSeq, body.
fn message(start: &str, [from, to]: [&str; 2], cseq: &str, body: &str) -> Vec<u8> {
    let tag = |tag: &str| if tag.is_empty() { String::new() } else { format!(";tag={tag}") };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{start}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:f@x>{}\r\nTo: <sip:t@x>{}\r\nCall-ID: c\r\n\
         CSeq: {cseq}\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        tag(from),
        tag(to),
        body.len()
    )
    .into_bytes()
}

fn request(method: &str, tags: [&str; 2], number: u32, body: &str) -> Vec<u8> {
    message(&format!("{method} sip:b SIP/2.0"), tags, &format!("{number} {method}"), body)
}

impl Screen {
    /// What the other side sees of the body.
    fn shows(&self, bytes: &[u8]) -> String {
        let message = Message::parse(bytes).unwrap();
        let passing = if message.is_request() { self.request(&message) } else { self.response(&message) };
        match passing {
            Passing::AsItIs => "as it is".to_owned(),
            Passing::Body(body) => String::from_utf8(body).unwrap(),
        }
    }

    fn takes(&self, bytes: &[u8]) -> bool {
        let message = Message::parse(bytes).unwrap();
        let can = self.can_hide(&message);
        if can {
            self.hide(&message);
        }
        can
    }

    /// What it says again is what it said.
    fn port_of(&self, bytes: &[u8]) -> u16 {
        let shown = self.shows(bytes);
        assert_eq!(shown, self.shows(bytes));
        assert!(!shown.contains("127.0.0.5") && !shown.contains("127.0.0.6"), "{shown}");
        assert!(shown.contains("o=- 1 1 IN IP4 127.0.0.1\r\n"), "{shown}");
        shown.split("m=audio ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    }

    fn open(&self) -> usize {
        self.calls()
    }
}

const AUDIO: &str = "m=audio 4000 RTP/AVP 0\r\n";

/// A call from `127.0.0.5` that `127.0.0.6` has answered; the ports that each was told, hers first.
fn answered(screen: &Screen) -> [u16; 2] {
    let invite = request("INVITE", ["a", ""], 1, &sdp("127.0.0.5", AUDIO));
    assert!(screen.takes(&invite));
    let his = screen.port_of(&invite);
    let hers = screen.port_of(&message("SIP/2.0 200 OK", ["a", "b"], "1 INVITE", &sdp("127.0.0.6", AUDIO)));
    assert_ne!(hers, his);
    [hers, his]
}

#[test]
fn both_sides_see_our_address_and_the_end_frees_it() {
    let (screen, _runtime) = screen(2);
    let [hers, his] = answered(&screen);
    assert_eq!(screen.open(), 1);
    // He offers again, and she answers; each is told the same port.
    let again = request("INVITE", ["b", "a"], 7, &sdp("127.0.0.6", AUDIO));
    assert!(screen.takes(&again));
    assert_eq!(screen.port_of(&again), hers);
    assert_eq!(screen.port_of(&message("SIP/2.0 200 OK", ["b", "a"], "7 INVITE", &sdp("127.0.0.5", AUDIO))), his);
    assert_eq!(screen.shows(&request("BYE", ["b", "a"], 8, "")), "as it is");
    screen.shows(&message("SIP/2.0 200 OK", ["b", "a"], "8 BYE", ""));
    assert_eq!(screen.open(), 0);
    assert!(!screen.hides(&Message::parse(&again).unwrap()));
}

#[test]
fn what_is_not_asked_for_stays_as_it_is() {
    let (screen, _runtime) = screen(2);
    let invite = request("INVITE", ["a", ""], 1, &sdp("127.0.0.5", AUDIO));
    assert_eq!(screen.shows(&invite), "as it is");
    // Meant, but it went to somebody we trust instead: its answer is not for us.
    assert!(screen.takes(&invite));
    let answer = message("SIP/2.0 200 OK", ["a", "b"], "1 INVITE", &sdp("127.0.0.6", AUDIO));
    assert_eq!(screen.shows(&answer), "as it is");
}

#[test]
fn a_call_that_comes_by_again_is_left_alone() {
    let (screen, _runtime) = screen(2);
    let invite = request("INVITE", ["a", ""], 1, &sdp("127.0.0.5", &format!("{AUDIO}m=video 0 RTP/AVP 31\r\n")));
    assert!(screen.takes(&invite));
    let hidden = screen.shows(&invite);
    assert_eq!(screen.shows(&request("INVITE", ["a", ""], 1, &hidden)), "as it is");
}

#[test]
fn an_offer_in_the_response_is_hidden_and_answered_in_the_ack() {
    let (screen, _runtime) = screen(2);
    let invite = request("INVITE", ["a", ""], 1, "");
    assert!(screen.takes(&invite));
    assert_eq!(screen.shows(&invite), "as it is");
    let hers = screen.port_of(&message("SIP/2.0 200 OK", ["a", "b"], "1 INVITE", &sdp("127.0.0.6", AUDIO)));
    let his = screen.port_of(&request("ACK", ["a", "b"], 1, &sdp("127.0.0.5", AUDIO)));
    assert_ne!(hers, his);
}

#[test]
fn offers_in_prack_and_update_are_answered_by_their_responses() {
    let (screen, _runtime) = screen(2);
    let invite = request("INVITE", ["a", ""], 1, &sdp("127.0.0.5", AUDIO));
    assert!(screen.takes(&invite));
    let his = screen.port_of(&invite);
    let progress = message("SIP/2.0 183 Session Progress", ["a", "b"], "1 INVITE", &sdp("127.0.0.6", AUDIO));
    let hers = screen.port_of(&progress);
    for (number, method) in [(2, "PRACK"), (3, "UPDATE")] {
        let offer = request(method, ["a", "b"], number, &sdp("127.0.0.5", AUDIO));
        assert!(screen.takes(&offer));
        assert_eq!(screen.port_of(&offer), his);
        let cseq = format!("{number} {method}");
        assert_eq!(screen.port_of(&message("SIP/2.0 200 OK", ["a", "b"], &cseq, &sdp("127.0.0.6", AUDIO))), hers);
    }
    let from_callee = request("UPDATE", ["b", "a"], 1, &sdp("127.0.0.6", AUDIO));
    assert!(screen.takes(&from_callee));
    assert_eq!(screen.port_of(&from_callee), hers);
}

#[test]
fn each_stream_has_ports_of_its_own_and_a_rejected_one_gives_them_back() {
    let (screen, _runtime) = screen(2);
    let both = format!("{AUDIO}m=video 4002 RTP/AVP 31\r\n");
    let invite = request("INVITE", ["a", ""], 1, &sdp("127.0.0.5", &both));
    assert!(screen.takes(&invite));
    let shown = screen.shows(&invite);
    let video = shown.split("m=video ").nth(1).unwrap().split(' ').next().unwrap();
    assert_ne!(video, screen.port_of(&invite).to_string());
    let refused = sdp("127.0.0.6", &format!("{AUDIO}m=video 0 RTP/AVP 31\r\n"));
    let shown = screen.shows(&message("SIP/2.0 200 OK", ["a", "b"], "1 INVITE", &refused));
    assert!(shown.contains("m=video 0 RTP/AVP 31\r\n"), "{shown}");
    let call = |look: fn(&Call) -> usize| look(screen.calls.lock().get(&b"c"[..]).unwrap());
    assert_eq!(call(|c| c.streams.iter().flatten().count()), 1);
}

#[test]
fn calls_that_fail_or_are_forgotten_end() {
    // Ports come back a moment after a call has ended.
    let (screen, _runtime) = screen(8);
    let invite = request("INVITE", ["a", ""], 1, &sdp("127.0.0.5", AUDIO));
    for status in ["486 Busy Here", "487 Request Terminated", "302 Moved"] {
        assert!(screen.takes(&invite));
        screen.shows(&invite);
        assert_eq!(screen.open(), 1);
        screen.shows(&message(&format!("SIP/2.0 {status}"), ["a", "b"], "1 INVITE", ""));
        assert_eq!(screen.open(), 0);
    }
    let now = Instant::now();
    assert!(screen.takes(&invite));
    screen.shows(&invite);
    screen.sweep(now + ANSWER_WAIT - Duration::from_secs(1));
    assert_eq!(screen.open(), 1);
    screen.sweep(now + ANSWER_WAIT + Duration::from_secs(1));
    assert_eq!(screen.open(), 0);
    // Answered, it lasts until nothing is heard of it, or a BYE went through.
    answered(&screen);
    screen.sweep(now + Duration::from_secs(59));
    assert_eq!(screen.open(), 1);
    screen.sweep(now + Duration::from_secs(70));
    assert_eq!(screen.open(), 0);
    answered(&screen);
    screen.shows(&request("BYE", ["a", "b"], 2, ""));
    screen.sweep(now + BYE_WAIT + Duration::from_secs(1));
    assert_eq!(screen.open(), 0);
}

#[test]
fn a_failed_offer_changes_nothing_and_a_failed_bye_of_another_phone_neither() {
    let (screen, _runtime) = screen(2);
    let [hers, _] = answered(&screen);
    let again = request("INVITE", ["b", "a"], 2, &sdp("127.0.0.6", AUDIO));
    assert!(screen.takes(&again));
    assert_eq!(screen.port_of(&again), hers);
    screen.shows(&message("SIP/2.0 488 Not Acceptable Here", ["b", "a"], "2 INVITE", ""));
    assert_eq!(screen.open(), 1);
    // A second phone had answered too, and is hung up.
    let second = message("SIP/2.0 200 OK", ["a", "b2"], "1 INVITE", &sdp("127.0.0.7", AUDIO));
    assert!(!screen.shows(&second).contains("127.0.0.7"));
    screen.shows(&request("BYE", ["a", "b2"], 3, ""));
    screen.shows(&message("SIP/2.0 200 OK", ["a", "b2"], "3 BYE", ""));
    assert_eq!(screen.open(), 1);
}

#[test]
fn what_cannot_be_hidden_is_told() {
    let (screen, _runtime) = screen(1);
    let invite = |media: &str| request("INVITE", ["a", ""], 1, &sdp("127.0.0.5", media));
    let messages = "m=message 9 TCP/MSRP *\r\na=path:msrp://127.0.0.5:9/s;tcp\r\n";
    for (media, can) in [
        (AUDIO, true),
        ("m=audio 4000 UDP/TLS/RTP/SAVPF 0\r\n", true),
        ("m=image 4000 udptl t38\r\n", true),
        (messages, true),
        ("m=application 9 TCP/BFCP *\r\n", false),
        ("m=application 0 TCP/BFCP *\r\n", true),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP6 2001:db8::1\r\n", false),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 224.2.1.1/127\r\n", false),
        ("m=audio 4000 RTP/AVP 0\r\nm=video 4002 RTP/AVP 31\r\n", false),
    ] {
        assert_eq!(screen.can_hide(&Message::parse(&invite(media)).unwrap()), can, "{media}");
    }
    let broken = request("INVITE", ["a", ""], 1, "no description");
    assert!(!screen.can_hide(&Message::parse(&broken).unwrap()));
    for (text, can) in [("MESSAGE", false), ("INVITE", true)] {
        let bytes = request(text, ["a", ""], 1, "");
        assert_eq!(screen.can_hide(&Message::parse(&bytes).unwrap()), can, "{text}");
    }
}

#[test]
fn where_the_caller_wants_what_has_no_port_it_gets_none() {
    let (screen, _runtime) = screen(1);
    answered(&screen);
    let other = String::from_utf8(request("INVITE", ["x", ""], 1, "")).unwrap().replace("Call-ID: c", "Call-ID: d");
    assert!(screen.takes(other.as_bytes()));
    assert_eq!(screen.shows(other.as_bytes()), "as it is");
    let offer = message("SIP/2.0 200 OK", ["x", "y"], "1 INVITE", &sdp("127.0.0.6", AUDIO));
    let offer = String::from_utf8(offer).unwrap().replace("Call-ID: c", "Call-ID: d");
    assert!(screen.shows(offer.as_bytes()).contains("m=audio 0 RTP/AVP 0\r\n"));
    // And there are no more calls than the operator wants.
    let third = other.replace("Call-ID: d", "Call-ID: e");
    assert!(!screen.takes(third.as_bytes()));
}

#[test]
fn a_messaging_session_keeps_the_place_that_it_was_anchored_at() {
    let (screen, _runtime) = screen(1);
    let anchored = "m=message 2855 TCP/MSRP *\r\nc=IN IP4 127.0.0.1\r\na=path:msrp://127.0.0.1:2855/s;tcp\r\n";
    let open = "m=message 9 TCP/MSRP *\r\na=path:msrp://127.0.0.5:9/s;tcp\r\n";
    let invite = request("INVITE", ["a", ""], 1, &sdp("127.0.0.5", &format!("{anchored}{open}")));
    assert!(screen.takes(&invite));
    let shown = screen.shows(&invite);
    assert!(shown.contains(anchored) && shown.contains("m=message 0 TCP/MSRP *\r\n"), "{shown}");
    assert!(!shown.contains("127.0.0.5"), "{shown}");
}

#[test]
fn nobody_takes_over_a_call_by_its_call_id() {
    let (screen, _runtime) = screen(2);
    answered(&screen);
    assert!(!screen.takes(&request("INVITE", ["other", ""], 1, &sdp("127.0.0.9", AUDIO))));
    assert_eq!(screen.shows(&request("BYE", ["other", "b"], 2, "")), "as it is");
    screen.shows(&message("SIP/2.0 200 OK", ["other", "b"], "2 BYE", ""));
    assert_eq!(screen.open(), 1);
}

#[test]
fn what_cannot_be_read_is_withheld_once_the_call_is_hidden() {
    let (screen, _runtime) = screen(2);
    answered(&screen);
    for what in ["v=0\r\nno line", "v=0\r\nm=audio x RTP/AVP 0\r\n"] {
        assert_eq!(screen.shows(&message("SIP/2.0 200 OK", ["b", "a"], "9 INVITE", what)), "");
    }
}

#[test]
fn an_address_that_is_none_is_not_sent_to() {
    let (screen, _runtime) = screen(1);
    let held = sdp("127.0.0.5", "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n");
    let parsed = Sdp::parse(held.as_bytes()).unwrap();
    assert_eq!(screen.far(&parsed, &parsed.media()[0]), Some(Far::Nowhere));
    let named = sdp("phone.a.example", AUDIO);
    let parsed = Sdp::parse(named.as_bytes()).unwrap();
    assert_eq!(screen.far(&parsed, &parsed.media()[0]), Some(Far::Unknown));
    assert_eq!(screen.relay().address(), OURS.parse::<IpAddr>().unwrap());
}
