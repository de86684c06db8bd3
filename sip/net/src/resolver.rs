//! Where the servers of a SIP domain are (RFC 3263, RFC 7984): NAPTR, SRV, then A and AAAA, by way of hickory.
//!
//! [`Resolver::cached`] answers at once for literals, fixed routes and what was asked lately; otherwise
//! [`Resolver::resolve`] asks the DNS. Either gives hops in the order in which they should be tried; secure ones carry the
//! name that the peer must prove, which is the domain that was asked for and never a name that the DNS gave (RFC 5922 §7).

mod arrange;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig as DnsConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::NAPTR;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use parking_lot::Mutex;
use sip_proto::{Hop, Transport};
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::names::HostNames;
use arrange::{Candidate, arrange, dual_stack};

pub use arrange::TARGETS_MAX;

/// A whole look-up, all its queries together.
const LOOK_UP: Duration = Duration::from_secs(5);
/// One query to one name server.
const QUERY: Duration = Duration::from_millis(1500);
/// Look-ups under way; more are refused.
const LOOK_UPS_MAX: usize = 256;
/// Answers kept; when full, what is over its time goes, then anything.
const CACHE_MAX: usize = 4096;
/// How long answers are kept, whatever their time to live says, and how long a failure is.
const KEPT_MIN: Duration = Duration::from_secs(1);
const KEPT_MAX: Duration = Duration::from_secs(3600);
const FAILURE_KEPT: Duration = Duration::from_secs(5);
const ABSENCE_KEPT: Duration = Duration::from_secs(30);
/// Services of a NAPTR set, servers of an SRV set and addresses of a host that are looked at.
const SERVICES_MAX: usize = 8;
const SERVERS_MAX: usize = 16;
const ADDRESSES_MAX: usize = 8;

/// One server of a fixed route.
pub type RouteTarget = (Option<Transport>, SocketAddr);

/// How the resolver asks.
#[derive(Clone, Debug)]
pub struct ResolverConfig {
    /// Name servers; empty: the system's (`/etc/resolv.conf`).
    pub name_servers: Vec<SocketAddr>,
    /// Domains whose servers are fixed: no DNS is asked. Transport `None`: what the question asks for, UDP or TLS by default.
    pub routes: Vec<(String, Vec<RouteTarget>)>,
    /// Transports that can be sent over, in the order of preference when the DNS has none.
    pub transports: Vec<Transport>,
}

impl Default for ResolverConfig {
    fn default() -> ResolverConfig {
        ResolverConfig {
            name_servers: Vec::new(),
            routes: Vec::new(),
            transports: vec![Transport::Udp, Transport::Tcp, Transport::Tls],
        }
    }
}

/// The parts of a URI that say where it leads (RFC 3263 §4: its `maddr` or host, port, `transport`, and scheme).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Question {
    /// A name or an IP literal, IPv6 with or without brackets.
    pub host: String,
    pub port: Option<u16>,
    pub transport: Option<Transport>,
    /// A `sips` URI: nothing but TLS will do.
    pub secure: bool,
}

/// Why there is no hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unresolved {
    /// The request's fault: 416 or 400.
    #[error("not a host name")]
    BadName,
    /// The request's fault: a transport that cannot be secure, or that nobody can connect over.
    #[error("no such transport to that host")]
    Transport,
    /// The domain has no SIP servers: 404 for a proxy's caller.
    #[error("no servers")]
    NotFound,
    /// The name servers do not answer: 503 or 504, worth another try.
    #[error("the name servers do not answer")]
    Failed,
    /// Ours: too many look-ups at once: 503.
    #[error("too many look-ups")]
    Busy,
}

/// Hops in the order of trying, at most [`TARGETS_MAX`].
pub type Hops = SmallVec<[Hop; 4]>;

pub struct Resolver {
    dns: Option<TokioResolver>,
    routes: HashMap<String, Vec<RouteTarget>>,
    transports: Vec<Transport>,
    names: Arc<HostNames>,
    cache: Mutex<HashMap<Question, Kept>>,
    under_way: Semaphore,
}

#[derive(Clone)]
struct Kept {
    until: Instant,
    answer: Result<Arc<[Candidate]>, Unresolved>,
}

impl Resolver {
    /// `names` is the carriers' ([`crate::Carriers::names`]). A system without name servers still resolves literals, fixed
    /// routes and its own hosts file.
    pub fn new(config: &ResolverConfig, names: Arc<HostNames>) -> Resolver {
        let dns = dns(&config.name_servers)
            .inspect_err(|e| tracing::warn!(error = %e, "no name servers; only addresses and fixed routes are found"))
            .ok();
        let routes = config.routes.iter().map(|(domain, to)| (normal(domain), to.clone())).collect();
        Resolver {
            dns,
            routes,
            transports: config.transports.clone(),
            names,
            cache: Mutex::default(),
            under_way: Semaphore::new(LOOK_UPS_MAX),
        }
    }

    /// The answer if it takes no waiting.
    pub fn cached(&self, now: Instant, question: &Question) -> Option<Result<Hops, Unresolved>> {
        let host = normal(&question.host);
        let transport = match self.transport(question) {
            Ok(transport) => transport,
            Err(e) => return Some(Err(e)),
        };
        let fixed = |t: Option<Transport>| t.or(transport).unwrap_or(default_transport(question.secure));
        let at = |ip: IpAddr| {
            let transport = fixed(None);
            (transport, SocketAddr::new(ip, question.port.unwrap_or(transport.default_port())))
        };
        let targets: SmallVec<[(Transport, SocketAddr); 4]> = if let Ok(ip) = IpAddr::from_str(&host) {
            [at(ip)].into_iter().collect()
        } else if let Some(route) = self.routes.get(&host) {
            let secured = |t| match (t, question.secure) {
                (Transport::Tcp, true) => Some(Transport::Tls),
                (Transport::Udp, true) => None,
                (t, _) => Some(t),
            };
            route.iter().filter_map(|(t, address)| Some((secured(fixed(*t))?, *address))).take(TARGETS_MAX).collect()
        } else if host == "localhost" || host.ends_with(".localhost") {
            // RFC 6761 §6.3: no name server is asked.
            [at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())].into_iter().collect()
        } else {
            let kept = self.cache.lock().get(question).filter(|k| k.until > now).cloned()?;
            return Some(kept.answer.map(|candidates| self.hops(question, arrange(&candidates, &mut rand::rng()))));
        };
        Some(Ok(self.hops(question, targets)))
    }

    /// The answer, with waiting: at most 5 s.
    pub async fn resolve(&self, question: &Question) -> Result<Hops, Unresolved> {
        if let Some(answer) = self.cached(Instant::now(), question) {
            return answer;
        }
        let _place = self.under_way.try_acquire().map_err(|_| Unresolved::Busy)?;
        let found = match timeout(LOOK_UP, self.look_up(question)).await {
            Ok(found) => found,
            Err(_) => Err(Unresolved::Failed),
        };
        let now = Instant::now();
        let (until, answer) = match found {
            Ok((candidates, until)) => {
                (until.clamp(now + KEPT_MIN, now + KEPT_MAX), Ok(Arc::<[Candidate]>::from(candidates)))
            }
            Err(e @ Unresolved::NotFound) => (now + ABSENCE_KEPT, Err(e)),
            Err(e) => (now + FAILURE_KEPT, Err(e)),
        };
        self.keep(now, question, Kept { until, answer: answer.clone() });
        answer.map(|candidates| self.hops(question, arrange(&candidates, &mut rand::rng())))
    }

    /// As [`Resolver::resolve`], for callers that cannot wait: `done` is called on `runtime`.
    pub fn resolve_then(
        self: &Arc<Self>,
        runtime: &Handle,
        question: Question,
        done: impl FnOnce(Result<Hops, Unresolved>) + Send + 'static,
    ) {
        let resolver = self.clone();
        runtime.spawn(async move { done(resolver.resolve(&question).await) });
    }

    /// Where another service of a domain is, over TCP (RFC 2782): `service` as in `_xmpp-server._tcp`; without SRV records at `port` of
    /// the domain itself. In the order in which they should be tried; at most 5 s.
    pub async fn service(&self, service: &str, domain: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
        if let Ok(ip) = IpAddr::from_str(domain) {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let dns = self.dns.as_ref().ok_or(Unresolved::Failed)?;
        let host = name(&normal(domain))?;
        let _place = self.under_way.try_acquire().map_err(|_| Unresolved::Busy)?;
        let mut asked = Asked { dns, until: Instant::now() + KEPT_MAX, failed: false };
        let look_up = async {
            let record = Name::from_ascii(service).ok().and_then(|n| n.append_name(&host).ok());
            let services: Vec<_> = record.map(|name| (Transport::Tcp, name)).into_iter().collect();
            match asked.servers(&services).await {
                Some(servers) => servers,
                None => {
                    let addresses = asked.addresses(&host, port).await;
                    vec![Candidate { transport: Transport::Tcp, rank: (0, 0), weight: 0, addresses }]
                }
            }
        };
        let found = timeout(LOOK_UP, look_up).await.map_err(|_| Unresolved::Failed)?;
        let targets = arrange(&found, &mut rand::rng());
        if targets.is_empty() { Err(asked.nothing()) } else { Ok(targets.into_iter().map(|(_, at)| at).collect()) }
    }

    /// What the question fixes about the transport (RFC 3263 §4.1), or an error.
    fn transport(&self, question: &Question) -> Result<Option<Transport>, Unresolved> {
        let transport = match (question.transport, question.secure) {
            (Some(Transport::Tcp | Transport::Tls), true) => Some(Transport::Tls),
            (Some(Transport::Wss), _) | (Some(Transport::Ws), false) => return Err(Unresolved::Transport),
            (Some(_), true) => return Err(Unresolved::Transport),
            (transport, _) => transport,
        };
        match transport {
            Some(t) if !self.transports.contains(&t) => Err(Unresolved::Transport),
            None if question.secure && !self.transports.contains(&Transport::Tls) => Err(Unresolved::Transport),
            _ => Ok(transport),
        }
    }

    /// Secure targets must prove the name that was asked for.
    fn hops(&self, question: &Question, targets: SmallVec<[(Transport, SocketAddr); 4]>) -> Hops {
        let mut host = None;
        let hop = |(transport, remote): (Transport, SocketAddr)| match transport {
            Transport::Tls => {
                let host = *host.get_or_insert_with(|| self.names.intern(&question.host));
                // What is no name cannot be proved.
                Some(Hop::Host { transport, remote, host: host? })
            }
            _ => Some(Hop::Address { transport, remote }),
        };
        targets.into_iter().filter_map(hop).collect()
    }

    fn keep(&self, now: Instant, question: &Question, kept: Kept) {
        let mut cache = self.cache.lock();
        if cache.len() >= CACHE_MAX && !cache.contains_key(question) {
            cache.retain(|_, k| k.until > now);
            if cache.len() >= CACHE_MAX {
                cache.clear();
            }
        }
        cache.insert(question.clone(), kept);
    }

    async fn look_up(&self, question: &Question) -> Result<(Vec<Candidate>, Instant), Unresolved> {
        let dns = self.dns.as_ref().ok_or(Unresolved::Failed)?;
        let host = name(&normal(&question.host))?;
        let transport = self.transport(question)?;
        let mut asked = Asked { dns, until: Instant::now() + KEPT_MAX, failed: false };
        if question.port.is_none() {
            let services = self.services(&mut asked, &host, transport, question.secure).await;
            let servers = asked.servers(&services).await;
            if let Some(servers) = servers {
                return if servers.is_empty() { Err(asked.nothing()) } else { Ok((servers, asked.until)) };
            }
        }
        // RFC 3263 §4.2: no SRV, or a port that forbids it.
        let transport = transport.unwrap_or(default_transport(question.secure));
        let addresses = asked.addresses(&host, question.port.unwrap_or(transport.default_port())).await;
        if addresses.is_empty() {
            return Err(asked.nothing());
        }
        Ok((vec![Candidate { transport, rank: (0, 0), weight: 0, addresses }], asked.until))
    }

    /// The SRV names to ask, in order (RFC 3263 §4.1).
    async fn services(
        &self,
        asked: &mut Asked<'_>,
        host: &Name,
        transport: Option<Transport>,
        secure: bool,
    ) -> Vec<(Transport, Name)> {
        if let Some(transport) = transport {
            return srv_name(transport, host).into_iter().map(|n| (transport, n)).collect();
        }
        let mut naptr: Vec<_> = asked
            .records(host, RecordType::NAPTR)
            .await
            .into_iter()
            .filter_map(|data| match data {
                RData::NAPTR(naptr) => Some(naptr),
                _ => None,
            })
            .filter_map(|n| Some((service(&n)?, n)))
            .filter(|(t, _)| self.transports.contains(t) && (*t == Transport::Tls || !secure))
            .collect();
        naptr.sort_by_key(|(_, n)| (n.order, n.preference));
        naptr.truncate(SERVICES_MAX);
        if !naptr.is_empty() {
            return naptr.into_iter().map(|(t, n)| (t, n.replacement)).collect();
        }
        let usable = self.transports.iter().filter(|t| **t == Transport::Tls || !secure);
        usable.filter_map(|t| Some((*t, srv_name(*t, host)?))).collect()
    }
}

/// The queries of one look-up, and what they have in common.
struct Asked<'a> {
    dns: &'a TokioResolver,
    /// When the first of the records is over its time.
    until: Instant,
    /// A name server did not answer.
    failed: bool,
}

impl Asked<'_> {
    async fn records(&mut self, name: &Name, kind: RecordType) -> Vec<RData> {
        let found = self.dns.lookup(name.clone(), kind).await;
        self.take(found)
    }

    fn take(&mut self, found: Result<Lookup, NetError>) -> Vec<RData> {
        match found {
            Ok(lookup) => {
                self.until = self.until.min(lookup.valid_until());
                lookup.answers().iter().map(|record| record.data.clone()).collect()
            }
            Err(e) => {
                self.failed |= !e.is_no_records_found();
                Vec::new()
            }
        }
    }

    /// The servers of all services; `None` when there is no SRV record at all.
    async fn servers(&mut self, services: &[(Transport, Name)]) -> Option<Vec<Candidate>> {
        let dns = self.dns;
        let answers = join_all(services.iter().map(|(_, name)| dns.lookup(name.clone(), RecordType::SRV))).await;
        let mut servers = Vec::new();
        let mut exists = false;
        for ((transport, _), (place, found)) in services.iter().zip(answers.into_iter().enumerate()) {
            for data in self.take(found) {
                let RData::SRV(srv) = data else { continue };
                exists = true;
                // RFC 2782: a root target says that the service is decidedly not there.
                if !srv.target.is_root() {
                    servers.push((*transport, (place as u16, srv.priority), srv.weight, srv.port, srv.target));
                }
            }
        }
        servers.sort_by_key(|(_, rank, ..)| *rank);
        servers.truncate(SERVERS_MAX);
        let mut candidates = Vec::new();
        let queries = servers
            .iter()
            .flat_map(|(.., target)| [RecordType::A, RecordType::AAAA].map(|kind| dns.lookup(target.clone(), kind)));
        let mut addresses = join_all(queries).await.into_iter();
        for (transport, rank, weight, port, _) in servers {
            let both = [addresses.next(), addresses.next()].into_iter().flatten();
            let data: Vec<RData> = both.flat_map(|found| self.take(found)).collect();
            let addresses = dual_stack(data.iter().filter_map(RData::ip_addr).take(ADDRESSES_MAX), port);
            if !addresses.is_empty() {
                candidates.push(Candidate { transport, rank, weight, addresses });
            }
        }
        exists.then_some(candidates)
    }

    async fn addresses(&mut self, host: &Name, port: u16) -> SmallVec<[SocketAddr; 2]> {
        let dns = self.dns;
        let found = join_all([RecordType::A, RecordType::AAAA].map(|kind| dns.lookup(host.clone(), kind))).await;
        let data: Vec<RData> = found.into_iter().flat_map(|found| self.take(found)).collect();
        dual_stack(data.iter().filter_map(RData::ip_addr).take(ADDRESSES_MAX), port)
    }

    fn nothing(&self) -> Unresolved {
        if self.failed { Unresolved::Failed } else { Unresolved::NotFound }
    }
}

fn dns(name_servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if name_servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = name_servers.iter().map(|address| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            server.connections.iter_mut().for_each(|c| c.port = address.port());
            server
        });
        let config = DnsConfig::from_name_servers(servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = QUERY;
    options.attempts = 1;
    options.cache_size = 4096;
    builder.build()
}

/// RFC 3263 §4.1: without a word in the URI or the DNS it is UDP, or TLS for `sips`.
fn default_transport(secure: bool) -> Transport {
    if secure { Transport::Tls } else { Transport::Udp }
}

fn normal(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase()
}

/// A host with a dot is a whole name; one without may be one of the local domain (`search` in `/etc/resolv.conf`).
fn name(host: &str) -> Result<Name, Unresolved> {
    let mut name = Name::from_ascii(host).map_err(|_| Unresolved::BadName)?;
    if host.is_empty() {
        return Err(Unresolved::BadName);
    }
    name.set_fqdn(host.contains('.'));
    Ok(name)
}

fn srv_name(transport: Transport, host: &Name) -> Option<Name> {
    let service = match transport {
        Transport::Udp => "_sip._udp",
        Transport::Tcp => "_sip._tcp",
        Transport::Tls => "_sips._tcp",
        Transport::Ws | Transport::Wss => return None,
    };
    // Too long with the labels before it: there can be no such record.
    Name::from_ascii(service).ok()?.append_name(host).ok()
}

/// The transport of a NAPTR record that leads to SRV records (RFC 3263 §4.1: flag `s`).
fn service(naptr: &NAPTR) -> Option<Transport> {
    if !naptr.flags.eq_ignore_ascii_case(b"s") || naptr.replacement.is_root() {
        return None;
    }
    match naptr.services.to_ascii_uppercase().as_slice() {
        b"SIP+D2U" => Some(Transport::Udp),
        b"SIP+D2T" => Some(Transport::Tcp),
        b"SIPS+D2T" => Some(Transport::Tls),
        _ => None,
    }
}
