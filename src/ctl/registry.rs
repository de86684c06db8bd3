//! `isthmus push-client`, `api-client`, `line`, `filter`: registrations one at a time. What they take is what the provisioning file takes.

use std::io::Write;
use std::sync::Arc;

use clap::{Args, Subcommand};
use gw_sms::registry::{ApiClient, Block, Entry, Kind, PushClient, Registrations, Registry, Wrong};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sip_ims::Msisdn;

use sip_ims::criteria::DefaultHandling;

use super::{CtlError, Place};
use crate::config::Problem;
use crate::provision::{Line, wait};
use crate::store::follow;
use crate::store::sql::SqlStore;

#[derive(Subcommand, Debug)]
pub(super) enum PushCommand {
    /// Add a push client, or replace one that is there.
    Add(Box<Push>),
    /// All push clients: XPID, name, how many numbers, callback.
    List {
        #[command(flatten)]
        place: Place,
    },
    Remove {
        xpid: String,
        #[command(flatten)]
        place: Place,
    },
}

/// The keys of `[[push_client]]`, by the same names.
#[derive(Args, Serialize, Debug)]
pub(super) struct Push {
    /// 11 digits.
    xpid: String,
    #[arg(long, default_value = "")]
    name: String,
    #[arg(long, default_value = "")]
    secret: String,
    /// SHA-256 of its certificate, in hexadecimal.
    #[arg(long)]
    certificate: Option<String>,
    /// Address or CIDR block; may be repeated.
    #[arg(long)]
    allow_from: Vec<Block>,
    #[arg(long, default_value = "")]
    callback: String,
    #[arg(long)]
    segmentation: bool,
    /// May be repeated.
    #[arg(long = "number")]
    numbers: Vec<Msisdn>,
    #[arg(long)]
    deliver_while_roaming: bool,
    #[arg(long)]
    deliver_while_suspended: bool,
    #[arg(long)]
    deliver_despite_spam_block: bool,
    #[arg(long)]
    deliver_over_limit: bool,
    #[arg(long)]
    circuit_switched_when_ps_roaming: bool,
    #[arg(long)]
    stopped: bool,
    /// RFC 3339.
    #[arg(long, default_value = "")]
    valid_from: String,
    #[arg(long, default_value = "")]
    valid_until: String,
    /// Requests a second; 0: no limit.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// 0 goes first, 3 last.
    #[arg(long, default_value_t = 2)]
    priority: u8,
    #[command(flatten)]
    #[serde(skip)]
    place: Place,
}

#[derive(Subcommand, Debug)]
pub(super) enum ApiCommand {
    /// Add an API client, or replace one that is there.
    Add(Box<Api>),
    /// All API clients: id, scopes.
    List {
        #[command(flatten)]
        place: Place,
    },
    Remove {
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

/// The keys of `[[api_client]]`, by the same names.
#[derive(Args, Serialize, Debug)]
pub(super) struct Api {
    id: String,
    #[arg(long, default_value = "")]
    secret: String,
    /// For private_key_jwt, instead of a secret.
    #[arg(long, default_value = "")]
    jwks_uri: String,
    /// Address or CIDR block; may be repeated.
    #[arg(long)]
    allow_from: Vec<Block>,
    /// May be repeated.
    #[arg(long = "scope")]
    scopes: Vec<String>,
    /// The push client under whose contract it sends short messages.
    #[arg(long, default_value = "")]
    xpid: String,
    /// Beginning of the numbers that it may send to, such as +81; + is every number; may be repeated.
    #[arg(long = "destination")]
    destinations: Vec<String>,
    /// Originating address that it may send as; may be repeated.
    #[arg(long = "sender")]
    senders: Vec<String>,
    /// Messages a second; 0: no limit.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Messages a day; 0: no limit.
    #[arg(long, default_value_t = 0)]
    daily_quota: u32,
    /// 0 goes first, 3 last.
    #[arg(long, default_value_t = 2)]
    priority: u8,
    #[command(flatten)]
    #[serde(skip)]
    place: Place,
}

#[derive(Subcommand, Debug)]
pub(super) enum LineCommand {
    /// Say how a line stands: what is not named is not so.
    Set {
        /// International number, +81…
        msisdn: String,
        #[arg(long)]
        roaming: bool,
        #[arg(long)]
        suspended: bool,
        #[arg(long)]
        spam_block: bool,
        #[arg(long)]
        over_limit: bool,
        #[arg(long)]
        ps_roaming: bool,
        #[command(flatten)]
        place: Place,
    },
    List {
        #[command(flatten)]
        place: Place,
    },
    Remove {
        msisdn: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum FilterCommand {
    /// All filters: key, default handling.
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Remove a filter by its key, as `list` shows it.
    Remove {
        key: String,
        #[command(flatten)]
        place: Place,
    },
}

pub(super) fn filter(command: &FilterCommand) -> Result<(), CtlError> {
    match command {
        FilterCommand::List { place } => {
            let mut out = std::io::stdout().lock();
            for rule in registry(place)?.filters().rules() {
                let down = match rule.default_handling {
                    DefaultHandling::Continue => "continue",
                    DefaultHandling::Terminate => "terminate",
                };
                writeln!(out, "{}\t{down}", rule.key()).map_err(CtlError::Output)?;
            }
            Ok(())
        }
        FilterCommand::Remove { key, place } => remove(Kind::Filter, key, place),
    }
}

pub(super) fn push(command: &PushCommand) -> Result<(), CtlError> {
    match command {
        PushCommand::Add(push) => put(read::<PushClient>(push)?.entry(), &push.place),
        PushCommand::List { place } => {
            let mut out = std::io::stdout().lock();
            for c in registry(place)?.push_clients() {
                let state = if c.stopped { "stopped" } else { "served" };
                writeln!(out, "{}\t{}\t{} numbers\t{}\t{state}", c.xpid, c.name, c.numbers.len(), c.callback)
                    .map_err(CtlError::Output)?;
            }
            Ok(())
        }
        PushCommand::Remove { xpid, place } => remove(Kind::PushClient, xpid, place),
    }
}

pub(super) fn api(command: &ApiCommand) -> Result<(), CtlError> {
    match command {
        ApiCommand::Add(api) => put(read::<ApiClient>(api)?.entry(), &api.place),
        ApiCommand::List { place } => {
            let mut out = std::io::stdout().lock();
            for c in registry(place)?.api_clients() {
                writeln!(out, "{}\t{}", c.id, c.scopes.join(" ")).map_err(CtlError::Output)?;
            }
            Ok(())
        }
        ApiCommand::Remove { id, place } => remove(Kind::ApiClient, id, place),
    }
}

pub(super) fn line(command: &LineCommand) -> Result<(), CtlError> {
    match command {
        LineCommand::Set { msisdn, roaming, suspended, spam_block, over_limit, ps_roaming, place } => {
            let entry = Line {
                msisdn: msisdn.clone(),
                roaming: *roaming,
                suspended: *suspended,
                spam_block: *spam_block,
                over_limit: *over_limit,
                ps_roaming: *ps_roaming,
            };
            put(entry.registration(), place)
        }
        LineCommand::List { place } => {
            let mut out = std::io::stdout().lock();
            for (number, line) in registry(place)?.lines() {
                let states = [
                    (line.roaming, "roaming"),
                    (line.suspended, "suspended"),
                    (line.spam_block, "spam-block"),
                    (line.over_limit, "over-limit"),
                    (line.ps_roaming, "ps-roaming"),
                ];
                let states: Vec<&str> = states.iter().filter(|s| s.0).map(|s| s.1).collect();
                writeln!(out, "{number}\t{}", states.join(",")).map_err(CtlError::Output)?;
            }
            Ok(())
        }
        LineCommand::Remove { msisdn, place } => remove(Kind::Line, msisdn, place),
    }
}

/// What a provisioning file would have said.
fn read<T: DeserializeOwned>(said: &impl Serialize) -> Result<T, CtlError> {
    let read = serde_json::to_value(said).and_then(serde_json::from_value);
    read.map_err(|error| CtlError::Usage(Problem::new("", error.to_string())))
}

fn put(entry: Result<Entry, Wrong>, place: &Place) -> Result<(), CtlError> {
    let entry = entry.map_err(|(key, text)| CtlError::Usage(Problem::new(key, text)))?;
    let store = open(place)?;
    wait(|done| Registrations::put(&store, vec![entry], done))?;
    store.close();
    Ok(())
}

fn remove(kind: Kind, key: &str, place: &Place) -> Result<(), CtlError> {
    let store = open(place)?;
    let gone = wait(|done| Registrations::remove(&store, kind, key, done))?;
    store.close();
    if gone { Ok(()) } else { Err(CtlError::NoEntry(key.to_owned())) }
}

/// Everything that is registered.
fn registry(place: &Place) -> Result<Arc<Registry>, CtlError> {
    let store: Arc<dyn Registrations> = Arc::new(open(place)?);
    let registry = Arc::new(Registry::default());
    let mut follower = follow::registrations(store, registry.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(crate::store::OpenError::Thread)?;
    runtime.block_on(follower.catch_up(|_| {}))?;
    Ok(registry)
}

fn open(place: &Place) -> Result<SqlStore, CtlError> {
    Ok(SqlStore::open(&place.store(&place.config()?))?)
}
