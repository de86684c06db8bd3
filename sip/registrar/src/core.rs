//! What an S-CSCF tells by its reg event package (RFC 3680; TS 24.229 §5.7.1.1) of users who are registered there.
//!
//! A third-party REGISTER that does not bring the phone's own along says that a user is there, and not what the phones can do. So the
//! package is subscribed to, through that S-CSCF, and the feature tags of the contacts it shows become those of the user's binding.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use sip_ims::Aor;
use sip_ims::subscriptions::{News, Subscriptions, Wish};
use sip_proto::features::Union;
use sip_xml::{Document, Element};

use crate::events::MEDIA_TYPE;

const REGINFO: &str = "urn:ietf:params:xml:ns:reginfo";
/// Seconds asked for (TS 24.229 §5.7.1.1 leaves it open).
const EXPIRES: u32 = 600_000;
/// Users watched; beyond it their phones' features stay unknown.
const MAX_USERS: usize = 100_000;
/// Contacts of one user, and parameters of one contact.
const MAX_CONTACTS: usize = 32;
const MAX_PARAMETERS: usize = 64;

/// The users watched.
#[derive(Default)]
pub(crate) struct Core {
    users: Mutex<HashMap<Aor, Watched>>,
    /// What is to be begun or ended with the next tick.
    wanted: Mutex<Vec<(Aor, Option<Wish>)>>,
}

struct Watched {
    number: Option<u64>,
    wish: Wish,
    known: Contacts,
}

/// The contacts that are registered, by id: their parameters.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Contacts(BTreeMap<Box<str>, Vec<Parameter>>);

/// Name and value.
type Parameter = (Box<str>, Box<str>);

impl Core {
    /// A user is registered with that S-CSCF: watched from the next tick on. `me`: as whom.
    pub fn want(&self, aor: &Aor, scscf: &str, me: String) {
        let wish = Wish {
            target: format!("sip:{aor}").into(),
            watcher: me.into(),
            route: Some(if scscf.contains(";lr") { scscf.into() } else { format!("{scscf};lr").into() }),
            package: "reg",
            accept: std::str::from_utf8(MEDIA_TYPE).unwrap_or_default(),
            expires: EXPIRES,
        };
        let users = self.users.lock();
        if users.get(aor).is_some_and(|w| w.wish == wish) || users.len() >= MAX_USERS {
            return;
        }
        drop(users);
        self.wanted.lock().push((aor.clone(), Some(wish)));
    }

    /// The user is gone.
    pub fn unwant(&self, aor: &Aor) {
        if self.users.lock().contains_key(aor) {
            self.wanted.lock().push((aor.clone(), None));
        }
    }

    /// Begins and ends what was wanted; `heard` is told when something is known of a user. Not from within a step.
    pub fn tick(&self, subscriptions: &Subscriptions, heard: impl Fn(&Aor, News) + Clone + Send + Sync + 'static) {
        let wanted = std::mem::take(&mut *self.wanted.lock());
        for (aor, wish) in wanted {
            let old = self.users.lock().remove(&aor);
            old.and_then(|w| w.number).into_iter().for_each(|number| subscriptions.stop(number));
            let Some(wish) = wish else { continue };
            self.users
                .lock()
                .insert(aor.clone(), Watched { number: None, wish: wish.clone(), known: Contacts::default() });
            let (tell, about) = (heard.clone(), aor.clone());
            let number = subscriptions.start(wish, Arc::new(move |news| tell(&about, news)));
            if let Some(watched) = self.users.lock().get_mut(&aor) {
                watched.number = Some(number);
            }
        }
    }

    /// Takes a document in. Gives the features of all contacts when they are others now.
    pub fn heard(&self, aor: &Aor, news: News) -> Option<Union> {
        let News::Document { media_type, body } = news else { return None };
        if media_type.as_bytes() != MEDIA_TYPE {
            return None;
        }
        let mut users = self.users.lock();
        let watched = users.get_mut(aor)?;
        let known = match watched.known.after(&body) {
            Some(known) => known,
            None => {
                tracing::debug!("a reginfo document does not read: what was known before stays");
                return None;
            }
        };
        if known == watched.known {
            return None;
        }
        watched.known = known;
        Some(watched.known.features())
    }

    /// The features that are known of a user's contacts.
    pub fn features(&self, aor: &Aor) -> Option<Union> {
        self.users.lock().get(aor).map(|w| w.known.features())
    }
}

impl Contacts {
    /// After a document, full or partial. `None`: it is none.
    fn after(&self, body: &[u8]) -> Option<Contacts> {
        let root = Document::parse(body).ok()?.root;
        root.is(REGINFO, "reginfo").then_some(())?;
        let mut contacts = match root.attribute("state")? {
            "full" => Contacts::default(),
            _ => self.clone(),
        };
        for registration in root.all(REGINFO, "registration") {
            if registration.attribute("state") == Some("terminated") {
                contacts.0.clear();
            }
            for contact in registration.all(REGINFO, "contact") {
                let id: Box<str> = contact.attribute("id")?.into();
                match contact.attribute("state") {
                    Some("active") if contacts.0.len() < MAX_CONTACTS || contacts.0.contains_key(&id) => {
                        contacts.0.insert(id, parameters(contact));
                    }
                    _ => drop(contacts.0.remove(&id)),
                }
            }
        }
        Some(contacts)
    }

    fn features(&self) -> Union {
        let mut all = Union::default();
        for (name, value) in self.0.values().flatten() {
            if sip_proto::features::is_feature(name.as_bytes()) {
                let value = if value.is_empty() { "TRUE" } else { value };
                sip_proto::headers::list(value.as_bytes()).for_each(|one| all.insert(name.as_bytes(), one));
            }
        }
        all
    }
}

/// The feature tags of the contacts that a full document shows, as parameters of a contact. `None`: it is none.
pub fn features_of(reginfo: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    Contacts::default().after(reginfo)?.features().write(&mut out);
    Some(out)
}

fn parameters(contact: &Element) -> Vec<Parameter> {
    let unknown = contact.all(REGINFO, "unknown-param").take(MAX_PARAMETERS);
    unknown.filter_map(|p| Some((p.attribute("name")?.into(), p.text().trim().trim_matches('"').into()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(contacts: &Contacts) -> String {
        let mut out = Vec::new();
        contacts.features().write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn document(state: &str, registration: &str, contacts: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><reginfo xmlns=\"{REGINFO}\" version=\"0\" state=\"{state}\">\
             <registration aor=\"sip:a@h\" id=\"a\" state=\"{registration}\">{contacts}</registration></reginfo>"
        )
    }

    #[test]
    fn contacts_come_and_go_with_their_features() {
        let contact = |id: &str, state: &str, more: &str| {
            format!("<contact id=\"{id}\" state=\"{state}\" event=\"created\"><uri>sip:x</uri>{more}</contact>")
        };
        let sms = "<unknown-param name=\"+g.3gpp.smsip\"/>";
        let mmtel = "<unknown-param name=\"+g.3gpp.icsi-ref\">\"urn%3Aa,urn%3Ab\"</unknown-param>\
            <unknown-param name=\"expires\">3</unknown-param>";
        let first = Contacts::default()
            .after(
                document("full", "active", &(contact("1", "active", sms) + &contact("2", "active", mmtel))).as_bytes(),
            )
            .unwrap();
        assert_eq!(text(&first), ";+g.3gpp.smsip;+g.3gpp.icsi-ref=\"urn%3Aa,urn%3Ab\"");
        let second = first.after(document("partial", "active", &contact("1", "terminated", "")).as_bytes()).unwrap();
        assert_eq!(text(&second), ";+g.3gpp.icsi-ref=\"urn%3Aa,urn%3Ab\"");
        assert_eq!(text(&second.after(document("partial", "terminated", "").as_bytes()).unwrap()), "");
        for bad in ["<", "<reginfo/>", "<!DOCTYPE x []><reginfo/>"] {
            assert_eq!(second.after(bad.as_bytes()), None);
        }
    }

    #[test]
    fn a_user_has_a_bounded_number_of_contacts() {
        let contacts: String =
            (0..100).map(|n| format!("<contact id=\"{n}\" state=\"active\" event=\"created\"/>")).collect();
        let all = Contacts::default().after(document("full", "active", &contacts).as_bytes()).unwrap();
        assert_eq!(all.0.len(), MAX_CONTACTS);
    }
}
