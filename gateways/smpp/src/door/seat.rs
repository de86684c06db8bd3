//! One connection at the door.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::directory::Rate;
use super::{Account, AddressRange, BindAttempt, BindReply, Decision, Esme, Shared, welcome_words};
use crate::outcome::{Outcome, Submission, Ticket, Verdict};
use crate::pace::Pace;
use crate::pdu::{Address, Bind, CommandStatus, Outbind, Request};
use crate::pump::{self, Inlets, Owner, now};
use crate::reply::{Control, Reply};
use crate::session::{Event, Limits, Role, Session};

/// Binds that may fail on one connection before it is closed.
const ATTEMPTS: u8 = 3;

/// Serves an ESME to the end.
pub(super) async fn serve<S>(
    shared: Arc<Shared>,
    mut stream: S,
    peer: SocketAddr,
    encrypted: bool,
    ask: Option<Outbind>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    // Until somebody is bound nothing may be asked but a bind.
    let limits = Limits { window: 0, inbound: 0, ..shared.config.limits };
    let (controls, mut inbox) = mpsc::unbounded_channel();
    let (deliveries, mut queue) = mpsc::channel(shared.config.queue.max(1));
    let mut stop = shared.stop.clone();
    let mut session = Session::new(Role::Centre, limits, now());
    if let Some(outbind) = ask {
        session.outbind(outbind);
    }
    let mut seat = Seat {
        shared,
        peer,
        encrypted,
        controls,
        deliveries: Some(deliveries),
        asked: None,
        failed: 0,
        guest: None,
        outcomes: Vec::new(),
    };
    let inlets = Inlets { submissions: &mut queue, controls: &mut inbox, stop: &mut stop };
    pump::run(&mut stream, &mut session, &mut seat, inlets).await;

    // First out of the directory, so that nothing comes in any more; then what is still in.
    if let Some(guest) = seat.guest.take() {
        seat.shared.directory.leave(&guest.esme);
        seat.shared.port.unbound(&guest.esme);
    }
    queue.close();
    while let Some(submission) = queue.recv().await {
        seat.unsent(submission);
    }
    let unfinished = session.unfinished();
    seat.outcomes.extend(unfinished.map(|(ticket, fate)| Outcome { ticket, verdict: Verdict::unfinished(fate) }));
    seat.flush();
}

struct Seat {
    shared: Arc<Shared>,
    peer: SocketAddr,
    encrypted: bool,
    controls: mpsc::UnboundedSender<Control>,
    /// Until it is in the directory.
    deliveries: Option<mpsc::Sender<Submission>>,
    /// The bind that is being judged.
    asked: Option<Bind>,
    failed: u8,
    guest: Option<Guest>,
    outcomes: Vec<Outcome>,
}

/// Who is bound here.
struct Guest {
    esme: Arc<Esme>,
    account: Account,
    rate: Arc<Rate>,
    pace: Pace,
}

impl Owner for Seat {
    fn event(&mut self, event: Event<Ticket>, session: &mut Session<Ticket>, now: Instant) {
        match event {
            Event::BindAsked { sequence, bind } => {
                self.asked = Some(bind.clone());
                let attempt = BindAttempt { peer: self.peer, encrypted: self.encrypted, bind };
                let reply = BindReply { sequence, to: Some(self.controls.clone()) };
                self.shared.port.authenticate(attempt, reply);
            }
            Event::Asked { sequence, request } => self.asked(sequence, request, session, now),
            Event::Answered { token: ticket, status, response } => {
                let verdict = Verdict::of(status, response);
                if let Some(guest) = &mut self.guest {
                    match verdict {
                        Verdict::Again(_) => guest.pace.throttled(now),
                        _ => guest.pace.accepted(),
                    }
                    session.set_window(guest.pace.window());
                }
                self.outcomes.push(Outcome { ticket, verdict });
            }
            Event::Lapsed { token: ticket } => self.outcomes.push(Outcome { ticket, verdict: Verdict::Unknown }),
            Event::Ended(why) => tracing::debug!(%why, "SMPP session ended"),
            // Only a centre sends these.
            Event::OutbindAsked(_) | Event::Bound(_) | Event::Alert(_) => {}
        }
    }

    fn decided(&mut self, sequence: u32, decision: Decision, session: &mut Session<Ticket>, now: Instant) {
        let Some(bind) = self.asked.take() else { return };
        match decision.and_then(|account| self.seat(account, &bind)) {
            Ok(guest) => {
                session.set_inbound(guest.account.window);
                session.set_window(guest.account.deliver_window);
                session.accept(sequence, welcome_words(&self.shared.config), now);
                tracing::info!(kind = ?bind.kind, session = guest.esme.session, "SMPP: an ESME bound");
                let esme = guest.esme.clone();
                self.guest = Some(guest);
                self.shared.port.bound(&esme);
            }
            Err(status) => {
                tracing::info!(%status, "SMPP: a bind was refused");
                session.refuse(sequence, status);
                self.failed += 1;
                if self.failed >= ATTEMPTS {
                    session.unbind(now);
                }
            }
        }
    }

    fn allowance(&mut self, session: &Session<Ticket>, now: Instant) -> Result<usize, Option<Instant>> {
        match (session.room(), &self.guest) {
            (0, _) | (_, None) => Err(None),
            (room, Some(guest)) => guest.pace.allowance(now).map(|some| some.min(room)).map_err(Some),
        }
    }

    fn submit(&mut self, submission: Submission, session: &mut Session<Ticket>, now: Instant) {
        let Submission { ticket, mut request } = submission;
        if let Some(guest) = &mut self.guest {
            guest.pace.sent(now);
            if guest.esme.interface_version < 0x34 {
                request.strip_tlvs();
            }
        }
        if let Err((_, ticket)) = session.request(&request, ticket, now) {
            self.outcomes.push(Outcome { ticket, verdict: Verdict::Unsent });
        }
    }

    fn flush(&mut self) {
        if !self.outcomes.is_empty() {
            self.shared.port.outcomes(&mut self.outcomes);
            self.outcomes.clear();
        }
    }

    fn unsent(&mut self, submission: Submission) {
        self.outcomes.push(Outcome { ticket: submission.ticket, verdict: Verdict::Unsent });
    }
}

impl Seat {
    /// Gives the ESME its place.
    fn seat(&mut self, account: Account, bind: &Bind) -> Result<Guest, CommandStatus> {
        if !account.may_bind(bind.kind) {
            return Err(CommandStatus::RBINDFAIL);
        }
        // Of whoever takes nothing it says nothing. SMPP has no status for one that cannot be read.
        let range = if bind.kind.receives() { bind.address_range.as_bytes() } else { b"" };
        let range = AddressRange::parse(range).map_err(|unreadable| {
            tracing::info!(%unreadable, "SMPP: a bind is refused");
            CommandStatus::RBINDFAIL
        })?;
        let esme = Arc::new(Esme {
            system_id: account.system_id,
            system_type: bind.system_type,
            address_range: bind.address_range,
            kind: bind.kind,
            interface_version: bind.interface_version,
            peer: self.peer,
            session: self.shared.directory.next_session(),
        });
        let deliveries = self.deliveries.clone().ok_or(CommandStatus::RBINDFAIL)?;
        let rate = self.shared.directory.enter(&account, esme.clone(), range, deliveries)?;
        // From now on the directory's is the only one: when it lets go, the queue can run dry.
        self.deliveries = None;
        let pace = Pace::new(0, account.deliver_window);
        Ok(Guest { esme, account, rate, pace })
    }

    fn asked(&mut self, sequence: u32, mut request: Request, session: &mut Session<Ticket>, now: Instant) {
        let Some(guest) = &self.guest else { return };
        let verdict = if !guest.rate.admits(request.messages(), now) {
            Err(CommandStatus::RTHROTTLED)
        } else {
            guest.account.admit(&mut request)
        };
        match (verdict, request.refusal()) {
            (Err(status), Some(response)) => session.respond(sequence, status, &response),
            _ => {
                let reply = Reply::new(sequence, request.command(), CommandStatus::RSYSERR, self.controls.clone());
                self.shared.port.asked(&guest.esme, request, reply);
            }
        }
    }
}

impl Account {
    /// Checks the source address, and puts the default in where there is none.
    fn admit(&self, request: &mut Request) -> Result<(), CommandStatus> {
        if let Some(source) = request.source_mut() {
            if let (true, Some(own)) = (source.digits.is_empty(), self.default_source) {
                *source = own;
            }
            return self.judge(source.digits.as_bytes());
        }
        match request {
            Request::DataSm(data) => {
                if let (true, Some(Address { ton, npi, digits })) = (data.source.digits.is_empty(), self.default_source)
                    && let Ok(digits) = crate::pdu::COctets::new(digits.as_bytes())
                {
                    data.source = Address { ton, npi, digits };
                }
                self.judge(data.source.digits.as_bytes())
            }
            _ => Ok(()),
        }
    }

    fn judge(&self, source: &[u8]) -> Result<(), CommandStatus> {
        if self.may_send_as(source) { Ok(()) } else { Err(CommandStatus::RINVSRCADR) }
    }
}
