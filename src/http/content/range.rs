//! Ranges of bytes (RFC 9110 §14): what a download asks for, and where an upload goes on.

use std::ops::Range;

/// What of a file is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    Whole,
    Part(Range<u64>),
    /// 416.
    Nothing,
}

/// Of a `Range` header. Several ranges, and what is not understood, get the whole (§14.2).
pub fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(one) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else { return Wanted::Whole };
    let Some((first, last)) = one.trim().split_once('-') else { return Wanted::Whole };
    match (number(first), number(last)) {
        // The last so many bytes.
        (None, Some(n)) if first.is_empty() && n > 0 && size > 0 => Wanted::Part(size.saturating_sub(n)..size),
        (None, Some(_)) if first.is_empty() => Wanted::Nothing,
        (Some(first), Some(last)) if first > last => Wanted::Whole,
        (Some(first), _) if first >= size => Wanted::Nothing,
        (Some(first), Some(last)) => Wanted::Part(first..size.min(last.saturating_add(1))),
        (Some(first), None) if last.is_empty() => Wanted::Part(first..size),
        _ => Wanted::Whole,
    }
}

/// `bytes 100-199/200`: the range, and the size of the whole.
pub fn content_range(header: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = header.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (number(first)?, number(last)?, number(size)?);
    (first <= last && last < size).then(|| (first..last + 1, size))
}

fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted() {
        for (header, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=5-", Wanted::Part(5..10)),
            ("bytes=5-100", Wanted::Part(5..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=18446744073709551615-18446744073709551615", Wanted::Nothing),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=0-1,4-5", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(header), 10), expected, "{header}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Nothing);
        assert_eq!(wanted(Some("bytes=-1"), 0), Wanted::Nothing);
    }

    #[test]
    fn where_an_upload_goes_on() {
        assert_eq!(content_range("bytes 100-199/200"), Some((100..200, 200)));
        for bad in
            ["bytes 100-200/200", "bytes 5-4/9", "bytes */9", "bytes 0-1/*", "0-1/2", "bytes 0-18446744073709551615/1"]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
