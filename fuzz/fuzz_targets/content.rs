//! What a client says of a file's bytes, a line each: the range that it wants, the range that it sends, the file's name in a link;
//! then a content type, and a body of that type to be taken apart for a scanner.
#![no_main]

use libfuzzer_sys::fuzz_target;
use media_content::Id;

// The server's own, which is no library of few dependencies.
#[path = "../../src/http/content/range.rs"]
mod range;

use range::{Wanted, content_range, wanted};

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let header = line();
    for size in [0, 1, 10, u64::MAX] {
        if let Wanted::Part(range) = wanted(Some(header), size) {
            assert!(range.start < range.end && range.end <= size);
        }
    }
    if let Some((range, size)) = content_range(line()) {
        assert!(range.start < range.end && range.end <= size);
    }
    let name = line();
    if let Ok(id) = name.parse::<Id>() {
        assert_eq!(id.to_string(), name);
    }
    let content_type = line();
    let body: Vec<&str> = lines.collect();
    assert!(!sip_messaging::content_types(content_type, body.join("\n").as_bytes()).is_empty());
});
