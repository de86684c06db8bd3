//! Back from the store: after a restart, and what other nodes have changed meanwhile.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use sip_ims::Aor;
use sip_ims::ports::{Done, StateRow};
use sip_proto::headers::NameAddr;
use sip_proto::subscription::Notifier;
use sip_proto::uri::Uri;
use sip_proto::{Hop, Transport};

use crate::presentity::Publication;
use crate::rows::{self, Kept};
use crate::rules::Handling;
use crate::server::{Presence, seen};
use crate::watch::{Package, Watch, resume_at, seconds_left};

impl Presence {
    /// Takes what the store holds into memory; `done` gets the number of rows. The watchers of this node are told the state
    /// as it is now, two thousand a second, because nobody knows what they missed.
    pub fn load(self: &Arc<Self>, now: Instant, unix: u64, done: Done<u64>) {
        let (me, resumed) = (self.clone(), AtomicU64::new(0));
        let each = move |row: StateRow<'_>| {
            if row.expires_at <= unix as i64 || me.hear_beat(&row, now) {
                return;
            }
            let Ok(aor) = row.owner.parse::<Aor>() else { return };
            if let Some(publication) = rows::read_publication(&row) {
                me.restore_publication(&aor, publication);
            } else if let Some(kept) = rows::read_watch(&row).filter(|_| row.node == me.config.node) {
                let at = resume_at(now, resumed.fetch_add(1, Relaxed));
                me.restore_watch(&aor, kept, row.expires_at as u64, now, unix, at);
            }
        };
        self.parts.store.load(Box::new(each), done);
    }

    fn restore_publication(&self, aor: &Aor, publication: Publication) {
        let mut shard = self.shard(aor.as_str());
        let (p, mut calendar) = shard.entry(aor);
        // Who has published since the start knows better.
        if p.publications().iter().all(|known| known.id != publication.id) {
            Presence::expect(&mut calendar, aor, p, publication.expires_at);
            p.content().publications.push(publication);
            self.publications.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn restore_watch(&self, aor: &Aor, kept: Kept, expires_at: u64, now: Instant, unix: u64, at: Instant) {
        let Kept { key, package, mut dialog, watcher, hop, contact, event, reserved, since, filters } = kept;
        let Some(hop) = hop.or_else(|| next_hop(dialog.next_hop())) else { return };
        dialog.skip_to(reserved);
        let package = match package.or_else(|| self.package_of_list(aor)) {
            Some(package) => package,
            // The list is no more.
            None => return,
        };
        let decision = match matches!(package, Package::Winfo(_) | Package::List(_) | Package::Summary) {
            true => crate::rules::Decision { handling: Handling::Allow, permissions: None },
            false => self.decide(aor, &watcher, unix),
        };
        let authorised = !matches!(decision.handling, Handling::Confirm | Handling::Block);
        let left = seconds_left(expires_at, unix);
        let mut watch = Watch {
            key,
            package,
            watcher,
            dialog,
            notifier: Notifier::resumed(now, left, authorised, self.config.pace, at),
            hop,
            contact,
            event: event.clone(),
            rates: None,
            seen: seen(&decision),
            told: 0,
            owed: true,
            // Nothing is granted any more: the first NOTIFY writes the row again.
            reserved: 0,
            since,
            expires_at,
            filters,
            before: None,
            fetch: false,
            rejected: false,
        };
        self.set_rates(&mut watch, now, &event);
        let mut shard = self.shard(aor.as_str());
        let (p, mut calendar) = shard.entry(aor);
        if self.watched_in(key).is_some() {
            return;
        }
        let due = watch.due(now, unix).unwrap_or(unix + 1);
        self.admit(aor, p, watch);
        Presence::expect(&mut calendar, aor, p, due);
    }

    /// Takes over what other nodes have published in the store since the last call; `done` gets the number of users that
    /// were looked at. One call at a time.
    pub fn catch_up(self: &Arc<Self>, unix: u64, done: Done<u64>) {
        let also = self.reading.begin();
        let (reader, ender, again) = (self.clone(), self.clone(), also.clone());
        self.parts.store.changed_elsewhere(
            also,
            Box::new(move |owner, rows| reader.take_over(owner, rows, unix)),
            Box::new(move |result| {
                ender.reading.end(if result.is_err() { again } else { Vec::new() });
                done(result);
            }),
        );
    }

    fn take_over(&self, owner: &str, rows: &[StateRow<'_>], unix: u64) {
        if self.hear_beats(owner, rows) {
            return;
        }
        let Ok(aor) = owner.parse::<Aor>() else { return };
        let mut shard = self.shard(owner);
        if self.reading.is_stale(owner) {
            return;
        }
        {
            let (p, mut calendar) = shard.entry(&aor);
            let stored: HashSet<&str> = rows.iter().map(|row| row.key).collect();
            let before = p.publications().len();
            let mut changed = false;
            let publications = &mut p.content().publications;
            publications.retain(|known| stored.contains(&*Publication::row_key(known.id)));
            changed |= publications.len() != before;
            for publication in rows.iter().filter(|r| r.node != self.config.node).filter_map(rows::read_publication) {
                if publication.expires_at <= unix {
                    continue;
                }
                Presence::expect(&mut calendar, &aor, p, publication.expires_at);
                match p.content().publications.iter_mut().find(|known| known.id == publication.id) {
                    Some(known) => {
                        changed |= known.document != publication.document;
                        *known = publication;
                    }
                    None => {
                        p.content().publications.push(publication);
                        changed = true;
                    }
                }
            }
            self.publications.fetch_add(p.publications().len(), Relaxed);
            self.publications.fetch_sub(before, Relaxed);
            if changed {
                p.touch(false);
                self.enqueue(&aor, p);
            }
        }
        shard.tidy(owner);
        drop(shard);
        self.settle(&aor, rows, unix);
    }
}

/// Where a dialog goes next when the connection it was set up over is gone: an address that is written out.
fn next_hop(uri: &[u8]) -> Option<Hop> {
    let parsed = NameAddr::parse(uri).and_then(|a| a.uri()).or_else(|| Uri::parse(uri))?;
    let transport = parsed.transport().and_then(Transport::from_token).unwrap_or(Transport::Udp);
    let remote = std::net::SocketAddr::new(parsed.host_ip()?, parsed.port().unwrap_or(transport.default_port()));
    Some(Hop::Address { transport, remote })
}
