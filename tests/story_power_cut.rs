//! The power is cut: the disk keeps what was synced, and nothing else. Whatever was acknowledged is there afterwards; of bindings and publications, what was
//! acknowledged a second before.

mod harness;
#[path = "harness/postgres.rs"]
#[allow(dead_code)] // Shared: other tests use the rest of it.
mod postgres;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use harness::files::bytes;
use harness::history::{jq, reader};
use harness::presence::document;
use harness::sms::{self, NUMBER, Peer, field, push, text};
use harness::xcap::{Client, LISTS, home};
use harness::{DOMAIN, Disk, Outcome, PASSWORD, Ports, Process, Server, Setup, Sipp, bind, eventually, header};
use postgres::Postgres;

const SOON: Duration = Duration::from_secs(60);
/// Bindings, publications and subscriptions are on the disk within this time of their 200.
const SYNCED: Duration = Duration::from_secs(1);

/// Ends in this order.
struct Machine {
    server: Server,
    postgres: Option<Postgres>,
    disk: Disk,
}

impl Machine {
    /// Everything that is kept is kept on one disk.
    fn start(mut setup: Setup, postgres: bool) -> Machine {
        let disk = Disk::new();
        let postgres = postgres.then(|| Postgres::start_on(&disk.path()));
        if let Some(postgres) = &postgres {
            setup.sections += &format!("[store]\nengine = \"postgres\"\nurl = \"{}\"\n", postgres.url());
        }
        let data = disk.path().join("isthmus");
        std::fs::create_dir(&data).unwrap();
        setup.data = Some(data);
        Machine { server: setup.start(), postgres, disk }
    }

    fn loses_power(&mut self) {
        self.disk.cut();
        self.comes_back();
    }

    /// The disk has been cut off: so are those who wrote to it. All of them start again, and nothing seems wrong to them.
    fn comes_back(&mut self) {
        self.server.process.kill();
        if let Some(postgres) = &mut self.postgres {
            postgres.kill();
        }
        self.disk.restore();
        if let Some(postgres) = &mut self.postgres {
            postgres.restart();
        }
        self.server.restart();
        let said = self.server.process.output();
        assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    }
}

/// Alice's messages are kept in her history too.
fn setup(users: &[&str]) -> Setup {
    let mut setup = Setup::with_users(users);
    setup.provisions = format!(
        "[[user]]\nid = \"alice\"\npassword = \"{PASSWORD}\"\nhistory_days = 30\n[[user]]\nid = \"bob\"\npassword = \"{PASSWORD}\"\n"
    );
    setup.sections = "[content]\nrate = 1000\n[history]\nrate = 1000\n".into();
    setup
}

#[test]
fn what_was_acknowledged_is_there_after_a_power_cut() {
    in_the_middle_of_the_work("before-reply", false);
}

#[test]
fn what_was_acknowledged_is_there_after_a_power_cut_with_bindings_behind() {
    in_the_middle_of_the_work("behind", false);
}

#[test]
fn what_was_acknowledged_is_there_after_a_power_cut_on_postgres() {
    in_the_middle_of_the_work("before-reply", true);
}

fn in_the_middle_of_the_work(store: &'static str, postgres: bool) {
    let users: Vec<String> = (0..2000).map(|n| format!("user{n:04}")).collect();
    let ports = Ports::claim();
    let (centre, door) = (ports.next(), ports.next());
    let mut setup = setup(&users.iter().map(String::as_str).collect::<Vec<_>>());
    setup.store = store;
    setup.sections += &format!(
        "[smpp]\nlisten = \"127.0.0.1:{door}\"\n[[smpp.esme]]\nsystem_id = \"legacy\"\npassword = \"pw\"\n\
         [[smpp.link]]\nname = \"smsc\"\naddress = \"127.0.0.1:{centre}\"\nsystem_id = \"isthmus\"\npassword = \"secret\"\n\
         timers = {{ reconnect = [100, 500] }}\n"
    );
    let mut machine = Machine::start(setup, postgres);
    let Machine { server, disk, .. } = &mut machine;
    let server: &Server = server;

    let published = publish(server, &["Content-Type: application/pidf+xml"], &document("bob", "phone", "open", ""));
    let contact = format!("127.0.0.1:{}", server.ports.next());
    let accepted = server.path().join("accepted.txt");
    let mut application = Command::new("node");
    application.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/load.js"));
    application.args([&door.to_string(), "20000", "4"]).arg(&accepted).env("NUMBER", &NUMBER[1..]);
    let application = Process::start("load", server.path(), &mut application);

    let (over, puts, files) = (AtomicBool::new(false), AtomicU32::new(0), Mutex::new(BTreeMap::new()));
    let (bound, written, files, phones) = thread::scope(|scope| {
        scope.spawn(|| put_on(server, &over, &puts));
        scope.spawn(|| upload_on(server, &over, &files));
        let short = || std::fs::read_to_string(&accepted).unwrap_or_default();
        eventually("applications are at work", SOON, || {
            short().lines().count() > 500 && puts.load(Ordering::Relaxed) > 1 && files.lock().unwrap().len() > 1
        });
        // What ends by itself begins last.
        let registering = Sipp::new(server, "register", server.ports.next()).set("CONTACT", &contact).set("PARAMS", "");
        let registering = registering.set("EXPIRES", 3600).users(&users).rate(125).limit(SOON).start();
        let writing = Sipp::new(server, "message", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
        let writing =
            writing.set("TEXT", "kept").set("CODE", 202).users(&["alice"]).calls(900).rate(100).limit(SOON).start();
        eventually("phones are at work", SOON, || {
            with_status(&registering.so_far().received(), "200").count() > 500
                && with_status(&writing.so_far().received(), "202").count() > 100
        });
        let bound: Vec<String> = with_status(&registering.so_far().received(), "200")
            .filter_map(|m| Some(header(m, "To")?.split("sip:").nth(1)?.split('@').next()?.to_owned()))
            .collect();
        thread::sleep(SYNCED);
        let files = files.lock().unwrap().clone();
        let written = (writing.so_far(), puts.load(Ordering::Relaxed), short());
        disk.cut();
        server.process.signal("KILL");
        over.store(true, Ordering::Relaxed);
        (bound, written, files, (registering, writing))
    });
    drop((phones, application));
    let (mut missing, puts) = (texts(&written.0), written.1);
    let short: Vec<&str> = written.2.lines().collect();
    println!(
        "acknowledged: {} bindings, {} messages, {} short messages, {} documents, {} files",
        bound.len(),
        missing.len(),
        short.len(),
        puts,
        files.len()
    );
    assert!(bound.len() < users.len(), "it was in the middle");

    machine.comes_back();
    let server = &machine.server;
    let fetch = Sipp::new(server, "fetch", server.ports.next()).set("CONTACT", &contact);
    fetch.users(&bound).rate(500).succeed();
    publish(server, &[&format!("SIP-If-Match: {published}")], "");
    let forgotten: Vec<String> = missing.difference(&history(server, "alice")).cloned().collect();
    assert!(forgotten.is_empty(), "not in the history: {forgotten:?}");
    let phone = server.ports.next();
    let taking = Sipp::new(server, "take_messages", phone).set("CODE", 200).calls(100_000).limit(SOON).start();
    bind(server, "bob", phone, "");
    eventually("bob gets his messages", SOON, || {
        taking.so_far().received().iter().for_each(|m| _ = missing.remove(&body(m)));
        missing.is_empty()
    });
    assert!(document_there(server) >= puts);
    for (link, content) in &files {
        assert!(downloaded(server, link) == *content, "{link}");
    }
    let centre = Peer::smsc(server.path(), centre, "silent");
    eventually("the short messages go out", SOON, || {
        let out: BTreeSet<String> =
            centre.events("submit").iter().map(|e| e["text"].as_str().unwrap().to_owned()).collect();
        short.iter().all(|text| out.contains(*text))
    });
}

#[test]
fn each_acknowledgement_by_itself_outlives_a_power_cut() {
    let ports = Ports::claim();
    let (centre, callback) = (ports.next(), ports.next());
    let mut setup = setup(&["carol"]);
    let push_setup = sms::setup(centre, callback, "");
    setup.sections += &push_setup.sections;
    setup.provisions += &push_setup.provisions;
    let mut machine = Machine::start(setup, false);

    // What the first start made, and what was provisioned.
    let token = std::fs::read(machine.server.path().join("data/admin.token")).unwrap();
    machine.loses_power();
    assert_eq!(std::fs::read(machine.server.path().join("data/admin.token")).unwrap(), token);
    machine.server.command(&["user", "add", "dave", "--password", PASSWORD, "--config", "isthmus.toml"]);
    machine.loses_power();
    let tag = publish(&machine.server, &["Content-Type: application/pidf+xml"], &document("bob", "phone", "open", ""));
    bind(&machine.server, "dave", 9, "");
    thread::sleep(SYNCED);
    machine.loses_power();
    let fetch = Sipp::new(&machine.server, "fetch", machine.server.ports.next()).set("CONTACT", "127.0.0.1:9");
    fetch.users(&["dave"]).succeed();
    publish(&machine.server, &[&format!("SIP-If-Match: {tag}")], "");

    assert_eq!(put(&machine.server, 1), 201);
    machine.loses_power();
    assert_eq!(document_there(&machine.server), 1);

    let content = bytes(5_000_000);
    let link = upload(&machine.server, "1", &content).expect("an accepted file");
    machine.loses_power();
    assert!(downloaded(&machine.server, &link) == content);

    for text in ["one", "two"] {
        let message =
            Sipp::new(&machine.server, "message", machine.server.ports.next()).set("TEXT", text).set("NUMBER", "");
        message.set("URI", format!("sip:bob@{DOMAIN}")).set("CODE", 202).users(&["alice"]).succeed();
        machine.loses_power();
    }
    assert_eq!(history(&machine.server, "alice"), BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    let phone = machine.server.ports.next();
    let taking = Sipp::new(&machine.server, "take_messages", phone).set("CODE", 200).calls(2).start();
    bind(&machine.server, "bob", phone, "");
    let texts: Vec<String> = taking.succeed(2).received().iter().map(|m| body(m)).collect();
    assert_eq!(texts, ["one", "two"]);

    assert_eq!(push(&machine.server, &text("r1", "pushed", "")), "0000");
    machine.loses_power();
    let smsc = Peer::smsc(machine.server.path(), centre, "late");
    assert_eq!(smsc.wait_for("submit", 1)[0]["text"], "pushed");
    // Two seconds after the message, which has been written down as sent.
    assert_eq!(smsc.wait_for("receipted", 1)[0]["status"], 0);
    machine.loses_power();
    let told = Peer::callback(machine.server.path(), callback, &[]).wait_notified(1);
    assert_eq!((field(&told[0], "reqid"), field(&told[0], "result")), ("r1", "0000"));
}

/// Bob publishes; the tag that he is given.
fn publish(server: &Server, lines: &[&str], body: &str) -> String {
    let lines = ["Event: presence", "Expires: 600"].iter().chain(lines).copied().collect::<Vec<_>>().join("\n");
    let publish = Sipp::new(server, "publish", server.ports.next()).set("USER", "bob").set("CODE", 200);
    let done = publish.set("LINES", lines).set("BODY", body).users(&["bob"]).succeed();
    header(done.received().last().expect("an answer"), "SIP-ETag").expect("an entity tag").to_owned()
}

fn with_status<'m>(messages: &'m [&'m str], status: &'m str) -> impl Iterator<Item = &'m str> {
    messages.iter().copied().filter(move |m| m.starts_with(&format!("SIP/2.0 {status} ")))
}

fn call_id(message: &str) -> String {
    header(message, "Call-ID").unwrap().to_owned()
}

fn body(message: &str) -> String {
    message.split_once("\r\n\r\n").map_or("", |m| m.1).trim().to_owned()
}

/// What was said in the messages that were answered with 202.
fn texts(so_far: &Outcome) -> BTreeSet<String> {
    let kept: BTreeSet<String> = with_status(&so_far.received(), "202").map(call_id).collect();
    so_far.sent().iter().filter(|m| kept.contains(&call_id(m))).map(|m| body(m)).collect()
}

/// The texts in a history, all of its pages.
fn history(server: &Server, user: &str) -> BTreeSet<String> {
    let (reader, mut cursor, mut texts) = (reader(server, user), String::new(), BTreeSet::new());
    loop {
        let page = reader.get(&format!("?limit=200{cursor}")).body;
        texts.extend(jq(&page, ".messages[].text | rtrimstr(\"\\r\\n\")").lines().map(str::to_owned));
        match jq(&page, ".next // empty") {
            next if next.is_empty() => return texts,
            next => cursor = format!("&cursor={next}"),
        }
    }
}

/// Puts alice's lists, their version in them; the status.
fn put(server: &Server, version: u32) -> u16 {
    let lists = format!(
        "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list name=\"v{version}\"/></resource-lists>"
    );
    let url = format!("{}{}", Client::nobody(server).root, home("resource-lists", "alice", "index"));
    let content_type = format!("Content-Type: {LISTS}");
    let arguments = ["--digest", "-u", &format!("alice:{PASSWORD}"), "-X", "PUT", "-H", &content_type];
    sms::post_to(server, &url, &lists, &arguments).0
}

/// The version of alice's lists.
fn document_there(server: &Server) -> u32 {
    let told = Client::of(server, "alice").get(&home("resource-lists", "alice", "index"));
    told.body.split("name=\"v").nth(1).and_then(|rest| rest.split('"').next()?.parse().ok()).expect("a version")
}

/// Puts them until it is over; `newest` is the newest that was accepted.
fn put_on(server: &Server, over: &AtomicBool, newest: &AtomicU32) {
    for n in (1..).take_while(|_| !over.load(Ordering::Relaxed)) {
        if matches!(put(server, n), 200 | 201) {
            newest.store(n, Ordering::Relaxed);
        }
    }
}

/// Alice uploads a file over HTTP; its link, where it was accepted.
fn upload(server: &Server, tid: &str, content: &[u8]) -> Option<String> {
    let file = server.path().join("upload");
    std::fs::write(&file, content).unwrap();
    let curl = Command::new("curl")
        .args(["-s", "-m", "60", "--digest", "-u", &format!("alice:{PASSWORD}"), "-F", &format!("tid={tid}")])
        .args(["-F", &format!("File=@{};type=image/png", file.display())])
        .arg(format!("http://127.0.0.1:{}/content/", server.http))
        .output()
        .expect("curl runs");
    let told = String::from_utf8(curl.stdout).unwrap();
    Some(told.split_once("url=\"")?.1.split('"').next()?.replace("&amp;", "&"))
}

/// Uploads until it is over; `files` are those that were accepted, by their links.
fn upload_on(server: &Server, over: &AtomicBool, files: &Mutex<BTreeMap<String, Vec<u8>>>) {
    for n in (0..).take_while(|_| !over.load(Ordering::Relaxed)) {
        let content = bytes(300_000 + n);
        if let Some(link) = upload(server, &n.to_string(), &content) {
            files.lock().unwrap().insert(link, content);
        }
    }
}

fn downloaded(server: &Server, link: &str) -> Vec<u8> {
    let file = server.path().join("download");
    let curl = Command::new("curl").args(["-sf", "-m", "60", "-o"]).arg(&file).arg(link).status().expect("curl runs");
    assert!(curl.success(), "{link}: {curl}");
    std::fs::read(file).unwrap()
}
