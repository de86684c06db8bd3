use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::headers::RAck;

const T1: Duration = Duration::from_millis(500);

fn response(rseq: u32) -> Vec<u8> {
    format!("SIP/2.0 183 Session Progress\r\nRequire: 100rel\r\nRSeq: {rseq}\r\nCSeq: 7 INVITE\r\n\r\n").into_bytes()
}

fn receive(receipt: &mut ReliableReceipt, bytes: &[u8]) -> Option<u32> {
    match receipt.receive(&Message::parse(bytes).unwrap()) {
        Receipt::Acknowledge(rack) => Some(rack.response),
        _ => None,
    }
}

fn rack(text: &str) -> RAck<'_> {
    RAck::parse(text.as_bytes()).unwrap()
}

#[test]
fn an_invite_says_whether_reliability_may_be_used() {
    let of = |line: &str| wanted(&Message::parse(format!("INVITE sip:a SIP/2.0\r\n{line}\r\n").as_bytes()).unwrap());
    assert_eq!(of(""), Reliability::No);
    assert_eq!(of("k: timer, 100rel\r\n"), Reliability::Possible);
    assert_eq!(of("Supported: 100rel\r\nRequire: 100rel\r\n"), Reliability::Required);
}

#[test]
fn one_response_is_under_way_and_the_next_follows_its_prack() {
    let t = Instant::now();
    let mut r = ReliableResponses::new(7, 10, T1);
    assert_eq!(r.next_rseq(), Some(10));
    assert!(r.send(t, b"ten", false));
    assert_eq!(r.next_rseq(), Some(11));
    assert!(!r.send(t, b"eleven", false));
    assert_eq!(r.acknowledged(t, &rack("10 7 INVITE")), Ok(Some(&b"eleven"[..])));
    assert_eq!(r.acknowledged(t, &rack("11 7 INVITE")), Ok(None));
    assert_eq!(r.deadline(), None);
}

#[test]
fn a_prack_for_another_response_or_request_is_not_awaited() {
    let t = Instant::now();
    let mut r = ReliableResponses::new(7, 10, T1);
    r.send(t, b"ten", false);
    for text in ["11 7 INVITE", "10 8 INVITE", "10 7 UPDATE"] {
        assert_eq!(r.acknowledged(t, &rack(text)), Err(NotAwaited), "{text}");
    }
    r.acknowledged(t, &rack("10 7 INVITE")).unwrap();
    assert_eq!(r.acknowledged(t, &rack("10 7 INVITE")), Err(NotAwaited));
}

#[test]
fn retransmissions_double_from_t1_and_stop_after_64_t1() {
    let t = Instant::now();
    let mut r = ReliableResponses::new(7, 1, T1);
    r.send(t, b"one", false);
    let mut sent = Vec::new();
    while let Some(at) = r.deadline() {
        match r.due(at) {
            Resend::Response(bytes) => {
                assert_eq!(bytes, b"one");
                sent.push((at - t).as_millis());
            }
            Resend::GiveUp => {
                assert_eq!(at - t, T1 * 64);
                break;
            }
            Resend::Nothing => panic!("nothing at the deadline"),
        }
    }
    assert_eq!(sent, [500, 1500, 3500, 7500, 15500, 31500]);
    assert_eq!(r.deadline(), None);
}

#[test]
fn an_acceptance_waits_for_the_prack_of_a_session_description() {
    let t = Instant::now();
    let mut r = ReliableResponses::new(7, 1, T1);
    r.send(t, b"ringing", false);
    assert!(r.may_accept());
    r.send(t, b"answer", true);
    assert!(!r.may_accept());
    r.acknowledged(t, &rack("1 7 INVITE")).unwrap();
    assert!(!r.may_accept());
    r.acknowledged(t, &rack("2 7 INVITE")).unwrap();
    assert!(r.may_accept());
}

#[test]
fn after_the_final_response_nothing_is_resent_and_a_late_prack_is_still_taken() {
    let t = Instant::now();
    let mut r = ReliableResponses::new(7, 1, T1);
    r.send(t, b"one", false);
    r.send(t, b"two", false);
    r.finish();
    assert_eq!((r.deadline(), r.due(t + T1)), (None, Resend::Nothing));
    assert_eq!((r.next_rseq(), r.send(t, b"three", false)), (None, false));
    assert_eq!(r.acknowledged(t, &rack("2 7 INVITE")), Err(NotAwaited));
    assert_eq!(r.acknowledged(t, &rack("1 7 INVITE")), Ok(None));
}

#[test]
fn waiting_responses_are_bounded() {
    let t = Instant::now();
    let mut r = ReliableResponses::new(7, 1, T1);
    let taken = (0..100)
        .take_while(|_| {
            r.next_rseq().is_some_and(|_| {
                r.send(t, b"x", false);
                true
            })
        })
        .count();
    assert_eq!(taken, 9);
}

#[test]
fn the_caller_acknowledges_in_order_and_once() {
    let mut receipt = ReliableReceipt::new();
    assert_eq!(receive(&mut receipt, &response(5)), Some(5));
    assert_eq!(receive(&mut receipt, &response(5)), None);
    assert_eq!(receive(&mut receipt, &response(7)), None);
    assert_eq!(receive(&mut receipt, &response(6)), Some(6));
    assert_eq!(receive(&mut receipt, &response(7)), Some(7));
    let plain = b"SIP/2.0 180 Ringing\r\nRSeq: 8\r\nCSeq: 7 INVITE\r\n\r\n";
    assert_eq!(ReliableReceipt::new().receive(&Message::parse(plain).unwrap()), Receipt::Unreliable);
}

proptest! {
    /// Two ends over a network that loses, doubles and delays: every response arrives once and in order.
    #[test]
    fn all_responses_arrive_once_and_in_order(
        fates in proptest::collection::vec((proptest::bool::weighted(0.3), 0u64..900, proptest::bool::weighted(0.2)), 200),
        count in 1u32..6,
    ) {
        let start = Instant::now();
        let mut fates = fates.into_iter().chain(std::iter::repeat((false, 0, false)));
        // Messages in flight by arrival; the number keeps those of one time apart.
        let mut flying: BTreeMap<(Instant, u32), (bool, u32)> = BTreeMap::new();
        let mut serial = 0;
        let mut launch = |flying: &mut BTreeMap<_, _>, at: Instant, to_caller: bool, rseq: u32| {
            let (lost, delay, doubled) = fates.next().unwrap();
            for extra in 0..=u64::from(doubled) {
                if !lost {
                    serial += 1;
                    flying.insert((at + Duration::from_millis(delay + 700 * extra), serial), (to_caller, rseq));
                }
            }
        };
        let rseq_of = |bytes: &[u8]| Message::parse(bytes).unwrap().value(HeaderName::RSeq).and_then(crate::headers::response_num).unwrap();
        let mut callee = ReliableResponses::new(7, 1, T1);
        let mut caller = ReliableReceipt::new();
        let mut got = Vec::new();
        // PRACK is a transaction of its own: resent each second until the callee has it.
        let mut prack: Option<(u32, Instant)> = None;
        for _ in 0..count {
            let bytes = response(callee.next_rseq().unwrap());
            if callee.send(start, &bytes, false) {
                launch(&mut flying, start, true, rseq_of(&bytes));
            }
        }
        loop {
            let next = [flying.keys().next().map(|k| k.0), callee.deadline(), prack.map(|p| p.1)].into_iter().flatten().min();
            let Some(now) = next else { break };
            if let Some(entry) = flying.first_entry().filter(|e| e.key().0 <= now) {
                match entry.remove() {
                    (true, rseq) => {
                        if let Some(rseq) = receive(&mut caller, &response(rseq)) {
                            got.push(rseq);
                            prack = Some((rseq, now + Duration::from_secs(1)));
                            launch(&mut flying, now, false, rseq);
                        }
                    }
                    (false, rseq) => {
                        let text = format!("{rseq} 7 INVITE");
                        if let Ok(more) = callee.acknowledged(now, &rack(&text)) {
                            let more = more.map(&rseq_of);
                            prack = prack.filter(|p| p.0 != rseq);
                            if let Some(rseq) = more {
                                launch(&mut flying, now, true, rseq);
                            }
                        }
                    }
                }
            } else if callee.deadline().is_some_and(|d| d <= now) {
                match callee.due(now) {
                    Resend::Response(bytes) => {
                        let rseq = rseq_of(bytes);
                        launch(&mut flying, now, true, rseq);
                    }
                    Resend::GiveUp => break,
                    Resend::Nothing => prop_assert!(false, "nothing at the deadline"),
                }
            } else if let Some((rseq, at)) = &mut prack {
                *at = now + Duration::from_secs(1);
                let rseq = *rseq;
                launch(&mut flying, now, false, rseq);
            }
        }
        let whole: Vec<u32> = (1..=count).collect();
        prop_assert!(whole.starts_with(&got), "{:?}", got);
        // Only 64*T1 of bad luck keeps some back.
        prop_assert!(got == whole || callee.deadline().is_none());
    }
}
