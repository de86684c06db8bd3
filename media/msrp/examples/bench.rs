//! What the switch costs, beside a plain TCP splice in the same run: `benches/msrp/run`.
//!
//! The switch (or the splice) is a process of its own, so that its memory and CPU are its alone; this one speaks for both ends.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use media_msrp::{Address, Config, Peer, Side, Switch};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, usual: u64| {
        let at = arguments.iter().position(|a| a == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(usual)
    };
    match arguments.first().map(String::as_str) {
        Some("switch") => switch(number("switch", 1) as usize),
        Some("splice") => splice(number("splice", 0) as u16),
        _ => {
            let only = arguments.iter().position(|a| a == "--only").and_then(|at| arguments.get(at + 1)).cloned();
            let wanted = |part: &str| only.as_ref().is_none_or(|only| only == part);
            println!("| what | switch | plain splice | bar |");
            println!("|---|---|---|---|");
            if wanted("file") {
                file(number("--bytes", 1 << 30))?;
            }
            if wanted("short") {
                for conversations in [1, 16] {
                    short(conversations, number("--messages", 50_000))?;
                }
            }
            if wanted("idle") {
                quiet(number("--sessions", 50_000) as usize)?;
            }
            Ok(())
        }
    }
}

/// The switch with so many sessions; prints its port, then the URIs of each session.
fn switch(sessions: usize) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let config = Config { sessions, loopback: true, ..Config::default() };
    let switch = Switch::new(config, runtime.handle().clone());
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let at = listener.local_addr()?;
    let address = Address { secure: false, transport: "tcp", at };
    let mut text = format!("{}\n", at.port());
    for n in 0..sessions {
        let bridge = switch.open(&format!("bench-{n}"), address, address)?;
        for side in [Side::Caller, Side::Callee] {
            let path = peer(n, side).into_bytes().into();
            runtime.block_on(async {
                switch.describe(&bridge, side, Peer { path, relay: None, connect: false, fingerprint: None })
            });
        }
        let uri = |side| String::from_utf8_lossy(bridge.uri(side)).into_owned();
        text.push_str(&format!("{} {}\n", uri(Side::Caller), uri(Side::Callee)));
    }
    std::io::stdout().write_all(text.as_bytes())?;
    runtime.spawn(switch.clone().listen(listener, false));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// What a plain relay does: for each connection in, one out to `port`, bytes as they come.
fn splice(port: u16) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?.port());
        loop {
            let (mut inside, _) = listener.accept().await?;
            let mut outside = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            inside.set_nodelay(true)?;
            outside.set_nodelay(true)?;
            tokio::spawn(async move {
                tokio::io::copy_bidirectional_with_sizes(&mut inside, &mut outside, 128 << 10, 128 << 10).await
            });
        }
    })
}

fn peer(session: usize, side: Side) -> String {
    format!("msrp://127.0.0.1:9/peer{session}{side:?};tcp")
}

/// The process under test.
struct Subject {
    child: Child,
    port: u16,
    sessions: Vec<[String; 2]>,
}

impl Subject {
    fn start(what: &str, argument: usize, sessions: usize) -> Result<Subject, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([what, &argument.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let port = lines.next().ok_or("no port")??.parse()?;
        let mut told = Vec::new();
        for line in lines.take(sessions) {
            let line = line?;
            let (caller, callee) = line.split_once(' ').ok_or("two URIs")?;
            told.push([caller.to_owned(), callee.to_owned()]);
        }
        Ok(Subject { child, port, sessions: told })
    }

    fn resident(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().split(' ').next().ok_or("a number")?.parse::<u64>()? * 1024)
    }

    /// User and system time so far.
    fn cpu(&self) -> Result<Duration, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // proc(5): utime and stime, the 12th and 13th behind the name, in hundredths of a second.
        let ticks = |at: usize| fields.get(at).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
        Ok(Duration::from_millis(10 * (ticks(11) + ticks(12))))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Its end was not what was measured.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One end of a session.
struct End {
    io: TcpStream,
    ours: String,
    theirs: String,
    unread: VecDeque<u8>,
}

impl End {
    fn bind(subject: &Subject, session: usize, side: Side, source: Ipv4Addr) -> Result<End, Failure> {
        let io = connect_from(source, subject.port)?;
        io.set_nodelay(true)?;
        let mut end = End { io, ours: String::new(), theirs: String::new(), unread: VecDeque::new() };
        end.join(subject, session, side)?;
        Ok(end)
    }

    /// Binds its connection to a session, beside those that it has.
    fn join(&mut self, subject: &Subject, session: usize, side: Side) -> Result<(), Failure> {
        self.theirs.clone_from(&subject.sessions[session][side as usize]);
        self.ours = peer(session, side);
        let greeting = self.head("hello000", "greet000", None);
        self.io.write_all(format!("{greeting}-------hello000$\r\n").as_bytes())?;
        self.until("-------hello000$\r\n")?;
        Ok(())
    }

    /// One that need not be bound.
    fn plain(io: TcpStream) -> Result<End, Failure> {
        io.set_nodelay(true)?;
        let uri = |side| peer(0, side);
        Ok(End { io, ours: uri(Side::Caller), theirs: uri(Side::Callee), unread: VecDeque::new() })
    }

    fn say(&mut self, messages: u64) -> Result<(), Failure> {
        let text = "A short message, as people write them: see you at eight?";
        let head = self.head("short001", "short001", Some(&format!("1-{0}/{0}", text.len())));
        let message = format!("{head}{text}\r\n-------short001$\r\n");
        for _ in 0..messages {
            self.io.write_all(message.as_bytes())?;
            self.until("$\r\n")?;
        }
        Ok(())
    }

    fn answer(&mut self, messages: u64) -> Result<(), Failure> {
        let End { ours, theirs, .. } = self;
        let paths = format!("To-Path: {theirs}\r\nFrom-Path: {ours}\r\n");
        for _ in 0..messages {
            let got = self.until("$\r\n")?;
            let id = String::from_utf8_lossy(&got[5..]).split(' ').next().unwrap_or_default().to_owned();
            self.io.write_all(format!("MSRP {id} 200 OK\r\n{paths}-------{id}$\r\n").as_bytes())?;
        }
        Ok(())
    }

    fn head(&self, id: &str, message: &str, range: Option<&str>) -> String {
        let range = range.map_or(String::new(), |r| format!("Byte-Range: {r}\r\nContent-Type: text/plain\r\n\r\n"));
        let End { ours, theirs, .. } = self;
        format!("MSRP {id} SEND\r\nTo-Path: {theirs}\r\nFrom-Path: {ours}\r\nMessage-ID: {message}\r\n{range}")
    }

    /// Reads until `mark` has come, and gives what came before.
    fn until(&mut self, mark: &str) -> Result<Vec<u8>, Failure> {
        let mut buffer = [0; 4096];
        loop {
            let there = self.unread.make_contiguous();
            if let Some(at) = there.windows(mark.len()).position(|w| w == mark.as_bytes()) {
                return Ok(self.unread.drain(..at + mark.len()).collect());
            }
            match self.io.read(&mut buffer)? {
                0 => return Err("closed".into()),
                n => self.unread.extend(&buffer[..n]),
            }
        }
    }
}

fn connect_from(source: Ipv4Addr, port: u16) -> Result<TcpStream, Failure> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket.into())
}

fn file(bytes: u64) -> Result<(), Failure> {
    let (mut relayed, mut spliced) = (Vec::new(), Vec::new());
    let mut grown = 0;
    for _ in 0..3 {
        let (rate, more) = relay(bytes)?;
        relayed.push(rate);
        grown = grown.max(more);
        spliced.push(plain(bytes)?);
    }
    let (relayed, spliced) = (median(&mut relayed), median(&mut spliced));
    println!(
        "| {} MiB through one session | {relayed:.0} MiB/s, {:.0}% | {spliced:.0} MiB/s | 80% |",
        bytes >> 20,
        100.0 * relayed / spliced
    );
    println!("| resident memory more at its height | {} KiB | - | flat |", grown >> 10);
    Ok(())
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// So many idle sessions, or as many as there are descriptors for; and all of them on shared connections.
fn quiet(sessions: usize) -> Result<(), Failure> {
    // Two connections for each, and some for all.
    let fit = descriptors()?.saturating_sub(100) / 2 - WARM;
    let alone = sessions.min(fit);
    let shared = (sessions + WARM).div_ceil(fit + WARM);
    for (sessions, shared) in [(alone, 1), (sessions, shared)].into_iter().take(1 + usize::from(shared > 1)) {
        let each = idle(sessions, shared)? / 1024.0;
        let on = if shared == 1 { "each on its own connections".into() } else { format!("{shared} on a connection") };
        println!("| resident memory for each of {sessions} idle sessions, {on} | {each:.1} KiB | - | 12 KiB |");
    }
    Ok(())
}

/// Of this process, and so of the switch.
fn descriptors() -> Result<usize, Failure> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files")).ok_or("no limit")?;
    Ok(line.split_whitespace().next().ok_or("no limit")?.parse().unwrap_or(usize::MAX))
}

/// MiB a second, and by how much resident memory grew.
fn relay(bytes: u64) -> Result<(f64, u64), Failure> {
    let subject = Subject::start("switch", 1, 1)?;
    let mut from = End::bind(&subject, 0, Side::Caller, Ipv4Addr::LOCALHOST)?;
    let mut to = End::bind(&subject, 0, Side::Callee, Ipv4Addr::LOCALHOST)?;
    let before = subject.resident()?;
    let start = Instant::now();
    let writer = std::thread::spawn(move || -> std::io::Result<End> {
        let head = from.head("file0001", "file0001", Some(&format!("1-*/{bytes}")));
        from.io.write_all(head.as_bytes())?;
        pour(&mut from.io, bytes)?;
        from.io.write_all(b"\r\n-------file0001$\r\n")?;
        Ok(from)
    });
    to.until("\r\n\r\n")?;
    let mut left = bytes - to.unread.len() as u64;
    let (mut buffer, mut most) = (vec![0; 256 << 10], before);
    let mut reads = 0u32;
    while left > 0 {
        let n = to.io.read(&mut buffer)? as u64;
        left = left.saturating_sub(if n == 0 { return Err("closed".into()) } else { n });
        reads += 1;
        if reads.is_multiple_of(1024) {
            most = most.max(subject.resident()?);
        }
    }
    let took = start.elapsed().as_secs_f64();
    writer.join().map_err(|_| "the writer panicked")??;
    Ok((bytes as f64 / took / f64::from(1 << 20), most - before))
}

fn plain(bytes: u64) -> Result<f64, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let subject = Subject::start("splice", usize::from(listener.local_addr()?.port()), 0)?;
    let mut from = TcpStream::connect((Ipv4Addr::LOCALHOST, subject.port))?;
    let (mut to, _) = listener.accept()?;
    let start = Instant::now();
    let writer = std::thread::spawn(move || pour(&mut from, bytes).map(|()| from));
    let (mut left, mut buffer) = (bytes, vec![0; 256 << 10]);
    while left > 0 {
        let n = to.read(&mut buffer)? as u64;
        left = left.saturating_sub(if n == 0 { return Err("closed".into()) } else { n });
    }
    let took = start.elapsed().as_secs_f64();
    writer.join().map_err(|_| "the writer panicked")??;
    Ok(bytes as f64 / took / f64::from(1 << 20))
}

fn pour(io: &mut TcpStream, bytes: u64) -> std::io::Result<()> {
    // As files are: every octet, line breaks and dashes too.
    let piece: Vec<u8> = (0..256u32 << 10).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut left = bytes as usize;
    while left > 0 {
        let n = left.min(piece.len());
        io.write_all(&piece[..n])?;
        left -= n;
    }
    Ok(())
}

/// Microseconds of CPU for a message, in so many conversations at once; in each one message after the other. With one the
/// process sleeps and is woken for every step, which costs the more the idler the machine is.
fn short(conversations: usize, messages: u64) -> Result<(), Failure> {
    let (mut switched, mut spliced) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let subject = Subject::start("switch", conversations, conversations)?;
        let mut pairs = Vec::new();
        for n in 0..conversations {
            let bind = |side| End::bind(&subject, n, side, Ipv4Addr::LOCALHOST);
            pairs.push([bind(Side::Caller)?, bind(Side::Callee)?]);
        }
        switched.push(converse(&subject, pairs, messages)?);

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let subject = Subject::start("splice", usize::from(listener.local_addr()?.port()), 0)?;
        let mut pairs = Vec::new();
        for _ in 0..conversations {
            let caller = TcpStream::connect((Ipv4Addr::LOCALHOST, subject.port))?;
            let (callee, _) = listener.accept()?;
            pairs.push([End::plain(caller)?, End::plain(callee)?]);
        }
        spliced.push(converse(&subject, pairs, messages)?);
    }
    let (switched, spliced) = (median(&mut switched), median(&mut spliced));
    let how = if conversations == 1 { "one at a time".into() } else { format!("{conversations} conversations") };
    println!(
        "| CPU for a short message (SEND in and out, both 200s), {how} | {switched:.1} us | {spliced:.1} us | 30 us |"
    );
    Ok(())
}

fn converse(subject: &Subject, pairs: Vec<[End; 2]>, messages: u64) -> Result<f64, Failure> {
    let each = messages / pairs.len() as u64;
    let before = subject.cpu()?;
    let mut threads = Vec::new();
    for [mut from, mut to] in pairs {
        // An end that hangs up would end the conversation for both.
        threads.push(std::thread::spawn(move || from.say(each).map(|()| from).map_err(|e| e.to_string())));
        threads.push(std::thread::spawn(move || to.answer(each).map(|()| to).map_err(|e| e.to_string())));
    }
    let mut ends = Vec::new();
    for thread in threads {
        ends.push(thread.join().map_err(|_| "an end panicked")??);
    }
    Ok((subject.cpu()? - before).as_secs_f64() * 1e6 / messages as f64)
}

/// Sessions that are there before the count begins.
const WARM: usize = 200;

/// Bytes of resident memory for each session that is connected on both sides and silent; so many share a connection
/// (RFC 4975 §5.4).
fn idle(sessions: usize, shared: usize) -> Result<f64, Failure> {
    let subject = Subject::start("switch", sessions + WARM, sessions + WARM)?;
    let mut ends = Vec::<[End; 2]>::new();
    let mut open = |n: usize| -> Result<(), Failure> {
        match ends.last_mut().filter(|_| !n.is_multiple_of(shared)) {
            Some([caller, callee]) => {
                caller.join(&subject, n, Side::Caller)?;
                callee.join(&subject, n, Side::Callee)
            }
            None => {
                // A source for every 10,000, so that ports suffice.
                let source = Ipv4Addr::new(127, 0, 1, 1 + (n / 10_000) as u8);
                let bind = |side| End::bind(&subject, n, side, source);
                ends.push([bind(Side::Caller)?, bind(Side::Callee)?]);
                Ok(())
            }
        }
    };
    (0..WARM).try_for_each(&mut open)?;
    let before = subject.resident()?;
    (WARM..WARM + sessions).try_for_each(&mut open)?;
    // What connecting took is given back.
    std::thread::sleep(Duration::from_secs(2));
    Ok((subject.resident()?.saturating_sub(before)) as f64 / sessions as f64)
}
