//! A bare UDP socket for the stories that no well-behaved phone can tell: torture messages, garbage, floods.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::server::DOMAIN;

/// One UDP socket on loopback.
pub struct Peer {
    pub socket: UdpSocket,
    pub port: u16,
}

impl Peer {
    /// Binds `port`; 0 takes any free one.
    pub fn new(port: u16) -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", port)).expect("a free loopback port");
        let port = socket.local_addr().unwrap().port();
        Self { socket, port }
    }

    /// Binds `port` of another loopback address, to be a source of its own.
    pub fn at(address: [u8; 4], port: u16) -> Self {
        let socket =
            UdpSocket::bind((std::net::Ipv4Addr::from(address), port)).expect("a free port of a loopback address");
        let port = socket.local_addr().unwrap().port();
        Self { socket, port }
    }

    pub fn send(&self, port: u16, bytes: &[u8]) {
        // A refused datagram (nobody listens yet) is reported on the next call; the stories retry or fail on the answer.
        let _ = self.socket.send_to(bytes, ("127.0.0.1", port));
    }

    /// The next datagram, or None after `limit`.
    pub fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        let start = Instant::now();
        while let Some(left) = limit.checked_sub(start.elapsed()).filter(|l| !l.is_zero()) {
            self.socket.set_read_timeout(Some(left)).unwrap();
            if let Ok(n) = self.socket.recv(&mut buffer) {
                buffer.truncate(n);
                return Some(buffer);
            }
        }
        None
    }

    /// The next datagram that holds `text`, as text; others are dropped.
    pub fn receive_with(&self, text: &str, limit: Duration) -> Option<String> {
        let start = Instant::now();
        while let Some(left) = limit.checked_sub(start.elapsed()) {
            let got = String::from_utf8_lossy(&self.receive(left)?).into_owned();
            if got.contains(text) {
                return Some(got);
            }
        }
        None
    }

    /// A plain request of this peer, by the book, between two users of the home domain. `more` are whole header lines.
    pub fn request(
        &self,
        method: &str,
        uri: &str,
        [from, to]: [&str; 2],
        call_id: &str,
        more: &str,
        body: &str,
    ) -> Vec<u8> {
        let host = self.socket.local_addr().expect("a bound socket has an address").ip();
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};rport;branch=z9hG4bK{call_id}{method}\r\nMax-Forwards: 70\r\n\
             From: <sip:{from}@{DOMAIN}>;tag=f{call_id}\r\nTo: <sip:{to}@{DOMAIN}>\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:{from}@{host}:{port}>\r\n{more}Content-Length: {length}\r\n\r\n{body}",
            port = self.port,
            length = body.len()
        )
        .into_bytes()
    }

    /// A response to a request that came, in a dialog of this peer's own.
    pub fn response(&self, request: &str, status: &str) -> String {
        let copied = ["via:", "record-route:", "from:", "to:", "call-id:", "cseq:"];
        let lines = request.split("\r\n\r\n").next().unwrap_or_default().lines().skip(1);
        let lines = lines.filter(|l| copied.iter().any(|name| l.to_ascii_lowercase().starts_with(name)));
        let head: String = lines
            .map(|l| {
                if l.to_ascii_lowercase().starts_with("to:") {
                    format!("{l};tag=p{}\r\n", self.port)
                } else {
                    format!("{l}\r\n")
                }
            })
            .collect();
        format!("SIP/2.0 {status}\r\n{head}Contact: <sip:127.0.0.1:{}>\r\nContent-Length: 0\r\n\r\n", self.port)
    }

    /// OPTIONS to the server itself; the status of its answer.
    pub fn options(&self, port: u16, call_id: &str) -> Option<u16> {
        self.options_within(port, call_id, Duration::from_secs(20))
    }

    fn options_within(&self, port: u16, call_id: &str, limit: Duration) -> Option<u16> {
        // To the address itself, from a stranger: a user of the home domain would be asked for credentials.
        let request = self.request("OPTIONS", &format!("sip:127.0.0.1:{port}"), ["probe", "probe"], call_id, "", "");
        let request = String::from_utf8_lossy(&request).replace(&format!("@{DOMAIN}"), "@probe.test");
        self.send(port, request.as_bytes());
        let answer = self.receive_with(call_id, limit)?;
        status(&answer)
    }

    /// Sends OPTIONS until anything comes back.
    pub fn wait_until_answered(&self, port: u16, limit: Duration) {
        let start = Instant::now();
        for nth in 0.. {
            let call_id = format!("up{}-{nth}", self.port);
            if self.options_within(port, &call_id, Duration::from_millis(500)).is_some() {
                return;
            }
            assert!(start.elapsed() < limit, "nobody answers OPTIONS on port {port}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The status of a response.
pub fn status(message: &str) -> Option<u16> {
    message.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
}
