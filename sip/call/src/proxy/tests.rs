//! The proxy of one shard on a pretend clock: requests in, what leaves out.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_ims::service::Reach;
use sip_ims::user::{CallSettings, DigestSecrets};
use sip_net::driver::TransactionUser;
use sip_proto::build::Response;
use sip_proto::endpoint::{Endpoint, EndpointConfig, Received};
use sip_proto::transaction::Timing;
use sip_proto::{FlowId, Outbox, Transport};

use super::*;

mod joined;
mod nodes;
mod services;

#[derive(Default)]
struct World {
    bindings: Vec<(&'static str, &'static str, u16)>,
    trusted: bool,
    notes: Mutex<Vec<NoteEvent>>,
}

impl Location for World {
    fn each(&self, aor: &str, _: u64, show: &mut dyn FnMut(&Reach<'_>)) {
        for (_, uri, q) in self.bindings.iter().filter(|b| b.0 == aor) {
            let (path, instance, params) = (&b""[..], &b""[..], &b""[..]);
            show(&Reach { uri: uri.as_bytes(), path, hop: None, elsewhere: None, q: *q, instance, params });
        }
    }
    fn failed(&self, _: &str, _: &Reach<'_>) {}
    fn authenticated(&self, _: &Flow, _: &User) -> bool {
        false
    }
}

impl Names for World {
    fn resolve(&self, _: u16, _: u64, uri: &[u8]) -> Option<Vec<Hop>> {
        match uri {
            b"sip:carol@two.test" => Some(vec![address("10.9.9.1:5060"), address("10.9.9.2:5060")]),
            _ => Some(Vec::new()),
        }
    }
}

impl Trusted for World {
    fn is_trusted(&self, _: &Flow) -> bool {
        self.trusted
    }
}

impl Chronicle for World {
    fn note(&self, note: &Note<'_>) {
        self.notes.lock().push(note.event);
    }
}

fn address(text: &str) -> Hop {
    Hop::Address { transport: Transport::Udp, remote: text.parse().unwrap() }
}

struct Bench {
    now: Instant,
    endpoint: Endpoint,
    proxy: Proxy,
    world: Arc<World>,
    out: Outbox,
    flow: Flow,
}

/// What left: where to, and the text.
type Sent = (String, String);

fn bench(world: World, users: Vec<User>) -> Bench {
    let world = Arc::new(world);
    let directory = Arc::new(Directory::new());
    for user in users {
        directory.put(user);
    }
    let parts = ProxyParts {
        home: Arc::new(Home::new(
            "home.test",
            [Transport::Udp, Transport::Tcp].map(|t| (t, "10.0.0.1:5060".parse().unwrap())),
        )),
        directory,
        location: world.clone(),
        nodes: None,
        names: world.clone(),
        trusted: world.clone(),
        access: Access::Open,
        services: Vec::new(),
        named: vec![Arc::new(crate::BackToBack)],
        joints: Arc::default(),
        filters: Arc::default(),
        spent: Spent::default(),
        chronicle: world.clone(),
        media: None,
        screen: None,
        gate: None,
        archive: None,
        record_route: true,
        seals: Seals::new(&[5; 32]),
        penalise: Arc::new(|_, _| {}),
    };
    let now = Instant::now();
    let config = EndpointConfig { timing: Timing::default(), shard: 3, max_transactions: 100, secret: [9; 16] };
    Bench {
        now,
        endpoint: Endpoint::new(config, now),
        proxy: Proxy::new(Arc::new(parts)),
        world,
        out: Outbox::new(),
        flow: Flow {
            transport: Transport::Udp,
            id: FlowId(0),
            local: "10.0.0.1:5060".parse().unwrap(),
            remote: "10.0.0.2:5062".parse().unwrap(),
        },
    }
}

impl Bench {
    fn feed(&mut self, text: &str) -> Vec<Sent> {
        self.take(self.flow, &text.replace('\n', "\r\n").into_bytes());
        self.drain()
    }

    fn take(&mut self, flow: Flow, bytes: &[u8]) {
        let message = Message::parse(bytes).unwrap();
        let received = self.endpoint.receive(self.now, &message, &mut self.out);
        let mut step =
            Step { now: self.now, unix: 0, shard: 3, endpoint: &mut self.endpoint, out: &mut self.out, loaded: false };
        match received {
            Received::Absorbed | Received::Stray => {}
            Received::Request => self.proxy.request(&mut step, &flow, &message),
            Received::Cancel { invite, user } => self.proxy.cancel(&mut step, &flow, &message, invite, user),
            Received::Response { client, user, server } => {
                self.proxy.response(&mut step, &message, client, user, server);
            }
        }
    }

    fn pass(&mut self, time: Duration) -> Vec<Sent> {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(10);
            let mut lapsed = Vec::new();
            self.endpoint.tick(self.now, &mut self.out, &mut lapsed);
            for item in lapsed {
                let mut step = Step {
                    now: self.now,
                    unix: 0,
                    shard: 3,
                    endpoint: &mut self.endpoint,
                    out: &mut self.out,
                    loaded: false,
                };
                self.proxy.lapsed(&mut step, item);
            }
        }
        self.drain()
    }

    fn drain(&mut self) -> Vec<Sent> {
        while let Some(bytes) = self.out.take_internal() {
            self.take(Flow::INTERNAL, &bytes);
        }
        let sent = self
            .out
            .iter()
            .map(|(t, bytes)| (t.hop.remote().to_string(), String::from_utf8_lossy(bytes).into_owned()))
            .collect();
        self.out.clear();
        sent
    }

    fn events(&self) -> Vec<NoteEvent> {
        self.world.notes.lock().clone()
    }
}

fn request(method: &str, uri: &str, extra: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2:5062;rport;branch=z9hG4bK-{method}\nMax-Forwards: 70\n\
         From: <sip:alice@home.test>;tag=1\nTo: <sip:bob@home.test>\nCall-ID: c1\nCSeq: 1 {method}\n{extra}\
         Contact: <sip:alice@10.0.0.2:5062>\nContent-Length: 0\n\n"
    )
}

/// The answer that the far end gives to a request that left us.
fn answer(to: &str, status: u16) -> String {
    let message = Message::parse(to.as_bytes()).unwrap();
    let mut out = Vec::new();
    Response::to(&message, status).tag(format!("t{status}").as_bytes()).write(&mut out, |w| {
        w.text(HeaderName::Contact, b"<sip:bob@10.0.0.3:5070>");
    });
    String::from_utf8(out).unwrap().replace("\r\n", "\n")
}

fn first_line(sent: &Sent) -> &str {
    sent.1.lines().next().unwrap()
}

fn starts(sent: &[Sent]) -> Vec<String> {
    sent.iter().map(|s| format!("{} {}", s.0, s.1.split(' ').take(2).collect::<Vec<_>>().join(" "))).collect()
}

fn user(id: &str, settings: CallSettings) -> User {
    User {
        id: id.into(),
        aor: format!("{id}@home.test").parse().unwrap(),
        secrets: DigestSecrets { ha1_md5: [0; 16], ha1_sha256: [0; 32], full: None, aka: None },
        msisdn: (id == "bob").then(|| "+819012345678".parse().unwrap()),
        email: None,
        jid: None,
        roles: Vec::new(),
        call_settings: settings,
        history_days: 0,
    }
}

const BOB: (&str, &str, u16) = ("bob@home.test", "sip:bob@10.0.0.3:5070", 1000);
const BOB2: (&str, &str, u16) = ("bob@home.test", "sip:bob@10.0.0.4:5070", 1000);
const BOB_LATER: (&str, &str, u16) = ("bob@home.test", "sip:bob@10.0.0.4:5070", 500);
const CAROL: (&str, &str, u16) = ("carol@home.test", "sip:carol@10.0.0.5:5070", 1000);

fn world(bindings: &[(&'static str, &'static str, u16)]) -> World {
    World { bindings: bindings.to_vec(), ..World::default() }
}

#[test]
fn a_call_goes_through_and_its_dialog_needs_no_memory() {
    let mut b = bench(world(&[BOB]), vec![]);
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", ""));
    assert_eq!(starts(&sent), ["10.0.0.2:5062 SIP/2.0 100", "10.0.0.3:5070 INVITE sip:bob@10.0.0.3:5070"]);
    let invite = sent[1].1.clone();
    assert!(invite.contains("Via: SIP/2.0/UDP 10.0.0.1:5060;rport;branch=z9hG4bKi"), "{invite}");
    assert!(invite.contains("Via: SIP/2.0/UDP 10.0.0.2:5062;rport=5062;branch=z9hG4bK-INVITE;received=10.0.0.2"));
    assert!(invite.contains("Max-Forwards: 69\r\n"));
    assert!(invite.contains("Record-Route: <sip:10.0.0.1:5060;lr;is="));
    let ringing = b.feed(&answer(&invite, 180));
    assert_eq!(starts(&ringing), ["10.0.0.2:5062 SIP/2.0 180"]);
    assert!(!ringing[0].1.contains("10.0.0.1:5060;rport"), "{}", ringing[0].1);
    let ok = b.feed(&answer(&invite, 200));
    assert_eq!(starts(&ok), ["10.0.0.2:5062 SIP/2.0 200"]);
    assert!(b.proxy.forks.is_empty());
    // A 2xx again goes through again.
    assert_eq!(b.feed(&answer(&invite, 200)).len(), 1);
    let route = ok[0].1.lines().find(|l| l.starts_with("Record-Route")).unwrap().replace("Record-Route", "Route");
    let ack = request("ACK", "sip:bob@10.0.0.3:5070", &format!("{route}\n"))
        .replace("bob@home.test>\n", "bob@home.test>;tag=t200\n");
    let sent = b.feed(&ack);
    assert_eq!(starts(&sent), ["10.0.0.3:5070 ACK sip:bob@10.0.0.3:5070"]);
    assert!(!sent[0].1.contains("\r\nRoute:"));
    assert_eq!(b.events(), [NoteEvent::CallAttempt, NoteEvent::CallRinging, NoteEvent::CallAnswered]);
}

#[test]
fn parallel_fork_first_answer_wins_and_the_other_is_cancelled() {
    let mut b = bench(world(&[BOB, BOB2]), vec![]);
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", ""));
    assert_eq!(sent.len(), 3);
    let (one, two) = (sent[1].1.clone(), sent[2].1.clone());
    b.feed(&answer(&one, 180));
    b.feed(&answer(&two, 180));
    let sent = b.feed(&answer(&two, 200));
    assert_eq!(starts(&sent), ["10.0.0.2:5062 SIP/2.0 200", "10.0.0.3:5070 CANCEL sip:bob@10.0.0.3:5070"]);
    // The loser's 487 is acknowledged and goes no further.
    let sent = b.feed(&answer(&one, 487));
    assert_eq!(starts(&sent), ["10.0.0.3:5070 ACK sip:bob@10.0.0.3:5070"]);
    assert!(b.proxy.forks.is_empty());
}

#[test]
fn serial_fork_tries_the_lower_q_after_the_higher_failed() {
    let mut b = bench(world(&[BOB, BOB_LATER]), vec![]);
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", ""));
    assert_eq!(sent.len(), 2);
    let sent = b.feed(&answer(&sent[1].1, 486));
    assert_eq!(
        starts(&sent),
        ["10.0.0.3:5070 ACK sip:bob@10.0.0.3:5070", "10.0.0.4:5070 INVITE sip:bob@10.0.0.4:5070"]
    );
    let sent = b.feed(&answer(&sent[1].1, 404));
    assert_eq!(starts(&sent)[1], "10.0.0.2:5062 SIP/2.0 404");
}

#[test]
fn a_6xx_ends_the_search() {
    let mut b = bench(world(&[BOB, BOB_LATER]), vec![]);
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", ""));
    let sent = b.feed(&answer(&sent[1].1, 603));
    assert_eq!(starts(&sent)[1], "10.0.0.2:5062 SIP/2.0 603");
    assert!(b.proxy.forks.is_empty());
}

#[test]
fn cancel_reaches_every_branch_and_the_caller_gets_487() {
    let mut b = bench(world(&[BOB, BOB2]), vec![]);
    let invite = request("INVITE", "sip:bob@home.test", "");
    let sent = b.feed(&invite);
    let (one, two) = (sent[1].1.clone(), sent[2].1.clone());
    b.feed(&answer(&one, 180));
    b.feed(&answer(&two, 180));
    let cancel = invite.replace("INVITE sip", "CANCEL sip").replace("CSeq: 1 INVITE", "CSeq: 1 CANCEL");
    let sent = b.feed(&cancel);
    assert_eq!(
        starts(&sent),
        [
            "10.0.0.2:5062 SIP/2.0 200",
            "10.0.0.3:5070 CANCEL sip:bob@10.0.0.3:5070",
            "10.0.0.4:5070 CANCEL sip:bob@10.0.0.4:5070"
        ]
    );
    assert_eq!(b.feed(&answer(&one, 487)).len(), 1);
    let sent = b.feed(&answer(&two, 487));
    assert_eq!(starts(&sent)[1], "10.0.0.2:5062 SIP/2.0 487");
}

#[test]
fn silence_becomes_408_and_the_next_address_is_tried_first() {
    let mut b = bench(world(&[]), vec![]);
    let sent = b.feed(&request("INVITE", "sip:carol@two.test", ""));
    assert_eq!(starts(&sent)[1], "10.9.9.1:5060 INVITE sip:carol@two.test");
    let sent = b.pass(Duration::from_secs(33));
    assert!(starts(&sent).contains(&"10.9.9.2:5060 INVITE sip:carol@two.test".to_owned()));
    let sent = b.pass(Duration::from_secs(33));
    assert_eq!(starts(&sent).last().unwrap(), "10.0.0.2:5062 SIP/2.0 408");
}

/// The tokens of what is about to leave, and its Via's transport.
fn leaving(b: &Bench) -> Vec<(u64, String, Transport)> {
    b.out.items().iter().map(|t| (t.token, t.hop.remote().to_string(), t.hop.transport())).collect()
}

#[test]
fn a_long_request_goes_over_tcp_then_as_a_datagram_then_to_the_next_address() {
    let mut b = bench(world(&[]), vec![]);
    let long = request("INVITE", "sip:carol@two.test", &format!("Subject: {}\n", "x".repeat(1200)));
    let mut tried = Vec::new();
    let bytes = long.replace('\n', "\r\n").into_bytes();
    let message = Message::parse(&bytes).unwrap();
    let mut step = Step { now: b.now, unix: 0, shard: 3, endpoint: &mut b.endpoint, out: &mut b.out, loaded: false };
    b.proxy.request(&mut step, &b.flow, &message);
    for _ in 0..4 {
        let (token, to, transport) = leaving(&b).pop().unwrap();
        let sent = b.drain().pop().unwrap().1;
        let via = format!("Via: SIP/2.0/{} ", transport.via_token());
        assert!(sent.contains(&format!("SIP/2.0\r\n{via}")), "{sent}");
        tried.push((to, transport));
        let lapsed = b.endpoint.unreachable(b.now, token, &mut b.out).unwrap();
        let mut step =
            Step { now: b.now, unix: 0, shard: 3, endpoint: &mut b.endpoint, out: &mut b.out, loaded: false };
        b.proxy.lapsed(&mut step, lapsed);
    }
    let (one, two) = ("10.9.9.1:5060".to_owned(), "10.9.9.2:5060".to_owned());
    let ways = [(&one, Transport::Tcp), (&one, Transport::Udp), (&two, Transport::Tcp), (&two, Transport::Udp)];
    assert_eq!(tried, ways.map(|(to, t)| (to.clone(), t)));
    assert_eq!(starts(&b.drain()), ["10.0.0.2:5062 SIP/2.0 500"]);
}

#[test]
fn who_took_a_long_request_over_tcp_does_not_get_it_as_a_datagram_too() {
    let mut b = bench(world(&[]), vec![]);
    let sent = b.feed(&request("INVITE", "sip:carol@two.test", &format!("Subject: {}\n", "x".repeat(1200))));
    // It has no room: the next address is tried, not the same one again.
    let sent = b.feed(&answer(&sent.last().unwrap().1, 503));
    assert_eq!(starts(&sent).last().unwrap(), "10.9.9.2:5060 INVITE sip:carol@two.test");
    assert!(sent.last().unwrap().1.contains("Via: SIP/2.0/TCP "), "{sent:?}");
}

#[test]
fn an_unanswered_non_invite_ends_in_silence() {
    let mut b = bench(world(&[BOB]), vec![]);
    b.feed(&request("OPTIONS", "sip:bob@home.test", ""));
    let sent = b.pass(Duration::from_secs(40));
    assert!(sent.iter().all(|s| s.0 == "10.0.0.3:5070"), "{sent:?}");
    assert!(b.proxy.forks.is_empty() && b.endpoint.is_empty());
}

#[test]
fn hops_run_out_and_loops_are_seen() {
    let mut b = bench(world(&[BOB]), vec![]);
    let spent = request("INVITE", "sip:bob@home.test", "").replace("Max-Forwards: 70", "Max-Forwards: 0");
    assert_eq!(starts(&b.feed(&spent)), ["10.0.0.2:5062 SIP/2.0 483"]);
    let sent = b.feed(&request("MESSAGE", "sip:bob@home.test", ""));
    // The phone sends it straight back to us, unchanged but for its Via and the Request-URI it first had.
    let back = sent[0]
        .1
        .replace("\r\n", "\n")
        .replace("MESSAGE sip:bob@10.0.0.3:5070", "MESSAGE sip:bob@home.test")
        .replacen("Via:", "Via: SIP/2.0/UDP 10.0.0.3:5070;branch=z9hG4bKloop\nVia:", 1);
    assert_eq!(starts(&b.feed(&back)), ["10.0.0.2:5070 SIP/2.0 482"]);
}

#[test]
fn a_number_finds_its_user() {
    let mut b = bench(world(&[BOB]), vec![user("bob", CallSettings::default())]);
    for uri in [
        "tel:+81-90-1234-5678",
        "sip:+819012345678@home.test;user=phone",
        "sip:+819012345678@home.test",
        "sip:1234-5678;phone-context=+81-90@home.test;user=phone",
    ] {
        let text = request("INVITE", uri, "").replace("c1", &format!("c{}", uri.len()));
        let text = text.replace("z9hG4bK-", &format!("z9hG4bK{}", uri.len()));
        let sent = b.feed(&text);
        assert_eq!(starts(&sent)[1], "10.0.0.3:5070 INVITE sip:bob@10.0.0.3:5070", "{uri}");
    }
}

#[test]
fn forwarding_on_busy_unreachable_and_always() {
    let to_carol = Some("sip:carol@home.test".to_owned());
    let busy = CallSettings { forward_busy: to_carol.clone(), ..CallSettings::default() };
    let mut b = bench(world(&[BOB, CAROL]), vec![user("bob", busy)]);
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", ""));
    let sent = b.feed(&answer(&sent[1].1, 486));
    assert_eq!(
        starts(&sent),
        [
            "10.0.0.3:5070 ACK sip:bob@10.0.0.3:5070",
            "10.0.0.2:5062 SIP/2.0 181",
            "10.0.0.5:5070 INVITE sip:carol@10.0.0.5:5070"
        ]
    );
    assert!(sent[2].1.contains("Diversion: <sip:bob@home.test>;reason=user-busy\r\n"));
    let sent = b.feed(&answer(&sent[2].1, 486));
    assert_eq!(starts(&sent)[1], "10.0.0.2:5062 SIP/2.0 486");

    let away = CallSettings { forward_not_reachable: to_carol.clone(), ..CallSettings::default() };
    let mut b = bench(world(&[CAROL]), vec![user("bob", away)]);
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", ""));
    assert_eq!(starts(&sent)[1], "10.0.0.5:5070 INVITE sip:carol@10.0.0.5:5070");

    let always = CallSettings { forward_unconditional: to_carol, ..CallSettings::default() };
    let mut b = bench(world(&[BOB, CAROL]), vec![user("bob", always)]);
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", ""));
    assert_eq!(starts(&sent)[1], "10.0.0.5:5070 INVITE sip:carol@10.0.0.5:5070");
}

#[test]
fn no_answer_cancels_the_phone_and_calls_the_other() {
    let settings = CallSettings {
        forward_no_answer: Some("sip:carol@home.test".into()),
        no_answer_seconds: 10,
        ..CallSettings::default()
    };
    let mut b = bench(world(&[BOB, CAROL]), vec![user("bob", settings)]);
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", ""));
    let invite = sent[1].1.clone();
    b.feed(&answer(&invite, 180));
    let sent = b.pass(Duration::from_millis(10_050));
    assert_eq!(
        starts(&sent),
        [
            "10.0.0.2:5062 SIP/2.0 181",
            "10.0.0.3:5070 CANCEL sip:bob@10.0.0.3:5070",
            "10.0.0.5:5070 INVITE sip:carol@10.0.0.5:5070"
        ]
    );
    let carol = sent[2].1.clone();
    b.feed(&answer(&invite, 487));
    let sent = b.feed(&answer(&carol, 200));
    assert_eq!(starts(&sent), ["10.0.0.2:5062 SIP/2.0 200"]);
}

#[test]
fn barred_calls_are_refused_before_any_phone_rings() {
    let no_calls = CallSettings { bar_incoming: true, ..CallSettings::default() };
    let mut b = bench(world(&[BOB]), vec![user("bob", no_calls)]);
    assert_eq!(starts(&b.feed(&request("INVITE", "sip:bob@home.test", ""))), ["10.0.0.2:5062 SIP/2.0 603"]);
    let named_only = CallSettings { bar_anonymous: true, ..CallSettings::default() };
    let mut b = bench(world(&[BOB]), vec![user("bob", named_only)]);
    let hidden = request("INVITE", "sip:bob@home.test", "Privacy: id\n");
    assert_eq!(starts(&b.feed(&hidden)), ["10.0.0.2:5062 SIP/2.0 433"]);
    let cheap = CallSettings { bar_outgoing_prefixes: vec!["+8190".into()], ..CallSettings::default() };
    let mut b = bench(world(&[BOB]), vec![user("alice", cheap), user("bob", CallSettings::default())]);
    assert_eq!(starts(&b.feed(&request("INVITE", "tel:+819012345678", ""))), ["10.0.0.2:5062 SIP/2.0 603"]);
}

#[test]
fn asserted_identities_of_strangers_come_off_and_ours_go_on() {
    let users = vec![user("alice", CallSettings::default())];
    let claim = "P-Asserted-Identity: <sip:president@home.test>\n";
    let mut b = bench(world(&[BOB]), users);
    let sent = b.feed(&request("MESSAGE", "sip:bob@home.test", claim));
    assert!(!sent[0].1.contains("president"));
    assert!(sent[0].1.contains("P-Asserted-Identity: <sip:alice@home.test>\r\n"));
    let mut b = bench(World { trusted: true, ..world(&[BOB]) }, vec![]);
    let sent = b.feed(&request("MESSAGE", "sip:bob@home.test", claim));
    assert!(sent[0].1.contains("president"));
}

#[test]
fn what_cannot_be_routed_gets_its_status() {
    let mut b = bench(world(&[]), vec![]);
    for (uri, status) in [
        ("sip:nobody@home.test", "480"),
        ("http://example.com", "416"),
        ("sip:x@nowhere.test", "404"),
        ("tel:+15551234", "404"),
        ("sip:home.test", "404"),
    ] {
        let text = request("INVITE", uri, "").replace("z9hG4bK-", &format!("z9hG4bK{}", uri.len()));
        let sent = b.feed(&text);
        assert_eq!(starts(&sent).last().unwrap(), &format!("10.0.0.2:5062 SIP/2.0 {status}"), "{uri}");
    }
    let options = b.feed(&request("OPTIONS", "sip:home.test", ""));
    assert_eq!(first_line(&options[0]), "SIP/2.0 200 OK");
    assert!(options[0].1.contains("Allow: INVITE"));
}

#[test]
fn a_message_that_no_phone_answers_is_given_up_in_time() {
    let mut b = bench(world(&[BOB]), vec![]);
    b.feed(&request("MESSAGE", "sip:bob@home.test", ""));
    b.pass(Duration::from_secs(11));
    // No service took it over: it ends in silence (RFC 4320), and well before the sender's timer F.
    assert!(b.proxy.forks.is_empty());
    assert_eq!(b.events(), [NoteEvent::MessageRelayed]);
}

fn line<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find(|l| l.starts_with(name)).unwrap_or_default()
}

/// The Route of a request of the dialog that this message's Record-Route made.
fn route(message: &str) -> String {
    format!("{}\n", line(message, "Record-Route").replace("Record-Route", "Route"))
}

const ANONYMOUS: &str = "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1";

#[test]
fn a_caller_who_wants_to_stay_unknown_is_known_to_himself_only() {
    let mut b = bench(world(&[BOB]), vec![user("alice", CallSettings::default())]);
    let telling = "Privacy: user;critical\nProxy-Require: privacy\nSubject: it is me, alice\n";
    let sent =
        b.feed(&request("INVITE", "sip:bob@home.test", telling).replace("Contact: <sip:alice@", "Contact: <sip:"));
    let invite = sent[1].1.clone();
    assert_eq!(line(&invite, "From"), format!("From: {ANONYMOUS}"));
    assert!(!invite.contains("alice") && !invite.contains("Privacy") && !invite.contains("Proxy-Require"), "{invite}");
    for status in [180, 200, 200] {
        let back = b.feed(&answer(&invite, status));
        assert_eq!(line(&back[0].1, "From"), "From: <sip:alice@home.test>;tag=1", "a {status}, the second 200 too");
    }
    // From the caller: hidden again.
    let route = route(&invite);
    let to = "<sip:bob@home.test>;tag=t200";
    for method in ["ACK", "BYE"] {
        let text = request(method, "sip:bob@10.0.0.3:5070", &route).replace("<sip:bob@home.test>", to);
        let sent = b.feed(&text.replace("Contact: <sip:alice@10.0.0.2:5062>\n", ""));
        assert_eq!(line(&sent[0].1, "From"), format!("From: {ANONYMOUS}"));
        assert!(!sent[0].1.contains("alice"), "{}", sent[0].1);
    }
    // From the callee: to somebody whom it does not know, who is told who he is.
    let text = request("INFO", "sip:10.0.0.2:5062", &route)
        .replace("From: <sip:alice@home.test>;tag=1\nTo: <sip:bob@home.test>", &format!("From: {to}\nTo: {ANONYMOUS}"))
        .replace("Contact: <sip:alice@10.0.0.2:5062>\n", "");
    let sent = b.feed(&text);
    assert_eq!(line(&sent[0].1, "To"), "To: <sip:alice@home.test>;tag=1");
    let answered = answer(&sent[0].1, 200).replace("\nContent-Length", "\nServer: alice's\nContent-Length");
    let back = b.feed(&answered);
    assert_eq!(line(&back[0].1, "To"), format!("To: {ANONYMOUS}"));
    assert!(!back[0].1.contains("alice"), "{}", back[0].1);
}

#[test]
fn a_phone_that_copies_our_via_alone_is_heard_all_the_same() {
    let mut b = bench(world(&[BOB]), vec![]);
    let sent = b.feed(&request("MESSAGE", "sip:bob@home.test", ""));
    let mut vias = 0;
    let ours_alone = |l: &&str| {
        vias += usize::from(l.starts_with("Via:"));
        !l.starts_with("Via:") || vias == 1
    };
    let answered = answer(&sent[0].1, 200);
    let short: Vec<&str> = answered.split('\n').filter(ours_alone).collect();
    let back = b.feed(&short.join("\n"))[0].1.clone();
    let via = "Via: SIP/2.0/UDP 10.0.0.2:5062;rport=5062;branch=z9hG4bK-MESSAGE;received=10.0.0.2";
    assert_eq!(back.lines().filter(|l| l.starts_with("Via:")).collect::<Vec<_>>(), [via]);
}

#[test]
fn the_way_to_a_caller_is_hidden_from_the_callee_and_leads_back_all_the_same() {
    let mut b = bench(world(&[BOB]), vec![]);
    let way = "Via: SIP/2.0/UDP 192.0.2.77:5099;branch=z9hG4bK-far\nRecord-Route: <sip:10.0.0.2:5062;lr>\n";
    let from_afar = |text: String| text.replacen("Max-Forwards", &format!("{way}Max-Forwards"), 1);
    let telling = ["10.0.0.2", "192.0.2.77", "sip:alice@10", "5062"];
    let hides = |text: &str| {
        let shown = telling.iter().find(|t| text.contains(**t));
        assert_eq!(shown, None, "{text}");
    };
    let sent = b.feed(&from_afar(request("INVITE", "sip:bob@home.test", "Privacy: header;critical\n")));
    let invite = sent[1].1.clone();
    hides(&invite);
    assert!(!invite.contains("Privacy") && line(&invite, "From").contains("alice"), "{invite}");
    let contact = line(&invite, "Contact").trim_start_matches("Contact: <").trim_end_matches('>');
    for status in [180, 200, 200] {
        let back = b.feed(&answer(&invite, status))[0].1.clone();
        let all = |name| back.lines().filter(|l| l.starts_with(name)).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            all("Via"),
            [
                "Via: SIP/2.0/UDP 10.0.0.2:5062;rport=5062;branch=z9hG4bK-INVITE;received=10.0.0.2",
                "Via: SIP/2.0/UDP 192.0.2.77:5099;branch=z9hG4bK-far"
            ],
            "a {status}, the second 200 too"
        );
        assert_eq!(all("Record-Route").len(), 2);
        assert_eq!(all("Record-Route")[1], "Record-Route: <sip:10.0.0.2:5062;lr>");
    }
    // From the caller: hidden again, without being asked.
    let route = route(&invite);
    let to = "<sip:bob@home.test>;tag=t200";
    for method in ["ACK", "INVITE", "BYE"] {
        let text = request(method, "sip:bob@10.0.0.3:5070", &route).replace("<sip:bob@home.test>", to);
        let sent = b.feed(&from_afar(text.replace("1 INVITE", "2 INVITE").replace("K-INVITE", "K-again")));
        hides(&sent.last().unwrap().1);
        if method == "INVITE" {
            let again = line(&sent[1].1, "Contact").trim_start_matches("Contact: <").trim_end_matches('>');
            assert_eq!(again, contact, "the same phone");
        }
    }
    // From the callee: by the way back, and what the caller answers is hidden.
    b.flow.remote = "10.0.0.3:5070".parse().unwrap();
    for method in ["INVITE", "ACK", "BYE"] {
        let names = format!("From: {to}\nTo: <sip:alice@home.test>;tag=1");
        let text = request(method, contact, &route)
            .replace("From: <sip:alice@home.test>;tag=1\nTo: <sip:bob@home.test>", &names)
            .replace("10.0.0.2:5062", "10.0.0.3:5070")
            .replace("z9hG4bK-", "z9hG4bK-bob");
        let sent = b.feed(&text);
        let sent = sent.last().unwrap();
        assert_eq!(sent.0, "10.0.0.2:5062");
        assert_eq!(first_line(sent), format!("{method} sip:alice@10.0.0.2:5062 SIP/2.0"));
        assert_eq!(line(&sent.1, "Route"), "Route: <sip:10.0.0.2:5062;lr>");
        if method != "ACK" {
            let adds = "\nRecord-Route: <sip:10.0.0.2:5062;lr>\nContent-Length";
            let own = answer(&sent.1, 200).replace("<sip:bob@10.0.0.3:5070>", "<sip:alice@10.0.0.2:5062>");
            let back = b.feed(&own.replace("\nContent-Length", adds));
            hides(&back[0].1);
            assert!(line(&back[0].1, "Contact").contains(contact));
        }
    }
    // In another call it leads nowhere.
    let other = request("INVITE", contact, "").replace("c1", "c2").replace("z9hG4bK-", "z9hG4bK-c2");
    assert_eq!(starts(&b.feed(&other)).last().unwrap(), "10.0.0.3:5070 SIP/2.0 480");
}

#[test]
fn a_trusted_neighbour_is_told_who_calls_and_left_to_hide_it() {
    let users = || vec![user("alice", CallSettings::default())];
    let mut b = bench(World { trusted: true, ..world(&[]) }, users());
    let claim = "P-Asserted-Identity: <sip:alice@home.test>\nPrivacy: user;id\n";
    let sent = b.feed(&request("INVITE", "sip:carol@10.0.0.9", claim));
    assert!(sent[1].1.contains("From: <sip:alice@") && sent[1].1.contains("P-Asserted-Identity: <sip:alice@"));
    assert!(sent[1].1.contains("Privacy: user;id\r\n") && !sent[1].1.contains(";hi="));
    let mut b = bench(world(&[]), users());
    let sent = b.feed(&request("INVITE", "sip:carol@10.0.0.9", "Privacy: id\n"));
    assert!(sent[1].1.contains("From: <sip:alice@") && !sent[1].1.contains("P-Asserted-Identity"));
}

#[test]
fn privacy_that_must_be_given_and_cannot_fails_the_call() {
    let mut b = bench(world(&[BOB]), vec![]);
    for (n, (privacy, outcome)) in [
        ("header;critical", "SIP/2.0 100 Trying"),
        ("session;critical", "SIP/2.0 500 Privacy Failure: session Not Supported"),
        ("none;critical;header", "SIP/2.0 100 Trying"),
        ("header;session", "SIP/2.0 100 Trying"),
        ("user;id;critical", "SIP/2.0 100 Trying"),
    ]
    .into_iter()
    .enumerate()
    {
        let text = request("INVITE", "sip:bob@home.test", &format!("Privacy: {privacy}\n"));
        let sent = b.feed(&text.replace("z9hG4bK-", &format!("z9hG4bK{n}")).replace("c1", &format!("c{n}")));
        assert_eq!(first_line(&sent[0]), outcome, "{privacy}");
    }
    let long = request("INVITE", "sip:bob@home.test", "Privacy: header;critical\n").replace("c1", "c9");
    let sent = b.feed(&long.replace("Contact: <sip:alice", &format!("Contact: <sip:{}", "x".repeat(500))));
    assert_eq!(first_line(&sent[0]), "SIP/2.0 500 Privacy Failure: header Not Supported");
    let unknown = request("INVITE", "sip:bob@home.test", "Proxy-Require: privacy, foo\n");
    let sent = b.feed(&unknown);
    assert_eq!(
        (first_line(&sent[0]), line(&sent[0].1, "Unsupported")),
        ("SIP/2.0 420 Bad Extension", "Unsupported: foo")
    );
}

#[test]
fn a_strict_router_on_the_way_gets_the_request_that_it_expects() {
    let mut b = bench(world(&[]), vec![]);
    let routes = "Route: <sip:10.0.0.1:5060;lr>, <sip:10.0.0.9>\nRoute: <sip:10.0.0.8;lr>\n";
    let sent = b.feed(&request("MESSAGE", "sip:carol@10.0.0.7", routes));
    assert_eq!(starts(&sent), ["10.0.0.9:5060 MESSAGE sip:10.0.0.9"]);
    let left: Vec<&str> = sent[0].1.lines().filter(|l| l.starts_with("Route")).collect();
    assert_eq!(left, ["Route: <sip:10.0.0.8;lr>", "Route: <sip:carol@10.0.0.7>"]);
}

#[test]
fn a_strict_router_behind_us_may_put_our_record_route_into_the_request_uri() {
    let mut b = bench(world(&[BOB]), vec![]);
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", ""));
    let invite = sent[1].1.clone();
    b.feed(&answer(&invite, 200));
    let ours = line(&invite, "Record-Route").trim_start_matches("Record-Route: <").trim_end_matches('>');
    for method in ["BYE", "ACK"] {
        let text = request(method, ours, "Route: <sip:alice@10.0.0.2:5062>\n")
            .replace("sip:bob@home.test>", "sip:bob@home.test>;tag=t200");
        let sent = b.feed(&text);
        assert_eq!(starts(&sent), [format!("10.0.0.2:5062 {method} sip:alice@10.0.0.2:5062")]);
        assert!(!sent[0].1.contains("\r\nRoute"), "{}", sent[0].1);
    }
}

#[test]
fn a_number_of_our_domain_only_is_a_name_there() {
    let mut b = bench(
        World { bindings: vec![("7042@home.test", "sip:10.0.0.6:5070", 1000)], ..World::default() },
        vec![user("7042", CallSettings::default())],
    );
    for (n, (uri, outcome)) in [
        ("tel:70-42;phone-context=home.test", "10.0.0.6:5070 INVITE sip:10.0.0.6:5070"),
        ("sip:70-42;phone-context=home.test@home.test;user=phone", "10.0.0.6:5070 INVITE sip:10.0.0.6:5070"),
        ("tel:7043;phone-context=home.test", "10.0.0.2:5062 SIP/2.0 404"),
        ("tel:7042;phone-context=other.test", "10.0.0.2:5062 SIP/2.0 404"),
        ("tel:7042", "10.0.0.2:5062 SIP/2.0 404"),
    ]
    .into_iter()
    .enumerate()
    {
        let text =
            request("INVITE", uri, "").replace("z9hG4bK-", &format!("z9hG4bK{n}")).replace("c1", &format!("c{n}"));
        assert_eq!(starts(&b.feed(&text)).last().unwrap(), outcome, "{uri}");
    }
}

#[test]
fn asserted_identities_in_responses_are_believed_of_the_trusted_only() {
    let says = "\nP-Asserted-Identity: <sip:president@home.test>\nContent-Length";
    for (trusted, bindings, uri, shown) in [
        (true, &[BOB][..], "sip:bob@home.test", false),
        (true, &[], "sip:x@10.0.0.9", true),
        (false, &[], "sip:x@10.0.0.9", false),
    ] {
        let mut b = bench(World { trusted, ..world(bindings) }, vec![]);
        let sent = b.feed(&request("INVITE", uri, ""));
        let invite = sent[1].1.clone();
        for status in [180, 486] {
            let back = b.feed(&answer(&invite, status).replace("\nContent-Length", says));
            assert_eq!(back.last().unwrap().1.contains("president"), shown, "{trusted} {uri} {status}");
        }
    }
}
