//! Times as SMPP writes them (3.4 §7.1.1): `YYMMDDhhmmsstnnp`; relative with `R` at the end, absolute with the hours' offset.

use gw_smpp::pdu::COctets;

use crate::tpdu::Timestamp;

/// Neither a time nor empty. The sender's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a time of SMPP")]
pub struct NotATime;

/// Milliseconds from `now` (unix milliseconds) until then, negative for the past; `None` when nothing is said.
pub fn until(time: &COctets<17>, now: i64) -> Result<Option<i64>, NotATime> {
    let [digits @ .., zone] = time.as_bytes() else { return Ok(None) };
    let digits: [u8; 15] = digits.try_into().map_err(|_| NotATime)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(NotATime);
    }
    let digit = |at: usize| digits[at] - b'0';
    let two = |at: usize| i64::from(digit(at) * 10 + digit(at + 1));
    // A count of tenths, and of quarters of an hour.
    let (tenths, quarters) = (i64::from(digit(12)), two(13));
    if *zone == b'R' {
        let days = two(0) * 365 + two(2) * 30 + two(4);
        let seconds = ((days * 24 + two(6)) * 60 + two(8)) * 60 + two(10);
        return Ok(Some(seconds * 1_000 + tenths * 100));
    }
    let sign = match zone {
        b'+' => 0,
        b'-' => 0x08,
        _ => return Err(NotATime),
    };
    let swapped = |at: usize| digit(at) | digit(at + 1) << 4;
    let stamp =
        Timestamp([swapped(0), swapped(2), swapped(4), swapped(6), swapped(8), swapped(10), swapped(13) | sign]);
    if quarters > 48 {
        return Err(NotATime);
    }
    let unix = stamp.to_unix().ok_or(NotATime)?;
    Ok(Some(unix * 1_000 + tenths * 100 - now))
}

/// So long from now; at least a second, at most 99 days.
pub fn relative(milliseconds: i64) -> COctets<17> {
    let seconds = (milliseconds / 1_000).clamp(1, 99 * 86_400);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let text = format!("0000{days:02}{hours:02}{minutes:02}{:02}000R", seconds % 60);
    COctets::new(text.as_bytes()).unwrap_or_default()
}

/// In UTC.
pub fn absolute(unix_ms: i64) -> COctets<17> {
    let Timestamp(octets) = Timestamp::from_unix(unix_ms.div_euclid(1_000), 0);
    let digits = octets[..6].iter().flat_map(|o| [b'0' + (o & 0x0F), b'0' + (o >> 4)]);
    let text: Vec<u8> = digits.chain(*b"000+").collect();
    COctets::new(&text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, now: i64) -> Result<Option<i64>, NotATime> {
        until(&COctets::new(text.as_bytes()).unwrap(), now)
    }

    #[test]
    fn relative_times_are_read_and_written() {
        assert_eq!(of("000001020304500R", 0), Ok(Some((((24 + 2) * 60 + 3) * 60 + 4) * 1_000 + 500)));
        let text = |ms| String::from_utf8(relative(ms).as_bytes().to_vec()).unwrap();
        assert_eq!(text(90_061_000), "000001010101000R");
        assert_eq!(text(-5), "000000000001000R");
        assert_eq!(text(i64::MAX), "000099000000000R");
    }

    #[test]
    fn absolute_times_have_their_zone() {
        let now = 1_795_777_200_000;
        assert_eq!(of(std::str::from_utf8(absolute(now).as_bytes()).unwrap(), now), Ok(Some(0)));
        // Five o'clock, an hour east of UTC, is four.
        let east = of("261127050000004+", 0).unwrap().unwrap();
        let utc = of("261127040000000+", 0).unwrap().unwrap();
        let west = of("261127030000004-", 0).unwrap().unwrap();
        assert_eq!((east, west), (utc, utc));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        assert_eq!(of("", 0), Ok(None));
        for bad in ["261127050000000", "261327050000000+", "26112705000000é", "0000010203040R", "261127050000099+", "x"]
        {
            assert_eq!(of(bad, 0), Err(NotATime), "{bad}");
        }
    }
}
