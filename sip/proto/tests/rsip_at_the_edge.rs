//! Nothing in the workspace but `rsip_compat.rs` touches rsip, and nothing at all gives it bytes to parse
//! (docs/decisions/0001-rsip-at-the-edge.md).

use std::path::{Path, PathBuf};

#[test]
fn rsip_stays_in_its_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    assert!(files.iter().any(|f| f.ends_with("sip/proto/src/rsip_compat.rs")), "the walk finds the sources");
    // Spelt in pieces, so that this file does not find itself.
    let (path, parsers) =
        (concat!("rsip", "::"), [concat!("SipMessage", "::try_from"), concat!("rsip", "::SipMessage")]);
    for file in files {
        let text = std::fs::read_to_string(&file).expect("sources are UTF-8");
        for parser in parsers {
            assert!(!text.contains(parser), "{} parses with rsip", file.display());
        }
        if !file.ends_with("sip/proto/src/rsip_compat.rs") {
            assert!(!text.contains(path), "{} uses rsip", file.display());
        }
    }
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') && name != "node_modules" {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}
