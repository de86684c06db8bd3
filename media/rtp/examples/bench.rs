//! What the relay costs a packet, beside a thread that does nothing but receive and send: `bench [STREAMS] [SECONDS]`.
//!
//! The relay (or the thread) is a process of its own, so that its CPU is its alone; this one speaks for all ends, 172
//! bytes each 20 ms in both directions of every stream.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use media_rtp::{Config, Far, Relay, Side};

type Failure = Box<dyn std::error::Error>;

const PACKET: [u8; 172] = [0x80; 172];
const PACE: Duration = Duration::from_millis(20);

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, usual: usize| arguments.get(at).and_then(|a| a.parse().ok()).unwrap_or(usual);
    match arguments.first().map(String::as_str) {
        Some("relay") => relay(),
        Some("plain") => plain(),
        _ => {
            println!("| | packets passed on | lost | CPU a packet |\n|---|---|---|---|");
            for what in ["relay", "plain"] {
                measure(what, number(0, 200), number(1, 10))?;
            }
            Ok(())
        }
    }
}

/// Two ends of each stream, as the lines of standard input say; answers with where they are to send to.
fn each_stream(mut take: impl FnMut([SocketAddr; 2]) -> Result<[u16; 2], Failure>) -> Result<(), Failure> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut ports = line.split(' ').map(|port| port.parse::<u16>());
        let mut next = || Some(SocketAddr::from((Ipv4Addr::LOCALHOST, ports.next()?.ok()?)));
        let [one, other] = take([next().ok_or("a port")?, next().ok_or("a port")?])?;
        println!("{one} {other}");
    }
    Ok(())
}

fn relay() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let config = Config { address: Ipv4Addr::LOCALHOST.into(), ports: 30_000..=39_999 };
    let relay = Relay::new(config, runtime.handle().clone());
    let mut streams = Vec::new();
    each_stream(|ends| {
        let stream = relay.open()?;
        for (side, media) in Side::BOTH.into_iter().zip(ends) {
            stream.describe(side, Far::At { media, control: media });
        }
        let ports = Side::BOTH.map(|side| stream.port(side));
        streams.push(stream);
        Ok(ports)
    })
}

/// A thread for each direction; no latching, no RTCP.
fn plain() -> Result<(), Failure> {
    each_stream(|ends| {
        let sockets = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
        for from in 0..2 {
            let (receives, sends, to) = (sockets[from].try_clone()?, sockets[1 - from].try_clone()?, ends[1 - from]);
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((length, _)) = receives.recv_from(&mut buffer) {
                    // What is not taken is lost, as on a network.
                    let _ = sends.send_to(&buffer[..length], to);
                }
            });
        }
        Ok([sockets[0].local_addr()?.port(), sockets[1].local_addr()?.port()])
    })
}

fn measure(what: &str, streams: usize, seconds: usize) -> Result<(), Failure> {
    let mut child =
        Command::new(std::env::current_exe()?).arg(what).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut asks = child.stdin.take().ok_or("a pipe")?;
    let mut answers = BufReader::new(child.stdout.take().ok_or("a pipe")?);
    let mut ends = Vec::new();
    for _ in 0..streams {
        let pair = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
        writeln!(asks, "{} {}", pair[0].local_addr()?.port(), pair[1].local_addr()?.port())?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        for (socket, port) in pair.into_iter().zip(line.trim().split(' ')) {
            socket.set_nonblocking(true)?;
            ends.push((socket, SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse::<u16>()?))));
        }
    }
    let (start, before) = (Instant::now(), cpu(&child)?);
    let (mut sent, mut received, mut buffer) = (0u64, 0u64, [0; 2048]);
    for tick in 1..=seconds * 50 {
        for (socket, to) in &ends {
            sent += u64::from(socket.send_to(&PACKET, to).is_ok());
            while socket.recv_from(&mut buffer).is_ok() {
                received += 1;
            }
        }
        std::thread::sleep((start + PACE * tick as u32).saturating_duration_since(Instant::now()));
    }
    let spent = cpu(&child)? - before;
    std::thread::sleep(PACE);
    for (socket, _) in &ends {
        while socket.recv_from(&mut buffer).is_ok() {
            received += 1;
        }
    }
    child.kill()?;
    child.wait()?;
    let each = spent.as_secs_f64() * 1e6 / received.max(1) as f64;
    println!("| {what} | {received} | {} | {each:.2} us |", sent - received);
    Ok(())
}

/// User and system time of a process so far (proc(5): in ticks of 10 ms).
fn cpu(child: &Child) -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).ok_or("proc/stat");
    Ok(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}
