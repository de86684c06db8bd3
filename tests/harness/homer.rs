//! A capture server: Kamailio's sipcapture, which stands for Homer (Homer's own installers use it).

use std::process::Command;

use tempfile::TempDir;

use super::ports::Ports;
use super::process::Process;

/// A running capture server with an empty table.
pub struct Homer {
    pub port: u16,
    process: Process,
    _ports: Ports,
    // Last: the folder goes after everything that writes into it.
    folder: TempDir,
}

/// One packet as the capture server stored it.
#[derive(Debug, Clone)]
pub struct Captured {
    /// `127.0.0.1:5060`.
    pub source: String,
    pub destination: String,
    /// Of the IP protocol: `udp` or `tcp`.
    pub transport: Option<&'static str>,
    /// 2 IPv4, 10 IPv6.
    pub family: u64,
    /// Microseconds since 1970.
    pub at: u64,
    pub correlation: String,
    /// The message, trimmed.
    pub message: String,
}

impl Homer {
    /// On a port of its own, so that a server's configuration can name it.
    pub fn start() -> Homer {
        let folder = TempDir::with_prefix("isthmus-homer-").expect("a temporary folder");
        let ports = Ports::claim();
        let (dir, port) = (folder.path(), ports.next());
        let run = dir.join("run");
        std::fs::create_dir_all(&run).unwrap();
        let database = dir.join("homer.db");
        python(&[&format!("import sqlite3\nsqlite3.connect({database:?}).execute({TABLE:?})")]);
        let script = include_str!("homer.cfg").replace("@PORT@", &port.to_string());
        std::fs::write(run.join("kamailio.cfg"), script.replace("@DIR@", &dir.display().to_string())).unwrap();
        let mut command = Command::new("kamailio");
        command.arg("-f").arg(run.join("kamailio.cfg")).args(["-m", "64", "-M", "8", "-DD", "-E", "-Y"]).arg(&run);
        command.arg("-P").arg(run.join("pid"));
        let process = Process::start("homer", dir, &mut command);
        // It answers nothing; what comes before its worker runs waits in the socket.
        super::wait_for_udp(port);
        Homer { port, process, _ports: ports, folder }
    }

    /// Every packet so far, in the order of their times.
    pub fn captured(&self) -> Vec<Captured> {
        let out = python(&[READ, &self.folder.path().join("homer.db").display().to_string()]);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&out).expect("rows as JSON");
        rows.iter()
            .map(|r| Captured {
                source: format!("{}:{}", r[0].as_str().unwrap(), r[1]),
                destination: format!("{}:{}", r[2].as_str().unwrap(), r[3]),
                // Kamailio's own numbers (PROTO_UDP, PROTO_TCP).
                transport: r[4].as_u64().and_then(|n| ["udp", "tcp"].get(n as usize - 1).copied()),
                family: r[5].as_u64().unwrap(),
                at: r[6].as_u64().unwrap(),
                correlation: r[7].as_str().unwrap().into(),
                message: r[8].as_str().unwrap().trim().into(),
            })
            .collect()
    }

    pub fn output(&self) -> String {
        self.process.output()
    }
}

fn python(arguments: &[&str]) -> String {
    let done = Command::new("python3").arg("-c").args(arguments).output().expect("python3 runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

const READ: &str = "import json, sqlite3, sys
rows = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True).execute('''select source_ip, source_port, destination_ip,
  destination_port, proto, family, micro_ts, correlation_id, msg from sip_capture order by micro_ts, id''').fetchall()
text = lambda v: v.decode('utf-8', 'replace') if isinstance(v, bytes) else v
print(json.dumps([[text(v) for v in row] for row in rows]))";

/// The columns that sipcapture writes; the package has no script for SQLite.
const TABLE: &str = "create table sip_capture (id integer primary key autoincrement, date, micro_ts integer, method, reply_reason,
ruri, ruri_user, ruri_domain, from_user, from_domain, from_tag, to_user, to_domain, to_tag, pid_user, contact_user, auth_user,
callid, callid_aleg, via_1, via_1_branch, cseq, diversion, reason, content_type, auth, user_agent, source_ip, source_port integer,
destination_ip, destination_port integer, contact_ip, contact_port, originator_ip, originator_port, correlation_id, custom_field1,
custom_field2, custom_field3, proto integer, family integer, rtp_stat, type, node, msg)";
