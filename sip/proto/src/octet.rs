//! What single octets are, as bits, so that one look at a short text answers several questions at once; and where the first octet
//! of some kind stands, eight looked at together.
//!
//! Most texts of a message have ten to thirty octets: both cost less than one call of a vectorised search, and much less than one
//! call for each question.

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

/// Each of eight octets.
const EACH: u64 = 0x0101_0101_0101_0101;
const HIGHEST: u64 = EACH << 7;

/// Marks octets that are `b`: the lowest mark is right, those above it need not be (an octet that is zero after the XOR borrows
/// from its highest bit, and may from the next one too).
#[inline(always)]
fn are(eight: u64, b: u8) -> u64 {
    let x = eight ^ (EACH * b as u64);
    x.wrapping_sub(EACH) & !x & HIGHEST
}

/// Marks octets below `b`, which is at most 128, as [`are`] does.
#[inline(always)]
fn are_below(eight: u64, b: u8) -> u64 {
    eight.wrapping_sub(EACH * b as u64) & !eight & HIGHEST
}

/// Offset of the first octet that is marked, eight looked at together.
#[inline(always)]
fn first_marked(text: &[u8], mark: impl Fn(u64) -> u64) -> Option<usize> {
    let mut at = 0;
    while let Some(eight) = text[at..].first_chunk::<8>() {
        let marks = mark(u64::from_le_bytes(*eight));
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    // What is left, behind what was looked at already or, in a text that is too short for that, zeros that are not of the text.
    let (marks, before) = match text.last_chunk::<8>() {
        Some(eight) => (mark(u64::from_le_bytes(*eight)), text.len() - 8),
        None => {
            let mut eight = [0; 8];
            eight[..text.len()].copy_from_slice(text);
            (mark(u64::from_le_bytes(eight)), 0)
        }
    };
    Some(before + marks.trailing_zeros() as usize / 8).filter(|at| marks != 0 && *at < text.len())
}

/// Beyond so many octets a vectorised search is worth its call.
const SHORT: usize = 64;

/// Offset of the first line feed.
#[inline]
pub(crate) fn line_feed(text: &[u8]) -> Option<usize> {
    match first_marked(&text[..text.len().min(SHORT)], |eight| are(eight, b'\n')) {
        None if text.len() > SHORT => memchr::memchr(b'\n', &text[SHORT..]).map(|more| SHORT + more),
        found => found,
    }
}

/// Offset of the first `stop`, quote or opening bracket.
#[inline]
pub(crate) fn stop(text: &[u8], stop: u8) -> Option<usize> {
    let mark = |eight| are(eight, stop) | are(eight, b'"') | are(eight, b'<');
    match first_marked(&text[..text.len().min(SHORT)], mark) {
        None if text.len() > SHORT => memchr::memchr3(stop, b'"', b'<', &text[SHORT..]).map(|more| SHORT + more),
        found => found,
    }
}

/// Offset of the first colon.
#[inline]
pub(crate) fn colon(text: &[u8]) -> Option<usize> {
    first_marked(text, |eight| are(eight, b':'))
}

/// Offset of the first `@`.
#[inline]
pub(crate) fn at(text: &[u8]) -> Option<usize> {
    first_marked(text, |eight| are(eight, b'@'))
}

/// Offset of the first octet that ends the host of a SIP URI: `:`, `;` or `?`.
#[inline]
pub(crate) fn host_end(text: &[u8]) -> Option<usize> {
    first_marked(text, |eight| are(eight, b':') | are(eight, b';') | are(eight, b'?'))
}

/// Offset of the first octet that no addr-spec in angle brackets holds: a bracket, a blank, a control.
#[inline]
pub(crate) fn addr_end(text: &[u8]) -> Option<usize> {
    first_marked(text, |eight| are(eight, b'>') | are(eight, b'<') | are_below(eight, b' ' + 1))
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
    fn one_look_tells_all_that_stands_in_a_text() {
        assert_eq!(seen(b"bob"), 0);
        assert_eq!(seen(b"b:o@b"), COLON | AT | NOT_HOST);
        assert_eq!(seen(b" ") & (LWS | NOT_URI), LWS | NOT_URI);
        assert_eq!(first(b"ab;c?", QUESTION | SEMICOLON), Some(2));
        assert_eq!(first(b"abc", SEMICOLON), None);
    }
}
