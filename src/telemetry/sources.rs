//! The metrics that others count: the driver's shards, the carriers, the services, the stores, the process.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use sip_call::Joints;
use sip_messaging::Pager;
use sip_net::driver::{Direction, Kind, Part, Traffic};
use sip_net::{Carriers, Counters};
use sip_proto::Transport;
use sip_registrar::Registrar;

use super::metrics::{Family, Metrics, Samples};
use crate::store::Store;
use crate::{cdr, telemetry::hep};

/// How much waits for each store.
pub fn stores(metrics: &Metrics, store: Arc<Store>) {
    metrics.source(Family::gauge("isthmus_queue_depth", "Operations that wait, by queue."), move |s| {
        let depth = store.depth();
        s.push(&[("queue", "bindings")], depth.bindings as f64);
        s.push(&[("queue", "presence")], depth.presence as f64);
        s.push(&[("queue", "sql")], depth.sql as f64);
    });
}

/// Bindings, subscriptions to them, and messages that wait.
pub fn services(metrics: &Metrics, registrar: &Arc<Registrar>, pager: &Arc<Pager>) {
    let r = registrar.clone();
    let family = Family::gauge("isthmus_bindings", "Contacts registered now.");
    metrics.source(family, move |s| s.push(&[], r.bindings() as f64));
    let r = registrar.clone();
    let family = Family::gauge("isthmus_registered_users", "Users with a contact.");
    metrics.source(family, move |s| s.push(&[], r.users() as f64));
    let r = registrar.clone();
    let family = Family::gauge("isthmus_subscriptions", "Subscriptions, by event package.");
    metrics.source(family, move |s| s.push(&[("event", "reg")], r.subscriptions() as f64));
    let p = pager.clone();
    let family = Family::gauge("isthmus_messages_waiting_users", "Users for whom messages are kept.");
    metrics.source(family, move |s| s.push(&[], p.waiting_users() as f64));
    let counts = pager.counts().clone();
    let family = Family::counter("isthmus_kept_messages_total", "Messages for absent users, by fate.");
    metrics.source(family, move |s| {
        for (fate, counter) in [
            ("kept", &counts.kept),
            ("turned_away", &counts.turned_away),
            ("delivered", &counts.delivered),
            ("refused", &counts.refused),
            ("expired", &counts.expired),
            ("put_off", &counts.put_off),
            ("notices", &counts.notices),
            ("shared", &counts.shared),
        ] {
            s.push(&[("fate", fate)], counter.load(Relaxed) as f64);
        }
    });
}

/// Calls that we are in the middle of.
pub fn joints(metrics: &Metrics, joints: Arc<Joints>) {
    let family = Family::gauge("isthmus_joined_calls", "Calls in whose middle we are, as a back-to-back user agent.");
    metrics.source(family, move |s| s.push(&[], joints.count() as f64));
}

/// Messages, transactions and what was refused, summed over the driver's shards.
pub fn traffic(metrics: &Metrics, shards: Vec<Arc<Traffic>>) {
    let shards: Arc<[Arc<Traffic>]> = shards.into();
    let all = shards.clone();
    metrics.source(
        Family::counter(
            "isthmus_sip_messages_total",
            "SIP messages by direction, transport, method, and status of responses; 2xx and its like are codes that are not registered.",
        ),
        move |s| messages(&all, s),
    );
    let sum = |of: fn(&Traffic) -> &AtomicU64| {
        let shards = shards.clone();
        move |s: &mut Samples<'_>| s.push(&[], shards.iter().map(|t| of(t).load(Relaxed)).sum::<u64>() as f64)
    };
    let family =
        Family::gauge("isthmus_sip_transactions", "SIP transactions held, finished ones that still absorb included.");
    metrics.source(family, sum(|t| &t.transactions));
    let family = Family::counter("isthmus_sip_shed_total", "Requests refused with 503: for load, or for want of room.");
    metrics.source(family, {
        let shards = shards.clone();
        move |s| {
            let shed = |t: &Arc<Traffic>| t.shed.load(Relaxed) + t.full.load(Relaxed);
            s.push(&[], shards.iter().map(shed).sum::<u64>() as f64);
        }
    });
    metrics.source(
        Family::counter("isthmus_sip_malformed_total", "Messages that cannot be read; they get no answer."),
        sum(|t| &t.malformed),
    );
}

fn messages(shards: &[Arc<Traffic>], samples: &mut Samples<'_>) {
    let mut sums: Vec<(Direction, Transport, Kind, u64)> = Vec::new();
    for shard in shards {
        shard.each(|direction, transport, kind, n| {
            match sums.iter_mut().find(|s| (s.0, s.1, s.2) == (direction, transport, kind)) {
                Some(sum) => sum.3 += n,
                None => sums.push((direction, transport, kind, n)),
            }
        });
    }
    for (direction, transport, kind, n) in sums {
        let direction = if direction == Direction::In { "in" } else { "out" };
        let method = kind.method.to_string();
        let status = match kind.part {
            Part::Request => None,
            Part::Response(status) => Some(status.to_string()),
            Part::Class(class) => Some(format!("{class}xx")),
        };
        let mut labels = vec![("direction", direction), ("transport", transport.uri_token()), ("method", &method)];
        labels.extend(status.as_deref().map(|status| ("status", status)));
        samples.push(&labels, n as f64);
    }
}

/// What the carriers counted.
pub fn carriers(metrics: &Metrics, carriers: &Arc<Carriers>) {
    let by = |of: fn(&Counters, Transport) -> u64| {
        let carriers = carriers.clone();
        move |s: &mut Samples<'_>| {
            for transport in Transport::ALL {
                s.push(&[("transport", transport.uri_token())], of(carriers.counters(), transport) as f64);
            }
        }
    };
    let family = Family::counter("isthmus_carrier_received_total", "Messages read, by transport.");
    metrics.source(family, by(|c, t| c.received(t)));
    let family = Family::counter("isthmus_carrier_sent_total", "Messages written, by transport.");
    metrics.source(family, by(|c, t| c.sent(t)));
    metrics
        .source(Family::gauge("isthmus_connections", "Open stream connections, by transport."), by(|c, t| c.open(t)));

    let carriers = carriers.clone();
    let family =
        Family::counter("isthmus_carrier_events_total", "What the carriers refused, dropped or answered alone.");
    metrics.source(family, move |s| {
        let c = carriers.counters();
        for (event, counter) in [
            ("keep_alive", &c.keep_alives),
            ("garbage", &c.garbage),
            ("flood_dropped", &c.flood_dropped),
            ("overloaded", &c.overloaded),
            ("unsent", &c.unsent),
            ("returned", &c.returned),
            ("connection_refused", &c.connections_refused),
            ("connection_cut", &c.connections_cut),
            ("handshake_failed", &c.handshakes_failed),
            ("panic", &c.panics),
        ] {
            s.push(&[("event", event)], counter.load(Relaxed) as f64);
        }
    });
}

/// Charging records written and lost.
pub fn records(metrics: &Metrics, counts: &Arc<cdr::Counts>) {
    let counts = counts.clone();
    metrics.source(Family::counter("isthmus_cdr_total", "Charging records by fate."), move |s| {
        s.push(&[("fate", "written")], counts.written.load(Relaxed) as f64);
        s.push(&[("fate", "dropped")], counts.dropped.load(Relaxed) as f64);
    });
}

/// Copies for the capture server sent and dropped.
pub fn capture(metrics: &Metrics, counts: &Arc<hep::Counts>) {
    let counts = counts.clone();
    metrics.source(Family::counter("isthmus_hep_packets_total", "HEP packets by fate."), move |s| {
        s.push(&[("fate", "sent")], counts.sent.load(Relaxed) as f64);
        s.push(&[("fate", "dropped")], counts.dropped.load(Relaxed) as f64);
    });
}

/// What Prometheus expects every process to say of itself, as far as /proc tells.
pub fn process(metrics: &Metrics, node: &str) {
    let node = node.to_owned();
    let family = Family::gauge("isthmus_build_info", "1, labelled with version and node.");
    metrics.source(family, move |s| s.push(&[("version", env!("CARGO_PKG_VERSION")), ("node", &node)], 1.0));
    let family = Family::gauge("process_resident_memory_bytes", "Resident memory.");
    metrics.source(family, |s| {
        if let Some(kib) = status_kib("VmRSS:") {
            s.push(&[], kib * 1024.0);
        }
    });
    metrics.source(Family::counter("process_cpu_seconds_total", "CPU time, user and system."), |s| {
        if let Some(seconds) = cpu_seconds() {
            s.push(&[], seconds);
        }
    });
    metrics.source(Family::gauge("process_open_fds", "Open file descriptors."), |s| {
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            s.push(&[], entries.count() as f64);
        }
    });
}

fn status_kib(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with(key))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// proc(5): after the command in parentheses, utime and stime are the 12th and 13th fields, in ticks of 1/100 s.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_tells_its_memory_and_cpu() {
        let metrics = Metrics::new();
        process(&metrics, "n1");
        let text = metrics.exposition();
        for name in
            ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "isthmus_build_info"]
        {
            assert!(text.contains(&format!("# TYPE {name} ")), "{text}");
        }
        assert!(text.contains("node=\"n1\"} 1\n"), "{text}");
    }
}
