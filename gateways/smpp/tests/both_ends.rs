//! A link of ours at a door of ours: what needs both ends, or times that foreign peers cannot be made to keep.

mod ends;

use std::time::Duration;

use ends::{Centre, Esme, account, link_to, text};
use gw_smpp::pdu::{CommandStatus, Request};
use gw_smpp::{BindMode, Refused, Verdict};

#[tokio::test]
async fn messages_go_both_ways_and_each_has_its_outcome() {
    let centre = Centre::open(account("us", "secret")).await;
    for mode in [BindMode::Transceiver, BindMode::Pair] {
        let (esme, link) = Esme::start(link_to(&centre, "us", "secret", |c| c.mode = mode));
        esme.up().await;
        link.submit(7, Request::SubmitSm(text("819012345678", b"hello"))).await.unwrap();
        let (ticket, verdict) = esme.outcome().await;
        assert_eq!((ticket, verdict.message_id().unwrap().as_bytes()), (7, &b"id-hello"[..]));
        centre.receiver("us").await;
        centre.door.deliver(&ends::octets("us"), 9, Request::DeliverSm(text("123", b"mo"))).unwrap();
        assert_eq!(esme.delivered().await.as_deref(), Some(&b"mo"[..]));
        assert!(matches!(centre.outcome().await, (9, Verdict::Done(_))));
        link.stop().await;
        centre.gone().await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_nothing_is_taken() {
    let centre = Centre::open(account("us", "secret")).await;
    let (_esme, link) = Esme::start(link_to(&centre, "us", "wrong", |_| {}));
    assert_eq!(centre.refused().await, CommandStatus::RINVPASWD);
    let refused = link.try_submit(1, Request::SubmitSm(text("1", b"x"))).unwrap_err();
    assert_eq!(refused.why, Refused::Down);
    link.stop().await;
}

#[tokio::test]
async fn a_throttled_message_comes_back_and_goes_when_it_is_given_again() {
    let centre = Centre::open(account("us", "secret")).await;
    let (esme, link) = Esme::start(link_to(&centre, "us", "secret", |_| {}));
    esme.up().await;
    link.submit(1, Request::SubmitSm(text("1", b"throttle twice"))).await.unwrap();
    let mut again = 0;
    loop {
        match esme.outcome().await {
            (1, Verdict::Again(CommandStatus::RTHROTTLED)) => again += 1,
            (1, Verdict::Done(_)) => break,
            other => panic!("{other:?}"),
        }
        link.submit(1, Request::SubmitSm(text("1", b"throttle twice"))).await.unwrap();
    }
    assert_eq!(again, 2);
    link.stop().await;
}

#[tokio::test]
async fn what_a_lost_connection_leaves_open_is_unknown_and_the_link_comes_back() {
    let centre = Centre::open(account("us", "secret")).await;
    let quick = |c: &mut gw_smpp::LinkConfig| c.reconnect = (Duration::from_millis(10), Duration::from_millis(50));
    let (esme, link) = Esme::start(link_to(&centre, "us", "secret", quick));
    esme.up().await;
    for ticket in 1..=3 {
        link.submit(ticket, Request::SubmitSm(text("1", b"hold"))).await.unwrap();
    }
    centre.held(3).await;
    centre.door.stop().await;
    let mut seen = Vec::new();
    for _ in 1..=3 {
        let (ticket, verdict) = esme.outcome().await;
        assert!(matches!(verdict, Verdict::Unknown), "{verdict:?}");
        seen.push(ticket);
    }
    assert_eq!(seen, [1, 2, 3]);
    esme.down().await;
    let _door = centre.open_again().await;
    esme.up().await;
    link.stop().await;
}
