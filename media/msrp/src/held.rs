//! Messages that are held until somebody has judged them: the far end gets no byte before that.
//!
//! Chunks are answered as they come. A whole message is judged, and then passed on as it was sent, or refused: its sender gets
//! a REPORT, and the far end a word instead of the message, or the sign that no more of it comes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::assembly::{ABANDONED, MAX_OPEN, Refused};
use crate::bridge::{Bridge, Far, Paths, Side};
use crate::connection::{About, Connection, Gone};
use crate::counts::Counts;
use crate::head::FailureReport;
use crate::lane::Chunk;
use crate::local::PHONE;
use crate::range::{ByteRange, Covered, MAX_POSITION};
use crate::reader::Flag;
use crate::spool::{Pool, Spool};
use crate::switch::Switch;
use crate::write::{self, TransactionId, letters};

/// Whole messages of one side that wait for their verdict; the sender waits with the next.
const MAX_WAITING: usize = 4;
/// How long a message waits for the other leg's connection.
const REACH_WAIT: Duration = Duration::from_secs(20);
/// Bytes that are read and written in one go.
const PIECE: usize = 64 << 10;
/// Chunks up to this many bytes say where they end (RFC 4975 §7.1.1).
const UNINTERRUPTED: u64 = 2048;

/// Judges what one side of a session sends.
pub trait Inspector: Send + Sync {
    /// Asked at the head of a chunk: what the message is, and how long, if that was said. `Err` refuses it at once.
    fn admits(&self, content_type: &[u8], size: Option<u64>) -> Result<(), Withheld>;

    /// Bytes of the longest message.
    fn max_size(&self) -> u64;

    /// Judges a whole message.
    fn judge(self: Arc<Self>, message: Arc<Held>) -> Judged;
}

/// A judgement that is yet to come.
pub type Judged = Pin<Box<dyn Future<Output = Judgement> + Send>>;

/// What becomes of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Judgement {
    Passes,
    Refused(Withheld),
}

/// What is said of a message that nobody gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Withheld {
    /// For its sender.
    pub status: u16,
    /// For the addressee, as the type and the text of a message; `None`: only that nothing more comes.
    pub notice: Option<(Box<[u8]>, Vec<u8>)>,
}

/// A whole message that waits.
#[derive(Debug)]
pub struct Held {
    message_id: Box<[u8]>,
    content_type: Box<[u8]>,
    /// Lines that stand before Byte-Range, and after it.
    headers: Box<[u8]>,
    content: Box<[u8]>,
    wants: FailureReport,
    /// Its sender wants to hear that it arrived.
    success: bool,
    spool: Spool,
}

impl Held {
    pub fn message_id(&self) -> &[u8] {
        &self.message_id
    }

    pub fn content_type(&self) -> &[u8] {
        &self.content_type
    }

    pub fn len(&self) -> u64 {
        self.spool.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some bytes from `at` on, which counts from 0; none at the end.
    pub async fn read(&self, at: u64) -> io::Result<Vec<u8>> {
        self.spool.read(at, PIECE).await
    }

    fn about(&self, bridge: &Arc<Bridge>, from: Side) -> About {
        let total = self.len();
        About::Chunk {
            bridge: bridge.clone(),
            from,
            message_id: self.message_id.clone(),
            range: ByteRange { start: 1, end: Some(total), total: Some(total) },
            wants: self.wants,
        }
    }
}

/// What a side sends, while it is not whole.
pub(crate) struct Custody {
    pub(crate) inspector: Arc<dyn Inspector>,
    pool: Arc<Pool>,
    /// Bytes of the longest message, which nobody's configuration makes larger than the switch's.
    most: u64,
    /// What passes has arrived.
    pub(crate) ends_here: bool,
    open: Mutex<Vec<Partial>>,
    whole: mpsc::Sender<Held>,
    /// Whole messages that are neither passed on nor refused.
    waiting: Arc<AtomicUsize>,
}

/// A message of which some chunks have come.
pub(crate) struct Partial {
    held: Held,
    covered: Covered,
    total: Option<u64>,
    touched: Instant,
}

/// The head of a chunk.
pub(crate) struct First<'a> {
    pub message_id: &'a [u8],
    pub content_type: &'a [u8],
    pub headers: Vec<u8>,
    pub content: Vec<u8>,
    pub range: ByteRange,
    pub wants: FailureReport,
    pub success: bool,
    pub at: Instant,
}

/// A chunk whose bytes come now.
pub(crate) struct Keeping {
    bridge: Arc<Bridge>,
    side: Side,
    partial: Partial,
    /// The next byte, from 1.
    position: u64,
}

impl Switch {
    /// Has everything that `side` sends judged from now on. Once for each side.
    pub fn inspect(self: &Arc<Self>, bridge: &Arc<Bridge>, side: Side, inspector: Arc<dyn Inspector>) {
        self.hold(bridge, side, inspector, false);
    }

    /// The same for a session that ends here, whose messages are too long for [`LocalEnd`](crate::LocalEnd): what passes has
    /// arrived.
    pub fn take_by(self: &Arc<Self>, bridge: &Arc<Bridge>, inspector: Arc<dyn Inspector>) {
        self.hold(bridge, PHONE, inspector, true);
    }

    fn hold(self: &Arc<Self>, bridge: &Arc<Bridge>, side: Side, inspector: Arc<dyn Inspector>, ends_here: bool) {
        let (whole, judging) = mpsc::channel(MAX_WAITING);
        let waiting = Arc::<AtomicUsize>::default();
        let custody = Custody {
            inspector: inspector.clone(),
            pool: self.pool.clone(),
            most: inspector.max_size().min(self.max_message()).min(MAX_POSITION),
            ends_here,
            open: Mutex::default(),
            whole,
            waiting: waiting.clone(),
        };
        if bridge.leg(side).custody.set(Box::new(custody)).is_ok() {
            let ends = (Arc::downgrade(self), Arc::downgrade(bridge));
            self.runtime.spawn(judge(ends, side, (inspector, ends_here), judging, waiting));
        }
    }
}

impl Custody {
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// A chunk begins. What does not pass by what it says of itself is refused before a byte of it is kept.
    pub(crate) fn begin(
        &self,
        bridge: &Arc<Bridge>,
        side: Side,
        first: First<'_>,
        switch: &Arc<Switch>,
    ) -> Result<Keeping, u16> {
        let (range, now) = (first.range, first.at);
        if let Err(withheld) = self.inspector.admits(first.content_type, range.total) {
            bridge.leg(side).stop(first.message_id);
            let status = withheld.status;
            let held = self.fresh(first).held;
            let (switch, bridge) = (switch.clone(), bridge.clone());
            // The far end may not be reading: nobody else waits for it.
            switch.runtime.clone().spawn(async move { switch.withhold(&bridge, side, &held, withheld.notice).await });
            return Err(status);
        }
        let most = self.most;
        if range.total.is_some_and(|t| t > most) || range.end.is_some_and(|e| e > most) || range.start > most + 1 {
            return Err(Refused::TooLong.status());
        }
        let mut open = self.open.lock();
        open.retain(|p| now < p.touched + ABANDONED);
        let known = open.iter().position(|p| *p.held.message_id == *first.message_id);
        let mut partial = match known {
            Some(at) => open.swap_remove(at),
            None if open.len() == MAX_OPEN => return Err(Refused::Scattered.status()),
            None => self.fresh(first),
        };
        if range.total.is_some_and(|t| partial.total.is_some_and(|known| known != t)) {
            return Err(Refused::Contradicts.status());
        }
        partial.total = partial.total.or(range.total);
        partial.touched = now;
        Ok(Keeping { bridge: bridge.clone(), side, partial, position: range.start })
    }

    fn fresh(&self, first: First<'_>) -> Partial {
        Partial {
            total: first.range.total,
            held: Held {
                message_id: first.message_id.into(),
                content_type: first.content_type.into(),
                headers: first.headers.into(),
                content: first.content.into(),
                wants: first.wants,
                success: first.success,
                spool: Spool::new(self.pool.clone()),
            },
            covered: Covered::default(),
            touched: first.at,
        }
    }

    async fn end(&self, keeping: Keeping, flag: Flag) {
        let Keeping { mut partial, position, .. } = keeping;
        if flag == Flag::Aborted {
            return;
        }
        if flag == Flag::Complete && partial.total.is_none() {
            partial.total = Some(position - 1);
        }
        if !partial.total.is_some_and(|t| partial.covered.is_whole(t)) {
            return self.open.lock().push(partial);
        }
        self.waiting.fetch_add(1, Relaxed);
        if self.whole.send(partial.held).await.is_err() {
            // The switch is gone.
            self.waiting.fetch_sub(1, Relaxed);
        }
    }
}

impl Keeping {
    /// A piece of the chunk's body. `Err`: the status that ends it; nothing more of the message is taken.
    pub(crate) async fn piece(&mut self, bytes: &[u8]) -> Result<(), u16> {
        let taken = self.take(bytes).await;
        if taken.is_err() {
            self.bridge.leg(self.side).stop(&self.partial.held.message_id);
        }
        taken
    }

    /// The chunk has ended. A message that is whole now waits for its verdict, and its sender with it when too many do.
    pub(crate) async fn end(self, flag: Flag) {
        let bridge = self.bridge.clone();
        if let Some(custody) = bridge.leg(self.side).custody.get() {
            custody.end(self, flag).await;
        }
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<(), u16> {
        let most = self.bridge.leg(self.side).custody.get().map_or(0, |c| c.most);
        let start = self.position;
        let end = start - 1 + bytes.len() as u64;
        if end > most {
            return Err(Refused::TooLong.status());
        }
        if self.partial.total.is_some_and(|total| end > total) {
            return Err(Refused::Contradicts.status());
        }
        self.partial.covered.add(start, bytes.len() as u64).map_err(|_| Refused::Scattered.status())?;
        if let Err(error) = self.partial.held.spool.write(start - 1, bytes).await {
            tracing::warn!(%error, "a message could not be held");
            return Err(if error.kind() == io::ErrorKind::QuotaExceeded { 413 } else { 408 });
        }
        self.position = end + 1;
        Ok(())
    }
}

/// Judges what is whole, one after the other, for as long as the session lives.
async fn judge(
    (switch, bridge): (Weak<Switch>, Weak<Bridge>),
    side: Side,
    (inspector, ends_here): (Arc<dyn Inspector>, bool),
    mut whole: mpsc::Receiver<Held>,
    waiting: Arc<AtomicUsize>,
) {
    while let Some(held) = whole.recv().await {
        let held = Arc::new(held);
        let judgement = inspector.clone().judge(held.clone()).await;
        let (Some(switch), Some(bridge)) = (switch.upgrade(), bridge.upgrade()) else { return };
        match judgement {
            Judgement::Passes if ends_here => {
                Counts::add(&switch.counts().received, 1);
                switch.arrived(&bridge, side, &held).await;
            }
            Judgement::Passes => match (switch.pass_on(&bridge, side, &held).await, bridge.leg(side).tap.get()) {
                (Ok(()), Some(tap)) => tap.passed(&held).await,
                (Ok(()), None) => {}
                (Err(status), _) => switch.failed(held.about(&bridge, side), status),
            },
            Judgement::Refused(Withheld { status, notice }) => {
                switch.failed(held.about(&bridge, side), status);
                switch.withhold(&bridge, side, &held, notice).await;
            }
        }
        waiting.fetch_sub(1, Relaxed);
    }
}

/// Who gets a message that passes.
struct Target {
    connection: Arc<Connection>,
    paths: Paths,
    owner: u64,
}

impl Switch {
    async fn target(&self, bridge: &Arc<Bridge>, from: Side) -> Result<Target, u16> {
        match tokio::time::timeout(REACH_WAIT, bridge.reach(from.other())).await {
            Ok(Some(Far::Connection(connection, paths))) => Ok(Target { connection, paths, owner: self.number() }),
            Ok(Some(Far::Local) | None) => Err(481),
            Err(_) => Err(408),
        }
    }

    /// Says so to its sender, if that wants to hear it.
    async fn arrived(&self, bridge: &Arc<Bridge>, from: Side, held: &Held) {
        let reached = tokio::time::timeout(REACH_WAIT, bridge.reach(from)).await;
        if let (true, Ok(Some(Far::Connection(sender, paths)))) = (held.success, reached) {
            let total = held.len();
            let range = ByteRange { start: 1, end: Some(total), total: Some(total) };
            let told = sender.write(|lane, out| {
                lane.interject(Instant::now(), out);
                let id = TransactionId::new(rand::random());
                write::report(out, &id, [&paths.to, &paths.from], &held.message_id, range, 200);
            });
            // A phone that is gone needs no report.
            let _ = told.await;
        }
    }

    async fn pass_on(&self, bridge: &Arc<Bridge>, from: Side, held: &Held) -> Result<(), u16> {
        let target = self.target(bridge, from).await?;
        let total = held.len();
        let mut at = 0;
        loop {
            let piece = held.read(at).await.map_err(|error| {
                tracing::warn!(%error, "a held message cannot be read");
                408u16
            })?;
            let last = at + piece.len() as u64 == total;
            let end = last.then_some(Flag::Complete);
            self.write_piece(bridge, from, held, &target, at, &piece, end).await.map_err(|Gone| 481u16)?;
            at += piece.len() as u64;
            if last {
                break;
            }
        }
        let counts = self.counts();
        Counts::add(&counts.bytes, total);
        Counts::add(&counts.messages, 1);
        Ok(())
    }

    /// The far end hears that something does not come.
    async fn withhold(&self, bridge: &Arc<Bridge>, from: Side, held: &Held, notice: Option<(Box<[u8]>, Vec<u8>)>) {
        Counts::add(&self.counts().withheld, 1);
        if bridge.leg(from.other()).local.is_some() {
            return;
        }
        // One that is gone need not.
        let _ = match notice {
            Some(notice) => self.tell_instead(bridge, from, notice).await,
            None => self.give_up(bridge, from, held).await,
        };
    }

    /// The far end hears that a message was under way, and that no more of it comes.
    async fn give_up(&self, bridge: &Arc<Bridge>, from: Side, held: &Held) -> Result<(), u16> {
        let target = self.target(bridge, from).await?;
        let end = Some(Flag::Aborted);
        self.write_piece(bridge, from, held, &target, 0, b"", end).await.map_err(|Gone| 481)
    }

    async fn tell_instead(
        &self,
        bridge: &Arc<Bridge>,
        from: Side,
        (content_type, text): (Box<[u8]>, Vec<u8>),
    ) -> Result<(), u16> {
        let (mut headers, mut content) = (Vec::new(), Vec::new());
        let message_id = letters::<16>(rand::random());
        write::line(&mut headers, "Message-ID", &message_id);
        write::line(&mut headers, "Failure-Report", b"no");
        write::line(&mut content, "Content-Type", &content_type);
        let mut spool = Spool::new(self.pool.clone());
        spool.write(0, &text).await.map_err(|_| 408u16)?;
        let held = Held {
            message_id: message_id.into(),
            content_type,
            headers: headers.into(),
            content: content.into(),
            wants: FailureReport::No,
            success: false,
            spool,
        };
        self.pass_on(bridge, from, &held).await
    }

    #[expect(clippy::too_many_arguments, reason = "one piece of one message, and where it goes")]
    async fn write_piece(
        &self,
        bridge: &Arc<Bridge>,
        from: Side,
        held: &Held,
        target: &Target,
        at: u64,
        piece: &[u8],
        end: Option<Flag>,
    ) -> Result<(), Gone> {
        let (total, last) = (held.len(), at + piece.len() as u64);
        let sent = target.connection.write_around(piece, |lane, before, after| {
            let now = Instant::now();
            if !lane.holds(target.owner) {
                if lane.is_full() {
                    target.connection.end();
                    return Err(Gone);
                }
                let whole = end == Some(Flag::Complete) && last - at <= UNINTERRUPTED;
                let range = ByteRange { start: at + 1, end: whole.then_some(last), total: Some(total) };
                let (headers, content) = (&held.headers, &held.content);
                let chunk = Chunk { to_path: &target.paths.to, from_path: &target.paths.from, headers, content };
                // Chosen when the body is long there: none of its bytes were made against it.
                let id = TransactionId::new(rand::random());
                let mut about = held.about(bridge, from);
                if let About::Chunk { range: told, .. } = &mut about {
                    *told = range;
                }
                lane.begin(now, before, target.owner, id, &chunk, range, held.wants, about);
            }
            if let Some(About::Chunk { range, .. }) = lane.about_mut(target.owner) {
                range.end = Some(last);
            }
            if let Some(flag) = end {
                lane.end(now, after, target.owner, flag);
            }
            Ok(())
        });
        sent.await?;
        if end.is_some() {
            Counts::add(&self.counts().chunks, 1);
        }
        Ok(())
    }

    /// Sends a message of any length to the phone of a session that ends here. `media_type`, `disposition`: on one line.
    pub async fn send_long(
        &self,
        bridge: &Arc<Bridge>,
        media_type: &str,
        disposition: Option<&str>,
        bytes: impl Stream<Item = Result<impl AsRef<[u8]>, String>>,
    ) -> Result<(), u16> {
        let (mut headers, mut content) = (Vec::new(), Vec::new());
        let message_id = letters::<16>(rand::random());
        write::line(&mut headers, "Message-ID", &message_id);
        write::line(&mut headers, "Success-Report", b"yes");
        if let Some(disposition) = disposition {
            write::line(&mut content, "Content-Disposition", disposition.as_bytes());
        }
        write::line(&mut content, "Content-Type", media_type.as_bytes());
        let mut spool = Spool::new(self.pool.clone());
        futures_util::pin_mut!(bytes);
        while let Some(piece) = bytes.next().await {
            let piece = piece.map_err(|_| 408u16)?;
            spool.write(spool.len(), piece.as_ref()).await.map_err(|_| 408u16)?;
        }
        let held = Held {
            message_id: message_id.into(),
            content_type: media_type.as_bytes().into(),
            headers: headers.into(),
            content: content.into(),
            wants: FailureReport::Yes,
            success: true,
            spool,
        };
        Counts::add(&self.counts().sent, 1);
        self.pass_on(bridge, PHONE.other(), &held).await
    }

    /// A message that ends here, judged before its end hears of it.
    pub(crate) async fn judge_local(&self, inspector: &Arc<dyn Inspector>, content_type: &[u8], body: &[u8]) -> u16 {
        let mut spool = Spool::new(self.pool.clone());
        if spool.write(0, body).await.is_err() {
            return 408;
        }
        let held = Held {
            message_id: Box::default(),
            content_type: content_type.into(),
            headers: Box::default(),
            content: Box::default(),
            wants: FailureReport::No,
            success: false,
            spool,
        };
        match inspector.clone().judge(Arc::new(held)).await {
            Judgement::Passes => 200,
            Judgement::Refused(withheld) => {
                Counts::add(&self.counts().withheld, 1);
                withheld.status
            }
        }
    }
}
