//! Settings of store and forward.

use std::time::Duration;

/// What is kept, for how long, and how it is delivered.
#[derive(Clone, Debug)]
pub struct Config {
    /// Seconds that a message is kept: when it has no Expires, and at most.
    pub expiry: u32,
    /// Largest body taken, in bytes; more gets 413. At most 64 KiB: the store takes 128 KiB with headers.
    pub max_body: usize,
    /// Keep messages for addresses of our domain that nobody provisioned. For closed test nets.
    pub strangers: bool,
    /// Users served at the same time.
    pub parallel: usize,
    /// Which of a user's phones get a kept message.
    pub devices: Devices,
    /// How often expired messages are dropped.
    pub sweep: Duration,
}

/// Which of a user's phones get a kept message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Devices {
    /// The preferred one; the others only while none has taken it.
    BestFirst,
    /// All that are there.
    All,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            expiry: 7 * 86_400,
            max_body: MAX_BODY,
            strangers: false,
            parallel: 64,
            devices: Devices::BestFirst,
            sweep: Duration::from_secs(60),
        }
    }
}

const MAX_BODY: usize = 64 * 1024;
