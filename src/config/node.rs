//! `[store]`, `[bus]`, `[node]`, `[log]`, `[telemetry]`, `[cdr]`: this process and what it keeps.

use std::path::PathBuf;

use serde::Deserialize;

use super::values::{Door, Size};

#[derive(Clone, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    pub engine: StoreEngine,
    /// `postgres://…`; must be empty for SQLite, whose files lie in `data_dir`.
    pub url: String,
}

// By hand: the URL may hold a password.
impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("engine", &self.engine).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreEngine {
    #[default]
    Sqlite,
    Postgres,
}

#[derive(Clone, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Bus {
    pub engine: BusEngine,
    /// `nats://…`; must be empty for the local bus.
    pub url: String,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("engine", &self.engine).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BusEngine {
    #[default]
    Local,
    Nats,
}

#[derive(Clone, Debug, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Unique in a cluster, at most 64 characters; empty: the host name.
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,sip_net=debug`.
    pub level: String,
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: "info".to_owned(), format: LogFormat::Text }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    pub hep: Hep,
    pub trace: Trace,
}

/// `[telemetry.hep]`: every SIP message copied to a Homer capture server (HEP3 over UDP).
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hep {
    /// Of the capture server; empty: off.
    pub address: Door,
    /// Tells Homer which node a packet came from.
    pub capture_id: u32,
    /// Packets waiting to be sent, 16 to 1,048,576; beyond it they are dropped and counted.
    pub queue: usize,
}

impl Default for Hep {
    fn default() -> Hep {
        Hep { address: Door(None), capture_id: 2001, queue: 8_192 }
    }
}

/// `[telemetry.trace]`: the steps that `isthmus trace` shows. Never bodies, never credentials.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    pub level: TraceLevel,
    /// Steps kept in memory, 1,024 to 16,777,216; 64 bytes each.
    pub events: usize,
    /// Size of the file that keeps them across restarts; 0: none.
    pub disk: Size,
}

impl Default for Trace {
    fn default() -> Trace {
        Trace { level: TraceLevel::Final, events: 65_536, disk: Size::mib(16) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum TraceLevel {
    Off,
    /// Requests, final answers and what the services decided.
    Final,
    /// Every message, retransmissions and provisional answers too.
    All,
}

/// `[cdr]`: charging records, one JSON line each, a new file each day (UTC).
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cdr {
    pub enabled: bool,
    /// `{date}` stands for the day as YYYY-MM-DD. Relative paths count from `data_dir`.
    pub file: PathBuf,
}

impl Default for Cdr {
    fn default() -> Cdr {
        Cdr { enabled: true, file: PathBuf::from("cdr/cdr-{date}.jsonl") }
    }
}
