//! Two ends in memory: a client endpoint and a server endpoint on a pretend clock, with a network that may lose,
//! repeat and reorder.

use std::time::{Duration, Instant};

use super::*;
use crate::name::HeaderName;
use crate::transport::FlowId;

struct World {
    now: Instant,
    client: Endpoint,
    server: Endpoint,
    out: Outbox,
    flow: Flow,
    /// What travels: to the server or back.
    wire: Vec<(bool, Vec<u8>)>,
    lapsed: Vec<Lapsed>,
    seen: Vec<Seen>,
}

#[derive(Debug, PartialEq, Clone)]
enum Seen {
    Request(Method),
    Cancel(u64),
    Response(u16),
}

fn world(transport: Transport) -> World {
    let now = Instant::now();
    let config = |shard| EndpointConfig { timing: Timing::default(), shard, max_transactions: 100, secret: [7; 16] };
    let flow = Flow {
        transport,
        id: FlowId(1),
        local: "127.0.0.1:5060".parse().unwrap(),
        remote: "127.0.0.1:5062".parse().unwrap(),
    };
    World {
        now,
        client: Endpoint::new(config(1), now),
        server: Endpoint::new(config(2), now),
        out: Outbox::new(),
        flow,
        wire: Vec::new(),
        lapsed: Vec::new(),
        seen: Vec::new(),
    }
}

use crate::transport::Transport;

impl World {
    fn send(&mut self, method: Method) -> ClientId {
        let branch = self.client.branch(0);
        let hop = Hop::Flow(self.flow);
        let outgoing = Outgoing { branch, method, hop, user: 5, server: None };
        let id = self.client.request(self.now, outgoing, &mut self.out, |b| {
            b.extend_from_slice(method.as_str().as_bytes());
            b.extend_from_slice(b" sip:bob@localhost SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5062;branch=");
            branch.write(b);
            b.extend_from_slice(
                b"\r\nTo: <sip:bob@localhost>\r\nFrom: <sip:a@localhost>;tag=1\r\nCall-ID: c\r\nCSeq: 1 ",
            );
            b.extend_from_slice(method.as_str().as_bytes());
            b.extend_from_slice(b"\r\n\r\n");
        });
        self.collect(true);
        id
    }

    fn collect(&mut self, to_server: bool) {
        self.wire.extend(self.out.iter().map(|(_, bytes)| (to_server, bytes.to_vec())));
        self.out.clear();
    }

    /// Delivers what travels; returns the server transactions that were accepted.
    fn deliver(&mut self) -> Vec<ServerId> {
        let mut accepted = Vec::new();
        while !self.wire.is_empty() {
            let (to_server, bytes) = self.wire.remove(0);
            let message = Message::parse(&bytes).unwrap();
            if to_server {
                match self.server.receive(self.now, &message, &mut self.out) {
                    Received::Request => {
                        self.seen.push(Seen::Request(message.method()));
                        if message.method() != Method::Ack {
                            accepted.push(self.server.accept(&self.flow, &message, 9).unwrap());
                        }
                    }
                    Received::Cancel { user, .. } => self.seen.push(Seen::Cancel(user)),
                    _ => {}
                }
            } else if let Received::Response { .. } = self.client.receive(self.now, &message, &mut self.out) {
                self.seen.push(Seen::Response(message.status()));
            }
            let answered_by_server = to_server;
            self.collect(!answered_by_server);
        }
        accepted
    }

    fn answer(&mut self, id: ServerId, status: u16) -> bool {
        let original = self.server.original(id).map(<[u8]>::to_vec).unwrap_or_else(|| self.invite_bytes());
        let request = Message::parse(&original).unwrap();
        let sent = self.server.respond(self.now, id, status, &mut self.out, |b| {
            b.extend_from_slice(format!("SIP/2.0 {status} X\r\n").as_bytes());
            for name in [HeaderName::Via, HeaderName::From, HeaderName::CallId, HeaderName::CSeq] {
                let value = String::from_utf8(request.value(name).unwrap().to_vec()).unwrap();
                b.extend_from_slice(format!("{}: {value}\r\n", name.as_str()).as_bytes());
            }
            b.extend_from_slice(b"To: <sip:bob@localhost>;tag=2\r\n\r\n");
        });
        self.collect(false);
        sent
    }

    fn invite_bytes(&self) -> Vec<u8> {
        b"INVITE sip:b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\r\n".to_vec()
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(10);
            self.client.tick(self.now, &mut self.out, &mut self.lapsed);
            self.collect(true);
            self.server.tick(self.now, &mut self.out, &mut self.lapsed);
            self.collect(false);
        }
    }
}

#[test]
fn what_was_answered_is_not_in_progress_though_it_is_remembered() {
    for (method, provisional) in [(Method::Invite, true), (Method::Options, false)] {
        let mut w = world(Transport::Udp);
        w.send(method);
        let id = w.deliver()[0];
        if provisional {
            w.answer(id, 180);
        }
        assert_eq!(w.server.unanswered(), 1);
        w.answer(id, 200);
        assert_eq!(w.server.unanswered(), 0);
        assert!(!w.server.is_empty());
    }
}

#[test]
fn a_request_lost_twice_arrives_once_and_its_answer_is_repeated() {
    let mut w = world(Transport::Udp);
    w.send(Method::Options);
    w.wire.clear();
    w.pass(Duration::from_millis(510));
    w.wire.clear();
    w.pass(Duration::from_millis(1010));
    let ids = w.deliver();
    assert_eq!(ids.len(), 1);
    w.answer(ids[0], 200);
    w.wire.clear(); // the answer is lost
    w.pass(Duration::from_millis(2010));
    w.deliver();
    assert_eq!(w.seen, [Seen::Request(Method::Options), Seen::Response(200)]);
    w.pass(Duration::from_secs(40));
    assert!(w.client.is_empty() && w.server.is_empty());
    assert!(w.lapsed.is_empty());
}

#[test]
fn nobody_answers_and_the_user_hears_of_it_once() {
    let mut w = world(Transport::Udp);
    w.send(Method::Invite);
    w.pass(Duration::from_secs(33));
    // Sent at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s.
    assert_eq!(w.wire.len(), 7);
    assert!(matches!(w.lapsed[..], [Lapsed::Client { user: 5, unreachable: false, .. }]));
    assert!(w.client.is_empty());
}

#[test]
fn a_failed_invite_is_acknowledged_hop_by_hop() {
    let mut w = world(Transport::Udp);
    w.send(Method::Invite);
    let id = w.deliver()[0];
    assert!(w.answer(id, 180));
    assert!(w.answer(id, 486));
    w.deliver();
    assert_eq!(w.seen, [Seen::Request(Method::Invite), Seen::Response(180), Seen::Response(486)]);
    // The ACK confirmed it: nothing is resent.
    w.pass(Duration::from_secs(4));
    assert!(w.wire.is_empty());
    assert!(!w.answer(id, 200));
    w.pass(Duration::from_secs(40));
    assert!(w.client.is_empty() && w.server.is_empty());
}

#[test]
fn cancel_waits_for_a_provisional_response() {
    let mut w = world(Transport::Udp);
    let call = w.send(Method::Invite);
    let id = w.deliver()[0];
    w.client.cancel(w.now, call, &mut w.out);
    assert!(w.out.is_empty());
    w.answer(id, 180);
    w.deliver();
    assert_eq!(w.seen.last(), Some(&Seen::Cancel(9)));
    w.answer(id, 487);
    w.deliver();
    assert_eq!(w.seen.last(), Some(&Seen::Response(487)));
}

#[test]
fn a_cancelled_invite_that_stays_silent_ends_after_64_t1() {
    let mut w = world(Transport::Udp);
    let call = w.send(Method::Invite);
    let id = w.deliver()[0];
    w.answer(id, 180);
    w.deliver();
    w.client.cancel(w.now, call, &mut w.out);
    w.out.clear();
    w.pass(Duration::from_secs(33));
    assert!(w.lapsed.iter().any(|l| matches!(l, Lapsed::Client { user: 5, .. })));
}

#[test]
fn accepted_passes_2xx_again_and_absorbs_the_invite() {
    let mut w = world(Transport::Udp);
    w.send(Method::Invite);
    let invite = w.wire[0].clone();
    let id = w.deliver()[0];
    w.answer(id, 200);
    let ok = w.wire[0].clone();
    w.deliver();
    w.wire.push(ok);
    w.wire.push(invite);
    assert!(w.deliver().is_empty());
    assert_eq!(w.seen, [Seen::Request(Method::Invite), Seen::Response(200), Seen::Response(200)]);
}

#[test]
fn a_response_with_a_guessed_branch_is_stray() {
    let mut w = world(Transport::Udp);
    w.send(Method::Options);
    let mut forged = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=".to_vec();
    Branch { shard: 1, slot: Slot { index: 0, stamp: 1 }, suffix: 0 }.write(&mut forged);
    forged.extend_from_slice(b"\r\nCSeq: 1 OPTIONS\r\n\r\n");
    let message = Message::parse(&forged).unwrap();
    assert_eq!(w.client.receive(w.now, &message, &mut w.out), Received::Stray);
}

#[test]
fn streams_neither_resend_nor_linger() {
    let mut w = world(Transport::Tcp);
    w.send(Method::Options);
    let id = w.deliver()[0];
    w.answer(id, 200);
    w.deliver();
    assert_eq!(w.seen.last(), Some(&Seen::Response(200)));
    assert!(w.client.is_empty() && w.server.is_empty());
}

#[test]
fn a_full_shard_refuses() {
    let mut w = world(Transport::Udp);
    for i in 0..100 {
        let bytes = format!(
            "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{i}\r\nCSeq: 1 OPTIONS\r\nCall-ID: a\r\n\r\n"
        );
        w.server.accept(&w.flow, &Message::parse(bytes.as_bytes()).unwrap(), 0).unwrap();
    }
    let one_more = Message::parse(b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKz\r\n\r\n").unwrap();
    assert_eq!(w.server.accept(&w.flow, &one_more, 0), Err(Full));
}

#[test]
fn unreachable_ends_the_transaction_of_that_token_only() {
    let mut w = world(Transport::Tcp);
    let branch = w.client.branch(0);
    let outgoing = Outgoing { branch, method: Method::Options, hop: Hop::Flow(w.flow), user: 5, server: None };
    w.client.request(w.now, outgoing, &mut w.out, |b| b.push(b'x'));
    let token = w.out.items()[0].token;
    assert_eq!(Endpoint::token_shard(token), 1);
    assert_eq!(w.client.unreachable(w.now, token ^ (1 << 40), &mut w.out), None);
    assert!(matches!(w.client.unreachable(w.now, token, &mut w.out), Some(Lapsed::Client { unreachable: true, .. })));
    assert!(w.client.is_empty());
}

/// Whatever is lost, repeated or reordered: the caller sees exactly one final answer or one time-out, and both ends are
/// empty afterwards.
#[test]
fn loss_repetition_and_reordering_never_leave_state_behind() {
    for seed in 0..200u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let method = if seed % 2 == 0 { Method::Invite } else { Method::Message };
        let status = if seed % 3 == 0 { 486 } else { 200 };
        let mut w = world(Transport::Udp);
        w.send(method);
        let mut open: Option<ServerId> = None;
        for _ in 0..800 {
            w.pass(Duration::from_millis(100));
            let mut batch = std::mem::take(&mut w.wire);
            batch.retain(|_| next() % 3 != 0);
            if batch.len() > 1 && next() % 2 == 0 {
                batch.reverse();
            }
            if next() % 4 == 0
                && let Some(again) = batch.first().cloned()
            {
                batch.push(again);
            }
            w.wire = batch;
            if let Some(id) = w.deliver().first() {
                open = Some(*id);
            }
            if let Some(id) = open.filter(|_| next() % 4 == 0) {
                w.answer(id, status);
            }
        }
        let finals = w.seen.iter().filter(|s| matches!(s, Seen::Response(200..))).count();
        let timeouts = w.lapsed.iter().filter(|l| matches!(l, Lapsed::Client { .. })).count();
        if method == Method::Invite && status == 200 {
            assert!(finals + timeouts >= 1, "seed {seed}: {:?}", w.seen);
        } else {
            assert_eq!(finals + timeouts, 1, "seed {seed}: {:?} {:?}", w.seen, w.lapsed);
        }
        assert!(w.client.is_empty() && w.server.is_empty(), "seed {seed}");
    }
}

#[test]
fn a_request_that_came_back_is_given_up_if_it_was_ours_and_nobody_answered() {
    let mut w = world(Transport::Udp);
    let to = w.flow.remote;
    w.send(Method::Invite);
    let sent = Message::parse(&w.wire[0].1).unwrap().top_via().unwrap().branch().map(<[u8]>::to_vec).unwrap();
    let branch = Branch::parse(&sent).unwrap();
    let mut guessed = sent.clone();
    guessed[25] = if guessed[25] == b'0' { b'1' } else { b'0' };
    let (other, port) = (Branch::parse(&guessed).unwrap(), "127.0.0.1:5063".parse().unwrap());
    // Somebody who did not see the request, and somebody it was not sent to.
    assert_eq!(w.client.returned(w.now, &other, to, &mut w.out), None);
    assert_eq!(w.client.returned(w.now, &branch, port, &mut w.out), None);
    let lapsed = w.client.returned(w.now, &branch, to, &mut w.out);
    assert!(matches!(lapsed, Some(Lapsed::Client { user: 5, unreachable: true, .. })), "{lapsed:?}");
    assert_eq!(w.client.returned(w.now, &branch, to, &mut w.out), None);
    w.pass(Duration::from_secs(40));
    assert!(w.client.is_empty() && w.lapsed.is_empty());
}

#[test]
fn a_copy_that_came_back_after_an_answer_changes_nothing() {
    let mut w = world(Transport::Udp);
    w.send(Method::Invite);
    let sent = w.wire[0].1.clone();
    let branch = Message::parse(&sent).unwrap().top_via().unwrap().branch().and_then(Branch::parse).unwrap();
    let ids = w.deliver();
    w.answer(ids[0], 180);
    w.deliver();
    assert_eq!(w.client.returned(w.now, &branch, w.flow.remote, &mut w.out), None);
    w.answer(ids[0], 200);
    w.deliver();
    assert_eq!(w.seen.last(), Some(&Seen::Response(200)));
}

#[test]
fn the_last_eighth_is_not_for_calls() {
    let mut w = world(Transport::Udp);
    let request = |n: usize, method: &str| {
        format!(
            "{method} sip:b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{n}\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:b>\r\n\
             Call-ID: {n}\r\nCSeq: 1 {method}\r\n\r\n"
        )
    };
    let mut accepted = |n: usize, method: &str| {
        let bytes = request(n, method).into_bytes();
        w.server.accept(&w.flow, &Message::parse(&bytes).unwrap(), 0).is_ok()
    };
    let calls = (0..100).filter(|n| accepted(*n, "INVITE")).count();
    assert_eq!(calls, 88);
    let others = (100..200).filter(|n| accepted(*n, "BYE")).count();
    assert_eq!(others, 12);
}
