//! Septets in octets (TS 23.038 §6.1.2.1): the first septet in the lowest bits.

/// Packs after `fill` zero bits (0 to 6): what aligns text behind a user data header to a septet boundary.
pub fn pack(septets: &[u8], fill: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity((septets.len() * 7 + usize::from(fill)).div_ceil(8));
    let (mut held, mut bits) = (0u32, u32::from(fill));
    for septet in septets {
        held |= u32::from(septet & 0x7F) << bits;
        bits += 7;
        while bits >= 8 {
            out.push((held & 0xFF) as u8);
            held >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push((held & 0xFF) as u8);
    }
    out
}

/// Reads `count` septets after `fill` bits; fewer when the octets end before.
pub fn unpack(octets: &[u8], fill: u8, count: usize) -> Vec<u8> {
    let there = (octets.len() * 8).saturating_sub(usize::from(fill)) / 7;
    (0..count.min(there))
        .map(|n| {
            let bit = usize::from(fill) + n * 7;
            let low = u16::from(octets[bit / 8]);
            let high = octets.get(bit / 8 + 1).map_or(0, |o| u16::from(*o));
            (((high << 8 | low) >> (bit % 8)) & 0x7F) as u8
        })
        .collect()
}

/// Zero bits between a header of `octets` (its length octet included) and the text (TS 23.040 §9.2.3.24).
pub fn fill_bits(octets: usize) -> u8 {
    ((7 - octets * 8 % 7) % 7) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hellohello_is_packed_as_every_textbook_has_it() {
        assert_eq!(pack(b"hellohello", 0), [0xE8, 0x32, 0x9B, 0xFD, 0x46, 0x97, 0xD9, 0xEC, 0x37]);
    }

    #[test]
    fn fill_bits_reach_the_next_septet() {
        assert_eq!([0, 4, 6, 7, 12].map(fill_bits), [0, 3, 1, 0, 2]);
    }

    proptest! {
        #[test]
        fn unpacking_undoes_packing(septets in prop::collection::vec(0u8..128, 0..200), fill in 0u8..7) {
            let packed = pack(&septets, fill);
            prop_assert_eq!(packed.len(), (septets.len() * 7 + usize::from(fill)).div_ceil(8));
            prop_assert_eq!(unpack(&packed, fill, septets.len()), septets);
        }
    }
}
