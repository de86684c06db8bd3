//! Short texts that repeat each other, in fewer bytes: what one repeats of what stands before it becomes a reference (LZ77).
//!
//! A folded text is a row of pieces. A byte below 128 is a literal run, one longer than the byte says; any other a reference, its length
//! and then how far back it begins, seven bits a byte, the lowest first.

/// A shorter repetition is no shorter as a reference.
const LEAST: usize = 4;
const LONGEST: usize = LEAST + 127;
const LONGEST_RUN: usize = 128;
/// Places are remembered by this many bits of a hash of the bytes there.
const BITS: u32 = 9;
/// Longest text, with what is known, in bytes.
pub(crate) const MAX_TEXT: usize = 8 * 1024;

/// Appends `text`, folded against itself and `known`. `false`, and nothing: they are longer than [`MAX_TEXT`].
pub(crate) fn fold(known: &[u8], text: &[u8], out: &mut Vec<u8>) -> bool {
    if known.len() + text.len() > MAX_TEXT {
        return false;
    }
    let all = [known, text].concat();
    let mut places = [u16::MAX; 1 << BITS];
    // What stood where the same bytes may stand; from now on this place does.
    let mut swap = |at: usize| {
        let head = all.get(at..)?.first_chunk::<LEAST>()?;
        let hash = u32::from_le_bytes(*head).wrapping_mul(0x9e37_79b1) >> (u32::BITS - BITS);
        let before = std::mem::replace(&mut places[hash as usize], at as u16);
        (before != u16::MAX).then_some(usize::from(before))
    };
    (0..known.len()).for_each(|at| _ = swap(at));
    let (mut at, mut written) = (known.len(), known.len());
    while at < all.len() {
        let before = swap(at);
        let same = |from: &usize| all[*from..].iter().zip(&all[at..]).take(LONGEST).take_while(|(a, b)| a == b).count();
        match before.map(|from| (from, same(&from))).filter(|(_, length)| *length >= LEAST) {
            Some((from, length)) => {
                literal(&all[written..at], out);
                out.push(128 | (length - LEAST) as u8);
                number((at - from) as u64, out);
                (at + 1..at + length).for_each(|at| _ = swap(at));
                at += length;
                written = at;
            }
            None => at += 1,
        }
    }
    literal(&all[written..], out);
    true
}

/// What was folded against the same `known`; `None` for anything else.
pub(crate) fn unfold(known: &[u8], mut folded: &[u8]) -> Option<Vec<u8>> {
    let mut all = Vec::with_capacity(known.len() + 4 * folded.len());
    all.extend_from_slice(known);
    while let Some((&head, rest)) = folded.split_first() {
        folded = rest;
        if head < 128 {
            let (run, rest) = folded.split_at_checked(usize::from(head) + 1)?;
            all.extend_from_slice(run);
            folded = rest;
        } else {
            let back = usize::try_from(take_number(&mut folded)?).ok().filter(|back| *back > 0)?;
            let from = all.len().checked_sub(back)?;
            // It may reach into what it makes.
            for i in from..from + LEAST + usize::from(head & 127) {
                all.push(all[i]);
            }
        }
        if all.len() > MAX_TEXT {
            return None;
        }
    }
    all.drain(..known.len());
    Some(all)
}

fn literal(text: &[u8], out: &mut Vec<u8>) {
    for run in text.chunks(LONGEST_RUN) {
        out.push((run.len() - 1) as u8);
        out.extend_from_slice(run);
    }
}

/// Seven bits a byte, the lowest first.
pub(crate) fn number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(known: &[u8], text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(fold(known, text, &mut out));
        assert_eq!(unfold(known, &out).as_deref(), Some(text));
        out
    }

    #[test]
    fn what_repeats_becomes_a_reference() {
        let known = b"<sip:alice@example.com>";
        assert_eq!(folded(known, known), [128 | 19, 23]);
        // A run is a repetition of its first byte.
        assert_eq!(folded(b"", &[b'a'; 100]), [0, b'a', 128 | 95, 1]);
        assert_eq!(folded(b"", b"<sip:bob@h>sip:bob@h"), *b"\x0a<sip:bob@h>\x85\x0a");
        assert!(folded(b"", &[b'x'; 4000]).len() < 100);
        assert!(!fold(b"", &vec![0; MAX_TEXT + 1], &mut Vec::new()));
    }

    #[test]
    fn what_was_not_folded_so_does_not_read() {
        for bytes in [
            &b"\x05abc"[..],
            b"\x80",
            b"\x80\x01",
            b"\x00a\x80\x00",
            b"\x00a\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(unfold(b"", bytes), None, "{bytes:?}");
        }
        let bomb: Vec<u8> = b"\x00a".iter().copied().chain([0xff, 1].repeat(1000)).collect();
        assert_eq!(unfold(b"", &bomb), None);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(known in "[ab<>:]{0,40}", text in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), any::<u8>()], 0..600)) {
            folded(known.as_bytes(), &text);
        }

        #[test]
        fn noise_is_read_within_bounds(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(text) = unfold(b"known", &noise) {
                prop_assert!(text.len() <= MAX_TEXT);
            }
        }
    }
}
