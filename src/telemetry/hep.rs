//! Copies of SIP messages for a Homer capture server: HEP version 3 over UDP.
//!
//! A copy holds the whole message, bodies and credentials too: that is what a capture server is for, and why it is off
//! unless configured. Nothing waits for it: a full queue drops the copy and counts it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::JoinHandle;

use sip_proto::Transport;

use crate::config;

/// One message as it was on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub transport: Transport,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Microseconds since 1970.
    pub at: u64,
    /// The Call-ID, by which Homer joins the messages of a call with what media servers report of it; empty when there is none.
    pub correlation: &'a [u8],
    pub bytes: &'a [u8],
}

/// The sending side, shared by every thread that reads or writes SIP.
#[derive(Clone)]
pub struct Capture {
    /// `None` ends the sender.
    queue: SyncSender<Option<Vec<u8>>>,
    capture_id: u32,
    counts: Arc<Counts>,
}

#[derive(Default, Debug)]
pub struct Counts {
    pub sent: AtomicU64,
    /// The queue was full, or the kernel refused.
    pub dropped: AtomicU64,
}

/// The sending thread.
pub struct Sender {
    queue: SyncSender<Option<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Sender {
    /// Sends what is queued and ends; what is offered later is dropped.
    pub fn finish(self) {
        // An error says that the thread has ended already.
        let _ = self.queue.send(None);
        if self.thread.join().is_err() {
            tracing::error!("the HEP sender panicked");
        }
    }
}

impl Capture {
    /// Opens the socket and starts the sender; `None` when no capture server is configured.
    pub fn start(hep: &config::Hep) -> io::Result<Option<(Capture, Sender)>> {
        let Some(server) = hep.address.0 else { return Ok(None) };
        let any: IpAddr = if server.is_ipv4() { [0u8; 4].into() } else { [0u8; 16].into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        let (queue, packets) = mpsc::sync_channel::<Option<Vec<u8>>>(hep.queue);
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        let thread = std::thread::Builder::new().name("hep".to_owned()).spawn(move || {
            for packet in packets.iter().map_while(|packet| packet) {
                // A capture server that is away answers with ICMP, which surfaces here; the next packet may get through.
                let count = if socket.send(&packet).is_ok() { &counted.sent } else { &counted.dropped };
                count.fetch_add(1, Relaxed);
            }
        })?;
        let sender = Sender { queue: queue.clone(), thread };
        Ok(Some((Capture { queue, capture_id: hep.capture_id, counts }, sender)))
    }

    /// Copies a message if there is room. Never blocks.
    pub fn offer(&self, packet: &Packet<'_>) {
        let mut bytes = Vec::with_capacity(packet.bytes.len() + packet.correlation.len() + 128);
        encode(packet, self.capture_id, &mut bytes);
        match self.queue.try_send(Some(bytes)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counts.dropped.fetch_add(1, Relaxed);
            }
        }
    }

    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

/// Largest payload chunk, so that the packet fits a UDP datagram; longer messages are cut.
pub const MAX_PAYLOAD: usize = 65_000;
/// Longest correlation chunk; a longer Call-ID is left out, for a part of it would join what does not belong together.
pub const MAX_CORRELATION: usize = 255;

/// Appends the packet in HEP3: `"HEP3"`, total length, then chunks of vendor, type, length, value.
pub fn encode(packet: &Packet<'_>, capture_id: u32, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(b"HEP3\0\0");
    let v4 = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => Some(ip.octets()),
        IpAddr::V6(_) => None,
    };
    let v6 = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let (source, destination) = (packet.source.ip(), packet.destination.ip());
    let protocol = if packet.transport == Transport::Udp { IPPROTO_UDP } else { IPPROTO_TCP };
    match (v4(source), v4(destination)) {
        (Some(from), Some(to)) => {
            chunk(out, IP_FAMILY, &[AF_INET]);
            chunk(out, IP_PROTOCOL, &[protocol]);
            chunk(out, SOURCE_V4, &from);
            chunk(out, DESTINATION_V4, &to);
        }
        _ => {
            chunk(out, IP_FAMILY, &[AF_INET6]);
            chunk(out, IP_PROTOCOL, &[protocol]);
            chunk(out, SOURCE_V6, &v6(source));
            chunk(out, DESTINATION_V6, &v6(destination));
        }
    }
    chunk(out, SOURCE_PORT, &packet.source.port().to_be_bytes());
    chunk(out, DESTINATION_PORT, &packet.destination.port().to_be_bytes());
    chunk(out, SECONDS, &((packet.at / 1_000_000) as u32).to_be_bytes());
    chunk(out, MICROSECONDS, &((packet.at % 1_000_000) as u32).to_be_bytes());
    chunk(out, PROTOCOL_TYPE, &[SIP]);
    chunk(out, CAPTURE_AGENT, &capture_id.to_be_bytes());
    // Before the payload: Kamailio's sipcapture reads it up to the next zero byte, with which the next chunk begins.
    if !packet.correlation.is_empty() && packet.correlation.len() <= MAX_CORRELATION {
        chunk(out, CORRELATION, packet.correlation);
    }
    chunk(out, PAYLOAD, &packet.bytes[..packet.bytes.len().min(MAX_PAYLOAD)]);
    let length = (out.len() - start) as u16;
    out[start + 4..start + 6].copy_from_slice(&length.to_be_bytes());
}

fn chunk(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16 + 6).to_be_bytes());
    out.extend_from_slice(value);
}

const IP_FAMILY: u16 = 1;
const IP_PROTOCOL: u16 = 2;
const SOURCE_V4: u16 = 3;
const DESTINATION_V4: u16 = 4;
const SOURCE_V6: u16 = 5;
const DESTINATION_V6: u16 = 6;
const SOURCE_PORT: u16 = 7;
const DESTINATION_PORT: u16 = 8;
const SECONDS: u16 = 9;
const MICROSECONDS: u16 = 10;
const PROTOCOL_TYPE: u16 = 11;
const CAPTURE_AGENT: u16 = 12;
const PAYLOAD: u16 = 15;
const CORRELATION: u16 = 17;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const SIP: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: &str, destination: &str, bytes: &'static [u8]) -> Packet<'static> {
        Packet {
            transport: Transport::Udp,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            at: 1_700_000_000_000_042,
            correlation: b"c1@h",
            bytes,
        }
    }

    /// Reads the chunks back, as a capture server does.
    fn chunks(packet: &[u8]) -> Vec<(u16, Vec<u8>)> {
        assert_eq!(&packet[..4], b"HEP3");
        assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet.len());
        let mut rest = &packet[6..];
        let mut found = Vec::new();
        while let [0, 0, k1, k2, l1, l2, ..] = rest {
            let length = usize::from(u16::from_be_bytes([*l1, *l2]));
            found.push((u16::from_be_bytes([*k1, *k2]), rest[6..length].to_vec()));
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
        found
    }

    #[test]
    fn a_packet_reads_back_chunk_by_chunk() {
        let mut out = Vec::new();
        encode(&packet("10.0.0.1:5060", "[::ffff:10.0.0.2]:5062", b"OPTIONS"), 7, &mut out);
        let found = chunks(&out);
        let get = |kind| &found.iter().find(|(k, _)| *k == kind).unwrap().1[..];
        assert_eq!(get(IP_FAMILY), [AF_INET]);
        assert_eq!(get(SOURCE_V4), [10, 0, 0, 1]);
        assert_eq!(get(DESTINATION_V4), [10, 0, 0, 2]);
        assert_eq!(get(DESTINATION_PORT), 5062u16.to_be_bytes());
        assert_eq!(get(SECONDS), 1_700_000_000u32.to_be_bytes());
        assert_eq!(get(MICROSECONDS), 42u32.to_be_bytes());
        assert_eq!(get(CAPTURE_AGENT), 7u32.to_be_bytes());
        assert_eq!(get(CORRELATION), b"c1@h");
        assert_eq!(get(PAYLOAD), b"OPTIONS");
        assert_eq!(found.last().unwrap().0, PAYLOAD);
    }

    #[test]
    fn a_call_id_too_long_for_its_chunk_is_left_out_whole() {
        let long = [b'c'; MAX_CORRELATION + 1];
        let mut out = Vec::new();
        encode(&Packet { correlation: &long, ..packet("10.0.0.1:1", "10.0.0.2:2", b"x") }, 7, &mut out);
        assert!(chunks(&out).iter().all(|(kind, _)| *kind != CORRELATION));
    }

    #[test]
    fn ipv6_and_huge_messages_fit_one_datagram() {
        let mut out = Vec::new();
        let packet = Packet { correlation: &[b'c'; MAX_CORRELATION], ..packet("[::1]:1", "[::2]:2", &[b'a'; 65_535]) };
        encode(&packet, 7, &mut out);
        assert!(out.len() <= 65_507);
        assert_eq!(chunks(&out)[0].1, [AF_INET6]);
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (queue, held) = mpsc::sync_channel(1);
        let capture = Capture { queue, capture_id: 1, counts: Arc::default() };
        for _ in 0..3 {
            capture.offer(&packet("10.0.0.1:1", "10.0.0.2:2", b"x"));
        }
        assert_eq!(capture.counts().dropped.load(Relaxed), 2);
        assert_eq!(held.iter().take(1).count(), 1);
    }

    #[test]
    fn packets_reach_the_server() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let hep = config::Hep { address: config::Door(Some(server.local_addr().unwrap())), ..config::Hep::default() };
        let (capture, sender) = Capture::start(&hep).unwrap().unwrap();
        capture.offer(&packet("10.0.0.1:1", "10.0.0.2:2", b"hello"));
        let mut buf = [0; 2048];
        let n = server.recv(&mut buf).unwrap();
        assert_eq!(chunks(&buf[..n]).last().unwrap().1, b"hello");
        // Others may still hold the capture when the server stops.
        sender.finish();
        capture.offer(&packet("10.0.0.1:1", "10.0.0.2:2", b"late"));
        assert_eq!(capture.counts().dropped.load(Relaxed), 1);
    }
}
