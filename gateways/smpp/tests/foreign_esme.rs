//! ESMEs that nobody here wrote at our door: npm `smpp` and PyPI `smpplib`.

mod ends;

use std::sync::Arc;

use ends::peer::Peer;
use ends::{Centre, account, octets, text};
use gw_smpp::pdu::{Request, Tag, Tlvs};
use gw_smpp::{Account, Accounts, DoorConfig, Verdict};
use serde_json::json;

#[tokio::test]
async fn node_smpp_goes_through_every_operation() {
    node(false).await;
}

#[tokio::test]
async fn node_smpp_goes_through_every_operation_over_tls() {
    node(true).await;
}

async fn node(encrypted: bool) {
    let mut accounts = Accounts::default();
    let mut own = Account::new(octets("node"));
    own.sources = vec!["node".to_owned()];
    accounts.add(octets("secret"), vec!["127.0.0.1".parse().unwrap()], own);
    let tls = encrypted.then(|| {
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key)
            .unwrap();
        Arc::new(config)
    });
    let centre = Centre::open_with(accounts, DoorConfig { tls, ..DoorConfig::default() }).await;
    let port = centre.address.port().to_string();
    let arguments = [port.as_str(), "tls"];
    let mut esme = Peer::node("esme.js", if encrypted { &arguments } else { &arguments[..1] });

    let mut status = async |what: &str| esme.said(what).await["status"].as_u64().unwrap();
    assert_eq!(status("early").await, 0x04);
    assert_eq!(status("wrong").await, 0x0E);
    assert_eq!(status("stranger").await, 0x0F);
    let bound = esme.said("bound").await;
    assert_eq!(bound, json!({"what": "bound", "status": 0, "system_id": "isthmus", "version": 0x34}));
    let mut status = async |what: &str| esme.said(what).await["status"].as_u64().unwrap();
    assert_eq!(status("again").await, 0x05);
    for what in ["unicode", "payload", "replace_sm", "cancel_sm", "enquire_link"] {
        assert_eq!(status(what).await, 0, "{what}");
    }
    assert_eq!(status("spoof").await, 0x0A);
    assert_eq!(esme.said("submit_sm").await["message_id"], "id-hello");
    assert_eq!(esme.said("data_sm").await["message_id"], "id-data");
    let multi = esme.said("submit_multi").await;
    assert_eq!((multi["status"].as_u64(), multi["message_id"].as_str()), (Some(0), Some("id-many")));
    let query = esme.said("query_sm").await;
    assert_eq!((query["state"].as_u64(), query["message_id"].as_str()), (Some(2), Some("id-hello")));
    assert_eq!(esme.said("burst").await, json!({"what": "burst", "ok": 50, "ids": 50}));
    esme.said("ready").await;

    let Request::SubmitSm(first) = centre.asked().await else { panic!("not a submit_sm") };
    assert_eq!((first.destination.digits.as_bytes(), first.text()), (&b"819012345678"[..], &b"hello"[..]));

    // A message and a receipt for it.
    centre.door.deliver(&octets("node"), 1, Request::DeliverSm(text("1", b"Caf\xe9"))).unwrap();
    let seen = esme.said("deliver_sm").await;
    assert_eq!((seen["from"].as_str(), seen["esm"].as_u64()), (Some("Isthmus"), Some(0)));
    let mut receipt = text("1", b"id:id-hello stat:DELIVRD");
    receipt.esm_class = 4;
    receipt.tlvs =
        Tlvs::build().text(Tag::RECEIPTED_MESSAGE_ID, b"id-hello").u8(Tag::MESSAGE_STATE, 2).u8(Tag(0x1501), 1).done();
    centre.door.deliver(&octets("node"), 2, Request::DeliverSm(receipt)).unwrap();
    let seen = esme.said("deliver_sm").await;
    assert_eq!((seen["receipted"].as_str(), seen["state"].as_u64()), (Some("id-hello"), Some(2)));
    for ticket in 1..=2 {
        let (seen, verdict) = centre.outcome().await;
        assert!(seen == ticket && matches!(verdict, Verdict::Done(_)), "{verdict:?}");
    }
    esme.tell("go\n").await;
    assert_eq!(esme.said("unbound").await["status"], 0);
    assert!(esme.ended().await);
    centre.gone().await;
}

#[tokio::test]
async fn smpplib_binds_submits_and_takes_deliveries() {
    let centre = Centre::open(account("python", "secret")).await;
    let mut esme = Peer::python("esme.py", &[&centre.address.port().to_string()]);
    assert_eq!(esme.said("wrong").await["status"], 0x0E);
    esme.said("sent").await;
    centre.receiver("python").await;
    for (ticket, body) in [(1, &b"plain"[..]), (2, b"Caf\xe9")] {
        centre.door.deliver(&octets("python"), ticket, Request::DeliverSm(text("1", body))).unwrap();
    }
    for id in ["id-one", "id-two", "id-three"] {
        let seen = esme.said("submit_sm_resp").await;
        assert_eq!((seen["status"].as_u64(), seen["id"].as_str()), (Some(0), Some(id)));
    }
    for body in ["plain", "Caf\u{e9}"] {
        assert_eq!(esme.said("deliver_sm").await["text"], body);
    }
    for _ in 1..=2 {
        assert!(matches!(centre.outcome().await.1, Verdict::Done(_)));
    }
    esme.said("unbound").await;
    assert!(esme.ended().await);
    centre.gone().await;
}
