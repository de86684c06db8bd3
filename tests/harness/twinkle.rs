//! A real phone of a third house: Twinkle's console, which registers, publishes its presence and asks what waits in its mailbox, all
//! by itself.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::process::Process;
use super::server::{DOMAIN, PASSWORD, Server};

/// One running Twinkle. It ends when dropped.
pub struct Twinkle {
    _process: Process,
    log: PathBuf,
}

impl Twinkle {
    /// Registers `user` over UDP.
    pub fn start(server: &Server, user: &str) -> Self {
        let home = server.path().join(format!("twinkle-{user}"));
        let settings = home.join(".twinkle");
        std::fs::create_dir_all(&settings).unwrap();
        let (sip, rtp) = (server.ports.next(), server.ports.next());
        std::fs::write(
            settings.join("twinkle.sys"),
            format!("sip_port={sip}\nrtp_port={rtp}\nvalidate_audio_dev=no\n"),
        )
        .unwrap();
        let there = server.address();
        let profile = format!(
            "user_name={user}\nuser_domain={DOMAIN}\nauth_name={user}\nauth_pass={PASSWORD}\nauth_realm={DOMAIN}\n\
             outbound_proxy={there}\nuse_outbound_proxy=yes\nregistrar={there}\nregister_at_startup=yes\nregistration_time=600\n\
             sip_transport=udp\nmwi_sollicited=yes\nmwi_user={user}\nmwi_server={DOMAIN}\nmwi_via_proxy=yes\n\
             mwi_subscription_time=60\n"
        );
        std::fs::write(settings.join("profile.cfg"), profile).unwrap();
        // It ends when its input does, which therefore must not.
        let mut command = Command::new("sh");
        command.args(["-c", "tail -f /dev/null | twinkle-console profile.cfg"]).env("HOME", &home).current_dir(&home);
        let process = Process::start(&format!("twinkle-{user}"), server.path(), &mut command);
        Self { _process: process, log: settings.join("twinkle.log") }
    }

    /// Everything it sent, received and thought.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until its log has `text`.
    pub fn wait_for(&self, text: &str) {
        super::eventually(&format!("Twinkle logs {text:?}"), Duration::from_secs(30), || self.log().contains(text));
    }
}
