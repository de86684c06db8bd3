//! Media that go through this server, tied together: the relay, and the screen that puts calls through it whose ends
//! are not to see each other (RFC 3323 §5.2).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use media_rtp::{Counts, Relay};
use sip_call::{Screen, ScreenConfig};
use sip_ims::service::Chronicle;
use sip_messaging::AnchorConfig;
use tokio::runtime::Handle;

use crate::config::Config;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Family;

/// `None` when the operator wants none, or nobody could reach it. `messages`: the doors of messaging sessions.
pub fn open(
    config: &Config,
    messages: Option<AnchorConfig>,
    chronicle: Arc<dyn Chronicle>,
    metrics: &Metrics,
    runtime: &Handle,
) -> Option<Arc<Screen>> {
    let media = &config.media;
    if media.max_relayed == 0 {
        return None;
    }
    let mut doors = config.sip.udp.iter().chain(&config.sip.tcp).chain(&config.sip.tls);
    if media.address.is_loopback() && doors.any(|door| !door.ip().is_loopback()) {
        tracing::warn!("media.address is this machine's own: no privacy for sessions (Privacy: session)");
        return None;
    }
    let relay = Relay::new(media_rtp::Config { address: media.address, ports: media.ports.0.clone() }, runtime.clone());
    let screen = ScreenConfig {
        max_calls: media.max_relayed,
        silence: Duration::from_secs(media.silence),
        messages: messages.into_iter().flat_map(|m| [m.plain, m.secure]).flatten().collect(),
    };
    let screen = Arc::new(Screen::new(screen, relay, chronicle));
    runtime.spawn(keep_time(screen.clone()));
    to_metrics(metrics, &screen);
    Some(screen)
}

async fn keep_time(screen: Arc<Screen>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        second.tick().await;
        screen.sweep(Instant::now());
    }
}

fn to_metrics(metrics: &Metrics, screen: &Arc<Screen>) {
    let s = screen.clone();
    let family = Family::gauge("isthmus_media_open", "Calls whose media are relayed, and their streams, now.");
    metrics.source(family, move |out| {
        out.push(&[("what", "calls")], s.calls() as f64);
        out.push(&[("what", "streams")], s.relay().open_streams() as f64);
    });
    let s = screen.clone();
    metrics.source(Family::counter("isthmus_media_total", "What the media relay did, by kind."), move |out| {
        type Of = fn(&Counts) -> &AtomicU64;
        let kinds: [(&str, Of); 7] = [
            ("packets", |c| &c.packets),
            ("bytes", |c| &c.bytes),
            ("strangers", |c| &c.strangers),
            ("nowhere", |c| &c.nowhere),
            ("too_long", |c| &c.too_long),
            ("unsent", |c| &c.unsent),
            ("full", |c| &c.full),
        ];
        for (kind, of) in kinds {
            out.push(&[("kind", kind)], of(s.relay().counts()).load(Relaxed) as f64);
        }
    });
}
