//! A real phone of another house: Linphone's console, registering by itself. It knows SHA-256.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::process::Process;
use super::server::{DOMAIN, PASSWORD, Server};

/// One running Linphone. It ends when dropped.
pub struct Linphone {
    pub process: Process,
    log: PathBuf,
}

impl Linphone {
    /// Registers `user` over UDP.
    pub fn start(server: &Server, user: &str) -> Self {
        Self::with_settings(server, user, "publish=0", "", "")
    }

    /// Registers `user`, publishes its presence and watches a friend's.
    pub fn present(server: &Server, user: &str, friend: &str) -> Self {
        let proxy = format!("publish=1\npublish_expires=120\n{}", route(server));
        Self::with_settings(server, user, &proxy, "", &friend_entries(&[friend]))
    }

    /// Registers `user` and watches these friends by one subscription, to the list of them that it sends (RFC 5367).
    pub fn with_friends(server: &Server, user: &str, friends: &[&str]) -> Self {
        let list = format!("rls_uri=sip:rls@{DOMAIN}\nrls_presence_expires=60\n");
        Self::with_settings(server, user, &format!("publish=0\n{}", route(server)), &list, &friend_entries(friends))
    }

    /// Waits until it says so of a friend: `Online`, `Offline`.
    pub fn sees(&mut self, friend: &str, status: &str) {
        let said = format!("Friend \"{friend}\" <sip:{friend}@{DOMAIN}> is {status}");
        self.process.wait_for(&said, Duration::from_secs(40));
    }

    fn with_settings(server: &Server, user: &str, proxy: &str, sip: &str, more: &str) -> Self {
        let dir = server.path().join(format!("linphone-{user}"));
        std::fs::create_dir_all(dir.join(".local/share/linphone")).unwrap();
        let log = dir.join("log");
        let settings = dir.join("linphonerc");
        let (own, registrar) = (server.ports.next(), server.sip);
        // Without a route to the world it would hold its network for down, and stay silent.
        let text = format!(
            "[sip]\nsip_port={own}\nsip_tcp_port=0\nsip_tls_port=0\nbind_address=127.0.0.1\nuse_ipv6=0\ndefault_proxy=0\n{sip}\
             [net]\nauto_net_state_mon=0\n[misc]\nauto_net_state_mon=0\n\
             [proxy_0]\nreg_proxy=<sip:127.0.0.1:{registrar};transport=udp>\nreg_identity=sip:{user}@{DOMAIN}\n\
             reg_expires=120\nreg_sendregister=1\n{proxy}\n\
             [auth_info_0]\nusername={user}\npasswd={PASSWORD}\nrealm={DOMAIN}\ndomain={DOMAIN}\n{more}"
        );
        std::fs::write(&settings, text).unwrap();
        // It ends when its input does, which therefore must not.
        let mut command = Command::new("sh");
        command.args(["-c", "tail -f /dev/null | linphonec -c \"$1\" -d 6 -l \"$2\"", "sh"]);
        command.arg(&settings).arg(&log).env("HOME", &dir).current_dir(&dir);
        let process = Process::start(&format!("linphone-{user}"), server.path(), &mut command);
        Self { process, log }
    }

    /// Everything it sent, received and thought.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until its log has `text`.
    pub fn wait_for(&mut self, text: &str) -> String {
        super::eventually(&format!("Linphone logs {text:?}"), Duration::from_secs(30), || self.log().contains(text));
        self.log()
    }
}

/// It would look for the domain's own server otherwise.
fn route(server: &Server) -> String {
    format!("reg_route=<sip:127.0.0.1:{};transport=udp;lr>", server.sip)
}

fn friend_entries(friends: &[&str]) -> String {
    let entry = |(n, friend): (usize, &&str)| {
        format!("[friend_{n}]\nurl=\"{friend}\" <sip:{friend}@{DOMAIN}>\npol=accept\nsubscribe=1\n")
    };
    friends.iter().enumerate().map(entry).collect()
}
