//! What the server reads back at its start, of files and rows that may be damaged: the first octet chooses the form, and what was read is written
//! again and compared.
#![no_main]

use gw_sms::queue::{Part, Progress};
use gw_sms::rest::letter::Letter;
use gw_sms::rest::subscription::Subscription;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sip_presence::document::Published;
use sip_presence::filters::Asked;
use sip_proto::dialog::Dialog;

// The server's own, which is no library of few dependencies.
#[allow(dead_code)]
#[path = "../../src/store/binding/codec.rs"]
mod codec;
#[allow(dead_code)]
#[path = "../../src/store/sms/journal/record.rs"]
mod record;

#[allow(dead_code)]
#[path = "../../sip/messaging/src/conference/row.rs"]
mod row;

use codec::{Records, encode};
use row::Row;

/// Longest name that the journal writes: of a link, and of a message at its centre.
const MAX_NAME: usize = 255;

fuzz_target!(|bytes: &[u8]| {
    let Some((form, body)) = bytes.split_first() else { return };
    match form % 9 {
        0 => bindings(body),
        1 => journal(body),
        2 => {
            if let Ok(part) = Part::from_bytes(body) {
                assert_eq!(Part::from_bytes(&part.to_bytes()), Ok(part));
            }
        }
        3 => again(body, Dialog::from_row, Dialog::write_row),
        4 => again(body, Published::from_row, Published::write_row),
        5 => again(body, Asked::from_row, Asked::write_row),
        6 => json::<Letter>(body),
        7 => json::<Subscription>(body),
        _ => again(body, |bytes| Row::read(bytes).ok(), |row, out| out.extend(row.write())),
    }
});

fn bindings(batch: &[u8]) {
    for change in Records::new(batch) {
        let Ok((change, _)) = change else { return };
        let mut written = Vec::new();
        // What has a NUL in it is read, and never written.
        if encode(&change, &mut written).is_ok() {
            let read = Records::new(&written).next().expect("a record").expect("what was written reads back");
            assert_eq!(read.0, change);
        }
    }
}

fn journal(body: &[u8]) {
    let _ = record::read(body);
    let Some((id, progress)) = record::parse(body) else { return };
    if let Progress::Sent(name) | Progress::NotCancelled(name) = &progress
        && name.message_id.len() > MAX_NAME
    {
        return;
    }
    let mut written = Vec::new();
    record::write(&mut written, id, &progress);
    assert_eq!(record::read(&written), [(id, progress)]);
}

/// A document of a developer's.
fn json<T: Serialize + DeserializeOwned>(body: &[u8]) {
    let write = |value: &T, out: &mut Vec<u8>| serde_json::to_writer(out, value).expect("it can be written");
    again(body, |bytes| serde_json::from_slice(bytes).ok(), write);
}

/// Read, written, and read once more it is the same.
fn again<T>(bytes: &[u8], read: impl Fn(&[u8]) -> Option<T>, write: impl Fn(&T, &mut Vec<u8>)) {
    let written = |value: &T| {
        let mut out = Vec::new();
        write(value, &mut out);
        out
    };
    if let Some(value) = read(bytes) {
        let once = written(&value);
        let value = read(&once).expect("what was written reads back");
        assert_eq!(written(&value), once);
    }
}
