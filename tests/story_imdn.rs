//! What becomes of messages, told to who sent them (RFC 5438): by the server that keeps them, and from one device to the others.

mod harness;

use harness::{DOMAIN, Server, Setup, Sipp, bind, sipp::Running};

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
    harness::eventually("the notification is kept", std::time::Duration::from_secs(10), || {
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
