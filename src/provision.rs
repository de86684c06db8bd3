//! Provisioning: what operators say of users, clients, lines and filters, checked and brought into the form the stores keep.
//!
//! [`File::parse`] reads the file of `isthmus import`; [`apply`] stores it. The command line and the admin listener make one
//! user at a time through [`UserEntry`].

mod entry;
mod filter;

use std::collections::HashMap;
use std::sync::mpsc;

use gw_sms::registry::{ApiClient, Entry, Kind, PushClient, Registrations};
use serde::Deserialize;
use sip_ims::User;
use sip_ims::criteria::Rule;
use sip_ims::ports::{Done, StoreError, UserStore};

use crate::config::{Problem, Spans, from_toml};

pub use entry::{AkaEntry, CallEntry, Line, MAX_PASSWORD, UserEntry};
pub use filter::filter_entry;

/// A provisioning file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    pub user: Vec<UserEntry>,
    pub push_client: Vec<PushClient>,
    pub api_client: Vec<ApiClient>,
    pub line: Vec<Line>,
    pub filter: Vec<Rule>,
}

/// What a file comes to, ready to be stored.
#[derive(Debug, Default)]
pub struct Provision {
    pub users: Vec<User>,
    /// Push clients, API clients, lines and filters.
    pub registrations: Vec<Entry>,
}

impl File {
    /// Parses and checks a text for a home domain; every problem is placed by key and line.
    pub fn parse(text: &str, domain: &str) -> Result<Provision, Vec<Problem>> {
        let file: File = from_toml(text)?;
        file.resolve(domain).map_err(|problems| {
            let spans = Spans::of(text);
            problems.into_iter().map(|p| p.placed(&spans)).collect()
        })
    }

    fn resolve(self, domain: &str) -> Result<Provision, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut provision = Provision::default();
        let mut owners: HashMap<String, usize> = HashMap::new();
        for (i, entry) in self.user.iter().enumerate() {
            match entry.user(domain) {
                Ok(user) => {
                    let number = user.msisdn.map(|n| ("msisdn", n.to_string()));
                    for (key, identity) in [("id", user.aor.as_str().to_owned())].into_iter().chain(number) {
                        if let Some(first) = owners.insert(identity, i) {
                            problems.push(Problem::new(
                                format!("user[{i}].{key}"),
                                format!("already given to user[{first}]"),
                            ));
                        }
                    }
                    provision.users.push(user);
                }
                Err((key, text)) => problems.push(Problem::new(format!("user[{i}].{key}"), text)),
            }
        }
        let mut registration = |kind: Kind, at: usize, made: Result<Entry, (&str, String)>| match made {
            Ok(entry) => provision.registrations.push(entry),
            Err((key, text)) => problems.push(Problem::new(format!("{}[{at}].{key}", kind.as_str()), text)),
        };
        self.push_client.into_iter().enumerate().for_each(|(i, c)| registration(Kind::PushClient, i, c.entry()));
        self.api_client.into_iter().enumerate().for_each(|(i, c)| registration(Kind::ApiClient, i, c.entry()));
        self.line.iter().enumerate().for_each(|(i, l)| registration(Kind::Line, i, l.registration()));
        let rules = self.filter.into_iter().enumerate();
        rules.for_each(|(i, rule)| registration(Kind::Filter, i, filter_entry(rule, domain)));
        if problems.is_empty() { Ok(provision) } else { Err(problems) }
    }
}

/// Stores everything; each part is there when this returns. Repeating it changes nothing. Blocks.
pub fn apply(provision: Provision, users: &dyn UserStore, registrations: &dyn Registrations) -> Result<(), StoreError> {
    let mut rest = provision.users;
    while !rest.is_empty() {
        let tail = rest.split_off(rest.len().min(USERS_AT_ONCE));
        wait(|done| users.put(rest, done))?;
        rest = tail;
    }
    if !provision.registrations.is_empty() {
        wait(|done| registrations.put(provision.registrations, done))?;
    }
    Ok(())
}

/// Users in one commit.
const USERS_AT_ONCE: usize = 5_000;

/// Waits for a port's answer on this thread. Not for async callers.
pub fn wait<T: Send + 'static>(ask: impl FnOnce(Done<T>)) -> Result<T, StoreError> {
    let (answer, answered) = mpsc::sync_channel(1);
    ask(Box::new(move |result| {
        // The receiver waits below, so this neither blocks nor fails.
        let _ = answer.send(result);
    }));
    answered.recv().unwrap_or(Err(StoreError::Closed))
}

/// Every user there is. Blocks.
pub fn all_users(users: &dyn UserStore) -> Result<Vec<User>, StoreError> {
    let mut found: HashMap<_, User> = HashMap::new();
    let mut after = 0;
    loop {
        let changes = wait(|done| users.changes(after, 1_000, done))?;
        let Some(last) = changes.last() else { break };
        after = last.sequence;
        for change in changes {
            match change.user {
                Some(user) => found.insert(change.id, user),
                None => found.remove(&change.id),
            };
        }
    }
    let mut users: Vec<User> = found.into_values().collect();
    users.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../samples/provisioning.toml");

    #[test]
    fn the_sample_reads() {
        let made = File::parse(FILE, "localhost").unwrap();
        assert_eq!(&*made.users[0].id, "alice");
        assert_eq!(made.users[0].msisdn.unwrap().to_string(), "+819012345678");
        let kinds: Vec<_> = made.registrations.iter().map(|r| r.kind.as_str()).collect();
        assert_eq!(kinds, ["push_client", "api_client", "api_client", "line", "filter"]);
    }

    #[test]
    fn clear_secrets_do_not_reach_the_store() {
        let made = File::parse(FILE, "localhost").unwrap();
        assert!(made.registrations.iter().all(|r| !r.body.contains("s3cret")));
        assert!(!serde_json::to_string(&made.users).unwrap().contains("wonderland"));
    }

    #[test]
    fn problems_are_placed_by_key_and_line() {
        let text = "[[user]]\nid = \"a\"\npassword = \"p\"\nmsisdn = \"12\"\n\n[[user]]\nid = \"b c\"\npassword = \"p\"\n\
            [[user]]\nid = \"d\"\n[[line]]\nmsisdn = \"x\"\n";
        let problems = File::parse(text, "localhost").unwrap_err();
        let placed: Vec<_> = problems.iter().map(|p| (p.key.as_str(), p.line.unwrap())).collect();
        assert_eq!(placed, [("user[0].msisdn", 4), ("user[1].id", 7), ("user[2].password", 9), ("line[0].msisdn", 12)]);
        let problems = File::parse("[[user]]\nid = \"a\"\npasword = \"p\"\n", "localhost").unwrap_err();
        assert_eq!((problems[0].key.as_str(), problems[0].line), ("user[0].pasword", Some(3)));
    }

    #[test]
    fn one_identity_has_one_user() {
        let user = |id: &str| format!("[[user]]\nid = \"{id}\"\npassword = \"p\"\nmsisdn = \"+81901234567\"\n");
        let problems = File::parse(&(user("a") + &user("b")), "localhost").unwrap_err();
        assert_eq!((problems[0].key.as_str(), problems[0].line), ("user[1].msisdn", Some(8)));
    }
}
