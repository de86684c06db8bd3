//! Prosody as the server of XMPP users (`xmpp.test`), and slixmpp as what they talk with.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::ports::Ports;
use super::process::Process;
use super::server::PASSWORD;
use super::sms::Peer;
use super::wait_for_tcp;

pub const XMPP_DOMAIN: &str = "xmpp.test";

/// A running Prosody. It finds others by the name server at `dns`.
pub struct Prosody {
    process: Process,
    /// For clients.
    c2s: u16,
    /// For servers.
    pub s2s: u16,
    config: std::path::PathBuf,
}

impl Prosody {
    /// With bob and carol, and the certificate `xmpp.pem` of `dir`. `s2s` is given, as whoever looks for it has to know it before.
    pub fn start(dir: &Path, ports: &Ports, s2s: u16, dns: u16) -> Prosody {
        let c2s = ports.next();
        let home = dir.join("prosody");
        let accounts = home.join("data/xmpp%2etest/accounts");
        std::fs::create_dir_all(&accounts).unwrap();
        for user in ["bob", "carol"] {
            let account = format!("return {{ [\"password\"] = \"{PASSWORD}\" }};\n");
            std::fs::write(accounts.join(format!("{user}.dat")), account).unwrap();
        }
        let (dir, home) = (dir.display(), home.display());
        // By itself libunbound knows that there is nothing in `test.` (RFC 6761 §6.2).
        let text = format!(
            "run_as_root = true\npidfile = \"{home}/pid\"\ndata_path = \"{home}/data\"\nlog = {{ info = \"*console\" }}\n\
             interfaces = {{ \"127.0.0.1\" }}\nc2s_ports = {{ {c2s} }}\ns2s_ports = {{ {s2s} }}\n\
             modules_enabled = {{ \"roster\", \"saslauth\", \"tls\", \"dialback\", \"ping\", \"disco\", \"offline\" }}\n\
             modules_disabled = {{ \"s2s_auth_certs\" }}\nauthentication = \"internal_plain\"\n\
             s2s_require_encryption = true\ns2s_secure_auth = false\n\
             unbound = {{ resolvconf = false, hoststxt = false, forward = \"127.0.0.1@{dns}\", \
             options = {{ [\"local-zone:\"] = \"test. transparent\" }} }}\n\
             VirtualHost \"{XMPP_DOMAIN}\"\nssl = {{ certificate = \"{dir}/xmpp.pem\", key = \"{dir}/xmpp.key\" }}\n"
        );
        let config = Path::new(&home.to_string()).join("prosody.cfg.lua");
        std::fs::write(&config, text).unwrap();
        let process = launch(&config, [c2s, s2s]);
        Prosody { process, c2s, s2s, config }
    }

    /// Waits until it has said this in its log.
    pub fn says(&mut self, text: &str) {
        self.process.wait_for(text, Duration::from_secs(20));
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Again, with what it had on disk.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.config, [self.c2s, self.s2s]);
    }

    /// A client of this user, who is there. It says what it gets as events `message`.
    pub fn client(&self, user: &str) -> Peer {
        self.client_with(user, &[])
    }

    /// It sends `text` to `to` once it is there.
    pub fn sending(&self, user: &str, to: &str, text: &str) -> Peer {
        self.client_with(user, &[to, text])
    }

    fn client_with(&self, user: &str, more: &[&str]) -> Peer {
        let python = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/venv/bin/python");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/xmpp.py");
        let mut command = Command::new(python);
        command.args([script, &self.c2s.to_string(), &format!("{user}@{XMPP_DOMAIN}"), PASSWORD]).args(more);
        let dir = self.config.parent().expect("a folder");
        Peer::ready(Process::start(&format!("xmpp-{user}-{}", more.len()), dir, &mut command))
    }
}

fn launch(config: &Path, ports: [u16; 2]) -> Process {
    let dir = config.parent().expect("a folder");
    let mut command = Command::new("prosody");
    command.args(["-F", "--config"]).arg(config);
    let mut process = Process::start("prosody", dir, &mut command);
    process.wait_for("xmpp.test", Duration::from_secs(20));
    ports.into_iter().for_each(wait_for_tcp);
    process
}
