//! Simple types (XML Schema Part 2), as far as they are used.

use std::fmt;

use sip_xml::is_nc_name;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Simple {
    /// `xs:string`.
    Text,
    /// `xs:anyURI`: what becomes a URI reference when it is escaped (Part 2 §3.2.17).
    Uri,
    /// `xs:ID`: one of its kind in a document.
    Id,
    Boolean,
    DateTime,
    /// `xs:language`.
    Language,
    /// `qvalue` of PIDF.
    Priority,
    /// One of these `xs:string`s.
    OneOf(&'static [&'static str]),
    /// One of these `xs:token`s: blanks around it do not count.
    Token(&'static [&'static str]),
}

impl fmt::Display for Simple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Simple::Text => f.write_str("text"),
            Simple::Uri => f.write_str("URI"),
            Simple::Id => f.write_str("ID"),
            Simple::Boolean => f.write_str("boolean"),
            Simple::DateTime => f.write_str("dateTime"),
            Simple::Language => f.write_str("language"),
            Simple::Priority => f.write_str("number from 0 to 1"),
            Simple::OneOf(words) | Simple::Token(words) => f.write_str(&words.join(" or ")),
        }
    }
}

impl Simple {
    pub fn takes(self, text: &str) -> bool {
        // Nearly all of them collapse blanks.
        let collapsed = text.trim_matches([' ', '\t', '\r', '\n']);
        match self {
            Simple::Text => true,
            Simple::Uri => is_reference(collapsed),
            Simple::Id => is_nc_name(collapsed),
            Simple::Boolean => matches!(collapsed, "true" | "false" | "1" | "0"),
            Simple::DateTime => date_time(collapsed).is_some(),
            Simple::Language => {
                let mut parts = collapsed.split('-');
                let part = |p: &str| matches!(p.len(), 1..=8) && p.bytes().all(|b| b.is_ascii_alphanumeric());
                parts.next().is_some_and(|p| part(p) && p.bytes().all(|b| b.is_ascii_alphabetic())) && parts.all(part)
            }
            // Its patterns are `0(.[0-9]{0,3})?` and `1(.0{0,3})?`, of a decimal.
            Simple::Priority => {
                let (whole, rest) = collapsed.split_at_checked(1).unwrap_or(("", ""));
                let digits = match rest {
                    "" => "",
                    rest => match rest.strip_prefix('.') {
                        Some(digits) => digits,
                        None => return false,
                    },
                };
                let fits = |b: u8| if whole == "0" { b.is_ascii_digit() } else { b == b'0' };
                matches!(whole, "0" | "1") && digits.len() <= 3 && digits.bytes().all(fits)
            }
            Simple::OneOf(words) => words.contains(&text),
            Simple::Token(words) => words.contains(&collapsed),
        }
    }
}

/// RFC 3986 §4.1, as far as escaping cannot mend it: a scheme is one, and there is one fragment.
fn is_reference(text: &str) -> bool {
    let first = text.split(['/', '?', '#']).next().unwrap_or_default();
    let scheme = first.split_once(':').map(|(scheme, _)| scheme);
    let is_scheme = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    };
    scheme.is_none_or(is_scheme) && text.matches('#').count() <= 1
}

/// `-?YYYY-MM-DDThh:mm:ss(.s+)?(Z|±hh:mm)?` (Part 2 §3.2.7.1).
fn date_time(text: &str) -> Option<()> {
    let (date, time) = text.strip_prefix('-').unwrap_or(text).split_once('T')?;
    let mut date = date.split('-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let long = year.len() > 4 && year.starts_with('0');
    if date.next().is_some() || year.len() < 4 || year.len() > 9 || !digits(year) || long || year == "0000" {
        return None;
    }
    let year: u32 = year.parse().ok()?;
    let month = two(month, 1..=12)?;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    two(day, 1..=days)?;
    let (time, zone) = time.split_at(time.find(['Z', '+', '-']).unwrap_or(time.len()));
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = clock.split(':');
    let (hour, minute, second) = (clock.next()?, clock.next()?, clock.next()?);
    let midnight = hour == "24" && minute == "00" && second == "00" && fraction.bytes().all(|b| b == b'0');
    if !midnight {
        two(hour, 0..=23)?;
    }
    two(minute, 0..=59)?;
    two(second, 0..=59)?;
    if clock.next().is_some() || fraction.is_empty() || !digits(fraction) {
        return None;
    }
    match zone {
        "" | "Z" => Some(()),
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let (hours, minutes) = (two(hours, 0..=14)?, two(minutes, 0..=59)?);
            (zone != "Z" && (hours < 14 || minutes == 0) && !zone.starts_with('Z')).then_some(())
        }
    }
}

fn two(text: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && range.contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_xml_schema_has_them() {
        for good in [
            "2001-10-27T16:49:29Z",
            "2024-02-29T00:00:00",
            "2003-12-24T17:00:00+01:00",
            "2003-12-24T24:00:00.00Z",
            " 2003-12-24T17:00:00.123-14:00 ",
            "-0044-03-15T12:00:00Z",
            "12004-01-01T00:00:00Z",
        ] {
            assert!(Simple::DateTime.takes(good), "{good}");
        }
        for bad in [
            "",
            "T",
            "2001-10-27",
            "2001-10-27 16:49:29Z",
            "2001-02-29T00:00:00Z",
            "2001-13-01T00:00:00Z",
            "2001-1-01T00:00:00Z",
            "01-01-01T00:00:00Z",
            "2001-01-01T24:00:01Z",
            "2001-01-01T00:60:00Z",
            "2001-01-01T00:00:00.Z",
            "2001-01-01T00:00Z",
            "2001-01-01T00:00:00+1:00",
            "2001-01-01T00:00:00+14:01",
            "2001-01-01T00:00:00ZZ",
            "0000-01-01T00:00:00Z",
            "2001-01-01T00:00:00Z1:00",
        ] {
            assert!(!Simple::DateTime.takes(bad), "{bad}");
        }
    }

    #[test]
    fn words_and_numbers() {
        let all = |value: Simple, good: &[&str], bad: &[&str]| {
            good.iter().for_each(|g| assert!(value.takes(g), "{value}: {g}"));
            bad.iter().for_each(|b| assert!(!value.takes(b), "{value}: {b}"));
        };
        all(Simple::Boolean, &["true", "false", "1", "0", " true\n"], &["", "yes", "TRUE", "2"]);
        all(Simple::Uri, &["", "a b", "sip:a@h", "a/b:c", "#x", "http://h/\u{e9}"], &["1:a", ":a", "a b:c", "a#b#c"]);
        all(Simple::Id, &["a", "_1", "é", " a "], &["", "1", "a b", "a:b"]);
        all(Simple::Language, &["de", "en-GB", "x-klingon", "zh-Hans-CN"], &["", "1", "de_AT", "toolonglang", "de-"]);
        all(
            Simple::Priority,
            &["0", "1", "0.", "0.5", "0.999", "1.000"],
            &["", ".5", "1.1", "2", "0.1234", "-0", "0,5"],
        );
        all(Simple::OneOf(&["open", "closed"]), &["open"], &[" open", "Open", ""]);
        all(Simple::Token(&["allow"]), &["allow", "\n allow "], &["al low", "deny"]);
    }
}
