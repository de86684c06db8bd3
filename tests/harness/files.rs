//! Files to send, and what sha1sum says of them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

/// Bytes that repeat nowhere.
pub fn bytes(len: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(len + 8);
    let mut state = SEED;
    while all.len() < len {
        all.extend_from_slice(&next(&mut state));
    }
    all.truncate(len);
    all
}

/// The same in a file, which may be longer than memory should be.
pub fn write(path: &Path, len: u64) {
    let mut state = SEED;
    let mut out = BufWriter::new(File::create(path).unwrap());
    for _ in 0..len / 8 {
        out.write_all(&next(&mut state)).unwrap();
    }
    out.write_all(&next(&mut state)[..(len % 8) as usize]).unwrap();
    out.flush().unwrap();
}

/// The hash as `a=file-selector` spells it (RFC 5547 §6): upper case, a colon between bytes.
pub fn sha1(path: &Path) -> String {
    let told = Command::new("sha1sum").arg(path).output().expect("sha1sum runs");
    let text = String::from_utf8(told.stdout).unwrap();
    // A backslash stands before the line of a name that needs one.
    let digits = text.split(' ').next().unwrap().trim_start_matches('\\').to_uppercase();
    assert_eq!(digits.len(), 40, "{text}");
    let pairs: Vec<&str> = (0..20).map(|i| &digits[2 * i..2 * i + 2]).collect();
    pairs.join(":")
}

const SEED: u64 = 88_172_645_463_325_252;

/// Marsaglia's xorshift.
fn next(state: &mut u64) -> [u8; 8] {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.to_le_bytes()
}
