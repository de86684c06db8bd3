//! Which state of each document is in memory: so that a change whose hint was lost is found.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::Mutex;
use sip_ims::ports::Version;

/// By collection and key.
#[derive(Default)]
pub(crate) struct Versions(Mutex<BTreeMap<&'static str, BTreeMap<Box<str>, Version>>>);

impl Versions {
    /// A document was read, or is gone.
    pub fn enter(&self, collection: &'static str, key: &str, version: Option<Version>) {
        let mut all = self.0.lock();
        let of = all.entry(collection).or_default();
        match version {
            Some(version) => drop(of.insert(key.into(), version)),
            None => drop(of.remove(key)),
        }
    }

    /// The keys behind `after` whose documents are others by now: `page` is what the store has there, up to its last key, or, when it is
    /// the last page, to the end.
    pub fn others(&self, collection: &str, after: &str, page: &[(String, Version)], is_last: bool) -> Vec<String> {
        let all = self.0.lock();
        let none = BTreeMap::new();
        let known = all.get(collection).unwrap_or(&none);
        let mut others: Vec<String> =
            page.iter().filter(|(key, v)| known.get(&**key) != Some(v)).map(|(key, _)| key.clone()).collect();
        let end = match page.last() {
            Some((last, _)) if !is_last => Bound::Included(&**last),
            _ => Bound::Unbounded,
        };
        let range = known.range::<str, _>((Bound::Excluded(after), end));
        let gone = range.filter(|(key, _)| page.binary_search_by(|(k, _)| (**k).cmp(&***key)).is_err());
        others.extend(gone.map(|(key, _)| key.to_string()));
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_came_or_went_is_found() {
        let versions = Versions::default();
        for (key, version) in [("a", 1), ("b", 2), ("d", 4)] {
            versions.enter("c", key, Some(Version(version)));
        }
        let page = |all: &[(&str, u64)]| all.iter().map(|(k, v)| ((*k).to_owned(), Version(*v))).collect::<Vec<_>>();
        let stored = page(&[("a", 1), ("b", 3), ("c", 9)]);
        assert_eq!(versions.others("c", "", &stored, false), ["b", "c"]);
        assert_eq!(versions.others("c", "", &stored, true), ["b", "c", "d"]);
        assert_eq!(versions.others("c", "b", &page(&[("d", 4)]), true), [""; 0]);
        assert_eq!(versions.others("x", "", &stored[..1], true), ["a"]);
        versions.enter("c", "d", None);
        assert_eq!(versions.others("c", "c", &[], true), [""; 0]);
    }
}
