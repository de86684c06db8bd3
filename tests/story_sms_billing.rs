//! Billing files (S8): the built server writes them when the operator's day and month are over, on a clock that libfaketime sets;
//! sha256sum checks them.

mod harness;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::faketime::under;
use harness::sms::{Peer, XPID, push, setup, text};
use harness::{Ports, Server, eventually};

/// The files there are, by name.
fn files(server: &Server) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(server.path().join("data/billing"))
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The lines of a file, once sha256sum has said that its trailer is right.
fn checked(path: PathBuf) -> Vec<String> {
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, trailer) = text.trim_end().rsplit_once('\n').unwrap();
    let body = path.with_extension("body");
    std::fs::write(&body, format!("{before}\n")).unwrap();
    let said = Command::new("sha256sum").arg(&body).output().unwrap();
    std::fs::remove_file(body).unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(trailer.ends_with(&format!(",{}", said.split(' ').next().unwrap())), "{text}{said}");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_day_and_a_month_end_at_the_operators_midnight_and_nobody_types() {
    let ports = Ports::claim();
    let (smsc, callback) = (ports.next(), ports.next());
    let mut setup = setup(smsc, callback, "");
    setup.sections.push_str("[billing]\ntime_zone = \"+09:00\"\n");
    setup.under = under("2026-11-30 14:00:00");
    let mut server = setup.start();
    let smsc = Peer::smsc(server.path(), smsc, "normal");
    let callback = Peer::callback(server.path(), callback, &[]);
    assert_eq!(push(&server, &text("november", &"a".repeat(200), "")), "0000");
    callback.wait_notified(1);
    assert!(files(&server).is_empty(), "{:?}", files(&server));
    // Ten seconds before December begins in Tokyo.
    server.setup.under = under("2026-11-30 14:59:50 x30");
    server.restart();
    // By name: a file that is being written has another one until it is whole.
    let written = ["sms-day-2026-11-30.0001.csv", "sms-month-2026-11.0001.csv"];
    eventually("the day and the month are written", Duration::from_secs(60), || files(&server) == written);
    let folder = server.path().join("data/billing");
    for (file, period) in [(written[0], "day,2026-11-30"), (written[1], "month,2026-11")] {
        let lines = checked(folder.join(file));
        assert!(lines[0].starts_with(&format!("H,isthmus,sms,{period},+09:00,1,2026-12-01T00:0")), "{lines:?}");
        assert_eq!(lines[2], format!("{XPID},0000,1,2"));
        assert!(lines[3].starts_with("T,1,1,2,"), "{lines:?}");
    }
    // What comes now is December's.
    assert_eq!(push(&server, &text("december", "x", "")), "0000");
    callback.wait_notified(2);
    // A server that starts again writes nothing a second time.
    server.setup.under = under("2026-12-01 03:00:00");
    server.restart();
    eventually("it serves", Duration::from_secs(30), || server.metric("isthmus_smpp_link_up") == 1.0);
    assert_eq!(files(&server), written);
    // Somebody may: the same totals under the next number, the first file as it was.
    let first = std::fs::read(folder.join(written[1])).unwrap();
    let said = server.command(&["billing", "month", "2026-11", "--config", "isthmus.toml"]);
    assert!(said.trim().ends_with("sms-month-2026-11.0002.csv"), "{said}");
    let again = checked(PathBuf::from(said.trim()));
    assert!(again[0].starts_with("H,isthmus,sms,month,2026-11,+09:00,2,"), "{again:?}");
    assert_eq!(again[2], format!("{XPID},0000,1,2"));
    assert_eq!(std::fs::read(folder.join(written[1])).unwrap(), first);
    assert_eq!(smsc.events("submit").len(), 3);
}
