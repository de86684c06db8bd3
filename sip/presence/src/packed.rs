//! Subscriptions of which nothing is under way, in few bytes: most of them, most of the time.
//!
//! Times are kept in milliseconds since the server's start, texts folded against what most of them have in common and the presentity's address.
//! Who wants lists, changes alone, filters or rates is never packed: what such a subscription must remember are documents.

use std::hash::Hasher as _;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sip_ims::notify::{contact_for, dialog_key_of};
use sip_ims::{Aor, Home};
use sip_proto::dialog::{Dialog, DialogId};
use sip_proto::subscription::{Idle, Notifier};
use sip_proto::{Flow, FlowId, Hop, HostId, Transport};
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher128};

use crate::fold::{fold, number, take_number, unfold};
use crate::rules::{Permissions, Watcher};
use crate::watch::{DialogKey, Package, Seen, Watch};

/// A subscription as its presentity holds it.
#[derive(Debug)]
pub(crate) enum Held {
    Awake(Box<Watch>),
    Packed(Packed),
}

/// See the module's text: flags, the end, other numbers, and folded texts.
#[derive(Debug)]
pub(crate) struct Packed(Box<[u8]>);

/// Permissions that packed subscriptions of one presentity refer to by their place.
pub(crate) type Shown = Vec<Arc<Permissions>>;

/// What packing and unpacking takes beside the subscription.
pub(crate) struct Packer {
    pub started: Instant,
    pub home: Arc<Home>,
    pub pace: Duration,
    /// Of [`DialogKey`]s.
    pub key: [u8; 16],
}

const SUMMARY: u8 = 1;
const ACTIVE: u8 = 2;
const ANONYMOUS: u8 = 4;
const TOLD_SOMETHING: u8 = 8;

/// What texts have in common.
const COMMON: &[u8] = b";transport=tcpmessage-summarypresence";
/// Permissions of one presentity that are referred to; watchers who see yet others are not packed.
const MAX_SHOWN: usize = 1000;

impl Packer {
    /// The same after a restart, and at every node: it names rows.
    pub fn dialog_key(&self, call_id_and_tag: &[u8]) -> DialogKey {
        let mut hash = SipHasher128::new_with_key(&self.key);
        hash.write(call_id_and_tag);
        DialogKey(hash.finish128().as_u128())
    }

    /// `None`: it has something to do, or is not of the kind that is packed.
    pub fn pack(&self, aor: &Aor, watch: &Watch, shown: &mut Shown) -> Option<Packed> {
        let kind = match watch.package {
            Package::Presence => 0,
            Package::Summary => SUMMARY,
            Package::Partial(_) | Package::Winfo(_) | Package::List(_) => return None,
        };
        let extra = watch.rates.is_some() || watch.filters.is_some() || watch.before.is_some();
        if extra || watch.owed || watch.fetch || watch.rejected {
            return None;
        }
        let idle = watch.notifier.idle()?;
        let seen = match &watch.seen {
            Seen::Everything => 0,
            Seen::Nothing => 1,
            Seen::Part(permissions) => 2 + place(permissions, shown)?,
        };
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let mut out = vec![
            kind | flag(idle.active, ACTIVE)
                | flag(watch.watcher.anonymous, ANONYMOUS)
                | flag(idle.last.is_some(), TOLD_SOMETHING),
        ];
        let sequence = watch.dialog.local_sequence().unwrap_or(0);
        for value in [
            self.moment(idle.until),
            idle.last.map_or(0, |at| self.moment(at)),
            watch.expires_at,
            watch.expires_at.saturating_sub(watch.since),
            watch.reserved.saturating_sub(sequence).into(),
            seen as u64,
        ] {
            number(value, &mut out);
        }
        out.extend_from_slice(&watch.told.to_le_bytes());
        let mut texts = Vec::with_capacity(512);
        write_hop(&watch.hop, &mut texts);
        for text in
            [watch.watcher.uri.as_bytes(), watch.watcher.number.as_deref().unwrap_or_default().as_bytes(), &watch.event]
        {
            number(text.len() as u64, &mut texts);
            texts.extend_from_slice(text);
        }
        watch.dialog.write_row(&mut texts);
        // Copied: an allocator may leave what shrinks where it is.
        fold(&known(aor), &texts, &mut out).then(|| Packed(Box::from(&*out)))
    }

    /// `None` for what [`Packer::pack`] has not made for this presentity.
    pub fn unpack(&self, aor: &Aor, packed: &Packed, shown: &Shown) -> Option<Watch> {
        let (&flags, mut rest) = packed.0.split_first()?;
        let mut numbers = [0; 6];
        for value in &mut numbers {
            *value = take_number(&mut rest)?;
        }
        let [until, last, expires_at, lasted, reserved, seen] = numbers;
        let (told, rest) = rest.split_first_chunk()?;
        let texts = unfold(&known(aor), rest)?;
        let mut texts = &*texts;
        let hop = take_hop(&mut texts)?;
        let uri = std::str::from_utf8(take_text(&mut texts)?).ok()?.into();
        let tel = Some(std::str::from_utf8(take_text(&mut texts)?).ok()?).filter(|n| !n.is_empty());
        let event = take_text(&mut texts)?.into();
        let dialog = Dialog::from_row(texts)?;
        let last = (flags & TOLD_SOMETHING != 0).then(|| self.instant(last));
        let idle = Idle { active: flags & ACTIVE != 0, until: self.instant(until), last };
        let DialogId { call_id, remote_tag, .. } = dialog.id();
        Some(Watch {
            key: self.dialog_key(&dialog_key_of(call_id, remote_tag)),
            package: if flags & SUMMARY == 0 { Package::Presence } else { Package::Summary },
            watcher: Arc::new(Watcher { uri, number: tel.map(Box::from), anonymous: flags & ANONYMOUS != 0 }),
            notifier: Notifier::from_idle(idle, if flags & SUMMARY == 0 { self.pace } else { crate::mailbox::PACE }),
            hop,
            contact: contact_for(&self.home, hop.transport(), hop.remote().ip()).into(),
            event,
            rates: None,
            seen: match seen {
                0 => Seen::Everything,
                1 => Seen::Nothing,
                place => Seen::Part(shown.get(place as usize - 2)?.clone()),
            },
            told: u64::from_le_bytes(*told),
            owed: false,
            reserved: dialog.local_sequence().unwrap_or(0) + reserved as u32,
            since: expires_at.saturating_sub(lasted),
            expires_at,
            filters: None,
            before: None,
            fetch: false,
            rejected: false,
            dialog,
        })
    }

    /// Rounded up, so that nothing ends too early.
    fn moment(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.started).as_nanos().div_ceil(1_000_000) as u64
    }

    fn instant(&self, moment: u64) -> Instant {
        self.started + Duration::from_millis(moment)
    }

    /// When a packed subscription ends.
    fn until(&self, packed: &Packed) -> Option<Instant> {
        take_number(&mut packed.0.get(1..)?).map(|at| self.instant(at))
    }
}

impl Held {
    /// Whether it is to a user's presence.
    pub fn is_presence(&self) -> bool {
        match self {
            Held::Awake(watch) => watch.is_presence(),
            Held::Packed(Packed(bytes)) => bytes.first().is_some_and(|flags| flags & SUMMARY == 0),
        }
    }

    /// When its notifier wants to be looked at.
    pub fn deadline(&self, packer: &Packer) -> Option<Instant> {
        match self {
            Held::Awake(watch) => watch.notifier.deadline(),
            Held::Packed(packed) => packer.until(packed),
        }
    }
}

/// Where these permissions stand, entered if they do not yet.
fn place(permissions: &Arc<Permissions>, shown: &mut Shown) -> Option<usize> {
    let known = shown.iter().position(|known| known == permissions);
    if known.is_none() && shown.len() < MAX_SHOWN {
        shown.push(permissions.clone());
        return Some(shown.len() - 1);
    }
    known
}

fn known(aor: &Aor) -> Vec<u8> {
    [COMMON, b"<sip:", aor.as_str().as_bytes(), b">"].concat()
}

fn take_text<'t>(texts: &mut &'t [u8]) -> Option<&'t [u8]> {
    let length = usize::try_from(take_number(texts)?).ok()?;
    let (text, rest) = texts.split_at_checked(length)?;
    *texts = rest;
    Some(text)
}

const BY_FLOW: u8 = 0;
const BY_ADDRESS: u8 = 1;
const BY_HOST: u8 = 2;

fn write_hop(hop: &Hop, out: &mut Vec<u8>) {
    let (kind, id) = match hop {
        Hop::Flow(flow) => (BY_FLOW, flow.id.0),
        Hop::Address { .. } => (BY_ADDRESS, 0),
        Hop::Host { host, .. } => (BY_HOST, host.0),
    };
    out.extend_from_slice(&[kind, hop.transport() as u8]);
    number(id, out);
    if let Hop::Flow(flow) = hop {
        write_address(&flow.local, out);
    }
    write_address(&hop.remote(), out);
}

fn take_hop(texts: &mut &[u8]) -> Option<Hop> {
    let (&[kind, transport], rest) = texts.split_first_chunk()?;
    *texts = rest;
    let transport = *Transport::ALL.get(usize::from(transport))?;
    let id = take_number(texts)?;
    let local = if kind == BY_FLOW { Some(take_address(texts)?) } else { None };
    let remote = take_address(texts)?;
    Some(match (kind, local) {
        (_, Some(local)) => Hop::Flow(Flow { transport, id: FlowId(id), local, remote }),
        (BY_ADDRESS, None) => Hop::Address { transport, remote },
        _ => Hop::Host { transport, remote, host: HostId(id) },
    })
}

fn write_address(address: &SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
    if let SocketAddr::V6(v6) = address {
        number(v6.flowinfo().into(), out);
        number(v6.scope_id().into(), out);
    }
}

fn take_address(texts: &mut &[u8]) -> Option<SocketAddr> {
    let (family, mut rest) = texts.split_first()?;
    let (ip, port) = match family {
        4 => {
            let (head, tail) = rest.split_first_chunk::<6>()?;
            rest = tail;
            let [a, b, c, d, port @ ..] = *head;
            (IpAddr::from([a, b, c, d]), port)
        }
        _ => {
            let (ip, tail) = rest.split_first_chunk::<16>()?;
            let (port, tail) = tail.split_first_chunk::<2>()?;
            rest = tail;
            (IpAddr::from(*ip), *port)
        }
    };
    let port = u16::from_be_bytes(port);
    *texts = rest;
    match ip {
        IpAddr::V4(_) => Some(SocketAddr::new(ip, port)),
        IpAddr::V6(ip) => {
            let (flow, scope) = (take_number(texts)?, take_number(texts)?);
            Some(SocketAddrV6::new(ip, port, u32::try_from(flow).ok()?, u32::try_from(scope).ok()?).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use sip_proto::Message;
    use sip_proto::subscription::NotifierEvent;

    use super::*;
    use crate::presentity::Presentity;
    use crate::watch::RESERVE;

    fn packer() -> Packer {
        let listener = (Transport::Udp, "192.0.2.7:5060".parse().unwrap());
        let home = Arc::new(Home::new("example.com", [listener]));
        Packer { started: Instant::now(), home, pace: Duration::from_secs(5), key: [7; 16] }
    }

    /// A subscription as handsets have them, whose NOTIFY was answered.
    fn watch(packer: &Packer) -> Watch {
        let subscribe = "SUBSCRIBE sip:alice@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK1\r\n\
            From: <sip:bob@example.com>;tag=83121\r\nTo: <sip:alice@example.com>\r\nCall-ID: 17-29113@192.0.2.9\r\n\
            CSeq: 1 SUBSCRIBE\r\nContact: <sip:bob@192.0.2.9:5060>\r\nEvent: presence\r\n\r\n";
        let message = Message::parse(subscribe.as_bytes()).unwrap();
        let mut dialog = Dialog::uas(&message, b"i0123456789abcdef").unwrap();
        dialog.responded(&message, 200);
        dialog.skip_to(1);
        let now = packer.started + Duration::from_millis(90_000);
        let (notifier, _) = Notifier::start(now, 3600, true, packer.pace);
        let (notifier, _) = notifier.step(now, NotifierEvent::Answered { status: 200, retry_after: None });
        let flow = Flow {
            transport: Transport::Udp,
            id: FlowId(3),
            local: "192.0.2.7:5060".parse().unwrap(),
            remote: "192.0.2.9:5060".parse().unwrap(),
        };
        Watch {
            key: packer.dialog_key(&dialog_key_of(b"17-29113@192.0.2.9", b"83121")),
            package: Package::Presence,
            watcher: Arc::new(Watcher { uri: "sip:bob@example.com".into(), number: None, anonymous: false }),
            contact: contact_for(&packer.home, flow.transport, flow.remote.ip()).into(),
            dialog,
            notifier,
            hop: Hop::Flow(flow),
            event: (*b"presence").into(),
            rates: None,
            seen: Seen::Everything,
            told: 0x0123_4567_89ab_cdef,
            owed: false,
            reserved: 1 + RESERVE,
            since: 1_790_000_000,
            expires_at: 1_790_003_600,
            filters: None,
            before: None,
            fetch: false,
            rejected: false,
        }
    }

    #[test]
    fn a_subscription_at_rest_is_small() {
        let packer = packer();
        let Packed(bytes) =
            packer.pack(&"alice@example.com".parse().unwrap(), &watch(&packer), &mut Shown::new()).unwrap();
        assert!(bytes.len() <= 144, "{}", bytes.len());
        assert!(size_of::<Presentity>() <= 48 && size_of::<Held>() == 16, "{}", size_of::<Presentity>());
    }

    #[test]
    fn what_is_packed_comes_back_as_it_was() {
        let (packer, aor) = (packer(), "alice@example.com".parse().unwrap());
        let mut shown = Shown::new();
        let some = Arc::new(Permissions::nothing());
        let changes: [&dyn Fn(&mut Watch); 7] = [
            &|_| {},
            &|w| w.seen = Seen::Part(some.clone()),
            &|w| w.seen = Seen::Nothing,
            &|w| {
                let watcher = Watcher { number: Some("tel:+49301234".into()), anonymous: true, ..(*w.watcher).clone() };
                w.watcher = Arc::new(watcher);
            },
            &|w| {
                let remote = "[2001:db8::9]:5061".parse().unwrap();
                w.hop = Hop::Host { transport: Transport::Udp, remote, host: HostId(77) };
            },
            &|w| w.hop = Hop::Address { transport: Transport::Udp, remote: "192.0.2.10:5070".parse().unwrap() },
            &|w| {
                (w.package, w.event) = (Package::Summary, (*b"message-summary;id=1").into());
                let idle = Idle { active: false, last: None, ..w.notifier.idle().unwrap() };
                w.notifier = Notifier::from_idle(idle, crate::mailbox::PACE);
            },
        ];
        for change in changes {
            let mut watch = watch(&packer);
            change(&mut watch);
            let packed = packer.pack(&aor, &watch, &mut shown).unwrap();
            assert_eq!(packer.until(&packed), watch.notifier.until());
            assert_eq!(Held::Packed(packed).is_presence(), watch.is_presence());
            let packed = packer.pack(&aor, &watch, &mut shown).unwrap();
            let unpacked = packer.unpack(&aor, &packed, &shown).unwrap();
            let contact = contact_for(&packer.home, watch.hop.transport(), watch.hop.remote().ip());
            watch.contact = contact.into();
            assert_eq!(format!("{unpacked:?}"), format!("{watch:?}"));
        }
        assert_eq!(shown.len(), 1);
    }

    #[test]
    fn who_has_something_to_do_stays_awake() {
        let (packer, aor) = (packer(), "alice@example.com".parse().unwrap());
        let changes: [&dyn Fn(&mut Watch); 4] = [
            &|w| w.owed = true,
            &|w| w.package = Package::Partial(None),
            &|w| w.notifier = w.notifier.clone().step(packer.started, NotifierEvent::Changed).0,
            &|w| w.event = vec![b'x'; crate::fold::MAX_TEXT].into(),
        ];
        for change in changes {
            let mut watch = watch(&packer);
            change(&mut watch);
            assert!(packer.pack(&aor, &watch, &mut Shown::new()).is_none());
        }
    }
}
