//! Days as the operator counts them.

use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};

/// The operator's time zone, with the current day at hand: most questions are about it.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
    today: Option<Day>,
}

#[derive(Clone, Debug)]
struct Day {
    name: Arc<str>,
    /// Unix milliseconds: from midnight to the next.
    from: i64,
    to: i64,
}

/// Neither an offset such as `+09:00` nor a zone that this system knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is neither an offset such as \"+09:00\" nor a zone of this system such as \"Asia/Tokyo\"")]
pub struct UnknownZone;

impl Calendar {
    pub fn utc() -> Calendar {
        Calendar { zone: TimeZone::UTC, today: None }
    }

    /// `UTC`, an offset such as `+09:00`, or a name of the IANA database such as `Asia/Tokyo`.
    pub fn parse(zone: &str) -> Result<Calendar, UnknownZone> {
        let zone = match zone {
            "UTC" | "" => TimeZone::UTC,
            offset if offset.starts_with(['+', '-']) => TimeZone::fixed(offset_of(offset).ok_or(UnknownZone)?),
            name => TimeZone::get(name).map_err(|_| UnknownZone)?,
        };
        Ok(Calendar { zone, today: None })
    }

    /// `YYYY-MM-DD`.
    pub fn day(&mut self, unix_ms: i64) -> Arc<str> {
        if let Some(day) = self.today.as_ref().filter(|d| (d.from..d.to).contains(&unix_ms)) {
            return day.name.clone();
        }
        let date = self.at(unix_ms).date();
        let name: Arc<str> = date.to_string().into();
        if let (Some(from), Some(to)) = (self.midnight(date), date.tomorrow().ok().and_then(|d| self.midnight(d))) {
            self.today = Some(Day { name: name.clone(), from, to });
        }
        name
    }

    /// As RFC 3339 has it, with the zone's offset: `2026-11-27T14:00:00+09:00`.
    pub fn timestamp(&self, unix_ms: i64) -> String {
        let at = self.at(unix_ms);
        at.timestamp().display_with_offset(at.offset()).to_string().split_once('.').map_or_else(
            || at.timestamp().display_with_offset(at.offset()).to_string(),
            |(seconds, rest)| {
                let offset = rest.find(['+', '-', 'Z']).map_or("", |at| &rest[at..]);
                format!("{seconds}{offset}")
            },
        )
    }

    /// The last `count` days that are over at this moment, the newest first, and whether each ends its month.
    pub fn days_before(&self, unix_ms: i64, count: usize) -> Vec<(String, bool)> {
        let today = self.at(unix_ms).date();
        let days = std::iter::successors(today.yesterday().ok(), |date| date.yesterday().ok());
        days.take(count).map(|date| (date.to_string(), date == date.last_of_month())).collect()
    }

    /// Unix milliseconds of the midnight after this moment.
    pub fn next_midnight(&self, unix_ms: i64) -> i64 {
        let date = self.at(unix_ms).date();
        date.tomorrow().ok().and_then(|d| self.midnight(d)).unwrap_or(unix_ms + 86_400_000)
    }

    fn at(&self, unix_ms: i64) -> Zoned {
        Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(self.zone.clone())
    }

    fn midnight(&self, date: Date) -> Option<i64> {
        date.to_zoned(self.zone.clone()).ok().map(|z| z.timestamp().as_millisecond())
    }
}

/// The first and last day of `YYYY-MM`. `None`: not a month.
pub fn month(text: &str) -> Option<(String, String)> {
    let first: Date =
        format!("{text}-01").parse().ok().filter(|d: &Date| d.to_string().len() == 10 && text.len() == 7)?;
    Some((first.to_string(), first.last_of_month().to_string()))
}

/// Unix seconds of an RFC 3339 time.
pub fn unix_seconds(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// Whether this is a day, `YYYY-MM-DD`.
pub fn is_day(text: &str) -> bool {
    text.parse::<Date>().is_ok_and(|d| d.to_string() == text)
}

fn offset_of(text: &str) -> Option<Offset> {
    let (sign, rest) = text.split_at_checked(1)?;
    let (hours, minutes) = rest.split_once(':')?;
    let number = |t: &str| (t.len() == 2).then(|| t.parse::<i32>().ok()).flatten();
    let seconds = number(hours)? * 3600 + number(minutes).filter(|m| *m < 60)? * 60;
    Offset::from_seconds(if sign == "-" { -seconds } else { seconds }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_the_operators_midnight() {
        // 2026-11-27 00:30 in Tokyo.
        let at = 1_795_707_000_000;
        let mut tokyo = Calendar::parse("+09:00").unwrap();
        assert_eq!((&*tokyo.day(at), &*Calendar::utc().day(at)), ("2026-11-27", "2026-11-26"));
        assert_eq!(&*tokyo.day(at - 1_800_001), "2026-11-26");
        assert_eq!(&*tokyo.day(at - 1_800_000), "2026-11-27");
        assert_eq!(tokyo.timestamp(at), "2026-11-27T00:30:00+09:00");
        let days = tokyo.days_before(at + 4 * 86_400_000, 2);
        assert_eq!(days, [("2026-11-30".to_owned(), true), ("2026-11-29".to_owned(), false)]);
        assert_eq!(tokyo.next_midnight(at), at + 84_600_000);
    }

    #[test]
    fn zones_are_offsets_or_names() {
        for good in ["UTC", "", "-03:30", "+14:00"] {
            assert!(Calendar::parse(good).is_ok(), "{good}");
        }
        for bad in ["+9", "+09:60", "+0900", "Middle/Earth", "+99:00"] {
            assert!(Calendar::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn months_have_their_own_length() {
        assert_eq!(month("2028-02"), Some(("2028-02-01".into(), "2028-02-29".into())));
        assert_eq!(month("2026-12").unwrap().1, "2026-12-31");
        for bad in ["2026-13", "2026", "26-01", "2026-1"] {
            assert_eq!(month(bad), None, "{bad}");
        }
        assert!(is_day("2026-11-27") && !is_day("2026-11-31") && !is_day("20261127"));
    }
}
