//! What the store keeps of a publication and of a subscription. A changed form gets a new version byte.

use std::net::SocketAddr;
use std::sync::Arc;

use sip_ims::ports::StateRow;
use sip_proto::dialog::Dialog;
use sip_proto::{Hop, Transport};

use crate::document::Published;
use crate::filters::Asked;
use crate::lists::Member;
use crate::presentity::{Handset, Publication};
use crate::rlmi::Dialect;
use crate::rules::Watcher;
use crate::watch::{DialogKey, Following, Package, Watch};
use crate::winfo::Untold;

const VERSION: u8 = 1;

/// Beside the kind of a subscription.
const ANONYMOUS: u8 = 2;
const FILTERS: u8 = 16;
const CONTAINED: u8 = 32;
const LINPHONE: u8 = 64;

/// A subscription as its row has it.
#[derive(Debug)]
pub struct Kept {
    pub key: DialogKey,
    /// `None`: a stored list, which is looked up anew.
    pub package: Option<Package>,
    pub dialog: Dialog,
    pub watcher: Arc<Watcher>,
    /// How to reach the watcher, if that outlives a process.
    pub hop: Option<Hop>,
    pub contact: Box<[u8]>,
    pub event: Box<[u8]>,
    pub reserved: u32,
    pub since: u64,
    pub filters: Option<Arc<Asked>>,
}

pub fn write_publication(publication: &Publication, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&publication.etag.to_le_bytes());
    match publication.handset {
        None => out.push(0),
        Some(handset) => {
            out.push(1 + u8::from(handset.instance));
            out.extend_from_slice(&handset.id.to_le_bytes());
        }
    }
    publication.document.write_row(out);
}

pub fn read_publication(row: &StateRow<'_>) -> Option<Publication> {
    let id = u64::from_str_radix(row.key.strip_prefix('p')?, 16).ok()?;
    let mut fields = Fields(row.body);
    (fields.byte()? == VERSION).then_some(())?;
    let etag = fields.u64()?;
    let handset = match fields.byte()? {
        0 => None,
        kind @ 1..=2 => Some(Handset { id: fields.u64()?, instance: kind == 2 }),
        _ => return None,
    };
    let document = Arc::new(Published::from_row(fields.0)?);
    Some(Publication { id, etag, expires_at: u64::try_from(row.expires_at).ok()?, handset, document })
}

pub fn write_watch(watch: &Watch, out: &mut Vec<u8>) {
    out.push(VERSION);
    let kind = match watch.package {
        Package::Presence => 0,
        Package::Winfo(_) => 1,
        Package::Partial(_) => 4,
        Package::List(_) => 5,
        Package::Summary => 8,
    };
    let contained = match &watch.package {
        Package::List(following) if following.contained => Some(following),
        _ => None,
    };
    let linphone = contained.is_some_and(|following| following.dialect == Dialect::Linphone);
    let flags = [(ANONYMOUS, watch.watcher.anonymous), (FILTERS, watch.filters.is_some())];
    let flags = flags.into_iter().chain([(CONTAINED, contained.is_some()), (LINPHONE, linphone)]);
    out.push(flags.fold(kind, |all, (flag, on)| if on { all | flag } else { all }));
    out.extend_from_slice(&watch.reserved.to_le_bytes());
    out.extend_from_slice(&watch.since.to_le_bytes());
    out.push(watch.hop.transport() as u8);
    text(watch.hop.remote().to_string().as_bytes(), out);
    text(watch.watcher.uri.as_bytes(), out);
    text(watch.watcher.number.as_deref().unwrap_or_default().as_bytes(), out);
    text(&watch.event, out);
    text(&watch.contact, out);
    if let Some(asked) = &watch.filters {
        let mut bodies = Vec::new();
        asked.write_row(&mut bodies);
        text(&bodies, out);
    }
    if let Some(following) = contained {
        text(following.uri.as_str().as_bytes(), out);
        out.extend_from_slice(&(following.members.len() as u16).to_le_bytes());
        for Member { uri, name } in &*following.members {
            text(uri.as_bytes(), out);
            text(name.as_deref().unwrap_or_default().as_bytes(), out);
        }
    }
    watch.dialog.write_row(out);
}

/// The dialog of a subscription's row; `None`: another kind of row.
pub fn dialog_of(row: &StateRow<'_>) -> Option<DialogKey> {
    u128::from_str_radix(row.key.strip_prefix('s')?, 16).ok().map(DialogKey)
}

pub fn read_watch(row: &StateRow<'_>) -> Option<Kept> {
    let key = dialog_of(row)?;
    let mut fields = Fields(row.body);
    (fields.byte()? == VERSION).then_some(())?;
    let flags = fields.byte()?;
    let (reserved, since) = (fields.u32()?, fields.u64()?);
    let transport = *Transport::ALL.get(usize::from(fields.byte()?))?;
    let remote: SocketAddr = fields.utf8()?.parse().ok()?;
    // A connection ends with its process.
    let hop = (!transport.is_reliable()).then_some(Hop::Address { transport, remote });
    let uri = Arc::from(fields.utf8()?);
    let number = Some(fields.utf8()?).filter(|n| !n.is_empty()).map(Box::from);
    let watcher = Arc::new(Watcher { uri, number, anonymous: flags & ANONYMOUS != 0 });
    let (event, contact) = (fields.text()?.into(), fields.text()?.into());
    let filters = match flags & FILTERS {
        0 => None,
        _ => Some(Arc::new(Asked::from_row(fields.text()?)?)),
    };
    let dialect = if flags & LINPHONE == 0 { Dialect::Standard } else { Dialect::Linphone };
    let contained = if flags & CONTAINED == 0 { None } else { Some(Following { dialect, ..fields.list()? }) };
    let dialog = Dialog::from_row(fields.0)?;
    let package = match flags & !(ANONYMOUS | FILTERS | CONTAINED | LINPHONE) {
        0 => Some(Package::Presence),
        4 => Some(Package::Partial(None)),
        8 => Some(Package::Summary),
        1 => Some(Package::Winfo(Box::new(Untold::new()))),
        5 => contained.map(|following| Package::List(Box::new(following))),
        _ => return None,
    };
    Some(Kept { key, package, dialog, watcher, hop, contact, event, reserved, since, filters })
}

/// At most 64 KiB, as everything that comes out of one SIP header.
fn text(text: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&text[..usize::from(length)]);
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_le_bytes(self.array()?);
        let (text, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        Some(text)
    }

    /// A list that came with its subscription.
    fn list(&mut self) -> Option<Following> {
        let uri = self.utf8()?.parse().ok()?;
        let mut members = Vec::new();
        for _ in 0..u16::from_le_bytes(self.array()?) {
            let (uri, name) = (self.utf8()?.into(), self.utf8()?);
            members.push(Member { uri, name: Some(name).filter(|n| !n.is_empty()).map(Box::from) });
        }
        Some(Following { contained: true, ..Following::of(uri, members.into()) })
    }

    fn utf8(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.text()?).ok()
    }
}
