//! The rules of all users, read from their documents.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use sip_ims::Aor;
use sip_ims::ports::Document;

use crate::rules::Rules;

/// The XCAP application usages whose documents hold rules (RFC 5025 §9.1, OMA Presence XDM §5.1.1): collections of
/// [`Documents`](sip_ims::ports::Documents).
pub const RULES: [&str; 2] = ["pres-rules", "org.openmobilealliance.pres-rules"];

/// The application usage of the document that is one more publication of its user (RFC 4827).
pub const MANIPULATED: &str = "pidf-manipulation";

/// The key of a user's document within its application usage: XCAP's path below `users/` (RFC 4825 §6.2).
pub fn key_of(aor: &Aor, name: &str) -> String {
    format!("sip:{aor}/{name}")
}

/// Whose document that is.
pub fn owner_of(key: &str) -> Option<Aor> {
    key.strip_prefix("sip:")?.rsplit_once('/')?.0.parse().ok()
}

/// All users' rules. A user without documents has none, and the configuration decides.
#[derive(Default)]
pub struct Book {
    users: RwLock<HashMap<Aor, Shelf>>,
}

#[derive(Default)]
struct Shelf {
    documents: HashMap<(&'static str, Box<str>), Rules>,
    /// Of all documents: they combine as the rules of one do (RFC 5025 §9.7).
    merged: Arc<Rules>,
}

impl Book {
    /// The rules of a user who has any.
    pub fn rules(&self, aor: &Aor) -> Option<Arc<Rules>> {
        let users = self.users.read();
        users.get(aor).map(|shelf| shelf.merged.clone())
    }

    /// Users with rules.
    pub fn len(&self) -> usize {
        self.users.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A document of a usage is this now, or gone. Gives whose it is. One that does not read shows nobody anything.
    pub fn enter(&self, usage: &str, key: &str, document: Option<&Document>) -> Option<Aor> {
        let usage = RULES.into_iter().find(|u| *u == usage)?;
        let owner = owner_of(key)?;
        let mut users = self.users.write();
        let shelf = users.entry(owner.clone()).or_default();
        match document {
            Some(document) => {
                let rules = Rules::parse(&document.body).unwrap_or_else(|error| {
                    tracing::warn!(%error, usage, "stored presence rules do not read: nobody is allowed by them");
                    Rules::default()
                });
                shelf.documents.insert((usage, key.into()), rules);
            }
            None => drop(shelf.documents.remove(&(usage, key.into()))),
        }
        shelf.merged = Arc::new(Rules::merged(shelf.documents.values()));
        if shelf.documents.is_empty() {
            users.remove(&owner);
        }
        Some(owner)
    }
}

#[cfg(test)]
mod tests {
    use sip_ims::ports::Version;

    use super::*;
    use crate::rules::{Handling, Watcher};

    #[test]
    fn documents_come_and_go() {
        let book = Book::default();
        let aor: Aor = "alice@h".parse().unwrap();
        let allow = b"<ruleset xmlns='urn:ietf:params:xml:ns:common-policy'><rule><actions>\
            <sub-handling xmlns='urn:ietf:params:xml:ns:pres-rules'>allow</sub-handling></actions></rule></ruleset>";
        let document = |body: &[u8]| Document { key: key_of(&aor, "index"), version: Version(1), body: body.to_vec() };
        let watcher = Watcher { uri: "sip:b@h".into(), number: None, anonymous: false };
        let handling = || book.rules(&aor).map(|r| r.decide(&watcher, 0).handling);
        let enter = |name: &str, d: Option<&Document>| book.enter(RULES[0], &key_of(&aor, name), d);
        assert_eq!(handling(), None);
        assert_eq!(enter("index", Some(&document(b"broken"))), Some(aor.clone()));
        assert_eq!(handling(), Some(Handling::Block));
        enter("more", Some(&document(allow)));
        assert_eq!(handling(), Some(Handling::Allow));
        enter("more", None);
        enter("index", None);
        assert_eq!((handling(), book.len()), (None, 0));
        assert_eq!(book.enter("resource-lists", &key_of(&aor, "index"), None), None);
    }
}
