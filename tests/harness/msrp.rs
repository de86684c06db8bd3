//! A bare MSRP stream: sends what the story wrote, and reads what comes by the grammar alone (RFC 4975 §9). It shares no code
//! with the server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::sipp::Running;
use super::{DOMAIN, Peer, Server, Sipp, bind, eventually};

/// How long a story waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// What fits into a packet; of longer chunks there is nothing else to see.
const PACKET: usize = 60_000;

/// One end of an MSRP connection.
pub struct Stream {
    pub io: TcpStream,
    kept: Vec<u8>,
    /// Every request and response of up to [`PACKET`] bytes that was read, for a dissector.
    pub received: Vec<Vec<u8>>,
}

/// A request or response as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub id: String,
    /// `SEND`, `200 OK`, …
    pub what: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    pub flag: char,
}

impl Frame {
    /// The value of a header, or the empty string.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    pub fn status(&self) -> u16 {
        self.what.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.body.as_deref().unwrap_or_default()).into_owned()
    }
}

impl Stream {
    pub fn connect(port: u16) -> Stream {
        Stream::over(TcpStream::connect(("127.0.0.1", port)).expect("the MSRP door takes connections"))
    }

    /// Connects, and says which session this is: `to` and `from` of its paths.
    pub fn joining(port: u16, paths: [&str; 2]) -> Stream {
        let mut stream = Stream::connect(port);
        stream.greet("j01n0001", paths);
        assert_eq!(stream.next().what, "200 OK");
        stream
    }

    pub fn over(io: TcpStream) -> Stream {
        io.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        io.set_nodelay(true).unwrap();
        Stream { io, kept: Vec::new(), received: Vec::new() }
    }

    /// The connection that comes next.
    pub fn accept(listener: &TcpListener) -> Stream {
        listener.set_nonblocking(true).unwrap();
        let start = Instant::now();
        loop {
            if let Ok((io, _)) = listener.accept() {
                io.set_nonblocking(false).unwrap();
                return Stream::over(io);
            }
            assert!(start.elapsed() < PATIENCE, "nobody connected");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).expect("the server takes what is written");
    }

    /// A SEND of a whole message. `more` are whole header lines.
    pub fn send(&mut self, id: &str, [to, from]: [&str; 2], message_id: &str, more: &str, body: &str) {
        let length = body.len();
        let text = format!(
            "MSRP {id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: {message_id}\r\n\
             Byte-Range: 1-{length}/{length}\r\n{more}Content-Type: text/plain\r\n\r\n{body}\r\n-------{id}$\r\n"
        );
        self.write(text.as_bytes());
    }

    /// A SEND without a body.
    pub fn greet(&mut self, id: &str, [to, from]: [&str; 2]) {
        let text =
            format!("MSRP {id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: m{id}\r\n-------{id}$\r\n");
        self.write(text.as_bytes());
    }

    /// Answers a request.
    pub fn answer(&mut self, to: &Frame, status: &str) {
        let first = to.header("From-Path").split(' ').next().unwrap_or_default().to_owned();
        let text = format!(
            "MSRP {id} {status}\r\nTo-Path: {first}\r\nFrom-Path: {}\r\n-------{id}$\r\n",
            to.header("To-Path"),
            id = to.id
        );
        self.write(text.as_bytes());
    }

    /// The next request or response; the story fails when none comes.
    pub fn next(&mut self) -> Frame {
        let start = Instant::now();
        loop {
            if let Some(frame) = self.take() {
                return frame;
            }
            assert!(self.fill(), "closed while a request or response was awaited; unread: {:?}", shown(&self.kept));
            assert!(start.elapsed() < PATIENCE, "nothing came; unread: {:?}", shown(&self.kept));
        }
    }

    /// The next request or response, requests answered with 200 where one is due.
    pub fn next_answering(&mut self) -> Frame {
        let frame = self.next();
        if frame.what == "SEND" && frame.header("Failure-Report") != "no" {
            self.answer(&frame, "200 OK");
        }
        frame
    }

    /// The next message, chunks answered and put together: its first chunk, and all of its body.
    pub fn next_whole(&mut self) -> (Frame, Vec<u8>) {
        let first = self.next_answering();
        let mut all = first.body.clone().unwrap_or_default();
        let mut flag = first.flag;
        while flag != '$' {
            let next = self.next_answering();
            all.extend(next.body.unwrap_or_default());
            flag = next.flag;
        }
        (first, all)
    }

    /// Reports that a message of so many bytes has come.
    pub fn report(&mut self, first: &Frame, size: usize) {
        let text = format!(
            "MSRP rep0rt01 REPORT\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: {}\r\nByte-Range: 1-{size}/{size}\r\n\
             Status: 000 200 OK\r\n-------rep0rt01$\r\n",
            first.header("From-Path"),
            first.header("To-Path"),
            first.header("Message-ID")
        );
        self.write(text.as_bytes());
    }

    /// Waits until `text` has come, without taking anything.
    pub fn has_begun(&mut self, text: &str) {
        let start = Instant::now();
        while find(&self.kept, text.as_bytes(), 0).is_none() {
            assert!(self.fill() && start.elapsed() < PATIENCE, "{text:?} did not come: {:?}", shown(&self.kept));
        }
    }

    /// Waits until the server closes; what it still says is read.
    pub fn closed(&mut self, limit: Duration) {
        let start = Instant::now();
        while self.fill() {
            assert!(start.elapsed() < limit, "not closed within {limit:?}");
        }
    }

    /// Reads what is there. False at the end of the stream.
    fn fill(&mut self) -> bool {
        let mut buffer = vec![0; 1 << 16];
        match self.io.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                self.kept.extend_from_slice(&buffer[..n]);
                true
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => true,
            Err(_) => false,
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let line_end = find(&self.kept, b"\r\n", 0)?;
        let first = String::from_utf8(self.kept[..line_end].to_vec()).expect("a start line is text");
        let rest = first.strip_prefix("MSRP ").unwrap_or_else(|| panic!("no start line: {first:?}"));
        let (id, what) = rest.split_once(' ').expect("a start line has two words");
        let mark = format!("-------{id}");
        let mut end = line_end;
        let (at, flag) = loop {
            let found = find(&self.kept, mark.as_bytes(), end)?;
            let after = found + mark.len();
            let tail = self.kept.get(after..after + 3)?;
            if b"$+#".contains(&tail[0]) && &tail[1..] == b"\r\n" {
                break (found, char::from(tail[0]));
            }
            end = after;
        };
        let whole = self.kept.drain(..at + mark.len() + 3).collect::<Vec<u8>>();
        if whole.len() <= PACKET {
            self.received.push(whole.clone());
        }
        let inside = &whole[line_end + 2..at];
        let blank = if inside.starts_with(b"\r\n") { Some(0) } else { find(inside, b"\r\n\r\n", 0).map(|b| b + 2) };
        let (head, body) = match blank {
            Some(b) => {
                let body = &inside[b + 2..];
                (&inside[..b], Some(body.strip_suffix(b"\r\n").expect("a line break ends the body").to_vec()))
            }
            None => (inside, None),
        };
        let head = String::from_utf8(head.to_vec()).expect("headers are text");
        let headers = head.lines().map(|l| {
            let (name, value) = l.split_once(": ").unwrap_or_else(|| panic!("no header: {l:?}"));
            (name.to_owned(), value.to_owned())
        });
        Some(Frame { id: id.to_owned(), what: what.to_owned(), headers: headers.collect(), body, flag })
    }
}

/// A call between alice and bob with a message section, and what SIPp learnt.
pub struct Session {
    call_id: &'static str,
    caller: Option<Running>,
    caller_port: u16,
    callee: Option<Running>,
}

impl Session {
    /// `offer` and `answer` are the message sections of the two.
    pub fn open(server: &Server, call_id: [&'static str; 2], offer: &str, answer: &str) -> Session {
        Session::as_in(server, call_id, ["session", "session_answer"], offer, answer, |sipp| sipp)
    }

    /// With these scenarios; `caller` adds to the first.
    pub fn as_in(
        server: &Server,
        call_id: [&'static str; 2],
        [calls, answers]: [&'static str; 2],
        offer: &str,
        answer: &str,
        caller: impl FnOnce(Sipp) -> Sipp,
    ) -> Session {
        let phone = server.ports.next();
        let callee = Sipp::new(server, answers, phone).set("MEDIA", answer).start();
        bind(server, "bob", phone, "");
        let caller_port = server.ports.next();
        let sipp = Sipp::new(server, calls, caller_port).set("MEDIA", offer).set("URI", format!("sip:bob@{DOMAIN}"));
        let caller = caller(sipp).users(&["alice"]).options(&call_id).start();
        Session { call_id: call_id[1], caller: Some(caller), caller_port, callee: Some(callee) }
    }

    fn told(&self, running: Option<&Running>, line: &str) -> String {
        told(running.expect("the call goes on"), line)
    }

    /// What the caller is told about the far end.
    pub fn caller_is_told(&self, line: &str) -> String {
        self.told(self.caller.as_ref(), line)
    }

    pub fn callee_is_told(&self, line: &str) -> String {
        self.told(self.callee.as_ref(), line)
    }

    /// The caller goes on in its scenario.
    pub fn go_on(&self) {
        let peer = Peer::new(0);
        let info = peer.request("INFO", "sip:x", ["bob", "alice"], self.call_id, "", "");
        peer.send(self.caller_port, &info);
    }

    /// Waits until the caller has sent that; messages over MSRP may be ahead of its answers over SIP.
    pub fn caller_has_sent(&self, line: &str) {
        let caller = self.caller.as_ref().expect("a call");
        let sent = || caller.so_far().sent().iter().any(|m| m.contains(line));
        super::eventually(line, Duration::from_secs(20), sent);
    }

    /// The caller hangs up; SIPp must be content on both sides.
    pub fn hang_up(mut self) -> [super::Outcome; 2] {
        self.go_on();
        [self.caller.take(), self.callee.take()].map(|running| running.unwrap().succeed(1))
    }
}

/// A line of what a SIPp received, by how it begins: the rest of it.
pub fn told(call: &Running, line: &str) -> String {
    let log = call.base.with_file_name(format!("{}.msg", call.base.file_name().unwrap().to_string_lossy()));
    let mut found = None;
    eventually(&format!("a message with {line}"), PATIENCE, || {
        let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
        let received =
            text.split("-----------------------------------------------").filter(|b| b.contains("message received"));
        found = received.flat_map(str::lines).find(|l| l.starts_with(line)).map(|l| l[line.len()..].to_owned());
        found.is_some()
    });
    found.unwrap()
}

/// tshark's MSRP dissector reads everything that a stream got from the server, each as a packet: one line for each, which says
/// method or status, Message-ID and flag.
pub fn dissected(folder: &Path, stream: &Stream) -> Vec<String> {
    let hex = folder.join("msrp.hex");
    let capture = folder.join("msrp.pcap");
    let mut text = String::new();
    let frames = &stream.received;
    for (i, row) in frames.iter().flat_map(|f| f.chunks(16).enumerate()) {
        let octets: String = row.iter().map(|b| format!(" {b:02x}")).collect();
        text.push_str(&format!("{:06x}{octets}\n", i * 16));
    }
    std::fs::write(&hex, text).unwrap();
    let made = Command::new("text2pcap").args(["-q", "-T", "2855,40000"]).arg(&hex).arg(&capture).output();
    assert!(made.expect("text2pcap; tests/run installs it").status.success());
    let fields = ["msrp.method", "msrp.status.code", "msrp.messageid", "msrp.cnt.flg", "_ws.malformed"];
    let read = Command::new("tshark")
        .args(["-r", &capture.to_string_lossy(), "-T", "fields", "-E", "separator=|", "-E", "occurrence=a"])
        .args(fields.iter().flat_map(|field| ["-e", field]))
        .output()
        .expect("tshark; tests/run installs it");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let lines: Vec<String> = String::from_utf8_lossy(&read.stdout).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), frames.len(), "one line for each: {lines:?}");
    for line in &lines {
        let told: Vec<&str> = line.split('|').collect();
        let [method, status, message_id, flag, malformed] = told[..] else { panic!("{line}") };
        assert!(method.is_empty() != status.is_empty() && malformed.is_empty(), "{line}");
        assert!(["$", "+", "#"].contains(&flag) && message_id.is_empty() == method.is_empty(), "{line}");
    }
    lines
}

fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(bytes.get(from..)?, what).map(|at| from + at)
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(500)]).into_owned()
}
