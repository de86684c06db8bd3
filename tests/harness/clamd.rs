//! clamd as a peer.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Process, wait_for_tcp};

/// One with one signature of its own: it needs no download.
pub struct Clamd {
    pub process: Process,
    pub address: String,
}

impl Clamd {
    pub fn start(dir: &Path, port: u16, virus: &[u8]) -> Clamd {
        let database = dir.join("signatures");
        fs::create_dir(&database).unwrap();
        // Name, type of file (any), offset (any), bytes.
        let hex: String = virus.iter().map(|b| format!("{b:02x}")).collect();
        fs::write(database.join("own.ndb"), format!("Isthmus.Test:0:*:{hex}\n")).unwrap();
        let config = format!(
            "Foreground yes\nTCPSocket {port}\nTCPAddr 127.0.0.1\nDatabaseDirectory {}\nTemporaryDirectory {}\nLogVerbose yes\n",
            database.display(),
            dir.display()
        );
        fs::write(dir.join("clamd.conf"), config).unwrap();
        let mut command = Command::new("clamd");
        command.arg("-c").arg(dir.join("clamd.conf"));
        let process = Process::start("clamd", dir, &mut command);
        wait_for_tcp(port);
        Clamd { process, address: format!("127.0.0.1:{port}") }
    }
}

/// The test file that every scanner knows (eicar.org), put together here so that no scanner finds it in this source.
pub fn eicar() -> Vec<u8> {
    let (a, b) = (r"X5O!P%@AP[4\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*");
    format!("{a}{b}").into_bytes()
}
