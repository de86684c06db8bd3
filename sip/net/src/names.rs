//! Host names that TLS peers must prove, as numbers, so that a hop stays small.

use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use sip_proto::HostId;
use std::collections::HashMap;

/// Names kept at a time. The oldest goes first; a hop that still carries its number is then unreachable, and the next
/// look-up of the name makes a new one.
const NAMES_MAX: usize = 16 * 1024;

/// The table. Small and cold: used per look-up and per connect, not per message.
#[derive(Default)]
pub struct HostNames {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    by_name: HashMap<ServerName<'static>, u64>,
    by_id: HashMap<u64, ServerName<'static>>,
    next: u64,
    oldest: u64,
}

impl HostNames {
    /// The number of a host name or IP literal, the same for any case. `None` when it is neither.
    pub fn intern(&self, host: &str) -> Option<HostId> {
        let host = host.trim_end_matches('.').trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_ascii_lowercase()).ok()?;
        let mut inner = self.inner.lock();
        if let Some(id) = inner.by_name.get(&name) {
            return Some(HostId(*id));
        }
        if inner.by_id.len() >= NAMES_MAX {
            let oldest = inner.oldest;
            if let Some(gone) = inner.by_id.remove(&oldest) {
                inner.by_name.remove(&gone);
            }
            inner.oldest += 1;
        }
        let id = inner.next;
        inner.next += 1;
        inner.by_name.insert(name.clone(), id);
        inner.by_id.insert(id, name);
        Some(HostId(id))
    }

    pub(crate) fn name(&self, id: HostId) -> Option<ServerName<'static>> {
        self.inner.lock().by_id.get(&id.0).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_and_forgotten_numbers_name_nobody() {
        let names = HostNames::default();
        let first = names.intern("Example.COM.").unwrap();
        assert_eq!(names.intern("example.com"), Some(first));
        assert_eq!(names.intern("no name"), None);
        for n in 0..NAMES_MAX {
            names.intern(&format!("h{n}.example"));
        }
        assert_eq!(names.name(first), None);
        assert_ne!(names.intern("example.com"), Some(first));
        assert_eq!(names.inner.lock().by_id.len(), NAMES_MAX);
        assert_eq!(names.inner.lock().by_name.len(), NAMES_MAX);
    }
}
