//! How many wrong secrets an address may try.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

/// Wrong secrets by where they came from: an IPv4 address, or an IPv6 network of 64 bits, which one host has to itself.
#[derive(Default)]
pub struct Failures(Mutex<HashMap<IpAddr, Debt>>);

/// Each failure costs [`Failures::PAUSE`] seconds of it.
#[derive(Clone, Copy)]
struct Debt {
    /// Unix seconds at which it is paid.
    until: u64,
}

impl Failures {
    /// Seconds in which one failure is forgiven.
    pub const PAUSE: u32 = 6;

    pub fn may_try(&self, from: IpAddr, now: u64) -> bool {
        let debt = self.0.lock().get(&network(from)).map_or(0, |d| d.until.saturating_sub(now));
        debt < MOST * u64::from(Failures::PAUSE)
    }

    pub fn failed(&self, from: IpAddr, now: u64) {
        let mut all = self.0.lock();
        if all.len() >= MAX_ADDRESSES {
            all.retain(|_, debt| debt.until > now);
            // All of them fresh: whoever has so many addresses is not held by a table.
            if all.len() >= MAX_ADDRESSES {
                all.clear();
            }
        }
        let debt = all.entry(network(from)).or_insert(Debt { until: now });
        debt.until = debt.until.max(now) + u64::from(Failures::PAUSE);
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

/// Failures at once.
const MOST: u64 = 20;
/// Addresses remembered.
const MAX_ADDRESSES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_forgiven_one_by_one_and_neighbours_do_not_pay() {
        let (failures, here) = (Failures::default(), "2001:db8::1".parse().unwrap());
        (0..MOST).for_each(|_| failures.failed(here, 100));
        assert!(!failures.may_try(here, 100) && !failures.may_try("2001:db8::2".parse().unwrap(), 100));
        assert!(failures.may_try("2001:db8:0:1::1".parse().unwrap(), 100));
        assert!(failures.may_try(here, 101), "paying begins at once");
        failures.failed(here, 101);
        assert!(!failures.may_try(here, 105) && failures.may_try(here, 108));
    }

    #[test]
    fn the_table_is_bounded() {
        let failures = Failures::default();
        for n in 0..MAX_ADDRESSES as u32 * 2 {
            failures.failed(IpAddr::from(n.to_be_bytes()), 5);
        }
        assert!(failures.0.lock().len() <= MAX_ADDRESSES);
    }
}
