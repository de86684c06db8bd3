//! Where things stand in a configuration file: key paths to lines and offsets to key paths.
//!
//! serde reports a byte offset and no key; our own checks know the key and no offset. This index turns one into the other.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Every key and array element of one document with its place.
pub struct Spans {
    entries: Vec<Entry>,
    line_starts: Vec<usize>,
}

struct Entry {
    path: String,
    key: Range<usize>,
    value: Range<usize>,
}

impl Spans {
    /// Indexes a document; one that is not TOML at all yields an index without keys.
    pub fn of(text: &str) -> Spans {
        let mut entries = Vec::new();
        if let Ok(table) = DeTable::parse(text) {
            walk_table(table.get_ref(), "", &mut entries);
        }
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Spans { entries, line_starts }
    }

    /// The 1-based line of a key path such as `sip.udp[1]`; of its nearest ancestor when the key itself is absent.
    pub fn line_of(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(entry) = self.entries.iter().find(|e| e.path == path) {
                return Some(self.line_at(entry.key.start));
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// The 1-based line that holds a byte offset.
    pub fn line_at(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).max(1)
    }

    /// The innermost key whose name or value covers the offset.
    pub fn key_at(&self, offset: usize) -> Option<&str> {
        self.entries
            .iter()
            .filter(|e| e.key.contains(&offset) || e.value.contains(&offset))
            .max_by_key(|e| e.path.len())
            .map(|e| e.path.as_str())
    }
}

fn walk_table(table: &DeTable<'_>, prefix: &str, out: &mut Vec<Entry>) {
    for (key, value) in table {
        let name = quoted(key.get_ref());
        let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        walk_value(path, key.span(), value.span(), value.get_ref(), out);
    }
}

fn walk_value(path: String, key: Range<usize>, span: Range<usize>, value: &DeValue<'_>, out: &mut Vec<Entry>) {
    match value {
        DeValue::Table(table) => walk_table(table, &path, out),
        DeValue::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                walk_value(format!("{path}[{i}]"), item.span(), item.span(), item.get_ref(), out);
            }
        }
        _ => {}
    }
    out.push(Entry { path, key, value: span });
}

/// A key as it would be written: quoted where it is not bare.
fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if bare { key.to_owned() } else { format!("{key:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "domain = \"a\"\n\n[sip]\nudp = [\n  \"x\",\n  \"y\",\n]\n[xmpp.route.\"x.y\"]\naddress = \"q\"\n";

    #[test]
    fn a_path_finds_its_line() {
        let spans = Spans::of(TEXT);
        assert_eq!(spans.line_of("domain"), Some(1));
        assert_eq!(spans.line_of("sip.udp[1]"), Some(6));
        assert_eq!(spans.line_of("xmpp.route.\"x.y\".address"), Some(9));
    }

    #[test]
    fn an_absent_key_is_placed_at_its_section() {
        let spans = Spans::of(TEXT);
        assert_eq!(spans.line_of("sip.tls[0]"), Some(3));
        assert_eq!(spans.line_of("nowhere.at_all"), None);
    }

    #[test]
    fn an_offset_finds_the_innermost_key() {
        let spans = Spans::of(TEXT);
        let at = TEXT.find("\"y\"").unwrap();
        assert_eq!(spans.key_at(at), Some("sip.udp[1]"));
        assert_eq!(spans.line_at(at), 6);
    }
}
