//! The files that an operator's billing system reads: CSV between a header and a trailer with a checksum.
//!
//! ```text
//! H,isthmus,sms,day,2026-11-26,+09:00,1,2026-11-27T00:01:00+09:00      period, zone, run, written at
//! client,result,requests,segments
//! 12345678901,0000,120,131
//! T,1,120,131,9f86d081…                                                 rows, sums, SHA-256 of all lines before
//! ```

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::Calendar;
use crate::queue::{Total, Verdict};

/// What a file is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Period {
    Day,
    Month,
}

impl Period {
    pub fn as_str(self) -> &'static str {
        match self {
            Period::Day => "day",
            Period::Month => "month",
        }
    }
}

/// The text of a file. `name`: the day or month; `run` counts the files of that period; `at`: unix milliseconds.
pub fn text(
    period: Period,
    name: &str,
    zone: &str,
    run: u32,
    at: i64,
    calendar: &Calendar,
    totals: &[Total],
) -> String {
    let mut sums: BTreeMap<(&str, Verdict), (i64, i64)> = BTreeMap::new();
    for total in totals {
        let sum = sums.entry((&total.client, total.verdict)).or_default();
        sum.0 += total.requests;
        sum.1 += total.segments;
    }
    let written = calendar.timestamp(at);
    let mut text =
        format!("H,isthmus,sms,{},{name},{zone},{run},{written}\nclient,result,requests,segments\n", period.as_str());
    let (mut requests, mut segments) = (0, 0);
    for ((client, verdict), (r, s)) in &sums {
        text.push_str(&format!("{},{},{r},{s}\n", quoted(client), result(*verdict)));
        requests += r;
        segments += s;
    }
    let checksum: String = Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    text.push_str(&format!("T,{},{requests},{segments},{checksum}\n", sums.len()));
    text
}

/// The code of the interface, or a word for what has none.
fn result(verdict: Verdict) -> String {
    if verdict == Verdict::CANCELLED { "cancelled".to_owned() } else { format!("{:04}", verdict.0) }
}

/// RFC 4180 §2.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(client: &str, verdict: u16, requests: i64, segments: i64) -> Total {
        Total { day: "2026-11-26".into(), client: client.into(), verdict: Verdict(verdict), requests, segments }
    }

    #[test]
    fn days_add_up_and_the_trailer_seals_them() {
        let totals = [total("12345678901", 0, 2, 3), total("12345678901", 0, 1, 1), total("a,b", 1, 1, 2)];
        let calendar = Calendar::parse("+09:00").unwrap();
        let text = text(Period::Month, "2026-11", "+09:00", 2, 1_795_707_000_000, &calendar, &totals);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "H,isthmus,sms,month,2026-11,+09:00,2,2026-11-27T00:30:00+09:00");
        assert_eq!(lines[2..4], ["12345678901,0000,3,4", "\"a,b\",cancelled,1,2"]);
        let before = &text[..text.rfind("T,").unwrap()];
        let checksum: String = Sha256::digest(before.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(lines[4], format!("T,2,4,6,{checksum}"));
    }
}
