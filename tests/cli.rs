//! The built binary from outside: exit codes, messages, provisioning, the life of a server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

fn isthmus(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

/// Runs and insists on success; gives stdout.
fn fine(folder: &Path, arguments: &[&str]) -> String {
    let output = isthmus(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs and insists on an exit code; gives stderr.
fn fails(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = isthmus(folder, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

#[test]
fn every_sample_passes_its_check() {
    let folder = TempDir::new().unwrap();
    let mut configurations = 0;
    for entry in std::fs::read_dir(sample("")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() == "provisioning.toml" {
            fine(folder.path(), &["import", path.to_str().unwrap(), "--data", "imported"]);
        } else {
            fine(folder.path(), &["check-config", path.to_str().unwrap()]);
            configurations += 1;
        }
    }
    assert!(configurations >= 2);
}

#[test]
fn a_wrong_configuration_is_named_by_key_and_line() {
    let folder = TempDir::new().unwrap();
    let write = |text: &str| std::fs::write(folder.path().join("c.toml"), text).unwrap();
    write("domain = \"a.test\"\n\n[sip]\nadp = []\n");
    let error = fails(folder.path(), &["check-config", "c.toml"], 2);
    assert!(error.contains("c.toml: line 4: sip.adp: unknown field `adp`"), "{error}");
    write("[registrar]\nmin_expires = 0\n[tls]\nkey = \"k.pem\"\n");
    let error = fails(folder.path(), &["check-config", "c.toml"], 2);
    assert!(error.contains("line 2: registrar.min_expires: 0 is not between"), "{error}");
    assert!(error.contains("line 3: tls.certificate: must be set"), "{error}");
    let error = fails(folder.path(), &["serve", "--config", "c.toml"], 2);
    assert!(error.contains("registrar.min_expires"), "{error}");
    fails(folder.path(), &["check-config", "absent.toml"], 2);
}

#[test]
fn wrong_usage_exits_with_2_and_what_is_not_built_with_1() {
    let folder = TempDir::new().unwrap();
    for arguments in [&["sreve"][..], &["user", "add"], &["import"], &["decode", "sipp", "-"], &["--nope"]] {
        fails(folder.path(), arguments, 2);
    }
    for arguments in [&["media"][..], &["decode", "wbxml", "-"]] {
        assert!(fails(folder.path(), arguments, 1).contains("not built yet"), "{arguments:?}");
    }
    assert!(fine(folder.path(), &["--help"]).contains("check-config"));
}

#[test]
fn users_come_change_and_go() {
    let folder = TempDir::new().unwrap();
    let run = |arguments: &[&str]| fine(folder.path(), arguments);
    run(&["user", "add", "alice", "--password", "one", "--msisdn", "+81-90-1234-5678"]);
    run(&["user", "add", "bob", "--password", "two"]);
    assert_eq!(
        run(&["user", "list"]),
        "alice\tsip:alice@localhost\t+819012345678\tcustomer\nbob\tsip:bob@localhost\t\tcustomer\n"
    );
    // What is not named stays.
    run(&["user", "add", "alice", "--password", "three"]);
    run(&["user", "passwd", "alice", "--password", "four"]);
    assert!(run(&["user", "list"]).starts_with("alice\tsip:alice@localhost\t+819012345678\t"));
    let error = fails(folder.path(), &["user", "add", "carol", "--password", "x", "--msisdn", "+819012345678"], 1);
    assert!(error.contains("belongs to another user"), "{error}");
    fails(folder.path(), &["user", "add", "dave", "--password", "x", "--msisdn", "911"], 2);
    run(&["user", "remove", "alice"]);
    assert!(fails(folder.path(), &["user", "remove", "alice"], 1).contains("no such user"));
    assert!(fails(folder.path(), &["user", "passwd", "alice", "--password", "x"], 1).contains("no such user"));
    assert_eq!(run(&["user", "list"]), "bob\tsip:bob@localhost\t\tcustomer\n");
}

#[test]
fn an_import_repeated_changes_nothing_and_a_wrong_one_stores_nothing() {
    let folder = TempDir::new().unwrap();
    let file = sample("provisioning.toml");
    let import = ["import", file.to_str().unwrap()];
    assert_eq!(fine(folder.path(), &import), fine(folder.path(), &import));
    let users = fine(folder.path(), &["user", "list"]);
    assert_eq!(users.lines().count(), 2);
    std::fs::write(folder.path().join("bad.toml"), "[[user]]\nid = \"zoe\"\npassword = \"p\"\n[[user]]\nid = \"\"\n")
        .unwrap();
    let error = fails(folder.path(), &["import", "bad.toml"], 2);
    assert!(error.contains("bad.toml: line 5: user[1].id:"), "{error}");
    assert_eq!(fine(folder.path(), &["user", "list"]), users);
}

#[test]
fn a_captured_message_is_told_in_words() {
    let folder = TempDir::new().unwrap();
    let bytes = "SIP/2.0 486 Busy Here\r\nv: SIP/2.0/UDP h;branch=z9hG4bKq\r\nf: <sip:a@x>;tag=1\r\nt: <sip:b@x>;tag=2\r\n\
        i: c1\r\nCSeq: 7 INVITE\r\nl: 0\r\n\r\n";
    std::fs::write(folder.path().join("m.sip"), bytes).unwrap();
    let from_file = fine(folder.path(), &["decode", "sip", "m.sip"]);
    assert!(from_file.contains("response  486 Busy Here (the request is at fault) to INVITE"), "{from_file}");
    let mut child =
        command(folder.path(), &["decode", "sip", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), from_file);
    std::fs::write(folder.path().join("m.sip"), "GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(fails(folder.path(), &["decode", "sip", "m.sip"], 1).contains("not a SIP message"));
}

/// The RP-DATA of a handset's "hi", and the TPDU alone as a modem prints it, its service centre in front.
#[test]
fn a_captured_short_message_is_told_in_words() {
    let folder = TempDir::new().unwrap();
    let rp =
        [&[0, 7, 0, 3, 0x91, 0x21, 0x43, 14][..], &[0x21, 9, 6, 0x91, 0x21, 0x43, 0x65, 0, 0, 2, 0xE8, 0x34]].concat();
    std::fs::write(folder.path().join("rp"), &rp[..8]).unwrap();
    assert!(fails(folder.path(), &["decode", "tpdu", "rp"], 1).contains("neither an RP message nor a TPDU"));
    let mut whole = rp.clone();
    whole[7] = 12;
    std::fs::write(folder.path().join("rp"), &whole).unwrap();
    let words = fine(folder.path(), &["decode", "tpdu", "rp"]);
    for told in [
        "RP-DATA from a handset, reference 7",
        "service centre    +1234",
        "SMS-SUBMIT, reference 9",
        "to                +123456",
        "status report asked for",
        "text of 2 characters, default alphabet\n  hi\n",
    ] {
        assert!(words.contains(told), "{told} in {words}");
    }
    let hex = "07911326040000F0 040B911346610089F60000208062917314480CC8F71D14969741F977FD07\n";
    std::fs::write(folder.path().join("hex"), hex).unwrap();
    let words = fine(folder.path(), &["decode", "tpdu", "hex"]);
    for told in ["service centre    +31624000000", "SMS-DELIVER", "from              +31641600986", "  How are you?\n"]
    {
        assert!(words.contains(told), "{told} in {words}");
    }
}

#[test]
fn captured_smpp_is_told_in_words() {
    let folder = TempDir::new().unwrap();
    let write = |hex: &str| std::fs::write(folder.path().join("smpp"), hex).unwrap();
    // The example of SMPP 3.4 §3.2.3, then a throttled answer, then a PDU that ends too early.
    write(
        "0000002F 00000002 00000000 00000001 534D50503354455354 00 7365637265743038 00 5355424D495431 00 00 01 01 00
         00000010 80000004 00000058 00000007
         00000012 00000004 00000000 00000008 0000",
    );
    let words = fine(folder.path(), &["decode", "smpp", "smpp"]);
    for told in [
        "bind_transmitter, sequence 1, 47 octets",
        "system_id           SMPP3TEST",
        "submit_sm_resp, sequence 7",
        "ESME_RTHROTTLED",
        "would be answered ESME_RINVCMDLEN for its source_addr",
    ] {
        assert!(words.contains(told), "{told} in {words}");
    }
    assert!(!words.contains("secret08"), "{words}");
    write("0000000F 00000002 00000000 00000001");
    assert!(fails(folder.path(), &["decode", "smpp", "smpp"], 1).contains("not SMPP: command_length 15"));
}

/// A server on ports of the system's choice; killed when dropped.
struct Server {
    child: Child,
    ready: String,
}

const PORTS: &str = "[sip]\nudp = [\"127.0.0.1:0\"]\ntcp = [\"127.0.0.1:0\"]\ntls = [\"127.0.0.1:0\"]\n\
    [http]\nplain = \"127.0.0.1:0\"\ntls = \"127.0.0.1:0\"\n";

fn write_config(folder: &Path, more: &str) {
    let text = format!("{PORTS}[admin]\nlisten = \"127.0.0.1:0\"\n{more}");
    std::fs::write(folder.join("c.toml"), text).unwrap();
}

impl Server {
    fn start(folder: &Path) -> Server {
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut child = command(folder, &["--config", "c.toml"]).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("ready domain=localhost sip="), "{ready}{}", read(&folder.join("log")));
        Server { child, ready }
    }

    /// The address behind a word of the ready line.
    fn address(&self, word: &str) -> &str {
        let from = self.ready.split_ascii_whitespace().find_map(|w| w.strip_prefix(word)?.strip_prefix('='));
        from.unwrap_or_else(|| panic!("{word} in {}", self.ready))
    }

    /// Status and body of an HTTP request to the admin listener.
    fn ask(&self, request: &str, token: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address("admin")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let length = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// SIGTERM, then the exit code.
    fn stop(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already after `stop`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn eventually(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_opens_its_doors_and_drains_on_sigterm() {
    let folder = TempDir::new().unwrap();
    write_config(folder.path(), "");
    let server = Server::start(folder.path());
    assert_eq!(server.ask("GET /healthz", "", ""), (200, "ok\n".to_owned()));
    assert_eq!(server.ask("GET /readyz", "", ""), (200, "ready\n".to_owned()));
    let (status, metrics) = server.ask("GET /metrics", "", "");
    assert_eq!(status, 200);
    assert!(metrics.contains("# TYPE isthmus_sip_transactions gauge\n"), "{metrics}");
    for door in ["http", "https"] {
        TcpStream::connect(server.address(door)).unwrap();
    }
    assert_eq!(server.stop(), Some(0));
    assert!(folder.path().join("data/tls/key.pem").exists());
}

#[test]
fn sigterm_at_the_first_answer_is_a_drain_already() {
    let folder = TempDir::new().unwrap();
    let address = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    write_config(folder.path(), "");
    let text = read(&folder.path().join("c.toml")).replacen("127.0.0.1:0", &address.to_string(), 1);
    std::fs::write(folder.path().join("c.toml"), text).unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let child = command(folder.path(), &["--config", "c.toml"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let server = Server { child, ready: String::new() };
    let phone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    phone.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let options = format!(
        "OPTIONS sip:localhost SIP/2.0\r\nVia: SIP/2.0/UDP {};rport;branch=z9hG4bKearly\r\nMax-Forwards: 70\r\n\
         From: <sip:a@localhost>;tag=1\r\nTo: <sip:localhost>\r\nCall-ID: early\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n",
        phone.local_addr().unwrap()
    );
    // While nothing is bound there, an ICMP error comes back. Asked without a pause: the moment is short.
    let end = Instant::now() + Duration::from_secs(20);
    while phone.send_to(options.as_bytes(), address).is_err() || phone.recv(&mut [0; 4096]).is_err() {
        assert!(Instant::now() < end, "no answer: {}", read(&folder.path().join("log")));
    }
    assert_eq!(server.stop(), Some(0), "{}", read(&folder.path().join("log")));
}

#[test]
fn messages_are_copied_to_the_capture_server_and_the_drain_still_ends() {
    let folder = TempDir::new().unwrap();
    let homer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    homer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write_config(folder.path(), &format!("[telemetry.hep]\naddress = \"{}\"\n", homer.local_addr().unwrap()));
    let server = Server::start(folder.path());
    let sip = server.address("sip").split("/udp").next().unwrap().to_owned();
    let phone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    phone.send_to(b"OPTIONS sip:localhost SIP/2.0\r\nCall-ID: half\r\n\r\n", &sip).unwrap();
    let mut buf = [0; 4096];
    let n = homer.recv(&mut buf).unwrap();
    assert!(buf.starts_with(b"HEP3") && buf[..n].ends_with(b"Call-ID: half\r\n\r\n"));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn the_admin_listener_wants_its_token_and_keeps_users() {
    let folder = TempDir::new().unwrap();
    write_config(folder.path(), "");
    let server = Server::start(folder.path());
    let token = read(&folder.path().join("data/admin.token"));
    let token = token.trim();
    for wrong in ["", "x", &token[1..], &format!("{token}0")] {
        assert_eq!(server.ask("GET /admin/v1/users", wrong, "").0, 401);
    }
    let alice = "{\"id\":\"alice\",\"password\":\"wonderland\",\"msisdn\":\"+819012345678\"}";
    assert_eq!(server.ask("POST /admin/v1/users", token, alice).0, 201);
    eventually("alice is known", || server.ask("GET /admin/v1/users/alice", token, "").0 == 200);
    let (_, shown) = server.ask("GET /admin/v1/users/alice", token, "");
    assert!(shown.contains("+819012345678") && !shown.contains("ha1") && !shown.contains("wonderland"), "{shown}");
    assert_eq!(server.ask("POST /admin/v1/users", token, alice).0, 409);
    assert_eq!(server.ask("POST /admin/v1/users", token, "{\"id\":\"x\",\"pasword\":\"y\"}").0, 422);
    let rival = "{\"id\":\"bob\",\"password\":\"b\",\"msisdn\":\"+819012345678\"}";
    assert_eq!(server.ask("PUT /admin/v1/users/bob", token, rival).0, 409);
    assert_eq!(
        server.ask("GET /admin/v1/users/alice/bindings", token, "").1,
        "{\"aor\":\"alice@localhost\",\"bindings\":[]}"
    );
    assert_eq!(server.ask("DELETE /admin/v1/users/alice", token, "").0, 204);
    eventually("alice is forgotten", || server.ask("GET /admin/v1/users/alice", token, "").0 == 404);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_running_server_sees_what_the_command_line_provisions() {
    let folder = TempDir::new().unwrap();
    write_config(folder.path(), "");
    let server = Server::start(folder.path());
    let token = read(&folder.path().join("data/admin.token"));
    fine(folder.path(), &["import", sample("provisioning.toml").to_str().unwrap(), "--config", "c.toml"]);
    eventually("bob is known", || server.ask("GET /admin/v1/users/bob", token.trim(), "").0 == 200);
    fine(folder.path(), &["user", "remove", "bob", "--config", "c.toml"]);
    eventually("bob is forgotten", || server.ask("GET /admin/v1/users/bob", token.trim(), "").0 == 404);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_reload_with_a_wrong_file_keeps_the_old_settings() {
    let folder = TempDir::new().unwrap();
    write_config(folder.path(), "");
    let server = Server::start(folder.path());
    let log = folder.path().join("log");
    std::fs::write(folder.path().join("c.toml"), "nonsense = 1\n").unwrap();
    server.signal("-HUP");
    eventually("the refusal is logged", || read(&log).contains("nonsense: unknown field"));
    write_config(folder.path(), "[log]\nlevel = \"debug\"\n");
    server.signal("-HUP");
    eventually("the reload is logged", || read(&log).contains("reloaded"));
    assert_eq!(server.ask("GET /readyz", "", "").0, 200);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_taken_port_ends_the_start_with_its_name() {
    let folder = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    std::fs::write(folder.path().join("c.toml"), format!("{PORTS}[admin]\nlisten = \"{listen}\"\n")).unwrap();
    let error = fails(folder.path(), &["--config", "c.toml"], 1);
    assert!(error.contains(&format!("cannot listen on admin.listen {listen}")), "{error}");
}

#[test]
fn an_options_request_leaves_its_trace_for_later() {
    let folder = TempDir::new().unwrap();
    write_config(folder.path(), "");
    let server = Server::start(folder.path());
    let sip = server.address("sip").split("/udp").next().unwrap().to_owned();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let from = socket.local_addr().unwrap();
    let request = format!(
        "OPTIONS sip:localhost SIP/2.0\r\nVia: SIP/2.0/UDP {from};rport;branch=z9hG4bKt1\r\nMax-Forwards: 70\r\n\
         From: <sip:p@elsewhere.test>;tag=1\r\nTo: <sip:localhost>\r\nCall-ID: traced@test\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    );
    socket.send_to(request.as_bytes(), &sip).unwrap();
    let mut buf = [0; 4096];
    assert!(socket.recv(&mut buf).unwrap() > 0);
    assert!(buf.starts_with(b"SIP/2.0 200"), "{}", String::from_utf8_lossy(&buf));
    assert_eq!(server.stop(), Some(0));
    let told = fine(folder.path(), &["trace", "traced@test", "--config", "c.toml"]);
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[1].contains("OPTIONS") && lines[1].contains(&format!("received from {from}/udp")), "{told}");
    assert!(lines[2].contains("200 sent"), "{told}");
    assert!(fine(folder.path(), &["trace", "unheard-of", "--config", "c.toml"]).contains("nothing is known"));
}
