//! Digest authentication (RFC 7616, RFC 3261 §22, RFC 8760) for servers and clients, and AKA under it (RFC 3310).
//!
//! A server holds one [`Realm`]: it writes challenges and judges credentials. Its nonces carry their own proof, so nothing
//! is kept for a client that was only challenged; what is kept is the [`Ledger`] of nonce counts of those that passed.
//! A client holds an [`Answer`].

pub mod aka;
mod algorithm;
mod ledger;
mod nonce;
mod response;

pub use algorithm::{Algorithm, Ha1, HashFunction, HashValue, Hex};
pub(crate) use algorithm::{hex_digit, write_name, write_nc, write_quoted};
pub use ledger::{Count, Ledger};
pub use nonce::{Issued, Nonce, NonceAge, Nonces};
pub use response::{Answer, Covered, Unanswerable, response};

use std::hash::Hasher as _;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use siphasher::sip128::{Hasher128, SipHasher24};
use smallvec::SmallVec;

use crate::edit;
use crate::headers::{Challenge, Credentials};
use crate::message::Message;
use crate::name::HeaderName;

/// A server's protection space (RFC 3261 §22.1).
#[derive(Clone, Debug)]
pub struct Realm {
    name: Vec<u8>,
    algorithms: SmallVec<[Algorithm; 3]>,
    nonces: Nonces,
    decoys: Decoys,
}

/// How a [`Realm`] is set up.
#[derive(Clone, Debug)]
pub struct RealmConfig {
    /// The realm's name; for a home domain the domain itself.
    pub name: String,
    /// Offered in this order, so the strongest first (RFC 8760 §2.3); without AKA, which has its own challenge.
    pub algorithms: Vec<Algorithm>,
    /// Seconds a nonce is good for, at least 1.
    pub nonce_lifetime: u32,
    /// Secret of the house; the nodes of a cluster share it.
    pub key: [u8; 32],
}

/// What was thought of credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Accepted,
    /// The password is right, the nonce is not good any more: challenge again with `stale=true`.
    Stale,
    /// Unknown user or wrong password, nobody can tell which: challenge again, or 403.
    Refused,
    /// Not to be read, or an algorithm or protection that was not offered: 400, or challenge again.
    Unusable,
}

impl Realm {
    pub fn new(config: RealmConfig) -> Realm {
        Realm {
            nonces: Nonces::new(&config.key, config.name.as_bytes(), config.nonce_lifetime),
            decoys: Decoys::new(&config.key),
            algorithms: config.algorithms.into_iter().filter(|a| *a != Algorithm::AkaV1Md5).collect(),
            name: config.name.into_bytes(),
        }
    }

    pub fn name(&self) -> &[u8] {
        &self.name
    }

    pub fn nonces(&self) -> &Nonces {
        &self.nonces
    }

    /// Appends one `WWW-Authenticate` or `Proxy-Authenticate` line per algorithm, all with one nonce.
    /// `now` in unix seconds; `unique` as in [`Nonces::make`].
    pub fn write_challenges(&self, out: &mut Vec<u8>, name: HeaderName, now: u64, unique: u64, stale: bool) {
        let nonce = self.nonces.make(now, unique);
        for challenge in self.challenges(&nonce, stale) {
            edit::header(out, name, |v| challenge.write(v));
        }
    }

    /// One challenge per algorithm, in order of preference, with a nonce from [`Realm::nonces`].
    pub fn challenges<'c>(&'c self, nonce: &'c [u8], stale: bool) -> impl Iterator<Item = Challenge<'c>> {
        self.algorithms.iter().map(move |algorithm| self.challenge(*algorithm, nonce, stale))
    }

    /// The AKAv1-MD5 challenge (RFC 3310 §3.2), with a nonce from [`Nonces::make_aka`].
    pub fn aka_challenge<'c>(&'c self, nonce: &'c [u8], stale: bool) -> Challenge<'c> {
        self.challenge(Algorithm::AkaV1Md5, nonce, stale)
    }

    fn challenge<'c>(&'c self, algorithm: Algorithm, nonce: &'c [u8], stale: bool) -> Challenge<'c> {
        Challenge {
            realm: &self.name,
            nonce,
            algorithm: Some(algorithm.as_str().as_bytes()),
            qop: Some(b"auth"),
            opaque: None,
            stale,
        }
    }

    /// The first credentials in `Authorization` or `Proxy-Authorization` that are for this realm. `Some(Err)`: one cannot
    /// be read, and none of the others is for this realm.
    pub fn credentials<'m>(
        &self,
        message: &Message<'m>,
        name: HeaderName,
    ) -> Option<Result<Credentials<'m>, Unreadable>> {
        let mut unreadable = None;
        for value in message.values(name) {
            match Credentials::parse(value) {
                Some(c) if c.realm == self.name => return Some(Ok(c)),
                Some(_) => {}
                // RFC 4475 §3.3.9: a scheme that nobody knows is no credentials.
                None if !value.get(..6).is_some_and(|s| s.eq_ignore_ascii_case(b"Digest")) => {}
                None => unreadable = Some(Err(Unreadable)),
            }
        }
        unreadable
    }

    /// Judges credentials for this realm, with the same work whether there is such a user or not.
    ///
    /// `secret` is what is kept of the user's password for [`Credentials::algorithm`]'s hash function, `None` for a
    /// stranger. `request` is a hash of what a retransmission has in common with its original (Call-ID, CSeq, branch).
    pub fn judge(
        &self,
        ledger: &mut Ledger,
        c: &Credentials<'_>,
        covered: &Covered<'_>,
        secret: Option<&Ha1>,
        request: u64,
        now: u64,
    ) -> Verdict {
        let (Some(algorithm), Some(qop)) = (c.algorithm(), c.qop()) else { return Verdict::Unusable };
        let offered = self.algorithms.contains(&algorithm) || algorithm == Algorithm::AkaV1Md5;
        if !offered || c.realm != self.name {
            return Verdict::Unusable;
        }
        // Without qop there is no count: such a nonce is good for one request.
        let count = match qop {
            None => 1,
            Some(_) => match c.nonce_count() {
                Some(n) if n > 0 && !c.cnonce.is_empty() => n,
                _ => return Verdict::Unusable,
            },
        };
        // Made for everybody, so that a stranger costs what a user costs.
        let decoy = self.decoys.ha1(algorithm.function(), c.username);
        let known = secret.filter(|s| s.function() == algorithm.function());
        let expected = response(c, algorithm, qop, known.unwrap_or(&decoy), covered);
        let right = HashValue::from_hex(algorithm.function(), c.response) == Some(expected);
        let age = self.nonces.check(c.nonce, now);
        if !(right && known.is_some()) {
            return Verdict::Refused;
        }
        match age {
            NonceAge::Fresh(issued) if ledger.enter(issued, count, request) != Count::Replayed => Verdict::Accepted,
            _ => Verdict::Stale,
        }
    }

    /// Appends the value of Authentication-Info: the server's proof that it knows the secret too (RFC 7616 §3.5).
    /// Nothing for credentials without qop.
    pub fn write_info(&self, out: &mut Vec<u8>, c: &Credentials<'_>, secret: &Ha1, body: &[u8]) {
        let (Some(algorithm), Some(Some(qop))) = (c.algorithm(), c.qop()) else { return };
        let proof = response(c, algorithm, Some(qop), secret, &Covered { method: b"", body });
        out.extend_from_slice(b"qop=");
        out.extend_from_slice(qop.as_str().as_bytes());
        out.extend_from_slice(b", rspauth=");
        write_quoted(out, &proof.hex());
        out.extend_from_slice(b", cnonce=\"");
        // Escaped as it came.
        out.extend_from_slice(c.cnonce);
        out.extend_from_slice(b"\", nc=");
        out.extend_from_slice(c.nc);
    }
}

/// Credentials that break the grammar.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("Malformed Credentials")]
pub struct Unreadable;

/// Secrets of users that do not exist: always the same for the same name, known to nobody.
#[derive(Clone)]
struct Decoys([u8; 16]);

impl Decoys {
    fn new(key: &[u8; 32]) -> Decoys {
        // HMAC takes a key of any length.
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any length is a key");
        mac.update(b"decoy");
        let mut own = [0; 16];
        own.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        Decoys(own)
    }

    fn ha1(&self, function: HashFunction, user: &[u8]) -> Ha1 {
        let mut hash = SipHasher24::new_with_key(&self.0);
        hash.write(user);
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&hash.finish128().as_bytes());
        hash.write_u8(0xff);
        seed[16..].copy_from_slice(&hash.finish128().as_bytes());
        Ha1(HashValue::decoy(function, &seed))
    }
}

impl std::fmt::Debug for Decoys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoys(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Qop;

    const NOW: u64 = 1_800_000_000;

    fn realm() -> Realm {
        Realm::new(RealmConfig {
            name: "home.example".into(),
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            nonce_lifetime: 300,
            key: [9; 32],
        })
    }

    fn challenges(realm: &Realm, now: u64, unique: u64, stale: bool) -> Vec<u8> {
        let mut text = b"SIP/2.0 401 Unauthorized\r\n".to_vec();
        realm.write_challenges(&mut text, HeaderName::WwwAuthenticate, now, unique, stale);
        text.extend_from_slice(b"\r\n");
        text
    }

    fn answer(challenge: &[u8], pick: usize, password: &[u8], nc: u32) -> Vec<u8> {
        let m = Message::parse(challenge).unwrap();
        let c = Challenge::parse(m.values(HeaderName::WwwAuthenticate).nth(pick).unwrap()).unwrap();
        let mut out = Vec::new();
        let a = Answer {
            username: b"bob",
            password,
            method: b"REGISTER",
            uri: b"sip:home.example",
            body: b"",
            cnonce: b"xyz",
            nc,
        };
        a.write(&c, &mut out).unwrap();
        out
    }

    fn judge(realm: &Realm, ledger: &mut Ledger, value: &[u8], known: bool, request: u64, now: u64) -> Verdict {
        let c = Credentials::parse(value).unwrap();
        let ha1 = Ha1::new(c.algorithm().unwrap().function(), b"bob", realm.name(), b"secret");
        let covered = Covered { method: b"REGISTER", body: b"" };
        realm.judge(ledger, &c, &covered, known.then_some(&ha1), request, now)
    }

    #[test]
    fn challenges_stand_in_order_of_preference_with_one_nonce() {
        let text = challenges(&realm(), NOW, 1, true);
        let m = Message::parse(&text).unwrap();
        let all: Vec<_> = m.values(HeaderName::WwwAuthenticate).map(|v| Challenge::parse(v).unwrap()).collect();
        assert_eq!(all.iter().map(|c| c.algorithm().unwrap()).collect::<Vec<_>>(), [Algorithm::Sha256, Algorithm::Md5]);
        assert_eq!(all[0].nonce, all[1].nonce);
        assert!(all.iter().all(|c| c.stale && c.offers(Qop::Auth)));
    }

    #[test]
    fn a_right_answer_is_accepted_for_each_algorithm() {
        let (r, mut l) = (realm(), Ledger::new(64));
        for pick in [0, 1] {
            let a = answer(&challenges(&r, NOW, pick as u64, false), pick, b"secret", 1);
            assert_eq!(judge(&r, &mut l, &a, true, 1, NOW), Verdict::Accepted);
        }
    }

    #[test]
    fn a_stranger_and_a_wrong_password_get_the_same_verdict() {
        let (r, mut l) = (realm(), Ledger::new(64));
        let text = challenges(&r, NOW, 1, false);
        let wrong = answer(&text, 0, b"guess", 1);
        assert_eq!(judge(&r, &mut l, &wrong, true, 1, NOW), Verdict::Refused);
        assert_eq!(judge(&r, &mut l, &wrong, false, 1, NOW), Verdict::Refused);
        assert_eq!(judge(&r, &mut l, &wrong, true, 1, NOW + 1000), Verdict::Refused);
        assert_eq!(judge(&r, &mut l, &answer(&text, 0, b"secret", 1), false, 1, NOW), Verdict::Refused);
    }

    #[test]
    fn an_old_or_foreign_nonce_with_the_right_password_is_stale() {
        let (r, mut l) = (realm(), Ledger::new(64));
        let a = answer(&challenges(&r, NOW, 1, false), 0, b"secret", 1);
        assert_eq!(judge(&r, &mut l, &a, true, 1, NOW + 301), Verdict::Stale);
        let foreign =
            b"SIP/2.0 401 U\r\nWWW-Authenticate: Digest realm=\"home.example\",nonce=\"x\",qop=\"auth\"\r\n\r\n";
        assert_eq!(judge(&r, &mut l, &answer(foreign, 0, b"secret", 1), true, 1, NOW), Verdict::Stale);
    }

    #[test]
    fn a_replay_is_stale_and_a_retransmission_passes() {
        let (r, mut l) = (realm(), Ledger::new(64));
        let text = challenges(&r, NOW, 1, false);
        let a = answer(&text, 0, b"secret", 1);
        assert_eq!(judge(&r, &mut l, &a, true, 1, NOW), Verdict::Accepted);
        assert_eq!(judge(&r, &mut l, &a, true, 1, NOW), Verdict::Accepted);
        assert_eq!(judge(&r, &mut l, &a, true, 2, NOW), Verdict::Stale);
        assert_eq!(judge(&r, &mut l, &answer(&text, 0, b"secret", 2), true, 2, NOW), Verdict::Accepted);
    }

    #[test]
    fn a_wrong_answer_leaves_no_mark_in_the_ledger() {
        let (r, mut l) = (realm(), Ledger::new(64));
        let text = challenges(&r, NOW, 1, false);
        assert_eq!(judge(&r, &mut l, &answer(&text, 0, b"guess", 1), true, 1, NOW), Verdict::Refused);
        assert_eq!(judge(&r, &mut l, &answer(&text, 0, b"secret", 1), true, 2, NOW), Verdict::Accepted);
    }

    #[test]
    fn what_was_not_offered_is_unusable() {
        let (r, mut l) = (realm(), Ledger::new(64));
        for extra in
            ["algorithm=SHA-512-256", "algorithm=MD5-sess", "qop=auth-conf", "qop=auth,nc=0,cnonce=\"a\"", "qop=auth"]
        {
            let text =
                format!("Digest username=\"bob\",realm=\"home.example\",nonce=\"\",uri=\"u\",response=\"\",{extra}");
            assert_eq!(judge(&r, &mut l, text.as_bytes(), true, 1, NOW), Verdict::Unusable, "{extra}");
        }
    }

    #[test]
    fn an_old_client_without_qop_may_use_a_nonce_once() {
        let (r, mut l) = (realm(), Ledger::new(64));
        let text = challenges(&r, NOW, 1, false);
        let m = Message::parse(&text).unwrap();
        let md5 = Challenge::parse(m.values(HeaderName::WwwAuthenticate).nth(1).unwrap()).unwrap();
        let mut a = Vec::new();
        let client = Answer {
            username: b"bob",
            password: b"secret",
            method: b"REGISTER",
            uri: b"sip:home.example",
            body: b"",
            cnonce: b"",
            nc: 1,
        };
        client.write(&Challenge { qop: None, ..md5 }, &mut a).unwrap();
        assert_eq!(judge(&r, &mut l, &a, true, 1, NOW), Verdict::Accepted);
        assert_eq!(judge(&r, &mut l, &a, true, 2, NOW), Verdict::Stale);
    }

    #[test]
    fn credentials_of_other_realms_are_passed_over_and_garbage_is_told() {
        let r = realm();
        let request = |lines: &str| format!("REGISTER sip:home.example SIP/2.0\r\n{lines}\r\n").into_bytes();
        let other = "Authorization: Digest username=\"a\",realm=\"x\",nonce=\"\",uri=\"u\"\r\n";
        let ours = "Authorization: Digest username=\"a\",realm=\"home.example\",nonce=\"\",uri=\"u\"\r\n";
        let found = |lines: &str| {
            let bytes = request(lines);
            let m = Message::parse(&bytes).unwrap();
            r.credentials(&m, HeaderName::Authorization).map(|c| c.map(|c| c.realm.len()))
        };
        assert_eq!(found(&format!("{other}{ours}")), Some(Ok(12)));
        assert_eq!(found(other), None);
        assert_eq!(found("Authorization: Digest x\r\n"), Some(Err(Unreadable)));
        assert_eq!(found("Authorization: NoOneKnowsThisScheme opaque-data=here\r\n"), None);
    }

    #[test]
    fn the_servers_proof_is_the_response_without_a_method() {
        let r = realm();
        let value = answer(&challenges(&r, NOW, 1, false), 0, b"secret", 1);
        let c = Credentials::parse(&value).unwrap();
        let ha1 = Ha1::new(HashFunction::Sha256, b"bob", r.name(), b"secret");
        let mut out = Vec::new();
        r.write_info(&mut out, &c, &ha1, b"");
        let proof = response(&c, Algorithm::Sha256, Some(Qop::Auth), &ha1, &Covered { method: b"", body: b"" });
        let text = String::from_utf8(out).unwrap();
        let hex = String::from_utf8(proof.hex().to_vec()).unwrap();
        assert_eq!(text, format!("qop=auth, rspauth=\"{hex}\", cnonce=\"xyz\", nc=00000001"));
    }
}
