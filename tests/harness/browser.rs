//! A browser's SIP stack (JsSIP), run by node: over a WebSocket, or over TCP as other phones.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{DOMAIN, PASSWORD, Process, Server};

/// Runs `tests/node/browser.js` for `user`; it prints `registered`, `sent`, `got TEXT`, `failed CAUSE`. It sends to `send_to`, and answers the first
/// message that it gets with `answer`, if they are not empty.
pub fn browser(server: &Server, user: &str, password: &str, send_to: &str, answer: &str) -> Process {
    let url = websocket(server);
    run(server, &format!("browser-{user}"), &["browser.js", &url, user, password, DOMAIN, send_to, answer])
}

/// The same in Chromium, by `tests/node/person.js`: a page with somebody who types, clicks and reads.
pub fn person(server: &Server, user: &str, send_to: &str, answer: &str) -> Process {
    let url = websocket(server);
    run(server, &format!("person-{user}"), &["person.js", &url, user, PASSWORD, DOMAIN, send_to, answer])
}

/// Runs `tests/node/phone.js` at `url`: it registers, takes a session of messages with the section `media`, and prints the lines of the offer, `called by URI`, `ended`.
pub fn phone(server: &Server, url: &str, user: &str, media: &str) -> Process {
    let mut phone = run(server, &format!("phone-{user}"), &["phone.js", url, user, PASSWORD, DOMAIN, media]);
    phone.wait_for("registered", Duration::from_secs(30));
    phone
}

/// Where browsers connect to.
pub fn websocket(server: &Server) -> String {
    format!("wss://127.0.0.1:{}/sip", server.https)
}

fn run(server: &Server, name: &str, arguments: &[&str]) -> Process {
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    assert!(node.join("node_modules/jssip").exists(), "tests/run (or npm install in tests/node) gets JsSIP");
    let mut command = Command::new("node");
    command.args(arguments).current_dir(&node).env("NODE_EXTRA_CA_CERTS", server.authority.certificate());
    Process::start(name, server.path(), &mut command)
}
