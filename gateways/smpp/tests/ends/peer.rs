//! Programs of others, started for a test and ended with it. They say what they see as JSON, a line each.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::PATIENCE;

pub struct Peer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    seen: Vec<Value>,
}

/// The project's `tests` folder.
fn tests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

impl Peer {
    /// Ends with this test, however that ends.
    pub fn start(program: impl Into<PathBuf>, arguments: &[&str]) -> Peer {
        let program = program.into();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&program).args(arguments);
        command.env("PEERS_NODE", tests().join("node"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}; tests/run installs it", program.display()));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Peer { child, lines, seen: Vec::new() }
    }

    pub fn node(name: &str, arguments: &[&str]) -> Peer {
        let script = script(name);
        Peer::start("node", &[&[script.to_str().unwrap()], arguments].concat())
    }

    pub fn python(name: &str, arguments: &[&str]) -> Peer {
        let script = script(name);
        Peer::start(tests().join("python/venv/bin/python"), &[&[script.to_str().unwrap()], arguments].concat())
    }

    /// The next line that says `what`; others are kept for later.
    pub async fn said(&mut self, what: &str) -> Value {
        if let Some(at) = self.seen.iter().position(|v| v["what"] == what) {
            return self.seen.remove(at);
        }
        let waiting = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                match serde_json::from_str::<Value>(&line) {
                    Ok(value) if value["what"] == what => return value,
                    Ok(value) => self.seen.push(value),
                    Err(_) => self.seen.push(Value::String(line)),
                }
            }
            panic!("the peer ended before it said {what}; it said {:?}", self.seen);
        };
        match timeout(PATIENCE, waiting).await {
            Ok(value) => value,
            Err(_) => panic!("the peer did not say {what}; it said {:?}", self.seen),
        }
    }

    pub async fn tell(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
    }

    /// Waits for the end by itself.
    pub async fn ended(&mut self) -> bool {
        timeout(PATIENCE, self.child.wait()).await.expect("the peer ends").unwrap().success()
    }
}
