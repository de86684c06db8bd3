//! Links of ours for phones that take files by MSRP and fetch none: the server offers them the file itself (RFC 5547), from the shelf.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use media_content::depot::Depot;
use media_content::{Id, State, info};
use media_msrp::assembly::Whole;
use media_msrp::{Answered, LocalEnd};
use parking_lot::Mutex;
use sip_cpim::{CPIM_TYPE, Cpim};
use sip_ims::Aor;
use sip_proto::endpoint::hex16;
use sip_proto::headers::{MediaType, NameAddr};
use sip_proto::{HeaderName, Message};
use tokio::sync::oneshot;

use crate::agent::{Agent, Call, Handset, Party};
use crate::hashing::sha1;
use crate::taken::Phones;
use crate::terms::Terms;

/// User part of our Contact in such a session.
const USER: &str = "shelf";
/// A phone that has answered every chunk, and says nothing more: longer than it may take for an answer (RFC 4975 §7.1.1).
const REPORT_WAIT: Duration = Duration::from_secs(35);

/// Offers files from the shelf.
pub struct Pusher {
    pub(crate) agent: Arc<Agent>,
    pub(crate) depot: Arc<Depot>,
}

impl Pusher {
    /// The file that a message links to, when its addressee's phones would have to be given it.
    pub fn concerns(&self, aor: &Aor, message: &Message<'_>) -> Option<Id> {
        let unix = (self.agent.parts.unix)();
        let id = self.depot.linked(document(message)?, unix)?;
        let mut phones = Phones::default();
        self.agent.parts.location.each_anywhere(aor.as_str(), unix, &mut |reach| phones.add(reach));
        phones.only_take().then_some(id)
    }

    /// Offers it, and sends it to whichever phone takes it. `Err`: the status that it came to.
    pub async fn push(&self, aor: &Aor, message: &Message<'_>, id: Id) -> Result<(), u16> {
        let entry = self.depot.shelf.find(&id).await.map_err(|_| 404u16)?;
        let State::Whole(parts) = &entry.state else { return Err(404) };
        let size: u64 = parts.iter().sum();
        let read = || self.depot.shelf.read(id, parts, 0..size).map_err(|e| e.to_string());
        let hash = sha1(read()).await.map_err(|_| 500u16)?;
        let media_type = entry.media_type.split(';').next().unwrap_or_default().trim();
        let selector =
            format!("file-selector:name:\"{}\" type:{media_type} size:{size} hash:sha-1:{hash}", quoted(&entry.name));
        let transfer = format!("file-transfer-id:{}", String::from_utf8_lossy(&hex16(rand::random())));
        let (begun, handset) = oneshot::channel();
        let (done, fate) = oneshot::channel();
        let party = Arc::new(Push { begun: Mutex::new(Some(begun)), done: Mutex::new(Some(done)) });
        let from = message.value(HeaderName::PAssertedIdentity).or(message.value(HeaderName::From)).unwrap_or_default();
        let from = NameAddr::parse(from).map_or(from, |a| a.addr);
        let call = Call {
            to: aor.clone(),
            from: format!("<{}>", String::from_utf8_lossy(from)),
            user: USER.to_owned(),
            features: "",
            terms: Terms {
                accept_types: "message/cpim",
                accept_wrapped_types: "*",
                max_size: 0,
                more: vec!["sendonly".to_owned(), selector, transfer, "file-disposition:attachment".to_owned()],
            },
            party,
            subject: String::new(),
            referred_by: Box::default(),
            accepts: media_type.into(),
        };
        self.agent.call(call).await?;
        let handset = handset.await.map_err(|_| 481u16)?;
        let switch = &self.agent.parts.switch;
        let sent = switch.send_long(&handset.bridge, media_type, read()).await;
        let fate = match sent {
            // Who has answered it all and reports nothing has it.
            Ok(()) => tokio::time::timeout(REPORT_WAIT, fate).await.map_or(200, |fate| fate.unwrap_or(481)),
            Err(status) => status,
        };
        self.agent.hang_up(&handset.key);
        if fate == 200 { Ok(()) } else { Err(fate) }
    }
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

/// Our end of a session for one file.
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
