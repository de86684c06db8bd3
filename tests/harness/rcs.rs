//! An RCS handset: `tests/rcs`, which joins parts of the crate rust-rcs-client and is told what to do by lines.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use super::{DOMAIN, PASSWORD, Server};

const LIMIT: Duration = Duration::from_secs(20);

pub struct Handset {
    child: Child,
    events: Receiver<Value>,
    /// Heard while something else was waited for.
    heard: VecDeque<Value>,
    stdin: ChildStdin,
}

impl Handset {
    /// Registers over TCP.
    pub fn start(server: &Server, user: &str) -> Handset {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/rcs/debug/handset");
        assert!(
            program.exists(),
            "tests/run (or cargo build --manifest-path tests/rcs/Cargo.toml --target-dir target/rcs) builds it"
        );
        let mut command = Command::new(program);
        command.args([&server.sip.to_string(), user, DOMAIN, PASSWORD]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the handset");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, events) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // The crates print what they like, too.
            lines.filter_map(|l| serde_json::from_str(&l).ok()).try_for_each(|event| tell.send(event))
        });
        Handset { child, events, heard: VecDeque::new(), stdin }
    }

    pub fn does(&mut self, what: Value) {
        writeln!(self.stdin, "{what}").unwrap();
    }

    /// The next event of a kind, among those that were passed over too: a message may come before its receiver knows of its registration.
    pub fn hears(&mut self, kind: &str) -> Value {
        if let Some(at) = self.heard.iter().position(|event| event.get(kind).is_some()) {
            return self.heard.remove(at).unwrap();
        }
        loop {
            let event = self.events.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no {kind}; {:?}", self.heard));
            if event.get(kind).is_some() {
                return event;
            }
            self.heard.push_back(event);
        }
    }
}

impl Drop for Handset {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
