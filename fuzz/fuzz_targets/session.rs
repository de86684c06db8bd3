//! A Cookie header and the token in it, and the stored sessions of a user: the first octet chooses. Written again, compared.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The server's own, which is no library of few dependencies.
#[path = "../../src/http/session/cookie.rs"]
mod cookie;
#[path = "../../src/http/session/held.rs"]
mod held;

use cookie::Token;
use held::Limits;

const LIMITS: Limits = Limits { idle: 100, lifetime: 1_000, per_user: 4 };

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((0, header)) => token(&String::from_utf8_lossy(header)),
        Some((_, document)) => sessions(document),
        None => {}
    }
});

fn token(header: &str) {
    if let Some(token) = cookie::find([header], "session").and_then(Token::read) {
        let read = Token::read(&token.write());
        assert!(read.is_some_and(|read| read == token));
    }
}

fn sessions(document: &[u8]) {
    let Some(mut sessions) = held::read(document) else { return };
    assert_eq!(held::read(&held::write(&sessions)).as_ref(), Some(&sessions));
    for session in &sessions {
        assert!(!LIMITS.admit(session, 500) || LIMITS.end(session) > 500);
        let _ = LIMITS.stale(session, 500);
    }
    LIMITS.begin(&mut sessions, "new".into(), 500);
    assert!(sessions.len() <= LIMITS.per_user && sessions.iter().all(|s| LIMITS.admit(s, 500)));
}
