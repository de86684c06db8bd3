//! One connection: its writing side, the sessions on it, and how it ends.

use std::io;
use std::io::IoSlice;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::bridge::{Bridge, Side};
use crate::head::FailureReport;
use crate::lane::Lane;
use crate::range::ByteRange;

/// How long a peer may take nothing of what is written to it.
const STALL: Duration = Duration::from_secs(60);

/// A side of a session.
pub(crate) type Member = (Arc<Bridge>, Side);
pub(crate) type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
pub(crate) type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// What a transaction of ours is about.
pub(crate) enum About {
    /// The first, empty SEND of a session.
    Opening { bridge: Arc<Bridge>, side: Side },
    /// A chunk that `from` sent.
    Chunk { bridge: Arc<Bridge>, from: Side, message_id: Box<[u8]>, range: ByteRange, wants: FailureReport },
}

pub(crate) struct Connection {
    pub(crate) number: u64,
    pub(crate) remote: IpAddr,
    pub(crate) since: Instant,
    /// The certificate that the far end showed.
    pub(crate) shown: Option<CertificateDer<'static>>,
    writer: tokio::sync::Mutex<Writer>,
    sessions: Mutex<SmallVec<[Member; 1]>>,
    /// URIs of ours that its client has as its relay (RFC 4976). While there is one, it stays without sessions too.
    relays: AtomicUsize,
    /// Transactions wait for their response: look now and then.
    pub(crate) waiting: AtomicBool,
    over: AtomicBool,
    ending: Notify,
}

pub(crate) struct Writer {
    io: WriteHalf,
    pub(crate) lane: Lane<About>,
}

/// The connection is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

impl Connection {
    pub(crate) fn new(
        number: u64,
        remote: IpAddr,
        shown: Option<CertificateDer<'static>>,
        io: WriteHalf,
    ) -> Connection {
        Connection {
            number,
            remote,
            since: Instant::now(),
            shown,
            writer: tokio::sync::Mutex::new(Writer { io, lane: Lane::default() }),
            sessions: Mutex::default(),
            relays: AtomicUsize::new(0),
            waiting: AtomicBool::new(false),
            over: AtomicBool::new(false),
            ending: Notify::new(),
        }
    }

    /// Writes one or more whole requests or responses, made under the lock.
    pub(crate) async fn write(&self, make: impl FnOnce(&mut Lane<About>, &mut Vec<u8>)) -> Result<(), Gone> {
        let mut writer = self.writer.lock().await;
        let mut bytes = Vec::with_capacity(512);
        make(&mut writer.lane, &mut bytes);
        self.waiting.store(writer.lane.is_waiting(), Relaxed);
        self.put(&mut writer.io, [&bytes, &[], &[]]).await
    }

    /// Writes a piece of a body between what `make` puts before and after it.
    pub(crate) async fn write_around(
        &self,
        body: &[u8],
        make: impl FnOnce(&mut Lane<About>, &mut Vec<u8>, &mut Vec<u8>) -> Result<(), Gone>,
    ) -> Result<(), Gone> {
        let mut writer = self.writer.lock().await;
        let (mut before, mut after) = (Vec::with_capacity(512), Vec::with_capacity(64));
        make(&mut writer.lane, &mut before, &mut after)?;
        self.waiting.store(writer.lane.is_waiting(), Relaxed);
        self.put(&mut writer.io, [&before, body, &after]).await
    }

    /// The lane alone, without writing. `None` while somebody writes.
    pub(crate) fn try_lane<T>(&self, look: impl FnOnce(&mut Lane<About>) -> T) -> Option<T> {
        let mut writer = self.writer.try_lock().ok()?;
        let told = look(&mut writer.lane);
        self.waiting.store(writer.lane.is_waiting(), Relaxed);
        Some(told)
    }

    pub(crate) async fn lane<T>(&self, look: impl FnOnce(&mut Lane<About>) -> T) -> T {
        let mut writer = self.writer.lock().await;
        let told = look(&mut writer.lane);
        self.waiting.store(writer.lane.is_waiting(), Relaxed);
        told
    }

    async fn put(&self, io: &mut WriteHalf, pieces: [&[u8]; 3]) -> Result<(), Gone> {
        if self.is_over() {
            return Err(Gone);
        }
        let written = async {
            write_all(io, pieces).await?;
            io.flush().await
        };
        let written = tokio::time::timeout(STALL, written);
        let done = tokio::select! {
            biased;
            done = written => done,
            () = self.ended() => return Err(Gone),
        };
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::debug!(connection = self.number, %error, "MSRP connection broke");
                self.end();
                Err(Gone)
            }
            Err(_) => {
                tracing::info!(connection = self.number, "MSRP peer takes nothing: connection closed");
                self.end();
                Err(Gone)
            }
        }
    }

    /// Puts a session on this connection.
    pub(crate) fn add(&self, bridge: Arc<Bridge>, side: Side) {
        self.sessions.lock().push((bridge, side));
    }

    /// Takes a session off; the last one ends the connection, unless its client waits for more by way of our relay.
    pub(crate) fn release(&self, bridge: &Arc<Bridge>) {
        let mut sessions = self.sessions.lock();
        sessions.retain(|(b, _)| !Arc::ptr_eq(b, bridge));
        if sessions.is_empty() && self.relays.load(Relaxed) == 0 {
            self.end();
        }
    }

    /// Its client gets a URI of ours, unless it has `most`.
    pub(crate) fn add_relay(&self, most: usize) -> bool {
        let one_more = |n: usize| (n < most).then_some(n + 1);
        self.relays.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    /// One of them is good no longer.
    pub(crate) fn release_relay(&self) {
        let sessions = self.sessions.lock();
        if self.relays.fetch_sub(1, Relaxed) == 1 && sessions.is_empty() {
            self.end();
        }
    }

    /// All sessions, when the connection is gone.
    pub(crate) fn take_sessions(&self) -> SmallVec<[Member; 1]> {
        std::mem::take(&mut *self.sessions.lock())
    }

    /// Ends it: nothing more is read or written. What is being written while no peer reads is given up.
    pub(crate) fn end(&self) {
        self.over.store(true, Relaxed);
        self.ending.notify_waiters();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    pub(crate) async fn ended(&self) {
        let ending = self.ending.notified();
        tokio::pin!(ending);
        ending.as_mut().enable();
        if !self.is_over() {
            ending.await;
        }
    }

    /// Closes the socket, and gives back the transactions that nobody will answer.
    pub(crate) async fn shut(&self) -> Vec<About> {
        self.end();
        let mut writer = self.writer.lock().await;
        let mut io = std::mem::replace(&mut writer.io, Box::new(tokio::io::sink()));
        let unanswered = writer.lane.drain().collect();
        drop(writer);
        // A peer that does not take the end is left to the system.
        let _ = tokio::time::timeout(Duration::from_secs(1), io.shutdown()).await;
        unanswered
    }
}

async fn write_all(io: &mut WriteHalf, pieces: [&[u8]; 3]) -> io::Result<()> {
    let mut slices = pieces.map(IoSlice::new);
    let mut left = &mut slices[..];
    // Empty ones in front would look like a closed peer.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        let written = std::future::poll_fn(|cx| Pin::new(&mut *io).poll_write_vectored(cx, left)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut left, written);
    }
    Ok(())
}
