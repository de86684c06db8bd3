//! Protection against sources that only cost: each has a bucket of points, bad behaviour takes points out, time puts them
//! back, and who is below zero is not heard until the bucket is half full again.
//!
//! Traffic as such takes nothing, so an honest neighbour or a load test can never be hit however fast it is. A source is
//! counted twice: by address and port, and with [`ADDRESS_SHARE`] times the allowance by address alone. So one bad phone
//! behind a NAT silences itself first, and one that hops from port to port silences its address.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;

/// What an address may spend for each thing its ports may spend.
pub const ADDRESS_SHARE: u32 = 16;

/// Sources remembered at a time. The table is as large as this from the start (about 1.5 MiB, resident once used).
const ENTRIES: usize = 64 * 1024;
const SHARDS: usize = 64;
/// Places in which one source may stand; when all are taken, the least suspicious source is forgotten.
const WAYS: usize = 8;

/// Points are kept in thousandths.
const MILLI: i64 = 1000;

/// An address block such as 10.0.0.0/8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    pub address: IpAddr,
    /// Leading bits that count: 0 to 32, or to 128.
    pub bits: u8,
}

impl Prefix {
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address.to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u32::from(a) ^ u32::from(b)).checked_shr(32 - u32::from(self.bits.min(32))).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (u128::from(a) ^ u128::from(b)).checked_shr(128 - u32::from(self.bits.min(128))).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Prefix {
        Prefix { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }
}

/// How much bad behaviour is borne.
#[derive(Clone, Debug)]
pub struct FloodConfig {
    /// Points a source may spend at once.
    pub burst: u32,
    /// Points that come back each second.
    pub per_second: u32,
    /// Sources that are never silenced: trusted neighbours.
    pub exempt: Vec<Prefix>,
}

impl Default for FloodConfig {
    fn default() -> FloodConfig {
        FloodConfig { burst: 400, per_second: 40, exempt: Vec::new() }
    }
}

/// What to do with a message from a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Pass,
    /// The first after the source went over its limit: tell it once (503), do no work.
    Refuse,
    Drop,
}

#[derive(Clone, Copy, Default)]
struct Source {
    /// 0 is an empty place.
    key: u64,
    milli: i64,
    /// Milliseconds since the table was made.
    at: u32,
    silenced: bool,
    told: bool,
}

/// The table. Shared by all carriers; costs one relaxed load per message while nobody is silenced.
pub struct Flood {
    burst: i64,
    per_second: i64,
    exempt: Vec<Prefix>,
    start: Instant,
    hasher: RandomState,
    silenced: AtomicUsize,
    shards: Vec<Mutex<Vec<Source>>>,
}

impl Flood {
    pub fn new(config: &FloodConfig, now: Instant) -> Flood {
        Flood {
            burst: i64::from(config.burst.max(1)) * MILLI,
            per_second: i64::from(config.per_second.max(1)),
            exempt: config.exempt.clone(),
            start: now,
            hasher: RandomState::new(),
            silenced: AtomicUsize::new(0),
            shards: (0..SHARDS).map(|_| Mutex::new(vec![Source::default(); ENTRIES / SHARDS])).collect(),
        }
    }

    /// Whether to listen to `source` now.
    #[inline]
    pub fn verdict(&self, now: Instant, source: SocketAddr) -> Verdict {
        if self.silenced.load(Relaxed) == 0 { Verdict::Pass } else { self.look_up(now, source) }
    }

    /// Takes `points` from a source that did something bad: 1 for garbage, 5 to 20 for what costs more, such as a wrong
    /// password. True when the source is silenced by it.
    pub fn penalise(&self, now: Instant, source: SocketAddr, points: u32) -> bool {
        if self.exempt.iter().any(|p| p.contains(source.ip())) {
            return false;
        }
        let points = i64::from(points) * MILLI;
        let by_port = self.take(now, self.key(source.ip(), Some(source.port())), points, 1);
        let by_address = self.take(now, self.key(source.ip(), None), points, i64::from(ADDRESS_SHARE));
        by_port || by_address
    }

    /// Sources that are silenced now, as far as known: a source that went away counts until [`Flood::sweep`].
    pub fn silenced(&self) -> usize {
        self.silenced.load(Relaxed)
    }

    /// Frees sources whose time is over. Call it about once a second.
    pub fn sweep(&self, now: Instant) {
        if self.silenced.load(Relaxed) == 0 {
            return;
        }
        for shard in &self.shards {
            for source in shard.lock().iter_mut().filter(|s| s.silenced) {
                let share = self.share(source.key);
                self.refill(source, self.millis(now), share);
            }
        }
    }

    #[cold]
    fn look_up(&self, now: Instant, source: SocketAddr) -> Verdict {
        let by_port = self.judge(now, self.key(source.ip(), Some(source.port())));
        if by_port != Verdict::Pass { by_port } else { self.judge(now, self.key(source.ip(), None)) }
    }

    fn judge(&self, now: Instant, key: u64) -> Verdict {
        let mut shard = self.shards[self.shard(key)].lock();
        let at = self.set(key);
        let Some(source) = shard[at..at + WAYS].iter_mut().find(|s| s.key == key) else { return Verdict::Pass };
        self.refill(source, self.millis(now), self.share(key));
        match (source.silenced, source.told) {
            (false, _) => Verdict::Pass,
            (true, true) => Verdict::Drop,
            (true, false) => {
                source.told = true;
                Verdict::Refuse
            }
        }
    }

    fn take(&self, now: Instant, key: u64, milli: i64, share: i64) -> bool {
        let millis = self.millis(now);
        let mut shard = self.shards[self.shard(key)].lock();
        let at = self.set(key);
        let set = &mut shard[at..at + WAYS];
        let place = match set.iter().position(|s| s.key == key) {
            Some(place) => place,
            None => {
                // An empty place first, else the source with most points left for its size.
                for source in set.iter_mut().filter(|s| s.key != 0) {
                    self.refill(source, millis, self.share(source.key));
                }
                let rank = |s: &Source| if s.key == 0 { i64::MAX } else { s.milli / self.share(s.key) };
                let place = (0..WAYS).max_by_key(|i| rank(&set[*i])).unwrap_or(0);
                if set[place].silenced {
                    self.silenced.fetch_sub(1, Relaxed);
                }
                set[place] = Source { key, milli: self.burst * share, at: millis, silenced: false, told: false };
                place
            }
        };
        let source = &mut set[place];
        self.refill(source, millis, share);
        // Not below one empty bucket: who stops is forgiven after a time that does not depend on how bad he was.
        source.milli = (source.milli - milli).max(-self.burst * share);
        if source.milli < 0 && !source.silenced {
            source.silenced = true;
            source.told = false;
            self.silenced.fetch_add(1, Relaxed);
        }
        source.silenced
    }

    fn refill(&self, source: &mut Source, millis: u32, share: i64) {
        // Threads read the clock at different moments: time never goes back for a source.
        let passed = i64::from(millis.saturating_sub(source.at));
        source.at = source.at.max(millis);
        let full = self.burst * share;
        source.milli = (source.milli + passed * self.per_second * share).min(full);
        if source.silenced && source.milli >= full / 2 {
            source.silenced = false;
            self.silenced.fetch_sub(1, Relaxed);
        }
    }

    /// Top bit: an address alone. Never 0.
    fn key(&self, ip: IpAddr, port: Option<u16>) -> u64 {
        // A host of IPv6 has a /64 to choose from.
        let net = match ip.to_canonical() {
            IpAddr::V4(ip) => (4u8, u64::from(u32::from(ip))),
            IpAddr::V6(ip) => (6, (u128::from(ip) >> 64) as u64),
        };
        let hash = self.hasher.hash_one((net, port)) | 1;
        match port {
            Some(_) => hash & (u64::MAX >> 1),
            None => hash | !(u64::MAX >> 1),
        }
    }

    fn share(&self, key: u64) -> i64 {
        if key >> 63 == 1 { i64::from(ADDRESS_SHARE) } else { 1 }
    }

    fn shard(&self, key: u64) -> usize {
        (key >> 8) as usize % SHARDS
    }

    fn set(&self, key: u64) -> usize {
        (key >> 16) as usize % (ENTRIES / SHARDS / WAYS) * WAYS
    }

    fn millis(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.start).as_millis() as u32
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(source: &str) -> SocketAddr {
        source.parse().unwrap()
    }

    fn flood(exempt: Vec<Prefix>) -> (Flood, Instant) {
        let now = Instant::now();
        (Flood::new(&FloodConfig { burst: 10, per_second: 2, exempt }, now), now)
    }

    #[test]
    fn a_source_over_its_limit_is_told_once_then_dropped_then_forgiven() {
        let (flood, now) = flood(vec![]);
        let bad = at("192.0.2.1:5060");
        for _ in 0..10 {
            assert!(!flood.penalise(now, bad, 1));
        }
        assert_eq!(flood.verdict(now, bad), Verdict::Pass);
        assert!(flood.penalise(now, bad, 1));
        assert_eq!(flood.verdict(now, bad), Verdict::Refuse);
        assert_eq!(flood.verdict(now, bad), Verdict::Drop);
        // From -1 to half of 10 at two a second: three seconds.
        assert_eq!(flood.verdict(now + Duration::from_millis(2990), bad), Verdict::Drop);
        assert_eq!(flood.verdict(now + Duration::from_millis(3000), bad), Verdict::Pass);
        assert_eq!(flood.silenced(), 0);
    }

    #[test]
    fn another_port_of_the_same_address_is_heard_until_the_address_is_spent() {
        let (flood, now) = flood(vec![]);
        flood.penalise(now, at("192.0.2.1:1"), 11);
        assert_eq!(flood.verdict(now, at("192.0.2.1:2")), Verdict::Pass);
        for port in 2..200 {
            flood.penalise(now, SocketAddr::new("192.0.2.1".parse().unwrap(), port), 1);
        }
        assert_ne!(flood.verdict(now, at("192.0.2.1:9999")), Verdict::Pass);
        assert_eq!(flood.verdict(now, at("192.0.2.2:9999")), Verdict::Pass);
    }

    #[test]
    fn hosts_of_one_ipv6_network_share_an_allowance() {
        let (flood, now) = flood(vec![]);
        for host in 1..200u32 {
            flood.penalise(now, at(&format!("[2001:db8::{host:x}]:5060")), 1);
        }
        assert_ne!(flood.verdict(now, at("[2001:db8::ffff]:1")), Verdict::Pass);
        assert_eq!(flood.verdict(now, at("[2001:db8:0:1::1]:1")), Verdict::Pass);
    }

    #[test]
    fn a_trusted_source_is_never_silenced() {
        let (flood, now) = flood(vec![Prefix { address: "10.0.0.0".parse().unwrap(), bits: 8 }]);
        assert!(!flood.penalise(now, at("10.9.8.7:5060"), 1_000_000));
        assert_eq!(flood.verdict(now, at("10.9.8.7:5060")), Verdict::Pass);
        assert!(flood.penalise(now, at("11.9.8.7:5060"), 1_000_000));
    }

    #[test]
    fn a_million_sources_take_no_more_memory_and_leave_the_count_right() {
        let (flood, now) = flood(vec![]);
        for n in 0..1_000_000u32 {
            flood.penalise(now, SocketAddr::new(IpAddr::V4(n.into()), 1), 11);
        }
        assert!(flood.silenced() <= ENTRIES);
        flood.sweep(now + Duration::from_secs(100));
        assert_eq!(flood.silenced(), 0);
    }

    #[test]
    fn prefixes_match_by_their_leading_bits() {
        let all = Prefix { address: "0.0.0.0".parse().unwrap(), bits: 0 };
        assert!(all.contains("203.0.113.9".parse().unwrap()));
        let one = Prefix::from("2001:db8::1".parse::<IpAddr>().unwrap());
        assert!(one.contains("2001:db8::1".parse().unwrap()));
        assert!(!one.contains("2001:db8::2".parse().unwrap()));
        let net = Prefix { address: "192.0.2.0".parse().unwrap(), bits: 25 };
        assert!(net.contains("192.0.2.127".parse().unwrap()));
        assert!(!net.contains("192.0.2.128".parse().unwrap()));
    }
}
