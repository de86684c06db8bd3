//! DateTime values (RFC 3339).

use time::OffsetDateTime;

/// `2008-04-04T12:16:49Z`. `unix`: seconds since 1970; later than the year 9999 becomes its last second.
pub fn date_time(unix: u64) -> String {
    const LAST: i64 = 253_402_300_799;
    let seconds = i64::try_from(unix).unwrap_or(LAST).min(LAST);
    // Within the range of four-digit years, so it cannot fail.
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leap_days_and_the_ends_of_time() {
        assert_eq!(date_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(date_time(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date_time(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(date_time(u64::MAX), "9999-12-31T23:59:59Z");
    }
}
