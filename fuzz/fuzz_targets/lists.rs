//! Whatever is stored as lists is refused or makes lists, no longer than allowed, and none of its members twice, however its
//! references lead; and so does a list in a request's body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_ims::Aor;
use sip_ims::ports::{Document, Version};
use sip_presence::key_of;
use sip_presence::lists::{LISTS, MAX_MEMBERS, Shelf};
use sip_xcap::recipients;

fuzz_target!(|bytes: &[u8]| {
    // Services, and the lists that they name.
    let (services, lists) = match bytes.iter().position(|b| *b == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, bytes),
    };
    let Ok(owner) = "joe@example.com".parse::<Aor>() else { return };
    let shelf = Shelf::new("http://h/xcap-root/", 100, 100);
    let key = key_of(&owner, "index");
    for (usage, body) in [(LISTS[1], lists), (LISTS[0], services)] {
        let document = Document { key: key.clone(), version: Version(1), body: body.to_vec() };
        for uri in shelf.enter(usage, &key, Some(&document)) {
            let Some(list) = shelf.list(&uri) else { continue };
            assert!(list.members.len() <= MAX_MEMBERS);
            each_once(list.members.iter().map(|m| &*m.uri).collect());
        }
    }
    if let Ok(list) = recipients::read(lists, MAX_MEMBERS) {
        assert!(list.len() <= MAX_MEMBERS);
        each_once(list.iter().map(|r| &*r.uri).collect());
    }
});

fn each_once(mut uris: Vec<&str>) {
    let all = uris.len();
    uris.sort();
    uris.dedup();
    assert_eq!(uris.len(), all);
}
