//! c-icap as a peer, its antivirus service in front of clamd.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::clamd::Clamd;
use super::{Process, wait_for_tcp};

pub struct CIcap {
    pub process: Process,
    /// Of the service.
    pub url: String,
}

/// A folder that is named after the machine.
fn modules() -> String {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path().join("c_icap"));
    let found = folders.filter(|folder| folder.join("clamd_mod.so").exists()).max();
    found.expect("c-icap with virus_scan: tests/run installs what the tests need").display().to_string()
}

impl CIcap {
    pub fn start(dir: &Path, port: u16, clamd: &Clamd) -> CIcap {
        let (_, clamd_port) = clamd.address.rsplit_once(':').unwrap();
        let modules = modules();
        let at = |name: &str| dir.join(name).display().to_string();
        let config = format!(
            "Port 127.0.0.1:{port}\nPidFile {}\nCommandsSocket {}\nServerLog {}\nAccessLog {}\nTmpDir {}\n\
             StartServers 1\nMaxServers 2\nModulesDir {modules}\nServicesDir {modules}\n\
             TemplateDir /usr/share/c_icap/templates/\nLoadMagicFile /etc/c-icap/c-icap.magic\n\
             Service antivirus virus_scan.so\nModule common clamd_mod.so\n\
             clamd_mod.ClamdHost 127.0.0.1\nclamd_mod.ClamdPort {clamd_port}\nvirus_scan.DefaultEngine clamd\n\
             virus_scan.ScanFileTypes TEXT DATA EXECUTABLE ARCHIVE GIF JPEG MSOFFICE\nvirus_scan.MaxObjectSize 100M\n\
             ServiceAlias whole virus_scan?allow204=on&sizelimit=off&mode=simple\n",
            at("c-icap.pid"),
            at("c-icap.ctl"),
            at("c-icap-server.log"),
            at("c-icap-access.log"),
            dir.display()
        );
        fs::write(dir.join("c-icap.conf"), config).unwrap();
        let mut command = Command::new("c-icap");
        command.arg("-N").arg("-f").arg(dir.join("c-icap.conf"));
        let process = Process::start("c-icap", dir, &mut command);
        wait_for_tcp(port);
        CIcap { process, url: format!("icap://127.0.0.1:{port}/whole") }
    }
}
