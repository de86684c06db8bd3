//! Our stream to one domain.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::Rng;
use rustls_pki_types::ServerName;
use sip_ims::Msisdn;
use sip_ims::bearer::Carried;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::wire::Wire;
use super::{Aside, MAX_ASIDE, Message, PATIENCE, Said, Shared, stopped};
use crate::message::{self, Refusal};
use crate::outgoing::{Action, Closed, Outgoing};
use crate::stream::Fault;

/// Messages that one ping proves: those that may come twice after a crash.
const WINDOW: usize = 64;
/// How long a stream, or a task without one, is kept for what may come.
const IDLE: Duration = Duration::from_secs(5 * 60);
/// To one address.
const CONNECT: Duration = Duration::from_secs(10);
/// Between attempts to reach a domain: at first, and at most. Each is drawn from the upper half.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Attempts for those who are owed something; afterwards their next text makes another one.
const ATTEMPTS: u32 = 100;
/// Users who are remembered to be owed something.
const MAX_OWED: usize = 10_000;
/// Keys that are asked about at a time.
const MAX_ASKED: usize = 64;

pub(super) struct Task {
    shared: Arc<Shared>,
    name: Box<str>,
    messages: mpsc::Receiver<Message>,
    aside: mpsc::Receiver<Aside>,
    said: mpsc::Receiver<Said>,
    stop: watch::Receiver<bool>,
    owed: Owed,
    pause: Duration,
    /// In a row.
    failures: u32,
}

/// Users whose texts were not taken, to be told of when the domain is back.
#[derive(Default)]
struct Owed(HashSet<Msisdn>);

impl Owed {
    /// It is dropped, and so told to be for later.
    fn put_off(&mut self, message: Message) {
        if self.0.len() < MAX_OWED {
            self.0.extend(message.msn);
        }
    }
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no address is found")]
    Unresolved,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// What is under way over a stream.
#[derive(Default)]
struct Underway {
    is_secured: bool,
    is_ready: bool,
    /// Not written yet.
    next: VecDeque<Message>,
    /// Written, and not proved to be taken; the id of the ping that does it.
    window: Vec<Message>,
    ping: Option<String>,
    /// Answers to their stanzas, until the stream is ready.
    replies: VecDeque<Vec<u8>>,
    asked: Vec<Question>,
}

/// About a key.
struct Question {
    stream: String,
    key: String,
    answer: oneshot::Sender<bool>,
    is_written: bool,
}

impl Task {
    pub fn new(
        shared: Arc<Shared>,
        name: &str,
        messages: mpsc::Receiver<Message>,
        aside: mpsc::Receiver<Aside>,
        said: mpsc::Receiver<Said>,
    ) -> Task {
        let stop = shared.stop.subscribe();
        let (name, owed, pause) = (name.into(), Owed::default(), PAUSES.0);
        Task { shared, name, messages, aside, said, stop, owed, pause, failures: 0 }
    }

    /// Until there has been nothing to do for a while.
    pub async fn run(mut self) {
        let mut underway = Underway::default();
        loop {
            if self.owed.0.is_empty() && !underway.has_work() {
                tokio::select! {
                    () = stopped(&mut self.stop) => break,
                    Some(message) = self.messages.recv() => underway.next.push_back(message),
                    Some(aside) = self.aside.recv() => underway.aside(aside),
                    () = sleep(IDLE) => if self.leave() { return },
                }
                continue;
            }
            let ended = self.stream(&mut underway).await;
            if *self.stop.borrow() {
                break;
            }
            if underway.is_ready {
                self.shared.counts.outgoing.fetch_sub(1, Relaxed);
            } else {
                self.shared.counts.failed_outgoing.fetch_add(1, Relaxed);
            }
            underway.window.drain(..).chain(underway.next.drain(..)).for_each(|message| self.owed.put_off(message));
            underway = Underway::default();
            if let Err(failure) = ended {
                tracing::info!(domain = %self.name, %failure, "no XMPP stream");
                self.wait().await;
            }
        }
        // Who is not in the table gets nothing more. What is here is dropped, and so told to be for later.
        self.shared.domains.lock().remove(&self.name);
    }

    /// Out of the table, unless something came.
    fn leave(&self) -> bool {
        let mut domains = self.shared.domains.lock();
        let is_idle = self.messages.is_empty() && self.aside.is_empty();
        if is_idle {
            domains.remove(&self.name);
        }
        is_idle
    }

    /// Before the next attempt. Messages are told at once that it is for later; but who wants to prove itself to us is there.
    async fn wait(&mut self) {
        self.failures += 1;
        if self.failures >= ATTEMPTS {
            self.owed = Owed::default();
        }
        let until = Instant::now() + self.pause.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.pause = (self.pause * 2).min(PAUSES.1);
        let soonest = Instant::now() + PAUSES.0 / 2;
        loop {
            let deadline = if self.aside.is_empty() { until } else { soonest };
            tokio::select! {
                () = stopped(&mut self.stop) => return,
                Some(message) = self.messages.recv() => self.owed.put_off(message),
                () = sleep_until(deadline) => return,
                () = sleep(PAUSES.0 / 4) => {}
            }
        }
    }

    /// One stream, from the connect to its end. An error unless it was ready and ended with nothing left to prove.
    async fn stream(&mut self, underway: &mut Underway) -> Result<(), Failure> {
        let shared = self.shared.clone();
        let mut wire = Wire::Plain(self.connect().await?);
        let mut actions = Vec::new();
        let mut machine = Outgoing::open(&shared.config.domain, &self.name, shared.keys.clone(), &mut actions);
        let mut deadline = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 4096];
        loop {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Send(bytes) => wire.write(&bytes, PATIENCE).await?,
                    Action::StartTls => {
                        wire = self.encrypt(wire).await?;
                        machine.secured(&mut actions);
                    }
                    Action::Secured => underway.is_secured = true,
                    Action::Ready => {
                        underway.is_ready = true;
                        deadline = Instant::now() + IDLE;
                        shared.counts.outgoing.fetch_add(1, Relaxed);
                        tracing::info!(domain = %self.name, "XMPP stream");
                        self.owed.0.drain().for_each(|msn| (shared.parts.returned)(msn));
                    }
                    Action::Verified { stream, valid } => underway.verified(&stream, valid),
                    Action::Closed(closed) => {
                        wire.close().await;
                        let is_peace = closed == Closed::Ended && underway.is_ready && underway.window.is_empty();
                        return if is_peace { Ok(()) } else { Err(closed.into()) };
                    }
                }
            }
            if underway.fill(&shared, &self.name, &machine, &mut actions) {
                deadline = Instant::now() + PATIENCE;
            }
            if !actions.is_empty() {
                continue;
            }
            tokio::select! {
                () = stopped(&mut self.stop) => machine.fault(Fault::SystemShutdown, &mut actions),
                () = sleep_until(deadline) => match underway.is_ready && underway.window.is_empty() {
                    true => machine.end(&mut actions),
                    false => machine.fault(Fault::ConnectionTimeout, &mut actions),
                },
                Some(message) = self.messages.recv(), if underway.next.len() < WINDOW => {
                    underway.next.push_back(message);
                }
                Some(aside) = self.aside.recv() => underway.aside(aside),
                Some(said) = self.said.recv() => {
                    if underway.said(said) {
                        deadline = Instant::now() + IDLE;
                        // A server that lets in and drops at once is not to be hurried.
                        (self.pause, self.failures) = (PAUSES.0, 0);
                    }
                }
                read = wire.read(&mut buffer) => match read? {
                    0 => actions.push(Action::Closed(Closed::Ended)),
                    n => machine.received(&buffer[..n], &mut actions),
                },
            }
        }
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let addresses = match self.shared.config.routes.get(&*self.name) {
            Some(route) => vec![route.address],
            None => (self.shared.parts.servers)(self.name.to_string()).await,
        };
        let mut last = Failure::Unresolved;
        for address in addresses {
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error.into(),
                Err(late) => last = io::Error::from(late).into(),
            }
        }
        Err(last)
    }

    async fn encrypt(&self, wire: Wire) -> Result<Wire, Failure> {
        // A machine asks for it once.
        let Wire::Plain(stream) = wire else { return Ok(wire) };
        let verify = self.shared.config.routes.get(&*self.name).is_none_or(|route| route.verify);
        let config = if verify { &self.shared.parts.client } else { &self.shared.parts.unverified };
        let name = ServerName::try_from(self.name.to_string()).map_err(io::Error::other)?;
        let connecting = TlsConnector::from(config.clone()).connect(name, stream);
        let secure = timeout(PATIENCE, connecting).await.map_err(io::Error::from)??;
        Ok(Wire::Secure(Box::new(secure.into())))
    }
}

impl Underway {
    fn has_work(&self) -> bool {
        !self.next.is_empty() || !self.replies.is_empty() || !self.asked.is_empty()
    }

    /// Beyond the bounds it is dropped: a question without an answer is one that says no.
    fn aside(&mut self, aside: Aside) {
        match aside {
            Aside::Verify { stream, key, answer } if self.asked.len() < MAX_ASKED => {
                self.asked.push(Question { stream, key, answer, is_written: false });
            }
            Aside::Reply(bytes) if self.replies.len() < MAX_ASIDE => self.replies.push_back(bytes),
            _ => {}
        }
    }

    /// Writes what can be written by now. True when that includes messages, to be proved.
    fn fill(&mut self, shared: &Shared, name: &str, machine: &Outgoing, out: &mut Vec<Action>) -> bool {
        if self.is_secured {
            for question in self.asked.iter_mut().filter(|question| !question.is_written) {
                question.is_written = true;
                machine.verify(&question.stream, &question.key, out);
            }
        }
        if !self.is_ready {
            return false;
        }
        shared.counts.sent.fetch_add(self.replies.len() as u64, Relaxed);
        out.extend(self.replies.drain(..).map(Action::Send));
        if !self.window.is_empty() || self.next.is_empty() {
            return false;
        }
        let ping = shared.stanza_id();
        let mut bytes = Vec::new();
        self.window.extend(self.next.drain(..));
        self.window.iter().for_each(|message| bytes.extend_from_slice(&message.bytes));
        bytes.extend_from_slice(&message::write_ping(&shared.config.domain, name, &ping));
        self.ping = Some(ping);
        shared.counts.sent.fetch_add(self.window.len() as u64 + 1, Relaxed);
        out.push(Action::Send(bytes));
        true
    }

    fn verified(&mut self, stream: &str, valid: bool) {
        if let Some(at) = self.asked.iter().position(|question| question.is_written && question.stream == stream) {
            // Who asked may have gone.
            _ = self.asked.swap_remove(at).answer.send(valid);
        }
    }

    /// True when the messages under way are proved.
    fn said(&mut self, said: Said) -> bool {
        match said {
            Said::Answered(id) if self.ping.as_ref() == Some(&id) => {
                self.ping = None;
                self.window.drain(..).for_each(|message| message.answer.say(Carried::Taken));
                true
            }
            Said::Answered(_) => false,
            Said::Refused(id, refusal) => {
                if let Some(at) = self.window.iter().position(|message| message.id == id) {
                    let carried = match refusal {
                        Refusal::ForNow => Carried::Later,
                        Refusal::Final => Carried::Refused,
                    };
                    self.window.remove(at).answer.say(carried);
                }
                false
            }
        }
    }
}
