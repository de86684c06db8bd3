//! Sessions that end in this process: what a phone sends is received whole, and what is sent to it is cut into chunks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memmem;
use parking_lot::Mutex;

use crate::assembly::{Assembly, Whole};
use crate::bridge::{Bridge, Far, Leg, LegState, Side};
use crate::connection::{About, Connection, Gone};
use crate::counts::Counts;
use crate::head::FailureReport;
use crate::lane::Chunk;
use crate::range::ByteRange;
use crate::reader::Flag;
use crate::switch::{Address, Full, Switch};
use crate::write::{self, TransactionId};

/// The side of such a session that is a phone's; the other one is ours.
pub const PHONE: Side = Side::Caller;

/// Bytes between which a message to a phone lets others through (RFC 4975 §7.1.1).
const PIECE: usize = 2048;
/// How long a message waits for its phone's connection.
const REACH_WAIT: Duration = Duration::from_secs(20);

/// What stands at our end of a session.
pub trait LocalEnd: Send + Sync {
    /// A whole message. Its last chunk is answered with the status that this gives: 200 when it is safe, 413 or 415 and the
    /// like when it is not taken. No other request of the session is read meanwhile.
    fn received(self: Arc<Self>, message: Whole) -> Answered;

    /// A NICKNAME request (RFC 7701 §7.1); `name` without its quotes, `None` if it cannot be read.
    fn nickname(&self, name: Option<&str>) -> u16 {
        let _ = name;
        501
    }

    /// A message that was sent has arrived (200), or failed.
    fn reported(&self, message_id: &[u8], status: u16) {
        let _ = (message_id, status);
    }

    /// The phone's connection is gone. Once, unless a new description brings it back.
    fn down(&self) {}
}

/// A status that is yet to come.
pub type Answered = Pin<Box<dyn Future<Output = u16> + Send>>;

/// A message to a phone.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// 4 to 32 letters and digits.
    pub message_id: Box<[u8]>,
    /// A media type on one line.
    pub content_type: Box<[u8]>,
    pub body: Arc<[u8]>,
    /// Whether [`LocalEnd::reported`] is to hear that it arrived.
    pub success_report: bool,
}

pub(crate) struct Local {
    pub(crate) end: Arc<dyn LocalEnd>,
    pub(crate) assembly: Mutex<Assembly>,
}

impl Switch {
    /// Makes a session between a phone and `end`, which takes messages of up to `max` bytes. `name` is for logs and traces.
    /// [`Switch::describe`] tells about [`PHONE`].
    pub fn open_local(
        &self,
        name: &str,
        address: Address,
        end: Arc<dyn LocalEnd>,
        max: usize,
    ) -> Result<Arc<Bridge>, Full> {
        let local = Local { end, assembly: Mutex::new(Assembly::new(max)) };
        self.insert(name, address, address, Some(Box::new(local)))
    }

    /// Sends a message to the phone of such a session; waits while the phone takes nothing. One at a time for each session, for
    /// their order.
    pub async fn send(&self, bridge: &Arc<Bridge>, message: &Outgoing) -> Result<(), Gone> {
        let reached = tokio::time::timeout(REACH_WAIT, bridge.reach(PHONE)).await;
        let Ok(Some(Far::Connection(connection, paths))) = reached else { return Err(Gone) };
        let mut headers = Vec::new();
        write::line(&mut headers, "Message-ID", &message.message_id);
        write::line(&mut headers, "Success-Report", if message.success_report { b"yes" } else { b"no" });
        let mut content = Vec::new();
        write::line(&mut content, "Content-Type", &message.content_type);
        let chunk = Chunk { to_path: &paths.to, from_path: &paths.from, headers: &headers, content: &content };
        let owner = self.number();
        let total = message.body.len() as u64;
        let mut at = 0;
        loop {
            let piece = &message.body[at..message.body.len().min(at + PIECE)];
            let last = (at + piece.len()) as u64 == total;
            self.send_piece(&connection, bridge, message, &chunk, owner, (at as u64 + 1, total), piece, last).await?;
            at += piece.len();
            if last {
                break;
            }
        }
        Counts::add(&self.counts().sent, 1);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one piece of one chunk, and where it goes")]
    async fn send_piece(
        &self,
        connection: &Arc<Connection>,
        bridge: &Arc<Bridge>,
        message: &Outgoing,
        chunk: &Chunk<'_>,
        owner: u64,
        (start, total): (u64, u64),
        piece: &[u8],
        last: bool,
    ) -> Result<(), Gone> {
        let now = Instant::now();
        let sent = connection.write_around(piece, |lane, before, after| {
            if !lane.holds(owner) {
                if lane.is_full() {
                    connection.end();
                    return Err(Gone);
                }
                let whole = last && start == 1;
                let range = ByteRange { start, end: whole.then_some(total), total: Some(total) };
                let about = About::Chunk {
                    bridge: bridge.clone(),
                    from: PHONE.other(),
                    message_id: message.message_id.clone(),
                    range,
                    wants: FailureReport::Yes,
                };
                let id = id_for(&message.body);
                lane.begin(now, before, owner, id, chunk, range, FailureReport::Yes, about);
            }
            if last {
                lane.end(now, after, owner, Flag::Complete);
            }
            Ok(())
        });
        sent.await
    }
}

/// A transaction id whose end-line does not stand in the body (RFC 4975 §7.1).
fn id_for(body: &[u8]) -> TransactionId {
    loop {
        let id = TransactionId::new(rand::random());
        // By chance 71 bits long: the first one is fine but for a body made against it.
        if memmem::find(body, id.as_bytes()).is_none() {
            return id;
        }
    }
}

impl Leg {
    pub(crate) fn new(uri: Vec<u8>, local: Option<Box<Local>>) -> Leg {
        Leg {
            uri: uri.into(),
            state: Mutex::new(LegState::default()),
            changed: tokio::sync::Notify::new(),
            local,
            custody: std::sync::OnceLock::new(),
            tap: std::sync::OnceLock::new(),
        }
    }
}
