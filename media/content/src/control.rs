//! What the operator lets pass: files, messages, sessions, each by rules of its own. Content is judged when it is whole and before
//! anybody else gets a byte of it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;

use crate::scanner::{Finding, Scanner};

/// What became of a file or message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Passed,
    Refused(Reason),
}

/// Why something does not pass; in words for both sides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Its type is one of those that do not.
    Type(String),
    /// Larger than so many bytes.
    Size(u64),
    /// What the scanner found.
    Found(String),
    /// The scanner could not look at it, and what it cannot look at does not pass.
    Unscanned,
    /// Its bytes are not those that were promised.
    Hash,
    /// There was no place for it, or no way to tell of it.
    Unkept,
    /// Its sender has used up the day's share.
    Share,
}

impl Reason {
    /// The status of SIP, and of MSRP, for it. HTTP has its own.
    pub fn status(&self) -> u16 {
        match self {
            Reason::Type(_) => 415,
            Reason::Size(_) | Reason::Share => 413,
            Reason::Found(_) | Reason::Unscanned => 403,
            Reason::Hash => 400,
            Reason::Unkept => 408,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Type(media_type) => write!(f, "content of type {media_type} does not pass"),
            Reason::Size(most) => write!(f, "more than {most} bytes do not pass"),
            Reason::Found(name) => write!(f, "the virus scanner found {name}"),
            Reason::Unscanned => f.write_str("the virus scanner is not there"),
            Reason::Hash => f.write_str("the file is not the one that was offered"),
            Reason::Unkept => f.write_str("the file could not be kept"),
            Reason::Share => f.write_str("today's share is used up"),
        }
    }
}

/// The operator's rules for one part of the server.
pub struct Control {
    /// Types that do not pass: `application/x-msdownload`, or `video/*`.
    refused_types: Vec<String>,
    /// The largest that passes, in bytes.
    max_size: u64,
    scanner: Option<Arc<Scanner>>,
    /// What the scanner cannot look at passes.
    fail_open: bool,
}

impl Control {
    pub fn new(refused_types: &[String], max_size: u64, scanner: Option<Arc<Scanner>>, fail_open: bool) -> Control {
        let refused_types = refused_types.iter().map(|t| t.to_ascii_lowercase()).collect();
        Control { refused_types, max_size, scanner, fail_open }
    }

    /// There is no rule that something could fall foul of.
    pub fn is_idle(&self) -> bool {
        self.scanner.is_none() && self.refused_types.is_empty() && self.max_size == u64::MAX
    }

    /// Whether content has to be whole before anything can be said of it.
    pub fn scans(&self) -> bool {
        self.scanner.is_some()
    }

    pub fn max_size(&self) -> u64 {
        self.max_size
    }

    /// Whether a type passes, parameters aside. Asked before a file is taken.
    pub fn admits_type(&self, media_type: &str) -> Result<(), Reason> {
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let matches = |rule: &String| match rule.strip_suffix('*') {
            Some(start) => media_type.starts_with(start),
            None => media_type == *rule,
        };
        if self.refused_types.iter().any(matches) { Err(Reason::Type(media_type)) } else { Ok(()) }
    }

    pub fn admits_size(&self, size: u64) -> Result<(), Reason> {
        if size > self.max_size { Err(Reason::Size(self.max_size)) } else { Ok(()) }
    }

    /// `read` gives the content from its start, each time it is called.
    pub async fn judge<S>(&self, read: impl Fn() -> S) -> Verdict
    where
        S: Stream<Item = Result<Bytes, String>>,
    {
        let Some(scanner) = &self.scanner else { return Verdict::Passed };
        match scanner.scan(read).await {
            Ok(Finding::Clean) => Verdict::Passed,
            Ok(Finding::Found(name)) => Verdict::Refused(Reason::Found(name)),
            Err(error) => {
                tracing::warn!(%error, passes = self.fail_open, "content could not be scanned");
                if self.fail_open { Verdict::Passed } else { Verdict::Refused(Reason::Unscanned) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_refused_by_name_and_by_kind() {
        let control = Control::new(&["application/x-msdownload".into(), "Video/*".into()], u64::MAX, None, false);
        for (media_type, admitted) in [
            ("image/jpeg", true),
            ("application/x-msdownload", false),
            ("Application/X-MSDownload; name=a.exe", false),
            ("application/x-msdownload2", true),
            ("video/mp4", false),
        ] {
            assert_eq!(control.admits_type(media_type).is_ok(), admitted, "{media_type}");
        }
        assert!(!control.is_idle() && Control::new(&[], u64::MAX, None, false).is_idle());
        assert_eq!(Control::new(&[], 5, None, false).admits_size(6), Err(Reason::Size(5)));
    }
}
