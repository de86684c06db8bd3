//! Short messages on their way into histories: put together first, where they were divided.

use std::hash::Hasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_ims::history::{TextArchive, Texted, TextedBy};
use sip_ims::{Directory, Msisdn, User};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::{Delivery, Submission};
use crate::reassembly::{Assembler, Limits};
use crate::short_message::Message;
use crate::tpdu::pid;
use crate::udh::{Header, Part};

/// Hands what users send and get over to their histories.
pub(super) struct Remembered {
    archive: Arc<dyn TextArchive>,
    directory: Arc<Directory>,
    /// The gateway's own URI: messages without a source are its own.
    own: Box<str>,
    /// Of messages whose other parts are to come, by their ends.
    parts: Mutex<Assembler<(Box<str>, Msisdn), Piece>>,
}

/// A message, or one part of it.
pub(super) struct Piece {
    from: TextedBy,
    to: Msisdn,
    part: Option<Part>,
    /// The same for the same part.
    name: Box<str>,
    text: String,
}

/// How long the parts of a message wait for each other.
const WAIT: Duration = Duration::from_secs(3_600);
/// Messages of which parts are waited for, and what they hold.
const MAX_WAITING: usize = 5_000;
const MAX_BYTES: usize = 4 << 20;

impl Remembered {
    pub fn new(archive: Arc<dyn TextArchive>, directory: Arc<Directory>, own: &str) -> Remembered {
        let limits = Limits { messages: MAX_WAITING, bytes: MAX_BYTES, wait: WAIT };
        Remembered { archive, directory, own: own.into(), parts: Mutex::new(Assembler::new(limits)) }
    }

    /// What is to be kept of a submission, if anybody wants that.
    pub fn outgoing(&self, submission: &Submission) -> Option<Piece> {
        let Submission { from, to, protocol_id, key, segments, .. } = submission;
        let to_ours = || self.directory.by_msisdn(*to).is_some_and(|user| self.archive.keeps_for(&user));
        let is_wanted = self.archive.keeps_for(from) || to_ours();
        if !is_wanted || !segments.iter().all(|segment| is_read(*protocol_id, &segment.user_data.header)) {
            return None;
        }
        let texts = segments.iter().map(|segment| segment.user_data.text(segment.data_coding.alphabet()));
        let part = match &segments[..] {
            [one] => one.user_data.header.part(),
            _ => None,
        };
        let (from, text) = (TextedBy::User(from.clone()), texts.collect::<Option<_>>()?);
        Some(Piece { from, to: *to, part, name: key.as_str().into(), text })
    }

    /// What is to be kept of a delivery to a user once it has arrived.
    pub fn incoming(&self, user: &User, delivery: &Delivery, message: &Message<'_>) -> Option<Piece> {
        let name = delivery.name.clone().filter(|_| self.archive.keeps_for(user))?;
        let text = message.text().ok().flatten().filter(|_| is_read(delivery.protocol_id, &message.header))?;
        let source = Some(&delivery.source).filter(|source| !source.is_empty()).unwrap_or(&self.own);
        let from = TextedBy::Named(source.clone());
        Some(Piece { from, to: delivery.to, part: message.header.part(), name, text })
    }

    /// Keeps a message, once all its parts are here. `done` runs when it is on disk, when it waits for others, or when it is lost.
    pub fn keep(&self, piece: Piece, done: Box<dyn FnOnce() + Send>) {
        let whole = match piece.part {
            None => Some(vec![piece]),
            Some(part) => {
                let from = match &piece.from {
                    TextedBy::User(user) => user.aor.as_str().into(),
                    TextedBy::Named(name) => name.clone(),
                };
                let weight = size_of::<Piece>() + piece.text.len() + piece.name.len();
                self.parts.lock().offer((from, piece.to), part, piece, weight, Instant::now())
            }
        };
        match whole.and_then(texted) {
            Some(text) => self.archive.texted(text, done),
            None => done(),
        }
    }
}

/// Whether a person gets to read it: not what is for an application, the SIM, or nobody.
fn is_read(protocol_id: u8, header: &Header) -> bool {
    ![pid::TYPE_0, pid::SIM_DATA_DOWNLOAD].contains(&protocol_id) && header.ports().is_none()
}

fn texted(pieces: Vec<Piece>) -> Option<Texted> {
    let text = pieces.iter().map(|piece| &*piece.text).collect();
    let Piece { from, to, name, .. } = pieces.into_iter().next()?;
    let mut hash = SipHasher13::new();
    hash.write(name.as_bytes());
    hash.write(to.to_string().as_bytes());
    Some(Texted { from, to, key: hash.finish128().as_bytes(), text })
}
