//! Any octets as an MSRP stream: however it is cut, it tells the same; what a head says can be asked; nothing piles up.

#![no_main]

use libfuzzer_sys::fuzz_target;
use media_msrp::head::{Head, transaction_id};
use media_msrp::range::ByteRange;
use media_msrp::reader::{Event, MAX_KEPT, Reader};
use media_msrp::{Fingerprint, MsrpUri, uri};

#[derive(PartialEq, Eq, Debug)]
enum Told {
    Head(Vec<u8>),
    Body(Vec<u8>),
    Guarded,
    End(u8),
    Lost,
}

fn told(stream: &[u8], step: usize, guard: &[u8]) -> Vec<Told> {
    let mut reader = Reader::default();
    let (mut told, mut kept) = (Vec::new(), Vec::new());
    for piece in stream.chunks(step) {
        kept.extend_from_slice(piece);
        loop {
            let Ok((done, event)) = reader.read(&kept) else {
                told.push(Told::Lost);
                return told;
            };
            match event {
                Event::More if done == 0 => break,
                Event::More => {}
                Event::Head(head) => {
                    told.push(Told::Head(head.to_vec()));
                    reader.guard(guard);
                }
                Event::Body(piece) => match told.last_mut() {
                    Some(Told::Body(body)) => body.extend_from_slice(piece),
                    _ => told.push(Told::Body(piece.to_vec())),
                },
                Event::Guarded => {
                    told.push(Told::Guarded);
                    reader.guard(b"");
                }
                Event::End(flag) => told.push(Told::End(flag.as_byte())),
            }
            kept.drain(..done);
        }
        assert!(kept.len() <= MAX_KEPT + step);
    }
    told
}

fuzz_target!(|bytes: &[u8]| {
    let (step, stream) = bytes.split_first().unwrap_or((&1, b""));
    let guard = b"guard123";
    let whole = told(stream, stream.len().max(1), guard);
    assert_eq!(told(stream, usize::from(*step).max(1), guard), whole);
    for head in whole.iter().filter_map(|t| if let Told::Head(head) = t { Some(head) } else { None }) {
        assert!(transaction_id(head).is_some());
        if let Ok(head) = Head::parse(head) {
            assert!(uri::path(head.to_path()).is_some() && uri::path(head.from_path()).is_some());
            let _ = (head.status(), head.success_report(), head.failure_report());
            if let Some(range) = head.byte_range() {
                assert_eq!(ByteRange::parse(range.to_string().as_bytes()), Some(range));
            }
        }
    }
    if let Some(uri) = MsrpUri::parse(stream) {
        assert_eq!(MsrpUri::parse(uri.as_bytes()), Some(uri));
    }
    if let Some(fingerprint) = Fingerprint::parse(stream) {
        assert_eq!(Fingerprint::parse(fingerprint.to_string().as_bytes()), Some(fingerprint));
    }
});
