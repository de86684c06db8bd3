//! The bus of a cluster: core NATS, without JetStream.

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt;
use sip_ims::ports::{Bus, BusError, Listener, Subscription};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::LocalBus;
use super::local::check;

/// The operator's fault: the URL is none, or names a server that refuses us.
#[derive(Debug, thiserror::Error)]
#[error("the bus does not open: {0}")]
pub struct NatsError(#[source] async_nats::Error);

/// One connection to NATS, subscribed to everything of ours; subscribers are called on one task, through a [`LocalBus`].
///
/// While the connection is down it tries again by itself, and hints are lost.
pub struct NatsBus {
    local: LocalBus,
    outgoing: Sender<(String, Vec<u8>)>,
}

impl NatsBus {
    /// Connects, waiting until the subscription stands. The tasks end when the bus is dropped. Call inside a tokio runtime.
    pub async fn connect(url: &str) -> Result<NatsBus, NatsError> {
        let options = ConnectOptions::new()
            .connection_timeout(CONNECT)
            .client_capacity(QUEUE)
            .subscription_capacity(QUEUE)
            .max_reconnects(None);
        let client = options.connect(url).await.map_err(|e| NatsError(e.into()))?;
        let mut incoming = client.subscribe(format!("{SUBJECT}.>")).await.map_err(|e| NatsError(e.into()))?;
        tokio::time::timeout(CONNECT, heard(&client, &mut incoming)).await.map_err(|e| NatsError(e.into()))??;
        let local = LocalBus::new();
        let (outgoing, queue) = channel(QUEUE);
        let receive = tokio::spawn(receive(incoming, local.clone()));
        tokio::spawn(async move {
            send(client, queue).await;
            receive.abort();
        });
        Ok(NatsBus { local, outgoing })
    }
}

impl Bus for NatsBus {
    fn publish(&self, topic: &str, bytes: &[u8]) -> Result<(), BusError> {
        check(topic, bytes)?;
        // Full: NATS does not keep up or is away, and a hint may be lost.
        if self.outgoing.try_send((format!("{SUBJECT}.{topic}"), bytes.to_vec())).is_err() {
            tracing::debug!("a hint was dropped");
        }
        Ok(())
    }

    fn subscribe(&self, prefix: &str, each: Listener) -> Result<Subscription, BusError> {
        self.local.subscribe(prefix, each)
    }
}

/// Waits until we hear ourselves: sent is not yet known to the server, and a hint of another node's would be lost.
async fn heard(client: &Client, incoming: &mut async_nats::Subscriber) -> Result<(), NatsError> {
    let word: [u8; 16] = rand::random();
    client.publish(format!("{SUBJECT}.hello"), word.to_vec().into()).await.map_err(|e| NatsError(e.into()))?;
    // Other nodes' words come by, and hints that nobody here has subscribed to yet.
    while let Some(message) = incoming.next().await {
        if *message.payload == word {
            return Ok(());
        }
    }
    Err(NatsError("the connection was closed".into()))
}

async fn send(client: Client, mut queue: Receiver<(String, Vec<u8>)>) {
    while let Some((subject, bytes)) = queue.recv().await {
        if let Err(error) = client.publish(subject, bytes.into()).await {
            tracing::debug!(%error, "a hint was dropped");
        }
    }
}

async fn receive(mut incoming: async_nats::Subscriber, local: LocalBus) {
    while let Some(message) = incoming.next().await {
        let topic = message.subject.strip_prefix(SUBJECT).and_then(|t| t.strip_prefix('.'));
        // Others may publish here too: the same limits as for our own.
        if let Some(topic) = topic.filter(|t| check(t, &message.payload).is_ok()) {
            local.deliver(topic, &message.payload);
        }
    }
}

/// Before every topic: NATS may be shared with others.
const SUBJECT: &str = "isthmus";
/// Longest wait for the server, at the start.
const CONNECT: Duration = Duration::from_secs(5);
/// Hints that may wait, each way.
const QUEUE: usize = 4096;
