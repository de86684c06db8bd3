//! One connection of a link, again and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Down, LinkState, Shared};
use crate::backoff::Backoff;
use crate::outcome::{Outcome, Submission, Ticket, Verdict};
use crate::pace::Pace;
use crate::pdu::{BindKind, CommandStatus};
use crate::pump::{self, Inlets, Owner, now};
use crate::reply::{Control, Reply};
use crate::session::{Ended, Event, Role, Session};

pub(super) struct Half {
    shared: Arc<Shared>,
    kind: BindKind,
    queue: mpsc::Receiver<Submission>,
    stop: watch::Receiver<bool>,
    /// How long the last connection was bound.
    bound_for: Duration,
}

impl Half {
    pub(super) fn new(
        shared: Arc<Shared>,
        kind: BindKind,
        queue: mpsc::Receiver<Submission>,
        stop: watch::Receiver<bool>,
    ) -> Half {
        Half { shared, kind, queue, stop, bound_for: Duration::ZERO }
    }

    pub(super) async fn run(mut self) {
        let (shortest, longest) = self.shared.config.reconnect;
        let mut backoff = Backoff::new(shortest, longest);
        loop {
            self.bound_for = Duration::ZERO;
            let down = self.once().await;
            backoff.bound_for(self.bound_for);
            if self.shared.serves(self.kind) {
                self.shared.port.state(&self.shared.config.name, LinkState::Down(down));
            }
            if self.stopped() {
                break;
            }
            let pause = backoff.pause();
            tracing::info!(link = %self.shared.config.name, ?down, ?pause, "SMPP link is down");
            self.rest(pause).await;
            if self.stopped() {
                break;
            }
        }
        self.queue.close();
        let mut unsent = Vec::new();
        // To the last: who had a place when it closed may still take it.
        while let Some(submission) = self.queue.recv().await {
            unsent.push(Outcome { ticket: submission.ticket, verdict: Verdict::Unsent });
        }
        self.shared.finish(&mut unsent);
    }

    /// Asked to stop, or nobody is left to ask.
    fn stopped(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Connects, binds, and runs until the end.
    async fn once(&mut self) -> Down {
        let config = &self.shared.config;
        let tcp = tokio::select! {
            tcp = timeout(config.connect, TcpStream::connect(config.address)) => tcp,
            _ = self.stop.wait_for(|stop| *stop) => return Down::Ended(Ended::Unbound),
        };
        let Ok(Ok(tcp)) = tcp else { return Down::Unreachable };
        // Batches are ours to make, not the kernel's.
        let _ = tcp.set_nodelay(true);
        match config.tls.clone() {
            None => self.serve(tcp).await,
            Some(tls) => {
                let connecting = TlsConnector::from(tls.config).connect(tls.name, tcp);
                match timeout(config.connect, connecting).await {
                    Ok(Ok(stream)) => self.serve(stream).await,
                    Ok(Err(error)) => {
                        tracing::warn!(link = %config.name, %error, "SMPP link: TLS failed");
                        Down::Unreachable
                    }
                    Err(_) => Down::Unreachable,
                }
            }
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(&mut self, mut stream: S) -> Down {
        let config = &self.shared.config;
        let (controls, mut inbox) = mpsc::unbounded_channel();
        let mut session = Session::new(Role::Esme, config.limits, now());
        session.bind(config.bind(self.kind), now());
        let pace = Pace::new(config.rate, config.limits.window);
        let mut bound = Bound {
            shared: self.shared.clone(),
            controls,
            pace,
            outcomes: Vec::new(),
            ended: Ended::Lost,
            since: None,
        };
        let inlets = Inlets { submissions: &mut self.queue, controls: &mut inbox, stop: &mut self.stop };
        pump::run(&mut stream, &mut session, &mut bound, inlets).await;

        let was_up = self.shared.serves(self.kind) && self.shared.up.swap(false, Ordering::AcqRel);
        bound
            .outcomes
            .extend(session.unfinished().map(|(ticket, fate)| Outcome { ticket, verdict: Verdict::unfinished(fate) }));
        bound.flush();
        self.bound_for = bound.since.map_or(Duration::ZERO, |since| now().saturating_duration_since(since));
        let (faults, strays) = session.oddities();
        self.shared.faults.fetch_add(faults, Ordering::Relaxed);
        self.shared.strays.fetch_add(strays, Ordering::Relaxed);
        if was_up {
            self.shared.room.notify_waiters();
        }
        Down::Ended(bound.ended)
    }

    /// Waits, and gives back what is in the queue: it shall not wait for a centre that is away.
    async fn rest(&mut self, pause: Duration) {
        let mut unsent = Vec::new();
        let until = tokio::time::Instant::now() + pause;
        loop {
            while let Ok(submission) = self.queue.try_recv() {
                unsent.push(Outcome { ticket: submission.ticket, verdict: Verdict::Unsent });
            }
            self.shared.finish(&mut unsent);
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                _ = self.stop.wait_for(|stop| *stop) => return,
                Some(submission) = self.queue.recv() => {
                    unsent.push(Outcome { ticket: submission.ticket, verdict: Verdict::Unsent });
                }
            }
        }
    }
}

impl Shared {
    /// Whether this connection makes the link up.
    fn serves(&self, kind: BindKind) -> bool {
        self.config.mode.kinds().first() == Some(&kind)
    }

    /// Hands outcomes up.
    fn finish(&self, outcomes: &mut Vec<Outcome>) {
        if !outcomes.is_empty() {
            self.open.fetch_sub(outcomes.len(), Ordering::Relaxed);
            self.port.outcomes(&self.config.name, outcomes);
            outcomes.clear();
            self.room.notify_waiters();
        }
    }
}

/// The link's side of a session.
struct Bound {
    shared: Arc<Shared>,
    controls: mpsc::UnboundedSender<Control>,
    pace: Pace,
    outcomes: Vec<Outcome>,
    ended: Ended,
    /// When the bind was accepted.
    since: Option<Instant>,
}

impl Owner for Bound {
    fn event(&mut self, event: Event<Ticket>, session: &mut Session<Ticket>, now: Instant) {
        match event {
            Event::Bound(_) => {
                let Some(kind) = session.bound() else { return };
                self.since = Some(now);
                tracing::info!(link = %self.shared.config.name, ?kind, "SMPP link is bound");
                if self.shared.serves(kind) {
                    self.shared.up.store(true, Ordering::Release);
                    self.shared.port.state(&self.shared.config.name, LinkState::Up);
                    self.shared.room.notify_waiters();
                }
            }
            Event::Answered { token: ticket, status, response } => {
                let verdict = Verdict::of(status, response);
                match verdict {
                    Verdict::Again(_) => {
                        self.shared.throttled.fetch_add(1, Ordering::Relaxed);
                        self.pace.throttled(now);
                        session.set_window(self.pace.window());
                    }
                    _ => {
                        self.pace.accepted();
                        session.set_window(self.pace.window());
                    }
                }
                self.outcomes.push(Outcome { ticket, verdict });
            }
            Event::Lapsed { token: ticket } => self.outcomes.push(Outcome { ticket, verdict: Verdict::Unknown }),
            Event::Asked { sequence, request } => {
                let reply = Reply::new(sequence, request.command(), CommandStatus::RX_T_APPN, self.controls.clone());
                self.shared.port.delivered(&self.shared.config.name, request, reply);
            }
            Event::Alert(alert) => self.shared.port.alert(&self.shared.config.name, alert),
            Event::Ended(why) => self.ended = why,
            // A session of ours asks to bind by itself; a centre that sends outbind over it asks for what is on its way.
            Event::OutbindAsked(_) | Event::BindAsked { .. } => {}
        }
    }

    fn allowance(&mut self, session: &Session<Ticket>, now: Instant) -> Result<usize, Option<Instant>> {
        match session.room() {
            0 => Err(None),
            room => self.pace.allowance(now).map(|some| some.min(room)).map_err(Some),
        }
    }

    fn submit(&mut self, submission: Submission, session: &mut Session<Ticket>, now: Instant) {
        self.pace.sent(now);
        match session.request(&submission.request, submission.ticket, now) {
            Ok(()) => {}
            Err((_, ticket)) => self.outcomes.push(Outcome { ticket, verdict: Verdict::Unsent }),
        }
    }

    fn flush(&mut self) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.shared.finish(&mut outcomes);
        self.outcomes = outcomes;
    }

    fn unsent(&mut self, submission: Submission) {
        self.outcomes.push(Outcome { ticket: submission.ticket, verdict: Verdict::Unsent });
    }

    fn stopping(&mut self) {
        self.shared.up.store(false, Ordering::Release);
    }
}
