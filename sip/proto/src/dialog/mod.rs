//! Dialogs as values (RFC 3261 §12, RFC 5057).
//!
//! A [`Dialog`] is made from the request and response that set it up, checks what comes in it, writes what goes out in it,
//! and turns into a row of bytes and back, so that another node can go on with it. It holds no message and no timer.
//! [`Forks`] keeps the dialogs that one INVITE may set up.

mod fork;
mod id;
mod impact;
mod text;

pub use fork::{Fork, Forks, MAX_FORKS};
pub use id::DialogId;
pub use impact::Impact;

use text::{Part, Text};

use crate::build::{Request, Writer};
use crate::headers::{NameAddr, list};
use crate::message::Message;
use crate::method::Method;
use crate::name::HeaderName;
use crate::uri::Uri;

/// Record-Route values that a route set may have.
pub const MAX_ROUTES: usize = 32;

/// Which end we were when the dialog was set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Uac,
    Uas,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DialogState {
    Early,
    Confirmed,
    Terminated,
}

/// Why a message sets up no dialog.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoDialog {
    /// The peer's fault; a request gets 400.
    #[error("Missing Or Malformed {}", .0.as_str())]
    Header(HeaderName),
    /// The peer's fault; a request gets 513.
    #[error("Dialog State Too Large")]
    TooLarge,
}

/// Why a request in a dialog is turned away. [`OutOfOrder::STATUS`] is its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("CSeq Out Of Order")]
pub struct OutOfOrder;

impl OutOfOrder {
    /// RFC 3261 §12.2.2.
    pub const STATUS: u16 = 500;
}

/// No more requests can be sent: the dialog is over, or its 2^31 sequence numbers are used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the dialog is over")]
pub struct Over;

/// One dialog as one end sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dialog {
    role: Role,
    state: DialogState,
    secure: bool,
    /// INVITE, subscription and refer usages that share the dialog (RFC 5057 §4); it ends with the last.
    usages: u8,
    local_seq: Option<u32>,
    remote_seq: Option<u32>,
    text: Text,
}

impl Dialog {
    /// The caller's side (RFC 3261 §12.1.2), from a response 101 to 299. A provisional response without Contact, which is
    /// met though it may not be, leaves the Request-URI as the remote target until the final one.
    pub fn uac(request: &Message<'_>, response: &Message<'_>) -> Result<Dialog, NoDialog> {
        let (from, to) = (address(request, HeaderName::From)?, address(response, HeaderName::To)?);
        let early = response.status() < 200;
        let target = match contact(response) {
            Ok(target) => target,
            Err(_) if early && response.value(HeaderName::Contact).is_none() => request.request_uri(),
            Err(e) => return Err(e),
        };
        let routes = route_set(response, true)?;
        Ok(Dialog {
            role: Role::Uac,
            state: if early { DialogState::Early } else { DialogState::Confirmed },
            secure: is_sips(request),
            usages: 1,
            local_seq: Some(sequence(request)?),
            remote_seq: None,
            text: Text::new(call_id(request)?, &from, from.tag(), &to, to.tag(), target, &routes)?,
        })
    }

    /// The called side (RFC 3261 §12.1.1). `local_tag` is the To tag of our response; the dialog is early until
    /// [`Dialog::responded`] is told of a 2xx.
    pub fn uas(request: &Message<'_>, local_tag: &[u8]) -> Result<Dialog, NoDialog> {
        let (from, to) = (address(request, HeaderName::From)?, address(request, HeaderName::To)?);
        let routes = route_set(request, false)?;
        Ok(Dialog {
            role: Role::Uas,
            state: DialogState::Early,
            secure: is_sips(request),
            usages: 1,
            local_seq: None,
            remote_seq: Some(sequence(request)?),
            text: Text::new(call_id(request)?, &to, Some(local_tag), &from, from.tag(), contact(request)?, &routes)?,
        })
    }

    /// A subscriber's side: the first NOTIFY sets the dialog up, before or after the 2xx (RFC 6665 §4.4.1). A forked
    /// SUBSCRIBE gives one dialog for each notifier.
    pub fn by_notify(subscribe: &Message<'_>, notify: &Message<'_>) -> Result<Dialog, NoDialog> {
        let tag = address(notify, HeaderName::To)?.tag().unwrap_or_default();
        let mut dialog = Dialog::uas(notify, tag)?;
        dialog.role = Role::Uac;
        dialog.state = DialogState::Confirmed;
        dialog.local_seq = Some(sequence(subscribe)?);
        dialog.secure = is_sips(subscribe);
        Ok(dialog)
    }

    pub fn id(&self) -> DialogId<'_> {
        DialogId {
            call_id: self.text.get(Part::CallId),
            local_tag: self.text.get(Part::LocalTag),
            remote_tag: self.text.get(Part::RemoteTag),
        }
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn state(&self) -> DialogState {
        self.state
    }

    /// The dialog was set up with a sips URI: our Contacts in it must be sips too.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The peer's Contact URI.
    pub fn remote_target(&self) -> &[u8] {
        self.text.get(Part::Target)
    }

    /// Our address with its display name, without a tag.
    pub fn local(&self) -> &[u8] {
        self.text.get(Part::Local)
    }

    /// The peer's address with its display name, without a tag.
    pub fn remote(&self) -> &[u8] {
        self.text.get(Part::Remote)
    }

    /// The URI that says where the next request goes first (RFC 3261 §8.1.2).
    pub fn next_hop(&self) -> &[u8] {
        match list(self.text.get(Part::Routes)).next().and_then(NameAddr::parse) {
            Some(route) => route.addr,
            None => self.remote_target(),
        }
    }

    /// The number of the last request we sent.
    pub fn local_sequence(&self) -> Option<u32> {
        self.local_seq
    }

    /// Numbers up to this one may have been sent by who had the dialog before: goes on behind it.
    pub fn skip_to(&mut self, number: u32) {
        self.local_seq = Some(self.local_seq.map_or(number, |n| n.max(number)));
    }

    pub fn remote_sequence(&self) -> Option<u32> {
        self.remote_seq
    }

    /// Another usage begins in this dialog: a subscription beside a call.
    pub fn add_usage(&mut self) {
        self.usages = self.usages.saturating_add(1);
    }

    /// A usage is over; the last one ends the dialog.
    pub fn end_usage(&mut self) {
        self.usages = self.usages.saturating_sub(1);
        if self.usages == 0 {
            self.state = DialogState::Terminated;
        }
    }

    /// Ends the dialog with all its usages.
    pub fn terminate(&mut self) {
        self.usages = 0;
        self.state = DialogState::Terminated;
    }

    /// Checks a new request that the peer sent in this dialog and takes its number over (RFC 3261 §12.2.2). ACK and CANCEL
    /// carry the number of their INVITE and pass. A number may skip: others may have been challenged on the way.
    pub fn receive(&mut self, request: &Message<'_>) -> Result<(), OutOfOrder> {
        if matches!(request.method(), Method::Ack | Method::Cancel) {
            return Ok(());
        }
        let number = request.cseq().ok_or(OutOfOrder)?.number;
        if self.remote_seq.is_some_and(|last| number <= last) {
            return Err(OutOfOrder);
        }
        self.remote_seq = Some(number);
        Ok(())
    }

    /// We answered a request in this dialog, or the one that set it up, with this status. What a request asks for happens
    /// only when it is accepted (RFC 3261 §12.2.2).
    pub fn responded(&mut self, request: &Message<'_>, status: u16) {
        match (request.method(), status) {
            (_, ..=199) => {}
            (method, 200..=299) => {
                self.refresh_target(method, request);
                self.accepted(method);
            }
            (Method::Invite | Method::Subscribe, _) if self.state == DialogState::Early && self.role == Role::Uas => {
                self.end_usage()
            }
            _ => {}
        }
    }

    /// The peer answered a request that we sent in this dialog. Says how far a failure reaches; the dialog has ended when
    /// its last usage has. [`Impact::Usage`] wants [`Dialog::end_usage`] unless the request was not part of the usage.
    pub fn response(&mut self, response: &Message<'_>) -> Impact {
        let method = response.method();
        match response.status() {
            ..=199 => Impact::None,
            200..=299 => {
                if method == Method::Invite && self.state == DialogState::Early {
                    // RFC 3261 §13.2.2.4: the 2xx settles the route set.
                    if let Ok(routes) = route_set(response, true) {
                        let _ = self.text.set(Part::Routes, &routes);
                    }
                }
                self.refresh_target(method, response);
                self.accepted(method);
                Impact::None
            }
            status => {
                let impact = Impact::of(method, status);
                if impact == Impact::Dialog || method == Method::Bye && !matches!(status, 401 | 407) {
                    // RFC 3261 §15.1.1: a BYE ends the session whatever the answer, but a challenge wants another try.
                    self.terminate();
                    return Impact::Dialog;
                }
                if method == Method::Invite && self.state == DialogState::Early && self.role == Role::Uac {
                    self.terminate();
                    return Impact::Dialog;
                }
                impact
            }
        }
    }

    fn accepted(&mut self, method: Method) {
        match method {
            Method::Invite | Method::Subscribe | Method::Refer if self.state == DialogState::Early => {
                self.state = DialogState::Confirmed
            }
            Method::Bye => self.end_usage(),
            _ => {}
        }
    }

    /// Target refresh requests and their 2xx (RFC 3261 §12.2, RFC 3311 §5, RFC 6665 §4.4.1).
    fn refresh_target(&mut self, method: Method, message: &Message<'_>) {
        let refreshes =
            matches!(method, Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer);
        if refreshes && let Ok(target) = contact(message) {
            // One that does not fit is as one that was not sent.
            let _ = self.text.set(Part::Target, target);
        }
    }

    /// Writes the next request (RFC 3261 §12.2.1.1) and gives its CSeq number. `via` writes the value of the one Via; `more`
    /// adds Contact and whatever else; Max-Forwards is 70. Not for ACK and CANCEL.
    pub fn write_request(
        &mut self,
        method: Method,
        out: &mut Vec<u8>,
        via: impl FnOnce(&mut Vec<u8>),
        more: impl FnOnce(&mut Writer<'_>),
    ) -> Result<u32, Over> {
        if self.state == DialogState::Terminated {
            return Err(Over);
        }
        let number = self.local_seq.map_or(1, |n| n + 1);
        if number >= 1 << 31 {
            return Err(Over);
        }
        self.local_seq = Some(number);
        self.write(method, number, out, via, more);
        Ok(number)
    }

    /// Writes the ACK for a 2xx (RFC 3261 §13.2.2.4); `number` is that of the INVITE. Credentials of the INVITE go into
    /// `more`.
    pub fn write_ack(
        &self,
        number: u32,
        out: &mut Vec<u8>,
        via: impl FnOnce(&mut Vec<u8>),
        more: impl FnOnce(&mut Writer<'_>),
    ) {
        self.write(Method::Ack, number, out, via, more);
    }

    fn write(
        &self,
        method: Method,
        number: u32,
        out: &mut Vec<u8>,
        via: impl FnOnce(&mut Vec<u8>),
        more: impl FnOnce(&mut Writer<'_>),
    ) {
        let routes = self.text.get(Part::Routes);
        let first = list(routes).next();
        let strict = first.and_then(NameAddr::parse).filter(|r| !r.uri().is_some_and(|u| u.has_lr()));
        let uri = strict.map_or(self.remote_target(), |route| bare_uri(route.addr));
        Request::new(method, uri).write(out, |w| {
            w.header(HeaderName::Via, via);
            w.number(HeaderName::MaxForwards, 70);
            match (strict, first) {
                (None, None) => {}
                (None, Some(_)) => w.text(HeaderName::Route, routes),
                // The first route takes the Request-URI's place, the target comes last.
                (Some(_), _) => w.header(HeaderName::Route, |v| {
                    for route in list(routes).skip(1) {
                        v.extend_from_slice(route);
                        v.push(b',');
                    }
                    v.push(b'<');
                    v.extend_from_slice(self.remote_target());
                    v.push(b'>');
                }),
            }
            w.header(HeaderName::From, |v| write_party(self.local(), self.id().local_tag, v));
            w.header(HeaderName::To, |v| write_party(self.remote(), self.id().remote_tag, v));
            w.text(HeaderName::CallId, self.id().call_id);
            w.cseq(number, method);
            more(w);
        });
    }

    /// Appends the dialog as a row: 25 bytes and its texts.
    pub fn write_row(&self, out: &mut Vec<u8>) {
        let state = match self.state {
            DialogState::Early => 0,
            DialogState::Confirmed => 1,
            DialogState::Terminated => 2,
        };
        let bit = |on: bool, n: u8| u8::from(on) << n;
        let flags = state
            | bit(self.role == Role::Uas, 2)
            | bit(self.secure, 3)
            | bit(self.local_seq.is_some(), 4)
            | bit(self.remote_seq.is_some(), 5);
        out.extend_from_slice(&[ROW_VERSION, flags, self.usages]);
        out.extend_from_slice(&self.local_seq.unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&self.remote_seq.unwrap_or(0).to_be_bytes());
        self.text.write_row(out);
    }

    /// Reads what [`Dialog::write_row`] wrote; `None` for anything else.
    pub fn from_row(row: &[u8]) -> Option<Dialog> {
        let (&[ROW_VERSION, flags, usages], rest) = row.split_first_chunk::<3>()? else { return None };
        let (local, rest) = rest.split_first_chunk::<4>()?;
        let (remote, rest) = rest.split_first_chunk::<4>()?;
        let state = match flags & 3 {
            0 => DialogState::Early,
            1 => DialogState::Confirmed,
            2 => DialogState::Terminated,
            _ => return None,
        };
        let number = |octets: &[u8; 4], n: u8| (flags >> n & 1 == 1).then(|| u32::from_be_bytes(*octets));
        Some(Dialog {
            role: if flags >> 2 & 1 == 1 { Role::Uas } else { Role::Uac },
            state,
            secure: flags >> 3 & 1 == 1,
            usages,
            local_seq: number(local, 4),
            remote_seq: number(remote, 5),
            text: Text::from_row(rest)?,
        })
    }
}

const ROW_VERSION: u8 = 1;

fn write_party(party: &[u8], tag: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(party);
    if !tag.is_empty() {
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(tag);
    }
}

/// Without the headers that a Request-URI may not have (RFC 3261 §19.1.5).
fn bare_uri(uri: &[u8]) -> &[u8] {
    &uri[..memchr::memchr(b'?', uri).unwrap_or(uri.len())]
}

fn address<'m>(message: &Message<'m>, name: HeaderName) -> Result<NameAddr<'m>, NoDialog> {
    message.value(name).and_then(NameAddr::parse).ok_or(NoDialog::Header(name))
}

fn contact<'m>(message: &Message<'m>) -> Result<&'m [u8], NoDialog> {
    message
        .list(HeaderName::Contact)
        .next()
        .and_then(NameAddr::parse)
        .filter(|c| !c.is_star() && Uri::parse(c.addr).is_some())
        .map(|c| c.addr)
        .ok_or(NoDialog::Header(HeaderName::Contact))
}

fn call_id<'m>(message: &Message<'m>) -> Result<&'m [u8], NoDialog> {
    message.call_id().filter(|c| !c.is_empty()).ok_or(NoDialog::Header(HeaderName::CallId))
}

fn sequence(message: &Message<'_>) -> Result<u32, NoDialog> {
    message.cseq().map(|c| c.number).ok_or(NoDialog::Header(HeaderName::CSeq))
}

fn is_sips(request: &Message<'_>) -> bool {
    request.request_uri().get(..5).is_some_and(|s| s.eq_ignore_ascii_case(b"sips:"))
}

/// The Record-Route values as one list, for the caller in reverse (RFC 3261 §12.1).
fn route_set(message: &Message<'_>, reverse: bool) -> Result<Vec<u8>, NoDialog> {
    let mut values = smallvec::SmallVec::<[&[u8]; 8]>::new();
    for value in message.list(HeaderName::RecordRoute) {
        if values.len() == MAX_ROUTES {
            return Err(NoDialog::TooLarge);
        }
        NameAddr::parse(value).ok_or(NoDialog::Header(HeaderName::RecordRoute))?;
        values.push(value);
    }
    if reverse {
        values.reverse();
    }
    Ok(values.join(&b','))
}

#[cfg(test)]
mod tests;
