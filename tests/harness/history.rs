//! Histories, read with curl and jq.

use std::io::Write;
use std::process::{Command, Stdio};

use super::server::Server;
use super::xcap::Client;

/// Reads a user's history.
pub fn reader(server: &Server, user: &str) -> Client {
    Client::of(server, user).below("history")
}

/// What jq makes of a user's history, or of a part of it.
pub fn read(server: &Server, user: &str, query: &str, filter: &str) -> String {
    let told = reader(server, user).get(query);
    assert_eq!((told.status, told.media_type.as_deref()), (200, Some("application/json")), "{}", told.body);
    jq(&told.body, filter)
}

/// What jq makes of a document.
pub fn jq(json: &str, filter: &str) -> String {
    let mut jq = Command::new("jq");
    let mut jq = jq.args(["-r", "-c", filter]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("jq runs");
    jq.stdin.take().unwrap().write_all(json.as_bytes()).unwrap();
    let done = jq.wait_with_output().unwrap();
    assert!(done.status.success(), "{filter}: {json}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// SIPp ends a body with the end of a line.
pub const TEXTS: &str = r#"[.messages[].text | rtrimstr("\r\n")]"#;
