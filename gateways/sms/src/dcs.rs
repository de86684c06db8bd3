//! TP-DCS, the data coding scheme (TS 23.038 §4).

/// How the user data is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Alphabet {
    Gsm7,
    Octets,
    Ucs2,
}

/// Message class (TS 23.038 §4): where a handset puts the message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Shown at once and not kept: flash.
    Flash,
    /// Mobile equipment.
    Equipment,
    /// (U)SIM.
    Sim,
    /// Terminal equipment.
    Terminal,
}

impl Class {
    /// From the lowest two bits.
    pub fn from_bits(bits: u8) -> Class {
        match bits & 3 {
            0 => Class::Flash,
            1 => Class::Equipment,
            2 => Class::Sim,
            _ => Class::Terminal,
        }
    }

    pub fn bits(self) -> u8 {
        self as u8
    }
}

/// The octet, kept as it came; its meaning by methods.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct DataCoding(pub u8);

impl DataCoding {
    /// The general group, or "data coding/message class" for a class with septets or octets: what every handset knows.
    pub fn new(alphabet: Alphabet, class: Option<Class>) -> DataCoding {
        let bits = match alphabet {
            Alphabet::Gsm7 => 0,
            Alphabet::Octets => 0x04,
            Alphabet::Ucs2 => 0x08,
        };
        DataCoding(match (class, alphabet) {
            (None, _) => bits,
            (Some(class), Alphabet::Ucs2) => 0x10 | bits | class.bits(),
            (Some(class), _) => 0xF0 | bits | class.bits(),
        })
    }

    /// Reserved codings read as the default alphabet, as TS 23.038 §4 asks; compressed text is octets to us.
    pub fn alphabet(self) -> Alphabet {
        let general = |dcs: u8| match dcs >> 2 & 3 {
            1 => Alphabet::Octets,
            2 => Alphabet::Ucs2,
            _ => Alphabet::Gsm7,
        };
        match self.0 >> 4 {
            0x0..=0x7 if self.is_compressed() => Alphabet::Octets,
            0x0..=0x7 => general(self.0),
            0xE => Alphabet::Ucs2,
            0xF if self.0 & 0x04 != 0 => Alphabet::Octets,
            _ => Alphabet::Gsm7,
        }
    }

    /// As SMPP says it (3.4 §5.2.19), where the lowest numbers mean other alphabets than here.
    pub fn for_smpp(self) -> u8 {
        if self.0 < 0x10 { DataCoding::new(self.alphabet(), None).0 } else { self.0 }
    }

    pub fn is_compressed(self) -> bool {
        self.0 & 0xA0 == 0x20
    }

    pub fn class(self) -> Option<Class> {
        match self.0 >> 4 {
            0x0..=0x7 if self.0 & 0x10 != 0 => Some(Class::from_bits(self.0)),
            0xF => Some(Class::from_bits(self.0)),
            _ => None,
        }
    }

    pub fn is_flash(self) -> bool {
        self.class() == Some(Class::Flash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_coding_reads_back() {
        for alphabet in [Alphabet::Gsm7, Alphabet::Octets, Alphabet::Ucs2] {
            for class in [None, Some(Class::Flash), Some(Class::Equipment), Some(Class::Sim), Some(Class::Terminal)] {
                let dcs = DataCoding::new(alphabet, class);
                assert_eq!((dcs.alphabet(), dcs.class()), (alphabet, class), "{dcs:?}");
            }
        }
    }

    #[test]
    fn well_known_octets() {
        assert_eq!(DataCoding::new(Alphabet::Gsm7, Some(Class::Flash)), DataCoding(0xF0));
        assert_eq!(DataCoding::new(Alphabet::Octets, Some(Class::Equipment)), DataCoding(0xF5));
        assert_eq!(DataCoding::new(Alphabet::Ucs2, Some(Class::Flash)), DataCoding(0x18));
        assert_eq!(DataCoding(0xE0).alphabet(), Alphabet::Ucs2);
        assert_eq!(DataCoding(0xC8).alphabet(), Alphabet::Gsm7);
        assert_eq!(DataCoding(0x20).alphabet(), Alphabet::Octets);
        assert_eq!([0x01, 0x05, 0x0B, 0x18, 0xF2].map(|dcs| DataCoding(dcs).for_smpp()), [0, 4, 8, 0x18, 0xF2]);
    }
}
