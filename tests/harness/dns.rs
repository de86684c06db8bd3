//! A name server for one test: answers from a short table, over UDP, and says NXDOMAIN to everything else.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// One record of the table.
#[derive(Clone, Debug)]
pub enum Record {
    A(&'static str, Ipv4Addr),
    /// Name, priority, weight, port, target.
    Srv(&'static str, u16, u16, u16, &'static str),
    /// Name, order, preference, service (`SIP+D2U`), replacement.
    Naptr(&'static str, u16, u16, &'static str, &'static str),
}

/// The running name server; it ends when dropped.
pub struct NameServer {
    pub port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    pub fn start(port: u16, table: Vec<Record>) -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", port)).expect("a free loopback port");
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !ended.load(Ordering::Relaxed) {
                let Ok((n, from)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(answer) = answer(&buffer[..n], &table) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { port, stop, thread: Some(thread) }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const A: u16 = 1;
const SRV: u16 = 33;
const NAPTR: u16 = 35;

fn answer(query: &[u8], table: &[Record]) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let name = labels.join(".");
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(12..at + 4)?;
    let known = table.iter().any(|r| match r {
        Record::A(n, ..) | Record::Srv(n, ..) | Record::Naptr(n, ..) => *n == name,
    });
    let data: Vec<Vec<u8>> = table.iter().filter_map(|r| data(r, &name, kind)).collect();
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(query.get(..2)?);
    // Response, authoritative, recursion copied and available; NXDOMAIN for a name that is not in the table.
    out.extend_from_slice(&[0x84 | (query[2] & 1), 0x80 | if known { 0 } else { 3 }]);
    out.extend_from_slice(&1u16.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(question);
    for d in data {
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&1u16.to_be_bytes());
        out.extend_from_slice(&60u32.to_be_bytes());
        out.extend_from_slice(&(d.len() as u16).to_be_bytes());
        out.extend_from_slice(&d);
    }
    Some(out)
}

fn data(record: &Record, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match record {
        Record::A(n, address) if *n == name && kind == A => out.extend_from_slice(&address.octets()),
        Record::Srv(n, priority, weight, port, target) if *n == name && kind == SRV => {
            for number in [priority, weight, port] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            encode_name(target, &mut out);
        }
        Record::Naptr(n, order, preference, service, replacement) if *n == name && kind == NAPTR => {
            out.extend_from_slice(&order.to_be_bytes());
            out.extend_from_slice(&preference.to_be_bytes());
            for text in ["s", service, ""] {
                out.push(text.len() as u8);
                out.extend_from_slice(text.as_bytes());
            }
            encode_name(replacement, &mut out);
        }
        _ => return None,
    }
    Some(out)
}

fn encode_name(name: &str, out: &mut Vec<u8>) {
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
}
