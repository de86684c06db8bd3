//! The XCAP server: what requests do to users' documents. HTTP is in [`crate::http::xcap`], what a document must be in
//! `sip-xcap`, what it means in `sip-presence`.

pub mod changes;
mod claims;
mod made;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_ims::ports::{Bus, Document, Documents, Expect, StoreError};
use sip_ims::{Aor, Directory, Home, User, answer};
use sip_presence::document::Published;
use sip_presence::lists::{LISTS, Lists};
use sip_presence::rules::Rules;
use sip_presence::{MANIPULATED, Presence, RULES, key_of, owner_of};
use sip_proto::uri::{Scheme, Uri};
use sip_xcap::usage::{self, Place, Stored, Usage};
use sip_xcap::{Conflict, NodeSelector, Put, Refused, Target, Text, Tree};

use crate::config::{self, Config};
use crate::http::etag::{Conditions, Failed, tag};
use crate::presence::announce_document;

/// See the module's text.
pub struct Xcap {
    pub parts: Parts,
    config: config::Xcap,
    /// The XCAP root's URI, with a slash at its end.
    root: String,
    total: Mutex<Total>,
    changed: AtomicU64,
}

pub struct Parts {
    pub documents: Arc<dyn Documents>,
    pub directory: Arc<Directory>,
    pub home: Arc<Home>,
    pub bus: Arc<dyn Bus>,
    /// Knows which URIs stand for lists, those that were stored before services were claimed included.
    pub presence: Option<Arc<Presence>>,
}

/// Where a stored document is.
#[derive(Clone)]
pub struct Seat {
    pub usage: &'static Usage,
    pub stored: &'static Stored,
    pub owner: Arc<User>,
    /// The key of the row.
    pub key: String,
    pub name: String,
}

/// What a URI names.
pub enum Resource {
    Stored(Seat),
    /// A document that we make: only read.
    Made(Made),
    /// A place in a directory that no usage has.
    Nowhere {
        home: String,
    },
}

pub enum Made {
    Capabilities,
    /// Of all services.
    Index,
    Directory(Arc<User>),
}

/// A document as it is now.
pub struct Current {
    pub media_type: &'static str,
    pub tag: String,
    pub body: Vec<u8>,
}

/// What is to be done with a document.
#[derive(Clone, Copy)]
pub enum Wish<'w> {
    Put(&'w [u8]),
    Delete,
    /// With the document's URI below the root.
    PutNode(&'w NodeSelector, Put<'w>, &'w str),
    DeleteNode(&'w NodeSelector),
}

pub struct Changed {
    /// There was no such resource.
    pub created: bool,
    /// The document's; none: it is gone.
    pub tag: Option<String>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum No {
    #[error("no such resource")]
    NotFound,
    #[error("read only")]
    ReadOnly,
    /// 412.
    #[error("the document is another one by now")]
    Precondition,
    /// 413.
    #[error("the document would be longer than allowed")]
    TooLarge,
    /// 409.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// 503: others change it all the time.
    #[error("busy")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Bytes of a document's name.
const MAX_NAME: usize = 128;
/// Attempts of a change that others get in the way of.
const ATTEMPTS: usize = 16;

/// How many documents there are, and when that was counted.
struct Total {
    documents: u64,
    at: Option<Instant>,
}

/// The XCAP root's URI, with a slash at its end: as configured, or below where this server is reached.
pub fn root_of(config: &Config) -> String {
    let (root, public) = (&config.xcap.root, &config.http.public_url);
    if !root.is_empty() {
        return format!("{}/", root.trim_end_matches('/'));
    }
    let below = crate::http::xcap::ROOT;
    if !public.is_empty() {
        return format!("{}{below}", public.trim_end_matches('/'));
    }
    let (scheme, door) = match (config.http.tls.0, config.http.plain.0) {
        (Some(tls), None) => ("https", Some(tls)),
        (_, plain) => ("http", plain),
    };
    match door {
        Some(door) if !door.ip().is_unspecified() => format!("{scheme}://{door}{below}"),
        Some(door) => format!("{scheme}://{}:{}{below}", config.domain, door.port()),
        None => format!("{scheme}://{}{below}", config.domain),
    }
}

impl Xcap {
    pub fn new(config: &Config, parts: Parts) -> Xcap {
        let total = Mutex::new(Total { documents: 0, at: None });
        Xcap { parts, config: config.xcap.clone(), root: root_of(config), total, changed: AtomicU64::new(0) }
    }

    pub fn root(&self) -> &str {
        &self.root
    }

    /// Changes that were stored.
    pub fn changed(&self) -> u64 {
        self.changed.load(Relaxed)
    }

    /// What a URI names (RFC 4825 §8): `NotFound` for a usage or a user that is not known.
    pub fn resource(&self, target: &Target) -> Result<Resource, No> {
        let usage = usage::find(&target.auid).ok_or(No::NotFound)?;
        let xui = match &target.tree {
            Tree::Users(xui) => xui,
            Tree::Global => {
                return match (&usage.documents, target.document()) {
                    (usage::Documents::Global(name), Some(document)) if document == *name => {
                        Ok(Resource::Made(Made::Capabilities))
                    }
                    _ if usage.auid == usage::rls_services::AUID
                        && target.document() == Some(usage::rls_services::INDEX) =>
                    {
                        Ok(Resource::Made(Made::Index))
                    }
                    _ => Err(No::NotFound),
                };
            }
        };
        let owner = self.user(xui).ok_or(No::NotFound)?;
        match (&usage.documents, target.document()) {
            // Keys end with their name.
            (usage::Documents::Stored(stored), Some(name)) if !name.contains('/') && name.len() <= MAX_NAME => {
                let seat = Seat { usage, stored, key: key_of(&owner.aor, name), owner, name: name.to_owned() };
                Ok(Resource::Stored(seat))
            }
            (usage::Documents::OfUsers(name), Some(document)) if document == *name => {
                Ok(Resource::Made(Made::Directory(owner)))
            }
            (usage::Documents::Stored(_), None) if target.path.len() > 1 => {
                Ok(Resource::Nowhere { home: self.root.clone() + &target.home() })
            }
            _ => Err(No::NotFound),
        }
    }

    /// The user with this XUI: an address or number of theirs (§6.2).
    pub fn user(&self, xui: &str) -> Option<Arc<User>> {
        let uri = Uri::parse(xui.as_bytes())?;
        let (directory, home) = (&self.parts.directory, &self.parts.home);
        match uri.scheme() {
            Scheme::Tel => sip_ims::Msisdn::from_user(uri.user()?).ok().and_then(|n| directory.by_msisdn(n)),
            Scheme::Sip | Scheme::Sips if home.is_domain(uri.host()) => {
                directory.by_parts(uri.user()?, home.domain().as_bytes())
            }
            _ => None,
        }
    }

    /// A document as it is now.
    pub async fn read(&self, resource: &Resource) -> Result<Option<Current>, No> {
        match resource {
            Resource::Nowhere { .. } => Ok(None),
            Resource::Made(made) => self.make(made).await.map(Some),
            Resource::Stored(seat) => Ok(self.get(seat).await?.map(|found| Current {
                media_type: seat.usage.media_type,
                tag: tag(found.version),
                body: found.body,
            })),
        }
    }

    async fn get(&self, seat: &Seat) -> Result<Option<Document>, StoreError> {
        let (done, found) = answer();
        self.parts.documents.get(seat.usage.auid, &seat.key, done);
        found.await
    }

    /// Changes a document, all of it or a node, when the conditions hold for what is there (§8.2, §8.4). It is on disk when this is over,
    /// and everybody is told.
    pub async fn change(&self, seat: &Seat, conditions: &Conditions, wish: Wish<'_>) -> Result<Changed, No> {
        for _ in 0..ATTEMPTS {
            let found = self.get(seat).await?;
            let current = found.as_ref().map(|d| tag(d.version));
            match conditions.hold(current.as_deref()) {
                Ok(()) => {}
                Err(Failed::Match | Failed::NoneMatch) => return Err(No::Precondition),
            }
            match self.attempt(seat, found, wish).await {
                // Somebody was faster: what is there now is looked at again, conditions included.
                Err(No::Store(StoreError::Conflict)) => {}
                Err(no) => return Err(no),
                Ok(changed) => {
                    self.changed.fetch_add(1, Relaxed);
                    let bare = |tag: Option<&str>| tag.unwrap_or_default().trim_matches('"').to_owned();
                    let (previous, new) = (bare(current.as_deref()), bare(changed.tag.as_deref()));
                    announce_document(&*self.parts.bus, seat.usage.auid, &seat.key, Some((&previous, &new)));
                    return Ok(changed);
                }
            }
        }
        Err(No::Busy)
    }

    async fn attempt(&self, seat: &Seat, found: Option<Document>, wish: Wish<'_>) -> Result<Changed, No> {
        if let Wish::Delete = wish {
            let old = found.ok_or(No::NotFound)?;
            let (done, gone) = answer();
            self.parts.documents.delete(seat.usage.auid, &seat.key, Expect::Version(old.version), done);
            gone.await?;
            self.release(seat.usage.auid, &seat.key, &old.body, None).await;
            return Ok(Changed { created: false, tag: None });
        }
        let (text, created) = edited(found.as_ref(), wish, &self.root)?;
        if text.as_str().len() as u64 > self.config.max_document.0 {
            return Err(No::TooLarge);
        }
        self.validate(seat, &text)?;
        let expect = match &found {
            Some(old) => Expect::Version(old.version),
            None => {
                self.room(seat).await?;
                Expect::Absent
            }
        };
        let old = found.map(|d| d.body).unwrap_or_default();
        self.claim(seat, &old, &text).await?;
        let (done, stored) = answer();
        self.parts.documents.put(seat.usage.auid, &seat.key, expect, text.as_str().as_bytes().to_vec(), done);
        let version = stored.await?;
        if expect == Expect::Absent {
            self.total.lock().documents += 1;
        }
        self.release(seat.usage.auid, &seat.key, &old, Some(&text)).await;
        Ok(Changed { created, tag: Some(tag(version)) })
    }

    /// The documents of a user who is none any more go, and so do the URIs that they claimed. Every node that hears of it tries; whoever
    /// is a user again by now keeps them.
    pub async fn forget(&self, aor: &Aor) -> Result<(), StoreError> {
        for (usage, found) in self.documents_below(aor, self.config.documents_per_user.max(ALL_OF_ONE)).await? {
            for document in found {
                if self.parts.directory.by_aor(aor.as_str()).is_some() {
                    return Ok(());
                }
                let (done, gone) = answer();
                self.parts.documents.delete(usage.auid, &document.key, Expect::Version(document.version), done);
                match gone.await {
                    Ok(()) => {}
                    // Another node was faster.
                    Err(StoreError::Conflict) => {}
                    Err(error) => return Err(error),
                }
                self.release(usage.auid, &document.key, &document.body, None).await;
                announce_document(&*self.parts.bus, usage.auid, &document.key, None);
            }
        }
        Ok(())
    }

    /// The same for whoever was removed while no server ran. Called once, when all users are known.
    pub async fn forget_strangers(&self) -> Result<(), StoreError> {
        for usage in usage::ALL.into_iter().filter(|u| u.stored().is_some()) {
            let mut after = String::new();
            loop {
                let (done, page) = answer();
                self.parts.documents.versions(usage.auid, &after, PAGE, done);
                let page = page.await?;
                let mut owners: Vec<Aor> = page.iter().filter_map(|(key, _)| owner_of(key)).collect();
                owners.dedup();
                for owner in owners {
                    if self.parts.directory.by_aor(owner.as_str()).is_none() {
                        self.forget(&owner).await?;
                    }
                }
                match page.into_iter().next_back() {
                    Some((last, _)) => after = last,
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Whether a document is what its usage wants, and what we can make use of (§8.2.5).
    fn validate(&self, seat: &Seat, text: &Text) -> Result<(), Conflict> {
        if !seat.stored.allows(&seat.name) {
            return Err(Conflict::Constraint("no document of that name".into()));
        }
        let is_owner = |xui: &str| self.user(xui).is_some_and(|user| user.id == seat.owner.id);
        seat.stored.validate(text, &Place { root: self.root_path(), is_owner: &is_owner })?;
        let (auid, body) = (seat.usage.auid, text.as_str().as_bytes());
        let unusable = match auid {
            _ if RULES.contains(&auid) => Rules::parse(body).err().map(|e| e.to_string()),
            _ if LISTS.contains(&auid) => Lists::parse(body).err().map(|e| e.to_string()),
            _ if auid == MANIPULATED => Published::parse(body, body.len()).err().map(|e| e.to_string()),
            _ => None,
        };
        unusable.map_or(Ok(()), |why| Err(Conflict::Constraint(why)))
    }

    fn root_path(&self) -> &str {
        let after = self.root.split_once("://").map_or(&*self.root, |(_, rest)| rest);
        &after[after.find('/').unwrap_or(0)..]
    }

    /// Whether one more document may be there.
    async fn room(&self, seat: &Seat) -> Result<(), No> {
        let full = |what: &str| Err(Conflict::Constraint(format!("{what} as many documents as allowed")).into());
        let mut own = 0;
        for (_, found) in self.documents_of(&seat.owner, self.config.documents_per_user).await? {
            own += found.len();
        }
        if own >= self.config.documents_per_user {
            return full("the user has");
        }
        let counted = {
            let total = self.total.lock();
            total.at.filter(|at| at.elapsed() < COUNTED_EACH).map(|_| total.documents)
        };
        let all = match counted {
            Some(all) => all,
            None => {
                let mut all = 0;
                for usage in usage::ALL.iter().filter(|u| u.stored().is_some()) {
                    let (done, number) = answer();
                    self.parts.documents.count(usage.auid, done);
                    all += number.await?;
                }
                *self.total.lock() = Total { documents: all, at: Some(Instant::now()) };
                all
            }
        };
        if all >= self.config.documents { full("there are") } else { Ok(()) }
    }

    /// The documents of a user, by usage; of each at most so many.
    async fn documents_of(
        &self,
        owner: &User,
        limit: usize,
    ) -> Result<Vec<(&'static Usage, Vec<Document>)>, StoreError> {
        self.documents_below(&owner.aor, limit).await
    }

    async fn documents_below(
        &self,
        owner: &Aor,
        limit: usize,
    ) -> Result<Vec<(&'static Usage, Vec<Document>)>, StoreError> {
        let home = key_of(owner, "");
        let mut all = Vec::new();
        for usage in usage::ALL.into_iter().filter(|u| u.stored().is_some()) {
            let (done, found) = answer();
            self.parts.documents.list(usage.auid, &home, limit as u32, done);
            let mut found = found.await?;
            found.retain(|d| d.key.starts_with(&home));
            all.push((usage, found));
        }
        Ok(all)
    }
}

/// Keys that are looked through at once.
const PAGE: u32 = 500;
/// Documents of one usage that a user may have had while the bound was another.
const ALL_OF_ONE: usize = 10_000;
/// Documents of all users are counted again after this.
const COUNTED_EACH: Duration = Duration::from_secs(10);

/// The document as it is to be, and whether there was nothing there.
fn edited(found: Option<&Document>, wish: Wish<'_>, root: &str) -> Result<(Text, bool), No> {
    let old = |found: &Document| Text::read(found.body.clone());
    match (wish, found) {
        (Wish::Put(body), _) => Ok((Text::read(body.to_vec())?, found.is_none())),
        (Wish::PutNode(selector, put, uri), Some(found)) => {
            let edited = old(found)?.put(selector, put, &format!("{root}{uri}")).map_err(refused)?;
            Ok((edited.text, edited.created))
        }
        (Wish::PutNode(_, _, uri), None) => {
            let home = uri.rfind('/').map_or("", |end| &uri[..=end]);
            Err(Conflict::NoParent(Some(format!("{root}{home}"))).into())
        }
        (Wish::DeleteNode(selector), Some(found)) => Ok((old(found)?.delete(selector).map_err(refused)?, false)),
        (Wish::DeleteNode(_) | Wish::Delete, _) => Err(No::NotFound),
    }
}

fn refused(refused: Refused) -> No {
    match refused {
        Refused::NotFound => No::NotFound,
        Refused::ReadOnly => No::ReadOnly,
        Refused::Conflict(conflict) => No::Conflict(conflict),
    }
}
