//! Reads every header of a message through its typed view, and holds what the view writes against what it read.

#![allow(dead_code)] // Each of its users takes what it needs.

use sip_proto::headers as h;
use sip_proto::{HeaderName, Message};

/// The headers that their view refuses.
pub fn refused(message: &Message<'_>) -> Vec<HeaderName> {
    let bytes = message.bytes();
    message.headers().iter().filter(|line| !readable(line.name, &bytes[line.value()])).map(|line| line.name).collect()
}

/// Reads the value, writes it, and reads it again; false when the first reading refuses it.
macro_rules! again {
    ($view:ty, $value:expr) => {
        match <$view>::parse($value) {
            None => false,
            Some(view) => {
                let mut out = Vec::new();
                view.write(&mut out);
                assert_eq!(<$view>::parse(&out), Some(view));
                true
            }
        }
    };
}

/// Reads the value and calls what the view offers; false when it refuses.
macro_rules! read {
    ($view:ty, $value:expr, |$v:ident| $use:expr) => {
        match <$view>::parse($value) {
            None => false,
            Some($v) => {
                let _ = $use;
                true
            }
        }
    };
}

/// Whether the view that the header's name calls for can read this value. Names without a view are readable.
pub fn readable(name: HeaderName, value: &[u8]) -> bool {
    use HeaderName::*;
    let each = |read: fn(&[u8]) -> bool| h::list(value).all(read);
    match name {
        Via => each(|v| {
            read!(h::Via, v, |v| (v.transport(), v.branch(), v.rport(), v.received(), v.maddr(), v.host_ip(), v.port))
        }),
        From | To | ReplyTo | PCalledPartyId => name_addr(value),
        Route | RecordRoute | Path | ServiceRoute | PAssertedIdentity | PPreferredIdentity | PAssociatedUri => {
            each(name_addr)
        }
        Contact => each(|v| {
            name_addr(v)
                && read!(h::Contact, v, |c| (
                    c.q(),
                    c.expires(),
                    c.instance(),
                    c.reg_id(),
                    c.pub_gruu(),
                    c.temp_gruu(),
                    c.features().count()
                ))
        }),
        ReferTo => read!(h::ReferTo, value, |r| (r.method(), r.embedded("Replaces"))),
        ReferredBy => read!(h::ReferredBy, value, |r| r.cid()),
        HistoryInfo => each(|v| read!(h::HistoryInfo, v, |i| (i.index(), i.made_from(), i.cause(), i.reason_cause()))),
        Diversion => each(|v| read!(h::Diversion, v, |d| (d.reason(), d.counter()))),
        PServedUser => read!(h::ServedUser, value, |u| (u.case, u.registered)),
        CSeq => again!(h::CSeq, value),
        RAck => again!(h::RAck, value),
        Event => again!(h::Event, value),
        SubscriptionState => again!(h::SubscriptionState, value),
        Expires | MinExpires | FlowTimer => h::delta_seconds(value).is_some(),
        MaxForwards => h::max_forwards(value).is_some(),
        RSeq => h::response_num(value).is_some(),
        SessionExpires => again!(h::SessionExpires, value),
        MinSe => h::min_se(value).is_some(),
        Replaces => again!(h::Replaces, value),
        TargetDialog => again!(h::TargetDialog, value),
        Reason => each(|v| read!(h::Reason, v, |r| (r.cause(), r.text()))),
        RetryAfter => again!(h::RetryAfter, value),
        Accept => each(|v| again!(h::MediaType, v) && read!(h::MediaType, v, |m| (m.q(), m.boundary()))),
        ContentType => again!(h::MediaType, value),
        ContentDisposition => again!(h::ContentDisposition, value),
        Allow => {
            let mut out = Vec::new();
            h::MethodSet::parse(value).write(&mut out);
            assert_eq!(h::MethodSet::parse(&out), h::MethodSet::parse(value));
            true
        }
        Privacy => {
            let mut out = Vec::new();
            h::Privacy::parse(value).write(&mut out);
            assert_eq!(h::Privacy::parse(&out), h::Privacy::parse(value));
            true
        }
        Warning => each(|v| match h::Warning::parse(v) {
            None => false,
            Some(w) => {
                let mut out = Vec::new();
                h::Warning::write(w.code, w.agent, &w.text(), &mut out);
                assert_eq!(h::Warning::parse(&out).map(|w| w.code), Some(w.code));
                true
            }
        }),
        Date => again!(h::Date, value),
        SecurityClient | SecurityServer | SecurityVerify => each(|v| {
            again!(h::SecurityMechanism, v) && read!(h::SecurityMechanism, v, |m| (m.q(), m.spis(), m.ports()))
        }),
        PAccessNetworkInfo => again!(h::AccessNetworkInfo, value),
        PVisitedNetworkId => each(|v| again!(h::VisitedNetworkId, v)),
        PChargingVector => again!(h::ChargingVector, value),
        PChargingFunctionAddresses => {
            read!(h::ChargingFunctionAddresses, value, |c| (c.ccf().count(), c.ecf().count()))
        }
        PAssertedService | PPreferredService => h::service_urn(value).is_some(),
        _ => true,
    }
}

/// A name-addr that reads back, with a URI that stands by its own comparison rules.
fn name_addr(value: &[u8]) -> bool {
    let Some(addr) = h::NameAddr::parse(value) else { return false };
    let mut out = Vec::new();
    addr.write(&mut out);
    let again = h::NameAddr::parse(&out).expect("what was written reads back");
    assert_eq!((again.display, again.addr, again.params), (addr.display, addr.addr, addr.params));
    let _ = (addr.display_name(), addr.tag());
    if addr.is_star() {
        return true;
    }
    let Some(uri) = addr.uri() else { return false };
    let aor = uri.aor();
    let canonical = sip_proto::Uri::parse(&aor).expect("an address of record is a URI");
    assert_eq!(canonical.aor(), aor, "canonical form is a fixed point");
    assert!(uri.equivalent(&uri));
    true
}
