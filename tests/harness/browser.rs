//! A browser's SIP stack (JsSIP) over a WebSocket, run by node.

use std::path::Path;
use std::process::Command;

use super::{DOMAIN, Process, Server};

/// Runs `tests/node/browser.js` for `user`; it prints `registered`, `sent`, `got TEXT`, `failed CAUSE`. It sends to `send_to`, and answers the first
/// message that it gets with `answer`, if they are not empty.
pub fn browser(server: &Server, user: &str, password: &str, send_to: &str, answer: &str) -> Process {
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    assert!(node.join("node_modules/jssip").exists(), "tests/run (or npm install in tests/node) gets JsSIP");
    let mut command = Command::new("node");
    command.arg("browser.js").arg(format!("wss://127.0.0.1:{}/sip", server.https));
    command.args([user, password, DOMAIN, send_to, answer]).current_dir(&node);
    command.env("NODE_EXTRA_CA_CERTS", server.authority.certificate());
    Process::start(&format!("browser-{user}"), server.path(), &mut command)
}
