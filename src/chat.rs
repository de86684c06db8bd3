//! Sessions of messages that end in this server: chats with users who are away, and chat rooms, tied together.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use media_content::depot::Depot;
use media_msrp::{Denied, Gatekeeper, Switch};
use sip_ims::Home;
use sip_ims::ports::{Documents, StoreError};
use sip_ims::service::{Chronicle, Location, NextHops, Nodes, Service};
use sip_messaging::{
    Agent, AgentParts, Anchor, AnchorConfig, ConferenceConfig, ConferenceCounts, ConferenceParts, Conferences,
    ContentControl, History, Pager, Sessions, Strangers,
};
use sip_net::driver::Driver;
use tokio::runtime::Handle;

use crate::app::unix_now;
use crate::config::{self, Auth, Config};
use crate::control;
use crate::http::digest::{Digest, Unproven};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Family;

/// Where sessions go.
#[derive(Clone)]
pub struct Ends {
    pub switch: Arc<Switch>,
    pub doors: AnchorConfig,
    pub anchor: Arc<Anchor>,
}

/// What the services for such sessions work with.
pub struct Parts<'a> {
    pub home: Arc<Home>,
    pub location: Arc<dyn Location>,
    pub next_hops: Arc<dyn NextHops>,
    pub documents: Arc<dyn Documents>,
    pub history: Arc<History>,
    /// Where others share the store.
    pub nodes: Option<Arc<dyn Nodes>>,
    pub chronicle: Arc<dyn Chronicle>,
    pub metrics: &'a Metrics,
    /// `None`: nobody proves who they are.
    pub digest: Option<Arc<Digest>>,
    pub runtime: Handle,
    pub control: &'a Arc<ContentControl>,
}

/// The agent and the rooms.
pub struct Chat {
    agent: Arc<Agent>,
    conferences: Option<Arc<Conferences>>,
}

impl Chat {
    /// Rooms are in memory before the first INVITE. Blocks.
    pub fn open(config: &Config, ends: Ends, parts: Parts<'_>) -> Result<Chat, StoreError> {
        ends.switch.guard(Arc::new(Clients(parts.digest)));
        let agent = Agent::new(AgentParts {
            doors: ends.doors,
            home: parts.home.clone(),
            switch: ends.switch,
            location: parts.location,
            next_hops: parts.next_hops,
            nodes: parts.nodes.clone(),
            chronicle: parts.chronicle,
            unix: Arc::new(unix_now),
            runtime: parts.runtime.clone(),
            strangers: config.sip.auth == Auth::None,
        });
        if parts.control.concerns_sessions() {
            ends.anchor.control_by(parts.control.clone());
            agent.control_by(parts.control.clone());
        }
        let a = agent.clone();
        let family = Family::gauge("isthmus_chat_sessions", "Sessions of messages that end in this server, now.");
        parts.metrics.source(family, move |out| out.push(&[], a.sessions() as f64));
        let conference = &config.conference;
        if !conference.enabled {
            return Ok(Chat { agent, conferences: None });
        }
        let rooms = Conferences::new(
            ConferenceConfig {
                factory: conference.factory.clone(),
                rooms: conference.max_rooms,
                members: conference.max_members,
                max_message: conference.max_message.0 as usize,
                keep: conference.keep,
                strangers: match conference.strangers {
                    config::Strangers::Nobody => Strangers::Nobody,
                    config::Strangers::Invited => Strangers::Invited,
                    config::Strangers::Anybody => Strangers::Anybody,
                },
            },
            ConferenceParts {
                agent: agent.clone(),
                home: parts.home,
                documents: parts.documents,
                history: parts.history,
                nodes: parts.nodes,
                unix: Arc::new(unix_now),
                runtime: parts.runtime.clone(),
            },
        );
        let rooms = Arc::new(rooms);
        parts.runtime.block_on(rooms.load())?;
        to_metrics(parts.metrics, &rooms);
        Ok(Chat { agent, conferences: Some(rooms) })
    }

    /// In the order in which they are asked.
    pub fn services(&self) -> Vec<Arc<dyn Service>> {
        let mut services: Vec<Arc<dyn Service>> = vec![Arc::new(Sessions(self.agent.clone()))];
        services.extend(self.conferences.clone().map(|c| c as Arc<dyn Service>));
        services
    }

    /// Ties it to the stack, and to the pager that keeps what is said to users who are away.
    /// `files`: the shelf that takes files in their place, and what is told of those that do not pass.
    pub fn attach(
        &self,
        config: &Config,
        driver: &Arc<Driver>,
        pager: &Pager,
        files: Option<(Arc<Depot>, Arc<ContentControl>)>,
    ) {
        self.agent.attach(driver.clone());
        if config.messaging.chats {
            pager.answer_by(self.agent.clone(), files.filter(|(depot, _)| depot.is_known()));
        }
        if let Some(conferences) = &self.conferences {
            conferences.start(control::again(driver));
        }
    }
}

/// Clients that ask for a relay (RFC 4976): our users, by the same digest as in SIP.
struct Clients(Option<Arc<Digest>>);

impl Gatekeeper for Clients {
    fn admits(&self, from: IpAddr, uri: &[u8], authorization: Option<&[u8]>) -> Result<(), Denied> {
        let Some(digest) = &self.0 else { return Ok(()) };
        let credentials: Vec<&[u8]> = authorization.into_iter().collect();
        match digest.proved(from, &credentials, "AUTH", &String::from_utf8_lossy(uri)) {
            Ok(_) => Ok(()),
            Err(Unproven::Challenge(values)) => Err(Denied::Challenge(values)),
            Err(Unproven::Guessing | Unproven::Malformed) => Err(Denied::Forbidden),
        }
    }
}

fn to_metrics(metrics: &Metrics, rooms: &Arc<Conferences>) {
    let r = rooms.clone();
    metrics.source(Family::gauge("isthmus_chat_rooms", "Chat rooms and who is in them, now."), move |out| {
        out.push(&[("what", "rooms")], r.rooms() as f64);
        out.push(&[("what", "members")], r.members() as f64);
    });
    let r = rooms.clone();
    metrics.source(Family::counter("isthmus_chat_rooms_total", "What happened in chat rooms, by kind."), move |out| {
        type Of = fn(&ConferenceCounts) -> &AtomicU64;
        let kinds: [(&str, Of); 11] = [
            ("opened", |c| &c.opened),
            ("joined", |c| &c.joined),
            ("left", |c| &c.left),
            ("refused", |c| &c.refused),
            ("messages", |c| &c.messages),
            ("private", |c| &c.private),
            ("copies", |c| &c.copies),
            ("congested", |c| &c.congested),
            ("handed_over", |c| &c.handed_over),
            ("taken_over", |c| &c.taken_over),
            ("let_go", |c| &c.let_go),
        ];
        for (kind, of) in kinds {
            out.push(&[("kind", kind)], of(r.counts()).load(Relaxed) as f64);
        }
    });
}
