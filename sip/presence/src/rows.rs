//! What the store keeps of a publication and of a subscription. A changed form gets a new version byte.

use std::net::SocketAddr;
use std::sync::Arc;

use sip_ims::ports::StateRow;
use sip_proto::dialog::Dialog;
use sip_proto::{Hop, Transport};

use crate::document::Published;
use crate::filters::Asked;
use crate::presentity::{Handset, Publication};
use crate::rules::Watcher;
use crate::watch::{DialogKey, Package, Watch};
use crate::winfo::Untold;

const VERSION: u8 = 1;

/// A subscription as its row has it.
#[derive(Debug)]
pub struct Kept {
    pub key: DialogKey,
    /// `None`: a list, which is looked up anew.
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
    out.push(kind | u8::from(watch.watcher.anonymous) << 1 | u8::from(watch.filters.is_some()) << 4);
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
    let watcher = Arc::new(Watcher { uri, number, anonymous: flags & 2 != 0 });
    let (event, contact) = (fields.text()?.into(), fields.text()?.into());
    let filters = match flags & 16 {
        0 => None,
        _ => Some(Arc::new(Asked::from_row(fields.text()?)?)),
    };
    let dialog = Dialog::from_row(fields.0)?;
    let package = match flags & !(2 | 16) {
        0 => Some(Package::Presence),
        4 => Some(Package::Partial(None)),
        8 => Some(Package::Summary),
        1 => Some(Package::Winfo(Box::new(Untold::new()))),
        5 => None,
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

    fn utf8(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.text()?).ok()
    }
}
