//! The order in which the servers of a domain are tried (RFC 2782, RFC 7984).

use std::net::{IpAddr, SocketAddr};

use rand::Rng;
use sip_proto::Transport;
use smallvec::SmallVec;

/// Targets tried for one request, at most.
pub const TARGETS_MAX: usize = 16;

/// One server: a transport, a place in the order, its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    pub(super) transport: Transport,
    /// Lower first: the place of its service, then its SRV priority.
    pub(super) rank: (u16, u16),
    /// RFC 2782: the share of first tries among servers of one rank.
    pub(super) weight: u16,
    pub(super) addresses: SmallVec<[SocketAddr; 2]>,
}

/// Every address once, in an order that is drawn anew for each request.
pub(super) fn arrange(candidates: &[Candidate], rng: &mut impl Rng) -> SmallVec<[(Transport, SocketAddr); 4]> {
    let mut left: SmallVec<[&Candidate; 8]> = candidates.iter().collect();
    left.sort_by_key(|c| c.rank);
    let mut order = SmallVec::new();
    while !left.is_empty() && order.len() < TARGETS_MAX {
        let peers = left.iter().take_while(|c| c.rank == left[0].rank).count();
        let chosen = left.remove(draw(&left[..peers], rng));
        for address in &chosen.addresses {
            let target = (chosen.transport, *address);
            if order.len() < TARGETS_MAX && !order.contains(&target) {
                order.push(target);
            }
        }
    }
    order
}

/// RFC 2782: those without weight have a small chance before the others are through.
fn draw(peers: &[&Candidate], rng: &mut impl Rng) -> usize {
    if peers.len() < 2 {
        return 0;
    }
    // Counting 1 for 0 and scaling the rest keeps "very small" without the RFC's sorting.
    let weight = |c: &&Candidate| if c.weight == 0 { 1 } else { u32::from(c.weight) * 100 };
    let mut at = rng.random_range(0..peers.iter().map(weight).sum());
    for (i, peer) in peers.iter().enumerate() {
        match at.checked_sub(weight(peer)) {
            Some(rest) => at = rest,
            None => return i,
        }
    }
    0
}

/// Both families in turn, IPv6 first (RFC 7984 §4.1 by way of RFC 6724): a broken one costs one try, not all of them.
pub(super) fn dual_stack(addresses: impl IntoIterator<Item = IpAddr>, port: u16) -> SmallVec<[SocketAddr; 2]> {
    let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let mut mixed = SmallVec::new();
    for i in 0..v6.len().max(v4.len()) {
        mixed.extend([v6.get(i), v4.get(i)].into_iter().flatten().map(|ip| SocketAddr::new(*ip, port)));
    }
    mixed
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn server(rank: u16, weight: u16, host: u8) -> Candidate {
        let address = SocketAddr::new([192, 0, 2, host].into(), 5060);
        Candidate { transport: Transport::Udp, rank: (0, rank), weight, addresses: [address].into_iter().collect() }
    }

    #[test]
    fn priority_goes_before_weight_and_weight_shares_the_first_try() {
        let servers = [server(20, 1, 9), server(10, 75, 1), server(10, 25, 2), server(10, 0, 3)];
        let mut rng = StdRng::seed_from_u64(1);
        let mut first = [0; 10];
        for _ in 0..10_000 {
            let order = arrange(&servers, &mut rng);
            assert_eq!(order.len(), 4);
            let host = |i: usize| match order[i].1.ip() {
                IpAddr::V4(ip) => usize::from(ip.octets()[3]),
                IpAddr::V6(_) => 0,
            };
            assert_eq!(host(3), 9);
            first[host(0)] += 1;
        }
        assert!((7300..7700).contains(&first[1]), "{first:?}");
        assert!((2300..2700).contains(&first[2]), "{first:?}");
        assert!(first[3] < 30, "{first:?}");
    }

    #[test]
    fn families_take_turns() {
        let ips = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let order: Vec<String> = dual_stack(ips, 5060).iter().map(SocketAddr::to_string).collect();
        assert_eq!(order, ["[2001:db8::1]:5060", "192.0.2.1:5060", "192.0.2.2:5060"]);
    }

    #[test]
    fn a_domain_with_a_hundred_servers_gives_sixteen_targets_each_once() {
        let mut servers: Vec<_> = (0..100).map(|n| server(n % 3, 1, n as u8)).collect();
        servers.extend(servers.clone());
        let order = arrange(&servers, &mut StdRng::seed_from_u64(1));
        assert_eq!(order.len(), TARGETS_MAX);
        assert!((1..order.len()).all(|i| !order[..i].contains(&order[i])));
    }
}
