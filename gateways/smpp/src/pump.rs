//! Puts a connection under a session: one task, which in each turn takes what waits to be sent, writes, and reads.
//!
//! Reading and writing are polled side by side, so that two ends that both write much cannot wait for each other. Everything
//! that is ready is done in one turn: many PDUs to a write, many to a read.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use crate::door::Decision;
use crate::outcome::{Refused, Submission, Ticket};
use crate::reply::Control;
use crate::session::{Event, Session};

/// Read at once.
const READ: usize = 16 * 1024;

/// While a peer does not take this much of what we have for it, nothing more is read from it.
const MAX_PENDING: usize = 256 * 1024;

/// From outside in one turn.
const CONTROLS: usize = 256;

/// For the last words of an ended session.
const PARTING: Duration = Duration::from_secs(1);

/// How long an orderly end waits for the answers that are still to come.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);

/// Whose session it is.
pub(crate) trait Owner: Send {
    fn event(&mut self, event: Event<Ticket>, session: &mut Session<Ticket>, now: Instant);

    /// About a bind; only the door is asked.
    fn decided(&mut self, sequence: u32, decision: Decision, session: &mut Session<Ticket>, now: Instant) {
        let _ = (sequence, decision, session, now);
    }

    /// How many requests may be sent now; when none may for want of time: when to ask again.
    fn allowance(&mut self, session: &Session<Ticket>, now: Instant) -> Result<usize, Option<Instant>>;

    fn submit(&mut self, submission: Submission, session: &mut Session<Ticket>, now: Instant);

    /// After the events of a turn.
    fn flush(&mut self);

    /// Did not get to be sent.
    fn unsent(&mut self, submission: Submission);

    /// Should the session part because `stop` was asked for?
    fn stopping(&mut self) {}
}

/// What comes from outside.
pub(crate) struct Inlets<'a> {
    pub(crate) submissions: &'a mut mpsc::Receiver<Submission>,
    pub(crate) controls: &'a mut mpsc::UnboundedReceiver<Control>,
    pub(crate) stop: &'a mut watch::Receiver<bool>,
}

/// Runs until the session has ended and said its last words.
pub(crate) async fn run<S, O>(stream: &mut S, session: &mut Session<Ticket>, owner: &mut O, inlets: Inlets<'_>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    O: Owner,
{
    let Inlets { submissions, controls, stop } = inlets;
    let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
    let mut batch = Vec::new();
    let mut flushed = true;
    let mut drain_until = None;
    loop {
        let now = now();
        session.elapsed(now);
        while let Some(event) = session.next_event() {
            owner.event(event, session, now);
        }
        owner.flush();
        if session.is_ended() {
            break;
        }
        let (room, mut wake) = match drain_until {
            None => match owner.allowance(session, now) {
                Ok(room) => (room, None),
                Err(when) => (0, when),
            },
            Some(until) => {
                if session.outstanding() == 0 || until <= now {
                    session.unbind(now);
                }
                (0, Some(until).filter(|until| *until > now))
            }
        };
        wake = wake.into_iter().chain(session.deadline()).min();
        // Without a deadline, an hour is as good as any time.
        let wake = tokio::time::Instant::from_std(wake.unwrap_or(now + Duration::from_secs(3600)));
        if sleep.deadline() != wake {
            sleep.as_mut().reset(wake);
        }
        let mut stopped = pin!(stop.wait_for(|stop| *stop));
        let mut ask_to_stop = false;
        let turn = poll_fn(|cx| {
            let mut progress = sleep.as_mut().poll(cx).is_ready();
            for _ in 0..CONTROLS {
                match controls.poll_recv(cx) {
                    Poll::Ready(Some(Control::Respond { sequence, status, response })) => {
                        session.respond(sequence, status, &response);
                    }
                    Poll::Ready(Some(Control::Bind { sequence, decision })) => {
                        owner.decided(sequence, decision, session, now);
                    }
                    Poll::Ready(None) | Poll::Pending => break,
                }
                progress = true;
            }
            if room > 0 && submissions.poll_recv_many(cx, &mut batch, room).is_ready() {
                // Closed and empty is told by the stop.
                progress |= !batch.is_empty();
                for submission in batch.drain(..) {
                    owner.submit(submission, session, now);
                }
            }
            if drain_until.is_none() && stopped.as_mut().poll(cx).is_ready() {
                ask_to_stop = true;
                progress = true;
            }
            progress |= write(stream, session, &mut flushed, cx)?;
            if session.pending().len() < MAX_PENDING {
                session.buffer().reserve(READ);
                match pin!(stream.read_buf(session.buffer())).poll(cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    Poll::Ready(Ok(_)) => {
                        session.received(now);
                        progress = true;
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => {}
                }
            }
            if progress { Poll::Ready(Ok(())) } else { Poll::Pending }
        });
        if let Err(error) = turn.await {
            tracing::debug!(%error, "SMPP connection lost");
            session.lost();
        }
        if ask_to_stop {
            drain_until = Some(now + DRAIN);
            owner.stopping();
            while let Ok(submission) = submissions.try_recv() {
                owner.unsent(submission);
            }
        }
    }
    let parting = async {
        while !session.pending().is_empty() {
            let octets = stream.write(session.pending()).await?;
            session.written(octets);
        }
        stream.shutdown().await
    };
    let _: Result<io::Result<()>, _> = tokio::time::timeout(PARTING, parting).await;
}

/// True when something was written.
fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    session: &mut Session<Ticket>,
    flushed: &mut bool,
    cx: &mut std::task::Context<'_>,
) -> io::Result<bool> {
    let mut progress = false;
    while !session.pending().is_empty() {
        match Pin::new(&mut *stream).poll_write(cx, session.pending()) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(octets)) => {
                session.written(octets);
                *flushed = false;
                progress = true;
            }
            Poll::Ready(Err(e)) => return Err(e),
            Poll::Pending => break,
        }
    }
    if !*flushed && let Poll::Ready(done) = Pin::new(stream).poll_flush(cx) {
        done?;
        *flushed = true;
    }
    Ok(progress)
}

/// The runtime's clock, which tests may stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Puts a submission into a channel, or says why not.
pub(crate) fn offer(to: &mpsc::Sender<Submission>, submission: Submission) -> Result<(), (Refused, Box<Submission>)> {
    to.try_send(submission).map_err(|e| match e {
        mpsc::error::TrySendError::Full(submission) => (Refused::Busy, Box::new(submission)),
        mpsc::error::TrySendError::Closed(submission) => (Refused::Down, Box::new(submission)),
    })
}
