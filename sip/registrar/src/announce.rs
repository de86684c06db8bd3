//! Third-party registration from our side (TS 24.229 §5.4.1.7): application servers elsewhere are told that a user has registered, for
//! how long, and that the registration is over, as the filters with the method REGISTER want it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use sip_ims::criteria::{DefaultHandling, Filter, Filters, Occasion, Server, SessionCase, Stage};
use sip_ims::notify::{self, contact_for};
use sip_ims::service::{NextHops, Outlet};
use sip_ims::{Aor, Home};
use sip_proto::build::{Request, Writer};
use sip_proto::headers::{MediaType, NameAddr};
use sip_proto::multipart::{Boundary, Writer as Multipart};
use sip_proto::uri::Uri;
use sip_proto::{HeaderName, Hop, Message, Method};
use siphasher::sip::SipHasher13;

/// What has happened to a registration.
pub(crate) struct Announcement {
    pub aor: Aor,
    pub stage: Stage,
    /// For how long; 0: it is over.
    pub seconds: u32,
    /// The phone's REGISTER, and our 200; empty when there was none.
    pub register: Vec<u8>,
    pub answer: Vec<u8>,
}

/// Told when a server that a user cannot do without is down.
pub(crate) type OnFailed = Arc<dyn Fn(&Aor) + Send + Sync>;

/// Sends them, from a thread of its own.
pub(crate) struct Announcer {
    home: Arc<Home>,
    filters: Arc<Filters>,
    queue: SyncSender<Announcement>,
    /// Until the thread takes it.
    work: Mutex<Option<Receiver<Announcement>>>,
    /// CSeq numbers: never twice the same, and rising across restarts.
    sequence: AtomicU32,
    /// Who was told that a user is registered: these are told of its end, whatever it ends by.
    told: Mutex<HashMap<Aor, u32>>,
}

/// Announcements that wait; beyond it application servers hear with the next refresh.
const MAX_WAITING: usize = 10_000;
/// Addresses of a server that are tried.
const MAX_HOPS: usize = 4;
/// What an S-CSCF may add (TS 24.229 §7.6).
const IMS_XML: &[u8] = b"application/3gpp-ims+xml";

impl Announcer {
    pub fn new(home: Arc<Home>, filters: Arc<Filters>) -> Arc<Announcer> {
        let (queue, work) = sync_channel(MAX_WAITING);
        Arc::new(Announcer {
            home,
            filters,
            queue,
            work: Mutex::new(Some(work)),
            sequence: AtomicU32::new(0),
            told: Mutex::default(),
        })
    }

    /// Whether anybody wants to know: all that it costs where nobody does.
    pub fn any(&self) -> bool {
        self.filters.any()
    }

    /// From any thread, within a step too.
    pub fn announce(&self, announcement: Announcement) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(announcement) {
            tracing::warn!("too many registrations to tell application servers of: some hear later");
        }
    }

    /// A registration has ended by itself, or by us.
    pub fn ended(&self, aor: &str) {
        if self.any()
            && let Some((aor, _)) = self.told.lock().get_key_value(aor)
        {
            let aor = aor.clone();
            self.announce(Announcement {
                aor,
                stage: Stage::End,
                seconds: 0,
                register: Vec::new(),
                answer: Vec::new(),
            });
        }
    }

    /// Starts the thread; it ends with the announcer.
    pub fn run(
        self: &Arc<Self>,
        outlet: Arc<dyn Outlet>,
        next_hops: Arc<dyn NextHops>,
        unix: fn() -> u64,
        failed: OnFailed,
    ) {
        let Some(work) = self.work.lock().take() else { return };
        let me = Arc::downgrade(self);
        let run = move || {
            for announcement in work {
                let Some(me) = me.upgrade() else { return };
                me.tell(&announcement, &outlet, &next_hops, unix(), &failed);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("third-party".into()).spawn(run) {
            tracing::error!(%error, "no thread for third-party registration: application servers are told nothing");
        }
    }

    fn tell(
        &self,
        announcement: &Announcement,
        outlet: &Arc<dyn Outlet>,
        next_hops: &Arc<dyn NextHops>,
        unix: u64,
        failed: &OnFailed,
    ) {
        let Announcement { aor, stage, register, .. } = announcement;
        // Where there was no REGISTER, one is made up for the filters.
        let bare =
            format!("REGISTER sip:{} SIP/2.0\r\nFrom: <sip:{aor}>\r\nTo: <sip:{aor}>\r\n\r\n", self.home.domain());
        let bytes = if register.is_empty() { bare.as_bytes() } else { register };
        let Ok(message) = Message::parse(bytes) else { return };
        let Some(uri) = Uri::parse(message.request_uri()) else { return };
        let registered = || *stage != Stage::End;
        let occasion = Occasion {
            message: &message,
            uri: &uri,
            user: aor.as_str(),
            case: SessionCase::Originating,
            registered: &registered,
        };
        let (mut after, mut count) = (None, 0);
        while let Some(filter) = self.filters.next(after, &occasion) {
            after = Some(filter.order());
            if !filter.is_for_registration(*stage) {
                continue;
            }
            let Server::Uri(server) = filter.server().clone() else { continue };
            count += 1;
            self.send(announcement, &filter, &server, outlet, next_hops, unix, failed);
        }
        let mut told = self.told.lock();
        match stage {
            Stage::End => drop(told.remove(aor)),
            _ if count > 0 => drop(told.insert(aor.clone(), count)),
            _ => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what, by which filter, to whom, and the ways out")]
    fn send(
        &self,
        announcement: &Announcement,
        filter: &Arc<Filter>,
        server: &str,
        outlet: &Arc<dyn Outlet>,
        next_hops: &Arc<dyn NextHops>,
        unix: u64,
        failed: &OnFailed,
    ) {
        let (kind, body) = body(announcement, filter);
        let sequence = self.next_sequence(unix);
        let (home, outlet, failed, filter) = (self.home.clone(), outlet.clone(), failed.clone(), filter.clone());
        let (aor, target, seconds, stage) =
            (announcement.aor.clone(), server.to_owned(), announcement.seconds, announcement.stage);
        let write = move |hop: Hop| write(&home, &aor, &target, hop, seconds, sequence, kind.as_deref(), &body);
        let attempt = Arc::new(Attempt {
            write: Box::new(write),
            outlet,
            aor: announcement.aor.clone(),
            server: server.to_owned(),
            // TS 24.229 §5.4.1.7A: a registration that a server is not told of ends, if the user cannot do without it.
            ends: filter.default_handling() == DefaultHandling::Terminate && stage != Stage::End,
            failed,
        });
        next_hops
            .next_hops(server.as_bytes(), Box::new(move |hops| attempt.go(hops.into_iter().take(MAX_HOPS).collect())));
    }

    /// Rises with the clock and with each request (RFC 3261 §8.1.1.5).
    fn next_sequence(&self, unix: u64) -> u32 {
        let clock = (unix & 0x7fff_ffff) as u32;
        let next = |last: u32| Some(clock.max(last.wrapping_add(1) & 0x7fff_ffff));
        self.sequence
            .fetch_update(Relaxed, Relaxed, next)
            .map_or(clock, |last| clock.max(last.wrapping_add(1) & 0x7fff_ffff))
    }
}

/// One REGISTER on its way to one server.
struct Attempt {
    write: Box<dyn Fn(Hop) -> Vec<u8> + Send + Sync>,
    outlet: Arc<dyn Outlet>,
    aor: Aor,
    server: String,
    ends: bool,
    failed: OnFailed,
}

impl Attempt {
    fn go(self: Arc<Self>, mut hops: Vec<Hop>) {
        if hops.is_empty() {
            return self.ended(503);
        }
        let hop = hops.remove(0);
        let (bytes, me) = ((self.write)(hop), self.clone());
        let done = move |outcome| {
            let (status, _) = notify::verdict(&outcome);
            me.ended(status);
        };
        self.outlet.request(hop, bytes, Box::new(done));
    }

    fn ended(&self, status: u16) {
        if (200..300).contains(&status) {
            return;
        }
        tracing::warn!(server = %self.server, status, "an application server did not take a third-party registration");
        let down = status == 408 || status / 100 == 5;
        if down && self.ends {
            (self.failed)(&self.aor);
        }
    }
}

/// Content-Type and body: service information, and the messages that the filter wants along.
fn body(announcement: &Announcement, filter: &Filter) -> (Option<Vec<u8>>, Vec<u8>) {
    let rule = filter.rule();
    let mut parts: Vec<(&[u8], Vec<u8>)> = Vec::new();
    if !rule.service_info.is_empty() {
        let mut xml = Vec::new();
        sip_xml::Writer::document(&mut xml, "ims-3gpp", |root| {
            root.attribute("version", "1");
            root.child("service-info", |info| info.text(&rule.service_info));
        });
        parts.push((IMS_XML, xml));
    }
    for (wanted, message) in
        [(rule.include_request, &announcement.register), (rule.include_response, &announcement.answer)]
    {
        if wanted && !message.is_empty() {
            parts.push((b"message/sip", message.clone()));
        }
    }
    match parts.as_slice() {
        [] => (None, Vec::new()),
        [(kind, body)] => (Some(kind.to_vec()), body.clone()),
        several => {
            let bodies: Vec<&[u8]> = several.iter().map(|(_, body)| &**body).collect();
            let boundary = Boundary::choose(bodies.iter().map(|b| b.len() as u64).sum(), &bodies);
            let (mut kind, mut body) = (Vec::new(), Vec::new());
            boundary.write_content_type("mixed", b"", &mut kind);
            let mut multipart = Multipart::new(boundary, &mut body);
            several.iter().for_each(|(kind, part)| multipart.part(kind, &[], part));
            multipart.finish();
            (Some(kind), body)
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "what one REGISTER says")]
fn write(
    home: &Home,
    aor: &Aor,
    server: &str,
    hop: Hop,
    seconds: u32,
    sequence: u32,
    kind: Option<&[u8]>,
    body: &[u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024 + body.len());
    let contact = contact_for(home, hop.transport(), hop.remote().ip());
    let id = SipHasher13::new().hash(format!("{aor} {server}").as_bytes());
    Request::new(Method::Register, server.as_bytes()).write(&mut out, |w: &mut Writer<'_>| {
        w.number(HeaderName::MaxForwards, 70);
        // The S-CSCF itself (TS 24.229 §5.4.1.7 a): an address without a user.
        let us = NameAddr::parse(&contact).map_or(&contact[..], |a| a.addr);
        let us = us.split(|b| *b == b';').next().unwrap_or(us);
        w.header(HeaderName::From, |out| {
            out.push(b'<');
            out.extend_from_slice(us);
            out.extend_from_slice(format!(">;tag={id:016x}").as_bytes());
        });
        w.header(HeaderName::To, |out| out.extend_from_slice(format!("<sip:{aor}>").as_bytes()));
        w.header(HeaderName::CallId, |out| {
            out.extend_from_slice(format!("{id:016x}@{}", home.domain()).as_bytes());
        });
        w.cseq(sequence, Method::Register);
        w.text(HeaderName::Contact, &contact);
        w.number(HeaderName::Expires, seconds.into());
        if let Some(kind) = kind {
            debug_assert!(MediaType::parse(kind).is_some(), "one of ours");
            w.body(kind, body);
        }
    });
    out
}

/// Told by the registrar, which outlives nobody.
pub(crate) fn terminating(registrar: Weak<crate::Registrar>) -> OnFailed {
    Arc::new(move |aor| {
        if let Some(registrar) = registrar.upgrade() {
            registrar.terminate_later(aor);
        }
    })
}
