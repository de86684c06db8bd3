//! Time stamps (TS 23.040 §9.2.3.11) and validity periods (§9.2.3.12).

use std::time::Duration;

/// Seven swapped semi-octet pairs: year, month, day, hour, minute, second, zone in quarters of an hour. Kept as received.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Timestamp(pub [u8; 7]);

impl Timestamp {
    /// `unix` seconds in a zone of `quarters` of an hour east of UTC (-79 to 79).
    pub fn from_unix(unix: i64, quarters: i8) -> Timestamp {
        let local = unix + i64::from(quarters) * 900;
        let (year, month, day) = civil(local.div_euclid(86_400));
        let second = local.rem_euclid(86_400);
        let zone = quarters.unsigned_abs().min(79);
        let two = |n: i64| swapped(n.rem_euclid(100) as u8);
        Timestamp([
            two(year),
            two(month),
            two(day),
            two(second / 3600),
            two(second / 60 % 60),
            two(second % 60),
            swapped(zone) | if quarters < 0 { 0x08 } else { 0 },
        ])
    }

    /// `None` if it is no time. Years from 90 on are of the last century.
    pub fn to_unix(self) -> Option<i64> {
        let [year, month, day, hour, minute, second, zone] = self.0;
        let two =
            |octet: u8| (octet & 0x0F <= 9 && octet >> 4 <= 9).then(|| i64::from((octet & 0x0F) * 10 + (octet >> 4)));
        let year = two(year)?;
        let year = if year < 90 { 2000 + year } else { 1900 + year };
        let (month, day) = (two(month)?, two(day)?);
        let (hour, minute, second) = (two(hour)?, two(minute)?, two(second)?);
        let quarters = two(zone & 0xF7)? * if zone & 0x08 == 0 { 1 } else { -1 };
        let sensible = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
        sensible.then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - quarters * 900)
    }
}

fn swapped(n: u8) -> u8 {
    (n / 10) | ((n % 10) << 4)
}

/// Days since 1970-01-01 of a civil date, and back (Hinnant's algorithms for the proleptic Gregorian calendar).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day = shifted.rem_euclid(146_097);
    let of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * of_era + of_era / 4 - of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let civil_month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + of_era + i64::from(civil_month <= 2);
    (year, civil_month, of_year - (153 * month + 2) / 5 + 1)
}

/// TP-VP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Validity {
    Relative(u8),
    Absolute(Timestamp),
    /// Kept as it came: functionality indicator and six octets.
    Enhanced([u8; 7]),
}

impl Validity {
    /// The shortest relative period that is not below `period`; at most 63 weeks.
    pub fn relative(period: Duration) -> Validity {
        let minutes = period.as_secs().div_ceil(60);
        let step = |n: u64| n.try_into().unwrap_or(u8::MAX);
        Validity::Relative(match minutes {
            0..=720 => step(minutes.div_ceil(5).max(1) - 1),
            721..=1440 => step((minutes - 720).div_ceil(30) + 143),
            1441..=43_200 => step(minutes.div_ceil(1440) + 166),
            _ => step((minutes.div_ceil(10_080) + 192).min(255)),
        })
    }

    /// From acceptance at `unix` seconds on; `None` if none is given or it is no time.
    pub fn period(self, unix: i64) -> Option<Duration> {
        match self {
            Validity::Relative(value) => Some(relative(value)),
            Validity::Absolute(end) => Some(Duration::from_secs(u64::try_from(end.to_unix()? - unix).unwrap_or(0))),
            Validity::Enhanced([indicator, a, b, c, ..]) => match indicator & 7 {
                1 => Some(relative(a)),
                2 if a != 0 => Some(Duration::from_secs(u64::from(a))),
                3 => {
                    let two = |o: u8| u64::from(o & 0x0F) * 10 + u64::from(o >> 4);
                    Some(Duration::from_secs(two(a) * 3600 + two(b) * 60 + two(c)))
                }
                _ => None,
            },
        }
    }

    /// TP-VPF.
    pub(super) fn format(validity: Option<Validity>) -> u8 {
        match validity {
            None => 0,
            Some(Validity::Enhanced(_)) => 1,
            Some(Validity::Relative(_)) => 2,
            Some(Validity::Absolute(_)) => 3,
        }
    }
}

fn relative(value: u8) -> Duration {
    let value = u64::from(value);
    let minutes = match value {
        0..=143 => (value + 1) * 5,
        144..=167 => 720 + (value - 143) * 30,
        168..=196 => (value - 166) * 1440,
        _ => (value - 192) * 10_080,
    };
    Duration::from_secs(minutes * 60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stamp_of_the_field_reads_as_its_time() {
        // 2011-12-02 13:07:54 -06:00
        let stamp = Timestamp([0x11, 0x21, 0x20, 0x31, 0x70, 0x45, 0x4A]);
        assert_eq!(stamp.to_unix(), Some(1_322_852_874));
        assert_eq!(Timestamp::from_unix(1_322_852_874, -24), stamp);
        assert_eq!(Timestamp([0xFF; 7]).to_unix(), None);
    }

    #[test]
    fn relative_periods_at_the_seams() {
        for (seconds, value) in [
            (0, 0),
            (300, 0),
            (301, 1),
            (43_200, 143),
            (43_201, 144),
            (86_400, 167),
            (86_401, 168),
            (30 * 86_400, 196),
            (u64::MAX, 255),
        ] {
            assert_eq!(Validity::relative(Duration::from_secs(seconds)), Validity::Relative(value), "{seconds}");
        }
    }

    #[test]
    fn enhanced_periods_in_each_format() {
        let period = |octets| Validity::Enhanced(octets).period(0);
        assert_eq!(period([1, 0, 0, 0, 0, 0, 0]), Some(Duration::from_secs(300)));
        assert_eq!(period([2, 45, 0, 0, 0, 0, 0]), Some(Duration::from_secs(45)));
        assert_eq!(period([3, 0x10, 0x20, 0x30, 0, 0, 0]), Some(Duration::from_secs(3723)));
        assert_eq!(period([0x40, 0, 0, 0, 0, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn times_read_back(unix in 946_684_800i64..3_786_825_600, quarters in -48i8..57) {
            prop_assert_eq!(Timestamp::from_unix(unix, quarters).to_unix(), Some(unix));
        }

        #[test]
        fn a_relative_period_is_never_shorter_than_asked(seconds in 0u64..63 * 7 * 86_400) {
            let wanted = Duration::from_secs(seconds);
            prop_assert!(Validity::relative(wanted).period(0).unwrap() >= wanted);
        }
    }
}
