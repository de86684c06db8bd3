//! What single octets are, as bits, so that one look at a short text answers several questions at once; and where the first octet
//! of some kind stands, sixteen looked at together.
//!
//! Most texts of a message have ten to thirty octets: both cost less than one call of a vectorised search, and much less than one
//! call for each question.

use wide::u8x16;

/// Blank, tab, or part of a line end.
pub(crate) const LWS: u16 = 1;
pub(crate) const QUOTE: u16 = 1 << 1;
/// `<`
pub(crate) const OPEN: u16 = 1 << 2;
/// `>`
pub(crate) const CLOSE: u16 = 1 << 3;
pub(crate) const AT: u16 = 1 << 4;
pub(crate) const COLON: u16 = 1 << 5;
pub(crate) const SEMICOLON: u16 = 1 << 6;
pub(crate) const QUESTION: u16 = 1 << 7;
pub(crate) const PERCENT: u16 = 1 << 8;
/// May stand in no URI: controls, blanks, octets above 126, and what delimits a URI in a header. Narrower than the grammar (`|`, `^`, `{`…
/// are sent by phones), but nothing that could end the URI early gets through.
pub(crate) const NOT_URI: u16 = 1 << 9;
/// May stand in no host name; underscores may, they are out there.
pub(crate) const NOT_HOST: u16 = 1 << 10;

/// The class of one octet.
#[inline]
pub(crate) fn of(b: u8) -> u16 {
    CLASSES[b as usize]
}

/// Everything that stands in a text.
#[inline]
pub(crate) fn seen(text: &[u8]) -> u16 {
    text.iter().fold(0, |seen, b| seen | of(*b))
}

/// Offset of the first octet of any of these classes.
#[inline]
pub(crate) fn first(text: &[u8], classes: u16) -> Option<usize> {
    text.iter().position(|b| of(*b) & classes != 0)
}

/// A bit for each of sixteen octets.
type Marks = u32;

#[inline(always)]
fn are(sixteen: u8x16, octet: u8) -> Marks {
    sixteen.simd_eq(u8x16::splat(octet)).to_bitmask()
}

#[inline(always)]
fn are_at_most(sixteen: u8x16, octet: u8) -> Marks {
    sixteen.simd_eq(sixteen.min(u8x16::splat(octet))).to_bitmask()
}

/// Offset of the first of these octets.
#[inline(always)]
fn first_of<const N: usize>(text: &[u8], octets: [u8; N]) -> Option<usize> {
    first_marked(text, |sixteen| octets.into_iter().fold(0, |marks, octet| marks | are(sixteen, octet)))
}

/// Offset of the first octet that is marked, sixteen looked at together.
#[inline(always)]
fn first_marked(text: &[u8], mark: impl Fn(u8x16) -> Marks) -> Option<usize> {
    let mut at = 0;
    while let Some(octets) = text[at..].first_chunk() {
        let marks = mark(u8x16::new(*octets));
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize);
        }
        at += 16;
    }
    // What is left, behind what was looked at already or, in a text that is too short for that, zeros that are not of the text.
    let (marks, before) = match text.last_chunk() {
        Some(octets) => (mark(u8x16::new(*octets)), text.len() - 16),
        None => {
            let mut octets = [0; 16];
            octets[..text.len()].copy_from_slice(text);
            (mark(u8x16::new(octets)), 0)
        }
    };
    Some(before + marks.trailing_zeros() as usize).filter(|at| *at < text.len())
}

/// Offset of the first line feed.
#[inline]
pub(crate) fn line_feed(text: &[u8]) -> Option<usize> {
    first_of(text, [b'\n'])
}

/// Offset of the first `stop`, quote or opening bracket.
#[inline]
pub(crate) fn stop(text: &[u8], stop: u8) -> Option<usize> {
    first_of(text, [stop, b'"', b'<'])
}

/// Offset of the first colon.
#[inline]
pub(crate) fn colon(text: &[u8]) -> Option<usize> {
    first_of(text, [b':'])
}

/// Offset of the first `@`.
#[inline]
pub(crate) fn at(text: &[u8]) -> Option<usize> {
    first_of(text, [b'@'])
}

/// Offset of the first octet that ends the host of a SIP URI: `:`, `;` or `?`.
#[inline]
pub(crate) fn host_end(text: &[u8]) -> Option<usize> {
    first_of(text, [b':', b';', b'?'])
}

/// Offset of the first octet that no addr-spec in angle brackets holds: a bracket, a blank, a control.
#[inline]
pub(crate) fn addr_end(text: &[u8]) -> Option<usize> {
    first_marked(text, |sixteen| are(sixteen, b'>') | are(sixteen, b'<') | are_at_most(sixteen, b' '))
}

static CLASSES: [u16; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        let mut class = match b {
            b' ' | b'\t' | b'\r' | b'\n' => LWS,
            b'"' => QUOTE,
            b'<' => OPEN,
            b'>' => CLOSE,
            b'@' => AT,
            b':' => COLON,
            b';' => SEMICOLON,
            b'?' => QUESTION,
            b'%' => PERCENT,
            _ => 0,
        };
        if !b.is_ascii_graphic() || matches!(b, b'<' | b'>' | b'"') {
            class |= NOT_URI;
        }
        if !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
            class |= NOT_HOST;
        }
        table[i] = class;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_feed_is_found_wherever_it_stands() {
        for before in 0..200 {
            let mut text = vec![0x8a; before];
            assert_eq!(line_feed(&text), None);
            text.extend_from_slice(b"\n\x0b\n\n");
            assert_eq!(line_feed(&text), Some(before));
            // One below and one above a line feed, next to it and alone, are none.
            text[before] = b'\t';
            assert_eq!(line_feed(&text), Some(before + 2));
        }
    }

    #[test]
    fn a_stop_is_found_in_short_and_long_texts() {
        for before in 0..200 {
            let text = |end: &[u8]| [&vec![b'x'; before][..], end].concat();
            assert_eq!(stop(&text(b""), b','), None);
            for end in [&b",\""[..], b"\",", b"<,"] {
                assert_eq!(stop(&text(end), b','), Some(before));
            }
        }
    }

    #[test]
    fn the_end_of_an_addr_spec_is_found_wherever_it_stands() {
        for before in 0..100 {
            for end in [b'>', b'<', b' ', b'\t', b'\r', 0, 0x1f] {
                let mut text = vec![0x7f; before];
                text.extend_from_slice(&[0x80, 0xff, b'!', b'=', b';', b'?']);
                assert_eq!(addr_end(&text), None);
                text.extend_from_slice(&[end, b'>', 0, 0x80]);
                assert_eq!(addr_end(&text), Some(before + 6));
            }
        }
    }

    #[test]
    fn one_look_tells_all_that_stands_in_a_text() {
        assert_eq!(seen(b"bob"), 0);
        assert_eq!(seen(b"b:o@b"), COLON | AT | NOT_HOST);
        assert_eq!(seen(b" ") & (LWS | NOT_URI), LWS | NOT_URI);
        assert_eq!(first(b"ab;c?", QUESTION | SEMICOLON), Some(2));
        assert_eq!(first(b"abc", SEMICOLON), None);
    }
}
