//! Which datagram goes where: one stream between two ends, RTP and RTCP.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Who sends or is sent to. The caller is whoever asked for the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Caller,
    Callee,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Caller, Side::Callee];

    pub fn other(self) -> Side {
        match self {
            Side::Caller => Side::Callee,
            Side::Callee => Side::Caller,
        }
    }
}

/// Of a pair of ports. With rtcp-mux (RFC 5761) all comes by the first: both ends know, and we need not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Rtp,
    Rtcp,
}

impl Part {
    pub const BOTH: [Part; 2] = [Part::Rtp, Part::Rtcp];
}

/// Where one end wants its media, by its description.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Far {
    At {
        media: SocketAddr,
        control: SocketAddr,
    },
    /// Its description names no address: whoever sends first is it.
    Unknown,
    /// It wants nothing now (`c=IN IP4 0.0.0.0`). Who it is does not change.
    Nowhere,
}

/// What becomes of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// To this address, from the same part of the other side.
    Pass(SocketAddr),
    /// From nobody who is part of this.
    Stranger,
    /// The other end is not known yet, or wants nothing.
    Nowhere,
}

/// A stream between two ends.
#[derive(Clone, Debug)]
pub struct Bridge {
    legs: [[Leg; 2]; 2],
    heard: Instant,
}

/// One end's RTP or RTCP.
#[derive(Clone, Copy, Default, Debug)]
struct Leg {
    /// Said in a description. `None`: nowhere, or not said.
    told: Option<SocketAddr>,
    /// Where it sends from, which is where it hears (RFC 4961).
    latched: Option<SocketAddr>,
    /// A description has come since: it may send from elsewhere.
    open: bool,
    /// Nothing is sent to it.
    deaf: bool,
}

impl Bridge {
    pub fn new(now: Instant) -> Bridge {
        Bridge { legs: [[Leg::default(); 2]; 2], heard: now }
    }

    /// An offer and its answer have said where this end is. It may send from another place than before; until it does,
    /// it is sent to as the description says, or where it was, when that has not changed.
    pub fn describe(&mut self, side: Side, far: Far) {
        let [rtp, rtcp] = &mut self.legs[side as usize];
        match far {
            Far::At { media, control } => {
                rtp.described(Some(media));
                rtcp.described(Some(control));
            }
            Far::Unknown => {
                rtp.described(None);
                rtcp.described(None);
            }
            Far::Nowhere => {
                rtp.deaf = true;
                rtcp.deaf = true;
            }
        }
    }

    /// A datagram came in at the port that `side` was told.
    pub fn arrives(&mut self, side: Side, part: Part, from: SocketAddr, now: Instant) -> Verdict {
        if !self.legs[side as usize][part as usize].admits(from) {
            return Verdict::Stranger;
        }
        self.heard = now;
        self.legs[side.other() as usize][part as usize].reach().map_or(Verdict::Nowhere, Verdict::Pass)
    }

    /// Neither end was heard for so long; nor did the stream begin since.
    pub fn is_silent(&self, now: Instant, limit: Duration) -> bool {
        now.saturating_duration_since(self.heard) >= limit
    }
}

impl Leg {
    fn described(&mut self, told: Option<SocketAddr>) {
        if told != self.told {
            self.latched = None;
        }
        *self = Leg { told, latched: self.latched, open: true, deaf: false };
    }

    /// Whether this end may send from there. The first to do so after a description is it, and nobody else until the
    /// next one (RFC 7362 §4); but only from the address that the description names, unless that is one which a NAT
    /// hides. Who sends from the very port that the description names takes the place of a guess.
    fn admits(&mut self, from: SocketAddr) -> bool {
        if self.latched == Some(from) && !self.open {
            return true;
        }
        let fits = match self.told {
            Some(told) if told == from => true,
            Some(told) => self.open && (told.ip() == from.ip() || is_private(told.ip())),
            None => self.open,
        };
        if fits {
            (self.latched, self.open) = (Some(from), false);
        }
        fits
    }

    fn reach(&self) -> Option<SocketAddr> {
        self.latched.or(self.told).filter(|_| !self.deaf)
    }
}

/// An address that means something behind a NAT only (RFC 1918, RFC 6598, RFC 3927, RFC 4193).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64,
        IpAddr::V6(ip) => ip.segments()[0] & 0xfe00 == 0xfc00 || ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn far(media: &str) -> Far {
        let media = at(media);
        Far::At { media, control: SocketAddr::new(media.ip(), media.port() + 1) }
    }

    fn bridged(caller: &str, callee: &str) -> (Bridge, Instant) {
        let now = Instant::now();
        let mut bridge = Bridge::new(now);
        bridge.describe(Side::Caller, far(caller));
        bridge.describe(Side::Callee, far(callee));
        (bridge, now)
    }

    #[test]
    fn each_end_hears_the_other_at_the_ports_it_told() {
        let (mut bridge, now) = bridged("192.0.2.1:4000", "192.0.2.2:5000");
        for (side, part, from, to) in [
            (Side::Caller, Part::Rtp, "192.0.2.1:4000", "192.0.2.2:5000"),
            (Side::Callee, Part::Rtp, "192.0.2.2:5000", "192.0.2.1:4000"),
            (Side::Caller, Part::Rtcp, "192.0.2.1:4001", "192.0.2.2:5001"),
            (Side::Callee, Part::Rtcp, "192.0.2.2:5001", "192.0.2.1:4001"),
        ] {
            assert_eq!(bridge.arrives(side, part, at(from), now), Verdict::Pass(at(to)));
        }
    }

    #[test]
    fn nothing_passes_before_anybody_is_described() {
        let now = Instant::now();
        let mut bridge = Bridge::new(now);
        assert_eq!(bridge.arrives(Side::Callee, Part::Rtp, at("192.0.2.2:5000"), now), Verdict::Stranger);
        bridge.describe(Side::Callee, far("192.0.2.2:5000"));
        assert_eq!(bridge.arrives(Side::Callee, Part::Rtp, at("192.0.2.2:5000"), now), Verdict::Nowhere);
    }

    #[test]
    fn who_sends_from_another_port_is_sent_to_there_and_stays_there() {
        let (mut bridge, now) = bridged("192.0.2.1:4000", "192.0.2.2:5000");
        let arrives = |bridge: &mut Bridge, side, from: &str| bridge.arrives(side, Part::Rtp, at(from), now);
        assert_eq!(arrives(&mut bridge, Side::Callee, "192.0.2.2:6000"), Verdict::Pass(at("192.0.2.1:4000")));
        assert_eq!(arrives(&mut bridge, Side::Callee, "192.0.2.2:6001"), Verdict::Stranger);
        assert_eq!(arrives(&mut bridge, Side::Callee, "203.0.113.9:5000"), Verdict::Stranger);
        assert_eq!(arrives(&mut bridge, Side::Caller, "192.0.2.1:4000"), Verdict::Pass(at("192.0.2.2:6000")));
        // The port that the description names is no guess.
        assert_eq!(arrives(&mut bridge, Side::Callee, "192.0.2.2:5000"), Verdict::Pass(at("192.0.2.1:4000")));
        assert_eq!(arrives(&mut bridge, Side::Callee, "192.0.2.2:6000"), Verdict::Stranger);
    }

    #[test]
    fn a_new_description_lets_an_end_move_and_keeps_where_it_was_until_then() {
        let (mut bridge, now) = bridged("192.0.2.1:4000", "192.0.2.2:5000");
        bridge.arrives(Side::Callee, Part::Rtp, at("192.0.2.2:6000"), now);
        bridge.describe(Side::Callee, far("192.0.2.2:5000"));
        let from_caller = |bridge: &mut Bridge| bridge.arrives(Side::Caller, Part::Rtp, at("192.0.2.1:4000"), now);
        assert_eq!(from_caller(&mut bridge), Verdict::Pass(at("192.0.2.2:6000")));
        bridge.arrives(Side::Callee, Part::Rtp, at("192.0.2.2:7000"), now);
        assert_eq!(from_caller(&mut bridge), Verdict::Pass(at("192.0.2.2:7000")));
        bridge.describe(Side::Callee, far("192.0.2.3:5000"));
        assert_eq!(from_caller(&mut bridge), Verdict::Pass(at("192.0.2.3:5000")));
        assert_eq!(bridge.arrives(Side::Callee, Part::Rtp, at("192.0.2.2:7000"), now), Verdict::Stranger);
    }

    #[test]
    fn behind_a_nat_the_first_to_send_is_the_end() {
        for told in ["10.0.0.7:4000", "100.64.3.1:4000", "[fd00::7]:4000"] {
            let (mut bridge, now) = bridged(told, "192.0.2.2:5000");
            let arrives = |bridge: &mut Bridge, from: &str| bridge.arrives(Side::Caller, Part::Rtp, at(from), now);
            assert_eq!(arrives(&mut bridge, "203.0.113.5:61000"), Verdict::Pass(at("192.0.2.2:5000")));
            assert_eq!(arrives(&mut bridge, "203.0.113.6:61000"), Verdict::Stranger);
            let back = bridge.arrives(Side::Callee, Part::Rtp, at("192.0.2.2:5000"), now);
            assert_eq!(back, Verdict::Pass(at("203.0.113.5:61000")));
        }
    }

    #[test]
    fn on_hold_nothing_is_sent_and_nobody_comes_in() {
        let (mut bridge, now) = bridged("192.0.2.1:4000", "192.0.2.2:5000");
        bridge.arrives(Side::Callee, Part::Rtp, at("192.0.2.2:5000"), now);
        bridge.describe(Side::Callee, Far::Nowhere);
        assert_eq!(bridge.arrives(Side::Caller, Part::Rtp, at("192.0.2.1:4000"), now), Verdict::Nowhere);
        assert_eq!(bridge.arrives(Side::Callee, Part::Rtp, at("203.0.113.9:5000"), now), Verdict::Stranger);
        bridge.describe(Side::Callee, far("192.0.2.2:5000"));
        assert_eq!(
            bridge.arrives(Side::Caller, Part::Rtp, at("192.0.2.1:4000"), now),
            Verdict::Pass(at("192.0.2.2:5000"))
        );
    }

    #[test]
    fn strangers_do_not_keep_a_stream_alive() {
        let (mut bridge, now) = bridged("192.0.2.1:4000", "192.0.2.2:5000");
        let later = now + Duration::from_secs(60);
        bridge.arrives(Side::Caller, Part::Rtp, at("203.0.113.9:1"), later);
        assert!(bridge.is_silent(later, Duration::from_secs(60)));
        bridge.arrives(Side::Caller, Part::Rtp, at("192.0.2.1:4000"), later);
        assert!(!bridge.is_silent(later, Duration::from_secs(60)));
    }

    proptest! {
        #[test]
        fn between_two_descriptions_an_end_is_at_two_places_at_most(
            froms in proptest::collection::vec((0u8..4, 0u16..4), 1..40),
        ) {
            let (mut bridge, now) = bridged("192.0.2.1:4000", "192.0.2.2:5000");
            let mut places = Vec::new();
            for (host, port) in froms {
                let from = SocketAddr::from(([192, 0, 2, host], 4998 + port));
                let verdict = bridge.arrives(Side::Callee, Part::Rtp, from, now);
                if matches!(verdict, Verdict::Pass(_)) {
                    prop_assert_eq!(from.ip(), at("192.0.2.2:5000").ip());
                    if !places.contains(&from) {
                        places.push(from);
                    }
                }
            }
            prop_assert!(places.len() <= 2, "{:?}", places);
        }
    }
}
