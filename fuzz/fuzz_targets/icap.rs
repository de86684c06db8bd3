//! What an ICAP server says, in one piece and in pieces: both mean the same, and nothing stays in memory without bound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use media_content::icap::answer::{Answer, Asked, BadAnswer, Heard, Method, Options};

fn heard(asked: Asked, bytes: &[u8], piece: usize) -> Result<Heard, BadAnswer> {
    let mut answer = Answer::new(asked);
    for piece in bytes.chunks(piece) {
        match answer.push(piece)? {
            Heard::More => {}
            Heard::Continue => return Ok(Heard::Continue),
            finding => return Ok(finding),
        }
    }
    Ok(Heard::More)
}

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (reqmod, piece, bytes) = input;
    let _ = Options::read(&mut bytes.to_vec());
    let method = if reqmod { Method::Reqmod } else { Method::Respmod };
    let asked = Asked { method, size: 4, hash: [0; 32] };
    let whole = heard(asked, bytes, bytes.len().max(1));
    let pieces = heard(asked, bytes, usize::from(piece).max(1));
    // A piece may end before the byte that is wrong.
    if whole.is_ok() {
        assert_eq!(whole, pieces);
    }
});
