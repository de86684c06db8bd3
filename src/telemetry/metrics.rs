//! Counters and histograms for Prometheus.
//!
//! What hot threads measure lies in a few copies, one per thread as far as they reach, so that an observation is two relaxed
//! additions to memory that no other core wants. Everything else is a source: a closure asked at scrape time. Messages are
//! counted by the driver's shards; [`sources`](super::sources) reads them.

mod exposition;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use exposition::{Family, Kind, Samples};

/// What a histogram measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Latency {
    /// One message, from its arrival to the last byte of what it caused: parsing, transaction, decision. Sampled.
    Handling,
    /// From a change's arrival in a store's queue to its commit.
    Commit(Commit),
}

/// The stores that commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Commit {
    Bindings,
    Messages,
    Presence,
}

impl Commit {
    const ALL: [Commit; 3] = [Commit::Bindings, Commit::Messages, Commit::Presence];

    fn as_str(self) -> &'static str {
        match self {
            Commit::Bindings => "bindings",
            Commit::Messages => "messages",
            Commit::Presence => "presence",
        }
    }
}

/// Every number of this process. Shared by reference count.
pub struct Metrics {
    shards: Box<[Shard]>,
    sources: Mutex<Vec<Source>>,
}

type Ask = Box<dyn Fn(&mut Samples<'_>) + Send>;

struct Source {
    family: Family,
    ask: Ask,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    pub fn new() -> Metrics {
        let cores = std::thread::available_parallelism().map_or(4, usize::from);
        let shards = (cores * 2).next_power_of_two().min(64);
        Metrics { shards: (0..shards).map(|_| Shard::default()).collect(), sources: Mutex::default() }
    }

    #[inline]
    pub fn observe(&self, what: Latency, took: Duration) {
        self.shard().latencies[latency_index(what)].observe(took);
    }

    /// Runs `work` and, one time in 16 on each thread, measures it as [`Latency::Handling`]: reading the clock each time would
    /// cost more than counting.
    #[inline]
    pub fn handling<R>(&self, work: impl FnOnce() -> R) -> R {
        thread_local! {
            static TURN: Cell<u8> = const { Cell::new(0) };
        }
        let turn = TURN.get();
        TURN.set(turn.wrapping_add(1));
        if !turn.is_multiple_of(16) {
            return work();
        }
        let start = Instant::now();
        let result = work();
        self.observe(Latency::Handling, start.elapsed());
        result
    }

    /// Adds a family of which the samples are asked for at each scrape. `ask` must not block.
    pub fn source(&self, family: Family, ask: impl Fn(&mut Samples<'_>) + Send + 'static) {
        self.sources.lock().push(Source { family, ask: Box::new(ask) });
    }

    /// Everything, in Prometheus' text format 0.0.4.
    pub fn exposition(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        self.write_latencies(&mut text);
        for source in self.sources.lock().iter() {
            source.family.write(&mut text, |samples| (source.ask)(samples));
        }
        text
    }

    fn write_latencies(&self, text: &mut String) {
        let commits = Commit::ALL.map(|c| (latency_index(Latency::Commit(c)), c.as_str()));
        let help = "Seconds that a thread spends on one SIP message; one in 16 is measured.";
        Family::histogram("isthmus_sip_handling_seconds", help)
            .write(text, |s| self.write_histogram(s, latency_index(Latency::Handling), &[]));
        let help = "Seconds from a change's arrival in a store's queue to its commit.";
        Family::histogram("isthmus_store_commit_seconds", help)
            .write(text, |s| commits.iter().for_each(|(at, label)| self.write_histogram(s, *at, &[("store", label)])));
    }

    fn write_histogram(&self, samples: &mut Samples<'_>, at: usize, labels: &[(&str, &str)]) {
        let mut counts = [0u64; BUCKETS];
        let mut nanoseconds = 0u64;
        for histogram in self.shards.iter().map(|s| &s.latencies[at]) {
            counts.iter_mut().zip(&histogram.counts).for_each(|(sum, c)| *sum += c.load(Relaxed));
            nanoseconds += histogram.nanoseconds.load(Relaxed);
        }
        if counts.iter().any(|c| *c > 0) {
            let bounds = BOUNDS.map(|micros| micros as f64 / 1e6);
            samples.histogram(labels, &bounds, &counts, nanoseconds as f64 / 1e9);
        }
    }

    #[inline]
    fn shard(&self) -> &Shard {
        &self.shards[thread_number() & (self.shards.len() - 1)]
    }
}

/// Upper bounds of the buckets in microseconds; one more bucket takes the rest.
const BOUNDS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];
const BUCKETS: usize = BOUNDS.len() + 1;

const LATENCIES: usize = 1 + Commit::ALL.len();

// Two cache lines apart, because processors fetch them in pairs.
#[repr(align(128))]
struct Shard {
    latencies: [Histogram; LATENCIES],
}

impl Default for Shard {
    fn default() -> Shard {
        Shard { latencies: std::array::from_fn(|_| Histogram::default()) }
    }
}

#[derive(Default)]
struct Histogram {
    counts: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
}

impl Histogram {
    fn observe(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(took.as_nanos() as u64, Relaxed);
    }
}

fn latency_index(what: Latency) -> usize {
    match what {
        Latency::Handling => 0,
        Latency::Commit(store) => 1 + store as usize,
    }
}

/// Numbers threads as they first come by.
pub(super) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|n| {
        if n.get() == usize::MAX {
            n.set(NEXT.fetch_add(1, Relaxed));
        }
        n.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_are_summed_over_threads() {
        let metrics = Metrics::new();
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    for _ in 0..1000 {
                        metrics.observe(Latency::Commit(Commit::Bindings), Duration::from_micros(3));
                    }
                });
            }
        });
        let text = metrics.exposition();
        assert!(text.contains("isthmus_store_commit_seconds_count{store=\"bindings\"} 8000\n"), "{text}");
        assert!(text.contains("isthmus_store_commit_seconds_sum{store=\"bindings\"} 0.024\n"), "{text}");
    }

    #[test]
    fn every_series_has_its_own_cell() {
        let cells = [Latency::Handling].into_iter().chain(Commit::ALL.map(Latency::Commit));
        let cells: std::collections::HashSet<usize> = cells.map(latency_index).collect();
        assert_eq!(cells.len(), LATENCIES);
        assert_eq!(cells.into_iter().max(), Some(LATENCIES - 1));
    }

    #[test]
    fn histogram_buckets_are_cumulative() {
        let metrics = Metrics::new();
        for micros in [40, 50, 51, 900, 60_000_000] {
            metrics.observe(Latency::Handling, Duration::from_micros(micros));
        }
        let text = metrics.exposition();
        for (le, count) in [("0.00005", 2), ("0.0001", 3), ("0.001", 4), ("30", 4), ("+Inf", 5)] {
            let line = format!("isthmus_sip_handling_seconds_bucket{{le=\"{le}\"}} {count}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.contains("isthmus_sip_handling_seconds_count 5\n"), "{text}");
    }

    #[test]
    fn one_message_in_sixteen_is_measured() {
        let metrics = Metrics::new();
        let sum: u32 = (0..33).map(|n| metrics.handling(|| n)).sum();
        assert_eq!(sum, 528);
        assert!(metrics.exposition().contains("isthmus_sip_handling_seconds_count 3\n"));
    }

    #[test]
    fn sources_are_asked_at_each_scrape() {
        let metrics = Metrics::new();
        let value = std::sync::Arc::new(AtomicU64::new(3));
        let seen = value.clone();
        metrics.source(Family::gauge("isthmus_bindings", "Bindings."), move |s| {
            s.push(&[], seen.load(Relaxed) as f64);
        });
        assert!(metrics.exposition().contains("# TYPE isthmus_bindings gauge\nisthmus_bindings 3\n"));
        value.store(4, Relaxed);
        assert!(metrics.exposition().contains("\nisthmus_bindings 4\n"));
    }
}
