//! SMS over IP, started: its worker, and its part in the cluster.

use std::sync::Arc;

use gw_sms::ip_sm_gw::{Inbox, IpSmGw, Nodes, Queued, Report, Worker, WorkerParts};
use sip_call::{Seals, write_route_elsewhere};
use sip_ims::Directory;
use sip_ims::history::TextArchive;
use sip_ims::ports::{Bus, BusError, Subscription};
use sip_ims::service::{Elsewhere, Location, NextHops, Outlet};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Sms, clock};
use crate::app::unix_now;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::secrets;

/// What the worker shares with the rest of the process.
pub struct Around<'a> {
    pub directory: Arc<Directory>,
    pub location: Arc<dyn Location>,
    pub outlet: Arc<dyn Outlet>,
    pub next_hops: Arc<dyn NextHops>,
    pub archive: Arc<dyn TextArchive>,
    pub cluster: &'a Cluster,
    /// What all nodes share.
    pub secret: [u8; 32],
    pub stop: watch::Receiver<bool>,
}

/// Starts what sends and receives for handsets. What other nodes tell ends with the guard.
pub fn start(
    config: &Config,
    sms: &Sms,
    (gateway, inbox): (Arc<IpSmGw>, Inbox),
    around: Around<'_>,
    runtime: &Handle,
) -> Result<Option<Subscription>, BusError> {
    let Around { directory, location, outlet, next_hops, archive, cluster, secret, mut stop } = around;
    let nodes = cluster
        .is_shared()
        .then(|| Arc::new(Others { seals: Seals::new(&secret), bus: cluster.bus().clone() }) as Arc<dyn Nodes>);
    let heard = match nodes {
        Some(_) => {
            Some(cluster.bus().subscribe(REPORTED, Box::new(move |_, report| gateway.reported_elsewhere(report)))?)
        }
        None => None,
    };
    let outbound = Queued {
        directory,
        queue: sms.queue.clone(),
        dispatcher: sms.dispatcher.clone(),
        numbers: sms.numbers.clone(),
        has_centre: !config.smpp.link.is_empty(),
        validity: i64::from(config.sms.validity) * 60_000,
        clock: clock(),
    };
    let parts = WorkerParts {
        location,
        outlet,
        next_hops,
        outbound: Arc::new(outbound),
        archive,
        nodes,
        unix: Arc::new(unix_now),
        random: Arc::new(secrets::random),
    };
    let worker = Worker::new(inbox, parts);
    runtime.spawn(worker.run(async move {
        // An error means that the sender is gone, and so is the server.
        let _ = stop.wait_for(|stop| *stop).await;
    }));
    Ok(heard)
}

struct Others {
    seals: Seals,
    bus: Arc<dyn Bus>,
}

impl Nodes for Others {
    fn way(&self, to: &Elsewhere, call_id: &[u8]) -> Vec<u8> {
        let mut way = Vec::new();
        write_route_elsewhere(&mut way, to, &self.seals, call_id);
        way
    }

    fn tell(&self, report: &Report) {
        if let Err(error) = self.bus.publish(REPORTED, &report.to_bytes()) {
            tracing::debug!(%error, "other nodes are not told of a report");
        }
    }
}

const REPORTED: &str = "sms.reported";
