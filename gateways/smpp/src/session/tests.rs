//! Two ends in memory on a pretend clock.

use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};

use super::*;
use crate::pdu::{Address, COctets, DataSm, MessageResp, Octets, QuerySm, ShortMessage, Tag, Tlvs};

type Event = super::Event<u64>;
type Session = super::Session<u64>;

struct Pair {
    now: Instant,
    esme: Session,
    centre: Session,
}

fn limits() -> Limits {
    Limits { window: 3, inbound: 3, inactivity: Duration::ZERO, ..Limits::default() }
}

fn bind(kind: BindKind) -> Bind {
    Bind {
        kind,
        system_id: COctets::try_from("us").unwrap(),
        password: COctets::try_from("secret").unwrap(),
        system_type: COctets::EMPTY,
        interface_version: 0x34,
        addr_ton: 0,
        addr_npi: 0,
        address_range: COctets::EMPTY,
    }
}

fn message(text: &[u8]) -> ShortMessage {
    ShortMessage {
        destination: Address { ton: 1, npi: 1, digits: COctets::try_from("8190").unwrap() },
        short_message: Octets::copied(text),
        ..ShortMessage::default()
    }
}

fn submit() -> Request {
    Request::SubmitSm(message(b"hi"))
}

fn named(id: &str) -> Response {
    Response::SubmitSm(MessageResp { message_id: COctets::try_from(id).unwrap(), tlvs: Tlvs::default() })
}

/// Everything that one has for the other.
fn carry(from: &mut Session, to: &mut Session, now: Instant) {
    let bytes = from.pending().to_vec();
    from.written(bytes.len());
    to.buffer().extend_from_slice(&bytes);
    to.received(now);
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.next_event()).collect()
}

/// Headers of what a session has to send; it is taken from it.
fn sent(session: &mut Session) -> Vec<Header> {
    let mut frames = Frames::default();
    frames.buffer().extend_from_slice(session.pending());
    session.written(session.pending().len());
    std::iter::from_fn(|| frames.next_frame().unwrap()).map(|f| Header::of(&f).unwrap()).collect()
}

/// Any frame at all.
fn raw(command: u32, status: u32, sequence: u32, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u32(16 + body.len() as u32);
    [command, status, sequence].iter().for_each(|n| out.put_u32(*n));
    out.put_slice(body);
    out
}

fn hear(session: &mut Session, bytes: &[u8], now: Instant) {
    session.buffer().extend_from_slice(bytes);
    session.received(now);
}

impl Pair {
    fn open() -> Pair {
        let now = Instant::now();
        Pair { now, esme: Session::new(Role::Esme, limits(), now), centre: Session::new(Role::Centre, limits(), now) }
    }

    fn bound(kind: BindKind) -> Pair {
        let mut pair = Pair::open();
        pair.esme.bind(bind(kind), pair.now);
        pair.deliver();
        let [Event::BindAsked { sequence, .. }] = events(&mut pair.centre)[..] else { panic!("no bind") };
        pair.centre.accept(sequence, BindResp::default(), pair.now);
        pair.deliver();
        assert!(matches!(events(&mut pair.esme)[..], [Event::Bound(_)]));
        assert_eq!((pair.esme.bound(), pair.centre.bound()), (Some(kind), Some(kind)));
        pair
    }

    /// Until neither has anything to say.
    fn deliver(&mut self) {
        while !self.esme.pending().is_empty() || !self.centre.pending().is_empty() {
            carry(&mut self.esme, &mut self.centre, self.now);
            carry(&mut self.centre, &mut self.esme, self.now);
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.esme.elapsed(self.now);
        self.centre.elapsed(self.now);
    }

    /// Sequence numbers of the requests that came to the centre.
    fn asked(&mut self) -> Vec<u32> {
        let sequence = |e| match e {
            Event::Asked { sequence, .. } => Some(sequence),
            _ => None,
        };
        events(&mut self.centre).into_iter().filter_map(sequence).collect()
    }
}

#[test]
fn what_each_kind_of_bind_allows() {
    for (kind, submits, delivers) in
        [(BindKind::Transmitter, true, false), (BindKind::Receiver, false, true), (BindKind::Transceiver, true, true)]
    {
        let mut pair = Pair::bound(kind);
        let deliver = Request::DeliverSm(message(b"mo"));
        assert_eq!(pair.esme.request(&submit(), 1, pair.now).is_ok(), submits, "{kind:?}");
        assert_eq!(pair.centre.request(&deliver, 2, pair.now).is_ok(), delivers, "{kind:?}");
        // Never the other way round, and never what belongs to the session.
        assert_eq!(pair.esme.request(&deliver, 3, pair.now), Err((NotSent::NotBound, 3)));
        assert_eq!(pair.centre.request(&submit(), 4, pair.now), Err((NotSent::NotBound, 4)));
        assert_eq!(pair.esme.request(&Request::Unbind, 5, pair.now), Err((NotSent::NotARequest, 5)));
    }
}

#[test]
fn a_peer_that_asks_too_early_or_the_wrong_way_is_told_so_and_kept() {
    let mut early = Pair::open();
    for request in [submit(), Request::DataSm(DataSm::default()), Request::QuerySm(QuerySm::default())] {
        let mut bytes = BytesMut::new();
        request.encode(9, &mut bytes);
        hear(&mut early.centre, &bytes, early.now);
        let [answer] = sent(&mut early.centre)[..] else { panic!("one answer") };
        assert_eq!((answer.command, answer.sequence), (request.command().response(), 9));
        assert_eq!(answer.status, CommandStatus::RINVBNDSTS);
    }
    let mut receiver = Pair::bound(BindKind::Receiver);
    let mut bytes = BytesMut::new();
    submit().encode(9, &mut bytes);
    hear(&mut receiver.centre, &bytes, receiver.now);
    assert_eq!(sent(&mut receiver.centre)[0].status, CommandStatus::RINVBNDSTS);
    assert!(events(&mut receiver.centre).is_empty() && !receiver.centre.is_ended());
}

#[test]
fn a_second_bind_is_told_that_there_is_one() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    let mut bytes = BytesMut::new();
    Request::Bind(bind(BindKind::Receiver)).encode(5, &mut bytes);
    hear(&mut pair.centre, &bytes, pair.now);
    let [answer] = sent(&mut pair.centre)[..] else { panic!("one answer") };
    assert_eq!((answer.command, answer.status), (CommandId(0x8000_0001), CommandStatus::RALYBND));
    assert_eq!(pair.centre.bound(), Some(BindKind::Transceiver));
}

#[test]
fn a_refused_esme_may_try_again_until_its_time_is_up() {
    let mut pair = Pair::open();
    pair.esme.bind(bind(BindKind::Transmitter), pair.now);
    pair.deliver();
    let [Event::BindAsked { sequence, .. }] = events(&mut pair.centre)[..] else { panic!("no bind") };
    pair.centre.refuse(sequence, CommandStatus::RINVPASWD);
    pair.deliver();
    let ended = events(&mut pair.esme);
    assert!(matches!(ended[..], [Event::Ended(Ended::BindRefused(CommandStatus::RINVPASWD))]), "{ended:?}");
    pair.pass(30);
    assert!(matches!(events(&mut pair.centre)[..], [Event::Ended(Ended::NotBound)]));
}

#[test]
fn a_centre_that_does_not_answer_a_bind_is_given_up() {
    let mut pair = Pair::open();
    pair.esme.bind(bind(BindKind::Transmitter), pair.now);
    pair.pass(30);
    assert!(matches!(events(&mut pair.esme)[..], [Event::Ended(Ended::NotBound)]));
}

#[test]
fn outbind_leads_to_a_bind() {
    let mut pair = Pair::open();
    let outbind = Outbind { system_id: COctets::try_from("mc").unwrap(), password: COctets::EMPTY };
    pair.centre.outbind(outbind.clone());
    pair.deliver();
    let [Event::OutbindAsked(ref seen)] = events(&mut pair.esme)[..] else { panic!("no outbind") };
    assert_eq!(seen, &outbind);
    pair.esme.bind(bind(BindKind::Receiver), pair.now);
    pair.deliver();
    let [Event::BindAsked { sequence, .. }] = events(&mut pair.centre)[..] else { panic!("no bind") };
    pair.centre.accept(sequence, BindResp::default(), pair.now);
    assert_eq!(pair.centre.bound(), Some(BindKind::Receiver));
}

#[test]
fn the_window_counts_what_is_outstanding_and_answers_come_in_any_order() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    for token in 1..=3 {
        pair.esme.request(&submit(), token, pair.now).unwrap();
    }
    assert_eq!(pair.esme.request(&submit(), 4, pair.now), Err((NotSent::WindowFull, 4)));
    pair.deliver();
    let asked = pair.asked();
    for at in [2, 0, 1] {
        pair.centre.respond(asked[at], CommandStatus::ROK, &named(&format!("id{at}")));
    }
    pair.deliver();
    let answered: Vec<_> = events(&mut pair.esme)
        .into_iter()
        .map(|e| match e {
            Event::Answered { token, response: Response::SubmitSm(r), .. } => (token, r.message_id.as_bytes().to_vec()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(answered, [(3, b"id2".to_vec()), (1, b"id0".to_vec()), (2, b"id1".to_vec())]);
    assert_eq!((pair.esme.room(), pair.esme.outstanding()), (3, 0));
}

#[test]
fn answers_that_nobody_waits_for_are_counted_and_change_nothing() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    pair.esme.request(&submit(), 1, pair.now).unwrap();
    let mine = sent(&mut pair.esme)[0].sequence;
    // Unknown numbers, 0, the wrong kind, another time the bind.
    for (command, sequence) in [(0x8000_0004, 99), (0x8000_0004, 0), (0x8000_0003, mine), (0x8000_0009, 1)] {
        hear(&mut pair.esme, &raw(command, 0, sequence, b"x\0"), pair.now);
    }
    assert!(events(&mut pair.esme).is_empty() && sent(&mut pair.esme).is_empty());
    assert_eq!(pair.esme.oddities(), (0, 4));
    hear(&mut pair.esme, &raw(0x8000_0004, 0, mine, b"x\0"), pair.now);
    assert!(matches!(events(&mut pair.esme)[..], [Event::Answered { token: 1, .. }]));
    // And once more, which is too late.
    hear(&mut pair.esme, &raw(0x8000_0004, 0, mine, b"x\0"), pair.now);
    assert!(events(&mut pair.esme).is_empty());
}

#[test]
fn sequence_numbers_wrap_and_answers_still_find_their_requests() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    pair.esme.last_sequence = 0x7FFF_FFFD;
    for token in 1..=3 {
        pair.esme.request(&submit(), token, pair.now).unwrap();
    }
    let numbers: Vec<u32> = sent(&mut pair.esme).iter().map(|h| h.sequence).collect();
    assert_eq!(numbers, [0x7FFF_FFFE, 0x7FFF_FFFF, 1]);
    for number in [1, 0x7FFF_FFFF, 0x7FFF_FFFE] {
        hear(&mut pair.esme, &raw(0x8000_0004, 0, number, b"x\0"), pair.now);
    }
    let tokens: Vec<u64> = events(&mut pair.esme)
        .into_iter()
        .map(|e| match e {
            Event::Answered { token, .. } => token,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(tokens, [3, 2, 1]);
}

#[test]
fn a_request_without_an_answer_lapses_alone_and_the_link_stays() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    pair.esme.request(&submit(), 1, pair.now).unwrap();
    pair.deliver();
    let first = pair.asked()[0];
    pair.pass(29);
    pair.esme.request(&submit(), 2, pair.now).unwrap();
    pair.deliver();
    pair.pass(31);
    pair.deliver();
    assert!(matches!(events(&mut pair.esme)[..], [Event::Lapsed { token: 1 }]));
    assert_eq!((pair.esme.outstanding(), pair.esme.is_ended()), (1, false));
    // Too late is a stray.
    pair.centre.respond(first, CommandStatus::ROK, &named("late"));
    pair.deliver();
    assert!(events(&mut pair.esme).is_empty());
    assert_eq!(pair.esme.oddities(), (0, 1));
}

#[test]
fn silence_is_asked_about_both_ways_and_then_ends_the_session() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    pair.pass(30);
    let asked = [sent(&mut pair.esme), sent(&mut pair.centre)];
    for headers in asked {
        assert_eq!(headers[0].command, CommandId::ENQUIRE_LINK);
    }
    pair.pass(60);
    assert!(matches!(events(&mut pair.esme)[..], [Event::Ended(Ended::Silent)]));
    assert!(matches!(events(&mut pair.centre)[..], [Event::Ended(Ended::Silent)]));

    let mut alive = Pair::bound(BindKind::Transceiver);
    for _ in 0..10 {
        alive.pass(30);
        alive.deliver();
    }
    assert!(events(&mut alive.esme).is_empty() && !alive.esme.is_ended() && !alive.centre.is_ended());
}

#[test]
fn a_peer_that_talks_but_does_not_answer_enquire_link_is_kept() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    pair.pass(30);
    sent(&mut pair.esme);
    for _ in 0..20 {
        pair.now += Duration::from_secs(5);
        hear(&mut pair.esme, &raw(0x15, 0, 1, b""), pair.now);
        pair.esme.elapsed(pair.now);
    }
    assert!(!pair.esme.is_ended());
}

#[test]
fn enquire_link_does_not_keep_an_idle_session() {
    let now = Instant::now();
    let mut centre = Session::new(Role::Centre, Limits { inactivity: Duration::from_secs(90), ..limits() }, now);
    let mut bytes = BytesMut::new();
    Request::Bind(bind(BindKind::Transmitter)).encode(1, &mut bytes);
    hear(&mut centre, &bytes, now);
    centre.accept(1, BindResp::default(), now);
    events(&mut centre);
    for s in [20, 40, 60, 80] {
        hear(&mut centre, &raw(0x15, 0, s as u32, b""), now + Duration::from_secs(s));
    }
    centre.elapsed(now + Duration::from_secs(90));
    assert!(matches!(events(&mut centre)[..], [Event::Ended(Ended::Idle)]));
}

#[test]
fn unbinds_that_cross_end_both_and_what_was_on_its_way_is_still_taken() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    pair.esme.request(&submit(), 1, pair.now).unwrap();
    pair.esme.unbind(pair.now);
    assert_eq!(pair.esme.request(&submit(), 2, pair.now), Err((NotSent::NotBound, 2)));
    pair.centre.request(&Request::DeliverSm(message(b"mo")), 9, pair.now).unwrap();
    pair.centre.unbind(pair.now);
    // Both read what the other sent before knowing of the unbind.
    let (a, b) = (pair.esme.pending().to_vec(), pair.centre.pending().to_vec());
    pair.esme.written(a.len());
    pair.centre.written(b.len());
    hear(&mut pair.centre, &a, pair.now);
    hear(&mut pair.esme, &b, pair.now);
    assert!(matches!(events(&mut pair.centre)[..], [Event::Asked { .. }, Event::Ended(Ended::PeerUnbound)]));
    assert!(matches!(events(&mut pair.esme)[..], [Event::Asked { .. }, Event::Ended(Ended::PeerUnbound)]));
    // Each has answered the other's unbind.
    let last = |s: &mut Session| sent(s).last().unwrap().command;
    assert_eq!(last(&mut pair.esme), CommandId::UNBIND.response());
    assert_eq!(last(&mut pair.centre), CommandId::UNBIND.response());
    assert_eq!(pair.esme.unfinished().collect::<Vec<_>>(), [(1, Fate::Unknown)]);
}

#[test]
fn answers_still_count_while_an_unbind_is_on_its_way() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    pair.esme.request(&submit(), 1, pair.now).unwrap();
    carry(&mut pair.esme, &mut pair.centre, pair.now);
    let asked = pair.asked();
    pair.esme.unbind(pair.now);
    pair.centre.respond(asked[0], CommandStatus::ROK, &named("7"));
    pair.deliver();
    assert!(matches!(events(&mut pair.esme)[..], [Event::Answered { token: 1, .. }, Event::Ended(Ended::Unbound)]));
}

#[test]
fn what_never_reached_the_socket_is_known_to_be_unsent() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    for token in 1..=3 {
        pair.esme.request(&submit(), token, pair.now).unwrap();
    }
    // The first whole, the second but for an octet.
    let one = pair.esme.pending().len() / 3;
    pair.esme.written(2 * one - 1);
    pair.esme.lost();
    let fates: Vec<_> = pair.esme.unfinished().collect();
    assert_eq!(fates, [(1, Fate::Unknown), (2, Fate::Unsent), (3, Fate::Unsent)]);
}

#[test]
fn lengths_that_end_the_framing_end_the_session_with_a_nack() {
    for length in [0u32, 4, 15, u32::MAX] {
        let mut pair = Pair::bound(BindKind::Transceiver);
        hear(&mut pair.centre, &[&length.to_be_bytes()[..], &[0; 12]].concat(), pair.now);
        assert!(matches!(events(&mut pair.centre)[..], [Event::Ended(Ended::Framing(BadLength(l)))] if l == length));
        let [nack] = sent(&mut pair.centre)[..] else { panic!("one nack") };
        assert_eq!((nack.command, nack.status), (CommandId::GENERIC_NACK, CommandStatus::RINVCMDLEN));
    }
}

#[test]
fn each_bad_pdu_in_a_good_frame_has_its_status_and_the_link_is_kept() {
    let mut good = BytesMut::new();
    submit().encode(1, &mut good);
    let body = good[16..].to_vec();
    let with = |more: &[u8]| [&body[..], more].concat();
    let long_source = [&b"\0\0\0"[..], &[b'1'; 30], b"\0"].concat();
    let cases: Vec<(u32, Vec<u8>, u32, CommandStatus)> = vec![
        (0x0BAD, vec![], 0x8000_0000, CommandStatus::RINVCMDID),
        (0x0000_0000, vec![], 0x8000_0000, CommandStatus::RINVCMDID),
        (0x111, vec![], 0x8000_0000, CommandStatus::RINVCMDID),
        (0x04, vec![], 0x8000_0004, CommandStatus::RINVCMDLEN),
        (0x04, body[..10].to_vec(), 0x8000_0004, CommandStatus::RINVCMDLEN),
        (0x04, body[..body.len() - 1].to_vec(), 0x8000_0004, CommandStatus::RINVMSGLEN),
        (0x04, b"toolong\0".to_vec(), 0x8000_0004, CommandStatus::RINVSERTYP),
        (0x04, long_source, 0x8000_0004, CommandStatus::RINVSRCADR),
        (0x04, with(&[0x04]), 0x8000_0004, CommandStatus::RINVTLVSTREAM),
        (0x04, with(&[0x04, 0x27, 0, 9, 1]), 0x8000_0004, CommandStatus::RINVTLVSTREAM),
        (0x04, with(&[0x02, 0x04, 0, 1, 1]), 0x8000_0004, CommandStatus::RINVTLVLEN),
        (0x21, b"\0\0\0\0\x01\x07".to_vec(), 0x8000_0021, CommandStatus::RINVDESTFLAG),
        (0x08, b"\0no end".to_vec(), 0x8000_0008, CommandStatus::RINVCMDLEN),
        (0x08, [&b"\0"[..], &[b'1'; 65], b"\0"].concat(), 0x8000_0008, CommandStatus::RINVMSGID),
    ];
    for (command, body, answer, status) in cases {
        let mut pair = Pair::bound(BindKind::Transceiver);
        hear(&mut pair.centre, &raw(command, 0, 77, &body), pair.now);
        let [header] = sent(&mut pair.centre)[..] else { panic!("one answer to {command:x} {body:02x?}") };
        assert_eq!((header.command.0, header.status, header.sequence), (answer, status, 77), "{body:02x?}");
        assert!(!pair.centre.is_ended() && events(&mut pair.centre).is_empty());
        // In step: the next one is taken.
        pair.esme.request(&submit(), 1, pair.now).unwrap();
        pair.deliver();
        assert_eq!(pair.asked().len(), 1);
    }
}

#[test]
fn bad_answers_are_never_answered() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    for command in [0x8000_0BAD, 0x8000_000B, 0x8000_0102, 0xFFFF_FFFF] {
        hear(&mut pair.esme, &raw(command, 0, 5, b"??"), pair.now);
    }
    assert!(sent(&mut pair.esme).is_empty());
    assert_eq!(pair.esme.oddities(), (4, 0));
}

#[test]
fn an_esme_overlooks_what_a_centre_gets_wrong_in_optional_parameters() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    let mut receipt = message(b"id:1 stat:DELIVRD");
    receipt.tlvs = Tlvs::build().bytes(Tag::MESSAGE_STATE, &[2, 0]).done();
    pair.centre.request(&Request::DeliverSm(receipt), 1, pair.now).unwrap();
    pair.deliver();
    assert!(matches!(events(&mut pair.esme)[..], [Event::Asked { .. }]));
}

#[test]
fn more_requests_than_are_borne_are_refused_at_once() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    let mut bytes = BytesMut::new();
    (1..=5).for_each(|sequence| submit().encode(sequence, &mut bytes));
    hear(&mut pair.centre, &bytes, pair.now);
    assert_eq!(pair.asked(), [1, 2, 3]);
    let refused: Vec<_> = sent(&mut pair.centre).iter().map(|h| (h.sequence, h.status)).collect();
    assert_eq!(refused, [(4, CommandStatus::RTHROTTLED), (5, CommandStatus::RTHROTTLED)]);
    pair.centre.respond(2, CommandStatus::ROK, &named("2"));
    bytes.clear();
    submit().encode(6, &mut bytes);
    hear(&mut pair.centre, &bytes, pair.now);
    assert_eq!(pair.asked(), [6]);
}

#[test]
fn a_nack_answers_the_request_that_it_names() {
    let mut pair = Pair::bound(BindKind::Transceiver);
    pair.esme.request(&submit(), 1, pair.now).unwrap();
    let sequence = sent(&mut pair.esme)[0].sequence;
    hear(&mut pair.esme, &raw(0x8000_0000, 3, sequence, b""), pair.now);
    let answered = events(&mut pair.esme);
    assert!(
        matches!(
            answered[..],
            [Event::Answered { token: 1, status: CommandStatus::RINVCMDID, response: Response::GenericNack }]
        ),
        "{answered:?}"
    );
}

#[test]
fn alerts_go_up_and_need_no_answer() {
    let mut pair = Pair::bound(BindKind::Receiver);
    pair.centre.alert(AlertNotification::default()).unwrap();
    pair.deliver();
    assert!(matches!(events(&mut pair.esme)[..], [Event::Alert(_)]));
    assert_eq!(pair.esme.unanswered(), 0);
}
