//! Legacy applications (smpplib under Python, node-smpp) that bind to us: into the queue, out to node-smpp, and the receipt back.

mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::process::Process;
use harness::sms::{NUMBER, Peer, setup};
use harness::{Ports, Server, eventually};
use serde_json::{Value, json};

fn esme(server: &Server, door: u16, system_id: &str, password: &str, text: &str) -> Peer {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/esme.py");
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/venv/bin/python"));
    command.arg(script).arg(door.to_string()).args([system_id, password, NUMBER, text]);
    Peer(Process::start(&format!("esme-{system_id}"), server.path(), &mut command))
}

#[test]
fn a_legacy_application_submits_and_gets_its_receipt() {
    let ports = Ports::claim();
    let (smsc, callback, door) = (ports.next(), ports.next(), ports.next());
    let mut setup = setup(smsc, callback, "");
    setup.sections = format!(
        "[smpp]\nlisten = \"127.0.0.1:{door}\"\n[[smpp.esme]]\nsystem_id = \"legacy\"\npassword = \"pw\"\n{}",
        setup.sections
    );
    let server = setup.start();
    let smsc = Peer::smsc(server.path(), smsc, "normal");

    let stranger = esme(&server, door, "legacy", "wrong", "x");
    stranger.wait_for("refused", 1);

    let legacy = esme(&server, door, "legacy", "pw", "from the old days");
    let response = &legacy.wait_for("response", 1)[0];
    let id = response["id"].as_str().unwrap().to_owned();
    assert_eq!(response["status"], 0);
    let submit = &smsc.wait_for("submit", 1)[0];
    assert_eq!((submit["text"].as_str(), submit["from"].as_str()), (Some("from the old days"), Some("Legacy")));
    let receipt = legacy.wait_for("receipt", 1)[0]["text"].as_str().unwrap().to_owned();
    assert!(receipt.contains(&format!("id:{id} ")) && receipt.contains("stat:DELIVRD"), "{receipt}");
    eventually("the receipt was answered", Duration::from_secs(20), || {
        server.metric("isthmus_sms_notifications_total{fate=\"told\"}") == 1.0
    });
}

#[test]
fn a_receipt_waits_for_its_application() {
    let ports = Ports::claim();
    let (smsc, callback, door) = (ports.next(), ports.next(), ports.next());
    let mut setup = setup(smsc, callback, "");
    setup.sections = format!(
        "[smpp]\nlisten = \"127.0.0.1:{door}\"\n[[smpp.esme]]\nsystem_id = \"legacy\"\npassword = \"pw\"\n{}",
        setup.sections
    );
    let server = setup.start();
    let mut legacy = esme(&server, door, "legacy", "pw", "first");
    let id = legacy.wait_for("response", 1)[0]["id"].as_str().unwrap().to_owned();
    legacy.0.kill();
    // Only now is there somebody who takes it.
    let smsc = Peer::smsc(server.path(), smsc, "normal");
    smsc.wait_for("submit", 1);
    eventually("there was nobody to tell", Duration::from_secs(20), || {
        server.metric("isthmus_sms_notifications_total{fate=\"put_off\"}") >= 1.0
    });
    let legacy = esme(&server, door, "legacy", "pw", "second");
    eventually("the receipt of the first", Duration::from_secs(40), || {
        legacy.events("receipt").iter().any(|r| r["text"].as_str().unwrap().contains(&format!("id:{id} ")))
    });
}

/// A server with a door for `legacy` and a centre that nobody has started yet; SPARE in the lines of its account is a port for itself.
struct Door {
    server: Server,
    smsc: u16,
    port: u16,
    spare: u16,
    nodes: AtomicUsize,
    _ports: Ports,
}

fn door(tls: bool, more: &str) -> Door {
    let ports = Ports::claim();
    let (smsc, callback, port, spare) = (ports.next(), ports.next(), ports.next(), ports.next());
    let mut setup = setup(smsc, callback, "");
    let more = more.replace("SPARE", &spare.to_string());
    let key = if tls { "listen = \"\"\ntls" } else { "listen" };
    setup.sections = format!(
        "[smpp]\n{key} = \"127.0.0.1:{port}\"\n[[smpp.esme]]\nsystem_id = \"legacy\"\npassword = \"pw\"\n{more}\n{}",
        setup.sections
    );
    Door { server: setup.start(), smsc, port, spare, nodes: AtomicUsize::new(0), _ports: ports }
}

impl Door {
    fn smsc(&self, mode: &str) -> Peer {
        Peer::smsc(self.server.path(), self.smsc, mode)
    }

    /// node-smpp, which does what `said` tells it to (tests/node/esme.js).
    fn node(&self, said: Value) -> Peer {
        let mut all = json!({ "port": self.port, "system_id": "legacy", "password": "pw" });
        all.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        let mut command = Command::new("node");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/esme.js")).arg(all.to_string());
        let name = format!("esme-node-{}", self.nodes.fetch_add(1, Ordering::Relaxed));
        Peer(Process::start(&name, self.server.path(), &mut command))
    }

    /// The answers to these steps, and the last message id.
    fn answers(&self, steps: Value, id: &str) -> (Vec<Value>, String) {
        let node = self.node(json!({ "steps": steps, "id": id }));
        let done = node.wait_for("done", 1);
        (node.events("answer"), done[0]["id"].as_str().unwrap().to_owned())
    }
}

#[test]
fn what_is_wrong_is_refused_by_its_code_and_the_session_stays_while_it_can() {
    let door = door(false, "");
    let smsc = door.smsc("normal");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/noise.js");
    let mut command = Command::new("node");
    command.args([script, &door.port.to_string(), "legacy", "pw", &NUMBER[1..]]);
    let noise = Peer::ready(Process::start("noise", door.server.path(), &mut command));
    noise.wait_for("done", 1);
    let answers = noise.events("answer").into_iter().chain(noise.events("closed"));
    let told: Vec<String> = answers.map(|a| format!("{} {} {}", a["step"], a["command"], a["status"])).collect();
    let (submitted, nack) = ("\"submit_sm_resp\"", "\"generic_nack\"");
    let expected = [
        format!("\"unbound\" {submitted} 4"),
        "\"bound\" \"bind_transceiver_resp\" 0".to_owned(),
        "\"bound again\" \"bind_transceiver_resp\" 5".to_owned(),
        format!("\"unknown command\" {nack} 3"),
        "\"unknown number\" \"enquire_link_resp\" 0".to_owned(),
        format!("\"parameter past the end\" {submitted} {}", 0xC0),
        format!("\"parameter of the wrong size\" {submitted} {}", 0xC2),
        format!("\"body cut short\" {submitted} 2"),
        format!("\"good\" {submitted} 0"),
        format!("\"length 0\" {nack} 2"),
        "\"bound\" \"bind_transceiver_resp\" 0".to_owned(),
        format!("\"length of 4 GiB\" {nack} 2"),
        format!("\"garbage\" {nack} 2"),
        "\"length 0\" null null".to_owned(),
        "\"length of 4 GiB\" null null".to_owned(),
        "\"garbage\" null null".to_owned(),
    ];
    assert_eq!(told, expected);
    smsc.wait_for("submit", 1);
    eventually("the good one is delivered", Duration::from_secs(20), || {
        door.server.metric("isthmus_sms_ended_total{state=\"delivered\",verdict=\"0000\"}") == 1.0
    });
    assert_eq!(smsc.events("submit").len(), 1);
}

fn submit(text: &str) -> Value {
    json!({ "op": "submit_sm", "source_addr": "Legacy", "source_addr_ton": 5, "destination_addr": &NUMBER[1..],
        "registered_delivery": 1, "short_message": text })
}

#[test]
fn a_message_is_queried_replaced_and_cancelled_wherever_it_is() {
    let door = door(false, "");
    // There is no centre yet: it waits, and is exchanged where it waits.
    let steps = json!([
        submit("first"),
        { "op": "query_sm", "message_id": "$id", "source_addr": "Legacy" },
        { "op": "replace_sm", "message_id": "$id", "source_addr": "Legacy", "short_message": { "hex": "7365636f6e64" } },
        { "op": "replace_sm", "message_id": "17-1", "source_addr": "Legacy", "short_message": { "hex": "78" } },
    ]);
    let (answers, id) = door.answers(steps, "");
    assert_eq!(
        answers.iter().map(|a| a["status"].as_u64().unwrap()).collect::<Vec<_>>(),
        [0, 0, 0, 0x0C],
        "{answers:?}"
    );
    assert_eq!((answers[1]["state"].as_u64(), answers[1]["final_date"].as_str()), (Some(1), Some("")), "{answers:?}");
    let smsc = door.smsc("keep");
    let submit = &smsc.wait_for("submit", 1)[0];
    assert_eq!((submit["text"].as_str(), submit["from"].as_str()), (Some("second"), Some("Legacy")));
    eventually("it is sent", Duration::from_secs(20), || door.server.metric("isthmus_smpp_link_open") == 0.0);
    // The centre has it: it is asked, as soon as that is written down.
    let third = json!([
        { "op": "replace_sm", "message_id": "$id", "source_addr": "Legacy", "short_message": { "hex": "7468697264" } },
    ]);
    eventually("it is replaced", Duration::from_secs(60), || statuses(&door.answers(third.clone(), &id).0) == [0]);
    let steps = json!([
        { "op": "cancel_sm", "message_id": "$id", "source_addr": "Legacy", "destination_addr": &NUMBER[1..] },
        { "op": "query_sm", "message_id": "$id", "source_addr": "Legacy", "until": 4 },
        { "op": "replace_sm", "message_id": "$id", "source_addr": "Legacy", "short_message": { "hex": "78" } },
        { "op": "cancel_sm", "message_id": "", "source_addr": "Legacy", "destination_addr": &NUMBER[1..] },
    ]);
    let (answers, _) = door.answers(steps, &id);
    assert_eq!(
        answers.iter().map(|a| a["status"].as_u64().unwrap()).collect::<Vec<_>>(),
        [0, 0, 0x13, 0x11],
        "{answers:?}"
    );
    assert!(answers[1]["final_date"].as_str().unwrap().starts_with("20"), "{answers:?}");
    assert_eq!(smsc.events("replace")[0]["text"], "third");
    assert_eq!(smsc.events("cancel").len(), 1);
}

#[test]
fn one_message_goes_to_many() {
    let door = door(false, "");
    let smsc = door.smsc("normal");
    let to =
        |digits: &str| json!({ "dest_flag": 1, "dest_addr_ton": 1, "dest_addr_npi": 1, "destination_addr": digits });
    let steps = json!([
        { "op": "submit_multi", "source_addr": "Legacy", "registered_delivery": 1, "short_message": "to all",
            "dest_address": [to(&NUMBER[1..]), to("819012345679"), to("nobody")] },
        { "op": "submit_multi", "source_addr": "Legacy", "short_message": "x", "dest_address": [{ "dest_flag": 2, "dl_name": "friends" }] },
    ]);
    let node = door.node(json!({ "steps": steps }));
    node.wait_for("done", 1);
    let answers = node.events("answer");
    assert_eq!(
        (answers[0]["status"].as_u64(), answers[0]["failed"].clone()),
        (Some(0), json!([["nobody", 0x0B]])),
        "{answers:?}"
    );
    assert_eq!(answers[1]["status"], 0x34);
    let submits = smsc.wait_for("submit", 2);
    let mut numbers: Vec<&str> = submits.iter().filter_map(|s| s["to"].as_str()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, ["819012345678", "819012345679"]);
    let id = answers[0]["id"].as_str().unwrap();
    let receipts = node.wait_for("deliver", 2);
    assert!(receipts.iter().all(|r| r["text"].as_str().unwrap().contains(&format!("id:{id} "))), "{receipts:?}");
    assert_eq!(submits.len(), 2);
}

/// What the answers say, in order.
fn statuses(answers: &[Value]) -> Vec<u64> {
    answers.iter().map(|a| a["status"].as_u64().unwrap()).collect()
}

/// A submission with further fields.
fn submit_with(text: &str, fields: Value) -> Value {
    let mut all = submit(text);
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    all
}

fn texts(smsc: &Peer) -> Vec<String> {
    smsc.events("submit").iter().map(|s| s["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_message_waits_for_its_time_even_over_a_kill() {
    let mut door = door(false, "");
    let smsc = door.smsc("normal");
    // In UTC, two seconds from now.
    let done = Command::new("date").args(["-u", "-d", "+2 seconds", "+%y%m%d%H%M%S000+"]).output().expect("date runs");
    let absolute = String::from_utf8(done.stdout).unwrap().trim().to_owned();
    let hour = "000000010000000R";
    let steps = json!([
        submit_with("never", json!({ "schedule_delivery_time": hour })),
        { "op": "query_sm", "message_id": "$id", "source_addr": "Legacy" },
        { "op": "cancel_sm", "message_id": "$id", "source_addr": "Legacy" },
        { "op": "query_sm", "message_id": "$id", "source_addr": "Legacy", "until": 4 },
        submit_with("soon", json!({ "schedule_delivery_time": "000000000001000R" })),
        submit_with("then", json!({ "schedule_delivery_time": absolute })),
        // Over before it begins; longer than anything waits; no time.
        submit_with("x", json!({ "schedule_delivery_time": hour, "validity_period": "000000003000000R" })),
        submit_with("x", json!({ "schedule_delivery_time": "391231235959000+" })),
        submit_with("x", json!({ "schedule_delivery_time": "2612312359590000" })),
        submit_with("in an hour", json!({ "schedule_delivery_time": hour })),
    ]);
    let (answers, id) = door.answers(steps, "");
    assert_eq!(statuses(&answers), [0, 0, 0, 0, 0, 0, 0x62, 0x61, 0x61, 0], "{answers:?}");
    // SMPP 3.4 has no state of its own for it: ENROUTE.
    assert_eq!(answers[1]["state"], 1, "{answers:?}");
    smsc.wait_for("submit", 2);
    door.server.process.signal("KILL");
    door.server.restart();
    // After it, and for the same number.
    let steps = json!([
        submit("at once"),
        { "op": "query_sm", "message_id": id, "source_addr": "Legacy" },
        { "op": "replace_sm", "message_id": id, "source_addr": "Legacy", "schedule_delivery_time": "000000000001000R",
            "short_message": { "hex": "736f6f6e6572" } },
    ]);
    let (answers, _) = door.answers(steps, "");
    assert_eq!((statuses(&answers), &answers[1]["state"]), (vec![0, 0, 0], &1.into()), "{answers:?}");
    eventually("what was replaced", Duration::from_secs(60), || texts(&smsc).iter().any(|text| text == "sooner"));
    let mut sent = texts(&smsc);
    sent.sort();
    // What went out just before the kill may go again.
    sent.dedup();
    assert_eq!(sent, ["at once", "soon", "sooner", "then"]);
}

#[test]
fn a_message_replaces_what_is_of_its_kind_wherever_that_is() {
    let door = door(false, "");
    let replacing =
        |text: &str, service: &str| submit_with(text, json!({ "replace_if_present_flag": 1, "service_type": service }));
    let steps = json!([
        submit("one"),
        { "op": "query_sm", "message_id": "$id", "source_addr": "Legacy" },
        replacing("two", ""),
        // Of another service: beside it.
        replacing("voice mail", "VMN"),
    ]);
    let (answers, _) = door.answers(steps, "");
    assert_eq!(statuses(&answers), [0; 4], "{answers:?}");
    let first = answers[0]["id"].as_str().unwrap().to_owned();
    let query = json!([{ "op": "query_sm", "message_id": first, "source_addr": "Legacy", "until": 4 }]);
    assert_eq!(statuses(&door.answers(query, "").0), [0]);
    let smsc = door.smsc("keep");
    smsc.wait_for("submit", 2);
    assert_eq!(texts(&smsc), ["two", "voice mail"]);
    eventually("they are sent", Duration::from_secs(20), || door.server.metric("isthmus_smpp_link_open") == 0.0);
    // The centre has it: it is asked for it, and gets the new one.
    let (answers, _) = door.answers(json!([replacing("three", "")]), "");
    assert_eq!(statuses(&answers), [0]);
    assert_eq!(smsc.wait_for("submit", 3)[2]["text"], "three");
    assert_eq!(smsc.wait_for("cancel", 1).len(), 1);
    // All of a source and service, without a name.
    let cancel = |service: &str| {
        json!({ "op": "cancel_sm", "message_id": "", "service_type": service, "source_addr": "Legacy",
            "destination_addr": &NUMBER[1..] })
    };
    let (answers, _) = door.answers(json!([cancel("VMN"), cancel("WAP")]), "");
    assert_eq!(statuses(&answers), [0, 0x11], "{answers:?}");
    smsc.wait_for("cancel", 2);
}

#[test]
fn a_message_to_many_is_asked_about_as_one() {
    let door = door(false, "");
    let to =
        |digits: &str| json!({ "dest_flag": 1, "dest_addr_ton": 1, "dest_addr_npi": 1, "destination_addr": digits });
    let steps = json!([
        { "op": "submit_multi", "source_addr": "Legacy", "registered_delivery": 1, "short_message": "to all",
            "dest_address": [to(&NUMBER[1..]), to("819012345679"), to("819012345680")] },
        { "op": "query_sm", "message_id": "$id", "source_addr": "Legacy" },
        // One of them, and what is left in other words.
        { "op": "cancel_sm", "message_id": "$id", "source_addr": "Legacy", "destination_addr": "819012345680" },
        { "op": "replace_sm", "message_id": "$id", "source_addr": "Legacy", "short_message": { "hex": "616e65773a" } },
    ]);
    let (answers, id) = door.answers(steps, "");
    assert_eq!((statuses(&answers), &answers[1]["state"]), (vec![0; 4], &1.into()), "{answers:?}");
    // A receipt for the first alone: it is not over.
    let smsc = door.smsc("part");
    assert_eq!(smsc.wait_for("submit", 2).len(), 2);
    assert_eq!(texts(&smsc), ["anew:", "anew:"]);
    eventually("the first is there", Duration::from_secs(20), || {
        door.server.metric("isthmus_sms_ended_total{state=\"delivered\",verdict=\"0000\"}") == 1.0
    });
    let steps = json!([
        { "op": "query_sm", "message_id": "$id", "source_addr": "Legacy" },
        { "op": "cancel_sm", "message_id": "$id", "source_addr": "Legacy" },
        { "op": "query_sm", "message_id": "$id", "source_addr": "Legacy", "until": 4 },
    ]);
    let (answers, _) = door.answers(steps, &id);
    assert_eq!((statuses(&answers), &answers[0]["state"]), (vec![0; 3], &1.into()), "{answers:?}");
    assert_eq!(smsc.wait_for("cancel", 1).len(), 1);
    assert_eq!(texts(&smsc).len(), 2);
}

#[test]
fn every_body_arrives_without_loss() {
    let door = door(false, "");
    let smsc = door.smsc("normal");
    let body = |data_coding: u8, fields: Value| {
        let mut all = submit("");
        all["data_coding"] = json!(data_coding);
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        all
    };
    let latin: String = "Crème brûlée, ça va? Ñandú á ".repeat(8);
    let steps = json!([
        body(3, json!({ "short_message": { "hex": "c7612076613f20e1" } })),
        body(3, json!({ "short_message": { "hex": "" }, "message_payload": { "hex": hex(latin.chars().map(|c| c as u8)) } })),
        // A WAP push in user data with its header, and with the ports in parameters.
        body(4, json!({ "esm_class": 0x40, "short_message": { "hex": "0605040b8423f001060403ae81ea" } })),
        body(4, json!({ "short_message": { "hex": "01060403ae81ea" }, "dest_port": 2948, "source_port": 9200 })),
        // One of two, divided by parameters.
        body(0, json!({ "short_message": "one of two", "sar_msg_ref_num": 7, "sar_total_segments": 2, "sar_segment_seqnum": 1 })),
        { "op": "data_sm", "source_addr": "Legacy", "destination_addr": &NUMBER[1..], "data_coding": 8,
            "message_payload": { "hex": hex("日本語 ".repeat(40).encode_utf16().flat_map(u16::to_be_bytes)) } },
        body(0, json!({ "short_message": { "hex": "" }, "message_payload": { "hex": "61".repeat(2_000) } })),
        body(0, json!({ "short_message": "later", "schedule_delivery_time": "391231235959000+" })),
    ]);
    let (answers, _) = door.answers(steps, "");
    let statuses: Vec<u64> = answers.iter().map(|a| a["status"].as_u64().unwrap()).collect();
    // More than ten segments, and a time that is to be waited for.
    assert_eq!(statuses, [0, 0, 0, 0, 0, 0, 1, 0x61], "{answers:?}");
    let japanese = "日本語 ".repeat(40);
    // 232 letters, some of which no default alphabet has: four of 67; 160 of UCS-2: three.
    let submits = smsc.wait_for("submit", 1 + 4 + 1 + 1 + 1 + 3);
    let text = |s: &Value| s["text"].as_str().unwrap().to_owned();
    assert_eq!((text(&submits[0]), submits[0]["data_coding"].as_u64()), ("Ça va? á".to_owned(), Some(3)));
    assert_eq!(submits[1..5].iter().map(text).collect::<String>(), latin);
    for push in &submits[5..7] {
        assert_eq!((push["text"].as_str(), push["esm_class"].as_u64()), (Some("01060403ae81ea"), Some(0x40)), "{push}");
        assert_eq!(push["udh"], "05040b8423f0");
    }
    assert_eq!((text(&submits[7]), submits[7]["udh"].as_str()), ("one of two".to_owned(), Some("080400070201")));
    assert_eq!(submits[8..].iter().map(text).collect::<String>(), japanese);
}

fn hex(octets: impl IntoIterator<Item = u8>) -> String {
    octets.into_iter().map(|o| format!("{o:02x}")).collect()
}

#[test]
fn an_application_binds_over_tls_and_a_plain_one_does_not() {
    let door = door(true, "");
    let smsc = door.smsc("normal");
    let authority = door.server.path().join("ca.pem");
    let node = door.node(json!({ "tls": authority, "steps": [submit("under cover")] }));
    assert_eq!(node.wait_for("answer", 1)[0]["status"], 0);
    assert_eq!(smsc.wait_for("submit", 1)[0]["text"], "under cover");
    assert_eq!(node.wait_for("deliver", 1)[0]["state"], 2);
    // bind_transceiver in the clear: at most an alert of TLS comes back, and then nothing.
    let mut plain = TcpStream::connect(("127.0.0.1", door.port)).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let bind = [&[0, 0, 0, 33, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1][..], b"legacy\0pw\0\0\x34\0\0\0"].concat();
    plain.write_all(&bind).unwrap();
    let mut answer = Vec::new();
    // A reset is as good an end as any.
    let _ = plain.read_to_end(&mut answer);
    assert!(answer.len() <= 7, "{answer:02x?}");
}

#[test]
fn who_listens_is_called_for_its_receipts() {
    let door = door(false, "outbind = \"127.0.0.1:SPARE\"\noutbind_password = \"knock\"");
    let smsc = door.smsc("normal");
    let steps = json!([submit("call me back")]);
    let node = door.node(json!({ "bind": "transmitter", "steps": steps }));
    let id = node.wait_for("answer", 1)[0]["id"].as_str().unwrap().to_owned();
    smsc.wait_for("submit", 1);
    let listener = door.node(json!({ "port": door.spare, "listen": true, "bind": "receiver" }));
    let called = &listener.wait_for("outbind", 1)[0];
    assert_eq!((called["system_id"].as_str(), called["password"].as_str()), (Some("isthmus"), Some("knock")));
    let receipt = listener.wait_for("deliver", 1)[0]["text"].as_str().unwrap().to_owned();
    assert!(receipt.contains(&format!("id:{id} ")) && receipt.contains("stat:DELIVRD"), "{receipt}");
}

#[test]
fn who_sends_too_much_is_throttled_and_who_sends_as_another_is_refused() {
    let door = door(false, "rate = 1\nsources = [\"Leg\"]");
    let smsc = door.smsc("silent");
    let mut many = submit("quick");
    many["times"] = json!(5);
    let mut other = submit("spoof");
    other["source_addr"] = json!("Bank");
    let node = door.node(json!({ "steps": [many] }));
    node.wait_for("done", 1);
    let statuses: Vec<u64> = node.events("answer").iter().map(|a| a["status"].as_u64().unwrap()).collect();
    assert_eq!((statuses[0], statuses.iter().filter(|s| **s == 0x58).count() >= 3), (0, true), "{statuses:?}");
    smsc.wait_for("submit", 1);
    // The rate is of the account, not of the session.
    let (answers, _) = door.answers(json!([other]), "");
    assert!([0x0A, 0x58].contains(&answers[0]["status"].as_u64().unwrap()), "{answers:?}");
}
