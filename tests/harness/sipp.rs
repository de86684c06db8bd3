//! SIPp as a peer: a scenario from `tests/sipp`, its counts, and its trace when something went wrong.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::Process;
use super::server::{DOMAIN, PASSWORD, Server};

/// A SIPp run to be. `@NAME@` in the scenario is replaced by what [`Sipp::set`] gave.
pub struct Sipp {
    scenario: &'static str,
    dir: PathBuf,
    target: String,
    port: u16,
    transport: &'static str,
    calls: Option<u32>,
    rate: u32,
    rows: Vec<String>,
    sets: Vec<(&'static str, String)>,
    lost: u32,
    limit: Duration,
    contact: Option<u16>,
    padding: usize,
    from: &'static str,
    more: Vec<&'static str>,
    registers: bool,
}

/// What SIPp counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub ok: u64,
    pub failed: u64,
    pub retransmissions: u64,
}

impl Sipp {
    /// The scenario file without `.xml`; it talks to `server` from `port`, for user rows `alice`, `bob`...
    pub fn new(server: &Server, scenario: &'static str, port: u16) -> Self {
        Self {
            scenario,
            dir: server.path().into(),
            target: server.address(),
            port,
            transport: "u1",
            calls: Some(1),
            rate: 50,
            rows: Vec::new(),
            sets: vec![
                ("DOMAIN", DOMAIN.into()),
                ("TRANSPORT", "UDP".into()),
                ("HOLD", "200".into()),
                ("WAIT", "100".into()),
                ("MORE", String::new()),
                ("REPLACES", String::new()),
                ("TYPE", "text/plain".into()),
                ("NUMBER", " [call_number]".into()),
                ("FINAL", "486 Busy Here".into()),
                // Of a REFER.
                ("WHOM", format!("sip:carol@{DOMAIN}")),
                ("CONTENT", "application/sdp".into()),
                ("BEFORE", String::new()),
                ("AFTER", String::new()),
                // What is watched.
                ("EVENT", "reg".into()),
                ("ACCEPT", "application/reginfo+xml".into()),
                ("EXPIRES", "600".into()),
            ],
            lost: 0,
            limit: Duration::from_secs(60),
            contact: None,
            padding: 0,
            from: "127.0.0.1",
            more: Vec::new(),
            registers: false,
        }
    }

    pub fn towards(mut self, port: u16) -> Self {
        self.target = format!("127.0.0.1:{port}");
        self
    }

    /// Over one TCP connection.
    pub fn tcp(mut self) -> Self {
        self.transport = "t1";
        self.set("TRANSPORT", "TCP")
    }

    /// Over a TCP connection of its own for each call.
    pub fn tcp_each(mut self) -> Self {
        self.transport = "tn";
        self.set("TRANSPORT", "TCP")
    }

    /// Over TCP to something that makes TLS of it, or that took TLS away.
    pub fn tls_by_stunnel(self) -> Self {
        self.tcp().set("TRANSPORT", "TLS")
    }

    /// Says in its Contact that it is reached at this port of loopback.
    pub fn reached_at(mut self, port: u16) -> Self {
        self.contact = Some(port);
        self
    }

    /// Makes the authenticated INVITE longer by so many bytes.
    pub fn padded(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// From another loopback address.
    pub fn from(mut self, address: &'static str) -> Self {
        self.from = address;
        self
    }

    /// Registers before anything else, over the same connection. SIPp tells calls apart by Call-ID: what comes then must have the
    /// one of the REGISTER (`-cid_str` at both ends).
    pub fn registered(mut self) -> Self {
        self.registers = true;
        let contact = format!("{}:{};transport={}", self.from, self.port, self.transport_token());
        self.set("CONTACT", contact).set("PARAMS", "").set("EXPIRES", 600)
    }

    fn transport_token(&self) -> &'static str {
        if self.transport == "u1" { "udp" } else { "tcp" }
    }

    /// Further options of SIPp.
    pub fn options(mut self, options: &[&'static str]) -> Self {
        self.more.extend(options);
        self
    }

    /// Replaces `@name@` in the scenario.
    pub fn set(mut self, name: &'static str, value: impl ToString) -> Self {
        self.sets.retain(|(n, _)| *n != name);
        self.sets.push((name, value.to_string()));
        self
    }

    /// One call for each user, who proves itself with [`PASSWORD`]: `[field0]` is the user, `[field1]` its credentials.
    pub fn users<S: AsRef<str>>(mut self, users: &[S]) -> Self {
        let row = |u: &S| format!("{};[authentication username={} password={PASSWORD}]", u.as_ref(), u.as_ref());
        self.rows = users.iter().map(row).collect();
        self.calls = Some(users.len() as u32);
        self
    }

    /// One row with another password.
    pub fn user_with_password(mut self, user: &str, password: &str) -> Self {
        self.rows = vec![format!("{user};[authentication username={user} password={password}]")];
        self
    }

    /// One row for a phone with a SIM (keys in hexadecimal, OP and not OPc), which answers by AKA.
    pub fn sim(mut self, user: &str, [k, op, amf]: [&str; 3]) -> Self {
        let keys = format!("aka_K=0x{k} aka_OP=0x{op} aka_AMF=0x{amf}");
        self.rows = vec![format!("{user};[authentication username={user} password=none {keys}]")];
        self
    }

    pub fn calls(mut self, calls: u32) -> Self {
        self.calls = Some(calls);
        self
    }

    /// Calls started each second.
    pub fn rate(mut self, rate: u32) -> Self {
        self.rate = rate;
        self
    }

    /// Loses this many of a hundred messages, both ways.
    pub fn lost(mut self, percent: u32) -> Self {
        self.lost = percent;
        self
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    pub fn start(self) -> Running {
        let name = format!("{}-{}", self.scenario, self.port);
        let mut text = scenario(self.scenario);
        if self.registers {
            let (head, rest) = steps(&text);
            let first = scenario("register");
            text = format!("{head}{}{rest}", steps(&first).1.trim_end().trim_end_matches("</scenario>"));
        }
        for (key, value) in &self.sets {
            text = text.replace(&format!("@{key}@"), value);
        }
        if let Some(port) = self.contact {
            text = text.replace("Contact: <sip:[local_ip]:[local_port]", &format!("Contact: <sip:127.0.0.1:{port}"));
        }
        if self.padding > 0 {
            let padded = format!("CSeq: 2 INVITE\nSubject: {}\n", "long ".repeat(self.padding / 5));
            text = text.replace("CSeq: 2 INVITE\n", &padded);
        }
        assert!(!has_placeholder(&text), "{}: a placeholder is left; set() it", self.scenario);
        let waits_to_be_called = text.find("<recv").is_some_and(|first| !text[..first].contains("<send"));
        let file = |suffix: &str| self.dir.join(format!("{name}.{suffix}"));
        std::fs::write(file("xml"), text).unwrap();
        for old in ["stat", "err", "msg"] {
            let _ = std::fs::remove_file(file(old));
        }
        let mut command = Command::new("sipp");
        command.current_dir(&self.dir).arg("-sf").arg(file("xml"));
        command.args(["-i", self.from, "-p", &self.port.to_string(), "-t", self.transport, "-nostdin"]);
        command.args(["-cp", &control_port(self.port).to_string()]);
        command.args(["-trace_stat", "-fd", "1", "-trace_err", "-trace_msg"]);
        command.arg("-stf").arg(file("stat")).arg("-error_file").arg(file("err")).arg("-message_file").arg(file("msg"));
        // Its own idea of the digest's uri is the address it sends to, which is not the Request-URI.
        let called =
            self.sets.iter().find(|(n, _)| *n == "URI").map_or(DOMAIN, |(_, uri)| uri.trim_start_matches("sip:"));
        command.args(["-auth_uri", called]);
        if !self.rows.is_empty() {
            std::fs::write(file("csv"), format!("SEQUENTIAL\n{}\n", self.rows.join("\n"))).unwrap();
            command.arg("-inf").arg(file("csv"));
        }
        if self.lost > 0 {
            command.args(["-lost", &self.lost.to_string()]);
            // RFC 3261's timers give up after 32 s; SIPp's own limits would be sooner.
            command.args(["-max_retrans", "10", "-max_invite_retrans", "10", "-max_non_invite_retrans", "10"]);
        }
        command.args(["-timeout", &format!("{}s", self.limit.as_secs()), "-timeout_error"]);
        if let Some(calls) = self.calls {
            command.args(["-m", &calls.to_string(), "-r", &self.rate.to_string()]);
        }
        command.args(&self.more);
        command.arg(&self.target);
        let process = Process::start(&name, &self.dir, &mut command);
        let mut running = Running { base: self.dir.join(&name), process, limit: self.limit };
        let address: std::net::Ipv4Addr = self.from.parse().expect("an address");
        // A short one may be over before anybody looks.
        let open: Option<Box<dyn Fn() -> bool>> = match self.transport {
            "u1" => Some(Box::new(|| super::udp_is_open(address.octets(), self.port))),
            // Who calls does not listen, and who connects to it is no test's peer.
            "t1" if waits_to_be_called => Some(Box::new(|| super::tcp_is_open(address.octets(), self.port))),
            _ => None,
        };
        if let Some(open) = open {
            let started = || open() || !running.process.running();
            super::eventually(&format!("{name} has its port"), Duration::from_secs(30), started);
        }
        running
    }

    /// Runs to the end.
    pub fn run(self) -> Outcome {
        self.start().finish()
    }

    /// Runs to the end; every call must have gone as the scenario says.
    pub fn succeed(self) -> Outcome {
        let calls = self.calls;
        let outcome = self.run();
        outcome.all_ok(calls);
        outcome
    }
}

/// A user's phone at this port of loopback registers. `params`: of its Contact.
pub fn bind(server: &Server, user: &str, port: u16, params: &str) {
    let sipp = Sipp::new(server, "register", server.ports.next()).set("CONTACT", format!("127.0.0.1:{port}"));
    sipp.set("PARAMS", params).set("EXPIRES", 600).users(&[user]).succeed();
}

/// SIPp while it runs.
pub struct Running {
    pub base: PathBuf,
    pub process: Process,
    limit: Duration,
}

impl Running {
    /// Waits for its end.
    pub fn finish(mut self) -> Outcome {
        let ended = self.process.wait(self.limit + Duration::from_secs(10));
        Outcome { ended: ended.and_then(|s| s.code()), ..self.so_far() }
    }

    /// What has happened until now.
    pub fn so_far(&self) -> Outcome {
        let read = |suffix: &str| {
            let path =
                self.base.with_file_name(format!("{}.{suffix}", self.base.file_name().unwrap().to_string_lossy()));
            String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
        };
        let counts = counts(&read("stat"));
        Outcome { name: self.process.name.clone(), counts, ended: None, errors: read("err"), messages: read("msg") }
    }

    /// Waits for its end; every one of its `calls` must have gone as the scenario says.
    pub fn succeed(self, calls: u32) -> Outcome {
        let outcome = self.finish();
        outcome.all_ok(Some(calls));
        outcome
    }
}

/// SIPp after its end.
pub struct Outcome {
    pub name: String,
    pub counts: Counts,
    pub ended: Option<i32>,
    pub errors: String,
    /// Every message sent and received, with times.
    pub messages: String,
}

impl Outcome {
    /// Every call must have gone as the scenario says.
    pub fn all_ok(&self, calls: Option<u32>) {
        let expected = calls.map_or(self.counts.ok, u64::from);
        assert!(
            self.counts.ok == expected && self.counts.failed == 0 && self.ended == Some(0),
            "{}: {:?}, exit {:?}, expected {expected} good calls\n{}\n{}",
            self.name,
            self.counts,
            self.ended,
            self.errors,
            tail(&self.messages, 8000)
        );
    }

    /// The messages that SIPp received, in order, each as text. What comes again as it was is a retransmission, which a peer
    /// may send whenever this machine is slow: it counts once.
    pub fn received(&self) -> Vec<&str> {
        let mut seen = std::collections::HashSet::new();
        self.arrivals().into_iter().filter(|m| seen.insert(m.trim_end())).collect()
    }

    /// The same with each retransmission.
    pub fn arrivals(&self) -> Vec<&str> {
        self.parts("message received")
    }

    /// What comes to `peer`, in the place of this SIPp, within `limit`, and was not here before: `None` but for what is sent again.
    pub fn receives_anew(&self, peer: &super::Peer, limit: Duration) -> Option<String> {
        let old = self.received();
        loop {
            let text = String::from_utf8_lossy(&peer.receive(limit)?).into_owned();
            if !old.iter().any(|m| m.trim_end() == text.trim_end()) {
                return Some(text);
            }
        }
    }

    /// The messages that SIPp sent, in order, each as often as it did.
    pub fn sent(&self) -> Vec<&str> {
        self.parts("message sent")
    }

    fn parts(&self, mark: &str) -> Vec<&str> {
        let blocks = self.messages.split("-----------------------------------------------");
        let of_kind = blocks.filter(|b| b.lines().nth(1).is_some_and(|l| l.contains(mark)));
        of_kind.filter_map(|b| Some(b.split_once("\n\n").or_else(|| b.split_once(":\r\n"))?.1.trim_start())).collect()
    }
}

/// The value of the first header `name` in a message as SIPp logged it.
pub fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let head = message.split("\r\n\r\n").next().unwrap_or(message);
    head.lines().find_map(|l| {
        let (n, value) = l.split_once(':')?;
        n.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn scenario(name: &str) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sipp").join(format!("{name}.xml"));
    std::fs::read_to_string(&source).unwrap_or_else(|e| panic!("{}: {e}", source.display()))
}

/// Cuts a scenario in two before its first step.
fn steps(text: &str) -> (&str, &str) {
    let at = text.find("<scenario").and_then(|s| Some(s + text[s..].find('>')? + 1)).expect("a scenario");
    text.split_at(at)
}

fn counts(stat: &str) -> Counts {
    let mut lines = stat.lines().filter(|l| !l.trim().is_empty());
    let names: Vec<&str> = lines.next().unwrap_or_default().split(';').collect();
    let last: Vec<&str> = lines.next_back().unwrap_or_default().split(';').collect();
    let field = |name: &str| names.iter().position(|n| *n == name).and_then(|i| last.get(i)?.parse().ok()).unwrap_or(0);
    Counts {
        ok: field("SuccessfulCall(C)"),
        failed: field("FailedCall(C)"),
        retransmissions: field("Retransmissions(C)"),
    }
}

/// SIPp's own remote control wants a port too; take one above every other range.
fn control_port(port: u16) -> u16 {
    port + 7000
}

/// `@` and capitals and `@`.
fn has_placeholder(text: &str) -> bool {
    let mut parts = text.split('@').skip(1).peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_some() && !part.is_empty() && part.bytes().all(|b| b.is_ascii_uppercase()) {
            return true;
        }
    }
    false
}

fn tail(text: &str, most: usize) -> &str {
    let mut at = text.len().saturating_sub(most);
    while !text.is_char_boundary(at) {
        at += 1;
    }
    &text[at..]
}
