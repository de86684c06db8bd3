//! SMSCs that behave as SMSCs do, and servers that die: every accepted message goes out, receipts find their message, what
//! can be cancelled is.

mod harness;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::sms::{NUMBER, Peer, SECRET, XPID, cancel, field, push, setup, text};
use harness::{Ports, Server, eventually, wap};

struct Story {
    server: Server,
    smsc: Peer,
    callback: Peer,
    port: u16,
    _ports: Ports,
}

fn story(mode: &str) -> Story {
    let ports = Ports::claim();
    let (smsc, callback) = (ports.next(), ports.next());
    let server = setup(smsc, callback, "").start();
    let callback = Peer::callback(server.path(), callback, &[]);
    let peer = Peer::smsc(server.path(), smsc, mode);
    Story { server, smsc: peer, callback, port: smsc, _ports: ports }
}

/// One message whose receipt comes as the mode says.
fn is_delivered_once(mode: &str) {
    let Story { server, smsc, callback, _ports, .. } = story(mode);
    assert_eq!(push(&server, &text("one", "x", "")), "0000", "{mode}");
    let told = callback.wait_notified(1);
    assert_eq!((field(&told[0], "reqid"), field(&told[0], "result")), ("one", "0000"), "{mode}");
    assert_eq!(smsc.events("submit").len(), 1, "{mode}");
    assert_eq!(server.metric("isthmus_sms_ended_total"), 1.0, "{mode}");
}

#[test]
fn receipts_before_the_response() {
    is_delivered_once("early");
}

#[test]
fn receipts_long_after_the_response() {
    is_delivered_once("late");
}

#[test]
fn receipts_in_words_with_the_id_in_decimal() {
    is_delivered_once("text");
}

#[test]
fn receipts_in_parameters_alone() {
    is_delivered_once("tlv");
}

#[test]
fn receipts_for_unknown_messages_and_answers_to_nothing_are_borne() {
    let Story { server, smsc, callback, _ports, .. } = story("strange");
    assert_eq!(push(&server, &text("one", "x", "")), "0000");
    let told = callback.wait_notified(1);
    assert_eq!((field(&told[0], "reqid"), field(&told[0], "result")), ("one", "0000"));
    // The centre is rid of it, and the link is the same.
    assert_eq!(smsc.events("strange")[0]["status"], 0);
    assert_eq!((smsc.events("bound").len(), smsc.events("closed").len()), (1, 0));
    let receipts = server.metric("isthmus_sms_dispatch_total{event=\"receipt\"}");
    assert_eq!((receipts, server.metric("isthmus_sms_ended_total")), (2.0, 1.0));
}

#[test]
fn receipts_that_come_twice() {
    let Story { server, callback, smsc: _smsc, _ports, .. } = story("double");
    assert_eq!(push(&server, &text("one", "x", "")), "0000");
    callback.wait_notified(1);
    eventually("the second receipt", Duration::from_secs(20), || {
        server.metric("isthmus_sms_dispatch_total{event=\"receipt\"}") == 2.0
    });
    assert_eq!((callback.notified().len(), server.metric("isthmus_sms_ended_total")), (1, 1.0));
}

#[test]
fn throttled_messages_are_slowed_down_and_none_fails() {
    for mode in ["throttle", "full"] {
        let Story { server, smsc, callback, _ports, .. } = story(mode);
        for n in 0..6 {
            assert_eq!(push(&server, &text(&format!("r{n}"), "x", "")), "0000");
        }
        let told = callback.wait_notified(6);
        assert!(told.iter().all(|t| field(t, "result") == "0000"), "{told:?}");
        assert!(smsc.events("refused").len() >= 5);
    }
}

#[test]
fn a_busy_centre_is_tried_again_later_and_order_is_kept() {
    let Story { server, smsc, callback, _ports, .. } = story("busy");
    for n in 0..3 {
        assert_eq!(push(&server, &text(&format!("r{n}"), &format!("text {n}"), "")), "0000");
    }
    callback.wait_notified(3);
    let texts: Vec<String> = smsc.events("submit").iter().map(|s| s["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(texts.len(), 3);
    // The refused one was the first on the wire; those behind it that had not left by then waited for it.
    let first = texts.iter().position(|t| t == "text 0").unwrap();
    assert!(texts[first..].is_sorted(), "{texts:?}");
}

#[test]
fn a_number_that_the_centre_rejects_is_told() {
    let Story { server, callback, smsc: _smsc, _ports, .. } = story("reject");
    assert_eq!(push(&server, &text("one", "x", "")), "0000");
    assert_eq!(field(&callback.wait_notified(1)[0], "result"), "6003");
}

#[test]
fn cancelled_at_the_centre_in_its_queue_and_too_late() {
    let Story { server, mut smsc, callback, port, _ports } = story("keep");
    assert_eq!(push(&server, &text("sent", &"a".repeat(200), "<oa>Fleet</oa>")), "0000");
    smsc.wait_for("submit", 2);
    eventually("it is sent", Duration::from_secs(20), || server.metric("isthmus_smpp_link_open") == 0.0);
    assert_eq!((push(&server, &cancel("sent")), push(&server, &cancel("sent"))), ("0000".into(), "4003".into()));
    let cancels = smsc.wait_for("cancel", 2);
    assert!(cancels.iter().all(|c| c["from"] == "Fleet"), "{cancels:?}");
    let told = callback.wait_notified(1);
    assert_eq!((field(&told[0], "fncid"), field(&told[0], "result")), ("0401", "0000"));
    assert_eq!((field(&told[0], "cancelled"), field(&told[0], "total")), ("2", "2"));

    // Nobody is there to take it: it is cancelled where it waits, and never sent.
    smsc.0.kill();
    eventually("the link is down", Duration::from_secs(30), || server.metric("isthmus_smpp_link_up") == 0.0);
    assert_eq!(push(&server, &text("waits", "never", "")), "0000");
    assert_eq!(push(&server, &cancel("waits")), "0000");
    let told = callback.wait_notified(2);
    assert_eq!((field(&told[1], "reqid"), field(&told[1], "cancelled")), ("waits", "1"));

    let smsc = Peer::smsc(server.path(), port, "nocancel");
    assert_eq!(push(&server, &text("late", "x", "")), "0000");
    smsc.wait_for("submit", 1);
    eventually("it is sent", Duration::from_secs(20), || server.metric("isthmus_smpp_link_open") == 0.0);
    assert_eq!(push(&server, &cancel("late")), "0000");
    // Both processes end: it was delivered, and nothing of it cancelled.
    let mut told = callback.wait_notified(4);
    // They may overtake each other.
    told[2..].sort_by_key(|t| field(t, "fncid").to_owned());
    assert_eq!((field(&told[2], "fncid"), field(&told[2], "result")), ("0301", "0000"), "{told:?}");
    assert_eq!((field(&told[3], "fncid"), field(&told[3], "cancelled")), ("0401", "0"));
    assert_eq!(push(&server, &cancel("late")), "4003");
    assert!(smsc.events("submit").iter().all(|s| s["text"] != "never"));
}

#[test]
fn a_wap_push_goes_through_as_it_is() {
    let Story { server, smsc, callback, _ports, .. } = story("normal");
    // A service indication that libwbxml wrote, behind WSP's push header: content type application/vnd.wap.sic, UTF-8.
    let (from, to) = (server.path().join("si.xml"), server.path().join("si.wbxml"));
    let xml = "<?xml version=\"1.0\"?><!DOCTYPE si PUBLIC \"-//WAPFORUM//DTD SI 1.0//EN\" \"http://www.wapforum.org/DTD/si.dtd\">\
        <si><indication href=\"https://www.example.com/mail\" si-id=\"box-1\" action=\"signal-high\">You have mail</indication></si>";
    std::fs::write(&from, xml).unwrap();
    let done = Command::new("xml2wbxml").arg("-o").arg(&to).arg(&from).output().expect("xml2wbxml runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let body = [&[0x01, 0x06, 0x04, 0x03, 0xAE, 0x81, 0xEA][..], &std::fs::read(&to).unwrap()].concat();
    let hex = |octets: &[u8]| octets.iter().map(|o| format!("{o:02x}")).collect::<String>();
    let more = format!("<ud>{}</ud><dstport>2948</dstport><srcport>9200</srcport>", hex(&body));
    let command = text("wap", "", &more).replace("<ctrlflg>1</ctrlflg><text></text>", "<ctrlflg>0</ctrlflg>");
    assert_eq!(push(&server, &command), "0000");
    let submit = &smsc.wait_for("submit", 1)[0];
    assert_eq!((submit["udh"].as_str(), submit["esm_class"].as_u64()), (Some("05040b8423f0"), Some(0x40)), "{submit}");
    assert_eq!((submit["text"].as_str(), submit["data_coding"].as_u64()), (Some(&*hex(&body)), Some(4)));
    callback.wait_notified(1);
    // What came out, as Wireshark sees it at that port.
    let seen = wap::dissected(server.path(), &body);
    for told in ["PDU Type: Push", "application/vnd.wap.sic", "href='https://www.'", "'example'", "You have mail"] {
        assert!(seen.contains(told), "{told} in {seen}");
    }
}

#[test]
fn links_that_drop_in_the_middle_of_a_window_lose_nothing() {
    let Story { server, smsc, callback: _callback, _ports, .. } = story("drop");
    let accepted = load(&server, 90, |_| {});
    assert_eq!(accepted.len(), 90);
    // Receipts that were on their way when the link was cut are gone: what counts is what went out.
    eventually("everything accepted went out", Duration::from_secs(90), || {
        let submits = smsc.events("submit");
        accepted.iter().all(|name| submits.iter().any(|s| s["text"] == name.as_str()))
    });
    let drops = smsc.events("closed").len();
    within_windows(&smsc.events("submit"), &accepted, drops + 1);
}

#[test]
fn a_killed_server_and_a_killed_centre_lose_nothing_accepted() {
    let Story { mut server, mut smsc, callback, port, _ports } = story("normal");
    let mut accepted = Vec::new();
    // Twice the server, once the centre, each in the middle of a load.
    for kill in ["server", "smsc", "server"] {
        accepted.extend(load(&server, 700, |n| {
            if n == 300 {
                let pid = if kill == "server" { server.process.pid() } else { smsc.0.pid() };
                assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
            }
        }));
        if kill == "server" {
            server.restart();
        } else {
            // Its log goes on in another file.
            let before = smsc.events("submit");
            std::fs::write(server.path().join("before.json"), serde_json::to_string(&before).unwrap()).unwrap();
            smsc = Peer::smsc(server.path(), port, "text");
        }
    }
    let before: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(server.path().join("before.json")).unwrap()).unwrap();
    assert!(accepted.len() > 1_000, "{}", accepted.len());
    let all = || before.iter().cloned().chain(smsc.events("submit")).collect::<Vec<_>>();
    eventually("everything accepted went out", Duration::from_secs(120), || {
        let all = all();
        let texts: std::collections::BTreeSet<&str> = all.iter().filter_map(|s| s["text"].as_str()).collect();
        accepted.iter().all(|name| texts.contains(name.as_str()))
    });
    // Three interruptions, a window each at most.
    within_windows(&all(), &accepted, 3);
    drop(callback);
}

/// Pushes `count` messages over four connections of one curl; gives the texts of those that were answered 0000. `at` is called as answers come.
fn load(server: &Server, count: usize, mut at: impl FnMut(usize)) -> Vec<String> {
    static ROUND: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let round = ROUND.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut config = String::from("parallel\nparallel-max = 4\nsilent\n");
    for n in 0..count {
        let name = format!("m{}-{round}-{n}", std::process::id());
        let body = server.path().join(format!("{name}.xml"));
        std::fs::write(&body, text(&name, &name, "")).unwrap();
        config.push_str(&format!(
            "url = \"http://127.0.0.1:{}/smsgw/\"\ndata-binary = \"@{}\"\nuser = \"{XPID}:{SECRET}\"\n\
             header = \"Content-Type: text/xml\"\noutput = \"{}\"\nnext\n",
            server.http,
            body.display(),
            body.with_extension("answer").display()
        ));
    }
    let file = server.path().join("load.curl");
    std::fs::write(&file, config.strip_suffix("next\n").unwrap()).unwrap();
    let mut curl = Command::new("curl")
        .arg("-Z")
        .arg("-K")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let answers = || {
        let names = (0..count).map(|n| format!("m{}-{round}-{n}", std::process::id()));
        let accepted = names.filter(|name| {
            let answer = std::fs::read_to_string(server.path().join(format!("{name}.answer"))).unwrap_or_default();
            field(&answer, "code") == "0000"
        });
        accepted.collect::<Vec<_>>()
    };
    let mut told = 0;
    loop {
        let ended = curl.try_wait().unwrap().is_some();
        let accepted = answers();
        for n in told..accepted.len() {
            at(n);
        }
        told = accepted.len();
        if ended {
            return answers();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Each accepted message is among the submissions, and no more of them twice than the interruptions explain, a window each.
fn within_windows(submits: &[serde_json::Value], accepted: &[String], interruptions: usize) {
    const WINDOW: usize = 10;
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for submit in submits {
        assert_eq!(submit["to"].as_str(), NUMBER.strip_prefix('+'));
        *times.entry(submit["text"].as_str().unwrap()).or_default() += 1;
    }
    let missing: Vec<&String> = accepted.iter().filter(|name| !times.contains_key(name.as_str())).collect();
    assert!(missing.is_empty(), "accepted and never sent: {missing:?}");
    let twice: usize = times.values().map(|n| n - 1).sum();
    assert!(twice <= WINDOW * interruptions, "{twice} sent again in {interruptions} interruptions");
}
