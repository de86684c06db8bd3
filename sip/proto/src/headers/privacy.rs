//! `Privacy: id;critical` (RFC 3323 §4.2, RFC 3325 §9.3, RFC 7044 §10.1).

use crate::message::trim;

/// The set of requested privacy. Tokens that are not known set nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Privacy {
    pub header: bool,
    pub session: bool,
    pub user: bool,
    pub none: bool,
    pub critical: bool,
    /// The asserted identity is not to leave the trust domain.
    pub id: bool,
    /// History-Info entries are not to leave the trust domain.
    pub history: bool,
}

type Field = fn(&mut Privacy) -> &mut bool;

const WORDS: [(&str, Field); 7] = [
    ("header", |p| &mut p.header),
    ("session", |p| &mut p.session),
    ("user", |p| &mut p.user),
    ("none", |p| &mut p.none),
    ("critical", |p| &mut p.critical),
    ("id", |p| &mut p.id),
    ("history", |p| &mut p.history),
];

impl Privacy {
    /// Semicolons separate by the grammar; commas are met in the field and taken too.
    pub fn parse(value: &[u8]) -> Privacy {
        let mut privacy = Privacy::default();
        for token in value.split(|b| matches!(b, b';' | b',')).map(trim) {
            if let Some((_, field)) = WORDS.iter().find(|(w, _)| token.eq_ignore_ascii_case(w.as_bytes())) {
                *field(&mut privacy) = true;
            }
        }
        privacy
    }

    /// Nobody outside the trust domain is to learn from us who this is: not `id` alone asks for that (RFC 3325 §7), for what
    /// `user` and `header` hide, an asserted identity would give away (RFC 3323 §5.1).
    pub fn hides_identity(self) -> bool {
        !self.none && (self.id || self.user || self.header)
    }

    pub fn write(mut self, out: &mut Vec<u8>) {
        let from = out.len();
        for (word, field) in WORDS {
            if *field(&mut self) {
                if out.len() > from {
                    out.push(b';');
                }
                out.extend_from_slice(word.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_any_case_and_order() {
        let p = Privacy::parse(b"Critical ; id;later, USER");
        assert_eq!(p, Privacy { critical: true, id: true, user: true, ..Privacy::default() });
        let mut out = Vec::new();
        p.write(&mut out);
        assert_eq!(out, b"user;critical;id");
        assert_eq!(Privacy::parse(&out), p);
        assert_eq!(Privacy::parse(b""), Privacy::default());
    }
}
