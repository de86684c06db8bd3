//! The push interface between curl and node-smpp: accepted, submitted, receipted, notified, billed; and every code of the table.

mod harness;

use std::process::Command;
use std::time::Duration;

use harness::faketime::under;
use harness::sms::{NUMBER, Peer, SECRET, XPID, cancel, field, post, post_to, post_with, push, setup, text};
use harness::{Ports, Server, eventually};

struct Story {
    server: Server,
    smsc: Peer,
    callback: Peer,
    _ports: Ports,
}

fn story(mode: &str, more: &str, statuses: &[u16]) -> Story {
    let ports = Ports::claim();
    let (smsc, callback) = (ports.next(), ports.next());
    let server = setup(smsc, callback, more).start();
    let smsc = Peer::smsc(server.path(), smsc, mode);
    let callback = Peer::callback(server.path(), callback, statuses);
    Story { server, smsc, callback, _ports: ports }
}

#[test]
fn a_text_goes_out_is_receipted_notified_and_billed() {
    let Story { server, smsc, callback, _ports } = story("normal", "", &[]);
    let reqid = "0123456789abcdef0123456789abcdef0123";
    let (status, answer) = post(&server, &text(reqid, "Door 3 open &amp; alarm", ""));
    assert_eq!((status, answer.len(), field(&answer, "code")), (200, 163, "0000"), "{answer}");
    assert_eq!((field(&answer, "fncid"), field(&answer, "reqid"), field(&answer, "svcid")), ("0102", reqid, XPID));

    let submit = &smsc.wait_for("submit", 1)[0];
    assert_eq!((submit["to"].as_str(), submit["from"].as_str()), (NUMBER.strip_prefix('+'), Some("5555")));
    assert_eq!((submit["text"].as_str(), submit["line_state"].as_str()), (Some("Door 3 open & alarm"), Some("00")));

    let notified = callback.wait_notified(1);
    assert_eq!((field(&notified[0], "fncid"), field(&notified[0], "reqid")), ("0301", reqid));
    assert_eq!((field(&notified[0], "result"), field(&notified[0], "segments")), ("0000", "1"));

    // The same again is accepted again, and goes out no more; another body under its name is refused.
    assert_eq!(push(&server, &text(reqid, "Door 3 open &amp; alarm", "")), "0000");
    assert_eq!(push(&server, &text(reqid, "Door 4", "")), "1004");
    assert_eq!(push(&server, &text("second", "b", "")), "0000");
    smsc.wait_for("submit", 2);
    assert_eq!(smsc.events("submit").len(), 2);

    eventually("the trace tells", Duration::from_secs(20), || {
        server.command(&["trace", reqid, "--config", "isthmus.toml"]).contains("short_message")
    });
    callback.wait_notified(2);
    let day = String::from_utf8(Command::new("date").args(["-u", "+%F"]).output().unwrap().stdout).unwrap();
    eventually("billing has counted both", Duration::from_secs(20), || {
        let said = server.command(&["billing", "day", day.trim(), "--config", "isthmus.toml"]);
        let file = said.split_whitespace().last().unwrap().to_owned();
        std::fs::read_to_string(file).unwrap().contains(&format!("{XPID},0000,2,2"))
    });
    server.stop();
}

#[test]
fn what_nobody_takes_within_its_time_is_6001() {
    let ports = Ports::claim();
    let (smsc, callback) = (ports.next(), ports.next());
    let mut setup = setup(smsc, callback, "");
    setup.under = under("2026-11-01 12:00:00");
    let mut server = setup.start();
    let callback = Peer::callback(server.path(), callback, &[]);
    // There is no centre yet.
    for (reqid, minutes) in [("short", 5), ("long", 600)] {
        assert_eq!(push(&server, &text(reqid, reqid, &format!("<vp>{minutes}</vp>"))), "0000");
    }
    server.setup.under = under("2026-11-01 12:10:00");
    server.restart();
    let told = callback.wait_notified(1);
    assert_eq!((field(&told[0], "reqid"), field(&told[0], "result")), ("short", "6001"), "{told:?}");
    let smsc = Peer::smsc(server.path(), smsc, "normal");
    let told = callback.wait_notified(2);
    assert_eq!((field(&told[1], "reqid"), field(&told[1], "result")), ("long", "0000"), "{told:?}");
    assert_eq!(smsc.events("submit").iter().map(|s| s["text"].as_str().unwrap()).collect::<Vec<_>>(), ["long"]);
}

#[test]
fn long_texts_are_divided_and_eleven_segments_are_refused() {
    let Story { server, smsc, callback, _ports } = story("normal", "", &[]);
    assert_eq!(push(&server, &text("ten", &"a".repeat(1530), "")), "0000");
    let submits = smsc.wait_for("submit", 10);
    assert!(submits.iter().all(|s| s["esm_class"] == 0x40), "{submits:?}");
    let notified = callback.wait_notified(1);
    assert_eq!((field(&notified[0], "result"), field(&notified[0], "segments")), ("0000", "10"));
    assert_eq!(push(&server, &text("eleven", &"a".repeat(1531), "")), "3001");
    assert_eq!(push(&server, &text("nogsm", "日本", "<coding>gsm7</coding>")), "3003");
    assert_eq!(push(&server, &text("ucs2", "日本", "<mclass>0</mclass><oa>Fleet</oa>")), "0000");
    let last = smsc.wait_for("submit", 11).pop().unwrap();
    assert_eq!((last["data_coding"].as_u64(), last["from"].as_str()), (Some(0x18), Some("Fleet")));
}

#[test]
fn every_refusal_has_its_code_and_sends_nothing() {
    let Story { server, smsc, callback: _callback, _ports } = story("normal", "rate = 100", &[]);
    let good = text("r", "x", "");
    let basic = format!("{XPID}:{SECRET}");
    let xml = ["-u", &basic, "-H", "Content-Type: text/xml"];
    for (body, status, code) in [
        ("<smsgw>".to_owned(), 400, "1001"),
        (format!("<!DOCTYPE smsgw [<!ENTITY a \"b\">]>{}", &good[good.find("<smsgw>").unwrap()..]), 400, "1001"),
        (good.replace("<text>x</text>", ""), 200, "1002"),
        (good.replace(NUMBER, "0901"), 200, "1002"),
        (good.replace("0101", "0105"), 200, "1003"),
        (good.replace("1101", "2101"), 200, "1003"),
        (good.replace(XPID, "99999999999"), 200, "2001"),
        (good.replace(NUMBER, "+819099999999"), 200, "2003"),
        (cancel("never"), 200, "4001"),
    ] {
        let (got, answer) = post_with(&server, &body, &xml);
        assert_eq!((got, field(&answer, "code")), (status, code), "{body}");
    }
    for wrong in ["12345678901:wrong", "10000000000:s3cret"] {
        let (status, answer) = post_with(&server, &good, &["-u", wrong, "-H", "Content-Type: application/xml"]);
        assert_eq!((status, field(&answer, "code")), (200, "2002"));
    }
    assert_eq!(post_with(&server, &good, &["-u", &basic, "-H", "Content-Type: application/json"]).0, 415);
    assert_eq!(post_with(&server, &good, &["-X", "PUT", "-H", "Content-Type: text/xml"]).0, 405);
    assert_eq!(post_with(&server, &"x".repeat(70_000), &xml).0, 413);
    assert_eq!(smsc.events("submit").len(), 0);
    // Stopped by the operator, within a second, and served again.
    let client = format!("http://127.0.0.1:{}/admin/v1/push_clients/{XPID}", server.admin);
    let token = std::fs::read_to_string(server.path().join("data/admin.token")).unwrap();
    let put = |stopped: bool| {
        let body =
            format!("{{\"xpid\":\"{XPID}\",\"secret\":\"{SECRET}\",\"numbers\":[\"{NUMBER}\"],\"stopped\":{stopped}}}");
        let done = Command::new("curl")
            .args(["-s", "-f", "-X", "PUT", "-H", "Content-Type: application/json", "-d", &body, "-H"])
            .arg(format!("Authorization: Bearer {}", token.trim()))
            .arg(&client)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    put(true);
    eventually("the client is stopped", Duration::from_secs(10), || push(&server, &text("s", "x", "")) == "2004");
    put(false);
    // Without segmentation now.
    eventually("the client is served", Duration::from_secs(10), || {
        push(&server, &text("t", &"a".repeat(200), "")) == "3002"
    });
    assert_eq!(push(&server, &text("u", "the last", "<notify>0</notify>")), "0000");
    eventually("it goes out", Duration::from_secs(20), || {
        smsc.events("submit").iter().any(|s| s["text"] == "the last")
    });
}

#[test]
fn the_same_request_many_times_at_once_goes_out_once() {
    let Story { server, smsc, callback, _ports } = story("normal", "", &[]);
    let codes: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..12).map(|_| scope.spawn(|| push(&server, &text("same", "once", "")))).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(codes.iter().all(|c| c == "0000"), "{codes:?}");
    callback.wait_notified(1);
    assert_eq!(smsc.events("submit").len(), 1);
}

#[test]
fn the_lines_state_at_delivery_decides() {
    let Story { server, smsc, callback, _ports } = story("normal", "deliver_while_suspended = true", &[]);
    // What becomes of one more push: a change takes effect within a second or so.
    let mut pushes = 0;
    let mut pushed = || {
        pushes += 1;
        let reqid = format!("push-{pushes}");
        assert_eq!(push(&server, &text(&reqid, &reqid, "")), "0000");
        let told = callback.wait_notified(pushes).into_iter().find(|n| field(n, "reqid") == reqid);
        field(&told.expect("each is told of once"), "result").to_owned()
    };
    for (flag, result) in [("roaming", "6011"), ("spam-block", "6013"), ("over-limit", "6014"), ("ps-roaming", "6015")]
    {
        server.command(&["line", "set", NUMBER, &format!("--{flag}"), "--config", "isthmus.toml"]);
        eventually(&format!("{flag} decides"), Duration::from_secs(30), || pushed() == result);
    }
    server.command(&["line", "set", NUMBER, "--suspended", "--config", "isthmus.toml"]);
    eventually("it is allowed", Duration::from_secs(30), || pushed() == "0000");
    // Nothing has gone out but what was allowed: that, and what was pushed before the first change was known.
    let (submits, told) = (smsc.events("submit"), callback.notified());
    let allowed = told.iter().filter(|n| field(&n.1, "result") == "0000").count();
    assert_eq!(submits.len(), allowed, "{submits:?} {told:?}");
    assert_eq!(submits.last().expect("the last was allowed")["line_state"], "02");
}

#[test]
fn a_notification_is_repeated_until_it_is_taken() {
    let Story { server, callback, smsc: _smsc, _ports } = story("normal", "", &[500]);
    assert_eq!(push(&server, &text("again", "x", "")), "0000");
    let notified = callback.wait_notified(1);
    assert_eq!(field(&notified[0], "reqid"), "again");
    assert_eq!(callback.notified()[0].0, 500);
}

#[test]
fn a_cancellation_that_comes_too_late_and_one_that_comes_half_too_late() {
    let Story { server, smsc, callback, _ports } = story("part", "", &[]);
    // The first of two is receipted.
    assert_eq!(push(&server, &text("over", "x", "")), "0000");
    callback.wait_notified(1);
    assert_eq!(push(&server, &cancel("over")), "4002");
    assert_eq!(push(&server, &cancel("over")), "4002", "nothing was cancelled, so it was not cancelled before");
    // The second stays without, and so do the even ones after it.
    assert_eq!(push(&server, &text("silent", "x", "<notify>0</notify>")), "0000");
    assert_eq!(push(&server, &text("half", &"a".repeat(200), "")), "0000");
    smsc.wait_for("submit", 4);
    eventually("the first half has arrived", Duration::from_secs(20), || {
        server.metric("isthmus_sms_ended_total{state=\"delivered\",verdict=\"0000\"}") == 2.0
    });
    assert_eq!(push(&server, &cancel("half")), "4004");
    assert_eq!(smsc.wait_for("cancel", 1).len(), 1);
    // Both processes end: it was not delivered whole, and half of it was cancelled.
    let mut told = callback.wait_notified(3);
    // They may overtake each other.
    told[1..].sort_by_key(|t| field(t, "fncid").to_owned());
    assert_eq!((field(&told[1], "fncid"), field(&told[1], "reqid")), ("0301", "half"));
    assert_eq!((field(&told[2], "fncid"), field(&told[2], "cancelled"), field(&told[2], "total")), ("0401", "1", "2"));
    assert_eq!(push(&server, &cancel("half")), "4003");
}

/// Headers and body of a push.
fn push_with_headers(server: &Server, body: &str) -> (String, String) {
    let basic = format!("{XPID}:{SECRET}");
    let (_, text) = post_with(server, body, &["-i", "-u", &basic, "-H", "Content-Type: text/xml"]);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn above_the_clients_rate_is_5001_and_says_when() {
    let Story { server, smsc, callback: _callback, _ports } = story("normal", "rate = 1", &[]);
    let mut refused = 0;
    eventually("one is above a rate of one a second", Duration::from_secs(30), || {
        let (head, answer) = push_with_headers(&server, &text(&format!("r{refused}"), "x", ""));
        match field(&answer, "code") {
            "0000" => {
                refused += 1;
                false
            }
            code => {
                assert_eq!(code, "5001", "{head}");
                assert!(head.starts_with("http/1.1 503") && head.contains("\r\nretry-after: 1"), "{head}");
                true
            }
        }
    });
    // Nothing of it was kept: what it named is free, and a second later it is taken.
    let again = text(&format!("r{refused}"), "x", "");
    eventually("the next second", Duration::from_secs(30), || push(&server, &again) == "0000");
    let submits = smsc.wait_for("submit", refused + 1);
    assert_eq!(submits.len(), refused + 1);
}

#[test]
fn client_certificates_prove_who_pushes() {
    const OTHER: &str = "10987654321";
    let ports = Ports::claim();
    let (smsc, callback) = (ports.next(), ports.next());
    let mut setup = setup(smsc, callback, "");
    setup.http = "client_certificates = true".into();
    setup.issue = vec![("fleet", "fleet.test"), ("stranger", "stranger.test")];
    let server = setup.start();
    let smsc = Peer::smsc(server.path(), smsc, "normal");
    let _callback = Peer::callback(server.path(), callback, &[]);
    // By certificate alone, and by certificate or secret.
    let fingerprint = server.authority.fingerprint("fleet");
    let add = |xpid: &str, more: &[&str]| {
        let mut arguments = vec!["push-client", "add", xpid, "--number", NUMBER, "--config", "isthmus.toml"];
        arguments.extend(more);
        server.command(&arguments);
    };
    add(OTHER, &["--certificate", &fingerprint]);
    let url = format!("https://localhost:{}/smsgw/", server.https);
    let ca = server.authority.certificate().display().to_string();
    let shown =
        |name: &str| ["pem", "key"].map(|kind| server.path().join(format!("{name}.{kind}")).display().to_string());
    let [certificate, key] = shown("fleet");
    let [strange_certificate, strange_key] = shown("stranger");
    let post = |reqid: &str, xpid: &str, url: &str, more: &[&str]| {
        let mut arguments = vec!["--cacert", &ca, "-H", "Content-Type: text/xml"];
        arguments.extend(more);
        let (status, answer) = post_to(&server, url, &text(reqid, reqid, "").replace(XPID, xpid), &arguments);
        (status, field(&answer, "code").to_owned())
    };
    let accepted = (200, "0000".to_owned());
    let refused = (200, "2002".to_owned());
    let mine = ["--cert", &*certificate, "--key", &*key];
    eventually("the client is known", Duration::from_secs(10), || post("c1", OTHER, &url, &mine) == accepted);
    for (n, version) in ["--tls-max=1.2", "--tlsv1.3"].iter().enumerate() {
        let version: Vec<&str> = version.split('=').collect();
        let with: Vec<&str> = mine.iter().copied().chain(version).collect();
        assert_eq!(post(&format!("v{n}"), OTHER, &url, &with), accepted);
    }
    // Nobody's, another's, and none over a connection that can carry none.
    assert_eq!(post("c2", OTHER, &url, &[]), refused);
    assert_eq!(post("c3", OTHER, &url, &["--cert", &strange_certificate, "--key", &strange_key]), refused);
    assert_eq!(post("c4", OTHER, &format!("http://127.0.0.1:{}/smsgw/", server.http), &[]), refused);
    let basic = format!("{OTHER}:{fingerprint}");
    assert_eq!(post("c5", OTHER, &url, &["-u", &basic]), refused);
    // It proves one client and no other; that one has its secret, over TLS as well, whatever certificate comes along.
    assert_eq!(post("c6", XPID, &url, &mine), refused);
    let secret = format!("{XPID}:{SECRET}");
    assert_eq!(post("c7", XPID, &url, &["-u", &secret, "--cert", &certificate, "--key", &key]), accepted);
    // Either is enough where both are registered.
    add(OTHER, &["--certificate", &fingerprint, "--secret", "other"]);
    let both = format!("{OTHER}:other");
    eventually("its secret is known", Duration::from_secs(10), || post("c8", OTHER, &url, &["-u", &both]) == accepted);
    assert_eq!(post("c9", OTHER, &url, &mine), accepted);
    // A certificate that is replaced is good no more.
    add(OTHER, &["--certificate", &server.authority.fingerprint("stranger")]);
    eventually("the old one is refused", Duration::from_secs(10), || post("c10", OTHER, &url, &mine) == refused);
    let texts = || {
        let mut texts: Vec<_> = smsc.events("submit").iter().map(|s| s["text"].as_str().unwrap().to_owned()).collect();
        // It was asked until the change was known: the first time may have been before.
        texts.retain(|t| t != "c10");
        texts.sort();
        texts
    };
    eventually("what was accepted goes out", Duration::from_secs(20), || texts().len() == 6);
    assert_eq!(texts(), ["c1", "c7", "c8", "c9", "v0", "v1"]);
}
