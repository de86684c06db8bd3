//! Kannel as a legacy application: its bearerbox binds to us, its smsbox answers each message.

use std::path::Path;
use std::process::Command;

use super::ports::Ports;
use super::process::Process;
use super::wait_for_tcp;

/// Bearerbox and smsbox, in the order in which they end.
pub struct Kannel {
    _smsbox: Process,
    _bearerbox: Process,
}

impl Kannel {
    /// Binds as `system_id` to the door at `port`; every message is answered with `answer`, in which `%a` is what it said.
    pub fn esme(dir: &Path, ports: &Ports, port: u16, [system_id, password]: [&str; 2], answer: &str) -> Kannel {
        let (admin, boxes, http) = (ports.next(), ports.next(), ports.next());
        let text = format!(
            "group = core\nadmin-port = {admin}\nadmin-interface = 127.0.0.1\nadmin-password = secret\nsmsbox-port = {boxes}\n\
             box-allow-ip = 127.0.0.1\n\n\
             group = smsc\nsmsc = smpp\nsmsc-id = door\nhost = 127.0.0.1\nport = {port}\ntransceiver-mode = true\n\
             smsc-username = {system_id}\nsmsc-password = {password}\nsystem-type = \"\"\nreconnect-delay = 1\n\n\
             group = smsbox\nbearerbox-host = 127.0.0.1\nsendsms-port = {http}\nsendsms-interface = 127.0.0.1\n\n\
             group = sms-service\nkeyword = default\ntext = \"{answer}\"\n"
        );
        let file = dir.join("kannel.conf");
        std::fs::write(&file, text).unwrap();
        let start = |name: &str| Process::start(name, dir, Command::new(format!("/usr/sbin/{name}")).arg(&file));
        let bearerbox = start("bearerbox");
        wait_for_tcp(boxes);
        Kannel { _smsbox: start("smsbox"), _bearerbox: bearerbox }
    }
}
