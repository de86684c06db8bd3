//! An RCS client that nobody here wrote, rust-rcs-client: it registers, follows its registration, and sends and gets standalone
//! messages in CPIM.

mod harness;

use harness::rcs::Handset;
use harness::{DOMAIN, Setup};
use serde_json::json;

#[test]
fn two_handsets_talk_and_one_that_was_away_hears_of_it_later() {
    let server = Setup::with_users(&["alice", "bob"]).start();
    let registered = |user: &str| {
        let mut handset = Handset::start(&server, user);
        let identity = format!("sip:{user}@{DOMAIN}");
        assert_eq!(handset.hears("registered")["registered"], identity);
        // It found its own contact in the registration information (RFC 3680).
        let maintained = handset.hears("maintained");
        assert_eq!((&maintained["maintained"], &maintained["identity"]), (&json!(true), &json!(identity)));
        (handset, identity)
    };
    let ((mut alice, alices), (mut bob, bobs)) = (registered("alice"), registered("bob"));
    alice.does(json!({ "send": "hello bob", "to": bobs }));
    let message = bob.hears("message");
    assert_eq!([&message["message"], &message["from"], &message["type"]], ["hello bob", &*alices, "text/plain"]);
    assert_eq!(alice.hears("status")["status"], 200);
    bob.does(json!({ "send": "grüße zurück", "to": alices }));
    assert_eq!(alice.hears("message")["message"], "grüße zurück");
    assert_eq!(bob.hears("status")["status"], 200);

    bob.does(json!({ "leave": true }));
    harness::eventually("bob is gone", std::time::Duration::from_secs(20), || server.metric("isthmus_bindings") == 1.0);
    alice.does(json!({ "send": "for later", "to": bobs }));
    assert_eq!(alice.hears("status")["status"], 202);
    let (mut back, _) = registered("bob");
    assert_eq!(back.hears("message")["message"], "for later");
}
