//! A bad network between two UDP ends: every so many datagrams one is lost, one overtakes its predecessor, one comes twice.
//! Not by chance, so that a failure can be repeated. (Kernels without sch_netem cannot do it.)

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the network does, counted.
#[derive(Default)]
pub struct Weather {
    pub lost: AtomicUsize,
    pub overtaken: AtomicUsize,
    pub doubled: AtomicUsize,
}

/// Every n-th datagram, both ways together.
const LOSE: usize = 7;
const HOLD: usize = 5;
const DOUBLE: usize = 11;
/// How long a datagram waits for the one that overtakes it.
const HELD: Duration = Duration::from_millis(40);

/// The running relay; it ends when dropped.
pub struct Relay {
    pub port: u16,
    pub weather: Arc<Weather>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Takes datagrams at `port` and passes them on to the server at `to`, and the answers back.
    pub fn to_server(port: u16, to: u16) -> Self {
        Self::start(port, to, |_| false, true)
    }

    /// The same to one of SIPp's phones, which forget a call with their last answer and take what comes again for a new one:
    /// that answer always arrives, and nothing comes twice.
    pub fn to_phone(port: u16, to: u16) -> Self {
        Self::start(port, to, is_last_answer, false)
    }

    fn start(port: u16, to: u16, spared: fn(&[u8]) -> bool, doubles: bool) -> Self {
        let front = UdpSocket::bind(("127.0.0.1", port)).expect("a free loopback port");
        front.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        let (weather, stop) = (Arc::new(Weather::default()), Arc::new(AtomicBool::new(false)));
        let mut way = Way {
            front,
            to: ([127, 0, 0, 1], to).into(),
            backs: HashMap::new(),
            held: Vec::new(),
            nth: 0,
            spared,
            doubles,
        };
        let (counts, ended) = (weather.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Relaxed) {
                way.turn(&counts);
            }
        });
        Self { port, weather, stop, thread: Some(thread) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An INVITE repeated after the 200 is a mistake to them as well, so the 180 that stops the repeating counts too.
fn is_last_answer(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let ended = text.lines().any(|l| l.starts_with("CSeq: ") && (l.ends_with(" BYE") || l.ends_with(" MESSAGE")));
    text.starts_with("SIP/2.0 180") || text.starts_with("SIP/2.0 200") && ended
}

/// A datagram on its way: from `front` to a client, or from a client's own socket to the far end.
struct Parcel {
    client: SocketAddr,
    forth: bool,
    bytes: Vec<u8>,
}

struct Way {
    front: UdpSocket,
    to: SocketAddr,
    /// A socket for each client, so that the far end sees them apart.
    backs: HashMap<SocketAddr, UdpSocket>,
    held: Vec<(Instant, Parcel)>,
    nth: usize,
    spared: fn(&[u8]) -> bool,
    doubles: bool,
}

impl Way {
    fn turn(&mut self, weather: &Weather) {
        let mut buffer = [0; 65_536];
        let mut arrived = Vec::new();
        if let Ok((n, client)) = self.front.recv_from(&mut buffer) {
            self.backs.entry(client).or_insert_with(|| {
                let back = UdpSocket::bind("127.0.0.1:0").expect("a loopback port");
                back.set_nonblocking(true).unwrap();
                back
            });
            arrived.push(Parcel { client, forth: true, bytes: buffer[..n].to_vec() });
        }
        for (client, back) in &self.backs {
            while let Ok((n, _)) = back.recv_from(&mut buffer) {
                arrived.push(Parcel { client: *client, forth: false, bytes: buffer[..n].to_vec() });
            }
        }
        for parcel in arrived {
            self.pass(parcel, weather);
        }
        let (now, held) = (Instant::now(), std::mem::take(&mut self.held));
        for (since, parcel) in held {
            if now.duration_since(since) >= HELD {
                self.send(&parcel);
            } else {
                self.held.push((since, parcel));
            }
        }
    }

    fn pass(&mut self, parcel: Parcel, weather: &Weather) {
        if (self.spared)(&parcel.bytes) {
            return self.send(&parcel);
        }
        self.nth += 1;
        if self.nth.is_multiple_of(LOSE) {
            weather.lost.fetch_add(1, Relaxed);
        } else if self.nth.is_multiple_of(HOLD) {
            self.held.push((Instant::now(), parcel));
        } else {
            self.send(&parcel);
            weather.overtaken.fetch_add(self.held.len(), Relaxed);
            if self.doubles && self.nth.is_multiple_of(DOUBLE) {
                self.send(&parcel);
                weather.doubled.fetch_add(1, Relaxed);
            }
        }
    }

    fn send(&self, parcel: &Parcel) {
        // A peer that has ended by itself no longer minds.
        let _ = match parcel.forth {
            true => self.backs.get(&parcel.client).map(|back| back.send_to(&parcel.bytes, self.to)),
            false => Some(self.front.send_to(&parcel.bytes, parcel.client)),
        };
    }
}
