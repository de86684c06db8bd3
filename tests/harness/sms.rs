//! Peers of the short message stories: an SMSC (node-smpp), a push client (curl) and its web server (Python).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::process::Process;
use super::{Server, Setup, eventually};

pub const XPID: &str = "12345678901";
pub const SECRET: &str = "s3cret";
pub const NUMBER: &str = "+819012345678";

/// A process that says one JSON object a line.
pub struct Peer(pub Process);

impl Peer {
    pub fn smsc(dir: &Path, port: u16, mode: &str) -> Peer {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/smsc.js");
        let mut command = Command::new("node");
        command.args([script, &port.to_string(), mode]);
        Peer::ready(Process::start(&format!("smsc-{port}-{mode}"), dir, &mut command))
    }

    /// Answers the first notifications with these statuses, and then 200.
    pub fn callback(dir: &Path, port: u16, statuses: &[u16]) -> Peer {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/callback.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(port.to_string()).args(statuses.iter().map(u16::to_string));
        Peer::ready(Process::start("callback", dir, &mut command))
    }

    pub fn ready(mut process: Process) -> Peer {
        process.wait_for("\"ready\"", Duration::from_secs(30));
        Peer(process)
    }

    /// What it has said so far.
    pub fn said(&self) -> Vec<Value> {
        self.0.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub fn events(&self, event: &str) -> Vec<Value> {
        self.said().into_iter().filter(|v| v["event"] == event).collect()
    }

    /// Waits until it has said so many events.
    pub fn wait_for(&self, event: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} times {event} of {}", self.0.name), Duration::from_secs(60), || {
            self.events(event).len() >= count
        });
        self.events(event)
    }

    /// The bodies of the notifications so far, with the statuses that were given.
    pub fn notified(&self) -> Vec<(u64, String)> {
        let of = |v: Value| Some((v["status"].as_u64()?, v["body"].as_str()?.to_owned()));
        self.said().into_iter().filter_map(of).collect()
    }

    /// Waits until so many notifications were taken.
    pub fn wait_notified(&self, count: usize) -> Vec<String> {
        let taken = || self.notified().into_iter().filter(|n| n.0 == 200).map(|n| n.1).collect::<Vec<_>>();
        eventually(&format!("{count} notifications"), Duration::from_secs(60), || taken().len() >= count);
        taken()
    }
}

/// A server with one push client and one link; `more` are further lines of the client's table.
pub fn setup(smsc: u16, callback: u16, more: &str) -> Setup {
    let mut setup = Setup::with_users(&["alice"]);
    setup.sections = format!(
        "[[smpp.link]]\nname = \"smsc\"\naddress = \"127.0.0.1:{smsc}\"\nsystem_id = \"isthmus\"\npassword = \"secret\"\n\
         window = 10\nline_state_tlv = 0x1501\nsource = \"5555\"\n"
    );
    setup.provisions = format!(
        "[[push_client]]\nxpid = \"{XPID}\"\nsecret = \"{SECRET}\"\nallow_from = [\"127.0.0.1/32\"]\n\
         callback = \"http://127.0.0.1:{callback}/notify\"\nsegmentation = true\nnumbers = [\"{NUMBER}\"]\n{more}\n"
    );
    setup
}

/// A push of a text; `more` are further elements.
pub fn text(reqid: &str, text: &str, more: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<smsgw><fncid>0101</fncid><comway>1101</comway><msn>{NUMBER}</msn>\
         <reqid>{reqid}</reqid><svcid>{XPID}</svcid><ctrlflg>1</ctrlflg><text>{text}</text>{more}</smsgw>"
    )
}

pub fn cancel(reqid: &str) -> String {
    format!(
        "<smsgw><fncid>0201</fncid><comway>1101</comway><msn>{NUMBER}</msn><reqid>{reqid}</reqid><svcid>{XPID}</svcid></smsgw>"
    )
}

/// Posts a body with curl: the HTTP status and the answer.
pub fn post(server: &Server, body: &str) -> (u16, String) {
    post_with(server, body, &["-u", &format!("{XPID}:{SECRET}"), "-H", "Content-Type: text/xml"])
}

pub fn post_with(server: &Server, body: &str, arguments: &[&str]) -> (u16, String) {
    post_to(server, &format!("http://127.0.0.1:{}/smsgw/", server.http), body, arguments)
}

/// To any of its addresses.
pub fn post_to(server: &Server, url: &str, body: &str, arguments: &[&str]) -> (u16, String) {
    let file = server.path().join(format!("body-{:?}.xml", std::thread::current().id()));
    std::fs::write(&file, body).unwrap();
    let done = Command::new("curl")
        .args(["-s", "-m", "60", "-w", "\n%{http_code}", "--data-binary", &format!("@{}", file.display())])
        .args(arguments)
        .arg(url)
        .output()
        .expect("curl runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or_default();
    (status.parse().unwrap_or(0), body.to_owned())
}

/// The content of the first element of that name.
pub fn field<'t>(xml: &'t str, name: &str) -> &'t str {
    let after = xml.split_once(&format!("<{name}>")).map_or("", |p| p.1);
    after.split_once(&format!("</{name}>")).map_or("", |p| p.0)
}

/// The code of a push.
pub fn push(server: &Server, body: &str) -> String {
    field(&post(server, body).1, "code").to_owned()
}

/// Waits for so many charging records of short messages; gives those that there are.
pub fn wait_records(server: &Server, count: usize) -> Vec<Value> {
    let records = || {
        let files = std::fs::read_dir(server.path().join("data/cdr")).into_iter().flatten();
        let text: String = files.filter_map(|f| std::fs::read_to_string(f.ok()?.path()).ok()).collect();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|r| r["kind"] == "short_message").collect::<Vec<_>>()
    };
    eventually(&format!("{count} charging records"), Duration::from_secs(20), || records().len() >= count);
    records()
}
