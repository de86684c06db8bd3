//! What the stories share: the server under test, and the peers that nobody here wrote.
//!
//! Every story starts its own server in its own folder on its own ports and everything ends with it, so stories run side by
//! side. Start reading at [`server::Setup`].
//!
//! On a busy machine any process may stand still for two seconds, and the story must pass: what is sent over UDP comes twice, a
//! gauge, a record and a file come a moment after the answer, and two transactions in either order. So wait for the whole fact
//! by name ([`eventually`]), count what is distinct, and end what must last by a message, not by a timer.

// Each story is a crate of its own and uses a part of this.
#![allow(dead_code, unused_imports)]

pub mod baresip;
pub mod browser;
pub mod chat;
pub mod clamd;
pub mod developer;
pub mod digest;
pub mod disk;
pub mod dns;
pub mod faketime;
pub mod files;
pub mod handset;
pub mod history;
pub mod homer;
pub mod http;
pub mod icap;
pub mod kamailio;
pub mod kannel;
pub mod linphone;
pub mod msrp;
pub mod msrp_ws;
pub mod ports;
pub mod presence;
pub mod process;
pub mod prosody;
pub mod raw;
pub mod rcs;
pub mod relay;
pub mod server;
pub mod sipp;
pub mod sms;
pub mod stunnel;
pub mod tls;
pub mod twinkle;
pub mod wap;
pub mod xcap;

use std::time::{Duration, Instant};

pub use baresip::Phone;
pub use disk::Disk;
pub use homer::Homer;
pub use linphone::Linphone;
pub use ports::Ports;
pub use process::Process;
pub use raw::Peer;
pub use server::{DOMAIN, PASSWORD, Server, Setup, Subject};
pub use sipp::{Outcome, Sipp, bind, header};
pub use twinkle::Twinkle;

/// Polls until `fact` holds. The limit is generous: it decides between "slow machine" and "never".
pub fn eventually(what: &str, limit: Duration, mut fact: impl FnMut() -> bool) {
    let start = Instant::now();
    while !fact() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until somebody takes TCP connections at that port of loopback, or of every address.
pub fn wait_for_tcp(port: u16) {
    eventually(&format!("TCP port {port} is open"), STARTED, || {
        tcp_is_open([127, 0, 0, 1], port) || tcp_is_open([0; 4], port)
    });
}

pub fn tcp_is_open(address: [u8; 4], port: u16) -> bool {
    // 0A is TCP_LISTEN in proc(5).
    let entry = format!(" {:08X}:{port:04X} 00000000:0000 0A", u32::from_le_bytes(address));
    std::fs::read_to_string("/proc/net/tcp").is_ok_and(|t| t.contains(&entry))
}

/// Waits until somebody on this machine holds the UDP port on loopback (a peer that was just started).
pub fn wait_for_udp(port: u16) {
    eventually(&format!("UDP port {port} is open"), STARTED, || udp_is_open([127, 0, 0, 1], port));
}

pub fn udp_is_open(address: [u8; 4], port: u16) -> bool {
    let entry = format!(" {:08X}:{port:04X} ", u32::from_le_bytes(address));
    std::fs::read_to_string("/proc/net/udp").is_ok_and(|t| t.contains(&entry))
}

/// In which a program that was just started has its port: Python's need a while on a busy machine.
const STARTED: Duration = Duration::from_secs(60);
