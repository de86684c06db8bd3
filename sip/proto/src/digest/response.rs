//! The response value of RFC 7616 §3.4.1, and a client's way to one.

use super::aka::Auts;
use super::algorithm::{Algorithm, Ha1, HashValue};
use crate::headers::{Challenge, Credentials, Qop};

/// What a response covers beside the credentials themselves.
#[derive(Clone, Copy, Debug)]
pub struct Covered<'a> {
    /// The method's token; empty for the server's own proof (`rspauth`, RFC 7616 §3.5).
    pub method: &'a [u8],
    /// Hashed for `auth-int` only.
    pub body: &'a [u8],
}

/// H(A1) ":" nonce ":" nc ":" cnonce ":" qop ":" H(A2), hashed; without qop the short form of RFC 2069, which
/// RFC 3261 §22.4 (8) keeps for old clients. `ha1` must be of the algorithm's hash function.
pub fn response(
    c: &Credentials<'_>,
    algorithm: Algorithm,
    qop: Option<Qop>,
    ha1: &Ha1,
    covered: &Covered<'_>,
) -> HashValue {
    let h = algorithm.function();
    let mut ha1 = ha1.0;
    if algorithm.is_session() {
        ha1 = h.of(&[&ha1.hex(), b":", c.nonce, b":", c.cnonce]);
    }
    let ha2 = match qop {
        Some(Qop::AuthInt) => h.of(&[covered.method, b":", c.uri, b":", &h.of(&[covered.body]).hex()]),
        _ => h.of(&[covered.method, b":", c.uri]),
    };
    match qop {
        None => h.of(&[&ha1.hex(), b":", c.nonce, b":", &ha2.hex()]),
        Some(q) => h.of(&[
            &ha1.hex(),
            b":",
            c.nonce,
            b":",
            c.nc,
            b":",
            c.cnonce,
            b":",
            q.as_str().as_bytes(),
            b":",
            &ha2.hex(),
        ]),
    }
}

/// Why a client cannot answer a challenge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unanswerable {
    #[error("the server asks for an algorithm that is not known here")]
    Algorithm,
    #[error("the server takes no quality of protection that is known here")]
    Qop,
}

/// A client's side of one answer. Answer the topmost challenge of a realm that does not give [`Unanswerable`]
/// (RFC 8760 §2.4), and only for realms that this server or account is set up for.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    pub username: &'a [u8],
    /// The password, or the raw RES for AKA.
    pub password: &'a [u8],
    pub method: &'a [u8],
    /// The Request-URI.
    pub uri: &'a [u8],
    pub body: &'a [u8],
    /// Printable, without quotes and backslashes; at least 64 bits of chance.
    pub cnonce: &'a [u8],
    /// How often this nonce has been used, this time included: 1 for the first.
    pub nc: u32,
}

impl Answer<'_> {
    /// Appends the value of Authorization or Proxy-Authorization.
    pub fn write(&self, challenge: &Challenge<'_>, out: &mut Vec<u8>) -> Result<(), Unanswerable> {
        self.write_with(challenge, None, out)
    }

    /// As [`Answer::write`] for a SIM that did not accept the sequence number: `password` must be empty (RFC 3310 §3.4).
    pub fn write_synchronise(
        &self,
        challenge: &Challenge<'_>,
        auts: &Auts,
        out: &mut Vec<u8>,
    ) -> Result<(), Unanswerable> {
        self.write_with(challenge, Some(auts), out)
    }

    fn write_with(
        &self,
        challenge: &Challenge<'_>,
        auts: Option<&Auts>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unanswerable> {
        let algorithm = challenge.algorithm().ok_or(Unanswerable::Algorithm)?;
        let qop = match challenge.qop {
            None => None,
            Some(_) if challenge.offers(Qop::Auth) => Some(Qop::Auth),
            Some(_) if challenge.offers(Qop::AuthInt) => Some(Qop::AuthInt),
            Some(_) => return Err(Unanswerable::Qop),
        };
        let nc = Credentials::nc_digits(self.nc);
        let token = auts.map(|auts| {
            let mut text = Vec::new();
            auts.write(&mut text);
            text
        });
        let mut c = Credentials {
            username: self.username,
            realm: challenge.realm,
            nonce: challenge.nonce,
            uri: self.uri,
            response: b"",
            algorithm: challenge.algorithm,
            // A server that offers no protection gets none, unless A1 needs it (RFC 7616 §3.4).
            cnonce: if qop.is_some() || algorithm.is_session() { self.cnonce } else { b"" },
            opaque: challenge.opaque,
            qop: qop.map(|q| q.as_str().as_bytes()),
            nc: &nc,
            auts: token.as_deref(),
        };
        let ha1 = Ha1::new(algorithm.function(), self.username, challenge.realm, self.password);
        let hash = response(&c, algorithm, qop, &ha1, &Covered { method: self.method, body: self.body });
        let digits = hash.hex();
        c.response = &digits;
        c.write(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"";

    fn check(c: &Credentials<'_>, user_realm_password: (&[u8], &[u8], &[u8]), method: &[u8]) -> bool {
        let algorithm = c.algorithm().unwrap();
        let (u, r, p) = user_realm_password;
        let ha1 = Ha1::new(algorithm.function(), u, r, p);
        let mine = response(c, algorithm, c.qop().unwrap(), &ha1, &Covered { method, body: BODY });
        HashValue::from_hex(algorithm.function(), c.response) == Some(mine)
    }

    /// RFC 7616 §3.9.1: the same request in MD5 and SHA-256.
    #[test]
    fn examples_of_rfc_7616_verify() {
        for (algorithm, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let value = format!(
                "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
                 cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, response=\"{response}\""
            );
            let c = Credentials::parse(value.as_bytes()).unwrap();
            assert!(check(&c, (b"Mufasa", b"http-auth@example.org", b"Circle of Life"), b"GET"), "{algorithm}");
            assert!(!check(&c, (b"Mufasa", b"http-auth@example.org", b"circle of Life"), b"GET"));
            assert!(!check(&c, (b"Mufasa", b"http-auth@example.org", b"Circle of Life"), b"PUT"));
        }
    }

    /// RFC 2617 §3.5 without qop would be RFC 2069's form; the values are from the errata of RFC 2069.
    #[test]
    fn the_form_without_qop_of_rfc_2069_verifies() {
        let c = Credentials::parse(
            b"Digest username=\"Mufasa\", realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\",\
              uri=\"/dir/index.html\", response=\"1949323746fe6a43ef61f9606e7febea\"",
        )
        .unwrap();
        assert!(check(&c, (b"Mufasa", b"testrealm@host.com", b"CircleOfLife"), b"GET"));
    }

    #[test]
    fn a_client_answers_what_a_server_accepts_for_every_algorithm_and_protection() {
        for algorithm in Algorithm::ALL {
            for qop in [None, Some(&b"auth"[..]), Some(b"auth-int"), Some(b"auth-int, auth")] {
                let challenge = Challenge {
                    realm: b"home",
                    nonce: b"n",
                    algorithm: Some(algorithm.as_str().as_bytes()),
                    qop,
                    opaque: Some(b"o"),
                    stale: false,
                };
                let mut out = Vec::new();
                let answer = Answer {
                    username: b"bob",
                    password: b"pw",
                    method: b"REGISTER",
                    uri: b"sip:home",
                    body: BODY,
                    cnonce: b"c",
                    nc: 10,
                };
                answer.write(&challenge, &mut out).unwrap();
                let c = Credentials::parse(&out).unwrap();
                assert_eq!(c.opaque, Some(&b"o"[..]));
                assert!(check(&c, (b"bob", b"home", b"pw"), b"REGISTER"));
                assert!(!check(&c, (b"bob", b"home", b"pq"), b"REGISTER"));
            }
        }
    }

    #[test]
    fn a_client_does_not_answer_what_it_does_not_know() {
        let answer = Answer { username: b"", password: b"", method: b"", uri: b"", body: b"", cnonce: b"", nc: 1 };
        let challenge = Challenge { algorithm: Some(b"SHA-1024"), ..Challenge::default() };
        assert_eq!(answer.write(&challenge, &mut Vec::new()), Err(Unanswerable::Algorithm));
        let challenge = Challenge { qop: Some(b"auth-conf"), ..Challenge::default() };
        assert_eq!(answer.write(&challenge, &mut Vec::new()), Err(Unanswerable::Qop));
    }
}
