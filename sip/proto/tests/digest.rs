//! Judging credentials: what it costs, and that nothing but the right ones pass.

#[path = "support/counting.rs"]
mod counting;

use proptest::prelude::*;
use sip_proto::digest::{Algorithm, Answer, Covered, Ha1, Ledger, Realm, RealmConfig, Verdict};
use sip_proto::headers::{Challenge, Credentials};

const NOW: u64 = 1_800_000_000;
const ALGORITHMS: [Algorithm; 4] = [Algorithm::Sha512_256, Algorithm::Sha256, Algorithm::Sha256Sess, Algorithm::Md5];

fn realm() -> Realm {
    Realm::new(RealmConfig {
        name: "home.example".into(),
        algorithms: ALGORITHMS.to_vec(),
        nonce_lifetime: 300,
        key: [5; 32],
    })
}

/// The Authorization value of a client that knows the password.
fn right(realm: &Realm, algorithm: Algorithm, qop: &[u8]) -> Vec<u8> {
    let nonce = realm.nonces().make(NOW, 1);
    let challenge = Challenge {
        realm: realm.name(),
        nonce: &nonce,
        algorithm: Some(algorithm.as_str().as_bytes()),
        qop: Some(qop),
        ..Challenge::default()
    };
    let answer = Answer {
        username: b"alice",
        password: b"secret",
        method: b"REGISTER",
        uri: b"sip:home.example",
        body: b"body",
        cnonce: b"0a4f113b",
        nc: 1,
    };
    let mut value = Vec::new();
    answer.write(&challenge, &mut value).unwrap();
    value
}

fn judge(realm: &Realm, ledger: &mut Ledger, c: &Credentials<'_>, body: &[u8]) -> Verdict {
    let secret = c.algorithm().map(|a| Ha1::new(a.function(), b"alice", b"home.example", b"secret"));
    realm.judge(ledger, c, &Covered { method: b"REGISTER", body }, secret.as_ref(), 7, NOW)
}

#[test]
fn judging_allocates_nothing() {
    let realm = realm();
    for algorithm in ALGORITHMS {
        let value = right(&realm, algorithm, b"auth");
        let mut ledger = Ledger::new(16);
        let count = counting::allocations(|| {
            let c = Credentials::parse(&value).unwrap();
            assert_eq!(judge(&realm, &mut ledger, &c, b"body"), Verdict::Accepted);
        });
        assert_eq!(count, 0, "{algorithm:?}");
    }
}

#[test]
fn integrity_protection_covers_the_body() {
    let realm = realm();
    for algorithm in ALGORITHMS {
        let (auth, both) = (right(&realm, algorithm, b"auth"), right(&realm, algorithm, b"auth-int"));
        let verdict =
            |value: &[u8], body: &[u8]| judge(&realm, &mut Ledger::new(16), &Credentials::parse(value).unwrap(), body);
        assert_eq!(verdict(&auth, b"other"), Verdict::Accepted);
        assert_eq!(verdict(&both, b"body"), Verdict::Accepted);
        assert_eq!(verdict(&both, b"other"), Verdict::Refused);
    }
}

proptest! {
    /// Every octet of what is hashed counts.
    #[test]
    fn a_change_anywhere_in_what_is_covered_is_not_accepted(
        which in 0usize..4, field in 0usize..5, at in any::<prop::sample::Index>(), flip in 1u8..128,
    ) {
        let realm = realm();
        let value = right(&realm, ALGORITHMS[which], b"auth");
        let mut c = Credentials::parse(&value).unwrap();
        let slot = match field {
            0 => &mut c.nonce,
            1 => &mut c.uri,
            2 => &mut c.response,
            3 => &mut c.cnonce,
            _ => &mut c.nc,
        };
        let mut changed = slot.to_vec();
        let i = at.index(changed.len());
        changed[i] ^= flip;
        // Digits of a response mean the same in either case.
        prop_assume!(field != 2 || !changed[i].eq_ignore_ascii_case(&slot[i]));
        *slot = &changed;
        prop_assert_ne!(judge(&realm, &mut Ledger::new(16), &c, b"body"), Verdict::Accepted);
    }
}
