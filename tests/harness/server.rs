//! The server under test: the built binary, or (to prove a scenario itself) Kamailio in its place.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::kamailio;
use super::ports::Ports;
use super::process::Process;
use super::tls::Authority;

pub const DOMAIN: &str = "isthmus.test";
pub const PASSWORD: &str = "wonderland";

/// What a story wants of the server before it starts.
pub struct Setup {
    pub domain: &'static str,
    pub users: Vec<String>,
    pub auth: &'static str,
    pub store: &'static str,
    /// More lines for `[sip]`, such as `resolver = "127.0.0.1:22999"`.
    pub sip: String,
    /// More lines for `[registrar]` and `[tls]`.
    pub registrar: String,
    pub tls: String,
    /// More lines for `[http]`; `@PORT@` is that of the plain listener.
    pub http: String,
    /// More lines for `[msrp]`, whose doors then are open at [`Server::msrp`]; `None`: shut.
    pub msrp: Option<String>,
    /// Further certificates to be there before the server: file and host.
    pub issue: Vec<(&'static str, &'static str)>,
    /// Whole further sections.
    pub sections: String,
    /// More tables for the provisioning file, such as a user with settings of its own.
    pub provisions: String,
    /// A command that runs the server, such as `strace -D …`; empty: none.
    pub under: Vec<String>,
    /// Where the data folder lies, else in the server's own folder.
    pub data: Option<PathBuf>,
}

impl Setup {
    /// A server with digest authentication and these users, all with [`PASSWORD`].
    pub fn with_users(users: &[&str]) -> Self {
        Self {
            domain: DOMAIN,
            users: users.iter().map(|u| (*u).into()).collect(),
            auth: "digest",
            store: "before-reply",
            sip: String::new(),
            registrar: String::new(),
            tls: String::new(),
            http: String::new(),
            msrp: None,
            issue: Vec::new(),
            sections: String::new(),
            provisions: String::new(),
            under: Vec::new(),
            data: None,
        }
    }

    /// With the doors of MSRP open.
    pub fn with_msrp(self) -> Self {
        Self { msrp: Some(String::new()), ..self }
    }

    pub fn start(self) -> Server {
        Server::start(self)
    }
}

/// Which server stands in for "the server": `ISTHMUS_TEST_SUBJECT=kamailio` proves a scenario against another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    Isthmus,
    Kamailio,
}

impl Subject {
    pub fn chosen() -> Self {
        match std::env::var("ISTHMUS_TEST_SUBJECT").as_deref() {
            Ok("kamailio") => Self::Kamailio,
            _ => Self::Isthmus,
        }
    }
}

/// A running server, its ports and its folder. Killed when dropped; [`Server::stop`] ends it the polite way. The folder of a
/// failed test stays when `ISTHMUS_TEST_KEEP` is set.
pub struct Server {
    pub subject: Subject,
    pub ports: Ports,
    pub sip: u16,
    pub sips: u16,
    pub http: u16,
    pub https: u16,
    pub admin: u16,
    /// Without and with TLS, where they are wanted.
    pub msrp: [u16; 2],
    pub authority: Authority,
    pub process: Process,
    pub setup: Setup,
    /// A block of their own: stories with many phones need all of the first.
    _doors: Option<Ports>,
    // Last: the folder goes after everything that writes into it.
    dir: TempDir,
}

impl Server {
    fn start(setup: Setup) -> Self {
        let subject = Subject::chosen();
        let dir = TempDir::with_prefix("isthmus-story-").expect("a temporary folder");
        let ports = Ports::claim();
        let (sip, sips, http, https, admin) = (ports.next(), ports.next(), ports.next(), ports.next(), ports.next());
        let doors = setup.msrp.as_ref().map(|_| Ports::claim());
        let msrp = doors.as_ref().map_or([0; 2], |doors| [doors.next(), doors.next()]);
        let authority = Authority::new(dir.path());
        authority.issue("server", &[DOMAIN, "localhost"]);
        for (file, host) in &setup.issue {
            authority.issue(file, &[host]);
        }
        if let Some(data) = &setup.data {
            std::os::unix::fs::symlink(data, dir.path().join("data")).unwrap();
        }
        let written = config(dir.path(), &setup, [sip, sips, http, https, admin], msrp);
        std::fs::write(dir.path().join("isthmus.toml"), written).unwrap();
        std::fs::write(dir.path().join("users.toml"), users(&setup)).unwrap();
        if subject == Subject::Isthmus && !setup.users.is_empty() {
            run_binary(dir.path(), &["import", "users.toml", "--config", "isthmus.toml"]);
        }
        let process = launch(subject, dir.path(), &setup, sip, sips);
        Self { subject, ports, sip, sips, http, https, admin, msrp, authority, process, setup, _doors: doors, dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `127.0.0.1:port` of UDP and TCP.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.sip)
    }

    /// The server as a Unix process left it: starts it again on the same folder and ports.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(self.subject, self.dir.path(), &self.setup, self.sip, self.sips);
    }

    /// Rewrites the configuration with a change, for a reload.
    pub fn rewrite_config(&self, change: impl FnOnce(String) -> String) {
        let path = self.path().join("isthmus.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, change(text)).unwrap();
    }

    /// SIGTERM; the server must end by itself with exit code 0.
    pub fn stop(mut self) {
        self.process.signal("TERM");
        let status = self.process.wait(Duration::from_secs(35));
        let status = status.unwrap_or_else(|| panic!("still running 35 s after SIGTERM:\n{}", self.process.output()));
        assert_eq!(status.code(), Some(0), "exit after SIGTERM:\n{}", self.process.output());
    }

    /// Runs another command of the same binary on the same folder, and returns what it printed.
    pub fn command(&self, arguments: &[&str]) -> String {
        run_binary(self.path(), arguments)
    }

    /// One GET of the admin listener: (status, body).
    pub fn admin(&self, path: &str) -> (u16, String) {
        super::http::get(self.admin, path)
    }

    /// What the carriers counted of one kind of event.
    pub fn carrier_event(&self, event: &str) -> f64 {
        let (_, text) = self.admin("/metrics");
        let name = format!("isthmus_carrier_events_total{{event=\"{event}\"}} ");
        text.lines().find_map(|l| l.strip_prefix(&name)?.parse().ok()).unwrap_or(0.0)
    }

    /// The value of one metric whose line starts with `name`, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.admin("/metrics");
        let lines = text.lines().filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("ISTHMUS_TEST_KEEP").is_some() {
            self.dir.disable_cleanup(true);
            eprintln!("kept: {}", self.path().display());
        }
    }
}

/// The built binary: `ISTHMUS_BIN`, else the one that cargo built for this test.
pub fn binary() -> PathBuf {
    let built = option_env!("CARGO_BIN_EXE_isthmus").map(PathBuf::from);
    std::env::var_os("ISTHMUS_BIN").map(PathBuf::from).or(built).expect("ISTHMUS_BIN names the server")
}

fn run_binary(dir: &Path, arguments: &[&str]) -> String {
    let done = Command::new(binary()).args(arguments).current_dir(dir).output().expect("the server's binary runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success(),
        "isthmus {arguments:?}: {}\n{text}{}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
    text
}

fn launch(subject: Subject, dir: &Path, setup: &Setup, sip: u16, sips: u16) -> Process {
    match subject {
        Subject::Isthmus => {
            let program = setup.under.first().map_or_else(binary, PathBuf::from);
            let mut command = Command::new(program);
            if let [_, arguments @ ..] = &*setup.under {
                command.args(arguments).arg(binary());
            }
            command.args(["serve", "--config", "isthmus.toml"]).current_dir(dir);
            let mut process = Process::start("isthmus", dir, &mut command);
            process.wait_for("ready domain=", Duration::from_secs(30));
            process
        }
        Subject::Kamailio => kamailio::subject(dir, setup, sip, sips),
    }
}

fn config(dir: &Path, setup: &Setup, [sip, sips, http, https, admin]: [u16; 5], doors: [u16; 2]) -> String {
    let dir = dir.display();
    let Setup { domain, auth, store, sip: more, registrar, tls, sections, http: more_http, .. } = setup;
    let more_http = more_http.replace("@PORT@", &http.to_string());
    // Shut doors are said: the usual ports are one for all.
    let door = |port: u16| if port == 0 { String::new() } else { format!("127.0.0.1:{port}") };
    let [msrp, msrps] = doors.map(door);
    let more_msrp = setup.msrp.as_deref().unwrap_or_default();
    format!(
        r#"domain = "{domain}"
data_dir = "{dir}/data"
[sip]
udp = ["127.0.0.1:{sip}"]
tcp = ["127.0.0.1:{sip}"]
tls = ["127.0.0.1:{sips}"]
auth = "{auth}"
{more}
[registrar]
store = "{store}"
{registrar}
[tls]
certificate = "{dir}/server.pem"
key = "{dir}/server.key"
{tls}
[http]
plain = "127.0.0.1:{http}"
tls = "127.0.0.1:{https}"
{more_http}
[admin]
listen = "127.0.0.1:{admin}"
[msrp]
tcp = "{msrp}"
tls = "{msrps}"
{more_msrp}
{sections}
"#
    )
}

fn users(setup: &Setup) -> String {
    let one = |id: &String| format!("[[user]]\nid = \"{id}\"\npassword = \"{PASSWORD}\"\n");
    setup.users.iter().map(one).chain([setup.provisions.clone()]).collect()
}
