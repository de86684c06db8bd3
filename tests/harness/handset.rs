//! Handsets that take short messages over IP (TS 24.341): played by SIPp, or octet by octet.

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

use super::process::Process;
use super::raw::Peer;
use super::server::{DOMAIN, PASSWORD, Server, Setup};
use super::sipp::{Running, Sipp, header};
use super::sms;

pub const SMSIP: &str = ";+g.3gpp.smsip";
/// RP-DATA from alice's handset, reference 7, to the centre +10000000000, around an SMS-SUBMIT that pycrate 0.8.1 made: TP-MR 9, status
/// report asked for, to +819012345602, "Grüße, Bob [€]" in the default alphabet.
pub const SUBMIT: &str = "0007000791010000 0000f0 1c 21090c9118092143652000001147b9df536681846f3168c3db94373e";
/// The first RP-MR that the gateway gives out is 1.
pub const ACK: &str = r"\x02\x01\x41\x02\x00\x00";

pub struct House {
    pub server: Server,
    /// The datagrams that [`House::taken`] has given: whoever hears no answer in time sends the same again.
    seen: RefCell<HashSet<Vec<u8>>>,
}

/// Alice has +819012345601, bob +819012345602.
pub fn house() -> House {
    House::of(residents().start())
}

/// The two of them.
pub fn residents() -> Setup {
    let mut setup = Setup::with_users(&[]);
    // SIPp loses a body with a NUL in it when it adds credentials.
    setup.auth = "none";
    for (n, user) in [(1, "alice"), (2, "bob")] {
        setup.provisions.push_str(&format!(
            "[[user]]\nid = \"{user}\"\npassword = \"{}\"\nmsisdn = \"+81901234560{n}\"\n",
            PASSWORD
        ));
    }
    // A user in the list makes the harness import the file.
    setup.users.push("carol".into());
    setup
}

impl House {
    pub fn of(server: Server) -> House {
        House { server, seen: RefCell::default() }
    }

    pub fn bind(&self, user: &str, port: u16, params: &str) {
        let sipp = Sipp::new(&self.server, "register_open", self.server.ports.next());
        let sipp = sipp.set("CONTACT", format!("127.0.0.1:{port}")).set("PARAMS", params).set("EXPIRES", 600);
        sipp.users(&[user]).succeed();
    }

    /// Alice's handset, where the answers to what she sends arrive.
    pub fn alice(&self) -> Peer {
        let peer = Peer::new(self.server.ports.next());
        self.bind("alice", peer.port, SMSIP);
        peer
    }

    pub fn handset(&self, report: &str) -> Running {
        self.handset_at(self.server.ports.next(), report)
    }

    pub fn handset_at(&self, port: u16, report: &str) -> Running {
        let sipp = Sipp::new(&self.server, "sms_handset", port).set("REPORT", report);
        let handset = sipp.users(&["bob"]).start();
        self.bind("bob", port, SMSIP);
        handset
    }

    /// From alice, as an RP message; the Call-ID of her MESSAGE.
    pub fn send(&self, relay: &str) -> String {
        self.send_as("alice", relay)
    }

    pub fn send_as(&self, user: &str, relay: &str) -> String {
        let sipp = Sipp::new(&self.server, "sms_send", self.server.ports.next());
        let sipp = sipp.set("URI", "tel:+10000000000").set("RELAY", escaped(relay));
        let sent = sipp.users(&[user]).succeed();
        header(sent.sent()[0], "Call-ID").expect("a Call-ID").to_owned()
    }

    /// Bob's handset, to be played by hand.
    pub fn bob(&self) -> Peer {
        let peer = Peer::new(self.server.ports.next());
        self.bind("bob", peer.port, SMSIP);
        peer
    }

    /// The two parts of a long message, which may overtake each other.
    pub fn two_parts(&self, bob: &Peer) -> [Vec<u8>; 2] {
        let mut parts = [self.taken(bob).1, self.taken(bob).1];
        parts.sort_by_key(|data| concatenation(tpdu(data)));
        parts
    }

    /// The RP-ACK of bob's handset for this RP-DATA.
    pub fn report(&self, data: &[u8]) {
        self.send_as("bob", &format!("02{:02x}41020000", data[1]));
    }

    /// What alice's handset gets next, answered with 200.
    pub fn taken(&self, alice: &Peer) -> (String, Vec<u8>) {
        let bytes = alice.receive(Duration::from_secs(20)).expect("a MESSAGE");
        let again = !self.seen.borrow_mut().insert(bytes.clone());
        let at = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a body") + 4;
        let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
        let copied: String = head
            .lines()
            .filter(|l| ["via:", "from:", "to:", "call-id:", "cseq:"].iter().any(|n| l.to_lowercase().starts_with(n)))
            .map(|l| format!("{l}\r\n"))
            .collect();
        alice.send(self.server.sip, format!("SIP/2.0 200 OK\r\n{copied}Content-Length: 0\r\n\r\n").as_bytes());
        if again { self.taken(alice) } else { (head, bytes[at..].to_vec()) }
    }
}

pub type Taken = (String, Vec<u8>);

impl House {
    /// The answer to what alice sent, and the status report about it: two MESSAGEs that may overtake each other.
    pub fn ack_and_report(&self, alice: &Peer) -> (Taken, Taken) {
        let (first, second) = (self.taken(alice), self.taken(alice));
        if header(&first.0, "In-Reply-To").is_some() { (first, second) } else { (second, first) }
    }
}

/// A handset whose RP messages and TPDUs pycrate makes and reads; `report`: ack or full; `more`: a number and a text that it sends first.
pub fn by_pycrate(server: &Server, user: &str, report: &str, more: &[&str]) -> sms::Peer {
    let port = server.ports.next();
    let scenario = if server.setup.auth == "none" { "register_open" } else { "register" };
    let sipp = Sipp::new(server, scenario, server.ports.next()).set("CONTACT", format!("127.0.0.1:{port}"));
    sipp.set("PARAMS", SMSIP).set("EXPIRES", 600).users(&[user]).succeed();
    pycrate(server, &port.to_string(), user, report, more)
}

/// One that registers over a connection of its own.
pub fn connected_by_pycrate(server: &Server, user: &str) -> sms::Peer {
    pycrate(server, "tcp", user, "ack", &[])
}

fn pycrate(server: &Server, port: &str, user: &str, report: &str, more: &[&str]) -> sms::Peer {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/handset.py");
    let mut command = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/venv/bin/python"));
    command.args([script, port, &server.sip.to_string(), user, DOMAIN, report]).args(more);
    command.env("PASSWORD", PASSWORD);
    sms::Peer::ready(Process::start(&format!("pycrate-{user}-{port}"), server.path(), &mut command))
}

/// The TPDU in RP-DATA.
pub fn tpdu(data: &[u8]) -> &[u8] {
    let originator = usize::from(data[2]);
    let destination = usize::from(data[3 + originator]);
    &data[5 + originator + destination..]
}

pub fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
}

pub fn escaped(hex: &str) -> String {
    octets(hex).iter().map(|o| format!("\\x{o:02x}")).collect()
}

/// The concatenation element of an SMS-DELIVER in the default alphabet from a short sender.
pub fn concatenation(deliver: &[u8]) -> Vec<u8> {
    assert_eq!(deliver[0] & 0x40, 0x40, "{deliver:02x?}");
    let originator = 2 + usize::from(deliver[1]).div_ceil(2);
    let data = &deliver[1 + originator + 2 + 7 + 1..];
    assert_eq!(data[..3], [5, 0, 3], "{data:02x?}");
    data[1..6].to_vec()
}

/// The datagrams as a capture of UDP from and to port 5060, for Wireshark: link type raw IP.
pub fn capture(datagrams: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(0xA1B2_C3D4u32.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    for word in [0u32, 0, 65535, 101] {
        file.extend(word.to_le_bytes());
    }
    for datagram in datagrams {
        let udp = (8 + datagram.len()) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend((20 + udp).to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
        packet.extend([5060u16, 5060, udp, 0].iter().flat_map(|w| w.to_be_bytes()));
        packet.extend(datagram);
        for word in [0, 0, packet.len() as u32, packet.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

pub fn tshark(arguments: &[&str]) -> String {
    let done = std::process::Command::new("tshark").args(arguments).output().expect("tshark runs");
    String::from_utf8_lossy(&done.stdout).into_owned()
}
