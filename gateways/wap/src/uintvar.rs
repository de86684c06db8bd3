//! Variable length integers (WAP-230-WSP §8.1.2): seven bits in each octet, the highest bit set on all but the last.

pub(crate) fn write(value: u32, out: &mut Vec<u8>) {
    let octets = (32 - value.leading_zeros()).div_ceil(7).max(1);
    for n in (0..octets).rev() {
        let seven = (value >> (7 * n) & 0x7F) as u8;
        out.push(if n == 0 { seven } else { seven | 0x80 });
    }
}

/// The value and the octets behind it; `None` if there is none or it is longer than 32 bits.
pub(crate) fn read(octets: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0u32;
    for (n, octet) in octets.iter().enumerate().take(5) {
        if value >> 25 != 0 {
            return None;
        }
        value = value << 7 | u32::from(octet & 0x7F);
        if octet & 0x80 == 0 {
            return Some((value, &octets[n + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_read_back(value in any::<u32>()) {
            let mut out = Vec::new();
            write(value, &mut out);
            prop_assert_eq!(read(&out), Some((value, &[][..])));
        }
    }

    #[test]
    fn endless_ones_are_refused() {
        assert_eq!(read(&[0x80]), None);
        assert_eq!(read(&[0xFF; 9]), None);
        let mut out = Vec::new();
        write(128, &mut out);
        assert_eq!(out, [0x81, 0x00]);
    }
}
