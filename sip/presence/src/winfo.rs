//! `application/watcherinfo+xml` (RFC 3858): who watches, for whom that is watched.

use sip_proto::subscription::EndReason;
use sip_xml::Writer;

use crate::names::WATCHERINFO;

/// What happened to a watcher last (RFC 3858 §4.2.1 `event`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Subscribe,
    Approved,
    Ended(EndReason),
}

impl Event {
    fn as_str(self) -> &'static str {
        match self {
            Event::Subscribe => "subscribe",
            Event::Approved => "approved",
            Event::Ended(reason) => match reason {
                EndReason::Invariant => "noresource",
                other => other.as_str(),
            },
        }
    }
}

/// One watcher, as a document shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Names the subscription for as long as it lasts.
    pub id: u64,
    pub uri: std::sync::Arc<str>,
    pub event: Event,
    pub active: bool,
    /// Unix seconds.
    pub since: u64,
    pub expires_at: u64,
}

/// What one subscription to watcher information has not been told yet.
#[derive(Clone, Debug)]
pub struct Untold {
    /// Of the next document.
    pub version: u32,
    /// The next document has everything.
    pub full: bool,
    /// At most [`MAX_UNTOLD`].
    pub entries: Vec<Entry>,
}

/// Changes that wait; beyond it the next document has everything.
const MAX_UNTOLD: usize = 64;

impl Untold {
    pub fn new() -> Untold {
        Untold { version: 0, full: true, entries: Vec::new() }
    }

    pub fn note(&mut self, entry: &Entry) {
        // The latest word about a watcher is enough.
        self.entries.retain(|e| e.id != entry.id);
        self.entries.push(entry.clone());
        if self.entries.len() > MAX_UNTOLD {
            self.entries.clear();
            self.full = true;
        }
    }
}

/// Appends a document. `entries`: all of them, or those that have changed.
pub fn write(aor: &str, version: u32, full: bool, entries: &[Entry], unix: u64, out: &mut Vec<u8>) {
    Writer::document(out, "watcherinfo", |root| {
        root.attribute("xmlns", WATCHERINFO).attribute("version", &version.to_string());
        root.attribute("state", if full { "full" } else { "partial" });
        root.child("watcher-list", |list| {
            list.attribute("resource", &format!("sip:{aor}")).attribute("package", "presence");
            for entry in entries {
                list.child("watcher", |watcher| {
                    watcher.attribute("id", &format!("{:x}", entry.id));
                    let status = match entry.event {
                        Event::Ended(_) => "terminated",
                        _ if entry.active => "active",
                        _ => "pending",
                    };
                    watcher.attribute("status", status).attribute("event", entry.event.as_str());
                    watcher.attribute("duration-subscribed", &unix.saturating_sub(entry.since).to_string());
                    if status != "terminated" {
                        watcher.attribute("expiration", &entry.expires_at.saturating_sub(unix).to_string());
                    }
                    watcher.text(&entry.uri);
                });
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, event: Event, active: bool) -> Entry {
        Entry { id, uri: "sip:b&b@h".into(), event, active, since: 90, expires_at: 160 }
    }

    #[test]
    fn a_document_shows_each_watcher() {
        let mut out = Vec::new();
        let gone = entry(31, Event::Ended(EndReason::Timeout), true);
        write("a@h", 2, false, &[entry(10, Event::Subscribe, false), gone], 100, &mut out);
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<watcherinfo xmlns=\"urn:ietf:params:xml:ns:watcherinfo\" \
            version=\"2\" state=\"partial\"><watcher-list resource=\"sip:a@h\" package=\"presence\">\
            <watcher id=\"a\" status=\"pending\" event=\"subscribe\" duration-subscribed=\"10\" expiration=\"60\">sip:b&amp;b@h</watcher>\
            <watcher id=\"1f\" status=\"terminated\" event=\"timeout\" duration-subscribed=\"10\">sip:b&amp;b@h</watcher>\
            </watcher-list></watcherinfo>\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn too_many_changes_become_a_full_document() {
        let mut untold = Untold { full: false, ..Untold::new() };
        (0..MAX_UNTOLD as u64).for_each(|id| untold.note(&entry(id, Event::Subscribe, true)));
        untold.note(&entry(3, Event::Approved, true));
        assert_eq!((untold.full, untold.entries.len()), (false, MAX_UNTOLD));
        untold.note(&entry(999, Event::Subscribe, true));
        assert_eq!((untold.full, untold.entries.len()), (true, 0));
    }
}
