//! A NATS server of a test's own, on a port that the kernel picked.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server; stopped when dropped, its folder removed.
pub struct Nats {
    folder: tempfile::TempDir,
    child: Child,
    port: u16,
}

impl Nats {
    pub fn start() -> Nats {
        let folder = tempfile::Builder::new().prefix("isthmus-nats").tempdir().expect("a folder for the tests");
        let child = launch(&folder, -1);
        let mut nats = Nats { folder, child, port: 0 };
        nats.port = nats.listening();
        nats
    }

    /// For the configuration's `[bus] url`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.folder.path().join("log"));
    }

    /// Starts again on the same port.
    pub fn restart(&mut self) {
        self.child = launch(&self.folder, i32::from(self.port));
        self.listening();
    }

    /// Waits until it listens; its port.
    fn listening(&self) -> u16 {
        let start = Instant::now();
        loop {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let port = log.split("Listening for client connections on 127.0.0.1:").nth(1);
            let port = port.and_then(|rest| rest.lines().next()?.trim().parse().ok());
            if let Some(port) = port.filter(|_| log.contains("Server is ready")) {
                return port;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "NATS does not start: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(folder: &tempfile::TempDir, port: i32) -> Child {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "nats-server", "-a", "127.0.0.1", "-p", &port.to_string(), "-l"])
        .arg(folder.path().join("log"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server starts (tests/run installs it)")
}
