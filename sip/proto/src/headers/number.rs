//! Headers that are one number: Expires, Min-Expires, Max-Forwards, Content-Length, RSeq, Flow-Timer.

use crate::message::decimal;

/// `delta-seconds` (RFC 3261 §20.19): 0 to 2^32 - 1. For Expires, Min-Expires, Flow-Timer, Session-Expires and the
/// `expires` parameter. What does not fit gives `None`: RFC 3261 §10.2.1.1 then has a registrar use 3600.
pub fn delta_seconds(value: &[u8]) -> Option<u32> {
    decimal(value).and_then(|n| u32::try_from(n).ok())
}

/// Max-Forwards (RFC 3261 §20.22): 0 to 255.
pub fn max_forwards(value: &[u8]) -> Option<u8> {
    decimal(value).and_then(|n| u8::try_from(n).ok())
}

/// RSeq and the response number of RAck (RFC 3262 §7.1): 1 to 2^32 - 1.
pub fn response_num(value: &[u8]) -> Option<u32> {
    delta_seconds(value).filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_its_range() {
        assert_eq!(delta_seconds(b"4294967295"), Some(u32::MAX));
        assert_eq!(delta_seconds(b"00007200"), Some(7200));
        assert_eq!(max_forwards(b"255"), Some(255));
        assert_eq!(response_num(b"1"), Some(1));
        assert_eq!(delta_seconds(b"4294967296"), None);
        assert_eq!(max_forwards(b"256"), None);
        assert_eq!(response_num(b"0"), None);
        for bad in [&b""[..], b"-1", b"+1", b"1 2", b"0x1", b"1e3", b"99999999999999999999999"] {
            assert_eq!((delta_seconds(bad), max_forwards(bad)), (None, None), "{bad:?}");
        }
    }
}
