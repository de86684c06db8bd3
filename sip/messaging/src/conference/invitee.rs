//! Whom a room asks in.

use sip_ims::Home;
use sip_proto::uri::{Scheme, Uri};

use super::entity;
use crate::agent::Callee;

/// Somebody to be asked in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invitee {
    /// As rooms name people: `sip:alice@example.com`.
    pub entity: Box<str>,
    pub callee: Callee,
}

impl Invitee {
    /// `None`: this is nobody who can be called.
    pub fn of(home: &Home, uri: &[u8]) -> Option<Invitee> {
        let uri = Uri::parse(uri).filter(Uri::is_sip)?;
        if let Some(aor) = home.aor(&uri) {
            return Some(Invitee { entity: format!("sip:{aor}").into(), callee: Callee::User(aor) });
        }
        // One of our addresses, and nobody there.
        if home.is_us(&uri) || home.is_domain(uri.host()) {
            return None;
        }
        let entity = entity(uri.as_bytes())?;
        Some(Invitee { entity: entity.into(), callee: Callee::Foreign(callable(&uri, uri.user()?)?.into()) })
    }

    pub fn is_foreign(&self) -> bool {
        matches!(self.callee, Callee::Foreign(_))
    }
}

/// What leads to a user, without what a Refer-To says beside (`method`, headers).
fn callable(uri: &Uri<'_>, user: &[u8]) -> Option<String> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let scheme = if uri.scheme() == Scheme::Sips { "sips" } else { "sip" };
    let mut out = format!("{scheme}:{}@{}", text(user)?, text(uri.host())?);
    if let Some(port) = uri.port() {
        out += &format!(":{port}");
    }
    if let Some(transport) = uri.transport() {
        out += &format!(";transport={}", text(transport)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use sip_proto::Transport;

    use super::*;

    #[test]
    fn users_of_ours_are_told_from_those_of_others() {
        let home = Home::new("example.com", [(Transport::Udp, "127.0.0.1:5060".parse().unwrap())]);
        let of = |uri: &str| {
            let invitee = Invitee::of(&home, uri.as_bytes())?;
            Some((invitee.entity.to_string(), invitee.callee.uri(), invitee.is_foreign()))
        };
        let ours = Some(("sip:bob@example.com".to_owned(), "sip:bob@example.com".to_owned(), false));
        assert_eq!(of("sip:bob@Example.com;method=INVITE"), ours);
        assert_eq!(of("sip:bob@127.0.0.1:5060"), ours);
        for (uri, entity, called) in [
            ("sip:carol@two.test;method=BYE?Replaces=x", "sip:carol@two.test", "sip:carol@two.test"),
            ("sips:carol@Two.test:5071;transport=tcp", "sip:carol@two.test", "sips:carol@Two.test:5071;transport=tcp"),
            ("sip:carol@[2001:db8::1]:5070", "sip:carol@[2001:db8::1]", "sip:carol@[2001:db8::1]:5070"),
        ] {
            assert_eq!(of(uri), Some((entity.to_owned(), called.to_owned(), true)), "{uri}");
        }
        for nobody in ["tel:+81312345678", "sip:example.com", "sip:two.test", "sip:127.0.0.1:5060", "nonsense"] {
            assert_eq!(of(nobody), None, "{nobody}");
        }
    }
}
