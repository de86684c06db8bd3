//! An MSRP client in a browser's place: npm's `websocket`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::Server;

const LIMIT: Duration = Duration::from_secs(20);

/// `tests/node/msrp.js`, its lines, and what it is told.
pub struct Browser {
    child: Child,
    lines: Receiver<String>,
    stdin: ChildStdin,
}

impl Browser {
    pub fn open(server: &Server, user: &str, password: &str) -> Browser {
        let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
        assert!(
            node.join("node_modules/websocket").exists(),
            "tests/run (or npm install in tests/node) gets websocket"
        );
        let url = format!("wss://127.0.0.1:{}/msrp", server.https);
        let mut command = Command::new("node");
        command.args(["msrp.js", &url, user, password]).current_dir(node);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| tell.send(l)));
        Browser { child, lines, stdin }
    }

    pub fn next(&self) -> String {
        self.lines.recv_timeout(LIMIT).expect("the client says something")
    }

    pub fn sends(&mut self, text: &str) {
        writeln!(self.stdin, "{}", serde_json::json!({ "text": text })).unwrap();
    }

    /// What comes next, as MSRP.
    pub fn hears(&self) -> String {
        let line = self.next();
        let got = line.strip_prefix("got ").unwrap_or_else(|| panic!("{line}"));
        serde_json::from_str(got).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
