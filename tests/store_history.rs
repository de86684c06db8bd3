//! What the store of histories promises, on both engines.

use isthmus::store::open_users;
use sip_ims::history::{HistoryEntry, HistoryId, HistoryPart};
use sip_ims::ports::StoreError;
use sip_ims::{Aor, CallSettings, DigestSecrets, User};

#[path = "harness/stores.rs"]
#[macro_use]
mod stores;

use stores::{Subject, wait};

on_both_engines! {
    a_history_is_read_in_pages_from_its_end
    a_message_is_once_in_a_history_which_has_a_cap
    parts_of_a_history_are_forgotten
    a_history_goes_with_its_owner
}

fn a_history_is_read_in_pages_from_its_end(subject: Subject) {
    let history = subject.open().history();
    // Two of the same moment: their order is that of their coming.
    for (n, at) in [(1, 10), (2, 30), (3, 20), (4, 20), (5, 40)] {
        wait(|done| history.put(vec![said("alice", n, at), said("bob", n, at)], None, done)).unwrap();
    }
    let (message_id, speaker) = ("m".into(), "sip:carol@x".into());
    let full = HistoryEntry { outgoing: true, message_id, speaker, body: vec![0, 255], ..said("alice", 6, 50) };
    wait(|done| history.put(vec![full.clone()], None, done)).unwrap();
    let all = HistoryPart::of(aor("alice"));
    let page =
        |part: &HistoryPart, before, limit| wait(|done| history.page(part.clone(), before, limit, done)).unwrap();
    let first = page(&all, None, 3);
    assert_eq!(first[0].1, full);
    assert_eq!(numbers(&first), [6, 5, 2]);
    let behind = |last: &(HistoryId, HistoryEntry)| Some((last.1.at, last.0));
    let second = page(&all, behind(&first[2]), 2);
    assert_eq!(numbers(&second), [4, 3]);
    assert_eq!(numbers(&page(&all, behind(&second[1]), 2)), [1]);
    let part = HistoryPart { since: 20, until: 40, ..all.clone() };
    assert_eq!(numbers(&page(&part, None, 9)), [2, 4, 3]);
    assert_eq!(numbers(&page(&part, behind(&first[2]), 9)), [4, 3]);
    let with = |peer: &str| HistoryPart { peer: Some(peer.into()), ..all.clone() };
    assert_eq!(numbers(&page(&with("sip:peer2@x"), None, 9)), [2]);
    assert_eq!(page(&with("sip:nobody@x"), None, 9), []);
    let one = HistoryPart { id: Some(second[0].0), ..all };
    assert_eq!(page(&one, None, 9), [second[0].clone()]);
    assert_eq!(page(&HistoryPart { owner: aor("bob"), ..one }, None, 9), [], "another's");
}

fn a_message_is_once_in_a_history_which_has_a_cap(subject: Subject) {
    let history = subject.open().history();
    let put = |entries, cap| wait(|done| history.put(entries, cap, done));
    put(vec![said("alice", 1, 10)], None).unwrap();
    put(vec![HistoryEntry { at: 99, ..said("alice", 1, 10) }, said("bob", 1, 10)], None).unwrap();
    let of = |user: &str| wait(|done| history.page(HistoryPart::of(aor(user)), None, 100, done)).unwrap();
    assert_eq!((of("alice")[0].1.at, of("alice").len(), of("bob").len()), (10, 1, 1));
    // What comes late is the oldest all the same.
    for (n, at) in [(2, 20), (3, 5), (4, 40)] {
        put(vec![said("alice", n, at)], None).unwrap();
    }
    put(vec![said("alice", 5, 30)], Some(3)).unwrap();
    assert_eq!((numbers(&of("alice")), of("bob").len()), (vec![4, 5, 2], 1));
    let long = HistoryEntry { body: vec![0; 128 * 1024], ..said("alice", 6, 1) };
    assert!(matches!(put(vec![said("alice", 7, 1), long], None), Err(StoreError::TooLarge)));
    let nul = HistoryEntry { peer: "\0".into(), ..said("alice", 6, 1) };
    assert!(matches!(put(vec![nul], None), Err(StoreError::Text)));
    assert_eq!(of("alice").len(), 3);
}

fn parts_of_a_history_are_forgotten(subject: Subject) {
    let history = subject.open().history();
    let entries = (1..=9).flat_map(|n| [said("alice", n, i64::from(n) * 10), said("bob", n, 10)]).collect();
    wait(|done| history.put(entries, None, done)).unwrap();
    let all = HistoryPart::of(aor("alice"));
    let left = || wait(|done| history.page(all.clone(), None, 100, done)).unwrap();
    let forget = |part: HistoryPart| wait(|done| history.remove(part, done)).unwrap();
    let id = left()[0].0;
    assert_eq!(forget(HistoryPart { id: Some(id), ..HistoryPart::of(aor("bob")) }), 0, "another's");
    assert_eq!(forget(HistoryPart { id: Some(id), ..all.clone() }), 1);
    assert_eq!(forget(HistoryPart { peer: Some("sip:peer2@x".into()), ..all.clone() }), 1);
    assert_eq!(forget(HistoryPart { since: 30, until: 50, ..all.clone() }), 2);
    assert_eq!(numbers(&left()), [8, 7, 6, 5, 1]);
    // Those that end first go first, so many at a time.
    let expire = |now, limit| wait(|done| history.expire(now, limit, done)).unwrap();
    assert_eq!((expire(1_006, 2), expire(1_006, 100), expire(1_006, 100)), (2, 5, 0));
    assert_eq!(numbers(&left()), [8, 7, 6]);
    assert_eq!((forget(all.clone()), forget(all.clone())), (3, 0));
    assert_eq!(wait(|done| history.page(HistoryPart::of(aor("bob")), None, 100, done)).unwrap().len(), 4);
}

fn a_history_goes_with_its_owner(subject: Subject) {
    let history = subject.open().history();
    let users = open_users(&subject.config).unwrap();
    let user = User {
        id: "alice".into(),
        aor: aor("alice"),
        secrets: DigestSecrets::of_password("alice", "example.com", b"x"),
        msisdn: None,
        email: None,
        jid: None,
        roles: Vec::new(),
        call_settings: CallSettings::default(),
        history_days: 1,
    };
    wait(|done| users.put(vec![user], done)).unwrap();
    wait(|done| history.put(vec![said("alice", 1, 10), said("bob", 1, 10)], None, done)).unwrap();
    // By another process than the server, which may not be there.
    assert!(wait(|done| users.remove("alice", done)).unwrap());
    let of = |user: &str| wait(|done| history.page(HistoryPart::of(aor(user)), None, 9, done)).unwrap().len();
    assert_eq!((of("alice"), of("bob")), (0, 1));
}

fn aor(user: &str) -> Aor {
    format!("{user}@example.com").parse().unwrap()
}

/// Ends in the second 1,000 + `n`.
fn said(owner: &str, n: u8, at: i64) -> HistoryEntry {
    HistoryEntry {
        owner: aor(owner),
        peer: format!("sip:peer{n}@x"),
        speaker: String::new(),
        outgoing: false,
        at,
        key: [n; 16],
        media_type: "text/plain".into(),
        message_id: String::new(),
        body: vec![n],
        expires_at: 1_000 + i64::from(n),
    }
}

fn numbers(page: &[(HistoryId, HistoryEntry)]) -> Vec<u8> {
    page.iter().map(|(_, entry)| entry.key[0]).collect()
}
