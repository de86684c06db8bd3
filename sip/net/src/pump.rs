//! The task of one byte-stream connection, TCP or TLS: reads into a buffer of its thread, frames, runs the handler, writes.
//!
//! While nothing is unfinished in either direction the task holds no buffer of its own; that is what keeps an idle
//! connection small.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use sip_proto::transport::Transmit;
use sip_proto::{Hop, Outbox};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::carriers::Core;
use crate::connections::{Connection, Mark, Order, tokens};
use crate::counters::Counters;
use crate::flood::Verdict;
use crate::refusal;
use crate::stream::{Frame, FrameError, Framer};

/// One read takes at most that much, in bytes.
const READ: usize = 64 * 1024;
/// Reads before the task lets others run.
const READS: usize = 4;
/// Write buffers up to this size are kept while a connection is idle.
const KEPT: usize = 1024;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// A registered connection; dropping it takes it out of the table and tells the handler.
pub(crate) struct Opened {
    core: Arc<Core>,
    connection: Arc<Connection>,
}

impl Opened {
    pub(crate) fn new(core: Arc<Core>, connection: Arc<Connection>) -> Opened {
        Counters::bump(&core.counters.open[connection.transport as usize]);
        Opened { core, connection }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Gives one whole message to the handler. False when its source is not heard any more.
    pub(crate) fn deliver(&self, now: Instant, bytes: &[u8], out: &mut Outbox) -> bool {
        let verdict = self.core.flood.verdict(now, self.connection.remote);
        if verdict == Verdict::Drop {
            Counters::bump(&self.core.counters.flood_dropped);
            return false;
        }
        self.connection.prove();
        Counters::bump(&self.core.counters.received[self.connection.transport as usize]);
        self.core.deliver(now, &self.connection.flow(), bytes, verdict == Verdict::Refuse, out);
        true
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let tokens = self.connection.close();
        self.core.connections.forget(&self.connection);
        self.core.counters.open[self.connection.transport as usize].fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        // A peer that never said anything is nobody to the handler.
        let known = self.connection.is_proven() || self.connection.outgoing;
        self.core.report_closed(&self.connection.flow(), known, tokens);
    }
}

/// The task. Ends when the connection does.
pub(crate) struct Pump<S> {
    opened: Opened,
    io: S,
    framer: Framer,
    /// Taken from the connection's queue; `bytes[..at]` is written.
    bytes: Vec<u8>,
    marks: Vec<Mark>,
    at: usize,
    /// Written but perhaps still in a TLS buffer.
    unflushed: bool,
    reading: Reading,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    On,
    /// The stream cannot be read on: what comes is thrown away until our answer has left, so that no reset overtakes it.
    Ignored,
    /// The peer sends no more.
    Ended,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pump<S> {
    pub(crate) fn new(opened: Opened, io: S) -> Pump<S> {
        let framer = Framer::new(opened.core.limits.message);
        Pump { opened, io, framer, bytes: Vec::new(), marks: Vec::new(), at: 0, unflushed: false, reading: Reading::On }
    }

    /// Ready when the connection is to be closed.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.at < self.bytes.len() {
                match Pin::new(&mut self.io).poll_write(cx, &self.bytes[self.at..]) {
                    Poll::Ready(Ok(n)) if n > 0 => {
                        self.at += n;
                        self.unflushed = true;
                        continue;
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending if self.opened.connection.is_cut(cx.waker()) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            self.at = 0;
            self.marks.clear();
            self.bytes.clear();
            if self.bytes.capacity() > KEPT {
                self.bytes = Vec::new();
                self.marks = Vec::new();
            }
            match self.opened.connection.take(cx.waker(), &mut self.bytes, &mut self.marks) {
                Order::Write | Order::Ping => {}
                Order::Cut => return Poll::Ready(()),
                order @ (Order::Wait | Order::Finish) => {
                    if self.unflushed {
                        match Pin::new(&mut self.io).poll_flush(cx) {
                            Poll::Ready(Ok(())) => self.unflushed = false,
                            Poll::Ready(Err(_)) => return Poll::Ready(()),
                            Poll::Pending => return Poll::Pending,
                        }
                    }
                    if order == Order::Wait {
                        return Poll::Pending;
                    }
                    let shut = Pin::new(&mut self.io).poll_shutdown(cx);
                    // The sweep cuts a peer that does not close its side too.
                    let done = self.reading != Reading::Ignored || matches!(shut, Poll::Ready(Err(_)));
                    return if done && shut.is_ready() { Poll::Ready(()) } else { Poll::Pending };
                }
            }
        }
    }

    /// Reads once. Ready with false when the connection is to be closed.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.reading == Reading::Ended {
            return Poll::Pending;
        }
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut filled = ReadBuf::new(buffer);
            match Pin::new(&mut self.io).poll_read(cx, &mut filled) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Ready(Ok(())) => {}
            }
            let filled = filled.filled();
            let second = self.opened.core.connections.second(Instant::now());
            if filled.is_empty() {
                // A half-closed peer may still wait for answers.
                self.reading = Reading::Ended;
                self.opened.connection.finish(second);
            } else if self.reading == Reading::On && self.take_in(filled).is_err() {
                self.reading = Reading::Ignored;
                self.opened.connection.finish(second);
            }
            Poll::Ready(true)
        })
    }

    fn take_in(&mut self, filled: &[u8]) -> Result<(), Broken> {
        let now = Instant::now();
        let opened = &self.opened;
        let core = &opened.core;
        let second = core.connections.second(now);
        let mut whole = false;
        let mut heard = true;
        let framed = core.with_outbox(now, |out| {
            self.framer.push(filled, |frame| match frame {
                Frame::Message(bytes) => {
                    whole = true;
                    heard = heard && opened.deliver(now, bytes, out);
                }
                Frame::Ping => {
                    whole = true;
                    Counters::bump(&core.counters.keep_alives);
                    // RFC 5626 §3.5.1: the pong is a single CRLF.
                    let _ = opened.connection.send(second, b"\r\n", Transmit::NO_TOKEN);
                }
                Frame::Unframed(head, error) => {
                    let mut answer = Vec::new();
                    if refusal::bad_request(head, reason(error), &mut answer) {
                        // After the answers to what came before.
                        out.push_bytes(Hop::Flow(opened.connection.flow()), Transmit::NO_TOKEN, &answer);
                    }
                }
            })
        });
        opened.connection.heard(second, whole, self.framer.is_unfinished());
        match framed {
            Ok(()) if heard => Ok(()),
            Ok(()) => Err(Broken),
            Err(error) => {
                tracing::debug!(%error, "a stream broke");
                Counters::bump(&core.counters.garbage);
                core.flood.penalise(now, opened.connection.remote, 5);
                Err(Broken)
            }
        }
    }
}

/// Nothing more is read from this peer.
struct Broken;

/// Reason phrases of the 400.
fn reason(error: FrameError) -> &'static str {
    match error {
        FrameError::MissingContentLength => "Missing Content-Length",
        FrameError::BadContentLength => "Bad Content-Length",
        FrameError::TooLong => "Message Too Long",
        FrameError::NotSip => "Bad Request",
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Pump<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // A read, then the write of its answers, and no more than a few of them before others have their turn: a queue that
        // is filled by this task may be emptied by one that waits for this thread.
        for _ in 0..READS {
            let read = this.read(cx);
            if read == Poll::Ready(false) || this.write(cx).is_ready() {
                return Poll::Ready(());
            }
            if read.is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S> Drop for Pump<S> {
    fn drop(&mut self) {
        // What was taken and not wholly written is as unsent as what is still queued.
        let unsent: Vec<Mark> = self.marks.iter().copied().filter(|m| m.end > self.at).collect();
        self.opened.core.report_closed(&self.opened.connection.flow(), false, tokens(&unsent));
    }
}
