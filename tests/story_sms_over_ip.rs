//! Short messages over IMS (TS 24.341): SIPp plays the handsets, Wireshark reads what they are sent.

mod harness;

use std::time::Duration;

use harness::browser::{browser, person};
use harness::handset::{ACK, House, SMSIP, SUBMIT, by_pycrate, capture, concatenation, escaped, house, tpdu, tshark};
use harness::sipp::header;
use harness::sms::{self, NUMBER, field, push};
use harness::{DOMAIN, Ports, Process, Server, Sipp, eventually, kamailio};

const MEMORY_FULL: &str = r"\x04\x01\x01\x16\x41\x03\x00\xd3\x00";

/// The same with a message centre, a push client and a web server outside; bob has the number that is pushed to.
struct Town {
    house: House,
    smsc: sms::Peer,
    callback: sms::Peer,
    _ports: Ports,
}

impl Town {
    /// By itself, what was put off would be tried again after a minute.
    fn delivered_at_once(&self) {
        eventually("it is delivered", Duration::from_secs(40), || {
            self.house.server.metric("isthmus_sms_ended_total{state=\"delivered\",verdict=\"0000\"}") == 1.0
        });
    }
}

fn town(mode: &str) -> Town {
    town_with(mode, "")
}

/// `sections`: more of the configuration.
fn town_with(mode: &str, sections: &str) -> Town {
    let ports = Ports::claim();
    let (smsc, callback) = (ports.next(), ports.next());
    let mut setup = sms::setup(smsc, callback, "");
    setup.auth = "none";
    setup.sections.push_str(sections);
    for (user, number) in [("alice", "+819012345601"), ("bob", NUMBER)] {
        setup.provisions.push_str(&format!(
            "[[user]]\nid = \"{user}\"\npassword = \"{}\"\nmsisdn = \"{number}\"\n",
            harness::PASSWORD
        ));
    }
    setup.users = vec!["carol".into()];
    let server = setup.start();
    let smsc = sms::Peer::smsc(server.path(), smsc, mode);
    smsc.wait_for("bound", 1);
    let callback = sms::Peer::callback(server.path(), callback, &[]);
    Town { house: House::of(server), smsc, callback, _ports: ports }
}

#[test]
fn a_handset_sends_to_a_handset_and_hears_that_it_arrived() {
    let house = house();
    let alice = house.alice();
    let bob = house.handset(ACK);
    let call_id = house.send(SUBMIT);
    let seen = bob.succeed(1);
    let message = seen.received()[0];
    assert_eq!(header(message, "P-Called-Party-ID"), Some(&*format!("<sip:bob@{DOMAIN}>")));
    let (acked, told) = house.ack_and_report(&alice);
    // The RP-ACK with the submit report, and the status report that she asked for.
    let (head, body) = acked;
    assert_eq!(header(&head, "In-Reply-To"), Some(&*call_id), "{head}");
    assert_eq!(header(&head, "Content-Type"), Some("application/vnd.3gpp.sms"));
    assert_eq!((body[..4].to_vec(), body[5]), (vec![0x03, 7, 0x41, 9], 0), "{body:02x?}");
    let (head, body) = told;
    assert_eq!(header(&head, "In-Reply-To"), None, "{head}");
    // RP-DATA to the handset with an SMS-STATUS-REPORT about TP-MR 9 to bob: received.
    assert_eq!((body[0], body[12] & 3, body[13], body.last()), (0x01, 2, 9, Some(&0)), "{body:02x?}");
    // Operators see it: metrics, a charging record, and its way.
    let server = &house.server;
    let counted = |name: &str| server.metric(&format!("isthmus_sms_over_ip_{name}"));
    assert_eq!(counted("deliveries_total{fate=\"delivered\"}"), 1.0);
    assert_eq!(counted("submissions_total{outcome=\"accepted\"}"), 1.0);
    assert_eq!((counted("relayed_total{kind=\"data\"}"), counted("relayed_total{kind=\"ack\"}")), (1.0, 1.0));
    let record = &sms::wait_records(server, 1)[0];
    assert_eq!(
        (record["from"].as_str(), record["to"].as_str()),
        (Some("user:+819012345601"), Some("+819012345602")),
        "{record}"
    );
    assert_eq!((&record["status"], record["start"].as_u64() <= record["end"].as_u64()), (&0.into(), true), "{record}");
    let name = record["call_id"].as_str().unwrap();
    eventually("the trace tells", Duration::from_secs(20), || {
        server.command(&["trace", name, "--config", "isthmus.toml"]).contains("delivered")
    });
}

#[test]
fn what_a_full_handset_does_not_take_is_kept_for_it() {
    let house = house();
    let alice = house.alice();
    let port = house.server.ports.next();
    let full = house.handset_at(port, MEMORY_FULL);
    let call_id = house.send(SUBMIT);
    full.succeed(1);
    // It is kept: RP-ACK.
    let (head, body) = house.taken(&alice);
    assert_eq!(header(&head, "In-Reply-To"), Some(&*call_id));
    assert_eq!(body[..2], [0x03, 7], "{body:02x?}");
    eventually("it is put off", Duration::from_secs(20), || {
        house.server.metric("isthmus_sms_dispatch_total{event=\"deferred\"}") == 1.0
    });
    assert_eq!(house.server.metric("isthmus_sms_over_ip_deliveries_total{fate=\"no_memory\"}"), 1.0);
    let bob = house.handset_at(port, &ACK.replacen(r"\x01", r"\x02", 1));
    bob.succeed(1);
    let (_, body) = house.taken(&alice);
    assert_eq!((body[0], tpdu(&body)[0] & 3, body.last()), (0x01, 2, Some(&0)), "{body:02x?}");
}

#[test]
fn a_message_waits_for_a_handset_that_is_away_even_over_a_kill() {
    let mut house = house();
    let alice = house.alice();
    let call_id = house.send(SUBMIT);
    let (head, body) = house.taken(&alice);
    assert_eq!(header(&head, "In-Reply-To"), Some(&*call_id));
    assert_eq!(body[..2], [0x03, 7], "{body:02x?}");
    eventually("it is put off", Duration::from_secs(20), || {
        house.server.metric("isthmus_sms_dispatch_total{event=\"deferred\"}") == 1.0
    });
    house.server.process.signal("KILL");
    house.server.restart();
    let bob = house.handset(ACK);
    let seen = bob.succeed(1);
    assert_eq!(header(seen.received()[0], "P-Called-Party-ID"), Some(&*format!("<sip:bob@{DOMAIN}>")));
    let (_, body) = house.taken(&alice);
    assert_eq!((body[0], tpdu(&body)[..2].to_vec(), body.last()), (0x01, vec![0x06, 9], Some(&0)), "{body:02x?}");
}

#[test]
fn a_phone_that_knows_no_short_messages_gets_the_text() {
    let house = house();
    let alice = house.alice();
    let port = house.server.ports.next();
    let bob = Sipp::new(&house.server, "take_messages", port).set("CODE", 200).start();
    house.bind("bob", port, "");
    house.send(SUBMIT);
    let seen = bob.succeed(1);
    let message = seen.received()[0];
    assert!(message.ends_with("\r\n\r\nGrüße, Bob [€]") || message.contains("\r\n\r\nGrüße, Bob [€]"), "{message}");
    assert!(
        header(message, "From").unwrap().starts_with(&format!("<sip:+819012345601@{DOMAIN};user=phone>")),
        "{message}"
    );
    let ((_, body), _) = house.ack_and_report(&alice);
    assert_eq!(body[..2], [0x03, 7], "{body:02x?}");
}

#[test]
fn nonsense_and_nobody_are_answered_with_errors() {
    let house = house();
    let alice = house.alice();
    // A SUBMIT that ends early.
    house.send("0008000791010000 0000f0 03 210901");
    let (_, body) = house.taken(&alice);
    assert_eq!(body[..4], [0x05, 8, 1, 95], "{body:02x?}");
    // To a number that nobody has.
    house.send("0009000791010000 0000f0 1c 21090c9118092143659900001147b9df536681846f3168c3db94373e");
    let (_, body) = house.taken(&alice);
    assert_eq!(body[..4], [0x05, 9, 1, 1], "{body:02x?}");
    // SMS-COMMAND: not here.
    house.send("000b000791010000 0000f0 0e 0201000009 0c91180921436520 00");
    let (_, body) = house.taken(&alice);
    assert_eq!((body[..4].to_vec(), body[6] & 3), (vec![0x05, 11, 1, 29], 1), "{body:02x?}");
    // Memory available: acknowledged.
    house.send("060a");
    let (_, body) = house.taken(&alice);
    assert_eq!(body, [0x03, 10]);
}

#[test]
fn a_text_to_a_number_that_nobody_has_is_refused_without_a_way_out() {
    let house = house();
    let sipp = Sipp::new(&house.server, "message_open", house.server.ports.next());
    sipp.set("URI", "tel:+819099999999").set("TEXT", "x").set("CODE", 404).users(&["alice"]).succeed();
}

#[test]
fn kamailio_reads_what_handsets_are_sent() {
    let house = house();
    let _alice = house.alice();
    let port = house.server.ports.next();
    let mut bob = kamailio::handset(house.server.path(), port);
    house.bind("bob", port, SMSIP);
    house.send(SUBMIT);
    // Kamailio has no place for every letter of the alphabet, and shows the filler of an odd number.
    let output = bob.wait_for("RP-DATA reference 1 from centre 10000000000", Duration::from_secs(20));
    assert!(output.contains("; TPDU type 0 from 819012345601: Gr") && output.contains("e, Bob ["), "{output}");
}

#[test]
fn handsets_by_pycrate_send_take_and_report() {
    let house = house();
    let bob = by_pycrate(&house.server, "bob", "ack", &[]);
    let alice = by_pycrate(&house.server, "alice", "ack", &["+819012345602", "Grüße, Bob [€]"]);
    let got = &bob.wait_for("read", 1)[0];
    assert_eq!((got["rp"].as_str(), got["tpdu"].as_str()), (Some("RP_DATA_MT"), Some("SMS_DELIVER")), "{got}");
    assert_eq!((&got["origin"], &got["text"]), (&"819012345601".into(), &"Grüße, Bob [€]".into()), "{got}");
    // Her RP-ACK and the status report, in any order, and the 202s for what she and he sent.
    let read = alice.wait_for("read", 2);
    let of = |rp: &str| read.iter().find(|r| r["rp"] == rp).unwrap_or_else(|| panic!("{rp} in {read:?}"));
    let acked = of("RP_ACK_MT");
    assert_eq!((&acked["reference"], &acked["tpdu"]), (&7.into(), &"SMS_SUBMIT_REPORT_RP_ACK".into()), "{acked}");
    let told = of("RP_DATA_MT");
    assert_eq!((&told["tpdu"], &told["about"]), (&"SMS_STATUS_REPORT".into(), &9.into()), "{told}");
    assert_eq!((&told["recipient"], &told["status"]), (&"819012345602".into(), &0.into()), "{told}");
    for (who, answers) in [(&alice, 2), (&bob, 1)] {
        assert!(who.wait_for("answer", answers).iter().all(|a| a["status"] == 202));
    }
    let counted = |name: &str| house.server.metric(&format!("isthmus_sms_over_ip_{name}"));
    assert_eq!(counted("deliveries_total{fate=\"delivered\"}"), 1.0);
    eventually("both reports are read", Duration::from_secs(20), || counted("relayed_total{kind=\"ack\"}") == 2.0);
}

#[test]
fn a_full_handset_by_pycrate_is_understood() {
    let house = house();
    let bob = by_pycrate(&house.server, "bob", "full", &[]);
    let alice = by_pycrate(&house.server, "alice", "ack", &["+819012345602", "Too much"]);
    bob.wait_for("read", 1);
    eventually("it is put off", Duration::from_secs(20), || {
        house.server.metric("isthmus_sms_over_ip_deliveries_total{fate=\"no_memory\"}") == 1.0
    });
    assert_eq!(alice.wait_for("read", 1)[0]["rp"], "RP_ACK_MT");
    // To a number that nobody has: RP-ERROR.
    let carol = by_pycrate(&house.server, "alice", "ack", &["+819012345699", "Nobody"]);
    let refused = &carol.wait_for("read", 1)[0];
    assert_eq!((refused["rp"].as_str(), refused["cause"].as_u64()), (Some("RP_ERROR_MT"), Some(1)), "{refused}");
    assert_eq!(refused["tpdu"], "SMS_SUBMIT_REPORT_RP_ERROR");
}

#[test]
fn wireshark_reads_what_handsets_are_sent() {
    let house = house();
    let alice = house.alice();
    let bob = house.bob();
    let whole = |(head, body): (String, Vec<u8>)| [head.as_bytes(), &body].concat();
    house.send(SUBMIT);
    let (head, data) = house.taken(&bob);
    let acked = house.taken(&alice);
    house.report(&data);
    let told = house.taken(&alice);
    // A SUBMIT that ends early.
    house.send("0008000791010000 0000f0 03 210901");
    let refused = house.taken(&alice);
    let file = house.server.path().join("sms.pcap");
    std::fs::write(&file, capture(&[(head, data), acked, told, refused].map(whole))).unwrap();
    let text = tshark(&["-n", "-V", "-r", file.to_str().unwrap()]);
    for told in [
        "Message Type RP-DATA (Network to MS)",
        "Called Party BCD Number: 10000000000",
        "TP-MTI: SMS-DELIVER (0)",
        "TP-OA Digits: 819012345601",
        "SMS text: Grüße, Bob [€]",
        "Message Type RP-ACK (Network to MS)",
        "TP-MTI: SMS-STATUS REPORT (2)",
        "TP-RA Digits: 819012345602",
        "Message Type RP-ERROR (Network to MS)",
        "TP-MTI: SMS-SUBMIT REPORT (1)",
    ] {
        assert!(text.contains(told), "{told} in {text}");
    }
    assert!(!text.contains("Malformed"), "{text}");
}

#[test]
fn a_push_goes_to_the_handset_and_its_report_completes_it() {
    let town = town("normal");
    let bob = town.house.handset(ACK);
    assert_eq!(push(&town.house.server, &sms::text("over-ims", "Door 3 open", "")), "0000");
    let seen = bob.succeed(1);
    assert_eq!(header(seen.received()[0], "Content-Type"), Some("application/vnd.3gpp.sms"));
    let notified = town.callback.wait_notified(1);
    assert_eq!((field(&notified[0], "reqid"), field(&notified[0], "result")), ("over-ims", "0000"), "{notified:?}");
    assert_eq!(town.smsc.events("submit").len(), 0);
}

#[test]
fn a_push_goes_to_the_centre_when_no_handset_takes_it() {
    let town = town("normal");
    // Nobody is registered.
    assert_eq!(push(&town.house.server, &sms::text("away", "one", "")), "0000");
    assert_eq!(town.smsc.wait_for("submit", 1)[0]["text"], "one");
    // A handset is, but says that it is not there.
    let port = town.house.server.ports.next();
    let bob = Sipp::new(&town.house.server, "take_messages", port).set("CODE", 480).start();
    town.house.bind("bob", port, SMSIP);
    assert_eq!(push(&town.house.server, &sms::text("refused", "two", "")), "0000");
    let seen = bob.succeed(1);
    assert_eq!(header(seen.received()[0], "Content-Type"), Some("application/vnd.3gpp.sms"));
    assert_eq!(town.smsc.wait_for("submit", 2)[1]["text"], "two");
    let notified = town.callback.wait_notified(2);
    assert!(notified.iter().all(|n| field(n, "result") == "0000"), "{notified:?}");
}

#[test]
fn a_full_handset_gets_the_push_when_it_registers_again() {
    let town = town("normal");
    let port = town.house.server.ports.next();
    let full = town.house.handset_at(port, MEMORY_FULL);
    assert_eq!(push(&town.house.server, &sms::text("full", "x", "")), "0000");
    full.succeed(1);
    eventually("it is put off", Duration::from_secs(20), || {
        town.house.server.metric("isthmus_sms_dispatch_total{event=\"deferred\"}") == 1.0
    });
    let bob = town.house.handset_at(port, &ACK.replacen(r"\x01", r"\x02", 1));
    town.delivered_at_once();
    bob.succeed(1);
    let notified = town.callback.wait_notified(1);
    assert_eq!((field(&notified[0], "reqid"), field(&notified[0], "result")), ("full", "0000"));
    assert_eq!(town.smsc.events("submit").len(), 0);
}

#[test]
fn a_full_handset_gets_the_push_when_it_says_that_it_has_room() {
    let town = town("normal");
    let server = &town.house.server;
    let port = server.ports.next();
    let full = town.house.handset_at(port, MEMORY_FULL);
    assert_eq!(push(server, &sms::text("full", "x", "")), "0000");
    full.succeed(1);
    eventually("it is put off", Duration::from_secs(20), || {
        server.metric("isthmus_sms_dispatch_total{event=\"deferred\"}") == 1.0
    });
    let report = ACK.replacen(r"\x01", r"\x02", 1);
    let bob = Sipp::new(server, "sms_handset", port).set("REPORT", report).users(&["bob"]).calls(2).start();
    // RP-SMMA.
    let sipp = Sipp::new(server, "sms_send", server.ports.next());
    sipp.set("URI", "tel:+10000000000").set("RELAY", escaped("060a")).users(&["bob"]).succeed();
    town.delivered_at_once();
    // The acknowledgement, and the message.
    bob.succeed(2);
    let notified = town.callback.wait_notified(1);
    assert_eq!((field(&notified[0], "reqid"), field(&notified[0], "result")), ("full", "0000"));
    assert_eq!(town.smsc.events("submit").len(), 0);
}

#[test]
fn a_handset_sends_to_a_number_outside_and_gets_a_message_from_there() {
    let town = town(NUMBER.trim_start_matches('+'));
    let alice = town.house.alice();
    let bob = town.house.handset(ACK);
    let call_id =
        town.house.send("0009000791010000 0000f0 1c 21090c9118092143659900001147b9df536681846f3168c3db94373e");
    let (head, body) = town.house.taken(&alice);
    assert_eq!(header(&head, "In-Reply-To"), Some(&*call_id), "{head}");
    assert_eq!((body[..4].to_vec(), body[5]), (vec![0x03, 9, 0x41, 9], 0), "{body:02x?}");
    let submit = &town.smsc.wait_for("submit", 1)[0];
    assert_eq!((submit["to"].as_str(), submit["from"].as_str()), (Some("819012345699"), Some("819012345601")));
    assert_eq!(submit["text"], "Gr\u{fc}\u{df}e, Bob [\u{20ac}]");
    // What the centre then has for bob: his handset reports, and the centre hears of it.
    let seen = bob.succeed(1);
    assert_eq!(header(seen.received()[0], "Content-Type"), Some("application/vnd.3gpp.sms"));
    assert_eq!(town.smsc.wait_for("taken", 1)[0]["status"], 0);
    let records = sms::wait_records(&town.house.server, 1);
    let inward = records.iter().find(|r| r["call_id"].as_str().unwrap().starts_with("smsc-")).expect("the centre's");
    assert_eq!((inward["from"].as_str(), &inward["status"]), (Some("+819012345699"), &0.into()), "{records:?}");
}

#[test]
fn a_receipt_of_the_centre_becomes_a_status_report() {
    let town = town("normal");
    let alice = town.house.alice();
    let call_id =
        town.house.send("0009000791010000 0000f0 1c 21090c9118092143659900001147b9df536681846f3168c3db94373e");
    let (acked, told) = town.house.ack_and_report(&alice);
    assert_eq!(header(&acked.0, "In-Reply-To"), Some(&*call_id));
    let report = tpdu(&told.1);
    // About TP-MR 9, to that number: received.
    assert_eq!((report[0] & 3, report[1], report.last()), (2, 9, Some(&0)), "{report:02x?}");
    assert_eq!(report[2..10], [0x0C, 0x91, 0x18, 0x09, 0x21, 0x43, 0x65, 0x99], "{report:02x?}");
}

#[test]
fn long_messages_go_both_ways_in_parts() {
    let town = town("normal");
    let bob = town.house.bob();
    let long = "a".repeat(160) + &"b".repeat(100);
    assert_eq!(push(&town.house.server, &sms::text("long", &long, "")), "0000");
    let parts = town.house.two_parts(&bob);
    let headers: Vec<Vec<u8>> = parts.iter().map(|data| concatenation(tpdu(data))).collect();
    assert_eq!(
        (headers[0][2], headers[0][3..].to_vec(), headers[1][3..].to_vec()),
        (headers[1][2], vec![2, 1], vec![2, 2])
    );
    parts.iter().for_each(|data| town.house.report(data));
    let notified = town.callback.wait_notified(1);
    assert_eq!((field(&notified[0], "result"), field(&notified[0], "segments")), ("0000", "2"));
    assert_eq!(town.smsc.events("submit").len(), 0);
    // And from a handset, which divides by itself.
    let alice = town.house.alice();
    for n in 1..=2 {
        town.house.send(&format!("000{n}000791010000 0000f0 17 410{n}0c9118092143659900040a0500032a020{n}61626364"));
        assert_eq!(town.house.taken(&alice).1[..2], [0x03, n]);
    }
    let mut submits = town.smsc.wait_for("submit", 2);
    submits.sort_by_key(|s| s["udh"].to_string());
    assert_eq!((&submits[0]["udh"], &submits[1]["udh"]), (&"00032a0201".into(), &"00032a0202".into()), "{submits:?}");
    assert_eq!((&submits[0]["text"], submits[0]["data_coding"].as_u64()), (&"61626364".into(), Some(4)));
}

#[test]
fn a_handset_that_never_reports_is_left_to_the_centre_once() {
    let town = town("normal");
    let bob = town.house.bob();
    let long = "a".repeat(160) + &"b".repeat(100);
    assert_eq!(push(&town.house.server, &sms::text("lost", &long, "")), "0000");
    let parts = town.house.two_parts(&bob);
    // TR1N, 40 seconds: then by SMPP, such that a handset which has it knows it again.
    let mut submits = town.smsc.wait_for("submit", 2);
    submits.sort_by_key(|s| s["udh"].to_string());
    for (data, submit) in parts.iter().zip(&submits) {
        let element: String = concatenation(tpdu(data)).iter().map(|o| format!("{o:02x}")).collect();
        assert_eq!(submit["udh"], element, "{submit}");
    }
    assert_eq!(field(&town.callback.wait_notified(1)[0], "result"), "0000");
    assert_eq!(town.smsc.events("submit").len(), 2);
}

#[test]
fn parts_that_a_centre_gives_one_by_one_reach_a_phone_as_one_text() {
    let town = town(&format!("{}:parts", &NUMBER[1..]));
    let port = town.house.server.ports.next();
    let bob = Sipp::new(&town.house.server, "take_messages", port).set("CODE", 200).start();
    town.house.bind("bob", port, "");
    let sipp = Sipp::new(&town.house.server, "message_open", town.house.server.ports.next());
    sipp.set("URI", "tel:+819099999999").set("TEXT", "Tell me").set("CODE", 202).users(&["alice"]).succeed();
    // Each part only when the one before was taken: none waits for the next.
    let taken = town.smsc.wait_for("taken", 3);
    assert!(taken.iter().all(|t| t["status"] == 0), "{taken:?}");
    let seen = bob.succeed(1);
    let text = "Part 1 of a long message. Part 2 of a long message. Part 3 of a long message.";
    assert!(seen.received()[0].trim_end().ends_with(text), "{}", seen.received()[0]);
}

#[test]
fn latin_letters_of_a_centre_reach_a_handset_whole() {
    let town = town(&format!("{}:latin", &NUMBER[1..]));
    let bob = town.house.bob();
    let sipp = Sipp::new(&town.house.server, "message_open", town.house.server.ports.next());
    sipp.set("URI", "tel:+819099999999").set("TEXT", "Tell me").set("CODE", 202).users(&["alice"]).succeed();
    let (head, data) = town.house.taken(&bob);
    town.house.report(&data);
    assert_eq!(town.smsc.wait_for("taken", 1)[0]["status"], 0);
    let file = town.house.server.path().join("latin.pcap");
    std::fs::write(&file, capture(&[[head.as_bytes(), &data].concat()])).unwrap();
    let text = tshark(&["-n", "-V", "-r", file.to_str().unwrap()]);
    assert!(text.contains("SMS text: Crème brûlée á"), "{text}");
}

#[test]
fn a_phone_sends_a_text_outside_and_another_gets_one_from_there() {
    let town = town(NUMBER.trim_start_matches('+'));
    let port = town.house.server.ports.next();
    let bob = Sipp::new(&town.house.server, "take_messages", port).set("CODE", 200).start();
    town.house.bind("bob", port, "");
    let send = || {
        let sipp = Sipp::new(&town.house.server, "message_open", town.house.server.ports.next());
        sipp.set("URI", "tel:+819099999999").set("TEXT", "Hello outside").set("CODE", 202).users(&["alice"]).succeed();
    };
    send();
    let submit = &town.smsc.wait_for("submit", 1)[0];
    assert!(submit["text"].as_str().unwrap().starts_with("Hello outside"), "{submit}");
    let seen = bob.succeed(1);
    assert!(seen.received()[0].trim_end().ends_with("\r\n\r\nBack from outside"), "{}", seen.received()[0]);
    assert_eq!(town.smsc.wait_for("taken", 1)[0]["status"], 0);
    // Nobody is there any more: the centre is told to try later.
    send();
    assert_ne!(town.smsc.wait_for("taken", 2)[1]["status"], 0);
}

#[test]
fn a_text_from_outside_reaches_every_phone_and_who_is_away_when_he_is_back() {
    let town = town(&format!("{}:again", &NUMBER[1..]));
    let send = || {
        let sipp = Sipp::new(&town.house.server, "message_open", town.house.server.ports.next());
        sipp.set("URI", "tel:+819099999999").set("TEXT", "Tell bob").set("CODE", 202).users(&["alice"]).succeed();
    };
    let phone = |calls| {
        let port = town.house.server.ports.next();
        (port, Sipp::new(&town.house.server, "take_messages", port).set("CODE", 200).calls(calls).start())
    };
    // Nobody is there: the centre keeps it, and tries again.
    send();
    assert_ne!(town.smsc.wait_for("taken", 1)[0]["status"], 0);
    let (first, desk) = phone(2);
    town.house.bind("bob", first, "");
    eventually("it is taken", Duration::from_secs(30), || town.smsc.events("taken").iter().any(|t| t["status"] == 0));
    // Now he has two, and one that does not answer.
    let (second, mobile) = phone(1);
    town.house.bind("bob", second, "");
    town.house.bind("bob", town.house.server.ports.next(), "");
    send();
    for seen in [desk.succeed(2), mobile.succeed(1)] {
        assert!(
            seen.received().iter().all(|m| m.trim_end().ends_with("\r\n\r\nBack from outside")),
            "{seen:?}",
            seen = seen.messages
        );
    }
    eventually("the other one is taken", Duration::from_secs(30), || {
        town.smsc.events("taken").iter().filter(|t| t["status"] == 0).count() == 2
    });
}

/// Bob, who is on the web, writes to a number outside, and answers what comes from there.
fn a_web_user_talks_with_outside(bob: impl Fn(&Server, &str, &str) -> Process) {
    let town = town(NUMBER.trim_start_matches('+'));
    let outside = format!("sip:+819099999999@{DOMAIN}");
    let mut bob = bob(&town.house.server, &outside, "Thank you, outside");
    bob.wait_for("sent", Duration::from_secs(30));
    // The centre answers what he sent; he answers that.
    bob.wait_for("got Back from outside", Duration::from_secs(30));
    let submits = town.smsc.wait_for("submit", 2);
    for (submit, text) in submits.iter().zip(["hello from the browser", "Thank you, outside"]) {
        let ends = [&submit["from"], &submit["to"], &submit["text"]].map(|v| v.as_str().unwrap_or_default());
        assert_eq!(ends, [&NUMBER[1..], "819099999999", text], "{submit}");
    }
    assert!(town.smsc.wait_for("taken", 1).iter().all(|t| t["status"] == 0));
}

#[test]
fn a_web_user_gets_a_short_message_and_answers_it() {
    a_web_user_talks_with_outside(|server, to, answer| browser(server, "bob", harness::PASSWORD, to, answer));
}

#[test]
fn a_person_at_a_page_in_chromium_gets_a_short_message_and_answers_it() {
    a_web_user_talks_with_outside(|server, to, answer| person(server, "bob", to, answer));
}

#[test]
fn what_a_centre_has_is_kept_for_a_handset_that_is_away_even_over_a_kill() {
    let mut town = town_with(&NUMBER[1..], "[sms_over_ip]\nkeep = true\n");
    let sipp = Sipp::new(&town.house.server, "message_open", town.house.server.ports.next());
    sipp.set("URI", "tel:+819099999999").set("TEXT", "Tell bob").set("CODE", 202).users(&["alice"]).succeed();
    // Nobody is there, and the centre is rid of it.
    assert_eq!(town.smsc.wait_for("taken", 1)[0]["status"], 0);
    eventually("it is put off", Duration::from_secs(20), || {
        town.house.server.metric("isthmus_sms_dispatch_total{event=\"deferred\"}") == 1.0
    });
    town.house.server.process.signal("KILL");
    town.house.server.restart();
    let bob = town.house.handset(ACK);
    let seen = bob.succeed(1);
    assert_eq!(header(seen.received()[0], "Content-Type"), Some("application/vnd.3gpp.sms"));
    town.delivered_at_once();
    assert_eq!(town.smsc.events("taken").len(), 1);
}
