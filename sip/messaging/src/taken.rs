//! Files that are sent to somebody whose phones take none by MSRP, or who is away: this server takes part in their place, puts the
//! file on the shelf (GSMA RCC.07), and sends them the document that says where it is.

use std::sync::Arc;

use media_content::depot::{Depot, Incoming, Unkept};
use media_content::{Reason, info};
use media_msrp::assembly::Whole;
use media_msrp::{Answered, Held, Inspector, Judged, Judgement, LocalEnd, Withheld};
use parking_lot::Mutex;
use sip_cpim::{Address, CPIM_TYPE, Draft, Fate, Outcome};
use sip_ims::ports::MessageQueue;
use sip_ims::service::Reach;
use sip_ims::{User, answer};
use sip_proto::Transport;
use sip_proto::endpoint::hex16;
use sip_proto::features::Union;
use sip_proto::headers::Params;
use sip_proto::uri::Uri;
use tokio::sync::mpsc;

use crate::agent::Party;
use crate::config::Config;
use crate::control::content::Content;
use crate::control::{ContentControl, address};
use crate::letter::{self, Ends, Letter};
use crate::notice::Notice;
use crate::pager::{Order, Unix, status_of};
use crate::terms::{OfferedFile, Terms};

/// User part of our Contact in such a session.
pub const USER: &str = "taken";

/// Feature tags of phones (RCC.07 §2.6.1.3): files by MSRP, and by HTTP.
const IARI: &str = "+g.3gpp.iari-ref";
const BY_MSRP: [&str; 2] =
    ["urn%3Aurn-7%3A3gpp-application.ims.iari.rcse.ft", "urn%3Aurn-7%3A3gpp-application.ims.iari.rcs.ftstandfw"];
const BY_HTTP: &str = "urn%3Aurn-7%3A3gpp-application.ims.iari.rcs.fthttp";
/// Chat (RCC.07 §2.6.1.1): of OMA SIMPLE IM, and of CPM.
const SIMPLE_IM: &str = "+g.oma.sip-im";
const ICSI: &str = "+g.3gpp.icsi-ref";
const CHAT: &str = "urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session";

/// What the phones of somebody say of themselves.
#[derive(Default)]
pub struct Phones {
    features: Union,
    /// One of them has a connection, or an address that asks for one.
    by_stream: bool,
}

impl Phones {
    pub fn add(&mut self, reach: &Reach<'_>) {
        self.features.add(Params::new(reach.params));
        let of_flow = reach.hop.map(|hop| hop.transport()).or(reach.elsewhere.map(|e| e.flow.transport));
        let of_contact = || Uri::parse(reach.uri).and_then(|u| u.transport()).and_then(Transport::from_token);
        self.by_stream |= of_flow.or_else(of_contact).is_some_and(|t| t.is_reliable());
    }

    /// Some say that they fetch files over HTTP, and none that it takes them by MSRP.
    pub fn only_fetch(&self) -> bool {
        self.say(&[BY_HTTP]) && !self.say(&BY_MSRP)
    }

    /// The contrary.
    pub fn only_take(&self) -> bool {
        self.say(&BY_MSRP) && !self.say(&[BY_HTTP])
    }

    /// Some take chats, and none can be reached but by datagrams.
    pub fn only_chat(&self) -> bool {
        let chat =
            self.features.has(SIMPLE_IM) || self.features.values(ICSI).any(|v| v.eq_ignore_ascii_case(CHAT.as_bytes()));
        chat && !self.by_stream
    }

    fn say(&self, any: &[&str]) -> bool {
        let one = |v: &[u8]| any.iter().any(|wanted| v.eq_ignore_ascii_case(wanted.as_bytes()));
        self.features.values(IARI).any(one)
    }
}

/// What is answered to the offer: the file is taken as it was offered (RFC 5547 §8.3.1).
pub fn terms(depot: &Depot, file: &OfferedFile) -> Terms {
    let more = ["recvonly".to_owned()].into_iter().chain(file.lines.iter().cloned()).collect();
    Terms {
        accept_types: "message/cpim *",
        accept_wrapped_types: "*",
        // An envelope beside the file.
        max_size: usize::try_from(depot.shelf.max_file()).unwrap_or(usize::MAX).saturating_add(ENVELOPE),
        more,
    }
}

const ENVELOPE: usize = 32 << 10;

/// What the taking of files works with.
pub struct Taker {
    pub(crate) depot: Arc<Depot>,
    pub(crate) control: Arc<ContentControl>,
    pub(crate) queue: Arc<dyn MessageQueue>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    pub(crate) config: Config,
    pub(crate) unix: Unix,
}

/// Our end of a session for one file.
pub struct Taken {
    taker: Arc<Taker>,
    ends: Ends,
    /// Gone once it has come: a session is for one file.
    file: Mutex<Option<OfferedFile>>,
    /// A URI.
    sender: String,
    /// Whose share the file counts for.
    owner: String,
}

impl Taken {
    /// `user`: the sender, where it is one of ours. All users of another domain have the share of one.
    pub fn new(taker: Arc<Taker>, ends: Ends, user: Option<&User>, file: OfferedFile) -> Arc<Taken> {
        let sender = address(ends.asserted.as_deref().unwrap_or(&ends.from));
        let domain = || format!("@{}", sender.rsplit('@').next().unwrap_or_default());
        let owner = user.map_or_else(domain, |user| user.id.to_string());
        Arc::new(Taken { taker, ends, file: Mutex::new(Some(file)), sender, owner })
    }

    async fn take(&self, held: Arc<Held>) -> Result<(), Reason> {
        let file = self.file.lock().take().ok_or(Reason::Hash)?;
        let content = Content::of(&held).await.map_err(|_| Reason::Unkept)?;
        if !content.is_readable() || !file.promised.is_kept(&content).await.map_err(|_| Reason::Unkept)? {
            return Err(Reason::Hash);
        }
        let media_type = if file.media_type.is_empty() { content.media_type.clone() } else { file.media_type };
        let name = file.name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        let incoming = Incoming { owner: self.owner.clone(), name, media_type };
        let unix = (self.taker.unix)();
        let document = self.taker.depot.keep(incoming, unix, rand::random(), content.stream()).await;
        let document = document.map_err(|unkept| match unkept {
            Unkept::Refused(reason) => reason,
            Unkept::Shelf(media_content::ShelfError::TooLarge(most)) => Reason::Size(most),
            error => {
                tracing::warn!(%error, "a file could not be kept");
                Reason::Unkept
            }
        })?;
        self.tell(&document, unix).await
    }

    /// The addressee gets the document as if the sender had sent it.
    async fn tell(&self, document: &[u8], unix: u64) -> Result<(), Reason> {
        let id = String::from_utf8_lossy(&hex16(rand::random())).into_owned();
        let mut body = Vec::new();
        let mut draft = Draft::new(&mut body);
        let (from, to) = (address(&self.ends.from), address(&self.ends.to));
        draft.address("From", &Address::new("", &from)).address("To", &Address::new("", &to));
        draft.imdn().text("imdn.Message-ID", &id).text("DateTime", &sip_cpim::date_time(unix));
        draft.content(info::FILE_TYPE, [], document);
        let content = [CPIM_TYPE.as_bytes(), &body];
        let queued =
            letter::from_session(&self.ends, 1, content, unix, &self.taker.config).map_err(|_| Reason::Unkept)?;
        let letter = Letter::read(&queued.body).ok();
        let stored = letter.and_then(|letter| Notice::about(&letter, Fate::Processing, Outcome::Stored, unix));
        let (done, kept) = answer();
        self.taker.queue.put(queued, done);
        match kept.await {
            Ok(_) => {
                let (aor, call_id) = (self.ends.aor.clone(), self.ends.call_id.clone());
                // A courier that is gone will find it at the next start.
                let _ = self.taker.orders.send(Order::KeptOfSession { aor, call_id, stored });
                Ok(())
            }
            Err(error) => {
                tracing::debug!(status = status_of(&error).0, "where a file is could not be told");
                Err(Reason::Unkept)
            }
        }
    }

    fn withheld(&self, why: &Reason) -> Withheld {
        self.taker.control.withheld("file", &self.sender, self.ends.aor.as_str(), why);
        Withheld { status: why.status(), notice: None }
    }
}

/// Letters of a file's name.
const MAX_NAME: usize = 255;

impl Inspector for Taken {
    fn admits(&self, _content_type: &[u8], size: Option<u64>) -> Result<(), Withheld> {
        let (most, size) = (self.max_size(), size.unwrap_or(0));
        // Days since 1970 fit for millions of years.
        let today = ((self.taker.unix)() / 86_400) as u32;
        if size > most {
            Err(self.withheld(&Reason::Size(most)))
        } else if !self.taker.depot.quota.has_room(&self.owner, today, size) {
            Err(self.withheld(&Reason::Share))
        } else {
            Ok(())
        }
    }

    fn max_size(&self) -> u64 {
        self.taker.depot.shelf.max_file() + ENVELOPE as u64
    }

    fn judge(self: Arc<Self>, message: Arc<Held>) -> Judged {
        Box::pin(async move {
            match self.take(message).await {
                Ok(()) => Judgement::Passes,
                Err(why) => Judgement::Refused(self.withheld(&why)),
            }
        })
    }
}

impl LocalEnd for Taken {
    /// Files are held and taken by the inspector.
    fn received(self: Arc<Self>, _message: Whole) -> Answered {
        Box::pin(async { 413 })
    }
}

impl Party for Taken {}
