//! What another XMPP server sends, in one piece and in pieces: both roles do the same with it, never panic, and never let a stanza
//! in that no domain has proved.
#![no_main]

use gw_xmpp::dialback::Keys;
use gw_xmpp::incoming::{self, Incoming};
use gw_xmpp::outgoing::{self, Outgoing};
use gw_xmpp::stream::{Element, Piece, Reader};
use libfuzzer_sys::fuzz_target;

fn read(bytes: &[u8], size: usize) -> Result<Vec<Piece>, ()> {
    let (mut reader, mut pieces) = (Reader::default(), Vec::new());
    for mut some in bytes.chunks(size) {
        while let Some(piece) = reader.next(&mut some).map_err(drop)? {
            let is_end = piece == Piece::End;
            pieces.push(piece);
            if is_end {
                return Ok(pieces);
            }
        }
    }
    Ok(pieces)
}

fn depth(element: &Element) -> usize {
    1 + element.children.iter().map(depth).max().unwrap_or(0)
}

fn taken(bytes: &[u8], size: usize) -> Vec<incoming::Action> {
    let mut incoming = Incoming::new("home.test", Keys::new(b"secret"), "s1".into());
    let mut out = Vec::new();
    for some in bytes.chunks(size) {
        incoming.received(some, &mut out);
        if out.contains(&incoming::Action::StartTls) {
            incoming.secured("s2".into());
            out.retain(|action| *action != incoming::Action::StartTls);
        }
    }
    out
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let size = usize::from(size).max(1);
    let whole = read(bytes, bytes.len().max(1));
    if let Ok(whole) = &whole {
        assert_eq!(whole, &read(bytes, size).expect("well-formed in pieces too"));
        for piece in whole {
            assert!(!matches!(piece, Piece::Element(element) if depth(element) >= 64));
        }
    }
    // Nobody is judged here, so nothing is proved.
    assert!(!taken(bytes, size).iter().any(|action| matches!(action, incoming::Action::Stanza(_))));
    let mut out = Vec::new();
    let mut outgoing = Outgoing::open("home.test", "x.test", Keys::new(b"secret"), &mut out);
    for some in bytes.chunks(size) {
        outgoing.received(some, &mut out);
    }
    // Not encrypted, so never ready.
    assert!(!out.contains(&outgoing::Action::Ready));
});
