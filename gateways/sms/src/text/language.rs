//! National languages of TS 23.038 annex A, and look-up in both directions.

use std::sync::LazyLock;

use super::tables::{self as t, Table};

/// National language identifier (TS 23.038 §6.2.1.2.4): the value of the shift elements in a user data header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Language {
    Turkish = 1,
    /// Has a single shift table only; its locking table is the default alphabet.
    Spanish = 2,
    Portuguese = 3,
    Bengali = 4,
    Gujarati = 5,
    Hindi = 6,
    Kannada = 7,
    Malayalam = 8,
    Oriya = 9,
    Punjabi = 10,
    Tamil = 11,
    Telugu = 12,
    Urdu = 13,
}

impl Language {
    pub const ALL: [Language; 13] = [
        Language::Turkish,
        Language::Spanish,
        Language::Portuguese,
        Language::Bengali,
        Language::Gujarati,
        Language::Hindi,
        Language::Kannada,
        Language::Malayalam,
        Language::Oriya,
        Language::Punjabi,
        Language::Tamil,
        Language::Telugu,
        Language::Urdu,
    ];

    /// `None` for identifiers that are reserved: the receiver then ignores the element (TS 23.040 §9.2.3.24.15).
    pub fn from_identifier(identifier: u8) -> Option<Language> {
        Language::ALL.into_iter().find(|l| *l as u8 == identifier)
    }

    pub fn identifier(self) -> u8 {
        self as u8
    }

    /// In English, lower case: as configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Language::Turkish => "turkish",
            Language::Spanish => "spanish",
            Language::Portuguese => "portuguese",
            Language::Bengali => "bengali",
            Language::Gujarati => "gujarati",
            Language::Hindi => "hindi",
            Language::Kannada => "kannada",
            Language::Malayalam => "malayalam",
            Language::Oriya => "oriya",
            Language::Punjabi => "punjabi",
            Language::Tamil => "tamil",
            Language::Telugu => "telugu",
            Language::Urdu => "urdu",
        }
    }

    pub fn from_name(name: &str) -> Option<Language> {
        Language::ALL.into_iter().find(|l| l.name() == name)
    }

    pub fn has_locking_table(self) -> bool {
        self != Language::Spanish
    }
}

/// By language identifier; 0 is the default alphabet.
const LOCKING: [&Table; 14] = [
    &t::DEFAULT_LOCKING,
    &t::TURKISH_LOCKING,
    &t::DEFAULT_LOCKING,
    &t::PORTUGUESE_LOCKING,
    &t::BENGALI_LOCKING,
    &t::GUJARATI_LOCKING,
    &t::HINDI_LOCKING,
    &t::KANNADA_LOCKING,
    &t::MALAYALAM_LOCKING,
    &t::ORIYA_LOCKING,
    &t::PUNJABI_LOCKING,
    &t::TAMIL_LOCKING,
    &t::TELUGU_LOCKING,
    &t::URDU_LOCKING,
];

const SINGLE: [&Table; 14] = [
    &t::DEFAULT_SINGLE,
    &t::TURKISH_SINGLE,
    &t::SPANISH_SINGLE,
    &t::PORTUGUESE_SINGLE,
    &t::BENGALI_SINGLE,
    &t::GUJARATI_SINGLE,
    &t::HINDI_SINGLE,
    &t::KANNADA_SINGLE,
    &t::MALAYALAM_SINGLE,
    &t::ORIYA_SINGLE,
    &t::PUNJABI_SINGLE,
    &t::TAMIL_SINGLE,
    &t::TELUGU_SINGLE,
    &t::URDU_SINGLE,
];

/// Unicode to septet, sorted for binary search. A character that a table has twice keeps its first place.
struct Inverse(Vec<(u16, u8)>);

impl Inverse {
    fn of(table: &Table) -> Inverse {
        let mut pairs: Vec<(u16, u8)> = (0u8..)
            .zip(table)
            .filter(|(_, unicode)| **unicode != 0)
            .map(|(septet, unicode)| (*unicode, septet))
            .collect();
        pairs.sort_unstable();
        pairs.dedup_by_key(|(unicode, _)| *unicode);
        Inverse(pairs)
    }

    fn septet(&self, unicode: u16) -> Option<u8> {
        self.0.binary_search_by_key(&unicode, |(u, _)| *u).ok().map(|at| self.0[at].1)
    }
}

struct Inverses {
    locking: [Inverse; 14],
    single: [Inverse; 14],
}

static INVERSES: LazyLock<Inverses> =
    LazyLock::new(|| Inverses { locking: LOCKING.map(Inverse::of), single: SINGLE.map(Inverse::of) });

/// Which pair of tables a text is written with. `None` is the default alphabet and its extension.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Shift {
    pub locking: Option<Language>,
    pub single: Option<Language>,
}

/// How one character is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Written {
    Septet(u8),
    Escaped(u8),
}

impl Shift {
    pub const DEFAULT: Shift = Shift { locking: None, single: None };

    pub(super) fn write(self, c: char) -> Option<Written> {
        let unicode = u16::try_from(u32::from(c)).ok().filter(|u| *u != 0)?;
        let at = |language: Option<Language>| language.map_or(0, |l| usize::from(l.identifier()));
        if let Some(septet) = INVERSES.locking[at(self.locking)].septet(unicode) {
            return Some(Written::Septet(septet));
        }
        INVERSES.single[at(self.single)].septet(unicode).map(Written::Escaped)
    }

    /// The character of a septet; `None` for the escape and for places that the table leaves empty.
    pub(super) fn read(self, septet: u8) -> Option<char> {
        character(LOCKING[self.locking.map_or(0, |l| usize::from(l.identifier()))], septet)
    }

    pub(super) fn read_escaped(self, septet: u8) -> Option<char> {
        character(SINGLE[self.single.map_or(0, |l| usize::from(l.identifier()))], septet)
    }
}

fn character(table: &Table, septet: u8) -> Option<char> {
    let unicode = *table.get(usize::from(septet))?;
    if unicode == 0 { None } else { char::from_u32(u32::from(unicode)) }
}
