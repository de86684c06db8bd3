//! Messages that become sessions, because their addressee's phones take them no other way: a link of ours to a file becomes the file
//! itself (RFC 5547), from the shelf; one that is too long for a datagram is said in a chat (RFC 3428 §8).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use media_content::depot::Depot;
use media_content::{Id, State, info};
use media_msrp::assembly::Whole;
use media_msrp::{Answered, LocalEnd};
use parking_lot::Mutex;
use sip_cpim::{Address, CPIM_TYPE, Cpim, Draft};
use sip_ims::Aor;
use sip_proto::endpoint::hex16;
use sip_proto::headers::{MediaType, NameAddr};
use sip_proto::transport::LONGEST_DATAGRAM_REQUEST;
use sip_proto::{HeaderName, Message};
use tokio::sync::oneshot;

use crate::agent::{Agent, Call, Callee, Handset, Party};
use crate::control::address;
use crate::hashing::sha1;
use crate::taken::Phones;
use crate::terms::Terms;

/// User part of our Contact in such a session.
const USER: &str = "shelf";
/// A phone that has answered every chunk, and says nothing more: longer than it may take for an answer (RFC 4975 §7.1.1).
const REPORT_WAIT: Duration = Duration::from_secs(35);

/// Makes messages sessions.
pub struct Pusher {
    pub(crate) agent: Arc<Agent>,
    /// `None`: links lead nowhere that phones would reach.
    pub(crate) depot: Option<Arc<Depot>>,
}

/// What a message becomes.
pub enum Pushed {
    File(Id),
    /// A chat of this one message.
    Chat,
}

impl Pusher {
    /// What a message would have to become for its addressee's phones.
    pub fn concerns(&self, aor: &Aor, message: &Message<'_>) -> Option<Pushed> {
        let unix = (self.agent.parts.unix)();
        let long = message.bytes().len() > LONGEST_DATAGRAM_REQUEST;
        let linked = |depot: &Arc<Depot>| depot.linked(document(message)?, unix);
        let id = self.depot.as_ref().and_then(linked);
        if id.is_none() && !long {
            return None;
        }
        let mut phones = Phones::default();
        self.agent.parts.location.each_anywhere(aor.as_str(), unix, &mut |reach| phones.add(reach));
        match id {
            Some(id) if phones.only_take() => Some(Pushed::File(id)),
            _ => (long && phones.only_chat()).then_some(Pushed::Chat),
        }
    }

    /// Offers it, and sends it to whichever phone takes it. `Err`: the status that it came to.
    pub async fn push(&self, aor: &Aor, message: &Message<'_>, what: &Pushed) -> Result<(), u16> {
        match what {
            Pushed::File(id) => self.push_file(aor, message, *id).await,
            Pushed::Chat => self.push_chat(aor, message).await,
        }
    }

    async fn push_file(&self, aor: &Aor, message: &Message<'_>, id: Id) -> Result<(), u16> {
        let shelf = &self.depot.as_ref().ok_or(404u16)?.shelf;
        let entry = shelf.find(&id).await.map_err(|_| 404u16)?;
        let State::Whole(parts) = &entry.state else { return Err(404) };
        let size: u64 = parts.iter().sum();
        let read = || shelf.read(id, parts, 0..size).map_err(|e| e.to_string());
        let hash = sha1(read()).await.map_err(|_| 500u16)?;
        let media_type = entry.media_type.split(';').next().unwrap_or_default().trim();
        let selector =
            format!("file-selector:name:\"{}\" type:{media_type} size:{size} hash:sha-1:{hash}", quoted(&entry.name));
        let transfer = format!("file-transfer-id:{}", String::from_utf8_lossy(&hex16(rand::random())));
        let more = vec!["sendonly".to_owned(), selector, transfer, "file-disposition:attachment".to_owned()];
        self.hand_over(aor, message, more, (media_type, Some("attachment")), read()).await
    }

    /// In an envelope, as chats have it: the phone may take nothing else.
    async fn push_chat(&self, aor: &Aor, message: &Message<'_>) -> Result<(), u16> {
        let content_type = message.value(HeaderName::ContentType).unwrap_or_default();
        let body = if MediaType::parse(content_type).is_some_and(|t| t.is(CPIM_TYPE)) {
            Bytes::copy_from_slice(message.body())
        } else {
            let content_type = std::str::from_utf8(content_type).map_err(|_| 415u16)?;
            self.envelope(aor, message, (content_type, None), message.body()).into()
        };
        self.hand_over(aor, message, Vec::new(), (CPIM_TYPE, None), stream::iter([Ok(body)])).await
    }

    /// The beginning of a message in CPIM, as if the sender had sent it so. `what`: type and disposition.
    fn envelope(&self, aor: &Aor, message: &Message<'_>, what: (&str, Option<&str>), content: &[u8]) -> Vec<u8> {
        let (from, to) = (address(sender(message)), format!("sip:{aor}"));
        let mut out = Vec::new();
        let mut draft = Draft::new(&mut out);
        draft.address("From", &Address::new("", &from)).address("To", &Address::new("", &to));
        draft.text("DateTime", &sip_cpim::date_time((self.agent.parts.unix)()));
        draft.content(what.0, what.1.map(|disposition| ("Content-Disposition", disposition)), content);
        out
    }

    /// A session for one thing to send. `more`: further attributes of its section; `what`: type and disposition of the thing, which
    /// goes in an envelope to a phone that takes it no other way.
    async fn hand_over(
        &self,
        aor: &Aor,
        message: &Message<'_>,
        more: Vec<String>,
        what: (&str, Option<&str>),
        bytes: impl Stream<Item = Result<Bytes, String>>,
    ) -> Result<(), u16> {
        let (begun, handset) = oneshot::channel();
        let (done, fate) = oneshot::channel();
        let party = Arc::new(Push { begun: Mutex::new(Some(begun)), done: Mutex::new(Some(done)) });
        let from = message.value(HeaderName::PAssertedIdentity).unwrap_or_else(|| sender(message));
        let from = NameAddr::parse(from).map_or(from, |a| a.addr);
        let call = Call {
            to: Callee::User(aor.clone()),
            from: format!("<{}>", String::from_utf8_lossy(from)),
            user: USER.to_owned(),
            features: "",
            terms: Terms { accept_types: "message/cpim", accept_wrapped_types: "*", max_size: 0, more },
            party,
            subject: String::new(),
            referred_by: Box::default(),
            accepts: what.0.into(),
            wrapped: true,
        };
        self.agent.call(call).await?;
        let handset = handset.await.map_err(|_| 481u16)?;
        let switch = &self.agent.parts.switch;
        let sent = if handset.enveloped {
            let envelope = Ok(self.envelope(aor, message, what, b"").into());
            let whole = stream::iter([envelope]).chain(bytes);
            switch.send_long(&handset.bridge, CPIM_TYPE, None, whole).await
        } else {
            switch.send_long(&handset.bridge, what.0, what.1, bytes).await
        };
        let fate = match sent {
            // Who has answered it all and reports nothing has it.
            Ok(()) => tokio::time::timeout(REPORT_WAIT, fate).await.map_or(200, |fate| fate.unwrap_or(481)),
            Err(status) => status,
        };
        self.agent.hang_up(&handset.key);
        if fate == 200 { Ok(()) } else { Err(fate) }
    }
}

fn sender<'a>(message: &Message<'a>) -> &'a [u8] {
    message.value(HeaderName::From).unwrap_or_default()
}

/// The document of RCC.07 in a message, alone or in an envelope.
fn document<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    let content_type = MediaType::parse(message.value(HeaderName::ContentType)?)?;
    if content_type.is(info::FILE_TYPE) {
        return Some(message.body());
    }
    let cpim = Cpim::parse(message.body()).ok().filter(|_| content_type.is(CPIM_TYPE))?;
    cpim.holds(info::FILE_TYPE).then_some(cpim.content)
}

/// As `filename-string` of RFC 5547 §6.
fn quoted(name: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '%' => format!("%{:02X}", u32::from(c)),
        c if c.is_control() => String::new(),
        c => c.to_string(),
    };
    name.chars().map(escaped).collect()
}

/// Our end of a session for one thing.
struct Push {
    begun: Mutex<Option<oneshot::Sender<Handset>>>,
    done: Mutex<Option<oneshot::Sender<u16>>>,
}

impl Push {
    fn ends(&self, status: u16) {
        if let Some(done) = self.done.lock().take() {
            // Who waited may have given up.
            let _ = done.send(status);
        }
    }
}

impl LocalEnd for Push {
    /// Nothing is taken here.
    fn received(self: Arc<Self>, _message: Whole) -> Answered {
        Box::pin(async { 413 })
    }

    fn reported(&self, _message_id: &[u8], status: u16) {
        self.ends(status);
    }

    fn down(&self) {
        self.ends(481);
    }
}

impl Party for Push {
    fn begun(self: Arc<Self>, session: &Handset) {
        if let Some(begun) = self.begun.lock().take() {
            let _ = begun.send(session.clone());
        }
    }

    fn ended(&self) {
        self.ends(481);
    }
}
