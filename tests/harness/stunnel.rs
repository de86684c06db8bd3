//! stunnel: TLS of another make (OpenSSL) for peers that have none, such as Debian's SIPp.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::process::Process;

/// Takes TCP at `accept` and goes on over TLS to `connect`; the server there must prove to be `host`, which is asked for by
/// SNI.
pub fn client(dir: &Path, accept: u16, connect: u16, host: &str) -> Process {
    let lines =
        format!("client = yes\nCAfile = {}/ca.pem\nverifyChain = yes\ncheckHost = {host}\nsni = {host}", dir.display());
    start(dir, accept, connect, &lines)
}

/// The same, as who `name.pem` says.
pub fn client_as(dir: &Path, accept: u16, connect: u16, host: &str, name: &str) -> Process {
    let own = format!("cert = {0}/{name}.pem\nkey = {0}/{name}.key", dir.display());
    let lines =
        format!("client = yes\nCAfile = {}/ca.pem\nverifyChain = yes\ncheckHost = {host}\nsni = {host}", dir.display());
    start(dir, accept, connect, &format!("{lines}\n{own}"))
}

/// Takes TLS at `accept`, as who `name.pem` says, and goes on over TCP to `connect`.
pub fn server(dir: &Path, accept: u16, connect: u16, name: &str) -> Process {
    let lines = format!("cert = {0}/{name}.pem\nkey = {0}/{name}.key", dir.display());
    start(dir, accept, connect, &lines)
}

fn start(dir: &Path, accept: u16, connect: u16, lines: &str) -> Process {
    let name = format!("stunnel-{accept}");
    let config = dir.join(format!("{name}.conf"));
    let text = format!(
        "foreground = yes\nsyslog = no\ndebug = info\npid =\n[sip]\naccept = 127.0.0.1:{accept}\nconnect = 127.0.0.1:{connect}\n{lines}\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut process = Process::start(&name, dir, Command::new("stunnel4").arg(&config));
    process.wait_for("Configuration successful", Duration::from_secs(15));
    super::wait_for_tcp(accept);
    process
}
