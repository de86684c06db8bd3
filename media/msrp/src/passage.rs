//! What comes in on a connection, and where it goes: requests to the other leg of their session, responses to the
//! transaction that waits for them.
//!
//! A body is written on from the buffer it was read into. The reading side waits while the other connection takes nothing,
//! so that a fast sender is slowed down by TCP to what a slow receiver takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncRead;

use crate::assembly::{Refused, Told};
use crate::bridge::{Bridge, Far, Link, Paths, Side};
use crate::buffer::Buffer;
use crate::connection::{About, Connection, Gone, ReadHalf};
use crate::counts::Counts;
use crate::head::{FailureReport, Head, Malformed, Method, Name, Start, transaction_id};
use crate::held::{First, Keeping};
use crate::lane::Chunk;
use crate::range::{ByteRange, MAX_POSITION};
use crate::reader::{Event, Flag, Lost, Reader};
use crate::switch::Switch;
use crate::uri::MsrpUri;
use crate::write::{self, TransactionId};

/// Chunks up to this many bytes are not interrupted (RFC 4975 §7.1.1).
const UNINTERRUPTED: usize = 2048;
/// Bytes of a chunk that are read on after it was refused: its sender was told, and ends it (RFC 4975 §10.5), or the connection is closed.
const MAX_UNWANTED: u64 = 16 << 20;
/// How long a message waits for the other leg's connection.
const REACH_WAIT: Duration = Duration::from_secs(20);

/// Serves the reading side of a connection until either side ends it. Returns why.
pub(crate) async fn serve(switch: &Arc<Switch>, connection: &Arc<Connection>, mut io: ReadHalf) -> End {
    let mut inbound = Inbound { switch, connection, reader: Reader::default(), course: None };
    let mut kept = Vec::new();
    let end = loop {
        let read = tokio::select! {
            biased;
            read = fill(&mut io, &kept) => read,
            () = connection.ended() => break End::Asked,
        };
        let Ok((buffer, length)) = read else { break End::Broken };
        if length == kept.len() {
            break End::Closed;
        }
        // Boxed, so that a connection on which nothing happens does not hold the room for what may.
        match Box::pin(inbound.take(&buffer[..length])).await {
            Ok(done) => {
                kept.clear();
                kept.extend_from_slice(&buffer[done..length]);
                if kept.is_empty() {
                    kept = Vec::new();
                }
            }
            Err(end) => break end,
        }
    };
    Box::pin(inbound.broken_off()).await;
    end
}

/// Why a connection was not read on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// We ended it.
    Asked,
    /// The peer closed it.
    Closed,
    Broken,
    /// Not MSRP, or not any more.
    Lost(Lost),
}

/// Reads into a buffer on loan, behind what was kept. While nothing comes, no buffer is held.
async fn fill(io: &mut ReadHalf, kept: &[u8]) -> std::io::Result<(Buffer, usize)> {
    std::future::poll_fn(|cx| {
        let mut buffer = Buffer::take();
        buffer[..kept.len()].copy_from_slice(kept);
        let mut into = tokio::io::ReadBuf::new(&mut buffer[kept.len()..]);
        std::task::ready!(std::pin::Pin::new(&mut *io).poll_read(cx, &mut into))?;
        let length = kept.len() + into.filled().len();
        std::task::Poll::Ready(Ok((buffer, length)))
    })
    .await
}

struct Inbound<'a> {
    switch: &'a Arc<Switch>,
    connection: &'a Arc<Connection>,
    reader: Reader,
    /// The request at hand.
    course: Option<Box<Course>>,
}

/// What becomes of the request that is being read.
struct Course {
    /// For its response.
    id: Box<[u8]>,
    back: Box<[u8]>,
    from: Box<[u8]>,
    answer: Answer,
    /// More header lines of the response.
    headers: Vec<(&'static str, Vec<u8>)>,
    relay: Option<Relay>,
    /// A chunk that ends here.
    gather: Option<Gather>,
    /// A chunk of a message that is held.
    keeping: Option<Keeping>,
    /// Whose connection this is, once it is answered.
    binds: Option<(Arc<Bridge>, Side)>,
    /// Bytes of its body that nobody takes.
    unwanted: u64,
}

/// The response that its sender gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// None to this one.
    Never,
    /// Errors, but not 200.
    Errors(u16),
    Always(u16),
}

impl Answer {
    fn to(wants: FailureReport, status: u16) -> Answer {
        match wants {
            FailureReport::Yes => Answer::Always(status),
            FailureReport::Partial => Answer::Errors(status),
            FailureReport::No => Answer::Never,
        }
    }

    /// What is sent, if anything is.
    fn status(self) -> Option<u16> {
        match self {
            Answer::Never | Answer::Errors(200) => None,
            Answer::Errors(status) | Answer::Always(status) => Some(status),
        }
    }

    fn with(self, status: u16) -> Answer {
        match self {
            Answer::Never => Answer::Never,
            Answer::Errors(_) => Answer::Errors(status),
            Answer::Always(_) => Answer::Always(status),
        }
    }
}

/// A chunk on its way to the other leg.
struct Relay {
    bridge: Arc<Bridge>,
    /// Who sends.
    side: Side,
    target: Arc<Connection>,
    paths: Paths,
    /// Lines that stand before Byte-Range, and after it.
    headers: Box<[u8]>,
    content: Box<[u8]>,
    message_id: Box<[u8]>,
    wants: FailureReport,
    /// The next byte.
    position: u64,
    /// The last position of the message, if it was told.
    total: Option<u64>,
    owner: u64,
}

impl Inbound<'_> {
    /// Takes all that can be taken of what was read, and says how much that is.
    async fn take(&mut self, input: &[u8]) -> Result<usize, End> {
        let (mut at, mut piece): (usize, &[u8]) = (0, &[]);
        loop {
            let (done, event) = match self.reader.read(&input[at..]) {
                Ok(read) => read,
                Err(lost) => return Err(End::Lost(lost)),
            };
            at += done;
            // The last piece waits for what comes after it, so that both leave in one write.
            match event {
                Event::More if done > 0 => {}
                Event::More => break,
                Event::Body(next) => {
                    self.piece(std::mem::replace(&mut piece, next), None).await?;
                }
                Event::Guarded => {
                    self.piece(std::mem::take(&mut piece), None).await?;
                    self.reader.guard(b"");
                    self.interrupt().await;
                }
                Event::End(flag) => self.end(std::mem::take(&mut piece), flag).await?,
                Event::Head(head) => self.head(head).await?,
            }
        }
        self.piece(piece, None).await?;
        Ok(at)
    }

    async fn head(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.course = match Head::parse(bytes) {
            Err(malformed) => Some(Box::new(self.malformed(bytes, malformed))),
            Ok(head) => match head.start {
                Start::Response { status, .. } => {
                    self.response(head.id, status).await;
                    None
                }
                Start::Request(method) => Some(Box::new(self.request(&head, method).await)),
            },
        };
        if let Some(course) = &mut self.course
            && course.answer.status().is_some_and(|status| status != 200)
        {
            respond(self.switch, self.connection, course).await?;
        }
        Ok(())
    }

    /// 400, if there is a way to say so.
    fn malformed(&self, bytes: &[u8], malformed: Malformed) -> Course {
        tracing::debug!(connection = self.connection.number, %malformed, "MSRP request refused");
        let line = |name: &[u8]| {
            let found = bytes.split(|&b| b == b'\n').find_map(|l| {
                let (spelt, value) = l.split_at_checked(name.len())?;
                spelt.eq_ignore_ascii_case(name).then(|| value.trim_ascii().split(|&b| b == b' ').next())?
            });
            found.filter(|uri| MsrpUri::parse(uri).is_some()).map(Box::<[u8]>::from)
        };
        // A bad response is not answered with another, nor any REPORT (RFC 4975 §7.1.2).
        let first = bytes.get(..bytes.iter().position(|&b| b == b'\r').unwrap_or(0)).unwrap_or_default();
        let answered =
            first.split(|&b| b == b' ').nth(2).is_some_and(|w| w != b"REPORT" && !w.iter().all(u8::is_ascii_digit));
        match (line(b"From-Path:"), line(b"To-Path:")) {
            (Some(back), Some(from)) if answered => Course {
                id: transaction_id(bytes).unwrap_or_default().into(),
                back,
                from,
                answer: Answer::Always(400),
                headers: Vec::new(),
                relay: None,
                gather: None,
                keeping: None,
                binds: None,
                unwanted: 0,
            },
            _ => Course {
                id: Box::default(),
                back: Box::default(),
                from: Box::default(),
                answer: Answer::Never,
                headers: Vec::new(),
                relay: None,
                gather: None,
                keeping: None,
                binds: None,
                unwanted: 0,
            },
        }
    }

    async fn request(&mut self, head: &Head<'_>, method: Method) -> Course {
        let first = |path: &[u8]| Box::from(path.split(|&b| b == b' ').next().unwrap_or_default());
        let wants = if method == Method::Report { FailureReport::No } else { head.failure_report() };
        let course = |status| Course {
            id: head.id.into(),
            back: first(head.from_path()),
            from: first(head.to_path()),
            answer: Answer::to(wants, status),
            headers: Vec::new(),
            relay: None,
            gather: None,
            keeping: None,
            binds: None,
            unwanted: 0,
        };
        if method == Method::Auth {
            let (status, headers) = self.switch.auth(self.connection, head);
            return Course { answer: Answer::Always(status), headers, ..course(status) };
        }
        let (bridge, side) = match self.session(head) {
            Ok(session) => session,
            Err(status) => return course(status),
        };
        match method {
            Method::Send => {}
            Method::Report => {
                bridge.ready(side);
                self.report(&bridge, side, head).await;
                return course(200);
            }
            Method::Nickname => {
                bridge.ready(side);
                let status = match &bridge.leg(side.other()).local {
                    Some(local) => local.end.nickname(head.other("Use-Nickname").and_then(unquoted).as_deref()),
                    None => 501,
                };
                // RFC 7701 §7.1: such a request has no Failure-Report, and is always answered.
                return Course { answer: Answer::Always(status), ..course(status) };
            }
            Method::Auth | Method::Other => return course(501),
        }
        // Without a body it binds the connection, or keeps it open (RFC 4975 §7.1): our neighbour's concern, and not its peer's.
        if head.value(Name::ContentType).is_none() {
            return Course { binds: Some((bridge, side)), ..course(200) };
        }
        bridge.ready(side);
        let custody = bridge.leg(side).custody.get();
        if bridge.leg(side.other()).local.is_some() && custody.is_none_or(|c| !c.ends_here) {
            return match gather(&bridge, side, head) {
                Ok(gather) => Course { gather: Some(gather), ..course(200) },
                Err(status) => course(status),
            };
        }
        if custody.is_some() {
            return match self.keep(&bridge, side, head, wants) {
                Ok(keeping) => Course { keeping: Some(keeping), ..course(200) },
                Err(status) => course(status),
            };
        }
        match self.relay(&bridge, side, head, wants).await {
            Ok(relay) => {
                if let Some(length) = head.byte_range().and_then(|r| r.len()).filter(|l| *l <= UNINTERRUPTED as u64) {
                    self.reader.in_one_piece(length as usize);
                }
                Course { relay: Some(relay), ..course(200) }
            }
            Err(status) => course(status),
        }
    }

    /// The session that a request belongs to; this connection becomes its connection if it has none (RFC 4975 §5.4).
    fn session(&self, head: &Head<'_>) -> Result<(Arc<Bridge>, Side), u16> {
        // An endpoint is the last on the path; we are no relay to somewhere else.
        let path = self.switch.behind_relay(self.connection, head.to_path());
        let uri = MsrpUri::parse(path).ok_or(481u16)?;
        let (bridge, side) = self.switch.session(uri.session()).ok_or(481u16)?;
        let leg = bridge.leg(side);
        let mut state = leg.state.lock();
        match &state.link {
            Link::Closed | Link::Down => return Err(481),
            Link::Up(bound) if Arc::ptr_eq(bound, self.connection) => {
                drop(state);
                return Ok((bridge, side));
            }
            Link::Up(bound) if !bound.is_over() => return Err(506),
            Link::Up(_) | Link::Awaited => {}
        }
        if let (Some(shown), Some(expected)) =
            (&self.connection.shown, state.peer.as_ref().and_then(|p| p.fingerprint.as_ref()))
            && !expected.is_of(shown)
        {
            return Err(403);
        }
        state.link = Link::Up(self.connection.clone());
        state.ready = false;
        drop(state);
        self.connection.add(bridge.clone(), side);
        self.switch.bound(self.connection);
        Ok((bridge, side))
    }

    async fn relay(
        &self,
        bridge: &Arc<Bridge>,
        side: Side,
        head: &Head<'_>,
        wants: FailureReport,
    ) -> Result<Relay, u16> {
        let range = head.byte_range().unwrap_or(ByteRange::WHOLE);
        let most = self.switch.max_message();
        if range.total.is_some_and(|total| total > most)
            || range.end.is_some_and(|end| end > most)
            || range.start > most + 1
        {
            return Err(413);
        }
        if bridge.leg(side).has_stopped(head.message_id()) {
            return Err(413);
        }
        let reached = tokio::time::timeout(REACH_WAIT, bridge.reach(side.other())).await;
        let (target, paths) = match reached {
            Ok(Some(Far::Connection(target, paths))) => (target, paths),
            Ok(Some(Far::Local) | None) => return Err(481),
            Err(_) => return Err(408),
        };
        if let Some(tap) = bridge.leg(side).tap.get() {
            let content_type = head.value(Name::ContentType).unwrap_or_default();
            tap.begin(&Told { message_id: head.message_id(), content_type, range });
        }
        let (headers, content) = lines(head);
        Ok(Relay {
            bridge: bridge.clone(),
            side,
            target,
            paths,
            headers: headers.into(),
            content: content.into(),
            message_id: head.message_id().into(),
            wants,
            position: range.start,
            total: range.total,
            owner: self.switch.number(),
        })
    }

    /// A chunk of a message that is held begins.
    fn keep(&self, bridge: &Arc<Bridge>, side: Side, head: &Head<'_>, wants: FailureReport) -> Result<Keeping, u16> {
        let leg = bridge.leg(side);
        if leg.has_stopped(head.message_id()) {
            return Err(413);
        }
        let (headers, content) = lines(head);
        let first = First {
            message_id: head.message_id(),
            content_type: head.value(Name::ContentType).unwrap_or_default(),
            headers,
            content,
            range: head.byte_range().unwrap_or(ByteRange::WHOLE),
            wants,
            success: head.success_report(),
            at: Instant::now(),
        };
        // Asked for only where there is one.
        let custody = leg.custody.get().ok_or(481u16)?;
        custody.begin(bridge, side, first, self.switch)
    }

    /// Writes on a piece of the body, and the end of the chunk with it. What nobody takes is refused at once: its sender may stop in the middle
    /// of the chunk.
    async fn piece(&mut self, body: &[u8], end: Option<Flag>) -> Result<(), End> {
        if body.is_empty() && end.is_none() {
            return Ok(());
        }
        let Some(course) = &mut self.course else { return Ok(()) };
        let refused = if let Some(Gather { bridge, side, .. }) = &course.gather
            && let Some(local) = &bridge.leg(side.other()).local
        {
            let taken = local.assembly.lock().piece(body).map_err(Refused::status);
            taken.inspect_err(|_| course.gather = None).err()
        } else if let Some(keeping) = &mut course.keeping {
            keeping.piece(body).await.inspect_err(|_| course.keeping = None).err()
        } else if let Some(relay) = &mut course.relay {
            let refused = match relay.refusal(body, self.switch.max_message()) {
                None => relay.forward(self.switch, &mut self.reader, body, end).await.err().map(|Gone| 481),
                Some(status) => {
                    relay.give_up().await;
                    Some(status)
                }
            };
            if refused.is_some() {
                course.relay = None;
            }
            refused
        } else {
            course.unwanted += body.len() as u64;
            return if course.unwanted > MAX_UNWANTED { Err(End::Lost(Lost::Endless)) } else { Ok(()) };
        };
        let Some(status) = refused else { return Ok(()) };
        course.answer = course.answer.with(status);
        respond(self.switch, self.connection, course).await
    }

    async fn interrupt(&mut self) {
        if let Some(relay) = self.course.as_ref().and_then(|c| c.relay.as_ref()) {
            // What follows begins a chunk of its own, with another transaction.
            let owner = relay.owner;
            let _ = relay.target.write(|lane, out| lane.end(Instant::now(), out, owner, Flag::More)).await;
        }
    }

    async fn end(&mut self, piece: &[u8], flag: Flag) -> Result<(), End> {
        self.piece(piece, Some(flag)).await?;
        let Some(mut course) = self.course.take() else { return Ok(()) };
        let report = match course.gather.take() {
            Some(gather) => self.gathered(&mut course, gather, flag).await,
            None => None,
        };
        let kept = course.keeping.take();
        respond(self.switch, self.connection, &mut course).await?;
        if let Some(report) = report {
            let told = self.connection.write(|lane, out| {
                lane.interject(Instant::now(), out);
                out.extend_from_slice(&report);
            });
            told.await.map_err(|Gone| End::Broken)?;
        }
        if let Some((bridge, side)) = course.binds {
            bridge.ready(side);
        }
        if let Some(keeping) = kept {
            // Behind its answer: what is judged may be refused at once.
            keeping.end(flag).await;
        }
        Ok(())
    }

    /// A chunk of a message that ends here is complete; the message with it, perhaps. Gives the report that is wanted then.
    async fn gathered(&self, course: &mut Course, gather: Gather, flag: Flag) -> Option<Vec<u8>> {
        let Gather { bridge, side, wants_success } = gather;
        let local = bridge.leg(side.other()).local.as_ref()?;
        let whole = local.assembly.lock().end(flag)?;
        Counts::add(&self.switch.counts().received, 1);
        let (message_id, total) = (whole.message_id.clone(), whole.body.len() as u64);
        let judged = match bridge.leg(side).custody.get() {
            Some(custody) => self.switch.judge_local(&custody.inspector, &whole.content_type, &whole.body).await,
            None => 200,
        };
        let status = if judged == 200 { local.end.clone().received(whole).await } else { judged };
        course.answer = course.answer.with(status);
        let leg = bridge.leg(side);
        let paths = leg.state.lock().peer.as_ref().map(|p| leg.paths(p));
        let paths = paths.filter(|_| wants_success && status == 200)?;
        let range = ByteRange { start: 1, end: Some(total), total: Some(total) };
        let (mut report, id) = (Vec::new(), TransactionId::new(rand::random()));
        write::report(&mut report, &id, [&paths.to, &paths.from], &message_id, range, 200);
        Some(report)
    }

    /// The connection ended in the middle of a message: the other side is told that no more comes.
    async fn broken_off(&mut self) {
        if let Some(relay) = self.course.take().and_then(|c| c.relay) {
            relay.give_up().await;
        }
    }

    /// A report goes on as it is, with the paths of the other leg.
    async fn report(&self, bridge: &Arc<Bridge>, side: Side, head: &Head<'_>) {
        let other = side.other();
        let reached = {
            let state = bridge.leg(other).state.lock();
            match (&state.link, &state.peer) {
                (Link::Up(connection), Some(peer)) if state.ready => {
                    Some((connection.clone(), bridge.leg(other).paths(peer)))
                }
                _ => None,
            }
        };
        Counts::add(&self.switch.counts().reports, u64::from(reached.is_some()));
        if let (Some(local), Some(status)) = (&bridge.leg(other).local, head.status()) {
            return local.end.reported(head.message_id(), status);
        }
        let Some((target, paths)) = reached else { return };
        let id = TransactionId::new(rand::random());
        let sent = target.write(|lane, out| {
            lane.interject(Instant::now(), out);
            write::request(out, &id, "REPORT", &paths.to, &paths.from);
            for line in &head.lines {
                match line.name {
                    Name::MessageId | Name::ByteRange | Name::Status => {
                        write::line(out, line.name.as_str(), line.value)
                    }
                    _ => {}
                }
            }
            write::end(out, id.as_bytes(), Flag::Complete);
        });
        // A connection that is gone is noticed by whoever reads from it.
        let _ = sent.await;
    }

    /// The far end answered one of our requests.
    async fn response(&self, id: &[u8], status: u16) {
        let Some(about) = self.connection.lane(|lane| lane.answered(id)).await else { return };
        if status == 200 {
            return;
        }
        match about {
            About::Opening { bridge, side } => {
                tracing::debug!(session = bridge.name(), status, "MSRP peer does not know the session");
                self.switch.lost(&bridge, side, self.connection);
                self.connection.release(&bridge);
            }
            About::Chunk { bridge, from, message_id, range, wants } => {
                if status == 413 {
                    bridge.leg(from).stop(&message_id);
                }
                self.switch.failed(About::Chunk { bridge, from, message_id, range, wants }, status);
            }
        }
    }
}

/// Sends the response to a request, if it gets one: once.
async fn respond(switch: &Switch, connection: &Connection, course: &mut Course) -> Result<(), End> {
    let Some(status) = course.answer.status() else { return Ok(()) };
    course.answer = Answer::Never;
    if status != 200 {
        Counts::add(&switch.counts().refused, 1);
    }
    let answered = connection.write(|lane, out| {
        lane.interject(Instant::now(), out);
        write::response_with(out, &course.id, status, [&course.back, &course.from], &course.headers);
    });
    answered.await.map_err(|Gone| End::Broken)
}

/// A chunk of a message that ends here.
struct Gather {
    bridge: Arc<Bridge>,
    side: Side,
    wants_success: bool,
}

fn gather(bridge: &Arc<Bridge>, side: Side, head: &Head<'_>) -> Result<Gather, u16> {
    let leg = bridge.leg(side.other());
    let local = leg.local.as_ref().filter(|_| matches!(leg.state.lock().link, Link::Awaited)).ok_or(481u16)?;
    let told = Told {
        message_id: head.message_id(),
        content_type: head.value(Name::ContentType).unwrap_or_default(),
        range: head.byte_range().unwrap_or(ByteRange::WHOLE),
    };
    local.assembly.lock().begin(Instant::now(), &told).map_err(|refused| refused.status())?;
    Ok(Gather { bridge: bridge.clone(), side, wants_success: head.success_report() })
}

/// The lines of a SEND that go on with it: those before Byte-Range, and those after it.
fn lines(head: &Head<'_>) -> (Vec<u8>, Vec<u8>) {
    let (mut headers, mut content) = (Vec::new(), Vec::new());
    for line in &head.lines {
        let spelt = std::str::from_utf8(line.spelt).unwrap_or_default();
        match line.name {
            Name::ToPath | Name::FromPath | Name::ByteRange | Name::ContentType | Name::Status => {}
            // MIME headers stand right before Content-Type.
            Name::Other if is_mime(line.spelt) => write::line(&mut content, spelt, line.value),
            name => write::line(&mut headers, if name == Name::Other { spelt } else { name.as_str() }, line.value),
        }
    }
    write::line(&mut content, "Content-Type", head.value(Name::ContentType).unwrap_or_default());
    (headers, content)
}

/// What stands between double quotes, its escapes undone; or the whole, where there are none: RFC 7701 §7.1 wants them, AG
/// Projects' msrplib (Blink, SylkServer) writes none.
fn unquoted(value: &[u8]) -> Option<String> {
    let value = std::str::from_utf8(value).ok()?;
    let Some(quoted) = value.strip_prefix('"') else { return (!value.contains('"')).then(|| value.to_owned()) };
    let inside = quoted.strip_suffix('"')?;
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => text.push(rest.next()?),
            '"' => return None,
            c => text.push(c),
        }
    }
    Some(text)
}

impl Relay {
    /// Why this piece may not go on.
    fn refusal(&self, body: &[u8], most: u64) -> Option<u16> {
        let end = self.position + body.len() as u64 - 1;
        if end > most.min(MAX_POSITION) {
            return Some(413);
        }
        if self.total.is_some_and(|total| end > total) {
            // More bytes than the message has.
            return Some(400);
        }
        let stopped = &self.bridge.leg(self.side).state.lock().stopped;
        stopped.contains(&self.message_id).then_some(413)
    }

    async fn forward(
        &mut self,
        switch: &Arc<Switch>,
        reader: &mut Reader,
        body: &[u8],
        end: Option<Flag>,
    ) -> Result<(), Gone> {
        let Relay { bridge, side, target, paths, headers, content, message_id, wants, position, total, owner, .. } =
            self;
        let last = *position + body.len() as u64 - 1;
        let sent = target.write_around(body, |lane, before, after| {
            let now = Instant::now();
            if !lane.holds(*owner) {
                if lane.is_full() {
                    target.end();
                    return Err(Gone);
                }
                let whole = end.is_some() && body.len() <= UNINTERRUPTED;
                let range = ByteRange { start: *position, end: whole.then_some(last), total: *total };
                let chunk = Chunk { to_path: &paths.to, from_path: &paths.from, headers, content };
                let about = About::Chunk {
                    bridge: bridge.clone(),
                    from: *side,
                    message_id: message_id.clone(),
                    range,
                    wants: *wants,
                };
                let id = TransactionId::new(rand::random());
                lane.begin(now, before, *owner, id, &chunk, range, *wants, about);
                reader.guard(id.as_bytes());
            }
            if let Some(About::Chunk { range, .. }) = lane.about_mut(*owner) {
                range.end = Some(last);
            }
            if let Some(flag) = end {
                lane.end(now, after, *owner, flag);
            }
            Ok(())
        });
        sent.await?;
        if let Some(tap) = bridge.leg(*side).tap.get() {
            tap.piece(body);
            if let Some(flag) = end {
                tap.end(flag);
            }
        }
        *position = last + 1;
        let counts = switch.counts();
        Counts::add(&counts.bytes, body.len() as u64);
        if let Some(flag) = end {
            Counts::add(&counts.chunks, 1);
            if flag == Flag::Complete {
                Counts::add(&counts.messages, 1);
            }
        }
        Ok(())
    }

    /// Ends the chunk that is on the wire: no more of this message comes.
    async fn give_up(&self) {
        if let Some(tap) = self.bridge.leg(self.side).tap.get() {
            tap.end(Flag::Aborted);
        }
        // A target that is gone needs no end.
        let _ = self.target.write(|lane, out| lane.end(Instant::now(), out, self.owner, Flag::Aborted)).await;
    }
}

fn is_mime(name: &[u8]) -> bool {
    name.get(..8).is_some_and(|n| n.eq_ignore_ascii_case(b"Content-"))
}
