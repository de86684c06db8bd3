//! `kill -9` while writing: whatever was acknowledged is there afterwards, on both engines.
//!
//! The writer is this test binary, started again for one test with [`ENGINE`] set; it prints a line for each acknowledgement.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use isthmus::store::{Engine, Store, StoreConfig};
use rand::Rng;
use sip_ims::Aor;
use sip_ims::ports::*;

#[path = "harness/postgres.rs"]
#[allow(dead_code)] // Shared: other tests use the rest of it.
mod postgres;

/// `sqlite` or `postgres`; [`PLACE`] is its folder or URL, [`ROUND`] the number of the child.
const ENGINE: &str = "ISTHMUS_CRASH_ENGINE";
const PLACE: &str = "ISTHMUS_CRASH_PLACE";
const ROUND: &str = "ISTHMUS_CRASH_ROUND";

#[test]
fn nothing_acknowledged_is_lost_with_the_process_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    crash(&StoreConfig::sqlite(folder.path()), 12);
}

#[test]
fn nothing_acknowledged_is_lost_with_the_process_on_postgres() {
    let postgres = postgres::Postgres::start();
    crash(&StoreConfig::postgres(postgres.url()), 8);
}

/// What the parent starts and kills. Started by the test runner, it writes a bounded number and is its own judge.
#[test]
fn writer() {
    let config = match (std::env::var(ENGINE).as_deref(), std::env::var(PLACE)) {
        (Ok("sqlite"), Ok(place)) => StoreConfig::sqlite(place),
        (Ok("postgres"), Ok(place)) => StoreConfig::postgres(place),
        _ => {
            let folder = tempfile::tempdir().unwrap();
            let config = StoreConfig::sqlite(folder.path());
            let mut acknowledged = Acknowledged::default();
            let store = Store::open(&config).unwrap();
            write(&store, 0, 300, |line| assert!(acknowledged.take(&line)));
            drop(store);
            acknowledged.check(&Store::open(&config).unwrap());
            let bindings = (0..300).filter(|n| n % 3 == 0 || *n < 100).count();
            assert_eq!((acknowledged.bindings.len(), acknowledged.messages.len()), (bindings, 300));
            return;
        }
    };
    let round = std::env::var(ROUND).unwrap().parse().unwrap();
    let store = Store::open(&config).unwrap();
    let mut out = std::io::stdout();
    // One write call a line: a line is there whole or not at all. When nobody reads any more, the test is over.
    write(&store, round, u32::MAX, |line| out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap());
}

fn crash(config: &StoreConfig, rounds: u32) {
    let mut random = rand::rng();
    let mut acknowledged = Acknowledged::default();
    for round in 0..rounds {
        let enough = random.random_range(1..4000);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture", "--test-threads", "1"])
            .env(ENGINE, if matches!(config.engine, Engine::Sqlite(_)) { "sqlite" } else { "postgres" })
            .env(PLACE, place(config))
            .env(ROUND, round.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < enough {
            let line = lines.next().expect("the writer writes until it is killed").unwrap();
            seen += u32::from(acknowledged.take(&line));
        }
        // Command::kill is SIGKILL.
        child.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            acknowledged.take(&line);
        }
        child.wait().unwrap();
        acknowledged.check(&Store::open(config).unwrap());
    }
    assert!(acknowledged.messages.len() >= rounds as usize && acknowledged.bindings.len() >= rounds as usize);
    println!("{} bindings, {} messages checked", acknowledged.bindings.len(), acknowledged.messages.len());
}

fn place(config: &StoreConfig) -> String {
    match &config.engine {
        Engine::Sqlite(folder) => folder.to_str().unwrap().to_owned(),
        Engine::Postgres(url) => url.clone(),
    }
}

/// Writes `count` of each kind, some in flight at once, and gives a line for each acknowledgement.
fn write(store: &Store, round: u32, count: u32, mut acknowledge: impl FnMut(String)) {
    let (lines, acknowledged) = mpsc::channel::<String>();
    thread::scope(|scope| {
        let bindings = store.bindings();
        let line = lines.clone();
        scope.spawn(move || {
            in_flight(count, 200, |n, done| {
                // New ones and refreshes of old ones, large enough that the log is shortened in nearly every round.
                let number = if n % 3 == 0 { n } else { n % 100 };
                let (aor, agent) = (format!("user{round}-{number}@example.com"), "x".repeat(1500));
                let row = BindingRow { aor: &aor, cseq: n, user_agent: &agent, ..row() };
                let line = line.clone();
                let stored: Done<()> = Box::new(move |result| {
                    result.unwrap();
                    // An error means that the test is over; so below.
                    let _ = line.send(format!("binding {round}-{number} {n}\n"));
                    done();
                });
                bindings.write(BindingChange::Put(row), Some(stored)).unwrap();
            });
        });
        let messages = store.messages();
        let line = lines.clone();
        scope.spawn(move || {
            in_flight(count, 20, |n, done| {
                let mut key = [0; 16];
                key[..4].copy_from_slice(&n.to_le_bytes());
                let message =
                    QueuedMessage { aor: addressee(round, n), key, body: n.to_le_bytes().into(), expires_at: i64::MAX };
                let line = line.clone();
                let stored: Done<MessageId> = Box::new(move |result| {
                    result.unwrap();
                    let _ = line.send(format!("message {round} {n}\n"));
                    done();
                });
                messages.put(message, stored);
            });
        });
        let documents = store.documents();
        scope.spawn(move || {
            let key = format!("counter{round}");
            let mut expect = Expect::Absent;
            for n in 1..=count.min(u32::MAX - 1) {
                let (answer, stored) = mpsc::channel();
                documents.put("crash", &key, expect, n.to_le_bytes().into(), Box::new(move |r| drop(answer.send(r))));
                expect = Expect::Version(stored.recv().unwrap().unwrap());
                let _ = lines.send(format!("document {round} {n}\n"));
            }
        });
        acknowledged.iter().for_each(&mut acknowledge);
    });
}

/// Calls `start` for each number, with at most `window` of them not done.
fn in_flight(count: u32, window: usize, mut start: impl FnMut(u32, Box<dyn FnOnce() + Send>)) {
    let (done, places) = mpsc::channel();
    for _ in 0..window {
        done.send(()).unwrap();
    }
    for n in 0..count {
        places.recv().unwrap();
        let done = done.clone();
        // The last ones come back to nobody.
        let back = move || {
            let _ = done.send(());
        };
        start(n, Box::new(back));
    }
    // Until the last one: each gave back its place.
    for _ in 0..window.min(count as usize) {
        places.recv().unwrap();
    }
}

/// What was acknowledged, of all rounds.
#[derive(Default)]
struct Acknowledged {
    /// The newest CSeq of each binding.
    bindings: BTreeMap<String, u32>,
    messages: Vec<(u32, u32)>,
    /// The newest number of each round's document.
    documents: BTreeMap<u32, u32>,
}

impl Acknowledged {
    /// Takes one line of the writer's; `false` if it is something else.
    fn take(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["binding", name, n] => {
                let newest = self.bindings.entry(name.to_owned()).or_default();
                *newest = (*newest).max(n.parse().unwrap());
            }
            ["message", round, n] => self.messages.push((round.parse().unwrap(), n.parse().unwrap())),
            ["document", round, n] => drop(self.documents.insert(round.parse().unwrap(), n.parse().unwrap())),
            _ => return false,
        }
        true
    }

    fn check(&self, store: &Store) {
        let (sender, rows) = mpsc::channel();
        let each = move |row: BindingRow<'_>| sender.send((row.aor.to_owned(), row.cseq)).unwrap();
        store.bindings().load(Box::new(each), Box::new(|result| assert!(result.is_ok())));
        let stored: BTreeMap<String, u32> = rows.into_iter().collect();
        for (name, cseq) in &self.bindings {
            let found = stored.get(&format!("user{name}@example.com"));
            assert!(found.is_some_and(|found| found >= cseq), "binding {name}: {found:?}, {cseq} was acknowledged");
        }
        let mut queues = BTreeMap::<Aor, Vec<Vec<u8>>>::new();
        for (round, n) in &self.messages {
            let aor = addressee(*round, *n);
            let queue = queues.entry(aor.clone()).or_insert_with(|| {
                let (answer, pending) = mpsc::channel();
                store.messages().pending(&aor, MessageId(0), 10_000, Box::new(move |r| drop(answer.send(r))));
                pending.recv().unwrap().unwrap().into_iter().map(|(_, m)| m.body).collect()
            });
            assert!(queue.contains(&n.to_le_bytes().to_vec()), "message {round} {n}");
        }
        for (round, n) in &self.documents {
            let (answer, found) = mpsc::channel();
            store.documents().get("crash", &format!("counter{round}"), Box::new(move |r| drop(answer.send(r))));
            let body = found.recv().unwrap().unwrap().expect("the document was acknowledged").body;
            assert!(u32::from_le_bytes(body.try_into().unwrap()) >= *n, "document {round}");
        }
    }
}

fn addressee(round: u32, n: u32) -> Aor {
    format!("user{round}-{}@example.com", n / 500).parse().unwrap()
}

fn row() -> BindingRow<'static> {
    BindingRow {
        aor: "",
        key: "sip:phone@192.0.2.1",
        contact: "sip:phone@192.0.2.1",
        params: "",
        path: "",
        instance: "",
        call_id: "crash",
        user_agent: "",
        node: "n1",
        flow: None,
        expires_at: 4_000_000_000,
        cseq: 0,
        reg_id: 0,
        q: 1000,
    }
}
