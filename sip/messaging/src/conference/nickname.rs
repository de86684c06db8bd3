//! Nicknames (RFC 7701 §7), compared as RFC 8266 has it.

use unicode_normalization::UnicodeNormalization;

/// Octets (RFC 7701 §7.1).
const MAX: usize = 1023;

/// A nickname as it is shown: blanks at its ends taken away, others made one. `None`: not to be used, 424. Empty: no
/// nickname (§7.3).
pub fn shown(name: &str) -> Option<String> {
    if name.len() > MAX || name.chars().any(char::is_control) {
        return None;
    }
    Some(name.split(char::is_whitespace).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
}

/// The same for names that look alike (RFC 8266 §2.4).
pub fn folded(name: &str) -> String {
    let lower: String = name.nfkc().flat_map(char::to_lowercase).nfkc().collect();
    lower.split(char::is_whitespace).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_alike() {
        for (a, b) in [("Alice", "alice"), ("  Swan  of   Avon ", "swan of avon"), ("ﬁne", "fine"), ("Å", "a\u{30a}")]
        {
            assert_eq!(folded(a), folded(b), "{a} {b}");
        }
        assert_ne!(folded("BOY"), folded("B0Y"));
        assert_eq!(shown("  Dopey   Donkey "), Some("Dopey Donkey".to_owned()));
        assert_eq!(shown(""), Some(String::new()));
        assert_eq!(shown("a\u{7}"), None);
        assert_eq!(shown(&"x".repeat(1024)), None);
    }
}
