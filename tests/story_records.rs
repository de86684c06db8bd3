//! Charging records and traces of what SIPp did: one line for each call and message, read by jq, told by `isthmus trace`.

mod harness;

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::{DOMAIN, Server, Setup, Sipp, bind, eventually, header, sipp::Outcome};
use serde_json::Value;

fn started() -> Server {
    Setup::with_users(&["alice", "bob", "carol"]).start()
}

fn from_alice(server: &Server, scenario: &'static str, to: &str) -> Sipp {
    Sipp::new(server, scenario, server.ports.next()).set("URI", format!("sip:{to}@{DOMAIN}")).users(&["alice"])
}

fn call_id(outcome: &Outcome) -> String {
    header(outcome.sent()[0], "Call-ID").unwrap().to_owned()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// The records so far, as jq reads them: it fails on a line that is not one JSON object with the right types.
fn records(server: &Server) -> Vec<Value> {
    const SHAPE: &str = r#"[.[] | if (.kind | IN("call", "message")) and (.trace | test("^[0-9a-f]{16}$"))
        and ([.node, .call_id, .from, .to] | all(type == "string" and length > 0))
        and ([.start, .end, .status] | all(type == "number")) and (.answer | type | IN("number", "null"))
        and .start <= (.answer // .start) and (.answer // .start) <= .end then . else error("\(.)") end]"#;
    let files: Vec<_> = std::fs::read_dir(server.path().join("data/cdr")).unwrap().map(|f| f.unwrap().path()).collect();
    let done = Command::new("jq").arg("-s").arg(SHAPE).args(&files).output().expect("jq is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn records_of(server: &Server, call_id: &str) -> Vec<Value> {
    records(server).into_iter().filter(|r| r["call_id"] == call_id).collect()
}

/// Waits for the only record of a Call-ID.
fn record(server: &Server, call_id: &str) -> Value {
    eventually("the record is written", Duration::from_secs(20), || !records_of(server, call_id).is_empty());
    let mut found = records_of(server, call_id);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// What `isthmus trace` tells of a record's id, which a Call-ID must tell as well.
fn told(server: &Server, record: &Value) -> String {
    let ask = |id: &Value| server.command(&["trace", id.as_str().unwrap(), "--config", "isthmus.toml"]);
    let told = ask(&record["trace"]);
    assert_eq!(told, ask(&record["call_id"]));
    assert!(told.starts_with(&format!("trace {}\n", record["trace"].as_str().unwrap())), "{told}");
    // The last line is the record itself.
    assert_eq!(&serde_json::from_str::<Value>(told.lines().last().unwrap()).unwrap(), record, "{told}");
    told
}

/// Which steps with which words stand in a trace, in order.
fn tells_in_order(told: &str, steps: &[&str]) {
    let mut rest = told;
    for step in steps {
        let at = rest.find(step).unwrap_or_else(|| panic!("no {step:?} (in this order) in\n{told}"));
        rest = &rest[at + step.len()..];
    }
}

#[test]
fn answered_call_is_charged_from_answer_to_bye() {
    let server = started();
    let phone = server.ports.next();
    let callee = Sipp::new(&server, "answer", phone).start();
    bind(&server, "bob", phone, "");
    let before = now();
    let call = from_alice(&server, "call", "bob").set("HOLD", 1500).succeed();
    let after = now();
    callee.succeed(1);
    let record = record(&server, &call_id(&call));
    let number = |key: &str| record[key].as_u64().unwrap();
    assert_eq!((&record["kind"], number("status")), (&"call".into(), 200), "{record}");
    assert_eq!(record["from"], format!("sip:alice@{DOMAIN}"));
    assert_eq!(record["to"], format!("sip:bob@{DOMAIN}"));
    // SIPp waits 1.5 s between its ACK and its BYE; the call lasted at least that, and not longer than SIPp ran.
    assert!(number("end") - number("answer") >= 1500, "{record}");
    assert!(before <= number("start") && number("end") <= after, "{before} {record} {after}");
    let told = told(&server, &record);
    let caller = header(call.sent()[0], "Via").unwrap().split([' ', ';']).nth(1).unwrap();
    let from = format!("received from {caller}/udp");
    let to = format!("sent peer 127.0.0.1:{phone}/udp");
    tells_in_order(&told, &["INVITE", &from, "407", "INVITE", &to, "INVITE   200", "ACK", "BYE", &to, "BYE      200"]);
}

#[test]
fn cancelled_call_is_recorded_as_487_without_an_answer() {
    let server = started();
    // The scenario gives up once two phones ring.
    let phones = [(); 2].map(|()| server.ports.next());
    let ringing = phones.map(|phone| Sipp::new(&server, "ring", phone).start());
    phones.iter().for_each(|phone| bind(&server, "bob", *phone, ""));
    let call = from_alice(&server, "call_cancelled", "bob").succeed();
    ringing.into_iter().for_each(|phone| drop(phone.succeed(1)));
    let record = record(&server, &call_id(&call));
    assert_eq!((&record["status"], record.get("answer")), (&487.into(), None), "{record}");
    tells_in_order(&told(&server, &record), &["INVITE", "CANCEL", "CANCEL   200"]);
}

#[test]
fn failed_calls_are_recorded_with_what_the_caller_was_told() {
    let server = started();
    let phone = server.ports.next();
    let busy = Sipp::new(&server, "refuse", phone).set("CODE", 486).start();
    bind(&server, "bob", phone, "");
    // Busy, no phone, no such user.
    for (to, code) in [("bob", 486), ("carol", 480), ("nobody", 404)] {
        let call = from_alice(&server, "call_final", to).set("CODE", code).succeed();
        let record = record(&server, &call_id(&call));
        assert_eq!((&record["status"], record.get("answer")), (&code.into(), None), "{record}");
        assert_eq!(record["to"], format!("sip:{to}@{DOMAIN}"));
        tells_in_order(&told(&server, &record), &["INVITE", &format!("INVITE   {code} sent")]);
    }
    busy.succeed(1);
}

#[test]
fn message_is_recorded_when_relayed_kept_and_delivered() {
    let server = started();
    let (bobs, carols) = (server.ports.next(), server.ports.next());
    let phone = Sipp::new(&server, "take_messages", bobs).set("CODE", 200).start();
    bind(&server, "bob", bobs, "");
    let relayed = from_alice(&server, "message", "bob").set("TEXT", "hello").set("CODE", 200).succeed();
    phone.succeed(1);
    let record = record(&server, &call_id(&relayed));
    assert_eq!((&record["kind"], &record["status"]), (&"message".into(), &200.into()), "{record}");
    tells_in_order(&told(&server, &record), &["MESSAGE", "MESSAGE  200 sent"]);

    let kept = from_alice(&server, "message", "carol").set("TEXT", "later").set("CODE", 202).succeed();
    let phone = Sipp::new(&server, "take_messages", carols).set("CODE", 200).start();
    bind(&server, "carol", carols, "");
    phone.succeed(1);
    // One line when it was taken in, one when it was delivered; both under one trace.
    let id = call_id(&kept);
    eventually("both records are written", Duration::from_secs(20), || records_of(&server, &id).len() == 2);
    let both = records_of(&server, &id);
    assert_eq!([&both[0]["status"], &both[1]["status"]], [202, 200], "{both:?}");
    assert_eq!(both[0]["trace"], both[1]["trace"]);
    let told = server.command(&["trace", both[0]["trace"].as_str().unwrap(), "--config", "isthmus.toml"]);
    tells_in_order(&told, &["MESSAGE", "kept for later", "delivered"]);
}

#[test]
fn users_made_changed_and_removed_on_a_running_server() {
    let server = started();
    let user = |arguments: &[&str]| {
        let command = [&["user"], arguments, &["--config", "isthmus.toml"]].concat();
        server.command(&command)
    };
    let port = server.ports.next();
    let registers = |password: &str| {
        let sipp = Sipp::new(&server, "register", port).set("CONTACT", format!("127.0.0.1:{port}")).set("PARAMS", "");
        sipp.set("EXPIRES", 600).user_with_password("erin", password).run().counts.ok == 1
    };
    assert!(!registers("first"), "nobody has made her yet");
    user(&["add", "erin", "--password", "first", "--msisdn", "+819011112222"]);
    assert!(user(&["list"]).contains("erin\tsip:erin@isthmus.test\t+819011112222\tcustomer\n"));
    eventually("erin gets in", Duration::from_secs(20), || registers("first"));
    user(&["passwd", "erin", "--password", "second"]);
    eventually("erin gets in with her new password", Duration::from_secs(20), || registers("second"));
    assert!(!registers("first"), "the old password is dead");
    // She can be called, under her number too.
    let refusing = Sipp::new(&server, "refuse", port).set("CODE", 486).start();
    let by_number =
        from_alice(&server, "call_final", "erin").set("URI", format!("sip:+819011112222@{DOMAIN};user=phone"));
    by_number.set("CODE", 486).succeed();
    refusing.succeed(1);

    user(&["remove", "erin"]);
    assert!(!user(&["list"]).contains("erin"));
    eventually("erin is out", Duration::from_secs(20), || !registers("second"));
    from_alice(&server, "call_final", "erin").set("CODE", 404).succeed();
    eventually("her binding has gone with her", Duration::from_secs(20), || server.metric("isthmus_bindings") == 0.0);
    server.stop();
}

/// What tshark's dissector makes of messages as datagrams: the fields asked for, of each.
fn dissected(server: &Server, messages: &[String], fields: &[&str]) -> Vec<Vec<String>> {
    let dump = |m: &String| m.bytes().fold("000000".to_owned(), |line, byte| format!("{line} {byte:02x}")) + "\n";
    let (hex, capture) = (server.path().join("messages.hex"), server.path().join("messages.pcap"));
    std::fs::write(&hex, messages.iter().map(dump).collect::<String>()).unwrap();
    let done = Command::new("text2pcap").args(["-q", "-u", "5060,5060"]).arg(&hex).arg(&capture).output();
    assert!(done.expect("text2pcap is installed").status.success());
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&capture).args(["-T", "fields", "-E", "separator=|"]);
    tshark.args(fields.iter().flat_map(|field| ["-e", field]));
    let done = tshark.output().expect("tshark is installed");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}

#[test]
fn decode_tells_what_tshark_dissects() {
    let server = started();
    let phone = server.ports.next();
    let callee = Sipp::new(&server, "answer", phone).start();
    bind(&server, "bob", phone, "");
    let call = from_alice(&server, "call", "bob").succeed();
    let callee = callee.succeed(1);
    let outcomes = [&call, &callee];
    let logged = outcomes.iter().flat_map(|o| o.sent().into_iter().chain(o.received()));
    // SIPp's log has line ends of its own after each message.
    let whole = |m: &str| format!("{}\r\n{}", m.trim_end(), if m.contains("\r\n\r\nv=0") { "" } else { "\r\n" });
    let messages: Vec<String> = logged.map(whole).collect();
    // Ten at the caller, six at the phone.
    assert!(messages.len() >= 16, "{}", messages.len());
    let fields =
        ["sip.Method", "sip.r-uri", "sip.Status-Code", "sip.CSeq.method", "sip.Call-ID", "sip.CSeq", "sip.Via.branch"];
    let seen = dissected(&server, &messages, &[&fields[..], &["udp.payload"]].concat());
    assert_eq!(seen.len(), messages.len());
    for (n, found) in seen.iter().enumerate() {
        let [method, uri, status, about, call_id, cseq, branches, payload] = &found[..] else { panic!("{found:?}") };
        let digits: Vec<char> = payload.chars().filter(|c| *c != ':').collect();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        let file = server.path().join(format!("{n}.sip"));
        std::fs::write(&file, digits.chunks(2).map(byte).collect::<Vec<u8>>()).unwrap();
        let told = server.command(&["decode", "sip", file.to_str().unwrap()]);
        let first = told.lines().next().unwrap();
        match status.as_str() {
            "" => assert!(first.starts_with(&format!("request   {method} to {uri} ")), "{first} {found:?}"),
            _ => assert!(
                first.starts_with(&format!("response  {status} ")) && first.ends_with(&format!(" to {about}")),
                "{first} {found:?}"
            ),
        }
        for (name, value) in [("Call-ID", call_id), ("CSeq", cseq)] {
            assert!(told.contains(&format!("  {name:<20} {value}\n")), "{value}: {told}");
        }
        assert!(!branches.is_empty(), "{found:?}");
        for branch in branches.split(',') {
            assert!(told.contains(&format!(" transaction {branch}\n")), "{branch}: {told}");
        }
        assert_eq!(told.lines().last(), Some("well-formed"), "{told}");
    }
}
