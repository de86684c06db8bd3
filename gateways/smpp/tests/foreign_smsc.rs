//! Our link at a message centre that nobody here wrote: npm `smpp`.

mod ends;

use std::sync::Arc;
use std::time::Duration;

use ends::peer::Peer;
use ends::{Esme, octets, text};
use gw_smpp::pdu::{
    Address, CancelSm, CommandStatus, DataSm, Destination, Octets, QuerySm, ReplaceSm, Request, Response, ShortMessage,
    SubmitMulti, Tag, Tlvs,
};
use gw_smpp::{BindMode, ClientTls, Down, Link, LinkConfig, LinkState, Verdict};

/// A centre, and a link to it that is up.
async fn bound(change: impl FnOnce(&mut LinkConfig)) -> (Peer, Arc<Esme>, Link) {
    let mut smsc = Peer::node("smsc.js", &[]);
    let (esme, link) = link(&mut smsc, change).await;
    esme.up().await;
    (smsc, esme, link)
}

async fn link(smsc: &mut Peer, change: impl FnOnce(&mut LinkConfig)) -> (Arc<Esme>, Link) {
    let port = smsc.said("ready").await["port"].as_u64().unwrap() as u16;
    let mut config = LinkConfig::new("node", ([127, 0, 0, 1], port).into(), octets("us"), octets("secret"));
    config.reconnect = (Duration::from_millis(20), Duration::from_millis(100));
    change(&mut config);
    Esme::start(config)
}

async fn submit(link: &Link, ticket: u64, body: &str) {
    link.submit(ticket, Request::SubmitSm(text("819012345678", body.as_bytes()))).await.unwrap();
}

fn id(verdict: &Verdict) -> String {
    String::from_utf8(verdict.message_id().unwrap_or_else(|| panic!("{verdict:?}")).as_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn every_kind_of_request_is_understood() {
    let (mut smsc, esme, link) = bound(|_| {}).await;
    assert_eq!(smsc.said("bind").await["version"], 0x34);

    let mut message = text("819012345678", b"hello");
    message.tlvs = Tlvs::build().u16(Tag::USER_MESSAGE_REFERENCE, 77).u8(Tag(0x1501), 3).done();
    link.submit(1, Request::SubmitSm(message)).await.unwrap();
    let seen = smsc.said("submit_sm").await;
    assert_eq!((seen["text"].as_str(), seen["to"].as_str()), (Some("hello"), Some("819012345678")));
    assert_eq!((seen["source"].as_str(), seen["source_ton"].as_u64()), (Some("Isthmus"), Some(5)));
    assert_eq!((seen["registered"].as_u64(), seen["reference"].as_u64()), (Some(1), Some(77)));
    let (_, verdict) = esme.outcome().await;
    assert_eq!(id(&verdict), seen["id"].as_str().unwrap());

    let message_id = *verdict.message_id().unwrap();
    let source = Address { ton: 5, npi: 0, digits: octets("Isthmus") };
    link.submit(2, Request::QuerySm(QuerySm { message_id, source })).await.unwrap();
    let (_, verdict) = esme.outcome().await;
    assert!(matches!(verdict, Verdict::Done(Response::QuerySm(ref r)) if r.state == 2), "{verdict:?}");
    let replace = ReplaceSm { message_id, source, short_message: Octets::copied(b"new"), ..ReplaceSm::default() };
    link.submit(3, Request::ReplaceSm(replace)).await.unwrap();
    assert!(matches!(esme.outcome().await, (3, Verdict::Done(Response::ReplaceSm))));
    assert_eq!(smsc.said("replace_sm").await["text"], "new");
    let cancel = CancelSm { message_id, source, ..CancelSm::default() };
    link.submit(4, Request::CancelSm(cancel)).await.unwrap();
    assert!(matches!(esme.outcome().await, (4, Verdict::Done(Response::CancelSm))));
    let destination = Address { ton: 1, npi: 1, digits: octets("8190") };
    let tlvs = Tlvs::build().bytes(Tag::MESSAGE_PAYLOAD, b"payload").done();
    link.submit(5, Request::DataSm(DataSm { destination, tlvs, ..DataSm::default() })).await.unwrap();
    assert_eq!(id(&esme.outcome().await.1), "data");
    assert_eq!(smsc.said("data_sm").await["to"], "8190");
    let one = |digits: &str| Destination::Address(Address { ton: 1, npi: 1, digits: octets(digits) });
    let destinations = vec![one("1"), one("2"), Destination::List(octets("friends"))];
    let message = ShortMessage { short_message: Octets::copied(b"all"), ..ShortMessage::default() };
    let multi = SubmitMulti { destinations, message };
    link.submit(6, Request::SubmitMulti(multi)).await.unwrap();
    let (_, verdict) = esme.outcome().await;
    let Verdict::Done(Response::SubmitMulti(response)) = verdict else { panic!("{verdict:?}") };
    assert_eq!(response.failed[0].destination.digits.as_bytes(), b"2");
    assert_eq!(response.failed[0].status, CommandStatus::RINVDSTADR);
    assert_eq!(smsc.said("submit_multi").await["to"], serde_json::json!(["1", "2", "friends"]));

    link.stop().await;
    smsc.said("unbind").await;
}

#[tokio::test]
async fn answers_in_reverse_and_late_ones_find_their_messages() {
    let (mut smsc, esme, link) = bound(|_| {}).await;
    submit(&link, 9, "late").await;
    for ticket in 1..=5 {
        submit(&link, ticket, "reverse 5").await;
    }
    let mut ids = std::collections::HashMap::new();
    let mut order = Vec::new();
    for _ in 0..6 {
        let (ticket, verdict) = esme.outcome().await;
        ids.insert(ticket, id(&verdict));
        order.push(ticket);
    }
    assert_eq!(order, [5, 4, 3, 2, 1, 9]);
    let mut given = Vec::new();
    for _ in 0..6 {
        given.push(smsc.said("submit_sm").await["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(given, [9, 1, 2, 3, 4, 5].map(|t| ids[&t].clone()));
    link.stop().await;
}

#[tokio::test]
async fn receipts_come_in_every_dialect_and_are_acknowledged() {
    let (mut smsc, esme, link) = bound(|_| {}).await;
    for (body, count) in [("early", 1), ("decimal", 1), ("twice", 2), ("tlvonly", 1)] {
        submit(&link, 1, body).await;
        let (_, verdict) = esme.outcome().await;
        let id = id(&verdict);
        for _ in 0..count {
            let Request::DeliverSm(receipt) = esme.request().await else { panic!("no receipt") };
            assert!(receipt.is_receipt());
            let named = match body {
                "decimal" => format!("id:{} ", u32::from_str_radix(&id, 16).unwrap()),
                _ => format!("id:{id} "),
            };
            match body {
                "tlvonly" => {
                    assert_eq!(receipt.tlvs.text(Tag::RECEIPTED_MESSAGE_ID), Some(id.as_bytes()));
                    assert_eq!(receipt.tlvs.u8(Tag::MESSAGE_STATE), Some(2));
                }
                _ => assert!(receipt.text().starts_with(named.as_bytes())),
            }
            assert_eq!(smsc.said("deliver_sm_resp").await["status"], 0);
        }
    }
    // Messages, too, many at once.
    submit(&link, 2, "deliver 20").await;
    for i in 0..20 {
        assert_eq!(esme.delivered().await.unwrap(), format!("mo {i}").into_bytes());
    }
    link.stop().await;
}

#[tokio::test]
async fn throttled_and_full_are_to_be_tried_again_and_refused_is_refused() {
    let (_smsc, esme, link) = bound(|_| {}).await;
    for (body, status, times) in [("throttle", CommandStatus::RTHROTTLED, 2), ("full", CommandStatus::RMSGQFUL, 1)] {
        for _ in 0..times {
            submit(&link, 1, body).await;
            let (_, verdict) = esme.outcome().await;
            assert!(matches!(verdict, Verdict::Again(s) if s == status), "{verdict:?}");
        }
        submit(&link, 1, body).await;
        id(&esme.outcome().await.1);
    }
    assert_eq!(link.oddities()[0], 3);
    for (body, status) in
        [("refuse", CommandStatus::RINVDSTADR), ("vendor", CommandStatus(0x402)), ("nack", CommandStatus::RINVCMDID)]
    {
        submit(&link, 2, body).await;
        let (_, verdict) = esme.outcome().await;
        assert!(matches!(verdict, Verdict::Refused(s, _) if s == status), "{verdict:?}");
    }
    assert!(link.is_up());
    link.stop().await;
}

#[tokio::test]
async fn whatever_ends_the_connection_leaves_the_window_unknown_and_the_link_comes_back() {
    let (_smsc, esme, link) = bound(|_| {}).await;
    for body in ["drop", "half", "unbind", "garbage"] {
        for ticket in 1..=3 {
            submit(&link, ticket, "hold").await;
        }
        submit(&link, 4, body).await;
        for ticket in 1..=4 {
            let (seen, verdict) = esme.outcome().await;
            assert!(seen == ticket && matches!(verdict, Verdict::Unknown), "{body}: {seen} {verdict:?}");
        }
        esme.down().await;
        esme.up().await;
        submit(&link, 5, "again").await;
        id(&esme.outcome().await.1);
    }
    link.stop().await;
}

#[tokio::test]
async fn unknown_numbers_and_commands_are_borne() {
    let (mut smsc, esme, link) = bound(|_| {}).await;
    submit(&link, 1, "stray").await;
    id(&esme.outcome().await.1);
    submit(&link, 2, "unknown").await;
    id(&esme.outcome().await.1);
    let nacked = smsc.said("nacked").await;
    assert_eq!((nacked["status"].as_u64(), nacked["sequence"].as_u64()), (Some(3), Some(99)));
    assert!(link.is_up());
    link.stop().await;
    assert_eq!(link.oddities(), [0, 1, 1]);
}

#[tokio::test]
async fn enquire_link_goes_both_ways_and_a_pair_has_two_connections() {
    let (mut smsc, esme, link) = bound(|c| {
        c.mode = BindMode::Pair;
        c.limits.enquire = Duration::from_millis(300);
    })
    .await;
    let mut kinds = [smsc.said("bind").await, smsc.said("bind").await].map(|b| b["kind"].to_string());
    kinds.sort();
    assert_eq!(kinds, ["\"receiver\"", "\"transmitter\""]);
    for _ in 0..4 {
        smsc.said("enquire_link").await;
    }
    submit(&link, 1, "hello").await;
    id(&esme.outcome().await.1);
    link.stop().await;
    smsc.said("unbind").await;
    smsc.said("unbind").await;
}

#[tokio::test]
async fn a_link_over_tls_checks_who_is_there() {
    let issued = rcgen::generate_simple_self_signed(vec!["smsc.test".to_owned()]).unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("cert.pem"));
    std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
    std::fs::write(&certificate, issued.cert.pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(issued.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    for (name, good) in [("smsc.test", true), ("other.test", false)] {
        let mut smsc = Peer::node("smsc.js", &[key.to_str().unwrap(), certificate.to_str().unwrap()]);
        let tls = ClientTls { config: config.clone(), name: name.try_into().unwrap() };
        let (esme, link) = link(&mut smsc, |c| c.tls = Some(tls)).await;
        if good {
            esme.up().await;
            submit(&link, 1, "hello").await;
            id(&esme.outcome().await.1);
        } else {
            assert_eq!(esme.state().await, LinkState::Down(Down::Unreachable));
        }
        link.stop().await;
    }
}
