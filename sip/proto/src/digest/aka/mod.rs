//! AKA for IMS registration: authentication vectors, sequence numbers, resynchronisation (TS 33.102 §6.3, RFC 3310).
//!
//! The home subscriber server makes vectors, a registrar only uses them. [`Subscription`] is the maker's arithmetic as a value
//! and [`Usim`] the other end.

mod milenage;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use milenage::xor;
pub use milenage::{Keys, Milenage};

use super::algorithm::{Ha1, HashFunction};
use crate::headers::Credentials;

/// One authentication vector (TS 33.102 §6.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Vector {
    pub rand: [u8; 16],
    /// (SQN xor AK) | AMF | MAC-A.
    pub autn: [u8; 16],
    pub xres: Response,
    pub ck: [u8; 16],
    pub ik: [u8; 16],
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Response(..)")
    }
}

impl std::fmt::Debug for Vector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vector(..)")
    }
}

/// RES or XRES: 4 to 16 octets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Response {
    octets: [u8; 16],
    len: u8,
}

impl Response {
    /// `None` outside 4 to 16 octets.
    pub fn new(res: &[u8]) -> Option<Response> {
        let mut octets = [0; 16];
        octets.get_mut(..res.len())?.copy_from_slice(res);
        (res.len() >= 4).then_some(Response { octets, len: res.len() as u8 })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }

    /// The secret that the client's digest must show: its password is RES, octet for octet (RFC 3310 §3.3).
    pub fn ha1(&self, user: &[u8], realm: &[u8]) -> Ha1 {
        Ha1::new(HashFunction::Md5, user, realm, &self.octets[..usize::from(self.len)])
    }
}

/// What a SIM sends when the sequence number does not please it: (SQN_MS xor AK*) | MAC-S (TS 33.102 §6.3.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Auts(pub [u8; 14]);

impl Auts {
    /// Reads the `auts` parameter: base64 of 14 octets.
    pub fn parse(value: &[u8]) -> Option<Auts> {
        let mut raw = [0u8; 24];
        let n = STANDARD.decode_slice(value, &mut raw).ok()?;
        raw[..n].try_into().ok().map(Auts)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        let mut text = [0u8; 20];
        if let Ok(n) = STANDARD.encode_slice(self.0, &mut text) {
            out.extend_from_slice(&text[..n]);
        }
    }
}

/// RAND and AUTN as a client finds them at the front of the nonce (RFC 3310 §3.2).
pub fn rand_autn(nonce: &[u8]) -> Option<([u8; 16], [u8; 16])> {
    // Server data behind them may be anything, up to a bound of ours.
    let mut raw = [0u8; 192];
    let n = STANDARD.decode_slice(nonce, &mut raw).ok().filter(|n| *n >= 32)?;
    debug_assert!(n <= raw.len());
    let (mut rand, mut autn) = ([0; 16], [0; 16]);
    rand.copy_from_slice(&raw[..16]);
    autn.copy_from_slice(&raw[16..32]);
    Some((rand, autn))
}

/// What a registrar asks for after a synchronisation failure (Cx: SIP-Authorization with RAND and AUTS).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resynchronise {
    pub rand: [u8; 16],
    pub auts: Auts,
}

impl Resynchronise {
    /// What credentials with `auts` ask for. They are to be judged first, with [`Ha1`] of an empty password
    /// (RFC 3310 §3.4); the token proves itself to the maker of vectors.
    pub fn of(c: &Credentials<'_>) -> Option<Resynchronise> {
        Some(Resynchronise { rand: rand_autn(c.nonce)?.0, auts: Auts::parse(c.auts?)? })
    }
}

/// The SIM's token does not prove itself: the client's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the resynchronisation token is not genuine")]
pub struct NotGenuine;

/// One subscriber as the maker of vectors sees it. What must survive is [`Subscription::sqn`].
#[derive(Clone, Debug)]
pub struct Subscription {
    milenage: Milenage,
    amf: [u8; 2],
    /// The last SQN given out, 48 bits: SEQ (43) | IND (5) (TS 33.102 annex C.1.1.1).
    sqn: u64,
}

const SQN_MASK: u64 = (1 << 48) - 1;
const IND_BITS: u32 = 5;
const IND: u64 = 1 << IND_BITS;
/// SIMs may refuse a SEQ that is this far ahead of theirs (TS 33.102 annex C.2.1).
const DELTA: u64 = 1 << 28;

/// SEQ of an SQN: what grows by one with each vector.
pub fn seq(sqn: u64) -> u64 {
    (sqn & SQN_MASK) >> IND_BITS
}

/// The last SQN with that SEQ.
pub fn last_of(seq: u64) -> u64 {
    (seq << IND_BITS | (IND - 1)) & SQN_MASK
}

impl Subscription {
    /// `sqn` is the last one given out, 0 for a new subscriber.
    pub fn new(milenage: Milenage, amf: [u8; 2], sqn: u64) -> Subscription {
        Subscription { milenage, amf, sqn: sqn & SQN_MASK }
    }

    pub fn sqn(&self) -> u64 {
        self.sqn
    }

    /// Makes the next vector. `rand` must be unpredictable.
    pub fn vector(&mut self, rand: [u8; 16]) -> Vector {
        // The next SEQ in the next of the 32 index classes (annex C.1.2).
        let seq = (self.sqn >> IND_BITS).wrapping_add(1);
        let ind = (self.sqn + 1) % IND;
        self.sqn = (seq << IND_BITS | ind) & SQN_MASK;
        let sqn = octets(self.sqn);
        let keys = self.milenage.f2345(&rand);
        let (mac, _) = self.milenage.f1(&rand, sqn, self.amf);
        let mut autn = [0; 16];
        autn[..6].copy_from_slice(&xor(sqn, &keys.ak));
        autn[6..8].copy_from_slice(&self.amf);
        autn[8..].copy_from_slice(&mac);
        let mut res = [0; 16];
        res[..8].copy_from_slice(&keys.res);
        Vector { rand, autn, xres: Response { octets: res, len: 8 }, ck: keys.ck, ik: keys.ik }
    }

    /// Takes the SIM's sequence number over when its token is genuine, unless vectors that follow ours would please it anyway
    /// (TS 33.102 §6.3.5): a token that is sent again sets nothing back.
    pub fn resynchronise(&mut self, r: &Resynchronise) -> Result<(), NotGenuine> {
        let keys = self.milenage.f2345(&r.rand);
        let concealed: [u8; 6] = std::array::from_fn(|i| r.auts.0[i]);
        let sqn = xor(concealed, &keys.ak_star);
        // AMF counts as zero in MAC-S.
        let (_, mac) = self.milenage.f1(&r.rand, sqn, [0; 2]);
        if !bool::from(mac.ct_eq(&r.auts.0[6..])) {
            return Err(NotGenuine);
        }
        let sims = sqn.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        if seq(sims) >= seq(self.sqn) || seq(self.sqn) - seq(sims) >= DELTA {
            self.sqn = sims;
        }
        Ok(())
    }
}

/// The SIM's side (TS 33.102 §6.3.3).
#[derive(Clone, Debug)]
pub struct Usim {
    milenage: Milenage,
    /// The highest SEQ accepted in each index class.
    seq: [u64; IND as usize],
}

/// What a SIM says to a challenge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum UsimAnswer {
    Response(Keys),
    Synchronise(Auts),
    /// The network did not prove itself.
    WrongMac,
}

impl Usim {
    pub fn new(milenage: Milenage, sqn: u64) -> Usim {
        Usim { milenage, seq: [sqn >> IND_BITS; IND as usize] }
    }

    pub fn challenge(&mut self, rand: &[u8; 16], autn: &[u8; 16]) -> UsimAnswer {
        let keys = self.milenage.f2345(rand);
        let sqn = xor(std::array::from_fn(|i| autn[i]), &keys.ak);
        let (mac, _) = self.milenage.f1(rand, sqn, [autn[6], autn[7]]);
        if !bool::from(mac.ct_eq(&autn[8..])) {
            return UsimAnswer::WrongMac;
        }
        let number = sqn.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let (seq, ind) = (number >> IND_BITS, (number % IND) as usize);
        if seq <= self.seq[ind] {
            return UsimAnswer::Synchronise(self.synchronise(rand));
        }
        self.seq[ind] = seq;
        UsimAnswer::Response(keys)
    }

    /// The token that tells the house where this SIM stands.
    pub fn synchronise(&self, rand: &[u8; 16]) -> Auts {
        let keys = self.milenage.f2345(rand);
        let highest = self.seq.iter().copied().enumerate().max_by_key(|(_, s)| *s).unwrap_or((0, 0));
        let sqn = octets((highest.1 << IND_BITS | highest.0 as u64) & SQN_MASK);
        let (_, mac) = self.milenage.f1(rand, sqn, [0; 2]);
        let mut auts = [0; 14];
        auts[..6].copy_from_slice(&xor(sqn, &keys.ak_star));
        auts[6..].copy_from_slice(&mac);
        Auts(auts)
    }
}

fn octets(sqn: u64) -> [u8; 6] {
    let all = sqn.to_be_bytes();
    std::array::from_fn(|i| all[i + 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Algorithm, Answer, Covered, Ledger, Realm, RealmConfig, Verdict};
    use crate::headers::Challenge;
    use crate::message::Message;
    use crate::name::HeaderName;

    const NOW: u64 = 1_800_000_000;

    fn milenage() -> Milenage {
        Milenage::new(&[0x46; 16], &[0xcd; 16])
    }

    #[test]
    fn each_vector_pleases_the_sim_once() {
        let mut home = Subscription::new(milenage(), [0x80, 0], 0);
        let mut sim = Usim::new(milenage(), 0);
        for i in 0..100u8 {
            let v = home.vector([i; 16]);
            let UsimAnswer::Response(keys) = sim.challenge(&v.rand, &v.autn) else { panic!("vector {i} refused") };
            assert_eq!((&keys.res[..], keys.ck, keys.ik), (v.xres.as_bytes(), v.ck, v.ik));
            assert!(matches!(sim.challenge(&v.rand, &v.autn), UsimAnswer::Synchronise(_)));
        }
    }

    #[test]
    fn a_changed_autn_is_refused_by_the_sim() {
        let v = Subscription::new(milenage(), [0; 2], 0).vector([1; 16]);
        for i in 0..16 {
            let mut autn = v.autn;
            autn[i] ^= 1;
            assert!(Usim::new(milenage(), 0).challenge(&v.rand, &autn) == UsimAnswer::WrongMac);
        }
    }

    #[test]
    fn a_house_that_lost_its_count_is_brought_back_by_the_sims_token() {
        let mut sim = Usim::new(milenage(), 5_000_000);
        let mut home = Subscription::new(milenage(), [0x80, 0], 0);
        let v = home.vector([3; 16]);
        let UsimAnswer::Synchronise(auts) = sim.challenge(&v.rand, &v.autn) else { panic!("old number accepted") };
        let mut text = Vec::new();
        auts.write(&mut text);
        assert_eq!(Auts::parse(&text), Some(auts));
        let mut forged = auts;
        forged.0[13] ^= 1;
        let ask = |auts| Resynchronise { rand: v.rand, auts };
        assert_eq!(home.resynchronise(&ask(forged)), Err(NotGenuine));
        assert_eq!(home.sqn() >> 5, 1);
        home.resynchronise(&ask(auts)).unwrap();
        let before = home.sqn();
        assert_eq!(before >> 5, 5_000_000 >> 5);
        home.vector([5; 16]);
        let ahead = home.sqn();
        home.resynchronise(&ask(auts)).unwrap();
        assert_eq!(home.sqn(), ahead, "the same token again sets nothing back");
        let v = home.vector([4; 16]);
        assert!(matches!(sim.challenge(&v.rand, &v.autn), UsimAnswer::Response(_)));
    }

    #[test]
    fn a_house_that_is_too_far_ahead_follows_the_sim_back() {
        let sim = Usim::new(milenage(), 0);
        let mut home = Subscription::new(milenage(), [0x80, 0], 1 << 40);
        let v = home.vector([3; 16]);
        let auts = sim.synchronise(&v.rand);
        home.resynchronise(&Resynchronise { rand: v.rand, auts }).unwrap();
        assert_eq!(home.sqn() >> 5, 0);
    }

    #[test]
    fn a_client_with_a_sim_registers_by_aka() {
        let realm = Realm::new(RealmConfig {
            name: "ims.example".into(),
            algorithms: vec![Algorithm::Md5],
            nonce_lifetime: 60,
            key: [1; 32],
        });
        let vector = Subscription::new(milenage(), [0x80, 0], 0).vector([9; 16]);
        let mut text = b"SIP/2.0 401 Unauthorized\r\n".to_vec();
        let nonce = realm.nonces().make_aka(&vector, b"u", NOW, 1);
        crate::edit::header(&mut text, crate::HeaderName::WwwAuthenticate, |v| {
            realm.aka_challenge(&nonce, false).write(v)
        });
        text.extend_from_slice(b"\r\n");
        let m = Message::parse(&text).unwrap();
        let challenge = Challenge::parse(m.value(HeaderName::WwwAuthenticate).unwrap()).unwrap();
        assert_eq!(challenge.algorithm(), Some(Algorithm::AkaV1Md5));

        let (rand, autn) = rand_autn(challenge.nonce).unwrap();
        let UsimAnswer::Response(keys) = Usim::new(milenage(), 0).challenge(&rand, &autn) else { panic!("refused") };
        let mut value = Vec::new();
        let answer = Answer {
            username: b"u@ims.example",
            password: &keys.res,
            method: b"REGISTER",
            uri: b"sip:ims.example",
            body: b"",
            cnonce: b"c",
            nc: 1,
        };
        answer.write(&challenge, &mut value).unwrap();
        let c = Credentials::parse(&value).unwrap();
        let covered = Covered { method: b"REGISTER", body: b"" };
        assert!(realm.nonces().xres(c.nonce, b"u") == Some(vector.xres));
        let ha1 = vector.xres.ha1(c.username, realm.name());
        let mut ledger = Ledger::new(4);
        assert_eq!(realm.judge(&mut ledger, &c, &covered, Some(&ha1), 1, NOW), Verdict::Accepted);
        let other = Response::new(&[0; 8]).unwrap().ha1(c.username, realm.name());
        assert_eq!(realm.judge(&mut ledger, &c, &covered, Some(&other), 1, NOW), Verdict::Refused);
    }

    #[test]
    fn a_client_whose_sim_counts_otherwise_is_challenged_anew() {
        let realm = Realm::new(RealmConfig {
            name: "ims.example".into(),
            algorithms: vec![Algorithm::Md5],
            nonce_lifetime: 60,
            key: [1; 32],
        });
        let (mut home, mut sim) = (Subscription::new(milenage(), [0x80, 0], 0), Usim::new(milenage(), 9_000_000));
        let vector = home.vector([9; 16]);
        let nonce = realm.nonces().make_aka(&vector, b"u", NOW, 1);
        let challenge = Challenge {
            realm: realm.name(),
            nonce: &nonce,
            algorithm: Some(b"AKAv1-MD5"),
            qop: Some(b"auth"),
            ..Challenge::default()
        };
        let UsimAnswer::Synchronise(auts) = sim.challenge(&vector.rand, &vector.autn) else { panic!("accepted") };
        let answer = Answer {
            username: b"u@ims.example",
            password: b"",
            method: b"REGISTER",
            uri: b"sip:ims.example",
            body: b"",
            cnonce: b"c",
            nc: 1,
        };
        let mut value = Vec::new();
        answer.write_synchronise(&challenge, &auts, &mut value).unwrap();

        let c = Credentials::parse(&value).unwrap();
        let empty = Ha1::new(HashFunction::Md5, c.username, realm.name(), b"");
        let covered = Covered { method: b"REGISTER", body: b"" };
        assert_eq!(realm.judge(&mut Ledger::new(4), &c, &covered, Some(&empty), 1, NOW), Verdict::Accepted);
        home.resynchronise(&Resynchronise::of(&c).unwrap()).unwrap();
        let vector = home.vector([10; 16]);
        assert!(matches!(sim.challenge(&vector.rand, &vector.autn), UsimAnswer::Response(_)));
    }

    #[test]
    fn tokens_of_the_wrong_size_are_not_read() {
        assert_eq!(Auts::parse(b"AAAA"), None);
        assert_eq!(Auts::parse(&[b'A'; 400]), None);
        assert_eq!(rand_autn(b"AAAA"), None);
        assert_eq!(rand_autn(&[b'A'; 4000]), None);
        assert!(Response::new(&[0; 3]).is_none());
        assert!(Response::new(&[0; 17]).is_none());
    }
}
