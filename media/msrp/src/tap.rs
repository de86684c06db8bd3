//! Somebody listens to a session: hears each message once all of it has gone on, and holds up nothing.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::assembly::{Assembly, Told, Whole};
use crate::bridge::{Bridge, Side};
use crate::held::Held;
use crate::reader::Flag;
use crate::switch::Switch;

/// Hears what one side of a session says.
pub trait Listener: Send + Sync {
    /// A message that has been written to the other side; whether that wanted it is not known yet. Nothing more of the session is
    /// read meanwhile.
    fn heard(&self, message: Whole);
}

pub(crate) struct Tap {
    listener: Arc<dyn Listener>,
    max: usize,
    assembly: Mutex<Assembly>,
}

impl Switch {
    /// Has `listener` hear what `side` sends from now on, as far as it is no longer than `max` bytes. Once for each side.
    pub fn overhear(&self, bridge: &Bridge, side: Side, listener: Arc<dyn Listener>, max: usize) {
        let tap = Tap { listener, max, assembly: Mutex::new(Assembly::new(max)) };
        let _ = bridge.leg(side).tap.set(Box::new(tap));
    }
}

impl Tap {
    /// A chunk that goes on begins. What is too long, or in too many pieces, is not heard.
    pub(crate) fn begin(&self, told: &Told<'_>) {
        let _ = self.assembly.lock().begin(Instant::now(), told);
    }

    pub(crate) fn piece(&self, bytes: &[u8]) {
        let _ = self.assembly.lock().piece(bytes);
    }

    pub(crate) fn end(&self, flag: Flag) {
        let whole = self.assembly.lock().end(flag);
        if let Some(whole) = whole {
            self.listener.heard(whole);
        }
    }

    /// A message that was held has gone on.
    pub(crate) async fn passed(&self, held: &Held) {
        if held.len() > self.max as u64 {
            return;
        }
        let mut body = Vec::with_capacity(held.len() as usize);
        while (body.len() as u64) < held.len() {
            match held.read(body.len() as u64).await {
                Ok(piece) if !piece.is_empty() => body.extend(piece),
                // It was read a moment ago: what is gone now is not heard.
                _ => return,
            }
        }
        self.listener.heard(Whole {
            message_id: held.message_id().into(),
            content_type: held.content_type().into(),
            body,
        });
    }
}
