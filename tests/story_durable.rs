//! Durability as the kernel sees it: strace writes down when a store's file is written and synced, and when the answer leaves.
//!
//! The page cache survives kill -9, so only the order of these calls tells what a power cut would leave.

mod harness;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use harness::{DOMAIN, Server, Setup, Sipp, eventually, header, sipp::Outcome};

/// What one system call did, once it was done; a send counts from its start.
#[derive(Debug)]
enum Call {
    Written { file: String, data: String, at: f64 },
    Synced { file: String, at: f64 },
    Sent { data: String },
}

/// A server that runs under strace; its process is the server's own.
fn traced(users: &[&str]) -> Server {
    let mut setup = Setup::with_users(users);
    let strace =
        "strace -D -f --seccomp-bpf -ttt -y -s 9000 -o strace -e trace=pwrite64,fdatasync,fsync,sendmmsg,sendto";
    setup.under = strace.split(' ').map(str::to_owned).collect();
    setup.start()
}

fn calls(server: &Server) -> Vec<Call> {
    let text = String::from_utf8_lossy(&std::fs::read(server.path().join("strace")).unwrap_or_default()).into_owned();
    let mut unfinished: HashMap<&str, &str> = HashMap::new();
    let mut sending: HashMap<&str, usize> = HashMap::new();
    let mut calls = Vec::new();
    // The last line may be half there.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        // PID TIME NAME(ARGUMENTS) = RESULT, or in two lines when another thread came between.
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((at, rest)) = rest.trim_start().split_once(' ') else { continue };
        let at: f64 = at.parse().unwrap();
        if rest.starts_with("send") {
            sending.insert(thread, calls.len());
            calls.push(Call::Sent { data: rest.to_owned() });
        } else if rest.starts_with("<... send") {
            // Of sendmmsg the messages stand in the second line.
            if let Some(Call::Sent { data }) = sending.remove(thread).map(|place| &mut calls[place]) {
                data.push_str(rest);
            }
        } else if rest.ends_with("<unfinished ...>") {
            unfinished.insert(thread, rest);
        } else {
            let begun = if rest.starts_with("<...") { unfinished.remove(thread) } else { Some(rest) };
            let Some(begun) = begun else { continue };
            let Some(file) = begun.split_once('<').and_then(|(_, r)| r.split_once('>')) else { continue };
            let file = file.0.rsplit('/').next().unwrap().to_owned();
            match begun.split('(').next().unwrap() {
                "pwrite64" => calls.push(Call::Written { file, data: begun.to_owned(), at }),
                "fdatasync" | "fsync" if rest.ends_with("= 0") => calls.push(Call::Synced { file, at }),
                _ => {}
            }
        }
    }
    calls
}

/// The places at which the first answer of each call with this status leaves, by Call-ID.
fn answers<'a>(calls: &[Call], status: &str, call_ids: &'a HashSet<String>) -> HashMap<&'a str, usize> {
    let mut found = HashMap::new();
    for (place, call) in calls.iter().enumerate() {
        let Call::Sent { data } = call else { continue };
        // One sendmmsg may hold several messages.
        for message in data.split("iov_base=\"").filter(|m| m.starts_with(&format!("SIP/2.0 {status}"))) {
            if let Some(id) = call_ids.iter().find(|id| message.contains(&format!("Call-ID: {id}\\r\\n"))) {
                found.entry(id.as_str()).or_insert(place);
            }
        }
    }
    found
}

fn call_ids(outcome: &Outcome) -> HashSet<String> {
    outcome.sent().iter().map(|m| header(m, "Call-ID").unwrap().to_owned()).collect()
}

#[test]
fn message_is_on_disk_before_its_202() {
    let server = traced(&["alice", "bob"]);
    let kept = Sipp::new(&server, "message", server.ports.next()).set("URI", format!("sip:bob@{DOMAIN}"));
    let kept = kept.set("TEXT", "kept").set("CODE", 202).users(&["alice"]).calls(10).rate(5).succeed();
    let ids = call_ids(&kept);
    assert_eq!(ids.len(), 10);
    eventually("strace has written down every answer", Duration::from_secs(20), || {
        answers(&calls(&server), "202", &ids).len() == 10
    });
    let calls = calls(&server);
    for (id, answered) in answers(&calls, "202", &ids) {
        // The message's own bytes hold its Call-ID.
        let is_it =
            |c: &Call| matches!(c, Call::Written { file, data, .. } if file == "store.db-wal" && data.contains(id));
        let written = calls[..answered].iter().position(is_it);
        let written = written.unwrap_or_else(|| panic!("{id}: not written before its 202"));
        let synced = |c: &Call| matches!(c, Call::Synced { file, .. } if file == "store.db-wal");
        assert!(calls[written..answered].iter().any(synced), "{id}: answered before it was synced");
    }
}

#[test]
fn binding_is_written_before_its_200_and_synced_while_the_load_goes_on() {
    let users: Vec<String> = (0..100).map(|n| format!("user{n:03}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let server = traced(&users);
    let register = Sipp::new(&server, "register", server.ports.next()).set("CONTACT", "127.0.0.1:9").set("PARAMS", "");
    // Five seconds and more.
    let registered = register.set("EXPIRES", 600).users(&users).rate(20).succeed();
    let ids = call_ids(&registered);
    let mut seen = Vec::new();
    let unsynced = |calls: &[Call]| {
        let last = |which: fn(&Call) -> bool| calls.iter().rposition(which);
        let written = last(|c| matches!(c, Call::Written { file, .. } if file == "bindings.db-wal"));
        written > last(|c| matches!(c, Call::Synced { file, .. } if file == "bindings.db-wal"))
    };
    // Nobody stops the server or writes to it any more: it syncs the last binding by itself.
    eventually("everything is answered, written and synced", Duration::from_secs(30), || {
        seen = calls(&server);
        answers(&seen, "200", &ids).len() == users.len() && !unsynced(&seen)
    });
    let (mut syncs, mut waiting, mut longest) = (0, None, 0f64);
    for call in &seen {
        match call {
            Call::Written { file, at, .. } if file == "bindings.db-wal" => drop(waiting.get_or_insert(*at)),
            Call::Synced { file, at } if file == "bindings.db-wal" => {
                syncs += 1;
                longest = longest.max(waiting.take().map_or(0.0, |since| at - since));
            }
            _ => {}
        }
    }
    println!("{syncs} syncs; the longest time from a write to its sync was {longest:.3} s");
    assert!(syncs >= 3, "synced in between, not at the end alone: {syncs}");
    for (id, answered) in answers(&seen, "200", &ids) {
        let is_it =
            |c: &Call| matches!(c, Call::Written { file, data, .. } if file == "bindings.db-wal" && data.contains(id));
        assert!(seen[..answered].iter().any(is_it), "{id}: answered before it was written");
    }
}
