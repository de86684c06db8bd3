//! `Date: Sat, 13 Nov 2010 23:29:00 GMT` (RFC 3261 §20.17, RFC 1123; GMT only).

const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// A point in time as unix seconds, from 1970 to the end of 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Date(u64);

impl Date {
    /// The last second of 9999.
    const MAX: u64 = 253_402_300_799;

    /// Later points become the last one that can be written.
    pub fn from_unix(seconds: u64) -> Date {
        Date(seconds.min(Date::MAX))
    }

    pub fn unix(self) -> u64 {
        self.0
    }

    /// The weekday's name is read but not held against the date.
    pub fn parse(value: &[u8]) -> Option<Date> {
        // "Sat, 13 Nov 2010 23:29:00 GMT"
        //  0    5  8   12   17 20 23 26
        if value.len() != 29 || !DAYS.iter().any(|d| d[..].eq_ignore_ascii_case(&value[..3])) {
            return None;
        }
        for (at, text) in [(3, &b", "[..]), (7, b" "), (11, b" "), (16, b" "), (19, b":"), (22, b":"), (25, b" GMT")] {
            if &value[at..at + text.len()] != text {
                return None;
            }
        }
        let number = |at: usize, len: usize| crate::message::decimal(&value[at..at + len]);
        let month = MONTHS.iter().position(|m| m[..].eq_ignore_ascii_case(&value[8..11]))? as u64 + 1;
        let (day, year) = (number(5, 2)?, number(12, 4)?);
        let (hour, minute, second) = (number(17, 2)?, number(20, 2)?, number(23, 2)?);
        if year < 1970 || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let days = days_from_civil(year, month, day);
        // A day that the month does not have comes back as another date.
        if civil_from_days(days) != (year, month, day) {
            return None;
        }
        Some(Date::from_unix(days * 86_400 + hour * 3600 + minute * 60 + second))
    }

    pub fn write(self, out: &mut Vec<u8>) {
        let (days, rest) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = civil_from_days(days);
        let mut text = *b"Sat, 13 Nov 2010 23:29:00 GMT";
        text[..3].copy_from_slice(DAYS[(days % 7) as usize]);
        text[8..11].copy_from_slice(MONTHS[month as usize - 1]);
        let pairs =
            [(5, day), (12, year / 100), (14, year % 100), (17, rest / 3600), (20, rest / 60 % 60), (23, rest % 60)];
        for (at, n) in pairs {
            text[at..at + 2].copy_from_slice(&[b'0' + (n / 10) as u8, b'0' + (n % 10) as u8]);
        }
        out.extend_from_slice(&text);
    }
}

/// Days since 1970-01-01 of a Gregorian date from 1970 on; years are counted from March so that the leap day is last.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - day.min(1);
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = (shifted + 2) % 12 + 1;
    (era * 400 + year + u64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(Date::parse(b"Sat, 13 Nov 2010 23:29:00 GMT").unwrap().unix(), 1_289_690_940);
    }

    #[test]
    fn every_day_reads_back() {
        for days in 0..200_000 {
            let date = Date::from_unix(days * 86_400 + days % 86_400);
            let mut out = Vec::new();
            date.write(&mut out);
            assert_eq!(Date::parse(&out), Some(date), "{}", String::from_utf8_lossy(&out));
        }
        let mut out = Vec::new();
        Date::from_unix(u64::MAX).write(&mut out);
        assert_eq!(out, b"Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn other_zones_and_days_that_are_not_are_refused() {
        for bad in [
            "Fri, 01 Jan 2010 16:00:00 EST",
            "Sat, 30 Feb 2010 23:29:00 GMT",
            "Sat, 00 Nov 2010 23:29:00 GMT",
            "Sat, 13 Nov 1969 23:29:00 GMT",
            "Sat, 13 Nov 2010 24:00:00 GMT",
            "Sat, 1 Nov 2010 23:29:00 GMT",
            "",
            "Sat, 29 Feb 2100 00:00:00 GMT",
            "Sat, 00 Jan 1970 00:00:00 GMT",
        ] {
            assert_eq!(Date::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
