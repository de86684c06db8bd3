//! What becomes of messages, told to who sent them (RFC 5438): by the server that keeps them, and from one device to the others.

mod harness;

use std::time::Duration;

use harness::faketime::under;
use harness::{DOMAIN, Server, Setup, Sipp, bind, eventually, sipp::Running};

/// A phone that takes so many messages.
fn phone(server: &Server, user: &str, messages: u32) -> Running {
    let port = server.ports.next();
    let phone = Sipp::new(server, "take_messages", port).set("CODE", 200).calls(messages).start();
    bind(server, user, port, "");
    phone
}

/// A CPIM body as SIPp's scenario holds it.
fn envelope(id: &str, wanted: &str, content_type: &str, content: &str) -> String {
    format!(
        "From: <sip:alice@{DOMAIN}>\nTo: Bob <sip:bob@{DOMAIN}>\nNS: imdn <urn:ietf:params:imdn>\nimdn.Message-ID: {id}\n\
         DateTime: 2026-04-04T12:16:49-05:00\nimdn.Disposition-Notification: {wanted}\n\nContent-Type: {content_type}\n\n{content}"
    )
}

fn send(server: &Server, [from, to]: [&str; 2], port: u16, text: String, code: u16) {
    let sipp = Sipp::new(server, "message", port).set("URI", format!("sip:{to}@{DOMAIN}")).set("CODE", code);
    sipp.set("TYPE", "message/cpim").set("NUMBER", "").set("TEXT", text).users(&[from]).succeed();
}

#[test]
fn a_sender_is_told_that_its_message_waits_even_when_it_was_away_and_the_server_died() {
    let mut server = Setup::with_users(&["alice", "bob"]).start();
    let text = envelope("34jk324j", "processing, positive-delivery", "text/plain", "for later");
    send(&server, ["alice", "bob"], server.ports.next(), text, 202);
    // The message and the word about it are on the disk.
    eventually("the notification is kept", Duration::from_secs(20), || {
        server.metric("isthmus_kept_messages_total{fate=\"notices\"}") == 1.0
    });
    server.restart();
    let seen = phone(&server, "alice", 1).succeed(1);
    let told = seen.received()[0];
    for part in [
        "From: Bob <sip:bob@",
        "Content-Disposition: notification",
        "<message-id>34jk324j</message-id>",
        "<processing-notification><status><stored/>",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let document = server.path().join("imdn.xml");
    let begin = told.find("<?xml").expect("a document");
    std::fs::write(&document, &told[begin..]).unwrap();
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schema/imdn.rng");
    let checked =
        std::process::Command::new("xmllint").args(["--noout", "--relaxng", schema]).arg(&document).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let seen = phone(&server, "bob", 1).succeed(1);
    let kept = seen.received()[0];
    for part in
        ["imdn.Disposition-Notification: processing, positive-delivery", "imdn.Message-ID: 34jk324j", "for later"]
    {
        assert!(kept.contains(part), "{part} in {kept}");
    }
}

#[test]
fn a_sender_is_told_that_a_message_waited_too_long_and_nobody_gets_it() {
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.under = under("2026-11-01 12:00:00");
    let mut server = setup.start();
    let old = envelope("0ldm3554", "negative-delivery", "text/plain", "too late");
    send(&server, ["alice", "bob"], server.ports.next(), old, 202);
    // A week, less some minutes; then some minutes more.
    server.setup.under = under("2026-11-08 11:50:00");
    server.restart();
    let young = envelope("y0ungm35", "negative-delivery", "text/plain", "in time");
    send(&server, ["alice", "bob"], server.ports.next(), young, 202);
    server.setup.under = under("2026-11-08 12:10:00");
    server.restart();
    let seen = phone(&server, "alice", 1).succeed(1);
    let told = seen.received()[0];
    for part in ["<message-id>0ldm3554</message-id>", "<delivery-notification><status><failed/>"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let seen = phone(&server, "bob", 1).succeed(1);
    assert!(seen.received()[0].contains("in time"), "{}", seen.received()[0]);
    let fate = |name: &str| server.metric(&format!("isthmus_kept_messages_total{{fate=\"{name}\"}}"));
    eventually("his and what she was told are delivered", Duration::from_secs(20), || fate("delivered") == 2.0);
    assert_eq!(fate("expired"), 1.0);
}

#[test]
fn who_types_is_seen_by_who_is_there_and_nothing_of_it_is_kept() {
    let server = Setup::with_users(&["alice", "bob"]).start();
    let typing = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<isComposing xmlns=\"urn:ietf:params:xml:ns:im-iscomposing\">\
        <state>active</state><refresh>60</refresh></isComposing>";
    let types = |code: u16| {
        let sipp = Sipp::new(&server, "message", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
        let sipp = sipp.set("TYPE", "application/im-iscomposing+xml").set("NUMBER", "").set("TEXT", typing);
        sipp.set("CODE", code).users(&["alice"]).succeed();
    };
    // Nobody is there to see it; what she then says is kept, and is all that he gets later.
    types(480);
    send(&server, ["alice", "bob"], server.ports.next(), envelope("m1", "", "text/plain", "at last"), 202);
    let seen = phone(&server, "bob", 1).succeed(1);
    assert!(seen.received()[0].contains("at last"), "{}", seen.received()[0]);
    let bob = phone(&server, "bob", 1);
    types(200);
    let seen = bob.succeed(1);
    assert!(seen.received()[0].contains("<state>active</state>"), "{}", seen.received()[0]);
}

#[test]
fn what_is_read_on_one_device_is_told_to_the_sender_and_to_the_other_device() {
    let server = Setup::with_users(&["alice", "bob"]).start();
    let alice = phone(&server, "alice", 1);
    let tablet = phone(&server, "bob", 1);
    let reader = server.ports.next();
    bind(&server, "bob", reader, "");
    let document = "<imdn xmlns=\"urn:ietf:params:xml:ns:imdn\"><message-id>34jk324j</message-id>\
        <datetime>2026-04-04T12:16:49-05:00</datetime><display-notification><status><displayed/></status>\
        </display-notification></imdn>";
    let text = envelope("d834jied93rf", "", "message/imdn+xml", document);
    send(&server, ["bob", "alice"], reader, text, 200);
    for seen in [alice.succeed(1), tablet.succeed(1)] {
        assert!(seen.received()[0].contains("<displayed/>"), "{}", seen.received()[0]);
    }
}

#[test]
fn notifications_for_somebody_away_arrive_together() {
    let server = Setup::with_users(&["alice", "bob"]).start();
    for (id, told) in [
        ("one1", "delivery-notification><status><delivered/></status></delivery"),
        ("two2", "display-notification><status><displayed/></status></display"),
    ] {
        let document = format!(
            "<imdn xmlns=\"urn:ietf:params:xml:ns:imdn\"><message-id>34jk324j</message-id>\
             <datetime>2026-04-04T12:16:49-05:00</datetime><{told}-notification></imdn>"
        );
        send(&server, ["bob", "alice"], server.ports.next(), envelope(id, "", "message/imdn+xml", &document), 202);
    }
    let seen = phone(&server, "alice", 1).succeed(1);
    let told = seen.received()[0];
    for part in ["Content-Type: multipart/mixed;boundary=", "<delivered/>", "<displayed/>"] {
        assert!(told.contains(part), "{part} in {told}");
    }
}
