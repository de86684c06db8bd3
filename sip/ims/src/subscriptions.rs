//! Our own subscriptions to notifiers elsewhere (RFC 6665 §4.1): asked for, kept alive, begun again when they end, and given up.
//!
//! Requests leave from [`Subscriptions::start`], [`Subscriptions::stop`] and [`Subscriptions::tick`] alone, never from within a step of
//! the stack; what a NOTIFY or an answer calls for waits for the next tick.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_proto::build::{Request as NewRequest, Response, Writer};
use sip_proto::dialog::Dialog;
use sip_proto::endpoint::hex16;
use sip_proto::headers::{Event, MediaType, RetryAfter, SubscriptionState, Substate, delta_seconds};
use sip_proto::subscription::{BAD_EVENT, Resubscribe, Subscriber, SubscriberEvent, SubscriberStep};
use sip_proto::{HeaderName, Hop, Message, Method};

use crate::home::Home;
use crate::notify;
use crate::service::{NOBODY, NextHops, Outcome, Outlet, Request, Service, Step, Verdict};

/// What to watch, and as whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// URI of what is watched.
    pub target: Box<str>,
    /// URI of the watcher.
    pub watcher: Box<str>,
    /// The URI to go through, `lr` included; `None`: where the target leads.
    pub route: Option<Box<str>>,
    pub package: &'static str,
    pub accept: &'static str,
    /// Seconds.
    pub expires: u32,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// The notifier knows nothing to tell, or does not tell yet.
    Pending,
    /// A document and its media type.
    Document { media_type: Box<str>, body: Box<[u8]> },
    /// Not for now; it is tried again.
    Lost,
    /// Refused for good: the reason as Subscription-State or a status has it.
    Refused(Box<str>),
}

/// Told what is new. Called with no lock held, maybe from within a step of the stack.
pub type OnNews = Arc<dyn Fn(News) + Send + Sync>;

/// What it works with. `clock`: floors below the server read none themselves.
pub struct Parts {
    pub home: Arc<Home>,
    pub next_hops: Arc<dyn NextHops>,
    pub clock: fn() -> Instant,
}

/// All of them.
pub struct Subscriptions {
    parts: Parts,
    outlet: OnceLock<Arc<dyn Outlet>>,
    state: Mutex<State>,
    hasher: RandomState,
    unique: AtomicU64,
    me: Weak<Subscriptions>,
}

#[derive(Default)]
struct State {
    entries: HashMap<u64, Entry>,
    /// By Call-ID and our tag.
    by_dialog: HashMap<Box<[u8]>, u64>,
    next: u64,
}

struct Entry {
    wish: Wish,
    tell: OnNews,
    subscriber: Subscriber,
    call_id: String,
    tag: String,
    /// The SUBSCRIBE that began it, without Via.
    sent: Vec<u8>,
    dialog: Option<Dialog>,
    /// To be tried yet.
    hops: VecDeque<Hop>,
    /// Seconds of a SUBSCRIBE that is due.
    due: Option<u32>,
    /// It is over, and begins again then.
    again: Option<Instant>,
    /// In a row.
    failures: u32,
    /// Nobody wants it any more.
    leaving: bool,
}

/// 64*T1.
const WAIT: Duration = Duration::from_secs(32);
/// Addresses of a notifier that are tried.
const MAX_HOPS: usize = 4;
/// Before it is tried again, doubled with each failure up to an hour.
const PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Largest document, in bytes.
pub const MAX_DOCUMENT: usize = 64 * 1024;

impl Subscriptions {
    pub fn new(parts: Parts) -> Arc<Subscriptions> {
        Arc::new_cyclic(|me| Subscriptions {
            parts,
            outlet: OnceLock::new(),
            state: Mutex::default(),
            hasher: RandomState::new(),
            unique: AtomicU64::new(0),
            me: me.clone(),
        })
    }

    /// The way out, once, when next hops can be found too. What was begun before goes out now.
    pub fn attach(&self, outlet: Arc<dyn Outlet>) {
        // The first stays: there is only one stack.
        let _ = self.outlet.set(outlet);
        let begun: Vec<u64> = self.state.lock().entries.keys().copied().collect();
        begun.into_iter().for_each(|number| self.send(number));
    }

    pub fn len(&self) -> usize {
        self.state.lock().entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Subscribes, and goes on with it until [`Subscriptions::stop`]. Not from within a step.
    pub fn start(&self, wish: Wish, tell: OnNews) -> u64 {
        let now = (self.parts.clock)();
        let number = {
            let mut state = self.state.lock();
            state.next += 1;
            let number = state.next;
            let (subscriber, _) = Subscriber::start(now, wish.expires, WAIT);
            let entry = Entry {
                wish,
                tell,
                subscriber,
                call_id: String::new(),
                tag: String::new(),
                sent: Vec::new(),
                dialog: None,
                hops: VecDeque::new(),
                due: None,
                again: None,
                failures: 0,
                leaving: false,
            };
            state.entries.insert(number, entry);
            self.begin(&mut state, number, now);
            number
        };
        self.send(number);
        number
    }

    /// Ends one. Not from within a step.
    pub fn stop(&self, number: u64) {
        let now = (self.parts.clock)();
        {
            let mut state = self.state.lock();
            let Some(entry) = state.entries.get_mut(&number) else { return };
            entry.leaving = true;
            if entry.dialog.is_none() {
                state.remove(number);
                return;
            }
            let (subscriber, step) = entry.subscriber.clone().step(now, SubscriberEvent::Leave);
            entry.subscriber = subscriber;
            entry.due = step.subscribe;
        }
        self.send(number);
    }

    /// A new dialog for an entry, whose first SUBSCRIBE is due.
    fn begin(&self, state: &mut State, number: u64, now: Instant) {
        let Some(entry) = state.entries.get_mut(&number) else { return };
        let old = std::mem::replace(&mut entry.call_id, hex(self.draw()) + &hex(self.draw()));
        let key = key_of(old.as_bytes(), entry.tag.as_bytes());
        entry.tag = hex(self.draw());
        let (subscriber, step) = Subscriber::start(now, entry.wish.expires, WAIT);
        entry.subscriber = subscriber;
        (entry.due, entry.dialog, entry.again) = (step.subscribe, None, None);
        entry.hops.clear();
        let fresh = key_of(entry.call_id.as_bytes(), entry.tag.as_bytes());
        state.by_dialog.remove(&key);
        state.by_dialog.insert(fresh, number);
    }

    fn draw(&self) -> u64 {
        self.hasher.hash_one(self.unique.fetch_add(1, Relaxed))
    }

    /// Looks up where the SUBSCRIBE that is due goes, and sends it.
    fn send(&self, number: u64) {
        if self.outlet.get().is_none() {
            return;
        }
        let uri = {
            let state = self.state.lock();
            let Some(entry) = state.entries.get(&number).filter(|e| e.due.is_some()) else { return };
            match (&entry.dialog, &entry.wish.route) {
                (Some(dialog), _) => dialog.next_hop().to_vec(),
                (None, Some(route)) => route.as_bytes().to_vec(),
                (None, None) => entry.wish.target.as_bytes().to_vec(),
            }
        };
        let me = self.me.clone();
        self.parts.next_hops.next_hops(
            &uri,
            Box::new(move |hops| {
                if let Some(me) = me.upgrade() {
                    if let Some(entry) = me.state.lock().entries.get_mut(&number) {
                        entry.hops = hops.into_iter().take(MAX_HOPS).collect();
                    }
                    me.transmit(number);
                }
            }),
        );
    }

    /// Sends the SUBSCRIBE that is due to the next hop, or counts it as failed when there is none left.
    fn transmit(&self, number: u64) {
        let Some(outlet) = self.outlet.get() else { return };
        let ready = {
            let mut state = self.state.lock();
            let Some(entry) = state.entries.get_mut(&number) else { return };
            let Some(expires) = entry.due.take() else { return };
            entry.hops.pop_front().and_then(|hop| Some((hop, entry.write(&self.parts.home, hop, expires)?)))
        };
        let Some((hop, bytes)) = ready else { return self.answered(number, None, &Outcome::Unreachable) };
        let (me, sent) = (self.me.clone(), bytes.clone());
        let done = move |outcome: Outcome| {
            if let Some(me) = me.upgrade() {
                me.answered(number, Some(&sent), &outcome);
            }
        };
        outlet.request(hop, bytes, Box::new(done));
    }

    fn answered(&self, number: u64, sent: Option<&[u8]>, outcome: &Outcome) {
        let now = (self.parts.clock)();
        let told = {
            let mut state = self.state.lock();
            let Some(entry) = state.entries.get_mut(&number) else { return };
            // The answer to a SUBSCRIBE of an earlier dialog.
            let current =
                sent.and_then(|s| Message::parse(s).ok()).is_none_or(|m| m.call_id() == Some(entry.call_id.as_bytes()));
            if !current {
                return;
            }
            if matches!(outcome, Outcome::Timeout | Outcome::Unreachable | Outcome::Busy) && !entry.hops.is_empty() {
                entry.due = Some(if entry.leaving { 0 } else { entry.wish.expires });
                return;
            }
            let bytes = if let Outcome::Response { bytes, .. } = outcome { &**bytes } else { &[] };
            let response = Message::parse(bytes).ok();
            let (status, _) = notify::verdict(outcome);
            let number_of = |name| response.as_ref().and_then(|m| m.value(name)).and_then(delta_seconds);
            if (200..300).contains(&status)
                && entry.dialog.is_none()
                && let (Ok(request), Some(response)) = (Message::parse(&entry.sent), &response)
            {
                entry.dialog = Dialog::uac(&request, response).ok();
            }
            let event = SubscriberEvent::Answered {
                status,
                expires: number_of(HeaderName::Expires),
                min_expires: number_of(HeaderName::MinExpires),
                retry_after: response
                    .as_ref()
                    .and_then(|m| m.value(HeaderName::RetryAfter))
                    .and_then(RetryAfter::parse)
                    .map(|r| r.seconds),
            };
            let refused = format!("{status}");
            state.step(number, now, event, Some(&refused))
        };
        if let Some((tell, news)) = told {
            tell(news);
        }
    }

    /// Takes a NOTIFY of one of our subscriptions; passes on all others.
    pub fn notified(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        let message = request.message;
        let tag = message.to_tag().unwrap_or_default();
        let key = key_of(message.call_id().unwrap_or_default(), tag);
        let told = {
            let mut state = self.state.lock();
            let Some(number) = state.by_dialog.get(&key).copied() else { return Verdict::Pass };
            let result = state.entries.get_mut(&number).ok_or(481).and_then(|entry| entry.take(message));
            let status = *result.as_ref().err().unwrap_or(&200);
            let Ok(id) = step.endpoint.accept(request.flow, message, NOBODY) else {
                step.reply(request.flow, message, 503, None, |w| w.number(HeaderName::RetryAfter, 5));
                return Verdict::Taken;
            };
            let response = Response::to(message, status).source(request.flow.remote).tag(tag);
            let packages = state.entries.get(&number).map_or("", |e| e.wish.package);
            step.endpoint.respond(step.now, id, status, step.out, |b| {
                response.write(b, |w| {
                    if status == BAD_EVENT {
                        w.text(HeaderName::AllowEvents, packages.as_bytes());
                    }
                });
            });
            let Ok(said) = result else { return Verdict::Taken };
            let over = state.step(number, step.now, SubscriberEvent::Notified(said), None);
            let document = document(message).filter(|_| said.state != Substate::Pending);
            let entry = state.entries.get_mut(&number);
            match (over, entry, document) {
                // What ends it may bring a last document, which counts no more.
                (Some(over), ..) => Some(over),
                (None, Some(entry), Some(news)) => Some((entry.tell.clone(), news)),
                (None, Some(entry), None) if said.state == Substate::Pending => {
                    Some((entry.tell.clone(), News::Pending))
                }
                _ => None,
            }
        };
        if let Some((tell, news)) = told {
            tell(news);
        }
        Verdict::Taken
    }

    /// Once a second: what is due.
    pub fn tick(&self, now: Instant) {
        let mut told = Vec::new();
        let (due, next) = {
            let mut state = self.state.lock();
            let lapsed = |e: &Entry| e.again.is_none() && e.subscriber.deadline().is_some_and(|at| at <= now);
            let numbers: Vec<u64> = state.entries.iter().filter(|(_, e)| lapsed(e)).map(|(n, _)| *n).collect();
            for number in numbers {
                told.extend(state.step(number, now, SubscriberEvent::Deadline, None));
            }
            let again = |e: &Entry| e.again.is_some_and(|at| at <= now);
            let numbers: Vec<u64> = state.entries.iter().filter(|(_, e)| again(e)).map(|(n, _)| *n).collect();
            for number in numbers {
                self.begin(&mut state, number, now);
            }
            let due = state.entries.iter().filter(|(_, e)| e.due.is_some());
            due.map(|(n, e)| (*n, e.hops.is_empty())).partition::<Vec<(u64, bool)>, _>(|(_, look_up)| *look_up)
        };
        due.into_iter().for_each(|(number, _)| self.send(number));
        next.into_iter().for_each(|(number, _)| self.transmit(number));
        told.into_iter().for_each(|(tell, news)| tell(news));
    }
}

impl State {
    fn remove(&mut self, number: u64) {
        if let Some(entry) = self.entries.remove(&number) {
            self.by_dialog.remove(&key_of(entry.call_id.as_bytes(), entry.tag.as_bytes()));
        }
    }

    /// Feeds the machine. Gives whom to tell that it is over; `refused`: the reason when that is for good.
    fn step(
        &mut self,
        number: u64,
        now: Instant,
        event: SubscriberEvent<'_>,
        refused: Option<&str>,
    ) -> Option<(OnNews, News)> {
        let entry = self.entries.get_mut(&number)?;
        let reason = match (&event, refused) {
            (SubscriberEvent::Notified(said), _) => said.reason().map(|r| String::from_utf8_lossy(r).into_owned()),
            (_, refused) => refused.map(str::to_owned),
        };
        if matches!(event, SubscriberEvent::Notified(_)) {
            entry.failures = 0;
        }
        let (subscriber, SubscriberStep { subscribe, over }) = entry.subscriber.clone().step(now, event);
        entry.subscriber = subscriber;
        if let Some(expires) = subscribe {
            entry.due = Some(expires);
            entry.hops.clear();
        }
        let again = over?;
        if entry.leaving {
            self.remove(number);
            return None;
        }
        (entry.due, entry.dialog) = (None, None);
        entry.failures = entry.failures.saturating_add(1);
        let pause = PAUSE.saturating_mul(1 << entry.failures.saturating_sub(1).min(7)).min(LONGEST_PAUSE);
        let (wait, news) = match again {
            // At once the first time: a notifier that always says so is not to be hammered.
            Resubscribe::Now if entry.failures == 1 => (Some(Duration::from_secs(1)), News::Lost),
            Resubscribe::Now | Resubscribe::Anytime => (Some(pause), News::Lost),
            Resubscribe::After(seconds) => (Some(Duration::from_secs(seconds.into()).max(pause)), News::Lost),
            Resubscribe::Never => (None, News::Refused(reason.as_deref().unwrap_or("rejected").into())),
        };
        entry.again = wait.map(|wait| now + wait);
        Some((entry.tell.clone(), news))
    }
}

impl Entry {
    /// The SUBSCRIBE for a hop, without Via. `None`: the dialog is over.
    fn write(&mut self, home: &Home, hop: Hop, expires: u32) -> Option<Vec<u8>> {
        let contact = notify::contact_for(home, hop.transport(), hop.remote().ip());
        let Entry { wish, dialog, tag, call_id, .. } = self;
        let more = |w: &mut Writer<'_>| {
            w.text(HeaderName::Contact, &contact);
            w.text(HeaderName::Event, wish.package.as_bytes());
            w.text(HeaderName::Accept, wish.accept.as_bytes());
            w.number(HeaderName::Expires, expires.into());
        };
        if let Some(dialog) = dialog {
            return notify::write_in_dialog(dialog, Method::Subscribe, 0, more);
        }
        let mut out = Vec::with_capacity(512);
        NewRequest::new(Method::Subscribe, wish.target.as_bytes()).write(&mut out, |w| {
            if let Some(route) = &wish.route {
                w.header(HeaderName::Route, |out| write_addr(route, out));
            }
            w.number(HeaderName::MaxForwards, 70);
            w.header(HeaderName::From, |out| {
                write_addr(&wish.watcher, out);
                out.extend_from_slice(b";tag=");
                out.extend_from_slice(tag.as_bytes());
            });
            w.header(HeaderName::To, |out| write_addr(&wish.target, out));
            w.text(HeaderName::CallId, call_id.as_bytes());
            w.cseq(1, Method::Subscribe);
            more(w);
        });
        self.sent.clone_from(&out);
        Some(out)
    }

    /// Checks a NOTIFY, and sets the dialog up with the first. `Err`: the answer.
    fn take<'m>(&mut self, message: &'m Message<'m>) -> Result<SubscriptionState<'m>, u16> {
        let event = message.value(HeaderName::Event).and_then(Event::parse).ok_or(BAD_EVENT)?;
        if event.package != self.wish.package.as_bytes() {
            return Err(BAD_EVENT);
        }
        let said = message.value(HeaderName::SubscriptionState).and_then(SubscriptionState::parse).ok_or(400u16)?;
        let from = message.from_tag().unwrap_or_default();
        match &mut self.dialog {
            None => {
                let sent = Message::parse(&self.sent).map_err(|_| 481u16)?;
                self.dialog = Some(Dialog::by_notify(&sent, message).map_err(|_| 400u16)?);
            }
            // Another notifier, of a request that was forked on the way: one is enough (RFC 3856 §6.9).
            Some(dialog) if dialog.id().remote_tag != from => return Err(481),
            Some(dialog) => {
                dialog.receive(message).map_err(|_| 500u16)?;
                dialog.responded(message, 200);
            }
        }
        Ok(said)
    }
}

impl Service for Subscriptions {
    fn name(&self) -> &'static str {
        "subscriptions"
    }

    fn request(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        match request.message.method() {
            Method::Notify => self.notified(step, request),
            _ => Verdict::Pass,
        }
    }
}

fn write_addr(uri: &str, out: &mut Vec<u8>) {
    out.push(b'<');
    out.extend(uri.bytes().filter(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"')));
    out.push(b'>');
}

fn document(message: &Message<'_>) -> Option<News> {
    let media = message.value(HeaderName::ContentType).and_then(MediaType::parse)?;
    let body = message.body();
    if body.is_empty() || body.len() > MAX_DOCUMENT {
        return None;
    }
    let media_type = String::from_utf8([media.kind, b"/", media.subtype].concat().to_ascii_lowercase()).ok()?;
    Some(News::Document { media_type: media_type.into(), body: body.into() })
}

fn key_of(call_id: &[u8], tag: &[u8]) -> Box<[u8]> {
    [call_id, b"\0", tag].concat().into()
}

fn hex(number: u64) -> String {
    String::from_utf8_lossy(&hex16(number)).into_owned()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test stands for the server, which has a clock")]
mod tests {
    use sip_proto::endpoint::{Endpoint, EndpointConfig};
    use sip_proto::transaction::Timing;
    use sip_proto::uri::Uri;
    use sip_proto::{Flow, FlowId, Outbox, Transport};

    use super::*;
    use crate::service::{Caller, OnOutcome, Transaction};

    const NOTIFIER: &str = "192.0.2.7:5060";

    /// A stack that keeps what is sent.
    #[derive(Default)]
    struct Stack(Mutex<Vec<(String, OnOutcome)>>);

    impl Outlet for Stack {
        fn send(&self, _: Hop, _: &[u8]) {}
        fn answer(&self, _: Transaction, _: u16, _: &dyn Fn(&mut Writer<'_>)) {}
        fn request(&self, _: Hop, bytes: Vec<u8>, done: OnOutcome) {
            self.0.lock().push((String::from_utf8(bytes).unwrap(), done));
        }
    }

    struct Here;

    impl NextHops for Here {
        fn next_hops(&self, _: &[u8], done: Box<dyn FnOnce(Vec<Hop>) + Send>) {
            done(vec![Hop::Address { transport: Transport::Udp, remote: NOTIFIER.parse().unwrap() }]);
        }
    }

    struct House {
        subscriptions: Arc<Subscriptions>,
        stack: Arc<Stack>,
        endpoint: Endpoint,
        news: Arc<Mutex<Vec<News>>>,
        now: Instant,
    }

    impl House {
        fn new() -> (House, u64) {
            let home = Arc::new(Home::new("h.test", [(Transport::Udp, "192.0.2.1:5060".parse().unwrap())]));
            let subscriptions = Subscriptions::new(Parts { home, next_hops: Arc::new(Here), clock: Instant::now });
            let stack = Arc::new(Stack::default());
            let news = Arc::new(Mutex::new(Vec::new()));
            let wish = Wish {
                target: "sip:eve@e.test".into(),
                watcher: "sip:alice@h.test".into(),
                route: None,
                package: "presence",
                accept: "application/pidf+xml",
                expires: 600,
            };
            let told = news.clone();
            // Begun while the server is, as those of restored lists are: it waits for the way out.
            let number = subscriptions.start(wish, Arc::new(move |one| told.lock().push(one)));
            subscriptions.attach(stack.clone());
            let config = EndpointConfig { timing: Timing::default(), shard: 0, max_transactions: 100, secret: [7; 16] };
            let now = Instant::now();
            (House { subscriptions, stack, endpoint: Endpoint::new(config, now), news, now }, number)
        }

        fn sent(&self) -> (String, OnOutcome) {
            self.stack.0.lock().pop().expect("a SUBSCRIBE")
        }

        /// The answer to a NOTIFY in the dialog of `subscribe`.
        fn notify(&mut self, subscribe: &str, cseq: u32, tag: &str, more: &str, body: &str) -> Option<u16> {
            let request = Message::parse(subscribe.as_bytes()).unwrap();
            let text = |name| String::from_utf8_lossy(request.value(name).unwrap()).into_owned();
            let notify = format!(
                "NOTIFY sip:192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {NOTIFIER};branch=z9hG4bKn{cseq}\r\nMax-Forwards: 70\r\n\
                 From: {};tag={tag}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} NOTIFY\r\nContact: <sip:{NOTIFIER}>\r\n\
                 Event: presence\r\n{more}Content-Length: {}\r\n\r\n{body}",
                text(HeaderName::To).split(';').next().unwrap(),
                text(HeaderName::From),
                text(HeaderName::CallId),
                body.len()
            );
            let message = Message::parse(notify.as_bytes()).unwrap();
            let flow = Flow {
                transport: Transport::Udp,
                id: FlowId(1),
                local: "192.0.2.1:5060".parse().unwrap(),
                remote: NOTIFIER.parse().unwrap(),
            };
            let uri = Uri::parse(message.request_uri()).unwrap();
            let request =
                Request { message: &message, flow: &flow, uri, caller: Caller::Foreign, callee: None, profile: None };
            let mut out = Outbox::new();
            let (now, endpoint) = (self.now, &mut self.endpoint);
            let mut step = Step { now, unix: 0, shard: 0, endpoint, out: &mut out, loaded: false };
            if self.subscriptions.notified(&mut step, &request) == Verdict::Pass {
                return None;
            }
            out.iter().next().map(|(_, b)| Message::parse(b).unwrap().status())
        }
    }

    fn ok(subscribe: &str) -> Outcome {
        let request = Message::parse(subscribe.as_bytes()).unwrap();
        let value = |name| String::from_utf8_lossy(request.value(name).unwrap()).into_owned();
        let bytes = format!(
            "SIP/2.0 200 OK\r\nFrom: {}\r\nTo: {};tag=e\r\nCall-ID: {}\r\nCSeq: 1 SUBSCRIBE\r\nContact: <sip:{NOTIFIER}>\r\n\
             Expires: 600\r\nContent-Length: 0\r\n\r\n",
            value(HeaderName::From),
            value(HeaderName::To),
            value(HeaderName::CallId)
        );
        Outcome::Response { status: 200, bytes: bytes.into_bytes().into() }
    }

    const ACTIVE: &str = "Subscription-State: active;expires=600\r\nContent-Type: application/PIDF+xml\r\n";

    #[test]
    fn a_subscription_is_told_of_and_left() {
        let (mut house, number) = House::new();
        let (subscribe, done) = house.sent();
        assert!(subscribe.starts_with("SUBSCRIBE sip:eve@e.test SIP/2.0\r\n"), "{subscribe}");
        assert!(subscribe.contains("Contact: <sip:192.0.2.1:5060;transport=udp>\r\n"), "{subscribe}");
        // The first NOTIFY may be faster than the answer.
        assert_eq!(house.notify(&subscribe, 1, "e", ACTIVE, "<x/>"), Some(200));
        done(ok(&subscribe));
        let document = News::Document { media_type: "application/pidf+xml".into(), body: b"<x/>"[..].into() };
        assert_eq!(*house.news.lock(), [document]);
        // A notifier that the request was forked to as well, an old number, another dialog.
        assert_eq!(house.notify(&subscribe, 2, "other", ACTIVE, "<y/>"), Some(481));
        assert_eq!(house.notify(&subscribe, 1, "e", &format!("{ACTIVE}Subject: again\r\n"), "<y/>"), Some(500));
        assert_eq!(house.notify(&subscribe.replace("Call-ID: ", "Call-ID: x"), 3, "e", ACTIVE, ""), None);
        assert_eq!(house.notify(&subscribe, 4, "e", "Subscription-State: pending\r\n", ""), Some(200));
        assert_eq!(house.news.lock().last(), Some(&News::Pending));
        house.subscriptions.stop(number);
        let (leave, _) = house.sent();
        assert!(leave.contains("\r\nExpires: 0\r\n") && leave.contains("CSeq: 2 SUBSCRIBE"), "{leave}");
        assert_eq!(
            house.notify(&subscribe, 5, "e", "Subscription-State: terminated;reason=timeout\r\n", ""),
            Some(200)
        );
        assert!(house.subscriptions.is_empty());
    }

    #[test]
    fn a_notifier_that_is_away_is_asked_again_and_one_that_refuses_is_not() {
        let (mut house, _) = House::new();
        let (first, done) = house.sent();
        done(Outcome::Timeout);
        assert_eq!(*house.news.lock(), [News::Lost]);
        house.now += Duration::from_secs(29);
        house.subscriptions.tick(house.now);
        assert!(house.stack.0.lock().is_empty());
        house.now += Duration::from_secs(10);
        house.subscriptions.tick(house.now);
        let (second, done) = house.sent();
        let call_id = |text: &str| text.lines().find(|l| l.starts_with("Call-ID")).unwrap().to_owned();
        assert_ne!(call_id(&first), call_id(&second), "a new dialog");
        let bytes = b"SIP/2.0 403 Forbidden\r\nCSeq: 1 SUBSCRIBE\r\n\r\n"[..].into();
        done(Outcome::Response { status: 403, bytes });
        assert_eq!(house.news.lock().last(), Some(&News::Refused("403".into())));
        house.subscriptions.tick(house.now + Duration::from_secs(100_000));
        assert!(house.stack.0.lock().is_empty());
        assert_eq!(house.subscriptions.len(), 1, "until it is stopped");
    }
}
