//! Presence as stories see it: documents, what a watcher has heard, what an operator stores.

use std::process::Command;
use std::time::Duration;

use super::sipp::{Outcome, Running};
use super::{DOMAIN, Server, eventually, header};

/// What decides between a slow machine and never.
pub const SOON: Duration = Duration::from_secs(30);

/// A document with one tuple.
pub fn document(user: &str, id: &str, basic: &str, more: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\r\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:{user}@{DOMAIN}\">\
         <tuple id=\"{id}\"><status><basic>{basic}</basic></status>{more}</tuple></presence>"
    )
}

/// The NOTIFYs that a running watcher has heard so far, each once.
pub fn notifies(running: &Running) -> Vec<String> {
    distinct_notifies(&running.so_far())
}

/// The NOTIFYs in a log, each once, though it may have been sent again. The last may still be on its way into the log.
pub fn distinct_notifies(outcome: &Outcome) -> Vec<String> {
    let whole = |m: &&str| {
        let length = header(m, "Content-Length").and_then(|n| n.parse::<usize>().ok());
        m.split_once("\r\n\r\n").is_some_and(|(_, body)| length.is_some_and(|length| body.len() >= length))
    };
    let notifies = outcome.received().into_iter().filter(|m| m.starts_with("NOTIFY")).filter(whole);
    let mut all: Vec<String> = notifies.map(str::to_owned).collect();
    all.dedup_by(|a, b| header(a, "CSeq") == header(b, "CSeq"));
    all
}

/// Waits until the last NOTIFY is one like that.
pub fn hears(running: &Running, what: &str, like: impl Fn(&str) -> bool) -> String {
    let mut found = None;
    eventually(what, SOON, || {
        found = notifies(running).pop().filter(|m| like(m));
        found.is_some()
    });
    found.unwrap()
}

/// Waits for a NOTIFY like that, which may be followed by others before anybody looks.
pub fn has_heard(running: &Running, what: &str, like: impl Fn(&str) -> bool) -> String {
    let mut found = None;
    eventually(what, SOON, || {
        found = notifies(running).into_iter().find(|m| like(m));
        found.is_some()
    });
    found.unwrap()
}

pub fn basic(message: &str) -> Vec<&str> {
    message.split("<basic>").skip(1).filter_map(|p| p.split('<').next()).collect()
}

/// That a NOTIFY is about a list (RFC 4662): the `version`th since the subscription, about so many of its members, who are all of them if it is
/// `whole`.
pub fn about_list(message: &str, version: u32, whole: bool, members: usize) {
    assert_eq!(header(message, "Require"), Some("eventlist"), "{message}");
    let media_type = header(message, "Content-Type").unwrap_or_default();
    assert!(media_type.starts_with("multipart/related;type=\"application/rlmi+xml\";start=\"<"), "{message}");
    for said in [format!("version=\"{version}\""), format!("fullState=\"{whole}\"")] {
        assert!(message.contains(&said), "{said}: {message}");
    }
    assert_eq!(message.matches("<resource uri=").count(), members, "{message}");
}

/// What a NOTIFY about a list says of one of them.
pub fn resource<'m>(message: &'m str, who: &str) -> &'m str {
    message.split("<resource ").find(|r| r.contains(who)).unwrap_or_default()
}

pub fn state(message: &str) -> &str {
    header(message, "Subscription-State").unwrap_or_default()
}

/// Stores a user's document of an XCAP application usage.
pub fn store(server: &Server, user: &str, usage: &str, text: &str) {
    assert_eq!(put(server, &format!("users/{user}/documents/{usage}/index"), text), "204");
}

/// What an operator's PUT below `/admin/v1/` is answered with.
pub fn put(server: &Server, path: &str, text: &str) -> String {
    let token = std::fs::read_to_string(server.path().join("data/admin.token")).expect("the admin token");
    let done = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "PUT", "--data-binary", text])
        .args(["-H", &format!("Authorization: Bearer {}", token.trim()), "-H", "Content-Type: application/json"])
        .arg(format!("http://127.0.0.1:{}/admin/v1/{path}", server.admin))
        .output()
        .expect("curl runs");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Stores presence rules as an operator does.
pub fn rules(server: &Server, user: &str, rules: &str) {
    let text = format!(
        "<ruleset xmlns=\"urn:ietf:params:xml:ns:common-policy\" xmlns:pr=\"urn:ietf:params:xml:ns:pres-rules\">{rules}</ruleset>"
    );
    store(server, user, "pres-rules", &text);
}

/// One rule of theirs.
pub fn rule(watcher: &str, handling: &str, transformations: &str) -> String {
    format!(
        "<rule id=\"{watcher}\"><conditions><identity><one id=\"sip:{watcher}@{DOMAIN}\"/></identity></conditions>\
         <actions><pr:sub-handling>{handling}</pr:sub-handling></actions>\
         <transformations>{transformations}</transformations></rule>"
    )
}

/// What shows all there is.
pub const EVERYTHING: &str = "<pr:provide-services><pr:all-services/></pr:provide-services><pr:provide-persons><pr:all-persons/></pr:provide-persons>\
    <pr:provide-devices><pr:all-devices/></pr:provide-devices><pr:provide-all-attributes/>";
