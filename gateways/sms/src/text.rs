//! Text in short messages: the alphabets of TS 23.038, and the choice among them.
//!
//! [`encode`] writes a text with given tables or refuses; [`choose`] finds the tables that cost least and lose nothing;
//! [`decode`] reads septets as a handset would. UCS-2 is read and written as UTF-16, as every handset does.

mod language;
pub mod septets;
mod tables;

use language::Written;
pub use language::{Language, Shift};

/// Escapes the next septet into the single shift table.
pub const ESCAPE: u8 = 0x1B;

/// How a text is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coding {
    Gsm7(Shift),
    /// UTF-16, big endian (TS 23.038 says UCS-2; handsets read surrogate pairs).
    Ucs2,
}

/// A set of national languages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Languages(u16);

impl Languages {
    pub const NONE: Languages = Languages(0);
    pub const ALL: Languages = Languages(0x3FFE);

    pub fn with(self, language: Language) -> Languages {
        Languages(self.0 | 1 << language.identifier())
    }

    pub fn has(self, language: Language) -> bool {
        self.0 >> language.identifier() & 1 == 1
    }
}

impl FromIterator<Language> for Languages {
    fn from_iter<I: IntoIterator<Item = Language>>(languages: I) -> Languages {
        languages.into_iter().fold(Languages::NONE, Languages::with)
    }
}

/// The text has this character, which the tables have not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a character that the alphabet has not")]
pub struct NotInAlphabet(pub char);

/// Septets of `text`, escapes included, one in each byte.
pub fn encode(text: &str, shift: Shift) -> Result<Vec<u8>, NotInAlphabet> {
    let mut septets = Vec::with_capacity(text.len());
    for c in text.chars() {
        match shift.write(c).ok_or(NotInAlphabet(c))? {
            Written::Septet(septet) => septets.push(septet),
            Written::Escaped(septet) => septets.extend([ESCAPE, septet]),
        }
    }
    Ok(septets)
}

/// Number of septets of `text`, or `None` if a character cannot be written.
pub fn length(text: &str, shift: Shift) -> Option<usize> {
    text.chars().try_fold(0, |sum, c| match shift.write(c)? {
        Written::Septet(_) => Some(sum + 1),
        Written::Escaped(_) => Some(sum + 2),
    })
}

/// Text of `septets`, as TS 23.038 §6.2.1.1 has receivers show it: an escaped septet that its table lacks shows as in the
/// locking table, a second escape as a space. A septet that no table knows shows as U+FFFD.
pub fn decode(septets: &[u8], shift: Shift) -> String {
    let mut text = String::with_capacity(septets.len());
    let mut septets = septets.iter().copied();
    while let Some(septet) = septets.next() {
        let c = match septet {
            ESCAPE => match septets.next() {
                None => break,
                Some(ESCAPE) => Some(' '),
                Some(escaped) => shift.read_escaped(escaped).or_else(|| shift.read(escaped)),
            },
            plain => shift.read(plain),
        };
        text.push(c.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    text
}

/// UTF-16, big endian.
pub fn encode_ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// A lone surrogate reads as U+FFFD; an odd last octet is left out.
pub fn decode_ucs2(octets: &[u8]) -> String {
    let units = octets.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// Every coding that writes `text` without loss, the plainest first: the default alphabet; national tables among `allowed`
/// (a handset that does not know them shows wrong letters, so the operator says which are known); UCS-2, which writes
/// everything.
pub(crate) fn candidates(text: &str, allowed: Languages) -> impl Iterator<Item = Coding> {
    let plain = length(text, Shift::DEFAULT).is_some();
    let national = Language::ALL.into_iter().filter(move |l| !plain && allowed.has(*l)).flat_map(move |language| {
        let some = Some(language);
        let locking = language.has_locking_table();
        // Fewest elements in the header first: among equals the first is taken.
        [
            Some(Shift { locking: None, single: some }),
            locking.then_some(Shift { locking: some, single: None }),
            locking.then_some(Shift { locking: some, single: some }),
        ]
        .into_iter()
        .flatten()
        .filter(move |shift| length(text, *shift).is_some())
    });
    plain
        .then_some(Coding::Gsm7(Shift::DEFAULT))
        .into_iter()
        .chain(national.map(Coding::Gsm7))
        .chain((!plain).then_some(Coding::Ucs2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn euro_and_brackets_are_escaped() {
        assert_eq!(encode("€[@", Shift::DEFAULT).unwrap(), [0x1B, 0x65, 0x1B, 0x3C, 0x00]);
        assert_eq!(decode(&[0x1B, 0x65, 0x1B, 0x3C, 0x00], Shift::DEFAULT), "€[@");
    }

    #[test]
    fn a_turkish_letter_is_refused_by_the_default_alphabet_and_kept_by_its_own() {
        assert_eq!(encode("aş", Shift::DEFAULT), Err(NotInAlphabet('ş')));
        let single = Shift { locking: None, single: Some(Language::Turkish) };
        let locking = Shift { locking: Some(Language::Turkish), single: None };
        assert_eq!(encode("aş", single).unwrap(), [0x61, 0x1B, 0x73]);
        assert_eq!(encode("aş", locking).unwrap(), [0x61, 0x1D]);
    }

    #[test]
    fn unknown_escapes_show_the_plain_letter_and_a_double_escape_a_space() {
        assert_eq!(decode(&[0x1B, 0x61], Shift::DEFAULT), "a");
        assert_eq!(decode(&[0x1B, 0x1B, 0x61], Shift::DEFAULT), " a");
        assert_eq!(decode(&[0x61, 0x1B], Shift::DEFAULT), "a");
    }

    #[test]
    fn every_table_reads_back_what_it_writes() {
        for language in Language::ALL {
            for shift in [
                Shift { locking: Some(language), single: Some(language) },
                Shift { locking: None, single: Some(language) },
                Shift { locking: Some(language), single: None },
            ] {
                let all: String = (0..128).flat_map(|s| [shift.read(s), shift.read_escaped(s)]).flatten().collect();
                let septets = encode(&all, shift).unwrap();
                assert_eq!(decode(&septets, shift), all, "{language:?}");
            }
        }
    }

    #[test]
    fn letters_stand_where_annex_a_has_them() {
        let at = |language, c: &str| encode(c, Shift { locking: Some(language), single: Some(language) }).unwrap();
        assert_eq!(at(Language::Spanish, "Á"), [0x1B, 0x41]);
        assert_eq!(at(Language::Portuguese, "ã"), [0x7B]);
        assert_eq!(at(Language::Hindi, "ह"), [0x4D]);
        assert_eq!(at(Language::Tamil, "௺"), [0x1B, 0x2E]);
        assert_eq!(at(Language::Urdu, "ے"), [0x5B]);
        assert_eq!(at(Language::Urdu, ","), [0x2C]);
    }

    #[test]
    fn plain_text_has_one_candidate_and_everything_has_at_least_one() {
        assert!(candidates("hello", Languages::ALL).eq([Coding::Gsm7(Shift::DEFAULT)]));
        assert!(candidates("😀", Languages::ALL).eq([Coding::Ucs2]));
        assert!(candidates("ş", Languages::NONE).eq([Coding::Ucs2]));
        assert_eq!(candidates("ş", Languages::ALL).count(), 4);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in "\\PC{0,40}") {
            for coding in candidates(&text, Languages::ALL) {
                let back = match coding {
                    Coding::Gsm7(shift) => decode(&encode(&text, shift).unwrap(), shift),
                    Coding::Ucs2 => decode_ucs2(&encode_ucs2(&text)),
                };
                prop_assert_eq!(&back, &text);
            }
        }
    }
}
