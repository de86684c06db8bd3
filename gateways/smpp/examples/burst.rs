//! What a submit_sm and its answer cost in a link: `cargo run --release -p gw-smpp --example burst [MESSAGES] [WINDOW]`.
//!
//! The sink is a thread of its own that knows just enough SMPP to answer; its processor time is told apart.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gw_smpp::pdu::{Address, COctets, Octets, Request, ShortMessage};
use gw_smpp::{Link, LinkConfig, LinkPort, LinkState, Outcome, Reply, Verdict};

struct Count {
    done: AtomicU64,
    up: tokio::sync::Notify,
    end: tokio::sync::Notify,
    of: u64,
}

impl LinkPort for Count {
    fn outcomes(&self, _: &Arc<str>, outcomes: &mut Vec<Outcome>) {
        let good = outcomes.drain(..).filter(|o| matches!(o.verdict, Verdict::Done(_))).count() as u64;
        if self.done.fetch_add(good, Ordering::Relaxed) + good >= self.of {
            self.end.notify_one();
        }
    }

    fn delivered(&self, _: &Arc<str>, _: Request, reply: Reply) {
        reply.ok();
    }

    fn state(&self, _: &Arc<str>, state: LinkState) {
        if state == LinkState::Up {
            self.up.notify_one();
        }
    }
}

/// Processor time of this thread (or of the process), user and system, from /proc.
fn cpu(of: &str) -> Duration {
    let stat = std::fs::read_to_string(of).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields.get(11..13).unwrap_or_default().iter().filter_map(|f| f.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn sink(listener: &TcpListener, spent: &AtomicU64) {
    let Ok((mut stream, _)) = listener.accept() else { return };
    let _ = stream.set_nodelay(true);
    let (mut buffer, mut answer) = (vec![0; 1 << 16], Vec::new());
    let mut held = 0;
    while let Ok(read) = stream.read(&mut buffer[held..]) {
        if read == 0 {
            break;
        }
        held += read;
        let mut at = 0;
        while held - at >= 16 {
            let four = |i: usize| u32::from_be_bytes([buffer[i], buffer[i + 1], buffer[i + 2], buffer[i + 3]]);
            let length = four(at) as usize;
            if held - at < length {
                break;
            }
            let command = four(at + 4);
            let body: &[u8] = if command == 4 { b"0a1b2c3d4e\0" } else { b"" };
            answer.extend((16 + body.len() as u32).to_be_bytes());
            answer.extend((command | 0x8000_0000).to_be_bytes());
            answer.extend([0; 4]);
            answer.extend_from_slice(&buffer[at + 12..at + 16]);
            answer.extend_from_slice(body);
            at += length;
        }
        buffer.copy_within(at..held, 0);
        held -= at;
        if stream.write_all(&answer).is_err() {
            break;
        }
        answer.clear();
    }
    spent.store(cpu("/proc/thread-self/stat").as_micros() as u64, Ordering::Relaxed);
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse::<u64>().ok());
    let (of, window) = (arguments.next().unwrap_or(1_000_000), arguments.next().unwrap_or(100) as usize);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let spent = Arc::new(AtomicU64::new(0));
    let sink = std::thread::spawn({
        let spent = spent.clone();
        move || sink(&listener, &spent)
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (wall, before) = runtime.block_on(async {
        let count = Count { done: AtomicU64::new(0), up: Default::default(), end: Default::default(), of };
        let count = Arc::new(count);
        let mut config = LinkConfig::new("sink", address, COctets::EMPTY, COctets::EMPTY);
        config.limits.window = window;
        config.queue = 1_000;
        let link = Link::start(config, count.clone());
        count.up.notified().await;
        let message = ShortMessage {
            source: Address { ton: 5, npi: 0, digits: COctets::try_from("Isthmus").unwrap_or_default() },
            destination: Address { ton: 1, npi: 1, digits: COctets::try_from("819012345678").unwrap_or_default() },
            registered_delivery: 1,
            short_message: Octets::copied(&[b'x'; 100]),
            ..ShortMessage::default()
        };
        let before = cpu("/proc/self/stat");
        let start = Instant::now();
        for ticket in 0..of {
            if link.submit(ticket, Request::SubmitSm(message.clone())).await.is_err() {
                return (Duration::ZERO, before);
            }
        }
        count.end.notified().await;
        let wall = start.elapsed();
        link.stop().await;
        (wall, before)
    });
    let all = cpu("/proc/self/stat") - before;
    let _ = sink.join();
    let theirs = Duration::from_micros(spent.load(Ordering::Relaxed));
    let ours = all.saturating_sub(theirs);
    println!(
        "{of} messages, window {window}: {:.0} a second; {:.2} us of processor each, the sink's {:.2} us apart",
        of as f64 / wall.as_secs_f64(),
        ours.as_secs_f64() * 1e6 / of as f64,
        theirs.as_secs_f64() * 1e6 / of as f64,
    );
}
