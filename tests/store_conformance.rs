//! What every store promises, on both engines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;

use isthmus::store::follow;
use isthmus::store::{Engine, OpenError, Store, open_users};
use sip_ims::ports::*;
use sip_ims::{Aor, CallSettings, DigestSecrets, Directory, Role, User};
use sip_proto::{Flow, FlowId, Transport};

#[path = "harness/stores.rs"]
#[macro_use]
mod stores;

use stores::{Subject, channel_done, wait};

on_both_engines! {
    several_processes_may_make_a_new_store_at_once
    bindings_are_there_after_a_restart
    a_random_history_of_bindings_ends_in_its_last_state
    a_binding_that_is_too_large_is_refused_and_the_others_go_on
    a_full_queue_of_bindings_refuses_at_once
    what_is_queued_is_written_when_the_store_closes
    presence_state_is_there_after_a_restart
    users_appear_once_in_the_order_of_their_last_change
    a_user_change_is_made_whole_or_not_at_all
    a_running_server_sees_what_another_process_provisions
    messages_wait_in_order_until_removed
    a_message_sent_again_waits_once
    a_users_queue_has_a_cap
    expired_messages_are_dropped
    documents_change_only_from_the_expected_version
    documents_are_listed_by_key_in_pages
    charging_records_are_read_by_time_in_order
    text_that_an_engine_cannot_hold_is_refused
    a_full_queue_of_writes_refuses_at_once
}

fn several_processes_may_make_a_new_store_at_once(subject: Subject) {
    std::thread::scope(|scope| {
        for n in 0..6 {
            let config = &subject.config;
            scope.spawn(move || {
                let users = open_users(config).unwrap();
                wait(|done| users.put(vec![user(&format!("user{n}"), None)], done)).unwrap();
            });
        }
    });
    let users = open_users(&subject.config).unwrap();
    assert_eq!(wait(|done| users.changes(0, 100, done)).unwrap().len(), 6);
}

fn bindings_are_there_after_a_restart(subject: Subject) {
    let store = subject.open();
    let row = full_row();
    put(&store, &row);
    put(&store, &BindingRow { key: "other", flow: None, ..row.clone() });
    write(&store, BindingChange::Remove { aor: row.aor, key: "other" });
    put(&store, &BindingRow { aor: "gone@example.com", ..row.clone() });
    write(&store, BindingChange::RemoveAll { aor: "gone@example.com" });
    put(&store, &BindingRow { cseq: 99, expires_at: 5_000_000_000, ..row.clone() });
    drop(store);

    let mut found = Vec::new();
    let rows = load_rows(&subject.open(), |row| format!("{row:?}"));
    found.extend(rows);
    assert_eq!(found, [format!("{:?}", BindingRow { cseq: 99, expires_at: 5_000_000_000, ..row })]);
}

fn a_random_history_of_bindings_ends_in_its_last_state(subject: Subject) {
    use rand::{Rng, SeedableRng};
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut model = BTreeMap::<(String, String), u32>::new();
    let agent = "x".repeat(600);
    // Enough bytes that the log is shortened many times; closed and opened in between.
    for _ in 0..3 {
        let store = subject.open();
        for cseq in 0..12_000u32 {
            let (aor, key) = (
                format!("user{}@example.com", random.random_range(0..800)),
                format!("key{}", random.random_range(0..3)),
            );
            let change = match random.random_range(0..20) {
                0 => {
                    model.remove(&(aor.clone(), key.clone()));
                    BindingChange::Remove { aor: &aor, key: &key }
                }
                1 => {
                    model.retain(|(a, _), _| *a != aor);
                    BindingChange::RemoveAll { aor: &aor }
                }
                _ => {
                    model.insert((aor.clone(), key.clone()), cseq);
                    BindingChange::Put(BindingRow { aor: &aor, key: &key, cseq, user_agent: &agent, ..full_row() })
                }
            };
            if cseq % 400 == 0 {
                write(&store, change);
            } else {
                store.bindings().write(change, None).unwrap();
            }
        }
        drop(store);
        let store = subject.open();
        let found: Vec<_> = load_rows(&store, |row| ((row.aor.to_owned(), row.key.to_owned()), row.cseq));
        assert_eq!(found.len(), model.len());
        assert!(found.into_iter().collect::<BTreeMap<_, _>>() == model, "seed {seed}");
    }
}

fn a_binding_that_is_too_large_is_refused_and_the_others_go_on(subject: Subject) {
    let store = subject.open();
    let path = "x".repeat(MAX_BINDING + 1);
    let refused = store.bindings().write(BindingChange::Put(BindingRow { path: &path, ..full_row() }), None);
    assert!(matches!(refused, Err(StoreError::TooLarge)));
    put(&store, &full_row());
    assert_eq!(load_rows(&store, |_| ()).len(), 1);
}

fn a_full_queue_of_bindings_refuses_at_once(subject: Subject) {
    let store = subject.open();
    put(&store, &full_row());
    // The writer's thread reads for us, and we keep it at that.
    let (entered, wait_entered) = mpsc::channel();
    let (release, wait_release) = mpsc::channel::<()>();
    let (done, loaded) = channel_done();
    let each = move |_: BindingRow<'_>| {
        entered.send(()).unwrap();
        // An error means that the test is over.
        let _ = wait_release.recv();
    };
    store.bindings().load(Box::new(each), done);
    wait_entered.recv().unwrap();

    let agent = "x".repeat(10_000);
    let mut taken = 0;
    let refused = loop {
        let aor = format!("user{taken}@example.com");
        match store
            .bindings()
            .write(BindingChange::Put(BindingRow { aor: &aor, user_agent: &agent, ..full_row() }), None)
        {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 10_000, "the queue has no end");
    };
    assert!(matches!(refused, StoreError::Full));
    assert_eq!(store.bindings().queued(), taken);
    release.send(()).unwrap();
    loaded.recv().unwrap().unwrap();
    store.close();
    assert_eq!(load_rows(&subject.open(), |_| ()).len(), taken + 1);
}

fn what_is_queued_is_written_when_the_store_closes(subject: Subject) {
    let store = subject.open();
    let (done, stored) = channel_done();
    store.messages().put(message("bob@example.com", 1), done);
    store.bindings().write(BindingChange::Put(full_row()), None).unwrap();
    store.close();
    stored.recv().unwrap().unwrap();
    assert!(matches!(store.bindings().write(BindingChange::Put(full_row()), None), Err(StoreError::Closed)));
    assert!(matches!(wait(|done| store.messages().put(message("bob@example.com", 2), done)), Err(StoreError::Closed)));
    assert_eq!(load_rows(&subject.open(), |_| ()).len(), 1);
}

fn presence_state_is_there_after_a_restart(subject: Subject) {
    let row = |key, body| StateRow { owner: "alice@h", key, node: "a", expires_at: 5_000_000_000, body };
    let store = subject.open();
    let long = vec![0xff; MAX_STATE - 100];
    for change in [
        StateChange::Put(row("p1", b"first")),
        StateChange::Put(row("p2", &long)),
        StateChange::Put(row("s1", b"gone")),
        StateChange::Put(row("s2", b"kept")),
        StateChange::Put(row("p1", b"\0second")),
        StateChange::Remove { owner: "alice@h", key: "s1" },
        StateChange::Forget { owner: "alice@h", key: "s2", node: "b" },
    ] {
        // SQLite's file belongs to one node, which may forget whatever is there.
        if matches!(change, StateChange::Forget { .. }) && matches!(subject.config.engine, Engine::Sqlite(_)) {
            continue;
        }
        wait(|done| store.presence().write(change, Some(done)).unwrap()).unwrap();
    }
    let too_long = vec![0; MAX_STATE];
    assert!(matches!(store.presence().write(StateChange::Put(row("p3", &too_long)), None), Err(StoreError::TooLarge)));
    // Bindings are kept apart.
    assert_eq!(load_rows(&store, |r| r.aor.to_owned()), [] as [String; 0]);
    drop(store);
    let store = subject.open();
    let (found, rows) = mpsc::channel();
    let each = move |row: StateRow<'_>| found.send((row.key.to_owned(), row.body.to_vec())).unwrap();
    assert_eq!(wait(|done| store.presence().load(Box::new(each), done)).unwrap(), 3);
    let rows: BTreeMap<String, Vec<u8>> = rows.iter().collect();
    let expected = [("p1", b"\0second".to_vec()), ("p2", long), ("s2", b"kept".to_vec())];
    assert_eq!(rows, expected.map(|(key, body)| (key.to_owned(), body)).into());
}

fn users_appear_once_in_the_order_of_their_last_change(subject: Subject) {
    let store = subject.open();
    let users = store.users();
    let (alice, bob) = (user("alice", Some("+819012345678")), user("bob", None));
    wait(|done| users.put(vec![alice.clone(), bob.clone()], done)).unwrap();
    let first = wait(|done| users.changes(0, 100, done)).unwrap();
    assert_eq!(first.iter().map(|c| c.user.clone().unwrap()).collect::<Vec<_>>(), [alice.clone(), bob.clone()]);

    let mut busy = alice.clone();
    busy.call_settings.forward_busy = Some("sip:bob@localhost".into());
    wait(|done| users.put(vec![busy.clone(), bob.clone()], done)).unwrap();
    assert!(wait(|done| users.remove("bob", done)).unwrap());
    assert!(!wait(|done| users.remove("bob", done)).unwrap());
    let after = first.last().unwrap().sequence;
    let second = wait(|done| users.changes(after, 100, done)).unwrap();
    let seen: Vec<_> = second.iter().map(|c| (&*c.id, c.user.clone())).collect();
    assert_eq!(seen, [("alice", Some(busy)), ("bob", None)]);
    assert_eq!(wait(|done| users.changes(0, 1, done)).unwrap().len(), 1);

    // The same again is no change.
    let last = second.last().unwrap().sequence;
    let again = second[0].user.clone().unwrap();
    wait(|done| users.put(vec![again], done)).unwrap();
    assert!(wait(|done| users.changes(last, 100, done)).unwrap().is_empty());
}

fn a_user_change_is_made_whole_or_not_at_all(subject: Subject) {
    let store = subject.open();
    let users = store.users();
    let number = Some("+819012345678");
    wait(|done| users.put(vec![user("alice", number), user("bob", None)], done)).unwrap();
    let thief = wait(|done| users.put(vec![user("carol", None), user("bob", number)], done));
    assert!(matches!(thief, Err(StoreError::Conflict)));
    assert_eq!(wait(|done| users.changes(0, 100, done)).unwrap().len(), 2);
    // A number may move within one call.
    wait(|done| users.put(vec![user("bob", number), user("alice", None)], done)).unwrap();
    // And what follows a refusal in the same transaction stands.
    let (done, refused) = channel_done();
    users.put(vec![user("alice", number)], done);
    wait(|done| users.put(vec![user("dave", None)], done)).unwrap();
    assert!(matches!(refused.recv().unwrap(), Err(StoreError::Conflict)));
    assert_eq!(wait(|done| users.changes(0, 100, done)).unwrap().len(), 3);
}

fn a_running_server_sees_what_another_process_provisions(subject: Subject) {
    let running = subject.open();
    let directory = Arc::new(Directory::new());
    let mut follower = follow::users(running.users(), directory.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(follower.catch_up(|_| ())).unwrap(), 0);

    let tool = open_users(&subject.config).unwrap();
    let many: Vec<User> = (0..2500).map(|n| user(&format!("user{n}"), None)).collect();
    wait(|done| tool.put(many, done)).unwrap();
    assert_eq!(runtime.block_on(follower.catch_up(|_| ())).unwrap(), 2500);
    assert_eq!(directory.len(), 2500);
    assert!(wait(|done| tool.remove("user7", done)).unwrap());
    let mut heard = Vec::new();
    runtime.block_on(follower.catch_up(|change| heard.push(change.id.clone()))).unwrap();
    assert_eq!(heard, ["user7".into()]);
    assert!(directory.by_id("user7").is_none() && directory.by_id("user8").is_some());
}

fn messages_wait_in_order_until_removed(subject: Subject) {
    let store = subject.open();
    let queue = store.messages();
    let bob: Aor = "bob@example.com".parse().unwrap();
    let ids: Vec<MessageId> =
        (0..5).map(|n| wait(|done| queue.put(message("bob@example.com", n), done)).unwrap()).collect();
    wait(|done| queue.put(message("carol@example.com", 9), done)).unwrap();
    assert!(ids.is_sorted() && ids[0] > MessageId(0));
    let expected: Vec<_> = (0..5).map(|n| (ids[n as usize], message("bob@example.com", n))).collect();
    assert_eq!(wait(|done| queue.pending(&bob, MessageId(0), 100, done)).unwrap(), expected);
    assert_eq!(wait(|done| queue.pending(&bob, ids[1], 2, done)).unwrap(), expected[2..4]);

    assert!(wait(|done| queue.remove(ids[0], done)).unwrap());
    assert!(!wait(|done| queue.remove(ids[0], done)).unwrap());
    drop((queue, store));
    let store = subject.open();
    assert_eq!(wait(|done| store.messages().pending(&bob, MessageId(0), 100, done)).unwrap(), expected[1..]);
    let waiting = wait(|done| store.messages().addressees("", 100, done)).unwrap();
    assert_eq!(waiting.iter().map(Aor::as_str).collect::<Vec<_>>(), ["bob@example.com", "carol@example.com"]);
    // A number is not given twice.
    wait(|done| store.messages().remove(ids[4], done)).unwrap();
    assert!(wait(|done| store.messages().put(message("bob@example.com", 6), done)).unwrap() > ids[4]);
    let large = QueuedMessage { body: vec![0; MAX_QUEUED_MESSAGE + 1], ..message("bob@example.com", 7) };
    assert!(matches!(wait(|done| store.messages().put(large, done)), Err(StoreError::TooLarge)));
}

fn a_message_sent_again_waits_once(subject: Subject) {
    let store = subject.open();
    let first = wait(|done| store.messages().put(message("bob@example.com", 1), done)).unwrap();
    let again = wait(|done| store.messages().put(message("bob@example.com", 1), done)).unwrap();
    let other = wait(|done| store.messages().put(message("carol@example.com", 1), done)).unwrap();
    assert!(first == again && other != first);
}

fn a_users_queue_has_a_cap(mut subject: Subject) {
    subject.config.messages_per_user = 3;
    let store = subject.open();
    for n in 0..3 {
        wait(|done| store.messages().put(message("bob@example.com", n), done)).unwrap();
    }
    assert!(matches!(
        wait(|done| store.messages().put(message("bob@example.com", 3), done)),
        Err(StoreError::OverQuota)
    ));
    wait(|done| store.messages().put(message("carol@example.com", 0), done)).unwrap();
}

fn expired_messages_are_dropped(subject: Subject) {
    let store = subject.open();
    for n in 0..3u8 {
        let message = QueuedMessage { expires_at: 1000 + i64::from(n), ..message("bob@example.com", n) };
        wait(|done| store.messages().put(message, done)).unwrap();
    }
    let overdue = |now, after| wait(|done| store.messages().overdue(now, after, 9, done)).unwrap();
    let found: Vec<_> = overdue(1002, MessageId(0)).into_iter().map(|(id, m)| (id, m.key[0])).collect();
    assert_eq!(found.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [0, 1], "all of them, before they are dropped");
    assert_eq!(overdue(1002, found[0].0).len(), 1);
    assert_eq!(wait(|done| store.messages().expire(1001, done)).unwrap(), 1);
    let left =
        wait(|done| store.messages().pending(&"bob@example.com".parse().unwrap(), MessageId(0), 9, done)).unwrap();
    assert_eq!(left.len(), 2);
}

fn documents_change_only_from_the_expected_version(subject: Subject) {
    let store = subject.open();
    let documents = store.documents();
    let put = |expect, body: &[u8]| wait(|done| documents.put("c", "k", expect, body.to_vec(), done));
    let conflicts = |result| assert!(matches!(result, Err(StoreError::Conflict)));

    conflicts(put(Expect::Version(Version(1)), b"x"));
    let one = put(Expect::Absent, b"one").unwrap();
    conflicts(put(Expect::Absent, b"x"));
    let two = put(Expect::Version(one), b"two\0\xff").unwrap();
    conflicts(put(Expect::Version(one), b"x"));
    let stored = wait(|done| documents.get("c", "k", done)).unwrap().unwrap();
    assert_eq!((stored.version, stored.body.as_slice()), (two, b"two\0\xff".as_slice()));
    let three = put(Expect::Anything, b"three").unwrap();

    let delete = |expect| wait(|done| documents.delete("c", "k", expect, done));
    assert!(matches!(delete(Expect::Version(two)), Err(StoreError::Conflict)));
    assert!(matches!(delete(Expect::Absent), Err(StoreError::Conflict)));
    delete(Expect::Version(three)).unwrap();
    delete(Expect::Anything).unwrap();
    assert_eq!(wait(|done| documents.get("c", "k", done)).unwrap(), None);
    let four = put(Expect::Absent, b"four").unwrap();
    assert!(![one, two, three].contains(&four), "a version came back");
    let large = wait(|done| documents.put("c", "k", Expect::Anything, vec![0; MAX_DOCUMENT + 1], done));
    assert!(matches!(large, Err(StoreError::TooLarge)));
}

fn documents_are_listed_by_key_in_pages(subject: Subject) {
    let store = subject.open();
    let documents = store.documents();
    for key in ["b", "a", "Z", "é"] {
        wait(|done| documents.put("c", key, Expect::Anything, key.into(), done)).unwrap();
    }
    wait(|done| documents.put("d", "other", Expect::Anything, vec![], done)).unwrap();
    let list = |after, limit| wait(|done| documents.list("c", after, limit, done)).unwrap();
    let count = |collection| wait(|done| documents.count(collection, done)).unwrap();
    assert_eq!((count("d"), count("none")), (1, 0));
    let keys = |list: Vec<Document>| list.into_iter().map(|d| d.key).collect::<Vec<_>>();
    assert_eq!(keys(list("", 9)), ["Z", "a", "b", "é"]);
    assert_eq!(keys(list("Z", 2)), ["a", "b"]);
    let versions = wait(|done| documents.versions("c", "a", 9, done)).unwrap();
    let expected: Vec<_> = list("a", 9).into_iter().map(|d| (d.key, d.version)).collect();
    assert_eq!(versions, expected);
}

fn charging_records_are_read_by_time_in_order(subject: Subject) {
    let store = subject.open();
    let charging = store.charging();
    for at in [100, 105, 101, 200] {
        let (done, stored) = channel_done();
        charging.append(ChargingRecord { at, line: format!("{{\"at\":{at}}}") }, Some(done)).unwrap();
        stored.recv().unwrap().unwrap();
    }
    let read = |after, limit| wait(|done| charging.read(100, 200, after, limit, done)).unwrap();
    let times = |records: &[(u64, ChargingRecord)]| records.iter().map(|(_, r)| r.at).collect::<Vec<_>>();
    let first = read(0, 2);
    assert_eq!(times(&first), [100, 105]);
    assert_eq!(times(&read(first[1].0, 9)), [101]);
    let large = ChargingRecord { at: 1, line: "x".repeat(MAX_CHARGING_RECORD + 1) };
    assert!(matches!(charging.append(large, None), Err(StoreError::TooLarge)));
}

fn text_that_an_engine_cannot_hold_is_refused(subject: Subject) {
    let store = subject.open();
    let row = BindingRow { user_agent: "a\0b", ..full_row() };
    assert!(matches!(store.bindings().write(BindingChange::Put(row), None), Err(StoreError::Text)));
    let document = wait(|done| store.documents().put("c", "k\0", Expect::Anything, vec![], done));
    assert!(matches!(document, Err(StoreError::Text)));
    let record = ChargingRecord { at: 1, line: "\0".into() };
    assert!(matches!(store.charging().append(record, None), Err(StoreError::Text)));
}

fn a_full_queue_of_writes_refuses_at_once(subject: Subject) {
    let store = subject.open();
    // A completion that does what it must not, holds up the writer.
    let (entered, wait_entered) = mpsc::channel();
    let (release, wait_release) = mpsc::channel::<()>();
    let blocker: Done<bool> = Box::new(move |_| {
        entered.send(()).unwrap();
        // An error means that the test is over.
        let _ = wait_release.recv();
    });
    store.messages().remove(MessageId(1), blocker);
    wait_entered.recv().unwrap();
    let (answers, refused) = mpsc::channel();
    let mut taken = 0;
    while refused.try_recv().is_err() {
        let answers = answers.clone();
        let done: Done<bool> = Box::new(move |result| {
            if let Err(StoreError::Full) = result {
                answers.send(()).unwrap();
            }
        });
        store.messages().remove(MessageId(1), done);
        taken += 1;
        assert!(taken < 100_000, "the queue has no end");
    }
    assert!(store.depth().sql >= taken - 1);
    release.send(()).unwrap();
    wait(|done| store.messages().pending(&"bob@example.com".parse().unwrap(), MessageId(0), 1, done)).unwrap();
}

/// Two servers on one PostgreSQL.
fn cluster() -> (Subject, [Store; 2]) {
    let mut subject = Subject::postgres();
    let stores = ["a", "b"].map(|node| {
        subject.config.node = node.into();
        subject.open()
    });
    (subject, stores)
}

/// What other nodes have changed: addresses-of-record with the keys and nodes of their rows.
fn changed(store: &Store, also: &[&str]) -> Vec<(String, Vec<String>)> {
    let (tell, told) = mpsc::channel();
    let each = move |aor: &str, rows: &[BindingRow<'_>]| {
        let mut rows: Vec<String> = rows.iter().map(|r| format!("{} {}", r.key, r.node)).collect();
        rows.sort();
        tell.send((aor.to_owned(), rows)).unwrap();
    };
    let also = also.iter().map(|a| (*a).into()).collect();
    wait(|done| store.bindings().changed_elsewhere(also, Box::new(each), done)).unwrap();
    told.iter().collect()
}

#[test]
fn a_node_hears_of_what_the_others_change_and_not_of_its_own() {
    let (subject, [a, b]) = cluster();
    let row = |aor, key, node| BindingRow { aor, key, node, ..full_row() };
    let heard =
        |aor: &str, rows: &[&str]| vec![(aor.to_owned(), rows.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>())];
    put(&a, &row("x@h", "1", "a"));
    assert_eq!(changed(&a, &[]), []);
    assert_eq!(changed(&b, &[]), heard("x@h", &["1 a"]));
    assert_eq!(changed(&b, &[]), [], "once");
    assert_eq!(changed(&b, &["x@h"]), heard("x@h", &["1 a"]), "unless asked for");
    // A change that nobody waits for is committed before the store is read.
    b.bindings().write(BindingChange::Put(row("x@h", "2", "b")), None).unwrap();
    assert_eq!(changed(&b, &["x@h"]), heard("x@h", &["1 a", "2 b"]));
    assert_eq!(changed(&a, &[]), heard("x@h", &["1 a", "2 b"]));
    write(&b, BindingChange::Remove { aor: "x@h", key: "1" });
    assert_eq!(changed(&a, &[]), heard("x@h", &["2 b"]));
    write(&b, BindingChange::RemoveAll { aor: "x@h" });
    assert_eq!(changed(&a, &[]), heard("x@h", &[]));
    // A node that starts now loads what is there and hears only of what comes.
    put(&a, &row("y@h", "1", "a"));
    let c = subject.open();
    assert_eq!(load_rows(&c, |r| r.aor.to_owned()), ["y@h"]);
    assert_eq!(changed(&c, &[]), []);
    put(&b, &row("z@h", "1", "b"));
    assert_eq!(changed(&c, &[]), heard("z@h", &["1 b"]));
}

#[test]
fn many_changes_are_all_heard() {
    let (_subject, [a, b]) = cluster();
    let names: Vec<String> = (0..3000).map(|n| format!("user{n}@h")).collect();
    for (n, aor) in names.iter().enumerate() {
        let row = BindingRow { aor, ..full_row() };
        // Many groups: each of these waits for its own.
        if n % 20 == 0 { put(&a, &row) } else { a.bindings().write(BindingChange::Put(row), None).unwrap() }
    }
    put(&a, &BindingRow { aor: "last@h", ..full_row() });
    assert_eq!(changed(&b, &[]).len(), names.len() + 1);
}

#[test]
fn a_node_forgets_only_what_it_wrote_last() {
    let (_subject, [a, b]) = cluster();
    let row = |node| BindingRow { aor: "x@h", key: "1", node, ..full_row() };
    let forget = BindingChange::Forget { aor: "x@h", key: "1", node: "a" };
    put(&a, &row("a"));
    put(&b, &row("b"));
    write(&a, forget.clone());
    assert_eq!(changed(&a, &["x@h"])[0].1, ["1 b"]);
    put(&a, &row("a"));
    write(&a, forget);
    assert_eq!(changed(&b, &["x@h"])[0].1, [] as [&str; 0]);
}

#[test]
fn one_node_at_a_time_delivers_and_a_dead_ones_right_runs_out() {
    let (_subject, [a, b]) = cluster();
    let bob: Aor = "bob@h".parse().unwrap();
    let claim = |store: &Store, now, until| wait(|done| store.messages().claim(&bob, now, until, done)).unwrap();
    assert!(claim(&a, 100, 140));
    assert!(!claim(&b, 100, 140) && !claim(&b, 139, 179));
    assert!(claim(&a, 120, 160), "renewed by who has it");
    assert!(!claim(&b, 140, 180) && claim(&b, 160, 200), "free when it has run out");
    assert!(!claim(&a, 161, 201));
    let release = |store: &Store| {
        store.messages().release(&bob);
        // Orders are carried out one after the other.
        wait(|done| store.messages().expire(0, done)).unwrap();
    };
    release(&b);
    assert!(claim(&a, 162, 202), "free when given back");
    release(&b);
    assert!(!claim(&b, 163, 203), "nobody gives back another's");
}

#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let subject = Subject::sqlite();
    let _running = subject.open();
    assert!(matches!(Store::open(&subject.config), Err(OpenError::Database(_))));
}

#[test]
fn secrets_on_disk_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let subject = Subject::sqlite();
    let store = subject.open();
    wait(|done| store.users().put(vec![user("alice", None)], done)).unwrap();
    let isthmus::store::Engine::Sqlite(folder) = &subject.config.engine else { panic!("SQLite was asked for") };
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{file:?}");
    }
}

#[test]
fn a_folder_of_a_newer_version_is_refused() {
    let subject = Subject::sqlite();
    drop(subject.open());
    let isthmus::store::Engine::Sqlite(folder) = &subject.config.engine else { panic!("SQLite was asked for") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use sqlx::ConnectOptions;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.join("store.db"));
        let mut connection = options.connect().await.unwrap();
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999, '', 1, x'', 0)";
        sqlx::raw_sql(newer).execute(&mut connection).await.unwrap();
    });
    assert!(matches!(Store::open(&subject.config), Err(OpenError::Migration(_))));
}

#[test]
fn a_killed_postgres_is_found_again_and_nothing_acknowledged_is_lost() {
    let mut subject = Subject::postgres();
    let store = subject.open();
    let bob: Aor = "bob@example.com".parse().unwrap();
    wait(|done| store.messages().put(message("bob@example.com", 1), done)).unwrap();
    put(&store, &full_row());
    let server = subject.postgres.as_mut().unwrap();
    server.kill();
    // The killed server's workers end by themselves, each in its own time: one may still take a last order.
    let taken = std::iter::repeat_with(|| wait(|done| store.messages().put(message("bob@example.com", 2), done)))
        .take_while(|put| !matches!(put, Err(StoreError::Engine(_))));
    let taken = taken.inspect(|put| assert!(put.is_ok(), "{put:?}")).count().min(1);
    loop {
        let (done, refused) = channel_done();
        let late = BindingRow { aor: "late@example.com", ..full_row() };
        store.bindings().write(BindingChange::Put(late), Some(done)).unwrap();
        match refused.recv().unwrap() {
            Ok(()) => {}
            Err(StoreError::Engine(_)) => break,
            Err(other) => panic!("{other}"),
        }
    }
    server.restart();
    wait(|done| store.messages().put(message("bob@example.com", 3), done)).unwrap();
    let waiting = wait(|done| store.messages().pending(&bob, MessageId(0), 9, done)).unwrap();
    let expected: &[u8] = if taken == 1 { &[1, 2, 3] } else { &[1, 3] };
    assert_eq!(waiting.into_iter().map(|(_, m)| m.body[0]).collect::<Vec<_>>(), expected);
    // The refused group was kept and goes out with the next.
    put(&store, &BindingRow { aor: "next@example.com", ..full_row() });
    let found = load_rows(&store, |row| row.aor.to_owned());
    assert!(
        found.contains(&"late@example.com".to_owned()) && found.contains(&"next@example.com".to_owned()),
        "{found:?}"
    );
}

fn write(store: &Store, change: BindingChange<'_>) {
    let (done, result) = channel_done();
    store.bindings().write(change, Some(done)).unwrap();
    result.recv().unwrap().unwrap();
}

fn put(store: &Store, row: &BindingRow<'_>) {
    write(store, BindingChange::Put(row.clone()));
}

fn load_rows<T: Send + 'static>(store: &Store, map: impl Fn(BindingRow<'_>) -> T + Send + 'static) -> Vec<T> {
    let (sender, rows) = mpsc::channel();
    let count = wait(|done| store.bindings().load(Box::new(move |row| sender.send(map(row)).unwrap()), done)).unwrap();
    let rows: Vec<T> = rows.into_iter().collect();
    assert_eq!(rows.len() as u64, count);
    rows
}

fn full_row() -> BindingRow<'static> {
    BindingRow {
        aor: "alice@example.com",
        key: "<urn:uuid:00000000-0000-1000-8000-000a95a0e128>;1",
        contact: "sip:alice@192.0.2.1:5060;transport=tls",
        params: "audio;methods=\"INVITE,ACK\"",
        path: "<sip:edge.example.com;lr>",
        instance: "<urn:uuid:00000000-0000-1000-8000-000a95a0e128>",
        call_id: "a84b4c76e66710@pc33",
        user_agent: "Phöne \"1\" '; DROP TABLE binding; --",
        node: "n1",
        flow: Some(Flow {
            transport: Transport::Wss,
            id: FlowId(u64::MAX),
            local: "[2001:db8::1]:443".parse().unwrap(),
            remote: "192.0.2.1:50000".parse().unwrap(),
        }),
        expires_at: 4_000_000_000,
        cseq: u32::MAX,
        reg_id: 1,
        q: 500,
    }
}

fn message(aor: &str, n: u8) -> QueuedMessage {
    QueuedMessage { aor: aor.parse().unwrap(), key: [n; 16], body: vec![n, 0, 255], expires_at: 4_000_000_000 }
}

fn user(id: &str, number: Option<&str>) -> User {
    User {
        id: id.into(),
        aor: Aor::from_parts(id.as_bytes(), b"localhost").unwrap(),
        secrets: DigestSecrets::of_password(id, "localhost", b"secret"),
        msisdn: number.map(|n| n.parse().unwrap()),
        email: None,
        jid: None,
        roles: vec![Role::Customer],
        call_settings: CallSettings::default(),
        history_days: 0,
    }
}
