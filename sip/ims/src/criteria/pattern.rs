//! Conditions on a header or a line of a session description: a name and a regular expression (TS 29.228 §B.2.3).

use regex::bytes::{Regex, RegexBuilder};

/// Longest condition, in bytes.
pub const MAX_PATTERN: usize = 256;
/// Most memory that one compiled expression takes, in bytes.
const MAX_PROGRAM: usize = 64 * 1024;
/// Groups within groups.
const MAX_NESTING: u32 = 16;

/// `Name: expression`, `Name`, `!Name: expression` or `!Name`.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub negated: bool,
    pub name: Box<str>,
    /// `None`: any value will do.
    expression: Option<Regex>,
}

/// Why a text is no condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PatternError {
    #[error("longer than {MAX_PATTERN} bytes")]
    TooLong,
    #[error("no name in front of the colon")]
    Name,
    #[error("no regular expression that is read here, or one that takes too much memory")]
    Expression,
}

impl Pattern {
    /// The name is a token; the expression matches anywhere in the value unless it says `^` and `$`.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        if text.len() > MAX_PATTERN {
            return Err(PatternError::TooLong);
        }
        let (negated, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (name, expression) = match rest.split_once(':') {
            Some((name, expression)) => (name, Some(expression.trim_ascii())),
            None => (rest, None),
        };
        let name = name.trim_ascii();
        let token = |b: u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(PatternError::Name);
        }
        let expression = expression.filter(|e| !e.is_empty()).map(expression_of).transpose()?;
        Ok(Pattern { negated, name: name.into(), expression })
    }

    /// Whether it holds for a thing that has these values under its name.
    pub fn holds<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
        let found = match &self.expression {
            None => values.next().is_some(),
            Some(expression) => values.any(|value| expression.is_match(value)),
        };
        found != self.negated
    }
}

/// Compiles a regular expression over octets, bounded in memory; matching takes time linear in the text.
pub fn expression_of(text: &str) -> Result<Regex, PatternError> {
    if text.len() > MAX_PATTERN {
        return Err(PatternError::TooLong);
    }
    let made = RegexBuilder::new(text)
        .unicode(false)
        .size_limit(MAX_PROGRAM)
        .dfa_size_limit(MAX_PROGRAM)
        .nest_limit(MAX_NESTING)
        .build();
    made.map_err(|_| PatternError::Expression)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(pattern: &str, values: &[&str]) -> bool {
        Pattern::parse(pattern).unwrap().holds(values.iter().map(|v| v.as_bytes()))
    }

    #[test]
    fn names_expressions_and_their_negation() {
        assert!(holds("Accept-Contact: mmtel$", &["*;x", "a=mmtel"]));
        assert!(!holds("Accept-Contact: ^mmtel", &["a=mmtel"]));
        assert!(!holds("! Accept-Contact: mmtel", &["a=mmtel"]));
        assert!(holds("!Accept-Contact", &[]) && !holds("Accept-Contact", &[]));
        assert!(holds("c : (a|b){2}", &["xabx"]));
        assert!(holds("Subject:", &["anything"]), "no expression: any value");
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for (text, error) in [
            ("", PatternError::Name),
            ("!", PatternError::Name),
            (": x", PatternError::Name),
            ("a b: x", PatternError::Name),
            ("a: (", PatternError::Expression),
            ("a: (a{1000}){1000}", PatternError::Expression),
            ("a: ((((((((((((((((((((x))))))))))))))))))))", PatternError::Expression),
            (&"x".repeat(MAX_PATTERN + 1), PatternError::TooLong),
        ] {
            assert_eq!(Pattern::parse(text).unwrap_err(), error, "{text}");
        }
    }
}
