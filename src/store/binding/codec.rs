//! The stored form of changes to bindings and to presence state: records, one after the other.
//!
//! ```text
//! record  = tag:u8 length:u32 body
//! put (4) = expires_at:i64 cseq:u32 reg_id:u32 q:u16 flow length:u16*9 bytes   aor key contact params path instance call_id
//!                                                                     user_agent node; an empty key is the contact
//! remove (2) = text*2                                                  aor key
//! remove all (3) = text                                                aor
//! forget (5) = text*3                                                  aor key node
//! state (6) = expires_at:i64 text*3 bytes                              owner key node, and the body to the record's end
//! text    = length:u16 bytes
//! flow    = 0:u8 | transport+1:u8 id:u64 address*2                     local remote
//! address = 4:u8 octets*4 port:u16 | 6:u8 octets*16 port:u16
//! ```
//! Integers are little-endian. A changed form gets a new tag; old tags stay readable.

use std::net::{IpAddr, SocketAddr};

use sip_ims::ports::{BindingChange, BindingRow, MAX_BINDING, MAX_STATE, StateChange, StateRow, StoreError};
use sip_proto::{Flow, FlowId, Transport};

/// One change, of whatever kind its row is. Bindings are owned by their address-of-record.
#[derive(Clone, PartialEq, Debug)]
pub enum Change<'a> {
    Put(Row<'a>),
    Remove { owner: &'a str, key: &'a str },
    RemoveAll { owner: &'a str },
    Forget { owner: &'a str, key: &'a str, node: &'a str },
}

#[derive(Clone, PartialEq, Debug)]
pub enum Row<'a> {
    Binding(BindingRow<'a>),
    State(StateRow<'a>),
}

impl<'a> Row<'a> {
    pub fn owner(&self) -> &'a str {
        match self {
            Row::Binding(row) => row.aor,
            Row::State(row) => row.owner,
        }
    }

    pub fn key(&self) -> &'a str {
        match self {
            Row::Binding(row) => row.key,
            Row::State(row) => row.key,
        }
    }

    pub fn node(&self) -> &'a str {
        match self {
            Row::Binding(row) => row.node,
            Row::State(row) => row.node,
        }
    }

    /// Unix seconds.
    pub fn expires_at(&self) -> i64 {
        match self {
            Row::Binding(row) => row.expires_at,
            Row::State(row) => row.expires_at,
        }
    }

    pub fn binding(self) -> Option<BindingRow<'a>> {
        match self {
            Row::Binding(row) => Some(row),
            Row::State(_) => None,
        }
    }

    pub fn state(self) -> Option<StateRow<'a>> {
        match self {
            Row::Binding(_) => None,
            Row::State(row) => Some(row),
        }
    }
}

impl<'a> From<BindingChange<'a>> for Change<'a> {
    fn from(change: BindingChange<'a>) -> Change<'a> {
        match change {
            BindingChange::Put(row) => Change::Put(Row::Binding(row)),
            BindingChange::Remove { aor, key } => Change::Remove { owner: aor, key },
            BindingChange::RemoveAll { aor } => Change::RemoveAll { owner: aor },
            BindingChange::Forget { aor, key, node } => Change::Forget { owner: aor, key, node },
        }
    }
}

impl<'a> From<StateChange<'a>> for Change<'a> {
    fn from(change: StateChange<'a>) -> Change<'a> {
        match change {
            StateChange::Put(row) => Change::Put(Row::State(row)),
            StateChange::Remove { owner, key } => Change::Remove { owner, key },
            StateChange::Forget { owner, key, node } => Change::Forget { owner, key, node },
        }
    }
}

/// Appends one record; nothing is appended when it is refused.
pub fn encode(change: &Change<'_>, out: &mut Vec<u8>) -> Result<(), StoreError> {
    let start = out.len();
    let result = append(change, start, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn append(change: &Change<'_>, start: usize, out: &mut Vec<u8>) -> Result<(), StoreError> {
    out.extend_from_slice(&[0; HEAD]);
    let mut limit = MAX_BINDING;
    let tag = match change {
        Change::Put(Row::State(row)) => {
            out.extend_from_slice(&row.expires_at.to_le_bytes());
            text(row.owner, out)?;
            text(row.key, out)?;
            text(row.node, out)?;
            out.extend_from_slice(row.body);
            limit = MAX_STATE;
            STATE
        }
        Change::Put(Row::Binding(row)) => {
            out.extend_from_slice(&row.expires_at.to_le_bytes());
            out.extend_from_slice(&row.cseq.to_le_bytes());
            out.extend_from_slice(&row.reg_id.to_le_bytes());
            out.extend_from_slice(&row.q.to_le_bytes());
            flow(row.flow.as_ref(), out);
            // Of most bindings the contact is the key: it is written once.
            let key = if row.key == row.contact { "" } else { row.key };
            let fields =
                [row.aor, key, row.contact, row.params, row.path, row.instance, row.call_id, row.user_agent, row.node];
            for field in fields {
                let length = u16::try_from(field.len()).map_err(|_| StoreError::TooLarge)?;
                out.extend_from_slice(&length.to_le_bytes());
            }
            let texts = out.len();
            fields.iter().for_each(|f| out.extend_from_slice(f.as_bytes()));
            if memchr::memchr(0, &out[texts..]).is_some() {
                return Err(StoreError::Text);
            }
            PUT
        }
        Change::Remove { owner, key } => {
            text(owner, out)?;
            text(key, out)?;
            REMOVE
        }
        Change::RemoveAll { owner } => {
            text(owner, out)?;
            REMOVE_ALL
        }
        Change::Forget { owner, key, node } => {
            text(owner, out)?;
            text(key, out)?;
            text(node, out)?;
            FORGET
        }
    };
    let length = out.len() - start - HEAD;
    if length > limit {
        return Err(StoreError::TooLarge);
    }
    out[start] = tag;
    // Fits: both limits are far below 2^32.
    out[start + 1..start + HEAD].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

fn text(field: &str, out: &mut Vec<u8>) -> Result<(), StoreError> {
    let length = u16::try_from(field.len()).map_err(|_| StoreError::TooLarge)?;
    if memchr::memchr(0, field.as_bytes()).is_some() {
        return Err(StoreError::Text);
    }
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(field.as_bytes());
    Ok(())
}

fn flow(flow: Option<&Flow>, out: &mut Vec<u8>) {
    let Some(flow) = flow else { return out.push(0) };
    out.push(flow.transport as u8 + 1);
    out.extend_from_slice(&flow.id.0.to_le_bytes());
    for address in [flow.local, flow.remote] {
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
        out.extend_from_slice(&address.port().to_le_bytes());
    }
}

/// The records of a batch, each with the bytes it takes there. Ends at the first damaged one, with an error.
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub fn new(batch: &'a [u8]) -> Records<'a> {
        Records { rest: batch }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(Change<'a>, &'a [u8]), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = split(self.rest).and_then(|(record, rest)| {
            self.rest = rest;
            Some((decode(record)?, record))
        });
        if record.is_none() {
            self.rest = &[];
        }
        Some(record.ok_or(StoreError::Damaged))
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_le_bytes(bytes.get(1..HEAD)?.try_into().ok()?) as usize;
    (length <= MAX_BINDING.max(MAX_STATE)).then_some(())?;
    bytes.split_at_checked(HEAD + length)
}

fn decode(record: &[u8]) -> Option<Change<'_>> {
    let mut body = Reader(record.get(HEAD..)?);
    let change = match record[0] {
        PUT => {
            let expires_at = i64::from_le_bytes(body.array()?);
            let cseq = u32::from_le_bytes(body.array()?);
            let reg_id = u32::from_le_bytes(body.array()?);
            let q = u16::from_le_bytes(body.array()?);
            let flow = body.flow()?;
            let lengths: [u8; 2 * FIELDS] = body.array()?;
            // Looked at once for all: a refresh is read here more often than anywhere.
            let mut texts = Texts { lengths: &lengths, rest: std::str::from_utf8(std::mem::take(&mut body.0)).ok()? };
            let (aor, key, contact) = (texts.next()?, texts.next()?, texts.next()?);
            let row = BindingRow {
                aor,
                key: if key.is_empty() { contact } else { key },
                contact,
                params: texts.next()?,
                path: texts.next()?,
                instance: texts.next()?,
                call_id: texts.next()?,
                user_agent: texts.next()?,
                node: texts.next()?,
                flow,
                expires_at,
                cseq,
                reg_id,
                q,
            };
            texts.rest.is_empty().then_some(Change::Put(Row::Binding(row)))?
        }
        REMOVE => Change::Remove { owner: body.text()?, key: body.text()? },
        REMOVE_ALL => Change::RemoveAll { owner: body.text()? },
        FORGET => Change::Forget { owner: body.text()?, key: body.text()?, node: body.text()? },
        STATE => {
            let expires_at = i64::from_le_bytes(body.array()?);
            let (owner, key, node) = (body.text()?, body.text()?, body.text()?);
            let row = StateRow { owner, key, node, expires_at, body: std::mem::take(&mut body.0) };
            Change::Put(Row::State(row))
        }
        _ => return None,
    };
    body.0.is_empty().then_some(change)
}

/// The texts of a put, one after the other.
struct Texts<'a, 'l> {
    lengths: &'l [u8],
    rest: &'a str,
}

impl<'a> Texts<'a, '_> {
    fn next(&mut self) -> Option<&'a str> {
        let (length, lengths) = self.lengths.split_first_chunk()?;
        let (text, rest) = self.rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        (self.lengths, self.rest) = (lengths, rest);
        Some(text)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = u16::from_le_bytes(self.array()?);
        std::str::from_utf8(self.take(usize::from(length))?).ok()
    }

    fn flow(&mut self) -> Option<Option<Flow>> {
        let [tag] = self.array()?;
        let Some(index) = tag.checked_sub(1) else { return Some(None) };
        let transport = *Transport::ALL.get(usize::from(index))?;
        let id = FlowId(u64::from_le_bytes(self.array()?));
        Some(Some(Flow { transport, id, local: self.address()?, remote: self.address()? }))
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let ip = match self.array()? {
            [4] => IpAddr::from(self.array::<4>()?),
            [6] => IpAddr::from(self.array::<16>()?),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_le_bytes(self.array()?)))
    }
}

const HEAD: usize = 5;
/// Texts of a put.
const FIELDS: usize = 9;
/// 1 was an earlier form.
const PUT: u8 = 4;
const REMOVE: u8 = 2;
const REMOVE_ALL: u8 = 3;
const FORGET: u8 = 5;
const STATE: u8 = 6;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn row<'a>(aor: &'a str, key: &'a str) -> BindingRow<'a> {
        BindingRow {
            aor,
            key,
            contact: "sip:alice@192.0.2.1:5060;transport=udp",
            params: "",
            path: "",
            instance: "",
            call_id: "a84b4c76e66710@pc33.atlanta.com",
            user_agent: "phone/1.0",
            node: "n1",
            flow: Some(Flow {
                transport: Transport::Udp,
                id: FlowId(3),
                local: "127.0.0.1:5060".parse().unwrap(),
                remote: "[2001:db8::1]:5062".parse().unwrap(),
            }),
            expires_at: 1_800_000_000,
            cseq: 7,
            reg_id: 0,
            q: 1000,
        }
    }

    #[test]
    fn changes_read_back_as_written() {
        let state = StateRow { owner: "alice@x", key: "p1", node: "n1", expires_at: 9, body: b"\0\xff<" };
        let changes = [
            StateChange::Put(StateRow { body: b"", ..state.clone() }).into(),
            StateChange::Put(state).into(),
            StateChange::Forget { owner: "alice@x", key: "p1", node: "n1" }.into(),
            BindingChange::Put(row("alice@x", "k")).into(),
            BindingChange::Remove { aor: "alice@x", key: "k" }.into(),
            BindingChange::RemoveAll { aor: "bob@x" }.into(),
            BindingChange::Forget { aor: "alice@x", key: "k", node: "n1" }.into(),
            BindingChange::Put(BindingRow { flow: None, ..row("", "k") }).into(),
            BindingChange::Put(row("alice@x", row("", "").contact)).into(),
            BindingChange::Put(BindingRow { path: "", user_agent: "Telefon für zwei", ..row("bob@x", "<urn:x>1") })
                .into(),
        ];
        let mut batch = Vec::new();
        changes.iter().for_each(|c| encode(c, &mut batch).unwrap());
        let read: Vec<_> = Records::new(&batch).map(|r| r.unwrap().0).collect();
        assert_eq!(read, changes);
    }

    #[test]
    fn a_refused_change_leaves_the_batch_as_it_was() {
        let mut batch = b"before".to_vec();
        let long = "x".repeat(MAX_BINDING);
        assert!(matches!(encode(&Change::Remove { owner: "a", key: &long }, &mut batch), Err(StoreError::TooLarge)));
        assert!(matches!(encode(&BindingChange::Put(row("a", "k\0")).into(), &mut batch), Err(StoreError::Text)));
        assert_eq!(batch, b"before");
    }

    #[test]
    fn a_cut_batch_gives_its_whole_records_and_then_an_error() {
        let mut batch = Vec::new();
        encode(&Change::RemoveAll { owner: "a@x" }, &mut batch).unwrap();
        encode(&BindingChange::Put(row("b@x", "k")).into(), &mut batch).unwrap();
        batch.pop();
        let read: Vec<_> = Records::new(&batch).collect();
        assert!(matches!(read[..], [Ok(_), Err(StoreError::Damaged)]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Records::new(&bytes).count() <= bytes.len());
        }
    }
}
