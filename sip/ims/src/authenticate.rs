//! Whether a request comes from the user it names: digest credentials (RFC 3261 §22, RFC 8760) checked against the
//! directory, and the identity in From and To checked against the account.
//!
//! Unknown users and wrong passwords get the same answer for the same work.

use std::borrow::Cow;
use std::hash::Hasher as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use sip_proto::build::{Response, Writer};
use sip_proto::digest::aka::{Resynchronise, Vector};
use sip_proto::digest::{Algorithm, Covered, Ha1, HashFunction, Ledger, Nonce, Realm, RealmConfig, Verdict};
use sip_proto::endpoint::reply_hop;
use sip_proto::headers::{Challenge, Credentials, NameAddr};
use sip_proto::uri::{Scheme, Uri};
use sip_proto::{Flow, HeaderName, Message, StartLine, validate};
use siphasher::sip::SipHasher13;

use crate::directory::Directory;
use crate::home::Home;
use crate::identity::{Aor, Msisdn};
use crate::service::{Outlet, Step};
use crate::user::{MAX_ID, User};
use crate::vectors::{AuthenticationVectors, NoVector};

/// Seconds that a nonce is good for. Longer than most re-registration intervals cost: a phone that comes back later is
/// challenged once more.
pub const NONCE_LIFETIME: u32 = 600;
/// Nonces whose counts are remembered, 40 bytes each.
const LEDGER: usize = 64 * 1024;
/// Pieces of the ledger, so that threads seldom meet at one lock.
const PIECES: usize = 16;
/// Means nothing to us, but AG Projects' msrplib answers no challenge that has none (RFC 7616 §3.3 leaves it to the server).
const OPAQUE: &[u8] = b"isthmus";

/// Checks the credentials of one realm, which is the home domain.
pub struct Authenticator {
    realm: Arc<Realm>,
    home: Arc<Home>,
    directory: Arc<Directory>,
    ledgers: [Mutex<Ledger>; PIECES],
    unique: AtomicU64,
    sims: OnceLock<Sims>,
}

/// What challenges for SIMs need.
struct Sims {
    vectors: Arc<dyn AuthenticationVectors>,
    /// Where a challenge goes, which may have waited for the vector.
    outlet: Arc<dyn Outlet>,
}

/// What an [`Authenticator`] needs to know.
#[derive(Clone, Debug)]
pub struct AuthenticatorConfig {
    /// Offered in this order.
    pub algorithms: Vec<Algorithm>,
    /// Seconds, at least 1; [`NONCE_LIFETIME`] is a good value.
    pub nonce_lifetime: u32,
    /// Secret of the house; the nodes of a cluster share it.
    pub key: [u8; 32],
    /// A random number: where this process begins to number its nonces.
    pub seed: u64,
}

impl AuthenticatorConfig {
    /// SHA-256 first, then MD5 for the phones that know nothing better (RFC 8760 §2.3).
    pub fn new(key: [u8; 32], seed: u64) -> AuthenticatorConfig {
        let algorithms = vec![Algorithm::Sha256, Algorithm::Md5];
        AuthenticatorConfig { algorithms, nonce_lifetime: NONCE_LIFETIME, key, seed }
    }
}

/// Why a request is not believed. All of it is the peer's doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// No credentials for our realm: the way every exchange begins.
    #[error("no credentials")]
    Missing,
    /// The right password with a nonce that is not good any more.
    #[error("stale nonce")]
    Stale,
    /// Unknown user or wrong password, or an algorithm that was not offered.
    #[error("wrong credentials")]
    Wrong,
    /// Credentials that cannot be read.
    #[error("malformed credentials")]
    Malformed,
    /// Good credentials of somebody else than the request names.
    #[error("identity of another user")]
    Identity,
    /// A SIM that counts otherwise, and says where it stands (RFC 3310 §3.4).
    #[error("the SIM's sequence number differs")]
    Synchronise(Resynchronise),
}

impl Refusal {
    /// The status for a REGISTER (RFC 3261 §22.2).
    pub fn register_status(self) -> u16 {
        match self {
            Refusal::Missing | Refusal::Stale | Refusal::Wrong | Refusal::Synchronise(_) => 401,
            Refusal::Malformed => 400,
            Refusal::Identity => 403,
        }
    }

    /// The status for a request on its way through a proxy (RFC 3261 §22.3).
    pub fn proxy_status(self) -> u16 {
        match self.register_status() {
            401 => 407,
            other => other,
        }
    }

    /// Whether the flood guard should hear of it: guesses cost, first attempts and old nonces do not.
    pub fn is_suspect(self) -> bool {
        matches!(self, Refusal::Wrong | Refusal::Malformed | Refusal::Identity)
    }
}

impl Authenticator {
    pub fn new(config: AuthenticatorConfig, home: Arc<Home>, directory: Arc<Directory>) -> Authenticator {
        let realm = Arc::new(Realm::new(RealmConfig {
            name: home.domain().to_owned(),
            algorithms: config.algorithms,
            nonce_lifetime: config.nonce_lifetime,
            key: config.key,
        }));
        let ledgers = std::array::from_fn(|_| Mutex::new(Ledger::new(LEDGER / PIECES)));
        let unique = AtomicU64::new(config.seed);
        Authenticator { realm, home, directory, ledgers, unique, sims: OnceLock::new() }
    }

    /// From now on users with a SIM are challenged by AKA. Only the first call counts.
    pub fn attach(&self, vectors: Arc<dyn AuthenticationVectors>, outlet: Arc<dyn Outlet>) {
        let _ = self.sims.set(Sims { vectors, outlet });
    }

    /// The user that sends this REGISTER: `Authorization`, and To and From must be theirs. `unix` in seconds.
    pub fn register(&self, message: &Message<'_>, unix: u64) -> Result<Arc<User>, Refusal> {
        let user = self.prove(message, HeaderName::Authorization, unix)?;
        match self.names(message, HeaderName::To, &user) && self.names(message, HeaderName::From, &user) {
            true => Ok(user),
            false => Err(Refusal::Identity),
        }
    }

    /// The user that sends this request through us: `Proxy-Authorization`, and `identity` must be theirs, which is From, or
    /// P-Preferred-Identity where From is anonymous. `unix` in seconds.
    pub fn proxy_request(&self, message: &Message<'_>, identity: HeaderName, unix: u64) -> Result<Arc<User>, Refusal> {
        let user = self.prove(message, HeaderName::ProxyAuthorization, unix)?;
        if self.names(message, identity, &user) { Ok(user) } else { Err(Refusal::Identity) }
    }

    /// The user that sends an HTTP request (RFC 7616): the values of its Authorization headers, its method, and its target as it
    /// stands in the request line; or one that sends an MSRP AUTH, about the last URI of its To-Path (RFC 4976 §9.1). With a
    /// password; a SIM alone does not do. `unix` in seconds.
    pub fn http(&self, authorization: &[&[u8]], method: &str, target: &str, unix: u64) -> Result<Arc<User>, Refusal> {
        let mut credentials = Err(Refusal::Missing);
        let mended: Vec<_> = authorization.iter().map(|value| without_quoted(value, target.as_bytes())).collect();
        for value in &mended {
            match Credentials::about(target.as_bytes(), value) {
                Some(c) if c.realm == self.realm.name() => credentials = Ok(c),
                None if value.get(..6).is_some_and(|s| s.eq_ignore_ascii_case(b"Digest")) && credentials.is_err() => {
                    credentials = Err(Refusal::Malformed);
                }
                _ => {}
            }
        }
        let credentials = credentials?;
        let (user, secret) = self.account(&credentials);
        let covered = Covered { method: method.as_bytes(), body: b"" };
        // Nothing is sent again by itself over a stream: no count is good twice.
        let print = self.unique.fetch_add(1, Relaxed);
        let mut ledger = self.ledger(credentials.nonce).lock();
        let user = match self.realm.judge(&mut ledger, &credentials, &covered, secret.as_ref(), print, unix) {
            // Nobody is accepted without a secret.
            Verdict::Accepted => user.ok_or(Refusal::Wrong)?,
            Verdict::Stale => return Err(Refusal::Stale),
            Verdict::Refused | Verdict::Unusable => return Err(Refusal::Wrong),
        };
        // §3.4.6: the resource that was proven for is the one that is asked for.
        if origin_form(credentials.uri) != origin_form(target.as_bytes()) {
            return Err(Refusal::Malformed);
        }
        Ok(user)
    }

    /// The user who has this password, by the name that stands in digest credentials too. `None` for an unknown user and a wrong
    /// password, after the same work.
    pub fn password(&self, name: &str, password: &[u8]) -> Option<Arc<User>> {
        let (user, secret) = self.named_account(name, Some(HashFunction::Sha256));
        let given = Ha1::new(HashFunction::Sha256, name.as_bytes(), self.realm.name(), password);
        // In constant time; nobody's secret is compared too.
        let right = secret.unwrap_or(given) == given;
        user.filter(|_| right && secret.is_some())
    }

    /// The values of `WWW-Authenticate` that go with a 401 to such a request.
    pub fn http_challenges(&self, refusal: &Refusal, unix: u64) -> Vec<Vec<u8>> {
        let nonce = self.realm.nonces().make(unix, self.unique.fetch_add(1, Relaxed));
        let challenges = self.realm.challenges(&nonce, *refusal == Refusal::Stale);
        let write = |challenge: Challenge<'_>| {
            let mut value = Vec::with_capacity(192);
            Challenge { opaque: Some(OPAQUE), ..challenge }.write(&mut value);
            value
        };
        challenges.map(write).collect()
    }

    /// Adds the challenges (`WWW-Authenticate` or `Proxy-Authenticate`) that go with a 401 or 407; nothing for the
    /// refusals that another attempt would not mend.
    pub fn write_challenges(&self, refusal: &Refusal, name: HeaderName, unix: u64, w: &mut Writer<'_>) {
        if refusal.register_status() != 401 {
            return;
        }
        let nonce = self.realm.nonces().make(unix, self.unique.fetch_add(1, Relaxed));
        for challenge in self.realm.challenges(&nonce, *refusal == Refusal::Stale) {
            w.header(name, |out| challenge.write(out));
        }
    }

    /// Answers a request that was refused: `WWW-Authenticate` for a REGISTER, `Proxy-Authenticate` for what passes through.
    /// The challenge for a SIM may have to wait for its vector.
    pub fn refuse(&self, step: &mut Step<'_>, flow: &Flow, message: &Message<'_>, refusal: &Refusal, name: HeaderName) {
        let status = match name {
            HeaderName::ProxyAuthenticate => refusal.proxy_status(),
            _ => refusal.register_status(),
        };
        if refusal.register_status() == 401
            && self.directory.has_sims()
            && let Some(sims) = self.sims.get()
            && let Some((user, only)) = self.sim(message, name)
        {
            return self.challenge_sim(
                sims,
                step,
                flow,
                message,
                Challenged { refusal: *refusal, name, status, only },
                &user,
            );
        }
        let unix = step.unix;
        step.reply(flow, message, status, None, |w| self.write_challenges(refusal, name, unix, w));
    }

    /// The user with a SIM that a request without good credentials names, and whether there is no password beside it.
    fn sim(&self, message: &Message<'_>, name: HeaderName) -> Option<(Arc<User>, bool)> {
        let credentials = match name {
            HeaderName::ProxyAuthenticate => HeaderName::ProxyAuthorization,
            _ => HeaderName::Authorization,
        };
        let user = match self.realm.credentials(message, credentials) {
            Some(Ok(c)) => self.account(&c).0,
            _ => {
                let uri = message.from()?.uri()?;
                self.named(&uri)
            }
        }?;
        let only = user.secrets.aka.as_ref()?.only;
        Some((user, only))
    }

    fn challenge_sim(
        &self,
        sims: &Sims,
        step: &Step<'_>,
        flow: &Flow,
        message: &Message<'_>,
        challenged: Challenged,
        user: &User,
    ) {
        if !validate::is_answerable(message) {
            return;
        }
        let (unix, unique) = (step.unix, self.unique.fetch_add(1, Relaxed));
        let tag = step.endpoint.local_tag(message.call_id().unwrap_or_default());
        let hop = reply_hop(flow, message.top_via().as_ref());
        // The message is gone when the vector comes.
        let (bytes, remote, id) = (message.bytes().to_vec(), flow.remote, user.id.clone());
        let (realm, outlet) = (self.realm.clone(), sims.outlet.clone());
        let resynchronise = match challenged.refusal {
            Refusal::Synchronise(r) => Some(r),
            _ => None,
        };
        let answer = move |vector: Result<Vector, NoVector>| {
            let Ok(message) = Message::parse(&bytes) else { return };
            let mut out = Vec::with_capacity(bytes.len() + 256);
            let to = |status| Response::to(&message, status).source(remote).tag(&tag);
            match vector {
                Ok(vector) => to(challenged.status).write(&mut out, |w| {
                    challenged.write(&realm, &realm.nonces().make_aka(&vector, id.as_bytes(), unix, unique), w);
                }),
                Err(NoVector::UnknownUser | NoVector::BadAuts(_)) => to(403).write(&mut out, |_| {}),
                Err(NoVector::Unavailable(error)) => {
                    tracing::warn!(%error, "no authentication vector");
                    to(504).write(&mut out, |_| {});
                }
            }
            outlet.send(hop, &out);
        };
        sims.vectors.vector(&user.id, resynchronise, Box::new(answer));
    }

    /// As [`Self::prove`], for the answer of a SIM: its password is what its vector expected (RFC 3310 §3.3).
    fn prove_sim(
        &self,
        credentials: &Credentials<'_>,
        covered: &Covered<'_>,
        print: u64,
        unix: u64,
    ) -> Result<Arc<User>, Refusal> {
        let user = self.account(credentials).0.filter(|u| u.secrets.aka.is_some());
        let xres = user.as_ref().and_then(|u| self.realm.nonces().xres(credentials.nonce, u.id.as_bytes()));
        if credentials.auts.is_some() {
            let resynchronise = Resynchronise::of(credentials).ok_or(Refusal::Malformed)?;
            // The token proves itself to the maker of vectors; only let it be about a challenge of ours.
            return Err(xres.map_or(Refusal::Wrong, |_| Refusal::Synchronise(resynchronise)));
        }
        let secret = xres.map(|x| x.ha1(credentials.username, self.realm.name()));
        let mut ledger = self.ledger(credentials.nonce).lock();
        match self.realm.judge(&mut ledger, credentials, covered, secret.as_ref(), print, unix) {
            // Nobody is accepted without a secret.
            Verdict::Accepted => user.ok_or(Refusal::Wrong),
            Verdict::Stale => Err(Refusal::Stale),
            Verdict::Refused | Verdict::Unusable => Err(Refusal::Wrong),
        }
    }

    fn prove(&self, message: &Message<'_>, name: HeaderName, unix: u64) -> Result<Arc<User>, Refusal> {
        let credentials = match self.realm.credentials(message, name) {
            None => return Err(Refusal::Missing),
            Some(Err(_)) => return Err(Refusal::Malformed),
            Some(Ok(c)) => c,
        };
        // An IMS client's first REGISTER names its user and nothing else (TS 24.229 §5.1.1.2).
        if credentials.response.is_empty() && credentials.nonce.is_empty() {
            return Err(Refusal::Missing);
        }
        let StartLine::Request { token, .. } = message.start() else { return Err(Refusal::Malformed) };
        if credentials.algorithm() == Some(Algorithm::AkaV1Md5) {
            let covered = Covered { method: token, body: message.body() };
            return self.prove_sim(&credentials, &covered, print(message), unix);
        }
        let (user, secret) = self.account(&credentials);
        // The uri of the credentials is not compared with the Request-URI: proxies before us may have changed that
        // (RFC 3261 §22.4), and the nonce count stops the credentials from being used twice.
        let covered = Covered { method: token, body: message.body() };
        let print = print(message);
        let mut ledger = self.ledger(credentials.nonce).lock();
        match self.realm.judge(&mut ledger, &credentials, &covered, secret.as_ref(), print, unix) {
            // Nobody is accepted without a secret.
            Verdict::Accepted => user.ok_or(Refusal::Wrong),
            Verdict::Stale => Err(Refusal::Stale),
            Verdict::Refused | Verdict::Unusable => Err(Refusal::Wrong),
        }
    }

    /// As [`Self::named_account`], with the name and the algorithm of credentials.
    fn account(&self, c: &Credentials<'_>) -> (Option<Arc<User>>, Option<Ha1>) {
        let name = std::str::from_utf8(c.username).unwrap_or_default();
        // The algorithm of a SIM has no password; its answers are judged elsewhere.
        let function = c.algorithm().filter(|a| *a != Algorithm::AkaV1Md5).map(Algorithm::function);
        self.named_account(name, function)
    }

    /// The user of a digest user name and the secret under that name: `alice` or, in full, `alice@domain`.
    fn named_account(&self, name: &str, function: Option<HashFunction>) -> (Option<Arc<User>>, Option<Ha1>) {
        let name = Some(name).filter(|n| n.len() <= MAX_ID + 256).unwrap_or_default();
        if let Some(user) = self.directory.by_id(name) {
            let secret = match function {
                Some(HashFunction::Md5) => Ha1::from_bytes(HashFunction::Md5, &user.secrets.ha1_md5),
                Some(HashFunction::Sha256) => Ha1::from_bytes(HashFunction::Sha256, &user.secrets.ha1_sha256),
                _ => None,
            };
            return (Some(user), secret);
        }
        let short = name.rsplit_once('@').filter(|(_, d)| self.home.is_domain(d.as_bytes())).map(|(n, _)| n);
        let user = short.and_then(|id| self.directory.by_id(id));
        let secret = user.as_ref().and_then(|u| u.secrets.full.as_ref()).and_then(|full| match function {
            Some(HashFunction::Md5) => Ha1::from_bytes(HashFunction::Md5, &full.ha1_md5),
            Some(HashFunction::Sha256) => Ha1::from_bytes(HashFunction::Sha256, &full.ha1_sha256),
            _ => None,
        });
        (user, secret)
    }

    /// Whether that header's address is one of the user's own.
    fn names(&self, message: &Message<'_>, header: HeaderName, user: &User) -> bool {
        let Some(addr) = message.value(header).and_then(NameAddr::parse) else { return false };
        // Nearly every phone writes the address-of-record as it is kept.
        addr.addr.strip_prefix(b"sip:") == Some(user.aor.as_str().as_bytes())
            || addr.uri().is_some_and(|uri| self.owns(&uri, user))
    }

    /// The user that an address names.
    fn named(&self, uri: &Uri<'_>) -> Option<Arc<User>> {
        let name = uri.user()?;
        match uri.scheme() {
            Scheme::Tel => Msisdn::from_user(name).ok().and_then(|n| self.directory.by_msisdn(n)),
            Scheme::Sip | Scheme::Sips if self.home.is_domain(uri.host()) || self.home.is_us(uri) => {
                self.directory.by_parts(name, self.home.domain().as_bytes())
            }
            _ => None,
        }
    }

    /// Whether an address is one of the user's: their address-of-record or number, as `sip:`, `sips:` or `tel:`.
    pub fn owns(&self, uri: &Uri<'_>, user: &User) -> bool {
        let Some(name) = uri.user() else { return false };
        let found = match uri.scheme() {
            Scheme::Tel => Msisdn::from_user(name).ok().and_then(|n| self.directory.by_msisdn(n)),
            Scheme::Sip | Scheme::Sips if self.home.is_domain(uri.host()) || self.home.is_us(uri) => {
                let domain = self.home.domain().as_bytes();
                // Nearly always; what differs may still be the user's number.
                if Aor::write_parts(name, domain, |aor| aor == user.aor.as_str()).unwrap_or(false) {
                    return true;
                }
                self.directory.by_parts(name, domain)
            }
            _ => None,
        };
        found.is_some_and(|f| f.id == user.id)
    }

    /// One nonce is always counted in one piece of the ledger.
    fn ledger(&self, nonce: &[u8]) -> &Mutex<Ledger> {
        // The end of a nonce is its MAC: evenly spread, and what a stranger writes there only costs himself.
        let sum = nonce.iter().rev().take(8).fold(0usize, |n, b| n.wrapping_mul(31).wrapping_add(usize::from(*b)));
        &self.ledgers[sum % PIECES]
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("realm", &self.home.domain()).finish_non_exhaustive()
    }
}

/// What is said beside the vector in a challenge for a SIM.
#[derive(Clone, Copy)]
struct Challenged {
    refusal: Refusal,
    name: HeaderName,
    status: u16,
    /// There is no password that another challenge could ask for.
    only: bool,
}

impl Challenged {
    /// AKA first, as the strongest (RFC 3310 §4.2).
    fn write(self, realm: &Realm, nonce: &Nonce, w: &mut Writer<'_>) {
        let stale = self.refusal == Refusal::Stale;
        w.header(self.name, |out| realm.aka_challenge(nonce, stale).write(out));
        if !self.only {
            for challenge in realm.challenges(nonce, stale) {
                w.header(self.name, |out| challenge.write(out));
            }
        }
    }
}

/// A target without scheme and authority.
fn origin_form(target: &[u8]) -> &[u8] {
    let after = [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| target.strip_prefix(scheme));
    match after {
        Some(rest) => &rest[rest.iter().position(|b| *b == b'/').unwrap_or(rest.len())..],
        None => target,
    }
}

/// Credentials without their uri, if that is this target and has quotes in it: curl and Python's urllib write them there as they are, where a
/// node selector of XCAP is not percent-encoded.
fn without_quoted<'v>(value: &'v [u8], target: &[u8]) -> Cow<'v, [u8]> {
    if !target.contains(&b'"') {
        return Cow::Borrowed(value);
    }
    let written = |at: usize| value[at + 5..].strip_prefix(target)?.strip_prefix(b"\"");
    let at = value.windows(5).position(|w| w == b"uri=\"");
    match at.and_then(|at| Some((&value[..at], written(at)?))) {
        Some((before, after)) => Cow::Owned([before, b"no-uri=\"\"", after].concat()),
        None => Cow::Borrowed(value),
    }
}

/// What a request has in common with its retransmissions and with nothing else.
fn print(message: &Message<'_>) -> u64 {
    let mut hash = SipHasher13::new();
    hash.write(message.call_id().unwrap_or_default());
    hash.write_u32(message.cseq().map_or(0, |c| c.number));
    hash.write(message.top_via().and_then(|v| v.branch()).unwrap_or_default());
    hash.finish()
}

#[cfg(test)]
mod tests {
    use sip_proto::Transport;
    use sip_proto::build::Response;
    use sip_proto::digest::Answer;
    use sip_proto::headers::Challenge;

    use super::*;
    use crate::user::DigestSecrets;

    const NOW: u64 = 1_800_000_000;

    fn authenticator() -> Authenticator {
        let directory = Arc::new(Directory::new());
        for (id, number) in [("alice", "+819012345678"), ("bob", "+819000000000")] {
            let secrets = DigestSecrets::of_password(id, "example.com", b"wonderland");
            let mut user = crate::user::tests::user(id, Some(number));
            user.aor = format!("{id}@example.com").parse().unwrap();
            directory.put(User { secrets, ..user });
        }
        let home = Arc::new(Home::new("example.com", [(Transport::Udp, "127.0.0.1:5060".parse().unwrap())]));
        Authenticator::new(AuthenticatorConfig::new([7; 32], 1), home, directory)
    }

    /// A request with these headers and a CSeq.
    fn request(method: &str, from: &str, to: &str, cseq: u32, more: &str) -> Vec<u8> {
        format!(
            "{method} sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{cseq}\r\nFrom: {from};tag=1\r\n\
             To: {to}\r\nCall-ID: c\r\nCSeq: {cseq} {method}\r\n{more}\r\n"
        )
        .into_bytes()
    }

    fn challenged(a: &Authenticator, refusal: Refusal, unix: u64) -> Vec<u8> {
        let bytes = request("REGISTER", "<sip:alice@example.com>", "<sip:alice@example.com>", 1, "");
        let mut out = Vec::new();
        Response::to(&Message::parse(&bytes).unwrap(), 401).write(&mut out, |w| {
            a.write_challenges(&refusal, HeaderName::WwwAuthenticate, unix, w);
        });
        out
    }

    /// The Authorization line for the `pick`th challenge.
    fn line(
        challenge: &[u8],
        pick: usize,
        header: &str,
        method: &str,
        username: &str,
        password: &str,
        nc: u32,
    ) -> String {
        let m = Message::parse(challenge).unwrap();
        let c = Challenge::parse(m.values(HeaderName::WwwAuthenticate).nth(pick).unwrap()).unwrap();
        let answer = Answer {
            username: username.as_bytes(),
            password: password.as_bytes(),
            method: method.as_bytes(),
            uri: b"sip:example.com",
            body: b"",
            cnonce: b"xyz",
            nc,
        };
        let mut out = Vec::new();
        answer.write(&c, &mut out).unwrap();
        format!("{header}: {}\r\n", String::from_utf8(out).unwrap())
    }

    const ALICE: &str = "<sip:alice@example.com>";

    fn register(a: &Authenticator, more: &str, unix: u64) -> Result<Arc<User>, Refusal> {
        let bytes = request("REGISTER", ALICE, ALICE, 2, more);
        a.register(&Message::parse(&bytes).unwrap(), unix)
    }

    #[test]
    fn sha_256_is_offered_first_and_either_algorithm_lets_in() {
        let a = authenticator();
        let text = challenged(&a, Refusal::Missing, NOW);
        let m = Message::parse(&text).unwrap();
        let offered: Vec<_> =
            m.values(HeaderName::WwwAuthenticate).map(|v| Challenge::parse(v).unwrap().algorithm().unwrap()).collect();
        assert_eq!(offered, [Algorithm::Sha256, Algorithm::Md5]);
        for pick in [0, 1] {
            let text = challenged(&a, Refusal::Missing, NOW);
            let l = line(&text, pick, "Authorization", "REGISTER", "alice", "wonderland", 1);
            assert_eq!(&*register(&a, &l, NOW).unwrap().id, "alice");
        }
    }

    #[test]
    fn the_full_private_identity_lets_in_too() {
        let a = authenticator();
        for pick in [0, 1] {
            let text = challenged(&a, Refusal::Missing, NOW);
            let l = line(&text, pick, "Authorization", "REGISTER", "alice@example.com", "wonderland", 1);
            assert!(register(&a, &l, NOW).is_ok());
            let l = line(&text, pick, "Authorization", "REGISTER", "alice@example.org", "wonderland", 2);
            assert_eq!(register(&a, &l, NOW), Err(Refusal::Wrong));
        }
    }

    #[test]
    fn a_stranger_is_refused_like_a_wrong_password() {
        let a = authenticator();
        let text = challenged(&a, Refusal::Missing, NOW);
        for (name, password) in [("alice", "guess"), ("nobody", "wonderland"), ("", ""), ("alice", "")] {
            let l = line(&text, 0, "Authorization", "REGISTER", name, password, 1);
            assert_eq!(register(&a, &l, NOW), Err(Refusal::Wrong), "{name}");
        }
        assert_eq!(challenged(&a, Refusal::Wrong, NOW).len(), text.len());
    }

    #[test]
    fn missing_stale_and_malformed_are_told_apart() {
        let a = authenticator();
        assert_eq!(register(&a, "", NOW), Err(Refusal::Missing));
        let text = challenged(&a, Refusal::Missing, NOW);
        let l = line(&text, 0, "Authorization", "REGISTER", "alice", "wonderland", 1);
        assert_eq!(register(&a, &l, NOW + 601), Err(Refusal::Stale));
        assert_eq!(register(&a, "Authorization: Digest nonsense\r\n", NOW), Err(Refusal::Malformed));
        let ims =
            "Authorization: Digest username=\"alice\",realm=\"example.com\",nonce=\"\",uri=\"sip:x\",response=\"\"\r\n";
        assert_eq!(register(&a, ims, NOW), Err(Refusal::Missing));
        let stale = challenged(&a, Refusal::Stale, NOW);
        let m = Message::parse(&stale).unwrap();
        assert!(m.values(HeaderName::WwwAuthenticate).all(|v| Challenge::parse(v).unwrap().stale));
        assert!(challenged(&a, Refusal::Identity, NOW).len() < stale.len() / 2, "a 403 carries no challenge");
    }

    #[test]
    fn credentials_are_good_for_their_own_account_only() {
        let a = authenticator();
        let bob = "<sip:bob@example.com>";
        for (from, to, good) in [
            (ALICE, "<sip:alice@EXAMPLE.com:5060>", true),
            (ALICE, "<sip:+81-90-1234-5678@example.com;user=phone>", true),
            (ALICE, "<tel:+819012345678>", true),
            (ALICE, "<sip:alice@127.0.0.1>", true),
            (ALICE, bob, false),
            (bob, ALICE, false),
            (ALICE, "<tel:+819000000000>", false),
            (ALICE, "<sip:alice@example.org>", false),
            (ALICE, "<sip:example.com>", false),
        ] {
            let text = challenged(&a, Refusal::Missing, NOW);
            let l = line(&text, 0, "Authorization", "REGISTER", "alice", "wonderland", 1);
            let bytes = request("REGISTER", from, to, 2, &l);
            let got = a.register(&Message::parse(&bytes).unwrap(), NOW).map(|_| ());
            assert_eq!(got, if good { Ok(()) } else { Err(Refusal::Identity) }, "{from} {to}");
        }
    }

    #[test]
    fn a_proxied_request_proves_its_from() {
        let a = authenticator();
        let text = challenged(&a, Refusal::Missing, NOW);
        let l = line(&text, 0, "Proxy-Authorization", "MESSAGE", "alice", "wonderland", 1);
        let bytes = request("MESSAGE", ALICE, "<sip:bob@example.com>", 3, &l);
        assert!(a.proxy_request(&Message::parse(&bytes).unwrap(), HeaderName::From, NOW).is_ok());
        // The retransmission passes, a second request with the same count does not.
        assert!(a.proxy_request(&Message::parse(&bytes).unwrap(), HeaderName::From, NOW).is_ok());
        let bytes = request("MESSAGE", ALICE, "<sip:bob@example.com>", 4, &l);
        assert_eq!(a.proxy_request(&Message::parse(&bytes).unwrap(), HeaderName::From, NOW), Err(Refusal::Stale));
        let bytes = request("INVITE", ALICE, "<sip:bob@example.com>", 5, &l);
        assert_eq!(a.proxy_request(&Message::parse(&bytes).unwrap(), HeaderName::From, NOW), Err(Refusal::Wrong));
        assert_eq!((Refusal::Wrong.proxy_status(), Refusal::Identity.proxy_status()), (407, 403));
    }

    #[test]
    fn an_http_request_proves_its_user_once() {
        let a = authenticator();
        let answer = |name: &str, password: &str, uri: &str, nc: u32, challenge: &[u8]| {
            let (username, password, uri) = (name.as_bytes(), password.as_bytes(), uri.as_bytes());
            let answer = Answer { username, password, method: b"PUT", uri, body: b"", cnonce: b"xyz", nc };
            let mut out = Vec::new();
            answer.write(&Challenge::parse(challenge).unwrap(), &mut out).unwrap();
            out
        };
        let ask = |value: &[u8]| a.http(&[b"Basic eDp5", value], "PUT", "/x?y", NOW).map(|user| user.id.clone());
        assert_eq!(a.http(&[b"Basic eDp5"], "PUT", "/x?y", NOW), Err(Refusal::Missing));
        assert_eq!(ask(b"Digest x"), Err(Refusal::Malformed));
        for pick in [0, 1] {
            let challenge = a.http_challenges(&Refusal::Missing, NOW).swap_remove(pick);
            let good = answer("alice", "wonderland", "/x?y", 1, &challenge);
            assert!(String::from_utf8_lossy(&good).contains("opaque=\"isthmus\""), "some clients cannot do without");
            assert_eq!(ask(&good).as_deref(), Ok("alice"));
            assert_eq!(ask(&good), Err(Refusal::Stale));
            assert_eq!(
                ask(&answer("alice@example.com", "wonderland", "http://h:1/x?y", 2, &challenge)).as_deref(),
                Ok("alice")
            );
            assert_eq!(ask(&answer("alice", "wonderland", "/z", 3, &challenge)), Err(Refusal::Malformed));
            assert_eq!(ask(&answer("alice", "guess", "/x?y", 4, &challenge)), Err(Refusal::Wrong));
            assert_eq!(ask(&answer("nobody", "guess", "/x?y", 4, &challenge)), Err(Refusal::Wrong));
            // As clients write it that escape nothing.
            let quoted = "/x[@name=\"y\"]";
            let good =
                String::from_utf8(answer("alice", "wonderland", quoted, 5, &challenge)).unwrap().replace("\\\"", "\"");
            assert!(good.contains(&format!("uri=\"{quoted}\"")), "{good}");
            let about = |target: &str| a.http(&[good.as_bytes()], "PUT", target, NOW).map(|user| user.id.to_string());
            assert_eq!(about("/x[@name=\"z\"]"), Err(Refusal::Malformed));
            assert_eq!(about(quoted).as_deref(), Ok("alice"));
        }
    }

    #[test]
    fn a_password_is_known_by_both_names_and_no_other() {
        let a = authenticator();
        let user = |name: &str, password: &str| a.password(name, password.as_bytes()).map(|user| user.id.to_string());
        for name in ["alice", "alice@example.com"] {
            assert_eq!(user(name, "wonderland").as_deref(), Some("alice"), "{name}");
            assert_eq!(user(name, "Wonderland"), None, "{name}");
        }
        for name in ["", "nobody", "nobody@example.com", "alice@example.net", "sip:alice@example.com"] {
            assert_eq!(user(name, "wonderland"), None, "{name}");
        }
    }

    #[test]
    fn a_sim_algorithm_is_no_way_around_the_offered_ones() {
        let a = authenticator();
        let text = challenged(&a, Refusal::Missing, NOW);
        let l = line(&text, 1, "Authorization", "REGISTER", "alice", "wonderland", 1).replace("MD5", "AKAv1-MD5");
        assert_eq!(register(&a, &l, NOW), Err(Refusal::Wrong));
    }
}
