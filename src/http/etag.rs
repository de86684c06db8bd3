//! Entity tags and what requests make of them (RFC 9110 §8.8, §13.1).

use axum::http::{HeaderMap, HeaderName, header};
use sip_ims::ports::Version;

/// The tag of one state of a stored document.
pub fn tag(version: Version) -> String {
    format!("\"{:x}\"", version.0)
}

/// The conditions that a request names.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Tags {
    Any,
    /// As they stand there, `W/` included.
    These(Vec<String>),
}

/// 412; for a GET whose If-None-Match did not hold, 304.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failed {
    Match,
    NoneMatch,
}

impl Conditions {
    pub fn of(headers: &HeaderMap) -> Conditions {
        Conditions { if_match: tags(headers, header::IF_MATCH), if_none_match: tags(headers, header::IF_NONE_MATCH) }
    }

    /// Whether they hold for what is there now: its tag, or nothing (§13.2.2).
    pub fn hold(&self, current: Option<&str>) -> Result<(), Failed> {
        if let Some(wanted) = &self.if_match {
            // A weak tag never matches here (§13.1.1).
            let met = match wanted {
                Tags::Any => current.is_some(),
                Tags::These(tags) => current.is_some_and(|c| !c.starts_with("W/") && tags.iter().any(|t| t == c)),
            };
            if !met {
                return Err(Failed::Match);
            }
        }
        if let Some(unwanted) = &self.if_none_match {
            let strong = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
            let met = match unwanted {
                Tags::Any => current.is_some(),
                Tags::These(tags) => current.is_some_and(|c| tags.iter().any(|t| strong(t) == strong(c))),
            };
            if met {
                return Err(Failed::NoneMatch);
            }
        }
        Ok(())
    }
}

fn tags(headers: &HeaderMap, name: HeaderName) -> Option<Tags> {
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    // What is not text is no tag of ours.
    let lists: Vec<&str> = values.filter_map(|v| v.to_str().ok()).collect();
    if lists.iter().any(|list| list.trim() == "*") {
        return Some(Tags::Any);
    }
    // Ours have no commas in them; one that has is torn, and matches nothing, as it should.
    Some(Tags::These(lists.iter().flat_map(|l| l.split(',')).map(|t| t.trim().to_owned()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(lines: &[(HeaderName, &str)]) -> Conditions {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value.parse().unwrap());
        }
        Conditions::of(&headers)
    }

    #[test]
    fn lists_and_stars_are_read() {
        let hold = |lines: &[(HeaderName, &str)], current| conditions(lines).hold(current);
        let (one, two) = ("\"1f\"", "\"20\"");
        assert_eq!(tag(Version(0x1f)), one);
        assert_eq!((hold(&[], None), hold(&[], Some(one))), (Ok(()), Ok(())));
        for (value, meets) in
            [(one, true), ("\"x\", \"1f\"", true), ("*", true), (two, false), ("W/\"1f\"", false), ("", false)]
        {
            let wanted = if meets { Ok(()) } else { Err(Failed::Match) };
            assert_eq!(hold(&[(header::IF_MATCH, value)], Some(one)), wanted, "{value}");
            assert_eq!(hold(&[(header::IF_MATCH, value)], None), Err(Failed::Match), "{value}");
        }
        for (value, meets) in [(one, true), ("\"x\",\"1f\"", true), ("*", true), ("W/\"1f\"", true), (two, false)] {
            let wanted = if meets { Err(Failed::NoneMatch) } else { Ok(()) };
            assert_eq!(hold(&[(header::IF_NONE_MATCH, value)], Some(one)), wanted, "{value}");
            assert_eq!(hold(&[(header::IF_NONE_MATCH, value)], None), Ok(()), "{value}");
        }
        let several = [(header::IF_MATCH, two), (header::IF_MATCH, one)];
        assert_eq!((hold(&several, Some(one)), hold(&several, Some("\"3\""))), (Ok(()), Err(Failed::Match)));
    }
}
