//! What an ESME may do.

use std::collections::BTreeMap;
use std::net::IpAddr;

use subtle::ConstantTimeEq;

use crate::pdu::{Address, BindKind, COctets, CommandStatus};

use super::BindAttempt;

/// The rights of one system_id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    pub system_id: COctets<16>,
    /// Beginnings of the source addresses it may use, digits without `+` or letters. Empty: any. At most 1,000.
    pub sources: Vec<String>,
    /// Put in where it gives no source address.
    pub default_source: Option<Address>,
    pub transmit: bool,
    pub receive: bool,
    /// Messages per second over all its sessions; 0: no limit.
    pub rate: u32,
    /// Its requests without our answer, in each session; 1 to 10,000.
    pub window: usize,
    /// Our deliveries without its answer, in each session; 1 to 1,000.
    pub deliver_window: usize,
    /// Sessions at once.
    pub sessions: usize,
}

impl Account {
    pub fn new(system_id: COctets<16>) -> Account {
        Account {
            system_id,
            sources: Vec::new(),
            default_source: None,
            transmit: true,
            receive: true,
            rate: 0,
            window: 100,
            deliver_window: 10,
            sessions: 10,
        }
    }

    pub(super) fn may_bind(&self, kind: BindKind) -> bool {
        (self.transmit || !kind.transmits()) && (self.receive || !kind.receives())
    }

    pub(super) fn may_send_as(&self, source: &[u8]) -> bool {
        let digits = source.strip_prefix(b"+").unwrap_or(source);
        self.sources.is_empty() || self.sources.iter().any(|allowed| digits.starts_with(allowed.as_bytes()))
    }
}

/// A fixed table of accounts with their passwords and the networks they may come from.
#[derive(Clone, Default)]
pub struct Accounts(BTreeMap<Vec<u8>, Entry>);

#[derive(Clone)]
struct Entry {
    password: COctets<9>,
    /// Empty: from anywhere.
    addresses: Vec<IpAddr>,
    account: Account,
}

impl Accounts {
    pub fn add(&mut self, password: COctets<9>, addresses: Vec<IpAddr>, account: Account) {
        self.0.insert(account.system_id.as_bytes().to_vec(), Entry { password, addresses, account });
    }

    /// An unknown name and a wrong password are told apart as SMPP does (RINVSYSID, RINVPASWD) only in the status: the
    /// comparison takes the same time for both.
    pub fn check(&self, attempt: &BindAttempt) -> Result<Account, CommandStatus> {
        let entry = self.0.get(attempt.bind.system_id.as_bytes());
        let expected = entry.map_or(COctets::EMPTY, |e| e.password);
        let right = bool::from(expected.as_bytes().ct_eq(attempt.bind.password.as_bytes()));
        let Some(entry) = entry else { return Err(CommandStatus::RINVSYSID) };
        if !right {
            return Err(CommandStatus::RINVPASWD);
        }
        let peer = attempt.peer.ip().to_canonical();
        if !entry.addresses.is_empty() && !entry.addresses.contains(&peer) {
            return Err(CommandStatus::RBINDFAIL);
        }
        Ok(entry.account.clone())
    }
}

impl std::fmt::Debug for Accounts {
    /// Without passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").field("count", &self.0.len()).finish()
    }
}
