//! Streams of other domains to us.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::wire::Wire;
use super::{Aside, PATIENCE, Shared, stopped, unguessable};
use crate::incoming::{Action, Incoming, MAX_DOMAINS};
use crate::stream::Fault;

/// Streams at a time, and those of one address.
const MAX_STREAMS: usize = 2_000;
const MAX_EACH: usize = 100;
/// How long a proved stream may be silent.
const IDLE: Duration = Duration::from_secs(15 * 60);

/// Who has how many.
#[derive(Default)]
struct Places(Mutex<HashMap<IpAddr, usize>>);

/// Counted while it lasts.
struct Place {
    places: Arc<Places>,
    of: IpAddr,
}

impl Places {
    fn take(self: &Arc<Self>, of: IpAddr) -> Option<Place> {
        let mut places = self.0.lock();
        let each = places.get(&of).copied().unwrap_or(0);
        if each >= MAX_EACH || places.values().sum::<usize>() >= MAX_STREAMS {
            return None;
        }
        places.insert(of, each + 1);
        Some(Place { places: self.clone(), of })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.0.lock();
        if let Some(each) = places.get_mut(&self.of) {
            *each -= 1;
            if *each == 0 {
                places.remove(&self.of);
            }
        }
    }
}

pub(super) async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    let places = Arc::<Places>::default();
    let mut stop = shared.stop.subscribe();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((connection, remote)) => {
                let Some(place) = places.take(remote.ip()) else { continue };
                let machine = Incoming::new(&shared.config.domain, shared.keys.clone(), unguessable());
                let (judged, judgements) = mpsc::channel(MAX_DOMAINS);
                let stream = Stream { shared: shared.clone(), machine, judged, is_counted: false };
                tokio::spawn(async move {
                    stream.run(connection, judgements).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "XMPP streams are not accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Stream {
    shared: Arc<Shared>,
    machine: Incoming,
    /// What domains say about keys.
    judged: mpsc::Sender<(String, bool)>,
    /// Among those that carry stanzas.
    is_counted: bool,
}

impl Stream {
    async fn run(mut self, connection: TcpStream, mut judgements: mpsc::Receiver<(String, bool)>) {
        let mut wire = Wire::Plain(connection);
        let mut stop = self.shared.stop.subscribe();
        let mut deadline = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 4096];
        loop {
            let mut actions = Vec::new();
            tokio::select! {
                () = stopped(&mut stop) => self.machine.fault(Fault::SystemShutdown, &mut actions),
                () = sleep_until(deadline) => self.machine.fault(Fault::ConnectionTimeout, &mut actions),
                // This one holds a sender, so it is never closed.
                Some((domain, valid)) = judgements.recv() => self.machine.judged(&domain, valid, &mut actions),
                read = wire.read(&mut buffer) => match read {
                    Ok(n @ 1..) => {
                        self.machine.received(&buffer[..n], &mut actions);
                        if self.machine.is_proved() {
                            deadline = Instant::now() + IDLE;
                        }
                    }
                    _ => break,
                },
            }
            match self.act(wire, actions).await {
                ControlFlow::Continue(same) => wire = same,
                ControlFlow::Break(()) => break,
            }
            if self.machine.is_proved() && !self.is_counted {
                self.is_counted = true;
                self.shared.counts.incoming.fetch_add(1, Relaxed);
                deadline = Instant::now() + IDLE;
            }
        }
        match self.is_counted {
            true => self.shared.counts.incoming.fetch_sub(1, Relaxed),
            false => self.shared.counts.failed_incoming.fetch_add(1, Relaxed),
        };
    }

    async fn act(&mut self, mut wire: Wire, actions: Vec<Action>) -> ControlFlow<(), Wire> {
        for action in actions {
            match action {
                Action::Send(bytes) => {
                    if wire.write(&bytes, PATIENCE).await.is_err() {
                        return ControlFlow::Break(());
                    }
                }
                Action::StartTls => {
                    let Wire::Plain(connection) = wire else { return ControlFlow::Break(()) };
                    let acceptor = TlsAcceptor::from(self.shared.parts.server.clone());
                    match timeout(PATIENCE, acceptor.accept(connection)).await {
                        Ok(Ok(secure)) => wire = Wire::Secure(Box::new(secure.into())),
                        Ok(Err(error)) => {
                            tracing::debug!(%error, "TLS with an XMPP server failed");
                            return ControlFlow::Break(());
                        }
                        Err(_) => return ControlFlow::Break(()),
                    }
                    self.machine.secured(unguessable());
                }
                Action::Ask { domain, stream, key } => self.ask(domain, stream, key),
                Action::Stanza(stanza) => self.shared.stanza(stanza),
                Action::Closed => {
                    wire.close().await;
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(wire)
    }

    /// Asks the domain itself, over our stream to it.
    fn ask(&self, domain: String, stream: String, key: String) {
        let (answer, answered) = oneshot::channel();
        self.shared.aside(&domain, Aside::Verify { stream, key, answer });
        let judged = self.judged.clone();
        tokio::spawn(async move {
            // Whom nobody can ask is not believed.
            let valid = timeout(PATIENCE, answered).await.is_ok_and(|answer| answer.unwrap_or(false));
            _ = judged.send((domain, valid)).await;
        });
    }
}
