//! What a stored refresh costs: `cargo bench --bench store [-- sqlite FOLDER | postgres URL] [behind|before]`.
//!
//! Refreshes 100,000 distinct bindings at 20,000 a second for 20 seconds and prints the CPU time of the whole process per write
//! (for PostgreSQL: our side of it), the latency of the completions, the memory and the size of the files. It judges nothing: it is read by people.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isthmus::store::{Store, StoreConfig};
use sip_ims::ports::{BindingChange, BindingRow, Done};
use sip_proto::{Flow, FlowId, Transport};

const BINDINGS: u64 = 100_000;
const RATE: u64 = 20_000;
const SECONDS: u64 = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let folder = std::env::temp_dir().join(format!("isthmus-bench-{}", std::process::id()));
    let config = match words.as_slice() {
        ["sqlite", folder, ..] => StoreConfig::sqlite(folder),
        ["postgres", url, ..] => StoreConfig::postgres(*url),
        _ => StoreConfig::sqlite(&folder),
    };
    let before = words.last() != Some(&"behind");
    let random = words.contains(&"random");
    let store = Store::open(&config).expect("the store opens");
    let bindings = store.bindings();

    let latency = Arc::new(Latency::default());
    let users: Vec<String> = (0..BINDINGS).map(|n| format!("user{n:06}@example.com")).collect();
    let mut contact = String::new();
    let mut write = |n: u64, before: bool| {
        let number = if random { n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20 } else { n } % BINDINGS;
        contact.clear();
        use std::fmt::Write;
        // Writing to a String cannot fail.
        let _ = write!(contact, "sip:user{number:06}@10.{}.{}.7:5060;transport=udp", number / 250, number % 250);
        let row = row(&users[number as usize], &contact, n);
        let done = before.then(|| {
            let (at, latency) = (Instant::now(), latency.clone());
            Box::new(move |result: Result<(), _>| {
                result.expect("a binding is written");
                latency.add(at.elapsed());
            }) as Done<()>
        });
        bindings.write(BindingChange::Put(row), done).expect("the queue has room");
    };

    for n in 0..BINDINGS {
        write(n, false);
        if n % 1000 == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    std::thread::sleep(Duration::from_secs(2));
    println!("filled: {} KiB resident", resident());

    let (began, cpu) = (Instant::now(), cpu());
    let mut written = 0;
    while began.elapsed() < Duration::from_secs(SECONDS) {
        let due = began.elapsed().as_micros() as u64 * RATE / 1_000_000;
        while written < due {
            write(BINDINGS + written, before);
            written += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let spent = self::cpu() - cpu;
    println!(
        "{} writes ({}), {:.2} us of CPU each, {} KiB resident",
        written,
        if before { "before the reply" } else { "behind" },
        spent.as_secs_f64() * 1e6 / written as f64,
        resident()
    );
    if before {
        latency.print();
    }
    // What the loop above costs without a store.
    let cpu = self::cpu();
    let mut nothing = 0usize;
    for n in 0..written {
        let number = (n % BINDINGS) as usize;
        let contact = format!("sip:user{number:06}@10.{}.{}.7:5060;transport=udp", number / 250, number % 250);
        nothing += row(&users[number], &contact, n).contact.len();
    }
    println!("of it, making the rows: {:.2} us ({nothing})", (self::cpu() - cpu).as_secs_f64() * 1e6 / written as f64);
    store.close();
    for name in ["bindings.db", "bindings.db-wal"] {
        if let Ok(file) = fs::metadata(folder.join(name)) {
            println!("{name}: {} KiB", file.len() / 1024);
        }
    }
    // Only there if SQLite was the default.
    let _ = fs::remove_dir_all(folder);
}

fn row<'a>(aor: &'a str, contact: &'a str, n: u64) -> BindingRow<'a> {
    BindingRow {
        aor,
        key: contact,
        contact,
        params: "",
        path: "",
        instance: "<urn:uuid:00000000-0000-1000-8000-000a95a0e128>",
        call_id: "a84b4c76e66710-7d1f@pc33.atlanta.example.com",
        user_agent: "SomePhone/1.2.3 (build 4567)",
        node: "node-1",
        flow: Some(Flow {
            transport: Transport::Udp,
            id: FlowId(1),
            local: SocketAddr::from(([127, 0, 0, 1], 5060)),
            remote: SocketAddr::from(([10, 0, 0, 7], 5060)),
        }),
        expires_at: 4_000_000_000,
        cseq: n as u32,
        reg_id: 0,
        q: 1000,
    }
}

/// Completions by milliseconds.
struct Latency([AtomicU64; 1000]);

impl Default for Latency {
    fn default() -> Self {
        Latency([const { AtomicU64::new(0) }; 1000])
    }
}

impl Latency {
    fn add(&self, took: Duration) {
        self.0[(took.as_millis() as usize).min(999)].fetch_add(1, Ordering::Relaxed);
    }

    fn print(&self) {
        let total: u64 = self.0.iter().map(|n| n.load(Ordering::Relaxed)).sum();
        let at = |share: f64| {
            let mut seen = 0;
            self.0.iter().position(|n| {
                seen += n.load(Ordering::Relaxed);
                seen as f64 >= total as f64 * share
            })
        };
        println!("completions: median {:?} ms, 99% {:?} ms, 99.9% {:?} ms of {total}", at(0.5), at(0.99), at(0.999));
    }
}

/// CPU time of this process, all threads. The clock ticks 100 times a second.
fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}
