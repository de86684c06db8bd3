//! TP-PID, the protocol identifiers that matter to a sender (TS 23.040 §9.2.3.9).

/// Handset to handset, or nothing special.
pub const PLAIN: u8 = 0x00;
/// Short message type 0: acknowledged and discarded.
pub const TYPE_0: u8 = 0x40;
/// Delivered to the (U)SIM (with class 2).
pub const SIM_DATA_DOWNLOAD: u8 = 0x7F;
/// The handset offers to call back.
pub const RETURN_CALL: u8 = 0x5F;

/// "Replace short message type `n`", 1 to 7: it takes the place of the last one of the same type and sender.
pub fn replace(n: u8) -> Option<u8> {
    (1..=7).contains(&n).then_some(0x40 + n)
}

/// The type that such a message replaces.
pub fn replaces(pid: u8) -> Option<u8> {
    (0x41..=0x47).contains(&pid).then(|| pid - 0x40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_types_are_one_to_seven() {
        assert_eq!([0, 1, 7, 8].map(replace), [None, Some(0x41), Some(0x47), None]);
        assert_eq!([PLAIN, TYPE_0, 0x41, 0x47, 0x48].map(replaces), [None, None, Some(1), Some(7), None]);
    }
}
